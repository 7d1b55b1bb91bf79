"""Stage 01, the chat-model way: scenes filled from the lexicon, told anew by a chat model.

The model answers with one flat JSON object. It is validated and then checked as every scenario
is; a refusal is told to the model, which may try again, and a scenario that is refused to the end
is dropped with the reason. No answer is ever patched.
"""

import json
from collections.abc import Sequence

from pydantic import ConfigDict, ValidationError

from clca_utils.chat_model import ChatModel, Conversation, assistant, system, user
from clca_utils.files import problems, seed_of
from clca_utils.scenario import Change, Scenario
from clca_utils.scenario_checks import BOUNDS, Others, scenario_problems, texts_of
from clca_utils.texts import PlainTexts

MAX_NEW_TOKENS = 640
"""Room for the longest answer that `BOUNDS` allow: some 310 words and their keys."""


class Rewrite(PlainTexts):
    """What a chat model may put into other words; names and occupations are not among it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    setting: str
    background1: str
    goal1: str
    secret1: str
    background2: str
    goal2: str
    secret2: str


def rewrite_of(scenario: Scenario) -> Rewrite:
    """Return the rewritable texts of a scenario as they are."""
    texts = texts_of(scenario)
    return Rewrite(**{key: texts[key] for key in Rewrite.model_fields})


def rewritten(scenario: Scenario, rewrite: Rewrite) -> Scenario:
    """Return the scenario with other texts; each that changed is noted among its changes."""
    texts, old = rewrite.model_dump(), rewrite_of(scenario).model_dump()
    people = [
        person.model_copy(
            update={key: texts[f"{key}{number}"] for key in ("background", "goal", "secret")}
        )
        for number, person in enumerate(scenario.people, start=1)
    ]
    changes = [Change(slot=key, adapted=text) for key, text in texts.items() if text != old[key]]
    return scenario.model_copy(
        update={
            "setting": rewrite.setting,
            "person1": people[0],
            "person2": people[1],
            "changes": [*scenario.changes, *changes],
        }
    )


def rewrite_prompt(scenario: Scenario, complaint: str = "") -> Conversation:
    """Ask a chat model to make a scene feel at home in its culture, as flat JSON.

    What all scenes share comes first, and the refusal of the last answer at the very end: a model
    that remembers how a prompt began has little left to read.

    Args:
        scenario: The scene, filled from the lexicon.
        complaint: Why the last answer was refused, if there was one.
    """
    fewest, most = BOUNDS["setting"]
    request = (
        f"Below is a scene in {scenario.country}, with the private goal and the secret of each of "
        "its two people. Rewrite it so that it could be an ordinary day there.\n"
        "- Change only what would be out of place; add no sights, costumes or national symbols.\n"
        "- Name no place, person, holiday, dish or money of another country.\n"
        "- Keep both full names in the setting, and who the two are to each other.\n"
        "- Keep what each of them wants, in nearly the same words, so that the goals still clash.\n"
        "- Let nothing but a secret itself tell that secret.\n"
        f"- Plain English; {fewest} to {most} words for the setting, one sentence for the rest.\n"
        "Answer with one JSON object of the same seven keys and nothing else.\n\n"
        f"Customs many people there know: {' '.join(scenario.customs)}\n\n"
        f"The two are {scenario.relation}. Person 1 is {scenario.person1.name}, "
        f"{scenario.person1.occupation}. Person 2 is {scenario.person2.name}, "
        f"{scenario.person2.occupation}.\n"
        f"{json.dumps(rewrite_of(scenario).model_dump(), ensure_ascii=False, indent=0)}"
    )
    if complaint:
        request += f"\n\nYour last answer was refused: {complaint}. Mend that and answer again."
    return [
        system("You adapt social scenes with care and without stereotypes."),
        user(request),
        assistant("{"),
    ]


def read_rewrite(reply: str, scenario: Scenario, others: Others) -> tuple[Scenario | None, str]:
    """Read a model's reply.

    Args:
        reply: What it wrote between the braces of its JSON object.
        scenario: The scene it was asked to rewrite.
        others: What gives away the other cultures.

    Returns:
        The rewritten scenario and "", or None and all that is wrong with the reply.
    """
    if not reply:
        return None, "the answer is empty"
    try:
        rewrite = Rewrite.model_validate_json("{" + reply + "}")
    except ValidationError as error:
        return None, "; ".join(problems(error))
    result = rewritten(scenario, rewrite)
    wrong = "; ".join(scenario_problems(result, others, scenario))
    return (None, wrong) if wrong else (result, "")


def rewrite_scenarios(
    scenarios: Sequence[Scenario],
    others: Others,
    model: ChatModel,
    seed: int,
    attempts: int = 3,
) -> tuple[list[Scenario], dict[str, str]]:
    """Let a chat model rewrite scenarios; a refused answer is asked for again with the reason.

    Args:
        scenarios: Scenarios filled from the lexicon.
        others: What gives away the other cultures (see `scenario_checks.others_than`).
        model: The rewriter.
        seed: Of its sampling; the first answer is its likeliest.
        attempts: Answers asked for in all before a scenario is dropped.

    Returns:
        The rewritten scenarios, and per dropped scenario's id the reason of its last refusal.
    """
    done: dict[str, Scenario] = {}
    refused = {scenario.id: "" for scenario in scenarios}
    for attempt in range(attempts):
        if not refused:
            break
        asked = [scenario for scenario in scenarios if scenario.id in refused]
        replies = model.generate(
            [rewrite_prompt(scenario, refused[scenario.id]) for scenario in asked],
            max_new_tokens=MAX_NEW_TOKENS,
            seeds=[seed_of(seed, scenario.id, attempt) for scenario in asked],
            temperature=0.7 if attempt else 0.0,
            stop="}",
        )
        for scenario, reply in zip(asked, replies, strict=True):
            result, refused[scenario.id] = read_rewrite(reply, scenario, others)
            if result is not None:
                done[scenario.id] = result
                del refused[scenario.id]
    return [done[one.id] for one in scenarios if one.id in done], refused
