"""Data of a context audit → `Collection`: documents in chunks, and queries where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import is_beir_folder, is_file, read_texts
from dewey_embed.eval.passages import (
    ChunkedDocument,
    by_document,
    is_passage_folder,
    num_without_chunks,
    read_passages,
    read_places,
    sampled,
)
from dewey_embed.index.tables import file_name, title_text
from dewey_embed.text.reader import read_documents
from dewey_embed.text.splitter import split
from dewey_embed.titles import title_line
from dewey_embed.types import CharSpans, Document, Rows, Unreadable

READ_AHEAD = 20
"""Of a folder of files, this many times the documents wanted are read, and drawn from."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Documents in chunks; the ids of all chunks (C,), one document's after another's.

    `queries` and `qrels` are about the chunks, and empty where nobody asked. `notes` say what is
    left out, and what titles are like.
    """

    name: str
    documents: Sequence[ChunkedDocument]
    chunks: Sequence[str]
    queries: Mapping[str, str] = field(default_factory=dict)
    qrels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def owners(self) -> Rows:
        """The number (C,) of the document of each chunk."""
        return np.repeat(np.arange(len(self.documents)), [len(e.spans) for e in self.documents])

    @property
    def share_named(self) -> float | None:
        """The share of relevant chunks that name their document's title; `None` without queries."""
        texts = [text for each in self.documents for text in each.chunk_texts]
        titles = [self.documents[owner].title for owner in self.owners]
        rows = {chunk: row for row, chunk in enumerate(self.chunks)}
        relevant = {rows[chunk] for gains in self.qrels.values() for chunk in gains}
        named = [names(texts[row], titles[row]) for row in relevant if titles[row]]
        return sum(named) / len(named) if named else None


def names(text: str, title: str) -> bool:
    """Whether a text holds a title, in any case.

    >>> names("The climate of ALBANIA is mild.", "Albania"), names("It is mild.", "Albania")
    (True, False)
    """
    return title.casefold() in text.casefold()


def collections(
    path: Path, model: Dewey, *, num_documents: int, chunk_tokens: int, seed: int
) -> Iterator[Collection]:
    """The documents of a folder with annotated chunks, of each folder in one, or of any files.

    Documents whose chunks nobody annotated are cut into chunks of whole sentences, up to
    `chunk_tokens`.

    Raises:
        TaskError: there is no document with text, or a folder's files contradict each other.
        ReadError: there is no such file.

    """
    path = path.expanduser()
    inner = sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
    if is_passage_folder(path):
        yield _annotated(path, num_documents, seed)
    elif annotated := [each for each in inner if is_passage_folder(each)]:
        for each in annotated:
            yield _annotated(each, num_documents, seed)
    else:
        documents, notes = _read(path, num_documents)
        kept = _cut(documents, model, chunk_tokens)
        yield _collection(
            path.resolve().name, documents, kept,
            num_documents=num_documents, seed=seed, notes=notes,
        )  # fmt: skip


def _annotated(folder: Path, num_documents: int, seed: int) -> Collection:
    """The documents of a folder with annotated chunks, with its queries if it has some."""
    if is_file(folder / "queries.jsonl"):
        data = read_passages(folder).sample(num_documents, seed)
        documents, places = data.documents, data.places
        queries, qrels, left_out = data.chunks.queries, data.chunks.qrels, data.chunks.left_out
    else:
        documents, places, _ = read_places(folder)
        kept = sampled(documents, num_documents, seed)
        documents = {name: each for name, each in documents.items() if name in kept}
        places = {name: each for name, each in places.items() if each.document in kept}
        queries, qrels, left_out = {}, {}, ()
    if missing := num_without_chunks(documents, places):
        left_out = (*left_out, f"{missing:,} of {len(documents):,} documents have no chunk")
    grouped = by_document(documents, places)
    if not grouped:
        raise TaskError(
            f"{folder.resolve().name}: none of {len(documents):,} documents has a chunk; give "
            "a larger number or another seed"
        )
    chunked = [document for _, document in grouped.values()]
    return Collection(
        name=folder.resolve().name,
        documents=chunked,
        chunks=[chunk for own, _ in grouped.values() for chunk in own],
        queries=queries,
        qrels=qrels,
        notes=[*left_out, *title_notes(chunked)],
    )


def _read(path: Path, num_documents: int) -> tuple[list[Document], list[str]]:
    """The first documents of files, with text, and what is none of them."""
    if is_beir_folder(path):
        texts = read_texts(path / "corpus.jsonl", titles=True)
        documents = [
            Document(id=name, title=each.title or title_line(each.text), text=each.text)
            for name, each in texts.items()
        ]
        return documents, []
    items = list(islice(read_documents([path]), READ_AHEAD * num_documents))
    faults = [each for each in items if isinstance(each, Unreadable) and not each.skipped]
    notes = [f"{len(faults):,} files could not be read, the first: {faults[0]}"] if faults else []
    return [each for each in items if isinstance(each, Document)], notes


def _cut(
    documents: Sequence[Document], model: Dewey, chunk_tokens: int
) -> dict[str, list[tuple[int, int]]]:
    """The characters of the chunks of each document, by id: whole sentences."""
    tokens = model.tokenizer.encode([each.text for each in documents])
    return {
        each.id: [
            (span.char_start, span.char_end)
            for span in split(
                each.text, own, splitter="sentences", chunk_tokens=chunk_tokens,
                landmarks=each.landmarks,
            )
        ]
        for each, own in zip(documents, tokens, strict=True)
    }  # fmt: skip


def _collection(
    name: str,
    documents: Sequence[Document],
    spans: Mapping[str, CharSpans],
    *,
    num_documents: int,
    seed: int,
    notes: Sequence[str],
) -> Collection:
    """A sample of documents that have chunks; those without any are counted."""
    kept = sampled((key for key, own in spans.items() if own), num_documents, seed)
    if not kept:
        raise TaskError(f"{name}: holds no document with text, so there is nothing to measure")
    chosen = [each for each in documents if each.id in kept]
    chunked = [
        ChunkedDocument(title=title_text(each), text=each.text, spans=spans[each.id])
        for each in chosen
    ]
    counts = {
        "documents left out for having no text": sum(not own for own in spans.values()),
        "documents have the name of their file as a title": sum(
            bool(file_name(each)) and each.title.strip() in ("", file_name(each)) for each in chosen
        ),
    }
    return Collection(
        name=name,
        documents=chunked,
        chunks=[f"{each.id}:{n}" for each in chosen for n in range(len(spans[each.id]))],
        notes=[
            *notes,
            *(f"{number:,} {what}" for what, number in counts.items() if number),
            *title_notes(chunked),
        ],
    )


def title_notes(documents: Sequence[ChunkedDocument]) -> Iterator[str]:
    """What titles are like, where they cannot do what they are for."""
    titled = [each for each in documents if each.title]
    counts = {
        "have no title": len(documents) - len(titled),
        "have a title longer than a chunk of theirs": sum(
            len(each.title) > min(end - start for start, end in each.spans) for each in titled
        ),
        "name their title in every chunk": sum(
            all(names(text, each.title) for text in each.chunk_texts) for each in titled
        ),
        "are one chunk, which has no context": sum(len(each.spans) == 1 for each in documents),
    }
    for what, number in counts.items():
        if number:
            yield f"{number:,} of {len(documents):,} documents {what}"
