"""Countries and models on one map: two axes drawn through countries, models placed among them.

Two maps. One lies through the expected answers to all items (`item_means`, `fit_map`). The other
is that of Inglehart and Welzel, through ten features (`map_items`, `inglehart_welzel`): Inglehart
and Welzel 2005, Modernization, Cultural Change, and Democracy, chapter 2, page 49. Models and
countries of which little is known are placed on a map (`project`); they never help to draw it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from statsmodels.multivariate.factor_rotation import rotate_factors

from clca_utils.files import StudyError
from clca_utils.items import SurveyItem
from clca_utils.measures import mean_scores

Floats = npt.NDArray[np.float64]
Shares = Mapping[str, Floats]
"""Item to the shares of its options 1..k, which add up to 1."""

COMPONENTS = ("first component", "second component")
SECULAR, EXPRESSIVE = "secular-rational", "self-expression"

FALLING = {
    "happiness": "Q46",
    "trust": "Q57",
    "respect for authority": "Q45",
    "petition": "Q209",
    "national pride": "Q254",
}
"""Features of the map whose item begins with what the feature's name says."""
RISING = {"importance of God": "Q164", "homosexuality": "Q182", "abortion": "Q184"}
"""Features whose item, from 1 to 10, ends with what the name says."""

MENTIONED = 1
SELF_RELIANT, DUTIFUL = ("Q8", "Q14"), ("Q15", "Q17")
"""Qualities a child should learn: independence and determination, religious faith and obedience."""
CHOICES = ("Q154", "Q155")
"""The most important aim of one's country, and the second most important."""
POST_MATERIALIST = (2, 4)
"""A say for the people and freedom of speech; the materialist aims, 1 and 3, are order and stable
prices."""

FEATURES = (*FALLING, *RISING, "post-materialism", "autonomy")


@dataclass(frozen=True)
class CulturalMap:
    """Two axes through countries.

    Attributes:
        center: Mean of each feature over the countries.
        scale: Its standard deviation.
        loadings: Correlation of each feature (row) with each axis (column).
        left_out: Countries and features that the axes aren't drawn through; see `fit_map`.
    """

    center: "pd.Series[float]"
    scale: "pd.Series[float]"
    loadings: pd.DataFrame
    left_out: tuple[str, ...] = ()

    @property
    def explained(self) -> "pd.Series[float]":
        """Share of the standardised features' variance that each axis explains, 0 to 1."""
        return (self.loadings**2).mean()

    def title(self, axis: str) -> str:
        """Return an axis's name with the variance that it explains, for a figure."""
        return f"{axis} ({self.explained[axis]:.0%} of the variance)"


def fit_map(
    vectors: pd.DataFrame, axes: tuple[str, str] = COMPONENTS, complete: float = 0.9
) -> CulturalMap:
    """Draw two axes through countries: the principal components of their standardised features.

    Every country counts the same, however many people live there. Gaps aren't filled. Countries
    that lack more than 1 - `complete` of the features are left out, so that a few of them can't
    cost many features; then the features that any other country lacks, or in which all agree.
    (A country left out can still be placed: see `project`.)

    Args:
        vectors: One row per country, one column per feature; NaN where nothing is known.
        axes: What to call the components.
        complete: The share of the features that a country needs.

    Returns:
        The map; each axis points to where its largest loading is positive.

    Raises:
        StudyError: Fewer than three countries or two features are left.
    """
    kept = vectors[vectors.notna().mean(axis=1) >= complete].dropna(axis="columns")
    kept = kept.loc[:, np.ptp(kept.to_numpy(dtype=float), axis=0) > 1e-9] if len(kept) else kept
    left_out = [*vectors.index.difference(kept.index), *vectors.columns.difference(kept.columns)]
    if len(kept) < 3 or kept.shape[1] < 2:
        raise StudyError(
            "The cultural map needs 3 countries that have 2 features in common, but found "
            f"{len(kept)} countries and {kept.shape[1]} features; bring survey data of more."
        )
    center, scale = kept.mean(), kept.std(ddof=0)
    _, singular, rows = np.linalg.svd((kept - center) / scale, full_matrices=False)
    loadings = rows[:2].T * singular[:2] / np.sqrt(len(kept))
    largest = loadings[np.abs(loadings).argmax(axis=0), [0, 1]]
    table = pd.DataFrame(loadings * np.sign(largest), kept.columns, list(axes))
    return CulturalMap(center, scale, table, tuple(map(str, left_out)))


def inglehart_welzel(vectors: pd.DataFrame) -> CulturalMap:
    """Draw the map of Inglehart and Welzel: two principal components, rotated by varimax.

    The axis on which the importance of God weighs more is called "secular-rational" and points away
    from it; the other is "self-expression" and points to happiness and the acceptance of
    homosexuality (their loadings have all three so). Our fit is over the countries given, so its
    coordinates aren't those that they publish. Varimax: Kaiser 1958, doi:10.1007/BF02289233, of the
    loadings as they are.

    Args:
        vectors: One row per country, the ten features of `map_items` as columns; countries that
            lack one of them are left out.

    Raises:
        StudyError: Fewer than three countries have all of them.
    """
    found = fit_map(vectors.reindex(columns=list(FEATURES)), complete=1)
    rotated, _ = rotate_factors(found.loadings.to_numpy(), "varimax")
    table = pd.DataFrame(rotated, found.loadings.index)
    secular = int(np.abs(table.loc["importance of God"].to_numpy()).argmax())
    table = table[[1 - secular, secular]].set_axis([EXPRESSIVE, SECULAR], axis="columns")
    away, towards = table.loc["importance of God"], table.loc[["happiness", "homosexuality"]].sum()
    table *= [np.sign(towards[EXPRESSIVE]), -np.sign(away[SECULAR])]
    return replace(found, loadings=table)


def project(found: CulturalMap, vectors: pd.DataFrame, least: float = 0.3) -> pd.DataFrame:
    """Place countries or models on a map.

    A place is the pair of scores whose loadings fit the standardised features best, by least
    squares; with all features known that is the component score. The countries that the map was
    drawn through have mean 0 and variance 1 on each axis.

    Args:
        found: The map.
        vectors: One row per country or model; columns as those the map was drawn through.
        least: The share of the map's features that a row needs; one with fewer has no place (NaN).

    Returns:
        Index of `vectors`; the axes, and `known`: the share of the map's features that a row has.
        The fewer are known, the less sure is the place.
    """
    loadings = found.loadings.to_numpy()
    features = list(found.loadings.index)
    z = ((vectors.reindex(columns=features) - found.center) / found.scale).to_numpy(dtype=float)
    there = np.isfinite(z)
    places = np.full((len(z), loadings.shape[1]), np.nan)
    for row, known in enumerate(there):
        if known.sum() >= max(least * len(features), loadings.shape[1]):
            places[row] = np.linalg.lstsq(loadings[known], z[row, known])[0]
    table = pd.DataFrame(places, vectors.index, found.loadings.columns)
    return table.assign(known=there.mean(axis=1))


def item_means(shares: Shares, items: Iterable[SurveyItem]) -> dict[str, float]:
    """Return the expected answer to each item: 0 all chose the first option, 1 all the last.

    Options count as equally far apart. Items without shares are absent.
    """
    qids = [item.qid for item in items if item.qid in shares]
    return dict(zip(qids, mean_scores(shares[qid] for qid in qids).tolist(), strict=True))


def map_items(shares: Shares) -> dict[str, float]:
    """Return the ten features of the Inglehart-Welzel map, from shares of options.

    Higher is more of what a feature's name says: 0 to 1 for the eight items asked once;
    "post-materialism" (the survey's index Y002) from 1, both aims materialist, to 3, both
    post-materialist; "autonomy" (Y003) from -2, a child should learn religious faith and obedience,
    to 2, independence and determination.

    Both indices count answers, and a mean of counts needs no more than the shares. So both are
    exact but for people who answered only part of an index; `respondent_indices` leaves those out.
    A model may name the same aim twice, which the survey doesn't allow; it is taken at its word.

    Args:
        shares: Item to shares of its options. A feature whose items aren't all there is absent.
    """
    mean = dict(zip(shares, mean_scores(shares.values()).tolist(), strict=True))
    found = {name: 1 - mean[qid] for name, qid in FALLING.items() if qid in mean}
    found |= {name: mean[qid] for name, qid in RISING.items() if qid in mean}
    if all(qid in shares for qid in CHOICES):
        post = [code - 1 for code in POST_MATERIALIST]
        found["post-materialism"] = 1 + float(sum(shares[qid][post].sum() for qid in CHOICES))
    if all(qid in shares for qid in (*SELF_RELIANT, *DUTIFUL)):
        said = {qid: float(shares[qid][MENTIONED - 1]) for qid in (*SELF_RELIANT, *DUTIFUL)}
        reliant, dutiful = (sum(said[qid] for qid in qids) for qids in (SELF_RELIANT, DUTIFUL))
        found["autonomy"] = reliant - dutiful
    return found


def respondent_indices(
    answers: pd.DataFrame, weights: "pd.Series[float] | None" = None
) -> dict[str, float]:
    """Return `map_items`' "post-materialism" and "autonomy", computed person by person.

    Only people who answered all of an index's questions count, as in the survey's own Y003
    (worldvaluessurvey.org, "Building the autonomy index"). The other eight features are means of
    single items, so `map_items` has them exactly.

    Args:
        answers: One row per respondent, a column per item with codes from 1; NaN is no answer.
            Indices whose columns aren't all there, or that nobody answered, are absent.
        weights: Of the respondents; by default they count alike.
    """
    weight = pd.Series(1.0, index=answers.index) if weights is None else weights
    scores: dict[str, pd.Series[float]] = {}
    if set(CHOICES) <= set(answers):
        chosen = answers[list(CHOICES)].dropna()
        scores["post-materialism"] = 1.0 + chosen.isin(POST_MATERIALIST).sum(axis=1)
    if {*SELF_RELIANT, *DUTIFUL} <= set(answers):
        said = answers[[*SELF_RELIANT, *DUTIFUL]].dropna() == MENTIONED
        scores["autonomy"] = said[[*SELF_RELIANT]].sum(axis=1) - said[[*DUTIFUL]].sum(axis=1)
    return {
        name: float(np.average(score, weights=weight[score.index]))
        for name, score in scores.items()
        if len(score)
    }
