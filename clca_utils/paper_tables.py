"""Tables as a paper prints them: every one as CSV, with all its digits, and as LaTeX beside it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from clca_utils.files import write_text
from clca_utils.study_tables import by_model, method_rows
from clca_utils.uncertainty import interval

LONG = 40
"""More rows than this do not fit on a page: such a table may break over several."""

WIDE = 7
"""More columns than this are made to fit: scaled to the width of the text, or in small print."""

SMALL = r"{\scriptsize\setlength{\tabcolsep}{2pt}"

LINES = {
    "uniform": "uniform",
    "human_floor": "human floor",
    "nearest_country": "nearest other country",
    "majority": "majority",
    "best_constant": "best constant",
}
"""Reference lines as named in metrics, and in the main table."""


def write_tables(
    table: pd.DataFrame,
    folder: Path,
    name: str,
    caption: str,
    printed: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table,
) -> None:
    """Write a table as <folder>/<name>.csv and <name>.tex, without its index.

    Args:
        table: The table.
        folder: Where to.
        name: What it is called.
        caption: What it shows, in plain words.
        printed: What of it LaTeX prints, such as fewer rows.
    """
    write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_text(folder / f"{name}.tex", latex(printed(table), name, caption))


def latex(table: pd.DataFrame, name: str, caption: str, decimals: int = 3) -> str:
    r"""Return a table in LaTeX, for the packages booktabs, graphicx (wide) and longtable (long).

    Args:
        table: The table; its index is left out.
        name: Of the label, `tab:<name>`.
        caption: What it shows, in plain words.
        decimals: Of its numbers; what is missing is a dash.
    """
    shown = table.rename(columns=lambda column: str(column).replace("_", " "))
    style = shown.style.hide(axis="index").format_index(escape="latex", axis="columns")
    style = style.format(precision=decimals, escape="latex", na_rep="--")
    long = len(table) > LONG
    kinds = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    text = style.to_latex(
        hrules=True,
        caption=caption.replace("%", r"\%").replace("_", r"\_"),
        label=f"tab:{name}",
        environment="longtable" if long else "table",
        position_float=None if long else "centering",
        column_format="".join("r" if number else "l" for number in kinds),
    )
    if len(table.columns) <= WIDE:
        return text
    if long:
        return f"{SMALL}\n{text}}}\n"
    fitted = text.replace(r"\begin{tabular}", r"\resizebox{\linewidth}{!}{\begin{tabular}")
    return fitted.replace(r"\end{tabular}", r"\end{tabular}}")


def without(*columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what leaves out columns of a table, as `write_tables` takes it."""
    return lambda table: table.drop(columns=list(columns))


def main_table(
    summary: pd.DataFrame, by_item: pd.DataFrame, found: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Return the main table: each model and culture before and after, with intervals and lines.

    Args:
        summary: What `report.summary_table` returns.
        by_item: What `study_tables.item_distances` returns.
        found: What `study_tables.study_table` returns.
        seed: Of the bootstrap.

    Returns:
        One row per model and culture of the method: model, culture, seeds; before and after (mean
        Jensen-Shannon distances to the people) and change, each with its 95 % interval over the
        items, `<name>_low` and `<name>_high`; the reference lines of `LINES`; score before and
        after; p_holm and verdict as in the summary.
    """
    table = method_rows(summary.reset_index())
    distances = by_model(by_item)
    keys = [*zip(table["culture"], table["model"], strict=True)]
    means = [distances[key].groupby("qid")[["before", "after"]].mean() for key in keys]
    for name in ("before", "after"):
        spans = [interval(one[name], seed) for one in means]
        table[[f"{name}_low", f"{name}_high"]] = np.array(spans).reshape(-1, 3)[:, 1:]
    table = table.rename(columns={"low": "change_low", "high": "change_high"})
    names = {f"js_distance_{name}": title for name, title in LINES.items()}
    known = found.reindex(columns=["culture", "model", *names]).groupby(["culture", "model"]).mean()
    lines = known.rename(columns=names).reset_index()
    table = table.drop(columns=[*set(names.values()) & set(table)])
    ends = [
        f"{name}{end}" for name in ("before", "after", "change") for end in ("", "_low", "_high")
    ]
    columns = ["model", "culture", "seeds", *ends, *LINES.values()]
    columns += ["score before", "score after", "p_holm", "verdict"]
    return table.merge(lines, on=["culture", "model"])[columns].sort_values(["model", "culture"])


def with_intervals(table: pd.DataFrame, names: list[str], decimals: int = 3) -> pd.DataFrame:
    """Return a table for readers: each number and its interval in one cell, "0.331 [0.301, 0.360]".

    Args:
        table: Has the columns `<name>`, `<name>_low` and `<name>_high` of each of `names`.
        names: Of the numbers.
        decimals: That are shown.
    """
    told = table.copy()
    for name in names:
        ends = table[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
        told[name] = [
            f"{x:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]" for x, low, high in ends
        ]
    return told.drop(columns=[f"{name}_{end}" for name in names for end in ("low", "high")])
