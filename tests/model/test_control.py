"""Passes that other threads pause and stop: exact when they go on, ended soon when they do not."""

import threading
import time

import numpy as np
import pytest

from dewey_embed import Dewey
from dewey_embed.model.control import PassControl, PassStoppedError
from dewey_embed.model.engine import build_kernels
from dewey_embed.model.inference import embed

SENTENCE = "The tenant pays the rent on the first day of the month. "
SHORT, LONG = SENTENCE * 200, SENTENCE * 1_200  # 2,600 and 15,600 tokens


@pytest.fixture(scope="module", params=["1", "0"], ids=["kernels", "pytorch"])
def model(request):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DEWEY_NATIVE", request.param)
        loaded = Dewey.load()
        if request.param == "1":
            build_kernels(loaded.model.backbone)
        yield loaded


def passes(model, control, text=SHORT):
    texts = model.prepare([text], spans=[[(0, 55)]])
    return embed(
        model.model, texts.requests, skip=0, single_vector="mean", batch_tokens=16_384,
        control=control,
    )[0]  # fmt: skip


def test_a_pass_that_was_paused_gives_the_same_vectors(model) -> None:
    expected = passes(model, None)
    control, pauses = PassControl(), []

    def interrupt() -> None:
        for _ in range(5):
            time.sleep(0.01)
            control.pause()
            pauses.append(time.perf_counter())
            time.sleep(0.03)
            control.resume()

    thread = threading.Thread(target=interrupt)
    thread.start()
    found = passes(model, control)
    thread.join()
    assert len(pauses) == 5
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-5)
    np.testing.assert_allclose(found.chunks, expected.chunks, atol=1e-5)


def test_a_paused_pass_stands_still_until_it_is_resumed(model) -> None:
    control, ended = PassControl(), threading.Event()
    control.pause()
    thread = threading.Thread(target=lambda: (passes(model, control), ended.set()))
    thread.start()
    assert not ended.wait(0.3)
    control.resume()
    assert ended.wait(60)
    thread.join()


def test_a_stopped_pass_ends_at_once_and_no_resume_revives_it(model) -> None:
    control, times = PassControl(), []

    def run() -> None:
        with pytest.raises(PassStoppedError):
            passes(model, control, LONG)
        times.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.05)
    stopped = time.perf_counter()
    control.stop()
    control.resume()
    thread.join()
    assert control.is_stopped
    assert times[0] - stopped < 0.5


def test_a_paused_pass_can_be_stopped(model) -> None:
    control = PassControl()
    control.pause()
    threading.Timer(0.1, control.stop).start()
    with pytest.raises(PassStoppedError):
        passes(model, control)
