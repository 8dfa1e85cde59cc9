"""The command line of the audits, in a process of its own."""

import os
import subprocess
import sys


def start(*words):
    """`dewey audit ...`, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "dewey_embed.cli", "audit", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def refused(*words):
    """The one line that a mistaken `dewey audit ...` says before it ends with exit code 1."""
    failed = start(*words)
    _, errors = failed.communicate()
    assert failed.returncode == 1, errors
    [line] = errors.splitlines()
    assert line.startswith("dewey: error: ")
    return line
