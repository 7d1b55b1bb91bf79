"""What is learnt from: conversations, and what the controls learn in their place."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils import sources
from clca_utils.culture import load_culture
from clca_utils.files import StudyError
from clca_utils.items import load_items
from clca_utils.sources import (
    as_often,
    examples_from,
    neutral_examples,
    plain_paragraphs,
    survey_examples,
    words_learnt,
)
from clca_utils.survey import country_shares, load_marginals

BOTH = {"imitation": 1.0, "intent": 1.0}


@pytest.fixture
def data(tmp_path, write_conversation):
    """Return a folder as stages 01 to 03 leave it, with one conversation."""
    write_conversation(tmp_path)
    return tmp_path


def test_conversations_are_simulated_or_authored_or_both(data, tmp_path):
    simulated = examples_from("simulated", data, "german", BOTH, 1)
    authored = examples_from("authored", tmp_path / "absent", "german", BOTH, 1)
    assert examples_from("both", data, "german", BOTH, 1) == simulated + authored
    assert {one.task for one in authored} == {"imitation", "intent"}
    assert len(authored) > 20 * len(simulated) / 3


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"dialogues\.jsonl"):
        examples_from("simulated", tmp_path, "german", BOTH, 1)
    with pytest.raises(StudyError, match="no authored conversations for 'turkish'"):
        examples_from("authored", tmp_path, "turkish", BOTH, 1)


def test_the_control_learns_as_many_words_of_text_without_culture(data):
    words = words_learnt(examples_from("simulated", data, "german", BOTH, 1))
    control = examples_from("neutral", data, "german", BOTH, 1)
    longest = max(len(text.split()) for text in plain_paragraphs())
    assert words <= words_learnt(control) < words + longest
    assert {one.task for one in control} == {"neutral"}
    assert control == neutral_examples(words, 1)
    assert control != neutral_examples(words, 2)


def test_plain_paragraphs_are_prose_and_name_no_country():
    paragraphs = plain_paragraphs()
    assert sum(len(text.split()) for text in paragraphs) > 4000
    assert len(set(paragraphs)) == len(paragraphs)
    named = r"\b(German|Japan|China|Chinese|Mexic|Brit|Engl(?!ish)|India|Brazil|Turk|Korea|Americ)"
    assert [text for text in paragraphs if re.search(named, text)] == []
    for text in paragraphs:
        assert not set(text) & set("{}<>|\\")


def test_long_controls_take_the_paragraphs_again():
    paragraphs = plain_paragraphs()
    many = neutral_examples(30_000, 3)
    assert len(many) > len(paragraphs)
    assert many[0].messages == many[len(paragraphs)].messages


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=10), st.integers(1, 40))
def test_answers_come_about_as_often_as_people_gave_them(weights, count):
    shares = np.array(weights) / np.sum(weights)
    taken = Counter(as_often(shares, count))
    assert sum(taken.values()) == count
    for option, share in enumerate(shares):
        assert abs(taken[option] - count * share) < 1 + 1e-6


def test_the_upper_reference_learns_answers_to_other_items_than_it_is_asked():
    german = load_culture("german")
    learnt, asked = load_items("learn"), load_items("held-out")
    assert {one.qid for one in learnt}.isdisjoint(one.qid for one in asked)
    assert len(learnt) + len(asked) == 44
    examples = survey_examples(german, 1)
    assert {one.dialogue_id for one in examples} == {one.qid for one in learnt}
    told = "\n".join(one["content"] for some in examples for one in some.messages)
    for item in asked:
        assert item.question not in told
        assert not item.paraphrase or item.paraphrase not in told


def test_the_upper_reference_answers_as_the_people_in_every_order():
    examples = survey_examples(load_culture("german"), 1)
    shares = country_shares(load_marginals(), "DEU", load_items("learn"))
    for item in load_items("learn"):
        mine = [one.messages for one in examples if one.dialogue_id == item.qid]
        assert len(mine) == len(item.options) * sources.ANSWERS
        lines = [
            dict(zip(item.labels, m[1]["content"].splitlines()[1:], strict=True)) for m in mine
        ]
        chosen = [
            row[m[2]["content"]].split(". ", 1)[1] for row, m in zip(lines, mine, strict=True)
        ]
        counts = [chosen.count(option) for option in item.options]
        assert counts == pytest.approx(shares[item.qid] * len(mine), abs=1)
        assert len({m[1]["content"] for m in mine}) == len(item.options)


@pytest.mark.parametrize("culture", ["british", "chinese"])
def test_doubtful_shares_are_not_learnt(culture):
    known, iso3 = load_marginals(), load_culture(culture).iso3
    assert set(known[known["country"] == iso3]["tier"]).isdisjoint("A")
    with pytest.raises(StudyError, match="no shares of tier A are known of the people of"):
        survey_examples(load_culture(culture), 1)
