"""The warm-up adapter: what it learnt from is recorded, small, and held nothing back."""

import pytest
from safetensors import safe_open

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import user
from clca_utils.dialogue import as_play
from clca_utils.files import DATA, digest, read_json
from clca_utils.models import load_chat
from clca_utils.params import read_model
from clca_utils.scenario import load_seeds
from clca_utils.transformers_model import render
from clca_utils.warmup import FOLDER, LORA, loss_of, play_example, warmup_examples

RECORD = read_json(FOLDER / "warmup.json")
HELD_OUT = {seed.id for seed in load_seeds() if seed.split == "held-out"}


def test_no_held_out_scene_is_in_the_warm_up_data():
    assert len(HELD_OUT) >= 20
    seed_of = {
        talk.id: scene.seed_id
        for culture in authored_cultures()
        for scene, talk in zip(*load_authored(culture)[:2], strict=True)
    }
    learnt = [seed_of[one] for one in RECORD["conversations"]]
    assert len(learnt) == len(warmup_examples()) == 140
    assert not HELD_OUT & set(learnt)
    # nor by its words
    texts = "\n".join(m["content"] for one in warmup_examples() for m in one.messages)
    for culture in authored_cultures():
        for scene in load_authored(culture, "held-out").scenarios:
            assert scene.setting not in texts
            assert scene.person1.secret not in texts


def test_the_adapter_that_ships_was_made_from_the_data_that_ships():
    assert RECORD["data"] == {name: digest(DATA / "authored" / name) for name in RECORD["data"]}
    assert len(RECORD["data"]) == 10
    assert [one.dialogue_id for one in warmup_examples()] == RECORD["conversations"]
    assert RECORD["settings"]["lora"] == LORA


def test_the_adapter_is_small_and_safe():
    files = {path.name: path.stat().st_size for path in (FOLDER / "adapter").iterdir()}
    assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert sum(files.values()) < 12e6
    with safe_open(FOLDER / "adapter" / "adapter_model.safetensors", "pt") as tensors:
        assert len(list(tensors.keys())) == 2 * 7 * 30  # two matrices of each linear layer


def test_what_it_learns_is_how_stage_02_lets_a_play_go_on():
    scene, talk = (part[0] for part in load_authored("german")[:2])
    example = play_example(scene, talk, view=1)
    asked = as_play(scene, talk.turns[:3], 1)
    assert example.messages[:-1] == asked[:-1]
    assert example.messages[-1]["content"].startswith(asked[-1]["content"])


@pytest.fixture(scope="module")
def roleplay():
    return load_chat("smollm2-135m")


def test_the_warmed_up_model_expects_held_out_conversations_better(smollm, roleplay):
    losses = {}
    for name, model in (("plain", smollm), ("warm", roleplay)):
        total = 0.0
        for culture in ("german", "japanese"):
            scene, talk = (part[0] for part in load_authored(culture, "held-out")[:2])
            *request, whole = play_example(scene, talk, 0).messages
            start = render(model.tokenizer, request)
            tokens = model.tokenizer(start + whole["content"])["input_ids"]
            head = len(model.tokenizer(start)["input_ids"])
            mask = [0] * head + [1] * (len(tokens) - head)
            total += float(loss_of(model.weights, {"input_ids": tokens, "assistant_masks": mask}))
        losses[name] = total / 2
    assert losses["warm"] < losses["plain"] - 0.1


def test_what_plays_is_warmed_up_and_what_learns_is_not(smollm, roleplay):
    assert read_model("smollm2-135m").warmup == "clca_utils/data/warmup/adapter"
    talk = [[user("Hello!")]]
    plain, warm = (one.option_logprobs(talk, [["Hi", "No"]])[0] for one in (smollm, roleplay))
    assert abs(plain - warm).max() > 0.01
