"""A model's answers beside a people's: what stage 05 computes and stage 06 draws again.

The tables are kept as CSV files, so that every number and figure can be remade without the model
and without the survey file.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from clca_utils.culture import Culture
from clca_utils.files import StudyError, shown, write_text
from clca_utils.measures import item_table, option_shares, position_shares, reference_lines
from clca_utils.survey import SurveyItem, coverage, coverage_note, people_of

PEOPLE = "people"


@dataclass(frozen=True)
class Comparison:
    """The tables of one run.

    Attributes:
        shares: variant ("before", "after", "people"), qid, option, share.
        items: variant, qid, topic, orders ("all" or "first") and the measures, item by item;
            without "first" where only that order was asked.
        references: line, qid and the measures.
        positions: variant, scale, position, share.
        coverage: qid, tier, n, status, country, iso3: what is known of the people.
    """

    shares: pd.DataFrame
    items: pd.DataFrame
    references: pd.DataFrame
    positions: pd.DataFrame
    coverage: pd.DataFrame

    @property
    def country(self) -> str:
        """Name of the country whose people are compared."""
        return str(self.coverage["country"].iloc[0])

    @property
    def note(self) -> str:
        """What to know about the people's data, in a sentence."""
        return coverage_note(self.coverage, str(self.coverage["iso3"].iloc[0]))

    @property
    def people(self) -> dict[str, npt.NDArray[np.float64]]:
        """The people's answers: qid to shares of the options, in order."""
        theirs = self.shares[self.shares["variant"] == PEOPLE].sort_values("option")
        return {str(qid): group["share"].to_numpy() for qid, group in theirs.groupby("qid")}

    @property
    def model_shares(self) -> pd.DataFrame:
        """The model's answers alone."""
        return self.shares[self.shares["variant"] != PEOPLE]


def compare(
    answers: pd.DataFrame,
    culture: Culture,
    marginals: pd.DataFrame,
    items: list[SurveyItem],
    seed: int,
) -> Comparison:
    """Compare a model's answers with those of a country's people.

    Args:
        answers: The frame of answers.parquet; see `clca_utils.measures`.
        culture: Whose people.
        marginals: What `survey.load_marginals` returns.
        items: The items asked.
        seed: Of the human floor's draws.

    Raises:
        StudyError: The marginals hold nothing of the country.
    """
    people = people_of(marginals, culture.iso3, items)
    theirs = pd.DataFrame(
        [(PEOPLE, qid, i, share) for qid, row in people.items() for i, share in enumerate(row, 1)],
        columns=["variant", "qid", "option", "share"],
    )
    several: list[Literal["all", "first"]] = ["all", "first"]
    table = [
        item_table(option_shares(answers, orders), people, items).assign(orders=orders)
        for orders in several[: 1 + answers["order"].any()]
    ]
    known = coverage(marginals, culture.iso3, items)
    return Comparison(
        shares=pd.concat([option_shares(answers), theirs], ignore_index=True),
        items=pd.concat(table, ignore_index=True),
        references=reference_lines(marginals, culture.iso3, items, seed),
        positions=position_shares(answers),
        coverage=known.assign(country=culture.country, iso3=culture.iso3),
    )


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write the tables as <folder>/<name>.csv."""
    for field in fields(comparison):
        write_text(
            folder / f"{field.name}.csv", getattr(comparison, field.name).to_csv(index=False)
        )


def read_comparison(folder: Path) -> Comparison:
    """Read the tables back.

    Raises:
        StudyError: One is missing.
    """
    tables = {}
    for field in fields(Comparison):
        path = folder / f"{field.name}.csv"
        if not path.is_file():
            raise StudyError(f"{shown(path)} is missing: run 05_wvs_analysis first.")
        tables[field.name] = pd.read_csv(path, keep_default_na=field.name == "coverage")
    tables["coverage"] = tables["coverage"].fillna({"tier": ""})
    return Comparison(**tables)
