"""Where compiled libraries are kept, and which of them may be loaded.

A library is code that runs as whoever loads it. So it is loaded only from folders that none but
its user (or root) can write to, and only whole: its file ends with the digest of all before it.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from functools import cache, lru_cache
from pathlib import Path

log = logging.getLogger(__name__)

PARTS = ("dewey-embed", "native")
DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path | None:
    """The user's own cache of libraries; None where there is no home, or others may write to it."""
    folder = wanted_folder()
    if folder is None or _exposed(folder):
        return None
    return folder


def exposed_home() -> bool:
    """Whether it is for others' right to write that there is no cache."""
    folder = wanted_folder()
    return folder is not None and _exposed(folder)


def wanted_folder() -> Path | None:
    """Where the cache would be: in XDG_CACHE_HOME, where that is an absolute path, or the home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = named if named.is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:
        log.debug("no home folder: kernels are not kept")
        return None
    return root.joinpath(*PARTS)


def _exposed(folder: Path) -> bool:
    """Whether others may change the folder; a warning says it once."""
    try:
        exposed = exposed_part(folder)
    except OSError as error:  # which making or reading it will meet, too
        log.debug("%s cannot be looked at: %s", folder, error)
        return False
    if exposed is not None:
        _warn(exposed)
    return exposed is not None


@cache
def private_folder() -> Path:
    """A folder of this process alone, for where nothing can be kept."""
    folder = Path(tempfile.mkdtemp(prefix="dewey-native-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # and not in its forked children
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def exposed_part(path: Path) -> Path | None:
    """The nearest of a path and the folders it lies in that others may change; None if none is.

    What is not there yet will be made for this user alone. In a sticky folder, such as /tmp, others
    cannot replace what is not theirs.
    """
    if not hasattr(os, "geteuid"):  # no owners and modes to go by
        return None
    own = {0, os.geteuid()}
    path = path.resolve()
    for part in (path, *path.parents):
        try:
            found = part.stat()
        except FileNotFoundError:
            continue
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        open_to_others = found.st_mode & stat.S_IWOTH or (
            found.st_mode & stat.S_IWGRP and not _is_private(found.st_gid)
        )
        if found.st_uid not in own or (open_to_others and not sticky):
            return part
    return None


def make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, for this user alone."""
    for part in (*reversed(folder.parents), folder):
        if not part.exists():
            part.mkdir(mode=0o700, exist_ok=True)


def seal(path: Path) -> None:
    """Append its digest to a library, which the loader of libraries passes over."""
    data = path.read_bytes()
    with path.open("ab") as file:
        file.write(hashlib.sha256(data).digest())
    path.chmod(0o600)


def may_be_loaded(path: Path) -> bool:
    """Whether a library is there, whole, and its user's own."""
    try:
        found = path.stat()
    except OSError:
        return False
    return _checked(path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _checked(path: Path, _inode: int, _changed: int, _size: int) -> bool:
    """As `may_be_loaded`, once for each state of a file."""
    try:
        data = path.read_bytes()
        exposed = exposed_part(path)
    except OSError as error:
        log.debug("%s cannot be read: %s", path, error)
        return False
    if exposed is not None:
        _warn(exposed)
        return False
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        log.debug("%s is damaged, and built again when it is worth it", path)
        return False
    return True


@cache
def _warn(exposed: Path) -> None:
    """Say once for each place why kernels are neither kept in it nor loaded from it."""
    log.warning(
        "%s may be changed by other users: no compiled kernels are loaded from it, and encoding is "
        "slower; remove their right to write (chmod go-w), or set XDG_CACHE_HOME to a folder of "
        "your own",
        exposed,
    )


@cache
def _is_private(group: int) -> bool:
    """Whether a group is its user's own, as many systems make one for each user."""
    try:
        import grp
        import pwd

        found, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except (ImportError, KeyError):
        return False
    return (
        found.gr_gid == user.pw_gid
        and not set(found.gr_mem) - {user.pw_name}
        and (found.gr_name == user.pw_name)
    )
