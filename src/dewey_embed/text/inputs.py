"""The types that pass between the readers of formats and `reader`: files, options, contents."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from dewey_embed.errors import ConfigError, ReadError
from dewey_embed.storage import is_address

if TYPE_CHECKING:  # the command line imports this module, but not NumPy
    from dewey_embed.types import Landmark, MetadataValue

STDIN = "-"
FILE_TIMEOUT_S = 30.0
FILE_MEMORY_MB = 1024
MAX_TEXT_MB = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """The time, memory and text of one file; a file past a limit is named with it and left out.

    - `file_timeout_s`: seconds of processor time for parsing a PDF, Word file, page or other format
      in a process of its own. The clock may show four times as much.
    - `file_memory_mb`: megabytes of memory for that process.
    - `max_text_mb`: megabytes of one document's text: a text file, a line of JSONL, the source of a
      page, or the unpacked text of any other format.

    >>> ReadLimits(max_text_mb=1).max_text_bytes
    1000000
    """

    file_timeout_s: float = FILE_TIMEOUT_S
    file_memory_mb: int = FILE_MEMORY_MB
    max_text_mb: int = MAX_TEXT_MB

    def __post_init__(self) -> None:
        for name in ("file_timeout_s", "file_memory_mb", "max_text_mb"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} is {value!r}; give a number above 0")

    @property
    def max_text_bytes(self) -> int:
        """The longest text in bytes."""
        return int(self.max_text_mb * 1_000_000)

    @property
    def file_memory_bytes(self) -> int:
        """The memory for parsing one file, in bytes."""
        return int(self.file_memory_mb * 1_000_000)

    def too_long(self, num_bytes: int | None = None) -> str:
        """The reason for leaving out a text that is longer than the limit."""
        size = "" if num_bytes is None else f"{num_bytes / 1e6:,.0f} MB, "
        return (
            f"{size}longer than the {self.max_text_mb:,} MB of text that are read; "
            "--max-text-mb raises the limit"
        )

    def too_slow(self) -> str:
        """The reason for leaving out a file that takes longer than the limit."""
        return (
            f"parsing takes more than {self.file_timeout_s:g} s; --file-timeout-s raises the limit"
        )

    def too_large(self) -> str:
        """The reason for leaving out a file that needs more memory than the limit."""
        return (
            f"parsing needs more than {self.file_memory_mb:,} MB; --file-memory-mb raises the limit"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFields:
    """The fields of a record that are its text, id and title; all other flat ones are metadata.

    Several text fields are joined by a blank line; none given means `text`. Without `id_field`
    the id is `_id` or `id` if there is one, else the file and line; without `title_field` the
    title is `title` if there is one.
    """

    text_fields: tuple[str, ...] = ()
    id_field: str | None = None
    title_field: str | None = None


DEFAULT_LIMITS = ReadLimits()


class ReadOptions(NamedTuple):
    """The options that every format's reader is given."""

    limits: ReadLimits = DEFAULT_LIMITS
    fields: RecordFields = RecordFields()


class Content(NamedTuple):
    """One document of a file, as the reader of a format yields it.

    `unread` counts what was left out, by kind. A file with several documents numbers them by
    `line`; their `id` is empty where they have none of their own. `metadata` comes beside the
    file's extension and folder, and before them where a key is the same. `landmarks` say where in
    the text pages, headings and lines begin.
    """

    text: str
    title: str = ""
    unread: Mapping[str, int] = {}
    line: int | None = None
    id: str = ""
    metadata: Mapping[str, MetadataValue] = {}
    landmarks: Sequence[Landmark] = ()


class File(NamedTuple):
    """A file to read: its path, the `source`, `root` and `folder` of its documents, its names.

    `names` are the name under which it was found and, where that is a link, the file's own;
    `folder` is the one within the root.
    """

    path: Path
    source: str
    root: str
    folder: str
    names: tuple[str, ...]


def content_id(prefix: str, text: str) -> str:
    """An id for a text that has no lasting place: the same text gets the same one."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{prefix}-{digest[:12]}"


def rejoined(head: bytes, rest: IO[bytes]) -> io.BufferedReader:
    """A stream as it was before its first bytes were read."""
    return io.BufferedReader(_Rejoined(head, rest))


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def check_inputs(inputs: Sequence[str | Path]) -> None:
    """Refuse inputs none of which is there.

    Raises:
        ReadError: naming them.
        TypeError: `inputs` is a single string, or an input is not a path.

    """
    if isinstance(inputs, str | os.PathLike):
        raise TypeError(f"inputs is a single path; pass a list, such as [{str(inputs)!r}]")
    for position, each in enumerate(inputs):
        if not isinstance(each, str | os.PathLike):
            raise TypeError(f"inputs[{position}] is {type(each).__name__}, not a path")
    if inputs and not any(str(each) == STDIN or is_there(each) for each in inputs):
        if addresses := [str(each) for each in inputs if is_address(each)]:
            raise ReadError(
                f"{', '.join(addresses)}: an address, not a file of this machine; only "
                "`dewey encode … --ray` reads addresses"
            )
        raise ReadError(
            f"no such file or folder: {', '.join(map(str, inputs))}; check the spelling, "
            "or write - for standard input"
        )


def is_there(path: str | Path) -> bool:
    """Whether there is such a file, if only one that may not be looked at."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # an impossible name, with a NUL
        return False
    except OSError:
        pass
    return True
