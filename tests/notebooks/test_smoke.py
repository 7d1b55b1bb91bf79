"""The smoke study, run whole with the real model: what it leaves, read back."""

import json
import re
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from clca_utils import params, runner
from clca_utils.answers import condition, read_answers
from clca_utils.comparison import read_comparison
from clca_utils.dialogue import ACTIONS, Dialogue
from clca_utils.files import ROOT, read_json, read_records
from clca_utils.held_out import exam_metrics, read_examined
from clca_utils.intent import Intent
from clca_utils.items import load_items
from clca_utils.judging import Judgement, kept_dialogues
from clca_utils.measures import js_distance
from clca_utils.runner import STAGES
from clca_utils.scenario import Scenario
from clca_utils.survey import country_shares, load_marginals
from clca_utils.transformers_model import load_weights, unwarned

FIGURES = {
    "scenarios", "dialogues", "judge_agreement", "intents", "intent_agreement", "loss", "held_out",
    "distance",
    "distribution", "calibration", "position", "moved_items", "map_values",
}  # fmt: skip
CHECKED = {"paraphrase"}


def metrics(run, number: str) -> dict[str, float]:
    (path,) = (run / "metrics").glob(f"{number}_*.json")
    return read_json(path)


def executed(run):
    above = run.parents[2]
    return [*sorted(run.glob("*.ipynb")), above / "06_paper_figures.ipynb"]


def test_every_notebook_is_executed_without_an_error(smoke):
    assert [path.stem for path in executed(smoke)] == [stage.name for stage in STAGES]
    for path in executed(smoke):
        notebook = nbformat.read(path, 4)
        assert notebook.metadata.papermill.exception is None
        kinds = {out.output_type for c in notebook.cells for out in c.get("outputs", [])}
        assert "error" not in kinds
        assert kinds, "an executed notebook shows something"


def test_no_path_of_this_machine_and_no_warning_in_what_a_run_leaves(smoke):
    above = smoke.parents[2]
    texts = {".ipynb", ".json", ".jsonl", ".csv", ".svg"}
    for path in above.rglob("*"):
        if path.suffix in texts:
            text = path.read_text()
            assert str(ROOT) not in text, path
            assert not re.search(r"(/root/|/home/|/Users/|site-packages)", text), path
    for path in executed(smoke):
        assert "Warning" not in path.read_text()


def test_scenarios(smoke):
    scenarios = read_records(smoke / "scenarios.jsonl", Scenario)
    assert metrics(smoke, "01")["scenarios"] == len(scenarios) == 3
    assert len({one.domain for one in scenarios}) == 3
    for one in scenarios:
        assert one.country == "Germany"
        assert one.descriptors
        assert one.customs
        assert "{" not in one.model_dump_json(exclude={"changes"})[1:].replace('{"', "")


def test_dialogues_and_judgements(smoke):
    dialogues = read_records(smoke / "dialogues.jsonl", Dialogue)
    judgements = read_records(smoke / "judgements.jsonl", Judgement)
    assert [one.dialogue_id for one in judgements] == [one.id for one in dialogues]
    for dialogue in dialogues:
        assert 2 <= len(dialogue.turns) <= 3
        assert {turn.action for turn in dialogue.turns} <= set(ACTIONS)
        speakers = [turn.speaker for turn in dialogue.turns]
        assert speakers[0::2] == [speakers[0]] * len(speakers[0::2])
        assert len(set(speakers)) == 2
        assert all(turn.text for turn in dialogue.turns if turn.action == "speak")
    for one in judgements:
        assert {verdict.aspect for verdict in one.verdicts} == {
            "form",
            "quality",
            "culture",
            "meta",
        }
        assert all(verdict.reason for verdict in one.verdicts)
    found = metrics(smoke, "02")
    assert found["dialogues"] == 3
    assert found["dialogues_kept"] == sum(one.kept for one in judgements) >= 1
    assert 0 < found["forced_share"] < 1
    assert 0 < found["format_mass"] <= 1


def test_every_turn_of_a_kept_dialogue_has_an_intent(smoke):
    dialogues = read_records(smoke / "dialogues.jsonl", Dialogue)
    judgements = read_records(smoke / "judgements.jsonl", Judgement)
    intents = read_records(smoke / "intents.jsonl", Intent)
    expected = [
        (talk.id, turn.index, turn.speaker)
        for talk in kept_dialogues(dialogues, judgements)
        for turn in talk.turns
    ]
    assert [(one.dialogue_id, one.turn, one.speaker) for one in intents] == expected
    for one in intents:
        assert not one.intent or one.intent.startswith(f"{one.speaker} wants to ")
        assert one.cultural == (one.confidence >= 0.5)
        assert one.cultural or not one.expectation
    assert metrics(smoke, "03")["cultural_share"] == np.mean([one.cultural for one in intents])


def test_the_adapter_loads_with_peft_and_changes_the_model(smoke):
    from peft import PeftModel

    weights = load_weights(params.model_source("smollm2-135m"))
    ids = torch.arange(100, 130)[None]
    with torch.inference_mode(), unwarned():
        before = weights(ids).logits.clone()
        after = PeftModel.from_pretrained(weights, str(smoke / "adapter"))(ids).logits
    assert (before - after).abs().max() > 1e-3
    trained = metrics(smoke, "04")
    assert trained["examples"] == 3 * metrics(smoke, "02")["dialogues_kept"]
    assert 0 < trained["tokens_learnt"] < 0.5 * trained["tokens"]
    log = pd.read_csv(smoke / "training_log.csv")
    assert trained["steps"] == len(log)
    assert np.isfinite(log["loss"]).all()


def test_the_exam_is_read_back(smoke):
    found = metrics(smoke, "04b")
    table = read_examined(smoke)
    assert set(table["variant"]) == {"before", "after"}
    assert set(table["learnt"]) == {"German"}
    assert table.groupby(["task", "variant"]).size().unstack()["after"].to_dict() == {
        "imitation": 4, "intent": 2, "question": 4, "text": 2
    }  # fmt: skip
    for name, value in exam_metrics(table, 1).items():
        assert found.get(name, np.nan) == pytest.approx(value, nan_ok=True)
    assert found["perplexity_imitation_own_after"] < found["perplexity_imitation_own_before"]
    replies = pd.read_csv(smoke / "replies.csv", keep_default_na=False)
    assert len(replies) == found["replies"] == 1
    assert replies[["written", "before", "after"]].ne("").all(axis=None)


def test_answers_before_and_after(smoke):
    answers = read_answers(smoke / "answers.parquet")
    assert set(answers["condition"]) == {"main", *CHECKED}
    main = condition(answers, "main")
    sizes = {item.qid: len(item.options) for item in load_items()}
    asked = main.groupby(["variant", "qid"], observed=True).size().unstack(0)
    assert set(asked.columns) == {"after", "before"}
    assert {qid: k * k for qid, k in sizes.items()} == asked["before"].to_dict()
    assert (asked["before"] == asked["after"]).all()
    assert (main[["logprob", "blank"]] < 0).all(axis=None)
    wide = main.set_index(["variant", "qid", "order", "option"])["logprob"].unstack(0)
    assert (wide["before"] - wide["after"]).abs().max() > 1e-3


def test_the_survey_metrics_are_those_of_the_answers(smoke):
    found = metrics(smoke, "05")
    answers = pd.read_parquet(smoke / "answers.parquet")
    main = answers[answers["condition"] == "main"]
    people = country_shares(load_marginals(), "DEU", load_items())
    readings = {"": main["logprob"] - main["blank"], "_rotated": main["logprob"]}
    for variant in ("before", "after"):
        for ending, scores in readings.items():
            mine = main.assign(p=np.exp(scores))[main["variant"] == variant]
            mine["p"] /= mine.groupby(["qid", "order"])["p"].transform("sum")
            shares = mine.groupby(["qid", "option"])["p"].mean()
            distances = [js_distance(shares[qid].to_numpy(), p) for qid, p in people.items()]
            expected = pytest.approx(np.mean(distances), abs=1e-9)
            assert found[f"js_distance_{variant}{ending}"] == expected
    assert found["items"] == 44
    assert 0 < found["js_distance_human_floor"] < found["js_distance_uniform"] < 1
    assert 0 <= found["outside_before"] <= 1


def test_what_the_place_and_the_wording_decide_is_written(smoke):
    found = metrics(smoke, "05")
    for variant in ("before", "after"):
        assert 0.1 < found[f"position_bias_{variant}"] < 0.8
        assert 0 < found[f"wording_moved_{variant}"] < 0.5


def test_position_bias_is_seen_through(smoke):
    # what design.md measured: in one fixed order the embedded model lies far beyond the uniform
    # line, and averaged over rotated orders it lies near that line
    found = metrics(smoke, "05")
    assert found["js_distance_before_fixed_order"] > found["js_distance_uniform"] + 0.1
    for reading in ("", "_rotated"):
        distance = found[f"js_distance_before{reading}"]
        assert abs(distance - found["js_distance_uniform"]) < 0.05


def test_every_figure_is_there_as_png_and_svg(smoke):
    above = smoke.parents[2]
    both = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {path.name for path in (smoke / "figures").iterdir()} == both
    redrawn = above / "figures" / smoke.relative_to(above)
    for name in both:
        assert (redrawn / name).read_bytes() == (smoke / "figures" / name).read_bytes()
    for name in ("study", "heat_map", "map_values"):
        assert (above / "figures" / f"{name}.png").stat().st_size > 5000
        assert (above / "figures" / f"{name}.svg").stat().st_size > 5000


def test_the_tables_of_the_study(smoke):
    above = smoke.parents[2]
    summary = pd.read_csv(above / "tables" / "summary.csv")
    assert summary[["culture", "model", "seeds"]].to_numpy().tolist() == [
        ["german", "smollm2-135m", 1]
    ]
    assert summary["after"][0] == pytest.approx(metrics(smoke, "05")["js_distance_after"])
    seen = read_comparison(smoke / "tables")
    assert seen.country == "Germany"
    assert seen.note == (
        "DEU: 44 of 44 items compared (tier A, n 1391 to 1527). Asked as a person living in "
        "Germany."
    )


def test_figures_are_redrawn_without_a_model():
    code = "import sys, clca_utils.report; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_the_manifest_tells_what_was_run(smoke):
    manifest = read_json(smoke / "manifest.json")
    assert list(manifest["stages"]) == [stage.name for stage in STAGES[:6]]
    assert manifest["seed"] == 1
    assert manifest["packages"]["torch"].startswith("2.13.0")
    assert None not in manifest["packages"].values()
    for record in manifest["stages"].values():
        assert record["seconds"] > 0
        assert record["outputs"]
    assert sum(record["seconds"] for record in manifest["stages"].values()) > 10


def test_nothing_temporary_is_left(smoke):
    assert {path.name for path in smoke.rglob(".*")} == {".locks"}


def test_a_second_run_skips_everything(smoke, results, capsys):
    runner.run("smoke", results)
    assert capsys.readouterr().out.count("skipped, nothing changed") == 7


def test_executed_notebooks_are_json_that_jupyter_opens(smoke):
    for path in executed(smoke):
        assert json.loads(path.read_text())["nbformat"] == 4
