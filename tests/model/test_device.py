"""Threads follow the cores that a container grants."""

import os

import pytest
import torch

from dewey_embed.model.device import limit_threads, usable_cores

BOUND = len(os.sched_getaffinity(0))


def version_2(group, text):
    (group / "cpu.max").write_text(text)


def version_1(group, quota, period):
    (group / "cpu").mkdir()
    (group / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("150000 100000\n", min(2, BOUND)),
        ("max 100000\n", BOUND),
        ("nonsense", BOUND),
    ],
)
def test_a_control_groups_share_counts(tmp_path, text, cores):
    version_2(tmp_path, text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(100_000, 1), (-1, BOUND)])
def test_a_control_group_of_version_1_counts(tmp_path, quota, cores):
    version_1(tmp_path, quota, 100_000)
    assert usable_cores(tmp_path) == cores


def test_without_a_control_group_the_cores_of_the_process_count(tmp_path):
    assert usable_cores(tmp_path) == BOUND


@pytest.mark.skipif(BOUND < 2, reason="needs two cores")
def test_threads_are_lowered_but_never_raised_or_set_against_the_environment(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    version_2(tmp_path, "100000 100000")
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        limit_threads(tmp_path)
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        limit_threads(tmp_path)
        assert torch.get_num_threads() == 1
        version_2(tmp_path, "max 100000")
        limit_threads(tmp_path)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
