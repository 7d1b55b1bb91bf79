"""The survey's items and answers: what ships is sound, and a user's file is checked."""

import numpy as np
import pandas as pd
import pytest

from clca_utils.files import StudyError
from clca_utils.survey import (
    NOT_ASKED,
    country_shares,
    coverage,
    coverage_note,
    load_items,
    load_marginals,
)

ITEMS = load_items()
MARGINALS = load_marginals()
SAME_MEANING = {
    "Yes, it is one of them": "mentioned",
    "No, it is not one of them": "not mentioned",
    "Yes, I would mind": "mentioned",
    "No, I would not mind": "not mentioned",
    "Neither agree nor disagree": "neither",
    "A good thing": "good",
    "I do not mind": "don't mind",
    "A bad thing": "bad",
}


def test_the_44_items_without_q42():
    assert [item.qid for item in ITEMS] == [f"Q{n}" for n in range(1, 46) if n != 42]
    assert len({item.question for item in ITEMS}) == 44
    assert all(item.question.endswith("?") for item in ITEMS)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.qid)
def test_options_mean_what_the_labels_of_the_marginals_mean(item):
    rows = MARGINALS[(MARGINALS["qid"] == item.qid) & (MARGINALS["country"] == "DEU")]
    labels = rows.sort_values("option")["label"].tolist()
    assert [SAME_MEANING.get(text, text.lower()) for text in item.options] == labels


def test_every_item_of_the_shipped_marginals_is_known():
    assert set(MARGINALS["qid"]) == {item.qid for item in ITEMS} | set(NOT_ASKED)


def test_shares_add_up_to_one_and_keep_the_order_of_codes():
    shuffled = MARGINALS.sample(frac=1, random_state=0)
    shares = country_shares(shuffled, "DEU", ITEMS)
    assert len(shares) == 44
    assert all(np.isclose(p.sum(), 1, atol=1e-12) for p in shares.values())
    assert shares["Q1"][0] == pytest.approx(0.88, abs=0.01)


def test_three_point_versions_are_left_out():
    table = coverage(MARGINALS, "USA", ITEMS).set_index("qid")
    other = table.index[table["status"] == "left out: other scale"]
    assert other.tolist() == ["Q33", "Q34", "Q35"]
    assert set(country_shares(MARGINALS, "USA", ITEMS)) == set(table.index) - set(other)
    note = coverage_note(table.reset_index(), "USA")
    assert "left out: other scale (Q33, Q34, Q35)" in note


def test_great_britain_is_partial_and_of_low_trust():
    table = coverage(MARGINALS, "GBR", ITEMS)
    assert len(table) == 44
    assert (table["status"] == "compared, low trust").sum() == 15
    assert set(table["tier"]) == {"", "C2", "D"}
    assert table["n"].isna().all()
    note = coverage_note(table.reset_index(), "GBR")
    assert "15 of 44 items compared" in note
    assert "low trust" in note


def test_a_country_without_data_has_no_shares():
    assert country_shares(MARGINALS, "FRA", ITEMS) == {}
    assert set(coverage(MARGINALS, "FRA", ITEMS)["status"]) == {"left out: no data"}


GOOD = {
    "qid": ["Q7", "Q7"],
    "country": ["DEU", "DEU"],
    "option": ["1", "2"],
    "share": ["0.6", "0.41"],
    "n": ["1000", ""],
    "tier": ["A", "A"],
}


def _written(tmp_path, **changes):
    path = tmp_path / "mine.csv"
    pd.DataFrame(GOOD | changes).to_csv(path, index=False)
    return path


def test_a_users_file_is_read_and_rounding_is_forgiven(tmp_path):
    rows = load_marginals(_written(tmp_path))
    assert rows["n"].isna().tolist() == [False, True]
    assert country_shares(rows, "DEU", ITEMS)["Q7"] == pytest.approx([0.6 / 1.01, 0.41 / 1.01])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"qid": ["Q7", "Q99"]}, ["line 3", "qid", "'Q99'"]),
        ({"country": ["DEU", "Germany"]}, ["line 3", "country", "'Germany'"]),
        ({"option": ["1", "2.5"]}, ["line 3", "option", "'2.5'"]),
        ({"option": ["one", "2"]}, ["line 2", "option", "'one'"]),
        ({"option": ["1", "3"]}, ["line 3", "option", "'3'"]),
        ({"option": ["0", "1"]}, ["line 2", "option", "'0'"]),
        ({"option": ["1", "1"]}, ["line 3", "option", "twice"]),
        ({"share": ["60", "41"]}, ["line 2", "share", "'60'"]),
        ({"share": ["0.6", ""]}, ["line 3", "share", "''"]),
        ({"share": ["0.6", "0.43"]}, ["Q7 in DEU", "1.030"]),
        ({"n": ["many", ""]}, ["line 2", "n", "'many'"]),
        ({"tier": ["A", ""]}, ["line 3", "tier", "''"]),
    ],
)
def test_a_wrong_row_is_named(tmp_path, changes, told):
    with pytest.raises(StudyError) as error:
        load_marginals(_written(tmp_path, **changes))
    assert all(part in str(error.value) for part in ["mine.csv", *told])


def test_a_missing_column_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "mine.csv"
    with pytest.raises(StudyError, match=r"mine\.csv is missing"):
        load_marginals(path)
    pd.DataFrame(GOOD).drop(columns="tier").to_csv(path, index=False)
    with pytest.raises(StudyError, match="tier: the column is missing"):
        load_marginals(path)
    path.write_text("")
    with pytest.raises(StudyError, match="isn't a CSV table"):
        load_marginals(path)


def test_a_users_items_replace_the_shipped_ones(tmp_path):
    path = tmp_path / "items.yaml"
    item = "{qid: Q7, topic: t, question: Ja oder nein, options: [ja, nein]}"
    path.write_text(f"items:\n  - {item}\n")
    assert load_items(path)[0].options == ["ja", "nein"]
    path.write_text(f"items:\n  - {item}\n  - {item}\n")
    with pytest.raises(StudyError, match="Q7 stands there twice"):
        load_items(path)
    path.write_text("items:\n  - {qid: Q7, topic: t, question: x, options: [ja]}\n")
    with pytest.raises(StudyError, match=r"items\.0\.options"):
        load_items(path)
    path.write_text("items: [")
    with pytest.raises(StudyError, match="isn't YAML"):
        load_items(path)
    with pytest.raises(StudyError, match="is missing"):
        load_items(tmp_path / "none.yaml")
