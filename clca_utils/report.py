"""What a study found, from its results folder alone: no model is loaded, nothing is asked again."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clca_utils import figures, study_figures, survey_figures
from clca_utils.comparison import UNIFORM, Comparison, read_comparison, read_table
from clca_utils.dialogue import Dialogue
from clca_utils.files import read_records
from clca_utils.held_out import changes, read_examined
from clca_utils.intent import Intent
from clca_utils.items import load_items
from clca_utils.judging import Judgement
from clca_utils.scenario import Scenario
from clca_utils.study_tables import by_model, run_folders
from clca_utils.tables import intent_table, judgement_table, slot_table, turn_table
from clca_utils.uncertainty import holm, paired_changes, replicates, verdicts

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


def summary_table(found: pd.DataFrame, by_item: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the study's main table: one row per culture and model, seeds as replicates.

    Args:
        found: What `study_tables.study_table` returns.
        by_item: What `study_tables.item_distances` returns of the same runs.
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
    asked = found.reindex(columns=[*found, *{*SUMMARY.values()} - set(found)])
    asked = asked.dropna(subset=["js_distance_before", "js_distance_after"])
    groups, distances = by_model(asked), by_model(by_item)
    items = [distances[key].groupby("qid")[["before", "after"]].mean() for key in groups]
    changes = paired_changes([(one["before"], one["after"]) for one in items], seed)
    rows = []
    for ((culture, model), group), change in zip(groups.items(), changes, strict=True):
        over_seeds = replicates(group["js_distance_after"] - group["js_distance_before"])
        row = {"culture": culture, "model": model, "seeds": len(group)}
        row |= {name: group[metric].mean() for name, metric in SUMMARY.items()}
        row |= {"change": change.mean, "low": change.low, "high": change.high}
        row |= {"seeds_low": over_seeds.low, "seeds_high": over_seeds.high}
        rows.append(row | {"p_value": change.p_value})
    columns = ["culture", "model", "seeds", *SUMMARY, *CHANGE]
    table = pd.DataFrame(rows, columns=columns).set_index(["culture", "model"])
    table["p_holm"] = holm(table["p_value"])
    return table.assign(verdict=verdicts(table, "change", "better", "worse"))


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


MANY = 6
"""Arrows on one map; of more, each model gets its own map."""


def study_maps(study: Path, runs: Sequence[str] = ()) -> dict[str, Figure]:
    """Draw the cultural maps with all models of a study, name to figure.

    A model's place is the mean over its seeds. Where there are too many arrows for one map, each
    model has its own, `<map>_<model>`. Runs whose maps were drawn through other countries or items
    than the first run's are left out: their places can't be compared.

    Args:
        study: The study's folder.
        runs: Which of its runs count; by default all that are there.
    """
    found: dict[str, list[tuple[str, str, str, pd.DataFrame]]] = {}
    for folder in run_folders(study, runs):
        if not (folder / "tables").is_dir():
            continue
        iso3 = str(read_table(folder / "tables", "coverage")["iso3"].iloc[0])
        culture, model, _ = folder.relative_to(study).parts
        for name, places in read_table(folder / "tables", "places").groupby("map"):
            found.setdefault(f"map_{name}", []).append((culture, model, iso3, places))
    drawn = {}
    for name, some in found.items():
        whole = len({run[:2] for run in some}) <= MANY
        for model in [""] if whole else sorted({run[1] for run in some}):
            mine = [
                (f"{culture} {label}" if whole else culture, iso3, places)
                for culture, label, iso3, places in some
                if model in ("", label)
            ]
            drawn[f"{name}_{model}" if model else name] = map_figure(mine)
    return drawn


def map_figure(runs: Sequence[tuple[str, str, pd.DataFrame]]) -> Figure:
    """Draw one cultural map with the models of some runs.

    Args:
        runs: Of each run what to call it, the three letters of the country whose culture was to
            be learnt, and the rows of `Comparison.places` of the map. Those called alike are one
            arrow, at their mean.
    """
    first = runs[0][2]
    countries = first[first["kind"] == "country"]
    same = [run for run in runs if _countries(run[2]).equals(_countries(first))]
    learnt = {iso3 for _, iso3, _ in same}
    arrows = []
    for label in dict.fromkeys(label for label, _, _ in same):
        models = pd.concat([places for name, _, places in same if name == label])
        spots = models.groupby("kind")[["x", "y"]].mean().reindex(["before", "after"])
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
