"""Which checkpoints of a run are whole, and which was the last; half ones are out of the way.

The Trainer writes a checkpoint file by file. `whole.json` comes last, with the size and checksum of
each; a mark beside the folder says until then that it is being written. So what a killed run left
is told from what somebody else put there, and only the former is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from dewey_embed.errors import RunError
from dewey_embed.files import crc32, flush, write_json
from dewey_embed.train.recipe_file import read_object

WHOLE = "whole.json"
"""Written last into a checkpoint: without it, a kill came in between."""


def mark_of(checkpoint: Path) -> Path:
    """The file that is there while a checkpoint is being written."""
    return checkpoint.with_name(f".{checkpoint.name}.unfinished")


def mark_whole(checkpoint: Path, *, elapsed_s: float) -> None:
    """Let a checkpoint count as whole, all of it on the disk."""
    files = {}
    for file in checkpoint.iterdir():
        if file.name == WHOLE or not file.is_file():
            continue
        flush(file)
        files[file.name] = _checksum(file)
    write_json(checkpoint / WHOLE, {"elapsed_s": elapsed_s, "files": files}, sync=True)
    mark_of(checkpoint).unlink(missing_ok=True)


def last_whole_checkpoint(folder: Path) -> tuple[Path, float] | None:
    """The newest whole checkpoint and the seconds it took.

    What a killed run of ours left half written is removed. What is damaged, or was not finished by
    a run of ours, is renamed to `unused-…`, with a warning.

    Raises:
        RunError: the folder cannot be looked into.

    """
    whole = []
    try:
        found = [each for each in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", each.name)]
        for checkpoint in found:
            if mark_of(checkpoint).exists() and not (checkpoint / WHOLE).exists():
                shutil.rmtree(checkpoint, ignore_errors=True)  # several processes do so at once
                mark_of(checkpoint).unlink(missing_ok=True)
            elif (checkpoint / WHOLE).exists():
                whole.append(checkpoint)
            else:
                _set_aside(checkpoint, f"no run finished it: it has no {WHOLE}")
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be looked into ({error.strerror})") from None
    for checkpoint in sorted(whole, key=step_of, reverse=True):
        try:
            return checkpoint, _elapsed(checkpoint)
        except RunError as error:
            _set_aside(checkpoint, str(error))
    return None


def step_of(checkpoint: Path) -> int:
    """The steps after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _elapsed(checkpoint: Path) -> float:
    """The seconds of a checkpoint whose files are as they were written.

    Raises:
        RunError: one of them is missing or damaged.

    """
    kept: dict[str, Any] = read_object(checkpoint / WHOLE, keys=["elapsed_s"], remedy="damaged")
    for name, written in kept.get("files", {}).items():  # older checkpoints list none
        try:
            now = _checksum(checkpoint / name)
        except FileNotFoundError:
            raise RunError(f"{checkpoint / name}: is not there") from None
        if now != written:
            raise RunError(f"{checkpoint / name}: is damaged: it is not as it was written")
    elapsed = kept["elapsed_s"]
    if isinstance(elapsed, bool) or not isinstance(elapsed, int | float):
        raise RunError(f"{checkpoint / WHOLE}: elapsed_s is {elapsed!r}, not a number of seconds")
    return float(elapsed)


def _checksum(file: Path) -> list[int]:
    """A file's size and CRC-32."""
    return [file.stat().st_size, crc32(file)]


def _set_aside(checkpoint: Path, why: str) -> None:
    """Rename a checkpoint so that no run takes it up or removes it, and say so."""
    other = checkpoint.with_name(f"unused-{checkpoint.name}")
    number = 1
    while other.exists():
        number += 1
        other = checkpoint.with_name(f"unused-{checkpoint.name}-{number}")
    try:
        os.replace(checkpoint, other)
    except FileNotFoundError:  # another process was quicker
        return
    warnings.warn(f"{other}: set aside, {why}", UserWarning, stacklevel=3)
