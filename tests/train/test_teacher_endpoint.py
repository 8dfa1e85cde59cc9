"""A teacher behind an endpoint, against a real local server that speaks `/v1/embeddings`."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from dewey_embed.errors import TeacherError
from dewey_embed.train.recipe import EndpointTeacher
from dewey_embed.train.teachers import open_teacher
from dewey_embed.train.teachers.endpoint import Pace


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def letters(text):
    """The vector that the server below gives a text."""
    return [1.0 + text.count(letter) for letter in "abcdefgh"]


def data_of(texts):
    """The `data` of a good answer, in an order of its own."""
    data = [
        {"object": "embedding", "index": index, "embedding": letters(text)}
        for index, text in enumerate(texts)
    ]
    np.random.default_rng(len(texts)).shuffle(data)
    return data


@contextmanager
def server(answer):
    """A recipe for a server whose n-th request gets `answer(n, texts)`: status, headers, body."""
    seen = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
                number = len(seen)
            status, headers, content = answer(number, body["input"])
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1", seen
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def answer_with(data):
    return {"object": "list", "model": "m", "data": data, "usage": {}}


def good(number, texts):
    return 200, {}, answer_with(data_of(texts))


def then(spoil):
    """Good for the request that opens the teacher, then data changed by `spoil`."""

    def answer(number, texts):
        data = sorted(data_of(texts), key=lambda item: item["index"])
        return 200, {}, answer_with(data if number == 1 else spoil(data))

    return answer


def endpoint(url, **settings):
    settings = {
        "max_tokens": 100,
        "model": "m",
        "retries": 0,
        "api_key_env": "UNSET_KEY",
    } | settings
    return EndpointTeacher(kind="endpoint", url=url, **settings)


class TestEndpoint:
    def test_keeps_the_order_of_shuffled_answers_in_parallel(self):
        texts = [f"{'abcdefgh'[number % 8] * (number + 1)} {number}" for number in range(23)]
        with server(good) as (url, seen):
            teacher = open_teacher(endpoint(url, batch_texts=5, parallel_requests=3))
            vectors = teacher.embed(texts)
            assert teacher.embed([]).shape == (0, 8)
        assert (teacher.name, teacher.dim, vectors.dtype) == (f"m at {url}", 8, np.float32)
        np.testing.assert_allclose(vectors, unit(np.array([letters(t) for t in texts])), atol=1e-6)
        assert sorted(len(request["input"]) for request in seen) == [1, 3, 5, 5, 5, 5]
        assert {request["path"] for request in seen} == {"/v1/embeddings"}
        assert {request["encoding_format"] for request in seen} == {"float"}
        assert {request["model"] for request in seen} == {"m"}

    def test_waits_when_told_to_and_asks_again(self):
        def answer(number, texts):
            return (429, {"Retry-After": "0"}, {}) if number == 1 else good(number, texts)

        with server(answer) as (url, seen):
            teacher = open_teacher(endpoint(url, retries=1))
            np.testing.assert_allclose(teacher.embed(["aab"]), unit(np.array([letters("aab")])))
        assert len(seen) == 3

    def test_prompt_key_and_whole_url(self, monkeypatch):
        monkeypatch.setenv("SOME_KEY", "secret")
        with server(good) as (url, seen):
            open_teacher(endpoint(url + "/embeddings/", prompt="passage: ")).embed(["a"])
            open_teacher(endpoint(url, api_key_env="SOME_KEY"))
        assert seen[1]["input"] == ["passage: a"]
        assert [request["path"] for request in seen] == ["/v1/embeddings"] * 3
        assert [request["key"] for request in seen] == ["Bearer no-key"] * 2 + ["Bearer secret"]

    def test_requests_are_spread_over_the_minute(self):
        moments = []
        pace = Pace(1200.0)

        def ask():
            for _ in range(3):
                pace.wait()
                moments.append(time.monotonic())

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(moments) - min(moments) >= 5 * 0.05 - 0.02

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: data[:-1], r"got 2 vectors, expected 3"),
            (
                lambda data: [*data[:2], data[2] | {"embedding": [1.0] * 5}],
                r"got 5 dimensions for text 2 of the batch, expected 8",
            ),
            (
                lambda data: [data[0] | {"embedding": [float("nan")] * 8}, *data[1:]],
                r"got NaN or infinity for text 0 of the batch",
            ),
            (
                lambda data: [data[0], data[1] | {"embedding": [0.0] * 8}, data[2]],
                r"got a vector of zeros for text 1 of the batch",
            ),
            (
                lambda data: [item | {"index": 0} for item in data],
                r"got embeddings with the indices \[0, 0, 0\], expected each from 0 to 2 once",
            ),
            (lambda data: None, r"got no list of embeddings"),
        ],
    )
    def test_an_answer_that_is_none_names_teacher_and_texts(self, spoil, message):
        with server(then(spoil)) as (url, _):
            teacher = open_teacher(endpoint(url))
            where = rf"m at {url}, texts 0 to 2 \(the first: 'first'\): "
            with pytest.raises(TeacherError, match=where + message):
                teacher.embed(["first", "second", "third"])

    def test_the_failing_batch_is_named(self):
        def answer(number, texts):
            return good(number, texts[:1] if "c" in texts else texts)

        with server(answer) as (url, _):
            teacher = open_teacher(endpoint(url, batch_texts=2))
            with pytest.raises(TeacherError, match=r"texts 2 to 3 \(the first: 'c'\): got 1 vec"):
                teacher.embed(["a", "b", "c", "d", "e"])

    @pytest.mark.parametrize(
        ("status", "body", "remedy"),
        [
            (500, {}, "InternalServerError.*server's log"),
            (429, {}, "RateLimitError.*lower teacher.requests_per_minute"),
            (404, {}, "NotFoundError.*check teacher.url, which mostly ends in /v1"),
            (401, {}, "AuthenticationError.*set UNSET_KEY to a valid key"),
            (400, {}, "BadRequestError.*lower teacher.batch_texts"),
            (200, b"{not json", "check that teacher.url is an OpenAI-compatible /v1"),
        ],
    )
    def test_failures_for_good_name_url_and_remedy(self, status, body, remedy):
        with server(lambda number, texts: (status, {}, body)) as (url, seen):
            with pytest.raises(
                TeacherError, match=rf"m at {url}, texts 0 to 0 .*no answer.*{remedy}"
            ):
                open_teacher(endpoint(url))
            assert len(seen) == 1

    def test_retries_come_to_an_end(self):
        with server(lambda number, texts: (500, {"retry-after-ms": "1"}, {})) as (url, seen):
            with pytest.raises(TeacherError, match=r"retried up to 2 times .*Error code: 500"):
                open_teacher(endpoint(url, retries=2))
            assert len(seen) == 3

    def test_a_page_in_place_of_an_answer(self):
        page = (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")
        with (
            server(lambda number, texts: page) as (url, _),
            pytest.raises(TeacherError, match=r"but '<html>Welcome.*check that teacher\.url"),
        ):
            open_teacher(endpoint(url))

    def test_nobody_there(self):
        with server(good) as (url, _):
            pass
        with pytest.raises(TeacherError, match=r"APIConnectionError.*and that the server runs"):
            open_teacher(endpoint(url))

    def test_too_slow(self):
        release = threading.Event()

        def answer(number, texts):
            release.wait(5)
            return good(number, texts)

        with server(answer) as (url, _):
            with pytest.raises(TeacherError, match=r"APITimeoutError.*raise teacher\.timeout_s"):
                open_teacher(endpoint(url, timeout_s=0.2))
            release.set()
