"""Text that strangers may have written: what of it can be shown to a model and to a reader.

Braces, markup and templates in a text are harmless, since nothing here executes a text. What ends
a message in a chat format, hides what is written or stops a tool is refused where it comes in.
"""

import re
import unicodedata
from typing import Any

from pydantic import BaseModel, field_validator

LONGEST = 5000
"""Characters that a field may have: some 900 words, more than any scene needs."""

CHAT_MARKS = re.compile(
    r"<[|｜]|[|｜]>|</?s>|<(?:bos|eos)>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
"""What chat formats put between messages: in a message, it would end it."""

OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of the text after them (Unicode Technical Report 36). The marks of
right-to-left scripts that turn nothing (U+200E, U+200F) are welcome."""

TAGS = range(0xE0000, 0xE0080)
"""Letters that nobody sees and a model reads."""


def plain(text: str) -> str:
    """Refuse a text that is no plain one.

    Raises:
        ValueError: It is longer than `LONGEST`, or holds a control character, a surrogate, an
            unseen letter, a mark that turns the writing direction, or a mark of a chat format.
    """
    if len(text) > LONGEST:
        raise ValueError(f"should have at most {LONGEST} characters, not {len(text)}")
    for place, sign in enumerate(text):
        kind = unicodedata.category(sign)
        unseen = kind == "Cs" or sign in OVERRIDES or ord(sign) in TAGS
        if unseen or (kind == "Cc" and sign not in "\n\t"):
            raise ValueError(
                f"holds U+{ord(sign):04X} at character {place + 1}, which no text needs"
            )
    if found := CHAT_MARKS.search(text):
        raise ValueError(f"holds {found[0]!r}, which would end a message in a chat format")
    return text


class PlainTexts(BaseModel):
    """A record all of whose texts are plain ones."""

    @field_validator("*", mode="after")
    @classmethod
    def _plain(cls, value: Any) -> Any:  # noqa: ANN401 (whatever a field holds)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                plain(text)
        return value
