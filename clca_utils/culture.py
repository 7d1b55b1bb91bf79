"""A culture, as one file: its names, words, customs and measured value dimensions.

Adding a culture is adding a file to `params/cultures`. The file says what many people there do;
it cannot say what any one person is, and the prompts made from it keep that wording.
"""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated

from faker.config import AVAILABLE_LOCALES
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from clca_utils.files import ROOT, StudyError, locate, problems, read_yaml, shown
from clca_utils.scenario import load_seeds
from clca_utils.texts import PlainTexts

FOLDER = ROOT / "params" / "cultures"

LOW, HIGH = 40, 60
"""Hofstede's indices run from about 0 to 100; the ten points on either side of the middle say
nothing, since small differences between countries are not meaningful (Hofstede et al. 2010)."""

FAR = 0.5
"""Inglehart-Welzel factor scores have mean 0 and unit variance over surveyed countries and waves;
within half a deviation of the mean nothing is said."""

PHRASES: dict[str, tuple[str, str]] = {
    "power_distance": (
        "expect to be consulted and treat people above and below them much alike",
        "accept clear ranks and show respect to elders and superiors",
    ),
    "individualism": (
        "think of the group they belong to before themselves",
        "expect everyone to look after themselves and decide for themselves",
    ),
    "masculinity": (
        "value care, modesty and quality of life over winning",
        "value achievement, ambition and being good at what one does",
    ),
    "uncertainty_avoidance": (
        "take uncertainty as it comes and keep rules few",
        "like clear rules, plans and no surprises",
    ),
    "long_term_orientation": (
        "honour traditions and social obligations",
        "save, persist and adapt with the long run in mind",
    ),
    "indulgence": (
        "give restraint and social norms much weight",
        "give leisure and the enjoyment of life much room",
    ),
    "secular_rational": (
        "give religion, parents and authority great weight",
        "give religion and traditional authority little weight",
    ),
    "self_expression": (
        "put economic and physical security first",
        "put self-expression, trust and having a say first",
    ),
}
"""What is said of many people where a dimension is low, and where it is high. Our wording of the
dimensions' definitions (Hofstede, Hofstede and Minkov 2010; Inglehart and Welzel 2005)."""


class Hofstede(BaseModel):
    """Hofstede's six dimensions, about 0 to 100; one that was never measured is absent."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    power_distance: float | None = None
    individualism: float | None = None
    masculinity: float | None = None
    uncertainty_avoidance: float | None = None
    long_term_orientation: float | None = None
    indulgence: float | None = None


class InglehartWelzel(BaseModel):
    """Position on the cultural map: factor scores, higher is more secular or self-expressive."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    zone: str
    year: int
    secular_rational: float
    self_expression: float


Filler = Annotated[str, Field(max_length=200)]
"""A word or two with their explanation: short enough for any number of them in a scene."""


class Lexicon(PlainTexts):
    """Fillers for a scenario's slots, each list in English with local words explained."""

    model_config = ConfigDict(extra="forbid")
    city: list[Filler] = Field(min_length=1)
    dish: list[Filler] = Field(min_length=1)
    drink: list[Filler] = Field(min_length=1)
    sweet: list[Filler] = Field(min_length=1)
    gift: list[Filler] = Field(min_length=1)
    festival: list[Filler] = Field(min_length=1)
    pastime: list[Filler] = Field(min_length=1)
    transport: list[Filler] = Field(min_length=1)
    shop: list[Filler] = Field(min_length=1)


@cache
def domains() -> list[str]:
    """Return the domains of life in which the shipped scenarios take place."""
    return sorted({seed.domain for seed in load_seeds()})


def _known_domain(domain: str) -> str:
    """Refuse a domain of life in which no scenario takes place: nobody would see the custom."""
    known = domains()
    if domain not in known:
        near = difflib.get_close_matches(domain, known, n=1)
        raise ValueError(f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}")
    return domain


class Custom(PlainTexts):
    """What many people there do or expect in one domain of life."""

    model_config = ConfigDict(extra="forbid")
    domain: Annotated[str, AfterValidator(_known_domain)]
    text: str = Field(min_length=10)


class Names(PlainTexts):
    """Names in Latin script, for a locale whose Faker names are in another one."""

    model_config = ConfigDict(extra="forbid")
    given: list[str] = Field(min_length=2)
    family: list[str] = Field(min_length=2)


def _known_locale(locale: str) -> str:
    """Refuse a locale that has no names in Faker."""
    if locale not in AVAILABLE_LOCALES:
        raise ValueError("Faker has no such locale; take one whose names fit")
    if "_" not in locale:
        raise ValueError("should name a country too, as in es_MX")
    return locale


class Culture(PlainTexts):
    """One culture file; see `params/cultures/german.yaml` for a commented example."""

    model_config = ConfigDict(extra="forbid")
    name: str
    country: str
    iso3: str = Field(pattern=r"^[A-Z]{3}$")
    language: str
    locale: Annotated[str, AfterValidator(_known_locale)]
    names: Names | None = None
    name_order: str = Field(default="given-first", pattern=r"^(given|family)-first$")
    address: str = Field(default="given", pattern=r"^(given|family)$")
    honorific: str = ""
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    units_per_dollar: float = Field(gt=0)
    hofstede: Hofstede
    inglehart_welzel: InglehartWelzel | None = None
    sources: dict[str, str]
    lexicon: Lexicon
    customs: list[Custom]
    notes: str = ""

    def descriptors(self) -> list[str]:
        """Say the value dimensions in words, by one rule.

        A Hofstede score up to 40 gives the low phrase, from 60 the high one; an Inglehart-Welzel
        score up to -0.5 or from 0.5 likewise; between them, and where nothing was measured,
        nothing is said.

        Returns:
            Sentences of the form "Many people in Germany ...".
        """
        scores: list[tuple[str, float | None, float, float]] = [
            (name, score, LOW, HIGH) for name, score in self.hofstede
        ]
        if self.inglehart_welzel is not None:
            axes = self.inglehart_welzel.model_dump(include={"secular_rational", "self_expression"})
            scores += [(name, score, -FAR, FAR) for name, score in axes.items()]
        said = [
            PHRASES[name][score >= high]
            for name, score, low, high in scores
            if score is not None and not low < score < high
        ]
        return [f"Many people in {self.country} {phrase}." for phrase in said]

    def customs_of(self, domain: str) -> list[str]:
        """Return what many people there do in one domain."""
        return [custom.text for custom in self.customs if custom.domain == domain]


def culture_file(name: str) -> Path:
    """Return the file of a culture, given by its name in `params/cultures` or by a path.

    Raises:
        StudyError: There is no such file; the nearest known name is told.
    """
    is_path = name.endswith((".yaml", ".yml"))
    path = locate(name) if is_path else FOLDER / f"{name}.yaml"
    if path.is_file():
        return path
    if is_path:
        raise StudyError(f"The culture file {name} does not exist: check the path.")
    known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
    raise StudyError(f"There is no culture '{name}' in params/cultures; {hint}")


def load_culture(name: str) -> Culture:
    """Read a culture by its name in `params/cultures`, or by the path of its YAML file.

    Raises:
        StudyError: The file is missing or a field does not fit its schema.
    """
    path = culture_file(name)
    try:
        return Culture.model_validate(read_yaml(path))
    except ValidationError as error:
        told = [f"{shown(path)}, {problem}; mend this field." for problem in problems(error)]
        raise StudyError("\n".join(told)) from None
