"""Memory that training keeps from step to step."""

import ctypes
import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource
import torch
from dewey_embed.train.memory import kept_memory

def pages_asked_for():
    for _ in range(12):  # some that find out where there is room for them
        torch.ones(16_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = pages_asked_for()
with kept_memory():
    kept = pages_asked_for()
print(json.dumps([before, kept, pages_asked_for()]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_large_tensors_take_over_the_memory_of_those_before_until_the_end():
    # In a process of its own: one that has done other work has holes of that size in its heap.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    before, kept, after = json.loads(done.stdout)
    assert kept * 10 < before
    assert kept * 10 < after
