"""LlamaIndex: nodes embedded in one pass over their document, in its pipelines and indexes."""

import asyncio
import pickle

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.schema import Document, MetadataMode, NodeRelationship, TextNode

from dewey_embed import Dewey, Index
from dewey_embed.errors import ConfigError
from dewey_embed.integrations.llama_index import DeweyEmbedding, DeweyNodeParser, DeweyRetriever
from tests.integrations.conftest import LONG, TEXT, same


def halves(text):
    return [(0, len(text) // 2), (len(text) // 2, len(text))]


@pytest.fixture(scope="module")
def parser(model):
    return DeweyNodeParser(model, splitter="sentence")


@pytest.fixture(scope="module")
def nodes(parser):
    documents = [
        Document(text=TEXT, id_="iron", metadata={"title": "Iron"}),
        Document(text="Moths eat wool. Lions eat meat.", id_="moth"),
    ]
    return parser.get_nodes_from_documents(documents)


def test_nodes_have_the_vectors_of_one_pass_over_their_document(nodes, sentences, model):
    spans, vectors = sentences
    same([node.embedding for node in nodes[: len(spans)]], vectors)
    same(vectors, model.encode_document(TEXT, spans=spans).chunks)
    alone = model.encode([TEXT[start:end] for start, end in spans])
    assert (np.linalg.norm(vectors - alone, axis=1) > 0.1).all()


def test_a_pipeline_may_wait_for_the_pass(parser, sentences):
    pipeline = IngestionPipeline(transformations=[parser], disable_cache=True)
    nodes = asyncio.run(pipeline.arun(documents=[Document(text=TEXT)]))
    same([node.embedding for node in nodes], sentences[1])


def test_offsets_are_exact_where_a_text_comes_twice(nodes, sentences):
    spans, _ = sentences
    own = [node for node in nodes if node.ref_doc_id == "iron"]
    assert [(node.start_char_idx, node.end_char_idx) for node in own] == spans
    for node in own:
        assert TEXT[node.start_char_idx : node.end_char_idx] == node.get_content()
    [first, second] = [node for node in own if node.text.startswith("It begins in adulthood")]
    assert first.end_char_idx < second.start_char_idx


def test_nodes_know_their_document_and_neighbours(nodes):
    own = [node for node in nodes if node.ref_doc_id == "iron"]
    assert own[0].metadata == {"title": "Iron"}
    assert own[0].next_node.node_id == own[1].node_id
    assert own[1].prev_node.node_id == own[0].node_id
    assert own[-1].next_node is None
    assert NodeRelationship.PREVIOUS not in nodes[len(own)].relationships


def test_an_index_of_llama_index_finds_nodes_without_embedding_them_again(model, parser):
    class OnlyQueries(DeweyEmbedding):
        def _get_text_embeddings(self, texts):
            assert texts == []
            return []

    index = VectorStoreIndex.from_documents(
        [Document(text=TEXT, id_="iron"), Document(text="Moths eat wool.", id_="moth")],
        transformations=[parser],
        embed_model=OnlyQueries(model),
    )
    [found] = index.as_retriever(similarity_top_k=1).retrieve("who has the gene?")
    assert found.node.get_content() == "Both parents carry the gene."
    assert found.node.ref_doc_id == "iron"
    expected = model.encode_query("who has the gene?") @ np.array(parser([
        Document(text=TEXT)])[-1].embedding)  # fmt: skip
    assert found.score == pytest.approx(expected, abs=1e-5)


def test_a_pipelines_cache_serves_the_same_settings_only(model):
    cache = IngestionCache()
    document = Document(text=TEXT, id_="iron")

    def run(**fields):
        parser = DeweyNodeParser(model, **fields)
        return IngestionPipeline(transformations=[parser], cache=cache).run(documents=[document])

    first = run(splitter=halves)
    assert [node.node_id for node in run(splitter=halves)] == [node.node_id for node in first]
    assert len(first) == 2
    assert len(run(splitter="sentence")) == 5
    assert first[0].embedding is not None


def test_the_parser_and_the_embedding_reach_other_processes_and_come_back():
    narrow = Dewey.load(truncate_dim=64)
    parser = DeweyNodeParser(narrow, splitter="sentence", title_weight=0.5)
    again = pickle.loads(pickle.dumps(parser))
    document = Document(text=TEXT, metadata={"title": "Iron"})
    same(again([document])[2].embedding, parser([document])[2].embedding)
    embedding = DeweyEmbedding.from_dict(DeweyEmbedding(narrow).to_dict())
    same(embedding.get_query_embedding("iron"), narrow.encode_query("iron"))
    assert again.fingerprint == embedding.fingerprint == narrow.fingerprint


def test_texts_and_queries_have_the_encoders_own_vectors(model):
    embedding = DeweyEmbedding(model)
    same(embedding.get_text_embedding_batch([TEXT, "Moths"]), model.encode([TEXT, "Moths"]))
    same(embedding.get_query_embedding("iron"), model.encode_query("iron"))
    same(asyncio.run(embedding.aget_query_embedding("iron")), model.encode_query("iron"))
    same(asyncio.run(embedding.aget_text_embedding("iron")), model.encode("iron"))


def test_a_title_is_added_to_the_nodes_vectors(model, sentences):
    parser = DeweyNodeParser(model, splitter="sentence", title_weight=0.5)
    nodes = parser([Document(text=TEXT, metadata={"title": "Iron"}), Document(text=TEXT)])
    expected = sentences[1] + 0.5 * model.encode("Iron")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    same([node.embedding for node in nodes[:5]], expected)
    same([node.embedding for node in nodes[5:]], sentences[1])


def test_a_long_document_is_read_in_windows_and_a_cut_one_is_named():
    short = Dewey.load(max_tokens=64)
    document = Document(text=LONG)
    nodes = DeweyNodeParser(short, chunk_tokens=32, chunk_overlap=0)([document])
    assert nodes[-1].end_char_idx == len(LONG.rstrip())
    with pytest.warns(UserWarning, match=r"1 of 1 documents .* their ends were left out"):
        DeweyNodeParser(short, overflow="truncate")([document])


def test_a_blank_document_has_no_nodes_and_a_warning(parser):
    with pytest.warns(UserWarning, match="1 of 2 texts hold no token"):
        nodes = parser([Document(text=" "), Document(text="Moths eat wool.")])
    assert [node.text for node in nodes] == ["Moths eat wool."]


def test_a_negative_weight_is_refused(model):
    with pytest.raises(ConfigError, match="title_weight is -1"):
        DeweyNodeParser(model, title_weight=-1)([Document(text="Moths.")])


def test_the_retriever_returns_passages_of_an_index(model, tmp_path):
    retriever = DeweyRetriever(Index.open(tmp_path / "my.index", model), similarity_top_k=2)
    lease = "The tenant pays the rent monthly. " * 12 + "Dogs need the owner's consent. " * 12
    documents = [
        Document(text=lease, id_="lease", metadata={"title": "Lease", "year": 1}),
        Document(text="Moths eat wool.", id_="moth", metadata={"year": 2}),
    ]
    assert retriever.add_documents(documents) == ["lease", "moth"]
    found = retriever.retrieve("may I keep a dog?")
    node = found[0].node
    assert isinstance(node, TextNode)
    assert node.ref_doc_id == "lease"
    assert lease[node.start_char_idx : node.end_char_idx] == node.text
    assert found[0].score == node.metadata["score"] >= found[1].score
    assert node.get_content(MetadataMode.LLM) == f"title: Lease\nyear: 1\n\n{node.text}"
    assert asyncio.run(retriever.aretrieve("may I keep a dog?")) == found
    filtered = DeweyRetriever(retriever.index, filter={"year": 2})
    assert {each.node.ref_doc_id for each in filtered.retrieve("rent")} == {"moth"}
