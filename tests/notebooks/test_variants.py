"""A control beside the smoke study, really run: what both share is done once."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from clca_utils import runner
from clca_utils.answers import read_answers
from clca_utils.files import ROOT, digest, read_json
from clca_utils.held_out import read_examined

CONTROL = Path("smoke/german/smollm2-135m+neutral-text/seed-1")


@pytest.fixture(scope="module")
def printed(smoke, tmp_path_factory):
    """Add a control to a copy of the smoke study; return its results and what the runner said."""
    results = Path(tempfile.mkdtemp(dir=ROOT / "results", prefix=".test-"))
    shutil.copytree(smoke.parents[2], results / "smoke")
    content = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    study = tmp_path_factory.mktemp("study") / "smoke.yaml"
    study.write_text(yaml.safe_dump(content | {"variants": ["clca", "neutral-text"]}))
    lines: list[str] = []

    class Console(runner.Console):
        def print(self, *told: object, **_: object) -> None:
            lines.extend(map(str, told))

    runner.run(study, results, Console())
    yield results, lines
    shutil.rmtree(results)


def test_only_the_control_and_the_report_are_run(printed):
    _, lines = printed
    done = [line.split(": done in")[0].split("/")[-1] for line in lines if ": done in" in line]
    assert done == ["04_fine_tuning", "04b_held_out", "05_wvs_analysis", "06_paper_figures"]
    assert sum("skipped, nothing changed" in line for line in lines) == 6


def test_the_control_learns_as_many_words_of_something_else(printed, smoke):
    results, _ = printed
    learnt = [read_json(run / "metrics/04_fine_tuning.json") for run in (smoke, results / CONTROL)]
    assert learnt[1]["tokens_learnt"] == pytest.approx(learnt[0]["tokens_learnt"], rel=0.4)
    assert digest(results / CONTROL / "adapter") != digest(smoke / "adapter")


def test_the_untrained_model_was_asked_once(printed, smoke):
    results, _ = printed
    for read in (lambda run: read_answers(run / "answers.parquet"), read_examined):
        one, other = (read(run) for run in (smoke, results / CONTROL))
        before = [table[table["variant"] == "before"].reset_index(drop=True)
                  for table in (one, other)]  # fmt: skip
        pd.testing.assert_frame_equal(*before, check_categorical=False)
        assert not one.equals(other)
    told = read_json(results / CONTROL / "manifest.json")["stages"]["05_wvs_analysis"]
    assert told["parameters"]["before_dir"].endswith("smoke/german/smollm2-135m/seed-1")


def test_the_report_sets_the_method_beside_its_control(printed):
    results, _ = printed
    table = pd.read_csv(results / "smoke/tables/controls.csv")
    assert table["control"].tolist() == ["untrained", "neutral-text"]
    assert set(table["items"]) == {44}
    assert (table["p_holm"] >= table["p_value"]).all()
    assert (results / "smoke/figures/controls.png").stat().st_size > 5000
    drawn = {path.name for path in (results / "smoke/figures/german").iterdir()}
    assert drawn == {"smollm2-135m"}
