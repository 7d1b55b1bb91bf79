"""Plays: short authored conversations whose names, prices and dishes are slots.

Written for this study (by an AI model) on the scenes to learn from, in plain words and with no
culture in them. A play is text like a seed scenario: filled for a culture, it becomes a
conversation on that scene. So one play teaches a role under as many names as there are adaptations;
what is particular to a culture, the conversations of `authored` hold.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from clca_utils.adaptation import adapt, fill_slots, local_filler
from clca_utils.culture import Culture
from clca_utils.dialogue import Action, Dialogue, Turn
from clca_utils.files import DATA, StudyError, read_records, shown
from clca_utils.scenario import Scenario, SeedScenario

PLAYS = DATA / "plays.jsonl"


class Line(BaseModel):
    """What one of the two does at a turn, slots unfilled."""

    model_config = ConfigDict(extra="forbid")
    person: Literal[1, 2]
    action: Action
    text: str


class Play(BaseModel):
    """A conversation on a seed scenario."""

    model_config = ConfigDict(extra="forbid")
    id: str
    seed_id: str
    lines: list[Line]


def load_plays() -> list[Play]:
    """Return the plays that ship with the study."""
    return read_records(PLAYS, Play)


def stage(
    play: Play, scene: SeedScenario, culture: Culture, seed: int
) -> tuple[Scenario, Dialogue]:
    """Fill a play and its scene alike.

    Besides the slots of scenes, a play has `{address1}` and `{address2}`: how the other one calls
    that person.

    Args:
        play: The play.
        scene: The seed scenario that it acts.
        culture: Where both shall take place.
        seed: Of the adaptation, as in `adapt_all`.

    Raises:
        StudyError: The play has a slot that nothing fills.
    """
    fill = local_filler(culture, f"{seed}/{culture.name}/{scene.id}")
    scenario = adapt(scene, culture, fill, "lexicon")
    called = {f"address{n}": one.address for n, one in enumerate(scenario.people, 1)}

    def said(slot: str, argument: str) -> str:
        try:
            return called.get(slot) or fill(slot, argument)
        except (KeyError, ValueError):
            raise StudyError(
                f"{shown(PLAYS)}, play {play.id} has the slot {{{slot}}}, which nothing fills; see "
                "clca_utils/adaptation.py for the slots there are."
            ) from None

    turns = [
        Turn(
            index=index,
            speaker=scenario.people[line.person - 1].name,
            action=line.action,
            text=fill_slots(line.text, said),
            forced=0.0,
            format_mass=None,
        )
        for index, line in enumerate(play.lines)
    ]
    dialogue = Dialogue(
        id=f"{culture.name.lower()}-{play.id}-{seed}",
        scenario_id=scenario.id,
        culture=culture.name,
        sample=0,
        seed=seed,
        simulators=("authored", "authored"),
        source="authored",
        turns=turns,
        ended="leave" if turns[-1].action == "leave" else "turn limit",
    )
    return scenario, dialogue
