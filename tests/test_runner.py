"""The runner: what it plans, when it runs a step again, and how it tells that one failed."""

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from cells import write_notebook
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tqdm import tqdm

from clca_utils import culture, params, planning, progress, runner
from clca_utils.files import ROOT, StudyError, read_json
from clca_utils.runner import STAGES, heard, last_count, plan

RUN = "german/small/seed-1"

VARIANTS = {
    "clca": "",
    "dialogue-only": "fine_tuning: {tasks: {imitation: 1.0}}\n",
    "unadapted": "scenario_adaptation: {rewriter: none}\n",
    "authored": "fine_tuning: {learn_from: authored}\n",
    "persona-prompt": "adapter: clca\nwvs_analysis: {prompt: persona}\n",
    "wrong-culture": "adapter: clca\nlearnt_from: others\n",
}

WRITE = """
from pathlib import Path
home = Path(globals().get("run_dir") or study_dir)
for name in WRITES:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_text("{}")
    else:
        path.mkdir(exist_ok=True)
        (path / "file.txt").write_text("inside")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a folder with parameters and tiny notebooks that stand in for the real ones."""
    for name in ("cultures", "models", "notebooks", "variants"):
        (tmp_path / name).mkdir()
    for name, text in VARIANTS.items():
        (tmp_path / "variants" / f"{name}.yaml").write_text(f"about: a test\n{text}")
    for name in ("german", "japanese", "british", "chinese", "mexican"):
        (tmp_path / "cultures" / f"{name}.yaml").write_text(f"name: {name}\n")
    for name in ("small", "large"):
        (tmp_path / "models" / f"{name}.yaml").write_text(f"name: {name}\nsource: o/{name}\n")
    for stage in STAGES:
        defaults = "run_dir = study_dir = ''"
        use = WRITE.replace("WRITES", repr(stage.artefacts))
        write_notebook(tmp_path / "notebooks" / f"{stage.name}.ipynb", defaults, use)
    monkeypatch.setattr(culture, "FOLDER", tmp_path / "cultures")
    monkeypatch.setattr(params, "MODELS", tmp_path / "models")
    monkeypatch.setattr(params, "VARIANTS", tmp_path / "variants")
    monkeypatch.setattr(params, "load_culture", lambda name: None)
    monkeypatch.setattr(params, "unsurveyed", lambda study: [])
    monkeypatch.setattr(planning, "NOTEBOOKS", tmp_path / "notebooks")
    study(tmp_path)
    return tmp_path


def study(home: Path, **changes: object) -> Path:
    """Write the study file with some parameters."""
    content = {"study": "tiny", "cultures": ["german"], "models": ["small"]} | changes
    (home / "tiny.yaml").write_text(yaml.safe_dump(content))
    return home / "tiny.yaml"


def run(home: Path, terminal: bool = False) -> str:
    """Run the study and return what the runner printed."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    runner.run(home / "tiny.yaml", home / "results", console)
    return console.file.getvalue()


def ran(printed: str) -> list[str]:
    """Return the numbers of the stages that were run, not skipped."""
    done = [line for line in printed.splitlines() if ": done in" in line]
    return [line.split(":")[0].split("/")[-1].partition("_")[0] for line in done]


@pytest.fixture
def at_once(monkeypatch):
    """Let steps write their artefacts in this process: no kernel, so skipping is tested fast."""

    def execute(step, show):
        for name in step.stage.artefacts:
            path = step.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.write_text(str(step.parameters.get("seed")))
            else:
                path.mkdir(exist_ok=True)
                (path / "file.txt").write_text("inside")
        if step.stage is not runner.REPORT:
            (step.folder / "figures").mkdir(exist_ok=True)
            (step.folder / "figures" / f"{step.stage.section}.png").write_text("drawn")

    monkeypatch.setattr(runner, "execute", execute)


ALL = ["01", "02", "03", "04", "04b", "05", "06"]


def grid(home: Path, **changes: object) -> list[tuple[str, str]]:
    steps = plan(params.load_study(study(home, **changes)), home / "results")
    return [(step.stage.number, step.folder.relative_to(home / "results").as_posix())
            for step in steps]  # fmt: skip


def test_each_model_simulates_for_itself_unless_a_simulator_is_named(home):
    steps = grid(home, models=["small", "large"])
    assert steps == [
        *((number, f"tiny/{RUN}") for number in ALL[:6]),
        *((number, "tiny/german/large/seed-1") for number in ALL[:6]),
        ("06", "tiny"),
    ]


def test_models_share_their_simulator(home):
    steps = grid(home, cultures=["german", "japanese"], models=["small", "o/m"], simulator="large")
    for name in ("german", "japanese"):
        assert [n for n, folder in steps if folder == f"tiny/{name}/large/seed-1"] == ALL[:3]
        assert [n for n, folder in steps if folder == f"tiny/{name}/o-m/seed-1"] == ALL[3:6]
    assert len(steps) == len(set(steps)) == 2 * (3 + 2 * 3) + 1
    assert steps[-1] == ("06", "tiny")


def test_a_step_reads_what_an_earlier_one_wrote(home):
    loaded = params.load_study(
        study(home, models=["small", "large"], simulator="large", seeds=[1, 2])
    )
    written: set[Path] = set()
    for step in plan(loaded, home / "results")[:-1]:
        assert set(step.reads) <= written
        written |= {step.folder / name for name in step.stage.writes}


def test_parameters_of_a_step(home):
    changes = {"simulator": "large", "seeds": [7], "intent_extraction": {"batch_size": 3}}
    loaded = params.load_study(study(home, **changes))
    steps = {step.stage.section: step.parameters for step in plan(loaded, ROOT / "results")}
    common = {"culture": "german", "seed": 7}
    assert steps["intent_extraction"] == common | {
        "run_dir": "results/tiny/german/large/seed-7",
        "model": "large",
        "max_new_tokens": 20,
        "cultural_threshold": 0.5,
        "batch_size": 3,
        "gold": 1,
    }
    tuning = common | {
        "run_dir": "results/tiny/german/small/seed-7",
        "data_dir": "results/tiny/german/large/seed-7",
        "model": "small",
    }
    assert steps["fine_tuning"] == tuning | params.FineTuning().model_dump()
    assert "data_dir" not in steps["wvs_analysis"]
    assert steps["wvs_analysis"]["adapter_dir"] == "results/tiny/german/small/seed-7"
    assert steps["paper_figures"] == {
        "study_dir": "results/tiny",
        "runs": ["german/large/seed-7", "german/small/seed-7"],
        "run_figures": "first",
    }


def test_a_second_run_skips_everything(home, at_once):
    assert ran(run(home)) == ALL
    again = run(home)
    assert ran(again) == []
    assert again.count("skipped, nothing changed") == 7


def test_a_results_folder_may_move(home, at_once):
    run(home)
    shutil.move(home / "results", home / "elsewhere")
    shutil.copytree(home / "elsewhere", home / "results")
    assert ran(run(home)) == []


@pytest.mark.parametrize(
    ("changes", "rerun"),
    [
        ({"seeds": [2]}, ALL),
        ({"scenario_adaptation": {"n_scenarios": 5}}, ["01"]),
        ({"intent_extraction": {"batch_size": 9}}, ["03"]),
        ({"fine_tuning": {"epochs": 2}}, ["04"]),
        ({"held_out": {"texts": 5}}, ["04b"]),
        ({"wvs_analysis": {"orders": "first"}}, ["05"]),
        ({"wvs_analysis": {"prompt": "persona"}}, ["05"]),
        ({"wvs_analysis": {"checks": ["retest"]}}, ["05"]),
        ({"wvs_analysis": {"cultures": ["german", "japanese"]}}, ["05"]),
        ({"fine_tuning": {"epochs": 1}}, []),
    ],
)
def test_a_changed_parameter_runs_its_stage(home, at_once, changes, rerun):
    # the stages after it are skipped, since here what they read comes out the same
    run(home)
    study(home, **changes)
    assert ran(run(home)) == rerun


@pytest.mark.parametrize(
    ("name", "rerun"),
    [
        ("scenarios.jsonl", ["01"]),
        ("judgements.jsonl", ["02"]),
        ("intents.jsonl", ["03"]),
        ("adapter/file.txt", ["04"]),
        ("training_log.csv", ["04"]),
        ("held_out.csv", ["04b"]),
        ("answers.parquet", ["05"]),
        ("metrics/03_intent_extraction.json", ["03"]),
        ("figures/fine_tuning.png", ["04"]),
        ("../../../figures/file.txt", ["06"]),
        ("../../../tables/file.txt", ["06"]),
    ],
)
@pytest.mark.parametrize("harm", ["changed", "deleted"])
def test_a_damaged_output_is_made_again(home, at_once, name, rerun, harm):
    run(home)
    path = home / "results/tiny" / RUN / name
    before = path.read_text()
    path.unlink() if harm == "deleted" else path.write_text("damaged")
    assert ran(run(home)) == rerun
    assert path.read_text() == before
    stages = read_json(home / "results/tiny" / RUN / "manifest.json")["stages"]
    assert list(stages) == sorted(stages)


def test_other_content_runs_all_that_reads_it(home, at_once, monkeypatch):
    run(home)
    plain = runner.execute

    def execute(step, show):
        plain(step, show)
        if step.stage.name == "02_dialogue_simulation":
            (step.folder / "dialogues.jsonl").write_text("other words")

    monkeypatch.setattr(runner, "execute", execute)
    study(home, dialogue_simulation={"max_turns": 5})
    assert ran(run(home)) == ["02", "03", "04", "06"]


@pytest.mark.parametrize(
    ("where", "edit", "rerun"),
    [
        ("cultures/german.yaml", "# edited\n", ALL[:6]),
        ("cultures/mexican.yaml", "# edited\n", ["05"]),  # one to be told apart
        ("cultures/other.yaml", "# edited\n", []),
        ("models/small.yaml", "# edited\n", []),
        ("models/small.yaml", "fine_tuning: {epochs: 3}\n", ["04"]),
        ("models/small.yaml", "source: o/other\n", ALL[:6]),
    ],
)
def test_a_changed_culture_or_model_runs_what_it_shapes(home, at_once, where, edit, rerun):
    run(home)
    path = home / where
    kept = path.read_text() if path.exists() else ""
    path.write_text((kept.replace("source: o/small\n", "") if "source" in edit else kept) + edit)
    assert ran(run(home)) == rerun


def test_a_changed_notebook_runs_but_saved_outputs_do_not_count(home, at_once):
    run(home)
    path = home / "notebooks" / "03_intent_extraction.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# Words"))
    nbformat.write(notebook, path)
    assert ran(run(home)) == []
    notebook.cells[2].source += "\n1 + 1"
    nbformat.write(notebook, path)
    assert ran(run(home)) == ["03"]


def test_changed_shipped_data_run_the_stages_that_read_them(home, at_once, monkeypatch):
    assert {name for stage in STAGES for name in stage.data} == {
        "seed_scenarios.jsonl", "items", "personas", "wvs7_marginals.csv", "authored",
        "paper_dialogues.csv", "paper_results.csv", "general",
    }  # fmt: skip
    for name in (
        "seed_scenarios.jsonl", "items/en.yaml", "personas/en.yaml", "wvs7_marginals.csv",
        "authored/german/dialogues.jsonl", "paper_dialogues.csv", "general/texts.jsonl",
        "paper_results.csv",
    ):  # fmt: skip
        (home / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "data" / name).write_text("one")
    monkeypatch.setattr(runner, "DATA", home / "data")
    run(home)
    for name, rerun in {
        "seed_scenarios.jsonl": ["01"],
        "items/en.yaml": ["05", "06"],
        "items/it.yaml": ["05", "06"],  # a new language
        "personas/en.yaml": ["05"],
        "personas/it.yaml": ["05"],
        "wvs7_marginals.csv": ["05"],
        "paper_dialogues.csv": ["02", "06"],
        "paper_results.csv": ["06"],
        "authored/german/dialogues.jsonl": ["02", "03", "04", "04b"],
        "general/texts.jsonl": ["04b"],
    }.items():
        (home / "data" / name).write_text("two")
        assert ran(run(home)) == rerun
        assert ran(run(home)) == []


def test_the_data_that_stages_read_are_shipped():
    for name in {name for stage in STAGES for name in stage.data}:
        path = runner.DATA / name
        assert any(path.rglob("*.*")) if path.is_dir() else path.is_file()


@pytest.mark.parametrize("name", ["survey", "items"])
def test_a_file_that_is_brought_counts_by_its_content(home, at_once, name):
    path = home / "mine.csv"
    path.write_text("one")
    study(home, wvs_analysis={name: str(path)})
    assert ran(run(home)) == ALL
    assert ran(run(home)) == []
    path.write_text("two")
    assert ran(run(home)) == ["05"]


def test_a_survey_folder_counts_by_what_lies_in_it(home, at_once):
    folder = home / "WorldValuesBench" / "full"
    folder.mkdir(parents=True)
    for name in ("full_demographic_qa.tsv", "full_value_qa.tsv"):
        (folder / name).write_text("one")
    study(home, wvs_analysis={"survey": str(folder.parent)})
    assert ran(run(home)) == ALL
    (folder / "full_value_qa.tsv").write_text("two")
    assert ran(run(home)) == ["05"]
    (folder.parent / "codebook.json").write_text("{}")
    assert ran(run(home)) == ["05"]
    (folder.parent / ".DS_Store").write_text("left by a desktop")
    assert ran(run(home)) == []


def test_a_changed_module_runs_the_stages_that_import_it(home, at_once, monkeypatch):
    package = home / "clca_utils"
    package.mkdir()
    for name, code in {
        "deep": "x = 1\n",
        "near": "def f() -> None:\n    from .deep import x\n",
        "other": "import json\n",
    }.items():
        (package / f"{name}.py").write_text(code)
    path = home / "notebooks" / "03_intent_extraction.ipynb"
    write_notebook(path, "run_dir = ''", "%matplotlib inline\nfrom clca_utils.near import f")
    monkeypatch.setattr(runner, "ROOT", home)
    run(home)
    (package / "other.py").write_text("import os\n")
    assert ran(run(home)) == []
    (package / "deep.py").write_text("x = 2\n")
    assert ran(run(home)) == ["03"]


def test_how_figures_look_counts_for_the_report_alone(home, at_once, monkeypatch):
    package = home / "clca_utils"
    package.mkdir()
    drawing = ("figures", "survey_figures", "study_figures")
    for name in drawing:
        (package / f"{name}.py").write_text("from clca_utils.palette import x\n")
    (package / "palette.py").write_text("x = 1\n")
    imports = "".join(f"from clca_utils import {name}\n" for name in drawing)
    (package / "report.py").write_text(imports)
    for stage in STAGES:
        path = home / "notebooks" / f"{stage.name}.ipynb"
        source = nbformat.read(path, 4).cells[1].source
        also = "from clca_utils.report import x" if stage.name > "05" else ""
        write_notebook(path, "run_dir = study_dir = ''", source, imports, also)
    monkeypatch.setattr(runner, "ROOT", home)
    run(home)
    for name in (*drawing, "palette"):
        (package / f"{name}.py").write_text((package / f"{name}.py").read_text() + "y = 2\n")
        assert ran(run(home)) == ["06"]
    (package / "report.py").write_text(imports + "y = 2\n")
    assert ran(run(home)) == ["05", "06"]


def modules_behind(stage, without=frozenset()):
    return {path.stem for path in runner.modules_of(runner.cell_sources(stage.notebook), without)}


def test_the_shipped_notebooks_draw_through_modules_that_count_for_the_report_alone():
    assert {(ROOT / "clca_utils" / f"{name}.py").is_file() for name in runner.DRAWING} == {True}
    assert modules_behind(runner.REPORT) >= runner.DRAWING
    analysis = planning.SURVEY
    assert modules_behind(analysis) >= runner.DRAWING
    counted = modules_behind(analysis, runner.DRAWING)
    assert not counted & runner.DRAWING
    # while what computes its numbers does count
    assert counted >= {
        "answers", "asking", "checks", "comparison", "cultural_map", "items", "measures",
        "microdata", "references", "replies", "respondents", "shares", "survey", "uncertainty",
        "validity",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from clca_utils.files import digest", {"files"}),
        ("from clca_utils import files, survey as s", {"files", "survey"}),
        ("import clca_utils.files", {"files"}),
        ("import clca_utils, json, os.path", set()),
        ("from . import files", {"files"}),
        ("from .files import digest", {"files"}),
        ("def f():\n    from clca_utils.files import digest", {"files"}),
        ("%load_ext autoreload\n!ls\nimport clca_utils.files", {"files"}),
        ("x = (7\n    % 2)\nimport clca_utils.files", {"files"}),
        ("from clca_utils_more.files import x", set()),
        ("no python at all", set()),
    ],
)
def test_imports_are_read_without_running_the_code(code, names):
    assert {path.stem for path in runner.modules_of([code])} >= names
    assert runner.imported(code) & {"files", "survey"} == names


def test_what_a_module_imports_counts_too():
    found = {path.stem for path in runner.modules_of(["from clca_utils.params import Study"])}
    assert {"params", "culture", "files", "embedded"} <= found
    assert "runner" not in found


def test_manifest(home, at_once):
    run(home)
    manifest = read_json(home / "results/tiny" / RUN / "manifest.json")
    assert [manifest[key] for key in ("study", "culture", "model", "seed")] == [
        "tiny", "german", "small", 1
    ]  # fmt: skip
    assert manifest["python"].startswith("3.")
    assert {"commit", "dirty", "platform", "packages"} <= set(manifest)
    assert list(manifest["stages"]) == [stage.name for stage in STAGES[:6]]
    record = manifest["stages"]["04_fine_tuning"]
    assert set(record) == {
        "key", "notebook", "commit", "parameters", "inputs", "outputs", "seconds", "finished"
    }  # fmt: skip
    assert {Path(name).name for name in record["inputs"]} == set(STAGES[3].reads)
    assert set(record["outputs"]) == {
        "adapter",
        "training_log.csv",
        "metrics/04_fine_tuning.json",
        "figures/fine_tuning.png",
    }
    assert record["finished"].endswith("Z")
    above = read_json(home / "results/tiny/manifest.json")
    assert (above["culture"], list(above["stages"])) == (None, ["06_paper_figures"])


def test_pinned_versions_are_recorded(home, at_once, monkeypatch):
    (home / "requirements.txt").write_text("pydantic==2.0\nabsent-thing==1\nfoo[bar]==1\n# x==1\n")
    monkeypatch.setattr(runner, "ROOT", home)
    run(home)
    manifest = read_json(home / "results/tiny/manifest.json")
    assert set(manifest["packages"]) == {"pydantic", "absent-thing", "foo"}
    assert manifest["packages"]["pydantic"].startswith("2.")
    assert manifest["packages"]["absent-thing"] is None
    assert (manifest["commit"], manifest["dirty"]) == (None, None)  # no repository there


def test_git_commit_and_changes_are_recorded(home, at_once, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", home)
    for name in ("clca_utils", "params"):
        (home / name).mkdir()
        (home / name / "file").write_text("1")
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "params", "clca_utils", "notebooks"],
                    [*name, "commit", "-qm", "x"]):  # fmt: skip
        subprocess.run(["git", *command], cwd=home, check=True)
    run(home)
    manifest = read_json(home / "results/tiny/manifest.json")
    assert len(manifest["commit"]) == 40
    assert manifest["dirty"] is False
    (home / "params" / "file").write_text("2")
    study(home, seeds=[2])
    run(home)
    assert read_json(home / "results/tiny/manifest.json")["dirty"] is True


def test_a_damaged_manifest_is_told(home, at_once):
    run(home)
    manifest = home / "results/tiny" / RUN / "manifest.json"
    for text in ("{", '{"stages": {"01_scenario_adaptation": {"key": 3}}}'):
        manifest.write_text(text)
        with pytest.raises(StudyError, match=r"manifest\.json.*delete it and rerun"):
            run(home)


def test_nothing_is_written_when_something_does_not_fit(home, at_once):
    study(home, seeds=["one"])
    with pytest.raises(StudyError, match=r"seeds\.0"):
        run(home)
    study(home)
    (home / "notebooks" / "06_paper_figures.ipynb").unlink()
    with pytest.raises(StudyError, match=r"06_paper_figures\.ipynb is missing"):
        run(home)
    assert not (home / "results").exists()


def test_a_second_runner_of_a_step_is_refused(home, at_once):
    steps = plan(params.load_study(home / "tiny.yaml"), home / "results")
    assert not runner.running(steps[3].folder, steps[3].stage)
    refused = pytest.raises(StudyError, match=r"04_fine_tuning\.ipynb is being written by another")
    with runner.alone(steps[3]), refused:
        assert runner.running(steps[3].folder, steps[3].stage)
        run(home)
    assert not runner.running(steps[3].folder, steps[3].stage)
    assert ran(run(home)) == ALL[3:]


def test_one_step_may_be_run_alone(home, at_once):
    console = Console(file=io.StringIO(), width=200)
    only = f"{RUN}/01_scenario_adaptation"
    runner.run(home / "tiny.yaml", home / "results", console, only)
    runner.run(home / "tiny.yaml", home / "results", console, only)
    assert console.file.getvalue().count("[1/7]") == 3  # started, done, skipped
    assert ran(run(home)) == ALL[1:]
    with pytest.raises(StudyError, match=r"tiny has no step '1': did you mean '.*'\?"):
        runner.run(home / "tiny.yaml", home / "results", console, "1")


def test_steps_of_a_run_that_end_together_are_both_recorded(home, at_once):
    steps = plan(params.load_study(home / "tiny.yaml"), home / "results")
    run(home)
    for one in (steps[4], steps[5]):  # 04b and 05 depend on 04 alone
        runner.write_manifest(one, None)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: runner.run_step(one, print), (steps[4], steps[5])))
    assert set(runner.records(steps[4].folder)) == {stage.name for stage in STAGES[:-1]}


def test_what_changed_while_it_was_read_is_not_recorded(home, at_once, monkeypatch):
    steps = plan(params.load_study(home / "tiny.yaml"), home / "results")
    run(home)
    write = runner.execute

    def meanwhile(step, show):
        (step.folder / "scenarios.jsonl").write_text("another run's")
        write(step, show)

    monkeypatch.setattr(runner, "execute", meanwhile)
    with pytest.raises(StudyError, match=r"scenarios\.jsonl was written while .*02_dialogue"):
        runner.run_step(steps[1], print)
    assert steps[1].stage.name not in runner.records(steps[1].folder)


def test_a_forecast_says_what_a_run_would_do(home, at_once):
    steps = plan(params.load_study(home / "tiny.yaml"), home / "results")
    assert [skip for _, skip in runner.forecast(steps)] == [False] * 7
    assert not (home / "results").exists()
    run(home)
    assert [skip for _, skip in runner.forecast(steps)] == [True] * 7
    (home / "results/tiny" / RUN / "intents.jsonl").write_text("damaged")
    assert [skip for _, skip in runner.forecast(steps)] == [True, True, *[False] * 5]


def test_a_forecast_follows_the_data_of_the_simulator(home, at_once):
    study(home, models=["small", "large"], simulator="large", cultures=["german", "japanese"])
    run(home)
    (home / "results/tiny/japanese/large/seed-1/dialogues.jsonl").unlink()
    steps = plan(params.load_study(home / "tiny.yaml"), home / "results")
    tiny = home / "results/tiny"
    rerun = {f"{step.folder.relative_to(tiny)}/{step.stage.number}"
             for step, skip in runner.forecast(steps) if not skip}  # fmt: skip
    assert rerun == {
        *(f"japanese/large/seed-1/{number}" for number in ALL[1:6]),
        *(f"japanese/small/seed-1/{number}" for number in ALL[3:6]),
        "./06",
    }


def bar(done: int, total: int, what: str) -> str:
    out = io.StringIO()
    with tqdm(total=total, desc=what, file=out, ncols=90) as progress:
        progress.update(done)
    return out.getvalue()


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.from_regex(r"[a-z][a-z :]{0,20}[a-z]",
       fullmatch=True), st.text())  # fmt: skip
def test_counts_are_read_off_real_bars(done, total, what, noise):
    done = min(done, total)
    text = noise.replace("|", "") + "\n" + bar(done, total, what)
    assert last_count(text) == (what, done, total)


@given(st.text() | st.from_regex(r"[a-z:%|/\[ 0-9\r\n]*"))
def test_any_text_is_no_bar_or_one(text):
    found = last_count(text)
    assert found is None or found[1] >= 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("turns:  33%|###   | 8/24 [00:10<00:20,  1.2s/it]", ("turns", 8, 24)),
        ("\rturns:   0%|   | 0/24 [00:00<?, ?it/s]\rturns:   4%|#  | 1/24 [00:", ("turns", 1, 24)),
        ("turns: 100%|███| 24/24 [00:10]\nasks:  50%|██ | 1/2 [00:01<00:01]\n", ("asks", 1, 2)),
        ("asks:  50%|██ | 1/2 [00:01<00:01]\nWarning: something\n", ("asks", 1, 2)),
        ("turns: 8it [00:10,  1.2s/it]", None),
        ("see 8/24 [here]", None),
        ("", None),
    ],
)
def test_last_count(text, found):
    assert last_count(text) == found


def test_a_long_text_is_read_quickly():
    began = time.monotonic()
    assert last_count("a: 1%|" * 100_000) is None
    assert last_count("x" * 1_000_000) is None
    assert time.monotonic() - began < 2


def test_papermills_log_is_heard_and_not_printed(capsys):
    seen = []
    logger = logging.getLogger("papermill")
    before = logger.level, logger.propagate, list(logger.handlers)
    with heard(lambda **count: seen.append(count)):
        logger.warning("turns:  33%|###   | 8/24 [00:10<00:20]")
        logger.info("100 % of words without a bar")
    logger.debug("after")
    assert seen == [{"description": "turns", "completed": 8, "total": 24}]
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    assert capsys.readouterr() == ("", "")


# From here on real kernels run, a second or two each.


def test_a_whole_study_of_real_notebooks(home, capfd):
    path = home / "notebooks" / "02_dialogue_simulation.ipynb"
    sources = [cell.source for cell in nbformat.read(path, 4).cells]
    look = (
        "import os, sys, time\nfrom tqdm import tqdm\n"
        "for _ in tqdm(range(3), desc='turns', mininterval=0):\n    time.sleep(0.3)\n"
        "print('stray words')\n"
        "(home / 'figures').mkdir(); (home / 'figures' / 'drawn.svg').write_text('x')\n"
        "(sys.executable, os.getcwd(), culture, seed, batch_size)"
    )
    write_notebook(path, *sources, look)
    printed = run(home, terminal=True)
    assert ran(printed) == ALL
    assert "turns" in printed
    assert "3/3" in printed
    out, err = capfd.readouterr()
    # what ipykernel itself says while it is told to stop, which depends on the moment, may stand
    told = [words for words in ("stray words", "turns", "papermill", "Executing") if words in err]
    assert (out, told) == ("", [])
    copy = nbformat.read(home / "results/tiny" / RUN / path.name, 4)
    (seen,) = (o["data"]["text/plain"] for o in copy.cells[-1].outputs if "data" in o)
    assert seen == repr((sys.executable, str(ROOT), "german", 1, 8))
    (noise,) = (o["text"] for o in copy.cells[-1].outputs if o.get("name") == "stderr")
    assert noise.count("turns") == 1
    manifest = read_json(home / "results/tiny" / RUN / "manifest.json")
    assert "figures/drawn.svg" in manifest["stages"]["02_dialogue_simulation"]["outputs"]
    assert ran(run(home)) == []


def test_no_absolute_path_of_the_repository_in_an_executed_notebook(home, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr("clca_utils.files.ROOT", tmp_path)
    steps = plan(params.load_study(home / "tiny.yaml"), tmp_path / "results")
    runner.execute(steps[0], lambda **count: None)
    assert str(tmp_path) not in steps[0].copy.read_text()
    assert (steps[0].folder / "scenarios.jsonl").is_file()


def failure(home: Path, *sources: str) -> str:
    write_notebook(home / "notebooks" / "01_scenario_adaptation.ipynb", "run_dir = ''", *sources)
    with pytest.raises(StudyError) as error:
        run(home)
    return str(error.value)


def test_a_failed_notebook_is_told_in_a_few_lines(home):
    told = failure(home, "def f(x):\n    return 1 / x\n", "import json\nf(0)")
    assert "01_scenario_adaptation.ipynb failed in cell In [4] with ZeroDivisionError" in told
    assert "Cell In[3], line 2: return 1 / x" in told
    copy = home / "results/tiny" / RUN / "01_scenario_adaptation.ipynb"
    assert told.endswith(f"executed copy: {copy}")
    assert "ZeroDivisionError" in copy.read_text()
    assert len(told.splitlines()) == 3
    records = read_json(copy.parent / "manifest.json")["stages"]
    assert records == {}
    table = Console(file=io.StringIO(), width=120)
    table.print(progress.of_all(home / "results"))
    assert "failed" in table.file.getvalue()
    # mended, it is recorded
    names = repr(STAGES[0].artefacts)
    write_notebook(home / "notebooks" / copy.name, "run_dir = ''", WRITE.replace("WRITES", names))
    first = plan(params.load_study(home / "tiny.yaml"), home / "results")[0]
    runner.run_step(first, lambda **count: None)
    assert runner.finished(first)


def test_the_line_told_is_the_studys_not_a_librarys(home):
    told = failure(home, "import json\ntext = '{'\njson.loads(text)")
    assert "JSONDecodeError" in told
    assert "Cell In[3], line 3: json.loads(text)" in told


def test_the_line_told_may_be_in_the_package(home):
    told = failure(home, "from clca_utils.files import digest\ndigest('not a Path')")
    assert "AttributeError" in told
    assert "clca_utils/files.py, line " in told
    assert "path.is_dir()" in told


def test_a_study_error_of_a_notebook_reads_as_its_sentence(home):
    raises = "from clca_utils.files import StudyError\nraise StudyError('Mend the [file].')"
    assert failure(home, raises) == "Mend the [file]."


def test_a_notebook_that_forgets_a_file_is_told(home):
    assert "ended without writing" in failure(home, "pass")


def test_a_dead_kernel_is_told(home):
    told = failure(home, "import os\nos.kill(os.getpid(), 9)")
    assert "01_scenario_adaptation.ipynb was cut off" in told
    assert "memory" in told


def test_braces_in_a_path_do_no_harm(home, monkeypatch):
    folder = home / "a {b} c"
    write_notebook(home / "n.ipynb", "run_dir = ''", "x = 1")
    stage = runner.Stage("n", (), ())
    monkeypatch.setattr(planning, "NOTEBOOKS", home)
    step = runner.Step(stage, "s", folder, folder, [], {"run_dir": str(folder)}, [])
    with pytest.raises(StudyError, match="ended without writing"):
        runner.execute(step, lambda **count: None)
    assert step.copy.is_file()


def test_this_environments_kernel_is_used_even_if_the_home_folder_has_one(home):
    spec = home / "share/jupyter/kernels/python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(
        {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    ))  # fmt: skip
    code = (
        "from jupyter_client.kernelspec import KernelSpecManager as M\n"
        "print(M().get_kernel_spec('python3').argv[0])"
    )

    def chosen(environment: dict[str, str]) -> str:
        env = os.environ | {"JUPYTER_DATA_DIR": str(home / "share/jupyter")} | environment
        return subprocess.check_output([sys.executable, "-c", code], env=env, text=True).strip()

    assert chosen({"JUPYTER_PREFER_ENV_PATH": "0"}) == "/bin/false"
    assert chosen(runner.ENVIRONMENT) != "/bin/false"


SCRIPT = """
import sys
from pathlib import Path
from clca_utils import culture, params, planning, progress, runner
home = Path(sys.argv[1])
culture.FOLDER, params.MODELS = home / "cultures", home / "models"
params.load_culture = lambda name: None
params.unsurveyed = lambda study: []
planning.NOTEBOOKS = home / "notebooks"
runner.run(home / "tiny.yaml", home / "results")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_terminal_shows_the_running_notebooks_items(home):
    bar_then_end = (
        "from clca_utils.files import StudyError\nfrom tqdm import tqdm\n"
        "for _ in tqdm(range(3), desc='turns [x]'):\n    import time; time.sleep(0.3)\n"
        "raise StudyError('Enough.')"
    )
    write_notebook(
        home / "notebooks" / "01_scenario_adaptation.ipynb", "run_dir = ''", bar_then_end
    )
    above, below = os.openpty()  # its size is 0, in which tqdm by itself draws nothing
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(home)], stdin=below, stdout=below,
                          stderr=below, env=env) as child:  # fmt: skip
        os.close(below)
        printed = b""
        with contextlib.suppress(OSError):  # how Linux tells that the other end was closed
            while chunk := os.read(above, 4096):
                printed += chunk
    os.close(above)
    text = printed.decode()
    assert "stage 1 of 7" in text
    assert "turns [x]" in text
    assert "2/3" in text
    assert "StudyError: Enough." in text
    assert child.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is told to die by prctl")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_runner_leaves_no_kernel_that_goes_on_writing(home, sign):
    beat = home / "beat"
    # the regular expression holds the GIL for many seconds: ipykernel's own look-out cannot act
    held = "import re\nre.match('(a+)+$', 'a' * 31 + 'b')" if sign == signal.SIGKILL else ""
    endless = (
        f"import time\nfrom pathlib import Path\nbeat = Path({str(beat)!r})\nwhile True:\n"
        "    beat.write_text(str(time.time()))\n    time.sleep(0.01)\n"
    )
    endless += "".join(f"    {line}\n" for line in held.splitlines())
    write_notebook(home / "notebooks" / "01_scenario_adaptation.ipynb", "run_dir = ''", endless)
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not beat.exists():
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        kernels = psutil.Process(parent.pid).children(recursive=True)
        assert kernels
        parent.send_signal(sign)
        # asked politely, jupyter_client gives a kernel 5 seconds to end before it kills it
        _, alive = psutil.wait_procs(kernels, timeout=5 if sign == signal.SIGKILL else 40)
        assert alive == []
        parent.wait(60)
    finally:
        parent.kill()
        parent.wait()
    last = beat.read_text()
    time.sleep(0.3)
    assert beat.read_text() == last
    folder = home / "results/tiny" / RUN
    assert read_json(folder / "manifest.json")["stages"] == {}
    assert progress.state(folder, STAGES[0]) == "unfinished"
    assert not runner.running(folder, STAGES[0])  # the lock went with the process


def test_status_tells_each_folder_and_stage(home, at_once):
    study(home, models=["small"], simulator="large")
    run(home)
    (home / "results/tiny" / RUN / "answers.parquet").unlink()
    console = Console(file=io.StringIO(), width=120)
    console.print(progress.of_all(home / "results"))
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:9]]
            for cells in (line.split("│") for line in console.file.getvalue().splitlines())
            if len(cells) > 8}  # fmt: skip
    assert rows["tiny/german/large/seed-1"] == ["done"] * 3 + ["missing"] * 3 + [""]
    assert rows[f"tiny/{RUN}"] == ["missing"] * 3 + ["done", "done", "missing", ""]
    assert rows["tiny"] == [""] * 6 + ["done"]


def test_status_of_no_results_is_an_empty_table(tmp_path):
    assert progress.of_all(tmp_path / "none").row_count == 0
