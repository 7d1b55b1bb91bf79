"""The survey: which items are asked, and what the people of a country really answered.

The shipped answers are country aggregates of the World Values Survey, wave 7 (Haerpfer et al.
2022, doi:10.14281/18241.20), of several tiers of trust: A is computed from weighted microdata, B
and C1 lie within about 0.01 of it, C2 and D (Great Britain, the Netherlands) may be off by up to
0.05. What is missing is missing: an item without data in a country isn't evaluated there.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from clca_utils.files import DATA, StudyError, locate, shown
from clca_utils.items import SurveyItem, load_items
from clca_utils.microdata import decoded, kind_of, load_microdata, marginals_of, split_halves

Floats = npt.NDArray[np.float64]

NOT_ASKED = {"Q42": 3}
"""Variables that may stand in a marginals file but aren't asked, with the length of their scale."""

COLUMNS = ["qid", "country", "option", "share", "n", "tier"]
LOW_TRUST = ("C2", "D")
TOLERANCE = 0.02
"""How far a country's shares of an item may add up from 1 (whole percents of five options)."""


@dataclass(frozen=True)
class Survey:
    """What is known of people's answers.

    Attributes:
        marginals: Shares of each option, see `load_marginals`.
        people: Single respondents, see `microdata.load_microdata`; None where the user has none.
    """

    marginals: pd.DataFrame
    people: pd.DataFrame | None = None

    def respondents(self, iso3: str) -> pd.DataFrame | None:
        """Return the single respondents of a country, None where there is none."""
        if self.people is None or iso3 not in set(self.people["country"]):
            return None
        return self.people[self.people["country"] == iso3]

    def halves(
        self, iso3: str, items: Sequence[SurveyItem], seed: int
    ) -> Mapping[str, tuple[Floats, Floats]] | None:
        """Return the shares of random halves of a country's respondents, for the human floor."""
        mine = self.respondents(iso3)
        return None if mine is None else split_halves(mine, items, seed)


def load_survey(path: str | Path, items: Sequence[SurveyItem]) -> Survey:
    """Read what people answered, from whatever file the user has.

    Args:
        path: Aggregates as those that ship (see `load_marginals`), the csv of the World Values
            Survey, or WorldValuesBench's folder (see `microdata`); empty: the shipped aggregates.
        items: The items asked.

    Returns:
        The survey. Beside microdata the shipped aggregates stand for countries that it lacks.

    Raises:
        StudyError: The file is none of these, or damaged.
    """
    if not path or kind_of(path) == "aggregates":
        return Survey(load_marginals(path, items))
    people = load_microdata(path, items)
    own, shipped = marginals_of(people, items), load_marginals("", items)
    others = shipped[~shipped["country"].isin(own["country"])]
    return Survey(pd.concat([own, others], ignore_index=True), people)


def load_marginals(
    path: str | Path = "", items: Sequence[SurveyItem] | None = None
) -> pd.DataFrame:
    """Read what the people of each country answered.

    Args:
        path: A CSV with the columns qid, country (three letters: ISO 3166, and NIR), option (code
            from 1), share (of valid answers), n (respondents, may be empty), tier, and maybe
            label; empty is the shipped file.
        items: The items asked: they and the shipped ones fix the known names and scales.

    Returns:
        One row per item, country and option. `n` is NaN where it isn't published.

    Raises:
        StudyError: The file is missing or a row can't be right; the line and field are named.
    """
    source = locate(path) if path else DATA / "wvs7_marginals.csv"
    name = shown(source)
    if not source.is_file():
        raise StudyError(f"{name} is missing: mend the path of the survey's marginals.")
    try:
        text = decoded(source.read_bytes())
        header = text.partition("\n")[0]
        separator = ";" if header.count(";") > header.count(",") else ","
        rows = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        problem = str(error).strip()
        raise StudyError(f"{name} isn't a CSV table ({problem}): export it again.") from None
    rows.columns = rows.columns.str.strip().str.lower()
    for column in COLUMNS:
        if column not in rows:
            raise StudyError(f"{name}, {column}: the column is missing; add it.")
        if list(rows.columns).count(column) > 1:
            raise StudyError(f"{name}, {column}: the column stands there twice; keep one of them.")
    if rows.empty:
        raise StudyError(f"{name} holds no row below its header: export it again.")
    known = [*load_items("all"), *(items or [])]
    scale = rows["qid"].map(NOT_ASKED | {item.qid: len(item.options) for item in known})
    option, share, n = (pd.to_numeric(rows[c], errors="coerce") for c in ("option", "share", "n"))

    def check(wrong: "pd.Series[bool]", field: str, advice: str) -> None:
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = rows[field].iloc[row]
            raise StudyError(f"{name}, line {row + 2}, {field}: found {found!r}; {advice}.")

    check(scale.isna(), "qid", "use the name of a known item such as 'Q1'")
    check(~rows["country"].str.fullmatch("[A-Z]{3}"), "country", "write three letters as in 'DEU'")
    check(option.isna() | (option % 1 != 0), "option", "write the answer's code, a whole number")
    check((option < 1) | (option > scale), "option", "this item has no such answer, leave it out")
    check(~share.between(0, 1), "share", "write the share of valid answers, from 0 to 1")
    check((rows["n"] != "") & ~n.between(1, np.inf), "n", "write the respondents or leave it empty")
    check(rows["tier"] == "", "tier", "name how far to trust the row, 'A' for microdata")
    check(rows.duplicated(["qid", "country", "option"]), "option", "it stands there twice")
    totals = share.groupby([rows["country"], rows["qid"]], sort=False).sum()
    wrong = totals[(totals - 1).abs() > TOLERANCE]
    if len(wrong):
        country, qid = wrong.index[0]
        raise StudyError(
            f"{name}, share: those of {qid} in {country} add up to {wrong.iloc[0]:.3f}, not 1; "
            "mend them."
        )
    return rows.assign(option=option.astype(int), share=share, n=n)


def country_shares(
    marginals: pd.DataFrame, iso3: str, items: Iterable[SurveyItem]
) -> dict[str, Floats]:
    """Return the people's answers, qid to shares of the options 1..k (they add up to 1).

    Only items whose every option stands in the table: a three-point version of a five-point item
    isn't comparable, so it is left out (`coverage` says which).
    """
    mine = dict(list(marginals[marginals["country"] == iso3].groupby("qid")))
    shares = {}
    for item in items:
        if item.qid in mine and len(mine[item.qid]) == len(item.options):
            values = mine[item.qid].sort_values("option")["share"].to_numpy(dtype=float)
            shares[item.qid] = values / values.sum()
    return shares


def people_of(marginals: pd.DataFrame, iso3: str, items: Iterable[SurveyItem]) -> dict[str, Floats]:
    """Return what `country_shares` does, where there is anything to compare with.

    Raises:
        StudyError: The marginals hold nothing of the country.
    """
    if not (people := country_shares(marginals, iso3, items)):
        raise StudyError(
            f"The survey has no answers of the people of {iso3}: name a CSV with their shares as "
            "wvs_analysis.survey, or choose a country that took part."
        )
    return people


def coverage(marginals: pd.DataFrame, iso3: str, items: Iterable[SurveyItem]) -> pd.DataFrame:
    """Tell what is known of a country's people, item by item.

    Returns:
        Columns qid, tier, n (NaN: not published) and status: "compared", "compared, low trust"
        (tiers C2 and D), "left out: other scale" (some option has no row; if nobody chose it, add
        it with share 0) or "left out: no data".
    """
    asked = list(items)
    there = country_shares(marginals, iso3, asked)
    mine = marginals[marginals["country"] == iso3].groupby("qid")[["tier", "n"]].first()
    table = mine.reindex([item.qid for item in asked]).rename_axis("qid").reset_index()
    table["tier"] = table["tier"].fillna("")
    table["status"] = np.select(
        [table["tier"] == "", ~table["qid"].isin(list(there)), table["tier"].isin(LOW_TRUST)],
        ["left out: no data", "left out: other scale", "compared, low trust"],
        default="compared",
    )
    return table


def coverage_note(table: pd.DataFrame, iso3: str) -> str:
    """Say in one sentence what `coverage` found, to stand wherever the country is shown."""
    kept = table[table["status"].str.startswith("compared")]
    tiers, counts = sorted(set(kept["tier"])), kept["n"].dropna()
    people = f", n {counts.min():.0f} to {counts.max():.0f}" if len(counts) else ", n not published"
    known = f" (tier {', '.join(tiers)}{people})" if tiers else ""
    parts = [f"{len(kept)} of {len(table)} items compared{known}"]
    if doubtful := int((kept["status"] == "compared, low trust").sum()):
        of_them = "all" if doubtful == len(kept) else doubtful
        parts.append(f"{of_them} of them of low trust (tiers {' and '.join(LOW_TRUST)})")
    for status, group in table[~table.index.isin(kept.index)].groupby("status", sort=False):
        names = ", ".join(group["qid"]) if len(group) < 10 else f"{len(group)} items"
        parts.append(f"{status} ({names})")
    return f"{iso3}: {'; '.join(parts)}."
