"""The items that moved: their order, their test, and what is said where nothing is sure."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clca_utils.moved_items import most_moved, moved_table, moved_told

CHANGES = {"Q1": (-0.10, -0.101, -0.099), "Q2": (-0.02, 0.03, -0.04), "Q3": (0.05, 0.01, 0.06)}


def distances(changes=CHANGES, seeds=3):
    rows = [
        ("german", model, seed, qid, "work", 0.5, 0.5 + some[seed - 1])
        for model in ("small", "small+authored")
        for qid, some in changes.items()
        for seed in range(1, seeds + 1)
    ]
    columns = ["culture", "model", "seed", "qid", "topic", "before", "after"]
    return pd.DataFrame(rows, columns=columns)


def test_each_items_change_is_tested_over_the_seeds():
    table = moved_table(distances())
    assert table["qid"].tolist() == ["Q1", "Q2", "Q3"]
    assert set(table["model"]) == {"small"}
    for row in table.itertuples():
        test = stats.ttest_1samp(CHANGES[row.qid], 0)
        assert row.p_value == pytest.approx(test.pvalue)
        ends = test.confidence_interval()
        assert (row.low, row.high) == pytest.approx((ends.low, ends.high))
    assert table["p_holm"][0] == pytest.approx(3 * table["p_value"][0])
    assert table["clear"].tolist() == [True, False, False]
    assert moved_told(table).startswith("1 of the 3 changes of single items are distinguishable")
    assert "1 towards the people, 0 away" in moved_told(table)


def test_none_sure_and_one_seed_are_said():
    unclear = moved_table(distances({qid: CHANGES[qid] for qid in ("Q2", "Q3")}))
    assert moved_told(unclear).startswith("None of the 2 changes of single items")
    alone = moved_table(distances(seeds=1))
    assert alone[["low", "high", "p_value"]].isna().all(axis=None)
    assert not alone["clear"].any()
    assert moved_told(alone).startswith("With one seed")


def test_seeds_that_agree_to_the_last_digit_leave_no_doubt_or_no_change():
    table = moved_table(distances({"Q1": (-0.25,) * 3, "Q2": (0.0,) * 3})).set_index("qid")
    assert table["p_value"]["Q1"] == 0
    assert table["clear"].to_dict() == {"Q1": True, "Q2": False}
    assert np.isnan(table["p_value"]["Q2"])


def test_the_most_moved_are_taken_from_both_ends():
    many = {f"Q{n}": (0.01 * (n - 6),) * 3 for n in range(1, 12)}
    table = most_moved(moved_table(distances(many)), 2)
    assert table["qid"].tolist() == ["Q1", "Q2", "Q10", "Q11"]
    towards = dict.fromkeys(("Q1", "Q2"), (-0.1, -0.2, -0.3))
    assert len(most_moved(moved_table(distances(towards)))) == 2
