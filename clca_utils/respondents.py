"""Whom a model is asked to answer as: nobody, a person of a country, or one respondent.

Respondents come from microdata where the user has it. Without, they are made up from a frame of
categories, and marked synthetic wherever they appear.
"""

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from babel import Locale
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clca_utils.choices import Prompt
from clca_utils.culture import Culture
from clca_utils.files import DATA, StudyError, problems, read_yaml, shown
from clca_utils.items import languages
from clca_utils.microdata import PERSONA

JOINT = {"ja": "", "zh": ""}
"""What stands between two sentences, where it isn't a space."""


class Respondent(BaseModel):
    """Whom the model is asked to answer as; microdata brings its own `id`."""

    model_config = ConfigDict(frozen=True)

    id: int
    description: str
    language: str = "en"
    source: Literal["prompt", "synthetic", "microdata"] = "prompt"


class Instruction(BaseModel):
    """How to answer, where options are numbered and where they are lettered."""

    model_config = ConfigDict(extra="forbid")
    number: str
    letter: str


class Household(BaseModel):
    """A household of one, and of several."""

    model_config = ConfigDict(extra="forbid")
    one: str
    more: str


class PersonaWords(BaseModel):
    """How a respondent is described in one language: a sentence for each answer."""

    model_config = ConfigDict(extra="forbid")
    instruction: Instruction
    nationality: str = Field(pattern=r"\{country\}")
    gender: dict[int, str]
    age: str = Field(pattern=r"\{age\}")
    settlement: dict[int, str]
    region: str = Field(pattern=r"\{region\}")
    born_here: dict[int, str]
    marital: dict[int, str]
    household: Household
    education: dict[int, str]
    employment: dict[int, str]
    occupation: dict[int, str]
    social_class: dict[int, str]

    def sentence(self, field: str, value: Any, country: str) -> str:  # noqa: ANN401 (code or text)
        """Say one thing about a respondent; "" where there is no word for it."""
        words = getattr(self, field)
        if isinstance(words, Household):
            words = words.one if value == 1 else words.more
        if isinstance(words, dict):
            words = words.get(int(value), "")
        # one pass over a text of ours: a region's own braces stay as they are
        return str(words).format_map({field: value, "country": country})


@lru_cache  # it is needed for each question
def persona_words(language: str) -> PersonaWords:
    """Read how respondents are described in a language.

    Raises:
        StudyError: The package has no such words, or the file doesn't fit.
    """
    path = DATA / "personas" / f"{language}.yaml"
    if not path.is_file():
        raise StudyError(
            f"Respondents can't be described in the language '{language}' (they can in "
            f"{', '.join(languages())}): choose another prompt than 'native'."
        )
    try:
        return PersonaWords.model_validate(read_yaml(path))
    except ValidationError as error:
        raise StudyError(f"{shown(path)}, {problems(error)[0]}: mend the field.") from None


def language_of(culture: Culture, prompt: Prompt) -> str:
    """Return the two-letter code of the language that a prompt is written in."""
    return str(Locale.parse(culture.locale).language) if prompt == "native" else "en"


def country_name(culture: Culture, language: str) -> str:
    """Return what the culture's country is called in a language (Unicode CLDR, by Babel)."""
    if language == "en":
        return culture.country
    territory = Locale.parse(culture.locale).territory
    return str(Locale.parse(language).territories[territory])


def respondents(
    culture: Culture,
    prompt: Prompt,
    *,
    count: int = 1,
    seed: int = 0,
    people: pd.DataFrame | None = None,
    weighted: bool = True,
) -> list[Respondent]:
    """Return those as whom a model is asked.

    Args:
        culture: Where they live.
        prompt: "none" says nothing of anyone; "nationality" where one lives; "descriptors" also
            what many people there value (in English); "persona" describes single respondents, and
            "native" does so in the language of the culture.
        count: How many single respondents.
        seed: Of their draw.
        people: Microdata, of any countries, see `microdata.load_microdata`; without those of the
            culture's country, the respondents are made up.
        weighted: Draw them one after another by the survey's weights, so that they stand for the
            population: the better, the fewer they are beside those surveyed.

    Raises:
        StudyError: There are fewer respondents than wanted.
    """
    if prompt == "none":
        return [Respondent(id=0, description="")]
    language = language_of(culture, prompt)
    words, country = persona_words(language), country_name(culture, language)
    nationality = words.nationality.format(country=country)
    if prompt == "nationality":
        return [Respondent(id=0, description=nationality)]
    if prompt == "descriptors":
        return [Respondent(id=0, description=" ".join([nationality, *culture.descriptors()]))]
    mine = None if people is None else people[people["country"] == culture.iso3]
    if mine is None or mine.empty:
        drawn = synthetic_answers(count, seed, culture.iso3)
        source: Literal["synthetic", "microdata"] = "synthetic"
    else:
        chances = mine["weight"].to_numpy() if weighted else np.ones(len(mine))
        if (able := np.count_nonzero(chances)) < count:
            kind = "respondents with a weight above 0" if weighted else "respondents"
            raise StudyError(
                f"The survey file has {able} {kind} of {culture.iso3}, and "
                f"{count} are wanted: lower wvs_analysis.n_respondents."
            )
        # pandas' own draw refuses weights that a sample without repetition can't follow exactly
        draw = np.random.default_rng(seed).choice
        drawn = mine.iloc[draw(len(mine), count, replace=False, p=chances / chances.sum())]
        source = "microdata"
    return [
        Respondent(
            id=int(row["respondent"]),
            description=describe(row, words, country, JOINT.get(language, " ")),
            language=language,
            source=source,
        )
        for row in drawn.to_dict("records")
    ]


def asked_as(people: Sequence[Respondent], culture: Culture) -> str:
    """Say in a few words whom a model answered as, to stand wherever its answers are shown."""
    count, first = len(people), people[0]
    if first.source == "prompt":
        told = any(text in first.description for text in culture.descriptors())
        more = ", told what many people there value" if told else ""
        whom = f"a person living in {culture.country}{more}"
        return whom if first.description else "nobody in particular"
    kind = "synthetic" if first.source == "synthetic" else "surveyed"
    tongue = "" if first.language == "en" else f" (in {culture.language})"
    return f"{count} {kind} respondent{'s' if count > 1 else ''} of {culture.country}{tongue}"


def describe(row: dict[Any, Any], words: PersonaWords, country: str, joint: str = " ") -> str:
    """Return a respondent's description: where they live, then all that they told."""
    told = [words.nationality.format(country=country)]
    for field in FIELDS:
        value = row.get(field)
        if not pd.isna(value) and value != "":
            told.append(words.sentence(field, value, country))
    return joint.join(filter(None, told))


FIELDS = tuple(PERSONA)
"""What is said of a respondent, in this order."""

CODES: dict[str, Iterable[int]] = {
    "settlement": range(1, 6),
    "gender": (1, 2),
    "marital": (1, 3, 5, 6),
    "education": (1, 2, 3, 6, 7),
    "social_class": (2, 3, 4, 5),
}
"""Categories of the WVS-7 questionnaire that made-up respondents may have."""


def synthetic_answers(count: int, seed: int, iso3: str) -> pd.DataFrame:
    """Return what made-up respondents say of themselves.

    Age is uniform from 18 to 80, and every category of `CODES` is equally likely, so a sample is
    not representative of anyone; it varies the persona, no more. Employment fits the age: students
    are under 30, pensioners over 60. What could contradict the rest (household, occupation) or
    differs by country (region, birthplace) is left out.

    Returns:
        One row per respondent: respondent (from 0) and coded fields, as in microdata.
    """
    rng = random.Random(f"{seed}/{iso3}/respondents")
    rows = []
    for number in range(count):
        age = rng.randint(18, 80)
        employment = [1, 2, 3, 7] + [6] * (age < 30) + [4] * (age > 60)
        row = {"respondent": number, "age": age, "employment": rng.choice(employment)}
        rows.append(row | {field: rng.choice(list(codes)) for field, codes in CODES.items()})
    return pd.DataFrame(rows)
