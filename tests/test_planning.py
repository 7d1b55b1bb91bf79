"""The grid of a study: who shares what, in which order it is run, and where it is kept."""

from collections import Counter
from pathlib import Path

import pytest

from clca_utils import params, planning
from clca_utils.files import shown
from clca_utils.params import read_variant
from clca_utils.planning import STAGES, plan, run_folder

VARIANTS = sorted(path.stem for path in params.VARIANTS.glob("*.yaml"))


def grid(tmp_path, **changes: object):
    """Return the steps of a study of the shipped variants, by stage and folder."""
    given = {"study": "tiny", "cultures": ["german", "japanese"], "models": ["smollm2-135m"]}
    study = params.Study.model_validate(given | changes)
    home = tmp_path / "tiny"
    steps = plan(study, tmp_path)
    return {(one.stage.number, one.folder.relative_to(home).as_posix()): one for one in steps}


def numbers(steps, folder: str) -> list[str]:
    return [number for number, where in steps if where == folder]


def test_the_method_goes_without_its_name_and_a_variant_has_its_own_folder():
    home = Path("results/tiny")
    assert run_folder(home, "german", "o/m", 2) == home / "german" / "o-m" / "seed-2"
    beside = run_folder(home, "params/cultures/german.yaml", "o/m", 2, variant="authored")
    assert beside == home / "german" / "o-m+authored" / "seed-2"


def test_a_variant_runs_only_what_it_changes(tmp_path):
    steps = grid(tmp_path, variants=VARIANTS)
    expected = {
        "": ["01", "02", "03", "04", "04b", "05"],
        "+dialogue-only": ["04", "04b", "05"],
        "+neutral-text": ["04", "04b", "05"],
        "+no-filter": ["01", "02", "03", "04", "04b", "05"],
        "+unadapted": ["01", "02", "03", "04", "04b", "05"],
        "+authored": ["04", "04b", "05"],
        "+survey-items": ["04", "04b", "05"],
        "+persona-prompt": ["05"],
        "+wrong-culture-japanese": ["05"],
    }
    for label, stages in expected.items():
        assert numbers(steps, f"german/smollm2-135m{label}/seed-1") == stages, label


def test_what_only_learns_from_written_conversations_acts_nothing(tmp_path):
    steps = grid(tmp_path, variants=["authored", "survey-items"])
    assert {number for number, _ in steps} == {"04", "04b", "05", "06"}
    assert {number for number, _ in grid(tmp_path, fine_tuning={"learn_from": "both"})} == {
        stage.number for stage in STAGES
    }


def test_every_step_reads_what_an_earlier_one_wrote_or_what_nobody_writes(tmp_path):
    steps = grid(tmp_path, variants=VARIANTS[::-1], seeds=[1, 2])
    written: set[Path] = set()
    made = {step.folder / name for step in steps.values() for name in step.stage.writes}
    for step in [*steps.values()][:-1]:
        assert set(step.reads) & made <= written, step
        written |= {step.folder / name for name in step.stage.writes}


def test_the_wrong_culture_is_tested_with_the_other_ones_adapter(tmp_path):
    steps = grid(
        tmp_path, cultures=["german", "japanese", "mexican"], variants=["clca", "wrong-culture"]
    )
    german = [where for number, where in steps if number == "05" and where.startswith("german/")]
    assert german == [
        "german/smollm2-135m/seed-1",
        "german/smollm2-135m+wrong-culture-japanese/seed-1",
        "german/smollm2-135m+wrong-culture-mexican/seed-1",
    ]
    step = steps["05", german[1]]
    assert step.parameters["culture"] == "german"
    assert step.parameters["adapter_dir"].endswith("tiny/japanese/smollm2-135m/seed-1")
    assert tmp_path / "tiny/japanese/smollm2-135m/seed-1/adapter" in step.reads


def test_the_untrained_model_is_asked_the_same_only_once(tmp_path):
    steps = grid(tmp_path, variants=VARIANTS, seeds=[1, 2])
    surveys = [step for (number, _), step in steps.items() if number == "05"]
    asking = [step for step in surveys if "before_dir" not in step.parameters]
    # per culture and seed: as the study asks, the other items, and three other prompts
    assert len(asking) == 2 * 2 * 5
    by_folder = {step.folder: step for step in asking}

    def question(step) -> dict[str, object]:
        return {name: x for name, x in step.parameters.items() if not name.endswith("_dir")}

    for step in (step for step in surveys if step not in asking):
        *_, answers = step.reads
        assert answers.name == "answers.parquet"
        assert question(by_folder[answers.parent]) == question(step)
        assert step.parameters["before_dir"] == shown(answers.parent)


def test_a_large_grid_is_planned_in_order_without_doubles(tmp_path):
    cultures = ["british", "chinese", "german", "japanese", "mexican"]
    steps = plan(
        params.Study.model_validate(
            {"study": "tiny", "cultures": cultures, "models": [f"org/m{n}" for n in range(7)],
             "variants": VARIANTS, "seeds": [1, 2, 3], "simulator": "org/large"}
        ),
        tmp_path,
    )  # fmt: skip
    assert max(Counter(step.copy for step in steps).values()) == 1
    acted = [step for step in steps if step.stage is planning.SIMULATION[1]]
    assert len(acted) == 5 * 3 * 3  # the method's, unfiltered and unadapted ones, for all models


@pytest.mark.parametrize("name", VARIANTS)
def test_a_shipped_variant_is_run_beside_the_method(tmp_path, name):
    owner = read_variant(name).adapter or "clca"
    folders = {where for _, where in grid(tmp_path, variants=list(dict.fromkeys([owner, name])))}
    assert any(f"+{name}" in where or name == "clca" for where in folders)


def test_the_untrained_model_sits_the_exam_once_whatever_is_learnt(tmp_path):
    steps = grid(tmp_path, variants=VARIANTS, seeds=[1, 2])
    exams = [step for (number, _), step in steps.items() if number == "04b"]
    first, *others = exams
    assert "before_dir" not in first.parameters
    assert len(others) > 2 * 2
    assert {step.parameters["before_dir"] for step in others} == {shown(first.folder)}
    assert all(first.folder / "held_out.csv" in step.reads for step in others)
