"""The faults: what is done to a command, how it may end then, and what is judged afterwards."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dewey_embed.index.store import BOOT_NAME
from tests.faults.operations import Alarm, Ended, Operation, Serve, files_of
from tests.faults.shim import Plan

CAPABILITY_VERSION = 0x20080522
DAY = 86_400
PAGE = 4096
DIARY = "log.jsonl"
"""What a run of training notes for people: no command reads it, so that none could name damage."""
CLOCKS = (3600, DAY, 400 * DAY, 3300 * DAY)
"""Seconds by which a clock is wrong."""


@dataclass(frozen=True)
class Unbroken:
    """What a run without faults does: its contents, its answers, its calls and its seconds."""

    folder: Path
    contents: Any
    answers: Any
    counts: dict[str, int]
    seconds: float


@dataclass
class Case:
    """One run: an operation in a folder, the choices for it, and what an unbroken run does."""

    operation: Operation
    home: Path
    choose: random.Random
    unbroken: Unbroken

    def plan(self, **words: object) -> Plan:
        """What is to happen in the command's process."""
        return Plan(self.home, tuple(words.items()))

    def a_call(self, kinds: Sequence[str]) -> int:
        """The number of one of the calls of these kinds that an unbroken run makes."""
        return self.choose.randint(1, max(1, sum(self.unbroken.counts[kind] for kind in kinds)))


@dataclass
class Struck:
    """What came of a fault: how the command ended, in which ways it may have, what was done."""

    ended: list[Ended]
    codes: tuple[int, ...]
    what: str
    happened: bool = True
    named: tuple[str, ...] = ()
    """Words of which a run that ended with 1 must have said one."""
    damaged: tuple[Path, ...] = ()
    """Files that were damaged: a later command may refuse them by name."""


class Fault:
    """A kind of fault."""

    name: str

    def strikes(self, operation: Operation) -> bool:
        """Whether it makes sense for an operation."""
        return True

    @contextmanager
    def around(self, case: Case) -> Iterator[None]:
        """What holds from the beginning of a run to its end."""
        yield

    def strike(self, case: Case) -> Struck:
        """Run the command with the fault."""
        raise NotImplementedError

    def lift(self, case: Case) -> None:
        """End what would keep the next run from working."""


ALL = ("read", "write", "sync", "name")
LETTERS = {"read": "r", "write": "w", "sync": "s", "name": "n"}


@dataclass
class Signal(Fault):
    """A signal at one of the command's calls of the system, or by the clock."""

    name: str
    number: int
    action: str

    def strike(self, case: Case) -> Struck:
        if case.choose.random() < 0.3:
            return self._by_clock(case)
        kinds = case.choose.choice((ALL, ("write",), ("sync",), ("name",)))
        at = case.a_call(kinds)
        on = "".join(LETTERS[kind] for kind in kinds)
        plan = case.plan(do=self.action, on=on, at=at)
        ended = case.operation.run(case.home, plan.armed())
        happened = bool(plan.report()["happened"])
        return self._struck(case, ended, f"at call {at} of {'/'.join(kinds)}", happened)

    def _by_clock(self, case: Case) -> Struck:
        # The run whose seconds these are was the first, which read its libraries from the disk.
        seconds = case.choose.uniform(0.05, 0.7) * case.unbroken.seconds
        process = case.operation.start(case.home)
        alarm = Alarm(process, self.number, seconds)
        try:
            ended = case.operation.drive(process, case.home)
        finally:
            alarm.cancel()
            process.kill()
        return self._struck(case, ended, f"after {seconds:.2f} s", ended.code != 0)

    def _struck(self, case: Case, ended: Ended, what: str, happened: bool) -> Struck:
        end = -self.number if self.number == signal.SIGKILL else 128 + self.number
        return Struck([ended], (0, end), what, happened)


class PowerLoss(Signal):
    """SIGKILL, and then files that were not flushed to the disk are cut short, zeroed or empty."""

    def strike(self, case: Case) -> Struck:
        kinds = case.choose.choice((ALL, ("write",), ("sync",), ("name",)))
        at = case.a_call(kinds)
        plan = case.plan(do="kill", on="".join(LETTERS[kind] for kind in kinds), at=at)
        ended = case.operation.run(case.home, plan.armed())
        lost = [path for path in plan.unflushed() if case.choose.random() < 0.5]
        for path in lost:
            tear(path, case.choose)
        for path in case.home.rglob(BOOT_NAME):
            path.write_text("another start of the system\n")
        what = f"at call {at} of {'/'.join(kinds)}; {len(lost)} files torn"
        happened = bool(plan.report()["happened"])
        return Struck([ended], (0, -9), what, happened, damaged=tuple(lost))


@dataclass
class Failing(Fault):
    """A call of the system that fails, once or from then on."""

    name: str
    error: int
    kinds: tuple[str, ...]
    from_then_on: bool = False

    def strike(self, case: Case) -> Struck:
        at = case.a_call(self.kinds)
        on = "".join(LETTERS[kind] for kind in self.kinds)
        plan = case.plan(do=f"errno:{self.error}", on=on, at=at, last=int(self.from_then_on))
        ended = case.operation.run(case.home, plan.armed())
        what = f"call {at} of {'/'.join(self.kinds)}"
        return Struck([ended], (0, 1, 3), what, bool(plan.report()["happened"]), (str(case.home),))


class Quota(Fault):
    """A disk that is full after so many bytes, by the library."""

    name = "full disk (quota)"

    def strike(self, case: Case) -> Struck:
        quota = int(case.choose.uniform(0, 1) * case.unbroken.counts["bytes"])
        plan = case.plan(quota=quota)
        ended = case.operation.run(case.home, plan.armed())
        happened = bool(plan.report()["happened"])
        return Struck([ended], (0, 1, 3), f"after {quota:,} bytes", happened, (str(case.home),))


class FullDisk(Fault):
    """A small file system of its own that fills up."""

    name = "full disk (tmpfs)"

    @contextmanager
    def around(self, case: Case) -> Iterator[None]:
        out = case.home / "out"
        aside = out.with_name("aside")
        out.rename(aside)
        out.mkdir()
        kept = bytes_in(aside)
        grown = max(kept + 2 * PAGE, bytes_in(case.unbroken.folder / "out"))
        self.size = case.choose.randrange(kept, grown, PAGE)
        mount(out, self.size)
        try:
            shutil.copytree(aside, out, dirs_exist_ok=True)
            shutil.rmtree(aside)
            yield
        finally:
            subprocess.run(["umount", "-l", out], check=True)

    def strike(self, case: Case) -> Struck:
        ended = case.operation.run(case.home)
        what = f"of {self.size:,} bytes"
        return Struck([ended], (0, 1, 3), what, ended.code != 0, (str(case.home),))

    def lift(self, case: Case) -> None:
        mount(case.home / "out", 2**31, "remount,")


def bytes_in(folder: Path) -> int:
    """What the files below a folder take on a disk."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in files_of(folder)) + PAGE


def mount(folder: Path, size: int, again: str = "") -> None:
    """Mount a file system in memory of so many bytes."""
    options = f"{again}size={size},mode=777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    place = folder / "mounted"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", place]
    if shutil.which("mount") is None:
        return False
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return False
    subprocess.run(["umount", place], check=True)
    return True


class ReadOnly(Fault):
    """Folders in which the command's user may not write."""

    name = "read-only folders"

    def strike(self, case: Case) -> Struck:
        folders = [case.home / "out", *(p for p in (case.home / "out").rglob("*") if p.is_dir())]
        chosen = case.choose.sample(folders, case.choose.randint(1, len(folders)))
        chosen = folders if case.choose.random() < 0.3 else chosen
        for folder in chosen:
            folder.chmod(0o555)
        try:
            ended = case.operation.run(case.home, drop_rights)
        finally:
            for folder in chosen:
                folder.chmod(0o755)
        what = f"{len(chosen)} of {len(folders)} folders"
        return Struck([ended], (0, 1, 3), what, ended.code != 0, (str(case.home),))


def drop_rights() -> None:
    """Give up all capabilities of root, whom no permissions bind otherwise."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        if libc.capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")


class Clock(Fault):
    """A clock that is wrong by days or years, from the start or suddenly."""

    name = "clock jump"

    def strike(self, case: Case) -> Struck:
        offset = case.choose.choice((-1, 1)) * case.choose.choice(CLOCKS)
        if case.choose.random() < 0.5:
            return self._between_runs(case, offset)
        jump = case.choose.choice((0, case.a_call(("clock",))))
        plan = case.plan(clock=offset, jump=jump)
        ended = case.operation.run(case.home, plan.armed())
        what = f"{offset / DAY:+,.2f} days from call {jump}"
        return Struck([ended], (0,), what, bool(plan.report()["happened"]))

    def _between_runs(self, case: Case, offset: int) -> Struck:
        """Kill the command; its files are then of another time than those of the next run."""
        at = case.a_call(ALL)
        plan = case.plan(do="kill", on="rwsn", at=at)
        ended = case.operation.run(case.home, plan.armed())
        for path in (case.home / "out").rglob("*"):
            os.utime(path, (path.stat().st_mtime + offset,) * 2)
        what = f"{offset / DAY:+,.2f} days after a kill at call {at}"
        return Struck([ended], (0, -9), what, bool(plan.report()["happened"]))


class Short(Fault):
    """Every write from one on takes only a part of what it is given, as it may."""

    name = "short writes"

    def strike(self, case: Case) -> Struck:
        at = case.a_call(("write",))
        plan = case.plan(do="short", on="w", at=at, last=1)
        ended = case.operation.run(case.home, plan.armed())
        return Struck([ended], (0,), f"from call {at}", bool(plan.report()["happened"]))


class TwoWriters(Fault):
    """The same command twice at once."""

    name = "two writers"

    def strikes(self, operation: Operation) -> bool:
        return not isinstance(operation, Serve)

    def strike(self, case: Case) -> Struck:
        delay = case.choose.choice((0, case.choose.uniform(0, 0.8) * case.unbroken.seconds))
        first = case.operation.start(case.home)
        time.sleep(delay)
        second = case.operation.start(case.home)
        try:
            ended = [case.operation.drive(each, case.home) for each in (first, second)]
        finally:
            first.kill()
            second.kill()
        named = ("another process",)
        return Struck(ended, (0, 1, 3), f"{delay:.2f} s apart", True, named)


@dataclass
class Damage(Fault):
    """Damage to a file that a finished run, or a killed one, left."""

    name: str
    ways: tuple[str, ...]
    kind: str | None = None
    """The kind of the file; None for any."""

    def strike(self, case: Case) -> Struck:
        shutil.rmtree(case.home)
        shutil.copytree(case.unbroken.folder, case.home)
        files = files_by_kind(case.home)
        path = case.choose.choice(files[self.kind or case.choose.choice(sorted(files))])
        way = case.choose.choice(self.ways)
        DAMAGES[way](path, case.choose)
        what = f"{way} {path.relative_to(case.home)}"
        return Struck([], (), what, damaged=(path,))


def files_by_kind(home: Path) -> dict[str, list[Path]]:
    """Files that hold something, by name and folder with numbers and digests left out."""
    found: dict[str, list[Path]] = {}
    roots = [root for root in (home / "out", home / "model") if root.exists()]
    for path in (path for root in roots for path in files_of(root)):
        if path.stat().st_size and path.name != DIARY:
            kind = re.sub(r"[0-9a-f]{4,}|\d+", "#", "/".join(path.relative_to(home).parts[-2:]))
            found.setdefault(kind, []).append(path)
    return found


def flip(path: Path, choose: random.Random) -> None:
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    path.write_bytes(data)


def zero(path: Path, choose: random.Random) -> None:
    """Fill a block with zeros, as a disk does that lost it."""
    data = bytearray(path.read_bytes())
    start = choose.randrange(len(data))
    end = min(len(data), start + choose.choice((16, 512, 4096)))
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


def cut(path: Path, choose: random.Random) -> None:
    """Lose the end of a file."""
    os.truncate(path, choose.randrange(path.stat().st_size))


def empty(path: Path, _: random.Random) -> None:
    """Lose all of a file but its name."""
    os.truncate(path, 0)


def remove(path: Path, _: random.Random) -> None:
    """Lose a file."""
    path.unlink()


DAMAGES = {"flipped": flip, "zeroed": zero, "cut": cut, "emptied": empty, "removed": remove}


def tear(path: Path, choose: random.Random) -> None:
    """Damage a file as a loss of power does to one that was not flushed."""
    DAMAGES[choose.choice(("zeroed", "cut", "emptied"))](path, choose)


FAULTS: tuple[Fault, ...] = (
    Signal("SIGKILL", signal.SIGKILL, "kill"),
    Signal("SIGTERM", signal.SIGTERM, "term"),
    Signal("SIGINT", signal.SIGINT, "int"),
    PowerLoss("power loss", signal.SIGKILL, "kill"),
    FullDisk(),
    Quota(),
    Failing("EIO on write", errno.EIO, ("write",)),
    Failing("EIO on read", errno.EIO, ("read",)),
    Failing("EIO on flush", errno.EIO, ("sync",)),
    Failing("EIO on rename, create, remove", errno.EIO, ("name",)),
    Failing("file system turns read-only", errno.EROFS, ("write", "name"), from_then_on=True),
    Short(),
    ReadOnly(),
    Damage("flipped bytes", ("flipped", "zeroed")),
    Damage("torn or lost files", ("cut", "emptied", "removed")),
    Clock(),
    TwoWriters(),
)
