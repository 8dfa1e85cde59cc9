"""Documents in chunks → a vector for each chunk, read alone, under its title, or in its document.

`CHUNK_CONTEXTS` has a row for each way of reading. Vectors are kept on disk, a file a document.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.eval.passages import ChunkedDocument
from dewey_embed.eval.vector_cache import DOCUMENT_CHARS, groups
from dewey_embed.files import DAMAGED_ARCHIVE, atomic_file
from dewey_embed.progress import Advance, Progress, progress_bar
from dewey_embed.scoring import with_title
from dewey_embed.types import CharSpans, Floats, Mask

TITLE_WEIGHT = 0.8
"""Weight of the title's vector that is added to a chunk's; chosen on development suites."""

Reads = Callable[[ChunkedDocument], "list[tuple[str, CharSpans]]"]
"""The texts that are read of a document, and the ranges of each that stand for its chunks."""


class ChunkContext(NamedTuple):
    """A way to read chunks, and the weight of the title's vector that is added to theirs.

    `is_text` says that each chunk is a text of its own, which any model can read; `under_title`
    that the title is read above the text.
    """

    reads: Reads
    is_text: bool = False
    under_title: bool = False
    title_weight: float = 0.0


def _alone(document: ChunkedDocument) -> list[tuple[str, CharSpans]]:
    return [_complete(text) for text in document.chunk_texts]


def _titled(document: ChunkedDocument) -> list[tuple[str, CharSpans]]:
    pairs = zip(document.chunk_titles, document.chunk_texts, strict=True)
    return [_complete(f"{title} {text}".strip()) for title, text in pairs]


def _complete(text: str) -> tuple[str, CharSpans]:
    return text, [(0, len(text))]


def _in_context(document: ChunkedDocument) -> list[tuple[str, CharSpans]]:
    return [(document.text, document.spans)]


CHUNK_CONTEXTS: Mapping[str, ChunkContext] = MappingProxyType(
    {
        "alone": ChunkContext(_alone, is_text=True),
        "titled": ChunkContext(_titled, is_text=True),
        "in-context": ChunkContext(_in_context),
        "under-title": ChunkContext(_in_context, under_title=True),
        "in-context+title": ChunkContext(_in_context, title_weight=TITLE_WEIGHT),
    }
)
"""Ways to read a chunk: its text alone; its document's title and it as one text, as BEIR joins
them; its range in the one pass over its document's text, which holds the title only where the text
does; that pass under the title (`encode_document(titles=…)`); and the pass without, with the vector
of the title added to a chunk's."""


class ChunkVectorCache:
    """Vectors of the chunks of documents by one model; each document's are in a file of their own.

    `window` is the most tokens of a document read at once; the default is the model's maximum.
    """

    def __init__(
        self, model: Dewey, folder: Path, *, window: int | None = None, show: bool = False
    ) -> None:
        self.model = model
        self._folder = folder.expanduser() / model.fingerprint
        self._window, self._show = window, show

    def vectors(self, documents: Sequence[ChunkedDocument], context: str) -> list[Floats]:
        """The unit vectors (C, D) of each document's chunks, by a row of `CHUNK_CONTEXTS`.

        A chunk without a token has zeros, and a warning counts those.

        Raises:
            InputError: the model makes vectors with NaN or infinity.

        """
        way = CHUNK_CONTEXTS[context]
        vectors: dict[Path, Floats] = {}
        missing: list[tuple[Path, ChunkedDocument]] = []
        paths = [self._path(each, way) for each in documents]
        for path, each in zip(paths, documents, strict=True):
            if (known := _read(path)) is None:
                missing.append((path, each))
            else:
                vectors[path] = known
        remaining = iter(missing)
        with self._bar(context, [each for _, each in missing]) as advance:
            for texts in groups((each.text for _, each in missing), DOCUMENT_CHARS):
                group = list(islice(remaining, len(texts)))
                read = self._encode([each for _, each in group], way, advance)
                for (path, _), own in zip(group, read, strict=True):
                    _write(path, own)
                    vectors[path] = own
        chunks = [vectors[path] for path in paths]
        if empty := sum(int((~each.any(axis=1)).sum()) for each in chunks):
            warnings.warn(f"{empty:,} chunks hold no token: nothing finds them", stacklevel=2)
        return with_titles(self.model, documents, chunks, way.title_weight)

    def _encode(
        self, documents: Sequence[ChunkedDocument], way: ChunkContext, advance: Advance
    ) -> list[Floats]:
        """The vectors (C, D) of the chunks of documents that are read together."""
        masks = [self._has_token(each) for each in documents]
        kept = [each.only(mask) for each, mask in zip(documents, masks, strict=True) if mask.any()]
        read = [(each, pair) for each in kept for pair in way.reads(each)]
        encoded = self.model.encode_document(
            [text for _, (text, _) in read],
            spans=[spans for _, (_, spans) in read],
            titles=[each.title if way.under_title else "" for each, _ in read],
            window=self._window_of(way),
            progress=advance,
        )
        rows = iter([row for each in encoded for row in each.chunks])
        chunks = [np.zeros((len(mask), self.model.embedding_dim), np.float32) for mask in masks]
        for own, mask in zip(chunks, masks, strict=True):
            for place in np.flatnonzero(mask):
                own[place] = next(rows)
        return chunks

    def _bar(
        self, context: str, documents: Sequence[ChunkedDocument]
    ) -> AbstractContextManager[Progress]:
        """A bar that counts the tokens that will be read."""
        texts = [text for each in documents for text, _ in CHUNK_CONTEXTS[context].reads(each)]
        total = sum(map(len, self.model.tokenizer.encode(texts))) if self._show else 0
        return progress_bar(context, total, "tokens", show=self._show and bool(documents))

    def _has_token(self, document: ChunkedDocument) -> Mask:
        """Which chunks (C,) hold a token."""
        tokens = self.model.tokenizer.encode(document.chunk_texts)
        return np.array([len(each) > 0 for each in tokens])

    def _window_of(self, way: ChunkContext) -> int | None:
        """The most tokens read at once; a chunk that is a text of its own is read at once."""
        return None if way.is_text else self._window

    def _path(self, document: ChunkedDocument, way: ChunkContext) -> Path:
        """Where the vectors of a document are, or will be, by all that is read of it."""
        read = [
            (text, [(int(start), int(end)) for start, end in spans])
            for text, spans in way.reads(document)
        ]
        above = [document.title] if way.under_title and document.title else []
        key = json.dumps([str(self.model.dtype), self._window_of(way), read, *above])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"


def with_titles(
    model: Dewey, documents: Sequence[ChunkedDocument], chunks: Sequence[Floats], weight: float
) -> list[Floats]:
    """Unit vectors (C, D) of chunks, with their title's added by a weight.

    Those of a document without a title, and chunks without a vector, stay as they are.

    >>> model = Dewey.load()
    >>> document = ChunkedDocument(title="Lease", text="Rent is due.", spans=[(0, 12)])
    >>> vectors = model.encode_document("Rent is due.").chunks
    >>> [added] = with_titles(model, [document], [vectors], 1.0)
    >>> title = model.encode_document("Lease").vector
    >>> bool(np.isclose(added[0] @ title, added[0] @ vectors[0], atol=1e-5))
    True
    """
    distinct = list(dict.fromkeys(each.title for each in documents if weight))
    tokens = model.tokenizer.encode(distinct)
    names = [name for name, own in zip(distinct, tokens, strict=True) if len(own)]
    encoded = model.encode_document(names) if names else []
    titles = {name: each.vector for name, each in zip(names, encoded, strict=True)}
    added = list(chunks)
    for place, (document, own) in enumerate(zip(documents, chunks, strict=True)):
        if document.title in titles:
            added[place] = with_title(own, titles[document.title], weight)
    return added


def _read(path: Path) -> Floats | None:
    """The vectors in a file; `None` where there is none, or a damaged one."""
    try:
        with np.load(path) as arrays:
            vectors: Floats = arrays["vectors"]
    except DAMAGED_ARCHIVE:
        return None
    return vectors


def _write(path: Path, vectors: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft, draft.open("wb") as file:
        np.savez(file, vectors=vectors)  # whose checksum is compared when it is read
