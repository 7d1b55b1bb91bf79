"""Which training settings learn most of held-out conversations, and forget least?

    python benchmarks/recipes.py [--culture german] [--share 0.5] [--recipes ...]

Each recipe trains the embedded model once on the same written conversations of a culture; it is
then examined as stage 04b does, on held-out conversations and plain texts, never on the survey.
What is finished is kept: a second call goes on. Writes `results/reference/recipes/`.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from measuring import machine, machine_told, markdown, seconds

from clca_utils.authored import load_authored
from clca_utils.exam import examined
from clca_utils.examples import build_examples
from clca_utils.files import ROOT, write_json, write_text
from clca_utils.general import load_passages
from clca_utils.params import FineTuning, model_source, read_recipe
from clca_utils.training import train_adapter
from clca_utils.transformers_model import (
    TransformersModel,
    load_model,
    load_tokenizer,
    load_weights,
)

MODEL, SEED, TEXTS = "smollm2-135m", 1, 12
OTHER = {"german": "japanese", "japanese": "german", "mexican": "german"}
ONE = {"gradient_accumulation": 1}
RECIPES = {
    "all, rank 8, alpha 16, 8 a step": FineTuning(),
    "4 a step": FineTuning(**ONE),
    "4 a step, lr 1.0e-3": FineTuning(learning_rate=1e-3, **ONE),
    "4 a step, lr 2.0e-3": FineTuning(learning_rate=2e-3, **ONE),
    "4 a step, lr 1.0e-3, q and v only": FineTuning(
        learning_rate=1e-3, target_modules="q_proj,v_proj", **ONE
    ),
    "4 a step, lr 1.0e-3, rank 32, alpha 64": FineTuning(
        learning_rate=1e-3, lora_rank=32, lora_alpha=64, **ONE
    ),
    "4 a step, lr 1.0e-3, no dropout": FineTuning(learning_rate=1e-3, lora_dropout=0.0, **ONE),
    "1 a step, lr 5.0e-4": FineTuning(learning_rate=5e-4, batch_size=1, **ONE),
    "1 a step, lr 1.0e-3": FineTuning(learning_rate=1e-3, batch_size=1, **ONE),
    "1 a step, lr 2.0e-3": FineTuning(learning_rate=2e-3, batch_size=1, **ONE),
    "paper": read_recipe("paper").model_copy(update={"epochs": 1}),
}
"""Of one epoch each: equal passes over equal examples."""


def nats(model: TransformersModel, cultures: list[str], count: int) -> dict[str, float]:
    """Return the surprise at a token, by task: of the own culture, the other one, plain texts."""
    found = examined(model, cultures, count, load_passages(TEXTS), [])
    sums = found.groupby(["task", "culture"], sort=False)[["nats", "tokens"]].sum()
    means = sums["nats"] / sums["tokens"]
    return {" ".join(filter(None, map(str, place))): float(x) for place, x in means.items()}


def tried(name: str, culture: str, share: float, count: int) -> dict[str, object]:
    """Train with one recipe and examine what came of it."""
    recipe, tokenizer = RECIPES[name], load_tokenizer(model_source(MODEL))
    tasks = {"imitation": share, "intent": share}
    examples = build_examples(*load_authored(culture, "learn"), tasks, SEED)
    with tempfile.TemporaryDirectory() as folder:
        weights = load_weights(model_source(MODEL))
        took, log = seconds(
            train_adapter, weights, tokenizer, examples, Path(folder), recipe, seed=SEED, base=MODEL
        )
        learner = load_model(MODEL, Path(folder) / "adapter", 4, exact=True)
    told = {"recipe": name, "steps": len(log), "loss": float(log["loss"].iloc[-5:].mean())}
    return told | nats(learner, [culture, OTHER[culture]], count) | {"seconds": round(took)}


def main() -> None:
    """Try what has not been tried yet, and write the table anew after each recipe."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("--culture", default="german", choices=OTHER)
    ask.add_argument("--share", type=float, default=0.5, help="of each task's examples")
    ask.add_argument("--conversations", type=int, default=7, help="held-out ones of each culture")
    ask.add_argument("--recipes", nargs="*", default=list(RECIPES))
    ask.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "recipes")
    given = ask.parse_args()
    path = given.out / "recipes.csv"
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    if not rows:
        plain = load_model(MODEL, batch_size=4, exact=True)
        cultures = [given.culture, OTHER[given.culture]]
        rows = [{"recipe": "untrained"} | nats(plain, cultures, given.conversations)]
    for name in given.recipes:
        if name not in [row["recipe"] for row in rows]:
            rows.append(tried(name, given.culture, given.share, given.conversations))
            print(rows[-1], flush=True)
            write_text(path, pd.DataFrame(rows).to_csv(index=False))
    host = machine(["torch", "transformers", "peft", "trl"])
    inputs = {"culture": given.culture, "share": given.share, "seed": SEED, "model": MODEL}
    inputs |= {"conversations": given.conversations}
    write_json(given.out / "recipes.json", inputs | {"machine": host})
    table = markdown(pd.DataFrame(rows))
    write_text(
        given.out / "recipes.md",
        f"# Training settings, on held-out conversations\n\nNats a token after training on "
        f"{given.share:.0%} of each task's examples from the written {given.culture} "
        f"conversations, seed {SEED}, at {given.conversations} held-out ones of each culture; "
        f"lower is better.\n\n{table}\n\n{machine_told(host)}\n",
    )


if __name__ == "__main__":
    main()
