"""Stage 02, second half: which simulated dialogues are worth learning from.

Stage one looks at form by fixed rules and lets a model judge quality. Stage two lets it judge
cultural plausibility, and then the two judgements together. A dialogue is dropped for its form, or
when quality or the meta-judgement is "bad" with high confidence and that judge is trusted: see
`clca_utils.gold` for how a judge earns it. Every verdict keeps its label, confidence and reason.
"""

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from clca_utils.chat_model import ChatModel, Conversation, assistant, system, user
from clca_utils.dialogue import DECIMALS, Dialogue
from clca_utils.files import StudyError, seed_of
from clca_utils.form import form_problem
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

DECIDING: tuple[Aspect, ...] = ("quality", "meta")
"""The model's aspects that drop a dialogue where they are trusted."""


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


def judge_form(scenario: Scenario, dialogue: Dialogue) -> Verdict:
    """Judge the form by fixed rules."""
    problem = form_problem(scenario, dialogue)
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
    """Ask a model for one verdict; the reply continues "Verdict:".

    Setting and transcript, which all aspects share, come first and the question last, so that a
    model reads them once.
    """
    said = " ".join(
        f"{v.aspect.capitalize()} {v.label} ({v.confidence:.0%}): {v.reason.rstrip('.')}."
        for v in verdicts
    )
    question = QUESTIONS[aspect].format(country=scenario.country, verdicts=said or "N/A.")
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
            confidence=round(float(row.max()), DECIMALS),
            reason=reason,
            judge=model.name,
        )
        for label, row, reason in zip(labels, shares, reasons, strict=True)
    ]


def judge_in_two_stages(
    model: ChatModel, cases: Sequence[tuple[Scenario, Dialogue]], seed: int
) -> list[list[Verdict]]:
    """Let a model judge quality, culture and the two judgements together, whatever the form.

    Returns:
        The three verdicts on each case, in order.
    """
    quality = judge_by_model("quality", model, cases, seed)
    culture = judge_by_model("culture", model, cases, seed)
    meta = judge_by_model(
        "meta", model, cases, seed, earlier=list(zip(quality, culture, strict=True))
    )
    return [list(three) for three in zip(quality, culture, meta, strict=True)]


def decide(
    dialogue_id: str,
    verdicts: Sequence[Verdict],
    reject_confidence: float,
    trusted: Collection[Aspect],
) -> Judgement:
    """Keep or drop a dialogue.

    Args:
        dialogue_id: Which one.
        verdicts: All that was judged of it.
        reject_confidence: From this confidence on, "bad" of quality or meta drops it.
        trusted: Aspects whose judge is believed; what others say is kept on record, but drops
            nothing. The rules of form need no trust.
    """
    believed = {"form", *trusted} & {"form", *DECIDING}
    sure = [
        verdict
        for verdict in verdicts
        if verdict.aspect in believed
        and verdict.label == "bad"
        and verdict.confidence >= reject_confidence
    ]
    reason = "kept"
    if sure:
        reason = sure[0].reason if sure[0].aspect == "form" else f"{sure[0].aspect} bad"
    return Judgement(dialogue_id=dialogue_id, verdicts=list(verdicts), kept=not sure, reason=reason)


def judge(
    model: ChatModel,
    cases: Sequence[tuple[Scenario, Dialogue]],
    seed: int,
    reject_confidence: float,
    trusted: Collection[Aspect],
) -> list[Judgement]:
    """Judge a batch of dialogues; a model is not asked about one whose form is bad.

    Args:
        model: The judge of quality, culture and of the two judgements together.
        cases: Scenarios and their dialogues.
        seed: Of the study.
        reject_confidence: See `decide`.
        trusted: See `decide`.
    """
    forms = [judge_form(*case) for case in cases]
    sound = [case for case, form in zip(cases, forms, strict=True) if form.label == "good"]
    judged = iter(judge_in_two_stages(model, sound, seed) if sound else [])
    return [
        decide(
            dialogue.id,
            [form, *(next(judged) if form.label == "good" else [])],
            reject_confidence,
            trusted,
        )
        for (_, dialogue), form in zip(cases, forms, strict=True)
    ]


def decide_again(
    judgements: Sequence[Judgement], reject_confidence: float, trusted: Collection[Aspect]
) -> list[Judgement]:
    """Return what the same verdicts mean under another confidence or trust; nobody is asked."""
    return [decide(one.dialogue_id, one.verdicts, reject_confidence, trusted) for one in judgements]


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
