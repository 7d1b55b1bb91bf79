"""The command line: short answers, plain sentences for what the user can mend, exit codes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from clca_utils import culture, embedded, params, runner
from clca_utils.cli import app
from clca_utils.files import ROOT, StudyError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a folder with a study, its culture and model, and empty notebooks."""
    for name in ("cultures/german.yaml", "models/small.yaml"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(f"name: {path.stem}\nsource: o/m\n")
    (tmp_path / "notebooks").mkdir()
    for stage in runner.STAGES:
        (tmp_path / "notebooks" / f"{stage.name}.ipynb").write_text('{"cells": []}')
    content = {"study": "tiny", "cultures": ["german"], "models": ["small"]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(culture, "FOLDER", tmp_path / "cultures")
    monkeypatch.setattr(params, "MODELS", tmp_path / "models")
    monkeypatch.setattr(params, "STUDIES", tmp_path)
    monkeypatch.setattr(params, "load_culture", lambda name: None)
    monkeypatch.setattr(params, "unsurveyed", lambda study: [])
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


def ask(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_check_prints_the_plan_and_writes_nothing(home):
    answer = ask("check", home / "tiny.yaml", "--results", home / "results")
    assert answer.exit_code == 0
    first, run, study = answer.stdout.splitlines()
    assert first == "tiny: runs: 1, stages: 6, to be skipped: 0"
    assert run.endswith("tiny/german/small/seed-1: 01 run, 02 run, 03 run, 04 run, 05 run")
    assert study.endswith("results/tiny: 06 run")
    assert not (home / "results").exists()


def test_a_bare_name_is_a_study_in_params(home):
    assert ask("check", "tiny").stdout.startswith("tiny: ")


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_slip_is_a_sentence_on_stderr(home, command):
    text = (home / "tiny.yaml").read_text() + "fine_tuning: {epohcs: 3}\n"
    (home / "tiny.yaml").write_text(text)
    answer = ask(command, home / "tiny.yaml", "--results", home / "results")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    path = home / "tiny.yaml"
    assert answer.stderr == (
        f"{path}: fine_tuning has no parameter 'epohcs'; did you mean 'epochs'?\n"
    )
    assert not (home / "results").exists()


def test_run_runs_in_the_folder_asked_for(home, monkeypatch):
    asked = []
    monkeypatch.setattr(runner, "run", lambda *arguments: asked.append(arguments))
    assert ask("run", "tiny", "--results", home / "elsewhere").exit_code == 0
    assert ask("run", "tiny").exit_code == 0
    assert asked == [("tiny", home / "elsewhere"), ("tiny", ROOT / "results")]


def test_an_interrupted_run_says_how_to_go_on(home, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    answer = ask("run", "tiny")
    assert answer.exit_code == 130
    assert answer.stderr == "Interrupted: run the same command again to go on.\n"


def test_status_is_a_table_of_what_is_there(home):
    folder = home / "results/tiny/german/small/seed-1"
    folder.mkdir(parents=True)
    (folder / "01_scenario_adaptation.ipynb").write_text(
        '{"metadata": {"papermill": {"exception": true}}}'
    )
    answer = ask("status", "--results", home / "results")
    assert answer.exit_code == 0
    assert "failed" in answer.stdout
    assert "missing" in answer.stdout


def test_a_damaged_manifest_is_told_by_status(home):
    folder = home / "results/tiny/german/small/seed-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    answer = ask("status", "--results", home / "results")
    assert answer.exit_code == 1
    assert "manifest.json is not JSON" in answer.stderr


def test_model_prepare_tells_where_the_model_is(monkeypatch):
    monkeypatch.setattr(embedded, "prepare", lambda: Path("/models/embedded"))
    assert ask("model", "prepare").stdout == "/models/embedded\n"


def test_model_prepare_tells_what_is_missing(monkeypatch):
    def missing():
        raise StudyError("Install it.")

    monkeypatch.setattr(embedded, "prepare", missing)
    answer = ask("model", "prepare")
    assert (answer.exit_code, answer.stderr) == (1, "Install it.\n")


def test_a_typo_ends_at_once_in_a_real_process(tmp_path):
    path = tmp_path / "slip.yaml"
    path.write_text("study: slip\ncultures: [german]\nmodels: [smollm2-135m]\nsede: [1]\n")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "clca_utils", "run", str(path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert time.monotonic() - began < 5
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no key 'sede'; did you mean 'seeds'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_imports_nothing_heavy():
    code = (
        "import sys, clca_utils.cli\n"
        "print([m for m in ('torch', 'transformers', 'papermill') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
