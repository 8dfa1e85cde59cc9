"""The command line of the audits, in a process of its own."""

import os
import subprocess
import sys

JOIN = """
import sys
from dewey_embed.cli import app as module
from dewey_embed.cli import audit as audits
from dewey_embed.cli.audit import audit

known = {command.name for command in audit.registered_commands}
for name in ("baseline", "alignment", "cost"):
    if name not in known:
        audit.command(name)(getattr(audits, name))
if "audit" not in {group.name for group in module.app.registered_groups}:
    module.app.add_typer(audit, name="audit")
module.main()
"""


def start(*words):
    """`dewey audit ...`, started."""
    return subprocess.Popen(
        [sys.executable, "-c", JOIN, "audit", *map(str, words)],
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
