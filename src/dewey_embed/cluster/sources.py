"""Sources of any size → pieces, each read by one task → groups of documents encoded together.

Pieces and groups follow from the sources alone: not from the number of workers, nor from chance.
So a run that goes on after a kill, and one with other workers, forms the same groups, and they get
the same vectors, bit for bit.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from dewey_embed.errors import ReadError, first_line
from dewey_embed.storage import Place, is_address, lance_options, open_place
from dewey_embed.text.folders import named_file, spelled
from dewey_embed.text.formats import EXTENSIONS, extension_of
from dewey_embed.text.inputs import STDIN, Content, File, ReadOptions
from dewey_embed.text.jsonl import read_jsonl, record_content
from dewey_embed.text.reader import documents_of, list_files, read_files
from dewey_embed.types import Document, Unreadable

PIECE_BYTES = 64_000_000
"""Bytes of sources that one task reads, about: small files together, a large one in parts."""

PIECE_FILES = 1000
"""And the most files."""

READ_ROWS = 256
"""Rows of a table that are made into documents at a time."""

Kind = Literal["files", "lines", "parquet", "lance"]
Item = Document | Unreadable


class Piece(NamedTuple):
    """A part of the sources: some files, or a range of one.

    Of lines it is the bytes from `start` to `stop`, whose first line has the number `first`; of a
    Parquet file its row groups, of a Lance dataset its fragments, whose first row has it, and
    which have `num_rows`. `sizes` are those of files.
    """

    kind: Kind
    files: tuple[File, ...]
    num_bytes: int
    start: int = 0
    stop: int = 0
    first: int = 1
    num_rows: int = 0
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Documents that are encoded together, and the faults that were met before them.

    `num_bytes` are the group's share of its piece, for a bar to show.
    """

    documents: list[Document] = field(default_factory=list)
    faults: list[Unreadable] = field(default_factory=list)
    num_bytes: int = 0


class SourceFile(NamedTuple):
    """A file of the sources and its size."""

    file: File
    size: int


@dataclass(slots=True)
class _Position:
    """How many bytes of a piece are in the documents so far, about."""

    num_bytes: int = 0


def list_sources(inputs: Sequence[str]) -> list[SourceFile | Unreadable]:
    """The files of all inputs in their order, with what is passed over; each file once.

    An input is a file or folder here or on object storage, or a Lance dataset, whose name ends in
    `.lance`.

    Raises:
        ReadError: none of the inputs exists, or one can be read once only.
        StorageError: one cannot be looked at.

    """
    found: list[SourceFile | Unreadable] = []
    for each in inputs:
        if each == STDIN:
            raise ReadError("standard input cannot be read by many machines; give files or folders")
        found += _remote_files(each) if is_address(each) else _local_files(each)
    seen: set[str] = set()
    new = []
    for item in found:
        source = item.source if isinstance(item, Unreadable) else item.file.source
        if source not in seen or isinstance(item, Unreadable):
            new.append(item)
        seen.add(source)
    missing = [
        each for each in new
        if isinstance(each, Unreadable) and each.reason in (_MISSING, _NOTHING_THERE)
    ]  # fmt: skip
    if inputs and len(missing) == len(new):
        raise ReadError(
            "; ".join(
                f"{reason}: {', '.join(each.source for each in missing if each.reason == reason)}"
                for reason in dict.fromkeys(each.reason for each in missing)
            )
            + "; check the spelling"
        )
    return new


_MISSING = "no such file or folder"
_NOTHING_THERE = "the bucket is there and holds nothing under this name"


def _local_files(name: str) -> Iterator[SourceFile | Unreadable]:
    """The files of an input on this machine; Parquet files of a folder are among them."""
    path = os.path.realpath(name)
    if _is_lance(path) and os.path.isdir(path):
        yield SourceFile(_whole(path, path), 0)
        return
    try:
        listed = list(list_files([name]))
    except ReadError:
        listed = [Unreadable(source=spelled(path), reason=_MISSING, root=spelled(path))]
    for item in listed:
        if isinstance(item, File):
            yield SourceFile(item, os.path.getsize(item.path))
        elif item.skipped and item.kind == ".parquet":
            file = named_file(Path(item.source), item.root)
            yield SourceFile(file, os.path.getsize(file.path))
        else:
            yield item


def _remote_files(name: str) -> Iterator[SourceFile | Unreadable]:
    """The files of an input on object storage, in the order of their names."""
    place = open_place(name.rstrip("/"))
    info = place.info()
    if info.is_file:
        yield SourceFile(_whole(name, name), info.size)
        return
    if info.type.name == "NotFound":
        yield Unreadable(source=name, reason=_NOTHING_THERE, root=name)
        return
    if _is_lance(name):
        yield SourceFile(_whole(name.rstrip("/"), name), 0)
        return
    for each in place.files():
        within = each.path[len(place.path) :].lstrip("/")
        source = f"{place.name}/{within}"
        folder, _, base = within.rpartition("/")
        file = File(Path(base), source, place.name, folder, (base,))
        if any(part.startswith((".", "_")) for part in within.split("/")):
            continue
        if any(_is_lance(part) for part in within.split("/")[:-1]):
            continue  # a dataset's own files
        if base.lower().endswith((*EXTENSIONS, ".parquet")):
            yield SourceFile(file, each.size)
        else:
            kind = extension_of(base) or "without an extension"
            yield Unreadable(
                source=source, root=place.name, skipped=True, kind=kind,
                reason="not a kind of file that is read unless it is named itself",
            )  # fmt: skip


def _whole(source: str, root: str) -> File:
    """An input that is itself a file, or a dataset."""
    name = PurePosixPath(source).name
    return File(Path(source), spelled_address(source), spelled_address(root), "", (name,))


def spelled_address(name: str) -> str:
    """A path with forward slashes; an address as it is."""
    return name if is_address(name) else spelled(name)


def _is_lance(name: str) -> bool:
    return name.rstrip("/").lower().endswith(".lance")


def pieces_of(sources: Iterable[SourceFile]) -> Iterator[Piece | SourceFile]:
    """The pieces of files, in order; a file that must be looked into first comes as it is."""
    together: list[SourceFile] = []
    size = 0
    for source in sources:
        if is_divided(source):
            if together:
                yield _bundle(together)
                together, size = [], 0
            yield source
            continue
        remote = is_address(source.file.source)
        if together and (
            size + source.size > PIECE_BYTES
            or len(together) == PIECE_FILES
            or remote != is_address(together[0].file.source)
        ):
            yield _bundle(together)
            together, size = [], 0
        together.append(source)
        size += source.size
    if together:
        yield _bundle(together)


def _bundle(together: Sequence[SourceFile]) -> Piece:
    """Small files as one piece."""
    files, sizes = tuple(zip(*together, strict=True))
    return Piece("files", files, sum(sizes), sizes=sizes)


def _read_bundle(piece: Piece, options: ReadOptions, position: _Position) -> Iterator[Item]:
    """The documents of small files. Of a file of several, the texts so far stand for its bytes."""
    sizes = {file.source: size for file, size in zip(piece.files, piece.sizes, strict=True)}
    open_remote = opened if is_address(piece.files[0].source) else None
    before, source, own = 0, "", 0
    for item in read_files(piece.files, options, open_remote):
        if item.source != source:
            before += sizes.get(source, 0)
            source, own = item.source, 0
        size = sizes.get(source, 0)
        if isinstance(item, Document):
            own += size if item.id == source else len(item.text.encode("utf-8", "replace"))
        position.num_bytes = before + min(own, size)
        yield item


def is_divided(source: SourceFile) -> bool:
    """Whether a file's pieces are known only once it was looked into."""
    extension = extension_of(source.file.names[0])
    lines = extension in (".jsonl", ".ndjson") and source.size > PIECE_BYTES
    return lines or extension in (".parquet", ".lance")


def divide(source: SourceFile) -> list[Piece]:
    """The pieces of a table or of a large file of lines.

    Raises:
        ReadError: it is damaged.

    """
    extension = extension_of(source.file.names[0])
    if extension == ".lance":
        return _lance_pieces(source)
    return _parquet_pieces(source) if extension == ".parquet" else _line_pieces(source)


def opened(file: File) -> BinaryIO:
    """A file, open for reading, here or on object storage.

    Raises:
        OSError: it cannot be opened.

    """
    if not is_address(file.source):
        return open(file.path, "rb")
    place = open_place(file.source)
    return cast(BinaryIO, io.BufferedReader(_Raw(place), 1 << 20))


class _Raw(io.RawIOBase):
    """A file on object storage, as Python's own streams are."""

    def __init__(self, place: Place) -> None:
        self._file = place.system.open_input_file(place.path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _line_pieces(source: SourceFile) -> list[Piece]:
    """Ranges of a file of lines; each has the lines that begin in it."""
    with opened(source.file) as stream:
        if stream.read(4)[:2] in (b"\xff\xfe", b"\xfe\xff", b"\0\0"):  # UTF-16 and UTF-32
            return [_bundle([source])]
        stream.seek(0)
        pieces, number = [], 1
        for start in range(0, source.size, PIECE_BYTES):
            stop = min(source.size, start + PIECE_BYTES)
            pieces.append(Piece("lines", (source.file,), stop - start, start, stop, number))
            at = start
            while at < stop and (block := stream.read(min(1 << 22, stop - at))):
                number += block.count(b"\n")
                at += len(block)
    return pieces


class _Lines:
    """The lines of a stream that begin before `stop`."""

    def __init__(self, stream: BinaryIO, start: int, stop: int) -> None:
        self._stream, self._stop = stream, stop
        self._within = False
        stream.seek(max(0, start - 1))
        self.cut = start > 0 and stream.read(1) != b"\n"
        while self.cut and (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
            pass

    def readline(self, size: int) -> bytes:
        """The next line, or as much of it as `size` says."""
        if not self._within and self._stream.tell() >= self._stop:
            return b""
        line = self._stream.readline(size)
        self._within = not line.endswith(b"\n")
        return line


def _read_lines(piece: Piece, options: ReadOptions, position: _Position) -> Iterator[Item]:
    """The documents of a range of lines."""
    [file] = piece.files
    with opened(file) as stream:
        lines = _Lines(stream, piece.start, piece.stop)
        before = piece.first - 1 + lines.cut

        def numbered() -> Iterator[Content | Unreadable]:
            for item in read_jsonl(cast(BinaryIO, lines), options):
                line = None if item.line is None else item.line + before
                position.num_bytes = min(stream.tell(), piece.stop) - piece.start
                yield (
                    item._replace(line=line)
                    if isinstance(item, Content)
                    else replace(item, line=line)
                )

        yield from documents_of(numbered(), file, extension_of(file.names[0]))


def _parquet_pieces(source: SourceFile) -> list[Piece]:
    """Runs of row groups of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(source.file) as stream:
            metadata = pq.ParquetFile(stream).metadata
            sizes = [
                (metadata.row_group(number).total_byte_size, metadata.row_group(number).num_rows)
                for number in range(metadata.num_row_groups)
            ]
    except (pa.ArrowException, OSError) as error:
        raise ReadError(f"a damaged parquet file ({first_line(error)})") from None
    pieces, start, size, first = [], 0, 0, 1
    rows = 0
    for number, (num_bytes, num_rows) in enumerate(sizes):
        if number > start and size + num_bytes > PIECE_BYTES:
            pieces.append(Piece("parquet", (source.file,), size, start, number, first, rows))
            first, start, size, rows = first + rows, number, 0, 0
        size, rows = size + num_bytes, rows + num_rows
    if start < len(sizes):
        pieces.append(Piece("parquet", (source.file,), size, start, len(sizes), first, rows))
    return pieces


def _read_parquet(piece: Piece, options: ReadOptions, position: _Position) -> Iterator[Item]:
    """The documents of a run of row groups: one for each row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    [file] = piece.files

    def contents() -> Iterator[Content | Unreadable]:
        try:
            with opened(file) as stream:
                table = pq.ParquetFile(stream, page_checksum_verification=True)
                batches = table.iter_batches(
                    READ_ROWS,
                    row_groups=list(range(piece.start, piece.stop)),
                    columns=_read_columns(table.schema_arrow, options),
                )
                yield from _records(batches, piece, options, position)
        except (pa.ArrowException, OSError) as error:
            raise ReadError(f"a damaged parquet file ({first_line(error)})") from None

    yield from documents_of(contents(), file, ".parquet")


def _lance_pieces(source: SourceFile) -> list[Piece]:
    """Runs of fragments of a Lance dataset, at its newest version."""
    dataset = _lance(source.file.source)
    pieces, start, size, rows, first = [], 0, 0, 0, 1
    fragments = dataset.get_fragments()
    for number, fragment in enumerate(fragments):
        rows += fragment.count_rows()
        size += sum(each.file_size_bytes or 0 for each in fragment.metadata.files)
        if size > PIECE_BYTES or number + 1 == len(fragments) or number + 1 - start == PIECE_FILES:
            pieces.append(Piece("lance", (source.file,), size, start, number + 1, first, rows))
            start, first, size, rows = number + 1, first + rows, 0, 0
    return pieces


def _read_lance(piece: Piece, options: ReadOptions, position: _Position) -> Iterator[Item]:
    """The documents of a run of fragments: one for each row."""
    [file] = piece.files

    def contents() -> Iterator[Content | Unreadable]:
        try:
            dataset = _lance(file.source)
            scan = dataset.scanner(
                columns=_read_columns(dataset.schema, options),
                fragments=dataset.get_fragments()[piece.start : piece.stop],
                batch_size=READ_ROWS,
                scan_in_order=True,
            )
            yield from _records(scan.to_batches(), piece, options, position)
        except (OSError, ValueError) as error:
            raise ReadError(f"a damaged Lance dataset ({first_line(error)})") from None

    yield from documents_of(contents(), file, ".lance")


def _lance(source: str) -> Any:
    """A Lance dataset.

    Raises:
        ReadError: there is none, or it cannot be read.

    """
    import lance

    try:
        return lance.dataset(source, storage_options=lance_options(source))
    except (OSError, ValueError) as error:
        raise ReadError(f"no Lance dataset that can be read ({first_line(error)})") from None


def _read_columns(schema: Any, options: ReadOptions) -> list[str]:
    """The columns that make documents: flat ones; vectors and other nested ones are left out.

    So are those of extension types: Ray has one whose values are pickles, and would open them.

    Raises:
        ReadError: there is no column for the text, or it is none of these.

    """
    for name in options.fields.text_fields or ("text",):
        if name not in schema.names:
            raise ReadError(
                f"no column {name!r}; it has {', '.join(map(repr, schema.names))}: choose the text "
                "fields among them"
            )
        if not _is_flat(schema.field(name).type):
            raise ReadError(f"column {name!r} holds {schema.field(name).type}, not texts")
    return [each.name for each in schema if _is_flat(each.type)]


def _is_flat(kind: Any) -> bool:
    """Whether values of an Arrow type are plain ones, also behind a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_flat(kind.value_type)
    return not pa.types.is_nested(kind) and not isinstance(kind, pa.BaseExtensionType)


def _records(
    batches: Iterable[Any], piece: Piece, options: ReadOptions, position: _Position
) -> Iterator[Content | Unreadable]:
    """The contents of a piece's rows, numbered from its first one's number."""
    number = piece.first
    for batch in batches:
        for row in batch.to_pylist():
            record = {
                name: value.isoformat() if isinstance(value, date) else value
                for name, value in row.items()
            }
            position.num_bytes = piece.num_bytes * (number + 1 - piece.first) // piece.num_rows
            yield record_content(record, number, options.fields)
            number += 1


READERS: Mapping[Kind, Callable[[Piece, ReadOptions, _Position], Iterator[Item]]] = {
    "files": _read_bundle,
    "lines": _read_lines,
    "parquet": _read_parquet,
    "lance": _read_lance,
}
"""How each kind of piece is read."""


def read_groups(piece: Piece, options: ReadOptions, max_chars: int) -> Iterator[Group]:
    """The documents of a piece in groups of at most `max_chars` characters, or one document."""
    documents: list[Document] = []
    faults: list[Unreadable] = []
    size, counted, reached, position = 0, 0, 0, _Position()
    for item in READERS[piece.kind](piece, options, position):
        if isinstance(item, Unreadable):
            faults.append(item)
            continue
        if documents and size + len(item.text) > max_chars:
            yield Group(documents, faults, reached - counted)
            documents, faults, size, counted = [], [], 0, reached
        documents.append(item)
        size += len(item.text)
        reached = min(position.num_bytes, piece.num_bytes)
    yield Group(documents, faults, piece.num_bytes - counted)
