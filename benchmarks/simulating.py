"""How many conversations are simulated per minute: one at a time, as is usual, and by stage 02.

Both ways play the same scenes with the same prompts, seeds and sampling, in one process on the
same weights in fp32:

- alone: one conversation after the other; every turn reads its whole prompt, weighs the actions,
  reads it again and writes with transformers' `generate`: the published code's manner;
- study: `simulate`, many conversations at once, what was read remembered.

The script fails if the conversations differ in a single character; of speed it only tells.
"""

import argparse
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from measuring import machine, machine_told, seconds, shown_spread, spread
from numpy.typing import NDArray
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ChatModel, Conversation
from clca_utils.culture import load_culture
from clca_utils.dialogue import PER_SPEAKER, Dialogue, Sampling, simulate
from clca_utils.files import write_json, write_text
from clca_utils.params import model_warmup
from clca_utils.scenario import Scenario, draw_seeds, load_seeds
from clca_utils.transformers_model import TransformersModel, load_model, render

MODEL, CULTURE, SEED, GOAL = "smollm2-135m", "japanese", 1, 5
SAMPLING = Sampling(max_turns=10, max_new_tokens=48, temperature=0.8, top_p=0.95)
Casts = Sequence[tuple[Scenario, int]]


class Gumbel(LogitsProcessor):  # type: ignore[misc]
    """Adds the study's own random numbers, so that greedy search draws the study's words."""

    def __init__(self, seed: int, temperature: float, top_p: float) -> None:
        self.numbers = torch.Generator().manual_seed(seed)
        self.temperature, self.nucleus = temperature, TopPLogitsWarper(top_p)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the nucleus with noise added."""
        scores = self.nucleus(input_ids, scores.float() / self.temperature).double()
        uniform = torch.rand(scores.shape[1], generator=self.numbers).double().clamp_min(1e-20)
        return scores - torch.log(-torch.log(uniform))


class Alone:
    """The same weights, asked one conversation after the other by transformers' own means."""

    def __init__(self, model: TransformersModel) -> None:
        self.name, self.model = model.name, model

    def _read(self, conversation: Conversation) -> torch.Tensor:
        text = render(self.model.tokenizer, conversation)
        tokens = self.model.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        return torch.as_tensor(tokens["input_ids"])

    @torch.inference_mode()
    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: str = "",
        no_repeat: int = 0,
        min_new_tokens: int = 3,
    ) -> list[str]:
        """Reply to each conversation by itself; see `ChatModel.generate`."""
        replies = []
        for conversation, seed in zip(conversations, seeds, strict=True):
            tokens = self._read(conversation)
            drawn = [Gumbel(seed, temperature, top_p)] if temperature else []
            output = self.model.weights.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens,
                no_repeat_ngram_size=no_repeat,
                logits_processor=LogitsProcessorList(drawn),
                eos_token_id=self.model._ends(stop),
                pad_token_id=self.model.tokenizer.pad_token_id,
            )
            text = self.model.tokenizer.decode(
                output[0, tokens.shape[1] :], skip_special_tokens=True
            )
            replies.append(text.split(stop)[0].strip())
        return replies

    @torch.inference_mode()
    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Weigh options of one token each by one pass over the whole prompt."""
        rows = []
        for conversation, texts in zip(conversations, options, strict=True):
            logits = self.model.weights(self._read(conversation), logits_to_keep=1).logits[0, -1]
            ids = [self.model.tokenizer(text)["input_ids"] for text in texts]
            assert all(len(one) == 1 for one in ids), f"options of several tokens: {texts}"
            found = torch.log_softmax(logits.double(), -1)
            rows.append(np.array([float(found[one]) for [one] in ids]))
        return rows


class Peak(threading.Thread):
    """Watches how much memory the process takes, ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.over = 0, threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        process = psutil.Process(os.getpid())
        while not self.over.wait(0.1):
            self.highest = max(self.highest, process.memory_info().rss)


@contextmanager
def watched() -> Iterator[Peak]:
    """Watch the memory of what runs inside."""
    peak = Peak()
    peak.start()
    try:
        yield peak
    finally:
        peak.over.set()
        peak.join()


class Round(NamedTuple):
    """One round of both ways: conversations per minute, highest memory in GiB, tokens written."""

    alone: float
    study: float
    alone_memory: float
    study_memory: float
    words: float
    same: bool


def acted(model: ChatModel, casts: Casts, live: int) -> list[Dialogue]:
    """Simulate conversations, in order."""
    found = dict(simulate((model, model), casts, SEED, SAMPLING, live=live))
    return [found[place] for place in range(len(casts))]


def play_round(model: TransformersModel, casts: Casts, live: int, alone: int) -> Round:
    """Time both ways on the same scenes, the slow one on the first of them only.

    Args:
        model: Plays both people.
        casts: Scenes and numbers of the sample.
        live: How many conversations the study acts at once.
        alone: How many the slow way plays.
    """
    with watched() as slow:
        took, wanted = seconds(acted, Alone(model), casts[:alone], 1)
    ours = TransformersModel(
        model.name, model.weights, model.tokenizer, live, memory=2 * live * PER_SPEAKER
    )
    with watched() as quick:
        took_ours, found = seconds(acted, ours, casts, live)
    lines = [turn.text for talk in found for turn in talk.turns]
    return Round(
        alone=60 * alone / took,
        study=60 * len(casts) / took_ours,
        alone_memory=slow.highest / 2**30,
        study_memory=quick.highest / 2**30,
        words=sum(len(line.split()) for line in lines) / len(casts),
        same=told_alike(wanted, found[:alone]),
    )


def told_alike(wanted: Sequence[Dialogue], found: Sequence[Dialogue]) -> bool:
    """Say whether conversations are the same to the letter."""
    return [one.transcript() for one in wanted] == [one.transcript() for one in found]


def table(result: dict[str, Any]) -> str:
    """Write a result as markdown."""
    rates, memory = result["conversations_per_minute"], result["memory_gib"]
    ratio = shown_spread(result["times_as_fast"], "{:.1f}x")
    names = {
        "alone": "one at a time, by transformers' `generate`",
        "study": f"this study, {result['live']} at once",
    }
    lines = ["| way | conversations per minute | study is faster by | highest memory, GiB |"]
    lines.append("|---|---|---|---|")
    for way, name in names.items():
        rate = shown_spread(rates[way], "{:.2f}")
        high = f"{memory[way]:.1f}"
        lines.append(f"| {name} | {rate} | {ratio if way == 'alone' else ''} | {high} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {result['rounds']} rounds, least to greatest in brackets: "
            f"{result['rounds'] * result['alone_each']} conversations one at a time, "
            f"{result['rounds'] * result['each']} by the study, of {result['words']:.0f} words on "
            "average; those played by both are the same to the letter.",
            "",
            f"{result['model']} in fp32; {machine_told(result['machine'])}",
            "",
        ]
    )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=45, help="conversations a round, by the study")
    parser.add_argument("--alone", type=int, default=2, help="of them, also one at a time")
    parser.add_argument("--live", type=int, default=45, help="acted at once")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser.parse_args()


def main() -> int:
    """Time both ways, write what was found, and return the exit status."""
    asked = options()
    host = machine(("torch", "transformers"))
    model = load_model(MODEL, model_warmup(MODEL))
    scenes = adapt_all(
        draw_seeds(load_seeds(), asked.rounds * asked.each, SEED), load_culture(CULTURE), SEED
    )
    acted(Alone(model), [(scenes[0], 1)], 1)  # what is done once is done before the first round
    played = []
    for first in range(0, len(scenes), asked.each):
        casts = [(scene, 0) for scene in scenes[first : first + asked.each]]
        played.append(play_round(model, casts, asked.live, asked.alone))
        print(f"round {len(played)}: {played[-1]}", flush=True)
    ratios = spread([one.study / one.alone for one in played])
    result = {
        "conversations_per_minute": {
            way: spread([getattr(one, way) for one in played]) for way in ("alone", "study")
        },
        "times_as_fast": ratios,
        "goal": GOAL,
        "goal_reached": ratios["median"] >= GOAL,
        "memory_gib": {
            way: max(getattr(one, f"{way}_memory") for one in played) for way in ("alone", "study")
        },
        "words": sum(one.words for one in played) / len(played),
        "same": all(one.same for one in played),
        "model": MODEL,
        "sampling": SAMPLING.model_dump(),
        "live": asked.live,
        "each": asked.each,
        "alone_each": asked.alone,
        "rounds": len(played),
        "machine": host,
        "each_round": [one._asdict() for one in played],
    }
    write_json(asked.out / "simulating.json", result)
    write_text(asked.out / "simulating.md", table(result))
    print("", table(result), sep="\n")
    print(f"{GOAL} times as fast: {'yes' if result['goal_reached'] else 'no'}")
    if not result["same"]:
        print("The two ways tell different conversations.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
