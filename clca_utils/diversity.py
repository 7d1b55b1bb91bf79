"""How varied conversations are, and how long, beside the paper's."""

import re
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd

from clca_utils.dialogue import Action, Dialogue
from clca_utils.files import DATA
from clca_utils.intent import Intent
from clca_utils.judging import Judgement
from clca_utils.similarity import embed
from clca_utils.tables import turn_table

PAPER = DATA / "paper_dialogues.csv"
"""Figures of arXiv 2504.02953, read from a copy of its text."""


def distinct(texts: Sequence[str], n: int) -> float:
    """Return distinct-n: the share of runs of n words that differ (Li et al. 2016, N16-1014).

    Runs stay within a text; case does not count. It falls as texts get more, so only collections of
    about the same number of words can be compared.

    Returns:
        0 to 1; NaN if no text has n words.
    """
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    runs = [tuple(some[i : i + n]) for some in words for i in range(len(some) - n + 1)]
    return len(set(runs)) / len(runs) if runs else float("nan")


def self_similarity(texts: Sequence[str]) -> float:
    """Return the mean cosine between the embeddings of two different texts of a collection.

    Returns:
        -1 to 1, high where all are about the same; NaN for fewer than two texts.
    """
    if len(texts) < 2:
        return float("nan")
    total, count = embed(texts).sum(axis=0), len(texts)
    return float((total @ total - count) / (count * (count - 1)))  # without each with itself


def dialogue_statistics(
    dialogues: Sequence[Dialogue],
    intents: Sequence[Intent] | None = None,
    judgements: Sequence[Judgement] | None = None,
) -> dict[str, float]:
    """Measure a collection of conversations.

    Args:
        dialogues: At least one conversation.
        intents: Of their turns, if they are known.
        judgements: Of all that were simulated, if they were judged.

    Returns:
        `conversations` (how many); `turns` per conversation; `words_per_turn`, silent turns
        included; `distinct_1`, `distinct_2` and `self_similarity` of the words, names of speakers
        left out; `share_<action>` of the turns; `cultural`, the share of intents, and `kept`, the
        share of judged conversations, where they are given.
    """
    table = turn_table(dialogues)
    texts = list(table["text"])
    actions = table["action"].value_counts(normalize=True)
    measured = {
        "conversations": float(len(dialogues)),
        "turns": len(table) / len(dialogues),
        "words_per_turn": float(table["words"].mean()),
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "self_similarity": self_similarity(
            [" ".join(turn.text for turn in one.turns if turn.text) for one in dialogues]
        ),
    }
    measured |= {f"share_{one}": float(actions.get(one, 0.0)) for one in get_args(Action)}
    if intents is not None:
        measured["cultural"] = float(np.mean([one.cultural for one in intents]))
    if judgements is not None:
        measured["kept"] = float(np.mean([one.kept for one in judgements]))
    return measured


def beside_paper(statistics: dict[str, float]) -> pd.DataFrame:
    """Return our statistics beside the paper's, where it gives them.

    Returns:
        Index measure; columns ours, paper_low and paper_high (the ends over its five cultures,
        alike where it gives one number), told_as (what its number is) and source.
    """
    paper = pd.read_csv(PAPER, index_col="measure").rename(
        columns={"low": "paper_low", "high": "paper_high"}
    )
    ours = pd.Series(statistics, name="ours", dtype=float)
    return paper.join(ours, how="inner")[["ours", "paper_low", "paper_high", "told_as", "source"]]
