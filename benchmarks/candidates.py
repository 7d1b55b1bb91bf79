"""Do several candidates for a line make better conversations? What is read, and what was found.

    python benchmarks/candidates.py write   # pairs.md to be read; pairs.json to be kept secret
    python benchmarks/candidates.py count   # then: candidates.md, from pairs.json and preferred.csv

The embedded model plays twenty scenes to learn from and twenty held-out ones twice: with one
candidate for a line, and with the best of four. A reader who does not know which is which says of
each pair which is the better conversation: a, b or tie. Pairs that are alike to the letter are ties
and need no reader.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, seconds
from reading import MODEL, SAMPLING, SEED, acted, casts, choices, introduced, main, quoted
from scipy.stats import binomtest, permutation_test

from clca_utils.dialogue import Dialogue
from clca_utils.files import read_json, write_json, write_text
from clca_utils.form import form_problem
from clca_utils.scenario import Scenario
from clca_utils.similarity import similarity

SEVERAL = 4
MEASURES = {"form": "no fault of form", "follows": "cosine of a line with the one before"}


def measured(scene: Scenario, talk: Dialogue) -> dict[str, float]:
    """Measure a conversation without the model that played it; see `MEASURES`."""
    lines = [turn.text for turn in talk.turns if turn.text]
    follows = float(similarity(lines[1:], lines[:-1]).mean()) if len(lines) > 1 else 0.0
    return {"form": float(not form_problem(scene, talk)), "follows": follows}


def write(folder: Path) -> None:
    """Play every scene both ways; write the pairs, and what is kept from the reader."""
    played = casts()
    took, talks = {}, {}
    for count in (1, SEVERAL):
        sampling = SAMPLING.model_copy(update={"candidates": count})
        took[count], talks[count] = seconds(acted, [scene for _, scene in played], sampling)
    drawn = random.Random(f"{SEED}/pairs")
    texts, key = ["# Pairs of conversations on the same scene\n"], {}
    for number, place in enumerate(drawn.sample(range(len(played)), len(played)), 1):
        kind, scene = played[place]
        pair = {count: talks[count][place] for count in drawn.sample((1, SEVERAL), 2)}
        shown = [quoted(talk) for talk in pair.values()]
        if shown[0] != shown[1]:
            texts += [introduced(number, scene), f"**a**\n\n{shown[0]}\n\n**b**\n\n{shown[1]}\n"]
        key[number] = {
            "scene": scene.id,
            "kind": kind,
            "alike": shown[0] == shown[1],
            "letters": dict(zip("ab", pair, strict=True)),
            "measures": {count: measured(scene, talk) for count, talk in pair.items()},
        }
    host = machine(("torch", "transformers", "sentence-transformers"))
    made_by = {"model": f"{MODEL} with its warm-up", "seed": SEED, "seconds": took, "machine": host}
    sampling = SAMPLING.model_dump(exclude={"candidates"})
    write_text(folder / "pairs.md", "\n".join(texts))
    write_json(folder / "pairs.json", {"made_by": made_by | {"sampling": sampling}, "pairs": key})


def preferences(folder: Path, pairs: dict[str, Any]) -> dict[str, int]:
    """Return for each pair how many candidates the reader's choice had, or 0 for a tie."""
    read = choices(folder / "preferred.csv", pairs)
    return {number: pairs[number]["letters"].get(read.get(number), 0) for number in pairs}


def difference(ones: list[float], others: list[float]) -> str:
    """Write two means and how likely so great a difference is if the ways are exchangeable."""
    found = permutation_test(
        (others, ones),
        lambda some, more, axis: np.mean(some - more, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return f"{np.mean(ones):.2f} | {np.mean(others):.2f} | {found.pvalue:.2f} |"


def count(folder: Path) -> None:
    """Count what the reader preferred and compare the measures, pair by pair."""
    key = read_json(folder / "pairs.json")
    chosen = preferences(folder, key["pairs"])
    lines = [f"| scenes | | one candidate | best of {SEVERAL} | p |", "|---" * 5 + "|"]
    for kind in ("known", "held-out"):
        some = {number: pair for number, pair in key["pairs"].items() if pair["kind"] == kind}
        wins = [sum(chosen[number] == one for number in some) for one in (1, SEVERAL)]
        p = binomtest(wins[0], sum(wins)).pvalue if any(wins) else 1.0
        alike = sum(pair["alike"] for pair in some.values())
        ties = len(some) - sum(wins)
        name = f"preferred, of {len(some)} ({ties} ties, {alike} of them alike to the letter)"
        lines.append(f"| {kind} | {name} | {wins[0]} | {wins[1]} | {p:.2f} |")
        for measure, told in MEASURES.items():
            ones, others = (
                [pair["measures"][n][measure] for pair in some.values()]
                for n in ("1", f"{SEVERAL}")
            )
            lines.append(f"| {kind} | {told} | {difference(ones, others)}")
    slower = key["made_by"]["seconds"][f"{SEVERAL}"] / key["made_by"]["seconds"]["1"]
    lines += ["", f"The best of {SEVERAL} took {slower:.1f} times as long. p: sign test of the"]
    lines[-1] += " preferences without ties; paired permutation test of the means."
    write_text(folder / "candidates.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(__doc__, write, count, Path("results/reference/candidates"))
