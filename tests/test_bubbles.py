"""Bubbles: every turn is shown, nothing a model wrote becomes markup, nothing is loaded."""

from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clca_utils.bubbles import bubbles
from clca_utils.dialogue import ACTIONS, Turn
from clca_utils.judging import Judgement, Verdict

TAGS = {"div", "p", "b", "i", "ul", "li", "bdi"}


class Page(HTMLParser):
    """Reads HTML: its text, its open and closed tags, and what the styles say."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.styles, self.open, self.tags = [], [], [], set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open.append(tag)
        given = dict(attributes)
        self.styles.append(given.pop("style", ""))
        assert given in ({}, {"dir": "auto"}, {"lang": "en"})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = unknown_decl = handle_pi = handle_comment

    @property
    def text(self):
        return "\n".join(self.texts)


def judged(dialogue, kept=True, reason="kept"):
    verdict = Verdict(
        aspect="quality", label="good", confidence=0.93, reason="They listen.", judge="m"
    )
    return Judgement(dialogue_id=dialogue.id, verdicts=[verdict], kept=kept, reason=reason)


def test_everything_is_shown_in_order(scenario, dialogue, intents):
    text = Page(bubbles(scenario, dialogue, judged(dialogue), intents)).text
    parts = [
        scenario.setting, "simulated by scripted", "kept", "quality good (93%): They listen.",
        "Ana", "Could you lend me your ladder?",
        "generic intent (expectation 20%): Ana wants thing 0.",
        "Ben", "Not today, I am sorry.",
        "cultural intent (expectation 60%): Ben wants thing 1. Many people in Germany expect",
        "nods", "Ben leaves.", "Ben wants thing 3.",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_sides_gestures_and_notes(scenario, dialogue):
    silent = Turn(index=4, speaker="Ana", action="none", text="", forced=0, format_mass=None)
    away = silent.model_copy(update={"action": "leave", "text": "Good night."})
    html = bubbles(scenario, dialogue.model_copy(update={"turns": [*dialogue.turns, silent, away]}))
    assert '<i><bdi dir="auto">nods</bdi></i>' in html
    assert html.count("margin:.5em auto 0 0") == 3
    assert html.count("margin:.5em 0 0 auto") == 1
    for note in ("Ben leaves.", "Ana stays silent.", "Ana leaves."):
        before = html[: html.index(note)]
        assert before.rindex("text-align:center") > before.rindex("fit-content")
    assert "Good night." in html


@pytest.mark.parametrize(
    ("change", "origin"),
    [
        ({"source": "authored"}, "authored: written as an example"),
        ({"simulators": ("one", "two")}, "simulated by one and two"),
        ({"simulators": ("one", "one")}, "simulated by one<"),
    ],
)
def test_where_a_conversation_is_from(scenario, dialogue, change, origin):
    assert origin in bubbles(scenario, dialogue.model_copy(update=change))


def test_a_dropped_one_says_why_and_an_unjudged_one_nothing(scenario, dialogue):
    assert "dropped: quality bad" in bubbles(
        scenario, dialogue, judged(dialogue, False, "quality bad")
    )
    assert "border" not in bubbles(scenario, dialogue).replace("border-radius", "")


def test_intents_of_other_dialogues_and_unreadable_ones(scenario, dialogue, intents):
    others = [one.model_copy(update={"dialogue_id": "other"}) for one in intents]
    assert bubbles(scenario, dialogue, intents=others) == bubbles(scenario, dialogue)
    empty = [intents[0].model_copy(update={"intent": ""})]
    assert "(no readable intent)" in bubbles(scenario, dialogue, intents=empty)
    authored = dialogue.model_copy(update={"source": "authored"})
    assert "generic intent: Ana wants thing 0." in bubbles(scenario, authored, intents=intents)


HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "<script>alert(1)</script>", "</bdi></div><img src=x onerror=alert(1)>", "<!-- x",
            '" style="position:fixed" onclick="x', "&lt;b&gt;&amp;#0;", "\u202egnirts",
            "]]>", "<![CDATA[",
        ]
    ),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.tuples(HOSTILE, HOSTILE), action=st.sampled_from(ACTIONS))
def test_hostile_text_stays_text(scenario, dialogue, intents, texts, action):
    text, name = texts
    turn = Turn(index=0, speaker=name, action=action, text=text, forced=0, format_mass=None)
    hostile = dialogue.model_copy(update={"turns": [turn], "simulators": (text, name)})
    scene = scenario.model_copy(
        update={
            "setting": text,
            "person1": scenario.person1.model_copy(update={"name": name}),
        }
    )
    intent = intents[0].model_copy(update={"intent": text, "expectation": name})
    page = Page(bubbles(scene, hostile, judged(hostile, False, text), [intent]))
    assert page.tags <= TAGS
    assert text in "".join(page.texts) or "\r" in text
    assert not [style for style in page.styles if "url" in style or "position" in style]


def test_it_needs_nothing_and_reads_on_any_page(scenario, dialogue, intents):
    html = bubbles(scenario, dialogue, judged(dialogue), intents)
    page = Page(html)
    assert page.tags <= TAGS
    assert "http" not in html
    for style in page.styles:
        assert ("background" in style) == ("color:#1a1a1a" in style)
        assert "width:" not in style.replace("max-width:", "").replace("width:fit-content", "")
