"""Stage 04: a LoRA adapter learns from the conversations, and from the intents behind them.

Two tasks over the same dialogues. Imitation: each dialogue as each of its two people lived it, the
other's turns as the user's. Intent: the dialogue line by line, each answered by what it is after
and which expectation is behind it. Only the tokens of assistant messages count in the loss.
"""

import html
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
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

from clca_utils.chat_model import Message, assistant, system, user
from clca_utils.dialogue import Dialogue, as_chat, told
from clca_utils.files import StudyError, fingerprint, read_json, write_json, write_text
from clca_utils.intent import Intent
from clca_utils.scenario import Scenario
from clca_utils.transformers_model import apply_template, unwarned


@dataclass(frozen=True)
class Example:
    """One training conversation."""

    dialogue_id: str
    task: str
    messages: list[Message]


def imitation_examples(scenario: Scenario, dialogue: Dialogue) -> list[Example]:
    """Return a dialogue from the view of each person who says or does something in it."""
    examples = []
    for speaker in (0, 1):
        seen = as_chat(scenario, dialogue.turns, speaker)
        while seen[-1]["role"] != "assistant" and len(seen) > 1:
            seen.pop()
        if len(seen) > 1:
            examples.append(Example(dialogue_id=dialogue.id, task="imitation", messages=seen))
    return examples


def intent_example(
    scenario: Scenario, dialogue: Dialogue, intents: Sequence[Intent]
) -> list[Example]:
    """Return a dialogue line by line, each line answered by its intent.

    A line whose intent could not be read stands before the next one, unanswered; a dialogue without
    any readable intent is no example.
    """
    messages = [
        system(
            f"You explain what people in {scenario.country} want in a conversation and which "
            f"shared expectation they follow.\nScene: {scenario.setting}"
        )
    ]
    lines: list[str] = []
    for turn, intent in zip(dialogue.turns, intents, strict=True):
        lines.append(told(turn))
        if answer := f"{intent.intent} {intent.expectation}".strip():
            messages += [user("\n".join(lines)), assistant(answer)]
            lines = []
    if len(messages) == 1:
        return []
    return [Example(dialogue_id=dialogue.id, task="intent", messages=messages)]


def build_examples(
    scenarios: Sequence[Scenario],
    dialogues: Sequence[Dialogue],
    intents: Sequence[Intent],
    tasks: Sequence[str],
) -> list[Example]:
    """Return the training conversations of the kept dialogues.

    Args:
        scenarios: All scenarios that the dialogues act.
        dialogues: The dialogues that passed the filter.
        intents: Of all their turns.
        tasks: "imitation", "intent" or both.

    Raises:
        StudyError: Nothing is left to learn from.
    """
    of = {scenario.id: scenario for scenario in scenarios}
    by_dialogue: dict[str, list[Intent]] = {}
    for intent in intents:
        by_dialogue.setdefault(intent.dialogue_id, []).append(intent)
    examples: list[Example] = []
    for dialogue in dialogues:
        scenario = of[dialogue.scenario_id]
        if "imitation" in tasks:
            examples += imitation_examples(scenario, dialogue)
        if "intent" in tasks and dialogue.id in by_dialogue:
            examples += intent_example(scenario, dialogue, by_dialogue[dialogue.id])
    if not examples:
        raise StudyError(
            f"No training example is left of {len(dialogues)} kept dialogues for the tasks "
            f"{', '.join(tasks)}: raise n_scenarios or reject_confidence and rerun stage 02."
        )
    return examples


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[str, list[range]]:
    """Return a rendered conversation, and where in it the assistant's words stand.

    A span starts after what announces the reply and ends with the token that closes it, found by
    rendering the conversation up to that point: so it holds for every chat template, with no
    marked copy of the template to keep in step.

    Raises:
        StudyError: The template rewrites earlier messages, so that spans cannot be found.
    """
    whole = apply_template(tokenizer, messages, reply_next=False)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = apply_template(tokenizer, messages[:i], reply_next=True)
        through = apply_template(tokenizer, messages[: i + 1], reply_next=False).rstrip()
        if not (whole.startswith(before) and whole.startswith(through)):
            raise StudyError(
                "This model's chat template rewrites earlier messages, so the assistant's tokens "
                "cannot be told apart; set a template without thinking or tool rewriting."
            )
        spans.append(range(len(before), len(through)))
    return whole, spans


def tokenize(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int
) -> dict[str, list[int]]:
    """Return token ids and a mask that is 1 on the assistant's tokens, as TRL reads them.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        messages: One training conversation.
        max_length: Longest example in tokens; the rest is cut off.
    """
    text, spans = assistant_spans(tokenizer, messages)
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        truncation=True,
        max_length=max_length,
    )
    mask = [
        int(any(start in span and end > start for span in spans))
        for start, end in encoded["offset_mapping"]
    ]
    return {"input_ids": list(encoded["input_ids"]), "assistant_masks": mask}


def mask_html(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Sequence[int]]) -> str:
    """Return a tokenised example as HTML, the tokens that count in the loss in colour.

    Args:
        tokenizer: What wrote the tokens.
        row: What `tokenize` returns.
    """
    parts = []
    pairs = zip(row["input_ids"], row["assistant_masks"], strict=True)
    for learnt, group in groupby(pairs, key=itemgetter(1)):
        text = html.escape(tokenizer.decode([token for token, _ in group]))
        parts.append(f'<mark style="background: #9ecae9">{text}</mark>' if learnt else text)
    return f'<div style="white-space: pre-wrap; font-size: small">{"".join(parts)}</div>'


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, or None.

    The trainer writes `trainer_state.json` last, so one that reads as JSON closes a checkpoint.
    """
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            whole.append((int(read_json(path / "trainer_state.json")["global_step"]), path))
        except StudyError:
            continue
    return max(whole)[1] if whole else None


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
        self.bar = tqdm(desc="training steps", total=state.max_steps, initial=state.global_step)

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


def save_adapter(model: PreTrainedModel, folder: Path, base: str) -> None:
    """Write an adapter whole or not at all, naming its base as others know it, not as a local path.

    peft keeps the layers' names in a set, hence in another order each time: they are sorted, so
    that the same training writes the same files. Its model card, an empty form, is left out.
    """
    partial = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial))
    (partial / "README.md").unlink(missing_ok=True)
    config = read_json(partial / "adapter_config.json")
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    write_json(partial / "adapter_config.json", config)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def train_adapter(
    weights: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    folder: Path,
    *,
    seed: int,
    epochs: float,
    learning_rate: float,
    lora_rank: int,
    lora_alpha: float,
    lora_dropout: float,
    target_modules: str,
    modules_to_save: Sequence[str],
    base: str,
    batch_size: int,
    gradient_accumulation: int,
    max_length: int,
    checkpoint_steps: int,
) -> pd.DataFrame:
    """Train a LoRA adapter (Hu et al. 2021, arXiv 2106.09685) and write `adapter/` into `folder`.

    Killed and started again with the same arguments, training goes on at its last checkpoint and
    ends at the same weights.

    Args:
        weights: The causal language model; it gets the adapter's layers.
        tokenizer: Its tokenizer.
        examples: What to learn from.
        folder: The run's folder.
        seed: Of the initial adapter, the order of the examples and the dropout.
        epochs: Passes over the examples.
        learning_rate: Rate of the first step; it falls linearly to 0.
        lora_rank: Rank of the update.
        lora_alpha: Its scale; the update is multiplied by alpha / rank.
        lora_dropout: Dropout before the adapter's layers.
        target_modules: "all-linear", or layer names separated by commas.
        modules_to_save: Layers trained whole beside the adapter.
        base: What the adapter's configuration names as its base model.
        batch_size: Examples per forward pass.
        gradient_accumulation: Forward passes per step.
        max_length: Longest example in tokens.
        checkpoint_steps: Steps between checkpoints.

    Returns:
        The training log: step, epoch, loss, learning_rate, grad_norm.

    Raises:
        StudyError: No token to learn is left of any example.
    """
    cut = [tokenize(tokenizer, example.messages, max_length) for example in examples]
    rows = [row for row in cut if any(row["assistant_masks"])]
    if not rows:
        raise StudyError(
            f"max_length {max_length} cuts every one of {len(cut)} examples off before the "
            "assistant speaks: raise max_length."
        )
    on_gpu = torch.cuda.is_available()
    settings = {
        "seed": seed,
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": gradient_accumulation,
        "max_length": max_length,
        "save_steps": checkpoint_steps,
    }
    lora = {
        "r": lora_rank,
        "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout,
        "target_modules": layers(target_modules),
        "modules_to_save": list(modules_to_save) or None,
        "ensure_weight_tying": bool(modules_to_save and weights.config.tie_word_embeddings),
    }
    key = fingerprint(base, settings, lora, rows)
    checkpoints = folder / f".checkpoints-{key}"
    for stale in folder.glob(".checkpoints-*"):
        if stale != checkpoints:
            shutil.rmtree(stale)
    torch.manual_seed(seed)
    disable_progress_bars()
    with unwarned():
        trainer = SFTTrainer(
            model=weights,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
            args=SFTConfig(
                **settings,
                output_dir=str(checkpoints),
                use_cpu=not on_gpu,
                bf16=on_gpu,
                lr_scheduler_type="linear",
                activation_checkpointing=True,
                logging_steps=1,
                save_strategy="steps",
                save_total_limit=2,
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=on_gpu,
            ),
            callbacks=[StepBar()],
        )
        trainer.remove_callback(PrinterCallback)
        # bf16 steps are too coarse to learn in; peft lifts LoRA's layers to fp32, not the others
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    save_adapter(trainer.model, folder / "adapter", base)
    log = pd.DataFrame([row for row in trainer.state.log_history if "loss" in row])
    log = log[["step", "epoch", "loss", "learning_rate", "grad_norm"]]
    write_text(folder / "training_log.csv", log.to_csv(index=False))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return log
