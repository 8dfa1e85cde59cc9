"""A folder in BEIR's layout → `RetrievalData`: documents, queries, and the judgements of both.

A folder holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`), and
`qrels.tsv` or `qrels/SPLIT.tsv`: query, document and gain, or TREC's four columns, with tabs or
spaces between them; a header is optional. A gain is a whole number, as trec_eval wants it: any
other is refused, never rounded.

A line that is not a record is an error with its file and line. A query without words and a
judgement about an unknown id are left out, counted and named in a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import warnings
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dewey_embed.errors import TaskError
from dewey_embed.printable import first_few

JUDGED = (
    'queries.jsonl with lines {"_id": "q1", "text": "..."}, and qrels.tsv with lines of query id, '
    "document id (or chunk id) and score, apart by tabs (docs/evaluation.md has an example)"
)
LAYOUT = (
    'a task is a folder of three files: corpus.jsonl with lines {"_id": "d1", "text": "..."}, '
    f"{JUDGED}"
)

COLUMNS = ("query", "document", "score")
HEADER_NAMES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("query-id", "query", "qid", "queryid"), "query")
    | dict.fromkeys(
        ("corpus-id", "document-id", "doc-id", "document", "docid", "did", "docno", "pid"),
        "document",
    )
    | dict.fromkeys(("score", "relevance", "rel", "label", "gain"), "score")
    | dict.fromkeys(("iteration", "iter", "q0", "0"), "iteration")
)
"""Names of columns that are in use, and what they hold."""

WITHOUT_HEADER = {3: COLUMNS, 4: ("query", "iteration", "document", "score")}
"""What the columns hold by their number: BEIR's and TREC's order."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAX_GAIN = 1_000_000
"""trec_eval reserves memory for every gain up to the highest."""

MAX_NAMED = 3
"""Ids that a message names before it counts the rest."""

Gains = dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class RetrievalData:
    """A retrieval task: texts by id, and each query's relevant documents with their gains.

    `documents` are title and text together, as BEIR reads them, and `titles` those that begin
    with one, for models that treat titles apart. `queries` are those with at least one relevant
    document; `num_unjudged` were left out for having none. `left_out` says in words what else of
    the folder is no part of the task.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: Gains
    titles: dict[str, str] = field(default_factory=dict)
    num_unjudged: int = 0
    left_out: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with any text, id or gain."""
        digest = hashlib.sha256()
        for part in (self.documents, self.queries, self.qrels):
            digest.update(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def is_beir_folder(folder: Path) -> bool:
    """Whether a folder holds a corpus in BEIR's layout."""
    return is_file(folder / "corpus.jsonl")


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        TaskError: with the layout of a task.

    """
    if not os.path.lexists(folder.expanduser()):
        raise TaskError(f"{folder}: is not there; {LAYOUT}")


def read_beir(folder: Path, *, split: str = "test") -> RetrievalData:
    """The task of a folder; a warning names what is left out of it.

    Raises:
        TaskError: a file is missing, empty or cannot be read, a line is not a record, an id has
            two texts, or no query has words and a relevant document.

    """
    corpus = folder.expanduser() / "corpus.jsonl"
    return with_judgements(read_texts(corpus, titles=True), corpus, split=split)


def with_judgements(
    documents: Mapping[str, Text], corpus: Path, *, split: str = "test"
) -> RetrievalData:
    """The task of the texts of a file and of the queries and judgements beside it.

    Raises:
        TaskError: as `read_beir`.

    """
    folder = corpus.parent
    queries_path = folder / "queries.jsonl"
    queries = read_texts(queries_path, titles=False)
    path = _qrels_path(folder, split)
    gains, left_out = _read_gains(path, queries=queries, documents=documents, corpus=corpus.name)
    blank = {query: each.line for query, each in queries.items() if not each.text.strip()}
    if blank:
        why = "left out for having no words"
        left_out += (f"{queries_path}: {len(blank):,} {why}: {_list(blank)}",)
    judged = {
        query: each.text for query, each in queries.items() if query in gains and query not in blank
    }
    if not judged:
        why = "; ".join(left_out) or "every score is 0"
        raise TaskError(
            f"{path}: no query of queries.jsonl has a relevant document in {corpus.name}, so "
            f"there is nothing to measure ({why})"
        )
    for message in left_out:
        warnings.warn(message, UserWarning, stacklevel=3)
    return RetrievalData(
        name=Path(os.path.abspath(folder)).name,
        documents={name: each.with_title for name, each in documents.items()},
        titles={name: each.title for name, each in documents.items() if each.title},
        queries=judged,
        qrels={query: gains[query] for query in judged},
        num_unjudged=len(queries) - len(judged) - len(blank),
        left_out=left_out,
    )


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, numbered from 1, without a byte order mark.

    Raises:
        TaskError: the file is missing, cannot be read, or is not UTF-8.

    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        missing = path if path.parent.is_dir() else path.parent
        layout = f"a task has {JUDGED}" if path.name == "queries.jsonl" else LAYOUT
        raise TaskError(f"{missing}: is not there; {layout}") from None
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{path}: is not UTF-8 text ({error.reason}, near byte {error.start} of a block); save "
            "it as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: cannot be read: {_reason(error)}") from None


class Text(NamedTuple):
    """A text, its title, and the line it stands in."""

    text: str
    title: str
    line: int

    @property
    def with_title(self) -> str:
        """The text under its title, if it has one, as BEIR reads it."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


def read_texts(path: Path, *, titles: bool) -> dict[str, Text]:
    """Texts by id, in the order of the file.

    Raises:
        TaskError: the file is missing, empty or cannot be read, a line is not a record, or an id
            has two texts.

    """
    texts: dict[str, Text] = {}
    for number, line in numbered_lines(path):
        place = f"{path}, line {number}"
        name, text, title = _record(line, place, titles=titles)
        own = Text(text, title, number)
        before = texts.setdefault(name, own)
        if before.with_title != own.with_title:
            raise TaskError(
                f"{place}: id {name!r} comes a second time, with another text than in line "
                f"{before.line}; give each text an id of its own"
            )
    if not texts:
        raise TaskError(f"{path}: holds no text, so there is nothing to measure")
    return texts


def _record(line: str, place: str, *, titles: bool) -> tuple[str, str, str]:
    """The id of a line, its text and its title."""
    try:
        record = json.loads(line)
        name, text = record["_id"], record["text"]
        title = record.get("title") if titles else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TaskError(
            f'{place}: is not a record with "_id" and "text" ({type(error).__name__}: {error}); '
            'write one object a line, such as {"_id": "d1", "text": "..."}'
        ) from None
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    for key, value in (("_id", name), ("text", text), ("title", "" if title is None else title)):
        if not isinstance(value, str):
            raise TaskError(
                f'{place}: "{key}" is {type(value).__name__}, not a string; put it in quotes'
            )
    try:
        f"{name}{title}{text}".encode()
    except UnicodeEncodeError:
        raise TaskError(
            f"{place}: holds half of a surrogate pair, which is not Unicode text; remove it"
        ) from None
    if not name.strip():
        raise TaskError(f'{place}: "_id" is {name!r}; give the text a name')
    return name, text, (title or "").strip()


class _Judgement(NamedTuple):
    """One line of a qrels file."""

    line: int
    query: str
    document: str
    gain: int


def _read_gains(
    path: Path, *, queries: Container[str], documents: Container[str], corpus: str
) -> tuple[Gains, tuple[str, ...]]:
    """Gains above zero by query and document, and in words which lines were left out."""
    kept: dict[tuple[str, str], _Judgement] = {}
    unknown: dict[str, dict[str, int]] = {"queries": {}, "documents": {}}
    num_unknown: dict[str, int] = defaultdict(int)
    for each in _judgements(path):
        if each.query not in queries or each.document not in documents:
            kind = "documents" if each.query in queries else "queries"
            name = each.document if each.query in queries else each.query
            unknown[kind].setdefault(name, each.line)
            num_unknown[kind] += 1
            continue
        before = kept.setdefault((each.query, each.document), each)
        if before.gain != each.gain:
            raise TaskError(
                f"{path}, line {each.line}: query {each.query!r} and document {each.document!r} "
                f"have the score {each.gain}, but {before.gain} in line {before.line}; "
                "remove one of the two lines"
            )
    gains: Gains = {}
    for each in kept.values():
        if each.gain > 0:
            gains.setdefault(each.query, {})[each.document] = each.gain
    files = {"queries": "queries.jsonl", "documents": corpus}
    left_out = tuple(
        f"{path}: {_count(num_unknown[kind], 'line')} left out, about {kind} that are not in "
        f"{files[kind]}: {_list(names)}"
        for kind, names in unknown.items()
        if names
    )
    return gains, left_out


def _judgements(path: Path) -> Iterable[_Judgement]:
    """The lines of a qrels file, whatever its columns are."""
    columns: Sequence[str] | None = None
    for position, (number, line) in enumerate(numbered_lines(path)):
        cells = line.split("\t") if "\t" in line else line.split()
        if position == 0 and (columns := _header(cells)) is not None:
            continue
        names = columns or WITHOUT_HEADER.get(len(cells), ())
        if len(cells) != len(names) or not all(cells):
            raise TaskError(
                f"{path}, line {number}: {_count(len(cells), 'cell')} in {line!r:.80}, not a "
                "query id, a document id and a score; separate three cells by tabs"
            )
        row = dict(zip(names, cells, strict=True))
        gain = _gain(row["score"].strip(), f"{path}, line {number}")
        yield _Judgement(number, row["query"], row["document"], gain)


def _header(cells: Sequence[str]) -> tuple[str, ...] | None:
    """What the columns under a header hold; `None` where a line is not a header."""
    names = tuple(HEADER_NAMES.get(cell.strip().lower().replace("_", "-"), "") for cell in cells)
    return names if set(COLUMNS) <= set(names) and len(set(names)) == len(names) else None


def _gain(cell: str, place: str) -> int:
    if NUMBER.fullmatch(cell) is None:
        raise TaskError(
            f"{place}: the score {cell!r} is not a number; write a whole number, 0 for a document "
            "that is not relevant"
        )
    value = float(cell)
    if not value.is_integer():
        raise TaskError(
            f"{place}: the score {cell!r} is not a whole number, and trec_eval takes no other; "
            "multiply every score of the file by one number (10 makes 5 of 0.5; nDCG stays as "
            "it is)"
        )
    if value > MAX_GAIN:
        raise TaskError(
            f"{place}: the score {cell!r} is above {MAX_GAIN:,}, the most that is read; divide "
            "every score of the file by one number"
        )
    return int(value)


def _qrels_path(folder: Path, split: str) -> Path:
    tried = (folder / "qrels" / f"{split}.tsv", folder / "qrels.tsv")
    for path in tried:
        if is_file(path):
            return path
    raise TaskError(
        f"{folder}: neither {tried[0].relative_to(folder)} nor {tried[1].name} is there; a task "
        f"has {JUDGED}"
    )


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        TaskError: the path may not be looked at.

    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: cannot be looked at: {_reason(error)}") from None


def _list(lines: Mapping[str, int]) -> str:
    """The first few of some ids, each with its line, and how many more there are."""
    return first_few([f"{name!r} (line {line})" for name, line in lines.items()], MAX_NAMED)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _reason(error: Exception) -> str:
    """The system's words, without the path that stands before them."""
    return getattr(error, "strerror", None) or str(error)
