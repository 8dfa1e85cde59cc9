"""Memory that training keeps from step to step."""

import ctypes
import resource

import pytest
import torch

from dewey_embed.train.memory import kept_memory


def pages_asked_for():
    """How often the system had to give a page while tensors of 64 MB came and went.

    After some that find out where there is room for them.
    """
    for _ in range(12):
        torch.ones(16_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_large_tensors_take_over_the_memory_of_those_before_until_the_end():
    before = pages_asked_for()
    with kept_memory():
        kept = pages_asked_for()
    after = pages_asked_for()
    assert kept * 10 < before
    assert kept * 10 < after
