"""The published release's lines, read and written: its scenarios and dialogues as JSON lines.

The release (github.com/UKPLab/arxiv2025-clca, of arXiv 2504.02953) came without data; what its
lines hold was read off its code. It calls the files `<culture>_scenarios.txt`,
`<seed>_data.jsonl` and `intent_aug.jsonl`; here they are `scenarios.jsonl` and `dialogues.jsonl` in
one folder. A dialogue line holds the whole record of its scenario under `persona`, so a folder of
dialogues alone is complete.

What a round trip keeps, either way round: settings, people, samples, turns, speakers, actions,
texts, intents and expectations. What the other side has no place for is given up:

- of ours: ids, domain, relation, power, customs, items, the models and seeds of dialogues, why one
  without a leave ended, confidences. `import_scenario` and `import_dialogue` say what stands there
  instead.
- of the release's: the judges' labels (`import_judgement` reads, nothing writes them), what a
  model made of the silence of one who was left behind, and other spellings of what is the same (of
  actions, of a culture by its country, of no intent). A missing action is filled in, and the turns
  are counted anew.

An intent is one text in the release. Here an expectation follows it behind `MARK`, and a text is
split again at its first mark; a release's text without one is all intent.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import cycle, zip_longest
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    ValidationError,
)

from clca_utils.adaptation import NEUTRAL_COUNTRY
from clca_utils.culture import Culture, load_culture
from clca_utils.dialogue import ACTIONS, Action, Dialogue, Turn
from clca_utils.files import (
    Record,
    StudyError,
    problems,
    read_records,
    shown,
    write_records,
    write_text,
)
from clca_utils.intent import Intent
from clca_utils.judging import Judgement, Verdict, kept_dialogues
from clca_utils.scenario import Change, Persona, Scenario
from clca_utils.texts import PlainTexts

SCENARIOS, DIALOGUES = "scenarios.jsonl", "dialogues.jsonl"

INTENTS, JUDGEMENTS = "intents.jsonl", "judgements.jsonl"

IMPORTED = "imported"
"""Stands where ours name a domain, a rewriter, a model or a judge, and the release names none."""

MARK = " [expectation] "
"""Between an intent and the expectation behind it, which are one text in the release."""

JOINT = " and "
"""Between the two names of a persona; the release splits there, so no name may contain it."""

CULTURES = {"uk": "british"}
"""What the release calls a culture, where that is neither its name nor its country in our files."""

SPELLINGS: dict[Action, tuple[str, ...]] = {
    "none": ("", "1", "none", "nothing", "did nothing", "no action"),
    "non-verbal": (
        "2", "action", "gesture", "physical action", "nonverbal", "nonverbal communication",
        "non verbal", "non verbal action", "non verbal communication",
    ),
    "speak": ("3", "say", "says", "said", "speak", "speaks", "spoke"),
    "leave": (
        "4", "leave", "leaves", "left", "leave the conversation", "leaves the conversation",
        "left the conversation",
    ),
}  # fmt: skip
"""The release keeps an action as a model wrote it, or as "none", "action", "speak" or "leave" where
it wrote its number; compared here by words alone, or by the number where there is no word."""


def _known_action(action: object) -> object:
    """Return the action that is meant by a spelling."""
    if not isinstance(action, str):
        return action
    words = re.findall(r"[^\W\d_]+", action.casefold()) or re.findall(r"\d+", action)
    for known, spellings in SPELLINGS.items():
        if " ".join(words) in spellings:
            return known
    raise ValueError(f"expected one of {', '.join(ACTIONS)}")


def _two_names(persona: str) -> str:
    """Refuse what the release could not split into two names; strip them as it does."""
    names = [name.strip() for name in persona.split(JOINT)]
    joined = JOINT.join(names)
    if len(names) != 2 or len({*names, ""}) != 3 or joined.split(JOINT) != names:
        raise ValueError(f"expected two different names with one '{JOINT}' between them")
    return joined


PersonaNames = Annotated[str, AfterValidator(_two_names)]
ReleaseAction = Annotated[Action, BeforeValidator(_known_action)]
ReleaseIntent = Annotated[str | None, AfterValidator(lambda text: text or None)]


class Line(PlainTexts):
    """What all parts of the release's lines have in common: exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ReleasePerson(Line):
    """One of the two people of a scenario."""

    background: str
    occupation: str
    goal: str
    secrets: str


class ReleaseScenario(Line):
    """A scenario, and what a dialogue calls its `persona`."""

    culture: str
    setting: str
    persona: PersonaNames
    person1: ReleasePerson
    person2: ReleasePerson

    @property
    def names(self) -> tuple[str, str]:
        """The names of the two people."""
        first, _, second = self.persona.partition(JOINT)
        return first, second


class Move(NamedTuple):
    """A turn as the release knows it."""

    action: Action | None
    text: str
    intent: str | None


LEFT_BEHIND = Move("leave", "", None)
"""What the release writes for the second person where the first has left."""

NOT_PLAYED = Move(None, "", None)
"""Stands for the second person where the first had the last turn and stayed: text there must be,
the release reads it; that there is no action tells it from a silent turn."""


class ReleaseRound(Line):
    """One turn of each of the two; the inquirer is the first person."""

    turn: int
    model_inquirer_action: ReleaseAction | None = None
    model_inquirer: str
    model_inquirer_intent: ReleaseIntent = None
    model_responder_action: ReleaseAction | None = None
    model_responder: str = ""
    model_responder_intent: ReleaseIntent = None

    def moves(self) -> list[Move]:
        """Return the one or two turns; one without an action is speech, or silence if empty."""
        action, text = self.model_inquirer_action, self.model_inquirer
        first = Move(action or ("speak" if text else "none"), text, self.model_inquirer_intent)
        action, text = self.model_responder_action, self.model_responder
        second = Move(action or ("speak" if text else None), text, self.model_responder_intent)
        left = first.action == "leave" and second[:2] == LEFT_BEHIND[:2]
        return [first] if left or second.action is None else [first, second]


def _in_order(rounds: list[ReleaseRound]) -> list[ReleaseRound]:
    """Refuse rounds out of order, one without an answer amid others, and turns after a leave."""
    for number, one in enumerate(rounds):
        if one.turn != number:
            raise ValueError(f"round {number} (from 0) has the turn {one.turn}, expected {number}")
        moves, is_last = one.moves(), number == len(rounds) - 1
        if any(move.action == "leave" for move in (moves[:-1] if is_last else moves)):
            raise ValueError(f"in round {number} someone leaves, expected no turn after that")
        if len(moves) < 2 and not is_last:
            raise ValueError(
                f"round {number} has no model_responder, expected one, or model_responder_action "
                "'none' for silence"
            )
    return rounds


class ReleaseDialogue(Line):
    """A dialogue; the last seven keys are those that the release's judges add."""

    persona: ReleaseScenario
    sample: int
    num_turns: int
    dialog: Annotated[list[ReleaseRound], AfterValidator(_in_order)]
    quality: str | None = None
    quality_confidence: str | None = None
    culture_alignment: str | None = None
    culture_alignment_confidence: str | None = None
    meta_quality: str | None = None
    meta_quality_confidence: str | None = None
    meta_critic: str | None = None

    def moves(self) -> list[Move]:
        """Return all turns, the two people's in alternation."""
        return [move for one in self.dialog for move in one.moves()]


def export_scenario(scenario: Scenario) -> ReleaseScenario:
    """Write a scenario as the release does.

    Raises:
        StudyError: Its names cannot be told apart in the release: they are the same, empty, begin
            or end in spaces, or one contains " and ".
    """
    first, second = (
        ReleasePerson(
            background=one.background, occupation=one.occupation, goal=one.goal, secrets=one.secret
        )
        for one in scenario.people
    )
    names = scenario.person1.name, scenario.person2.name
    try:
        line = ReleaseScenario(
            culture=scenario.culture,
            setting=scenario.setting,
            persona=JOINT.join(names),
            person1=first,
            person2=second,
        )
    except ValidationError as error:
        raise StudyError(
            f"Scenario {scenario.id}, {problems(error)[0]}; the release splits a persona there, "
            "so change the names."
        ) from None
    if line.names != names:
        raise StudyError(
            f"Scenario {scenario.id}, names: the release would read {line.names}, not {names}; "
            "change the names."
        )
    return line


def import_scenario(
    line: ReleaseScenario, number: int = 1, culture: Culture | None = None
) -> Scenario:
    """Read a scenario of the release.

    What it has no key for: the domain and the rewriter are "imported", the relation is empty, the
    power equal and the split "learn" (the release holds nothing out); no customs and no items; the
    whole setting counts as adapted. Country, descriptors and how people are addressed come from
    the culture; without one there are no descriptors and people are called by their whole names.

    Args:
        line: The scenario.
        number: Of the scenario, for its id.
        culture: What it is of, where the study has a file of that.
    """
    name = culture.name if culture else line.culture
    short = [address(one, culture) if culture else one for one in line.names]
    first, second = (
        Persona(
            name=one,
            address=called if len(set(short)) == 2 else one,
            background=person.background,
            occupation=person.occupation,
            goal=person.goal,
            secret=person.secrets,
        )
        for one, called, person in zip(line.names, short, (line.person1, line.person2), strict=True)
    )
    return Scenario(
        id=f"{name.lower()}-{IMPORTED}-{number:03}",
        seed_id=f"{IMPORTED}-{number:03}",
        culture=name,
        country=culture.country if culture else NEUTRAL_COUNTRY,
        domain=IMPORTED,
        relation="",
        power="equal",
        split="learn",
        setting=line.setting,
        person1=first,
        person2=second,
        descriptors=culture.descriptors() if culture else [],
        customs=[],
        items=[],
        rewriter=IMPORTED,
        changes=[Change(slot="setting", adapted=line.setting)],
    )


def address(name: str, culture: Culture) -> str:
    """Return how a person is addressed: by given or family name, as the culture does.

    The family name is taken to stand where the culture puts it. A name that begins with a title
    ("Dr. Sato") is an address by itself.
    """
    words = name.split()
    if "." in words[0]:
        return name
    if culture.name_order == "given-first":
        given, family = words[0], words[-1]
    else:
        given, family = " ".join(words[1:]) or name, words[0]
    short = given if culture.address == "given" else family
    return short.removesuffix(culture.honorific) + culture.honorific


def joined_intent(intent: Intent) -> str:
    """Write an intent and its expectation as one text.

    Raises:
        StudyError: It is empty, or has the mark in it, so it could not be split again.
    """
    text = intent.intent + (MARK + intent.expectation if intent.expectation else "")
    if not text or split_intent(text) != (intent.intent, intent.expectation):
        raise StudyError(
            f"Dialogue {intent.dialogue_id}, turn {intent.turn}, intent: found {text!r:.80}; it "
            f"must not be empty, nor hold '{MARK.strip()}', which the export puts before an "
            "expectation."
        )
    return text


def split_intent(text: str) -> tuple[str, str]:
    """Return intent and expectation; all is intent where nothing follows a mark."""
    intent, _, expectation = text.partition(MARK)
    return (intent, expectation) if expectation else (text, "")


def export_dialogue(
    dialogue: Dialogue, scenario: Scenario, intents: Sequence[Intent] = ()
) -> ReleaseDialogue:
    """Write a dialogue as the release does.

    Args:
        dialogue: The dialogue.
        scenario: What it acts.
        intents: Of its turns, as far as there are any.

    Raises:
        StudyError: Its turns cannot be written so that they are read again as they are: people
            must take turns, the first person first, and nobody may go on after a leave.
    """
    own = [one for one in intents if one.dialogue_id == dialogue.id]
    said = {one.turn: joined_intent(one) for one in own if one.intent or one.expectation}
    moves = [Move(turn.action, turn.text, said.get(turn.index)) for turn in dialogue.turns]
    for turn, person in zip(dialogue.turns, cycle(scenario.people)):
        if turn.speaker != person.name:
            raise StudyError(
                f"Dialogue {dialogue.id}, turn {turn.index}, speaker: found {turn.speaker!r}, "
                f"expected {person.name!r}: in the release the two people take turns."
            )
    pairs = zip_longest(moves[::2], moves[1::2])
    persona = export_scenario(scenario)
    try:
        line = ReleaseDialogue(
            persona=persona,
            sample=dialogue.sample,
            # as the release counts: whole rounds after which both were still there
            num_turns=sum(move.action != "leave" for move in moves[1::2]),
            dialog=[_round(number, *pair) for number, pair in enumerate(pairs)],
        )
    except ValidationError as error:
        raise StudyError(f"Dialogue {dialogue.id}, {problems(error)[0]:.200}") from None
    if line.moves() != moves:
        raise StudyError(
            f"Dialogue {dialogue.id}: someone still has a turn after the other has left, which "
            "the release has no place for; delete that turn."
        )
    return line


def _round(number: int, first: Move, second: Move | None) -> ReleaseRound:
    """Write two turns; where there is no second one, what the release puts there."""
    second = second or (LEFT_BEHIND if first.action == "leave" else NOT_PLAYED)
    return ReleaseRound(
        turn=number,
        model_inquirer_action=first.action,
        model_inquirer=first.text,
        model_inquirer_intent=first.intent,
        model_responder_action=second.action,
        model_responder=second.text,
        model_responder_intent=second.intent,
    )


def import_dialogue(line: ReleaseDialogue, scenario: Scenario) -> tuple[Dialogue, list[Intent]]:
    """Read a dialogue of the release, and the intents of those turns that have one.

    What it has no key for: both simulators are "imported" and the seed is 0; nothing was forced,
    and the format's probability is unknown; without a leave a dialogue ended at the turn limit (or
    by a malformed reply, if it has no turn). An intent is cultural where it has an expectation,
    with confidence 1, and 0 otherwise.

    Args:
        line: The dialogue.
        scenario: Its scenario, imported from `line.persona` or what that was exported from.
    """
    moves = line.moves()
    turns = [
        Turn(
            index=index,
            speaker=person.name,
            action=move.action or "none",
            text=move.text,
            forced=0.0,
            format_mass=None,
        )
        for index, (move, person) in enumerate(zip(moves, cycle(scenario.people)))
    ]
    has_left = bool(turns) and turns[-1].action == "leave"
    dialogue = Dialogue(
        id=f"{scenario.id}-{line.sample}",
        scenario_id=scenario.id,
        culture=scenario.culture,
        sample=line.sample,
        seed=0,
        simulators=(IMPORTED, IMPORTED),
        turns=turns,
        ended="leave" if has_left else "turn limit" if turns else "malformed reply",
    )
    intents = []
    for turn, move in zip(turns, moves, strict=True):
        if move.intent is not None:
            intent, expectation = split_intent(move.intent)
            intents.append(
                Intent(
                    dialogue_id=dialogue.id,
                    turn=turn.index,
                    speaker=turn.speaker,
                    intent=intent,
                    cultural=bool(expectation),
                    confidence=float(bool(expectation)),
                    expectation=expectation,
                )
            )
    return dialogue, intents


def import_judgement(line: ReleaseDialogue, dialogue: Dialogue) -> Judgement:
    """Keep a dialogue unless it has no turns or the release's own filter would drop it.

    That filter drops what quality or the meta-judgement calls bad, very confidently. Since it is a
    rule, the one verdict has confidence 1, as those of our rules.
    """
    bad = [
        aspect
        for aspect, label, confidence in (
            ("quality", line.quality, line.quality_confidence),
            ("meta", line.meta_quality, line.meta_quality_confidence),
        )
        if (label, confidence) == ("bad", "very confident")
    ]
    problem = f"{bad[0]} bad" if bad else "" if dialogue.turns else "no turns"
    verdict = Verdict(
        aspect="quality",
        label="bad" if problem else "good",
        confidence=1.0,
        reason=problem or IMPORTED,
        judge=IMPORTED,
    )
    return Judgement(
        dialogue_id=dialogue.id, verdicts=[verdict], kept=not problem, reason=problem or "kept"
    )


class Release(NamedTuple):
    """The lines of a folder."""

    scenarios: list[ReleaseScenario]
    dialogues: list[ReleaseDialogue]


def read_release(folder: Path, culture: Culture | None = None) -> Release:
    """Read a folder of the release's lines.

    Args:
        folder: With `scenarios.jsonl`, `dialogues.jsonl` or both; without the first the scenarios
            are those in the dialogues.
        culture: What all should be of, by the culture's name or country.

    Raises:
        StudyError: There is neither file, a line does not fit, two are the same, one is of another
            culture, or a dialogue's scenario is not among the scenarios; file and line are named.
    """
    paths = folder / SCENARIOS, folder / DIALOGUES
    if not any(path.is_file() for path in paths):
        raise StudyError(f"{shown(folder)} holds neither {SCENARIOS} nor {DIALOGUES}: add one.")
    scenarios = read_records(paths[0], ReleaseScenario) if paths[0].is_file() else []
    dialogues = read_records(paths[1], ReleaseDialogue) if paths[1].is_file() else []
    acted = [line.persona for line in dialogues]
    for path, lines in zip(paths, (scenarios, acted), strict=True):
        for number, line in enumerate(lines, start=1):
            if culture is not None and not _is_of(line, culture):
                raise StudyError(
                    f"{shown(path)}, line {number}, culture: found {line.culture!r}, not "
                    f"{culture.name}; keep each culture in a folder of its own."
                )
    keys = [line.model_dump_json() for line in scenarios]
    _refuse_twins(paths[0], keys, "scenario")
    casts = [f"{line.persona.model_dump_json()} {line.sample}" for line in dialogues]
    _refuse_twins(paths[1], casts, "scenario and sample")
    if not paths[0].is_file():
        scenarios = list({one.model_dump_json(): one for one in acted}.values())
        return Release(scenarios, dialogues)
    known = set(keys)
    for number, line in enumerate(acted, start=1):
        if line.model_dump_json() not in known:
            raise StudyError(
                f"{shown(paths[1])}, line {number}, persona: this scenario ({line.persona}) is "
                f"not in {SCENARIOS} as it stands here; add it there, or delete that file."
            )
    return Release(scenarios, dialogues)


def _is_of(line: ReleaseScenario, culture: Culture) -> bool:
    """Tell whether a scenario is of a culture; the release writes its name or its country."""
    called = line.culture.casefold()
    return CULTURES.get(called, called) in (culture.name.casefold(), culture.country.casefold())


def _refuse_twins(path: Path, keys: Sequence[str], what: str) -> None:
    """Refuse lines that could not be told apart."""
    first: dict[str, int] = {}
    for number, key in enumerate(keys, start=1):
        if first.setdefault(key, number) != number:
            raise StudyError(
                f"{shown(path)}, line {number}: it has the same {what} as line {first[key]}; "
                "delete one of them."
            )


def write_release(
    folder: Path,
    scenarios: Sequence[Scenario],
    dialogues: Sequence[Dialogue],
    intents: Iterable[Intent] = (),
) -> None:
    """Write scenarios and dialogues as the release does; no dialogues, no file of them.

    Raises:
        StudyError: Something cannot be written so that it is read again as it is, two scenarios
            are the same but for their ids, or a file is there already.
    """
    paths = folder / SCENARIOS, folder / DIALOGUES
    _refuse_files(paths)
    by_dialogue = defaultdict(list)
    for intent in intents:
        by_dialogue[intent.dialogue_id].append(intent)
    of = {scenario.id: scenario for scenario in scenarios}
    lines = [export_scenario(scenario) for scenario in scenarios]
    _refuse_twins(paths[0], [line.model_dump_json() for line in lines], "scenario")
    talks = [
        export_dialogue(dialogue, of[dialogue.scenario_id], by_dialogue[dialogue.id])
        for dialogue in dialogues
    ]
    write_text(paths[0], _as_text(lines))
    if talks:
        write_text(paths[1], _as_text(talks))


def _as_text(lines: Iterable[Line]) -> str:
    """Write lines as JSON, without the keys that nothing is known of."""
    return "".join(line.model_dump_json(exclude_none=True) + "\n" for line in lines)


def _refuse_files(paths: Iterable[Path]) -> None:
    """Overwrite nothing."""
    for path in paths:
        if path.exists():
            raise StudyError(
                f"{shown(path)} is there already: choose another folder, or delete it."
            )


def export_run(run: Path, target: Path) -> str:
    """Write what a run folder holds as the release's lines; of judged dialogues those kept.

    Returns:
        What was written, as a sentence.

    Raises:
        StudyError: A file is damaged, a dialogue has no scenario, or see `write_release`.
    """
    scenarios = read_records(run / SCENARIOS, Scenario, "01_scenario_adaptation")
    dialogues = _read_if_there(run / DIALOGUES, Dialogue)
    intents = _read_if_there(run / INTENTS, Intent)
    everyone = {scenario.id for scenario in scenarios}
    for number, dialogue in enumerate(dialogues, start=1):
        if dialogue.scenario_id not in everyone:
            raise StudyError(
                f"{shown(run / DIALOGUES)}, line {number}, scenario_id: found "
                f"{dialogue.scenario_id!r}, which is not in {SCENARIOS}; rerun stage 02."
            )
    judgements = _read_if_there(run / JUDGEMENTS, Judgement)
    kept = kept_dialogues(dialogues, judgements) if judgements else dialogues
    write_release(target, scenarios, kept, intents)
    dropped = len(dialogues) - len(kept)
    left_out = f" ({dropped} dropped ones left out)" if dropped else ""
    return f"{len(scenarios)} scenarios, {len(kept)} dialogues{left_out} are in {shown(target)}."


def _read_if_there(path: Path, schema: type[Record]) -> list[Record]:
    """Read a file that a run may lack."""
    return read_records(path, schema) if path.is_file() else []


def import_run(source: Path, run: Path, culture: str) -> str:
    """Write the release's lines as the files of a run, from which stages 02 to 04 go on.

    Stage 04 needs an intent of every turn, so a dialogue that has only some is taken without them.

    Args:
        source: The folder of the release's lines.
        run: The run's folder.
        culture: What they are of, by name or path.

    Returns:
        What was written and what to run next, as a sentence.

    Raises:
        StudyError: A file of the run is there already, or see `read_release`.
    """
    paths = [run / name for name in (SCENARIOS, DIALOGUES, JUDGEMENTS, INTENTS)]
    _refuse_files(paths)
    known = load_culture(culture)
    release = read_release(source, known)
    scenarios = [
        import_scenario(line, number, known)
        for number, line in enumerate(release.scenarios, start=1)
    ]
    of = dict(zip((line.model_dump_json() for line in release.scenarios), scenarios, strict=True))
    talks = [
        (line, *import_dialogue(line, of[line.persona.model_dump_json()]))
        for line in release.dialogues
    ]
    dialogues = [dialogue for _, dialogue, _ in talks]
    judgements = [import_judgement(line, dialogue) for line, dialogue, _ in talks]
    whole = [intents for _, talk, intents in talks if intents and len(intents) == len(talk.turns)]
    partly = sum(bool(intents) for *_, intents in talks) - len(whole)
    write_records(paths[0], scenarios)
    if dialogues:
        write_records(paths[1], dialogues)
        write_records(paths[2], judgements)
    if whole:
        write_records(paths[3], [intent for intents in whole for intent in intents])
    written = f"{len(scenarios)} scenarios"
    following = "02_dialogue_simulation"
    if dialogues:
        kept = sum(one.kept for one in judgements)
        written += f", {len(dialogues)} dialogues ({kept} kept) and the intents of {len(whole)}"
        following = "04_fine_tuning" if whole else "03_intent_extraction"
    if partly:
        written += f" (not of {partly} more, where some turns have none)"
    return f"{written} are in {shown(run)}; go on there with {following}."
