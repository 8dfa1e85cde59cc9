"""What the reader of a format is given, and what it gives: files, limits, fields, contents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dewey_embed.errors import ConfigError

STDIN = "-"
FILE_TIMEOUT_S = 30.0
FILE_MEMORY_MB = 1024
MAX_TEXT_MB = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """What one file may take; a file that asks more is named with the limit, and the rest is read.

    - `file_timeout_s`: seconds of processor time that a PDF, Word file, page or other format is
      parsed, in a process of its own. The clock may show four times as much.
    - `file_memory_mb`: megabytes that this process may take for it.
    - `max_text_mb`: megabytes of one document's text: a text file, a line of JSONL, the source of a
      page, or what is unpacked from any other format.
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
        """What parsing one file may take, in bytes."""
        return int(self.file_memory_mb * 1_000_000)

    def too_long(self, num_bytes: int | None = None) -> str:
        """The reason why a text is not read that is longer than the limit."""
        size = "" if num_bytes is None else f"{num_bytes / 1e6:,.0f} MB, "
        return (
            f"{size}longer than the {self.max_text_mb:,} MB of text that are read; "
            "--max-text-mb raises the limit"
        )

    def too_slow(self) -> str:
        """The reason why a file is not read that takes longer than the limit."""
        return (
            f"parsing takes more than {self.file_timeout_s:g} s; --file-timeout-s raises the limit"
        )

    def too_large(self) -> str:
        """The reason why a file is not read that needs more memory than the limit."""
        return (
            f"parsing needs more than {self.file_memory_mb:,} MB; --file-memory-mb raises the limit"
        )


DEFAULT_LIMITS = ReadLimits()


class Content(NamedTuple):
    """What a file says: its text, its title if it names one, and what of it was not read."""

    text: str
    title: str = ""
    unread: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFields:
    """Which fields of a JSONL record are what; all other flat ones are metadata.

    Several text fields are joined by a blank line; none given means `text`. Without `id_field`
    the id is `_id` or `id` if there is one, else the file and line; without `title_field` the
    title is `title` if there is one.
    """

    text_fields: tuple[str, ...] = ()
    id_field: str | None = None
    title_field: str | None = None


class File(NamedTuple):
    """A file to read: how it is opened, what its documents are from, and its names.

    `names` are the name under which it was found and, where that is a link, the file's own;
    `folder` is where it was found within the root.
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
