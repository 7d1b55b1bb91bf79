"""The scripted model: exactly its script, in order, and the interface that every model has."""

import inspect

import numpy as np
import pytest

from clca_utils.chat_model import (
    ChatModel,
    ScriptedModel,
    ScriptRanOutError,
    assistant,
    system,
    user,
)

HOW = {"max_new_tokens": 5, "seeds": [1, 2]}


def test_messages_have_their_role():
    assert [make("hi") for make in (system, user, assistant)] == [
        {"role": role, "content": "hi"} for role in ("system", "user", "assistant")
    ]


@pytest.mark.parametrize("method", ["generate", "option_logprobs"])
def test_the_scripted_model_has_the_interface(method):
    def parameters(model):
        return inspect.signature(getattr(model, method)).parameters

    assert parameters(ScriptedModel) == parameters(ChatModel)


def test_replies_come_in_order_over_calls_and_prompts_are_kept():
    model = ScriptedModel(["a", "b", "c"])
    asked = [[user("1")], [user("2")], [user("3")]]
    assert model.generate(asked[:2], **HOW) == ["a", "b"]
    assert model.generate(asked[2:], **HOW) == ["c"]
    assert model.generate([], **HOW) == []
    assert model.seen == asked


def test_weights_come_in_order():
    model = ScriptedModel(logprobs=[[-1, -2], [-3, -4, -5]])
    rows = model.option_logprobs([[user("1")], [user("2")]], ["ab", "abc"])
    assert [row.tolist() for row in rows] == [[-1, -2], [-3, -4, -5]]
    assert {row.dtype for row in rows} == {np.dtype(float)}


def test_a_script_that_is_over_says_what_was_asked():
    model = ScriptedModel(["a"], [[0.0]])
    with pytest.raises(ScriptRanOutError, match="no reply left for: 'second'"):
        model.generate([[user("first")], [user("second")]], **HOW)
    with pytest.raises(ScriptRanOutError, match="no reply left for: 'more'"):
        model.option_logprobs([[user("one")], [user("more")]], ["a", "a"])


def test_a_row_for_other_options_is_refused():
    model = ScriptedModel(logprobs=[[-1, -2, -3]])
    with pytest.raises(ScriptRanOutError, match=r"weighs 3 options, not \['yes', 'no'\]"):
        model.option_logprobs([[user("x")]], [["yes", "no"]])
