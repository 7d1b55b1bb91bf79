"""Adaptation: every slot is filled from one culture, and the same seed fills them alike."""

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
    possible_names,
)
from clca_utils.culture import FOLDER, Names, load_culture
from clca_utils.files import StudyError, write_records
from clca_utils.scenario import load_seeds

SEEDS = load_seeds()
CULTURES = {file.stem: load_culture(file.stem) for file in sorted(FOLDER.glob("*.yaml"))}
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
    side = str.endswith if name in ("chinese", "korean") else str.startswith
    assert all(side(full, short) and full != short for full, short in drawn)
    assert len(set(drawn)) > 150
    assert not [full for full, _ in drawn if "  " in full]


@each_culture
def test_a_drawn_name_is_one_of_the_possible_names(name):
    known = {" ".join(one.split()) for one in possible_names(CULTURES[name])}
    faker = Faker(CULTURES[name].locale)
    faker.seed_instance(2)
    for _ in range(200):
        full, short = person_name(faker, CULTURES[name])
        assert short in known
        is_first = full.startswith(f"{short} ")
        rest = full.removeprefix(f"{short} ") if is_first else full.removesuffix(f" {short}")
        assert rest in known


def test_a_locale_without_names_of_its_own_has_those_that_faker_gives_it():
    australian = CULTURES["american"].model_copy(update={"locale": "en_AU"})
    assert possible_names(australian) == possible_names(CULTURES["american"])


def test_spaces_in_a_name_are_single():
    names = Names(given=["Alta  Gracia", " Ana"], family=["de  la Cruz", "Paz "])
    mexican = CULTURES["mexican"].model_copy(update={"names": names})
    people = [p for scene in adapt_all(SEEDS[:20], mexican, seed=1) for p in scene.people]
    assert {p.name for p in people} == {
        f"{given} {family}" for given in ("Alta Gracia", "Ana") for family in ("de la Cruz", "Paz")
    }
    assert {p.address for p in people} == {"Alta Gracia", "Ana"}


def test_a_second_person_of_the_same_short_name_is_drawn_again(monkeypatch):
    drawn = iter([("Eva Voss", "Eva"), ("Eva Kern", "Eva"), ("Jan Voss", "Jan")])
    monkeypatch.setattr("clca_utils.adaptation.person_name", lambda *_: next(drawn))
    (scene,) = adapt_all(SEEDS[:1], CULTURES["german"], seed=1)
    assert [person.name for person in scene.people] == ["Eva Voss", "Jan Voss"]


def test_the_honorific_follows_the_name_that_is_called():
    for scene in SCENES["korean"]:
        for person in scene.people:
            assert person.address == f"{person.name.split()[1]}-ssi"
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
        ("american", r"\$900", "9/21", "7:15 PM"),
        ("brazilian", r"R\$ 4\.900", "21/09", "19:15"),
        ("indian", r"₹75,000", "21/9", "7:15 pm"),
        ("korean", r"₩1,200,000", "9. 21.", "PM 7:15"),
        ("turkish", r"₺30\.000", "21/9", "19:15"),
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


def test_a_currency_without_a_symbol_anywhere_has_its_code():
    swiss = CULTURES["german"].model_copy(update={"currency": "CHF", "locale": "de_CH"})
    assert local_money(100, swiss) == "CHF 92"


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
