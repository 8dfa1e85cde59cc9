"""The queue: joined texts get their own vectors, short ones pass long ones, faults no answers."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dewey_embed.model.control import PassControl
from dewey_embed.serve.app import create_app
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.lanes import LANES, Turns, lane_of
from dewey_embed.serve.queue import EncodeQueue, QueuedModel
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings

SENTENCE = "The tenant pays the rent on the first day of the month. "
LONG = SENTENCE * 250  # 3,250 tokens
SMALL_LANES = (
    replace(LANES[0], request_tokens=512, text_tokens=512),
    replace(LANES[1], text_tokens=2_048),
    LANES[2],
)


@pytest.fixture
def queue(mini):
    made = EncodeQueue(mini, max_wait_s=30, lanes=SMALL_LANES)
    yield made
    made.close()


def run(work):
    return asyncio.run(asyncio.wait_for(work, 120))


def prepared(mini, *texts, **options):
    return mini.prepare(list(texts), **({"spans": [[]] * len(texts)} | options))


def settled(queue):
    """Wait until nothing runs."""
    for _ in range(2_000):
        if not queue._running:
            return
        time.sleep(0.005)
    raise AssertionError("the queue still runs")


def test_requests_at_once_get_the_vectors_that_each_has_alone(mini, queue) -> None:
    texts = [SENTENCE * (1 + number % 40) + str(number) for number in range(60)]
    groups = [texts[start : start + 1 + start % 4] for start in range(0, 60, 4)]

    async def all_at_once():
        return await asyncio.gather(*(queue.encode(prepared(mini, *group)) for group in groups))

    for group, found in zip(groups, run(all_at_once()), strict=True):
        expected = mini.encode_document(group, spans=[[]] * len(group))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


def test_texts_with_different_prompts_and_chunks_are_kept_apart(mini, queue) -> None:
    options = ({"prompt": "query: "}, {"spans": [[(0, 10), (4, 24)]]}, {"prompt_name": None})

    async def all_at_once():
        return await asyncio.gather(
            *(queue.encode(prepared(mini, SENTENCE, **each)) for each in options)
        )

    for each, [found] in zip(options, run(all_at_once()), strict=True):
        [expected] = mini.encode_document([SENTENCE], **({"spans": [[]]} | each))
        np.testing.assert_allclose(found.vector, expected.vector, atol=1e-5)
        np.testing.assert_allclose(found.chunks, expected.chunks, atol=1e-5)


def test_short_requests_do_not_wait_for_a_long_one(mini, queue) -> None:
    async def beside():
        long = asyncio.ensure_future(queue.encode(prepared(mini, LONG)))
        await asyncio.sleep(0.02)
        for number in range(3):
            await queue.encode(prepared(mini, f"{SENTENCE}{number}"))
        was_done = long.done()
        return was_done, await long

    was_done, [found] = run(beside())
    assert not was_done
    np.testing.assert_allclose(found.vector, mini.encode(LONG, prompt_name="document"), atol=1e-5)


def test_work_that_nobody_waits_for_stops_at_once(mini, queue) -> None:
    async def left():
        long = asyncio.ensure_future(queue.encode(prepared(mini, LONG * 8)))
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(queue.encode(prepared(mini, LONG)))
        await asyncio.sleep(0)
        waiting.cancel()
        long.cancel()
        await asyncio.gather(long, waiting, return_exceptions=True)
        return time.perf_counter()

    cancelled = run(left())
    settled(queue)
    assert time.perf_counter() - cancelled < 1
    assert not any(queue.waiting_tokens().values())


def test_a_full_lane_refuses_with_the_time_to_wait_and_others_go_on(mini) -> None:
    queue = EncodeQueue(mini, max_wait_s=0.001, lanes=SMALL_LANES)

    async def crowd():
        longs = []
        for _ in range(4):
            longs.append(asyncio.ensure_future(queue.encode(prepared(mini, LONG * 4))))
            await asyncio.sleep(0.05)
        [short] = await queue.encode(prepared(mini, "moths"))
        for each in longs[:2]:
            each.cancel()
        return short, await asyncio.gather(*longs, return_exceptions=True)

    short, results = run(crowd())
    queue.close()
    assert short.vector.shape == (384,)
    refused = [each for each in results if isinstance(each, ApiError)]
    assert [each.status for each in refused] == [429, 429]
    assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)


@pytest.mark.parametrize("fault", ["zeros", "nan", "copies"])
def test_vectors_that_no_model_gives_are_an_error_and_no_answer(mini, queue, fault, monkeypatch):
    real = queue._embed

    def broken(*args, **kwargs):
        embedded = real(*args, **kwargs)
        for each in embedded:
            each.vector[:] = {"zeros": 0, "nan": np.nan}.get(fault, embedded[0].vector)
        return embedded

    monkeypatch.setattr(queue, "_embed", broken)
    with pytest.raises(ApiError) as caught:
        run(queue.encode(prepared(mini, "moths eat wool", "ships carry timber")))
    assert caught.value.status == 500
    monkeypatch.setattr(queue, "_embed", real)
    assert run(queue.encode(prepared(mini, "moths")))[0].vector.any()


def test_a_text_twice_has_one_vector_and_is_no_fault(mini, queue) -> None:
    first, second = run(queue.encode(prepared(mini, "moths", "moths")))
    np.testing.assert_allclose(first.vector, second.vector, atol=1e-6)


def test_a_probe_that_changes_after_a_long_text_makes_it_an_error(mini, queue, monkeypatch):
    real = queue._probed
    monkeypatch.setattr(queue, "_probed", lambda: np.roll(real(), 1))
    with pytest.raises(ApiError, match="restart the server") as caught:
        run(queue.encode(prepared(mini, LONG)))
    assert caught.value.status == 500
    assert queue.fault


def test_a_server_that_cannot_be_trusted_is_not_healthy(mini) -> None:
    server = Server(mini, {}, ServeSettings())
    with TestClient(create_app(server), base_url="http://127.0.0.1") as client:
        assert client.get("/health").status_code == 200
        server.queue.fault = "vectors are zero"
        answer = client.get("/health")
    server.close()
    assert (answer.status_code, "vectors are zero" in answer.text) == (503, True)


def test_many_long_texts_are_the_same_together_and_too_many_are_refused(mini) -> None:
    texts = [f"{number} " + "The tenant pays the rent. " * 8 for number in range(9)]
    body = {"texts": texts, "spans": [[[2, 27]]] * 9}

    def answer(slice_chars, **limits):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("dewey_embed.serve.server.SLICE_CHARS", slice_chars)
            server = Server(mini, {}, ServeSettings(**limits))
            with TestClient(create_app(server), base_url="http://127.0.0.1") as client:
                found = client.post("/v1/spans", json=body)
            server.close()
        return found

    for one, other in zip(answer(10**6).json()["data"], answer(500).json()["data"], strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-5)
    refused = answer(500, max_tokens=150)
    assert refused.status_code == 413
    assert "150" in refused.text


def test_a_model_has_the_names_that_it_is_given(mini) -> None:
    server = Server(mini, {}, ServeSettings(aliases=("text-embedding-3-small",)))
    with TestClient(create_app(server), base_url="http://127.0.0.1") as client:
        statuses = [
            client.post("/v1/embeddings", json={"input": "moths", "model": name}).status_code
            for name in ("mini", "text-embedding-3-small", "text-embedding-3-large")
        ]
    server.close()
    assert statuses == [200, 200, 404]


def test_threads_get_their_vectors_through_the_queue(mini, queue) -> None:
    model = QueuedModel(mini, queue)
    texts = [SENTENCE * length for length in (1, 100, 3, 200, 2)]
    np.testing.assert_allclose(model.encode(texts), mini.encode(texts), atol=1e-5)


def test_a_closed_queue_refuses_what_waits(mini) -> None:
    queue = EncodeQueue(mini, max_wait_s=30, lanes=SMALL_LANES)

    async def closing():
        long = asyncio.ensure_future(queue.encode(prepared(mini, LONG * 4)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(queue.close)
        return await asyncio.gather(long, return_exceptions=True)

    [error] = run(closing())
    assert error.status == 503
    with pytest.raises(ApiError, match="stopping"):
        queue.embed(prepared(mini, "moths").requests, 0)


def test_requests_take_the_first_lane_that_they_fit_into() -> None:
    sizes = ([10], [4_096], [4_097], [2_000] * 3, [16_385], [10, 100_000])
    lanes = [lane_of(each).name for each in sizes]
    assert lanes == ["short", "short", "batch", "batch", "long", "long"]


def test_time_that_a_lane_had_alone_is_not_held_against_it() -> None:
    short, _, long = LANES
    turns = Turns()
    turns._clocks[short] = turns._now = 60.0  # it ran alone for 42 seconds
    in_turn, done = threading.Event(), threading.Event()

    def occupy() -> None:
        control = PassControl()
        with turns.turn(long, control):
            in_turn.set()
            while not done.is_set():
                control.check()
                time.sleep(0.001)

    thread = threading.Thread(target=occupy)
    thread.start()
    in_turn.wait()
    begun, control = time.perf_counter(), PassControl()
    with turns.turn(short, control):
        control.check()
        waited = time.perf_counter() - begun
    done.set()
    thread.join()
    turns.close()
    assert waited < 0.5


def test_lanes_with_work_share_the_time_by_their_shares() -> None:
    turns, used, ends = Turns(), dict.fromkeys(LANES[:2], 0.0), time.perf_counter() + 1.5

    def worker(lane) -> None:
        while time.perf_counter() < ends:
            control = PassControl()
            with turns.turn(lane, control):
                control.check()
                for _ in range(10):
                    control.check()
                    begun = time.perf_counter()
                    time.sleep(0.002)
                    used[lane] += time.perf_counter() - begun

    threads = [threading.Thread(target=worker, args=(lane,)) for lane in used]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    turns.close()
    short, batch = used.values()
    assert 2 < short / batch < 12  # 0.7 to 0.15
