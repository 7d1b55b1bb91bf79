"""Authored conversations: whole, marked, and none of a held-out scene in the warm-up."""

from collections import Counter
from itertools import cycle

import pytest

from clca_utils.adaptation import adapt_all
from clca_utils.authored import authored_cultures, load_authored, shown_conversations
from clca_utils.culture import load_culture
from clca_utils.dialogue import ACTIONS
from clca_utils.files import StudyError
from clca_utils.scenario import load_seeds

CULTURES = ["british", "chinese", "german", "japanese", "mexican"]
each = pytest.mark.parametrize("culture", CULTURES)


def test_the_five_cultures_of_the_paper_have_authored_conversations():
    assert authored_cultures() == CULTURES


@each
def test_there_are_at_least_thirty_each_on_its_own_scene(culture):
    scenarios, dialogues, _ = load_authored(culture)
    assert len(dialogues) >= 30
    assert [one.scenario_id for one in dialogues] == [one.id for one in scenarios]
    assert len({one.id for one in dialogues}) == len(dialogues)
    assert {one.source for one in dialogues} == {"authored"}
    assert {one.culture for one in (*scenarios, *dialogues)} == {load_culture(culture).name}


@each
def test_scenes_are_those_that_adaptation_makes(culture):
    """An edited word list would leave the conversations behind."""
    scenarios = load_authored(culture).scenarios
    seeds = {seed.id: seed for seed in load_seeds()}
    made = adapt_all([seeds[one.seed_id] for one in scenarios], load_culture(culture), 2025)
    told = {"setting", "person1", "person2", "split", "domain"}
    assert [one.model_dump(include=told) for one in scenarios] == [
        one.model_dump(include=told) for one in made
    ]


@each
def test_turns_alternate_and_use_every_action(culture):
    scenarios, dialogues, _ = load_authored(culture)
    for scene, talk in zip(scenarios, dialogues, strict=True):
        assert 6 <= len(talk.turns) <= 12
        names = [person.name for person in scene.people]
        for turn, name in zip(talk.turns, cycle(names), strict=False):
            assert turn.speaker == name
            assert bool(turn.text) or turn.action in ("none", "leave")
        left = [turn.index for turn in talk.turns if turn.action == "leave"]
        assert left in ([], [len(talk.turns) - 1])
        assert (talk.ended == "leave") == bool(left)
    actions = Counter(turn.action for talk in dialogues for turn in talk.turns)
    assert all(actions[action] >= 10 for action in ACTIONS)


@each
def test_every_turn_has_its_intent_and_expectations_are_of_many_not_all(culture):
    scenarios, dialogues, intents = load_authored(culture)
    turns = [(talk.id, turn.index, turn.speaker) for talk in dialogues for turn in talk.turns]
    assert [(one.dialogue_id, one.turn, one.speaker) for one in intents] == turns
    assert all(one.intent for one in intents)
    assert all(one.cultural == bool(one.expectation) for one in intents)
    assert 0.3 <= sum(one.cultural for one in intents) / len(intents) <= 0.5
    country = load_culture(culture).country
    assert all(country in one.expectation for one in intents if one.cultural)
    assert {one.country for one in scenarios} == {country}


@each
def test_the_two_splits_are_all_of_it(culture):
    every = load_authored(culture)
    learn, held_out = load_authored(culture, "learn"), load_authored(culture, "held-out")
    assert len(held_out.dialogues) == 6
    assert len(learn.dialogues) + len(held_out.dialogues) == len(every.dialogues)
    assert len(learn.intents) + len(held_out.intents) == len(every.intents)
    assert {one.split for one in held_out.scenarios} == {"held-out"}


def test_a_culture_without_any_is_told():
    with pytest.raises(StudyError, match="no authored conversations for 'korean', only for brit"):
        load_authored("korean")


def test_examples_are_drawn_from_other_scenes_to_learn_from():
    scenes = load_authored("german", "learn").scenarios
    shown = shown_conversations("german", 3, seed=1, but=scenes[:20])
    assert len({scene.id for scene, _ in shown}) == 3
    assert not {scene.seed_id for scene, _ in shown} & {scene.seed_id for scene in scenes[:20]}
    assert {scene.split for scene, _ in shown} == {"learn"}
    assert shown_conversations("german", 3, seed=1, but=scenes[:20]) == shown
    assert shown_conversations("german", 3, seed=2, but=scenes[:20]) != shown
    assert shown_conversations("korean", 0, seed=1) == []
    with pytest.raises(StudyError, match="examples is 9, but only 8 authored"):
        shown_conversations("german", 9, seed=1, but=scenes[:20])
