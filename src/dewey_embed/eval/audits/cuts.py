"""A corpus cut in several ways → the vectors of all of them from one pass, kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.eval.audits.vectors import read_vectors, write_vectors
from dewey_embed.progress import progress_bar
from dewey_embed.types import DocumentVectors

GROUP_CHARS = 65_536
"""Most characters that are encoded before their vectors are kept; a longer document goes alone."""


class Cut(NamedTuple):
    """A size of chunks in tokens, and the share of it that a chunk has in common with the next."""

    chunk_tokens: int
    overlap: float

    @property
    def overlap_tokens(self) -> int:
        """The overlap in tokens."""
        return int(self.chunk_tokens * self.overlap)


class CutCache:
    """Vectors of texts by one model in several cuts, whichever order they are given in.

    `DocumentVectors.at(i)` has those of `cuts[i]`, which are sorted.
    A file for each text, named by a hash of the text and of all that changes its vectors. A killed
    run loses the texts that were encoded together when it was killed.

    Raises:
        ConfigError: no cuts, a size below one, or an overlap that is not from 0 to below 1.

    """

    def __init__(self, model: Dewey, folder: Path, cuts: Sequence[Cut]) -> None:
        for cut in cuts:
            if cut.chunk_tokens < 1 or not 0 <= cut.overlap < 1:
                raise ConfigError(
                    f"chunks of {cut.chunk_tokens} tokens that overlap by {cut.overlap:g} of their "
                    "size; need at least 1 token and an overlap from 0 to below 1"
                )
        if not cuts:
            raise ConfigError("no size of chunks is given; give at least one")
        self.model = model
        self.cuts = tuple(sorted(set(cuts)))
        self.folder = folder.expanduser() / model.fingerprint

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> list[DocumentVectors]:
        """The vectors of the texts, in order, read where they are on disk.

        Raises:
            InputError: the model makes vectors with NaN or infinity.

        """
        known = {text: read_vectors(self.path(text)) for text in dict.fromkeys(texts)}
        missing = [text for text, found in known.items() if found is None]
        with progress_bar("encoding", len(missing), "documents", show=progress) as advance:
            for group in _groups(missing):
                known |= zip(group, self._encode(group), strict=True)
                advance(len(group))
        return [found for text in texts if (found := known[text]) is not None]

    def path(self, text: str) -> Path:
        """Where the vectors of a text are, or will be."""
        cuts = [(cut.chunk_tokens, cut.overlap_tokens) for cut in self.cuts]
        settings = json.dumps([str(self.model.dtype), cuts])
        digest = hashlib.sha256(settings.encode() + text.encode("utf-8", "surrogatepass"))
        return self.folder / f"{digest.hexdigest()}.npz"

    def _encode(self, texts: Sequence[str]) -> list[DocumentVectors]:
        """The vectors of texts that are encoded together; each is then on disk."""
        found = self.model.encode_document(
            texts,
            chunk_tokens=[cut.chunk_tokens for cut in self.cuts],
            chunk_overlap=[cut.overlap_tokens for cut in self.cuts],
        )
        for text, made in zip(texts, found, strict=True):
            write_vectors(self.path(text), made)
        return found


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, at most so many characters at a time."""
    group: list[str] = []
    num_chars = 0
    for text in texts:
        if group and num_chars + len(text) > GROUP_CHARS:
            yield group
            group, num_chars = [], 0
        group.append(text)
        num_chars += len(text)
    if group:
        yield group
