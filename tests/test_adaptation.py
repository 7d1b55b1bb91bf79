"""Adaptation: every slot is filled from one culture, and a rewriter's answer is checked."""

import json
import re
import unicodedata

import pytest
from faker import Faker
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import (
    NEUTRAL,
    adapt,
    adapt_all,
    fill_slots,
    load_scenarios,
    local_date,
    local_money,
    local_time,
    person_name,
    rewrite_problem,
    rewrite_settings,
)
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import Names, load_culture
from clca_utils.files import StudyError, write_records
from clca_utils.scenario import load_seeds

SEEDS = load_seeds()
CULTURES = {n: load_culture(n) for n in ("british", "chinese", "german", "japanese", "mexican")}
SCENES = {name: adapt_all(SEEDS, culture, seed=1) for name, culture in CULTURES.items()}
PLAIN = adapt_all(SEEDS, CULTURES["german"], seed=1, rewriter="none")

each_culture = pytest.mark.parametrize("name", CULTURES)


def texts(scene):
    """Return all that a scenario says of its setting and people."""
    return [scene.setting, *(text for p in scene.people for text in p.model_dump().values())]


@each_culture
def test_no_slot_is_left(name):
    assert [scene.seed_id for scene in SCENES[name]] == [seed.id for seed in SEEDS]
    assert not [text for scene in SCENES[name] for text in texts(scene) if set(text) & set("{}")]


@each_culture
def test_a_scene_depends_on_its_seed_alone(name):
    assert adapt_all(SEEDS[7:9], CULTURES[name], seed=1) == SCENES[name][7:9]
    others = adapt_all(SEEDS[7:9], CULTURES[name], seed=2)
    assert all(other != scene for other, scene in zip(others, SCENES[name][7:9], strict=True))


@each_culture
def test_a_slot_is_filled_once_a_scene(name):
    culture = CULTURES[name]
    words = culture.lexicon.model_dump()
    for scene, seed in zip(SCENES[name], SEEDS, strict=True):
        filled = {change.slot: change.adapted for change in scene.changes}
        assert len(filled) == len(scene.changes)
        assert [filled["person1"], filled["person2"]] == [p.name for p in scene.people]
        assert fill_slots(seed.setting, lambda s, a, f=filled: f[f"{s}:{a}" if a else s]) == (
            scene.setting
        )
        assert all(text in words[slot] for slot, text in filled.items() if slot in words)


@each_culture
def test_a_scene_brings_its_cultures_customs_and_descriptors(name):
    culture = CULTURES[name]
    for scene in SCENES[name]:
        assert scene.customs == culture.customs_of(scene.domain) != []
        assert scene.descriptors == culture.descriptors()


def is_latin(name):
    return all(unicodedata.name(c).startswith("LATIN") for c in name if c.isalpha())


@each_culture
def test_the_two_people_have_different_latin_names(name):
    for scene in SCENES[name]:
        one, two = scene.people
        assert one.name != two.name
        assert one.address != two.address
        assert is_latin(one.name)
        assert is_latin(two.name)


@each_culture
def test_names_are_latin_and_hold_their_short_form(name):
    faker = Faker(CULTURES[name].locale)
    faker.seed_instance(1)
    drawn = [person_name(faker, CULTURES[name]) for _ in range(200)]
    assert all(is_latin(full) for full, _ in drawn)
    side = str.endswith if name == "chinese" else str.startswith
    assert all(side(full, short) and full != short for full, short in drawn)
    assert len(set(drawn)) > 150


def test_a_second_person_of_the_same_short_name_is_drawn_again(monkeypatch):
    drawn = iter([("Eva Voss", "Eva"), ("Eva Kern", "Eva"), ("Jan Voss", "Jan")])
    monkeypatch.setattr("clca_utils.adaptation.person_name", lambda *_: next(drawn))
    (scene,) = adapt_all(SEEDS[:1], CULTURES["german"], seed=1)
    assert [person.name for person in scene.people] == ["Eva Voss", "Jan Voss"]


def test_the_honorific_follows_the_family_name_in_japan():
    for scene in SCENES["japanese"]:
        for person in scene.people:
            family = person.name.split()[0]
            assert person.address == f"{family}-san"
            assert "-san" not in person.name
    assert not [p for s in SCENES["german"] for p in s.people if "-san" in p.address]


@pytest.mark.parametrize(
    ("name", "money", "date", "time"),
    [
        ("german", r"830 €", "21.9.", "19:15"),
        ("japanese", r"¥140,000", "9/21", "19:15"),
        ("british", r"£700", "21/09", "19:15"),
        ("mexican", r"MX\$16,000", "21/9", r"7:15 p\.m\."),
        ("chinese", r"CN¥6,500", "9/21", "19:15"),
    ],
)
def test_money_dates_and_times_are_written_as_there(name, money, date, time):
    culture = CULTURES[name]
    assert re.fullmatch(money, local_money(900, culture))
    assert local_date("09-21", culture) == date
    assert re.fullmatch(time, local_time("19:15", culture))


def test_the_unadapted_control_has_no_culture_in_it():
    place = {"id": "", "culture": ""}
    bare = [scene.model_copy(update=place) for scene in PLAIN]
    for culture in CULTURES.values():
        control = adapt_all(SEEDS, culture, seed=2, rewriter="none")
        assert [scene.model_copy(update=place) for scene in control] == bare
    said = " ".join(text for scene in PLAIN for text in texts(scene))
    assert not [c.country for c in CULTURES.values() if re.search(rf"\b{c.country}\b", said)]
    assert not set(said) & set("{}")
    for scene in PLAIN:
        assert scene.customs == scene.descriptors == []
        assert [(p.name, p.address) for p in scene.people] == [
            ("Person A", "Person A"),
            ("Person B", "Person B"),
        ]


def test_the_control_keeps_plain_numbers():
    changes = {change.slot: change.adapted for scene in PLAIN for change in scene.changes}
    assert changes["money:900"] == "900 dollars"
    assert changes["date:09-21"] == "09-21"
    assert changes["time:19:15"] == "19:15"
    assert changes["city"] == NEUTRAL["city"]


@each_culture
def test_no_city_of_another_culture_is_named(name):
    foreign = {
        city for other in CULTURES if other != name for city in CULTURES[other].lexicon.city
    } - set(CULTURES[name].lexicon.city)
    places = re.compile(rf"\b({'|'.join(map(re.escape, sorted(foreign)))})\b")
    said = [text for scene in SCENES[name] for p in scene.people for text in (p.goal, p.secret)] + [
        scene.setting for scene in SCENES[name]
    ]
    assert not [text for text in said if places.search(text)]
    own = re.compile("|".join(map(re.escape, CULTURES[name].lexicon.city)))
    assert any(own.search(text) for text in said)


@given(st.text())
def test_what_fills_a_slot_is_not_interpreted(filler):
    filled = fill_slots("at {city} for {money:3}.", lambda slot, argument: filler)
    assert filled == f"at {filler} for {filler}."


@given(st.text(st.characters(exclude_characters="{")))
def test_text_without_slots_stays(text):
    assert fill_slots(text, lambda slot, argument: "?") == text


def test_templates_in_a_lexicon_stay_text():
    odd = "{person1} {{ 7 * 7 }} {% x %} {0} %s \\1"
    lexicon = CULTURES["german"].lexicon.model_copy(update={"gift": [odd]})
    (scene,) = adapt_all(SEEDS[:1], CULTURES["german"].model_copy(update={"lexicon": lexicon}), 1)
    assert scene.setting.endswith(f"holding {odd}.")


@pytest.mark.parametrize("rewriter", ["lexicon", "none"])
@pytest.mark.parametrize("slot", ["colour", "money:much", "money", "date:13-45", "time:25:00"])
def test_a_slot_that_nothing_fills_is_named(slot, rewriter):
    seed = SEEDS[3].model_copy(update={"setting": f"A {{{slot}}} door."})
    with pytest.raises(StudyError) as error:
        adapt_all([seed], CULTURES["german"], seed=1, rewriter=rewriter)
    assert seed.id in str(error.value)
    assert f"{{{slot}}}" in str(error.value)


def test_scenarios_are_read_back_if_they_are_of_the_culture_asked_for(tmp_path):
    write_records(tmp_path / "scenarios.jsonl", SCENES["german"][:2])
    assert load_scenarios(tmp_path, "german") == SCENES["german"][:2]
    with pytest.raises(StudyError, match=r"scenarios\.jsonl, culture: found German, not Mexican"):
        load_scenarios(tmp_path, "mexican")
    with pytest.raises(StudyError, match=r"is missing: run 01_scenario_adaptation first"):
        load_scenarios(tmp_path / "none", "german")


def test_small_prices_keep_their_cents():
    assert local_money(0.55, CULTURES["german"]) == "0,51 €"


def test_names_of_the_culture_file_come_before_fakers():
    names = Names(given=["Minji", "Seoyeon"], family=["Kim", "Park"])
    korean = CULTURES["german"].model_copy(update={"names": names, "name_order": "family-first"})
    people = {p.name for scene in adapt_all(SEEDS, korean, seed=1) for p in scene.people}
    assert people == {"Kim Minji", "Kim Seoyeon", "Park Minji", "Park Seoyeon"}


def test_each_slots_filler_is_asked_with_its_argument():
    asked = []

    def fill(slot, argument):
        asked.append((slot, argument))
        return slot

    adapt(SEEDS[0], CULTURES["german"], fill, "lexicon")
    assert ("time", "19:15") in asked
    assert ("dish", "") in asked


SCENE, OTHER = SCENES["german"][:2]


def long_setting(scene, words=30):
    names = " and ".join(person.name for person in scene.people)
    return f"{names} meet {'again ' * (words - len(names.split()) - 1)}".strip()


def reply(scene, words=30):
    """Return a good answer as a model writes it between the prefilled and the stopping brace."""
    return f'"setting": {json.dumps(long_setting(scene, words))}'


NOT_JSON = "it is not JSON with the one key 'setting'"
NOT_TEXT = "the setting is not 20 to 120 words of text"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("Certainly! Here it is.", NOT_JSON),
        ('["setting"]', NOT_JSON),
        ('{"scene": "x"}', NOT_JSON),
        ('{"setting": 3}', NOT_TEXT),
        ("{" + reply(SCENE, 19) + "}", NOT_TEXT),
        ("{" + reply(SCENE, 20) + "}", ""),
        ("{" + reply(SCENE, 120) + "}", ""),
        ("{" + reply(SCENE, 121) + "}", NOT_TEXT),
        ("{" + reply(OTHER) + "}", f"the name {SCENE.person1.name} is missing"),
    ],
)
def test_a_rewritten_settings_problem_is_said(answer, problem):
    assert rewrite_problem(answer, SCENE) == problem


def test_an_accepted_setting_replaces_the_old_one_and_nothing_else():
    model = ScriptedModel([reply(SCENE), reply(OTHER)])
    rewritten, refused = rewrite_settings([SCENE, OTHER], model, seed=1)
    assert refused == {}
    assert [one.setting for one in rewritten] == [long_setting(SCENE), long_setting(OTHER)]
    kept = rewritten[0].model_copy(update={"setting": SCENE.setting, "changes": SCENE.changes})
    assert kept == SCENE
    change = rewritten[0].changes[-1]
    assert (change.slot, change.adapted) == ("setting", long_setting(SCENE))
    request, start = model.seen[0][1:]
    assert SCENE.setting in request["content"]
    assert SCENE.customs[0] in request["content"]
    assert "refused" not in request["content"]
    assert start == {"role": "assistant", "content": "{"}


def test_a_refused_setting_is_asked_for_again_with_the_reason():
    model = ScriptedModel(['"setting": "short"', reply(OTHER), reply(SCENE)])
    rewritten, refused = rewrite_settings([SCENE, OTHER], model, seed=1)
    assert refused == {}
    assert [one.id for one in rewritten] == [SCENE.id, OTHER.id]
    assert len(model.seen) == 3
    again = model.seen[2][1]["content"]
    assert SCENE.setting in again
    assert f"refused: {NOT_TEXT}." in again


def test_a_scene_refused_every_time_is_dropped_with_its_last_reason():
    model = ScriptedModel(["no", reply(OTHER), '"setting": "short"'])
    rewritten, refused = rewrite_settings([SCENE, OTHER], model, seed=1, attempts=2)
    assert [one.id for one in rewritten] == [OTHER.id]
    assert refused == {SCENE.id: NOT_TEXT}
    assert model.replies == []
