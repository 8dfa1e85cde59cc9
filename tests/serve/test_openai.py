"""OpenAI's endpoints, with Jina's fields: the vectors of `Dewey`, and refusals that say why."""

import base64

import numpy as np
import pytest

TEXTS = ["The tenant pays the rent.", "Ships carry timber.", "Who mends the roof?"]


def post(client, status=200, **body):
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def vectors(answer):
    return np.array([each["embedding"] for each in answer["data"]], np.float32)


def message(answer):
    return answer["error"]["message"]


def test_a_text_and_several_get_the_vectors_of_dewey(served):
    client, model = served
    expected = model.encode(TEXTS)
    for given, rows in ((TEXTS[0], expected[:1]), (TEXTS, expected)):
        answer = post(client, input=given)
        np.testing.assert_allclose(vectors(answer), rows, atol=1e-5)
        assert [each["index"] for each in answer["data"]] == list(range(len(rows)))
        tokens = model.tokenizer.encode([given] if isinstance(given, str) else given)
        total = sum(map(len, tokens))
        assert answer["usage"] == {"prompt_tokens": total, "total_tokens": total}


def test_base64_is_little_endian_float32(served):
    client, model = served
    answer = post(client, input=TEXTS, encoding_format="base64")
    rows = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in answer["data"]]
    np.testing.assert_allclose(rows, model.encode(TEXTS), atol=1e-5)


def test_fewer_dimensions_are_the_first_ones_at_unit_length(served):
    client, model = served
    rows = model.encode(TEXTS)[:, :7]
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(
        vectors(post(client, input=TEXTS, dimensions=7)), expected, atol=1e-5
    )
    answer = post(client, 400, input=TEXTS, dimensions=model.embedding_dim + 1)
    assert f"{model.embedding_dim + 1:,}" in message(answer)
    assert f"{model.embedding_dim:,}" in message(answer)


def test_only_names_of_the_model_are_accepted(served):
    client, model = served
    listed = client.get("/v1/models").json()["data"]
    assert [each["embedding_dim"] for each in listed] == [model.embedding_dim]
    for name in (listed[0]["id"], *listed[0]["aliases"]):
        assert post(client, input="rent", model=name)["model"] == listed[0]["id"]
        assert client.get(f"/v1/models/{name}").json() == listed[0]
    answer = post(client, 404, input="rent", model="text-embedding-3-small")
    assert answer["error"]["code"] == "model_not_found"
    assert client.get("/v1/models/text-embedding-3-small").status_code == 404


def test_a_text_over_the_limit_is_refused_with_both_numbers(served):
    client, model = served
    room = model.max_tokens - sum(map(len, model.config.special_ids))
    text = "rent " * (room + 1)
    (tokens,) = model.tokenizer.encode([text])
    answer = post(client, 400, input=["rent", text])
    assert message(answer).startswith("input.1: ")
    assert f"{len(tokens):,} tokens, the limit is {room:,}" in message(answer)
    assert "truncate" in message(answer)
    assert answer["error"]["code"] == "context_length_exceeded"


def test_a_text_over_the_limit_is_cut_where_the_request_says_so(mean_client, mean_model):
    texts = ["rent", "The tenant pays the rent. " * 100]
    answer = mean_client.post("/v1/embeddings", json={"input": texts, "truncate": True})
    assert answer.headers["x-truncated-inputs"] == "1"
    expected = mean_model.encode(texts, overflow="truncate")
    np.testing.assert_allclose(vectors(answer.json()), expected, atol=1e-5)
    read = [each.used_tokens for each in mean_model.encode_document(texts, overflow="truncate")]
    assert answer.json()["usage"]["total_tokens"] == sum(read)
    answer = mean_client.post("/v1/embeddings", json={"input": texts[:1], "truncate": True})
    assert "x-truncated-inputs" not in answer.headers


def test_voyages_truncation_cuts_or_refuses(mean_client, mean_model):
    body = {"input": ["rent", "The tenant pays the rent. " * 100], "input_type": "query"}
    answer = mean_client.post("/v1/embeddings", json=body | {"truncation": True})
    assert answer.headers["x-truncated-inputs"] == "1"
    expected = mean_model.encode(body["input"], overflow="truncate", prompt_name="query")
    np.testing.assert_allclose(vectors(answer.json()), expected, atol=1e-5)
    for options in ({}, {"truncation": False}, {"truncation": None}):
        post(mean_client, 400, **body, **options)


def test_voyages_types_are_lists_or_bytes(served):
    client, _ = served
    body = {"input": TEXTS, "output_dtype": "int8", "output_dimension": 5}
    rows = vectors(post(client, **body))
    packed = post(client, **body, encoding_format="base64")["data"]
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), "i1") for each in packed]
    np.testing.assert_array_equal(decoded, rows)
    assert rows.shape == (3, 5)


@pytest.mark.parametrize(
    "both",
    [
        {"output_dimension": 4, "dimensions": 4},
        {"input_type": "query", "task": "retrieval.query"},
        {"output_dtype": "int8", "embedding_type": "int8"},
        {"output_dtype": "int8", "encoding_format": "base64_int8"},
    ],
)
def test_two_fields_for_the_same_thing_are_refused(mini_client, both):
    assert " and ".join(both) in message(post(mini_client, 400, input=TEXTS, **both))


def test_late_chunking_reads_all_inputs_as_one_document(served):
    client, model = served
    chunks = ["The tenant pays the rent. ", "It is due on Mondays.", "Who mends it?"]
    text = "The tenant pays the rent. It is due on Mondays.\nWho mends it?"
    spans = [(text.index(chunk), text.index(chunk) + len(chunk)) for chunk in chunks]
    answer = post(client, input=chunks, late_chunking=True, task="retrieval.passage")
    expected = model.encode_document(text, spans=spans)
    np.testing.assert_allclose(vectors(answer), expected.chunks, atol=1e-5)
    assert answer["usage"]["total_tokens"] == expected.num_tokens


def test_the_task_chooses_the_prompt(served):
    client, model = served
    answer = post(client, input=TEXTS, task="retrieval.query", model=None)
    np.testing.assert_allclose(vectors(answer), model.encode_query(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("int8", "i1"), ("uint8", "u1"), ("binary", "i1"), ("ubinary", "u1")]
)
def test_other_types_keep_directions(served, kind, dtype):
    client, model = served
    rows = np.array(vectors(post(client, input=TEXTS, embedding_type=kind)), dtype)
    expected = model.encode(TEXTS)
    if kind.endswith("int8"):
        signed = rows.astype(np.float32) - (128 if kind == "uint8" else 0)
        largest = np.abs(expected).max(axis=1, keepdims=True)
        np.testing.assert_allclose(signed * largest / 127, expected, atol=largest.max() / 250)
    else:
        signs = np.unpackbits((rows.astype(int) + 128 * (kind == "binary")).astype("u1"), axis=1)
        np.testing.assert_array_equal(signs[:, : model.embedding_dim], expected > 0)
