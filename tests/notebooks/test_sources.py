"""The notebooks as they are committed: clean, declared, short, and in step with the package."""

import ast
import json
import re

import nbformat
import pytest

from clca_utils.files import ROOT
from clca_utils.params import SECTIONS, load_study
from clca_utils.runner import STAGES, plan

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUN_KEYS = {"run_dir", "culture", "model", "seed"}
PLACES = {"data_dir", "adapter_dir", "before_dir", "study_dir", "runs"}


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def parameters_cell(path):
    (cell,) = [cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])]
    return cell


def declared(path) -> dict[str, object]:
    """Return the parameters of a notebook and their defaults; only literals are read."""
    found = {}
    for node in ast.parse(parameters_cell(path).source).body:
        assert isinstance(node, ast.Assign | ast.AnnAssign), ast.unparse(node)
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        found[target.id] = ast.literal_eval(node.value)
    return found


def test_there_is_a_notebook_for_each_stage():
    assert [path.stem for path in NOTEBOOKS] == [stage.name for stage in STAGES]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_source_notebook_is_valid_and_has_no_outputs(path):
    nbformat.validate(nbformat.read(path, 4))
    for cell in cells(path):
        assert cell.outputs == []
        assert cell.execution_count is None
    raw = json.loads(path.read_text())
    assert "papermill" not in raw["metadata"]
    ids = [cell["id"] for cell in raw["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_code_cell_is_the_tagged_parameters_cell(path):
    assert cells(path)[0] == parameters_cell(path)
    assert declared(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_a_comment(path):
    for line in parameters_cell(path).source.splitlines():
        assert re.search(r"  # \w", line), line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_what_goes_in_and_comes_out_and_why(path):
    opening = cells(path, "markdown")[0].source
    assert opening.startswith(f"# {path.stem.partition('_')[0]} · ")
    for word in ("**In:**", "**Out:**", "Why:"):
        assert word in opening


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_define_nothing_long(path):
    for cell in cells(path):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        is_header = cell == parameters_cell(path) or lines[0].startswith(("import", "from"))
        assert len(lines) <= (24 if is_header else 12), cell.source
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 4, node.name


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_parameter_of_the_yaml_is_declared_with_the_same_default(stage):
    shown = declared(stage.notebook)
    section = SECTIONS[stage.section]().model_dump()
    assert {name: shown.get(name) for name in section} == section


@pytest.mark.parametrize("study", ["smoke", "demo", "paper"])
def test_every_parameter_a_run_passes_is_declared(study, tmp_path):
    for step in plan(load_study(study), tmp_path):
        unknown = set(step.parameters) - set(declared(step.stage.notebook))
        assert not unknown, f"{step.stage.name} does not declare {unknown}"


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_declared_parameter_can_be_set_by_a_study(stage):
    known = set(SECTIONS[stage.section].model_fields) | RUN_KEYS | PLACES
    assert set(declared(stage.notebook)) <= known


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_notebook_closes_by_writing_its_metrics(stage):
    code = "\n".join(cell.source for cell in cells(stage.notebook))
    if stage is STAGES[-1]:
        assert 'study / "tables"' in code
    else:
        assert f'write_metrics(run, "{stage.name}", metrics)' in code


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_no_absolute_path_and_no_key(path):
    text = path.read_text()
    assert not re.search(r"[\"'(\s](/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\)", text)
    assert not re.search(r"(hf_|sk-)[A-Za-z0-9]{16}", text)
