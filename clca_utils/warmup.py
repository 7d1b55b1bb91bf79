"""The warm-up: a small adapter that teaches the embedded model to act a scene.

A zero-shot model of 135M parameters leaves its role after a turn. The adapter is trained on the
authored conversations, written as the plays that stage 02 lets a model continue; held-out
scenarios are left out. It ships in `data/warmup`, and `python -m clca_utils model warm-up` makes
it again.
"""

import random
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import assistant
from clca_utils.dialogue import Dialogue, as_play
from clca_utils.embedded import HUB_ID, prepare
from clca_utils.files import DATA, digest, write_json, write_text
from clca_utils.scenario import Scenario
from clca_utils.training import Example, save_adapter, tokenize
from clca_utils.transformers_model import load_tokenizer, load_weights, unwarned

FOLDER = DATA / "warmup"

SEED, EPOCHS, LEARNING_RATE, PER_STEP, MAX_LENGTH = 1, 3, 1e-3, 4, 1280
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def play_example(scenario: Scenario, dialogue: Dialogue, view: int) -> Example:
    """Return a conversation as a play to write, told with what one of the speakers knows."""
    request = as_play(scenario, [], view)[:-1]
    whole = [*request, assistant(dialogue.transcript())]
    return Example(dialogue_id=dialogue.id, task="play", messages=whole)


def warmup_examples() -> list[Example]:
    """Return the authored conversations to learn from, views of the two people in turn."""
    examples = []
    for culture in authored_cultures():
        known = load_authored(culture, "learn")
        of = {scenario.id: scenario for scenario in known.scenarios}
        examples += [
            play_example(of[talk.scenario_id], talk, number % 2)
            for number, talk in enumerate(known.dialogues)
        ]
    return examples


def warm_up(folder: Path = FOLDER) -> pd.DataFrame:
    """Train the warm-up adapter: half an hour on two cores.

    A loop of its own, one conversation a pass and logits for the learnt tokens alone: on two cores
    twice as fast as the trainer of stage 04, which makes padded batches. Writes `adapter/`,
    `training_log.csv` and `warmup.json`, which records settings and data.

    Returns:
        The training log: step, loss.
    """
    examples = warmup_examples()
    source = prepare()
    tokenizer = load_tokenizer(source)
    rows = [tokenize(tokenizer, example.messages, MAX_LENGTH) for example in examples]
    torch.manual_seed(SEED)
    with unwarned():
        model = get_peft_model(load_weights(source), LoraConfig(**LORA))
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    order = [i for epoch in range(EPOCHS) for i in random.Random(f"{SEED}/{epoch}").sample(
        range(len(rows)), len(rows))]  # fmt: skip
    steps = [order[first : first + PER_STEP] for first in range(0, len(order), PER_STEP)]
    schedule = get_linear_schedule_with_warmup(optimizer, len(steps) // 20, len(steps))
    losses = []
    for step in tqdm(steps, desc="warm-up steps"):
        loss = 0.0
        for i in step:
            part = loss_of(model.get_base_model(), rows[i]) / len(step)
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
    save_adapter(model, folder / "adapter", HUB_ID)
    log = pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})
    write_text(folder / "training_log.csv", log.to_csv(index=False))
    settings = {
        "seed": SEED,
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "examples_per_step": PER_STEP,
        "max_length": MAX_LENGTH,
        "lora": LORA,
    }
    data = {
        f"{culture}/{name}.jsonl": digest(DATA / "authored" / culture / f"{name}.jsonl")
        for culture in authored_cultures()
        for name in ("scenarios", "dialogues")
    }
    learnt = [example.dialogue_id for example in examples]
    record = {"base": HUB_ID, "settings": settings, "data": data, "conversations": learnt}
    write_json(folder / "warmup.json", record)
    return log


def loss_of(model: PreTrainedModel, row: dict[str, list[int]]) -> torch.Tensor:
    """Return the mean surprise at a row's learnt tokens, in nats."""
    tokens, learnt = torch.tensor(row["input_ids"]), torch.tensor(row["assistant_masks"]).bool()
    states = model.get_decoder()(input_ids=tokens[None], use_cache=False).last_hidden_state[0]
    logits = model.get_output_embeddings()(states[:-1][learnt[1:]])
    return cross_entropy(logits, tokens[1:][learnt[1:]])
