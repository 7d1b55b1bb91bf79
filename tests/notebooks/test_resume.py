"""A study killed at every stage ends with the same files as plain papermill, never killed.

The study is as small as can be, of a culture that the package does not ship, given by its path,
and compared with made-up answers, given likewise.
Both ways draw from the same seed, so this is also the proof that a seed decides every artefact.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clca_utils.files import ROOT, read_json
from clca_utils.params import load_study
from clca_utils.runner import plan

from .conftest import artefacts

STUDY = {
    "study": "tiny",
    "cultures": ["tests/data/italian.yaml"],
    "models": ["smollm2-135m"],
    "seeds": [7],
    "scenario_adaptation": {"n_scenarios": 2},
    "dialogue_simulation": {
        "max_turns": 3,
        "max_new_tokens": 20,
        "batch_size": 1,
        "reject_confidence": 1.0,
    },
    "intent_extraction": {"max_new_tokens": 8, "batch_size": 1},
    "fine_tuning": {"batch_size": 1, "checkpoint_steps": 1},
    "held_out": {"cultures": ["german"], "texts": 1, "questions": 1},
    "wvs_analysis": {
        "prompt": "persona",
        "n_respondents": 2,
        "orders": "first",
        "checks": ["paraphrase"],
    },
}
SHARES = "qid,country,option,share,n,tier\nQ7,ITA,1,0.4,500,made up\nQ7,ITA,2,0.6,500,made up\n"
RUN = "italian/smollm2-135m/seed-7"


def batches(ledger: str) -> Callable[[Path], bool]:
    """Return whether a ledger of a run folder holds a finished batch yet (line 1 is its key)."""

    def found(run: Path) -> bool:
        path = run / ledger
        return path.is_file() and path.read_text().count("\n") > 1

    return found


KILLS: dict[str, Callable[[Path], bool]] = {
    "01 begun": lambda run: (run / "01_scenario_adaptation.ipynb").is_file(),
    "02 between dialogues": batches(".dialogues.ledger"),
    "02 between judgements": batches(".judgements.ledger"),
    "03 between intents": batches(".intents.ledger"),
    "04 after a checkpoint": lambda run: bool(list(run.glob(".checkpoints-*/checkpoint-*/*.json"))),
    "04b begun": lambda run: (run / "04b_held_out.ipynb").is_file(),
    "05 between parts, before": lambda run: bool(list(run.glob(".answers/before/*/*.parquet"))),
    "05 between parts, after": lambda run: bool(list(run.glob(".answers/after/*/*.parquet"))),
    "06 begun": lambda run: (run.parents[2] / "06_paper_figures.ipynb").is_file(),
}


def start(study: Path, results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clca_utils", "run", str(study), "--results", str(results)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def study(results: Path) -> Path:
    shares = results / "shares.csv"
    shares.write_text(SHARES)
    STUDY["wvs_analysis"]["survey"] = str(shares.relative_to(ROOT))
    path = results / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


@pytest.fixture(scope="module")
def plain(results: Path, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the study run by papermill itself, notebook by notebook."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for step in plan(load_study(study), results / "plain"):
        parameters = elsewhere / "parameters.yaml"
        parameters.write_text(yaml.safe_dump(step.parameters))
        done = subprocess.run(
            [sys.executable, "-m", "papermill", str(step.stage.notebook), "out.ipynb",
             "-f", str(parameters), "--no-progress-bar"],
            cwd=elsewhere,  # a notebook finds the repository wherever it is started
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    return results / "plain" / "tiny"


@pytest.fixture(scope="module")
def killed(results: Path, study: Path) -> Path:
    """Return the folder of the study killed (-9) once at each point and started again."""
    run = results / "killed" / "tiny" / RUN
    for point, reached in KILLS.items():
        runner = start(study, results / "killed")
        deadline = time.monotonic() + 300
        while not reached(run):
            assert runner.poll() is None, f"{point}: {runner.communicate()[0]}"
            assert time.monotonic() < deadline, point
            time.sleep(0.02)
        os.kill(runner.pid, signal.SIGKILL)
        runner.communicate()
    last = start(study, results / "killed")
    printed = last.communicate(timeout=600)[0]
    assert last.returncode == 0, printed
    assert printed.count("skipped, nothing changed") == 6
    return results / "killed" / "tiny"


def test_papermill_alone_runs_every_notebook(plain):
    assert (plain / "figures" / "study.png").is_file()
    found = read_json(plain / RUN / "metrics/05_wvs_analysis.json")
    assert (found["respondents_before"], found["items"]) == (2, 1)


def test_a_culture_that_does_not_ship_is_a_file_and_no_more(plain):
    text = (plain / RUN / "scenarios.jsonl").read_text()
    assert text.count('"country":"Italy"') == 2
    assert "Italy" in (plain / RUN / "tables/coverage.csv").read_text()


def test_killed_at_every_stage_it_ends_with_the_same_files(plain, killed):
    assert artefacts(killed) == artefacts(plain)
    assert len(artefacts(killed)) > 40


def test_what_was_finished_before_a_kill_is_recorded_once(killed):
    assert len(read_json(killed / RUN / "manifest.json")["stages"]) == 6
    assert list(read_json(killed / "manifest.json")["stages"]) == ["06_paper_figures"]


def test_nothing_temporary_is_left_after_the_kills(killed):
    assert {path.name for path in killed.rglob(".*")} == {".locks"}
