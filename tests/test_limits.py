"""What a study needs is told before it runs, and what cannot fit is refused with what to change."""

import math

import pytest
from typer.testing import CliRunner

from clca_utils import limits, params
from clca_utils.cli import app
from clca_utils.estimates import finished_steps, of_any_model
from clca_utils.files import read_json
from clca_utils.grid import REFERENCE
from clca_utils.planning import plan

STUDY = {"study": "tiny", "cultures": ["german"], "models": ["smollm2-135m"]}
LAPTOP = limits.Machine(memory_gb=16, disk_gb=100, gpus=0, gpu_gb=0, gflops=300)


def planned(tmp_path, **changes: object):
    return plan(params.Study.model_validate(STUDY | changes), tmp_path)


def needed(tmp_path, host=LAPTOP, **changes: object) -> limits.Needs:
    steps = planned(tmp_path, **changes)
    return limits.needs(steps, steps, host)


def test_tokens_are_units_times_what_was_counted(tmp_path):
    each = limits.per_unit()
    given = {"n_scenarios": 10, "samples": 2, "max_turns": limits.TURNS, "candidates": 1,
             "n_respondents": 5, "prompt": "persona", "checks": [], "rewriter": "chat",
             "learn_from": "simulated", "epochs": 3}  # fmt: skip
    told = {step.stage.number: limits.tokens(step, given, each) for step in planned(tmp_path)}
    assert told == {
        "01": pytest.approx(10 * each["01 scenes rewritten"]),
        "02": pytest.approx(20 * (each["02 dialogues acted"] + each["02 dialogues judged"])),
        "03": pytest.approx(20 * each["03 intents"]),
        "04": pytest.approx(60 * each["04 training"]),
        "04b": each["04b exam"],
        "05": pytest.approx(10 * each["05 survey"]),
        "06": 0,
    }
    assert min(value for name, value in told.items() if name != "06") > 1000


def test_a_slower_machine_and_a_larger_model_take_longer(tmp_path):
    plain, slow = needed(tmp_path), needed(tmp_path, LAPTOP._replace(gflops=100))
    assert 60 < plain.seconds < 7200
    assert 2.5 * plain.seconds < slow.seconds < 3 * plain.seconds  # 01 and 06 need no model
    gpu = needed(tmp_path, LAPTOP._replace(gpus=1, gpu_gb=80, gflops=5e5))
    assert math.isnan(gpu.seconds)
    large = needed(tmp_path, models=["HuggingFaceTB/SmolLM2-1.35B"])
    assert 5 * plain.seconds < large.seconds < 10 * plain.seconds  # 01 and 06 need no model
    assert large.disk_gb > plain.disk_gb
    assert large.tokens == plain.tokens


def test_what_ran_here_counts_as_it_is(tmp_path):
    record = {
        "key": "k", "notebook": "n", "commit": None, "inputs": {}, "outputs": {"big": "hash"},
        "seconds": 50, "finished": "2026-11-30T00:00:00Z",
    }  # fmt: skip
    steps = planned(tmp_path)
    survey = steps[-2]
    (survey.folder).mkdir(parents=True)
    (survey.folder / "big").write_bytes(b"x" * 5_000_000)
    known = {survey.stage.name: record | {"parameters": survey.parameters}}
    limits.grid.runner.files.write_json(survey.folder / "manifest.json", {"stages": known})
    (took,) = finished_steps([tmp_path / "tiny"])
    assert took.bytes == 5_000_000
    alike = of_any_model(survey, survey.parameters, [took])
    assert (alike.seconds, alike.bytes, alike.billions) == (50, 5_000_000, 0.135)
    for host in (LAPTOP, LAPTOP._replace(gflops=1)):
        need = limits.needs(steps, [survey], host)
        assert (need.seconds, need.disk_gb) == (50, 0.005)


def test_a_study_like_the_shipped_one_is_taken_to_take_as_long(tmp_path):
    (manifest,) = REFERENCE.glob("demo/*/*/*/manifest.json")
    stages = read_json(manifest)["stages"]
    steps = plan(params.load_study("demo"), tmp_path)
    host = LAPTOP._replace(gflops=read_json(limits.CALIBRATED)["gflops"])
    told = limits.needs(steps, steps[:-1], host).seconds
    assert told == pytest.approx(sum(one["seconds"] for one in stages.values()), rel=0.2)


def test_what_fits_is_not_refused_and_what_does_not_is_with_what_to_change(tmp_path):
    small = limits.Needs(60, 0.1, 1000)

    def misfits(host, need=small, **changes):
        return limits.misfits(planned(tmp_path, **changes), host, need, tmp_path)

    assert misfits(LAPTOP) == []
    told = misfits(LAPTOP, models=["llama-3.1-8b"])
    assert any(
        line.startswith("04_fine_tuning with llama-3.1-8b needs about 52 GB of memory, and there "
                        "are 16: name a smaller model, or one with a server")
        for line in told
    )  # fmt: skip
    gpu = LAPTOP._replace(gpus=1, gpu_gb=24, memory_gb=64)
    (line,) = {line for line in misfits(gpu, models=["llama-3.1-8b"]) if line.startswith("05")}
    assert "05_wvs_analysis with llama-3.1-8b needs 2 GPUs of 24 GB, and there are 1" in line
    (line,) = misfits(LAPTOP._replace(disk_gb=1), limits.Needs(60, 2.0, 1))
    assert "needs about 2.4 GB of disk, and 1.0 are free: make room, or lower" in line


def test_unknown_times_are_said_to_be_unknown():
    assert "About an unknown time" in limits.in_words(limits.Needs(math.nan, 0, 0), LAPTOP)
    assert "About 3.0 h one after" in limits.in_words(limits.Needs(10800, 0, 0), LAPTOP)


def test_check_refuses_what_cannot_fit_unless_it_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "this_machine", lambda results: LAPTOP)
    call = ["check", "paper", "--results", str(tmp_path)]
    refused = CliRunner().invoke(app, call)
    assert refused.exit_code == 1
    assert "name a smaller model" in refused.output
    assert "check with --elsewhere" in refused.output
    assert CliRunner().invoke(app, [*call, "--elsewhere"]).exit_code == 0
    fits = CliRunner().invoke(app, ["check", "smoke", "--results", str(tmp_path)])
    assert fits.exit_code == 0, fits.output
    assert "million tokens" in fits.output
    assert not list(tmp_path.iterdir())


def test_this_machine_is_measured(tmp_path):
    host = limits.this_machine(tmp_path / "not" / "there" / "yet")
    assert host.memory_gb > 1
    assert host.disk_gb > 0
    assert host.gflops > 1
