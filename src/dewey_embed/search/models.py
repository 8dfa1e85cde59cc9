"""Which model an index is asked and written with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.index.settings import IndexSettings

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey


def load_model(given: Dewey | str | Path | None, made: IndexSettings | None, path: Path) -> Dewey:
    """The model given, or the one that made the index at `path`, checked against it.

    `made` is what the index was made with, None where it is still to be made.

    Raises:
        IndexMismatchError: it is not the one that made the index.
        CheckpointError: it cannot be loaded.

    """
    from dewey_embed.encoder import Dewey

    if isinstance(given, Dewey):
        model = given
    elif made is None:
        model = Dewey.load(given)
    else:
        model = Dewey.load(
            made.model if given is None else given,
            single_vector=made.single_vector,
            max_tokens=made.max_tokens,
            truncate_dim=made.truncate_dim,
        )
    if made is not None:
        made.require_model(model.name, model.fingerprint, path)
    return model
