"""The accounts of reference results: every number in them stands in a table that a run wrote."""

import re
from pathlib import Path

import pandas as pd
import pytest

from clca_utils.files import ROOT

REFERENCE = ROOT / "results" / "reference"
ACCOUNTS = [path.parent for path in REFERENCE.glob("*/tables") if (path / "../README.md").is_file()]
DECIMAL = re.compile(r"(?<![\w.])(\d+\.(\d+))(?![\w.])(\s*%)?")
"""A number with decimals; whole numbers are counts that the text explains."""


def known(folder: Path) -> list[float]:
    """Return every number of the tables beside an account."""
    tables = [pd.read_csv(path) for path in sorted(folder.glob("tables/*.csv"))]
    return [
        float(value)
        for table in tables
        for value in table.select_dtypes("number").to_numpy().ravel()
        if pd.notna(value)
    ]


@pytest.mark.parametrize("folder", ACCOUNTS, ids=lambda folder: folder.name)
def test_every_number_of_an_account_is_in_a_table_of_its_run(folder):
    text, numbers = (folder / "README.md").read_text(encoding="utf-8"), known(folder)
    found = list(DECIMAL.finditer(text))
    assert found
    unknown = []
    for number, decimals, percent in (match.groups() for match in found):
        scale = 100 if percent else 1
        if float(number) not in {round(abs(value) * scale, len(decimals)) for value in numbers}:
            unknown.append(number + (percent or ""))
    assert unknown == []


def test_there_is_an_account():
    assert ACCOUNTS
