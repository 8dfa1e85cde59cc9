"""BEIR folders as mteb's tasks: scores, revisions, result files, and what is refused."""

import shutil

import mteb
import numpy as np
import pytest
import pytrec_eval
from mteb.cache import ResultCache

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.models import open_peer
from dewey_embed.eval.tasks import beir_task, local_task
from tests.eval.conftest import write_beir

WORDS = ["timber", "harvest", "lantern", "river", "copper", "violin", "meadow", "falcon"]


@pytest.fixture
def folder(tmp_path):
    """Thirty documents of drawn words, twelve queries, gains from 0 to 4."""
    rng = np.random.default_rng(3)
    documents = {f"d{n}": " ".join(rng.choice(WORDS, 12)) for n in range(30)}
    queries = {f"q{n}": " ".join(rng.choice(WORDS, 2)) for n in range(12)}
    qrels = [
        (query, document, rng.integers(0, 5))
        for query in queries
        for document in rng.choice(list(documents), 6, replace=False)
    ]
    return write_beir(tmp_path / "drawn", documents, queries, qrels)


def run(model, task, cache=None, **options):
    done = mteb.evaluate(
        model, task, cache=cache, co2_tracker=False, show_progress_bar=False, **options
    )
    return done.task_results[0]


class Kept:
    """A search model that remembers what it answered."""

    def __init__(self, model):
        self.model, self.mteb_model_meta = model, model.mteb_model_meta

    def index(self, **arguments):
        self.model.index(**arguments)

    def search(self, **arguments):
        self.found = self.model.search(**arguments)
        return self.found


def test_scores_are_those_of_pytrec_eval_and_gains_count_as_they_stand(folder):
    model, task = Kept(open_peer("bm25")), beir_task(folder)
    scores = run(model, task).scores["test"][0]
    task.load_data()
    qrels = task.dataset["default"]["test"]["relevant_docs"]
    assert max(gain for gains in qrels.values() for gain in gains.values()) == 4
    measures = {"ndcg_cut.1,10", "recall.5,10"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(model.found).values()
    # trec_eval has no rank at which reciprocal ranks end, so its run is cut.
    top = {
        query: dict(sorted(hits.items(), key=lambda hit: (hit[1], hit[0]))[-10:])
        for query, hits in model.found.items()
    }
    ranks = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(top).values()
    wanted = {
        "ndcg_at_1": [each["ndcg_cut_1"] for each in found],
        "ndcg_at_10": [each["ndcg_cut_10"] for each in found],
        "recall_at_5": [each["recall_5"] for each in found],
        "recall_at_10": [each["recall_10"] for each in found],
        "mrr_at_10": [each["recip_rank"] for each in ranks],
    }
    assert 0 < np.mean(wanted["ndcg_at_10"]) < 1
    for name, values in wanted.items():
        mean = np.mean(values)
        if not name.startswith("mrr"):  # mteb rounds the others to five digits
            mean = round(mean, 5)
        assert scores[name] == pytest.approx(mean, abs=1e-9), name
    assert scores["main_score"] == scores["ndcg_at_10"]


def test_a_document_with_a_querys_id_is_a_document_like_any_other(tmp_path):
    documents = {"same": "timber harvest", "other": "river copper"}
    folder = write_beir(tmp_path / "ids", documents, {"same": "timber"}, [("same", "same", 1)])
    assert run(open_peer("bm25"), beir_task(folder)).get_score() == 1.0


def test_results_load_with_mtebs_tools_and_carry_the_datas_digest(folder, tmp_path):
    cache, model, task = ResultCache(tmp_path / "results"), open_peer("bm25"), beir_task(folder)
    score = run(model, task, cache).get_score()
    again = cache.load_task_result("drawn", model.mteb_model_meta)
    assert again.get_score() == pytest.approx(score, abs=1e-6)
    assert again.dataset_revision == task.metadata.revision
    [loaded] = cache.load_results().model_results
    assert [each.task_name for each in loaded.task_results] == ["drawn"]

    same = shutil.copytree(folder, tmp_path / "same" / "drawn")
    assert beir_task(same).metadata.revision == task.metadata.revision
    text = (same / "corpus.jsonl").read_text()
    (same / "corpus.jsonl").write_text(text.replace("timber", "lumber", 1))
    assert beir_task(same).metadata.revision != task.metadata.revision


def test_a_task_loads_again_after_it_was_unloaded(folder):
    task = beir_task(folder, name="other")
    for _ in range(2):
        task.load_data()
        assert len(task.dataset["default"]["test"]["corpus"]) == 30
        task.unload_data()
        assert task.metadata.name == "other"


def test_data_made_here_are_a_task_too():
    data = RetrievalData(
        name="made",
        documents={"a": "timber", "b": "river"},
        queries={"q": "timber"},
        qrels={"q": {"a": 1}},
    )
    task = beir_task(data, main_score="ndcg_at_1")
    assert (task.metadata.name, task.metadata.main_score) == ("made", "ndcg_at_1")
    assert run(open_peer("bm25"), task).get_score() == 1.0


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("qrels.tsv", "q0\td0\tmuch", r"qrels\.tsv, line \d+: .*'much'"),
        ("corpus.jsonl", '{"_id": "d0", "text": "x"}', r"corpus\.jsonl, line 31: id 'd0' comes"),
        ("queries.jsonl", '{"_id": "q0", "text": "x"}', r"queries\.jsonl, line 13: id 'q0' comes"),
        ("corpus.jsonl", '{"text": "x"}', r"corpus\.jsonl, line 31: is not a record"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(folder, file, line, message):
    if line == "q0\td0\tmuch":
        lines = (folder / file).read_text().splitlines()
        (folder / file).write_text("\n".join(each for each in lines if "q0\td0\t" not in each))
        line = f"\n{line}"
    with (folder / file).open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(TaskError, match=message):
        beir_task(folder)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_an_empty_or_missing_file_is_refused(folder, file):
    (folder / file).write_text("")
    with pytest.raises(TaskError, match=file):
        beir_task(folder)
    (folder / file).unlink()
    with pytest.raises(TaskError, match=file):
        beir_task(folder)


def test_one_of_mtebs_tasks_over_a_local_folder_stays_that_task(tmp_path):
    original = mteb.get_task("LEMBSummScreenFDRetrieval")
    documents = {"a": "timber harvest", "b": "river copper"}
    folder = write_beir(
        tmp_path / "one", documents, {"q": "river"}, [("q", "b", 1)],
        qrels_name="qrels/validation.tsv",
    )  # fmt: skip
    task = local_task(original, folder)
    assert isinstance(task, type(original))
    assert task.metadata.revision != original.metadata.revision
    result = run(open_peer("bm25"), task)
    assert result.task_name == "LEMBSummScreenFDRetrieval"
    assert list(result.scores) == ["validation"]
    assert result.get_score() == 1.0


def test_a_task_of_several_splits_needs_a_folder_for_each(tmp_path):
    original = mteb.get_task("LEMBNeedleRetrieval")
    documents, queries = {"a": "timber harvest", "b": "river copper"}, {"q": "river"}
    for split in original.metadata.eval_splits:
        write_beir(tmp_path / "needle" / split, documents, queries, [("q", "b", 1)])
    result = run(open_peer("bm25"), local_task(original, tmp_path / "needle"))
    assert len(result.scores) == 8
    shutil.rmtree(tmp_path / "needle" / "test_512")
    with pytest.raises(TaskError, match=r"no corpus\.jsonl for test_512"):
        local_task(original, tmp_path / "needle")
