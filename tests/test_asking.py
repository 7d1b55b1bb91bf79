"""The survey put to a model: every order is asked, answers find back to their option's code."""

import re

import numpy as np
import pytest

from clca_utils.asking import ask, item_prompt, rotated, synthetic_respondents
from clca_utils.chat_model import ScriptedModel, ScriptRanOutError
from clca_utils.culture import load_culture
from clca_utils.measures import option_shares
from clca_utils.survey import load_items

GERMAN = load_culture("german")
BY_QID = {item.qid: item for item in load_items()}
ITEMS = [BY_QID[qid] for qid in ("Q1", "Q7", "Q33", "Q43")]
PEOPLE = synthetic_respondents(GERMAN, 3, seed=1)


class Prefers:
    """Puts nine tenths of its belief on one text, wherever that text stands."""

    name = "prefers"

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.asked = 0

    def option_logprobs(self, conversations, options):
        pairs = zip(conversations, options, strict=True)
        return [self._weigh(talk, labels) for talk, labels in pairs]

    def _weigh(self, talk, labels):
        self.asked += 1
        lines = dict(re.findall(r"^(\d+)\. (.+)$", talk[-1]["content"], re.MULTILINE))
        assert list(lines) == list(labels)
        liked = [lines[label] in self.texts for label in labels]
        return np.log(np.where(liked, 0.9, 0.1 / len(labels)))


def put(tmp_path, model, people=PEOPLE[:1], items=ITEMS, **changes):
    asked = {"variant": "before", "orders": "all", "key": "weights"} | changes
    return ask(model, people, items, ledger=tmp_path / "ledger", **asked)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.qid)
def test_every_option_stands_once_at_each_position(item):
    count = len(item.options)
    shown = [rotated(item.options, order) for order in range(count)]
    assert shown[0] == item.options
    for position in zip(*shown, strict=True):
        assert sorted(position) == sorted(item.options)
    for order in range(count):
        _, question = item_prompt(PEOPLE[0], item, order)
        lines = [f"{i}. {text}" for i, text in enumerate(shown[order], 1)]
        assert question["content"].splitlines() == [item.question, *lines]


def test_the_table_holds_each_option_once_at_each_position(tmp_path):
    table = put(tmp_path, Prefers())
    for item in ITEMS:
        mine = table[table["qid"] == item.qid]
        codes = range(1, len(item.options) + 1)
        pairs = {(option, position) for option in codes for position in codes}
        assert set(zip(mine["option"], mine["position"], strict=True)) == pairs
        assert len(mine) == len(pairs)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_the_option_a_model_prefers_gets_its_code_in_every_order(tmp_path, code):
    item = BY_QID["Q1"]
    assert item.options[0] == "Very important"
    table = put(tmp_path, Prefers(item.options[code - 1]), items=[item])
    liked = table.loc[table.groupby("order")["logprob"].idxmax()]
    assert liked["option"].tolist() == [code] * 4
    assert sorted(liked["position"]) == [1, 2, 3, 4]
    shares = option_shares(table).set_index("option")["share"]
    assert shares[code] == pytest.approx(0.9 / (0.9 + 3 * 0.1 / 4))


def test_the_first_order_alone_is_the_questionnaires(tmp_path):
    model = Prefers("Very important")
    table = put(tmp_path, model, orders="first")
    assert model.asked == len(ITEMS)
    assert set(table["order"]) == {0}
    assert (table["option"] == table["position"]).all()


def test_of_the_country_alone_one_person_is_known_and_nothing_is_made_up():
    (person,) = synthetic_respondents(GERMAN, 0, seed=1)
    assert person.description == "You are a person living in Germany."
    assert not person.synthetic
    instruction, _ = item_prompt(person, ITEMS[0], 0)
    assert instruction["role"] == "system"
    assert instruction["content"].startswith(person.description)


def test_made_up_respondents_are_marked_and_the_same_again():
    many = synthetic_respondents(GERMAN, 200, seed=1)
    assert many == synthetic_respondents(GERMAN, 200, seed=1)
    assert many[:3] == PEOPLE
    assert all(person.synthetic for person in many)
    assert [person.id for person in many] == list(range(200))
    assert len({person.description for person in many}) > 190
    assert all("Germany" in person.description for person in many)
    assert many != synthetic_respondents(GERMAN, 200, seed=2)
    ages = [int(re.search(r"of (\d+) living", person.description)[1]) for person in many]
    assert 18 <= min(ages) < 25
    assert 73 < max(ages) <= 80


def test_each_respondent_is_asked_as_themselves(tmp_path):
    script = [[0.0] * len(item.options) for item in ITEMS] * 3
    model = ScriptedModel(logprobs=script)
    table = put(tmp_path, model, PEOPLE, orders="first", variant="after")
    told = [talk[0]["content"] for talk in model.seen]
    assert [person.description in text for person in PEOPLE for text in told].count(True) == 12
    assert table.groupby("respondent").size().tolist() == [14] * 3
    assert set(table["variant"]) == {"after"}


def test_asking_goes_on_after_the_last_respondent_that_was_done(tmp_path):
    whole = put(tmp_path / "whole", Prefers("Yes, it is one of them"), PEOPLE)
    rows = put(tmp_path / "one", Prefers("Yes, it is one of them"), PEOPLE[:1])
    first = [group["logprob"].tolist() for _, group in rows.groupby(["qid", "order"], sort=False)]
    with pytest.raises(ScriptRanOutError):
        put(tmp_path, ScriptedModel(logprobs=first), PEOPLE)
    model = Prefers("Yes, it is one of them")
    resumed = put(tmp_path, model, PEOPLE)
    per_person = sum(len(item.options) for item in ITEMS)
    assert model.asked == 2 * per_person
    assert resumed.equals(whole)
    again = put(tmp_path, ScriptedModel(), PEOPLE)
    assert again.equals(whole)
    lines = (tmp_path / "ledger").read_text().splitlines()
    assert len(lines) == 1 + len(PEOPLE)


@pytest.mark.parametrize(
    "change", [{"key": "other weights"}, {"people": PEOPLE[1:2]}, {"items": ITEMS[:2]}]
)
def test_another_model_people_or_items_are_asked_anew(tmp_path, change):
    put(tmp_path, Prefers())
    model = Prefers()
    put(tmp_path, model, **change)
    assert model.asked == sum(len(item.options) for item in change.get("items", ITEMS))
