"""Waiting for a real server that a test has started."""

import time

import httpx


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
