"""A folder in BEIR's layout → `RetrievalData`: documents, queries, and which answer which.

`corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`), and `qrels.tsv` or
`qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score` under a header). Whatever does not fit is an
error with its file and line: a figure over half of a task is worse than none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dewey_embed.errors import TaskError

QRELS_HEADER = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, kw_only=True)
class RetrievalData:
    """A retrieval task: texts by id, and each query's relevant documents with their gains.

    `documents` are title and text together, as BEIR reads them. `queries` are those with at least
    one relevant document; `num_unjudged` were left out for having none.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    num_unjudged: int = 0

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with any text, id or gain."""
        digest = hashlib.sha256()
        for part in (self.documents, self.queries, self.qrels):
            digest.update(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def is_beir_folder(folder: Path) -> bool:
    """Whether a folder holds a corpus in BEIR's layout."""
    return (folder / "corpus.jsonl").is_file()


def read_beir(folder: Path, *, split: str = "test") -> RetrievalData:
    """The task of a folder.

    Raises:
        TaskError: a file is missing or empty, a line is no record, an id comes twice, a qrels
            line names an unknown id, or no query has a relevant document.

    """
    corpus, asked = folder / "corpus.jsonl", folder / "queries.jsonl"
    documents = _texts(corpus, titles=True)
    queries = _texts(asked, titles=False)
    qrels = _qrels(_qrels_path(folder, split), documents, queries)
    judged = {query: text for query, text in queries.items() if query in qrels}
    return RetrievalData(
        name=folder.name,
        documents=documents,
        queries=judged,
        qrels={query: qrels[query] for query in judged},
        num_unjudged=len(queries) - len(judged),
    )


def _texts(path: Path, *, titles: bool) -> dict[str, str]:
    """Texts by id, in the order of the file."""
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
            name, text = record["_id"], record["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise TaskError(
                f'{place}: no record with "_id" and "text" ({type(error).__name__}: {error})'
            ) from None
        if not isinstance(name, str) or not isinstance(text, str):
            raise TaskError(f'{place}: "_id" and "text" must be strings')
        try:
            (name + text).encode()
        except UnicodeEncodeError:
            raise TaskError(
                f"{place}: holds half of a surrogate pair, which is no Unicode text"
            ) from None
        if name in texts:
            raise TaskError(f"{place}: id {name!r} comes a second time; ids must be unique")
        title = record.get("title") or "" if titles else ""
        texts[name] = f"{title} {text}".strip() if title else text
    if not texts:
        raise TaskError(f"{path}: holds no text; nothing can be measured on it")
    return texts


def _qrels_path(folder: Path, split: str) -> Path:
    tried = (folder / "qrels" / f"{split}.tsv", folder / "qrels.tsv")
    for path in tried:
        if path.is_file():
            return path
    raise TaskError(
        f"{folder}: neither {tried[0].relative_to(folder)} nor {tried[1].name} is there"
    )


def _qrels(
    path: Path, documents: dict[str, str], queries: dict[str, str]
) -> dict[str, dict[str, int]]:
    """Gains above zero by query and document."""
    lines = _lines(path)
    _, header = next(lines, (1, ""))
    if tuple(header.split("\t")) != QRELS_HEADER:
        raise TaskError(f"{path}, line 1: is {header!r}, not the header {' '.join(QRELS_HEADER)}")
    qrels: dict[str, dict[str, int]] = {}
    seen = set()
    for number, line in lines:
        place = f"{path}, line {number}"
        cells = line.split("\t")
        if len(cells) != 3:
            raise TaskError(f"{place}: {len(cells)} cells, not {' '.join(QRELS_HEADER)}")
        query, document, score = cells
        for kind, name, known in (("query", query, queries), ("document", document, documents)):
            if name not in known:
                raise TaskError(f"{place}: {kind} {name!r} is not in {_kind_file(kind)}")
        if (query, document) in seen:
            raise TaskError(f"{place}: query {query!r} and document {document!r} come twice")
        seen.add((query, document))
        try:
            gain = int(float(score))
        except ValueError:
            raise TaskError(f"{place}: the score {score!r} is no number") from None
        if gain > 0:
            qrels.setdefault(query, {})[document] = gain
    if not qrels:
        raise TaskError(f"{path}: no query has a relevant document; nothing can be measured")
    return qrels


def _kind_file(kind: str) -> str:
    """The file in which a query or a document is looked for."""
    return "queries.jsonl" if kind == "query" else "corpus.jsonl"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, numbered from 1."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from None
