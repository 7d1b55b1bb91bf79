"""The method beside its variants, over all cultures: what is taken together, and what is sure."""

import numpy as np
import pandas as pd
import pytest

from clca_utils.ablations import ablation_table, ablations_told, of_others, variant_of

SHIFTS = {
    "small": 0.0, "small+dialogue-only": 0.03, "small+neutral-text": -0.02,
    "small+wrong-culture-german": 0.01, "small+wrong-culture-japanese": 0.03,
}  # fmt: skip
"""By how much the variants' distances after training lie above the method's."""


def distances(shifts=SHIFTS, cultures=("german", "japanese"), seeds=(1, 2), items=10):
    """Return distances of a made-up study; each item has a level and each seed a little noise."""
    rows = []
    for culture in cultures:
        for model, shift in shifts.items():
            if model.endswith(f"wrong-culture-{culture}"):
                continue
            for seed in seeds:
                for number in range(items):
                    level = 0.2 + 0.01 * number + 0.0001 * seed * (-1) ** number
                    qid, topic = f"Q{number}", "work"
                    after = level + shift + 0.001 * (number % 3) * (shift != 0)
                    rows.append((culture, model, seed, qid, topic, level + 0.05, after))
    columns = ["culture", "model", "seed", "qid", "topic", "before", "after"]
    return pd.DataFrame(rows, columns=columns)


def test_variants_stand_beside_the_method_and_other_cultures_count_together():
    table = ablation_table(distances()).set_index("variant")
    assert list(table.index) == [
        "clca", "untrained", "dialogue-only", "neutral-text", "wrong-culture"
    ]  # fmt: skip
    assert set(table["cultures"]) == set(table["seeds"]) == {2}
    assert table["difference"].to_dict() == pytest.approx(
        {"clca": 0, "untrained": -0.05, "dialogue-only": -0.0309, "neutral-text": 0.0191,
         "wrong-culture": -0.0209}, abs=1e-9,
    )  # fmt: skip
    assert table["verdict"].to_dict() == {
        "clca": "", "untrained": "closer", "dialogue-only": "closer", "neutral-text": "further",
        "wrong-culture": "closer",
    }  # fmt: skip
    assert (table["distance"] - table["distance"]["clca"]).to_numpy() == pytest.approx(
        -table["difference"].to_numpy()
    )
    assert (table["distance_low"] < table["distance"]).all()
    assert np.isnan(table["p_holm"]["clca"])
    told = ablations_told(table.reset_index())
    assert told == (
        "small: the method is closer than untrained, dialogue-only, wrong-culture; "
        "the method is further than neutral-text."
    )


def test_only_what_both_were_asked_counts():
    table = distances()
    some = table[(table["model"] == "small") | (table["culture"] == "german")]
    found = ablation_table(some).set_index("variant")
    assert found["cultures"]["dialogue-only"] == 1
    assert found["cultures"]["clca"] == 2


def test_a_study_of_the_method_alone_has_the_untrained_model():
    table = ablation_table(distances({"small": 0.0}))
    assert table["variant"].tolist() == ["clca", "untrained"]
    alone = ablation_table(distances({"small+authored": 0.1}))
    assert len(alone) == 0
    assert ablations_told(alone) == "The study ran no variant."


def test_nothing_sure_is_said_so():
    table = ablation_table(distances({"small": 0.0}).assign(before=lambda t: t["after"]))
    assert ablations_told(table) == "small: no variant is distinguishable."


@pytest.mark.parametrize(
    ("label", "variant"),
    [("small", "clca"), ("small+no-filter", "no-filter"),
     ("small+wrong-authored-german", "wrong-authored")],
)  # fmt: skip
def test_the_variant_is_read_from_the_label(label, variant):
    assert variant_of(label, of_others()) == variant
