"""The served model: what a misbehaving server can do to it, and a real server."""

import inspect
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from serving import wait_until_healthy
from tenacity import wait_none

from clca_utils import server_model
from clca_utils.adaptation import adapt_all
from clca_utils.chat_model import ChatModel, assistant, system, user
from clca_utils.culture import load_culture
from clca_utils.dialogue import Dialogue, Sampling, simulate
from clca_utils.embedded import prepare
from clca_utils.files import StudyError, problems
from clca_utils.scenario import load_seeds
from clca_utils.server_model import (
    Account,
    ServerModel,
    ServerSettings,
    Token,
    option_weights,
    own_words,
    seconds_asked,
)
from clca_utils.weighing import weigh

HOW = {"max_new_tokens": 5, "seeds": [1]}
ASKED = [[user("Say hello.")]]
BEGUN = [user("Is it good?"), assistant("Verdict:")]
CANARY = "sk-canary-4711"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(server_model, "BACKOFF", wait_none())


def answer(content="Hello.", **more):
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"message": message, **more}], "usage": usage})


def step(status=200, body=None, *, headers=(), delay=0.0, missing=0):
    """Return what the server does once; `missing` bytes are promised and never sent."""

    def act(handler, request):
        time.sleep(delay)
        content = (answer() if body is None else body).encode()
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content) + missing))
        handler.end_headers()
        handler.wfile.write(content)

    return act


GOOD = step()


class Script:
    """A server that does one step per request, the last one ever after; it keeps what it got."""

    def __init__(self, *steps):
        self.steps, self.requests, self.headers = list(steps), [], []
        self.lock = threading.Lock()


@contextmanager
def serving(*steps):
    script = Script(*steps)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.requests.append(request)
                script.headers.append((self.path, dict(self.headers)))
                act = script.steps.pop(0) if len(script.steps) > 1 else script.steps[0]
            act(self, request)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # a client that gave up waiting is part of the script
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()


def ask(url, **settings):
    return ServerModel("served", ServerSettings(url=url, model="m", **settings))


@pytest.fixture
def closed_url():
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@pytest.mark.parametrize("method", ["generate", "option_logprobs"])
def test_a_served_model_has_the_interface(method):
    def parameters(model):
        return inspect.signature(getattr(model, method)).parameters

    assert parameters(ServerModel) == parameters(ChatModel)


def test_the_request_holds_what_was_asked_for():
    with serving(GOOD) as server:
        model = ask(server.url)
        asked = [[system("Be kind."), user("Hello?")]]
        how = {"max_new_tokens": 7, "seeds": [3], "temperature": 0.5, "top_p": 0.9, "stop": "}"}
        assert model.generate(asked, **how, no_repeat=5, min_new_tokens=1) == ["Hello."]
    assert server.requests == [
        {
            "model": "m",
            "messages": asked[0],
            "max_tokens": 7,
            "seed": 3,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": "}",
        }
    ]
    path, headers = server.headers[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers


def test_no_conversations_need_no_server(closed_url):
    model = ask(closed_url)
    assert model.generate([], max_new_tokens=5, seeds=[]) == []
    assert model.option_logprobs([], []) == []
    assert model.account.requests == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (step(body="<html>busy</html>"), "not JSON"),
        (step(body=answer()[:-9]), "not JSON"),
        (step(body='{"error": "overloaded"}'), "JSON without a reply"),
        (step(body='{"choices": []}'), "JSON without a reply"),
        (step(body='{"choices": [{"message": "Hello."}]}'), "JSON without a reply"),
        (step(body="[]"), "JSON without a reply"),
        (step(missing=9), "answer cut short (RemoteProtocolError)"),
        (step(delay=0.4), "no answer within 0.2 s"),
        *((step(status), f"HTTP {status}") for status in (408, 409, 425, 429, 500, 503)),
    ],
)
def test_what_may_pass_is_tried_again_and_at_last_no_reply(bad, reason):
    with serving(bad, GOOD) as server:
        model = ask(server.url, timeout=0.2)
        assert model.generate(ASKED, **HOW) == ["Hello."]
        account = model.account
        assert (account.requests, account.retries, account.failures) == (2, 1, {})
        assert (account.prompt_tokens, account.completion_tokens) == (10, 2)
    with serving(bad) as server:
        model = ask(server.url, timeout=0.2, attempts=3)
        assert model.generate(ASKED, **HOW) == [""]
        account = model.account
        assert (account.requests, account.retries, account.failures) == (3, 2, {reason: 1})
        assert (account.prompt_tokens, account.completion_tokens) == (0, 0)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_is_not_tried_again(status):
    with serving(step(status, '{"error": "too\nlong"}')) as server:
        model = ask(server.url)
        assert model.generate(ASKED, **HOW) == [""]
    account = model.account
    assert (account.requests, account.retries) == (1, 0)
    assert account.failures == {f'HTTP {status}: {{"error": "too long"}}': 1}


@pytest.mark.parametrize("content", ["", " \n", None])
def test_an_empty_reply_costs_but_is_none(content):
    with serving(step(body=answer(content))) as server:
        model = ask(server.url, price_in=1.0, price_out=3.0)
        assert model.generate(ASKED, **HOW) == [""]
    assert model.account.table == {
        "requests": 1,
        "retries": 0,
        "failures": {"empty reply": 1},
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cost": pytest.approx(16e-6),
    }
    assert json.dumps(model.account.table)


def test_the_server_says_how_long_to_wait():
    with serving(step(429, headers=[("Retry-After", "1")]), GOOD) as server:
        model = ask(server.url)
        begun = time.monotonic()
        assert model.generate(ASKED, **HOW) == ["Hello."]
        assert 1 <= time.monotonic() - begun < 3


def test_a_server_that_asks_for_a_day_stops_the_study():
    with serving(step(503, headers=[("Retry-After", "86400")])) as server:
        model = ask(server.url)
        with pytest.raises(StudyError, match="HTTP 503 and asks to wait 86400 seconds: go on"):
            model.generate(ASKED, **HOW)
    assert model.account.requests == 1


def test_waits_grow_from_one_second_to_a_minute(monkeypatch):
    monkeypatch.undo()  # of `no_waiting`
    naps = []
    monkeypatch.setattr("tenacity.nap.time.sleep", naps.append)
    with serving(step(500)) as server:
        assert ask(server.url, attempts=9).generate(ASKED, **HOW) == [""]
    waits = [1, 2, 4, 8, 16, 32, 60, 60]
    naps = [nap for nap in naps if nap]  # the server's own are zero
    assert all(wait <= nap <= wait + 1 for wait, nap in zip(waits, naps, strict=True))


@given(st.integers(0, 10**9))
def test_retry_after_is_read_as_seconds_or_date(seconds):
    assert seconds_asked(str(seconds)) == seconds
    date = formatdate(time.time() + seconds, usegmt=True)
    assert seconds_asked(date) == pytest.approx(seconds, abs=2)


@given(st.text())
def test_any_retry_after_is_a_time_from_now_on(header):
    assert seconds_asked(header) >= 0


def test_replies_keep_their_order_and_many_are_asked_at_once():
    at_once, most, lock = 0, 0, threading.Lock()

    def echo(handler, request):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        number = int(request["messages"][0]["content"])
        time.sleep(0.02 * (number % 4 == 0))
        body = answer(f" {number} by {request['seed']}\n")
        with lock:
            at_once -= 1
        step(400 if number == 5 else 200, body)(handler, request)

    with serving(echo) as server:
        model = ask(server.url, concurrency=4)
        replies = model.generate(
            [[user(str(n))] for n in range(40)], max_new_tokens=5, seeds=list(range(100, 140))
        )
    assert replies == ["" if n == 5 else f"{n} by {100 + n}" for n in range(40)]
    assert 2 <= most <= 4
    account = model.account
    assert (account.requests, account.prompt_tokens) == (40, 390)
    assert account.failures.total() == 1


def test_threads_share_an_account():
    account = Account(price_in=1.0, price_out=2.0)

    def work():
        for _ in range(2000):
            account.add(requests=1, prompt_tokens=2, completion_tokens=1, failures=["x"])

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (account.requests, account.failures) == (8000, {"x": 8000})
    assert account.cost == pytest.approx(8000 * 4 / 1e6)


def test_a_dead_server_stops_the_study(closed_url):
    model = ask(closed_url, attempts=2)
    with pytest.raises(StudyError, match=r"No connection to the server \S+ .* in 2 attempts .*url"):
        model.generate(ASKED * 20, max_new_tokens=5, seeds=[1] * 20)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "HTTP 401: it wants a key; put it in an environment variable"),
        (403, "HTTP 403: it wants a key"),
        (404, "HTTP 404 to a request for the model 'm': mend `model`"),
        (307, "HTTP 307, which sends to https://elsewhere: mend `url`"),
    ],
)
def test_what_all_requests_would_meet_stops_the_study(status, told):
    with serving(step(status, headers=[("Location", "https://elsewhere")])) as server:
        model = ask(server.url, concurrency=1)
        with pytest.raises(StudyError, match=told):
            model.generate(ASKED * 50, max_new_tokens=5, seeds=[1] * 50)
    assert model.account.requests < 50
    assert model.account.failures == {}


def test_a_prefill_is_continued_and_its_echo_taken_off():
    for text in (" good.", "Verdict: good.", " Verdict: good."):
        with serving(step(body=answer(text))) as server:
            assert ask(server.url).generate([BEGUN], **HOW) == ["good."]
        sent = server.requests[0]
        assert sent["messages"] == BEGUN
        assert (sent["add_generation_prompt"], sent["continue_final_message"]) == (False, True)


def test_a_server_that_knows_no_prefill_stops_the_study():
    said = '{"detail": "Unexpected fields: {\'continue_final_message\'}"}'
    with (
        serving(step(422, said)) as server,
        pytest.raises(StudyError, match=r"HTTP 422 .* can't continue a reply begun for it"),
    ):
        ask(server.url).generate([BEGUN], **HOW)
    with serving(step(422, said)) as server:
        assert ask(server.url).generate(ASKED, **HOW) == [""]


@given(st.text(), st.text(min_size=1), st.sampled_from(["", "\n", "}"]))
def test_a_reply_is_the_same_with_and_without_echo(text, prefill, stop):
    plain = own_words(text, [user("?")], stop)
    assert not stop or stop not in plain
    assert plain == (text.split(stop)[0] if stop else text).strip()
    begun = [user("?"), assistant(prefill)]
    if not text.lstrip().startswith(prefill.strip()) and prefill.strip():
        assert own_words(prefill.strip() + text, begun, stop) == own_words(text, begun, stop)
        assert own_words(text, begun, stop) == plain


def weighed(*tokens):
    top = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    return answer("x", logprobs={"content": [{"token": "x", "logprob": -1, "top_logprobs": top}]})


def test_options_get_the_weight_of_the_token_they_start_with():
    body = weighed((" good", -0.5), ("Good", -1.0), ("b", -2.0), ("bad", -3.0), ("\n", -4.0))
    with serving(step(body=body)) as server:
        model = ask(server.url)
        rows = model.option_logprobs([BEGUN, ASKED[0]], [[" good", "bad", "so"], ["Good", "bye"]])
    assert [row.tolist() for row in rows] == [[-0.5, -3.0, -5.0], [-1.0, -2.0]]
    sent = next(one for one in server.requests if len(one["messages"]) == 2)
    assert sent == {
        "model": "m",
        "messages": BEGUN,
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "temperature": 1.0,
    }


def test_a_served_model_can_judge():
    def judge(handler, request):
        is_blank = request["messages"][0]["content"] == "N/A"
        good = 0.5 if is_blank else 0.8
        step(body=weighed((" good", math.log(good)), (" bad", math.log(1 - good))))(
            handler, request
        )

    with serving(judge) as server:
        shares = weigh(ask(server.url), [ASKED[0]], [[user("N/A")]], [" good", " bad"])
    np.testing.assert_allclose(shares, [[0.8, 0.2]])


TOKENS = st.lists(
    st.builds(Token, token=st.text("ab ", max_size=4), logprob=st.floats(-50, 0)), min_size=1
)


@given(TOKENS, st.lists(st.text("ab ", max_size=5)))
def test_a_weight_is_a_token_s_or_below_them_all(tokens, options):
    weights = option_weights(tokens, options)
    smallest = min(token.logprob for token in tokens)
    for option, weight in zip(options, weights, strict=True):
        starts = [
            token.logprob
            for token in tokens
            if token.token.strip() and option.lstrip().startswith(token.token.lstrip())
        ]
        assert weight in starts if starts else weight == smallest - 1


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"logprobs": None},
        {"logprobs": {"content": None}},
        {"logprobs": {"content": []}},
        {"logprobs": {"content": [{"token": "x", "logprob": -1}]}},
        {"logprobs": {"content": [{"top_logprobs": [{"token": "x", "logprob": -math.inf}]}]}},
    ],
)
def test_a_server_that_weighs_no_tokens_can_only_write(more):
    with serving(step(body=answer("x", **more))) as server:
        model = ask(server.url)
        with pytest.raises(
            StudyError, match="'m' can only write: name a model that weighs options"
        ):
            model.option_logprobs(ASKED, [["a"]])
        assert model.generate(ASKED, **HOW) == ["x"]


def test_missing_weights_are_not_made_up():
    with (
        serving(step(500)) as server,
        pytest.raises(StudyError, match=r"options can be weighed \(HTTP 500\)"),
    ):
        ask(server.url, attempts=2).option_logprobs(ASKED, [["a"]])


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 429])
def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog, status):
    monkeypatch.setenv("MY_KEY", f"{CANARY}\n")
    caplog.set_level(logging.DEBUG)

    def leak(handler, request):
        step(status, f"Bad key {handler.headers['Authorization']}", headers=[("Location", "/")])(
            handler, request
        )

    shown = []
    with serving(leak) as server:
        model = ask(server.url, key="MY_KEY", attempts=2)
        try:
            shown += model.generate(ASKED, **HOW)
        except StudyError as error:
            shown += [repr(error), *traceback.format_exception(error)]
    assert server.headers[0][1]["Authorization"] == f"Bearer {CANARY}"
    shown += [repr(model), repr(vars(model)), json.dumps(model.account.table), caplog.text]
    assert "MY_KEY" in "".join(shown)
    assert CANARY not in "".join(shown)


def test_the_key_is_read_when_it_is_needed(monkeypatch):
    with serving(GOOD) as server:
        model = ask(server.url, key="MY_KEY")
        monkeypatch.delenv("MY_KEY", raising=False)
        with pytest.raises(StudyError, match=r"MY_KEY, which `key` .* names, is not set: put"):
            model.generate(ASKED, **HOW)
        monkeypatch.setenv("MY_KEY", f"{CANARY} {CANARY}")
        with pytest.raises(StudyError, match="more than one plain word") as caught:
            model.generate(ASKED, **HOW)
        assert CANARY not in str(caught.value)
        monkeypatch.setenv("MY_KEY", CANARY)
        assert model.generate(ASKED, **HOW) == ["Hello."]


def test_a_key_in_the_settings_is_refused_unshown():
    with pytest.raises(ValidationError) as caught:
        ask("http://localhost/v1", key=CANARY)
    assert problems(caught.value)[0].startswith("key: ")
    assert CANARY not in str(caught.value) + "".join(problems(caught.value))


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "localhost:8000/v1"},
        {"url": "http://me:secret@localhost/v1"},
        {"url": "http://localhost/v1?key=secret"},
        {"model": ""},
        {"concurrency": 0},
        {"timeout": 0.0},
        {"timeout": math.inf},
        {"attempts": 0},
        {"price_in": -1.0},
        {"api_key": "X"},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ServerSettings(**{"url": "http://localhost:8000/v1", "model": "m"} | wrong)


# A real server: the embedded model, served by transformers.


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    model = str(prepare())
    log = folder / "log"
    with log.open("wb") as file:
        command = [Path(sys.executable).with_name("transformers"), "serve", model]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", port, "--device", "cpu"],
            env=os.environ
            | {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
        )
    try:
        wait_until_healthy(process, port, log.read_text)
        yield ServerSettings(url=f"http://127.0.0.1:{port}/v1", model=model, price_in=1.0)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_real_server_replies_and_its_tokens_are_counted(real):
    model = ServerModel("real", real)
    asked = [[user("Say hello.")], [system("Be brief."), user("Name a colour.")]]
    how = {"max_new_tokens": 8, "temperature": 0.8, "top_p": 0.9, "stop": "\n"}
    replies = model.generate(asked, seeds=[1, 2], **how)
    assert all(replies)
    assert replies == [reply.strip().split("\n")[0] for reply in replies]
    account = model.account
    assert (account.requests, account.retries, account.failures) == (2, 0, {})
    assert account.prompt_tokens > 20
    assert 2 <= account.completion_tokens <= 16
    assert account.cost == pytest.approx(account.prompt_tokens / 1e6)


def test_a_real_server_that_can_only_write_says_so(real):
    model = ServerModel("real", real)
    with pytest.raises(StudyError, match="returns no log-probabilities"):
        model.option_logprobs(ASKED, [["Yes", "No"]])
    with pytest.raises(StudyError, match="can't continue a reply begun for it"):
        model.generate([BEGUN], **HOW)


def test_a_real_server_acts_a_dialogue_to_its_end(real):
    model = ServerModel("real", real)
    scenario = adapt_all(load_seeds()[:1], load_culture("german"), seed=1)[0]
    sampling = Sampling(max_turns=2, max_new_tokens=16, temperature=0.8, top_p=0.9, decoding="free")
    played = list(simulate((model, model), [(scenario, 0), (scenario, 1)], 1, sampling, live=2))
    assert sorted(place for place, _ in played) == [0, 1]
    for _, dialogue in played:
        assert dialogue.ended in get_args(Dialogue.model_fields["ended"].annotation)
        assert dialogue.simulators == ("real", "real")
    assert model.account.failures == {}
    assert model.account.requests >= 2
