"""Seed scenarios: what ships is whole, and a draw is balanced and grows without changing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clca_utils.adaptation import NEUTRAL, SLOT
from clca_utils.files import StudyError
from clca_utils.items import load_items
from clca_utils.scenario import SeedScenario, draw_seeds, load_seeds

SEEDS = load_seeds()
SLOTS = {*NEUTRAL, "money", "date", "time"}


def test_there_are_enough_seeds_over_twelve_domains():
    assert len(SEEDS) >= 24
    assert len({seed.id for seed in SEEDS}) == len(SEEDS)
    sizes = Counter(seed.domain for seed in SEEDS)
    assert len(sizes) == 12
    assert len(set(sizes.values())) == 1


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.id)
def test_a_seed_is_whole(seed):
    roles = [seed.person1.model_dump(), seed.person2.model_dump()]
    texts = [seed.setting, *roles[0].values(), *roles[1].values()]
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
