"""Ways to store vectors: bytes by formula, scores as the encoder's, clusters, the front."""

import dataclasses

import numpy as np
import pytest

from dewey_embed.errors import ConfigError
from dewey_embed.eval.audits.storage import (
    CorpusVectors,
    StorageChoices,
    StorageCost,
    StorageVariant,
    StoredVectors,
    cluster_centres,
    flat_index,
    pareto_front,
)
from dewey_embed.eval.vector_cache import ChunkSize
from dewey_embed.quantization import to_precision, to_unit_float
from dewey_embed.scoring import similarity
from dewey_embed.types import DocumentVectors

PRECISIONS = ("float32", "float16", "int8", "binary")
WIDTH = 100


def unit(random, *shape):
    vectors = random.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def queries(random):
    return unit(random, 300, WIDTH)


@pytest.fixture(scope="module")
def documents(random):
    """Documents of 0 to 30 chunks."""
    return [
        DocumentVectors(
            vector=unit(random, WIDTH), chunks=unit(random, num, WIDTH), spans=[], num_tokens=1,
            used_tokens=1,
        )
        for num in (5, 0, 30, 1, 12, 7)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(documents):
    whole = np.stack([each.vector for each in documents])
    return CorpusVectors.of(whole, [each.chunks for each in documents])


def converted(documents, precision, dim):
    """The documents as `encode_document` would have given them, truncated and at a precision."""

    def narrowed(vectors):
        return to_precision(to_unit_float(vectors[..., :dim], dim), precision)

    return [
        dataclasses.replace(each, vector=narrowed(each.vector), chunks=narrowed(each.chunks))
        for each in documents
    ]


class TestScores:
    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("dim", [WIDTH, 60])
    def test_scores_are_those_of_the_encoder(self, queries, documents, corpus, precision, dim):
        asked = to_unit_float(queries[:, :dim], dim)
        theirs = converted(documents, precision, dim)
        ours = StoredVectors(corpus, precision, dim).scores(queries)
        assert np.allclose(ours, similarity(asked, theirs, dim, mode="multi"), atol=1e-5)
        single = StoredVectors(CorpusVectors.of(corpus.documents), precision, dim).scores(queries)
        assert np.allclose(single, similarity(asked, theirs, dim, mode="single"), atol=1e-5)

    def test_as_many_clusters_as_chunks_are_exactly_the_chunks(self, queries, documents, corpus):
        kept = CorpusVectors.of(
            corpus.documents, [cluster_centres(each.chunks, 30) for each in documents]
        )
        ours, theirs = (
            StoredVectors(kept, "float32", WIDTH),
            StoredVectors(corpus, "float32", WIDTH),
        )
        assert np.array_equal(ours.scores(queries), theirs.scores(queries))

    def test_a_corpus_without_any_chunk_is_compared_by_its_documents(self, queries, corpus):
        empty = CorpusVectors.of(corpus.documents, [corpus.chunks[:0]] * len(corpus.documents))
        ours = StoredVectors(empty, "float32", WIDTH).scores(queries)
        assert np.allclose(ours, queries @ corpus.documents.T, atol=1e-6)


class TestBytes:
    @pytest.mark.parametrize(
        ("precision", "a_vector"),
        [("float32", 4 * WIDTH), ("float16", 2 * WIDTH), ("int8", WIDTH), ("binary", 13)],
    )
    def test_bytes_are_those_of_every_vector(self, corpus, precision, a_vector):
        stored = StoredVectors(corpus, precision, WIDTH)
        assert stored.num_vectors == 5 + 30 + 1 + 12 + 7 + 6
        assert stored.num_bytes == a_vector * stored.num_vectors
        alone = StoredVectors(CorpusVectors.of(corpus.documents), precision, WIDTH)
        assert alone.num_bytes == a_vector * 6

    def test_half_the_width_is_half_the_bytes(self, corpus):
        assert (
            StoredVectors(corpus, "float32", 50).num_bytes * 2
            == StoredVectors(corpus, "float32", 100).num_bytes
        )


class TestSearch:
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_what_is_timed_finds_the_nearest_at_that_precision(self, random, precision):
        vectors = unit(random, 500, WIDTH)
        codes = to_precision(vectors, precision)
        index = flat_index(codes, precision, WIDTH)
        asked = np.pad(vectors[:20], ((0, 0), (0, index.d - WIDTH)))
        result = index.search(asked, 1)[1][:, 0]
        assert np.array_equal(result, np.arange(20))
        products, rows = index.search(asked[:1], 500)
        exact = vectors[0] @ to_unit_float(codes, WIDTH)[rows[0]].T
        assert np.corrcoef(products[0], exact)[0, 1] > 0.99

    def test_the_index_holds_the_bytes_that_are_counted(self, corpus):
        for precision in PRECISIONS:
            stored = StoredVectors(corpus, precision, WIDTH)
            index = flat_index(stored.codes, precision, WIDTH)
            assert index.sa_code_size() * index.ntotal == stored.num_bytes

    def test_seconds_are_those_of_something(self, queries, corpus):
        assert 0 < StoredVectors(corpus, "int8", WIDTH).seconds(queries[:5]) < 1


class TestClusters:
    def test_one_is_the_mean_direction(self, random):
        chunks = unit(random, 40, WIDTH)
        mean = chunks.sum(0) / np.linalg.norm(chunks.sum(0))
        assert np.allclose(cluster_centres(chunks, 1), mean[None], atol=1e-5)

    def test_two_far_groups_are_found(self, random):
        poles = unit(random, 2, WIDTH)
        chunks = np.repeat(poles, 20, axis=0) + 0.01 * random.normal(size=(40, WIDTH))
        chunks = (chunks / np.linalg.norm(chunks, axis=1, keepdims=True)).astype(np.float32)
        result = cluster_centres(chunks, 2)
        assert np.allclose(np.linalg.norm(result, axis=1), 1, atol=1e-5)
        assert sorted((result @ poles.T).argmax(1)) == [0, 1]
        assert (result @ poles.T).max(1).min() > 0.99

    def test_the_same_chunks_give_the_same_clusters(self, random):
        chunks = unit(random, 40, WIDTH)
        assert np.array_equal(cluster_centres(chunks, 8), cluster_centres(chunks, 8))

    def test_few_chunks_are_kept(self, random):
        chunks = unit(random, 3, WIDTH)
        assert cluster_centres(chunks, 4) is chunks
        assert len(cluster_centres(chunks[:0], 4)) == 0


def point(num_bytes, ndcg):
    return StorageCost(
        variant=StorageVariant(precision="float32", dim=4),
        ndcg_scores=np.array([ndcg]), recall=ndcg, num_vectors=1, num_bytes=num_bytes, seconds=1.0,
    )  # fmt: skip


class TestFront:
    def test_of_known_points(self):
        known = [(4, 0.4), (1, 0.1), (2, 0.3), (3, 0.3), (3, 0.2), (5, 0.4), (6, 0.9), (1, 0.05)]
        result = pareto_front([point(*each) for each in known])
        assert [(each.num_bytes, each.ndcg) for each in result] == [
            (1, 0.1), (2, 0.3), (4, 0.4), (6, 0.9),
        ]  # fmt: skip

    def test_equal_points_are_all_on_it(self):
        assert len(pareto_front([point(1, 0.5), point(1, 0.5), point(2, 0.5)])) == 2

    def test_without_variants_the_front_is_empty(self):
        assert pareto_front([]) == []


class TestVariants:
    def test_other_overlaps_are_tried_at_full_precision_only(self):
        tried = StorageChoices(clusters=(2, 1), dims=(384, 64)).variants(384)
        assert len(tried) == len(set(tried)) == 2 * 4 * (1 + 2 + 5) + 10
        assert {each.size.overlap for each in tried if each.precision == "int8" and each.size} == {
            0.25
        }
        assert tried[0] == StorageVariant(precision="float32", dim=384)

    def test_clusters_are_of_the_usual_chunks_or_the_smallest(self):
        assert StorageChoices().base == ChunkSize(128, 0.25)
        assert StorageChoices(chunk_tokens=(512, 64), overlaps=(0.5,)).base == ChunkSize(64, 0.5)

    @pytest.mark.parametrize(("width", "tried"), [
        (384, (384, 256, 128, 64)), (2048, (2048, 1024, 512, 256, 128, 64)), (32, (32,)),
    ])  # fmt: skip
    def test_widths_are_the_models_and_powers_of_two(self, width, tried):
        assert StorageChoices().widths(width) == tried

    def test_names_say_what_differs_from_the_usual_overlap(self):
        variants = [
            StorageVariant(clusters=clusters, size=size, precision=precision, dim=64)
            for kind, clusters, size, precision in (
                ("single", None, None, "int8"),
                ("clustered", 1, ChunkSize(64, 0.25), "int8"),
                ("multi", None, ChunkSize(64, 0.25), "binary"),
                ("multi", None, ChunkSize(64, 0.5), "binary"),
            )
        ]
        assert [variant.name for variant in variants] == [
            "1 vector, int8, 64", "1 cluster, int8, 64", "chunks 64, binary, 64",
            "chunks 64/32, binary, 64",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("choices", "words"),
        [
            ({"chunk_tokens": ()}, "chunk_tokens is empty"),
            ({"precisions": ("float64",)}, "precision float64 is unknown; accepted: float32"),
            ({"clusters": (0, 2)}, r"clusters are \[0, 2\]; need at least 1"),
        ],
    )
    def test_what_cannot_be_tried_is_refused(self, choices, words):
        with pytest.raises(ConfigError, match=words):
            StorageChoices(**choices)

    def test_a_width_that_vectors_do_not_have_is_refused(self):
        with pytest.raises(ConfigError, match=r"dims are \[500\]; .* have 384 dimensions"):
            StorageChoices(dims=(500,)).widths(384)
