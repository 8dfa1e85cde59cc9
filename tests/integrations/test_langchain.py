"""LangChain: complete documents in, passages with their place out, as langchain-core calls it."""

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index

from dewey_embed import Index
from dewey_embed.errors import ConfigError, InputError
from dewey_embed.integrations.langchain import DeweyEmbeddings, DeweyVectorStore
from tests.integrations.conftest import LONG, TEXT, same

LEASE = "The tenant pays the rent monthly. " * 12 + "Dogs need the owner's consent. " * 12


@pytest.fixture(scope="module")
def embeddings(model):
    return DeweyEmbeddings(model)


@pytest.fixture(scope="module")
def store(embeddings):
    """A store that the tests only read."""
    documents = [
        Document(id="lease", page_content=LEASE, metadata={"title": "Lease of a flat", "year": 1}),
        Document(id="moth", page_content="Moths eat wool.", metadata={"source": "a.txt"}),
        Document(id="iron", page_content=TEXT, metadata={"year": 3}),
    ]
    return DeweyVectorStore.from_documents(documents, embeddings)


def test_texts_and_queries_have_the_encoders_own_vectors(embeddings, model):
    texts = ["Moths eat wool.", TEXT]
    same(embeddings.embed_documents(texts), model.encode(texts))
    same(embeddings.embed_query("what eats wool?"), model.encode_query("what eats wool?"))
    assert embeddings.embed_documents([]) == []


def test_a_text_longer_than_the_model_is_read_to_its_end(model):
    short = DeweyEmbeddings(type(model).load(max_tokens=64))
    same_start, other = short.embed_documents([LONG + "Moths eat wool.", LONG + "Ships sail."])
    assert np.abs(np.subtract(same_start, other)).max() > 1e-3


def test_passages_say_where_they_stand_in_their_document(store):
    passages = store.similarity_search("may I keep a dog?", k=3)
    best = passages[0]
    place = best.metadata
    assert place["document_id"] == "lease"
    assert LEASE[place["char_start"] : place["char_end"]] == best.page_content
    assert "Dogs" in best.page_content
    assert place["title"] == "Lease of a flat"
    assert 0 < place["score"] <= 1
    assert 0 < place["probability"] <= 1
    assert len({each.id for each in passages}) == 3
    assert store.get_by_ids([best.id])[0].page_content == best.page_content


def test_a_passage_is_scored_with_what_its_document_says(store, embeddings, tmp_path):
    alone = DeweyVectorStore(tmp_path / "chunks.index", embedding=embeddings)
    alone.add_texts(["Both parents carry the gene."])
    query = "is aceruloplasminemia inherited from the parents?"
    [(_, lonely)] = alone.similarity_search_with_score(query, k=1)
    [(passage, score)] = store.similarity_search_with_score(query, k=1)
    assert passage.metadata["document_id"] == "iron"
    assert score > lonely


def test_pages_and_headings_of_indexed_files_are_metadata(embeddings, tmp_path):
    (tmp_path / "lease.md").write_text("# Lease\n\n## Pets\n\nDogs need the owner's consent.\n")
    made = Index.open(tmp_path / "my.index", embeddings.model)
    made.add_files(tmp_path / "lease.md")
    [found] = DeweyVectorStore(made).similarity_search("dogs", k=1)
    assert found.metadata["headings"] == ["Lease", "Pets"]
    assert found.metadata["source"].endswith("lease.md")
    assert (found.metadata["line"], found.metadata["last_line"]) == (1, 5)


def test_a_retriever_takes_k_a_filter_and_a_threshold(store):
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"year": {">=": 2}}})
    assert {each.metadata["document_id"] for each in retriever.invoke("rent")} == {"iron"}
    strict = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"k": 5, "score_threshold": 0.99}
    )
    assert strict.invoke("rent") == []


def test_metadata_come_back_with_the_document(store):
    [found] = store.get_by_ids(["moth"])
    assert found == Document(
        id="moth", page_content="Moths eat wool.", metadata={"source": "a.txt"}
    )


def test_a_store_on_disk_is_found_again_and_changed(embeddings, tmp_path):
    path = tmp_path / "my.index"
    first = DeweyVectorStore.from_texts(["Moths eat wool."], embeddings, ids=["moth"], index=path)
    assert first.add_texts(["Moths eat silk."], ids=["moth"]) == ["moth"]
    again = DeweyVectorStore(path)
    [found] = again.similarity_search("what do moths eat?")
    assert found.page_content == "Moths eat silk."
    assert again.delete(["moth", "lion"]) is False
    assert again.similarity_search("what do moths eat?") == []
    assert again.delete() is True


def test_a_store_opened_before_its_index_was_made_sees_it(embeddings, tmp_path):
    early = DeweyVectorStore(tmp_path / "my.index")
    assert early.similarity_search("wool") == []
    DeweyVectorStore(tmp_path / "my.index", embedding=embeddings).add_texts(["Moths eat wool."])
    assert len(early.similarity_search("wool")) == 1


def test_a_document_without_an_id_is_not_added_twice(embeddings, tmp_path):
    made = DeweyVectorStore(tmp_path / "my.index", embedding=embeddings)
    document = Document(page_content="Moths eat wool.", metadata={"year": 1})
    assert made.add_documents([document]) == made.add_documents([document])
    assert len(made.index) == 1


def test_langchains_indexing_skips_what_is_there_and_removes_what_is_gone(embeddings, tmp_path):
    made = DeweyVectorStore(tmp_path / "my.index", embedding=embeddings)
    manager = InMemoryRecordManager("test")
    manager.create_schema()
    moth = Document(page_content="Moths eat wool.", metadata={"source": "moth.txt"})
    lion = Document(page_content="Lions eat meat.", metadata={"source": "lion.txt"})

    def run(documents):
        return index(
            documents, manager, made, cleanup="full", source_id_key="source", key_encoder="sha256"
        )

    assert run([moth, lion])["num_added"] == 2
    done = run([moth])
    assert (done["num_skipped"], done["num_deleted"], len(made.index)) == (1, 1, 1)


def test_other_embeddings_are_refused_for_they_read_chunks_alone():
    with pytest.raises(ConfigError, match="DeterministicFakeEmbedding, which reads each chunk"):
        DeweyVectorStore.from_texts(["Moths."], DeterministicFakeEmbedding(size=3))


def test_ids_that_do_not_match_the_documents_are_refused(store):
    with pytest.raises(InputError, match="2 ids for 1 documents"):
        store.add_documents([Document(page_content="Moths.")], ids=["a", "b"])


def test_nested_metadata_are_refused_by_name(store):
    with pytest.raises(TypeError, match="metadata 'boxes' is list"):
        store.add_documents([Document(id="x", page_content="x", metadata={"boxes": [1]})])


def test_options_beside_an_index_are_refused(store):
    with pytest.raises(ConfigError, match="has its model and options already"):
        DeweyVectorStore(store.index, chunk_tokens=128)
