"""A chat model by its name in `params/models`, wherever it runs."""

from pathlib import Path

from clca_utils.chat_model import ChatModel
from clca_utils.params import model_warmup, read_model
from clca_utils.server_model import ServerModel


def load_chat(
    name: str,
    batch_size: int = 32,
    memory: int = 0,
    *,
    acting: bool = False,
    adapter: Path | None = None,
    exact: bool = False,
) -> ChatModel:
    """Load a model that plays, judges, rewrites or annotates (stages 01 to 03), or is surveyed.

    Args:
        name: A file of `params/models`, a local folder or a hub id.
        batch_size: Rows per forward pass; a server decides that itself.
        memory: How many tokens of prompts to remember between calls (see `TransformersModel`).
        acting: With its warm-up, if it has one. That teaches a small model plays, and makes it
            worse at all else.
        adapter: Folder of a LoRA adapter that is put on it.
        exact: fp32, see `load_weights`; a server decides that itself, too.

    Raises:
        StudyError: There is no such model, it cannot be loaded, or its server takes no adapter.
    """
    model = read_model(name)
    learnt = adapter or (model_warmup(name) if acting else None)
    if model.server and not model.source:
        return ServerModel(name, model.server)
    if model.server:
        from clca_utils.served import load_served  # noqa: PLC0415 (slow to import)

        return load_served(name, model.server, learnt)
    from clca_utils.transformers_model import load_model  # noqa: PLC0415 (as above)

    return load_model(name, learnt, batch_size, exact, memory)


def load_players(
    chat: ChatModel, partner: str, batch_size: int, memory: int
) -> tuple[ChatModel, ChatModel]:
    """Load who plays the two people: a model and its partner, or the model alone.

    Args:
        chat: The model as it judges; it plays as well, unless it has a warm-up.
        partner: Who plays the second person; empty: the model, too.
        batch_size: See `load_chat`.
        memory: See `load_chat`.

    Raises:
        StudyError: One of them cannot be loaded.
    """

    def player(name: str) -> ChatModel:
        return load_chat(name, batch_size, memory, acting=True)

    first = player(chat.name) if model_warmup(chat.name) else chat
    return first, player(partner) if partner else first
