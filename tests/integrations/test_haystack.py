"""Haystack: components in real pipelines, written to YAML and read again."""

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.errors import SerializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy

from dewey_embed import Dewey
from dewey_embed.errors import InputError, TextTooLongError
from dewey_embed.integrations.haystack import DeweyDocumentEmbedder, DeweyTextEmbedder
from tests.integrations.conftest import LONG, TEXT, same


def halves(text):
    return [(0, len(text) // 2), (len(text) // 2, len(text))]


@pytest.fixture(scope="module")
def embedder(model):
    return DeweyDocumentEmbedder(model, splitter="sentence")


def run(embedder, *documents):
    return embedder.run(list(documents))["documents"]


def test_chunks_have_the_vectors_of_one_pass_over_their_document(embedder, sentences, model):
    spans, vectors = sentences
    chunks = run(embedder, Document(content="Moths eat wool."), Document(content=TEXT, id="iron"))
    own = [chunk for chunk in chunks if chunk.meta["source_id"] == "iron"]
    same([chunk.embedding for chunk in own], vectors)
    same(vectors, model.encode_document(TEXT, spans=spans).chunks)
    alone = model.encode([chunk.content for chunk in own])
    assert (np.linalg.norm(vectors - alone, axis=1) > 0.1).all()


def test_chunks_say_where_they_stand(embedder, sentences):
    text = f"{TEXT}\fMoths eat wool."
    chunks = run(embedder, Document(content=text, id="iron", meta={"year": 1}))
    for number, chunk in enumerate(chunks):
        meta = chunk.meta
        assert text[meta["split_idx_start"] : meta["split_idx_end"]] == chunk.content
        assert (meta["source_id"], meta["split_id"], meta["year"]) == ("iron", number, 1)
    assert [chunk.meta["page_number"] for chunk in chunks] == [1] * 5 + [2]


def test_ids_do_not_depend_on_the_vectors(model, embedder):
    document = Document(content=TEXT, id="iron", meta={"title": "Iron"})
    titled = DeweyDocumentEmbedder(model, splitter="sentence", title_weight=1)
    chunks, others = run(embedder, document), run(titled, document)
    assert [chunk.id for chunk in chunks] == [chunk.id for chunk in others]
    assert chunks[0].embedding != others[0].embedding
    expected = np.array(chunks[0].embedding) + model.encode("Iron")
    same(others[0].embedding, expected / np.linalg.norm(expected))


def test_pipelines_write_and_find_chunks_after_a_round_trip_through_yaml(tmp_path):
    narrow = Dewey.load(truncate_dim=64)
    store = InMemoryDocumentStore()
    writing = Pipeline()
    writing.add_component("embedder", DeweyDocumentEmbedder(narrow, splitter="sentence"))
    writing.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    writing.connect("embedder", "writer")
    documents = [Document(content=TEXT, id="iron"), Document(content="Moths eat wool.")]
    assert writing.run({"embedder": {"documents": documents}})["writer"]["documents_written"] == 6

    searching = Pipeline()
    searching.add_component("embedder", DeweyTextEmbedder(narrow))
    searching.add_component(
        "retriever", InMemoryEmbeddingRetriever(store, top_k=1, return_embedding=True)
    )
    searching.connect("embedder.embedding", "retriever.query_embedding")
    modules = ["dewey_embed.integrations.haystack"]
    again = Pipeline.loads(searching.dumps(), allowed_modules=modules)
    again.get_component("retriever").document_store = store
    [found] = again.run({"embedder": {"text": "who has the gene?"}})["retriever"]["documents"]
    assert found.content == "Both parents carry the gene."
    expected = narrow.encode_query("who has the gene?") @ np.array(found.embedding)
    assert found.score == pytest.approx(expected, abs=1e-5)


def test_the_embedder_comes_back_from_its_description(model):
    description = DeweyDocumentEmbedder(splitter="sentence", window=512, title_weight=1).to_dict()
    again = DeweyDocumentEmbedder.from_dict(description)
    assert again.to_dict() == description
    again.warm_up()
    document = Document(content=TEXT, meta={"title": "Iron"})
    same(
        run(again, document)[3].embedding,
        run(DeweyDocumentEmbedder(model, splitter="sentence", title_weight=1), document)[
            3
        ].embedding,
    )


def test_a_splitter_that_is_a_function_is_written_by_its_name(model):
    splitting = DeweyDocumentEmbedder(model, splitter=halves)
    assert len(run(splitting, Document(content=TEXT))) == 2
    named = splitting.to_dict()["init_parameters"]["splitter"]
    assert named == {"function": f"{__name__}.halves"}
    with pytest.raises(SerializationError):
        DeweyDocumentEmbedder(model, splitter=lambda text: [(0, len(text))]).to_dict()


def test_a_long_document_is_read_in_windows_and_a_cut_one_is_named():
    short = Dewey.load(max_tokens=64)
    document = Document(content=LONG)
    chunks = run(DeweyDocumentEmbedder(short, chunk_tokens=32, chunk_overlap=0), document)
    assert chunks[-1].meta["split_idx_end"] == len(LONG.rstrip())
    with pytest.warns(UserWarning, match=r"1 of 1 documents .* their ends were left out"):
        run(DeweyDocumentEmbedder(short, overflow="truncate"), document)
    with pytest.raises(TextTooLongError):
        DeweyTextEmbedder(short).run(LONG)


def test_a_document_without_text_is_refused_by_name(embedder):
    with pytest.raises(InputError, match=r"1 of 2 documents have no text \(\['photo'\]\)"):
        run(embedder, Document(content="Moths."), Document(id="photo"))
    assert run(embedder) == []


def test_the_wrong_kind_of_input_is_refused_with_the_component_that_takes_it(embedder, model):
    with pytest.raises(TypeError, match="goes to DeweyTextEmbedder"):
        embedder.run("who has the gene?")
    with pytest.raises(TypeError, match="documents go to DeweyDocumentEmbedder"):
        DeweyTextEmbedder(model).run([Document(content="Moths.")])
