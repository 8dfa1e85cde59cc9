"""`dewey mcp`: the documents of indexes as tools for agents, over standard input and output."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli import options
from dewey_embed.extras import require
from dewey_embed.storage import folder_named

if TYPE_CHECKING:
    from dewey_embed.index.index import Index

Indexes = Annotated[
    list[Path],
    typer.Option(
        "--index",
        parser=folder_named,
        metavar="DIR",
        help="The folder of an index; given again, further ones of the same model.",
    ),
]


def mcp(index: Indexes, *, model: options.Model = None) -> None:
    """Let agents search the documents: a server of the Model Context Protocol.

    An agent's program, such as Claude Desktop or Cursor, starts it and talks to it over standard
    input and output.
    """
    require("serve", "dewey mcp", "mcp")
    from dewey_embed.serve.mcp import serve_stdio

    indexes = _opened(index, model)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # nothing is written, and a read of input never ends
    threading.Thread(target=_load_model, args=(next(iter(indexes.values())),), daemon=True).start()
    serve_stdio(indexes)


def _opened(folders: Sequence[Path], model: str | None) -> dict[str, Index]:
    """The indexes by the names of their folders.

    Raises:
        IndexStoreError: there is no index in a folder.
        IndexMismatchError: they are not all of one model.

    """
    from dewey_embed.index.index import Index

    indexes: dict[str, Index] = {}
    for folder in folders:
        opened = Index.open(folder, model if not indexes else None)
        settings = opened.settings
        for first in list(indexes.values())[:1]:
            settings.require_model(first.settings.model, first.settings.fingerprint, opened.path)
        name = plain = opened.path.name.replace(":", "_") or "index"
        number = 2
        while name in indexes:
            name, number = f"{plain}-{number}", number + 1
        indexes[name] = opened
    return indexes


def _load_model(index: Index) -> None:
    """Load the model before the first call needs it; a failure is that call's to tell."""
    with contextlib.suppress(Exception):
        _ = index.model
