"""Exported adapters: what peft and transformers load again, and a card that tells what was read."""

import errno
import os
import re
import shutil
import stat
from datetime import UTC, datetime

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from test_training import EXAMPLES, RECIPE, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from typer.testing import CliRunner

from clca_utils import export
from clca_utils.cli import app
from clca_utils.embedded import prepare
from clca_utils.export import export_adapter, shrink_adapters
from clca_utils.files import StudyError, digest, read_json, write_json, write_metrics
from clca_utils.model_card import CONFIG, WEIGHTS, card, read_run, serving_told
from clca_utils.params import FineTuning
from clca_utils.runner import Record
from clca_utils.training import train_adapter
from clca_utils.transformers_model import load_tokenizer, load_weights, unwarned

EXAM = {
    "perplexity_imitation_own_before": 20.5, "perplexity_imitation_own_after": 18.25,
    "perplexity_text_before": 40.0, "perplexity_text_after": 41.5,
}  # fmt: skip
SURVEY = {
    "items": 44, "js_distance_before": 0.325, "js_distance_after": 0.3312,
    "js_distance_uniform": 0.3262, "js_distance_human_floor": 0.031,
    "change": 0.0062, "change_low": 0.001, "change_high": 0.011, "p_value": 0.0321,
}  # fmt: skip


def record(run, stage, metrics, **told):
    """Write a stage's metrics and its record in the manifest, as the runner does."""
    write_metrics(run, stage, metrics)
    name = f"metrics/{stage}.json"
    given = {"parameters": {"prompt": "nationality"}, "outputs": {}} | told
    given["outputs"][name] = digest(run / name)
    entry = Record(
        key="", notebook="", commit="abc", seconds=61.5, finished=datetime(2026, 1, 2, tzinfo=UTC),
        **({"inputs": {"…/adapter": digest(run / "adapter")}} | given),
    )  # fmt: skip
    manifest = read_json(run / "manifest.json")
    manifest["stages"][stage] = entry.model_dump(mode="json")
    write_json(run / "manifest.json", manifest)


def trained(folder, *, tied=False, **changes: object):
    """Return the run of a tiny random model that learnt, with its manifest."""
    tokenizer, run = load_tokenizer(prepare()), folder / "german" / "tiny" / "seed-1"
    weights, source = tiny(tokenizer), folder / "model"
    weights.config.tie_word_embeddings = tied
    weights.tie_weights()
    weights.save_pretrained(source)
    tokenizer.save_pretrained(source)
    recipe = FineTuning(**(RECIPE | {"epochs": 1} | changes))
    run.mkdir(parents=True)
    log = train_adapter(weights, tokenizer, EXAMPLES, run, recipe, seed=1, base=str(source))
    packages = {"torch": "1.0", "transformers": "2.0", "peft": "3.0"}
    write_json(run / "manifest.json", {"study": "mine", "packages": packages, "stages": {}})
    record(
        run,
        "04_fine_tuning",
        {"examples": 6, "tokens": 1234, "steps": len(log), "loss_first": 9.125, "loss_last": 8.5},
        parameters={"run_dir": str(run), "culture": "german", "model": str(source), "seed": 1}
        | recipe.model_dump(),
        outputs={"adapter": digest(run / "adapter")},
    )
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"))


@pytest.fixture
def copied(run, tmp_path):
    """Return a copy of the run, to be spoilt."""
    return shutil.copytree(run, tmp_path / "runs" / "german" / "tiny" / "seed-1")


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


def by_the_card(run, folder, ids):
    """Return what the model says that the card's own code loads."""
    (code,) = re.findall(r"(?s)```python\n(.*?)```", (folder / "README.md").read_text())
    names: dict[str, object] = {}
    with unwarned():
        base = str(run.parents[2] / "model")
        exec(code.replace("FOLDER", str(folder)).replace('"BASE"', f'"{base}"'), names)
    assert isinstance(names["tokenizer"], PreTrainedTokenizerBase)
    return logits(names["model"], ids)


def test_peft_and_transformers_load_the_adapter_as_its_card_says(run, tmp_path, ids, capsys):
    out = tmp_path / "new" / "out"
    assert export_adapter(run, out) == f"{out} holds the adapter and its card."
    assert torch.equal(by_the_card(run, out, ids), expected(run, ids))
    assert "What matters in a friend?" in capsys.readouterr().out
    chat = [{"role": "user", "content": "Hello."}]
    whole, own = (AutoTokenizer.from_pretrained(one) for one in (out, run.parents[2] / "model"))
    assert whole.apply_chat_template(chat) == own.apply_chat_template(chat)
    # a base that has an id is found through the adapter's configuration, here a folder's path
    config = read_json(out / CONFIG)
    assert config["base_model_name_or_path"] == "model"
    write_json(out / CONFIG, config | {"base_model_name_or_path": str(run.parents[2] / "model")})
    with unwarned():
        loaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits(loaded, ids), expected(run, ids))


def test_transformers_loads_the_merged_model_as_its_card_says(run, tmp_path, ids):
    export_adapter(run, tmp_path / "out", merged=True)
    config = read_json(tmp_path / "out" / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float32"
    assert read_json(tmp_path / "out" / "generation_config.json")["eos_token_id"] == 2
    merged = by_the_card(run, tmp_path / "out", ids)
    assert torch.allclose(merged, expected(run, ids), atol=1e-4)
    plain = load_weights(run.parents[2] / "model")
    assert not torch.allclose(logits(plain, ids), expected(run, ids), atol=1e-2)


@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings", "ignore:Setting `save_embed")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize(
    "shape",
    [
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["lm_head"], "tied": True},
        {"target_modules": "q_proj,embed_tokens", "tied": True},
        {"target_modules": "q_proj", "tied": True},
    ],
    ids=["head saved", "tied, head saved", "tied, LoRA on the embedding", "tied"],
)
def test_heads_and_embeddings_are_merged_as_they_were_learnt(tmp_path, ids, shape):
    run = trained(tmp_path / "run", batch_size=6, **shape)
    export_adapter(run, tmp_path / "out", merged=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(loaded, ids), expected(run, ids), atol=1e-4)
    ends = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert loaded.config.tie_word_embeddings == torch.equal(*ends) == (ends[0] is ends[1])
    assert torch.equal(*ends) == ("tied" in shape and "embed_tokens" not in str(shape))
    unserved = "vLLM does not load: export it with `--merged`" in card(read_run(run), dtype=None)
    assert unserved == (shape.get("target_modules") != "q_proj")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_merged_model_can_be_short(run, tmp_path, ids, dtype):
    export_adapter(run, tmp_path / "out", merged=True, dtype=dtype)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == getattr(torch, dtype)
    assert torch.allclose(logits(loaded, ids).float(), expected(run, ids), atol=0.1)
    told = f"Its numbers are {dtype}, in which a small adapter can be rounded away"
    assert told in (tmp_path / "out" / "README.md").read_text()


def test_a_short_adapter_is_not_to_be_had(run, tmp_path):
    with pytest.raises(StudyError, match="dtype bfloat16 is of a merged model: add --merged"):
        export_adapter(run, tmp_path / "out", dtype="bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_what_vllm_reads_is_in_the_adapter(run, tmp_path):
    export_adapter(run, tmp_path / "out")
    config = read_json(tmp_path / "out" / CONFIG)
    asked = {"r": 2, "lora_alpha": 4, "bias": "none", "modules_to_save": None, "use_dora": False}
    assert {name: config[name] for name in asked} == asked
    layers = {"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == layers
    for rank, told in (
        (16, "clca=FOLDER\n"),
        (33, "clca=FOLDER --max-lora-rank 64\n"),
        (513, "its rank 513 is above vLLM's limit of 512: export it with `--merged`."),
    ):
        write_json(tmp_path / "out" / CONFIG, config | {"r": rank})
        assert told in serving_told(tmp_path / "out", "BASE")


@pytest.mark.parametrize("merged", [False, True])
def test_only_safetensors_that_all_may_read_and_no_path_of_this_machine(run, tmp_path, merged):
    export_adapter(run, tmp_path / "out", merged=merged)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    own = {"config.json", "generation_config.json", "model.safetensors"} if merged else {CONFIG}
    texts = {"README.md", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert names == own | texts | (set() if merged else {WEIGHTS})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    mask = os.umask(0)
    os.umask(mask)
    assert modes == {0o666 & ~mask}
    content = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for place in (tmp_path, run.parents[2], prepare()):
        assert str(place).encode() not in content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_card_tells_what_the_run_left(copied):
    record(copied, "04b_held_out", EXAM)
    record(copied, "05_wvs_analysis", SURVEY)
    text = card(read_run(copied), dtype=None)
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "language": "en",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["clca", "culture", "lora"],
    }
    for told in (
        "# CLCA: model and Germany\n", "A LoRA adapter for model,", "culture is that of Germany",
        "| examples | 6 |", "| tokens in them | 1,234 |", "| loss at the last step | 8.500 |",
        "| tasks | imitation 1.0, intent 1.0 |", "| lora_rank | 2 |", "| modules_to_save | none |",
        "| seed | 1 |", "44 items (prompt: nationality)", "| before training | 0.325 |",
        "| after training | 0.331 |", "(uniform) | 0.326 |", "(human floor) | 0.031 |",
        "**After training the model doesn't beat guessing evenly**",
        "by +0.0062 (95 % interval +0.0010 to +0.0110, p = 0.032; below 0 is nearer)",
        "conversations of the culture: 20.50 before training, 18.25 after.", "41.50 after",
        "a model of no person", "synthetic", "decisions about people", "is not independent",
        "--lora-modules clca=FOLDER", "run mine`, commit abc, seed 1; trained until 2026-01-02",
        "torch 1.0, transformers 2.0, peft 3.0", "**Fill in before you pass this on**",
    ):  # fmt: skip
        assert told in body, told
    assert not re.search("launch|None|nan", body)
    assert re.findall(r"(?m)^# ", body) == ["# "]


def test_a_gain_is_told_as_one(copied):
    record(copied, "05_wvs_analysis", SURVEY | {"js_distance_after": 0.3})
    text = card(read_run(copied), dtype=None)
    assert "After training the model is nearer to the people than guessing evenly is." in text
    assert "doesn't beat" not in text


@pytest.mark.parametrize("spoil", ["none", "another adapter", "changed", "damaged"])
def test_what_was_not_measured_on_this_adapter_is_not_told(copied, spoil):
    if spoil != "none":
        inputs = {"…/adapter": "of another"} if spoil == "another adapter" else None
        record(copied, "05_wvs_analysis", SURVEY, **({"inputs": inputs} if inputs else {}))
    if spoil == "changed":
        write_metrics(copied, "05_wvs_analysis", SURVEY | {"js_distance_after": 0.1})
    if spoil == "damaged":
        (copied / "metrics" / "05_wvs_analysis.json").write_text('{"js_dis')
    assert "## Results\n\nNot evaluated by the survey.\n\n## " in card(read_run(copied), dtype=None)


def test_a_control_of_the_embedded_model_is_told_as_such(copied):
    manifest = read_json(copied / "manifest.json")
    given = manifest["stages"]["04_fine_tuning"]["parameters"]
    run_dir = "results/mine/german/smollm2-135m+neutral-text/seed-1"
    given |= {"model": "smollm2-135m", "learn_from": "neutral", "run_dir": run_dir}
    write_json(copied / "manifest.json", manifest)
    text = card(read_run(copied), dtype="float32")
    assert "license: apache-2.0" in text
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in text
    assert "library_name: transformers" in text
    assert "The variant neutral-text: as many words, of text without culture" in text
    assert "which learnt no culture" in text
    assert "Its weights are those of a quantised copy of the base model" in text
    assert "synthetic" not in text


def refusal(run, target) -> str:
    """Return the sentence with which an export is refused, which leaves nothing."""
    with pytest.raises(StudyError) as error:
        export_adapter(run, target)
    assert not target.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_adapter_that_is_missing_unsafe_or_another_one_is_told(copied, tmp_path):
    weights = copied / "adapter" / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert refusal(copied, tmp_path / "out") == (
        f"{copied}/adapter is not what {copied}/manifest.json tells of: run 04_fine_tuning again."
    )
    unsafe = weights.with_suffix(".bin")
    unsafe.write_bytes(content)
    told = f"{unsafe} can hold code that runs when it is read, so only safetensors are exported"
    assert told in refusal(copied, tmp_path / "out")
    weights.unlink()
    assert told in refusal(copied, tmp_path / "out")
    unsafe.unlink()
    assert f"{weights} is missing: run 04_fine_tuning" in refusal(copied, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    "case",
    [
        (None, "is missing: name a run folder"),
        ("", "is not JSON"),
        ("[]", "delete it"),
        ('{"stages": 3}', "stages"),
        ('{"stages": {}}', "tells of no finished 04_fine_tuning: run the study again."),
        ('{"stages": {"04_fine_tuning": {}}}', "stages.04_fine_tuning.key: the key is missing"),
        (lambda told: told.update(packages=[]), "packages: "),
        (lambda told: told["stages"]["04_fine_tuning"]["parameters"].pop("model"), "model: "),
        (lambda told: told["stages"]["04_fine_tuning"]["parameters"].update(learn_from="x"), "lea"),
        (lambda told: told["stages"]["04_fine_tuning"]["parameters"].update(culture="x"), "cultu"),
    ],
)
def test_a_manifest_that_is_missing_or_damaged_is_told(copied, tmp_path, case):
    content, told = case
    path = copied / "manifest.json"
    if callable(content):
        manifest = read_json(path)
        content(manifest)
        write_json(path, manifest)
    elif content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert told in refusal(copied, tmp_path / "out")


def test_nothing_is_overwritten_but_an_empty_folder_is_filled(run, tmp_path):
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    for path in (full / "kept", file):
        path.write_text("kept")
    for target in (full, file):
        with pytest.raises(StudyError, match="is there already: name another folder"):
            export_adapter(run, target)
    with pytest.raises(StudyError, match=r"could not be written \(Not a directory\): name another"):
        export_adapter(run, file / "below")
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file"}
    (tmp_path / "empty").mkdir()
    export_adapter(run, tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # as tokenizers tells it
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "tokenizers", "safetensors"],
)
def test_a_full_disk_is_told_and_leaves_nothing_half_written(run, tmp_path, monkeypatch, error):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(export, "write_text", full)
    target = tmp_path / "new" / "out"
    assert refusal(run, target) == (
        f"The disk of {target} is full: free some space there and run this again; nothing was left "
        "there."
    )
    assert list(tmp_path.iterdir()) == []


def test_another_error_stays_what_it_is_and_leaves_nothing(run, tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr(export, "write_text", broken)
    with pytest.raises(RuntimeError, match="no idea"):
        export_adapter(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(run, tmp_path):
    command = ["adapter", "export", str(run), str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("out holds the adapter and its card.\n")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "is there already" in again.output
    assert CliRunner().invoke(app, [*command, "--merged", "--dtype", "int8"]).exit_code == 2
    merged = [*command[:-1], str(tmp_path / "merged"), "--merged", "--dtype", "bfloat16"]
    assert CliRunner().invoke(app, merged).exit_code == 0
    assert read_json(tmp_path / "merged" / "config.json")["dtype"] == "bfloat16"


def test_a_shrunk_adapter_is_smaller_and_nearly_the_same(tmp_path):
    run = trained(tmp_path)
    path = run / "adapter" / WEIGHTS
    before, size = load_file(path), path.stat().st_size
    result = CliRunner().invoke(app, ["adapter", "shrink", str(tmp_path)])
    assert "adapters: 1" in result.stdout
    assert path.stat().st_size < size
    after = load_file(path)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.bfloat16
        torch.testing.assert_close(after[name].float(), tensor, rtol=1 / 256, atol=0)
    PeftModel.from_pretrained(load_weights(str(tmp_path / "model"), "fp32"), str(run / "adapter"))


def test_where_there_is_no_adapter_nothing_is_shrunk(tmp_path):
    with pytest.raises(StudyError, match="holds no adapter"):
        shrink_adapters(tmp_path)
