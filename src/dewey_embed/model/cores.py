"""How many cores this process may really use: a container's share of them, not the machine's."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")


def usable_cores(group: Path = CONTROL_GROUP) -> int:
    """Cores that this process is bound to, or fewer where its control group grants less time."""
    affinity = getattr(os, "sched_getaffinity", None)
    bound = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, _granted(group))))


def limit_threads(group: Path = CONTROL_GROUP) -> None:
    """Nothing; torch then has no more threads than cores, unless `OMP_NUM_THREADS` says how many.

    Threads beyond a container's share are stopped within a product, and all wait for them.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = usable_cores(group)
        if torch.get_num_threads() > cores:
            torch.set_num_threads(cores)


def _granted(group: Path) -> float:
    """Cores' worth of time by the control group, version 2 or 1; infinity where nothing is said."""
    try:
        if (both := group / "cpu.max").exists():
            quota, period = both.read_text(encoding="ascii").split()
        else:
            quota, period = (
                (group / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return int(quota) / int(period) if quota not in {"max", "-1"} else math.inf
    except (OSError, ValueError):
        return math.inf
