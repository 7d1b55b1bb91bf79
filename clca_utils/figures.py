"""The pictures of stages 01 to 04, and what all figures share: plain frames in, a figure out.

No function reads a file or leaves a figure behind in pyplot, so a notebook shows each figure once
and nothing needs closing. What a docstring says before its arguments is the figure's caption, which
the figure carries as its label: notebooks print it below, and files hold it as alternative text.
"""

import inspect
import io
import os
import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_curve

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
        "text.hinting": "none",  # text is as wide in print as when the layout was settled
    }


Arguments = ParamSpec("Arguments")


def themed(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Let a function draw in the one style, and label what it drew with its caption."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with mpl.rc_context(theme()):
            figure = draw(*args, **kwargs)
        figure.set_label(caption(draw))
        return figure

    return drawn


def rendered(figure: Figure, suffix: str, dpi: int) -> bytes:
    """Return a figure as a PNG or SVG file that holds the caption as its description.

    The same figure gives the same bytes: the layout, which moves a little with every drawing, is
    settled by the first one.
    """
    data, undated = io.BytesIO(), {"png": "Software", "svg": "Date"}[suffix]
    metadata = {undated: None, "Description": str(figure.get_label()) or None}
    with mpl.rc_context(theme()):
        if figure.get_layout_engine():
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # "none" would still lay out once more for each file
        figure.savefig(data, format=suffix, dpi=dpi, metadata=metadata)
    return data.getvalue()


def show(figure: Figure) -> None:
    """Show a figure in a notebook, its caption as alternative text and, in italics, below.

    JupyterLab keeps the alternative text but does not read it out: there the line below stands for
    it. A picture within HTML would be read out, but JupyterLab drops those of executed notebooks
    that come from elsewhere.
    """
    text = str(figure.get_label())
    display(Image(rendered(figure, "png", dpi=100), alt=text))
    display(Markdown(f"*{text}*"))


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `figure` as <folder>/<name>.png (150 dots per inch) and .svg; return both paths.

    Each is written whole or not at all, holds its caption, and has the same bytes each time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix in ("png", "svg"):
        data = rendered(figure, suffix, dpi=150)
        path = folder / f"{name}.{suffix}"
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        paths.append(path)
    return paths


def noted(figure: Figure, note: str) -> Figure:
    """Return the figure with a note below, such as what its data is and how far to trust it.

    Its caption says the same, for those who cannot see it.
    """
    figure.set_label(f"{figure.get_label()} {note}".strip())
    with mpl.rc_context(theme()):
        text = textwrap.fill(note, int(13 * figure.get_figwidth()))
        if figure.legends:  # one outside the panels leaves no other room below them
            figure.legends[0].set_title(text, FontProperties(size=8))
        else:
            figure.supxlabel(text, fontsize=8)
    return figure


def caption(figure_function: Callable[..., Figure]) -> str:
    """Return what a reader should see in a figure: its caption and its alternative text."""
    told = " ".join((inspect.getdoc(figure_function) or "").partition("Args:")[0].split())
    told = told.removeprefix("Show ")
    return told[:1].upper() + told[1:]


def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure that pyplot has forgotten again, and its panels."""
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)


def legend_above(axes: Axes, columns: int = 5) -> None:
    """Put the legend of `axes` above it."""
    axes.legend(title="", ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


@themed
def loss_figure(log: pd.DataFrame) -> Figure:
    """Show the training loss by optimiser step; light vertical lines are the ends of epochs.

    Args:
        log: Columns step, epoch, loss.
    """
    figure, [axes] = canvas(6, 3)
    axes.plot(log["step"], log["loss"], marker="o", markersize=3, color=BLUE)
    for epoch in range(1, int(log["epoch"].max()) + 1):
        axes.axvline(np.interp(epoch, log["epoch"], log["step"]), color="0.7", linewidth=1)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    return figure


@themed
def surprise_figure(changes: pd.DataFrame) -> Figure:
    """Show by how much training changed the model's surprise at texts it has not learnt from.

    One dot per conversation or plain text, in nats a token; left of 0 the model expects it more
    than before. The diamond is the mean. Blue: the culture that was learnt.

    Args:
        changes: What `held_out.changes` returns.
    """
    kinds = changes["culture"].where(changes["culture"] != "", "plain")
    label = changes["task"].where(changes["culture"] == "", changes["task"] + ", " + kinds)
    table = changes.assign(label=label, own=changes["culture"] == changes["learnt"])
    ranks = {"imitation": 0, "intent": 1, "text": 2}
    order = table.assign(rank=table["task"].map(ranks)).sort_values(
        ["rank", "own", "culture"], ascending=[True, False, True]
    )
    rows = list(dict.fromkeys(order["label"]))
    figure, [axes] = canvas(7, 1.2 + 0.42 * len(rows))
    colours = {name: BLUE if own else GREY for name, own in zip(label, table["own"], strict=True)}
    sns.stripplot(
        table, x="change", y="label", hue="label", order=rows, palette=colours, legend=False,
        jitter=False, alpha=0.6, ax=axes,
    )  # fmt: skip
    means = table.groupby("label")["change"].mean()
    axes.scatter(means[rows], range(len(rows)), marker="D", color="black", zorder=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="change of surprise (nats a token); left: expected more than before", ylabel="")
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
    figure, [left, right] = canvas(10, 3.2, 1, 2)
    table = pd.crosstab(turns["turn"], turns["action"])[turns["action"].value_counts().index]
    table.plot.bar(stacked=True, ax=left, rot=0, width=0.85)
    left.grid(visible=False, axis="x")
    left.set(xlabel="turn", ylabel="number of turns")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(left)
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
    figure, [left, right] = canvas(10, 3, 1, 2)
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
    legend_above(right)
    return figure


@themed
def intent_agreement_figure(agreement: pd.DataFrame) -> Figure:
    """Show how far an annotator agrees with the author of the gold intents.

    Left: how alike in meaning the annotator's intents are to the author's of the same turn, and
    beside it what needs no understanding: the author's of the speaker's other turns, and the line
    itself in place of an intent; means with 95 % intervals. Right: ROC curve of the confidence that
    an intent is cultural; on the diagonal it is no better than chance.

    Args:
        agreement: What `intent_gold.agreement_table` returns.
    """
    figure, [left, right] = canvas(9, 3, 1, 2)
    names = {"same_turn": "same turn", "other_turns": "other turns", "line_itself": "line itself"}
    cosines = agreement[list(names)].rename(columns=names)
    sns.pointplot(cosines, orient="h", linestyle="none", seed=0, ax=left, color=BLUE, capsize=0.15)
    left.set(xlabel="cosine of meaning", ylabel="", xlim=(min(0, left.get_xlim()[0]), 1))
    truth = agreement["gold_cultural"].astype(bool)
    if truth.nunique() == 2:
        false_alarms, hits, _ = roc_curve(truth, agreement["confidence"])
        right.plot(false_alarms, hits, color=GREEN)
    right.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="chance")
    right.set(xlabel="generic intents taken for cultural", ylabel="cultural ones found")
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    right.legend(loc="lower right")
    return figure


@themed
def agreement_figure(frame: pd.DataFrame) -> Figure:
    """Show how well each judge tells known bad conversations from good ones.

    Points are areas under the ROC curve of its probability of "bad", bars their 95 % intervals over
    conversations: 1 tells all apart, 0.5 (dashed) is chance, and below it bad ones look better than
    good ones. Each kind is one way in which copies of good conversations were corrupted. Rules and
    filter say yes or no, so theirs is the mean of recall and of the share of good ones left alone.

    Args:
        frame: What `gold.agreement` returns.
    """
    kinds, aspects = frame["kind"].unique(), frame["aspect"].unique()
    figure, [axes] = canvas(8, 1.3 + 0.14 * len(kinds) * (len(aspects) + 1))
    values = frame.melt(["kind", "aspect"], ["low", "auc", "high"]).dropna()
    sns.pointplot(
        values,
        x="value",
        y="kind",
        hue="aspect",
        order=kinds,
        hue_order=aspects,
        palette=PALETTE[: len(aspects)],
        estimator="median",  # of low, auc and high; the bar goes from the least to the most
        errorbar=("pi", 100),
        dodge=0.6,
        linestyle="none",
        markersize=5,
        err_kws={"linewidth": 1.5},
        ax=axes,
    )
    axes.axvline(0.5, color="0.2", linestyle="--", linewidth=1)
    axes.set(xlabel="area under the ROC curve (0.5 is chance)", ylabel="", xlim=(-0.02, 1.02))
    legend_above(axes)
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
    figure, [axes] = canvas(7, 1.2 + 0.3 * len(table))
    table.plot.barh(stacked=True, ax=axes, color=[BLUE, GREY], width=0.8)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="slots", ylabel="")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)
    return figure
