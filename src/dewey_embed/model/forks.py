"""Threads after a fork: a child keeps none of its parent's, but waits for them all the same.

OpenMP's pool is gone in a forked child, and its first parallel region hangs or crashes. On one
thread there is no such region, so a child encodes on one: slower, and right.
"""

from __future__ import annotations

import logging
import os

import torch

log = logging.getLogger(__name__)

_owners: list[int] = []
"""The process whose threads were used last, if any were."""


def about_to_compute() -> None:
    """Note that this process uses its threads; in a child of one that did, use one thread."""
    own = os.getpid()
    if _owners and _owners[-1] != own:
        torch.set_num_threads(1)
        log.warning(
            "this process was forked from one that had computed already, whose threads it does not "
            'have: computing on one thread; start processes with "spawn" to use all cores'
        )
    if not _owners or _owners[-1] != own:
        _owners[:] = [own]
