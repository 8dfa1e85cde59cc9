"""Rows of the two tables: what a document and its vectors become, column by column."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.words import count_words
from dewey_embed.quantization import to_precision
from dewey_embed.titles import describes, title_line
from dewey_embed.types import Document, DocumentVectors, Mask, MetadataValue, WindowStates

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_ROWS = 8192
"""Rows of a table that are read at a time."""

POSITIONS = ("char_start", "char_end", "token_start", "token_end")
"""Columns of `chunks` that say where a chunk is in its text."""

NOT_COMPARED = "metadata numbers that are not finite or past 64 bits"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Place(NamedTuple):
    """Where a document was found: the input (`root`), and the file or stream (`source`)."""

    root: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the index holds of a document beside its text: what may change and cost no pass.

    `places` are all those where it was found and has not left, the first one first.
    """

    title: str
    source: str
    metadata: str
    places: tuple[Place, ...]

    @classmethod
    def of(cls, document: Document, places: Sequence[Place] = ()) -> Details:
        """The details of a document as it was read, found in these places."""
        return cls(
            title=document.title,
            source=document.source,
            metadata=metadata_json(document.metadata),
            places=tuple(places) or (Place(document.root, document.source),),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A document, the hash of its text, its vectors, and where it was found: written at once.

    `passages` (C,) are the numbers of the passages that its chunks belong to. `title_vector` (D,)
    is its title's; `None` where it has no title.
    """

    document: Document
    hash: str
    vectors: DocumentVectors
    passages: NDArray[np.int64]
    title_vector: NDArray[np.float32] | None = None
    places: tuple[Place, ...] = ()


def storable(document: Document) -> Document:
    """The document with nothing in it that UTF-8 or JSON cannot hold, character for character.

    Numbers in metadata that no filter could compare are left out and counted. Lone
    surrogates (half of a UTF-16 pair, or a byte of a file name that is no UTF-8) become U+FFFD in
    the text, so that positions stay; in the names they are spelled out, so that two files stay
    two.

    Raises:
        TypeError: a field is no string, or metadata holds more than flat values.

    """
    for name in ("id", "text", "title", "source", "root"):
        if not isinstance(getattr(document, name), str):
            raise TypeError(
                f"document {document.id!r}: {name} is {type(getattr(document, name)).__name__}, "
                "not str"
            )
    if not isinstance(document.metadata, Mapping):
        raise TypeError(
            f"document {document.id!r}: metadata is {type(document.metadata).__name__}, not a dict"
        )
    metadata = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in document.metadata.items()
    }
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | bool | None):
            raise TypeError(
                f"document {document.id!r}: metadata {key!r} is {type(value).__name__}; "
                "only str, int, float, bool and None can be filtered by"
            )
    kept = {
        spelled(key): spelled(value) if isinstance(value, str) else value
        for key, value in metadata.items()
        if is_comparable(value)
    }
    unread = dict(document.unread)
    if len(kept) < len(metadata):
        unread[NOT_COMPARED] = unread.get(NOT_COMPARED, 0) + len(metadata) - len(kept)
    return replace(
        document,
        unread=unread,
        id=spelled(document.id),
        text=_LONE_SURROGATE.sub("\ufffd", document.text),
        title=spelled(document.title),
        source=spelled(document.source),
        root=spelled(document.root),
        metadata=kept,
    )


def is_comparable(value: MetadataValue) -> bool:
    """Whether metadata can hold a value and filters compare it: not NaN, nor a huge integer."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or value.bit_length() <= 63


def spelled(name: str) -> str:
    r"""The name with each lone surrogate written as `\udc..`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def content_hash(document: Document, *, reads_titles: bool = False) -> str:
    """64 hex digits that change with a document's id, text or landmarks.

    The id is among them so that a hash names one version of one document, and no other; so is the
    title where it is read above the text, and its vectors change with it.
    """
    title = [title_above(document)] if reads_titles else []
    parts = [document.id, document.text, document.landmarks, *title]
    content = json.dumps(parts, separators=(",", ":"))
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def text_crc(text: str) -> int:
    """A text's CRC-32, by which a reader knows that it was not damaged."""
    return zlib.crc32(text.encode("utf-8"))


def canonical(value: MetadataValue) -> str:
    """A metadata value as text, equal exactly where values are: 1 and 1.0 are, 1 and True not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def row_sums(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """A checksum (R,) of rows in columns (R, …) of numbers: any one number that changes changes it.

    Every number is taken by its bits, times an odd weight, modulo 2^64.
    """
    sums = np.zeros(len(columns[0]), np.uint64)
    start = 1
    for column in columns:
        bits = np.ascontiguousarray(column).reshape(len(column), math.prod(column.shape[1:]))
        bits = bits.view(f"u{bits.dtype.itemsize}").astype(np.uint64)
        weights = np.arange(start, start + bits.shape[1], dtype=np.uint64)
        sums += bits @ (weights * np.uint64(0x9E3779B97F4A7C16) | np.uint64(1))
        start += bits.shape[1]
    return sums.view(np.int64)


def documents_schema(width: int) -> pa.Schema:
    """Columns of `documents`; `width` is D."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("places", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("text", pa.large_string(), nullable=False),
            pa.field("text_crc", pa.int64(), nullable=False),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("landmarks", pa.large_string(), nullable=False),
            pa.field("hash", pa.string(), nullable=False),
            pa.field("num_tokens", pa.int64(), nullable=False),
            pa.field("used_tokens", pa.int64(), nullable=False),
            pa.field("overflow", pa.string()),
            pa.field("num_chunks", pa.int64(), nullable=False),
            pa.field("num_passages", pa.int64(), nullable=False),
            pa.field("words", pa.large_list(pa.uint32()), nullable=False),
            pa.field("word_counts", pa.large_list(pa.uint32()), nullable=False),
            pa.field("word_crc", pa.int64(), nullable=False),
            pa.field("title_vector", pa.list_(pa.float32(), width), nullable=False),
            pa.field("vector_sum", pa.int64(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
            windows_field(),
        ]
    )


def windows_field() -> pa.Field:
    """The column of `documents` that indexes of earlier versions do not have."""
    import pyarrow as pa

    return pa.field("windows", pa.large_binary())


def chunks_schema(width: int) -> pa.Schema:
    """Columns of `chunks`; `width` is D."""
    import pyarrow as pa

    positions = ("ordinal", "passage", *POSITIONS)
    return pa.schema(
        [
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("document_hash", pa.string(), nullable=False),
            *(pa.field(name, pa.int64(), nullable=False) for name in positions),
            pa.field("words", pa.large_list(pa.uint32()), nullable=False),
            pa.field("word_counts", pa.large_list(pa.uint32()), nullable=False),
            pa.field("word_crc", pa.int64(), nullable=False),
            pa.field("weight", pa.float32(), nullable=False),
            pa.field("sum", pa.int64(), nullable=False),
            pa.field("vector", pa.list_(pa.int8(), width), nullable=False),
        ]
    )


def documents_table(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    """Rows of `documents`, one for each record."""
    import pyarrow as pa

    documents = [record.document for record in records]
    vectors = [record.vectors for record in records]
    details = [Details.of(record.document, record.places) for record in records]
    columns: dict[str, Any] = {"id": [document.id for document in documents]}
    columns |= detail_columns(details)
    columns["text"] = [document.text for document in documents]
    columns["text_crc"] = [text_crc(document.text) for document in documents]
    columns["hash"] = [record.hash for record in records]
    for name in ("num_tokens", "used_tokens", "overflow"):
        columns[name] = [getattr(item, name) for item in vectors]
    columns["num_chunks"] = [len(item.spans) for item in vectors]
    columns["num_passages"] = [
        int(record.passages[-1]) + 1 if len(record.passages) else 0 for record in records
    ]
    columns["windows"] = [packed_windows(item.windows) for item in vectors]
    columns["landmarks"] = [json.dumps(document.landmarks) for document in documents]
    columns |= word_columns([searched_text(document) for document in documents])
    columns |= vector_columns(
        np.stack([np.asarray(item.vector, np.float32) for item in vectors]),
        [record.title_vector for record in records],
        schema,
    )
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def detail_columns(details: Sequence[Details]) -> dict[str, list[str]]:
    """The columns of `documents` that are a document's details."""
    return {
        "places": [json.dumps(each.places) for each in details],
        "source": [each.source for each in details],
        "title": [each.title for each in details],
        "metadata": [each.metadata for each in details],
    }


def word_columns(texts: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of either table that word search is made of."""
    words = [count_words(text) for text in texts]
    return {
        "words": [numbers for numbers, _ in words],
        "word_counts": [counts for _, counts in words],
        "word_crc": [word_crc(numbers, counts) for numbers, counts in words],
    }


def word_crc(numbers: NDArray[np.uint32], counts: NDArray[np.uint32]) -> int:
    """The CRC-32 of a text's words and of how often they stand in it."""
    return zlib.crc32(counts.tobytes(), zlib.crc32(numbers.tobytes()))


def vector_columns(
    vectors: NDArray[np.float32],
    titles: Sequence[NDArray[np.float32] | None],
    schema: pa.Schema,
) -> dict[str, Any]:
    """The columns of `documents` that hold vectors (N, D); a title that is missing is zeros."""
    blank = np.zeros(vectors.shape[1], np.float32)
    titled = np.stack([blank if each is None else each for each in titles]).astype(np.float32)
    return {
        "title_vector": vector_column(titled, schema),
        "vector": vector_column(vectors, schema),
        "vector_sum": row_sums(vectors, titled),
    }


def chunks_table(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    """Rows of `chunks`, in order, for all records.

    A chunk's vector is kept in int8, whose scale does not matter, and with it the weight that it
    has in a sum of chunks: its length before it was unit, times its number of tokens. A title at
    the text's top has no weight and no words there: it speaks for the whole document, and would
    draw to its own passage every question that names the document.
    """
    import pyarrow as pa

    width = schema.field("vector").type.list_size
    counts = [len(record.vectors.spans) for record in records]
    spans = np.array(
        [span for record in records for span in record.vectors.spans], np.int64
    ).reshape(-1, 4)
    joined = np.concatenate([r.vectors.chunks.reshape(-1, width) for r in records])
    joined = to_precision(joined.astype(np.float32), "int8")
    norms = np.concatenate([record.vectors.norms for record in records])
    speaks = np.concatenate([_speaks_for_itself(record) for record in records])
    weights = (norms * (spans[:, 3] - spans[:, 2]) * speaks).astype(np.float32)
    passages = np.concatenate([record.passages for record in records])
    texts = [
        record.document.text[span.char_start : span.char_end]
        for record in records
        for span in record.vectors.spans
    ]
    columns: dict[str, Any] = {
        "document_id": _repeated([record.document.id for record in records], counts),
        "document_hash": _repeated([record.hash for record in records], counts),
        "ordinal": np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
        "passage": passages,
        "weight": weights,
        "vector": vector_column(joined, schema),
        **word_columns([text if own else "" for text, own in zip(texts, speaks, strict=True)]),
    }
    for column, name in enumerate(POSITIONS):
        columns[name] = spans[:, column]
    columns["sum"] = row_sums(joined, columns["ordinal"], passages, spans, weights)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def packed_windows(windows: WindowStates | None) -> bytes | None:
    """The windows as the table of documents keeps them; `None` where there is one alone."""
    if windows is None:
        return None
    num_states = windows.states.shape[1]
    rows = np.zeros(len(windows.keys), _row_type(num_states))
    rows["bounds"], rows["states"] = windows.bounds, windows.states
    rows["key"] = np.frombuffer(b"".join(windows.keys), "V16")
    data: bytes = num_states.to_bytes(4, "little") + rows.tobytes()
    return zlib.crc32(data).to_bytes(4, "little") + data


def unpacked_windows(data: bytes | None, num_states: int) -> WindowStates | None:
    """The windows that were packed; `None` where none were.

    Neither are those that are damaged, or of other states: they only save time.
    """
    if (
        not data
        or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little")
        or num_states != int.from_bytes(data[4:8], "little")
    ):
        return None
    rows = np.frombuffer(data, _row_type(num_states), offset=8)
    keys = [key.tobytes() for key in rows["key"]]
    return WindowStates(rows["bounds"].astype(np.int64), keys, rows["states"].astype(np.float32))


def _row_type(num_states: int) -> np.dtype[np.void]:
    return np.dtype([("bounds", "<i8", 2), ("key", "V16"), ("states", "<f4", num_states)])


def _speaks_for_itself(record: Record) -> Mask:
    """Which chunks (C,) are more than a title at the top of their text; all, where none is."""
    ends = np.array([span.char_end for span in record.vectors.spans], np.int64)
    title = title_line(record.document.text)
    is_below: Mask = ends > record.document.text.find(title) + len(title)
    if not title or title.endswith(_ENDS_OF_SENTENCES) or not is_below.any():
        return np.ones(len(ends), np.bool_)
    return is_below


_ENDS_OF_SENTENCES = tuple(".!?:;,…。！？：；，")
"""A first line that ends so is a short paragraph, not a title, and answers questions itself."""


def _repeated(values: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Each value as often as its count says."""
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


def vector_column(rows: NDArray[Any], schema: pa.Schema) -> pa.Array:
    """Rows (N, D) as a fixed-size list column."""
    import pyarrow as pa

    width = schema.field("vector").type.list_size
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)


def metadata_json(metadata: Mapping[str, MetadataValue]) -> str:
    """Metadata as JSON with its keys in order."""
    return json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)


_NAME_WORDS = re.compile(r"[^\W\d_]{3,}")
"""Words of a file's name: runs of letters. Numbers and codes say nothing that has a meaning."""


def title_text(document: Document) -> str:
    """The text whose vector stands for a document's title; empty where it has none.

    The name of a file stands for its title where it has no other, without numbers and extension.

    >>> title_text(Document(id="/c/lease_2024-v2.pdf", source="/c/lease_2024-v2.pdf", text="…"))
    'lease'
    """
    title, name = document.title.strip() or title_line(document.text), file_name(document)
    if name and title in ("", name):
        return " ".join(_NAME_WORDS.findall(PurePosixPath(name).stem))
    return title


def title_above(document: Document) -> str:
    r"""The title that is read above a document's text; empty where it has none.

    It is the document's own if it describes the text, else the text's first line where that is a
    title. Names of files and labels say too little to be read above every passage.

    >>> title_above(Document(id="a", text="Albania\n\nIt lies by the sea."))
    'Albania'
    """
    title = document.title.strip()
    own = title != file_name(document) and describes(title, document.text)
    return title if own else title_line(document.text)


def searched_text(document: Document) -> str:
    """All of a document that word search knows: its title, the name of its file, its text."""
    names = dict.fromkeys((document.title, file_name(document)))
    return "\n".join([*filter(None, names), document.text])


def file_name(document: Document) -> str:
    """The name of the file that a document is; empty for a record, or a text from elsewhere."""
    is_file = document.source != "" and document.id == document.source
    return PurePosixPath(document.source).name if is_file else ""
