"""The model card of a trained adapter: what its run left, told to those who find it elsewhere.

Every number is read from the run's manifest and metrics.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import ModelCardData
from pydantic import BaseModel, ValidationError
from safetensors import safe_open

from clca_utils.choices import Dtype, Source
from clca_utils.culture import load_culture
from clca_utils.files import StudyError, digest, locate, problems, read_json, shown
from clca_utils.params import FineTuning, base_model, read_model, read_variant
from clca_utils.runner import Manifest, Record, read_manifest

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

TRAINING, EXAM, SURVEY = "04_fine_tuning", "04b_held_out", "05_wvs_analysis"

SOURCES: dict[Source, str] = {
    "simulated": "conversations that a language model acted in the study's scenes",
    "authored": "conversations on the study's scenes, written by a language model",
    "both": "conversations in the study's scenes, some acted by a language model, some written by "
    "one",
    "neutral": "text without culture: this is a control, which learnt no culture",
    "survey": "what people of the country answered to half of the survey's items: this is a "
    "reference, not the method",
}
"""What an adapter learnt from, by the parameter `learn_from`."""

COUNTS = {
    "examples": "examples",
    "tokens": "tokens in them",
    "tokens_learnt": "of which learnt",
    "steps": "steps",
    "adapter_parameters": "numbers learnt",
    "loss_first": "loss at the first step, nats a token",
    "loss_last": "loss at the last step",
}
"""What a card tells of stage 04's metrics."""

DISTANCES = {
    "js_distance_before": "before training",
    "js_distance_after": "after training",
    "js_distance_uniform": "guessing evenly (uniform)",
    "js_distance_human_floor": "two samples of the same people (human floor)",
}
"""What a card tells of stage 05's metrics."""

LOADING = """```python
{imports}
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("{weights}")
{then}chat = [{{"role": "user", "content": "What matters in a friend?"}}]
tokens = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=40)[0]))
```"""
"""How a card shows that a folder is loaded and asked."""

LORA = re.compile(r"\.lora_[AB]\.weight$")
"""The names of an adapter's weights that vLLM loads."""

SERVED_RANKS = (16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `--max-lora-rank`, from its default on (`MaxLoRARanks` in vllm/config/lora.py,
0.14)."""


class Settings(BaseModel):
    """Those of an adapter's parameters that its export and its card can't do without."""

    run_dir: str
    culture: str
    model: str
    seed: int
    learn_from: Source


class Run(NamedTuple):
    """A run, as its manifest tells of it."""

    folder: Path
    origin: Manifest
    settings: Settings

    @property
    def stages(self) -> dict[str, Record]:
        """The records of its finished stages."""
        return self.origin.stages

    def metrics(self, stage: str) -> dict[str, float]:
        """Return a stage's metrics; none where the manifest doesn't say they are of this adapter.

        After a new training, numbers of the old one stay until their stages are run again.
        """
        name = f"metrics/{stage}.json"
        path, record = self.folder / name, self.stages.get(stage)
        if record is None or not path.is_file() or digest(path) != record.outputs.get(name):
            return {}
        known = stage == TRAINING or digest(self.folder / "adapter") in record.inputs.values()
        return dict(read_json(path)) if known else {}


def read_run(folder: Path) -> Run:
    """Return what a run's manifest tells of its adapter, once that is found to be the same.

    Raises:
        StudyError: There is no manifest, none of a training, or it's of another adapter.
    """
    path, adapter = folder / "manifest.json", folder / "adapter"
    if not path.is_file():
        raise StudyError(f"{shown(path)} is missing: name a run folder, as in results/demo/….")
    origin = read_manifest(folder)
    stages = origin.stages
    if TRAINING not in stages:
        raise StudyError(f"{shown(path)} tells of no finished {TRAINING}: run the study again.")
    try:
        settings = Settings.model_validate(stages[TRAINING].parameters)
    except ValidationError as error:
        raise StudyError(
            f"{shown(path)}: {problems(error)[0]}; delete it and run the study again."
        ) from None
    for unsafe in sorted(adapter.glob("adapter_model.*")):
        if unsafe.name != WEIGHTS:
            raise StudyError(
                f"{shown(unsafe)} can hold code that runs when it is read, so only safetensors are "
                f"exported: run {TRAINING} again."
            )
    if not (adapter / WEIGHTS).is_file():
        raise StudyError(
            f"{shown(adapter / WEIGHTS)} is missing: run {TRAINING}, or name the run whose adapter "
            "it is."
        )
    if digest(adapter) != stages[TRAINING].outputs.get("adapter"):
        raise StudyError(
            f"{shown(adapter)} is not what {shown(path)} tells of: run {TRAINING} again."
        )
    return Run(folder, origin, settings)


def hub_id(model: str) -> str | None:
    """Return where others find a base model; None for a local folder, whose path is no help."""
    return None if locate(read_model(model).source).is_dir() else base_model(model)


def base_name(model: str) -> str:
    """Return what a base model is called: its id on the hub, or else its folder's bare name."""
    return hub_id(model) or locate(read_model(model).source).name


def card(run: Run, *, dtype: Dtype | None) -> str:
    """Return the model card: YAML for the hub, then what the adapter is, in plain words.

    Args:
        run: The run.
        dtype: Of a merged model; None of an adapter.
    """
    settings, base = run.settings, hub_id(run.settings.model)
    name, country = base_name(settings.model), load_culture(settings.culture).country
    free = read_model(settings.model).source == "embedded"
    head = ModelCardData(
        base_model=base,
        language="en",
        library_name="transformers" if dtype else "peft",
        license="apache-2.0" if free else None,
        pipeline_tag="text-generation",
        tags=["clca", "culture", "lora"],
    ).to_yaml()
    parts = {
        f"# CLCA: {name.rpartition('/')[2]} and {country}": about_told(run, country, merged=dtype),
        "## Training data": training_told(run),
        "## Settings": table("setting", "value", settings_of(run)),
        "## Results": results_told(run, country),
        "## Intended use": "Research and teaching on how training moves a model's answers. Compare "
        "it with the base model and with controls.",
        "## Limits": limits_told(settings.learn_from, embedded=free, dtype=dtype),
        "## How to load it": loading_told(run.folder / "adapter", base, merged=bool(dtype)),
        "## How it was made": origin_told(run),
        "## Licence": "Apache-2.0, as the base model."
        if free
        else "**Fill in before you pass this on**: the licence of the base model holds for this "
        f"too{'' if base else ', and others need the id of that model'}.",
    }
    body = "\n".join(f"{title}\n\n{text}\n" for title, text in parts.items())
    return f"---\n{head.strip()}\n---\n\n{body}"


def table(left: str, right: str, rows: Mapping[str, str]) -> str:
    """Return a Markdown table of two columns."""
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *lines])


def about_told(run: Run, country: str, *, merged: object) -> str:
    """Say what it is: of which model and culture, and what it learnt from."""
    variant = Path(run.settings.run_dir).parent.name.partition("+")[2]
    told = f" The variant {variant}: {read_variant(variant).about}." if variant else ""
    return (
        f"{'The model' if merged else 'A LoRA adapter for'} {base_name(run.settings.model)}"
        f"{' with a LoRA adapter merged in' if merged else ''}, from a study of "
        "cultural-learning-based culture adaptation (Liu, Korhonen and Gurevych, arXiv "
        f"2504.02953). Its culture is that of {country}. It learnt from "
        f"{SOURCES[run.settings.learn_from]}.{told}"
    )


def training_told(run: Run) -> str:
    """Say on how much was trained."""
    found = run.metrics(TRAINING)
    rows = {
        told: f"{found[name]:.3f}" if name.startswith("loss") else f"{found[name]:,.0f}"
        for name, told in COUNTS.items()
        if name in found
    }
    return table("what", "how much", rows) if rows else "Not counted."


def settings_of(run: Run) -> dict[str, str]:
    """Return the training's settings as text; `launch` is a path of this machine, so it isn't."""
    given = run.stages[TRAINING].parameters
    names = [*FineTuning.model_fields, "seed"]
    return {name: plain(given[name]) for name in names if name in given and name != "launch"}


def plain(value: object) -> str:
    """Return a parameter's value as text that reads well in a table."""
    if isinstance(value, dict):
        return plain([f"{name} {one}" for name, one in value.items()])
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)


def results_told(run: Run, country: str) -> str:
    """Say what the survey and held-out conversations showed, whether it is good or bad."""
    survey, exam = run.metrics(SURVEY), run.metrics(EXAM)
    lines = []
    rows = {told: f"{survey[name]:.3f}" for name, told in DISTANCES.items() if name in survey}
    if rows:
        asked = run.stages[SURVEY].parameters
        lines.append(
            f"World Values Survey, {survey['items']:.0f} items (prompt: {asked.get('prompt')}): "
            f"how far the model's answers lie from those of the people of {country}, as the mean "
            "Jensen–Shannon distance; lower is nearer."
        )
        lines.append(table("whose answers", "distance", rows))
    if "js_distance_after" in survey and "js_distance_uniform" in survey:
        nearer = survey["js_distance_after"] < survey["js_distance_uniform"]
        lines.append(
            "After training the model is nearer to the people than guessing evenly is."
            if nearer
            else "**After training the model doesn't beat guessing evenly**: knowing nothing about "
            "the people would have done as well or better."
        )
    if {"change", "change_low", "change_high", "p_value"} <= survey.keys():
        lines.append(
            f"Training changed the distance by {survey['change']:+.4f} (95 % interval "
            f"{survey['change_low']:+.4f} to {survey['change_high']:+.4f}, p = "
            f"{survey['p_value']:.2g}; below 0 is nearer). One run is one seed, and a gain counts "
            "only if controls don't bring it too."
        )
    for what, name in (
        ("held-out conversations of the culture", "perplexity_imitation_own"),
        ("plain texts, to see what was forgotten", "perplexity_text"),
    ):
        if {f"{name}_before", f"{name}_after"} <= exam.keys():
            lines.append(
                f"Perplexity of {what}: {exam[f'{name}_before']:.2f} before training, "
                f"{exam[f'{name}_after']:.2f} after."
            )
    return "\n\n".join(lines if survey else ["Not evaluated by the survey.", *lines])


def limits_told(learn_from: Source, *, embedded: bool, dtype: Dtype | None) -> str:
    """Say what it is not, and what its numbers can't carry."""
    lines = [
        "It is a model of no person, and speaks for nobody. It's not for decisions about people, "
        "nor for telling what one of them thinks.",
        "The survey is not independent of the training: the prompts hold value descriptions "
        "derived in part from it, and scenes touch topics of its items.",
    ]
    if learn_from not in ("neutral", "survey"):
        lines.append(
            "The conversations are synthetic: language models made them from a description of what "
            "many people there do, and most of what differs within the country is left out."
        )
    if embedded:
        lines.append(
            "It was trained and evaluated on a quantised copy of the base model; on the one on the "
            "hub its answers can differ a little."
            if dtype is None
            else "Its weights are those of a quantised copy of the base model, with the adapter."
        )
    if dtype in ("bfloat16", "float16"):
        lines.append(
            f"Its numbers are {dtype}, in which a small adapter can be rounded away: see whether "
            "its answers are still those of the float32 one."
        )
    return "\n".join(f"- {line}" for line in lines)


def loading_told(adapter: Path, base: str | None, *, merged: bool) -> str:
    """Show how the folder is loaded by transformers, peft and vLLM."""
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    if merged:
        return (
            "FOLDER stands for this folder. With transformers:\n\n"
            f"{LOADING.format(imports=imports, weights='FOLDER', then='')}\n\n"
            "With vLLM:\n\n```\nvllm serve FOLDER\n```\n\n"
            "peft isn't needed: the adapter is in the weights."
        )
    put = 'model = PeftModel.from_pretrained(model, "FOLDER")\n'
    by_peft = f"from peft import PeftModel\n{imports}"
    by_itself = "With transformers, which finds the base model by itself if peft is installed"
    return (
        f"FOLDER stands for this folder{'' if base else ', BASE for that of the base model'}. "
        "With peft:\n\n"
        f"{LOADING.format(imports=by_peft, weights=base or 'BASE', then=put)}\n\n"
        'The study evaluates in float32: `dtype="float32"`.\n\n'
        + (f'{by_itself}: `AutoModelForCausalLM.from_pretrained("FOLDER")`.\n\n' if base else "")
        + f"With vLLM:\n\n{serving_told(adapter, base or 'BASE')}"
    )


def serving_told(adapter: Path, base: str) -> str:
    """Show how vLLM serves an adapter, or say why it can't."""
    with safe_open(adapter / WEIGHTS, "pt") as file:
        whole = [name for name in file.keys() if not LORA.search(name)]  # noqa: SIM118 (no mapping)
    rank = int(read_json(adapter / CONFIG)["r"])
    fitting = [one for one in SERVED_RANKS if one >= rank]
    if whole or not fitting:
        why = (
            "it holds layers that were learnt whole, or embeddings, which vLLM does not load"
            if whole
            else f"its rank {rank} is above vLLM's limit of {SERVED_RANKS[-1]}"
        )
        return f"not as an adapter, since {why}: export it with `--merged`."
    more = f" --max-lora-rank {fitting[0]}" if fitting[0] > SERVED_RANKS[0] else ""
    return f"```\nvllm serve {base} --enable-lora --lora-modules clca=FOLDER{more}\n```"


def origin_told(run: Run) -> str:
    """Say by which commit, seed and versions it came about."""
    record, origin = run.stages[TRAINING], run.origin
    versions = {
        name: origin.packages.get(name) for name in ("torch", "transformers", "peft", "trl")
    }
    known = [f"{name} {one}" for name, one in ({"Python": origin.python} | versions).items() if one]
    changed = " with changes that were not committed" if origin.dirty else ""
    return (
        f"`python -m clca_utils run {origin.study}`, commit {record.commit or 'unknown'}{changed}, "
        f"seed {run.settings.seed}; trained until {record.finished:%Y-%m-%d} in "
        f"{record.seconds:,.0f} s; {', '.join(known) or 'versions unknown'}."
    )
