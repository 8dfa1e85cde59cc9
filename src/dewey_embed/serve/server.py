"""What all endpoints share: the model, the indexes, and the queue of texts to encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np
from fastapi import Request

from dewey_embed.encoder import Dewey, ReadingOptions, joined
from dewey_embed.index.index import Index, index_path
from dewey_embed.index.settings import IndexSettings
from dewey_embed.progress import Advance
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.queue import EncodeQueue, QueuedModel
from dewey_embed.serve.settings import ServeSettings
from dewey_embed.types import Document, DocumentVectors

T = TypeVar("T")

READERS, WRITERS, SEARCHERS = 2, 2, 8
"""Threads that parse files, write to indexes, and search."""

SLICE_CHARS = 1_000_000
"""Characters of texts that are tokenized at a time, about."""

CLIENT_GONE = 499
"""The status of a request whose client left; it reaches the log only. Source: nginx."""


class Server:
    """A model and indexes, for any number of requests at a time."""

    def __init__(self, model: Dewey, indexes: Mapping[str, Index], settings: ServeSettings) -> None:
        self.model = model
        self.indexes = dict(indexes)
        self.settings = settings
        self.queue = EncodeQueue(model, max_wait_s=settings.max_wait_s)
        # Apart from the threads that tokenize: who adds, reads or searches must not hold up others.
        self.readers = ThreadPoolExecutor(READERS, "dewey-read")
        self.writers = ThreadPoolExecutor(WRITERS, "dewey-write")
        self.searchers = ThreadPoolExecutor(SEARCHERS, "dewey-search")

    async def encode(
        self,
        request: Request,
        texts: Sequence[str | Document],
        on_tokens: Advance = lambda _: None,
        **options: Unpack[ReadingOptions],
    ) -> list[DocumentVectors]:
        """What `Dewey.encode_document` returns, encoded together with the texts of other requests.

        The work stops when the client of `request` is gone. `overflow` is `"error"` unless given.
        `on_tokens` is called with numbers of tokens that are done, where a text fills a batch.

        Raises:
            ApiError: there are too many texts or tokens, too much waits, or time is up.
            InputError: as `Dewey.encode_document`.
            SpanError: as `Dewey.encode_document`.

        """
        if len(texts) > self.settings.max_inputs:
            raise ApiError(
                413,
                f"the request has {len(texts):,} texts, the limit is "
                f"{self.settings.max_inputs:,}; send them in several requests",
            )
        options.setdefault("overflow", "error")
        return await while_connected(
            request, self._encode(list(texts), options, on_tokens), self.settings.timeout_s
        )

    async def _encode(
        self, texts: list[str | Document], options: ReadingOptions, on_tokens: Advance
    ) -> list[DocumentVectors]:
        prepared, total = [], 0
        for start, end in _slices(texts):
            own = options.copy()
            if "spans" in options and options["spans"] is not None:
                own["spans"] = options["spans"][start:end]
            prepare = partial(self.model.prepare, texts[start:end], **own)
            prepared.append(await asyncio.to_thread(prepare))
            total += sum(len(each.tokens) for each in prepared[-1].requests)
            if total > self.settings.max_tokens:
                raise ApiError(
                    413,
                    f"the request has {total:,} tokens or more, the limit is "
                    f"{self.settings.max_tokens:,}; send its texts in several requests",
                )
        return await self.queue.encode(joined(prepared), on_tokens) if prepared else []

    def open_index(self, path: Path) -> Index:
        """The index at a path, which encodes through the queue if this server's model made it.

        Raises:
            IndexStoreError: it is damaged.

        """
        made = IndexSettings.read(index_path(path))
        is_own = made is None or made.fingerprint == self.model.fingerprint
        return Index.open(path, QueuedModel(self.model, self.queue) if is_own else None)

    def close(self) -> None:
        """Stop all work."""
        self.queue.close()
        for threads in (self.readers, self.writers, self.searchers):
            threads.shutdown(wait=False, cancel_futures=True)
        for index in self.indexes.values():
            index.close()


def _slices(texts: Sequence[str | Document]) -> list[tuple[int, int]]:
    """Ranges of texts that are tokenized together, so that too many are refused early."""
    sizes = [len(each.text if isinstance(each, Document) else each) for each in texts]
    ends = np.cumsum(sizes, dtype=np.int64) // SLICE_CHARS
    starts = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(texts)]
    return [(start, end) for start, end in pairwise(starts) if start < end]


async def while_connected(request: Request, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """What the work returns; it is cancelled when the request's client is gone, or time is up.

    Raises:
        ApiError: the client is gone, or time is up.

    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ApiError(CLIENT_GONE, "the client is gone")
        raise ApiError(
            504,
            f"no answer within {timeout_s:g} s; ask for less at a time, or start the server with a "
            "larger --timeout-s",
            kind="timeout",
        )
    finally:
        for each in (task, gone):
            each.cancel()
            with suppress(BaseException):
                await each


async def _disconnected(request: Request) -> None:
    """Return when the request's client is gone."""
    with suppress(RuntimeError):  # a form has been read already
        await request.body()  # what comes after it is the end
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def in_thread(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    """What the call returns, made in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def server_of(request: Request) -> Server:
    """The server that a request came to."""
    server: Server = request.app.state.server
    return server
