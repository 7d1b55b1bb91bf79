"""How a transformers model reads and replies: many rows at once, each as if it were alone.

Three things make it quick. What a row begins with is read once and remembered (`Memory`), so a
conversation is never read again from its start; keys and values are written into a buffer made
once, not into a longer copy at every token (`Room`); and rows that have ended leave the batch.

A row's reply must not depend on its neighbours, yet rounding does: another batch moves a logit by
some millionths. Where so little could decide a draw, it is made again from a plain pass over the
row alone (`Draw`), so the reply is that of the lone row in any batch.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from clca_utils.prefix_tree import (
    Pack,
    Tokens,
    packed,
    shared_length,
    shared_start,
    side_by_side,
)

KeysValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of a row, layer by layer, each (heads, tokens, size)."""

TOLERANCE = 2e-4
"""By how much two numbers must differ for rounding not to decide between them: about ten times the
largest difference seen between two ways of computing a logit in fp32 (tests/test_decoding.py)."""

LIKELIEST = 256
"""How many tokens are looked at first; a nucleus seldom holds more."""

WORTH_SHARING = 32
"""From this many tokens on, what all new rows begin with is read once for all of them."""

SPARE = 224
"""How many tokens a pack may be longer than its longest row: room for the rows beside it. Of 64 to
256, the fastest on two cores (in fours, as stage 05 has it)."""

AT_ONCE = 4096
"""So many tokens are read in one pass; of more, what is computed falls out of a processor's cache
(600-token prompts on two cores: 625 tokens a second up to here, 547 at twice as many)."""


class Memory:
    """Rows that were read, with their keys and values: a row that begins alike need not be again.

    Args:
        room: How many tokens to keep at most; the rows used least recently are forgotten.
    """

    def __init__(self, room: float) -> None:
        self.room = room
        self.kept: dict[Tokens, KeysValues] = {}
        self.ordered: list[Tokens] = []

    def longest(self, row: Tokens) -> tuple[int, Tokens]:
        """Return how many first tokens of `row` are remembered, and from which row.

        In alphabetical order, what shares most with a row stands beside it.
        """
        place = bisect_left(self.ordered, row)
        near = self.ordered[max(place - 1, 0) : place + 1]
        return max(((shared_length(one, row), one) for one in near), default=(0, ()))

    def recall(self, row: Tokens, length: int) -> KeysValues:
        """Return keys and values of the first `length` tokens of a row, of those remembered."""
        _, source = self.longest(row)
        found = self.kept[source] = self.kept.pop(source)  # now the one used most recently
        return [(keys[:, :length], values[:, :length]) for keys, values in found]

    def keep(self, row: Tokens, found: KeysValues) -> None:
        """Remember a row; a shorter one that it continues is forgotten."""
        shared, before = self.longest(row)
        if shared == len(row):
            self.kept[before] = self.kept.pop(before)
            return
        if before and shared == len(before):
            self._forget(before)
        self.kept[row] = found
        insort(self.ordered, row)

    def trim(self) -> None:
        """Forget the rows used least recently, until the others fit; not while rows are in use."""
        while sum(map(len, self.ordered)) > self.room:
            self._forget(next(iter(self.kept)))

    def _forget(self, row: Tokens) -> None:
        del self.kept[row]
        self.ordered.pop(bisect_left(self.ordered, row))


class Room(DynamicLayer):  # type: ignore[misc]
    """A cache layer that writes into a buffer made once; transformers' own copies all it holds.

    Args:
        keys: The buffer, (rows, heads, tokens, size).
        values: Likewise.
        used: How many tokens of it hold something.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.buffers = keys, values
        self.is_initialized = True
        self.dtype, self.device = keys.dtype, keys.device
        self._use(used)

    def _use(self, used: int) -> None:
        self.used = used
        self.keys, self.values = (buffer[:, :, :used] for buffer in self.buffers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values behind the others; return all of them."""
        end = self.used + key_states.shape[2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.used : end] = new
        self._use(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        keys, values = self.buffers
        self.buffers = keys[indices], values[indices]
        self._use(self.used)


class Rows:
    """Some rows of tokens in one batch, right-aligned, and what the model knows of them.

    Args:
        weights: The model.
        rows: The tokens.
        memory: Where what is known of them comes from.
        fresh: How many tokens of each row, the last ones, the model is to read: at least as many
            as are not remembered of any row.
        spare: How many more tokens there shall be room for.
    """

    def __init__(
        self,
        weights: PreTrainedModel,
        rows: Sequence[Tokens],
        memory: Memory,
        fresh: int,
        spare: int = 0,
    ) -> None:
        self.weights = weights
        self.lengths = torch.tensor([len(row) for row in rows])
        self.width = int(self.lengths.max())
        self.rows, self.fresh = rows, fresh
        before = self.width - fresh
        known = [memory.recall(row, len(row) - fresh) if len(row) > fresh else None for row in rows]
        # made without the model's config: layers with a window keep all too, and masks do the rest
        self.cache: Cache = DynamicCache()
        if before:
            layers = []
            for number, (keys, values) in enumerate(next(one for one in known if one)):
                heads, _, size = keys.shape
                shape = (len(rows), heads, self.width + spare, size)
                buffers = keys.new_zeros(shape), values.new_zeros(shape)
                for place, (row, one) in enumerate(zip(rows, known, strict=True)):
                    if one is not None:
                        start = self.width - len(row)
                        for buffer, past in zip(buffers, one[number], strict=True):
                            buffer[place, :, start:before] = past
                layers.append(Room(*buffers, before))
            self.cache = Cache(layers=layers)

    def read(self, keep: int = 1) -> torch.Tensor:
        """Read the fresh tokens; return the logits after the last `keep`, (rows, keep, words)."""
        tokens = [torch.tensor(row[-self.fresh :]) for row in self.rows]
        return self._forward(pad_sequence(tokens, batch_first=True, padding_side="left"), keep)

    def add(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read one more token a row; return the logits after it, (rows, words)."""
        self.width += 1
        self.lengths = self.lengths + 1
        return self._forward(torch.tensor(tokens)[:, None], 1)[:, 0]

    def only(self, places: Sequence[int]) -> None:
        """Keep some rows: the others have ended."""
        some = torch.tensor(places)
        self.lengths = self.lengths[some]
        for layer in self.cache.layers:
            layer.batch_select_indices(some.to(layer.device))

    def found(self) -> Iterator[KeysValues]:
        """Return, row by row, a copy of the keys and values of all its tokens."""
        for place, length in enumerate(self.lengths.tolist()):
            yield [
                (layer.keys[place, :, -length:].clone(), layer.values[place, :, -length:].clone())
                for layer in self.cache.layers
            ]

    def _forward(self, tokens: torch.Tensor, keep: int) -> torch.Tensor:
        device = self.weights.device
        places = torch.arange(self.width) - (self.width - self.lengths)[:, None]
        output = self.weights(
            input_ids=tokens.to(device),
            attention_mask=(places >= 0).long().to(device),
            position_ids=places[:, -tokens.shape[1] :].clamp_min(0).to(device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: torch.Tensor = output.logits
        return logits.float().cpu()


def batches(
    rows: Collection[Tokens], memory: Memory, size: int, keep: int = 1
) -> Iterator[tuple[list[Tokens], int]]:
    """Sort rows into batches by how much of them is new, so that little is read for nothing.

    Args:
        rows: The tokens.
        memory: What is known of them.
        size: How many rows a batch may have.
        keep: How many tokens are to be read in any case.

    Yields:
        Some rows, and how many tokens of each are to be read.
    """

    def new(row: Tokens) -> int:
        return max(keep, len(row) - min(memory.longest(row)[0], len(row) - 1))

    needs = sorted((new(row), row) for row in set(rows))
    for _, group in groupby(needs, key=lambda need: (need[0] - 1).bit_length()):  # alike within 2
        some = list(group)
        step = min(size, max(1, AT_ONCE // some[-1][0]))
        for first in range(0, len(some), step):
            part = some[first : first + step]
            yield [row for _, row in part], part[-1][0]


def remember(weights: PreTrainedModel, rows: Collection[Tokens], memory: Memory, size: int) -> None:
    """Read rows, as far as they are not remembered, and remember them.

    Where they share much beside their start, as the turns of one talk do, they are read in packs.
    """
    unread = {row for row in rows if memory.longest(row)[0] < len(row)}
    start = shared_start(unread) if len(unread) > 1 else ()
    if len(start) >= WORTH_SHARING and memory.longest(start)[0] < len(start):
        remember(weights, [start], memory, size)
    if len(unread) > 1 and fits(weights, unread):
        known = memory.longest(start)[0]
        packs = packed({row[known:] for row in unread}, SPARE)
        new = sum(len(row) - memory.longest(row)[0] for row in unread)
        if 2 * sum(len(pack.tokens) for pack in packs) <= new:
            _remember_packs(weights, start[:known], packs, memory, size)
            return
    for some, fresh in list(batches(unread, memory, size)):
        batch = Rows(weights, some, memory, fresh)
        batch.read()
        for row, found in zip(some, batch.found(), strict=True):
            memory.keep(row, found)


def _remember_packs(
    weights: PreTrainedModel, start: Tokens, packs: Sequence[Pack], memory: Memory, size: int
) -> None:
    """Read packs of what follows a remembered start, and remember their rows."""
    known = memory.recall(start, len(start)) if start else []
    step = min(size, max(1, AT_ONCE // max(len(pack.tokens) for pack in packs)))
    for first in range(0, len(packs), step):
        some = packs[first : first + step]
        _, cache = read_packs(weights, some, known, 1)
        for number, pack in enumerate(some):
            begin = cache.layers[0].keys.shape[2] - len(pack.tokens)
            for rest, path in pack.paths.items():
                places = torch.tensor([*range(len(start)), *(begin + place for place in path)])
                found = [
                    (layer.keys[number][:, places], layer.values[number][:, places])
                    for layer in cache.layers
                ]
                memory.keep((*start, *rest), found)


def read_packs(
    weights: PreTrainedModel, packs: Sequence[Pack], known: KeysValues, keep: int
) -> tuple[torch.Tensor, Cache]:
    """Run a model over packs that follow what is known already.

    Args:
        weights: The model; the rows must fit its window.
        packs: The tokens, n packs.
        known: Keys and values of the tokens before all of them; empty where they are the first.
        keep: How many tokens at the end of each pack are read.

    Returns:
        The logits after the last ones, (n, keep, words), and keys and values of all tokens.
    """
    start = known[0][0].shape[1] if known else 0
    layout, device = side_by_side(packs, start), weights.device
    layers = []
    for pair in known:
        heads, _, size = pair[0].shape
        shape = (len(packs), heads, layout.seen.shape[-1], size)
        buffers = pair[0].new_empty(shape), pair[1].new_empty(shape)
        for buffer, past in zip(buffers, pair, strict=True):
            buffer[:, :, :start] = past
        layers.append(Room(*buffers, start))
    cache: Cache = Cache(layers=layers) if layers else DynamicCache()
    hidden = torch.from_numpy(~layout.seen).to(device)
    mask = torch.zeros(hidden.shape, dtype=weights.dtype, device=device)
    output = weights(
        input_ids=torch.from_numpy(layout.tokens).to(device),
        attention_mask=mask.masked_fill(hidden, torch.finfo(weights.dtype).min),
        position_ids=torch.from_numpy(layout.places).to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    return output.logits.float().cpu(), cache


def fits(weights: PreTrainedModel, rows: Iterable[Tokens]) -> bool:
    """Say whether rows are no longer than the model's shortest attention reaches back."""
    config = weights.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    reach = {
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    windows = [size for kind, size in reach.items() if kind in kinds and size]
    return not windows or max(map(len, rows)) <= min(windows)


class Draw:
    """Draws the words of one reply, by numbers of its own.

    The likeliest token after adding Gumbel noise is a sample from the softmax (Gumbel 1954;
    Maddison et al. 2014, arXiv 1411.0030), so the same numbers give the same token in any batch.

    Args:
        seed: Of the numbers.
        temperature: 0 takes the likeliest token.
        top_p: Draw among the likeliest tokens that together have this probability (nucleus
            sampling: Holtzman et al. 2020, arXiv 1904.09751).
        no_repeat: Never complete a run of this many tokens that the row already holds; 0: no rule.
        prompt: The row so far.
    """

    def __init__(
        self, seed: int, temperature: float, top_p: float, no_repeat: int, prompt: Tokens
    ) -> None:
        self.numbers = torch.Generator().manual_seed(seed)
        self.temperature, self.top_p, self.no_repeat = temperature, top_p, no_repeat
        self.row: list[int] = []
        self.followers: defaultdict[Tokens, set[int]] = defaultdict(set)
        for token in prompt:
            self.add(token)

    def add(self, token: int) -> None:
        """Take note of the row's next token."""
        self.row.append(token)
        if self.no_repeat and len(self.row) >= self.no_repeat:
            run = tuple(self.row[-self.no_repeat :])
            self.followers[run[:-1]].add(run[-1])

    def barred(self) -> list[int]:
        """Return the tokens that would repeat a run."""
        last = tuple(self.row[len(self.row) - self.no_repeat + 1 :]) if self.no_repeat else ()
        return sorted(self.followers.get(last, ()))

    def noise(self, vocabulary: int) -> NDArray[np.float64] | None:
        """Return the next random numbers, one a token; None if nothing is drawn at random."""
        if self.temperature == 0:
            return None
        uniform = torch.rand(vocabulary, generator=self.numbers, dtype=torch.float32)
        return uniform.numpy().astype(np.float64)

    def choose(self, logits: torch.Tensor, uniform: NDArray[np.float64] | None) -> tuple[int, bool]:
        """Choose a token.

        Args:
            logits: Of all words, those that must not be at minus infinity.
            uniform: What `noise` returned.

        Returns:
            The token, and whether it would be the same if rounding had gone another way.
        """
        if uniform is None:
            (first, second), ids = torch.topk(logits, 2)
            return int(ids[0]), bool(first - second > TOLERANCE)
        scaled = logits / self.temperature
        nucleus = self.top_p if self.top_p < 1 else np.inf
        count = min(LIKELIEST if self.top_p < 1 else len(scaled), len(scaled))
        values, ids = torch.topk(scaled, count)
        mass = torch.exp(values - torch.logsumexp(scaled, 0)).double().numpy()
        if count < len(scaled) and mass.sum() < nucleus + TOLERANCE:
            values, ids = torch.sort(scaled, descending=True)
            mass = torch.softmax(values, 0).double().numpy()
        before = np.cumsum(mass) - mass  # the probability of the likelier tokens
        inside = before < nucleus + TOLERANCE
        chance = np.clip(uniform[ids.numpy()], 1e-20, None)
        scores = np.where(inside, values.double().numpy() - np.log(-np.log(chance)), -np.inf)
        first = int(np.argmax(np.where(before < nucleus, scores, -np.inf)))
        margin = scores[first] - np.delete(scores, first).max()
        clear = min(margin * self.temperature, nucleus - before[first])
        return int(ids[first]), bool(clear > TOLERANCE)


def reply(
    weights: PreTrainedModel,
    prompts: Sequence[Tokens],
    draws: Sequence[Draw],
    memory: Memory,
    *,
    size: int,
    max_new_tokens: int,
    min_new_tokens: int,
    ends: Collection[int],
) -> list[list[int]]:
    """Continue prompts until each reply ends.

    Args:
        weights: The model.
        prompts: Tokens to continue.
        draws: What draws the words, one per prompt.
        memory: What was read before; the prompts are added to it.
        size: How many rows go on together.
        max_new_tokens: Longest reply.
        min_new_tokens: Shortest reply.
        ends: Tokens that end a reply, as its last one.

    Returns:
        The tokens of each reply.
    """
    remember(weights, set(prompts), memory, size)
    replies: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    stops = torch.tensor(sorted(ends))
    exact = weights.dtype == torch.float32

    def draw(i: int, logits: torch.Tensor) -> int:
        noise = draws[i].noise(len(logits))
        token, sure = draws[i].choose(masked(i, logits), noise)
        if exact and not sure:
            row = (*prompts[i], *replies[i])
            alone = Rows(weights, [row], Memory(0), len(row)).read()[0, 0]
            token, _ = draws[i].choose(masked(i, alone), noise)
        return token

    def masked(i: int, logits: torch.Tensor) -> torch.Tensor:
        logits[draws[i].barred()] = -torch.inf
        if len(replies[i]) < min_new_tokens:
            logits[stops] = -torch.inf
        return logits

    for first in range(0, len(order), size):
        live = order[first : first + size]
        batch = Rows(weights, [prompts[i] for i in live], memory, 1, max_new_tokens)
        logits = batch.read()[:, 0]
        places = {i: place for place, i in enumerate(live)}
        for _ in range(max_new_tokens):
            tokens = {i: draw(i, logits[places[i]]) for i in live}
            for i in live:
                replies[i].append(tokens[i])
                draws[i].add(tokens[i])
            live = [i for i in live if tokens[i] not in ends and len(replies[i]) < max_new_tokens]
            if not live:
                break
            if len(live) <= len(places) / 2:
                batch.only([places[i] for i in live])
                places = {i: place for place, i in enumerate(live)}
            column = dict.fromkeys(range(len(places)), 0) | {places[i]: tokens[i] for i in live}
            logits = batch.add(list(column.values()))
    return replies
