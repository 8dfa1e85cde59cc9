"""Runs `train` in forked processes, some of which are killed: python -m tests.train.forks …

A fork has everything imported, so what is killed is work and not start-up. Prints one JSON line.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.run import RunFolder, train


def begin(recipe, folder: Path) -> int:
    """The process id of a fork that runs the recipe in `folder`."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        torch.set_num_threads(1)
        train(recipe, RunFolder(folder))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def end(pid: int, seconds: float | None) -> bool | None:
    """True if the fork finished, None if it was killed after so many seconds."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a run failed with status {status}")
            return True
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.005)


def main(recipe_path: str, root: str, kills: int, seed: int) -> None:
    """An unbroken run in ROOT/whole, and broken ones in ROOT/0, ROOT/1, … until enough kills.

    Every other broken run begins with the targets of the whole one, so that half of the kills fall
    into training.
    """
    recipe = read_recipe(Path(recipe_path), ["corpus.max_texts=40", "targets.shard_texts=4"])
    moments = random.Random(seed)
    started = time.monotonic()
    end(begin(recipe, Path(root) / "whole"), None)
    total = time.monotonic() - started
    done, series = 0, 0
    whole = Path(root) / "whole"
    stages: dict[str, int] = {"teach": 0, "train": 0}
    while done < kills:
        folder = Path(root) / str(series)
        stage = ("teach", "train")[series % 2]
        if stage == "train":
            shutil.copytree(whole / "targets", folder / "targets")
        goal = min(kills, done + kills // 4)
        while done < goal:
            if end(begin(recipe, folder), moments.uniform(0.0, total)):
                break
            done += 1
            stages[stage] += 1
        end(begin(recipe, folder), None)
        series += 1
    report = {"kills": done, "series": series, "stages": stages, "seconds": total}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
