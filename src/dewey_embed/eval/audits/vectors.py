"""Vectors of documents kept on disk, a file for each, so that a long audit goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.progress import Advance
from dewey_embed.types import DocumentVectors, Span


class VectorCache:
    """The vectors of texts by one model, read from disk where they are, else encoded and kept.

    A file's name is a hash of the text, the model's fingerprint and all that changes its vectors.
    Each is written when its text is done, whole or not at all: a killed run loses one text.
    """

    def __init__(self, model: Dewey, folder: Path, *, chunk_tokens: int) -> None:
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.folder = folder / model.fingerprint

    def encode(self, text: str, advance: Advance) -> DocumentVectors:
        """The vectors of a text and of its chunks, which overlap by a quarter.

        `advance` is told of tokens encoded, at once of them all where they were on disk.

        Raises:
            InputError: the model made vectors with NaN or infinity.

        """
        path = self.path(text)
        known = read_vectors(path)
        if known is not None:
            advance(known.num_tokens)
            return known
        made = self.model.encode_document(text, chunk_tokens=self.chunk_tokens, progress=advance)
        write_vectors(path, made)
        return made

    def path(self, text: str) -> Path:
        """Where the vectors of a text are, or will be."""
        settings = json.dumps([str(self.model.dtype), self.chunk_tokens])
        digest = hashlib.sha256(settings.encode() + text.encode("utf-8", "surrogatepass"))
        return self.folder / f"{digest.hexdigest()}.npz"


def read_vectors(path: Path) -> DocumentVectors | None:
    """The vectors in a file; `None` where there is none, or a damaged one."""
    try:
        with np.load(path) as arrays:
            num_tokens, used_tokens = (int(number) for number in arrays["tokens"])
            overflow = str(arrays["overflow"])
            return DocumentVectors(
                vector=arrays["vector"],
                chunks=arrays["chunks"],
                spans=[Span(*(int(place) for place in row)) for row in arrays["spans"]],
                num_tokens=num_tokens,
                used_tokens=used_tokens,
                overflow="windows" if overflow == "windows" else None,
                granularity=arrays["granularity"],
            )
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return None


def write_vectors(path: Path, made: DocumentVectors) -> None:
    """Nothing; the file is then there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        np.savez(
            file,
            vector=made.vector,
            chunks=made.chunks,
            spans=np.array(made.spans, np.int64).reshape(-1, 4),
            tokens=np.array([made.num_tokens, made.used_tokens]),
            overflow=np.array(made.overflow or ""),
            granularity=made.granularity,
        )
    os.replace(draft, path)
