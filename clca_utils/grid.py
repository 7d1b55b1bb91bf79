"""A study's grid as jobs of Snakemake: what each needs, writes, and asks of the machine.

A job is `python -m clca_utils run STUDY --only STEP`: the same notebook, run in the same way as by
`make study`, and skipped likewise where nothing changed. `workflow/Snakefile` makes the rules of
these functions; Snakemake runs them where the profile says.
"""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from clca_utils import estimates, runner
from clca_utils.estimates import billions
from clca_utils.files import ROOT, StudyError, read_yaml, shown
from clca_utils.params import read_model, study_file
from clca_utils.planning import HELD_OUT, REPORT, SURVEY, TUNING, Stage, Step
from clca_utils.progress import LOGS

WORKFLOW = ROOT / "workflow"
PROFILES = WORKFLOW / "profiles"
REFERENCE = ROOT / "results" / "reference"
DIRECTORIES = ("adapter", "tables", "figures")
"""Artefacts that are folders."""

LOAD_GB = 4
"""What Python, its packages and a notebook's tables take beside the weights."""

COMMON_MINUTES = 240
"""The time asked for where no such step has finished yet."""


def by_name(steps: Iterable[Step]) -> dict[str, Step]:
    """Return a study's steps by their names."""
    return {step.name: step for step in steps}


def pattern(home: Path, stage: Stage, name: str) -> str:
    """Return the path of an artefact for every run of a study, as Snakemake writes it."""
    return shown(home / name if stage is REPORT else home / "{run}" / name)


def log_of(home: Path, stage: Stage) -> str:
    """Return where what a stage's job prints is kept, for every run, as Snakemake writes it."""
    return pattern(home, stage, f"{LOGS}/{stage.name}.txt")


def needs(steps: Sequence[Step]) -> dict[str, list[str]]:
    """Say which files of other steps each step of a study has to wait for.

    Returns:
        Paths by the step's name.
    """
    written = {path: step.name for step in steps for path in step.outputs()}
    inside: dict[Path, list[Path]] = {}
    for path in written:
        inside.setdefault(path.parent, []).append(path)
    found = {}
    for step in steps:
        read = [one for path in step.reads for one in (path, *inside.get(path, []))]
        others = [path for path in read if written.get(path, step.name) != step.name]
        found[step.name] = [shown(path) for path in dict.fromkeys(others)]
    return found


def loaded(step: Step) -> list[str]:
    """Return the models whose weights a step loads; one that is only asked on a server is not."""
    if step.stage is REPORT or step.parameters.get("rewriter", "chat") != "chat":
        return []
    learns = step.stage in (TUNING, HELD_OUT)
    given = {name: step.parameters.get(name, "") for name in ("model", "partner", "judge")}
    return list(
        dict.fromkeys(
            name
            for role, name in given.items()
            if name and (not read_model(name).server or (learns and role == "model"))
        )
    )


def resources(step: Step, gpu_gb: float, seconds: float | None) -> dict[str, int]:
    """Say what a step asks of the machine it runs on.

    Weights are in bf16, 2 bytes each; in fp32, 4 bytes, without a GPU and where small changes are
    measured (04b and 05). What is computed with them takes half as much again. They pass through
    the host's memory on their way. A profile may say it better, stage by stage (`set-resources`).

    Args:
        step: The step.
        gpu_gb: The memory of one GPU in gigabytes; 0 where there is none.
        seconds: How long it may take, if that is known.

    Returns:
        gpu: how many; mem_mb: of the host; runtime: minutes, three times what is expected.
    """
    exact = not gpu_gb or step.stage in (HELD_OUT, SURVEY)
    weights = (4 if exact else 2) * sum(billions(name) for name in loaded(step))
    gpus = math.ceil(1.5 * weights / gpu_gb) if gpu_gb else 0
    if step.stage is TUNING:
        processes = step.parameters["processes"]
        shared = bool(step.parameters["launch"])  # else each process holds a copy
        gpus = max(gpus, processes if gpu_gb else 0) if shared else gpus * processes
        weights *= 1 if shared else processes
    memory = LOAD_GB + (weights if gpu_gb else 1.5 * weights)
    minutes = COMMON_MINUTES if seconds is None else 10 + math.ceil(3 * seconds / 60)
    return {"gpu": gpus, "mem_mb": math.ceil(1000 * memory), "runtime": minutes}


def expected(steps: Sequence[Step]) -> dict[str, float]:
    """Return the seconds that steps will take, by their names, as far as anything is known.

    It goes by what finished beside this study, else by what finished of the shipped ones, which ran
    on two cores.
    """
    here, shipped = finished_here(steps), finished_elsewhere()
    return estimates.estimate(steps, shipped) | estimates.estimate(steps, here)


def finished_here(steps: Sequence[Step]) -> list[estimates.Took]:
    """Return what the finished steps took of all studies beside this one."""
    beside = sorted(path for path in steps[0].home.parent.glob("*/") if path != REFERENCE)
    return estimates.finished_steps(beside)


def finished_elsewhere() -> list[estimates.Took]:
    """Return what those of the shipped studies took."""
    return estimates.finished_steps(sorted(REFERENCE.glob("*/")))


def command(
    study: str, results: Path, stale: Iterable[Step], profile: str, extra: Sequence[str] = ()
) -> list[str]:
    """Return the call of Snakemake that runs a study.

    Snakemake itself only sees which files are missing. What is there but no longer right (another
    parameter, another prompt, a damaged file) is forced.

    Raises:
        StudyError: There is no such profile.
    """
    folder = PROFILES / profile if (PROFILES / profile).is_dir() else Path(profile)
    if not (folder / "config.yaml").is_file():
        known = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
        raise StudyError(
            f"--profile: there is no {shown(folder / 'config.yaml')}; shipped are {known}."
        )
    # a configuration on the command line takes the place of the profile's
    given = read_yaml(folder / "config.yaml").get("config", [])
    forced = [shown(step.outputs()[-1]) for step in stale if step.outputs()[-1].exists()]
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile")),
        *("--directory", str(ROOT), "--profile", str(folder.absolute()), "--nolock"),
        *(["--forcerun", *forced] if forced else []),
        *("--config", *given, f"study={study}", f"results={results.absolute()}"),
        *extra,
    ]


def run(name: str, results: Path, profile: str, extra: Sequence[str] = ()) -> int:
    """Run a study on Snakemake; only what is missing or no longer right is run.

    Args:
        name: The study, by its path or bare name.
        results: Where run folders are.
        profile: A folder of `workflow/profiles`, or a path of such a folder.
        extra: More arguments of Snakemake, such as --dry-run.

    Returns:
        Snakemake's exit code.

    Raises:
        StudyError: The study does not fit, or another grid holds its folder.
    """
    study, steps = runner.prepared(name, results)
    home = results.absolute() / study.name
    forecast = list(runner.forecast(steps))
    stale = [step for step, skip in forecast if not skip]
    call = command(shown(study_file(name)), results, stale, profile, extra)
    print(outlook(forecast, expected(steps)), flush=True)
    if {"-n", "--dry-run", "--dryrun"} & {*extra}:
        return ended(call)
    lock = home / ".locks" / "grid"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            forget_backups(home)
            return ended(call)
    except Timeout:
        raise StudyError(
            f"{shown(home)} is held by another grid: wait until that ends, or stop it."
        ) from None


def forget_backups(home: Path) -> None:
    """Delete the copies of outputs that a killed Snakemake left: the next stumbles over them."""
    kept = ROOT / ".snakemake" / "backups" / shown(home).lstrip("/")
    shutil.rmtree(kept, ignore_errors=True)


def ended(call: Sequence[str]) -> int:
    """Run Snakemake to its end and return its exit code.

    It hears an interruption too, and takes its jobs back before it ends. What a profile calls is
    that of this environment, whether it is activated or not.
    """
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(call, env=os.environ | here) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def outlook(forecast: Iterable[tuple[Step, bool]], times: Mapping[str, float]) -> str:
    """Say in a sentence how long the steps that are left will take, one after the other."""
    left = [step for step, skip in forecast if not skip]
    known = [times[step.name] for step in left if step.name in times]
    if not left:
        return "Nothing is left to run."
    if not known:
        return f"{len(left)} steps are left; no such step has finished yet, so none can be timed."
    told = f"{len(left)} steps are left: {estimates.in_words(sum(known))} one after the other"
    rest = len(left) - len(known)
    return told + (f", and {rest} of which none has finished yet." if rest else ".")
