"""Seed scenarios: what ships is whole, and a draw is balanced and grows without changing."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer

from clca_utils.adaptation import NEUTRAL, SLOT
from clca_utils.files import StudyError
from clca_utils.items import load_items
from clca_utils.scenario import SeedScenario, draw_seeds, load_seeds
from clca_utils.scenario_checks import FUNCTION_WORDS, words

SEEDS = load_seeds()
SLOTS = {*NEUTRAL, "money", "date", "time"}


def test_there_are_enough_seeds_over_enough_domains():
    assert len(SEEDS) >= 120
    assert len({seed.id for seed in SEEDS}) == len(SEEDS)
    sizes = Counter(seed.domain for seed in SEEDS)
    assert len(sizes) >= 12
    assert min(sizes.values()) >= 8
    assert all(seed.id.rpartition("-")[0] == seed.domain for seed in SEEDS)


def test_some_seeds_of_every_domain_are_held_out():
    held_out = load_seeds("held-out")
    assert len(held_out) == 27
    assert {one.split for one in held_out} == {"held-out"}
    assert {one.domain for one in held_out} == {one.domain for one in SEEDS}
    assert [one for one in SEEDS if one not in held_out] == load_seeds("learn")
    assert load_seeds("all") == SEEDS


def test_power_is_spread():
    sizes = Counter(seed.power for seed in SEEDS)
    assert set(sizes) == {"equal", "person1", "person2"}
    assert min(sizes.values()) >= len(SEEDS) // 6


def all_texts(seed):
    """Return all texts of a seed, its slots as they are."""
    return [seed.setting, *seed.person1.model_dump().values(), *seed.person2.model_dump().values()]


def runs(seed, size=4):
    """Return the runs of content words in any text of the seed, slots left out."""
    texts = [words(SLOT.sub(" ", text).lower()) for text in all_texts(seed)]
    kept = [[word for word in text if word not in FUNCTION_WORDS] for text in texts]
    return {tuple(text[i : i + size]) for text in kept for i in range(len(text) - size + 1)}


def test_no_two_seeds_share_a_run_of_four_content_words():
    owners = {}
    for seed in SEEDS:
        for run in runs(seed):
            owners.setdefault(run, set()).add(seed.id)
    assert {run: who for run, who in owners.items() if len(who) > 1} == {}


@pytest.mark.parametrize(("part", "bound"), [("settings", 0.4), ("goals", 0.6), ("texts", 0.6)])
def test_no_two_seeds_are_near_duplicates(part, bound):
    told = {
        "settings": lambda seed: [seed.setting],
        "goals": lambda seed: [seed.person1.goal, seed.person2.goal],
        "texts": all_texts,
    }[part]
    texts = [SLOT.sub(" ", " ".join(told(seed))) for seed in SEEDS]
    weights = TfidfVectorizer(stop_words="english").fit_transform(texts)
    alike = (weights @ weights.T).toarray() - np.eye(len(SEEDS))
    one, other = np.unravel_index(alike.argmax(), alike.shape)
    assert alike.max() < bound, (alike.max(), SEEDS[one].id, SEEDS[other].id)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.id)
def test_a_seed_is_whole(seed):
    roles = [seed.person1.model_dump(), seed.person2.model_dump()]
    texts = all_texts(seed)
    assert all(text.strip() == text != "" for text in texts)
    assert len({role[key] for role in roles for key in ("goal", "secret")}) == 4
    assert {slot for text in texts for slot, _ in SLOT.findall(text)} <= SLOTS
    assert not any(brace in SLOT.sub("", text) for text in texts for brace in "{}")
    assert "{person1}" in seed.setting
    assert "{person2}" in seed.setting
    assert seed.items
    assert set(seed.items) <= {item.qid for item in load_items()}


def test_a_misspelt_field_is_refused():
    row = SEEDS[0].model_dump()
    with pytest.raises(ValidationError, match="settings"):
        SeedScenario.model_validate(row | {"settings": row["setting"]})


@pytest.mark.parametrize(("field", "value"), [("power", "both"), ("split", "test")])
def test_an_unknown_power_or_split_is_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        SeedScenario.model_validate(SEEDS[0].model_dump() | {field: value})


@pytest.mark.parametrize("split", ["learn", "held-out", "all"])
def test_a_draw_from_a_split_covers_its_domains(split):
    seeds = load_seeds(split)
    domains = len({one.domain for one in SEEDS})
    drawn = draw_seeds(seeds, domains, seed=1)
    assert {one.domain for one in drawn} == {one.domain for one in SEEDS}
    assert split == "all" or {one.split for one in drawn} == {split}


@given(st.integers(0, len(SEEDS)), st.integers(0, len(SEEDS)), st.integers())
def test_a_draw_is_balanced_repeatable_and_extends_a_smaller_one(count, fewer, seed):
    drawn = draw_seeds(SEEDS, count, seed)
    assert len({one.id for one in drawn}) == count
    sizes = Counter(one.domain for one in drawn)
    in_domains = [sizes[domain] for domain in {one.domain for one in SEEDS}]
    assert max(in_domains) - min(in_domains) <= 1
    assert draw_seeds(SEEDS, count, seed) == drawn
    fewer = min(fewer, count)
    assert draw_seeds(SEEDS, fewer, seed) == drawn[:fewer]


def test_seeds_draw_different_samples():
    assert len({draw_seeds(SEEDS, 4, seed)[0].id for seed in range(20)}) > 5


def test_a_small_domain_runs_dry_and_the_others_fill_up():
    few = [one for one in SEEDS if one.domain == "work"] + [
        next(one for one in SEEDS if one.domain == "help")
    ]
    drawn = draw_seeds(few, len(few), 1)
    assert "help" in {one.domain for one in drawn[:2]}
    assert Counter(one.id for one in drawn) == Counter(one.id for one in few)


def test_more_than_there_are_is_told():
    with pytest.raises(StudyError, match="n_scenarios is 3, but there are 2 seed"):
        draw_seeds(SEEDS[:2], 3, 1)
