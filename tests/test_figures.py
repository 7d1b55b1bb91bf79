"""Figures: they show what they're for, leave no trace in pyplot, and write the same bytes twice."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from clca_utils import figures
from clca_utils.measures import LINES, item_table, reference_lines
from clca_utils.survey import country_shares, load_items, load_marginals

mpl.use("agg")
ITEMS = load_items()
MARGINALS = load_marginals()
MEXICO = country_shares(MARGINALS, "MEX", ITEMS)
REFERENCES = reference_lines(MARGINALS, "MEX", ITEMS, seed=1, draws=20)


def _shares(**knows):
    rows = []
    for variant, degree in knows.items():
        for qid, p in MEXICO.items():
            mixed = degree * p + (1 - degree) / len(p)
            rows += [(variant, qid, option, x) for option, x in enumerate(mixed, start=1)]
    return pd.DataFrame(rows, columns=["variant", "qid", "option", "share"])


SHARES = _shares(before=0.1, after=0.6)
TABLE = pd.concat(
    [
        item_table(SHARES, MEXICO, ITEMS).assign(orders="all"),
        item_table(_shares(before=-0.1, after=0.3), MEXICO, ITEMS).assign(orders="first"),
    ],
    ignore_index=True,
)
POSITIONS = pd.DataFrame(
    [
        (variant, scale, position, share)
        for variant in ("before", "after")
        for scale in (2, 4)
        for position, share in enumerate([0.7, *[0.3 / (scale - 1)] * (scale - 1)], start=1)
    ],
    columns=["variant", "scale", "position", "share"],
)
TURNS = pd.DataFrame(
    {"turn": [1, 1, 1, 2, 2], "action": ["speak", "speak", "none", "speak", "leave"]}
)
JUDGEMENTS = pd.DataFrame(
    {"kept": [True, True, False, False, False], "reason": ["", "", "repetition", "meta", "meta"]}
)
INTENTS = pd.DataFrame(
    {
        "turn": [1, 1, 2, 2],
        "cultural": [True, False, True, True],
        "confidence": [0.2, 0.5, 0.9, 0.9],
    }
)
CHANGES = pd.DataFrame({"slot": ["name", "name", "money"], "adapted": [True, False, True]})
LOG = pd.DataFrame({"step": [1, 2, 3, 4], "epoch": [0.5, 1.0, 1.5, 2.0], "loss": [3, 2.5, 2, 1.9]})

FIGURES = {
    figures.distance_figure: (TABLE, REFERENCES, "Mexico"),
    figures.distribution_figure: (SHARES, MEXICO, ITEMS),
    figures.position_figure: (POSITIONS,),
    figures.moved_items_figure: (TABLE,),
    figures.loss_figure: (LOG,),
    figures.dialogue_figure: (TURNS, JUDGEMENTS),
    figures.intent_figure: (INTENTS,),
    figures.scenario_figure: (CHANGES,),
}


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_figures_write_the_same_bytes_twice_and_leave_no_trace(make, tmp_path):
    settings = mpl.rcParams.copy()
    first = make(*FIGURES[make])
    paths = figures.save_figure(first, tmp_path / "a", "figure")
    assert [path.name for path in paths] == ["figure.png", "figure.svg"]
    again = figures.save_figure(first, tmp_path / "b", "figure")
    anew = figures.save_figure(make(*FIGURES[make]), tmp_path / "c", "figure")
    for path, second, third in zip(paths, again, anew, strict=True):
        assert path.read_bytes() == second.read_bytes() == third.read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.png", "figure.svg"]
    assert plt.get_fignums() == []
    assert mpl.rcParams == settings


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_no_text_is_cut_off_or_overlaps_another(make):
    figure = make(*FIGURES[make])
    figure.draw_without_rendering()
    page = figure.bbox.padded(2)
    texts = []
    for axes in figure.axes:
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        texts += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        texts += [t for t in axes.get_xticklabels() if left <= t.get_position()[0] <= right]
        texts += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
    boxes = [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        for other in boxes[:number]:
            assert not box.padded(-1).overlaps(other.padded(-1))


def test_a_failed_write_leaves_the_old_figure(tmp_path, monkeypatch):
    figure = figures.loss_figure(LOG)
    path = figures.save_figure(figure, tmp_path, "loss")[0]
    old = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="disk full"):
        figures.save_figure(figure, tmp_path, "loss")
    assert path.read_bytes() == old
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_every_figure_has_a_caption(make):
    text = figures.caption(make)
    assert text.startswith("Show ")
    assert "Args" not in text
    assert text.endswith(".")


def test_the_distance_figure_carries_every_reference_line():
    axes = figures.distance_figure(TABLE, REFERENCES, "Mexico", note="Half of it.").axes[0]
    texts = [text.get_text() for text in axes.texts]
    for line in LINES:
        assert any(text.startswith(line) for text in texts)
    assert "further than guessing evenly" in texts
    mean = REFERENCES[REFERENCES["line"] == "uniform"]["js_distance"].mean()
    assert f"uniform: {mean:.3f}" in texts
    assert [patch.get_x() for patch in axes.patches] == pytest.approx([mean])
    labels = [label.get_text().split("\n")[0] for label in axes.get_yticklabels()]
    assert labels == [
        f"{v}, {o} order{'s' * (o == 'rotated')}"
        for o in ("fixed", "rotated")
        for v in ("before", "after")
    ]
    assert axes.get_xlabel().endswith("Half of it.")


def test_the_distribution_figure_shows_the_items_that_moved_most():
    figure = figures.distribution_figure(SHARES, MEXICO, ITEMS, country="Mexico")
    shown = {axes.get_title(loc="left").split()[0] for axes in figure.axes}
    moved = {q: np.abs(p - 1 / len(p)).sum() for q, p in MEXICO.items()}
    assert shown == set(sorted(moved, key=moved.get, reverse=True)[:6])
    chosen = figures.distribution_figure(SHARES, MEXICO, ITEMS, ["Q43", "Q1", "Q7"])
    assert len(chosen.axes) == 3
    widths = [bar.get_width() for bar in chosen.axes[1].patches]
    assert widths[0::3] == pytest.approx(MEXICO["Q1"].tolist())


def test_the_position_figure_draws_the_line_of_no_bias():
    panels = figures.position_figure(POSITIONS).axes
    assert [panel.lines[0].get_ydata()[0] for panel in panels] == [0.5, 0.25]
    assert [bar.get_height() for bar in panels[0].patches] == pytest.approx([0.7, 0.3] * 2)


def test_the_moved_items_are_sorted_and_counted():
    axes = figures.moved_items_figure(TABLE).axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "closer: 44 items",
        "not closer: 0 items",
    ]
    wide = TABLE[TABLE["orders"] == "all"].pivot(index="qid", columns="variant")["js_distance"]
    most = (wide["after"] - wide["before"]).idxmin()
    assert axes.get_yticklabels()[0].get_text().endswith(f" {most}")


def test_counts_of_dialogues_intents_and_slots():
    left, right = figures.dialogue_figure(TURNS, JUDGEMENTS).axes
    assert sum(bar.get_height() for bar in left.patches) == len(TURNS)
    assert [bar.get_width() for bar in right.patches] == [2, 2, 1]
    shares = [bar.get_height() for bar in figures.intent_figure(INTENTS).axes[0].patches]
    assert shares == [0.5, 1.0]
    slots = figures.scenario_figure(CHANGES).axes[0]
    assert sum(bar.get_width() for bar in slots.patches) == len(CHANGES)


def test_one_variant_alone_can_be_drawn():
    before = TABLE[TABLE["variant"] == "before"]
    axes = figures.distance_figure(before, REFERENCES, "Mexico").axes[0]
    assert len(axes.get_yticklabels()) == 2
    alone = POSITIONS[POSITIONS["variant"] == "before"]
    assert len(figures.position_figure(alone).axes[0].patches) == 2
    assert figures.distribution_figure(_shares(before=0.2), MEXICO, ITEMS).axes
    nothing_kept = figures.dialogue_figure(TURNS, JUDGEMENTS.assign(kept=True, reason=""))
    assert len(nothing_kept.axes[1].patches) == 1
