"""The validity checks that the smoke study leaves out, on the held-out half of the items."""

import pandas as pd
import pytest
from cells import run_cells

from clca_utils.answers import condition, read_answers
from clca_utils.files import ROOT, read_json
from clca_utils.items import load_items

CHECKS = ["retest", "prompts", "cultures"]
CHECKED = {
    "prompt: none", "prompt: descriptors", "prompt: persona", "prompt: native", "as German",
    "as Japanese", "as Mexican", "retest 1", "retest 2",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(smoke, results):
    """Return the folder of a run that tests the smoke study's adapter, as a variant would."""
    folder = results / "checked"
    told = {"run_dir": folder, "adapter_dir": smoke}
    places = {name: str(path.relative_to(ROOT)) for name, path in told.items()}
    run_cells("05_wvs_analysis", **places, item_set="held-out", orders="first",
              checks=CHECKS)  # fmt: skip
    return folder


def test_only_the_held_out_items_are_asked_and_every_condition_is(run):
    answers = read_answers(run / "answers.parquet")
    assert set(answers["qid"]) == {item.qid for item in load_items("held-out")}
    assert set(answers["condition"]) == {"main", *CHECKED}


def test_prompts_and_cultures_are_compared(run):
    found = read_json(run / "metrics/05_wvs_analysis.json")
    prompts = pd.read_csv(run / "tables" / "check_prompts.csv")
    made_up = {"persona (synthetic)", "native (synthetic)"}
    assert set(prompts["prompt"]) == {"nationality", "none", "descriptors", *made_up}
    main = prompts[prompts["prompt"] == "nationality"].set_index("variant")
    assert (main["moved"] == 0).all()
    for variant in ("before", "after"):
        distance = pytest.approx(found[f"js_distance_{variant}"], abs=1e-9)
        assert main["js_distance"][variant] == distance
        assert 0 <= found[f"retest_n_{variant}"] <= 22
        assert found[f"cultures_accuracy_{variant}"] in (0, 1 / 3, 2 / 3, 1)
    cultures = pd.read_csv(run / "tables" / "check_cultures.csv")
    assert cultures["correlation"].between(-1, 1).all()
    assert len(cultures) == 2 * 3 * 3


def test_another_run_takes_over_what_the_untrained_model_answered(run, smoke, results):
    folder = results / "taken-over"
    told = {"run_dir": folder, "adapter_dir": smoke, "before_dir": run}
    places = {name: str(path.relative_to(ROOT)) for name, path in told.items()}
    run_cells("05_wvs_analysis", **places, item_set="held-out", orders="first", checks=CHECKS)
    one, other = (read_answers(where / "answers.parquet") for where in (run, folder))
    pd.testing.assert_frame_equal(one, other)
    assert not list(folder.glob(".*"))
    assert set(condition(other, "main")["variant"]) == {"before", "after"}
