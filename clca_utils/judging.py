"""Stage 02, second half: which simulated dialogues are worth learning from.

Stage one looks at form by fixed rules and lets a model judge quality and cultural plausibility.
Stage two lets the model judge those two judgements. A dialogue is dropped for its form, or when
quality or the meta-judgement is "bad" with high confidence; every verdict keeps its reason.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from clca_utils.chat_model import ChatModel, Conversation, assistant, system, user
from clca_utils.dialogue import Dialogue
from clca_utils.files import StudyError, seed_of
from clca_utils.scenario import Scenario
from clca_utils.weighing import weigh

Aspect = Literal["form", "quality", "culture", "meta"]
Label = Literal["good", "bad"]

LABELS: tuple[Label, Label] = ("good", "bad")

QUESTIONS: dict[Aspect, str] = {
    "quality": "Do the two people answer each other, without repetition, and fit the setting?",
    "culture": "Could this conversation take place like this in {country}?",
    "meta": "Two reviewers judged it: {verdicts} Weigh their reasons. Is the conversation fit to "
    "learn from?",
}

MAX_REPEATED = 0.34
"""A dialogue with more than a third of its lines said before is a loop, not a conversation."""


class Verdict(BaseModel):
    """One judgement of one aspect."""

    aspect: Aspect
    label: Label
    confidence: float = Field(description="probability of the label, calibrated for models")
    reason: str
    judge: str


class Judgement(BaseModel):
    """All verdicts on a dialogue, and what follows from them."""

    dialogue_id: str
    verdicts: list[Verdict]
    kept: bool
    reason: str = Field(description="why it was dropped; 'kept' otherwise")


def form_problem(dialogue: Dialogue) -> str:
    """Say what is wrong with a dialogue's form, or nothing."""
    lines = [turn.text.lower() for turn in dialogue.turns if turn.action == "speak"]
    if dialogue.ended == "malformed reply":
        return "malformed reply"
    if len({turn.speaker for turn in dialogue.turns if turn.text}) < 2:
        return "one-sided"
    if any(len(line.split()) < 2 for line in lines[:2]):
        return "empty opening"
    if lines and 1 - len(set(lines)) / len(lines) > MAX_REPEATED:
        return "repeated lines"
    return ""


def judge_form(dialogue: Dialogue) -> Verdict:
    """Judge the form by fixed rules."""
    problem = form_problem(dialogue)
    return Verdict(
        aspect="form",
        label="bad" if problem else "good",
        confidence=1.0,
        reason=problem or "well formed",
        judge="rules",
    )


def judge_prompt(
    aspect: Aspect, scenario: Scenario, transcript: str, verdicts: Sequence[Verdict] = ()
) -> Conversation:
    """Ask a model for one verdict; the reply continues "Verdict:"."""
    said = " ".join(
        f"{v.aspect.capitalize()} {v.label} ({v.confidence:.0%}): {v.reason.rstrip('.')}."
        for v in verdicts
    )
    question = QUESTIONS[aspect].format(country=scenario.country, verdicts=said)
    return [
        system("You review short conversations. Answer good or bad, then give a reason."),
        user(f"Setting: {scenario.setting}\n\n{transcript}\n\n{question}"),
        assistant("Verdict:"),
    ]


def judge_by_model(
    aspect: Aspect,
    model: ChatModel,
    cases: Sequence[tuple[Scenario, Dialogue]],
    seed: int,
    earlier: Sequence[Sequence[Verdict]] | None = None,
) -> list[Verdict]:
    """Let a model judge one aspect of each dialogue, with a reason in its own words.

    Args:
        aspect: quality, culture or meta.
        model: The judge.
        cases: Scenarios and their dialogues.
        seed: Of the reasons, which are decoded greedily where the model allows it.
        earlier: For the meta-judgement, the verdicts it weighs, per dialogue.
    """
    before = earlier or [()] * len(cases)
    prompts = [
        judge_prompt(aspect, scenario, dialogue.transcript(), verdicts)
        for (scenario, dialogue), verdicts in zip(cases, before, strict=True)
    ]
    blanks = [
        judge_prompt(aspect, scenario.model_copy(update={"setting": "N/A"}), "N/A")
        for scenario, _ in cases
    ]
    shares = weigh(model, prompts, blanks, [f" {label}" for label in LABELS])
    labels = [LABELS[row.argmax()] for row in shares]
    reasons = model.generate(
        [
            [*prompt[:-1], assistant(f"Verdict: {label}. Reason:")]
            for prompt, label in zip(prompts, labels, strict=True)
        ],
        max_new_tokens=24,
        seeds=[seed_of(seed, aspect, dialogue.id) for _, dialogue in cases],
        stop="\n",
        no_repeat=5,
    )
    return [
        Verdict(
            aspect=aspect,
            label=label,
            confidence=float(row.max()),
            reason=reason,
            judge=model.name,
        )
        for label, row, reason in zip(labels, shares, reasons, strict=True)
    ]


def decide(dialogue: Dialogue, verdicts: Sequence[Verdict], reject_confidence: float) -> Judgement:
    """Keep or drop a dialogue.

    Args:
        dialogue: The dialogue.
        verdicts: All that was judged of it.
        reject_confidence: From this confidence on, "bad" of quality or meta drops it.
    """
    deciding = [v for v in verdicts if v.aspect in ("form", "quality", "meta") and v.label == "bad"]
    sure = [v for v in deciding if v.confidence >= reject_confidence]
    reason = "kept"
    if sure:
        reason = sure[0].reason if sure[0].aspect == "form" else f"{sure[0].aspect} bad"
    return Judgement(dialogue_id=dialogue.id, verdicts=list(verdicts), kept=not sure, reason=reason)


def judge(
    model: ChatModel,
    cases: Sequence[tuple[Scenario, Dialogue]],
    seed: int,
    reject_confidence: float,
) -> list[Judgement]:
    """Judge a batch of dialogues in two stages; nobody is asked about one that is malformed.

    Args:
        model: The judge of quality, culture and of the two judgements together.
        cases: Scenarios and their dialogues.
        seed: Of the study.
        reject_confidence: See `decide`.
    """
    verdicts = {dialogue.id: [judge_form(dialogue)] for _, dialogue in cases}
    sound = [case for case in cases if verdicts[case[1].id][0].label == "good"]
    if sound:
        quality = judge_by_model("quality", model, sound, seed)
        culture = judge_by_model("culture", model, sound, seed)
        first = list(zip(quality, culture, strict=True))
        meta = judge_by_model("meta", model, sound, seed, earlier=first)
        for (_, dialogue), pair, last in zip(sound, first, meta, strict=True):
            verdicts[dialogue.id] += [*pair, last]
    return [decide(dialogue, verdicts[dialogue.id], reject_confidence) for _, dialogue in cases]


def kept_dialogues(
    dialogues: Sequence[Dialogue], judgements: Sequence[Judgement]
) -> list[Dialogue]:
    """Return the dialogues that were judged worth learning from.

    Raises:
        StudyError: There is none.
    """
    kept = {judgement.dialogue_id for judgement in judgements if judgement.kept}
    if not kept:
        reasons = ", ".join(sorted({judgement.reason for judgement in judgements}))
        raise StudyError(
            f"All {len(judgements)} dialogues were dropped ({reasons}): raise n_scenarios or "
            "reject_confidence, and run 02_dialogue_simulation again."
        )
    return [dialogue for dialogue in dialogues if dialogue.id in kept]
