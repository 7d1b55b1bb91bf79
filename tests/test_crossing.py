"""The uniform line: who is across, and whether what keeps the others behind is found."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils import crossing as line
from clca_utils.comparison import PLACES, Comparison, write_comparison
from clca_utils.crossing import COLUMNS, alignment, crossing, sharpened
from clca_utils.files import write_metrics
from clca_utils.measures import js_distance
from clca_utils.study_tables import item_distances, survey_tables

PEOPLE = {f"Q{n}": np.array([0.1 * n, 0.5 - 0.05 * n, 0.5 - 0.05 * n]) for n in range(1, 9)}


def moved(strength: float) -> dict[str, np.ndarray]:
    """Return answers that lie between the even answer (0) and the people (1), or beyond it (<0)."""
    return {qid: 1 / 3 + strength * (row - 1 / 3) for qid, row in PEOPLE.items()}


@given(st.floats(0.01, 1))
def test_alignment_is_one_towards_the_people_however_faintly_and_minus_one_away(strength):
    found = alignment(moved(strength), PEOPLE, 1)
    assert found.mean == pytest.approx(1)
    assert found.low == pytest.approx(1)
    assert alignment(moved(-strength / 4), PEOPLE, 1).mean == pytest.approx(-1)


def test_the_interval_of_noise_holds_nought_about_as_often_as_it_says():
    draw = np.random.default_rng(3)
    names = [f"Q{n}" for n in range(40)]
    held = 0
    for _ in range(40):
        people, noise = ({qid: draw.dirichlet([size] * 4) for qid in names} for size in (3, 60))
        found = alignment(noise, people, 1)
        held += found.low < 0 < found.high
    assert held >= 34  # of 40; 38 are expected, fewer than 34 come by chance one time in a hundred


def test_an_even_answer_points_nowhere():
    assert np.isnan(alignment(moved(0), PEOPLE, 1)).all()


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0, 4))
def test_sharpening_keeps_order_and_sum_and_power_nought_is_even(parts, power):
    shares = np.array(parts) / sum(parts)
    found = sharpened(shares, power)
    assert found.sum() == pytest.approx(1)
    assert sharpened(shares, 0).tolist() == pytest.approx([1 / len(parts)] * len(parts))
    assert sharpened(shares, 1).tolist() == pytest.approx(shares.tolist())
    assert (np.diff(found[np.argsort(shares)]) >= -1e-12).all()


ODD = {qid: row[::-1] for qid, row in PEOPLE.items()}
"""Answers with nothing of the people's in them."""


def told(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], known: int = len(PEOPLE)
) -> Comparison:
    """Return the tables of a run with such answers; 60 % of them on what stands first.

    Of the people's own, only those to the first items are known.
    """
    who = {"before": before, "after": after, "people": dict(list(PEOPLE.items())[:known])}
    shares = [
        (variant, qid, option, share)
        for variant, rows in who.items()
        for qid, row in rows.items()
        for option, share in enumerate(row, start=1)
    ]
    items = [
        (variant, qid, "work", "calibrated", float(js_distance(row, PEOPLE[qid])))
        for variant in ("before", "after")
        for qid, row in who[variant].items()
        if qid in who["people"]
    ]
    lines = [
        ("uniform", qid, float(js_distance(moved(0)[qid], row)))
        for qid, row in who["people"].items()
    ]
    places = [
        (variant, 3, place, share)
        for variant in ("before", "after")
        for place, share in enumerate((0.6, 0.3, 0.1), start=1)
    ]
    frame = pd.DataFrame
    return Comparison(
        shares=frame(shares, columns=["variant", "qid", "option", "share"]),
        items=frame(items, columns=["variant", "qid", "topic", "reading", "js_distance"]),
        references=frame(lines, columns=["line", "qid", "js_distance"]),
        positions=frame(places, columns=["variant", "scale", "position", "share"]),
        coverage=frame({"qid": ["Q1"], "tier": ["A"], "country": ["Germany"]}),
        places=frame(columns=PLACES),
    )


def standing(study):
    shares, positions = (survey_tables(study, name) for name in ("shares", "positions"))
    return line.standing(item_distances(study), shares, positions)


@pytest.fixture
def study(tmp_path):
    """Return a study in which the untrained model is behind its line and the trained one across."""
    after = {"small": moved(0.5), "small+authored": moved(0.05)}
    for label, answers in after.items():
        for seed in (1, 2) if label == "small" else (1,):
            run = tmp_path / "german" / label / f"seed-{seed}"
            write_metrics(run, "05_wvs_analysis", {"items": 8.0})
            write_comparison(told(ODD, answers), run / "tables")
    return tmp_path


def test_a_study_is_told_who_is_across_and_what_keeps_the_others_behind(study):
    table = standing(study)
    assert list(table) == COLUMNS
    # the untrained model answers once for both
    assert list(zip(table["model"], table["answers"], strict=True)) == [
        ("small", "before"), ("small", "after"), ("small+authored", "after")
    ]  # fmt: skip
    assert table["verdict"].tolist() == ["worse", "better", "better"]
    assert table["first"].tolist() == pytest.approx([0.6] * 3)
    assert table["first_even"].tolist() == pytest.approx([1 / 3] * 3)
    assert table["best_power"][0] == 0  # nothing to sharpen
    assert (table["best_power"][1:] > 1).all()  # on the way, not there yet
    assert table["alignment"].tolist() == pytest.approx([table["alignment"][0], 1, 1])
    assert table["alignment"][0] < 0
    people = [0.5 * np.abs(row - 1 / 3).sum() for row in PEOPLE.values()]
    assert table["uneven"][1:].tolist() == pytest.approx(
        [0.5 * np.mean(people), 0.05 * np.mean(people)]
    )
    assert (table["difference"] - (table["distance"] - table["uniform"])).abs().max() < 1e-9


@pytest.mark.parametrize("known", [1, 2])
def test_items_of_which_the_people_say_nothing_do_not_count(tmp_path, known):
    run = tmp_path / "german" / "small" / "seed-1"
    write_metrics(run, "05_wvs_analysis", {"items": 8.0})
    write_comparison(told(ODD, moved(0.5), known), run / "tables")
    after = standing(tmp_path).set_index("answers").loc["after"]
    assert after["alignment"] == pytest.approx(1)
    assert np.isnan(after["alignment_low"]) == (known == 1)  # one item has nothing to resample
    asked = list(PEOPLE.items())[:known]
    assert after["uniform"] == pytest.approx(
        np.mean([js_distance(moved(0)[qid], row) for qid, row in asked])
    )


def test_the_sentence_names_those_across_and_counts_those_without_aim():
    rows = pd.DataFrame(
        {
            "culture": "german", "model": ["a", "b", "c"], "answers": "after",
            "verdict": ["better", "worse", "not distinguishable"],
            "alignment_low": [0.2, -0.1, 0.1], "best_power": [1.0, 0.0, 0.5],
        }
    )  # fmt: skip
    told = crossing(rows)
    assert told.startswith("1 of 3 sets of answers")
    assert "german, a after." in told
    assert "Of the 2 others, 1 have nothing" in told
    assert "for 1 of them" in told
    assert "guessing evenly." in crossing(rows[1:])
