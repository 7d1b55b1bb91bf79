"""The survey put to a model: every order is asked, answers find back to their option's code."""

import math
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from clca_utils.answers import SCHEMA, join_parts, read_answers
from clca_utils.asking import (
    NOTHING,
    PART,
    WRITTEN,
    Questionnaire,
    ask,
    content_free,
    item_prompt,
    rotated,
)
from clca_utils.chat_model import ScriptedModel, ScriptRanOutError
from clca_utils.culture import load_culture
from clca_utils.items import SurveyItem, languages, load_items
from clca_utils.respondents import Respondent, persona_words, respondents
from clca_utils.shares import option_shares, person_shares

GERMAN = load_culture("german")
BY_QID = {item.qid: item for item in load_items("all")}
ITEMS = [BY_QID[qid] for qid in ("Q1", "Q7", "Q33", "Q43")]
SCALES = [2, 3, 4, 5]
ORDERS = sum(len(item.options) for item in ITEMS)
PEOPLE = respondents(GERMAN, "persona", count=3, seed=1)
MANY = respondents(GERMAN, "persona", count=2 * PART + 3, seed=1)
TEN = BY_QID["Q182"]


class Prefers:
    """Puts nine tenths of its belief on one text, wherever that text stands."""

    name = "prefers"

    def __init__(self, *texts):
        self.texts = texts
        self.batches = []

    @property
    def asked(self):
        return sum(map(len, self.batches))

    def option_logprobs(self, conversations, options):
        self.batches.append(conversations)
        pairs = zip(conversations, options, strict=True)
        return [self.weigh(talk, labels) for talk, labels in pairs]

    def weigh(self, talk, labels):
        lines = dict(re.findall(r"^(\d+|[A-Z])\. (.+)$", talk[-1]["content"], re.MULTILINE))
        assert list(lines) == list(labels)
        liked = [lines[label] in self.texts for label in labels]
        return np.log(np.where(liked, 0.9, 0.1 / len(labels)))


class Writes:
    """Writes the replies of a function of the question, and keeps what it was asked."""

    name = "writes"

    def __init__(self, reply):
        self.reply = reply
        self.calls = []

    def generate(self, conversations, **how):
        self.calls.append((conversations, how))
        return [self.reply(talk[-1]["content"]) for talk in conversations]


def form(**changes):
    wanted = {"condition": "main", "respondents": PEOPLE[:1], "items": ITEMS} | changes
    return Questionnaire(**wanted)


def put(tmp_path, model, *forms, variant="before", key="weights"):
    parts = ask(model, forms or [form()], variant=variant, parts=tmp_path / "parts", key=key)
    join_parts(parts, tmp_path / "answers.parquet")
    return read_answers(tmp_path / "answers.parquet", SCHEMA.names)


@pytest.mark.parametrize("item", [*ITEMS, TEN], ids=lambda item: item.qid)
def test_every_option_stands_once_at_each_position(item):
    count = len(item.options)
    shown = [rotated(item.options, order) for order in range(count)]
    assert shown[0] == item.options
    for position in zip(*shown, strict=True):
        assert sorted(position) == sorted(item.options)
    for order in range(count):
        _, question = item_prompt(PEOPLE[0], item, order)
        lines = [f"{i}. {text}" for i, text in zip(item.labels, shown[order], strict=True)]
        assert question["content"].splitlines() == [item.question, *lines]


@pytest.mark.parametrize("language", languages())
def test_numbers_are_asked_for_where_options_are_numbered_and_letters_elsewhere(language):
    words = persona_words(language).instruction
    person = Respondent(id=1, description="Who I am.", language=language)
    for item, how in ((ITEMS[0], words.number), (TEN, words.letter)):
        instruction, question = item_prompt(person, item, 1)
        assert (instruction["role"], question["role"]) == ("system", "user")
        joint = "" if language in ("ja", "zh") else " "
        assert instruction["content"] == f"Who I am.{joint}{how}"
        (alone, _) = item_prompt(person.model_copy(update={"description": ""}), item, 1)
        assert alone["content"] == how


def test_the_table_holds_each_option_once_at_each_position(tmp_path):
    table = put(tmp_path, Prefers(), form(items=[*ITEMS, TEN]))
    for item in [*ITEMS, TEN]:
        mine = table[table["qid"] == item.qid]
        codes = range(1, len(item.options) + 1)
        pairs = {(option, position) for option in codes for position in codes}
        assert set(zip(mine["option"], mine["position"], strict=True)) == pairs
        assert len(mine) == len(pairs)
        count = len(item.options)
        assert ((mine["position"] - 1 + mine["order"]) % count + 1 == mine["option"]).all()
    assert set(table["status"]) == {"weighed"}
    assert set(table["reply"]) == {""}


@pytest.mark.parametrize("item", [BY_QID["Q1"], TEN], ids=["numbers", "letters"])
@pytest.mark.parametrize("code", [1, 2, 4])
def test_the_option_a_model_prefers_gets_its_code_in_every_order(tmp_path, item, code):
    count = len(item.options)
    table = put(tmp_path, Prefers(item.options[code - 1]), form(items=[item]))
    liked = table.loc[table.groupby("order")["logprob"].idxmax()]
    assert liked["option"].tolist() == [code] * count
    assert sorted(liked["position"]) == list(range(1, count + 1))
    shares = option_shares(table, "rotated").set_index("option")["share"]
    assert shares[code] == pytest.approx(0.9 / (0.9 + (count - 1) * 0.1 / count))


def test_the_first_order_alone_is_the_questionnaires(tmp_path):
    model = Prefers("Very important")
    table = put(tmp_path, model, form(orders="first"))
    assert model.asked == len(ITEMS) + len(SCALES)
    assert set(table["order"]) == {0}
    assert (table["option"] == table["position"]).all()


def test_a_respondent_is_one_batch_that_asks_each_scale_once_without_content(tmp_path):
    model = Prefers()
    put(tmp_path, model, form(respondents=PEOPLE))
    assert [len(batch) for batch in model.batches] == [ORDERS + len(SCALES)] * 3
    for person, batch in zip(PEOPLE, model.batches, strict=True):
        assert {talk[0]["content"].startswith(person.description) for talk in batch} == {True}
        assert len({talk[0]["content"] for talk in batch}) == 1
        empty = [talk[-1]["content"] for talk in batch if talk[-1]["content"].startswith(NOTHING)]
        assert [text.count(f". {NOTHING}") for text in empty] == SCALES


def test_a_question_without_content_says_nothing():
    for count in (2, 10):
        item = content_free(count)
        assert set(item.options) == {item.question} == {"N/A"}
        assert len(item.options) == count


class LikesLabels(Prefers):
    """Believes nothing of the items: half of its belief follows the label's place alone."""

    def weigh(self, talk, labels):
        liking = np.arange(len(labels), 0, -1) / sum(range(len(labels) + 1))
        persona = len(talk[0]["content"])
        return np.log(0.5 * liking) + 0.01 * persona


def test_blanks_are_the_weights_of_the_same_labels_without_content(tmp_path):
    table = put(tmp_path, LikesLabels(), form(items=[*ITEMS, TEN], respondents=PEOPLE))
    assert table["blank"].tolist() == pytest.approx(table["logprob"].tolist())
    assert table["blank"].nunique() > sum(SCALES)
    calibrated = person_shares(table, "calibrated")
    counts = calibrated.groupby(["respondent", "qid"], observed=True)["option"].transform("size")
    assert calibrated["share"].tolist() == pytest.approx((1 / counts).tolist())
    fixed = option_shares(table, "fixed order")
    assert fixed[fixed["qid"] == "Q7"]["share"].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_blanks_belong_to_the_position_and_not_to_the_option(tmp_path):
    model = LikesLabels()
    blanks = put(tmp_path, model).groupby(["qid", "position"], observed=True)["blank"]
    assert (blanks.nunique() == 1).all()
    by_option = put(tmp_path, model).groupby(["qid", "option"], observed=True)["blank"]
    assert (by_option.nunique() > 1).all()


def test_each_respondent_is_asked_as_themselves(tmp_path):
    script = [[0.0] * n for _ in PEOPLE for n in (*(len(i.options) for i in ITEMS), *SCALES)]
    model = ScriptedModel(logprobs=script)
    table = put(tmp_path, model, form(respondents=PEOPLE, orders="first"), variant="after")
    told = [talk[0]["content"] for talk in model.seen]
    assert [person.description in text for person in PEOPLE for text in told].count(True) == 24
    assert table.groupby("respondent").size().to_dict() == {p.id: 14 for p in PEOPLE}
    assert set(table["variant"]) == {"after"}


def test_several_questionnaires_keep_their_conditions(tmp_path):
    other = form(condition="as Japanese / 日本", items=ITEMS[:1], respondents=PEOPLE[1:])
    table = put(tmp_path, Prefers(), form(), other)
    sizes = table.groupby("condition", observed=True).size().to_dict()
    assert sizes == {"main": sum(n * n for n in SCALES), "as Japanese / 日本": 2 * 16}
    again = put(tmp_path, ScriptedModel(), form(), other)
    assert again.equals(table)


def scripted(table):
    """Return the rows with which a model answered, question by question, with its blanks."""
    rows = []
    for _, person in table.groupby("respondent", sort=False):
        asked = person.groupby(["qid", "order"], sort=False, observed=True)
        rows += [group["logprob"].tolist() for _, group in asked]
        blanks = {len(g): g["blank"].tolist() for _, g in asked}
        rows += [blanks[count] for count in sorted(blanks)]
    return rows


def test_asking_goes_on_after_the_last_part_that_was_done(tmp_path):
    whole = put(tmp_path / "whole", Prefers("Yes"), form(respondents=MANY))
    done = whole[whole["respondent"].isin([p.id for p in MANY[: PART + 2]])]
    with pytest.raises(ScriptRanOutError):
        put(tmp_path, ScriptedModel(logprobs=scripted(done)), form(respondents=MANY))
    model = Prefers("Yes")
    resumed = put(tmp_path, model, form(respondents=MANY))
    assert model.asked == (len(MANY) - PART) * (ORDERS + len(SCALES))
    first_asked = model.batches[0][0][0]["content"]
    assert first_asked.startswith(MANY[PART].description)
    assert resumed.equals(whole)
    again = put(tmp_path, ScriptedModel(), form(respondents=MANY))
    assert again.equals(whole)
    one, other = (p / "answers.parquet" for p in (tmp_path, tmp_path / "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_a_damaged_part_is_asked_again_and_no_other(tmp_path):
    whole = put(tmp_path, Prefers(), form(respondents=MANY))
    parts = sorted((tmp_path / "parts").rglob("*.parquet"))
    assert [pq.read_table(part)["respondent"].unique().to_pylist() for part in parts] == [
        [person.id for person in MANY[start : start + PART]] for start in (0, PART, 2 * PART)
    ]
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    model = Prefers()
    assert put(tmp_path, model, form(respondents=MANY)).equals(whole)
    assert len(model.batches) == PART


@pytest.mark.parametrize(
    "change",
    [
        {"key": "other weights"},
        {"variant": "after"},
        {"respondents": PEOPLE[1:2]},
        {"items": ITEMS[:2]},
        {"items": [item.model_copy(update={"question": "Why?"}) for item in ITEMS]},
        {"orders": "first"},
        {"seed": 1},
    ],
    ids=["weights", "variant", "respondent", "items", "wording", "orders", "seed"],
)
def test_another_model_people_or_items_are_asked_anew(tmp_path, change):
    put(tmp_path, Prefers())
    model = Prefers()
    how = {name: change[name] for name in ("key", "variant") if name in change}
    asked = form(**{name: value for name, value in change.items() if name not in how})
    put(tmp_path, model, asked, **how)
    scales = {len(item.options) for item in asked.items}
    assert model.asked == len(asked.asked()) + len(scales)


def test_another_variant_leaves_the_first_ones_answers(tmp_path):
    parts = tmp_path / "parts"
    before = ask(Prefers(), [form()], variant="before", parts=parts, key="base")
    after = ask(Prefers("Yes"), [form()], variant="after", parts=parts, key="adapter")
    join_parts([*before, *after], tmp_path / "both.parquet")
    table = read_answers(tmp_path / "both.parquet")
    assert table.groupby("variant", observed=True).size().tolist() == [54, 54]
    assert ask(ScriptedModel(), [form()], variant="before", parts=parts, key="base") == before


WRITTEN_FORM = form(method="generate", respondents=PEOPLE, seed=7)


def second(question):
    """Choose what stands second, by its label."""
    return question.splitlines()[2].split(".")[0]


def test_a_written_answer_is_the_option_that_stood_there(tmp_path):
    table = put(tmp_path, Writes(second), WRITTEN_FORM)
    chosen = table[table["logprob"] == 0]
    assert (chosen["position"] == 2).all()
    assert len(chosen) == len(PEOPLE) * ORDERS
    assert (table.drop(chosen.index)["logprob"] == -math.inf).all()
    assert set(table["blank"]) == {0.0}
    assert set(table["status"]) == {"answered"}
    assert set(table["reply"]) == {"2"}
    shares = option_shares(table, "rotated")
    counts = shares.groupby("qid", observed=True)["option"].transform("size")
    assert shares["share"].tolist() == pytest.approx((1 / counts).tolist())


def test_a_written_text_is_the_option_in_every_order(tmp_path):
    model = Writes(lambda question: "rather important." if "Rather" in question else "...")
    table = put(tmp_path, model, WRITTEN_FORM)
    chosen = table[table["logprob"] == 0]
    assert set(zip(chosen["qid"], chosen["option"], strict=True)) == {("Q1", 2)}
    assert sorted(chosen["position"]) == sorted([1, 2, 3, 4] * len(PEOPLE))


@pytest.mark.parametrize(
    ("reply", "status"),
    [("I'm an AI and don't have opinions.", "refused"), ("1. I can't say", "refused"),
     ("1 or 2", "unparsable"), ("77", "unparsable"), ("", "unparsable")],
)  # fmt: skip
def test_what_cannot_be_read_is_counted_and_never_mapped(tmp_path, reply, status):
    table = put(tmp_path, Writes(lambda question: reply), WRITTEN_FORM)
    assert (table["logprob"] == -math.inf).all()
    assert set(table["status"]) == {status}
    assert set(table["reply"]) == {reply}
    assert len(table) == len(PEOPLE) * sum(n * n for n in SCALES)
    assert person_shares(table, "rotated").empty


def test_written_answers_come_in_batches_each_from_a_seed_of_its_own(tmp_path):
    model = Writes(second)
    items = [BY_QID[f"Q{n}"] for n in range(27, 37)]
    long = form(method="generate", items=items, temperature=0.3, seed=7)
    table = put(tmp_path, model, long)
    sizes = [len(conversations) for conversations, _ in model.calls]
    assert max(sizes) == WRITTEN
    assert sum(sizes) == len(long.asked()) == len(table.drop_duplicates(["qid", "order"]))
    assert {how["temperature"] for _, how in model.calls} == {0.3}
    assert {how["min_new_tokens"] for _, how in model.calls} == {1}  # "2" is a whole answer
    seeds = [seed for _, how in model.calls for seed in how["seeds"]]
    assert len(set(seeds)) == sum(sizes)
    again, other = Writes(second), Writes(second)
    put(tmp_path / "again", again, long._replace(condition="other", items=items[::-1]))
    put(tmp_path / "other", other, long._replace(seed=8))
    assert {seed for _, how in again.calls for seed in how["seeds"]} == set(seeds)
    assert not {seed for _, how in other.calls for seed in how["seeds"]} & set(seeds)


def test_ten_options_have_letters_written_or_weighed(tmp_path):
    table = put(tmp_path, Writes(lambda question: "C"), form(method="generate", items=[TEN]))
    chosen = table[table["logprob"] == 0].sort_values("order")
    assert chosen["position"].tolist() == [3] * 10
    assert chosen["option"].tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 1, 2]
    _, question = item_prompt(PEOPLE[0], TEN, 9)
    assert question["content"].splitlines()[1:3] == [
        "A. 10 - always justifiable",
        "B. 1 - never justifiable",
    ]


def test_the_real_model_answers_as_its_plain_forward_pass(tmp_path, smollm):
    item = SurveyItem(qid="Q7", topic="t", question="Is tea good?", options=["Yes", "No"])
    table = put(tmp_path, smollm, form(items=[item], respondents=PEOPLE[:2]))
    mine = table[table["respondent"] == PEOPLE[1].id]
    for order in (0, 1):
        (alone,) = smollm.option_logprobs([item_prompt(PEOPLE[1], item, order)], [item.labels])
        rows = mine[mine["order"] == order].sort_values("position")
        assert rows["logprob"].to_numpy() == pytest.approx(alone, abs=1e-4)
    (blank,) = smollm.option_logprobs([item_prompt(PEOPLE[1], content_free(2), 0)], [item.labels])
    assert mine["blank"].tolist() == pytest.approx([*blank, *blank], abs=1e-4)
    assert isinstance(mine["variant"].dtype, pd.CategoricalDtype)
