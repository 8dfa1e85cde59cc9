"""`dewey serve` as a process: it says where, answers, ends in order, and refuses in one line."""

import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager

import httpx2 as httpx
import pytest

from dewey_embed import Document, Index
from tests.commands import Dewey, dewey


@contextmanager
def serving(*arguments, **environment):
    """A server's process and its address, until the end of the block at most."""
    process = Dewey("serve", "--port", "0", *arguments, **environment)
    try:
        while not (found := re.search(r"http://[^ ]+", process.printed("stderr"))):
            assert process.poll() is None, process.printed("stderr")
            time.sleep(0.02)
        yield process, found[0]
    finally:
        process.kill()


def stop(process):
    """The exit code of the process after SIGTERM, and all that it said."""
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(60)
    return process.returncode, said


@pytest.fixture(scope="module")
def served(mini, tmp_path_factory):
    """The address and process of a server of an index, started without a model."""
    folder = tmp_path_factory.mktemp("served") / "notes"
    with Index.open(folder, mini) as index:
        index.add(Document(id="moth", text="Moths eat wool and silk."))
    with serving("--index", folder) as (process, address):
        yield address, process


def test_it_serves_the_page_the_endpoints_the_index_and_the_documentation(served) -> None:
    address, _ = served
    vectors = httpx.post(f"{address}/v1/embeddings", json={"input": "moths eat wool"}).json()
    assert len(vectors["data"][0]["embedding"]) == 384
    found = httpx.post(f"{address}/v1/indexes/notes/search", json={"query": "what eats silk?"})
    assert found.json()["hits"][0]["document_id"] == "moth"
    assert "<html" in httpx.get(address).text
    schema = httpx.get(f"{address}/openapi.json").json()
    assert {"/v1/embeddings", "/v2/embed", "/embed", "/v1/spans"} <= schema["paths"].keys()
    docs = httpx.get(f"{address}/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', docs)
    assert not any("//" in each for each in loaded)  # it needs no network
    assert {httpx.get(address + each).status_code for each in loaded} == {200}


def test_a_client_that_is_killed_leaves_no_work_behind(served) -> None:
    address, process = served
    before = cpu_seconds(process)
    body = json.dumps({"input": "The tenant pays the rent. " * 20_000}).encode()
    host, port = address.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        + f"content-length: {len(body)}\r\n\r\n".encode() + body
    )  # fmt: skip
    wait_for(lambda: cpu_seconds(process) - before > 1.5)  # it works
    assert "status=499" not in process.printed("stderr")
    client.close()
    wait_for(lambda: "status=499" in process.printed("stderr"), seconds=5)
    time.sleep(0.5)
    idle = cpu_seconds(process)
    time.sleep(1)
    assert cpu_seconds(process) - idle < 0.5  # a pass takes all of it


def wait_for(happened, seconds=60):
    """Return once something has happened, within some seconds."""
    for _ in range(int(seconds / 0.02)):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError(f"it has not happened in {seconds} s")


def cpu_seconds(process):
    """Seconds of processor time of a process so far."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_finishes_what_runs_before_it_stops() -> None:
    with serving("mini") as (process, address):
        text = "The tenant pays the rent. " * 1_000
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{address}/v1/embeddings", json={"input": text}, timeout=60)
            )
        )
        before = cpu_seconds(process)
        asking.start()
        wait_for(lambda: cpu_seconds(process) - before > 0.1)
        code, said = stop(process)
        asking.join()
        assert [answer.status_code for answer in answers] == [200]
        assert code == 0
        assert said.endswith("dewey: stopped\n")


def test_at_a_second_signal_what_runs_is_refused_in_the_shape_of_its_api() -> None:
    with serving("mini") as (process, address):
        answers = []
        body = {"input": "The tenant pays the rent. " * 20_000}
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{address}/v1/embeddings", json=body, timeout=60)
            )
        )
        before = cpu_seconds(process)
        asking.start()
        wait_for(lambda: cpu_seconds(process) - before > 1.5)
        os.kill(process.pid, signal.SIGINT)
        wait_for(lambda: "a second signal" in process.printed("stderr"))
        os.kill(process.pid, signal.SIGINT)
        asking.join()
        _, said = process.communicate(30)
        assert process.returncode == 0
    assert [answer.status_code for answer in answers] == [503]
    assert "stopping" in answers[0].json()["error"]["message"]
    assert "a second signal" in said
    assert "Traceback" not in said


def test_keys_come_from_a_file_and_the_environment_and_are_never_logged(tmp_path) -> None:
    file = tmp_path / "keys"
    file.write_text("first-key\n\nsecond-key\n")
    file.chmod(0o644)
    with serving("--key-file", file, DEWEY_SERVE_KEYS="third-key") as (process, address):
        statuses = [
            httpx.get(
                f"{address}/v1/models", headers={"authorization": f"Bearer {key}"}
            ).status_code
            for key in ("first-key", "second-key", "third-key", "fourth-key", "-")
        ]
        _, said = stop(process)
        assert statuses == [200, 200, 200, 401, 401]
        assert "others may read" in said
        assert "-key" not in said.replace("--key-file", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "203.0.113.7"], "cannot listen"),
        (["--host", "no such host"], "cannot listen"),
        (["--key-file", "none"], "cannot be read"),
        (["nomodel/"], "nomodel"),
        (["--max-body-mb", "0"], "max-body-mb"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(arguments, said) -> None:
    ended = dewey("serve", "--port", "0", *arguments)
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = dewey("serve", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "--port" in ended.stderr
