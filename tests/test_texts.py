"""Text from strangers: some is refused where it comes in, and nothing executes the rest."""

import html
import json

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from clca_utils.adaptation import adapt_all
from clca_utils.bubbles import bubbles
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, Turn, as_chat, as_play
from clca_utils.embedded import prepare
from clca_utils.files import ROOT, StudyError, read_records
from clca_utils.intent import expectation_prompt, intent_prompt, passage_of
from clca_utils.judging import judge_prompt
from clca_utils.scenario import Scenario, load_seeds
from clca_utils.tables import readable
from clca_utils.texts import LONGEST, OVERRIDES, plain
from clca_utils.transformers_model import render

TRICKS = [
    "{{ 7 * 7 }}", "{% raw %}{% for x in y %}", "{0.__class__.__mro__}", "{city}", "${HOME} $(id)",
    "%s %(name)s %n", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\\input{x}",
    "__import__('os').system('id')", "'; DROP TABLE people; --", "\u200f\u200eשלום", "a\n\nb\tc",
]  # fmt: skip
"""Texts that some tool somewhere would execute; here they are words."""
REFUSED = {
    "a\x00b": r"holds U\+0000 at character 2",
    "a\x1b[31mb": r"holds U\+001B at character 2",
    "a\u202eb": r"holds U\+202E at character 2",
    "a<|im_end|>b": r"holds '<\|', which would end a message",
    "[INST] b": r"holds '\[INST\]', which would end a message",
    "<start_of_turn>user": "holds '<start_of_turn>', which would end a message",
    "a<｜User｜>b": r"holds '<｜', which would end a message",
    "a\U000e0041b": r"holds U\+E0041 at character 2",
    "</s>": "holds '</s>', which would end a message",
    "x" * 1_000_000: f"should have at most {LONGEST} characters, not 1000000",
}


@pytest.fixture
def german():
    return yaml.safe_load((ROOT / "params/cultures/german.yaml").read_text("utf-8"))


def written(folder, content):
    path = folder / "strange.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("text", TRICKS)
def test_what_tools_would_execute_is_told_to_models_word_for_word(german, tmp_path, text):
    """From a culture file through a scenario and every prompt to the model's own format."""
    german["lexicon"] = {slot: [text] for slot in german["lexicon"]}
    domains = {seed.domain for seed in load_seeds()}
    german["customs"] = [{"domain": one, "text": f"Many say: {text}"} for one in sorted(domains)]
    culture = load_culture(written(tmp_path, german))
    seed = next(one for one in load_seeds() if "{dish}" in one.setting + one.person1.goal)
    (scene,) = adapt_all([seed], culture, 1)
    assert any(change.adapted == text for change in scene.changes)
    line = Turn(
        index=0, speaker=scene.person1.name, action="speak", text=text, forced=0.0, format_mass=None
    )
    talk = Dialogue(
        id="d", scenario_id=scene.id, culture=scene.culture, sample=0, seed=1, turns=[line],
        simulators=("a", "b"), ended="turn limit",
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(prepare())
    passage = passage_of(scene, talk, line)
    asked = [
        as_chat(scene, [line], 1), as_play(scene, [line], 1), intent_prompt(passage, []),
        expectation_prompt(passage, []), judge_prompt("culture", scene, talk.transcript()),
    ]  # fmt: skip
    for prompt in asked:
        shown = render(tokenizer, prompt)
        assert text.strip() in shown
        assert shown.count("<|im_start|>") == len(prompt) + (prompt[-1]["role"] != "assistant")
    page = bubbles(scene, talk)
    assert html.escape(text) in page
    assert "<script" not in page
    assert "<img" not in page


@pytest.mark.parametrize(("text", "told"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_would_harm_a_tool_or_a_reader_is_refused_by_name(german, tmp_path, text, told):
    german["customs"][0]["text"] = f"Many people here do {text}"
    with pytest.raises(StudyError, match=r"strange\.yaml, customs\.0\.text: ") as caught:
        load_culture(written(tmp_path, german))
    (scene,) = adapt_all(load_seeds()[:1], load_culture("german"), 1)
    line = json.loads(scene.model_dump_json())
    line["person1"]["secret"] = text
    path = tmp_path / "scenarios.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(StudyError, match="scenarios.jsonl, line 1: person1.secret: " + told):
        read_records(path, Scenario)
    assert len(str(caught.value)) < 500


HARMLESS = st.characters(
    exclude_categories=["Cc", "Cs"], exclude_characters={"<", "[", "|", *OVERRIDES}
)


@given(st.text(HARMLESS, max_size=300))
def test_any_other_text_is_left_as_it_is(text):
    assert plain(text) == text


@pytest.mark.parametrize("text", [trick for trick in TRICKS if "<" in trick])
def test_a_table_in_a_notebook_shows_markup_as_text(text):
    page = readable(pd.DataFrame({"line": [text], "share": [1 / 3]})).to_html()
    assert html.escape(text) in page
    assert text not in page
    assert ">0.33<" in page
