"""Stage 02, the deterministic half of judging: what is wrong with a dialogue's form.

Each rule is a pure function of a scenario and a dialogue with one short name. Their thresholds were
set on the 170 authored conversations, none of which any rule finds fault with; the values measured
there stand beside each.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from clca_utils.dialogue import Dialogue, as_play, role_prompt
from clca_utils.scenario import Scenario

MAX_REPEATED = 0.34
"""A dialogue with more than a third of its lines said before is a loop, not a conversation."""

LOOP = 4
"""The same two words so often in one turn are a loop; in authored turns they come twice at most."""

COPIED_RUN = 8
"""So many words in a row, said before or told in the prompt, are no coincidence; authored turns
share at most 5 with an earlier turn."""

MOST = 0.5
"""A turn that copies this share of its words from the prompt is read out; authored ones reach
0.42."""

SECRET_RUN = 4
"""So many words in a row of a secret, not all of them function words, give it away; authored turns
reach 3."""

SECRET_SHARE = 0.65
"""A turn with this share of a secret's content words, three at least, gives it away; authored turns
reach 0.6."""

MIN_FUNCTION_WORDS = 0.25
"""English has every second word a function word (authored turns of eight words and more: 0.33 and
up); with fewer than a quarter, a text of that length is another language or a heap of words."""

JUDGED_WORDS = 8
"""A text with fewer words is too short for its share of function words to mean anything."""

WORD = re.compile(r"[^\W_]+")
CONTRACTION = re.compile(r"n?['’](?:d|ll|m|re|s|t|ve)\b")
SUFFIX = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|ly)$")
ENDED = re.compile(r"[.!?…][\"'”’)]*$")
STUTTER = re.compile(r"(.)\1{4}")
MARKUP = re.compile(
    r"[{}\[\]<>|`]|###|\b(?:ACTION|OUTPUT)\s*:|(?i:\bas an ai\b|\blanguage model\b)"
)
"""What belongs to a reply format, a chat template or a model, and to nobody's talk."""

LABELS = ("User", "Assistant", "System", "Human", "Narrator", "Person A", "Person B")
NARRATION = (
    "says", "said", "asks", "asked", "replies", "replied", "answers", "answered", "stays silent",
    "leaves", "nods", "smiles", "sighs", "laughs",
)  # fmt: skip
"""What a play tells about a speaker; people don't say it of themselves or of whom they talk to."""

Words = tuple[str, ...]
Rule = Callable[[Scenario, Dialogue], bool]


def words(text: str) -> Words:
    """Return the words of a text in lower case, without punctuation and contracted endings."""
    return tuple(WORD.findall(CONTRACTION.sub("", text.lower())))


def runs(said: Words, length: int) -> set[Words]:
    """Return all runs of so many words in a row."""
    return {said[start : start + length] for start in range(len(said) - length + 1)}


def content(said: Words) -> set[str]:
    """Return the stems of the words that carry meaning; a light edit leaves most of them."""
    return {SUFFIX.sub("", word) for word in said if len(word) > 2 and not is_function(word)}


def is_function(word: str) -> bool:
    """Tell whether a word is one of English's function words, or what a contraction leaves."""
    return word in ENGLISH_STOP_WORDS or word in ("did", "do", "does", "ca", "wo")


def told_words(dialogue: Dialogue) -> list[Words]:
    """Return the words of each turn that has any: speech, gestures and parting words."""
    return [said for turn in dialogue.turns if (said := words(turn.text))]


def spoken(dialogue: Dialogue) -> list[str]:
    """Return the spoken lines."""
    return [turn.text for turn in dialogue.turns if turn.action == "speak"]


def names(scenario: Scenario) -> list[str]:
    """Return how the two people are called, in full or in part, longest first."""
    full = [person.name for person in scenario.people]
    called = {*full, *(p.address for p in scenario.people), *(w for n in full for w in n.split())}
    return sorted(called, key=lambda name: (-len(name), name))


def any_of(options: Sequence[str]) -> str:
    """Return a pattern of one of several texts."""
    return f"(?<!\\w)(?:{'|'.join(map(re.escape, options))})"


def malformed_reply(_: Scenario, dialogue: Dialogue) -> bool:
    """A reply did not keep the format."""
    return dialogue.ended == "malformed reply"


def wrong_speaker(scenario: Scenario, dialogue: Dialogue) -> bool:
    """Somebody else speaks or is made to speak: out of turn, by a label or by narration."""
    cast = [person.name for person in scenario.people]
    if any(turn.speaker != cast[turn.index % 2] for turn in dialogue.turns):
        return True
    called = names(scenario)
    labelled = re.compile(any_of([*called, *LABELS]) + r"\s*:")
    narrated = re.compile(any_of(called) + rf"\s+(?:{'|'.join(NARRATION)})\b")
    return any(labelled.search(turn.text) or narrated.search(turn.text) for turn in dialogue.turns)


def leaked_format(_: Scenario, dialogue: Dialogue) -> bool:
    """Marks of the reply format, of a chat template or of a model's talk about itself."""
    return any(MARKUP.search(turn.text) for turn in dialogue.turns)


def broken_language(_: Scenario, dialogue: Dialogue) -> bool:
    """Letters of another script, stuttering characters, or hardly an English function word."""
    texts = [turn.text for turn in dialogue.turns]
    if any(STUTTER.search(text) for text in texts) or foreign_letters("".join(texts)):
        return True
    lines = [words(line) for line in spoken(dialogue)]
    whole = tuple(word for line in lines for word in line)
    long = [said for said in [*lines, whole] if len(said) >= JUDGED_WORDS]
    return any(sum(map(is_function, said)) < MIN_FUNCTION_WORDS * len(said) for said in long)


def foreign_letters(text: str) -> bool:
    """Tell whether a text has letters that are not Latin; all dialogues are in English."""
    letters = {character for character in text if character.isalpha() and not character.isascii()}
    return not all(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)


def one_sided(_: Scenario, dialogue: Dialogue) -> bool:
    """Only one of the two, or nobody, ever says or shows anything."""
    return len({turn.speaker for turn in dialogue.turns if turn.text}) < 2


def empty_turn(_: Scenario, dialogue: Dialogue) -> bool:
    """A turn of speech or gesture without a word."""
    wordy = [turn for turn in dialogue.turns if turn.action in ("speak", "non-verbal")]
    return not all(words(turn.text) for turn in wordy)


def empty_opening(_: Scenario, dialogue: Dialogue) -> bool:
    """One of the first two lines is a single word."""
    return any(len(line.split()) < 2 for line in spoken(dialogue)[:2])


def repeated_lines(_: Scenario, dialogue: Dialogue) -> bool:
    """Too many lines were said before, letter case and punctuation aside."""
    lines = [words(line) for line in spoken(dialogue)]
    return bool(lines) and 1 - len(set(lines)) / len(lines) > MAX_REPEATED


def looping_turn(_: Scenario, dialogue: Dialogue) -> bool:
    """A turn says the same two words again and again."""
    return any(
        Counter(pairwise(said)).most_common(1)[0][1] >= LOOP
        for said in told_words(dialogue)
        if len(said) > 1
    )


def leaked_secret(scenario: Scenario, dialogue: Dialogue) -> bool:
    """A turn gives away a secret, by its very words or by most of its content words.

    What is told in wholly other words goes unseen: of the tests' lines written by hand it finds ten
    of the eleven that keep some of the wording, and none of the nine that keep hardly any.
    """
    called = set(words(" ".join(names(scenario))))
    for secret in (words(person.secret) for person in scenario.people):
        telling = {
            run
            for run in runs(secret, SECRET_RUN)
            if not all(is_function(word) or word in called for word in run)
        }
        key = content(tuple(word for word in secret if word not in called))
        for said in told_words(dialogue):
            found = len(key & content(said))
            if telling & runs(said, SECRET_RUN) or found >= max(3, SECRET_SHARE * len(key)):
                return True
    return False


def copied_turn(scenario: Scenario, dialogue: Dialogue) -> bool:
    """A turn says again what was said before, or reads out what the speakers were told."""
    people = scenario.people
    prompts = [role_prompt(scenario, *pair) for pair in (people, people[::-1])]
    prompts += [message["content"] for place in (0, 1) for message in as_play(scenario, [], place)]
    prompted = {run for prompt in prompts for run in runs(words(prompt), COPIED_RUN)}
    before: set[Words] = set()
    for said in told_words(dialogue):
        now = runs(said, COPIED_RUN)
        if now & before or covered(said, prompted) >= MOST * len(said):
            return True
        before |= now
    return False


def covered(said: Words, known: set[Words]) -> int:
    """Count the words of a text that belong to known runs of `COPIED_RUN` words."""
    starts = range(len(said) - COPIED_RUN + 1)
    found = [start for start in starts if said[start : start + COPIED_RUN] in known]
    return len({start + place for start in found for place in range(COPIED_RUN)})


def cut_short(_: Scenario, dialogue: Dialogue) -> bool:
    """The last spoken line breaks off: it has no end mark."""
    lines = spoken(dialogue)
    return bool(lines) and not ENDED.search(lines[-1].strip())


RULES: tuple[tuple[str, Rule], ...] = (
    ("malformed reply", malformed_reply),
    ("wrong speaker", wrong_speaker),
    ("leaked format", leaked_format),
    ("broken language", broken_language),
    ("one-sided", one_sided),
    ("empty turn", empty_turn),
    ("empty opening", empty_opening),
    ("repeated lines", repeated_lines),
    ("looping turn", looping_turn),
    ("leaked secret", leaked_secret),
    ("copied turn", copied_turn),
    ("cut short", cut_short),
)
"""The rules by name, in the order in which they are asked."""


def form_problem(scenario: Scenario, dialogue: Dialogue) -> str:
    """Name the first thing that is wrong with a dialogue's form, or nothing."""
    return next((reason for reason, rule in RULES if rule(scenario, dialogue)), "")
