"""The parameter file of a study: one YAML says all of one run, and every slip in it is named.

A parameter's value comes from the variant's file, else from the study file, else from the model's,
else from the default here; of stage 04, a named recipe stands between the last two. The defaults
are also those of the notebooks' parameter cells.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from clca_utils.choices import (
    PERSONAL,
    Batching,
    Check,
    ItemSet,
    Method,
    Orders,
    Precision,
    Prompt,
    RunFigures,
    Source,
    Task,
)
from clca_utils.culture import load_culture
from clca_utils.files import ROOT, StudyError, locate, read_yaml, shown
from clca_utils.items import load_items
from clca_utils.respondents import language_of, persona_words, respondents
from clca_utils.scenario import load_seeds
from clca_utils.server_model import ServerSettings
from clca_utils.survey import load_survey, people_of

STUDIES = ROOT / "params"
MODELS = ROOT / "params" / "models"
RECIPES = ROOT / "params" / "recipes"
VARIANTS = ROOT / "params" / "variants"

CLCA = "clca"
"""The variant that is the method itself; the others are its controls."""

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

Value = TypeVar("Value")


def _scientific(value: object) -> object:
    """Read 2e-4 as a number: YAML 1.1, hence PyYAML, takes it for text without a decimal point."""
    is_number = isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?[eE][+-]?\d+", value)
    return float(str(value)) if is_number else value


def _distinct(values: list[Value]) -> list[Value]:
    """Refuse two values that would share a folder, as the same name given twice would."""
    folders = [folder_name(str(value)) for value in values]
    for value, folder in zip(values, folders, strict=True):
        if folders.count(folder) > 1:
            raise ValueError(f"{value!r} is given twice, or shares the folder '{folder}'")
    return values


def _folder(name: str) -> str:
    """Refuse a study's name that makes no plain folder."""
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError("should be small letters, digits and hyphens, as in my-study")
    return name


def _some(weights: dict[Task, float]) -> dict[Task, float]:
    """Refuse weights of which none is above 0."""
    if not any(weights.values()):
        raise ValueError("should give one task at least a weight above 0")
    return weights


def _layers(names: str) -> str:
    """Refuse what names no layers."""
    if not re.fullmatch(r"all-linear|\w+( ?, ?\w+)*", names):
        raise ValueError("should be all-linear, or layers as in q_proj,v_proj")
    if "lm_head" in names:
        raise ValueError("should not name lm_head, which is trained whole, in modules_to_save")
    return names


def _available(count: int, given: ValidationInfo) -> int:
    """Refuse more scenarios than there are seeds of the split to make them from."""
    split = given.data.get("split", "all")
    most = len(load_seeds(split))
    if count > most:
        raise ValueError(f"should be at most {most}, the number of seed scenarios (split {split})")
    return count


def _existing(path: str) -> str:
    """Refuse a path that names nothing; an empty one names the shipped file."""
    if path and not locate(path).exists():
        raise ValueError("names no file; paths start at the repository")
    return path


def _named(name: str, what: str, read: Callable[[str], object]) -> str:
    """Refuse a name by which nothing can be read."""
    try:
        read(name)
    except StudyError as error:
        raise ValueError(f"names no {what} ({error})") from None
    return name


def _culture(name: str) -> str:
    """Refuse a culture that has no file."""
    return _named(name, "culture", load_culture)


def _model(name: str) -> str:
    """Refuse a model that there is not; an empty name stands for none."""
    return _named(name, "model", read_model) if name else name


def _recipe(name: str) -> str:
    """Refuse a recipe that has no file, or one that does not fit; an empty name stands for none."""
    return _named(name, "recipe", read_recipe)


def _variant(name: str) -> str:
    """Refuse a variant that has no file, or one that does not fit."""
    return _named(name, "variant", read_variant)


class Section(BaseModel):
    """Parameters of one stage: unknown names, text for numbers and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


Parameters = TypeVar("Parameters", bound=Section)


class ScenarioAdaptation(Section):
    """Stage 01: which scenarios and how many, and who rewrites them."""

    split: Literal["learn", "held-out", "all"] = "learn"  # before n_scenarios, which it bounds
    n_scenarios: Annotated[int, AfterValidator(_available)] = Field(3, ge=1)
    rewriter: Literal["lexicon", "chat", "none"] = "lexicon"


class DialogueSimulation(Section):
    """Stage 02: how dialogues are played, and how sure a judge must be to drop one."""

    samples: int = Field(1, ge=1)
    max_turns: int = Field(3, ge=2, le=100)
    max_new_tokens: int = Field(32, ge=1, le=4096)
    temperature: float = Field(0.8, ge=0, le=5)
    top_p: float = Field(0.95, gt=0, le=1)
    decoding: Literal["prefilled", "free"] = "prefilled"
    partner: Annotated[str, AfterValidator(_model)] = ""
    candidates: int = Field(1, ge=1, le=64)
    examples: int = Field(0, ge=0, le=8)
    batch_size: int = Field(8, ge=1)
    judges: Literal["proven", "all", "form", "none"] = "proven"
    gold: int = Field(1, ge=0)
    reject_confidence: float = Field(0.9, ge=0, le=1)


class IntentExtraction(Section):
    """Stage 03: how intents are written, when one counts as cultural, and how that is measured."""

    max_new_tokens: int = Field(20, ge=1, le=4096)
    cultural_threshold: float = Field(0.5, ge=0, le=1)
    batch_size: int = Field(16, ge=1)
    gold: int = Field(1, ge=0)


class FineTuning(Section):
    """Stage 04: data and tasks, LoRA and optimisation."""

    learn_from: Source = "simulated"
    tasks: Annotated[dict[Task, Annotated[float, Field(ge=0, le=100)]], AfterValidator(_some)] = {
        "imitation": 1.0,
        "intent": 1.0,
    }
    epochs: int = Field(1, ge=1, le=1000)
    learning_rate: Annotated[float, BeforeValidator(_scientific)] = Field(2.0e-4, gt=0, le=1)
    lora_rank: int = Field(8, ge=1, le=4096)
    lora_alpha: float = Field(16, gt=0)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: Annotated[str, AfterValidator(_layers)] = "all-linear"
    modules_to_save: list[str] = []
    precision: Precision = "auto"
    batch_size: int = Field(4, ge=1)
    gradient_accumulation: int = Field(2, ge=1)
    recompute: bool = True
    processes: int = Field(1, ge=1)
    launch: Annotated[str, AfterValidator(_existing)] = ""
    batching: Batching = "by_length"
    max_length: int = Field(1024, ge=16)
    checkpoint_steps: int = Field(10, ge=1)


class WvsAnalysis(Section):
    """Stage 05: who answers for whom, asked what and how, compared with which people."""

    survey: Annotated[str, AfterValidator(_existing)] = ""
    items: Annotated[str, AfterValidator(_existing)] = ""
    item_set: ItemSet = "values"
    prompt: Prompt = "nationality"
    n_respondents: int = Field(4, ge=1)
    weighted: bool = True
    method: Method = "weigh"
    temperature: float = Field(1.0, ge=0, le=5)
    orders: Orders = "all"
    checks: Annotated[list[Check], AfterValidator(_distinct)] = ["paraphrase"]
    cultures: Annotated[
        list[Annotated[str, AfterValidator(_culture)]], AfterValidator(_distinct)
    ] = [*("british", "chinese", "german", "japanese", "mexican")]
    batch_size: int = Field(4, ge=1)


class HeldOut(Section):
    """Stage 04b: on how much the model is examined that it has not learnt from."""

    cultures: Annotated[
        list[Annotated[str, AfterValidator(_culture)]], AfterValidator(_distinct)
    ] = Field([*("german", "japanese")], min_length=1)
    conversations: int = Field(1, ge=1)
    texts: int = Field(2, ge=1, le=24)
    questions: int = Field(4, ge=1, le=60)
    replies: int = Field(1, ge=0)
    max_new_tokens: int = Field(32, ge=1, le=4096)
    judge: Annotated[str, AfterValidator(_model)] = ""
    batch_size: int = Field(4, ge=1)


class PaperFigures(Section):
    """Stage 06: which runs' own figures are drawn again; stage 05 has drawn all of them."""

    run_figures: RunFigures = "first"


SECTIONS: dict[str, type[Section]] = {
    "scenario_adaptation": ScenarioAdaptation,
    "dialogue_simulation": DialogueSimulation,
    "intent_extraction": IntentExtraction,
    "fine_tuning": FineTuning,
    "held_out": HeldOut,
    "wvs_analysis": WvsAnalysis,
    "paper_figures": PaperFigures,
}


class Stages(Section):
    """The parameters of stages 01 to 05, which a study has, and a variant in another way."""

    scenario_adaptation: ScenarioAdaptation = ScenarioAdaptation()
    dialogue_simulation: DialogueSimulation = DialogueSimulation()
    intent_extraction: IntentExtraction = IntentExtraction()
    fine_tuning: FineTuning = FineTuning()
    held_out: HeldOut = HeldOut()
    wvs_analysis: WvsAnalysis = WvsAnalysis()


class Study(Stages):
    """A study: its grid of cultures, models and seeds, and the parameters of every stage."""

    name: Annotated[str, AfterValidator(_folder)] = Field(alias="study")
    cultures: Annotated[list[str], AfterValidator(_distinct)] = Field(min_length=1)
    models: Annotated[list[str], AfterValidator(_distinct)] = Field(min_length=1)
    variants: Annotated[
        list[Annotated[str, AfterValidator(_variant)]], AfterValidator(_distinct)
    ] = Field([CLCA], min_length=1)
    simulator: str = ""
    recipe: Annotated[str, AfterValidator(_recipe)] = ""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], AfterValidator(_distinct)] = (
        Field([1], min_length=1)
    )
    paper_figures: PaperFigures = PaperFigures()


class Variant(Stages):
    """A file of `params/variants`: what is done in another way than the study's own parameters say.

    With `adapter` nothing is trained: the named variant's adapter is put to the test under other
    parameters, or, with `learnt_from: others`, that of each other culture of the study is.
    """

    about: str
    adapter: str = ""
    learnt_from: Literal["own", "others"] = "own"

    @model_validator(mode="after")
    def _trains_or_borrows(self) -> Self:
        trained = self.model_fields_set & {*SECTIONS} - {"held_out", "wvs_analysis"}
        if self.adapter and trained:
            raise ValueError(f"trains nothing of its own, so {min(trained)} has no place in it")
        if self.learnt_from == "others" and not self.adapter:
            raise ValueError("needs an adapter, the variant that the other cultures' are of")
        return self

    @property
    def acts(self) -> bool:
        """Whether its conversations are others than the study's: stages 01 to 03 run for it."""
        return bool(self.model_fields_set & {*list(SECTIONS)[:3]})


class ModelFile(Section):
    """A file of `params/models`: where the model comes from, and its own training settings.

    `source` names weights, `server` where they are served. With `server` alone the model only
    plays, judges and annotates; with both it learns here, and there it plays and is asked the
    survey, adapters by their names (`served.py`). `warmup` names an adapter that is put on the
    weights where the model plays (stage 02); what judges, annotates, learns and is asked the survey
    is the model without it.
    """

    name: str
    source: str = ""
    warmup: Annotated[str, AfterValidator(_existing)] = ""
    server: ServerSettings | None = None
    recipe: Annotated[str, AfterValidator(_recipe)] = ""
    fine_tuning: FineTuning = FineTuning()

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if not self.source and not self.server:
            raise ValueError("needs a source, or a server in its place")
        return self

    @property
    def address(self) -> str:
        """Where it is served and under which name; empty: it is loaded here."""
        return f"{self.server.url} {self.server.model}" if self.server else ""


def folder_name(name: str) -> str:
    """Return the folder in `results` of a culture or model given by name, path or hub id."""
    short = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    return re.sub(r"[^\w.-]+", "-", short).strip("-.") or "here"


def advice(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest known one, or all."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(names) or 'none'}."


PLAINLY = {
    "list_type": "should be a list, as in [one, two]",
    "too_short": "should name at least one",
    "string_type": "should be text",
}
"""What pydantic says in its own terms, by the type of the error."""


def complaint(problem: ErrorDetails, schema: type[Section]) -> str:
    """Say one pydantic error as a sentence about a field of a study or model file."""
    *outer, last = [str(part) for part in problem["loc"]] or ["the file"]
    field = ".".join([*outer, last])
    if problem["type"] == "extra_forbidden":
        fields = (SECTIONS[outer[0]] if outer else schema).model_fields
        hint = advice(last, (known.alias or name for name, known in fields.items()))
        owner = f"{outer[0]} has no parameter" if outer else "there is no key"
        return f"{owner} '{last}'; {hint}"
    if problem["type"] == "missing":
        return f"the key '{field}' is missing; add it."
    if problem["type"] == "model_type":
        return f"{field} should hold 'parameter: value' lines, found {problem['input']!r:.80}."
    expected = PLAINLY.get(problem["type"]) or re.sub(
        r"^(Value error,|Input|List|String|Value) ", "", problem["msg"]
    )
    return f"{field} {expected}, found {problem['input']!r:.80}."


def _read(path: Path, schema: type[Parameters]) -> Parameters:
    """Read a file of parameters; everything that does not fit is told."""
    try:
        return schema.model_validate(read_yaml(path))
    except ValidationError as error:
        told = [f"{shown(path)}: {complaint(one, schema)}" for one in error.errors()]
        raise StudyError("\n".join(told)) from None


def read_model(name: str) -> ModelFile:
    """Read a model by its name in `params/models` or the path of such a file.

    A local folder or hub id stands for itself.

    Raises:
        StudyError: The name is unknown, or fields of the file do not fit; all are told.
    """
    path = locate(name) if name.endswith(".yaml") else MODELS / f"{name}.yaml"
    if not path.is_file():
        if locate(name).is_dir() and not (locate(name) / "config.json").is_file():
            raise StudyError(
                f"The folder {name} holds no config.json, so no model: check the path."
            )
        if locate(name).is_dir() or (HUB_ID.fullmatch(name) and path != locate(name)):
            return ModelFile(name=name, source=name)
        if "/" in name:
            raise StudyError(f"The model folder {name} does not exist: check the path.")
        hint = advice(name, (file.stem for file in MODELS.glob("*.yaml")))
        raise StudyError(
            f"There is no model '{name}' in params/models; {hint} A hub id (owner/name) or the "
            "path of a folder will do too."
        )
    model = _read(path, ModelFile)
    if model.name != path.stem:
        raise StudyError(
            f"{shown(path)}: name is '{model.name}'; call it '{path.stem}' as its file."
        )
    return model


def read_recipe(name: str) -> FineTuning:
    """Read a recipe, settings of stage 04 by their name in `params/recipes`; "" is an empty one.

    Raises:
        StudyError: The name is unknown, or fields of the file do not fit; all are told.
    """
    path = RECIPES / f"{name}.yaml"
    if not name:
        return FineTuning()
    if not path.is_file():
        hint = advice(name, (file.stem for file in RECIPES.glob("*.yaml")))
        raise StudyError(f"There is no recipe '{name}' in params/recipes; {hint}")
    return _read(path, FineTuning)


def read_variant(name: str) -> Variant:
    """Read a variant by its name in `params/variants`.

    Raises:
        StudyError: The name is unknown, or fields of the file do not fit; all are told.
    """
    path = VARIANTS / f"{name}.yaml"
    if not path.is_file():
        hint = advice(name, (file.stem for file in VARIANTS.glob("*.yaml")))
        raise StudyError(f"There is no variant '{name}' in params/variants; {hint}")
    return _read(path, Variant)


def model_source(name: str) -> str:
    """Return what transformers loads for a model: a folder or a hub id.

    The embedded model is unpacked on its first use.

    Raises:
        StudyError: The model is unknown, or the embedded one cannot be prepared.
    """
    source = read_model(name).source
    if not source:
        raise StudyError(
            f"The model {name} is served elsewhere, so there are no weights of it to load here: "
            "name it as the simulator or partner of a study, not among its models."
        )
    if source == "embedded":
        from clca_utils.embedded import prepare  # noqa: PLC0415 (only if this model is used)

        return str(prepare())
    return str(locate(source)) if locate(source).is_dir() else source


def model_warmup(name: str) -> Path | None:
    """Return the folder of the adapter with which a model plays, or None."""
    folder = read_model(name).warmup
    return locate(folder) if folder else None


def base_model(name: str) -> str:
    """Return what an adapter's configuration names as its base: a hub id wherever there is one."""
    source = read_model(name).source
    if source == "embedded":
        from clca_utils.embedded import HUB_ID as ORIGIN  # noqa: PLC0415 (as above)

        return ORIGIN
    return shown(locate(source)) if locate(source).is_dir() else source


def check(section: str, values: Mapping[str, object]) -> None:
    """Check the parameters of a notebook that is run by itself, as a study's are before a run.

    Args:
        section: The stage's section of a study file.
        values: Names and values, among others; a notebook gives its `globals()`.

    Raises:
        StudyError: A value is impossible; every one is told.
    """
    checked(SECTIONS[section], values)


def checked(schema: type[Parameters], values: Mapping[str, object]) -> Parameters:
    """Return a notebook's parameters as a section, once they are checked; see `check`."""
    try:
        return schema.model_validate({name: values[name] for name in schema.model_fields})
    except ValidationError as error:
        told = [f"parameters: {complaint(one, schema)}" for one in error.errors()]
        raise StudyError("\n".join(told)) from None


def unteachable(study: Study) -> list[str]:
    """Say which models cannot be trained and surveyed.

    Weights that are only elsewhere can't be trained; and no server takes an adapter that replaces
    whole layers, as vLLM (0.33, `lora/peft_helper.py`) says once it is trained: too late.
    """
    told = []
    for name in study.models:
        model = read_model(name)
        if not model.source:
            told += [f"models: '{name}' is served elsewhere; name it as the simulator, and here "
                     "who learns."]  # fmt: skip
        elif model.server:
            for variant in study.variants:
                if whole := parameters(study, "fine_tuning", name, variant)["modules_to_save"]:
                    told += [
                        f"models: '{name}' is asked on a server, which takes no adapter with "
                        f"layers trained whole ({', '.join(whole)}): set modules_to_save: [], or "
                        "delete the model's server."
                    ]
    return told


def incomplete(study: Study) -> list[str]:
    """Say which variants test an adapter that nothing in the study trains."""
    told = []
    for name in study.variants:
        variant = read_variant(name)
        if variant.adapter and variant.adapter not in study.variants:
            told += [f"variants: '{name}' tests the adapter of '{variant.adapter}'; add that one."]
        if variant.learnt_from == "others" and len(study.cultures) == 1:
            told += [f"variants: '{name}' needs a second culture; add one to cultures."]
    return told


def parameters(study: Study, section: str, model: str, variant: str = CLCA) -> dict[str, Any]:
    """Return a section's parameters for a model: variant over study file over model over defaults.

    Of stage 04, a recipe named by the study, else by the model, stands between the last two.
    """
    layers = [getattr(study, section), getattr(read_variant(variant), section, None)]
    if section == "fine_tuning":
        own = read_model(model)
        layers = [read_recipe(study.recipe or own.recipe), own.fine_tuning, *layers]
    named = [layer.model_dump(exclude_unset=True) for layer in layers if layer]
    given = {name: value for layer in named for name, value in layer.items()}
    return SECTIONS[section].model_validate(given).model_dump()


def unsurveyed(study: Study) -> list[str]:
    """Say which cultures can't be surveyed, or what is wrong with the survey's files."""
    given, field = study.wvs_analysis, "items"
    try:
        items = load_items(given.item_set, path=given.items)
        field = "survey"
        known = load_survey(given.survey, items)
    except StudyError as error:
        return [f"wvs_analysis.{field}: {error}"]
    told = []
    for culture in study.cultures:
        try:
            home = load_culture(culture)
            people_of(known.marginals, home.iso3, items)
            persona_words(language_of(home, given.prompt))
            if given.prompt in PERSONAL:
                count, weighted = given.n_respondents, given.weighted
                respondents(home, given.prompt, count=count, people=known.people, weighted=weighted)
        except StudyError as error:
            told.append(f"cultures, {culture}: {error}")
    return told


def study_file(name: str | Path) -> Path:
    """Return the file of a study, given by a path or by its bare name in `params`.

    Raises:
        StudyError: There is no such file; the nearest known study is told.
    """
    path = STUDIES / f"{name}.yaml" if re.fullmatch(r"[\w-]+", str(name)) else Path(name)
    for candidate in (path.absolute(), locate(path), STUDIES / path.name):
        if candidate.is_file():
            return candidate
    hint = advice(path.stem, (file.stem for file in STUDIES.glob("*.yaml")))
    raise StudyError(f"The study file {shown(path)} does not exist; {hint}")


def load_study(name: str | Path) -> Study:
    """Read and check a whole study, given by its path or bare name: also cultures and models.

    Raises:
        StudyError: Something does not fit; every problem found is told, one a line.
    """
    path = study_file(name)
    content = read_yaml(path)
    problems: list[str] = []
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        problems += [complaint(problem, Study) for problem in error.errors()]
    readers: dict[str, Callable[[str], object]] = {
        "cultures": load_culture,
        "models": read_model,
        "simulator": read_model,
    }
    for key, read in readers.items():
        names = content.get(key)
        for one in names if isinstance(names, list) else [names]:
            try:
                if one and isinstance(one, str):
                    read(one)
            except StudyError as error:
                problems += [f"{key}: {line}" for line in str(error).splitlines()]
    problems = problems or [*unteachable(study), *incomplete(study), *unsurveyed(study)]
    if problems:
        told = dict.fromkeys(problems)
        raise StudyError("\n".join(f"{shown(path)}: {problem}" for problem in told))
    return study
