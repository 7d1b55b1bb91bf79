"""What a study found, from its results folder alone: no model is loaded, nothing is asked again."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clca_utils import figures, study_figures, survey_figures
from clca_utils.comparison import Comparison, read_comparison
from clca_utils.dialogue import Dialogue
from clca_utils.files import StudyError, read_json, read_records, shown
from clca_utils.intent import Intent
from clca_utils.items import load_items
from clca_utils.judging import Judgement
from clca_utils.scenario import Scenario
from clca_utils.tables import intent_table, judgement_table, slot_table, turn_table


def run_folders(study: Path, runs: Sequence[str] = ()) -> list[Path]:
    """Return a study's run folders, <culture>/<model>/seed-<n>, in order.

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


def seed_of_run(folder: Path) -> int:
    """Return the seed that a run folder is named after."""
    return int(folder.name.removeprefix("seed-"))


def study_table(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per run: culture, model, seed, and every metric of its stages.

    `runs` is as for `run_folders`.

    A metric is named as in its file; of a run whose simulator is another model, those of stages 01
    to 03 stand in the simulator's row.
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
    "change": "change",
    "uniform": "js_distance_uniform",
    "human floor": "js_distance_human_floor",
    "score before": "normalised_score_before",
    "score after": "normalised_score_after",
}


def summary_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the study's main table: one row per culture and model, means over its seeds.

    Args:
        runs: What `study_table` returns.

    Returns:
        Index culture, model. Columns: seeds; before, after, change, uniform, human floor (mean
        Jensen-Shannon distances, base 2; a negative change is closer); the normalised scores (0:
        uniform, 1: human floor); "seeds closer", how many seeds came closer with p below .05 (an
        exact count, not corrected for many comparisons).
    """
    absent = {*SUMMARY.values(), "p_value"} - set(runs)
    asked = runs.reindex(columns=[*runs, *absent]).dropna(subset=["js_distance_before"])
    by_run = asked.groupby(["culture", "model"])
    means = by_run[list(SUMMARY.values())].mean()
    means.columns = list(SUMMARY)
    sure = asked[(asked["change"] < 0) & (asked["p_value"] < 0.05)]
    closer = sure.groupby(["culture", "model"]).size().reindex(means.index, fill_value=0)
    means.insert(0, "seeds", by_run.size())
    return means.assign(**{"seeds closer": closer})


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
    if (run / "training_log.csv").is_file():
        drawn["loss"] = figures.loss_figure(pd.read_csv(run / "training_log.csv"))
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
    return drawn | {
        f"map_{name}": map_figure(some, {seen.iso3}) for name, some in seen.places.groupby("map")
    }


def map_figure(places: pd.DataFrame, learnt: Collection[str], model: str = "model") -> Figure:
    """Draw one cultural map.

    Args:
        places: Rows of `Comparison.places`, of one map.
        learnt: The countries whose culture was to be learnt, by their three letters.
        model: What to call the model.
    """
    countries = places[places["kind"] == "country"]
    countries = countries.assign(highlight=countries["label"].isin(learnt))
    spots = places.set_index("kind")[["x", "y"]]
    before, after = (
        spots.loc[kind] if kind in spots.index else pd.Series({"x": np.nan, "y": np.nan})
        for kind in ("before", "after")
    )
    arrow = {"x0": before["x"], "y0": before["y"], "x1": after["x"], "y1": after["y"]}
    titles = tuple(places[["x_title", "y_title"]].iloc[0])
    models = pd.DataFrame([{**arrow, "label": model}])
    return study_figures.cultural_map_figure(countries, models, titles, tuple(spots.loc["uniform"]))
