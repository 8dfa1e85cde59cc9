"""The OpenAPI, and bodies made from it and at random: no answer is a server's fault."""

import copy
import json
import random
import time

import httpx
import hypothesis
import pytest

from dewey_embed import Document, Index
from dewey_embed.serve.app import create_app
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings
from tests.serve.conftest import running

schemathesis = pytest.importorskip("schemathesis")

JSON = {"content-type": "application/json"}
SECONDS = 20
"""Longer than any of these requests may take."""

TEXTS = [
    "The tenant pays the rent.", "", " ", "\x00", "\u200b", "😀", "e\u0301", "\ud800", "x" * 5000,
    "rent " * 200, "[CLS] [SEP] [MASK]", "\u202eabc", "0", "true", "\\u0000", "{}",
]  # fmt: skip
VALUES = [
    None, True, False, 0, 1, -1, 7, 16, 2**31, 2**63, 10**90, 0.5, -0.0, 1e308, [], {}, [[]],
    [None], [[1, 2]], [[0, 5]], [[[0, 5]]], {"text": "rent"}, "float", "base64", "int8", "query",
    "document", "START", "left", "mean", *TEXTS,
]  # fmt: skip


@pytest.fixture(scope="module")
def url(mean_model, tmp_path_factory):
    """The address of a server of a small model with an index."""
    folder = tmp_path_factory.mktemp("indexes") / "leases"
    index = Index.open(folder, mean_model)
    texts = {"lease": "The tenant pays the rent.", "letters/1": "Ships carry timber."}
    index.add([Document(id=name, text=text) for name, text in texts.items()])
    server = Server(mean_model, {"leases": index}, ServeSettings(max_inputs=32))
    with running(create_app(server)) as address:
        yield address
    server.close()


@pytest.fixture(scope="module")
def client(url):
    with httpx.Client(base_url=url, timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def openapi(client):
    return client.get("/openapi.json").json()


def with_bodies(openapi):
    """The paths that take JSON, each with the examples of its bodies."""
    schemas = openapi["components"]["schemas"]
    for path, methods in openapi["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" in content:
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            yield path.replace("{name}", "leases"), schemas[name]


def test_every_endpoint_is_described_with_all_its_fields(openapi):
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description") or operation.get("summary"), (method, path)
    for path in EMBEDDING:
        schema = dict(with_bodies(openapi))[path]
        assert schema["examples"], path
        for name, field in schema["properties"].items():
            assert field.get("description") or "$ref" in field, (path, name)


def test_the_examples_of_the_docs_are_answered(openapi, client):
    for path, schema in with_bodies(openapi):
        for example in schema.get("examples", []):
            body = example | ({"model": "mean"} if "model" in example else {})
            answer = client.post(path, json=body)
            assert answer.status_code == 200, (path, body, answer.text)
            assert described(openapi, path, answer.json()), path


def described(openapi, path, value):
    """Whether an answer is of the described schema."""
    import jsonschema

    schema = openapi["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    jsonschema.validate(value, schema["schema"] | {"components": openapi["components"]})
    return True


EMBEDDING = {
    "/v1/embeddings": {
        "input": ["The tenant pays the rent."], "model": "mean", "dimensions": 4,
        "encoding_format": "base64", "task": "retrieval.query", "late_chunking": True,
        "truncate": True, "embedding_type": "int8",
    },
    "/v1/contextualizedembeddings": {
        "inputs": [["The tenant", "pays the rent."]], "input_type": "document",
        "output_dtype": "ubinary", "output_dimension": 4, "encoding_format": "base64",
    },
    "/v2/embed": {
        "texts": ["The tenant pays the rent."], "input_type": "search_query", "max_tokens": 4,
        "embedding_types": ["float", "base64"], "truncate": "START",
    },
    "/embed": {
        "inputs": ["The tenant pays the rent."], "truncate": True, "truncation_direction": "left",
        "prompt_name": "query", "dimensions": 4,
    },
    "/embed_all": {"inputs": "The tenant pays the rent.", "truncate": True},
    "/similarity": {
        "inputs": {"source_sentence": "rent", "sentences": ["The tenant pays the rent."]},
        "parameters": {"truncate": True},
    },
    "/tokenize": {"inputs": ["The tenant pays the rent."], "add_special_tokens": False},
    "/v1/spans": {
        "texts": ["The tenant pays the rent."], "spans": [[[0, 10], [4, 25]]], "dimensions": 4,
        "encoding_format": "base64", "prompt_name": None,
    },
}  # fmt: skip
"""Bodies that are answered, from which random ones are made."""


def changed(value, choose):
    """A value with one random change in it, at any depth."""
    value = copy.copy(value)
    if choose.random() < 0.3 or not isinstance(value, dict | list) or not value:
        return copy.deepcopy(choose.choice(VALUES))
    key = choose.choice(list(value)) if isinstance(value, dict) else choose.randrange(len(value))
    kind = choose.random()
    if kind < 0.15:
        del value[key]
    elif kind < 0.25 and isinstance(value, dict):
        value[choose.choice(TEXTS)] = value[key]
    elif kind < 0.35 and isinstance(value, list):
        value *= choose.choice((2, 40))
    else:
        value[key] = changed(value[key], choose)
    return value


def random_body(body, choose):
    """Bytes that began as a good body."""
    for _ in range(choose.choice((0, 1, 1, 2, 5))):
        body = changed(body, choose)
    content = bytearray(json.dumps(body).encode())
    if choose.random() < 0.25:
        for _ in range(choose.choice((1, 2, 10))):
            place = choose.randrange(len(content) + 1)
            content[place : place + choose.choice((0, 1, 3))] = choose.choice(
                (b"", b"{", b'"', b"\xff", b"\\ud83d", b"NaN", b"1e400", b"\x00", b"[[[[", b"-")
            )
    return bytes(content)


def check_random_bodies(client, number, seed):
    choose, statuses = random.Random(seed), {}
    paths = list(EMBEDDING)
    for turn in range(number):
        path = paths[turn % len(paths)]
        body = random_body(EMBEDDING[path], choose)
        started = time.perf_counter()
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code in (200, 400, 404, 413, 422), (path, body, answer.text)
        assert time.perf_counter() - started < SECONDS / 2, (path, body)
        answer.json()
        statuses.setdefault(path, set()).add(answer.status_code)
    assert all({200, 422} <= found for found in statuses.values()), statuses


def check_operations(url, max_examples):
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    modes = schemathesis.GenerationMode
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            try:
                cases = operation.as_strategy(generation_mode=mode)
                check_cases(cases, url, max_examples)
            except hypothesis.errors.Unsatisfiable:
                assert mode == modes.NEGATIVE  # of an operation without parameters


def check_cases(cases, url, max_examples):
    @hypothesis.settings(
        max_examples=max_examples, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(case=cases)
    def check(case):
        answer = case.call(base_url=url)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)

    check()


def test_random_bodies_are_answered_or_refused(client):
    check_random_bodies(client, 160, seed=0)


def test_no_request_that_the_openapi_describes_or_rules_out_is_a_fault_of_the_server(url):
    check_operations(url, max_examples=2)


@pytest.mark.slow
def test_ten_thousand_random_bodies_are_answered_or_refused(client):
    check_random_bodies(client, 10_000, seed=1)


@pytest.mark.slow
def test_thousands_of_requests_from_the_openapi_are_no_fault_of_the_server(url):
    check_operations(url, max_examples=150)
