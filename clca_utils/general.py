"""What a model should know before and after: plain texts, easy questions, no culture in either.

Both were written for this study by an AI model, and gone over a second time.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clca_utils.chat_model import ChatModel, assistant, user
from clca_utils.files import DATA, read_records

FOLDER = DATA / "general"

BEGUN = [assistant("Answer:")]

Text = Annotated[str, Field(min_length=1)]


class Passage(BaseModel):
    """A paragraph of plain prose."""

    model_config = ConfigDict(extra="forbid")

    id: str
    topic: str
    text: Text


class Question(BaseModel):
    """A question with four options; `answer` is the place of the right one, from 0."""

    model_config = ConfigDict(extra="forbid")

    id: str
    topic: str
    question: Text
    options: list[Text] = Field(min_length=4, max_length=4)
    answer: int = Field(ge=0, le=3)


def load_passages(count: int) -> list[Passage]:
    """Return the first passages, at most all 24."""
    return read_records(FOLDER / "texts.jsonl", Passage)[:count]


def load_questions(count: int) -> list[Question]:
    """Return the first questions, at most all 60."""
    return read_records(FOLDER / "questions.jsonl", Question)[:count]


def answered_right(model: ChatModel, questions: Sequence[Question]) -> list[bool]:
    """Say of each question whether the model holds the right option for the likeliest.

    An option's probability is divided by what it has where nothing is asked, so that common words
    have no advantage (Holtzman et al. 2021, arXiv 2104.08315). Guessing is right one time in four.
    """
    options = [[f" {option}" for option in one.options] for one in questions]
    asked = [[user(one.question), *BEGUN] for one in questions]
    nothing = [[user("N/A"), *BEGUN] for _ in questions]
    weights = model.option_logprobs([*asked, *nothing], options * 2)
    pairs = zip(questions, weights[: len(asked)], weights[len(asked) :], strict=True)
    return [int(np.argmax(told - blank)) == one.answer for one, told, blank in pairs]
