"""Scores answers that came from anywhere: a file of question, participant and answer.

Whoever asked, with whatever model, their answers are measured here against the very people asked,
or against a country's shares, beside answers that need no model (`references`).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from scipy.stats import wasserstein_distance

from clca_utils.files import StudyError, locate, shown
from clca_utils.items import SurveyItem
from clca_utils.measures import MEASURES, kl_release, measured
from clca_utils.microdata import TIER, decoded, few, proper_ids, split_halves
from clca_utils.references import line_summary, normalised_score, reference_lines
from clca_utils.survey import Survey, coverage, coverage_note, people_of

Floats = npt.NDArray[np.float64]
People = pd.DataFrame | Mapping[str, Floats]
"""Microdata (`microdata.load_microdata`), or a country's shares (`survey.country_shares`)."""

COLUMNS = {
    "qid": ("QUESTION_ID", "QID", "QUESTION"),
    "respondent": ("PARTICIPANT_ID", "PARTICIPANT", "RESPONDENT", "D_INTERVIEW"),
    "score": ("SCORE", "ANSWER"),
}
"""What a column may be called, in any case; the first names are WorldValuesBench's."""

EMD = "emd_worldvaluesbench"
NORMALISED = "js_normalised"

FEW_ANSWERS = 30
"""Of fewer answers to an item chance makes much of the distance: a sample lies further from anyone
than its population does."""


class _Asked(NamedTuple):
    """What was asked of one item: the model's answers beside those of the people asked."""

    item: SurveyItem
    scores: Floats
    """The model's answer to each asking, NaN where it's invalid."""
    own: Floats | None
    """The participant's own answer at each asking; None if only their country's shares are known"""
    people: Floats
    """Shares of the people."""
    unmatched: int
    """How many askings had no answer of the participant's own, and are left out."""


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read answers to score.

    Args:
        path: A csv or tsv (the separator is found) with a column each for the question's name, the
            participant's id and the answer's code, named as in `COLUMNS`; others are ignored.

    Returns:
        Columns qid, respondent (Int64; NA if it's no id, see `microdata.proper_ids`) and score
        (float; NaN if it isn't a whole number), in the file's order.

    Raises:
        StudyError: The file is missing, no table, lacks a column or has no rows.
    """
    source = locate(path)
    name = shown(source)
    if not source.is_file():
        raise StudyError(f"{name} is missing: mend the path of the answers to score.")
    text = decoded(source.read_bytes())
    separator, found = _columns_of(text.partition("\n")[0])
    for column, names in COLUMNS.items():
        if column not in found.values():
            raise StudyError(
                f"{name}, {names[0]}: the column is missing; the answers to score need the columns "
                f"{', '.join(other[0] for other in COLUMNS.values())}."
            )
    try:
        read = arrow_csv.read_csv(
            io.BytesIO(text.encode()),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(found), column_types=dict.fromkeys(found, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        problem = " ".join(str(error).split())
        raise StudyError(f"{name} is damaged ({problem}): export it again.") from None
    table: pd.DataFrame = read.to_pandas().rename(columns=found)
    if table.empty:
        raise StudyError(f"{name} holds no answers to score.")
    respondent, score = (
        pd.to_numeric(table[column].str.strip(), errors="coerce").astype(float)
        for column in ("respondent", "score")
    )
    return pd.DataFrame(
        {
            "qid": table["qid"].str.strip(),
            "respondent": respondent.where(proper_ids(respondent)).astype("Int64"),
            "score": score.where(score % 1 == 0),
        }
    )


def choose_people(survey: Survey, items: Sequence[SurveyItem], iso3: str = "") -> People:
    """Choose the people to score answers against.

    Args:
        survey: What is known of people's answers.
        items: The items asked.
        iso3: The country. Needed with aggregates; with microdata empty is everyone.

    Raises:
        StudyError: There is nothing of the country, or none is named.
    """
    known = survey.marginals if survey.people is None else survey.people
    there = sorted(set(known["country"]))
    if iso3 and iso3 not in there:
        raise StudyError(
            f"--country: the people's answers have none from '{iso3}'; choose among {few(there)}."
        )
    if survey.people is None:
        if not iso3:
            raise StudyError(
                "--country: shares are known country by country, so name the one that the answers "
                f"are scored against, among {few(there)}."
            )
        return people_of(survey.marginals, iso3, items)
    return survey.people[survey.people["country"] == iso3] if iso3 else survey.people


def countries_asked(scores: pd.DataFrame, people: pd.DataFrame) -> list[str]:
    """Return the countries of the participants among `people`, in order."""
    asked = people["respondent"].isin(scores["respondent"].dropna().astype("int64"))
    return sorted(set(people.loc[asked, "country"]))


def score_answers(
    scores: pd.DataFrame, people: People, items: Sequence[SurveyItem]
) -> pd.DataFrame:
    """Measure answers item by item.

    With microdata the people are the very participants asked, unweighted, each as often as asked.
    Askings of somebody without an answer of their own are left out of everything (`unmatched`).
    A score that isn't one of the item's codes is counted as invalid, never mapped to a code.

    Args:
        scores: What `read_scores` returns; items that aren't in `items` are left out.
        people: Microdata of the participants, or the shares of a country.
        items: The items and their scales.

    Returns:
        One row per item asked, in the order of `items`. Columns qid, topic; answered, invalid,
        unmatched (numbers of askings); those of `measures.MEASURES` on shares, `kl_release` with
        the invalid ones as such; and emd_worldvaluesbench. With microdata, accuracy is the share of
        valid scores that equal the participant's own answer and closeness the mean of
        1 - |difference|/(k - 1), else both are the expected ones. NaN without a valid score.

        emd_worldvaluesbench is that of Zhao et al. 2024 (arXiv 2404.16308, evaluate.py):
        `scipy.stats.wasserstein_distance` between the participants' own answers and the scores,
        both scaled by (x - 1)/(k - 1). As in their code, participants whose score is missing stay
        on the people's side. Theirs cuts the decimals off a score and takes scores out of range as
        they are; here both are invalid. With shares it is the same distance between weighted
        options.

    Raises:
        StudyError: No item, or nobody, of `scores` is known.
    """
    rows: list[dict[str, object]] = []
    for asked in _askings(scores, people, items):
        answered = int((~np.isnan(asked.scores)).sum())
        row = {
            "qid": asked.item.qid,
            "topic": asked.item.topic,
            "answered": answered,
            "invalid": len(asked.scores) - answered,
            "unmatched": asked.unmatched,
        }
        rows.append(row | (_compared(asked) if answered else {}))
    columns = ["qid", "topic", "answered", "invalid", "unmatched", *MEASURES, EMD]
    return pd.DataFrame(rows).reindex(columns=columns)


def score_summary(
    scores: pd.DataFrame,
    survey: Survey,
    items: Sequence[SurveyItem],
    iso3: str = "",
    seed: int = 1,
) -> pd.DataFrame:
    """Set the answers beside answers that need no model, averaged over the same items.

    The lines are those of `references`, measured against the very people that the answers are
    compared with. The human floor's halves are of all respondents of the participants' countries;
    without microdata they are drawn from the shares. Other countries are compared only if the
    participants are all of one.

    Args:
        scores: What `read_scores` returns.
        survey: What is known of people's answers; its other countries become lines too.
        items: The items and their scales.
        iso3: As of `choose_people`.
        seed: Of the human floor's draws.

    Returns:
        One row per line: answers, then those of `references.line_summary`. Columns line, detail,
        items (how many have a valid score, over which all lines are averaged), those of `MEASURES`,
        emd_worldvaluesbench, and js_normalised, the `references.normalised_score` of the JS
        distance.

    Raises:
        StudyError: No score is valid.
    """
    people = choose_people(survey, items, iso3)
    table = score_answers(scores, people, items)
    asked = [one for one in _askings(scores, people, items) if not np.isnan(one.scores).all()]
    if not asked:
        raise StudyError(
            "No answer is the code of an option (1, 2, … as in the survey): look at what the "
            "model wrote."
        )
    known = [one.item for one in asked]
    marginals, whose, halves = survey.marginals, iso3, None
    if isinstance(people, pd.DataFrame):
        countries = countries_asked(scores, people)
        whose = countries[0] if len(countries) == 1 else "participants"
        others = marginals[(marginals["country"] != whose) & (len(countries) == 1)]
        marginals = pd.concat([_marginals(asked, whose), others], ignore_index=True)
        halves = split_halves(people[people["country"].isin(countries)], known, seed)
    references = reference_lines(marginals, whose, known, seed, halves=halves)
    lines = line_summary(references, [item.qid for item in known])
    # both have the options at 0, 1/(k-1), ..., 1, so between shares they are one measure
    lines[EMD] = lines["wasserstein_1"]
    answers = table[[*MEASURES, EMD]].mean().to_frame().T.assign(line="answers", detail="")
    summary = pd.concat([answers, lines], ignore_index=True)
    summary = summary[summary["line"] != "always option 1"].reset_index(drop=True)
    js = summary.set_index("line")["js_distance"]
    summary[NORMALISED] = [normalised_score(x, js["uniform"], js["human floor"]) for x in js]
    summary["items"] = len(known)
    return summary[["line", "detail", "items", *MEASURES, EMD, NORMALISED]]


def whose_note(
    scores: pd.DataFrame, survey: Survey, items: Sequence[SurveyItem], iso3: str = ""
) -> str:
    """Say whose answers are compared with: the country or countries, respondents and tiers.

    Args:
        scores: As the others, of `score_summary`.
        survey: What is known of people's answers.
        items: The items; those that weren't asked don't count.
        iso3: The country, if one was chosen.
    """
    asked = [item for item in items if item.qid in set(scores["qid"])]
    people = choose_people(survey, items, iso3)
    whose = countries_asked(scores, people) if isinstance(people, pd.DataFrame) else [iso3]
    if len(whose) != 1:
        return f"Participants from {len(whose)} countries: {few(whose)}."
    return coverage_note(coverage(survey.marginals, whose[0], asked), whose[0])


def _marginals(asked: Sequence[_Asked], country: str) -> pd.DataFrame:
    """Return the shares of the people asked, in the form of `survey.load_marginals`."""
    rows = [
        (one.item.qid, country, option, share, float(len(one.scores)), TIER)
        for one in asked
        for option, share in enumerate(one.people, start=1)
    ]
    return pd.DataFrame(rows, columns=["qid", "country", "option", "share", "n", "tier"])


def _columns_of(line: str) -> tuple[str, dict[str, str]]:
    """Return the separator, and what the file's columns are called here, from the first line."""
    found: dict[str, dict[str, str]] = {}
    for separator in (",", "\t", ";"):
        names = next(csv.reader([line.strip("\r")], delimiter=separator), [])
        by_upper = {name.strip().upper(): name for name in names}
        found[separator] = {
            by_upper[known[0]]: column
            for column, aliases in COLUMNS.items()
            if (known := [alias for alias in aliases if alias in by_upper])
        }
    best = max(found, key=lambda separator: len(found[separator]))
    return best, found[best]


def _askings(scores: pd.DataFrame, people: People, items: Sequence[SurveyItem]) -> list[_Asked]:
    """Return what was asked of each item of which anything is known of the people."""
    by_item = {str(qid): rows for qid, rows in scores.groupby("qid")}
    asked = [
        _asking(item, by_item[item.qid], people)
        for item in items
        if item.qid in by_item and item.qid in people
    ]
    if not asked:
        raise StudyError(
            f"None of the answers is to an item known of the people: found '{next(iter(by_item))}' "
            f"as a question, but known are {', '.join(map(str, list(people)[:5]))} and so on: name "
            "the items as the survey does, and choose people who were asked them."
        )
    if not any(len(one.scores) for one in asked):
        raise StudyError(
            "None of the participants asked has an answer of their own: bring the respondents "
            "whose ids (D_INTERVIEW) stand beside the answers."
        )
    return asked


def _asking(item: SurveyItem, rows: pd.DataFrame, people: People) -> _Asked:
    """Return what was asked of one item."""
    k = len(item.options)
    scores = rows["score"].where(rows["score"].between(1, k)).to_numpy(dtype=float)
    if not isinstance(people, pd.DataFrame):
        return _Asked(item, scores, None, people[item.qid], 0)
    theirs = people.set_index("respondent")[item.qid]
    own = theirs.reindex(rows["respondent"].fillna(-1).astype("int64")).to_numpy(dtype=float)
    there = ~np.isnan(own)
    shares = _shares(own[there], k)
    return _Asked(item, scores[there], own[there], shares, int((~there).sum()))


def _compared(asked: _Asked) -> dict[str, float]:
    """Return every measure of one item."""
    valid = ~np.isnan(asked.scores)
    k = len(asked.people)
    shares = _shares(asked.scores[valid], k)
    values = measured(shares, asked.people) | {EMD: _emd(shares, asked.people)}
    values["kl_release"] = float(kl_release(shares, asked.people, 1 - valid.mean()))
    if asked.own is not None:
        difference = np.abs(asked.scores[valid] - asked.own[valid])
        values["accuracy"] = float((difference == 0).mean())
        values["closeness"] = float(1 - difference.mean() / (k - 1))
    return values


def _shares(codes: Floats, k: int) -> Floats:
    """Return the shares of the codes 1..k; NaN without any."""
    counts = np.bincount(codes.astype(int), minlength=k + 1)[1:]
    return counts / counts.sum() if len(codes) else np.full(k, np.nan)


def _emd(model: Floats, people: Floats) -> float:
    """Return the earth mover's distance, the options at 0, 1/(k-1), ..., 1."""
    points = np.linspace(0, 1, len(people))
    return float(wasserstein_distance(points, points, model, people))
