"""Stage 04, first half: what is learnt from conversations, and which of its tokens count.

Two tasks over the same dialogues. Imitation: each dialogue as each of its two people lived it, the
other's turns as the user's. Intent: the dialogue line by line, each answered by what it is after
and which expectation is behind it. Only the tokens of assistant messages count in the loss.
"""

import html
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from os.path import commonprefix

from transformers import PreTrainedTokenizerBase

from clca_utils.chat_model import Message, assistant, system, user
from clca_utils.choices import Task
from clca_utils.dialogue import Dialogue, as_chat, told
from clca_utils.files import StudyError, seed_of
from clca_utils.intent import Intent
from clca_utils.scenario import Scenario
from clca_utils.transformers_model import apply_template

MARK = "\ue000{}\ue001"
"""Stands for a reply while a template is looked through: characters that no text has."""


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
    tasks: Mapping[Task, float],
    seed: int,
) -> list[Example]:
    """Return the training conversations of the kept dialogues, task by task.

    Args:
        scenarios: All scenarios that the dialogues act.
        dialogues: The dialogues that passed the filter.
        intents: Of all their turns.
        tasks: How often each task's examples are taken; see `weighted`.
        seed: Of the draws where a task is taken in part.

    Raises:
        StudyError: Nothing is left to learn from.
    """
    of = {scenario.id: scenario for scenario in scenarios}
    by_dialogue: dict[str, list[Intent]] = {}
    for intent in intents:
        by_dialogue.setdefault(intent.dialogue_id, []).append(intent)
    made: dict[Task, list[Example]] = {"imitation": [], "intent": []}
    for dialogue in dialogues:
        scenario = of[dialogue.scenario_id]
        made["imitation"] += imitation_examples(scenario, dialogue)
        if dialogue.id in by_dialogue:
            made["intent"] += intent_example(scenario, dialogue, by_dialogue[dialogue.id])
    examples = [
        example
        for task, weight in tasks.items()
        for example in weighted(made[task], weight, seed_of(seed, "mix", task))
    ]
    if not examples:
        asked = ", ".join(task for task, weight in tasks.items() if weight)
        raise StudyError(
            f"No training example is left of {len(dialogues)} kept dialogues for the tasks "
            f"{asked}: raise n_scenarios or reject_confidence and rerun stage 02."
        )
    return examples


def weighted(examples: Sequence[Example], weight: float, seed: int) -> list[Example]:
    """Return examples as often as a weight says: 2 is each twice, 0.5 half of them, drawn by lot.

    A weight counts examples, not tokens: two thirds of all are imitation at equal weights, since
    both people's views of a dialogue stand beside one list of intents.
    """
    whole, part = divmod(weight, 1)
    drawn = random.Random(seed).sample(examples, round(part * len(examples)))
    return [*examples] * int(whole) + drawn


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[str, list[range]]:
    """Return a rendered conversation, and where in it the assistant's words stand.

    The conversation is rendered once more with a mark in place of each reply. So whatever a chat
    template writes around replies is told from them, with no marked copy of the template to keep
    in step. A span starts after what announces a reply and ends with the token that closes it.

    Raises:
        StudyError: The template leaves replies out or changes them.
    """
    replies = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
    marked = list(messages)
    for place in replies:
        marked[place] = assistant(MARK.format(place))
    text = apply_template(tokenizer, messages, reply_next=False)
    rest = apply_template(tokenizer, marked, reply_next=False)
    lead, close = around_replies(tokenizer)
    whole, spans = "", []
    for place in replies:
        before, _, rest = rest.partition(MARK.format(place))
        whole += before
        start = len(whole) - len(lead) * before.endswith(lead)
        whole += messages[place]["content"].strip()
        spans.append(range(start, len(whole) + len(close) * rest.startswith(close)))
    if whole + rest != text:
        raise StudyError(
            "This model's chat template leaves out or changes what the assistant said earlier, so "
            "its tokens cannot be told apart; set a template that keeps every message."
        )
    return text, spans


def around_replies(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what a template adds to every reply: before it, unless a prompt has it, and after."""
    asked = [user("Hello.")]
    first, last = MARK.format(1), MARK.format(3)
    probe = [*asked, assistant(first), *asked, assistant(last)]
    before, _, after = apply_template(tokenizer, probe, reply_next=False).partition(first)
    prompt = apply_template(tokenizer, asked, reply_next=True)
    lead = before.removeprefix(commonprefix([before, prompt]))  # noqa: RUF071 (of characters)
    mid, end = (
        tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for text in (after, after.partition(last)[2])
    )
    shared = len(commonprefix([mid["input_ids"], end["input_ids"]]))  # noqa: RUF071 (of tokens)
    return lead, after[: mid["offset_mapping"][shared - 1][1] if shared else 0].rstrip()


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
