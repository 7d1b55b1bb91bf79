"""Validity checks of stage 05: what more is asked, and what models with known faults look like."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from clca_utils.answers import join_parts, read_answers
from clca_utils.asking import NOTHING, Questionnaire, ask
from clca_utils.checks import PROBED, check_forms, check_metrics, check_tables, comparable
from clca_utils.choices import CHECKS
from clca_utils.culture import load_culture
from clca_utils.files import ROOT
from clca_utils.items import languages, load_items
from clca_utils.measures import js_distance
from clca_utils.respondents import country_name, language_of, respondents
from clca_utils.survey import Survey, country_shares, load_marginals

ITEMS = load_items()
BY_QID = {item.qid: item for item in ITEMS}
FEW = [BY_QID[qid] for qid in ("Q1", "Q7", "Q33", "Q43")]
SURVEY = Survey(load_marginals())
LOADED = map(load_culture, ("british", "chinese", "german", "japanese", "mexican"))
CULTURES = {culture.name: culture for culture in LOADED}
GERMAN = CULTURES["German"]
PEOPLES = {c.name: country_shares(SURVEY.marginals, c.iso3, ITEMS) for c in CULTURES.values()}

WORDINGS = {
    (words, tuple(item.options)): (item.qid, language, words == item.question)
    for language in languages()
    for item in load_items("all", language)
    for words in (item.question, item.paraphrase)
    if words
}
"""What is asked, whatever the language and the order of its options: item, language, first words"""

HOMES = {
    country_name(culture, language): culture.name
    for culture in CULTURES.values()
    for language in ("en", language_of(culture, "native"))
}


class Model:
    """Answers by a rule from what it is told and asked, wherever an option stands.

    Args:
        belief: Gives the shares of an item's options, from the system message, the item's name
            and whether it is in the first words.
        liking: How much it likes each label over the next, added to the belief.
        inside: The probability that it puts on the labels.
    """

    name = "made up"

    def __init__(self, belief, liking=0.0, inside=0.9):
        self.belief, self.liking, self.inside = belief, liking, inside
        self.seen = []

    def option_logprobs(self, conversations, options):
        return [
            self._weigh(talk, list(labels))
            for talk, labels in zip(conversations, options, strict=True)
        ]

    def generate(self, conversations, *, max_new_tokens, seeds, temperature=0.0, **_):
        replies = []
        for talk, seed in zip(conversations, seeds, strict=True):
            labels = re.findall(r"^(\w+)\. ", talk[-1]["content"], re.MULTILINE)
            p = np.exp(self._weigh(talk, labels)) / self.inside
            place = int(np.random.default_rng(seed).choice(len(p), p=p / p.sum()))
            replies.append(labels[place] if temperature else labels[int(p.argmax())])
        return replies

    def _weigh(self, talk, labels):
        told, (question, *lines) = talk[0]["content"], talk[-1]["content"].splitlines()
        shown = [line.split(". ", 1)[1] for line in lines]
        assert lines == [f"{a}. {b}" for a, b in zip(labels, shown, strict=True)]
        p = np.full(len(labels), 1 / len(labels))
        if question != NOTHING:
            order, asked = next(
                (order, WORDINGS[question, options])
                for order in range(len(shown))
                if (options := (*shown[-order:], *shown[:-order]))
                and (question, options) in WORDINGS
            )
            self.seen.append((told, *asked, order))
            qid, _, first = asked
            p = np.roll(self.belief(told, qid, first), -order)
        logits = np.log(p + 1e-12) - self.liking * np.arange(len(p))
        return np.log(softmax(logits) * self.inside)


def even(qid):
    return np.full(len(BY_QID[qid].options), 1 / len(BY_QID[qid].options))


def home_of(told):
    """Return the culture that a persona names, None if none."""
    named = [name for country, name in HOMES.items() if country in told]
    return named[0] if named else None


def by_country(told, qid, first):
    """Answer as the people of the country that is named."""
    return PEOPLES.get(home_of(told) or "", {}).get(qid, even(qid))


def regardless(told, qid, first):
    """Answer something, whoever is asked in whatever words."""
    return softmax(np.arange(len(even(qid))))


def main_form(prompt="nationality", *, culture=GERMAN, items=FEW, count=3, **changes):
    people = respondents(culture, prompt, count=count, seed=1)
    return Questionnaire("main", people, items)._replace(**changes)


def forms_of(main, prompt="nationality", *, culture=GERMAN, checks=CHECKS, survey=SURVEY):
    others = list(CULTURES.values())
    return [
        main,
        *check_forms(main, prompt, culture=culture, survey=survey, checks=checks, others=others),
    ]


def put(folder, models, forms):
    """Ask models, variant to model, and return the table of their answers."""
    parts = []
    for variant, model in models.items():
        parts += ask(model, forms, variant=variant, parts=folder / ".answers", key=variant)
    join_parts(parts, folder / "answers.parquet")
    return read_answers(folder / "answers.parquet")


def tables_of(answers, prompt="nationality", *, items=FEW, **more):
    people = {item.qid: PEOPLES["German"][item.qid] for item in items}
    return check_tables(
        answers, prompt, people=people, items=items, peoples=PEOPLES, seed=1, **more
    )


AS_TOLD = ["as Chinese", "as German", "as Japanese", "as Mexican"]


@pytest.mark.parametrize(
    ("checks", "conditions"),
    [
        ([], []),
        (["paraphrase"], ["paraphrase"]),
        (["retest"], ["retest 1", "retest 2"]),
        (["prompts"], [f"prompt: {p}" for p in ("none", "descriptors", "persona", "native")]),
        (["cultures"], AS_TOLD),
        (["cultures", "paraphrase"], ["paraphrase", *AS_TOLD]),
    ],
)
def test_each_check_asks_under_its_own_conditions(checks, conditions):
    main = main_form(items=ITEMS)
    forms = forms_of(main, checks=checks)
    assert [form.condition for form in forms] == ["main", *conditions]
    # but for the one thing that a check changes, all is asked as in the main measurement
    for form in forms[1:]:
        assert [item.qid for item in form.items] == [item.qid for item in ITEMS]
        if not form.condition.startswith("retest"):
            assert form[3:] == main[3:]
        else:
            assert (form.orders, form.method, form.temperature) == ("first", "generate", 1)
            assert form.respondents == main.respondents[:PROBED]


def test_all_checks_together_are_all_conditions_once():
    conditions = Counter(form.condition for form in forms_of(main_form(items=ITEMS)))
    assert set(conditions.values()) == {1}
    assert len(conditions) == 1 + 1 + 2 + 4 + 4


def test_the_same_respondents_are_asked_in_other_words():
    main = main_form("persona")
    (again,) = forms_of(main, "persona", checks=["paraphrase"])[1:]
    assert again.respondents == main.respondents[:PROBED]
    assert [item.question for item in again.items] == [item.paraphrase for item in FEW]
    assert [item.options for item in again.items] == [item.options for item in FEW]
    bare = [item.model_copy(update={"paraphrase": ""}) for item in FEW]
    assert forms_of(main_form(items=bare), checks=["paraphrase"])[1:] == []


def test_the_second_time_is_another_draw():
    for seed in range(5):
        main = main_form(method="generate", seed=seed)
        one, two = forms_of(main, checks=["retest"])[1:]
        assert one.seed != two.seed
    seeds = [
        form.seed for s in range(5) for form in forms_of(main_form(seed=s), checks=["retest"])[1:]
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("prompt", ["none", "nationality", "descriptors", "persona", "native"])
def test_every_other_prompt_is_tried(prompt):
    main = main_form(prompt, items=load_items(language=language_of(GERMAN, prompt)))
    forms = forms_of(main, prompt, checks=["prompts"])[1:]
    words = {form.condition.removeprefix("prompt: ") for form in forms} | {prompt}
    assert words == {"none", "nationality", "descriptors", "persona", "native"}
    assert len(forms) == 4
    for form in forms:
        native = form.condition == "prompt: native"
        assert list(form.items) == load_items(language="de" if native else "en")
        assert {person.language for person in form.respondents} == {"de" if native else "en"}
        assert len(form.respondents) == (PROBED if native or form.condition.endswith("na") else 1)


def test_wording_of_ones_own_stays_where_the_language_does():
    own = [item.model_copy(update={"question": f"Official: {item.question}"}) for item in FEW]
    forms = {form.condition: form for form in forms_of(main_form(items=own), checks=CHECKS)}
    assert forms["prompt: persona"].items == own
    assert [item.question for item in forms["prompt: native"].items] == [
        item.question for item in load_items(language="de") if item.qid in {x.qid for x in own}
    ]


@pytest.mark.parametrize(
    "home", [CULTURES["British"], load_culture(str(ROOT / "tests" / "data" / "italian.yaml"))]
)
def test_the_native_prompt_is_skipped_in_english_and_in_unknown_languages(home):
    conditions = [form.condition for form in forms_of(main_form(culture=home), culture=home)]
    assert "prompt: native" not in conditions
    assert {"prompt: none", "prompt: descriptors", "prompt: persona"} <= set(conditions)


def test_a_culture_of_which_too_little_is_known_is_not_told_apart():
    assert len(PEOPLES["British"]) == 15
    assert not comparable(CULTURES["British"], SURVEY, ITEMS)
    forms = forms_of(main_form(items=ITEMS), checks=["cultures"])
    assert [form.condition for form in forms[1:]] == AS_TOLD
    # of few items a culture must have them all
    known = [item for item in ITEMS if item.qid in PEOPLES["British"]][:4]
    lacking = [item for item in FEW if item.qid not in PEOPLES["British"]]
    assert lacking
    assert comparable(CULTURES["British"], SURVEY, known)
    assert not comparable(CULTURES["British"], SURVEY, [*known, *lacking[:1]])
    forms = forms_of(main_form(items=FEW), checks=["cultures"])
    assert [form.condition for form in forms[1:]] == AS_TOLD
    forms = forms_of(main_form(items=known), checks=["cultures"])
    assert [form.condition for form in forms[1:]] == ["as British", *AS_TOLD]
    # 30 items suffice, 29 don't
    known = SURVEY.marginals[SURVEY.marginals["country"] == "DEU"]
    for count in (29, 30):
        some = known[known["qid"].isin([item.qid for item in ITEMS[:count]])]
        assert comparable(GERMAN, Survey(some), ITEMS) == (count == 30)


def test_each_culture_is_asked_as_a_person_of_its_own_in_english():
    native = load_items(language="de")
    main = main_form("native", items=native)
    forms = forms_of(main, "native", checks=["cultures"])[1:]
    for form in forms:
        culture = CULTURES[form.condition.removeprefix("as ")]
        (person,) = form.respondents
        assert culture.country in person.description
        assert list(form.items) == ITEMS


@pytest.fixture(scope="module")
def told_apart(tmp_path_factory):
    """Ask a model that knows nothing before, and after answers as the people of each country."""
    forms = forms_of(main_form(items=ITEMS, orders="first"), checks=["cultures"])
    models = {"before": Model(regardless), "after": Model(by_country)}
    answers = put(tmp_path_factory.mktemp("apart"), models, forms)
    return tables_of(answers, items=ITEMS)


def test_a_model_that_answers_by_country_tells_all_cultures_apart(told_apart):
    assert set(told_apart) == {"position", "training", "cultures", "apart"}
    found = told_apart["apart"].set_index("variant").loc["after"]
    assert (found["accuracy"], found["chance"], found["cultures"]) == (1, 1 / 4, 4)
    # of the 24 ways to name four peoples the true one is the best
    assert found["p_value"] == pytest.approx(1 / 24)
    table = told_apart["cultures"]
    matrix = table[table["variant"] == "after"].pivot(
        index="asked_as", columns="people", values="correlation"
    )
    assert set(matrix.index) == set(matrix.columns) == set(CULTURES) - {"British"}
    assert np.diag(matrix).tolist() == pytest.approx([1] * 4)
    assert (matrix.to_numpy()[~np.eye(4, dtype=bool)] < 0.9).all()
    assert check_metrics(told_apart)["cultures_accuracy_after"] == 1


def test_what_training_moved_is_how_far_the_answers_are_from_those_before(told_apart):
    table = told_apart["training"]
    far = np.mean([js_distance(regardless("", q, True), p) for q, p in PEOPLES["German"].items()])
    assert table["variant"].tolist() == ["after"]
    assert table["moved"].tolist() == pytest.approx([far])
    assert check_metrics(told_apart)["training_moved_after"] == pytest.approx(far)


def test_a_model_that_ignores_whom_it_speaks_for_tells_none_apart(told_apart):
    found = told_apart["apart"].set_index("variant").loc["before"]
    assert (found["accuracy"], found["p_value"]) == (0, 1)
    table = told_apart["cultures"]
    assert table.loc[table["variant"] == "before", "correlation"].isna().all()
    metrics = check_metrics(told_apart)
    assert metrics["cultures_accuracy_before"] == 0
    assert metrics["cultures_p_value_before"] == 1


def test_only_what_the_people_of_two_cultures_swap_is_told_wrong(tmp_path):
    """Answer as Japanese for Mexicans and the other way round: two of four are right."""
    swapped = {"Japanese": "Mexican", "Mexican": "Japanese"}

    def confused(told, qid, first):
        home = home_of(told)
        return PEOPLES[swapped.get(home, home)].get(qid, even(qid))

    forms = forms_of(main_form(items=ITEMS, orders="first"), checks=["cultures"])
    answers = put(tmp_path, {"before": Model(confused)}, forms)
    assert check_metrics(tables_of(answers, items=ITEMS))["cultures_accuracy_before"] == 0.5


def test_a_model_that_ignores_everything_is_moved_by_nothing(tmp_path):
    model = Model(regardless)
    main = main_form("persona")
    answers = put(tmp_path, {"before": model}, forms_of(main, "persona"))
    found = tables_of(answers, "persona")
    assert found["wording"]["moved"].tolist() == pytest.approx([0], abs=1e-7)
    prompts = found["prompts"].set_index("prompt")
    assert list(prompts.index) == [
        "persona (synthetic)",
        "none",
        "nationality",
        "descriptors",
        "native (synthetic)",
    ]
    real = tables_of(answers, "persona", surveyed=True)["prompts"]
    assert real["prompt"].tolist() == ["persona", "none", "nationality", "descriptors", "native"]
    assert "training" not in found
    assert prompts["moved"].tolist() == pytest.approx([0] * 5, abs=1e-7)
    assert prompts["respondents"].tolist() == [3, 1, 1, 1, 2]
    # nobody differs from nobody: where one respondent was asked there is no spread to tell
    assert prompts["spread"].dropna().tolist() == pytest.approx([0, 0], abs=1e-7)
    assert prompts.index[prompts["spread"].isna()].tolist() == [
        "none",
        "nationality",
        "descriptors",
    ]
    far = np.mean([js_distance(regardless("", x.qid, True), PEOPLES["German"][x.qid]) for x in FEW])
    assert prompts["js_distance"].tolist() == pytest.approx([far] * 5)
    metrics = check_metrics(found)
    assert metrics["position_bias_before"] == pytest.approx(0, abs=1e-12)
    assert metrics["wording_moved_before"] == pytest.approx(0, abs=1e-7)
    # and it was asked in German indeed
    assert {language for _, _, language, _, _ in model.seen} == {"en", "de"}


def test_a_model_that_minds_the_persona_differs_between_respondents(tmp_path):
    def by_sex(told, qid, first):
        size = len(even(qid))
        return np.eye(size)[0 if "a woman" in told else size - 1]

    people = respondents(GERMAN, "persona", count=40, seed=1)
    some = [
        next(x for x in people if f"You are a {sex}." in x.description) for sex in ("man", "woman")
    ]
    main = main_form("persona", respondents=some)
    found = tables_of(
        put(tmp_path, {"before": Model(by_sex)}, forms_of(main, "persona")), "persona"
    )
    prompts = found["prompts"].set_index("prompt")
    # half and half beside all on one option: the same for every item
    apart = float(js_distance([1, 0], [0.5, 0.5]))
    assert prompts.loc["persona (synthetic)", "spread"] == pytest.approx(apart, abs=1e-5)
    assert prompts.loc["nationality", "moved"] == pytest.approx(apart, abs=1e-5)


def test_a_model_that_minds_the_words_is_moved_by_them(tmp_path):
    def by_words(told, qid, first):
        return np.eye(len(even(qid)))[0 if first else -1]

    models = {"before": Model(regardless), "after": Model(by_words)}
    answers = put(tmp_path, models, forms_of(main_form(), checks=["paraphrase"]))
    found = tables_of(answers)
    assert set(found) == {"position", "training", "wording"}
    first = {item.qid: np.eye(len(item.options))[0] for item in FEW}
    far = np.mean([js_distance(regardless("", qid, True), p) for qid, p in first.items()])
    assert found["training"]["moved"].tolist() == pytest.approx([far], abs=1e-5)
    moved = found["wording"].set_index("variant")["moved"]
    assert moved.to_dict() == pytest.approx({"before": 0, "after": 1}, abs=1e-5)
    assert check_metrics(found)["wording_moved_after"] == pytest.approx(1, abs=1e-5)


def test_words_are_compared_for_those_asked_in_both(tmp_path):
    """Of many respondents only some are asked again: the others must not look like a change."""

    def by_age(told, qid, first):
        return np.eye(len(even(qid)))[int(re.search(r"You are (\d+) years", told)[1]) % 2]

    main = main_form("persona", count=9)
    answers = put(
        tmp_path, {"before": Model(by_age)}, forms_of(main, "persona", checks=["paraphrase"])
    )
    assert answers.groupby("condition", observed=True)["respondent"].nunique().to_dict() == {
        "main": 9,
        "paraphrase": PROBED,
    }
    moved = tables_of(answers, "persona")["wording"]["moved"]
    assert moved.tolist() == pytest.approx([0], abs=1e-7)


def test_a_liking_for_a_label_is_a_position_bias_and_nothing_else(tmp_path):
    model = Model(lambda told, qid, first: even(qid), liking=40.0)
    found = tables_of(put(tmp_path, {"before": model}, forms_of(main_form())))
    sizes = [len(item.options) for item in FEW]
    bias = np.mean([1 - 1 / size for size in sizes])
    assert found["position"]["bias"].tolist() == pytest.approx([bias])
    assert check_metrics(found)["position_bias_before"] == pytest.approx(bias)
    assert found["wording"]["moved"].tolist() == pytest.approx([0], abs=1e-6)


def test_asking_twice_finds_a_sure_model_the_same_and_a_guessing_one_at_chance(tmp_path):
    def sure(told, qid, first):
        return np.eye(len(even(qid)))[int(qid[1:]) % 2]

    def guessing(told, qid, first):
        return even(qid)

    main = main_form("persona", items=ITEMS, count=2, orders="first")
    models = {"before": Model(sure), "after": Model(guessing)}
    answers = put(tmp_path, models, forms_of(main, "persona", checks=["retest"]))
    found = tables_of(answers, "persona", items=ITEMS)["retest"].set_index("variant")
    assert found["n"].tolist() == found["asked"].tolist() == [2 * len(ITEMS)] * 2
    assert found.loc["before", ["agreement", "kappa"]].tolist() == [1, 1]
    assert abs(found.loc["after", "kappa"]) < 0.3
    assert found.loc["after", "agreement"] < 0.7


def test_what_could_not_be_read_twice_is_not_compared(tmp_path):
    class Shy(Model):
        def generate(self, conversations, **options):
            replies = super().generate(conversations, **options)
            return [
                "I cannot answer this." if WORDINGS_OF[talk[-1]["content"].split("\n")[0]] == "Q7"
                else reply
                for talk, reply in zip(conversations, replies, strict=True)
            ]  # fmt: skip

    answers = put(tmp_path, {"before": Shy(regardless)}, forms_of(main_form(), checks=["retest"]))
    (row,) = tables_of(answers)["retest"].to_dict("records")
    assert (row["n"], row["asked"]) == (len(FEW) - 1, len(FEW))
    assert check_metrics({"retest": pd.DataFrame([row])})["retest_n_before"] == len(FEW) - 1


WORDINGS_OF = {question: qid for (question, _), (qid, *_) in WORDINGS.items()}


def test_the_whole_form_written_instead_of_weighed(tmp_path):
    """A model on a server: all conditions are written, and every check still has its table."""
    main = main_form("persona", items=ITEMS, count=2, orders="first", method="generate")
    model = Model(by_country)
    answers = put(tmp_path, {"before": model}, forms_of(main, "persona"))
    assert set(answers["status"]) == {"answered"}
    found = tables_of(answers, "persona", items=ITEMS)
    assert set(found) == {"position", "wording", "retest", "prompts", "cultures", "apart"}
    assert found["apart"]["accuracy"].tolist() == [1]


class Choosy(Model):
    """Declines to answer as somebody of some country, None if none is named."""

    shy = (None, "Japanese")

    def generate(self, conversations, **options):
        replies = super().generate(conversations, **options)
        named = [home_of(talk[0]["content"]) for talk in conversations]
        return [
            "I cannot answer." if name in self.shy else reply
            for name, reply in zip(named, replies, strict=True)
        ]


def test_a_condition_under_which_nothing_can_be_read_does_not_end_the_stage(tmp_path):
    main = main_form(items=ITEMS, orders="first", method="generate")
    models = {"before": Choosy(by_country), "after": Model(by_country)}
    both = tables_of(put(tmp_path, models, forms_of(main)), items=ITEMS)
    assert both["apart"]["cultures"].tolist() == [3, 4]
    prompts = both["prompts"].set_index(["variant", "prompt"])
    assert prompts.loc[("after", "none"), "js_distance"] > 0
    assert ("before", "none") not in prompts.index
    assert ("before", "native (synthetic)") in prompts.index
    # and where no variant could be read
    alone = put(tmp_path / "alone", {"before": Choosy(by_country)}, forms_of(main))
    found = tables_of(alone, items=ITEMS)
    assert set(found["prompts"]["prompt"]) == {
        "nationality",
        "descriptors",
        "persona (synthetic)",
        "native (synthetic)",
    }
    assert set(found["cultures"]["asked_as"]) == {"Chinese", "German", "Mexican"}
    again = alone["condition"].isin(["paraphrase", "retest 1"])
    alone.loc[again, "logprob"] = -np.inf
    found = tables_of(alone, items=ITEMS)
    assert (len(found["wording"]), len(found["retest"])) == (0, 0)
    assert not [name for name in check_metrics(found) if name.startswith(("wording", "retest"))]


def test_a_model_that_answers_as_one_culture_only_has_none_to_tell_apart(tmp_path):
    model = Choosy(by_country)
    model.shy = ("Japanese", "Chinese", "Mexican")
    main = main_form(items=ITEMS, orders="first", method="generate")
    found = tables_of(put(tmp_path, {"before": model}, forms_of(main)), items=ITEMS)
    assert "apart" not in found
    assert not [name for name in check_metrics(found) if name.startswith("cultures")]


def test_without_checks_only_the_position_is_looked_at(tmp_path):
    found = tables_of(
        put(tmp_path, {"before": Model(regardless)}, forms_of(main_form(), checks=[]))
    )
    assert list(found) == ["position"]
    assert list(check_metrics(found)) == ["position_bias_before"]


def test_metrics_are_named_after_check_and_variant():
    tables = {
        "position": pd.DataFrame({"variant": ["before", "after"], "bias": [0.1, 0.2]}),
        "training": pd.DataFrame({"variant": ["after"], "moved": [0.7]}),
        "wording": pd.DataFrame({"variant": ["after"], "moved": [0.3]}),
        "retest": pd.DataFrame(
            {"variant": ["after"], "n": [7], "agreement": [0.8], "chance": [0.5], "kappa": [0.6]}
        ),
        "prompts": pd.DataFrame({"variant": ["after"], "prompt": ["none"], "moved": [0.9]}),
        "apart": pd.DataFrame({"variant": ["before"], "accuracy": [0.25], "p_value": [0.04]}),
    }
    assert check_metrics(tables) == {
        "position_bias_before": 0.1,
        "position_bias_after": 0.2,
        "training_moved_after": 0.7,
        "wording_moved_after": 0.3,
        "retest_kappa_after": 0.6,
        "retest_agreement_after": 0.8,
        "retest_n_after": 7.0,
        "cultures_accuracy_before": 0.25,
        "cultures_p_value_before": 0.04,
    }
    assert check_metrics({}) == {}
