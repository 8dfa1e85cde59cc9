"""Ranking all chunks: how each is read, what is kept, samples, and what is refused."""

import json

import numpy as np
import pytest

from dewey_embed.cli.evaluate import evaluate as command
from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.chunk_task import ChunkSearch, PeerChunks
from dewey_embed.eval.chunk_vectors import (
    CHUNK_CONTEXTS,
    TITLE_WEIGHT,
    ChunkVectorCache,
    with_titles,
)
from dewey_embed.eval.models import EvaluatedModel, open_models
from dewey_embed.eval.passages import ChunkedDocument, read_passages
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.run import evaluate
from dewey_embed.eval.suites import open_chunks, open_suite
from dewey_embed.types import DocumentVectors

RENT = "The rent is paid on the first of May."
HEATING = "The heating is repaired within two days."
LEASES = {"oak": "Oak Street", "elm": "Elm Street", "ash": "Ash Street"}


def write_leases(folder, *, titles=LEASES, in_text=True, more_chunks=(), more_queries=()):
    """Leases with the same two sections; a query for the first of each.

    The titles stand in the records, and above the texts if `in_text`.
    """
    folder.mkdir(parents=True)
    documents, chunks, queries, qrels = [], [], [], []
    for name, title in titles.items():
        text = f"{title}\n\n" * in_text + f"{RENT}\n{HEATING}\n  \n"
        documents.append({"_id": name, "title": title, "text": text})
        for number, section in enumerate((RENT, HEATING)):
            start = text.index(section)
            place = {"doc": name, "start": start, "end": start + len(section)}
            chunks.append({"_id": f"{name}:{number}", **place})
        queries.append({"_id": f"{name}?", "text": f"When is the rent of {title} paid?"})
        qrels.append(f"{name}?\t{name}:0\t1")
    for file, rows in (
        ("documents", documents),
        ("chunks", [*chunks, *more_chunks]),
        ("queries", [*queries, *more_queries]),
    ):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels.tsv").write_text("\n".join(qrels) + "\n")
    return folder


@pytest.fixture(scope="module")
def mini():
    return Dewey.load(device="cpu")


@pytest.fixture
def leases(tmp_path):
    return write_leases(tmp_path / "leases")


def document_of(folder, name="oak"):
    return read_passages(folder).by_document()[name][1]


class TestReading:
    def test_alone_titled_and_in_context_are_what_one_call_of_the_model_gives(
        self, mini, leases, tmp_path
    ):
        cache, document = ChunkVectorCache(mini, tmp_path / "cache"), document_of(leases)
        expected = {
            "alone": mini.encode_document([RENT, HEATING]),
            "titled": mini.encode_document([f"Oak Street {RENT}", f"Oak Street {HEATING}"]),
        }
        for context, encoded in expected.items():
            [vectors] = cache.vectors([document], context)
            assert np.allclose(vectors, [each.chunks[0] for each in encoded], atol=1e-3)
        [vectors] = cache.vectors([document], "in-context")
        encoded = mini.encode_document(document.text, spans=document.spans)
        assert np.allclose(vectors, encoded.chunks, atol=1e-3)

    def test_a_chunk_that_is_its_document_has_no_context(self, mini, tmp_path):
        whole = ChunkedDocument(title="", text=RENT, spans=[(0, len(RENT))])
        cache = ChunkVectorCache(mini, tmp_path)
        first, *others = (cache.vectors([whole], context)[0] for context in CHUNK_CONTEXTS)
        for other in others:
            assert np.array_equal(first, other)

    def test_the_vector_of_the_title_is_added_with_its_weight(self, mini, leases, tmp_path):
        cache, document = ChunkVectorCache(mini, tmp_path / "cache"), document_of(leases)
        [plain] = cache.vectors([document], "in-context")
        [added] = cache.vectors([document], "in-context+title")
        rows = plain + TITLE_WEIGHT * mini.encode_document("Oak Street").vector
        assert np.allclose(added, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)

    def test_a_first_line_is_a_title_that_is_not_read_twice(self, mini, tmp_path):
        text = f"Oak Street\n\n{RENT}"
        spans = [(0, 10), (0, len(text)), (12, len(text))]
        document = ChunkedDocument(title="Oak Street", text=text, spans=spans)
        [titled] = ChunkVectorCache(mini, tmp_path).vectors([document], "titled")
        read = ["Oak Street", text, f"Oak Street {RENT}"]
        assert np.allclose(titled, [e.chunks[0] for e in mini.encode_document(read)], atol=1e-6)

    def test_under_title_the_title_is_read_above_the_pass(self, mini, tmp_path):
        text = f"The lease.\n{RENT}"
        document = ChunkedDocument(title="Oak Street", text=text, spans=[(11, len(text))])
        cache = ChunkVectorCache(mini, tmp_path)
        [plain], [under] = (cache.vectors([document], way) for way in ("in-context", "under-title"))
        expected = mini.encode_document(text, spans=document.spans, titles="Oak Street").chunks
        assert np.allclose(under, expected, atol=1e-6)
        assert not np.allclose(under, plain, atol=1e-3)

    @pytest.mark.parametrize("title", ["", " ", "\u200b"])
    def test_without_a_title_nothing_is_added(self, mini, title):
        document = ChunkedDocument(title=title, text=RENT, spans=[(0, len(RENT))])
        chunks = [np.eye(1, mini.embedding_dim, dtype=np.float32)]
        [added] = with_titles(mini, [document], chunks, 1.0)
        assert np.array_equal(added, chunks[0])

    def test_a_chunk_without_a_token_has_zeros_however_it_is_read(self, mini, leases, tmp_path):
        document = document_of(leases)
        blank = (len(document.text) - 3, len(document.text))
        document = ChunkedDocument(
            title=document.title, text=document.text, spans=[blank, *document.spans]
        )
        cache = ChunkVectorCache(mini, tmp_path / "cache")
        for context in CHUNK_CONTEXTS:
            with pytest.warns(UserWarning, match="1 chunks hold no token"):
                [vectors] = cache.vectors([document], context)
            assert not vectors[0].any()
            assert np.allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-5)

    def test_a_window_bounds_what_a_chunk_knows(self, mini, tmp_path):
        """Words far away change a chunk in one pass, and none in windows that do not reach them."""
        far = "word " * 60
        texts = [f"{first} {far}{RENT}" for first in ("Oak Street.", "Elm Street.")]
        documents = [
            ChunkedDocument(title="", text=text, spans=[(text.index(RENT), len(text))])
            for text in texts
        ]
        one_pass = ChunkVectorCache(mini, tmp_path)
        windows = ChunkVectorCache(mini, tmp_path, window=32)
        oak, elm = one_pass.vectors(documents, "in-context")
        assert not np.array_equal(oak, elm)
        oak, elm = windows.vectors(documents, "in-context")
        assert np.array_equal(oak, elm)
        [alone], [same] = (each.vectors(documents[:1], "titled") for each in (one_pass, windows))
        assert np.array_equal(alone, same)  # a chunk that is a text is read at once


class TestCache:
    def test_nothing_is_read_twice_and_damage_is_read_again(
        self, mini, leases, tmp_path, monkeypatch
    ):
        cache, document = ChunkVectorCache(mini, tmp_path / "cache"), document_of(leases)
        first = cache.vectors([document], "in-context")
        [path] = (tmp_path / "cache").rglob("*.npz")

        def refuse(*_, **__) -> DocumentVectors:
            raise AssertionError("read again")

        with monkeypatch.context() as patch:
            patch.setattr(Dewey, "encode_document", refuse)
            assert np.array_equal(cache.vectors([document], "in-context"), first)
            with pytest.raises(AssertionError, match="read again"):
                cache.vectors([document], "alone")
        path.write_bytes(b"torn")
        assert np.array_equal(cache.vectors([document], "in-context"), first)

    def test_another_text_or_place_is_another_file(self, mini, leases, tmp_path):
        cache, document = ChunkVectorCache(mini, tmp_path / "cache"), document_of(leases)
        changed = [
            document,
            ChunkedDocument(title="", text=document.text + "x", spans=document.spans),
            ChunkedDocument(title="", text=document.text, spans=document.spans[:1]),
        ]
        cache.vectors(changed, "in-context")
        assert len(list((tmp_path / "cache").rglob("*.npz"))) == 3


class TestEvaluation:
    def models(self, tmp_path, **options):
        names = options.pop("names", ["mini", "bm25"])
        return open_models(
            names, cache_folder=tmp_path / "cache", contexts=list(CHUNK_CONTEXTS), **options
        )

    def test_every_model_has_the_contexts_that_it_knows(self, leases, tmp_path):
        page = evaluate(open_chunks(str(leases)), self.models(tmp_path), tmp_path / "out")
        tables = {table.title: table for table in page.tables}
        labels = [f"mini {context}" for context in CHUNK_CONTEXTS] + ["bm25 alone", "bm25 titled"]
        scores = dict(
            zip(
                [column.name for column in tables["Main scores"].columns],
                tables["Main scores"].rows[0],
                strict=True,
            )
        )
        assert list(scores)[2:] == labels
        assert scores["mini titled"] == scores["bm25 titled"] == 1.0
        assert scores["mini in-context+title"] == 1.0
        # Alone, the sections of all leases are the same: one query of three finds its own first.
        assert scores["mini alone"] < 0.8
        assert scores["bm25 alone"] < 0.8
        assert tables["Chunks"].rows == (("leases", "recall@5", *[1.0] * len(labels)),)
        assert any(title.startswith("mini in-context against the others") for title in tables)

    def test_a_second_run_measures_nothing(self, leases, tmp_path):
        models = self.models(tmp_path, names=["bm25"])
        first = evaluate(open_chunks(str(leases)), models, tmp_path / "out")
        done = []
        again = evaluate(
            open_chunks(str(leases)), models, tmp_path / "out",
            on_task=lambda *each: done.append(each),
        )  # fmt: skip
        assert again.tables == first.tables
        assert done == []

    @pytest.mark.parametrize("context", ["alone", "titled"])
    def test_a_peer_that_encodes_reads_chunks_as_texts(self, letters, leases, tmp_path, context):
        seen = []
        encode = letters.encode

        def watched(inputs, **options):
            batches = list(inputs)
            seen.extend(text for batch in batches for text in batch["text"])
            return encode(batches, **options)

        letters.encode = watched
        peer = PeerChunks(letters, context)
        model = EvaluatedModel(name="letters", label=f"letters {context}", open=lambda: peer)
        page = evaluate(open_chunks(str(leases)), [model], tmp_path / "out")
        assert page.tables[0].rows[0][2] > 0
        expected = {"alone": RENT, "titled": f"Oak Street {RENT}"}
        assert expected[context] in seen
        assert (f"Oak Street {RENT}" in seen) == (context == "titled")

    def test_the_command_writes_a_page_of_a_sample(self, leases, tmp_path, capsys):
        options = {"suite": str(leases), "contexts": "alone,titled", "documents": 2}
        command(
            ["bm25"], **options, results=tmp_path / "results", cache=tmp_path / "cache",
            output=tmp_path / "page.json",
        )  # fmt: skip
        page = ResultPage.read(tmp_path / "page.json")
        assert page.tables[0].rows[0][0] == "leases_2_documents"
        assert "bm25 titled" in capsys.readouterr().out

    def test_a_window_is_a_model_of_its_own(self, leases, tmp_path):
        models = self.models(tmp_path, names=["mini"], window=64)
        assert [each.label for each in models] == [
            "mini alone", "mini titled", "mini in-context, window 64",
            "mini under-title, window 64", "mini in-context+title, window 64",
        ]  # fmt: skip
        names = [each.open().mteb_model_meta.name for each in models]
        assert len(set(names)) == 5
        assert names[2].endswith("mini-in-context-window-64")

    def test_a_blank_chunk_is_ranked_nowhere(self, mini, tmp_path):
        start = len(f"Oak Street\n\n{RENT}\n{HEATING}\n")
        blank = {"_id": "blank", "doc": "oak", "start": start, "end": start + 2}
        folder = write_leases(tmp_path / "leases", more_chunks=[blank])
        task = open_chunks(str(folder)).tasks[0]
        [model] = open_models(["mini"], cache_folder=tmp_path, contexts=["alone"])
        search = ChunkSearch(model.open(), task.passages())
        with pytest.warns(UserWarning, match="hold no token"):
            search.index(None)
        found = search.search({"id": ["q"], "text": ["anything"]}, top_k=100)
        assert len(found["q"]) == 6
        assert "blank" not in found["q"]

    def test_what_the_files_lack_is_named(self, tmp_path):
        folder = write_leases(
            tmp_path / "leases",
            titles=LEASES | {"fir": ""},
            more_queries=[{"_id": "idle", "text": "Who is asked?"}],
        )
        with (folder / "documents.jsonl").open("a") as documents:
            documents.write('{"_id": "yew", "title": "Yew", "text": "Nobody cut this."}\n')
        left_out = open_chunks(str(folder)).tasks[0].left_out
        assert "1 queries left out for having no relevant chunk" in left_out[0]
        assert left_out[1].endswith("1 of 5 documents left out for having no chunk")
        assert "1 of 5 documents have no title" in left_out[2]

    def test_documents_without_titles_have_those_of_their_texts(self, tmp_path):
        """So the task is the same, but for a chunk that holds the title itself."""
        folder = write_leases(tmp_path / "leases")
        titled = read_passages(folder)
        documents = [json.loads(line) for line in (folder / "documents.jsonl").open()]
        with (folder / "documents.jsonl").open("w") as lines:
            lines.writelines(json.dumps(each | {"title": ""}) + "\n" for each in documents)
        assert read_passages(folder).digest == titled.digest
        [task] = open_chunks(str(folder)).tasks
        assert not [note for note in task.left_out if "no title" in note]
        with (folder / "chunks.jsonl").open("a") as chunks:
            chunks.write('{"_id": "oak", "doc": "oak", "start": 0, "end": 30}\n')
        assert read_passages(folder).chunks.documents["oak"] == documents[0]["text"][:30]


class TestSamples:
    def test_a_sample_has_its_documents_and_their_queries(self, leases):
        data = read_passages(leases)
        sample = data.sample(2)
        assert len(sample.documents) == 2
        assert {place.document for place in sample.places.values()} == set(sample.documents)
        assert set(sample.chunks.documents) == set(sample.chunks.titles) == set(sample.places)
        assert set(sample.chunks.queries) == {f"{name}?" for name in sample.documents}
        assert sample.chunks.name == "leases_2_documents"
        assert sample.digest != data.digest
        assert data.sample(3) is data

    def test_small_samples_are_part_of_larger_ones_and_seeds_differ(self, leases):
        data = read_passages(leases)
        assert set(data.sample(1).documents) < set(data.sample(2).documents)
        assert len({frozenset(data.sample(1, seed).documents) for seed in range(9)}) > 1
        assert data.sample(1, 4).chunks.name == "leases_1_documents_seed_4"

    def test_a_sample_without_queries_is_refused(self, tmp_path):
        folder = write_leases(tmp_path / "leases")
        (folder / "qrels.tsv").write_text("oak?\toak:0\t1\n")
        data = read_passages(folder)
        seeds = [seed for seed in range(9) if "oak" not in _sampled(data, seed)]
        with pytest.raises(TaskError, match=r"no query has a relevant chunk in these documents"):
            data.sample(1, seeds[0])


def _sampled(data, seed):
    try:
        return set(data.sample(1, seed).documents)
    except TaskError:
        return set()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"contexts": "alone,titel"}, r"'titel' is no way .*alone, titled, in-context"),
            ({"contexts": "all", "passages": True}, "--passages has no part in ranking chunks"),
            ({"contexts": "all", "mode": "multi"}, "--mode has no part in ranking chunks"),
            ({"contexts": "all", "chunk_tokens": ["64"]}, "--chunk-tokens has no part"),
            ({"documents": 4}, "--documents is an option of ranking chunks; add --contexts all"),
            ({"window": 64}, "--window is an option of ranking chunks"),
        ],
    )
    def test_options_that_contradict_each_other(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            command(["mini"], suite=str(tmp_path), **options)

    def test_a_peer_that_knows_none_of_the_contexts(self, tmp_path):
        options = {"cache_folder": tmp_path, "contexts": ["in-context"]}
        assert [each.label for each in open_models(["mini"], **options)] == ["mini in-context"]
        with pytest.raises(ConfigError, match="bm25 reads chunks as texts, and not in-context"):
            open_models(["mini", "bm25"], **options)

    def test_suites_without_chunks_and_chunks_without_contexts(self, tmp_path):
        with pytest.raises(ConfigError, match=r"locov1: has no chunks to rank"):
            open_chunks("locov1")
        with pytest.raises(ConfigError, match=r"conteb: ranks chunks; add --contexts all"):
            open_suite("conteb")
        with pytest.raises(ConfigError, match=r"holds no documents\.jsonl with chunks\.jsonl"):
            open_chunks(str(tmp_path))
        with pytest.raises(ConfigError, match="no such folder"):
            open_chunks("conteb", tmp_path / "nowhere")
