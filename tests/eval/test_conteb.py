"""ConTEB from a folder laid out as on the hub, LMEB's candidates as documents, what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dewey_embed.errors import TaskError
from dewey_embed.eval.conteb import LMEB, SPLITS, conteb_task, join, lmeb_task, of_candidates
from dewey_embed.eval.models import open_models
from dewey_embed.eval.passages import Place
from dewey_embed.eval.run import evaluate
from dewey_embed.eval.suites import Suite, open_chunks

DOCUMENTS = [
    {"chunk_id": "0_1", "chunk": "He won the cup three times.", "og_chunk": "Pelé won the cup."},
    {"chunk_id": "0_0", "chunk": "Pelé was a footballer.", "og_chunk": "Pelé was a footballer."},
    {"chunk_id": "0_10", "chunk": "He retired in 1977.", "og_chunk": "Pelé retired in 1977."},
    {"chunk_id": "1_0", "chunk": "Zidane played for France.", "og_chunk": "Zidane."},
]
QUERIES = [
    {"query": "How often did Pelé win the cup?", "chunk_id": "0_1"},
    {"query": "For whom did Zidane play?", "chunk_id": "1_0"},
]
README = """---
configs:
{configs}
---
"""
CONFIG = """- config_name: {name}
  data_files:
  - split: {split}
    path: {name}/{split}-*"""


def write_hub(folder, split, tables):
    """A data set as it lies on the hub: a folder of Parquet files for each configuration."""
    for name, rows in tables.items():
        (folder / name).mkdir(parents=True)
        path = folder / name / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    configs = "\n".join(CONFIG.format(name=name, split=split) for name in tables)
    (folder / "README.md").write_text(README.format(configs=configs))
    return folder


class TestConteb:
    def test_documents_are_their_chunks_in_the_order_of_their_numbers(self):
        data = join("football", DOCUMENTS, QUERIES)
        text = "Pelé was a footballer.\n\nHe won the cup three times.\n\nHe retired in 1977."
        assert data.documents["0"].text == text
        assert list(data.places) == ["0_0", "0_1", "0_10", "1_0"]
        assert all(
            data.documents[place.document].text[place.start : place.end]
            == data.chunks.documents[name]
            for name, place in data.places.items()
        )
        assert data.places["1_0"] == Place("1", 0, 25)
        assert list(data.chunks.qrels.values()) == [{"0_1": 1}, {"1_0": 1}]

    def test_several_chunks_may_answer_and_queries_without_any_are_left_out(self):
        queries = [
            {"query": "Pelé?", "chunk_ids": ["0_0", "0_1", "7_7"]},
            {"query": "Who?", "chunk_id": "9_9"},
            {"query": " ", "chunk_id": "0_0"},
        ]
        data = join("football", DOCUMENTS, queries)
        assert data.chunks.qrels == {"q1": {"0_0": 1, "0_1": 1}}
        assert data.chunks.num_unjudged == 2

    @pytest.mark.parametrize(
        ("documents", "queries", "message"),
        [
            ([{"id": "0_0", "chunk": "a"}], QUERIES, "documents have no chunk_id, but id, chunk"),
            (DOCUMENTS, [{"text": "a", "chunk_id": "0_0"}], "queries have no query"),
            (DOCUMENTS, [{"query": "a"}], "queries have no chunk_id"),
            ([{"chunk_id": "zero", "chunk": "a"}], QUERIES, "'zero' is not that of a document"),
            ([*DOCUMENTS, {"chunk_id": "0_0", "chunk": "b"}], QUERIES, "two different texts"),
            (DOCUMENTS, [], "no query has a chunk that answers"),
        ],
    )
    def test_other_tables_are_refused(self, documents, queries, message):
        with pytest.raises(TaskError, match=message):
            join("football", documents, queries)

    @pytest.mark.usefixtures("no_hub")
    def test_a_folder_of_the_hub_is_measured_and_the_rest_is_missing(self, tmp_path):
        folder = tmp_path / "data" / "conteb" / "football"
        write_hub(folder, SPLITS["football"], {"documents": DOCUMENTS, "queries": QUERIES})
        suite = open_chunks("conteb", tmp_path / "data")
        assert [task.metadata.name for task in suite.tasks] == ["football"]
        assert suite.missing.keys() == SPLITS.keys() - {"football"}
        assert all("is not there; illuin-conteb/" in reason for reason in suite.missing.values())
        models = open_models(["mini"], cache_folder=tmp_path, contexts=["in-context"])
        page = evaluate(suite, models, tmp_path / "results")
        assert page.tables[0].rows == (("football", "nDCG@10", 1.0),)
        before = suite.tasks[0].metadata.revision
        (folder / "README.md").write_text("")
        assert conteb_task("football", folder).metadata.revision != before

    @pytest.mark.usefixtures("no_hub")
    def test_a_sample_is_a_task_of_its_own(self, tmp_path):
        folder = write_hub(
            tmp_path / "football", SPLITS["football"], {"documents": DOCUMENTS, "queries": QUERIES}
        )
        task = conteb_task("football", folder, num_documents=1)
        assert task.metadata.name == "football_1_documents"
        assert len(task.passages().documents) == 1

    @pytest.mark.usefixtures("no_hub")
    @pytest.mark.parametrize("name", ["conteb", "lmeb-conteb"])
    def test_without_a_hub_every_task_is_missing_with_the_reason(self, name):
        suite = open_chunks(name)
        assert not suite.tasks
        assert len(suite.missing) == (len(SPLITS) if name == "conteb" else len(LMEB))
        assert all("cannot be reached" in reason for reason in suite.missing.values())


CORPUS = [
    {"id": "a", "title": "Pelé", "text": "A footballer."},
    {"id": "b", "title": "Pelé", "text": "The cup, three times."},
    {"id": "c", "title": "", "text": "Zidane played for France."},
]
CANDIDATES = [{"query-id": "q", "corpus-ids": ["b", "a"]}]


class TestLmeb:
    def test_the_candidates_of_a_query_are_a_document(self):
        data = of_candidates(
            "CovidQA",
            {
                "corpus": CORPUS,
                "queries": {"id": ["q"], "text": ["The cup?"]},
                "relevant_docs": {"q": {"b": 1}},
                "top_ranked": {"q": ["b", "a"]},
            },
        )
        assert {name: each.text for name, each in data.documents.items()} == {
            "a": "A footballer.\n\nThe cup, three times.",
            "c": "Zidane played for France.",
        }
        assert data.documents["a"].title == "Pelé"
        assert data.places["b"] == Place("a", 15, 36)

    @pytest.mark.usefixtures("no_hub")
    def test_a_task_of_mteb_ranks_the_candidates_and_reads_the_document(self, tmp_path):
        folder = write_hub(
            tmp_path / "CovidQA",
            "test",
            {
                "Covid-QA-corpus": CORPUS,
                "Covid-QA-queries": [{"id": "q", "text": "Where did Zidane play?"}],
                "Covid-QA-qrels": [{"query-id": "q", "corpus-id": "b", "score": 1}],
                "Covid-QA-top_ranked": CANDIDATES,
            },
        )
        task = lmeb_task("CovidQA")
        dataset = task.metadata.dataset | {"path": str(folder)}
        type(task).metadata = task.metadata.model_copy(update={"dataset": dataset})
        models = open_models(["mini"], cache_folder=tmp_path, contexts=["in-context"])
        page = evaluate(Suite(name="lmeb", tasks=[task]), models, tmp_path / "results")
        # The best chunk, Zidane's, is no candidate, so that the answer is first or second.
        assert page.tables[0].rows[0][2] > 0.6
