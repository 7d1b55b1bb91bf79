"""Plays: whole, none of a held-out scene, and well formed under whatever names they are filled."""

from collections import Counter

import pytest

from clca_utils.culture import load_culture
from clca_utils.files import StudyError
from clca_utils.form import form_problem
from clca_utils.plays import Line, Play, load_plays, stage
from clca_utils.scenario import load_seeds

PLAYS = load_plays()
SCENES = {one.id: one for one in load_seeds()}
JAPAN = load_culture("japanese")


def test_every_scene_to_learn_from_has_plays_and_no_other_has_any():
    plays = Counter(play.seed_id for play in PLAYS)
    assert set(plays) == {one.id for one in load_seeds("learn")}
    assert min(plays.values()) >= 2
    assert len({play.id for play in PLAYS}) == len(PLAYS) > 300
    lines = Counter(line.text for play in PLAYS for line in play.lines if line.action == "speak")
    assert max(lines.values()) <= 2
    assert sum(lines.values()) - len(lines) < 0.01 * len(lines)  # hardly a line is there twice


def test_turns_alternate_and_use_every_action():
    actions = Counter()
    for play in PLAYS:
        assert [line.person for line in play.lines] == [1, 2] * 4
        assert all(line.action != "leave" for line in play.lines[:-1])
        assert all(line.action == "speak" for line in play.lines[:2])
        actions.update(line.action for line in play.lines)
    assert all(actions[action] >= 5 for action in ("none", "non-verbal", "leave"))


@pytest.mark.parametrize("culture", ["american", "chinese", "german", "japanese", "turkish"])
def test_no_rule_of_form_finds_fault_with_a_filled_play(culture):
    """A long filler can make a line one that reads out the prompt, but seldom does."""
    found, place = Counter(), load_culture(culture)
    for play in PLAYS:
        scene, talk = stage(play, SCENES[play.seed_id], place, seed=3)
        assert (scene.split, talk.source) == ("learn", "authored")
        assert "{" not in talk.transcript()
        found[form_problem(scene, talk)] += 1
    assert set(found) <= {"", "copied turn"}
    assert found["copied turn"] <= 0.02 * len(PLAYS)


def test_a_play_is_filled_as_its_scene_is():
    play = Play(
        id="hospitality-01-x",
        seed_id="hospitality-01",
        lines=[
            Line(person=1, action="speak", text="Come in, {address2}. It is {time:19:15}."),
            Line(person=2, action="leave", text="{name1}, keep {gift}, it cost {money:20}."),
        ],
    )
    scene, talk = stage(play, SCENES[play.seed_id], JAPAN, seed=7)
    filled = {change.slot: change.adapted for change in scene.changes}
    assert talk.turns[0].text == f"Come in, {filled['name2']}-san. It is {filled['time:19:15']}."
    assert talk.turns[1].text.startswith(f"{filled['name1']}, keep {filled['gift']}, it cost ")
    assert [turn.speaker for turn in talk.turns] == [one.name for one in scene.people]
    assert talk.ended == "leave"
    assert stage(play, SCENES[play.seed_id], JAPAN, 7) == (scene, talk)
    assert stage(play, SCENES[play.seed_id], JAPAN, 8)[1].turns[0].text != talk.turns[0].text


def test_a_slot_that_nothing_fills_is_told():
    play = Play(
        id="hospitality-01-x",
        seed_id="hospitality-01",
        lines=[Line(person=1, action="speak", text="Look at {moon}.")],
    )
    with pytest.raises(StudyError, match=r"play hospitality-01-x has the slot \{moon\}"):
        stage(play, SCENES[play.seed_id], JAPAN, 1)
