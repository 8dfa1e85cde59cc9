"""Documents in chunks → a vector for each chunk, read alone, under its title, or in its document.

`CHUNK_CONTEXTS` has a row for each way of reading. Vectors are kept on disk, a file a document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.eval.vector_cache import DOCUMENT_CHARS
from dewey_embed.files import atomic_file
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.types import CharSpans, Floats

TITLE_WEIGHT = 0.8
"""Weight of the title's vector that is added to a chunk's (docs/log.md, 29 November 2026)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedDocument:
    """A text with its title and the characters of its chunks (C,), at least one."""

    title: str
    text: str
    spans: CharSpans

    @property
    def chunk_texts(self) -> list[str]:
        """The text of each chunk."""
        return [self.text[start:end] for start, end in self.spans]


Read = Callable[[Dewey, Sequence[ChunkedDocument], Advance], list[Floats]]
"""Makes the unit vectors (C, D) of each document's chunks; `Advance` receives tokens."""


class ChunkContext(NamedTuple):
    """A way to read chunks; the title's vector is added with `title_weight`.

    `is_text` says that a chunk is read as a text of its own, as any model can.
    """

    read: Read
    is_text: bool = False
    title_weight: float = 0.0


def _alone(model: Dewey, documents: Sequence[ChunkedDocument], advance: Advance) -> list[Floats]:
    return _as_texts(model, [each.chunk_texts for each in documents], advance)


def _titled(model: Dewey, documents: Sequence[ChunkedDocument], advance: Advance) -> list[Floats]:
    texts = [[f"{each.title} {text}".strip() for text in each.chunk_texts] for each in documents]
    return _as_texts(model, texts, advance)


def _as_texts(model: Dewey, texts: Sequence[Sequence[str]], advance: Advance) -> list[Floats]:
    """The vectors of the texts of each document, each text as one chunk of its own."""
    flat = [text for own in texts for text in own]
    encoded = model.encode_document(
        flat, spans=[[(0, len(text))] for text in flat], progress=advance
    )
    rows = np.concatenate([each.chunks for each in encoded])
    return np.split(rows, np.cumsum([len(own) for own in texts])[:-1])


def _in_context(
    model: Dewey, documents: Sequence[ChunkedDocument], advance: Advance
) -> list[Floats]:
    encoded = model.encode_document(
        [each.text for each in documents],
        spans=[each.spans for each in documents],
        progress=advance,
    )
    return [each.chunks for each in encoded]


CHUNK_CONTEXTS: Mapping[str, ChunkContext] = MappingProxyType(
    {
        "alone": ChunkContext(_alone, is_text=True),
        "titled": ChunkContext(_titled, is_text=True),
        "in-context": ChunkContext(_in_context),
        "in-context+title": ChunkContext(_in_context, title_weight=TITLE_WEIGHT),
    }
)
"""Ways to read a chunk: its text alone; title and text as one; its range in its document's one
pass; and that with the vector of its title."""


class ChunkVectorCache:
    """Vectors of the chunks of documents by one model, each document's in a file of its own."""

    def __init__(self, model: Dewey, folder: Path, *, show: bool = False) -> None:
        self.model = model
        self._folder = folder.expanduser() / model.fingerprint
        self._show = show

    def vectors(self, documents: Sequence[ChunkedDocument], context: str) -> list[Floats]:
        """The unit vectors (C, D) of each document's chunks, read as `CHUNK_CONTEXTS` says."""
        row = CHUNK_CONTEXTS[context]
        paths = [self._path(each, row.read.__name__) for each in documents]
        known = {path: vectors for path in paths if (vectors := _read(path)) is not None}
        missing = [
            (path, each) for path, each in zip(paths, documents, strict=True) if path not in known
        ]
        total = sum(len(each.text) for _, each in missing)
        with progress_bar(context, total, "characters", show=self._show) as advance:
            for group in _groups(missing):
                own = [each for _, each in group]
                read = row.read(self.model, own, lambda _: None)
                for (path, each), vectors in zip(group, read, strict=True):
                    _write(path, vectors)
                    known[path] = vectors
                    advance(len(each.text))
        chunks = [known[path] for path in paths]
        return with_titles(self.model, documents, chunks, row.title_weight)

    def _path(self, document: ChunkedDocument, name: str) -> Path:
        spans = [(int(start), int(end)) for start, end in document.spans]
        settings = json.dumps([name, str(self.model.dtype), document.title, spans])
        digest = hashlib.sha256(settings.encode())
        digest.update(document.text.encode("utf-8", "surrogatepass"))
        return self._folder / f"{digest.hexdigest()}.npy"


def with_titles(
    model: Dewey,
    documents: Sequence[ChunkedDocument],
    chunks: Sequence[Floats],
    weight: float,
) -> list[Floats]:
    """Unit vectors (C, D) of chunks with their title's added by a weight; without one as before.

    >>> model = Dewey.load()
    >>> document = ChunkedDocument(title="Lease", text="Rent is due.", spans=[(0, 12)])
    >>> vectors = model.encode_document(["Rent is due."])[0].chunks
    >>> [added] = with_titles(model, [document], [vectors], 1.0)
    >>> title = model.encode_document("Lease").vector
    >>> bool(np.isclose(added[0] @ title, added[0] @ vectors[0], atol=1e-5))
    True
    """
    titled = [place for place, each in enumerate(documents) if each.title] if weight else []
    if not titled:
        return list(chunks)
    names = dict.fromkeys(documents[place].title for place in titled)
    encoded = model.encode_document(list(names), overflow="truncate")
    titles = {name: each.vector for name, each in zip(names, encoded, strict=True)}
    added = list(chunks)
    for place in titled:
        rows = chunks[place] + np.float32(weight) * titles[documents[place].title]
        added[place] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return added


def _groups(
    items: Sequence[tuple[Path, ChunkedDocument]],
) -> Iterator[list[tuple[Path, ChunkedDocument]]]:
    """The items in order, in groups of limited size; a document above the limit goes alone."""
    group: list[tuple[Path, ChunkedDocument]] = []
    num_chars = 0
    for item in items:
        length = len(item[1].text)
        if group and num_chars + length > DOCUMENT_CHARS:
            yield group
            group, num_chars = [], 0
        group.append(item)
        num_chars += length
    if group:
        yield group


def _read(path: Path) -> Floats | None:
    """The vectors in a file; `None` where there is none, or a damaged one."""
    try:
        vectors: Floats = np.load(path)
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
    return vectors


def _write(path: Path, vectors: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft, draft.open("wb") as file:
        np.save(file, vectors)
