"""Chat models by transformers: options weighed exactly, replies drawn from their seeds alone."""

import copy
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
)

from clca_utils import transformers_model
from clca_utils.chat_model import assistant, system, user
from clca_utils.decoding import fits
from clca_utils.files import StudyError
from clca_utils.transformers_model import (
    TransformersModel,
    load_model,
    load_tokenizer,
    load_weights,
    number_format,
    placement,
    quantization,
    render,
)

SURVEY = system("You are a person living in Japan. Answer with a number.")
PLAY = [system("Write a play."), user("Ana meets Ben."), assistant("Ana: Hello!\nBen")]
ASKED = [
    ([SURVEY, user("Is family important?\n1. Yes\n2. No")], ["1", "2"]),
    ([SURVEY, user("Is work important?\n1. Very\n2. Rather\n3. Not at all")], ["1", "2", "3"]),
    ([user("Hi.")], ["1", "Hello there", "Hello"]),
    (PLAY, [" says nothing.", " (", ":", " leaves."]),
    ([*PLAY[:-1], assistant(PLAY[-1]["content"] + ": I see. " * 9)], [" leaves.", " stays put."]),
]
CONVERSATIONS, OPTIONS = [list(part) for part in zip(*ASKED, strict=True)]


@torch.inference_mode()
def plain(model: TransformersModel, conversation, option: str) -> float:
    """Return an option's log-probability by one forward pass over all of the text."""
    prompt = render(model.tokenizer, conversation)
    start = len(model.tokenizer(prompt)["input_ids"])
    tokens = model.tokenizer(prompt + option, return_tensors="pt")["input_ids"]
    logprobs = model.weights(tokens).logits[0].double().log_softmax(-1)
    return sum(float(logprobs[i - 1, tokens[0, i]]) for i in range(start, tokens.shape[1]))


@pytest.fixture(scope="module")
def expected(smollm):
    return [
        [plain(smollm, conversation, option) for option in options]
        for conversation, options in zip(CONVERSATIONS, OPTIONS, strict=True)
    ]


def resized(model: TransformersModel, batch_size: int) -> TransformersModel:
    return TransformersModel(model.name, model.weights, model.tokenizer, batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_model_that_remembers_weighs_options_the_same(smollm, expected, batch_size):
    model = TransformersModel("m", smollm.weights, smollm.tokenizer, batch_size, memory=5000)
    for _ in range(2):  # the second time from memory
        found = model.option_logprobs(CONVERSATIONS, OPTIONS)
        assert np.concatenate(found) == pytest.approx(np.concatenate(expected), abs=1e-4)
    longer = [*PLAY[:-1], assistant(PLAY[-1]["content"] + ": Come in.\nAna")]
    (found,) = model.option_logprobs([longer], [[":", " leaves."]])
    assert found == pytest.approx([plain(smollm, longer, x) for x in (":", " leaves.")], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_options_weigh_what_a_plain_forward_pass_gives_them(smollm, expected, batch_size):
    found = resized(smollm, batch_size).option_logprobs(CONVERSATIONS, OPTIONS)
    assert [len(row) for row in found] == [len(row) for row in OPTIONS]
    assert np.concatenate(found) == pytest.approx(np.concatenate(expected), abs=1e-4)


def test_order_and_repetition_of_prompts_and_options_do_not_matter(smollm, expected):
    order = [3, 0, 3, 2, 0]
    options = [OPTIONS[i][::-1] for i in order]
    options[2] = [*options[2], " leaves."]
    found = resized(smollm, 2).option_logprobs([CONVERSATIONS[i] for i in order], options)
    for i, row in zip(order, found, strict=True):
        assert row[: len(expected[i])] == pytest.approx(expected[i][::-1], abs=1e-4)
    assert found[2][-1] == found[2][0]


def test_a_prompt_alone_weighs_its_options_the_same(smollm, expected):
    (found,) = smollm.option_logprobs(CONVERSATIONS[3:4], OPTIONS[3:4])
    assert found == pytest.approx(expected[3], abs=1e-4)


def test_options_of_one_conversation_are_less_than_certain(smollm):
    (found,) = smollm.option_logprobs([CONVERSATIONS[0]], [[str(i) for i in range(10)]])
    assert 0 < np.exp(found).sum() < 1


def test_nothing_asked_is_nothing_answered(smollm):
    assert smollm.generate([], max_new_tokens=1, seeds=[]) == []
    assert smollm.option_logprobs([], []) == []


@pytest.mark.parametrize("option", ["od", ""])
def test_an_option_that_merges_with_its_prompt_is_refused(smollm, option):
    with pytest.raises(StudyError, match="does not split") as error:
        smollm.option_logprobs([[user("How?"), assistant("Very go")]], [[option]])
    assert repr(option) in str(error.value)


TALKS = [
    [user("Tell me about bread.")],
    [system("You are a sailor."), user("What do you see? " * 8)],
    [user("Hi.")],
    PLAY,
]
DRAWN = {"max_new_tokens": 12, "temperature": 0.9, "top_p": 0.9}


def test_a_reply_depends_on_its_seed_and_not_on_its_batch(smollm):
    together = smollm.generate(TALKS, seeds=[1, 2, 3, 4], **DRAWN)
    assert len(set(together)) == 4
    for i, talk in enumerate(TALKS):
        assert smollm.generate([talk], seeds=[i + 1], **DRAWN) == [together[i]]
    turned = smollm.generate(TALKS[::-1], seeds=[4, 3, 2, 1], **DRAWN)
    assert turned == together[::-1]


def test_another_seed_draws_another_reply(smollm):
    same = [TALKS[0]] * 4
    first, again, *others = smollm.generate(same, seeds=[1, 1, 2, 3], **DRAWN)
    assert first == again
    assert len({first, *others}) == 3


def test_at_temperature_0_the_likeliest_tokens_are_taken_whatever_the_seed(smollm):
    greedy = {"max_new_tokens": 8}
    together = smollm.generate(TALKS, seeds=[1, 2, 3, 4], **greedy)
    assert smollm.generate(TALKS, seeds=[9, 9, 9, 9], **greedy) == together
    written = ""
    for _ in range(8):
        token = _next_token(smollm, [*TALKS[0], assistant(written)])
        written += smollm.tokenizer.decode(token)
    assert written.strip() == together[0]


@pytest.mark.parametrize("stop", ["\n", ","])
def test_a_stop_character_ends_the_reply_and_is_not_part_of_it(smollm, stop):
    talk = [user("Write a poem of two lines about the sea.")]
    (whole,) = smollm.generate([talk], seeds=[0], max_new_tokens=24)
    assert stop in whole
    cut = smollm.generate([talk], seeds=[0], max_new_tokens=24, stop=stop)
    assert cut == [whole.split(stop)[0].strip()]


def test_a_reply_that_would_stop_at_once_is_not_empty(smollm):
    talk = [user("List three fruits, one a line."), assistant("1. Apple")]
    asked = {"seeds": [0], "max_new_tokens": 8}
    assert "\n" in smollm.tokenizer.decode(_next_token(smollm, talk))
    (reply,) = smollm.generate([talk], stop="\n", **asked)
    assert reply
    assert "\n" not in reply


def test_a_reply_of_one_token_may_end_there(smollm):
    talk = [user("Say yes."), assistant("Yes.")]
    assert smollm.tokenizer.decode(_next_token(smollm, talk)) == "<|im_end|>"
    talk = [user("Say yes."), assistant("Yes")]
    asked = {"seeds": [0], "max_new_tokens": 8}
    (short,) = smollm.generate([talk], min_new_tokens=1, **asked)
    (longer,) = smollm.generate([talk], **asked)
    assert len(smollm.tokenizer(short)["input_ids"]) == 1
    assert len(smollm.tokenizer(longer)["input_ids"]) >= 3


def _next_token(model, talk):
    tokens = model.tokenizer(render(model.tokenizer, talk), return_tensors="pt")["input_ids"]
    return model.weights(tokens).logits[0, -1].argmax()


def test_a_final_assistant_message_is_continued_and_not_repeated(smollm):
    talk = [user("What is the capital of France?"), assistant("The capital of France is")]
    assert render(smollm.tokenizer, talk).endswith(
        "<|im_start|>assistant\nThe capital of France is"
    )
    (reply,) = smollm.generate([talk], seeds=[0], max_new_tokens=6)
    assert reply.startswith("Paris")


def test_no_repeat_breaks_a_loop(smollm):
    talk = [user("Sing."), assistant("la la la la la la")]
    asked = {"seeds": [0], "max_new_tokens": 8}
    assert "la la la" in smollm.generate([talk], **asked)[0]
    assert "la la la" not in smollm.generate([talk], no_repeat=3, **asked)[0]


NO_SYSTEM = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<turn>' + m['role'] + '\\n' + m['content'] + '<end>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}"
)


def test_without_a_system_role_the_system_message_opens_the_first_user_message(smollm):
    tokenizer = copy.copy(smollm.tokenizer)
    tokenizer.chat_template = NO_SYSTEM
    talk = [user("U1"), assistant("A1"), user("U2")]
    folded = render(tokenizer, [system("S"), *talk])
    assert folded == render(tokenizer, [user("S\n\nU1"), *talk[1:]])
    assert folded.startswith("<turn>user\nS\n\nU1<end>")
    assert folded.endswith("<turn>model\n")
    prefilled = render(tokenizer, [system("S"), user("U1"), assistant("Well,")])
    assert prefilled == "<turn>user\nS\n\nU1<end>\n<turn>model\nWell,"
    assert "S<|im_end|>" in render(smollm.tokenizer, [system("S"), *talk])


@pytest.fixture(scope="module")
def base(tmp_path_factory, smollm):
    """Return the folder of a tiny chat model with random weights, input and output tied."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(smollm.tokenizer), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    smollm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("whole", [[], ["embed_tokens", "lm_head"]], ids=["lora", "and embeddings"])
def test_an_adapter_is_applied(base, tmp_path, whole):
    torch.manual_seed(1)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"],
        modules_to_save=whole or None, init_lora_weights=False,
    )  # fmt: skip
    trained = get_peft_model(load_weights(base), config)
    for name, weight in trained.named_parameters():
        if "modules_to_save" in name:
            weight.data += torch.randn_like(weight)
    trained.save_pretrained(tmp_path)
    unmerged = PeftModel.from_pretrained(load_weights(base), str(tmp_path)).eval()
    tokenizer = load_tokenizer(base)
    asked = [CONVERSATIONS[3]], [OPTIONS[3]]
    (wanted,) = TransformersModel("unmerged", unmerged, tokenizer).option_logprobs(*asked)
    adapted = load_model(str(base), tmp_path, batch_size=3)
    (found,) = adapted.option_logprobs(*asked)
    (plain_base,) = load_model(str(base)).option_logprobs(*asked)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert np.abs(found - plain_base).max() > 1e-3
    assert (adapted.name, adapted.batch_size) == (str(base), 3)


def test_weights_in_a_pickle_are_refused(base, tmp_path):
    weights = load_weights(base)
    weights.config.save_pretrained(tmp_path)
    torch.save(weights.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(StudyError, match=r"could not be loaded .*; only safetensors are read"):
        load_weights(tmp_path)


def test_an_adapter_in_a_pickle_is_refused(base, tmp_path):
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(
        StudyError, match=r"holds no adapter_model\.safetensors: run stage 04 again"
    ):
        load_model(str(base), tmp_path)


@pytest.mark.parametrize("asked", ["1", "0"])
def test_code_in_a_models_folder_is_never_run(smollm, tmp_path, monkeypatch, asked):
    monkeypatch.setenv("HF_HUB_TRUST_REMOTE_CODE", asked)
    smollm.tokenizer.save_pretrained(tmp_path)
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nfrom transformers import LlamaConfig\n"
    (tmp_path / "strange.py").write_text(code + "class Strange(LlamaConfig):\n    pass\n")
    config = {"model_type": "strange", "auto_map": {
        "AutoConfig": "strange.Strange", "AutoModelForCausalLM": "strange.Strange"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudyError, match="code of its own, which is never run here"):
        load_weights(tmp_path)
    assert not ran.exists()


@pytest.fixture
def gpu(monkeypatch):
    """Return a switch for whether there seems to be a GPU, and whether it has bf16."""

    def seems(there: bool, bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)

    return seems


def test_weights_are_bf16_where_that_is_fast(gpu):
    for there, bf16, kind in [
        (False, True, torch.float32), (True, False, torch.float32), (True, True, torch.bfloat16)
    ]:  # fmt: skip
        gpu(there, bf16)
        assert number_format("auto") == number_format("4bit") == kind
        assert number_format("fp32") == torch.float32
        assert number_format("bf16") == torch.bfloat16


def test_weights_are_loaded_as_asked(base):
    kinds = {kind: load_weights(base, kind).dtype for kind in ("auto", "fp32", "bf16")}
    assert kinds == {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}


def test_four_bits_need_a_gpu_and_a_package(base, gpu, monkeypatch):
    with pytest.raises(StudyError, match="which needs a GPU, and there is none: set auto"):
        load_weights(base, "4bit")
    gpu(True)
    monkeypatch.setattr(transformers_model, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(StudyError, match="the package bitsandbytes: `pip install bitsandbytes`"):
        load_weights(base, "4bit")
    monkeypatch.setattr(transformers_model, "is_bitsandbytes_available", lambda: True)
    asked = quantization()
    assert (asked.load_in_4bit, asked.bnb_4bit_quant_type) == (True, "nf4")
    assert asked.bnb_4bit_compute_dtype == torch.bfloat16


def test_one_of_several_processes_leaves_the_place_of_weights_to_the_trainer(gpu, monkeypatch):
    gpu(True)
    assert placement(quantized=False) == placement(quantized=True) == "auto"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert placement(quantized=False) is None
    assert placement(quantized=True) == {"": 1}
    gpu(False)
    assert placement(quantized=False) is None


def test_a_model_without_a_chat_template_is_no_chat_model(smollm, tmp_path):
    tokenizer = copy.copy(smollm.tokenizer)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="has no chat template: choose an instruction-tuned"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_padding_gets_it(smollm, tmp_path):
    tokenizer = copy.deepcopy(smollm.tokenizer)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "<|im_end|>"
    assert smollm.tokenizer.pad_token == "<|im_end|>"


PERSONA = system("You live in Germany. You are 40 years old. Answer with a number only.")
ANSWERS = ["Very good", "Good", "Bad", "Very bad"]
ROWS = [
    [PERSONA, user("\n".join([f"How is {what}?", *(f"{i + 1}. {text}" for i, text in turned)]))]
    for what in ("tea", "the weather in a month without any rain at all")
    for order in range(4)
    for turned in [list(enumerate(ANSWERS[order:] + ANSWERS[:order]))]
]
TEXTS = [["1", "4. Very bad"], ["2", "2. Very good"]] * 4


def tiny(smollm, window: int, kind: str, batch_size: int = 32) -> TransformersModel:
    """Return a small random model that attends `window` tokens back, in some layers or all.

    Its weights are large, so that a token seen too many or too few shows.
    """
    shape = {
        "vocab_size": len(smollm.tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.3,
        "sliding_window": window,
    }  # fmt: skip
    mixed = ["sliding_attention", "full_attention", "sliding_attention"]
    config = {
        "mistral": lambda: MistralConfig(**shape),
        "gemma": lambda: Gemma3TextConfig(**shape, layer_types=mixed, query_pre_attn_scalar=8),
        "qwen": lambda: Qwen2Config(
            **shape, layer_types=["full_attention", *mixed[1:]], use_sliding_window=True
        ),
    }[kind]()
    torch.manual_seed(3)
    weights = AutoModelForCausalLM.from_config(config)
    return TransformersModel(kind, weights, smollm.tokenizer, batch_size)


def longest(smollm) -> int:
    """Return how many tokens the model reads of the longest row."""
    rows = [
        len(smollm.tokenizer(render(smollm.tokenizer, talk) + text)["input_ids"]) - 1
        for talk, texts in zip(ROWS, TEXTS, strict=True)
        for text in texts
    ]
    return max(rows)


def plainly(model: TransformersModel) -> np.ndarray:
    pairs = zip(ROWS, TEXTS, strict=True)
    return np.array([plain(model, talk, text) for talk, texts in pairs for text in texts])


WINDOWS = [("mistral", n) for n in (-60, -1, 0, 1)] + [("gemma", -60), ("gemma", 9), ("qwen", -9)]


@pytest.mark.parametrize(("kind", "longer"), WINDOWS)
def test_packs_weigh_as_plain_passes_do_whatever_the_models_window(smollm, kind, longer):
    window = longest(smollm) + longer
    model = tiny(smollm, window, kind)
    assert [fits(model.weights, [(0,) * size]) for size in (window, window + 1)] == [True, False]
    wanted = plainly(model)
    for batch_size in (1, 3, 32):
        found = resized(model, batch_size).option_logprobs(ROWS, TEXTS)
        assert np.concatenate(found) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("longer", "shows"), [(-1, True), (0, False)])
def test_a_window_shows_from_one_token_less_than_the_longest_row(smollm, longer, shows):
    """Or else the test above would not see a window that is not kept."""
    wide, narrow = tiny(smollm, 4096, "mistral"), tiny(smollm, longest(smollm) + longer, "mistral")
    assert not fits(wide.weights, [(0,) * 4097])
    assert (np.abs(plainly(wide) - plainly(narrow)).max() > 1e-2) == shows


def test_prompts_and_options_of_any_length_weigh_the_same_in_packs(smollm):
    """Conversations that share nothing beside those that share all but a token."""
    model = tiny(smollm, 4096, "gemma", batch_size=2)
    talks, texts = [*CONVERSATIONS, *ROWS], [*OPTIONS, *TEXTS]
    found = model.option_logprobs(talks, texts)
    wanted = [
        [plain(model, talk, text) for text in some] for talk, some in zip(talks, texts, strict=True)
    ]
    assert np.concatenate(found) == pytest.approx(np.concatenate(wanted), abs=1e-4)


def test_what_rows_share_is_read_once(smollm):
    model = tiny(smollm, 4096, "mistral")
    widths = []
    model.weights.register_forward_pre_hook(
        lambda _, rest, how: widths.append((how["input_ids"] if how else rest[0]).numel()),
        with_kwargs=True,
    )
    model.option_logprobs(ROWS, TEXTS)
    tokens = [
        tuple(model.tokenizer(render(model.tokenizer, talk) + text)["input_ids"])[:-1]
        for talk, texts in zip(ROWS, TEXTS, strict=True)
        for text in texts
    ]
    beginnings = {row[:length] for row in tokens for length in range(1, len(row) + 1)}
    assert len(beginnings) <= sum(widths) < 1.5 * len(beginnings)
    assert sum(widths) < sum(map(len, tokens)) / 2
