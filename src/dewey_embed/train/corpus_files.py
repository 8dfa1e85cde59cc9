"""The local files of a source → one table of texts; a file that cannot be read costs itself.

Parquet and JSON are tables with a column of texts, read by `datasets`; everything else that
`dewey index` reads is a document a file, read by the same reader.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text.folders import is_clutter, walk
from dewey_embed.text.reader import EXTENSIONS, read_documents
from dewey_embed.train.recipe import FilesSource
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
MOST_NAMED = 3


class Files(NamedTuple):
    """Files by what reads them, and a line for each file or folder that cannot be looked at."""

    by_reader: dict[str, list[str]]
    faults: tuple[str, ...]


class Texts(NamedTuple):
    """A table with the column `text`, and a line for each file that could not be read."""

    table: Dataset
    faults: tuple[str, ...]


def find_files(source: FilesSource) -> Files:
    """The files of a source, sorted.

    Raises:
        ReadError: there is none, or they may not be looked for.

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
        raise ReadError(
            f"{source.path}: no file here that ends in {', '.join(endings)} "
            f"(paths are read from {Path.cwd()}); correct corpus.sources.path"
            + "".join(f"; {fault}" for fault in faults[:1])
        )
    return Files(chosen, tuple(faults))


def read_files(source: FilesSource) -> Texts:
    """The texts of a source's files, in the order of their names.

    Raises:
        ReadError: there are no files, or nothing could be read of any; names the files.

    """
    from datasets import Value, concatenate_datasets

    found = find_files(source)
    parts, faults = [], list(found.faults)
    for reader, files in found.by_reader.items():
        part, lost = (
            _documents(files) if reader == DOCUMENTS else _tables(reader, files, source.text)
        )
        parts += part
        faults += lost
    if not parts:
        raise ReadError(
            faults[0] if len(faults) == 1 else f"{source.path}: none can be read: {named(faults)}"
        )
    if len(parts) > 1:
        wide, narrow = Value("large_string"), Value("string")
        parts = [p.cast_column("text", narrow) if p.features["text"] == wide else p for p in parts]
    try:
        return Texts(concatenate_datasets(parts), tuple(faults))
    except ValueError:
        raise ReadError(
            f"{source.path}: texts in one kind of file and conversations in another; "
            "make each kind a source of its own"
        ) from None


def named(faults: Sequence[str]) -> str:
    """The first few faults, and how many more there are."""
    first = "; ".join(faults[:MOST_NAMED])
    more = len(faults) - MOST_NAMED
    return first if more <= 0 else f"{first}; and {more:,} more"


def cause(error: Exception) -> str:
    """The first line of what went wrong; `datasets` says nothing where there are no rows."""
    return next(iter(str(error.__cause__ or error).splitlines()), "no rows")


def text_column(table: Any, column: str, name: str) -> Any:
    """Only the column of texts, under the name `text`.

    Raises:
        ReadError: there is no such column; names those there are.

    """
    columns = table.column_names or list(next(iter(table)))
    if column not in columns:
        raise ReadError(
            f"{name}: has no column {column!r} but {', '.join(columns)}; set corpus.sources.text"
        )
    chosen = table.select_columns([column])
    return chosen if column == "text" else chosen.rename_column(column, "text")


def _tables(builder: str, files: Sequence[str], column: str) -> tuple[list[Dataset], list[str]]:
    """The tables of some files, all at once if all are sound, and what is wrong with the others."""
    try:
        return [_table(builder, files, column)], []
    except ReadError as error:
        if len(files) == 1:
            return [], [str(error)]
    parts, faults = [], []
    for file in files:
        try:
            parts.append(_table(builder, [file], column))
        except ReadError as error:
            faults.append(str(error))
    return parts, faults


def _table(builder: str, files: Sequence[str], column: str) -> Dataset:
    """The column of texts of some files; the message of an error is about the first."""
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        table = load_dataset(builder, data_files=list(files), split="train")
        texts: Dataset = text_column(table, column, files[0])
        texts.data.table.validate(full=True)  # bytes that are no UTF-8
    except (DatasetGenerationError, OSError, ValueError, StopIteration, pa.ArrowException) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"{files[0]}: cannot be read as {builder} ({cause(error)}); mend the file or leave it "
            "out of the recipe's path"
        ) from None
    return texts


def _documents(files: Sequence[str]) -> tuple[list[Dataset], list[str]]:
    """The documents of some files as a table, and what is wrong with the others."""
    from datasets import Dataset, Features, Value

    features = Features({"text": Value("string"), "fault": Value("string")})
    stamps = [(file, *_stamp(file)) for file in files]
    table = Dataset.from_generator(
        _document_rows, features=features, gen_kwargs={"stamps": stamps}, split="train"
    )
    faults = table["fault"][:]
    sound = [row for row, fault in enumerate(faults) if fault is None]
    lost = [fault for fault in faults if fault]
    return ([table.select(sound).select_columns(["text"])] if sound else []), lost


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
