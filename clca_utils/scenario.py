"""Social scenarios: a setting and two people, each with a private goal and a secret."""

from pydantic import BaseModel, ConfigDict, Field

from clca_utils.files import DATA, read_records


class Role(BaseModel):
    """What a seed scenario says of one of its people, slots unfilled."""

    model_config = ConfigDict(extra="forbid")
    background: str
    occupation: str
    goal: str
    secret: str


class SeedScenario(BaseModel):
    """A neutral social situation; `{slots}` stand where cultures differ."""

    model_config = ConfigDict(extra="forbid")
    id: str
    domain: str
    relation: str
    setting: str
    person1: Role
    person2: Role
    items: list[str] = Field(description="WVS items that the scene touches")


class Persona(Role):
    """One of the two people of an adapted scenario."""

    name: str
    address: str = Field(description="how the other one calls them")


class Change(BaseModel):
    """One slot and what the culture put there."""

    slot: str
    adapted: str


class Scenario(BaseModel):
    """A scenario as it is played in one culture."""

    id: str
    seed_id: str
    culture: str
    country: str
    domain: str
    relation: str
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


def load_seeds() -> list[SeedScenario]:
    """Return the neutral seed scenarios that ship with the study."""
    return read_records(DATA / "seed_scenarios.jsonl", SeedScenario)
