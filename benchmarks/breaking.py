"""What becomes of a study that is killed, whose disk is full, whose files are spoilt: a table.

Run from the repository's folder: .venv/bin/python benchmarks/breaking.py. It puts every fault of
tests/faults.py into every stage, with stand-ins for the notebooks and with the real ones, and
writes faults.json and faults.md to results/benchmarks. It ends with status 1 if anything was lost.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from measuring import machine, machine_told, markdown

from clca_utils.files import ROOT, read_json, write_json, write_text
from clca_utils.planning import STAGES, Stage

sys.path.append(str(ROOT / "tests"))
import faults

Row = dict[str, Any]
ROOM = {True: 30, False: 8}
"""Kilobytes that are left on a disk that is about full: for stand-ins, and for real notebooks."""


Fault = tuple[str, Callable[[], str]]
"""Its name, and what puts it in and says what came of it."""

TRIED = {
    "stand-ins": "Stand-ins that work through a ledger",
    "real": "The study's own notebooks",
    "models": "The study's own notebooks, and what their model is read from",
}
LOADING, ASKING = ("02", "03", "04", "04b", "05"), ("02", "03", "05")
"""Stages that load the model, and those that ask a server in its place."""


def of_models(bench: faults.Bench, stage: Stage) -> Iterator[Fault]:
    """Yield the faults of the model that a stage uses: prepared here, or asked on a server."""
    if bench.port and stage.number in ASKING:
        for requests in (2, 6):
            outcome = partial(faults.server_stops, bench, stage, requests)
            yield f"server dies at request {requests}", outcome
    elif not bench.port and stage.number in LOADING:
        yield "prepared model damaged", partial(faults.broken_cache, bench, stage)


def of_files(bench: faults.Bench, stage: Stage) -> Iterator[Fault]:
    """Yield the faults of a stage's files, disk and clock."""
    for how in faults.SPOIL if bench.stands_in else ["one bit turned"]:
        yield f"artefacts {how}", partial(faults.spoilt, bench, stage, how)
    if faults.can_mount(bench.copy / "mount"):
        yield "disk full", partial(faults.full_disk, bench, stage, ROOM[bench.stands_in])
        yield "disk read-only", partial(faults.read_only, bench, stage)
    if bench.stands_in:
        yield "begun twice at once", partial(faults.twice, bench, stage)
        yield "clock in 1970", partial(faults.skewed, bench, stage, 0)
        yield "clock in 2096", partial(faults.skewed, bench, stage, 4e9)


def safely(put: Callable[..., Any], *given: object) -> tuple[Any, str]:
    """Put a fault in; return what came of it, or what was lost, which does not stop the others."""
    try:
        return put(*given), ""
    except (AssertionError, subprocess.SubprocessError) as error:
        return None, f"LOST: {str(error)[:300]}"


def tried(folder: Path, group: str, kills: int) -> list[Row]:
    """Put every fault of a group into every stage."""
    rows: list[Row] = []
    for served in (False, True) if group == "models" else (False,):
        bench = faults.prepared(
            folder / f"copy-{served}", stands_in=group == "stand-ins", served=served
        )
        for stage in STAGES:
            if group != "models":
                found, loss = safely(faults.killed, bench, stage, kills, 1)
                outcome, deaths = found or (loss, {})
                rows.append({"fault": "killed", "stage": stage.number, "outcome": outcome} | deaths)
            for name, put in (of_models if group == "models" else of_files)(bench, stage):
                outcome, loss = safely(put)
                rows.append({"fault": name, "stage": stage.number, "outcome": outcome or loss})
            print(pd.DataFrame(rows[-12:]).to_string(), flush=True)
    return rows


def told(notebooks: str, rows: list[Row]) -> str:
    """Return a table of faults by stage, and how the kills were spread."""
    table = pd.DataFrame(rows)
    stages = [stage.number for stage in STAGES]
    grouped = table.groupby(["fault", "outcome"], sort=False)["stage"]
    seen = grouped.agg(lambda some: "all" if [*some] == stages else ", ".join(some))
    deaths = table.reindex(columns=faults.DEATHS).sum().astype(int)
    kills = ", ".join(f"{how} {count}" for how, count in deaths.items())
    shown = markdown(seen.rename("stages").reset_index()[["fault", "stages", "outcome"]])
    counted = f"\n\nKills: {deaths.sum()} ({kills})." if deaths.sum() else ""
    return f"## {notebooks}\n\n{shown}{counted}\n"


def main() -> None:
    """Try the stand-ins, or the real notebooks, and write the table of both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=25, help="of each stage")
    options.add_argument("--group", choices=TRIED, default="stand-ins")
    options.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clca-faults-"))
    rows = tried(folder, given.group, given.kills)
    shutil.rmtree(folder)
    path = given.out / "faults.json"
    found = read_json(path) if path.is_file() else {}
    found |= {"machine": machine(["papermill", "ipykernel", "transformers"])}
    found["tried"] = found.get("tried", {}) | {TRIED[given.group]: rows}
    write_json(path, found)
    parts = [told(some, rows) for some, rows in found["tried"].items()]
    head = f"# What becomes of a study under faults\n\n{machine_told(found['machine'])}"
    write_text(given.out / "faults.md", "\n\n".join([head, *parts]))
    if any(row["outcome"].startswith("LOST") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
