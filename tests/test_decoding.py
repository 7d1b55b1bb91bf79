"""Decoding: a reply is that of the lone row in any batch, and what was read is not read again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    TopPLogitsWarper,
)

from clca_utils.decoding import (
    LIKELIEST,
    TOLERANCE,
    Draw,
    Memory,
    Rows,
    batches,
    fits,
    remember,
    reply,
)
from clca_utils.prefix_tree import shared_length

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)
LOGITS = torch.tensor([1.0, 0.0, -1.0, 2.0, -3.0])
COUNT = 20_000


def known(row):
    """Return keys and values as `Memory` keeps them, which tell of which tokens they are."""
    tensor = torch.tensor([row], dtype=torch.float32)[..., None]
    return [(tensor, tensor + 10)]


@given(st.lists(TOKENS, max_size=8), TOKENS)
def test_memory_finds_the_longest_beginning_it_was_given(kept, row):
    memory = Memory(np.inf)
    for one in kept:
        memory.keep(one, known(one))
    length, source = memory.longest(row)
    assert length == max((shared_length(one, row) for one in kept), default=0)
    if length:
        [(keys, values)] = memory.recall(row, length)
        assert keys[0, :, 0].tolist() == list(row[:length])
        assert (values - keys == 10).all()
        assert shared_length(source, row) == length
    assert memory.ordered == sorted(memory.kept)


@given(st.lists(TOKENS, max_size=8, unique=True), st.integers(0, 12))
def test_memory_trims_to_its_room_and_keeps_what_was_used_last(kept, room):
    memory = Memory(room)
    for one in kept:
        memory.keep(one, known(one))
    memory.trim()
    assert sum(map(len, memory.kept)) <= room
    last = max((one for one in kept if one[: len(kept[-1])] == kept[-1]), key=len, default=())
    if kept and len(last) <= room:  # the last row, or one that goes on from it
        assert memory.longest(kept[-1])[0] == len(kept[-1])


def test_a_longer_row_takes_the_place_of_what_it_continues():
    memory = Memory(np.inf)
    for row in [(1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 5), (1, 2)]:
        memory.keep(row, known(row))
    assert sorted(memory.kept) == [(1, 2, 3, 4), (1, 5)]


@given(st.lists(TOKENS, min_size=1, max_size=12), st.integers(1, 4), st.lists(TOKENS, max_size=4))
def test_batches_hold_every_row_once_and_read_all_that_is_new(rows, size, kept):
    memory = Memory(np.inf)
    for one in kept:
        memory.keep(one, known(one))
    found = list(batches(rows, memory, size))
    assert sorted(row for some, _ in found for row in some) == sorted(set(rows))
    for some, fresh in found:
        assert len(some) <= size
        for row in some:
            assert len(row) - fresh <= memory.longest(row)[0]
            assert fresh >= 1


def frequencies(temperature, top_p, logits=LOGITS, draws=1):
    """Return which tokens were drawn how often, one seed each; of the last of some draws."""
    tokens = []
    for seed in range(COUNT // 4):
        draw = Draw(seed, temperature, top_p, 0, ())
        tokens.append([draw.choose(logits, draw.noise(len(logits)))[0] for _ in range(draws)])
    return np.array(tokens)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drawn_tokens_have_the_frequencies_of_the_softmax(temperature):
    first, second = frequencies(temperature, 1.0, draws=2).T
    wanted = (LOGITS.double() / temperature).softmax(0).numpy()
    for drawn in (first, second):
        seen = np.bincount(drawn, minlength=5)
        assert stats.chisquare(seen, wanted / wanted.sum() * len(drawn)).pvalue > 1e-3
    # a row's next draw does not hang on its last one
    joint = np.outer(wanted, wanted).ravel()
    both = np.bincount(first * 5 + second, minlength=25)
    assert stats.chisquare(both, joint / joint.sum() * len(first)).pvalue > 1e-3


def test_top_p_leaves_the_frequencies_within_the_nucleus():
    drawn = frequencies(1.0, 0.8)[:, 0]
    inside = np.isfinite(TopPLogitsWarper(0.8)(None, LOGITS[None])[0].numpy())
    assert inside.tolist() == [True, False, False, True, False]
    wanted = LOGITS.double().softmax(0).numpy()[inside]
    seen = np.bincount(drawn, minlength=5)
    assert seen[~inside].sum() == 0
    assert stats.chisquare(seen[inside], wanted / wanted.sum() * len(drawn)).pvalue > 1e-3


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_a_large_vocabulary_is_cut_to_the_same_nucleus_as_transformers(top_p, spread):
    logits = torch.randn(20 * LIKELIEST, generator=torch.Generator().manual_seed(1)) * spread
    inside = torch.isfinite(TopPLogitsWarper(top_p)(None, logits[None])[0])
    draw = Draw(1, 1.0, top_p, 0, ())
    for _ in range(50):
        uniform = draw.noise(len(logits))
        token, _ = draw.choose(logits, uniform)
        scores = logits.double().numpy() - np.log(-np.log(np.clip(uniform, 1e-20, None)))
        assert token == int(np.argmax(np.where(inside.numpy(), scores, -np.inf)))


def test_forbidden_tokens_stay_forbidden():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    for seed in range(200):
        draw = Draw(seed, 5.0, 0.95, 0, ())
        assert draw.choose(logits, draw.noise(3))[0] == 1


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.8, 1.5]), st.sampled_from([0.7, 0.95, 1.0]))
def test_a_sure_choice_survives_rounding(seed, temperature, top_p):
    numbers = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, generator=numbers) * 2
    draw = Draw(seed, temperature, top_p, 0, ())
    uniform = draw.noise(40)
    token, sure = draw.choose(logits, uniform)
    for _ in range(5):
        moved = logits + (torch.rand(40, generator=numbers) - 0.5) * TOLERANCE / 2
        assert draw.choose(moved, uniform)[0] == token or not sure


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_choice_between_equals_is_not_sure(temperature):
    draw = Draw(1, temperature, 1.0, 0, ())
    uniform = None if temperature == 0 else np.full(2, 0.5)
    assert draw.choose(torch.tensor([1.0, 1.0]), uniform)[1] is False
    assert draw.choose(torch.tensor([1.0, 2.0]), uniform) == (1, True)


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4))
def test_barred_tokens_are_those_that_repeat_a_run(row, run):
    draw = Draw(1, 1.0, 1.0, run, tuple(row))
    runs = {tuple(row[i : i + run]) for i in range(len(row) - run + 1)}
    last = tuple(row[len(row) - run + 1 :]) if len(row) >= run - 1 else None
    repeats = [t for t in range(4) if last is not None and (*last, t) in runs]
    assert draw.barred() == repeats


SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 256,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "phi3": Phi3Config(**SHAPE),
    "mistral, a window of 8": MistralConfig(**SHAPE, sliding_window=8),
    "gemma 3, a window of 8": Gemma3TextConfig(
        **SHAPE, sliding_window=8, layer_types=["sliding_attention", "full_attention"] * 2
    ),
}
PROMPTS = [
    tuple(torch.randint(3, 97, (n,), generator=torch.Generator().manual_seed(n)).tolist())
    for n in (40, 5, 23, 31)
]
PROMPTS.append((*PROMPTS[0][:30], 9, 9, 9))


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def tiny(request):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(request.param, attn_implementation="sdpa").eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)  # else all words are about as likely
    return model


def replies(model, prompts, memory, size, *, temperature=0.0, seeds=range(100)):
    draws = [Draw(s, temperature, 0.9, 0, p) for s, p in zip(seeds, prompts, strict=False)]
    asked = {"size": size, "max_new_tokens": 12, "min_new_tokens": 1, "ends": {2}}
    with torch.inference_mode():
        return reply(model, prompts, draws, memory, **asked)


def test_greedy_replies_are_those_of_transformers(tiny):
    for prompt, ours in zip(PROMPTS, replies(tiny, PROMPTS, Memory(0), 2), strict=True):
        output = tiny.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=2
        )
        assert output[0, len(prompt) :].tolist() == ours


def test_replies_do_not_depend_on_the_batch_or_on_what_is_remembered(tiny):
    alone = [
        replies(tiny, [p], Memory(0), 1, temperature=0.9, seeds=[i])[0]
        for i, p in enumerate(PROMPTS)
    ]
    assert len(set(map(tuple, alone))) == len(PROMPTS)
    memory = Memory(np.inf)
    for size in (5, 2):
        assert replies(tiny, PROMPTS, memory, size, temperature=0.9) == alone
    longer = [(*prompt, *said) for prompt, said in zip(PROMPTS, alone, strict=True)]
    fresh = replies(tiny, longer, Memory(0), 1, temperature=0.9)
    assert replies(tiny, longer, memory, 3, temperature=0.9) == fresh


def test_what_is_remembered_is_not_read_again(tiny):
    read = []
    hook = tiny.register_forward_pre_hook(
        lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        memory = Memory(np.inf)
        with torch.inference_mode():
            remember(tiny, PROMPTS[:1], memory, 4)
            assert read == [40]
            remember(tiny, [PROMPTS[0], (*PROMPTS[0], 7, 8)], memory, 4)
            assert read == [40, 2]
            Rows(tiny, [PROMPTS[0]], memory, 1).read()
            assert read == [40, 2, 1]
    finally:
        hook.remove()


@pytest.mark.parametrize("known", [0, 35, 40], ids=["nothing", "a part", "the start"])
def test_the_turns_of_a_talk_are_read_in_packs_and_remembered_as_if_each_alone(tiny, known):
    talk, ending = (*PROMPTS[0], *PROMPTS[2], *PROMPTS[3]), (5, 6, 7)
    turns = [(*talk[:end], *ending) for end in range(42, len(talk), 4)]
    memory, read = Memory(np.inf), []
    with torch.inference_mode():
        remember(tiny, [talk[:known]] if known else [], memory, 4)
        hook = tiny.register_forward_pre_hook(
            lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True
        )
        remember(tiny, turns, memory, 4)
        hook.remove()
        for turn in turns:
            assert memory.longest(turn)[0] == len(turn)
            alone = Rows(tiny, [turn], Memory(0), len(turn))
            alone.read()
            for ours, plain in zip(memory.recall(turn, len(turn)), *alone.found(), strict=True):
                for one, other in zip(ours, plain, strict=True):
                    assert torch.allclose(one, other, atol=1e-5)
    if fits(tiny, turns):
        assert sum(read) < sum(len(turn) - known for turn in turns) / 2


def test_where_rounding_could_decide_the_lone_row_does(tiny, monkeypatch):
    monkeypatch.setattr("clca_utils.decoding.TOLERANCE", 1e9)  # nothing is ever sure
    alone = [
        replies(tiny, [p], Memory(0), 1, temperature=0.9, seeds=[i])[0]
        for i, p in enumerate(PROMPTS)
    ]
    assert replies(tiny, PROMPTS, Memory(0), 5, temperature=0.9) == alone


def test_the_tolerance_is_wider_than_the_rounding_of_the_embedded_model(smollm):
    text = "Ana asks Ben for a ladder. Ben would rather keep it at home. " * 8
    row = tuple(smollm.tokenizer(text)["input_ids"])
    rows = [row[:100], row[3:80], row[:61], row[5:]]
    memory = Memory(np.inf)
    with torch.inference_mode():
        remember(smollm.weights, [one[:40] for one in rows], memory, 4)
        remember(smollm.weights, rows, memory, 4)
        together = Rows(smollm.weights, rows, memory, 1).read()[:, 0]
        alone = torch.stack(
            [Rows(smollm.weights, [one], Memory(0), len(one)).read()[0, 0] for one in rows]
        )
    # what decides is the difference of two logits, of tokens that may be drawn
    likely = alone > alone.max(1, keepdim=True).values - 10
    error = float((together - alone).abs()[likely].max())
    assert 2 * error < TOLERANCE
