"""A model's folder: where it lies, its JSON files read into typed values, and its replacement.

Saving is all or nothing: what is loaded from a folder is the old model or the new, never a mixture.
A new folder is written beside its name and then renamed. In a folder that exists already, only the
model's files are replaced; a README, `.git` and all else stay. The new files lie complete in
`SAVED` within it, from one rename on, until each has its place; while `SAVED` is there (because
whoever was saving was killed), it is what is loaded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dewey_embed.config import describe
from dewey_embed.errors import CheckpointError, first_line
from dewey_embed.files import (
    cached_sha256,
    flush,
    is_running,
    sealed,
    sha256,
    unsealed,
    write_json,
)
from dewey_embed.printable import first_few

SETTINGS_FILE = "dewey.json"
MODULES_FILE = "modules.json"
CHECKSUMS_FILE = "dewey_checksums.json"
HISTORY_FILE = "dewey_training.json"
AXES_FILE = "teacher_axes.safetensors"
AXES_NAME = "teacher_axes"

SAVED = ".dewey-saved"
DRAFT = ".dewey-draft"

BESIDE_A_MODEL = ("README", "LICENSE", ".")
"""Beginnings of the names that may lie in a folder that holds no model yet."""

MARKS_OF_A_MODEL = {"config.json", MODULES_FILE, SETTINGS_FILE, CHECKSUMS_FILE, SAVED}
"""What lies in a model's folder, one of them at least, also where others were lost."""

MOST_NAMED = 3

EMBEDDED = "mini"

HUB_FILES = ["*.json", "*.safetensors", "*/*.json", "*/*.safetensors"]
"""The files that are fetched from the hub: no pickles, no remote code."""

Json = dict[str, Any]

FETCH = "fetch or save it again"


def locate_model(model: str | Path | None) -> tuple[str, Path]:
    """The model's name and its folder; `None` and `"mini"` are the embedded default.

    The folder of a training run has its model's. A Hugging Face id is fetched once and found in the
    hub's cache afterwards.

    Raises:
        CheckpointError: no such folder, and no such id in the cache or on the hub.

    """
    if model is None or model == EMBEDDED:
        return EMBEDDED, Path(str(files("dewey_embed"))) / "models" / EMBEDDED
    folder = expanded(Path(model))
    if is_there(folder):
        if not folder.is_dir():
            raise CheckpointError(f"{model}: is a file; give the folder that holds the model")
        folder = in_run(folder)
        if why := why_no_model(folder):
            raise CheckpointError(f"{model}: {why}")
        saved = folder / SAVED
        return str(model), saved if is_there(saved / SETTINGS_FILE) else folder
    if isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise CheckpointError(
            f"{model}: no such folder; give a model folder, a Hugging Face id (owner/name), "
            "or nothing for the embedded default"
        )
    return model, _from_hub(model)


def in_run(folder: Path) -> Path:
    """The folder of the model that a training run left in its own; any other folder as it is."""
    model = folder / "model"
    is_run = is_there(model / SETTINGS_FILE) and not is_there(folder / "config.json")
    return model if is_run else folder


def why_no_model(folder: Path) -> str | None:
    """What a path is that holds no model, and what to give instead; None where a model may lie.

    Raises:
        CheckpointError: the folder may not be read.

    """
    if not is_there(folder):
        return "no such folder; give that of a model, or of the run that made it"
    if not folder.is_dir():
        return "is a file; give the folder that holds the model"
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from None
    if {each.name for each in inside} & MARKS_OF_A_MODEL:
        return None
    return _what_it_is(folder, inside)


def _what_it_is(folder: Path, inside: Sequence[Path]) -> str:
    """What a folder is that is no model's, and what to give instead."""
    names = {each.name for each in inside}
    if not names:
        return "is an empty folder; give that of a model, or of the run that made it"
    if "trainer_state.json" in names:
        return "is a checkpoint, from which a run goes on; give the run's folder, or its model/"
    if "recipe.json" in names or is_there(folder / "start" / "start.json"):
        return "is a run that has no model/ yet; run `dewey train` again until it ends"
    if below := [each.name for each in inside if is_there(in_run(each) / "config.json")]:
        within = first_few(below, MOST_NAMED)
        return f"holds no model itself; give one of the folders in it that do: {within}"
    return "holds no model: it has no config.json; give a model's folder, or that of its run"


def expanded(path: Path) -> Path:
    """The path with `~` as the home folder, if there is one."""
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def _from_hub(model_id: str) -> Path:
    """The folder of a model in the hub's cache, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{model_id}: neither a folder here, nor in the Hugging Face cache, nor reachable on "
            f"the hub ({reason}); without a network, copy the model's folder and give its path"
        ) from None


def is_there(path: Path) -> bool:
    """Whether a file or a folder is there.

    Raises:
        CheckpointError: the folder that it lies in may not be read, or the name is impossible.

    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
    return True


class JsonFile(BaseModel):
    """A foreign JSON file: unknown keys are ignored, known keys of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


File = TypeVar("File", bound=JsonFile)


def read_json(path: Path, kind: type = dict, *, missing_ok: bool = False) -> Any:
    """The JSON object, or the list if that is the `kind`; empty for a missing file if it may be.

    Raises:
        CheckpointError: the file is missing, unreadable, no JSON, or of another kind.

    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing_ok:
            return kind()
        raise CheckpointError(f"{path}: no such file; is {path.parent} a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); {FETCH}") from None
    if not isinstance(values, kind):
        expected = "an object" if kind is dict else f"a {kind.__name__}"
        raise CheckpointError(
            f"{path}: holds a JSON {type(values).__name__}, expected {expected}; {FETCH}"
        )
    return values


def parse(kind: type[File], values: Any, path: Path) -> File:
    """The values of a file, as its `kind`.

    Raises:
        CheckpointError: naming each key with a value of another type, or one that Dewey cannot run.

    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        foreign = any(fault["type"] == "literal_error" for fault in error.errors())
        remedy = "Dewey can run no other" if foreign else FETCH
        raise CheckpointError(f"{path}: {describe(error, kind)}; {remedy}") from None


def read_file(kind: type[File], path: Path, *, missing_ok: bool = False) -> File:
    """The values of a JSON file, as its `kind`; see `read_json` and `parse`."""
    return parse(kind, read_json(path, missing_ok=missing_ok), path)


@contextmanager
def atomic_model_folder(path: Path) -> Iterator[Path]:
    """A draft folder that becomes the model at `path` when the block ends without an error.

    Raises:
        CheckpointError: `path` is a file, holds something other than a model, or cannot be
            written to; it is left as it was.

    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r}: cannot be the name of a folder ({error})") from None
    try:
        if path.is_dir():
            _refuse_others(path)
            place = path / DRAFT
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path.parent / f".{path.name}{DRAFT}"
        with _draft(place) as draft:
            yield draft
            _write_checksums(draft)
            if path.is_dir():
                _put_in_place(draft, path)
            else:
                draft.replace(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise CheckpointError(f"{path}: is or lies in a file ({error}); give a folder") from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise CheckpointError(
            f"{path}: the model cannot be saved there ({reason}); free some space, check the "
            "permissions, or choose another folder"
        ) from None


def _write_checksums(draft: Path) -> None:
    """List the files of a model with their checksums, once all of them are on the disk."""
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    for file in files:
        flush(file)
    listed = {
        path.relative_to(draft).as_posix(): sha256(path).hex()
        for path in files
        if path.suffix in (".json", ".safetensors") and path.name != HISTORY_FILE
    }
    write_json(draft / CHECKSUMS_FILE, sealed({"sha256": listed}), indent=2, sync=True)


def refuse_damaged(folder: Path) -> None:
    """Refuse a model of which a file is not as it was saved; one without checksums is let pass.

    So is one that Sentence Transformers has saved over since, which notes its version. Checksums of
    large files are kept in the user's cache until the files change.

    Raises:
        CheckpointError: naming the file.

    """
    path = folder / CHECKSUMS_FILE
    theirs = folder / "config_sentence_transformers.json"
    if not is_there(path) or (is_there(theirs) and b"__version__" in theirs.read_bytes()):
        return
    listed = (unsealed(read_json(path)) or {}).get("sha256")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path}: is damaged (another checksum); {FETCH}")
    for name, digest in listed.items():
        file = folder / name
        try:
            is_intact = cached_sha256(file).hex() == digest
        except FileNotFoundError:
            raise CheckpointError(
                f"{file}: is missing; {FETCH}, or remove {CHECKSUMS_FILE} if you removed it"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read ({error.strerror}); {FETCH}") from None
        if not is_intact:
            raise CheckpointError(
                f"{file}: is not as it was saved (another checksum); {FETCH}, or remove "
                f"{CHECKSUMS_FILE} if you changed it yourself"
            )


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A new folder, removed in the end unless it was renamed; drafts of dead processes are, too."""
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
    number = suffix[1:]
    return number.isdecimal() and int(number) != os.getpid() and is_running(int(number))


def _put_in_place(draft: Path, path: Path) -> None:
    """Make the draft's files those of the model at `path`, at once for whoever loads it."""
    saved = path / SAVED
    if saved.exists():
        _place(saved, path, draft.with_suffix(".old"))
    draft.replace(saved)
    _place(saved, path, draft)


def _place(saved: Path, path: Path, away: Path) -> None:
    """Move each saved file to its place, and remove those that the saved model lacks.

    The file that names the modules comes last, so that this can be repeated from any point.
    """
    stale = _module_files(path)
    files = {file.relative_to(saved) for file in saved.rglob("*") if file.is_file()}
    last = {Path(MODULES_FILE), Path(SETTINGS_FILE)} & files
    link = path / f"{DRAFT}.link"
    for file in sorted(files - last):
        _place_file(saved / file, path / file, link)
    for file in stale - files:
        (path / file).unlink(missing_ok=True)
        with suppress(OSError):  # it holds files of others
            (path / file).parent.rmdir()
    for file in sorted(last, reverse=True):
        _place_file(saved / file, path / file, link)
    # A half removed folder would still be taken for the model.
    shutil.rmtree(away, ignore_errors=True)
    saved.replace(away)
    shutil.rmtree(away, ignore_errors=True)


def _place_file(file: Path, target: Path, link: Path) -> None:
    """Replace `target` by a file that stays where it is, by way of `link`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(file, link)
    except OSError:  # a file system without links
        shutil.copyfile(file, link)
    link.replace(target)


def _module_files(path: Path) -> set[Path]:
    """The files of a model that Dewey wrote and another may lack, relative to its folder."""
    if not (path / SETTINGS_FILE).exists():
        return set()
    try:
        modules = json.loads((path / MODULES_FILE).read_text(encoding="utf-8"))
        folders = [Path(module["path"]) for module in modules if module["path"]]
    except (OSError, ValueError, TypeError, KeyError):
        return set()
    own = [folder for folder in folders if len(folder.parts) == 1 and folder.name != ".."]
    files = {folder / name for folder in own for name in ("config.json", "model.safetensors")}
    return files | {Path(AXES_FILE), Path(CHECKSUMS_FILE)}


def _refuse_others(path: Path) -> None:
    """Refuse a folder that holds things other than a model."""
    names = {entry.name for entry in path.iterdir()}
    is_model = names & {SETTINGS_FILE, MODULES_FILE} or {"config.json", "tokenizer.json"} <= names
    if not is_model and not all(name.startswith(BESIDE_A_MODEL) for name in names):
        raise CheckpointError(f"{path}: holds something other than a model; choose another folder")
