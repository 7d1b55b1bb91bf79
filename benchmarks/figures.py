"""How long does stage 06 take on a whole grid of results?

    python benchmarks/figures.py [--models 7] [--cultures 5] [--variants 12] [--seeds 3]

The grid is made up from one shipped run: its tables and metrics with drawn noise, 1,260 runs as a
study of the paper's size with its controls leaves them. Nothing in it is a result. Writes
`results/benchmarks/figures.json` and `.md`.
"""

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
from measuring import machine, machine_told, seconds, spread

from clca_utils.files import ROOT, locate, read_json, write_json, write_text
from clca_utils.planning import REPORT, run_folder

SOURCE = ROOT / "results" / "reference" / "controls" / "german" / "smollm2-135m" / "seed-1"
MODELS = [
    *("llama-3.1-8b", "llama-3.2-3b", "llama-3.2-1b", "mistral-7b-v0.3"),
    *("qwen2.5-7b", "qwen2.5-1.5b", "qwen2.5-0.5b"),
]
CULTURES = {
    **{"chinese": ("China", "CHN"), "german": ("Germany", "DEU")},
    **{"british": ("Great Britain", "GBR"), "mexican": ("Mexico", "MEX")},
    "japanese": ("Japan", "JPN"),
}
VARIANTS = [
    *("clca", "dialogue-only", "intent-only", "no-filter", "unadapted", "neutral-text"),
    *("authored", "persona-prompt", "wrong-culture"),
]
"""The last is one run for each other culture: twelve in all for five cultures."""
UNTRAINED = ("persona-prompt", "wrong-culture")
SHARED = ("references.csv", "coverage.csv")
"""Tables that hold no answer of a model."""


def noisy_items(
    items: pd.DataFrame, draw: np.random.Generator, before: np.random.Generator, gain: float
) -> pd.DataFrame:
    """Return distances that differ by model and, after training, by run; closer by `gain` or so."""
    after = items["variant"] == "after"
    factor = np.exp(before.normal(0, 0.08, len(items)))  # untrained, a model answers once
    factor[after] = np.exp(draw.normal(-gain, 0.08, int(after.sum())))
    return items.assign(js_distance=(items["js_distance"] * factor).clip(0, 1))


def noisy_shares(shares: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Return shares of the model that were multiplied by noise; the people's stay."""
    noise = np.where(shares["variant"] == "people", 1, np.exp(draw.normal(0, 0.1, len(shares))))
    noisy = shares.assign(share=shares["share"] * noise)
    return noisy.assign(
        share=noisy["share"] / noisy.groupby(["variant", "qid"])["share"].transform("sum")
    )


def write_run(folder: Path, shared: Path, owner: Path, draw: np.random.Generator) -> None:
    """Write one made-up run; what no model answered is one file for all runs of a culture."""
    tables, trained = folder / "tables", folder == owner
    tables.mkdir(parents=True)
    for name in SHARED:
        os.link(shared / name, tables / name)
    read = {n: pd.read_csv(SOURCE / f"tables/{n}.csv") for n in ("items", "shares", "positions")}
    places = pd.read_csv(SOURCE / "tables" / "places.csv", keep_default_na=False)
    moved = places["kind"].isin(["before", "after"])
    places.loc[moved, ["x", "y"]] += draw.normal(0, 0.5, (int(moved.sum()), 2))
    label = folder.parent.name
    asked = label if "prompt" in label else label.partition("+")[0]
    before = np.random.default_rng([*f"{folder.parents[1].name} {asked}".encode()])
    gain = draw.normal(0.03 if "+" not in folder.parent.name else 0.01, 0.01)
    read |= {
        "items": noisy_items(read["items"], draw, before, gain),
        "shares": noisy_shares(read["shares"], draw),
        "places": places,
    }
    for name, table in read.items():
        table.to_csv(tables / f"{name}.csv", index=False)
    metrics = noisy_metrics(read["items"], folder.parent.name, draw)
    for name in metrics if trained else ["05_wvs_analysis"]:
        write_text(folder / "metrics" / f"{name}.json", json.dumps(metrics[name]))
    if trained:
        exam = pd.read_csv(SOURCE / "held_out.csv", keep_default_na=False)
        learnt = folder.parents[1].name.title()
        exam.assign(learnt=learnt).to_csv(folder / "held_out.csv", index=False)
    told = {"parameters": {"adapter_dir": str(owner)}}
    write_text(folder / "manifest.json", json.dumps({"stages": {"05_wvs_analysis": told}}))


def noisy_metrics(
    items: pd.DataFrame, label: str, draw: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return the shipped run's metrics with the distances of `items`; the rest with noise."""
    found = {path.stem: read_json(path) for path in sorted((SOURCE / "metrics").glob("*.json"))}
    survey = found["05_wvs_analysis"]
    for name, value in survey.items():
        if name.startswith(("kl_", "accuracy", "normalised")) and (
            "before" in name or "after" in name
        ):
            survey[name] = value * float(np.exp(draw.normal(0, 0.05)))
    main = items[items["reading"] == "calibrated"].groupby("variant")["js_distance"].mean()
    survey |= {f"js_distance_{name}": float(value) for name, value in main.items()}
    size = label.partition("+")[0].rpartition("-")[2].partition("b")[0]
    found["04_fine_tuning"]["parameters"] = float(size) * 1e9 if size[0].isdigit() else 7.2e9
    for name in ("dialogues_kept", "turns_per_dialogue", "words_per_spoken_turn"):
        found["02_dialogue_simulation"][name] *= float(np.exp(draw.normal(0, 0.2)))
    return found


def write_grid(
    home: Path, models: Sequence[str], cultures: Sequence[str], variants: Sequence[str], seeds: int
) -> int:
    """Write a study's results folder of made-up runs; return how many."""
    count = 0
    for number, culture in enumerate(cultures):
        shared = home / ".shared" / culture
        shared.mkdir(parents=True)
        shutil.copy(SOURCE / "tables" / "references.csv", shared)
        country, iso3 = CULTURES[culture]
        covered = pd.read_csv(SOURCE / "tables" / "coverage.csv", keep_default_na=False)
        covered = covered.assign(country=country, iso3=iso3)
        covered.to_csv(shared / "coverage.csv", index=False)
        for model, variant, seed in itertools.product(models, variants, range(1, seeds + 1)):
            for source in cultures if variant == "wrong-culture" else [culture]:
                if variant == "wrong-culture" and source == culture:
                    continue
                label = variant if source == culture else f"{variant}-{source}"
                folder = run_folder(home, culture, model, seed, variant=label)
                owner = folder
                if variant in UNTRAINED:
                    owner = run_folder(home, source, model, seed)
                draw = np.random.default_rng([number, seed, count])
                write_run(folder, shared, owner, draw)
                count += 1
    return count


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=7)
    parser.add_argument("--cultures", type=int, default=5)
    parser.add_argument("--variants", type=int, default=12, help="with one for each wrong culture")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the grid here and leave it there")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def main() -> int:
    """Make up the grid, run stage 06 on it, write how long it took, and return the exit status."""
    asked = options()
    cultures = list(CULTURES)[: asked.cultures]
    alone = max(1, asked.variants - (len(cultures) - 1))
    variants = [*VARIANTS[:-1][:alone], *(VARIANTS[-1:] if asked.variants > alone else [])]
    with tempfile.TemporaryDirectory() as temporary:
        home = (asked.keep or Path(temporary) / "grid").absolute()
        count = write_grid(home, MODELS[: asked.models], cultures, variants, asked.seeds)
        print(f"{count} runs made up in {home}", flush=True)
        host, times = machine(("pandas", "scipy", "matplotlib", "seaborn")), []
        for _ in range(asked.rounds):
            given = {"study_dir": str(home)}
            notebook = str(home / REPORT.notebook.name)
            took, _ = seconds(
                papermill.execute_notebook, str(REPORT.notebook), notebook, given,
                progress_bar=False,
            )  # fmt: skip
            times.append(took)
            print(f"{took:.1f} s", flush=True)
    result = {"runs": count, "seconds": spread(times), "rounds": len(times), "machine": host}
    told = (
        f"Stage 06 on {count} made-up runs ({asked.models} models, {asked.cultures} cultures, "
        f"{asked.variants} variants, {asked.seeds} seeds): {result['seconds']['median']:.0f} s for "
        f"the whole notebook, median of {len(times)} rounds.\n\n{machine_told(host)}\n"
    )
    write_json(locate(asked.out) / "figures.json", result)
    write_text(locate(asked.out) / "figures.md", told)
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
