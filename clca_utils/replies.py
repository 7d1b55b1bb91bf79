"""From what a model wrote to the option it chose, or to none: nothing is guessed.

Models on servers that tell no probabilities can only be read. What isn't clearly one option is
counted as refused or unparsable, and never becomes an option.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Status = Literal["answered", "refused", "unparsable"]

REFUSALS = (
    r"\b(?:i\s*am|i'm|as)\s+(?:just\s+)?an?\s+(?:ai|artificial|language\s+model|assistant|chatbot)",
    r"\bi\s+(?:can\s?not|can't|won't|am\s+not\s+able\s+to|am\s+unable\s+to)\b",
    r"\b(?:do\s+not|don't)\s+have\s+(?:personal|any|my\s+own|opinions|feelings|beliefs)\b",
    r"\bprefer\s+not\s+to\b|\b(?:decline|refuse)\s+to\b",
    r"\bkann\s+(?:ich\s+)?(?:diese\s+frage\s+)?(?:leider\s+)?nicht\b|\bals\s+(?:ki|sprachmodell)\b",
    r"\bno\s+puedo\b|\bcomo\s+(?:ia|modelo\s+de\s+lenguaje|inteligencia\s+artificial)\b",
    r"お答えできません|答えられません|回答できません|言語モデル|AIとして",
    r"无法回答|不能回答|无法提供|作为(?:一个)?(?:AI|人工智能|语言模型)",
)
"""Ways in which models decline, in the languages of the items: our own list, by no means whole. One
that is missing here is counted as unparsable, which is no answer either."""

REFUSED = re.compile("|".join(REFUSALS), re.IGNORECASE)


class Choice(NamedTuple):
    """The displayed position that a reply chose, from 0, or None, and how it was read."""

    position: int | None
    status: Status


def _plain(text: str) -> str:
    """Return a text without the case, quotes and stops that don't matter."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return re.sub(r"[\s\"“”„«»「」*_.。!]+", " ", text).strip().casefold()


def read_reply(reply: str, labels: Sequence[str], options: Sequence[str]) -> Choice:
    """Return which of the displayed options a reply chose.

    It chose one if its first line begins with a label ("2", "(2)", "2. Rather important", "Option
    2", "Answer: 2"), or is the text of one option ("rather important"), and names no other label.

    Args:
        reply: What the model wrote.
        labels: What the options are called, in the order displayed.
        options: Their texts, in the order displayed.
    """
    lines = [line for line in reply.strip().splitlines() if line.strip()]
    first = lines[0].strip() if lines else ""
    texts = [_plain(option) for option in options]
    if texts.count(_plain(first)) == 1:
        return Choice(texts.index(_plain(first)), "answered")
    found = re.match(
        r"(?:[^\W\d_]+\s*[:：]?\s+|[^\W\d_]+[:：]\s*)?[(\[\"'*]*(\d+|[A-Z])\b(.*)", first
    )
    if found and found[1] in labels and not _another(found[2], labels, found[1]):
        position = list(labels).index(found[1])
        said = _plain(re.sub(r"^[\s).:：\]\-*]+", "", found[2]))
        if said not in texts or texts[position] == said:  # "1. No" where 1 is "Yes" is neither
            return Choice(position, "answered")
    return Choice(None, "refused" if REFUSED.search(reply.replace("’", "'")) else "unparsable")


def _another(rest: str, labels: Sequence[str], own: str) -> bool:
    """Say whether a text names another label, as "1 or 2" does, standing alone."""
    alone = re.findall(r"(?<![\w.,])(\d+|[A-Z])(?![\w]|[.,]\d)", rest)
    return any(label in labels and label != own for label in alone)
