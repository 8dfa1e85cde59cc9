"""What launchers start: accelerate's settings for eight GPUs, and a process that dies."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from dewey_embed.train.command import this_command
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


@pytest.mark.parametrize("name", ["ddp8", "fsdp8"])
def test_the_recorded_command_starts_the_same_processes(name, monkeypatch) -> None:
    def started(words):
        arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
        return prepare_multi_gpu_env(arguments)

    expected = started(["--config_file", str(SETTINGS / f"{name}.yaml"), "-m", "dewey_embed.cli"])
    for variable, value in {**expected, "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", ["/bin/dewey", "train", "a recipe.toml"])
    words = shlex.split(this_command())
    assert words[:2] == ["accelerate", "launch"]
    assert words[-4:] == ["--module", "dewey_embed.cli", "train", "a recipe.toml"]
    assert "--num_processes 8" in " ".join(words)
    assert started(words[2:]) == {**expected, "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}


def test_a_command_tells_its_launcher_and_settings_but_no_ports(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/dewey", "train", "a.toml"])
    assert this_command() == "dewey train a.toml"
    monkeypatch.setenv("DEWEY_SET", "training.seed=1")
    assert this_command() == "DEWEY_SET=training.seed=1 dewey train a.toml"
    monkeypatch.delenv("DEWEY_SET")
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0",
                        "MASTER_ADDR": "node-7", "MASTER_PORT": "29500"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert this_command() == "torchrun --nproc_per_node 2 -m dewey_embed.cli train a.toml"


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
