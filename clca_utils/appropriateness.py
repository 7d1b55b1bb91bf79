"""Stage 04b: does a model's reply fit the person and the scene better after training than before?

Replies to held-out moments are compared blind, each pair in both orders; a judge that prefers
another reply when they change places prefers neither: a tie. What a judge's word is worth is
measured on pairs of written replies, of which one belongs to another scene.
"""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import ChatModel, Conversation, assistant, system, user
from clca_utils.dialogue import Dialogue, as_chat, as_reply, lines_of, told
from clca_utils.files import seed_of
from clca_utils.scenario import Scenario
from clca_utils.weighing import weigh

Preference = Literal["first", "second", "tie"]

NOTHING = "N/A"


class Moment(NamedTuple):
    """A turn of a held-out conversation in which something is to be said."""

    scene: Scenario
    talk: Dialogue
    place: int

    @property
    def written(self) -> str:
        """The reply that its author wrote."""
        return self.talk.turns[self.place].text

    def conversation(self) -> Conversation:
        """Return what the speaker of the turn has seen, up to where the words begin."""
        turn = self.talk.turns[self.place]
        names = [person.name for person in self.scene.people]
        seen = as_chat(self.scene, self.talk.turns[: self.place], names.index(turn.speaker))
        return [*seen, assistant(as_reply(turn).removesuffix(turn.text).rstrip())]


def moments(culture: str, count: int, seed: int) -> list[Moment]:
    """Draw moments of a culture's held-out conversations, one of each, neither first nor last.

    Args:
        culture: Name of its file in `params/cultures`; one without authored conversations has none.
        count: How many, at most.
        seed: Of the draw.
    """
    if culture not in authored_cultures():
        return []
    known = load_authored(culture, "held-out")
    pairs = list(zip(known.scenarios, known.dialogues, strict=True))
    draw = random.Random(seed_of(seed, "moments", culture))
    some = draw.sample(pairs, min(count, len(pairs)))
    said = [[one.index for one in talk.turns if one.action == "speak"] for _, talk in some]
    places = [draw.choice([place for place in row if 2 <= place < row[-1]]) for row in said]
    return [Moment(*pair, place) for pair, place in zip(some, places, strict=True)]


def replies_of(
    model: ChatModel, some: Sequence[Moment], seed: int, max_new_tokens: int
) -> list[str]:
    """Let a model say what comes at each moment, taking the likeliest words."""
    return model.generate(
        [one.conversation() for one in some],
        max_new_tokens=max_new_tokens,
        seeds=[seed_of(seed, "reply", one.talk.id) for one in some],
        stop="\n",
        no_repeat=5,
    )


def question(one: Moment, first: str, second: str) -> Conversation:
    """Ask which of two replies fits better."""
    turn = one.talk.turns[one.place]
    return [
        system(f"You know well how people in {one.scene.country} talk with each other."),
        user(
            f"{one.scene.setting}\n\n{lines_of(one.talk.turns[: one.place])}\n\n"
            f"What might {turn.speaker} say next?\nReply A: {first}\nReply B: {second}\n"
            "Which reply fits the person and the moment better, A or B?"
        ),
        assistant("Reply"),
    ]


def preferences(
    judge: ChatModel, some: Sequence[Moment], firsts: Sequence[str], seconds: Sequence[str]
) -> list[Preference]:
    """Say of each pair which reply a judge prefers, whichever stands first; else it is a tie.

    Args:
        judge: A model that can weigh options.
        some: The moments.
        firsts: A reply to each.
        seconds: Another one.
    """
    if not some:
        return []
    triples = list(zip(some, firsts, seconds, strict=True))
    asked = [question(one, a, b) for one, a, b in triples]
    asked += [question(one, b, a) for one, a, b in triples]
    blanks = [question(one, NOTHING, NOTHING) for one in (*some, *some)]
    liked = weigh(judge, asked, blanks, [" A", " B"])[:, 0]
    words: dict[tuple[bool, bool], Preference] = {(True, False): "first", (False, True): "second"}
    straight, swapped = np.split(liked > 0.5, 2)
    return [
        "tie" if a == b else words.get((bool(x), bool(y)), "tie")
        for (_, a, b), x, y in zip(triples, straight, swapped, strict=True)
    ]


def known_pairs(some: Sequence[Moment]) -> tuple[list[str], list[str]]:
    """Return the written reply to each moment, and one that was written for another scene."""
    fitting = [one.written for one in some]
    return fitting, [*fitting[1:], *fitting[:1]]


def reply_table(
    some: Sequence[Moment],
    before: Sequence[str],
    after: Sequence[str],
    *,
    judged: Sequence[Preference],
    known: Sequence[Preference],
) -> pd.DataFrame:
    """Return one row per moment.

    Returns:
        Columns: id, setting, said (the line before), written, before, after (replies), preferred
        ("before", "after" or "tie"), and judge, what became of the pair whose better half is known
        ("right", "wrong" or "tie").
    """
    names = {"first": "before", "second": "after", "tie": "tie"}
    worth = {"first": "right", "second": "wrong", "tie": "tie"}
    return pd.DataFrame(
        {
            "id": [one.talk.id for one in some],
            "setting": [one.scene.setting for one in some],
            "said": [told(one.talk.turns[one.place - 1]) for one in some],
            "written": [one.written for one in some],
            "before": list(before),
            "after": list(after),
            "preferred": [names[word] for word in judged],
            "judge": [worth[word] for word in known],
        }
    )


def preference_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return how often each side was preferred, and how often the judge was right.

    `replies`, how many; shares `preferred_after`, `preferred_before`, `preferred_tie`,
    `judge_right`, `judge_wrong`, `judge_tie`; and two-sided sign tests without the ties,
    `preferred_p_value` and `judge_p_value` (1 where all are ties).
    """
    metrics = {"replies": float(len(table))}
    for column, (good, bad) in {
        "preferred": ("after", "before"),
        "judge": ("right", "wrong"),
    }.items():
        counts = table[column].value_counts()
        wins, losses = int(counts.get(good, 0)), int(counts.get(bad, 0))
        for word in (good, bad, "tie"):
            metrics[f"{column}_{word}"] = counts.get(word, 0) / max(len(table), 1)
        sure = wins + losses
        metrics[f"{column}_p_value"] = stats.binomtest(wins, sure).pvalue if sure else 1.0
    return metrics


def verdict(metrics: dict[str, float]) -> str:
    """Say in a sentence what the preferences come to."""
    if not metrics["replies"]:
        return "Not measured: `replies` is 0, or this culture has no authored conversations."
    if metrics["judge_p_value"] >= 0.05 or metrics["judge_right"] <= metrics["judge_wrong"]:
        return (
            f"This judge is not shown to tell a fitting reply from another scene's (right "
            f"{metrics['judge_right']:.0%}, wrong {metrics['judge_wrong']:.0%} of the time), so "
            "what it prefers says nothing."
        )
    sides = f"{metrics['preferred_after']:.0%} to {metrics['preferred_before']:.0%}"
    clear = "" if metrics["preferred_p_value"] < 0.05 else ", no clear difference"
    return f"Replies after training against those before: {sides}{clear}."
