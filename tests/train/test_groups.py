"""Tests that need two processes end with the place where these stand, and never hang."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.train import groups
from tests.train.groups import launched, run_in_two

LAUNCHER = """
import subprocess, sys
wait = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
subprocess.run(wait, start_new_session=True)
"""


def add_up(rank: int, results: str) -> None:
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    model(torch.ones(1, 1)).sum().backward()
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)
    if rank == 0:
        torch.save(total, results)


class Lost:
    """What ends one of the processes that receive it, once."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __setstate__(self, state) -> None:
        self.__dict__.update(state)
        try:
            self.flag.unlink()
        except FileNotFoundError:
            return
        os._exit(1)


def accept(rank: int, lost: Lost) -> None:
    assert not lost.flag.exists()


def stand_still(rank: int) -> None:
    if rank == 1:
        time.sleep(60)


def refuse(rank: int) -> None:
    raise ValueError("no work today")


def test_two_processes_work_as_one_group(tmp_path: Path) -> None:
    run_in_two(add_up, str(tmp_path / "total.pt"))
    assert torch.load(tmp_path / "total.pt") == 3


def test_a_meeting_that_did_not_come_about_is_tried_again(tmp_path: Path, capfd) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    run_in_two(accept, Lost(flag))
    assert not flag.exists()
    assert "did not meet; they are started again" in capfd.readouterr().err


@pytest.mark.slow
def test_a_process_that_stands_still_is_killed_and_its_place_named() -> None:
    started = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match=r"after they met(?s:.)*in stand_still"):
        run_in_two(stand_still, last=6)
    assert time.monotonic() - started < 60


def test_an_error_in_a_process_is_the_tests_own() -> None:
    with pytest.raises(pytest.fail.Exception, match="ValueError: no work today"):
        run_in_two(refuse)


def test_a_command_that_stands_still_is_ended_and_its_place_named(monkeypatch) -> None:
    monkeypatch.setattr(groups, "WORK", 3)  # twice that for both to start
    with pytest.raises(pytest.fail.Exception, match="not done in time") as failure:
        launched([sys.executable, "-S", "-c", LAUNCHER])
    for place in ("line 4 in <module>", "line 1 in <module>"):  # the launcher's and its process's
        assert place in str(failure.value)
