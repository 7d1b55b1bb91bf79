"""Training: which tokens carry loss, what is written, and that a killed run ends the same."""

import os
import shutil
import subprocess
import sys
from copy import copy
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import trl
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer import utils

from clca_utils import training
from clca_utils.chat_model import assistant, system, user
from clca_utils.embedded import prepare
from clca_utils.examples import Example, tokenize
from clca_utils.files import StudyError, read_json
from clca_utils.params import FineTuning
from clca_utils.training import (
    SEAL,
    ByLength,
    StepBar,
    adapter_size,
    evened,
    last_whole_checkpoint,
    layers,
    seal,
    train_adapter,
)
from clca_utils.transformers_model import load_tokenizer, load_weights


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(prepare())


@settings(max_examples=500)
@example([1, 99, 105, 124, 1, 100], 2)
@given(st.lists(st.integers(1, 999), min_size=1, max_size=60), st.integers(1, 8))
def test_every_epoch_takes_every_example_once_beside_others_as_long(lengths, size):
    sampler = ByLength(lengths, size, 1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(len(lengths)))
    assert orders[0] == orders[2]
    whole = [orders[0][i : i + size] for i in range(0, len(lengths) // size * size, size)]
    spans = [(min(some), max(some)) for b in whole if (some := [lengths[i] for i in b])]
    # of two batches one is the longer, but for the noise on the lengths
    least = 0.9 / 1.1 - 1e-9
    for (low, high), (other_low, other_high) in combinations(spans, 2):
        assert low >= least * other_high or other_low >= least * high


def test_epochs_and_seeds_differ_in_their_order():
    first, other = ByLength(range(40), 4, 1), ByLength(range(40), 4, 2)
    orders = [list(first), list(other)]
    first.set_epoch(1)
    orders.append(list(first))
    assert len({tuple(order) for order in orders}) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 99), min_size=1, max_size=30), st.integers(1, 3), st.integers(2, 3))
def test_several_processes_see_every_example_once_an_epoch(lengths, size, processes):
    rows = [{"input_ids": [i] * n, "labels": [i] * n} for i, n in enumerate(lengths)]
    dataset = evened(Dataset.from_list(rows), size * processes)
    sampler = ByLength([len(row) for row in dataset["input_ids"]], size * processes, 1)
    loaders = [
        prepare_data_loader(
            DataLoader(dataset, size, sampler=copy(sampler), collate_fn=list),
            num_processes=processes,
            process_index=place,
        )
        for place in range(processes)
    ]
    for epoch in (0, 1):
        steps = [[*chain(*batches)] for batches in zip(*loaders, strict=True)]
        assert {len(step) for step in steps} == {size * processes}  # none waits in vain
        learnt = [[row for row in step if row["labels"][0] != -100] for step in steps]
        assert all(learnt)
        assert sorted(row["labels"][0] for row in chain(*learnt)) == list(range(len(lengths)))
        sampler.set_epoch(epoch)
        assert [row["input_ids"] for row in chain(*steps)] == dataset[list(sampler)]["input_ids"]


def test_target_layers_are_all_or_named():
    assert layers("all-linear") == "all-linear"
    assert layers("q_proj, v_proj") == ["q_proj", "v_proj"]


EXAMPLES = [
    Example(
        dialogue_id=f"d{i}",
        task="imitation",
        messages=[
            system(f"Speak as person {i}."), user("How are you? " * (i + 1)),
            assistant(f"I am number {i}."), user("Well."), assistant("Bye, Grüße."),
        ],
    )
    for i in range(6)
]  # fmt: skip
WEIGHTS = "adapter_model.safetensors"
RECIPE = {
    "epochs": 2, "learning_rate": 1e-2, "lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.1,
    "batch_size": 2, "gradient_accumulation": 1, "max_length": 128, "checkpoint_steps": 2,
}  # fmt: skip


def tiny(tokenizer) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


def train(folder: Path, seed: int = 1, examples=EXAMPLES, **changes: object) -> pd.DataFrame:
    """Train a tiny model with random weights: 6 steps, checkpoints after 2, 4 and 6."""
    tokenizer = load_tokenizer(prepare())
    folder.mkdir(parents=True, exist_ok=True)
    weights = tiny(tokenizer)
    torch.seed()  # whatever was drawn before must not matter
    recipe = FineTuning(**(RECIPE | changes))
    if recipe.processes > 1:  # which read what is written
        for part in (weights, tokenizer):
            part.save_pretrained(folder / "base")
        weights = load_weights(folder / "base")
    return train_adapter(weights, tokenizer, examples, folder, recipe, seed=seed, base="org/tiny")


def written(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


OTHER_PROCESS = """
import os, sys
from pathlib import Path
from clca_utils import training
from test_training import train

class DiesAtStep5(training.StepBar):
    def on_step_end(self, args, state, control, **others):
        if state.global_step == 5:
            os._exit(9)

train(Path(sys.argv[1], "whole"))
training.StepBar = DiesAtStep5
train(Path(sys.argv[1], "killed"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a training that was not interrupted, and its log."""
    folder = tmp_path_factory.mktemp("trained")
    stale = folder / ".checkpoints-of-other-settings" / "checkpoint-4"
    stale.mkdir(parents=True)
    (stale / "trainer_state.json").write_text('{"global_step": 4}')
    return folder, train(folder)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return what another process wrote: a whole training, and one killed after step 4."""
    folder = tmp_path_factory.mktemp("elsewhere")
    env = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder)]
    process = subprocess.run(command, cwd=Path(__file__).parent, env=env, check=False)
    assert process.returncode == 9
    return folder


def test_the_adapter_and_the_log_are_all_that_is_left(trained):
    folder, log = trained
    names = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert set(written(folder)) == names | {"training_log.csv"}
    assert not list(folder.glob(".*"))
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert list(log) == ["step", "epoch", "loss", "learning_rate", "grad_norm"]
    assert log["learning_rate"].iloc[0] == pytest.approx(1e-2)
    assert log["learning_rate"].is_monotonic_decreasing
    assert np.isfinite(log["loss"]).all()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "training_log.csv"), log)


def test_the_adapter_names_its_base_and_no_path(trained):
    folder, _ = trained
    config = read_json(folder / "adapter/adapter_config.json")
    assert config["base_model_name_or_path"] == "org/tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    text = (folder / "adapter/adapter_config.json").read_text()
    assert "/" not in text.replace("org/tiny", "")


def test_the_adapter_loads_and_has_learnt(trained, tokenizer):
    folder, log = trained
    plain = tiny(tokenizer)
    row = tokenize(tokenizer, EXAMPLES[0].messages, 128)
    before = masked_loss(plain, [row])
    adapted = PeftModel.from_pretrained(plain, str(folder / "adapter")).eval()
    assert masked_loss(adapted, [row]) < before - 0.05
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]


def test_another_process_writes_the_same_bytes(trained, elsewhere):
    folder, _ = trained
    assert written(elsewhere / "whole") == written(folder)


def test_a_killed_training_goes_on_and_ends_the_same(trained, elsewhere, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(elsewhere / "killed", folder)
    assert "training_log.csv" not in written(folder)
    (checkpoints,) = folder.glob(".checkpoints-*")
    assert last_whole_checkpoint(checkpoints) == checkpoints / "checkpoint-4"
    # as if the disk had spoilt the next checkpoint, with which training would go on all the same
    shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-6")
    path = checkpoints / "checkpoint-6" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    steps = []

    class Counts(StepBar):
        def on_step_end(self, args, state, control, **others):
            steps.append(state.global_step)

    monkeypatch.setattr(training, "StepBar", Counts)
    log = train(folder)
    whole, whole_log = trained
    assert steps == [5, 6]
    pd.testing.assert_frame_equal(log, whole_log)
    assert written(folder) == written(whole)


def test_a_kill_before_the_log_is_written_costs_no_step(trained, tmp_path, monkeypatch):
    def die(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert not (tmp_path / "training_log.csv").exists()
    train(tmp_path)
    assert written(tmp_path) == written(trained[0])


def test_activations_that_are_kept_lead_to_the_same_weights(trained, tmp_path):
    folder, log = trained
    kept = train(tmp_path, recompute=False)
    assert kept["loss"].tolist() == pytest.approx(log["loss"].tolist(), abs=1e-5)
    pair = (load_file(one / "adapter/adapter_model.safetensors") for one in (folder, tmp_path))
    for one, other in zip(*(weights.values() for weights in pair), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_other_settings_start_anew(trained, elsewhere, tmp_path):
    shutil.copytree(elsewhere / "killed", tmp_path / "run")
    log = train(tmp_path / "run", seed=2, epochs=1)
    assert log["step"].tolist() == [1, 2, 3]
    assert log["loss"].tolist() != trained[1]["loss"].tolist()[:3]


def masked_loss(model, rows: list[dict[str, list[int]]]) -> float:
    """Return the mean loss of the tokens whose mask is 1, by the textbook."""
    losses = []
    with torch.inference_mode():
        for row in rows:
            tokens = torch.tensor([row["input_ids"]])
            logprobs = model(tokens).logits[0, :-1].double().log_softmax(-1)
            each = -logprobs.gather(1, tokens[0, 1:, None])[:, 0]
            losses += each[torch.tensor(row["assistant_masks"][1:]) == 1].tolist()
    return float(np.mean(losses))


@pytest.mark.parametrize(
    "batching",
    [
        {"batching": "by_length", "batch_size": 3, "gradient_accumulation": 2},
        {"batching": "random", "batch_size": 3, "gradient_accumulation": 2},
        {"batching": "packed", "batch_size": 6, "max_length": 100},
    ],
    ids=lambda batching: batching["batching"],
)
def test_the_loss_is_the_mean_over_the_assistants_tokens(tokenizer, tmp_path, batching):
    # a fresh adapter changes nothing, so the first step's loss is the base model's; with packing,
    # only if no example sees the one before it in its row
    rows = [tokenize(tokenizer, example.messages, 128) for example in EXAMPLES]
    log = train(tmp_path, epochs=1, **batching)
    expected = masked_loss(tiny(tokenizer), rows)
    assert log["loss"].tolist() == pytest.approx([expected], abs=2e-4)
    everything = [{**row, "assistant_masks": [1] * len(row["input_ids"])} for row in rows]
    assert abs(masked_loss(tiny(tokenizer), everything) - expected) > 1e-2


def test_the_batches_of_the_trainer_carry_no_label_elsewhere(tokenizer, tmp_path, monkeypatch):
    batches = []

    def look(trainer, **_):
        batches.extend(trainer.get_train_dataloader())
        raise InterruptedError

    monkeypatch.setattr(trl.SFTTrainer, "train", look)
    with pytest.raises(InterruptedError):
        train(tmp_path)
    seen = []
    for batch in batches:
        padded = batch["attention_mask"] == 0
        assert (batch["labels"][padded] == -100).all()
        for tokens, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            counts = labels != -100
            assert torch.equal(labels[counts], tokens[counts])
            seen.append(tokenizer.decode(tokens[counts]))
    said = [f"I am number {i}.<|im_end|>Bye, Grüße.<|im_end|>" for i in range(6)]
    assert sorted(seen) == said
    # what pads is also what ends a reply, and that is learnt: else none would ever end
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    assert any((batch["attention_mask"] == 0).any() for batch in batches)


def test_logits_are_made_for_what_is_learnt_alone(tokenizer, tmp_path, monkeypatch):
    scored, apply = [], utils._ChunkedLogProbFunction.apply

    def count(hidden, *others):
        scored.append(len(hidden))
        return apply(hidden, *others)

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", count)
    train(tmp_path, epochs=1)
    rows = [tokenize(tokenizer, example.messages, 128) for example in EXAMPLES]
    assert sum(scored) == sum(sum(row["assistant_masks"]) for row in rows)
    assert not utils._use_triton(torch.device("cpu"))


def test_examples_cut_off_before_anyone_speaks_are_told(tmp_path):
    with pytest.raises(StudyError, match="max_length"):
        train(tmp_path, max_length=16)


def test_nothing_to_learn_from_is_told(tmp_path):
    with pytest.raises(StudyError, match="There is no example to learn from: check learn_from"):
        train(tmp_path, examples=[])


def test_one_conversation_will_do(tmp_path):
    assert train(tmp_path, examples=EXAMPLES[:1])["step"].tolist() == [1, 2]


def test_a_conversation_is_learnt_as_far_as_max_length(tokenizer, tmp_path):
    rows = [tokenize(tokenizer, example.messages, 40) for example in EXAMPLES]
    assert max(len(row["input_ids"]) for row in rows) == 40
    kept = [row for row in rows if any(row["assistant_masks"])]
    assert 0 < len(kept) < len(rows)
    log = train(tmp_path, epochs=1, max_length=40, batch_size=6)
    assert log["loss"].tolist() == pytest.approx([masked_loss(tiny(tokenizer), kept)], abs=2e-4)


FULL = {
    "tokenizers": Exception("No space left on device (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    "safetensors": SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    ),
}
"""How a full disk was told when one of 300 kB was tried."""


def fails_from(step: int, error: Exception, writer):
    """Return a writer that fails half-way at its `step`th call, as on a full disk."""
    calls = []

    def write(self, folder, *args, **others):
        calls.append(folder)
        if len(calls) < step:
            return writer(self, folder, *args, **others)
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "adapter_model.safetensors").write_bytes(b"half")
        raise error

    return write


@pytest.mark.parametrize(
    "case",
    [
        (2, FULL["tokenizers"], ["checkpoint-2"]),
        (2, FULL["torch"], ["checkpoint-2"]),
        (4, FULL["safetensors"], ["checkpoint-4", "checkpoint-6"]),
    ],
    ids=FULL,
)
def test_a_full_disk_is_told_and_costs_no_step(trained, tmp_path, monkeypatch, case):
    saved, error, kept = case
    broken = fails_from(saved, error, PeftModel.save_pretrained)  # 3 checkpoints, then the adapter
    with monkeypatch.context() as patched:
        patched.setattr(PeftModel, "save_pretrained", broken)
        with pytest.raises(StudyError) as told:
            train(tmp_path)
    assert str(told.value) == (
        f"The disk of {tmp_path} is full: free some space there and run this again; training goes "
        "on at its last whole checkpoint."
    )
    assert not list(tmp_path.glob("*adapter*")) + list(tmp_path.glob(".adapter*"))
    (checkpoints,) = tmp_path.iterdir()
    assert sorted(path.name for path in checkpoints.glob("checkpoint-*")) == kept
    train(tmp_path)
    assert written(tmp_path) == written(trained[0])


def test_another_error_stays_what_it_is(tmp_path, monkeypatch):
    error = RuntimeError("no idea")
    broken = fails_from(1, error, None)
    monkeypatch.setattr(PeftModel, "save_pretrained", broken)
    with pytest.raises(RuntimeError, match="no idea"):
        train(tmp_path)


def test_a_checkpoint_that_was_not_closed_or_has_changed_is_ignored(tmp_path):
    assert last_whole_checkpoint(tmp_path / "none") is None
    for step in range(9, 14):
        part = tmp_path / f"checkpoint-{step}" / "parts" / "optimizer.pt"
        part.parent.mkdir(parents=True)
        part.write_bytes(bytes(100))
        if step < 13:  # the kill came before the seal
            seal(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-11/parts/optimizer.pt").write_bytes(bytes(99) + b"\1")
    (tmp_path / "checkpoint-12/parts/optimizer.pt").unlink()
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / SEAL).write_bytes(b"\xff")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    shutil.rmtree(tmp_path / "checkpoint-9")
    assert last_whole_checkpoint(tmp_path) is None


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_embeddings_saved_whole_stay_tied_and_are_learnt(tmp_path):
    tokenizer = load_tokenizer(prepare())
    weights = tiny(tokenizer)
    weights.config.tie_word_embeddings = True
    weights.tie_weights()
    before = weights.lm_head.weight.detach().clone()
    whole = {"modules_to_save": ["embed_tokens", "lm_head"]}
    recipe = FineTuning(**(RECIPE | whole))
    train_adapter(weights, tokenizer, EXAMPLES, tmp_path, recipe, seed=1, base="org/tiny")
    base = tiny(tokenizer)
    base.config.tie_word_embeddings = True
    base.tie_weights()
    merged = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    head, embedding = merged.lm_head.weight, merged.get_input_embeddings().weight
    assert torch.equal(head, embedding)
    learnt = sum(one.numel() for one in weights.parameters() if one.requires_grad)
    assert adapter_size(tmp_path / "adapter") == learnt
    assert (head - before).abs().max() > 1e-3


def test_what_is_trained_whole_is_trained_in_fp32(tmp_path, monkeypatch):
    tokenizer = load_tokenizer(prepare())
    weights = tiny(tokenizer).to(torch.bfloat16)
    kinds = set()
    monkeypatch.setattr(
        training.StepBar,
        "on_step_end",
        lambda self, args, state, control, model, **_: kinds.update(
            {p.dtype for p in model.parameters() if p.requires_grad}
        ),
    )
    whole = {"modules_to_save": ["embed_tokens", "lm_head"]}
    recipe = FineTuning(**(RECIPE | whole))
    train_adapter(weights, tokenizer, EXAMPLES, tmp_path, recipe, seed=1, base="org/tiny")
    assert kinds == {torch.float32}


def test_two_processes_learn_what_one_does_from_twice_the_batch(tmp_path, capfd):
    # five examples: the last of three rounds is filled up
    same = {"examples": EXAMPLES[:5], "epochs": 4, "lora_dropout": 0, "gradient_accumulation": 3}
    one = train(tmp_path / "one", batch_size=2, **same)
    two = train(tmp_path / "two", batch_size=1, processes=2, **same)
    assert two["step"].tolist() == [1, 2, 3, 4]
    # sums in another order, in fp32: 1e-6 was found
    np.testing.assert_allclose(two, one, rtol=1e-4)
    first, second = (load_file(tmp_path / n / "adapter" / WEIGHTS) for n in ("one", "two"))
    assert max((first[name] - second[name]).abs().max() for name in first) < 1e-4
    assert max(weight.abs().max() for weight in first.values()) > 0.1
    assert not list(tmp_path.glob("two/.*"))
    assert capfd.readouterr().err.count("| 4/4 ") >= 1
