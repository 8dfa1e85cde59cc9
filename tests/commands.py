"""The command `dewey`, run as a process or within the test's own."""

import os
import subprocess
import sys

from dewey_embed.cli import console
from dewey_embed.cli.app import app


def dewey(*arguments, stdin=None, cwd=None, timeout=120, **environment):
    """A finished run: its exit code, standard output and standard error."""
    return subprocess.run(
        [sys.executable, "-m", "dewey_embed.cli", *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment},
        check=False,
    )


def done(*arguments, code=0, **options):
    """Standard output of a run that must end with this exit code, without a traceback."""
    result = dewey(*arguments, **options)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def ended(*arguments):
    """The exit code of a run within this process, with all that the command does at its end."""
    words = [str(each) for each in arguments]
    return console.run(lambda: app(words, prog_name="dewey", standalone_mode=False))
