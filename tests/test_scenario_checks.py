"""Checks of scenarios: what the lexicon makes passes, and each kind of planted fault is found."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all, possible_names
from clca_utils.culture import FOLDER, load_culture
from clca_utils.scenario import load_seeds
from clca_utils.scenario_checks import (
    BOUNDS,
    FUNCTION_WORDS,
    check_scenario,
    foreign_words,
    others_than,
    plain_words,
    scenario_problems,
    secret_problems,
    texts_of,
    words,
)

SEEDS = load_seeds()
CULTURES = [load_culture(file.stem) for file in sorted(FOLDER.glob("*.yaml"))]
HOME = {culture.name: culture for culture in CULTURES}
OTHERS = {culture.name: others_than(culture, CULTURES) for culture in CULTURES}
SCENES = adapt_all(SEEDS, HOME["German"], seed=1)
SCENE = SCENES[0]

each_culture = pytest.mark.parametrize("culture", CULTURES, ids=lambda one: one.name)


def changed(scene, **texts):
    """Return the scene with other texts, by keys as in `texts_of`."""
    updates = {"setting": texts.pop("setting", scene.setting)}
    for number, person in enumerate(scene.people, start=1):
        own = {key[:-1]: text for key, text in texts.items() if key.endswith(str(number))}
        updates[f"person{number}"] = person.model_copy(update=own)
    return scene.model_copy(update=updates)


def told(scene, before=SCENE):
    return scenario_problems(scene, OTHERS["German"], before)


@each_culture
def test_every_lexicon_adaptation_passes(culture):
    scenes = adapt_all(SEEDS, culture, seed=1)
    found = {one.id: scenario_problems(one, OTHERS[culture.name]) for one in scenes}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert len(found) == len(SEEDS) >= 120


def test_the_unadapted_control_passes_as_being_of_no_culture():
    others = others_than(None, CULTURES)
    control = adapt_all(SEEDS, HOME["German"], seed=1, rewriter="none")
    assert not [wrong for one in control for wrong in scenario_problems(one, others)]
    assert any("of Germany" in wrong for wrong in scenario_problems(SCENE, others))


@pytest.mark.parametrize(
    ("home", "text", "found"),
    [
        ("German", "They met in Kyoto.", {"Kyoto": "a city of Japan"}),
        ("German", "Kyoto's streets", {"Kyoto": "a city of Japan"}),
        ("German", "in Mexico City", {"Mexico City": "a city of Mexico",
                                      "Mexico": "a place of Mexico"}),
        ("Japanese", "in Xi'an", {"Xi'an": "a city of China"}),
        ("German", "until Thanksgiving", {"Thanksgiving": "a festival of the United States"}),
        ("Indian", "on Father's Day", {"Father's Day": "a festival of the United States"}),
        ("German", "She brought börek.", {"börek": "a local word of Turkey"}),
        ("German", "Börek again", {"Börek": "a local word of Turkey"}),
        ("Japanese", "Klaus waves.", {"Klaus": "a name of Germany"}),
        ("German", "Tanaka-san waves.", {"Tanaka": "a name of Japan"}),
        ("German", "It costs £5.", {"£": "money of Great Britain"}),
        ("German", "It costs 5 pounds.", {"pounds": "money of Great Britain"}),
        ("German", "It costs 5 USD.", {"USD": "money of the United States"}),
        ("German", "It costs MX$5.", {"MX$": "money of Mexico"}),
        ("Chinese", "It costs ₩5,000.", {"₩": "money of South Korea"}),
        ("Turkish", "a dollar", {"dollar": "money of the United States"}),
    ],
)  # fmt: skip
def test_what_is_of_another_culture_is_found(home, text, found):
    assert foreign_words(text, OTHERS[home]) == found


@pytest.mark.parametrize(
    ("home", "text"),
    [
        ("German", "On Christmas Eve they paid 5 € in Berlin, in euros."),
        ("Mexican", "On Christmas Eve they paid $5 in Mexico City."),
        ("Japanese", "Tanaka-san paid ¥500 at the hundred-yen shop."),
        ("Chinese", "He won a real song; Li paid CN¥5 on the long way in May."),
        ("Korean", "He won the race and paid ₩5,000 won."),
        ("Turkish", "The baker and the cook hope for a summer house on the hill."),
    ],
)
def test_what_is_at_home_or_plain_english_is_not_found(home, text):
    assert foreign_words(text, OTHERS[home]) == {}


def is_at_home(term, culture):
    """Tell whether a culture's file or names have a term."""
    said = [*dict(culture.lexicon).values(), *culture.customs, possible_names(culture)]
    return bool(re.search(rf"\b{re.escape(term)}\b", str(said), re.IGNORECASE))


@given(st.sampled_from([*HOME]), st.sampled_from([*HOME]), st.data())
def test_a_planted_city_or_festival_is_found_unless_it_is_at_home(home, other, data):
    lexicon = HOME[other].lexicon
    planted = data.draw(st.sampled_from([*lexicon.city, *lexicon.festival]))
    term = planted.split(" (")[0].removeprefix("the ")
    found = foreign_words(f"It was near {planted}, they said.", OTHERS[home])
    assert (term in found) == (not is_at_home(term, HOME[home]))


@given(st.sampled_from([*HOME]), st.data())
def test_no_filler_of_the_own_lexicon_is_foreign(home, data):
    fillers = data.draw(st.sampled_from([fillers for _, fillers in HOME[home].lexicon]))
    assert foreign_words(data.draw(st.sampled_from(fillers)), OTHERS[home]) == {}


@given(st.text())
def test_what_is_found_stands_in_the_text(text):
    assert all(found in text for found in foreign_words(text, OTHERS["German"]))


def test_a_culture_is_other_than_itself_whether_it_is_among_the_others_or_not():
    away = [culture for culture in CULTURES if culture.name != "German"]
    assert others_than(HOME["German"], away).symbols == OTHERS["German"].symbols
    assert OTHERS["German"].terms.keys() <= others_than(HOME["German"], away).terms.keys()
    assert others_than(HOME["German"], [HOME["German"]]) == ({}, {})


def test_a_filler_without_a_word_gives_nothing_away():
    lexicon = HOME["Turkish"].lexicon.model_copy(update={"city": ["...", ""]})
    odd = HOME["Turkish"].model_copy(update={"lexicon": lexicon})
    assert foreign_words("... and so on ...", others_than(HOME["German"], [odd])) == {}


def test_plain_words_are_small_and_grow_with_the_cultures():
    assert plain_words() < plain_words(CULTURES)
    assert all(word.islower() for word in plain_words(CULTURES))
    assert plain_words() > FUNCTION_WORDS


@pytest.mark.parametrize("key", texts_of(SCENE))
def test_a_fault_is_told_of_every_text(key):
    text = f"{texts_of(SCENE)[key]} Kyoto"
    assert "Kyoto" not in str(told(SCENE))
    assert f"{key} has 'Kyoto', a city of Japan" in told(changed(SCENE, **{key: text}))


GOAL1, GOAL2 = SCENE.person1.goal, SCENE.person2.goal
ONE, TWO = (person.name for person in SCENE.people)


@pytest.mark.parametrize(
    ("goals", "problem"),
    [
        ({"goal1": GOAL1.replace(TWO, "the other one")}, f"goal1 no longer names {TWO}"),
        ({"goal1": f"Go for a walk with {TWO} in the park."}, "goal1 keeps too few words of"),
        ({"goal2": f"Stay with {ONE} without haste."}, "goal2 keeps too few words of"),
        ({"goal1": f"Never persuade {TWO} to sit down for a meal and stay for the evening."},
         "goal1 gained or lost a 'not'"),
        ({"goal2": f"Thank {ONE} and leave within ten minutes while giving offence."},
         "goal2 gained or lost a 'not'"),
        ({"goal1": f"{GOAL1} {GOAL2}"},
         "goal1 and goal2 no longer oppose each other"),
        ({"goal1": GOAL2, "goal2": GOAL1}, "goal1 keeps too few words of"),
        ({"goal1": f"Persuade {TWO} to sit down and leave within minutes, not giving offence."},
         "goal1 is what the other person wants"),
    ],
)  # fmt: skip
def test_goals_that_may_no_longer_be_opposed_are_told(goals, problem):
    assert any(wrong.startswith(problem) for wrong in told(changed(SCENE, **goals)))


def test_the_same_goal_for_both_is_told_wherever_it_comes_from():
    same = changed(SCENE, goal1="Keep the old house.", goal2="Keep the old house.")
    assert "goal1 and goal2 are the same" in told(same, before=same)
    assert "goal1 and goal2 are the same" in told(same)


def test_a_goal_told_in_slightly_other_words_passes():
    assert told(
        changed(
            SCENE,
            goal1=GOAL1.replace("Persuade", "Talk gently and persuade").replace("sit", "sit right"),
            goal2=GOAL2.replace("Thank", "Say thanks to").replace("leave", "be leaving"),
        )
    ) == []  # fmt: skip


def test_swapped_goals_are_told_for_every_scene():
    for scene in SCENES:
        swapped = changed(scene, goal1=scene.person2.goal, goal2=scene.person1.goal)
        assert told(swapped, before=scene), scene.id


def content_words(text, scene):
    for filler in sorted((change.adapted for change in scene.changes), key=len, reverse=True):
        text = text.replace(filler, " ")
    return [word for word in words(text.lower()) if word not in FUNCTION_WORDS]


@given(st.sampled_from(SCENES), st.sampled_from([1, 2]), st.data())
def test_a_secret_that_any_other_text_tells_is_found(scene, number, data):
    texts = texts_of(scene)
    place = data.draw(st.sampled_from([key for key in texts if key != f"secret{number}"]))
    leak = changed(scene, **{place: f"{texts[place]} {texts[f'secret{number}']}"})
    is_told = f"{place} tells secret{number}" in secret_problems(leak, scene)
    assert is_told == (len(content_words(texts[f"secret{number}"], scene)) >= 3)


def test_nearly_every_secret_is_long_enough_to_be_watched():
    lengths = [
        len(content_words(person.secret, scene)) for scene in SCENES for person in scene.people
    ]
    assert sum(length < 3 for length in lengths) <= 1


SECRET = "Lost the blue bicycle of the mayor in a flooded cellar."


@pytest.mark.parametrize(
    ("setting", "is_told"),
    [
        ("They know of the lost blue bicycle, the mayor's.", True),
        ("They know of losing a BLUE bicycle of some mayors.", False),
        ("They know of the lost blue bicycle of another mayor, flooded in tears.", True),
        ("They know of the lost blue bicycle.", False),
        ("They know of the mayor, a bicycle, the blue sky and a lost cellar.", False),
    ],
)
def test_four_content_words_in_their_order_tell_a_secret(setting, is_told):
    scene = changed(SCENE, secret1=SECRET, setting=f"{SCENE.setting} {setting}")
    assert ("setting tells secret1" in secret_problems(scene, SCENE)) == is_told


def test_a_secret_that_was_exchanged_stays_private_too():
    told_before = changed(SCENE, secret1=SECRET)
    moved = changed(SCENE, setting=f"{SCENE.setting} {SECRET}", secret1="Has quite another worry.")
    assert secret_problems(moved, told_before) == ["setting tells secret1"]
    assert secret_problems(moved, SCENE) == []


def test_a_filler_in_two_places_tells_nothing():
    dish = next(one.adapted for one in SCENE.changes if one.slot == "dish")
    assert len(words(dish)) >= 4
    scene = changed(SCENE, secret1=f"Likes {dish}.", setting=f"{SCENE.setting} Here is {dish}.")
    assert secret_problems(scene, SCENE) == []


@pytest.mark.parametrize("key", texts_of(SCENE))
def test_a_text_has_a_usual_length(key):
    fewest, most = BOUNDS[key.rstrip("12")]
    for count, is_told in ((fewest - 1, True), (fewest, False), (most, False), (most + 1, True)):
        wrong = told(changed(SCENE, **{key: "word " * count}))
        assert (f"{key} has {count} words, not {fewest} to {most}" in wrong) == is_told


def test_the_bounds_leave_a_margin_around_the_seeds():
    lengths = {key: [] for key in BOUNDS}
    for culture in CULTURES[:3]:
        for scene in adapt_all(SEEDS, culture, seed=2):
            for key, text in texts_of(scene).items():
                lengths[key.rstrip("12")].append(len(text.split()))
    for key, (fewest, most) in BOUNDS.items():
        assert fewest < min(lengths[key])
        assert max(lengths[key]) < most


def test_both_people_are_in_the_setting():
    scene = changed(SCENE, setting=SCENE.setting.replace(TWO, "the other one"))
    assert told(scene) == [f"setting does not name {TWO}"]


def test_the_problems_are_those_of_all_checks():
    scene = changed(SCENE, setting=f"Kyoto. {SCENE.person1.secret}")
    found = check_scenario(scene, OTHERS["German"], SCENE)
    assert [name for name, wrong in found.items() if wrong] == [
        "nothing of another culture", "secrets private", "lengths usual", "both people named",
    ]  # fmt: skip
    assert told(scene) == [wrong for some in found.values() for wrong in some]
