"""Documents of any number → vectors, by Ray Data: read, split, encode, write, commit.

Tasks read pieces of the sources into groups, a pool of actors with a model each encodes a group
and writes it, and the driver commits what was written. A group is done again when its worker dies.
A run continues where another one ended: documents whose content is in the output are not encoded.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dewey_embed.cluster.index_output import check_index, open_index
from dewey_embed.cluster.meter import Key, Meter, Tally, told
from dewey_embed.cluster.outputs import DIGEST_BYTES, Held, Making, Output, check_rows, open_rows
from dewey_embed.cluster.session import LOCAL, Workers, check_workers, connected
from dewey_embed.cluster.sources import (
    Group,
    Piece,
    SourceFile,
    divide,
    list_sources,
    pieces_of,
    read_groups,
)
from dewey_embed.errors import ClusterError, ConfigError, DeweyError, ReadError, first_line
from dewey_embed.files import locked
from dewey_embed.progress import progress_bar
from dewey_embed.rows import storable_text
from dewey_embed.storage import is_address
from dewey_embed.text.inputs import ReadOptions
from dewey_embed.types import Document, Unreadable

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey

GROUP_CHARS = 400_000
"""Characters that are encoded together and written at once: what a killed worker loses."""

COMMIT_S = 10.0
"""Seconds between two commits: what a killed run loses beside the groups in work."""


TASK_RETRIES = 3
"""A group whose worker dies is tried so often again; one that kills every worker ends the run."""

DEFAULT_READING = ReadOptions()
DEFAULT_MAKING = Making()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What is read, how it is encoded, and what is written."""

    reading: ReadOptions = DEFAULT_READING
    making: Making = DEFAULT_MAKING
    group_chars: int = GROUP_CHARS


DEFAULT_OPTIONS = ClusterOptions()
DEFAULT_WORKERS = Workers()


@dataclass(slots=True)
class EncodeReport:
    """What a run did: numbers of documents and chunks, and what is in no vector.

    `num_held` documents were in the output already; `num_removed` older versions left it.
    """

    output: str
    embedding_dim: int
    model: str
    max_tokens: int
    num_documents: int = 0
    num_chunks: int = 0
    num_held: int = 0
    num_removed: int = 0
    faults: list[Unreadable] = field(default_factory=list)
    unread: dict[str, dict[str, int]] = field(default_factory=dict)
    long: list[tuple[str, str, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """A group on its way: from its reader to an encoder, and from there to the driver.

    `earlier` (N) are the contents that the output holds of its documents; they are stale once the
    documents are written, but for those that another document of the sources still has: `held` are
    the digests of contents that were there, and `present` of new ones that stay, one after the
    other.
    """

    key: Key
    documents: list[Document]
    faults: list[Unreadable]
    num_bytes: int
    held: bytes = b""
    present: bytes = b""
    stale: set[bytes] = field(default_factory=set)
    unread: dict[str, dict[str, int]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    earlier: list[set[bytes]] = field(default_factory=list)
    num_chunks: list[int] = field(default_factory=list)
    long: list[tuple[str, str, int, int]] = field(default_factory=list)
    error: DeweyError | None = None


def encode_on_ray(
    inputs: Sequence[str],
    output: str,
    *,
    model: str | None = None,
    address: str = LOCAL,
    workers: Workers = DEFAULT_WORKERS,
    options: ClusterOptions = DEFAULT_OPTIONS,
    progress: bool = False,
) -> EncodeReport:
    """What was done: the documents of `inputs` encoded by a Ray cluster, into `output`.

    Raises:
        ReadError: no document could be read.
        ConfigError: the output was written with other settings.
        ClusterError: the cluster cannot be reached, or has too little room, or another run of this
            machine writes to the output.
        StorageError: a place cannot be read or written.

    """
    check_output(output, options.making)
    sources = list_sources(inputs)
    check_workers(address, workers)
    from dewey_embed.encoder import Dewey  # after the checks: its import takes seconds

    dewey = Dewey.load(model)
    place = open_output(output, dewey, options.making)
    report = EncodeReport(place.name, dewey.embedding_dim, dewey.name, dewey.max_tokens)
    spec = _ModelSpec(model, dewey.fingerprint)
    del dewey  # a GPU's memory is for the workers
    report.faults += [each for each in sources if isinstance(each, Unreadable)]
    files = [each for each in sources if isinstance(each, SourceFile)]
    with ExitStack() as stack:
        stack.enter_context(_alone(place.name))
        stack.enter_context(place.alone())
        held = place.begin()  # what it refuses, it refuses before Ray starts
        fitted = stack.enter_context(connected(address, workers))
        run = _Run(place, held, spec, fitted, options)
        pieces = run.pieces(files, report)
        total = sum(piece.num_bytes for piece in pieces)
        with progress_bar("encoding", total, "bytes", show=progress) as bar:
            run.encode(pieces, report, Meter(bar, fitted.num or 1), tell=progress)
        place.finish()
    if not report.num_documents + report.num_held:
        raise NothingReadError(report)
    return report


@contextmanager
def _alone(output: str) -> Iterator[None]:
    """Be the only run of this machine that writes to an output on a disk.

    Two would write the same documents, and sweep each other's chunks. A disk that takes no lock
    gives none.

    Raises:
        ClusterError: another run writes to it.

    """
    path = Path(output)
    with ExitStack() as stack:
        if not is_address(output):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = path.with_name(f".{path.name}.lock")
                stack.enter_context(locked(lock, remove=True))
            except BlockingIOError:
                raise ClusterError(
                    f"{output}: another run is writing to it; wait until it is done, or stop it"
                ) from None
            except (OSError, NotImplementedError):  # read-only, or a network's
                pass
        yield


class NothingReadError(ReadError):
    """No document could be read; `report` says why."""

    def __init__(self, report: EncodeReport) -> None:
        super().__init__("nothing was encoded: no document could be read")
        self.report = report


def check_output(name: str, making: Making) -> None:
    """Refuse an output that cannot be, before a model is loaded.

    Raises:
        ConfigError: another extension, or an impossible option.
        IndexMismatchError: an index was made with other options.
        StorageError: an index cannot be looked at.

    """
    if not isinstance(making.encoding.get("splitter", ""), str):
        raise ConfigError("a function cannot split documents on other machines; name a splitter")
    check = check_index if is_index(name) else check_rows
    check(_absolute(name), making)


def open_output(name: str, model: Dewey, making: Making) -> Output:
    """The output of that name: an index where it ends in `.index`, else a table of rows.

    Raises:
        ConfigError: another extension, or an impossible option.

    """
    return (open_index if is_index(name) else open_rows)(_absolute(name), model, making)


def is_index(name: str) -> bool:
    """Whether an output of that name is an index."""
    return PurePosixPath(name).suffix == ".index"


def _absolute(name: str) -> str:
    return name.rstrip("/") if is_address(name) else os.path.abspath(name)


@dataclass(frozen=True, slots=True)
class _ModelSpec:
    """The model that every worker loads."""

    name: str | None
    fingerprint: str


class _Reader:
    """Reads a piece into groups, without the documents that the output holds."""

    def __init__(self, place: Output, shared: Any, options: ClusterOptions) -> None:
        self._place, self._shared, self._options = place, shared, options

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, _Work]]:
        """Rows with a group each, of the piece with the row's number."""
        import ray

        pieces, held = ray.get(self._shared)
        options = self._options
        groups = read_groups(pieces[row["id"]], options.reading, options.group_chars)
        for number, group in enumerate(groups):
            yield {"work": self._missing((row["id"], number), group, held)}

    def _missing(self, key: Key, group: Group, held: Held) -> _Work:
        """The documents of a group that the output does not hold yet."""
        work = _Work(key, [], group.faults, group.num_bytes)
        for document in map(self._place.prepared, group.documents):
            if document.unread:
                work.unread[document.id] = dict(document.unread)
            digest = self._place.digest(document)
            own = bytes.fromhex(digest)
            others = held.contents_of(storable_text(document.id))
            if own in others:
                work.held += own
                work.stale |= others - {own}
            else:
                work.documents.append(document)
                work.contents.append(own)
                work.earlier.append(others)
        return work


class _Encoder:
    """An actor with a model: encodes a group and writes it."""

    def __init__(self, place: Output, spec: _ModelSpec, num_threads: int, tally: Any) -> None:
        self._place, self._tally = place, tally
        self._error: DeweyError | None = None
        if tally is not None:
            tally.begin.remote()
        try:
            self._model = self._load(spec, num_threads)
        except DeweyError as error:  # told with the first group; Ray would start it again
            self._error = error

    @staticmethod
    def _load(spec: _ModelSpec, num_threads: int) -> Dewey:
        import platform

        import torch

        from dewey_embed.encoder import Dewey

        torch.set_num_threads(num_threads)
        model = Dewey.load(spec.name)
        if model.fingerprint != spec.fingerprint:
            raise ClusterError(
                f"{platform.node()} has another model under the name {spec.name!r} (fingerprint "
                f"{model.fingerprint}, not {spec.fingerprint}); copy the same folder to every "
                "machine"
            )
        return model

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[_Work]]:
        """The group, written."""
        work: _Work
        [work] = batch["work"]
        try:
            if self._error:
                raise self._error
            if work.documents:
                self._encode(work)
        except DeweyError as error:
            work.error = error
        work.documents = []
        return {"work": [work]}

    def _encode(self, work: _Work) -> None:
        with told(self._tally, work.key, work.num_bytes) as begin:
            encoded = self._place.encode(self._model, work.documents, begin)
        work.written = encoded.written
        contents, work.contents = work.contents, []
        for document, own, earlier, vectors in zip(
            work.documents, contents, work.earlier, encoded.vectors, strict=True
        ):
            if isinstance(vectors, str):  # its earlier version stays
                work.faults.append(Unreadable.of(document, vectors))
                continue
            work.contents.append(own)
            if earlier:
                work.present += own
                work.stale |= earlier
            work.num_chunks.append(len(vectors.spans))
            if vectors.overflow is not None:
                facts = (vectors.overflow, vectors.num_tokens, vectors.used_tokens)
                work.long.append((document.id, *facts))


@dataclass(slots=True)
class _Contents:
    """The contents that a run met: digests of those that stay, of those to go, and of new ones.

    Digests that stay stand one after the other: a set of a hundred million is too large.
    """

    held: bytearray = field(default_factory=bytearray)
    present: bytearray = field(default_factory=bytearray)
    stale: set[bytes] = field(default_factory=set)
    new: list[bytes] = field(default_factory=list)
    num_chunks: array[int] = field(default_factory=partial(array, "I"))

    def add(self, work: _Work) -> None:
        """Add those of a group."""
        self.held += work.held
        self.present += work.present
        self.stale |= work.stale
        self.new += work.contents
        self.num_chunks.extend(work.num_chunks)

    def replaced(self) -> set[bytes]:
        """Those that go: older versions that no document of the sources has."""
        stale = set(self.stale)
        for digests in (self.held, self.present) if stale else ():
            for start in range(0, len(digests), DIGEST_BYTES):
                stale.discard(bytes(digests[start : start + DIGEST_BYTES]))
        return stale

    def kept(self, gone: set[bytes]) -> tuple[int, int, int]:
        """Numbers of new documents, of their chunks, and of documents that were there.

        Each counts once, however often it comes in the sources, and not at all if it is gone.
        """
        twins = np.array(list(gone), "S16")
        new, first = np.unique(np.array(self.new, "S16"), return_index=True)
        stays = ~np.isin(new, twins)
        num_chunks = np.array(self.num_chunks, np.int64)[first[stays]]
        held = np.unique(np.frombuffer(bytes(self.held), "S16"))
        return int(stays.sum()), int(num_chunks.sum()), int((~np.isin(held, twins)).sum())


class _Run:
    """One run on a cluster."""

    def __init__(
        self,
        place: Output,
        held: Held,
        spec: _ModelSpec,
        workers: Workers,
        options: ClusterOptions,
    ) -> None:
        self._place, self._held, self._spec = place, held, spec
        self._workers, self._options = workers, options

    def pieces(self, files: Iterable[SourceFile], report: EncodeReport) -> list[Piece]:
        """The pieces of all files; tables and large files are looked into by tasks."""
        import ray

        @ray.remote(num_cpus=0)
        def pieces_in(source: SourceFile) -> list[Piece] | Unreadable:
            try:
                return divide(source)
            except (ReadError, OSError) as error:
                file = source.file
                return Unreadable(source=file.source, reason=str(error), root=file.root)

        pieces: list[Piece] = []
        planned = [
            each if isinstance(each, Piece) else pieces_in.remote(each) for each in pieces_of(files)
        ]
        for each in planned:
            found = [each] if isinstance(each, Piece) else ray.get(each)
            if isinstance(found, Unreadable):
                report.faults.append(found)
            else:
                pieces += found
        return pieces

    def encode(
        self, pieces: Sequence[Piece], report: EncodeReport, meter: Meter, *, tell: bool
    ) -> None:
        """Encode the pieces, commit what was written every few seconds, and tidy up behind it."""
        import ray

        tally = ray.remote(num_cpus=0, max_restarts=-1)(Tally).remote() if tell else None
        contents = _Contents()
        waiting: list[str] = []
        committed = -COMMIT_S  # the first group at once
        try:
            with meter.looking(tally):
                for work in self._works(pieces, tally):
                    if work.error:
                        raise work.error
                    _count(report, work, meter)
                    contents.add(work)
                    waiting += work.written
                    if waiting and time.monotonic() - committed > COMMIT_S:
                        self._place.commit(waiting)
                        waiting, committed = [], time.monotonic()
        finally:
            if waiting:  # also when it was stopped
                self._place.commit(waiting)
        self._tidy(contents, report)

    def _tidy(self, contents: _Contents, report: EncodeReport) -> None:
        """Remove older versions, and what came twice; the report then counts what stays."""
        gone = sorted(each.hex() for each in contents.replaced())
        self._place.remove(gone)
        self._place.remove_repeats(self._held.repeated(contents.new))
        twins = self._place.remove_twins()
        report.num_removed = len(gone)
        report.faults += twins.values()
        kept = contents.kept(set(twins))
        report.num_documents, report.num_chunks, report.num_held = kept

    def _works(self, pieces: Sequence[Piece], tally: Any) -> Iterator[_Work]:
        """Groups as they are done, in no order."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
        from ray.exceptions import RayError

        if not pieces:
            return
        context = DataContext.get_current()
        # Every group is a block of its own, which goes to the next worker that is free.
        context.target_max_block_size = context.target_min_block_size = 1
        context.enable_progress_bars = False
        num, cpus, gpus = self._workers.num or 1, self._workers.cpus, self._workers.gpus
        reader = _Reader(self._place, ray.put((pieces, self._held)), self._options)
        # Items, not a range: tasks make that, and wait for ever where workers have all CPUs.
        numbers = [{"id": number} for number in range(len(pieces))]
        groups = ray.data.from_items(numbers, override_num_blocks=len(pieces)).flat_map(
            reader.__call__,
            compute=TaskPoolStrategy(size=min(len(pieces), max(2, num // 2))),
            num_cpus=0,
        )
        works = groups.map_batches(
            _Encoder,
            fn_constructor_args=(self._place, self._spec, cpus, tally),
            batch_size=1,
            compute=ActorPoolStrategy(size=num, max_tasks_in_flight_per_actor=2),
            num_cpus=cpus,
            num_gpus=gpus,
            ray_remote_args_fn=lambda: {"max_task_retries": TASK_RETRIES},
        )
        try:
            for row in works.iter_rows():
                yield row["work"]
        except RayError as error:
            reason = first_line(error)
            raise ClusterError(
                f"the cluster lost its work ({reason}); what was written before is kept, and the "
                "same command goes on from there"
            ) from error


def _count(report: EncodeReport, work: _Work, meter: Meter) -> None:
    """Add a group to the report, and move the bar."""
    report.num_documents += len(work.contents)
    num_chunks = sum(work.num_chunks)
    report.num_chunks += num_chunks
    num_held = len(work.held) // DIGEST_BYTES
    report.num_held += num_held
    report.faults += work.faults
    report.unread |= work.unread
    report.long += work.long
    meter.finished(
        work.key, work.num_bytes,
        documents=len(work.contents), chunks=num_chunks, held=num_held,
    )  # fmt: skip
