"""Which reply fits better: judged blind, in both orders, by a judge that is itself examined."""

import numpy as np
import pandas as pd
import pytest

from clca_utils.appropriateness import (
    Moment,
    known_pairs,
    moments,
    preference_metrics,
    preferences,
    question,
    replies_of,
    reply_table,
    verdict,
)
from clca_utils.chat_model import ScriptedModel, assistant
from clca_utils.dialogue import told

SOME = moments("german", 3, 1)
YES, NO, EVEN = np.log([0.8, 0.2]), np.log([0.2, 0.8]), np.log([0.5, 0.5])


def judged(straight, swapped, firsts=("a", "b", "c"), seconds=("x", "y", "z")):
    """Let a scripted judge read three pairs; blanks come first, then each order."""
    judge = ScriptedModel(logprobs=[*[EVEN] * 6, *straight, *swapped])
    return preferences(judge, SOME, firsts, seconds), judge


def test_moments_are_of_held_out_scenes_each_another_and_none_the_opening():
    assert len({one.talk.id for one in SOME}) == 3
    for one in SOME:
        assert one.scene.split == "held-out"
        assert one.scene.id == one.talk.scenario_id
        assert 2 <= one.place < len(one.talk.turns) - 1
        assert one.written
    assert moments("german", 3, 1) == SOME
    assert moments("german", 99, 1) != moments("german", 99, 2)
    assert moments("turkish", 3, 1) == []


def test_who_replies_is_the_speaker_and_knows_only_what_was_said_before():
    for one in SOME:
        chat, turn = one.conversation(), one.talk.turns[one.place]
        assert chat[-1] == assistant("ACTION: speak\nOUTPUT:")
        assert chat[-2]["role"] == "user"
        me = next(person for person in one.scene.people if person.name == turn.speaker)
        other = next(person for person in one.scene.people if person.name != turn.speaker)
        whole = "\n".join(message["content"] for message in chat)
        assert me.secret in whole
        assert other.secret not in whole
        assert one.written not in whole


def test_a_preference_that_the_order_decides_is_a_tie():
    words, _ = judged([YES, NO, YES], [NO, YES, YES])
    assert words == ["first", "second", "tie"]
    words, _ = judged([EVEN, YES, NO], [NO, NO, NO])
    assert words == ["tie", "first", "tie"]


def test_equal_replies_tie_whatever_the_judge_says():
    words, _ = judged([YES] * 3, [NO] * 3, firsts=("a", "b", "c"), seconds=("a", "y", "z"))
    assert words == ["tie", "first", "first"]


def test_the_judge_reads_both_orders_and_no_name_of_the_sides():
    _, judge = judged([YES] * 3, [NO] * 3)
    straight, swapped = judge.seen[6][1]["content"], judge.seen[9][1]["content"]
    assert "Reply A: a\nReply B: x" in straight
    assert "Reply A: x\nReply B: a" in swapped
    for prompt in (straight, swapped):
        assert "before" not in prompt.split("Reply A")[1]
    one = SOME[0]
    for person in one.scene.people:
        assert person.secret not in question(one, "a", "b")[1]["content"]


def test_known_pairs_belong_to_different_scenes():
    fitting, other = known_pairs(SOME)
    assert fitting == [one.written for one in SOME]
    assert sorted(other) == sorted(fitting)
    assert all(a != b for a, b in zip(fitting, other, strict=True))


def test_replies_are_asked_for_once_each():
    model = ScriptedModel(replies=["one", "two", "three"])
    assert replies_of(model, SOME, 1, 32) == ["one", "two", "three"]
    assert [chat[-1]["role"] for chat in model.seen] == ["assistant"] * 3
    assert preferences(ScriptedModel(), [], [], []) == []


def table(preferred: list[str], judge: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"preferred": preferred, "judge": judge})


def test_the_table_tells_the_sides_and_the_line_before():
    found = reply_table(
        SOME, list("abc"), list("xyz"), judged=["first", "second", "tie"], known=["first"] * 3
    )
    assert found["preferred"].tolist() == ["before", "after", "tie"]
    assert found["judge"].tolist() == ["right"] * 3
    one: Moment = SOME[0]
    assert found["said"][0] == told(one.talk.turns[one.place - 1])


def test_metrics_count_and_test():
    found = preference_metrics(table(["after"] * 8 + ["tie"] * 2, ["right"] * 9 + ["wrong"]))
    assert found["preferred_after"] == 0.8
    assert found["preferred_tie"] == 0.2
    assert found["preferred_p_value"] == pytest.approx(2 / 2**8)
    assert found["judge_p_value"] == pytest.approx(2 * 11 / 2**10)
    assert verdict(found) == "Replies after training against those before: 80% to 0%."
    even = preference_metrics(table(["after", "before"] * 5, ["right"] * 10))
    assert verdict(even).endswith("50% to 50%, no clear difference.")


@pytest.mark.parametrize("judge", [["tie"] * 10, ["wrong"] * 10, ["right"] * 3 + ["wrong"] * 2])
def test_a_judge_that_is_no_better_than_chance_says_nothing(judge):
    found = preference_metrics(table(["after"] * len(judge), judge))
    assert "so what it prefers says nothing" in verdict(found)


def test_no_replies_are_no_finding():
    found = preference_metrics(table([], []))
    assert (found["replies"], found["preferred_p_value"]) == (0, 1)
    assert verdict(found).startswith("Not measured")
