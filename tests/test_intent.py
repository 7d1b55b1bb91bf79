"""Intents: one sentence a turn, and an expectation only where the model is sure enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all
from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import FOLDER, load_culture
from clca_utils.dialogue import Dialogue, Turn, told
from clca_utils.intent import (
    CONVERSATIONS,
    COPIED,
    LINES,
    MADE_UP,
    Passage,
    examples_for,
    expectation_prompt,
    extract,
    first_sentence,
    intent_prompt,
    passage_of,
    readable,
)
from clca_utils.scenario import load_seeds

SCENE, OTHER = adapt_all(load_seeds()[:2], load_culture("german"), seed=1)
TURNS = [
    Turn(index=i, speaker="AB"[i % 2], action="speak", text=text, forced=0, format_mass=None)
    for i, text in enumerate(["Do come in.", "I must be off.", "Only a minute!"])
]
TALK = Dialogue(
    id="t", scenario_id=SCENE.id, culture="German", sample=0, seed=1,
    simulators=("m", "m"), turns=TURNS, ended="turn limit",
)  # fmt: skip
EVEN = np.log([0.5, 0.5])


def scripted(replies, *yes):
    """Return a model with these replies that says yes to each expectation so surely."""
    return ScriptedModel(replies, [*[EVEN] * len(yes), *[np.log([p, 1 - p]) for p in yes]])


def run(model, *turns, threshold=0.5):
    return extract(
        model,
        [(SCENE, TALK, turn) for turn in turns],
        seed=1,
        max_new_tokens=9,
        cultural_threshold=threshold,
    )


def test_every_turn_has_an_intent_and_the_sure_ones_an_expectation():
    replies = ["be polite. And so on", "go home.", "keep B here.", "expect guests to stay. It"]
    model = scripted(replies, 0.3, 0.49, 0.8)
    intents = run(model, *TURNS)
    assert model.replies == []
    assert [(one.dialogue_id, one.turn, one.speaker) for one in intents] == [
        ("t", 0, "A"),
        ("t", 1, "B"),
        ("t", 2, "A"),
    ]
    assert [one.intent for one in intents] == [
        "A wants to be polite.",
        "B wants to go home.",
        "A wants to keep B here.",
    ]
    assert [one.cultural for one in intents] == [False, False, True]
    assert [one.confidence for one in intents] == pytest.approx([0.3, 0.49, 0.8])
    assert [one.expectation for one in intents] == [
        "",
        "",
        "Many people in Germany expect guests to stay.",
    ]


def test_the_threshold_itself_is_sure_enough():
    (only,) = run(scripted(["go home.", "see guests to the door."], 0.5), TURNS[1])
    assert only.cultural
    assert run(scripted(["go home."], 0.5), TURNS[1], threshold=0.51)[0].expectation == ""


def test_a_model_that_always_says_yes_is_not_believed():
    yes = np.log([0.95, 0.05])
    (only,) = run(ScriptedModel(["go home."], [yes, yes]), TURNS[1], threshold=0.6)
    assert not only.cultural
    assert only.confidence == pytest.approx(0.5)


def test_what_is_unreadable_is_left_empty_and_the_turn_keeps_its_place():
    replies = ["say <|im_end|> hello.", "go home and", "keep B.", "", "expect", "wave at guests."]
    intents = run(scripted(replies, 0.9, 0.8, 0.7), *TURNS)
    assert [one.intent for one in intents] == ["", "", "A wants to keep B."]
    assert [one.expectation for one in intents] == [
        "",
        "",
        "Many people in Germany wave at guests.",
    ]
    assert [one.cultural for one in intents] == [True] * 3
    assert [one.confidence for one in intents] == pytest.approx([0.9, 0.8, 0.7])


def test_a_line_is_explained_from_what_came_before_it():
    model = scripted(["go home.", "go early."], 0.9)
    run(model, TURNS[1])
    intent, blank, asked, expectation = model.seen
    for prompt in (intent, asked, expectation):
        said = "\n".join(message["content"] for message in prompt)
        assert f"{told(TURNS[0])}\n{told(TURNS[1])}" in said
        assert TURNS[2].text not in said
        assert SCENE.setting in said
        assert not [p for p in SCENE.people if p.goal in said or p.secret in said]
    assert intent[-1]["content"] == "B wants to"
    assert expectation[-1]["content"] == "Yes. Many people in Germany"
    assert expectation[:-1] == asked
    assert blank[:-1] == asked[:-1]
    assert blank[-1]["content"] == asked[-1]["content"].replace(told(TURNS[1]), "N/A")


def test_what_turns_share_comes_first_and_the_line_last():
    examples = examples_for(SCENE, 1)
    first, second = (passage_of(SCENE, TALK, turn) for turn in TURNS[:2])
    earlier, later = (intent_prompt(one, examples) for one in (first, second))
    assert later[:-1] == earlier[:-1]
    assert later[-1]["content"].startswith(earlier[-1]["content"])
    assert later[-1]["content"].endswith(told(TURNS[1]))
    earlier, later = (expectation_prompt(one, examples) for one in (first, second))
    assert later[:-1] == earlier[:-1]
    begun = earlier[-1]["content"].partition("\n\nIs there")[0]
    assert later[-1]["content"].startswith(begun)
    assert (
        intent_prompt(first, examples)[:-1]
        == intent_prompt(passage_of(OTHER, TALK, TURNS[0]), examples)[:-1]
    )


def test_examples_alternate_with_their_answers():
    passage = Passage("Norway", "Many ski.", "A hut.", "A: Hi.")
    prompts = intent_prompt(passage, MADE_UP), expectation_prompt(passage, MADE_UP)
    for prompt in prompts:
        roles = [message["role"] for message in prompt]
        assert roles == ["system", *["user", "assistant"] * len(MADE_UP), "user"]
    answers = [[m["content"] for m in p if m["role"] == "assistant"] for p in prompts]
    assert answers[0] == [one.intent for one in MADE_UP]
    assert [text.partition(".")[0] for text in answers[1]] == ["Yes", "No", "Yes", "No"]


@pytest.mark.parametrize("culture", authored_cultures())
def test_examples_are_of_the_culture_and_never_of_the_same_scenario(culture):
    learnt, held_out = load_authored(culture, "learn"), load_authored(culture, "held-out")
    known = {one.setting: one for one in learnt.scenarios}
    for scenario in [*learnt.scenarios, *held_out.scenarios]:
        examples = examples_for(scenario, 1)
        assert len(examples) == CONVERSATIONS * LINES
        drawn = [known[one.passage.setting] for one in examples if one.passage.setting]
        assert len({one.seed_id for one in drawn}) == CONVERSATIONS
        assert scenario.seed_id not in {one.seed_id for one in drawn}
    spread = [examples_for(held_out.scenarios[0], seed) for seed in range(4)]
    assert examples_for(held_out.scenarios[1], 0) == spread[0]
    assert any(one != spread[0] for one in spread)
    kinds = {bool(one.expectation) for one in spread[0]}
    assert kinds == {True, False}


def test_cultures_without_conversations_and_the_control_see_made_up_lines_of_other_countries():
    countries = {load_culture(file.stem).country for file in FOLDER.glob("*.yaml")}
    assert not countries & {one.passage.country for one in MADE_UP}
    unadapted = SCENE.model_copy(update={"rewriter": "none"})
    assert examples_for(unadapted, 1) == MADE_UP
    assert examples_for(SCENE.model_copy(update={"culture": "Elvish"}), 1) == MADE_UP
    assert examples_for(SCENE, 1) != MADE_UP


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("A wants tea. B does not.", "A wants tea."),
        ("A wants tea.", "A wants tea."),
        ("A wants", "A wants"),
        ("Yes. Many expect tea. They do.", "Yes. Many expect tea."),
        ("Yes. Many expect tea", "Yes. Many expect tea"),
        ("A pays 3.50 euros. Then", "A pays 3.50 euros."),
        ("", ""),
    ],
)
def test_first_sentence(text, first):
    assert first_sentence(text) == first


@given(st.text("ab. ", max_size=20), st.sampled_from(["", "Yes. "]))
def test_a_first_sentence_begins_the_text_and_holds_no_second(text, head):
    first = first_sentence(head + text.strip())
    assert (head + text.strip()).startswith(first)
    assert ". " not in first.removeprefix(head)


LINE = "Ana: Could you lend me your ladder until Friday?"


@pytest.mark.parametrize(
    ("written", "is_readable"),
    [
        (" borrow the ladder.", True),
        (' hear "yes, gladly."', True),
        (" borrow the ladder", False),
        (" borrow the", False),
        ("", False),
        (" .", False),
        (" ask.", False),
        (" get the ladder, that is, to be told: lend me your ladder.", True),
        (" want the ladder until Friday.", True),
        (" say: could you lend me your ladder?", False),
        (" COULD YOU LEND, ME YOUR LADDER!", False),
        (" borrow it.<|im_end|>", False),
        (" be kind.</s>", False),
        (" be [INST] kind.", False),
        (" ACTION: speak.", False),
    ],
)
def test_readable(written, is_readable):
    assert readable(written, LINE) == is_readable


@given(
    st.lists(st.sampled_from("abcdefg"), min_size=COPIED, max_size=12), st.text("hijk ", max_size=4)
)
def test_a_copy_of_the_line_is_never_readable(words, before):
    line = " ".join(words)
    assert not readable(f"{before} {line}.", f"Ana: {line}")
    assert readable(f"{before} {line}.", "Ana: x")


def test_the_authors_intents_are_readable():
    for culture in authored_cultures():
        known = load_authored(culture)
        lines = {(one.id, turn.index): told(turn) for one in known.dialogues for turn in one.turns}
        for one in known.intents:
            assert readable(one.intent, lines[one.dialogue_id, one.turn]), one
            assert not one.cultural or readable(one.expectation, lines[one.dialogue_id, one.turn])
