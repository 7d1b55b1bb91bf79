"""The pictures of a paper: ablations, size, the items that moved, and the paper's own numbers.

Plain frames in, a figure out, as in `clca_utils.figures`; as wide as a page of text, so that their
letters are read in print. Where there are two conditions, one is hollow, so grey will do.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from clca_utils.dataset_statistics import READ
from clca_utils.figures import BLUE, GREY, ORANGE, PALETTE, canvas, legend_above, themed
from clca_utils.measures import MEASURES
from clca_utils.study_tables import method_rows
from clca_utils.survey_figures import JS_AXIS, UNIFORM

WIDTH = 6.3
"""Inches; that of a page's text."""

MANY = 6
"""Cultures and models in one figure; of more, each culture or model gets its own."""


def in_parts(table: pd.DataFrame, by: str) -> dict[str, pd.DataFrame]:
    """Return a table whole, under "", or if it is of too many cultures and models, in parts.

    Args:
        table: Has the columns culture and model.
        by: Which of the two makes a part; its value, after an underscore, is the part's name.
    """
    if len(table[["culture", "model"]].drop_duplicates()) <= MANY:
        return {"": table}
    return {f"_{name}": part for name, part in table.groupby(by, sort=True)}


def few_models(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return a table by model whole, or if it is of too many models, without the controls' rows."""
    return matrix if matrix["model"].nunique() <= MANY else method_rows(matrix)


def _panels(
    count: int, columns: int, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels; those left over are taken out."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, panels = canvas(WIDTH, height * rows + 0.5, rows, columns, sharey)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _with_intervals(axes: Axes, rows: pd.DataFrame, value: str, colour: str) -> None:
    """Draw a value per row with its interval; filled where it is clear."""
    at = np.arange(len(rows))
    axes.hlines(at, rows["low"], rows["high"], color=colour, linewidth=1.3)
    faces = [colour if clear else "white" for clear in rows["clear"]]
    axes.scatter(rows[value], at, 18, c=faces, edgecolors=colour, zorder=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


@themed
def ablation_figure(table: pd.DataFrame) -> Figure:
    """Show how much closer to the people the method ends than each of its variants.

    A panel per model, a row per variant: the method's mean Jensen-Shannon distance minus the
    variant's over the items of all cultures, with 95 % intervals over the items. Left of the line
    the method is closer, so what the variant leaves out helps. Filled: clear after correction for
    the number of rows (Holm).

    Args:
        table: What `ablations.ablation_table` returns.
    """
    shown = table[table["difference"].notna() & (table["verdict"] != "")]
    variants = list(dict.fromkeys(shown["variant"]))
    models = list(dict.fromkeys(shown["model"]))
    figure, panels = _panels(len(models), 3, 0.7 + 0.2 * len(variants), sharey=True)
    for axes, model in zip(panels, models, strict=True):
        rows = shown[shown["model"] == model].set_index("variant").reindex(variants).reset_index()
        clear = rows["verdict"].isin(["further", "closer"])
        _with_intervals(axes, rows.assign(clear=clear), "difference", BLUE)
        axes.set_title(model, fontsize=9)
        axes.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(variants)), variants)
    figure.supxlabel(f"{JS_AXIS}: method minus variant\n(left: the method is closer)", fontsize=9)
    return figure


@themed
def scaling_figure(table: pd.DataFrame) -> Figure:
    """Show the distance to the people against the model's size, before and after training.

    Mean Jensen-Shannon distance over cultures, items and seeds, with 95 % intervals over the items;
    the number of parameters on a logarithmic axis. Hollow and dashed: before; filled: after.
    Lines join models of one family; the dark dashed line is guessing evenly.

    Args:
        table: What `scaling.scaling_table` returns.
    """
    figure, [axes] = canvas(WIDTH, 3.2)
    families = table["model"].str.partition("-")[0]
    for place, (family, rows) in enumerate(table.groupby(families, sort=True)):
        colour, marker = PALETTE[place % len(PALETTE)], "osD^vP"[place % 6]
        for state, line, face in (("before", "--", "white"), ("after", "-", colour)):
            ends = rows[[f"{state}_low", f"{state}_high"]].sub(rows[state], axis=0).abs()
            axes.errorbar(
                rows["parameters"], rows[state], ends.to_numpy().T, color=colour, ls=line,
                marker=marker, mfc=face, mec=colour, ms=5, lw=1.3, elinewidth=0.8, capsize=2,
                label=f"{family}, {state}",
            )  # fmt: skip
    axes.axhline(table["uniform"].mean(), color=UNIFORM, ls=(0, (5, 3)), lw=1, label="uniform line")
    axes.set_xscale("log")
    axes.set_xticks(_apart(table["parameters"]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8, rotation=45)
    axes.margins(x=0.08)
    axes.set(xlabel="parameters", ylabel=JS_AXIS.replace(" to", "\nto"))
    legend_above(axes, columns=3)
    return figure


def _apart(sizes: Iterable[float], ratio: float = 1.15) -> list[float]:
    """Return the sizes, smallest first, that are not nearly that of the one before."""
    kept: list[float] = []
    for size in sorted(sizes):
        if not kept or size >= ratio * kept[-1]:
            kept.append(size)
    return kept


def _size(parameters: float) -> str:
    """Return a number of parameters as it is called: 135M, 1.5B."""
    unit, word = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
    return f"{parameters / unit:.3g}{word}"


@themed
def most_moved_figure(table: pd.DataFrame) -> Figure:
    """Show the items whose answers training moved most, towards the people or away.

    A panel per culture and model; the change of an item's Jensen-Shannon distance to the people,
    mean over the seeds with 95 % intervals over them, if there are several. Left of the line the
    item came closer. Filled: clear after correction for all items of the study (Holm).

    Args:
        table: What `moved_items.most_moved` returns.
    """
    groups = list(table.groupby(["culture", "model"], sort=False))
    most = max(len(rows) for _, rows in groups)
    figure, panels = _panels(len(groups), 2, 0.75 + 0.19 * most)
    for axes, ((culture, model), rows) in zip(panels, groups, strict=True):
        for colour, closer in ((BLUE, True), (ORANGE, False)):
            side = (rows["change"] < 0) == closer
            faded = rows.where(side)
            _with_intervals(axes, faded.assign(clear=rows["clear"]), "change", colour)
        names = [f"{row.topic} {row.qid}" for row in rows.itertuples()]
        axes.set_yticks(range(len(rows)), names, fontsize=7.5)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(f"{culture}, {model}", fontsize=9, loc="right")
    figure.supxlabel(f"change of {JS_AXIS} (left: closer)", fontsize=9)
    return figure


SHORT = {"kl_release": "KL as released", "js_distance": "JS distance (base 2)",
         "accuracy": "accuracy"}  # fmt: skip


@themed
def published_figure(table: pd.DataFrame, uniform: Mapping[str, float] | None = None) -> Figure:
    """Show the paper's own numbers beside this study's, which do not measure quite the same.

    Circles: this study, options in the questionnaire's own order; squares, grey: read from the
    paper. Hollow: before (the paper: its persona prompt); filled: after. KL is computed as in the
    published code; for KL and JS distance left is closer, for accuracy right is better. Dashed:
    guessing evenly, for this study's cultures.

    Args:
        table: What `published.side_by_side` returns; its rows of ablations are left out.
        uniform: What guessing evenly comes to, by measure.
    """
    shown = table[~table["model"].str.contains("+", regex=False)].reset_index(drop=True)
    metrics = list(dict.fromkeys(name.rpartition(" ")[0] for name in shown.columns[2:]))
    figure, panels = canvas(WIDTH, 1.6 + 0.2 * len(shown), 1, len(metrics), sharey=True)
    paper = (shown["source"] == READ).to_numpy()
    at = np.arange(len(shown)) + 0.6 * paper
    for axes, metric in zip(panels, metrics, strict=True):
        before, after = shown[f"{metric} before"], shown[f"{metric} after"]
        for side, marker, colours in ((~paper, "o", (ORANGE, BLUE)), (paper, "s", (GREY, GREY))):
            axes.hlines(at[side], before[side], after[side], color=colours[1], linewidth=1)
            axes.scatter(
                before[side], at[side], 20, "white", marker=marker, edgecolors=colours[0], zorder=3
            )
            axes.scatter(after[side], at[side], 20, colours[1], marker=marker, zorder=4)
        if uniform and np.isfinite(uniform.get(metric, np.nan)):
            axes.axvline(uniform[metric], color=UNIFORM, linestyle="--", linewidth=1)
        better = "left" if MEASURES[metric].better == "lower" else "right"
        axes.set_xlabel(f"{SHORT[metric]}\n({better} is better)", fontsize=8.5)
        axes.tick_params(labelsize=8)
        axes.grid(visible=False, axis="y")
    names = shown["model"] + np.where(paper, " (paper)", "")
    panels[0].set_yticks(at, names)
    panels[0].set_ylim(at[-1] + 0.6, -0.6)
    style: dict[str, Any] = {"linestyle": "", "markersize": 5}
    handles = [
        Line2D([], [], marker="o", mec=ORANGE, mfc="white", label="this study, before", **style),
        Line2D([], [], marker="o", color=BLUE, label="this study, after", **style),
        Line2D([], [], marker="s", mec=GREY, mfc="white", label=f"{READ}, before", **style),
        Line2D([], [], marker="s", color=GREY, label=f"{READ}, after", **style),
    ]
    if uniform:
        handles.append(Line2D([], [], color=UNIFORM, linestyle="--", label="guessing evenly"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8)
    return figure
