"""Training: what is learnt from, which tokens count, and that a killed run ends the same."""

import copy
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from clca_utils import training
from clca_utils.chat_model import assistant, system, user
from clca_utils.dialogue import as_reply, told
from clca_utils.embedded import prepare
from clca_utils.files import StudyError, read_json
from clca_utils.training import (
    Example,
    StepBar,
    assistant_spans,
    build_examples,
    imitation_examples,
    intent_example,
    last_whole_checkpoint,
    layers,
    mask_html,
    tokenize,
    train_adapter,
)
from clca_utils.transformers_model import load_tokenizer

# Chat templates in the manner of other families, and how each writes what the assistant says.
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, user first') }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "chatml": ("", "{}<|im_end|>"),
    "llama 3": (
        "{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>"
        "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}",
        "{}<|eot|>",
    ),
    "mistral": (
        ALTERNATE + "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}"
        "[/INST]{% else %}{{ ' ' + m.content }}</s>{% endif %}{% endfor %}",
        " {}</s>",
    ),
    "gemma": (
        ALTERNATE + "<bos>{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else"
        " m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>model\n{% endif %}",
        "{}<end>",
    ),
}
# Puts the system message before the last user message, and only if that ends the conversation.
MISTRAL_V3 = (
    "{% set told = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in (messages[1:] if told else messages) %}{% if m.role == 'user' %}"
    "[INST] {{ told + '\n\n' if loop.last and told else '' }}{{ m.content }}[/INST]"
    "{% else %}{{ ' ' + m.content }}</s>{% endif %}{% endfor %}"
)
MARKS = ["<|head|>", "<|/head|>", "<|eot|>", "[INST]", "[/INST]", "<s>", "</s>"]
MARKS += ["<bos>", "<turn>", "<end>"]
WORDS = ["ACTION: speak\nOUTPUT: Grüß Gott, 😀 !", "你好。  Two spaces"]
TALK = [system("Be kind."), user("Hi."), assistant(WORDS[0]), user("And?"), assistant(WORDS[1])]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(prepare())


def with_template(tokenizer, template: str):
    other = copy.deepcopy(tokenizer)
    if template:
        other.add_special_tokens({"additional_special_tokens": MARKS})
        other.chat_template = template
    return other


def learnt(tokenizer, row: dict[str, list[int]]) -> str:
    pairs = zip(row["input_ids"], row["assistant_masks"], strict=True)
    return tokenizer.decode([token for token, counts in pairs if counts])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_assistants_words_and_their_closing_token_count(tokenizer, name):
    template, form = TEMPLATES[name]
    family = with_template(tokenizer, template)
    text, spans = assistant_spans(family, TALK)
    wanted = [form.format(words) for words in WORDS]
    assert [text[span.start : span.stop] for span in spans] == wanted
    row = tokenize(family, TALK, 512)
    assert learnt(family, row) == "".join(wanted)
    assert family.decode(row["input_ids"]) == text
    assert "Be kind." in text


def test_a_template_that_moves_the_system_message_can_be_trained(tokenizer):
    family = with_template(tokenizer, MISTRAL_V3)
    row = tokenize(family, TALK, 512)
    assert learnt(family, row) == "".join(f" {words}</s>" for words in WORDS)
    assert "Be kind." in family.decode(row["input_ids"])


def test_a_template_that_rewrites_earlier_words_is_refused(tokenizer):
    forgetful = "{% for m in messages %}[{{ m.content if loop.last else '...' }}]{% endfor %}"
    with pytest.raises(StudyError, match="rewrites earlier messages"):
        assistant_spans(with_template(tokenizer, forgetful), TALK)


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
        (["imitation"], ["imitation"] * 2),
        (["intent"], ["intent"]),
        (["imitation", "intent"], ["imitation", "imitation", "intent"]),
    ],
)
def test_the_tasks_asked_for_are_built(scenario, dialogue, intents, tasks, made):
    other = dialogue.model_copy(update={"id": "german-loan-1"})
    examples = build_examples([scenario], [dialogue], intents, tasks)
    assert [example.task for example in examples] == made
    # a dialogue without intents is still imitated
    both = build_examples([scenario], [dialogue, other], intents, tasks)
    assert [e.task for e in both if e.dialogue_id == other.id] == made[:2] * ("imitation" in tasks)


def test_nothing_to_learn_from_is_told(scenario, dialogue):
    with pytest.raises(StudyError, match="No training example is left of 0 kept dialogues"):
        build_examples([scenario], [], [], ["imitation", "intent"])
    with pytest.raises(StudyError, match="left of 1 kept dialogues for the tasks intent"):
        build_examples([scenario], [dialogue], [], ["intent"])


def test_target_layers_are_all_or_named():
    assert layers("all-linear") == "all-linear"
    assert layers("q_proj, v_proj") == ["q_proj", "v_proj"]


EXAMPLES = [
    Example(
        dialogue_id=f"d{i}",
        task="imitation",
        messages=[
            system(f"Speak as person {i}."), user("How are you? " * (i + 1)),
            assistant(f"I am number {i}."), user("Well."), assistant("Bye, Grüße."),
        ],
    )
    for i in range(6)
]  # fmt: skip
SETTINGS = {
    "seed": 1, "epochs": 2, "learning_rate": 1e-2, "lora_rank": 2, "lora_alpha": 4,
    "lora_dropout": 0.1, "target_modules": "all-linear", "modules_to_save": [],
    "base": "org/tiny", "batch_size": 2, "gradient_accumulation": 1, "max_length": 128,
    "checkpoint_steps": 2,
}  # fmt: skip


def tiny(tokenizer) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


def train(folder: Path, **changes: object) -> pd.DataFrame:
    """Train a tiny model with random weights: 6 steps, checkpoints after 2, 4 and 6."""
    tokenizer = load_tokenizer(prepare())
    folder.mkdir(parents=True, exist_ok=True)
    weights = tiny(tokenizer)
    torch.seed()  # whatever was drawn before must not matter
    return train_adapter(weights, tokenizer, EXAMPLES, folder, **(SETTINGS | changes))


def written(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


OTHER_PROCESS = """
import os, sys
from pathlib import Path
from clca_utils import training
from test_training import train

class DiesAtStep5(training.StepBar):
    def on_step_end(self, args, state, control, **others):
        if state.global_step == 5:
            os._exit(9)

train(Path(sys.argv[1], "whole"))
training.StepBar = DiesAtStep5
train(Path(sys.argv[1], "killed"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a training that was not interrupted, and its log."""
    folder = tmp_path_factory.mktemp("trained")
    stale = folder / ".checkpoints-of-other-settings" / "checkpoint-4"
    stale.mkdir(parents=True)
    (stale / "trainer_state.json").write_text('{"global_step": 4}')
    return folder, train(folder)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return what another process wrote: a whole training, and one killed after step 4."""
    folder = tmp_path_factory.mktemp("elsewhere")
    env = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder)]
    process = subprocess.run(command, cwd=Path(__file__).parent, env=env, check=False)
    assert process.returncode == 9
    return folder


def test_the_adapter_and_the_log_are_all_that_is_left(trained):
    folder, log = trained
    names = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert set(written(folder)) == names | {"training_log.csv"}
    assert not list(folder.glob(".*"))
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert list(log) == ["step", "epoch", "loss", "learning_rate", "grad_norm"]
    assert log["learning_rate"].iloc[0] == pytest.approx(1e-2)
    assert log["learning_rate"].is_monotonic_decreasing
    assert np.isfinite(log["loss"]).all()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "training_log.csv"), log)


def test_the_adapter_names_its_base_and_no_path(trained):
    folder, _ = trained
    config = read_json(folder / "adapter/adapter_config.json")
    assert config["base_model_name_or_path"] == "org/tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    text = (folder / "adapter/adapter_config.json").read_text()
    assert "/" not in text.replace("org/tiny", "")


def test_the_adapter_loads_and_has_learnt(trained, tokenizer):
    folder, log = trained
    plain = tiny(tokenizer)
    row = tokenize(tokenizer, EXAMPLES[0].messages, 128)
    before = masked_loss(plain, [row])
    adapted = PeftModel.from_pretrained(plain, str(folder / "adapter")).eval()
    assert masked_loss(adapted, [row]) < before - 0.05
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]


def test_another_process_writes_the_same_bytes(trained, elsewhere):
    folder, _ = trained
    assert written(elsewhere / "whole") == written(folder)


def test_a_killed_training_goes_on_and_ends_the_same(trained, elsewhere, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(elsewhere / "killed", folder)
    assert "training_log.csv" not in written(folder)
    (checkpoints,) = folder.glob(".checkpoints-*")
    assert last_whole_checkpoint(checkpoints) == checkpoints / "checkpoint-4"
    # as if the kill had come while the next checkpoint was written
    shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-6")
    for name in ("trainer_state.json", "adapter_model.safetensors"):
        path = checkpoints / "checkpoint-6" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    steps = []

    class Counts(StepBar):
        def on_step_end(self, args, state, control, **others):
            steps.append(state.global_step)

    monkeypatch.setattr(training, "StepBar", Counts)
    log = train(folder)
    whole, whole_log = trained
    assert steps == [5, 6]
    pd.testing.assert_frame_equal(log, whole_log)
    assert written(folder) == written(whole)


def test_a_kill_before_the_log_is_written_costs_no_step(trained, tmp_path, monkeypatch):
    def die(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert not (tmp_path / "training_log.csv").exists()
    train(tmp_path)
    assert written(tmp_path) == written(trained[0])


def test_other_settings_start_anew(trained, elsewhere, tmp_path):
    shutil.copytree(elsewhere / "killed", tmp_path / "run")
    log = train(tmp_path / "run", seed=2, epochs=1)
    assert log["step"].tolist() == [1, 2, 3]
    assert log["loss"].iloc[0] != trained[1]["loss"].iloc[0]


def masked_loss(model, rows: list[dict[str, list[int]]]) -> float:
    """Return the mean loss of the tokens whose mask is 1, by the textbook."""
    losses = []
    with torch.inference_mode():
        for row in rows:
            tokens = torch.tensor([row["input_ids"]])
            logprobs = model(tokens).logits[0, :-1].double().log_softmax(-1)
            each = -logprobs.gather(1, tokens[0, 1:, None])[:, 0]
            losses += each[torch.tensor(row["assistant_masks"][1:]) == 1].tolist()
    return float(np.mean(losses))


def test_the_loss_is_the_mean_over_the_assistants_tokens(tokenizer, tmp_path):
    # a fresh adapter changes nothing, so the first step's loss is the base model's
    rows = [tokenize(tokenizer, example.messages, 128) for example in EXAMPLES]
    log = train(tmp_path, epochs=1, batch_size=3, gradient_accumulation=2)
    expected = masked_loss(tiny(tokenizer), rows)
    assert log["loss"].tolist() == pytest.approx([expected], abs=2e-4)
    everything = [{**row, "assistant_masks": [1] * len(row["input_ids"])} for row in rows]
    assert abs(masked_loss(tiny(tokenizer), everything) - expected) > 1e-2


def test_the_batches_of_the_trainer_carry_no_label_elsewhere(tokenizer, tmp_path, monkeypatch):
    batches = []

    def look(trainer, **_):
        batches.extend(trainer.get_train_dataloader())
        raise InterruptedError

    monkeypatch.setattr(trl.SFTTrainer, "train", look)
    with pytest.raises(InterruptedError):
        train(tmp_path)
    seen = []
    for batch in batches:
        for tokens, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            counts = labels != -100
            assert torch.equal(labels[counts], tokens[counts])
            seen.append(tokenizer.decode(tokens[counts]))
    said = [f"I am number {i}.<|im_end|>Bye, Grüße.<|im_end|>" for i in range(6)]
    assert sorted(seen) == said


def test_examples_cut_off_before_anyone_speaks_are_told(tmp_path):
    with pytest.raises(StudyError, match="max_length"):
        train(tmp_path, max_length=16)


def test_a_checkpoint_that_was_not_closed_is_ignored(tmp_path):
    assert last_whole_checkpoint(tmp_path / "none") is None
    states = {
        9: '{"global_step": 9}',
        10: '{"global_step": 10}',
        11: '{"global_st',
        12: "",
        13: None,
    }
    for step, state in states.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    shutil.rmtree(tmp_path / "checkpoint-9")
    shutil.rmtree(tmp_path / "checkpoint-10")
    assert last_whole_checkpoint(tmp_path) is None


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_embeddings_saved_whole_stay_tied_and_are_learnt(tmp_path):
    tokenizer = load_tokenizer(prepare())
    weights = tiny(tokenizer)
    weights.config.tie_word_embeddings = True
    weights.tie_weights()
    before = weights.lm_head.weight.detach().clone()
    whole = {"modules_to_save": ["embed_tokens", "lm_head"]}
    train_adapter(weights, tokenizer, EXAMPLES, tmp_path, **(SETTINGS | whole))
    base = tiny(tokenizer)
    base.config.tie_word_embeddings = True
    base.tie_weights()
    merged = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    head, embedding = merged.lm_head.weight, merged.get_input_embeddings().weight
    assert torch.equal(head, embedding)
    assert (head - before).abs().max() > 1e-3


def test_what_is_trained_whole_is_trained_in_fp32(tmp_path, monkeypatch):
    tokenizer = load_tokenizer(prepare())
    weights = tiny(tokenizer).to(torch.bfloat16)
    kinds = set()
    monkeypatch.setattr(
        training.StepBar,
        "on_step_end",
        lambda self, args, state, control, model, **_: kinds.update(
            {p.dtype for p in model.parameters() if p.requires_grad}
        ),
    )
    whole = {"modules_to_save": ["embed_tokens", "lm_head"]}
    with torch.autocast("cpu", torch.bfloat16):  # as the trainer does on a GPU
        train_adapter(weights, tokenizer, EXAMPLES, tmp_path, **(SETTINGS | whole))
    assert kinds == {torch.float32}
