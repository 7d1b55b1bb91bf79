"""What a gain is worth: the method beside its controls, and every culture's adapter on every other.

Read from a study's results folder alone. A control is a run of another variant, kept in
`<culture>/<model>+<variant>/seed-<n>`; the method itself is in `<culture>/<model>/seed-<n>`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from clca_utils.comparison import read_comparison
from clca_utils.files import read_json
from clca_utils.held_out import changes, read_examined
from clca_utils.report import run_folders, seed_of_run
from clca_utils.uncertainty import holm, paired_change, replicates, surely_other

UNTRAINED = "untrained"
SAME = 1e-9
"""Distances that differ by less are the same answers."""

COLUMNS = [
    *("culture", "model", "control", "seeds", "items", "clca", "other", "difference"),
    *("low", "high", "seeds_low", "seeds_high", "p_value", "p_holm", "verdict"),
]

Distances = pd.DataFrame
"""Jensen-Shannon distance to the people: index qid and seed, columns before and after."""


def owner_of(folder: Path) -> tuple[str, str]:
    """Return the culture and the label (model, or model+variant) whose adapter a run tests."""
    manifest = folder / "manifest.json"
    stages = read_json(manifest).get("stages", {}) if manifest.is_file() else {}
    told = stages.get("05_wvs_analysis", {}).get("parameters", {}).get("adapter_dir")
    culture, label, _ = Path(told or folder).parts[-3:]
    return culture, label


def distances(folders: Sequence[Path]) -> Distances:
    """Read the main reading's distances of some runs that differ by their seed."""
    tables = [
        read_comparison(folder / "tables").main.assign(seed=seed_of_run(folder))
        for folder in folders
    ]
    return pd.concat(tables).pivot(index=["qid", "seed"], columns="variant", values="js_distance")


def surveyed(study: Path, runs: Sequence[str] = ()) -> dict[tuple[str, str], list[Path]]:
    """Return the run folders that have answers, by culture and label, in order."""
    found: dict[tuple[str, str], list[Path]] = {}
    for folder in run_folders(study, runs):
        if (folder / "tables" / "items.csv").is_file():
            culture, label, _ = folder.relative_to(study).parts
            found.setdefault((culture, label), []).append(folder)
    return found


def control_table(study: Path, runs: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Compare the method with each of its controls, item by item.

    Args:
        study: The study's folder.
        runs: Which of its runs count; by default all that are there.
        seed: Of bootstrap and permutations.

    Returns:
        One row per culture, model and control. control: "untrained"; a variant, after its training;
        or "<variant>, untrained", where it asks in another way. seeds: those that both have; items:
        those that both were asked; clca and other: mean distances to the people; difference: clca
        minus other, negative where the method is closer, with its interval over the items, low and
        high, and over seeds (NaN for one); p_value of no difference over the items, distances
        averaged over seeds; p_holm, corrected for the rows of the table; verdict ("closer",
        "further", "not distinguishable").
    """
    found = surveyed(study, runs)
    rows = []
    for (culture, label), folders in found.items():
        if "+" in label or not any(name.startswith(f"{label}+") for at, name in found):
            continue
        mine = distances(folders)
        others = {UNTRAINED: mine["before"]}
        for (at, name), theirs in found.items():
            if at == culture and name.startswith(f"{label}+"):
                control, table = name.partition("+")[2], distances(theirs)
                both = table.index.intersection(mine.index)
                if (table["before"][both] - mine["before"][both]).abs().max() > SAME:
                    others[f"{control}, {UNTRAINED}"] = table["before"]
                others[control] = table["after"]
        rows += [
            {"culture": culture, "model": label, "control": control}
            | _compared(mine["after"], other, seed)
            for control, other in others.items()
        ]
    table = pd.DataFrame(rows, columns=COLUMNS[:-2])
    table["p_holm"] = holm(table["p_value"])
    words = np.where(table["difference"] < 0, "closer", "further")
    return table.assign(verdict=np.where(surely_other(table), words, "not distinguishable"))


def _compared(mine: "pd.Series[float]", other: "pd.Series[float]", seed: int) -> dict[str, float]:
    """Return a row's numbers: the method's distances beside a control's."""
    pair = pd.DataFrame({"clca": mine, "other": other}).dropna()
    items = pair.groupby("qid").mean()
    seeds = pair.groupby("seed").mean()
    change = paired_change(items["other"], items["clca"], seed)
    spread = replicates(seeds["clca"] - seeds["other"])
    return {
        "seeds": len(seeds), "items": len(items), **items.mean(),
        "difference": change.mean, "low": change.low, "high": change.high,
        "seeds_low": spread.low, "seeds_high": spread.high, "p_value": change.p_value,
    }  # fmt: skip


def conclusion(table: pd.DataFrame) -> list[str]:
    """Say of each culture and model, in a sentence, what the method is worth beside its controls.

    Args:
        table: What `control_table` returns.
    """
    told = []
    for (culture, model), rows in table.groupby(["culture", "model"], sort=False):
        verdicts = rows.set_index("control")["verdict"]
        gained = verdicts[UNTRAINED]
        beaten = sorted(verdicts.index[verdicts == "closer"].drop(UNTRAINED, errors="ignore"))
        rest = sorted(set(verdicts.index) - {UNTRAINED, *beaten})
        words = {
            "closer": "closer to the people than untrained",
            "further": "further from the people than untrained",
        }.get(gained, "not distinguishable from untrained")
        sentence = f"{culture}, {model}: after training {words}"
        if gained == "closer" and not rest:
            told.append(f"{sentence}, and closer than every control.")
        else:
            told.append(f"{sentence}; not closer than {', '.join(rest) or 'untrained'}.")
    return told


def surprise_matrix(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return how much each adapter changed the surprise at each culture's held-out conversations.

    Returns:
        Columns model (with its variant), learnt (the adapter's culture, as its folder is called),
        other (the conversations' culture), change (nats a token, mean over conversations and
        seeds), seeds. Only of those who learnt and know at least two cultures.
    """
    rows = []
    for folder in run_folders(study, runs):
        if (folder / "held_out.csv").is_file():
            learnt, label, _ = folder.relative_to(study).parts
            turns = changes(read_examined(folder)).query("task == 'imitation'")
            rows += [
                {"model": label, "learnt": learnt, "other": str(culture).lower(), "change": change}
                for culture, change in turns.groupby("culture")["change"].mean().items()
            ]
    return _matrix(rows)


def people_matrix(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return how much each culture's adapter moved the model's answers towards each people's.

    Returns:
        As `surprise_matrix`; other is whose people, change that of the mean Jensen-Shannon
        distance to them (negative: closer).
    """
    rows = []
    for (culture, label), folders in surveyed(study, runs).items():
        for folder in folders:
            learnt, owner = owner_of(folder)
            if label == owner or learnt != culture:
                mean = distances([folder]).mean()
                change = mean["after"] - mean["before"]
                rows.append({"model": owner, "learnt": learnt, "other": culture, "change": change})
    return _matrix(rows)


def _matrix(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Return means over seeds, of models whose adapters learnt and were tried on two cultures."""
    table = pd.DataFrame(rows, columns=["model", "learnt", "other", "change"])
    means = (
        table.groupby(["model", "learnt", "other"])["change"]
        .agg(change="mean", seeds="size")
        .reset_index()
    )
    sizes = means.groupby("model")[["learnt", "other"]].nunique().min(axis=1)
    return means[means["model"].isin(sizes.index[sizes > 1])].reset_index(drop=True)


def diagonal_advantage(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return by how much a model's own culture changed more than others, on average.

    Args:
        matrix: What `surprise_matrix` or `people_matrix` returns.

    Returns:
        Columns model, own and others (mean changes of the diagonal and of the rest), advantage
        (own minus others; negative: what was learnt belongs to the culture).
    """
    rows = []
    for model, some in matrix.groupby("model"):
        own = some["learnt"] == some["other"]
        mine, rest = some.loc[own, "change"].mean(), some.loc[~own, "change"].mean()
        rows.append({"model": model, "own": mine, "others": rest, "advantage": mine - rest})
    return pd.DataFrame(rows, columns=["model", "own", "others", "advantage"])
