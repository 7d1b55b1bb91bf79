"""What a study found, from its results folder alone: no model is loaded, nothing is asked again."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clca_utils import figures, study_figures, survey_figures
from clca_utils.comparison import UNIFORM, Comparison, read_comparison
from clca_utils.dialogue import Dialogue
from clca_utils.files import StudyError, read_json, read_records, shown
from clca_utils.held_out import changes, read_examined
from clca_utils.intent import Intent
from clca_utils.items import load_items
from clca_utils.judging import Judgement
from clca_utils.scenario import Scenario
from clca_utils.tables import intent_table, judgement_table, slot_table, turn_table
from clca_utils.uncertainty import holm, paired_change, replicates, surely_other


def run_folders(study: Path, runs: Sequence[str] = ()) -> list[Path]:
    """Return a study's run folders, <culture>/<model>[+<variant>]/seed-<n>, in order.

    Args:
        study: The study's folder.
        runs: Which of them count, relative to it; by default all that are there.

    Raises:
        StudyError: There is none.
    """
    there = [path.parent for path in study.glob("*/*/seed-*/metrics")]
    folders = [path for path in there if not runs or path.relative_to(study).as_posix() in runs]
    if not folders:
        raise StudyError(f"{shown(study)} holds no run: run the study's stages 01 to 05 first.")
    return sorted(folders, key=lambda folder: (folder.parent, seed_of_run(folder)))


def of_the_method(study: Path, runs: Sequence[str] = ()) -> list[str]:
    """Return the runs of the method itself, as `run_folders` takes them, without its controls.

    Those of a study that has nothing but controls are all of them. `runs` is as for `run_folders`.
    """
    names = [path.relative_to(study).as_posix() for path in run_folders(study, runs)]
    return [name for name in names if "+" not in name] or names


def seed_of_run(folder: Path) -> int:
    """Return the seed that a run folder is named after."""
    return int(folder.name.removeprefix("seed-"))


def study_table(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per run: culture, model, seed, and every metric of its stages.

    `runs` is as for `run_folders`.

    A variant stands with the model, as in "model+variant". A metric is named as in its file; of a
    run whose simulator is another model, those of stages 01 to 03 stand in the simulator's row.
    """
    rows = []
    for folder in run_folders(study, runs):
        culture, model, _ = folder.relative_to(study).parts
        row = {"culture": culture, "model": model, "seed": seed_of_run(folder)}
        for path in sorted((folder / "metrics").glob("*.json")):
            row |= read_json(path)
        rows.append(row)
    return pd.DataFrame(rows)


SUMMARY = {
    "before": "js_distance_before",
    "after": "js_distance_after",
    "uniform": "js_distance_uniform",
    "human floor": "js_distance_human_floor",
    "score before": "normalised_score_before",
    "score after": "normalised_score_after",
    "low-trust items": "low_trust_items",
    "synthetic respondents": "synthetic_respondents",
}


def summary_table(study: Path, runs: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Return the study's main table: one row per culture and model, seeds as replicates.

    Args:
        study: The study's folder.
        runs: Which of its runs count; by default all that are there.
        seed: Of bootstrap and permutations.

    Returns:
        Index culture, model. Columns: seeds; before, after, uniform, human floor (mean
        Jensen-Shannon distances, base 2); the normalised scores (0: uniform, 1: human floor);
        low-trust items and synthetic respondents, how many; change (after - before, negative is
        closer), with the ends of its interval over the items, `low` and `high`, and over the seeds,
        `seeds_low` and `seeds_high` (NaN for one seed); `p_value` of no change, over the items,
        their distances averaged over the seeds; `p_holm`, corrected for the number of rows; and the
        verdict: better, worse, or not distinguishable, which it also is where the interval over
        several seeds holds 0.
    """
    found = study_table(study, runs)
    asked = found.reindex(columns=[*found, *{*SUMMARY.values()} - set(found)])
    asked = asked.dropna(subset=["js_distance_before", "js_distance_after"])
    rows = []
    for (culture, model), group in asked.groupby(["culture", "model"]):
        folders = [study / str(culture) / str(model) / f"seed-{number}" for number in group["seed"]]
        tables = pd.concat([read_comparison(folder / "tables").main for folder in folders])
        by_item = tables.groupby(["qid", "variant"])["js_distance"].mean().unstack()
        change = paired_change(by_item["before"], by_item["after"], seed)
        over_seeds = replicates(group["js_distance_after"] - group["js_distance_before"])
        row = {"culture": culture, "model": model, "seeds": len(group)}
        row |= {name: group[metric].mean() for name, metric in SUMMARY.items()}
        row |= {"change": change.mean, "low": change.low, "high": change.high}
        row |= {"seeds_low": over_seeds.low, "seeds_high": over_seeds.high}
        rows.append(row | {"p_value": change.p_value})
    columns = ["culture", "model", "seeds", *SUMMARY, *CHANGE]
    table = pd.DataFrame(rows, columns=columns).set_index(["culture", "model"])
    table["p_holm"] = holm(table["p_value"])
    words = np.where(table["change"] < 0, "better", "worse")
    return table.assign(verdict=np.where(surely_other(table), words, "not distinguishable"))


CHANGE = ["change", "low", "high", "seeds_low", "seeds_high", "p_value"]


def run_figures(run: Path, seed: int = 0) -> dict[str, Figure]:
    """Draw all figures for which a run folder holds the artefacts, name to figure.

    Args:
        run: The folder.
        seed: Of the bootstrap; with the run's own the figures are those of its stages.
    """
    drawn: dict[str, Figure] = {}
    if (run / "scenarios.jsonl").is_file():
        scenarios = read_records(run / "scenarios.jsonl", Scenario)
        drawn["scenarios"] = figures.scenario_figure(slot_table(scenarios))
    if (run / "judgements.jsonl").is_file():
        turns = turn_table(read_records(run / "dialogues.jsonl", Dialogue))
        judged = judgement_table(read_records(run / "judgements.jsonl", Judgement))
        drawn["dialogues"] = figures.dialogue_figure(turns, judged)
    if (run / "intents.jsonl").is_file():
        intents = read_records(run / "intents.jsonl", Intent)
        drawn["intents"] = figures.intent_figure(intent_table(intents))
    for name, draw in (
        ("judge_agreement", figures.agreement_figure),
        ("intent_agreement", figures.intent_agreement_figure),
    ):
        if (path := run / f"{name}.csv").is_file():
            measured = pd.read_csv(path, float_precision="round_trip")
            drawn |= {name: draw(measured)} if len(measured) else {}
    if (run / "training_log.csv").is_file():
        drawn["loss"] = figures.loss_figure(pd.read_csv(run / "training_log.csv"))
    if (run / "held_out.csv").is_file():
        drawn["held_out"] = figures.surprise_figure(changes(read_examined(run)))
    if (run / "tables").is_dir():
        drawn |= comparison_figures(read_comparison(run / "tables"), seed)
    return drawn


def comparison_figures(seen: Comparison, seed: int) -> dict[str, Figure]:
    """Draw the figures of a run's comparison with the people, name to figure.

    Args:
        seen: The comparison.
        seed: Of the bootstrap.
    """
    items, country, tiers = load_items("all"), seen.country, seen.tiers
    drawn = {
        "distance": survey_figures.distance_figure(
            seen.items, seen.references, seen.country, seen.note, seed
        ),
        "distribution": survey_figures.distribution_figure(
            seen.model_shares, seen.people, items, country=country, tiers=tiers
        ),
        "calibration": survey_figures.calibration_figure(
            seen.model_shares, seen.people, items, country=country, tiers=tiers
        ),
        "position": survey_figures.position_figure(seen.positions),
        "moved_items": survey_figures.moved_items_figure(seen.items, seen.references, tiers),
    }
    for name in ("distribution", "calibration", "moved_items"):
        figures.noted(drawn[name], seen.note)
    return drawn | {
        f"map_{name}": figures.noted(map_figure([("model", seen.iso3, some)]), seen.note)
        for name, some in seen.places.groupby("map")
    }


def study_maps(study: Path, runs: Sequence[str] = ()) -> dict[str, Figure]:
    """Draw the cultural maps with all models of a study, name to figure.

    Runs whose maps were drawn through other countries or items than the first run's are left out:
    their places can't be compared.

    Args:
        study: The study's folder.
        runs: Which of its runs count; by default all that are there.
    """
    found: dict[str, list[tuple[str, str, pd.DataFrame]]] = {}
    for folder in run_folders(study, runs):
        if not (folder / "tables").is_dir():
            continue
        seen = read_comparison(folder / "tables")
        label = " ".join(folder.relative_to(study).parts)
        for name, places in seen.places.groupby("map"):
            found.setdefault(f"map_{name}", []).append((label, seen.iso3, places))
    return {name: map_figure(some) for name, some in found.items()}


def map_figure(runs: Sequence[tuple[str, str, pd.DataFrame]]) -> Figure:
    """Draw one cultural map with the models of some runs.

    Args:
        runs: Of each run what to call it, the three letters of the country whose culture was to
            be learnt, and the rows of `Comparison.places` of the map.
    """
    first = runs[0][2]
    countries = first[first["kind"] == "country"]
    same = [run for run in runs if _countries(run[2]).equals(_countries(first))]
    learnt = {iso3 for _, iso3, _ in same}
    arrows = []
    for label, _, places in same:
        models = places[places["kind"] != "country"]
        spots = models.set_index("kind")[["x", "y"]].reindex(["before", "after"])
        ends = [f"{axis}{end}" for end in (0, 1) for axis in "xy"]
        arrow = dict(zip(ends, spots.to_numpy().ravel(), strict=True))
        arrows.append({**arrow, "label": label})
    ((even_x, even_y),) = first.loc[first["kind"] == UNIFORM, ["x", "y"]].to_numpy(dtype=float)
    return study_figures.cultural_map_figure(
        countries.assign(highlight=countries["label"].isin(learnt)),
        pd.DataFrame(arrows),
        (str(first["x_title"].iloc[0]), str(first["y_title"].iloc[0])),
        (even_x, even_y),
    )


def _countries(places: pd.DataFrame) -> pd.DataFrame:
    rows = places[places["kind"] == "country"]
    return rows[["label", "x", "y"]].round(6).reset_index(drop=True)
