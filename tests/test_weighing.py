"""Weighing options: what a model likes whatever it is asked is divided out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clca_utils.chat_model import ScriptedModel, user
from clca_utils.weighing import weigh

BLANK = [user("N/A")]


def shares(blank, *rows):
    """Return what is left of a model's log-probabilities for the options."""
    asked = [[user(str(n))] for n in range(len(rows))]
    blanks = [BLANK] * len(rows)
    model = ScriptedModel(logprobs=[*[blank] * len(rows), *rows])
    weighed = weigh(model, asked, blanks, ["x"] * len(blank))
    assert model.seen == [*blanks, *asked]
    return weighed


def test_a_model_that_likes_one_option_regardless_prefers_none():
    liking = np.log([0.98, 0.01, 0.01])
    assert shares(liking, liking, liking) == pytest.approx(np.full((2, 3), 1 / 3))


def test_shares_by_hand():
    # .4/.5 = .8 and .4/.25 = 1.6 add up to 2.4; .5/.5 and .25/.25 are alike
    weighed = shares(np.log([0.5, 0.25]), np.log([0.4, 0.4]), np.log([0.5, 0.25]))
    assert weighed == pytest.approx(np.array([[1 / 3, 2 / 3], [1 / 2, 1 / 2]]))


def test_each_case_is_measured_against_its_own_blank():
    model = ScriptedModel(
        logprobs=[np.log(row) for row in ([0.5, 0.25], [0.1, 0.1], *[[0.4, 0.4]] * 2)]
    )
    weighed = weigh(model, [[user("1")], [user("2")]], [BLANK, BLANK], ["x", "y"])
    assert weighed == pytest.approx(np.array([[1 / 3, 2 / 3], [1 / 2, 1 / 2]]))


@given(
    arrays(float, (3, 4), elements=st.floats(-50, 0)), arrays(float, 4, elements=st.floats(-9, 9))
)
def test_a_liking_added_to_every_score_changes_nothing(scores, liking):
    weighed = shares(*scores)
    assert weighed.shape == (2, 4)
    assert weighed.sum(axis=1) == pytest.approx([1, 1])
    assert shares(*(scores + liking)) == pytest.approx(weighed)
