"""The twelve tasks of LoCoV1, which mteb lacks, as mteb's tasks; the paper's scores on them.

Source: arXiv 2402.07440 (Saad-Falcon et al.), the data sets `hazyresearch/LoCoV1-Documents` and
`hazyresearch/LoCoV1-Queries`. The names of columns could not be checked on the hub when this was
written: they are those that public code reads (the authors' `m2` loader among others), and a data
set of other columns is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mteb.abstasks import AbsTaskRetrieval

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import RetrievalData, numbered_lines
from dewey_embed.eval.tasks import SPLIT, retrieval_metadata, retrieval_task
from dewey_embed.files import sha256


class PaperFigures(NamedTuple):
    """The paper's scores: of its teacher at 8K tokens, of Dewey at 64K with one vector or many."""

    teacher: float
    single: float
    multi: float


LOCOV1: Mapping[str, PaperFigures] = MappingProxyType(
    {
        "2wikimqa": PaperFigures(0.9067, 0.9051, 0.9775),
        "courtlistener_HTML": PaperFigures(0.3670, 0.3616, 0.4775),
        "courtlistener_Plain_Text": PaperFigures(0.3761, 0.3485, 0.4426),
        "gov_report": PaperFigures(0.9837, 0.9883, 0.9853),
        "legal_case_reports": PaperFigures(0.5432, 0.5875, 0.6534),
        "multifieldqa": PaperFigures(0.9327, 0.9564, 0.9754),
        "passage_retrieval": PaperFigures(0.3407, 0.7389, 0.8550),
        "qasper_abstract": PaperFigures(0.9982, 0.9982, 0.9982),
        "qasper_title": PaperFigures(0.9833, 0.9742, 0.9840),
        "qmsum": PaperFigures(0.7237, 0.7613, 0.8154),
        "stackoverflow": PaperFigures(0.9760, 0.9369, 0.9443),
        "summ_screen_fd": PaperFigures(0.9635, 0.9821, 0.9788),
    }
)
"""The tasks with the paper's nDCG@10, of the released 395M model at 64K tokens, not of ours.

Source: arXiv 2503.20376, tables of §4.
"""

NAMES = tuple(LOCOV1)
"""The tasks, as the column `dataset` and the paper's tables name them."""

LONGEMBED = {"single": 0.7798, "multi": 0.8659}
"""The paper's means over LongEmbed's six tasks."""

FOLDER = "locov1"
"""Where a data folder keeps LoCoV1."""

DOCUMENTS, QUERIES = "Documents", "Queries"
HUB = {kind: f"hazyresearch/LoCoV1-{kind}" for kind in (DOCUMENTS, QUERIES)}
HUB_REVISION = "main"
COLUMNS = {
    DOCUMENTS: ("dataset", "pid", "passage"),
    QUERIES: ("dataset", "qid", "query", "answer_pids"),
}

Rows = Iterable[Mapping[str, Any]]


def locov1_task(name: str, folder: Path | None = None) -> AbsTaskRetrieval:
    """The task of a name in `NAMES`, whose data are read when they are needed.

    `folder` holds Parquet or JSONL files with `documents` and `queries` in their paths, as the
    hub has them; without a folder the data come from the hub, or from its cache. The digest of
    the files is the revision.

    Raises:
        TaskError: the folder has no files of either kind.

    """
    if folder is None:
        files, path, revision = None, HUB[DOCUMENTS], HUB_REVISION
    else:
        files = {kind: _files(folder, kind) for kind in (DOCUMENTS, QUERIES)}
        path, revision = str(folder), _digest([each for kind in files.values() for each in kind])
    metadata = retrieval_metadata(
        name,
        path=path,
        revision=revision,
        description=f"The task {name} of LoCoV1, whose documents are long.",
        reference="https://arxiv.org/abs/2402.07440",
    )

    def read() -> dict[str, RetrievalData]:
        documents, queries = (
            _hub_rows(kind, name) if files is None else _file_rows(files[kind], kind, name)
            for kind in (DOCUMENTS, QUERIES)
        )
        return {SPLIT: _join(name, documents, queries)}

    return retrieval_task(AbsTaskRetrieval, metadata, read)


def _join(name: str, documents: Rows, queries: Rows) -> RetrievalData:
    """The task of the rows of both tables.

    A few papers of Qasper have no text; as in the authors' evaluation, they are left out with the
    queries that only they answer.
    """
    texts = _by_id(name, documents, "pid", "passage")
    qrels: dict[str, dict[str, int]] = {}
    rows = list(queries)
    texts_of_queries = _by_id(name, rows, "qid", "query")
    for row in rows:
        query, answers = str(row["qid"]), row["answer_pids"]
        if isinstance(answers, str) or not isinstance(answers, Sequence):
            raise TaskError(
                f"LoCoV1 {name}, query {query!r}: answer_pids is not a list: {answers!r}"
            )
        unknown = [str(key) for key in answers if str(key) not in texts]
        if unknown:
            raise TaskError(f"LoCoV1 {name}, query {query!r}: answers {unknown} are not documents")
        gains = {str(key): 1 for key in answers if texts[str(key)]}
        if gains and texts_of_queries[query].strip():
            qrels[query] = gains
    if not qrels:
        raise TaskError(f"LoCoV1 {name}: no query has an answer; are these all of its files?")
    return RetrievalData(
        name=f"LoCoV1-{name}",
        documents={key: text for key, text in texts.items() if text},
        queries={key: texts_of_queries[key] for key in qrels},
        qrels=qrels,
        num_unjudged=len(rows) - len(qrels),
    )


def _by_id(name: str, rows: Rows, id_column: str, text_column: str) -> dict[str, str]:
    """Texts by id, an absent one empty; a row may come twice."""
    texts: dict[str, str] = {}
    for row in rows:
        key, text = str(row[id_column]), row[text_column] or ""
        if not isinstance(text, str):
            raise TaskError(
                f"LoCoV1 {name}: {text_column} of {key!r} is {text!r:.80}, not a string"
            )
        if texts.setdefault(key, text) != text:
            raise TaskError(f"LoCoV1 {name}: {id_column} {key!r} has two different texts")
    return texts


def _hub_rows(kind: str, name: str) -> list[dict[str, Any]]:
    """Rows of a task from the hub, or from its cache on disk."""
    from datasets import load_dataset

    table = load_dataset(HUB[kind], split=SPLIT, revision=HUB_REVISION)
    _require_columns(table.column_names, kind, HUB[kind])
    numbers = [number for number, each in enumerate(table["dataset"]) if each == name]
    rows: list[dict[str, Any]] = table.select(numbers).to_list()
    return rows


def _file_rows(paths: Sequence[Path], kind: str, name: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a task from Parquet and JSONL files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        if path.suffix == ".jsonl":
            yield from _json_rows(path, kind, name)
            continue
        try:
            _require_columns(pq.read_schema(path).names, kind, str(path))
            filters = [("dataset", "=", name)]
            yield from pq.read_table(path, columns=list(COLUMNS[kind]), filters=filters).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise TaskError(f"{path}: cannot be read as Parquet: {error}") from None


def _json_rows(path: Path, kind: str, name: str) -> Iterator[Mapping[str, Any]]:
    for number, line in numbered_lines(path):
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{place}: is not JSON: {error}") from None
        _require_columns(row if isinstance(row, dict) else (), kind, place)
        if row["dataset"] == name:
            yield row


def _require_columns(columns: Iterable[str], kind: str, place: str) -> None:
    missing = [column for column in COLUMNS[kind] if column not in columns]
    if missing:
        raise TaskError(
            f"{place}: has no {', '.join(missing)}; LoCoV1's {kind.lower()} have the columns "
            f"{', '.join(COLUMNS[kind])}"
        )


def _files(folder: Path, kind: str) -> list[Path]:
    """Parquet and JSONL files below the folder whose path says that they are of a kind."""
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".parquet", ".jsonl")
        and kind.lower() in str(path.relative_to(folder)).lower()
    ]
    if not paths:
        raise TaskError(
            f"{folder}: holds no {kind.lower()}.parquet or {kind.lower()}.jsonl of LoCoV1"
        )
    return paths


def _digest(paths: Sequence[Path]) -> str:
    """16 hex digits that change with the files' bytes."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(sha256(path))
        except OSError as error:
            raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:16]
