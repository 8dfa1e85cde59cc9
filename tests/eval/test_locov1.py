"""LoCoV1 from local files: joined as its authors join it, and what is refused."""

import json

import mteb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dewey_embed.errors import TaskError
from dewey_embed.eval.locov1 import locov1_task
from dewey_embed.eval.models import open_peer

DOCUMENTS = [
    {"dataset": "qmsum", "pid": "qmsum_Passage_0", "passage": "the meeting on timber"},
    {"dataset": "qmsum", "pid": "qmsum_Passage_1", "passage": "the meeting on rivers"},
    {"dataset": "qasper_title", "pid": "q_Passage_0", "passage": "a paper on harbours"},
    {"dataset": "qasper_title", "pid": "q_Passage_1", "passage": None},
]
QUERIES = [
    {"dataset": "qmsum", "qid": "a", "query": "timber", "answer_pids": ["qmsum_Passage_0"]},
    {"dataset": "qmsum", "qid": "b", "query": "rivers", "answer_pids": ["qmsum_Passage_1"]},
    {"dataset": "qasper_title", "qid": "q_Query_0", "query": "harbours",
     "answer_pids": ["q_Passage_0"]},
    {"dataset": "qasper_title", "qid": "q_Query_1", "query": "lost",
     "answer_pids": ["q_Passage_1"]},
]  # fmt: skip


def write(folder, kind, rows, *, parquet):
    folder.mkdir(parents=True, exist_ok=True)
    if parquet:
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{kind}.parquet")
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{kind}.jsonl").write_text(lines)


@pytest.fixture(params=["parquet", "jsonl"])
def folder(request, tmp_path):
    """Parquet lies as the hub's clients save it, JSONL as one would write it."""
    if request.param == "parquet":
        write(tmp_path / "LoCoV1-Documents" / "data", "test-00000", DOCUMENTS, parquet=True)
        write(tmp_path / "LoCoV1-Queries" / "data", "test-00000", QUERIES, parquet=True)
    else:
        write(tmp_path, "documents", DOCUMENTS, parquet=False)
        write(tmp_path, "queries", QUERIES, parquet=False)
    return tmp_path


def data_of(task):
    task.load_data()
    return task.dataset["default"]["test"]


def test_a_task_has_its_own_rows_only(folder):
    task = locov1_task("qmsum", folder)
    data = data_of(task)
    assert list(data["corpus"]["id"]) == ["qmsum_Passage_0", "qmsum_Passage_1"]
    assert data["relevant_docs"] == {"a": {"qmsum_Passage_0": 1}, "b": {"qmsum_Passage_1": 1}}
    done = mteb.evaluate(open_peer("bm25"), task, cache=None, co2_tracker=False)
    assert done.task_results[0].get_score() == 1.0
    assert task.metadata.main_score == "ndcg_at_10"


def test_papers_without_text_are_left_out_with_their_queries(folder):
    data = data_of(locov1_task("qasper_title", folder))
    assert list(data["corpus"]["id"]) == ["q_Passage_0"]
    assert list(data["queries"]["id"]) == ["q_Query_0"]


def test_changed_files_have_another_revision(tmp_path):
    write(tmp_path, "documents", DOCUMENTS, parquet=False)
    write(tmp_path, "queries", QUERIES, parquet=False)
    before = locov1_task("qmsum", tmp_path).metadata.revision
    write(tmp_path, "queries", QUERIES[:1], parquet=False)
    assert locov1_task("qmsum", tmp_path).metadata.revision != before


@pytest.mark.parametrize("parquet", [True, False])
def test_another_column_is_refused_by_name(tmp_path, parquet):
    renamed = [{"text" if key == "passage" else key: row[key] for key in row} for row in DOCUMENTS]
    write(tmp_path, "documents", renamed, parquet=parquet)
    write(tmp_path, "queries", QUERIES, parquet=parquet)
    with pytest.raises(TaskError, match=r"documents\..*: has no passage; .*dataset, pid, passage"):
        data_of(locov1_task("qmsum", tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_pids": ["nobody"]}, r"query 'a': answers \['nobody'\] are not documents"),
        ({"answer_pids": "qmsum_Passage_0"}, "answer_pids is not a list"),
        ({"qid": "b"}, "qid 'b' has two different texts"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, change, message):
    write(tmp_path, "documents", DOCUMENTS, parquet=False)
    write(tmp_path, "queries", [QUERIES[0] | change, *QUERIES[1:]], parquet=False)
    with pytest.raises(TaskError, match=message):
        data_of(locov1_task("qmsum", tmp_path))


def test_missing_files_and_tasks_without_rows_are_refused(tmp_path):
    write(tmp_path, "documents", DOCUMENTS, parquet=False)
    with pytest.raises(TaskError, match=r"holds no queries\.parquet"):
        locov1_task("qmsum", tmp_path)
    write(tmp_path, "queries", QUERIES, parquet=False)
    with pytest.raises(TaskError, match="no query has an answer"):
        data_of(locov1_task("stackoverflow", tmp_path))
    (tmp_path / "documents.parquet").write_bytes(b"no parquet")
    (tmp_path / "documents.jsonl").unlink()
    with pytest.raises(TaskError, match="cannot be read as Parquet"):
        data_of(locov1_task("qmsum", tmp_path))
