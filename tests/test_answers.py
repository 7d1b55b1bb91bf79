"""The table of answers: parts that survive a kill, joined whole or not at all, read small."""

import math

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clca_utils import answers as module
from clca_utils.answers import (
    SCHEMA,
    WORDS,
    condition,
    is_written,
    join_parts,
    read_answers,
    write_part,
)
from clca_utils.files import StudyError


def rows(count=3, variant="before", qid="Q1", reply="", first=0):
    """One respondent's answers to an item of `count` options."""
    return {
        "variant": [variant] * count, "condition": ["main"] * count,
        "respondent": [first] * count, "qid": [qid] * count, "order": [0] * count,
        "option": list(range(1, count + 1)), "position": list(range(1, count + 1)),
        "logprob": [math.log(1 / 3), -math.inf, -2.0][:count], "blank": [0.0, -1.5, -3.0][:count],
        "status": ["weighed"] * count, "reply": [reply] * count,
    }  # fmt: skip


def written(tmp_path, *tables):
    parts = [tmp_path / "parts" / f"{number}.parquet" for number in range(len(tables))]
    for part, table in zip(parts, tables, strict=True):
        write_part(part, table, "key")
    return parts


def joined(tmp_path, *tables):
    path = tmp_path / "answers.parquet"
    join_parts(written(tmp_path, *tables), path)
    return path


def test_what_was_written_is_read_back_with_its_types(tmp_path):
    frame = read_answers(joined(tmp_path, rows(), rows(2, "after", "Q7", first=1)))
    wanted = pd.concat([pd.DataFrame(rows()), pd.DataFrame(rows(2, "after", "Q7", first=1))])
    assert (
        frame.astype(object).values.tolist() == wanted[list(frame)].astype(object).values.tolist()
    )
    types = frame.dtypes.astype(str)
    assert set(types[["order", "option", "position"]]) == {"int8"}
    assert set(types[["logprob", "blank"]]) == {"float64"}
    assert types["respondent"] == "int64"


def test_words_are_categories_and_replies_are_left_out_until_asked_for(tmp_path):
    path = joined(tmp_path, rows(), rows(reply="1."), rows(variant="after"))
    frame = read_answers(path)
    assert list(frame) == [name for name in SCHEMA.names if name != "reply"]
    for name in set(WORDS) & set(frame):
        assert isinstance(frame[name].dtype, pd.CategoricalDtype)
    assert list(frame["variant"].cat.categories) == ["before", "after"]
    some = read_answers(path, ["reply", "qid"])
    assert list(some) == ["reply", "qid"]
    assert some["reply"].tolist() == [*[""] * 3, *["1."] * 3, *[""] * 3]


def test_one_condition_is_picked(tmp_path):
    other = rows(2) | {"condition": ["retest 1"] * 2}
    frame = read_answers(joined(tmp_path, rows(), other))
    assert len(condition(frame, "main")) == 3
    assert set(condition(frame, "retest 1")["condition"]) == {"retest 1"}
    assert condition(frame, "none").empty


def test_a_part_belongs_to_what_it_was_computed_from(tmp_path):
    (part,) = written(tmp_path, rows())
    assert is_written(part, "key")
    assert not is_written(part, "another")
    assert not is_written(part, "")
    assert not is_written(tmp_path / "none.parquet", "key")
    pd.DataFrame(rows()).to_parquet(part)
    assert not is_written(part, "key")


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_part_that_was_cut_short_is_written_again(tmp_path_factory, share):
    (part,) = written(tmp_path_factory.mktemp("cut"), rows())
    content = part.read_bytes()
    part.write_bytes(content[: int(share * len(content))])
    assert not is_written(part, "key")


def test_a_part_that_fails_leaves_the_old_one(tmp_path):
    (part,) = written(tmp_path, rows())
    before = part.read_bytes()
    for wrong in (rows() | {"option": ["one"] * 3}, rows() | {"order": [300] * 3}):
        with pytest.raises(Exception, match=r"."):
            write_part(part, wrong, "key")
    assert part.read_bytes() == before
    assert [file.name for file in part.parent.iterdir()] == [part.name]


def test_the_same_answers_are_the_same_bytes(tmp_path):
    tables = [rows(), rows(2, "after", reply="2")]
    one, other = joined(tmp_path / "a", *tables), joined(tmp_path / "b", *tables)
    assert one.read_bytes() == other.read_bytes()
    parts = [written(tmp_path / name, *tables) for name in "cd"]
    assert [p.read_bytes() for p in parts[0]] == [p.read_bytes() for p in parts[1]]


def test_what_parts_were_computed_from_does_not_show_in_the_table(tmp_path):
    parts = written(tmp_path, rows())
    write_part(tmp_path / "other.parquet", rows(), "another key")
    join_parts(parts, tmp_path / "one.parquet")
    join_parts([tmp_path / "other.parquet"], tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_one_part_at_a_time_is_held(tmp_path, monkeypatch):
    parts = written(tmp_path, *[rows(first=number) for number in range(5)])
    events = []
    read = pq.read_table

    def reading(path, **how):
        events.append("read")
        return read(path, **how)

    class Writer(pq.ParquetWriter):
        def write_table(self, table, **how):
            events.append(f"write {table.num_rows}")
            super().write_table(table, **how)

    monkeypatch.setattr(module.pq, "read_table", reading)
    monkeypatch.setattr(module.pq, "ParquetWriter", Writer)
    join_parts(parts, tmp_path / "answers.parquet")
    assert events == ["read", "write 3"] * 5
    assert read_answers(tmp_path / "answers.parquet")["respondent"].tolist()[::3] == [*range(5)]


def test_a_join_that_is_killed_leaves_the_old_table_and_nothing_else(tmp_path):
    path = joined(tmp_path, rows())
    before = path.read_bytes()
    parts = written(tmp_path, rows(), rows())
    parts[1].write_bytes(b"PAR1")
    with pytest.raises(Exception, match=r"."):
        join_parts(parts, path)

    def killed():
        yield parts[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join_parts(killed(), path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["answers.parquet", "parts"]


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(StudyError, match=r"answers\.parquet is missing: run 05_wvs_analysis"):
        read_answers(tmp_path / "answers.parquet")


@pytest.mark.parametrize("keep", [0, 4, 500, -20])
def test_a_damaged_table_is_told(tmp_path, keep):
    path = joined(tmp_path, rows())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StudyError, match=r"answers\.parquet isn't a parquet table") as error:
        read_answers(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["blank", "condition"])
def test_a_lacking_column_is_named(tmp_path, name):
    path = tmp_path / "answers.parquet"
    pd.DataFrame(rows()).drop(columns=name).to_parquet(path)
    with pytest.raises(StudyError, match=f"{name}: the column is missing"):
        read_answers(path)
    assert len(read_answers(path, ["qid", "option"])) == 3
