"""Tasks whose qrels name passages: closed-form scores, what is refused, which folders are such."""

import json

import mteb
import numpy as np
import pytest

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.adapters import DeweySearch
from dewey_embed.eval.models import EvaluatedModel, open_peer
from dewey_embed.eval.passage_task import PassageSearch, passage_task
from dewey_embed.eval.passages import Place, read_passages
from dewey_embed.eval.run import evaluate
from dewey_embed.eval.suites import open_suite
from dewey_embed.types import Passage
from tests.eval.conftest import write_beir

SECTIONS = {
    "heating": "The heating is repaired by the owner within two days. " * 6,
    "rent": "The tenant pays the rent in advance on the first of May. " * 6,
    "garden": "Children may play in the garden until eight in the evening. " * 6,
}


def write_passages(folder, *, chunks=None, qrels=None, name="chunks.jsonl"):
    """A document of three sections, each an annotated chunk, and a query for each of two."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(SECTIONS.values())
    if chunks is None:
        starts = np.cumsum([0, *map(len, SECTIONS.values())]).tolist()
        chunks = [
            {"_id": key, "doc": "lease", "start": start, "end": end}
            for key, start, end in zip(SECTIONS, starts, starts[1:], strict=False)
        ]
    documents = [{"_id": "lease", "title": " Lease ", "text": text}]
    queries = [
        {"_id": "q1", "text": "When is the rent due?"},
        {"_id": "q2", "text": "Who repairs the heating?"},
    ]
    for file, rows in (("documents.jsonl", documents), (name, chunks), ("queries.jsonl", queries)):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = qrels or ["q1\trent\t1", "q2\theating\t1"]
    (folder / "qrels.tsv").write_text("".join(f"{line}\n" for line in lines))
    return folder


class Ranked(DeweySearch):
    """A Dewey model whose passages are given by the test, best first."""

    def __init__(self, passages):
        self.ranked = passages
        self._meta = mteb.get_model_meta("mteb/baseline-bm25s").model_copy(
            update={"name": "tests/ranked", "revision": "1"}
        )

    def index(self, corpus, **options):
        self.indexed = list(corpus)

    def passages(self, queries, k, *, task_metadata):
        return {
            query: [
                Passage(
                    document_id="lease", number=number, score=0.5, text="any", char_start=start,
                    char_end=end,
                )
                for number, (start, end) in enumerate(own)
            ]
            for query, own in self.ranked.items()
        }  # fmt: skip


def evaluated(model, label):
    return EvaluatedModel(name=label, label=label, open=lambda: model)


def figures(page, label):
    """The figures of a model's column, by measure."""
    found = {}
    for table in page.tables:
        names = [column.name for column in table.columns]
        if label in names and "measure" in names:
            found |= {row[1]: row[names.index(label)] for row in table.rows}
    return found


class TestScores:
    def test_passages_stand_for_the_chunks_that_they_overlap_most(self, tmp_path):
        folder = write_passages(tmp_path / "task")
        first, second, _ = (place for place in read_passages(folder).places.values())
        edge = first.end
        model = Ranked(
            {
                "q1": [(0, 50), (50, 90), (second.start, second.start + 60)],
                "q2": [(edge - 40, edge + 41), (0, 50)],
            }
        )
        page = evaluate(open_suite(str(folder)), [evaluated(model, "ranked")], tmp_path / "out")
        found = figures(page, "ranked")
        # q1: rank 2 of the chunks, for the first two passages are one chunk; q2: rank 2, too.
        assert found["nDCG@10"] == pytest.approx(1 / np.log2(3))
        assert found["recall@5"] == 1.0
        assert found["answered in the first three"] == 1.0
        # 40 of the 81 characters of q2's first passage are in the relevant chunk: no half.
        assert found["answered in the first passage"] == 0.0
        assert model.indexed == [
            {"id": "lease", "title": "Lease", "text": "".join(SECTIONS.values())}
        ]

    def test_a_passage_half_in_each_of_two_chunks_answers_by_both_and_stands_for_one(
        self, tmp_path
    ):
        folder = write_passages(tmp_path / "task")
        edge = read_passages(folder).places["heating"].end
        model = Ranked({"q1": [(edge - 41, edge + 41)], "q2": [(edge - 41, edge + 41)]})
        page = evaluate(open_suite(str(folder)), [evaluated(model, "ranked")], tmp_path / "out")
        found = figures(page, "ranked")
        assert found["answered in the first passage"] == 1.0
        assert found["nDCG@10"] == 0.5  # the first of the two chunks, which is relevant to q2

    def test_a_passage_outside_all_chunks_keeps_its_rank(self, tmp_path):
        chunks = [{"_id": "rent", "doc": "lease", "start": 330, "end": 380}]
        folder = write_passages(tmp_path / "task", chunks=chunks, qrels=["q1 rent 1"])
        model = Ranked({"q1": [(0, 60), (330, 380)]})
        page = evaluate(open_suite(str(folder)), [evaluated(model, "ranked")], tmp_path / "out")
        found = figures(page, "ranked")
        assert found["nDCG@10"] == pytest.approx(1 / np.log2(3))
        assert found["answered in the first passage"] == 0.0
        assert found["answered in the first three"] == 1.0

    def test_an_index_and_a_peer_are_measured_on_real_passages(self, tmp_path):
        folder = write_passages(tmp_path / "task", name="spans.jsonl")
        mini = DeweySearch(Dewey.load(), tmp_path / "indexes", mode="hybrid")
        models = [evaluated(mini, "mini hybrid"), evaluated(open_peer("bm25"), "bm25")]
        page = evaluate(open_suite(str(folder)), models, tmp_path / "out")
        for label in ("mini hybrid", "bm25"):
            assert figures(page, label) == {
                "nDCG@10": 1.0,
                "recall@5": 1.0,
                "answered in the first passage": 1.0,
                "answered in the first three": 1.0,
            }
        again = evaluate(open_suite(str(folder)), models, tmp_path / "out", finished_only=True)
        assert again.tables == page.tables

    def test_what_is_shown_is_what_the_index_shows(self, tmp_path):
        data = read_passages(write_passages(tmp_path / "task"))
        mini = DeweySearch(Dewey.load(), tmp_path / "indexes", mode="hybrid")
        search = PassageSearch(mini, data)
        task = passage_task(tmp_path / "task")
        task.load_data()
        split = task.dataset["default"]["test"]
        search.index(
            split["corpus"], task_metadata=task.metadata, hf_split="test", hf_subset="default"
        )
        search.search(split["queries"], task_metadata=task.metadata, top_k=10)
        for query, text in data.chunks.queries.items():
            assert search.shown[query] == [
                Place(hit.document_id, passage.char_start, passage.char_end)
                for hit in mini._index.passages(text, 100)
                for passage in hit.passages
            ]


class TestBadData:
    @pytest.mark.parametrize(
        ("chunk", "message"),
        [
            ({"_id": "c", "doc": "lease", "start": 5, "end": 90000}, "does not lie in document"),
            ({"_id": "c", "doc": "lease", "start": -1, "end": 9}, "does not lie in document"),
            ({"_id": "c", "doc": "lease", "start": 9, "end": 9}, "does not lie in document"),
            ({"_id": "c", "doc": "lease", "start": 1.0, "end": 9}, "from 1.0 to 9"),
            ({"_id": "c", "doc": "nobody", "start": 0, "end": 9}, "has no document 'nobody'"),
            ({"_id": 5, "doc": "lease", "start": 0, "end": 9}, '"_id" is 5, not a name'),
            ({"_id": "c", "doc": "lease", "start": 0}, "KeyError: 'end'"),
            ([], "is not a record"),
            ({"_id": "rent", "doc": "lease", "start": 1, "end": 9}, "another place than in line 1"),
        ],
    )
    def test_a_faulty_chunk_is_refused_with_file_and_line(self, tmp_path, chunk, message):
        good = {"_id": "rent", "doc": "lease", "start": 0, "end": 50}
        folder = write_passages(tmp_path / "task", chunks=[good, chunk])
        with pytest.raises(TaskError, match=r"chunks\.jsonl, line 2: ") as error:
            read_passages(folder)
        assert message in str(error.value)
        assert open_suite(str(folder)).faulty["task"] == str(error.value)

    def test_qrels_that_name_no_chunk_are_refused(self, tmp_path):
        folder = write_passages(tmp_path / "task", qrels=["q1\tlease\t1"])
        with pytest.raises(TaskError, match=r"no query .* relevant document in chunks\.jsonl"):
            read_passages(folder)

    def test_judgements_of_unknown_chunks_are_left_out_and_named(self, tmp_path):
        folder = write_passages(tmp_path / "task", qrels=["q1\trent\t1", "q2\tcellar\t1"])
        with pytest.warns(UserWarning, match=r"not in chunks\.jsonl: 'cellar' \(line 2\)"):
            task = passage_task(folder)
        assert list(task.data.chunks.queries) == ["q1"]
        assert "cellar" in task.left_out[0]

    def test_files_without_chunks_hold_nothing_to_measure(self, tmp_path):
        folder = write_passages(tmp_path / "task", chunks=[])
        with pytest.raises(TaskError, match="holds no chunk"):
            read_passages(folder)


class TestFolders:
    def test_a_folder_with_a_corpus_is_a_task_of_documents_unless_passages_are_wanted(
        self, tmp_path
    ):
        write_passages(tmp_path / "data" / "only_passages")
        both = write_passages(tmp_path / "data" / "both")
        write_beir(both, {"rent": "rent"}, {"q1": "rent"}, [("q1", "rent", 1)])
        write_beir(tmp_path / "data" / "beir", {"a": "rent"}, {"q": "rent"}, [("q", "a", 1)])
        suite = open_suite(str(tmp_path / "data"))
        assert [task.metadata.name for task in suite.tasks] == ["beir", "both", "only_passages"]
        assert [hasattr(task, "passage_scores") for task in suite.tasks] == [False, False, True]
        suite = open_suite(str(tmp_path / "data"), passages=True)
        assert [task.metadata.name for task in suite.tasks] == ["both_passages", "only_passages"]
        assert all(hasattr(task, "passage_scores") for task in suite.tasks)
        assert suite.missing == {
            "beir": "holds no documents.jsonl with chunks.jsonl or spans.jsonl"
        }
        with pytest.raises(ConfigError, match="passkey: has no passages"):
            open_suite("passkey", passages=True)

    def test_results_are_of_these_data(self, tmp_path):
        """A place, a title or a gain that changes is another task."""
        first = read_passages(write_passages(tmp_path / "a"))
        chunks = [{"_id": key, **value._asdict()} for key, value in first.places.items()]
        for chunk in chunks:
            chunk["doc"] = chunk.pop("document")
        assert read_passages(write_passages(tmp_path / "b", chunks=chunks)).digest == first.digest
        chunks[0]["end"] -= 1
        assert read_passages(write_passages(tmp_path / "c", chunks=chunks)).digest != first.digest
        fewer = read_passages(write_passages(tmp_path / "d", qrels=["q1 rent 1"]))
        assert fewer.digest != first.digest
