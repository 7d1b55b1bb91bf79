"""What single people answered, from a file that the user brings.

The survey's terms forbid passing its microdata on, so none ships: the user downloads the World
Values Survey, wave 7, as a csv (Haerpfer et al. 2022, doi:10.14281/18241.20), or brings
WorldValuesBench (Zhao et al. 2024, aclanthology.org/2024.lrec-main.1539), which is made of it.
Either becomes one table, a row per respondent, whose weighted shares take the place of the shipped
aggregates.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from clca_utils.files import StudyError, locate, shown
from clca_utils.items import SurveyItem

Kind = Literal["aggregates", "wvs", "worldvaluesbench"]
Floats = npt.NDArray[np.float64]

PERSONA = {
    "settlement": "H_SETTLEMENT",
    "region": "N_REGION_ISO",
    "gender": "Q260",
    "age": "Q262",
    "born_here": "Q263",
    "marital": "Q273",
    "household": "Q270",
    "education": "Q275",
    "occupation": "Q281",
    "employment": "Q279",
    "social_class": "Q287",
}
"""What is known of a respondent, and the survey's variable that holds it."""

RANGES = {
    "settlement": (1, 5),
    "gender": (1, 2),
    "age": (14, 120),
    "born_here": (1, 2),
    "marital": (1, 6),
    "household": (1, 30),
    "education": (0, 8),
    "occupation": (0, 10),
    "employment": (1, 8),
    "social_class": (1, 5),
}
"""First and last valid code of each persona variable (WVS-7 master questionnaire; age in years,
household in people). A region is text, not a code."""

TIER = "microdata"
"""Tier of aggregates that are computed from the user's microdata."""

SHORT_SCALE_N = 100
"""From how many respondents on two unused ends tell that a country was asked on a shorter scale."""

ID, COUNTRY, WEIGHT = "D_INTERVIEW", "B_COUNTRY_ALPHA", "W_WEIGHT"
AGGREGATES = {"QID", "COUNTRY", "OPTION", "SHARE"}
EXPECTED = (
    "expected a csv of aggregates (columns qid, country, option, share), the World Values Survey's "
    f"own wave 7 csv (columns {ID}, {COUNTRY}), or WorldValuesBench's folder with "
    "full_demographic_qa.tsv and full_value_qa.tsv"
)

ISO3 = {"MOR": "MAR"}
"""Country codes of the survey's codebook that aren't ISO 3166-1 alpha-3."""

COUNTRY_NAMES = {
    "Hong Kong SAR": "HKG",
    "Macao SAR": "MAC",
    "Russia": "RUS",
    "Sweden": "SWE",
    "Thailand": "THA",
    "356": "IND",
}
"""Countries whose name under B_COUNTRY isn't found under B_COUNTRY_ALPHA in WorldValuesBench's
codebook.json; India (ISO 3166-1 numeric 356), of a later release of the survey, isn't in it."""


class _Header(NamedTuple):
    """The first line of a table: its separator and column names, in upper case, no labels."""

    separator: str
    names: list[str]


def kind_of(path: str | Path) -> Kind:
    """Tell what a file of people's answers is.

    Raises:
        StudyError: It is of no known kind; what was expected of each is named.
    """
    source = _there(path)
    if source.is_dir():
        _worldvaluesbench_files(source)
        return "worldvaluesbench"
    header = _header(source)
    if set(header.names) >= AGGREGATES:
        return "aggregates"
    if COUNTRY in header.names or (ID in header.names and header.separator != "\t"):
        return "wvs"
    if ID in header.names:
        return "worldvaluesbench"
    raise StudyError(f"{shown(source)} isn't a file of people's answers: {EXPECTED}.")


def load_microdata(
    path: str | Path, items: Sequence[SurveyItem], countries: Sequence[str] = ()
) -> pd.DataFrame:
    """Read what single people answered.

    Ids that occur more than once are dropped, every row of them, so that answers can be joined by
    respondent without doubt (release 5.0 of wave 7 repeats 858069901, which WorldValuesBench drops
    too). Codes below 0, outside an item's options or a persona variable's range are missing.

    Args:
        path: The survey's wave 7 csv (comma or semicolon; UTF-8, or Windows-1252, which holds
            Latin-1's letters), WorldValuesBench's folder, or one of its two tsv files.
        items: Whose answers to read; an item that isn't in the file has no column.
        countries: Three-letter codes of those to keep; all if empty.

    Returns:
        One row per respondent. Columns: respondent (int64, the survey's D_INTERVIEW), country (ISO
        3166-1 alpha-3, and NIR), weight (float64, the survey's W_WEIGHT, 1 where there is none),
        those of `PERSONA` (Int16 codes, region a string; NA: not known), and one float32 column per
        item with codes 1..k (NaN: no valid answer).

    Raises:
        StudyError: The file is of another kind, damaged, lacks a column or a country, holds no
            respondent, an id is none, or a weight is missing or negative.
    """
    source = _there(path)
    match kind_of(source):
        case "wvs":
            raw = _read_wvs(source, items)
        case "worldvaluesbench":
            raw = _read_worldvaluesbench(source, items)
        case "aggregates":
            raise StudyError(
                f"{shown(source)} holds shares of countries, not answers of single people: bring "
                "the survey's microdata."
            )
    if items and not any(item.qid in raw for item in items):
        raise StudyError(f"{shown(source)} has none of the items asked for ({items[0].qid}, …).")
    raw = _respondents(raw, shown(source), countries)
    unknown = pd.Series(np.nan, raw.index)
    columns = {
        "respondent": raw[ID].astype("int64"),
        "country": raw[COUNTRY].astype("str"),
        "weight": raw[WEIGHT],
    }
    for field, variable in PERSONA.items():
        column = raw.get(variable, unknown)
        known = field in RANGES
        columns[field] = (
            _within(column, *RANGES[field]).astype("Int16") if known else column.astype("str")
        )
    for item in items:
        if item.qid in raw:
            columns[item.qid] = _within(raw[item.qid], 1, len(item.options)).astype("float32")
    return pd.DataFrame(columns).reset_index(drop=True)


def marginals_of(people: pd.DataFrame, items: Sequence[SurveyItem]) -> pd.DataFrame:
    """Return each country's weighted shares, in the form of `survey.load_marginals`.

    The share of an option is the weight of those who chose it, divided by the weight of all with a
    valid answer. An option that nobody chose has a row with share 0. But where nobody of at least
    `SHORT_SCALE_N` respondents chose the first or the last option, the country was asked on a
    shorter scale (in wave 7, Q33 to Q35 in Argentina, Brazil, Nigeria and the United States have
    three points, coded 2 to 4): unused options then have no row, which marks the item as not
    comparable.

    Args:
        people: What `load_microdata` returns.
        items: Items; one without a column is left out, and so is one without any valid answer in a
            country.

    Returns:
        Columns qid, country, option (from 1), share, n (respondents with a valid answer,
        unweighted) and tier ("microdata").
    """
    rows = []
    for country, group in people.groupby("country"):
        weight = group["weight"].to_numpy()
        for item in items:
            if item.qid not in people:
                continue
            options = np.arange(1, len(item.options) + 1)
            chosen = group[item.qid].to_numpy()[:, None] == options
            counts, weights = chosen.sum(axis=0), weight @ chosen
            n, total = int(counts.sum()), float(weights.sum())
            if total == 0:
                continue
            short = n >= SHORT_SCALE_N and counts[0] == counts[-1] == 0
            rows += [
                (item.qid, country, int(option), float(option_weight / total), float(n), TIER)
                for option, option_weight, count in zip(options, weights, counts, strict=True)
                if count or not short
            ]
    table = pd.DataFrame(rows, columns=["qid", "country", "option", "share", "n", "tier"])
    return table.astype({"option": int, "share": float, "n": float})


def split_halves(
    people: pd.DataFrame, items: Sequence[SurveyItem], seed: int, draws: int = 200
) -> dict[str, tuple[Floats, Floats]]:
    """Split one country's respondents in random halves and return the shares of each half.

    The distance between halves is the human floor: how far two samples of the same people lie
    apart. A draw splits the respondents once for all items, so what an index over several items
    makes of the halves can be compared too. Shares are weighted as in `marginals_of`.

    Args:
        people: Rows of `load_microdata` of one country.
        items: Items; one that too few answered for each half to hold an answer is left out.
        seed: Of the draws.
        draws: How many splits.

    Returns:
        Item to the shares of the first and of the second halves, each (draws, options).
    """
    count = len(people)
    first = np.zeros((draws, count))
    first[:, : count // 2] = 1
    first = np.random.default_rng(seed).permuted(first, axis=1)
    weight = people["weight"].to_numpy()
    halves = {}
    for item in items:
        if item.qid not in people:
            continue
        codes = people[item.qid].to_numpy()
        chosen = (codes[:, None] == np.arange(1, len(item.options) + 1)) * weight[:, None]
        one, other = first @ chosen, (1 - first) @ chosen
        if count and one.sum(axis=1).min() > 0 and other.sum(axis=1).min() > 0:
            halves[item.qid] = (
                one / one.sum(axis=1, keepdims=True),
                other / other.sum(axis=1, keepdims=True),
            )
    return halves


def file_report(path: str | Path, items: Sequence[SurveyItem]) -> pd.DataFrame:
    """Tell what a file of microdata holds, country by country.

    Returns:
        Columns country, respondents, weighted (whether any weight isn't 1), items (how many have
        answers), missing_items (the others, with commas between), answered (mean share of
        respondents with a valid answer over the items that have any; NaN without any) and persona
        (how many of `PERSONA` are known of anyone).
    """
    rows = []
    for country, group in load_microdata(path, items).groupby("country"):
        known = group.reindex(columns=[item.qid for item in items]).notna().mean()
        rows.append(
            {
                "country": country,
                "respondents": len(group),
                "weighted": bool((group["weight"] != 1).any()),
                "items": int((known > 0).sum()),
                "missing_items": ", ".join(known.index[known == 0]),
                "answered": float(known[known > 0].mean()),
                "persona": int(group[list(PERSONA)].notna().any().sum()),
            }
        )
    return pd.DataFrame(rows)


def decoded(content: bytes) -> str:
    """Decode UTF-8 or, where it isn't, Windows-1252, which holds Latin-1's letters."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def proper_ids(ids: "pd.Series[float]") -> "pd.Series[bool]":
    """Tell which are ids: whole numbers from 0 that a float holds exactly (below 2^53)."""
    return ids.between(0, 2**53, inclusive="left") & (ids % 1 == 0)


def few(names: Sequence[str], most: int = 8) -> str:
    """Name a few, and say how many there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _there(path: str | Path) -> Path:
    """Return where the file or folder is."""
    source = locate(path)
    if not source.exists():
        raise StudyError(f"{shown(source)} is missing: mend the path of the people's answers.")
    return source


def _respondents(raw: pd.DataFrame, name: str, countries: Sequence[str]) -> pd.DataFrame:
    """Return the rows to keep: each id once, the countries asked for, proper weights."""
    if raw[ID].isna().any():
        row = int(np.flatnonzero(raw[ID].isna())[0])
        raise StudyError(f"{name}, {ID}: respondent {row + 1} has no id; export the file again.")
    wrong = raw.loc[~proper_ids(raw[ID]), ID]
    if len(wrong):
        raise StudyError(
            f"{name}, {ID}: found {wrong.iloc[0]:g}, but an id is a whole number below 2^53 as in "
            "the survey; export the file again."
        )
    raw = _unique(raw)
    there = sorted(set(raw[COUNTRY]))
    if not there:
        raise StudyError(f"{name} holds no respondent (with an id of their own): export it again.")
    if lacking := [country for country in countries if country not in there]:
        raise StudyError(
            f"{name} has no respondent from {', '.join(lacking)}: choose among {few(there)}."
        )
    if countries:
        raw = raw[raw[COUNTRY].isin(countries)]
    doubtful = raw[~raw[WEIGHT].between(0, np.inf, inclusive="left")]
    if len(doubtful):
        raise StudyError(
            f"{name}, {WEIGHT}: found {doubtful[WEIGHT].iloc[0]:g} for respondent "
            f"{doubtful[ID].iloc[0]:.0f}; a weight is a number from 0 on, so mend it or delete the "
            "column (everyone then counts as 1)."
        )
    return raw


def _within(codes: "pd.Series[float]", first: int, last: int) -> "pd.Series[float]":
    """Return valid codes, the others as NaN."""
    return codes.where(codes.between(first, last) & (codes % 1 == 0))


def _header(source: Path) -> _Header:
    """Read the first line; "Q1: Important in life: Family" names the column Q1.

    The separator is the one under which a column with a known name stands, for labels may hold
    separators.
    """
    with source.open("rb") as file:
        line = decoded(file.readline(1_000_000))
    for separator in (",", ";", "\t"):
        try:
            fields = next(csv.reader(io.StringIO(line), delimiter=separator), [])
        except csv.Error:  # no text
            break
        names = [field.split(":")[0].strip().upper() for field in fields]
        if len(names) > 1 and {ID, COUNTRY, "QID"} & set(names):
            return _Header(separator, names)
    return _Header(",", [])


def _read(source: Path, header: _Header, types: Mapping[str, pa.DataType]) -> pa.Table:
    """Read some columns of a table, those of `types` that it has."""
    # every other column gets a name of its own, because names may be given twice
    names = [
        name if name in types and name not in header.names[:place] else f"column {place}"
        for place, name in enumerate(header.names)
    ]
    wanted = [name for name in names if name in types]
    try:
        return arrow_csv.read_csv(
            source,
            arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            arrow_csv.ParseOptions(delimiter=header.separator),
            arrow_csv.ConvertOptions(
                include_columns=wanted,
                column_types={name: types[name] for name in wanted},
                null_values=[*arrow_csv.ConvertOptions().null_values, " ", ".", "#NULL!"],
            ),
        )
    except pa.ArrowInvalid as error:
        problem = " ".join(str(error).split())
        found = re.search(r"column #(\d+)(?:: Row #(\d+))?.*(invalid value .*)", problem)
        if not found:
            if "Empty CSV" in problem:
                return pa.table({name: pa.array([], types[name]) for name in wanted})
            raise StudyError(f"{shown(source)} is damaged ({problem}): export it again.") from None
        line = f", line {found[2]}" if found[2] else ""
        raise StudyError(
            f"{shown(source)}{line}, {names[int(found[1])]}: {found[3]}; export the codes, not "
            "their labels."
        ) from None


def _needed(source: Path, header: _Header, needed: Sequence[str]) -> None:
    """Raise if a column is missing."""
    for name in needed:
        if name not in header.names:
            raise StudyError(
                f"{shown(source)}, {name}: the column is missing; download the survey's wave 7 csv "
                "with all its variables."
            )


def _read_wvs(source: Path, items: Sequence[SurveyItem]) -> pd.DataFrame:
    """Read the survey's own csv; columns are named as in the survey."""
    header = _header(source)
    _needed(source, header, [ID, COUNTRY])
    codes = [*(PERSONA[field] for field in RANGES), *(item.qid for item in items)]
    types = dict.fromkeys(codes, pa.float32())
    region = PERSONA["region"]
    # bytes: a file in another encoding than UTF-8 must not fail, and weights may have commas
    types |= {ID: pa.float64(), COUNTRY: pa.string(), WEIGHT: pa.binary(), region: pa.binary()}
    table = _read(source, header, types)
    raw: pd.DataFrame = table.to_pandas()
    raw[COUNTRY] = _each(table[COUNTRY], lambda text: _iso3(source, text))
    raw[WEIGHT] = _each(table[WEIGHT], _number).astype(float) if WEIGHT in header.names else 1.0
    if region in header.names:
        raw[region] = _each(table[region], lambda content: _region(decoded(content))).astype("str")
    return raw


def _read_worldvaluesbench(source: Path, items: Sequence[SurveyItem]) -> pd.DataFrame:
    """Read WorldValuesBench's two tables as if they were the survey's csv.

    Its demographic answers are the codebook's labels, or the code where the codebook has none.
    """
    about, values = _worldvaluesbench_files(source)
    codebook = _codebook(about)
    persona = [PERSONA[field] for field in RANGES]
    region = PERSONA["region"]
    about_header, values_header = _header(about), _header(values)
    _needed(about, about_header, [ID, "B_COUNTRY"])
    _needed(values, values_header, [ID])
    types = dict.fromkeys([*persona, "B_COUNTRY", region], pa.string())
    table = _read(about, about_header, types | {ID: pa.float64()})
    iso3 = COUNTRY_NAMES | {
        label: code for code, label in codebook.get("B_COUNTRY_ALPHA", {}).items()
    }
    people = pd.DataFrame({ID: table[ID].to_pandas()})
    people[COUNTRY] = _each(table["B_COUNTRY"], lambda text: _iso3(about, iso3.get(text) or text))
    people[WEIGHT] = 1.0
    for variable in set(persona) & set(table.column_names):
        choices = codebook.get(variable, {})
        code_of = {label.strip(): float(code) for code, label in choices.items()}
        people[variable] = _each(
            table[variable], lambda text, known=code_of: known.get(text.strip(), _number(text))
        ).astype(float)
    if region in table.column_names:
        people[region] = _each(table[region], _region).astype("str")
    types = dict.fromkeys([item.qid for item in items], pa.float32()) | {ID: pa.float64()}
    answers: pd.DataFrame = _read(values, values_header, types).to_pandas()
    both = [name for name in answers if name != ID and name in people]
    joined: pd.DataFrame = _unique(people.drop(columns=both)).merge(_unique(answers), on=ID)
    return joined


def _unique(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose id stands there once."""
    return table.loc[~table[ID].duplicated(keep=False)]


def _each(column: pa.ChunkedArray, change: Callable[..., object]) -> "pd.Series[Any]":
    """Change every distinct value of a column once."""
    coded = pc.dictionary_encode(column.combine_chunks())
    changed = pd.Series([change(value) for value in coded.dictionary.to_pylist()], dtype=object)
    return changed.reindex(coded.indices.to_pandas()).reset_index(drop=True)


def _number(content: str | bytes) -> float:
    """Return a number, written with a decimal point or comma, or NaN."""
    text = decoded(content) if isinstance(content, bytes) else content
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return np.nan


def _iso3(source: Path, text: str) -> str:
    """Return the country's ISO 3166-1 alpha-3 code."""
    code = text.strip().upper()
    if not re.fullmatch("[A-Z]{3}", code):
        raise StudyError(
            f"{shown(source)}, country: found {text!r}, which is no country of the survey; export "
            "the file again."
        )
    return ISO3.get(code, code)


def _region(text: str) -> str | None:
    """Return a region's name, "DE-BY Bavaria" without its code; a bare number names none."""
    name = re.sub(r"^[A-Z]{2,3}(-[A-Z0-9]+)?:? +", "", text.strip())
    return None if re.fullmatch(r"-?[\d.]*", name) else name


def _worldvaluesbench_files(source: Path) -> tuple[Path, Path]:
    """Return the demographic and the value table, given their folder or one of them."""
    if source.is_dir():
        folders = (source, source / "full", source / "WorldValuesBench" / "full")
        names = ("full_demographic_qa.tsv", "full_value_qa.tsv")
        pairs = [(folder / names[0], folder / names[1]) for folder in folders]
        about, values = next((pair for pair in pairs if any(map(Path.exists, pair))), pairs[0])
        if not about.exists() and not values.exists():
            raise StudyError(f"{shown(source)} holds no people's answers: {EXPECTED}.")
    else:
        split = re.sub(r"_(demographic|value)_qa\.tsv$", "", source.name)
        about = source.with_name(f"{split}_demographic_qa.tsv")
        values = source.with_name(f"{split}_value_qa.tsv")
    for file in (about, values):
        if not file.is_file():
            raise StudyError(
                f"{shown(file)} is missing: WorldValuesBench's demographic and value answers are "
                "two files, put both there."
            )
    return about, values


def _codebook(about: Path) -> dict[str, dict[str, str]]:
    """Return variable to code to label, from the codebook.json near WorldValuesBench's tables."""
    places = (about.parent, *list(about.parents)[1:3])
    near = [place / part for place in places for part in ("", "dataset_construction")]
    file = next(
        (place / "codebook.json" for place in near if (place / "codebook.json").is_file()), None
    )
    if file is None:
        raise StudyError(
            f"{shown(about.parent)} has no codebook.json, which gives WorldValuesBench's answers "
            "their codes: put the one of its folder dataset_construction there."
        )
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {variable: entry["choices"] for variable, entry in entries.items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise StudyError(
            f"{shown(file)} isn't WorldValuesBench's codebook: download it again."
        ) from None
