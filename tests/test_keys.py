"""Keys come from the environment and are found nowhere that anybody might pass on."""

import json
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml
from cells import copied

from clca_utils.files import ROOT

KEYS = {"MY_KEY": "sk-canary-4711", "HF_TOKEN": "hf_canary4712", "OPENAI_API_KEY": "sk-canary-4713"}
STUDY = {
    "study": "tiny",
    "cultures": ["german"],
    "models": ["smollm2-135m"],
    "simulator": "served",
    "scenario_adaptation": {"rewriter": "chat", "n_scenarios": 1},
}


@pytest.fixture(params=["tells all it heard in its errors", "answers"])
def server(request):
    """A server that wants a key, and gives it back to whoever will write it down."""
    said = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said.append(self.headers["Authorization"])
            if request.param == "answers":
                scene = str(asked["messages"][-1]["content"])
                content = json.dumps({"choices": [{"message": {"content": scene[1:]}}]})
            else:
                content = f"{dict(self.headers)} {self.headers['Authorization']}"
            self.send_response(200 if request.param == "answers" else 400)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1], said
    server.shutdown()
    server.server_close()


def test_a_key_is_in_no_notebook_log_manifest_or_ledger(server, tmp_path):
    port, said = server
    home = copied(tmp_path / "copy", STUDY)
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    place = {"url": f"http://127.0.0.1:{port}/v1", "model": "m", "key": "MY_KEY", "attempts": 1}
    served = {"name": "served", "server": place}
    (home / "params/models/served.yaml").write_text(yaml.safe_dump(served))
    known = os.environ | KEYS | {"PYTHONPATH": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "clca_utils", "run", "tiny", "--results", "results", "--only",
         "german/served/seed-1/01_scenario_adaptation"],
        cwd=home, env=known, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said, done.stdout + done.stderr
    assert set(said) == {f"Bearer {KEYS['MY_KEY']}"}
    results = home / "results/tiny"
    files = [path for path in results.rglob("*") if path.is_file()]
    assert any(path.suffix == ".ipynb" for path in files)
    for key in KEYS.values():
        assert key not in done.stdout + done.stderr
        assert [path for path in files if key.encode() in path.read_bytes()] == []
