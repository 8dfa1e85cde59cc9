"""The files under a folder: each once, in a fixed order, with those that links lead to.

A file that links lead to is read under its own name if the folder holds it, else under the name of
the first link, so that other links do not change its document.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from dewey_embed.text.formats import BY_EXTENSION, FORMATS, extension_of, known_extension
from dewey_embed.text.inputs import File
from dewey_embed.types import Unreadable

_TEMPORARY = (".part", ".crdownload", ".download", ".partial", ".opdownload", ".tmp", ".swp")
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"}
_DEPENDENCY_LOCKS = {
    *("package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock"),
    *("poetry.lock", "uv.lock", "Pipfile.lock", "Cargo.lock", "Gemfile.lock", "composer.lock"),
    *("go.sum", "flake.lock", "Podfile.lock", "mix.lock", "packages.lock.json"),
}
_GENERATED = (".min.js", ".min.css", ".js.map", ".css.map")
_NOT_DOWNLOADED = ".icloud"  # macOS leaves it in place of a file that it moved to its servers
_INDEX_FILES = ("dewey.json", "documents.lance")


def spelled(path: str | Path) -> str:
    r"""A path as text: forward slashes, bytes that are not UTF-8 spelled out as `\udc80`."""
    return Path(path).as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def walk(root: Path) -> Iterator[File | Unreadable]:
    """The files under a folder that can be read, and those that are passed over, in order.

    Hidden files and folders are left out without a message, and so are indexes of Dewey's.
    """
    visited = {str(root)}
    folders = [root]  # the next one last
    while folders:
        folder = folders.pop()
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            yield _fault(folder, root, f"folder cannot be read: {error.strerror}")
            continue
        if all(name in names for name in _INDEX_FILES):
            if folder == root:
                yield _fault(folder, root, "an index of Dewey's own; its documents are in it")
            continue
        inner = []
        for name in names:
            path = folder / name
            if name.startswith("."):
                yield from _elsewhere(path, root)
                continue
            try:
                mode = os.stat(path).st_mode
            except OSError as error:
                yield _not_there(path, root, error)
                continue
            if not stat.S_ISDIR(mode):
                yield from _file(path, mode, root)
                continue
            real = os.path.realpath(path)
            if real not in visited and not (os.path.islink(path) and _is_held(Path(real), root)):
                visited.add(real)
                inner.append(path)
        folders += reversed(inner)


def _elsewhere(path: Path, root: Path) -> Iterator[Unreadable]:
    """A hidden mark of a file that is not on this machine."""
    if path.name.endswith(_NOT_DOWNLOADED):
        away = path.with_name(path.name[1:].removesuffix(_NOT_DOWNLOADED))
        yield _fault(away, root, "not on this machine; have iCloud download it")


def named_file(path: Path, root: str) -> File:
    """The file at a path."""
    real = Path(os.path.realpath(path))
    names = (spelled(path.name), spelled(real.name))
    return File(path, spelled(real), root, "", names if names[0] != names[1] else names[:1])


def is_clutter(name: str) -> str:
    """The kind of a file that a program left behind, by its name, or nothing."""
    if name.startswith(("~$", ".~lock.")) or name.endswith("~"):
        return "lock or backup"
    if name.lower() in _SYSTEM_FILES:
        return "system"
    if name in _DEPENDENCY_LOCKS or name.lower().endswith(_GENERATED):
        return "generated"
    return "unfinished download" if extension_of(name) in _TEMPORARY else ""


def _file(path: Path, mode: int, root: Path) -> Iterator[File | Unreadable]:
    """A file of a folder, or the reason for passing it over."""
    file = named_file(path, spelled(root))
    clutter = is_clutter(path.name)
    if os.path.islink(path) and _is_read(Path(os.path.realpath(path)), root):
        return  # it comes under its own name
    if clutter:
        yield _passed_over(file, f"a {clutter} file, which nobody wrote to be read", clutter)
    elif not _is_of_folders(file.names):
        extension = extension_of(path.name)
        what = f"a {extension} file" if extension else "a file without an extension"
        reason = f"{what} in a folder: not a kind of file that is read unless it is named itself"
        yield _passed_over(file, reason, extension or "without an extension")
    elif not stat.S_ISREG(mode):  # a pipe in a folder would be waited for
        yield _passed_over(file, "not a regular file", "pipes, sockets or devices")
    else:
        within = spelled(path.parent.relative_to(root))
        yield file._replace(folder="" if within == "." else within)


def _is_of_folders(names: Sequence[str]) -> bool:
    """Whether a file with these names is read where it was not named itself."""
    extension = known_extension(names)
    return extension is not None and FORMATS[BY_EXTENSION[extension]].in_folders


def _is_held(path: Path, root: Path) -> bool:
    """Whether a resolved path is under the root, without hidden folders on its way."""
    if not path.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_read(path: Path, root: Path) -> bool:
    """Whether a file is read under the root by its own name."""
    own_name = _is_of_folders([path.name]) and not is_clutter(path.name)
    return own_name and _is_held(path, root)


def _passed_over(file: File, reason: str, kind: str) -> Unreadable:
    return Unreadable(source=file.source, reason=reason, root=file.root, skipped=True, kind=kind)


def _not_there(path: Path, root: Path, error: OSError) -> Unreadable:
    """The fault of a name in a folder that leads to no file."""
    reason = f"cannot be read: {error.strerror}"
    if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ENOTDIR):
        reason = f"a broken link: {spelled(os.readlink(path))} is not there"
    elif error.errno == errno.ELOOP:
        reason = "a link that leads to itself"
    return _fault(path, root, reason)


def _fault(path: Path, root: Path, reason: str) -> Unreadable:
    return Unreadable(source=spelled(path), reason=reason, root=spelled(root))
