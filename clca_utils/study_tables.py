"""All runs of a study as tables, each file read once: what stage 06 works on.

A run is kept in `<culture>/<model>/seed-<n>`, and a control's in
`<culture>/<model>+<variant>/seed-<n>`: a variant stands with the model everywhere.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clca_utils.comparison import read_table
from clca_utils.files import StudyError, read_json, shown
from clca_utils.shares import READINGS

RUN = ["culture", "model", "seed"]
"""What makes a run."""


def run_folders(study: Path, runs: Sequence[str] = ()) -> list[Path]:
    """Return a study's run folders, <culture>/<model>[+<variant>]/seed-<n>, in order.

    Args:
        study: The study's folder.
        runs: Which of them count, relative to it; by default all that are there.

    Raises:
        StudyError: There is none.
    """
    there, wanted = [path.parent for path in study.glob("*/*/seed-*/metrics")], set(runs)
    folders = [path for path in there if not runs or path.relative_to(study).as_posix() in wanted]
    if not folders:
        raise StudyError(f"{shown(study)} holds no run: run the study's stages 01 to 05 first.")
    return sorted(folders, key=lambda folder: (folder.parent, seed_of_run(folder)))


def of_the_method(study: Path, runs: Sequence[str] = ()) -> list[str]:
    """Return the runs of the method itself, as `run_folders` takes them, without its controls.

    Those of a study that has nothing but controls are all of them. `runs` is as for `run_folders`.
    """
    names = [path.relative_to(study).as_posix() for path in run_folders(study, runs)]
    return [name for name in names if "+" not in name] or names


def method_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the method itself, or all of them where there are only controls'."""
    control = table["model"].str.contains("+", regex=False)
    return table if control.all() else table[~control]


def by_model(table: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return a table's rows by its columns culture and model, in alphabetical order."""
    groups = table.groupby(["culture", "model"])
    return {(str(culture), str(model)): rows for (culture, model), rows in groups}


def seed_of_run(folder: Path) -> int:
    """Return the seed that a run folder is named after."""
    return int(folder.name.removeprefix("seed-"))


def folder_of(study: Path, culture: object, model: object, seed: object) -> Path:
    """Return the folder of a run."""
    return study / str(culture) / str(model) / f"seed-{seed}"


def study_table(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per run: culture, model, seed, and every metric of its stages.

    `runs` is as for `run_folders`. A metric is named as in its file; of a run whose simulator is
    another model, those of stages 01 to 03 stand in the simulator's row.
    """
    rows = []
    for folder in run_folders(study, runs):
        culture, model, _ = folder.relative_to(study).parts
        row = {"culture": culture, "model": model, "seed": seed_of_run(folder)}
        for path in sorted((folder / "metrics").glob("*.json")):
            row |= read_json(path)
        rows.append(row)
    return pd.DataFrame(rows)


def survey_tables(
    study: Path,
    name: str,
    runs: Sequence[str] = (),
    columns: list[str] | None = None,
) -> pd.DataFrame:
    """Return one table of the survey of all runs that answered it, one run's below the other's.

    Args:
        study: The study's folder.
        name: Which: a field of `comparison.Comparison`.
        runs: As for `run_folders`.
        columns: Which of its columns are read; by default all.

    Returns:
        Columns culture, model, seed and those of the table; empty where no run has answers.
    """
    found = {}
    for folder in run_folders(study, runs):
        if (folder / "tables" / "items.csv").is_file():
            culture, model, _ = folder.relative_to(study).parts
            found[culture, model, seed_of_run(folder)] = read_table(
                folder / "tables", name, columns
            )
    if not found:
        return pd.DataFrame(columns=RUN)
    return pd.concat(found, names=RUN).droplevel(-1).reset_index()


def item_distances(study: Path, runs: Sequence[str] = ()) -> pd.DataFrame:
    """Return every item's distance to the people, before and after training, of all runs.

    Returns:
        Columns culture, model, seed, qid, topic, before and after (Jensen-Shannon distances of the
        main reading, base 2); rows in the order of the runs and of their items. Empty where no run
        has answers.
    """
    read = ["variant", "qid", "topic", "reading", "js_distance"]
    table = survey_tables(study, "items", runs, read)
    if table.empty:
        return pd.DataFrame(columns=[*RUN, "qid", "topic", "before", "after"])
    rank = table["reading"].map({reading: rank for rank, reading in enumerate(READINGS)})
    # the main reading is the last that a run has
    table = table[rank == rank.groupby([table[name] for name in RUN]).transform("max")]
    keys = [*RUN, "qid", "topic"]
    wide = table.pivot(index=keys, columns="variant", values="js_distance")
    wide = wide.reindex(columns=["before", "after"])
    in_order = pd.MultiIndex.from_frame(table[keys].drop_duplicates())
    return wide.loc[in_order].rename_axis(columns=None).reset_index()
