"""How far a study is: which of its steps are done, which run, and why others failed."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Column, Table

from clca_utils.estimates import in_words
from clca_utils.files import shown
from clca_utils.planning import STAGES, Stage, Step
from clca_utils.runner import RESULTS, finished, records, running

STATES = ("done", "running", "failed", "left")
LOGS = ".logs"
"""Where the grid keeps what its steps print, below a run's folder."""


def state(folder: Path, stage: Stage) -> str:
    """Say how far a stage came in a folder, from its manifest and its executed notebook."""
    record = records(folder).get(stage.name)
    if record and all((folder / name).exists() for name in record.outputs):
        return "done"
    if running(folder, stage):
        return "running"
    if record or not (folder / stage.notebook.name).is_file():
        return "missing"
    return "failed" if raised(folder / stage.notebook.name) else "unfinished"


def raised(copy: Path) -> str:
    """Return the error that ended an executed notebook, such as "KeyError: 'Q1'", or nothing."""
    try:
        notebook = json.loads(copy.read_text(encoding="utf-8"))
        if not notebook["metadata"]["papermill"]["exception"]:
            return ""
    except (ValueError, KeyError, FileNotFoundError):  # a kill cut the copy short
        return ""
    outputs = (one for cell in notebook.get("cells", []) for one in cell.get("outputs", []))
    errors = [f"{one['ename']}: {one['evalue']}" for one in outputs
              if one["output_type"] == "error"]  # fmt: skip
    return errors[-1] if errors else "it failed"


def reason(step: Step) -> str:
    """Say why a step failed: its notebook's error, else the last words of its job, or nothing."""
    if step.stage.name in records(step.folder):
        return ""  # it ended well, maybe with other parameters
    if told := raised(step.copy):
        return told
    log = step.folder / LOGS / f"{step.stage.name}.txt"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    # what is indented belongs to the sentence above it
    words = [line for line in text.split("\n") if line.strip() and line[0] not in "[ "]
    return words[-1].strip() if words else ""


def state_of(step: Step) -> str:
    """Say how far a step of a study is: one of `STATES`."""
    if running(step.folder, step.stage):
        return "running"
    if finished(step):
        return "done"
    return "failed" if reason(step) else "left"


def of_study(steps: Iterable[Step], times: Mapping[str, float]) -> tuple[Table, list[str]]:
    """Count the steps of each stage that are done, running, failed and left.

    Args:
        steps: A study's steps.
        times: Seconds that steps will take, by their names, as far as known.

    Returns:
        The counts, and a sentence for each step that is running or failed, with the reason.
    """
    found = [(step, state_of(step)) for step in steps]
    table = Table(Column("stage"), *(Column(name, justify="right") for name in STATES), "time left")
    for stage in STAGES:
        of_stage = [(step, one) for step, one in found if step.stage is stage]
        if of_stage:
            counts = Counter(one for _, one in of_stage)
            open_ = [step.name for step, one in of_stage if one != "done"]
            known = [times[name] for name in open_ if name in times]
            told = in_words(sum(known)) + (" or more" if len(known) < len(open_) else "")
            cells = (str(counts[name] or "") for name in STATES)
            table.add_row(stage.name, *cells, "" if not open_ else told if known else "unknown")
    table.caption = "time left: one step after the other"
    failed = [f"{step.name} failed: {reason(step)}" for step, one in found if one == "failed"]
    busy = [f"{step.name} is running" for step, one in found if one == "running"]
    return table, [*busy, *failed]


def of_all(results: Path = RESULTS) -> Table:
    """Return a table of all folders with runs, and how far each stage came in them."""
    table = Table(
        Column("folder", overflow="fold", min_width=28),
        *(stage.number for stage in STAGES),
        title=shown(results),
    )
    table.caption = (
        "what a run shares with another (a simulator, a variant) is in that one's folder"
    )
    runs = list(results.glob("*/*/*/seed-*"))
    for folder in sorted({*runs, *(run.parents[2] for run in runs)}):
        expected = STAGES[:-1] if folder in runs else STAGES[-1:]
        cells = [state(folder, stage) if stage in expected else "" for stage in STAGES]
        table.add_row(str(folder.relative_to(results)), *cells)
    return table
