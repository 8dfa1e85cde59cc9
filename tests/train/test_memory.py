"""Memory that training keeps from step to step, and gives back at its end."""

import ctypes
import json
import subprocess
import sys

import pytest

# In a process of its own: one that has done other work has holes of that size in its heap.
PROGRAM = """
import json, os, resource
import torch
from dewey_embed.train.memory import kept_memory

def pages_asked_for(size=16_000_000):
    for _ in range(12):  # some that find out where there is room for them
        torch.ones(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

before = pages_asked_for()
with kept_memory():
    kept = pages_asked_for()
    held = resident_bytes()
given_back = held - resident_bytes()
after = pages_asked_for(32_000_000)  # too large for a hole that the others have left
print(json.dumps([before, kept, given_back, after]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_large_tensors_take_over_the_memory_of_those_before_until_the_end():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    before, kept, given_back, after = json.loads(done.stdout)
    assert kept * 10 < before
    assert kept * 10 < after
    assert given_back > 60_000_000
