"""A chat model run by transformers: any local folder or hub id, with or without an adapter."""

import contextlib
import itertools
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from jinja2.exceptions import TemplateError
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_bitsandbytes_available

from clca_utils.chat_model import Conversation, Message, assistant, system, user
from clca_utils.choices import Precision
from clca_utils.decoding import (
    SPARE,
    Draw,
    Memory,
    Rows,
    batches,
    fits,
    read_packs,
    remember,
    reply,
)
from clca_utils.files import UNWRITABLE, StudyError, read_json, shown
from clca_utils.params import model_source
from clca_utils.prefix_tree import Tokens, packed, read_last, shared_start

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""The kinds of layer, as transformers names them, whose caches hold keys and values alone."""

DATE = "26 Jul 2024"
"""The date that Llama 3's templates tell the model, and their own default: today's would change the
prompts, and with them the results, from day to day."""


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Hide that peft and trl still call transformers by a name that its next version drops."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*_gradient_checkpointing", category=FutureWarning
        )
        yield


def where(source: str | Path) -> dict[str, bool]:
    """Return how transformers may look for a model: a folder here alone, and never run its code."""
    return {"local_files_only": Path(source).is_dir(), "trust_remote_code": False}


def unloadable(source: str | Path, error: Exception) -> Exception:
    """Say why a model could not be loaded, and what to look at; a full disk is told elsewhere."""
    if getattr(error, "errno", None) in UNWRITABLE:
        return error
    reason = str(error).strip().splitlines()[0]
    if "trust_remote_code" in str(error):
        return StudyError(
            f"The model {source} comes with code of its own, which is never run here: choose one "
            "that transformers knows by itself."
        )
    return StudyError(
        f"The model {source} could not be loaded ({reason}): check its id or path, your login to "
        "the hub and the model's licence there; only safetensors are read."
    )


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model folder or hub id, with a padding token.

    Raises:
        StudyError: There is no such model, its tokenizer is slow, or it is no chat model.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **where(source))
    except (OSError, ValueError) as error:
        raise unloadable(source, error) from None
    if not tokenizer.is_fast:
        raise StudyError(f"{source} has no fast tokenizer, which tells where words begin and end.")
    if not tokenizer.chat_template:
        raise StudyError(f"{source} has no chat template: choose an instruction-tuned model.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def number_format(precision: Precision) -> torch.dtype:
    """Return the format of the weights, or, of those in 4 bits, of what is computed with them."""
    if precision in ("fp32", "bf16"):
        return torch.float32 if precision == "fp32" else torch.bfloat16
    fits = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fits else torch.float32


def quantization() -> BitsAndBytesConfig:
    """Return how weights are held in 4 bits, as by QLoRA (Dettmers et al. 2023, arXiv 2305.14314).

    Raises:
        StudyError: There is no GPU, or bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise StudyError("precision is 4bit, which needs a GPU, and there is none: set auto.")
    if not is_bitsandbytes_available():
        raise StudyError(
            "precision is 4bit, which needs the package bitsandbytes: `pip install bitsandbytes`, "
            "or set auto."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=number_format("4bit"),
    )


def placement(quantized: bool) -> str | dict[str, int] | None:
    """Return where weights are loaded: over all GPUs, or as one of several processes.

    There the trainer moves them, or cuts them up first; quantised ones stay on the process's GPU.
    """
    rank = os.environ.get("LOCAL_RANK")
    if not torch.cuda.is_available() or (rank and not quantized):
        return None
    return {"": int(rank)} if rank else "auto"


def load_weights(source: str | Path, precision: Precision = "auto") -> PreTrainedModel:
    """Return the causal language model.

    Args:
        source: A model folder or hub id.
        precision: auto is bf16 on a GPU that has it, else fp32 (on a CPU, bf16 is slower). A merged
            bf16 adapter is rounded, the paper's nearly away, and bf16 logits move in steps of an
            eighth: both drown the small changes that are measured, so what is measured is fp32.
            4bit is to learn with alone.

    Raises:
        StudyError: The model mixes attention with other layers, or 4 bits can't be had here.
    """
    try:
        config = AutoConfig.from_pretrained(source, **where(source))
    except (OSError, ValueError) as error:
        raise unloadable(source, error) from None
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or []) - ATTENTION
    if kinds:
        raise StudyError(
            f"The model {source} has layers of the kind {', '.join(sorted(kinds))}, whose memory "
            "cannot be shared between prompts: choose one whose layers are all attention."
        )
    try:
        return AutoModelForCausalLM.from_pretrained(
            source,
            dtype=number_format(precision),
            quantization_config=quantization() if precision == "4bit" else None,
            device_map=placement(precision == "4bit"),
            use_safetensors=True,  # a pickle can hold code that runs when it is read
            **where(source),
        )
    except OSError as error:
        raise unloadable(source, error) from None


def with_adapter(weights: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return a model with a LoRA adapter merged in.

    An embedding that is also the output layer is first cut off from it, unless both were learnt
    whole: merging LoRA into the one would change the other as well.
    """
    from peft import PeftModel  # noqa: PLC0415 (slow to import, rarely needed)

    if not (adapter / "adapter_model.safetensors").is_file():
        raise StudyError(
            f"{shown(adapter)} holds no adapter_model.safetensors: run stage 04 again; a pickle "
            "can hold code that runs when it is read."
        )
    tied, head = weights.config.tie_word_embeddings, weights.get_output_embeddings()
    if tied and not read_json(adapter / "adapter_config.json").get("ensure_weight_tying"):
        weights.config.tie_word_embeddings = False
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with unwarned():
        whole = PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload()
    ends = whole.get_input_embeddings().weight, whole.get_output_embeddings().weight
    whole.config.tie_word_embeddings = tied and torch.equal(*ends)
    whole.tie_weights()
    return whole


def load_model(
    name: str,
    adapter: Path | None = None,
    batch_size: int = 32,
    exact: bool = False,
    memory: int = 0,
) -> "TransformersModel":
    """Load a chat model by the name of its file in `params/models`, a local folder or a hub id.

    Args:
        name: The model.
        adapter: Folder of a LoRA adapter to apply.
        batch_size: Rows per forward pass.
        exact: fp32 everywhere; see `load_weights`.
        memory: See `TransformersModel`.
    """
    source = model_source(name)
    tokenizer = load_tokenizer(source)
    weights = load_weights(source, "fp32" if exact else "auto")
    if adapter is not None:
        weights = with_adapter(weights, adapter)
    return TransformersModel(name, weights, tokenizer, batch_size, memory)


@lru_cache
def begins_with_system(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Say whether a chat template keeps a system message at the start of a conversation.

    Gemma's refuses it; Mistral's writes it before the last user message, if that ends the
    conversation, and else not at all.
    """
    probe = [system("(system)"), user("(user)"), assistant("(assistant)")]
    try:
        text = tokenizer.apply_chat_template(probe, chat_template=template, tokenize=False)
        return "(system)" in str(text)
    except TemplateError:
        return False


def apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, reply_next: bool
) -> str:
    """Write messages in the model's own format.

    Where the template does not begin with the system message, it opens the first user message.

    Args:
        tokenizer: With a chat template.
        messages: A conversation.
        reply_next: End with what announces an assistant message.
    """
    shown = list(messages)
    if (
        len(shown) > 1
        and shown[0]["role"] == "system"
        and not begins_with_system(tokenizer, tokenizer.chat_template)
    ):
        opening = user(f"{shown[0]['content']}\n\n{shown[1]['content']}")
        shown = [opening, *shown[2:]]
    text = tokenizer.apply_chat_template(
        shown,
        tokenize=False,
        add_generation_prompt=reply_next,
        date_string=DATE,
        enable_thinking=False,  # Qwen 3's; other templates ignore it
    )
    return str(text)


def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> str:
    """Write a conversation up to where the reply begins, a final assistant message as prefill."""
    *head, last = conversation
    if last["role"] == "assistant":
        return apply_template(tokenizer, head, reply_next=True) + last["content"]
    return apply_template(tokenizer, conversation, reply_next=True)


def split(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], options: Sequence[Sequence[str]]
) -> list[list[tuple[Tokens, Tokens]]]:
    """Return, per prompt and option, the tokens of the prompt and those the option adds.

    Raises:
        StudyError: The tokenizer merges an option with the prompt's end.
    """
    whole = [
        [prompt + option for option in some] for prompt, some in zip(prompts, options, strict=True)
    ]
    texts = list(dict.fromkeys(itertools.chain(prompts, *whole)))
    # one call for all, since many calls are slow
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokens = dict(zip(texts, map(tuple, ids), strict=True))
    splits = []
    for prompt, some in zip(prompts, whole, strict=True):
        head = tokens[prompt]
        for text in some:
            if tokens[text][: len(head)] != head or len(tokens[text]) == len(head):
                raise StudyError(
                    f"The tokenizer of {tokenizer.name_or_path} does not split "
                    f"{text[len(prompt) :]!r} from the text before it ({prompt[-20:]!r}): end the "
                    "prompt with a space or line break."
                )
        splits.append([(head, tokens[text][len(head) :]) for text in some])
    return splits


class TransformersModel:
    """A causal language model and its tokenizer, as a chat model.

    Args:
        name: How the model is called in results.
        weights: The transformers model.
        tokenizer: Its tokenizer, with a chat template.
        batch_size: Rows per forward pass.
        memory: How many tokens of prompts to remember between calls, so that a longer prompt goes
            on where an earlier one ended; 0: none.
    """

    def __init__(
        self,
        name: str,
        weights: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        memory: int = 0,
    ) -> None:
        self.name = name
        self.weights = weights.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.memory = Memory(memory)

    @cached_property
    def _token_texts(self) -> list[str]:
        return list(self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))]))

    def _ends(self, stop: str) -> list[int]:
        """Return the ids of the tokens that end a reply: the model's own, and all with `stop`."""
        own = self.weights.generation_config.eos_token_id
        ends = set(own if isinstance(own, list) else [own]) | {self.tokenizer.eos_token_id}
        if stop:
            ends |= {i for i, text in enumerate(self._token_texts) if stop in text}
        return sorted(end for end in ends if end is not None)

    @torch.inference_mode()
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
        """Reply to each conversation; see `ChatModel.generate`."""
        if not conversations:
            return []
        texts = [render(self.tokenizer, conversation) for conversation in conversations]
        prompts = list(map(tuple, self.tokenizer(texts, add_special_tokens=False)["input_ids"]))
        replies = reply(
            self.weights,
            prompts,
            [
                Draw(seed, temperature, top_p, no_repeat, prompt)
                for seed, prompt in zip(seeds, prompts, strict=True)
            ],
            self.memory,
            size=self.batch_size,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            ends=self._ends(stop),
        )
        self.memory.trim()
        texts = self.tokenizer.batch_decode(replies, skip_special_tokens=True)
        return [(text.split(stop)[0] if stop else text).strip() for text in texts]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Weigh options by forward passes over what they do not share; see `ChatModel`."""
        if not conversations:
            return []
        prompts = [render(self.tokenizer, conversation) for conversation in conversations]
        splits = split(self.tokenizer, prompts, options)
        pairs = {pair for pairs in splits for pair in pairs}
        if self.memory.room:
            scores = self._score_on(pairs)
        elif fits(self.weights, (sum(pair, ()) for pair in pairs)):
            scores = self._score(pairs)
        else:  # a few at a time, since all that is read is kept until they are weighed
            scores, rest, step = {}, sorted(pairs), 4 * self.batch_size
            for first in range(0, len(rest), step):
                scores |= self._score_on(rest[first : first + step])
        return [np.array([scores[pair] for pair in pairs]) for pairs in splits]

    @torch.inference_mode()
    def _score_on(
        self, pairs: Collection[tuple[Tokens, Tokens]]
    ) -> dict[tuple[Tokens, Tokens], float]:
        """Return what `_score` does, going on from what is remembered of each prompt."""
        remember(self.weights, {head for head, _ in pairs}, self.memory, self.batch_size)
        reads: dict[Tokens, list[Tokens]] = {}
        for head, tail in pairs:
            reads.setdefault(head + tail[:-1], []).append(tail)
        keep = max(len(tail) for _, tail in pairs)
        scores: dict[tuple[Tokens, Tokens], float] = {}
        for rows, fresh in list(batches(reads, self.memory, self.batch_size, keep)):
            logits = Rows(self.weights, rows, self.memory, fresh).read(keep)
            for row, found in zip(rows, torch.log_softmax(logits, -1), strict=True):
                for tail in reads[row]:
                    steps = found[torch.arange(keep - len(tail), keep), torch.tensor(tail)]
                    head = row[: len(row) - len(tail) + 1]
                    scores[head, tail] = float(steps.double().sum())
        self.memory.trim()
        return scores

    @torch.inference_mode()
    def _score(
        self, pairs: Collection[tuple[Tokens, Tokens]]
    ) -> dict[tuple[Tokens, Tokens], float]:
        """Return the log-probability of each continuation after its prompt.

        What prompts share is computed once: what all share as a cache, the rest in packs.
        """
        prefix = shared_start({head for head, _ in pairs})
        start = len(prefix)
        memory = Memory(start)
        remember(self.weights, {prefix} - {()}, memory, 1)
        known = memory.recall(prefix, start) if prefix else []
        reads: dict[Tokens, list[tuple[Tokens, Tokens]]] = {}
        for head, tail in sorted(pairs):
            reads.setdefault((head + tail[:-1])[start:], []).append((head, tail))
        packs = sorted(packed(reads, SPARE), key=lambda pack: len(pack.tokens))
        scores: dict[tuple[Tokens, Tokens], float] = {}
        for first in range(0, len(packs), self.batch_size):
            some = packs[first : first + self.batch_size]
            wanted = [
                {
                    place
                    for row, path in pack.paths.items()
                    for head, _ in reads[row]
                    for place in path[len(head) - start - 1 :]
                }
                for pack in some
            ]
            moved = [read_last(pack, read) for pack, read in zip(some, wanted, strict=True)]
            logits, _ = read_packs(self.weights, moved, known, max(map(len, wanted)))
            logprobs = torch.log_softmax(logits, -1)
            for pack, found in zip(moved, logprobs, strict=True):
                offset = len(pack.tokens) - len(found)
                for row, path in pack.paths.items():
                    for head, tail in reads[row]:
                        places = torch.tensor(path[len(head) - start - 1 :][: len(tail)]) - offset
                        steps = found[places, torch.tensor(tail)]
                        scores[head, tail] = float(steps.double().sum())
        return scores
