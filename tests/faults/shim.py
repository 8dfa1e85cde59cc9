"""The library of faults (`shim.cpp`): built, preloaded, armed in a process, read afterwards."""

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("shim.cpp")
KINDS = ("read", "write", "sync", "name", "clock")
"""Calls of the system, in the order in which the library counts them."""


@cache
def library(folder: Path) -> Path | None:
    """The library, built into `folder`; None where there is no compiler or no LD_PRELOAD."""
    compiler = shutil.which("g++")
    if compiler is None or os.uname().sysname != "Linux":
        return None
    path = folder / "faults.so"
    flags = ("-std=c++17", "-O1", "-fPIC", "-shared")
    subprocess.run([compiler, *flags, "-o", path, SOURCE, "-ldl"], check=True)
    return path


@dataclass(frozen=True)
class Plan:
    """What is to happen to calls about files below `root`; the words are those of `shim.cpp`."""

    root: Path
    words: tuple[tuple[str, object], ...] = ()

    @property
    def report_file(self) -> Path:
        """Where the counts are kept."""
        return self.root.with_suffix(".report")

    @property
    def log_file(self) -> Path:
        """Where it is kept what was written and flushed."""
        return self.root.with_suffix(".log")

    def text(self) -> str:
        """The plan as the library reads it."""
        own = [("root", f"{self.root}/"), ("report", self.report_file), ("log", self.log_file)]
        return ";".join(f"{key}={value}" for key, value in (*own, *self.words))

    def armed(self) -> partial[None]:
        """What a process has to call first."""
        for file in (self.report_file, self.log_file):
            file.unlink(missing_ok=True)
        return partial(arm, self.text())

    def report(self) -> dict[str, int]:
        """Counts of calls by kind, `bytes` written, and whether it has `happened`."""
        if not self.report_file.exists():
            return dict.fromkeys((*KINDS, "bytes", "matched", "happened"), 0)
        counts = np.fromfile(self.report_file, np.int64).tolist()
        return dict(zip((*KINDS, "bytes", "matched", "happened"), counts, strict=True))

    def unflushed(self) -> list[Path]:
        """Files that were written, and not flushed to the disk since, by their names of today."""
        pending: dict[str, None] = {}
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        for what, place in ((line[0], line[1:]) for line in lines):
            if what in "ow":
                pending[place] = None
            elif what in "su":
                pending.pop(place, None)
            elif what in "rl":
                old, new = place.split("\t")
                was_pending = old in pending
                if what == "r":
                    for each in [each for each in pending if each.startswith(f"{old}/")]:
                        del pending[each]
                        pending[new + each.removeprefix(old)] = None
                    pending.pop(old, None)
                pending.pop(new, None)
                if was_pending:
                    pending[new] = None
        return [path for path in map(Path, pending) if path.is_file() and path.stat().st_size]


def arm(plan: str) -> None:
    """Let the faults of a plan happen in this process."""
    ctypes.CDLL(None).faults_arm(plan.encode())
