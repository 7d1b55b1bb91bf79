"""How fast an adapter is trained: by TRL as it comes, and by stage 04 in its ways of batching.

All ways learn from the same written conversations, tokenised with the same marks of what counts in
the loss, in fp32, with the same adapter, batch sizes and seed:

- bare: a plain script with TRL's SFTTrainer, its settings at their defaults;
- random, by_length, packed: `train_adapter`, which also keeps checkpoints and can be killed.

    python benchmarks/training.py [--examples 16] [--rounds 3]

Every training runs in a process of its own, so that its memory is its own. The script fails if
`bare` and `random`, which take the same steps, end at different losses; of speed it only tells.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from measuring import machine, machine_told, seconds, shown_spread, spread
from peft import LoraConfig
from simulating import watched
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from clca_utils.authored import load_authored
from clca_utils.examples import Example, build_examples, tokenize
from clca_utils.files import write_json, write_text
from clca_utils.params import FineTuning, model_source
from clca_utils.training import train_adapter
from clca_utils.transformers_model import load_tokenizer, load_weights

MODEL, CULTURE, SEED, NEAR = "smollm2-135m", "german", 1, 1e-3
WAYS = {
    "bare": "TRL's SFTTrainer as it comes",
    "random": "this study, `batching: random`",
    "by_length": "this study, `batching: by_length` (the default)",
    "packed": "this study, `batching: packed`",
}


def bare(
    weights: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    folder: Path,
    recipe: FineTuning,
) -> float:
    """Train as a plain script would, and return the mean loss.

    `assistant_only_loss` needs a template that marks what the assistant generates, which the
    model's does not: so its user has to bring tokens and marks, here the study's.
    """
    rows = [tokenize(tokenizer, one.messages, recipe.max_length) for one in examples]
    trainer = SFTTrainer(
        model=weights,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules=recipe.target_modules,
        ),
        args=SFTConfig(
            output_dir=str(folder),
            num_train_epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            per_device_train_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            max_length=recipe.max_length,
            seed=SEED,
            bf16=False,
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    return float(trainer.state.log_history[-1]["train_loss"])


def studied(
    weights: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    folder: Path,
    recipe: FineTuning,
) -> float:
    """Train as stage 04 does, and return the mean loss of its steps."""
    log = train_adapter(weights, tokenizer, examples, folder, recipe, seed=SEED, base=MODEL)
    return float(log["loss"].mean())


def trained(way: str, count: int, number: int) -> dict[str, float]:
    """Train once, on the examples of a round, and return what was found.

    Args:
        way: One of `WAYS`.
        count: How many examples.
        number: Of the round.
    """
    everything = build_examples(*load_authored(CULTURE, "learn"), FineTuning().tasks, SEED)
    examples = random.Random(number).sample(everything, count)
    batching = "random" if way == "bare" else way
    recipe = FineTuning.model_validate({"batching": batching, "precision": "fp32"})
    source = model_source(MODEL)
    tokenizer, weights = load_tokenizer(source), load_weights(source, recipe.precision)
    work = bare if way == "bare" else studied
    with TemporaryDirectory() as folder, watched() as peak:
        took, loss = seconds(work, weights, tokenizer, examples, Path(folder), recipe)
    rows = [tokenize(tokenizer, one.messages, recipe.max_length) for one in examples]
    tokens = sum(len(row["input_ids"]) for row in rows)
    return {
        "tokens_per_second": tokens / took,
        "memory_gib": peak.highest / 2**30,
        "loss": loss,
        "tokens": tokens,
    }


def apart(way: str, count: int, number: int) -> dict[str, float]:
    """Return what `trained` does in a process of its own."""
    asked = ["--way", way, "--examples", str(count), "--rounds", str(number)]
    process = subprocess.run(
        [sys.executable, __file__, *asked], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def table(result: dict[str, Any]) -> str:
    """Write a result as markdown."""
    lines = ["| way | tokens per second | times as fast as TRL | highest memory, GiB | mean loss |"]
    lines.append("|---|---|---|---|---|")
    for way, name in WAYS.items():
        rate = shown_spread(result["tokens_per_second"][way], "{:.0f}")
        ratio = shown_spread(result["times_as_fast"][way], "{:.2f}") if way != "bare" else ""
        memory, loss = result["memory_gib"][way], result["loss"][way]
        lines.append(f"| {name} | {rate} | {ratio} | {memory:.1f} | {loss:.3f} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {result['rounds']} rounds of {result['examples']} examples "
            f"({result['tokens']:.0f} tokens each, on average), least to greatest in brackets; one "
            "epoch. From the examples to the written adapter, without loading the model.",
            "",
            f"{result['model']} in fp32; {machine_told(result['machine'])}",
            "",
        ]
    )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=16, help="conversations a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # one training, by itself
    return parser.parse_args()


def main() -> int:
    """Train in every way in every round, write what was found, and return the exit status."""
    asked = options()
    if asked.way:
        print(json.dumps(trained(asked.way, asked.examples, asked.rounds)))
        return 0
    host = machine(("torch", "transformers", "trl", "peft"))
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(asked.rounds):
        order = [*WAYS] if number % 2 == 0 else [*WAYS][::-1]
        rounds.append({way: apart(way, asked.examples, number) for way in order})
        print(f"round {number + 1}: {rounds[-1]}", flush=True)
    rates = {way: [one[way]["tokens_per_second"] for one in rounds] for way in WAYS}
    pairs = {way: zip(rates[way], rates["bare"], strict=True) for way in WAYS}
    result = {
        "tokens_per_second": {way: spread(rates[way]) for way in WAYS},
        "times_as_fast": {way: spread([one / two for one, two in pairs[way]]) for way in WAYS},
        "memory_gib": {way: max(one[way]["memory_gib"] for one in rounds) for way in WAYS},
        "loss": {way: spread([one[way]["loss"] for one in rounds])["median"] for way in WAYS},
        "tokens": sum(one["bare"]["tokens"] for one in rounds) / len(rounds),
        "examples": asked.examples,
        "rounds": len(rounds),
        "model": MODEL,
        "recipe": FineTuning().model_dump(),
        "machine": host,
        "each_round": rounds,
    }
    write_json(asked.out / "training.json", result)
    write_text(asked.out / "training.md", table(result))
    print("", table(result), sep="\n")
    if any(abs(one["bare"]["loss"] - one["random"]["loss"]) > NEAR for one in rounds):
        print("TRL as it comes and the study's random batches learn differently.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
