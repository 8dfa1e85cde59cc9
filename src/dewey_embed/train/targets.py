"""Samples with their teacher's vectors, on disk: Parquet shards and a manifest.

A shard is written under another name and renamed when it is whole; the manifest then lists it. Only
what is listed counts, so a killed run loses at most one shard. A folder belongs to one recipe.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dewey_embed.errors import TargetsError
from dewey_embed.train.differences import differences
from dewey_embed.train.samples import Draw, Sample

FORMAT = 2
MANIFEST = "manifest.json"
Part = Literal["train", "held_out", "short"]
"""`held_out` is never trained on; `short` are the first words of held-out texts."""

Floats = NDArray[np.float32]
Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Targets:
    """What the teacher says of one sample: `whole` (D,) and `chunks` (C, D), float32, unit length.

    `parts` (P, D) are the teacher's means over stretches within a chunk, where it was asked for
    them; `part_bounds` (P, 2) int64 are their tokens, counted from the sample's first.

    Raises:
        TargetsError: not one row for each chunk, or for each part.

    """

    sample: Sample
    whole: Floats
    chunks: Floats
    part_bounds: Int
    parts: Floats

    def __post_init__(self) -> None:
        if self.parts.shape != (len(self.part_bounds), len(self.whole)) or self.chunks.shape != (
            len(self.sample.spans),
            len(self.whole),
        ):
            raise TargetsError(
                f"sample {self.sample.id} has {len(self.sample.spans)} chunks, targets of shape "
                f"{self.chunks.shape}, {len(self.part_bounds)} parts and targets of shape "
                f"{self.parts.shape}; write it again with dewey teach"
            )


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


class TargetsFolder:
    """A folder of targets of one recipe, made or opened.

    `max_texts` is how far into its corpus they are to go, None for all of it: it may grow from one
    opening to the next, and what is there already stays.

    Raises:
        TargetsError: the folder holds the targets of another recipe, of more texts, or of another
            format.

    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str,
        about: dict[str, Any],
        max_texts: int | None = None,
    ) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        with self._manifest() as manifest:
            if not manifest:
                manifest |= {"format": FORMAT, "recipe": fingerprint, "about": about, "shards": []}
                manifest["max_texts"] = max_texts
            _same_recipe(path, manifest, fingerprint, about)
            _grow(path, manifest, max_texts)

    @property
    def shards(self) -> list[Shard]:
        """All finished shards, in order."""
        listed = read_manifest(self.path)["shards"]
        return sorted((Shard(**entry) for entry in listed), key=lambda s: (s.part, s.number))

    @property
    def is_complete(self) -> bool:
        """Whether every shard of the corpus has been written."""
        return "num_shards" in (manifest := read_manifest(self.path)) and sum(
            manifest["num_shards"].values()
        ) == len(manifest["shards"])

    def write(self, part: Part, number: int, num_texts: int, targets: Sequence[Targets]) -> Shard:
        """The shard, now on disk and listed."""
        path = self.path / Shard(part, number, 0, 0, 0, 0).file
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            pq.write_table(_to_table(targets), draft, compression="zstd")
            _sync(draft)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        num_chunks = sum(len(one.chunks) for one in targets)
        size = path.stat().st_size
        shard = Shard(part, number, num_texts, len(targets), num_chunks, size)
        with self._manifest() as manifest:
            others = [e for e in manifest["shards"] if (e["part"], e["number"]) != (part, number)]
            manifest["shards"] = [*others, asdict(shard)]
        return shard

    @property
    def left_out(self) -> dict[str, int]:
        """How many rows of the corpus were no use, by why; empty until all of it was read."""
        found: dict[str, int] = read_manifest(self.path).get("left_out", {})
        return found

    def finish(self, num_shards: dict[Part, int], left_out: dict[str, int]) -> None:
        """Nothing; the manifest then says how many shards of each part the corpus makes."""
        with self._manifest() as manifest:
            manifest |= {"num_shards": num_shards, "left_out": left_out}

    def read(self, shard: Shard) -> ShardRows:
        """The samples of a shard, in order.

        Raises:
            TargetsError: the file is missing or damaged.

        """
        try:
            return ShardRows(pq.read_table(self.path / shard.file))
        except (OSError, pa.ArrowException, KeyError) as error:
            raise TargetsError(
                f"{self.path / shard.file}: cannot be read ({str(error).splitlines()[0]}); remove "
                f"it and its entry in {MANIFEST}, and run dewey teach again"
            ) from None

    @contextmanager
    def _manifest(self) -> Iterator[dict[str, Any]]:
        """The manifest, to be changed by one process at a time and written whole or not at all."""
        with open(self.path / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self.path / MANIFEST
            manifest = read_manifest(self.path) if path.exists() else {}
            before = json.dumps(manifest)
            yield manifest
            if json.dumps(manifest) != before:
                draft = path.with_name(f".{MANIFEST}.draft")
                draft.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
                _sync(draft)
                os.replace(draft, path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a targets folder.

    Raises:
        TargetsError: there is none, or it is damaged.

    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetsError(f"{path}: no targets here; write them with dewey teach") from None
    except (OSError, ValueError) as error:
        raise TargetsError(f"{path / MANIFEST}: cannot be read ({error})") from None
    return manifest


def _same_recipe(
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


def _grow(path: Path, manifest: dict[str, Any], max_texts: int | None) -> None:
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


COLUMNS = (
    *("id", "source", "text", "starts", "ends", "draw"),
    *("whole", "chunks", "part_bounds", "parts"),
)


def _to_table(targets: Sequence[Targets]) -> pa.Table:
    """One row a sample; vectors in float16, a sample's chunks one after another."""
    samples = [one.sample for one in targets]
    vectors = pa.list_(pa.float16())
    return pa.table(
        {
            "id": [sample.id for sample in samples],
            "source": [sample.source for sample in samples],
            "text": [sample.text for sample in samples],
            "starts": [[start for start, _ in sample.spans] for sample in samples],
            "ends": [[end for _, end in sample.spans] for sample in samples],
            "draw": [json.dumps(asdict(sample.draw)) for sample in samples],
            "whole": pa.array([one.whole.astype(np.float16) for one in targets], vectors),
            "chunks": pa.array([one.chunks.astype(np.float16).ravel() for one in targets], vectors),
            "part_bounds": [one.part_bounds.ravel() for one in targets],
            "parts": pa.array([one.parts.astype(np.float16).ravel() for one in targets], vectors),
        }
    )


class ShardRows:
    """The samples of a shard that was read, in order, each made when it is asked for.

    A process that makes batches opens many shards for a few samples of each. Vectors are float32,
    and of unit length again after rounding.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: table[name].combine_chunks() for name in COLUMNS}

    def __len__(self) -> int:
        return len(self._columns["id"])

    def __iter__(self) -> Iterator[Targets]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Targets:
        value = {name: column[row] for name, column in self._columns.items()}
        spans = zip(value["starts"].as_py(), value["ends"].as_py(), strict=True)
        sample = Sample(
            value["id"].as_py(),
            value["source"].as_py(),
            value["text"].as_py(),
            list(spans),
            Draw(**json.loads(value["draw"].as_py())),
        )
        bounds = np.array(value["part_bounds"].as_py(), np.int64).reshape(-1, 2)
        whole = _unit(value["whole"].values.to_numpy())
        chunks, parts = (
            _unit(value[name].values.to_numpy().reshape(count, len(whole)))
            for name, count in (("chunks", len(sample.spans)), ("parts", len(bounds)))
        )
        return Targets(sample, whole, chunks, bounds, parts)


def _unit(vectors: NDArray[np.float16]) -> Floats:
    """The vectors in float32 and of unit length."""
    wide = vectors.astype(np.float32)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
    return unit


def _sync(path: Path) -> None:
    """Nothing; the file's bytes are then on the disk, so that a rename cannot outrun them."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
