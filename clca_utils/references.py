"""What a distance is worth: the same measures for answers that need no model.

A distance alone says little, so each one is read against reference lines computed on the same
items: knowing nothing (uniform), knowing the most frequent answer (majority), always choosing the
first option or the luckiest one, being another country's people, and the distance that two samples
of the same people have from each other (the human floor).
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from clca_utils.files import StudyError
from clca_utils.items import SurveyItem
from clca_utils.measures import MEASURES, Floats, measured
from clca_utils.survey import country_shares

UNKNOWN_N = 1000
"""Respondents assumed for the human floor where the survey's n isn't published: as many as the
published evaluation draws per culture (arXiv 2504.02953)."""

LINES = {
    "human floor": "human_floor",
    "nearest other country": "nearest_country",
    "mean other country": "mean_country",
    "uniform": "uniform",
    "majority": "majority",
    "always option 1": "option_1",
    "best constant": "best_constant",
}
"""Reference lines as shown, and as named in metrics."""

_COUNTRY, _CONSTANT = "people of ", "always option "


def reference_lines(
    marginals: pd.DataFrame,
    iso3: str,
    items: Iterable[SurveyItem],
    seed: int,
    draws: int = 200,
    *,
    min_items: int = 30,
    halves: Mapping[str, tuple[Floats, Floats]] | None = None,
) -> pd.DataFrame:
    """Measure answers that need no model against the people of `iso3`, item by item.

    Lines: "human floor" (two independent samples of half the respondents each, mean over the
    draws); "uniform" (knows nothing); "majority" (all mass on the people's most frequent option,
    so it has seen the answer); "always option 1", 2, ... (an item with fewer options gets its
    last); "people of XYZ" for each other country with `min_items` comparable items (or all, if
    `iso3` itself has fewer).

    Args:
        marginals: What `survey.load_marginals` returns.
        iso3: Whose people.
        items: The items asked.
        seed: Of the human floor's draws.
        draws: How many.
        min_items: See above.
        halves: Item to the shares (draws x options) of random halves of the country's respondents,
            made from microdata. Where there are none, they are drawn from the marginals
            (multinomial), which is an approximation: survey weights lower the effective number of
            respondents, so the true floor lies a little higher. Where n isn't published,
            `UNKNOWN_N` is assumed.

    Returns:
        Columns line, qid and those of `MEASURES`, in the order above.
    """
    asked = list(items)
    people = country_shares(marginals, iso3, asked)
    rng = np.random.default_rng(seed)
    mine = marginals[marginals["country"] == iso3]
    respondents = mine.groupby("qid")["n"].first().fillna(UNKNOWN_N)
    halves = halves or {}
    answers: dict[str, dict[str, tuple[Floats, Floats]]] = {"human floor": {}}
    for qid, p in people.items():
        half = max(int(respondents[qid]) // 2, 1)
        drawn = rng.multinomial(half, p, size=(2, draws)) / half
        answers["human floor"][qid] = halves.get(qid, (drawn[0], drawn[1]))
    answers["uniform"] = {qid: (np.full_like(p, 1 / len(p)), p) for qid, p in people.items()}
    answers["majority"] = {qid: (np.eye(len(p))[p.argmax()], p) for qid, p in people.items()}
    for option in range(max(map(len, people.values()), default=0)):
        answers[f"{_CONSTANT}{option + 1}"] = {
            qid: (np.eye(len(p))[min(option, len(p) - 1)], p) for qid, p in people.items()
        }
    for other in sorted(set(marginals["country"]) - {iso3}):
        theirs = country_shares(marginals, other, asked)
        common = {qid: (theirs[qid], p) for qid, p in people.items() if qid in theirs}
        if common and len(common) >= min(min_items, len(people)):
            answers[f"{_COUNTRY}{other}"] = common
    rows = [
        {"line": line, "qid": qid} | measured(*pair)
        for line, by_item in answers.items()
        for qid, pair in by_item.items()
    ]
    return pd.DataFrame(rows, columns=["line", "qid", *MEASURES])


def line_summary(references: pd.DataFrame, qids: Iterable[str] | None = None) -> pd.DataFrame:
    """Average the reference lines over one set of items.

    Args:
        references: What `reference_lines` returns.
        qids: The items the model is measured on; by default all of the country's.

    Returns:
        Columns line, detail and those of `MEASURES`, one row each for the lines of `LINES`:
        "nearest other country" (the nearest in JS distance; `detail` names it), "mean other
        country" (`detail` counts them) and "best constant" (of always choosing the same option, the
        one that comes closest in JS distance, known only with hindsight; `detail` names it) beside
        those of `reference_lines`. Other countries count only if they have all the items, so that
        every number is over the same ones; without any, both rows are absent.

    Raises:
        StudyError: The lines lack one of the items.
    """
    wanted = set(references["qid"] if qids is None else qids)
    table = references[references["qid"].isin(wanted)].groupby("line", sort=False)
    means = table[list(MEASURES)].mean()[table["qid"].nunique() == len(wanted)]
    if "uniform" not in means.index:
        raise StudyError(
            "marginals, qid: the reference lines lack an item that the model was measured on; "
            "compute both from the same country and items."
        )
    means.insert(0, "detail", "")

    def best(lines: pd.DataFrame, start: str, words: str) -> pd.Series:
        name = str(lines["js_distance"].idxmin())
        return pd.Series({**lines.loc[name], "detail": words + name.removeprefix(start)})

    others = means[means.index.str.startswith(_COUNTRY)]
    constants = means[means.index.str.startswith(_CONSTANT)]
    means.loc["best constant"] = best(constants, _CONSTANT, "option ")
    if len(others):
        means.loc["nearest other country"] = best(others, _COUNTRY, "")
        means.loc["mean other country"] = others.drop(columns="detail").mean()
        means.loc["mean other country", "detail"] = f"{len(others)} countries"
    return means.loc[[line for line in LINES if line in means.index]].reset_index()


def normalised_score(value: float, uniform: float, floor: float) -> float:
    """Return how far `value` is on the way from the uniform line to the human floor.

    0 at `uniform`, 1 at `floor`, negative if further away than guessing evenly; it serves measures
    of either direction. The floor compares halves of the people, so an answer that knew them all
    exactly would come to about half of it, and score slightly above 1. NaN if both lines are equal,
    so that there is no way to go.
    """
    return (uniform - value) / (uniform - floor) if uniform != floor else math.nan
