"""A reader's view of an index: its newest snapshot and catalogue, renewed when others write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dewey_embed.index.catalogue import Catalogue, open_catalogue, remove_stale_catalogues
from dewey_embed.index.snapshot import Snapshot, UnreadError
from dewey_embed.index.store import Store

ATTEMPTS = 5

T = TypeVar("T")


class View:
    """Reads what was last committed to a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: tuple[Snapshot, Catalogue] | None = None

    def read(self, action: Callable[[Snapshot, Catalogue], T], *, nothing: T) -> T:
        """What an action makes of the newest state; `nothing` before the first commit.

        A writer that tidies up may take an old version from under a reader, who then reads the
        next one.

        Raises:
            IndexStoreError: the index cannot be read.

        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                held = self._newest()
                return nothing if held is None else action(*held)
            except UnreadError:
                self._held = None
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def settle(self, *, progress: bool = False) -> None:
        """Leave the catalogue of the newest state on disk, alone. For the writer."""
        held = self._newest(progress=progress)
        if held is not None:
            remove_stale_catalogues(self._store.folder, held[0])

    def _newest(self, *, progress: bool = False) -> tuple[Snapshot, Catalogue] | None:
        """The newest snapshot with its catalogue; `None` before the first commit."""
        if self._held is None or self._held[0].state != self._store.state():
            snapshot = self._store.snapshot()
            if snapshot is None:
                return None
            catalogue = open_catalogue(self._store.folder, snapshot, progress=progress)
            self._held = snapshot, catalogue
        return self._held
