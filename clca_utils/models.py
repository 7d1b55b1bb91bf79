"""A chat model by its name in `params/models`, wherever it runs."""

from clca_utils.chat_model import ChatModel
from clca_utils.params import model_warmup, read_model
from clca_utils.server_model import ServerModel


def load_chat(name: str, batch_size: int = 32, memory: int = 0) -> ChatModel:
    """Load a model that plays, judges, rewrites or annotates (stages 01 to 03), warmed up for it.

    Args:
        name: A file of `params/models`, a local folder or a hub id.
        batch_size: Rows per forward pass; a server decides that itself.
        memory: How many tokens of prompts to remember between calls (see `TransformersModel`).

    Raises:
        StudyError: There is no such model, or it cannot be loaded.
    """
    server = read_model(name).server
    if server is not None:
        return ServerModel(name, server)
    from clca_utils.transformers_model import load_model  # noqa: PLC0415 (slow to import)

    return load_model(name, model_warmup(name), batch_size, memory=memory)
