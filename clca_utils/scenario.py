"""Social scenarios: a setting and two people, each with a private goal and a secret."""

import random
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

from pydantic import ConfigDict, Field

from clca_utils.files import DATA, StudyError, read_records
from clca_utils.texts import PlainTexts

Power = Literal["equal", "person1", "person2"]
Split = Literal["learn", "held-out"]


class Role(PlainTexts):
    """What a seed scenario says of one of its people, slots unfilled."""

    model_config = ConfigDict(extra="forbid")
    background: str
    occupation: str
    goal: str
    secret: str


class SeedScenario(PlainTexts):
    """A neutral social situation; `{slots}` stand where cultures differ."""

    model_config = ConfigDict(extra="forbid")
    id: str
    domain: str
    relation: str
    power: Power = Field(description="who of the two is above by rank, age or office")
    split: Split = Field(description="held-out scenes are for evaluation: nothing learns from them")
    setting: str
    person1: Role
    person2: Role
    items: list[str] = Field(description="WVS items that the scene touches")


class Persona(Role):
    """One of the two people of an adapted scenario."""

    name: str
    address: str = Field(description="how the other one calls them")


class Change(PlainTexts):
    """One slot and what the culture put there."""

    slot: str
    adapted: str


class Scenario(PlainTexts):
    """A scenario as it is played in one culture."""

    id: str
    seed_id: str
    culture: str
    country: str
    domain: str
    relation: str
    power: Power
    split: Split
    setting: str
    person1: Persona
    person2: Persona
    descriptors: list[str]
    customs: list[str]
    items: list[str]
    rewriter: str
    changes: list[Change]

    @property
    def people(self) -> tuple[Persona, Persona]:
        """The two people, in the order in which they speak."""
        return self.person1, self.person2


def load_seeds(split: Split | Literal["all"] = "all") -> list[SeedScenario]:
    """Return the neutral seed scenarios that ship with the study, or those of one split."""
    seeds = read_records(DATA / "seed_scenarios.jsonl", SeedScenario)
    return [seed for seed in seeds if split in ("all", seed.split)]


def draw_seeds(seeds: Sequence[SeedScenario], count: int, seed: int) -> list[SeedScenario]:
    """Draw seed scenarios, as many from each domain as from any other, give or take one.

    Args:
        seeds: The scenarios to draw from.
        count: How many.
        seed: Of the draw; the same seed draws a larger sample by adding to a smaller one.

    Raises:
        StudyError: There are fewer.
    """
    if count > len(seeds):
        raise StudyError(f"n_scenarios is {count}, but there are {len(seeds)} seed scenarios.")
    rng = random.Random(f"{seed}/scenarios")
    by_domain: dict[str, list[SeedScenario]] = {}
    for one in rng.sample(seeds, len(seeds)):
        by_domain.setdefault(one.domain, []).append(one)
    rounds = zip_longest(*by_domain.values())
    return [one for some in rounds for one in some if one is not None][:count]
