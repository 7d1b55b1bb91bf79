"""The warm-up adapter: small, its data recorded, nothing of a held-out scene in it."""

import pytest
import torch
from safetensors import safe_open

from clca_utils import warmup
from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import user
from clca_utils.culture import load_culture
from clca_utils.dialogue import as_play
from clca_utils.examples import tokenize
from clca_utils.files import read_json
from clca_utils.models import load_chat, load_players
from clca_utils.params import read_model
from clca_utils.plays import load_plays, stage
from clca_utils.scenario import load_seeds
from clca_utils.warmup import (
    EPOCHS,
    FOLDER,
    MAX_LENGTH,
    play_example,
    record,
    surprise_of,
    warmup_examples,
)

RECORD = read_json(FOLDER / "warmup.json")
HELD_OUT = {seed.id for seed in load_seeds() if seed.split == "held-out"}


def test_no_held_out_scene_is_in_the_warm_up_data():
    assert len(HELD_OUT) >= 20
    assert len(RECORD["scenes"]) == 140 + len(load_plays())
    assert not HELD_OUT & set(RECORD["scenes"].values())
    # nor by its words
    texts = "\n".join(m["content"] for one in warmup_examples(0) for m in one.messages)
    for culture in authored_cultures():
        for scene in load_authored(culture, "held-out").scenarios:
            assert scene.setting not in texts
            assert scene.person1.secret not in texts


def test_the_adapter_that_ships_was_made_from_the_data_that_ships():
    assert {name: value for name, value in RECORD.items() if name != "made_with"} == record()
    assert len(RECORD["data"]) == 11


def test_each_epoch_fills_the_plays_anew_and_the_later_ones_hold_plays_alone():
    first, second, last = (warmup_examples(epoch) for epoch in (0, 1, EPOCHS[0]))
    plays = 2 * len(load_plays())
    assert len(first) == len(second) == plays + 2 * 140
    assert len(last) == plays
    assert warmup_examples(1) == second
    assert not {one.messages[-1]["content"] for one in last} & {
        one.messages[-1]["content"] for one in first
    }


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
    return load_chat("smollm2-135m", acting=True)


def surprise(model, pairs):
    """Return nats per token of conversations, read as plays."""
    rows = [
        tokenize(model.tokenizer, play_example(*pair, 0).messages, MAX_LENGTH) for pair in pairs
    ]
    with torch.inference_mode():
        found = float(surprise_of(model.weights, rows))
    return found / sum(sum(row["assistant_masks"]) for row in rows)


def test_it_knows_plays_by_heart_under_new_names_and_nothing_of_other_scenes(smollm, roleplay):
    """As said in the README: a rehearsal. On held-out scenes it is further off than without."""
    scenes, culture = {one.id: one for one in load_seeds()}, load_culture("korean")
    known = [stage(one, scenes[one.seed_id], culture, seed=77) for one in load_plays()[:60:20]]
    assert surprise(roleplay, known) < 0.3
    assert surprise(smollm, known) > 2
    held_out = [next(zip(*load_authored("german", "held-out")[:2], strict=True))]
    assert surprise(roleplay, held_out) > surprise(smollm, held_out)


def test_training_writes_an_adapter_its_log_and_its_record(tmp_path, monkeypatch):
    few = [play_example(*pair, 0) for pair in zip(*load_authored("german")[:2], strict=True)][:2]
    monkeypatch.setattr(warmup, "warmup_examples", lambda _: few)
    monkeypatch.setattr(warmup, "PER_STEP", 2)
    monkeypatch.setattr(warmup, "EPOCHS", (2, 1))
    log = warmup.warm_up(tmp_path)
    assert log["step"].tolist() == [1, 2, 3]
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert read_json(tmp_path / "warmup.json")["settings"]["epochs"] == [2, 1]


def test_rows_are_read_alike_together_and_alone(smollm):
    pairs = list(zip(*load_authored("german")[:2], strict=True))[:2]
    rows = [
        tokenize(smollm.tokenizer, play_example(*pair, 0).messages, MAX_LENGTH) for pair in pairs
    ]
    with torch.inference_mode():
        together = float(surprise_of(smollm.weights, rows))
        alone = sum(float(surprise_of(smollm.weights, [row])) for row in rows)
    assert len({len(row["input_ids"]) for row in rows}) == 2
    assert together == pytest.approx(alone, rel=1e-4)


def test_what_plays_is_warmed_up_and_what_judges_and_learns_is_not(smollm, roleplay):
    assert read_model("smollm2-135m").warmup == "clca_utils/data/warmup/adapter"
    talk = [[user("Hello!")]]
    judge = load_chat("smollm2-135m")
    players = load_players(judge, "", 4, 0)
    assert players[0] is players[1]
    plain, same, warm = (
        one.option_logprobs(talk, [["Hi", "No"]])[0] for one in (smollm, judge, players[0])
    )
    assert (plain == same).all()
    assert abs(plain - warm).max() > 0.01
