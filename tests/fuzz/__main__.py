"""`python -m tests.fuzz --target splitters --cases 1000000`: many random cases of a promise.

Runs add up until one finds something: each has a seed of its own, begins with the cases that
earlier ones found to reach new code, and tries what is left of the cases.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.engine import INTERRUPTED_STATUS, Progress, fuzz, read_progress
from tests.fuzz.results import Result, keep_result, read_results
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
IN_MEMORY = Path("/dev/shm")
MAX_RESTARTS = 50
CASES_OF_A_PROCESS = 100_000
"""Another process follows: an instrumented comparison of two arrays leaks its result, 13 KB a case
of the tokenizer, whose memory stays level where nothing is instrumented."""
HANG_STATUS = 70
"""With which libFuzzer ends a process whose case takes too long."""


def main() -> int:
    """Run the targets one after another; 1 where any promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--target", action="append", choices=[*TARGETS, "all"], required=True)
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all runs together")
    parser.add_argument("--seconds", type=int, default=3600, help="the most time of a target")
    parser.add_argument("--seed", type=int, help="default: another for every run")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/fuzz", help="what is found")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = list(TARGETS) if "all" in given.target else given.target
    if given.one:
        [name] = names
        fuzz(name, given.work, CORPUS / name, cases=given.cases, seed=given.seed,
             seconds=given.seconds)  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whose process would live on
    faults = 0
    for name in names:
        before = read_results().get(name)
        earlier = before if before and not before.faults else None
        left = given.cases - (earlier.cases if earlier else 0)
        if left <= 0:
            continue
        seed = given.seed or 1000 * ((earlier.runs if earlier else 0) + 1)
        for result, interrupted in run(name, given.work / name, left, given.seconds, seed):  # noqa: B007
            keep_result(name, earlier + result if earlier else result)  # a kill loses one process
        sys.stdout.write(f"{name}: {result}\n")
        sys.stdout.flush()
        faults += result.faults
        if interrupted:
            break
    return 1 if faults else 0


def run(
    name: str, folder: Path, cases: int, seconds: int, seed: int
) -> Iterator[tuple[Result, bool]]:
    """Yield what came of a target's cases after each process, and whether it was interrupted.

    A process that a case ended is followed by another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for each in folder.iterdir():
        if each.name != "found":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    total, hangs, crashes, processes = Progress(), 0, 0, 0
    start = time.monotonic()
    while total.cases < cases and hangs + crashes < MAX_RESTARTS:
        left = int(seconds - (time.monotonic() - start))
        if processes and left <= 0:
            break
        cases_left = min(cases - total.cases, CASES_OF_A_PROCESS)
        status, done = _process(name, folder, cases_left, max(1, left), seed + processes)
        processes += 1
        slowest = max((total.slowest_s, total.slowest_bytes), (done.slowest_s, done.slowest_bytes))
        total = Progress(total.cases + done.cases, total.broken + done.broken, *slowest)
        interrupted = status == INTERRUPTED_STATUS
        hangs += status == HANG_STATUS
        crashes += status not in (0, HANG_STATUS, INTERRUPTED_STATUS)
        result = Result(
            runs=1,
            cases=total.cases,
            seconds=round(time.monotonic() - start),
            broken=total.broken,
            crashes=crashes,
            hangs=hangs,
            slowest_ms=round(total.slowest_s * 1000, 1),
            slowest_bytes=total.slowest_bytes,
        )
        yield result, interrupted
        if interrupted:
            break
        if status and not done.cases:
            raise SystemExit(f"{name} did not begin, or its first case ended it; see {folder}/log")


def _process(name: str, folder: Path, cases: int, seconds: int, seed: int) -> tuple[int, Progress]:
    """The exit status of a process that runs cases, and what it did before it ended."""
    command = [sys.executable, "-m", "tests.fuzz", "--one", "--target", name, "--work", str(folder)]
    options = ["--cases", str(cases), "--seconds", str(seconds), "--seed", str(seed)]
    (folder / "progress").unlink(missing_ok=True)
    in_memory = IN_MEMORY if IN_MEMORY.is_dir() else None
    with open(folder / "log", "ab") as log, TemporaryDirectory(dir=in_memory) as scratch:
        environment = {**os.environ, "TMPDIR": scratch, "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdout=log, stderr=log, env=environment
        )
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the process may not have got the signal, or not know it yet
            process.send_signal(signal.SIGINT)
            process.wait()
            status = INTERRUPTED_STATUS
    return status, read_progress(folder)


if __name__ == "__main__":
    sys.exit(main())
