"""The command line of the audits, in a process of its own."""

from tests.commands import Dewey


def start(*words):
    """`dewey audit ...`, started."""
    return Dewey("audit", *words)


def refused(*words):
    """The one line that a mistaken `dewey audit ...` says before it ends with exit code 1."""
    failed = start(*words)
    _, errors = failed.communicate()
    assert failed.returncode == 1, errors
    [line] = errors.splitlines()
    assert line.startswith("dewey: error: ")
    return line
