"""What a study's grid comes to: which notebook is run for whom, what it reads and where it writes.

A run is one culture, model, variant and seed, with a folder of its own; a step is one notebook of
it. What runs share is done once: stages 01 to 03 by all models with the same simulator and by the
variants that only train otherwise; what a model answers before training, by all variants that ask
alike.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from clca_utils import files
from clca_utils.choices import WITHOUT_ACTING
from clca_utils.culture import culture_file
from clca_utils.files import DATA, ROOT, fingerprint, shown
from clca_utils.params import CLCA, Study, folder_name, parameters, read_model, read_variant

NOTEBOOKS = ROOT / "notebooks"


@dataclass(frozen=True)
class Stage:
    """A notebook of the study; what it reads and writes below its folder; which shipped data."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    data: tuple[str, ...] = ()

    @property
    def notebook(self) -> Path:
        """The notebook's file."""
        return NOTEBOOKS / f"{self.name}.ipynb"

    @property
    def section(self) -> str:
        """The stage's section of the parameter file."""
        return self.name.partition("_")[2]

    @property
    def number(self) -> str:
        """What its name begins with, such as 01."""
        return self.name.partition("_")[0]

    @property
    def artefacts(self) -> list[str]:
        """What it has to write below its folder; but for the report also its metrics."""
        return [*self.writes, *([] if self is REPORT else [f"metrics/{self.name}.json"])]


TOLD = ("scenarios.jsonl", "dialogues.jsonl", "judgements.jsonl", "intents.jsonl")
EXAMINED = ("held_out.csv", "replies.csv")
AGREEMENTS = ("judge_agreement.csv", "intent_agreement.csv")
SIMULATION = (
    Stage("01_scenario_adaptation", (), TOLD[:1], ("seed_scenarios.jsonl",)),
    Stage(
        "02_dialogue_simulation",
        TOLD[:1],
        (*TOLD[1:3], AGREEMENTS[0]),
        ("authored", "paper_dialogues.csv"),
    ),
    Stage("03_intent_extraction", TOLD[:3], (*TOLD[3:], AGREEMENTS[1]), ("authored",)),
)
TUNING = Stage(
    "04_fine_tuning",
    TOLD,
    ("adapter", "training_log.csv"),
    ("authored",),
)
HELD_OUT = Stage("04b_held_out", ("adapter",), EXAMINED, ("authored", "general"))
SURVEY = Stage(
    "05_wvs_analysis",
    ("adapter",),
    ("answers.parquet", "tables"),
    ("items", "personas", "wvs7_marginals.csv"),
)
REPORT = Stage(
    "06_paper_figures",
    ("metrics", *TOLD, *AGREEMENTS, *EXAMINED, "training_log.csv", "tables"),
    ("figures", "tables"),
    ("items", "paper_dialogues.csv", "paper_results.csv"),
)
STAGES = (*SIMULATION, TUNING, HELD_OUT, SURVEY, REPORT)
DRAWING = frozenset({"figures", "survey_figures", "study_figures"})
"""Modules that shape how figures look, and nothing else."""


@dataclass(frozen=True)
class Step:
    """One notebook to be run: where it writes, what it may read, and with which parameters."""

    stage: Stage
    study: str
    home: Path
    folder: Path
    reads: list[Path]
    parameters: dict[str, Any]
    origin: list[Path | str]

    @property
    def run(self) -> str:
        """Its folder below the study's, such as german/smollm2-135m/seed-1; empty: the study's."""
        return "" if self.folder == self.home else self.folder.relative_to(self.home).as_posix()

    @property
    def name(self) -> str:
        """Its run and stage, such as german/smollm2-135m/seed-1/04_fine_tuning."""
        return f"{self.run}/{self.stage.name}".lstrip("/")

    @property
    def copy(self) -> Path:
        """The executed notebook."""
        return self.folder / self.stage.notebook.name

    def inputs(self) -> list[Path]:
        """Return the artefacts it reads, as far as they exist; the report, those of all runs."""
        return sorted(path for path in self.reads if path.exists())

    def outputs(self) -> list[Path]:
        """Return the artefacts it has to write."""
        return [self.folder / name for name in self.stage.artefacts]


def model_origin(name: str, *, asked: bool = True) -> list[Path | str]:
    """Return what makes a model the one it is: its source and warm-up, and where it is served.

    With `asked` false only its weights count: a server that moved is no reason to train again.
    """
    model = read_model(name)
    places = [model.source, model.address] if asked else [model.source or model.address]
    warmup = [files.locate(model.warmup)] if model.warmup else []
    return [*filter(None, places), *warmup]


@dataclass(frozen=True)
class Run:
    """One cell of a study's grid: who learns what, and where that is kept.

    Attributes:
        variant: Its name.
        culture: Whose people the model is compared with.
        model: Who learns.
        seed: Of every draw.
        folder: Where it writes.
        actor: Who plays and annotates.
        data: Where stages 01 to 03 write.
        adapter: In whose folder the adapter is that is put to the test: its own, if it trains.
    """

    variant: str
    culture: str
    model: str
    seed: int
    folder: Path
    actor: str
    data: Path
    adapter: Path

    @property
    def learns(self) -> bool:
        """Whether it trains an adapter."""
        return self.adapter == self.folder


def run_folder(home: Path, culture: str, model: str, seed: int, *, variant: str = CLCA) -> Path:
    """Return where a run is kept, such as `<home>/german/smollm2-135m+authored/seed-1`.

    The method itself goes without its name.
    """
    label = folder_name(model) if variant == CLCA else f"{folder_name(model)}+{variant}"
    return home / folder_name(culture) / label / f"seed-{seed}"


def runs_of(study: Study, home: Path) -> Iterator[Run]:
    """Yield the runs of a study, the borrower of an adapter after its owner.

    A variant that tests the adapters of other cultures is one run for each of them.
    """
    about = {name: read_variant(name) for name in study.variants}
    names = sorted(study.variants, key=lambda name: bool(about[name].adapter))
    grid = itertools.product(names, study.cultures, study.models, study.seeds)
    for name, culture, model, seed in grid:
        given, actor = about[name], study.simulator or model
        data = run_folder(home, culture, actor, seed, variant=name if given.acts else CLCA)
        for source in study.cultures:
            if (source == culture) == (given.learnt_from == "others"):
                continue
            label = name if source == culture else f"{name}-{folder_name(source)}"
            own = run_folder(home, culture, model, seed, variant=label)
            owner = run_folder(home, source, model, seed, variant=given.adapter or label)
            yield Run(name, culture, model, seed, own, actor, data, owner)


def plan(study: Study, results: Path) -> list[Step]:
    """Expand a study to its steps, in an order in which they can run."""
    home = results.absolute() / study.name
    steps: dict[Path, Step] = {}
    asked: dict[str, Path] = {}
    values = cache(partial(parameters, study))
    for run in runs_of(study, home):
        for step in steps_of(study.name, home, run, values, asked):
            steps.setdefault(step.copy, step)
    folders = sorted({step.folder for step in steps.values()})
    runs = [folder.relative_to(home).as_posix() for folder in folders]
    given = {"study_dir": shown(home), "runs": runs} | values(REPORT.section, "")
    reads = [folder / name for folder in folders for name in REPORT.reads]
    return [*steps.values(), Step(REPORT, study.name, home, home, reads, given, [])]


def steps_of(
    study: str, home: Path, run: Run, values: Callable[..., dict[str, Any]], asked: dict[str, Path]
) -> Iterator[Step]:
    """Yield the steps of a run.

    Args:
        study: The study's name.
        home: Its folder.
        run: The run.
        values: What `params.parameters` is, for the study.
        asked: The folders of the steps so far that ask an untrained model, by what they ask; those
            of this run are added.
    """
    source = values("fine_tuning", run.model, run.variant)["learn_from"]
    told = run.learns and source not in WITHOUT_ACTING
    learns = (TUNING, HELD_OUT) if run.learns else ()
    for stage in (*(SIMULATION if told else ()), *learns, SURVEY):
        who, folder = (run.actor, run.data) if stage in SIMULATION else (run.model, run.folder)
        given: dict[str, Any] = {"culture": run.culture, "model": who, "seed": run.seed}
        given |= values(stage.section, who, run.variant)
        places, reads = {"run_dir": folder}, dict.fromkeys(stage.reads, folder)
        if stage is TUNING:
            places["data_dir"] = run.data
            reads = dict.fromkeys(stage.reads if told else (), run.data)
        elif stage in (HELD_OUT, SURVEY):
            # the exam asks everyone the same, whatever their culture and seed
            alike = given | ({"culture": "", "seed": 0} if stage is HELD_OUT else {})
            before = asked.setdefault(fingerprint(stage.name, alike), folder)
            places["adapter_dir"], reads = run.adapter, {"adapter": run.adapter}
            if before != folder:
                places["before_dir"] = before
                reads[stage.writes[0]] = before
        weights = stage in (TUNING, HELD_OUT)
        origin = [culture_file(run.culture), *model_origin(who, asked=not weights)]
        if stage is TUNING and source == "survey":
            origin += [DATA / name for name in SURVEY.data]
        for name in ("partner", "judge"):
            origin += model_origin(given[name]) if given.get(name) else []
        paths = {name: shown(place) for name, place in places.items()}
        found = [place / name for name, place in reads.items()]
        yield Step(stage, study, home, folder, found, paths | given, origin)
