"""Stage 04, second half: a LoRA adapter learns from the examples, with TRL's trainer."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from peft import LoraConfig, prepare_model_for_kbit_training
from safetensors import safe_open
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer
from trl.trainer import utils

from clca_utils.examples import Example, tokenize
from clca_utils.files import (
    StudyError,
    digest,
    fingerprint,
    read_json,
    shown,
    write_json,
    write_text,
)
from clca_utils.launching import failure_told, launch
from clca_utils.params import FineTuning
from clca_utils.transformers_model import load_tokenizer, load_weights, unwarned

SEAL = ".sha256"
"""The file in a checkpoint that holds the hash of all others: it is written last."""


def seal(checkpoint: Path) -> None:
    """Close a checkpoint that is written to its end."""
    write_text(checkpoint / SEAL, digest(checkpoint))


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint that is as it was when it was closed, else 0."""
    try:
        whole = (checkpoint / SEAL).read_text(encoding="utf-8") == digest(checkpoint)
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return 0
    return int(checkpoint.name.rpartition("-")[2]) if whole else 0


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end and not changed since, or None."""
    return max(filter(step_of, folder.glob("checkpoint-*")), key=step_of, default=None)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Say what to do if the disk is full, and leave nothing on it that was half written.

    torch, safetensors and tokenizers have errors of their own for it, known by what they say alone.
    """
    try:
        yield
    except Exception as error:
        signs = ("No space left", "quota exceeded", "inline_container")
        if not any(sign in str(error) for sign in signs):
            raise
        for checkpoint in folder.glob(".checkpoints-*/checkpoint-*"):
            if not step_of(checkpoint):
                shutil.rmtree(checkpoint, ignore_errors=True)
        raise StudyError(
            f"The disk of {shown(folder)} is full: free some space there and run this again; "
            "training goes on at its last whole checkpoint."
        ) from None


def layers(target_modules: str) -> str | list[str]:
    """Read the parameter `target_modules`: "all-linear" stands for itself, else names by commas."""
    if target_modules == "all-linear":
        return target_modules
    return [name.strip() for name in target_modules.split(",")]


class StepBar(TrainerCallback):  # type: ignore[misc]
    """Shows the optimiser's steps as a bar that reads well in a notebook and in a log."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Draw the bar, at the step where a resumed training goes on."""
        self.bar = tqdm(
            desc="training steps",
            total=state.max_steps,
            initial=state.global_step,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Move it on."""
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Close it."""
        self.bar.close()


class Sealing(TrainerCallback):  # type: ignore[misc]
    """Closes each checkpoint, once all processes have written their parts of it."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Close the checkpoint of this step."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def save_adapter(
    model: PreTrainedModel, folder: Path, base: str, state: dict[str, torch.Tensor] | None = None
) -> None:
    """Write an adapter whole or not at all, naming its base as others know it, not as a local path.

    peft keeps the layers' names in a set, hence in another order each time: they are sorted, so
    that the same training writes the same files. Its model card, an empty form, is left out.

    Args:
        model: With the adapter's layers.
        folder: Where to write it.
        base: What its configuration names as its base model.
        state: The model's weights, where several processes hold them in parts.
    """
    partial = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(str(partial), state_dict=state)
        (partial / "README.md").unlink(missing_ok=True)
        config = read_json(partial / "adapter_config.json")
        config["base_model_name_or_path"] = base
        config["target_modules"] = sorted(config["target_modules"])
        write_json(partial / "adapter_config.json", config)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def adapter_size(folder: Path) -> int:
    """Return how many numbers were learnt for an adapter; tied ones, written twice, count once."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        weights = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (no mapping)
    return sum({sha256(one.numpy().tobytes()).digest(): one.numel() for one in weights}.values())


class ByLength(Sampler[int]):
    """Draws examples so that those of a batch are about as long, in other batches every epoch.

    The trainer's own such sampler draws from the global generator, so that a training that was
    killed would go on with other batches; and it takes long ones before short ones.

    Args:
        lengths: Of the examples, in tokens.
        batch_size: Examples per forward pass, of all processes together: they wait for each other.
        seed: With the number of the epoch, decides the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draws = np.random.default_rng([self.seed, self.epoch])
        about = np.array(self.lengths) * draws.uniform(0.9, 1.1, len(self))
        order = np.argsort(about).tolist()
        short = len(self) % self.batch_size  # an unfilled batch comes last, as the loader cuts it
        batches = [order[i : i + self.batch_size] for i in range(short, len(self), self.batch_size)]
        draws.shuffle(batches)
        yield from chain(*batches, order[:short])


class GroupingTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, with batches of examples of about the same length."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> ByLength:
        lengths = [len(row) for row in self.train_dataset["input_ids"]]
        return ByLength(lengths, self.args.train_batch_size * self.args.world_size, self.args.seed)


def evened(dataset: Dataset, size: int) -> Dataset:
    """Return a dataset whose length is a multiple of `size`, filled up with what teaches nothing.

    Else, for each of several processes to have as many batches as the others, accelerate would show
    some examples twice in an epoch.
    """
    short = -len(dataset) % size
    row = min(dataset, key=lambda row: len(row["input_ids"]))
    blank = {**row, "labels": [-100] * len(row["labels"])}
    fill = [Dataset.from_list([blank] * short, features=dataset.features)] if short else []
    return concatenate_datasets([dataset, *fill])


@contextmanager
def learnt_tokens_alone() -> Iterator[None]:
    """Have logits made for the tokens that are learnt and no others, on a CPU too.

    TRL does so on GPUs alone, as there are devices that compile anew for every shape. Without it,
    training takes a quarter more time on a CPU and a gigabyte more memory, for the same losses.
    """
    on_gpus = utils._use_triton  # in `trl.trainer.utils`, it decides this and nothing else
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = on_gpus


def lora_of(recipe: FineTuning, weights: PreTrainedModel) -> dict[str, Any]:
    """Return what peft is told of a recipe's adapter; tied embeddings stay tied if saved whole."""
    whole = recipe.modules_to_save
    return {
        "r": recipe.lora_rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": layers(recipe.target_modules),
        "modules_to_save": whole or None,
        "ensure_weight_tying": bool(whole and weights.config.tie_word_embeddings),
    }


def schedule_of(recipe: FineTuning, seed: int) -> dict[str, Any]:
    """Return what the trainer is told of a recipe's steps, as far as it shapes the result."""
    return {
        "seed": seed,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "max_length": recipe.max_length,
        "packing": recipe.batching == "packed",
        "save_steps": recipe.checkpoint_steps,
    }


def learnable(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int
) -> list[dict[str, list[int]]]:
    """Return the tokenised examples in which the assistant says something before they are cut off.

    Raises:
        StudyError: No such example is left.
    """
    if not examples:
        raise StudyError("There is no example to learn from: check learn_from and tasks.")
    cut = [tokenize(tokenizer, example.messages, max_length) for example in examples]
    rows = [row for row in cut if any(row["assistant_masks"])]
    if not rows:
        raise StudyError(
            f"max_length {max_length} cuts every one of {len(cut)} examples off before the "
            "assistant speaks: raise max_length."
        )
    return rows


def train_adapter(
    weights: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    folder: Path,
    recipe: FineTuning,
    *,
    seed: int,
    base: str,
) -> pd.DataFrame:
    """Train a LoRA adapter (Hu et al. 2021, arXiv 2106.09685) and write `adapter/` into `folder`.

    Killed and started again with the same arguments, training goes on at its last checkpoint and
    ends at the same weights.

    Args:
        weights: The causal language model; it gets the adapter's layers. Several processes load it
            from where it came from, and this one is emptied to make room.
        tokenizer: Its tokenizer.
        examples: What to learn from.
        folder: The run's folder.
        recipe: Shape of the adapter and optimisation; the learning rate falls linearly to 0.
        seed: Of the initial adapter, the order of the examples and the dropout.
        base: What the adapter's configuration names as its base model.

    Returns:
        The training log: step, epoch, loss, learning_rate, grad_norm.

    Raises:
        StudyError: No token to learn is left of any example, the disk is full, or one of several
            processes failed.
    """
    if recipe.processes == 1 and not recipe.launch:
        return fit(weights, tokenizer, examples, folder, recipe, seed=seed, base=base)
    job = {
        "source": weights.name_or_path,
        "examples": [asdict(example) for example in examples],
        "folder": str(folder.absolute()),
        "recipe": recipe.model_dump(),
        "seed": seed,
        "base": base,
    }
    for parameter in weights.parameters():
        parameter.data = parameter.data.new_empty(0)
    torch.cuda.empty_cache()
    launch("clca_utils.training", job, recipe.processes, recipe.launch)
    return pd.read_csv(folder / "training_log.csv")


def join(path: Path) -> None:
    """Do the part of one of several processes in the training that a job tells."""
    with failure_told(path):
        job = read_json(path)
        here = PartialState(cpu=not torch.cuda.is_available())  # first, as FSDP needs it to load
        recipe = FineTuning(**job["recipe"])
        fit(
            load_weights(job["source"], recipe.precision),
            load_tokenizer(job["source"]),
            [Example(**example) for example in job["examples"]],
            Path(job["folder"]),
            recipe,
            seed=job["seed"],
            base=job["base"],
        )
        here.destroy_process_group()


def fit(
    weights: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    folder: Path,
    recipe: FineTuning,
    *,
    seed: int,
    base: str,
) -> pd.DataFrame:
    """Train as `train_adapter` says, in this process or as one of several; the first one writes."""
    rows = learnable(tokenizer, examples, recipe.max_length)
    here = PartialState(cpu=not torch.cuda.is_available())
    quantized = getattr(weights, "is_loaded_in_4bit", False)
    schedule, lora = schedule_of(recipe, seed), lora_of(recipe, weights)
    shared = [here.num_processes, recipe.launch, quantized, weights.dtype]
    key = fingerprint(base, recipe.batching, schedule, lora, rows, *shared)
    checkpoints = folder / f".checkpoints-{key}"
    for stale in folder.glob(".checkpoints-*"):
        if stale != checkpoints and here.is_main_process:
            shutil.rmtree(stale)
    if quantized:
        weights = prepare_model_for_kbit_training(weights, use_gradient_checkpointing=False)
    torch.manual_seed(seed)
    disable_progress_bars()
    with unwarned(), full_disk_told(folder):
        trainer = (GroupingTrainer if recipe.batching == "by_length" else SFTTrainer)(
            model=weights,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
            args=SFTConfig(
                **schedule,
                output_dir=str(checkpoints),
                use_cpu=not torch.cuda.is_available(),
                bf16=quantized or weights.dtype == torch.bfloat16,
                lr_scheduler_type="linear",
                activation_checkpointing=recipe.recompute,
                logging_steps=1,
                save_strategy="steps",
                save_total_limit=2,
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=torch.cuda.is_available(),
                ddp_find_unused_parameters=False,
            ),
            callbacks=[StepBar(), Sealing()],
        )
        trainer.remove_callback(PrinterCallback)
        if here.num_processes > 1:
            size = recipe.batch_size * here.num_processes
            trainer.train_dataset = evened(trainer.train_dataset, size)
        # bf16 steps are too coarse to learn in; peft lifts LoRA's layers to fp32, not the others
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        with learnt_tokens_alone():
            trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
        log = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
        log = log[["step", "epoch", "loss", "learning_rate", "grad_norm"]]
        state = None
        if here.num_processes > 1:  # all take part in putting the weights together
            state = trainer.accelerator.get_state_dict(trainer.model)
        if here.is_main_process:
            save_adapter(trainer.model, folder / "adapter", base, state)
            write_text(folder / "training_log.csv", log.to_csv(index=False))
            shutil.rmtree(checkpoints, ignore_errors=True)
    return log


if __name__ == "__main__":
    join(Path(sys.argv[1]))
