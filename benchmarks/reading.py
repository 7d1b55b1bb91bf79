"""A blind reading of simulated conversations: writes the texts to read, and counts what was found.

    python benchmarks/reading.py write   # texts.md to be read; key.json to be kept from the reader
    python benchmarks/reading.py count   # then: counts.md, from key.json and each reading-*.md

Twenty conversations on scenes to learn from, which the warm-up knows under other names; twenty on
held-out scenes, which it does not; five authored ones as a control. Cultures are drawn by lot.
"""

import argparse
import random
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from measuring import machine
from sklearn.metrics import cohen_kappa_score

from clca_utils.adaptation import adapt_all
from clca_utils.authored import authored_cultures, load_authored
from clca_utils.culture import FOLDER, load_culture
from clca_utils.dialogue import Dialogue, Sampling, simulate
from clca_utils.files import read_json, write_json, write_text
from clca_utils.form import form_problem, runs, words
from clca_utils.models import load_chat
from clca_utils.plays import load_plays, stage
from clca_utils.scenario import Persona, Scenario, draw_seeds, load_seeds

MODEL, SEED, EACH, CONTROLS, RUN = "smollm2-135m", 11, 20, 5, 6
SAMPLING = Sampling(max_turns=8, max_new_tokens=48, temperature=0.8, top_p=0.95)
"""As a study plays by default, with room for plays of eight lines."""
KINDS = {
    "known": "simulated, on a scene to learn from",
    "held-out": "simulated, on a held-out scene",
    "authored": "authored, as a control",
}
CULTURES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ROW = re.compile(r"^\|\s*(\d+)\s*\|(.*)\|\s*$", re.MULTILINE)
Read = tuple[str, Scenario, Dialogue]


def casts() -> list[tuple[str, Scenario]]:
    """Return the scenes to be played, known ones first, each in a culture drawn by lot."""
    drawn = random.Random(SEED)
    played = []
    for kind, split in (("known", "learn"), ("held-out", "held-out")):
        for scene in draw_seeds(load_seeds(split), EACH, SEED):
            culture = load_culture(drawn.choice(CULTURES))
            played += [(kind, one) for one in adapt_all([scene], culture, SEED)]
    return played


def acted(scenes: Sequence[Scenario], sampling: Sampling) -> list[Dialogue]:
    """Play every scene, both people by the embedded model with its warm-up."""
    model = load_chat(MODEL, batch_size=16, memory=2**16, acting=True)
    pairs = [(scene, 0) for scene in scenes]
    found = dict(simulate((model, model), pairs, SEED, sampling, live=16))
    return [found[place] for place in range(len(scenes))]


def controls() -> list[Read]:
    """Return authored conversations on held-out scenes, one of each of some cultures."""
    drawn = random.Random(SEED)
    found = []
    for culture in drawn.sample(authored_cultures(), CONTROLS):
        known = load_authored(culture, "held-out")
        scene, talk = drawn.choice(list(zip(known.scenarios, known.dialogues, strict=True)))
        found.append(("authored", scene, talk))
    return found


def introduced(number: int, scene: Scenario) -> str:
    """Write what a reader must know to judge a conversation."""

    def who(one: Persona) -> str:
        return (
            f"- {one.name}, {one.occupation}. {one.background} Wants: {one.goal} "
            f"Hides: {one.secret}"
        )

    people = "\n".join(map(who, scene.people))
    return f"## {number}\n\n{scene.setting}\n\n{people}\n"


def quoted(talk: Dialogue) -> str:
    """Write the lines of a conversation as a quotation."""
    return "\n".join(f"> {line}  " for line in talk.transcript().split("\n"))


def borrowed(scenes: Sequence[Scenario], talks: Sequence[Dialogue]) -> float:
    """Return the share of words that stand in runs of six which a play of the scene has, too.

    Plays are filled as the scene itself is, so that names and prices don't hide what is borrowed.
    """
    seeds = {one.id: one for one in load_seeds()}
    found = total = 0
    for scene, talk in zip(scenes, talks, strict=True):
        seed, culture = seeds[scene.seed_id], load_culture(scene.culture.lower())
        plays = [one for one in load_plays() if one.seed_id == seed.id]
        told = [turn for one in plays for turn in stage(one, seed, culture, SEED)[1].turns]
        known = {run for turn in told for run in runs(words(turn.text), RUN)}
        for said in (words(turn.text) for turn in talk.turns):
            starts = [i for i in range(len(said)) if said[i : i + RUN] in known]
            found += len({i + place for i in starts for place in range(RUN)})
            total += len(said)
    return found / total


def write(folder: Path) -> None:
    """Simulate, and write what is read and what is kept from the reader."""
    played = casts()
    talks = acted([scene for _, scene in played], SAMPLING)
    read = [(kind, scene, talk) for (kind, scene), talk in zip(played, talks, strict=True)]
    read += controls()
    random.Random(f"{SEED}/order").shuffle(read)
    texts = [
        f"{introduced(number, scene)}\n{quoted(talk)}\n"
        for number, (_, scene, talk) in enumerate(read, 1)
    ]
    title = "# The conversations, in the order in which they were read\n"
    write_text(folder / "texts.md", "\n".join([title, *texts]))
    of = {kind: [(scene, talk) for one, scene, talk in read if one == kind] for kind in KINDS}
    key = {
        "made_by": {
            "model": f"{MODEL} with its warm-up",
            "seed": SEED,
            "sampling": SAMPLING.model_dump(),
            "machine": machine(("torch", "transformers")),
        },
        "borrowed": {kind: borrowed(*zip(*pairs, strict=True)) for kind, pairs in of.items()},
        "conversations": {
            number: {"id": talk.id, "kind": kind, "form": form_problem(scene, talk)}
            for number, (kind, scene, talk) in enumerate(read, 1)
        },
    }
    write_json(folder / "key.json", key)


def verdicts(path: Path) -> dict[int, bool]:
    """Read which conversations pass, from the fifth column of a reader's table."""
    found = {}
    for number, row in ROW.findall(path.read_text(encoding="utf-8")):
        verdict = row.split("|")[3].strip()
        if verdict not in ("yes", "no"):
            raise SystemExit(f"{path}, row {number}: passes is '{verdict}', not yes or no.")
        found[int(number)] = verdict == "yes"
    return found


def count(folder: Path) -> None:
    """Count who passes by each reader, and write the account."""
    key: dict[str, Any] = read_json(folder / "key.json")
    kinds = {int(number): one["kind"] for number, one in key["conversations"].items()}
    readings = {path: verdicts(path) for path in sorted(folder.glob("reading-*.md"))}
    for path, found in readings.items():
        if found.keys() != kinds.keys():
            raise SystemExit(f"{path} must judge conversations 1 to {len(kinds)}, each once.")
    head = " | ".join(f"reader {n}" for n in range(1, len(readings) + 1))
    lines = [f"| source | {head} | all readers | words borrowed from plays |"]
    lines.append("|---" * (len(readings) + 3) + "|")
    for kind, name in KINDS.items():
        numbers = [number for number, one in kinds.items() if one == kind]
        passed = [sum(found[n] for n in numbers) for found in readings.values()]
        passed.append(sum(all(found[n] for found in readings.values()) for n in numbers))
        cells = " | ".join(f"{one} of {len(numbers)}" for one in passed)
        lines.append(f"| {name} | {cells} | {key['borrowed'][kind]:.0%} |")
    agreed = [
        cohen_kappa_score(*([found[n] for n in kinds] for found in pair))
        for pair in combinations(readings.values(), 2)
    ]
    lines += ["", f"Agreement of the readers (Cohen's kappa): {agreed[0]:.2f}." if agreed else ""]
    write_text(folder / "counts.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def choices(path: Path, pairs: dict[str, Any]) -> "pd.Series[str]":
    """Read which of each pair a reader found better: pair to a, b or tie, of all not alike."""
    read = pd.read_csv(path, dtype=str).set_index("pair")["better"]
    asked = {number for number, pair in pairs.items() if not pair["alike"]}
    if set(read.index) != asked or len(read) != len(asked) or not set(read) <= {"a", "b", "tie"}:
        raise SystemExit(f"{path} must say a, b or tie of each of the {len(asked)} pairs, once.")
    return read


def main(
    doc: str, write: Callable[[Path], None], count: Callable[[Path], None], folder: Path
) -> None:
    """Write what is to be read, or count what was found, as the command line says."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("what", choices=["write", "count"])
    parser.add_argument("--folder", type=Path, default=folder)
    asked = parser.parse_args()
    {"write": write, "count": count}[asked.what](asked.folder)


if __name__ == "__main__":
    main(__doc__, write, count, Path("results/reference/reading"))
