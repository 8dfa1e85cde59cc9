"""The bar of a cluster run: it moves while groups are in work, and never back."""

import time

import pytest

from dewey_embed.cluster.meter import START_S, InWork, Meter, Tally, told
from dewey_embed.progress import Progress


def test_a_bar_moves_with_groups_in_work_and_never_back():
    bar = Progress("encoding", 1000, "bytes")
    meter = Meter(bar, 2)
    assert (bar.done, bar.name) == (0, "2 workers starting")
    meter.see(InWork({(0, 0): 100, (0, 1): 50}, 2))
    assert (bar.done, bar.name) == (150, "0 documents, 0 chunks, 2 groups in work")
    meter.see(InWork({(0, 0): 0, (0, 1): 60}, 3))  # its worker died
    assert bar.done == 150
    meter.finished((0, 0), 500, documents=3, chunks=20, held=0)
    assert (bar.done, bar.name) == (560, "3 documents, 20 chunks, 1 group in work")
    meter.see(InWork({(0, 0): 500, (0, 1): 70}, 3))  # looked at before the group was done
    assert bar.done == 570
    meter.finished((0, 1), 500, documents=0, chunks=0, held=4)
    assert (bar.done, bar.name) == (1000, "3 documents, 20 chunks, 4 there already")


def test_what_a_worker_tells_moves_the_bar_before_its_group_is_done(cluster):
    import ray

    bar = Progress("encoding", 1000, "bytes")
    meter = Meter(bar, 1)
    tally = ray.remote(num_cpus=0)(Tally).remote()
    with meter.looking(tally):
        with told(tally, (0, 0), 1000) as begin:
            advance = begin(200)
            advance(50)
            deadline = time.monotonic() + 30
            while not bar.done and time.monotonic() < deadline:
                time.sleep(0.05)
            assert (bar.done, bar.name) == (250, "0 documents, 0 chunks, 1 group in work")
        assert ray.get(tally.in_work.remote([])) == ({(0, 0): 1000}, 0)
        meter.finished((0, 0), 1000, documents=2, chunks=5, held=0)
    assert ray.get(tally.in_work.remote([(0, 0)])) == ({}, 0)
    assert (bar.done, bar.name) == (1000, "2 documents, 5 chunks")


def test_workers_that_find_no_room_are_said_to_wait(monkeypatch):
    bar = Progress("encoding", 1000, "bytes")
    meter = Meter(bar, 2)
    meter.see(InWork({}, 0))
    assert bar.name == "2 workers starting"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + START_S + 1)
    meter.see(InWork({}, 0))
    assert bar.name == ("2 workers waiting for free cores or GPUs, or slow to start")
    meter.see(InWork({}, 1))
    assert bar.name == "2 workers starting"
    meter.see(InWork({(0, 0): 0}, 1))
    assert bar.name == "0 documents, 0 chunks, 1 group in work"
    meter.finished((0, 0), 0, documents=0, chunks=0, held=2)
    assert bar.name == "0 documents, 0 chunks, 2 there already"


@pytest.mark.parametrize("tokens", [0, 10])
def test_without_a_bar_nothing_is_told(tokens):
    with told(None, (0, 0), 10) as begin:
        begin(tokens)(tokens)
