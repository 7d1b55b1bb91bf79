"""Faults put into a study on purpose: kills, full and read-only disks, spoilt files, odd clocks.

The runner, Papermill, its kernels, ledgers and files are real. The notebooks are those of the study
or, where many faults shall cost little time, stand-ins that work through a ledger item by item.
Each function puts one kind of fault into one stage of a finished study's copy, says what came of
it, and raises AssertionError if anything was lost, doubled or changed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from cells import copied, write_notebook
from serving import free_port, serving

from clca_utils import embedded
from clca_utils.files import ROOT, digest
from clca_utils.planning import STAGES, Stage

STUDY: dict[str, object] = {
    "study": "tiny",
    "cultures": ["german"],
    "models": ["smollm2-135m"],
    "scenario_adaptation": {"n_scenarios": 2},
    "dialogue_simulation": {
        "max_turns": 2, "max_new_tokens": 12, "batch_size": 1, "gold": 0, "reject_confidence": 1.0,
    },
    "intent_extraction": {"max_new_tokens": 8, "batch_size": 1, "gold": 0},
    "fine_tuning": {"batch_size": 1, "checkpoint_steps": 1, "tasks": {"imitation": 1.0}},
    "held_out": {"cultures": ["german"], "texts": 1, "questions": 1, "replies": 0},
    "wvs_analysis": {"orders": "first", "checks": ["paraphrase"]},
}  # fmt: skip
RUN = "german/smollm2-135m/seed-1"
ITEMS = 12
WORK = """
import hashlib, json, os, time
from pathlib import Path
from pydantic import BaseModel
from clca_utils.files import as_finished, write_bytes, write_json

class Item(BaseModel):
    text: str

def work(some):
    for number, item in enumerate(some):
        time.sleep(float(os.environ.get("NAP", 0)))
        with Path("computed.txt").open("a") as log:
            log.write(f"{STAGE} {item}\\n")
        yield number, Item(text=f"item {item}")

home = Path(globals().get("run_dir") or study_dir)
read = [path for path in (home / name for name in READS) if path.is_file()]
told = hashlib.sha256(b"".join(path.read_bytes() for path in read)).hexdigest()
ledger = home / f".{STAGE}.ledger"
items = as_finished(range(ITEMS), work, schema=Item, ledger=ledger, key=told, what="items")
for name in WRITES:
    path = home / name if Path(name).suffix else home / name / "file.json"
    write_json(path, [told, [item.text for item in items], "x" * 20_000])
    if "SKEW" in os.environ:
        os.utime(path, (float(os.environ["SKEW"]),) * 2)
ledger.unlink()
"""
SPOIL: dict[str, Callable[[bytes], bytes | None]] = {
    "cut short": lambda old: old[: len(old) // 2],
    "emptied": lambda old: b"",
    "one bit turned": lambda old: bytes([*old[:-1], old[-1] ^ 1]) if old else b"!",
    "deleted": lambda old: None,
}


@dataclass
class Bench:
    """A copy of the repository, and in it a finished study to be harmed.

    Attributes:
        copy: The copy.
        whole: What every artefact of the unharmed study holds, as hashes.
        took: Seconds of each stage in it.
        stands_in: Whether the notebooks are stand-ins.
        port: Of the server that the model is asked at, or 0.
    """

    copy: Path
    whole: dict[str, str]
    took: dict[str, float]
    stands_in: bool
    port: int = 0

    @property
    def computed(self) -> Counter[str]:
        """How often stand-ins computed each item since the last fault."""
        path = self.copy / "computed.txt"
        return Counter(path.read_text().splitlines() if path.is_file() else [])


def started(
    bench: Bench, results: str, stage: Stage | None = None, **known: str
) -> subprocess.Popen[str]:
    """Start the study, or one step of it."""
    name = f"{RUN}/" if stage is not STAGES[-1] else ""
    only = ["--only", f"{name}{stage.name}"] if stage else []
    call = [sys.executable, "-m", "clca_utils", "run", "tiny", "--results", results, *only]
    return subprocess.Popen(
        call, cwd=bench.copy, env=os.environ | {"PYTHONPATH": str(bench.copy)} | known,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def run(bench: Bench, results: str, stage: Stage | None = None, **known: str) -> tuple[int, str]:
    """Run the study, or one step of it, to its end; return the exit code and what it printed."""
    process = started(bench, results, stage, **known)
    try:
        printed = process.communicate(timeout=600)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, printed


def prepared(home: Path, *, stands_in: bool, served: bool = False) -> Bench:
    """Make a copy of the repository and run its study there, maybe on a server, unharmed."""
    copied(home, STUDY)
    if stands_in:
        (home / "notebooks").mkdir()
        for stage in STAGES:
            work = WORK.replace("STAGE", repr(stage.name)).replace("ITEMS", str(ITEMS))
            work = work.replace("READS", repr(stage.reads)).replace("WRITES", repr(stage.artefacts))
            write_notebook(
                home / "notebooks" / f"{stage.name}.ipynb", "run_dir = study_dir = ''", work
            )
    else:
        shutil.copytree(ROOT / "notebooks", home / "notebooks")
        shutil.copytree(ROOT / "clca_utils/data/warmup", home / "clca_utils/data/warmup")
        shutil.copy(ROOT / "params/models/smollm2-135m.yaml", home / "params/models")
    bench = Bench(home, {}, {}, stands_in, free_port() if served else 0)
    if served:
        path = home / "params/models/smollm2-135m.yaml"
        server = {"url": f"http://127.0.0.1:{bench.port}/v1", "model": "base", "attempts": 2}
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"server": server}))
    with answering(bench):
        code, printed = run(bench, "whole")
    assert code == 0, printed
    bench.whole = artefacts(home / "whole/tiny")
    for folder in (home / "whole/tiny" / RUN, home / "whole/tiny"):
        stages = json.loads((folder / "manifest.json").read_text())["stages"]
        bench.took |= {name: record["seconds"] for name, record in stages.items()}
    return bench


@contextlib.contextmanager
def answering(bench: Bench, *options: str) -> Iterator[None]:
    """Run the server that the study's model is asked at, if it has one."""
    with contextlib.ExitStack() as held:
        if bench.port:
            held.enter_context(serving(bench.port, "--runtime-lora", *options))
        yield


def artefacts(home: Path) -> dict[str, str]:
    """Return the hash of every artefact of a study, and of no record of how it came to be."""
    return {
        path.relative_to(home).as_posix(): digest(path)
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and path.suffix != ".ipynb"
        and path.name != "manifest.json"
        and not any(part.startswith(".") for part in path.relative_to(home).parts)
    }


def home_of(bench: Bench, results: str, stage: Stage) -> Path:
    """Return the folder that a stage writes to."""
    home = bench.copy / results / "tiny"
    return home if stage is STAGES[-1] else home / RUN


def fresh(bench: Bench, results: str, stage: Stage) -> Path:
    """Make a copy of the finished study, in which one stage is yet to run."""
    home = bench.copy / results / "tiny"
    shutil.rmtree(home.parent, ignore_errors=True)
    shutil.copytree(bench.copy / "whole/tiny", home)
    folder = home_of(bench, results, stage)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["stages"][stage.name]
    path.write_text(json.dumps(manifest))
    for name in stage.artefacts:
        place = folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    (bench.copy / "computed.txt").unlink(missing_ok=True)
    return home


def ends_equal(bench: Bench, results: str, stage: Stage) -> str:
    """Run the study to its end; it must be as if nothing had happened."""
    code, printed = run(bench, results)
    assert code == 0, printed
    found = artefacts(bench.copy / results / "tiny")
    wrong = {name for name in {*found, *bench.whole} if found.get(name) != bench.whole.get(name)}
    assert not wrong, f"{stage.name}: {sorted(wrong)}"
    left = {path.name for path in (bench.copy / results / "tiny").rglob(".*")}
    assert left <= {".locks"}, left
    return printed


def in_ledger(home: Path, stage: Stage) -> list[str]:
    """Return the items that a stand-in's ledger holds whole."""
    path = home / f".{stage.name}.ledger"
    lines = path.read_bytes().split(b"\n")[1:-1] if path.is_file() else []
    return [f"{stage.name} {json.loads(line.partition(b' ')[2])[0]}" for line in lines]


def die(process: subprocess.Popen[str], how: str) -> None:
    """Kill a run: the runner, its kernel, or all at once, or ask it to stop."""
    if how == "kernel":
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
    elif how == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal({"runner": signal.SIGKILL, "stopped": signal.SIGTERM,
                             "interrupted": signal.SIGINT}[how])  # fmt: skip


DEATHS = ("runner", "all", "kernel", "stopped", "interrupted")


def killed(bench: Bench, stage: Stage, kills: int, seed: int) -> tuple[str, Counter[str]]:
    """Kill a stage at random moments, again and again, and let it end.

    Returns:
        What came of it, and how often it died which way.
    """
    rng, results, deaths = (
        random.Random(f"{seed} {stage.name}"),
        f"killed-{stage.number}",
        Counter(),
    )
    home = fresh(bench, results, stage)
    folder = home_of(bench, results, stage)
    seen: dict[str, int] = {}
    while deaths.total() < kills:
        process = started(bench, results, stage, NAP="0.05")
        time.sleep(rng.uniform(0.2, 1.2 * bench.took[stage.name] + 1.5))
        if process.poll() is not None:  # it had ended: all is to do again
            assert process.returncode == 0, process.communicate()[0]
            process.communicate()
            home, seen = fresh(bench, results, stage), {}
            continue
        how = rng.choice(DEATHS)
        die(process, how)
        printed = process.communicate(timeout=120)[0]
        assert "Traceback" not in printed, printed
        deaths[how] += 1
        # what has an artefact's name is whole: there is but one thing that it can hold
        for name in stage.artefacts:
            for path in (folder / name).rglob("*") if (folder / name).is_dir() else [folder / name]:
                if path.is_file() and stage is not STAGES[-1]:
                    assert digest(path) == bench.whole[path.relative_to(home).as_posix()], path
        if bench.stands_in:
            now = in_ledger(folder, stage)
            assert len({*now}) == len(now), "work was doubled"
            if (folder / f".{stage.name}.ledger").exists():
                lost = {item for item, times in seen.items() if bench.computed[item] != times}
                assert seen.keys() <= {*now}, "finished work was lost"
                assert not lost, "finished work was done again"
            else:  # not begun, or all written and not yet recorded: then it is begun anew
                assert not seen or all((folder / name).exists() for name in stage.artefacts)
            seen = {item: bench.computed[item] for item in now}
    ends_equal(bench, results, stage)
    shutil.rmtree(bench.copy / results)
    return "ended with the same files", deaths


def spoilt(bench: Bench, stage: Stage, how: str) -> str:
    """Spoil each artefact of a stage in turn; the next run must name it and make it again."""
    results = f"spoilt-{stage.number}"
    shutil.rmtree(bench.copy / results, ignore_errors=True)
    shutil.copytree(bench.copy / "whole", bench.copy / results)
    folder, names = home_of(bench, results, stage), []
    for name in stage.artefacts:
        place = folder / name
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        new = SPOIL[how](files[0].read_bytes())
        files[0].unlink()
        if new is not None:
            files[0].write_bytes(new)
        names.append(name)
    printed = ends_equal(bench, results, stage)
    for name in names:
        told = f"tiny/{(folder / name).relative_to(bench.copy / results / 'tiny')} is not as it was"
        assert told in printed, (told, printed)
    assert printed.count(": done in") == 1, printed
    shutil.rmtree(bench.copy / results)
    return f"{len(names)} named, made again, the same files"


@contextlib.contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    """Put a small disk of its own in a folder's place (needs the right to mount)."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def can_mount(place: Path) -> bool:
    """Say whether this user may mount a disk."""
    with (
        contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError),
        small_disk(place, 64),
    ):
        return True
    return False


def refused(code: int, printed: str, *words: str) -> None:
    """Check that a run ended with a clear sentence."""
    assert code == 1, printed
    assert "Traceback" not in printed, printed
    last = printed.strip().splitlines()[-3:]
    assert any(word in line for line in last for word in words), printed


def full_disk(bench: Bench, stage: Stage, room: int) -> str:
    """Let a stage run on a disk on which little is left; then make room."""
    results = f"full-{stage.number}"
    home = fresh(bench, results, stage)
    kept = bench.copy / f"kept-{stage.number}"
    shutil.rmtree(kept, ignore_errors=True)
    home.parent.rename(kept)
    with small_disk(bench.copy / results, 400_000):
        shutil.copytree(kept / "tiny", home)
        ballast = bench.copy / results / "ballast"
        left = shutil.disk_usage(home).free
        ballast.write_bytes(b"x" * max(0, left - room * 1000))
        code, printed = run(bench, results, stage)
        refused(code, printed, "can't be used (No space left on device)", "is full")
        wrong = [n for n, h in artefacts(home).items() if h != bench.whole.get(n)]
        assert not wrong or stage is STAGES[-1], wrong
        ballast.unlink()
        ends_equal(bench, results, stage)
    shutil.rmtree(kept)
    return "told, nothing half-written; with room, the same files"


def read_only(bench: Bench, stage: Stage) -> str:
    """Let a stage run where nothing may be written; then let it."""
    results = f"closed-{stage.number}"
    home = fresh(bench, results, stage)
    kept = bench.copy / f"kept-{stage.number}"
    shutil.rmtree(kept, ignore_errors=True)
    home.parent.rename(kept)
    with small_disk(bench.copy / results, 400_000):
        shutil.copytree(kept / "tiny", home)
        before = artefacts(home)
        place = str(bench.copy / results)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        code, printed = run(bench, results, stage)
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        refused(code, printed, "can't be used (Read-only file system)")
        assert artefacts(home) == before
        ends_equal(bench, results, stage)
    shutil.rmtree(kept)
    return "told, nothing changed; when writable, the same files"


def skewed(bench: Bench, stage: Stage, seconds: float) -> str:
    """Let a clock be wrong while a stage writes (stand-ins); its files then are of another age."""
    results = f"skewed-{stage.number}"
    fresh(bench, results, stage)
    code, printed = run(bench, results, stage, SKEW=str(seconds))
    assert code == 0, printed
    ends_equal(bench, results, stage)
    code, printed = run(bench, results)
    assert printed.count("skipped, nothing changed") == len(STAGES), printed
    shutil.rmtree(bench.copy / results)
    return "skipped when right, the same files"


def twice(bench: Bench, stage: Stage) -> str:
    """Start a stage twice at the same time."""
    results = f"twice-{stage.number}"
    fresh(bench, results, stage)
    both = [started(bench, results, stage, NAP="0.05") for _ in range(2)]
    printed = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum(": done in" in text for text in printed) == 1, printed
    if bench.stands_in:
        assert {*bench.computed.values()} == {1}, bench.computed
    ends_equal(bench, results, stage)
    shutil.rmtree(bench.copy / results)
    return "one waited and skipped, nothing doubled"


def broken_cache(bench: Bench, stage: Stage) -> str:
    """Let a bit of the prepared model turn before a stage needs it."""
    results, cache = f"cache-{stage.number}", bench.copy / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(embedded.prepare(), cache / embedded.prepare().name)
    weights = cache / embedded.prepare().name / "model.safetensors"
    right = digest(weights)
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    fresh(bench, results, stage)
    code, printed = run(bench, results, stage, CLCA_CACHE=str(cache))
    assert code == 0, printed
    assert digest(weights) == right
    ends_equal(bench, results, stage)
    shutil.rmtree(bench.copy / results)
    return "noticed by its hash, made again, the same files"


def server_stops(bench: Bench, stage: Stage, requests: int) -> str:
    """Let the model's server die in the midst of a request, and start it again."""
    results = f"stopped-{stage.number}"
    fresh(bench, results, stage)
    with answering(bench, "--die-after", str(requests)):
        code, printed = run(bench, results, stage)
    refused(code, printed, "No connection to the server")
    with answering(bench):
        ends_equal(bench, results, stage)
    shutil.rmtree(bench.copy / results)
    return "told; with the server, the same files"
