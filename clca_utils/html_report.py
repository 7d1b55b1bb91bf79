"""A study's results folder as one HTML file: to open anywhere, to read on a phone, to mail.

Nothing is computed anew: sentences, figures, tables and the account of how it all came about are
read from what the stages wrote, so the same folder gives the same bytes. Nothing is loaded from
elsewhere either: figures are in the file, and a policy in it forbids the rest. What a file says is
text, whatever it looks like, and the folders of the machine that made it are not told.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from clca_utils.comparison import data_note
from clca_utils.controls import conclusion
from clca_utils.crossing import crossing
from clca_utils.files import DATA, StudyError, shown, write_text
from clca_utils.runner import Manifest, Record, read_manifest
from clca_utils.study_tables import of_the_method, run_folders, seed_of_run
from clca_utils.uncertainty import sentence

TEMPLATE = "report.html.j2"

TITLES = {
    "study": "Distance to the people, run by run",
    "controls": "The method beside its controls",
    "ablations": "What each part is worth",
    "scaling": "Distance and the model's size",
    "surprise_matrix": "Every adapter on every conversation",
    "people_matrix": "Every adapter on every people",
    "most_moved_items": "The items that moved most",
    "heat_map": "Every measure",
    "published": "Beside the paper's numbers",
    "distance": "Distance to the people",
    "moved_items": "Distance, item by item",
    "distribution": "Answers, item by item",
    "calibration": "The model's shares beside the people's",
    "position": "Liking for a position",
    "map": "On the cultural map",
    "scenarios": "Scenarios",
    "dialogues": "Dialogues",
    "judge_agreement": "How good the judges are",
    "intents": "Intents",
    "intent_agreement": "How good the annotator is",
    "loss": "Training loss",
    "held_out": "Surprise at texts not learnt from",
}
"""What a figure is called, by its file's name or how that begins, in reading order."""

CAPTIONS = {
    "main": "The method's models, as a paper would print them: distances to the people before and "
    "after training with 95 % intervals over the items, and the lines to read them against.",
    "summary": "Every culture and model before and after training: mean Jensen-Shannon distances "
    "to the people, seeds as replicates, the change with its intervals over the items and over the "
    "seeds, and its p value, corrected for the number of rows (Holm).",
    "crossing": "Every set of answers beside guessing evenly, and what the answers are made of. "
    "First: the share that falls to whichever option is read first. Alignment: whether what tells "
    "options apart points where the people do, from 1, the same way, to -1, the opposite.",
    "controls": "The method beside each of its controls, item by item: the difference of the "
    "distances is negative where the method is closer to the people.",
    "ablations": "The method beside its variants over all cultures: the difference is the method's "
    "distance minus the variant's, so below 0 the method is closer to the people.",
    "scaling": "Distances before and after training and the number of the model's parameters.",
    "dataset_statistics": "What was learnt from, by culture; last, what was read from the paper.",
    "moved_items": "How each item's distance to the people changed.",
    "published": "This study's numbers beside those read from the paper, which measure not quite "
    "the same.",
    "exams": "What each model expected of texts nobody learnt from (perplexity) and knew (share of "
    "easy questions answered right), before and after training: means over runs.",
    "surprise_advantage": "How much more an adapter lowered the surprise at its own culture's "
    "held-out conversations than other cultures' adapters did (negative: more), in nats a token.",
    "surprise_matrix": "The change of surprise at each culture's held-out conversations, by the "
    "culture that an adapter learnt, in nats a token.",
    "people_advantage": "How much further an adapter moved the answers towards its own culture's "
    "people than other cultures' adapters did (negative: further).",
    "people_matrix": "The change of the distance to each people, by the culture that an adapter "
    "learnt.",
    "runs": "Every number that the stages measured, run by run.",
}
"""What a table of the study shows, by its file's name, in reading order."""

FIGURE_BYTES = 7_000_000
"""How much the runs' figures may weigh before the rest is left out: what is left for text and
the study's own figures keeps the file below 10 MB, which most mail servers take."""

WIDE, CELLS = 24, 12_000
"""A table of more columns than rows is turned on its side if it has more than so many columns, and
cut after so many cells."""

OWN = {"culture", "model", "seed"}
"""Parameters that say which run it is, and so are not told as the study's settings; nor are those
that say where a folder is."""

COVERAGE = Path("tables") / "coverage.csv"

ROOTED = re.compile(
    r"(?<![\w.:/\\%+…<-])(?:file:/+|[A-Za-z]:[\\/]+|\\\\|/(?=[\w.]))"
    r"(?:[^\s\"'<>|:/\\]+[/\\]+)*"
)
"""The root and the folders of an absolute path within a text."""


ORIGIN = {"commit", "dirty", "python", "platform", "packages"}
"""What a manifest says of the code and packages that a folder's stages last ran with."""


class Shown(NamedTuple):
    """A figure: its title, caption and alternative text, and the picture itself."""

    title: str
    caption: str
    alternative: str
    picture: Markup
    width: int
    height: int


class Table(NamedTuple):
    """A table: its title and caption, rows of cells (the first is the head) and a link to all."""

    title: str
    caption: str
    rows: list[tuple[str, ...]]
    note: str
    link: tuple[str, str]


class Run(NamedTuple):
    """A run: what it is called, what it found, and where the rest of it is (names, addresses)."""

    name: str
    told: list[str]
    figures: list[Shown]
    left_out: list[tuple[str, str]]
    notebooks: list[tuple[str, str]]
    manifest: list[tuple[str, str]]
    stages: dict[str, Record]


def write_report(study: Path, out: Path | None = None) -> Path:
    """Write a study as one HTML file and return where it is.

    Args:
        study: The study's results folder.
        out: The file; by default report.html in the folder. Links lead from it to the notebooks
            and tables, so they hold while it stays where it was written.

    Raises:
        StudyError: The folder holds no run, or a file of it can't be read.
    """
    study = study.absolute()
    target = (out or study / "report.html").absolute()
    if target.is_dir():
        raise StudyError(f"{shown(target)} is a folder: give --out a file, as in report.html.")
    environment = Environment(
        loader=FileSystemLoader(DATA), autoescape=True, undefined=StrictUndefined,
        finalize=_without_folders, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template(TEMPLATE).render(**contents(study, target.parent))
    write_text(target, page + "\n")
    return target


def contents(study: Path, base: Path) -> dict[str, Any]:
    """Return what the template shows.

    Args:
        study: The study's results folder.
        base: The report's folder, from where links lead.
    """
    folders = run_folders(study)
    manifests = {folder: read_manifest(folder) for folder in [*folders, study]}
    stages = {folder: manifest.stages for folder, manifest in manifests.items()}
    names = {folder: _named(folder, study) for folder in folders} | {study: "the whole study"}
    origins: dict[str, tuple[Manifest, list[str]]] = {}
    for folder, name in names.items():
        origin = manifests[folder]
        if origin.model_fields_set:  # there is one
            key = origin.model_dump_json(include=ORIGIN)
            origins.setdefault(key, (origin, []))[1].append(name)
    parts = [folder.relative_to(study).parts for folder in folders]
    drawn = light_enough(study, folders)
    return {
        "name": manifests[study].study or manifests[folders[0]].study or study.name,
        "made_of": {
            "Cultures": _each(culture for culture, _, _ in parts),
            "Models": _each(label.partition("+")[0] for _, label, _ in parts),
            "Controls": _each(label.partition("+")[2] for _, label, _ in parts) or "none",
            "Seeds": ", ".join(map(str, sorted({seed_of_run(folder) for folder in folders}))),
            "Runs": str(len(folders)),
        },
        "finished": max((one.finished for done in stages.values() for one in done.values()),
                        default=None),
        "told": headlines(study),
        "figures": [shown_figure(path)
                    for path in _in_order((study / "figures").glob("*.png"), TITLES)],
        "tables": study_tables(study / "tables", base),
        "notebooks": _links(sorted(study.glob("*.ipynb")), base),
        "runs": [_run(study, folder, base, stages[folder], drawn[folder]) for folder in folders],
        "whole": stages[study],
        "manifest": _manifest(study, base),
        "settings": settings(stages[folder] for folder in folders),
        "origins": list(origins.values()),
        "times": wall_times({name: stages[folder] for folder, name in names.items()}),
    }  # fmt: skip


def headlines(study: Path) -> dict[str, list[str]]:
    """Return what notebook 06 says of its tables, in whole sentences, under a heading each.

    A study whose tables aren't there yet has nothing to say under their heading.
    """
    tables = study / "tables"
    method = [study / name for name in of_the_method(study)]
    countries = {folder.parts[-3]: _country(folder) for folder in method}

    def changed(table: pd.DataFrame) -> list[str]:
        mine = table[~table["model"].astype(str).str.contains("+", regex=False)]
        rows = [row for _, row in mine.iterrows()]
        countries_of = [countries.get(str(row["culture"])) or str(row["culture"]) for row in rows]
        return [
            f"{row['culture']}, {row['model']}: {sentence(row, country)}"
            for row, country in zip(rows, countries_of, strict=True)
        ]

    notes = [_told(folder / COVERAGE, lambda table: [data_note(table)]) for folder in method]
    told = {
        "Before and after training": _told(tables / "summary.csv", changed),
        "Across the uniform line?": _told(tables / "crossing.csv", lambda t: [crossing(t)]),
        "Beside the controls": _told(
            tables / "controls.csv", lambda t: conclusion(t) or ["The study ran no control."]
        ),
        "What the comparison rests on": list(dict.fromkeys(chain(*notes))),
    }
    return {heading: said for heading, said in told.items() if said}


def shown_figure(path: Path) -> Shown:
    """Return a figure's PNG, made as light as its looks allow, with its words.

    Figures hold few colours: a palette of 256 makes a third of the bytes and no visible difference.

    Raises:
        StudyError: The file is not a picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            flat = Image.new("RGB", image.size, "white")
            flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
            own = str(image.info.get("Description", ""))
    except (OSError, SyntaxError) as error:
        raise StudyError(f"{shown(path)} is not a picture ({error}); delete it, rerun.") from None
    light = io.BytesIO()
    flat.quantize(256, dither=Image.Dither.NONE).save(light, "PNG", optimize=True)
    data = min(light.getvalue(), path.read_bytes(), key=len)
    title = TITLES.get(_key(path.stem), _words(path.stem))
    part = path.stem.removeprefix(_key(path.stem)).strip("_")
    title += f": {_words(part).lower()}" if part else ""
    first = re.split(r"(?<=\.) ", own, maxsplit=1)[0]
    picture = Markup("data:image/png;base64,") + base64.b64encode(data).decode()
    return Shown(title, own, f"{title}. {first}".strip(), picture, *flat.size)


def study_tables(folder: Path, base: Path) -> list[Table]:
    """Return the tables of a folder's CSV files, known ones first, empty ones left out."""
    found = []
    for path in _in_order(folder.glob("*.csv"), CAPTIONS):
        table = _read(path)
        if table.empty:
            continue
        columns = [(_spaced(str(name)), *_cells(table[name])) for name in table]
        rows = list(zip(*columns, strict=True))
        most = max(1, CELLS // len(rows[0]))
        note = f"The first {most} of {len(table)} rows." if most < len(table) else ""
        is_wide = len(rows[0]) > max(WIDE, len(table))
        kept = list(zip(*rows[: most + 1], strict=True)) if is_wide else rows[: most + 1]
        title, caption = _words(path.stem), CAPTIONS.get(path.stem, "")
        found.append(Table(title, caption, kept, note, *_links([path], base)))
    return found


def settings(stages: Iterable[Mapping[str, Record]]) -> dict[str, dict[str, str]]:
    """Return every stage's parameters, in words; where runs differ, all of their values."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for done in stages:
        for stage, record in sorted(done.items()):
            for name in record.parameters.keys() - OWN:
                value = record.parameters[name]
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                found.setdefault(stage, {}).setdefault(name, {})[text or '""'] = None
    return {
        stage: {
            name: " | ".join(values)
            for name, values in sorted(parameters.items())
            if not name.endswith("_dir")
        }
        for stage, parameters in sorted(found.items())
    }


def wall_times(stages: Mapping[str, Mapping[str, Record]]) -> list[tuple[str, ...]]:
    """Return how many seconds every stage took, as a table's rows; the first is its head."""
    names = sorted({stage for done in stages.values() for stage in done})
    rows = [("", *names, "all")]
    for run, done in stages.items():
        spent = [done[stage].seconds if stage in done else None for stage in names]
        all_in_all = sum(seconds for seconds in spent if seconds is not None)
        rows.append((run, *("" if x is None else f"{x:.1f}" for x in [*spent, all_in_all])))
    return rows


def light_enough(study: Path, folders: Sequence[Path]) -> dict[Path, list[Shown]]:
    """Return the figures of the runs that fit into the file, run by run.

    The method's come first, and of each culture and model the first seeds; once a run's figures
    would be too many, they and all that follow are left out.
    """
    found: dict[Path, list[Shown]] = {}
    left = FIGURE_BYTES
    for folder in sorted(folders, key=lambda one: ("+" in one.parent.name, seed_of_run(one))):
        drawn = [shown_figure(path) for path in run_pictures(study, folder)] if left > 0 else []
        left -= sum(len(one.picture) for one in drawn)
        found[folder] = drawn if left > 0 else []
    return found


def run_pictures(study: Path, folder: Path) -> list[Path]:
    """Return a run's figures: as notebook 06 drew them, else as its own stages did."""
    redrawn = study / "figures" / folder.relative_to(study)
    by_name = {
        path.name: path for place in (folder / "figures", redrawn) for path in place.glob("*.png")
    }
    return _in_order(by_name.values(), TITLES)


def _run(
    study: Path, folder: Path, base: Path, stages: dict[str, Record], drawn: list[Shown]
) -> Run:
    def changed(table: pd.DataFrame) -> list[str]:
        rows = table[table["measure"] == "js_distance"]
        return [sentence(row, _country(folder)) for _, row in rows.iterrows()]

    return Run(
        name=_named(folder, study),
        told=_told(folder / "tables" / "changes.csv", changed),
        figures=drawn,
        left_out=[] if drawn else _links(run_pictures(study, folder), base),
        notebooks=_links(sorted(folder.glob("*.ipynb")), base),
        manifest=_manifest(folder, base),
        stages=dict(sorted(stages.items())),
    )


def _named(folder: Path, study: Path) -> str:
    culture, label, _ = folder.relative_to(study).parts
    return f"{culture}, {label}, seed {seed_of_run(folder)}"


def _country(folder: Path) -> str:
    """Return the country a run's answers were compared with, else the culture's name."""
    told = _told(folder / COVERAGE, lambda table: [str(table["country"].iloc[0])])
    return told[0] if told else folder.parts[-3]


def _told(path: Path, tell: Callable[[pd.DataFrame], list[str]]) -> list[str]:
    """Return what there is to say of a table; nothing if it isn't there."""
    if not path.is_file():
        return []
    try:
        return tell(_read(path))
    except (KeyError, TypeError, IndexError) as error:
        raise StudyError(
            f"{shown(path)} lacks what this version reads in it ({error}): run the stage that "
            "writes it again."
        ) from None


def _read(path: Path) -> pd.DataFrame:
    try:  # what is empty was not measured; "NA" may be a country
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise StudyError(f"{shown(path)} is not a CSV table ({error}); delete it, rerun.") from None


def _cells(column: "pd.Series[Any]") -> list[str]:
    """Return a column's values as texts: whole numbers whole, others to four decimals."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return ["" if pd.isna(value) else str(value) for value in column]
    numbers = column.dropna()
    style = ".0f" if (numbers % 1 == 0).all() else ".4f"
    small = 0 if style == ".0f" else 0.00005  # would be rounded away
    return [
        "" if pd.isna(x) else f"{x:.1e}" if 0 < abs(x) < small else f"{x:{style}}" for x in column
    ]


def _in_order(paths: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Return visible files, those of the names first and in their order, then by name."""
    places = {name: place for place, name in enumerate(names)}

    def place(path: Path) -> tuple[int, str]:
        return places.get(_key(path.stem), len(places)), path.stem

    return sorted((path for path in paths if not path.name.startswith(".")), key=place)


def _key(name: str) -> str:
    """Return how a figure's name begins in `TITLES`; the rest says which part it shows."""
    return max((one for one in TITLES if f"{name}_".startswith(f"{one}_")), key=len, default=name)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _words(name: str) -> str:
    return _spaced(name).capitalize()


def _each(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value}))


def _links(paths: Iterable[Path], base: Path) -> list[tuple[str, str]]:
    """Return names and addresses of files, seen from the report's folder.

    From outside the study's folder an address would tell where that is, so there is none.
    """
    return [
        (path.name, quote(path.relative_to(base).as_posix()) if path.is_relative_to(base) else "")
        for path in paths
    ]


def _manifest(folder: Path, base: Path) -> list[tuple[str, str]]:
    return _links(folder.glob("manifest.json"), base)


def _without_folders(value: object) -> object:
    """Return a text without the folders of absolute paths in it; all else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    for path in (PurePosixPath(value), PureWindowsPath(value)):
        if path.is_absolute():
            return f"…/{path.name}"
    return ROOTED.sub("…/", value)
