"""Tables in print: LaTeX that stands on its own, and the main table's numbers."""

import numpy as np
import pandas as pd
import pytest
from test_ablations import distances

from clca_utils.paper_tables import (
    LONG,
    SMALL,
    WIDE,
    latex,
    main_table,
    with_intervals,
    without,
    write_tables,
)
from clca_utils.report import summary_table

TABLE = pd.DataFrame(
    {"model": ["a_b", "50 % & more"], "js_distance": [0.123456, np.nan], "seeds": [3, 1]}
)


def test_a_table_in_latex_is_escaped_ruled_and_labelled():
    lines = latex(TABLE, "some_table", "Distances, 95 % of them.").splitlines()
    assert lines[0] == r"\begin{table}"
    assert lines[-1] == r"\end{table}"
    assert r"\caption{Distances, 95 \% of them.}" in lines
    assert r"\label{tab:some_table}" in lines
    assert r"\begin{tabular}{lrr}" in lines
    assert r"model & js distance & seeds \\" in lines
    assert r"a\_b & 0.123 & 3 \\" in lines
    assert r"50 \% \& more & -- & 1 \\" in lines
    rules = [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert len(rules) == 3


def test_a_long_table_may_break_over_pages():
    long = pd.concat([TABLE] * LONG, ignore_index=True)
    text = latex(long, "long", "Many rows.")
    assert text.startswith(r"\begin{longtable}")
    assert r"\endhead" in text
    assert "\\begin{table}" not in text


def test_a_wide_table_is_made_to_fit():
    wide = pd.DataFrame({f"column {number}": [1.0] for number in range(WIDE + 1)})
    text = latex(wide, "wide", "Many columns.")
    assert r"\resizebox{\linewidth}{!}{\begin{tabular}" in text
    assert r"\end{tabular}}" in text
    long = latex(pd.concat([wide] * (LONG + 1)), "wide", "Many columns and rows.")
    assert long.startswith(SMALL)
    assert long.endswith("\\end{longtable}\n}\n")
    for whole in (text, long):
        assert whole.count("{") == whole.count("}")
    assert r"\resizebox" not in latex(wide.iloc[:, 1:], "narrow", "Fewer.")
    assert SMALL not in latex(wide.iloc[:, 1:], "narrow", "Fewer.")


def test_every_table_is_written_twice(tmp_path):
    write_tables(TABLE, tmp_path, "all", "All.", printed=without("js_distance", "seeds"))
    assert pd.read_csv(tmp_path / "all.csv").equals(TABLE)
    assert r"\begin{tabular}{l}" in (tmp_path / "all.tex").read_text()
    empty = pd.DataFrame(columns=["model", "runs"])
    write_tables(empty, tmp_path, "none", "Nothing.")
    assert (tmp_path / "none.csv").read_text() == "model,runs\n"
    assert r"\end{table}" in (tmp_path / "none.tex").read_text()


def test_a_number_and_its_interval_stand_in_one_cell():
    table = pd.DataFrame({"x": ["a"], "d": [0.1234], "d_low": [-0.1], "d_high": [0.2]})
    told = with_intervals(table, ["d"])
    assert told.to_dict("records") == [{"x": "a", "d": "0.123 [-0.100, 0.200]"}]


def test_the_main_table_has_the_methods_rows_with_intervals_and_lines():
    by_item = distances({"small": 0.0, "small+no-filter": 0.1})
    means = by_item.groupby(["culture", "model", "seed"])[["before", "after"]].mean()
    lines = {"js_distance_uniform": 0.4, "js_distance_human_floor": 0.02,
             "js_distance_majority": 0.5}  # fmt: skip
    found = means.add_prefix("js_distance_").reset_index().assign(**lines)
    table = main_table(summary_table(found, by_item), by_item, found)
    assert table[["model", "culture"]].to_numpy().tolist() == [
        ["small", "german"], ["small", "japanese"]
    ]  # fmt: skip
    for name in ("before", "after", "change"):
        assert (table[f"{name}_low"] <= table[name] + 1e-12).all()
        assert (table[name] <= table[f"{name}_high"] + 1e-12).all()
    assert table["change"].tolist() == pytest.approx([-0.05, -0.05])
    assert table["uniform"].tolist() == [0.4, 0.4]
    assert table["majority"].tolist() == [0.5, 0.5]
    assert table["best constant"].isna().all()
