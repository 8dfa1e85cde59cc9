"""Bad input: the documented 4xx, quickly, from every endpoint, and the server goes on."""

import gzip
import json
import time

import numpy as np
import pytest

BODIES = {
    "/v1/embeddings": lambda texts: {"input": texts},
    "/v1/contextualizedembeddings": lambda texts: {"inputs": [[text] for text in texts]},
    "/v2/embed": lambda texts: {"texts": texts, "input_type": "search_document"},
    "/embed": lambda texts: {"inputs": texts},
    "/embed_all": lambda texts: {"inputs": texts},
    "/similarity": lambda texts: {
        "inputs": {"source_sentence": texts[0] if texts else "rent", "sentences": texts}
    },
    "/tokenize": lambda texts: {"inputs": texts},
    "/v1/spans": lambda texts: {"texts": texts, "spans": [[] for _ in texts]},
}
ENCODING = [path for path in BODIES if path != "/tokenize"]
TOO_MUCH = (400, 413)
slow = pytest.mark.slow
PROBE = "The tenant pays the rent."
JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def probe(mini_client, mini):
    """The server answers as before, whatever a test has sent it."""
    yield
    answer = mini_client.post("/embed", json={"inputs": PROBE})
    np.testing.assert_allclose(answer.json(), [mini.encode(PROBE)], atol=1e-5)


def post(client, path, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body)
    return client.post(path, content=content, headers=JSON | headers)


def message(answer):
    body = answer.json()
    for step in ("error", "message", "detail"):
        body = body.get(step, body) if isinstance(body, dict) else body
    assert isinstance(body, str)
    return body


def refused(answer, *status):
    assert answer.status_code in status, answer.text[:500]
    assert len(answer.content) < 2000
    return message(answer)


NOT_JSON = [
    (b"rent", "Expecting value (line 1, column 1)"),
    (b'{"input": "rent"', "Expecting ',' delimiter"),
    (b"", "Expecting value"),
    (b'{"input": "caf\xe9"}', "byte 14 is not UTF-8"),
    (b"\xff\xfe{\x00}\x00", "byte 0 is not UTF-8"),
    (b'{"dimensions": NaN}', "NaN is no number of JSON"),
    (b'{"dimensions": -Infinity}', "-Infinity is no number of JSON"),
    (b'{"model": "mini", "model": "mini"}', "the key 'model' stands there twice"),
    (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"a": ' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    (b'{"dimensions": 1' + b"0" * 5000 + b"}", "5,001 digits"),
]


@pytest.mark.parametrize("path", BODIES)
def test_what_is_not_json_is_refused_in_words(mini_client, path):
    for body, words in NOT_JSON:
        assert words in refused(post(mini_client, path, body), 422)


@pytest.mark.parametrize("path", BODIES)
def test_json_of_another_type_is_refused(mini_client, path):
    for body in (None, 7, "rent", [], [1], True, {}, {"input": None}):
        refused(post(mini_client, path, body), 422)


@pytest.mark.parametrize("path", BODIES)
def test_other_media_are_refused(mini_client, path):
    body = json.dumps(BODIES[path]([PROBE])).encode()
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = post(mini_client, path, body, **{"content-type": media})
        assert "application/json" in refused(answer, 415)
    answer = post(mini_client, path, gzip.compress(body), **{"content-encoding": "gzip"})
    assert "'gzip'" in refused(answer, 415)
    answer = post(mini_client, path, body, **{"content-type": "application/json; charset=utf-8"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_an_unknown_field_and_a_wrong_type_are_named_with_their_path(mini_client, path):
    body = BODIES[path]([PROBE])
    answer = post(mini_client, path, body | {"temperature": 1})
    assert "temperature: unknown field" in refused(answer, 422)
    answer = post(mini_client, path, BODIES[path]([PROBE, PROBE, 7]))
    assert any(f".{place}: " in refused(answer, 422) for place in ("2", "2.0"))
    answer = post(mini_client, path, BODIES[path]([{"text": PROBE}]))
    refused(answer, 422)


@pytest.mark.parametrize("path", BODIES)
def test_a_lone_surrogate_is_refused(mini_client, path):
    body = json.dumps(BODIES[path](["rent", "a \ud800 b"])).encode()
    assert b"\\ud800" in body
    assert "unicode" in refused(post(mini_client, path, body), 422)
    pair = json.dumps(BODIES[path](["rent 😀"])).encode()
    assert post(mini_client, path, pair).status_code == 200


@pytest.mark.parametrize("path", ENCODING)
def test_a_text_without_a_token_is_refused_with_its_position(mini_client, path):
    for text in ("", " ", "\n\t\u3000", "\u200b", "\x00\x00", "\u0301\u0308", "\ufeff \u2060"):
        answer = post(mini_client, path, BODIES[path](["rent", text]))
        assert ".1" in refused(answer, 400), repr(text)


@pytest.mark.parametrize("path", BODIES)
def test_nul_and_other_controls_are_ordinary_characters(mini_client, path):
    answer = post(mini_client, path, BODIES[path](["The ten\x00ant pays\x1b[2J \x7f rent. \x00"]))
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ENCODING)
def test_an_empty_list_is_refused(mini_client, path):
    assert "empty" in refused(post(mini_client, path, BODIES[path]([])), 400)


@pytest.mark.parametrize("path", BODIES)
def test_a_hundred_thousand_inputs_are_refused_with_both_numbers(mini_client, path):
    started = time.process_time()  # not that of other work on the machine
    words = refused(post(mini_client, path, BODIES[path](["rent"] * 100_000)), *TOO_MUCH)
    assert "100,000" in words
    assert "2,048" in words
    wrong = post(mini_client, path, BODIES[path]([None] * 100_000))
    refused(wrong, 422)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "path",
    [
        path if path in ("/v1/embeddings", "/embed_all") else pytest.param(path, marks=slow)
        for path in BODIES
    ],
)
def test_ten_megabytes_of_one_word_are_refused_with_both_numbers(mini_client, path):
    started = time.process_time()
    words = refused(post(mini_client, path, BODIES[path](["a" * 10_000_000])), *TOO_MUCH)
    assert "tokens" in words
    assert "16,384" in words if path == "/embed_all" else "131,07" in words
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/embeddings", "dimensions"),
        ("/v1/contextualizedembeddings", "output_dimension"),
        ("/v1/contextualizedembeddings", "dimensions"),
        ("/v2/embed", "output_dimension"),
        ("/embed", "dimensions"),
        ("/v1/spans", "dimensions"),
    ],
)
def test_dimensions_are_a_number_from_one_to_the_width(mini_client, path, field):
    for value, status in ((0, 422), (-1, 422), (1.5, 422), ("8", 422), (True, 422), (385, 400),
                          (10**80, 400)):  # fmt: skip
        answer = post(mini_client, path, BODIES[path]([PROBE]) | {field: value})
        assert field in refused(answer, status)
    assert "384" in message(answer)
    answer = post(mini_client, path, BODIES[path]([PROBE]) | {field: 384})
    assert answer.status_code == 200


def test_an_unknown_path_is_answered_with_those_that_embed(mini_client):
    for path in ("/v1/embed", "/v1/nowhere", "/nowhere"):
        answer = mini_client.post(path, json={"texts": ["rent"], "model": "embed-english-v3.0"})
        refused(answer, 404)
        assert f"there is no '{path}' here" in message(answer)
        assert "/v2/embed (Cohere)" in message(answer)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/nowhere", "/v1/models"])
def test_other_methods_and_paths_are_refused_in_the_shape_of_the_api(mini_client, path):
    answer = mini_client.request("DELETE", path)
    refused(answer, 404, 405)
    assert isinstance(answer.json()["error"], dict if path.startswith("/v1") else str)
