"""Does size matter? The distance to the people before and after against a model's parameters."""

import pandas as pd

from clca_utils.study_tables import method_rows
from clca_utils.uncertainty import intervals

COLUMNS = [
    *("model", "parameters", "cultures", "before", "before_low", "before_high"),
    *("after", "after_low", "after_high", "uniform", "human_floor"),
]


def scaling_table(found: pd.DataFrame, by_item: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return every model's size and its distances over all cultures.

    Args:
        found: What `study_tables.study_table` returns, with `parameters`, which stage 04 counts.
        by_item: What `study_tables.item_distances` returns.
        seed: Of the bootstrap.

    Returns:
        One row per model of the method whose size is known, smallest first: model, parameters,
        cultures (how many); before and after, mean Jensen-Shannon distances to the people over
        cultures, items and seeds, with intervals over the items; uniform and human_floor, means
        over the same cultures.
    """
    lines = ["js_distance_uniform", "js_distance_human_floor"]
    known = method_rows(found).reindex(columns=["model", "culture", "parameters", *lines])
    sizes = known.groupby("model")[["parameters", *lines]].mean().dropna(subset="parameters")
    rows = []
    for model, size in sizes.iterrows():
        mine = by_item[by_item["model"] == model]
        units = mine.groupby(["culture", "qid"])[["before", "after"]].mean().dropna()
        if units.empty:
            continue
        before, after = intervals(units.to_numpy().T, seed)
        rows.append((model, size["parameters"], mine["culture"].nunique(), *before, *after,
                     *size[lines]))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("parameters", ignore_index=True)


def scaling_told(table: pd.DataFrame) -> str:
    """Say in a sentence what size does, or why that can't be said.

    Args:
        table: What `scaling_table` returns.
    """
    sizes = table["parameters"].nunique()
    if sizes < 2:
        what = "the sizes of no model are" if not sizes else "only one size of model is"
        return (
            f"How the distance changes with size can't be said: {what} known in this study "
            "(stage 04 writes `parameters`; name several models in the study's file)."
        )
    rank = table[["parameters", "before", "after"]].corr("spearman")["parameters"]
    return (
        f"{sizes} sizes; rank correlation of size and distance {rank['before']:+.2f} before and "
        f"{rank['after']:+.2f} after training (negative: larger models are closer). So few sizes "
        "are no test."
    )
