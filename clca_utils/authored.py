"""Conversations written for this study, as examples to learn from and to measure against.

Per culture, `data/authored/<culture>/` holds what a run folder holds after stage 03: scenarios,
dialogues and intents, here written by an author (an AI model) and gone over a second time. They
are marked `source: authored` and were not simulated by any model of the study.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from clca_utils.dialogue import Dialogue, Turn
from clca_utils.files import DATA, StudyError, read_records
from clca_utils.intent import Intent
from clca_utils.scenario import Scenario, Split

FOLDER = DATA / "authored"


class Authored(NamedTuple):
    """The authored conversations of a culture; dialogues and scenarios in the same order."""

    scenarios: list[Scenario]
    dialogues: list[Dialogue]
    intents: list[Intent]


def authored_cultures() -> list[str]:
    """Return the names of the cultures that have authored conversations."""
    return sorted(folder.name for folder in FOLDER.iterdir())


def load_authored(culture: str, split: Split | None = None) -> Authored:
    """Read the authored conversations of a culture.

    Args:
        culture: Name of its file in `params/cultures`.
        split: Only those on scenarios to learn from, or on held-out ones; None: all.

    Raises:
        StudyError: The culture has none.
    """
    folder = FOLDER / culture
    if not folder.is_dir():
        raise StudyError(
            f"There are no authored conversations for '{culture}', only for "
            f"{', '.join(authored_cultures())}."
        )
    scenarios = [
        one
        for one in read_records(folder / "scenarios.jsonl", Scenario)
        if split in (None, one.split)
    ]
    ids = {one.id for one in scenarios}
    dialogues = [
        one for one in read_records(folder / "dialogues.jsonl", Dialogue) if one.scenario_id in ids
    ]
    talks = {one.id for one in dialogues}
    intents = [
        one for one in read_records(folder / "intents.jsonl", Intent) if one.dialogue_id in talks
    ]
    return Authored(scenarios, dialogues, intents)


def shown_conversations(
    culture: str, count: int, seed: int, but: Sequence[Scenario] = ()
) -> list[tuple[Scenario, list[Turn]]]:
    """Draw conversations to show to players as examples, on scenes to learn from.

    Args:
        culture: Name of its file in `params/cultures`.
        count: How many.
        seed: Of the draw.
        but: The scenes to be acted: none of the examples acts one of them.

    Raises:
        StudyError: The culture has none, or fewer.
    """
    if count == 0:
        return []
    known = load_authored(culture, "learn")
    acted = {one.seed_id for one in but}
    pairs = list(zip(known.scenarios, known.dialogues, strict=True))
    left = [(scene, talk.turns) for scene, talk in pairs if scene.seed_id not in acted]
    if len(left) < count:
        raise StudyError(
            f"examples is {count}, but only {len(left)} authored conversations of '{culture}' act "
            "none of the run's own scenes: lower it, or n_scenarios."
        )
    return random.Random(f"{seed}/examples/{culture}").sample(left, count)
