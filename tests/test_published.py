"""The paper's numbers beside ours: converted, marked, and read in the paper's order."""

import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon

from clca_utils.files import DATA
from clca_utils.measures import js_distance
from clca_utils.params import read_model
from clca_utils.published import BASE_2, OURS, READ, paper_numbers, side_by_side, uniform_of

FOUND = pd.DataFrame(
    {
        "culture": ["german", "german", "japanese", "german"],
        "model": ["small", "small", "small", "small+authored"],
        "seed": [1, 2, 1, 1],
        "kl_release_before": 9.0,
        "kl_release_before_fixed_order": [0.6, 0.8, 0.5, 5.0],
        "kl_release_after_fixed_order": [0.4, 0.4, 0.3, 5.0],
        "js_distance_before": 0.3,
        "kl_release_uniform": [0.5, 0.5, 0.4, 0.5],
    }
)


def test_natural_logarithms_become_base_2():
    p, q = [0.2, 0.8], [0.6, 0.4]
    assert BASE_2 * jensenshannon(p, q) == pytest.approx(float(js_distance(p, q)))
    paper = paper_numbers().set_index(["model", "state", "metric"])["value"]
    assert paper["llama-3.1-8b", "before", "js_distance"] == pytest.approx(
        0.5134 * 1.2011, abs=1e-4
    )
    assert paper["llama-3.1-8b", "after", "kl_release"] == 0.5112


def test_the_papers_models_are_called_as_in_this_study():
    names = paper_numbers()["model"].unique()
    assert len(names) == 7
    for name in names:
        assert read_model(name).source.lower().endswith(f"{name}-instruct".replace(
            "mistral-7b-v0.3-instruct", "mistral-7b-instruct-v0.3"))  # fmt: skip


def test_the_shipped_file_has_the_papers_tables():
    assert set(pd.read_csv(DATA / "paper_results.csv")["metric"]) == {
        "kl",
        "js_distance",
        "accuracy",
    }


def test_ours_are_means_over_cultures_of_the_questionnaires_own_order():
    table = side_by_side(FOUND).set_index(["source", "model"])
    assert next(iter(table.index)) == (OURS, "small")
    assert {source for source, _ in table.index} == {OURS, READ}
    row = table.loc[(OURS, "small")]
    assert row["kl_release before"] == pytest.approx(0.6)  # of 0.7 and 0.5
    assert row["kl_release after"] == pytest.approx(0.35)
    assert row["js_distance before"] == 0.3  # where no other order was asked
    assert table.loc[(READ, "llama-3.1-8b+no-filter"), "kl_release after"] == 0.5639
    assert uniform_of(FOUND) == pytest.approx({"kl_release": 0.45})


def test_a_study_without_answers_has_nothing_to_compare():
    assert len(side_by_side(FOUND[["culture", "model", "seed"]])) == 0
