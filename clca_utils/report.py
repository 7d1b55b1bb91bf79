"""What a study found, from its results folder alone: no model is loaded, nothing is asked again."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clca_utils import figures
from clca_utils.comparison import read_comparison
from clca_utils.dialogue import Dialogue
from clca_utils.files import StudyError, read_json, read_records, shown
from clca_utils.intent import Intent
from clca_utils.judging import Judgement
from clca_utils.scenario import Scenario
from clca_utils.survey import load_items
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
        drawn |= survey_figures(run / "tables", seed)
    return drawn


def survey_figures(tables: Path, seed: int) -> dict[str, Figure]:
    """Draw the figures of a run's survey tables, name to figure; the seed is the bootstrap's."""
    seen = read_comparison(tables)
    return {
        "distance": figures.distance_figure(
            seen.items, seen.references, seen.country, seen.note, seed
        ),
        "distribution": figures.distribution_figure(
            seen.model_shares, seen.people, load_items(), country=seen.country
        ),
        "position": figures.position_figure(seen.positions),
        "moved_items": figures.moved_items_figure(seen.items),
    }
