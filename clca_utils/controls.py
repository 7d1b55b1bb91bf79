"""What a gain is worth: the method beside its controls, and every culture's adapter on every other.

Read from a study's results folder alone. A control is a run of another variant, kept in
`<culture>/<model>+<variant>/seed-<n>`; the method itself is in `<culture>/<model>/seed-<n>`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from clca_utils.files import read_json
from clca_utils.held_out import changes, read_examined
from clca_utils.study_tables import RUN, folder_of, run_folders, seed_of_run
from clca_utils.uncertainty import holm, paired_change, paired_changes, replicates, verdicts

UNTRAINED = "untrained"
SAME = 1e-9
"""Distances that differ by less are the same answers."""

COLUMNS = [
    *("culture", "model", "control", "seeds", "items", "clca", "other", "difference"),
    *("low", "high", "seeds_low", "seeds_high", "p_value", "p_holm", "verdict"),
]


def owner_of(folder: Path) -> tuple[str, str]:
    """Return the culture and the label (model, or model+variant) whose adapter a run tests."""
    manifest = folder / "manifest.json"
    stages = read_json(manifest).get("stages", {}) if manifest.is_file() else {}
    told = stages.get("05_wvs_analysis", {}).get("parameters", {}).get("adapter_dir")
    culture, label, _ = Path(told or folder).parts[-3:]
    return culture, label


def control_table(by_item: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Compare the method with each of its controls, item by item.

    Args:
        by_item: What `study_tables.item_distances` returns.
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
    sides = {
        (str(culture), *side): pair
        for culture, rows in by_item.groupby("culture")
        for side, pair in _pairs(rows).items()
    }
    table = pd.DataFrame(list(sides), columns=COLUMNS[:3])
    table = table.join(pd.DataFrame(_compared(list(sides.values()), seed), columns=COLUMNS[3:-2]))
    table["p_holm"] = holm(table["p_value"])
    return table.assign(verdict=verdicts(table, "difference", "closer", "further"))


def _pairs(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the method's distances (clca) beside each control's (other), of one culture.

    By model and control; index qid and seed.
    """
    before, after = (
        rows.pivot(index=["qid", "seed"], columns="model", values=name)
        for name in ("before", "after")
    )
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for label in after:
        model, _, control = str(label).partition("+")
        if not control or model not in after:
            continue
        others = {UNTRAINED: before[model]}
        if (before[label] - before[model]).abs().max() > SAME:
            others[f"{control}, {UNTRAINED}"] = before[label]
        others[control] = after[label]
        for name, other in others.items():
            pair = pd.DataFrame({"clca": after[model], "other": other}).dropna()
            if len(pair):
                found.setdefault((model, name), pair)
    return dict(sorted(found.items(), key=lambda one: one[0][0]))


def _compared(pairs: Sequence[pd.DataFrame], seed: int) -> list[dict[str, float]]:
    """Return the numbers of rows: the method's distances beside a control's."""
    items = [pair.groupby("qid").mean() for pair in pairs]
    changes = paired_changes([(one["other"], one["clca"]) for one in items], seed)
    rows = []
    for pair, by_item, change in zip(pairs, items, changes, strict=True):
        seeds = pair.groupby("seed").mean()
        spread = replicates(seeds["clca"] - seeds["other"])
        rows.append(
            {
                "seeds": len(seeds), "items": len(by_item), **by_item.mean(),
                "difference": change.mean, "low": change.low, "high": change.high,
                "seeds_low": spread.low, "seeds_high": spread.high, "p_value": change.p_value,
            }
        )  # fmt: skip
    return rows


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


def exam_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return what each model expected and knew before and after, of texts nobody learnt from.

    Args:
        found: What `study_tables.study_table` returns.

    Returns:
        One row per model, with its variant: model; runs, how many; the means over them of every
        perplexity and share of right answers that `held_out.exam_metrics` names.
    """
    measured = found.filter(regex="^(perplexity|questions_right)_").columns
    sat = found.dropna(subset=measured, how="all") if len(measured) else found.head(0)
    means = sat.groupby("model")[list(measured)].mean()
    means.insert(0, "runs", sat.groupby("model").size())
    return means.reset_index()


MOVED = ["model", "learnt", "other", "unit", "seed", "change"]
"""What every culture's adapter changed at every culture: model, with its variant; learnt, the
adapter's culture, as its folder is called; other, whose conversations or people; unit, one of them;
seed; change."""


def surprise_changes(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return how much each adapter changed the surprise at each culture's held-out conversations.

    Returns:
        `MOVED`; unit is a conversation, change in nats a token. Only of models whose adapters
        learnt, and were examined on, at least two cultures.
    """
    found = {}
    for folder in run_folders(study, runs):
        if (folder / "held_out.csv").is_file():
            learnt, label, _ = folder.relative_to(study).parts
            exam = read_examined(folder)
            found[learnt, label, seed_of_run(folder)] = exam[exam["task"] == "imitation"]
    if not found:
        return pd.DataFrame(columns=MOVED)
    exams = pd.concat(found, names=["by", "model", "seed"]).reset_index()
    turns = changes(exams, ["by", "model", "seed"]).drop(columns="learnt")
    unit, other = turns["id"].str.partition("/")[0], turns["culture"].str.lower()
    return _square(turns.assign(learnt=turns["by"], other=other, unit=unit)[MOVED])


def people_changes(study: Path, by_item: pd.DataFrame) -> pd.DataFrame:
    """Return how much each culture's adapter moved the model's answers towards each people's.

    Args:
        study: The study's folder, whose manifests tell whose adapter a run tested.
        by_item: What `study_tables.item_distances` returns of it.

    Returns:
        `MOVED`; other is whose people, unit an item, change that of the Jensen-Shannon distance to
        them (negative: closer). Only of models as in `surprise_changes`.
    """
    tested = by_item[RUN].drop_duplicates()
    owners = [owner_of(folder_of(study, *run)) for run in tested.itertuples(index=False)]
    tested = tested.assign(learnt=[c for c, _ in owners], owner=[label for _, label in owners])
    table = by_item.merge(tested, on=RUN)
    table = table[(table["model"] == table["owner"]) | (table["learnt"] != table["culture"])]
    table = table.assign(model=table["owner"], change=table["after"] - table["before"])
    return _square(table.rename(columns={"culture": "other", "qid": "unit"})[MOVED])


def _square(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of models tried on two cultures, each by its own adapter and by another."""
    table = table.astype({"seed": int, "change": float}).reset_index(drop=True)
    own = table["learnt"] == table["other"]
    sides = table.assign(own=own).groupby("model")[["learnt", "other", "own"]].nunique().min(axis=1)
    return table[table["model"].isin(sides.index[sides > 1])].reset_index(drop=True)


def matrix(moved: pd.DataFrame) -> pd.DataFrame:
    """Return the mean change by model, learnt and other, with the number of seeds.

    Args:
        moved: What `surprise_changes` or `people_changes` returns.
    """
    cells = moved.groupby(["model", "learnt", "other"])
    return cells.agg(change=("change", "mean"), seeds=("seed", "nunique")).reset_index()


def diagonal_advantage(moved: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return by how much adapters change more at their own culture than other cultures' do.

    Each conversation or item is compared with itself: what its own culture's adapter changed there,
    beside what the others changed at the same. So it does not matter which culture is easier.

    Args:
        moved: What `surprise_changes` or `people_changes` returns.
        seed: Of bootstrap and permutations.

    Returns:
        One row per model: model, units, own and others (mean changes), advantage (own minus others;
        negative: what was learnt belongs to the culture) with its interval over the units, low and
        high, over the seeds, seeds_low and seeds_high (NaN for one), p_value of no advantage over
        the units, and verdict ("more", "less", "not distinguishable").
    """
    rows = []
    for model, some in moved.groupby("model"):
        whose = np.where(some["learnt"] == some["other"], "own", "others")
        cells = some.assign(whose=whose).groupby(["other", "unit", "seed", "whose"])["change"]
        pairs = cells.mean().unstack("whose").dropna()
        if pairs.empty:  # no culture's own adapter has another beside it yet
            continue
        units, seeds = (pairs.groupby(level=level).mean() for level in (["other", "unit"], "seed"))
        change = paired_change(units["others"], units["own"], seed)
        spread = replicates(seeds["own"] - seeds["others"])
        rows.append(
            {
                "model": model, "units": len(units), "own": units["own"].mean(),
                "others": units["others"].mean(), "advantage": change.mean, "low": change.low,
                "high": change.high, "seeds_low": spread.low, "seeds_high": spread.high,
                "p_value": change.p_value,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=ADVANTAGE).assign(p_holm=lambda t: holm(t["p_value"]))
    return table.assign(verdict=verdicts(table, "advantage", "more", "less"))


ADVANTAGE = [
    *("model", "units", "own", "others", "advantage", "low", "high"),
    *("seeds_low", "seeds_high", "p_value"),
]
