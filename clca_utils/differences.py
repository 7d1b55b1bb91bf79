"""Two runs side by side: which parameters and which metrics are not the same."""

from pathlib import Path
from typing import Any

import pandas as pd

from clca_utils.files import StudyError, read_json, shown
from clca_utils.runner import records

COLUMNS = ["stage", "name", "first", "second"]
Stages = dict[str, dict[str, Any]]
"""What a run has by stage and name."""

PLACES = "_dir"
"""Parameters that end so say where a step reads and writes, which differs between any two runs."""


def parameter_differences(first: Path, second: Path) -> pd.DataFrame:
    """Return the parameters in which two runs differ.

    Args:
        first: A run's folder, such as results/demo/japanese/smollm2-135m/seed-1.
        second: Another's.

    Returns:
        One row per stage and parameter, as text; "" where a run has no such stage or parameter.

    Raises:
        StudyError: One of them is no run's folder.
    """
    return _differences(*({name: record.parameters for name, record in _records(folder).items()}
                          for folder in (first, second)))  # fmt: skip


def metric_differences(first: Path, second: Path) -> pd.DataFrame:
    """Return the metrics in which two runs differ.

    Args:
        first: A run's folder.
        second: Another's.

    Returns:
        One row per stage and metric, with change, the second minus the first; NaN where one has no
        such metric.
    """
    table = _differences(_metrics(first), _metrics(second))
    numbers = table[COLUMNS[2:]].apply(pd.to_numeric)
    return table.assign(**numbers, change=numbers["second"] - numbers["first"])


def _records(folder: Path) -> dict[str, Any]:
    found = records(folder)
    if not found:
        raise StudyError(
            f"{shown(folder)} holds no finished stage: name a run's folder, such as "
            "results/demo/japanese/smollm2-135m/seed-1."
        )
    return dict(found)


def _metrics(folder: Path) -> Stages:
    return {path.stem: read_json(path) for path in sorted((folder / "metrics").glob("*.json"))}


def _differences(
    first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]
) -> pd.DataFrame:
    rows = []
    for stage in sorted({*first, *second}):
        one, other = first.get(stage, {}), second.get(stage, {})
        rows += [
            (stage, name, str(one.get(name, "")), str(other.get(name, "")))
            for name in dict.fromkeys([*one, *other])
            if one.get(name) != other.get(name) and not name.endswith(PLACES)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)
