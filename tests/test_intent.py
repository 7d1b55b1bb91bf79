"""Intents: one sentence a turn, and an expectation only where the model is sure enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import FOLDER, load_culture
from clca_utils.dialogue import Dialogue, Turn, told
from clca_utils.intent import (
    EXPECTATIONS,
    INTENTS,
    expectation_prompt,
    extract,
    first_sentence,
    intent_prompt,
)
from clca_utils.scenario import load_seeds

(SCENE,) = adapt_all(load_seeds()[:1], load_culture("german"), seed=1)
TURNS = [
    Turn(index=i, speaker="AB"[i % 2], action="speak", text=text, forced=0, format_mass=None)
    for i, text in enumerate(["Do come in.", "I must be off.", "Only a minute!"])
]
TALK = Dialogue(id="t", scenario_id=SCENE.id, culture="German", sample=0, seed=1, simulator="m",
                turns=TURNS, ended="turn limit")  # fmt: skip
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
    replies = ["be polite. And so on", "go home", "keep B here.", "guests to accept. Often, it"]
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
        "B wants to go home",
        "A wants to keep B here.",
    ]
    assert [one.cultural for one in intents] == [False, False, True]
    assert [one.confidence for one in intents] == pytest.approx([0.3, 0.49, 0.8])
    assert [one.expectation for one in intents] == [
        "",
        "",
        "Many people in Germany expect guests to accept.",
    ]


def test_the_threshold_itself_is_sure_enough():
    (only,) = run(scripted(["go home.", "guests to go."], 0.5), TURNS[1])
    assert only.cultural
    assert run(scripted(["go home."], 0.5), TURNS[1], threshold=0.51)[0].expectation == ""


def test_a_model_that_always_says_yes_is_not_believed():
    yes = np.log([0.95, 0.05])
    (only,) = run(ScriptedModel(["go home."], [yes, yes]), TURNS[1], threshold=0.6)
    assert not only.cultural
    assert only.confidence == pytest.approx(0.5)


def test_a_line_is_explained_from_what_came_before_it():
    model = scripted(["go home.", "guests to go."], 0.9)
    run(model, TURNS[1])
    intent, blank, asked, expectation = model.seen
    for prompt in (intent, asked, expectation):
        said = "\n".join(message["content"] for message in prompt)
        assert told(TURNS[0]) in prompt[0]["content"]
        assert told(TURNS[1]) in said
        assert TURNS[2].text not in said
        assert SCENE.setting in said
        assert not [p for p in SCENE.people if p.goal in said or p.secret in said]
    assert intent[-1]["content"] == "B wants to"
    assert expectation[-1]["content"] == "Yes. Many people in Germany expect"
    assert expectation[:-1] == asked
    nothing = "\n".join(message["content"] for message in blank)
    assert not [text for text in (SCENE.setting, *(t.text for t in TURNS)) if text in nothing]


def test_examples_alternate_and_are_of_other_countries():
    countries = {load_culture(file.stem).country for file in FOLDER.glob("*.yaml")}
    assert not countries & {country for country, _ in EXPECTATIONS}
    for prompt, shown in (
        (intent_prompt(SCENE, "", "A: Hi."), INTENTS),
        (expectation_prompt(SCENE, "", "A: Hi."), EXPECTATIONS),
    ):
        roles = [message["role"] for message in prompt]
        assert roles == ["system", *["user", "assistant"] * len(shown), "user"]
        assert [m["content"] for m in prompt if m["role"] == "assistant"] == list(shown.values())


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
