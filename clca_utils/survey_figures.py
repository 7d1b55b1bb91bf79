"""The pictures of one run's survey: a model's answers beside a people's and reference lines.

Plain frames in, a figure out, as in `clca_utils.figures`. A dagger marks what rests on people's
data of low trust (tiers C2 and D); in scatter plots such points are grey.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from clca_utils.figures import (
    BLUE,
    GREEN,
    GREY,
    RED,
    VARIANTS,
    canvas,
    legend_above,
    themed,
)
from clca_utils.items import SurveyItem
from clca_utils.measures import Floats, total_variation
from clca_utils.references import line_summary
from clca_utils.shares import READINGS, main_reading, share_vectors
from clca_utils.survey import LOW_TRUST
from clca_utils.uncertainty import interval

MARKERS = dict(zip(READINGS, "soD", strict=True))
DAGGER = "†"
LOW_TRUST_NOTE = f"{DAGGER} people's data of low trust (tiers {' and '.join(LOW_TRUST)})"
UNIFORM = "0.2"
"""Colour of the uniform line (a dark grey)."""
JS_AXIS = "Jensen-Shannon distance to the people"


def tier_words(tier: str) -> str:
    """Return how a tier of trust is called in figures: "tier A", "tier C2 †", "microdata"."""
    name = f"tier {tier}" if len(tier) < 3 else tier
    return f"{name} {DAGGER}" if tier in LOW_TRUST else name


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


@themed
def distance_figure(
    items_table: pd.DataFrame,
    references: pd.DataFrame,
    country: str,
    note: str = "",
    seed: int = 0,
) -> Figure:
    """Show how far the model's answers lie from the people's, before and after training.

    Points are mean Jensen-Shannon distances (base 2): with the options in one fixed order, averaged
    over rotated orders, and calibrated against an empty question; bars are 95 % bootstrap intervals
    over items. Further left is closer. Dashed lines are answers that need no model; in the shaded
    region the model is further from the people than guessing evenly.

    Args:
        items_table: What `measures.item_table` returns, with a column `reading`.
        references: What `references.reference_lines` returns.
        country: The name of the people, for the title.
        note: What to know about their data, such as `survey.coverage_note`; stands below.
        seed: Of the bootstrap.
    """
    lines = line_summary(references, items_table["qid"]).sort_values("js_distance")
    groups = dict(list(items_table.groupby(["reading", "variant"])["js_distance"]))
    keys = [(r, v) for r in READINGS for v in VARIANTS if (r, v) in groups]
    figure, [axes] = canvas(8, 1.3 + 0.28 * (len(lines) + 1.6 * len(keys)))
    ticks = []
    for row, (reading, variant) in enumerate(keys):
        mean, low, high = interval(groups[reading, variant], seed)
        axes.errorbar(
            mean,
            -row,
            xerr=[[mean - low], [high - mean]],
            fmt=MARKERS[reading],
            color=VARIANTS[variant],
            capsize=3,
            zorder=3,
        )
        words = "rotated orders" if reading == "rotated" else reading
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
def distribution_figure(
    shares: pd.DataFrame,
    people: Mapping[str, Floats],
    items: Iterable[SurveyItem],
    qids: Sequence[str] | None = None,
    *,
    country: str = "the country",
    tiers: Mapping[str, str] | None = None,
) -> Figure:
    """Show what the people answered, and what the model answers before and after training.

    One panel per item, by default the six whose answers training moved most; each bar adds up to
    100 %. Equal parts would be guessing evenly. The tier says how far to trust the people's data; a
    dagger marks low trust.

    Args:
        shares: What `shares.option_shares` returns.
        people: What `survey.country_shares` returns.
        items: The items, for questions and options.
        qids: The items to show.
        country: The name of the people, for the title.
        tiers: The tier of trust of each item.
    """
    wide = share_vectors(shares)
    known = {item.qid: item for item in items if item.qid in people}
    variants = [variant for variant in VARIANTS if variant in set(shares["variant"])]

    def moved(qid: str) -> float:
        return float(total_variation(wide[variants[0], qid], wide[variants[-1], qid]))

    asked = [qid for qid in known if all((variant, qid) in wide for variant in variants)]
    shown = list(qids) if qids is not None else sorted(asked, key=moved, reverse=True)[:6]
    rows = -(-len(shown) // 2)
    figure, panels = canvas(10, 2.1 * rows + 0.4, rows, 2)
    for axes, qid in zip(panels, shown, strict=False):
        item, tier = known[qid], (tiers or {}).get(qid, "")
        names = [f"people\n({tier_words(tier)})" if tier else "people", *variants]
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
        question = textwrap.fill(f"{qid}  {item.question}", 52)
        axes.set_title(question, fontsize=9, fontweight="normal")
        if tier in LOW_TRUST:
            axes.get_yticklabels()[0].set_color(RED)
        count = len(item.options)
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=count, fontsize=7.5)
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.suptitle(f"What the people of {country} answer, and the model (%)", fontweight="bold")
    if any((tiers or {}).get(qid) in LOW_TRUST for qid in shown):
        figure.supxlabel(LOW_TRUST_NOTE, fontsize="medium")
    return figure


@themed
def calibration_figure(
    shares: pd.DataFrame,
    people: Mapping[str, Floats],
    items: Iterable[SurveyItem],
    *,
    country: str = "the country",
    tiers: Mapping[str, str] | None = None,
) -> Figure:
    """Show whether a model gives each option the share of people who chose it.

    One panel per topic, one ring (before training) and dot (after) per item and option, joined by a
    line. On the diagonal the model's share is the people's; above it the model gives an option too
    little. Dotted lines are guessing evenly, 1/k for k options: points on them say that the model
    doesn't know the item. Grey points rest on people's data of low trust.

    Args:
        shares: What `shares.option_shares` returns.
        people: What `survey.country_shares` returns.
        items: The items, for their topics.
        country: The name of the people, for the axis.
        tiers: The tier of trust of each item.
    """
    wide = share_vectors(shares)
    variants = [variant for variant in VARIANTS if variant in set(shares["variant"])]
    topics: dict[str, list[str]] = {}
    for item in items:
        if item.qid in people and all((variant, item.qid) in wide for variant in variants):
            topics.setdefault(item.topic, []).append(item.qid)
    columns = min(3, len(topics))
    rows = -(-len(topics) // columns)
    figure, panels = canvas(2.8 * max(columns, 2) + 0.8, 2.7 * rows + 1, rows, columns)
    low = {qid for qid, tier in (tiers or {}).items() if tier in LOW_TRUST}
    for number, (axes, (topic, qids)) in enumerate(zip(panels, topics.items(), strict=False)):
        axes.axline((0, 0), slope=1, color="0.5", linewidth=1)
        for count in {len(people[qid]) for qid in qids}:
            axes.axvline(1 / count, color=UNIFORM, linestyle=":", linewidth=1)
        for qid in qids:
            before, after = (wide[variant, qid] for variant in (variants[0], variants[-1]))
            axes.hlines(people[qid], before, after, color="0.8", linewidth=0.8)
            for variant in variants:
                colour = GREY if qid in low else VARIANTS[variant]
                face = "white" if variant == "before" else colour
                style: dict[str, Any] = {"fc": face, "ec": colour, "clip_on": False, "zorder": 3}
                axes.scatter(wide[variant, qid], people[qid], 16, **style)
        axes.set_title(f"{topic} ({_items(len(qids))})", fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], box_aspect=1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(visible=False)
        if number % columns == 0:
            axes.set_ylabel("people's share")
        if number >= len(topics) - columns:
            axes.set_xlabel("model's share of an option")
    for axes in panels[len(topics) :]:
        axes.remove()
    title = f"Share of each option: people of {country} and model"
    figure.suptitle(textwrap.fill(title, 27 * max(columns, 2)), weight="bold")
    dots = {variant: VARIANTS[variant] for variant in variants}
    if any(qid in low for qids in topics.values() for qid in qids):
        dots[f"low trust ({' and '.join(LOW_TRUST)})"] = GREY
    faces = ["white" if name == "before" else colour for name, colour in dots.items()]
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, mec=colour, mfc=face, label=name)
        for (name, colour), face in zip(dots.items(), faces, strict=True)
    ]
    handles.append(Line2D([], [], color="0.5", linewidth=1, label="same share"))
    evenly = "guessing evenly (1/k)"
    handles.append(Line2D([], [], color=UNIFORM, linewidth=1, linestyle=":", label=evenly))
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if columns > 2 else 3)
    return figure


@themed
def position_figure(position_shares: pd.DataFrame) -> Figure:
    """Show how likely the model is to choose an option because of where it is displayed.

    Mean probability by displayed position over all rotations, one panel per number of options. All
    bars on the dashed line: no liking for a position. A tall first bar: the model chooses what
    stands first, whatever it says.

    Args:
        position_shares: What `shares.position_shares` returns.
    """
    scales = sorted(position_shares["scale"].unique())
    figure, panels = canvas(2.5 * len(scales) + 0.5, 2.8, 1, len(scales), sharey=True)
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
def moved_items_figure(
    item_table: pd.DataFrame,
    references: pd.DataFrame | None = None,
    tiers: Mapping[str, str] | None = None,
) -> Figure:
    """Show each item's distance to the people before (ring) and after training (dot).

    Jensen-Shannon distance of the main reading, sorted by its change: on top the items that came
    closer most, at the bottom those that went furthest away. Ticks mark guessing evenly (uniform)
    and the distance of two samples of the same people (human floor), item by item. A tier in
    brackets marks items whose people's data is of low trust.

    Args:
        item_table: What `measures.item_table` returns, with both variants and a column `reading`.
        references: What `references.reference_lines` returns, for the ticks.
        tiers: The tier of trust of each item.
    """
    table = main_reading(item_table)
    wide = table.pivot(index=["qid", "topic"], columns="variant", values="js_distance")
    wide = wide.loc[(wide["after"] - wide["before"]).sort_values(kind="stable").index]
    figure, [axes] = canvas(7, 1.2 + 0.2 * len(wide))
    rows = np.arange(len(wide))
    for word, better, colour in (("closer", True, BLUE), ("not closer", False, RED)):
        mask = ((wide["after"] < wide["before"]) == better).to_numpy()
        before, after = wide["before"][mask], wide["after"][mask]
        axes.hlines(rows[mask], before, after, color=colour, linewidth=2)
        axes.scatter(before, rows[mask], facecolor="white", edgecolor=colour, zorder=3)
        label = f"{word}: {_items(mask.sum())}"
        axes.scatter(after, rows[mask], color=colour, zorder=4, label=label)
    for line, colour in (("human floor", GREEN), ("uniform", UNIFORM)):
        if references is not None:
            values = references[references["line"] == line].set_index("qid")["js_distance"]
            places = values.reindex(wide.index.get_level_values("qid"))
            axes.vlines(places, rows - 0.4, rows + 0.4, color=colour, linewidth=2, label=line)
    low = {qid: f" [{tier}]" for qid, tier in (tiers or {}).items() if tier in LOW_TRUST}
    axes.set_yticks(rows, [f"{topic}  {qid}{low.get(qid, '')}" for qid, topic in wide.index])
    axes.set_ylim(len(wide) - 0.4, -0.6)
    axes.set_xlim(left=-0.01)
    note = f"\n[{'], ['.join(LOW_TRUST)}]: people's data of low trust"
    any_low = any(qid in low for qid in wide.index.get_level_values("qid"))
    axes.set_xlabel(f"{JS_AXIS}: ring before, dot after{note * any_low}")
    legend_above(axes)
    return figure
