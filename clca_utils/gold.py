"""How far a judge is to be trusted: its verdicts on conversations whose worth is known.

Good are the authored conversations. Bad are copies of them, corrupted by rule in one way each, so
that a copy differs from its original in nothing but the fault that a judge should find. Where the
judge's probabilities tell the two apart no better than chance, its verdicts should not filter.
"""

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sklearn.metrics import precision_score, recall_score

from clca_utils.authored import authored_cultures, load_authored
from clca_utils.chat_model import ChatModel
from clca_utils.dialogue import Dialogue, Turn
from clca_utils.files import StudyError
from clca_utils.judging import (
    Aspect,
    Judgement,
    Label,
    decide,
    judge_form,
    judge_in_two_stages,
)
from clca_utils.measures import Floats
from clca_utils.scenario import Scenario, Split
from clca_utils.uncertainty import ALPHA, Interval

Corruption = Literal["shuffled turns", "swapped culture", "repeated lines", "leaked secret"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)

FILTER = "filter"
"""What the frame of agreement calls the decision to drop a dialogue, all verdicts together."""

AGREEMENT = (
    "aspect", "kind", "n", "bad", "precision", "recall", "false_alarms", "auc", "low", "high",
)  # fmt: skip
"""The columns of the frame of agreement."""

FEWEST = 6
"""Over fewer conversations there are no intervals. In simulations of a judge at chance with four
copies each, the interval lay above 0.5 in 10 % of trials with 4 conversations, 5 % with 6, 3 % with
10 and 2 % with 30, against the 2.5 % that it promises."""

CONFIDING = ("Between the two of us: ", "I may as well tell you: ", "To be honest, ", "You know, ")
"""How a speaker begins to tell a secret."""

REWORDED = {
    "cannot": "can't",
    "does not": "don't",
    "has not": "haven't",
    "nobody": "no one",
    "afraid": "scared",
    "already": "by now",
    "a year ago": "last year",
}
"""Small changes of wording, so that a leaked secret is not its own text."""

VERB = re.compile(r"(^(?:still|often) |^|\b(?:and|but|or) )(\w+)", re.IGNORECASE)
FIRST_PERSON = {"has": "have", "is": "am", "does": "do"}


class GoldCase(BaseModel):
    """A conversation whose worth is known."""

    kind: Corruption | Literal["authored"]
    source: str = Field(description="id of the authored conversation that it is or comes from")
    scenario: Scenario
    dialogue: Dialogue

    @property
    def label(self) -> Label:
        """Return what a judge should say."""
        return "good" if self.kind == "authored" else "bad"


def with_texts(dialogue: Dialogue, texts: Mapping[int, str]) -> Dialogue:
    """Return a dialogue with other texts in some of its turns."""
    turns = [
        turn.model_copy(update={"text": texts.get(turn.index, turn.text)})
        for turn in dialogue.turns
    ]
    return dialogue.model_copy(update={"turns": turns})


def spoken_by(dialogue: Dialogue) -> tuple[list[Turn], list[Turn]]:
    """Return the spoken turns of the first and of the second person."""
    said = [turn for turn in dialogue.turns if turn.action == "speak"]
    return [t for t in said if t.index % 2 == 0], [t for t in said if t.index % 2 == 1]


def shuffled(_: Scenario, dialogue: Dialogue, rng: random.Random) -> Dialogue:
    """Let each speaker say their own lines in another order, so that answers no longer follow.

    Gestures, silence and leaving stay where they are. Orders are drawn until no line stands in its
    old place or after the line that it stood after; after 1000, the best of them is
    taken (where one of them has two or three lines, there may be none).
    """
    lines = [turn for turn in dialogue.turns if turn.action == "speak"]
    follow = set(itertools.pairwise(turn.index for turn in lines))

    def order() -> dict[int, int]:
        places: dict[int, int] = {}
        for own in ([turn.index for turn in some] for some in spoken_by(dialogue)):
            places |= zip(own, rng.sample(own, len(own)), strict=True)
        return places

    def kept(places: Mapping[int, int]) -> int:
        now = [places[turn.index] for turn in lines]
        still = sum(place == moved for place, moved in places.items())
        return still + len(follow & set(itertools.pairwise(now)))

    drawn = (order() for attempt in range(1000))
    best = next(drawn)
    while kept(best) and (other := next(drawn, None)):
        best = min(best, other, key=kept)
    return with_texts(dialogue, {to: dialogue.turns[was].text for to, was in best.items()})


def repeated(_: Scenario, dialogue: Dialogue, rng: random.Random) -> Dialogue:
    """Let both speakers, from a line in the first half on, say their last line again and again."""
    texts: dict[int, str] = {}
    for own in filter(None, spoken_by(dialogue)):
        start = rng.randrange(max(1, len(own) // 2))
        texts |= {turn.index: own[start].text for turn in own[start:]}
    return with_texts(dialogue, texts)


def confession(secret: str, rng: random.Random) -> str:
    """Let a person tell their secret: in the first person, lightly reworded."""

    def first_person(match: re.Match[str]) -> str:
        before, verb = match[1], match[2]
        if verb.lower() in FIRST_PERSON:
            verb = FIRST_PERSON[verb.lower()]
        elif re.search(r"(?<![su])s$", verb) and verb.lower() not in ("was", "this", "always"):
            verb = re.sub(r"(?<=sh|ch|ss)es$|s$", "", re.sub(r"ies$", "ys", verb))
        return before + verb

    for words, others in REWORDED.items():
        secret = re.sub(rf"\b{words}\b", others, secret)
    told = VERB.sub(first_person, secret)
    return f"{rng.choice(CONFIDING)}I {told[0].lower()}{told[1:]}"


def leaked(scenario: Scenario, dialogue: Dialogue, rng: random.Random) -> Dialogue:
    """Let one of the speakers add their secret to a line, not to one of the first two."""
    said = [turn for turn in dialogue.turns if turn.action == "speak"]
    turn = rng.choice(said[2:] or said)
    secret = confession(scenario.people[turn.index % 2].secret, rng)
    return with_texts(dialogue, {turn.index: f"{turn.text} {secret}"})


def localised(theirs: Scenario, ours: Scenario) -> Callable[[str], str]:
    """Return what puts the names and slot fillers of our scenario in place of theirs."""
    pairs = {change.slot: change.adapted for change in theirs.changes}
    swaps = {
        core(pairs[change.slot]): core(change.adapted)
        for change in ours.changes
        if change.slot in pairs
    }
    for number, (they, we) in enumerate(zip(theirs.people, ours.people, strict=True), start=1):
        own = next((c.adapted for c in ours.changes if c.slot == f"name{number}"), we.address)
        swaps |= {part: own for part in they.name.split() if part not in swaps}
    longest = sorted(swaps, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")
    return lambda text: pattern.sub(lambda match: swaps[match[0]], text)


def core(filler: str) -> str:
    """Return a slot's filler without its article."""
    return re.sub(r"^(?:an?|the) ", "", filler)


def swapped(theirs: Scenario, dialogue: Dialogue, ours: Scenario) -> Dialogue:
    """Return the conversation of another culture as if it were had in our scenario.

    Both scenarios come from the same seed, so people, goals and secrets are the same. Our names,
    places, dishes and the like take the place of theirs; what differs is how people there talk:
    forms of address, directness, what is said and left unsaid.
    """
    local = localised(theirs, ours)
    turns = [
        turn.model_copy(
            update={"speaker": ours.people[turn.index % 2].name, "text": local(turn.text)}
        )
        for turn in dialogue.turns
    ]
    update = {"scenario_id": ours.id, "culture": ours.culture, "turns": turns}
    return dialogue.model_copy(update=update)


WITHIN: dict[Corruption, Callable[[Scenario, Dialogue, random.Random], Dialogue]] = {
    "shuffled turns": shuffled,
    "repeated lines": repeated,
    "leaked secret": leaked,
}
"""The corruptions that need no other conversation."""


def corrupted(
    scenarios: Sequence[Scenario], dialogues: Sequence[Dialogue], kind: Corruption, seed: int
) -> list[GoldCase]:
    """Corrupt conversations in one way.

    Args:
        scenarios: Of the conversations.
        dialogues: The conversations.
        kind: How. "swapped culture" puts a conversation in the place of one of another culture
            about the same seed scenario, so a scenario that no other culture has is left out.
        seed: Of the draws, which do not depend on the other conversations but for the swap.

    Returns:
        The corrupted copies, in the order of `dialogues`; a swapped one in that of the conversation
        whose place it takes.
    """
    by_id = {scenario.id: scenario for scenario in scenarios}
    cases = []
    for talk in dialogues:
        scene, rng = by_id[talk.scenario_id], random.Random(f"{seed}/{kind}/{talk.id}")
        if kind == "swapped culture":
            others = [
                (by_id[other.scenario_id], other)
                for other in dialogues
                if by_id[other.scenario_id].seed_id == scene.seed_id
                and other.culture != talk.culture
            ]
            if not others:
                continue
            copy = swapped(*rng.choice(others), scene)
        else:
            copy = WITHIN[kind](scene, talk, rng)
        copy = copy.model_copy(update={"id": f"{talk.id}-{kind.replace(' ', '-')}"})
        cases.append(GoldCase(kind=kind, source=talk.id, scenario=scene, dialogue=copy))
    return cases


def gold_cases(
    cultures: Sequence[str], split: Split | None, per_culture: int, seed: int
) -> list[GoldCase]:
    """Return authored conversations and their corrupted copies.

    Args:
        cultures: Names of cultures, at least one of which has authored conversations.
        split: Only those on scenarios to learn from, or on held-out ones; None: all.
        per_culture: How many conversations of each culture, drawn with `seed`.
        seed: Of the draws.

    Returns:
        For each conversation itself and its copies, one for each corruption that it allows.

    Raises:
        StudyError: None of the cultures has authored conversations.
    """
    everyone = {culture: load_authored(culture, split) for culture in authored_cultures()}
    if not set(cultures) & set(everyone):
        raise StudyError(
            f"There are no authored conversations for {', '.join(cultures)}, only for "
            f"{', '.join(everyone)}: name one of these to examine the judge on."
        )
    scenarios = [one for some in everyone.values() for one in some.scenarios]
    dialogues = [one for some in everyone.values() for one in some.dialogues]
    by_id = {scenario.id: scenario for scenario in scenarios}
    drawn: set[str] = set()
    for culture in set(cultures) & set(everyone):
        ids = [one.id for one in everyone[culture].dialogues]
        rng = random.Random(f"{seed}/gold/{culture}")
        drawn |= set(rng.sample(ids, min(per_culture, len(ids))))
    cases = [
        GoldCase(kind="authored", source=one.id, scenario=by_id[one.scenario_id], dialogue=one)
        for one in dialogues
    ]
    for kind in CORRUPTIONS:
        cases += corrupted(scenarios, dialogues, kind, seed)
    order = {one.id: place for place, one in enumerate(dialogues)}
    return sorted((case for case in cases if case.source in drawn), key=lambda c: order[c.source])


def examine(
    model: ChatModel,
    cases: Sequence[GoldCase],
    seed: int,
    reject_confidence: float,
) -> list[Judgement]:
    """Let rules and model judge gold cases, the model those too whose form the rules reject.

    Args:
        model: The judge.
        cases: What to judge.
        seed: Of the study.
        reject_confidence: See `judging.decide`, which trusts all aspects here; `decide_again` tells
            what the filter does with fewer.
    """
    pairs = [(case.scenario, case.dialogue) for case in cases]
    judged = judge_in_two_stages(model, pairs, seed)
    return [
        decide(
            case.dialogue.id,
            [judge_form(case.scenario, case.dialogue), *three],
            reject_confidence,
            get_args(Aspect),
        )
        for case, three in zip(cases, judged, strict=True)
    ]


def opinions(cases: Sequence[GoldCase], judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Return each aspect's opinion of each case.

    Returns:
        Columns aspect ("filter" is the decision as a whole), kind, source, bad (the truth), found
        (what the judge says) and p_bad (its probability of that; 0 or 1 of rules and filter).
    """
    rows = []
    for case, judgement in zip(cases, judgements, strict=True):
        says: dict[str, tuple[bool, float]] = {
            verdict.aspect: (
                verdict.label == "bad",
                verdict.confidence if verdict.label == "bad" else 1 - verdict.confidence,
            )
            for verdict in judgement.verdicts
        }
        dropped = not judgement.kept
        for aspect, (found, p_bad) in {**says, FILTER: (dropped, float(dropped))}.items():
            rows.append((aspect, case.kind, case.source, case.label == "bad", found, p_bad))
    return pd.DataFrame(rows, columns=["aspect", "kind", "source", "bad", "found", "p_bad"])


def auc_interval(table: pd.DataFrame, seed: int, resamples: int = 2000) -> Interval:
    """Return the area under the ROC curve of P(bad), with its 95 % interval.

    The area is the chance that a bad case gets a higher P(bad) than a good one, ties counting half
    (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747); chance level is 0.5. A copy
    resembles its original, so the bootstrap resamples conversations, each with all of its copies,
    and takes percentiles. Of fewer than `FEWEST` conversations the ends are NaN, and of one class
    alone everything is.

    Args:
        table: Columns source, bad, p_bad.
        seed: Of the bootstrap.
        resamples: How many.
    """
    sources, source = np.unique(table["source"], return_inverse=True)
    bad, p_bad = table["bad"].to_numpy(dtype=bool), table["p_bad"].to_numpy(dtype=float)
    wins = (np.sign(p_bad[bad] - p_bad[~bad][:, None]) + 1) / 2
    counts = np.random.default_rng(seed).multinomial(
        len(sources), np.full(len(sources), 1 / len(sources)), size=resamples
    )
    areas = _area(wins, np.vstack([np.ones(len(sources)), counts])[:, source], bad)
    if len(sources) < FEWEST or np.isnan(areas[0]):
        return Interval(float(areas[0]), np.nan, np.nan)
    low, high = np.nanquantile(areas[1:], [ALPHA / 2, 1 - ALPHA / 2])
    return Interval(float(areas[0]), float(low), float(high))


def _area(wins: Floats, weights: Floats, bad: NDArray[np.bool_]) -> Floats:
    """Return the weighted mean of good x bad `wins`, for each row of resamples x cases weights."""
    for_good, for_bad = weights[:, ~bad], weights[:, bad]
    pairs = for_good.sum(axis=1) * for_bad.sum(axis=1)
    won = ((for_good @ wins) * for_bad).sum(axis=1)
    return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))


def agreement(
    cases: Sequence[GoldCase], judgements: Sequence[Judgement], seed: int = 0
) -> pd.DataFrame:
    """Measure how far a judge's verdicts agree with what is known.

    Args:
        cases: What was judged.
        judgements: What `examine` returned, maybe passed through `decide_again`.
        seed: Of the bootstrap.

    Returns:
        One row per aspect (form, quality, culture, meta, and the filter as a whole) and kind of
        corruption, each against the authored conversations, then "all". Columns aspect, kind, n
        (cases), bad (how many of these are bad), precision and recall (of "bad", at whatever
        confidence; precision is NaN where nothing was found), false_alarms (share of the good ones
        found bad), auc, low, high (see `auc_interval`). Precision hangs on how many cases are bad;
        the other columns do not.
    """
    table = opinions(cases, judgements)
    rows: list[dict[str, object]] = []
    for aspect, group in table.groupby("aspect", sort=False):
        for kind in (*CORRUPTIONS, "all"):
            part = group[(group["kind"] == kind) | (kind == "all") | ~group["bad"]]
            bad, found = part["bad"], part["found"]
            area = auc_interval(part, seed)
            rows.append(
                {
                    "aspect": aspect,
                    "kind": kind,
                    "n": len(part),
                    "bad": int(bad.sum()),
                    "precision": precision_score(bad, found, zero_division=np.nan),
                    "recall": recall_score(bad, found, zero_division=np.nan),
                    "false_alarms": recall_score(~bad, found, zero_division=np.nan),
                    "auc": area.mean,
                    "low": area.low,
                    "high": area.high,
                }
            )
    return pd.DataFrame(rows, columns=AGREEMENT)


def proven(frame: pd.DataFrame) -> set[Aspect]:
    """Return the aspects that tell bad from good better than chance, over all corruptions.

    Args:
        frame: What `agreement` returns.
    """
    better = frame[(frame["kind"] == "all") & (frame["low"] > 0.5)]
    return {aspect for aspect in get_args(Aspect) if aspect in set(better["aspect"])}


def findings(frame: pd.DataFrame) -> list[str]:
    """Say in a sentence for each aspect of the model whether it is better than chance.

    Args:
        frame: What `agreement` returns.
    """
    told = []
    model = ~frame["aspect"].isin(["form", FILTER])
    for row in frame[model & (frame["kind"] == "all")].to_dict("records"):
        what = (
            "better than chance, so it may filter"
            if row["aspect"] in proven(frame)
            else "not shown to be better than chance, so it does not filter by default"
        )
        ends = (
            "on too few conversations for an interval"
            if np.isnan(row["low"])
            else f"95 % interval {row['low']:.2f} to {row['high']:.2f}"
        )
        told.append(
            f"{row['aspect'].capitalize()} as judged by the model is {what} "
            f"(AUC {row['auc']:.2f}, {ends})."
        )
    return told
