"""What the grid costs beside bare papermill calls, and whether a killed one ends as any other.

Run from the repository's folder: .venv/bin/python benchmarks/grid.py. It writes grid.json and
grid.md to results/benchmarks.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import yaml
from measuring import machine, machine_told, markdown, seconds

from clca_utils.files import ROOT, digest, read_json, write_json, write_text
from clca_utils.params import load_study
from clca_utils.planning import STAGES, Step, plan
from clca_utils.progress import LOGS

STUDY = ROOT / "params" / "grid.yaml"
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
"""What Snakemake gives to a job of one core; the bare calls get the same."""


def grid_call(study: Path, results: Path, cores: str) -> list[str]:
    """Return the command of a grid."""
    named = [sys.executable, "-m", "clca_utils", "grid", str(study), "--results", str(results)]
    return [*named, "--", "--cores", cores]


def run_grid(study: Path, results: Path, cores: str) -> None:
    """Run a grid to its end."""
    subprocess.run(
        grid_call(study, results, cores), cwd=ROOT, env=ONE_THREAD, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def run_bare(steps: Sequence[Step], folder: Path) -> None:
    """Run the same notebooks with the same parameters by papermill's own command, one by one."""
    for step in steps:
        step.folder.mkdir(parents=True, exist_ok=True)
        given = folder / "given.yaml"
        given.write_text(yaml.safe_dump(step.parameters))
        call = [sys.executable, "-m", "papermill", str(step.stage.notebook), str(step.copy)]
        subprocess.run(
            [*call, "-f", str(given), "--no-progress-bar"], cwd=ROOT, env=ONE_THREAD, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def overhead(study: Path, folder: Path, rounds: int) -> pd.DataFrame:
    """Time one run of the study both ways, in turns, one step after the other on one core.

    Returns:
        One row per round: seconds of grid and bare, and their ratio.
    """
    small = folder / "one.yaml"
    content = yaml.safe_load(study.read_text(encoding="utf-8"))
    one = {"cultures": ["german"], "seeds": [1], "variants": ["clca"]}
    small.write_text(yaml.safe_dump(content | one))
    rows = []
    for number in range(rounds):
        ways = {
            "grid": lambda at: run_grid(small, at, "1"),
            "bare": lambda at: run_bare(plan(load_study(small), at), folder),
        }
        took = {}
        for name in list(ways)[:: -1 if number % 2 else 1]:
            took[name], _ = seconds(ways[name], folder / f"{name}-{number}")
        rows.append({"round": number + 1, **took, "ratio": took["grid"] / took["bare"]})
    return pd.DataFrame(rows)


def artefacts(home: Path) -> dict[str, str]:
    """Return the SHA-256 of every artefact of a study; what holds times or paths is left out."""
    return {
        path.relative_to(home).as_posix(): digest(path)
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and path.suffix not in (".ipynb", ".html")
        and path.name != "manifest.json"
        and path.parent.name not in (".locks", LOGS)
    }


def begun(home: Path) -> Counter[str]:
    """Return how often each stage was begun, by what its jobs printed."""
    logs = {stage.name: home.rglob(f"{LOGS}/{stage.name}.txt") for stage in STAGES}
    return Counter(
        {name: sum(path.read_text().count(": started") for path in paths)
         for name, paths in logs.items()}
    )  # fmt: skip


def killed(study: Path, results: Path, share: float) -> int:
    """Run a grid, kill it and all it started once a share of its steps is done, and resume it.

    Returns:
        How many steps were done when it was killed.
    """
    home = results / load_study(study).name
    total = len(plan(load_study(study), results))
    process = subprocess.Popen(
        grid_call(study, results, "all"), cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    done = 0
    while done < share * total:
        if process.poll() is not None:
            raise SystemExit("The grid ended before it could be killed.")
        time.sleep(0.2)
        done = len(list(home.rglob("metrics/*.json")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run_grid(study, results, "all")
    return done


def grids(folder: Path) -> dict[str, Any]:
    """Run the grid to its end, and once more killed and resumed; tell what came of them."""
    took, _ = seconds(run_grid, STUDY, folder / "whole", "all")
    whole = folder / "whole" / "grid"
    expected = artefacts(whole)
    done = killed(STUDY, folder / "killed", 0.4)
    return {
        "grid": {"runs": 8, "seconds": took, "begun": begun(whole), "artefacts": len(expected)},
        "killed": {
            "steps_done": done,
            "equal": artefacts(folder / "killed" / "grid") == expected,
        },
    }


def main() -> None:
    """Run both experiments, or the overhead alone, and write what came of them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--overhead", action="store_true", help="only this; the rest is kept")
    options.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    given = options.parse_args()
    host = machine(["snakemake", "papermill", "transformers"])
    folder = Path(tempfile.mkdtemp(prefix="clca-grid-"))
    found = read_json(given.out / "grid.json") if given.overhead else grids(folder)
    rounds = overhead(STUDY, folder, given.rounds)
    shutil.rmtree(folder)
    measured = {"overhead": rounds.to_dict("records"), "ratio": median(rounds["ratio"])}
    found = found | {"machine": host, **measured}
    whole, stopped = found["grid"], found["killed"]
    write_json(given.out / "grid.json", json.loads(json.dumps(found)))
    table = pd.DataFrame(list(whole["begun"].items()), columns=["stage", "begun"])
    equal = "equal to" if stopped["equal"] else "NOT equal to"
    text = (
        f"# The grid\n\n{machine_told(host)}\n\n`params/grid.yaml`, two cultures, two variants and "
        f"two seeds, ran in {whole['seconds'] / 60:.1f} minutes on {host['cores']} cores. What "
        f"runs share was done once:\n\n{markdown(table)}\n\nKilled (-9) with all it had started "
        f"when {stopped['steps_done']} steps were done, and started again, it ended with "
        f"{whole['artefacts']} artefacts {equal} those of the uninterrupted one.\n\n"
        "One run of it, step by step on one core, beside bare papermill calls of the same "
        f"notebooks (seconds):\n\n{markdown(rounds)}\n\nMedian ratio: {found['ratio']:.3f}.\n"
    )
    write_text(given.out / "grid.md", text)
    print(text)
    if not stopped["equal"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
