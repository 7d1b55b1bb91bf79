"""The exam: which tokens count, and that the surprise is that of a plain forward pass."""

import math

import numpy as np
import pytest
import torch

from clca_utils.exam import examined, held_out_rows, surprises, text_rows
from clca_utils.general import load_passages, load_questions
from clca_utils.held_out import COLUMNS

PASSAGES = load_passages(2)


def test_the_surprise_is_that_of_a_plain_forward_pass_in_any_batch(smollm):
    rows = [row for *_, row in text_rows(smollm.tokenizer, load_passages(3))]
    rows.append({"input_ids": rows[0]["input_ids"][:9], "assistant_masks": [0] * 6 + [1] * 3})
    found = surprises(smollm.weights, rows, 4)
    assert found == pytest.approx(surprises(smollm.weights, rows, 1), rel=1e-4)
    for row, nats in zip(rows, found, strict=True):
        tokens = torch.tensor([row["input_ids"]])
        with torch.inference_mode():
            logprobs = torch.log_softmax(smollm.weights(tokens).logits.float(), -1)[0]
        alone = -sum(
            float(logprobs[place - 1, token])
            for place, (token, counts) in enumerate(
                zip(row["input_ids"], row["assistant_masks"], strict=True)
            )
            if counts
        )
        assert nats == pytest.approx(alone, rel=1e-4)


def test_held_out_conversations_are_never_those_to_learn_from(smollm):
    rows = held_out_rows(smollm.tokenizer, ["german", "turkish", "japanese"], 2)
    assert {culture for _, culture, *_ in rows} == {"German", "Japanese"}
    assert {task for task, *_ in rows} == {"imitation", "intent"}
    assert len({name for *_, name, _ in rows}) == len(rows) == 2 * 2 * 3
    text = smollm.tokenizer.decode(
        [
            t
            for t, on in zip(rows[0][3]["input_ids"], rows[0][3]["assistant_masks"], strict=True)
            if on
        ]
    )
    assert "<|im_end|>" in text
    assert "<|im_start|>" not in text


def test_an_exam_has_a_row_for_everything_asked(smollm):
    found = examined(smollm, ["german"], 1, PASSAGES, load_questions(3))
    assert list(found) == COLUMNS
    assert found["task"].value_counts().to_dict() == {
        "imitation": 2, "intent": 1, "text": 2, "question": 3
    }  # fmt: skip
    counted = found[found["task"] != "question"]
    assert (counted["nats"] / counted["tokens"]).between(0.5, 8).all()
    assert found[found["task"] == "question"]["right"].notna().all()
    assert counted["right"].isna().all()


def test_plain_text_is_less_surprising_in_order_than_shuffled(smollm):
    rows = [row for *_, row in text_rows(smollm.tokenizer, PASSAGES)]
    mixed = np.random.default_rng(1)
    shuffled = [row | {"input_ids": mixed.permutation(row["input_ids"]).tolist()} for row in rows]
    for plain, other in zip(
        surprises(smollm.weights, rows, 2), surprises(smollm.weights, shuffled, 2), strict=True
    ):
        assert plain < 0.7 * other
        assert math.isfinite(other)
