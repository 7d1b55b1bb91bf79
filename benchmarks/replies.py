"""Do replies fit better after training? What is read blind, in both orders, and what was found.

    python benchmarks/replies.py write   # pairs-1.md, pairs-2.md to be read; key.json to be hidden
    python benchmarks/replies.py count   # then: replies.md, from key.json and preferred-<n>.csv

The replies are those of the study's runs (`replies.csv` of stage 04b). Two readers get the same
pairs in opposite orders and say which reply fits the person and the moment better: a, b or tie.
Only what both prefer counts as preferred. Hidden among them are pairs whose better half is known:
the reply that was written for the moment, and one that was written for another.
"""

import random
from pathlib import Path
from typing import Any

import pandas as pd
from measuring import markdown
from reading import choices, main
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from clca_utils.files import ROOT, read_json, write_json, write_text

STUDY = ROOT / "results" / "reference" / "controls"
LABELS = {"smollm2-135m": "clca", "smollm2-135m+authored": "authored"}
"""Whose replies are read, and what the variant is called."""
KNOWN = 12
"""Pairs whose better half is known."""
SEED = 1
ASK = (
    "# Which reply fits better?\n\nA scene, the line before, and two replies. Say of each pair "
    "which fits the person and the moment better: a, b or tie. Both may be poor. Tie only if "
    "neither is better.\n"
)


def pairs_of(study: Path) -> list[dict[str, Any]]:
    """Return what is to be compared: kind, moment, and the two replies by what they are."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for label, variant in LABELS.items():
        for path in sorted(study.glob(f"*/{label}/seed-*/replies.csv")):
            table = pd.read_csv(path, keep_default_na=False)
            for row in table.itertuples():
                made = {"kind": variant, "culture": path.parts[-4], "moment": row.id}
                said = {"setting": row.setting, "said": row.said}
                two = {"before": row.before, "after": row.after}
                found.setdefault(
                    (variant, str(row.id), str(row.said), str(row.before), str(row.after)),
                    made | said | {"replies": two} | {"written": row.written},
                )
    pairs = list(found.values())
    draw = random.Random(f"{SEED}/known")
    moments = list({(pair["moment"], pair["said"]): pair for pair in pairs}.values())
    for one, other in zip(
        chosen := draw.sample(moments, KNOWN), [*chosen[1:], chosen[0]], strict=True
    ):
        two = {"fitting": one["written"], "foreign": other["written"]}
        pairs.append(one | {"kind": "known", "replies": two})
    return draw.sample(pairs, len(pairs))


def write(folder: Path) -> None:
    """Write the pairs in two orders, and what is kept from the readers."""
    draw, key = random.Random(f"{SEED}/orders"), {}
    texts: list[list[str]] = [[ASK], [ASK]]
    for number, pair in enumerate(pairs_of(STUDY), 1):
        names = draw.sample([*pair["replies"]], 2)
        replies = [pair["replies"][name] for name in names]
        alike = replies[0] == replies[1]
        for text, order in zip(texts, (replies, replies[::-1]), strict=True):
            if not alike:
                text.append(
                    f"## {number}\n\n{pair['setting']}\n\n> {pair['said']}\n\n"
                    f"**a** {order[0]}\n\n**b** {order[1]}\n"
                )
        key[number] = {name: pair[name] for name in ("kind", "culture", "moment")}
        key[number] |= {"alike": alike, "letters": [names, names[::-1]]}
    for reader, text in enumerate(texts, 1):
        write_text(folder / f"pairs-{reader}.md", "\n".join(text))
    inputs = {"seed": SEED, "study": STUDY.relative_to(ROOT).as_posix()}
    write_json(folder / "key.json", {"made_by": inputs, "pairs": key})


def preferences(folder: Path, reader: int, pairs: dict[str, Any]) -> "pd.Series[str]":
    """Return what a reader preferred of each pair, by what the reply is, or tie."""
    read = choices(folder / f"preferred-{reader}.csv", pairs)
    told = {
        number: dict(zip("ab", pair["letters"][reader - 1], strict=True)).get(read.get(number))
        for number, pair in pairs.items()
    }
    return pd.Series(told, dtype=object).fillna("tie")


def count(folder: Path) -> None:
    """Count what both readers preferred."""
    pairs = read_json(folder / "key.json")["pairs"]
    one, two = (preferences(folder, reader, pairs) for reader in (1, 2))
    both = one.where(one == two, "tie")
    kinds = pd.Series({number: pair["kind"] for number, pair in pairs.items()})
    rows = []
    for kind, some in both.groupby(kinds):
        better, worse = ("fitting", "foreign") if kind == "known" else ("after", "before")
        wins, losses = int((some == better).sum()), int((some == worse).sum())
        first, second = one[some.index], two[some.index]
        rows.append(
            {
                "pairs": kind, "n": len(some), "better": better, "preferred": wins,
                "other_preferred": losses, "ties": len(some) - wins - losses,
                "sign_test_p": binomtest(wins, wins + losses).pvalue if wins + losses else 1.0,
                "readers_agree": float((first == second).mean()),
                "kappa": cohen_kappa_score(first, second) if {*first, *second} - {better} else 1.0,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    write_text(folder / "tables" / "replies.csv", table.to_csv(index=False))
    write_text(folder / "replies.md", f"{markdown(table)}\n")
    print(markdown(table))


if __name__ == "__main__":
    main(__doc__, write, count, ROOT / "results" / "reference" / "replies")
