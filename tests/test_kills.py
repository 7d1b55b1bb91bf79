"""Simulation, killed again and again: no conversation is lost, doubled or changed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from clca_utils.adaptation import adapt_all
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue
from clca_utils.files import read_records, write_records
from clca_utils.scenario import load_seeds

KILLS, SCENES = 20, 108

WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from clca_utils.dialogue import Dialogue, Sampling, simulate
from clca_utils.files import as_finished, read_records, write_records
from clca_utils.scenario import Scenario

class Slow:
    name = "slow"

    def generate(self, conversations, *, seeds, **how):
        time.sleep(float(sys.argv[2]))
        return [f"I have {seed} reasons, said once." for seed in seeds]

    def option_logprobs(self, conversations, options):
        rng = [np.random.default_rng(len(talk[-1]["content"])) for talk in conversations]
        return [np.log(one.dirichlet([1, 1, 6, 2])) for one in rng]

run = Path(sys.argv[1])
casts = [(scene, 0) for scene in read_records(run.parent / "scenarios.jsonl", Scenario)]
sampling = Sampling(max_turns=6, max_new_tokens=9, temperature=1.0, top_p=1.0)
records = as_finished(
    casts, lambda some: simulate((Slow(), Slow()), some, 1, sampling, live=4),
    schema=Dialogue, ledger=run / ".ledger", key="k", what="dialogues",
)
write_records(run / "dialogues.jsonl", records)
(run / ".ledger").unlink()
"""


def started(run, pause):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    asked = [sys.executable, "-c", WORKER, str(run), str(pause)]
    return subprocess.Popen(asked, env=environment, stderr=subprocess.DEVNULL)


def finished_in(ledger):
    """Return the places of the conversations that a ledger holds whole."""
    whole = ledger.read_bytes().split(b"\n")[1:-1] if ledger.is_file() else []
    return [json.loads(line.partition(b" ")[2])[0] for line in whole]


def test_killed_twenty_times_no_conversation_is_lost_or_doubled(tmp_path):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    for folder in (plain, killed):
        folder.mkdir()
    seeds = [seed for seed in load_seeds() if seed.split == "learn"][:SCENES]
    write_records(tmp_path / "scenarios.jsonl", adapt_all(seeds, load_culture("german"), 1))
    assert started(plain, 0).wait(300) == 0
    rng, ledger, seen = random.Random(7), killed / ".ledger", []
    for _ in range(KILLS):
        worker, more = started(killed, 0.02), rng.randint(0, 4)
        while len(finished_in(ledger)) < len(seen) + more:
            assert worker.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
        found = finished_in(ledger)
        assert found[: len(seen)] == seen, "a finished conversation was lost"
        assert len(set(found)) == len(found), "a conversation was doubled"
        assert not (killed / "dialogues.jsonl").exists()
        seen = found
    assert 0 < len(seen) < SCENES
    assert started(killed, 0).wait(300) == 0
    records = read_records(killed / "dialogues.jsonl", Dialogue)
    assert len({one.id for one in records}) == SCENES
    whole = (plain / "dialogues.jsonl").read_bytes()
    assert (killed / "dialogues.jsonl").read_bytes() == whole
