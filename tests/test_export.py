"""Exported adapters: what peft and transformers load again, and a card that tells what was read."""

import errno
import json
import re
import shutil

import pytest
import torch
import yaml
from peft import PeftModel
from test_training import EXAMPLES, RECIPE, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from clca_utils import export
from clca_utils.cli import app
from clca_utils.embedded import prepare
from clca_utils.export import export_adapter
from clca_utils.files import ROOT, StudyError, read_json, write_json, write_metrics
from clca_utils.params import FineTuning
from clca_utils.training import train_adapter
from clca_utils.transformers_model import load_tokenizer, load_weights, unwarned

EXAM = {
    "perplexity_imitation_own_before": 20.5, "perplexity_imitation_own_after": 18.25,
    "perplexity_text_before": 40.0, "perplexity_text_after": 41.5,
}  # fmt: skip
SURVEY = {
    "items": 44, "js_distance_before": 0.325, "js_distance_after": 0.3312,
    "js_distance_uniform": 0.3262, "js_distance_human_floor": 0.031,
}  # fmt: skip


def trained(folder, **changes: object):
    """Return the run of a tiny random model that learnt, with its manifest."""
    tokenizer, run = load_tokenizer(prepare()), folder / "german" / "tiny" / "seed-1"
    weights, source = tiny(tokenizer), folder / "model"
    weights.save_pretrained(source)
    tokenizer.save_pretrained(source)
    recipe = FineTuning(**(RECIPE | {"epochs": 1} | changes))
    run.mkdir(parents=True)
    name = str(source)
    log = train_adapter(weights, tokenizer, EXAMPLES, run, recipe, seed=1, base="org/tiny")
    told = {"culture": "german", "model": name, "seed": 1} | recipe.model_dump()
    versions = {"torch": "1.0", "transformers": "2.0", "peft": "3.0"}
    stages = {"04_fine_tuning": {"parameters": told}}
    write_json(run / "manifest.json", {"commit": "abc", "packages": versions, "stages": stages})
    write_metrics(
        run,
        "04_fine_tuning",
        {"examples": 6, "steps": len(log), "loss_first": 9.125, "loss_last": 8.5},
    )
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"))


@pytest.fixture
def ids():
    return torch.arange(100, 130)[None]


def logits(weights, ids):
    with torch.inference_mode():
        return weights.eval()(ids).logits


def expected(run, ids):
    """Return what the model with the run's adapter says, computed beside the export."""
    with unwarned():
        base = load_weights(run.parents[2] / "model")
        return logits(PeftModel.from_pretrained(base, str(run / "adapter")), ids)


def test_peft_loads_the_adapter_and_transformers_its_tokenizer(run, tmp_path, ids):
    told = export_adapter(run, tmp_path / "out")
    assert told.endswith("holds the adapter and its card.")
    with unwarned():
        base = load_weights(run.parents[2] / "model")
        loaded = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    assert torch.equal(logits(loaded, ids), expected(run, ids))
    chat = [{"role": "user", "content": "Hello."}]
    text = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(chat, tokenize=False)
    assert "Hello." in text
    config = read_json(tmp_path / "out/adapter_config.json")
    assert config["base_model_name_or_path"] == "org/tiny"


def test_transformers_loads_the_merged_model(run, tmp_path, ids):
    export_adapter(run, tmp_path / "out", merged=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", use_safetensors=True)
    assert loaded.dtype == torch.float32
    assert torch.allclose(logits(loaded, ids), expected(run, ids), atol=1e-4)
    plain = load_weights(run.parents[2] / "model")
    assert not torch.allclose(logits(plain, ids), expected(run, ids), atol=1e-3)


def test_saved_layers_are_merged_too_and_told(tmp_path, ids):
    run = trained(tmp_path / "run", modules_to_save=["lm_head"], learning_rate=1e-3)
    export_adapter(run, tmp_path / "merged", merged=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(loaded, ids), expected(run, ids), atol=1e-4)
    export_adapter(run, tmp_path / "alone")
    assert (
        "does not load adapters that save whole layers (lm_head)"
        in (tmp_path / "alone/README.md").read_text()
    )


def test_a_merged_model_can_be_short(run, tmp_path):
    export_adapter(run, tmp_path / "out", merged=True, dtype="bfloat16")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize("merged", [False, True])
def test_only_safetensors_and_no_path_of_this_machine(run, tmp_path, merged):
    export_adapter(run, tmp_path / "out", merged=merged)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "README.md" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".pth"))]
    for path in (tmp_path / "out").glob("*.json"):
        text = path.read_text()
        assert str(ROOT) not in text
        assert path.name == "config.json" or str(tmp_path) not in text
    assert not list(tmp_path.glob(".*"))


def test_the_card_tells_what_the_run_left(run, tmp_path):
    write_metrics(run, "04b_held_out", EXAM)
    write_metrics(run, "05_wvs_analysis", SURVEY)
    export_adapter(run, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["library_name"] == "peft"
    assert front["license"] == "other"
    for told in (
        "and Germany", "examples: 6", "Loss 9.125 to 8.500", "| lora_rank | 2 |", "Commit abc",
        "torch 1.0", "20.50 before, 18.25 after", "0.325 before, 0.331 after",
        "guessing evenly 0.326", "no closer than guessing evenly", "speaks for nobody",
        "fill it in before you pass this on",
    ):  # fmt: skip
        assert told in body, told
    assert re.findall(r"(?m)^# ", body) == ["# "]


def test_a_gain_is_told_as_one_and_what_was_not_measured_is_said(run, tmp_path):
    write_metrics(run, "05_wvs_analysis", SURVEY | {"js_distance_after": 0.3})
    assert "it is closer than guessing evenly." in export.results_told(run)[-1]
    assert export.results_told(tmp_path) == ["Not evaluated."]


def test_a_variant_and_the_embedded_model_are_named(run, tmp_path):
    other = tmp_path / "german" / "smollm2-135m+neutral-text" / "seed-1"
    shutil.copytree(run, other)
    manifest = read_json(other / "manifest.json")
    given = manifest["stages"]["04_fine_tuning"]["parameters"]
    given |= {"model": "smollm2-135m", "learn_from": "neutral"}
    text = export.card(other, export.told_of(other) | given, merged=False)
    assert "license: apache-2.0" in text
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in text
    assert "which learnt no culture" in text
    assert "This is the variant neutral-text:" in text


def refusal(run, target) -> str:
    with pytest.raises(StudyError) as error:
        export_adapter(run, target)
    return str(error.value)


def test_what_cannot_be_exported_is_told_and_nothing_is_left(run, tmp_path):
    assert "manifest.json is missing: name a run folder" in refusal(tmp_path, tmp_path / "out")
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "adapter" / export.WEIGHTS).rename(broken / "adapter" / "adapter_model.bin")
    assert "other formats than safetensors are not read" in refusal(broken, tmp_path / "out")
    write_json(broken / "manifest.json", {"stages": {}})
    assert "tells of no finished 04_fine_tuning" in refusal(broken, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    assert "is there already: name another folder" in refusal(run, tmp_path / "full")
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "full"}
    (tmp_path / "empty").mkdir()
    export_adapter(run, tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").is_file()


def test_a_full_disk_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "write_text", full)
    assert "could not be written (No space left on device)" in refusal(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(run, tmp_path):
    target = str(tmp_path / "out")
    done = CliRunner().invoke(app, ["adapter", "export", str(run), target])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, ["adapter", "export", str(run), target])
    assert again.exit_code == 1
    wrong = CliRunner().invoke(app, ["adapter", "export", str(run), target, "--dtype", "int8"])
    assert wrong.exit_code == 2
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == 2
