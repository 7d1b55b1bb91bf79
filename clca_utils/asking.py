"""Stage 05, first half: the survey's items are put to a model, and its answers noted.

A model is asked how probable the label of each option is as its first word, so it never has to
obey a format. Each item is asked with its options in every rotated order, so that a liking for "1"
spreads evenly over the options, and beside a question without content, which shows that liking
bare. A model on a server that tells no probabilities writes its answer instead.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from clca_utils.answers import SCHEMA, is_written, read_answers, write_part
from clca_utils.chat_model import ChatModel, Conversation, system, user
from clca_utils.choices import Method, Orders
from clca_utils.files import DATA, StudyError, fingerprint, package_files, seed_of, shown
from clca_utils.items import SurveyItem
from clca_utils.replies import read_reply
from clca_utils.respondents import JOINT, Respondent, persona_words

PART = 8
"""Respondents in a part: what a kill can cost."""

REPLY_TOKENS = 12
"""Longest written answer, in tokens: a label with the start of its option's text."""

WRITTEN = 32
"""Answers written in one batch."""

NOTHING = "N/A"


Row = tuple[object, ...]
"""A row of the table from `qid` on."""


class Questionnaire(NamedTuple):
    """Who is asked what, and how.

    Attributes:
        condition: Its name in the table: "main", or a validity check's.
        respondents: Those asked.
        items: What they are asked.
        orders: "all" rotated orders of the options, or only the "first".
        method: "weigh" the options, or "generate" and read what was written.
        temperature: Of a written answer; 0 takes the likeliest.
        seed: Of a written answer.
    """

    condition: str
    respondents: Sequence[Respondent]
    items: Sequence[SurveyItem]
    orders: Orders = "all"
    method: Method = "weigh"
    temperature: float = 1.0
    seed: int = 0

    def asked(self) -> list[tuple[SurveyItem, int]]:
        """Return each item with each order it is asked in."""
        return [
            (item, order)
            for item in self.items
            for order in range(len(item.options) if self.orders == "all" else 1)
        ]


def rotated(options: Sequence[str], order: int) -> list[str]:
    """Return the options in a rotated order: position p shows option (p + order) mod k."""
    return [*options[order:], *options[:order]]


def item_prompt(respondent: Respondent, item: SurveyItem, order: int) -> Conversation:
    """Ask a respondent one item, the options labelled in the order given."""
    instruction = persona_words(respondent.language).instruction
    how = instruction.number if item.labels[0] == "1" else instruction.letter
    told = [respondent.description, how] if respondent.description else [how]
    shown = zip(item.labels, rotated(item.options, order), strict=True)
    lines = [f"{label}. {text}" for label, text in shown]
    return [
        system(JOINT.get(respondent.language, " ").join(told)),
        user("\n".join([item.question, *lines])),
    ]


def content_free(count: int) -> SurveyItem:
    """Return a question that says nothing, with as many options (Zhao et al. 2021)."""
    return SurveyItem(qid="Q0", topic="none", question=NOTHING, options=[NOTHING] * count)


def weigh_items(model: ChatModel, respondent: Respondent, form: Questionnaire) -> Iterator[Row]:
    """Put all items to the model as one respondent, in one batch that shares the persona."""
    asked = form.asked()
    counts = sorted({len(item.options) for item in form.items})
    blanks = [content_free(count) for count in counts]
    prompts = [*asked, *((blank, 0) for blank in blanks)]
    weights = model.option_logprobs(
        [item_prompt(respondent, item, order) for item, order in prompts],
        [item.labels for item, _ in prompts],
    )
    blank_of = dict(zip(counts, weights[len(asked) :], strict=True))
    for (item, order), row in zip(asked, weights, strict=False):
        blank = blank_of[len(item.options)]
        yield from _rows(item, order, row.tolist(), blank.tolist(), "weighed", "")


def write_items(model: ChatModel, respondent: Respondent, form: Questionnaire) -> Iterator[Row]:
    """Let the model write its answer to each item as one respondent, and read it."""
    asked, replies = form.asked(), list[str]()
    for start in range(0, len(asked), WRITTEN):
        some = asked[start : start + WRITTEN]
        replies += model.generate(
            [item_prompt(respondent, item, order) for item, order in some],
            max_new_tokens=REPLY_TOKENS,
            seeds=[seed_of(form.seed, respondent, item.qid, order) for item, order in some],
            temperature=form.temperature,
            min_new_tokens=1,  # "2" is a whole answer
        )
    for (item, order), reply in zip(asked, replies, strict=True):
        options = rotated(item.options, order)
        position, status = read_reply(reply, item.labels, options)
        chosen = [0.0 if place == position else -math.inf for place in range(len(options))]
        yield from _rows(item, order, chosen, [0.0] * len(options), status, reply)


def _rows(
    item: SurveyItem,
    order: int,
    logprobs: Sequence[float],
    blanks: Sequence[float],
    *words: str,
) -> Iterator[Row]:
    """Return one item's rows in the table, from `qid` on; `words` are status and reply."""
    count = len(logprobs)
    for place, (logprob, blank) in enumerate(zip(logprobs, blanks, strict=True)):
        option = (place + order) % count + 1
        yield item.qid, order, option, place + 1, logprob, blank, *words


def ask(
    model: ChatModel,
    forms: Sequence[Questionnaire],
    *,
    variant: str,
    parts: Path,
    key: str,
) -> list[Path]:
    """Put questionnaires to the model; respondents once asked survive a kill.

    Args:
        model: Who answers.
        forms: What is asked; each under its own condition.
        variant: How this model is called in the table: "before" or "after".
        parts: Folder of the parts, which are kept until the caller has joined them.
        key: Fingerprint of the model's weights.

    Returns:
        The parts, in order, with the columns of `answers.SCHEMA`.
    """
    written = []
    ways = {"weigh": weigh_items, "generate": write_items}
    total = sum(len(form.respondents) for form in forms)
    with tqdm(total=total, desc=f"respondents, {variant}", mininterval=1.0) as progress:
        for form in forms:
            # a part of another version of this package isn't resumed
            whole = fingerprint(key, variant, form, DATA / "personas", *package_files())
            for start in range(0, len(form.respondents), PART):
                some = form.respondents[start : start + PART]
                path = parts / variant / fingerprint(form.condition) / f"{start:06d}.parquet"
                if not is_written(path, whole):
                    rows = [
                        (variant, form.condition, person.id, *row)
                        for person in some
                        for row in ways[form.method](model, person, form)
                    ]
                    columns = map(list, zip(*rows, strict=True))
                    write_part(path, dict(zip(SCHEMA.names, columns, strict=True)), whole)
                written.append(path)
                progress.update(len(some))
    return written


def taken_over(folder: Path, forms: Sequence[Questionnaire], parts: Path) -> Path:
    """Take over what the untrained model answered in another run that asks it the same.

    Args:
        folder: The other run's.
        forms: What this run asks.
        parts: Folder of the parts.

    Returns:
        The part with the other run's answers before training.

    Raises:
        StudyError: There are no such answers, or they are to other questions.
    """
    path = folder / "answers.parquet"
    answers = read_answers(path, SCHEMA.names).query("variant == 'before'")
    found = answers["condition"].value_counts().to_dict()
    asked = {
        form.condition: len(form.respondents) * sum(len(one.options) for one, _ in form.asked())
        for form in forms
    }
    if {name: count for name, count in found.items() if count} != asked:
        raise StudyError(
            f"{shown(path)} holds answers to other questions than this run asks: leave before_dir "
            "empty."
        )
    part = parts / "before" / "taken_over.parquet"
    write_part(part, {name: answers[name].tolist() for name in SCHEMA.names}, fingerprint(path))
    return part
