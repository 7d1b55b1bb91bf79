"""Stage 03: what each turn is after, and the cultural expectation behind it where there is one."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from clca_utils.chat_model import ChatModel, Conversation, Message, assistant, system, user
from clca_utils.dialogue import Dialogue, Turn, told
from clca_utils.files import seed_of
from clca_utils.scenario import Scenario
from clca_utils.weighing import weigh


class Intent(BaseModel):
    """The intent of one turn."""

    dialogue_id: str
    turn: int
    speaker: str
    intent: str
    cultural: bool
    confidence: float = Field(description="calibrated probability that an expectation is behind it")
    expectation: str = Field(description="the expectation, empty unless cultural")


INTENTS = {
    "Ana: Could you lend me your bicycle until Friday?": "Ana wants to borrow a bicycle.",
    "Ben (looks at the floor)": "Ben wants to avoid saying no.",
    "Ana: I will bring it back washed, I promise.": "Ana wants to show that she can be trusted.",
}
"""Lines and their intents, shown before each question: a small model copies the form from them."""

EXPECTATIONS = {
    ("Norway", "Guest: Shall I leave my shoes here at the door?"): (
        "Yes. Many people in Norway expect guests to take off their shoes."
    ),
    ("Spain", "Mara: The bus is late again."): "No.",
    ("Kenya", "Nephew: Good morning, uncle, how is everybody at home?"): (
        "Yes. Many people in Kenya expect a visitor to ask about the family first."
    ),
}
"""Lines with and without an expectation behind them; their countries are none of the study's."""


def intent_prompt(scenario: Scenario, history: str, line: str) -> Conversation:
    """Ask what a line is after, given what came before it."""
    task = "You explain in a few words what the speaker of a line wants."
    shown = [part for known, intent in INTENTS.items() for part in (user(known), assistant(intent))]
    return [system(f"{task}\n\n{scenario.setting}\n\n{history}"), *shown, user(line)]


def expectation_prompt(scenario: Scenario, history: str, line: str) -> Conversation:
    """Ask whether a social or cultural expectation is behind a line."""

    def ask(country: str, line: str) -> Message:
        return user(f"{line}\n\nIs there an expectation behind this that many in {country} share?")

    task = "You know what people in different countries expect of each other."
    context = f"{task} {' '.join(scenario.customs)}\n\n{scenario.setting}\n\n{history}"
    shown = [
        part for known, answer in EXPECTATIONS.items() for part in (ask(*known), assistant(answer))
    ]
    return [system(context), *shown, ask(scenario.country, line)]


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
    views = [(scene, talk.transcript(turn.index), told(turn)) for scene, talk, turn in moments]
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
        return [
            first_sentence(f"{start} {reply}")
            for start, reply in zip(beginnings, replies, strict=True)
        ]

    everyone = list(range(len(moments)))
    intents = write(
        [intent_prompt(*view) for view in views],
        [f"{turn.speaker} wants to" for _, _, turn in moments],
        everyone,
    )
    asked = [expectation_prompt(*view) for view in views]
    blanks = [
        expectation_prompt(scene.model_copy(update={"setting": "N/A"}), "N/A", "N/A")
        for scene, _, _ in moments  # with its own customs, which alone make a model say yes
    ]
    confidence = weigh(model, asked, blanks, ["Yes", "No"])[:, 0]
    cultural = [i for i in everyone if confidence[i] >= cultural_threshold]
    expectations = dict(
        zip(
            cultural,
            write(
                [asked[i] for i in cultural],
                [f"Yes. Many people in {views[i][0].country} expect" for i in cultural],
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
