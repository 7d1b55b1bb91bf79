"""The figures of one run's survey: numbers, reference lines and trust are all on the page."""

from collections import Counter

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from test_figures import check_bytes, check_caption, check_layout

from clca_utils import survey_figures as figures
from clca_utils.figures import GREY, VARIANTS
from clca_utils.items import load_items
from clca_utils.measures import item_table
from clca_utils.references import LINES, line_summary, reference_lines
from clca_utils.survey import coverage, coverage_note, load_marginals, people_of

mpl.use("agg")
ITEMS = load_items()
MARGINALS = load_marginals()
MEXICO = people_of(MARGINALS, "MEX", ITEMS)
BRITAIN = people_of(MARGINALS, "GBR", ITEMS)
REFERENCES = reference_lines(MARGINALS, "MEX", ITEMS, seed=1, draws=20)
BRITISH_LINES = reference_lines(MARGINALS, "GBR", ITEMS, seed=1, draws=20)
COVERAGE = coverage(MARGINALS, "GBR", ITEMS)
TIERS = dict(zip(COVERAGE["qid"], COVERAGE["tier"], strict=True))


def shares(people, **knows):
    """Return the shares of a model that mixes the people's answers with guessing evenly."""
    rows = []
    for variant, degree in knows.items():
        for qid, p in people.items():
            mixed = degree * p + (1 - degree) / len(p)
            rows += [(variant, qid, option, x) for option, x in enumerate(mixed, start=1)]
    return pd.DataFrame(rows, columns=["variant", "qid", "option", "share"])


def table(people):
    """Return the item table of a model that knows more, the better it is read."""
    degrees = {"fixed order": (-0.1, 0.3), "rotated": (0.1, 0.6), "calibrated": (0.2, 0.7)}
    return pd.concat(
        [
            item_table(shares(people, before=b, after=a), people, ITEMS).assign(reading=reading)
            for reading, (b, a) in degrees.items()
        ],
        ignore_index=True,
    )


SHARES, TABLE = shares(MEXICO, before=0.1, after=0.6), table(MEXICO)
POSITIONS = pd.DataFrame(
    [
        (variant, scale, position, share)
        for variant in ("before", "after")
        for scale in (2, 4)
        for position, share in enumerate([0.7, *[0.3 / (scale - 1)] * (scale - 1)], start=1)
    ],
    columns=["variant", "scale", "position", "share"],
)
NOTE = coverage_note(COVERAGE, "GBR")
BRITISH = shares(BRITAIN, before=0.1, after=0.6)


def british_distribution():
    return figures.distribution_figure(
        BRITISH, BRITAIN, ITEMS, country="Great Britain", tiers=TIERS
    )


def british_calibration():
    return figures.calibration_figure(BRITISH, BRITAIN, ITEMS, country="Great Britain", tiers=TIERS)


FIGURES = {
    "distance": lambda: figures.distance_figure(TABLE, REFERENCES, "Mexico"),
    "distance, low trust": lambda: figures.distance_figure(
        table(BRITAIN), BRITISH_LINES, "Great Britain", NOTE
    ),
    "distribution": lambda: figures.distribution_figure(SHARES, MEXICO, ITEMS),
    "distribution, low trust": british_distribution,
    "calibration": lambda: figures.calibration_figure(SHARES, MEXICO, ITEMS, country="Mexico"),
    "calibration, low trust": british_calibration,
    "calibration, one topic": lambda: figures.calibration_figure(
        SHARES, MEXICO, ITEMS[:6], country="the United Arab Emirates"
    ),
    "position": lambda: figures.position_figure(POSITIONS),
    "moved items": lambda: figures.moved_items_figure(TABLE, REFERENCES),
    "moved items, low trust": lambda: figures.moved_items_figure(
        table(BRITAIN), BRITISH_LINES, TIERS
    ),
}


@pytest.mark.parametrize("name", ["distance", "distribution", "calibration", "moved items"])
def test_figures_write_the_same_bytes_twice_and_leave_no_trace(name, tmp_path):
    check_bytes(FIGURES[name], tmp_path)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off_or_overlaps_another(name):
    check_layout(FIGURES[name]())


@pytest.mark.parametrize("word", ["distance", "distribution", "calibration", "position"])
def test_every_figure_has_a_caption(word):
    check_caption(getattr(figures, f"{word}_figure"))
    check_caption(figures.moved_items_figure)


@pytest.mark.parametrize(
    ("tier", "words"), [("A", "tier A"), ("C2", "tier C2 †"), ("microdata", "microdata")]
)
def test_a_tier_in_words(tier, words):
    assert figures.tier_words(tier) == words


def test_the_distance_figure_carries_every_reference_line():
    axes = figures.distance_figure(TABLE, REFERENCES, "Mexico", note="Half of it.").axes[0]
    texts = [text.get_text() for text in axes.texts]
    for line in LINES:
        assert any(text.startswith(line) for text in texts)
    assert "further than guessing evenly" in texts
    mean = REFERENCES[REFERENCES["line"] == "uniform"]["js_distance"].mean()
    assert f"uniform: {mean:.3f}" in texts
    assert [patch.get_x() for patch in axes.patches] == pytest.approx([mean])
    constant = line_summary(REFERENCES).set_index("line").loc["best constant"]
    assert f"best constant ({constant['detail']}): {constant['js_distance']:.3f}" in texts
    assert axes.get_xlabel().endswith("Half of it.")


def test_the_distance_figure_has_a_row_for_every_reading_and_variant():
    def rows(frame):
        axes = figures.distance_figure(frame, REFERENCES, "Mexico").axes[0]
        return [label.get_text().split("\n") for label in axes.get_yticklabels()]

    names, numbers = zip(*rows(TABLE), strict=True)
    readings = ("fixed order", "rotated orders", "calibrated")
    assert names == tuple(f"{v}, {r}" for r in readings for v in ("before", "after"))
    main = TABLE[(TABLE["reading"] == "calibrated") & (TABLE["variant"] == "after")]
    assert numbers[-1].startswith(f"{main['js_distance'].mean():.3f} [")
    only = TABLE[(TABLE["reading"] == "fixed order") & (TABLE["variant"] == "before")]
    assert [name for name, _ in rows(only)] == ["before, fixed order"]


def test_the_distribution_figure_shows_the_items_that_moved_most():
    figure = figures.distribution_figure(SHARES, MEXICO, ITEMS, country="Mexico")
    shown = {axes.get_title(loc="left").split()[0] for axes in figure.axes}
    moved = {q: np.abs(p - 1 / len(p)).sum() for q, p in MEXICO.items()}
    assert shown == set(sorted(moved, key=moved.get, reverse=True)[:6])
    chosen = figures.distribution_figure(SHARES, MEXICO, ITEMS, ["Q43", "Q1", "Q7"])
    assert len(chosen.axes) == 3
    widths = [bar.get_width() for bar in chosen.axes[1].patches]
    assert widths[0::3] == pytest.approx(MEXICO["Q1"].tolist())
    assert figures.distribution_figure(shares(MEXICO, before=0.2), MEXICO, ITEMS).axes


def test_the_distribution_figure_says_how_far_to_trust_the_people():
    figure = british_distribution()
    for axes in figure.axes:
        qid = axes.get_title(loc="left").split()[0]
        assert axes.get_yticklabels()[0].get_text() == f"people\n(tier {TIERS[qid]} †)"
    assert figure.get_supxlabel() == figures.LOW_TRUST_NOTE
    good = figures.distribution_figure(SHARES, MEXICO, ITEMS, tiers=dict.fromkeys(MEXICO, "A"))
    assert good.axes[0].get_yticklabels()[0].get_text() == "people\n(tier A)"
    assert good.get_supxlabel() == ""


def points(axes):
    """Return all scattered points of a panel: edge colour, filled or not, x, y."""
    return [
        (mpl.colors.to_hex(dots.get_edgecolor()[0]),
         mpl.colors.to_hex(dots.get_facecolor()[0]) != "#ffffff", x, y)
        for dots in axes.collections
        if isinstance(dots, mpl.collections.PathCollection)
        for x, y in dots.get_offsets()
    ]  # fmt: skip


def test_the_calibration_figure_has_a_point_for_every_option():
    figure = figures.calibration_figure(SHARES, MEXICO, ITEMS, country="Mexico")
    topics = Counter(item.topic for item in ITEMS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"{topic} ({count} items)" for topic, count in topics.items()
    ]
    first = points(figure.axes[0])
    life = [qid for qid in MEXICO if qid in {f"Q{n}" for n in range(1, 7)}]
    for variant, degree in (("before", 0.1), ("after", 0.6)):
        found = [(x, y) for colour, full, x, y in first if full == (variant == "after")]
        expected = [(degree * y + (1 - degree) / 4, y) for qid in life for y in MEXICO[qid]]
        assert np.array(found) == pytest.approx(np.array(expected))
    assert {colour for colour, *_ in first} == set(VARIANTS.values())
    # guessing evenly: family and gender has items of four and of five options
    lines = [line.get_xdata()[0] for line in figure.axes[3].lines if line.get_linestyle() == ":"]
    assert sorted(lines) == [0.2, 0.25]


def test_the_calibration_figure_greys_what_is_of_low_trust():
    key = [text.get_text() for text in british_calibration().legends[0].get_texts()]
    assert "low trust (C2 and D)" in key
    colours = {colour for axes in british_calibration().axes for colour, *_ in points(axes)}
    assert colours == {GREY}
    mixed = figures.calibration_figure(BRITISH, BRITAIN, ITEMS, tiers=TIERS | {"Q3": "A"})
    greys = Counter(colour for colour, *_ in points(mixed.axes[0]))
    assert greys == {GREY: 8, VARIANTS["before"]: 4, VARIANTS["after"]: 4}
    good = figures.calibration_figure(SHARES, MEXICO, ITEMS, tiers=dict.fromkeys(MEXICO, "A"))
    assert "low trust (C2 and D)" not in [t.get_text() for t in good.legends[0].get_texts()]


def test_the_position_figure_draws_the_line_of_no_bias():
    panels = figures.position_figure(POSITIONS).axes
    assert [panel.lines[0].get_ydata()[0] for panel in panels] == [0.5, 0.25]
    assert [bar.get_height() for bar in panels[0].patches] == pytest.approx([0.7, 0.3] * 2)
    alone = POSITIONS[POSITIONS["variant"] == "before"]
    assert len(figures.position_figure(alone).axes[0].patches) == 2


def test_the_moved_items_are_those_of_the_main_reading_sorted_and_counted():
    axes = figures.moved_items_figure(TABLE).axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "closer: 44 items",
        "not closer: 0 items",
    ]
    main = TABLE[TABLE["reading"] == "calibrated"]
    wide = main.pivot(index="qid", columns="variant", values="js_distance")
    most = (wide["after"] - wide["before"]).idxmin()
    assert axes.get_yticklabels()[0].get_text().endswith(f" {most}")
    assert axes.collections[0].get_segments()[0][:, 0] == pytest.approx(wide.loc[most, ::-1])


def test_the_moved_items_carry_their_own_reference_ticks_and_tiers():
    axes = figures.moved_items_figure(table(BRITAIN), BRITISH_LINES, TIERS).axes[0]
    names = [label.get_text().split()[-2:] for label in axes.get_yticklabels()]
    assert dict(names) == {q: f"[{TIERS[q]}]" for q in BRITAIN}
    assert axes.get_xlabel().endswith("people's data of low trust")
    ticks = axes.collections[-1].get_segments()
    uniform = BRITISH_LINES[BRITISH_LINES["line"] == "uniform"].set_index("qid")["js_distance"]
    for row, ((qid, _), tick) in enumerate(zip(names, ticks, strict=True)):
        assert tick[:, 0] == pytest.approx(uniform[qid])
        assert tick[:, 1] == pytest.approx([row - 0.4, row + 0.4])
