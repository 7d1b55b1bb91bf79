"""Shares: a model's made-up beliefs and likings come out of its answers again, or don't."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clca_utils.files import StudyError
from clca_utils.shares import (
    READINGS,
    main_reading,
    option_shares,
    outside_mass,
    person_shares,
    person_vectors,
    position_shares,
    readings_of,
    share_vectors,
)

BELIEF = {"Q1": np.array([0.4, 0.3, 0.2, 0.1]), "Q7": np.array([0.7, 0.3])}


def made_answers(
    belief, bias=0.0, respondents=2, variant="before", *, outside=0.1, blank=False, orders=None
):
    """Answers of a model that believes `belief` and likes the first position by `bias` (log).

    With `blank` the blank shows that liking alone.
    """
    rows = []
    for qid, p in belief.items():
        k = len(p)
        liking = np.exp(bias * (np.arange(k) == 0))
        for respondent in range(respondents):
            for order in range(orders or k):
                position = (np.arange(k) - order) % k
                mass = p * liking[position]
                with np.errstate(divide="ignore"):
                    logprob = np.log(mass / mass.sum() * (1 - outside))
                empty = np.log(liking / liking.sum())[position] if blank else np.zeros(k)
                rows += [
                    (variant, "main", respondent, qid, order, i + 1, position[i] + 1, *numbers)
                    for i, numbers in enumerate(zip(logprob, empty, strict=True))
                ]
    columns = [
        *("variant", "condition", "respondent", "qid"),
        *("order", "option", "position", "logprob", "blank"),
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"variant": "category", "condition": "category", "qid": "category"})


def generated(answers, chosen):
    """Make generated answers of it: `chosen` options, one per question in order; None: unread."""
    asked = answers.groupby(["variant", "respondent", "qid", "order"], observed=True, sort=False)
    picked = pd.Series(chosen, dtype=float).to_numpy()[asked.ngroup()]
    return answers.assign(logprob=np.where(answers["option"] == picked, 0.0, -np.inf), blank=0.0)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("blank", [False, True])
def test_shares_of_an_unbiased_model_are_its_belief(reading, blank):
    answers = made_answers(BELIEF, blank=blank).sample(frac=1, random_state=0)
    shares = share_vectors(option_shares(answers, reading))
    assert set(shares) == {("before", "Q1"), ("before", "Q7")}
    for (_, qid), vector in shares.items():
        assert vector == pytest.approx(BELIEF[qid])


def test_rotating_the_orders_takes_out_most_of_a_position_bias_and_calibrating_all():
    even, first = np.full(4, 0.25), np.exp(3) / (np.exp(3) + 3)
    answers = made_answers({"Q1": even, "Q7": BELIEF["Q7"]}, bias=3, blank=True)
    fixed, rotated, calibrated = (share_vectors(option_shares(answers, r)) for r in READINGS)
    liking = [first, *[(1 - first) / 3] * 3]
    assert fixed["before", "Q1"] == pytest.approx(liking)
    assert rotated["before", "Q1"] == pytest.approx(even)
    # The rotated mean of an uneven belief is pulled towards even shares.
    assert 0.5 < rotated["before", "Q7"][0] < 0.6
    for qid, belief in (("Q1", even), ("Q7", BELIEF["Q7"])):
        assert calibrated["before", qid] == pytest.approx(belief)
    positions = position_shares(answers[answers["qid"] == "Q1"])
    assert positions["share"].tolist() == pytest.approx(liking)
    assert positions["scale"].tolist() == [4] * 4


def test_calibration_is_a_softmax_of_the_difference_per_order():
    rng = np.random.default_rng(0)
    answers = made_answers({"Q1": BELIEF["Q1"]}, respondents=3, blank=True)
    answers["logprob"] = rng.normal(size=len(answers)) - 3
    answers["blank"] = rng.normal(size=len(answers)) - 3
    persons = person_vectors(person_shares(answers, "calibrated"))["before", "Q1"]
    one = answers[answers["respondent"] == 2]
    weight = np.zeros(4)
    for order in range(4):
        asked = one[one["order"] == order].sort_values("option")
        mass = np.exp(asked["logprob"] - asked["blank"]).to_numpy()
        weight += mass / mass.sum() / 4
    assert persons.loc[2].to_numpy() == pytest.approx(weight)


def test_the_readings_that_differ():
    answers = made_answers(BELIEF)
    assert readings_of(answers) == ["fixed order", "rotated"]
    assert readings_of(answers[answers["order"] == 0]) == ["fixed order"]
    assert readings_of(made_answers(BELIEF, blank=True)) == list(READINGS)
    once = made_answers(BELIEF, blank=True, orders=1)
    assert readings_of(once) == ["fixed order", "calibrated"]


def test_the_main_reading_is_the_last_one():
    table = pd.DataFrame({"reading": ["calibrated", "fixed order", "rotated"], "x": [1, 2, 3]})
    assert main_reading(table)["x"].tolist() == [1]
    assert main_reading(table[1:])["x"].tolist() == [3]
    assert main_reading(table[["x"]])["x"].tolist() == [1, 2, 3]


def test_a_strong_belief_is_no_position_bias():
    positions = position_shares(made_answers({"Q7": np.array([0.95, 0.05])}))
    assert positions["share"].tolist() == pytest.approx([0.5, 0.5])


def test_respondents_weigh_the_same_however_sure_of_the_labels():
    sure = made_answers({"Q7": np.array([0.8, 0.2])}, respondents=1, outside=0.0)
    unsure = made_answers({"Q7": np.array([0.2, 0.8])}, respondents=1, outside=0.9)
    both = pd.concat([sure, unsure.assign(respondent=1)])
    assert option_shares(both, "rotated")["share"].tolist() == pytest.approx([0.5, 0.5])
    assert outside_mass(both)["outside"].tolist() == pytest.approx([0.45])
    persons = person_vectors(person_shares(both, "rotated"))["before", "Q7"]
    assert persons.to_numpy() == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]))


def test_generated_answers_are_counted_and_unread_ones_left_out():
    answers = made_answers({"Q7": np.array([0.5, 0.5])}, respondents=3)
    answers = generated(answers, [1, 1, 1, 2, None, None])
    assert readings_of(answers) == ["fixed order", "rotated"]
    persons = person_vectors(person_shares(answers, "rotated"))["before", "Q7"]
    assert persons.to_dict("index") == {0: {1: 1, 2: 0}, 1: {1: 0.5, 2: 0.5}}
    assert option_shares(answers, "rotated")["share"].tolist() == [0.75, 0.25]
    assert option_shares(answers, "fixed order")["share"].tolist() == [1, 0]
    assert outside_mass(answers)["outside"].tolist() == pytest.approx([1 / 3])


def test_nothing_read_is_an_empty_table():
    answers = generated(made_answers({"Q7": np.array([0.5, 0.5])}, respondents=1), [None, None])
    assert share_vectors(option_shares(answers, "rotated")) == {}
    assert outside_mass(answers)["outside"].tolist() == [1]


@settings(deadline=None)
@given(st.lists(st.sampled_from([None, 1, 2, 3, 4]), min_size=12, max_size=12))
def test_the_shares_of_a_respondent_add_up_to_one(chosen):
    answers = generated(made_answers({"Q1": BELIEF["Q1"]}, respondents=3), chosen)
    persons = person_shares(answers, "rotated")
    assert persons.groupby("respondent")["share"].sum().to_numpy() == pytest.approx(1)
    read = {number // 4 for number, option in enumerate(chosen) if option}
    assert set(persons["respondent"]) == read


def test_variants_are_kept_apart():
    flat = {"Q7": np.array([0.5, 0.5])}
    both = pd.concat([made_answers(BELIEF), made_answers(flat, variant="after")])
    shares = share_vectors(option_shares(both, "rotated"))
    assert set(shares) == {("before", "Q1"), ("before", "Q7"), ("after", "Q7")}
    assert shares["after", "Q7"] == pytest.approx([0.5, 0.5])


def test_an_impossible_option_has_share_zero():
    answers = made_answers({"Q7": np.array([1.0, 0.0])}, blank=True)
    for reading in READINGS:
        assert option_shares(answers, reading)["share"].tolist() == [1, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_is_told(value):
    answers = made_answers(BELIEF, blank=True)
    answers.loc[3, "logprob"] = value
    with pytest.raises(StudyError, match="logprob: no number for Q1 of variant 'before'"):
        option_shares(answers, "rotated")
    with pytest.raises(StudyError, match="logprob: no number for Q1"):
        position_shares(answers)


def test_a_blank_that_is_no_number_is_told_where_it_counts():
    answers = made_answers(BELIEF, blank=True)
    answers.loc[answers["qid"] == "Q7", "blank"] = np.nan
    assert len(option_shares(answers, "rotated")) == 6
    with pytest.raises(StudyError, match="blank: no number for Q7"):
        option_shares(answers, "calibrated")
