"""How far a study is: counted, and why a step failed in a line."""

import json
import shutil

import pytest
from rich.console import Console

from clca_utils import params, progress
from clca_utils.planning import plan
from clca_utils.runner import Record, alone, write_manifest

STUDY = {"study": "tiny", "cultures": ["german"], "models": ["smollm2-135m"]}
LOG = """[4/7] results/x: started
notebooks/04_fine_tuning.ipynb was cut off (dead kernel): most often memory ran out, so lower it.
  executed copy: results/x.ipynb
"""


@pytest.fixture
def steps(tmp_path):
    return plan(params.Study.model_validate(STUDY), tmp_path)


def write_log(step, text: bytes) -> None:
    path = step.folder / progress.LOGS / f"{step.stage.name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def write_copy(step, exception: bool) -> None:
    error = {"output_type": "error", "ename": "KeyError", "evalue": "'Q1'", "traceback": []}
    notebook = {"metadata": {"papermill": {"exception": exception}},
                "cells": [{"outputs": [error]}, {"source": []}]}  # fmt: skip
    step.folder.mkdir(parents=True, exist_ok=True)
    step.copy.write_text(json.dumps(notebook))


def test_a_failure_is_told_by_the_notebook_or_else_by_the_jobs_last_sentence(steps):
    step = steps[3]
    assert progress.state_of(step) == "left"
    write_log(step, LOG.encode())
    assert progress.reason(step).startswith("notebooks/04_fine_tuning.ipynb was cut off")
    assert progress.reason(step).endswith("so lower it.")
    write_copy(step, exception=True)
    assert progress.reason(step) == "KeyError: 'Q1'"
    assert progress.state_of(step) == "failed"


def test_a_log_that_a_kill_cut_short_is_read(steps):
    write_log(steps[3], "[4/7] x: started\nStörung".encode()[:-3] + b"\xc3")
    assert progress.reason(steps[3]).startswith("Stör")
    write_log(steps[3], b"[4/7] x: started\n")
    assert progress.reason(steps[3]) == ""


def test_what_ended_well_with_other_parameters_did_not_fail(steps):
    step = steps[3]
    write_log(step, b"UserWarning: something\n")
    record = Record(
        key="of before", notebook="n", commit=None, parameters={}, inputs={}, outputs={},
        seconds=1, finished="2026-11-30T00:00:00Z",
    )  # fmt: skip
    step.folder.mkdir(parents=True, exist_ok=True)
    (step.folder / ".locks").mkdir()
    write_manifest(step, record)
    assert progress.state_of(step) == "left"


def test_a_study_is_counted_by_stage(steps, tmp_path):
    write_copy(steps[3], exception=True)
    with alone(steps[0]):
        table, told = progress.of_study(steps, {steps[1].name: 90.0})
    console = Console(width=120)
    with console.capture() as printed:
        console.print(table)
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
            for cells in (line.split("│") for line in printed.get().splitlines())
            if len(cells) > 5}  # fmt: skip
    assert rows["01_scenario_adaptation"] == ["", "1", "", "", "unknown"]
    assert rows["02_dialogue_simulation"] == ["", "", "", "1", "90 s"]
    assert rows["04_fine_tuning"] == ["", "", "1", "", "unknown"]
    assert told == [
        f"{steps[0].name} is running", f"{steps[3].name} failed: KeyError: 'Q1'"
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "tiny")
