"""Where vectors are written: a Lance dataset, or a folder of Parquet files, here or on S3.

Workers write groups, each complete or not at all; the driver makes them visible (`commit`), and
asks what is there already (`held`). What a killed worker or run left behind is never visible. The
schema holds the settings that the vectors were made with, and other settings are refused.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.cluster.lance_table import LanceTable
from dewey_embed.config import CHUNK_TOKENS, EncodeOptions
from dewey_embed.errors import ConfigError, each_that_fits
from dewey_embed.files import atomic_file
from dewey_embed.rows import rows_of, rows_schema, rows_table
from dewey_embed.storage import is_address, looking, open_place

if TYPE_CHECKING:
    import pyarrow as pa

    from dewey_embed.encoder import Dewey
    from dewey_embed.index.sync import Begin
    from dewey_embed.types import Document, DocumentVectors, Unreadable

SETTINGS_KEY = b"dewey"
"""The key of the settings in the metadata of a schema."""


DIGEST_BYTES = 16
"""Of the digest of a content, here."""


class Held(NamedTuple):
    """What an output holds: digests (N,) of documents' ids, in order, and of their contents."""

    ids: NDArray[np.bytes_]
    contents: NDArray[np.bytes_]

    @classmethod
    def of(cls, pairs: Iterator[tuple[str, str]]) -> Held:
        """What is held, from ids and the hexadecimal digests of contents."""
        found = [(digest_of(name), bytes.fromhex(content)) for name, content in pairs]
        ids = np.array([name for name, _ in found], "S16")
        contents = np.array([content for _, content in found], "S16")
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], contents[order])

    def contents_of(self, name: str) -> set[bytes]:
        """The digests of the contents that are held under an id."""
        key = np.bytes_(digest_of(name))
        first, last = (int(self.ids.searchsorted(key, side)) for side in ("left", "right"))
        return set(map(_complete, self.contents[first:last].tolist()))

    def repeated(self, contents: Sequence[bytes]) -> list[str]:
        """The digests, in hexadecimal, that come twice among those held and these others."""
        values, counts = np.unique(
            np.concatenate([self.contents, np.array(contents, "S16")]), return_counts=True
        )
        return [_complete(each).hex() for each in values[counts > 1].tolist()]


def _complete(digest: bytes) -> bytes:
    """A digest with the zeros at its end, which NumPy leaves out."""
    return digest.ljust(16, b"\0")


def digest_of(name: str) -> bytes:
    """16 bytes that stand for a document's id."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How vectors are made, and what is written beside them."""

    encoding: Mapping[str, Any] = field(default_factory=dict)
    chunks: bool = False
    texts: bool = False


class EncodedGroup(NamedTuple):
    """What `commit` needs to know of a group that was written, and its vectors.

    A document whose vectors are not finite has the reason in their place, and is not written.
    """

    written: list[str]
    vectors: list[DocumentVectors | str]


class Output(ABC):
    """A place of vectors, as workers and the driver see it; it travels between them."""

    name: str

    def alone(self) -> AbstractContextManager[None]:
        """Keep out whoever else writes to this output, as far as that knows of it."""
        return nullcontext()

    @abstractmethod
    def begin(self) -> Held:
        """What is there, once it is sure that it was made with these settings.

        Raises:
            ConfigError: it was made with others, or is no output of this command.
            StorageError: it cannot be looked at.

        """

    def prepared(self, document: Document) -> Document:
        """The document as it will be written."""
        return document

    @abstractmethod
    def digest(self, document: Document) -> str:
        """32 hex digits that change with what is encoded of a document, or written beside it.

        Where it was found is no part of it.
        """

    @abstractmethod
    def encode(self, model: Dewey, documents: Sequence[Document], begin: Begin) -> EncodedGroup:
        """Encode a group, and write it where only `commit` makes it visible, if that can be."""

    @abstractmethod
    def commit(self, written: Sequence[str]) -> None:
        """Make groups visible that were written."""

    @abstractmethod
    def remove(self, contents: Sequence[str]) -> None:
        """Remove the rows of documents by the digests of their contents."""

    @abstractmethod
    def remove_repeats(self, contents: Sequence[str]) -> None:
        """Keep the rows of documents once that were written twice, by the digests of contents."""

    def remove_twins(self) -> dict[bytes, Unreadable]:
        """What was removed, by its content: an id may have one only, and another one was kept."""
        return {}

    def finish(self) -> None:  # noqa: B027 - most need nothing
        """Tidy up at the end of a run."""


class RowsOutput(Output):
    """A table of rows as in any file of vectors, with the digest of the document's content."""

    def __init__(self, name: str, making: Making, schema: pa.Schema) -> None:
        self.name = name
        self.making = making
        self.schema = schema

    @abstractmethod
    def written_schema(self) -> pa.Schema | None:
        """The schema of what is there; `None` where nothing is."""

    @abstractmethod
    def create(self) -> None:
        """Make the place, with nothing in it."""

    @abstractmethod
    def pairs(self) -> Iterator[tuple[str, str]]:
        """The ids of the documents that are there, and the digests of their contents."""

    @abstractmethod
    def write(self, table: pa.Table) -> list[str]:
        """Write a group; what `commit` needs to know of it."""

    def begin(self) -> Held:
        """What is there.

        Raises:
            ConfigError: it was made with other settings, or is no output of this command.
            StorageError: it cannot be looked at.

        """
        written = self.written_schema()
        if written is None:
            self.create()
            return Held.of(iter(()))
        self._require_same(written)
        return Held.of(self.pairs())

    def digest(self, document: Document) -> str:
        """The digest of id, text and landmarks; with texts of title and metadata, too."""
        parts: list[Any] = [document.id, document.text, document.landmarks]
        parts += [document.title, dict(document.metadata)] if self.making.texts else []
        content = json.dumps(parts, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()[:32]

    def encode(self, model: Dewey, documents: Sequence[Document], begin: Begin) -> EncodedGroup:
        """Encode a group as `dewey encode` does, and write its rows."""

        def encode(some: Sequence[Document]) -> list[DocumentVectors | str]:
            texts = [document.text for document in some]
            prepared = model.prepare(texts, **self.making.encoding)
            return model.encode_sound(prepared, progress=begin(prepared.num_tokens))

        encoded = each_that_fits(encode, documents)
        rows = [
            {**row, "hash": self.digest(document)}
            for document, vectors in zip(documents, encoded, strict=True)
            if not isinstance(vectors, str)
            for row in rows_of(
                document, vectors, chunks=self.making.chunks, texts=self.making.texts
            )
        ]
        written = self.write(rows_table(rows, self.schema)) if rows else []
        return EncodedGroup(written, encoded)

    def _require_same(self, written: pa.Schema) -> None:
        """Refuse an output of other settings."""
        own, theirs = (_settings(schema) for schema in (self.schema, written))
        if theirs is None:
            raise ConfigError(
                f"{self.name}: is there, and was not written by dewey encode --ray; give another "
                "path"
            )
        different = sorted(key for key in own or {} if (own or {})[key] != theirs.get(key))
        if different:
            made = ", ".join(f"{key}={theirs.get(key)!r}" for key in different)
            given = ", ".join(f"{key}={(own or {})[key]!r}" for key in different)
            raise ConfigError(
                f"{self.name}: was written with {made}, not with {given}; use the same, or another "
                "path"
            )
        if not written.equals(self.schema):  # a foreign type may run code where it is read
            raise ConfigError(
                f"{self.name}: has other columns than dewey encode --ray writes; give another path"
            )


def _settings(schema: pa.Schema) -> dict[str, Any] | None:
    """The settings in a schema; `None` where it has none."""
    text = (schema.metadata or {}).get(SETTINGS_KEY)
    return None if text is None else dict(json.loads(text))


class LanceOutput(RowsOutput):
    """A Lance dataset; a group is a fragment, which an append makes visible."""

    @property
    def _table(self) -> LanceTable:
        return LanceTable(self.name)

    def written_schema(self) -> pa.Schema | None:
        """The schema of the dataset; `None` where there is none.

        Raises:
            ConfigError: something else is there.

        """
        if self._table.exists():
            return self._table.dataset().schema
        if open_place(self.name).files():
            raise ConfigError(f"{self.name}: is there and is no Lance dataset; give another path")
        return None

    def create(self) -> None:
        """Write an empty dataset."""
        self._table.create(self.schema)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The ids and digests of the rows that are documents' own."""
        columns = ["document_id", "hash"]
        scan = self._table.dataset().scanner(columns=columns, filter="chunk IS NULL")
        with looking(self.name):
            for batch in scan.to_batches():
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def write(self, table: pa.Table) -> list[str]:
        """Write a fragment."""
        return self._table.write(table)

    def commit(self, written: Sequence[str]) -> None:
        """Append the fragments."""
        self._table.append(written)

    def remove(self, contents: Sequence[str]) -> None:
        """Delete the rows of documents."""
        self._table.delete("hash", contents)

    def remove_repeats(self, contents: Sequence[str]) -> None:
        """Delete the rows from the second row of a document on."""
        for content in contents:
            self._table.delete_repeats("hash", content, "chunk IS NULL")

    def finish(self) -> None:
        """Write small fragments into larger ones."""
        self._table.compact()


class ParquetOutput(RowsOutput):
    """A folder of Parquet files, one for each group, named after what is in it.

    A file is there when it is complete, so that there is nothing to commit; a group that is written
    twice is the same file.
    """

    def _files(self) -> list[str]:
        place = open_place(self.name)
        return [each.path for each in place.files() if each.path.endswith(".parquet")]

    def written_schema(self) -> pa.Schema | None:
        """The schema of the files; `None` where there is none.

        Raises:
            ConfigError: something else is there.

        """
        import pyarrow.parquet as pq

        place = open_place(self.name)
        if place.info().is_file:
            raise ConfigError(
                f"{self.name}: is a file; with --ray, Parquet is a folder of files: give another "
                "path"
            )
        paths = self._files()
        if not paths and place.files():
            raise ConfigError(f"{self.name}: holds files, and none is Parquet; give another path")
        if not paths:
            return None
        with looking(self._named(paths[0])):
            return pq.read_schema(paths[0], filesystem=place.system)

    def create(self) -> None:
        """Make the folder; object storage has none."""
        place = open_place(self.name)
        if not is_address(self.name):
            with looking(self.name):
                place.system.create_dir(place.path)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The ids and digests of the rows that are documents' own."""
        import pyarrow.compute as pc

        for path in self._files():
            table = self._read(path, ["document_id", "hash", "chunk"])
            own = table.filter(pc.field("chunk").is_null()).drop_columns("chunk")
            yield from zip(*(column.to_pylist() for column in own.columns), strict=True)

    def _read(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A file, or some columns of it.

        Raises:
            ConfigError: it was made with other settings, or is no output of this command.
            StorageError: it cannot be read.

        """
        import pyarrow.parquet as pq

        system = open_place(self.name).system
        with (
            looking(self._named(path)),
            pq.ParquetFile(path, filesystem=system, page_checksum_verification=True) as file,
        ):
            self._require_same(file.schema_arrow)
            return file.read(columns)

    def _named(self, path: str) -> str:
        """A file of the output, as users write it."""
        return f"{self.name}/{PurePosixPath(path).name}"

    def write(self, table: pa.Table) -> list[str]:
        """Write a group's file."""
        names = "".join(dict.fromkeys(table["hash"].to_pylist()))
        name = hashlib.sha256(names.encode()).hexdigest()[:32]
        self._put(table, name)
        return [name]

    def _put(self, table: pa.Table, name: str) -> None:
        """Write a file, complete or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        place = open_place(self.name).below(f"{name}.parquet")
        with looking(self.name):
            if not is_address(self.name):
                with atomic_file(Path(place.path), sync=True) as draft:
                    pq.write_table(table, draft, write_page_checksum=True)
            else:  # an object appears when its stream is closed, so all of it is sent at once
                buffer = pa.BufferOutputStream()
                pq.write_table(table, buffer, write_page_checksum=True)
                with place.system.open_output_stream(place.path) as stream:
                    stream.write(buffer.getvalue())

    def commit(self, written: Sequence[str]) -> None:
        """Do nothing: files are there when they are complete."""

    def remove(self, contents: Sequence[str]) -> None:
        """Write the files that hold these documents again, without them."""
        self._rewrite(contents, set(contents))

    def remove_repeats(self, contents: Sequence[str]) -> None:
        """Write the files again that hold these documents, but for the first one."""
        self._rewrite(contents, set())

    def _rewrite(self, contents: Sequence[str], gone: set[str]) -> None:
        """Write the files that hold these documents without those that are gone, or came before."""
        import pyarrow as pa
        import pyarrow.compute as pc

        system, wanted = open_place(self.name).system, pa.array(contents, pa.string())
        gone = set(gone)
        for path in self._files() if contents else ():
            held = self._read(path, ["hash"])["hash"]
            if not pc.any(pc.is_in(held, value_set=wanted)).as_py():
                continue
            table = self._read(path)
            kept = []
            for row, (content, chunk) in enumerate(
                zip(table["hash"].to_pylist(), table["chunk"].to_pylist(), strict=True)
            ):
                if chunk is None:
                    wanted_here = content not in gone
                    if content in contents:
                        gone.add(content)
                if wanted_here:
                    kept.append(row)
            if len(kept) == table.num_rows:
                continue
            if kept:
                self._put(table.take(kept), secrets.token_hex(16))
            with looking(self.name):
                system.delete_file(path)


ROWS: dict[str, type[RowsOutput]] = {".lance": LanceOutput, ".parquet": ParquetOutput}
"""What a name's extension makes of an output; without one it is a Lance dataset."""


def check_rows(name: str, making: Making) -> dict[str, Any]:
    """The options of an output of that name that vectors depend on, once it is sure that it can be.

    Raises:
        ConfigError: another extension, or an impossible option.

    """
    if _extension(name) not in ROWS:
        raise ConfigError(
            f"{name}: with --ray, vectors are written as {', '.join(ROWS)} or .index; name one of "
            "these"
        )
    values = {"chunk_tokens": CHUNK_TOKENS, "chunk_overlap": None, **making.encoding}
    parsed = EncodeOptions.of(values.pop("chunk_tokens"), values.pop("chunk_overlap"), **values)
    return parsed.model_dump(mode="json")


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or ".lance"


def open_rows(name: str, model: Dewey, making: Making) -> RowsOutput:
    """The output of that name, whose schema holds the settings; nothing is looked up yet.

    Raises:
        ConfigError: another extension, or an impossible option.

    """
    import pyarrow as pa

    options = check_rows(name, making)
    settings = {
        "model": model.fingerprint,
        "dtype": str(model.dtype),
        "chunks": making.chunks,
        "texts": making.texts,
        **options,
    }
    schema = rows_schema(model.embedding_dim, texts=making.texts)
    schema = schema.append(pa.field("hash", pa.string()))
    metadata = {SETTINGS_KEY: json.dumps(settings, sort_keys=True).encode()}
    return ROWS[_extension(name)](name, making, schema.with_metadata(metadata))
