"""Tiny models with random weights, one of each family, with the family's own chat template.

The templates are those that TRL ships, but for Mistral's, which it does not: here one is written in
its manner. All share the embedded model's tokenizer, with the family's marks added to it.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
import trl
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

TEMPLATES = Path(trl.__file__).parent / "chat_templates"

# Roles must alternate; the system message goes before the last user message, if that ends the
# conversation, and else nowhere.
MISTRAL = (
    "{% set told = messages[0].content if messages[0].role == 'system' else '' %}{{ bos_token }}"
    "{% for m in (messages[1:] if told else messages) %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, user first') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ told + '\n\n' if loop.last and told else '' }}"
    "{{ m.content }}[/INST]{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """What makes a family: its architecture, its template, and how a reply is closed."""

    architecture: str
    template: str
    reply: str
    marks: list[str]
    special: dict[str, str] = field(default_factory=dict)

    def tokenizer(self, shared: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return a tokenizer that writes as the family does."""
        own = copy.deepcopy(shared)
        own.add_tokens(["\n\n"])  # in Llama 3's and Qwen's vocabularies a token wherever it stands
        own.add_special_tokens({"additional_special_tokens": self.marks} | self.special)
        path = TEMPLATES / f"{self.template}.jinja"
        own.chat_template = path.read_text() if self.template else MISTRAL
        return own

    def weights(self, own: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Return a model of the family's architecture, two thin layers with random weights."""
        torch.manual_seed(0)
        shape = {
            "vocab_size": len(own), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "max_position_embeddings": 8192, "bos_token_id": own.bos_token_id,
            "eos_token_id": own.eos_token_id, "pad_token_id": own.pad_token_id,
        }  # fmt: skip
        config = getattr(transformers, f"{self.architecture}Config")(**shape)
        return AutoModelForCausalLM.from_config(config)


IM = {"eos_token": "<|im_end|>"}
FAMILIES = {
    "llama 3": Family(
        "Llama", "llama3", "{}<|eot_id|>",
        ["<|start_header_id|>", "<|end_header_id|>"],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "qwen 2.5": Family("Qwen2", "qwen2_5", "{}<|im_end|>", [], IM),
    "qwen 3": Family("Qwen3", "qwen3", "{}<|im_end|>", ["<think>", "</think>"], IM),
    "mistral": Family(
        "Mistral", "", " {}</s>", ["[INST]", "[/INST]"], {"bos_token": "<s>", "eos_token": "</s>"}
    ),
    "gemma": Family(
        "Gemma", "gemma", "{}<end_of_turn>", ["<start_of_turn>"],
        {"bos_token": "<bos>", "eos_token": "<end_of_turn>"},
    ),
    "gemma 3": Family(
        "Gemma3Text", "gemma3", "{}<end_of_turn>", ["<start_of_turn>"],
        {"bos_token": "<bos>", "eos_token": "<end_of_turn>"},
    ),
    "phi 3": Family(
        "Phi3", "phi3", "{}<|end|>", ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        {"eos_token": "<|endoftext|>"},
    ),
}  # fmt: skip
