"""What each part of the method is worth: its variants side by side, over all cultures.

`controls` compares culture by culture; here a model's cultures are taken together, as a paper's
table of ablations does.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from clca_utils.controls import UNTRAINED
from clca_utils.params import CLCA, VARIANTS, read_variant
from clca_utils.uncertainty import holm, interval, paired_changes, replicates, verdicts

COLUMNS = [
    *("model", "variant", "cultures", "seeds", "distance", "distance_low", "distance_high"),
    *("difference", "low", "high", "seeds_low", "seeds_high", "p_value"),
]
UNIT = ["culture", "qid"]


def ablation_table(by_item: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Compare the method with each of its variants, over the items of all cultures both have.

    The other cultures' adapters count together, as one variant.

    Args:
        by_item: What `study_tables.item_distances` returns.
        seed: Of bootstrap and permutations.

    Returns:
        One row per model and variant, the method ("clca") first, then the untrained model and the
        others by name: model, variant; cultures and seeds, how many; distance, the mean
        Jensen-Shannon distance to the people after training, with its interval over the items,
        distance_low and distance_high; difference, the method's minus the variant's (negative: the
        method is closer), with its interval over the items, low and high, and over the seeds,
        seeds_low and seeds_high; p_value of no difference; p_holm, corrected for the rows; verdict,
        of the method ("closer", "further", "not distinguishable"; empty in its own row).
    """
    others = of_others()
    variants = {label: variant_of(label, others) for label in by_item["model"].unique()}
    table = by_item.assign(
        model=by_item["model"].str.partition("+")[0], variant=by_item["model"].map(variants)
    )
    own = table[table["variant"] == CLCA]
    before = own.assign(variant=UNTRAINED, after=own["before"])
    keys = ["model", "variant", *UNIT, "seed"]
    after = pd.concat([table, before]).groupby(keys)["after"].mean().dropna()
    its_own = after.index.get_level_values("variant") == CLCA
    method = after[its_own].droplevel("variant").rename(CLCA)
    pairs = (
        after.rename("other").reset_index().join(method, on=["model", *UNIT, "seed"], how="inner")
    )
    groups = {(str(m), str(v)): rows for (m, v), rows in pairs.groupby(["model", "variant"])}
    order = sorted(groups, key=lambda key: (key[0], key[1] != CLCA, key[1] != UNTRAINED, key[1]))
    rows = _rows({key: groups[key] for key in order}, seed)
    found = pd.DataFrame(rows, columns=COLUMNS)
    tested = found["variant"] != CLCA
    found.loc[tested, "p_holm"] = holm(found.loc[tested, "p_value"])
    found = found.reindex(columns=[*COLUMNS, "p_holm"])
    words = verdicts(found, "difference", "closer", "further")
    return found.assign(verdict=np.where(tested, words, ""))


def of_others() -> list[str]:
    """Return the variants that try other cultures' adapters: a run for each, named after it."""
    names = sorted(path.stem for path in VARIANTS.glob("*.yaml"))
    return [name for name in names if read_variant(name).learnt_from == "others"]


def variant_of(label: str, others: Sequence[str]) -> str:
    """Return the variant in a label, model or model+variant; of other cultures', all are one."""
    name = label.partition("+")[2] or CLCA
    return next((one for one in others if f"{name}-".startswith(f"{one}-")), name)


def _rows(groups: dict[tuple[str, str], pd.DataFrame], seed: int) -> list[dict[str, object]]:
    units = [pairs.groupby(UNIT)[[CLCA, "other"]].mean() for pairs in groups.values()]
    changes = paired_changes([(one["other"], one[CLCA]) for one in units], seed)
    rows: list[dict[str, object]] = []
    for ((model, variant), pairs), by_unit, change in zip(
        groups.items(), units, changes, strict=True
    ):
        distance = interval(by_unit["other"], seed)
        seeds = pairs.groupby("seed")[[CLCA, "other"]].mean()
        spread = replicates(seeds[CLCA] - seeds["other"])
        rows.append(
            {
                "model": model, "variant": variant, "cultures": pairs["culture"].nunique(),
                "seeds": len(seeds), "distance": distance.mean, "distance_low": distance.low,
                "distance_high": distance.high, "difference": change.mean, "low": change.low,
                "high": change.high, "seeds_low": spread.low, "seeds_high": spread.high,
                "p_value": change.p_value,
            }
        )  # fmt: skip
    return rows


def ablations_told(table: pd.DataFrame) -> str:
    """Say in a sentence of each model which parts of the method count.

    Args:
        table: What `ablation_table` returns.
    """
    told = []
    for model, rows in table[table["variant"] != CLCA].groupby("model"):
        words = [
            f"the method is {word} than {', '.join(rows['variant'][rows['verdict'] == word])}"
            for word in ("closer", "further")
            if (rows["verdict"] == word).any()
        ]
        told.append(f"{model}: {'; '.join(words) or 'no variant is distinguishable'}.")
    return "\n".join(told) or "The study ran no variant."
