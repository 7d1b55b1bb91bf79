"""Rows of tokens that begin alike, laid out so that what they share is computed once.

Prompts of a survey differ late: one persona, one question, its options in another order. Sorted,
each row shares its beginning with the one before it, and a pack holds every shared token once. An
attention mask then lets each token see exactly the tokens before it in its own row, so a model's
output at a token is that of a plain pass over the row (tree attention: Cai et al. 2024, arXiv
2401.10774, there for drafts of one reply).
"""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]


def shared_length(one: Tokens, other: Tokens) -> int:
    """Return with how many tokens both rows start."""
    agree = (a == b for a, b in zip(one, other, strict=False))
    return sum(takewhile(bool, agree))


def shared_start(rows: Collection[Tokens]) -> Tokens:
    """Return the tokens with which all rows start, leaving each at least one of its own."""
    count = shared_length(min(rows), max(rows))
    return min(rows)[: min(count, min(map(len, rows)) - 1)]


class Pack(NamedTuple):
    """Some rows, each token they share once.

    Attributes:
        tokens: The n tokens.
        depths: Place of each token in its rows, from 0.
        paths: Row to the places of its tokens in `tokens`.
    """

    tokens: list[int]
    depths: list[int]
    paths: dict[Tokens, list[int]]

    def visible(self) -> NDArray[np.bool_]:
        """Return which tokens (columns) each token (row) sees: itself and those before it."""
        seen = np.zeros((len(self.tokens), len(self.tokens)), dtype=bool)
        for path in self.paths.values():
            seen[np.ix_(path, path)] = np.tri(len(path), dtype=bool)
        return seen


def packed(rows: Collection[Tokens], spare: int) -> list[Pack]:
    """Distribute rows over packs of at most the longest row's length plus `spare` tokens.

    A token sees all of its pack, if only to look away, so packs are kept small.
    """
    packs: list[Pack] = []
    room = max(map(len, rows)) + spare
    last: Tokens = ()
    for row in sorted(set(rows)):
        same = shared_length(last, row)
        if not packs or len(packs[-1].tokens) + len(row) - same > room:
            packs.append(Pack([], [], {}))
            same = 0
        pack = packs[-1]
        shared = pack.paths[last][:same] if same else []
        new = range(len(pack.tokens), len(pack.tokens) + len(row) - same)
        pack.tokens.extend(row[same:])
        pack.depths.extend(range(same, len(row)))
        pack.paths[row] = [*shared, *new]
        last = row
    return packs


def read_last(pack: Pack, read: Collection[int]) -> Pack:
    """Move the tokens at the places `read` to the end: what each one sees stays the same."""
    order = sorted(range(len(pack.tokens)), key=lambda place: place in read)
    place_of = np.argsort(order).tolist()
    return Pack(
        [pack.tokens[i] for i in order],
        [pack.depths[i] for i in order],
        {row: [place_of[i] for i in path] for row, path in pack.paths.items()},
    )


class Layout(NamedTuple):
    """Packs as one batch, shorter ones padded on the left.

    Attributes:
        tokens: (packs, width).
        places: Each token's place in its rows, of the same shape.
        seen: Which tokens (columns) each token (row) sees, (packs, 1, width, start + width).
    """

    tokens: NDArray[np.int64]
    places: NDArray[np.int64]
    seen: NDArray[np.bool_]


def side_by_side(packs: Sequence[Pack], start: int = 0) -> Layout:
    """Lay packs out as one batch.

    Args:
        packs: The packs.
        start: How many tokens, known already, stand before each of them.
    """
    width = max(len(pack.tokens) for pack in packs)
    tokens, places = np.zeros((2, len(packs), width), dtype=np.int64)
    seen = np.zeros((len(packs), 1, width, start + width), dtype=bool)
    seen[..., range(width), range(start, start + width)] = True  # padding sees itself
    for number, pack in enumerate(packs):
        first = width - len(pack.tokens)
        tokens[number, first:], places[number, first:] = pack.tokens, pack.depths
        seen[number, 0, first:, :start] = True
        seen[number, 0, first:, start + first :] = pack.visible()
    return Layout(tokens, start + places, seen)
