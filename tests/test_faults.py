"""Commands under faults, each judged by the same invariants: `python -m tests.faults --help`."""

import os
import shutil
import subprocess
import sys

import pytest

QUICK = ("--commands", "index", "encode", "--runs", "4", "--seed", "7")
FULL = ("--runs", "200", "--every-file", "--seed", "1")


@pytest.mark.skipif(sys.platform != "linux", reason="faults are made by a library of Linux")
@pytest.mark.skipif(shutil.which("g++") is None, reason="the library is built by g++")
@pytest.mark.parametrize(
    "words",
    [QUICK, pytest.param(FULL, marks=[pytest.mark.slow])],
    ids=["four", "all"],
)
@pytest.mark.timeout(7200)
def test_every_invariant_holds_after_every_fault(words, repository):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=repository, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
