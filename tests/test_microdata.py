"""Microdata: every form in which it comes becomes the same table, and what can't be right is told.

All files are made up; the survey's terms forbid shipping real answers.
"""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clca_utils.files import StudyError
from clca_utils.items import SurveyItem
from clca_utils.microdata import (
    PERSONA,
    RANGES,
    SHORT_SCALE_N,
    file_report,
    kind_of,
    load_microdata,
    marginals_of,
    split_halves,
)
from clca_utils.survey import COLUMNS, country_shares


def item(qid, k):
    return SurveyItem(qid=qid, topic="t", question="?", options=[f"o{i}" for i in range(k)])


ITEMS = [item("Q1", 4), item("Q7", 2), item("Q33", 5)]

TABLE = pd.DataFrame(
    {
        "version": "6-0-0",
        "B_COUNTRY_ALPHA": ["DEU", "DEU", "DEU", "JPN", "MAR"],
        "D_INTERVIEW": [276070001, 276070002, 276070003, 392070001, 504070001],
        "W_WEIGHT": [0.5, 1.5, 1.0, 1.0, 1.0],
        "H_SETTLEMENT": [1, 5, -5, 2, 3],
        "N_REGION_ISO": [276002, 276003, -4, 392013, 504001],
        "Q260": [1, 2, 2, 1, 9],
        "Q262": [18, 103, 7, -2, 40],
        "Q273": [6, 1, 3, 4, 5],
        "Q1": [1, 4, -1, 2, 5],
        "Q7": [1, 2, 2, 0, 1],
        "Q33": [5, 3, 1, 2, -4],
    }
)
"""Five people; codes that aren't answers: -5, -4, -2, -1, and 0, 5, 7, 9 out of range."""

ANSWERS = {"Q1": [1, 4, np.nan, 2, np.nan], "Q7": [1, 2, 2, np.nan, 1], "Q33": [5, 3, 1, 2, np.nan]}


def written(path, table=TABLE, **options):
    table.to_csv(path, index=False, **options)
    return path


@pytest.fixture
def plain(tmp_path):
    return load_microdata(written(tmp_path / "plain.csv"), ITEMS)


def test_codes_become_answers_and_the_rest_is_missing(plain):
    assert list(plain) == ["respondent", "country", "weight", *PERSONA, "Q1", "Q7", "Q33"]
    assert plain["respondent"].tolist() == TABLE["D_INTERVIEW"].tolist()
    assert plain["country"].tolist() == ["DEU", "DEU", "DEU", "JPN", "MAR"]
    assert plain["weight"].tolist() == [0.5, 1.5, 1.0, 1.0, 1.0]
    for qid, codes in ANSWERS.items():
        np.testing.assert_array_equal(plain[qid], np.array(codes, dtype="float32"))
    assert plain["settlement"].tolist() == [1, 5, pd.NA, 2, 3]
    assert plain["gender"].tolist() == [1, 2, 2, 1, pd.NA]
    assert plain["age"].tolist() == [18, 103, pd.NA, pd.NA, 40]
    assert plain["marital"].tolist() == [6, 1, 3, 4, 5]
    assert plain[["region", "education", "social_class"]].isna().all(axis=None)


def test_columns_have_the_types_that_others_rely_on(plain):
    types = plain.dtypes.astype(str)
    assert types[["respondent", "weight"]].tolist() == ["int64", "float64"]
    assert types[["country", "region"]].tolist() == ["str", "str"]
    assert set(types[list(RANGES)]) == {"Int16"}
    assert set(types[["Q1", "Q7", "Q33"]]) == {"float32"}


def labelled(table):
    return table.rename(columns=lambda name: f"{name}: Rather long, as in a codebook; really")


def shuffled(table):
    return table[list(reversed(table.columns))]


def lower(table):
    return table.rename(columns=str.lower)


def with_decimal_commas(table):
    return table.assign(W_WEIGHT=[str(w).replace(".", ",") for w in table["W_WEIGHT"]])


def with_foreign_text(table):
    return table.assign(N_TOWN="Köln – “Mülheim”")


def untouched(table):
    return table


@pytest.mark.parametrize("form", [{"sep": s, "quoting": q} for s in ",;" for q in (0, 1)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("change", [untouched, labelled, shuffled, lower, with_foreign_text])
def test_every_form_of_the_csv_is_the_same_table(tmp_path, plain, change, encoding, form):
    path = written(tmp_path / "survey.csv", change(TABLE), encoding=encoding, **form)
    assert kind_of(path) == "wvs"
    pd.testing.assert_frame_equal(load_microdata(path, ITEMS), plain)


def test_weights_may_have_decimal_commas(tmp_path, plain):
    path = written(tmp_path / "survey.csv", with_decimal_commas(TABLE), sep=";")
    pd.testing.assert_frame_equal(load_microdata(path, ITEMS), plain)


def test_codes_may_be_written_as_decimals(tmp_path, plain):
    numbers = TABLE.select_dtypes("number").columns
    path = written(tmp_path / "survey.csv", TABLE.astype(dict.fromkeys(numbers, float)))
    pd.testing.assert_frame_equal(load_microdata(path, ITEMS), plain)


def test_cells_may_be_empty(tmp_path):
    path = written(tmp_path / "survey.csv", TABLE.assign(Q1=["", " ", "NA", "#NULL!", "3"]))
    assert load_microdata(path, ITEMS)["Q1"].dropna().tolist() == [3]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_region_is_text_without_its_code(tmp_path, encoding):
    names = ["DE-BW Baden-Württemberg", "DE-BY Bavaria", "276003", "HK Central and Western", "-4"]
    path = tmp_path / "survey.csv"
    people = load_microdata(
        written(path, TABLE.assign(N_REGION_ISO=names), encoding=encoding), ITEMS
    )
    assert people["region"].dropna().to_dict() == {
        0: "Baden-Württemberg", 1: "Bavaria", 3: "Central and Western"
    }  # fmt: skip


def test_the_surveys_morocco_is_isos(tmp_path):
    table = TABLE.assign(B_COUNTRY_ALPHA=TABLE["B_COUNTRY_ALPHA"].replace("MAR", "MOR"))
    people = load_microdata(written(tmp_path / "survey.csv", table), ITEMS, ["MAR"])
    assert people["respondent"].tolist() == [504070001]


def test_an_item_that_is_not_in_the_file_has_no_column(tmp_path):
    people = load_microdata(written(tmp_path / "s.csv", TABLE.drop(columns="Q7")), ITEMS)
    assert "Q7" not in people
    assert set(marginals_of(people, ITEMS)["qid"]) == {"Q1", "Q33"}
    assert set(split_halves(people[people["country"] == "DEU"], ITEMS, 0)) <= {"Q1", "Q33"}


def test_without_weights_everyone_counts_as_one(tmp_path):
    people = load_microdata(written(tmp_path / "s.csv", TABLE.drop(columns="W_WEIGHT")), ITEMS)
    assert people["weight"].tolist() == [1.0] * 5


def test_ids_that_occur_twice_are_dropped_with_all_their_rows(tmp_path):
    table = pd.concat([TABLE, TABLE.iloc[[1]].assign(Q1=2)])
    people = load_microdata(written(tmp_path / "s.csv", table), ITEMS)
    assert people["respondent"].tolist() == [276070001, 276070003, 392070001, 504070001]


def test_only_the_countries_asked_for_are_kept(tmp_path, plain):
    people = load_microdata(written(tmp_path / "s.csv"), ITEMS, ["MAR", "JPN"])
    pd.testing.assert_frame_equal(people, plain[3:].reset_index(drop=True))


def test_a_country_that_is_not_there_is_told_with_those_that_are(tmp_path):
    path = written(tmp_path / "s.csv")
    message = r"s\.csv has no respondent from FRA: choose among DEU, JPN, MAR\.$"
    with pytest.raises(StudyError, match=message):
        load_microdata(path, ITEMS, ["DEU", "FRA"])


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_told(tmp_path, value):
    table = TABLE.assign(W_WEIGHT=[1, 1, 1, value, 1])
    path = written(tmp_path / "s.csv", table)
    with pytest.raises(StudyError, match=r"W_WEIGHT: found .* for respondent 392070001"):
        load_microdata(path, ITEMS)
    assert len(load_microdata(path, ITEMS, ["DEU"])) == 3


@pytest.mark.parametrize("missing", ["D_INTERVIEW", "B_COUNTRY_ALPHA"])
def test_a_missing_column_is_named(tmp_path, missing):
    path = written(tmp_path / "s.csv", TABLE.drop(columns=missing))
    with pytest.raises(StudyError, match=rf"s\.csv, {missing}: the column is missing"):
        load_microdata(path, ITEMS)


def test_a_respondent_without_id_is_told(tmp_path):
    path = written(tmp_path / "s.csv", TABLE.assign(D_INTERVIEW=[1, 2, "", 4, 5]))
    with pytest.raises(StudyError, match="respondent 3 has no id"):
        load_microdata(path, ITEMS)


@pytest.mark.parametrize("value", ["1.5", "inf", "-inf", "1e30", "-1", "ann"])
def test_an_id_that_is_no_whole_number_is_told(tmp_path, value):
    ids = TABLE["D_INTERVIEW"].astype(str).where(TABLE.index != 2, value)
    path = written(tmp_path / "ids.csv", TABLE.assign(D_INTERVIEW=ids))
    with pytest.raises(StudyError, match=r"ids\.csv.* D_INTERVIEW: .*(found|invalid value)"):
        load_microdata(path, ITEMS)


def test_labels_instead_of_codes_are_told_with_their_column(tmp_path):
    path = written(tmp_path / "s.csv", TABLE.assign(Q7="Not mentioned"))
    with pytest.raises(StudyError, match="Q7: invalid value 'Not mentioned'; export the codes"):
        load_microdata(path, ITEMS)


def test_a_country_written_out_is_told(tmp_path):
    path = written(tmp_path / "s.csv", TABLE.assign(B_COUNTRY_ALPHA="Germany"))
    with pytest.raises(StudyError, match="country: found 'Germany'"):
        load_microdata(path, ITEMS)


def test_no_respondents_is_told(tmp_path):
    with pytest.raises(StudyError, match="holds no respondent"):
        load_microdata(written(tmp_path / "s.csv", TABLE[:0]), ITEMS)


def test_no_item_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"none of the items asked for \(Q99, …\)"):
        load_microdata(written(tmp_path / "s.csv"), [item("Q99", 3)])


def test_a_cut_line_is_told(tmp_path):
    path = written(tmp_path / "s.csv")
    path.write_text(path.read_text().rstrip("\n")[:-3])
    with pytest.raises(StudyError, match=r"is damaged .*Expected 12 columns, got 11"):
        load_microdata(path, ITEMS)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a,b\n1,2\n", b"$FL2@(#) SPSS DATA FILE\x00\x00\xff", b"x" * 200_000]
)
def test_a_file_of_no_known_kind_is_told_what_was_expected(tmp_path, content):
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        kind_of(path)
    for word in ("s.csv", "share", "B_COUNTRY_ALPHA", "full_value_qa.tsv"):
        assert word in str(error.value)


def test_aggregates_are_known_but_hold_no_respondents(tmp_path):
    path = tmp_path / "shares.csv"
    path.write_text("qid,country,option,label,share,n,tier\nQ1,DEU,1,x,1.0,9,A\n")
    assert kind_of(path) == "aggregates"
    with pytest.raises(StudyError, match="shares of countries, not answers of single people"):
        load_microdata(path, ITEMS)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"none\.csv is missing"):
        load_microdata(tmp_path / "none.csv", ITEMS)


def test_thousands_of_people_and_hundreds_of_columns(tmp_path):
    rng = np.random.default_rng(5)
    codes = rng.integers(-5, 6, size=(20_000, 290))
    table = pd.DataFrame(codes, columns=[f"Q{i}" for i in range(1, 291)])
    table = table.assign(
        D_INTERVIEW=np.arange(20_000) + 276070001, B_COUNTRY_ALPHA="DEU", W_WEIGHT=1
    )
    items = [item(f"Q{i}", 4) for i in range(1, 291)]
    people = load_microdata(written(tmp_path / "s.csv", table), items)
    valid = np.where((codes >= 1) & (codes <= 4), codes, np.nan)
    np.testing.assert_array_equal(people[[one.qid for one in items]], valid)
    np.testing.assert_array_equal(
        people["gender"].isna(), (codes[:, 259] < 1) | (codes[:, 259] > 2)
    )


# WorldValuesBench

CODEBOOK = {
    "B_COUNTRY": {"276": "Germany", "446": "Macao SAR", "504": "Morocco", "643": "Russia"},
    "B_COUNTRY_ALPHA": {
        "DEU": "Germany", "MAC": "Macao", "MOR": "Morocco", "RUS": "Russian Federation"
    },
    "H_SETTLEMENT": {"1": "Capital city", "5": "Village", "-5": "No answer; Missing"},
    "Q260": {"1": "Male", "2": "Female"},
    "Q270": {"1": "1", "7": "89.- 7 persons or more", "-2": "No answer"},
    "Q273": {"1": "Married", "6": "Single", "-1": "Don't know"},
    "Q275": {"0": "Early childhood education (ISCED 0) / no education", "6": "Bachelor, \"BA\""},
}  # fmt: skip

ABOUT = pd.DataFrame(
    {
        "A_YEAR": 2018,
        "B_COUNTRY": ["Germany", "Macao SAR", "Morocco", "Russia", "356"],
        "D_INTERVIEW": [276070001, 446070001, 504070001, 643070001, 356070001],
        "H_SETTLEMENT": ["Capital city", "Village", "No answer; Missing", "nonsense", ""],
        "Q260": ["Male", "Female", "Female", "Male", "Male"],
        "Q262": [18, 40, -5, 13, 99],
        "Q270": ["1", "89.- 7 persons or more", "9", "No answer", "2"],
        "Q273": ["Single", "Married", "Don't know", "Single", "-3"],
        "Q275": [CODEBOOK["Q275"]["0"], CODEBOOK["Q275"]["6"], "", "", ""],
    }
)
VALUES = pd.DataFrame(
    {
        "D_INTERVIEW": [356070001, 643070001, 504070001, 446070001, 276070001],
        "Q1": [1, 2, "", 4, 3],
        "Q33": [5, 4, 3, 2, 1],
    }
)


@pytest.fixture
def bench(tmp_path):
    """Return a checkout of WorldValuesBench, its files made up."""
    full = tmp_path / "WorldValuesBench" / "full"
    full.mkdir(parents=True)
    (tmp_path / "dataset_construction").mkdir()
    ABOUT.to_csv(full / "full_demographic_qa.tsv", sep="\t", index=False)
    VALUES.to_csv(full / "full_value_qa.tsv", sep="\t", index=False)
    codebook = {name: {"question": "?", "choices": choices} for name, choices in CODEBOOK.items()}
    (tmp_path / "dataset_construction" / "codebook.json").write_text(json.dumps(codebook))
    return tmp_path


@pytest.mark.parametrize(
    "place",
    [
        "",
        "WorldValuesBench",
        "WorldValuesBench/full",
        "WorldValuesBench/full/full_value_qa.tsv",
        "WorldValuesBench/full/full_demographic_qa.tsv",
    ],
)
def test_worldvaluesbench_is_joined_and_its_labels_become_codes(bench, place):
    assert kind_of(bench / place) == "worldvaluesbench"
    people = load_microdata(bench / place, ITEMS).set_index("respondent")
    assert people["country"].tolist() == ["DEU", "MAC", "MAR", "RUS", "IND"]
    assert set(people["weight"]) == {1.0}
    assert "Q7" not in people
    assert people.loc[276070001, ["Q1", "Q33"]].tolist() == [3, 1]
    assert people["Q1"].isna().tolist() == [False, False, True, False, False]
    assert people["settlement"].tolist() == [1, 5, pd.NA, pd.NA, pd.NA]
    assert people["gender"].tolist() == [1, 2, 2, 1, 1]
    assert people["age"].tolist() == [18, 40, pd.NA, pd.NA, 99]
    assert people["household"].tolist() == [1, 7, 9, pd.NA, 2]
    assert people["marital"].tolist() == [6, 1, pd.NA, 6, pd.NA]
    assert people["education"].tolist() == [0, 6, pd.NA, pd.NA, pd.NA]
    assert people["region"].isna().all()
    assert people.dtypes.astype(str)["household"] == "Int16"


def test_worldvaluesbench_regions_are_text(bench):
    file = bench / "WorldValuesBench/full/full_demographic_qa.tsv"
    ABOUT.assign(N_REGION_ISO=["DE-BE Berlin", "", "MA-01 Nord", "7", ""]).to_csv(
        file, sep="\t", index=False
    )
    assert load_microdata(bench, ITEMS)["region"].dropna().tolist() == ["Berlin", "Nord"]


def test_another_split_of_worldvaluesbench_is_read_by_its_file(bench):
    full = bench / "WorldValuesBench/full"
    test = bench / "WorldValuesBench/test"
    test.mkdir()
    for part in ("demographic", "value"):
        file = full / f"full_{part}_qa.tsv"
        (test / f"test_{part}_qa.tsv").write_text("\n".join(file.read_text().split("\n")[:3]))
    # the two tables hold the same people in opposite order, so the first two differ
    with pytest.raises(StudyError, match="holds no respondent"):
        load_microdata(test / "test_value_qa.tsv", ITEMS)
    (test / "test_value_qa.tsv").write_text((full / "full_value_qa.tsv").read_text())
    assert len(load_microdata(test / "test_value_qa.tsv", ITEMS)) == 2


def test_worldvaluesbench_without_codebook_is_told_where_to_put_it(bench):
    (bench / "dataset_construction/codebook.json").unlink()
    with pytest.raises(StudyError, match=r"full has no codebook\.json.*dataset_construction there"):
        load_microdata(bench, ITEMS)


@pytest.mark.parametrize("content", ["{", "[]", '{"Q260": {}}'])
def test_a_codebook_that_is_none_is_told(bench, content):
    (bench / "dataset_construction/codebook.json").write_text(content)
    with pytest.raises(StudyError, match="isn't WorldValuesBench's codebook"):
        load_microdata(bench, ITEMS)


@pytest.mark.parametrize("part", ["demographic", "value"])
def test_a_table_without_its_sibling_is_told(bench, part):
    (bench / f"WorldValuesBench/full/full_{part}_qa.tsv").unlink()
    with pytest.raises(StudyError, match=rf"full_{part}_qa\.tsv is missing"):
        load_microdata(bench, ITEMS)


def test_a_folder_without_tables_is_told_what_was_expected(tmp_path):
    with pytest.raises(StudyError, match=r"holds no people's answers: expected .*full_value_qa"):
        kind_of(tmp_path)


def test_an_unknown_country_of_worldvaluesbench_is_told(bench):
    file = bench / "WorldValuesBench/full/full_demographic_qa.tsv"
    file.write_text(file.read_text().replace("Russia", "Atlantis"))
    with pytest.raises(StudyError, match="found 'Atlantis'"):
        load_microdata(bench, ITEMS)


# shares


def crowd(countries, weights, **codes):
    return pd.DataFrame({"country": countries, "weight": weights} | codes)


def test_marginals_are_weighted_and_complete(plain):
    table = marginals_of(plain, ITEMS)
    assert list(table) == COLUMNS
    assert set(table["tier"]) == {"microdata"}
    # Germany, Q1: weights 0.5 on option 1 and 1.5 on option 4; the third gave no answer
    q1 = table[(table["country"] == "DEU") & (table["qid"] == "Q1")]
    assert q1["option"].tolist() == [1, 2, 3, 4]
    assert q1["share"].tolist() == [0.25, 0, 0, 0.75]
    assert set(q1["n"]) == {2.0}
    # Japan's only answer to Q7 was invalid, and so was Morocco's to Q1 and Q33
    assert not ((table["country"] == "JPN") & (table["qid"] == "Q7")).any()
    assert set(table.loc[table["country"] == "MAR", "qid"]) == {"Q7"}
    assert country_shares(table, "DEU", ITEMS)["Q7"].tolist() == pytest.approx([1 / 6, 5 / 6])


def test_marginals_of_nobody_are_an_empty_table(plain):
    assert list(marginals_of(plain[:0], ITEMS)) == COLUMNS
    assert marginals_of(plain[:0], ITEMS).empty


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["DEU", "JPN"]),
            st.sampled_from([0.25, 1.0, 3.5]),
            st.sampled_from([np.nan, 1.0, 2.0, 3.0]),
        ),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_marginals_are_counted_as_by_hand(rows):
    countries, weights, codes = zip(*rows, strict=True)
    table = marginals_of(crowd(countries, weights, Q2=codes), [item("Q2", 3)])
    by_hand = {}
    for country in set(countries):
        valid = [(w, c) for one, w, c in rows if one == country and not np.isnan(c)]
        for option in (1, 2, 3):
            if valid:
                chosen = sum(w for w, c in valid if c == option)
                by_hand[country, option] = (chosen / sum(w for w, _ in valid), len(valid))
    assert len(table) == len(by_hand)
    for row in table.itertuples():
        share, n = by_hand[row.country, row.option]
        assert row.share == pytest.approx(share)
        assert row.n == n
    np.testing.assert_allclose(table.groupby("country")["share"].sum(), 1)


@pytest.mark.parametrize(("n", "options"), [(SHORT_SCALE_N, [2, 3]), (99, [1, 2, 3, 4, 5])])
def test_a_scale_whose_ends_nobody_of_many_chose_is_shorter(n, options):
    codes = np.where(np.arange(n) < 10, 2.0, 3.0)
    table = marginals_of(crowd("USA", np.ones(n), Q33=codes), ITEMS)
    assert table["option"].tolist() == options
    assert table["share"].sum() == pytest.approx(1)
    assert bool(country_shares(table, "USA", ITEMS)) == (n == 99)


def test_halves_add_up_to_the_whole_and_share_one_split():
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 2, 101)
    codes = rng.integers(1, 4, 101).astype(float)
    people = crowd("DEU", weight, Q2=codes, Q3=codes)
    halves = split_halves(people, [item("Q2", 3), item("Q3", 3)], seed=4, draws=50)
    one, other = halves["Q2"]
    assert one.shape == other.shape == (50, 3)
    np.testing.assert_allclose(one.sum(axis=1), 1)
    # whole = a * one + (1 - a) * other with a the first half's part of the weight
    whole = np.array([weight[codes == option].sum() for option in (1, 2, 3)]) / weight.sum()
    part = (whole - other)[:, :2] / (one - other)[:, :2]
    np.testing.assert_allclose(part[:, 0], part[:, 1], atol=1e-6)
    np.testing.assert_allclose(part.mean(), 0.5, atol=0.03)
    # the same people gave the same answers to both items
    np.testing.assert_array_equal(halves["Q3"][0], one)
    assert len(np.unique(one.round(9), axis=0)) > 40
    again = split_halves(people, [item("Q2", 3)], seed=4, draws=50)["Q2"]
    np.testing.assert_array_equal(again[0], one)


def test_halves_spread_as_samples_of_half_the_people_without_replacement():
    n, p = 1000, 0.3
    codes = np.where(np.arange(n) < n * p, 1.0, 2.0)
    one, other = split_halves(crowd("DEU", np.ones(n), Q7=codes), ITEMS, 2, 2000)["Q7"]
    # the first half's share is hypergeometric: variance p(1-p)/(n-1), and other = 2p - one
    assert one[:, 0].std() == pytest.approx(np.sqrt(p * (1 - p) / (n - 1)), rel=0.06)
    np.testing.assert_allclose(one[:, 0] + other[:, 0], 2 * p)


@pytest.mark.parametrize("codes", [[np.nan] * 6, [1, *[np.nan] * 5]])
def test_an_item_that_too_few_answered_has_no_halves(codes):
    assert split_halves(crowd("DEU", np.ones(6), Q7=codes), ITEMS, 0, 20) == {}


def test_the_report_tells_what_each_country_holds(tmp_path):
    path = written(tmp_path / "s.csv", TABLE.drop(columns="Q7"))
    report = file_report(path, ITEMS).set_index("country")
    assert report["respondents"].to_dict() == {"DEU": 3, "JPN": 1, "MAR": 1}
    assert report["weighted"].to_dict() == {"DEU": True, "JPN": False, "MAR": False}
    assert report.loc["DEU", ["items", "missing_items"]].tolist() == [2, "Q7"]
    assert report.loc["DEU", "answered"] == pytest.approx((2 / 3 + 1) / 2)
    assert report.loc["MAR", ["items", "missing_items"]].tolist() == [0, "Q1, Q7, Q33"]
    assert np.isnan(report.loc["MAR", "answered"])
    # Germany: settlement, gender, age, marital
    assert report.loc["DEU", "persona"] == 4
