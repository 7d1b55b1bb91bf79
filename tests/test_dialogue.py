"""Dialogues: no speaker knows the other's goal or secret, and all advance together."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import load_culture
from clca_utils.dialogue import (
    ACTIONS,
    OPENINGS,
    Dialogue,
    Sampling,
    Turn,
    allowed_actions,
    as_chat,
    as_play,
    as_reply,
    choose_action,
    parse_reply,
    role_prompt,
    seed_of,
    simulate,
    tidy,
    told,
    with_scenes,
)
from clca_utils.files import StudyError
from clca_utils.scenario import load_seeds

SCENES = [
    scene
    for name in ("german", "japanese")
    for scene in adapt_all(load_seeds(), load_culture(name), seed=1)
]
SCENE, OTHER = SCENES[:2]
ANA, BEN = (person.name for person in SCENE.people)


def turn(index, action="speak", text="Hello there.", scene=SCENE):
    speaker = scene.people[index % 2].name
    return Turn(index=index, speaker=speaker, action=action, text=text, forced=0, format_mass=None)


def content(messages):
    return "\n".join(message["content"] for message in messages)


LINES = st.lists(st.tuples(st.sampled_from(ACTIONS), st.text(max_size=20)), max_size=8)


@given(st.sampled_from(SCENES), LINES, st.sampled_from([0, 1]))
def test_a_prompt_is_the_same_whatever_the_other_wants_and_hides(scene, lines, speaker):
    turns = [turn(index, *line, scene) for index, line in enumerate(lines)]
    me, other = scene.people[speaker], scene.people[1 - speaker]
    elsewhere = other.model_copy(update={"goal": "Buy a boat.", "secret": "Is a spy."})
    changed = scene.model_copy(update={f"person{2 - speaker}": elsewhere})
    for view in (as_chat, as_play):
        prompt = view(scene, turns, speaker)
        assert view(changed, turns, speaker) == prompt
        said = content(prompt)
        assert me.goal in said
        assert me.secret in said
        assert other.goal not in said
        assert other.secret not in said


@given(LINES, st.sampled_from([0, 1]))
def test_both_views_hold_every_turn_and_what_is_customary(lines, speaker):
    turns = [turn(index, *line) for index, line in enumerate(lines)]
    chat, script = as_chat(SCENE, turns, speaker), as_play(SCENE, turns, speaker)
    for said in (content(chat), content(script)):
        assert all(words in said for words in [*SCENE.customs, *SCENE.descriptors, SCENE.setting])
        assert all(one.text.strip() in said for one in turns if one.action == "speak")
    begun = "\n".join([*map(told, turns), SCENE.people[speaker].name])
    assert script[-1] == {"role": "assistant", "content": begun}
    assert [message["role"] for message in script] == ["system", "user", "assistant"]


@pytest.mark.parametrize("index", range(6))
def test_a_speaker_sees_their_own_turns_as_the_assistants(index):
    turns = [turn(before, text=f"Line {before}.") for before in range(index)]
    first, *rest = as_chat(SCENE, turns, index % 2)
    assert first["role"] == "system"
    assert rest[0]["role"] == rest[-1]["role"] == "user"
    assert all(a["role"] != b["role"] for a, b in pairwise(rest))
    own = [one for one in turns if one.index % 2 == index % 2]
    assert [m["content"] for m in rest if m["role"] == "assistant"] == [as_reply(o) for o in own]


def test_an_unadapted_scene_names_no_country():
    (scene,) = adapt_all(load_seeds()[:1], load_culture("german"), seed=1, rewriter="none")
    for prompt in (as_play(scene, [], 0), as_chat(scene, [], 0)):
        assert "German" not in content(prompt)
        assert "Many people" not in content(prompt)


def test_a_speaker_calls_the_other_by_their_address():
    scene = SCENES[-1]
    one, two = scene.people
    assert f"You call them {two.address}." in role_prompt(scene, one, two)
    assert two.address.endswith("-san")


@pytest.mark.parametrize(
    ("action", "text", "line", "reply"),
    [
        ("none", "", f"{ANA} stays silent.", "ACTION: none\nOUTPUT:"),
        ("non-verbal", "nods", f"{ANA} (nods)", "ACTION: non-verbal\nOUTPUT: nods"),
        ("speak", "Hi.", f"{ANA}: Hi.", "ACTION: speak\nOUTPUT: Hi."),
        ("leave", "", f"{ANA} leaves.", "ACTION: leave\nOUTPUT:"),
        ("leave", "Bye.", f"{ANA} leaves: Bye.", "ACTION: leave\nOUTPUT: Bye."),
    ],
)
def test_a_turn_is_told_as_a_line_and_as_a_reply(action, text, line, reply):
    one = turn(0, action, text)
    assert (told(one), as_reply(one)) == (line, reply)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_line_begins_as_its_action_was_weighed(action):
    line = told(turn(0, action, "" if action == "leave" else "x"))
    assert line.startswith(ANA + OPENINGS[action])


def test_a_dialogue_without_its_scene_is_told_instead_of_a_key_error():
    talk = Dialogue(
        id="a", scenario_id=SCENE.id, culture=SCENE.culture, sample=0, seed=1,
        simulators=("one", "two"), turns=[], ended="turn limit",
    )  # fmt: skip
    assert with_scenes([SCENE], [talk]) == [(SCENE, talk)]
    with pytest.raises(StudyError, match=f"plays scene {SCENE.id}, which scenarios.jsonl does not"):
        with_scenes([], [talk])


def test_a_transcript_may_stop_before_a_turn():
    turns = [turn(0, text="Hi."), turn(1, "non-verbal", "nods"), turn(2, "leave", "")]
    one = Dialogue(id="d", scenario_id="s", culture="c", sample=0, seed=1, simulators=("m", "m"),
                   turns=turns, ended="leave")  # fmt: skip
    assert one.transcript() == f"{ANA}: Hi.\n{BEN} (nods)\n{ANA} leaves."
    assert one.transcript(2) == f"{ANA}: Hi.\n{BEN} (nods)"
    assert one.transcript(0) == ""


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n")).map(str.strip)


@given(st.sampled_from(ACTIONS), LINE, st.text(max_size=30).filter(lambda t: "ACTION" not in t))
def test_a_reply_is_read_as_it_was_written(action, text, before):
    expected = (action, text) if text or action in ("none", "leave") else None
    assert parse_reply(as_reply(turn(0, action, text))) == expected
    reply = f"{before}\n{as_reply(turn(0, action, text))}\nACTION: leave\nOUTPUT: Bye."
    assert not text or parse_reply(reply) == expected


@given(st.text() | st.from_regex(r"(action|OUTPUT|:|speak|none|leave|non-|\s|x)*"))
def test_any_reply_is_an_action_or_nothing(reply):
    parsed = parse_reply(reply)
    if parsed is not None:
        action, text = parsed
        assert action in reply.lower()
        assert text in reply
        assert text or action in ("none", "leave")


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ("action: SPEAK\noutput:  Come in! ", ("speak", "Come in!")),
        ("Well.\nACTION: speak (kindly)\n\n OUTPUT: Come in!\nThen", ("speak", "Come in!")),
        ("ACTION: leave", ("leave", "")),
        ("ACTION: non-verbal\nOUTPUT: nods", ("non-verbal", "nods")),
        ("ACTION: nonsense\nOUTPUT: hm", None),
        ("ACTION: none, non-verbal, speak or leave.", None),
        ("ACTION: none, speak\nACTION: speak\nOUTPUT: Hm.", ("speak", "Hm.")),
        ("ACTION: \u017fpeak\nOUTPUT: hm", None),
        ("ACTION: speaking\nOUTPUT: hm", None),
        ("ACTION: speak\nOUTPUT:", None),
        ("OUTPUT: Come in!", None),
        ("Come in!", None),
        ("", None),
    ],
)
def test_parse_reply(reply, parsed):
    assert parse_reply(reply) == parsed


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('"Come in."', "Come in."),
        ("“Come in!” she said and", "Come in!"),
        ("Come in. Sit down and have", "Come in."),
        ("It costs 3.50 now", "It costs 3.50 now"),
        ("Well… (a pause) I", "Well…"),
        ("Is it? (It is.) And", "Is it? (It is."),
        ("no end", "no end"),
        ('  " " ', ""),
    ],
)
def test_tidy(text, clean):
    assert tidy(text) == clean


@given(st.text() | st.text('ab .!?…"”)'))
def test_tidying_only_takes_away_at_the_ends(text):
    clean = tidy(text)
    assert clean in text
    assert clean == clean.strip()
    assert bool(clean) == bool(text.strip().strip('"“”').strip())


LOGPROBS = st.lists(st.floats(-30, 0), min_size=4, max_size=4).map(np.array)


@given(LOGPROBS, st.lists(st.sampled_from(ACTIONS), min_size=1, unique=True), st.integers(0, 2**31))
def test_only_allowed_actions_are_drawn(logprobs, allowed, seed):
    action, mass = choose_action(logprobs, allowed, seed)
    assert action in allowed
    assert mass == pytest.approx(np.exp(logprobs).sum())
    assert choose_action(logprobs, allowed, seed) == (action, mass)


def test_actions_are_drawn_as_often_as_the_model_says():
    probabilities = {"none": 0.02, "non-verbal": 0.04, "speak": 0.12, "leave": 0.02}
    logprobs = np.log(list(probabilities.values()))
    drawn = [choose_action(logprobs, ACTIONS, seed)[0] for seed in range(2000)]
    for action, probability in probabilities.items():
        assert drawn.count(action) / 2000 == pytest.approx(probability / 0.2, abs=0.04)


def test_each_speaks_before_anyone_may_leave():
    assert [allowed_actions(index) for index in range(3)] == [("speak",), ("speak",), ACTIONS]


class Player(ScriptedModel):
    """Keeps the seeds and the settings of every call."""

    def __init__(self, replies=(), actions=()):
        super().__init__(replies, [leaning(action) for action in actions])
        self.calls = []

    def generate(self, conversations, **how):
        self.calls.append(how)
        return super().generate(conversations, **how)


def leaning(action):
    """Return log-probabilities that leave no doubt about an action."""
    return np.log([0.9 if known == action else 1e-12 for known in ACTIONS])


def play(model, casts, max_turns=4, *, decoding="prefilled", seed=1, live=9):
    sampling = Sampling(
        max_turns=max_turns, max_new_tokens=9, temperature=0.7, top_p=0.9, decoding=decoding
    )
    found = dict(simulate((model, model), casts, seed, sampling, live=live))
    return [found[place] for place in range(len(casts))]


def spoken(words):
    return f"ACTION: speak\nOUTPUT: {words}"


CASTS = [(SCENE, 0), (SCENE, 1), (OTHER, 0)]


def test_live_dialogues_advance_in_one_call_and_finished_ones_leave_the_batch():
    actions = ["speak"] * 6 + ["speak", "leave", "speak"] + ["speak"] * 2
    # of a turn's lines, those of leaving are written last
    lines = [f"Line {n}." for n in range(8)] + [": Bye."] + [f"Line {n}." for n in (8, 9)]
    model = Player(lines, actions)
    first, second, third = play(model, CASTS)
    assert [len(call["seeds"]) for call in model.calls] == [3, 3, 2, 1, 2]
    assert model.logprobs == model.replies == []
    assert [one.ended for one in (first, second, third)] == ["turn limit", "leave", "turn limit"]
    assert [one.text for one in first.turns] == ["Line 0.", "Line 3.", "Line 6.", "Line 8."]
    assert [one.text for one in second.turns] == ["Line 1.", "Line 4.", "Bye."]
    assert [one.text for one in third.turns] == ["Line 2.", "Line 5.", "Line 7.", "Line 9."]
    assert [one.id for one in (first, second, third)] == [
        f"{scene.id}-{sample}" for scene, sample in CASTS
    ]
    assert {(call["temperature"], call["top_p"], call["stop"]) for call in model.calls} == {
        (0.7, 0.9, "\n")
    }


def test_an_ended_dialogue_makes_room_for_the_next_and_is_told_at_once():
    lines = ["A0.", "B0.", "A1.", "B1.", "B2.", ".", "B3.", "C0.", "C1.", "C2.", "C3."]
    model = Player(lines, ["speak"] * 4 + ["leave", "speak"] + ["speak"] * 5)
    sampling = Sampling(max_turns=4, max_new_tokens=9, temperature=0.7, top_p=0.9)
    told_of = list(simulate((model, model), CASTS, 1, sampling, live=2))
    assert [place for place, _ in told_of] == [0, 1, 2]
    assert [len(one.turns) for _, one in told_of] == [3, 4, 4]
    assert [one.text for one in told_of[2][1].turns] == ["C0.", "C1.", "C2.", "C3."]
    assert model.replies == []


def test_two_models_play_one_person_each():
    ana, ben = Player(["A0.", "A1."], ["speak"] * 2), Player(["B0.", "B1."], ["speak"] * 2)
    ben.name = "other"
    sampling = Sampling(max_turns=4, max_new_tokens=9, temperature=0.7, top_p=0.9)
    [(_, only)] = simulate((ana, ben), CASTS[:1], 1, sampling, live=3)
    assert [one.text for one in only.turns] == ["A0.", "B0.", "A1.", "B1."]
    assert only.simulators == ("scripted", "other")
    assert {SCENE.person1.secret in content(asked) for asked in ana.seen} == {True}
    assert {SCENE.person1.secret in content(asked) for asked in ben.seen} == {False}


def test_of_several_candidates_the_one_that_its_context_makes_likelier_is_kept():
    lines = ["Good day to you.", "The key is here.", "Yes."]
    model = Player(lines, ["speak"])
    model.logprobs += [np.array([-4.0, -9.0, -2.0]), np.array([-6.0, -17.0, -2.0])]
    sampling = Sampling(max_turns=1, max_new_tokens=9, temperature=0.7, top_p=0.9, candidates=3)
    [(_, only)] = simulate((model, model), CASTS[:1], 1, sampling, live=1)
    assert only.turns[0].text == "The key is here."
    [call] = model.calls
    assert len(set(call["seeds"])) == 3
    assert model.seen[-1][-1]["content"] == f"{ANA}:"
    assert SCENE.setting not in content(model.seen[-1])


def test_an_empty_candidate_is_weighed_like_any_other():
    model = Player(["", "The key is here."], ["speak"])
    model.logprobs += [np.array([-2.0, -9.0]), np.array([-2.0, -17.0])]
    sampling = Sampling(max_turns=1, max_new_tokens=9, temperature=0.7, top_p=0.9, candidates=2)
    [(_, only)] = simulate((model, model), CASTS[:1], 1, sampling, live=1)
    assert only.turns[0].text == "The key is here."


def test_the_first_candidate_is_the_line_that_one_alone_would_be():
    one = Player(["Yes."], ["speak"])
    play(one, CASTS[:1], max_turns=1)
    several = Player(["Yes."] * 2, ["speak"])
    several.logprobs += [np.zeros(2), np.zeros(2)]
    sampling = Sampling(max_turns=1, max_new_tokens=9, temperature=0.7, top_p=0.9, candidates=2)
    list(simulate((several, several), CASTS[:1], 1, sampling, live=1))
    assert several.calls[0]["seeds"][0] == one.calls[0]["seeds"][0]


@pytest.mark.parametrize("view", [as_play, as_chat])
def test_examples_are_shown_before_the_scene_and_change_nothing_else(view):
    talk = [turn(0, text="Good evening.", scene=OTHER), turn(1, "leave", "", scene=OTHER)]
    bare, shown = view(SCENE, [], 0), view(SCENE, [], 0, [(OTHER, talk)])
    assert shown[-1] == bare[-1]
    assert content(shown).index("Good evening.") < content(shown).index(SCENE.setting)
    assert "Good evening." not in content(bare)


def test_free_dialogues_advance_in_one_call_too():
    model = Player([spoken(f"Line {n}.") for n in range(5)] + ["ACTION: leave", spoken("Oh.")])
    first, second = play(model, CASTS[:2], decoding="free")
    assert [len(call["seeds"]) for call in model.calls] == [2, 2, 2, 1]
    assert (first.ended, second.ended) == ("turn limit", "leave")
    assert [one.speaker for one in first.turns] == [ANA, BEN, ANA, BEN]
    assert first.turns[-1].text == "Oh."


def test_a_reply_that_does_not_parse_ends_a_free_dialogue():
    model = Player([spoken("Hi."), spoken("Hello."), "I would like to", spoken("So.")])
    first, second = play(model, CASTS[:2], max_turns=2, decoding="free")
    assert (first.ended, second.ended) == ("malformed reply", "turn limit")
    assert [one.text for one in first.turns] == ["Hi."]
    assert [one.text for one in second.turns] == ["Hello.", "So."]


def test_nobody_is_asked_once_all_have_left():
    model = Player(["One.", "Two.", "."], ["speak", "speak", "leave"])
    (only,) = play(model, [(SCENE, 0)], max_turns=9)
    assert len(only.turns) == 3
    assert only.turns[-1].text == ""
    assert only.turns[-1].action == only.ended == "leave"
    assert (only.seed, only.simulators, only.culture) == (1, ("scripted",) * 2, "German")


def test_every_action_has_its_words():
    actions = ["leave", "none", "none", "non-verbal", "speak", "leave"]
    lines = ['"Do come in." He', "Thanks!", "nods) and smiles", "Sit down. And", "."]
    model = Player(lines, actions)
    (only,) = play(model, [(SCENE, 0)], max_turns=9)
    assert [(one.action, one.text) for one in only.turns] == [
        ("speak", "Do come in."),
        ("speak", "Thanks!"),
        ("none", ""),
        ("non-verbal", "nods"),
        ("speak", "Sit down."),
        ("leave", ""),
    ]
    written = [asked[-1]["content"] for asked in model.seen[:2]]
    assert written == [ANA, f"{ANA}:"]
    assert model.seen[-1][-1]["content"].endswith(f"\n{BEN} leaves")
    assert model.seen[6][-1]["content"].endswith(f"\n{BEN} (")


def test_what_decoding_forced_is_told():
    (only,) = play(Player(["Yes."] * 2, ["speak"] * 2 + ["none"]), [(SCENE, 0)], max_turns=3)
    forced = len(f"{ANA}:")
    assert only.turns[0].forced == pytest.approx(forced / (forced + 4))
    assert only.turns[2].forced == 1
    assert only.turns[0].format_mass == pytest.approx(0.9)
    (free,) = play(Player([spoken("Yes.")]), [(SCENE, 0)], max_turns=1, decoding="free")
    assert (free.turns[0].forced, free.turns[0].format_mass) == (0, None)


def seeds_of(casts, seed=1, decoding="free"):
    replies = [spoken("Yes.") if decoding == "free" else "Yes."] * 4 * len(casts)
    model = Player(replies, ["speak"] * 4 * len(casts))
    play(model, casts, decoding=decoding, seed=seed)
    return np.array([call["seeds"] for call in model.calls])


@pytest.mark.parametrize("decoding", ["free", "prefilled"])
def test_every_turn_of_every_dialogue_has_its_own_seed(decoding):
    seeds = seeds_of(CASTS, decoding=decoding)
    assert seeds.shape == (4, 3)
    assert len({*seeds.flat, *seeds_of(CASTS, seed=2, decoding=decoding).flat}) == 24
    assert (seeds >= 0).all()
    assert (seeds_of(CASTS[1:], decoding=decoding) == seeds[:, 1:]).all()


def test_seeds_are_the_same_everywhere():
    assert seed_of(1, "a", 0) == 1359515425
    assert seed_of(1, "a", 0) != seed_of("1", "a", 0)
