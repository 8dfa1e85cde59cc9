"""Names on the command line → the models that are measured, ours and the peers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.eval.dewey_models import DeweySearch
from dewey_embed.eval.peers import is_peer, open_peer
from dewey_embed.eval.run import Contender
from dewey_embed.index.ranking import Mode

if TYPE_CHECKING:
    from mteb.models.models_protocols import MTEBModels

Modes = Literal["single", "multi", "hybrid", "all"]

INDEXES, VECTORS = "indexes", "vectors"
"""Folders of the cache: our indexes, the peers' vectors."""


def open_contenders(
    names: Sequence[str],
    *,
    mode: Modes = "all",
    cache_folder: Path,
    device: str | None = None,
    chunk_tokens: int | Sequence[int] = CHUNK_TOKENS,
    chunk_overlap: int | Sequence[int] | None = None,
    show: bool = False,
) -> list[Contender]:
    """The models to measure, in the order of their names; a Dewey model once in each mode.

    A name is a peer's (`bm25`, `st:…`, `openai:…`, `minilm…`: see `peers.py`), or a Dewey model's:
    `mini`, a folder, a Hugging Face id. Models are loaded when they are first needed, and a Dewey
    model once for all of its modes.

    Raises:
        ConfigError: a name comes twice.

    """
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise ConfigError(
            f"asked to measure {', '.join(sorted(twice))} twice; name each model once"
        )
    modes: Sequence[Mode] = get_args(Mode) if mode == "all" else (mode,)
    found = []
    for name in names:
        if is_peer(name):
            peer = partial(open_peer, name, device=device, cache=cache_folder / VECTORS)
            found.append(Contender(name=name, label=name, open=peer))
            continue
        load = cache(partial(Dewey.load, name, device=device))
        for each in sorted(modes, key=("single", "multi", "hybrid").index):

            def search(load: partial[Dewey] = load, each: Mode = each) -> MTEBModels:  # type: ignore[assignment]
                return DeweySearch(
                    load(),
                    cache_folder / INDEXES,
                    mode=each,
                    chunk_tokens=chunk_tokens,
                    chunk_overlap=chunk_overlap,
                    show=show,
                )

            found.append(Contender(name=name, label=f"{Path(name).name} {each}", open=search))
    return found
