"""A model's answers beside a people's: what stage 05 computes and stage 06 draws again.

The tables are kept as CSV files, so that every number and figure can be remade without the model
and without the survey file.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from clca_utils.answers import condition
from clca_utils.cultural_map import (
    FEATURES,
    CulturalMap,
    fit_map,
    inglehart_welzel,
    item_means,
    map_items,
    project,
    respondent_indices,
)
from clca_utils.culture import Culture
from clca_utils.files import StudyError, shown, write_text
from clca_utils.items import MAP_ITEMS, MAP_TOPIC, SurveyItem
from clca_utils.measures import (
    MEASURES,
    Floats,
    item_table,
    mean_scores,
    respondent_table,
    spearman,
)
from clca_utils.references import line_summary, normalised_score, reference_lines
from clca_utils.shares import (
    main_reading,
    option_shares,
    outside_mass,
    person_shares,
    position_shares,
    readings_of,
    share_vectors,
)
from clca_utils.survey import LOW_TRUST, Survey, country_shares, coverage, coverage_note, people_of
from clca_utils.uncertainty import (
    crossed_interval,
    paired_change,
    respondent_interval,
    survey_metrics,
)

PEOPLE = "people"
UNIFORM = "uniform"


@dataclass(frozen=True)
class Comparison:
    """The tables of one run.

    Attributes:
        shares: variant ("before", "after", "people"), qid, option, share; of the main reading.
        items: variant, qid, topic, reading and the measures, item by item; the last of
            `shares.READINGS` that is there is the main one.
        references: line, qid and the measures.
        positions: variant, scale, position, share.
        coverage: qid, tier, n, status, country, iso3, asked_as (whom the model answered as).
        places: map ("values", "inglehart-welzel"), kind ("country", "before", "after",
            "uniform"), label, x, y, known (share of the map's features), tier, x_title, y_title.
    """

    shares: pd.DataFrame
    items: pd.DataFrame
    references: pd.DataFrame
    positions: pd.DataFrame
    coverage: pd.DataFrame
    places: pd.DataFrame

    @property
    def country(self) -> str:
        """Name of the country whose people are compared."""
        return str(self.coverage["country"].iloc[0])

    @property
    def iso3(self) -> str:
        """Its three letters."""
        return str(self.coverage["iso3"].iloc[0])

    @property
    def note(self) -> str:
        """What to know about the people's data and the respondents, in a sentence each."""
        return data_note(self.coverage)

    @property
    def tiers(self) -> dict[str, str]:
        """How far each item's data is to be trusted."""
        return dict(zip(self.coverage["qid"], self.coverage["tier"], strict=True))

    @property
    def people(self) -> dict[str, Floats]:
        """The people's answers: qid to shares of the options, in order."""
        theirs = self.shares[self.shares["variant"] == PEOPLE].sort_values("option")
        return {str(qid): group["share"].to_numpy() for qid, group in theirs.groupby("qid")}

    @property
    def model_shares(self) -> pd.DataFrame:
        """The model's answers alone."""
        return self.shares[self.shares["variant"] != PEOPLE]

    @property
    def main(self) -> pd.DataFrame:
        """The measures of the main reading, item by item."""
        return main_reading(self.items)


def data_note(coverage: pd.DataFrame) -> str:
    """Say in a sentence each what to know about the people's data and the respondents.

    Args:
        coverage: As `Comparison.coverage`.
    """
    first = coverage.iloc[0]
    return f"{coverage_note(coverage, str(first['iso3']))} Asked as {first['asked_as']}."


def compare(
    answers: pd.DataFrame,
    culture: Culture,
    survey: Survey,
    items: Sequence[SurveyItem],
    seed: int,
    *,
    asked_as: str,
) -> Comparison:
    """Compare a model's answers with those of a country's people.

    Args:
        answers: The frame of answers.parquet; only the main measurement counts.
        culture: Whose people.
        survey: What people answered.
        items: The items asked.
        seed: Of the human floor's draws.
        asked_as: Whom the model answered as, in words.

    Raises:
        StudyError: The survey holds nothing of the country.
    """
    main = condition(answers, "main")
    people = people_of(survey.marginals, culture.iso3, items)
    theirs = pd.DataFrame(
        [(PEOPLE, qid, i, share) for qid, row in people.items() for i, share in enumerate(row, 1)],
        columns=["variant", "qid", "option", "share"],
    )
    outside, readings = outside_mass(main), readings_of(main)
    for variant, mass in outside.groupby("variant", observed=True)["outside"]:
        if mass.min() == 1:  # written answers, and none could be read
            raise StudyError(
                f"answers.parquet, status: no answer of the model {variant} could be read as an "
                "option; ask with wvs_analysis.method: weigh, or see the replies there."
            )
    shares = {reading: option_shares(main, reading) for reading in readings}
    tables = [
        item_table(shares[reading], people, items, outside).assign(reading=reading)
        for reading in readings
    ]
    usual = shares[readings[-1]].astype({"variant": str, "qid": str})
    known = coverage(survey.marginals, culture.iso3, items)
    halves = survey.halves(culture.iso3, items, seed)
    return Comparison(
        shares=pd.concat([usual, theirs], ignore_index=True),
        items=pd.concat(tables, ignore_index=True),
        references=reference_lines(survey.marginals, culture.iso3, items, seed, halves=halves),
        positions=position_shares(main),
        coverage=known.assign(country=culture.country, iso3=culture.iso3, asked_as=asked_as),
        places=places(usual, survey.marginals, items, survey.people),
    )


def line_up(seen: Comparison) -> pd.DataFrame:
    """Return every measure of the model and of the reference lines, one row each.

    Returns:
        Index: "model before", "model after", then the reference lines, with what is special about
        one in brackets. Columns: the measures, and `score`: of the JS distance, 0 at the uniform
        line and 1 at the human floor.
    """
    models = seen.main.groupby("variant", sort=False)[list(MEASURES)].mean()
    models.index = "model " + models.index
    lines = line_summary(seen.references, seen.main["qid"]).set_index("line")
    floor, uniform = (float(lines["js_distance"][line]) for line in ("human floor", "uniform"))
    details = lines.pop("detail").map(lambda detail: f" ({detail})" if detail else "")
    lines.index += details
    table = pd.concat([models, lines])[list(MEASURES)].rename_axis("answers")
    return table.assign(
        score=[normalised_score(value, uniform, floor) for value in table["js_distance"]]
    )


def with_lines(changes: pd.DataFrame, seen: Comparison) -> pd.DataFrame:
    """Add what guessing evenly and the human floor come to, over the same items.

    Args:
        changes: What `uncertainty.change_table` returns, by measure or by topic.
        seen: The comparison that it is of.

    Returns:
        The same with the columns uniform and human_floor after `after`.
    """
    topics = seen.main.drop_duplicates("qid").set_index("qid")["topic"]
    lines = seen.references[seen.references["qid"].isin(topics.index)]
    table, place = changes.copy(), list(changes).index("after")
    for line in ("human floor", "uniform"):  # each goes right behind
        mine = lines[lines["line"] == line]
        if "topic" in table:
            values = mine.groupby(mine["qid"].map(topics))["js_distance"].mean()
        else:
            values = mine[list(MEASURES)].mean()
        of_row = table["topic" if "topic" in table else "measure"].map(values)
        table.insert(place + 1, line.replace(" ", "_"), of_row)
    return table


def against_uniform(seen: Comparison, seed: int) -> pd.DataFrame:
    """Compare the model with guessing evenly, item by item.

    Args:
        seen: The comparison.
        seed: Of bootstrap and permutations.

    Returns:
        One row per variant: variant; items, how many; change, the model's mean JS distance minus
        that of the even answer (negative: closer than guessing), with low, high, p_value and
        verdict as `uncertainty.paired_change` has them.
    """
    lines = seen.references[seen.references["line"] == "uniform"].set_index("qid")["js_distance"]
    rows = []
    for variant, mine in seen.main.groupby("variant", sort=False):
        even = lines.loc[mine["qid"]].to_numpy()
        change = paired_change(even, mine["js_distance"].to_numpy(), seed)._asdict()
        change["change"] = change.pop("mean")
        rows.append({"variant": variant, "items": len(mine)} | change)
    columns = ["variant", "items", "change", "low", "high", "p_value", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def metrics_of(
    seen: Comparison, answers: pd.DataFrame, survey: Survey, seed: int
) -> dict[str, float]:
    """Return the numbers of a run's metrics file.

    Those of `uncertainty.survey_metrics`; `low_trust_items` and `synthetic_respondents`, how many;
    and per variant: `outside_<variant>`,
    the probability outside the options; `refused_<variant>` and `unparsable_<variant>`, shares of
    written answers; `spearman_<variant>`, of the items' mean answers; intervals of the JS distance
    over respondents, `js_distance_<variant>_respondents_low`, and over respondents and items,
    `..._crossed_low` (and `_high`); where the respondents are from microdata, `own_accuracy_` and
    `own_closeness_<variant>`, of each one's own answers.
    """
    main = condition(answers, "main")
    people, persons = seen.people, person_shares(main, readings_of(main)[-1])
    metrics = survey_metrics(seen.items, seen.references, seed)
    trust = seen.coverage["status"] == "compared, low trust"
    metrics["low_trust_items"] = float(trust.sum())
    count = persons["respondent"].nunique()
    made_up = "synthetic" in str(seen.coverage["asked_as"].iloc[0])
    metrics["synthetic_respondents"] = float(count if made_up else 0)
    outside = outside_mass(main).groupby("variant", observed=True)["outside"].mean()
    surveyed = survey.respondents(seen.iso3)
    own = respondent_table(persons, surveyed) if surveyed is not None else None
    vectors = share_vectors(seen.model_shares)
    for variant, mine in persons.groupby("variant", observed=True):
        metrics[f"outside_{variant}"] = float(outside[variant])
        once = (main["variant"] == variant) & (main["position"] == 1)  # a row per question
        status = main.loc[once, "status"]
        if (status != "weighed").any():
            for word in ("refused", "unparsable"):
                metrics[f"{word}_{variant}"] = float((status == word).mean())
        qids = [qid for qid in people if (str(variant), qid) in vectors]
        means = mean_scores(vectors[str(variant), qid] for qid in qids)
        metrics[f"spearman_{variant}"] = spearman(means, mean_scores(people[qid] for qid in qids))
        metrics[f"respondents_{variant}"] = float(mine["respondent"].nunique())
        if mine["respondent"].nunique() > 1:
            for name, interval in (
                ("respondents", respondent_interval(mine, people, seed)),
                ("crossed", crossed_interval(mine, people, seed)),
            ):
                metrics[f"js_distance_{variant}_{name}_low"] = interval.low
                metrics[f"js_distance_{variant}_{name}_high"] = interval.high
        if own is not None:
            part = own[own["variant"] == variant]
            metrics |= {f"own_{m}_{variant}": part[m].mean() for m in ("accuracy", "closeness")}
    return metrics


def places(
    shares: pd.DataFrame,
    marginals: pd.DataFrame,
    items: Sequence[SurveyItem],
    people: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return where countries, the model and the even answer lie on cultural maps.

    One map through the items of the study, and, where the items and the people's answers to them
    are there, that of Inglehart and Welzel; see `clca_utils.cultural_map`.

    Args:
        shares: The model's answers: variant, qid, option, share.
        marginals: The people's.
        items: The items asked.
        people: Microdata, where there is any: its people's indices are exact.

    Returns:
        The table of `Comparison.places`; empty where no map can be drawn.
    """
    values = [item for item in items if item.topic != MAP_TOPIC]
    if {item.qid for item in items} <= set(MAP_ITEMS):
        values = []  # five of the 44 don't make the other map
    by_country = {
        str(iso3): country_shares(some, str(iso3), items)
        for iso3, some in marginals.groupby("country")
    }
    vectors = share_vectors(shares)
    models: dict[str, dict[str, Floats]] = {}
    for (variant, qid), row in vectors.items():
        models.setdefault(variant, {})[qid] = row
    even = {item.qid: np.full(len(item.options), 1 / len(item.options)) for item in items}
    tiers = {str(iso3): _worst(some) for iso3, some in marginals.groupby("country")["tier"]}
    tables = []
    if len(values) > 1:
        countries, rest = (
            _table({name: item_means(row, values) for name, row in rows.items()})
            for rows in (by_country, models)
        )
        features = item_means(even, values)
        with suppress(StudyError):  # too few countries are known to draw a map through
            drawn = fit_map(countries)
            tables += [_placed("values", drawn, countries, rest, even=features, tiers=tiers)]
    if set(MAP_ITEMS) <= set(even):
        countries, rest = (
            _table({name: map_items(row) for name, row in rows.items()})
            for rows in (by_country, models)
        )
        for iso3, mine in people.groupby("country") if people is not None else ():
            for index, value in respondent_indices(mine, mine["weight"]).items():
                countries.loc[str(iso3), index] = value
        countries = countries.reindex(columns=list(FEATURES)).dropna()
        name, features = "inglehart-welzel", map_items(even)
        with suppress(StudyError):
            drawn = inglehart_welzel(countries)
            tables += [_placed(name, drawn, countries, rest, even=features, tiers=tiers)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=PLACES)


PLACES = ["map", "kind", "label", "x", "y", "known", "tier", "x_title", "y_title"]


def _table(rows: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict({k: dict(v) for k, v in rows.items()}, orient="index")


def _worst(tiers: "pd.Series[str]") -> str:
    """Return the tier of a country as a whole: low trust only if most of its data is."""
    low = tiers.isin(LOW_TRUST)
    return str((tiers[low] if low.mean() > 0.5 else tiers[~low]).mode().iloc[0])


def _placed(
    name: str,
    drawn: CulturalMap,
    countries: pd.DataFrame,
    models: pd.DataFrame,
    *,
    even: Mapping[str, float],
    tiers: Mapping[str, str],
) -> pd.DataFrame:
    """Return the places on one map, as rows of `Comparison.places`."""
    groups = [
        project(drawn, countries).assign(kind="country"),
        project(drawn, models).assign(kind=list(models.index)),
        project(drawn, _table({UNIFORM: even})).assign(kind=UNIFORM),
    ]
    table = pd.concat(groups).rename_axis("label").reset_index()
    x, y = drawn.loadings.columns
    table = table.rename(columns={x: "x", y: "y"}).assign(
        map=name, tier=table["label"].map(tiers), x_title=drawn.title(x), y_title=drawn.title(y)
    )
    return table.dropna(subset=["x", "y"]).fillna({"tier": ""})[PLACES]


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write the tables as <folder>/<name>.csv; those of an earlier comparison go."""
    for old in folder.glob("*.csv"):
        old.unlink()
    for field in fields(comparison):
        write_text(
            folder / f"{field.name}.csv", getattr(comparison, field.name).to_csv(index=False)
        )


def read_table(folder: Path, name: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read one of the tables back.

    Args:
        folder: Where they are.
        name: Which: a field of `Comparison`.
        columns: Which of its columns, if not all.

    Raises:
        StudyError: It is missing.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise StudyError(f"{shown(path)} is missing: run 05_wvs_analysis first.")
    table = pd.read_csv(path, keep_default_na=name == "coverage", usecols=columns)
    return table.fillna({"tier": ""}) if name == "coverage" else table


def read_comparison(folder: Path) -> Comparison:
    """Read the tables back.

    Raises:
        StudyError: One is missing.
    """
    return Comparison(**{one.name: read_table(folder, one.name) for one in fields(Comparison)})
