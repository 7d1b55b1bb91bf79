"""What people answered: what ships is sound, and a user's file is checked or takes its place.

All microdata here is made up; the survey's terms forbid shipping real answers.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from clca_utils.files import StudyError
from clca_utils.items import MAP_TOPIC, load_items
from clca_utils.survey import (
    COLUMNS,
    NOT_ASKED,
    country_shares,
    coverage,
    coverage_note,
    load_marginals,
    load_survey,
    people_of,
)

ITEMS = load_items()
MARGINALS = load_marginals()
SAME_MEANING = {
    "Yes": "mentioned",
    "No": "not mentioned",
    "Neither agree nor disagree": "neither",
    "A good thing": "good",
    "I do not mind": "don't mind",
    "A bad thing": "bad",
}


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
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(GOOD | changes).to_csv(path, index=False)
    return path


def test_a_users_file_is_read_and_rounding_is_forgiven(tmp_path):
    rows = load_marginals(_written(tmp_path))
    assert rows["n"].isna().tolist() == [False, True]
    assert country_shares(rows, "DEU", ITEMS)["Q7"] == pytest.approx([0.6 / 1.01, 0.41 / 1.01])


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a mark of its encoding"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_spreadsheets_ways_of_writing_a_table_are_read(tmp_path, separator, mark):
    path = tmp_path / "mine.csv"
    table = pd.DataFrame(GOOD).rename(columns=lambda name: f" {name.upper()}")
    path.write_text(mark + table.to_csv(index=False, sep=separator), "utf-8")
    wanted = load_marginals(_written(tmp_path / "plain"))
    pd.testing.assert_frame_equal(load_marginals(path), wanted)
    assert wanted["share"].tolist() == [0.6, 0.41]


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_header_alone_is_told(tmp_path, separator):
    path = tmp_path / "mine.csv"
    path.write_text(separator.join(GOOD) + "\n")
    with pytest.raises(StudyError, match=r"mine\.csv holds no row below its header"):
        load_marginals(path)


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
    path.write_text("qid,country,option,share,n,tier,QID\nQ7,DEU,1,1,9,A,Q7\n")
    with pytest.raises(StudyError, match="qid: the column stands there twice; keep one of them"):
        load_marginals(path)
    path.write_text("")
    with pytest.raises(StudyError, match="isn't a CSV table"):
        load_marginals(path)


def test_items_that_are_not_asked_may_stand_in_a_users_file(tmp_path):
    of_map = [item for item in load_items("map") if item.topic == MAP_TOPIC]
    path = _written(tmp_path)
    assert len(load_survey(path, of_map).marginals) == 2
    path = _written(tmp_path, qid=["Q57", "Q57"])
    assert len(load_survey(path, ITEMS).marginals) == 2


def test_shares_in_a_file_are_all_that_is_known(tmp_path):
    survey = load_survey(_written(tmp_path), ITEMS)
    assert survey.people is None
    assert set(survey.marginals["country"]) == {"DEU"}
    assert survey.respondents("DEU") is None
    assert survey.halves("DEU", ITEMS, seed=1) is None
    assert list(country_shares(survey.marginals, "DEU", ITEMS)) == ["Q7"]


def test_without_a_file_the_shipped_shares_are_taken():
    survey = load_survey("", ITEMS)
    pd.testing.assert_frame_equal(survey.marginals, MARGINALS)
    assert survey.people is None


def test_a_file_of_another_kind_or_none_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"none\.csv is missing"):
        load_survey(tmp_path / "none.csv", ITEMS)
    path = tmp_path / "other.csv"
    path.write_text("name,age\nAna,40\n")
    with pytest.raises(StudyError, match="isn't a file of people's answers"):
        load_survey(path, ITEMS)


def test_a_country_without_answers_is_told():
    with pytest.raises(StudyError, match="no answers of the people of FRA"):
        people_of(MARGINALS, "FRA", ITEMS)
    assert people_of(MARGINALS, "DEU", ITEMS).keys() == {item.qid for item in ITEMS}


PEOPLE = pd.DataFrame(
    {
        "D_INTERVIEW": range(1, 13),
        "B_COUNTRY_ALPHA": ["DEU"] * 8 + ["FRA"] * 4,
        "W_WEIGHT": [0.5] * 4 + [1.5] * 4 + [1.0] * 4,
        "Q262": [18, 40, 60, 80] * 3,
        "Q1": [1, 1, 2, 4, 1, 2, 2, -1, 3, 3, 3, -2],
        "Q7": [1, 2, 2, 2] * 3,
    }
)
"""Twelve people; of Q1 in Germany the weights are 1: 2.5, 2: 3.5, 4: 0.5, of 6.5 in all."""


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Return the survey that a user's csv gives."""
    path = tmp_path_factory.mktemp("wvs") / "wvs.csv"
    PEOPLE.to_csv(path, index=False, sep=";")
    return load_survey(path, ITEMS)


def test_a_users_people_replace_the_shipped_shares_of_their_country(known):
    shares = country_shares(known.marginals, "DEU", ITEMS)
    assert set(shares) == {"Q1", "Q7"}  # nothing shipped fills the gaps
    assert shares["Q1"] == pytest.approx(np.array([2.5, 3.5, 0, 0.5]) / 6.5)
    assert shares["Q7"] == pytest.approx([0.25, 0.75])
    table = coverage(known.marginals, "DEU", ITEMS).set_index("qid")
    assert table.loc["Q1", ["tier", "n", "status"]].tolist() == ["microdata", 7, "compared"]
    assert (table["status"] == "compared").sum() == 2
    assert "2 of 44 items compared" in coverage_note(table.reset_index(), "DEU")


def test_a_country_that_does_not_ship_is_there_with_its_people(known):
    assert country_shares(known.marginals, "FRA", ITEMS)["Q1"].tolist() == [0, 0, 1, 0]


def test_the_shipped_shares_stand_for_all_other_countries(known):
    columns = ["country", "qid", "option"]
    there = known.marginals[~known.marginals["country"].isin(["DEU", "FRA"])].sort_values(columns)
    shipped = MARGINALS[MARGINALS["country"] != "DEU"].sort_values(columns)
    assert there["country"].nunique() == MARGINALS["country"].nunique() - 1
    pd.testing.assert_frame_equal(
        there[COLUMNS].reset_index(drop=True), shipped[COLUMNS].reset_index(drop=True)
    )
    assert not known.marginals.duplicated(columns).any()


def test_single_people_are_known_of_their_country_alone(known):
    assert known.respondents("DEU")["respondent"].tolist() == list(range(1, 9))
    assert known.respondents("FRA")["age"].tolist() == [18, 40, 60, 80]
    assert known.respondents("JPN") is None
    assert known.halves("JPN", ITEMS, seed=1) is None


def test_halves_are_two_samples_of_the_same_people(known):
    halves = known.halves("DEU", ITEMS, seed=1)
    assert set(halves) == {"Q1", "Q7"}
    one, other = halves["Q7"]
    assert one.shape == other.shape == (200, 2)
    assert np.concatenate([one, other]).sum(axis=1) == pytest.approx(np.ones(400))
    weight = PEOPLE["W_WEIGHT"][:8].to_numpy()
    yes = (PEOPLE["Q7"][:8] == 1).to_numpy()
    possible = {
        round(float(weight[list(half)] @ yes[list(half)] / weight[list(half)].sum()), 9)
        for half in combinations(range(8), 4)
    }
    assert set(one[:, 0].round(9)) | set(other[:, 0].round(9)) <= possible
    assert one[:, 0].std() > 0
    again = known.halves("DEU", ITEMS, seed=1)["Q7"]
    assert np.array_equal(again, halves["Q7"])
    assert not np.array_equal(known.halves("DEU", ITEMS, seed=2)["Q7"], halves["Q7"])
