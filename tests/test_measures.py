"""Measures: textbook values, bounds and symmetries, and the known facts of the shipped data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from clca_utils.files import StudyError
from clca_utils.measures import (
    MEASURES,
    expected_accuracy,
    interval,
    item_table,
    js_distance,
    kl,
    line_summary,
    option_shares,
    outside_mass,
    paired_change,
    position_shares,
    reference_lines,
    share_vectors,
    survey_metrics,
    total_variation,
)
from clca_utils.survey import country_shares, load_items, load_marginals

ITEMS = load_items()
MARGINALS = load_marginals()
GERMANY = country_shares(MARGINALS, "DEU", ITEMS)
REFERENCES = reference_lines(MARGINALS, "DEU", ITEMS, seed=1)


def _distributions(count):
    """Draw `count` distributions over the same two to five options; shares may be 0."""

    def normalised(weights):
        totals = weights.sum(axis=1, keepdims=True)
        return weights / totals

    weights = st.integers(2, 5).flatmap(
        lambda k: arrays(int, (count, k), elements=st.integers(0, 1000))
    )
    return weights.filter(lambda w: (w.sum(axis=1) > 0).all()).map(normalised)


@given(_distributions(2))
def test_distances_are_bounded_and_zero_only_for_equals(pair):
    p, q = pair
    js, tv = js_distance(p, q), total_variation(p, q)
    assert 0 <= js <= 1
    assert 0 <= tv <= 1 + 1e-12
    assert kl(p, q) >= 0
    assert js_distance(p, p) == total_variation(p, p) == kl(p, p) == 0
    if not np.allclose(p, q):
        assert min(js, tv, kl(p, q)) > 0


@given(_distributions(2))
def test_symmetry_and_agreement_with_scipy(pair):
    p, q = pair
    assert js_distance(p, q) == pytest.approx(js_distance(q, p), abs=1e-12)
    assert total_variation(p, q) == pytest.approx(total_variation(q, p), abs=1e-12)
    assert expected_accuracy(p, q) == pytest.approx(expected_accuracy(q, p), abs=1e-12)
    # scipy takes the root of a rounded difference: a tiny divergence loses half its digits.
    assert js_distance(p, q) == pytest.approx(np.nan_to_num(jensenshannon(p, q, base=2)), abs=1e-7)


@given(_distributions(3))
def test_js_and_total_variation_obey_the_triangle_inequality(three):
    p, q, r = three
    for distance in (js_distance, total_variation):
        assert distance(p, r) <= distance(p, q) + distance(q, r) + 1e-7


@given(_distributions(2))
def test_accuracy_is_highest_for_the_majority_answer(pair):
    p, people = pair
    assert 0 <= expected_accuracy(p, people) <= people.max() + 1e-12


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


@given(_distributions(4))
def test_measures_work_on_stacks(four):
    p, q = four[:2], four[2:]
    for measure in MEASURES.values():
        singly = [float(measure(p[row], q[row])) for row in range(2)]
        assert measure(p, q) == pytest.approx(singly)


def _answers(belief, bias, respondents=2, variant="before", outside=0.1):
    """Answers of a model that believes `belief` and likes the first position by `bias` (log)."""
    rows = []
    for qid, p in belief.items():
        k = len(p)
        for respondent in range(respondents):
            for order in range(k):
                position = (np.arange(k) - order) % k + 1
                mass = p * np.exp(bias * (position == 1))
                logprob = np.log(mass / mass.sum() * (1 - outside))
                rows += [
                    (variant, respondent, qid, order, option + 1, position[option], logprob[option])
                    for option in range(k)
                ]
    columns = ["variant", "respondent", "qid", "order", "option", "position", "logprob"]
    return pd.DataFrame(rows, columns=columns)


BELIEF = {"Q1": np.array([0.4, 0.3, 0.2, 0.1]), "Q7": np.array([0.7, 0.3])}


@pytest.mark.parametrize("orders", ["all", "first"])
def test_shares_of_an_unbiased_model_are_its_belief(orders):
    answers = _answers(BELIEF, bias=0).sample(frac=1, random_state=0)
    for (_, qid), shares in share_vectors(option_shares(answers, orders)).items():
        assert shares == pytest.approx(BELIEF[qid])


def test_rotating_the_orders_takes_out_most_of_a_position_bias():
    answers = _answers({"Q1": np.full(4, 0.25)}, bias=3)
    rotated, fixed = (share_vectors(option_shares(answers, o)) for o in ("all", "first"))
    assert rotated["before", "Q1"] == pytest.approx([0.25] * 4)
    first = np.exp(3) / (np.exp(3) + 3)
    assert fixed["before", "Q1"] == pytest.approx([first, *[(1 - first) / 3] * 3])
    positions = position_shares(answers)
    assert positions["share"].tolist() == pytest.approx([first, *[(1 - first) / 3] * 3])
    assert positions["scale"].tolist() == [4] * 4


def test_a_strong_belief_is_no_position_bias():
    positions = position_shares(_answers({"Q7": np.array([0.95, 0.05])}, bias=0))
    assert positions["share"].tolist() == pytest.approx([0.5, 0.5])


def test_respondents_weigh_the_same_however_sure_of_the_labels():
    sure = _answers({"Q7": np.array([0.8, 0.2])}, 0, respondents=1, outside=0.0)
    unsure = _answers({"Q7": np.array([0.2, 0.8])}, 0, respondents=1, outside=0.9)
    both = pd.concat([sure, unsure.assign(respondent=1)])
    assert option_shares(both)["share"].tolist() == pytest.approx([0.5, 0.5])
    assert outside_mass(both)["outside"].tolist() == pytest.approx([0.45])


def test_a_diverged_model_is_told():
    answers = _answers(BELIEF, bias=0)
    answers.loc[3, "logprob"] = np.nan
    with pytest.raises(StudyError, match="Q1 of variant 'before'"):
        option_shares(answers)


def test_an_impossible_option_has_share_zero():
    answers = _answers({"Q7": np.array([1.0, 1e-300])}, bias=0)
    answers.loc[answers["option"] == 2, "logprob"] = -np.inf
    assert option_shares(answers)["share"].tolist() == [1, 0]


def _table(variants):
    """An item table of models that mix the people of Germany with uniform guesses."""
    answers = []
    for variant, (knows, bias) in variants.items():
        belief = {q: knows * p + (1 - knows) / len(p) for q, p in GERMANY.items()}
        answers.append(_answers(belief, bias, respondents=1, variant=variant))
    frame = pd.concat(answers)
    parts = [
        item_table(option_shares(frame, o), GERMANY, iter(ITEMS)).assign(orders=o)
        for o in ("all", "first")
    ]
    return pd.concat(parts, ignore_index=True)


TABLE = _table({"before": (0.0, 2.0), "after": (0.5, 1.0)})


def test_item_table_measures_the_items_that_all_have():
    table = TABLE[TABLE["orders"] == "all"]
    assert len(table) == 2 * 44
    assert list(table.columns[:3]) == ["variant", "qid", "topic"]
    guess = table[table["variant"] == "before"].set_index("qid")["js_distance"]
    uniform = REFERENCES[REFERENCES["line"] == "uniform"].set_index("qid")["js_distance"]
    assert guess.to_dict() == pytest.approx(uniform.to_dict())
    shares = option_shares(_answers(BELIEF, 0))
    shares = pd.concat([shares, shares[shares["qid"] == "Q7"].assign(variant="after")])
    small = item_table(shares, GERMANY, ITEMS)
    assert small["qid"].tolist() == ["Q7", "Q7"]
    with pytest.raises(StudyError, match="no item"):
        item_table(shares, {}, ITEMS)


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
    assert summary.index[0] == "human floor"


def test_a_partial_country_is_compared_on_its_own_items():
    britain = reference_lines(MARGINALS, "GBR", ITEMS, seed=1)
    assert set(britain.groupby("line").size()) == {15}
    assert "people of NZL" in set(britain["line"])


def test_the_summary_uses_the_items_of_the_model_only():
    summary = line_summary(REFERENCES, ["Q1", "Q1", "Q7"]).set_index("line")
    rows = REFERENCES[(REFERENCES["line"] == "uniform") & REFERENCES["qid"].isin(["Q1", "Q7"])]
    assert summary.loc["uniform", "js_distance"] == pytest.approx(rows["js_distance"].mean())
    with pytest.raises(StudyError, match="lack an item"):
        line_summary(REFERENCES, ["Q1", "Q999"])


values = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50)


@given(values, st.integers(0, 100))
def test_an_interval_contains_its_mean_whatever_the_order(sample, seed):
    mean, low, high = interval(sample, seed, resamples=200)
    assert low - 1e-12 <= mean <= high + 1e-12
    assert min(sample) - 1e-12 <= low
    assert high <= max(sample) + 1e-12
    assert interval(sample[::-1], seed, resamples=200) == (mean, low, high)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(0.3, 0.1, size=(200, 44))
    covered = [low <= 0.3 <= high for _, low, high in (interval(s, 1, 0.9, 400) for s in samples)]
    assert 0.83 < np.mean(covered) < 0.96


@given(values)
def test_a_paired_change_of_nothing_is_not_distinguishable(sample):
    change = paired_change(sample, sample, seed=0)
    assert change == (0, 0, 0, 1, "not distinguishable")


def test_a_paired_change_names_its_direction():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.3, 0.5, 44)
    after = before - 0.1 + rng.normal(0, 0.02, 44)
    change = paired_change(before, after, seed=0)
    assert change.verdict == "better"
    assert change.mean == pytest.approx(-0.1, abs=0.01)
    assert change.low < change.mean < change.high < 0
    assert change.p_value < 0.001
    assert paired_change(after, before, seed=0).verdict == "worse"
    assert paired_change(before, after, seed=0, lower_is_better=False).verdict == "worse"
    noise = before + rng.normal(0, 0.1, 44)
    assert paired_change(before, noise, seed=0).verdict == "not distinguishable"


def test_the_p_value_of_few_items_is_exact():
    # Of the 2^4 swaps only the observed one and its mirror reach this mean: p = 2/16.
    assert paired_change([4, 3, 2, 1], [3, 2, 1, 0], seed=0).p_value == pytest.approx(2 / 16)


def test_metrics_place_the_model_between_knowing_nothing_and_the_people():
    metrics = survey_metrics(TABLE, REFERENCES)
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    assert metrics["items"] == 44
    assert metrics["normalised_score_before"] == pytest.approx(0, abs=1e-9)
    assert 0 < metrics["normalised_score_after"] < 1
    assert metrics["js_distance_before_fixed_order"] > metrics["js_distance_uniform"]
    change = metrics["js_distance_after"] - metrics["js_distance_before"]
    assert metrics["change"] == pytest.approx(change)
    assert metrics["change_low"] < change < metrics["change_high"] < 0
    assert metrics["p_value"] < 0.01
    low, high = metrics["js_distance_after_low"], metrics["js_distance_after_high"]
    assert low < metrics["js_distance_after"] < high
    assert metrics["js_distance_human_floor"] < metrics["js_distance_nearest_country"]


def test_metrics_of_one_variant_have_no_change():
    before = TABLE[(TABLE["variant"] == "before") & (TABLE["orders"] == "all")]
    metrics = survey_metrics(before.drop(columns="orders"), REFERENCES)
    assert "change" not in metrics
    assert "js_distance_after" not in metrics
    assert metrics["js_distance_before"] == pytest.approx(metrics["js_distance_uniform"])


@given(_distributions(2))
def test_mixing_towards_the_people_never_takes_a_model_further_away(pair):
    model, people = pair
    assume(not np.allclose(model, people))
    closer = (model + people) / 2
    assert js_distance(closer, people) < js_distance(model, people)
