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
from collections import Counter
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


def cases(bench: faults.Bench, stage: Stage) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the faults of a stage, each with what puts it in and says what came of it."""
    for how in faults.SPOIL if bench.stands_in else ["one bit turned"]:
        yield f"artefacts {how}", partial(faults.spoilt, bench, stage, how)
    if faults.can_mount(bench.copy / "mount"):
        yield "disk full", partial(faults.full_disk, bench, stage, ROOM[bench.stands_in])
        yield "disk read-only", partial(faults.read_only, bench, stage)
    if bench.stands_in:
        yield "begun twice at once", partial(faults.twice, bench, stage)
        yield "clock in 1970", partial(faults.skewed, bench, stage, 0)
        yield "clock in 2096", partial(faults.skewed, bench, stage, 4e9)


def tried(bench: faults.Bench, kills: int) -> list[Row]:
    """Put every fault into every stage; a loss is told, and does not stop the others."""
    rows: list[Row] = []
    for stage in STAGES:
        deaths: Counter[str] = Counter()
        try:
            outcome, deaths = faults.killed(bench, stage, kills, seed=1)
        except (AssertionError, subprocess.SubprocessError) as error:
            outcome = f"LOST: {str(error)[:300]}"
        rows.append({"fault": "killed", "stage": stage.number, "outcome": outcome, **deaths})
        for name, put in cases(bench, stage):
            try:
                outcome = put()
            except (AssertionError, subprocess.SubprocessError) as error:
                outcome = f"LOST: {str(error)[:300]}"
            rows.append({"fault": name, "stage": stage.number, "outcome": outcome})
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
    return f"## {notebooks}\n\n{shown}\n\nKills: {deaths.sum()} ({kills}).\n"


def main() -> None:
    """Try the stand-ins, or the real notebooks, and write the table of both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=25, help="of each stage")
    options.add_argument("--real", action="store_true", help="the study's own notebooks")
    options.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clca-faults-"))
    bench = faults.prepared(folder / "copy", stands_in=not given.real)
    rows = tried(bench, given.kills)
    shutil.rmtree(folder)
    path = given.out / "faults.json"
    found = read_json(path) if path.is_file() else {}
    name = "The study's own notebooks" if given.real else "Stand-ins that work through a ledger"
    found |= {"machine": machine(["papermill", "ipykernel", "transformers"])}
    found["tried"] = found.get("tried", {}) | {name: rows}
    write_json(path, found)
    parts = [told(some, rows) for some, rows in found["tried"].items()]
    head = f"# What becomes of a study under faults\n\n{machine_told(found['machine'])}"
    write_text(given.out / "faults.md", "\n\n".join([head, *parts]))
    if any(row["outcome"].startswith("LOST") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
