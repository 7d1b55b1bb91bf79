"""Work that a notebook leaves to several processes, which accelerate starts and joins."""

import contextlib
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import torch

from clca_utils.files import ROOT, StudyError, locate, write_json

FAILURE = "failure.txt"
"""Beside a job, what the first process to fail says of it."""


def launch(module: str, job: dict[str, Any], processes: int, config: str) -> None:
    """Run a module in several processes, each with the path of a job as its argument.

    Args:
        module: Its name, as after `python -m`; what it does is done within `failure_told`.
        job: What it reads, as JSON.
        processes: How many; 1 leaves it to the configuration.
        config: Path of a configuration of accelerate; empty: all do the same on data of their own.

    Raises:
        StudyError: A process failed.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        write_json(path, job)
        command = [*launcher(processes, config), "--module", module, str(path)]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            try:
                last = passed_on(process.stdout)
            except BaseException:  # an interrupted notebook takes them along
                process.terminate()
                raise
        if process.returncode:
            failure = path.with_name(FAILURE)
            raise StudyError(failure.read_text(encoding="utf-8") if failure.is_file() else last)


def launcher(processes: int, config: str) -> list[str]:
    """Return the command that starts the processes, but for what they do."""
    count = ["--num_processes", str(processes)] if processes > 1 else []
    threads = ["--num_cpu_threads_per_process", str(max(1, torch.get_num_threads() // processes))]
    plain = ["--multi_gpu", "--num_machines", "1", "--main_process_port", "0"]
    plain += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    how = ["--config_file", str(locate(config))] if config else plain
    return [sys.executable, "-m", "accelerate.commands.launch", *how, *count, *threads]


def passed_on(output: IO[bytes]) -> str:
    """Show what processes write as they write it, and return its last lines."""
    tail = ""
    while chunk := output.read1(4096):  # type: ignore[attr-defined]
        text = chunk.decode(errors="replace")
        sys.stderr.write(text)
        tail = (tail + text)[-4000:]
    lines = tail.replace("\r", "\n").split("\n")
    return "\n".join(["One of the processes failed; their last lines:", *lines[-20:]])


@contextlib.contextmanager
def failure_told(job: Path) -> Iterator[None]:
    """Tell the notebook why this process fails: the first reason is the one that counts."""
    try:
        yield
    except Exception as error:
        reason = f"One of the processes failed:\n{''.join(traceback.format_exception(error)[-3:])}"
        with contextlib.suppress(OSError), job.with_name(FAILURE).open("x") as file:
            file.write(str(error) if isinstance(error, StudyError) else reason)
        raise
