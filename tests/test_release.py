"""The release's lines: round trips are exact, variants are read, slips told by file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_texts import plain_text
from pydantic import ValidationError
from typer.testing import CliRunner

from clca_utils.adaptation import NEUTRAL_COUNTRY, load_scenarios
from clca_utils.chat_model import ScriptedModel
from clca_utils.cli import app
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, Sampling, Turn, simulate
from clca_utils.examples import build_examples
from clca_utils.figures import dialogue_figure, scenario_figure
from clca_utils.files import StudyError, read_records, write_records
from clca_utils.intent import Intent, extract
from clca_utils.judging import Judgement, decide, judge_form, kept_dialogues
from clca_utils.release import (
    MARK,
    ReleaseDialogue,
    ReleaseRound,
    ReleaseScenario,
    address,
    export_dialogue,
    export_scenario,
    import_dialogue,
    import_judgement,
    import_scenario,
    joined_intent,
    read_release,
    split_intent,
    write_release,
)
from clca_utils.tables import judgement_table, slot_table, turn_table

# what goes wrong most easily: quotes, braces, the mark, line separators, other scripts
TEXTS = plain_text() | st.sampled_from(
    [
        'She said "no".',
        "{name} {}",
        f"a{MARK}b",
        f"a{MARK}",
        "a\nb\u2028c\\",
        "田中さん 🙂",
        " and ",
    ]
)
NAMES = (
    (
        plain_text(min_size=1)
        | st.sampled_from(["Ana", "O'Neill-Sørensen", "田中", "{Bo}", "and Andy"])
    )
    .map(str.strip)
    .filter(lambda name: name and " and " not in f"{name} ")
)
PAIRS = st.tuples(NAMES, NAMES).filter(lambda two: two[0] != two[1])
ACTIONS = st.sampled_from(["none", "non-verbal", "speak"])


@st.composite
def casts(draw):
    """Return a scenario, a dialogue of it as the simulation could make it, and its intents."""
    scenario = import_scenario(ReleaseScenario.model_validate(draw(scenario_lines())))
    actions = draw(st.lists(ACTIONS, max_size=7))
    actions += draw(st.sampled_from([[], ["leave"]]))
    names = [one.name for one in scenario.people]
    turns = [
        Turn(
            index=i, speaker=names[i % 2], action=action, text=draw(TEXTS),
            forced=0.0, format_mass=None,
        )
        for i, action in enumerate(actions)
    ]  # fmt: skip
    ended = "leave" if "leave" in actions else "turn limit" if turns else "malformed reply"
    dialogue = Dialogue(
        id=f"{scenario.id}-3", scenario_id=scenario.id, culture=scenario.culture, sample=3,
        seed=0, simulators=("imported", "imported"), turns=turns, ended=ended,
    )  # fmt: skip
    intents = []
    for turn in draw(st.lists(st.sampled_from(turns), unique_by=id)) if turns else []:
        texts = plain_text().filter(lambda text: MARK not in text)
        intent, expectation = draw(texts.filter(len)), draw(TEXTS)
        known = not expectation or split_intent(intent + MARK + expectation)[0] == intent
        expectation = expectation if known else ""
        intents.append(
            Intent(
                dialogue_id=dialogue.id, turn=turn.index, speaker=turn.speaker, intent=intent,
                cultural=bool(expectation), confidence=float(bool(expectation)),
                expectation=expectation,
            )
        )  # fmt: skip
    return scenario, dialogue, sorted(intents, key=lambda intent: intent.turn)


@st.composite
def scenario_lines(draw):
    """Return a scenario line of the release."""
    keys = ("background", "occupation", "goal", "secrets")
    people = [{key: draw(TEXTS) for key in keys} for _ in range(2)]
    return {
        "culture": draw(st.sampled_from(["German", "Japanese", "Korean"])),
        "setting": draw(TEXTS),
        "persona": " and ".join(draw(PAIRS)),
        "person1": people[0],
        "person2": people[1],
    }


@st.composite
def dialogue_lines(draw):
    """Return a dialogue line as the release writes it: rounds, until one of the two leaves."""

    def move(role, action, text, known):
        intent = {f"{role}_intent": draw(TEXTS.filter(len))} if known else {}
        return {f"{role}_action": action, role: text, **intent}

    rounds = [
        {"turn": number}
        | move("model_inquirer", draw(ACTIONS), draw(TEXTS), draw(st.booleans()))
        | move("model_responder", draw(ACTIONS), draw(TEXTS), draw(st.booleans()))
        for number in range(draw(st.integers(0, 3)))
    ]
    whole = len(rounds)
    ending = draw(st.sampled_from(["limit", "first leaves", "second leaves"]))
    if ending != "limit":
        first = ending == "first leaves"
        action = "leave" if first else draw(ACTIONS)
        last = move("model_inquirer", action, draw(TEXTS), draw(st.booleans()))
        text = "" if first else draw(TEXTS)
        last |= move("model_responder", "leave", text, not first and draw(st.booleans()))
        rounds.append({"turn": whole} | last)
    return {
        "persona": draw(scenario_lines()),
        "sample": draw(st.integers(0, 10**6)),
        "num_turns": whole,
        "dialog": rounds,
    }


def as_line(record):
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def line_of(**changes):
    """Return a dialogue line such as the release's own code writes before it adds intents."""
    people = {"background": "40.", "occupation": "a baker", "goal": "A ladder.", "secrets": "None."}
    rounds = [
        {
            "turn": 0,
            "model_inquirer_action": "speak", "model_inquirer": "Good evening.",
            "model_inquirer_intent": None,
            "model_responder_action": "action", "model_responder": "nods",
            "model_responder_intent": None,
        },
        {
            "turn": 1,
            "model_inquirer_action": "leave", "model_inquirer": "Good night.",
            "model_inquirer_intent": None,
            "model_responder_action": "leave", "model_responder": "",
            "model_responder_intent": "",
        },
    ]  # fmt: skip
    return {
        "persona": {
            "culture": "Germany", "setting": "On the stairs.", "persona": "Ana Lang and Ben Roth",
            "person1": people, "person2": people,
        },
        "sample": 7, "num_turns": 1, "dialog": rounds,
    } | changes  # fmt: skip


def with_intents(line, texts):
    """Return a line with intents, turn by turn."""
    keys = [f"model_{who}_intent" for who in ("inquirer", "responder")]
    line = json.loads(json.dumps(line))
    for i, text in enumerate(texts):
        line["dialog"][i // 2][keys[i % 2]] = text
    return line


def written(folder, scenarios=None, dialogues=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("scenarios", scenarios), ("dialogues", dialogues)):
        if lines is not None:
            text = "".join(as_line(line) + "\n" for line in lines)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def ask(*arguments: object):
    return CliRunner().invoke(app, ["release", *map(str, arguments)])


# round trips


@given(casts())
def test_what_is_exported_is_imported_as_it_was(cast):
    scenario, dialogue, intents = cast
    line = export_dialogue(dialogue, scenario, intents)
    again = ReleaseDialogue.model_validate_json(line.model_dump_json(exclude_none=True))
    assert import_scenario(again.persona) == scenario
    assert import_dialogue(again, scenario) == (dialogue, intents)


@given(dialogue_lines())
def test_what_is_imported_is_exported_as_the_same_line(record):
    line = ReleaseDialogue.model_validate_json(as_line(record))
    scenario = import_scenario(line.persona)
    dialogue, intents = import_dialogue(line, scenario)
    again = export_dialogue(dialogue, scenario, intents)
    assert again.model_dump_json(exclude_none=True) == as_line(record)


@given(scenario_lines())
def test_a_scenario_line_is_exported_as_it_was(record):
    line = ReleaseScenario.model_validate_json(as_line(record))
    assert as_line(record) == export_scenario(import_scenario(line)).model_dump_json()


@given(TEXTS)
def test_a_text_is_split_into_intent_and_expectation_and_joined_again(text):
    intent, expectation = split_intent(text)
    if text:
        assert joined_intent(_intent(intent, expectation)) == text
    assert expectation == "" or MARK not in intent


def _intent(intent, expectation=""):
    return Intent(
        dialogue_id="d", turn=0, speaker="Ana", intent=intent, cultural=bool(expectation),
        confidence=0.9, expectation=expectation,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("intent", "expectation"), [("", ""), (f"a{MARK}b", ""), (f"a{MARK}", "b")]
)
def test_an_intent_that_could_not_be_split_again_is_refused(intent, expectation):
    with pytest.raises(StudyError, match=r"Dialogue d, turn 0, intent: "):
        joined_intent(_intent(intent, expectation))


def test_the_expectation_is_behind_the_mark():
    text = joined_intent(_intent("Ana wants a ladder.", "Many people ask twice."))
    assert text == "Ana wants a ladder. [expectation] Many people ask twice."


# scenarios


def test_an_imported_scenario_takes_from_its_culture_what_the_release_lacks():
    japanese = load_culture("japanese")
    record = line_of()["persona"] | {"culture": "Japan", "persona": "Tanaka Yuki and Dr. Sato"}
    scenario = import_scenario(ReleaseScenario.model_validate(record), 4, japanese)
    assert (scenario.id, scenario.seed_id) == ("japanese-imported-004", "imported-004")
    assert (scenario.culture, scenario.country) == ("Japanese", "Japan")
    assert (scenario.domain, scenario.relation, scenario.rewriter) == ("imported", "", "imported")
    assert (scenario.power, scenario.split) == ("equal", "learn")
    assert scenario.descriptors == japanese.descriptors() != []
    assert (scenario.customs, scenario.items) == ([], [])
    assert [person.address for person in scenario.people] == ["Tanaka-san", "Dr. Sato"]
    assert scenario.person1.secret == "None."


def test_a_culture_without_a_file_gives_no_descriptors():
    line = ReleaseScenario.model_validate(line_of()["persona"] | {"culture": "Korean"})
    scenario = import_scenario(line)
    assert (scenario.culture, scenario.country) == ("Korean", NEUTRAL_COUNTRY)
    assert scenario.descriptors == []
    assert [person.address for person in scenario.people] == ["Ana Lang", "Ben Roth"]


@pytest.mark.parametrize(
    ("culture", "name", "called"),
    [
        ("german", "Ana Lang", "Ana"),
        ("german", "Ana", "Ana"),
        ("mexican", "María José Ruiz", "María"),
        ("chinese", "Li Xiao Ming", "Xiao Ming"),
        ("chinese", "Li", "Li"),
        ("japanese", "Tanaka Yuki", "Tanaka-san"),
        ("japanese", "Tanaka-san", "Tanaka-san"),
        ("british", "Mrs. Jane Hill", "Mrs. Jane Hill"),
    ],
)
def test_people_are_addressed_as_their_culture_does(culture, name, called):
    assert address(name, load_culture(culture)) == called


def test_two_of_one_family_are_called_by_their_whole_names():
    record = line_of()["persona"] | {"persona": "Tanaka Yuki and Tanaka Haruto"}
    line = ReleaseScenario.model_validate(record)
    scenario = import_scenario(line, culture=load_culture("japanese"))
    assert [person.address for person in scenario.people] == ["Tanaka Yuki", "Tanaka Haruto"]


def test_spaces_around_names_are_read_as_the_release_does():
    record = line_of()["persona"] | {"persona": " Ana  and  Ben "}
    assert ReleaseScenario.model_validate(record).names == ("Ana", "Ben")
    with pytest.raises(ValidationError, match="two different names"):
        ReleaseScenario.model_validate(record | {"persona": "Ana and\t and Ben"})


@pytest.mark.parametrize(
    "names",
    [
        ("Mr. and Mrs. Lang", "Ben"),
        ("Ana and", "Ben"),
        ("Ana", "Ana"),
        ("Ana", ""),
        (" Ana", "Ben"),
    ],
)
def test_names_that_the_release_would_split_elsewhere_are_not_exported(names):
    scenario = import_scenario(ReleaseScenario.model_validate(line_of()["persona"]))
    people = zip(("person1", "person2"), scenario.people, names, strict=True)
    renamed = {key: one.model_copy(update={"name": name}) for key, one, name in people}
    with pytest.raises(StudyError, match=r"Scenario germany-imported-001, (persona|names): "):
        export_scenario(scenario.model_copy(update=renamed))


# dialogues


@pytest.mark.parametrize(
    ("spelling", "action"),
    [
        ("1", "none"), ("None", "none"), ("did nothing", "none"), ("", "none"),
        ("2", "non-verbal"), ("action", "non-verbal"), ("2. Non-Verbal", "non-verbal"),
        ("[non-verbal communication]", "non-verbal"), ("nonverbal", "non-verbal"),
        ("Speak", "speak"), ("3. speak", "speak"), ('said: "', "speak"),
        ("LEAVE.", "leave"), ("4", "leave"), ("left the conversation", "leave"),
    ],
)  # fmt: skip
def test_spellings_of_an_action_are_read(spelling, action):
    one = ReleaseRound(turn=0, model_inquirer_action=spelling, model_inquirer="x")
    assert one.model_inquirer_action == action


def test_a_line_of_the_release_is_read_turn_by_turn():
    line = ReleaseDialogue.model_validate_json(as_line(line_of()))
    scenario = import_scenario(line.persona, culture=load_culture("german"))
    dialogue, intents = import_dialogue(line, scenario)
    assert dialogue.id == "german-imported-001-7"
    assert (dialogue.ended, dialogue.source) == ("leave", "simulated")
    assert [(turn.speaker, turn.action, turn.text) for turn in dialogue.turns] == [
        ("Ana Lang", "speak", "Good evening."),
        ("Ben Roth", "non-verbal", "nods"),
        ("Ana Lang", "leave", "Good night."),
    ]
    assert intents == []


def test_missing_actions_are_speech_or_silence_and_a_missing_last_turn_is_none():
    rounds = [
        {"turn": 0, "model_inquirer": "Hello.", "model_responder": "Hi."},
        {"turn": 1, "model_inquirer": ""},
    ]
    line = ReleaseDialogue.model_validate(line_of(dialog=rounds))
    dialogue, _ = import_dialogue(line, import_scenario(line.persona))
    assert [turn.action for turn in dialogue.turns] == ["speak", "speak", "none"]
    assert dialogue.ended == "turn limit"


def test_intents_of_other_dialogues_are_left_out():
    line = ReleaseDialogue.model_validate(line_of())
    scenario = import_scenario(line.persona)
    dialogue, _ = import_dialogue(line, scenario)
    mine = _intent("Ana is polite.").model_copy(update={"dialogue_id": dialogue.id})
    for intents, told in (([_intent("Other.")], [None] * 3), ([mine], [mine.intent, None, None])):
        exported = export_dialogue(dialogue, scenario, intents)
        assert [move.intent for move in exported.moves()] == told


def test_an_odd_dialogue_stays_readable_for_the_release():
    record = line_of(dialog=[{"turn": 0, "model_inquirer": "Hello."}])
    line = ReleaseDialogue.model_validate(record)
    scenario = import_scenario(line.persona)
    dialogue, _ = import_dialogue(line, scenario)
    exported = export_dialogue(dialogue, scenario)
    assert exported.num_turns == 0
    assert exported.dialog[0].model_dump(exclude_none=True)["model_responder"] == ""


@pytest.mark.parametrize(
    ("people", "actions", "told"),
    [
        ((0, 0), ("speak", "speak"), "Dialogue d, turn 1, speaker: found 'Ana Lang'"),
        ((1,), ("speak",), "Dialogue d, turn 0, speaker: found 'Ben Roth'"),
        ((0, 1, 0), ("speak", "leave", "speak"), "Dialogue d, dialog: in round 0 someone leaves"),
        ((0, 1), ("leave", "leave"), "Dialogue d: someone still has a turn"),
    ],
)
def test_turns_that_the_release_has_no_place_for_are_not_exported(people, actions, told):
    scenario = import_scenario(ReleaseScenario.model_validate(line_of()["persona"]))
    turns = [
        Turn(
            index=i, speaker=scenario.people[who].name, action=action, text="", forced=0.0,
            format_mass=None,
        )
        for i, (who, action) in enumerate(zip(people, actions, strict=True))
    ]  # fmt: skip
    dialogue = Dialogue(
        id="d", scenario_id=scenario.id, culture="Germany", sample=0, seed=0,
        simulators=("a", "b"), turns=turns, ended="turn limit",
    )  # fmt: skip
    with pytest.raises(StudyError) as error:
        export_dialogue(dialogue, scenario)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({}, "kept"),
        ({"quality": "bad", "quality_confidence": "confident"}, "kept"),
        ({"quality": "bad", "quality_confidence": "very confident"}, "quality bad"),
        ({"meta_quality": "bad", "meta_quality_confidence": "very confident"}, "meta bad"),
        ({"culture_alignment": "not aligned", "meta_critic": "Stiff."}, "kept"),
        ({"dialog": []}, "no turns"),
    ],
)
def test_a_dialogue_is_kept_unless_the_release_would_drop_it(labels, reason):
    line = ReleaseDialogue.model_validate(line_of(**labels))
    dialogue, _ = import_dialogue(line, import_scenario(line.persona))
    judgement = import_judgement(line, dialogue)
    assert (judgement.kept, judgement.reason) == (reason == "kept", reason)
    assert [verdict.judge for verdict in judgement.verdicts] == ["imported"]


# folders


def test_a_folder_is_written_and_read_again(tmp_path):
    records = [line_of(), line_of(sample=8, dialog=[])]
    read = read_release(written(tmp_path / "a", dialogues=records))
    assert len(read.scenarios) == 1
    scenario = import_scenario(read.scenarios[0])
    dialogues = [import_dialogue(line, scenario)[0] for line in read.dialogues]
    write_release(tmp_path / "b", [scenario], dialogues)
    again = read_release(tmp_path / "b")
    assert "null" not in (tmp_path / "b" / "dialogues.jsonl").read_text()
    assert again.scenarios == read.scenarios
    assert [line.dialog for line in again.dialogues] == [line.dialog for line in read.dialogues]
    with pytest.raises(StudyError, match=r"b/scenarios.jsonl is there already"):
        write_release(tmp_path / "b", [scenario], [])


def test_scenarios_that_are_alike_are_not_written(tmp_path):
    line = ReleaseScenario.model_validate(line_of()["persona"])
    with pytest.raises(StudyError, match="line 2: it has the same scenario as line 1"):
        write_release(tmp_path, [import_scenario(line, 1), import_scenario(line, 2)], [])
    assert not list(tmp_path.iterdir())


def _changed(round_changes):
    line = line_of()
    line["dialog"][0] |= round_changes
    return line


OTHER = {"setting": "Elsewhere."}


@pytest.mark.parametrize(
    ("scenarios", "dialogues", "told"),
    [
        (None, None, "holds neither scenarios.jsonl nor dialogues.jsonl"),
        (
            None,
            [line_of(), _changed({"model_responder_action": "dance"})],
            "dialogues.jsonl, line 2: dialog.0.model_responder_action: expected one of none, "
            "non-verbal, speak, leave (found 'dance')",
        ),
        (None, [_changed({"turn": "0"})], "line 1: dialog.0.turn: Input should be a valid integer"),
        (None, [_changed({"turn": 1})], "line 1: dialog: round 0 (from 0) has the turn 1"),
        (
            None,
            [_changed({"model_responder_action": None, "model_responder": ""})],
            "line 1: dialog: round 0 has no model_responder",
        ),
        (
            None,
            [_changed({"model_responder_action": "leave"})],
            "line 1: dialog: in round 0 someone leaves, expected no turn after that",
        ),
        (None, [_changed({"model": "x"})], "line 1: dialog.0.model: there is no such key"),
        (None, [line_of(persona="Ana and Ben")], "line 1: persona: Input should be an object"),
        (
            [line_of()["persona"] | {"persona": "Ana & Ben"}],
            None,
            "scenarios.jsonl, line 1: persona: expected two different names with one ' and ' "
            "between them (found 'Ana & Ben')",
        ),
        ([line_of()["persona"]] * 2, None, "scenarios.jsonl, line 2: it has the same scenario"),
        (None, [line_of()] * 2, "dialogues.jsonl, line 2: it has the same scenario and sample"),
        (
            [line_of()["persona"] | OTHER],
            [line_of()],
            "dialogues.jsonl, line 1, persona: this scenario (Ana Lang and Ben Roth) is not in",
        ),
        (
            None,
            [line_of(), line_of(persona=line_of()["persona"] | {"culture": "Japan"})],
            "dialogues.jsonl, line 2, culture: found 'Japan', not German",
        ),
    ],
)  # fmt: skip
def test_a_slip_in_a_line_is_told_with_its_place(tmp_path, scenarios, dialogues, told):
    with pytest.raises(StudyError) as error:
        read_release(written(tmp_path, scenarios, dialogues), load_culture("german"))
    assert told in str(error.value)
    assert str(error.value).count("\n") == 0


def test_the_release_may_name_a_culture_by_its_country(tmp_path):
    for culture, called in (("british", "UK"), ("british", "Great Britain"), ("mexican", "mexico")):
        record = line_of()["persona"] | {"culture": called}
        folder = written(tmp_path / called, [record])
        assert len(read_release(folder, load_culture(culture)).scenarios) == 1


# the command line, and the stages after it


def test_an_imported_run_goes_on_to_training_and_back_out(tmp_path):
    texts = ["Ana is polite.", f"Ben agrees.{MARK}Many people nod.", "Ana ends it."]
    records = [
        with_intents(line_of(), texts),
        with_intents(line_of(sample=8), texts[:1]),
        line_of(sample=9, quality="bad", quality_confidence="very confident"),
    ]
    source, run = written(tmp_path / "source", dialogues=records), tmp_path / "run"
    answer = ask("import", source, run, "--culture", "german")
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout == (
        "1 scenarios, 3 dialogues (2 kept) and the intents of 1 (not of 1 more, where some turns "
        f"have none) are in {run}; go on there with 04_fine_tuning.\n"
    )
    scenarios = load_scenarios(run, "german")
    dialogues = read_records(run / "dialogues.jsonl", Dialogue)
    judgements = read_records(run / "judgements.jsonl", Judgement)
    intents = read_records(run / "intents.jsonl", Intent)
    kept = kept_dialogues(dialogues, judgements)
    examples = build_examples(scenarios, kept, intents, {"imitation": 1.0, "intent": 1.0}, 1)
    assert [example.task for example in examples].count("intent") == 1
    assert [example.task for example in examples].count("imitation") == 4
    assert examples[-1].messages[-1]["content"] == "Ana ends it."
    # stage 03 asks about every turn, and the report draws what it draws of any run
    turns = [(scenarios[0], kept[1], turn) for turn in kept[1].turns]
    model = ScriptedModel(["to be polite."] * 3, [[-1.0, -2.0]] * 6)
    asked = extract(model, turns, seed=1, max_new_tokens=5, cultural_threshold=0.9)
    assert asked[0].intent == "Ana Lang wants to to be polite."
    scenario_figure(slot_table(scenarios))
    dialogue_figure(turn_table(dialogues), judgement_table(judgements))

    answer = ask("export", run, tmp_path / "target")
    assert answer.stdout == (
        f"1 scenarios, 2 dialogues (1 dropped ones left out) are in {tmp_path / 'target'}.\n"
    )
    again = read_release(tmp_path / "target").dialogues
    assert [line.sample for line in again] == [7, 8]
    assert [move.intent for move in again[0].moves()] == texts
    assert again[0].persona.culture == "German"


def test_imported_scenarios_are_acted(tmp_path):
    source = written(tmp_path / "source", [line_of()["persona"]])
    answer = ask("import", source, tmp_path / "run", "--culture", "german")
    assert answer.stdout == (
        f"1 scenarios are in {tmp_path / 'run'}; go on there with 02_dialogue_simulation.\n"
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["scenarios.jsonl"]
    model = ScriptedModel([f"ACTION: speak\nOUTPUT: Good {x}, dear." for x in ("day", "evening")])
    sampling = Sampling(max_turns=2, max_new_tokens=9, temperature=0, top_p=1, decoding="free")
    [scenario] = load_scenarios(tmp_path / "run", "german")
    [(_, dialogue)] = simulate((model, model), [(scenario, 0)], 1, sampling, live=1)
    assert [turn.speaker for turn in dialogue.turns] == ["Ana Lang", "Ben Roth"]
    judgement = decide(dialogue.id, [judge_form(scenario, dialogue)], 0.9, ())
    write_records(tmp_path / "run" / "dialogues.jsonl", [dialogue])
    write_records(tmp_path / "run" / "judgements.jsonl", [judgement])
    answer = ask("export", tmp_path / "run", tmp_path / "target")
    assert answer.stdout == f"1 scenarios, 1 dialogues are in {tmp_path / 'target'}.\n"
    [line] = read_release(tmp_path / "target").dialogues
    assert [move.text for move in line.moves()] == ["Good day, dear.", "Good evening, dear."]


def test_a_run_of_scenarios_alone_is_exported(tmp_path):
    run = written(tmp_path / "run")
    scenario = import_scenario(ReleaseScenario.model_validate(line_of()["persona"]))
    write_records(run / "scenarios.jsonl", [scenario])
    target = tmp_path / "target"
    assert ask("export", run, target).stdout == f"1 scenarios, 0 dialogues are in {target}.\n"
    assert [path.name for path in target.iterdir()] == ["scenarios.jsonl"]


@pytest.mark.parametrize("name", ["scenarios", "dialogues", "judgements", "intents"])
def test_nothing_is_overwritten(tmp_path, name):
    source = written(tmp_path / "source", dialogues=[line_of()])
    run = written(tmp_path / "run")
    (run / f"{name}.jsonl").write_text("mine\n")
    answer = ask("import", source, run, "--culture", "german")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"{run / name}.jsonl is there already")
    assert [path.name for path in run.iterdir()] == [f"{name}.jsonl"]
    assert (run / f"{name}.jsonl").read_text() == "mine\n"


def test_a_slip_on_the_command_line_is_a_sentence(tmp_path):
    source = written(tmp_path / "source", dialogues=[line_of()])
    answer = ask("import", source, tmp_path / "run", "--culture", "japanese")
    assert answer.exit_code == 1
    assert "line 1, culture: found 'Germany', not Japanese" in answer.stderr
    answer = ask("import", source, tmp_path / "run", "--culture", "germn")
    assert "did you mean 'german'?" in answer.stderr
    assert not (tmp_path / "run").exists()
    answer = ask("export", tmp_path / "run", tmp_path / "target")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "scenarios.jsonl is missing: run 01_scenario_adaptation first" in answer.stderr


def test_a_dialogue_without_its_scenario_is_told(tmp_path):
    line = ReleaseDialogue.model_validate(line_of())
    scenario = import_scenario(line.persona)
    dialogue, _ = import_dialogue(line, scenario)
    run = written(tmp_path / "run")
    write_records(run / "scenarios.jsonl", [import_scenario(line.persona, 2)])
    write_records(run / "dialogues.jsonl", [dialogue])
    answer = ask("export", run, tmp_path / "target")
    assert f"dialogues.jsonl, line 1, scenario_id: found '{scenario.id}'" in answer.stderr
    assert not (tmp_path / "target").exists()
