"""Gold: corrupted copies differ in their one fault, and agreement with them is measured right."""

import itertools
import random
import re
from collections import Counter
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import ScriptedModel
from clca_utils.files import StudyError
from clca_utils.form import form_problem
from clca_utils.gold import (
    CORRUPTIONS,
    FEWEST,
    agreement,
    auc_interval,
    confession,
    corrupted,
    examine,
    findings,
    gold_cases,
    opinions,
    proven,
    spoken_by,
)
from clca_utils.judging import Aspect, Judgement, Verdict, decide_again
from clca_utils.scenario import load_seeds

EVERYONE = [load_authored(culture) for culture in authored_cultures()]
SCENARIOS = {one.id: one for some in EVERYONE for one in some.scenarios}
DIALOGUES = {one.id: one for some in EVERYONE for one in some.dialogues}
NUMBERS = st.integers(0, 10**6)
ASPECTS = ["form", "quality", "culture", "meta", "filter"]


def copies(kind, seed):
    """Return each corrupted copy with its original dialogue."""
    cases = corrupted(list(SCENARIOS.values()), list(DIALOGUES.values()), kind, seed)
    return [(case, DIALOGUES[case.source]) for case in cases]


def lines(dialogue, speaker):
    return Counter(turn.text for turn in dialogue.turns if turn.speaker == speaker)


def frame_of(dialogue):
    """Return all of a dialogue but its texts."""
    return [(turn.index, turn.speaker, turn.action) for turn in dialogue.turns]


@given(NUMBERS)
@settings(max_examples=3, deadline=None)
def test_shuffled_turns_are_each_speaker_s_own_lines_and_no_answer_follows(seed):
    for case, was in copies("shuffled turns", seed):
        now = case.dialogue
        assert frame_of(now) == frame_of(was)
        for person in case.scenario.people:
            assert lines(now, person.name) == lines(was, person.name)
        pairs, old = (
            {*itertools.pairwise(turn.text for turn in talk.turns if turn.action == "speak")}
            for talk in (now, was)
        )
        same = [a.text == b.text for a, b in zip(now.turns, was.turns, strict=True)]
        survivors = len(pairs & old) + sum(same) - sum(turn.action != "speak" for turn in was.turns)
        assert survivors <= (min(map(len, spoken_by(was))) < 4)


@given(NUMBERS)
@settings(max_examples=3, deadline=None)
def test_repeated_lines_are_said_before_by_the_same_speaker(seed):
    for case, was in copies("repeated lines", seed):
        now = case.dialogue
        assert frame_of(now) == frame_of(was)
        assert {turn.text for turn in now.turns} < {turn.text for turn in was.turns}
        for place, turn in enumerate(now.turns):
            if turn.text != was.turns[place].text:
                assert turn.text in [t.text for t in was.turns[:place] if t.speaker == turn.speaker]


@given(NUMBERS)
@settings(max_examples=3, deadline=None)
def test_a_leaked_secret_is_added_to_one_line_of_whose_it_is(seed):
    for case, was in copies("leaked secret", seed):
        now = case.dialogue
        assert frame_of(now) == frame_of(was)
        (place,) = [i for i, turn in enumerate(now.turns) if turn.text != was.turns[i].text]
        told = now.turns[place].text.removeprefix(was.turns[place].text)
        assert place > 1
        assert " I " in told
        secret = case.scenario.people[place % 2].secret
        assert secret not in told
        assert len({*secret.lower().split()} & {*told.lower().split()}) >= 3


@given(NUMBERS)
@settings(max_examples=3, deadline=None)
def test_swapped_culture_is_the_same_scene_of_others_with_our_names(seed):
    swaps = copies("swapped culture", seed)
    assert len(swaps) == 110  # 6 held-out and 16 other scenarios of each culture
    for case, ours in swaps:
        seed_id, culture = case.scenario.seed_id, case.scenario.culture
        now = case.dialogue
        assert (now.scenario_id, now.culture) == (ours.scenario_id, culture)
        people = [person.name for person in case.scenario.people]
        assert [turn.speaker for turn in now.turns] == [
            people[i % 2] for i in range(len(now.turns))
        ]
        theirs = [
            {name for person in SCENARIOS[talk.scenario_id].people for name in person.name.split()}
            for talk in DIALOGUES.values()
            if SCENARIOS[talk.scenario_id].seed_id == seed_id
            and talk.culture != culture
            and [turn.action for turn in talk.turns] == [turn.action for turn in now.turns]
        ]
        told = {*re.findall(r"[\w-]+", now.transcript())} - {*" ".join(people).split()}
        assert any(not told & names for names in theirs), theirs


def test_names_and_fillers_are_ours_in_a_swap():
    pair = [
        next(
            talk
            for talk in some.dialogues
            if SCENARIOS[talk.scenario_id].seed_id == "hospitality-01"
        )
        for some in (load_authored("chinese"), load_authored("british"))
    ]
    scenes = [SCENARIOS[talk.scenario_id] for talk in pair]
    cases = corrupted(scenes, pair, "swapped culture", seed=1)
    assert [case.source for case in cases] == [talk.id for talk in pair]
    told = cases[1].dialogue.transcript()
    assert told.startswith("Adrian Sheppard: You came at the right time")
    assert "Dawn Bell: Auntie Adrian, please" in told
    assert "Han Jing" not in told
    assert "Xiao Dawn" in told


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_copies_depend_on_the_seed_alone_and_leave_the_originals(kind):
    before = [talk.model_copy(deep=True) for talk in DIALOGUES.values()]
    first, again, other = (copies(kind, seed) for seed in (1, 1, 2))
    assert first == again
    assert [case for case, _ in first] != [case for case, _ in other]
    assert list(DIALOGUES.values()) == before
    assert {case.label for case, _ in first} == {"bad"}
    assert {case.kind for case, _ in first} == {kind}
    ids = [case.dialogue.id for case, _ in first]
    assert len({*ids} | {*DIALOGUES}) == len(ids) + len(DIALOGUES)
    if kind != "swapped culture":
        alone = corrupted(list(SCENARIOS.values()), [first[7][1]], kind, 1)
        assert alone == [first[7][0]]


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("Has a heart and is afraid.", "I have a heart and am scared."),
        ("Fell asleep and needs to lie down.", "I fell asleep and need to lie down."),
        ("Cries at night and wants nobody to see.", "I cry at night and want no one to see."),
        ("Was told and cannot pay.", "I was told and can't pay."),
        ("Still sleeps on a sofa and does not mind.", "I still sleep on a sofa and don't mind."),
        ("Misses home and wishes to go.", "I miss home and wish to go."),
    ],
)
def test_a_secret_is_told_in_the_first_person(secret, told):
    assert confession(secret, random.Random(1)).endswith(f" {told}")


def test_every_secret_can_be_told_in_the_first_person():
    for seed in load_seeds():
        for role in (seed.person1, seed.person2):
            told = confession(role.secret, random.Random(seed.id))
            first = told.partition(" I ")[2].split()[0]
            assert first not in ("has", "is", "does", "needs", "wants")
            assert told.endswith(".")


def test_what_the_rules_find():
    """Recall 1 for what the rules are about, 0 for what only understanding finds."""
    cases = gold_cases(authored_cultures(), None, 99, seed=1)
    found = Counter((case.kind, form_problem(case.scenario, case.dialogue)) for case in cases)
    assert found == {
        ("authored", ""): 170,
        ("shuffled turns", ""): 170,
        ("swapped culture", ""): 110,
        ("repeated lines", "repeated lines"): 170,
        ("leaked secret", "leaked secret"): 170,
    }


def test_gold_cases_are_conversations_with_their_copies():
    cases = gold_cases(["german", "japanese", "korean"], "held-out", 2, seed=1)
    assert len(cases) == 20
    assert Counter(case.kind for case in cases) == dict.fromkeys(["authored", *CORRUPTIONS], 4)
    assert Counter(case.source.split("-")[0] for case in cases) == {"german": 10, "japanese": 10}
    assert {case.scenario.split for case in cases} == {"held-out"}
    assert [case.source for case in cases] == [s for s in dict.fromkeys(c.source for c in cases)
                                               for _ in range(5)]  # fmt: skip
    assert cases == gold_cases(["japanese", "german"], "held-out", 2, seed=1)
    more = gold_cases(["german", "japanese"], "held-out", 3, seed=1)
    assert {case.source for case in cases} < {case.source for case in more}
    assert len(gold_cases(["german"], "held-out", 99, seed=1)) == 30
    assert [case.label for case in cases[:5]] == ["good"] + ["bad"] * 4
    for case in cases:
        assert case.dialogue.scenario_id == case.scenario.id
        assert type(case).model_validate_json(case.model_dump_json()) == case


def test_a_culture_without_authored_conversations_is_refused():
    with pytest.raises(StudyError, match="no authored conversations for korean, only for british"):
        gold_cases(["korean"], None, 2, seed=1)


CASES = gold_cases(["german", "chinese"], "held-out", 4, seed=1)
EVEN = np.log([0.5, 0.5])


def scripted(p_bad):
    """Return what a model with these probabilities of "bad" says of `CASES`, all aspects alike."""
    rows = [*[EVEN] * len(CASES), *(np.log([1 - p, p]) for p in p_bad)] * 3
    model = ScriptedModel(["So."] * 3 * len(CASES), rows)
    judgements = examine(model, CASES, 1, reject_confidence=0.8)
    assert not model.logprobs
    return judgements


def noise(seed):
    return np.random.default_rng(seed).uniform(0.01, 0.99, len(CASES))


PERFECT = [0.9 if case.label == "bad" else 0.2 for case in CASES]
JUDGES = {
    "perfect": (PERFECT, {"form", "quality", "culture", "meta"}),
    "random": (noise(4), {"form"}),
    "constant": ([0.9] * len(CASES), {"form"}),
    "inverted": ([1 - p for p in PERFECT], {"form"}),
}


@pytest.mark.parametrize("name", JUDGES)
def test_only_a_judge_better_than_chance_is_proven(name):
    p_bad, believed = JUDGES[name]
    frame = agreement(CASES, scripted(p_bad))
    assert proven(frame) == believed
    sentences = findings(frame)
    assert [sentence.split()[0] for sentence in sentences] == ["Quality", "Culture", "Meta"]
    good = "so it may filter"
    assert [good in sentence for sentence in sentences] == [len(believed) > 1] * 3


def test_the_model_is_asked_about_what_the_rules_reject_too():
    judgements = scripted(PERFECT)
    assert [one.dialogue_id for one in judgements] == [case.dialogue.id for case in CASES]
    aspects = {tuple(verdict.aspect for verdict in one.verdicts) for one in judgements}
    assert aspects == {get_args(Aspect)}
    forms = Counter(one.verdicts[0].reason for one in judgements)
    assert forms == {"well formed": 24, "repeated lines": 8, "leaked secret": 8}
    assert [one.kept for one in judgements] == [case.label == "good" for case in CASES]


def test_a_row_per_aspect_and_kind():
    frame = agreement(CASES, scripted(PERFECT))
    assert list(frame["aspect"].unique()) == ASPECTS
    assert list(frame["kind"].unique()) == [*CORRUPTIONS, "all"]
    rows = frame.set_index(["aspect", "kind"])
    assert len(rows) == 25
    assert rows.loc[("form", "all"), ["n", "bad"]].tolist() == [40, 32]
    assert rows.loc[("form", "leaked secret"), ["n", "bad"]].tolist() == [16, 8]
    assert rows.loc[("form", "all"), ["precision", "recall", "false_alarms", "auc"]].tolist() == [
        1, 0.5, 0, 0.75,
    ]  # fmt: skip
    assert np.isnan(rows.loc[("form", "shuffled turns"), "precision"])
    assert rows.loc[("form", "shuffled turns"), ["recall", "auc"]].tolist() == [0, 0.5]
    assert rows.loc[("meta", "all"), ["auc", "low", "high"]].tolist() == [1, 1, 1]
    assert rows.loc[("filter", "all"), ["precision", "recall"]].tolist() == [1, 1]


def test_the_filter_is_measured_as_it_is_trusted():
    strict = scripted([0.9] * len(CASES))
    for trusted, expected in (((), [1, 0.5, 0]), (("meta",), [0.8, 1, 1])):
        frame = agreement(CASES, decide_again(strict, 0.8, trusted))
        row = frame[(frame["aspect"] == "filter") & (frame["kind"] == "all")]
        assert row[["precision", "recall", "false_alarms"]].iloc[0].tolist() == expected


def test_probabilities_and_findings_are_those_of_the_verdicts():
    p_bad = noise(3)
    table = opinions(CASES, scripted(p_bad))
    meta = table[table["aspect"] == "meta"]
    np.testing.assert_allclose(meta["p_bad"], p_bad, atol=6e-4)  # recorded to three decimals
    assert meta["found"].tolist() == (p_bad > 0.5).tolist()
    frame = agreement(CASES, scripted(p_bad)).set_index(["aspect", "kind"])
    for kind in CORRUPTIONS:
        part = meta[meta["kind"].isin(["authored", kind])]
        area = roc_auc_score(part["bad"], part["p_bad"])
        assert frame.loc[("meta", kind), "auc"] == pytest.approx(area)
    assert frame.loc[("meta", "all"), "auc"] == pytest.approx(
        roc_auc_score(meta["bad"], meta["p_bad"])
    )


def test_few_conversations_prove_nothing():
    few = [case for case in CASES if case.source in {c.source for c in CASES[:5]}]
    judgements = scripted(PERFECT)[: len(few)]
    frame = agreement(few, judgements)
    assert (frame.loc[frame["aspect"] == "meta", "auc"] == 1).all()
    assert frame[["low", "high"]].isna().all(axis=None)
    assert proven(frame) == set()
    assert all("too few conversations" in sentence for sentence in findings(frame))


def test_without_gold_nothing_is_proven():
    frame = agreement([], [])
    assert list(frame.columns) == list(agreement(CASES, scripted(PERFECT)).columns)
    assert (len(frame), proven(frame), findings(frame)) == (0, set(), [])
    assert gold_cases(["german"], None, 0, seed=1) == []


def test_good_cases_alone_measure_false_alarms_only():
    cases = [case for case in CASES if case.label == "good"]
    verdict = Verdict(aspect="quality", label="bad", confidence=0.7, reason="", judge="m")
    judgements = [
        Judgement(dialogue_id=case.dialogue.id, verdicts=[verdict], kept=True, reason="kept")
        for case in cases
    ]
    frame = agreement(cases, judgements)
    assert frame[["auc", "low", "high", "recall"]].isna().all(axis=None)
    assert frame.loc[frame["aspect"] == "quality", "false_alarms"].tolist() == [1] * 5
    assert proven(frame) == set()


TABLES = st.lists(
    st.tuples(st.integers(0, 9), st.booleans(), st.sampled_from([0, 0.2, 0.5, 0.7, 1])),
    min_size=2,
    max_size=60,
).map(lambda rows: pd.DataFrame(rows, columns=["source", "bad", "p_bad"]))


@given(TABLES.filter(lambda table: table["bad"].nunique() == 2))
@settings(max_examples=30, deadline=None)
def test_the_area_is_scikit_learn_s_and_lies_in_an_interval_between_0_and_1(table):
    area = auc_interval(table, 1, resamples=200)
    assert area.mean == pytest.approx(roc_auc_score(table["bad"], table["p_bad"]))
    turned = auc_interval(table.assign(p_bad=1 - table["p_bad"]), 1, resamples=200)
    assert turned.mean == pytest.approx(1 - area.mean)
    assert auc_interval(table, 1, resamples=200) == pytest.approx(area, nan_ok=True)
    if table["source"].nunique() < FEWEST:
        assert np.isnan([area.low, area.high]).all()
    else:
        assert 0 <= area.low <= area.high <= 1
        assert [turned.low, turned.high] == pytest.approx([1 - area.high, 1 - area.low])
