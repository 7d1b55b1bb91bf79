"""What several test files share: the embedded model, loaded once, and one small conversation."""

import pytest
from xdist.scheduler import LoadScopeScheduling

from clca_utils.dialogue import Dialogue, Turn
from clca_utils.files import write_records
from clca_utils.intent import Intent
from clca_utils.judging import Judgement
from clca_utils.scenario import Change, Persona, Scenario

SMOKE = {
    f"tests/notebooks/test_{name}.py" for name in ("checks", "own_survey", "smoke", "variants")
}


class Together(LoadScopeScheduling):
    """Hands out tests file by file, and as one those that need the smoke study: it takes long."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "smoke" if file in SMOKE else file


def pytest_xdist_make_scheduler(config, log):
    """Return who shares the tests out where several processes run them."""
    return Together(config, log)


@pytest.fixture(scope="session")
def smollm():
    """Return the embedded model; a test that changes it takes a copy."""
    from clca_utils.transformers_model import load_model

    return load_model("smollm2-135m")


@pytest.fixture(scope="session")
def scenario():
    ana = Persona(
        name="Ana", address="Ms Lang", occupation="a baker", background="She is 40.",
        goal="Ana needs a ladder.", secret="Ana broke the last ladder.",
    )  # fmt: skip
    ben = Persona(
        name="Ben", address="Mr Roth", occupation="a clerk", background="He is 50.",
        goal="Ben hopes for quiet.", secret="Ben sold his ladder.",
    )  # fmt: skip
    return Scenario(
        id="german-loan", seed_id="loan", culture="german", country="Germany", domain="home",
        relation="neighbours", power="equal", split="learn",
        setting="Two neighbours meet on the stairs.",
        person1=ana, person2=ben, descriptors=["Many people in Germany like plans."],
        customs=["Many people there ring before they call."], items=["Q18"], rewriter="lexicon",
        changes=[Change(slot="city", adapted="Kassel"), Change(slot="dish:1", adapted="soup")],
    )  # fmt: skip


@pytest.fixture(scope="session")
def dialogue():
    said = [
        ("Ana", "speak", "Could you lend me your ladder?"),
        ("Ben", "speak", "Not today, I am sorry."),
        ("Ana", "non-verbal", "nods"),
        ("Ben", "leave", ""),
    ]
    turns = [
        Turn(index=i, speaker=name, action=action, text=text, forced=0.2, format_mass=0.5)
        for i, (name, action, text) in enumerate(said)
    ]
    return Dialogue(
        id="german-loan-0", scenario_id="german-loan", culture="german", sample=0, seed=1,
        simulators=("scripted", "scripted"), turns=turns, ended="leave",
    )  # fmt: skip


@pytest.fixture(scope="session")
def intents(dialogue):
    expected = "Many people in Germany expect a reason."
    return [
        Intent(
            dialogue_id=dialogue.id, turn=turn.index, speaker=turn.speaker,
            intent=f"{turn.speaker} wants thing {turn.index}.", cultural=turn.index == 1,
            confidence=0.6 if turn.index == 1 else 0.2,
            expectation=expected if turn.index == 1 else "",
        )
        for turn in dialogue.turns
    ]  # fmt: skip


@pytest.fixture(scope="session")
def write_conversation(scenario, dialogue, intents):
    """Return what writes into a folder as stages 01 to 03 leave it, with one conversation."""

    def write(folder):
        german = scenario.model_copy(update={"culture": "German"})
        write_records(folder / "scenarios.jsonl", [german])
        write_records(folder / "dialogues.jsonl", [dialogue])
        kept = Judgement(dialogue_id=dialogue.id, verdicts=[], kept=True, reason="kept")
        write_records(folder / "judgements.jsonl", [kept])
        write_records(folder / "intents.jsonl", intents)

    return write
