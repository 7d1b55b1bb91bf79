"""The report: what a results folder holds is tabled and drawn, and what it lacks is no harm."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_comparison import answers, compared

from clca_utils import report
from clca_utils.comparison import write_comparison
from clca_utils.files import StudyError, write_metrics, write_records, write_text
from clca_utils.judging import decide, judge_form
from clca_utils.measures import survey_metrics

mpl.use("agg")
RUNS = {  # JS distance before and after, p value
    "german/large/seed-1": (0.40, 0.30, 0.01),
    "german/large/seed-2": (0.40, 0.38, 0.20),
    "german/small/seed-1": (0.50, 0.55, 0.01),
    "japanese/small/seed-1": (0.45, 0.35, 0.001),
}


def metrics(before: float, after: float, p_value: float) -> dict[str, float]:
    return {
        "js_distance_before": before, "js_distance_after": after, "change": after - before,
        "js_distance_uniform": 0.35, "js_distance_human_floor": 0.05, "p_value": p_value,
        "normalised_score_before": (0.35 - before) / 0.3,
        "normalised_score_after": (0.35 - after) / 0.3,
    }  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """Return a results folder whose models learnt from dialogues of a larger simulator."""
    for name, values in RUNS.items():
        write_metrics(tmp_path / name, "04_fine_tuning", {"steps": 5})
        write_metrics(tmp_path / name, "05_wvs_analysis", metrics(*values))
    for culture in ("german", "japanese"):
        run = tmp_path / culture / "simulator" / "seed-1"
        write_metrics(run, "01_scenario_adaptation", {"scenarios": 4})
        write_metrics(run, "02_dialogue_simulation", {"dialogues": 4, "dialogues_kept": 3})
    (tmp_path / "figures").mkdir()
    (tmp_path / "german/half/seed-1").mkdir(parents=True)
    return tmp_path


def test_the_study_table_has_a_row_per_run_with_all_its_metrics(study):
    table = report.study_table(study).set_index(["culture", "model", "seed"])
    assert list(table.index) == [
        ("german", "large", 1), ("german", "large", 2), ("german", "simulator", 1),
        ("german", "small", 1), ("japanese", "simulator", 1), ("japanese", "small", 1),
    ]  # fmt: skip
    assert table.loc[("german", "large", 2), "js_distance_after"] == 0.38
    assert table.loc[("german", "large", 2), "steps"] == 5
    simulator = table.loc[("japanese", "simulator", 1)].dropna()
    assert simulator.to_dict() == {"scenarios": 4, "dialogues": 4, "dialogues_kept": 3}


def test_the_summary_averages_seeds_and_leaves_out_runs_without_survey(study):
    table = report.summary_table(report.study_table(study))
    assert list(table.index) == [
        ("german", "large"), ("german", "small"), ("japanese", "small")
    ]  # fmt: skip
    large = table.loc[("german", "large")]
    assert large["seeds"] == 2
    assert large["before"] == pytest.approx(0.40)
    assert large["after"] == pytest.approx(0.34)
    assert large["change"] == pytest.approx(-0.06)
    assert large["uniform"] == pytest.approx(0.35)
    assert large["human floor"] == pytest.approx(0.05)
    assert large["score before"] == pytest.approx(-1 / 6)
    assert large["score after"] == pytest.approx(1 / 30)
    # farther away with a small p is not closer, and closer with a large p is not sure
    assert table["seeds closer"].tolist() == [1, 0, 1]


def test_a_study_without_any_survey_has_an_empty_summary(tmp_path):
    write_metrics(tmp_path / "german/large/seed-1", "01_scenario_adaptation", {"scenarios": 4})
    table = report.study_table(tmp_path)
    assert table["scenarios"].tolist() == [4]
    summary = report.summary_table(table)
    assert len(summary) == 0
    assert "seeds closer" in summary


@pytest.mark.parametrize("exists", [True, False])
def test_a_study_without_runs_is_told(tmp_path, exists):
    study = tmp_path / "empty"
    if exists:
        (study / "german/large/seed-1").mkdir(parents=True)
    for read in (report.run_folders, report.study_table):
        with pytest.raises(StudyError, match="empty holds no run: run the study's stages"):
            read(study)


@pytest.fixture(scope="module")
def survey():
    """Compare a model that knows nothing, and the same one half way to the people."""
    both = [
        answers("DEU", lambda p, _: np.full(len(p), 1 / len(p))),
        answers("DEU", lambda p, _: (p + 1 / len(p)) / 2, "after"),
    ]
    return compared("german", pd.concat(both))


@pytest.fixture
def run(tmp_path, scenario, dialogue, intents, survey):
    """Return a run's folder with all its artefacts."""
    write_records(tmp_path / "scenarios.jsonl", [scenario])
    write_records(tmp_path / "dialogues.jsonl", [dialogue])
    judgement = decide(dialogue, [judge_form(dialogue)], 0.9)
    write_records(tmp_path / "judgements.jsonl", [judgement])
    write_records(tmp_path / "intents.jsonl", intents)
    log = pd.DataFrame({"step": [1, 2], "epoch": [0.5, 1.0], "loss": [3.0, 2.0]})
    write_text(tmp_path / "training_log.csv", log.to_csv(index=False))
    write_comparison(survey, tmp_path / "tables")
    return tmp_path


SURVEY_FIGURES = ["distance", "distribution", "position", "moved_items"]


def test_every_figure_of_a_whole_run_is_drawn(run):
    drawn = report.run_figures(run)
    names = ["scenarios", "dialogues", "intents", "loss", *SURVEY_FIGURES]
    assert list(drawn) == names
    assert all(isinstance(figure, Figure) and figure.axes for figure in drawn.values())
    assert plt.get_fignums() == []
    shown = " ".join(text.get_text() for text in drawn["distance"].findobj(mpl.text.Text))
    assert "Germany" in shown
    assert "44 of 44 items compared" in shown


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("scenarios.jsonl", ["scenarios"]),
        ("judgements.jsonl", ["dialogues"]),
        ("intents.jsonl", ["intents"]),
        ("training_log.csv", ["loss"]),
        ("tables", SURVEY_FIGURES),
    ],
)
def test_an_artefact_that_is_not_there_leaves_out_its_figures_only(
    run, monkeypatch, without, missing
):
    monkeypatch.setattr(report, "survey_figures", lambda *_: dict.fromkeys(SURVEY_FIGURES))
    whole = list(report.run_figures(run))
    (run / without).rename(run / "away")
    assert [name for name in whole if name not in report.run_figures(run)] == missing


def test_an_empty_folder_has_no_figures(tmp_path):
    assert report.run_figures(tmp_path) == {}


def test_a_damaged_artefact_is_named(run):
    (run / "intents.jsonl").write_text('{"dialogue_id": "x"}\n')
    with pytest.raises(StudyError, match=r"intents\.jsonl, line 1: turn"):
        report.run_figures(run)


def test_metrics_of_a_real_comparison_fill_the_summary(tmp_path, survey):
    numbers = survey_metrics(survey.items, survey.references, seed=1)
    write_metrics(tmp_path / "german/small/seed-1", "05_wvs_analysis", numbers)
    table = report.summary_table(report.study_table(tmp_path))
    assert not table.isna().any(axis=None)
    row = table.loc[("german", "small")]
    assert row["score before"] == pytest.approx(0)
    assert row["human floor"] < row["after"] < row["before"]
    assert row["seeds closer"] == 1
