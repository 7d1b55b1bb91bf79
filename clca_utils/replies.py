"""From what a model wrote to the option it chose, or to none: nothing is guessed.

Models on servers that tell no probabilities can only be read. What isn't clearly one option is
counted as refused or unparsable, and never becomes an option.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

Status = Literal["answered", "refused", "unparsable"]

REFUSALS = (
    r"\b(?:i\s*am|i'm|as)\s+(?:just\s+)?an?\s+(?:ai|artificial|(?:large\s+)?language\s+model|assistant|chatbot)",
    r"\bi\s+(?:can\s?not|can't|won't|am\s+not\s+able\s+to|am\s+unable\s+to)\b",
    r"\b(?:do\s+not|don't)\s+have\s+(?:personal|any|my\s+own|opinions|feelings|beliefs)\b",
    r"\bprefer\s+not\s+to\b|\b(?:decline|refuse)\s+to\b",
    r"\b(?:ich\s+kann|kann\s+ich)\s+(?:diese\s+frage\s+|das\s+)?(?:leider\s+)?nicht\b",
    r"\bals\s+(?:ki|sprachmodell)\b",
    r"\bno\s+puedo\b|\bcomo\s+(?:ia|modelo\s+de\s+lenguaje|inteligencia\s+artificial)\b",
    r"お答えできません|答えられません|回答できません|言語モデル|AIとして",
    r"无法回答|不能回答|无法提供|作为(?:一个)?(?:AI|人工智能|语言模型)",
)
"""Ways in which models decline, in the languages of the items: our own list, by no means whole. One
that is missing here is counted as unparsable, which is no answer either."""

REFUSED = re.compile("|".join(REFUSALS), re.IGNORECASE)

NAMES = (
    "option|choice|answer|number|letter|antwort|antwortmöglichkeit|nummer|buchstabe|opción|respuesta"
    "|número|letra|選択肢|回答|答え|番号|选项|答案|编号"
)
"""What may stand before a label, in the languages of the items."""

# a number goes on in "2nd", "3.5", "1/2"
LABELLED = re.compile(
    rf"(?:(?i:{NAMES})\s*:?\s*)?[(\[\"'*]*(?P<label>\d+|[A-Z])(?!\w|[.,/:]\d)(?P<rest>.*)"
)


class Choice(NamedTuple):
    """The displayed position that a reply chose, from 0, or None, and how it was read."""

    position: int | None
    status: Status


def read_reply(reply: str, labels: Sequence[str], options: Sequence[str]) -> Choice:
    """Return which of the displayed options a reply chose.

    It chose one if its first line begins with a label ("2", "(2)", "2. Rather important", "Option
    2", "Answer: 2"), or is the text of one option ("rather important"), and no line of it names
    another option.

    Args:
        reply: What the model wrote.
        labels: What the options are called, in the order displayed.
        options: Their texts, in the order displayed.
    """
    # "２" and "（2）" are what Japanese and Chinese keyboards make of "2" and "(2)"
    written = unicodedata.normalize("NFKC", reply.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    texts = [_plain(option) for option in options]
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    read = [_read_line(line, list(labels), texts) for line in lines]
    if read and {place for place in read if place is not None} == {read[0]}:
        return Choice(read[0], "answered")
    return Choice(None, "refused" if REFUSED.search(written) else "unparsable")


def _read_line(line: str, labels: list[str], texts: list[str]) -> int | None:
    """Return the position of the one option that a line chooses, if it does."""
    if texts.count(_plain(line)) == 1:
        return texts.index(_plain(line))
    found = LABELLED.match(line)
    if not found or found["label"] not in labels:
        return None
    position, rest = labels.index(found["label"]), found["rest"]
    said = _plain(re.sub(r"^[\s).:、\]\-*]+", "", rest))
    own = texts[position]
    if said == own or (own.startswith(said) and said not in texts):  # alone, whole or cut short
        return position
    if REFUSED.search(line) or _another(rest, labels, found["label"]):
        return None
    if found["label"].isalpha() and not re.match(r"[).:、\]]", rest):  # "A good question", "I am"
        return None
    # "1. No, never" where 1 is "Yes" is neither
    named = max((text for text in texts if said.startswith(text)), key=len, default=own)
    return position if named == own else None


def _plain(text: str) -> str:
    """Return a text without the case, quotes and stops that don't matter."""
    text = unicodedata.normalize("NFKC", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return re.sub(r"[\s\"“”„«»「」*_.。!]+", " ", text).strip().casefold()


def _another(rest: str, labels: Sequence[str], own: str) -> bool:
    """Say whether a text names another label, as "1 or 2" does, standing alone."""
    alone = re.findall(r"(?<![\w.,])(\d+|[A-Z])(?!\w|[.,]\d)", rest)
    return any(label in labels and label != own for label in alone)
