"""Models by name: weights here, or a server elsewhere."""

import pytest

from clca_utils import params
from clca_utils.files import StudyError
from clca_utils.models import load_chat
from clca_utils.params import model_source, read_model
from clca_utils.server_model import ServerModel


def test_a_served_model_is_asked_where_it_is_served():
    model = load_chat("local-server")
    assert isinstance(model, ServerModel)
    assert model.name == "local-server"
    assert read_model("local-server").server.url == "http://localhost:8000/v1"


def test_a_served_model_has_no_weights_to_load():
    with pytest.raises(StudyError, match=r"local-server is served elsewhere.*simulator or partner"):
        model_source("local-server")


def test_a_model_with_weights_is_loaded_with_its_memory(smollm):
    model = load_chat("smollm2-135m", batch_size=3, memory=100)
    assert (model.batch_size, model.memory.room) == (3, 100)


def test_a_model_comes_from_somewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "MODELS", tmp_path)
    (tmp_path / "odd.yaml").write_text("name: odd\n")
    with pytest.raises(StudyError, match="needs a source, or a server in its place"):
        read_model("odd")
