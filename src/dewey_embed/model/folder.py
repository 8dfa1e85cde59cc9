"""A model folder written so that what is loaded from it is the old model or the new, never both.

A new folder is written beside its name and then renamed. In one that is there already, only the
model's files are replaced; a README, `.git` and all else stay. The new files lie complete in
`SAVED` within it, from one rename on, until each has its place; while `SAVED` is there (whoever was
saving has been killed), it is what is loaded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dewey_embed.errors import CheckpointError

SETTINGS_FILE = "dewey.json"
MODULES_FILE = "modules.json"

SAVED = ".dewey-saved"
DRAFT = ".dewey-draft"

BESIDE_A_MODEL = ("README", "LICENSE", ".")
"""How the names begin of what may lie in a folder that holds no model yet."""


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A draft that stands as the model at `path` only once all of it is written.

    Raises:
        CheckpointError: `path` is a file, holds something that is no model folder, or cannot be
            written to; what was there is then as it was.

    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r}: no name for a folder ({error})") from None
    try:
        if path.is_dir():
            _refuse_others(path)
            place = path / DRAFT
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path.parent / f".{path.name}{DRAFT}"
        with _draft(place) as draft:
            yield draft
            if path.is_dir():
                _put_in_place(draft, path)
            else:
                draft.replace(path)
    except FileExistsError as error:
        raise CheckpointError(f"{path}: {error.filename} is a file; give a folder") from None
    except NotADirectoryError as error:
        raise CheckpointError(f"{path}: is or lies in a file ({error}); give a folder") from None
    except OSError as error:
        raise CheckpointError(
            f"{path}: the model cannot be saved there ({error}); free some space, check the "
            "permissions, or choose another folder"
        ) from None


def complete(folder: Path) -> Path:
    """Where the folder's model lies: in the files that a killed save left, if it left any.

    Raises:
        CheckpointError: the folder may not be looked into.

    """
    saved = folder / SAVED
    try:
        return saved if (saved / SETTINGS_FILE).is_file() else folder
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be looked at ({error})") from None


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A new empty folder, gone in the end unless it was renamed; those of the dead are removed."""
    for old in place.parent.glob(f"{place.name}.*"):
        if not _lives(old.suffix):
            shutil.rmtree(old, ignore_errors=True)
            with suppress(OSError):
                old.unlink(missing_ok=True)
    draft = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _lives(suffix: str) -> bool:
    """Whether the process whose number ends a draft's name may still run."""
    if os.name == "nt":  # where a signal 0 would end it
        return True
    try:
        os.kill(int(suffix[1:]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return int(suffix[1:]) != os.getpid()


def _put_in_place(draft: Path, path: Path) -> None:
    """Make the draft's files those of the model at `path`, at once for whoever loads it."""
    saved = path / SAVED
    if saved.exists():
        _place(saved, path, draft.with_suffix(".old"))
    draft.replace(saved)
    _place(saved, path, draft)


def _place(saved: Path, path: Path, away: Path) -> None:
    """Give each complete file its place, and remove those of modules that are no more.

    What names the modules comes last, so that this can be done again from any point of it.
    """
    stale = _module_files(path)
    files = {file.relative_to(saved) for file in saved.rglob("*") if file.is_file()}
    last = {Path(MODULES_FILE), Path(SETTINGS_FILE)} & files
    link = path / f"{DRAFT}.link"
    for file in sorted(files - last):
        _place_file(saved / file, path / file, link)
    for file in stale - files:
        (path / file).unlink(missing_ok=True)
        with suppress(OSError):  # others' files lie in it
            (path / file).parent.rmdir()
    for file in sorted(last, reverse=True):
        _place_file(saved / file, path / file, link)
    # Half removed it would still be taken for the model.
    shutil.rmtree(away, ignore_errors=True)
    saved.replace(away)
    shutil.rmtree(away, ignore_errors=True)


def _place_file(file: Path, target: Path, link: Path) -> None:
    """Put a file, which stays where it is, in the place of another, by way of `link`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(file, link)
    except OSError:  # a file system without links
        shutil.copyfile(file, link)
    link.replace(target)


def _module_files(path: Path) -> frozenset[Path]:
    """The files of the modules of a model that we wrote, relative to its folder."""
    if not (path / SETTINGS_FILE).exists():
        return frozenset()
    try:
        modules = json.loads((path / MODULES_FILE).read_text(encoding="utf-8"))
        folders = [Path(module["path"]) for module in modules if module["path"]]
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
    names = ("config.json", "model.safetensors")
    return frozenset(
        folder / name
        for folder in folders
        for name in names
        if len(folder.parts) == 1 and folder.name != ".."
    )


def _refuse_others(path: Path) -> None:
    """Refuse a folder that holds no model but other things."""
    if (path / SETTINGS_FILE).exists() or (path / MODULES_FILE).exists():
        return
    if (path / "config.json").exists() and (path / "tokenizer.json").exists():
        return
    if all(entry.name.startswith(BESIDE_A_MODEL) for entry in path.iterdir()):
        return
    raise CheckpointError(
        f"{path} exists and is no Dewey model folder (nor another model's); choose another path"
    )
