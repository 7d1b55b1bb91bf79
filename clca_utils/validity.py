"""Do the answers mean anything? Small checks that a survey of people would also have to pass.

Pure functions from answers or shares (see `clca_utils.shares`) to small tables: does the place of
an option matter, the wording of a question, asking again, the persona; and does the model, asked as
people of several cultures, differ from itself as those peoples differ from each other?
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from clca_utils.files import StudyError
from clca_utils.measures import Floats, js_distance
from clca_utils.shares import person_vectors, renormalised, share_vectors


def position_bias(answers: pd.DataFrame) -> pd.DataFrame:
    """Return how much the place where an option is displayed decides the answer.

    Per item the total variation between the mean probabilities of the displayed positions and 1/k,
    averaged over the items: the share of answers that would have to change place; 0 (the place
    doesn't matter) to 1 - 1/k (always the same place). Only items asked in all rotations count,
    since with fewer a liking for a place can't be told from a liking for an option.

    Args:
        answers: The frame of answers.parquet, of one condition.

    Returns:
        Columns variant, bias (NaN without such an item).
    """
    item = ["variant", "qid"]
    orders = answers.groupby(item, observed=True, sort=False)[["order", "option"]].nunique()
    by = renormalised(answers).groupby([*item, "position"], observed=True, sort=False)
    shares = by["p"].mean()
    by_item = (shares - shares.groupby(item, observed=True).transform("mean")).abs()
    bias = by_item.groupby(item, observed=True).sum().reindex(orders.index) / 2
    bias = bias.where(orders["order"] == orders["option"])
    means = bias.groupby("variant", observed=True, sort=False).mean()
    return means.rename("bias").reset_index()


def wording_table(shares_a: pd.DataFrame, shares_b: pd.DataFrame) -> pd.DataFrame:
    """Compare a model's answers to two wordings of the same items.

    Args:
        shares_a: What `shares.option_shares` returns of the one wording.
        shares_b: The same of the other.

    Returns:
        Columns variant, qid, js_distance (0: the wording doesn't matter), for what both have.
    """
    first, second = share_vectors(shares_a), share_vectors(shares_b)
    rows = [(*key, float(js_distance(first[key], second[key]))) for key in first if key in second]
    return pd.DataFrame(rows, columns=["variant", "qid", "js_distance"])


def chosen_options(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the answer to each question, the likeliest option.

    Args:
        answers: The frame of answers.parquet, of one condition.

    Returns:
        Columns variant, respondent, qid, order, chosen (NaN: no answer could be read).
    """
    by = ["variant", "respondent", "qid", "order"]
    table = answers.reset_index(drop=True)
    top = table.loc[table.groupby(by, observed=True, sort=False)["logprob"].idxmax()]
    chosen = top["option"].where(top["logprob"] > -np.inf)
    return top[by].assign(chosen=chosen).reset_index(drop=True)


def retest_table(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare a model's answers with those it gives when asked the same again.

    Args:
        first: What `chosen_options` returns of the first time.
        second: The same of the second time.

    Returns:
        Columns variant; n (questions answered both times); agreement, the share of the same
        answers; chance, the share expected if the second answer were any of those given; kappa =
        (agreement - chance)/(1 - chance) (Cohen 1960, doi:10.1177/001316446002000104), 1 for the
        same answers, 0 for chance, NaN where all answers are one.
    """
    by = ["variant", "respondent", "qid", "order"]
    both = first.merge(second, on=by, suffixes=("_1", "_2")).dropna(subset=["chosen_1", "chosen_2"])
    rows = []
    for variant, group in both.groupby("variant", observed=True, sort=False):
        x, y = group["chosen_1"].astype(int), group["chosen_2"].astype(int)
        shares = x.value_counts(normalize=True).mul(y.value_counts(normalize=True), fill_value=0)
        chance = shares.sum()
        kappa = cohen_kappa_score(x, y) if chance < 1 else math.nan
        rows.append((variant, len(group), (x == y).mean(), chance, kappa))
    return pd.DataFrame(rows, columns=["variant", "n", "agreement", "chance", "kappa"])


def persona_effect(persons: pd.DataFrame) -> pd.DataFrame:
    """Return how much it matters whom the model answers as.

    Per item the mean JS distance of each respondent's answer distribution to the average one, then
    the mean over the items. 0: the persona changes nothing. Of generated answers it's the spread of
    single answers, so it isn't 0 even where the persona changes nothing.

    Args:
        persons: What `shares.person_shares` returns.

    Returns:
        Columns variant, spread.
    """
    rows = [
        (variant, js_distance(answers, answers.mean(axis=0)).mean())
        for (variant, _), table in person_vectors(persons).items()
        for answers in [table.to_numpy()]
    ]
    spreads = pd.DataFrame(rows, columns=["variant", "spread"])
    return spreads.groupby("variant", sort=False, as_index=False).mean()


def cultures_apart(
    model: Mapping[str, Mapping[str, npt.ArrayLike]],
    people: Mapping[str, Mapping[str, npt.ArrayLike]],
    seed: int,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Ask whether a model tells cultures apart as their peoples differ.

    Asked as a person of each culture, a model may deviate from its own average answer; so do that
    culture's people from the average of the peoples. Whatever the model gets wrong for all cultures
    alike drops out, and what's left is what being asked as one of them changes.

    Args:
        model: Culture to item to the model's shares when asked as a person of that culture.
        people: Culture to item to the shares of its people.
        seed: Of the permutations where there are too many cultures to try all.

    Returns:
        The matrix: rows are the cultures asked as, columns the peoples, values the Pearson
        correlation of both deviations over all options of the items that all have (NaN where the
        model deviates in nothing). And numbers: accuracy, the share of cultures whose own people
        correlate best (NaN counts as wrong); chance, 1/n; difference, the mean of the diagonal
        minus that of the rest; p_value, how often it's as large if the peoples' names are
        permuted (all ways for up to seven cultures, else 9999 of them; NaN counts as 0); cultures
        and items, how many.

    Raises:
        StudyError: There are fewer than two cultures, or no item that all have.
    """
    names = [culture for culture in model if culture in people]
    answers = [model[name] for name in names] + [people[name] for name in names]
    common = [qid for qid in (answers[0] if answers else ()) if all(qid in x for x in answers)]
    if len(names) < 2 or not common:
        raise StudyError(
            f"Cultures can't be told apart with {len(names)} of them and {len(common)} common "
            "items: ask the model as people of two cultures or more, on the same items."
        )
    size = len(names)
    # Rounded, so that a model that answers the same for all deviates in nothing at all.
    table = np.array([np.concatenate([np.asarray(x[qid]) for qid in common]) for x in answers])
    mine, theirs = (np.round(x - x.mean(axis=0), 12) for x in (table[:size], table[size:]))
    with np.errstate(invalid="ignore"):
        correlations = np.corrcoef(mine, theirs)[:size, size:]
    known = np.nan_to_num(correlations)

    def difference(order: npt.NDArray[np.int_], axis: int = -1) -> Floats:
        own = known[np.arange(size), order.astype(int)].sum(axis=axis)
        return np.asarray(own / size - (known.sum() - own) / (size * (size - 1)))

    test = stats.permutation_test(
        (np.arange(size),),
        difference,
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(seed),
    )
    best = np.where(np.isnan(correlations), -np.inf, correlations).argmax(axis=1)
    right = (best == np.arange(size)) & ~np.isnan(correlations).all(axis=1)
    return pd.DataFrame(correlations, index=names, columns=names), {
        "accuracy": float(right.mean()),
        "chance": 1 / size,
        "difference": float(test.statistic),
        "p_value": float(test.pvalue),
        "cultures": float(size),
        "items": float(len(common)),
    }
