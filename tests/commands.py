"""The command `dewey`, run as a process or within the test's own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

from dewey_embed.cli import console
from dewey_embed.cli.app import app

STREAMS = ("stdin", "stdout", "stderr")
PRELOADED = [
    *("dewey_embed.encoder", "dewey_embed.index.index", "dewey_embed.cli.app"),
    *("pyarrow.dataset", "lance_namespace"),  # most of `lancedb`, which itself starts a thread
    *("dewey_embed.eval.run", "dewey_embed.train.run", "dewey_embed.serve.run"),
]


@cache
def forks():
    """The context of processes that are forked from one that has imported most packages.

    That one has no network and a cache of Hugging Face's of its own, because the libraries read
    both settings when they are imported.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    home = tempfile.TemporaryDirectory()
    context.hugging_face_home = home  # it is there as long as the context
    with patch.dict(os.environ, {"HF_HUB_OFFLINE": "1", "HF_HOME": home.name}):
        forkserver.ensure_running()
    return context


class Dewey:
    """A run of the command in a process of its own, which begins with torch imported.

    Importing torch takes longer than what most tests wait for. The process is forked from one that
    has imported it; its streams, environment and exit code are its own. Streams may be those of
    the `terminal` with a descriptor. The process calls `before` first.
    """

    def __init__(
        self, *arguments, stdin=None, cwd=None, terminal=None, on=STREAMS, before=None,
        **environment,
    ):  # fmt: skip
        self.args = [str(each) for each in arguments]
        self._streams = tempfile.TemporaryDirectory()
        for name, text in zip(STREAMS, (stdin or "", "", ""), strict=True):
            if terminal is not None and name in on:
                Path(self._streams.name, name).symlink_to(os.ttyname(terminal))
            else:
                Path(self._streams.name, name).write_text(text)
        values = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment}
        self._process = forks().Process(
            target=_run,
            args=(self.args, self._streams.name, str(cwd or Path.cwd()), values, before),
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def kill(self):
        self._process.kill()

    def signal(self, number):
        """Send a signal, if the process has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def printed(self, stream):
        """What the run has written to `"stdout"` or `"stderr"` so far."""
        path = Path(self._streams.name, stream)
        return "" if path.is_symlink() else path.read_text()  # a terminal is read by the test

    def communicate(self, timeout=None):
        """Standard output and standard error of the run, at its end."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.printed("stdout"), self.printed("stderr")

    @property
    def returncode(self):
        return self.poll()


def _run(arguments, streams, cwd, environment, before):
    """The command, in a fork that is made to look like a new process."""
    for number, name in enumerate(STREAMS):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
        os.dup2(os.open(Path(streams, name), flags), number)
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["dewey", *arguments]
    if before is not None:
        before()

    from dewey_embed.cli import main

    main()


def dewey(*arguments, stdin=None, cwd=None, timeout=300, **environment):
    """A finished run: its exit code, standard output and standard error."""
    run = Dewey(*arguments, stdin=stdin, cwd=cwd, **environment)
    try:
        output, errors = run.communicate(timeout)
    finally:
        run.kill()
    return subprocess.CompletedProcess(run.args, run.returncode, output, errors)


def started_from_nothing(*arguments, **environment):
    """A finished run of a new interpreter, as a shell would start it."""
    return subprocess.run(
        [sys.executable, "-m", "dewey_embed.cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment},
    )  # fmt: skip


def done(*arguments, code=0, run=dewey, **options):
    """Standard output of a run that must end with this exit code, without a traceback."""
    result = run(*arguments, **options)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def ended(*arguments):
    """The exit code of a run within this process, with all that the command does at its end."""
    words = [str(each) for each in arguments]
    return console.run(lambda: app(words, prog_name="dewey", standalone_mode=False))
