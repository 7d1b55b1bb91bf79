"""Stage 03: what each turn is after, and the cultural expectation behind it where there is one.

A model sees a few lines with their answers, then the scene and what was said, the line in question
last. All prompts of a culture begin with the same examples, and those of a dialogue go on alike
turn by turn, so a model that remembers what it has read (`TransformersModel`) reads little anew.

What it writes is kept only if it is `readable`; otherwise the text is empty, and nothing is to be
learnt from it. What it thinks of the turn (cultural, confidence) stands in any case.
"""

import random
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from pydantic import BaseModel, Field

from clca_utils.chat_model import ChatModel, Conversation, Message, assistant, system, user
from clca_utils.dialogue import Dialogue, Turn, told
from clca_utils.files import seed_of
from clca_utils.scenario import Scenario
from clca_utils.texts import CHAT_MARKS
from clca_utils.weighing import weigh

CONVERSATIONS, LINES = 3, 2
"""From how many authored conversations the examples are, and how many first lines of each. With
twice the lines the embedded model annotates no better, and more slowly."""

COPIED = 4
"""From so many words in a row of the line on, a text that is mostly these is a copy of it."""

MARKS = re.compile(rf"{CHAT_MARKS.pattern}|\b(ACTION|OUTPUT):", re.IGNORECASE)
"""Chat formats and our own reply format, which no sentence contains."""


class Intent(BaseModel):
    """The intent of one turn."""

    dialogue_id: str
    turn: int
    speaker: str
    intent: str = Field(description="one sentence; empty if what the model wrote is unreadable")
    cultural: bool
    confidence: float = Field(description="calibrated probability that an expectation is behind it")
    expectation: str = Field(description="one sentence; empty unless cultural and readable")


class Passage(NamedTuple):
    """What is known when a line is asked about; `lines` ends with it."""

    country: str
    customs: str
    setting: str
    lines: str


class Example(NamedTuple):
    """A line with what it is after, and the expectation behind it, if any."""

    passage: Passage
    intent: str
    expectation: str


MADE_UP = [
    Example(
        Passage("Norway", "", "", "Guest: Shall I leave my shoes here at the door?"),
        "Guest wants to be a considerate visitor.",
        "Many people in Norway expect guests to take off their shoes.",
    ),
    Example(
        Passage("Spain", "", "", "Ana: Could you lend me your bicycle until Friday?"),
        "Ana wants to borrow a bicycle.",
        "",
    ),
    Example(
        Passage("Kenya", "", "", "Nephew: Good morning, uncle, how is everybody at home?"),
        "Nephew wants to greet his uncle properly.",
        "Many people in Kenya expect a visitor to ask about the family first.",
    ),
    Example(
        Passage("Spain", "", "", "Ben (looks at the floor)"),
        "Ben wants to avoid saying no.",
        "",
    ),
]
"""For cultures without authored conversations; their countries are none of the study's."""


def passage_of(scenario: Scenario, dialogue: Dialogue, turn: Turn) -> Passage:
    """Return what is known at a turn: neither person's goal or secret, and nothing said later."""
    return Passage(
        country=scenario.country,
        customs=" ".join(scenario.customs),
        setting=scenario.setting,
        lines=dialogue.transcript(turn.index + 1),
    )


@lru_cache
def authored_examples(culture: str) -> dict[str, list[Example]]:
    """Return the first lines of a culture's authored conversations to learn from, with answers.

    Returns:
        By the id of the seed scenario, where some of these lines rest on an expectation and some do
        not; empty for a culture without such conversations. Customs and setting stand at the first
        line of each only.
    """
    from clca_utils.authored import (  # noqa: PLC0415 (it reads the records of this module)
        authored_cultures,
        load_authored,
    )

    if culture not in authored_cultures():
        return {}
    scenarios, dialogues, intents = load_authored(culture, "learn")
    answers = {(one.dialogue_id, one.turn): one for one in intents}
    examples: dict[str, list[Example]] = {}
    for scene, talk in zip(scenarios, dialogues, strict=True):
        some = []
        for turn in talk.turns[:LINES]:
            answer = answers[talk.id, turn.index]
            passage = (
                Passage(scene.country, "", "", told(turn))
                if turn.index
                else passage_of(scene, talk, turn)
            )
            some.append(Example(passage, answer.intent, answer.expectation))
        if len({one.expectation == "" for one in some}) == 2:
            examples[scene.seed_id] = some
    return examples


def examples_for(scenario: Scenario, seed: int) -> list[Example]:
    """Return the lines shown before a question about a scenario.

    They are from authored conversations of its culture, those that the seed draws first, but never
    from one on the same scenario; made-up ones where the culture has none, and for the unadapted
    control.
    """
    culture = scenario.culture.lower()
    known = {} if scenario.rewriter == "none" else authored_examples(culture)
    drawn = random.Random(seed_of(seed, "examples", culture)).sample(sorted(known), len(known))
    others = [one for one in drawn if one != scenario.seed_id][:CONVERSATIONS]
    return [example for one in others for example in known[one]] or MADE_UP


def intent_prompt(passage: Passage, examples: Sequence[Example]) -> Conversation:
    """Ask what the last line of a passage is after."""

    def ask(one: Passage) -> Message:
        return user(f"{one.setting}\n\n{one.lines}".strip())

    messages = [system("You explain in a few words what the speaker of the last line wants.")]
    for example in examples:
        messages += [ask(example.passage), assistant(example.intent)]
    return [*messages, ask(passage)]


def expectation_prompt(passage: Passage, examples: Sequence[Example]) -> Conversation:
    """Ask whether a social or cultural expectation is behind the last line of a passage."""

    def ask(one: Passage) -> Message:
        question = f"Is there an expectation behind this that many in {one.country} share?"
        return user(f"{one.customs}\n\n{one.setting}\n\n{one.lines}\n\n{question}".strip())

    messages = [system("You know what people in different countries expect of each other.")]
    for example in examples:
        answer = f"Yes. {example.expectation}" if example.expectation else "No."
        messages += [ask(example.passage), assistant(answer)]
    return [*messages, ask(passage)]


def extract(
    model: ChatModel,
    moments: Sequence[tuple[Scenario, Dialogue, Turn]],
    *,
    seed: int,
    max_new_tokens: int,
    cultural_threshold: float,
) -> list[Intent]:
    """Write the intents of a batch of turns.

    Args:
        model: The annotator.
        moments: Scenario, dialogue and turn.
        seed: Of the study.
        max_new_tokens: Longest intent or expectation.
        cultural_threshold: From this calibrated probability on, an expectation is written down.

    Returns:
        One intent per moment, in order.
    """
    passages = [passage_of(*moment) for moment in moments]
    before = [talk.transcript(turn.index) for _, talk, turn in moments]
    shown = [examples_for(scene, seed) for scene, _, _ in moments]
    seeds = [seed_of(seed, "intent", talk.id, turn.index) for _, talk, turn in moments]

    def write(asked: Sequence[Conversation], beginnings: Sequence[str], at: list[int]) -> list[str]:
        prompts = [[*c, assistant(start)] for c, start in zip(asked, beginnings, strict=True)]
        replies = model.generate(
            prompts,
            max_new_tokens=max_new_tokens,
            seeds=[seeds[i] for i in at],
            stop="\n",
            no_repeat=5,
        )
        texts = []
        for i, start, reply in zip(at, beginnings, replies, strict=True):
            text = first_sentence(f"{start} {reply}")
            is_kept = readable(text.removeprefix(start), told(moments[i][2]))
            texts.append(text if is_kept else "")
        return texts

    everyone = list(range(len(moments)))
    intents = write(
        list(map(intent_prompt, passages, shown)),
        [f"{turn.speaker} wants to" for _, _, turn in moments],
        everyone,
    )
    asked = list(map(expectation_prompt, passages, shown))
    blanks = [  # all but the line: customs, and a talk that is long already, make a model say yes
        expectation_prompt(passage._replace(lines=f"{history}\nN/A".strip()), examples)
        for passage, history, examples in zip(passages, before, shown, strict=True)
    ]
    confidence = weigh(model, asked, blanks, ["Yes", "No"])[:, 0]
    cultural = [i for i in everyone if confidence[i] >= cultural_threshold]
    expectations = dict(
        zip(
            cultural,
            write(
                [asked[i] for i in cultural],
                [f"Yes. Many people in {passages[i].country}" for i in cultural],
                cultural,
            ),
            strict=True,
        )
    )
    return [
        Intent(
            dialogue_id=talk.id,
            turn=turn.index,
            speaker=turn.speaker,
            intent=intents[i],
            cultural=i in expectations,
            confidence=float(confidence[i]),
            expectation=expectations.get(i, "").removeprefix("Yes. "),
        )
        for i, (_, talk, turn) in enumerate(moments)
    ]


def first_sentence(text: str) -> str:
    """Cut a text after its first sentence, but not after a leading "Yes."."""
    head = "Yes. " if text.startswith("Yes. ") else ""
    rest = text.removeprefix(head)
    stop = rest.find(". ")
    return head + (rest if stop < 0 else rest[: stop + 1]).strip()


def readable(written: str, line: str) -> bool:
    """Say whether what a model wrote of a line may be kept.

    It must be a whole sentence (one that the limit of tokens cut short has no end), of two words or
    more, free of the marks of chat formats, and no parrot: less than half of it may be words in a
    row of the line, if they are `COPIED` or more.

    Args:
        written: Without the beginning that was given.
        line: What it is about.
    """
    words, known = _words(written), _words(line)
    run = SequenceMatcher(None, words, known, autojunk=False).find_longest_match().size
    is_copied = run >= COPIED and run >= len(words) / 2
    is_whole = re.search(r"[.!?…][\"”’')]*$", written.strip()) is not None
    return is_whole and len(words) >= 2 and not is_copied and not MARKS.search(written)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())
