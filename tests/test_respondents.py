"""Whom a model answers as: all that someone told is said, nothing else, and the made-up are marked.

All microdata here is made up; the survey's terms forbid shipping real answers.
"""

import re
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clca_utils.choices import PERSONAL, Prompt
from clca_utils.culture import Culture, load_culture
from clca_utils.files import DATA, ROOT, StudyError
from clca_utils.items import languages
from clca_utils.microdata import PERSONA, RANGES
from clca_utils.respondents import (
    CODES,
    JOINT,
    asked_as,
    country_name,
    describe,
    language_of,
    persona_words,
    respondents,
    synthetic_answers,
)

GERMAN = load_culture("german")
SHIPPED = [load_culture(file.stem) for file in sorted((ROOT / "params/cultures").glob("*.yaml"))]
CULTURES = [one for one in SHIPPED if language_of(one, "native") in languages()]
"""Those in whose language respondents can be described."""
WORDS = {language: persona_words(language) for language in languages()}

TOLD = {
    "settlement": 5, "region": "Bavaria", "gender": 2, "age": 34, "born_here": 1, "marital": 6,
    "household": 3, "education": 7, "occupation": 0, "employment": 6, "social_class": 2,
}  # fmt: skip


def surveyed(count=40, country="DEU", **changes):
    """Microdata of the form that `load_microdata` returns."""
    columns = {"respondent": [1000 + i for i in range(count)], "country": country, "weight": 1.0}
    frame = pd.DataFrame(columns | TOLD | changes)
    return frame.astype(dict.fromkeys(RANGES, "Int16"))


def drawn(people, prompt="persona", **asked):
    return respondents(GERMAN, prompt, people=people, **asked)


def test_nobody_is_named_without_a_prompt():
    (person,) = respondents(GERMAN, "none", count=5, people=surveyed())
    assert (person.description, person.source) == ("", "prompt")
    assert asked_as([person], GERMAN) == "nobody in particular"


@pytest.mark.parametrize("culture", CULTURES, ids=lambda culture: culture.name)
def test_of_the_country_alone_one_person_is_known_and_nothing_is_made_up(culture):
    (person,) = respondents(culture, "nationality", count=5, people=surveyed())
    assert person.description == f"You are a person living in {culture.country}."
    assert (person.source, person.language) == ("prompt", "en")
    assert asked_as([person], culture) == f"a person living in {culture.country}"


@pytest.mark.parametrize("culture", CULTURES, ids=lambda culture: culture.name)
def test_descriptors_follow_the_country(culture):
    (person,) = respondents(culture, "descriptors")
    (nobody,) = respondents(culture, "nationality")
    assert culture.descriptors()
    assert person.description == " ".join([nobody.description, *culture.descriptors()])


@pytest.mark.parametrize("prompt", get_args(Prompt))
def test_only_personal_prompts_tell_one_respondent_from_another(prompt):
    people = drawn(surveyed(age=range(18, 58)), prompt, count=10, seed=3)
    assert len({person.description for person in people}) == len(people)
    assert (len(people) == 10) == (prompt in PERSONAL)
    assert {person.source == "microdata" for person in people} == {prompt in PERSONAL}


def test_all_that_a_respondent_told_is_said_in_order():
    (person,) = drawn(surveyed(1))
    assert person.id == 1000
    assert person.description == (
        "You are a person living in Germany. You live in a village. You live in the region "
        "Bavaria. You are a woman. You are 34 years old. You were born in Germany. You are single "
        "and have never been married. There are 3 people in your household. The highest education "
        "you completed is a master's degree or an equivalent. You have never had a job. You are a "
        "student. You see yourself as part of the upper middle class."
    )


def text_of(sentence, field, value, country):
    return sentence.replace("{country}", country).replace("{" + field + "}", str(value))


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize("field", PERSONA)
def test_each_answer_is_said_in_the_words_of_its_code(language, field):
    """Read from the file itself: no code says what another one means."""
    words = yaml.safe_load((DATA / "personas" / f"{language}.yaml").read_text("utf-8"))
    entry, alone = words[field], text_of(words["nationality"], "", "", "Atlantis")
    sentences = entry if isinstance(entry, dict) else {TOLD[field]: entry}
    if field == "household":
        sentences = {1: entry["one"], 2: entry["more"], 9: entry["more"]}
    for value, sentence in sentences.items():
        said = describe({field: value}, WORDS[language], "Atlantis", JOINT.get(language, " "))
        assert said.removeprefix(alone).strip() == text_of(sentence, field, value, "Atlantis")


@settings(deadline=None)
@given(st.sets(st.sampled_from(list(PERSONA))), st.sampled_from(languages()))
def test_what_is_not_known_is_left_out(missing, language):
    gone = dict.fromkeys(missing, pd.NA)
    row = surveyed(1).astype({"region": "str"}).iloc[0].to_dict()
    said = describe(row | gone, WORDS[language], "Atlantis", JOINT.get(language, " "))
    whole = describe(row, WORDS[language], "Atlantis", JOINT.get(language, " "))
    stops = re.compile("[。.](?= |$)" if language not in JOINT else "。")
    assert len(stops.findall(said)) == len(stops.findall(whole)) - len(missing)
    assert not re.search(r"nan|NA\b|None|\{|\}| {2}", said)
    assert said == describe({k: v for k, v in row.items() if k not in missing}, WORDS[language],
                            "Atlantis", JOINT.get(language, " "))  # fmt: skip


def test_a_whole_column_that_is_not_known_is_left_out():
    people = surveyed(3, region=[None, "Hesse", ""], social_class=[pd.NA, 1, pd.NA])
    people["age"] = pd.array([pd.NA] * 3, "Int16")
    said = {person.id: person.description for person in drawn(people, count=3)}
    assert ["region" in said[1000 + i] for i in range(3)] == [False, True, False]
    assert ["class" in said[1000 + i] for i in range(3)] == [False, True, False]
    assert not any("years old" in text for text in said.values())


@pytest.mark.parametrize("region", ["{age}", "{0}", "{", "}", "{country.__class__}", "a {b} %s"])
def test_a_region_with_braces_is_harmless(region):
    (person,) = drawn(surveyed(1, region=region))
    assert f"You live in the region {region}." in person.description


@pytest.mark.parametrize("culture", CULTURES, ids=lambda culture: culture.name)
def test_native_respondents_are_told_in_the_cultures_language(culture):
    people = surveyed(2, culture.iso3)
    native = respondents(culture, "native", count=2, people=people)
    language = culture.locale[:2]
    assert {person.language for person in native} == {language}
    assert country_name(culture, language) in native[0].description
    english = respondents(culture, "persona", count=2, people=people)
    assert (native == english) == (language == "en")
    assert [person.id for person in native] == [person.id for person in english]
    assert (" " in native[0].description) == (language not in JOINT)
    told = asked_as(native, culture)
    assert told.startswith(f"2 surveyed respondents of {culture.country}")
    assert (f"(in {culture.language})" in told) == (language != "en")


def test_every_shipped_language_is_some_cultures_own():
    assert {language_of(culture, "native") for culture in CULTURES} == set(languages())
    assert {language_of(culture, prompt) for culture in CULTURES for prompt in get_args(Prompt)
            if prompt != "native"} == {"en"}  # fmt: skip
    names = {c.name: country_name(c, language_of(c, "native")) for c in CULTURES}
    assert names == {
        "British": "the United Kingdom", "Chinese": "中国", "German": "Deutschland",
        "Japanese": "日本", "Mexican": "México",
    } | {c.name: c.country for c in CULTURES if c.locale.startswith("en")}  # fmt: skip


def test_a_language_without_words_for_respondents_is_refused():
    french = Culture.model_validate(GERMAN.model_dump(by_alias=True) | {"locale": "fr_FR"})
    with pytest.raises(StudyError, match=r"language 'fr' .*choose another prompt than 'native'"):
        respondents(french, "native")
    assert respondents(french, "persona")[0].language == "en"


def test_the_same_seed_draws_the_same_people_each_once():
    people = surveyed(60, weight=np.linspace(0.1, 4, 60))
    first = drawn(people, count=20, seed=5)
    assert first == drawn(people, count=20, seed=5)
    assert first != drawn(people, count=20, seed=6)
    ids = [person.id for person in first]
    assert len(set(ids)) == 20
    assert set(ids) <= set(people["respondent"])


def test_only_the_cultures_own_people_are_drawn():
    people = pd.concat([surveyed(5), surveyed(50, "JPN", respondent=range(50))])
    assert sorted(person.id for person in drawn(people, count=5)) == list(range(1000, 1005))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_nobody_with_a_weight_of_zero_is_drawn(seed):
    people = surveyed(12, weight=[0.0, 1.0, 5.0, 0.0] * 3)
    ids = {person.id - 1000 for person in drawn(people, count=6, seed=seed)}
    assert ids == {1, 2, 5, 6, 9, 10}
    ids = {person.id - 1000 for person in drawn(people, count=3, seed=seed)}
    assert not ids & {0, 3, 4, 7, 8, 11}


def test_everyone_can_be_drawn_however_unequal_the_weights():
    people = surveyed(30, weight=np.geomspace(0.01, 20, 30))
    assert {person.id for person in drawn(people, count=30)} == set(people["respondent"])


def test_single_draws_follow_the_weights_or_nothing():
    people = surveyed(4, weight=[0.2, 0.4, 1.0, 2.4])
    for weighted, chances in ((True, [0.05, 0.1, 0.25, 0.6]), (False, [0.25] * 4)):
        ids = [drawn(people, seed=seed, weighted=weighted)[0].id - 1000 for seed in range(600)]
        seen = np.bincount(ids, minlength=4)
        assert stats.chisquare(seen, np.array(chances) * 600).pvalue > 1e-3


@pytest.mark.parametrize(
    ("weight", "weighted", "told"),
    [
        (1.0, True, "40 respondents with a weight above 0 of DEU, and 41"),
        (1.0, False, "40 respondents of DEU, and 41 are wanted"),
        ([0.0] * 30 + [1.0] * 10, True, "10 respondents with a weight above 0 of DEU"),
        (0.0, True, "has 0 respondents with a weight"),
    ],
)
def test_too_few_respondents_are_told(weight, weighted, told):
    with pytest.raises(StudyError, match=r"lower wvs_analysis\.n_respondents") as error:
        drawn(surveyed(40, weight=weight), count=41, weighted=weighted)
    assert told in str(error.value)


def test_without_microdata_of_the_country_people_are_made_up_and_marked():
    for people in (None, surveyed(5, "JPN")):
        made_up = drawn(people, count=50, seed=2)
        assert {person.source for person in made_up} == {"synthetic"}
        assert [person.id for person in made_up] == list(range(50))
        assert len({person.description for person in made_up}) > 45
        assert all("living in Germany" in person.description for person in made_up)
        assert asked_as(made_up, GERMAN) == "50 synthetic respondents of Germany"
    assert asked_as(made_up[:1], GERMAN) == "1 synthetic respondent of Germany"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_made_up_people_are_possible_and_the_same_again(seed, count):
    table = synthetic_answers(count, seed, "DEU")
    assert table.equals(synthetic_answers(count, seed, "DEU"))
    assert table.head(3).equals(synthetic_answers(min(3, count), seed, "DEU"))
    assert table["age"].between(18, 80).all()
    assert (table.loc[table["employment"] == 6, "age"] < 30).all()
    assert (table.loc[table["employment"] == 4, "age"] > 60).all()
    for field in table.columns.drop("respondent"):
        assert table[field].between(*RANGES[field]).all()
        assert field not in CODES or table[field].isin(list(CODES[field])).all()


def test_made_up_people_vary_in_all_that_is_said_of_them():
    table = synthetic_answers(1000, 1, "DEU")
    assert (table["age"].min(), table["age"].max()) == (18, 80)
    assert set(table["employment"]) == {1, 2, 3, 4, 6, 7}
    for field, codes in CODES.items():
        assert set(table[field]) == set(codes)
    assert not table.equals(synthetic_answers(1000, 2, "DEU"))
    assert not table.equals(synthetic_answers(1000, 1, "JPN"))


@pytest.mark.parametrize("culture", CULTURES, ids=lambda culture: culture.name)
def test_made_up_people_are_whole_in_every_language(culture):
    for person in respondents(culture, "native", count=30, seed=1):
        end = "。" if person.language in JOINT else "."
        assert person.description.count(end) >= 2 + len(CODES)
        assert not re.search(r"[{}]|nan", person.description)
