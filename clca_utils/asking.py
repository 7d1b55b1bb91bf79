"""Stage 05, first half: the survey's items are put to a model, and its weights noted.

The model never has to obey a format: it is asked how probable the number of each option is as its
first word. Each item is asked with its options in every rotated order, so that a liking for "1"
spreads evenly over the options.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel

from clca_utils.chat_model import ChatModel, Conversation, system, user
from clca_utils.culture import Culture
from clca_utils.files import fingerprint, in_batches
from clca_utils.survey import SurveyItem

FRAME = {
    "gender": ["a woman", "a man"],
    "settlement": ["in a village", "in a small town", "in a large city"],
    "education": [
        "finished primary school",
        "finished secondary school",
        "hold a university degree",
    ],
    "marital": ["single", "married", "divorced", "widowed"],
    "employment": ["employed", "self-employed", "looking for work", "retired", "a student"],
}
"""Categories that the WVS questionnaire asks respondents about, in our words."""


class Respondent(BaseModel):
    """Whom the model is asked to answer as."""

    id: int
    description: str
    synthetic: bool


class Asked(BaseModel):
    """One item in one order, put to the model as one respondent."""

    respondent: int
    qid: str
    order: int
    logprobs: list[float]


def synthetic_respondents(culture: Culture, count: int, seed: int) -> list[Respondent]:
    """Return made-up respondents; with `count` 0, one person of whom only the country is known.

    Every category of the frame is equally likely, so a sample is not representative of anyone; it
    varies the persona, no more.

    Args:
        culture: Where they live.
        count: How many.
        seed: Of the draws.
    """
    if count == 0:
        text = f"You are a person living in {culture.country}."
        return [Respondent(id=0, description=text, synthetic=False)]
    rng = random.Random(f"{seed}/{culture.iso3}/respondents")
    people = []
    for number in range(count):
        drawn = {name: rng.choice(values) for name, values in FRAME.items()}
        age = rng.randint(18, 80)
        text = (
            f"You are {drawn['gender']} of {age} living {drawn['settlement']} in "
            f"{culture.country}. You are {drawn['marital']}, you {drawn['education']}, "
            f"and you are {drawn['employment']}."
        )
        people.append(Respondent(id=number, description=text, synthetic=True))
    return people


def rotated(options: Sequence[str], order: int) -> list[str]:
    """Return the options in a rotated order: position p shows option (p + order) mod k."""
    return [*options[order:], *options[:order]]


def item_prompt(respondent: Respondent, item: SurveyItem, order: int) -> Conversation:
    """Ask a respondent one item, the options numbered in the order given."""
    lines = [f"{i}. {text}" for i, text in enumerate(rotated(item.options, order), start=1)]
    return [
        system(
            f"{respondent.description} You take part in a survey. Answer each question as you "
            "would, with the number of one option and nothing else."
        ),
        user("\n".join([item.question, *lines])),
    ]


def ask_respondent(
    model: ChatModel, respondent: Respondent, items: Sequence[SurveyItem], orders: str
) -> list[Asked]:
    """Put all items to the model as one respondent, in one batch that shares the persona."""
    asked = [
        (item, order)
        for item in items
        for order in range(len(item.options) if orders == "all" else 1)
    ]
    weights = model.option_logprobs(
        [item_prompt(respondent, item, order) for item, order in asked],
        [[str(i + 1) for i in range(len(item.options))] for item, _ in asked],
    )
    return [
        Asked(respondent=respondent.id, qid=item.qid, order=order, logprobs=row.tolist())
        for (item, order), row in zip(asked, weights, strict=True)
    ]


def ask(
    model: ChatModel,
    respondents: Sequence[Respondent],
    items: Sequence[SurveyItem],
    *,
    variant: str,
    orders: str,
    ledger: Path,
    key: str,
) -> pd.DataFrame:
    """Put the items to the model as every respondent; respondents once done survive a kill.

    Args:
        model: Who answers.
        respondents: As whom.
        items: The survey's items.
        variant: How this model is called in the table: "before" or "after".
        orders: "all" rotated orders of the options, or only the "first".
        ledger: Where finished respondents are kept meanwhile.
        key: Fingerprint of the model's weights.

    Returns:
        One row per option asked: variant, respondent, qid, order, option (code from 1), position
        (from 1), logprob (natural log, not normalised over the options).
    """
    asked = in_batches(
        respondents,
        lambda some: [
            row for person in some for row in ask_respondent(model, person, items, orders)
        ],
        schema=Asked,
        batch_size=1,
        ledger=ledger,
        key=fingerprint(key, respondents, items, orders),
        what=f"respondents {variant}",
    )
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "respondent": row.respondent,
                "qid": row.qid,
                "order": row.order,
                "option": (position + row.order) % len(row.logprobs) + 1,
                "position": position + 1,
                "logprob": logprob,
            }
            for row in asked
            for position, logprob in enumerate(row.logprobs)
        ]
    )
