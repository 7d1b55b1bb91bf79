"""A model that learns here and is asked on a server, which really runs the embedded model.

The server is `local_server.py`, not vLLM: it computes in fp32, as transformers does here, so
answers can be compared number by number. What they may differ by is rounding: `ROUNDING`.
"""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from serving import free_port, serving
from tenacity import wait_none

from clca_utils import params, server_model
from clca_utils.adaptation import adapt_all
from clca_utils.answers import join_parts, read_answers
from clca_utils.asking import Questionnaire, ask
from clca_utils.chat_model import assistant, system, user
from clca_utils.culture import load_culture
from clca_utils.dialogue import Sampling, simulate
from clca_utils.files import ROOT, StudyError, locate
from clca_utils.items import load_items
from clca_utils.models import load_chat
from clca_utils.params import MODELS, load_study, read_model
from clca_utils.planning import model_origin, plan
from clca_utils.respondents import respondents
from clca_utils.scenario import load_seeds
from clca_utils.served import ServedModel, adapter_name
from clca_utils.server_model import ServerSettings, Token
from clca_utils.transformers_model import load_model

ROUNDING = 2e-4
"""Natural-log probabilities of the same tokens, computed in another order."""

FORM = Questionnaire(
    "main", respondents(load_culture("german"), "nationality"), load_items("values")[5:7]
)


ASKED = len(FORM.asked()) + len({len(item.options) for item in FORM.items})
"""Requests to put `FORM` to a model, with the questions without content."""


def model_file(folder, port, **more):
    """Write the file of the embedded model as it is served at a port, and return its path."""
    text = (MODELS / "smollm2-135m.yaml").read_text()
    server = {"url": f"http://127.0.0.1:{port}/v1", "model": "base", "attempts": 2} | more
    path = folder / "here.yaml"
    path.write_text(text.replace("smollm2-135m\n", "here\n", 1) + f"server: {server}\n")
    return str(path)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Return the folder of an adapter, that of the warm-up, where a run would leave it."""
    folder = tmp_path_factory.mktemp("results") / "german" / "smollm2-135m" / "seed-1" / "adapter"
    shutil.copytree(locate(read_model("smollm2-135m").warmup), folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    port = free_port()
    with serving(port, "--runtime-lora"):
        yield model_file(tmp_path_factory.mktemp("models"), port)


@pytest.fixture(scope="module")
def learner(adapter):
    return load_model("smollm2-135m", adapter, exact=True)


def answers_of(before, after, folder):
    """Return the table of what two models answer to `FORM`."""
    parts = [
        part
        for name, model in (("before", before), ("after", after))
        for part in ask(model, [FORM], variant=name, parts=folder / ".answers", key=name)
    ]
    join_parts(parts, folder / "answers.parquet")
    return read_answers(folder / "answers.parquet")


def assert_alike(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=0, atol=ROUNDING)


def test_the_file_names_both_places(served):
    model = load_chat(served)
    assert isinstance(model, ServedModel)
    assert model.name == served
    assert read_model(served).address == f"{model.settings.url} base"


def test_the_survey_has_the_same_answers_as_here(served, smollm, adapter, learner, tmp_path):
    here = answers_of(smollm, learner, tmp_path / "here")
    before, after = load_chat(served, exact=True), load_chat(served, adapter=adapter, exact=True)
    there = answers_of(before, after, tmp_path / "there")
    assert_alike(there, here)
    moved = here["logprob"][here["variant"] == "before"].to_numpy()
    moved = moved - here["logprob"][here["variant"] == "after"].to_numpy()
    assert np.abs(moved).max() > 100 * ROUNDING  # the adapter was on
    assert after.settings.model == adapter_name(adapter)
    account = after.account
    assert (account.requests, account.retries, account.failures) == (ASKED, 0, {})
    assert account.completion_tokens == ASKED


def test_greedy_replies_are_those_of_here(served, smollm, adapter, learner):
    asked = [
        [system("Be brief."), user("Name three colours of the sky.")],
        [user("How is the weather?"), assistant("The weather is")],
    ]
    how = {"max_new_tokens": 16, "seeds": [1, 2]}
    for there, here in ((load_chat(served), smollm), (load_chat(served, adapter=adapter), learner)):
        replies = there.generate(asked, **how)
        assert replies == here.generate(asked, **how)
        assert all(replies)


@pytest.mark.parametrize("decoding", ["free", "prefilled"])
def test_scenes_are_acted_as_here(decoding, served):
    scene = adapt_all(load_seeds()[:1], load_culture("german"), seed=1)[0]
    sampling = Sampling(
        max_turns=2, max_new_tokens=12, temperature=0.0, top_p=1.0, decoding=decoding
    )
    acting = decoding == "prefilled"  # with its warm-up, which is an adapter too
    played = []
    for name in (served, "smollm2-135m"):
        model = load_chat(name, acting=acting)
        ((_, dialogue),) = simulate((model, model), [(scene, 0)], 1, sampling, live=1)
        played.append([(turn.action, turn.text) for turn in dialogue.turns])
    assert played[0] == played[1]
    assert acting == bool(played[0])  # without, it does not keep the paper's format


JOB = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_served import answers_of, load_chat
model, adapter, folder = sys.argv[1:]
answers_of(load_chat(model), load_chat(model, adapter=Path(adapter)), Path(folder))
"""


def test_two_evaluations_share_a_server(served, smollm, adapter, learner, tmp_path):
    """Both ask for the adapter of another run, which the server does not know yet."""
    other = tmp_path / "japanese" / "smollm2-135m" / "seed-1" / "adapter"
    shutil.copytree(adapter, other)
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, served, str(other), str(tmp_path / name)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        for name in ("one", "two")
    ]
    assert [job.wait(120) for job in jobs] == [0, 0]
    here = answers_of(smollm, learner, tmp_path / "here")
    for name in ("one", "two"):
        assert_alike(read_answers(tmp_path / name / "answers.parquet"), here)
    listed = httpx.get(f"{read_model(served).server.url}/models").json()["data"]
    assert [one["id"] for one in listed].count(adapter_name(other)) == 1


def test_an_evaluation_goes_on_after_its_server_died(
    adapter, smollm, learner, tmp_path, monkeypatch
):
    monkeypatch.setattr(server_model, "BACKOFF", wait_none())
    port, name = free_port(), adapter_name(adapter)
    model = model_file(tmp_path, port, concurrency=1)
    options = ["--lora-modules", f"{name}={adapter}"]
    run = tmp_path / "run"

    def evaluate():
        before, after = load_chat(model), load_chat(model, adapter=adapter)
        return answers_of(before, after, run), before.account.requests

    with (
        serving(port, *options, "--die-after", str(ASKED + 3)),
        pytest.raises(StudyError) as caught,
    ):
        evaluate()
    assert "No connection to the server" in str(caught.value)
    assert "go on with the same command" in str(caught.value)
    left = [path.relative_to(run).parts for path in run.rglob("*") if path.is_file()]
    assert [path[:2] for path in left] == [(".answers", "before")]
    with serving(port, *options):
        answers, asked = evaluate()
        with pytest.raises(StudyError, match=r"does not take the adapter .*HTTP 404.*"
                           r"RUNTIME_LORA_UPDATING=True, or with --enable-lora --lora-modules "
                           r"models\.smollm2-135m\.seed-1\.\w{8}=/"):  # fmt: skip
            other = tmp_path / "models" / "smollm2-135m" / "seed-1" / "adapter"
            load_chat(model, adapter=shutil.copytree(adapter, other))
    assert asked == 0  # what it had answered before stayed
    assert_alike(answers, answers_of(smollm, learner, tmp_path / "here"))


def test_the_name_of_an_adapter_is_that_of_its_run_and_its_content(tmp_path):
    folder = tmp_path / "german" / "smollm2-135m+authored" / "seed-1" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    name = adapter_name(folder)
    assert name.startswith("german.smollm2-135m+authored.seed-1.")
    assert (
        adapter_name(shutil.copytree(folder, tmp_path / "a" / folder.relative_to(tmp_path))) == name
    )
    (folder / "adapter_config.json").write_text('{"r": 8}')
    assert adapter_name(folder) != name


def test_a_server_that_knows_no_token_numbers_is_read_by_words(smollm):
    settings = ServerSettings(url="http://localhost/v1", model="m")
    model = ServedModel("m", settings, smollm.tokenizer)
    one, two, three = (smollm.tokenizer(text)["input_ids"][0] for text in "123")
    by_words = [Token(token="1", logprob=-0.5), Token(token=" 2", logprob=-2.0)]
    assert model._weights(by_words, [one, two, three]).tolist() == [-0.5, -2.0, -3.0]
    by_number = [Token(token=f"token_id:{i}", logprob=-float(i)) for i in (one, two)]
    assert model._weights(by_number, [two, one]).tolist() == [-two, -one]
    three = max(one, two) + 1  # not among those told: an older vLLM tells only the likeliest
    assert model._weights(by_number, [two, three]).tolist() == [-two, -max(one, two) - 1]


@pytest.fixture
def study(tmp_path):
    """Return what writes the smoke study for a served model and loads it."""

    def write(port=1, **more):
        text = (params.STUDIES / "smoke.yaml").read_text()
        text = text.replace("[smollm2-135m]", f"[{model_file(tmp_path, port)}]")
        for name, value in more.items():
            text = "\n".join(
                f"  {name}: {value}" if line.startswith(f"  {name}:") else line
                for line in text.splitlines()
            )
        path = tmp_path / "smoke.yaml"
        path.write_text(text)
        return load_study(path)

    return write


def test_what_no_server_takes_is_told_before_anything_is_trained(study):
    with pytest.raises(StudyError, match=r"takes no adapter with layers trained whole \(lm_head\)"):
        study(modules_to_save="[lm_head]")


def test_a_server_that_moved_is_asked_anew_but_nothing_is_trained_anew(study, tmp_path):
    origins = [
        {step.stage.number: step.origin for step in plan(study(port=port), tmp_path)}
        for port in (1, 2)
    ]
    changed = [number for number in origins[0] if origins[0][number] != origins[1][number]]
    assert changed == ["01", "02", "03", "05"]
    assert model_origin("smollm2-135m")[0] == "embedded"
    assert list(itertools.chain(*origins[0].values())).count("http://127.0.0.1:1/v1 base") == 4


def test_a_missing_file_of_a_model_is_no_hub_id():
    with pytest.raises(StudyError, match=r"nowhere/here\.yaml does not exist"):
        read_model("nowhere/here.yaml")
    assert Path(MODELS / "smollm2-135m.yaml").is_file()
    assert read_model("params/models/smollm2-135m.yaml").name == "smollm2-135m"
