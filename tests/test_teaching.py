"""In class: every notebook starts from the shipped run, and suggests changes that it can take."""

import ast
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from cells import run_cells
from safetensors import safe_open

from clca_utils.dialogue import Dialogue
from clca_utils.files import ROOT, read_records, write_records
from clca_utils.intent import Intent
from clca_utils.judging import Judgement, kept_dialogues
from clca_utils.model_card import WEIGHTS
from clca_utils.planning import REPORT, STAGES
from clca_utils.scenario import Scenario
from clca_utils.sources import examples_from

SHIPPED = ROOT / "results/reference/demo"
RUN = Path("japanese/smollm2-135m/seed-1")
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def started():
    """Return a copy of the shipped run, as docs/teaching.md has it made."""
    folder = Path(tempfile.mkdtemp(dir=ROOT / "results", prefix=".test-"))
    yield shutil.copytree(SHIPPED, folder / "class")
    shutil.rmtree(folder)


def code(stage) -> list[str]:
    cells = nbformat.read(stage.notebook, 4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def suggestions(stage) -> str:
    cells = nbformat.read(stage.notebook, 4).cells
    (cell,) = [cell for cell in cells if cell.source.startswith("## Try this")]
    assert cell.cell_type == "markdown"
    return cell.source


def assigned(source: str) -> dict[str, ast.expr | None]:
    """Return the names that a piece of code gives a value, and their values."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = node.value
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target): node.value for target in node.targets}
    return found


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_all_that_a_notebook_reads_is_shipped(stage):
    assert [name for name in stage.reads if not (SHIPPED / RUN / name).exists()] == []


def test_the_shipped_conversations_are_of_todays_schemas_and_can_be_learnt_from():
    scenarios = read_records(SHIPPED / RUN / "scenarios.jsonl", Scenario)
    dialogues = read_records(SHIPPED / RUN / "dialogues.jsonl", Dialogue)
    assert {talk.scenario_id for talk in dialogues} <= {one.id for one in scenarios}
    judgements = read_records(SHIPPED / RUN / "judgements.jsonl", Judgement)
    intents = read_records(SHIPPED / RUN / "intents.jsonl", Intent)
    kept = kept_dialogues(dialogues, judgements)
    assert len(intents) == sum(len(talk.turns) for talk in kept)
    tasks = {"imitation": 1.0, "intent": 1.0}
    assert len(examples_from("simulated", SHIPPED / RUN, "japanese", tasks, 1)) == 3 * len(kept)


def test_the_shipped_adapter_is_small_and_changes_the_model(smollm):
    from clca_utils.chat_model import user
    from clca_utils.transformers_model import load_model

    path = SHIPPED / RUN / "adapter" / WEIGHTS
    assert path.stat().st_size < 6 * MEGABYTE
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    asked = [[user("Is it better to plan a day, or to see what comes? 1 or 2?")]], [["1", "2"]]
    learner = load_model("smollm2-135m", SHIPPED / RUN / "adapter", exact=True)
    before, after = (model.option_logprobs(*asked) for model in (smollm, learner))
    assert abs(before[0][0] - after[0][0]) > 1e-3


def test_intents_are_extracted_from_the_shipped_conversations(started):
    run = shutil.copytree(started / RUN, started.parent / "03")
    (run / "intents.jsonl").unlink()
    kept = kept_dialogues(
        read_records(run / "dialogues.jsonl", Dialogue),
        read_records(run / "judgements.jsonl", Judgement),
    )
    some = kept[0].model_copy(update={"turns": kept[0].turns[:2]})
    write_records(run / "dialogues.jsonl", [some])
    run_cells(
        "03_intent_extraction", run_dir=str(run), culture="japanese", gold=0, max_new_tokens=8
    )
    intents = read_records(run / "intents.jsonl", Intent)
    assert [(one.dialogue_id, one.turn) for one in intents] == [(some.id, 0), (some.id, 1)]


def test_the_report_of_the_shipped_run_is_drawn_again_with_the_same_numbers(started):
    shutil.rmtree(started / "tables")
    run_cells(REPORT.name, study_dir=str(started))
    for path in (SHIPPED / "tables").glob("*.csv"):
        pd.testing.assert_frame_equal(
            pd.read_csv(path), pd.read_csv(started / "tables" / path.name), rtol=1e-9
        )
    assert (started / "figures" / "study.png").is_file()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_what_a_notebook_suggests_to_try_can_be_set_there(stage):
    there = assigned("\n".join([*code(stage), 'culture = "japanese"']))  # as the lesson sets it
    tried = re.findall(r"`([^`=]+ = [^`]+)`", suggestions(stage))
    assert 2 <= len(set(tried)) <= 9
    for line in tried:
        ((name, value),) = assigned(line).items()
        assert name in there, f"{stage.name} has no {name}"
        assert ast.unparse(value) != ast.unparse(there[name]), f"{line} changes nothing"


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_notebook_shows_its_figures_with_their_captions(stage):
    text = "\n".join(code(stage))
    assert ("save_figure(" in text) == ("show(" in text)
    assert not re.search(r"(?m)^\s*(figure|drawn)$|display\((figure|drawn)|^figures\[", text)


def test_the_lesson_names_files_folders_and_commands_that_are_there():
    text = (ROOT / "docs/teaching.md").read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert (ROOT / "README.md").read_text().count("docs/teaching.md") == 1
    assert f"results/class/{RUN.as_posix()}" in text
    assert f"cp -r {SHIPPED.relative_to(ROOT).as_posix()} results/class" in text
