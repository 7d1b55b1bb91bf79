"""How far a model's answers lie from a people's: formulas on shares of options, one per idea.

Every measure takes the model's shares and the people's, both with the options along the last axis,
and gives one number per row; `MEASURES` lists them with the direction in which each is better.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.special import log_softmax, rel_entr, xlogy

from clca_utils.files import StudyError
from clca_utils.items import SurveyItem
from clca_utils.shares import share_vectors

Floats = npt.NDArray[np.float64]


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


def kl_release(model: npt.ArrayLike, people: npt.ArrayLike, outside: npt.ArrayLike = 0.0) -> Floats:
    """Return the divergence as the evaluation released with arXiv 2504.02953 computes it.

    sum(p * (ln p - log_softmax(q))) in nats, where p are the people's shares with a last option of
    0 for invalid answers, and q the model's with `outside` there: shares, not logits, go through
    the softmax (`torch.nn.functional.kl_div(log_softmax(q), p)`, summed). So its smallest value
    isn't 0: no q is sharper than e to 1, a perfect answer still costs up to about ln(e + k) - 1,
    and where the people agree, naming only their majority costs less than answering as they do.
    It's here to stand beside published numbers; lower is called closer. Works along the last axis.

    Args:
        model: Shares of the model's valid answers.
        people: Shares of the people's answers.
        outside: Share of the model's answers that were invalid, one number or one per row.
    """
    model, people, outside = (np.asarray(x, dtype=float) for x in (model, people, outside))
    q = model * (1 - outside[..., None])
    spare = np.broadcast_to(outside[..., None], (*q.shape[:-1], 1))
    costs = -log_softmax(np.concatenate([q, spare], axis=-1), axis=-1)[..., :-1]
    return np.asarray((xlogy(people, people) + people * costs).sum(axis=-1))


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return sum(|p - q|)/2: the share of people who'd have to change their answer; 0 to 1.

    Symmetric, a metric; lower is closer. Levin and Peres 2017, Markov Chains and Mixing Times,
    section 4.1. Works along the last axis.
    """
    difference = np.asarray(p, dtype=float) - np.asarray(q, dtype=float)
    return np.asarray(np.abs(difference).sum(axis=-1) / 2)


def wasserstein_1(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return how far answers must move along the scale to turn p into q: sum(|P - Q|)/(k - 1).

    P and Q are the cumulated shares; the options stand at 0, 1/(k-1), ..., 1. 0 (equal) to 1 (all
    at opposite ends), symmetric, a metric; lower is closer. As WorldValuesBench evaluates (Zhao et
    al. 2024, arXiv 2404.16308) and `scipy.stats.wasserstein_distance` computes. It takes the order
    of the options seriously, so it says little about items whose options have none. Works along
    the last axis.
    """
    difference = np.cumsum(np.asarray(p, dtype=float) - np.asarray(q, dtype=float), axis=-1)
    return np.asarray(np.abs(difference[..., :-1]).mean(axis=-1))


def expected_accuracy(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return sum(p * q): how often an answer drawn from p meets that of a person drawn from q.

    0 to 1, higher is better. It rewards naming the majority: its best answer isn't the people's
    distribution, so read it beside a distance. Works along the last axis.
    """
    return np.asarray((np.asarray(p, dtype=float) * np.asarray(q, dtype=float)).sum(axis=-1))


def expected_closeness(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Return 1 - E|x - y|/(k - 1) of an answer x drawn from p and a person's y drawn from q.

    E|x - y| is summed step by step: one of them lies at or below an option and the other above it
    with probability P(1 - Q) + Q(1 - P). 0 (all at opposite ends) to 1, higher is better; the
    expectation of the soft alignment of AlKhamissi et al. 2024 (arXiv 2402.13231). It rewards the
    people's median as accuracy rewards their majority. Works along the last axis.
    """
    p, q = (np.cumsum(np.asarray(x, dtype=float), axis=-1)[..., :-1] for x in (p, q))
    return np.asarray(1 - (p + q - 2 * p * q).mean(axis=-1))


class Measure(NamedTuple):
    """A measure of (model, people), its name in words, and the ends of its range.

    `best` is the end towards which it is better, though not every people can be met so well:
    accuracy and closeness reach 1 only where all agree, kl_release never reaches 0.
    """

    function: Callable[[Floats, Floats], Floats]
    title: str
    better: Literal["lower", "higher"]
    best: float
    worst: float


MEASURES: dict[str, Measure] = {
    "js_distance": Measure(js_distance, "Jensen-Shannon distance", "lower", 0, 1),
    "kl_people_model": Measure(
        lambda model, people: kl(people, model),
        "KL divergence of the model from the people",
        "lower",
        0,
        math.inf,
    ),
    "kl_model_people": Measure(
        kl, "KL divergence of the people from the model", "lower", 0, math.inf
    ),
    "wasserstein_1": Measure(wasserstein_1, "Wasserstein-1 distance", "lower", 0, 1),
    "total_variation": Measure(total_variation, "Total variation", "lower", 0, 1),
    "accuracy": Measure(expected_accuracy, "Expected accuracy", "higher", 1, 0),
    "closeness": Measure(expected_closeness, "Expected closeness", "higher", 1, 0),
    "kl_release": Measure(kl_release, "KL as released", "lower", 0, math.inf),
}
"""Every measure by the name of its column and metric."""


def measured(model: Floats, people: Floats) -> dict[str, float]:
    """Return all measures, averaged over the rows of `model` if it has several."""
    return {name: float(np.mean(one.function(model, people))) for name, one in MEASURES.items()}


def mean_scores(shares: Iterable[npt.ArrayLike]) -> Floats:
    """Return the expected answer to each item, with its options at 0, 1/(k-1), ..., 1."""
    vectors = [np.asarray(p, dtype=float) for p in shares]
    return np.array([p @ np.linspace(0, 1, len(p)) for p in vectors])


def spearman(model_means: npt.ArrayLike, people_means: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation over the items: does the model order them as people do?

    -1 to 1, higher is better; NaN where either has no order (all equal, or a single item).
    Spearman 1904, doi:10.2307/1412159.

    Args:
        model_means: What `mean_scores` returns of the model's answers.
        people_means: The same of the people's, in the same order of items.
    """
    model, people = (np.asarray(x, dtype=float) for x in (model_means, people_means))
    if len(model) < 2 or np.ptp(model) == 0 or np.ptp(people) == 0:
        return math.nan
    return float(stats.spearmanr(model, people).statistic)


def item_table(
    shares: pd.DataFrame,
    people: Mapping[str, Floats],
    items: Iterable[SurveyItem],
    outside: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Measure each variant of a model against the people, item by item.

    Args:
        shares: What `shares.option_shares` returns.
        people: What `survey.country_shares` returns.
        items: The items asked. Those that the people or a variant lack are left out for all.
        outside: What `shares.outside_mass` returns of the same answers, for `kl_release`, which
            counts invalid answers; without it there are none.

    Returns:
        Columns variant, qid, topic and those of `MEASURES`.

    Raises:
        StudyError: No item is left.
    """
    wide, asked = share_vectors(shares), list(items)
    variants = list(dict.fromkeys(variant for variant, _ in wide))
    rows = [
        {"variant": variant, "qid": item.qid, "topic": item.topic}
        | measured(wide[variant, item.qid], people[item.qid])
        for variant in variants
        for item in asked
        if item.qid in people and all((other, item.qid) in wide for other in variants)
    ]
    if not rows:
        raise StudyError(
            "answers.parquet, qid: no item there has data of the country's people; "
            "choose a country of the marginals file or bring its marginals."
        )
    if outside is not None:
        invalid = {
            (str(variant), str(qid)): float(mass)
            for variant, qid, mass in outside[["variant", "qid", "outside"]].itertuples(index=False)
        }
        for row in rows:
            key = str(row["variant"]), str(row["qid"])
            row["kl_release"] = float(kl_release(wide[key], people[key[1]], invalid[key]))
    return pd.DataFrame(rows)


def respondent_table(persons: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Measure a model that answers as real respondents against their own answers.

    Args:
        persons: What `shares.person_shares` returns.
        people: The microdata: a column respondent, and one per item with the code of the answer,
            NaN where it's missing; others are ignored.

    Returns:
        Columns variant, respondent, items (how many both answered), accuracy (mean probability of
        the respondent's own answer) and closeness (mean of sum(p_i * (1 - |i - own|/(k - 1)))),
        as `expected_accuracy` and `expected_closeness` against a single answer; 0 to 1, higher is
        better. Respondents without an answer in common are absent.
    """
    code, qids = pd.factorize(persons["qid"])
    mine = people.set_index("respondent").reindex(columns=list(qids))
    row = mine.index.get_indexer(pd.Index(persons["respondent"]))
    own = np.where(row < 0, np.nan, mine.to_numpy(dtype=float)[row, code])
    scale = persons.groupby("qid", observed=True)["option"].transform("max")
    step = (persons["option"] - own).abs() / (scale - 1)
    table = persons[["variant", "respondent", "qid"]].assign(
        accuracy=persons["share"] * (step == 0), closeness=persons["share"] * (1 - step)
    )[~np.isnan(own)]
    by_item = table.groupby(["variant", "respondent", "qid"], observed=True, sort=False).sum()
    by = by_item.groupby(["variant", "respondent"], observed=True, sort=False)
    return (
        by.mean()
        .assign(items=by.size())
        .reset_index()[["variant", "respondent", "items", "accuracy", "closeness"]]
    )
