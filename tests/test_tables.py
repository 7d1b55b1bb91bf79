"""Tables: a row for each thing, the columns that their descriptions promise."""

import html

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, Turn
from clca_utils.intent import Intent
from clca_utils.judging import Judgement, Verdict
from clca_utils.scenario import load_seeds
from clca_utils.tables import (
    intent_table,
    judgement_table,
    marked,
    side_by_side,
    slot_table,
    turn_table,
)

GERMAN = load_culture("german")
SCENES = adapt_all(load_seeds(), GERMAN, seed=1)
PLAIN = adapt_all(load_seeds(), GERMAN, seed=1, rewriter="none")


@pytest.mark.parametrize(("scenes", "adapted"), [(SCENES, True), (PLAIN, False)])
def test_a_row_for_each_filled_slot(scenes, adapted):
    table = slot_table(scenes)
    assert list(table.columns) == ["scenario", "slot", "text", "adapted"]
    assert table["adapted"].unique().tolist() == [adapted]
    assert table["scenario"].unique().tolist() == [scene.id for scene in scenes]
    assert len(table) == sum(len(scene.changes) for scene in scenes)
    assert {"money", "time", "date", "dish"} <= set(table["slot"])
    assert not table["slot"].str.contains(":").any()
    dishes = set(table.loc[table["slot"] == "dish", "text"])
    assert dishes <= set(GERMAN.lexicon.dish) if adapted else dishes == {"a meal"}


def test_a_scenario_before_and_after():
    scene, plain = SCENES[0], PLAIN[0]
    table = side_by_side(plain, scene)
    assert list(table.columns) == ["neutral", "German"]
    fields = ("name", "occupation", "background", "goal", "secret")
    people = [f"person {number}: {field}" for number in (1, 2) for field in fields]
    assert list(table.index) == ["setting", *people, "customs"]
    assert table.loc["setting"].tolist() == [plain.setting, scene.setting]
    assert table.loc["person 2: name"].tolist() == ["Person B", scene.person2.name]
    assert table.loc["person 1: secret", "German"] == scene.person1.secret
    assert table.loc["customs"].tolist() == ["", " ".join(scene.customs)]


def test_a_scenario_in_two_cultures_side_by_side():
    korean = adapt_all(load_seeds()[:1], load_culture("korean"), seed=1)[0]
    table = side_by_side(PLAIN[0], SCENES[0], korean)
    assert list(table.columns) == ["neutral", "German", "Korean"]
    assert table["Korean"].tolist() == side_by_side(PLAIN[0], korean)["Korean"].tolist()


def test_what_changed_is_marked_and_nothing_else():
    table = pd.DataFrame(
        {"neutral": ["A has a <meal> now.", ""], "there": ["Jo has a <pie>.", "x"]}
    )
    assert marked(table).to_dict("list") == {
        "neutral": ["A has a &lt;meal&gt; now.", ""],
        "there": ["<mark>Jo</mark> has a <mark>&lt;pie&gt;.</mark>", "x"],
    }


@given(st.text(st.sampled_from("ab <&\n")), st.text(st.sampled_from("ab <&\n")))
def test_marks_leave_the_words_as_they_are(before, text):
    shown = marked(pd.DataFrame({"neutral": [before], "there": [text]}))["there"][0]
    bare = shown.replace("<mark>", "").replace("</mark>", "")
    assert html.unescape(bare).split() == text.split()
    assert ("<mark>" in shown) <= (before.split() != text.split())


TURNS = [
    Turn(index=0, speaker="A", action="speak", text="Do come in.", forced=0.5, format_mass=0.1),
    Turn(index=1, speaker="B", action="leave", text="", forced=1, format_mass=None),
]
TALK = Dialogue(id="t", scenario_id="s", culture="German", sample=0, seed=1, simulators=("m", "m"),
                turns=TURNS, ended="leave")  # fmt: skip
ABOUT = ["dialogue", "turn", "speaker"]


def test_a_row_for_each_turn():
    table = turn_table([TALK, TALK.model_copy(update={"id": "u"})])
    assert list(table.columns) == [*ABOUT, "action", "text", "words", "forced", "format_mass"]
    assert table["dialogue"].tolist() == ["t", "t", "u", "u"]
    assert table["turn"].tolist() == [1, 2, 1, 2]
    assert table["words"].tolist() == [3, 0, 3, 0]
    assert table["format_mass"].isna().tolist() == [False, True] * 2
    assert list(turn_table([]).columns) == list(table.columns)


def test_a_row_for_each_judgement():
    verdicts = [
        Verdict(aspect=aspect, label=label, confidence=confidence, reason="so", judge="m")
        for aspect, label, confidence in [("quality", "good", 0.8), ("meta", "bad", 0.95)]
    ]
    table = judgement_table(
        [
            Judgement(dialogue_id="t", verdicts=verdicts, kept=False, reason="meta bad"),
            Judgement(dialogue_id="u", verdicts=verdicts[:1], kept=True, reason="kept"),
        ]
    )
    assert table.dropna(axis="columns", how="all").iloc[0].to_dict() == {
        "dialogue": "t",
        "kept": False,
        "reason": "meta bad",
        "quality": "good",
        "meta": "bad",
        "quality_confidence": 0.8,
        "meta_confidence": 0.95,
    }
    assert table["meta_confidence"].isna().tolist() == [False, True]
    assert list(judgement_table([]).columns) == list(table.columns)


def test_a_row_for_each_intent():
    intents = [
        Intent(dialogue_id="t", turn=n, speaker="A", intent="A wants tea.", cultural=bool(n),
               confidence=0.4, expectation="Many do." if n else "")
        for n in range(2)
    ]  # fmt: skip
    table = intent_table(intents)
    assert list(table.columns) == [*ABOUT, "intent", "cultural", "confidence", "expectation"]
    assert table["turn"].tolist() == [1, 2]
    assert table["cultural"].tolist() == [False, True]
    assert list(intent_table([]).columns) == list(table.columns)
    assert [one.turn for one in intents] == [0, 1]
