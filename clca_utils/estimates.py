"""How long a step will take, judged by how long such steps took before.

Every finished step left its seconds in a manifest. A stage's time grows with a count that its
parameters tell (turns, respondents and the like), so a step is taken to need what the finished one
most like it needed, in proportion. Nothing is guessed for a stage and model of which none finished.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from clca_utils.choices import PERSONAL, WITHOUT_ACTING
from clca_utils.files import StudyError
from clca_utils.params import read_model
from clca_utils.planning import SIMULATION, TUNING, Step
from clca_utils.runner import Record, records

ROTATIONS = 4
"""The options of an item in every rotation: the 44 items have 2 to 10 options, most of them 4."""


UNKNOWN_BILLIONS = 8.0
"""The size taken of a model whose name tells none."""


class Took(NamedTuple):
    """A finished step.

    Attributes:
        kind: What it was (see `kind`).
        work: A count of what it had to do (see `work`).
        seconds: How long it took.
        bytes: How much it wrote.
    """

    kind: tuple[str, ...]
    work: float
    seconds: float
    bytes: int = 0


class Alike(NamedTuple):
    """What a step would take if its model were that of the finished step most like it.

    Attributes:
        seconds: How long, in proportion to its work.
        bytes: How much it would write.
        billions: Parameters of that model.
    """

    seconds: float
    bytes: float
    billions: float


def kind(stage: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what steps have in common whose times may be compared: stage, model, what it learns.

    Args:
        stage: The notebook's name.
        given: The step's parameters.
    """
    return stage, given.get("model", ""), given.get("learn_from", "")


def work(stage: str, given: Mapping[str, Any]) -> float:
    """Return a count that a stage's time grows with.

    Args:
        stage: The notebook's name.
        given: The step's parameters, and those of stages 01 and 02 whose files it reads.

    Raises:
        KeyError: One that counts is missing.
    """
    match stage.partition("_")[2]:
        case "scenario_adaptation":
            count = given["n_scenarios"]
        case "dialogue_simulation":
            count = _turns(given) * given["candidates"] * given["max_new_tokens"]
        case "intent_extraction":
            count = _turns(given) * given["max_new_tokens"]
        case "fine_tuning":
            acted = 1 if given["learn_from"] in WITHOUT_ACTING else _turns(given)
            count = given["epochs"] * sum(given["tasks"].values()) * acted
        case "held_out":
            count = len(given["cultures"]) * given["conversations"] + given["replies"]
        case "wvs_analysis":
            people = given["n_respondents"] if given["prompt"] in PERSONAL else 1
            orders = ROTATIONS if given["orders"] == "all" else 1
            count = people * orders * (2 + len(given["checks"]))  # before, after, each check
        case _:
            count = len(given["runs"])
    return float(count)


def _turns(given: Mapping[str, Any]) -> int:
    return int(given["n_scenarios"] * given["samples"] * given["max_turns"])


def finished_steps(homes: Iterable[Path]) -> list[Took]:
    """Return what the finished steps of some studies took.

    Args:
        homes: The studies' folders.
    """
    found = []
    for home in homes:
        folders = {path.parent.relative_to(home).as_posix(): path.parent
                   for path in sorted(home.glob("**/manifest.json"))}  # fmt: skip
        kept = {}
        for name, folder in folders.items():
            with contextlib.suppress(StudyError):  # whoever runs that study is told
                kept[name] = records(folder)
        for name, stages in kept.items():
            for stage, record in stages.items():
                source = Path(record.parameters.get("data_dir", name)).parts[-3:]
                acting = _parameters(kept.get("/".join(source), {}))
                try:
                    count = work(stage, acting | record.parameters)
                except KeyError:  # by an earlier version, or its data are gone
                    continue
                size = sum(_size(folders[name] / one) for one in record.outputs)
                found.append(Took(kind(stage, record.parameters), count, record.seconds, size))
    return found


def _size(path: Path) -> int:
    """Return how many bytes a file or a folder's files have; none if there is neither."""
    files = [path, *path.rglob("*")]
    return sum(one.stat().st_size for one in files if one.is_file())


def _parameters(stages: Mapping[str, Record]) -> dict[str, Any]:
    """Return the parameters of stages 01 and 02 that say how many turns there are."""
    first = [stages[stage.name].parameters for stage in SIMULATION[:2] if stage.name in stages]
    return {name: value for given in first for name, value in given.items()}


def given_of(steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """Return what says how much each step has to do, by the step's name.

    That is its parameters, and those of stages 01 and 02 whose files it reads.
    """
    acting: dict[Path, dict[str, Any]] = {}
    for step in steps:
        if step.stage in SIMULATION[:2]:
            acting.setdefault(step.folder, {}).update(step.parameters)
    found = {}
    for step in steps:
        data = next((path.parent for path in step.reads if path.parent in acting), step.folder)
        found[step.name] = acting.get(data, {}) | step.parameters
    return found


def estimate(steps: Sequence[Step], known: Sequence[Took]) -> dict[str, float]:
    """Say how many seconds steps will take, on the machine on which the known ones ran.

    Args:
        steps: All steps of a study.
        known: What finished ones took.

    Returns:
        Seconds by the step's name, without those that nothing is known of.
    """
    given = given_of(steps)
    alike: dict[tuple[str, ...], list[Took]] = {}
    for one in known:
        alike.setdefault(one.kind, []).append(one)
    told = {}
    for step in steps:
        count = work(step.stage.name, given[step.name])
        if some := alike.get(kind(step.stage.name, step.parameters)):
            nearest = min(abs(math.log(one.work / count)) for one in some)
            best = [one for one in some if abs(math.log(one.work / count)) == nearest]
            told[step.name] = median(one.seconds * count / one.work for one in best)
    return told


def of_any_model(step: Step, given: Mapping[str, Any], known: Sequence[Took]) -> Alike | None:
    """Return what the finished step took that is most like a step, whatever its model was.

    Args:
        step: The step.
        given: Its parameters, and those of stages 01 and 02 whose files it reads.
        known: What finished ones took.
    """
    own = kind(step.stage.name, step.parameters)
    some = [one for one in known if (one.kind[0], one.kind[2]) == (own[0], own[2]) and one.work]
    if not some:
        return None
    count = work(step.stage.name, given)
    best = min(some, key=lambda one: (one.kind[1] != own[1], abs(math.log(one.work / count))))
    more, model = count / best.work, best.kind[1]
    written = best.bytes * (1 if step.stage is TUNING else more)  # an adapter is as large as ever
    return Alike(best.seconds * more, written, billions(model) if model else 1.0)


def billions(model: str) -> float:
    """Return how many billion parameters a model has, by what its name says (7b, 0.5B, 135M)."""
    one = read_model(model)
    told = re.findall(r"(?i)(?<![\d.])(\d+(?:\.\d+)?)(b|m)(?![a-z])", f"{one.name} {one.source}")
    if not told:
        return UNKNOWN_BILLIONS
    number, unit = told[0]
    return float(number) / (1 if unit.lower() == "b" else 1000)


def in_words(seconds: float) -> str:
    """Return a time as people say it, such as 40 s, 12 min or 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
