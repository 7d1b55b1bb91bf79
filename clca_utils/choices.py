"""What a study can choose between: the words that its parameters may take."""

from typing import Literal, get_args

Task = Literal["imitation", "intent"]
"""What is learnt from a conversation; see `examples`."""

Batching = Literal["random", "by_length", "packed"]
"""How training examples share a batch: drawn by lot, beside others of about the same length, or
several in one row up to the longest length, which none can see across."""

Precision = Literal["auto", "fp32", "bf16", "4bit"]
"""How a model's weights are held while an adapter is learnt; see `transformers_model.load_weights`.
"""

Source = Literal["simulated", "authored", "both", "neutral", "survey"]
"""What is learnt from: the conversations of stages 01 to 03, those written for this study, both; or
what controls learn from: text without culture, or what people answered to items; see `sources`."""

WITHOUT_ACTING: tuple[Source, ...] = ("authored", "survey")
"""Sources that need nothing of what stages 01 to 03 write."""

ItemSet = Literal["values", "map", "all", "learn", "held-out"]
"""Which items are asked: the 44, those of the cultural map, or both; of the 44 those that a control
may learn from, or the others."""

Prompt = Literal["none", "nationality", "descriptors", "persona", "native"]
"""As whom a model is asked; see `respondents.respondents`."""

PERSONAL: tuple[Prompt, ...] = ("persona", "native")
"""Prompts that tell one respondent from another."""

Method = Literal["weigh", "generate"]
"""How a model answers: its options are weighed, or it writes and is read."""

Orders = Literal["all", "first"]
"""In which orders the options stand: every rotation, or the questionnaire's own."""

Check = Literal["paraphrase", "retest", "prompts", "cultures"]
"""What else is asked to see how far the answers can be trusted; see `checks`."""

CHECKS: tuple[Check, ...] = get_args(Check)

RunFigures = Literal["first", "all"]
"""Of which runs of the method stage 06 draws their own figures once more."""

Dtype = Literal["float32", "bfloat16", "float16"]
"""Of the weights of an exported model."""
