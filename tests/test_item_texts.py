"""The texts of items and personas that ship: every language asks and says the same things."""

import re
from string import Formatter

import pytest
import yaml

from clca_utils.files import DATA
from clca_utils.items import MAP_ITEMS, MAP_TOPIC, languages, load_items

ENGLISH = load_items("all", "en")
OTHERS = [language for language in languages() if language != "en"]
LATIN_WORD = re.compile(r"[A-Za-z]{4,}")
PLACEHOLDER = re.compile(r"\{[^}]*\}")
CODES = {
    "instruction": {"number", "letter"},
    "gender": {1, 2},
    "settlement": {1, 2, 3, 4, 5},
    "born_here": {1, 2},
    "marital": {1, 2, 3, 4, 5, 6},
    "household": {"one", "more"},
    "education": {0, 1, 2, 3, 4, 5, 6, 7, 8},
    "employment": {1, 2, 3, 4, 5, 6, 7, 8},
    "occupation": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
    "social_class": {1, 2, 3, 4, 5},
}


def wordings(language):
    """The file as it ships: `load_items` would fill a gap with English."""
    return yaml.safe_load((DATA / "items" / f"{language}.yaml").read_text("utf-8"))["items"]


def persona(language):
    return yaml.safe_load((DATA / "personas" / f"{language}.yaml").read_text("utf-8"))


def sentences(language):
    """All texts of a persona file by key, or by key and code."""
    return {
        (key, code): text
        for key, value in persona(language).items()
        for code, text in (value.items() if isinstance(value, dict) else [("", value)])
    }


def placeholders(text):
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_items_and_personas_ship_in_the_same_languages():
    assert languages() == ["en", "de", "es", "ja", "zh"]
    assert {file.stem for file in (DATA / "personas").glob("*.yaml")} == set(languages())


@pytest.mark.parametrize("language", languages())
def test_the_sets_of_items(language):
    values = [item.qid for item in load_items("values", language)]
    assert values == [f"Q{n}" for n in range(1, 46) if n != 42]
    assert [item.qid for item in load_items("map", language)] == list(MAP_ITEMS)
    everything = load_items("all", language)
    assert [item.qid for item in everything] == values + [
        item.qid for item in everything if item.topic == MAP_TOPIC
    ]
    assert len(everything) == 53


@pytest.mark.parametrize("language", OTHERS)
def test_every_item_has_its_own_wording_with_as_many_options_as_in_english(language):
    found = {item["qid"]: item for item in wordings(language)}
    assert list(found) == [item.qid for item in ENGLISH]
    for item in ENGLISH:
        other = found[item.qid]
        assert len(other["options"]) == len(item.options), item.qid
        assert other["question"] != item.question, item.qid


@pytest.mark.parametrize("language", languages())
def test_options_are_distinct_and_questions_are_asked_once(language):
    items = load_items("all", language)
    for item in items:
        assert len({option.strip().casefold() for option in item.options}) == len(item.options)
    questions = [item.question.strip().casefold() for item in items]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("language", languages())
def test_items_share_options_exactly_where_they_do_in_english(language):
    """Q1, Q3 and so on have one scale; a swapped anchor would give an item another's answers."""
    english = {item.qid: tuple(item.options) for item in ENGLISH}
    meant: dict[tuple[str, ...], tuple[str, ...]] = {}
    for item in load_items("all", language):
        assert meant.setdefault(tuple(item.options), english[item.qid]) == english[item.qid]


@pytest.mark.parametrize("language", languages())
def test_ten_point_scales_name_their_ends_and_number_their_steps(language):
    scales = [item.options for item in load_items("all", language) if len(item.options) > 5]
    assert len(scales) == 3
    for options in scales:
        assert [option.split(" - ")[0] for option in options] == [str(n) for n in range(1, 11)]
        assert [" - " in option for option in options] == [True, *[False] * 8, True]


def test_every_english_item_has_a_paraphrase_in_other_words():
    texts = [text for item in ENGLISH for text in (item.question, item.paraphrase)]
    assert all(text.endswith("?") for text in texts)
    assert len({text.casefold() for text in texts}) == 2 * len(ENGLISH)
    for item in ENGLISH:
        first, second = (
            set(re.findall(r"\w+", text.lower())) for text in (item.question, item.paraphrase)
        )
        assert len(first & second) / len(first | second) < 0.5, item.qid


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_no_text_is_left_in_english(language):
    texts = [text for item in wordings(language) for text in (item["question"], *item["options"])]
    texts += [PLACEHOLDER.sub("", text) for text in sentences(language).values()]
    assert [text for text in texts if LATIN_WORD.search(text)] == []


@pytest.mark.parametrize("language", OTHERS)
def test_no_text_equals_the_english_one(language):
    english = {text for item in ENGLISH for text in (item.question, *item.options)}
    english |= set(sentences("en").values())
    texts = {text for item in wordings(language) for text in (item["question"], *item["options"])}
    texts |= set(sentences(language).values())
    assert {text for text in texts & english if not text.isdigit() and text != "No"} == set()


@pytest.mark.parametrize("language", languages())
def test_personas_have_the_codes_of_the_questionnaire(language):
    found = persona(language)
    assert list(found) == list(persona("en"))
    assert {key: set(value) for key, value in found.items() if isinstance(value, dict)} == CODES
    assert {key for key, value in found.items() if isinstance(value, str)} == {
        "nationality",
        "age",
        "region",
    }


@pytest.mark.parametrize("language", languages())
def test_personas_have_the_placeholders_of_the_english_sentences(language):
    english, other = sentences("en"), sentences(language)
    assert {key: placeholders(text) for key, text in other.items()} == {
        key: placeholders(text) for key, text in english.items()
    }
    used = {name for text in other.values() for name in placeholders(text)}
    assert used == {"country", "age", "region", "household"}


@pytest.mark.parametrize("language", languages())
def test_persona_sentences_are_whole_and_distinct(language):
    texts = list(sentences(language).values())
    assert len(set(texts)) == len(texts)
    end = "。" if language in ("ja", "zh") else "."
    assert all(text.endswith(end) and text == text.strip() for text in texts)
