"""A model beside a people: known answers give known distances, and tables read back the same."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from clca_utils import figures
from clca_utils.comparison import Comparison, compare, read_comparison, write_comparison
from clca_utils.culture import load_culture
from clca_utils.files import StudyError
from clca_utils.measures import MEASURES, line_summary
from clca_utils.survey import country_shares, load_items, load_marginals

ITEMS = load_items()
MARGINALS = load_marginals()
NAMES = [field.name for field in fields(Comparison)]


def answers(iso3: str, belief, variant: str = "before") -> pd.DataFrame:
    """Answer all items of a country in all orders; `belief(p, order)` gives each option's share."""
    rows = []
    for qid, p in country_shares(MARGINALS, iso3, ITEMS).items():
        for order in range(len(p)):
            with np.errstate(divide="ignore"):
                logprobs = np.log(belief(p, order))
            for option, logprob in enumerate(logprobs):
                position = (option - order) % len(p) + 1
                rows.append((variant, 0, qid, order, option + 1, position, logprob))
    columns = ["variant", "respondent", "qid", "order", "option", "position", "logprob"]
    return pd.DataFrame(rows, columns=columns)


def says_one(p, order):
    """Put all on the option shown first."""
    return np.eye(len(p))[order]


def compared(culture: str, frame: pd.DataFrame, marginals=MARGINALS) -> Comparison:
    return compare(frame, load_culture(culture), marginals, ITEMS, seed=1)


@pytest.fixture(scope="module")
def german():
    """Compare a model that answers as the people with one that always says 1."""
    both = [answers("DEU", lambda p, _: p), answers("DEU", says_one, "after")]
    return compared("german", pd.concat(both))


def rows(seen: Comparison, variant: str, orders: str) -> pd.DataFrame:
    table = seen.items[(seen.items["variant"] == variant) & (seen.items["orders"] == orders)]
    return table.set_index("qid")


@pytest.mark.parametrize("orders", ["all", "first"])
def test_a_model_that_answers_as_the_people_is_at_no_distance(german, orders):
    table = rows(german, "before", orders)
    assert len(table) == 44
    for name in ("js_distance", "kl_people_model", "kl_model_people", "total_variation"):
        assert table[name].abs().max() < 1e-7


@pytest.mark.parametrize(
    ("orders", "line"), [("first", "always option 1"), ("all", "uniform")]
)  # fmt: skip
def test_a_model_that_always_says_1_is_on_a_line(german, orders, line):
    measured = rows(german, "after", orders)
    lines = german.references[german.references["line"] == line].set_index("qid")
    for name in MEASURES:
        assert measured[name].to_numpy() == pytest.approx(lines[name][measured.index].to_numpy())
    summary = line_summary(german.references).set_index("line")
    assert measured["js_distance"].mean() == pytest.approx(summary.loc[line, "js_distance"])
    assert measured["js_distance"].mean() > 0.3


def test_a_model_that_always_says_1_fills_the_first_position(german):
    table = german.positions[german.positions["variant"] == "after"]
    first = table["position"] == 1
    assert table["share"][first].tolist() == pytest.approx([1] * first.sum())
    assert table["share"][~first].abs().max() == 0


def test_people_and_model_are_told_apart(german):
    assert german.country == "Germany"
    wanted = country_shares(MARGINALS, "DEU", ITEMS)
    assert {qid: p.tolist() for qid, p in german.people.items()} == {
        qid: p.tolist() for qid, p in wanted.items()
    }
    assert set(german.model_shares["variant"]) == {"before", "after"}
    assert german.note == "DEU: 44 of 44 items compared."


def test_the_tables_read_back_the_same(german, tmp_path):
    write_comparison(german, tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {f"{n}.csv" for n in NAMES}
    back = read_comparison(tmp_path / "tables")
    for name in NAMES:
        written = getattr(german, name).reset_index(drop=True)
        assert_frame_equal(getattr(back, name), written, rtol=0, atol=1e-15)
    assert (back.country, back.note) == (german.country, german.note)
    write_comparison(back, tmp_path / "again")
    for name in NAMES:
        first, second = (tmp_path / folder / f"{name}.csv" for folder in ("tables", "again"))
        assert first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def british():
    return compared("british", answers("GBR", lambda p, _: p))


def test_low_trust_and_missing_items_are_noted(british, tmp_path):
    assert "15 of 44 items compared; all of them of low trust (tiers C2 and D)" in british.note
    assert "left out: no data (29 items)" in british.note
    assert british.items["qid"].nunique() == len(british.people) == 15
    write_comparison(british, tmp_path)
    assert read_comparison(tmp_path).note == british.note


def test_missing_tiers_read_back_as_they_were(british, tmp_path):
    write_comparison(british, tmp_path)
    assert_frame_equal(read_comparison(tmp_path).coverage, british.coverage)


def test_a_country_without_data_is_told():
    others = MARGINALS[MARGINALS["country"] != "DEU"]
    with pytest.raises(StudyError, match="no answers of the people of DEU"):
        compared("german", answers("DEU", lambda p, _: p), others)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_table_is_named(german, tmp_path, name):
    write_comparison(german, tmp_path)
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(StudyError, match=rf"{name}\.csv is missing: run 05_wvs_analysis first"):
        read_comparison(tmp_path)


def test_an_order_asked_alone_is_not_called_all_orders():
    asked = answers("DEU", lambda p, _: p)
    alone = compared("german", asked[asked["order"] == 0])
    assert set(alone.items["orders"]) == {"all"}
    labels = [text.get_text() for text in survey_figure(alone).axes[0].get_yticklabels()]
    assert labels
    assert all("fixed order" in label for label in labels)


def survey_figure(seen):
    return figures.distance_figure(seen.items, seen.references, seen.country, seen.note)
