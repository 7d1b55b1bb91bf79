"""Figures: they show what they're for, leave no trace in pyplot, and write the same bytes twice."""

import itertools
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.legend import Legend

from clca_utils import figures

mpl.use("agg")
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
AGREEMENT = pd.DataFrame(
    {
        "same_turn": [0.6, 0.5, float("nan"), 0.7],
        "other_turns": [0.4, 0.5, float("nan"), 0.3],
        "line_itself": [0.3, 0.2, float("nan"), 0.4],
        "gold_cultural": [True, False, True, False],
        "confidence": [0.9, 0.4, 0.5, 0.6],
    }
)
KINDS = ["shuffled turns", "swapped culture", "repeated lines", "leaked secret", "all"]
JUDGED = pd.DataFrame(
    [
        {"aspect": aspect, "kind": kind, "auc": auc, "low": auc - 0.1, "high": min(auc + 0.2, 1)}
        for aspect, auc in [("form", 0.9), ("quality", 0.6), ("meta", 0.5), ("filter", 0.75)]
        for kind in KINDS
    ]
)
LOG = pd.DataFrame({"step": [1, 2, 3, 4], "epoch": [0.5, 1.0, 1.5, 2.0], "loss": [3, 2.5, 2, 1.9]})

SURPRISE = pd.DataFrame(
    [
        ("German", task, culture, f"{culture}-{n}", -0.1 * n - shift)
        for task, culture, shift in (
            ("text", "", -0.2), ("imitation", "Japanese", 0.1), ("imitation", "German", 0.3),
            ("intent", "Japanese", 0.0), ("intent", "German", 0.1),
        )
        for n in range(3)
    ],
    columns=["learnt", "task", "culture", "id", "change"],
)  # fmt: skip

FIGURES = {
    figures.surprise_figure: (SURPRISE,),
    figures.loss_figure: (LOG,),
    figures.dialogue_figure: (TURNS, JUDGEMENTS),
    figures.intent_figure: (INTENTS,),
    figures.intent_agreement_figure: (AGREEMENT,),
    figures.agreement_figure: (JUDGED,),
    figures.scenario_figure: (CHANGES,),
}


def check_bytes(draw, folder):
    """Check that a figure is written as the same bytes each time, and that pyplot forgets it."""
    settings = mpl.rcParams.copy()
    first = draw()
    paths = figures.save_figure(first, folder / "a", "figure")
    assert [path.name for path in paths] == ["figure.png", "figure.svg"]
    again = figures.save_figure(first, folder / "b", "figure")
    anew = figures.save_figure(draw(), folder / "c", "figure")
    for path, second, third in zip(paths, again, anew, strict=True):
        assert path.read_bytes() == second.read_bytes() == third.read_bytes()
    assert sorted(path.name for path in (folder / "a").iterdir()) == ["figure.png", "figure.svg"]
    assert plt.get_fignums() == []
    assert mpl.rcParams == settings


def check_layout(figure):
    """Check that no text leaves the page, nor covers another one."""
    with mpl.rc_context(figures.theme()):
        figure.draw_without_rendering()
    page = figure.bbox.padded(2)
    texts = figure.texts + [legend.get_title() for legend in figure.legends]
    texts += [t for legend in figure.legends for t in legend.get_texts()]
    for axes in figure.axes:
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        texts += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        texts += [t for t in axes.get_xticklabels() if left <= t.get_position()[0] <= right]
        texts += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
        texts += [t for legend in axes.findobj(Legend) for t in legend.get_texts()]
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent() for text in shown]
    for number, box in enumerate(boxes):
        name = shown[number].get_text()
        assert page.x0 <= box.x0 and box.x1 <= page.x1, name
        assert page.y0 <= box.y0 and box.y1 <= page.y1, name
        for other, neighbour in zip(boxes[:number], shown, strict=False):
            assert not box.padded(-1).overlaps(other.padded(-1)), (name, neighbour.get_text())


def check_caption(make):
    text = figures.caption(make)
    assert text[0].isupper()
    assert not text.startswith("Show ")
    assert "Args" not in text
    assert "*" not in text  # it is printed in italics
    assert text.endswith(".")


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_figures_write_the_same_bytes_twice_and_leave_no_trace(make, tmp_path):
    check_bytes(lambda: make(*FIGURES[make]), tmp_path)


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_no_text_is_cut_off_or_overlaps_another(make):
    check_layout(make(*FIGURES[make]))


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_every_figure_has_a_caption(make):
    check_caption(make)


def test_a_figure_carries_its_caption_into_its_files_and_into_a_notebook(tmp_path, monkeypatch):
    figure = figures.noted(figures.loss_figure(LOG), "Of 4 steps – all.")
    text = figures.caption(figures.loss_figure) + " Of 4 steps – all."
    png, svg = figures.save_figure(figure, tmp_path, "loss")
    assert b"Description\0\0\0\0\0" + text.encode() in png.read_bytes()
    root = ElementTree.parse(svg).getroot()
    assert root.findtext(".//{http://purl.org/dc/elements/1.1/}description") == text
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    figures.show(figure)
    picture, line = shown
    assert picture.alt == text
    assert picture.data.startswith(b"\x89PNG")
    assert line.data == f"*{text}*"


def test_surprise_is_drawn_by_task_with_the_own_culture_first_and_the_means_as_diamonds():
    axes = figures.surprise_figure(SURPRISE).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [
        "imitation, German", "imitation, Japanese", "intent, German", "intent, Japanese", "text"
    ]  # fmt: skip
    diamonds = axes.collections[-1].get_offsets()
    means = SURPRISE.groupby(["task", "culture"])["change"].mean()
    assert diamonds[0][0] == pytest.approx(means["imitation", "German"])
    assert diamonds[4][0] == pytest.approx(means["text", ""])
    assert {tuple(c) for c in axes.collections[0].get_facecolors()} != {
        tuple(c) for c in axes.collections[1].get_facecolors()
    }


NOTE = "DEU: 15 of 44 items compared; all of them of low trust (tiers C2 and D). " * 3


@pytest.mark.parametrize("outside", [False, True], ids=["no legend", "an outside legend"])
def test_a_note_stands_below_and_covers_nothing(outside):
    figure = figures.loss_figure(LOG)
    if outside:
        lines = figure.axes[0].lines[:1]
        figure.legend(handles=lines, labels=["loss"], loc="outside lower center")
    assert figures.noted(figure, NOTE) is figure
    check_layout(figure)
    (legend,) = figure.legends or [None]
    (note,) = [legend.get_title()] if outside else figure.texts
    assert note.get_text().split() == NOTE.split()
    assert "\n" in note.get_text()
    assert note.get_window_extent().y1 < figure.axes[0].xaxis.label.get_window_extent().y0


def test_text_is_as_wide_in_print_as_when_the_layout_was_settled(tmp_path):
    """Hinted glyphs grow in steps, so that a long label of a settled layout left the page."""
    changes = pd.DataFrame({"slot": ["a rather long kind of slot: before"], "adapted": [True]})
    widths = []
    for dpi in (100, 150):
        figure = figures.scenario_figure(changes)
        with mpl.rc_context(figures.theme()):
            figure.set_dpi(dpi)
            figure.draw_without_rendering()
            widths.append(figure.axes[0].get_yticklabels()[0].get_window_extent().width / dpi)
    assert widths[1] == pytest.approx(widths[0], rel=0.005)


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


def test_counts_of_dialogues_intents_and_slots():
    left, right = figures.dialogue_figure(TURNS, JUDGEMENTS).axes
    assert sum(bar.get_height() for bar in left.patches) == len(TURNS)
    assert [bar.get_width() for bar in right.patches] == [2, 2, 1]
    shares = [bar.get_height() for bar in figures.intent_figure(INTENTS).axes[0].patches]
    assert shares == [0.5, 1.0]
    slots = figures.scenario_figure(CHANGES).axes[0]
    assert sum(bar.get_width() for bar in slots.patches) == len(CHANGES)
    nothing_kept = figures.dialogue_figure(TURNS, JUDGEMENTS.assign(kept=True, reason=""))
    assert len(nothing_kept.axes[1].patches) == 1


def test_areas_stand_with_their_intervals_beside_chance():
    (axes,) = figures.agreement_figure(JUDGED).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == KINDS
    ends = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    spans = {(round(float(low), 6), round(float(high), 6)) for low, high in map(sorted, ends)}
    assert {(0.8, 1.0), (0.5, 0.8), (0.4, 0.7), (0.65, 0.95), (0.5, 0.5)} <= spans
    without = figures.agreement_figure(JUDGED.assign(low=float("nan"), high=float("nan")))
    check_layout(without)


def test_an_annotator_that_wrote_nothing_readable_still_has_a_figure():
    cosines = ["same_turn", "other_turns", "line_itself"]
    left, right = figures.intent_agreement_figure(
        AGREEMENT.assign(**dict.fromkeys(cosines, float("nan")))
    ).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "same turn", "other turns", "line itself",
    ]  # fmt: skip
    assert len(right.lines) == 2
    same = figures.intent_agreement_figure(AGREEMENT.assign(gold_cultural=False))
    assert len(same.axes[1].lines) == 1


def test_the_points_of_an_agreement_are_means():
    left, _ = figures.intent_agreement_figure(AGREEMENT).axes
    points = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 3]
    assert list(points[0]) == pytest.approx([0.6, 0.4, 0.3])


SEEN = {  # Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113, table 1, severity 1
    "all colours": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def lab(colour, seen="all colours"):
    """Return a colour in CIELAB (D65), as eyes without one kind of cone see it."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SEEN[seen]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.array(to_xyz) @ linear / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lightness_and_sight_are_simulated_right():
    assert lab("white") == pytest.approx([100, 0, 0], abs=0.1)
    assert lab("black") == pytest.approx([0, 0, 0], abs=0.1)
    assert lab("red")[0] == pytest.approx(53.2, abs=0.1)
    for seen in SEEN:  # greys stay grey
        assert lab("0.5", seen) == pytest.approx(lab("0.5"), abs=0.1)


@pytest.mark.parametrize("seen", SEEN)
def test_readers_who_see_fewer_colours_tell_all_of_the_palette_apart(seen):
    places = [lab(colour, seen) for colour in figures.PALETTE]
    gaps = [np.linalg.norm(one - other) for one, other in itertools.combinations(places, 2)]
    assert min(gaps) > 10  # about 2 are just seen side by side


def test_before_and_after_differ_in_grey():
    before, after = (lab(colour)[0] for colour in figures.VARIANTS.values())
    assert abs(before - after) > 15
