"""An index as the output of a cluster: its two tables, written by all workers, searched at once.

Chunks become visible before the documents that own them, as in any index, so that a run killed in
between leaves what reads as it was before; the next run sweeps the chunks that nobody owns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.cluster.lance_table import LanceTable
from dewey_embed.cluster.outputs import EncodedGroup, Held, Making, Output, digest_of
from dewey_embed.config import EncodeOptions
from dewey_embed.errors import ConfigError
from dewey_embed.files import write_text
from dewey_embed.index.settings import FILE_NAME, INDEX_OPTIONS, IndexSettings, changed_options
from dewey_embed.index.store import LOCK_NAMES, Store
from dewey_embed.index.sync import IndexEncoder, new_settings
from dewey_embed.index.tables import (
    Place,
    Record,
    chunks_schema,
    chunks_table,
    content_hash,
    documents_schema,
    documents_table,
    storable,
)
from dewey_embed.storage import folder_named, is_address, looking, open_place
from dewey_embed.types import Unreadable

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey
    from dewey_embed.index.sync import Begin
    from dewey_embed.types import Document

DIGITS = 32
"""Of the 64 hexadecimal digits of a document's hash, those that tell versions apart here."""


class IndexOutput(Output):
    """An index in a folder, or at an address."""

    def __init__(self, name: str, settings: IndexSettings) -> None:
        self.name = name
        self.settings = settings

    @property
    def _documents(self) -> LanceTable:
        return LanceTable(f"{self.name}/documents.lance")

    @property
    def _chunks(self) -> LanceTable:
        return LanceTable(f"{self.name}/chunks.lance")

    def alone(self) -> AbstractContextManager[None]:
        """Keep out `dewey index` and its like, which would take for left what is not complete yet.

        They do not write to object storage.
        """
        return nullcontext() if is_address(self.name) else self._store.alone()

    @property
    def _store(self) -> Store:
        return Store(Path(self.name), self.settings)

    def begin(self) -> Held:
        """What is there, swept of chunks that no document owns.

        Raises:
            ConfigError: something else is there.
            IndexMismatchError: it was made by another model, or with other options.
            StorageError: it cannot be looked at.

        """
        place, folder = open_place(self.name), folder_named(self.name)
        made = IndexSettings.read(folder)
        if made is None:
            if any(each.base_name not in LOCK_NAMES for each in place.files()):
                raise ConfigError(
                    f"{self.name}: holds other files and no {FILE_NAME}: it is no Dewey index; "
                    "give another path"
                )
            self._write_settings()
        else:
            made.require_model(self.settings.model, self.settings.fingerprint, folder)
            made.require_options(self.settings.options, self.settings.window, folder)
        width = self.settings.embedding_dim
        for table, schema in ((self._chunks, chunks_schema), (self._documents, documents_schema)):
            if not table.exists():
                table.create(schema(width))
        repeated = self._sweep()
        held = Held.of(self._pairs())
        self.remove_repeats(sorted(repeated.union(held.repeated([]))))
        return held

    def _write_settings(self) -> None:
        text = self.settings.to_json()
        if is_address(self.name):
            open_place(self.name).below(FILE_NAME).write(text.encode())
            return
        with looking(self.name):
            Path(self.name).mkdir(parents=True, exist_ok=True)
            write_text(Path(self.name, FILE_NAME), text, sync=True)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        with looking(self.name):
            for batch in self._documents.dataset().scanner(columns=["id", "hash"]).to_batches():
                for name, digest in zip(*(each.to_pylist() for each in batch.columns), strict=True):
                    yield name, digest[:DIGITS]

    def _sweep(self) -> set[str]:
        """Delete the chunks of documents that are not there; of which documents they are twice."""
        import pyarrow.compute as pc

        owned, found = set[str](), set[str]()
        firsts, repeated = set[str](), set[str]()
        with looking(self.name):
            for batch in self._documents.dataset().scanner(columns=["hash"]).to_batches():
                owned.update(batch["hash"].to_pylist())
            scan = self._chunks.dataset().scanner(columns=["document_hash", "ordinal"])
            for batch in scan.to_batches():
                found.update(batch["document_hash"].unique().to_pylist())
                first = batch.filter(pc.equal(batch["ordinal"], 0))["document_hash"]
                for digest in first.to_pylist():
                    (repeated if digest in firsts else firsts).add(digest)
        self._chunks.delete("document_hash", sorted(found - owned))
        return {digest[:DIGITS] for digest in repeated & owned}

    def prepared(self, document: Document) -> Document:
        """The document as an index holds it."""
        return storable(document)

    def digest(self, document: Document) -> str:
        """The first digits of the hash that the index holds."""
        return self._hash(document)[:DIGITS]

    def _hash(self, document: Document) -> str:
        return content_hash(document, reads_titles=self.settings.reads_titles)

    def encode(self, model: Dewey, documents: Sequence[Document], begin: Begin) -> EncodedGroup:
        """Encode a group as `dewey index` does, and write its rows of both tables."""
        encoder = IndexEncoder(lambda: model, self.settings.options, self.settings)
        encoded = encoder.encode(documents, lambda _: {}, begin)
        records = [
            Record(
                document=document,
                hash=self._hash(document),
                vectors=each.vectors,
                passages=each.passages,
                title_vector=each.title,
                places=(Place(document.root, document.source),),
            )
            for document, each in zip(documents, encoded, strict=True)
            if not isinstance(each, str)
        ]
        vectors = [each if isinstance(each, str) else each.vectors for each in encoded]
        if not records:
            return EncodedGroup([], vectors)
        width = self.settings.embedding_dim
        chunks = chunks_table(records, chunks_schema(width))
        written = {
            "chunks": self._chunks.write(chunks) if chunks.num_rows else [],
            "documents": self._documents.write(documents_table(records, documents_schema(width))),
        }
        return EncodedGroup([json.dumps(written)], vectors)

    def commit(self, written: Sequence[str]) -> None:
        """Append the groups' chunks, then their documents, which are what counts."""
        groups: list[Mapping[str, list[str]]] = list(map(json.loads, written))
        for name, table in (("chunks", self._chunks), ("documents", self._documents)):
            fragments = [each for group in groups for each in group[name]]
            if fragments:
                table.append(fragments)

    def remove(self, contents: Sequence[str]) -> None:
        """Delete documents, then their chunks."""
        self._documents.delete("hash", contents)
        self._chunks.delete("document_hash", contents)

    def remove_repeats(self, contents: Sequence[str]) -> None:
        """Delete the rows of documents that were written again."""
        for content in contents:
            self._chunks.delete_repeats("document_hash", content, "ordinal = 0")
            self._documents.delete_repeats("hash", content, "TRUE")

    def remove_twins(self) -> dict[bytes, Unreadable]:
        """Documents whose id another one has, too: the one of the smallest hash is kept.

        Which is read first depends on the workers, and must not decide.
        """
        found = sorted(set(self._twins()))
        twins = [each for before, each in pairwise(found) if before[0] == each[0]]
        self.remove([digest for _, digest in twins])
        return {
            bytes.fromhex(digest): Unreadable(
                source=name,
                reason=f"id {name!r} is that of another document with another content, which was "
                "kept; name the field that holds an id of its own (--id-field)",
                document_id=name,
            )
            for name, digest in twins
        }

    def _twins(self) -> list[tuple[str, str]]:
        """The ids that several contents have, with the digests of each."""
        held = Held.of(self._pairs())
        repeated = set(held.ids[1:][held.ids[1:] == held.ids[:-1]].tolist())
        if not repeated:
            return []
        return [each for each in self._pairs() if digest_of(each[0]).rstrip(b"\0") in repeated]

    def finish(self) -> None:
        """Write small fragments into larger ones, and a folder's checksums."""
        if is_address(self.name):
            self._chunks.compact()
            self._documents.compact()
            return
        with self._store.writer(is_alone=True) as writer:
            writer.finish()


def check_index(name: str, making: Making) -> tuple[IndexSettings | None, EncodeOptions]:
    """What the index of that name was made with, if it is there, and how documents are to be cut.

    Raises:
        ConfigError: an impossible option.
        IndexMismatchError: it was made with others.
        StorageError: it cannot be looked at.

    """
    folder = folder_named(name)
    made = IndexSettings.read(folder)
    own = made.options if made else INDEX_OPTIONS
    names = ("chunk_tokens", "chunk_overlap", "splitter", "overflow")
    options = changed_options(own, *(making.encoding.get(each) for each in names))
    if made:
        made.require_options(options, made.window, folder)
    return made, options


def open_index(name: str, model: Dewey, making: Making) -> IndexOutput:
    """The index of that name, whose own options count where none are given.

    Raises:
        ConfigError: an impossible option.
        IndexMismatchError: it was made with others.
        StorageError: it cannot be looked at.

    """
    made, options = check_index(name, making)
    settings = new_settings(model, options, made.window if made else None)
    if made and settings.fingerprint == made.fingerprint:
        settings = made  # as it was: titles that it does not read, and the name of its model
    return IndexOutput(name, settings.model_copy(update={"options": options}))
