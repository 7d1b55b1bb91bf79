"""Stage 04b, second half: what an adapter changed beside the survey.

A model that learnt a culture is less surprised than before by its held-out conversations, and more
so than by other cultures'. What it forgot shows in its surprise at plain texts, and in its answers
to easy questions.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from clca_utils.files import StudyError, shown
from clca_utils.uncertainty import Interval

COLUMNS = ["task", "culture", "id", "tokens", "nats", "right"]
"""Of what `exam.examined` returns: task ("imitation", "intent", "text", "question"); culture of a
conversation; id; tokens that count; the surprise at them together, in nats; whether an answer was
right."""


def read_examined(folder: Path) -> pd.DataFrame:
    """Read `held_out.csv` of a run: learnt (whose culture), variant ("before", "after"), `COLUMNS`.

    Raises:
        StudyError: It is missing.
    """
    path = folder / "held_out.csv"
    if not path.is_file():
        raise StudyError(f"{shown(path)} is missing: run 04b_held_out first.")
    return pd.read_csv(
        path, keep_default_na=False, na_values={"nats": [""], "right": [""]},
        dtype={"right": "boolean"}, float_precision="round_trip",
    )  # fmt: skip


def perplexities(found: pd.DataFrame) -> pd.DataFrame:
    """Return the perplexity by task, culture and variant: exp of the mean surprise at a token.

    Args:
        found: What `read_examined` returns.

    Returns:
        Index task, culture; columns before, after.
    """
    sums = (
        found[found["tokens"] > 0].groupby(["task", "culture", "variant"])[["nats", "tokens"]].sum()
    )
    table = (sums["nats"] / sums["tokens"]).map(math.exp).unstack()
    return table.reindex(columns=["before", "after"])


def changes(found: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """Return by how many nats a token the surprise changed.

    Args:
        found: What `read_examined` returns, or of several runs, one below the other.
        also: Then, the columns that tell them apart.

    Returns:
        Columns `also`, learnt, task, culture, id, change.
    """
    counted = found[found["tokens"] > 0]
    mean = counted.assign(mean=counted["nats"] / counted["tokens"])
    keys = [*also, "learnt", "task", "culture", "id"]
    table = mean.pivot(index=keys, columns="variant", values="mean")
    return (table["after"] - table["before"]).rename("change").reset_index()


def own_advantage(found: pd.DataFrame, seed: int) -> Interval:
    """Return how much more a model came to expect its own culture's conversations than others'.

    The mean change of surprise (nats a token) at held-out turns of the culture, minus that of the
    other cultures; negative: it learnt this culture more than others.

    Args:
        found: What `read_examined` returns.
        seed: Of the bootstrap.

    Returns:
        With a 95 % bootstrap interval over conversations; all NaN where a side has none, and no
        interval where one has a single one.
    """
    turns = changes(found).query("task == 'imitation'")
    talks = turns.assign(talk=turns["id"].str.partition("/")[0])
    means = talks.groupby(["learnt", "culture", "talk"])["change"].mean().reset_index()
    own = means["culture"] == means["learnt"]
    sides = means.loc[own, "change"].to_numpy(), means.loc[~own, "change"].to_numpy()
    if not min(map(len, sides)):
        return Interval(math.nan, math.nan, math.nan)
    gap = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) == 1:
        return Interval(gap, math.nan, math.nan)
    ends = stats.bootstrap(
        sides,
        lambda mine, theirs, axis=-1: mine.mean(axis=axis) - theirs.mean(axis=axis),
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(gap, float(ends.low), float(ends.high))


def exam_metrics(found: pd.DataFrame, seed: int) -> dict[str, float]:
    """Return the named metrics of an exam.

    `perplexity_<task>_<whose>_<variant>`, where whose is own or others, of conversations;
    `perplexity_text_<variant>`; `questions_right_<variant>`, a share; `own_advantage` with its
    `_low` and `_high`.

    Args:
        found: What `read_examined` returns.
        seed: Of the bootstrap.
    """
    whose = np.where(found["culture"] == found["learnt"], "own", "others")
    table = perplexities(found.assign(culture=np.where(found["culture"] == "", "", whose)))
    metrics = {
        "_".join(filter(None, ("perplexity", *row[:2], variant))): float(row[-1])
        for variant in ("before", "after")
        for row in table[variant].reset_index().itertuples(index=False, name=None)
    }
    asked = found[found["task"] == "question"]
    for variant, right in asked.groupby("variant")["right"]:
        metrics[f"questions_right_{variant}"] = float(right.mean())
    gap = own_advantage(found, seed)
    named = {
        "own_advantage": gap.mean,
        "own_advantage_low": gap.low,
        "own_advantage_high": gap.high,
    }
    return metrics | named
