"""What launchers start: accelerate's settings for eight GPUs, and a process that dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tests.commands import dewey
from tests.train.groups import busy
from tests.train.worlds import FSDP

SETTINGS = Path(__file__).parents[2] / "recipes" / "accelerate"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
SECONDS = 60
"""Within which a run ends whose process died, on a machine without other work."""


@pytest.mark.parametrize(("name", "expected"), [("ddp8", {}), ("fsdp8", FSDP)])
def test_accelerate_starts_eight_processes_by_the_settings(name, expected) -> None:
    words = ["--config_file", str(SETTINGS / f"{name}.yaml"), "--module", "dewey_embed.cli"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert int(arguments.num_processes) == 8
    environment = prepare_multi_gpu_env(arguments)
    assert {key: environment[key] for key in expected} == expected
    assert ("ACCELERATE_USE_FSDP" in environment) == bool(expected)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"  # the recipe chooses


@pytest.mark.slow
def test_a_run_whose_process_is_killed_says_so_in_a_line_and_goes_on(tiny, tmp_path) -> None:
    changes = ["training.max_steps=4000", "training.epochs=4000", "training.save_steps=5",
               "training.evaluate_steps=4000", "diagnostics.passkey_tokens=[]"]  # fmt: skip
    run, sets = tmp_path / "run", [word for each in changes for word in ("--set", each)]
    command = ["train", str(tiny.recipe), "-o", str(run), *sets]
    launched = subprocess.Popen(
        [*LAUNCH, "--config_file", str(SETTINGS / "ddp8.yaml"), "--num_processes", "2",
         "--module", "dewey_embed.cli", *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    slowness, deadline = busy(), time.monotonic() + 300
    while not list(run.glob("checkpoints/checkpoint-*/whole.json")):
        assert launched.poll() is None, launched.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [second] = [
        each for each in psutil.Process(launched.pid).children(recursive=True)
        if each.environ().get("RANK") == "1"
    ]  # fmt: skip
    killed = time.monotonic()
    second.send_signal(signal.SIGKILL)
    _, errors = launched.communicate(timeout=SECONDS * slowness)
    assert time.monotonic() - killed < SECONDS * slowness
    assert launched.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("dewey: ")]
    assert len(lines) == 1, errors
    assert "run the same command again, and it goes on from the checkpoint of step" in lines[0]
    assert "Exception ignored" not in errors
    last = max(int(each.name.partition("-")[2]) for each in run.glob("checkpoints/checkpoint-*"))
    kept = json.loads((run / "recipe.json").read_text())
    kept["training"]["max_steps"] = last + 5  # it need not take all the steps that are left
    (run / "recipe.json").write_text(json.dumps(kept))
    done = dewey(*command, "--set", f"training.max_steps={last + 5}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "result.json").read_text())["steps"] == last + 5
