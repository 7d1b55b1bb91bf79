"""The method beside its controls: what beats what, and what each culture's adapter moves."""

import json

import numpy as np
import pandas as pd
import pytest
from test_held_out import exam
from test_report import metrics, tables

from clca_utils import controls
from clca_utils.comparison import write_comparison
from clca_utils.controls import (
    conclusion,
    diagonal_advantage,
    exam_table,
    matrix,
    owner_of,
    surprise_changes,
)
from clca_utils.files import write_metrics, write_text
from clca_utils.study_figures import matrix_figure
from clca_utils.study_tables import item_distances

RUNS = {  # mean distance before and after
    "german/small": (0.40, 0.30),
    "german/small+neutral-text": (0.40, 0.38),
    "german/small+wrong-culture-japanese": (0.40, 0.35),
    "german/small+persona-prompt": (0.36, 0.31),
    "japanese/small": (0.45, 0.44),
    "japanese/small+neutral-text": (0.45, 0.41),
    "japanese/small+wrong-culture-german": (0.45, 0.46),
}


def control_table(study, runs=()):
    return controls.control_table(item_distances(study, runs))


def people_changes(study, runs=()):
    return controls.people_changes(study, item_distances(study, runs))


@pytest.fixture
def study(tmp_path):
    """Return a results folder of two cultures, their controls, and two seeds."""
    for name, (before, after) in RUNS.items():
        for seed in (1, 2):
            run = tmp_path / name / f"seed-{seed}"
            shift = 0.001 * seed
            write_metrics(run, "05_wvs_analysis", metrics(before, after + shift, 0))
            write_comparison(tables(before, after + shift), run / "tables")
            culture, label = name.split("/")
            owner = culture
            if "wrong-culture" in label:
                owner, label = label.rpartition("-")[2], "small"
            told = {"adapter_dir": f"results/tiny/{owner}/{label.partition('+')[0]}/seed-{seed}"}
            stages = {"05_wvs_analysis": {"parameters": told}}
            write_text(run / "manifest.json", json.dumps({"stages": stages}))
    return tmp_path


def test_every_control_has_a_row_and_so_has_no_training(study):
    table = control_table(study)
    german = table[table["culture"] == "german"].set_index("control")
    assert list(german.index) == [
        "untrained", "neutral-text", "persona-prompt, untrained", "persona-prompt",
        "wrong-culture-japanese",
    ]  # fmt: skip
    assert set(table["items"]) == {12}
    assert set(table["seeds"]) == {2}
    assert german["clca"].tolist() == pytest.approx([0.3015] * 5)
    assert german["difference"].to_dict() == pytest.approx(
        {"untrained": -0.0985, "neutral-text": -0.08, "persona-prompt, untrained": -0.0585,
         "persona-prompt": -0.01, "wrong-culture-japanese": -0.05}, abs=1e-9,
    )  # fmt: skip
    assert (table["p_holm"] >= table["p_value"]).all()


def test_what_is_not_closer_than_every_control_is_said(study):
    table = control_table(study)
    verdicts = table.set_index(["culture", "control"])["verdict"]
    assert verdicts["german", "neutral-text"] == "closer"
    assert verdicts["japanese", "neutral-text"] == "further"
    told = conclusion(table)
    assert told[0] == "german, small: after training closer to the people than untrained, and " \
        "closer than every control."  # fmt: skip
    assert "japanese" in told[1]
    assert "not closer than" in told[1]
    assert "neutral-text" in told[1]


def test_only_items_that_both_were_asked_count(study):
    for seed in (1, 2):
        path = study / f"german/small+neutral-text/seed-{seed}/tables/items.csv"
        few = pd.read_csv(path)
        write_text(path, few[few["qid"].isin(["Q2", "Q4", "Q6"])].to_csv(index=False))
    rows = control_table(study).set_index(["culture", "control"])
    assert rows.loc[("german", "neutral-text"), "items"] == 3
    assert rows.loc[("german", "untrained"), "items"] == 12
    mine = tables(*RUNS["german/small"]).main.query("variant == 'after'").set_index("qid")
    expected = mine.loc[["Q2", "Q4", "Q6"], "js_distance"].mean() + 0.0015
    assert rows.loc[("german", "neutral-text"), "clca"] == pytest.approx(expected)


def test_seeds_that_disagree_make_no_verdict(study):
    run = study / "german/small/seed-2"
    write_comparison(tables(0.40, 0.45), run / "tables")
    row = control_table(study).set_index(["culture", "control"]).loc[("german", "neutral-text")]
    assert row["seeds_low"] < 0 < row["seeds_high"]
    assert row["verdict"] == "not distinguishable"


def test_a_study_without_controls_has_an_empty_table(study):
    alone = control_table(study, ["german/small/seed-1"])
    assert len(alone) == 0
    assert list(alone)[:3] == controls.COLUMNS[:3]
    assert conclusion(alone) == []
    assert len(people_changes(study, ["german/small/seed-1"])) == 0
    both = people_changes(study, ["german/small/seed-1", "japanese/small/seed-1"])
    assert len(both) == len(diagonal_advantage(both)) == 0


def test_the_owner_of_an_adapter_is_read_from_the_manifest(study, tmp_path):
    assert owner_of(study / "german/small+wrong-culture-japanese/seed-1") == ("japanese", "small")
    assert owner_of(study / "german/small+persona-prompt/seed-1") == ("german", "small")
    assert owner_of(tmp_path / "german/small+authored/seed-3") == ("german", "small+authored")


def test_every_peoples_answers_to_every_adapter(study):
    moved = people_changes(study)
    assert set(moved["model"]) == {"small"}  # neutral-text was tried on its own culture alone
    assert matrix_figure(matrix(moved), "change").axes
    change = matrix(moved).set_index(["learnt", "other"])["change"]
    assert change.to_dict() == pytest.approx(
        {("german", "german"): -0.0985, ("german", "japanese"): 0.0115,
         ("japanese", "german"): -0.0485, ("japanese", "japanese"): -0.0085}, abs=1e-9,
    )  # fmt: skip
    lead = diagonal_advantage(moved).iloc[0]
    assert lead["units"] == 2 * 12
    assert lead["own"] == pytest.approx((-0.0985 - 0.0085) / 2)
    assert lead["advantage"] == pytest.approx(lead["own"] - (0.0115 - 0.0485) / 2)
    assert lead["low"] < lead["advantage"] < lead["high"] < 0
    assert lead["verdict"] == "more"


def test_every_cultures_conversations_to_every_adapter(study):
    # every adapter gains 0.4 at German conversations and none at Japanese ones: no advantage
    for culture in ("german", "japanese"):
        told = exam([-0.5, -0.3], [-0.1, 0.1]).assign(learnt=culture.title())
        for seed in (1, 2):
            run = study / culture / "small" / f"seed-{seed}"
            write_text(run / "held_out.csv", told.to_csv(index=False))
    moved = surprise_changes(study)
    change = matrix(moved)
    assert set(change["model"]) == {"small"}
    assert set(change["seeds"]) == {2}
    cells = change.set_index(["learnt", "other"])["change"].to_dict()
    assert cells == pytest.approx(
        {("german", "german"): -0.4, ("german", "japanese"): 0.0,
         ("japanese", "german"): -0.4, ("japanese", "japanese"): 0.0}, abs=1e-9,
    )  # fmt: skip
    lead = diagonal_advantage(moved).iloc[0]
    assert lead["advantage"] == pytest.approx(0.0)
    assert lead["verdict"] == "not distinguishable"


def test_an_exam_is_summed_up_over_the_runs_that_sat_it():
    found = pd.DataFrame(
        {
            "model": ["small", "small", "small+neutral-text", "small+no-prompt"],
            "seed": [1, 2, 1, 1],
            "perplexity_text_after": [50.0, 52.0, 40.0, np.nan],
            "questions_right_after": [0.5, 0.6, 0.4, np.nan],
            "accuracy_after": 0.3,
        }
    )
    table = exam_table(found)
    assert table["model"].tolist() == ["small", "small+neutral-text"]
    assert table["runs"].tolist() == [2, 1]
    assert table["perplexity_text_after"].tolist() == [51.0, 40.0]
    assert table["questions_right_after"].tolist() == pytest.approx([0.55, 0.4])
    assert list(table)[:2] == ["model", "runs"]
    assert len(exam_table(found[["model", "seed"]])) == 0
