"""Every stage in one table: against the naive way, against peers, and against the machine's limit.

Run from the repository's folder: .venv/bin/python benchmarks/together.py. It measures how fast this
machine multiplies matrices and moves memory, plays, annotates and asks in both ways in turns, lets
training.py, asking.py and figures.py run at a small size, tells how cost grows with respondents,
items, scenarios and cultures, and writes together.json and together.md to results/benchmarks, and
the table into the README.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xllamacpp
from asking import questionnaire, weigh_by_study
from measuring import machine, machine_told, markdown, seconds, shown_spread, spread
from simulating import MODEL, SEED, Alone, acted, watched

from clca_utils.adaptation import adapt_all
from clca_utils.asking import Questionnaire
from clca_utils.authored import load_authored
from clca_utils.culture import FOLDER, load_culture
from clca_utils.dialogue import PER_SPEAKER, Dialogue, Turn, as_chat
from clca_utils.embedded import source_file
from clca_utils.files import ROOT, read_json, write_json, write_text
from clca_utils.intent import extract
from clca_utils.params import model_warmup
from clca_utils.scenario import Scenario, draw_seeds, load_seeds
from clca_utils.transformers_model import TransformersModel, load_model, render

LIVE, ANNOTATED, ALONE, WRITTEN = 8, 16, 2, 48
"""Dialogues acted at once; turns annotated and replies written at once; how many of them the naive
way does; tokens of a reply."""

RESULTS = ROOT / "results" / "benchmarks"
MARKS = "<!-- make bench -->", "<!-- end -->"

SOME = 11
"""Items asked where it is not their number that grows."""

SIZES = {
    "respondents": (1, 2, 4, 8),
    "items": (6, 12, 24, 44),
    "scenarios": (1, 2, 4, 8),
    "cultures": (1, 2, 3, 4),
}


def bandwidth(megabytes: int = 512, times: int = 5) -> float:
    """Return the best rate of copying memory, read and written, in GB/s."""
    one = torch.ones(megabytes * 2**18)
    other = torch.empty_like(one)
    best = min(seconds(other.copy_, one)[0] for _ in range(times))
    return 2 * one.numel() * 4 / best / 1e9


@contextmanager
def counted(model: TransformersModel) -> Iterator[list[int]]:
    """Count the tokens that pass through a model."""
    tokens = [0]

    def count(_: object, given: Sequence[Any], named: dict[str, Any]) -> None:
        tokens[0] += (named["input_ids"] if "input_ids" in named else given[0]).numel()

    hook = model.weights.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield tokens
    finally:
        hook.remove()


def timed(model: TransformersModel, work: Callable[[], object]) -> tuple[float, int, float, object]:
    """Do work; return its seconds, tokens, highest memory in GiB, and result."""
    with counted(model) as tokens, watched() as peak:
        took, found = seconds(work)
    return took, tokens[0], peak.highest / 2**30, found


def compared(
    stage: str,
    unit: str,
    model: TransformersModel,
    ways: dict[str, tuple[int, Callable[[], object]]],
    rounds: int,
) -> list[dict[str, Any]]:
    """Time the naive way and the study's in turns.

    Args:
        stage: Its number.
        unit: What is counted.
        model: Whose tokens are counted.
        ways: By name, how many units a call does, and the call; the study's is the last.
        rounds: How often; the ratio is taken within each.

    Returns:
        One row for each way. The results of the first units must be the same.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    flops: dict[str, float] = {}
    memory: dict[str, float] = {}
    for number in range(rounds):
        found = {}
        for name in list(ways)[:: -1 if number % 2 else 1]:
            count, work = ways[name]
            took, tokens, high, found[name] = timed(model, work)
            rates[name].append(count / took)
            flops[name] = 2 * model.weights.num_parameters(exclude_embeddings=True) * tokens / took
            memory[name] = max(high, memory.get(name, 0.0))
        naive, ours = (found[name] for name in ways)
        assert isinstance(naive, list)
        assert isinstance(ours, list)
        if naive != ours[: len(naive)]:
            raise SystemExit(f"Stage {stage}: the two ways differ.")
    slow, quick = rates.values()
    ratios = [one / other for one, other in zip(quick, slow, strict=True)]
    return [
        {"stage": stage, "way": name, "unit": unit, "per_second": spread(rates[name]),
         "study_faster": spread(ratios) if name != list(ways)[-1] else None,
         "gflops": flops[name] / 1e9, "memory_gib": memory[name]}
        for name in ways
    ]  # fmt: skip


def playing(rounds: int) -> list[dict[str, Any]]:
    """Compare how dialogues are played."""
    scenes = adapt_all(draw_seeds(load_seeds("learn"), LIVE, SEED), load_culture("japanese"), SEED)
    casts = [(scene, 0) for scene in scenes]
    model = load_model(MODEL, model_warmup(MODEL))

    def play(live: int) -> list[str]:
        memory = 2 * live * PER_SPEAKER
        ours = TransformersModel(model.name, model.weights, model.tokenizer, live, memory)
        return [talk.transcript() for talk in acted(ours, casts, live)]

    def alone() -> list[str]:
        return [talk.transcript() for talk in acted(Alone(model), casts[:ALONE], 1)]

    ways = {"one at a time, generate": (ALONE, alone), "study": (LIVE, lambda: play(LIVE))}
    return compared("02", "dialogues", model, ways, rounds)


def writing(rounds: int) -> list[dict[str, Any]]:
    """Compare how fast replies are written, beside llama.cpp on the 4-bit weights it was made for.

    Ours are the same weights in fp32, so the texts may differ; both write as many tokens.
    """
    given = xllamacpp.CommonParams()
    given.model.path, given.verbosity = str(source_file()), 0
    given.n_parallel, given.n_ctx = ANNOTATED, ANNOTATED * 1024
    given.cpuparams.n_threads = torch.get_num_threads()
    server, model = xllamacpp.Server(given), load_model(MODEL, batch_size=ANNOTATED)
    seeds = draw_seeds(load_seeds("learn"), ANNOTATED, SEED)
    chats = [as_chat(scene, [], 0) for scene in adapt_all(seeds, load_culture("japanese"), SEED)]
    texts = [render(model.tokenizer, chat) for chat in chats]
    asked = {
        "prompt": model.tokenizer(texts, add_special_tokens=False)["input_ids"],
        "n_predict": WRITTEN, "ignore_eos": True, "temperature": 0.0, "cache_prompt": False,
    }  # fmt: skip
    rates: dict[str, list[float]] = {"llama.cpp, 4-bit weights": [], "study": []}
    for _ in range(rounds):
        took, found = seconds(server.handle_completions, asked)
        if any(one["finish_reason"] != "length" for one in found["choices"]):
            raise SystemExit("llama.cpp wrote less than it was asked for.")
        took_ours, _ = seconds(
            model.generate, chats, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN,
            seeds=[SEED] * len(chats),
        )  # fmt: skip
        for way, one in zip(rates, (took, took_ours), strict=True):
            rates[way].append(len(chats) * WRITTEN / one)
    slow, quick = rates.values()
    ratios = [one / other for one, other in zip(quick, slow, strict=True)]
    return [
        {"stage": "02, writing", "way": way, "unit": "tokens written", "per_second": spread(rate),
         "study_faster": spread(ratios) if way != "study" else None}
        for way, rate in rates.items()
    ]  # fmt: skip


def moments(count: int) -> list[tuple[Scenario, Dialogue, Turn]]:
    """Return some turns of authored dialogues."""
    scenes, talks, _ = load_authored("german", "held-out")
    acted = zip(scenes, talks, strict=True)
    return [(scene, talk, turn) for scene, talk in acted for turn in talk.turns][:count]


def annotating(rounds: int) -> list[dict[str, Any]]:
    """Compare how turns are annotated."""
    model = load_model(MODEL, batch_size=ANNOTATED)
    alone, turns = Alone(model), moments(ANNOTATED)
    asked = {"seed": SEED, "max_new_tokens": 20, "cultural_threshold": 0.5}

    def texts(way: Any, some: Sequence[Any]) -> list[tuple[str, str]]:  # noqa: ANN401 (either model)
        return [(one.intent, one.expectation) for one in extract(way, some, **asked)]

    def one_by_one() -> list[tuple[str, str]]:
        return [pair for turn in turns[:ALONE] for pair in texts(alone, [turn])]

    ways = {
        "one at a time, generate": (ALONE, one_by_one),
        "study": (ANNOTATED, lambda: texts(model, turns)),
    }
    return compared("03", "turns", model, ways, rounds)


def by_script(script: str, *options: str) -> dict[str, Any]:
    """Run another benchmark at a small size and return what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, str(ROOT / "benchmarks" / script), "--out", folder, *options]
        subprocess.run(call, check=False, cwd=ROOT, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = read_json(Path(folder) / f"{Path(script).stem}.json")
        return found


def training() -> list[dict[str, Any]]:
    """Compare how adapters are trained (training.py)."""
    found = by_script("training.py", "--examples", "1", "--rounds", "1")
    names = {"bare": "TRL as it comes", "by_length": "study"}
    weights = 106_203_456  # of the embedded model, without its embedding
    return [
        {"stage": "04", "way": name, "unit": "tokens", "per_second": rate,
         "study_faster": found["times_as_fast"]["by_length"] if way == "bare" else None,
         # forward and backward: 6 operations a weight and token; recomputing is not counted
         "gflops": 6 * weights * rate["median"] / 1e9, "memory_gib": found["memory_gib"][way]}
        for way, name in names.items()
        for rate in [found["tokens_per_second"][way]]
    ]  # fmt: skip


def asking(rounds: int) -> list[dict[str, Any]]:
    """Compare how the survey is asked (asking.py)."""
    found = by_script(
        "asking.py", "--rounds", str(rounds), "--respondents", str(2 * rounds),
        "--generated", "6", "--weighed", "40", "--harness-batches", "8",
    )  # fmt: skip
    names = {"generate": "one at a time, generate", "harness": "lm-evaluation-harness",
             "study": "study"}  # fmt: skip
    return [
        {"stage": "05", "way": name, "unit": "items", "per_second": rate,
         "study_faster": found["times_as_fast"].get(way)}
        for way, name in names.items()
        for rate in [found["prompts_per_second"][way]]
    ]  # fmt: skip


def drawing() -> list[dict[str, Any]]:
    """Time the figures of a grid (figures.py)."""
    found = by_script("figures.py", "--models", "2", "--cultures", "3", "--variants", "4")
    rate = found["runs"] / found["seconds"]["median"]
    return [{"stage": "06", "way": "study", "unit": "runs", "per_second": spread([rate])}]


def growth() -> pd.DataFrame:
    """Return how cost grows: seconds at four sizes each, and the slope of their logarithms."""
    model = load_model(MODEL, batch_size=4)
    weigh_by_study(model, questionnaire(1))  # the first call is slower

    def ask(form: Questionnaire, items: int) -> None:
        weigh_by_study(model, form._replace(items=form.items[:items]))

    def play(count: int) -> None:
        seeds = draw_seeds(load_seeds("learn"), count, SEED)
        casts = [(scene, 0) for scene in adapt_all(seeds, load_culture("german"), SEED)]
        memory = 2 * LIVE * PER_SPEAKER
        ours = TransformersModel(model.name, model.weights, model.tokenizer, LIVE, memory)
        acted(ours, casts, LIVE)

    def survey(count: int) -> None:
        for path in sorted(FOLDER.glob("*.yaml"))[:count]:
            load_culture(path.stem)
            ask(questionnaire(1), SOME)

    full = questionnaire(2)
    works: dict[str, Callable[[int], object]] = {
        "respondents": lambda size: ask(questionnaire(size), SOME),
        "items": lambda size: ask(full, size),
        "scenarios": play,
        "cultures": survey,
    }
    rows = []
    for name, sizes in SIZES.items():
        took = [seconds(works[name], size)[0] for size in sizes]
        slope = float(np.polyfit(np.log(sizes), np.log(took), 1)[0])
        each = float(np.polyfit(sizes, took, 1)[0])
        rows.append(
            {"number of": name, "sizes": ", ".join(map(str, sizes)),
             "seconds": ", ".join(f"{one:.1f}" for one in took),
             "seconds for one more": each, "slope of logarithms": slope}
        )  # fmt: skip
    return pd.DataFrame(rows)


def shown(rows: Sequence[dict[str, Any]], peak: float) -> pd.DataFrame:
    """Return the table of all stages."""

    def told(values: dict[str, float] | None, form: str) -> str:
        return shown_spread(values, form) if values else ""

    return pd.DataFrame(
        {"stage": row["stage"], "way": row["way"],
         "a second": f"{told(row['per_second'], '{:.2f}')} {row['unit']}",
         "study is faster": told(row.get("study_faster"), "{:.1f}x"),
         "of the machine's rate": f"{row['gflops'] / peak:.0%}" if "gflops" in row else "",
         "memory, GiB": f"{row['memory_gib']:.1f}" if "memory_gib" in row else ""}
        for row in rows
    )  # fmt: skip


def into_readme(table: str, readme: Path) -> None:
    """Put the table where the README has its marks, in place of the one of before."""
    head, mark, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, tail = rest.partition(MARKS[1])
    write_text(readme, f"{head}{mark}\n\n{table}\n\n{end}{tail}")


def main() -> None:
    """Measure all and write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, default=RESULTS)
    given = options.parse_args()
    began = time.monotonic()
    host = machine(["torch", "transformers", "trl", "lm-eval", "xllamacpp"]) | {
        "copied_gb_s": bandwidth()
    }
    rows = [
        *playing(given.rounds), *writing(given.rounds), *annotating(given.rounds), *training(),
        *asking(given.rounds), *drawing(),
    ]  # fmt: skip
    slopes = growth()
    minutes = (time.monotonic() - began) / 60
    found = {"machine": host, "stages": rows, "growth": slopes.to_dict("records")}
    write_json(given.out / "together.json", found | {"minutes": minutes, "rounds": given.rounds})
    table = shown(rows, host["fp32_gflops"])
    write_text(
        given.out / "together.md",
        f"{markdown(table)}\n\nMedians of {given.rounds} rounds, least to greatest in brackets "
        "(stage 04: one). The ways of 02 and 03 wrote the same texts. *Of the machine's rate*: "
        "2 operations for each weight and token that passed through the model (04: 6), beside the "
        "rate of matrix products; what writes token by token is held back by memory instead "
        f"({host['copied_gb_s']:.0f} GB/s copied; the weights are 0.5 GB).\n\n"
        f"How cost grows (a slope of 1 is in proportion):\n\n{markdown(slopes)}\n\n"
        f"{machine_told(host)} All of it took {minutes:.0f} minutes.\n",
    )
    if given.out == RESULTS:
        into_readme(markdown(table), ROOT / "README.md")
    print((given.out / "together.md").read_text())


if __name__ == "__main__":
    main()
