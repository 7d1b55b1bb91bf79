"""What a study will need of this machine, told before it runs: memory, disk, tokens, and time.

Tokens are units (dialogues, respondents, ...) times what was counted per unit; disk and time go by
finished steps. A model of which no step has finished is taken to need as much more time as it is
larger, on a machine as much slower as a short calibration says. All of it is rough: within a factor
of two or so, which is what it takes to see that something cannot fit.
"""

import csv
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from clca_utils import estimates, grid
from clca_utils.choices import PERSONAL, WITHOUT_ACTING
from clca_utils.files import StudyError, read_json, shown
from clca_utils.planning import HELD_OUT, SIMULATION, SURVEY, TUNING, Step

COUNTED = grid.REFERENCE / "scale" / "tables" / "tokens.csv"
"""Tokens per unit that the study's own prompts had (benchmarks/scale.py)."""

CALIBRATED = grid.REFERENCE / "machine.json"
"""The rate of the machine on which the shipped studies ran."""

TURNS = 7
"""Turns of the dialogues in which the tokens were counted."""

SPARE_DISK = 1.2
"""Free disk that is asked for, as a multiple of what will be written: checkpoints come and go."""


class Machine(NamedTuple):
    """What there is.

    Attributes:
        memory_gb: Of the host, all of it.
        disk_gb: Free where results are written.
        gpus: How many.
        gpu_gb: Memory of the smallest of them; 0 without one.
        gflops: Measured rate of matrix products, in what weights are computed with here.
    """

    memory_gb: float
    disk_gb: float
    gpus: int
    gpu_gb: float
    gflops: float


class Needs(NamedTuple):
    """What the steps that are left will take.

    Attributes:
        seconds: One after the other; NaN if nothing of the kind has finished anywhere, or, on a
            machine with a GPU, here.
        disk_gb: To be written.
        tokens: To be read anew and written.
    """

    seconds: float
    disk_gb: float
    tokens: float


def multiplication_rate(size: int = 2048, times: int = 5) -> float:
    """Return the best rate of multiplying two matrices, in GFLOP/s (2 n^3 operations).

    In fp32 on processors, in bf16 on a GPU: as the study's models are computed.
    """
    import torch  # noqa: PLC0415 (slow: the command line loads fast without)

    has_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if has_gpu else ("cpu", torch.float32)
    one, other = torch.rand(2, size, size, device=device).to(dtype)
    best = math.inf
    for _ in range(times):
        began = time.perf_counter()
        torch.matmul(one, other)
        if has_gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


def this_machine(results: Path) -> Machine:
    """Look at this machine, and calibrate it: a second on a processor."""
    import torch  # noqa: PLC0415 (as above)

    place = next(one for one in (results.absolute(), *results.absolute().parents) if one.exists())
    count = torch.cuda.device_count()
    sizes = [torch.cuda.get_device_properties(one).total_memory for one in range(count)]
    return Machine(
        memory_gb=psutil.virtual_memory().total / 1e9,
        disk_gb=shutil.disk_usage(place).free / 1e9,
        gpus=count,
        gpu_gb=min(sizes, default=0) / 1e9,
        gflops=multiplication_rate(),
    )


def per_unit() -> dict[str, float]:
    """Return the tokens read anew and written per unit, by stage and unit as counted."""
    with COUNTED.open(encoding="utf-8") as file:
        return {
            row["stage"]: float(row["fresh"]) + float(row["written"])
            for row in csv.DictReader(file)
        }


def tokens(step: Step, given: Mapping[str, Any], each: Mapping[str, float]) -> float:
    """Return about how many tokens a step reads anew and writes.

    Args:
        step: The step.
        given: Its parameters, and those of stages 01 and 02 whose files it reads.
        each: What `per_unit` returns.
    """
    dialogues = given.get("n_scenarios", 0) * given.get("samples", 1)
    dialogues *= given.get("max_turns", TURNS) / TURNS
    units: dict[str, float] = {}
    match step.stage:
        case stage if stage is SIMULATION[0] and given["rewriter"] == "chat":
            units = {"01 scenes rewritten": given["n_scenarios"]}
        case stage if stage is SIMULATION[1]:
            acted = dialogues * given["candidates"]
            units = {"02 dialogues acted": acted, "02 dialogues judged": dialogues}
        case stage if stage is SIMULATION[2]:
            units = {"03 intents": dialogues}
        case stage if stage is TUNING:
            known = 1 if given["learn_from"] in WITHOUT_ACTING else dialogues
            units = {"04 training": known * given["epochs"]}
        case stage if stage is HELD_OUT:
            units = {"04b exam": 1}
        case stage if stage is SURVEY:
            people = given["n_respondents"] if given["prompt"] in PERSONAL else 1
            units = {"05 survey": 2 * people, "05 checks": bool(given["checks"])}
    return sum(each[unit] * count for unit, count in units.items())


def shipped_rate() -> float:
    """Return the GFLOP/s of the machine on which the shipped studies ran.

    Raises:
        StudyError: The file is missing or damaged.
    """
    if not CALIBRATED.is_file() or not COUNTED.is_file():
        raise StudyError(
            f"{shown(CALIBRATED)} or {shown(COUNTED)} is missing: restore it with git, or check "
            "with --elsewhere."
        )
    return float(read_json(CALIBRATED)["gflops"])


def needs(steps: Sequence[Step], left: Sequence[Step], host: Machine) -> Needs:
    """Return what the steps that are left will take.

    Args:
        steps: All steps of the study.
        left: Those that are to run.
        host: The machine.
    """
    given = estimates.given_of(steps)
    here, elsewhere = grid.finished_here(steps), grid.finished_elsewhere()
    slower = shipped_rate() / host.gflops
    exact, each = estimates.estimate(steps, here), per_unit()
    seconds = disk = read = 0.0
    for step in left:
        read += tokens(step, given[step.name], each)
        own = estimates.of_any_model(step, given[step.name], here)
        alike = own or estimates.of_any_model(step, given[step.name], elsewhere)
        if alike is None:
            seconds = math.nan
            continue
        models = grid.loaded(step)
        larger = estimates.billions(step.parameters["model"]) / alike.billions if models else 1
        disk += alike.bytes * (larger if step.stage is TUNING else 1)
        # what ran on processors says nothing of a GPU, where memory and launches hold back
        slow = 1 if own or not models else math.nan if host.gpus else slower
        seconds += exact.get(step.name, alike.seconds * larger * slow)
    return Needs(seconds, disk / 1e9, read)


def misfits(left: Iterable[Step], host: Machine, need: Needs, results: Path) -> list[str]:
    """Say what cannot fit this machine, each with what to change."""
    told = []
    for step in left:
        asked = grid.resources(step, host.gpu_gb, None)
        models = ", ".join(grid.loaded(step))
        where = f"{step.stage.name} with {models}"
        if asked["gpu"] > host.gpus:
            told.append(
                f"{where} needs {asked['gpu']} GPUs of {host.gpu_gb:.0f} GB, and there are "
                f"{host.gpus}: name a smaller model, or one with a server, in models or simulator."
            )
        elif asked["mem_mb"] / 1000 > host.memory_gb:
            told.append(
                f"{where} needs about {asked['mem_mb'] / 1000:.0f} GB of memory, and there are "
                f"{host.memory_gb:.0f}: name a smaller model, or one with a server, in models or "
                "simulator."
            )
    if SPARE_DISK * need.disk_gb > host.disk_gb:
        told.append(
            f"{shown(results)} needs about {SPARE_DISK * need.disk_gb:.1f} GB of disk, and "
            f"{host.disk_gb:.1f} are free: make room, or lower wvs_analysis.n_respondents."
        )
    return list(dict.fromkeys(told))


def in_words(need: Needs, host: Machine) -> str:
    """Say in a sentence what is needed, and of what machine."""
    known = not math.isnan(need.seconds)
    lasting = estimates.in_words(need.seconds) if known else "an unknown time"
    return (
        f"About {lasting} one after the other, {need.tokens / 1e6:.2f} million tokens and "
        f"{1000 * need.disk_gb:.0f} MB of disk, on a machine with {host.memory_gb:.0f} GB of "
        f"memory, {host.disk_gb:.0f} GB of free disk, {host.gpus} GPUs and "
        f"{host.gflops:.0f} GFLOP/s."
    )
