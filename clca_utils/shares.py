"""From log probabilities to shares: who of a model's respondents gives which answer.

`answers` below is the frame of answers.parquet, one row per option of a question put to a model:
variant ("before", "after", ...), respondent, qid, order (of the options; 0 is the questionnaire's
own), option (code 1..k), position (1..k, where the option was displayed), logprob (natural log of
the probability of the option's label, not normalised over the options; in a generated answer -inf
for the options not chosen, for all of them where it can't be read) and blank (the same for the
label at that position after an item without content; 0 in generated answers). Callers keep the
rows of one condition. It may have millions of rows, so everything works on whole columns.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from clca_utils.files import StudyError

Floats = npt.NDArray[np.float64]

Reading = Literal["fixed order", "rotated", "calibrated"]
"""How answers are read: "fixed order" takes the questionnaire's own order alone, as single-prompt
evaluations do; "rotated" is the mean over the orders, so that a liking for a position cancels;
"calibrated" first divides each label's probability by what it has after an item without content,
so that a liking for a label cancels too (contextual calibration, Zhao et al. 2021,
arXiv 2102.09690, with the blank's distribution as the diagonal of its W)."""

READINGS: tuple[Reading, ...] = get_args(Reading)

ASKED = ["variant", "respondent", "qid", "order"]
"""What makes one question put to a model."""


def readings_of(answers: pd.DataFrame) -> list[Reading]:
    """Return the readings that differ in these answers; the last one is the main reading.

    "fixed order" always, "rotated" where another order was asked, "calibrated" where any blank was.
    """
    there = (True, bool(answers["order"].any()), bool(answers["blank"].any()))
    return [reading for reading, differs in zip(READINGS, there, strict=True) if differs]


def main_reading(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the main reading, the last of `READINGS` that `table` has.

    A table without a column `reading` is returned as it is.
    """
    if "reading" not in table or table.empty:
        return table
    main = [reading for reading in READINGS if (table["reading"] == reading).any()][-1]
    return table.loc[table["reading"] == main]


def renormalised(answers: pd.DataFrame, calibrated: bool = False) -> pd.DataFrame:
    """Add `p`, the probability of each option given that one of the options is chosen.

    A softmax of logprob, or of logprob - blank if `calibrated`, over the options of each question.
    Questions without an answer (every logprob is -inf) are left out.

    Raises:
        StudyError: A number is NaN or infinite: the model's output isn't finite.
    """
    value = answers["logprob"] - answers["blank"] if calibrated else answers["logprob"]
    wrong = value.isna() | (value == np.inf)
    if wrong.any():
        row = answers[wrong].iloc[0]
        field = "blank" if np.isfinite(row["logprob"]) else "logprob"
        raise StudyError(
            f"answers.parquet, {field}: no number for {row['qid']} of variant {row['variant']!r} "
            "(the model's output isn't finite); train again with a lower learning rate."
        )
    question = answers.groupby(ASKED, observed=True, sort=False).ngroup()
    top = value.groupby(question).transform("max")
    answered = top > -np.inf
    table = answers[answered].assign(p=np.exp(value[answered] - top[answered]))
    table["p"] /= table.groupby(question[answered])["p"].transform("sum")
    return table


def person_shares(answers: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """Return how likely each respondent is to choose each option.

    Per question the options' probabilities are renormalised (see `Reading` and `renormalised`),
    then averaged over the orders. An item that a respondent never answered is left out.

    Args:
        answers: The frame of answers.parquet, of one condition.
        reading: How to read it.

    Returns:
        Columns variant, respondent, qid, option, share; the shares of an item that a respondent
        answered add up to 1.

    Raises:
        StudyError: The model's output isn't finite.
    """
    asked = answers[answers["order"] == 0] if reading == "fixed order" else answers
    by = ["variant", "respondent", "qid", "option"]
    p = renormalised(asked, reading == "calibrated").groupby(by, observed=True, sort=False)["p"]
    return p.mean().rename("share").reset_index()


def option_shares(answers: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """Return the share of each option among a model's respondents, who all weigh the same.

    Args:
        answers: The frame of answers.parquet, of one condition.
        reading: How to read it.

    Returns:
        Columns variant, qid, option, share: the mean of `person_shares` over the respondents who
        answered; shares of a variant's item add up to 1.

    Raises:
        StudyError: The model's output isn't finite.
    """
    by = person_shares(answers, reading).groupby(
        ["variant", "qid", "option"], observed=True, sort=False
    )
    return by["share"].mean().reset_index()


def share_vectors(shares: pd.DataFrame) -> dict[tuple[str, str], Floats]:
    """Return what `option_shares` returns as (variant, qid) to the shares of the options 1..k."""
    return {
        (str(variant), str(qid)): group.sort_values("option")["share"].to_numpy(dtype=float)
        for (variant, qid), group in shares.groupby(["variant", "qid"], observed=True, sort=False)
    }


def person_vectors(persons: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return what `person_shares` returns as (variant, qid) to a frame of respondents x options."""
    return {
        (str(variant), str(qid)): group.pivot(index="respondent", columns="option", values="share")
        for (variant, qid), group in persons.groupby(["variant", "qid"], observed=True, sort=False)
    }


def outside_mass(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the probability a model put on anything but the options' labels.

    Mean over respondents and orders of 1 - sum(exp(logprob)); 0 to 1, lower is better. A generated
    answer that can't be read counts 1. A value near 1 says that the renormalised shares rest on a
    sliver of the model's belief.

    Returns:
        Columns variant, qid, outside.
    """
    p = answers[ASKED].assign(p=np.exp(answers["logprob"]))
    inside = p.groupby(ASKED, observed=True, sort=False)["p"].sum()
    by_item = (1 - inside).clip(lower=0).groupby(["variant", "qid"], observed=True, sort=False)
    return by_item.mean().rename("outside").reset_index()


def position_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the mean renormalised probability of each displayed position, over all orders.

    With all rotations asked every option stands equally often at every position, so 1/scale
    everywhere means no position bias, whatever the model believes about the items. It isn't
    calibrated: it shows what calibration has to take out.

    Returns:
        Columns variant, scale (number of options), position, share.
    """
    table = renormalised(answers)
    table["scale"] = table.groupby(ASKED, observed=True, sort=False)["option"].transform("size")
    by = table.groupby(["variant", "scale", "position"], observed=True)
    return by["p"].mean().rename("share").reset_index()
