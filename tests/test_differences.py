"""Two runs side by side."""

import pytest

from clca_utils.differences import metric_differences, parameter_differences
from clca_utils.files import StudyError, write_json, write_metrics


def write_run(folder, parameters, metrics):
    record = {
        "key": "k", "notebook": "n", "commit": None, "parameters": parameters,
        "inputs": {}, "outputs": {}, "seconds": 1, "finished": "2026-11-30T00:00:00Z",
    }  # fmt: skip
    write_json(folder / "manifest.json", {"stages": {"04_fine_tuning": record}})
    write_metrics(folder, "04_fine_tuning", metrics)
    return folder


def test_what_differs_is_told_and_what_is_equal_is_not(tmp_path):
    one = write_run(
        tmp_path / "one", {"epochs": 1, "seed": 1, "run_dir": "a"}, {"loss": 2.0, "n": 3}
    )
    other = write_run(
        tmp_path / "other",
        {"epochs": 2, "seed": 1, "run_dir": "b"},
        {"loss": 1.5, "n": 3, "new": 1},
    )
    assert parameter_differences(one, other).to_dict("records") == [
        {"stage": "04_fine_tuning", "name": "epochs", "first": "1", "second": "2"}
    ]
    found = metric_differences(one, other).set_index("name")
    assert list(found.index) == ["loss", "new"]
    assert found.loc["loss", "change"] == -0.5
    assert found.loc["new", ["first", "change"]].isna().all()
    assert parameter_differences(one, one).empty
    assert metric_differences(one, one).empty


def test_a_folder_without_a_run_is_told(tmp_path):
    one = write_run(tmp_path / "one", {}, {})
    with pytest.raises(StudyError, match="nothing holds no finished stage"):
        parameter_differences(one, tmp_path / "nothing")
