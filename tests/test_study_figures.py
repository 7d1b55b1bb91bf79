"""The figures of a whole study: scores as colours, trust as daggers, arrows on a map."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from test_figures import check_bytes, check_caption, check_layout

from clca_utils import study_figures as figures
from clca_utils.cultural_map import fit_map, item_means, project
from clca_utils.figures import GREEN, GREY
from clca_utils.files import StudyError
from clca_utils.items import load_items
from clca_utils.measures import MEASURES
from clca_utils.references import LINES
from clca_utils.survey import country_shares, load_marginals

mpl.use("agg")
VALUES = {  # uniform, human floor and what else is on the heat map
    "uniform": 0.4, "human_floor": 0.1, "majority": 0.55, "nearest_country": 0.2,
    "best_constant": 0.7,
}  # fmt: skip


def run(culture, model, seed, before, after, *, low_trust=0):
    """Return one run's metrics; of measures that are better if higher, one minus the number."""
    row = {"culture": culture, "model": model, "seed": seed, "low_trust_items": low_trust}
    for name, measure in MEASURES.items():
        for ending, value in (VALUES | {"before": before, "after": after}).items():
            row[f"{name}_{ending}"] = value if measure.better == "lower" else 1 - value
    return row


RUNS = pd.DataFrame(
    [
        run("british", "smollm2-135m-instruct", 1, 0.5, 0.3, low_trust=15),
        run("german", "smollm2-135m-instruct", 1, 0.4, 0.3),
        run("german", "smollm2-135m-instruct", 2, 0.6, 0.4),
        run("german", "qwen2.5-0.5b-instruct", 1, 0.3, np.nan),
    ]
)
ITEMS, MARGINALS = load_items(), load_marginals()
TIERS = MARGINALS.groupby("country")["tier"].max()


def world():
    """Return the countries of the shipped marginals, two models, and the even answer's place."""
    known = {c: country_shares(MARGINALS, c, ITEMS) for c in sorted(TIERS.index)}
    vectors = pd.DataFrame.from_dict(
        {country: item_means(shares, ITEMS) for country, shares in known.items()}, orient="index"
    )
    found = fit_map(vectors)
    axes = list(found.loadings)
    places = project(found, vectors)[axes].dropna().set_axis(["x", "y"], axis="columns")
    countries = places.assign(
        label=places.index,
        highlight=places.index.isin(["DEU", "JPN", "GBR"]),
        tier=TIERS.reindex(places.index),
    )
    even = {item.qid: 0.5 for item in ITEMS}
    uniform = project(found, pd.DataFrame([even]))[axes].to_numpy()[0]
    models = pd.DataFrame(
        [
            (*(uniform + 0.2), *(places.loc["JPN"] - 0.3), "japanese"),
            (*(uniform - 0.2), np.nan, np.nan, "german"),
        ],
        columns=["x0", "y0", "x1", "y1", "label"],
    )
    return countries, models, tuple(found.title(axis) for axis in axes), tuple(uniform)


WORLD = world()
CONTROLS = pd.DataFrame(
    [
        (culture, "smollm2-135m", control, shift * size, shift * size - 0.01, shift * size + 0.01,
         "closer" if shift * size < -0.01 else "not distinguishable")
        for culture, size in (("german", 1), ("japanese", 0.5), ("mexican", -0.2))
        for control, shift in (("untrained", -0.03), ("neutral-text", -0.02),
                               ("wrong-culture-japanese", 0.005), ("persona-prompt, untrained", 0))
    ],
    columns=["culture", "model", "control", "difference", "low", "high", "verdict"],
)  # fmt: skip
MATRIX = pd.DataFrame(
    [
        (model, learnt, other, -0.1 * (learnt == other) - 0.02 * size, 3)
        for model, size in (("smollm2-135m", 1), ("smollm2-135m+authored", 2))
        for learnt in ("german", "japanese", "mexican")
        for other in ("german", "japanese", "mexican")
    ],
    columns=["model", "learnt", "other", "change", "seeds"],
)
FIGURES = {
    figures.controls_figure: (CONTROLS,),
    figures.matrix_figure: (MATRIX, "change of surprise (nats a token)"),
    figures.study_figure: (RUNS,),
    figures.heat_map_figure: (RUNS,),
    figures.cultural_map_figure: WORLD,
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


def test_the_study_figure_has_a_panel_per_culture_a_row_per_model_and_marks_low_trust():
    figure = figures.study_figure(RUNS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["british †", "german"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["qwen2.5-0.5b-instruct", "smollm2-135m-instruct"]
    rings = [
        mark.get_offsets() for mark in figure.axes[1].collections if len(mark.get_offsets()) == 2
    ]
    assert sorted(x for x, _ in rings[0]) == [0.4, 0.6]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert figure.get_supxlabel().endswith("tiers C2 and D)")
    sure = figures.study_figure(RUNS[RUNS["culture"] == "german"])
    assert "†" not in sure.get_supxlabel()
    assert figures.study_figure(RUNS.drop(columns="low_trust_items")).axes


def test_the_controls_are_rows_and_what_is_clear_is_filled():
    axes = figures.controls_figure(CONTROLS).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == list(dict.fromkeys(CONTROLS["control"]))
    dots = [mark for mark in axes.collections if len(mark.get_offsets()) and mark.get_zorder() == 3]
    found = {tuple(np.round(place, 6)) for mark in dots for place in mark.get_offsets()}
    assert {x for x, _ in found} == set(CONTROLS["difference"].round(6))
    hollow = [m for m in dots if tuple(m.get_facecolors()[0][:3]) == (1, 1, 1)]
    drawn = {round(float(x), 6) for mark in hollow for x, _ in mark.get_offsets()}
    unclear = CONTROLS[CONTROLS["verdict"] != "closer"]["difference"].round(6)
    assert drawn == set(unclear)


def test_the_matrix_has_a_panel_per_model_on_one_scale():
    figure = figures.matrix_figure(MATRIX, "change")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == sorted(set(MATRIX["model"]))
    numbers = [[float(text.get_text()) for text in axes.texts] for axes in panels]
    assert numbers[0] == [-0.12, -0.02, -0.02, -0.02, -0.12, -0.02, -0.02, -0.02, -0.12]
    scales = {tuple(axes.collections[0].get_clim()) for axes in panels}
    assert len(scales) == 1


@pytest.mark.parametrize("make", [figures.study_figure, figures.heat_map_figure])
@pytest.mark.parametrize(
    "runs",
    [
        RUNS.assign(js_distance_before=np.nan),
        RUNS[["culture", "model", "seed"]],
        pd.DataFrame(columns=["culture", "model", "seed"]),
    ],
    ids=["none read", "none asked", "no run"],
)
def test_a_study_without_answers_is_told_what_to_run(make, runs):
    with pytest.raises(StudyError, match="No run of the study has answers yet: run 05_wvs_anal"):
        make(runs)


def heat(runs):
    """Return the names of the rows, the values as written and the scores as coloured."""
    axes = figures.heat_map_figure(runs).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    texts = np.array([text.get_text() for text in axes.texts]).reshape(len(names), -1)
    meshes = [m for m in axes.collections if isinstance(m, mpl.collections.QuadMesh)]
    scores = np.vstack([np.asarray(mesh.get_array()) for mesh in meshes])
    return names, pd.DataFrame(texts, names), pd.DataFrame(scores, names), axes


def test_the_heat_map_writes_values_and_colours_scores():
    names, texts, scores, axes = heat(RUNS)
    assert names[:5] == [
        "british †, smollm2-135m-instruct: before",
        "after",
        "german, qwen2.5-0.5b-instruct: before",  # it was never asked after training
        "german, smollm2-135m-instruct: before",
        "after",
    ]
    assert names[5:] == list(figures.HEAT_LINES)
    german = texts.iloc[3]
    assert german[0] == "0.500"  # the mean of both seeds
    accuracy = list(MEASURES).index("accuracy")
    assert german[accuracy] == "0.500"
    assert german.iloc[-1] == "-0.333"  # (0.4 - 0.5) / (0.4 - 0.1)
    # one scale for all measures, whichever way is better
    for row, score in enumerate([-1 / 3, 1 / 3, 1 / 3, -1 / 3, 1 / 6]):
        assert scores.iloc[row].to_numpy() == pytest.approx(score)
    assert scores.loc["uniform"].to_numpy() == pytest.approx(0)
    assert scores.loc["human floor"].to_numpy() == pytest.approx(1)
    assert scores.loc["best constant"].to_numpy() == pytest.approx(-1)
    assert axes.get_xlabel().startswith("†")
    heads = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    assert heads[accuracy] == "Expected accuracy ↑"
    assert len(heads) == len(MEASURES) + 1


def test_the_heat_map_averages_the_lines_over_cultures_not_runs():
    other = {f"js_distance_{LINES['majority']}": 0.85}
    runs = pd.DataFrame([*RUNS.to_dict("records"), run("mexican", "m", 1, 0.5, 0.4) | other])
    _, texts, scores, _ = heat(runs)
    assert texts.loc["majority", 0] == f"{(0.55 + 0.55 + 0.85) / 3:.3f}"
    assert scores.loc["majority", 0] == pytest.approx((-0.5 - 0.5 - 1.5) / 3)


def test_the_heat_map_leaves_out_what_is_absent():
    columns = [c for c in RUNS if "wasserstein" not in c and "best_constant" not in c]
    names, texts, _, axes = heat(RUNS[columns])
    assert "best constant" not in names
    assert texts.shape[1] == len(MEASURES)
    assert not any("Wasserstein" in label.get_text() for label in axes.get_xticklabels())


def test_the_map_shows_countries_arrows_and_the_even_answer():
    countries, models, titles, uniform = WORLD
    axes = figures.cultural_map_figure(*WORLD).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == titles
    names = {text.get_text() for text in axes.texts} - {""}
    assert names == {*countries["label"], "japanese", "german"}
    assert sum(text.arrow_patch is not None for text in axes.texts) == 1
    drawn = {str(dots.get_label()): dots for dots in axes.collections}

    def places(name):
        return np.asarray(drawn[name].get_offsets())

    assert places("guessing evenly") == pytest.approx(np.array([uniform]))
    learnt = countries.loc[["DEU", "JPN"], ["x", "y"]].to_numpy()
    assert places("country to be learnt") == pytest.approx(learnt)
    doubtful = countries.loc[["GBR"], ["x", "y"]].to_numpy()
    assert places("country to be learnt, low trust") == pytest.approx(doubtful)
    hollow = drawn["country to be learnt, low trust"]
    assert mpl.colors.to_hex(hollow.get_facecolor()[0]) == "#ffffff"
    assert mpl.colors.to_hex(hollow.get_edgecolor()[0]) == GREEN
    assert mpl.colors.to_hex(drawn["country"].get_facecolor()[0]) == GREY
    assert len(places("country")) == len(countries) - 3
    end = models.loc[[0], ["x1", "y1"]].to_numpy()
    assert places("model after")[:1] == pytest.approx(end)


@pytest.mark.parametrize("seed", range(3))
def test_labels_on_the_map_stay_inside_and_rarely_meet(seed):
    rng = np.random.default_rng(seed)
    countries = pd.DataFrame(rng.normal(size=(60, 2)), columns=["x", "y"])
    countries = countries.assign(label="XYZ", highlight=rng.random(60) < 0.1, tier="A")
    models = pd.DataFrame(columns=["x0", "y0", "x1", "y1", "label"], dtype=float)
    figure = figures.cultural_map_figure(countries, models, ("x", "y"))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    page = axes.bbox.padded(2)
    assert all(page.count_contains([box.min, box.max]) == 2 for box in boxes)
    meeting = sum(box.count_overlaps(boxes[:number]) > 0 for number, box in enumerate(boxes))
    assert meeting <= 2
