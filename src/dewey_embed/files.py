"""Writing files: complete or not at all, one writer at a time; digests of files.

All of the package writes through this module, so that after a killed run, a full disk or two
writers at once there is the old file or the new one, never half of either.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import struct
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dewey_embed.errors import ConfigError

_BLOCK = 2**22

DAMAGED_ARCHIVE = (
    OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What numpy raises for archives of arrays (.npz) that are damaged, or hold something else."""

_LARGE = 2**24
"""Bytes of a file that takes longer to hash than its digest takes to look up."""

_SETTLED_NS = 2 * 10**9
"""A file that changed less long ago may change again within one tick of its file system's clock."""


@contextmanager
def atomic_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A draft beside `path`, which replaces it when the block ends without an error.

    With `sync` the draft and its folder are flushed to the disk, so that the file also survives a
    loss of power.

    Raises:
        OSError: the draft cannot be written or renamed; `path` is unchanged.

    """
    draft = draft_of(path)
    try:
        with _named(path):
            yield draft
            if sync:
                flush(draft)
            os.replace(draft, path)
            if sync:
                flush_folder(path.parent)
    finally:
        with suppress(OSError):  # of a disk that has failed: the first error is what counts
            draft.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Refuse a path that no file can be written to; asked before the work that it shall hold.

    Raises:
        ConfigError: it is a folder, or its folder takes no file.

    """
    if os.path.isdir(path):
        raise ConfigError(f"{path}: is a folder; name a file to write")
    there = next(each for each in Path(os.path.abspath(path)).parents if os.path.lexists(each))
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({there}: {error.strerror}); give another path"
        ) from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name a file in errors of the system that name none, as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def draft_of(path: Path) -> Path:
    """A new hidden name beside `path`, for a file that will be renamed to it.

    It names the process and the machine, by which drafts of killed runs are told from others.
    """
    return path.with_name(
        f".{path.name}.{os.getpid():08x}{_machine():08x}{secrets.token_hex(2)}.draft"
    )


def without_draft(path: str) -> str:
    """A path in which drafts have the names of what they become.

    >>> without_draft("a/.b.json.0000000112345678abcd.draft/c")
    'a/b.json/c'
    """
    return re.sub(r"(^|/)\.([^/]+)\.[0-9a-f]{20}\.draft(?=/|$)", r"\1\2", path)


def _machine() -> int:
    return zlib.crc32(platform.node().encode())


def drafts_of(path: Path) -> list[Path]:
    """The drafts of `path` that are there: of running writers, and of killed ones."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{8}}|[0-9a-f]{{20}})\.(draft|tmp)")
    return [each for each in path.parent.iterdir() if ours.fullmatch(each.name)]


def remove_drafts(path: Path) -> None:
    """Remove the drafts of `path` that killed runs left; only the holder of its lock may."""
    for each in drafts_of(path):
        each.unlink(missing_ok=True)


def sweep_drafts(folder: Path) -> None:
    """Remove all drafts below a folder whose processes, on this machine, have ended."""
    _sweep(folder.rglob(".*.draft"))


def _sweep(drafts: Iterable[Path]) -> None:
    for each in drafts:
        found = re.search(r"\.([0-9a-f]{8})([0-9a-f]{8})[0-9a-f]{4}\.draft$", each.name)
        if found and int(found[2], 16) == _machine() and not is_running(int(found[1], 16)):
            with suppress(OSError):
                each.unlink()


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, as far as this system tells."""
    if os.name == "nt":  # where a signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a text file in UTF-8, with the text's own line ends, complete or not at all.

    Drafts of it that killed runs left are removed.
    """
    _sweep(drafts_of(path))
    with atomic_file(path, sync=sync) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any, *, indent: int | None = None, sync: bool = False) -> None:
    """Write a value as a JSON file, complete or not at all."""
    write_text(path, json_text(value, indent=indent), sync=sync)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The text of a JSON file."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # Bytes of a file's name that are not UTF-8 are lone surrogates, which JSON holds as escapes.
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; one that a killed run or a full disk left unfinished is cut off.

    Raises:
        OSError: it cannot be written.

    """
    with _named(path), path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            start = file.seek(max(0, end - _BLOCK))
            file.truncate(start + file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a JSON object with their own checksum beside them, under `crc`."""
    return {**values, "crc": json_crc(values)}


def unsealed(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values that were `sealed`, or that never were; None where they are damaged."""
    kept = {key: value for key, value in values.items() if key != "crc"}
    return kept if "crc" not in values or values["crc"] == json_crc(kept) else None


def json_crc(values: Any) -> int:
    """The CRC-32 of a JSON value, which finds damage; the order of keys is no part of it."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk; a rename may come before them otherwise."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows cannot, and does not wait."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only process that writes a file; drafts of killed runs are removed first.

    Raises:
        ConfigError: another process is writing the file.
        OSError: its folder is missing or cannot be written.

    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), remove=True))
        except BlockingIOError:
            raise ConfigError(f"{path}: is being written by another process; wait for it") from None
        remove_drafts(path)
        yield


@contextmanager
def locked(path: Path, *, remove: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock on a file, which the system releases when the process ends, however it ends.

    With `remove` the file is removed afterwards; with `wait` another process may finish first.

    Raises:
        BlockingIOError: another process holds it, and `wait` is not set.
        OSError: the file's folder is missing or cannot be written.

    """
    from filelock import FileLock, Timeout

    next(path.parent.iterdir(), None)  # filelock would make a folder that is missing
    if not path.exists():  # it would wait for a file that cannot be made, as in /proc
        TemporaryFile(dir=path.parent).close()
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
        while not path.exists():  # its last holder removed it between our opening and locking
            lock.release()
            lock.acquire()
    except Timeout:
        raise BlockingIOError(f"{path} is locked by another process") from None
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):  # Windows keeps a file that is open
                path.unlink()
        lock.release()


def boot_id() -> str | None:
    """What tells one start of this system from the next; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return None


def crc32(path: Path) -> int:
    """The CRC-32 of a file's bytes, which finds damage."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def sha256(path: Path) -> bytes:
    """The SHA-256 of a file's bytes, which tells files apart."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def cache_folder() -> Path | None:
    """The user's cache, in XDG_CACHE_HOME or `~/.cache`; None where there is no home folder."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = named if named.is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:
        return None
    return root / "dewey-embed"


def cached_sha256(path: Path) -> bytes:
    """The SHA-256 of a file; a large one's is kept in the user's cache until the file changes.

    A file has changed when its size, its identity on the disk or one of its times is another.
    Where the cache cannot be read or written, the file is hashed each time.
    """
    folder, status = cache_folder(), path.stat()
    if folder is None or status.st_size < _LARGE:
        return sha256(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    entry = folder / "digests" / f"{name}.json"
    state = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    with suppress(OSError, ValueError, TypeError, LookupError):
        kept = json.loads(entry.read_bytes())
        if kept["state"] == state and len(digest := bytes.fromhex(kept["sha256"])) == 32:
            return digest
    digest = sha256(path)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
        with suppress(OSError):
            entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(entry, {"path": str(path), "state": state, "sha256": digest.hex()})
    return digest
