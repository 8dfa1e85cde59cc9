"""The vectors of a corpus at several chunk sizes from one pass, kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.files import atomic_file
from dewey_embed.progress import Advance
from dewey_embed.types import DocumentVectors, Span

CACHE = Path("~/.cache/dewey-embed/audits")
GROUP_CHARS = 65_536
"""Most characters that are encoded before their vectors are kept; a longer document goes alone."""

DEFAULT_OVERLAP = 0.25


class ChunkSize(NamedTuple):
    """A size of chunks in tokens, and the share of it that a chunk has in common with the next."""

    tokens: int
    overlap: float = DEFAULT_OVERLAP

    @property
    def overlap_tokens(self) -> int:
        """The overlap in tokens."""
        return int(self.tokens * self.overlap)


class DocumentVectorCache:
    """Vectors of texts by one model at several chunk sizes, in any order.

    `DocumentVectors.at(i)` has those of `sizes[i]`, which are sorted. There is a file for each
    text, named by a hash of the text and of all that changes its vectors. A killed run loses only
    the texts that were being encoded together.

    Raises:
        ConfigError: no size, one below 1 token, or an overlap that is not from 0 to below 1.

    """

    def __init__(self, model: Dewey, folder: Path, sizes: Sequence[ChunkSize]) -> None:
        for size in sizes:
            if size.tokens < 1 or not 0 <= size.overlap < 1:
                raise ConfigError(
                    f"chunks of {size.tokens} tokens that overlap by {size.overlap:g} of their "
                    "size; need at least 1 token and an overlap from 0 to below 1"
                )
        if not sizes:
            raise ConfigError("no size of chunks is given; give at least one")
        self.model = model
        self.sizes = tuple(sorted(set(sizes)))
        self.folder = folder.expanduser() / model.fingerprint

    def encode(
        self, texts: Sequence[str], advance: Advance = lambda _: None
    ) -> list[DocumentVectors]:
        """The vectors of the texts, in order, read where they are on disk.

        `advance` receives numbers of tokens, those of vectors on disk at once.

        Raises:
            InputError: the model makes vectors with NaN or infinity.

        """
        vectors: dict[str, DocumentVectors] = {}
        missing = []
        for text in dict.fromkeys(texts):
            if (known := _read(self.path(text))) is None:
                missing.append(text)
            else:
                vectors[text] = known
                advance(known.num_tokens)
        for group in _groups(missing):
            vectors |= zip(group, self._encode(group, advance), strict=True)
        return [vectors[text] for text in texts]

    def path(self, text: str) -> Path:
        """Where the vectors of a text are, or will be."""
        sizes = [(size.tokens, size.overlap_tokens) for size in self.sizes]
        settings = json.dumps([str(self.model.dtype), sizes])
        digest = hashlib.sha256(settings.encode() + text.encode("utf-8", "surrogatepass"))
        return self.folder / f"{digest.hexdigest()}.npz"

    def _encode(self, texts: Sequence[str], advance: Advance) -> list[DocumentVectors]:
        """The vectors of texts that are encoded together, each written to disk."""
        encoded = self.model.encode_document(
            texts,
            chunk_tokens=[size.tokens for size in self.sizes],
            chunk_overlap=[size.overlap_tokens for size in self.sizes],
            progress=advance,
        )
        for text, vectors in zip(texts, encoded, strict=True):
            _write(self.path(text), vectors)
        return encoded


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, in groups of limited length."""
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


def _read(path: Path) -> DocumentVectors | None:
    """The vectors in a file; `None` where there is none, or a damaged one."""
    try:
        with np.load(path) as arrays:
            num_tokens, used_tokens = (int(number) for number in arrays["tokens"])
            return DocumentVectors(
                vector=arrays["vector"],
                chunks=arrays["chunks"],
                spans=[Span(*(int(place) for place in row)) for row in arrays["spans"]],
                num_tokens=num_tokens,
                used_tokens=used_tokens,
                overflow="windows" if str(arrays["overflow"]) == "windows" else None,
                granularity=arrays["granularity"],
            )
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return None


def _write(path: Path, vectors: DocumentVectors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            vector=vectors.vector,
            chunks=vectors.chunks,
            spans=np.array(vectors.spans, np.int64).reshape(-1, 4),
            tokens=np.array([vectors.num_tokens, vectors.used_tokens]),
            overflow=np.array(vectors.overflow or ""),
            granularity=vectors.granularity,
        )
