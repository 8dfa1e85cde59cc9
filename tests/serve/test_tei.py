"""The endpoints of Text Embeddings Inference."""

import numpy as np
import pytest

TEXTS = ["The tenant pays the rent.", "Ships carry timber.", "naïve 😀 café"]
LONG = "The tenant pays the rent. " * 100


def post(client, path, status=200, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_embed_returns_the_vectors_alone(served):
    client, model = served
    expected = model.encode(TEXTS)
    for path in ("/embed", "/"):
        np.testing.assert_allclose(post(client, path, inputs=TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(post(client, "/embed", inputs=TEXTS[0]), expected[:1], atol=1e-5)
    got = post(client, "/embed", inputs=TEXTS, prompt_name="query", dimensions=6, normalize=True)
    rows = model.encode_query(TEXTS)[:, :6]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(got, rows, atol=1e-5)


def test_embed_all_returns_a_vector_of_each_token_in_its_context(served):
    client, model = served
    got = post(client, "/embed_all", inputs=TEXTS)
    tokens = model.tokenizer.encode(TEXTS)
    assert [len(each) for each in got] == [len(each) for each in tokens]
    spans = [tuple(offsets) for offsets in tokens[0].offsets.tolist()]
    prompt = model.config.default_prompt_name
    expected = model.encode_document(TEXTS[0], spans=spans, prompt_name=prompt)
    np.testing.assert_allclose(got[0], expected.chunks, atol=1e-5)


def test_similarity_is_the_cosine_with_each_sentence(served):
    client, model = served
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    vectors = model.encode(TEXTS)
    got = post(client, "/similarity", inputs=inputs)
    np.testing.assert_allclose(got, vectors[1:] @ vectors[0], atol=1e-5)
    vectors = model.encode_query(TEXTS)
    got = post(client, "/similarity", inputs=inputs, parameters={"prompt_name": "query"})
    np.testing.assert_allclose(got, vectors[1:] @ vectors[0], atol=1e-5)


def test_tokenize_lists_the_tokens_with_their_characters(served):
    client, model = served
    answer = post(client, "/tokenize", inputs=TEXTS)
    before, after = model.config.special_ids
    for text, tokens, listed in zip(TEXTS, model.tokenizer.encode(TEXTS), answer, strict=True):
        assert [each["id"] for each in listed] == [*before, *tokens.ids.tolist(), *after]
        special = [each for each in listed if each["special"]]
        assert len(special) == len(before) + len(after)
        assert all(each["text"] and each["start"] is None for each in special)
        own = [each for each in listed if not each["special"]]
        assert all(each["text"] == text[each["start"] : each["stop"]] for each in own)
    plain = post(client, "/tokenize", inputs=TEXTS[0], add_special_tokens=False)
    assert not any(each["special"] for each in plain[0])


def test_info_health_and_metrics(served):
    client, model = served
    info = client.get("/info").json()
    assert info["max_input_length"] == model.max_tokens
    assert info["model_sha"] == model.fingerprint
    assert info["model_type"] == {"embedding": {"pooling": model.config.single_vector}}
    assert not info["auto_truncate"]
    assert client.get("/health").status_code == 200
    before = figure(client, "dewey_texts_total")
    post(client, "/embed", inputs=TEXTS)
    post(client, "/nowhere", 404)
    assert figure(client, "dewey_texts_total") == before + len(TEXTS)
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert 'dewey_requests_total{method="POST",path="/embed",status="200"}' in page.text
    assert 'path="other",status="404"' in page.text
    assert "/nowhere" not in page.text


def figure(client, name):
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def test_a_long_text_is_refused_with_both_numbers_unless_it_is_to_be_cut(mean_client, mean_model):
    num_tokens = len(mean_model.tokenizer.encode([LONG])[0])
    for path in ("/embed", "/embed_all"):
        answer = post(mean_client, path, 413, inputs=["rent", LONG])
        assert answer["error_type"] == "Validation"
        assert answer["error"].startswith("inputs.1: ")
        assert f"{num_tokens:,} tokens, the limit is 94" in answer["error"]
    answer = mean_client.post("/embed", json={"inputs": ["rent", LONG], "truncate": True})
    assert answer.headers["x-truncated-inputs"] == "1"
    expected = mean_model.encode(["rent", LONG], overflow="truncate")
    np.testing.assert_allclose(answer.json(), expected, atol=1e-5)
    left = {"inputs": [LONG], "truncate": True, "truncation_direction": "left"}
    answer = mean_client.post("/embed", json=left)
    assert answer.headers["x-truncated-inputs"] == "0"
    used = int(answer.headers["x-compute-tokens"])
    assert 80 < used <= 94
    vectors = mean_model.encode([LONG[-n:] for n in range(100, 600)], overflow="truncate")
    assert np.abs(vectors - answer.json()).max(axis=1).min() < 1e-5
    answer = mean_client.post("/embed_all", json=left | {"truncation_direction": "right"})
    assert len(answer.json()[0]) == 94


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "words"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "inputs is empty"),
        ("/embed", {"inputs": ["rent", ""]}, 400, "Empty", "inputs.1 is an empty string"),
        (
            "/embed",
            {"inputs": ["rent"] * 2049},
            413,
            "Validation",
            "2,049 texts",
        ),
        ("/embed", {"inputs": 7}, 422, "Tokenizer", "inputs"),
        ("/embed", {"inputs": ["rent", 7]}, 422, "Tokenizer", "inputs.1"),
        ("/embed", {"inputs": "rent", "top_k": 1}, 422, "Tokenizer", "top_k: unknown field"),
        ("/embed", {"inputs": "rent", "truncate": "yes"}, 422, "Tokenizer", "truncate"),
        ("/embed", {"inputs": "rent", "normalize": False}, 400, "Validation", "unit length"),
        ("/embed", {"inputs": "rent", "dimensions": 999}, 400, "Validation", "dimensions is 999"),
        ("/embed", {"inputs": "rent", "prompt_name": "poem"}, 400, "Validation", "document, other"),
        ("/tokenize", {"inputs": "rent " * 99}, 413, "Validation", "the limit is 96"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "Tokenizer", "inputs.sentences"),
        (
            "/similarity",
            {"inputs": {"source_sentence": "rent", "sentences": []}},
            400,
            "Empty",
            "inputs.sentences is empty",
        ),
    ],
)
def test_what_does_not_fit_is_refused_as_tei_does(mean_client, path, body, status, kind, words):
    answer = post(mean_client, path, status, **body)
    assert answer["error_type"] == kind
    assert words in answer["error"]


def test_more_tokens_than_one_answer_holds_are_refused(mini_client):
    answer = post(mini_client, "/embed_all", 413, inputs=["rent " * 10_000] * 2)
    assert "20,000 tokens, the limit is 16,384" in answer["error"]
