"""Measures: textbook values, bounds and symmetries, agreement with scipy and torch."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from clca_utils.files import StudyError
from clca_utils.items import SurveyItem
from clca_utils.measures import (
    MEASURES,
    expected_accuracy,
    expected_closeness,
    item_table,
    js_distance,
    kl,
    kl_release,
    mean_scores,
    measured,
    respondent_table,
    spearman,
    total_variation,
    wasserstein_1,
)


def distributions(count, least=2, most=6):
    """Draw `count` distributions over the same two to six options; shares may be 0."""

    def normalised(weights):
        totals = weights.sum(axis=1, keepdims=True)
        return weights / totals

    weights = st.integers(least, most).flatmap(
        lambda k: arrays(int, (count, k), elements=st.integers(0, 1000))
    )
    return weights.filter(lambda w: (w.sum(axis=1) > 0).all()).map(normalised)


DISTANCES = (js_distance, total_variation, wasserstein_1)


@given(distributions(2))
def test_distances_are_bounded_and_zero_only_for_equals(pair):
    p, q = pair
    for distance in DISTANCES:
        assert 0 <= distance(p, q) <= 1 + 1e-12
        assert distance(p, p) == 0
    assert kl(p, q) >= kl(p, p) == 0
    if not np.allclose(p, q):
        assert min(kl(p, q), *(distance(p, q) for distance in DISTANCES)) > 0


@given(distributions(2))
def test_symmetry_and_agreement_with_scipy(pair):
    p, q = pair
    for measure in (*DISTANCES, expected_accuracy, expected_closeness):
        assert measure(p, q) == pytest.approx(measure(q, p), abs=1e-12)
    # scipy takes the root of a rounded difference: a tiny divergence loses half its digits.
    assert js_distance(p, q) == pytest.approx(np.nan_to_num(jensenshannon(p, q, base=2)), abs=1e-7)
    places = np.linspace(0, 1, len(p))
    moved = stats.wasserstein_distance(places, places, p, q)
    assert wasserstein_1(p, q) == pytest.approx(moved, abs=1e-12)
    smooth = stats.entropy(p + 1e-3, q + 1e-3)
    assert kl(p, q) == pytest.approx(smooth, abs=1e-12)


@given(distributions(3))
def test_the_distances_obey_the_triangle_inequality(three):
    p, q, r = three
    for distance in DISTANCES:
        assert distance(p, r) <= distance(p, q) + distance(q, r) + 1e-7


@given(distributions(2))
def test_accuracy_is_highest_for_the_majority_and_closeness_for_the_median(pair):
    p, people = pair
    sure = np.eye(len(p))
    assert 0 <= expected_accuracy(p, people) <= people.max() + 1e-12
    median = int(np.searchsorted(np.cumsum(people), 0.5 - 1e-12))
    best = expected_closeness(sure[median], people)
    assert best == pytest.approx(expected_closeness(sure, people).max())
    assert expected_closeness(p, people) <= best + 1e-12


@given(distributions(2))
def test_closeness_is_the_sum_over_all_pairs_of_answers(pair):
    p, q = pair
    steps = np.abs(np.subtract.outer(np.arange(len(p)), np.arange(len(p)))) / (len(p) - 1)
    assert expected_closeness(p, q) == pytest.approx(p @ (1 - steps) @ q, abs=1e-12)


@given(distributions(2, most=2))
def test_on_two_options_order_adds_nothing(pair):
    p, q = pair
    assert wasserstein_1(p, q) == pytest.approx(total_variation(p, q), abs=1e-12)
    assert expected_closeness(p, q) == pytest.approx(expected_accuracy(p, q), abs=1e-12)


def test_values_by_hand():
    p, q = [1.0, 0.0], [0.5, 0.5]
    # m = (3/4, 1/4): KL(p|m) = log2(4/3), KL(q|m) = log2(2/3)/2 + log2(2)/2
    by_hand = np.sqrt(np.log2(4 / 3) / 2 + (np.log2(2 / 3) + 1) / 4)
    assert js_distance(p, q) == pytest.approx(by_hand)
    assert js_distance([1, 0], [0, 1]) == pytest.approx(1)
    assert kl(p, q, smoothing=0) == pytest.approx(np.log(2))
    # 0.1 is added to each share and 1.2 is the new total.
    smooth = 1.1 / 1.2 * np.log(1.1 / 0.6) + 0.1 / 1.2 * np.log(0.1 / 0.6)
    assert kl(p, q, smoothing=0.1) == pytest.approx(smooth)
    assert np.isfinite(kl(q, p))
    assert total_variation(p, q) == pytest.approx(0.5)
    assert expected_accuracy([0.2, 0.8], [0.3, 0.7]) == pytest.approx(0.62)
    # From the middle of five options half a scale to the end, from its neighbour a quarter.
    assert wasserstein_1([0, 0, 1, 0, 0], [0, 0, 0, 0, 1]) == pytest.approx(0.5)
    assert wasserstein_1([0, 0, 0, 1, 0], [0, 0, 0, 0, 1]) == pytest.approx(0.25)
    assert expected_closeness([0, 0, 0, 1, 0], [0, 0, 0.5, 0, 0.5]) == pytest.approx(0.75)


def test_kl_goes_from_the_first_to_the_second():
    people, model = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert MEASURES["kl_people_model"].function(model, people) == kl(people, model)
    assert MEASURES["kl_model_people"].function(model, people) == kl(model, people)
    assert kl(people, model) != pytest.approx(kl(model, people))


@settings(deadline=None)
@given(distributions(2), st.floats(0, 1))
def test_the_released_divergence_is_torch_s(pair, outside):
    import torch
    from torch.nn.functional import kl_div, log_softmax

    model, people = pair
    q = torch.tensor([*(model * (1 - outside)), outside], dtype=torch.float64)
    p = torch.tensor([*people, 0.0], dtype=torch.float64)
    theirs = float(kl_div(log_softmax(q, dim=-1), p, reduction="sum"))
    assert kl_release(model, people, outside) == pytest.approx(theirs, abs=1e-12)


@given(distributions(2))
def test_the_released_divergence_never_reaches_zero(pair):
    model, people = pair
    k = len(people)
    assert 0 < kl_release(people, people) <= np.log(np.e + k) - 1 + 1e-12
    assert 0 < kl_release(model, people) <= np.log(np.e + k) + 1e-12


def test_the_released_divergence_may_prefer_the_majority_to_the_people():
    people = np.array([0.8, 0.2])
    majority = np.array([1.0, 0.0])
    # ln Z - sum(p * q) - entropy, with Z over both options and the empty one.
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    perfect = np.log(np.exp(0.8) + np.exp(0.2) + 1) - 0.68 - entropy
    assert kl_release(people, people) == pytest.approx(perfect)
    assert kl_release(majority, people) < kl_release(people, people)


@given(distributions(4))
def test_measures_work_on_stacks(four):
    p, q = four[:2], four[2:]
    for measure in MEASURES.values():
        singly = [float(measure.function(p[row], q[row])) for row in range(2)]
        assert measure.function(p, q) == pytest.approx(singly)
        assert measured(p, q).keys() == MEASURES.keys()


@given(distributions(2))
def test_every_measure_keeps_to_its_range_and_direction(pair):
    model, people = pair
    for measure in MEASURES.values():
        low, high = sorted((measure.best, measure.worst))
        assert low - 1e-12 <= measure.function(model, people) <= high + 1e-12
        assert (measure.best < measure.worst) == (measure.better == "lower")


@given(distributions(2))
def test_mixing_towards_the_people_never_takes_a_model_further_away(pair):
    model, people = pair
    assume(not np.allclose(model, people))
    closer = (model + people) / 2
    for name in ("js_distance", "kl_people_model", "wasserstein_1", "total_variation"):
        function = MEASURES[name].function
        assert function(closer, people) < function(model, people)


def test_scores_are_scaled_to_each_item():
    scores = mean_scores([[0, 0, 1], [0.5, 0.5], [1, 0, 0, 0], [0, 0.5, 0, 0, 0.5]])
    assert scores == pytest.approx([1, 0.5, 0, (0.25 + 1) / 2])


def test_spearman_compares_the_order_of_the_items():
    people = np.array([0.1, 0.5, 0.6, 0.9])
    assert spearman(people**3, people) == pytest.approx(1)
    assert spearman(-people, people) == pytest.approx(-1)
    # Ranks 2 1 3 4 beside 1 2 3 4: 1 - 6 * 2 / (4 * 15).
    assert spearman([0.2, 0.1, 0.6, 0.9], people) == pytest.approx(0.8)
    assert np.isnan(spearman([0.5] * 4, people))
    assert np.isnan(spearman([0.5], [0.2]))


def _item(qid, options):
    return SurveyItem(
        qid=qid, topic=f"topic of {qid}", question="?", options=[str(i) for i in range(options)]
    )


def _shares(variants):
    rows = [
        (variant, qid, option, share)
        for variant, by_item in variants.items()
        for qid, vector in by_item.items()
        for option, share in enumerate(vector, start=1)
    ]
    return pd.DataFrame(rows, columns=["variant", "qid", "option", "share"])


ITEMS = [_item("Q1", 2), _item("Q2", 3), _item("Q3", 2)]
PEOPLE = {"Q1": np.array([0.5, 0.5]), "Q2": np.array([0.2, 0.3, 0.5])}


def test_item_table_measures_the_items_that_all_have():
    shares = _shares(
        {"before": {"Q1": [1, 0], "Q2": [0, 0, 1], "Q3": [1, 0]}, "after": {"Q1": [0.5, 0.5]}}
    )
    table = item_table(shares.sample(frac=1, random_state=0), PEOPLE, iter(ITEMS))
    assert list(table.columns) == ["variant", "qid", "topic", *MEASURES]
    table = table.set_index(["variant", "qid", "topic"])
    assert set(table.index) == {(v, "Q1", "topic of Q1") for v in ("before", "after")}
    assert table["js_distance"]["after"].tolist() == [0]
    assert table["total_variation"]["before"].tolist() == [0.5]
    with pytest.raises(StudyError, match="no item"):
        item_table(shares, {}, ITEMS)


def test_item_table_counts_invalid_answers_for_the_released_divergence():
    shares = _shares({"before": {"Q1": [0.9, 0.1], "Q2": [0.2, 0.3, 0.5]}})
    outside = pd.DataFrame(
        {"variant": ["before"] * 2, "qid": ["Q2", "Q1"], "outside": [0.5, 0.25]}
    ).astype({"variant": "category", "qid": "category"})
    plain = item_table(shares, PEOPLE, ITEMS).set_index("qid")
    counted = item_table(shares, PEOPLE, ITEMS, outside).set_index("qid")
    assert counted["kl_release"].to_dict() == pytest.approx(
        {
            "Q1": float(kl_release([0.9, 0.1], PEOPLE["Q1"], 0.25)),
            "Q2": float(kl_release(PEOPLE["Q2"], PEOPLE["Q2"], 0.5)),
        }
    )
    assert (counted["kl_release"] > plain["kl_release"]).all()
    others = [name for name in plain if name != "kl_release"]
    pd.testing.assert_frame_equal(plain[others], counted[others])


def _persons(answers):
    rows = [
        ("before", respondent, qid, option, share)
        for (respondent, qid), vector in answers.items()
        for option, share in enumerate(vector, start=1)
    ]
    table = pd.DataFrame(rows, columns=["variant", "respondent", "qid", "option", "share"])
    return table.astype({"variant": "category", "qid": "category"})


def test_respondents_are_measured_against_their_own_answers():
    persons = _persons(
        {
            (7, "Q1"): [0.9, 0.1],
            (7, "Q2"): [0.2, 0.3, 0.5],
            (7, "Q3"): [0.6, 0.4],
            (3, "Q1"): [0.5, 0.5],
            (3, "Q2"): [0, 0, 1],
            (5, "Q1"): [1, 0],
        }
    )
    people = pd.DataFrame(
        {
            "respondent": [3, 7, 8],
            "country": ["DEU", "DEU", "JPN"],
            "Q2": [1.0, 2.0, 1.0],
            "Q1": [np.nan, 1.0, 2.0],
        }
    )
    table = respondent_table(persons, people).set_index("respondent")
    assert set(table.index) == {3, 7}  # 5 isn't among the people
    assert table["items"].to_dict() == {7: 2, 3: 1}
    assert table.loc[7, "accuracy"] == pytest.approx((0.9 + 0.3) / 2)
    # Both ends of Q2 lie half a scale from respondent 7's answer, the middle.
    assert table.loc[7, "closeness"] == pytest.approx((0.9 + 0.3 + 0.7 * 0.5) / 2)
    assert table.loc[3, ["accuracy", "closeness"]].tolist() == [0, 0]


@settings(deadline=None)
@given(distributions(1), st.integers(1, 6))
def test_a_respondent_is_a_people_of_one(vector, answer):
    (p,) = vector
    assume(answer <= len(p))
    people = pd.DataFrame({"respondent": [0], "Q1": [float(answer)]})
    row = respondent_table(_persons({(0, "Q1"): p}), people).iloc[0]
    own = np.eye(len(p))[answer - 1]
    assert row["accuracy"] == pytest.approx(float(expected_accuracy(p, own)), abs=1e-12)
    assert row["closeness"] == pytest.approx(float(expected_closeness(p, own)), abs=1e-12)
