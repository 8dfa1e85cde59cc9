"""The manifest of a targets folder: whose targets they are, and which shards are finished."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dewey_embed.config import Settings
from dewey_embed.errors import TargetsError
from dewey_embed.train.differences import differences

FORMAT = 2
MANIFEST = "manifest.json"
RESTORE = "put it back from a copy, or give another folder"
Part = Literal["train", "held_out", "short"]
"""`held_out` is never trained on; `short` are the first words of held-out texts."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard as the manifest lists it."""

    part: Part
    number: int
    num_texts: int
    num_samples: int
    num_chunks: int
    num_bytes: int

    @property
    def file(self) -> str:
        """The shard's name within its folder."""
        return f"{self.part}-{self.number:06d}.parquet"


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a targets folder.

    Raises:
        TargetsError: there is none, or it is damaged.

    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetsError(f"{path}: no targets here; write them with dewey teach") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TargetsError(f"{file}: cannot be read ({error}); {RESTORE}") from None
    if not isinstance(manifest, dict):
        raise TargetsError(
            f"{file}: holds a JSON {type(manifest).__name__}, not an object; {RESTORE}"
        )
    if manifest.get("format") == FORMAT:
        try:
            _Manifest.model_validate(manifest)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise TargetsError(f"{file}: {place}: {fault['msg']}; {RESTORE}") from None
    return manifest


def targets_complete(path: Path) -> bool:
    """Whether a folder holds every shard of its recipe's corpus.

    Raises:
        TargetsError: its manifest is damaged, or cannot be looked at.

    """
    if not is_there(path / MANIFEST):
        return False
    manifest = read_manifest(path)
    if manifest.get("format") != FORMAT or "num_shards" not in manifest:
        return False
    shards = listed(manifest)
    complete = sum(manifest["num_shards"].values()) == len(shards)
    return complete and all(is_there(path / shard.file) for shard in shards)


def listed(manifest: dict[str, Any]) -> list[Shard]:
    """The shards of a manifest, in order."""
    found = TypeAdapter(list[Shard]).validate_python(manifest["shards"])
    return sorted(found, key=lambda shard: (shard.part, shard.number))


class _Manifest(Settings):
    """What a manifest must hold."""

    format: int
    recipe: str
    about: dict[str, Any]
    max_texts: int | None
    shards: tuple[Shard, ...]
    num_shards: dict[Part, int] | None = None
    left_out: dict[str, int] | None = None


def refuse_orphans(path: Path) -> None:
    """Refuse a folder with shards and no manifest: they would be written over."""
    orphans = sorted(each.name for each in path.glob("*-*.parquet"))
    if orphans:
        raise TargetsError(
            f"{path}: holds {orphans[0]} but no {MANIFEST}, which says whose targets they are; "
            "put it back, or give another folder"
        )


def is_there(path: Path) -> bool:
    """Whether there is such a file; where that cannot be seen is an error, not a no."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise TargetsError(f"{path}: cannot be looked at ({error.strerror})") from None
    return True


def same_recipe(
    path: Path, manifest: dict[str, Any], fingerprint: str, about: dict[str, Any]
) -> None:
    """Refuse a folder whose targets another recipe made, naming what differs."""
    if manifest.get("format") != FORMAT:
        raise TargetsError(
            f"{path}: targets of format {manifest.get('format')}, this version reads {FORMAT}; "
            "write them again in another folder"
        )
    if manifest["recipe"] != fingerprint and (differ := differences(manifest["about"], about)):
        raise TargetsError(
            f"{path}: holds targets of another recipe ({differ}); "
            "give another folder, or put the recipe back as it was"
        )


def grow(path: Path, manifest: dict[str, Any], max_texts: int | None) -> None:
    """Let the targets go on to more texts, if more are wanted; refuse fewer."""
    before = manifest["max_texts"]
    if max_texts == before:
        return
    if before is None or (max_texts is not None and max_texts < before):
        raise TargetsError(
            f"{path}: holds targets of {before or 'all'} texts, the recipe's corpus.max_texts is "
            f"{max_texts}; give another folder, or raise it"
        )
    manifest["max_texts"] = max_texts
    manifest.pop("num_shards", None)
