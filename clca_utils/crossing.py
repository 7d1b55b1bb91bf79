"""Does a model cross its uniform line, and if not, what keeps it behind?

Guessing evenly is a distance from the people that costs nothing to reach. A model is behind it if
what its answers have beside evenness does not point at the people: then no calibration and no
temperature brings it across, for the best of them is the even answer itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from clca_utils.comparison import UNIFORM, Comparison, read_comparison
from clca_utils.controls import surveyed
from clca_utils.measures import Floats, js_distance, total_variation
from clca_utils.shares import share_vectors
from clca_utils.uncertainty import Interval, paired_change

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

    def cosine(xy: Floats, xx: Floats, yy: Floats, axis: int = -1) -> Floats:
        return np.asarray(xy.sum(axis) / np.sqrt(xx.sum(axis) * yy.sum(axis)))

    if not (sums[1].any() and sums[2].any()):
        return Interval(np.nan, np.nan, np.nan)
    if len(pairs) == 1:  # nothing to resample
        return Interval(float(cosine(*sums)), np.nan, np.nan)
    ends = stats.bootstrap(
        tuple(sums), cosine, paired=True, method="percentile", n_resamples=2000,
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(float(cosine(*sums)), float(ends.low), float(ends.high))


def sharpened(shares: Floats, power: float) -> Floats:
    """Return shares to a power, which add up to 1 again."""
    raised = shares**power
    return np.asarray(raised / raised.sum())


def standing(study: Path, runs: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Compare every model of a study with its uniform line, and say what its answers are made of.

    Args:
        study: The study's folder.
        runs: Which of its runs count; by default all that are there.
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
    rows = []
    for (culture, label), folders in surveyed(study, runs).items():
        seen = [read_comparison(folder / "tables") for folder in folders]
        rows += [
            {"culture": culture, "model": label, "answers": answers, "seeds": len(seen)}
            | _standing(seen, answers, seed)
            for answers in ("before", "after")
        ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    same = table.round(9).duplicated(table.columns.difference(["model", "seeds"]))
    return table[~(same & (table["answers"] == "before"))].reset_index(drop=True)


def _standing(seen: Sequence[Comparison], answers: str, seed: int) -> dict[str, object]:
    people, line = seen[0].people, seen[0].references
    mine = [
        {
            qid: row
            for (who, qid), row in share_vectors(one.model_shares).items()
            if who == answers and qid in people  # of other items the people's answers are unknown
        }
        for one in seen
    ]
    mean = {qid: np.mean([shares[qid] for shares in mine], axis=0) for qid in mine[0]}
    even = {qid: np.full(len(row), 1 / len(row)) for qid, row in mean.items()}
    by_power = {
        power: np.mean(
            [js_distance(sharpened(one[qid], power), people[qid]) for one in mine for qid in one]
        )
        for power in POWERS
    }
    best = min(by_power, key=lambda power: by_power[power])
    places = pd.concat([one.positions for one in seen])
    ahead = places[(places["variant"] == answers) & (places["position"] == 1)]
    found = alignment(mean, people, seed)
    uniform = line[line["line"] == UNIFORM].set_index("qid")["js_distance"].loc[list(mean)]
    measured = pd.concat([one.main[one.main["variant"] == answers] for one in seen])
    by_item = measured.groupby("qid")["js_distance"].mean().loc[list(mean)]
    change = paired_change(uniform.to_numpy(), by_item.to_numpy(), seed)
    uneven = [total_variation(one[qid], even[qid]) for one in mine for qid in one]
    return {
        "first": ahead["share"].mean(), "first_even": (1 / ahead["scale"]).mean(),
        "uneven": float(np.mean(uneven)),
        "alignment": found.mean, "alignment_low": found.low, "alignment_high": found.high,
        "best_power": best, "best": float(by_power[best]),
        "distance": by_item.mean(), "uniform": uniform.mean(),
        "difference": change.mean, "low": change.low, "high": change.high,
        "p_value": change.p_value, "verdict": change.verdict,
    }  # fmt: skip


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
