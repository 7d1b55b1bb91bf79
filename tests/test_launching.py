"""Several processes: what they say is passed on, and a failure is one sentence."""

import sys
from argparse import Namespace

import pytest
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from clca_utils.files import ROOT, StudyError
from clca_utils.launching import launch, launcher

FSDP = ROOT / "params" / "launch" / "fsdp.yaml"

WORKER = """
import json, os, sys
from pathlib import Path
from clca_utils.files import StudyError
from clca_utils.launching import failure_told

path = Path(sys.argv[1])
job = json.loads(path.read_text())
with failure_told(path):
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    print(f"process {rank} of {size} got {job['text']}", flush=True)
    if job["end"] == "exit":
        os._exit(3)
    if job["end"] == "refusal":
        raise StudyError("The disk is full.")
    if job["end"] == "error":
        raise ValueError("no such thing")
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "worker_of_a_test.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "worker_of_a_test"


def test_what_processes_say_is_passed_on(worker, capsys):
    launch(worker, {"text": "Grüße", "end": ""}, 2, "")
    said = capsys.readouterr().err
    assert all(f"process {rank} of 2 got Grüße" in said for rank in (0, 1))


@pytest.mark.parametrize(
    ("end", "pattern"),
    [
        ("refusal", r"^The disk is full\.$"),
        ("error", r"^One of the processes failed:\n(.*\n)*ValueError: no such thing\n$"),
        ("exit", r"^One of the processes failed; their last lines:\n(.*\n)*.*exitcode *: 3"),
    ],
)
def test_a_failure_is_told(worker, end, pattern):
    with pytest.raises(StudyError, match=pattern) as told:
        launch(worker, {"text": "it", "end": end}, 2, "")
    assert len(str(told.value)) < 4200


def parsed(command: list[str]) -> Namespace:
    """Return what accelerate makes of a command line, its configuration read."""
    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    arguments = launch_command_parser().parse_args([*command[3:], "--module", "some.module"])
    return _validate_launch_command(arguments)[0]


def test_processes_of_their_own_data_share_the_cores():
    asked = parsed(launcher(2, ""))
    assert (asked.multi_gpu, asked.use_fsdp, asked.num_processes) == (True, False, 2)
    assert asked.num_cpu_threads_per_process >= 1
    assert asked.config_file is None


def test_the_shipped_configuration_is_read_by_accelerate():
    config = load_config_from_file(str(FSDP))
    assert config.distributed_type == "FSDP"
    for processes, count in [(1, 2), (4, 4)]:
        asked = parsed(launcher(processes, "params/launch/fsdp.yaml"))
        assert (asked.use_fsdp, asked.multi_gpu, asked.num_processes) == (True, False, count)
        env = prepare_multi_gpu_env(asked)
        assert env["ACCELERATE_USE_FSDP"] == "true"
        assert {name: env[f"FSDP_{name}"] for name in ("VERSION", "STATE_DICT_TYPE")} == {
            "VERSION": "2",
            "STATE_DICT_TYPE": "FULL_STATE_DICT",
        }
