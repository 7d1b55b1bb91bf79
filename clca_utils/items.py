"""The survey's items: what is asked, in which words, with which options.

The wording that ships is ours; each item is named after the variable of the World Values Survey,
wave 7 (Haerpfer et al. 2022, doi:10.14281/18241.20), that it paraphrases. Official wording takes
its place where the user has it.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clca_utils.choices import ItemSet
from clca_utils.files import DATA, StrictLoader, StudyError, locate, problems, shown

MAP_ITEMS = (
    *("Q8", "Q14", "Q15", "Q17"),  # the autonomy index
    "Q45",  # respect for authority
    "Q46",  # happiness
    "Q57",  # trust
    *("Q154", "Q155"),  # post-materialism, first and second choice
    "Q164",  # importance of God
    *("Q182", "Q184"),  # justifiability of homosexuality and abortion
    "Q209",  # petition
    "Q254",  # national pride
)
"""Variables behind the ten items of the Inglehart-Welzel map (Inglehart and Welzel 2005, chapter 2;
variable names of the WVS-7 master questionnaire)."""

SCALE = re.compile(r"^On a scale of (\d+) to (\d+), \1 meaning '.*?' and \2 meaning '.*?', (\w)")
"""How WorldValuesBench's questions begin. What a number means is left to the options, which are
numbered anew in each order."""

MAP_TOPIC = "cultural map"
"""Topic of the items that only the map needs."""


class SurveyItem(BaseModel):
    """One question of the survey; `options[0]` is the answer with code 1.

    `paraphrase` is a second wording of the question, empty where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    qid: str = Field(pattern=r"^Q\d+$")
    topic: str = Field(min_length=1)
    question: str = Field(min_length=1)
    options: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2, max_length=26)
    paraphrase: str = ""

    @property
    def labels(self) -> list[str]:
        """What the options are called: 1, 2, ..., or from ten options on A, B, ...

        One character each, so that no label begins another, as 1 begins 10.
        """
        count = len(self.options)
        return list(ascii_uppercase[:count]) if count > 9 else [str(i + 1) for i in range(count)]


class _Wording(BaseModel):
    """An item in another wording; its topic stays."""

    model_config = ConfigDict(extra="forbid")

    qid: str
    topic: str = ""
    question: str = Field(min_length=1)
    options: list[Annotated[str, Field(min_length=1)]] = []
    paraphrase: str = ""


class _ItemFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scales: dict[str, list[str]] = {}
    items: list[_Wording] = Field(min_length=1)


def languages() -> list[str]:
    """Return the languages in which the items ship, as two-letter codes, English first."""
    codes = sorted(file.stem for file in (DATA / "items").glob("*.yaml"))
    return sorted(codes, key=lambda code: code != "en")


def load_items(
    which: ItemSet = "values", language: str = "en", path: str | Path = ""
) -> list[SurveyItem]:
    """Read the survey's items.

    Args:
        which: "values" are the 44 items Q1 to Q45 without Q42, "map" the variables behind the ten
            items of the Inglehart-Welzel map, "all" both; of the 44, "learn" are those of odd
            number, from which a control may learn, and "held-out" the others.
        language: Two-letter code of the language that they are asked in.
        path: Official wording, which replaces ours item by item (ours becomes the paraphrase): a
            YAML file like data/items/en.yaml, or the question_metadata.json of WorldValuesBench,
            whose option labels are read from the codebook.json beside it.

    Raises:
        StudyError: A file is missing, isn't of that form, names an item twice, or has another
            number of options than the item.
    """
    ours = [SurveyItem(**one.model_dump()) for one in _read(DATA / "items" / "en.yaml")]
    if language != "en":
        if language not in languages():
            raise StudyError(
                f"The survey's items don't ship in the language '{language}' (they do in "
                f"{', '.join(languages())}): ask in English, with another prompt than 'native'."
            )
        blank = [item.model_copy(update={"question": ""}) for item in ours]  # no English is left
        ours = reworded(blank, _read(DATA / "items" / f"{language}.yaml"), language)
    if path and language != "en" and locate(path).suffix == ".json":
        raise StudyError(
            f"{shown(locate(path))} holds WorldValuesBench's English wording, but the items are "
            f"asked in '{language}': bring a YAML file in that language, or take another prompt "
            "than 'native'."
        )
    if path:
        wordings, name = _read(locate(path)), shown(locate(path))
        unknown = {wording.qid for wording in wordings} - {item.qid for item in ours}
        if unknown and locate(path).suffix != ".json":  # the metadata names all the survey asks
            raise StudyError(
                f"{name}, qid: found '{min(unknown)}', which the study doesn't ask; take it out, "
                "or name the item as the survey does, 'Q1'."
            )
        ours = reworded(ours, wordings, name)
    values = [item for item in ours if item.topic != MAP_TOPIC]
    wanted = {
        "values": values,
        "map": [item for item in ours if item.qid in MAP_ITEMS],
        "learn": [item for item in values if int(item.qid[1:]) % 2],
        "held-out": [item for item in values if int(item.qid[1:]) % 2 == 0],
    }
    return wanted.get(which, ours)


def reworded(
    items: Sequence[SurveyItem], wordings: Sequence[_Wording], name: str
) -> list[SurveyItem]:
    """Return the items in other words; an item without any keeps its own.

    Raises:
        StudyError: A wording has another number of options than its item.
    """
    by_qid = {wording.qid: wording for wording in wordings}
    changed = []
    for item in items:
        new = by_qid.get(item.qid)
        if new is None:
            changed.append(item)
            continue
        if new.options and len(new.options) != len(item.options):
            raise StudyError(
                f"{name}, {item.qid}, options: found {len(new.options)} of them, but the survey's "
                f"codes are 1 to {len(item.options)}; give one option for each."
            )
        changed.append(
            item.model_copy(
                update={
                    "question": new.question,
                    "options": new.options or item.options,
                    "paraphrase": new.paraphrase or item.question,
                }
            )
        )
    return changed


def _read(source: Path) -> list[_Wording]:
    """Read a file of items, each named once."""
    try:
        text = source.read_text(encoding="utf-8")
        content = (
            _from_metadata(source, text)
            if source.suffix == ".json"
            else yaml.load(text, StrictLoader)
        )
        items = _ItemFile.model_validate(content).items
    except FileNotFoundError:
        raise StudyError(f"{shown(source)} is missing: mend the path of the items.") from None
    except IsADirectoryError:
        raise StudyError(f"{shown(source)} is a folder: name the file of items in it.") from None
    except ValidationError as error:
        raise StudyError(f"{shown(source)}, {problems(error)[0]}: mend the field.") from None
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        kind = "JSON" if source.suffix == ".json" else "YAML"
        raise StudyError(f"{shown(source)} isn't {kind} ({problem}): mend that line.") from None
    qids = [item.qid for item in items]
    if len(set(qids)) < len(qids):
        twice = next(qid for qid in qids if qids.count(qid) > 1)
        raise StudyError(f"{shown(source)}, qid: {twice} stands there twice; keep one of them.")
    return items


def _from_metadata(source: Path, text: str) -> dict[str, Any]:
    """Return WorldValuesBench's question metadata as a file of items."""
    metadata = json.loads(text)
    codebook = _codebook(source.with_name("codebook.json"))
    items = []
    for qid, entry in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(entry, dict) and entry.get("use_case") == "value" and "question" in entry:
            choices = codebook.get(qid, {})
            last = int(entry.get("answer_scale_max") or 0)
            options = [choices[str(code)] for code in range(1, last + 1) if str(code) in choices]
            question = SCALE.sub(lambda found: found[3].upper(), str(entry["question"]), count=1)
            # the ends alone may be labelled, as on scales from 1 to 10
            items.append({"qid": qid, "question": question})
            items[-1] |= {"options": options} if len(options) == last else {}
    if not items:
        raise ValueError(
            "it holds no question of use_case 'value', as WorldValuesBench's question_metadata.json"
            " does"
        )
    return {"items": items}


def _codebook(file: Path) -> dict[str, dict[str, str]]:
    """Return variable to code to label, of WorldValuesBench's codebook if it is there."""
    if not file.is_file():
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {variable: dict(entry.get("choices", {})) for variable, entry in entries.items()}
    except (ValueError, AttributeError, TypeError):
        raise StudyError(
            f"{shown(file)} isn't WorldValuesBench's codebook: download it again."
        ) from None
