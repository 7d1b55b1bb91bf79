"""Stage 04: what its examples are made from, conversations or what a control learns in their place.

Two controls say what a change is worth. Text without culture: whatever moves there is moved by
training as such. And what the country's people answered to half of the survey's items: how far
answers to the other half can be moved by showing the model answers, an upper reference.
"""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from clca_utils.adaptation import load_scenarios
from clca_utils.asking import item_prompt
from clca_utils.authored import load_authored
from clca_utils.chat_model import assistant, user
from clca_utils.choices import WITHOUT_ACTING, Source, Task
from clca_utils.culture import Culture, load_culture
from clca_utils.dialogue import Dialogue, with_scenes
from clca_utils.examples import Example, build_examples
from clca_utils.files import StudyError, read_records, seed_of
from clca_utils.intent import Intent
from clca_utils.items import load_items
from clca_utils.judging import Judgement, kept_dialogues
from clca_utils.measures import Floats
from clca_utils.respondents import respondents
from clca_utils.scenario import Scenario
from clca_utils.survey import country_shares, load_marginals

ANSWERS = 2
"""Answers shown to each item in each order of its options."""

TRUSTED = "A"
"""The tier of people's shares that may be learnt from; the others are for evaluation alone."""

GO_ON = "Go on with this text: {start}"


def examples_from(
    source: Source, data: Path, culture: str, tasks: Mapping[Task, float], seed: int
) -> list[Example]:
    """Return the training examples of a run.

    Args:
        source: What they are made from.
        data: The folder in which stages 01 to 03 wrote; read unless the source needs none of it.
        culture: Whose conversations, or survey answers, by name or path.
        tasks: How often each task's examples are taken, where they are made from conversations.
        seed: Of every draw.

    Raises:
        StudyError: What is to be learnt from is missing, or nothing of it is left.
    """
    if source == "survey":
        return survey_examples(load_culture(culture), seed)
    examples: list[Example] = []
    if source not in WITHOUT_ACTING:
        examples += build_examples(*simulated_of(data, culture), tasks, seed)
    if source == "neutral":
        return neutral_examples(words_learnt(examples), seed)
    if source != "simulated":
        examples += build_examples(*load_authored(culture, "learn"), tasks, seed)
    return examples


def simulated_of(data: Path, culture: str) -> tuple[list[Scenario], list[Dialogue], list[Intent]]:
    """Return the scenarios of stage 01, the dialogues that stage 02 kept, the intents of 03."""
    dialogues = read_records(data / "dialogues.jsonl", Dialogue, "02_dialogue_simulation")
    judgements = read_records(data / "judgements.jsonl", Judgement, "02_dialogue_simulation")
    intents = read_records(data / "intents.jsonl", Intent, "03_intent_extraction")
    scenarios, kept = load_scenarios(data, culture), kept_dialogues(dialogues, judgements)
    with_scenes(scenarios, kept)
    return scenarios, kept, intents


def words_learnt(examples: Sequence[Example]) -> int:
    """Return how many words the assistant says in some examples."""
    messages = [one for some in examples for one in some.messages]
    return sum(len(one["content"].split()) for one in messages if one["role"] == "assistant")


def plain_paragraphs() -> list[str]:
    """Return paragraphs without culture: of the language reference that comes with Python."""
    pieces = [piece for _, text in sorted(topics.items()) for piece in re.split(r"\n\s*\n", text)]
    flat = [" ".join(piece.split()) for piece in pieces]
    prose = re.compile(r"[A-Z][^{}<>|\\]*?[a-z)]\. [A-Z][^{}<>|\\]*\.")
    unique = dict.fromkeys(flat)  # some stand in several places
    plain = [piece for piece in unique if piece.replace("’", "").isascii()]
    return [piece for piece in plain if prose.fullmatch(piece) and len(piece.split()) <= 150]


def neutral_examples(words: int, seed: int) -> list[Example]:
    """Return the control's examples: a text is begun, the assistant goes on with it.

    Args:
        words: How many the assistant shall say in all, at least; paragraphs come again after all
            were taken.
        seed: Of their order.
    """
    paragraphs = plain_paragraphs()
    random.Random(seed_of(seed, "neutral")).shuffle(paragraphs)
    examples: list[Example] = []
    while words > 0:
        place = len(examples)
        start, rest = re.split(r"(?<=[.:]) ", paragraphs[place % len(paragraphs)], maxsplit=1)
        said = [user(GO_ON.format(start=start)), assistant(rest)]
        examples.append(Example(f"neutral-{place}", "neutral", said))
        words -= len(rest.split())
    return examples


def survey_examples(culture: Culture, seed: int) -> list[Example]:
    """Return the upper reference's examples: items to learn from, answered as the people did.

    Each item is asked in every order of its options; over the orders the answers come as often as
    people gave them.

    Raises:
        StudyError: Of no item to learn from, the people's answers are known well enough.
    """
    items = load_items("learn")
    known = load_marginals()
    shares = country_shares(known[known["tier"] == TRUSTED], culture.iso3, items)
    (person,) = respondents(culture, "nationality")
    examples = []
    for item in items:
        if item.qid not in shares:
            continue
        count = len(item.options)
        orders = [*range(count)] * ANSWERS
        given = as_often(shares[item.qid], len(orders))
        random.Random(seed_of(seed, "survey", item.qid)).shuffle(given)
        for order, option in zip(orders, given, strict=True):
            label = item.labels[(option - order) % count]
            said = [*item_prompt(person, item, order), assistant(label)]
            examples.append(Example(item.qid, "survey", said))
    if not examples:
        raise StudyError(
            f"learn_from is survey, but no shares of tier {TRUSTED} are known of the people of "
            f"{culture.country}: choose another culture for this variant."
        )
    return examples


def as_often(shares: Floats, count: int) -> list[int]:
    """Return `count` options, from 0, each about as often as its share says.

    Systematic sampling: option j is taken at the midpoints of `count` equal steps that fall into
    its part of the cumulated shares.
    """
    steps = (np.arange(count) + 0.5) / count
    places = np.searchsorted(np.cumsum(shares), steps, side="right")
    return [int(place) for place in np.minimum(places, len(shares) - 1)]
