"""Parser processes forked from one that has imported the parsers, which takes milliseconds.

A test that reads a file starts a process for it, and importing what reads it takes longer than all
else. `tests/text/test_hostile.py` starts them as users do.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from importlib import import_module
from threading import Lock

PARSERS = ("dewey_embed.text.child", "pypdfium2", "lxml.etree", "lxml.html", "openpyxl")
_SERVER = "import sys; sys.path[:] = sys.argv[2:]; from tests.parsers import serve; serve()"
_lock = Lock()


class Forked:
    """As much of a `subprocess.Popen` of the parsers' command as its user needs."""

    def __init__(self, command, *, stdin, stdout, stderr):
        assert (stdin, stdout, stderr) == (subprocess.PIPE, subprocess.PIPE, subprocess.DEVNULL)
        requests, write = os.pipe()
        read, answers = os.pipe()
        self.stdin, self.stdout = open(write, "wb"), open(read, "rb")  # noqa: SIM115
        self.returncode = None
        self.pid = _ask({"arguments": command[2:]}, [requests, answers])
        os.close(requests)
        os.close(answers)

    def kill(self):
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(_ask({"wait": self.pid}))
        return self.returncode

    def poll(self):
        return self.returncode


@cache
def _server():
    """The connection to the process that all others are forked from."""
    here, there = socket.socketpair()
    command = [sys.executable, "-c", _SERVER, str(there.fileno()), *sys.path]
    subprocess.Popen(command, pass_fds=[there.fileno()])
    there.close()
    return here


def _ask(request, descriptors=()):
    """The number with which the server answers."""
    with _lock:
        socket.send_fds(_server(), [json.dumps(request).encode()], descriptors)
        return int(_server().recv(100))


def serve():
    """Fork processes and wait for them as asked, until nobody is left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in PARSERS:
        import_module(name)
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1_000_000, 2)
        if not message:
            return
        request = json.loads(message)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        elif not (answer := os.fork()):
            connection.close()
            _parse(request["arguments"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(answer).encode())


def _parse(arguments, descriptors):
    """Do what a process that was started with these arguments does."""
    from dewey_embed.text import child

    status = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.argv, sys.path = ["-c", *arguments[1:]], arguments[2:]
        child.main()
        status = 0
    finally:
        os._exit(status)
