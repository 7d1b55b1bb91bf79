"""Judging: what drops a dialogue, what does not, and each judgement's own confidence."""

import numpy as np
import pytest

from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, Turn
from clca_utils.judging import Verdict, decide, form_problem, judge, judge_form, judge_prompt
from clca_utils.scenario import load_seeds

SCENE, OTHER = adapt_all(load_seeds()[:2], load_culture("german"), seed=1)


def talk(*lines, ended="turn limit", scene=SCENE):
    """Return a dialogue; a line is words, or an action and its text."""
    told = [line if isinstance(line, tuple) else ("speak", line) for line in lines]
    turns = [
        Turn(index=i, speaker="AB"[i % 2], action=action, text=text, forced=0, format_mass=None)
        for i, (action, text) in enumerate(told)
    ]
    return Dialogue(
        id=f"{scene.id}-0",
        scenario_id=scene.id,
        culture="German",
        sample=0,
        seed=1,
        simulator="m",
        turns=turns,
        ended=ended,
    )


GOOD = talk("Do come in.", "Thank you, gladly.", ("non-verbal", "smiles"), ("leave", ""))
PRIVATE = [text for person in SCENE.people for text in (person.goal, person.secret)]


@pytest.mark.parametrize(
    ("dialogue", "problem"),
    [
        (GOOD, ""),
        (talk("Do come in.", "Thank you.", ended="malformed reply"), "malformed reply"),
        (talk("Do come in."), "one-sided"),
        (talk("Do come in.", ("none", ""), "Hello, you?"), "one-sided"),
        (talk(), "one-sided"),
        (talk("Hello.", "Thank you."), "empty opening"),
        (talk("Do come in.", "Thanks."), "empty opening"),
        (talk("Do come in.", "Thank you.", "Well."), ""),
        (talk("Do come in.", ("non-verbal", "nods"), "Sit down."), ""),
        (talk("Do come in.", "Thank you.", "Do come in."), ""),
        (talk("Do come in.", "Thank you.", "do COME in.", "Oh, yes.", "Thank you."),
         "repeated lines"),
        (talk("Do come in.", "Do come in."), "repeated lines"),
        (talk(("non-verbal", "nods"), ("non-verbal", "smiles")), ""),
    ],
)  # fmt: skip
def test_form_is_judged_by_rules(dialogue, problem):
    assert form_problem(dialogue) == problem
    verdict = judge_form(dialogue)
    assert (verdict.label, verdict.reason) == (
        ("bad", problem) if problem else ("good", "well formed")
    )
    assert (verdict.confidence, verdict.judge) == (1, "rules")


def verdict(aspect, label="good", confidence=0.95, reason="so"):
    return Verdict(aspect=aspect, label=label, confidence=confidence, reason=reason, judge="m")


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([], "kept"),
        ([verdict("quality"), verdict("culture"), verdict("meta")], "kept"),
        ([verdict("quality", "bad")], "quality bad"),
        ([verdict("meta", "bad")], "meta bad"),
        ([verdict("culture", "bad", 1)], "kept"),
        ([verdict("quality", "bad", 0.89)], "kept"),
        ([verdict("quality", "bad", 0.9)], "quality bad"),
        ([verdict("meta", "bad", 0.89), verdict("quality", "good", 1)], "kept"),
        ([verdict("quality", "bad"), verdict("meta", "bad", 1)], "quality bad"),
        ([verdict("form", "bad", 1, "one-sided"), verdict("quality", "bad")], "one-sided"),
        ([verdict("form", "good", 1)], "kept"),
    ],
)
def test_decide(verdicts, reason):
    judgement = decide(GOOD, verdicts, reject_confidence=0.9)
    assert judgement.reason == reason
    assert judgement.kept == (reason == "kept")
    assert judgement.verdicts == verdicts
    assert judgement.dialogue_id == GOOD.id


EVEN = np.log([0.5, 0.5])


def sure_of_good(probability):
    return np.log([probability, 1 - probability])


BAD = talk("Do come in.", "Thank you, gladly.", scene=OTHER)
LOGPROBS = [
    *[EVEN, EVEN, sure_of_good(0.8), sure_of_good(0.3)],  # quality: content-free, then both
    *[EVEN, EVEN, sure_of_good(0.4), sure_of_good(0.6)],  # culture
    *[EVEN, EVEN, sure_of_good(0.7), sure_of_good(0.05)],  # meta
]
REASONS = ["They listen.", "They ramble.", "Too direct.", "It fits.", "Fair.", "Too {long}."]


def test_judgements_keep_their_own_confidence_and_reason():
    model = ScriptedModel(REASONS, LOGPROBS)
    first, second = judge(model, [(SCENE, GOOD), (OTHER, BAD)], 1, reject_confidence=0.9)
    assert [v.aspect for v in first.verdicts] == ["form", "quality", "culture", "meta"]
    told = [(v.label, round(v.confidence, 6), v.reason) for v in first.verdicts[1:]]
    assert told == [
        ("good", 0.8, "They listen."),
        ("bad", 0.6, "Too direct."),
        ("good", 0.7, "Fair."),
    ]
    told = [(v.label, round(v.confidence, 6), v.reason) for v in second.verdicts[1:]]
    assert told == [
        ("bad", 0.7, "They ramble."),
        ("good", 0.6, "It fits."),
        ("bad", 0.95, "Too {long}."),
    ]
    assert {v.judge for v in first.verdicts[1:]} == {"scripted"}
    assert (first.kept, first.reason) == (True, "kept")
    assert (second.kept, second.reason) == (False, "meta bad")


def test_a_judge_that_says_good_to_everything_is_sure_of_nothing():
    says_good = sure_of_good(0.99)
    (only,) = judge(ScriptedModel(["x"] * 3, [says_good] * 6), [(SCENE, GOOD)], 1, 0.9)
    assert [v.confidence for v in only.verdicts[1:]] == pytest.approx([0.5] * 3)
    assert only.kept


def test_what_the_judge_is_asked():
    model = ScriptedModel(REASONS, LOGPROBS)
    judge(model, [(SCENE, GOOD), (OTHER, BAD)], 1, reject_confidence=0.9)
    asked = [prompt[1]["content"] for prompt in model.seen]
    begun = [prompt[2]["content"] for prompt in model.seen]
    # each aspect: four weighed (the first two about nothing), then two reasons
    assert begun[:6] == ["Verdict:"] * 4 + ["Verdict: good. Reason:", "Verdict: bad. Reason:"]
    assert GOOD.transcript() not in asked[0]
    assert SCENE.setting not in asked[0]
    assert GOOD.transcript() in asked[2]
    assert SCENE.setting in asked[2]
    assert "take place like this in Germany?" in asked[8]
    assert "Quality good (80%): They listen." in asked[14]
    assert "Culture bad (60%): Too direct." in asked[14]
    assert not [text for text in asked for private in PRIVATE if private in text]


def test_braces_in_a_reason_stay_text():
    earlier = [verdict("quality", reason="{country} {0} {")]
    assert "{country} {0} {." in judge_prompt("meta", SCENE, "A: Hi.", earlier)[1]["content"]
