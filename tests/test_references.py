"""Reference lines: the known facts of the shipped data, and what the summary makes of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.files import StudyError
from clca_utils.items import load_items
from clca_utils.measures import MEASURES, js_distance, measured
from clca_utils.references import LINES, line_summary, normalised_score, reference_lines
from clca_utils.survey import country_shares, load_marginals

ITEMS = load_items()
MARGINALS = load_marginals()
GERMANY = country_shares(MARGINALS, "DEU", ITEMS)
REFERENCES = reference_lines(MARGINALS, "DEU", ITEMS, seed=1)
FEW = ["Q1", "Q7", "Q33", "Q43"]


def test_the_known_facts_of_the_shipped_data():
    mean = REFERENCES.groupby("line")["js_distance"].mean()
    assert mean["people of JPN"] == pytest.approx(0.228, abs=0.002)
    assert mean["uniform"] == pytest.approx(0.326, abs=0.002)
    assert mean["majority"] == pytest.approx(0.429, abs=0.002)
    assert mean["always option 1"] == pytest.approx(0.735, abs=0.002)
    assert mean["human floor"] == pytest.approx(0.03, abs=0.005)
    assert REFERENCES.groupby("line")["accuracy"].mean()["uniform"] == pytest.approx(
        0.359, abs=1e-3
    )


def test_the_lines_stand_in_order_with_every_measure():
    lines = list(dict.fromkeys(REFERENCES["line"]))
    assert lines[:4] == ["human floor", "uniform", "majority", "always option 1"]
    assert lines[4:8] == [f"always option {option}" for option in (2, 3, 4, 5)]
    assert all(line.startswith("people of ") for line in lines[8:])
    assert list(REFERENCES) == ["line", "qid", *MEASURES]
    assert not REFERENCES.isna().any(axis=None)


def test_the_human_floor_falls_with_the_number_of_respondents():
    asked = MARGINALS[MARGINALS["country"] == "DEU"]
    small, large = (
        reference_lines(asked.assign(n=n), "DEU", ITEMS, seed=1)
        .groupby("line")["js_distance"]
        .mean()["human floor"]
        for n in (200, 20_000)
    )
    # Sampling distances shrink as 1/sqrt(n), empty cells aside.
    assert 7 < small / large < 11


def test_halves_of_real_respondents_make_the_floor_where_there_are_any():
    mine = MARGINALS[MARGINALS["country"] == "DEU"]
    items = [item for item in ITEMS if item.qid in FEW]
    halves = {"Q7": (np.array([[1, 0], [0.5, 0.5]]), np.array([[1, 0], [0, 1]]))}
    drawn, given_ = (
        reference_lines(mine, "DEU", items, seed=1, halves=x).set_index(["line", "qid"])
        for x in (None, halves)
    )
    floor = given_.loc[("human floor", "Q7")]
    assert floor["js_distance"] == pytest.approx(js_distance([0.5, 0.5], [0, 1]) / 2)
    assert floor["accuracy"] == pytest.approx((1 + 0.5) / 2)
    pd.testing.assert_frame_equal(
        drawn.drop(index=("human floor", "Q7")), given_.drop(index=("human floor", "Q7"))
    )


def test_reference_lines_repeat_with_their_seed():
    again = reference_lines(MARGINALS, "DEU", ITEMS, seed=1)
    pd.testing.assert_frame_equal(REFERENCES, again)


def test_other_countries_need_thirty_items_and_the_summary_all():
    others = set(REFERENCES["line"])
    assert "people of USA" in others
    assert "people of GBR" not in others
    summary = line_summary(REFERENCES).set_index("line")
    means = REFERENCES.groupby("line")["js_distance"].agg(["mean", "size"])
    whole = means[means.index.str.startswith("people") & (means["size"] == 44)]["mean"]
    assert summary.loc["nearest other country", "js_distance"] == whole.min()
    assert summary.loc["nearest other country", "detail"] == whole.idxmin()[-3:]
    assert summary.loc["mean other country", "js_distance"] == pytest.approx(whole.mean())
    assert list(summary.index) == list(LINES)


def test_the_best_constant_is_the_luckiest_answer_over_the_items_asked():
    summary = line_summary(REFERENCES, FEW).set_index("line").loc["best constant"]
    by_option = []
    for option in range(5):
        rows = [
            measured(np.eye(len(p))[min(option, len(p) - 1)], p)
            for p in (GERMANY[qid] for qid in FEW)
        ]
        by_option.append({name: np.mean([row[name] for row in rows]) for name in MEASURES})
    luckiest = int(np.argmin([row["js_distance"] for row in by_option]))
    assert summary["detail"] == f"option {luckiest + 1}"
    assert summary[list(MEASURES)].to_dict() == pytest.approx(by_option[luckiest])


@pytest.mark.parametrize("option", [1, 2])
def test_the_best_constant_is_known_only_with_hindsight(option):
    best = GERMANY["Q7"].argmax() + 1
    answers = GERMANY["Q7"] if option == best else GERMANY["Q7"][::-1]
    rows = pd.DataFrame(
        {
            "qid": "Q7",
            "country": "DEU",
            "option": [1, 2],
            "share": answers,
            "n": np.nan,
            "tier": "A",
        }
    )
    lines = reference_lines(rows, "DEU", ITEMS, seed=1)
    assert line_summary(lines).set_index("line").loc["best constant", "detail"] == (
        f"option {option}"
    )


def test_a_partial_country_is_compared_on_its_own_items():
    britain = reference_lines(MARGINALS, "GBR", ITEMS, seed=1)
    assert set(britain.groupby("line").size()) == {15}
    assert "people of NZL" in set(britain["line"])


def test_a_country_alone_has_no_other_countries():
    alone = reference_lines(MARGINALS[MARGINALS["country"] == "DEU"], "DEU", ITEMS, seed=1)
    lines = line_summary(alone)["line"].tolist()
    assert lines == ["human floor", "uniform", "majority", "always option 1", "best constant"]


def test_the_summary_uses_the_items_of_the_model_only():
    summary = line_summary(REFERENCES, ["Q1", "Q1", "Q7"]).set_index("line")
    rows = REFERENCES[(REFERENCES["line"] == "uniform") & REFERENCES["qid"].isin(["Q1", "Q7"])]
    assert summary.loc["uniform", "js_distance"] == pytest.approx(rows["js_distance"].mean())
    with pytest.raises(StudyError, match="lack an item"):
        line_summary(REFERENCES, ["Q1", "Q999"])


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 1))
def test_the_normalised_score_is_the_way_from_uniform_to_floor(uniform, floor, share):
    assert normalised_score(uniform, uniform, uniform) != 0  # NaN: there's no way to go
    if abs(uniform - floor) > 1e-6:
        value = uniform + share * (floor - uniform)
        assert normalised_score(value, uniform, floor) == pytest.approx(share, abs=1e-6)
        assert normalised_score(uniform, uniform, floor) == 0
        assert normalised_score(floor, uniform, floor) == 1
