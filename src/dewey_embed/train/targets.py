"""Samples with their teacher's vectors, on disk: Parquet shards and a manifest.

A shard is written under another name and renamed when it is complete; the manifest then lists it.
Only what is listed counts, so a killed run loses at most one shard. A folder belongs to one recipe.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dewey_embed.config import Settings
from dewey_embed.errors import TargetsError, first_line
from dewey_embed.files import atomic_file, crc32, locked, sealed, unsealed, write_json
from dewey_embed.progress import progress_bar
from dewey_embed.train.context import Question
from dewey_embed.train.recipe_file import recipe_diff
from dewey_embed.train.samples import Draw, Sample
from dewey_embed.types import Floats, Rows

FORMAT = 2
MANIFEST = "manifest.json"
RESTORE = "put it back from a copy, or give another folder"
Split = Literal["train", "held_out", "short"]
"""`held_out` is never trained on; `short` are the first words of held-out texts."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard as the manifest lists it."""

    part: Split
    number: int
    num_texts: int
    num_samples: int
    num_chunks: int
    num_bytes: int
    num_contextual: int = 0
    no_context: dict[str, int] = field(default_factory=dict, hash=False)
    """How many chunks and questions had no context that was wanted, by why."""
    crc: int | None = None
    """CRC-32 of the file; shards of earlier versions have none."""

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
        if (kept := unsealed(manifest)) is None:
            raise TargetsError(f"{file}: is damaged (another checksum); {RESTORE}")
        manifest = kept
        try:
            _Manifest.model_validate(manifest)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise TargetsError(f"{file}: {place}: {fault['msg']}; {RESTORE}") from None
    values: dict[str, Any] = manifest
    return values


def targets_complete(path: Path) -> bool:
    """Whether a folder holds every shard of its recipe's corpus, in its size.

    Raises:
        TargetsError: its manifest is damaged, or cannot be looked at.

    """
    if size_of(path / MANIFEST) is None:
        return False
    manifest = read_manifest(path)
    if manifest.get("format") != FORMAT or "num_shards" not in manifest:
        return False
    shards = listed(manifest)
    complete = sum(manifest["num_shards"].values()) == len(shards)
    return complete and all(size_of(path / shard.file) == shard.num_bytes for shard in shards)


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
    num_shards: dict[Split, int] | None = None
    left_out: dict[str, int] | None = None
    untitled: dict[str, int] | None = None


def refuse_orphans(path: Path) -> None:
    """Refuse a folder with shards and no manifest: they would be written over.

    Raises:
        TargetsError: there are such shards.

    """
    orphans = sorted(each.name for each in path.glob("*-*.parquet"))
    if orphans:
        raise TargetsError(
            f"{path}: holds {orphans[0]} but no {MANIFEST}, which says whose targets they are; "
            "put it back, or give another folder"
        )


def size_of(path: Path) -> int | None:
    """The bytes of a file; None where there is none.

    Raises:
        TargetsError: it cannot be looked at, which does not mean that it is missing.

    """
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TargetsError(f"{path}: cannot be looked at ({error.strerror})") from None


def same_recipe(
    path: Path, manifest: dict[str, Any], fingerprint: str, about: dict[str, Any]
) -> None:
    """Refuse a folder whose targets another recipe made.

    Raises:
        TargetsError: it is of another format or recipe; names what differs.

    """
    if manifest.get("format") != FORMAT:
        raise TargetsError(
            f"{path}: targets of format {manifest.get('format')}, this version reads {FORMAT}; "
            "write them again in another folder"
        )
    if manifest["recipe"] != fingerprint and (differ := recipe_diff(manifest["about"], about)):
        raise TargetsError(
            f"{path}: holds targets of another recipe ({differ}); "
            "give another folder, or put the recipe back as it was"
        )


def grow(path: Path, manifest: dict[str, Any], max_texts: int | None) -> None:
    """Let the targets extend to more texts, if more are wanted.

    Raises:
        TargetsError: fewer are wanted.

    """
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


AGAIN = "remove the file, and run dewey teach again"


@dataclass(frozen=True, slots=True)
class Targets:
    """The teacher's vectors of one sample: `document` (D,), `chunks` (C, D), float32, unit length.

    `segments` (P, D) are its means over segments of chunks, if the recipe has them;
    `segment_bounds` (P, 2) int64 are their tokens, counted from the sample's first.

    Raises:
        TargetsError: not one row for each chunk, or for each segment.

    """

    sample: Sample
    document: Floats
    chunks: Floats
    segment_bounds: Rows
    segments: Floats

    def __post_init__(self) -> None:
        num_chunks, width = len(self.sample.spans), len(self.document)
        shapes = (num_chunks, width), (len(self.segment_bounds), width)
        if (self.chunks.shape, self.segments.shape) != shapes:
            raise TargetsError(
                f"sample {self.sample.id} has {num_chunks} chunks, targets of shape "
                f"{self.chunks.shape}, {len(self.segment_bounds)} segments and targets of shape "
                f"{self.segments.shape}; write it again with dewey teach"
            )


class TargetsFolder:
    """A folder of targets of one recipe, made or opened.

    `max_texts` is how far into its corpus they are to go, None for all of it: it may grow from one
    opening to the next, and what is there already stays.

    Raises:
        TargetsError: the folder holds the targets of another recipe, of more texts, or of another
            format, or its manifest is damaged or lost.

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
                refuse_orphans(path)
                manifest |= {"format": FORMAT, "recipe": fingerprint, "about": about, "shards": []}
                manifest["max_texts"] = max_texts
            same_recipe(path, manifest, fingerprint, about)
            grow(path, manifest, max_texts)

    @property
    def shards(self) -> list[Shard]:
        """All finished shards, in order."""
        return listed(read_manifest(self.path))

    @property
    def is_complete(self) -> bool:
        """Whether every shard of the corpus has been written, and is there."""
        return targets_complete(self.path)

    def holds(self, shard: Shard, *, checked: bool = False) -> bool:
        """Whether the file of a listed shard is there in its size; `checked`, as it was written.

        Raises:
            TargetsError: it cannot be looked at.

        """
        path = self.path / shard.file
        if size_of(path) != shard.num_bytes:
            return False
        try:
            return not checked or shard.crc in (None, crc32(path))
        except OSError as error:
            raise TargetsError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None

    def held(self, *, checked: bool = False, progress: bool = False) -> list[Shard]:
        """The finished shards that it `holds`, in order."""
        shards, found = self.shards, []
        with progress_bar("targets looked at", len(shards), "shards", show=progress) as advance:
            for shard in shards:
                found += [shard] if self.holds(shard, checked=checked) else []
                advance(1)
        return found

    def write(
        self,
        split: Split,
        number: int,
        num_texts: int,
        targets: Sequence[Targets],
        no_context: dict[str, int] | None = None,
    ) -> Shard:
        """Write a shard to disk and list it."""
        path = self.path / Shard(split, number, 0, 0, 0, 0).file
        with atomic_file(path, sync=True) as draft:
            table = _to_table(targets)
            pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
        num_chunks = sum(len(one.chunks) for one in targets)
        size = path.stat().st_size
        contextual = sum(bool(each) for one in targets for each in one.sample.contexts)
        shard = Shard(
            split, number, num_texts, len(targets), num_chunks, size, contextual,
            no_context or {}, crc32(path),
        )  # fmt: skip
        with self._manifest() as manifest:
            others = [e for e in manifest["shards"] if (e["part"], e["number"]) != (split, number)]
            manifest["shards"] = sorted(
                [*others, asdict(shard)], key=lambda each: (each["part"], each["number"])
            )
        return shard

    @property
    def left_out(self) -> dict[str, int]:
        """How many rows of the corpus were no use, by why; empty until all of it was read."""
        found: dict[str, int] = read_manifest(self.path).get("left_out", {})
        return found

    @property
    def no_context(self) -> dict[str, int]:
        """How many texts, chunks and questions had no context that was wanted, by why."""
        manifest = read_manifest(self.path)
        found = Counter[str](manifest.get("untitled") or {})
        for shard in listed(manifest):
            found.update(shard.no_context)
        return dict(found)

    def finish(
        self,
        num_shards: dict[Split, int],
        left_out: dict[str, int],
        untitled: dict[str, int] | None = None,
    ) -> None:
        """Record in the manifest how many shards of each split the corpus makes."""
        with self._manifest() as manifest:
            manifest |= {"num_shards": num_shards, "left_out": left_out}
            if untitled:
                manifest["untitled"] = untitled

    def read(self, shard: Shard) -> ShardRows:
        """The samples of a shard, in order.

        Raises:
            TargetsError: the file is missing or damaged, or holds something else.

        """
        path = self.path / shard.file
        try:
            data = path.read_bytes()
            if shard.crc not in (None, zlib.crc32(data)):
                raise TargetsError(f"{path}: is damaged (another checksum); {AGAIN}")
            table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            rows = ShardRows(table, path)
        except FileNotFoundError:
            raise TargetsError(f"{path}: is not there; run dewey teach again") from None
        except (OSError, pa.ArrowException, KeyError) as error:
            reason = first_line(error)
            raise TargetsError(f"{path}: cannot be read ({reason}); {AGAIN}") from None
        if len(rows) != shard.num_samples:
            raise TargetsError(
                f"{path}: holds {len(rows):,} samples, {MANIFEST} says "
                f"{shard.num_samples:,}; {AGAIN}"
            )
        return rows

    @contextmanager
    def _manifest(self) -> Iterator[dict[str, Any]]:
        """The manifest, for one process at a time to change; written complete or not at all."""
        with locked(self.path / ".lock", wait=True):
            path = self.path / MANIFEST
            manifest = {} if size_of(path) is None else read_manifest(self.path)
            before = json.dumps(manifest)
            yield manifest
            if json.dumps(manifest) != before:
                write_json(path, sealed(manifest), indent=1, sync=True)


COLUMNS = (
    *("id", "source", "text", "starts", "ends", "draw"),
    *("whole", "chunks", "part_bounds", "parts"),
)
CONTEXT_COLUMNS = ("contexts", "questions")
"""Which shards of recipes without [context] may lack."""
VECTORS = ("whole", "chunks", "parts")
HALVES = pa.list_(pa.float16())


def _to_table(targets: Sequence[Targets]) -> pa.Table:
    """One row a sample; vectors in float16, a sample's chunks one after another."""
    samples = [one.sample for one in targets]
    return pa.table(
        {
            "id": [sample.id for sample in samples],
            "source": [sample.source for sample in samples],
            "text": [sample.text for sample in samples],
            "starts": [[start for start, _ in sample.spans] for sample in samples],
            "ends": [[end for _, end in sample.spans] for sample in samples],
            "draw": [json.dumps(asdict(sample.draw)) for sample in samples],
            "contexts": pa.array([one.contexts for one in samples], pa.list_(pa.string())),
            "questions": [json.dumps(sample.questions) for sample in samples],
            "whole": pa.array([one.document.astype(np.float16) for one in targets], HALVES),
            "chunks": pa.array([one.chunks.astype(np.float16).ravel() for one in targets], HALVES),
            "part_bounds": [one.segment_bounds.ravel() for one in targets],
            "parts": pa.array([one.segments.astype(np.float16).ravel() for one in targets], HALVES),
        }
    )


class ShardRows:
    """The samples of a shard that was read, in order, each made when it is asked for.

    A process that makes batches opens many shards for a few samples of each. Vectors are float32,
    and of unit length again after rounding.
    """

    def __init__(self, table: pa.Table, path: Path) -> None:
        self._path = path
        there = [name for name in CONTEXT_COLUMNS if name in table.column_names]
        self._columns = {name: table[name].combine_chunks() for name in (*COLUMNS, *there)}
        for name in VECTORS:
            column = self._columns[name]
            if column.type != HALVES:
                raise TargetsError(f"{path}: {name} are {column.type}, not {HALVES}; {AGAIN}")
            if not np.isfinite(column.flatten().to_numpy()).all():
                raise TargetsError(f"{path}: {name} hold NaN or infinity; {AGAIN}")
        widths = np.unique(pc.list_value_length(self._columns["whole"]).to_numpy())
        if len(widths) > 1:
            raise TargetsError(f"{path}: vectors of {widths.tolist()} dimensions; {AGAIN}")

    def __len__(self) -> int:
        return len(self._columns["id"])

    def __iter__(self) -> Iterator[Targets]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Targets:
        try:
            return self._sample(row)
        except (ValueError, TypeError, AttributeError) as error:
            raise TargetsError(
                f"{self._path}: sample {row} is damaged ({error}); {AGAIN}"
            ) from None

    def _sample(self, row: int) -> Targets:
        value = {name: column[row] for name, column in self._columns.items()}
        spans = zip(value["starts"].as_py(), value["ends"].as_py(), strict=True)
        sample = Sample(
            value["id"].as_py(),
            value["source"].as_py(),
            value["text"].as_py(),
            list(spans),
            Draw(**json.loads(value["draw"].as_py())),
            value["contexts"].as_py() if "contexts" in value else [],
            [Question(*each) for each in json.loads(value["questions"].as_py())]
            if "questions" in value
            else [],
        )
        bounds = np.array(value["part_bounds"].as_py(), np.int64).reshape(-1, 2)
        document = _unit(value["whole"].values.to_numpy())
        chunks, segments = (
            _unit(value[name].values.to_numpy().reshape(count, len(document)))
            for name, count in (("chunks", len(sample.spans)), ("parts", len(bounds)))
        )
        return Targets(sample, document, chunks, bounds, segments)


def _unit(vectors: NDArray[np.float16]) -> Floats:
    """The vectors in float32 and of unit length."""
    wide = vectors.astype(np.float32)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
    return unit
