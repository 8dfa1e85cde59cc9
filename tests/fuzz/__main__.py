"""`python -m tests.fuzz --target splitters --cases 1000000`: many random cases of a promise."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.engine import Progress, fuzz, read_progress
from tests.fuzz.results import Result, write_result
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
IN_MEMORY = Path("/dev/shm")
MAX_RESTARTS = 50
HANG_STATUS = 70
"""With which libFuzzer ends a process whose case takes too long."""


def main() -> int:
    """Run the targets one after another; 1 where any promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=[*TARGETS, "all"], required=True)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=3600, help="the most time of a target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "runs/fuzz", help="what is found")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = list(TARGETS) if "all" in given.target else given.target
    if given.one:
        [name] = names
        fuzz(name, given.work, CORPUS / name, cases=given.cases, seed=given.seed,
             seconds=given.seconds)  # fmt: skip
    faults = 0
    for name in names:
        result = run(name, given.work / name, given.cases, given.seconds, given.seed)
        write_result(name, result)
        sys.stdout.write(f"{name}: {result}\n")
        sys.stdout.flush()
        faults += result.broken + result.crashes + result.hangs
    return 1 if faults else 0


def run(name: str, folder: Path, cases: int, seconds: int, seed: int) -> Result:
    """What came of a target's cases; a process that a case ended is followed by another."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    total, hangs, crashes = Progress(), 0, 0
    start = time.monotonic()
    for attempt in range(MAX_RESTARTS):
        left = int(seconds - (time.monotonic() - start))
        if total.cases >= cases or left <= 0:
            break
        status, done = _process(name, folder, cases - total.cases, left, seed + attempt)
        slowest = max((total.slowest_s, total.slowest_bytes), (done.slowest_s, done.slowest_bytes))
        total = Progress(total.cases + done.cases, total.broken + done.broken, *slowest)
        if status == HANG_STATUS:
            hangs += 1
        elif status:
            crashes += 1
            if not done.cases:
                raise SystemExit(f"{name} did not begin; see {folder}/log")
    options = ["--target", name, "--cases", str(cases), "--seconds", str(seconds)]
    return Result(
        cases=total.cases,
        seconds=round(time.monotonic() - start),
        broken=total.broken,
        crashes=crashes,
        hangs=hangs,
        slowest_ms=round(total.slowest_s * 1000, 1),
        slowest_bytes=total.slowest_bytes,
        command=shlex.join(["python", "-m", "tests.fuzz", *options, "--seed", str(seed)]),
    )


def _process(name: str, folder: Path, cases: int, seconds: int, seed: int) -> tuple[int, Progress]:
    """The exit status of a process that runs cases, and what it did before it ended."""
    command = [sys.executable, "-m", "tests.fuzz", "--one", "--target", name, "--work", str(folder)]
    options = ["--cases", str(cases), "--seconds", str(seconds), "--seed", str(seed)]
    (folder / "progress").unlink(missing_ok=True)
    in_memory = IN_MEMORY if IN_MEMORY.is_dir() else None
    with open(folder / "log", "ab") as log, TemporaryDirectory(dir=in_memory) as scratch:
        environment = {**os.environ, "TMPDIR": scratch, "TOKENIZERS_PARALLELISM": "false"}
        ended = subprocess.run(
            [*command, *options], cwd=ROOT, stdout=log, stderr=log, check=False, env=environment
        )
    return ended.returncode, read_progress(folder)


if __name__ == "__main__":
    sys.exit(main())
