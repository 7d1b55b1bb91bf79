"""The runs of a study as tables: what is read, in which order, and what is left out."""

import pandas as pd
import pytest
from test_report import metrics, tables

from clca_utils.comparison import write_comparison
from clca_utils.files import write_metrics
from clca_utils.study_tables import by_model, item_distances, method_rows, survey_tables

RUNS = {
    "german/small/seed-2": 0.3,
    "german/small/seed-10": 0.2,
    "german/small+authored/seed-1": 0.4,
}


@pytest.fixture
def study(tmp_path):
    """Return a study with two runs of the method, one of a control, and one without answers."""
    for name, after in RUNS.items():
        write_metrics(tmp_path / name, "05_wvs_analysis", metrics(0.5, after, 0))
        write_comparison(tables(0.5, after), tmp_path / name / "tables")
    write_metrics(tmp_path / "german/large/seed-1", "01_scenario_adaptation", {"scenarios": 4})
    return tmp_path


def test_the_distances_of_the_main_reading_are_read_run_by_run(study):
    found = item_distances(study)
    assert list(found) == ["culture", "model", "seed", "qid", "topic", "before", "after"]
    assert len(found) == 3 * 12
    runs = list(found[["model", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    assert runs == [("small", 2), ("small", 10), ("small+authored", 1)]
    means = found.groupby(["model", "seed"])["after"].mean()
    assert means.to_dict() == pytest.approx(
        {("small", 2): 0.3, ("small", 10): 0.2, ("small+authored", 1): 0.4}
    )
    # items stand in the order of their file, not of their names
    assert found["qid"][:12].tolist() == [f"Q{number}" for number in range(1, 13)]
    assert set(item_distances(study, ["german/small/seed-2"])["seed"]) == {2}


def test_each_runs_own_main_reading_counts(study):
    path = study / "german/small/seed-2/tables/items.csv"
    few = pd.read_csv(path).query("reading == 'fixed order'")
    few.to_csv(path, index=False)
    means = item_distances(study).groupby(["model", "seed"])["after"].mean()
    assert means["small", 2] == 1
    assert means["small", 10] == pytest.approx(0.2)


def test_a_study_without_answers_has_empty_tables(study):
    for empty in (
        item_distances(study, ["german/large/seed-1"]),
        survey_tables(study, "shares", ["german/large/seed-1"]),
    ):
        assert len(empty) == 0
        assert list(empty)[:3] == ["culture", "model", "seed"]


def test_the_methods_rows_are_told_from_its_controls(study):
    found = item_distances(study)
    assert set(method_rows(found)["model"]) == {"small"}
    controls = found[found["model"] == "small+authored"]
    assert len(method_rows(controls)) == len(controls)
    assert list(by_model(found)) == [("german", "small"), ("german", "small+authored")]
