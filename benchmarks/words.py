"""Engines that score passages by their words: ours, bm25s, and LanceDB's full text.

    python benchmarks/words.py data/eval/scisumm_title

The passages are those of the index that `benchmarks/index.py` keeps under `--cache`. bm25s and
ours score every passage, as a search needs it, by the same words: each word is given to bm25s as
its number, and its ten best passages must have our scores. LanceDB finds words of its own and
gives the ten best. Results are written to benchmarks/results/ as JSON, with a table beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bm25s
import lancedb
import numpy as np
from lancedb.index import FTS
from recording import RESULTS, write_page

from dewey_embed import Index
from dewey_embed.eval.beir import read_beir
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.index.vectors import top_k
from dewey_embed.index.words import K1, B, count_words, query_words

NUM = 10
NUM_QUERIES = 200


def texts_of(index: Index) -> Iterator[str]:
    """The texts of all passages, in the order of their rows."""
    layout = index._committed()._newest().layout
    for row, name in enumerate(layout.documents["id"].to_pylist()):
        text = index.document(name).text
        for start, end in layout.spans[layout.starts[row] : layout.starts[row + 1]].tolist():
            yield text[start:end]


def timed(search: Callable[[str], Any], queries: list[str]) -> tuple[float, list[Any]]:
    """The median milliseconds of a query, and what all found."""
    for query in queries[:10]:
        search(query)
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query))
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3, found


def numbered(text: str) -> list[str]:
    """The words of a text by number, each as often as it stands there."""
    numbers, counts = count_words(text)
    return [str(number) for number in np.repeat(numbers, counts)]


def rows(index: Index, queries: list[str]) -> Iterator[tuple[Cell, ...]]:
    """A row for each engine: seconds to build, milliseconds a query, agreement with ours."""
    layout = index._committed()._newest().layout
    texts = list(texts_of(index))
    words = layout.passage_words

    def ours(query: str) -> np.ndarray:
        scores = words.scores(query)
        best = top_k(scores, NUM)
        return np.sort(scores[best])[::-1]

    ms, _ = timed(ours, queries)
    yield "Dewey", len(texts), None, ms, 1.0

    start = time.perf_counter()
    library = bm25s.BM25(k1=K1, b=B, method="lucene")
    library.index([numbered(text) for text in texts], show_progress=False)
    seconds = time.perf_counter() - start

    def theirs(query: str) -> np.ndarray:
        names = [[str(number) for number in query_words(query)[0]]]
        return library.retrieve(names, k=NUM, show_progress=False)[1][0]

    # Words that only hold a query together count less here, which bm25s does not know.
    content = [each for each in map(content_words, queries) if each]
    ms, other = timed(theirs, content)
    same = [
        np.allclose(ours(query) * words.postings(query)[1], scores, rtol=1e-3)
        for query, scores in zip(content, other, strict=True)
    ]
    yield "bm25s", len(texts), seconds, ms, float(np.mean(same))

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table = lancedb.connect(folder).create_table("t", [{"text": text} for text in texts])
        table.create_index("text", config=FTS())
        seconds = time.perf_counter() - start

        def lance(query: str) -> Any:
            plain = "".join(each if each.isalnum() else " " for each in query)
            return table.search(plain, query_type="fts").limit(NUM).to_arrow()

        yield "LanceDB's full text", len(texts), seconds, timed(lance, queries)[0], None


def content_words(query: str) -> str:
    """The query without the words that weigh less in it."""
    return " ".join(each for each in query.split() if (query_words(each)[1] == 1).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", type=Path, help="BEIR folder")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/dewey-embed/ranking"))
    options = parser.parse_args()
    index = Index.open(options.cache.expanduser() / options.task.name)
    queries = list(read_beir(options.task).queries.values())[:NUM_QUERIES]
    columns = (
        Column(name="engine"),
        Column(name="passages"),
        Column(name="to build", unit="s", digits=1),
        Column(name="a query", unit="ms", best="lowest", digits=2),
        Column(name="queries with our ten scores", unit="share", digits=3),
    )
    table = Table(title="Engines of words", columns=columns, rows=tuple(rows(index, queries)))
    page = ResultPage(
        kind="words",
        name="words",
        title="Scores of passages by their words",
        summary=f"{len(queries)} queries of {options.task.name}; medians, one query at a time.",
        machine=Machine.here(),
        tables=(table,),
    )
    write_page(page, RESULTS / "words.json")


if __name__ == "__main__":
    main()
