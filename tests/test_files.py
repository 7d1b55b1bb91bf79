"""Artefacts on disk: whole or not at all, checked when read, and no batch done twice."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from clca_utils import files
from clca_utils.files import (
    ROOT,
    StudyError,
    as_finished,
    digest,
    fingerprint,
    in_batches,
    locate,
    read_json,
    read_records,
    read_yaml,
    shown,
    write_json,
    write_metrics,
    write_records,
    write_table,
    write_text,
)

ON_DISK = settings(deadline=None, max_examples=30)


class Row(BaseModel):
    n: int
    text: str = ""


def test_paths_start_at_the_repository_and_are_shown_below_it(tmp_path):
    assert locate("params/demo.yaml") == ROOT / "params/demo.yaml"
    assert locate(tmp_path) == tmp_path
    assert shown(ROOT / "params/demo.yaml") == "params/demo.yaml"
    assert shown(tmp_path) == str(tmp_path)


@pytest.mark.parametrize("broken", [(Path, "replace"), (os, "fsync")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    def fail(*_):
        raise OSError("disk full")

    path = tmp_path / "a.txt"
    write_text(path, "old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(*broken, fail)
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_what_is_written_is_read_back(tmp_path):
    value = {"z": [1, None], "a": "Mühe"}
    write_json(tmp_path / "new" / "folder" / "a.json", value)
    text = (tmp_path / "new/folder/a.json").read_text(encoding="utf-8")
    assert text.index("z") < text.index("Mühe")
    assert read_json(tmp_path / "new/folder/a.json") == value
    write_metrics(tmp_path, "05", {"js": 0.3})
    assert read_json(tmp_path / "metrics/05.json") == {"js": 0.3}
    table = pd.DataFrame({"q": ["Q1", "Q2"], "share": [0.25, None]}, index=[7, 9])
    write_table(tmp_path / "a.parquet", table)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "a.parquet"), table.reset_index(drop=True)
    )


@ON_DISK
@given(st.lists(st.builds(Row, n=st.integers(), text=st.text(st.characters(codec="utf-8")))))
def test_records_come_back_as_they_were(rows):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_records(path, rows)
        assert read_records(path, Row) == rows


def test_a_line_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n": "two"}\n')
    with pytest.raises(StudyError, match=r"rows\.jsonl, line 2: n: .*found 'two'"):
        read_records(path, Row)
    path.write_text('{"n": 1}\n{"n"')
    with pytest.raises(StudyError, match=r"rows\.jsonl, line 2: the whole record: "):
        read_records(path, Row)


def test_a_missing_artefact_names_the_stage_to_run(tmp_path):
    with pytest.raises(StudyError, match=r"rows\.jsonl is missing: run stage 02 first"):
        read_records(tmp_path / "rows.jsonl", Row, "stage 02")
    with pytest.raises(StudyError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")


def test_damaged_json_is_told(tmp_path):
    (tmp_path / "a.json").write_text('{"a":')
    with pytest.raises(StudyError, match=r"a\.json is not JSON .*delete it"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: 1\nb: 2\na: 3\n", "the key 'a' is given twice"),
        (b"a: 1\nb:\n  c: {d: 1, d: 1}\n", "line 3: the key 'd' is given twice"),
        (b"a: 1\nb: c: d\n", "line 2: mapping values"),
        (b"a: !!python/object:os.system x\n", "line 1: could not determine a constructor"),
        (b"a: \xff\n", "is not YAML text"),
        (b"a: \x00\n", "is not YAML text"),
        (b"", "holds no 'key: value' lines"),
        (b"- a\n- b\n", "holds no 'key: value' lines"),
    ],
)
def test_yaml_that_is_no_mapping_is_told(tmp_path, content, told):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)


def test_yaml_is_read_and_its_absence_told(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\nb: [x, {c: 2}]\nd: {c: 3}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1, "b": ["x", {"c": 2}], "d": {"c": 3}}
    with pytest.raises(StudyError, match=r"b\.yaml does not exist"):
        read_yaml(tmp_path / "b.yaml")


def _folder(path, files):
    for name, text in files.items():
        write_text(path / name, text)
    return digest(path)


def test_a_folders_digest_is_that_of_its_names_and_contents(tmp_path):
    files = {"a": "1", "sub/b": "2", "sub/c": ""}
    first = _folder(tmp_path / "first", files)
    assert _folder(tmp_path / "second", dict(reversed(files.items()))) == first
    others = [
        {"a": "1", "sub/b": "3", "sub/c": ""},
        {"a": "1", "b": "2", "sub/c": ""},
        {"a": "1", "sub/b": "2"},
        {"a": "2", "sub/b": "1", "sub/c": ""},
    ]
    digests = {_folder(tmp_path / f"other{n}", other) for n, other in enumerate(others)}
    assert len(digests | {first}) == 5


def test_a_files_digest_is_its_sha256(tmp_path):
    write_text(tmp_path / "a", "abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(tmp_path / "a") == sha256


def test_a_fingerprint_reads_files_and_tells_values_apart(tmp_path):
    path = tmp_path / "a"
    write_text(path, "old")
    old = fingerprint("x", path)
    assert fingerprint("x", str(path)) != old
    write_text(path, "new")
    new = fingerprint("x", path)
    assert new != old
    write_text(path, "old")
    assert fingerprint("x", path) == old
    assert len({fingerprint(*parts) for parts in [(1,), ("1",), (1, 1), (11,), ("1, 1",)]}) == 5


class Work:
    """Keep of each batch what 3 does not divide; remember the batches; die at batch `dies`."""

    def __init__(self, dies=None):
        self.dies = dies
        self.asked = []

    def __call__(self, batch):
        if len(self.asked) == self.dies:
            raise RuntimeError("killed")
        self.asked.append(list(batch))
        return [Row(n=n, text=f'"{n}" é日\n') for n in batch if n % 3]


def _run(ledger, count, size, work, key="key"):
    return in_batches(
        range(count), work, schema=Row, batch_size=size, ledger=ledger, key=key, what="rows"
    )


SIZES = st.tuples(st.integers(0, 10), st.integers(1, 4))


@ON_DISK
@given(SIZES, st.data())
def test_a_run_that_died_anywhere_continues_at_its_first_unfinished_batch(sizes, data):
    count, size = sizes
    whole, died, rest = Work(), Work(), Work()
    with TemporaryDirectory() as folder:
        expected = _run(Path(folder) / "whole", count, size, whole)
        assert expected == [Row(n=n, text=f'"{n}" é日\n') for n in range(count) if n % 3]
        died.dies = data.draw(st.integers(0, len(whole.asked)), label="dies at batch")
        ledger = Path(folder) / "ledger"
        if died.dies < len(whole.asked):
            with pytest.raises(RuntimeError, match="killed"):
                _run(ledger, count, size, died)
        else:
            _run(ledger, count, size, died)
        assert _run(ledger, count, size, rest) == expected
        assert died.asked + rest.asked == whole.asked
        assert ledger.read_bytes() == (Path(folder) / "whole").read_bytes()


@ON_DISK
@given(SIZES, st.data())
def test_a_ledger_cut_short_at_any_byte_loses_only_the_line_cut(sizes, data):
    count, size = sizes
    whole, rest = Work(), Work()
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        expected = _run(ledger, count, size, whole)
        written = ledger.read_bytes()
        left = written[: data.draw(st.integers(0, len(written)), label="bytes left")]
        ledger.write_bytes(left)
        assert _run(ledger, count, size, rest) == expected
        finished = max(left.count(b"\n") - 1, 0)
        assert rest.asked == whole.asked[finished:]
        assert ledger.read_bytes() == written


class Race:
    """Finishes items in an order of its own; dies after so many."""

    def __init__(self, order, dies=None):
        self.order, self.dies = order, dies
        self.asked = []

    def __call__(self, items):
        self.asked = list(items)
        for place in sorted(range(len(items)), key=lambda place: self.order[items[place]]):
            if self.dies == 0:
                raise RuntimeError("killed")
            self.dies = None if self.dies is None else self.dies - 1
            yield place, Row(n=items[place], text=f"{items[place]} é\n")


def _finish(ledger, count, work, key="key"):
    return as_finished(range(count), work, schema=Row, ledger=ledger, key=key, what="rows")


@ON_DISK
@given(st.integers(0, 8).flatmap(lambda n: st.permutations(range(n))), st.data())
def test_what_was_finished_before_a_death_is_not_done_again_and_order_is_kept(order, data):
    count = len(order)
    dies = data.draw(st.integers(0, count), label="dies after")
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        died, rest = Race(order, dies), Race(order[::-1])
        if dies < count:
            with pytest.raises(RuntimeError, match="killed"):
                _finish(ledger, count, died)
        else:
            _finish(ledger, count, died)
        assert [row.n for row in _finish(ledger, count, rest)] == list(range(count))
        finished = sorted(range(count), key=lambda n: order[n])[:dies]
        assert sorted([*rest.asked, *finished]) == list(range(count))


@ON_DISK
@given(st.integers(1, 5), st.data())
def test_an_item_whose_line_was_cut_is_done_again_and_no_other(count, data):
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger"
        expected = _finish(ledger, count, Race(range(count)))
        written = ledger.read_bytes()
        left = written[: data.draw(st.integers(0, len(written)), label="bytes left")]
        ledger.write_bytes(left)
        rest = Race(range(count))
        assert _finish(ledger, count, rest) == expected
        assert rest.asked == list(range(max(left.count(b"\n") - 1, 0), count))


def test_finished_items_of_another_key_are_discarded(tmp_path):
    _finish(tmp_path / "ledger", 3, Race(range(3)), key="old")
    again = Race(range(3))
    _finish(tmp_path / "ledger", 3, again, key="new")
    assert again.asked == [0, 1, 2]


def test_a_ledger_of_another_key_is_discarded(tmp_path):
    old, new = Work(), Work()
    _run(tmp_path / "ledger", 5, 2, old, key="old")
    _run(tmp_path / "ledger", 5, 2, new, key="new")
    assert new.asked == old.asked == [[0, 1], [2, 3], [4]]
    assert (tmp_path / "ledger").read_text().count("\n") == 4


def test_a_ledger_of_another_batch_size_is_discarded(tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        _run(tmp_path / "ledger", 10, 4, Work(dies=2))
    rows = _run(tmp_path / "ledger", 10, 3, Work())
    assert [row.n for row in rows] == [n for n in range(10) if n % 3]


def test_hidden_files_do_not_count_in_a_digest(tmp_path):
    (tmp_path / "a").write_text("x")
    before = digest(tmp_path)
    (tmp_path / ".DS_Store").write_text("x")
    assert digest(tmp_path) == before


def test_what_could_not_be_measured_is_left_out_of_metrics(tmp_path):
    files.write_metrics(tmp_path, "01", {"a": 1.0, "b": float("nan")})
    assert read_json(tmp_path / "metrics/01.json") == {"a": 1.0}


def test_a_ledger_of_another_version_of_the_code_is_discarded(tmp_path, monkeypatch):
    old, new = Work(), Work()
    _run(tmp_path / "ledger", 5, 2, old)
    (tmp_path / "clca_utils").mkdir()
    monkeypatch.setattr(files, "__file__", str(tmp_path / "clca_utils" / "files.py"))
    _run(tmp_path / "ledger", 5, 2, new)
    assert new.asked == old.asked


def test_a_file_that_is_not_utf_8_is_told(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"n": 1, "text": "é"}'.encode("latin-1"))
    with pytest.raises(StudyError, match=r"rows\.jsonl is not UTF-8 text"):
        read_records(path, Row)


def test_a_date_that_does_not_exist_is_told(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("day: 2024-13-45\n")
    with pytest.raises(StudyError, match=r"a\.yaml is not YAML text"):
        read_yaml(path)


def test_what_is_missing_has_no_digest(tmp_path):
    with pytest.raises(FileNotFoundError):
        digest(tmp_path / "absent")
