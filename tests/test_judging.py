"""Judging: what drops a dialogue, what does not, and each judgement's own confidence."""

import numpy as np
import pytest
from test_form import talk

from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import load_culture
from clca_utils.judging import Verdict, decide, decide_again, judge, judge_form, judge_prompt
from clca_utils.scenario import load_seeds

SCENE, OTHER = adapt_all(load_seeds()[:2], load_culture("german"), seed=1)


GOOD = talk("Do come in.", "Thank you, gladly.", ("non-verbal", "smiles"), ("leave", ""))
PRIVATE = [text for person in SCENE.people for text in (person.goal, person.secret)]
ALL = ("quality", "culture", "meta")


@pytest.mark.parametrize(
    ("dialogue", "problem"), [(GOOD, ""), (talk("Do come in.", "Do come in."), "repeated lines")]
)
def test_form_is_judged_by_rules(dialogue, problem):
    verdict = judge_form(SCENE, dialogue)
    assert (verdict.label, verdict.reason) == (
        ("bad", problem) if problem else ("good", "well formed")
    )
    assert (verdict.aspect, verdict.confidence, verdict.judge) == ("form", 1, "rules")


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
    judgement = decide(GOOD.id, verdicts, 0.9, ALL)
    assert judgement.reason == reason
    assert judgement.kept == (reason == "kept")
    assert judgement.verdicts == verdicts
    assert judgement.dialogue_id == GOOD.id


@pytest.mark.parametrize(
    ("trusted", "reason"),
    [
        ((), "kept"),
        (("culture",), "kept"),
        (("meta",), "meta bad"),
        ({"quality"}, "quality bad"),
        (("meta", "quality"), "quality bad"),
    ],
)
def test_an_aspect_that_is_not_trusted_is_recorded_but_drops_nothing(trusted, reason):
    verdicts = [verdict(aspect, "bad", 1) for aspect in ALL]
    judgement = decide("t", verdicts, 0.9, trusted)
    assert (judgement.reason, judgement.kept) == (reason, reason == "kept")
    assert judgement.verdicts == verdicts
    assert decide_again([decide("t", verdicts, 1, ALL)], 0.9, trusted) == [judgement]


def test_rules_need_no_trust():
    form = verdict("form", "bad", 1, "one-sided")
    assert decide("t", [form], 0.9, ()).reason == "one-sided"


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
    first, second = judge(
        model, [(SCENE, GOOD), (OTHER, BAD)], 1, reject_confidence=0.9, trusted=ALL
    )
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
    (only,) = judge(ScriptedModel(["x"] * 3, [says_good] * 6), [(SCENE, GOOD)], 1, 0.9, ALL)
    assert [v.confidence for v in only.verdicts[1:]] == pytest.approx([0.5] * 3)
    assert only.kept


def test_what_the_judge_is_asked():
    model = ScriptedModel(REASONS, LOGPROBS)
    judge(model, [(SCENE, GOOD), (OTHER, BAD)], 1, reject_confidence=0.9, trusted=ALL)
    asked = [prompt[1]["content"] for prompt in model.seen]
    begun = [prompt[2]["content"] for prompt in model.seen]
    # each aspect: four weighed (the first two about nothing), then two reasons
    assert begun[:6] == ["Verdict:"] * 4 + ["Verdict: good. Reason:", "Verdict: bad. Reason:"]
    assert GOOD.transcript() not in asked[0]
    assert SCENE.setting not in asked[0]
    assert GOOD.transcript() in asked[2]
    assert SCENE.setting in asked[2]
    assert "take place like this in Germany?" in asked[8]
    assert "judged it: N/A. Weigh" in asked[12]
    assert "Quality good (80%): They listen." in asked[14]
    assert "Culture bad (60%): Too direct." in asked[14]
    assert not [text for text in asked for private in PRIVATE if private in text]


def test_what_the_aspects_share_comes_first_and_the_question_last():
    earlier = [verdict("quality"), verdict("culture")]
    prompts = [judge_prompt(aspect, SCENE, GOOD.transcript(), earlier) for aspect in ALL]
    shared = f"Setting: {SCENE.setting}\n\n{GOOD.transcript()}\n\n"
    assert len({prompt[0]["content"] for prompt in prompts}) == 1
    questions = [prompt[1]["content"].removeprefix(shared) for prompt in prompts]
    assert len(set(questions)) == 3
    assert all(len(question) < 250 and question.endswith("?") for question in questions)


def test_a_model_is_not_asked_about_a_dialogue_whose_form_is_bad():
    broken = talk("Do come in.", scene=OTHER)
    model = ScriptedModel(["x"] * 3, [EVEN] * 6)
    first, second, third = judge(
        model, [(OTHER, broken), (SCENE, GOOD), (OTHER, broken)], 1, 0.9, ALL
    )
    assert [one.reason for one in (first, second, third)] == ["one-sided", "kept", "one-sided"]
    assert [len(one.verdicts) for one in (first, second, third)] == [1, 4, 1]
    assert not model.logprobs
    assert [one.kept for one in judge(ScriptedModel(), [(OTHER, broken)], 1, 0.9, ALL)] == [False]


def test_braces_in_a_reason_stay_text():
    earlier = [verdict("quality", reason="{country} {0} {")]
    assert "{country} {0} {." in judge_prompt("meta", SCENE, "A: Hi.", earlier)[1]["content"]
