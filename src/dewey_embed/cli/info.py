"""`dewey info`: what a model or an index is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dewey_embed.cli import console, options

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey
    from dewey_embed.search import Index


def info(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|INDEX]", help="A model, or an index's folder. Default: mini."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Say what a model or an index is: dimensions, context, sizes."""
    from dewey_embed.search import Index

    if what is not None and is_index(Path(what)):
        facts = index_facts(Index.open(what))
    else:
        from dewey_embed.encoder import Dewey

        facts = model_facts(Dewey.load(what))
    if json:
        console.print_json(facts)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        console.echo(f"{key.replace('_', ' '):<{width}}  {shown}")


def is_index(folder: Path) -> bool:
    """Whether this is an index's folder, damaged or not; a model's has a config beside it."""
    parts = ("dewey.json", "documents.lance", "chunks.lance")
    return any((folder / part).exists() for part in parts) and not (folder / "config.json").exists()


def index_facts(index: Index) -> dict[str, Any]:
    """What an index holds and how it was made."""
    made = index.settings
    return {
        "index": str(index.path),
        "num_documents": len(index),
        "num_chunks": index.num_chunks,
        "model": made.model,
        "fingerprint": made.fingerprint,
        "embedding_dim": made.embedding_dim,
        "single_vector": made.single_vector,
        **made.options.model_dump(mode="json"),
        "bytes": folder_bytes(index.path),
    }


def model_facts(model: Dewey) -> dict[str, Any]:
    """What a model is."""
    from dewey_embed.model.native.layers import engine_name

    backbone = model.config.backbone
    return {
        "model": model.name,
        "folder": str(model.folder),
        "parameters": sum(each.numel() for each in model.model.parameters()),
        "layers": backbone.num_hidden_layers,
        "hidden_size": backbone.hidden_size,
        "vocabulary": backbone.vocab_size,
        "max_tokens": model.max_tokens,
        "embedding_dim": model.embedding_dim,
        "single_vector": model.config.single_vector,
        "prompts": model.prompts,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "encodes_by": engine_name(model.model.backbone),
        "fingerprint": model.fingerprint,
        "bytes": folder_bytes(model.folder),
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder that can be looked at."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it has gone, as files do while an index is written
                total += os.stat(os.path.join(parent, name)).st_size
    return total
