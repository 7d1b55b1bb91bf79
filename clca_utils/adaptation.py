"""Stage 01: neutral scenarios become scenes of one culture.

Slots are filled from the culture's lexicon, its Faker locale (names) and Babel (money, dates,
times). The same seed fills them alike on every machine. A chat model may rewrite the scenes after
that (`rewriting`), and both ways are checked alike (`scenario_checks`).
"""

import datetime
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from babel import Locale
from babel.dates import format_skeleton, format_time
from babel.numbers import format_currency, get_currency_symbol
from faker import Faker

from clca_utils.culture import Culture, load_culture
from clca_utils.files import StudyError, read_records, shown
from clca_utils.scenario import Change, Persona, Role, Scenario, SeedScenario

SLOT = re.compile(r"\{(\w+)(?::([^{}]+))?\}")

NEUTRAL = {
    "person1": "Person A",
    "person2": "Person B",
    "name1": "Person A",
    "name2": "Person B",
    "city": "the town",
    "dish": "a meal",
    "drink": "a drink",
    "sweet": "something sweet",
    "gift": "a present",
    "festival": "the holiday",
    "pastime": "spending time outdoors",
    "transport": "the bus",
    "shop": "a shop",
}
"""Fillers of the unadapted control: the same scene with no culture in it."""

NEUTRAL_COUNTRY = "their country"
"""What the prompts of the unadapted control call the country."""

Fill = Callable[[str, str], str]
"""Turns a slot's name and argument into its text."""


def fill_slots(text: str, fill: Fill) -> str:
    """Replace every `{slot}` or `{slot:argument}` in `text`; nothing else in it is interpreted."""
    return SLOT.sub(lambda match: fill(match[1], match[2] or ""), text)


def person_name(faker: Faker, culture: Culture) -> tuple[str, str]:
    """Draw a name in Latin script, and the short form in which the person is addressed."""
    if culture.names is not None:
        given = faker.random_element(culture.names.given)
        family = faker.random_element(culture.names.family)
    elif hasattr(faker, "first_romanized_name"):
        given, family = faker.first_romanized_name(), faker.last_romanized_name()
    else:
        given = random.Random(faker.random.random()).choice(
            [faker.first_name_female, faker.first_name_male]
        )()
        family = faker.last_name()
    given, family = " ".join(given.split()), " ".join(family.split())  # "Alta  Gracia" in es_MX
    name = f"{given} {family}" if culture.name_order == "given-first" else f"{family} {given}"
    return name, given if culture.address == "given" else family


def possible_names(culture: Culture) -> set[str]:
    """Return the given and family names that `person_name` draws from."""
    if culture.names is not None:
        return {*culture.names.given, *culture.names.family}
    providers = Faker(culture.locale).factories[0].get_providers()
    names = next(one for one in providers if one.__provider__ == "faker.providers.person")
    latin = "romanized_" if hasattr(names, "first_romanized_names") else ""
    return {*getattr(names, f"first_{latin}names"), *getattr(names, f"last_{latin}names")}


def plain_spaces(text: str) -> str:
    """Replace the no-break spaces of local formats, which a model seldom reads as spaces."""
    return re.sub(r"[\u00a0\u202f]", " ", text)


def local_money(dollars: float, culture: Culture) -> str:
    """Write a price in local money, rounded to two significant digits as prices are spoken.

    In the local form, but with the symbol by which English readers know the currency, if they know
    one: a bare "$" would be read as US dollars, while "TRY" is less of a price than "₺".
    """
    amount = float(f"{dollars * culture.units_per_dollar:.2g}")
    pattern = Locale.parse(culture.locale).currency_formats["standard"].pattern
    written = format_currency(
        amount,
        culture.currency,
        locale=culture.locale,
        format=pattern.replace(".00", "") if amount.is_integer() else pattern,
        currency_digits=not amount.is_integer(),
    )
    local, known = (get_currency_symbol(culture.currency, x) for x in (culture.locale, "en"))
    return plain_spaces(written).replace(local, local if known == culture.currency else known)


def local_date(month_day: str, culture: Culture) -> str:
    """Write a date (MM-DD) as numbers in local order."""
    date = datetime.date.fromisoformat(f"2024-{month_day}")
    return str(format_skeleton("Md", date, locale=culture.locale))


def local_time(hours_minutes: str, culture: Culture) -> str:
    """Write a time of day (HH:MM) as it is written locally."""
    time = datetime.time.fromisoformat(hours_minutes)
    return plain_spaces(format_time(time, "short", locale=culture.locale))


def local_filler(culture: Culture, seed: str) -> Fill:
    """Return what fills a scenario's slots in a culture: one draw per slot and scenario."""
    rng = random.Random(seed)
    faker = Faker(culture.locale)
    faker.seed_instance(rng.getrandbits(32))
    (name1, short1), (name2, short2) = person_name(faker, culture), person_name(faker, culture)
    while short2 == short1:
        name2, short2 = person_name(faker, culture)
    words: dict[str, str] = {slot: rng.choice(fillers) for slot, fillers in culture.lexicon}
    words |= {"person1": name1, "person2": name2, "name1": short1, "name2": short2}

    def fill(slot: str, argument: str) -> str:
        match slot:
            case "money":
                return local_money(float(argument), culture)
            case "date":
                return local_date(argument, culture)
            case "time":
                return local_time(argument, culture)
            case _:
                return words[slot]

    return fill


def neutral_filler(slot: str, argument: str) -> str:
    """Fill a slot with no culture in it; money, dates and times stay plain numbers."""
    match slot:
        case "money":
            return f"{float(argument):,.0f} dollars"
        case "date":
            return f"{datetime.date.fromisoformat(f'2024-{argument}'):%m-%d}"
        case "time":
            return f"{datetime.time.fromisoformat(argument):%H:%M}"
        case _:
            return NEUTRAL[slot]


def adapt(seed: SeedScenario, culture: Culture, fill: Fill, rewriter: str) -> Scenario:
    """Fill one seed scenario.

    Raises:
        StudyError: The scenario has a slot that nothing fills.
    """
    changes: dict[str, str] = {}
    is_local = rewriter != "none"

    def noted(slot: str, argument: str) -> str:
        named = f"{slot}:{argument}" if argument else slot
        try:
            text = fill(slot, argument)
        except (KeyError, ValueError):
            raise StudyError(
                f"Seed scenario {seed.id} has the slot {{{named}}}, which no culture "
                "fills; see clca_utils/adaptation.py for the slots there are."
            ) from None
        changes[named] = text
        return text

    def persona(role: Role, number: int) -> Persona:
        texts = {key: fill_slots(text, noted) for key, text in role.model_dump().items()}
        name, short = noted(f"person{number}", ""), noted(f"name{number}", "")
        honorific = culture.honorific if is_local else ""
        return Persona(**texts, name=name, address=f"{short}{honorific}")

    return Scenario(
        id=f"{culture.name.lower()}-{seed.id}",
        seed_id=seed.id,
        culture=culture.name,
        country=culture.country if is_local else NEUTRAL_COUNTRY,
        domain=seed.domain,
        relation=seed.relation,
        power=seed.power,
        split=seed.split,
        setting=fill_slots(seed.setting, noted),
        person1=persona(seed.person1, 1),
        person2=persona(seed.person2, 2),
        descriptors=culture.descriptors() if is_local else [],
        customs=culture.customs_of(seed.domain) if is_local else [],
        items=seed.items,
        rewriter=rewriter,
        changes=[Change(slot=slot, adapted=text) for slot, text in changes.items()],
    )


def adapt_all(
    seeds: Sequence[SeedScenario], culture: Culture, seed: int, rewriter: str = "lexicon"
) -> list[Scenario]:
    """Fill seed scenarios for a culture, or with neutral words where `rewriter` is "none".

    Args:
        seeds: The neutral scenarios.
        culture: Where they shall take place.
        seed: Of the draws; the same seed gives the same scenarios.
        rewriter: "lexicon" or "chat" (filled alike), or "none" for the unadapted control.
    """
    return [
        adapt(
            one,
            culture,
            neutral_filler
            if rewriter == "none"
            else local_filler(culture, f"{seed}/{culture.name}/{one.id}"),
            rewriter,
        )
        for one in seeds
    ]


def load_scenarios(run: Path, culture: str) -> list[Scenario]:
    """Read the scenarios that stage 01 wrote.

    Args:
        run: The run's folder.
        culture: The culture they should be of, by name or path.

    Raises:
        StudyError: They are missing, damaged, or of another culture.
    """
    path = run / "scenarios.jsonl"
    scenarios = read_records(path, Scenario, "01_scenario_adaptation")
    name = load_culture(culture).name
    if others := {one.culture for one in scenarios} - {name}:
        raise StudyError(
            f"{shown(path)}, culture: found {others.pop()}, not {name}: give each culture a "
            "run_dir of its own."
        )
    return scenarios
