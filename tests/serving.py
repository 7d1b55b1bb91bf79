"""Real servers that a test starts, waits for and ends."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx

from clca_utils.files import ROOT


def wait_until_healthy(process, port, told=str):
    """Wait until a server answers; `told` says more where it ended or takes too long."""
    deadline = time.monotonic() + 120
    while not is_healthy(port):
        assert process.poll() is None, told()
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


def is_healthy(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.TransportError:
        return False


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(port, *options):
    """Run the server, and end it."""
    command = [sys.executable, str(ROOT / "tests" / "local_server.py"), str(port), *options]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=surroundings) as process:
        try:
            wait_until_healthy(process, port)
            yield process
        finally:
            process.kill()
