"""Rows that begin alike: laid out once, each token sees exactly its own row's beginning."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clca_utils.prefix_tree import (
    packed,
    read_last,
    shared_length,
    shared_start,
    side_by_side,
)

ROW = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)
ROWS = st.sets(ROW, min_size=1, max_size=25)
SPARE = st.integers(0, 12)


def assert_sound(pack):
    """Check what every pack has to be, by the definition of its parts."""
    visible = pack.visible()
    assert len(pack.tokens) == len(pack.depths) == len(visible)
    for row, path in pack.paths.items():
        assert [pack.tokens[place] for place in path] == list(row)
        assert [pack.depths[place] for place in path] == list(range(len(row)))
        for depth, place in enumerate(path):
            assert set(np.flatnonzero(visible[place])) == set(path[: depth + 1])


@given(ROW, ROW)
def test_shared_length_is_the_longest_common_start(one, other):
    count = shared_length(one, other)
    assert one[:count] == other[:count]
    assert one[: count + 1] != other[: count + 1] or count == min(len(one), len(other))
    assert shared_length(one, one) == len(one)


@given(ROWS, ROW)
def test_shared_start_is_the_longest_that_leaves_each_row_a_token(rows, start):
    for some in (rows, {start + row for row in rows}):
        shared = shared_start(some)
        assert all(row[: len(shared)] == shared and len(row) > len(shared) for row in some)
        longer = {row[: len(shared) + 1] for row in some}
        assert len(longer) > 1 or len(shared) + 1 == min(map(len, some))


@settings(deadline=None)
@given(ROWS, SPARE)
def test_every_row_is_spelt_by_one_path_that_sees_itself_alone(rows, spare):
    packs = packed(rows, spare)
    assert sorted(row for pack in packs for row in pack.paths) == sorted(rows)
    for pack in packs:
        assert_sound(pack)


@settings(deadline=None)
@given(ROWS, SPARE)
def test_packs_are_never_longer_than_the_longest_row_and_the_spare(rows, spare):
    assert all(len(p.tokens) <= max(map(len, rows)) + spare for p in packed(rows, spare))


@settings(deadline=None)
@given(ROWS, SPARE)
def test_what_rows_of_a_pack_share_stands_there_once(rows, spare):
    """A token is a beginning of a row; as many beginnings, as many tokens."""
    for pack in packed(rows, spare):
        beginnings = {row[: depth + 1] for row in pack.paths for depth in range(len(row))}
        assert len(pack.tokens) == len(beginnings)
        ends = [path[len(row) - 1] for row, path in pack.paths.items()]
        assert len(set(ends)) == len(ends)


@given(ROWS)
def test_rows_that_fit_are_one_pack(rows):
    assert len(packed(rows, sum(map(len, rows)))) == 1


@given(st.lists(ROW, min_size=1, max_size=12), st.randoms())
def test_order_and_repetition_of_rows_do_not_matter(rows, chance):
    shuffled = chance.sample(rows, len(rows)) + rows[:3]
    assert packed(shuffled, 4) == packed(rows, 4)


def test_many_orders_of_one_question_cost_little_more_than_one():
    persona, question = tuple(range(100, 200)), tuple(range(200, 230))
    rows = {persona + question + (order, *range(5)) for order in range(4)}
    (pack,) = packed(rows, 128)
    assert len(pack.tokens) == 130 + 4 * 6
    assert pack.visible()[-1].sum() == 136


@settings(deadline=None)
@given(ROWS, SPARE, st.data())
def test_read_tokens_move_to_the_end_and_see_what_they_saw(rows, spare, data):
    for pack in packed(rows, spare):
        places = st.sets(st.integers(0, len(pack.tokens) - 1))
        read = data.draw(places)
        moved = read_last(pack, read)
        assert_sound(moved)
        assert list(moved.paths) == list(pack.paths)
        for row, path in pack.paths.items():
            last = {moved.paths[row][depth] for depth, place in enumerate(path) if place in read}
            assert all(place >= len(pack.tokens) - len(read) for place in last)
            others = set(moved.paths[row]) - last
            assert all(place < len(pack.tokens) - len(read) for place in others)


@given(ROWS)
def test_reading_nothing_or_all_moves_nothing(rows):
    (pack,) = packed(rows, sum(map(len, rows)))
    assert read_last(pack, ()) == pack == read_last(pack, range(len(pack.tokens)))


@given(ROWS, SPARE, st.integers(0, 3))
def test_side_by_side_every_token_sees_its_own_rows_beginning_and_no_other(rows, spare, start):
    packs = packed(rows, spare)
    layout = side_by_side(packs, start)
    width = layout.tokens.shape[1]
    assert layout.seen.shape == (len(packs), 1, width, start + width)
    for number, pack in enumerate(packs):
        first = width - len(pack.tokens)
        for row, path in pack.paths.items():
            places = [first + place for place in path]
            assert tuple(layout.tokens[number, places]) == row
            assert layout.places[number, places].tolist() == [*range(start, start + len(row))]
            for depth, place in enumerate(places):
                seen = np.flatnonzero(layout.seen[number, 0, place]).tolist()
                own = [*range(start), *(start + one for one in places[: depth + 1])]
                assert seen == sorted(own)
        for padding in range(first):
            assert layout.seen[number, 0, padding].sum() == 1
