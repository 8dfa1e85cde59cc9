"""The real clients of other services against a live server: the vectors that `Dewey` returns."""

import asyncio
import base64
import re
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest

from dewey_embed.serve import openai as endpoint

TEXTS = ["The tenant pays the rent.", "Ships carry timber.", "Who mends the roof? 東京 😀"]
QUERY = "who pays for the flat?"
CHUNKS = ["The tenant pays the rent.", "It is due on Mondays.", "Who mends the roof?"]
TEXT = "\n".join(CHUNKS)
SPANS = [(0, 25), (26, 47), (48, 67)]


def close(got, expected):
    np.testing.assert_allclose(np.array(got, np.float32), expected, atol=1e-5, rtol=0)


def within_int8(got, expected):
    """Whether vectors of int8 are those expected within their step."""
    step = np.abs(expected).max(axis=1, keepdims=True) / 127
    assert (np.abs(np.array(got) * step - expected) <= step).all()


@pytest.fixture
def cl100k(monkeypatch):
    """tiktoken's vocabulary, which a package of LlamaIndex carries."""
    core = find_spec("llama_index.core")
    folder = Path(core.origin).parent / "_static" / "tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


def test_openai(live_server, mini):
    from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

    url = f"{live_server}/v1"
    client = OpenAI(api_key="none", base_url=url, max_retries=0)
    name = client.models.list().data[0].id
    assert client.models.retrieve(name).id == name
    expected = mini.encode(TEXTS)
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = client.embeddings.create(model=name, input=TEXTS, **options)
        rows = [each.embedding for each in answer.data]
        if options.get("encoding_format") == "base64" and isinstance(rows[0], str):
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        close(rows, expected)
    assert answer.usage.prompt_tokens == sum(map(len, mini.tokenizer.encode(TEXTS)))
    answer = client.embeddings.create(model=name, input=TEXTS[0], dimensions=64)
    row = expected[0, :64]
    close(answer.data[0].embedding, row / np.linalg.norm(row))
    extra = {"late_chunking": True, "task": "retrieval.passage"}
    answer = client.embeddings.create(model=name, input=CHUNKS, extra_body=extra)
    close([each.embedding for each in answer.data], mini.encode_document(TEXT, spans=SPANS).chunks)
    with pytest.raises(NotFoundError, match="not served here"):
        client.embeddings.create(model="text-embedding-3-small", input="rent")
    with pytest.raises(BadRequestError, match=r"input\.1 is an empty string"):
        client.embeddings.create(model=name, input=["rent", ""])

    async def several():
        async with AsyncOpenAI(api_key="none", base_url=url) as client:
            calls = [client.embeddings.create(model=name, input=text) for text in TEXTS]
            return await asyncio.gather(*calls)

    close([each.data[0].embedding for each in asyncio.run(several())], expected)


def test_voyageai(live_server, mini):
    import voyageai

    client = voyageai.Client(api_key="none", base_url=f"{live_server}/v1")
    expected = mini.encode_document(TEXT, spans=SPANS)
    found = client.contextualized_embed([CHUNKS, TEXTS[1:2]], "mini", input_type="document")
    close(found.results[0].embeddings, expected.chunks)
    assert [len(each.embeddings) for each in found.results] == [3, 1]
    assert found.chunk_texts is None
    other = mini.encode_document(TEXTS[1])
    assert found.total_tokens == expected.num_tokens + other.num_tokens
    found = client.contextualized_embed(
        [CHUNKS], "mini", input_type="document", output_dtype="int8"
    )
    within_int8(found.results[0].embeddings, expected.chunks)
    for dtype in ("uint8", "binary", "ubinary"):
        found = client.contextualized_embed([CHUNKS], "mini", output_dtype=dtype)
        width = 384 if dtype == "uint8" else 48
        assert np.array(found.results[0].embeddings).shape == (3, width)
    found = client.contextualized_embed([QUERY], "mini", input_type="query", output_dimension=384)
    close(found.results[0].embeddings, mini.encode_query([QUERY]))
    found = client.contextualized_embed(
        [TEXT], "mini", input_type="document", enable_auto_chunking=True, chunk_size=8,
        chunk_overlap=0,
    )  # fmt: skip
    chunked = mini.encode_document(TEXT, chunk_tokens=8, chunk_overlap=0, splitter="sentences")
    close(found.results[0].embeddings, chunked.chunks)
    assert found.chunk_texts == [CHUNKS]
    assert found.chunker_version
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"inputs\.0\.1 is blank"):
        client.contextualized_embed([["rent", " "]], "mini")


def test_voyageai_embed(live_server, mini):
    import voyageai

    client = voyageai.Client(api_key="none", base_url=f"{live_server}/v1")
    found = client.embed(TEXTS, "mini", input_type="document")
    close(found.embeddings, mini.encode(TEXTS))
    assert found.total_tokens == sum(map(len, mini.tokenizer.encode(TEXTS)))
    close(client.embed([QUERY], "mini", input_type="query").embeddings, mini.encode_query([QUERY]))
    rows = mini.encode(TEXTS)[:, :64]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    close(client.embed(TEXTS, "mini", output_dimension=64).embeddings, rows)
    found = client.embed(TEXTS, "mini", output_dtype="int8", output_dimension=64)
    within_int8(found.embeddings, rows)
    for dtype, shift in (("binary", 128), ("ubinary", 0)):
        packed = np.array(client.embed(TEXTS, "mini", output_dtype=dtype).embeddings) + shift
        signs = np.unpackbits(packed.astype(np.uint8), axis=1)
        np.testing.assert_array_equal(signs, mini.encode(TEXTS) > 0)
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"input\.1 is an empty string"):
        client.embed(["rent", ""], "mini")


def test_perplexity(live_server, mini):
    from perplexity import NotFoundError, Perplexity

    client = Perplexity(api_key="none", base_url=live_server)
    # The client accepts names of Perplexity's models only; `extra_body` names the one served.
    name = {"model": "pplx-embed-context-v1-0.6b", "extra_body": {"model": "mini"}}
    expected = mini.encode_document(TEXT, spans=SPANS).chunks
    answer = client.contextualized_embeddings.create(input=[CHUNKS], **name)
    packed = [base64.b64decode(each.embedding) for each in answer.data[0].data]
    within_int8([np.frombuffer(row, np.int8) for row in packed], expected)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > 0
    answer = client.contextualized_embeddings.create(
        input=[CHUNKS], encoding_format="base64_binary", **name
    )
    packed = [base64.b64decode(each.embedding) for each in answer.data[0].data]
    bits = np.unpackbits([np.frombuffer(row, np.uint8) for row in packed], axis=1)
    np.testing.assert_array_equal(bits, expected > 0)
    name["model"] = "pplx-embed-v1-0.6b"
    answer = client.embeddings.create(input=TEXTS, encoding_format="base64_int8", **name)
    rows = [np.frombuffer(base64.b64decode(each.embedding), np.int8) for each in answer.data]
    within_int8(rows, mini.encode(TEXTS))
    with pytest.raises(NotFoundError, match="not served here"):
        client.embeddings.create(input=TEXTS, model="pplx-embed-v1-0.6b")


def test_cohere(live_server, mini):
    import cohere

    client = cohere.ClientV2(api_key="none", base_url=live_server)
    answer = client.embed(
        model="mini", input_type="search_document", texts=TEXTS, embedding_types=["float", "int8"]
    )
    expected = np.stack([each.vector for each in mini.encode_document(TEXTS)])
    close(answer.embeddings.float_, expected)
    within_int8(answer.embeddings.int8, expected)
    assert answer.texts == TEXTS
    total = sum(map(len, mini.tokenizer.encode(TEXTS)))
    assert answer.meta.billed_units.input_tokens == total
    answer = client.embed(model="mini", input_type="search_query", texts=[QUERY])
    close(answer.embeddings.float_, mini.encode_query([QUERY]))
    with pytest.raises(cohere.BadRequestError, match=r"texts\.0 is blank"):
        client.embed(model="mini", input_type="search_query", texts=[" "])
    with pytest.raises(cohere.NotFoundError):
        client.embed(model="embed-v4.0", input_type="search_query", texts=["rent"])


@pytest.mark.parametrize("token_ids", [True, False])
def test_langchain(live_server, mini, cl100k, token_ids):
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model="mini",
        base_url=f"{live_server}/v1",
        api_key="none",
        check_embedding_ctx_length=token_ids,
    )
    close(embeddings.embed_documents(TEXTS), mini.encode(TEXTS))
    close(embeddings.embed_query(QUERY), mini.encode(QUERY))


def test_token_ids_without_a_vocabulary_are_refused(live_server, tmp_path, monkeypatch, mini):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert endpoint.cl100k() is None
    for ids in ([1, 2], [[1, 2], [3]]):
        answer = httpx.post(f"{live_server}/v1/embeddings", json={"input": ids})
        assert answer.status_code == 400
        assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


@pytest.mark.parametrize("ids", [[100_256], [2**31 - 1], [1, 10**6]])
def test_token_ids_beyond_the_vocabulary_are_refused(live_server, cl100k, ids):
    answer = httpx.post(f"{live_server}/v1/embeddings", json={"input": ids})
    assert answer.status_code == 400, answer.text
    assert "cl100k does not have" in answer.json()["error"]["message"]


def test_llama_index(live_server, mini):
    from llama_index.embeddings.openai import OpenAIEmbedding

    embedding = OpenAIEmbedding(
        model_name="mini", api_base=f"{live_server}/v1", api_key="none", max_retries=0
    )
    close(embedding.get_text_embedding_batch(TEXTS), mini.encode(TEXTS))
    close(embedding.get_query_embedding(QUERY), mini.encode(QUERY))


def test_hugging_face_inference_client(live_server, mini):
    from huggingface_hub import InferenceClient

    for url in (live_server, f"{live_server}/embed"):
        client = InferenceClient(model=url)
        close(client.feature_extraction(TEXTS), mini.encode(TEXTS))
        found = client.feature_extraction(
            QUERY, prompt_name="query", normalize=True, truncate=True, truncation_direction="left"
        )
        close(found, mini.encode_query([QUERY]))
    client = InferenceClient(model=f"{live_server}/similarity")
    got = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    rows = mini.encode(TEXTS)
    close(got, rows[1:] @ rows[0])


def test_the_client_of_the_readme_gets_its_vector(repository, live_server, mini) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    [snippet] = [each for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
                 if "base_url" in each]  # fmt: skip
    names: dict[str, object] = {}
    exec(snippet.replace("http://127.0.0.1:8080", live_server), names)
    assert names["vector"] == pytest.approx(mini.encode("Moths eat wool."), abs=1e-5)
