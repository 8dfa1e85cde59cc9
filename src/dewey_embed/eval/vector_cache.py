"""Vectors by text, on disk: no run embeds a text that an earlier one has embedded."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dewey_embed.errors import ResultsError
from dewey_embed.progress import progress_bar
from dewey_embed.types import Floats

GROUP_TEXTS, GROUP_CHARS = 512, 4_000_000
"""Most texts and characters that are embedded before they are kept: what a kill can cost."""


class VectorCache:
    """One model's vectors (D,) float32 in a file, or in memory where there is no path.

    `embed_texts` gives the vectors (N, D) of texts. The file must be of one model only; several
    processes may share it. `name` is the model's in errors.

    Raises:
        ResultsError: the file is something else, or damaged.

    """

    def __init__(
        self,
        path: Path | None,
        embed_texts: Callable[[Sequence[str]], Floats],
        *,
        name: str = "the model",
    ) -> None:
        self._embed_texts, self._path, self._name = embed_texts, path, name
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._file_errors():
            self._file = sqlite3.connect(path or ":memory:", timeout=60, isolation_level=None)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB)"
            )

    def embed(self, texts: Sequence[str], *, label: str) -> Floats:
        """(N, D), in the order of the texts; equal texts are embedded once.

        `label` stands before the progress bar.

        Raises:
            ResultsError: the model makes NaN or infinity of a text, or the file is damaged.

        """
        keys = [_key(text) for text in texts]
        with self._file_errors():
            missing = {
                key: text for key, text in zip(keys, texts, strict=True) if self._read(key) is None
            }
            with progress_bar(label, len(missing), "texts", show=bool(missing)) as advance:
                for group in _groups(missing):
                    self._add({key: missing[key] for key in group})
                    advance(len(group))
            vectors = [np.frombuffer(self._read(key) or b"", np.float32) for key in keys]
        if any(each.shape != vectors[0].shape or not np.isfinite(each).all() for each in vectors):
            raise ResultsError(
                f"{self._path}: holds vectors of several widths, or with NaN; delete it, and they "
                "are made again"
            )
        return np.stack(vectors)

    def _add(self, texts: dict[bytes, str]) -> None:
        """Embed texts by key, and keep their vectors in one transaction."""
        given = list(texts.values())
        vectors = finite_rows(self._embed_texts(given), given, self._name).astype(np.float32)
        rows = [(key, vector.tobytes()) for key, vector in zip(texts, vectors, strict=True)]
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        self._file.execute("COMMIT")

    def _read(self, key: bytes) -> bytes | None:
        row = self._file.execute("SELECT vector FROM vectors WHERE text = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    @contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Name the file in its errors."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise ResultsError(
                f"{self._path}: is not a cache of vectors, or damaged ({error}); delete it, or "
                "name another folder"
            ) from None


def finite_rows(vectors: Any, texts: Sequence[str], model: str) -> Any:
    """The vectors (N, D) of N texts, unchanged.

    Raises:
        ResultsError: one holds NaN or infinity, or there is not one for each text; names the model
            and the text.

    """
    rows = np.asarray(vectors.float().cpu() if hasattr(vectors, "cpu") else vectors)
    if rows.ndim != 2 or len(rows) != len(texts):
        raise ResultsError(
            f"{model} made vectors of shape {rows.shape} of {len(texts):,} texts; expected one row "
            "for each text"
        )
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        first = int(finite.argmin())
        raise ResultsError(
            f"{model} made {int((~finite).sum()):,} of {len(rows):,} vectors with NaN or infinity, "
            f"first of the text that begins {texts[first][:40]!r}; no score is taken from them. "
            "Try another device or precision, or look at the model's weights"
        )
    return vectors


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _groups(texts: dict[bytes, str]) -> Iterator[list[bytes]]:
    """The keys in order, in groups of bounded texts and characters."""
    group: list[bytes] = []
    num_chars = 0
    for key, text in texts.items():
        if group and (len(group) == GROUP_TEXTS or num_chars + len(text) > GROUP_CHARS):
            yield group
            group, num_chars = [], 0
        group.append(key)
        num_chars += len(text)
    if group:
        yield group
