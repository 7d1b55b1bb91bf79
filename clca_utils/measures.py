"""How far a model's answers lie from a people's, and what that distance is worth.

A distance alone says little, so each one is read against reference lines computed on the same
items: knowing nothing (uniform), knowing the most frequent answer (majority), always choosing the
first option, being another country's people, and the distance two samples of the same people
have from each other (the human floor).

`answers` below is the frame of answers.parquet: variant, respondent, qid, order, option, position,
logprob (natural log of the probability of the option's label, not normalised over the options).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.special import rel_entr

from clca_utils.files import StudyError
from clca_utils.survey import SurveyItem, country_shares

Floats = npt.NDArray[np.float64]

ASKED = ["variant", "respondent", "qid", "order"]
UNKNOWN_N = 1000
"""Respondents assumed for the human floor where the survey's n isn't published: as many as the
published evaluation draws per culture (arXiv 2504.02953)."""


def _renormalised(answers: pd.DataFrame) -> pd.DataFrame:
    """Add `p`, the probability of each option given that one of the options is chosen."""
    top = answers.groupby(ASKED)["logprob"].transform("max")
    if not (np.isfinite(top).all() and answers["logprob"].notna().all()):
        row = answers[~np.isfinite(top) | answers["logprob"].isna()].iloc[0]
        raise StudyError(
            f"answers.parquet, logprob: no number for {row['qid']} of variant {row['variant']!r} "
            "(the model's output isn't finite); train again with a lower learning rate."
        )
    table = answers.assign(p=np.exp(answers["logprob"] - top))
    table["p"] /= table.groupby(ASKED)["p"].transform("sum")
    return table


def option_shares(answers: pd.DataFrame, orders: Literal["all", "first"] = "all") -> pd.DataFrame:
    """Return the share of each option among a model's respondents.

    Per respondent, item and order the options' probabilities are renormalised (softmax of logprob
    over the options), then averaged over the orders, then over the respondents.

    Args:
        answers: The frame of answers.parquet.
        orders: "all" averages over the rotated orders, so that a liking for a position cancels;
            "first" takes the questionnaire's own order alone, as single-prompt evaluations do.

    Returns:
        Columns variant, qid, option, share; shares of a variant's item add up to 1.
    """
    asked = answers[answers["order"] == 0] if orders == "first" else answers
    person = _renormalised(asked).groupby(["variant", "respondent", "qid", "option"], sort=False)
    mean = person["p"].mean().groupby(["variant", "qid", "option"], sort=False).mean()
    return mean.rename("share").reset_index()


def share_vectors(shares: pd.DataFrame) -> dict[tuple[str, str], Floats]:
    """Return what `option_shares` returns as (variant, qid) to the shares of the options 1..k."""
    return {
        (str(variant), str(qid)): group.sort_values("option")["share"].to_numpy(dtype=float)
        for (variant, qid), group in shares.groupby(["variant", "qid"], sort=False)
    }


def outside_mass(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the probability a model put on anything but the options' labels.

    Mean over respondents and orders of 1 - sum(exp(logprob)); 0 to 1, lower is better. A value
    near 1 says that the renormalised shares rest on a sliver of the model's belief.

    Returns:
        Columns variant, qid, outside.
    """
    inside = answers.assign(p=np.exp(answers["logprob"])).groupby(ASKED)["p"].sum()
    outside = (1 - inside).clip(lower=0).groupby(["variant", "qid"]).mean()
    return outside.rename("outside").reset_index()


def position_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the mean renormalised probability of each displayed position, over all orders.

    With all rotations asked every option stands equally often at every position, so 1/scale
    everywhere means no position bias, whatever the model believes about the items.

    Returns:
        Columns variant, scale (number of options), position, share.
    """
    table = _renormalised(answers)
    table["scale"] = table.groupby(ASKED)["option"].transform("size")
    return table.groupby(["variant", "scale", "position"])["p"].mean().rename("share").reset_index()


def js_distance(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return the Jensen-Shannon distance: sqrt(KL(p|m)/2 + KL(q|m)/2), m = (p + q)/2, base 2.

    0 (equal) to 1 (no common answer), symmetric, a metric; lower is closer. Endres and Schindelin
    2003, doi:10.1109/TIT.2003.813506. As scipy's `jensenshannon(p, q, base=2)`, but shares must add
    up to 1 already and rounding can't take the divergence below 0. Works along the last axis.
    """
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    m = (p + q) / 2
    divergence = (rel_entr(p, m) + rel_entr(q, m)).sum(axis=-1) / (2 * np.log(2))
    return np.asarray(np.sqrt(np.clip(divergence, 0, 1)))


def kl(p: npt.ArrayLike, q: npt.ArrayLike, smoothing: float = 1e-3) -> Floats:
    """Return the Kullback-Leibler divergence sum(p * ln(p/q)) in nats, of smoothed shares.

    `smoothing` is added to every share of both, then each is renormalised, so that an option
    nobody chose costs a finite amount. 0 (equal) upwards, not symmetric; lower is closer.
    Kullback and Leibler 1951, doi:10.1214/aoms/1177729694. Works along the last axis.
    """
    p, q = (np.asarray(x, dtype=float) + smoothing for x in (p, q))
    p, q = (x / x.sum(axis=-1, keepdims=True) for x in (p, q))
    return np.asarray(np.clip(rel_entr(p, q).sum(axis=-1), 0, None))


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return sum(|p - q|)/2: the share of people who'd have to change their answer; 0 to 1.

    Lower is closer. Works along the last axis.
    """
    difference = np.asarray(p, dtype=float) - np.asarray(q, dtype=float)
    return np.asarray(np.abs(difference).sum(axis=-1) / 2)


def expected_accuracy(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return sum(p * q): how often an answer drawn from p meets that of a person drawn from q.

    0 to 1, higher is better. It rewards naming the majority: its best answer isn't the people's
    distribution, so read it beside a distance. Works along the last axis.
    """
    return np.asarray((np.asarray(p, dtype=float) * np.asarray(q, dtype=float)).sum(axis=-1))


MEASURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "js_distance": js_distance,
    "kl_people_model": lambda model, people: kl(people, model),
    "kl_model_people": kl,
    "total_variation": total_variation,
    "accuracy": expected_accuracy,
}
"""Every measure as a function of (model, people)."""

LINES = {
    "human floor": "human_floor",
    "nearest other country": "nearest_country",
    "mean other country": "mean_country",
    "uniform": "uniform",
    "majority": "majority",
    "always option 1": "option_1",
}
"""Reference lines as shown, and as named in metrics."""


def _measured(model: Floats, people: Floats) -> dict[str, float]:
    """Return all measures, averaged over the rows of `model` if it has several."""
    return {name: float(np.mean(measure(model, people))) for name, measure in MEASURES.items()}


def item_table(
    shares: pd.DataFrame, people: Mapping[str, Floats], items: Iterable[SurveyItem]
) -> pd.DataFrame:
    """Measure each variant of a model against the people, item by item.

    Args:
        shares: What `option_shares` returns.
        people: What `survey.country_shares` returns.
        items: The items asked. Those that the people or a variant lack are left out for all.

    Returns:
        Columns variant, qid, topic and those of `MEASURES`.

    Raises:
        StudyError: No item is left.
    """
    wide, asked = share_vectors(shares), list(items)
    variants = list(dict.fromkeys(variant for variant, _ in wide))
    rows = [
        {"variant": variant, "qid": item.qid, "topic": item.topic}
        | _measured(wide[variant, item.qid], people[item.qid])
        for variant in variants
        for item in asked
        if item.qid in people and all((other, item.qid) in wide for other in variants)
    ]
    if not rows:
        raise StudyError(
            "answers.parquet, qid: no item there has data of the country's people; "
            "choose a country of the marginals file or bring its marginals."
        )
    return pd.DataFrame(rows)


def reference_lines(
    marginals: pd.DataFrame,
    iso3: str,
    items: Iterable[SurveyItem],
    seed: int,
    draws: int = 200,
    *,
    min_items: int = 30,
) -> pd.DataFrame:
    """Measure answers that need no model against the people of `iso3`, item by item.

    Lines: "uniform" (knows nothing); "majority" (all mass on the people's most frequent option, so
    it has seen the answer); "always option 1"; "human floor" (two independent multinomial samples
    of half the respondents each, mean over `draws`); "people of XYZ" for each other country with
    `min_items` comparable items (or all, if `iso3` itself has fewer). The human floor is an
    approximation: survey weights lower the effective number of respondents, so the true floor
    lies a little higher. Where n isn't published, `UNKNOWN_N` is assumed.

    Returns:
        Columns line, qid and those of `MEASURES`, in the order above.
    """
    asked = list(items)
    people = country_shares(marginals, iso3, asked)
    rng = np.random.default_rng(seed)
    mine = marginals[marginals["country"] == iso3]
    respondents = mine.groupby("qid")["n"].first().fillna(UNKNOWN_N)
    rows = []
    for qid, p in people.items():
        first, most = np.eye(len(p))[[0, int(np.argmax(p))]]
        half = max(int(respondents[qid]) // 2, 1)
        samples = rng.multinomial(half, p, size=(2, draws)) / half
        rows += [
            {"line": "uniform", "qid": qid} | _measured(np.full_like(p, 1 / len(p)), p),
            {"line": "majority", "qid": qid} | _measured(most, p),
            {"line": "always option 1", "qid": qid} | _measured(first, p),
            {"line": "human floor", "qid": qid} | _measured(samples[0], samples[1]),
        ]
    for other in sorted(set(marginals["country"]) - {iso3}):
        theirs = country_shares(marginals, other, asked)
        common = [qid for qid in people if qid in theirs]
        if common and len(common) >= min(min_items, len(people)):
            line = f"people of {other}"
            rows += [
                {"line": line, "qid": qid} | _measured(theirs[qid], people[qid]) for qid in common
            ]
    table = pd.DataFrame(rows, columns=["line", "qid", *MEASURES])
    lines = ["human floor", "uniform", "majority", "always option 1"]
    return table.sort_values("line", key=lambda x: x.map(lambda y: y not in lines), kind="stable")


def line_summary(references: pd.DataFrame, qids: Iterable[str] | None = None) -> pd.DataFrame:
    """Average the reference lines over one set of items.

    Args:
        references: What `reference_lines` returns.
        qids: The items the model is measured on; by default all of the country's.

    Returns:
        Columns line, detail and those of `MEASURES`, one row each for "human floor", "nearest
        other country" (`detail` names it), "mean other country" (`detail` counts them),
        "uniform", "majority" and "always option 1". Other countries count only if they have all
        the items, so that every number is over the same ones; without any, both rows are absent.

    Raises:
        StudyError: The lines lack one of the items.
    """
    wanted = set(references["qid"] if qids is None else qids)
    table = references[references["qid"].isin(wanted)].groupby("line")
    means = table[list(MEASURES)].mean()[table["qid"].nunique() == len(wanted)]
    if "uniform" not in means.index:
        raise StudyError(
            "marginals, qid: the reference lines lack an item that the model was measured on; "
            "compute both from the same country and items."
        )
    means.insert(0, "detail", "")
    others = means[means.index.str.startswith("people of ")]
    if len(others):
        name = str(others["js_distance"].idxmin())
        means.loc["nearest other country"] = others.loc[name]
        means.loc["nearest other country", "detail"] = name.removeprefix("people of ")
        means.loc["mean other country"] = others.drop(columns="detail").mean()
        means.loc["mean other country", "detail"] = f"{len(others)} countries"
    return means.loc[[line for line in LINES if line in means.index]].reset_index()


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def interval(
    values: npt.ArrayLike, seed: int, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Return the mean of `values` (one per item) with its percentile bootstrap interval.

    The items are resampled with replacement (Efron and Tibshirani 1993, chapter 13): it says how
    much the mean hangs on the choice of items, not how much another seed would change it. A single
    value has no spread to resample, so its interval has no width. The order of the values doesn't
    matter.
    """
    data = np.sort(np.asarray(values, dtype=float))
    mean = float(data.mean())
    if np.ptp(data) == 0:
        return Interval(mean, mean, mean)
    rng = np.random.default_rng(seed)
    ends = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Interval(mean, float(ends.low), float(ends.high))


class Change(NamedTuple):
    """A mean change with its interval, the p value of "no change", and a verdict in words."""

    mean: float
    low: float
    high: float
    p_value: float
    verdict: Literal["better", "worse", "not distinguishable"]


def paired_change(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    seed: int,
    lower_is_better: bool = True,
    alpha: float = 0.05,
) -> Change:
    """Compare two values of the same items, in the same order.

    The mean of after - before with its bootstrap interval, and the two-sided p value of a paired
    permutation test that swaps before and after within an item (10,000 times, or all swaps where
    there are fewer; one item alone proves nothing). The verdict is "better" or "worse" only if the
    p value is below `alpha` and the interval excludes 0.
    """
    x, y = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    mean, low, high = interval(y - x, seed)
    p_value = 1.0
    if len(x) > 1:
        test = stats.permutation_test(
            (y, x),
            lambda a, b, axis=-1: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=9999,
            rng=np.random.default_rng(seed),
        )
        p_value = float(test.pvalue)
    if p_value >= alpha or low <= 0 <= high:
        return Change(mean, low, high, p_value, "not distinguishable")
    better = (mean < 0) == lower_is_better
    return Change(mean, low, high, p_value, "better" if better else "worse")


def survey_metrics(
    table: pd.DataFrame, references: pd.DataFrame, seed: int = 0
) -> dict[str, float]:
    """Return the numbers of a run's metrics file.

    Args:
        table: What `item_table` returns. With a column `orders` ("all" or "first"), the rows of
            "first" are reported as `<measure>_<variant>_fixed_order`.
        references: What `reference_lines` returns; averaged over the items of `table` only.
        seed: Of the bootstrap and the permutations.

    Returns:
        Name to number: `items` (how many); `<measure>_<variant>`; `<measure>_<line>` (human_floor,
        nearest_country, mean_country, uniform, majority, option_1); `js_distance_<variant>_low`
        and `_high`; `normalised_score_<variant>` (0 at the uniform line, 1 at the human floor,
        negative: further away than guessing evenly); and with both variants `change`, `change_low`,
        `change_high`, `p_value` of the JS distance (after - before, negative is better).
    """
    orders = table["orders"] if "orders" in table else pd.Series("all", index=table.index)
    rotated = table[orders == "all"]
    lines = line_summary(references, rotated["qid"]).set_index("line")
    metrics: dict[str, float] = {"items": float(rotated["qid"].nunique())}
    for ending, part in (("", rotated), ("_fixed_order", table[orders == "first"])):
        for variant, group in part.groupby("variant"):
            metrics |= {f"{m}_{variant}{ending}": float(group[m].mean()) for m in MEASURES}
    for line in lines.index:
        metrics |= {f"{m}_{LINES[line]}": float(lines.loc[line, m]) for m in MEASURES}
    uniform, floor = (metrics[f"js_distance_{line}"] for line in ("uniform", "human_floor"))
    by_item = rotated.pivot(index="qid", columns="variant", values="js_distance")
    for variant in map(str, by_item.columns):
        mean, low, high = interval(by_item[variant], seed)
        metrics |= {f"js_distance_{variant}_low": low, f"js_distance_{variant}_high": high}
        metrics[f"normalised_score_{variant}"] = (uniform - mean) / (uniform - floor)
    if {"before", "after"} <= set(by_item.columns):
        change = paired_change(by_item["before"], by_item["after"], seed)
        metrics |= {"change": change.mean, "change_low": change.low, "change_high": change.high}
        metrics["p_value"] = change.p_value
    return metrics
