"""Stage 04b, first half: a model is examined on texts that nothing was learnt from.

How surprised it is by held-out conversations and by the intents written for them, by plain texts,
and whether it answers easy questions right.
"""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.culture import load_culture
from clca_utils.examples import build_examples, tokenize
from clca_utils.general import Passage, Question, answered_right
from clca_utils.held_out import COLUMNS
from clca_utils.transformers_model import TransformersModel

LENGTH = 4096
"""Tokens; longer than any of the conversations."""

Row = dict[str, list[int]]


def held_out_rows(
    tokenizer: PreTrainedTokenizerBase, cultures: Sequence[str], count: int
) -> list[tuple[str, str, str, Row]]:
    """Return tokenised held-out conversations, as both people lived them and by their intents.

    Args:
        tokenizer: Of the model.
        cultures: Of the conversations; one without authored conversations is left out.
        count: How many of each.

    Returns:
        Task, culture, id, and what `examples.tokenize` returns.
    """
    rows = []
    for culture in cultures:
        if culture not in authored_cultures():
            continue
        known = load_authored(culture, "held-out")
        some = known.dialogues[:count]
        tasks = build_examples(
            known.scenarios, some, known.intents, {"imitation": 1, "intent": 1}, 0
        )
        name = load_culture(culture).name
        rows += [
            (
                one.task,
                name,
                f"{one.dialogue_id}/{place}",
                tokenize(tokenizer, one.messages, LENGTH),
            )
            for place, one in enumerate(tasks)
        ]
    return rows


def text_rows(
    tokenizer: PreTrainedTokenizerBase, passages: Sequence[Passage]
) -> list[tuple[str, str, str, Row]]:
    """Return tokenised plain texts, in which every token but the first counts."""
    ids = [tokenizer(one.text)["input_ids"] for one in passages]
    return [
        ("text", "", one.id, {"input_ids": row, "assistant_masks": [0, *[1] * (len(row) - 1)]})
        for one, row in zip(passages, ids, strict=True)
    ]


@torch.inference_mode()
def surprises(weights: PreTrainedModel, rows: Sequence[Row], batch_size: int) -> list[float]:
    """Return the model's surprise at the tokens that count of each row, summed, in nats.

    Rows are padded on the right, where nothing that counts looks.
    """
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    found = [math.nan] * len(rows)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        tokens, counts = (
            pad_sequence([torch.tensor(rows[place][key]) for place in places], batch_first=True)
            for key in ("input_ids", "assistant_masks")
        )
        learnt = counts[:, 1:].bool()
        # the output layer at all other places would be most of the memory, and a third of the time
        kept = learnt.any(0).nonzero().ravel()
        tokens, kept = tokens.to(weights.device), kept.to(weights.device)
        logits = weights(input_ids=tokens, use_cache=False, logits_to_keep=kept).logits
        for place, row, ids, here in zip(places, logits, tokens, learnt, strict=True):
            counted = here.to(row.device)
            nats = cross_entropy(row[counted[kept]].float(), ids[1:][counted], reduction="none")
            found[place] = float(nats.double().sum())
    return found


def examined(
    model: TransformersModel,
    cultures: Sequence[str],
    conversations: int,
    passages: Sequence[Passage],
    questions: Sequence[Question],
) -> pd.DataFrame:
    """Return how surprised a model is by what it has not learnt from, and what it knows.

    Args:
        model: With or without an adapter.
        cultures: Of the conversations.
        conversations: How many of each culture.
        passages: Plain texts.
        questions: Easy questions.

    Returns:
        `COLUMNS`, one row per example, text and question.
    """
    rows = [
        *held_out_rows(model.tokenizer, cultures, conversations),
        *text_rows(model.tokenizer, passages),
    ]
    nats = surprises(model.weights, [row for *_, row in rows], model.batch_size)
    told: list[tuple[object, ...]] = [
        (task, culture, name, sum(row["assistant_masks"]), one, None)
        for (task, culture, name, row), one in zip(rows, nats, strict=True)
    ]
    right = answered_right(model, questions)
    told += [
        ("question", "", one.id, 0, math.nan, found)
        for one, found in zip(questions, right, strict=True)
    ]
    return pd.DataFrame(told, columns=COLUMNS).astype({"right": "boolean"})
