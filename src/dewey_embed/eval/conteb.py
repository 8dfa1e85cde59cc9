"""ConTEB's tasks, and LMEB's three that are made of them, as tasks that rank chunks.

A data set of ConTEB has two configurations: `documents` with the columns `chunk_id` and `chunk`,
where a chunk's id is that of its document, an underscore and its number; and `queries` with `query`
and `chunk_id`, or `chunk_ids` where several answer. Documents have no titles. The names could not
be checked on the hub when this was written: they are those that public code reads (the authors'
`conteb` among others), and a data set of other columns is refused by name.

LMEB ranks the chunks of one document for each query, its candidates; so these are the document.

Source: Conti et al., arXiv 2505.24782; Zhao et al., arXiv 2603.12572.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mteb.abstasks import AbsTaskRetrieval

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import RetrievalData, Text
from dewey_embed.eval.chunk_task import ChunkTask, chunk_task
from dewey_embed.eval.passages import PassageData, Place, sample_name, title_before
from dewey_embed.files import sha256
from dewey_embed.titles import title_line

OWNER = "illuin-conteb"
SPLITS: Mapping[str, str] = MappingProxyType(
    {
        "squad-conteb-eval": "validation",
        "mldr-conteb-eval": "test",
        "narrative-qa": "test",
        "football": "train",
        "geography": "train",
        "covid-qa": "train",
        "esg-reports": "test",
        "insurance": "train",
    }
)
"""ConTEB's tasks by the names of their data sets, and the split that is measured on: `test` where
there is one, else `validation`, else `train`."""

LMEB = ("CovidQA", "ESGReports", "LMEBMLDR")
"""mteb's names of the tasks of LMEB whose chunks are ConTEB's."""

REVISION = "main"
FOLDER = "conteb"
"""Where a data folder keeps ConTEB: a folder for each data set, as the hub has it."""

SEPARATOR = "\n\n"
"""Stands between the chunks of a document, which the data sets hold one by one."""

Rows = Iterable[Mapping[str, Any]]


def conteb_task(
    name: str, folder: Path | None = None, *, num_documents: int | None = None, seed: int = 0
) -> AbsTaskRetrieval:
    """The task of a name in `SPLITS`, or a sample of its documents, read when it is needed.

    `folder` holds the data set as it lies on the hub, with its README; without a folder it comes
    from the hub, or from its cache.
    """
    path = str(folder) if folder is not None else f"{OWNER}/{name}"

    def read() -> PassageData:
        documents, queries = (_rows(path, kind, SPLITS[name]) for kind in ("documents", "queries"))
        data = join(name, documents, queries)
        return data if num_documents is None else data.sample(num_documents, seed)

    return chunk_task(
        name if num_documents is None else sample_name(name, num_documents, seed),
        read,
        path=path,
        revision=REVISION if folder is None else _digest(folder),
        left_out=(
            "its documents have no titles but the first lines of their texts, where a blank line "
            "follows; without one, titled reads a chunk alone",
        ),
    )


def _rows(path: str, kind: str, split: str) -> list[dict[str, Any]]:
    """The rows of a configuration of a data set, on the hub or in a folder."""
    from datasets import load_dataset

    rows: list[dict[str, Any]] = load_dataset(path, kind, split=split).to_list()
    return rows


def join(name: str, documents: Rows, queries: Rows) -> PassageData:
    """The task of the rows of both tables; a query without words or a known chunk is left out.

    Raises:
        TaskError: a column is missing, a chunk has no number or two texts, or no query is left.

    """
    numbered: dict[str, dict[int, str]] = {}
    for row in documents:
        _require(row, ("chunk_id", "chunk"), name, "documents")
        document, number = _parsed(str(row["chunk_id"]), name)
        text = row["chunk"] or ""
        if numbered.setdefault(document, {}).setdefault(number, text) != text:
            raise TaskError(f"{name}: the chunk {row['chunk_id']!r} has two different texts")
    texts = {
        document: {f"{document}_{number}": text for number, text in sorted(own.items())}
        for document, own in numbered.items()
    }
    known = {chunk for own in texts.values() for chunk in own}
    asked: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    num_queries = 0
    for num_queries, row in enumerate(queries, 1):
        several = row.get("chunk_ids")
        _require(row, ("query",) if several else ("query", "chunk_id"), name, "queries")
        gains = {str(chunk): 1 for chunk in several or [row["chunk_id"]] if str(chunk) in known}
        if gains and (row["query"] or "").strip():
            asked[f"q{num_queries}"], qrels[f"q{num_queries}"] = row["query"], gains
    if not asked:
        raise TaskError(f"{name}: no query has a chunk that answers; are these all of its files?")
    return _joined(name, texts, {}, asked, qrels, num_unjudged=num_queries - len(asked))


def _joined(
    name: str,
    texts: Mapping[str, Mapping[str, str]],
    titles: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    num_unjudged: int = 0,
) -> PassageData:
    """The task over documents that are the texts of their chunks, one after the other."""
    documents: dict[str, Text] = {}
    places: dict[str, Place] = {}
    for number, (document, own) in enumerate(texts.items(), 1):
        first, *_ = own.values()  # a line above the separator, which is ours, is no title
        title = titles.get(document, "") or title_line(first)
        documents[document] = Text(SEPARATOR.join(own.values()), title, number)
        start = 0
        for chunk, text in own.items():
            places[chunk] = Place(document, start, start + len(text))
            start += len(text) + len(SEPARATOR)
    chunks = {}
    for chunk, (document, start, end) in places.items():
        text, title, _ = documents[document]
        chunks[chunk] = Text(text[start:end], title_before(title, text, start), 0)
    return PassageData(
        documents=documents,
        places=places,
        chunks=RetrievalData(
            name=name,
            documents={chunk: each.with_title for chunk, each in chunks.items()},
            titles={chunk: each.title for chunk, each in chunks.items() if each.title},
            queries=dict(queries),
            qrels={query: dict(gains) for query, gains in qrels.items()},
            num_unjudged=num_unjudged,
        ),
    )


def _parsed(chunk: str, name: str) -> tuple[str, int]:
    """The document of a chunk, and its number in it."""
    document, _, number = chunk.rpartition("_")
    if not document or not number.isdecimal():
        raise TaskError(
            f"{name}: the chunk_id {chunk!r} is not that of a document, an underscore and a number"
        )
    return document, int(number)


def _require(row: Mapping[str, Any], columns: Sequence[str], name: str, kind: str) -> None:
    missing = [column for column in columns if column not in row]
    if missing:
        raise TaskError(
            f"{name}: {kind} have no {', '.join(missing)}, but {', '.join(row)}; ConTEB's have "
            f"{', '.join(columns)}"
        )


def _digest(folder: Path) -> str:
    """16 hex digits that change with the bytes of a data set's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(sha256(path))
    return digest.hexdigest()[:16]


def lmeb_task(name: str) -> AbsTaskRetrieval:
    """The task of a name in `LMEB`: mteb's, with documents for models that read them."""
    import mteb

    class Task(ChunkTask, type(mteb.get_task(name))):  # type: ignore[misc] # one of mteb's classes
        def passages(self) -> PassageData:
            """The documents, which are the candidates of the queries."""
            [subset] = self.dataset.values()
            [data] = subset.values()
            return of_candidates(name, data)

    Task.__name__ = Task.__qualname__ = name
    task: AbsTaskRetrieval = Task()
    return task


def of_candidates(name: str, data: Mapping[str, Any]) -> PassageData:
    """The task over documents that are queries' candidates, in the order of the corpus.

    A chunk that is nobody's candidate is a document of its own.
    """
    corpus = {row["id"]: row for row in data["corpus"]}
    places = {chunk: place for place, chunk in enumerate(corpus)}
    texts: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for group in [*map(frozenset, data["top_ranked"].values()), *(frozenset([c]) for c in corpus)]:
        own = sorted((group & places.keys()) - seen, key=places.__getitem__)
        seen.update(own)
        if own:
            texts[own[0]] = {chunk: corpus[chunk]["text"] for chunk in own}
    queries = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
    titles = {document: (corpus[document].get("title") or "").strip() for document in texts}
    return _joined(name, texts, titles, queries, data["relevant_docs"])
