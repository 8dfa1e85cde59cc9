"""The cost audit on a small corpus: its page, its cache, kills and mistakes."""

import signal
import time

import numpy as np
import pytest
import torch

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, InputError, TaskError
from dewey_embed.eval import vector_cache
from dewey_embed.eval.audits import encode_time
from dewey_embed.eval.audits.cost import audit_cost, measure
from dewey_embed.eval.audits.encode_time import encode_times
from dewey_embed.eval.audits.storage import StorageChoices
from dewey_embed.eval.beir import read_beir
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.scores import query_scores
from dewey_embed.eval.vector_cache import ChunkSize, DocumentVectorCache
from tests.eval.audits.commands import refused, start
from tests.eval.audits.conftest import write_corpus

CHOICES = StorageChoices(
    chunk_tokens=(16, 32), overlaps=(0.25, 0.5), precisions=("float32", "binary"),
    dims=(384, 64), clusters=(1, 50),
)  # fmt: skip
OPTIONS = (
    "--chunk-tokens", "16,32", "--overlaps", "0.25,0.5", "--precisions", "float32,binary",
    "--dims", "384,64", "--clusters", "1,50",
)  # fmt: skip
NUM_DOCUMENTS = 20


@pytest.fixture(scope="module", autouse=True)
def _few_timed_tokens():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_time, "TIMED_TOKENS", 256)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cost")


@pytest.fixture(scope="module")
def result(mini, corpus, cache):
    return audit_cost(mini, corpus, choices=CHOICES, cache=cache)


def rows(findings, title="All variants"):
    [table] = [table for table in findings.tables if table.title == title]
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


class TestPage:
    def test_a_row_for_each_variant(self, result):
        assert len(rows(result)) == 4 * (1 + 2 + 2) + 2

    def test_figures_are_those_of_the_encoder(self, result, mini, corpus):
        task = read_beir(corpus)
        asked = mini.encode_query(list(task.queries.values()))
        documents = mini.encode_document(list(task.documents.values()), chunk_tokens=16)
        for mode, vectors in (("single", "one vector"), ("multi", "chunks")):
            scores = mini.similarity(asked, documents, mode=mode)
            ranking = {
                query: dict(zip(task.documents, map(float, row), strict=True))
                for query, row in zip(task.queries, scores, strict=True)
            }
            values = query_scores(task.qrels, ranking).values()
            row = next(
                row for row in rows(result)
                if row["vectors"] == vectors and row["chunk"] in (None, 16)
                and row["precision"] == "float32" and row["dimensions"] == 384
            )  # fmt: skip
            assert row["nDCG@10"] == pytest.approx(np.mean([v["ndcg_at_10"] for v in values]))
            assert row["recall@10"] == pytest.approx(np.mean([v["recall_at_10"] for v in values]))

    def test_bytes_are_those_of_chunks_and_documents(self, result, mini, corpus):
        documents = mini.encode_document(
            list(read_beir(corpus).documents.values()), chunk_tokens=32, chunk_overlap=16
        )
        num = NUM_DOCUMENTS + sum(len(each.chunks) for each in documents)
        [row] = [row for row in rows(result) if (row["chunk"], row["overlap"]) == (32, 16)]
        assert row["number of vectors"] == num
        assert row["index"] == 4 * 384 * num

    def test_more_clusters_than_chunks_are_the_chunks(self, result):
        plain = [row for row in rows(result) if (row["precision"], row["dimensions"]) ==
                 ("float32", 384)]  # fmt: skip
        [clusters] = [row for row in plain if row["clusters a document"] == 50]
        [chunks] = [row for row in plain if (row["vectors"], row["chunk"], row["overlap"]) ==
                    ("chunks", 16, 4)]  # fmt: skip
        for name in ("nDCG@10", "recall@10", "number of vectors", "index"):
            assert clusters[name] == chunks[name]

    def test_the_front_is_marked_in_the_table_and_named_in_the_plot(self, result):
        marked = [row for row in rows(result) if row["Pareto front"] == "yes"]
        front = rows(result, "Pareto front")
        assert sorted(row["index"] for row in marked) == [row["index"] for row in front]
        assert result.plots[0].kind == "points"
        last = result.plots[0].series[-1]
        assert last.name == "Pareto front"
        assert last.x == tuple(row["index"] / 1e6 for row in front)
        assert last.y == tuple(row["nDCG@10"] for row in front)
        assert last.labels[-1]
        assert sum(len(series.x) for series in result.plots[0].series) == len(rows(result))

    def test_one_thing_changes_at_a_time(self, result):
        changed = rows(result, "One thing changed")
        assert [row["changed"] for row in changed] == [
            "nothing", "vectors", "vectors", "vectors", "chunk size", "overlap", "precision",
            "dimensions",
        ]  # fmt: skip
        assert changed[0]["difference"] == 0
        assert changed[-2]["bytes"] == pytest.approx(1 / 32)
        assert changed[-1]["bytes"] == pytest.approx(1 / 6)

    def test_the_page_is_a_file_that_reads_back(self, result, tmp_path):
        result.write(tmp_path / "cost.json")
        assert ResultPage.read(tmp_path / "cost.json") == result
        assert result.kind == "cost"


class TestEncodeTimes:
    def test_chunks_come_with_the_same_tokens(self, mini, corpus):
        task = read_beir(corpus)
        times = encode_times(
            mini, task, [ChunkSize(16, 0.25), ChunkSize(32, 0.25)], seed=0, progress=False
        )
        assert [each.name for each in times] == [
            "one vector a document", "and chunks of 16", "and chunks of 32",
            "and chunks of all 2 sizes",
        ]  # fmt: skip
        alone, small, large, both = (each.num_vectors for each in times)
        assert 1 <= alone < NUM_DOCUMENTS
        assert both - alone == small - alone + large - alone
        assert len({each.num_tokens for each in times}) == 1
        assert all(each.seconds > 0 for each in times)


class TestCache:
    def test_a_second_run_encodes_nothing_and_finds_the_same(self, mini, corpus, cache, result):
        before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        assert len(before) == NUM_DOCUMENTS
        points, _ = measure(mini, read_beir(corpus), CHOICES, cache, progress=False)
        assert [each.ndcg for each in points] == [row["nDCG@10"] for row in rows(result)]
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")} == before

    def test_sizes_come_from_one_pass_as_from_their_own(self, mini, tmp_path):
        text = "The grass is green, and the sky is blue. " * 20
        both = [ChunkSize(16, 0.0), ChunkSize(32, 0.5)]
        [made] = DocumentVectorCache(mini, tmp_path, both).encode([text])
        for number, size in enumerate(both):
            alone = mini.encode_document(
                text, chunk_tokens=size.tokens, chunk_overlap=size.overlap_tokens
            )
            assert np.allclose(made.at(number)[0], alone.chunks, atol=1e-5)
            assert made.at(number)[1] == alone.spans

    def test_texts_come_back_in_their_order_and_equal_ones_twice(self, mini, tmp_path, monkeypatch):
        monkeypatch.setattr(vector_cache, "DOCUMENT_CHARS", 30)
        vectors = DocumentVectorCache(mini, tmp_path, [ChunkSize(16, 0.0)])
        texts = ["The sky is blue today.", "Grass.", "The sky is blue today."]
        again = [vectors.encode(texts), vectors.encode(texts)]
        for made in again:
            assert [each.num_tokens for each in made] == [6, 2, 6]
            assert np.array_equal(made[0].vector, made[2].vector)
        assert len(list(tmp_path.rglob("*.npz"))) == 2


class TestRefusals:
    def test_nan_is_an_error_and_not_kept(self, corpus, tmp_path):
        broken = Dewey.load(device="cpu")
        with torch.no_grad():
            next(broken.model.parameters()).fill_(float("nan"))
        with pytest.raises(InputError, match="NaN or infinite"):
            audit_cost(broken, corpus, choices=CHOICES, cache=tmp_path)
        assert not list(tmp_path.rglob("*.npz"))

    def test_a_folder_without_a_task(self, mini, tmp_path):
        with pytest.raises(TaskError, match=r"corpus\.jsonl: is not there"):
            audit_cost(mini, tmp_path, cache=tmp_path)

    @pytest.mark.parametrize("size", [ChunkSize(0, 0.0), ChunkSize(16, 1.0), ChunkSize(16, -0.5)])
    def test_sizes_that_cannot_be(self, mini, tmp_path, size):
        with pytest.raises(ConfigError, match="need at least 1 token and an overlap from 0"):
            DocumentVectorCache(mini, tmp_path, [size])

    def test_a_corpus_of_one_document_has_a_note_that_figures_mean_nothing(self, mini, tmp_path):
        alone = write_corpus(tmp_path / "alone", answers=1, others=0)
        result = audit_cost(mini, alone, choices=CHOICES, cache=tmp_path / "cache")
        assert {row["nDCG@10"] for row in rows(result)} == {1.0}
        assert any("is one document" in note for note in result.tables[0].notes)

    @pytest.mark.filterwarnings("ignore:1 of")
    def test_a_document_without_tokens_is_counted_in_a_note(self, mini, corpus, tmp_path):
        folder = tmp_path / "blank"
        folder.mkdir()
        for path in corpus.iterdir():
            (folder / path.name).write_text(path.read_text())
        with (folder / "corpus.jsonl").open("a") as lines:
            lines.write('{"_id": "blank", "text": " "}\n')
        result = audit_cost(mini, folder, choices=CHOICES, cache=tmp_path / "cache")
        assert any("Documents without tokens: 1" in note for note in result.tables[0].notes)


class TestCommand:
    def test_a_killed_run_resumes_with_its_vectors(self, tmp_path):
        # Blanks make each document too long to be encoded together with another.
        corpus = write_corpus(tmp_path / "towns")
        path = corpus / "corpus.jsonl"
        path.write_text(path.read_text().replace('"}', " " * vector_cache.DOCUMENT_CHARS + '"}'))
        cache, output = tmp_path / "cache", tmp_path / "out" / "cost.json"
        words = ("cost", "--data", corpus, "--cache", cache, "-o", output, *OPTIONS)
        killed = start(*words)
        while killed.poll() is None and len(list(cache.rglob("*.npz"))) < 3:
            time.sleep(0.002)
        killed.kill()
        _, errors = killed.communicate()
        assert killed.returncode == -signal.SIGKILL, errors
        kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        assert 3 <= len(kept) < NUM_DOCUMENTS
        assert not output.exists()

        resumed = start(*words)
        printed, errors = resumed.communicate()
        assert resumed.returncode == 0, errors
        now = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
        assert len(now) == NUM_DOCUMENTS
        assert kept.items() <= now.items()
        assert printed.strip() == ResultPage.read(output).summary

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("--data", "CORPUS", "--dims", "8,x"), "--dims is '8,x'; give values with commas"),
            (("--data", "CORPUS", "--precisions", "float8"), "precision float8 is unknown"),
        ],
    )
    def test_mistakes_are_one_line_and_an_exit_code(self, corpus, tmp_path, words, answer):
        words = [corpus if word == "CORPUS" else word for word in words]
        output = tmp_path / "cost.json"
        assert answer in refused("cost", *words, "--cache", tmp_path, "-o", output)
        assert not output.exists()
