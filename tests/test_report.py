"""The report: what a results folder holds is tabled and drawn, and what it lacks is no harm."""

import itertools
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats
from test_comparison import MODEL, WORLD, answers, compared

from clca_utils import report, study_tables
from clca_utils.comparison import PLACES, Comparison, places, write_comparison
from clca_utils.files import StudyError, write_metrics, write_records, write_text
from clca_utils.gold import GoldCase, agreement
from clca_utils.intent_gold import agreement_table
from clca_utils.items import load_items
from clca_utils.judging import decide, judge_form
from clca_utils.uncertainty import survey_metrics

mpl.use("agg")
RUNS = {  # mean JS distance before and after
    "german/large/seed-1": (0.40, 0.30),
    "german/large/seed-2": (0.40, 0.31),
    "german/small/seed-1": (0.50, 0.55),
    "japanese/small/seed-1": (0.45, 0.449),
}
WOBBLE = {"before": np.linspace(-0.02, 0.02, 12), "after": np.linspace(-0.03, 0.03, 12)}
"""By how much the items of a run lie from its mean; they change by at most 0.01 around it."""


def tables(before: float, after: float) -> Comparison:
    """Return the tables of a run; here only the distances matter."""
    by_item = pd.DataFrame(
        [
            (variant, f"Q{number}", "work", "calibrated", mean + off)
            for variant, mean in (("before", before), ("after", after))
            for number, off in enumerate(WOBBLE[variant], start=1)
        ],
        columns=["variant", "qid", "topic", "reading", "js_distance"],
    )
    fixed = by_item.assign(reading="fixed order", js_distance=1.0)
    nothing = pd.DataFrame({"nothing": []})
    whole = pd.concat([fixed, by_item], ignore_index=True)
    known = pd.DataFrame({"qid": ["Q1"], "tier": ["A"], "country": ["Germany"]})
    none = pd.DataFrame(columns=PLACES)
    return Comparison(nothing, whole, nothing, nothing, known, none)


def metrics(before: float, after: float, low_trust: int) -> dict[str, float]:
    return {
        "js_distance_before": before, "js_distance_after": after, "low_trust_items": low_trust,
        "synthetic_respondents": 2 * low_trust,
        "js_distance_uniform": 0.35, "js_distance_human_floor": 0.05,
        "normalised_score_before": (0.35 - before) / 0.3,
        "normalised_score_after": (0.35 - after) / 0.3,
    }  # fmt: skip


def summary(study, runs=()):
    """Return the main table of a study's folder."""
    found, by_item = study_tables.study_table(study, runs), study_tables.item_distances(study, runs)
    return report.summary_table(found, by_item)


@pytest.fixture
def study(tmp_path):
    """Return a results folder whose models learnt from dialogues of a larger simulator."""
    for name, values in RUNS.items():
        write_metrics(tmp_path / name, "04_fine_tuning", {"steps": 5})
        low_trust = 3 if name.startswith("japanese") else 0
        write_metrics(tmp_path / name, "05_wvs_analysis", metrics(*values, low_trust))
        write_comparison(tables(*values), tmp_path / name / "tables")
    for culture in ("german", "japanese"):
        run = tmp_path / culture / "simulator" / "seed-1"
        write_metrics(run, "01_scenario_adaptation", {"scenarios": 4})
        write_metrics(run, "02_dialogue_simulation", {"dialogues": 4, "dialogues_kept": 3})
    (tmp_path / "figures").mkdir()
    (tmp_path / "german/half/seed-1").mkdir(parents=True)
    return tmp_path


def test_the_study_table_has_a_row_per_run_with_all_its_metrics(study):
    table = study_tables.study_table(study).set_index(["culture", "model", "seed"])
    assert list(table.index) == [
        ("german", "large", 1), ("german", "large", 2), ("german", "simulator", 1),
        ("german", "small", 1), ("japanese", "simulator", 1), ("japanese", "small", 1),
    ]  # fmt: skip
    assert table.loc[("german", "large", 2), "js_distance_after"] == 0.31
    assert table.loc[("german", "large", 2), "steps"] == 5
    simulator = table.loc[("japanese", "simulator", 1)].dropna()
    assert simulator.to_dict() == {"scenarios": 4, "dialogues": 4, "dialogues_kept": 3}


def test_controls_are_told_from_the_method(study):
    write_metrics(study / "german/large+authored/seed-1", "05_wvs_analysis", {"x": 1.0})
    names = study_tables.of_the_method(study)
    assert "german/large/seed-2" in names
    assert not [name for name in names if "+" in name]
    alone = ["german/large+authored/seed-1"]
    assert study_tables.of_the_method(study, alone) == alone


def test_the_summary_averages_seeds_and_leaves_out_runs_without_survey(study):
    table = summary(study)
    assert list(table.index) == [
        ("german", "large"), ("german", "small"), ("japanese", "small")
    ]  # fmt: skip
    large = table.loc[("german", "large")]
    assert large["seeds"] == 2
    assert large["before"] == pytest.approx(0.40)
    assert large["after"] == pytest.approx(0.305)
    assert large["change"] == pytest.approx(-0.095)
    assert large["uniform"] == pytest.approx(0.35)
    assert large["human floor"] == pytest.approx(0.05)
    assert large["score before"] == pytest.approx(-1 / 6)
    assert large["score after"] == pytest.approx(0.15)
    assert table["low-trust items"].tolist() == [0, 0, 3]
    assert table["synthetic respondents"].tolist() == [0, 0, 6]


def test_the_summary_tests_the_change_over_items_and_over_seeds(study):
    table = summary(study)
    # all twelve items of the first two rows change in one direction: 2 of 2^12 swaps are as far
    assert table["p_value"].tolist()[:2] == pytest.approx([2 / 2**12] * 2)
    differences = -0.001 + WOBBLE["after"] - WOBBLE["before"]
    sums = np.array(list(itertools.product((1, -1), repeat=12))) @ differences
    p_value = 2 * np.mean(sums <= differences.sum() + 1e-12)
    assert table["p_value"].iloc[2] == pytest.approx(p_value, abs=0.02)
    # Holm: the smallest is multiplied by three, the next by two, never falling
    assert table["p_holm"].tolist() == pytest.approx(
        [3 * 2 / 2**12, 3 * 2 / 2**12, table["p_value"].iloc[2]]
    )
    assert table["verdict"].tolist() == ["better", "worse", "not distinguishable"]
    assert (table["low"] <= table["change"]).all()
    assert (table["change"] <= table["high"]).all()
    # over two seeds, -0.10 and -0.09: Student's t with one degree of freedom
    half = stats.t.ppf(0.975, 1) * np.std([-0.1, -0.09], ddof=1) / np.sqrt(2)
    large = table.loc[("german", "large")]
    assert large[["seeds_low", "seeds_high"]].tolist() == pytest.approx(
        [-0.095 - half, -0.095 + half]
    )
    assert table.loc[("german", "small"), ["seeds_low", "seeds_high"]].isna().all()


@pytest.mark.parametrize("after", [0.38, 0.42])
def test_a_change_that_the_seeds_do_not_agree_on_is_not_distinguishable(study, after):
    second = "german/large/seed-2"
    write_metrics(study / second, "05_wvs_analysis", metrics(0.40, after, 0))
    write_comparison(tables(0.40, after), study / second / "tables")
    large = summary(study).loc[("german", "large")]
    assert large["p_holm"] < 0.05
    assert large["low"] < large["high"] < 0
    assert large["seeds_low"] < 0 < large["seeds_high"]
    assert large["verdict"] == "not distinguishable"
    # one seed alone has no interval that could speak against it
    alone = summary(study, ["german/large/seed-1"])
    assert alone["verdict"].tolist() == ["better"]


def test_the_summary_counts_the_runs_that_are_named(study):
    names = ["german/large/seed-2", "german/small/seed-1"]
    table = summary(study, names)
    assert table["seeds"].tolist() == [1, 1]
    assert table["after"].tolist() == pytest.approx([0.31, 0.55])
    assert set(study_tables.study_table(study, names)["seed"]) == {1, 2}


def test_a_change_that_is_sure_alone_may_not_be_so_among_many(study):
    """Six items of one direction have p = 2/64: enough alone, not among three rows."""
    for name in RUNS:
        path = study / name / "tables" / "items.csv"
        few = pd.read_csv(path)
        write_text(path, few[few["qid"].isin([f"Q{n}" for n in range(1, 7)])].to_csv(index=False))
    alone = summary(study, ["german/large/seed-1"])
    assert (alone["p_holm"].iloc[0], alone["verdict"].iloc[0]) == (2 / 64, "better")
    table = summary(study)
    assert table["p_value"].iloc[0] == 2 / 64
    assert table["p_holm"].iloc[0] == 3 * 2 / 64
    assert set(table["verdict"]) == {"not distinguishable"}


def test_a_study_without_any_survey_has_an_empty_summary(tmp_path):
    write_metrics(tmp_path / "german/large/seed-1", "01_scenario_adaptation", {"scenarios": 4})
    assert study_tables.study_table(tmp_path)["scenarios"].tolist() == [4]
    table = summary(tmp_path)
    assert len(table) == 0
    assert {"seeds", "before", "change", "p_holm", "verdict"} <= set(table)
    assert report.study_maps(tmp_path) == {}


@pytest.mark.parametrize("exists", [True, False])
def test_a_study_without_runs_is_told(tmp_path, exists):
    study = tmp_path / "empty"
    if exists:
        (study / "german/large/seed-1").mkdir(parents=True)
    for read in (study_tables.run_folders, study_tables.study_table, summary, report.study_maps):
        with pytest.raises(StudyError, match="empty holds no run: run the study's stages"):
            read(study)


@pytest.fixture(scope="module")
def survey():
    """Compare a model that knows nothing, and the same one half way to the people."""
    both = [
        answers("DEU", lambda p, _: np.full(len(p), 1 / len(p))),
        answers("DEU", lambda p, _: (p + 1 / len(p)) / 2, "after"),
    ]
    return compared("german", pd.concat(both))


@pytest.fixture
def run(tmp_path, scenario, dialogue, intents, survey):
    """Return a run's folder with all its artefacts."""
    write_records(tmp_path / "scenarios.jsonl", [scenario])
    write_records(tmp_path / "dialogues.jsonl", [dialogue])
    judgement = decide(dialogue.id, [judge_form(scenario, dialogue)], 0.9, ())
    write_records(tmp_path / "judgements.jsonl", [judgement])
    write_records(tmp_path / "intents.jsonl", intents)
    case = GoldCase(kind="authored", source=dialogue.id, scenario=scenario, dialogue=dialogue)
    judged = agreement([case], [judgement])
    annotated = agreement_table([dialogue], intents, intents)
    write_text(tmp_path / "judge_agreement.csv", judged.to_csv(index=False))
    write_text(tmp_path / "intent_agreement.csv", annotated.to_csv(index=False))
    log = pd.DataFrame({"step": [1, 2], "epoch": [0.5, 1.0], "loss": [3.0, 2.0]})
    write_text(tmp_path / "training_log.csv", log.to_csv(index=False))
    write_comparison(survey, tmp_path / "tables")
    return tmp_path


AGREEMENT = ["judge_agreement", "intent_agreement"]
SURVEY_FIGURES = ["distance", "distribution", "calibration", "position", "moved_items"]


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def test_every_figure_of_a_whole_run_is_drawn(run):
    drawn = report.run_figures(run)
    names = ["scenarios", "dialogues", "intents", *AGREEMENT, "loss", *SURVEY_FIGURES, "map_values"]
    assert list(drawn) == names
    assert all(isinstance(figure, Figure) and figure.axes for figure in drawn.values())
    assert plt.get_fignums() == []
    assert "Germany" in words(drawn["distance"])
    for name in ("distance", "distribution", "calibration", "moved_items", "map_values"):
        said = " ".join(words(drawn[name]).split())  # it is wrapped
        assert "44 of 44 items compared (tier A, n 1391 to 1527). Asked as a person" in said, name


def test_figures_of_tables_read_back_are_those_of_the_stage(run, survey):
    """Stage 06 draws from files what stage 05 drew from memory."""
    fresh, again = report.comparison_figures(survey, 5), report.run_figures(run, 5)
    for name, figure in fresh.items():
        assert words(figure) == words(again[name])


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("scenarios.jsonl", ["scenarios"]),
        ("judgements.jsonl", ["dialogues"]),
        ("intents.jsonl", ["intents"]),
        ("judge_agreement.csv", ["judge_agreement"]),
        ("intent_agreement.csv", ["intent_agreement"]),
        ("training_log.csv", ["loss"]),
        ("tables", SURVEY_FIGURES),
    ],
)
def test_an_artefact_that_is_not_there_leaves_out_its_figures_only(
    run, monkeypatch, without, missing
):
    monkeypatch.setattr(report, "comparison_figures", lambda *_: dict.fromkeys(SURVEY_FIGURES))
    whole = list(report.run_figures(run))
    (run / without).rename(run / "away")
    assert [name for name in whole if name not in report.run_figures(run)] == missing


def test_an_empty_folder_has_no_figures(tmp_path):
    assert report.run_figures(tmp_path) == {}


def test_a_damaged_artefact_is_named(run):
    (run / "intents.jsonl").write_text('{"dialogue_id": "x"}\n')
    with pytest.raises(StudyError, match=r"intents\.jsonl, line 1: turn"):
        report.run_figures(run)


def test_metrics_of_a_real_comparison_fill_the_summary(tmp_path, survey):
    numbers = survey_metrics(survey.items, survey.references, seed=1)
    numbers |= {"low_trust_items": 0.0, "synthetic_respondents": 0.0}
    run = tmp_path / "german/small/seed-1"
    write_metrics(run, "05_wvs_analysis", numbers)
    write_comparison(survey, run / "tables")
    table = summary(tmp_path)
    assert not table.drop(columns=["seeds_low", "seeds_high"]).isna().any(axis=None)
    row = table.loc[("german", "small")]
    assert row["score before"] == pytest.approx(0)
    assert row["human floor"] < row["after"] < row["before"]
    assert row["change"] == pytest.approx(row["after"] - row["before"])
    assert row["verdict"] == "better"


EVERY = load_items("all")


@pytest.fixture(scope="module")
def spots():
    """Return the places of a model that knows nothing before, and answers as CCC after."""
    return places(MODEL, WORLD, EVERY)


@pytest.fixture
def drawn(monkeypatch):
    """Note what the map is drawn from, instead of drawing it."""
    calls = []
    monkeypatch.setattr(
        report.study_figures, "cultural_map_figure", lambda *given: calls.append(given) or Figure()
    )
    return calls


def placed(survey, table, iso3="DEU") -> Comparison:
    return replace(survey, places=table, coverage=survey.coverage.assign(iso3=iso3))


def test_both_maps_are_drawn_where_they_are_known(survey, spots):
    figures = report.comparison_figures(placed(survey, spots, "CCC"), 1)
    assert list(figures) == [*SURVEY_FIGURES, "map_inglehart-welzel", "map_values"]
    labels = figures["map_inglehart-welzel"].axes[0]
    assert labels.get_xlabel().startswith("self-expression")
    assert labels.get_ylabel().startswith("secular-rational")


def test_an_arrow_leads_from_before_to_after(survey, spots, drawn):
    report.comparison_figures(placed(survey, spots, "CCC"), 1)
    countries, models, titles, uniform = drawn[-1]
    where = countries.set_index("label")
    assert where.index[where["highlight"]].tolist() == ["CCC"]
    assert len(where) == 5
    (arrow,) = models.to_dict("records")
    assert arrow["label"] == "model"
    assert (arrow["x1"], arrow["y1"]) == pytest.approx(tuple(where.loc["CCC", ["x", "y"]]))
    assert (arrow["x0"], arrow["y0"]) == pytest.approx(uniform)
    assert len(titles) == 2


def test_a_model_without_an_after_has_only_a_ring(survey, spots, drawn):
    report.comparison_figures(placed(survey, spots[spots["kind"] != "after"]), 1)
    (arrow,) = drawn[-1][1].to_dict("records")
    assert np.isfinite([arrow["x0"], arrow["y0"]]).all()
    assert np.isnan([arrow["x1"], arrow["y1"]]).all()


def test_a_studys_maps_hold_the_models_of_all_its_runs(tmp_path, survey, spots, drawn):
    few = spots[(spots["map"] == "values") & (spots["label"] != "EEE")]
    for name, table, iso3 in (
        ("german/large/seed-1", spots, "CCC"),
        ("german/large/seed-2", spots, "CCC"),
        ("japanese/large/seed-1", spots, "AAA"),
        ("mexican/large/seed-1", few, "BBB"),  # its map lies through other countries
    ):
        write_metrics(tmp_path / name, "05_wvs_analysis", {"items": 1})
        write_comparison(placed(survey, table, iso3), tmp_path / name / "tables")
    write_metrics(tmp_path / "german/simulator/seed-1", "01_scenario_adaptation", {"scenarios": 4})
    assert set(report.study_maps(tmp_path)) == {"map_values", "map_inglehart-welzel"}
    for countries, models, *_ in drawn:
        assert models["label"].tolist() == [
            "german large", "japanese large"
        ]  # fmt: skip
        assert set(countries["label"][countries["highlight"]]) == {"AAA", "CCC"}
    drawn.clear()
    assert list(report.study_maps(tmp_path, ["mexican/large/seed-1"])) == ["map_values"]
    assert drawn[0][1]["label"].tolist() == ["mexican large"]


def test_a_model_has_a_map_of_its_own_where_there_are_many(tmp_path, survey, spots, drawn):
    runs = [f"{culture}/{model}" for culture in "abcd" for model in ("large", "small")]
    for name in runs:
        for seed in (1, 2):
            folder = tmp_path / name / f"seed-{seed}"
            write_metrics(folder, "05_wvs_analysis", {"items": 1})
            moved = spots.assign(x=spots["x"] + 0.1 * seed * (spots["kind"] == "after"))
            write_comparison(placed(survey, moved, "CCC"), folder / "tables")
    maps = {f"map_{kind}_{size}" for kind in ("values", "inglehart-welzel")
            for size in ("large", "small")}  # fmt: skip
    assert set(report.study_maps(tmp_path)) == maps
    for _, models, *_ in drawn:
        assert models["label"].tolist() == list("abcd")
    # a model's place is the mean of its seeds': 0.1 and 0.2 to the right
    after = {name: rows.loc[rows["kind"] == "after", "x"] for name, rows in spots.groupby("map")}
    expected = {round(float(x.iloc[0]) + 0.15, 6) for x in after.values()}
    assert {round(float(models["x1"].iloc[0]), 6) for _, models, *_ in drawn} == expected
