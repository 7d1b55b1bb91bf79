"""Validity checks of stage 05: what more is asked than the survey, and what the answers show.

Each check asks a few of the same respondents again, one thing changed: the wording, the time, the
prompt, or the country. What they find says how far the main measurement can be trusted.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from clca_utils.answers import condition
from clca_utils.asking import Questionnaire
from clca_utils.choices import PERSONAL, Check, Prompt
from clca_utils.culture import Culture
from clca_utils.files import StudyError
from clca_utils.items import SurveyItem, languages, load_items
from clca_utils.measures import Floats, item_table
from clca_utils.respondents import language_of, respondents
from clca_utils.shares import Reading, option_shares, person_shares, readings_of, share_vectors
from clca_utils.survey import Survey, country_shares
from clca_utils.validity import (
    chosen_options,
    cultures_apart,
    persona_effect,
    position_bias,
    retest_table,
    wording_table,
)

PROBED = 2
"""Respondents who are asked again: enough to see whether anything matters, at a small price."""

COMPARABLE = 30
"""Items of which a country's people must be known for its culture to be told apart from others."""


def check_forms(
    main: Questionnaire,
    prompt: Prompt,
    *,
    culture: Culture,
    survey: Survey,
    checks: Sequence[Check],
    others: Sequence[Culture],
    weighted: bool = True,
) -> list[Questionnaire]:
    """Return what more is asked for the validity checks.

    Args:
        main: The main measurement.
        prompt: How its respondents are told who they are.
        culture: Whose people they are.
        survey: What people answered.
        checks: Which checks are made.
        others: Cultures between which the model shall tell, for "cultures".
        weighted: Draw respondents by the survey's weights.
    """
    probed, own = main.respondents[:PROBED], language_of(culture, prompt)
    surveyed = survey.respondents(culture.iso3)
    few = PROBED if surveyed is None else min(PROBED, int((surveyed["weight"] > 0).sum()))
    forms = []
    if "paraphrase" in checks:
        worded = [
            item.model_copy(update={"question": item.paraphrase})
            for item in main.items
            if item.paraphrase
        ]
        if worded:
            forms += [main._replace(condition="paraphrase", respondents=probed, items=worded)]
    if "retest" in checks:
        for time in (1, 2):
            forms += [
                main._replace(
                    condition=f"retest {time}",
                    respondents=probed,
                    orders="first",
                    method="generate",
                    temperature=1.0,
                    seed=2 * main.seed + time,
                )
            ]
    for other in get_args(Prompt) if "prompts" in checks else ():
        language = language_of(culture, other)
        if other == prompt or (other == "native" and language not in languages()[1:]):
            continue
        forms += [
            main._replace(
                condition=f"prompt: {other}",
                respondents=respondents(
                    culture,
                    other,
                    count=few,
                    seed=main.seed,
                    people=survey.people,
                    weighted=weighted,
                ),
                items=in_language(main.items, language, own),
            )
        ]
    if "cultures" in checks:
        forms += [
            main._replace(
                condition=f"as {other.name}",
                respondents=respondents(other, "nationality"),
                items=in_language(main.items, "en", own),
            )
            for other in others
            if comparable(other, survey, main.items)
        ]
    return forms


def in_language(items: Sequence[SurveyItem], language: str, own: str) -> list[SurveyItem]:
    """Return the same items in another language than their own."""
    if language == own:
        return list(items)
    translated = {item.qid: item for item in load_items("all", language)}
    return [translated[item.qid] for item in items]


def comparable(culture: Culture, survey: Survey, items: Sequence[SurveyItem]) -> bool:
    """Say whether enough is known of a culture's people to tell them from others."""
    least = min(COMPARABLE, len(items))
    return len(country_shares(survey.marginals, culture.iso3, items)) >= least


def check_tables(
    answers: pd.DataFrame,
    prompt: Prompt,
    *,
    people: Mapping[str, Floats],
    items: Sequence[SurveyItem],
    peoples: Mapping[str, Mapping[str, Floats]],
    seed: int,
    surveyed: bool = False,
) -> dict[str, pd.DataFrame]:
    """Return what the checks found.

    Args:
        answers: The frame of answers.parquet, all conditions.
        prompt: Of the main measurement.
        people: The country's people, qid to shares.
        items: The items asked.
        peoples: Culture to the shares of its people, as for `people`.
        seed: Of permutations.
        surveyed: Single respondents are from microdata; else they are called synthetic.

    Returns:
        Name to table, of the checks that were asked: "position" (variant, bias), "training"
        (moved: mean JS distance between the answers before and after), "wording"
        (variant, moved: mean JS distance to the answers in the first wording), "retest" (see
        `validity.retest_table`; asked: questions put), "prompts" (variant, prompt, moved: mean JS
        distance to the main prompt's answers, spread: between respondents, js_distance: to the
        people), "cultures" (variant, asked_as, people, correlation) and "apart" (variant,
        accuracy, chance, p_value).
    """
    main = condition(answers, "main")
    reading = readings_of(main)[-1]
    usual = option_shares(main, reading)
    asked = list(map(str, answers["condition"].unique()))
    tables = {"position": position_bias(main)}
    changed = usual.astype({"variant": str, "qid": str})
    before, after = (changed[changed["variant"] == name] for name in ("before", "after"))
    if len(before) and len(after):
        moved = wording_table(before.assign(variant="after"), after)
        tables["training"] = _mean(moved, ["variant"]).rename(columns={"js_distance": "moved"})
    if "paraphrase" in asked:
        again = condition(answers, "paraphrase")
        same = main[main["respondent"].isin(again["respondent"])]
        moved = wording_table(option_shares(same, reading), option_shares(again, reading))
        tables["wording"] = _mean(moved, ["variant"]).rename(columns={"js_distance": "moved"})
    if {"retest 1", "retest 2"} <= set(asked):
        once, again = (chosen_options(condition(answers, f"retest {time}")) for time in (1, 2))
        asks = once.groupby("variant", observed=True).size().rename("asked").reset_index()
        tables["retest"] = retest_table(once, again).merge(asks, on="variant")
    # of a condition under which no written answer could be read nothing can be said
    read = list(map(str, answers.loc[answers["logprob"] > -np.inf, "condition"].unique()))
    prompted = [name for name in read if name.startswith("prompt: ")]
    if prompted:
        rows = []
        for name in ["main", *prompted]:
            who = prompt if name == "main" else name.removeprefix("prompt: ")
            note = " (synthetic)" if who in PERSONAL and not surveyed else ""
            row = _prompt_row(condition(answers, name), reading, usual, people, items)
            rows.append(row.assign(prompt=f"{who}{note}"))
        tables["prompts"] = pd.concat(rows, ignore_index=True)
    told = [name for name in read if name.startswith("as ")]
    tables |= _apart(answers[answers["condition"].isin(told)], reading, peoples, seed)
    return tables


def _mean(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return table.groupby(by, sort=False)["js_distance"].mean().reset_index()


def _prompt_row(
    answers: pd.DataFrame,
    reading: Reading,
    usual: pd.DataFrame,
    people: Mapping[str, Floats],
    items: Sequence[SurveyItem],
) -> pd.DataFrame:
    """Return what one prompt does: a row per variant."""
    persons = person_shares(answers, reading)
    shares = option_shares(answers, reading)
    moved = _mean(wording_table(usual, shares), ["variant"]).set_index("variant")["js_distance"]
    far = item_table(shares, people, items).groupby("variant", sort=False)["js_distance"].mean()
    spread = persona_effect(persons).set_index("variant")["spread"]
    counts = persons.groupby("variant", observed=True)["respondent"].nunique()
    table = pd.DataFrame({"respondents": counts, "moved": moved, "js_distance": far})
    return table.assign(spread=spread.where(counts > 1)).rename_axis("variant").reset_index()


def _apart(
    answers: pd.DataFrame,
    reading: Reading,
    peoples: Mapping[str, Mapping[str, Floats]],
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Return whether each variant tells the cultures apart: the matrix, and what it adds up to.

    Of a variant that answered as fewer than two cultures nothing is said.
    """
    matrices, found = [], []
    for variant, mine in answers.groupby("variant", observed=True, sort=False):
        model: dict[str, dict[str, Floats]] = {}
        for name, some in mine.groupby("condition", observed=True, sort=False):
            if vectors := share_vectors(option_shares(some, reading)):
                mine_as = {qid: shares for (_, qid), shares in vectors.items()}
                model[str(name).removeprefix("as ")] = mine_as
        try:
            matrix, numbers = cultures_apart(model, {name: peoples[name] for name in model}, seed)
        except StudyError:  # too few cultures or common items to tell anything apart
            continue
        long = matrix.rename_axis("asked_as").reset_index().melt("asked_as", var_name="people")
        matrices.append(long.rename(columns={"value": "correlation"}).assign(variant=variant))
        found.append({"variant": variant} | numbers)
    if not found:
        return {}
    return {"cultures": pd.concat(matrices, ignore_index=True), "apart": pd.DataFrame(found)}


def check_metrics(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return what the checks found as named numbers, for a run's metrics file."""
    numbers = {
        "position": {"bias": "position_bias"},
        "training": {"moved": "training_moved"},
        "wording": {"moved": "wording_moved"},
        "retest": {"kappa": "retest_kappa", "agreement": "retest_agreement", "n": "retest_n"},
        "apart": {"accuracy": "cultures_accuracy", "p_value": "cultures_p_value"},
    }
    return {
        f"{name}_{row['variant']}": float(row[column])
        for table, columns in numbers.items()
        if table in tables
        for row in tables[table].to_dict("records")
        for column, name in columns.items()
    }
