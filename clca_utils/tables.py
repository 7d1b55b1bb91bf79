"""Artefacts as plain frames, one row per thing, for the notebooks' tables and figures."""

import html
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import get_args

import pandas as pd
from pandas.io.formats.style import Styler

from clca_utils.dialogue import Dialogue
from clca_utils.intent import Intent
from clca_utils.judging import Aspect, Judgement
from clca_utils.scenario import Scenario


def readable(table: pd.DataFrame) -> Styler:
    """Return a table for a notebook: no index, two decimals, and markup in its texts as text."""
    return table.style.hide(axis="index").format(precision=2, escape="html")


def slot_table(scenarios: Sequence[Scenario]) -> pd.DataFrame:
    """Return what stands in each slot of each scenario.

    Returns:
        Columns scenario, slot (its kind, such as "dish"), text, adapted (False in the unadapted
        control).
    """
    rows = [
        (one.id, change.slot.partition(":")[0], change.adapted, one.rewriter != "none")
        for one in scenarios
        for change in one.changes
    ]
    return pd.DataFrame(rows, columns=["scenario", "slot", "text", "adapted"])


def side_by_side(neutral: Scenario, *adapted: Scenario) -> pd.DataFrame:
    """Return the same scenario before and after adaptation, part by part.

    Returns:
        Index: setting, and each person's name, background, occupation, goal and secret; then what
        many people do there. Columns: "neutral" and the cultures' names.
    """

    def parts(scenario: Scenario) -> dict[str, str]:
        people = {
            f"person {number}: {key}": str(getattr(persona, key))
            for number, persona in enumerate(scenario.people, start=1)
            for key in ("name", "occupation", "background", "goal", "secret")
        }
        return {"setting": scenario.setting} | people | {"customs": " ".join(scenario.customs)}

    return pd.DataFrame({"neutral": parts(neutral)} | {one.culture: parts(one) for one in adapted})


def marked(table: pd.DataFrame) -> pd.DataFrame:
    """Return texts as HTML in which every column but the first marks the words it changed.

    A text that the first column lacks altogether is left without marks.
    """

    def marks(before: str, text: str) -> str:
        old, new = before.split(), text.split()
        pieces = [
            (tag, html.escape(" ".join(new[start:end])))
            for tag, _, _, start, end in SequenceMatcher(None, old, new, False).get_opcodes()
            if start < end
        ]
        return " ".join(
            f"<mark>{piece}</mark>" if old and tag != "equal" else piece for tag, piece in pieces
        )

    first = table.iloc[:, 0]
    columns = {name: [*map(marks, first, column)] for name, column in table.items()}
    return pd.DataFrame(columns, index=table.index)


def turn_table(dialogues: Sequence[Dialogue]) -> pd.DataFrame:
    """Return every turn.

    Returns:
        Columns dialogue, turn (from 1), speaker, action, text, words (how many), forced and
        format_mass (see `dialogue.Turn`).
    """
    rows = [
        {
            "dialogue": dialogue.id,
            "turn": turn.index + 1,
            "speaker": turn.speaker,
            "action": turn.action,
            "text": turn.text,
            "words": len(turn.text.split()),
            "forced": turn.forced,
            "format_mass": turn.format_mass,
        }
        for dialogue in dialogues
        for turn in dialogue.turns
    ]
    columns = ["dialogue", "turn", "speaker", "action", "text", "words", "forced", "format_mass"]
    return pd.DataFrame(rows, columns=columns)


def judgement_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Return every judgement.

    Returns:
        Columns dialogue, kept, reason, and per aspect "<aspect>" (the label) and
        "<aspect>_confidence".
    """
    rows: list[dict[str, object]] = []
    for one in judgements:
        labels = {verdict.aspect: verdict.label for verdict in one.verdicts}
        sure = {f"{verdict.aspect}_confidence": verdict.confidence for verdict in one.verdicts}
        rows.append(
            {"dialogue": one.dialogue_id, "kept": one.kept, "reason": one.reason} | labels | sure
        )
    aspects = [column for aspect in get_args(Aspect) for column in (aspect, f"{aspect}_confidence")]
    return pd.DataFrame(rows, columns=["dialogue", "kept", "reason", *aspects])


def intent_table(intents: Sequence[Intent]) -> pd.DataFrame:
    """Return every intent.

    Returns:
        Columns dialogue, turn (from 1), speaker, intent, cultural, confidence, expectation.
    """
    rows = [intent.model_dump() for intent in intents]
    table = pd.DataFrame(rows, columns=list(Intent.model_fields))
    return table.rename(columns={"dialogue_id": "dialogue"}).assign(turn=table["turn"] + 1)
