"""A chat model behind any server that speaks OpenAI's protocol: vLLM, llama.cpp, a hosted one.

Many conversations are asked at once, and again where another try may help. A reply is the model's
own words or none at all; an account keeps why one is missing, and what all of them cost.
"""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from threading import Lock
from typing import Annotated, ClassVar, Generic, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter

from clca_utils.chat_model import Conversation
from clca_utils.files import StudyError

PASSING = {408, 409, 425, 429}
"""Refusals after which another try may help, beside all server errors (from 500 on)."""

BACKOFF: wait_base = wait_exponential_jitter(max=60)
"""Seconds between attempts: 1, 2, 4, ... and up to one more by chance, so that conversations that
failed together do not come back together."""

LONGEST_WAIT = 600.0
"""Seconds a server may ask to be left alone (`Retry-After`) before the study stops instead."""

EXCERPT = 160
"""How many characters of a server's own words are kept of a refusal."""

TOP = 20
"""How many first tokens a server is asked to weigh: the most that OpenAI's protocol allows."""

Body = dict[str, object]
"""What is sent to the server, as JSON."""


def _unshown(name: object) -> object:
    """Hide what is no name of an environment variable: it may be the key, and errors show it."""
    is_name = isinstance(name, str) and re.fullmatch(r"([A-Z][A-Z0-9_]*)?", name)
    return name if is_name else "(not shown)"


class ServerSettings(BaseModel):
    """Where a model is served, and how it may be asked."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    url: str = Field(
        pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$",
        description="as far as /v1: http://localhost:8000/v1",
    )
    model: str = Field(min_length=1, description="the id by which the server knows the model")
    key: Annotated[str, Field(pattern=r"^([A-Z][A-Z0-9_]*)?$"), BeforeValidator(_unshown)] = Field(
        "",
        description="NAME of the environment variable that holds the key, in capitals; never the "
        "key itself. Empty: the server asks for none",
    )
    concurrency: int = Field(8, ge=1, le=1000, description="conversations asked at once")
    timeout: float = Field(
        120.0, gt=0, description="seconds to wait for a connection, and for each part of an answer"
    )
    attempts: int = Field(5, ge=1, le=100, description="requests per conversation, in all")
    price_in: float = Field(0.0, ge=0, description="of a million prompt tokens, in any currency")
    price_out: float = Field(0.0, ge=0, description="of a million written tokens, likewise")


@dataclass
class Account:
    """What a server was asked and what that cost; threads may share it."""

    price_in: float
    price_out: float
    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Conversations without a usable reply, by reason."""
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(
        self,
        *,
        requests: int = 0,
        retries: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        failures: Iterable[str] = (),
    ) -> None:
        """Count some more of each; `failures` are reasons."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
            self.failures.update(failures)

    @property
    def cost(self) -> float:
        """What the tokens cost, in the prices' currency."""
        spent = self.prompt_tokens * self.price_in + self.completion_tokens * self.price_out
        return spent / 1e6

    @property
    def table(self) -> dict[str, float | dict[str, int]]:
        """The account as it may be written to JSON."""
        with self._lock:
            return {
                "requests": self.requests,
                "retries": self.retries,
                "failures": dict(self.failures),
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "cost": self.cost,
            }


class Token(BaseModel):
    """A token that the model could have written."""

    token: str
    logprob: float


class Place(BaseModel):
    """One place of a reply, and the likeliest tokens there."""

    top_logprobs: list[Token] = []


class Logprobs(BaseModel):
    """The places of a reply."""

    content: list[Place] | None = None


class Written(BaseModel):
    """What the model wrote; nothing where it called a tool, or only thought."""

    content: str | None = None


class Choice(BaseModel):
    """One reply."""

    message: Written
    logprobs: Logprobs | None = None

    @property
    def words(self) -> str:
        """What the model wrote."""
        return self.message.content or ""

    @property
    def first_tokens(self) -> list[Token]:
        """The likeliest first tokens; none where the server does not weigh them."""
        places = (self.logprobs and self.logprobs.content) or [Place()]
        return [one for one in places[0].top_logprobs if math.isfinite(one.logprob)]


class Usage(BaseModel):
    """The tokens of a request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


Reply = TypeVar("Reply", bound=Choice)
Result = TypeVar("Result")


class Answer(BaseModel, Generic[Reply]):
    """The part of a server's answer that is read."""

    choices: list[Reply] = Field(min_length=1)
    usage: Usage | None = None


class NoReplyError(Exception):
    """The server gave no usable reply; the message is the reason."""


class PassingError(NoReplyError):
    """As before, but another try may help, after `wait` seconds if the server asked for them."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class UnreachableError(PassingError):
    """There was not even a connection."""


def seconds_asked(header: str) -> float:
    """Read a `Retry-After` header, seconds or a date; 0 where it is neither."""
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def pause(state: RetryCallState) -> float:
    """Return the seconds until the next attempt: longer each time, and never less than asked."""
    error = state.outcome.exception() if state.outcome else None
    return max(BACKOFF(state), error.wait if isinstance(error, PassingError) else 0.0)


def key_of(settings: ServerSettings) -> str:
    """Read the server's key from the environment; empty where it needs none.

    Raises:
        StudyError: The variable is not set, or holds what can't be a key.
    """
    if not settings.key:
        return ""
    key = os.environ.get(settings.key, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise StudyError(
            f"The environment variable {settings.key}, which `key` of the server {settings.url} "
            f"names, {'holds more than one plain word' if key else 'is not set'}: put the key in "
            "it."
        )
    return key


def connection(settings: ServerSettings) -> httpx.Client:
    """Return what requests are sent with.

    Raises:
        StudyError: The key's environment variable is not as it should be.
    """
    key = key_of(settings)
    return httpx.Client(
        base_url=settings.url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=settings.timeout,
        limits=httpx.Limits(max_connections=settings.concurrency),
    )


def send(client: httpx.Client, path: str, body: Body | None = None) -> httpx.Response:
    """Send one request, or fetch what is at `path` where there is no body.

    Raises:
        UnreachableError: There was no connection.
        PassingError: There was, but no whole answer.
    """
    try:
        return client.post(path, json=body) if body is not None else client.get(path)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise UnreachableError(str(error) or type(error).__name__) from None
    except httpx.TimeoutException:
        raise PassingError(f"no answer within {client.timeout.read:g} s") from None
    except httpx.RequestError as error:
        raise PassingError(f"answer cut short ({type(error).__name__})") from None


def with_patience(
    settings: ServerSettings, act: Callable[[], Result], retried: Callable[[], None] = lambda: None
) -> Result:
    """Do what asks the server, again while that may help.

    Args:
        settings: Of the server.
        act: What is done; a `PassingError` says that another try may help.
        retried: Called before each further try.

    Raises:
        StudyError: There is no connection.
        NoReplyError: No try helped.
    """
    attempts = Retrying(
        stop=stop_after_attempt(settings.attempts),
        wait=pause,
        retry=retry_if_exception_type(PassingError),
        before_sleep=lambda _: retried(),
        reraise=True,
    )
    try:
        return attempts(act)
    except UnreachableError as error:
        raise StudyError(
            f"No connection to the server {settings.url} could be made in {settings.attempts} "
            f"attempts ({error}): start the server or mend `url`, then go on with the same command."
        ) from None


def said_by(response: httpx.Response, settings: ServerSettings) -> str:
    """Return the beginning of a server's words, without the key should they repeat it."""
    said, key = " ".join(response.text.split()), key_of(settings)
    return (said.replace(key, "(key)") if key else said)[:EXCERPT]


def begin(conversation: Conversation) -> Body:
    """Return the part of a request that tells the conversation.

    A final assistant message shall be continued: the names for that are vLLM's, which llama.cpp
    takes too.
    """
    body: Body = {"messages": [dict(message) for message in conversation]}
    if conversation[-1]["role"] == "assistant":
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


def own_words(text: str, conversation: Conversation, stop: str) -> str:
    """Return a reply without what some servers leave around it: an echoed prefill, the stop."""
    last = conversation[-1]
    prefill = last["content"].strip() if last["role"] == "assistant" else ""
    if prefill and text.lstrip().startswith(prefill):
        text = text.lstrip().removeprefix(prefill)
    return (text.split(stop)[0] if stop else text).strip()


def option_weights(tokens: Sequence[Token], options: Sequence[str]) -> NDArray[np.float64]:
    """Return the log-probability of the token with which each option starts.

    Leading spaces count for nothing, as servers differ in how they show them. Of several tokens the
    longest counts ("goo" before "g"), and of two that differ in spaces the likelier.

    Args:
        tokens: The likeliest first tokens, at least one.
        options: The texts to weigh.

    Returns:
        One number per option. An option that starts with none of the tokens gets the smallest of
        their log-probabilities less 1: it is less likely than all of them, how much is not told.
    """
    by_likelihood = sorted(tokens, key=lambda token: token.logprob)
    logprobs = {token.token.lstrip(): token.logprob for token in by_likelihood}
    floor = by_likelihood[0].logprob - 1

    def weight(option: str) -> float:
        starts = [start for start in logprobs if start and option.lstrip().startswith(start)]
        return logprobs[max(starts, key=len)] if starts else floor

    return np.array([weight(option) for option in options])


class ServerModel:
    """A chat model that a server runs, asked over HTTP.

    Messages go as they are: a model whose chat template knows no system message makes its server
    refuse them. The same seed gives the same reply only as far as the server keeps that promise;
    most don't across batches.

    Args:
        name: How the model is called in results.
        settings: Where it is served, and how it may be asked.
    """

    path: ClassVar[str] = "chat/completions"
    """Below the server's `url`."""
    choice: ClassVar[type[Choice]] = Choice
    """What a reply is read as."""

    def __init__(self, name: str, settings: ServerSettings) -> None:
        self.name = name
        self.settings = settings
        self.account = Account(settings.price_in, settings.price_out)

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
        """Reply to each conversation; see `ChatModel.generate`.

        `no_repeat` and `min_new_tokens` have no counterpart in OpenAI's protocol, and are left out.

        Returns:
            The replies. Where the server gave none that is usable, however often it was asked, the
            reply is empty and `account.failures` holds the reason.

        Raises:
            StudyError: No reply can be had at all: there is no connection, the key is refused, the
                model unknown, or the server can't continue a prefill.
        """
        how: Body = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        if stop:
            how["stop"] = stop
        how |= self._more(min_new_tokens)
        choices = self._ask_all(
            [
                {**self._told(conversation), **how, "seed": seed}
                for conversation, seed in zip(conversations, seeds, strict=True)
            ]
        )
        return [
            self._reply(choice, conversation, stop)
            for choice, conversation in zip(choices, conversations, strict=True)
        ]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Weigh options by the first token of each; see `ChatModel` and `option_weights`.

        Options that begin with the same token can't be told apart.

        Raises:
            StudyError: As for `generate`, and where the server weighs no tokens, or gave no usable
                answer: no weights can stand for those that are missing.
        """
        how: Body = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP, "temperature": 1.0}
        found = self._weighed([{**self._told(one), **how} for one in conversations])
        return [option_weights(some, texts) for some, texts in zip(found, options, strict=True)]

    def _told(self, conversation: Conversation) -> Body:
        """Return the part of a request that tells the conversation."""
        return begin(conversation)

    def _more(self, min_new_tokens: int) -> Body:
        """Return what else a request to write holds, where the server knows more than OpenAI's."""
        return {}

    def _weighed(self, bodies: Sequence[Body]) -> list[list[Token]]:
        """Return the first tokens that the server weighed for each request.

        Raises:
            StudyError: It did not.
        """
        found = []
        for choice in self._ask_all(bodies):
            if isinstance(choice, NoReplyError):
                raise StudyError(
                    f"The server {self.settings.url} gave no answer from which options can be "
                    f"weighed ({choice}): see what it logs, then go on with the same command."
                )
            found.append(choice.first_tokens)
        return found

    def _reply(self, choice: Choice | NoReplyError, conversation: Conversation, stop: str) -> str:
        """Return the words of a choice; none, and that is counted, where it holds none."""
        if isinstance(choice, NoReplyError):
            return ""
        text = own_words(choice.words, conversation, stop)
        if not text:
            self.account.add(failures=["empty reply"])
        return text

    def _ask_all(self, bodies: Sequence[Body]) -> list[Choice | NoReplyError]:
        """Ask many conversations at once; the choices are in their order."""
        if not bodies:
            return []
        with (
            connection(self.settings) as client,
            ThreadPoolExecutor(self.settings.concurrency) as threads,
        ):
            # an error that ends the study also cancels, in `map`, what has not begun
            return list(threads.map(partial(self._ask, client), bodies))

    def _ask(self, client: httpx.Client, body: Body) -> Choice | NoReplyError:
        """Ask one conversation, again while that may help; return why if there is no reply."""
        try:
            return with_patience(
                self.settings,
                partial(self._post, client, body),
                partial(self.account.add, retries=1),
            )
        except NoReplyError as error:
            self.account.add(failures=[str(error)])
            return error

    def _post(self, client: httpx.Client, body: Body) -> Choice:
        """Send one request and read the answer."""
        self.account.add(requests=1)
        response = send(client, self.path, {"model": self.settings.model, **body})
        self._check(response, body)
        try:
            answer = Answer[self.choice].model_validate_json(response.content)  # type: ignore[name-defined]
        except ValidationError as error:
            is_json = error.errors()[0]["type"] != "json_invalid"
            raise PassingError("JSON without a reply" if is_json else "not JSON") from None
        if answer.usage:
            self.account.add(**answer.usage.model_dump())
        choice: Choice = answer.choices[0]
        if "logprobs" in body and not choice.first_tokens:
            raise StudyError(
                f"The server {self.settings.url} returns no log-probabilities, so "
                f"'{self.settings.model}' can only write: name a model that weighs options "
                "instead, such as one that transformers loads or vLLM serves."
            )
        return choice

    def _check(self, response: httpx.Response, body: Body) -> None:
        """Return if the request was granted.

        Raises:
            PassingError: It was not, but another try may help.
            NoReplyError: It was refused for good.
            StudyError: All requests will be.
        """
        status = response.status_code
        found = f"The server {self.settings.url} answered HTTP {status}"
        if status in PASSING or status >= 500:
            wait = seconds_asked(response.headers.get("Retry-After", ""))
            if wait > LONGEST_WAIT:
                raise StudyError(
                    f"{found} and asks to wait {wait:.0f} seconds: go on after that with the same "
                    "command."
                )
            raise PassingError(f"HTTP {status}", wait)
        if status in (401, 403):
            variable = self.settings.key
            raise StudyError(
                f"{found}: it refuses the key in the environment variable {variable}; put a valid "
                "one in it."
                if variable
                else f"{found}: it wants a key; put it in an environment variable, whose name goes "
                "in `key`."
            )
        if status == 404:
            raise StudyError(
                f"{found} to a request for the model '{self.settings.model}': mend `model`, or "
                "`url`, which should end in /v1 on most servers."
            )
        if 300 <= status < 400:
            elsewhere = response.headers.get("Location", "another address")
            raise StudyError(f"{found}, which sends to {elsewhere}: mend `url`.")
        if response.is_success:
            return
        said = said_by(response, self.settings)
        if "continue_final_message" in body and re.search(
            "continue_final_message|add_generation_prompt", said
        ):
            raise StudyError(
                f"{found} ({said}): it can't continue a reply begun for it, so choose a server "
                "that can, such as vLLM, or decoding 'free' if it was to act dialogues."
            )
        raise NoReplyError(f"HTTP {status}: {said}")
