"""Statistics of conversations: each is what its name says, and stands beside the paper's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils import diversity
from clca_utils.diversity import beside_paper, dialogue_statistics, distinct, self_similarity
from clca_utils.judging import Judgement


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    """Embed a text by its letters: what is measured here needs no model."""

    def embed(texts):
        rows = np.array([[text.count(x) + 0.01 for x in "abcdefghijklmnop"] for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(diversity, "embed", embed)


@pytest.mark.parametrize(
    ("texts", "n", "share"),
    [
        (["a b c"], 1, 1.0),
        (["a a", "A b"], 1, 0.5),
        (["a b a b"], 2, 2 / 3),
        (["a b", "b a"], 2, 1.0),
        (["a b", "a, b!"], 2, 0.5),
    ],
)
def test_distinct(texts, n, share):
    assert distinct(texts, n) == pytest.approx(share)


WORDS = st.lists(st.text("ab ", max_size=12), max_size=5)


@given(WORDS, st.integers(1, 3))
def test_distinct_is_a_share_and_halves_when_all_is_said_twice(texts, n):
    share = distinct(texts, n)
    if math.isnan(share):
        assert all(len(text.split()) < n for text in texts)
    else:
        assert 0 < share <= 1
        assert distinct(texts * 2, n) == pytest.approx(share / 2)


def test_self_similarity_is_the_mean_over_pairs():
    texts = ["aab", "abc", "ppp"]
    rows = diversity.embed(texts)
    pairs = [float(rows[i] @ rows[j]) for i in range(3) for j in range(3) if i != j]
    assert self_similarity(texts) == pytest.approx(np.mean(pairs))
    assert self_similarity(["abc"] * 3) == pytest.approx(1)
    assert math.isnan(self_similarity(["abc"]))


def test_dialogue_statistics(dialogue, intents):
    judgements = [
        Judgement(dialogue_id=str(i), verdicts=[], kept=i == 0, reason="") for i in range(4)
    ]
    assert dialogue_statistics([dialogue] * 2, intents, judgements) == pytest.approx(
        {
            "conversations": 2,
            "turns": 4,
            "words_per_turn": 3,
            "distinct_1": 12 / 24,
            "distinct_2": 9 / 18,
            "self_similarity": 1,
            "share_none": 0,
            "share_non-verbal": 0.25,
            "share_speak": 0.5,
            "share_leave": 0.25,
            "cultural": 0.25,
            "kept": 0.25,
        }
    )
    few = dialogue_statistics([dialogue])
    assert not {"cultural", "kept"} & set(few)
    assert math.isnan(few["self_similarity"])


def test_ours_stand_beside_the_papers(dialogue, intents):
    table = beside_paper(dialogue_statistics([dialogue], intents))
    assert list(table.index) == ["conversations", "turns", "words_per_turn", "cultural"]
    assert table.loc["turns", ["ours", "paper_low", "paper_high"]].tolist() == [4, 5.4, 7.0]
    assert (table["paper_low"] <= table["paper_high"]).all()
    assert table["source"].str.contains("arXiv 2504.02953").all()
    assert "kept" in beside_paper({"kept": 0.5}).index
