"""A model's choice between a few words, freed of its liking for one of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from clca_utils.chat_model import ChatModel, Conversation


def weigh(
    model: ChatModel,
    conversations: Sequence[Conversation],
    content_free: Sequence[Conversation],
    options: Sequence[str],
) -> NDArray[np.float64]:
    """Return the calibrated probability of each option for each conversation.

    Contextual calibration (Zhao et al. 2021, arXiv 2102.09690): the option probabilities are
    divided by those the model gives where there is nothing to judge, then renormalised. A model
    that says "good" to everything thereby says 0.5.

    Args:
        model: The judge.
        conversations: What to judge, n of them, each ending where an option would follow.
        content_free: The same requests about "N/A", n of them.
        options: The k continuations to choose from.

    Returns:
        An array of shape (n, k), rows summing to 1.
    """
    asked = [*content_free, *conversations]
    blank, scores = np.split(np.array(model.option_logprobs(asked, [options] * len(asked))), 2)
    return np.asarray(softmax(scores - blank, axis=1))
