"""The table of a model's answers: a row for each option of each item put to it.

It is written part by part while a model is asked, so that a kill costs one part and memory never
holds more; the parts are then joined into answers.parquet.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clca_utils.files import StudyError, shown, write_bytes

WORDS = ("variant", "condition", "qid", "status", "reply")

SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("condition", pa.string()),
        ("respondent", pa.int64()),
        ("qid", pa.string()),
        ("order", pa.int8()),
        ("option", pa.int8()),
        ("position", pa.int8()),
        ("logprob", pa.float64()),
        ("blank", pa.float64()),
        ("status", pa.string()),
        ("reply", pa.string()),
    ]
)
"""Columns of answers.parquet.

variant: "before" or "after"; condition: "main", or a validity check's name; respondent: an id;
qid: the item; order: by how many places the options were rotated; option: its code from 1;
position: where it stood, from 1; logprob: natural log of the probability of its label, not
normalised over the options (a written answer has 0 for the option chosen, -inf for others); blank:
the same after a question without content (a written answer: 0); status: "weighed", or how a
written answer was read; reply: what was written.
"""

KEY = b"clca"


def write_part(path: Path, rows: dict[str, list[object]], key: str) -> None:
    """Write one part, columns by name, in one step; `key` tells what it was computed from."""
    table = pa.table(rows, schema=SCHEMA.with_metadata({KEY: key.encode()}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def is_written(path: Path, key: str) -> bool:
    """Say whether a part is there, whole, and was computed from what `key` tells."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        return (table.schema.metadata or {}).get(KEY) == key.encode()
    except (OSError, pa.ArrowInvalid):  # none, or damaged: it is written again
        return False


def join_parts(parts: Iterable[Path], path: Path) -> None:
    """Join parts into one table in one step, holding one part at a time."""
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with pq.ParquetWriter(partial, SCHEMA) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).replace_schema_metadata(None))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_answers(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of answers; words become categories, so that millions of rows fit.

    Args:
        path: The file.
        columns: Those wanted; by default all but the replies.

    Raises:
        StudyError: The file is missing, damaged, or lacks a column.
    """
    wanted = list(columns) or [name for name in SCHEMA.names if name != "reply"]
    if not path.is_file():
        raise StudyError(f"{shown(path)} is missing: run 05_wvs_analysis first.")
    try:
        if missing := sorted(set(wanted) - set(pq.read_schema(path).names)):
            raise StudyError(
                f"{shown(path)}, {missing[0]}: the column is missing; delete the file and run "
                "05_wvs_analysis again."
            )
        dictionaries = [name for name in WORDS if name in wanted]
        table = pq.read_table(path, columns=wanted, read_dictionary=dictionaries)
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(
            f"{shown(path)} isn't a parquet table ({reason}): delete it and run 05 again."
        ) from None
    # a dictionary that is read part by part holds words that were filtered or are not used
    frame: pd.DataFrame = table.unify_dictionaries().to_pandas()
    return frame


def condition(answers: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the answers given under one condition."""
    return answers[answers["condition"] == name]
