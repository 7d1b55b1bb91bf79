"""Scoring: answers from anywhere, against the people asked or their country's shares."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from clca_utils.files import StudyError
from clca_utils.items import SurveyItem
from clca_utils.measures import MEASURES, js_distance, kl_release
from clca_utils.microdata import marginals_of, split_halves
from clca_utils.references import normalised_score
from clca_utils.scoring import (
    EMD,
    NORMALISED,
    choose_people,
    read_scores,
    score_answers,
    score_summary,
    whose_note,
)
from clca_utils.survey import Survey


def item(qid, k):
    return SurveyItem(qid=qid, topic=f"about {qid}", question="?", options=["o"] * k)


ITEMS = [item("Q1", 4), item("Q2", 4), item("Q7", 2)]


def microdata(**answers):
    count = len(next(iter(answers.values())))
    people = {"respondent": np.arange(1, count + 1), "country": "DEU", "weight": 7.0}
    return pd.DataFrame(people | answers)


def surveyed(people, *others):
    """Return microdata as a survey, beside aggregates of other countries."""
    return Survey(pd.concat([marginals_of(people, ITEMS), *others], ignore_index=True), people)


def shares_of(country, n=1000.0, **shares):
    rows = [
        (qid, country, option, share, n, "A")
        for qid, values in shares.items()
        for option, share in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows, columns=["qid", "country", "option", "share", "n", "tier"])


def answered(*rows):
    return pd.DataFrame(rows, columns=["qid", "respondent", "score"]).astype(
        {"respondent": "Int64", "score": float}
    )


# reading

TEXT = "QUESTION_ID\tPARTICIPANT_ID\tSCORE\nQ1\t156070594\t4\nQ2\t608070097\t3\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "header",
    [
        "QUESTION_ID\tPARTICIPANT_ID\tSCORE",
        "qid\trespondent\tanswer",
        "Question\tD_INTERVIEW\tScore",
    ],
)
def test_every_form_is_read_alike(tmp_path, separator, bom, end, header):
    path = tmp_path / "answers.txt"
    text = TEXT.replace("QUESTION_ID\tPARTICIPANT_ID\tSCORE", header)
    path.write_bytes((bom + text.replace("\t", separator).replace("\n", end)).encode())
    expected = answered(("Q1", 156070594, 4), ("Q2", 608070097, 3))
    pd.testing.assert_frame_equal(read_scores(path), expected)


def test_columns_may_stand_anywhere_beside_others(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text(
        'question,model output,answer,SCORE,qid,participant\n'
        '"How important, in life, is family?","I think\n4",very,4,Q1,12\n'
    )  # fmt: skip
    pd.testing.assert_frame_equal(read_scores(path), answered(("Q1", 12, 4)))


def test_what_is_no_whole_number_is_not_mapped(tmp_path):
    path = tmp_path / "answers.csv"
    written = ["3", " 3 ", "3.0", "3.5", "three", "", "nan", "inf", "Option 3", "-1", "9"]
    rows = "".join(f"Q1,7,{score}\n" for score in written)
    path.write_text("qid,respondent,score\n" + rows)
    expected = [3, 3, 3, *[np.nan] * 6, -1, 9]
    np.testing.assert_array_equal(read_scores(path)["score"], expected)


def test_an_id_that_is_no_whole_number_is_nobody(tmp_path):
    path = tmp_path / "answers.csv"
    written = ["12", "1.5", "inf", "-inf", "1e30", "9007199254740992", "nan", "ann", "", "-1"]
    path.write_text("qid,respondent,score\n" + "".join(f"Q1,{one},1\n" for one in written))
    read = read_scores(path)
    assert read["respondent"].tolist() == [12, *[pd.NA] * 9]
    row = score_answers(read, microdata(Q1=[1] * 12), ITEMS).iloc[0]
    assert row[["answered", "invalid", "unmatched"]].tolist() == [1, 0, 9]


@pytest.mark.parametrize("missing", ["QUESTION_ID", "PARTICIPANT_ID", "SCORE"])
def test_a_missing_column_is_named(tmp_path, missing):
    path = tmp_path / "answers.tsv"
    path.write_text(TEXT.replace(missing, "OTHER"))
    with pytest.raises(StudyError, match=rf"answers\.tsv, {missing}: the column is missing"):
        read_scores(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("qid,respondent,score\n", "holds no answers"),
        ("", "QUESTION_ID: the column is missing"),
        ("qid,respondent,score\nQ1,1,2,3,4\nQ1,1\n", "is damaged"),
    ],
)
def test_a_file_without_answers_is_told(tmp_path, content, told):
    path = tmp_path / "answers.csv"
    path.write_text(content)
    with pytest.raises(StudyError, match=told):
        read_scores(path)
    with pytest.raises(StudyError, match="is missing"):
        read_scores(tmp_path / "none.csv")


# scoring


def test_the_example_of_worldvaluesbench():
    # the input of their sample_input.tsv and the results of their README; answers that give them
    people = microdata(Q1=[1, 1, np.nan, np.nan], Q2=[np.nan, np.nan, 1, 2])
    scores = answered(("Q1", 1, 4), ("Q1", 2, 4), ("Q2", 3, 3), ("Q2", 4, 4))
    table = score_answers(scores, people, ITEMS).set_index("qid")
    assert table[EMD].to_dict() == pytest.approx({"Q1": 1.0, "Q2": 2 / 3})
    assert table["accuracy"].to_dict() == {"Q1": 0, "Q2": 0}
    # 1 - 3/3 twice; 1 - 2/3 twice
    assert table["closeness"].to_dict() == pytest.approx({"Q1": 0, "Q2": 1 / 3})


def test_participants_with_an_invalid_score_stay_among_the_people():
    people = microdata(Q1=[1, 1, 4, 4])
    scores = answered(("Q1", 1, 1), ("Q1", 2, 2), ("Q1", 3, np.nan), ("Q1", 4, 5))
    row = score_answers(scores, people, ITEMS).iloc[0]
    assert row[["qid", "topic", "answered", "invalid"]].tolist() == ["Q1", "about Q1", 2, 2]
    # people at 0, 0, 1, 1 and answers at 0 and 1/3: half stays at 0, half goes from 1/3 to 1
    assert row[EMD] == pytest.approx(0.5 * 0 + 0.5 * 2 / 3)
    assert row[EMD] == pytest.approx(wasserstein_distance([0, 0, 1, 1], [0, 1 / 3]))
    assert row["accuracy"] == 0.5
    assert row["closeness"] == pytest.approx((1 + 2 / 3) / 2)
    model, theirs = np.array([0.5, 0.5, 0, 0]), np.array([0.5, 0, 0, 0.5])
    assert row["js_distance"] == pytest.approx(js_distance(model, theirs))
    assert row["kl_release"] == pytest.approx(kl_release(model, theirs, 0.5))


def test_askings_of_strangers_and_of_those_without_an_answer_are_left_out():
    people = microdata(Q1=[1, np.nan, 2], Q7=[1, 1, 2])
    scores = answered(("Q1", 1, 1), ("Q1", 2, 4), ("Q1", 99, 4), ("Q1", pd.NA, 4), ("Q99", 1, 1))
    table = score_answers(scores, people, ITEMS)
    assert table["qid"].tolist() == ["Q1"]
    assert table[["answered", "invalid", "unmatched"]].iloc[0].tolist() == [1, 0, 3]
    assert table["accuracy"].tolist() == [1]
    assert table["js_distance"].tolist() == [0]


def test_an_item_without_a_valid_score_has_no_numbers():
    people = microdata(Q1=[1, 2], Q7=[1, 2])
    scores = answered(("Q1", 1, np.nan), ("Q7", 1, 1), ("Q7", 2, 3))
    table = score_answers(scores, people, ITEMS).set_index("qid")
    assert table.loc["Q1", [*MEASURES, EMD]].isna().all()
    assert table.loc["Q1", ["answered", "invalid"]].tolist() == [0, 1]
    assert table.loc["Q7", [*MEASURES, EMD]].notna().all()
    assert set(score_summary(scores, surveyed(people), ITEMS)["items"]) == {1}
    with pytest.raises(StudyError, match="No answer is the code of an option"):
        score_summary(scores[:1], surveyed(people), ITEMS)


def test_weights_do_not_matter_for_the_people_asked():
    people = microdata(Q7=[1, 2]).assign(weight=[1.0, 9.0])
    scores = answered(("Q7", 1, 1), ("Q7", 2, 2), ("Q7", 2, 2), ("Q7", 1, 1))
    assert score_answers(scores, people, ITEMS)["js_distance"].tolist() == [0]


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.one_of(st.integers(-1, 6), st.just(np.nan))),
        min_size=1,
        max_size=25,
    )
)
@settings(max_examples=80, deadline=None)
def test_measures_are_those_of_the_single_answers(pairs):
    own = np.array([a for a, _ in pairs], dtype=float)
    given_scores = np.array([b for _, b in pairs], dtype=float)
    scores = answered(*(("Q1", i, b) for i, b in enumerate(given_scores, start=1)))
    row = score_answers(scores, microdata(Q1=own), ITEMS).iloc[0]
    valid = (given_scores >= 1) & (given_scores <= 4)
    assert (row["answered"], row["invalid"]) == (valid.sum(), (~valid).sum())
    if not valid.any():
        assert np.isnan(row[EMD])
        return
    emd = wasserstein_distance((own - 1) / 3, (given_scores[valid] - 1) / 3)
    assert row[EMD] == pytest.approx(emd, abs=1e-12)
    assert row["wasserstein_1"] == pytest.approx(emd, abs=1e-12)
    assert row["accuracy"] == pytest.approx((own == given_scores)[valid].mean())
    assert row["closeness"] == pytest.approx(1 - np.abs(own - given_scores)[valid].mean() / 3)


def test_against_shares_accuracy_and_closeness_are_expected_ones():
    people = {"Q1": np.array([0.5, 0.25, 0.25, 0]), "Q2": np.full(4, 0.25)}
    scores = answered(("Q1", pd.NA, 1), ("Q1", pd.NA, 3), ("Q1", pd.NA, 7))
    table = score_answers(scores, people, ITEMS)
    row = table.iloc[0]
    assert table["qid"].tolist() == ["Q1"]
    assert row[["answered", "invalid", "unmatched"]].tolist() == [2, 1, 0]
    assert row["accuracy"] == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    # |x - y|/3 over all pairs: of 1 with 1, 2, 3 and of 3 with 1, 2, 3
    apart = 0.5 * (0 * 0.5 + 1 * 0.25 + 2 * 0.25) / 3 + 0.5 * (2 * 0.5 + 1 * 0.25 + 0) / 3
    assert row["closeness"] == pytest.approx(1 - apart)
    # cumulated 0.5, 0.75, 1 against 0.5, 0.5, 1
    assert row[EMD] == pytest.approx(0.25 / 3)


def test_the_summary_sets_the_answers_beside_uniform_and_majority():
    people = microdata(Q1=[1, 1, 1, 4], Q7=[1, 2, 2, 2])
    scores = answered(*(("Q1", i, 1) for i in (1, 2, 3, 4)), *(("Q7", i, 2) for i in (1, 2, 3, 4)))
    summary = score_summary(scores, surveyed(people), ITEMS).set_index("line")
    lines = ["answers", "human floor", "uniform", "majority", "best constant"]
    assert summary.index.tolist() == lines
    assert set(summary["items"]) == {2}
    # whoever always names the majority is the majority line
    np.testing.assert_allclose(
        summary.loc["answers", [*MEASURES, EMD]].astype(float),
        summary.loc["majority", [*MEASURES, EMD]].astype(float),
    )
    assert summary.loc["uniform", "accuracy"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert summary.loc["majority", "accuracy"] == pytest.approx(3 / 4)
    # Q1: uniform 0, 1/3, 2/3, 1 each 1/4 against 0 (3/4) and 1 (1/4); Q7: a quarter moves by 1
    q1 = wasserstein_distance([0, 1 / 3, 2 / 3, 1], [0, 0, 0, 1])
    assert summary.loc["uniform", EMD] == pytest.approx((q1 + 0.25) / 2)


def test_the_floor_is_of_halves_of_the_participants_whole_country():
    rng = np.random.default_rng(3)
    people = microdata(Q1=rng.integers(1, 5, 60), Q7=rng.integers(1, 3, 60))
    people["weight"] = rng.uniform(0.5, 2, 60)
    foreign = people.assign(country="JPN", respondent=people["respondent"] + 100, Q1=1.0, Q7=1.0)
    both = pd.concat([people, foreign], ignore_index=True)
    scores = answered(*(("Q1", i, 1) for i in range(1, 9)), *(("Q7", i, 2) for i in range(1, 5)))
    summary = score_summary(scores, surveyed(both), ITEMS, seed=5).set_index("line")
    halves = split_halves(people, ITEMS, 5)
    floor = np.mean([js_distance(*halves[qid]).mean() for qid in ("Q1", "Q7")])
    js = summary["js_distance"]
    assert js["human floor"] == pytest.approx(floor)
    # the people are the very participants asked, of whom the Japanese are none
    theirs = [
        np.bincount(people[qid][:count].astype(int), minlength=k + 1)[1:] / count
        for qid, count, k in (("Q1", 8, 4), ("Q7", 4, 2))
    ]
    first = np.mean([js_distance(np.eye(len(p))[0], p) for p in theirs])
    assert js["nearest other country"] == js["mean other country"] == pytest.approx(first)
    assert summary.loc["nearest other country", "detail"] == "JPN"
    assert js["best constant"] <= first
    # 0 at uniform, 1 at the floor, and on a straight line between
    assert summary.loc[["uniform", "human floor"], NORMALISED].tolist() == [0, 1]
    on_the_way = normalised_score(js["answers"], js["uniform"], js["human floor"])
    assert summary.loc["answers", NORMALISED] == pytest.approx(on_the_way)


def test_against_shares_the_floor_comes_from_draws_and_falls_with_n():
    q1, q7 = [0.4, 0.3, 0.2, 0.1], [0.5, 0.5]
    scores = answered(("Q1", pd.NA, 1), ("Q7", pd.NA, 2))
    japan = shares_of("JPN", Q1=[0.25] * 4, Q7=q7)
    floors = {}
    for n in (100.0, 10_000.0):
        known = Survey(pd.concat([shares_of("DEU", n, Q1=q1, Q7=q7), japan], ignore_index=True))
        summary = score_summary(scores, known, ITEMS, "DEU").set_index("line")
        floors[n] = summary.loc["human floor", "js_distance"]
        # whoever answers evenly where Japan does lies as far as Japan
        assert summary.loc["nearest other country", "js_distance"] == pytest.approx(
            summary.loc["uniform", "js_distance"]
        )
    # chance shrinks with the root of n
    assert floors[100.0] / floors[10_000.0] == pytest.approx(10, rel=0.2)


def test_participants_of_several_countries_have_no_other_country():
    people = microdata(Q7=[1, 2, 1, 2]).assign(country=["DEU", "DEU", "JPN", "JPN"])
    scores = answered(*(("Q7", i, 1) for i in (1, 2, 3, 4)))
    known = surveyed(people, shares_of("FRA", Q7=[0.5, 0.5]))
    lines = set(score_summary(scores, known, ITEMS)["line"])
    assert lines == {"answers", "human floor", "uniform", "majority", "best constant"}
    assert whose_note(scores, known, ITEMS) == "Participants from 2 countries: DEU, JPN."
    assert "nearest other country" in set(score_summary(scores, known, ITEMS, "DEU")["line"])


def test_whose_answers_count_is_said_with_n_and_tier():
    scores = answered(("Q7", 1, 1), ("Q7", 2, 1))
    people = microdata(Q1=[1, 2, 3], Q7=[1, 2, 2])
    told = whose_note(scores, surveyed(people), ITEMS)
    assert told == "DEU: 1 of 1 items compared (tier microdata, n 3 to 3)."
    told = whose_note(scores, Survey(shares_of("GBR", 90, Q7=[0.5, 0.5])), ITEMS, "GBR")
    assert told == "GBR: 1 of 1 items compared (tier A, n 90 to 90)."


def test_unknown_items_and_strangers_are_told():
    people = microdata(Q1=[1, 2])
    with pytest.raises(StudyError, match="found 'Important in life' as a question"):
        score_answers(answered(("Important in life", 1, 1)), people, ITEMS)
    with pytest.raises(StudyError, match="None of the participants asked has an answer"):
        score_answers(answered(("Q1", 98, 1), ("Q1", 99, 1)), people, ITEMS)


# the people


def test_the_people_are_those_of_the_country_named():
    people = microdata(Q1=[1, 4]).assign(country=["DEU", "JPN"])
    known = surveyed(people, shares_of("FRA", Q7=[0.5, 0.5]))
    assert choose_people(known, ITEMS)["Q1"].tolist() == [1, 4]
    assert choose_people(known, ITEMS, "JPN")["respondent"].tolist() == [2]
    # of France only shares are known, which don't answer for single participants
    with pytest.raises(StudyError, match=r"--country: .* none from 'FRA'; choose among DEU, JPN"):
        choose_people(known, ITEMS, "FRA")
    shares = Survey(shares_of("DEU", Q7=[0.25, 0.75]))
    assert choose_people(shares, ITEMS, "DEU")["Q7"].tolist() == [0.25, 0.75]
    with pytest.raises(StudyError, match=r"--country: .* name the one .* among DEU"):
        choose_people(shares, ITEMS)
    with pytest.raises(StudyError, match=r"--country: .* none from 'FRA'; choose among DEU"):
        choose_people(shares, ITEMS, "FRA")
