"""Uncertainty: intervals that cover as often as they say, exact tests of few items, plain words."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_shares import generated, made_answers

from clca_utils.items import load_items
from clca_utils.measures import MEASURES, item_table, js_distance
from clca_utils.references import LINES, reference_lines
from clca_utils.shares import READINGS, option_shares, person_shares
from clca_utils.survey import country_shares, load_marginals
from clca_utils.uncertainty import (
    Change,
    change_table,
    crossed_interval,
    holm,
    interval,
    paired_change,
    replicates,
    respondent_interval,
    sentence,
    survey_metrics,
)

ITEMS = load_items()
MARGINALS = load_marginals()
GERMANY = country_shares(MARGINALS, "DEU", ITEMS)
REFERENCES = reference_lines(MARGINALS, "DEU", ITEMS, seed=1, draws=50)
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


def _persons(answers):
    """Persons of arrays item -> respondents x options."""
    parts = [
        pd.DataFrame(array).melt(ignore_index=False, var_name="option", value_name="share")
        for array in answers.values()
    ]
    table = pd.concat(parts, keys=answers, names=["qid", "respondent"]).reset_index()
    return table.assign(variant="after", option=table["option"] + 1).astype({"qid": "category"})


def _one_answer_each(rng, truth, respondents):
    return {qid: np.eye(len(p))[rng.choice(len(p), respondents, p=p)] for qid, p in truth.items()}


def test_an_interval_over_respondents_covers_the_truth_although_samples_lie_further_away():
    rng = np.random.default_rng(0)
    people = {qid: GERMANY[qid] for qid in list(GERMANY)[::3]}
    truth = {qid: rng.dirichlet(np.ones(len(p))) for qid, p in people.items()}
    distance = np.mean([js_distance(truth[qid], people[qid]) for qid in people])
    samples = [_persons(_one_answer_each(rng, truth, 60)) for _ in range(60)]
    found = [respondent_interval(persons, people, 1, resamples=200) for persons in samples]
    assert np.mean([low <= distance <= high for _, low, high in found]) > 0.85
    # The mean of a sample is biased upwards, which a percentile interval would repeat.
    assert np.mean([mean for mean, _, _ in found]) > distance + 0.005


def test_the_respondents_are_resampled_with_all_their_answers():
    # Everyone answers both items alike, so that the items' distances move together.
    rng = np.random.default_rng(0)
    answers = rng.dirichlet([2, 2], 40)
    people = {"Q1": np.array([0.9, 0.1]), "Q2": np.array([0.9, 0.1])}
    both = respondent_interval(_persons({"Q1": answers, "Q2": answers}), people, 1)
    one = respondent_interval(_persons({"Q1": answers}), people, 1)
    apart = {"Q1": answers, "Q2": rng.permutation(answers)}
    assert both == pytest.approx(one)
    narrower = respondent_interval(_persons(apart), people, 1)
    assert narrower.mean == pytest.approx(both.mean)
    assert narrower.high - narrower.low < 0.9 * (both.high - both.low)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_mean_over_respondents_is_the_table_s_whatever_their_scales(measure):
    qids = ["Q1", "Q7", "Q33"]  # four, two and five options
    rng = np.random.default_rng(0)
    answers = pd.concat(
        made_answers({q: rng.dirichlet(GERMANY[q] * 9) for q in qids}, respondents=1, orders=1)
        .assign(respondent=respondent)
        .astype({"qid": "str"})
        for respondent in range(12)
    )
    table = item_table(option_shares(answers, "fixed order"), GERMANY, ITEMS)
    persons = person_shares(answers, "fixed order")
    for function in (respondent_interval, crossed_interval):
        mean, low, high = function(persons, GERMANY, 1, measure, resamples=100)
        assert mean == pytest.approx(table[measure].mean())
        assert low < high


def test_an_unread_answer_counts_for_nothing():
    even = np.array([0.5, 0.5])
    answers = made_answers({"Q7": even, "Q8": even}, respondents=4, orders=1)
    persons = person_shares(generated(answers, [1, 2, 1, None, 1, 1, 1, 2]), "fixed order")
    people = {"Q7": even, "Q8": even}
    mean, low, high = respondent_interval(persons, people, 1, "total_variation", resamples=100)
    assert mean == pytest.approx((2 / 3 + 3 / 4) / 2 - 1 / 2)
    assert 0 <= low <= high <= 1


def test_the_same_answers_of_everyone_leave_no_doubt_but_about_the_items():
    rng = np.random.default_rng(0)
    same = {qid: np.tile(rng.dirichlet(np.ones(len(p))), (20, 1)) for qid, p in GERMANY.items()}
    mean, low, high = respondent_interval(_persons(same), GERMANY, 1, resamples=100)
    assert (low, high) == pytest.approx((mean, mean))
    crossed = crossed_interval(_persons(same), GERMANY, 1)
    by_item = interval([js_distance(same[q][0], GERMANY[q]) for q in GERMANY], 1)
    assert crossed.mean == pytest.approx(by_item.mean)
    assert crossed.high - crossed.low == pytest.approx(by_item.high - by_item.low, rel=0.15)


def test_a_crossed_interval_is_wider_than_either_alone():
    rng = np.random.default_rng(0)
    answers = _one_answer_each(rng, GERMANY, 30)
    by_item = interval([js_distance(x.mean(axis=0), GERMANY[q]) for q, x in answers.items()], 1)
    alone = respondent_interval(_persons(answers), GERMANY, 1)
    crossed = crossed_interval(_persons(answers), GERMANY, 1)
    widths = [x.high - x.low for x in (by_item, alone, crossed)]
    assert widths[2] > max(widths[:2])
    assert crossed == crossed_interval(_persons(answers), GERMANY, 1)


def test_several_variants_or_no_items_are_no_sample():
    persons = _persons({"Q1": np.full((3, 4), 0.25)})
    both = pd.concat([persons, persons.assign(variant="before")])
    with pytest.raises(ValueError, match="too many values"):
        respondent_interval(both, GERMANY, 1)
    with pytest.raises(ValueError, match="none of the people's items"):
        respondent_interval(persons, {}, 1)


def test_replicates_have_student_s_interval():
    sample = [0.31, 0.35, 0.33]
    mean, low, high = replicates(sample)
    theirs = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((0.33, theirs.low, theirs.high))
    assert replicates([0.3, 0.3]) == (0.3, 0.3, 0.3)
    mean, low, high = replicates([0.3])
    assert mean == 0.3
    assert np.isnan([low, high]).all()


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


def test_holm_by_hand():
    # The smallest counts three times, the next twice, and none less than one before it.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]).size == 0


def _table(variants, readings=READINGS[:2]):
    """An item table of models that mix the people of Germany with uniform guesses."""
    answers = []
    for variant, (knows, bias) in variants.items():
        belief = {q: knows * p + (1 - knows) / len(p) for q, p in GERMANY.items()}
        answers.append(made_answers(belief, bias, 1, variant, blank=True))
    frame = pd.concat(answers)
    parts = [
        item_table(option_shares(frame, reading), GERMANY, ITEMS).assign(reading=reading)
        for reading in readings
    ]
    return pd.concat(parts, ignore_index=True)


TABLE = _table({"before": (0.0, 2.0), "after": (0.5, 1.0)})


def test_a_model_that_learnt_something_is_better_by_every_measure_of_it():
    table = change_table(TABLE, "measure", seed=1).set_index("measure")
    assert list(table.index) == list(MEASURES)
    assert set(table.drop(index="kl_release")["verdict"]) == {"better"}
    assert (table["items"] == 44).all()
    rotated = TABLE[TABLE["reading"] == "rotated"].groupby("variant")[list(MEASURES)].mean()
    assert table["before"].to_dict() == pytest.approx(rotated.loc["before"].to_dict())
    change = rotated.loc["after"] - rotated.loc["before"]
    assert table["change"].to_dict() == pytest.approx(change.to_dict())
    assert table["change"]["accuracy"] > 0 > table["change"]["js_distance"]
    assert (table["p_holm"] >= table["p_value"]).all()
    back = TABLE.assign(variant=TABLE["variant"].map({"before": "after", "after": "before"}))
    turned = change_table(back, "measure", seed=1).set_index("measure")
    assert turned["verdict"]["accuracy"] == turned["verdict"]["js_distance"] == "worse"


def test_topics_are_corrected_for_how_many_they_are():
    table = change_table(TABLE, "topic", seed=1).set_index("topic")
    sizes = pd.Series({item.qid: item.topic for item in ITEMS}).value_counts()
    assert table["items"].to_dict() == sizes.to_dict()
    assert table["p_holm"].to_list() == pytest.approx(holm(table["p_value"]))
    # Three items have eight swaps: p can't fall below 2/8, whatever the model learnt.
    few = table.loc["change ahead"]
    assert few["p_value"] >= 0.25
    assert few["verdict"] == "not distinguishable"
    assert "better" in set(table["verdict"])
    unsure = table["p_holm"] >= 0.05
    assert set(table["verdict"][unsure]) <= {"not distinguishable"}


def test_a_change_that_only_looks_sure_before_the_correction_is_not_distinguishable():
    # Of 2^6 swaps two reach the mean: p = 1/32, and with four topics Holm makes it 1/8.
    rng = np.random.default_rng(0)
    rows = [
        {"variant": variant, "qid": f"Q{10 * topic + i}", "topic": str(topic), "js_distance": value}
        for topic in range(4)
        for i in range(6)
        for variant, value in zip(
            ("before", "after"), (0.5, 0.4 + rng.uniform(0, 0.01)), strict=True
        )
    ]
    table = change_table(pd.DataFrame(rows), "topic", seed=1)
    assert table["p_value"].tolist() == pytest.approx([2 / 64] * 4)
    assert table["p_holm"].tolist() == pytest.approx([8 / 64] * 4)
    assert set(table["verdict"]) == {"not distinguishable"}


def test_a_sentence_says_direction_size_and_certainty():
    worse = Change(0.002, 0.0004, 0.0037, 0.012, "worse")
    assert sentence(worse, "Japan") == (
        "After training the model's answers are further from the people of Japan than before "
        "(Jensen-Shannon distance +0.0020, 95 % interval +0.0004 to +0.0037, p = 0.012): worse."
    )
    row = pd.Series(
        {"measure": "accuracy", "change": 0.05, "low": 0.03, "high": 0.07}
        | {"p_value": 0.00005, "p_holm": 0.0004, "verdict": "better"}
    )
    assert sentence(row, "Mexico") == (
        "After training the model's answers are closer to the people of Mexico than before "
        "(Expected accuracy +0.0500, 95 % interval +0.0300 to +0.0700, p < 0.001 after Holm's "
        "correction): better."
    )
    topic = change_table(TABLE, "topic", seed=1).set_index("topic", drop=False).loc["change ahead"]
    assert sentence(topic, "Germany").startswith(
        'After training the model\'s answers on "change ahead" are not measurably closer to the '
        "people of Germany or further away (Jensen-Shannon distance -0."
    )


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
    assert {f"closeness_{name}" for name in LINES.values()} <= set(metrics)


def test_the_main_reading_has_the_plain_names():
    variants = {"before": (0.3, 2.0)}
    metrics = survey_metrics(_table(variants, READINGS), REFERENCES)
    two = survey_metrics(_table(variants, READINGS[:2]), REFERENCES)
    one = survey_metrics(_table(variants, READINGS[:1]), REFERENCES)
    assert metrics["wasserstein_1_before_rotated"] == two["wasserstein_1_before"]
    assert metrics["accuracy_before_fixed_order"] == two["accuracy_before_fixed_order"]
    assert two["accuracy_before_fixed_order"] == one["accuracy_before"]
    assert metrics["js_distance_before"] < two["js_distance_before"] < one["js_distance_before"]
    assert not any(name.endswith(("rotated", "fixed_order", "calibrated")) for name in one)
    assert not any(name.endswith("calibrated") for name in metrics)


def test_metrics_of_one_variant_have_no_change():
    before = TABLE[(TABLE["variant"] == "before") & (TABLE["reading"] == "rotated")]
    metrics = survey_metrics(before.drop(columns="reading"), REFERENCES)
    assert "change" not in metrics
    assert "js_distance_after" not in metrics
    assert metrics["js_distance_before"] == pytest.approx(metrics["js_distance_uniform"])
