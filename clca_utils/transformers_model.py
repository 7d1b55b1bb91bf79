"""A chat model run by transformers: any local folder or hub id, with or without an adapter."""

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2.exceptions import TemplateError
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    TopPLogitsWarper,
)

from clca_utils.chat_model import Conversation, Message, user
from clca_utils.files import StudyError
from clca_utils.params import model_source

Tokens = list[int]


def load_tokenizer(source: str | Path) -> Any:
    """Return the tokenizer of a model folder or hub id, with a padding token.

    Raises:
        StudyError: The tokenizer has no chat template, so the model is no chat model.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())
    if not tokenizer.chat_template:
        raise StudyError(f"{source} has no chat template: choose an instruction-tuned model.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_weights(source: str | Path) -> Any:
    """Return the causal language model: bf16 on a GPU, fp32 on a CPU (bf16 is slower there)."""
    on_gpu = torch.cuda.is_available()
    return AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        device_map="auto" if on_gpu else None,
        local_files_only=Path(source).is_dir(),
        use_safetensors=True,
    )


def load_model(name: str, adapter: Path | None = None) -> "TransformersModel":
    """Load a chat model by the name of its file in `params/models`, a local folder or a hub id.

    Args:
        name: The model.
        adapter: Folder of a LoRA adapter to apply.
    """
    source = model_source(name)
    weights = load_weights(source)
    if adapter is not None:
        from peft import PeftModel  # noqa: PLC0415 (slow to import, rarely needed)

        weights = PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload()
    return TransformersModel(name, weights, load_tokenizer(source))


def apply_template(tokenizer: Any, messages: Sequence[Message], *, reply_next: bool) -> str:
    """Write messages in the model's own format.

    Where the template knows no system role, the system message opens the first user message.

    Args:
        tokenizer: With a chat template.
        messages: A conversation.
        reply_next: End with what announces an assistant message.
    """
    options = {"tokenize": False, "add_generation_prompt": reply_next}
    try:
        text = tokenizer.apply_chat_template(list(messages), **options)
    except TemplateError:
        first, second, *rest = messages
        opening = user(f"{first['content']}\n\n{second['content']}")
        text = tokenizer.apply_chat_template([opening, *rest], **options)
    return str(text)


def render(tokenizer: Any, conversation: Conversation) -> str:
    """Write a conversation up to where the reply begins, a final assistant message as prefill."""
    *head, last = conversation
    if last["role"] == "assistant":
        return apply_template(tokenizer, head, reply_next=True) + last["content"]
    return apply_template(tokenizer, conversation, reply_next=True)


class SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Samples by the Gumbel-max trick, each row from its own random numbers.

    The likeliest token after adding Gumbel noise is a sample from the softmax (Gumbel 1954; Maddison
    et al. 2014, arXiv 1411.0030), so greedy search over these scores samples, and a row's reply
    depends on its seed, not on its neighbours in the batch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, sharpened, cut to the nucleus and with noise added."""
        scores = scores.float() / self.temperature
        if self.nucleus is not None:
            scores = self.nucleus(input_ids, scores)
        noise = torch.stack(
            [torch.rand(scores.shape[1], generator=generator) for generator in self.generators]
        )
        return scores - torch.log(-torch.log(noise.clamp_min(1e-20))).to(scores.device)


class TransformersModel:
    """A causal language model and its tokenizer, as a chat model.

    Args:
        name: How the model is called in results.
        weights: The transformers model.
        tokenizer: Its tokenizer, with a chat template.
        batch_size: Sequences per forward pass when weighing options.
    """

    def __init__(self, name: str, weights: Any, tokenizer: Any, batch_size: int = 32) -> None:
        self.name = name
        self.weights = weights.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size

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
    ) -> list[str]:
        """Reply to each conversation in one batch; see `ChatModel.generate`."""
        if not conversations:
            return []
        batch = self.tokenizer(
            [render(self.tokenizer, conversation) for conversation in conversations],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.weights.device)
        sampling = [SeededSampling(seeds, temperature, top_p)] if temperature > 0 else []
        output = self.weights.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            min_new_tokens=min(3, max_new_tokens),  # an empty reply is no reply
            no_repeat_ngram_size=no_repeat,
            logits_processor=LogitsProcessorList(sampling),
            eos_token_id=self._ends(stop),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        replies = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [(reply.split(stop)[0] if stop else reply).strip() for reply in replies]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """Weigh options by forward passes over what they do not share; see `ChatModel`."""
        prompts = [render(self.tokenizer, conversation) for conversation in conversations]
        pairs = [
            self._split(prompt, text)
            for prompt, texts in zip(prompts, options, strict=True)
            for text in texts
        ]
        scores = iter(self._score(pairs))
        return [np.array([next(scores) for _ in texts]) for texts in options]

    def _tokens(self, text: str) -> Tokens:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _split(self, prompt: str, option: str) -> tuple[Tokens, Tokens]:
        """Return the tokens of a prompt and those its option adds.

        Raises:
            StudyError: The tokenizer merges the option with the prompt's end.
        """
        head, whole = self._tokens(prompt), self._tokens(prompt + option)
        if whole[: len(head)] != head or len(whole) == len(head):
            raise StudyError(
                f"The tokenizer of {self.name} does not split {option!r} from the text before it "
                f"({prompt[-20:]!r}): end the prompt with a space or line break."
            )
        return head, whole[len(head) :]

    @torch.inference_mode()
    def _score(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> Iterator[float]:
        """Yield the log-probability of each continuation after its prompt.

        Options of one token need only their prompt, so an item costs one row however many options
        it has. What all prompts share is computed once and its cache reused.
        """
        if not pairs:
            return
        rows = sorted(
            {(*head, *tail[:-1]) for head, tail in pairs}, key=lambda row: (len(row), row)
        )
        keep = max(len(tail) for _, tail in pairs)
        # every row keeps at least as many tokens of its own as logits are asked of it
        prefix = list(commonprefix(rows))[: max(0, len(rows[0]) - keep)]
        device = self.weights.device
        shared = None
        if prefix:
            shared = self.weights(torch.tensor([prefix], device=device)).past_key_values
        logprobs: dict[tuple[int, ...], torch.Tensor] = {}
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            cache = copy.deepcopy(shared)
            if cache is not None:
                cache.batch_repeat_interleave(len(some))
            width = max(len(row) for row in some) - len(prefix)
            ids = torch.full((len(some), width), self.tokenizer.pad_token_id)
            mask = torch.zeros((len(some), len(prefix) + width), dtype=torch.long)
            mask[:, : len(prefix)] = 1
            for i, row in enumerate(some):
                rest = len(row) - len(prefix)
                ids[i, width - rest :] = torch.tensor(row[len(prefix) :])
                mask[i, len(prefix) + width - rest :] = 1
            positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, len(prefix) :]
            logits = self.weights(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                position_ids=positions.to(device),
                past_key_values=cache,
                logits_to_keep=keep,
            ).logits
            logprobs |= zip(some, torch.log_softmax(logits.float(), -1).cpu(), strict=True)
        for head, tail in pairs:
            row = logprobs[(*head, *tail[:-1])]
            steps = torch.arange(len(tail)) - len(tail)
            yield float(row[steps, torch.tensor(tail)].double().sum())
