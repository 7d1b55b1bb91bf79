"""The pictures of a whole study: many cultures and models in one figure.

Plain frames in, a figure out, as in `clca_utils.figures`. A dagger marks what rests on people's
data of low trust (tiers C2 and D); on the map such countries are hollow.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from clca_utils.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    VARIANTS,
    canvas,
    legend_above,
    themed,
)
from clca_utils.files import StudyError
from clca_utils.measures import MEASURES, Floats
from clca_utils.references import LINES, normalised_score
from clca_utils.survey import LOW_TRUST
from clca_utils.survey_figures import DAGGER, JS_AXIS, LOW_TRUST_NOTE, UNIFORM


@themed
def study_figure(runs: pd.DataFrame) -> Figure:
    """Show every run's distance to its people before (ring) and after training (dot).

    Mean Jensen-Shannon distance (base 2) over the items, a panel per culture, a line per model, one
    ring and dot per seed. Ticks mark the human floor, the nearest other country and the uniform
    line; right of the uniform line an answer is further from the people than guessing evenly. A
    dagger marks cultures with people's data of low trust.

    Args:
        runs: What `study_tables.study_table` returns.
    """
    asked = _surveyed(runs)
    cultures = list(asked.groupby("culture", sort=True))
    models = sorted(asked["model"].unique())
    columns = min(3, len(cultures))
    rows = -(-len(cultures) // columns)
    longest = 0.075 * max(map(len, models))
    height = rows * (0.6 + 0.36 * len(models)) + 0.9
    figure, panels = canvas(max(1.2 + longest + 1.9 * columns, 6.3), height, rows, columns, True)
    for axes, (culture, group) in zip(panels, cultures, strict=False):
        _study_panel(axes, group, models)
        axes.set_title(_marked(culture, group))
    for axes in panels[len(cultures) :]:
        axes.remove()
    panels[0].set_yticks(range(len(models)), models)
    panels[0].set(ylim=(len(models) - 0.5, -0.5))
    right = max(axes.get_xlim()[1] for axes in panels[: len(cultures)])
    for axes in panels[: len(cultures)]:
        axes.set_xlim(0, right)
    note = f"\n{LOW_TRUST_NOTE}" if _doubtful(asked) else ""
    figure.supxlabel(f"mean {JS_AXIS} (0 same, 1 nothing in common){note}", fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _study_panel(axes: Axes, runs: pd.DataFrame, models: Sequence[str]) -> None:
    """Draw one culture's models, a row each, as `study_figure` describes."""
    marks = {"human_floor": GREEN, "nearest_country": GREY, "uniform": UNIFORM}
    for row, model in enumerate(models):
        group = runs[runs["model"] == model]
        for line, colour in marks.items():
            value = group.get(f"js_distance_{line}", pd.Series(dtype=float)).mean()
            label = line.replace("_", " ") if row == 0 else None
            axes.plot([value] * 2, [row - 0.4, row + 0.4], "-", color=colour, label=label, lw=2)
        before, after = group["js_distance_before"], group["js_distance_after"]
        rows = row + np.linspace(-0.2, 0.2, len(group)) if len(group) > 1 else [row] * len(group)
        axes.hlines(rows, before, after, color=BLUE, linewidth=1)
        labels = ("before", "after") if row == 0 else (None, None)
        axes.scatter(before, rows, 16, fc="white", ec=ORANGE, zorder=3, label=labels[0])
        axes.scatter(after, rows, 16, color=BLUE, zorder=4, label=labels[1])
    axes.grid(visible=False, axis="y")


def _surveyed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have been asked the survey.

    Raises:
        StudyError: None has.
    """
    asked = runs.reindex(columns=list(dict.fromkeys([*runs, "js_distance_before"])))
    asked = asked.dropna(subset=["js_distance_before"])
    if asked.empty:
        raise StudyError("No run of the study has answers yet: run 05_wvs_analysis first.")
    return asked


def _doubtful(runs: pd.DataFrame) -> bool:
    """Tell whether any of the runs rests on people's data of low trust."""
    return bool("low_trust_items" in runs and (runs["low_trust_items"] > 0).any())


def _marked(culture: object, runs: pd.DataFrame) -> str:
    """Return the culture's name, with a dagger where its people's data is of low trust."""
    return f"{culture} {DAGGER}" if _doubtful(runs) else f"{culture}"


HEAT_LINES = ("uniform", "human floor", "majority", "nearest other country", "best constant")
SCORE = "normalised score"


@themed
def heat_map_figure(runs: pd.DataFrame) -> Figure:
    """Show every measure of every culture and model, before and after training.

    Numbers are the measures' values, means over seeds; an arrow says which way is better. Colours
    are one scale for all measures: 0 where an answer is worth as much as guessing evenly (the
    uniform line), 1 where it is as close as two samples of the same people (the human floor),
    negative where it is worse than guessing. Below the gap stand answers that need no model, means
    over the cultures. A dagger marks cultures with people's data of low trust.

    Args:
        runs: What `study_tables.study_table` returns: per run `<measure>_before`,
            `<measure>_after` and `<measure>_<line>`, lines as named in `references.LINES`; maybe
            `low_trust_items`. Measures and lines that are absent are left out.
    """
    asked = _surveyed(runs)
    measures = [name for name in MEASURES if f"{name}_before" in asked]
    models, cells = [], []
    for (culture, model), group in asked.groupby(["culture", "model"], sort=True):
        name = f"{_marked(culture, group)}, {model}"
        variants = [v for v in VARIANTS if group[f"js_distance_{v}"].notna().any()]
        models += [f"{name}: {variants[0]}", *variants[1:]]
        cells += [_scored(group, variant, measures) for variant in variants]
    cultures = [group for _, group in asked.groupby("culture")]
    lines = [line for line in HEAT_LINES if f"js_distance_{LINES[line]}" in asked]
    worth = [np.nanmean([_scored(c, LINES[line], measures) for c in cultures], 0) for line in lines]
    width = 2.2 + 0.075 * max(map(len, models)) + 0.9 * len(cells[0][0])
    figure, [axes] = canvas(width, 1.8 + 0.28 * (len(cells) + len(lines)))
    below = len(cells) + 0.5
    mesh = _heat(axes, np.stack(cells), 0)
    _heat(axes, np.stack(worth), below)
    starts = [row for row, name in enumerate(models) if ":" in name]
    axes.hlines(starts[1:], 0, len(cells[0][0]), color="white", linewidth=4)
    rows = np.r_[np.arange(len(cells)), below + np.arange(len(lines))] + 0.5
    axes.set_yticks(rows, [*models, *lines])
    arrows = {"lower": "↓", "higher": "↑"}
    heads = [f"{MEASURES[name].title} {arrows[MEASURES[name].better]}" for name in measures]
    heads = [textwrap.fill(head, 13) for head in (*heads, f"{SCORE} ↑")]
    axes.set_xticks(np.arange(len(heads)) + 0.5, heads, fontsize=8.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set(xlim=(0, len(heads)), ylim=(below + len(lines), 0))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if _doubtful(asked):
        axes.set_xlabel(LOW_TRUST_NOTE)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.6, aspect=30, extend="both", pad=0.02)
    bar.set_ticks([-1, 0, 1], labels=["-1 as far beyond", "0 uniform", "1 human floor"])
    bar.set_label(SCORE)
    return figure


def _scored(runs: pd.DataFrame, ending: str, measures: Sequence[str]) -> Floats:
    """Return two rows: mean values of the measures, then each one's own normalised score.

    The last column of both is the score of the Jensen-Shannon distance.
    """
    mean = runs.mean(numeric_only=True)
    values = [mean[f"{name}_{ending}"] for name in measures]
    ends = ([mean[f"{name}_{line}"] for name in measures] for line in ("uniform", "human_floor"))
    scores = [normalised_score(*one) for one in zip(values, *ends, strict=True)]
    score = scores[measures.index("js_distance")]
    return np.array([[*values, score], [*scores, score]])


def _heat(axes: Axes, cells: Floats, top: float) -> QuadMesh:
    """Draw rows of cells from the height `top` downwards: values as text, scores as colours."""
    values, scores = cells[:, 0], cells[:, 1]
    edges = np.arange(values.shape[1] + 1), top + np.arange(len(values) + 1)
    style: dict[str, Any] = {"cmap": "RdBu", "vmin": -1.2, "vmax": 1.2, "edgecolor": "white"}
    mesh = axes.pcolormesh(*edges, scores, **style)
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if abs(scores[row, column]) > 0.75 else "black"
        place = (column + 0.5, top + row + 0.5)
        word = f"{value:.3f}" if np.isfinite(value) else "–"
        axes.text(*place, word, color=ink, ha="center", va="center", fontsize=8)
    return mesh


@themed
def controls_figure(table: pd.DataFrame) -> Figure:
    """Show how much closer to the people the method brings a model than each control does.

    Mean difference of the Jensen-Shannon distances, the method's minus the control's, with 95 %
    intervals over the items; left of the line the method is closer. Only if it lies left of every
    control was a culture learnt. Filled: clear after correction for the number of rows (Holm).

    Args:
        table: What `controls.control_table` returns.
    """
    groups = list(table.groupby(["culture", "model"], sort=False))
    controls = list(dict.fromkeys(table["control"]))
    figure, [axes] = canvas(8, 1.4 + (0.12 + 0.16 * len(groups)) * len(controls))
    for place, ((culture, model), rows) in enumerate(groups):
        colour = PALETTE[place % len(PALETTE)]
        across = (place - (len(groups) - 1) / 2) * 0.7 / len(groups)
        at = np.array([controls.index(name) for name in rows["control"]]) + across
        axes.hlines(at, rows["low"], rows["high"], color=colour, linewidth=1.5)
        clear = rows["verdict"] != "not distinguishable"
        for sure, fill in ((True, colour), (False, "white")):
            some = clear == sure
            axes.scatter(rows["difference"][some], at[some], fc=fill, ec=colour, zorder=3)
        axes.plot([], [], "o", color=colour, label=f"{culture}, {model}")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(controls)), controls)
    axes.set(ylim=(len(controls) - 0.5, -0.5))
    axes.set_xlabel(f"{JS_AXIS}:\nmethod minus control (left: the method is closer)")
    legend_above(axes, columns=2)
    return figure


@themed
def matrix_figure(matrix: pd.DataFrame, what: str) -> Figure:
    """Show what the adapter of every culture changes for every culture.

    Rows are the culture that was learnt, columns the one that it was tried on, numbers the change
    by training, means over seeds; blue is a fall. Learning a culture would show as a diagonal
    bluer than the rest of its column.

    Args:
        matrix: What `controls.matrix` returns.
        what: What has changed, for the scale.
    """
    models = sorted(matrix["model"].unique())
    sizes = matrix.groupby("model")[["learnt", "other"]].nunique().max()
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    width, height = 0.62 * sizes["other"] + 1.1, 0.55 * sizes["learnt"] + 1.3
    figure, panels = canvas(width * columns + 1, height * rows + 0.3, rows, columns)
    for axes in panels[len(models) :]:
        axes.remove()
    most = float(matrix["change"].abs().max()) or 1.0
    for axes, model in zip(panels, models, strict=False):
        table = matrix[matrix["model"] == model].pivot(
            index="learnt", columns="other", values="change"
        )
        sns.heatmap(
            table, vmin=-most, vmax=most, cmap="RdBu_r", annot=True, fmt=".3f", ax=axes,
            cbar=False, annot_kws={"fontsize": 8}, linewidths=1, square=True,
        )  # fmt: skip
        axes.set_title(model, fontsize=9)
        axes.set(xlabel="tried on", ylabel="learnt")
        axes.tick_params(length=0)
        axes.tick_params(axis="x", rotation=30)
        axes.tick_params(axis="y", rotation=0)
    shown = panels[: len(models)]
    bar = figure.colorbar(shown[0].collections[0], ax=shown, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label(what)
    return figure


@themed
def cultural_map_figure(
    countries: pd.DataFrame,
    models: pd.DataFrame,
    titles: tuple[str, str],
    uniform: tuple[float, float] | None = None,
) -> Figure:
    """Show where countries lie on the map, and where training moved the models.

    Dots are countries, green where a model was to learn that culture, hollow where the people's
    data is of low trust. Arrows lead from a model's answers before training (ring) to those after
    (dot). The cross is guessing evenly: a model there knows nothing, whatever lies near.

    Args:
        countries: Columns x, y, label (three letters), highlight (bool), tier.
        models: Columns x0, y0 (before), x1, y1 (after, NaN where there is none), label.
        titles: Of the horizontal and the vertical axis, such as `CulturalMap.title` gives.
        uniform: Where the even answer to every item lies.
    """
    figure, [axes] = canvas(8, 7)
    low = countries["tier"].isin(LOW_TRUST)
    for mask, colour, size, label in (
        (~countries["highlight"], GREY, 18, "country"),
        (countries["highlight"], GREEN, 60, "country to be learnt"),
    ):
        for doubt, face in ((~low, colour), (low, "white")):
            some = countries[mask & doubt]
            name = f"{label}, low trust" if face == "white" else label
            if len(some):
                axes.scatter(some["x"], some["y"], size, fc=face, ec=colour, zorder=2, label=name)
    if uniform is not None:
        axes.scatter(*uniform, 70, color="black", marker="X", zorder=3, label="guessing evenly")
    for row in models.dropna(subset=["x1"]).itertuples():
        arrow = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 4, "shrinkB": 3}
        axes.annotate("", (row.x1, row.y1), (row.x0, row.y0), arrowprops=arrow, zorder=4)
    axes.scatter(models["x0"], models["y0"], fc="white", ec=ORANGE, zorder=5, label="model before")
    axes.scatter(models["x1"], models["y1"], color=BLUE, zorder=5, label="model after")
    axes.set(xlabel=titles[0], ylabel=titles[1])
    axes.margins(0.08)
    legend_above(axes, columns=3)
    last = models.assign(x=models["x1"].fillna(models["x0"]), y=models["y1"].fillna(models["y0"]))
    named = pd.concat([last.assign(highlight=True), countries], ignore_index=True)
    start, end = (models[pair].to_numpy(dtype=float) for pair in (["x0", "y0"], ["x1", "y1"]))
    arrows = np.linspace(start, end, 20).reshape(-1, 2)
    evenly = [] if uniform is None else [uniform]
    _name_points(figure, axes, named, [*arrows[np.isfinite(arrows).all(axis=1)], *evenly])
    return figure


def _name_points(figure: Figure, axes: Axes, points: pd.DataFrame, others: Sequence[Any]) -> None:
    """Write each point's label beside it, on the side where it covers least of the others.

    Greedy, those to highlight first: a label once placed stays.

    Args:
        figure: Holds the axes, with every point drawn already.
        axes: Where to write.
        points: Columns x, y, label, highlight.
        others: More places (x, y) to keep free.
    """
    figure.draw_without_rendering()
    places = np.vstack([points[["x", "y"]].to_numpy(dtype=float), *others])
    marks = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(places)]
    taken: list[Bbox] = []
    for row in points.sort_values("highlight", ascending=False, kind="stable").itertuples():
        text = axes.annotate(
            str(row.label),
            (row.x, row.y),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8.5 if row.highlight else 7,
            fontweight="bold" if row.highlight else "normal",
            color="black" if row.highlight else "0.3",
            zorder=6,
        )
        box = text.get_window_extent()
        gap = 8 if row.highlight else 5
        right, up = box.width / 2 + gap, box.height / 2 + gap
        sides = [(right, 0), (-right, 0), (0, up), (0, -up)]
        sides += [(x * 0.8, y * 0.8) for x in (right, -right) for y in (up, -up)]
        moved = [box.translated(*side) for side in sides]
        covered = [
            2 * side.count_overlaps(taken)
            + side.count_overlaps(marks)
            + 4 * (2 - axes.bbox.count_contains([side.min, side.max]))
            for side in moved
        ]
        best = int(np.argmin(covered))
        taken.append(moved[best])
        text.xyann = sides[best][0] * 72 / figure.dpi, sides[best][1] * 72 / figure.dpi
