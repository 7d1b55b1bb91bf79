"""The grid on Snakemake: jobs that depend, are shared, killed, resumed, and sent to a cluster.

The notebooks are stand-ins that take no time, in a copy of the repository; Snakemake, the runner,
Papermill and its kernels are real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml
from cells import copied, write_notebook

from clca_utils import estimates, grid, params
from clca_utils.files import ROOT, StudyError
from clca_utils.planning import STAGES, plan

STUDY = {
    "study": "tiny",
    "cultures": ["german", "japanese"],
    "models": ["smollm2-135m"],
    "variants": ["clca", "persona-prompt"],
    "seeds": [1, 2],
}
STEPS = 4 * 5 + 8 + 1  # 01 to 04b of four runs, 05 of eight, 06 of the study
WORK = """
import hashlib, json, os, time
from pathlib import Path
given = {name: value for name, value in globals().items() if name in NAMES}
home = Path(given.get("run_dir") or given["study_dir"])
with Path("executions.txt").open("a") as log:
    log.write(f"{home.as_posix().partition('tiny')[2]} {STAGE}\\n")
time.sleep(float(os.environ.get("NAP", 0)))
if (STAGE, *home.parts[-3:-2]) == tuple(os.environ.get("SPOILT", "").split()):
    raise ValueError("spoilt <on purpose>")
where = given.get("data_dir") or given.get("adapter_dir") or home
read = [path for path in (Path(where, name) for name in READS) if path.is_file()]
told = hashlib.sha256(b"".join(path.read_bytes() for path in read)).hexdigest()
for name in WRITES:
    path = home / name if Path(name).suffix else home / name / "file.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([told, given.get("seed"), given.get("culture")]))
"""
PLACES = ("run_dir", "study_dir", "data_dir", "adapter_dir", "before_dir")


def write_stage(path: Path, stage) -> None:
    """Write a notebook in the place of a stage's: it reads and writes the same files."""
    defaults = "\n".join(f"{name} = ''" for name in (*PLACES, "seed", "culture"))
    work = (
        WORK.replace("NAMES", repr((*PLACES, "seed", "culture")))
        .replace("STAGE", repr(stage.name))
        .replace("READS", repr(stage.reads))
        .replace("WRITES", repr(stage.artefacts))
    )
    write_notebook(path, defaults, work)


@pytest.fixture
def copy(tmp_path):
    """Return a copy of the repository with such notebooks and a study of 2 x 2 x 2 runs."""
    home = copied(tmp_path / "copy", STUDY)
    (home / "notebooks").mkdir()
    for stage in STAGES:
        write_stage(home / "notebooks" / f"{stage.name}.ipynb", stage)
    return home


def start(copy: Path, results: str, *extra: str, path: str = "", **environment: str):
    call = [sys.executable, "-m", "clca_utils", "grid", "tiny", "--results", results]
    known = os.environ | {"PYTHONPATH": str(copy), "PATH": path + os.environ["PATH"]}
    return subprocess.Popen(
        [*call, *extra], cwd=copy, env=known | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(copy: Path, results: str = "results", *extra: str, **environment: str) -> tuple[int, str]:
    """Run the grid to its end; return its exit code and what it printed."""
    process = start(copy, results, *extra, **environment)
    printed = process.communicate(timeout=500)[0]
    return process.returncode, printed


def executions(copy: Path) -> Counter[str]:
    """Return how often each notebook was begun, by its folder and stage."""
    path = copy / "executions.txt"
    return Counter(path.read_text().splitlines() if path.is_file() else [])


def artefacts(home: Path) -> dict[str, str]:
    """Return what every artefact holds."""
    return {
        path.relative_to(home).as_posix(): path.read_text()
        for path in sorted(home.rglob("*.*"))
        if path.suffix in (".json", ".jsonl", ".csv", ".parquet") and path.name != "manifest.json"
    }


def test_a_grid_is_run_once_and_a_killed_one_ends_with_the_same_files(copy):
    code, printed = run(copy, "whole")
    assert code == 0, printed
    assert set(executions(copy).values()) == {1}  # also what is shared
    assert len(executions(copy)) == STEPS
    whole = artefacts(copy / "whole/tiny")
    assert len(whole) > 60
    # again: nothing is begun
    code, printed = run(copy, "whole")
    assert (code, executions(copy).total()) == (0, STEPS), printed

    # killed in the middle: what still runs goes on, and the next grid waits for it
    (copy / "executions.txt").unlink()
    process = start(copy, "killed", NAP="1")
    deadline = time.monotonic() + 200
    while executions(copy).total() < 8:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for one in psutil.Process(process.pid).children():  # Snakemake itself
        one.kill()
    process.kill()
    process.communicate()
    code, printed = run(copy, "killed")
    assert code == 0, printed
    assert artefacts(copy / "killed/tiny") == whole
    assert executions(copy).total() <= STEPS + 2  # at most the two that were under way


def test_a_failed_step_stops_only_what_reads_it_and_status_says_why(copy):
    study = STUDY | {"seeds": [1], "variants": ["clca"]}
    (copy / "params/tiny.yaml").write_text(yaml.safe_dump(study))
    code, printed = run(copy, "my results", SPOILT="04_fine_tuning german")
    assert code != 0
    assert "ValueError: spoilt <on purpose>" in printed
    begun = Counter(name.split()[-1] for name in executions(copy))
    assert (begun["04_fine_tuning"], begun["05_wvs_analysis"], begun["06_paper_figures"]) == (
        2,
        1,
        0,
    )
    told = subprocess.run(
        [sys.executable, "-m", "clca_utils", "status", "tiny", "--results", "my results"],
        cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert told.count("04_fine_tuning failed: ValueError: spoilt <on purpose>") == 1
    code, printed = run(copy, "my results")
    assert code == 0, printed
    again = [name for name, times in executions(copy).items() if times > 1]
    assert [name.split()[-1] for name in again] == ["04_fine_tuning"]


def test_what_is_no_longer_right_is_run_again(copy):
    study = STUDY | {"cultures": ["german"], "seeds": [1], "variants": ["clca"]}
    path = copy / "params/tiny.yaml"
    path.write_text(yaml.safe_dump(study))
    assert run(copy)[0] == 0
    path.write_text(yaml.safe_dump(study | {"fine_tuning": {"epochs": 2}}))
    code, printed = run(copy, "results", "--", "--dry-run")
    assert code == 0
    assert printed.startswith("4 steps are left: ")
    jobs = set(re.findall(r"(?m)^(\w+) +1$", printed))
    assert jobs == {"fine_tuning", "held_out", "wvs_analysis", "paper_figures", "all"}
    assert executions(copy).total() == 7  # a dry run runs nothing
    assert run(copy)[0] == 0
    # the same adapter comes out, so what reads it is looked at and left
    again = [name.split()[-1] for name, times in executions(copy).items() if times == 2]
    assert again == ["04_fine_tuning"]
    # a Snakemake that was killed leaves the copies that it made of what was to be written anew
    left = copy / ".snakemake/backups/results/tiny/german/smollm2-135m/seed-1/adapter"
    left.mkdir(parents=True)
    path.write_text(yaml.safe_dump(study | {"fine_tuning": {"epochs": 3}}))
    code, printed = run(copy)
    assert code == 0, printed


@pytest.fixture
def short(copy):
    """Return the copy with a study of four steps, and with stand-ins of the clusters' commands."""
    study = STUDY | {"cultures": ["german"], "seeds": [1], "variants": ["clca"]}
    study["fine_tuning"] = {"learn_from": "authored"}
    (copy / "params/tiny.yaml").write_text(yaml.safe_dump(study))
    shutil.copytree(ROOT / "tests/cluster", copy / "bin")
    return copy


SHORT = {"fine_tuning", "held_out", "wvs_analysis", "paper_figures"}


def test_slurm_gets_a_job_script_for_every_step(short):
    seconds = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "1")
    code, printed = run(
        short, "results", "--profile", "slurm", "--", *seconds, path=f"{short / 'bin'}:"
    )
    assert code == 0, printed
    jobs = short / "bin" / "jobs"
    asked = {}
    for path in jobs.glob("*.args"):
        text = path.read_text()
        comment = text.split("--comment\n")[1].split("\n")[0]
        asked[comment.removeprefix("rule_").partition("_wildcards")[0]] = text
    assert set(asked) == SHORT
    assert {path.read_text().strip() for path in jobs.glob("*.state")} == {"COMPLETED"}
    assert "--gpus=1\n" in asked["fine_tuning"]
    assert "--gpus" not in asked["paper_figures"]
    for text in asked.values():
        assert "--cpus-per-task=8\n" in text
        assert "\n--mem\n" in text
        assert "\n-t\n" in text
    assert executions(short).total() == len(SHORT)


def test_kubernetes_gets_a_job_for_every_step(short):
    code, printed = run(
        short, "results", "--profile", "kubernetes", "--", "--latency-wait", "1",
        path=f"{short / 'bin'}:",
    )  # fmt: skip
    assert code == 0, printed
    jobs = {path.name: json.loads(path.read_text()) for path in (short / "bin/jobs").glob("*.job")}
    assert {
        name.removeprefix("clca-").rpartition("-")[0].replace("-", "_") for name in jobs
    } == SHORT
    for name, job in jobs.items():
        pod = job["spec"]["template"]["spec"]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "clca"
        (container,) = pod["containers"]
        assert container["volumeMounts"][0]["mountPath"] == container["workingDir"] == str(short)
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == ("figures" not in name)
        assert job["spec"]["activeDeadlineSeconds"] >= 600
    assert executions(short).total() == len(SHORT)


def test_an_unknown_profile_is_told(copy):
    code, printed = run(copy, "results", "--profile", "slrum")
    assert code == 1
    assert "there is no slrum/config.yaml; shipped are default, kubernetes, slurm." in printed
    assert not (copy / "results").exists()


def test_a_second_grid_of_a_study_is_refused(tmp_path, monkeypatch):
    lock = tmp_path / "smoke" / ".locks" / "grid"
    lock.parent.mkdir(parents=True)
    monkeypatch.setattr(grid, "command", lambda *_: ["true"])
    with grid.FileLock(lock), pytest.raises(StudyError, match="smoke is held by another grid"):
        grid.run("smoke", tmp_path, "default")
    assert grid.run("smoke", tmp_path, "default") == 0


@pytest.fixture
def steps(tmp_path):
    return plan(params.Study.model_validate(STUDY), tmp_path)


def test_each_step_waits_for_what_it_reads_and_nothing_else(steps):
    needed = grid.needs(steps)
    made = {}
    for step in steps:
        for path in step.outputs():
            assert path not in made, path  # no two steps write one file
            made[grid.shown(path)] = step
    for step in steps:
        assert {*needed[step.name]} <= {*made}
        before = {made[path].stage.name for path in needed[step.name]}
        assert before == {
            "01_scenario_adaptation": set(),
            "02_dialogue_simulation": {"01_scenario_adaptation"},
            "03_intent_extraction": {"01_scenario_adaptation", "02_dialogue_simulation"},
            "04_fine_tuning": {f"0{n}_{name}" for n, name in
                               ((1, "scenario_adaptation"), (2, "dialogue_simulation"),
                                (3, "intent_extraction"))},
            "04b_held_out": before & {"04b_held_out"} | {"04_fine_tuning"},
            "05_wvs_analysis": before & {"05_wvs_analysis"} | {"04_fine_tuning"},
            "06_paper_figures": {stage.name for stage in STAGES[:-1]},
        }[step.stage.name]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("smollm2-135m", 0.135),
        ("llama-3.1-70b", 70),
        ("qwen2.5-0.5b", 0.5),
        ("mistral-7b-v0.3", 7),
        ("Qwen/Qwen3-4B-Instruct-2507", 4),
        ("someone/chat-model", estimates.UNKNOWN_BILLIONS),
    ],
)
def test_a_models_name_tells_its_size(model, size):
    assert estimates.billions(model) == size


def test_resources_follow_stage_and_model(tmp_path):
    given = STUDY | {"models": ["llama-3.1-8b", "smollm2-135m"], "simulator": "llama-3.1-70b"}
    steps = plan(params.Study.model_validate(given), tmp_path)
    asked = {}
    for step in steps:
        asked[step.stage.number, step.parameters.get("model")] = grid.resources(step, 80, None)
    assert asked["01", "llama-3.1-70b"]["gpu"] == 0  # slots are filled without a model
    assert asked["02", "llama-3.1-70b"]["gpu"] == 3  # 140 GB of weights
    assert asked["04", "llama-3.1-8b"]["gpu"] == 1
    assert asked["06", None] == {"gpu": 0, "mem_mb": 4000, "runtime": grid.COMMON_MINUTES}
    (asked_of_05,) = {grid.resources(step, 80, None)["gpu"] for step in plan(
        params.Study.model_validate(STUDY | {"models": ["llama-3.1-70b"]}), tmp_path
    ) if step.stage.number == "05"}  # fmt: skip
    assert asked_of_05 == 6  # in fp32
    given["fine_tuning"] = {"processes": 4}
    trained = next(
        step for step in plan(params.Study.model_validate(given), tmp_path)
        if step.stage.number == "04"
    )  # fmt: skip
    assert grid.resources(trained, 80, None)["gpu"] == 4  # each process has a copy
    assert grid.resources(steps[-2], 0, 600)["gpu"] == 0
    assert grid.resources(steps[-2], 0, 600)["runtime"] == 40


def test_a_served_model_is_not_loaded(tmp_path):
    steps = plan(params.Study.model_validate(STUDY | {"simulator": "local-server"}), tmp_path)
    played = next(step for step in steps if step.stage.number == "02")
    assert grid.loaded(played) == []
    trained = next(step for step in steps if step.stage.number == "04")
    assert grid.loaded(trained) == ["smollm2-135m"]


def test_the_outlook_says_what_is_known(steps):
    todo = [(step, step.stage.number == "01") for step in steps]
    left = len([skip for _, skip in todo if not skip])
    assert grid.outlook([(step, True) for step in steps], {}) == "Nothing is left to run."
    assert "none can be timed" in grid.outlook(todo, {})
    times = {step.name: 60.0 for step in steps if step.stage.number in ("01", "05")}
    assert grid.outlook(todo, times) == (
        f"{left} steps are left: 8 min one after the other, "
        f"and {left - 8} of which none has finished yet."
    )


def test_what_finished_before_tells_how_long_the_shipped_studies_take():
    steps = plan(params.load_study("controls"), ROOT / "results")
    times = grid.expected(steps)
    assert set(times) == {step.name for step in steps}
    seconds = json.loads(
        (grid.REFERENCE / "controls/german/smollm2-135m/seed-1/manifest.json").read_text()
    )["stages"]["02_dialogue_simulation"]["seconds"]
    one = times["german/smollm2-135m/seed-1/02_dialogue_simulation"]
    assert seconds / 2 < one < 2 * seconds
