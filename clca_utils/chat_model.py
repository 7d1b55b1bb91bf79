"""What the study asks of a language model: to continue a conversation, and to weigh options.

Stages 01 to 03 and 05 know a model only by this interface, so a model of any family, a server or a
script can take the place of another.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row")


class Message(TypedDict):
    """One message of a chat; `role` is system, user or assistant."""

    role: str
    content: str


Conversation = Sequence[Message]
"""Messages in order. A final assistant message is a prefill: the reply continues it."""


def system(content: str) -> Message:
    """Return a system message."""
    return {"role": "system", "content": content}


def user(content: str) -> Message:
    """Return a user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """Return an assistant message."""
    return {"role": "assistant", "content": content}


class ChatModel(Protocol):
    """A chat model, asked for many conversations at once."""

    name: str

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: str = "",
        no_repeat: int = 0,
        min_new_tokens: int = 3,
    ) -> list[str]:
        """Reply to each conversation.

        Args:
            conversations: What to reply to; a final assistant message is continued.
            max_new_tokens: Longest reply, in tokens.
            seeds: One per conversation: the same seed gives the same reply in any batch.
            temperature: 0 takes the likeliest token; above, the reply is sampled.
            top_p: Sample among the likeliest tokens that together have this probability.
            stop: A character that ends the reply; it is not part of it.
            no_repeat: Never write a run of this many tokens that prompt or reply already hold; 0
                allows it. Small models otherwise fall into loops.
            min_new_tokens: Shortest reply, in tokens: an empty one is no reply.

        Returns:
            The replies without the prefill, stripped.
        """
        ...

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Weigh the options with which each conversation could go on.

        Args:
            conversations: As for `generate`.
            options: The texts to weigh, one list per conversation.

        Returns:
            Per conversation, the natural-log probability of each option's tokens. The
            probabilities need not sum to 1: the rest is what the model would rather have said.
        """
        ...


class ScriptRanOutError(AssertionError):
    """A test asked a scripted model for more than its script holds."""


class ScriptedModel:
    """A chat model that answers from a script: for tests where a reply must be exact.

    Args:
        replies: What `generate` returns, one per conversation, in the order of the calls.
        logprobs: What `option_logprobs` returns, likewise.
    """

    name = "scripted"

    def __init__(
        self, replies: Sequence[str] = (), logprobs: Sequence[Sequence[float]] = ()
    ) -> None:
        self.replies = list(replies)
        self.logprobs = [np.asarray(row, dtype=float) for row in logprobs]
        self.seen: list[Conversation] = []

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: str = "",
        no_repeat: int = 0,
        min_new_tokens: int = 3,
    ) -> list[str]:
        """Return the next replies of the script.

        Raises:
            ScriptRanOutError: The script is over.
        """
        return [self._next(self.replies, conversation) for conversation in conversations]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Return the next log-probabilities of the script.

        Raises:
            ScriptRanOutError: The script is over, or its next row has another number of options.
        """
        rows = [self._next(self.logprobs, conversation) for conversation in conversations]
        for row, texts in zip(rows, options, strict=True):
            if len(row) != len(texts):
                raise ScriptRanOutError(f"the script weighs {len(row)} options, not {list(texts)}")
        return rows

    def _next(self, script: list[Row], conversation: Conversation) -> Row:
        self.seen.append(conversation)
        if not script:
            raise ScriptRanOutError(f"no reply left for: {conversation[-1]['content']!r}")
        return script.pop(0)
