"""Stage 02, first half: two role-playing models act a scenario turn by turn.

Each speaker knows the setting, their own goal and secret, and what has been said; never the other's
goal or secret. A reply is an action (none, non-verbal, speak, leave) and its words or gesture. All
dialogues of a batch advance together: one batched call weighs the actions of every live dialogue,
one more writes their words.
"""

import re
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.special import logsumexp, softmax

from clca_utils.chat_model import ChatModel, Message, assistant, system, user
from clca_utils.files import seed_of
from clca_utils.scenario import Persona, Scenario

Action = Literal["none", "non-verbal", "speak", "leave"]
ACTIONS: tuple[Action, ...] = get_args(Action)

REPLY = re.compile(
    r"ACTION:\s*(none|non-verbal|speak|leave)\b(?![ \t]*,)[^\n]*(?:\n+\s*OUTPUT:\s*([^\n]*))?",
    re.IGNORECASE | re.ASCII,
)
"""What follows a comma is the list of actions echoed, not a choice."""

STAGE_DIRECTIONS: dict[Action, str] = {
    "none": " says nothing.",
    "non-verbal": " (",
    "speak": ":",
    "leave": " leaves.",
}
"""How a line of a play goes on after the speaker's name, for each action."""


class Turn(BaseModel):
    """What one person does when it is their turn."""

    index: int = Field(description="from 0")
    speaker: str
    action: Action
    text: str
    forced: float = Field(description="share of the reply's characters that decoding forced")
    format_mass: float | None = Field(
        description="probability the model itself gave the four action words; None if unasked"
    )


class Dialogue(BaseModel):
    """A simulated conversation."""

    id: str
    scenario_id: str
    culture: str
    sample: int
    seed: int
    simulator: str
    turns: list[Turn]
    ended: Literal["leave", "turn limit", "malformed reply"]

    def transcript(self, upto: int | None = None) -> str:
        """Write the turns, or those before turn `upto`, one a line."""
        return "\n".join(told(turn) for turn in self.turns[:upto])


class Sampling(BaseModel):
    """How dialogues are played."""

    max_turns: int
    max_new_tokens: int
    temperature: float
    top_p: float
    decoding: Literal["prefilled", "free"] = "prefilled"
    no_repeat: int = Field(5, description="see `ChatModel.generate`; of prefilled decoding only")


def told(turn: Turn) -> str:
    """Write a turn as a line of a play."""
    name = turn.speaker
    lines: dict[Action, str] = {
        "none": f"{name} says nothing.",
        "non-verbal": f"{name} ({turn.text})",
        "speak": f"{name}: {turn.text}",
        "leave": f"{name} leaves." if not turn.text else f"{name}: {turn.text} (leaves)",
    }
    return lines[turn.action]


def as_reply(turn: Turn) -> str:
    """Write a turn in the reply format."""
    return f"ACTION: {turn.action}\nOUTPUT: {turn.text}".strip()


def around_here(scenario: Scenario) -> str:
    """Tell what many people do in the scene's culture; nothing for an unadapted scene."""
    return " ".join([*scenario.descriptors, *scenario.customs])


def role_prompt(scenario: Scenario, me: Persona, other: Persona) -> str:
    """Tell a speaker who they are, what they want and hide, and where the scene takes place."""
    return (
        f"You are {me.name}, {me.occupation}. {me.background}\n"
        f"Scene: {scenario.setting}\n"
        f"You talk with {other.name}, {other.occupation}. {other.background} You call them "
        f"{other.address}.\n"
        f"What you want: {me.goal}\n"
        f"Your secret, never to be told: {me.secret}\n"
        f"{around_here(scenario)}\n"
        f"Reply only as {me.name}, in one or two short sentences that answer {other.address}. "
        "First write ACTION: none, non-verbal, speak or leave. "
        "Then write OUTPUT: and your words or gesture."
    )


def as_chat(scenario: Scenario, turns: Sequence[Turn], speaker: int) -> list[Message]:
    """Return the conversation as the speaker (0 or 1) sees it: own turns are the assistant's."""
    me, other = scenario.people[speaker], scenario.people[1 - speaker]
    seen: list[Message] = [system(role_prompt(scenario, me, other))]
    if speaker == 0:
        seen.append(user(f"(You see {other.address} and begin.)"))
    for turn in turns:
        seen.append(assistant(as_reply(turn)) if turn.speaker == me.name else user(told(turn)))
    return seen


def as_play(scenario: Scenario, turns: Sequence[Turn], speaker: int) -> list[Message]:
    """Return the conversation as a play to be continued, told with the speaker's knowledge only.

    A small model keeps its role far better when it goes on writing a play than when it is
    addressed as a person, and the prefilled beginning of the line makes every reply parse.
    """
    me, other = scenario.people[speaker], scenario.people[1 - speaker]
    request = (
        f"{scenario.setting}\n{around_here(scenario)}\n"
        f"{me.name} is {me.occupation}. {me.background}\n"
        f"{other.name} is {other.occupation}. {other.background}\n"
        f"What {me.name} wants: {me.goal} What {me.name} tells nobody: {me.secret}\n\n"
        f"Write the conversation of {scenario.person1.name} and {scenario.person2.name}."
    )
    told_so_far = "".join(f"{told(turn)}\n" for turn in turns)
    return [
        system("You write realistic dialogue for a play. Each line is one or two short sentences."),
        user(request),
        assistant(f"{told_so_far}{me.name}"),
    ]


def allowed_actions(index: int) -> tuple[Action, ...]:
    """Return what a speaker may do at a turn: each first says something before anyone leaves."""
    return ("speak",) if index < 2 else ACTIONS


def choose_action(
    logprobs: NDArray[np.float64], allowed: Sequence[Action], seed: int
) -> tuple[Action, float]:
    """Draw an action from the model's own probabilities of the allowed ones.

    Returns:
        The action, and the probability the model gave all four together: how far it would have
        kept the format by itself.
    """
    weights = softmax([logprobs[ACTIONS.index(action)] for action in allowed])
    drawn = np.random.default_rng(seed).choice(len(allowed), p=weights)
    return allowed[drawn], float(np.exp(logsumexp(logprobs)))


def tidy(text: str) -> str:
    """Take quotation marks and a trailing half sentence off a line of dialogue."""
    text = text.strip().strip('"“”').strip()
    ends = [match.end() for match in re.finditer(r"[.!?…](?=[\s\"”)]|$)", text)]
    return text[: ends[-1]].strip() if ends else text


def prefilled_turns(
    model: ChatModel,
    scenes: Sequence[tuple[Scenario, Sequence[Turn]]],
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[Turn]:
    """Let every scene advance by one turn; the action is weighed, then its words are written."""
    index = len(scenes[0][1])
    plays = [as_play(scenario, turns, index % 2) for scenario, turns in scenes]
    directions = [STAGE_DIRECTIONS[action] for action in ACTIONS]
    scores = model.option_logprobs(plays, [directions] * len(plays))
    chosen = [
        choose_action(score, allowed_actions(index), seed)
        for score, seed in zip(scores, seeds, strict=True)
    ]
    wordy = [i for i, (action, _) in enumerate(chosen) if action in ("speak", "non-verbal")]
    begun = [
        [*plays[i][:-1], assistant(plays[i][-1]["content"] + STAGE_DIRECTIONS[chosen[i][0]])]
        for i in wordy
    ]
    words = dict(
        zip(
            wordy,
            model.generate(
                begun,
                max_new_tokens=sampling.max_new_tokens,
                seeds=[seeds[i] for i in wordy],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop="\n",
                no_repeat=sampling.no_repeat,
            ),
            strict=True,
        )
    )
    turns = []
    for i, (action, mass) in enumerate(chosen):
        scenario = scenes[i][0]
        raw = words.get(i, "")
        text = raw.split(")")[0].strip() if action == "non-verbal" else tidy(raw)
        name = scenario.people[index % 2].name
        forced = len(name) + len(STAGE_DIRECTIONS[action])
        turns.append(
            Turn(
                index=index,
                speaker=name,
                action=action,
                text=text,
                forced=forced / (forced + len(raw)),
                format_mass=mass,
            )
        )
    return turns


def parse_reply(reply: str) -> tuple[Action, str] | None:
    """Read an action and its words or gesture from a freely written reply; None if it has none."""
    match = REPLY.search(reply)
    if match is None:
        return None
    action = next(action for action in ACTIONS if action == match[1].lower())
    text = (match[2] or "").strip()
    return None if action in ("speak", "non-verbal") and not text else (action, text)


def free_turns(
    model: ChatModel,
    scenes: Sequence[tuple[Scenario, Sequence[Turn]]],
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[Turn | None]:
    """Let every scene advance by one turn in the paper's reply format; None where none parses."""
    index = len(scenes[0][1])
    replies = model.generate(
        [as_chat(scenario, turns, index % 2) for scenario, turns in scenes],
        max_new_tokens=sampling.max_new_tokens,
        seeds=list(seeds),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )
    parsed = [parse_reply(reply) for reply in replies]
    return [
        part
        and Turn(
            index=index,
            speaker=scenario.people[index % 2].name,
            action=part[0],
            text=part[1],
            forced=0.0,
            format_mass=None,
        )
        for part, (scenario, _) in zip(parsed, scenes, strict=True)
    ]


def simulate(
    model: ChatModel, casts: Sequence[tuple[Scenario, int]], seed: int, sampling: Sampling
) -> list[Dialogue]:
    """Act scenarios, all advancing together; finished dialogues leave the batch.

    Args:
        model: Plays both people, each with its own knowledge.
        casts: Scenario and number of the sample, one per dialogue.
        seed: Of the study; each turn draws from it, its dialogue and its index.
        sampling: Turn limit and decoding.

    Returns:
        The dialogues, in the order of `casts`.
    """
    turns: list[list[Turn]] = [[] for _ in casts]
    ended: dict[int, Literal["leave", "malformed reply"]] = {}
    advance = prefilled_turns if sampling.decoding == "prefilled" else free_turns
    for index in range(sampling.max_turns):
        live = [i for i in range(len(casts)) if i not in ended]
        if not live:
            break
        seeds = [seed_of(seed, casts[i][0].id, casts[i][1], index) for i in live]
        scenes = [(casts[i][0], turns[i]) for i in live]
        for i, turn in zip(live, advance(model, scenes, seeds, sampling), strict=True):
            if turn is None:
                ended[i] = "malformed reply"
                continue
            turns[i].append(turn)
            if turn.action == "leave":
                ended[i] = "leave"
    return [
        Dialogue(
            id=f"{scenario.id}-{sample}",
            scenario_id=scenario.id,
            culture=scenario.culture,
            sample=sample,
            seed=seed,
            simulator=model.name,
            turns=turns[i],
            ended=ended.get(i, "turn limit"),
        )
        for i, (scenario, sample) in enumerate(casts)
    ]
