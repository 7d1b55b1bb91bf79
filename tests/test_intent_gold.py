"""Agreement with the gold: a perfect annotator, a useless one, and what can't be measured."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from clca_utils import intent_gold
from clca_utils.authored import load_authored
from clca_utils.intent_gold import (
    agreement_table,
    intent_agreement,
    load_gold,
    verdict,
)


@pytest.fixture
def words(monkeypatch):
    """Embed a text by its words, hashed: no model is needed to see what is paired with what."""

    def embed(texts):
        rows = np.full((len(texts), 512), 1e-6)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[int.from_bytes(word.encode(), "big") % 509] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(intent_gold, "embed", embed)


def test_gold_is_of_held_out_scenarios_only():
    gold = load_gold("japanese", 2)
    assert len(gold.dialogues) == len(gold.scenarios) == 2
    assert {one.split for one in gold.scenarios} == {"held-out"}
    turns = [(one.id, turn.index) for one in gold.dialogues for turn in one.turns]
    assert sorted(turns) == sorted((one.dialogue_id, one.turn) for one in gold.intents)
    everything = load_gold("japanese", 99)
    assert len(everything.dialogues) == len(load_authored("japanese", "held-out").dialogues)
    assert load_gold("japanese", 0).dialogues == load_gold("korean", 2).dialogues == []


def changed(gold, **columns):
    """Return gold intents with some fields replaced, turn by turn."""
    return [
        one.model_copy(update={name: values[i] for name, values in columns.items()})
        for i, one in enumerate(gold)
    ]


def test_a_perfect_annotator(words):
    gold = load_gold("german", 3)
    sure = [float(one.cultural) for one in gold.intents]
    predicted = changed(gold.intents, confidence=sure)
    table = agreement_table(gold.dialogues, gold.intents, predicted)
    assert len(table) == len(gold.intents)
    assert table["same_turn"].to_numpy() == pytest.approx(1)
    found = intent_agreement(table, seed=1)
    assert found["same_turn"] == pytest.approx(1)
    assert found["gain_low"] > 0.3
    assert found["line_itself"] < 0.3
    for name in ("readable", "precision", "recall", "f1", "balanced_accuracy", "accuracy", "auc"):
        assert found[name] == 1
    assert found["auc_low"] == found["auc_high"] == 1
    assert "are nearer to the author's" in verdict(found)
    assert "better than chance" in verdict(found)


def test_one_that_says_the_same_of_every_turn(words):
    gold = load_gold("german", 3)
    count = len(gold.intents)
    same = {"intent": ["She wants to talk."] * count, "cultural": [False] * count}
    predicted = changed(gold.intents, confidence=[0.4] * count, **same)
    found = intent_agreement(agreement_table(gold.dialogues, gold.intents, predicted), seed=1)
    assert found["gain"] == pytest.approx(0, abs=1e-9)
    assert found["auc"] == found["balanced_accuracy"] == 0.5
    assert found["accuracy"] == pytest.approx(found["majority_accuracy"])
    assert found["accuracy"] == pytest.approx(1 - found["gold_cultural"])
    assert found["precision"] == found["recall"] == found["f1"] == 0
    assert "no nearer to the author's" in verdict(found)
    assert "no better than chance" in verdict(found)


def test_what_is_above_chance_the_wrong_way_round_is_said():
    numbers = {"gain": 0.2, "gain_low": 0.1, "gain_high": 0.3}
    wrong = verdict(numbers | {"auc": 0.2, "auc_low": 0.1, "auc_high": 0.4})
    assert "worse than chance (AUC 0.20, 95 % interval 0.10 to 0.40" in wrong


def test_other_turns_are_those_of_the_same_speaker(words, dialogue, intents):
    gold = changed(intents, intent=["ana asks a", "ben says b", "ana nods c", "ben goes d"])
    table = agreement_table([dialogue], gold, gold)
    assert table["other_turns"].to_numpy() == pytest.approx(1 / 3, abs=1e-3)
    alone = dialogue.model_copy(update={"turns": dialogue.turns[:2]})
    assert agreement_table([alone], gold[:2], gold[:2])["other_turns"].isna().all()


def test_unreadable_intents_count_as_such_and_in_no_mean(words, dialogue, intents):
    predicted = changed(intents, intent=["", *[one.intent for one in intents[1:]]])
    table = agreement_table([dialogue], intents, predicted)
    assert table[["same_turn", "other_turns", "line_itself"]].isna().all(axis=1).tolist() == [
        True, False, False, False,
    ]  # fmt: skip
    found = intent_agreement(table, seed=1)
    assert found["readable"] == 0.75
    assert found["same_turn"] == pytest.approx(1)
    nothing = agreement_table([dialogue], intents, changed(intents, intent=[""] * 4))
    assert math.isnan(intent_agreement(nothing, seed=1)["gain"])
    assert verdict(intent_agreement(nothing, seed=1)).startswith("No intent could be compared")


def test_one_kind_alone_cannot_be_told_from_another(words, dialogue, intents):
    gold = changed(intents, cultural=[False] * 4)
    found = intent_agreement(agreement_table([dialogue], gold, intents), seed=1)
    assert math.isnan(found["auc"])
    assert math.isnan(found["balanced_accuracy"])
    assert "too few turns of both kinds" in verdict(found)


def test_turns_must_be_the_same(dialogue, intents):
    with pytest.raises(ValueError, match="not of the turns"):
        agreement_table([dialogue], intents, intents[1:])


def test_the_interval_covers_chance_where_there_is_nothing_to_tell():
    rng = np.random.default_rng(0)
    nothing = dict.fromkeys(["same_turn", "other_turns", "line_itself"], 0.5)
    covered = []
    for seed in range(12):
        table = pd.DataFrame({"gold_cultural": rng.random(24) < 0.4, "confidence": rng.random(24)})
        table = table.assign(predicted="x", predicted_cultural=table["confidence"] > 0.5, **nothing)
        found = intent_agreement(table, seed)
        truth, confidence = table["gold_cultural"], table["confidence"]
        assert found["auc"] == pytest.approx(roc_auc_score(truth, confidence))
        assert found["auc_low"] <= found["auc"] <= found["auc_high"]
        covered.append(found["auc_low"] <= 0.5 <= found["auc_high"])
    assert 0.8 <= np.mean(covered) <= 1


def test_meaning_tells_the_authors_intents_from_others():
    gold = load_gold("british", 1)
    table = agreement_table(gold.dialogues, gold.intents, gold.intents)
    found = intent_agreement(table, seed=1)
    assert found["same_turn"] == pytest.approx(1)
    assert found["other_turns"] < 0.7
    assert 0 < found["line_itself"] < 0.7
