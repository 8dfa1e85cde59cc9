"""Vectors on disk: no run encodes a text that an earlier one has encoded.

`VectorCache` keeps one vector a text, in one file; `DocumentVectorCache` keeps a Dewey model's
vectors of a document and of its chunks at several sizes, in a file for each document.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, ResultsError
from dewey_embed.files import DAMAGED_ARCHIVE, atomic_file, sweep_drafts
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.types import DocumentVectors, Floats, Span

GROUP_TEXTS, GROUP_CHARS = 512, 4_000_000
"""Most texts and characters that are embedded before they are kept: what a kill can cost."""

DOCUMENT_CHARS = 65_536
"""Most characters of documents that are encoded before their vectors are kept; a longer document
goes alone."""

DEFAULT_OVERLAP = 0.25


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
                "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB, crc INT)"
            )
            columns = [row[1] for row in self._file.execute("PRAGMA table_info(vectors)")]
            if "crc" not in columns:  # a file of an earlier version
                self._file.execute("ALTER TABLE vectors ADD COLUMN crc INT")

    def embed(self, texts: Sequence[str], *, label: str) -> Floats:
        """(N, D), in the order of the texts; equal texts are embedded once.

        `label` stands before the progress bar.

        Raises:
            ResultsError: the model makes NaN or infinity of a text, or the file is damaged.

        """
        with self._file_errors():
            missing = [text for text in dict.fromkeys(texts) if self._read(text) is None]
            with progress_bar(label, len(missing), "texts", show=bool(missing)) as advance:
                for group in groups(missing, GROUP_CHARS, GROUP_TEXTS):
                    self._add(group)
                    advance(len(group))
            vectors = [np.frombuffer(self._read(text) or b"", np.float32) for text in texts]
        if any(each.shape != vectors[0].shape or not np.isfinite(each).all() for each in vectors):
            raise ResultsError(
                f"{self._path}: holds vectors of several widths, or with NaN; delete it, and they "
                "are made again"
            )
        return np.stack(vectors)

    def _add(self, texts: Sequence[str]) -> None:
        """Embed texts, and keep their vectors in one transaction."""
        vectors = finite_rows(self._embed_texts(texts), texts, self._name).astype(np.float32)
        pairs = zip(map(_key, texts), (vector.tobytes() for vector in vectors), strict=True)
        rows = [(key, data, zlib.crc32(key + data)) for key, data in pairs]
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
        self._file.execute("COMMIT")

    def _read(self, text: str) -> bytes | None:
        """The vector of a text; None where there is none, or a damaged one."""
        select = "SELECT vector, crc FROM vectors WHERE text = ?"
        row = self._file.execute(select, (key := _key(text),)).fetchone()
        if row is None or (row[1] is not None and row[1] != zlib.crc32(key + bytes(row[0]))):
            return None
        return bytes(row[0])

    @contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Name the file in its errors."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ResultsError(
                f"{self._path}: the cache of vectors cannot be used ({error}); look at the disk's "
                "room and at your rights, or name another folder"
            ) from None
        except sqlite3.DatabaseError as error:
            raise ResultsError(
                f"{self._path}: is not a cache of vectors, or damaged ({error}); delete it, or "
                "name another folder"
            ) from None


class ChunkSize(NamedTuple):
    """A size of chunks in tokens, and the share of it that a chunk has in common with the next."""

    tokens: int
    overlap: float = DEFAULT_OVERLAP

    @property
    def overlap_tokens(self) -> int:
        """The overlap in tokens."""
        return int(self.tokens * self.overlap)


class DocumentVectorCache:
    """Vectors of documents by one model at several chunk sizes, in any order.

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
        sweep_drafts(self.folder)

    def encode(
        self,
        texts: Sequence[str],
        advance: Advance = lambda _: None,
        *,
        window: int | None = None,
    ) -> list[DocumentVectors]:
        """The vectors of the texts, in order, read where they are on disk.

        `advance` receives numbers of tokens, those of vectors on disk at once; `window` is that of
        `Dewey.encode_document`.

        Raises:
            InputError: the model makes vectors with NaN or infinity.

        """
        vectors: dict[str, DocumentVectors] = {}
        missing = []
        for text in dict.fromkeys(texts):
            if (known := _read_document(self.path(text, window))) is None:
                missing.append(text)
            else:
                vectors[text] = known
                advance(known.num_tokens)
        for group in groups(missing, DOCUMENT_CHARS):
            encoded = self.model.encode_document(
                group,
                chunk_tokens=[size.tokens for size in self.sizes],
                chunk_overlap=[size.overlap_tokens for size in self.sizes],
                window=window,
                progress=advance,
            )
            for text, each in zip(group, encoded, strict=True):
                _write_document(self.path(text, window), each)
                vectors[text] = each
        return [vectors[text] for text in texts]

    def encode_with_progress(self, texts: Sequence[str], *, show: bool) -> list[DocumentVectors]:
        """The vectors of the texts, with a bar that counts their tokens if `show`."""
        total = sum(map(len, self.model.tokenizer.encode(texts))) if show else 0
        with progress_bar("encoding", total, "tokens", show=show) as advance:
            return self.encode(texts, advance)

    def path(self, text: str, window: int | None = None) -> Path:
        """Where the vectors of a text are, or will be."""
        sizes = [(size.tokens, size.overlap_tokens) for size in self.sizes]
        own = [] if window is None else [window]
        settings = json.dumps([str(self.model.dtype), sizes, *own])
        digest = hashlib.sha256(settings.encode() + text.encode("utf-8", "surrogatepass"))
        return self.folder / f"{digest.hexdigest()}.npz"


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


def groups(
    texts: Iterable[str], max_chars: int, max_texts: float = float("inf")
) -> Iterator[list[str]]:
    """The texts in order, in groups of limited size; a text longer than the limit goes alone."""
    group: list[str] = []
    num_chars = 0
    for text in texts:
        if group and (len(group) == max_texts or num_chars + len(text) > max_chars):
            yield group
            group, num_chars = [], 0
        group.append(text)
        num_chars += len(text)
    if group:
        yield group


def _read_document(path: Path) -> DocumentVectors | None:
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
    except DAMAGED_ARCHIVE:
        return None


def _write_document(path: Path, vectors: DocumentVectors) -> None:
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
