"""Cultures: what ships speaks of many and never of all, and a slip in a file is named."""

import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all
from clca_utils.culture import FOLDER, PHRASES, Hofstede, InglehartWelzel, load_culture
from clca_utils.files import DATA, StudyError, read_yaml
from clca_utils.scenario import load_seeds

SHIPPED = [
    *("american", "brazilian", "british", "chinese", "german"),
    *("indian", "japanese", "korean", "mexican", "turkish"),
]
ITALIAN = Path(__file__).parent / "data" / "italian.yaml"
CULTURES = {name: load_culture(name) for name in [*SHIPPED, str(ITALIAN)]}
GERMAN = CULTURES["german"]
DOMAINS = {seed.domain for seed in load_seeds()}

each_culture = pytest.mark.parametrize("culture", CULTURES.values(), ids=lambda c: c.name)


def test_the_ten_cultures_of_the_study_ship():
    assert sorted(file.stem for file in FOLDER.glob("*.yaml")) == SHIPPED
    codes = "USA BRA GBR CHN DEU IND JPN KOR MEX TUR"
    assert [CULTURES[name].iso3 for name in SHIPPED] == codes.split()


@each_culture
def test_hofstede_scores_are_those_of_the_shipped_table(culture):
    row = pd.read_csv(DATA / "hofstede_2015.csv").set_index("iso3").loc[culture.iso3]
    scores = row.drop("country").astype(object)
    assert dict(culture.hofstede) == scores.where(scores.notna(), None).to_dict()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_customs_cover_every_domain_twice(name):
    domains = Counter(custom.domain for custom in CULTURES[name].customs)
    assert domains == dict.fromkeys(DOMAINS, 2)


@each_culture
def test_customs_cover_the_domains_and_say_many_or_often(culture):
    assert {custom.domain for custom in culture.customs} == DOMAINS
    hedge = r"\b(many|most|some|often|common(ly)?|usual(ly)?|tends?|may)\b"
    for custom in culture.customs:
        assert re.search(hedge, custom.text, re.IGNORECASE), custom.text
        assert not re.search(r"\b(all|every|the) \w+s are\b", custom.text), custom.text


@each_culture
def test_texts_hold_nothing_that_looks_like_a_slot(culture):
    texts = [custom.text for custom in culture.customs]
    texts += [filler for _, fillers in culture.lexicon for filler in fillers]
    assert not [text for text in texts if set(text) & set("{}\n")]
    assert all(len(set(fillers)) == len(fillers) for _, fillers in culture.lexicon)


def test_customs_of_a_domain_are_its_own():
    work = GERMAN.customs_of("work")
    assert len(work) == 2
    assert set(work) == {custom.text for custom in GERMAN.customs if custom.domain == "work"}
    assert GERMAN.customs_of("astronomy") == []


def _said(hofstede=None, **axes):
    """Return what is said of these scores alone."""
    position = InglehartWelzel(
        zone="z", year=2020, **({"secular_rational": 0, "self_expression": 0} | axes)
    )
    update = {"hofstede": Hofstede(**(hofstede or {})), "inglehart_welzel": position}
    return GERMAN.model_copy(update=update).descriptors()


@pytest.mark.parametrize("dimension", Hofstede.model_fields)
@pytest.mark.parametrize(
    ("score", "side"), [(0, 0), (40, 0), (40.1, None), (50, None), (59.9, None), (60, 1), (108, 1)]
)
def test_hofstede_scores_speak_up_to_40_and_from_60(dimension, score, side):
    sentences = [] if side is None else [f"Many people in Germany {PHRASES[dimension][side]}."]
    assert _said({dimension: score}) == sentences


@pytest.mark.parametrize("axis", ["secular_rational", "self_expression"])
@pytest.mark.parametrize(("score", "side"), [(-0.51, 0), (-0.49, None), (0.49, None), (0.51, 1)])
def test_map_positions_speak_beyond_half_a_deviation(axis, score, side):
    sentences = [] if side is None else [f"Many people in Germany {PHRASES[axis][side]}."]
    assert _said(**{axis: score}) == sentences


SCORES = st.fixed_dictionaries(
    {}, optional={name: st.integers(0, 120) | st.none() for name in Hofstede.model_fields}
)


@given(SCORES)
def test_a_dimension_that_was_not_measured_says_nothing(scores):
    telling = [
        name
        for name in Hofstede.model_fields
        if scores.get(name) is not None and abs(scores[name] - 50) >= 10
    ]
    for sentence, name in zip(_said(scores), telling, strict=True):
        assert sentence.removeprefix("Many people in Germany ")[:-1] in PHRASES[name]


def test_nothing_measured_says_nothing():
    unmeasured = GERMAN.model_copy(update={"hofstede": Hofstede(), "inglehart_welzel": None})
    assert unmeasured.descriptors() == []


def test_a_culture_that_does_not_ship_adapts_every_seed():
    italian = load_culture(str(ITALIAN))
    scenes = adapt_all(load_seeds(), italian, seed=1)
    assert len(scenes) == len(load_seeds())
    assert {scene.country for scene in scenes} == {"Italy"}
    assert all(scene.customs == italian.customs_of(scene.domain) for scene in scenes)
    assert all(scene.descriptors == italian.descriptors() != [] for scene in scenes)


def test_a_custom_in_no_domain_of_life_is_told(tmp_path):
    custom = {"domain": "mony", "text": "Many people do something there."}
    with pytest.raises(StudyError, match=r"customs\.0\.domain: did you mean 'money'\?"):
        load_culture(_written(tmp_path, customs=[custom]))


def test_all_faults_of_a_file_are_told(tmp_path):
    with pytest.raises(StudyError) as error:
        load_culture(_written(tmp_path, currency="absent", locale="xx_XX", money="yes"))
    assert len(str(error.value).splitlines()) == 3
    assert "mine.yaml, currency: the key is missing, add it; mend" in str(error.value)


def test_a_locale_without_names_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"mine\.yaml, locale: .*Faker has no such locale"):
        load_culture(_written(tmp_path, locale="xx_XX"))


def test_a_locale_of_no_country_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"mine\.yaml, locale: .*should name a country too"):
        load_culture(_written(tmp_path, locale="es"))


def _written(tmp_path, **changes):
    content = {k: v for k, v in (read_yaml(ITALIAN) | changes).items() if v != "absent"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"currency": "absent"}, "currency: the key is missing, add it"),
        ({"colour": "green"}, "colour: there is no such key"),
        ({"hofstede": {"masculinty": 70}}, "hofstede.masculinty: there is no such key"),
        ({"hofstede": {"masculinity": "high"}}, "hofstede.masculinity: "),
        ({"iso3": "IT"}, "iso3: "),
        ({"locale": "it-IT"}, "locale: "),
        ({"name_order": "reversed"}, "name_order: "),
        ({"units_per_dollar": 0}, "units_per_dollar: "),
        ({"lexicon": {"city": []}}, "lexicon.city: "),
        ({"customs": [{"domain": "food", "text": "short"}]}, "customs.0.text: "),
    ],
)
def test_a_wrong_field_is_named(tmp_path, changes, told):
    path = _written(tmp_path, **changes)
    with pytest.raises(StudyError) as error:
        load_culture(path)
    assert str(error.value).startswith(f"{path}, {told}")


def test_an_empty_score_is_read_as_not_measured(tmp_path):
    path = _written(tmp_path, hofstede={"indulgence": None}, inglehart_welzel="absent")
    assert load_culture(path).descriptors() == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("japanes", "no culture 'japanes' in params/cultures; did you mean 'japanese'?"),
        ("German", "did you mean 'german'?"),
        ("xyz", f"known are {', '.join(SHIPPED)}."),
        ("params/cultures/germn.yaml", "The culture file params/cultures/germn.yaml does not"),
    ],
)
def test_an_unknown_name_is_told(name, told):
    with pytest.raises(StudyError) as error:
        load_culture(name)
    assert told in str(error.value)
