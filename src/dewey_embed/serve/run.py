"""A server on an address: started, announced, and stopped when its requests are done."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.index.index import Index
from dewey_embed.serve.app import create_app
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings

log = logging.getLogger(__name__)

BACKLOG = 2_048
CLOSING_S = 1
GRACE_S = 60
"""Seconds that running requests have when the server stops."""


def serve(
    model: str | Path | None,
    indexes: Sequence[Path],
    settings: ServeSettings,
    on_start: Callable[[Server, str], None],
) -> None:
    """Serve a model and indexes until a signal ends it; `on_start` gets the address.

    Without a model it is that of the first index, or the embedded default.

    Raises:
        ConfigError: the address cannot be listened at.
        CheckpointError: the model cannot be loaded.
        IndexStoreError: an index cannot be read.

    """
    with listening(settings.host, settings.port) as listener:
        first = Index.open(indexes[0]) if indexes and model is None else None
        loaded = Dewey.load(model) if first is None else first.model
        server = Server(loaded, {}, settings)
        server.indexes.update(named([server.open_index(path) for path in indexes]))
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}"
        running = _Uvicorn(
            uvicorn.Config(
                create_app(server), log_config=None, access_log=False, server_header=False,
                timeout_graceful_shutdown=GRACE_S + 10, timeout_keep_alive=30,
            ),
            lambda: on_start(server, address),
            server.queue.close,
        )  # fmt: skip
        try:
            running.run(sockets=[listener])
        finally:
            server.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn, which says when it listens, and answers what it cannot finish."""

    def __init__(
        self, config: uvicorn.Config, on_start: Callable[[], None], stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_start, self._stop = on_start, stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second signal refuse what still runs, at the third end at once."""
        if not self.should_exit:
            log.info("stopping: requests that run have %d s; a second signal ends them", GRACE_S)
            self.should_exit = True
        elif not self._is_refusing:
            self._refuse()
        else:
            self.force_exit = True

    _is_refusing = False

    def _refuse(self) -> None:
        """Answer requests that run with a refusal, stop their work, and close what is left."""
        self._is_refusing = True

        def refuse() -> None:
            self._stop()
            time.sleep(CLOSING_S)
            self.force_exit = True  # bodies that still arrive are waited for no longer

        threading.Thread(target=refuse, daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and wait for the requests that run."""
        timer = asyncio.get_running_loop().call_later(GRACE_S, self._refuse)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._on_start()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        ConfigError: the address is not this machine's, or it is taken.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen at {host}, port {port} ({reason}); choose another --port (0: any that "
            "is free) or --host"
        ) from None


def named(indexes: Sequence[Index]) -> dict[str, Index]:
    """Indexes by the names of their folders; a name that is taken gets a number.

    Raises:
        ConfigError: an index is given twice.

    """
    names: dict[str, Index] = {}
    for index in indexes:
        if any(each.path == index.path for each in names.values()):
            raise ConfigError(f"index {index.path} is given twice; give it once")
        name = own = index.path.name.removesuffix(".index") or "index"
        number = 1
        while name in names:
            number += 1
            name = f"{own}-{number}"
        names[name] = index
    return names
