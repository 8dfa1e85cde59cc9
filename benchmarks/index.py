"""What a megabyte of text costs in an index, and what a search of it takes.

    python benchmarks/index.py data/eval/chroma_chunks --large data/eval/scisumm_title

The folder holds whole documents (`documents.jsonl`), queries, and the places (`spans.jsonl`) that
answer them. Dewey indexes the documents as `dewey index` does. Beside it Sentence Transformers
embeds chunks of the same documents with all-MiniLM-L6-v2 and LanceDB keeps them, with its full-text
index, and searches by both (its hybrid search). Each takes turns in processes of its own, with its
model loaded and warm before the clock starts.

A query counts as answered where one of the first passages and a place share half of the shorter of
the two. `--large` is a BEIR folder whose documents are searched, too, for the time that an index of
its size takes; it is indexed once and kept under `--cache`. Results are written to
benchmarks/results/ as JSON, with a table beside them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from recording import RESULTS, write_page

from dewey_embed.eval.passages import PassageData, Place, read_passages
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table

NUM_SHOWN = 5
TIMED_QUERIES = 100
WARM_UP = "A sentence to warm up with, of a dozen words or thereabouts. " * 40

Search = Callable[[str], list[Place]]
"""From a query to the places of the passages shown."""


def dewey(task: PassageData, folder: Path) -> tuple[float, int, Search]:
    """Seconds to index, passages, and how to search."""
    from dewey_embed import Dewey, Document, Index

    model = Dewey.load()
    model.encode_document([WARM_UP])
    index = Index.open(folder, model)
    start = time.perf_counter()
    index.add([Document(id=name, text=each.text) for name, each in task.documents.items()])
    seconds = time.perf_counter() - start

    def search(query: str) -> list[Place]:
        hits = index.passages(query, NUM_SHOWN)
        return [Place(h.document_id, p.char_start, p.char_end) for h in hits for p in h.passages]

    return seconds, num_passages(index), search


def num_passages(index: Any) -> int:
    return len(index._committed()._newest().layout.owners)


def sentence_transformers(
    task: PassageData, folder: Path, tokens: int
) -> tuple[float, int, Search]:
    """Seconds to index, chunks, and how to search: chunks of `tokens` tokens, by LanceDB."""
    import lancedb
    from lancedb.index import FTS
    from sentence_transformers import SentenceTransformer

    from dewey_embed import Dewey
    from dewey_embed.text.splitter import split
    from dewey_embed.train.start import teacher_folder

    model = SentenceTransformer(str(teacher_folder()), device="cpu")
    tokenizer = Dewey.load().tokenizer  # of the same words
    model.encode([WARM_UP])
    start = time.perf_counter()
    rows = []
    for name, (text, _, _) in task.documents.items():
        words = tokenizer.encode([text])[0]
        spans = split(text, words, splitter="recursive", chunk_tokens=tokens)
        rows += [
            {"doc": name, "start": s.char_start, "end": s.char_end, "text": text[s[0] : s[1]]}
            for s in spans
        ]
    vectors = model.encode([each["text"] for each in rows], normalize_embeddings=True)
    for row, vector in zip(rows, vectors, strict=True):
        row["vector"] = vector
    table = lancedb.connect(folder).create_table("chunks", rows)
    table.create_index("text", config=FTS())
    seconds = time.perf_counter() - start

    def search(query: str) -> list[Place]:
        vector = model.encode(query, normalize_embeddings=True)
        words = "".join(each if each.isalnum() else " " for each in query)
        found = table.search(query_type="hybrid").vector(vector).text(words).limit(NUM_SHOWN)
        return [Place(row["doc"], row["start"], row["end"]) for row in found.to_list()]

    return seconds, len(rows), search


ENGINES: dict[str, Callable[[PassageData, Path], tuple[float, int, Search]]] = {
    "Dewey": dewey,
    "Sentence Transformers and LanceDB, chunks of 254 tokens": (
        lambda task, folder: sentence_transformers(task, folder, 254)
    ),
    "Sentence Transformers and LanceDB, chunks of 64 tokens": (
        lambda task, folder: sentence_transformers(task, folder, 64)
    ),
}


@dataclass
class Figures:
    """What an engine took in each round, and how much it answered."""

    seconds: list[float] = field(default_factory=list)
    num_bytes: int = 0
    num_passages: int = 0
    query_s: list[float] = field(default_factory=list)
    answered: tuple[float, ...] = ()


def measured(name: str, task: PassageData, pipe: Any) -> None:
    """Index and search once, in this process."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        seconds, number, search = ENGINES[name](task, folder)
        num_bytes = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
        times, shown = timed(search, list(task.chunks.queries.values()))
        first = []
        for query, found in zip(task.chunks.queries, shown, strict=True):
            places = [task.places[chunk] for chunk in task.chunks.qrels[query]]
            answers = [any(each.covers_half(place) for place in places) for each in found]
            first.append(answers.index(True) if any(answers) else NUM_SHOWN)
        answered = tuple(float(np.mean(np.array(first) < top)) for top in (1, 3, 5))
        pipe.send((seconds, num_bytes, number, times, answered))


def timed(search: Search, queries: list[str]) -> tuple[float, list[list[Place]]]:
    """The median seconds of a search, and what all found."""
    for query in queries[:5]:
        search(query)
    seconds, shown = [], []
    for query in queries:
        start = time.perf_counter()
        shown.append(search(query))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[:TIMED_QUERIES])), shown


def large(folder: Path, cache: Path, pipe: Any) -> None:
    """Numbers of documents and passages of a BEIR folder's index, and the seconds of a search."""
    from ranking import indexed

    from dewey_embed import Dewey
    from dewey_embed.eval.beir import read_beir

    task = read_beir(folder)
    index = indexed(task, Dewey.load(), cache)
    queries = list(task.queries.values())[:TIMED_QUERIES]
    times = [
        timed(search, queries)[0]
        for search in (index.search, index.passages)  # type: ignore[list-item]
    ]
    pipe.send((len(index), num_passages(index), *times))


def in_process(run: Callable[..., None], *arguments: Any) -> Any:
    """What a function sends from a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(*arguments, theirs))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", type=Path, help="folder with documents.jsonl and spans.jsonl")
    parser.add_argument("--large", type=Path, help="BEIR folder to search, too")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/dewey-embed/ranking"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    task = read_passages(options.task)
    figures = {name: Figures() for name in ENGINES}
    for _ in range(options.rounds):
        for name, each in figures.items():
            seconds, each.num_bytes, each.num_passages, query_s, each.answered = in_process(
                measured, name, task
            )
            each.seconds.append(seconds)
            each.query_s.append(query_s)
            print(f"{name}: {seconds:.1f} s, {query_s * 1e3:.1f} ms", flush=True)
    tables = [costs(task, figures), text_table(task)]
    if options.large:
        found = in_process(large, options.large, options.cache.expanduser())
        tables.append(large_table(options.large.name, *found))
    page = ResultPage(
        kind="index_cost",
        name="index_cost",
        title="What a megabyte of text costs",
        summary=f"{megabytes(task):.2f} MB in {len(task.documents)} documents, "
        f"{len(task.chunks.queries)} queries; medians of {options.rounds} rounds.",
        machine=Machine.here(),
        tables=tuple(tables),
    )
    write_page(page, RESULTS / "index_cost.json")


def megabytes(task: PassageData) -> float:
    """Megabytes of UTF-8."""
    return sum(len(each.text.encode()) for each in task.documents.values()) / 1e6


def costs(task: PassageData, figures: dict[str, Figures]) -> Table:
    """A row for each engine."""
    columns = (
        Column(name="engine"),
        Column(name="passages"),
        Column(name="to index", unit="s/MB", best="lowest", digits=1),
        Column(name="Dewey takes", unit="times that", digits=2),
        Column(name="on disk", unit="kB/MB", best="lowest", digits=0),
        Column(name="a query", unit="ms", best="lowest", digits=1),
        *(
            Column(name=f"answered by {name}", best="highest", digits=3)
            for name in ("the first passage", "one of three", "one of five")
        ),
    )
    size, ours = megabytes(task), float(np.median(figures["Dewey"].seconds))
    rows: list[tuple[Cell, ...]] = []
    for name, each in figures.items():
        seconds = float(np.median(each.seconds))
        cost = (seconds / size, ours / seconds, each.num_bytes / 1e3 / size)
        query_ms = float(np.median(each.query_s)) * 1e3
        rows.append((name, each.num_passages, *cost, query_ms, *each.answered))
    return Table(title="Indexing and searching", columns=columns, rows=tuple(rows))


def text_table(task: PassageData) -> Table:
    """The size of what was indexed."""
    from dewey_embed import Dewey

    texts = [each.text for each in task.documents.values()]
    tokens = sum(map(len, Dewey.load().tokenizer.encode(texts)))
    columns = (
        Column(name="documents"), Column(name="size", unit="MB", digits=3), Column(name="tokens"),
    )  # fmt: skip
    return Table(title="The text", columns=columns, rows=((len(texts), megabytes(task), tokens),))


def large_table(name: str, documents: int, passages: int, search_s: float, by_s: float) -> Table:
    """The time of searching an index of many passages."""
    columns = (
        Column(name="documents of"),
        Column(name="documents"),
        Column(name="passages"),
        Column(name="a search", unit="ms", digits=1),
        Column(name="a search by passage", unit="ms", digits=1),
    )
    return Table(
        title="From query to answer in a running process",
        columns=columns,
        rows=((name, documents, passages, search_s * 1e3, by_s * 1e3),),
    )


if __name__ == "__main__":
    main()
