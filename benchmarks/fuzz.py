"""Throw what no one would write at the parsers, guided by what they do with it (atheris).

Run from the repository's folder: .venv/bin/python benchmarks/fuzz.py TARGET --minutes 10, where
TARGET is yaml, jsonl, survey or reply. A parser may refuse with a StudyError and do nothing else:
any other exception ends the run with status 1 and leaves the input in results/benchmarks/fuzz.
"""

import argparse
import atexit
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["clca_utils", "yaml", "json"]):
    from clca_utils import dialogue, files, intent, params, release, replies, rewriting
    from clca_utils.adaptation import adapt_all
    from clca_utils.culture import load_culture
    from clca_utils.items import load_items
    from clca_utils.scenario import Scenario, load_seeds
    from clca_utils.scenario_checks import others_than
    from clca_utils.survey import load_survey

FOUND = files.ROOT / "results" / "benchmarks" / "fuzz"
TEMPORARY = Path(tempfile.mkdtemp(prefix="clca-fuzz-"))
ITEMS = load_items("values")[:6]
SCENE = adapt_all(load_seeds("learn")[:1], load_culture("german"), 1)[0]
OTHERS = others_than(load_culture("german"), [load_culture("japanese"), load_culture("mexican")])
SMALL = {"yaml": 4096, "jsonl": 4096, "survey": 4096, "reply": 512}
"""The longest input of each target, in bytes: long ones are slow, and seldom new."""


def refused(read: Callable[[], object]) -> None:
    """Read something; a StudyError is an answer."""
    with contextlib.suppress(files.StudyError):
        read()


def written(name: str, data: bytes) -> Path:
    """Put the input into a file."""
    path = TEMPORARY / name
    path.write_bytes(data)
    return path


def fuzz_yaml(data: bytes) -> None:
    """Studies, cultures and items, as YAML files."""
    path = written("file.yaml", data)
    for read in (params.load_study, lambda one: load_culture(str(one))):
        refused(lambda read=read: read(path))
    refused(lambda: load_items("values", path=str(path)))


def fuzz_jsonl(data: bytes) -> None:
    """Artefacts, ledgers and the published release, as lines of JSON."""
    path = written("lines.jsonl", data)
    for schema in (Scenario, dialogue.Dialogue, intent.Intent, release.ReleaseDialogue):
        refused(lambda schema=schema: files.read_records(path, schema))
    refused(lambda: files.read_json(path))
    first = data.split(b"\n")[0].decode(errors="replace")
    ledger = written("ledger", data)
    refused(lambda: files.ledger_values(ledger, first))


def fuzz_survey(data: bytes) -> None:
    """Exports of a survey: tables of shares and of people, and their codebooks."""
    name = ("survey.csv", "survey.tsv", "survey.json")[data[0] % 3] if data else "survey.csv"
    path = written(name, data[1:])
    refused(lambda: load_survey(path, ITEMS))
    if name.endswith("json"):
        refused(lambda: load_items("values", path=str(path)))


def fuzz_reply(data: bytes) -> None:
    """What models write: answers, turns, rewritten scenes, intents."""
    text = data.decode(errors="replace")
    item = ITEMS[len(text) % len(ITEMS)]
    labels = [str(number + 1) for number in range(len(item.options))]
    choice = replies.read_reply(text, labels, item.options)
    assert (choice.position is None) == (choice.status != "answered")
    dialogue.parse_reply(text)
    dialogue.tidy(text)
    for action in ("none", "non-verbal", "speak", "leave"):
        dialogue.words_of(action, text)
    rewriting.read_rewrite(text, SCENE, OTHERS)
    intent.readable(intent.first_sentence(text), "A line that somebody said.")
    release.split_intent(text)


TARGETS = {
    "yaml": fuzz_yaml, "jsonl": fuzz_jsonl, "survey": fuzz_survey, "reply": fuzz_reply
}  # fmt: skip


def seeds(target: str, folder: Path) -> None:
    """Write inputs to begin with: shipped files and sentences."""
    data = files.ROOT / "clca_utils" / "data"
    known = {
        "yaml": [*files.ROOT.glob("params/*.yaml"), *files.ROOT.glob("params/cultures/*.yaml")],
        "jsonl": [],
        "survey": [],
        "reply": [],
    }[target]
    texts = [path.read_bytes() for path in known]
    if target == "jsonl":
        texts = [SCENE.model_dump_json().encode()]
        texts += [path.read_bytes()[:4000] for path in data.glob("authored/*.jsonl")]
    elif target == "survey":
        shares = (data / "wvs7_marginals.csv").read_bytes().splitlines(keepends=True)
        texts = [b"\0" + b"".join(shares[:20]), b"\0B_COUNTRY_ALPHA;Q7;Q8\nDEU;1;2\nDEU;2;-1\n",
                 b"\1D_INTERVIEW\tB_COUNTRY\tQ7\n1\tGermany\t1\n",
                 b'\2{"Q7": {"question": "?"}}']  # fmt: skip
    elif target == "reply":
        texts = [b"2. Rather important", b"ACTION: speak\nOUTPUT: Hello.", b"As an AI I can't.",
                 b'{"setting": "A kitchen."}', "（２）".encode()]  # fmt: skip
    for number, text in enumerate(texts):
        (folder / str(number)).write_bytes(text)


def main() -> None:
    """Run one target for some minutes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("target", choices=TARGETS)
    options.add_argument("--minutes", type=float, default=10)
    given = options.parse_args()
    corpus = TEMPORARY / "corpus"
    corpus.mkdir()
    seeds(given.target, corpus)
    FOUND.mkdir(parents=True, exist_ok=True)
    began, count = time.monotonic(), 0

    def once(data: bytes) -> None:
        nonlocal count
        count += 1
        TARGETS[given.target](data)

    limits = [f"-max_total_time={given.minutes * 60:.0f}", f"-max_len={SMALL[given.target]}"]
    atheris.Setup(
        [sys.argv[0], str(corpus), *limits, f"-artifact_prefix={FOUND}/", "-timeout=20", "-seed=1"],
        once,
    )
    atexit.register(shutil.rmtree, TEMPORARY, ignore_errors=True)
    atexit.register(  # libFuzzer ends the process itself
        lambda: print(f"{given.target}: {count} inputs in {time.monotonic() - began:.0f} s")
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
