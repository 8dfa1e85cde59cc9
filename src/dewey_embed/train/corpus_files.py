"""The local files of a source → one table of texts; a file that cannot be read costs itself.

Parquet and JSON are tables with a column of texts, read by `datasets`; everything else that
`dewey index` reads is a document a file, read by the same reader.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.errors import ReadError, first_line
from dewey_embed.printable import first_few
from dewey_embed.text.folders import is_clutter, walk
from dewey_embed.text.reader import EXTENSIONS, read_documents
from dewey_embed.train.recipe import DATA, FIRST_LINE, FilesSource
from dewey_embed.types import Unreadable

if TYPE_CHECKING:
    from datasets import Dataset

TABLES = {
    "parquet": (".parquet",),
    "json": tuple(
        f"{kind}{packed}"
        for kind in (".jsonl", ".ndjson", ".json")
        for packed in ("", ".gz", ".zst")
    ),
}
"""Which of `datasets`' builders reads a file, by how its name ends."""

DOCUMENTS = "documents"
DOCUMENT_ENDINGS = tuple(ending for ending in EXTENSIONS if not ending.endswith(TABLES["json"]))
MOST_NAMED, MOST_ENDINGS = 3, 16


class Files(NamedTuple):
    """Files by what reads them, and a line for each file or folder that cannot be looked at."""

    by_reader: dict[str, list[str]]
    faults: tuple[str, ...]


class Texts(NamedTuple):
    """A table of texts, and the files and the lines of JSON that cannot be read.

    Its columns are `text` and, where the source has a column of titles, `title`.
    """

    table: Dataset
    faults: tuple[str, ...]
    bad_lines: tuple[str, ...]


def find_files(source: FilesSource) -> Files:
    """The files of a source, sorted.

    Raises:
        ReadError: there is none, or they may not be looked for, or a document has no column of
            titles.

    """
    path = os.path.expanduser(source.path)
    found, faults = [path], list[str]()
    if _is_folder(path):
        found, faults = _below(path)
    elif glob.has_magic(path):
        _is_folder(path[: _first_magic(path)].rpartition("/")[0] or ".")
        found = [
            each for each in glob.glob(path, recursive=True) if not is_clutter(Path(each).name)
        ]
    chosen: dict[str, list[str]] = {}
    for file in sorted(found):
        reader = _reader_of(file, by_name=file == path)
        if reader and os.path.isfile(file):
            chosen.setdefault(reader, []).append(file)
    if not chosen:
        endings = (*(ending for group in TABLES.values() for ending in group), *DOCUMENT_ENDINGS)
        root = f"the folder in place of {DATA} by --data FOLDER (teach, train), or "
        raise ReadError(
            f"{source.path}: no file here that ends in {first_few(endings, MOST_ENDINGS)} "
            f"(paths are read from {Path.cwd()}); correct corpus.sources.path, or give "
            f"{root if source.path.startswith(DATA) else ''}the path by "
            "--set corpus.sources.0.path=PATH (sources count from 0)"
            + "".join(f"; {fault}" for fault in faults[:1])
        )
    if DOCUMENTS in chosen and (column := source.columns.get("title")):
        raise ReadError(
            f"{chosen[DOCUMENTS][0]}: is no table, so it has no column {column!r}; leave "
            f'titles out of this source, or set it to "{FIRST_LINE}"'
        )
    return Files(chosen, tuple(faults))


def read_files(source: FilesSource) -> Texts:
    """The texts of a source's files, in the order of their names.

    Raises:
        ReadError: there are no files, or nothing could be read of any; names the files.

    """
    from datasets import Value, concatenate_datasets

    found = find_files(source)
    parts, faults, bad_lines = [], list(found.faults), list[str]()
    for reader, files in found.by_reader.items():
        if reader == DOCUMENTS:
            tables, lost = _documents(files)
        else:
            tables, lost, bad = _tables(reader, files, source.columns)
            bad_lines += bad
        parts += tables
        faults += lost
    if not parts:
        raise ReadError(
            faults[0]
            if len(faults) == 1
            else f"{source.path}: none can be read: {first_few(faults, MOST_NAMED, '; ')}"
        )
    if bad_lines:  # sound lines of a damaged file are plain texts, whatever they were
        parts = [_as_texts(part) for part in parts]
    if len(parts) > 1:
        wide, narrow = Value("large_string"), Value("string")
        parts = [p.cast_column("text", narrow) if p.features["text"] == wide else p for p in parts]
    try:
        return Texts(concatenate_datasets(parts), tuple(faults), tuple(bad_lines))
    except ValueError:
        raise ReadError(
            f"{source.path}: texts in one kind of file and conversations in another; "
            "make each kind a source of its own"
        ) from None


def cause(error: Exception) -> str:
    """The first line of what went wrong; `datasets` says nothing where there are no rows."""
    source = error.__cause__ or error
    return first_line(source) if str(source).strip() else "no rows"


def chosen_columns(table: Any, columns: Mapping[str, str], name: str) -> Any:
    """Only the columns of texts and titles, by what they hold.

    Raises:
        ReadError: there is no such column; names those there are.

    """
    there = table.column_names or list(next(iter(table)))
    for kind, column in columns.items():
        if column not in there:
            raise ReadError(
                f"{name}: has no column {column!r} but {', '.join(there)}; set "
                f"corpus.sources.{'text' if kind == 'text' else 'titles'}"
            )
    return table.select_columns(list(columns.values()))


def _tables(
    builder: str, files: Sequence[str], columns: Mapping[str, str]
) -> tuple[list[Dataset], list[str], list[str]]:
    """The tables of some files, all at once if all are sound; the files and lines that are not."""
    try:
        return [_table(builder, files, columns)], [], []
    except ReadError:
        pass
    parts, faults, bad_lines = list[Any](), list[str](), list[str]()
    for file in files:
        try:
            parts.append(_table(builder, [file], columns))
        except ReadError as error:
            sound, bad = _sound_lines(file, columns)
            parts += sound
            bad_lines += bad if sound else ()
            faults += () if sound else (str(error),)
    return parts, faults, bad_lines


def _sound_lines(file: str, columns: Mapping[str, str]) -> tuple[list[Dataset], list[str]]:
    """The sound lines of a file of JSON lines, and what is wrong with the others."""
    from datasets.exceptions import DatasetGenerationError

    if not file.lower().removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".ndjson")):
        return [], []
    try:
        stamp = (file, *_stamp(file))
        return _generated(_line_rows, list(columns), stamp=stamp, columns=dict(columns))
    except (DatasetGenerationError, ValueError):  # it cannot be unpacked, or has no lines
        return [], []


def _line_rows(
    stamp: tuple[str, int, int], columns: Mapping[str, str]
) -> Iterator[dict[str, str | None]]:
    """A row for each line of JSON, or for what is wrong with it."""
    import zstandard

    file = stamp[0]
    nothing = dict.fromkeys(columns)
    openers: dict[str, Any] = {".gz": gzip.open, ".zst": zstandard.open}
    with openers.get(Path(file).suffix.lower(), open)(file, "rb") as stream:
        for number, line in enumerate(io.BufferedReader(stream), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                row = {kind: AS_STRING[kind](record[column]) for kind, column in columns.items()}
                for value in row.values():
                    (value or "").encode()  # half a surrogate pair is refused here
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else str(error)
                yield nothing | {"fault": f"{file}: line {number}: {reason}"}
            else:
                yield row | {"fault": None}


def title_of(value: Any) -> str | None:
    """A title as a string, or None: of what is no text, number or date."""
    return None if value is None or isinstance(value, list | dict) else str(value)


def joined(value: Any) -> str | None:
    """One text: a string as it is, the turns of a conversation below each other, else None.

    Turns are tables with their words under `value` (Infinity-Instruct) or `content` (OpenAI).
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    turns = [
        turn.get("value", turn.get("content")) if isinstance(turn, dict) else turn for turn in value
    ]
    texts = [turn for turn in turns if isinstance(turn, str)]
    return "\n\n".join(texts) if texts and len(texts) == len(turns) else None


AS_STRING: Mapping[str, Callable[[Any], str | None]] = {"text": joined, "title": title_of}
"""What makes a string of a value, by what its column holds."""


def _as_texts(table: Dataset) -> Dataset:
    """The table with the turns of its conversations joined."""
    from datasets import Features, Value

    if table.features["text"] in (Value("string"), Value("large_string")):
        return table
    features = Features(table.features | {"text": Value("string")})
    return table.map(lambda row: {"text": joined(row["text"])}, features=features)


def _table(builder: str, files: Sequence[str], columns: Mapping[str, str]) -> Dataset:
    """The columns of texts and titles of some files; the message of an error is about the first."""
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        table = load_dataset(builder, data_files=list(files), split="train")
        chosen: Dataset = chosen_columns(table, columns, files[0])
        chosen.data.table.validate(full=True)  # bytes that are no UTF-8
    except (DatasetGenerationError, OSError, ValueError, StopIteration, pa.ArrowException) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"{files[0]}: cannot be read as {builder} ({cause(error)}); mend the file or leave it "
            "out of the recipe's path"
        ) from None
    texts = chosen.rename_columns({column: kind for kind, column in columns.items()})
    return texts if "title" not in columns else _with_string_titles(texts)


def _with_string_titles(table: Dataset) -> Dataset:
    """The table with titles as strings, so that the tables of several files go together."""
    from datasets import Features, Value

    if table.features["title"] == Value("string"):
        return table
    features = table.features | {"title": Value("string")}
    return table.map(lambda row: {"title": title_of(row["title"])}, features=Features(features))


def _documents(files: Sequence[str]) -> tuple[list[Dataset], list[str]]:
    """The documents of some files as a table, and what is wrong with the others."""
    return _generated(_document_rows, ["text"], stamps=[(file, *_stamp(file)) for file in files])


def _generated(
    rows: Callable[..., Iterator[dict[str, str | None]]], names: Sequence[str], **arguments: Any
) -> tuple[list[Dataset], list[str]]:
    """Rows of the columns `names`, or of `fault`, as a table, none without rows, and the faults."""
    from datasets import Dataset, Features, Value

    features = Features(dict.fromkeys((*names, "fault"), Value("string")))
    table = Dataset.from_generator(rows, features=features, gen_kwargs=arguments, split="train")
    faults = table["fault"][:]
    sound = [row for row, fault in enumerate(faults) if fault is None]
    lost = [fault for fault in faults if fault]
    return ([table.select(sound).select_columns(list(names))] if sound else []), lost


def _document_rows(stamps: Sequence[tuple[str, int, int]]) -> Iterator[dict[str, str | None]]:
    """A row for each document, or for what is wrong with its file.

    Stamps change with a file's content, so that `datasets` takes no older table from its cache.
    """
    for found in read_documents([file for file, _, _ in stamps]):
        if not isinstance(found, Unreadable):
            yield {"text": found.text, "fault": None}
        elif found.skipped:  # an empty file
            yield {"text": "", "fault": None}
        else:
            yield {"text": None, "fault": str(found)}


def _stamp(file: str) -> tuple[int, int]:
    """A file's size and time of change."""
    try:
        about = os.stat(file)
    except OSError:
        return 0, 0
    return about.st_size, about.st_mtime_ns


def _reader_of(file: str, *, by_name: bool) -> str | None:
    """What reads a file by the end of its name; one that the recipe names is text if unknown."""
    name = file.lower()
    for builder, endings in TABLES.items():
        if name.endswith(endings):
            return builder
    return DOCUMENTS if by_name or name.endswith(DOCUMENT_ENDINGS) else None


def _is_folder(path: str) -> bool:
    """Whether a path is a folder; one that may not be looked into is an error, not a no."""
    try:
        with os.scandir(path):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise ReadError(
            f"{path}: cannot be looked into ({getattr(error, 'strerror', error)}); change its "
            "permissions, or correct corpus.sources.path"
        ) from None


def _below(folder: str) -> tuple[list[str], list[str]]:
    """The files under a folder, and what is wrong with those that cannot be looked at."""
    files, faults = [], []
    for found in walk(Path(os.path.realpath(folder))):
        if not isinstance(found, Unreadable):
            files.append(str(found.path))
        elif not found.skipped:
            faults.append(str(found))
        elif found.kind.startswith("."):  # of no format that holds documents: a table, perhaps
            files.append(found.source)
    return files, faults


def _first_magic(path: str) -> int:
    """Where a pattern begins to be one."""
    return min(place for mark in "*?[" if (place := path.find(mark)) >= 0)
