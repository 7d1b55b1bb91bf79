"""Validity checks: made-up models with one fault each, and with none."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from test_shares import BELIEF, generated, made_answers

from clca_utils.files import StudyError
from clca_utils.measures import js_distance
from clca_utils.shares import READINGS, option_shares, person_shares
from clca_utils.validity import (
    chosen_options,
    cultures_apart,
    persona_effect,
    position_bias,
    retest_table,
    wording_table,
)


def test_a_liking_for_a_place_is_told_from_a_belief():
    sure = {"Q1": np.array([0.97, 0.01, 0.01, 0.01]), "Q7": np.array([0.9, 0.1])}
    first = np.exp(3) / (np.exp(3) + 3)
    answers = pd.concat(
        [
            made_answers(sure),
            made_answers({"Q1": np.full(4, 0.25)}, bias=3, variant="after"),
        ]
    )
    table = position_bias(answers.sample(frac=1, random_state=0)).set_index("variant")["bias"]
    assert table["before"] == pytest.approx(0, abs=1e-12)
    assert table["after"] == pytest.approx(first - 1 / 4)


def test_a_bias_is_the_mean_over_items_and_needs_all_rotations():
    flat = {"Q1": np.full(4, 0.25), "Q7": np.array([0.5, 0.5])}
    answers = made_answers(flat, bias=2)
    four, two = (np.exp(2) / (np.exp(2) + k - 1) - 1 / k for k in (4, 2))
    assert position_bias(answers)["bias"].tolist() == pytest.approx([(four + two) / 2])
    # Q7 has all its rotations within the first two orders, Q1 has not.
    some = answers[answers["order"] < 2]
    assert position_bias(some)["bias"].tolist() == pytest.approx([two])
    fixed = position_bias(answers[answers["order"] == 0])
    assert fixed["variant"].tolist() == ["before"]
    assert fixed["bias"].isna().all()


def test_a_generated_answer_always_at_the_same_place_is_all_bias():
    answers = made_answers({"Q1": BELIEF["Q1"]}, respondents=1)
    # Order o shows option o + 1 first.
    assert position_bias(generated(answers, [1, 2, 3, 4]))["bias"].tolist() == [0.75]
    assert position_bias(generated(answers, [3, 3, 3, 3]))["bias"].tolist() == [0]
    assert position_bias(generated(answers, [None] * 4))["bias"].isna().all()


def test_two_wordings_are_compared_where_both_were_asked():
    one = option_shares(made_answers(BELIEF), "rotated")
    other = option_shares(made_answers({"Q7": np.array([0.3, 0.7])}), "rotated")
    table = wording_table(one, other)
    assert table[["variant", "qid"]].to_numpy().tolist() == [["before", "Q7"]]
    assert table["js_distance"].item() == pytest.approx(js_distance([0.7, 0.3], [0.3, 0.7]))
    assert wording_table(one, one)["js_distance"].tolist() == [0, 0]


def test_the_chosen_option_is_the_likeliest_whatever_the_rows_order():
    answers = made_answers(BELIEF, respondents=1)
    assert set(chosen_options(answers)["chosen"]) == {1}
    picked = [1, None, 3, 4, 2, None]
    table = chosen_options(generated(answers, picked).sample(frac=1, random_state=0))
    found = table.sort_values(["qid", "order"])["chosen"]
    assert found.replace({np.nan: None}).tolist() == picked
    assert list(table) == ["variant", "respondent", "qid", "order", "chosen"]


def _chosen(options, variant="before"):
    size = len(options)
    return pd.DataFrame(
        {"variant": variant, "respondent": range(size), "qid": "Q1", "order": 0, "chosen": options}
    )


def test_agreement_by_hand():
    first = _chosen([1, 1, 2, 2, 3, np.nan])
    second = _chosen([1, 2, 2, 2, np.nan, 1])
    row = retest_table(first, second.sample(frac=1, random_state=0)).iloc[0]
    # Four were answered both times, three alike; shares 2/4, 2/4 and 1/4, 3/4.
    assert row["n"] == 4
    assert row["agreement"] == 0.75
    assert row["chance"] == pytest.approx(0.5 * 0.25 + 0.5 * 0.75)
    assert row["kappa"] == pytest.approx(0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=30))
def test_kappa_follows_from_agreement_and_chance(pairs):
    x, y = map(list, zip(*pairs, strict=True))
    row = retest_table(_chosen(x), _chosen(y)).iloc[0]
    assert row["n"] == len(pairs)
    if row["chance"] < 1:
        kappa = (row["agreement"] - row["chance"]) / (1 - row["chance"])
        assert row["kappa"] == pytest.approx(kappa) == pytest.approx(cohen_kappa_score(x, y))
    else:  # both times the same single answer
        assert np.isnan(row["kappa"])


def test_variants_are_tested_again_apart():
    first = pd.concat([_chosen([1, 2, 1, 2]), _chosen([1, 2, 1, 2], "after")])
    second = pd.concat([_chosen([1, 2, 1, 2]), _chosen([2, 1, 2, 1], "after")])
    table = retest_table(
        first.astype({"variant": "category"}), second.astype({"variant": "category"})
    ).set_index("variant")
    assert table["kappa"].to_dict() == {"before": 1, "after": -1}


def test_a_persona_that_changes_nothing_has_no_effect():
    persons = person_shares(made_answers(BELIEF, respondents=5), "rotated")
    assert persona_effect(persons)["spread"].tolist() == pytest.approx([0], abs=1e-7)


def test_the_persona_effect_is_the_mean_distance_to_the_average_answer():
    one, other = np.array([0.9, 0.1]), np.array([0.3, 0.7])
    answers = pd.concat(
        [
            made_answers({"Q7": one, "Q8": one}, respondents=1),
            made_answers({"Q7": other, "Q8": one}, respondents=1).assign(respondent=1),
        ]
    )
    average = (one + other) / 2
    spread = (js_distance(one, average) + js_distance(other, average)) / 2
    table = persona_effect(person_shares(answers, READINGS[1]))
    assert table["variant"].tolist() == ["before"]
    assert table["spread"].tolist() == pytest.approx([spread / 2], abs=1e-7)


NAMES = ["german", "japanese", "mexican", "chinese"]


def _peoples(seed, names=NAMES, items=20):
    rng = np.random.default_rng(seed)
    return {name: {f"Q{i}": rng.dirichlet(np.ones(4)) for i in range(items)} for name in names}


def _mixed(peoples, weight, wrong=0.25):
    """A model that moves from a wrong answer some of the way towards each people."""
    return {
        name: {q: weight * p + (1 - weight) * np.eye(4)[0] * (1 - wrong) for q, p in by.items()}
        for name, by in peoples.items()
    }


def test_a_model_that_moves_the_right_way_tells_the_cultures_apart_however_wrong_it_is():
    peoples = _peoples(0)
    matrix, numbers = cultures_apart(_mixed(peoples, 0.05), peoples, seed=1)
    assert matrix.index.tolist() == matrix.columns.tolist() == NAMES
    assert np.diag(matrix) == pytest.approx(1)
    assert numbers["accuracy"] == 1
    assert numbers["chance"] == 0.25
    # One of the 4! ways to name the peoples is as good.
    assert numbers["p_value"] == pytest.approx(1 / 24)
    assert (numbers["cultures"], numbers["items"]) == (4, 20)
    off = matrix.to_numpy()[~np.eye(4, dtype=bool)]
    assert numbers["difference"] == pytest.approx(1 - off.mean())


def test_a_correlation_by_hand():
    model = {"a": {"Q1": [0.6, 0.4], "Q2": [0.5, 0.5]}, "b": {"Q1": [0.4, 0.6], "Q2": [0.5, 0.5]}}
    people = {"a": {"Q1": [0.6, 0.4], "Q2": [0.7, 0.3]}, "b": {"Q1": [0.4, 0.6], "Q2": [0.3, 0.7]}}
    # Deviations (.1, -.1, 0, 0) and (.1, -.1, .2, -.2): .02 / sqrt(.02 * .1).
    matrix, _ = cultures_apart(model, people, seed=1)
    expected = 0.02 / np.sqrt(0.02 * 0.1)
    assert matrix.loc["a"].tolist() == pytest.approx([expected, -expected])


def test_cultures_swapped_are_wrong():
    peoples = _peoples(0)
    model = _mixed(peoples, 0.5)
    swapped = {name: model[other] for name, other in zip(NAMES, NAMES[::-1], strict=True)}
    _, numbers = cultures_apart(swapped, peoples, seed=1)
    assert numbers["accuracy"] == 0
    assert numbers["difference"] < 0
    assert numbers["p_value"] > 0.5


def test_a_model_that_answers_the_same_for_all_tells_nothing_apart():
    same = {f"Q{i}": np.array([0.1, 0.2, 0.3, 0.4]) for i in range(20)}
    # Three times 0.1 is rounded, so that their mean isn't 0.1.
    matrix, numbers = cultures_apart(dict.fromkeys(NAMES[:3], same), _peoples(0), seed=1)
    assert matrix.isna().all(axis=None)
    assert numbers["accuracy"] == 0
    assert numbers["p_value"] == 1


def test_names_mean_nothing_to_a_model_of_chance():
    p_values = [
        cultures_apart(_peoples(100 + seed), _peoples(seed), seed=1)[1]["p_value"]
        for seed in range(60)
    ]
    assert 0.35 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) <= 1 / 12) < 0.25


def test_the_p_value_counts_all_ways_to_name_the_peoples():
    model, people = _peoples(1), _peoples(2)
    matrix, numbers = cultures_apart(model, people, seed=1)
    own = [matrix.to_numpy()[range(4), order].mean() for order in itertools.permutations(range(4))]
    assert numbers["p_value"] == pytest.approx(np.mean(np.array(own) >= own[0] - 1e-12))


def test_many_cultures_are_permuted_at_random_but_always_alike():
    names = [f"culture {i}" for i in range(8)]
    peoples = _peoples(0, names)
    first, again = (cultures_apart(_mixed(peoples, 0.5), peoples, seed=3)[1] for _ in range(2))
    assert first == again
    assert first["p_value"] <= 0.001


def test_only_what_all_have_is_compared():
    peoples = _peoples(0)
    model = _mixed(peoples, 0.5)
    del model["german"]["Q3"], peoples["japanese"]["Q4"], peoples["chinese"]
    matrix, numbers = cultures_apart(model, peoples, seed=1)
    assert matrix.index.tolist() == NAMES[:3]
    assert numbers["items"] == 18
    with pytest.raises(StudyError, match="1 of them"):
        cultures_apart({"german": model["german"]}, peoples, seed=1)
    with pytest.raises(StudyError, match="0 of them"):
        cultures_apart({}, {}, seed=1)
