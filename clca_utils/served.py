"""A model that learns here and is asked on a server: its own tokens, its adapters by their names.

The prompts are written here, by the model's own tokenizer, and sent as tokens: so the server reads
what transformers would, whatever its template makes of system messages, prefills and dates.
Adapters are not merged: the server holds the base once, and as many adapters as jobs ask for. The
requests are those of vLLM 0.33: `completions`, `models` and `load_lora_adapter`.
"""

import re
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from transformers import PreTrainedTokenizerBase

from clca_utils.chat_model import Conversation
from clca_utils.files import StudyError, digest, shown
from clca_utils.params import model_source
from clca_utils.server_model import (
    TOP,
    Body,
    Choice,
    NoReplyError,
    ServerModel,
    ServerSettings,
    Token,
    Written,
    connection,
    option_weights,
    said_by,
    send,
    with_patience,
)
from clca_utils.transformers_model import load_tokenizer, render, split

BY_ID = "token_id:{}"
"""How vLLM names a token that it was asked for by its number."""


class Name(BaseModel):
    """The name of a model or adapter."""

    id: str


class Listing(BaseModel):
    """What a server answers when it is asked what it serves."""

    data: list[Name]


class FirstTokens(BaseModel):
    """The places of a text, each with its tokens' log-probabilities by name."""

    top_logprobs: list[dict[str, float] | None] | None = None


class TextChoice(Choice):
    """One reply of `completions`, which has text where `chat/completions` has a message."""

    message: Written = Written()
    text: str | None = None
    logprobs: FirstTokens | None = None  # type: ignore[assignment]

    @property
    def words(self) -> str:
        """What the model wrote."""
        return self.text or ""

    @property
    def first_tokens(self) -> list[Token]:
        """The first tokens that were weighed."""
        first = ((self.logprobs and self.logprobs.top_logprobs) or [None])[0] or {}
        return [Token(token=name, logprob=value) for name, value in first.items()]


class ServedModel(ServerModel):
    """A model on a server, asked by the tokens of its own tokenizer.

    Args:
        name: How the model is called in results.
        settings: Where it is served; `model` is its name there, or an adapter's.
        tokenizer: Its tokenizer, with a chat template.
    """

    path: ClassVar[str] = "completions"
    choice: ClassVar[type[Choice]] = TextChoice

    def __init__(
        self, name: str, settings: ServerSettings, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(name, settings)
        self.tokenizer = tokenizer

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Weigh options by the first token of each; see `ChatModel`.

        vLLM is asked for these very tokens, so none goes missing. A server that does not know such
        a request answers with the likeliest tokens, by number or word, which are then read as
        `option_weights` does.
        """
        prompts = [render(self.tokenizer, conversation) for conversation in conversations]
        splits = split(self.tokenizer, prompts, options)
        firsts = [[tail[0] for _, tail in pairs] for pairs in splits]
        how: Body = {"max_tokens": 1, "logprobs": TOP, "return_tokens_as_token_ids": True}
        found = self._weighed(
            [
                {
                    "prompt": list(pairs[0][0]),
                    **how,
                    "logprob_token_ids": sorted(set(some)),
                    "temperature": 1.0,
                }
                for pairs, some in zip(splits, firsts, strict=True)
            ]
        )
        return [self._weights(tokens, some) for tokens, some in zip(found, firsts, strict=True)]

    def _weights(self, found: Sequence[Token], wanted: Sequence[int]) -> NDArray[np.float64]:
        """Return the log-probability of each wanted token."""
        by_name = {token.token: token.logprob for token in found}
        if any(name.startswith(BY_ID.format("")) for name in by_name):
            least = min(by_name.values()) - 1  # less likely than all that was told
            return np.array([by_name.get(BY_ID.format(one), least) for one in wanted])
        return option_weights(found, [self.tokenizer.decode([one]) for one in wanted])

    def _told(self, conversation: Conversation) -> Body:
        text = render(self.tokenizer, conversation)
        return {"prompt": list(self.tokenizer(text, add_special_tokens=False)["input_ids"])}

    def _more(self, min_new_tokens: int) -> Body:
        return {"min_tokens": min_new_tokens}


def load_served(name: str, settings: ServerSettings, adapter: Path | None = None) -> ServedModel:
    """Return a model on a server, with or without an adapter.

    Args:
        name: The model, of which the tokenizer is loaded here.
        settings: Where it is served.
        adapter: Folder of a LoRA adapter, which the server has to see as well.

    Raises:
        StudyError: There is no such model, or the server takes no adapter.
    """
    tokenizer = load_tokenizer(model_source(name))
    if adapter is not None:
        settings = settings.model_copy(update={"model": offer(settings, adapter)})
    return ServedModel(name, settings, tokenizer)


def adapter_name(adapter: Path) -> str:
    """Return what a server calls an adapter: where it is, and what is in it.

    Of `results/demo/german/smollm2-135m/seed-1/adapter` it is `german.smollm2-135m.seed-1.` and
    eight digits of its hash: the same for all jobs that ask for it, and another once it is trained
    anew.
    """
    where = ".".join(re.sub(r"[^\w.+-]+", "-", part) for part in adapter.absolute().parts[-4:-1])
    return f"{where}.{digest(adapter)[:8]}"


def offer(settings: ServerSettings, adapter: Path) -> str:
    """Let a server load an adapter, unless it has it, and return its name there.

    Raises:
        StudyError: There is no connection, or the server does not take it.
    """
    name, folder = adapter_name(adapter), adapter.absolute()
    with connection(settings) as client:
        ask = partial(with_patience, settings)
        try:
            if name in served_names(ask(partial(send, client, "models"))):
                return name
            load: Body = {"lora_name": name, "lora_path": str(folder)}
            answer = ask(partial(send, client, "load_lora_adapter", load))
            # another job may have been quicker
            if answer.is_success or name in served_names(ask(partial(send, client, "models"))):
                return name
            reason = f"HTTP {answer.status_code}: {said_by(answer, settings)}"
        except NoReplyError as error:
            reason = str(error)
    raise StudyError(
        f"The server {settings.url} does not take the adapter {shown(adapter)} ({reason}): start "
        "vLLM where that folder is seen, with --enable-lora and "
        f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or with --enable-lora --lora-modules "
        f"{name}={folder}"
    )


def served_names(answer: httpx.Response) -> set[str]:
    """Return the names of the models and adapters that a server says it has."""
    if answer.status_code != HTTPStatus.OK:
        return set()
    try:
        return {one.id for one in Listing.model_validate_json(answer.content).data}
    except ValueError:
        return set()
