"""What must hold of a scenario once it is adapted, whoever adapted it.

Nothing of another culture is left in it, the two goals are still opposed, the secrets are still
private, every text has a usual length, and both people are in the setting. The tests are plain
comparisons of words: the same on every machine, blind to what only a reader can see.
"""

import re
from calendar import month_name
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from babel.numbers import get_currency_name, get_currency_symbol
from faker.providers.lorem.en_US import Provider as EnglishWords

from clca_utils.adaptation import SLOT, possible_names
from clca_utils.culture import Culture
from clca_utils.scenario import Persona, Scenario, load_seeds

WORD = re.compile(r"[^\W_]+(?:['’](?!s\b)[^\W_]+)*")
"""A word; "Berlin's" and "Tanaka-san" begin with the words Berlin and Tanaka."""

GLOSSED = re.compile(r"(.+?) \((.+)\)")
"""A filler that explains its own local words, as in "a plate of köfte (meatballs)"."""

MONEY = re.compile(r"[A-Z]{0,3}[$£¥￥\u20a0-\u20cf]")
"""A currency's symbol with the letters before it, as in MX$."""

BOUNDS = {
    "setting": (30, 100),
    "background": (4, 35),
    "occupation": (1, 20),
    "goal": (4, 45),
    "secret": (5, 30),
}
"""Fewest and most words of a text. The 135 seeds, filled for ten cultures, have 45 to 75 in a
setting, 7 to 24 in a background, 2 to 13 in an occupation, 6 to 31 in a goal and 8 to 21 in a
secret; a rewriter may go about a third beyond either end."""

RUN = 4
"""So many content words of a secret, in their order, tell it, or all of a secret of three. The
seeds share three at most by chance."""

KEPT = 0.5
"""Least share of a goal's content words that a rewritten goal keeps."""

ALIKE = 1 / 3
"""Two goals may share so much of their content words, or as much as they did when authored (in
nineteen of twenty seeds they share no more than a third)."""

NEGATIONS = frozenset(
    ["no", "not", "never", "nobody", "nothing", "none", "nor", "neither", "without", "cannot"]
)

FUNCTION_WORDS = NEGATIONS | frozenset(
    """
    a about above after again all already also although always am an and another any are around as
    at away be because been before behind being below between both but by can could did do does
    done down during each either else enough even ever every everybody everyone few first for from
    get gets getting go goes going gone got had has have having he her here hers him his how i if
    in into is it its itself just last least less let make makes made many may me might more most
    much must my near next now of off often on once one only onto or other others our out over own
    per perhaps quite rather said same say says shall she should since so some somebody someone
    something soon still such than that the their them then there these they thing things this
    those though through time till to today together too towards two under until up upon us very
    was way we well went were what when where whether which while who whole whom whose why will
    with within would yet you your
    """.split()  # noqa: SIM905 (sixteen lines as a list of strings)
)
"""English words that carry little by themselves; what is left are content words."""


class Others(NamedTuple):
    """What gives away a culture that a scene is not set in.

    `terms` has, by its first word, the words of a place, festival, local word, name or currency,
    and what it is; `symbols` has the currencies' signs.
    """

    terms: dict[str, dict[tuple[str, ...], str]]
    symbols: dict[str, str]


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text as they are written."""
    return tuple(WORD.findall(text))


def plain_words(cultures: Iterable[Culture] = ()) -> set[str]:
    """Return words that are English wherever a scene is set: those written in lower case.

    Args:
        cultures: Whose customs and fillers to take them from too, as far as these do not stand
            in quotation marks or are explained in brackets, beside the neutral seeds, Faker's list
            of common English words, and the months, which some people are named after.
    """
    texts = [*EnglishWords.word_list, *(month.lower() for month in month_name)]
    for seed in load_seeds():
        roles = [*seed.person1.model_dump().values(), *seed.person2.model_dump().values()]
        texts += [SLOT.sub(" ", text) for text in (seed.setting, *roles)]
    for culture in cultures:
        texts += [re.sub(r'"[^"]*"', " ", custom.text) for custom in culture.customs]
        texts += [found[2] if (found := GLOSSED.match(x)) else x for x in _fillers(culture)]
    return {word for text in texts for word in words(text) if word.islower()} | FUNCTION_WORDS


def _fillers(culture: Culture) -> list[str]:
    return [filler for _, fillers in culture.lexicon for filler in fillers]


def _currency(culture: Culture) -> tuple[set[str], set[str]]:
    """Return the symbols and the English words of a culture's currency."""
    code = culture.currency
    symbols = {get_currency_symbol(code, locale) for locale in ("en", culture.locale)} - {code}
    named = {get_currency_name(code, count, "en").split()[-1].lower() for count in (1, 2)}
    return symbols, {code, *named}


def _terms(culture: Culture) -> Iterator[tuple[str, str]]:
    """Yield what is of one culture, and what it is, plain English words too."""
    yield from ((city, "a city") for city in culture.lexicon.city)
    yield culture.country, "a place"
    for festival in culture.lexicon.festival:
        found = GLOSSED.match(festival)
        yield found[1] if found else festival, "a festival"
    local = [found[1] for filler in _fillers(culture) if (found := GLOSSED.match(filler))]
    yield from ((word, "a local word") for text in local for word in words(text))
    yield from ((word, "money") for word in _currency(culture)[1])
    yield from ((name, "a name") for name in possible_names(culture) - {culture.name})


def others_than(home: Culture | None, cultures: Sequence[Culture]) -> Others:
    """Return what gives away cultures other than `home`: what its own file nowhere mentions.

    Args:
        home: Where the scenes are set; None for the unadapted control, which knows only dollars.
        cultures: All that shall be told apart, with or without `home`.
    """
    plain = dict.fromkeys(("a name", "a local word"), plain_words(cultures))
    plain["money"] = plain_words()  # not from customs, which speak of dollars and rupees
    own, own_symbols = " dollar dollars ", set[str]()
    if home is not None:
        own_symbols, own_money = _currency(home)
        customs = [custom.text for custom in home.customs]
        said = [home.country, *_fillers(home), *customs, *possible_names(home), *own_money]
        own = f" {' '.join(word.lower() for text in said for word in words(text))} "
    terms: dict[str, dict[tuple[str, ...], str]] = {}
    symbols: dict[str, str] = {}
    for other in cultures:
        if home is not None and other.name == home.name:
            continue
        for term, kind in _terms(other):
            parts = words(term.removeprefix("the "))
            key = " ".join(parts).lower()
            if key and key not in plain.get(kind, ()) and f" {key} " not in own:
                terms.setdefault(parts[0], {}).setdefault(parts, f"{kind} of {other.country}")
        for symbol in _currency(other)[0] - own_symbols:
            symbols.setdefault(symbol, f"money of {other.country}")
    return Others(terms, symbols)


def texts_of(scenario: Scenario) -> dict[str, str]:
    """Return all texts of a scenario: its setting, and each person's by field and number."""
    people = {
        f"{field}{number}": str(getattr(person, field))
        for number, person in enumerate(scenario.people, start=1)
        for field in ("background", "occupation", "goal", "secret")
    }
    return {"setting": scenario.setting} | people


def foreign_words(text: str, others: Others) -> dict[str, str]:
    """Return what a text has of other cultures, and what each is."""
    found = {sign: what for sign in MONEY.findall(text) if (what := others.symbols.get(sign))}
    written = list(WORD.finditer(text))
    for start, first in enumerate(written):
        for key in (first[0], first[0].lower()):
            for term, what in others.terms.get(key, {}).items():
                run = written[start : start + len(term)]
                as_written = tuple(match[0] for match in run)
                if term in (as_written, tuple(word.lower() for word in as_written)):
                    found[text[run[0].start() : run[-1].end()]] = what
    return found


def _content(text: str, before: Scenario) -> list[str]:
    """Return a text's content words without what fills the scenario's slots, names among them.

    Words are cut to five letters: "sleeping" is as good as "sleep".
    """
    fillers = sorted({change.adapted for change in before.changes}, key=len, reverse=True)
    if fillers:
        text = re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, fillers))})(?!\w)", " ", text)
    return [word[:5] for word in words(text.lower()) if word not in FUNCTION_WORDS]


def _alike(one: set[str], other: set[str]) -> float:
    """Return the share of all content words that two texts have in common (Jaccard)."""
    return len(one & other) / max(1, len(one | other))


def _is_negated(text: str) -> bool:
    return any(word in NEGATIONS or word.endswith("n't") for word in words(text.lower()))


def goal_problems(scenario: Scenario, before: Scenario) -> list[str]:
    """Say whether the goals may no longer be opposed.

    As authored they are, and slots do not touch that. A rewritten goal keeps what it is about: the
    other person, half of its content words, its "not"; it is more like its own than like the other
    one's; and the two have not come together.

    Args:
        scenario: The scenario.
        before: The same as it was filled from the lexicon, its slots among its changes.
    """
    told = []
    goals, old = (
        [set(_content(person.goal, before)) for person in one.people] for one in (scenario, before)
    )
    for place, (person, was) in enumerate(zip(scenario.people, before.people, strict=True)):
        key, other = f"goal{place + 1}", scenario.people[1 - place]
        if _names(was.goal, other) and not _names(person.goal, other):
            told.append(f"{key} no longer names {other.name}")
        if len(goals[place] & old[place]) < KEPT * len(old[place]):
            told.append(f"{key} keeps too few words of '{was.goal}'")
        elif _alike(goals[place], old[place]) < _alike(goals[place], old[1 - place]):
            told.append(f"{key} is what the other person wants")
        if _is_negated(person.goal) != _is_negated(was.goal):
            told.append(f"{key} gained or lost a 'not' against '{was.goal}'")
    if goals[0] == goals[1]:
        told.append("goal1 and goal2 are the same")
    elif _alike(*goals) > max(ALIKE, _alike(*old)):
        told.append("goal1 and goal2 no longer oppose each other")
    return told


def _names(text: str, person: Persona) -> bool:
    """Tell whether a text names a person, by any part of the name."""
    return bool(set(words(text)) & set(words(person.name)))


def secret_problems(scenario: Scenario, before: Scenario) -> list[str]:
    """Say which text other than a secret itself tells it: as it is now, or was before.

    Args:
        scenario: The scenario.
        before: The same as it was filled from the lexicon, its slots among its changes.
    """

    def runs(content: list[str], size: int) -> set[tuple[str, ...]]:
        return {tuple(content[i : i + size]) for i in range(len(content) - size + 1)}

    now, was = texts_of(scenario), texts_of(before)
    content = {key: _content(text, before) for key, text in now.items()}
    told = []
    for key in ("secret1", "secret2"):
        for secret in (content[key], _content(was[key], before)):
            size = max(RUN - 1, min(RUN, len(secret)))
            told += [
                f"{field} tells {key}"
                for field, others in content.items()
                if field != key and runs(secret, size) & runs(others, size)
            ]
    return list(dict.fromkeys(told))


def length_problems(scenario: Scenario) -> list[str]:
    """Say which text is shorter or longer than `BOUNDS`."""
    told = []
    for key, text in texts_of(scenario).items():
        fewest, most = BOUNDS[key.rstrip("12")]
        if not fewest <= len(text.split()) <= most:
            told.append(f"{key} has {len(text.split())} words, not {fewest} to {most}")
    return told


def check_scenario(
    scenario: Scenario, others: Others, before: Scenario | None = None
) -> dict[str, list[str]]:
    """Make every check.

    Args:
        scenario: The scenario.
        others: What gives away the other cultures (see `others_than`).
        before: The same as it was filled from the lexicon, if it was rewritten since.

    Returns:
        Per check, what is wrong; an empty list where nothing is.
    """
    before = before or scenario
    return {
        "nothing of another culture": [
            f"{key} has '{word}', {what}"
            for key, text in texts_of(scenario).items()
            for word, what in foreign_words(text, others).items()
        ],
        "goals opposed": goal_problems(scenario, before),
        "secrets private": secret_problems(scenario, before),
        "lengths usual": length_problems(scenario),
        "both people named": [
            f"setting does not name {person.name}"
            for person in scenario.people
            if person.name not in scenario.setting
        ],
    }


def scenario_problems(
    scenario: Scenario, others: Others, before: Scenario | None = None
) -> list[str]:
    """Say all that is wrong with a scenario; see `check_scenario`."""
    return [one for some in check_scenario(scenario, others, before).values() for one in some]
