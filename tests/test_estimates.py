"""How long steps will take: in proportion to the most alike that finished."""

import pytest

from clca_utils import params
from clca_utils.estimates import Took, estimate, finished_steps, in_words, kind, work
from clca_utils.files import write_json
from clca_utils.planning import plan

STUDY = {"study": "tiny", "cultures": ["german"], "models": ["smollm2-135m"]}


def planned(tmp_path, **changes: object):
    return plan(params.Study.model_validate(STUDY | changes), tmp_path)


def finish(steps, seconds: float) -> None:
    """Leave manifests as if every step had finished."""
    folders = {}
    for step in steps:
        record = {
            "key": "k", "notebook": "n", "commit": None, "parameters": step.parameters,
            "inputs": {}, "outputs": {}, "seconds": seconds, "finished": "2026-11-30T00:00:00Z",
        }  # fmt: skip
        folders.setdefault(step.folder, {})[step.stage.name] = record
    for folder, stages in folders.items():
        write_json(folder / "manifest.json", {"stages": stages})


def test_the_same_study_takes_the_same_time(tmp_path):
    steps = planned(tmp_path)
    finish(steps, 30)
    told = estimate(steps, finished_steps([tmp_path / "tiny"]))
    assert told == {step.name: pytest.approx(30) for step in steps}


@pytest.mark.parametrize(
    ("changes", "longer"),
    [
        ({"scenario_adaptation": {"n_scenarios": 6}}, {"01": 2, "02": 2, "03": 2, "04": 2}),
        ({"dialogue_simulation": {"max_turns": 6}}, {"02": 2, "03": 2, "04": 2}),
        ({"fine_tuning": {"epochs": 3}}, {"04": 3}),
        ({"held_out": {"conversations": 4}}, {"04b": 3}),
        ({"wvs_analysis": {"prompt": "persona", "checks": []}}, {"05": 4 * 2 / 3}),
        ({"wvs_analysis": {"orders": "first"}}, {"05": 1 / 4}),
    ],
)
def test_more_to_do_takes_longer_where_it_is_done(tmp_path, changes, longer):
    finish(planned(tmp_path / "old"), 30)
    steps = planned(tmp_path / "new", **changes)
    told = estimate(steps, finished_steps([tmp_path / "old" / "tiny"]))
    assert {step.stage.number: told[step.name] / 30 for step in steps} == pytest.approx(
        {step.stage.number: longer.get(step.stage.number, 1) for step in steps}
    )


def test_the_most_alike_counts_and_of_several_the_median():
    step = ("05_wvs_analysis", "m", "")
    known = [Took(step, 10, 100), Took(step, 20, 210), Took(step, 20, 190), Took(step, 20, 900)]
    given = {"model": "m", "n_respondents": 6, "prompt": "persona", "orders": "first", "checks": []}

    class Step:
        name, reads, folder, parameters = "one", (), "", given
        stage = type("Stage", (), {"name": "05_wvs_analysis"})

    assert work("05_wvs_analysis", given) == 12
    assert estimate([Step], known)["one"] == pytest.approx(120)
    given["n_respondents"] = 9
    assert estimate([Step], known)["one"] == pytest.approx(210 * 18 / 20)


def test_of_another_model_or_source_nothing_is_known(tmp_path):
    steps = planned(tmp_path)
    finish(steps, 30)
    known = finished_steps([tmp_path / "tiny"])
    other = planned(tmp_path, models=["llama-3.1-8b"])
    assert {name.split("/")[-1] for name in estimate(other, known)} == {"06_paper_figures"}
    authored = planned(tmp_path, fine_tuning={"learn_from": "authored"})
    assert "german/smollm2-135m/seed-1/04_fine_tuning" not in estimate(authored, known)
    assert kind("04_fine_tuning", {"model": "m", "learn_from": "both"})[2] == "both"


def test_what_an_earlier_version_left_is_passed_over(tmp_path):
    steps = planned(tmp_path)
    finish(steps, 30)
    path = steps[0].folder / "manifest.json"
    path.write_text(path.read_text().replace('"n_scenarios"', '"number"'))
    assert {one.kind[0] for one in finished_steps([tmp_path / "tiny"])} == {
        "04b_held_out", "05_wvs_analysis", "06_paper_figures"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "told"), [(4.4, "4 s"), (119, "119 s"), (600, "10 min"), (12600, "3.5 h")]
)
def test_times_in_words(seconds, told):
    assert in_words(seconds) == told
