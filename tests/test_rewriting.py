"""Rewriting: a good answer stands, a refused one is asked again with why, none is patched."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_texts import plain_text

from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ScriptedModel
from clca_utils.culture import FOLDER, load_culture
from clca_utils.rewriting import (
    Rewrite,
    read_rewrite,
    rewrite_of,
    rewrite_prompt,
    rewrite_scenarios,
    rewritten,
)
from clca_utils.scenario import load_seeds
from clca_utils.scenario_checks import others_than

GERMAN = load_culture("german")
OTHERS = others_than(GERMAN, [load_culture(file.stem) for file in sorted(FOLDER.glob("*.yaml"))])
SCENE, OTHER = adapt_all(load_seeds()[:2], GERMAN, seed=1, rewriter="chat")
TEXTS = rewrite_of(SCENE).model_dump()

ADDED = " It is raining a little outside."


def reply(scene=SCENE, **texts):
    """Return an answer as a model writes it between the prefilled and the stopping brace."""
    answer = rewrite_of(scene).model_dump()
    answer["setting"] += ADDED
    return json.dumps(answer | texts, ensure_ascii=False).strip("{}")


def test_a_good_answer_stands_at_once_and_nothing_else_changes():
    model = ScriptedModel([reply(), reply(OTHER)])
    scenes, refused = rewrite_scenarios([SCENE, OTHER], OTHERS, model, seed=1)
    assert refused == {}
    assert [one.setting for one in scenes] == [SCENE.setting + ADDED, OTHER.setting + ADDED]
    kept = {"setting": SCENE.setting, "changes": SCENE.changes}
    assert scenes[0].model_copy(update=kept) == SCENE
    (change,) = scenes[0].changes[len(SCENE.changes) :]
    assert (change.slot, change.adapted) == ("setting", SCENE.setting + ADDED)
    assert len(model.seen) == 2


def test_every_text_may_change_but_names_and_occupations():
    answer = {key: f"{text} Indeed." for key, text in TEXTS.items()}
    (scene,), refused = rewrite_scenarios([SCENE], OTHERS, ScriptedModel([reply(**answer)]), seed=1)
    assert refused == {}
    assert rewrite_of(scene).model_dump() == answer
    noted = scene.changes[len(SCENE.changes) :]
    assert {one.slot: one.adapted for one in noted} == answer
    for person, before in zip(scene.people, SCENE.people, strict=True):
        for key in ("name", "address", "occupation"):
            assert getattr(person, key) == getattr(before, key)


def test_the_prompt_tells_the_scene_and_begins_the_answer():
    _, request, start = rewrite_prompt(SCENE)
    assert start == {"role": "assistant", "content": "{"}
    text = request["content"]
    assert json.loads(text[text.rindex("\n{") :]) == TEXTS
    for told in (SCENE.country, *SCENE.customs, SCENE.relation, SCENE.person1.occupation):
        assert told in text
    assert "refused" not in text


def test_what_prompts_share_comes_first_and_the_complaint_last():
    one, other, again = (
        rewrite_prompt(*given)[1]["content"]
        for given in ((SCENE,), (OTHER,), (SCENE, "goal1 is too short"))
    )
    shared = "seven keys and nothing else."
    assert one[: one.index(shared)] == other[: other.index(shared)]
    assert again.removeprefix(one) == (
        "\n\nYour last answer was refused: goal1 is too short. Mend that and answer again."
    )


FOREIGN = TEXTS["setting"] + " They had met in Kyoto."
TOLD = f"{TEXTS['setting']} {SCENE.person1.secret}"
MISSING = "; ".join(
    f"{key}: the key is missing, add it" for key in Rewrite.model_fields if key != "setting"
)

REFUSED = [
    ("", "the answer is empty"),
    (reply(moral="be kind"), "moral: there is no such key, delete it"),
    ('"setting": "They meet."', MISSING),
    (reply(goal1=None), "goal1: Input should be a valid string (found None)"),
    (reply(goal1=7), "goal1: Input should be a valid string (found 7)"),
    (reply(setting=FOREIGN), "setting has 'Kyoto', a city of Japan"),
    (reply(setting=TOLD), "setting tells secret1"),
    (reply(goal2="Rest."), f"goal2 no longer names {SCENE.person1.name}"),
    (reply(secret2="Is tired."), "secret2 has 2 words, not 5 to 30"),
]


@pytest.mark.parametrize(("answer", "reason"), REFUSED)
def test_a_bad_answer_is_refused_with_its_reason(answer, reason):
    result, told = read_rewrite(answer, SCENE, OTHERS)
    assert result is None
    assert told.startswith(reason)
    assert told == reason or answer == reply(goal2="Rest.")


@pytest.mark.parametrize("answer", ["Certainly! Here it is:", '"setting": "a', "{" + reply()])
def test_what_is_not_json_is_refused(answer):
    result, told = read_rewrite(answer, SCENE, OTHERS)
    assert result is None
    assert told.startswith("the whole record: Invalid JSON: ")


def test_all_that_is_wrong_is_told_at_once():
    _, told = read_rewrite(reply(setting=FOREIGN, secret1="Is ill."), SCENE, OTHERS)
    assert told == "setting has 'Kyoto', a city of Japan; secret1 has 2 words, not 5 to 30"


@pytest.mark.parametrize(("answer", "reason"), REFUSED)
def test_a_refused_answer_is_asked_for_again_with_the_reason(answer, reason):
    model = ScriptedModel([answer, reply(OTHER), reply()])
    scenes, refused = rewrite_scenarios([SCENE, OTHER], OTHERS, model, seed=1)
    assert refused == {}
    assert [one.id for one in scenes] == [SCENE.id, OTHER.id]
    first, _, again = (conversation[1]["content"] for conversation in model.seen)
    assert again.startswith(first)
    assert f"refused: {reason}" in again


def test_a_scene_refused_every_time_is_dropped_with_its_last_reason():
    bad = [reply(setting=FOREIGN), "", reply(setting=TOLD)]
    model = ScriptedModel([bad[0], reply(OTHER), bad[1], bad[2]])
    scenes, refused = rewrite_scenarios([SCENE, OTHER], OTHERS, model, seed=1)
    assert [one.id for one in scenes] == [OTHER.id]
    assert refused == {SCENE.id: "setting tells secret1"}
    assert model.replies == []


def test_as_many_answers_are_asked_for_as_attempts():
    model = ScriptedModel(["no"] * 5)
    assert rewrite_scenarios([SCENE], OTHERS, model, seed=1, attempts=2)[0] == []
    assert len(model.replies) == 3


def test_the_first_answer_is_the_likeliest_and_the_next_are_sampled_anew():
    asked = []

    class Listening(ScriptedModel):
        def generate(self, conversations, **how):
            asked.append(how)
            return super().generate(conversations, **how)

    rewrite_scenarios([SCENE], OTHERS, Listening(["no"] * 3), seed=1)
    assert [how["temperature"] for how in asked] == [0, 0.7, 0.7]
    assert len({how["seeds"][0] for how in asked}) == 3
    assert {how["stop"] for how in asked} == {"}"}


@given(st.text())
def test_no_answer_is_patched(answer):
    result, told = read_rewrite(answer, SCENE, OTHERS)
    assert (result is None) == bool(told)
    assert result is None or rewritten(SCENE, rewrite_of(result)).setting == result.setting


@given(st.fixed_dictionaries({key: plain_text() for key in Rewrite.model_fields}))
def test_any_texts_are_taken_as_they_are(texts):
    scene = rewritten(SCENE, Rewrite(**texts))
    assert rewrite_of(scene).model_dump() == texts
    noted = {one.slot for one in scene.changes[len(SCENE.changes) :]}
    assert noted == {key for key in texts if texts[key] != TEXTS[key]}
