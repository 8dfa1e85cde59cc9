"""Cohere's endpoint: types of embeddings, prompts by the type of input, and cuts of both sides."""

import base64

import numpy as np
import pytest

TEXTS = ["The tenant pays the rent.", "Ships carry timber."]
LONG = " ".join(f"Word {number} of a text that is too long." for number in range(60))


def post(client, status=200, **body):
    body = {"input_type": "search_document", "texts": TEXTS} | body
    answer = client.post("/v2/embed", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_every_type_of_embedding_is_of_the_same_vectors(served):
    client, model = served
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = post(client, embedding_types=types)
    expected = np.stack([each.vector for each in model.encode_document(TEXTS)])
    found = answer["embeddings"]
    np.testing.assert_allclose(found["float"], expected, atol=1e-5)
    step = np.abs(expected).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(np.array(found["int8"]) * step, expected, atol=step.max())
    np.testing.assert_array_equal(np.array(found["uint8"]) - 128, found["int8"])
    np.testing.assert_array_equal(np.array(found["ubinary"]) - 128, found["binary"])
    signs = np.unpackbits(np.array(found["ubinary"], np.uint8), axis=1)
    sure = np.abs(expected) > 1e-5  # the last principal axes hold nothing but rounding
    np.testing.assert_array_equal(signs[:, : model.embedding_dim][sure], expected[sure] > 0)
    packed = [np.frombuffer(base64.b64decode(each), "<f4") for each in found["base64"]]
    np.testing.assert_array_equal(packed, np.array(found["float"], np.float32))
    assert answer["texts"] == TEXTS
    assert answer["id"]
    total = sum(map(len, model.tokenizer.encode(TEXTS)))
    assert answer["meta"]["billed_units"] == {"input_tokens": total}
    assert "warnings" not in answer["meta"]


def test_queries_have_their_prompt_and_other_types_the_default(served):
    client, model = served
    answer = post(client, input_type="search_query")
    np.testing.assert_allclose(answer["embeddings"]["float"], model.encode_query(TEXTS), atol=1e-5)
    answer = post(client, input_type="clustering", output_dimension=3)
    rows = model.encode(TEXTS)[:, :3]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(answer["embeddings"]["float"], rows, atol=1e-5)


def test_a_long_text_is_refused_unless_a_side_is_named(mean_client, mean_model):
    refusal = post(mean_client, 400, texts=["rent", LONG])["message"]
    num_tokens = len(mean_model.tokenizer.encode([LONG])[0])
    assert refusal.startswith("texts.1: ")
    assert f"{num_tokens:,} tokens, the limit is 94" in refusal
    assert "START or END" in refusal


@pytest.mark.parametrize("prompt_name", ["document", "query"])
@pytest.mark.parametrize("side", ["START", "END"])
def test_the_beginning_or_the_end_is_left_out(mean_client, mean_model, side, prompt_name):
    body = {"texts": ["rent", LONG], "truncate": side, "input_type": f"search_{prompt_name}"}
    answer = post(mean_client, **body, max_tokens=80)
    used = answer["meta"]["billed_units"]["input_tokens"]
    used -= len(mean_model.tokenizer.encode(["rent"], prompt=mean_model.prompts[prompt_name])[0])
    assert 70 < used <= 80
    assert answer["meta"]["warnings"] == [f"the {side.lower()} of texts 1 was left out"]
    assert answer["texts"][1] == LONG
    parts = [LONG[-n:] if side == "START" else LONG[:n] for n in range(100, 300)]
    vectors = mean_model.encode(parts, prompt_name=prompt_name, overflow="truncate")
    assert np.abs(vectors - answer["embeddings"]["float"][1]).max(axis=1).min() < 1e-5


def test_the_end_is_left_out_as_dewey_does(mean_client, mean_model):
    answer = post(mean_client, texts=[LONG], truncate="END")
    expected = mean_model.encode_document(LONG, overflow="truncate")
    np.testing.assert_allclose(answer["embeddings"]["float"][0], expected.vector, atol=1e-5)
    assert answer["meta"]["billed_units"]["input_tokens"] == expected.used_tokens


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": []}, 400, "texts is empty"),
        ({"texts": ["rent", ""]}, 400, "texts.1 is an empty string"),
        ({"input_type": "image"}, 422, "input_type"),
        ({"embedding_types": ["half"]}, 422, "embedding_types.0"),
        ({"embedding_types": []}, 422, "embedding_types"),
        ({"truncate": "MIDDLE"}, 422, "truncate"),
        ({"images": []}, 422, "images: unknown field"),
        ({"max_tokens": 3}, 400, "the limit is 3"),
        ({"output_dimension": 4096}, 400, "output_dimension is 4,096"),
        ({"model": "embed-v4.0"}, 404, "embed-v4.0"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(mean_client, body, status, words):
    assert words in post(mean_client, status, **body)["message"]
