"""How much of a machine one file may take while it is read, and what is said where it asks more."""

from __future__ import annotations

from dataclasses import dataclass

from dewey_embed.errors import ConfigError

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
