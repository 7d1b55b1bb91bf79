"""An adapter made ready for others: a folder that peft, transformers and vLLM load, with its card.

As an adapter beside its base model, or merged into it. Only safetensors are read and written. What
the card tells is read from what the run left: its manifest and its metrics.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from clca_utils.choices import Dtype
from clca_utils.culture import load_culture
from clca_utils.files import StudyError, read_json, shown, write_text
from clca_utils.params import base_model, model_source, read_model, read_variant
from clca_utils.transformers_model import load_tokenizer, load_weights, unwarned

WEIGHTS = "adapter_model.safetensors"

SOURCES = {
    "simulated": "conversations that a language model acted in scenes adapted to the culture",
    "authored": "conversations on such scenes, written for the study by a language model",
    "both": "conversations in scenes adapted to the culture, some acted by a language model, some "
    "written by one",
    "neutral": "text without culture: this is a control, which learnt no culture",
    "survey": "what people of the country answered to half of the survey's items: this is a "
    "reference, not the method",
}
"""What an adapter learnt from, by the parameter `learn_from`."""


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
    told = told_of(run)
    if not (run / "adapter" / WEIGHTS).is_file():
        raise StudyError(
            f"{shown(run / 'adapter' / WEIGHTS)} is missing: run 04_fine_tuning, or name the run "
            "whose adapter it is (other formats than safetensors are not read)."
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StudyError(f"{shown(target)} is there already: name another folder, or empty it.")
    partial = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        load_tokenizer(model_source(told["model"])).save_pretrained(partial)
        if merged:
            merged_weights(run, told["model"], dtype).save_pretrained(partial)
        else:
            for name in ("adapter_config.json", WEIGHTS):
                shutil.copyfile(run / "adapter" / name, partial / name)
        write_text(partial / "README.md", card(run, told, merged=merged))
        if target.is_dir():
            target.rmdir()
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(
            f"{shown(target)} could not be written ({reason}): free some space, or name another "
            "place; nothing was left there."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{shown(target)} holds {'the merged model' if merged else 'the adapter'} and its card."


def told_of(run: Path) -> dict[str, Any]:
    """Return the parameters with which a run trained, as its manifest has them.

    Raises:
        StudyError: There is no manifest, or none of a training.
    """
    path = run / "manifest.json"
    if not path.is_file():
        raise StudyError(f"{shown(path)} is missing: name a run folder, as in results/demo/….")
    manifest = read_json(path)
    try:
        parameters: dict[str, Any] = manifest["stages"]["04_fine_tuning"]["parameters"]
        versions = {name: manifest["packages"][name] for name in ("torch", "transformers", "peft")}
        made = {"commit": manifest["commit"], "versions": versions}
        return parameters | made | {"model": parameters["model"], "culture": parameters["culture"]}
    except (KeyError, TypeError):
        raise StudyError(
            f"{shown(path)} tells of no finished 04_fine_tuning: run the study again."
        ) from None


def merged_weights(run: Path, model: str, dtype: Dtype) -> PreTrainedModel:
    """Return a model with a run's adapter merged in; it is added up in fp32, then rounded once."""
    weights = load_weights(model_source(model), "fp32")
    with unwarned():
        weights = PeftModel.from_pretrained(weights, str(run / "adapter")).merge_and_unload()
    ends = weights.get_input_embeddings().weight, weights.get_output_embeddings().weight
    if weights.config.tie_word_embeddings and not torch.equal(*ends):
        weights.config.tie_word_embeddings = False  # trained apart, they must be loaded apart
    return weights.to(getattr(torch, dtype))


def metrics_of_stage(run: Path, stage: str) -> dict[str, float]:
    """Return the metrics of a run's stage; none if it was not run."""
    path = run / "metrics" / f"{stage}.json"
    return read_json(path) if path.is_file() else {}


def card(run: Path, told: Mapping[str, Any], *, merged: bool) -> str:
    """Return the model card: YAML for the hub, then what the adapter is, in plain words."""
    culture, base = load_culture(told["culture"]), base_model(told["model"])
    free = read_model(told["model"]).source == "embedded"
    head = ModelCardData(
        base_model=base,
        language="en",
        library_name="transformers" if merged else "peft",
        license="apache-2.0" if free else "other",
        pipeline_tag="text-generation",
        tags=["clca", "culture", "lora"],
    ).to_yaml()
    variant = run.parent.name.partition("+")[2]
    about = f" This is the variant {variant}: {read_variant(variant).about}." if variant else ""
    licence = (
        "Apache-2.0, as the base model."
        if free
        else "That of the base model, which its owner tells: fill it in before you pass this on."
    )
    parts = {
        f"CLCA: {base.rpartition('/')[2]} and {culture.country}": (
            f"{'A model' if merged else 'A LoRA adapter'} from a study of cultural-learning-based "
            f"culture adaptation (Liu, Korhonen and Gurevych, arXiv 2504.02953). It learnt from "
            f"{SOURCES[told['learn_from']]}; the culture is that of {culture.country}.{about}"
        ),
        "Training": training_told(run, told),
        "What it changed": "\n".join(f"- {line}" for line in results_told(run)),
        "Intended use": (
            "Research and teaching on how training moves a model's answers. Compare it with the "
            "base model and with controls."
        ),
        "Limits": (
            "It speaks for nobody. The conversations it learnt from were made by language models "
            "from a description of what many people in a country do; most of what differs within "
            "the country is left out. The survey is not independent of the training, since prompts "
            "hold value descriptions derived in part from it. Don't use it to predict what a "
            "person thinks, or to decide about people."
        ),
        "How to load it": loading_told(base, merged=merged, saved=told["modules_to_save"]),
        "Licence": licence,
    }
    title, *_ = parts
    body = [f"{'#' if name == title else '##'} {name}\n\n{text}\n" for name, text in parts.items()]
    return f"---\n{head.strip()}\n---\n\n" + "\n".join(body)


def training_told(run: Path, told: Mapping[str, Any]) -> str:
    """Say on how much was trained, how, and with which versions."""
    found = metrics_of_stage(run, "04_fine_tuning")
    counts = ", ".join(
        f"{name.replace('_', ' ')}: {found[name]:,.0f}"
        for name in ("examples", "tokens", "tokens_learnt", "steps", "adapter_parameters")
        if name in found
    )
    losses = [f"{found[name]:.3f}" for name in ("loss_first", "loss_last") if name in found]
    names = (
        *("tasks", "epochs", "learning_rate", "lora_rank", "lora_alpha", "lora_dropout"),
        *("target_modules", "modules_to_save", "batch_size", "gradient_accumulation"),
        *("max_length", "seed"),
    )
    rows = "\n".join(f"| {name} | {told[name]} |" for name in names if name in told)
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    return (
        f"{counts or 'Not counted'}. Loss {' to '.join(losses) or 'not noted'} (first and last "
        f"step, nats a learnt token).\n\n| setting | value |\n|---|---|\n{rows}\n\n"
        f"Commit {told['commit'] or 'unknown'}; {versions}."
    )


def results_told(run: Path) -> list[str]:
    """Say what held-out conversations and the survey showed, whether it is good or bad."""
    exam = metrics_of_stage(run, "04b_held_out")
    survey = metrics_of_stage(run, "05_wvs_analysis")
    lines = []
    if "perplexity_imitation_own_after" in exam:
        lines.append(
            "Perplexity of held-out conversations of the culture "
            f"{exam['perplexity_imitation_own_before']:.2f} before, "
            f"{exam['perplexity_imitation_own_after']:.2f} after; of plain texts "
            f"{exam['perplexity_text_before']:.2f} and {exam['perplexity_text_after']:.2f}."
        )
    if "js_distance_after" in survey:
        after, even = survey["js_distance_after"], survey["js_distance_uniform"]
        verdict = (
            "closer than guessing evenly" if after < even else "no closer than guessing evenly"
        )
        lines.append(
            f"World Values Survey, mean Jensen–Shannon distance to the people over "
            f"{survey['items']:.0f} items: {survey['js_distance_before']:.3f} before, {after:.3f} "
            f"after; guessing evenly {even:.3f}, two samples of the people "
            f"{survey['js_distance_human_floor']:.3f}. After training it is {verdict}. One run is "
            "one seed, and a gain counts only beside controls."
        )
    return lines or ["Not evaluated."]


def loading_told(base: str, *, merged: bool, saved: list[str]) -> str:
    """Show how the folder is loaded."""
    if merged:
        return (
            "```python\nfrom transformers import AutoModelForCausalLM\n\nmodel = "
            'AutoModelForCausalLM.from_pretrained("FOLDER")\n```\n\n```\nvllm serve FOLDER\n```'
        )
    served = (
        f"vLLM does not load adapters that save whole layers ({', '.join(saved)}): export it with "
        "`--merged` for that."
        if saved
        else f"```\nvllm serve {base} --enable-lora --lora-modules clca=FOLDER\n```"
    )
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}")\n'
        f'model = PeftModel.from_pretrained(base, "FOLDER")\n```\n\n{served}'
    )
