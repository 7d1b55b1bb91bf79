"""The warm-up: a small adapter with which the embedded model knows plays by heart.

A zero-shot model of 135M parameters leaves its role after a turn, and one that learnt 140 authored
conversations still did in a blind reading. So the adapter is trained on those and on the `plays`
until it can say the plays again under any names: on their scenes it rehearses more than it
simulates, and of other scenes it knows nothing. Held-out scenarios are left out. It ships in
`data/warmup`, and `python -m clca_utils model warm-up` makes it again: five minutes on a data
centre's GPU, half a day on two cores.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import assistant
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, as_play
from clca_utils.embedded import HUB_ID, prepare
from clca_utils.examples import Example, tokenize
from clca_utils.files import DATA, digest, write_json, write_text
from clca_utils.plays import PLAYS, load_plays, stage
from clca_utils.scenario import Scenario, load_seeds
from clca_utils.training import save_adapter
from clca_utils.transformers_model import load_tokenizer, load_weights, unwarned

FOLDER = DATA / "warmup"

SEED, LEARNING_RATE, PER_STEP, MAX_LENGTH = 1, 1e-3, 16, 1280
EPOCHS = 6, 14
"""With the authored conversations and the plays, then with the plays alone; each part has its own
schedule of the learning rate."""
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}

Row = dict[str, list[int]]


def play_example(scenario: Scenario, dialogue: Dialogue, view: int) -> Example:
    """Return a conversation as a play to write, told with what one of the speakers knows."""
    request = as_play(scenario, [], view)[:-1]
    whole = [*request, assistant(dialogue.transcript())]
    return Example(dialogue_id=dialogue.id, task="play", messages=whole)


def warmup_talks(epoch: int) -> list[tuple[Scenario, Dialogue]]:
    """Return the authored conversations, and the plays as they are filled in an epoch.

    A play stands in another culture, with other names, dishes and prices, in each epoch: what it
    teaches is the role.
    """
    talks = []
    for culture in authored_cultures():
        known = load_authored(culture, "learn")
        talks += list(zip(known.scenarios, known.dialogues, strict=True))
    scenes = {one.id: one for one in load_seeds("learn")}
    cultures = [load_culture(name) for name in authored_cultures()]
    return talks + [
        stage(play, scenes[play.seed_id], cultures[(number + epoch) % len(cultures)], epoch)
        for number, play in enumerate(load_plays())
    ]


def warmup_examples(epoch: int) -> list[Example]:
    """Return the examples of an epoch in their order: each as both of its people know it."""
    talks = warmup_talks(epoch)
    examples = [play_example(*pair, view) for pair in talks for view in (0, 1)]
    plays = {talk.id for _, talk in talks[-len(load_plays()) :]}
    drawn = random.Random(f"{SEED}/{epoch}").sample(examples, len(examples))
    return [one for one in drawn if epoch < EPOCHS[0] or one.dialogue_id in plays]


def warm_up(folder: Path = FOLDER) -> pd.DataFrame:
    """Train the warm-up adapter.

    A loop of its own, with logits for the learnt tokens alone: on two cores twice as fast as the
    trainer of stage 04, which makes logits for all. Writes `adapter/`, `training_log.csv` and
    `warmup.json`, which records settings and data.

    Returns:
        The training log: step, loss.
    """
    source = prepare()
    tokenizer = load_tokenizer(source)
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    with unwarned():
        model = get_peft_model(load_weights(source, "fp32"), LoraConfig(**LORA))
    losses = []
    for epochs in (range(EPOCHS[0]), range(EPOCHS[0], sum(EPOCHS))):
        examples = [one for epoch in epochs for one in warmup_examples(epoch)]
        losses += fit(model, [tokenize(tokenizer, one.messages, MAX_LENGTH) for one in examples])
    save_adapter(model.half(), folder / "adapter", HUB_ID)
    log = pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})
    write_text(folder / "training_log.csv", log.to_csv(index=False))
    made = {"torch": torch.__version__, "device": model.device.type}
    write_json(folder / "warmup.json", record() | {"made_with": made})
    return log


def record() -> dict[str, Any]:
    """Return what the adapter is made from: base, settings, hashes of the data, conversations."""
    settings = {
        "seed": SEED,
        "epochs": list(EPOCHS),
        "learning_rate": LEARNING_RATE,
        "examples_per_step": PER_STEP,
        "max_length": MAX_LENGTH,
        "lora": LORA,
    }
    files = [
        DATA / "authored" / culture / f"{name}.jsonl"
        for culture in authored_cultures()
        for name in ("scenarios", "dialogues")
    ]
    data = {str(path.relative_to(DATA)): digest(path) for path in [*files, PLAYS]}
    scenes = {talk.id: scene.seed_id for scene, talk in warmup_talks(0)}
    return {"base": HUB_ID, "settings": settings, "data": data, "scenes": scenes}


def fit(model: PreTrainedModel, rows: Sequence[Row]) -> list[float]:
    """Train a model's adapter on rows in order, and return the loss of each step, in nats.

    A step's rows are read together on a GPU, one by one on a CPU: padding would cost time there.
    """
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    steps = [rows[first : first + PER_STEP] for first in range(0, len(rows), PER_STEP)]
    schedule = get_linear_schedule_with_warmup(optimizer, len(steps) // 20, len(steps))
    losses = []
    for step in tqdm(steps, desc="warm-up steps"):
        learnt = sum(sum(row["assistant_masks"]) for row in step)
        loss = 0.0
        for part in [step] if model.device.type == "cuda" else [[row] for row in step]:
            surprise = surprise_of(model.get_base_model(), part) / learnt
            surprise.backward()  # type: ignore[no-untyped-call]
            loss += float(surprise.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
    return losses


def surprise_of(model: PreTrainedModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return the surprise at the learnt tokens of some rows, summed, in nats.

    Rows are padded on the right, where nothing that counts looks.
    """
    tokens, learnt = (
        pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True).to(model.device)
        for key in ("input_ids", "assistant_masks")
    )
    states = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    logits = model.get_output_embeddings()(states[learnt[:, 1:].bool()])
    return cross_entropy(logits, tokens[:, 1:][learnt[:, 1:].bool()], reduction="sum")
