"""The paper's own numbers beside ours, each marked with where it is from.

They do not measure quite the same. The paper's KL is what its published code computes, our
`kl_release`; its models were asked in the questionnaire's own order of options, so ours are read in
that order here too; its Jensen-Shannon distance has natural logarithms, which this module converts
to base 2. Its accuracy is that of answers given by many personas, ours the expectation of it.
"""

import math
from collections.abc import Sequence

import pandas as pd

from clca_utils.dataset_statistics import READ
from clca_utils.files import DATA
from clca_utils.study_tables import method_rows

PAPER = DATA / "paper_results.csv"
"""Figures read from the tables of arXiv 2504.02953 (a copy of its text): table, model, variant,
culture, metric, value."""

NOTE = (
    "Read from the paper: Liu, Korhonen and Gurevych 2025, arXiv 2504.02953; means over its five "
    "cultures, before: its persona prompt, its JS distance converted to base 2. This study: means "
    "over its own cultures, options in the questionnaire's own order as in the paper, with this "
    "study's prompt."
)

METRICS = {"kl": "kl_release", "js_distance": "js_distance", "accuracy": "accuracy"}
"""The paper's measures, and what they are called here."""

BASE_2 = 1 / math.sqrt(math.log(2))
"""What turns a Jensen-Shannon distance with natural logarithms into one of base 2."""

STATES = {"persona": "before", "clca": "after"}
OURS = "this study"
COLUMNS = ["source", "model", "state", "metric", "value"]


def paper_numbers() -> pd.DataFrame:
    """Return the paper's averages over its cultures, the names of models and measures being ours.

    Returns:
        source ("read from the paper"); model, as in `params/models`; state ("before": its persona
        prompt, "after": CLCA, else the variant's name); metric; value, of JS distances in base 2.
    """
    table = pd.read_csv(PAPER)
    table = table[table["culture"] == "average"].drop_duplicates(["model", "variant", "metric"])
    natural = table["metric"] == "js_distance"
    return table.assign(
        source=READ,
        model=table["model"].str.lower().str.replace("-instruct", ""),
        state=table["variant"].replace(STATES).str.replace("_", "-"),
        metric=table["metric"].map(METRICS),
        value=table["value"].where(~natural, table["value"] * BASE_2),
    )[COLUMNS].reset_index(drop=True)


def our_numbers(found: pd.DataFrame) -> pd.DataFrame:
    """Return the same measures of this study's models, means over cultures and seeds.

    Args:
        found: What `study_tables.study_table` returns.

    Returns:
        As `paper_numbers`, source "this study".
    """
    rows = []
    for model, runs in method_rows(found).groupby("model"):
        for metric in METRICS.values():
            for state in STATES.values():
                told = f"{metric}_{state}"
                # where the own order alone was asked, it is the main reading
                column = f"{told}_fixed_order" if f"{told}_fixed_order" in runs else told
                by_culture = runs.reindex(columns=["culture", column]).groupby("culture")[column]
                rows.append((OURS, model, state, metric, by_culture.mean().mean()))
    return pd.DataFrame(rows, columns=COLUMNS).dropna(subset="value").reset_index(drop=True)


def uniform_of(found: pd.DataFrame) -> dict[str, float]:
    """Return what guessing evenly comes to by measure, means over the study's cultures.

    Args:
        found: What `study_tables.study_table` returns.
    """
    columns = {f"{metric}_uniform": metric for metric in METRICS.values()}
    known = found.reindex(columns=["culture", *columns]).groupby("culture")[[*columns]].mean()
    return {columns[str(name)]: float(value) for name, value in known.mean().dropna().items()}


def side_by_side(
    found: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS.values())
) -> pd.DataFrame:
    """Return our numbers and then the paper's, before, after and of its ablations.

    Args:
        found: What `study_tables.study_table` returns.
        metrics: Which measures.

    Returns:
        One row per source and model: source, model, and a column "<metric> <state>" for each
        measure before and after; of the paper's ablations, rows of their own, the variant with the
        model. Empty where no run has answers.
    """
    ours, paper = our_numbers(found), paper_numbers()
    table = pd.concat([ours, paper], ignore_index=True)
    if ours.empty:
        return pd.DataFrame(columns=["source", "model"])
    odd = ~table["state"].isin(STATES.values())
    table.loc[odd, "model"] += "+" + table["state"][odd]
    table.loc[odd, "state"] = "after"
    wide = table.pivot(index=["source", "model"], columns=["metric", "state"], values="value")
    order = [(metric, state) for metric in metrics for state in STATES.values()]
    wide = wide.reindex(columns=pd.MultiIndex.from_tuples(order)).loc[[OURS, READ]]
    wide.columns = [f"{metric} {state}" for metric, state in order]
    return wide.reset_index()
