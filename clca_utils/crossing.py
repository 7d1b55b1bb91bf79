"""Does a model cross its uniform line, and if not, what keeps it behind?

Guessing evenly is a distance from the people that costs nothing to reach. A model is behind it if
what its answers have beside evenness does not point at the people: then no calibration and no
temperature brings it across, for the best of them is the even answer itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from clca_utils.comparison import PEOPLE
from clca_utils.measures import Floats, js_distance, total_variation
from clca_utils.study_tables import RUN, by_model
from clca_utils.uncertainty import Change, Interval, paired_changes

POWERS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""A model's shares to such a power, made to add up to 1 again: 0 is even, 1 as it is, 4 sharper. A
power is one over a temperature."""

COLUMNS = [
    *("culture", "model", "answers", "seeds", "first", "first_even", "uneven"),
    *("alignment", "alignment_low", "alignment_high", "best_power", "best"),
    *("distance", "uniform", "difference", "low", "high", "p_value", "verdict"),
]


def alignment(mine: Mapping[str, Floats], people: Mapping[str, Floats], seed: int) -> Interval:
    """Say whether what is uneven in a model's answers points at the people.

    The cosine between the two's deviations from an even answer, over all options of all items: 1
    where both prefer the same in the same proportion, 0 where they have nothing to do with each
    other. Where it is not above 0, no sharpening brings the model closer than the even answer.

    Args:
        mine: The model's shares by item.
        people: The people's, of the same items.
        seed: Of the bootstrap.

    Returns:
        With a 95 % bootstrap interval over the items, NaN for a single one; NaN throughout where
        one side is even.
    """
    pairs = [(row - 1 / len(row), people[qid] - 1 / len(row)) for qid, row in mine.items()]
    sums = np.array([(x @ y, x @ x, y @ y) for x, y in pairs]).T
    (only,) = _alignments([sums], seed)
    return only


def _alignments(sums: Sequence[Floats], seed: int) -> list[Interval]:
    """Return the alignments of several answers, from the sums of xy, xx and yy of their items.

    Those to as many items are resampled alike.
    """
    found = [Interval(np.nan, np.nan, np.nan)] * len(sums)
    for size in {one.shape[1] for one in sums}:
        # where one side is even there is no direction
        places = [
            place for place, one in enumerate(sums) if one.shape[1] == size and one[1:].any(1).all()
        ]
        if not places:
            continue
        products = tuple(np.stack([sums[place] for place in places], axis=1))
        means, low, high = _cosine(*products), np.nan, np.nan
        if size > 1:  # else there is nothing to resample
            ends = stats.bootstrap(
                products, _cosine, paired=True, method="percentile", n_resamples=2000, batch=200,
                axis=-1, rng=np.random.default_rng(seed),
            ).confidence_interval  # fmt: skip
            low, high = ends.low, ends.high
        rows = np.column_stack(np.broadcast_arrays(means, low, high)).tolist()
        for place, row in zip(places, rows, strict=True):
            found[place] = Interval(*row)
    return found


def _cosine(xy: Floats, xx: Floats, yy: Floats, axis: int = -1) -> Floats:
    return np.asarray(xy.sum(axis) / np.sqrt(xx.sum(axis) * yy.sum(axis)))


def sharpened(shares: Floats, power: float) -> Floats:
    """Return shares to a power, which add up to 1 again; along the last axis.

    What is NaN, an option that an item does not have, stays so.
    """
    raised = shares**power if power else np.where(np.isnan(shares), np.nan, 1.0)
    return np.asarray(raised / np.nansum(raised, axis=-1, keepdims=True))


class Answers(NamedTuple):
    """A model's answers and the people's: items x options, NaN where an item has fewer.

    Attributes:
        mine: The model's: seeds x items x options.
        people: The people's.
        distances: The model's from the people: seeds x items.
    """

    mine: Floats
    people: Floats
    distances: Floats


def standing(
    by_item: pd.DataFrame, shares: pd.DataFrame, positions: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Compare every model of a study with its uniform line, and say what its answers are made of.

    Args:
        by_item: What `study_tables.item_distances` returns.
        shares: What `study_tables.survey_tables` returns of "shares".
        positions: The same of "positions".
        seed: Of bootstrap and permutations.

    Returns:
        One row per culture, model (with its variant) and answers ("before", "after"; the former
        once where several runs share them), means over seeds: first, the share of the answers that
        falls to whichever option stands first, and first_even, what it would be without a
        preference; uneven, how much of the answers is left to tell options apart once their order
        is averaged out (total variation from the even answer); alignment, with its interval; the
        lowest distance that any of `POWERS` reaches, best, and at which, best_power: found with the
        people's answers in hand, so it explains and is no method; distance, the mean Jensen-Shannon
        distance, and that of the uniform line; difference (negative: closer than guessing evenly),
        with its interval over the items, p_value and verdict ("better", "worse", "not
        distinguishable").
    """
    keys = ["culture", "model", "answers"]
    sets = dict(_sets(by_item, shares))
    table = pd.DataFrame(list(sets), columns=keys).join(_measured(list(sets.values()), seed))
    first = positions[positions["position"] == 1].rename(columns={"variant": "answers"})
    first = first.assign(first=first["share"], first_even=1 / first["scale"])
    ahead = first.groupby(keys)[["first", "first_even"]].mean().reset_index()
    table = table.merge(ahead, how="left", on=keys)[COLUMNS]
    same = table.round(9).duplicated(table.columns.difference(["model", "seeds"]))
    return table[~(same & (table["answers"] == "before"))].reset_index(drop=True)


def _sets(
    by_item: pd.DataFrame, shares: pd.DataFrame
) -> Iterator[tuple[tuple[str, str, str], Answers]]:
    """Yield the answers of every culture and model before and after, as far as they are there."""
    qids, options = list(shares["qid"].unique()), sorted(shares["option"].unique())
    wide = shares.pivot(index=[*RUN, "variant"], columns=["qid", "option"], values="share")
    wide = wide.reindex(columns=pd.MultiIndex.from_product([qids, options]))
    cube = wide.to_numpy().reshape(len(wide), len(qids), len(options))
    who = wide.index.to_frame(index=False).groupby(["culture", "model", "variant"]).indices
    for (culture, model), rows in by_model(by_item).items():
        if (culture, model, PEOPLE) not in who:
            continue
        people = cube[who[culture, model, PEOPLE][0]]
        for answers in ("before", "after"):
            far = rows.pivot(index="seed", columns="qid", values=answers).reindex(columns=qids)
            distances = far.to_numpy()
            # of other items the people's answers are unknown
            known = ~np.isnan(distances).any(axis=0) & ~np.isnan(people).all(axis=1)
            if known.any() and (culture, model, answers) in who:
                mine = cube[who[culture, model, answers]]
                yield (
                    (culture, model, answers),
                    Answers(mine[:, known], people[known], distances[:, known]),
                )


def _measured(sets: Sequence[Answers], seed: int) -> pd.DataFrame:
    """Return the rows of `standing`, but for what the first place gets."""
    rows, sums, pairs = [], [], []
    for mine, people, distances in sets:
        even = sharpened(people, 0)
        theirs, evenly, ours = (np.nan_to_num(some) for some in (people, even, mine))
        by_power = {
            power: js_distance(np.nan_to_num(sharpened(mine, power)), theirs).mean()
            for power in POWERS
        }
        best = min(by_power, key=lambda power: by_power[power])
        x, y = ours.mean(axis=0) - evenly, theirs - evenly
        sums.append(np.stack([(x * y).sum(-1), (x * x).sum(-1), (y * y).sum(-1)]))
        pairs.append((js_distance(evenly, theirs), distances.mean(axis=0)))
        rows.append(
            {
                "seeds": len(mine), "uneven": total_variation(ours, evenly).mean(),
                "best_power": best, "best": by_power[best],
                "distance": pairs[-1][1].mean(), "uniform": pairs[-1][0].mean(),
            }
        )  # fmt: skip
    aims, changes = _alignments(sums, seed), paired_changes(pairs, seed)
    table = pd.DataFrame(rows, columns=["seeds", "uneven", *COLUMNS[10:14]])
    aimed = pd.DataFrame(aims, columns=COLUMNS[7:10])
    changed = pd.DataFrame(changes, columns=["difference", *Change._fields[1:]])
    return table.join(aimed).join(changed)


def crossing(table: pd.DataFrame) -> str:
    """Say in a few words which models cross their uniform line, and what keeps the others behind.

    Args:
        table: What `standing` returns.
    """
    across = table[table["verdict"] == "better"]
    behind = table[table["verdict"] != "better"]
    names = [f"{row.culture}, {row.model} {row.answers}" for row in across.itertuples()]
    told = f"{len(across)} of {len(table)} sets of answers are surely closer to the people than "
    told += "guessing evenly" + (f": {'; '.join(names)}." if names else ".")
    if len(behind):
        aimless = int((~(behind["alignment_low"] > 0)).sum())
        told += (
            f" Of the {len(behind)} others, {aimless} have nothing that surely points at the "
            f"people (alignment), and for {int((behind['best_power'] == 0).sum())} of them the "
            f"best temperature of all would be the one that makes them even."
        )
    return told
