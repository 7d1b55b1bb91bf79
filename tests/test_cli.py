"""The command line: short answers, plain sentences for what the user can mend, exit codes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from clca_utils import culture, embedded, html_report, params, planning, runner
from clca_utils.cli import app
from clca_utils.files import ROOT, StudyError
from clca_utils.items import load_items


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a folder with a study, its culture and model, and empty notebooks."""
    for name in ("cultures/german.yaml", "models/small.yaml"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(f"name: {path.stem}\nsource: o/m\n")
    (tmp_path / "notebooks").mkdir()
    for stage in runner.STAGES:
        (tmp_path / "notebooks" / f"{stage.name}.ipynb").write_text('{"cells": []}')
    content = {"study": "tiny", "cultures": ["german"], "models": ["small"]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(culture, "FOLDER", tmp_path / "cultures")
    monkeypatch.setattr(params, "MODELS", tmp_path / "models")
    monkeypatch.setattr(params, "STUDIES", tmp_path)
    monkeypatch.setattr(params, "load_culture", lambda name: None)
    monkeypatch.setattr(params, "unsurveyed", lambda study: [])
    monkeypatch.setattr(planning, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


def ask(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_check_prints_the_plan_and_writes_nothing(home):
    asked = ("check", home / "tiny.yaml", "--elsewhere", "--results", home / "results")
    answer = ask(*asked)
    assert answer.exit_code == 0, answer.output
    first, run, study = answer.stdout.splitlines()
    assert first == "tiny: runs: 1, stages: 7, to be skipped: 0"
    assert run.endswith("tiny/german/small/seed-1: 01 run, 02 run, 03 run, 04 run, 04b run, 05 run")
    assert study.endswith("results/tiny: 06 run")
    assert not (home / "results").exists()


def test_a_report_is_of_a_folder_or_of_a_study_by_name(home, monkeypatch):
    asked = []

    def write(folder, out):
        asked.append(folder)
        return home / "tiny.yaml"

    monkeypatch.setattr(html_report, "write_report", write)
    assert ask("report", home).exit_code == 0
    assert ask("report", "tiny").exit_code == 0
    assert asked == [home, ROOT / "results" / "tiny"]
    assert "does not exist" in ask("report", "tyni").stderr


def test_a_bare_name_is_a_study_in_params(home):
    assert ask("check", "tiny").stdout.startswith("tiny: ")


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_slip_is_a_sentence_on_stderr(home, command):
    text = (home / "tiny.yaml").read_text() + "fine_tuning: {epohcs: 3}\n"
    (home / "tiny.yaml").write_text(text)
    answer = ask(command, home / "tiny.yaml", "--results", home / "results")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    path = home / "tiny.yaml"
    assert answer.stderr == (
        f"{path}: fine_tuning has no parameter 'epohcs'; did you mean 'epochs'?\n"
    )
    assert not (home / "results").exists()


def test_run_runs_in_the_folder_asked_for(home, monkeypatch):
    asked = []
    monkeypatch.setattr(runner, "run", lambda *given, only: asked.append((*given, only)))
    assert ask("run", "tiny", "--results", home / "elsewhere").exit_code == 0
    assert ask("run", "tiny", "--only", "german/small/seed-1/04_fine_tuning").exit_code == 0
    assert asked == [
        ("tiny", home / "elsewhere", ""),
        ("tiny", ROOT / "results", "german/small/seed-1/04_fine_tuning"),
    ]


def test_an_interrupted_run_says_how_to_go_on(home, monkeypatch):
    def interrupted(*_, only):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    answer = ask("run", "tiny")
    assert answer.exit_code == 130
    assert answer.stderr == "Interrupted: run the same command again to go on.\n"


def test_status_is_a_table_of_what_is_there(home):
    folder = home / "results/tiny/german/small/seed-1"
    folder.mkdir(parents=True)
    (folder / "01_scenario_adaptation.ipynb").write_text(
        '{"metadata": {"papermill": {"exception": true}}}'
    )
    answer = ask("status", "--results", home / "results")
    assert answer.exit_code == 0
    assert "failed" in answer.stdout
    assert "missing" in answer.stdout


def test_a_damaged_manifest_is_told_by_status(home):
    folder = home / "results/tiny/german/small/seed-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    answer = ask("status", "--results", home / "results")
    assert answer.exit_code == 1
    assert "manifest.json is not JSON" in answer.stderr


def test_model_prepare_tells_where_the_model_is(monkeypatch):
    monkeypatch.setattr(embedded, "prepare", lambda: Path("/models/embedded"))
    assert ask("model", "prepare").stdout == "/models/embedded\n"


def test_model_prepare_tells_what_is_missing(monkeypatch):
    def missing():
        raise StudyError("Install it.")

    monkeypatch.setattr(embedded, "prepare", missing)
    answer = ask("model", "prepare")
    assert (answer.exit_code, answer.stderr) == (1, "Install it.\n")


def test_a_typo_ends_at_once_in_a_real_process(tmp_path):
    path = tmp_path / "slip.yaml"
    path.write_text("study: slip\ncultures: [german]\nmodels: [smollm2-135m]\nsede: [1]\n")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "clca_utils", "run", str(path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert time.monotonic() - began < 5
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no key 'sede'; did you mean 'seeds'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_imports_nothing_heavy():
    code = (
        "import sys, clca_utils.cli\n"
        "print([m for m in ('torch', 'transformers', 'papermill') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def people(tmp_path):
    """Return a made-up file of respondents."""
    path = tmp_path / "people.csv"
    path.write_text(
        "D_INTERVIEW,B_COUNTRY_ALPHA,W_WEIGHT,Q260,Q1,Q7\n"
        "1,DEU,0.5,1,1,1\n2,DEU,1.5,2,2,2\n3,JPN,1,1,4,-1\n"
    )
    return path


@pytest.fixture
def answers(tmp_path):
    """Return a made-up file of answers."""
    path = tmp_path / "answers.csv"
    path.write_text(
        "QUESTION_ID,PARTICIPANT_ID,SCORE\nQ1,1,1\nQ1,2,1\nQ1,3,4\nQ7,1,never\nQ7,3,1\nQ999,1,1\n"
    )
    return path


def test_survey_check_tells_what_microdata_holds(people, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    answer = ask("survey", "check", people)
    assert answer.exit_code == 0
    lines = [[cell.strip() for cell in x.split("│")[1:-1]] for x in answer.stdout.splitlines()]
    germany, japan = (line for line in lines if line and line[0] in ("DEU", "JPN"))
    assert germany[1:4] == ["2", "True", "2"]
    assert japan[1:4] == ["1", "False", "1"]
    assert japan[4] == "Q2, Q3, Q4, Q5, Q6, Q7, … (52)"
    assert answer.stdout.endswith(
        "holds 3 respondents of 2 countries; of the 53 items 1 to 2 can be compared, depending on "
        "the country.\n"
    )


def test_survey_check_tells_how_far_aggregates_can_be_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    path = tmp_path / "shares.csv"
    values = {item.qid for item in load_items("values")}
    of_map = next(item for item in load_items("all") if item.qid not in values)
    codes = range(1, len(of_map.options) + 1)
    path.write_text(
        "qid,country,option,share,n,tier\nQ7,DEU,1,0.25,9,A\nQ7,DEU,2,0.75,9,A\n"
        "Q7,GBR,1,0.5,9,D\nQ7,GBR,2,0.5,9,D\nQ1,GBR,1,1,9,A\n"
        + "".join(f"{of_map.qid},GBR,{code},{float(code == 1)},9,A\n" for code in codes)
    )
    answer = ask("survey", "check", path)
    assert answer.exit_code == 0
    lines = [[cell.strip() for cell in x.split("│")[1:-1]] for x in answer.stdout.splitlines()]
    assert ["DEU", "1", "1", "0", "43", "0", "0", "A"] in lines
    assert ["GBR", "1", "0", "1", "42", "1", "1", "A, D"] in lines
    assert "holds the shares of 2 countries, but no single people" in answer.stdout
    assert "of the 44 items (those of the cultural map apart) 1 to 1 can be" in answer.stdout
    assert "map items of 9" in answer.stdout


def test_survey_score_sets_answers_beside_references(people, answers, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    out = tmp_path / "table.csv"
    answer = ask("survey", "score", answers, "--respondents", people, "--out", out)
    assert answer.exit_code == 0
    rows = {
        x.split("│")[1].strip(): x.split("│")[2:-1] for x in answer.stdout.splitlines() if "│" in x
    }
    # Q1: two of three answered as the people themselves; uniform 1/4, majority 1/3; no two people
    # answered alike, so neither do halves of them
    assert [cell.strip() for cell in rows["Accuracy"]] == [
        "higher",
        "0.667",
        "0.000",
        "0.250",
        "0.333",
    ]
    assert [cell.strip() for cell in rows["Q7"]] == ["0", "1", "", "", "", ""]
    assert (
        "6 answers: 3 compared (items: 1), 1 invalid, 1 without an answer of the participant's "
        "own, 1 to items that are unknown or without data.\n"
    ) in answer.stdout
    header, q1, q7 = out.read_text().splitlines()
    assert header.startswith("qid,topic,answered,invalid,unmatched,js_distance")
    assert q1.startswith("Q1,important in life,3,0,0,")
    assert q7.startswith("Q7,child qualities,0,1,1,,")


def test_survey_score_takes_one_country_or_the_shipped_shares(people, answers):
    answer = ask("survey", "score", answers, "--respondents", people, "--country", "JPN")
    assert "6 answers: 1 compared (items: 1)" in answer.stdout
    answer = ask("survey", "score", answers, "--country", "jpn")
    assert "6 answers: 4 compared (items: 2)" in answer.stdout
    assert answer.stdout.startswith("JPN: 2 of 2 items compared (tier A, n ")
    assert "nearest" in answer.stdout
    # with shares there are no participants who could lack an answer
    assert "participant's own" not in answer.stdout


def test_survey_score_tells_that_few_answers_lie_further(tmp_path):
    path = tmp_path / "answers.csv"
    rows = "".join(f"Q1,{i},{1 + i % 2}\n" for i in range(30)) + "Q7,1,1\n"
    path.write_text("qid,respondent,score\n" + rows)
    answer = ask("survey", "score", path, "--country", "DEU")
    assert "Note: 1 of the items have fewer than 30 answers" in answer.stdout
    path.write_text("qid,respondent,score\n" + rows.replace("Q7,1,1\n", ""))
    assert "fewer than" not in ask("survey", "score", path, "--country", "DEU").stdout


@pytest.mark.usefixtures("people", "answers")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "none.csv"], "none.csv is missing"),
        (["check", "answers.csv"], "isn't a file of people's answers"),
        (["score", "people.csv"], "QUESTION_ID: the column is missing"),
        (["score", "answers.csv"], "name the one that the answers are scored against, among AND"),
        (
            ["score", "answers.csv", "--respondents", "people.csv", "--country", "fra"],
            "--country: ",
        ),
        (["score", "answers.csv", "--items", "none.yaml"], "none.yaml is missing"),
    ],
)
def test_a_slip_about_the_survey_is_a_sentence(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    answer = ask("survey", *arguments)
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert told in answer.stderr
    assert answer.stderr.count("\n") == 1
