"""Chunks that know their document, as Voyage and Perplexity send and expect them."""

import base64

import numpy as np
import pytest

CHUNKS = ["The tenant pays the rent.", "It is due on Mondays. ", "Who mends the roof?"]
TEXT = "The tenant pays the rent.\nIt is due on Mondays. Who mends the roof?"
SPANS = [(0, 25), (26, 48), (48, 67)]
OTHER = ["Ships carry timber."]


def post(client, status=200, **body):
    answer = client.post("/v1/contextualizedembeddings", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def rows(answer, document=0):
    data = answer["data"][document]["data"]
    return np.array([each["embedding"] for each in data], np.float32)


def test_chunks_of_a_document_are_read_in_one_pass(served):
    client, model = served
    answer = post(client, inputs=[CHUNKS, OTHER], input_type="document")
    first, second = model.encode_document([TEXT, OTHER[0]], spans=[SPANS, [(0, 19)]])
    np.testing.assert_allclose(rows(answer), first.chunks, atol=1e-5)
    np.testing.assert_allclose(rows(answer, 1), second.chunks, atol=1e-5)
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert [each["index"] for each in answer["data"][0]["data"]] == [0, 1, 2]
    assert answer["usage"]["total_tokens"] == first.num_tokens + second.num_tokens
    assert "text" not in answer["data"][0]["data"][0]
    assert "chunker_version" not in answer


@pytest.mark.parametrize("nested", [True, False])
def test_queries_get_the_vectors_of_encode_query(served, nested):
    client, model = served
    queries = ["who pays the rent?", "who mends the roof?"]
    inputs = [[query] for query in queries] if nested else queries
    answer = post(client, inputs=inputs, input_type="query")
    got = np.concatenate([rows(answer, 0), rows(answer, 1)])
    np.testing.assert_allclose(got, model.encode_query(queries), atol=1e-5)


def test_complete_documents_are_cut_into_whole_sentences(served):
    client, model = served
    text = TEXT.replace("\n", " ")
    limits = {"chunk_size": 12, "chunk_overlap": 2}
    answer = post(
        client, inputs=[text, OTHER[0]], input_type="document", enable_auto_chunking=True, **limits
    )
    expected = model.encode_document(text, chunk_tokens=12, chunk_overlap=2, splitter="sentences")
    np.testing.assert_allclose(rows(answer), expected.chunks, atol=1e-5)
    texts = [each["text"] for each in answer["data"][0]["data"]]
    assert texts == [text[span.char_start : span.char_end] for span in expected.spans]
    assert len(texts) > 1
    assert answer["chunker_version"]
    assert all("text" in each for document in answer["data"] for each in document["data"])


@pytest.mark.parametrize("dtype", ["float", "int8", "uint8", "binary", "ubinary"])
def test_base64_holds_the_bytes_of_the_type(served, dtype):
    client, _ = served
    types = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}
    body = {"inputs": [CHUNKS], "output_dtype": dtype, "output_dimension": 5}
    plain = post(client, **body)
    packed = post(client, **body, encoding_format="base64")
    decoded = [
        np.frombuffer(base64.b64decode(each["embedding"]), types[dtype])
        for each in packed["data"][0]["data"]
    ]
    np.testing.assert_array_equal(np.array(decoded, np.float32), rows(plain))
    assert len(decoded[0]) == (1 if "binary" in dtype else 5)


def test_perplexity_gets_int8_or_signs_in_base64(served):
    client, model = served
    expected = model.encode_document(TEXT, spans=SPANS, prompt_name=None, prompt="").chunks
    answer = post(client, input=[CHUNKS])
    for each, row in zip(answer["data"][0]["data"], expected, strict=True):
        values = np.frombuffer(base64.b64decode(each["embedding"]), np.int8).astype(np.float32)
        step = np.abs(row).max() / 127
        np.testing.assert_allclose(values * step, row, atol=step)
    answer = post(client, input=[CHUNKS], encoding_format="base64_binary")
    for each, row in zip(answer["data"][0]["data"], expected, strict=True):
        bits = np.unpackbits(np.frombuffer(base64.b64decode(each["embedding"]), np.uint8))
        np.testing.assert_array_equal(bits[: len(row)], row > 0)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "inputs"),
        ({"inputs": [["a"]], "input": [["a"]]}, 422, "both"),
        ({"inputs": []}, 400, "at least one"),
        ({"inputs": [[]]}, 400, "inputs.0 is empty"),
        ({"inputs": [["rent"], ["rent", " \n"]]}, 400, "inputs.1.1 is blank"),
        ({"inputs": ["rent"]}, 400, "flat list"),
        ({"inputs": [["rent", "roof"]], "input_type": "query"}, 400, "inputs.0 has 2 strings"),
        ({"inputs": [["a", "b"]], "enable_auto_chunking": True}, 400, "inputs.0 has 2 strings"),
        ({"inputs": [["a"]], "chunk_size": 4}, 400, "chunk_size is given without"),
        (
            {"inputs": ["a"], "enable_auto_chunking": True, "chunk_size": 4, "chunk_overlap": 4},
            400,
            "chunk_overlap is 4, chunk_size 4",
        ),
        ({"inputs": ["a"], "enable_auto_chunking": True, "input_type": "query"}, 400, "query"),
        ({"inputs": [["a"]], "output_dimension": 100_000}, 400, "output_dimension is 100,000"),
        ({"inputs": [["a"], "b"]}, 422, "inputs.1"),
        ({"inputs": [["a", 7]]}, 422, "inputs.0.1"),
        ({"inputs": [["rent"] * 16_001]}, 400, "16,001 chunks, the limit is 16,000"),
        ({"inputs": [["a"]], "model": "voyage-context-3"}, 404, "'voyage-context-3' is not served"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(mean_client, body, status, words):
    assert words in post(mean_client, status, **body)["detail"]


def test_a_document_over_the_limit_is_refused_with_both_numbers(mean_client, mean_model):
    chunks = ["The tenant pays the rent."] * 100
    num_tokens = len(mean_model.tokenizer.encode(["\n".join(chunks)])[0])
    detail = post(mean_client, 400, inputs=[["rent"], chunks])["detail"]
    assert detail.startswith("inputs.1: ")
    assert f"{num_tokens:,} tokens, the limit is " in detail
