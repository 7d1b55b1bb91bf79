"""Run a study: its notebooks in order, each only if something that shapes its result changed.

The steps are those of `planning`. A step's key is a fingerprint of all that shapes its result; the
run folder's manifest records the key with the hashes of what the step wrote.
"""

import ast
import contextlib
import difflib
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError
from rich import progress
from rich.console import Console

from clca_utils import files
from clca_utils.culture import culture_file
from clca_utils.files import DATA, ROOT, StudyError, digest, shown
from clca_utils.params import Study, load_study
from clca_utils.planning import DRAWING, REPORT, STAGES, Stage, Step, plan

RESULTS = ROOT / "results"

ENVIRONMENT = {
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else each kernel warns about frozen modules
    "TOKENIZERS_PARALLELISM": "false",  # else tokenizers warn when a notebook forks
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # loading a model needs no bar of its own
    "TQDM_NCOLS": "90",  # else bars are cut to the terminal's size, and vanish where that is 0
    "TQDM_NROWS": "20",
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not a "python3" of the home folder
}

DIE_WITH_PARENT = "--IPKernelApp.exec_lines=__import__('ctypes').CDLL(None).prctl(1, 9)"
"""prctl(PR_SET_PDEATHSIG, SIGKILL), run in the kernel before the notebook (Linux only): the kernel
dies with the runner. ipykernel also looks once a second whether its parent lives, but from a Python
thread: under a C call that held the GIL, an orphan was measured to live on for 17 seconds."""

Show = Callable[..., object]
"""Shows how far a notebook is: called with description, completed and total."""

TQDM = re.compile(r"\s*(.*?): +\d+%\|[^|]*\| *(\d+)/(\d+) \[")


class Record(BaseModel):
    """A finished step, as the manifest keeps it."""

    key: str
    notebook: str
    commit: str | None
    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    seconds: float
    finished: datetime


class Manifest(BaseModel, extra="allow"):
    """manifest.json of a folder: where its steps ran last, and a record of each finished step."""

    stages: dict[str, Record] = {}
    study: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    python: str | None = None
    platform: str | None = None
    packages: dict[str, str | None] = {}


def cell_sources(notebook: Path) -> list[str]:
    """Return the code of a notebook, cell by cell: what a stage does, without saved outputs."""
    cells = files.read_json(notebook)["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@cache
def imported(code: str) -> frozenset[str]:
    """Return the names of the `clca_utils` modules that a piece of code imports itself."""
    names: set[str] = set()
    try:
        tree = ast.parse(re.sub(r"(?m)^[%!].*$", "", code))  # without a notebook's magics
    except SyntaxError:
        return frozenset()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["clca_utils" if node.level else "", node.module]))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(name.split(".")[1] for name in names if name.startswith("clca_utils."))


def modules_of(sources: list[str], without: frozenset[str] = frozenset()) -> list[Path]:
    """Return the package's files behind some code: what it imports, and what that imports.

    Args:
        sources: Pieces of code.
        without: Modules that shall not count, nor what only they import.
    """
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        names = imported(waiting.pop()) - without
        paths = {ROOT / "clca_utils" / f"{name}.py" for name in names}
        new = {path for path in paths - found if path.is_file()}
        found |= new
        waiting += [path.read_text(encoding="utf-8") for path in new]
    return sorted(found)


def key_of(step: Step) -> str:
    """Return the fingerprint of all that shapes a step's result; where it is written does not.

    How figures look counts for the report alone, which draws the study's again, and of single runs
    those that `run_figures` names: nobody should have to train a model anew for another colour. A
    local model folder counts by its name only: give changed weights a new folder.
    """
    sources = cell_sources(step.stage.notebook)
    settings = {k: value for k, value in step.parameters.items() if not k.endswith("_dir")}
    brought = [files.locate(settings[name]) for name in ("survey", "items") if settings.get(name)]
    beside = [path.with_name("codebook.json") for path in brought if path.suffix == ".json"]
    # one table of WorldValuesBench stands for its folder
    brought = [path.parent if path.suffix == ".tsv" else path for path in brought]
    brought += [path for path in beside if path.is_file()]
    brought += [culture_file(name) for name in settings.get("cultures", [])]
    data = [DATA / name for name in step.stage.data]
    code = modules_of(sources, frozenset() if step.stage is REPORT else DRAWING)
    return files.fingerprint(
        settings, sources, *brought, *code, *step.origin, *data, *step.inputs()
    )


def read_manifest(folder: Path) -> Manifest:
    """Return a folder's manifest, an empty one if there is none; a damaged one is a StudyError."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate(files.read_json(path)) if path.is_file() else Manifest()
    except ValidationError as error:
        raise StudyError(
            f"{shown(path)}: {files.problems(error)[0]}; delete it and rerun."
        ) from None


def records(folder: Path) -> dict[str, Record]:
    """Return the records of a folder's finished steps."""
    return read_manifest(folder).stages


def damaged(folder: Path, record: Record) -> list[Path]:
    """Return what a step wrote and is no longer there as it was written, by its hash."""
    paths = {folder / name: value for name, value in record.outputs.items()}
    return [p for p, value in paths.items() if not p.exists() or digest(p) != value]


def finished(step: Step) -> bool:
    """Say whether a step need not run: nothing that shapes it changed, its outputs are whole."""
    record = records(step.folder).get(step.stage.name)
    return record is not None and record.key == key_of(step) and not damaged(step.folder, record)


def git(*arguments: str) -> str | None:
    """Return what git says about the repository; None without git or without a commit."""
    try:
        return subprocess.check_output(
            ["git", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL, text=True
        ).strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def installed(package: str) -> str | None:
    """Return a package's version; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_manifest(step: Step, record: Record | None) -> None:
    """Record a step in its folder's manifest, or take its record out.

    The code and packages are told as they are now. Other steps of the folder may do the same at the
    same time, in other processes.
    """
    name, pins = step.stage.name, ROOT / "requirements.txt"
    text = pins.read_text(encoding="utf-8") if pins.is_file() else ""
    commit = git("rev-parse", "HEAD")
    with FileLock(step.folder / ".locks" / "manifest"):
        stages = {other: one for other, one in records(step.folder).items() if other != name}
        stages |= {name: record} if record else {}
        manifest = {
            "study": step.study,
            **{name: step.parameters.get(name) for name in ("culture", "model", "seed")},
            "commit": commit,
            "dirty": commit
            and bool(git("status", "--porcelain", "clca_utils", "notebooks", "params")),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: installed(name) for name in re.findall(r"(?m)^([\w.-]+).*==", text)},
            "stages": {name: stages[name].model_dump(mode="json") for name in sorted(stages)},
        }
        files.write_json(step.folder / "manifest.json", manifest)


def last_count(text: str) -> tuple[str, int, int] | None:
    """Return what the last tqdm bar in a text counts, how many are done, and of how many."""
    for piece in reversed(re.split(r"[\r\n]", text)):
        if match := TQDM.match(piece):
            return match[1], int(match[2]), int(match[3])
    return None


class ItemProgress(logging.Handler):
    """Hears papermill's log, in which a notebook's progress bars pass, and shows their counts."""

    def __init__(self, show: Show) -> None:
        super().__init__()
        self.show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show the count of a message that holds one."""
        if found := last_count(record.getMessage()):
            self.show(description=found[0], completed=found[1], total=found[2])


@contextlib.contextmanager
def heard(show: Show) -> Iterator[None]:
    """Let papermill's log be heard for item counts only; nothing of it is printed."""
    logger, handler = logging.getLogger("papermill"), ItemProgress(show)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def own_line(traceback: list[str]) -> str:
    """Return the innermost line of a notebook's traceback that is the study's: where, and what."""
    found, where = "", ""
    for line in re.sub(r"\x1b\[[\d;]*m", "", "\n".join(traceback)).splitlines():
        if header := re.match(r"(?:File (.+?):\d+|(Cell In\[\d+\]), line \d+)", line):
            file = Path(header[1] or "").expanduser()
            ours = file.is_relative_to(ROOT) and "site-packages" not in file.parts
            where = shown(file) if ours else header[2] or ""
        elif where and (arrow := re.match(r"-+> (\d+) +(.*)", line)):
            found = f"{where}, line {arrow[1]}: {arrow[2].strip()}"
    return found


def execute(step: Step, show: Show) -> None:
    """Run a step's notebook, leaving the executed copy in its folder.

    Raises:
        StudyError: The notebook failed, or ended without what it has to write.
    """
    import papermill  # noqa: PLC0415 (slow: a typo in a parameter is told before)
    from traitlets.config import Config  # noqa: PLC0415 (as papermill)

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    notebook, copy = shown(step.stage.notebook), shown(step.copy)
    step.folder.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.chdir(ROOT), heard(show):
            papermill.execute_notebook(
                notebook,
                re.sub(r"([{}])", r"\1\1", copy),  # papermill reads braces in a path as fields
                step.parameters,
                kernel_name="python3",
                progress_bar=False,
                log_output=True,
                start_timeout=300,
                iopub_timeout=60,  # seconds; a busy machine takes more than the default 4
                coalesce_streams=True,  # of a bar drawn a thousand times, keep its last state
                config=Config(KernelManager={"transport_encryption": "auto"}),  # else it warns
                extra_arguments=[DIE_WITH_PARENT] if sys.platform == "linux" else [],
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == "StudyError":
            raise StudyError(error.evalue) from None
        code = re.search(r"(?i)\[errno (\d+)\][^']*(?:'([^']+)')?", error.evalue)
        if code and int(code[1]) in files.UNWRITABLE:
            place = shown(Path(code[2])) if code[2] else shown(step.folder)
            raise StudyError(files.unwritable(os.strerror(int(code[1])), place)) from None
        raise StudyError(
            f"{notebook} failed in cell In [{error.exec_count}] with {error.ename}: "
            f"{error.evalue[:500]}\n  {own_line(error.traceback)}\n  executed copy: {copy}"
        ) from None
    except OSError as error:
        if error.errno not in files.UNWRITABLE:
            raise
        raise StudyError(files.unwritable(error.strerror or "", shown(step.folder))) from None
    except RuntimeError as error:
        raise StudyError(
            f"{notebook} was cut off ({error}): most often memory ran out, so lower batch_size."
            f"\n  executed copy: {copy}"
        ) from None
    for path in step.outputs():
        if not path.exists():
            raise StudyError(f"{notebook} ended without writing {shown(path)}: see {copy}.")


def figures_of(step: Step) -> dict[Path, tuple[int, int]]:
    """Return the figures of a run's folder, each with what changes when it is drawn again.

    A file that is replaced is another one on the disk: no clock has to be right for that.
    """
    found = {}
    for path in (step.folder / "figures").glob("[!.]*") if step.stage is not REPORT else ():
        with contextlib.suppress(FileNotFoundError):  # another step of the run redraws its own
            found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def run_step(step: Step, show: Show) -> float:
    """Run a step and record it, once it has succeeded, in the manifest; return its seconds.

    Raises:
        StudyError: The notebook failed, or another run wrote what it reads at the same time.
    """
    key = key_of(step)
    write_manifest(step, None)
    inputs = {shown(path): digest(path) for path in step.inputs()}
    before, began = figures_of(step), time.monotonic()
    execute(step, show)
    for path in step.inputs():
        if digest(path) != inputs.get(shown(path)):
            raise StudyError(
                f"{shown(path)} was written while {shown(step.copy)} read it: another run of the "
                "study is under way; run this one again when that has ended."
            )
    drawn = [path for path, state in figures_of(step).items() if before.get(path) != state]
    written = sorted([*step.outputs(), *drawn])
    record = Record(
        key=key,
        notebook=shown(step.stage.notebook),
        commit=git("rev-parse", "HEAD"),
        parameters=step.parameters,
        inputs=inputs,
        outputs={str(path.relative_to(step.folder)): digest(path) for path in written},
        seconds=round(time.monotonic() - began, 1),
        finished=datetime.now(UTC),
    )
    write_manifest(step, record)
    return record.seconds


@contextlib.contextmanager
def alone(step: Step, wait: bool = False) -> Iterator[None]:
    """Hold a step; a second runner of it waits or is refused, a dead one holds nothing."""
    lock = lock_of(step.folder, step.stage)
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock, timeout=-1 if wait else 1).acquire()  # `running` holds it a moment
    except Timeout:
        raise StudyError(
            f"{shown(step.copy)} is being written by another run: wait until that ends, or stop it."
        ) from None
    with held:
        yield


def lock_of(folder: Path, stage: Stage) -> Path:
    """Return the file that is locked while a folder's step runs; the file itself stays."""
    return folder / ".locks" / stage.name


def running(folder: Path, stage: Stage) -> bool:
    """Say whether a folder's step is being run, by whichever process on whichever machine."""
    lock = lock_of(folder, stage)
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except PermissionError:  # somebody else's results, that this user may only read
        return False


def prepared(name: str | Path, results: Path) -> tuple[Study, list[Step]]:
    """Read and plan a study; all that can be wrong with it is a StudyError before any write."""
    study = load_study(name)
    for stage in STAGES:
        if not stage.notebook.is_file():
            raise StudyError(f"The notebook {shown(stage.notebook)} is missing: restore it.")
    return study, plan(study, results)


def run(
    name: str | Path,
    results: Path = RESULTS,
    console: Console | None = None,
    only: str = "",
) -> None:
    """Run a study, given by its path or bare name, skipping the steps that are finished.

    On a terminal two bars show the steps and the items of the running notebook; elsewhere each
    step's start and end is a line.

    Args:
        name: The study.
        results: Where run folders are.
        console: Where to print.
        only: One step that shall be run alone, by its name; by default all are.

    Raises:
        StudyError: The study does not fit, another run is at the same step, or a notebook failed.
    """
    study, steps = prepared(name, results)
    console = console or Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    bars = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=7 * 86400,  # seconds: a stage may take days
    )
    with bars:
        whole = bars.add_task("", total=1 if only else len(steps))
        for number, step in chosen(study, steps, only):
            label = f"[{number}/{len(steps)}] {shown(step.copy.with_suffix(''))}"
            bars.update(whole, description=f"stage {number} of {len(steps)}")
            # a grid that was killed may have left the step running somewhere: its work counts
            with alone(step, wait=bool(only)):
                if finished(step):
                    say(f"{label}: skipped, nothing changed")
                else:
                    if record := records(step.folder).get(step.stage.name):
                        for path in damaged(step.folder, record):
                            say(f"{shown(path)} is not as it was written: it is made again")
                    if not console.is_terminal:
                        say(f"{label}: started")
                    items = bars.add_task(step.stage.name, total=None)
                    seconds = run_step(step, partial(bars.update, items))
                    bars.remove_task(items)
                    say(f"{label}: done in {seconds:.0f} s")
            bars.advance(whole)


def chosen(study: Study, steps: list[Step], only: str) -> list[tuple[int, Step]]:
    """Return the steps to run, each with its number; one alone if it is named.

    Raises:
        StudyError: The study has no step of that name.
    """
    found = [(number, step) for number, step in enumerate(steps, 1) if only in ("", step.name)]
    if not found:
        near = difflib.get_close_matches(only, [step.name for step in steps], n=1, cutoff=0)
        raise StudyError(f"{study.name} has no step '{only}': did you mean '{near[0]}'?")
    return found


def forecast(steps: list[Step]) -> Iterator[tuple[Step, bool]]:
    """Say of each step whether a run would skip it; after a step that runs, none that reads it."""
    stale: set[Path] = set()
    for step in steps:
        skip = not {step.folder, *(path.parent for path in step.reads)} & stale and finished(step)
        if not skip:
            stale.add(step.folder)
        yield step, skip
