"""The plan of a large study: its numbers are what the script counts and computes."""

import re
import sys
from importlib import import_module

import pandas as pd
import pytest

from clca_utils.chat_model import assistant, system, user
from clca_utils.files import ROOT
from clca_utils.params import load_study

sys.path.insert(0, str(ROOT / "benchmarks"))
scale = import_module("scale")

DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]|:)")
TOLERANCE = {"0.0002", "0.33"}
"""Of numbers in the text: what tests/test_served.py allows, and vLLM's version."""


def table(name):
    return pd.read_csv(scale.TABLES / f"{name}.csv", keep_default_na=False)


def test_the_document_holds_the_tables():
    text = scale.DOCUMENT.read_text(encoding="utf-8")
    assert scale.filled(text, scale.TABLES) == text
    shown = re.findall(r"<!-- (\w+) -->\n\|", text)
    assert sorted(shown) == sorted(path.stem for path in scale.TABLES.glob("*.csv"))


def test_no_other_number_stands_in_the_text():
    text = scale.DOCUMENT.read_text(encoding="utf-8")
    prose = re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->|```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    assert set(DECIMAL.findall(prose)) <= TOLERANCE
    for stated in (scale.READING, scale.WRITING, scale.KEPT):
        assert f"{stated:.0%}".replace("%", " %") in prose
    for stated in (scale.PEAKS["bf16"] / 1e12, scale.PEAKS["fp32"] / 1e12, scale.TURNS,
                   scale.WORDS, scale.BLOCK, scale.CULTURES, scale.MODELS):  # fmt: skip
        assert re.search(rf"\b{stated:g}\b", prose)


def test_what_follows_from_the_tokens_is_computed_anew(tmp_path):
    for name, found in scale.priced(load_study("paper"), table("tokens")):
        found.to_csv(tmp_path / "found.csv", index=False)
        again = pd.read_csv(tmp_path / "found.csv", keep_default_na=False)
        pd.testing.assert_frame_equal(again, table(name))


def test_the_tokens_of_a_survey_are_counted_anew(smollm):
    counter = scale.Counter(smollm.tokenizer)
    form = scale.Questionnaire("main", [], scale.load_items("values"))
    for name in load_study("paper").cultures:
        culture = scale.load_culture(name)
        for person in scale.respondents(culture, "persona", count=scale.PEOPLE, seed=1):
            list(scale.weigh_items(counter, person, form))
    row = counter.row("05 survey", "respondent", 10)
    assert row == table("tokens").set_index("stage", drop=False).loc["05 survey"].to_dict()


def test_only_whole_blocks_that_came_before_are_not_read_again(smollm):
    counter = scale.Counter(smollm.tokenizer, ["yes " * 40])
    told = [system("word " * 50), user("One?")]
    counter.option_logprobs([told], [["1"]])
    first = counter.read
    assert counter.fresh == first
    counter.option_logprobs([told], [["1"]])
    assert counter.fresh - first == first % scale.BLOCK
    (reply,) = counter.generate([told], max_new_tokens=32)
    assert counter.written == 2 + 32
    before = counter.fresh
    counter.option_logprobs([[*told, assistant(reply)]], [["1"]])
    assert counter.fresh - before < 40  # the reply it wrote itself is remembered, too


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3.1-70b", 70.6),
        ("llama-3.1-8b", 8.03),
        ("llama-3.2-1b", 1.24),
        ("qwen2.5-0.5b", 0.49),
    ],
)
def test_a_shape_has_as_many_weights_as_its_model_card_says(name, billions):
    assert scale.SHAPES[name].parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_an_adapter_is_as_large_as_a_trained_one():
    smollm = scale.Shape(30, 576, 192, 1536, 49152, tied=True)
    assert smollm.parameters == pytest.approx(134.5e6, rel=0.001)
    ends = 4 * 2 * 49152 * 576
    assert smollm.adapter(4, paper=True) - ends == 4 * 230_400  # as peft counts them
