"""The queue of texts to encode: requests joined into batches, and watched over.

Every lane has a thread that takes the texts of several requests, turn by turn, into one batch.
What comes back is looked at before anybody gets it: servers are known that, after one long request,
answer zeros to all later ones.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from dewey_embed.encoder import PROBE, Dewey, PreparedTexts
from dewey_embed.model.control import PassControl, PassStoppedError
from dewey_embed.model.device import sizes_of
from dewey_embed.model.engine import build_kernels
from dewey_embed.model.inference import Embedded, Request, embed
from dewey_embed.model.packing import fill_batches
from dewey_embed.progress import Advance
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.lanes import LANES, Lane, Turns, lane_of
from dewey_embed.types import DocumentVectors

log = logging.getLogger(__name__)

PROBE_TOLERANCE = 1e-3
"""1 − cosine of the probe's vector with what it was at the start."""

FIRST_RATE = 20_000.0
"""Tokens a second that a lane is taken to do before it has done any."""

FULL = 429
"""The status of what does not fit into the queue."""

RATED_TOKENS = 2_048
"""Tokens of a batch from which on its speed counts fully."""

WAIT_S = 0.1
"""Seconds after which a thread asks for room again."""

MAX_WAITING = 1_024
"""Requests that wait in one lane."""


@dataclass(eq=False, slots=True)
class _Job:
    """The texts of one request: those that wait, and the vectors of the others."""

    requests: Sequence[Request]
    skip: int
    on_tokens: Advance
    lane: Lane
    waiting: deque[int]
    future: concurrent.futures.Future[list[Embedded]] = field(
        default_factory=concurrent.futures.Future
    )
    vectors: dict[int, Embedded] = field(default_factory=dict)
    is_done: bool = False

    @property
    def num_waiting_tokens(self) -> int:
        return sum(_size(self.requests[index]) for index in self.waiting)

    def end(self, error: BaseException | None = None) -> None:
        """Give who waits the vectors, or the error."""
        self.is_done = True
        with suppress(concurrent.futures.InvalidStateError):  # cancelled meanwhile, or failed
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result([self.vectors[index] for index in range(len(self.vectors))])


@dataclass(eq=False, slots=True)
class _Batch:
    """Texts of several requests that are encoded together."""

    items: list[tuple[_Job, int]]
    control: PassControl = field(default_factory=PassControl)

    @property
    def requests(self) -> list[Request]:
        return [job.requests[index] for job, index in self.items]

    @property
    def jobs(self) -> set[_Job]:
        return {job for job, _ in self.items}


class EncodeQueue:
    """Texts to encode, of any number of requests, by one model.

    >>> model = Dewey.load()
    >>> queue = EncodeQueue(model, max_wait_s=30)
    >>> [document] = asyncio.run(queue.encode(model.prepare(["The tenant pays the rent."])))
    >>> document.vector.shape
    (384,)
    >>> queue.close()
    """

    def __init__(self, model: Dewey, *, max_wait_s: float, lanes: Sequence[Lane] = LANES) -> None:
        self.model, self.lanes = model, lanes
        self.max_wait_s = max_wait_s
        self.fault: str | None = None
        self._batch_tokens = sizes_of(model.device).batch_tokens
        self._turns = Turns(lanes)
        self._changed = threading.Condition()
        self._jobs: dict[Lane, deque[_Job]] = {lane: deque() for lane in lanes}
        self._running: dict[Lane, _Batch] = {}
        self._rates = dict.fromkeys(lanes, FIRST_RATE)
        self._is_closed = False
        self._probe = self._probed()
        backbone = model.model.backbone
        threading.Thread(
            target=build_kernels, args=(backbone,), name="dewey-build", daemon=True
        ).start()
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"dewey-{lane.name}")
            for lane in lanes
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    async def encode(
        self, texts: PreparedTexts, on_tokens: Advance = lambda _: None
    ) -> list[DocumentVectors]:
        """The texts' vectors; when it is cancelled, their work stops.

        `on_tokens` gets numbers of tokens, in another thread, as they are done.

        Raises:
            ApiError: too much waits already, or what the model gave cannot be trusted, or is not
                sound.

        """
        if not texts.requests:
            return []
        job = self._submitted(texts.requests, texts.skip, on_tokens)
        try:
            embedded = await asyncio.wrap_future(job.future)
        finally:
            self._cancel(job)
        for index, each in enumerate(embedded):
            if each.fault is not None:
                message = f"text {index}: {each.fault}"
                log.error("%s", message)
                raise ApiError(500, message, kind="server_error")
        return await asyncio.to_thread(texts.documents, embedded)

    def embed(
        self, requests: Sequence[Request], skip: int, on_tokens: Advance = lambda _: None
    ) -> list[Embedded]:
        """The requests' vectors, for a thread that waits for them; it waits for room, too.

        They are queued a batch at a time, so that much work of one thread shuts nobody out.
        """
        vectors: dict[int, Embedded] = {}
        for batch in fill_batches([_size(request) for request in requests], self._batch_tokens):
            job = self._submitted_in_time([requests[index] for index in batch], skip, on_tokens)
            try:
                vectors.update(zip(batch, job.future.result(), strict=True))
            finally:
                self._cancel(job)
        return [vectors[index] for index in range(len(requests))]

    def waiting_tokens(self) -> dict[str, int]:
        """Tokens that wait in each lane."""
        with self._changed:
            return {
                lane.name: sum(job.num_waiting_tokens for job in jobs)
                for lane, jobs in self._jobs.items()
            }

    def close(self) -> None:
        """Stop all work, and end the threads; what waits is refused."""
        with self._changed:
            self._is_closed = True
            waiting = [job for jobs in self._jobs.values() for job in jobs]
            for batch in self._running.values():
                batch.control.stop()
                waiting += batch.jobs
            self._changed.notify_all()
        for job in waiting:
            job.end(_stopping())
        for thread in self._threads:
            thread.join(timeout=5)
        self._turns.close()

    def _submitted_in_time(
        self, requests: Sequence[Request], skip: int, on_tokens: Advance
    ) -> _Job:
        """A job for the requests, as soon as there is room."""
        while True:
            try:
                return self._submitted(requests, skip, on_tokens)
            except ApiError as error:
                if error.status != FULL:
                    raise
            time.sleep(WAIT_S)

    def _submitted(self, requests: Sequence[Request], skip: int, on_tokens: Advance) -> _Job:
        """A job for the requests, in its lane.

        Raises:
            ApiError: too much waits there already.

        """
        lane = lane_of([_size(request) for request in requests], self.lanes)
        job = _Job(requests, skip, on_tokens, lane, deque(range(len(requests))))
        with self._changed:
            if self._is_closed:
                raise _stopping()
            jobs = self._jobs[lane]
            running = self._running.get(lane)
            ahead = sum(each.num_waiting_tokens for each in jobs)
            ahead += 0 if running is None else sum(map(_size, running.requests))
            seconds = ahead / self._rates[lane]
            if jobs and (seconds > self.max_wait_s * lane.patience or len(jobs) >= MAX_WAITING):
                raise ApiError(
                    FULL,
                    f"{len(jobs):,} requests wait already, {ahead:,} tokens are ahead, for some "
                    f"{seconds:.1f} s; ask again in {math.ceil(seconds)} s",
                    kind="overloaded",
                    headers={"Retry-After": str(max(1, math.ceil(seconds)))},
                )
            jobs.append(job)
            self._changed.notify_all()
        return job

    def _cancel(self, job: _Job) -> None:
        """Take a job out of the queue, and stop a pass that nobody else waits for."""
        with self._changed:
            job.is_done = True
            if job in self._jobs[job.lane]:
                self._jobs[job.lane].remove(job)
            batch = self._running.get(job.lane)
            if batch is not None and all(each.is_done for each in batch.jobs):
                batch.control.stop()

    def _work(self, lane: Lane) -> None:
        """Encode what comes into a lane, until the queue is closed."""
        while (batch := self._next(lane)) is not None:
            try:
                with self._turns.turn(lane, batch.control):
                    self._encode(lane, batch)
            except PassStoppedError:
                pass
            except Exception as error:  # the lane goes on, whatever came of one batch
                log.exception("a batch of %d texts failed", len(batch.items))
                for job in batch.jobs:
                    job.end(error)
            finally:
                with self._changed:
                    del self._running[lane]

    def _next(self, lane: Lane) -> _Batch | None:
        """The next batch of a lane, as soon as there is one; `None` when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or bool(self._jobs[lane]))
            if self._is_closed:
                return None
            batch = _Batch(self._taken(self._jobs[lane], lane))
            self._running[lane] = batch
            return batch

    def _taken(self, jobs: deque[_Job], lane: Lane) -> list[tuple[_Job, int]]:
        """Texts of one batch, one of each job in turn, that skip the same number of ids."""
        room = min(lane.request_tokens, self._batch_tokens)
        items: list[tuple[_Job, int]] = []
        skip, others = jobs[0].skip, []
        while jobs:
            job = jobs.popleft()
            size = _size(job.requests[job.waiting[0]])
            if job.skip != skip:
                others.append(job)
                continue
            if items and size > room:
                jobs.appendleft(job)
                break
            room -= size
            items.append((job, job.waiting.popleft()))
            if job.waiting:
                jobs.append(job)
        jobs.extendleft(reversed(others))
        return items

    def _encode(self, lane: Lane, batch: _Batch) -> None:
        """Encode a batch, and give each job that is complete its vectors."""
        begun, requests = time.perf_counter(), batch.requests
        alone = batch.items[0][0] if len(batch.items) == 1 else None
        embedded = self._embed(
            requests, batch.items[0][0].skip, batch.control,
            alone.on_tokens if alone else lambda _: None,
        )  # fmt: skip
        if max(map(_size, requests)) > self._batch_tokens or lane is self.lanes[-1]:
            self._require_same_probe()
        embedded = _looked_at(requests, embedded)
        seconds = time.perf_counter() - begun
        with self._changed:
            tokens = sum(map(_size, requests))
            # A few tokens take as long as many, and say little of how fast many are.
            weight = 0.3 * min(1.0, tokens / RATED_TOKENS)
            self._rates[lane] += weight * (tokens / max(seconds, 1e-6) - self._rates[lane])
        for (job, index), vectors in zip(batch.items, embedded, strict=True):
            job.vectors[index] = vectors
            if alone is None:
                job.on_tokens(_size(job.requests[index]))
            if len(job.vectors) == len(job.requests):
                job.end()

    def _embed(
        self,
        requests: Sequence[Request],
        skip: int,
        control: PassControl | None = None,
        on_tokens: Advance = lambda _: None,
    ) -> list[Embedded]:
        """The requests' vectors."""
        return embed(
            self.model.model, requests, skip=skip, control=control, on_tokens=on_tokens,
            single_vector=self.model.config.single_vector, batch_tokens=self._batch_tokens,
        )  # fmt: skip

    def _probed(self) -> np.ndarray:
        """The vector of a short text."""
        texts = self.model.prepare([PROBE], spans=[[]])
        return self._embed(texts.requests, texts.skip)[0].vector

    def _require_same_probe(self) -> None:
        """Look whether a short text still has its vector.

        Raises:
            ApiError: it has another one; nothing that the model gives can be trusted.

        """
        difference = 1 - float(self._probed() @ self._probe)
        if not difference <= PROBE_TOLERANCE:
            self.fault = f"after a long text a short one has another vector (by {difference:.2g})"
            raise ApiError(500, f"{self.fault}; restart the server", kind="server_error")


def _looked_at(requests: Sequence[Request], embedded: Sequence[Embedded]) -> list[Embedded]:
    """The vectors, those without a length with a fault.

    Raises:
        ApiError: different texts have the same vector, which no model would give.

    """
    owners: dict[bytes, bytes] = {}
    seen = []
    for request, vectors in zip(requests, embedded, strict=True):
        each, length = vectors, float(np.linalg.norm(vectors.vector))
        if each.fault is None and not 0 < length < np.inf:
            each = replace(each, fault=f"its vector has length {length:.3g}")
        ids, vector = request.tokens.ids.tobytes(), each.vector.tobytes()
        if each.fault is None and ids != owners.setdefault(vector, ids):
            fault = "two different texts have the same vector, bit for bit"
            raise ApiError(500, f"{fault}; nothing is answered", kind="server_error")
        seen.append(each)
    return seen


class QueuedModel(Dewey):
    """A model whose forward passes go through a queue, for indexes and whoever else calls it."""

    def __init__(self, model: Dewey, queue: EncodeQueue) -> None:
        super().__init__(
            model.model, model.tokenizer,
            name=model.name, folder=model.folder, truncate_dim=model.truncate_dim,
        )  # fmt: skip
        self._queue = queue

    def _run(
        self,
        requests: Sequence[Request],
        skip: int,
        *,
        batch_tokens: int,
        keep_states: bool,
        on_tokens: Advance,
    ) -> list[Embedded]:
        if keep_states:
            return super()._run(
                requests, skip,
                batch_tokens=batch_tokens, keep_states=keep_states, on_tokens=on_tokens,
            )  # fmt: skip
        return self._queue.embed(requests, skip, on_tokens)


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping", kind="server_error")


def _size(request: Request) -> int:
    """Tokens that the model reads of a text, windows' overlaps included; never none."""
    return request.num_read + 3
