"""Stage 02, first half: two role-playing models act a scenario turn by turn.

Each speaker knows the setting, their own goal and secret, and what has been said; never the other's
goal or secret. A reply is an action (none, non-verbal, speak, leave) and its words or gesture. All
live dialogues advance together: one batched call weighs the actions of every one of them, one more
writes their words. One that has ended makes room for the next.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.special import logsumexp, softmax

from clca_utils.chat_model import ChatModel, Conversation, Message, assistant, system, user
from clca_utils.files import StudyError, seed_of
from clca_utils.scenario import Persona, Scenario

Action = Literal["none", "non-verbal", "speak", "leave"]
ACTIONS: tuple[Action, ...] = get_args(Action)

REPLY = re.compile(
    r"ACTION:\s*(none|non-verbal|speak|leave)\b(?![ \t]*,)[^\n]*(?:\n+\s*OUTPUT:\s*([^\n]*))?",
    re.IGNORECASE | re.ASCII,
)
"""What follows a comma is the list of actions echoed, not a choice."""

OPENINGS: dict[Action, str] = {
    "none": " stays",
    "non-verbal": " (",
    "speak": ":",
    "leave": " leaves",
}
"""How a line of a play goes on after the speaker's name, for each action: words that tell the
actions apart, short enough to be one token each in most vocabularies."""

SILENCE = " stays silent."

DECIMALS = 3
"""Of recorded probabilities: what lies behind them hangs on how prompts were batched."""

PER_SPEAKER = 2048
"""How many tokens of one speaker's view of a dialogue are remembered from turn to turn."""


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
    simulators: tuple[str, str] = Field(description="the models of the two speakers")
    source: Literal["simulated", "authored"] = "simulated"
    turns: list[Turn]
    ended: Literal["leave", "turn limit", "malformed reply"]

    def transcript(self, upto: int | None = None) -> str:
        """Write the turns, or those before turn `upto`, one a line."""
        return lines_of(self.turns[:upto])


class Sampling(BaseModel):
    """How dialogues are played."""

    max_turns: int
    max_new_tokens: int
    temperature: float
    top_p: float
    decoding: Literal["prefilled", "free"] = "prefilled"
    no_repeat: int = Field(12, description="see `ChatModel.generate`; of prefilled decoding only")
    candidates: int = Field(1, description="lines written for a turn, of which the best is kept")


def with_scenes(
    scenarios: Sequence[Scenario], dialogues: Sequence[Dialogue]
) -> list[tuple[Scenario, Dialogue]]:
    """Return each dialogue with the scene that it plays in.

    Raises:
        StudyError: A scene is missing: stage 01 was run again, and 02 was not.
    """
    by_id = {scenario.id: scenario for scenario in scenarios}
    for dialogue in dialogues:
        if dialogue.scenario_id not in by_id:
            raise StudyError(
                f"dialogues.jsonl plays scene {dialogue.scenario_id}, which scenarios.jsonl does "
                "not hold: run 02_dialogue_simulation again, on the scenes of 01."
            )
    return [(by_id[dialogue.scenario_id], dialogue) for dialogue in dialogues]


def told(turn: Turn) -> str:
    """Write a turn as a line of a play."""
    name = turn.speaker
    lines: dict[Action, str] = {
        "none": f"{name}{SILENCE}",
        "non-verbal": f"{name} ({turn.text})",
        "speak": f"{name}: {turn.text}",
        "leave": f"{name} leaves: {turn.text}" if turn.text else f"{name} leaves.",
    }
    return lines[turn.action]


def lines_of(turns: Sequence[Turn]) -> str:
    """Write turns as a play, one a line."""
    return "\n".join(map(told, turns))


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


Shown = Sequence[tuple[Scenario, Sequence[Turn]]]
"""Conversations shown to the speakers as examples, with the scenes they act."""


def as_chat(
    scenario: Scenario, turns: Sequence[Turn], speaker: int, shown: Shown = ()
) -> list[Message]:
    """Return the conversation as the speaker (0 or 1) sees it: own turns are the assistant's."""
    me, other = scenario.people[speaker], scenario.people[1 - speaker]
    examples = "".join(
        f"So others once talked. {scene.setting}\n{lines_of(talk)}\n\n" for scene, talk in shown
    )
    seen: list[Message] = [system(examples + role_prompt(scenario, me, other))]
    if speaker == 0:
        seen.append(user(f"(You see {other.address} and begin.)"))
    for turn in turns:
        seen.append(assistant(as_reply(turn)) if turn.speaker == me.name else user(told(turn)))
    return seen


def play_request(scenario: Scenario, speaker: int) -> Message:
    """Ask for a scene's conversation as a play, told with the speaker's knowledge only."""
    me = scenario.people[speaker]
    people = "\n".join(
        f"{one.name} is {one.occupation}. {one.background}" for one in scenario.people
    )
    return user(  # what is private comes last: both speakers' prompts begin alike
        f"{scenario.setting}\n{people}\n{around_here(scenario)}\n\n"
        f"Write the conversation of {scenario.person1.name} and {scenario.person2.name}. "
        f"What {me.name} wants: {me.goal} What {me.name} tells nobody: {me.secret}"
    )


def as_play(
    scenario: Scenario, turns: Sequence[Turn], speaker: int, shown: Shown = ()
) -> list[Message]:
    """Return the conversation as a play to be continued, told with the speaker's knowledge only.

    A small model keeps its role far better when it goes on writing a play than when it is
    addressed as a person, and the prefilled beginning of the line makes every reply parse.
    """
    examples = [
        part
        for scene, talk in shown
        for part in (play_request(scene, speaker), assistant(lines_of(talk)))
    ]
    told_so_far = "".join(f"{told(turn)}\n" for turn in turns)
    return [
        system("You write realistic dialogue for a play. Each line is one or two short sentences."),
        *examples,
        play_request(scenario, speaker),
        assistant(f"{told_so_far}{scenario.people[speaker].name}"),
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


def begun(play: Sequence[Message], opening: str) -> list[Message]:
    """Return a play whose last line goes on with an opening."""
    return [*play[:-1], assistant(play[-1]["content"] + opening)]


def words_of(action: Action, raw: str) -> str:
    """Return the words or the gesture of a line, from what was written after its opening."""
    match action:
        case "non-verbal":
            return raw.partition(")")[0].strip()
        case "leave":  # "Ana leaves." or "Ana leaves: Good night."
            return tidy(raw.removeprefix(":")) if raw.startswith(":") else ""
        case _:
            return tidy(raw)


def write_lines(
    model: ChatModel,
    plays: Sequence[Conversation],
    seeds: Sequence[int],
    sampling: Sampling,
    shortest: int,
) -> list[str]:
    """Write how begun lines go on; of several candidates for a line, the aptest is kept.

    A candidate's aptness is how much likelier, per word, the scene and all that was said before
    make it than the speaker's name alone does: the pointwise mutual information of line and
    context, by which bland lines lose (Li et al. 2016, arXiv 1510.03055), here of a sampled few.
    """
    count = sampling.candidates
    replies = model.generate(
        [play for play in plays for _ in range(count)],
        max_new_tokens=sampling.max_new_tokens,
        seeds=[seed_of(seed, n) if n else seed for seed in seeds for n in range(count)],
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop="\n",
        no_repeat=sampling.no_repeat,
        min_new_tokens=shortest,
    )
    if count == 1:
        return replies
    choices = [replies[first : first + count] for first in range(0, len(replies), count)]
    options = [[f" {reply}" for reply in some] for some in choices]
    bare = [[user("Go on."), assistant(play[-1]["content"].split("\n")[-1])] for play in plays]
    scores = model.option_logprobs([*plays, *bare], [*options, *options])
    kept = []
    for some, apt, bland in zip(choices, scores[: len(plays)], scores[len(plays) :], strict=True):
        lengths = [max(1, len(reply.split())) for reply in some]
        kept.append(some[int(np.argmax((apt - bland) / lengths))])
    return kept


def prefilled_turns(
    model: ChatModel,
    scenes: Sequence["Scene"],
    seeds: Sequence[int],
    sampling: Sampling,
    shown: Shown,
) -> list[Turn | None]:
    """Let every scene advance by one turn; the action is weighed, then its words are written."""
    plays = [as_play(scene.scenario, scene.turns, len(scene.turns) % 2, shown) for scene in scenes]
    openings = [OPENINGS[action] for action in ACTIONS]
    scores = model.option_logprobs(plays, [openings] * len(plays))
    chosen = [
        choose_action(score, allowed_actions(len(scene.turns)), seed)
        for score, scene, seed in zip(scores, scenes, seeds, strict=True)
    ]
    raw = dict.fromkeys(range(len(scenes)), "")
    for shortest, actions in ((3, ("speak", "non-verbal")), (1, ("leave",))):
        wordy = [i for i, (action, _) in enumerate(chosen) if action in actions]
        lines = [begun(plays[i], OPENINGS[chosen[i][0]]) for i in wordy]
        asked = [seeds[i] for i in wordy]
        if wordy:
            raw |= zip(wordy, write_lines(model, lines, asked, sampling, shortest), strict=True)
    turns: list[Turn | None] = []
    for scene, (action, mass), text in zip(scenes, chosen, raw.values(), strict=True):
        forced = len(scene.speaker.name) + len(OPENINGS[action])
        turns.append(
            Turn(
                index=len(scene.turns),
                speaker=scene.speaker.name,
                action=action,
                text=words_of(action, text),
                forced=forced / (forced + len(text)),
                format_mass=round(mass, DECIMALS),
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
    scenes: Sequence["Scene"],
    seeds: Sequence[int],
    sampling: Sampling,
    shown: Shown,
) -> list[Turn | None]:
    """Let every scene advance by one turn in the paper's reply format; None where none parses."""
    replies = model.generate(
        [as_chat(scene.scenario, scene.turns, len(scene.turns) % 2, shown) for scene in scenes],
        max_new_tokens=sampling.max_new_tokens,
        seeds=list(seeds),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )
    return [
        part
        and Turn(
            index=len(scene.turns),
            speaker=scene.speaker.name,
            action=part[0],
            text=part[1],
            forced=0.0,
            format_mass=None,
        )
        for part, scene in zip(map(parse_reply, replies), scenes, strict=True)
    ]


@dataclass
class Scene:
    """A dialogue while it is acted."""

    place: int
    scenario: Scenario
    sample: int
    turns: list[Turn] = field(default_factory=list)
    ended: Literal["leave", "turn limit", "malformed reply"] | None = None

    @property
    def speaker(self) -> Persona:
        """Whose turn it is."""
        return self.scenario.people[len(self.turns) % 2]

    def play(self, turn: Turn | None, max_turns: int) -> None:
        """Take the next turn; None is a reply that did not parse."""
        if turn is None:
            self.ended = "malformed reply"
            return
        self.turns.append(turn)
        if turn.action == "leave":
            self.ended = "leave"
        elif len(self.turns) == max_turns:
            self.ended = "turn limit"


def simulate(
    players: tuple[ChatModel, ChatModel],
    casts: Sequence[tuple[Scenario, int]],
    seed: int,
    sampling: Sampling,
    *,
    live: int,
    shown: Shown = (),
) -> Iterator[tuple[int, Dialogue]]:
    """Act scenarios, many at once; an ended dialogue makes room for the next.

    A turn's draws depend on the study's seed, its dialogue and its index alone, so a dialogue is
    the same whichever others are acted beside it.

    Args:
        players: Who plays the first person and who the second, each with their own knowledge; one
            model may play both.
        casts: Scenario and number of the sample, one per dialogue.
        seed: Of the study.
        sampling: Turn limit and decoding.
        live: How many dialogues to act at once.
        shown: Conversations to show the players as examples.

    Yields:
        Each dialogue once it has ended, and its place in `casts`.
    """
    advance = prefilled_turns if sampling.decoding == "prefilled" else free_turns
    waiting = (Scene(place, *cast) for place, cast in enumerate(casts))
    scenes = list(itertools.islice(waiting, live))
    while scenes:
        for model in dict.fromkeys(players):
            acting = [scene for scene in scenes if players[len(scene.turns) % 2] is model]
            seeds = [seed_of(seed, s.scenario.id, s.sample, len(s.turns)) for s in acting]
            turns = advance(model, acting, seeds, sampling, shown) if acting else []
            for scene, turn in zip(acting, turns, strict=True):
                scene.play(turn, sampling.max_turns)
            for scene in acting:
                if scene.ended:
                    names = players[0].name, players[1].name
                    yield scene.place, as_dialogue(scene, seed, names)
            scenes = [scene for scene in scenes if not scene.ended]
        scenes += itertools.islice(waiting, live - len(scenes))


def as_dialogue(scene: Scene, seed: int, simulators: tuple[str, str]) -> Dialogue:
    """Return an acted scene as the record that is kept of it."""
    return Dialogue(
        id=f"{scene.scenario.id}-{scene.sample}",
        scenario_id=scene.scenario.id,
        culture=scene.scenario.culture,
        sample=scene.sample,
        seed=seed,
        simulators=simulators,
        turns=scene.turns,
        ended=scene.ended or "turn limit",
    )
