"""`qrels.tsv` → which documents answer which query, with their gains.

Lines hold query, document and gain, or TREC's four columns, apart by tabs or, without one, by
spaces; a header is optional. A gain is a whole number, as trec_eval wants it: anything else is
refused, never rounded. A line that names an unknown id costs itself alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dewey_embed.errors import TaskError

Gains = dict[str, dict[str, int]]

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

MOST_NAMED = 3


class Judgement(NamedTuple):
    """One line of a qrels file."""

    line: int
    query: str
    document: str
    gain: int


class Judged(NamedTuple):
    """Gains above zero by query and document, and what was left out of them, in words."""

    gains: Gains
    left_out: tuple[str, ...]


def judged(
    path: Path,
    lines: Iterable[tuple[int, str]],
    *,
    queries: Container[str],
    documents: Container[str],
) -> Judged:
    """The judgements of a qrels file about known queries and documents.

    Raises:
        TaskError: a line is no judgement, or contradicts another; names file, line and remedy.

    """
    kept: dict[tuple[str, str], Judgement] = {}
    unknown: dict[str, dict[str, int]] = {"queries": {}, "documents": {}}
    lost: dict[str, list[int]] = defaultdict(list)
    for each in _judgements(path, lines):
        absent = "queries" if each.query not in queries else "documents"
        if each.query not in queries or each.document not in documents:
            name = each.query if absent == "queries" else each.document
            unknown[absent].setdefault(name, each.line)
            lost[absent].append(each.line)
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
    files = {"queries": "queries.jsonl", "documents": "corpus.jsonl"}
    left_out = tuple(
        f"{path}: {_counted(len(lost[kind]), 'line')} left out, about {kind} that are not in "
        f"{files[kind]}: {named(names)}"
        for kind, names in unknown.items()
        if names
    )
    return Judged(gains, left_out)


def named(places: Mapping[str, int]) -> str:
    """The first few of some names, each with its line, and how many more there are."""
    first = ", ".join(f"{name!r} (line {line})" for name, line in list(places.items())[:MOST_NAMED])
    more = len(places) - MOST_NAMED
    return first if more <= 0 else f"{first}, and {more:,} more"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _judgements(path: Path, lines: Iterable[tuple[int, str]]) -> Iterable[Judgement]:
    """The lines of a file, whatever its columns are."""
    columns: Sequence[str] | None = None
    for position, (number, line) in enumerate(lines):
        cells = line.split("\t") if "\t" in line else line.split()
        if position == 0 and (columns := _header(cells)) is not None:
            continue
        holds = columns or WITHOUT_HEADER.get(len(cells), ())
        if len(cells) != len(holds) or not all(cells):
            raise TaskError(
                f"{path}, line {number}: {_counted(len(cells), 'cell')} in {line!r:.80}, not a "
                "query id, a document id and a score; separate three cells by tabs"
            )
        row = dict(zip(holds, cells, strict=True))
        gain = _gain(row["score"].strip(), f"{path}, line {number}")
        yield Judgement(number, row["query"], row["document"], gain)


def _header(cells: Sequence[str]) -> tuple[str, ...] | None:
    """What the columns under a header hold; `None` where a line is no header."""
    names = tuple(HEADER_NAMES.get(cell.strip().lower().replace("_", "-"), "") for cell in cells)
    return names if set(COLUMNS) <= set(names) and len(set(names)) == len(names) else None


def _gain(cell: str, place: str) -> int:
    """A gain, a whole number as trec_eval wants it."""
    if NUMBER.fullmatch(cell) is None:
        raise TaskError(
            f"{place}: the score {cell!r} is no number; write a whole number, 0 for a document "
            "that is not relevant"
        )
    value = float(cell)
    if not value.is_integer():
        raise TaskError(
            f"{place}: the score {cell!r} is no whole number, and trec_eval takes no other; "
            "multiply every score of the file by one number (10 makes 5 of 0.5; nDCG stays as "
            "it is)"
        )
    if value > MAX_GAIN:
        raise TaskError(
            f"{place}: the score {cell!r} is above {MAX_GAIN:,}, the most that is read; divide "
            "every score of the file by one number"
        )
    return int(value)
