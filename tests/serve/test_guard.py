"""Who may ask: names, origins, keys and sizes, and what the log says of it."""

import logging

import pytest
from fastapi.testclient import TestClient

from dewey_embed.serve.app import create_app
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings

KEY = "sk-2f6b1c"
BODY = {"input": "moths eat wool"}


@pytest.fixture(scope="module")
def guarded(mini):
    settings = ServeSettings(
        keys=frozenset({KEY, "other"}), hosts=frozenset({"dewey.example"}), max_body_mb=1
    )
    app = create_app(Server(mini, {}, settings))
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


def ask(client, key=KEY, **headers):
    headers = {"authorization": f"Bearer {key}"} | headers if key else headers
    return client.post("/v1/embeddings", json=BODY, headers=headers)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "[::1]:8080", "192.168.1.7",
             "Dewey.Example", "dewey.example:443", "localhost."],
)  # fmt: skip
def test_addresses_and_own_names_are_answered(guarded, host) -> None:
    assert ask(guarded, host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "evil.example@localhost",
        "localhost/evil", "localhost#.evil.example", "[::1", "localhost:abc",
    ],
)  # fmt: skip
def test_foreign_names_are_refused_though_they_lead_here(guarded, host) -> None:
    answer = ask(guarded, host=host)
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8080", 200),
        ("https://dewey.example", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:9999", 403),
        ("null", 403),
        ("http://127.0.0.1:8080.evil.example", 403),
        ("[", 403),
        ("http://[", 403),
        ("http://127.0.0.1:8080@evil.example", 403),
        ("", 403),
    ],
)
def test_only_own_pages_may_ask(guarded, origin, status) -> None:
    assert ask(guarded, host="127.0.0.1:8080", origin=origin).status_code == status


@pytest.mark.parametrize("given", ["", "wrong", KEY[:-1], KEY + "x", "ß"])
def test_without_a_key_nobody_is_answered(guarded, given) -> None:
    headers = {"authorization": f"Bearer {given}".encode()} if given else {}
    for path in (
        "/",
        "/health",
        "/docs",
        "/v1/embeddings",
        "/embed",
        "/v1/indexes",
        "/mcp",
        "/page/start",
        "/page/files",
    ):
        answer = guarded.post(path, json=BODY, headers=headers)
        assert answer.status_code == 401
        assert KEY not in answer.text
        assert "www-authenticate" in answer.headers


def test_every_key_is_taken_and_the_page_and_health_need_none(guarded) -> None:
    assert ask(guarded, key="other").status_code == 200
    for path in ("/", "/health", "/docs", "/openapi.json", "/page/style.css"):
        assert guarded.get(path).status_code == 200, path


def test_bodies_over_the_limit_are_refused_with_both_sizes(guarded) -> None:
    large = b'{"input": "' + b"x" * 1_100_000 + b'"}'
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    said = guarded.post("/v1/embeddings", content=large, headers=headers)
    streamed = guarded.post("/v1/embeddings", content=iter([large[:600_000], large[600_000:]]),
                            headers=headers)  # fmt: skip
    assert [said.status_code, streamed.status_code] == [413, 413]
    assert all("1,000,000" in answer.text for answer in (said, streamed))


def test_the_log_has_a_line_a_request_without_texts_or_keys(guarded, caplog) -> None:
    with caplog.at_level(logging.INFO, "dewey_embed.serve.access"):
        ask(guarded)
        guarded.get("/v1/models?q=secret", headers={"authorization": f"Bearer {KEY}"})
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" ms=")[0] for line in lines] == [
        "method=POST path='/v1/embeddings' status=200",
        "method=GET path='/v1/models' status=200",
    ]
    assert not any(word in line for line in lines for word in (KEY, "moths", "secret"))


def test_every_answer_has_the_headers_of_safety(guarded) -> None:
    for answer in (ask(guarded), ask(guarded, host="evil.example"), guarded.get("/health")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
