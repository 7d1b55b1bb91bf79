"""The figures of a paper: legible in print, and what they show is where the numbers are."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from test_ablations import SHIFTS, distances
from test_figures import check_bytes, check_caption, check_layout
from test_published import FOUND

from clca_utils import paper_figures as figures
from clca_utils.ablations import ablation_table
from clca_utils.dataset_statistics import READ
from clca_utils.moved_items import most_moved, moved_table
from clca_utils.published import side_by_side, uniform_of

mpl.use("agg")
MODELS = {
    "llama-3.1-8b": 8.0e9, "llama-3.2-1b": 1.2e9, "llama-3.2-3b": 3.2e9, "mistral-7b-v0.3": 7.2e9,
    "qwen2.5-0.5b": 0.5e9, "qwen2.5-1.5b": 1.5e9, "qwen2.5-7b": 7.6e9,
}  # fmt: skip
GRID = distances(
    {f"{model}{name.removeprefix('small')}": 0.01 * place + shift
     for place, model in enumerate(MODELS) for name, shift in SHIFTS.items()}
)  # fmt: skip
ABLATIONS = ablation_table(GRID)
SIZES = pd.DataFrame(
    [
        (model, size, 5, *(np.array([0.4, 0.38, 0.42]) + 0.01 * place),
         *(np.array([0.35, 0.32, 0.37]) + 0.01 * place), 0.3, 0.02)
        for place, (model, size) in enumerate(MODELS.items())
    ],
    columns=["model", "parameters", "cultures", "before", "before_low", "before_high", "after",
             "after_low", "after_high", "uniform", "human_floor"],
).sort_values("parameters")  # fmt: skip
RNG = np.random.default_rng(1)
MOVED = most_moved(
    moved_table(
        GRID.assign(topic="economic values", after=GRID["before"] + RNG.normal(0, 0.1, len(GRID)))
    )
)
PART = MOVED[MOVED["culture"] == "german"]
PAPER = side_by_side(FOUND.assign(accuracy_before=0.3, accuracy_after=0.35, js_distance_after=0.32))
FIGURES = {
    figures.ablation_figure: (ABLATIONS,),
    figures.scaling_figure: (SIZES,),
    figures.most_moved_figure: (PART,),
    figures.published_figure: (PAPER, uniform_of(FOUND)),
}


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_figures_write_the_same_bytes_twice_and_leave_no_trace(make, tmp_path):
    check_bytes(lambda: make(*FIGURES[make]), tmp_path)


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_no_text_is_cut_off_or_overlaps_another(make):
    check_layout(make(*FIGURES[make]))


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_every_figure_has_a_caption(make):
    check_caption(make)


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_a_figure_is_as_wide_as_a_page_and_its_letters_are_read_in_print(make):
    figure = make(*FIGURES[make])
    assert figure.get_figwidth() <= 6.3
    assert figure.get_figheight() <= 9.7
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7


def dots(axes):
    """Return the places of the dots with their faces."""
    found = {}
    for marks in axes.collections:
        if isinstance(marks, mpl.collections.PathCollection):
            for place, face in zip(marks.get_offsets(), itertools.cycle(marks.get_facecolors())):
                if np.isfinite(np.ma.filled(place, np.nan)).all():
                    found[tuple(np.round(place, 6))] = mpl.colors.to_hex(face)
    return found


def test_ablations_are_filled_where_they_are_clear():
    axes = figures.ablation_figure(ABLATIONS).axes
    assert [one.get_title(loc="left") for one in axes] == list(MODELS)
    rows = ABLATIONS[(ABLATIONS["model"] == "qwen2.5-7b") & (ABLATIONS["variant"] != "clca")]
    found = dots(axes[-1])
    assert {x for x, _ in found} == set(rows["difference"].round(6))
    hollow = {x for (x, _), face in found.items() if face == "#ffffff"}
    unclear = rows["verdict"] == "not distinguishable"
    assert hollow == set(rows["difference"][unclear].round(6))


def test_sizes_stand_on_a_logarithmic_axis_with_the_uniform_line():
    (axes,) = figures.scaling_figure(SIZES).axes
    assert axes.get_xscale() == "log"
    assert "1.5B" in [label.get_text() for label in axes.get_xticklabels()]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {"qwen2.5, before", "llama, after", "uniform line"} <= set(names)


def test_the_papers_numbers_are_marked_everywhere():
    figure = figures.published_figure(PAPER, uniform_of(FOUND))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == "small"
    assert all(name.endswith("(paper)") for name in names[1:])
    assert len(names) == 8  # the paper's ablations stand in the table alone
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"{READ}, after" in told
    values = {x for x, _ in dots(figure.axes[0])}
    assert {0.6, 0.35, 0.5112} <= values


def test_a_few_stay_in_one_figure_and_many_are_parted():
    assert list(figures.in_parts(PART[PART["model"] == "llama-3.1-8b"], "culture")) == [""]
    assert list(figures.in_parts(MOVED, "culture")) == ["_german", "_japanese"]
    parts = figures.in_parts(MOVED, "model")
    assert list(parts) == [f"_{model}" for model in sorted(MODELS)]
    assert sum(map(len, parts.values())) == len(MOVED)
