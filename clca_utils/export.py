"""An adapter made ready for others: a folder that peft, transformers and vLLM load.

As an adapter beside its base model, or merged into it, with its model card. Only safetensors are
read and written.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from transformers import PreTrainedModel

from clca_utils.choices import Dtype
from clca_utils.files import StudyError, read_json, shown, write_bytes, write_json, write_text
from clca_utils.model_card import CONFIG, WEIGHTS, base_name, card, read_run
from clca_utils.params import model_source
from clca_utils.transformers_model import load_tokenizer, load_weights, with_adapter


def export_adapter(
    run: Path, target: Path, *, merged: bool = False, dtype: Dtype = "float32"
) -> str:
    """Write a run's adapter to a folder of its own, whole or not at all.

    Args:
        run: The run's folder, with `adapter/` and `manifest.json`.
        target: Where to write; an empty folder may be there.
        merged: Write the whole model with the adapter merged in, instead of the adapter alone.
        dtype: Of a merged model. In the two short ones a small adapter can be rounded away.

    Returns:
        A sentence about what was written.

    Raises:
        StudyError: The run holds no such adapter, the target is not empty, or it can't be written.
    """
    if dtype != "float32" and not merged:
        raise StudyError(f"dtype {dtype} is of a merged model: add --merged, or leave it out.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StudyError(f"{shown(target)} is there already: name another folder, or empty it.")
    told = read_run(run)
    name = base_name(told.settings.model)
    tokenizer = load_tokenizer(model_source(told.settings.model))
    weights = merged_weights(run, told.settings.model, dtype) if merged else None
    text = card(told, dtype=dtype if merged else None)
    with written(target) as folder:
        tokenizer.save_pretrained(folder)
        if weights is None:
            config = read_json(run / "adapter" / CONFIG) | {"base_model_name_or_path": name}
            write_json(folder / CONFIG, config)
            shutil.copyfile(run / "adapter" / WEIGHTS, folder / WEIGHTS)
        else:
            weights.save_pretrained(folder)
        write_text(folder / "README.md", text)
        for path in folder.glob("*.safetensors"):  # which safetensors writes for its owner alone
            shutil.copymode(folder / "README.md", path)
    return f"{shown(target)} holds {'the merged model' if merged else 'the adapter'} and its card."


def shrink_adapters(folder: Path) -> str:
    """Round all adapters below a folder to bf16, half their size, to be passed on with a run.

    peft reads them as fp32 again; what is lost is at most 1/256 of each number.

    Args:
        folder: A study's results, or a copy of them: the files are written over.

    Returns:
        A sentence about what was written.

    Raises:
        StudyError: There is no adapter below the folder.
    """
    paths = sorted(folder.rglob(f"adapter/{WEIGHTS}"))
    if not paths:
        raise StudyError(f"{shown(folder)} holds no adapter/{WEIGHTS}: name a study's results.")
    for path in paths:
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}
        write_bytes(path, save(tensors, metadata={"format": "pt"}))
    size = sum(path.stat().st_size for path in paths) / 1e6
    return f"{shown(folder)}: adapters: {len(paths)}, {size:.1f} MB in all."


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes the target at the end or leaves nothing.

    Raises:
        StudyError: The disk is full, or the place can't be written to.
    """
    home = next(folder for folder in target.parents if folder.exists())
    partial = home / f".{target.name}.tmp"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            target.rmdir()
        partial.replace(target)
    except Exception as error:  # tokenizers and safetensors have no narrower one for a full disk
        if "No space left" in str(error) or "quota exceeded" in str(error):
            raise StudyError(
                f"The disk of {shown(target)} is full: free some space there and run this again; "
                "nothing was left there."
            ) from None
        if isinstance(error, OSError):
            raise StudyError(
                f"{shown(target)} could not be written ({error.strerror or error}): name another "
                "place; nothing was left there."
            ) from None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def merged_weights(run: Path, model: str, dtype: Dtype) -> PreTrainedModel:
    """Return a model with a run's adapter merged in; it is added up in fp32, then rounded once.

    Raises:
        StudyError: The weights can't be loaded.
    """
    try:
        weights = load_weights(model_source(model), "fp32")
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(f"The weights of {model} could not be loaded ({reason}).") from None
    return with_adapter(weights, run / "adapter").to(getattr(torch, dtype))
