"""Two processes that work as one group, as a launcher would start them, and never wait for ever."""

import faulthandler
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessException

from tests.commands import forks

MEET = 30
"""Seconds in which both processes must have found each other, on a machine without other work."""

WORK = 60
"""Seconds after which a process that is not done writes down where it stands; it takes five."""

RANKS = (0, 1)


def run_in_two(work, *arguments, last=WORK):
    """Run `work(rank, *arguments)` in two processes that form the default group.

    A meeting that does not come about, before any of `work`, is tried once more in another place.
    Processes that are not done in time are killed, and the test fails with their stacks.
    """
    slowness = busy()
    for attempt in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            fault = _fault(Path(folder), work, arguments, MEET * slowness, last * slowness)
            met = all(Path(folder, f"met-{rank}").exists() for rank in RANKS)
        if fault is None:
            return
        if met or attempt == 2:
            break
        sys.stderr.write(f"two processes did not meet; they are started again: {fault}\n")
    where = "after they met" if met else "twice before they met"
    pytest.fail(f"two processes failed {where}: {fault}", pytrace=False)


def busy():
    """How many times longer than alone a process takes on this machine now, at least once."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def launched(command, **environment):
    """The end of a command that starts processes; one that is not done in time names its places."""
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **environment},
    )  # fmt: skip
    try:
        output, errors = run.communicate(timeout=2 * WORK * busy())
    except subprocess.TimeoutExpired:
        launcher = psutil.Process(run.pid)
        # Each prints its stacks and ends, one after another: they share a pipe. The launcher comes
        # first, for it may end by itself when its processes do.
        for process in [launcher, *launcher.children(recursive=True)]:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGABRT)
                process.wait(timeout=MEET)
        _, errors = run.communicate()
        pytest.fail(f"{command} was not done in time: {errors}", pytrace=False)
    return subprocess.CompletedProcess(command, run.returncode, output, errors)


def _fault(folder, work, arguments, meet, last):
    """None if all went well, else the traceback of a process or the stacks of both."""
    deadline = time.monotonic() + 1.5 * last
    context = mp.start_processes(
        _member, (str(folder), work, arguments, meet, last), len(RANKS), join=False,
        start_method=forks().get_start_method(),
    )  # fmt: skip
    try:
        while not context.join(timeout=0.5):
            stacks = [path.read_text() for path in sorted(folder.glob("stacks-*"))]
            if time.monotonic() > deadline:
                return "\n".join(["not done in time", *stacks])
            if len(stacks) == len(RANKS) and all(stacks):
                deadline = min(deadline, time.monotonic() + 1)  # they are being written
    except ProcessException as error:
        return str(error)
    finally:
        for process in context.processes:
            process.kill()
            process.join()
    return None


def _member(rank, folder, work, arguments, meet, last):
    """One of the two processes."""
    with Path(folder, f"stacks-{rank}").open("w") as stacks:
        faulthandler.dump_traceback_later(last, file=stacks)
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", f"file://{folder}/meeting", rank=rank, world_size=len(RANKS),
            timeout=timedelta(seconds=meet),
        )  # fmt: skip
        Path(folder, f"met-{rank}").touch()
        work(rank, *arguments)
        dist.barrier()
        # A DistributedDataParallel that outlives the group ends it with the interpreter's lock
        # held, and waits for threads of gloo that may need that lock to free tensors: for ever.
        gc.collect()
        dist.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()
