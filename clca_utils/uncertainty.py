"""How sure the numbers are: intervals, tests of a change, and a run's numbers with both.

Three things may vary. Which items are asked: `interval` and `paired_change`. Whom the model answers
as: `respondent_interval`, and with the items `crossed_interval`. The seed of the training:
`replicates`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from clca_utils.measures import MEASURES, Floats
from clca_utils.references import LINES, line_summary, normalised_score
from clca_utils.shares import READINGS, main_reading, person_vectors

Verdict = Literal["better", "worse", "not distinguishable"]

ALPHA = 0.05
"""Below this a p value counts as a change; intervals cover 1 - ALPHA."""


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


class Change(NamedTuple):
    """A mean change with its interval, the p value of "no change", and a verdict in words."""

    mean: float
    low: float
    high: float
    p_value: float
    verdict: Verdict


def interval(
    values: npt.ArrayLike, seed: int, confidence: float = 1 - ALPHA, resamples: int = 2000
) -> Interval:
    """Return the mean of `values` (one per item) with its percentile bootstrap interval.

    The items are resampled with replacement (Efron and Tibshirani 1993, chapter 13): it says how
    much the mean hangs on the choice of items, not how much another seed would change it. A single
    value has no spread to resample, so its interval has no width. The order of the values doesn't
    matter.
    """
    (only,) = intervals(np.asarray(values, dtype=float)[None], seed, confidence, resamples)
    return only


def intervals(
    rows: Floats, seed: int, confidence: float = 1 - ALPHA, resamples: int = 2000
) -> list[Interval]:
    """Return what `interval` does of every row of `rows` (rows x items), all resampled alike."""
    if not len(rows):
        return []
    data = np.sort(rows, axis=1)
    means = data.mean(axis=1)
    flat = np.ptp(data, axis=1) == 0
    low, high = means, means
    if not flat.all():
        ends = stats.bootstrap(
            (data,),
            np.mean,
            n_resamples=resamples,
            batch=200,  # at once; the draws are the same, the memory is not
            confidence_level=confidence,
            method="percentile",
            axis=-1,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = np.where(flat, means, ends.low), np.where(flat, means, ends.high)
    return [Interval(*row) for row in np.column_stack([means, low, high]).tolist()]


def respondent_interval(
    persons: pd.DataFrame,
    people: Mapping[str, Floats],
    seed: int,
    measure: str = "js_distance",
    resamples: int = 1000,
) -> Interval:
    """Return a measure's mean over the items, with its interval over whom the model answers as.

    The respondents are resampled with replacement, each with all of its answers, and the shares
    measured anew. The shares of a sample lie further from anyone than those of its population, and
    those of a resample further still, so the interval is the basic one, 2 * mean - percentiles
    (Davison and Hinkley 1997, section 5.2), which undoes it: of 100 respondents with one answer
    each to 44 items its 95 % intervals cover the truth 94 % of the time, percentile intervals 5 %.
    For the same reason the mean of few respondents may lie at its end or beyond.

    Args:
        persons: What `shares.person_shares` returns, of one variant.
        people: What `survey.country_shares` returns; its items count.
        seed: Of the bootstrap.
        measure: One of `MEASURES`.
        resamples: How many.

    Raises:
        ValueError: `persons` holds several variants, or none of the items.
    """
    stacks, rng = _stacks(persons, people), np.random.default_rng(seed)
    counts = _counts(rng, resamples, len(stacks[0][0]))
    return _basic(_resampled(stacks, counts, measure), measure)


def crossed_interval(
    persons: pd.DataFrame,
    people: Mapping[str, Floats],
    seed: int,
    measure: str = "js_distance",
    resamples: int = 1000,
) -> Interval:
    """Return what `respondent_interval` does, resampling respondents and items at once.

    So it says how much the mean hangs on both choices: the pigeonhole bootstrap, which errs on the
    wide side (Owen 2007, doi:10.1214/07-AOAS122).
    """
    stacks, rng = _stacks(persons, people), np.random.default_rng(seed)
    counts = _counts(rng, resamples, len(stacks[0][0]))
    values = _resampled(stacks, counts, measure)
    return _basic(values, measure, _counts(rng, resamples, values.shape[1]))


def _stacks(persons: pd.DataFrame, people: Mapping[str, Floats]) -> list[tuple[Floats, Floats]]:
    """Return respondents x items x options (0 if unanswered) and people's shares, by scale."""
    (_,) = persons["variant"].unique()
    respondents = persons["respondent"].unique()
    answers = {qid: table for (_, qid), table in person_vectors(persons).items() if qid in people}
    if not answers:
        raise ValueError("the persons answered none of the people's items")
    by_scale: dict[int, list[str]] = {}
    for qid, table in answers.items():
        by_scale.setdefault(table.shape[1], []).append(qid)
    return [
        (
            np.stack([answers[q].reindex(respondents).fillna(0).to_numpy() for q in qids], axis=1),
            np.stack([people[q] for q in qids]),
        )
        for qids in by_scale.values()
    ]


def _counts(rng: np.random.Generator, resamples: int, size: int) -> Floats:
    """Return how often each of `size` things is drawn; the first row is the sample itself."""
    drawn = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    return np.vstack([np.ones(size), drawn])


def _resampled(stacks: list[tuple[Floats, Floats]], counts: Floats, measure: str) -> Floats:
    """Return resamples x items: the measure, NaN where no respondent drawn has answered."""
    columns = []
    for answers, people in stacks:
        sums = np.tensordot(counts, answers, axes=1)
        totals = sums.sum(axis=-1, keepdims=True)
        shares = np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)
        columns.append(MEASURES[measure].function(shares, people))
    return np.concatenate(columns, axis=1)


def _basic(values: Floats, measure: str, weights: Floats | None = None) -> Interval:
    """Return the basic bootstrap interval of the mean over the items, within the measure's range.

    Args:
        values: Resamples x items, the sample itself first.
        measure: Whose range.
        weights: How often each resample draws each item; by default once.
    """
    weight = np.where(np.isnan(values), 0, 1 if weights is None else weights)
    mean, *resampled = (np.nan_to_num(values) * weight).sum(axis=1) / weight.sum(axis=1)
    low, high = 2 * mean - np.quantile(resampled, [1 - ALPHA / 2, ALPHA / 2])
    least, most = sorted((MEASURES[measure].best, MEASURES[measure].worst))
    return Interval(float(mean), max(float(low), least), min(float(high), most))


def replicates(values: npt.ArrayLike, confidence: float = 1 - ALPHA) -> Interval:
    """Return the mean of a number's values, one per seed, with its t interval over the seeds.

    It says how much another seed would change the number (Student 1908, doi:10.2307/2331554). One
    seed says nothing of it: the ends are NaN.
    """
    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, len(data) - 1) * stats.sem(data))
    return Interval(mean, mean - half, mean + half)


def paired_change(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    seed: int,
    lower_is_better: bool = True,
    alpha: float = ALPHA,
) -> Change:
    """Compare two values of the same items, in the same order.

    The mean of after - before with its bootstrap interval, and the two-sided p value of a paired
    permutation test that swaps before and after within an item (10,000 times, or all swaps where
    there are fewer; one item alone proves nothing). The verdict is "better" or "worse" only if the
    p value is below `alpha` and the interval excludes 0.
    """
    (only,) = paired_changes([(before, after)], seed, lower_is_better, alpha)
    return only


def paired_changes(
    pairs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    seed: int,
    lower_is_better: bool = True,
    alpha: float = ALPHA,
) -> list[Change]:
    """Return what `paired_change` does of every pair (before, after), in their order.

    Pairs of as many items share their resamples and swaps, which is what makes many of them fast.
    """
    changes = [np.subtract(after, before, dtype=float) for before, after in pairs]
    found: dict[int, Change] = {}
    for size in {len(one) for one in changes}:
        places = [place for place, one in enumerate(changes) if len(one) == size]
        rows = np.stack([changes[place] for place in places])
        p_values = _swapped(rows, seed)
        for place, ends, p_value in zip(places, intervals(rows, seed), p_values, strict=True):
            found[place] = _judged(ends, float(p_value), lower_is_better, alpha)
    return [found[place] for place in range(len(changes))]


def _swapped(changes: Floats, seed: int) -> Floats:
    """Return each row's p value of a permutation test that turns the signs of single changes."""
    count = changes.shape[1]
    if count < 2:
        return np.ones(len(changes))
    sides = np.full(count, 0.5), np.full(count, -0.5)
    test = stats.permutation_test(
        sides,  # scipy swaps them alike for all rows: their difference is the signs
        lambda a, b, axis=-1: np.einsum("...i,ri->...r", a - b, changes) / count,
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(seed),
    )
    return np.asarray(test.pvalue)


def _judged(ends: Interval, p_value: float, lower_is_better: bool, alpha: float) -> Change:
    if p_value >= alpha or ends.low <= 0 <= ends.high:
        return Change(*ends, p_value, "not distinguishable")
    better = (ends.mean < 0) == lower_is_better
    return Change(*ends, p_value, "better" if better else "worse")


def holm(p_values: npt.ArrayLike) -> Floats:
    """Return the p values corrected for how many there are (Holm 1979, jstor.org/stable/4615733).

    All of those below a level can be believed at once, with that chance of any error.
    """
    raw = np.asarray(p_values, dtype=float)
    return np.asarray(multipletests(raw, method="holm")[1]) if raw.size else raw


def surely_other(table: pd.DataFrame) -> "pd.Series[bool]":
    """Say of each row whether what it compares surely differs, over the items and over the seeds.

    Args:
        table: Columns p_holm; low and high, the ends of an interval over items; seeds_low and
            seeds_high, over seeds (NaN for one seed, which has nothing to say against it).
    """
    clear = (table["p_holm"] < ALPHA) & (table["low"] * table["high"] > 0)
    return clear & ~(table["seeds_low"] * table["seeds_high"] <= 0)


def verdicts(table: pd.DataFrame, difference: str, below: str, above: str) -> npt.NDArray[np.str_]:
    """Say in a word of each row what it found; "not distinguishable" where that is not sure.

    Args:
        table: As for `surely_other`, with the column named by `difference`.
        difference: The column whose sign decides between the two words.
        below: The word for a negative difference.
        above: The word for any other.
    """
    words = np.where(table[difference] < 0, below, above)
    return np.where(surely_other(table), words, "not distinguishable")


def change_table(
    item_table: pd.DataFrame, by: Literal["measure", "topic"], seed: int
) -> pd.DataFrame:
    """Tell whether training changed each measure, or the JS distance on each topic.

    Args:
        item_table: What `measures.item_table` returns, with the variants "before" and "after"; of
            several readings the main one counts.
        by: One row for each measure over all items, or for each topic over its items.
        seed: Of the bootstrap and the permutations.

    Returns:
        Columns measure or topic; items (how many), before, after (means), change, low, high and
        p_value (see `paired_change`), p_holm (corrected for the rows of the table) and verdict
        ("better", "worse" or "not distinguishable", as there, but by p_holm).
    """
    names = list(MEASURES) if by == "measure" else ["js_distance"]
    wide = main_reading(item_table).pivot(index=["qid", "topic"], columns="variant", values=names)
    topics = wide.index.get_level_values("topic")
    parts = (
        {name: (wide[name], name) for name in names}
        if by == "measure"
        else {topic: (wide["js_distance"][topics == topic], "js_distance") for topic in topics}
    )
    changes = [
        paired_change(pairs["before"], pairs["after"], seed, MEASURES[name].better == "lower")
        for pairs, name in parts.values()
    ]
    corrected = holm([change.p_value for change in changes])
    rows = [
        {
            by: part,
            "items": len(pairs),
            "before": pairs["before"].mean(),
            "after": pairs["after"].mean(),
            "change": change.mean,
            "low": change.low,
            "high": change.high,
            "p_value": change.p_value,
            "p_holm": p_holm,
            "verdict": change.verdict if p_holm < ALPHA else "not distinguishable",
        }
        for (part, (pairs, _)), change, p_holm in zip(
            parts.items(), changes, corrected, strict=True
        )
    ]
    return pd.DataFrame(rows)


def sentence(change: "Change | pd.Series[Any]", country: str) -> str:
    """Say in one sentence what training did.

    Args:
        change: A row of `change_table`, or a `Change` of the JS distance.
        country: The name of the people.
    """
    row: dict[Any, Any] = dict(change) if isinstance(change, pd.Series) else change._asdict()
    words = {
        "better": f"closer to the people of {country} than before",
        "worse": f"further from the people of {country} than before",
        "not distinguishable": f"not measurably closer to the people of {country} or further away",
    }[row["verdict"]]
    about = f' on "{row["topic"]}"' if "topic" in row else ""
    title = MEASURES[row.get("measure", "js_distance")].title
    size = row["change"] if "change" in row else row["mean"]
    p, how = (
        (row["p_holm"], " after Holm's correction") if "p_holm" in row else (row["p_value"], "")
    )
    sure = f"p < 0.001{how}" if p < 0.001 else f"p = {p:.3f}{how}"
    ends = f"95 % interval {row['low']:+.4f} to {row['high']:+.4f}"
    return (
        f"After training the model's answers{about} are {words} "
        f"({title} {size:+.4f}, {ends}, {sure}): {row['verdict']}."
    )


def survey_metrics(
    table: pd.DataFrame, references: pd.DataFrame, seed: int = 0
) -> dict[str, float]:
    """Return the numbers of a run's metrics file.

    Args:
        table: What `item_table` returns, maybe with a column `reading`: the main one, the last of
            `shares.READINGS` that is there, has the plain names.
        references: What `reference_lines` returns; averaged over the items of `table` only.
        seed: Of the bootstrap and the permutations.

    Returns:
        Name to number: `items` (how many); `<measure>_<variant>` of the main reading, and
        `<measure>_<variant>_fixed_order` or `_rotated` of others; `<measure>_<line>` with the
        lines' names in `LINES`; `js_distance_<variant>_low` and `_high`;
        `normalised_score_<variant>` of the JS distance (0 at the uniform line, 1 at the human
        floor); and with both variants `change`, `change_low`, `change_high`, `p_value` of the JS
        distance (after - before, negative is better).
    """
    main = main_reading(table)
    lines = line_summary(references, main["qid"]).set_index("line")
    metrics: dict[str, float] = {"items": float(main["qid"].nunique())}
    parts = {"": main}
    if "reading" in table:
        others = [x for x in READINGS if x in {*table["reading"]} - {*main["reading"]}]
        parts |= {"_" + x.replace(" ", "_"): table[table["reading"] == x] for x in others}
    for ending, part in parts.items():
        for variant, group in part.groupby("variant", observed=True):
            metrics |= {f"{m}_{variant}{ending}": float(group[m].mean()) for m in MEASURES}
    for line in lines.index:
        metrics |= {f"{m}_{LINES[line]}": float(lines.loc[line, m]) for m in MEASURES}
    uniform, floor = (metrics[f"js_distance_{line}"] for line in ("uniform", "human_floor"))
    by_item = main.pivot(index="qid", columns="variant", values="js_distance")
    for variant in map(str, by_item.columns):
        mean, low, high = interval(by_item[variant], seed)
        metrics |= {f"js_distance_{variant}_low": low, f"js_distance_{variant}_high": high}
        metrics[f"normalised_score_{variant}"] = normalised_score(mean, uniform, floor)
    if {"before", "after"} <= set(by_item.columns):
        change = paired_change(by_item["before"], by_item["after"], seed)
        metrics |= {"change": change.mean, "change_low": change.low, "change_high": change.high}
        metrics["p_value"] = change.p_value
    return metrics
