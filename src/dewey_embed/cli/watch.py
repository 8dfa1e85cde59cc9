"""`dewey index --watch`: an index kept current while files change, each change a line."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dewey_embed.cli import console
from dewey_embed.cli.hits import from_here
from dewey_embed.errors import ReadError
from dewey_embed.printable import counted, one_line

if TYPE_CHECKING:
    from dewey_embed.index.file_cache import FileCache, Signature
    from dewey_embed.index.index import Index
    from dewey_embed.index.sync import IndexReport

_QUIET_MS, _LONGEST_MS, _TICK_MS = 100, 500, 500
"""Changes are taken up after a quiet moment, or at the latest; a tick looks at the inputs."""

_MARKS = {"added": "+", "changed": "~", "removed": "-"}


def require_watchable(inputs: Sequence[str]) -> None:
    """Refuse inputs that can be read only once.

    Raises:
        BadParameter: standard input, a pipe or a device.

    """
    for each in inputs:
        mode = os.stat(each).st_mode if os.path.exists(each) else stat.S_IFREG
        if each == "-" or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise typer.BadParameter(
                f"{each} can be read only once; name files and folders", param_hint="--watch"
            )


def _new_cache() -> FileCache:
    """A cache of files; imported late, as all that needs NumPy."""
    from dewey_embed.index.file_cache import FileCache

    return FileCache()


@dataclass
class Watch:
    """An index and what is kept in it; `update` brings it up to date with the files that changed.

    `totals` counts the documents added, changed and removed, `faults` are those named already.
    """

    index: Index
    inputs: Sequence[str]
    update: Callable[..., IndexReport]
    as_json: bool
    cache: FileCache = field(default_factory=_new_cache)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_MARKS, 0))
    faults: set[str] = field(default_factory=set)

    def run(self, report: Callable[[IndexReport], None]) -> None:
        """Bring the index up to date, hand on the report, and follow changes until Ctrl-C."""
        changes = self._changes()
        next(changes)  # what changes from here on is noticed, also while the first run reads
        first = self.update(cache=self.cache, progress=not self.as_json)
        report(first)
        self.faults = set(map(str, first.unreadable))
        try:
            _ = self.index.model
            console.say(f"watching {', '.join(self.inputs)}; Ctrl-C ends it")
            waiting = False
            for paths in changes:
                self.cache.forget(paths)
                if paths or waiting:
                    waiting = not self._take_up()
        except KeyboardInterrupt:
            self._end()

    def _take_up(self) -> bool:
        """Whether the index could be brought up to date; prints what changed."""
        from dewey_embed.index.store import BusyError

        try:
            report = self.update(cache=self.cache)
        except (BusyError, ReadError) as error:  # another writer, or all inputs are gone
            self._name([*self.faults, str(error)])
            return isinstance(error, ReadError)
        changed = {name: getattr(report, name) for name in _MARKS}
        for name, ids in changed.items():
            self.totals[name] += len(ids)
        faults = [str(fault) for fault in report.unreadable]
        if self.as_json and (any(changed.values()) or set(faults) - self.faults):
            console.print_json({**changed, "unreadable": faults})
        elif not self.as_json:
            for name, ids in changed.items():
                for each in ids:
                    console.echo(f"{_MARKS[name]} {one_line(from_here(each))}")
        self._name(faults)
        return True

    def _name(self, faults: Sequence[str]) -> None:
        """Name the faults that were not there before."""
        for fault in faults:
            if fault not in self.faults:
                console.say(fault)
        self.faults = set(faults)

    def _end(self) -> None:
        """Print what the index holds now, and what was done while it was watched."""
        totals = {f"num_{name}": number for name, number in self.totals.items()}
        num_documents = len(self.index)
        if self.as_json:
            facts = {"index": str(self.index.path), "num_documents": num_documents}
            console.print_json({**facts, **totals})
            return
        done = ", ".join(f"{number:,} {name}" for name, number in self.totals.items())
        console.echo(
            f"{self.index.path}: {counted(num_documents, 'document')} ({done} while watched)"
        )

    def _changes(self) -> Iterator[set[str]]:
        """Paths that may have changed, time and again; an empty set once changes are noticed."""
        changed: set[str] = set()
        while True:
            before = _signatures(self.inputs)
            for events in _events([each for each in before if os.path.isdir(each)]):
                changed |= {path for path in events if self._concerns(path)}
                changed |= set(self.cache.changed_links())
                now = _signatures(self.inputs)
                replaced = {each for each in before if _is_replaced(each, before, now, events)}
                if replaced:
                    changed |= replaced
                    break
                yield changed
                changed = set()

    def _concerns(self, path: str) -> bool:
        """Whether a change at a path may change the index: not within it, and of a known kind."""
        from dewey_embed.index.changes import is_within
        from dewey_embed.text.folders import is_clutter, named_file
        from dewey_embed.text.formats import known_extension

        if is_within(path, os.path.realpath(self.index.path)):
            return False
        if not os.path.isfile(path):  # a folder, or something that has gone
            return os.path.isdir(path) or os.path.islink(path) or self.cache.holds(path)
        names = named_file(Path(path), "").names
        return known_extension(names) is not None and not is_clutter(names[0])


def _events(folders: Sequence[str]) -> Iterator[set[str]]:
    """Paths of changes in folders, and an empty set when there were none for a while."""
    if not folders:
        while True:
            yield set()
            time.sleep(_TICK_MS / 1000)
    import watchfiles

    for changes in watchfiles.watch(
        *folders, watch_filter=None, debounce=_LONGEST_MS, step=_QUIET_MS,
        rust_timeout=_TICK_MS, yield_on_timeout=True, ignore_permission_denied=True,
    ):  # fmt: skip
        yield {path for _, path in changes}


def _signatures(inputs: Sequence[str]) -> dict[str, Signature | None]:
    """What tells an input from another in its place: of a folder who it is, of a file its state."""
    from dewey_embed.index.file_cache import signature

    found: dict[str, Signature | None] = {}
    for each in inputs:
        path = os.path.realpath(each)
        now = signature(path)
        found[path] = now[:3] if now and stat.S_ISDIR(now[2]) else now
    return found


def _is_replaced(
    path: str,
    before: dict[str, Signature | None],
    now: dict[str, Signature | None],
    events: set[str],
) -> bool:
    """Whether an input is another than before; a new folder may have the number of an old one."""
    return before[path] != now.get(path) or (path in events and os.path.isdir(path))
