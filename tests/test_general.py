"""Texts and questions without culture: whole, balanced, and answered by weighing options."""

from collections import Counter

import numpy as np
import pytest

from clca_utils.chat_model import ScriptedModel
from clca_utils.general import answered_right, load_passages, load_questions

PASSAGES, QUESTIONS = load_passages(24), load_questions(60)


def test_there_are_so_many_texts_of_about_a_hundred_words_each_of_something_else():
    assert len({one.topic for one in PASSAGES}) == len({one.id for one in PASSAGES}) == 24
    for one in PASSAGES:
        assert 80 <= len(one.text.split()) <= 115
    assert load_passages(3) == PASSAGES[:3]


def test_the_right_answer_stands_as_often_at_every_place_and_is_not_told_by_its_length():
    assert Counter(one.answer for one in QUESTIONS) == dict.fromkeys(range(4), 15)
    assert len({one.question for one in QUESTIONS}) == len({one.id for one in QUESTIONS}) == 60
    places = [one.answer for one in QUESTIONS]
    assert len({tuple(places[i : i + 4]) for i in range(0, 60, 4)}) > 4  # no fixed round
    lengths = [[len(option) for option in one.options] for one in QUESTIONS]
    longest = [row[one.answer] == max(row) and row.count(max(row)) == 1
               for row, one in zip(lengths, QUESTIONS, strict=True)]  # fmt: skip
    assert sum(longest) <= 20
    for one in QUESTIONS:
        assert len(set(one.options)) == 4


def test_nothing_in_them_names_a_country_or_a_people():
    words = [
        "German",
        "Japan",
        "China",
        "Chin",
        "Mexic",
        "Brit",
        "Engl",
        "French",
        "Ital",
        "Span",
        "Russ",
        "India",
        "Turk",
        "Korea",
    ]
    words += ["America", "Europe", "Africa", "Asia", "church", "mosque", "temple", "king", "dollar"]
    for text in [*(one.text for one in PASSAGES), *(q.question for q in QUESTIONS)]:
        assert [word for word in words if f" {word.lower()}" in f" {text.lower()}"] == []


def test_an_option_is_weighed_against_what_it_is_worth_unasked():
    first, second = QUESTIONS[:2]
    right = np.log([0.1, 0.1, 0.1, 0.1])
    right[first.answer] = np.log(0.3)
    common = np.log([0.1, 0.1, 0.1, 0.1])
    common[(second.answer + 1) % 4] = np.log(0.7)  # likely, whatever is asked
    told = common.copy()
    told[second.answer] = np.log(0.2)
    model = ScriptedModel(logprobs=[right, told, np.log([0.1] * 4), common])
    assert answered_right(model, [first, second]) == [True, True]
    assert [chat[0]["content"] for chat in model.seen[2:]] == ["N/A", "N/A"]


@pytest.mark.parametrize("count", [1, 30])
def test_the_embedded_model_answers_more_than_guessing_would(smollm, count):
    right = answered_right(smollm, load_questions(60)[:: 60 // count])
    assert len(right) == count
    assert count == 1 or np.mean(right) > 0.35
