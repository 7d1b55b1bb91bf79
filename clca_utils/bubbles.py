"""A conversation as chat bubbles, in HTML that stands for itself: for notebooks and web pages.

Nothing but inline styles, no script and nothing to load. Text that is not in a bubble takes the
page's colour, so it reads in a light and a dark theme; widths give way on a narrow screen.
"""

from collections.abc import Sequence
from html import escape

from clca_utils.dialogue import Dialogue, Turn, told
from clca_utils.intent import Intent
from clca_utils.judging import Judgement
from clca_utils.scenario import Scenario

COLOURS = "#d9e8f6", "#fbe5c8"
"""Of the two people's bubbles; text in them is nearly black."""

SMALL = "font-size:.8em;opacity:.8"


def bubbles(
    scenario: Scenario,
    dialogue: Dialogue,
    judgement: Judgement | None = None,
    intents: Sequence[Intent] = (),
) -> str:
    """Return a conversation as HTML.

    The first person's bubbles are on the left, the second's on the right; gestures are in italics,
    silence and leaving are notes in the middle. On top stand the setting, where the conversation is
    from, and the verdict with its reasons.

    Args:
        scenario: What it acts.
        dialogue: The conversation.
        judgement: Its own, if it was judged.
        intents: Shown below the turns they belong to; those of other dialogues are passed over.
    """
    said = {
        one.turn: _intent(one, dialogue.source == "simulated")
        for one in intents
        if one.dialogue_id == dialogue.id
    }
    turns = [
        _turn(turn, turn.speaker == scenario.person2.name, said.get(turn.index, ""))
        for turn in dialogue.turns
    ]
    style = "max-width:40em;margin:0 auto;line-height:1.4;overflow-wrap:anywhere"
    return (
        f'<div lang="en" style="{style}">'
        f"{_note(scenario.setting)}{_note(_origin(dialogue))}{_verdict(judgement)}"
        f"{''.join(turns)}</div>"
    )


def _text(text: str) -> str:
    """Return text that neither markup nor marks of writing direction in it can leave."""
    return f'<bdi dir="auto">{escape(text)}</bdi>'


def _note(text: str) -> str:
    return f'<p style="text-align:center;margin:.4em 1em;{SMALL}">{_text(text)}</p>'


def _origin(dialogue: Dialogue) -> str:
    if dialogue.source == "authored":
        return "authored: written as an example, played by no model"
    return f"simulated by {' and '.join(dict.fromkeys(dialogue.simulators))}"


def _verdict(judgement: Judgement | None) -> str:
    if judgement is None:
        return ""
    head = "kept" if judgement.kept else f"dropped: {judgement.reason}"
    reasons = [
        f"{one.aspect} {one.label} ({one.confidence:.0%}): {one.reason}"
        for one in judgement.verdicts
    ]
    listed = "".join(f'<li style="margin:0">{_text(reason)}</li>' for reason in reasons)
    return (
        '<div style="border:1px solid;border-radius:.5em;padding:.3em .8em;margin:.4em 0;'
        f'{SMALL}"><b>{_text(head)}</b><ul style="margin:0;padding-left:1.2em">{listed}</ul></div>'
    )


def _intent(intent: Intent, is_measured: bool) -> str:
    """Say what stands behind a turn, and how sure a model was of an expectation there."""
    kind = "cultural" if intent.cultural else "generic"
    sure = f" (expectation {intent.confidence:.0%})" if is_measured else ""
    text = " ".join(filter(None, [intent.intent or "(no readable intent)", intent.expectation]))
    return f"{kind} intent{sure}: {text}"


def _turn(turn: Turn, is_second: bool, intent: str) -> str:
    """Return one turn: a bubble below the speaker's name, or a note; below it what it is after."""
    if not turn.text:
        return _note(told(turn)) + (_note(intent) if intent else "")
    words = _text(turn.text)
    if turn.action == "non-verbal":
        words = f"<i>{words}</i>"
    sides = "0 0 auto" if is_second else "auto 0 0"
    small = f'<div style="{SMALL}">'
    below = f"{small}{_text(intent)}</div>" if intent else ""
    left = _note(f"{turn.speaker} leaves.") if turn.action == "leave" else ""
    return (
        f'<div style="width:fit-content;max-width:85%;margin:.5em {sides}">'
        f"{small}{_text(turn.speaker)}</div>"
        f'<div style="background:{COLOURS[is_second]};color:#1a1a1a;border-radius:.8em;'
        f'padding:.4em .8em">{words}</div>{below}</div>{left}'
    )
