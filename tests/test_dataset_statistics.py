"""What was learnt from: means over seeds, controls left out, the paper's numbers marked."""

import pandas as pd
import pytest

from clca_utils.dataset_statistics import READ, statistics_table

FOUND = pd.DataFrame(
    [
        ("german", "small", 1, 8, 8, 6, 5.0, 12.0, 0.4),
        ("german", "small", 2, 8, 8, 2, 7.0, 14.0, 0.6),
        ("german", "small+unadapted", 1, 8, 8, 8, 1.0, 1.0, 0.0),
        ("japanese", "small", 1, None, None, None, None, None, None),
    ],
    columns=["culture", "model", "seed", "scenarios", "dialogues", "dialogues_kept",
             "turns_per_dialogue", "words_per_spoken_turn", "cultural_share"],
)  # fmt: skip


def test_what_was_acted_stands_beside_what_the_paper_reports():
    table = statistics_table(FOUND)
    ours = table[table["source"] == "this study"]
    assert ours[["culture", "player", "seeds"]].to_numpy().tolist() == [["german", "small", 2]]
    row = ours.iloc[0]
    assert row["kept dialogues"] == 4
    assert row["kept share"] == 0.5
    assert row[["turns", "words per spoken turn", "cultural intents"]].tolist() == pytest.approx(
        [6, 13, 0.5]
    )
    paper = table[table["source"] == READ]
    assert paper["turns"].tolist() == [5.4, 7.0]
    assert paper["kept dialogues"].tolist() == [69, 143]
    assert paper["scenarios"].isna().all()


def test_a_study_in_which_nobody_acted_has_no_statistics():
    assert len(statistics_table(FOUND[["culture", "model", "seed"]])) == 0
