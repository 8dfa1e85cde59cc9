"""`dewey serve`: a model and indexes over HTTP."""

from __future__ import annotations

import logging
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli import console
from dewey_embed.errors import ConfigError, IndexStoreError
from dewey_embed.extras import EXTRAS, require
from dewey_embed.storage import folder_named

if TYPE_CHECKING:
    from dewey_embed.serve.server import Server
    from dewey_embed.serve.settings import ServeSettings

KEYS_VARIABLE = "DEWEY_SERVE_KEYS"

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="The model: mini, a folder, or a Hugging Face id. Default: that of the first index, "
        "else mini."
    ),
]
Indexes = Annotated[
    list[Path] | None,
    typer.Option(
        "--index",
        parser=folder_named,
        metavar="DIR",
        help="An index to search and fill; may be given again.",
    ),
]
Host = Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 is all of them.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 is any that is free.")]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="A name under which clients reach this server; may be given again."
    ),
]
Alias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A further name for the model, such as text-embedding-3-small for clients that ask "
        "for no other; may be given again.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="A file of keys, one a line, of which requests must bear one; "
        "docs/environment.md names a variable for them."
    ),
]
MaxBody = Annotated[int, typer.Option("--max-body-mb", min=1, help="Megabytes of one request.")]
MaxInputs = Annotated[int, typer.Option(min=1, help="Texts of one request.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens of one request, over all its texts.")]
Timeout = Annotated[
    float, typer.Option("--timeout-s", min=0.1, help="Seconds that a request may take.")
]
MaxWait = Annotated[
    float,
    typer.Option(
        "--max-wait-s",
        min=0.1,
        help="Seconds that may be waiting before further requests are refused with 429; short "
        "requests have a fifteenth of it.",
    ),
]
ReadOnly = Annotated[
    bool, typer.Option("--read-only", help="Search the indexes, never change them.")
]


def serve(
    model: ModelArgument = None,
    *,
    index: Indexes = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    allow_host: AllowHost = None,
    alias: Alias = None,
    key_file: KeyFile = None,
    max_body_mb: MaxBody = 64,
    max_inputs: MaxInputs = 2048,
    max_tokens: MaxTokens = 1_048_576,
    timeout_s: Timeout = 600.0,
    max_wait_s: MaxWait = 30.0,
    read_only: ReadOnly = False,
) -> None:
    """Serve a model and indexes: endpoints of known shapes, a page for people, MCP for agents.

    Clients of OpenAI, Voyage, Perplexity, Jina, Cohere and Text Embeddings Inference work as they
    are. It listens on this machine alone unless told otherwise.
    """
    require("serve", "serving", *EXTRAS["serve"])
    from dewey_embed.serve import run
    from dewey_embed.serve.settings import ServeSettings

    settings = ServeSettings(
        host=host, port=port, hosts=frozenset(each.lower() for each in allow_host or []),
        aliases=tuple(alias or ()), keys=_keys(key_file), max_body_mb=max_body_mb,
        max_inputs=max_inputs, max_tokens=max_tokens, timeout_s=timeout_s, max_wait_s=max_wait_s,
        read_only=read_only,
    )  # fmt: skip
    logging.basicConfig(
        stream=sys.stderr, format="time=%(asctime)s level=%(levelname)s %(message)s"
    )
    logging.getLogger("dewey_embed.serve").setLevel(logging.INFO)
    with suppress(KeyboardInterrupt, console.TerminatedError):  # before it listened
        run.serve(model, index or [], settings, _announce)
    console.say("stopped")


def _keys(path: Path | None) -> frozenset[str]:
    """The keys of a file and of the environment.

    Raises:
        ConfigError: the file cannot be read, holds no key, or may be read by others.

    """
    lines = os.environ.get(KEYS_VARIABLE, "").split(",")
    if path is not None:
        try:
            lines += path.read_text(encoding="utf-8").splitlines()
            mode = path.stat().st_mode
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"key file {path} cannot be read: {error}") from None
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            console.say(f"warning: others may read {path}; chmod 600 keeps it to you")
    keys = frozenset(line.strip() for line in lines) - {""}
    if path is not None and not keys:
        raise ConfigError(f"key file {path} holds no key; write one a line")
    return keys


def _announce(server: Server, address: str) -> None:
    """Say where the server is reached, and by whom."""
    settings: ServeSettings = server.settings
    console.say(f"{server.model.name} is served at {address} (page), {address}/docs (endpoints)")
    for name, index in server.indexes.items():
        try:
            console.say(f"index {name}: {index.path}, {len(index):,} documents")
        except IndexStoreError as error:  # the others are served
            console.say(f"warning: index {name}: {error}")
    if not settings.keys and settings.host not in ("127.0.0.1", "::1", "localhost"):
        console.say("warning: whoever reaches this machine may ask; --key-file names keys")
