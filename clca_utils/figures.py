"""The pictures of the study: plain frames in, a matplotlib figure out.

No function reads a file or leaves a figure behind in pyplot, so a notebook shows each figure once
and nothing needs closing. What a docstring says before its arguments is the figure's caption.
"""

import inspect
import io
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from clca_utils.measures import interval, line_summary, share_vectors, total_variation
from clca_utils.survey import SurveyItem

PALETTE = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED, GREY = (PALETTE[place] for place in (0, 1, 2, 3, 7))
VARIANTS = {"before": ORANGE, "after": BLUE}


def theme() -> dict[Any, Any]:
    """Return the one style of all figures, as matplotlib settings.

    Colours that colour-blind readers tell apart, sizes readable in print, the font that comes
    with matplotlib, and SVG text as outlines, so that a figure looks the same everywhere.
    """
    return {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("paper", font_scale=1.1),
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "figure.constrained_layout.w_pad": 0.08,
        "font.sans-serif": ["DejaVu Sans"],
        "legend.columnspacing": 1,
        "legend.frameon": False,
        "legend.handlelength": 1.2,
        "legend.handletextpad": 0.5,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "clca",
    }


themed = mpl.rc_context(theme())


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `figure` as <folder>/<name>.png (150 dots per inch) and .svg; return both paths.

    Each is written whole or not at all, and the same figure gives the same bytes: the layout, which
    moves a little with every drawing, is settled by the first one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        data = io.BytesIO()
        with mpl.rc_context(theme()):
            figure.savefig(data, format=suffix, dpi=150, metadata=metadata)
        path = folder / f"{name}.{suffix}"
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            partial.write_bytes(data.getvalue())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        paths.append(path)
    return paths


def caption(figure_function: Callable[..., Figure]) -> str:
    """Return what a reader should see in a figure: its caption and its alternative text."""
    return " ".join((inspect.getdoc(figure_function) or "").partition("Args:")[0].split())


def _canvas(
    width: float, height: float, rows: int = 1, columns: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure that pyplot has forgotten again, and its panels."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)


def _rotated(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["orders"] == "all"] if "orders" in table else table


def _legend_above(axes: Axes) -> None:
    axes.legend(title="", ncols=5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


@themed
def distance_figure(
    items_table: pd.DataFrame,
    references: pd.DataFrame,
    country: str,
    note: str = "",
    seed: int = 0,
) -> Figure:
    """Show how far the model's answers lie from the people's, before and after training.

    Points are mean Jensen-Shannon distances (base 2), with the options in one fixed order and
    averaged over rotated orders; bars are 95 % bootstrap intervals over items. Further left is
    closer. Dashed lines are answers that need no model; in the shaded region the model is further
    from the people than guessing evenly.

    Args:
        items_table: Rows of `measures.item_table` with a column `orders` ("all" or "first").
        references: What `measures.reference_lines` returns.
        country: The name of the people, for the title.
        note: What to know about their data, such as `survey.coverage_note`; stands below.
        seed: Of the bootstrap.
    """
    lines = line_summary(references, items_table["qid"]).sort_values("js_distance")
    orders = {"first": ("fixed order", "s"), "all": ("rotated orders", "o")}
    if "first" not in set(items_table["orders"]):  # then no other was asked
        orders["all"] = orders["first"]
    groups = dict(list(items_table.groupby(["orders", "variant"])["js_distance"]))
    keys = [(o, v) for o in orders for v in VARIANTS if (o, v) in groups]
    figure, [axes] = _canvas(8, 1.3 + 0.28 * (len(lines) + 1.6 * len(keys)))
    ticks = []
    for row, (order, variant) in enumerate(keys):
        words, marker = orders[order]
        mean, low, high = interval(groups[order, variant], seed)
        ends = [[mean - low], [high - mean]]
        colour = VARIANTS[variant]
        axes.errorbar(mean, -row, xerr=ends, fmt=marker, color=colour, capsize=3, zorder=3)
        ticks.append(f"{variant}, {words}\n{mean:.3f} [{low:.3f}, {high:.3f}]")
    axes.set_yticks(-np.arange(len(keys)), ticks)
    bottom, step = 0.4 - len(keys), 0.6
    top = 0.75 + step * (len(lines) - 1)
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
    # The nearer a line, the higher its label: no label meets another line.
    for row, (_, line) in enumerate(lines.iterrows()):
        value, height = line["js_distance"], top - step * row
        text = f"{line['line']} ({line['detail']})" if line["detail"] else line["line"]
        axes.vlines(value, bottom, height + 0.15, colors="0.35", linestyles="--", linewidth=1)
        axes.annotate(f"{text}: {value:.3f}", (value, height), (4, 0), **style)
        if line["line"] == "uniform":
            axes.axvspan(value, 1, color="0.5", alpha=0.12, linewidth=0)
    axes.annotate("further than guessing evenly", (1, top), (-4, 0), ha="right", **style)
    axes.set(xlim=(0, 1), ylim=(bottom, top + 0.4))
    axes.grid(visible=False)
    measured = f"mean Jensen-Shannon distance over {items_table['qid'].nunique()} items"
    axes.set_xlabel(f"{measured} (0 same, 1 nothing in common)\n{textwrap.fill(note, 80)}".strip())
    axes.set_title(f"How far from the people of {country}?")
    return figure


@themed
def study_figure(runs: pd.DataFrame) -> Figure:
    """Show every run's distance to its people before (ring) and after training (dot).

    Mean Jensen-Shannon distance (base 2) over the items, one line per culture and model, one ring
    and dot per seed. Ticks mark the human floor, the nearest other country and the uniform line;
    right of the uniform line an answer is further from the people than guessing evenly.

    Args:
        runs: What `report.study_table` returns.
    """
    asked = runs.dropna(subset=["js_distance_before"])
    groups = list(asked.groupby(["culture", "model"], sort=True))
    figure, [axes] = _canvas(8, 1.5 + 0.45 * len(groups))
    marks = {"human_floor": GREEN, "nearest_country": GREY, "uniform": "0.2"}
    for row, (_, group) in enumerate(groups):
        for line, colour in marks.items():
            value = group.get(f"js_distance_{line}", pd.Series(dtype=float)).mean()
            label = line.replace("_", " ") if row == 0 else None
            axes.plot([value] * 2, [row - 0.4, row + 0.4], "-", color=colour, label=label, lw=2)
        before, after = group["js_distance_before"], group["js_distance_after"]
        rows = row + np.linspace(-0.2, 0.2, len(group)) if len(group) > 1 else [row]
        axes.hlines(rows, before, after, color=BLUE, linewidth=1)
        axes.scatter(
            before,
            rows,
            facecolor="white",
            edgecolor=ORANGE,
            zorder=3,
            label="before" if row == 0 else None,
        )
        axes.scatter(after, rows, color=BLUE, zorder=4, label="after" if row == 0 else None)
    axes.set_yticks(range(len(groups)), [f"{culture}\n{model}" for (culture, model), _ in groups])
    axes.set(ylim=(len(groups) - 0.5, -0.5))
    axes.set_xlim(0, axes.get_xlim()[1])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean Jensen-Shannon distance to the people (0 same, 1 nothing in common)")
    _legend_above(axes)
    return figure


@themed
def distribution_figure(
    shares: pd.DataFrame,
    people: Mapping[str, npt.NDArray[np.float64]],
    items: Iterable[SurveyItem],
    qids: Sequence[str] | None = None,
    country: str = "the country",
) -> Figure:
    """Show what the people answered, and what the model answers before and after training.

    One panel per item, by default the six whose answers training moved most; each bar adds up to
    100 %.

    Args:
        shares: What `measures.option_shares` returns.
        people: What `survey.country_shares` returns.
        items: The items, for questions and options.
        qids: The items to show.
        country: The name of the people, for the title.
    """
    wide = share_vectors(shares)
    known = {item.qid: item for item in items if item.qid in people}
    variants = [variant for variant in VARIANTS if variant in set(shares["variant"])]

    def moved(qid: str) -> float:
        return float(total_variation(wide[variants[0], qid], wide[variants[-1], qid]))

    asked = [qid for qid in known if all((variant, qid) in wide for variant in variants)]
    shown = list(qids) if qids is not None else sorted(asked, key=moved, reverse=True)[:6]
    rows = -(-len(shown) // 2)
    figure, panels = _canvas(10, 2.1 * rows + 0.4, rows, 2)
    for axes, qid in zip(panels, shown, strict=False):
        item = known[qid]
        names = ["people", *variants]
        table = np.stack([people[qid], *(wide[variant, qid] for variant in variants)])
        left = np.zeros(len(names))
        colours = mpl.colormaps["cividis_r"](np.linspace(0.1, 0.9, len(item.options)))
        for option, colour, share in zip(item.options, colours, table.T, strict=True):
            label = textwrap.fill(option, 66 // len(item.options))
            bar = axes.barh(names, share, 0.85, left, color=colour, label=label)
            texts = [f"{100 * x:.0f}" if x >= 0.06 else "" for x in share]
            ink = "black" if np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
            axes.bar_label(bar, texts, label_type="center", color=ink, fontsize=8)
            left += share
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set(xlim=(0, 1), xticks=[])
        question = textwrap.fill(f"{qid}  {item.question}", 54)
        axes.set_title(question, fontsize=9, fontweight="normal")
        count = len(item.options)
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=count, fontsize=7.5)
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.suptitle(f"What the people of {country} answer, and the model (%)", fontweight="bold")
    return figure


@themed
def position_figure(position_shares: pd.DataFrame) -> Figure:
    """Show how likely the model is to choose an option because of where it is displayed.

    Mean probability by displayed position over all rotations, one panel per number of options. All
    bars on the dashed line: no liking for a position. A tall first bar: the model chooses what
    stands first, whatever it says.

    Args:
        position_shares: What `measures.position_shares` returns.
    """
    scales = sorted(position_shares["scale"].unique())
    figure, panels = _canvas(2.5 * len(scales) + 0.5, 2.8, 1, len(scales), sharey=True)
    for axes, scale in zip(panels, scales, strict=True):
        table = position_shares[position_shares["scale"] == scale]
        wide = table.pivot(index="position", columns="variant", values="share")
        wide = wide[[variant for variant in VARIANTS if variant in wide]]
        wide.plot.bar(ax=axes, color=VARIANTS, rot=0, width=0.8, legend=False)
        axes.axhline(1 / scale, color="0.2", linestyle="--", linewidth=1, label="no bias")
        axes.grid(visible=False, axis="x")
        axes.set(title=f"{scale} options", xlabel="displayed position", ylim=(0, 1))
    panels[0].set_ylabel("mean probability")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[-1].legend(title="", loc="upper right", handlelength=2)
    return figure


@themed
def moved_items_figure(item_table: pd.DataFrame) -> Figure:
    """Show each item's distance to the people before (ring) and after training (dot).

    Jensen-Shannon distance, sorted by its change: on top the items that came closer most, at the
    bottom those that went furthest away.

    Args:
        item_table: What `measures.item_table` returns, with both variants.
    """
    table = _rotated(item_table)
    wide = table.pivot(index=["qid", "topic"], columns="variant", values="js_distance")
    wide = wide.loc[(wide["after"] - wide["before"]).sort_values(kind="stable").index]
    figure, [axes] = _canvas(7, 1.2 + 0.2 * len(wide))
    rows = np.arange(len(wide))
    for word, better, colour in (("closer", True, BLUE), ("not closer", False, RED)):
        mask = ((wide["after"] < wide["before"]) == better).to_numpy()
        before, after = wide["before"][mask], wide["after"][mask]
        axes.hlines(rows[mask], before, after, color=colour, linewidth=2)
        axes.scatter(before, rows[mask], facecolor="white", edgecolor=colour, zorder=3)
        label = f"{word}: {mask.sum()} items"
        axes.scatter(after, rows[mask], color=colour, zorder=4, label=label)
    axes.set_yticks(rows, [f"{topic}  {qid}" for qid, topic in wide.index])
    axes.set_ylim(len(wide) - 0.4, -0.6)
    axes.set_xlim(left=-0.01)
    axes.set_xlabel("Jensen-Shannon distance to the people: ring before, dot after")
    _legend_above(axes)
    return figure


@themed
def loss_figure(log: pd.DataFrame) -> Figure:
    """Show the training loss by optimiser step; light vertical lines are the ends of epochs.

    Args:
        log: Columns step, epoch, loss.
    """
    figure, [axes] = _canvas(6, 3)
    axes.plot(log["step"], log["loss"], marker="o", markersize=3, color=BLUE)
    for epoch in range(1, int(log["epoch"].max()) + 1):
        axes.axvline(np.interp(epoch, log["epoch"], log["step"]), color="0.7", linewidth=1)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    return figure


@themed
def dialogue_figure(turns: pd.DataFrame, judgements: pd.DataFrame) -> Figure:
    """Show what happens in the dialogues, and which of them are kept.

    Left: what the speakers do, by turn; where bars get lower, dialogues have ended. Right: how
    many dialogues were kept, and why the others were dropped.

    Args:
        turns: Columns turn, action.
        judgements: Columns kept (bool), reason (str).
    """
    figure, [left, right] = _canvas(10, 3.2, 1, 2)
    table = pd.crosstab(turns["turn"], turns["action"])[turns["action"].value_counts().index]
    table.plot.bar(stacked=True, ax=left, rot=0, width=0.85)
    left.grid(visible=False, axis="x")
    left.set(xlabel="turn", ylabel="number of turns")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(left)
    kept = judgements["kept"].astype(bool)
    counts = judgements["reason"][~kept].value_counts()
    names = ["kept", *(textwrap.fill(f"dropped: {reason}", 28) for reason in counts.index)]
    bars = right.barh(names, [kept.sum(), *counts], color=[BLUE] + [GREY] * len(counts))
    right.bar_label(bars, padding=3)
    right.invert_yaxis()
    right.grid(visible=False)
    right.margins(x=0.1)
    right.set_xlabel("dialogues")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@themed
def intent_figure(intents: pd.DataFrame) -> Figure:
    """Show how many intents are cultural, and how sure the model that named them was.

    Left: share of turns whose intent rests on a cultural expectation, by turn. Right: how many
    intents have which confidence, cultural and other ones apart.

    Args:
        intents: Columns turn, cultural (bool), confidence (number).
    """
    figure, [left, right] = _canvas(10, 3, 1, 2)
    share = intents.groupby("turn")["cultural"].mean()
    left.bar(share.index.astype(str), share, color=GREEN)
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.grid(visible=False, axis="x")
    left.set(xlabel="turn", ylabel="cultural intents", ylim=(0, 1))
    cultural = intents["cultural"].astype(bool)
    values = [intents["confidence"][cultural], intents["confidence"][~cultural]]
    right.hist(values, bins=10, stacked=True, color=[GREEN, GREY], label=["cultural", "other"])
    right.grid(visible=False, axis="x")
    right.set(xlabel="confidence", ylabel="intents")
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(right)
    return figure


@themed
def scenario_figure(changes: pd.DataFrame) -> Figure:
    """Show how many slots of the scenarios were filled, by kind, and how many of them adapted.

    Args:
        changes: Columns slot (the kind), adapted (bool), one row per slot.
    """
    names = changes["adapted"].astype(bool).map({True: "adapted", False: "as it was"})
    table = pd.crosstab(changes["slot"], names).reindex(columns=["adapted", "as it was"])
    table = table.fillna(0).loc[changes["slot"].value_counts().index[::-1]]
    figure, [axes] = _canvas(7, 1.2 + 0.3 * len(table))
    table.plot.barh(stacked=True, ax=axes, color=[BLUE, GREY], width=0.8)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="slots", ylabel="")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes)
    return figure
