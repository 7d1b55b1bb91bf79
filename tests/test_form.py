"""Form: each rule finds its fault, nothing else, and none finds fault with the authored talk."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all
from clca_utils.authored import authored_cultures, load_authored
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, Turn, role_prompt
from clca_utils.form import RULES, form_problem, words
from clca_utils.scenario import load_seeds

SCENE = adapt_all(load_seeds()[:1], load_culture("german"), seed=1)[0]
FIRST, SECOND = SCENE.people
TEXT = st.text(max_size=60)


def talk(*lines, ended="turn limit", scene=SCENE):
    """Return a dialogue; a line is words, or an action and its text."""
    told = [line if isinstance(line, tuple) else ("speak", line) for line in lines]
    turns = [
        Turn(index=i, speaker=scene.people[i % 2].name, action=action, text=text, forced=0,
             format_mass=None)
        for i, (action, text) in enumerate(told)
    ]  # fmt: skip
    return Dialogue(
        id=f"{scene.id}-0", scenario_id=scene.id, culture=scene.culture, sample=0, seed=1,
        simulators=("m", "m"), turns=turns, ended=ended,
    )  # fmt: skip


@cache
def authored():
    """Return scenario and dialogue of every authored conversation."""
    pairs = []
    for culture in authored_cultures():
        some = load_authored(culture)
        pairs += zip(some.scenarios, some.dialogues, strict=True)
    return pairs


def problems(dialogue, scene=SCENE):
    return [reason for reason, rule in RULES if rule(scene, dialogue)]


HELLO = ("Do come in.", "Thank you, gladly.")
LONG = "I have put the kettle on and laid a second plate."

CASES = [
    (talk(*HELLO, ("non-verbal", "smiles"), ("leave", "")), ""),
    (talk(*HELLO, "Well."), ""),
    (talk("Do come in.", ("non-verbal", "nods"), "Sit down."), ""),
    (talk(*HELLO, "Do come in."), ""),
    (talk(("non-verbal", "nods"), ("non-verbal", "smiles")), ""),
    (talk(*HELLO, "Thank you, thank you, thank you, it is nothing."), ""),
    (talk(*HELLO, ended="malformed reply"), "malformed reply"),
    (talk(), "one-sided"),
    (talk("Do come in."), "one-sided"),
    (talk("Do come in.", ("none", ""), "Hello, you?"), "one-sided"),
    (talk(*HELLO, ""), "empty turn"),
    (talk(*HELLO, "…"), "empty turn"),
    (talk(*HELLO, ("non-verbal", "-")), "empty turn"),
    (talk("Hello.", "Thank you."), "empty opening"),
    (talk("Do come in.", "Thanks."), "empty opening"),
    (talk(*HELLO, "do COME in.", "Oh, yes.", "Thank you, gladly."), "repeated lines"),
    (talk(*HELLO, "Do come in!", "Thank you gladly"), "repeated lines"),
    (talk("Do come in.", "Do come in."), "repeated lines"),
    (talk(*HELLO, "I'm afraid, I'm afraid, I'm afraid and I’m afraid to be."), "looping turn"),
    (talk(*HELLO, LONG, "Why?", f"Well, {LONG}"), "copied turn"),
    (talk(LONG, ("leave", f"Oh! {LONG}")), "copied turn"),
    (talk(*HELLO, SCENE.setting), "copied turn"),
    (talk(*HELLO, SCENE.customs[0]), "copied turn"),
    (talk(*HELLO, "Reply only as me, in one or two short sentences that answer you."),
     "copied turn"),
    (talk(*HELLO, f"Well. {FIRST.secret}"), "leaked secret"),
    (talk(*HELLO, f"Well. {SECOND.secret}"), "leaked secret"),
    (talk(*HELLO, "Well.", "I fell asleep at work, I'm afraid."), "leaked secret"),
    (talk(*HELLO, "Asleep last night at work, got a warning, and the next shift! Now I lie."),
     "leaked secret"),
    (talk(*HELLO, ("non-verbal", "goes on cooking for two every evening")), "leaked secret"),
    (talk(*HELLO, "ACTION: speak. Sit down."), "leaked format"),
    (talk(*HELLO, "Sit down.<|im_end|>"), "leaked format"),
    (talk(*HELLO, "[INST] Sit down."), "leaked format"),
    (talk(*HELLO, "Sorry, as an AI I do not eat."), "leaked format"),
    (talk(*HELLO, '{"reply": "Sit down."}'), "leaked format"),
    (talk(*HELLO, f"{SECOND.name}: I will."), "wrong speaker"),
    (talk(*HELLO, f"Sit down. {SECOND.address}: I will."), "wrong speaker"),
    (talk(*HELLO, "User: Sit down."), "wrong speaker"),
    (talk(*HELLO, f"{FIRST.name} says that you may sit down."), "wrong speaker"),
    (talk(*HELLO, f"Sit down, {SECOND.address}, smiles cost nothing."), ""),
    (talk(*HELLO, "请坐。"), "broken language"),
    (talk(*HELLO, "Пожалуйста, sit down."), "broken language"),
    (talk(*HELLO, "Fürs Café: naïve crêpes, señor Çelik, from Łódź, if you like them."), ""),
    (talk(*HELLO, "Nooooooo, sit down."), "broken language"),
    (talk(*HELLO, "Bitte setzen Sie sich, das Essen steht schon auf dem Tisch."),
     "broken language"),
    (talk("Glorp fnord.", "Blick zamp.", "Trunde wemb.", "Skolt brin."), "broken language"),
    (talk(*HELLO, "I have put the kettle on and"), "cut short"),
    (talk(*HELLO, 'She said "no".'), ""),
]  # fmt: skip


@pytest.mark.parametrize(("dialogue", "problem"), CASES)
def test_each_fault_has_a_name(dialogue, problem):
    assert form_problem(SCENE, dialogue) == problem
    assert (problem in problems(dialogue)) == bool(problem)


def test_every_rule_has_a_case_that_it_finds():
    assert {problem for _, problem in CASES} - {""} == {reason for reason, _ in RULES}


def test_nobody_speaks_out_of_turn():
    dialogue = talk(*HELLO)
    dialogue.turns[1] = dialogue.turns[1].model_copy(update={"speaker": FIRST.name})
    assert form_problem(SCENE, dialogue) == "wrong speaker"


def test_no_rule_finds_fault_with_any_authored_conversation():
    assert len(authored()) == 170
    assert [
        (talk.id, found) for scene, talk in authored() if (found := problems(talk, scene))
    ] == []


@given(st.integers(0, 169), st.integers(0, 1), st.integers(2, 7))
def test_a_secret_told_in_its_own_words_is_found_anywhere(number, whose, place):
    scene, dialogue = authored()[number]
    turn = dialogue.turns[place]
    if turn.action in ("speak", "non-verbal"):
        told = turn.model_copy(update={"text": f"{turn.text} {scene.people[whose].secret}"})
        turns = [*dialogue.turns[:place], told, *dialogue.turns[place + 1 :]]
        leak = dialogue.model_copy(update={"turns": turns})
        assert form_problem(scene, leak) == "leaked secret"


REWORDED = [
    ("Has gone on cooking for two every evening since losing a spouse last year.",
     "Since my wife died last year I still cook for two every evening."),
    ("Fell asleep at work last night and was given a warning.",
     "I dozed off on the ward last night and they gave me a warning."),
    ("Fell asleep at work last night and was given a warning.",
     "They warned me because I fell asleep at work."),
    ("Is two weeks late with a translation and may lose a client who pays 830 € a month.",
     "My translation is two weeks late, and the client may leave me."),
    ("Has debts that the parents are quietly paying off.",
     "My parents are paying off my debts, quietly."),
    ("Told the child to borrow the classmate's essay because there was no time to help.",
     "I told my child to borrow an essay from a classmate, I had no time to help."),
    ("Lost the flat in spring and spends the nights in a car.",
     "I lost my flat in the spring and sleep in my car at night."),
    ("Has been going out with a colleague twelve years older for seven months and has told nobody.",
     "I have been seeing a colleague for seven months, she is twelve years older."),
    ("Is still married on paper, though the couple parted two years ago.",
     "On paper I'm still married, but we parted two years ago."),
    ("Borrowed half of the money from a friend so as not to look poor.",
     "A friend lent me half of the money, I didn't want to look poor."),
    ("Nearly missed a red signal last week from lack of sleep.",
     "Last week I almost missed a red signal because I don't sleep."),
]  # fmt: skip

RETOLD = [
    ("Has gone on cooking for two every evening since losing a spouse last year.",
     "I lost my husband, you see, and I keep setting two plates."),
    ("Is two weeks late with a translation and may lose a client who pays 830 € a month.",
     "I am behind with a text and the customer is losing patience."),
    ("Has debts that the parents are quietly paying off.",
     "Mum and Dad settle what I owe."),
    ("Told the child to borrow the classmate's essay because there was no time to help.",
     "It was my idea that she copied it."),
    ("Lost the flat in spring and spends the nights in a car.",
     "I live in my car."),
    ("Has been going out with a colleague twelve years older for seven months and has told nobody.",
     "I have a girlfriend from work."),
    ("Is still married on paper, though the couple parted two years ago.",
     "My divorce isn't through."),
    ("Borrowed half of the money from a friend so as not to look poor.",
     "Half of it isn't even mine."),
    ("Nearly missed a red signal last week from lack of sleep.",
     "I nearly drove through a red light."),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "found"), [(REWORDED, 10), (RETOLD, 0)])
def test_a_leak_is_found_while_it_keeps_some_of_the_secret_s_words(lines, found):
    """Written by hand: the limits of what words alone can show."""
    problems = []
    for secret, line in lines:
        host = FIRST.model_copy(update={"secret": secret})
        scene = SCENE.model_copy(update={"person1": host})
        problems.append(form_problem(scene, talk(*HELLO, line, scene=scene)))
    assert problems.count("leaked secret") == found
    assert problems.count("") == len(lines) - found


@given(st.integers(0, 169), st.integers(1, 7), st.integers(0, 6))
def test_a_long_line_said_again_is_found(number, place, earlier):
    scene, dialogue = authored()[number]
    line = dialogue.turns[min(earlier, place - 1)].text
    again = dialogue.turns[place].model_copy(update={"action": "speak", "text": line})
    turns = [*dialogue.turns[:place], again, *dialogue.turns[place + 1 :]]
    found = problems(dialogue.model_copy(update={"turns": turns}), scene)
    assert ("copied turn" in found) == (len(words(line)) >= 8)


@given(st.lists(TEXT, max_size=6))
def test_any_text_is_judged_and_the_first_problem_is_the_one_told(lines):
    dialogue = talk(*lines)
    before = dialogue.model_copy(deep=True)
    assert form_problem(SCENE, dialogue) == (problems(dialogue) or [""])[0]
    assert dialogue == before


@given(TEXT)
def test_words_do_not_depend_on_case_or_punctuation(text):
    assert words(f"“{text}”!") == words(text)
    assert all(word.isalnum() and word == word.lower() for word in words(text.casefold()))


def test_contractions_leave_the_word():
    assert words("I'm sure you don’t, Aunt's cat can't") == (
        "i", "sure", "you", "do", "aunt", "cat", "ca"
    )  # fmt: skip


def test_what_a_speaker_is_told_may_be_talked_about_but_not_read_out():
    part = " ".join(role_prompt(SCENE, FIRST, SECOND).split()[10:18])
    around = "That is true, and I can only tell you how it seems to me and to mine."
    assert form_problem(SCENE, talk(*HELLO, f"{part}, {around}")) == ""
    assert form_problem(SCENE, talk(*HELLO, f"{part}.")) == "copied turn"
