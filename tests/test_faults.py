"""Whatever happens to a study while it runs, the next run ends as if nothing had happened."""

import shutil

import pytest
from faults import (
    SPOIL,
    Bench,
    can_mount,
    full_disk,
    killed,
    prepared,
    read_only,
    run,
    skewed,
    spoilt,
    twice,
)

from clca_utils.planning import STAGES

KILLS = 2
EACH = pytest.mark.parametrize("stage", STAGES, ids=[stage.number for stage in STAGES])


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return prepared(tmp_path_factory.mktemp("faults") / "copy", stands_in=True)


@pytest.fixture(scope="module")
def mounting(tmp_path_factory) -> None:
    if not can_mount(tmp_path_factory.mktemp("mount")):
        pytest.skip("this user may not mount a disk")


@EACH
def test_killed_at_random_a_stage_ends_with_the_same_files(bench, stage):
    _, deaths = killed(bench, stage, KILLS, seed=1)
    assert deaths.total() == KILLS


@pytest.mark.parametrize(("stage", "how"), [
    (stage, list(SPOIL)[number % len(SPOIL)]) for number, stage in enumerate(STAGES)
])  # fmt: skip
def test_a_spoilt_artefact_is_noticed_by_its_hash_named_and_made_again(bench, stage, how):
    assert "the same files" in spoilt(bench, stage, how)


@pytest.mark.parametrize("stage", STAGES[::3], ids=lambda stage: stage.number)
def test_a_full_disk_is_told_and_loses_nothing(bench, mounting, stage):
    assert "told" in full_disk(bench, stage, room=30)


@pytest.mark.parametrize("stage", STAGES[1::3], ids=lambda stage: stage.number)
def test_a_closed_folder_is_told_and_loses_nothing(bench, mounting, stage):
    assert "told" in read_only(bench, stage)


@pytest.mark.parametrize(("stage", "seconds"), [(STAGES[1], 0), (STAGES[4], 4e9)])
def test_no_clock_has_to_be_right(bench, stage, seconds):
    assert "skipped" in skewed(bench, stage, seconds)


@pytest.mark.parametrize("stage", STAGES[::3], ids=lambda stage: stage.number)
def test_two_runners_of_a_stage_do_its_work_once(bench, stage):
    assert "nothing doubled" in twice(bench, stage)


def test_a_spoilt_manifest_is_told_by_name_and_its_stages_run_again(bench):
    shutil.copytree(bench.copy / "whole", bench.copy / "manifest")
    path = bench.copy / "manifest/tiny/german/smollm2-135m/seed-1/manifest.json"
    path.write_bytes(path.read_bytes()[:-200])
    code, printed = run(bench, "manifest")
    assert code == 1
    assert "seed-1/manifest.json is not JSON" in printed
    path.unlink()
    assert run(bench, "manifest")[0] == 0
