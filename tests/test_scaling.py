"""Size and distance: what is averaged, and what is said where only one size is known."""

import pandas as pd
import pytest
from test_ablations import distances

from clca_utils.scaling import scaling_table, scaling_told

BY_ITEM = distances({"small": 0.0, "large": -0.1, "large+no-filter": 0.3})
FOUND = pd.DataFrame(
    [
        (culture, model, 1, size, 0.4, 0.02)
        for culture in ("german", "japanese")
        for model, size in (("small", 1e8), ("large", 7e9), ("large+no-filter", 7e9))
    ],
    columns=["culture", "model", "seed", "parameters", "js_distance_uniform",
             "js_distance_human_floor"],
)  # fmt: skip


def test_models_stand_by_size_with_their_distances():
    table = scaling_table(FOUND, BY_ITEM)
    assert table["model"].tolist() == ["small", "large"]
    assert table["cultures"].tolist() == [2, 2]
    assert (table["before"] - table["after"]).tolist() == pytest.approx([0.05, 0.1491])
    assert ((table["after_low"] < table["after"]) & (table["after"] < table["after_high"])).all()
    assert table["uniform"].tolist() == [0.4, 0.4]
    assert "-1.00 after training" in scaling_told(table)


def test_one_size_or_none_says_nothing_of_scaling():
    one = scaling_table(FOUND[FOUND["model"] == "small"], BY_ITEM)
    assert len(one) == 1
    assert "only one size of model is known" in scaling_told(one)
    none = scaling_table(FOUND.drop(columns="parameters"), BY_ITEM)
    assert len(none) == 0
    assert "the sizes of no model are known" in scaling_told(none)
