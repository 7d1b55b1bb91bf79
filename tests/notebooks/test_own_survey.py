"""Notebook 05 with a survey file of the user's own: real respondents, in their language."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from clca_utils.answers import condition, read_answers
from clca_utils.files import ROOT, read_json
from clca_utils.items import load_items
from clca_utils.measures import respondent_table
from clca_utils.microdata import PERSONA, load_microdata
from clca_utils.planning import NOTEBOOKS
from clca_utils.shares import person_shares

COUNTRIES = ("DEU", "JPN", "MEX", "CHN")
PEOPLE = 30


def made_up_survey(path: Path) -> None:
    """Write a file as the survey distributes it, about people who don't exist."""
    rng = np.random.default_rng(0)
    size = len(COUNTRIES) * PEOPLE
    columns = {
        "D_INTERVIEW": np.arange(size) + 70_000_001,
        "B_COUNTRY_ALPHA": np.repeat(COUNTRIES, PEOPLE),
        "W_WEIGHT": rng.uniform(0.5, 2, size).round(3),
        "H_SETTLEMENT": rng.integers(1, 6, size),
        "Q260": rng.integers(1, 3, size),
        "Q262": rng.integers(18, 90, size),
    }
    for number, item in enumerate(load_items("all")):
        liked = 1 + (np.repeat(np.arange(len(COUNTRIES)), PEOPLE) + number) % len(item.options)
        drawn = rng.integers(1, len(item.options) + 1, size)
        columns[item.qid] = np.where(rng.random(size) < 0.5, liked, drawn)
        columns[item.qid][rng.random(size) < 0.05] = -1  # don't know
    pd.DataFrame(columns).to_csv(path, index=False, sep=";", encoding="utf-8-sig")


@pytest.fixture(scope="module")
def run(smoke: Path, results: Path) -> Path:
    """Return the run folder of notebook 05 alone, with the smoke study's adapter."""
    folder = results / "own-survey"
    shutil.copytree(smoke / "adapter", folder / "adapter")
    made_up_survey(results / "wvs.csv")
    parameters = {
        "run_dir": str(folder.relative_to(ROOT)),
        "survey": str((results / "wvs.csv").relative_to(ROOT)),
        "item_set": "all",
        "prompt": "native",
        "n_respondents": 2,
        "orders": "first",
        "checks": [],
    }
    (results / "own.yaml").write_text(yaml.safe_dump(parameters))
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOKS / "05_wvs_analysis.ipynb"),
         str(folder / "05.ipynb"), "-f", str(results / "own.yaml"), "--no-progress-bar"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_respondents_are_the_surveys_and_asked_in_their_language(run):
    answers = read_answers(run / "answers.parquet")
    assert answers["respondent"].nunique() == 2
    assert answers["respondent"].between(70_000_001, 70_000_030).all()
    assert len(answers["qid"].unique()) == 53
    text = (run / "05.ipynb").read_text()
    assert "Sie leben in Deutschland" in text
    assert "Wie wichtig" in text
    assert "2 surveyed respondents of Germany (in German)" in text


def test_the_people_are_those_of_the_file(run, results):
    coverage = pd.read_csv(run / "tables" / "coverage.csv")
    assert set(coverage["tier"]) == {"microdata"}
    assert len(coverage) == 53
    people = load_microdata(results / "wvs.csv", load_items("all"), ["DEU"])
    assert people[list(PERSONA)].notna().any().sum() == 3
    shares = pd.read_csv(run / "tables" / "shares.csv")
    theirs = shares[(shares["variant"] == "people") & (shares["qid"] == "Q1")]["share"]
    known = people["Q1"].notna()
    for code, share in enumerate(theirs, start=1):
        chosen = people["weight"][people["Q1"] == code].sum()
        assert share == pytest.approx(chosen / people["weight"][known].sum())


def test_every_respondent_is_compared_with_their_own_answers(run, results):
    found = read_json(run / "metrics" / "05_wvs_analysis.json")
    people = load_microdata(results / "wvs.csv", load_items("all"), ["DEU"])
    main = condition(read_answers(run / "answers.parquet"), "main")
    table = respondent_table(person_shares(main, "calibrated"), people)
    means = table.groupby("variant", observed=True)[["accuracy", "closeness"]].mean()
    for variant in ("before", "after"):
        for measure in ("accuracy", "closeness"):
            assert found[f"own_{measure}_{variant}"] == pytest.approx(means[measure][variant])
    assert found["js_distance_before_respondents_low"] <= found["js_distance_before"]


def test_both_maps_are_drawn(run):
    places = pd.read_csv(run / "tables" / "places.csv")
    assert set(places["map"]) == {"values", "inglehart-welzel"}
    welzel = places[places["map"] == "inglehart-welzel"]
    assert set(welzel.loc[welzel["kind"] == "country", "label"]) == set(COUNTRIES)
    assert {"before", "after", "uniform"} <= set(welzel["kind"])
    assert (run / "figures" / "map_inglehart-welzel.png").stat().st_size > 5000
