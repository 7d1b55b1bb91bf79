"""What is learnt: examples of each task, and which tokens count in each family's template."""

import copy
import html
import re

import pytest
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st

from clca_utils.chat_model import assistant, system, user
from clca_utils.dialogue import as_reply, told
from clca_utils.embedded import prepare
from clca_utils.examples import (
    Example,
    assistant_spans,
    build_examples,
    imitation_examples,
    intent_example,
    mask_html,
    tokenize,
    weighted,
)
from clca_utils.files import StudyError
from clca_utils.transformers_model import apply_template, load_tokenizer

WORDS = ["ACTION: speak\nOUTPUT: Grüß Gott, 😀 !", "你好。  Two spaces"]
TALK = [system("Be kind."), user("Hi."), assistant(WORDS[0]), user("And?"), assistant(WORDS[1])]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(prepare())


def learnt(tokenizer, row: dict[str, list[int]]) -> str:
    pairs = zip(row["input_ids"], row["assistant_masks"], strict=True)
    return tokenizer.decode([token for token, counts in pairs if counts])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_assistants_words_and_their_closing_token_count(tokenizer, name):
    family = FAMILIES[name]
    own = family.tokenizer(tokenizer)
    text, spans = assistant_spans(own, TALK)
    wanted = [family.reply.format(words) for words in WORDS]
    assert [text[span.start : span.stop] for span in spans] == wanted
    row = tokenize(own, TALK, 512)
    assert learnt(own, row) == "".join(wanted)
    assert own.decode(row["input_ids"]) == text
    assert "Be kind." in text
    if begins := family.special.get("bos_token"):
        assert text.startswith(begins)
        assert text.count(begins) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_what_announces_a_reply_is_read_and_not_learnt(tokenizer, name):
    own = FAMILIES[name].tokenizer(tokenizer)
    text, spans = assistant_spans(own, TALK)
    prompt = apply_template(own, TALK[:2], reply_next=True)
    if name == "qwen 3":  # it drops the empty thoughts from all replies but the last
        prompt = prompt.removesuffix("<think>\n\n</think>\n\n")
    assert text[: spans[0].start] == prompt


def test_a_template_that_rewrites_earlier_words_is_refused(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}[{{ m.content if loop.last else '...' }}]{% endfor %}"
    )
    with pytest.raises(StudyError, match="leaves out or changes what the assistant said"):
        assistant_spans(other, TALK)


SPEECH = st.text(
    st.characters(exclude_categories=["C"], include_characters="\n"), min_size=1
)  # fmt: skip


@settings(deadline=None)
@given(SPEECH.map(str.strip).filter(bool))
def test_whatever_the_assistant_says_counts(tokenizer, words):
    row = tokenize(tokenizer, [system("S"), user("U"), assistant(words)], 4096)
    assert learnt(tokenizer, row) == f"{words}<|im_end|>"


def test_a_long_example_is_cut_at_its_end(tokenizer):
    whole, cut = tokenize(tokenizer, TALK, 512), tokenize(tokenizer, TALK, 30)
    assert len(whole["input_ids"]) > 30
    assert cut == {name: values[:30] for name, values in whole.items()}


def test_the_shown_mask_marks_what_counts(tokenizer):
    talk = [user("<b>Hi</b>"), assistant("1 < 2"), user("So?"), assistant("Yes & no")]
    page = mask_html(tokenizer, tokenize(tokenizer, talk, 512))
    marked = re.findall("<mark[^>]*>(.*?)</mark>", page)
    assert [html.unescape(text) for text in marked] == ["1 < 2<|im_end|>", "Yes & no<|im_end|>"]
    assert "<b>" not in page
    assert "&lt;b&gt;Hi&lt;/b&gt;" in page


def test_each_person_learns_their_own_view_and_no_secret_of_the_other(scenario, dialogue):
    examples = imitation_examples(scenario, dialogue)
    assert [example.task for example in examples] == ["imitation"] * 2
    for me, other, example in zip(
        scenario.people, scenario.people[::-1], examples, strict=True
    ):  # fmt: skip
        text = "\n".join(message["content"] for message in example.messages)
        assert me.secret in text
        assert me.goal in text
        assert other.secret not in text
        assert other.goal not in text
        said = [m["content"] for m in example.messages if m["role"] == "assistant"]
        assert said == [as_reply(turn) for turn in dialogue.turns if turn.speaker == me.name]
        assert example.messages[-1]["role"] == "assistant"
        roles = [message["role"] for message in example.messages[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


@pytest.mark.parametrize(("turns", "views"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_only_who_spoke_has_a_view(scenario, dialogue, turns, views):
    short = dialogue.model_copy(update={"turns": dialogue.turns[:turns]})
    examples = imitation_examples(scenario, short)
    assert len(examples) == views
    assert all(example.messages[-1]["role"] == "assistant" for example in examples)


def test_each_line_is_answered_by_its_intent(scenario, dialogue, intents):
    [example] = intent_example(scenario, dialogue, intents)
    first, *rest = example.messages
    assert first["role"] == "system"
    assert "Germany" in first["content"]
    for turn, intent, asked, answer in zip(
        dialogue.turns, intents, rest[::2], rest[1::2], strict=True
    ):
        assert asked == user(told(turn))
        assert answer == assistant(f"{intent.intent} {intent.expectation}".strip())
    text = " ".join(message["content"] for message in example.messages)
    assert not any(person.secret in text for person in scenario.people)


def test_a_line_without_a_readable_intent_is_not_answered(scenario, dialogue, intents):
    empty = {"intent": "", "expectation": ""}
    some = [intents[0].model_copy(update=empty), *intents[1:]]
    [example] = intent_example(scenario, dialogue, some)
    roles = [message["role"] for message in example.messages]
    assert roles == ["system", *["user", "assistant"] * 3]
    lines = example.messages[1]["content"].splitlines()
    assert lines == [told(turn) for turn in dialogue.turns[:2]]
    assert all(message["content"] for message in example.messages)
    none = [intent.model_copy(update=empty) for intent in intents]
    assert intent_example(scenario, dialogue, none) == []


@pytest.mark.parametrize(
    ("tasks", "made"),
    [
        ({"imitation": 1.0}, ["imitation"] * 2),
        ({"imitation": 0.0, "intent": 1.0}, ["intent"]),
        ({"imitation": 1.0, "intent": 1.0}, ["imitation", "imitation", "intent"]),
        ({"intent": 2.0, "imitation": 0.5}, ["intent", "intent", "imitation"]),
    ],
)
def test_tasks_are_built_as_often_as_they_weigh(scenario, dialogue, intents, tasks, made):
    examples = build_examples([scenario], [dialogue], intents, tasks, 1)
    assert [example.task for example in examples] == made


def test_a_dialogue_without_intents_is_still_imitated(scenario, dialogue, intents):
    other = dialogue.model_copy(update={"id": "german-loan-1"})
    tasks = {"imitation": 1.0, "intent": 1.0}
    both = build_examples([scenario], [dialogue, other], intents, tasks, 1)
    assert [e.task for e in both if e.dialogue_id == other.id] == ["imitation"] * 2


@given(st.integers(0, 30), st.floats(0, 5), st.integers(0, 99))
def test_a_weight_is_how_often_an_example_is_taken(count, weight, seed):
    some = [Example(dialogue_id=f"d{n}", task="intent", messages=[]) for n in range(count)]
    taken = weighted(some, weight, seed)
    times = [taken.count(example) for example in some]
    assert len(taken) == count * int(weight) + round(count * (weight % 1))
    assert set(times) <= {int(weight), int(weight) + 1}
    assert taken == weighted(some, weight, seed)


def test_which_half_is_taken_hangs_on_the_seed():
    some = [Example(dialogue_id=f"d{n}", task="intent", messages=[]) for n in range(20)]
    assert weighted(some, 0.5, 1) != weighted(some, 0.5, 2)


def test_nothing_to_learn_from_is_told(scenario, dialogue):
    tasks = {"imitation": 1.0, "intent": 1.0}
    with pytest.raises(StudyError, match="No training example is left of 0 kept dialogues"):
        build_examples([scenario], [], [], tasks, 1)
    with pytest.raises(StudyError, match="left of 1 kept dialogues for the tasks intent"):
        build_examples([scenario], [dialogue], [], {"intent": 1.0, "imitation": 0.0}, 1)
