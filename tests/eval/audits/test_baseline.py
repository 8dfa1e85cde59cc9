"""The baseline audit: what is scored is what was timed; peers, kills, mistakes."""

import json

import numpy as np
import pytest
from torch.utils.data import DataLoader

from dewey_embed.errors import CheckpointError, ConfigError, ResultsError, TaskError
from dewey_embed.eval.adapters import DEWEY
from dewey_embed.eval.audits import baseline
from dewey_embed.eval.audits.baseline import audit_baseline, mean_reciprocal_rank, measure
from dewey_embed.eval.audits.rankers import (
    EncoderRanker,
    Texts,
    finite,
    folder_bytes,
    open_ranker,
)
from dewey_embed.eval.beir import read_beir
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.index.index import Index
from dewey_embed.types import Document
from tests.eval.audits.commands import start
from tests.eval.audits.conftest import write_corpus


@pytest.fixture(scope="module")
def result(corpus, tmp_path_factory):
    cache = tmp_path_factory.mktemp("baseline")
    made = audit_baseline(corpus, ["mini", "bm25", "minilm"], device="cpu", cache=cache)
    assert not list(cache.rglob("*.json"))
    return made


def rows(findings):
    [table] = findings.tables
    names = [f"{column.name} {column.unit}".strip() for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


class TestPage:
    def test_a_row_for_each_model_and_mode(self, result):
        assert [(row["model"], row["mode"]) for row in rows(result)] == [
            ("mini", "single"), ("mini", "multi"), ("mini", "hybrid"), ("bm25", ""), ("minilm", ""),
        ]  # fmt: skip

    def test_figures_are_those_of_the_index(self, result, mini, corpus, tmp_path):
        task = read_beir(corpus)
        index = Index.open(tmp_path / "index", mini)
        index.add(Document(id=name, text=text) for name, text in task.documents.items())
        for row in rows(result)[:3]:
            asked = {query: index.search(words, 10, mode=row["mode"])
                     for query, words in task.queries.items()}  # fmt: skip
            places = {
                query: [hit.document_id in task.qrels[query] for hit in hits]
                for query, hits in asked.items()
            }
            assert row["recall@10"] == np.mean([any(each) for each in places.values()])
            ranks = [1 / (1 + each.index(True)) if any(each) else 0 for each in places.values()]
            assert row["MRR@10"] == pytest.approx(np.mean(ranks))
            gains = [1 / np.log2(2 + each.index(True)) if any(each) else 0
                     for each in places.values()]  # fmt: skip
            assert row["nDCG@10"] == pytest.approx(np.mean(gains))
        assert rows(result)[0]["index bytes"] == pytest.approx(
            folder_bytes(tmp_path / "index"), rel=0.05
        )

    def test_speeds_and_bytes_are_measured(self, result):
        for row in rows(result):
            assert 0 < row["query, median ms"] <= row["query, 95th percentile ms"]
            assert row["indexing documents/s"] > 0
            assert row["indexing tokens/s"] > row["indexing documents/s"]
            assert row["index bytes"] > 0
        assert rows(result)[-1]["index bytes"] == 4 * 384 * 20

    def test_the_page_is_a_file_that_reads_back(self, result, tmp_path):
        result.write(tmp_path / "baseline.json")
        assert ResultPage.read(tmp_path / "baseline.json") == result
        assert result.kind == "baseline"


class TestScores:
    def test_reciprocal_ranks_of_known_rankings(self, corpus):
        task = read_beir(corpus)
        ranking = {"q0": {"d5": 3.0, "d0": 2.0}, "q1": {"d1": 1.0}, "q2": {"d7": 1.0}}
        assert mean_reciprocal_rank(task, ranking) == pytest.approx((0.5 + 1) / 10)

    @pytest.mark.parametrize("score", [float("nan"), float("inf")])
    def test_no_number_is_an_error(self, score):
        with pytest.raises(ResultsError, match=r"peer scored document 'b' (nan|inf) for query 'q'"):
            finite({"a": 1.0, "b": score}, "peer", "q")


class TestTexts:
    def test_mteb_reads_them_as_a_table(self):
        table = Texts(id=["a", "b"], text=["one", "two"])
        wide = table.add_column("query", ["x", "y"])
        assert wide.column_names == ["id", "text", "query"]
        assert table["text"] == ["one", "two"]
        assert list(wide)[1] == {"id": "b", "text": "two", "query": "y"}
        assert [batch["text"] for batch in DataLoader(table, batch_size=8)] == [["one", "two"]]


class NumberPeer:
    """A peer under mteb's protocol whose vectors count letters; of texts with a word, NaN."""

    mteb_model_meta = DEWEY.model_copy(update={"name": "tests/letters", "revision": "1"})

    def __init__(self, broken="\0"):
        self.broken = broken

    def encode(self, inputs, **_):
        texts = [text for batch in inputs for text in batch["text"]]
        return np.array(
            [[np.nan if self.broken in text else text.count(letter) for letter in "abcdefgh"]
             for text in texts]
        )  # fmt: skip

    def similarity(self, ours, theirs):
        return ours @ theirs.T


class TestPeers:
    def test_vectors_with_nan_are_an_error_that_names_the_document(self, corpus):
        ranker = EncoderRanker("letters", NumberPeer(broken="."))
        with pytest.raises(ResultsError, match=r"letters made a vector with NaN .* document 'd0'"):
            measure(ranker, read_beir(corpus), 1, progress=False)

    def test_a_query_with_nan_is_an_error_that_names_it(self, corpus):
        ranker = EncoderRanker("letters", NumberPeer(broken="?"))
        with pytest.raises(ResultsError, match=r"letters scored document .* nan for query"):
            measure(ranker, read_beir(corpus), 1, progress=False)

    def test_bm25_and_the_chunks_of_minilm_answer(self, corpus, tmp_path):
        task = read_beir(corpus)
        for name in ("bm25", "minilm-chunks"):
            ranker = open_ranker(name, device="cpu")
            ranker.index(task.documents, tmp_path, progress=False)
            scores = ranker.rank(task.queries["q3"], "")
            assert max(scores, key=scores.get) == "d3"
            assert len(scores) == 10
            assert (ranker.num_bytes() is None) == (name == "minilm-chunks")


class TestRefusals:
    @pytest.mark.parametrize("models", [[], ["bm25", "bm25"]])
    def test_no_model_or_one_twice(self, corpus, tmp_path, models):
        with pytest.raises(ConfigError, match="name at least one, and each once"):
            audit_baseline(corpus, models, cache=tmp_path)

    def test_a_model_that_is_not_there_is_refused_before_others_are_measured(
        self, corpus, tmp_path
    ):
        with pytest.raises(CheckpointError):
            audit_baseline(corpus, ["bm25", str(tmp_path / "none")], cache=tmp_path)
        assert not list(tmp_path.rglob("*.json"))

    def test_an_empty_corpus(self, tmp_path):
        folder = write_corpus(tmp_path / "empty", answers=1, others=0)
        (folder / "corpus.jsonl").write_text("")
        with pytest.raises(TaskError, match="holds no text"):
            audit_baseline(folder, ["bm25"], cache=tmp_path)

    def test_a_corpus_of_one_document_has_a_note_that_recall_means_nothing(self, tmp_path):
        folder = write_corpus(tmp_path / "alone", answers=1, others=0)
        result = audit_baseline(folder, ["bm25"], device="cpu", cache=tmp_path)
        assert any("recall@10 means nothing" in note for note in result.tables[0].notes)


class TestKills:
    def test_models_that_were_measured_are_not_measured_again(self, corpus, tmp_path, monkeypatch):
        real, asked = baseline.open_ranker, []

        def failing(name, *, device=None):
            asked.append(name)
            if name == "minilm" and len(asked) < 3:
                raise KeyboardInterrupt
            return real(name, device=device)

        monkeypatch.setattr(baseline, "open_ranker", failing)
        with pytest.raises(KeyboardInterrupt):
            audit_baseline(corpus, ["bm25", "minilm"], device="cpu", cache=tmp_path)
        [kept] = tmp_path.rglob("*.json")
        before = json.loads(kept.read_text())["figures"][0]["median_ms"]
        result = audit_baseline(corpus, ["bm25", "minilm"], device="cpu", cache=tmp_path)
        assert rows(result)[0]["query, median ms"] == before
        assert not list(tmp_path.rglob("*.json"))


class TestCommand:
    def test_the_command_writes_a_page_and_prints_its_summary(self, corpus, tmp_path):
        output = tmp_path / "out" / "baseline.json"
        done = start("baseline", corpus, "--model", "bm25", "--cache", tmp_path, "-o", output)
        printed, errors = done.communicate()
        assert done.returncode == 0, errors
        result = ResultPage.read(output)
        assert printed.strip() == result.summary
        assert "Best by nDCG@10: bm25" in printed
