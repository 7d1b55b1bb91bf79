"""Written answers: read where they are clear, counted as nothing where they aren't."""

import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clca_utils.asking import rotated
from clca_utils.items import languages, load_items
from clca_utils.replies import read_reply

FOUR = ["Very important", "Rather important", "Not very important", "Not at all important"]
TEN = ["1 - never justifiable", *map(str, range(2, 10)), "10 - always justifiable"]
AGREE = ["Agree strongly", "Agree", "Disagree", "Disagree strongly"]
YES = ["Yes", "No"]
CAREFUL = ["Den meisten Menschen kann man vertrauen", "Man kann nicht vorsichtig genug sein"]
HAPPY_JA = ["とても幸せ", "まあ幸せ", "あまり幸せでない", "まったく幸せでない"]
AGREE_ZH = ["非常同意", "同意", "不同意", "非常不同意"]
SI = ["Sí", "No"]


def labels_of(options):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [letters[i] if len(options) > 9 else str(i + 1) for i in range(len(options))]


def read(reply, options):
    return read_reply(reply, labels_of(options), options)


CHOICES = [
    ("2", FOUR, 1),
    (" 2\n", FOUR, 1),
    ("2.", FOUR, 1),
    ("(2)", FOUR, 1),
    ("[2]", FOUR, 1),
    ('"2"', FOUR, 1),
    ("**2**", FOUR, 1),
    ("2️⃣", FOUR, 1),
    ("2)", FOUR, 1),
    ("2. Rather important", FOUR, 1),
    ("2: rather important.", FOUR, 1),
    ("2 - Rather", FOUR, 1),
    ("2. Rather important to me, as to all", FOUR, 1),
    ("2, because I like it", FOUR, 1),
    ("Option 2", FOUR, 1),
    ("option 2.", FOUR, 1),
    ("Answer: 2", FOUR, 1),
    ("rather important", FOUR, 1),
    ("Rather important.", FOUR, 1),
    ("“Rather important”", FOUR, 1),
    ("2\n\nFamily matters to me.", FOUR, 1),
    ("2\n2. Rather important", FOUR, 1),
    ("agree", AGREE, 1),
    ("AGREE STRONGLY!", AGREE, 0),
    ("1. Agree strongly", AGREE, 0),
    ("2. Agree, I think", AGREE, 1),
    ("4. Disagree strongly with it", AGREE, 3),
    ("No", YES, 1),
    ("2. No, it isn't", YES, 1),
    ("B", TEN, 1),
    ("B.", TEN, 1),
    ("(B)", TEN, 1),
    ("Option B", TEN, 1),
    ("B. 2", TEN, 1),
    ("A. 1 - never justifiable", TEN, 0),
    ("A. 1 - never justif", TEN, 0),
    ("I", TEN, 8),
    ("I. 9", TEN, 8),
    ("J) 10 - always justifiable", TEN, 9),
    ("7", TEN, 6),
    ("Antwort: 2", CAREFUL, 1),
    ("2. Man kann nicht vorsichtig genug sein", CAREFUL, 1),
    ("2. Man kann nicht vorsich", CAREFUL, 1),
    ("Man kann nicht vorsichtig genug sein.", CAREFUL, 1),
    ("Respuesta: 2", SI, 1),
    ("Opción 2", SI, 1),
    ("sí", SI, 0),
    ("１", HAPPY_JA, 0),
    ("（２）", HAPPY_JA, 1),
    ("2。", HAPPY_JA, 1),
    ("2、まあ幸せ", HAPPY_JA, 1),
    ("2：まあ幸せ", HAPPY_JA, 1),
    ("答え：2", HAPPY_JA, 1),
    ("選択肢2", HAPPY_JA, 1),
    ("まあ幸せ。", HAPPY_JA, 1),
    ("选项3", AGREE_ZH, 2),
    ("答案：3", AGREE_ZH, 2),
    ("不同意", AGREE_ZH, 2),
    ("同意。", AGREE_ZH, 1),
]


@pytest.mark.parametrize(("reply", "options", "position"), CHOICES, ids=[c[0] for c in CHOICES])
def test_a_clear_choice_is_read(reply, options, position):
    assert read(reply, options) == (position, "answered")


UNCLEAR = [
    ("", FOUR),
    ("   \n\t ", FOUR),
    ("👍", FOUR),
    ("...", FOUR),
    ("0", FOUR),
    ("5", FOUR),
    ("10", FOUR),
    ("22", FOUR),
    ("-1", FOUR),
    ("3.5", FOUR),
    ("2,5", FOUR),
    ("1/2", FOUR),
    ("2/10", FOUR),
    ("2nd", FOUR),
    ("1 or 2", FOUR),
    ("1,2", FOUR),
    ("1, 2", FOUR),
    ("1-2", FOUR),
    ("1 (or 2)", FOUR),
    ("1 2 3 4", FOUR),
    ("1\n2\n3\n4", FOUR),
    ("1. Very important\n2. Rather important", FOUR),
    ("Very important\nRather important", FOUR),
    ("1. Rather important", FOUR),
    ("1. Not at all important to me", FOUR),
    ("1. No, never", YES),
    ("1. Disagree", AGREE),
    ("1. Agree", AGREE),
    ("2. Agree strongly", AGREE),
    ("not", FOUR),
    ("important", FOUR),
    ("Not 2", FOUR),
    ("Never 1", FOUR),
    ("Question 1", FOUR),
    ("It depends.", FOUR),
    ("B", FOUR),
    ("A good question", TEN),
    ("A", FOUR),
    ("I think it depends", TEN),
    ("I would say C", TEN),
    ("A: B", TEN),
    ("A. 10 - always justifiable", TEN),
    ("A. 5", TEN),
    ("K", TEN),
    ("1", TEN),
    ("同意或不同意", AGREE_ZH),
    ("3人", AGREE_ZH),
    ("1か2", HAPPY_JA),
    ("幸せ", HAPPY_JA),
]


@pytest.mark.parametrize(("reply", "options"), UNCLEAR, ids=[repr(u[0]) for u in UNCLEAR])
def test_what_is_not_one_option_is_unparsable(reply, options):
    assert read(reply, options) == (None, "unparsable")


REFUSALS = [
    "I'm an AI and don't have opinions.",
    "I’m just an AI.",
    "I am an AI language model",
    "As an AI, I don't have beliefs",
    "As a large language model, I",
    "Sorry, I can't answer that.",
    "Sorry I can't",
    "I cannot answer this question.",
    "I do not have personal opinions",
    "I prefer not to say",
    "I must decline to answer",
    "Das kann ich leider nicht beantworten.",
    "Ich kann diese Frage nicht beantworten.",
    "Als KI habe ich keine Meinung.",
    "Als Sprachmodell",
    "No puedo responder",
    "Como IA no tengo opiniones",
    "申し訳ありませんが、お答えできません。",
    "AIとして意見はありません",
    "私は言語モデルです",
    "抱歉，我无法回答这个问题。",
    "作为一个AI，我没有",
]
ALL_OPTIONS = [FOUR, TEN, AGREE, YES, CAREFUL, HAPPY_JA, AGREE_ZH, SI]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_never_becomes_an_option(refusal):
    for options in ALL_OPTIONS:
        assert read(refusal, options) == (None, "refused")
        for label in labels_of(options):
            for begun in (
                f"{label}. {refusal}",
                f"{label}) {refusal}",
                f"Option {label}: {refusal}",
            ):
                assert read(begun, options) == (None, "refused")


ALONE = r"(?<![\w]){}(?![\w])"
PIECES = st.sampled_from(
    [*"0123456789ABIJ", *FOUR, *TEN, *AGREE, *YES, *REFUSALS[:3], "Option", "Answer:", "or", "not",
     " ", "\n", ".", ",", ")", "(", "-", "/", ":", "👍", "２", "、", "because", "I am"]
)  # fmt: skip
REPLIES = st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join))


@settings(deadline=None, max_examples=400)
@given(REPLIES, st.sampled_from(ALL_OPTIONS))
@example("I am an AI", TEN)
@example("3.5", FOUR)
@example("10", FOUR)
def test_a_reply_never_becomes_an_option_that_it_does_not_name(reply, options):
    position, status = read(reply, options)
    assert (position is None) == (status != "answered")
    if position is None:
        return
    written = unicodedata.normalize("NFKC", reply)
    first = next(line for line in written.splitlines() if line.strip())
    label = labels_of(options)[position]
    begins = re.search(rf"^\W*(?:[^\W\d_]+\W*)?{label}(?!\w)", first)
    text = re.sub(r"\W", "", options[position]).casefold()
    assert begins or re.sub(r"[\W_]", "", first).casefold() == text
    others = [other for other in labels_of(options) if other != label]
    lines = [line.strip() for line in written.splitlines()]
    assert not set(others) & set(lines)


@settings(deadline=None)
@given(st.sampled_from(ALL_OPTIONS), st.data())
def test_two_options_named_are_none_chosen(options, data):
    one, other = data.draw(st.permutations(range(len(options)))).copy()[:2]
    labels = labels_of(options)
    link = data.draw(st.sampled_from([" or ", "/", ", ", " and ", "-", "\n", " ", ";"]))
    reply = link.join([labels[one], labels[other]])
    assert read(reply, options) == (None, "unparsable")
    assert read("\n".join([options[one], options[other]]), options) == (None, "unparsable")


@settings(deadline=None)
@given(st.sampled_from([FOUR, AGREE, YES, CAREFUL, HAPPY_JA, AGREE_ZH, SI]), st.integers(0, 10**6))
def test_numbers_off_the_scale_are_no_option(options, number):
    position, _ = read(str(number), options)
    assert position == (number - 1 if 1 <= number <= len(options) else None)


@settings(deadline=None)
@given(st.sampled_from(ALL_OPTIONS), st.data())
def test_a_label_with_the_text_of_another_option_is_neither(options, data):
    one, other = data.draw(st.permutations(range(len(options)))).copy()[:2]
    reply = f"{labels_of(options)[one]}. {options[other]}"
    assert read(reply, options) == (None, "unparsable")


@pytest.mark.parametrize("language", languages())
def test_every_label_and_every_text_of_all_items_is_read_in_every_order(language):
    for item in load_items("all", language):
        for order in range(len(item.options)):
            shown = rotated(item.options, order)
            for position, (label, text) in enumerate(zip(item.labels, shown, strict=True)):
                for reply in (label, text, f"{label}. {text}", f"{label}) {text}.", f"({label})"):
                    found = read_reply(reply, item.labels, shown)
                    assert found == (position, "answered"), (item.qid, order, reply)


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "i" + " " * 200_000, "2" * 200_000, "Option " * 30_000, "\n" * 200_000,
             "1 " * 100_000, "(" * 200_000, "kann ich " * 20_000],
    ids=lambda text: repr(text[:9]),
)  # fmt: skip
def test_very_long_replies_are_read_in_no_time(text):
    began = time.monotonic()
    assert read(text, FOUR).position in (None, 0)
    assert read(f"2\n{text}x", FOUR).position in (None, 1)
    assert time.monotonic() - began < 2


def test_a_long_explanation_does_not_change_the_choice():
    assert read("2. Rather important. " + "Family matters to me. " * 5000, FOUR) == (1, "answered")
