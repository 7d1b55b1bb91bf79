"""Which survey items training moved most, towards the people or away, and whether that is sure."""

import numpy as np
import pandas as pd
from scipy import stats

from clca_utils.study_tables import method_rows
from clca_utils.uncertainty import ALPHA, holm

KEYS = ["culture", "model", "qid", "topic"]


def moved_table(by_item: pd.DataFrame) -> pd.DataFrame:
    """Return each item's change of distance to the people, over the seeds.

    Args:
        by_item: What `study_tables.item_distances` returns.

    Returns:
        One row per culture, model and item of the method, those that came closest first: culture,
        model, qid, topic, seeds; before and after, mean distances; change (negative: closer), with
        the ends of its t interval over the seeds, low and high, and the p_value of a one-sample t
        test (Student 1908, doi:10.2307/2331554; NaN for one seed, which says nothing of spread);
        p_holm, corrected for the rows; clear, whether that is below 0.05.
    """
    mine = method_rows(by_item).assign(change=lambda t: t["after"] - t["before"])
    groups = mine.dropna(subset="change").groupby(KEYS, sort=False)
    table = groups[["before", "after", "change"]].mean()
    table.insert(0, "seeds", groups.size())
    error = groups["change"].sem()
    steps = pd.Series(stats.t.ppf(1 - ALPHA / 2, table["seeds"] - 1), table.index) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        size = (table["change"] / error).abs().where(error.notna())
    table = table.assign(low=table["change"] - steps, high=table["change"] + steps)
    table["p_value"] = 2 * stats.t.sf(size, table["seeds"] - 1)
    known = table["p_value"].notna()
    table.loc[known, "p_holm"] = holm(table.loc[known, "p_value"])
    table["clear"] = table.reindex(columns=["p_holm"])["p_holm"] < ALPHA
    order = ["culture", "model", "change"]
    return table.reset_index().sort_values(order, kind="stable", ignore_index=True)


def most_moved(table: pd.DataFrame, count: int = 4) -> pd.DataFrame:
    """Return of each culture and model the items that moved most, `count` in each direction.

    Args:
        table: What `moved_table` returns.
        count: How many came closer, and how many went away; fewer where fewer did.
    """
    groups = table.groupby(["culture", "model"], sort=False)["change"]
    first = (groups.rank(method="first") <= count) & (table["change"] < 0)
    last = (groups.rank(method="first", ascending=False) <= count) & (table["change"] > 0)
    return table[first | last].reset_index(drop=True)


def moved_told(table: pd.DataFrame) -> str:
    """Say in a sentence how many items surely moved.

    Args:
        table: What `moved_table` returns.
    """
    if not table["p_value"].notna().any():
        return "With one seed it can't be said whether any single item moved more than by chance."
    clear = table[table["clear"]]
    if clear.empty:
        return (
            f"None of the {len(table)} changes of single items is distinguishable from none, "
            "corrected for how many they are (Holm)."
        )
    towards = int((clear["change"] < 0).sum())
    return (
        f"{len(clear)} of the {len(table)} changes of single items are distinguishable from none "
        f"(Holm): {towards} towards the people, {len(clear) - towards} away."
    )
