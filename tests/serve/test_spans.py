"""Any ranges of characters: one pass, one vector each, and one for the document."""

import base64

import numpy as np
import pytest

TEXT = "The tenant pays the rent. The owner pays for the roof."


def post(client, status=200, **body):
    answer = client.post("/v1/spans", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_each_range_has_a_vector_and_the_document_too(served):
    client, model = served
    spans = [(26, 54), (0, 25), (4, 10), (0, 54)]
    answer = post(client, text=TEXT, spans=spans)
    expected = model.encode_document(TEXT, spans=spans)
    (document,) = answer["data"]
    np.testing.assert_allclose(document["embedding"], expected.vector, atol=1e-5)
    got = [each["embedding"] for each in document["spans"]]
    np.testing.assert_allclose(got, expected.chunks, atol=1e-5)
    places = [(each["char_start"], each["char_end"]) for each in document["spans"]]
    assert places == [(each.char_start, each.char_end) for each in expected.spans]
    assert answer["usage"]["total_tokens"] == expected.num_tokens


def test_several_texts_have_a_list_of_ranges_each(served):
    client, model = served
    texts, spans = [TEXT, "Ships carry timber."], [[(0, 25)], []]
    answer = post(
        client, texts=texts, spans=spans, encoding_format="base64", dimensions=4, prompt_name=None
    )
    expected = model.encode_document(texts, spans=spans, prompt_name=None)
    for document, each in zip(answer["data"], expected, strict=True):
        got = np.frombuffer(base64.b64decode(document["embedding"]), "<f4")
        row = each.vector[:4] / np.linalg.norm(each.vector[:4])
        np.testing.assert_allclose(got, row, atol=1e-5)
    assert [len(document["spans"]) for document in answer["data"]] == [1, 0]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"spans": [[0, 1]]}, 422, "text"),
        ({"text": TEXT}, 422, "spans"),
        ({"text": TEXT, "texts": [TEXT], "spans": [[0, 1]]}, 422, "both given"),
        ({"text": TEXT, "spans": [[[0, 1]]]}, 422, "pairs for one text"),
        ({"texts": [TEXT], "spans": [[0, 1]]}, 422, "pairs for each"),
        ({"texts": [TEXT], "spans": [[[0, 1]], []]}, 422, "2 texts, but there are 1"),
        ({"text": TEXT, "spans": [[-1, 1]]}, 422, "spans"),
        ({"text": TEXT, "spans": [[0, 1, 2]]}, 422, "spans"),
        ({"text": TEXT, "spans": [[0, 1.5]]}, 422, "spans"),
        ({"text": TEXT, "spans": [[3, 3]]}, 400, "range 0 is (3, 3): it is empty"),
        ({"text": TEXT, "spans": [[0, 3], [9, 4]]}, 400, "range 1 is (9, 4): it runs backwards"),
        ({"text": TEXT, "spans": [[0, 99]]}, 400, "the text has 54 characters"),
        ({"text": TEXT, "spans": [[0, 10**30]]}, 400, "the text has 54 characters"),
        ({"text": " ", "spans": []}, 400, "blank"),
        ({"texts": [], "spans": []}, 400, "empty"),
        ({"text": TEXT, "spans": [[0, 3]] * 16_001}, 400, "16,001 ranges, the limit is 16,000"),
        ({"text": TEXT, "spans": [], "prompt_name": "poem"}, 400, "prompt_name 'poem' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(mean_client, body, status, words):
    assert words in post(mean_client, status, **body)["error"]["message"]


def test_a_range_of_white_space_holds_no_token(mini_client):
    answer = post(mini_client, 400, texts=[TEXT, TEXT], spans=[[], [[25, 26]]])
    assert "texts.1: range 0 is (25, 26): it holds no token" in answer["error"]["message"]
