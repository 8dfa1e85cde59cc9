"""`teach` and `train`, killed at random moments and run again, end as an unbroken run does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dewey_embed.train.targets import TargetsFolder, read_manifest

KILLS = 8


@pytest.fixture(scope="module")
def killed(tiny, tmp_path_factory, repository):
    """The folder of all runs, and what the forks report."""
    root = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.forks", str(tiny.recipe), str(root), str(KILLS), "5"],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, json.loads(done.stdout.splitlines()[-1])


def weights(run: Path) -> dict[str, bytes]:
    files = ("model.safetensors", "2_Dense/model.safetensors")
    return {
        f"{file}:{name}": tensor.float().numpy().tobytes()
        for file in files
        for name, tensor in load_file(run / "model" / file).items()
    }


def test_broken_runs_end_with_the_weights_of_an_unbroken_one_bit_for_bit(killed) -> None:
    root, report = killed
    assert report["kills"] == KILLS
    expected = weights(root / "whole")
    for series in range(report["series"]):
        assert weights(root / str(series)) == expected, f"series {series}"


def log(run: Path) -> list[dict[str, object]]:
    """The lines of a run's log, but for what tells of time, and of its end, which may be killed."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timed = ("train_runtime", "train_tokens_per_second")
    return [
        {name: value for name, value in line.items() if name not in timed}
        for line in lines
        if "train_loss" not in line
    ]


def test_broken_runs_log_what_an_unbroken_one_does(killed) -> None:
    root, report = killed
    expected = log(root / "whole")
    for series in range(report["series"]):
        assert log(root / str(series)) == expected, f"series {series}"


def test_kills_fell_into_whole_runs_and_into_training_alone(killed) -> None:
    _, report = killed
    assert min(report["stages"].values()) > 0


def test_no_half_shard_counts(killed) -> None:
    root, report = killed
    manifest = read_manifest(root / "whole" / "targets")
    for series in range(report["series"]):
        folder = root / str(series) / "targets"
        assert read_manifest(folder) == manifest
        opened = TargetsFolder(folder, fingerprint=manifest["recipe"], about=manifest["about"])
        listed = opened.shards
        assert {shard.file for shard in listed} == {file.name for file in folder.glob("*.parquet")}
        for shard in listed:
            assert len(opened.read(shard)) == shard.num_samples
