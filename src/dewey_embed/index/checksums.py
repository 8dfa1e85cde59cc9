"""Checksums of files: what was written is what is read, or the reader is told which file is not.

A ledger lists files with their size, time of change and CRC-32. A file whose size or CRC differs
is damaged. A large file that still has the size and time that it had is not read again: comparing
gigabytes before every search would cost more than the search.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dewey_embed.files import crc32, json_crc, write_json

LEDGER_NAME = "checksums.json"

TRUSTED_BYTES = 4 << 20
"""A file larger than this is trusted, unread, while its size and time of change are the same."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A file's size in bytes, time of change in nanoseconds, and CRC-32."""

    size: int
    mtime_ns: int
    crc: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Checksums by path within a folder, and facts that are kept with them."""

    files: Mapping[str, Checksum]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        folder: Path,
        paths: Iterable[Path],
        *,
        known: Mapping[str, Checksum] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Ledger:
        """The ledger of files below `folder`; those `known` and not touched since are not read."""
        files = {}
        for path in paths:
            name = path.relative_to(folder).as_posix()
            try:
                status = path.stat()
                held = (known or {}).get(name)
                if held is None or (held.size, held.mtime_ns) != (
                    status.st_size,
                    status.st_mtime_ns,
                ):
                    held = Checksum(status.st_size, status.st_mtime_ns, crc32(path))
                files[name] = held
            except FileNotFoundError:
                continue  # a version that was cleared away meanwhile
        return cls(files, facts or {})

    @classmethod
    def read(cls, path: Path) -> Ledger | None:
        """The ledger at `path`; `None` where there is none that is complete."""
        try:
            values = json.loads(path.read_text("utf-8"))
            body = values["ledger"]
            if values["crc"] != json_crc(body):
                return None
            files = {name: Checksum(*entry) for name, entry in body["files"].items()}
            return cls(files, body["facts"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, LookupError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Write the ledger, in place of an older one, by a rename."""
        body = {
            "facts": dict(self.facts),
            "files": {
                name: [each.size, each.mtime_ns, each.crc] for name, each in self.files.items()
            },
        }
        write_json(path, {"ledger": body, "crc": json_crc(body)}, sync=True)

    def damaged(self, folder: Path) -> str | None:
        """The first file that is not as it was written, with what is wrong; `None` if all are.

        A file that is missing is not among them: whoever needs it finds that out.
        """
        for name, checksum in self.files.items():
            path = folder / name
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            if status.st_size != checksum.size:
                return f"{path} has {status.st_size:,} bytes, not {checksum.size:,}"
            same_time = status.st_mtime_ns == checksum.mtime_ns
            if same_time and checksum.size > TRUSTED_BYTES:
                continue
            if crc32(path) != checksum.crc:
                return f"{path} does not hold what was written to it (another checksum)"
        return None
