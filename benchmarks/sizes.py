"""What fewer dimensions and fewer bits cost: nDCG@10 by `truncate_dim` and `precision`.

    python benchmarks/sizes.py --data data --model FOLDER

Documents are encoded once, in windows; their vectors are then cut and quantised as `truncate_dim`
and `precision` do it (of the first document that is checked), and searched by `Dewey.nearest`:
documents by their best chunk and their own vector, chunks of tasks whose judgements name chunks by
their vectors. `binary, rescored` finds four times as many by bits and orders them by int8. Queries
stay in float32. Long tasks are cut as in benchmarks/asymmetric.py. Results are written to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from asymmetric import CHARACTERS, DOCUMENTS_AT_ONCE, Task, read_task
from numpy.typing import NDArray
from recording import RESULTS, write_page

from dewey_embed import Dewey
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.eval.scores import Doubles, interval, query_scores
from dewey_embed.progress import progress_bar
from dewey_embed.quantization import to_precision, to_unit_float, truncate
from dewey_embed.types import DocumentVectors, Floats, Precision

TASKS = (
    "eval/time", "eval/medline", "eval/cranfield", "eval/chroma_chunks",
    "context/medquad_sections_dev",
)  # fmt: skip
DIMS = (384, 256, 128, 64)
TOP_K = 10
ALIKE = 0.9
"""Cosine of a vector that users get with the one that is measured."""

Searched = Sequence[DocumentVectors] | NDArray[Any]


class Way(NamedTuple):
    """How vectors are stored: their precision, and whether int8 ones lie beside them."""

    precision: Precision
    rescored: bool = False

    @property
    def name(self) -> str:
        """The way, as in the table."""
        return f"{self.precision}, rescored" if self.rescored else self.precision

    def num_bytes(self, dim: int) -> int:
        """Bytes of a vector that a search compares with every query."""
        return to_precision(np.zeros(dim, np.float32), self.precision).nbytes


WAYS = (Way("float32"), Way("int8"), Way("binary"), Way("binary", rescored=True))

LIMITS = {
    (384, Way("int8")): 0.002,
    (384, Way("binary", rescored=True)): 0.01,
    (128, Way("float32")): 0.02,
}
"""Of nDCG@10: the most that a variant may lose on the mean against float32 of all dimensions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--characters", type=int, default=CHARACTERS)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--output", "-o", type=Path, default=RESULTS / "sizes.json")
    arguments = parser.parse_args()
    model = Dewey.load(arguments.model)
    measured = {}
    for name in arguments.tasks:
        task = read_task(arguments.data / name, model, arguments.characters)
        measured[shown(task)] = scores_of(model, task, arguments.window)
    write_page(page_of(model, measured, arguments), arguments.output)


def shown(task: Task) -> str:
    """The task's name, with the number of its documents where not all were taken."""
    return f"{task.name}, first {len(task.texts):,}" if task.judged.cut else task.name


def scores_of(model: Dewey, task: Task, window: int) -> dict[tuple[int, Way], Doubles]:
    """nDCG@10 of every query, by dimensions and way."""
    documents: list[DocumentVectors] = []
    with progress_bar(task.name, len(task.texts), "documents", show=True) as advance:
        for start in range(0, len(task.texts), DOCUMENTS_AT_ONCE):
            some = slice(start, start + DOCUMENTS_AT_ONCE)
            documents += model.encode_document(
                task.texts[some], spans=task.chunks[some], window=window
            )
            advance(len(task.texts[some]))
    queries = model.encode_query(list(task.judged.queries.values()))
    scores = {}
    for dim in DIMS:
        small = Dewey.load(model.name, truncate_dim=dim)
        check(small, task, documents[0], window)
        for way in WAYS:
            searched = stored(task, documents, dim, way.precision)
            exact = stored(task, documents, dim, "int8") if way.rescored else None
            rows, values = small.nearest(truncate(queries, dim), searched, TOP_K, rescore=exact)
            scores[dim, way] = ndcg(task, rows, values)
    return scores


def stored(
    task: Task, documents: Sequence[DocumentVectors], dim: int, precision: Precision
) -> Searched:
    """What is searched: documents, or their chunks where these are judged, at a size."""
    if len(task.names) > len(documents):
        chunks = np.concatenate([document.chunks for document in documents])
        return quantised(chunks, dim, precision)
    return [
        replace(
            document,
            vector=quantised(document.vector, dim, precision),
            chunks=quantised(document.chunks, dim, precision),
        )
        for document in documents
    ]


def quantised(vectors: Floats, dim: int, precision: Precision) -> NDArray[Any]:
    """Vectors in their first dimensions, at a precision."""
    return to_precision(truncate(vectors, dim), precision)


def check(small: Dewey, task: Task, first: DocumentVectors, window: int) -> None:
    """Stop where users would get other vectors than those that are measured."""
    for precision in ("int8", "binary"):
        given = small.encode_document(
            task.texts[0], spans=task.chunks[0], window=window, precision=precision
        ).chunks
        expected = quantised(first.chunks, small.embedding_dim, precision)
        both = (to_unit_float(each, small.embedding_dim) for each in (given, expected))
        # Not equal: in another batch sums have another order, which turns a few bits.
        if np.multiply(*both).sum(axis=1).min() < ALIKE:
            raise SystemExit(f"{task.name}: precision={precision!r} gives other vectors")


def ndcg(task: Task, rows: NDArray[np.int64], values: Floats) -> Doubles:
    """nDCG@10 of every query, in the order of their names."""
    ranking = {
        query: {task.names[row]: float(value) for row, value in zip(own, scores, strict=True)}
        for query, own, scores in zip(task.judged.queries, rows, values, strict=True)
    }
    by_query = query_scores(task.judged.qrels, ranking)
    return np.array([by_query[query]["ndcg_at_10"] for query in sorted(by_query)])


def page_of(
    model: Dewey,
    measured: dict[str, dict[tuple[int, Way], Doubles]],
    settings: argparse.Namespace,
) -> ResultPage:
    """The page: nDCG@10 of every size, and what the sizes with a limit lose."""
    full = {name: scores[DIMS[0], WAYS[0]] for name, scores in measured.items()}
    rows: list[tuple[Cell, ...]] = []
    for dim in DIMS:
        for way in WAYS:
            by_task = [float(scores[dim, way].mean()) for scores in measured.values()]
            loss = float(np.mean(by_task) - np.mean([each.mean() for each in full.values()]))
            rows.append(
                (dim, way.name, way.num_bytes(dim), *by_task, float(np.mean(by_task)), loss)
            )
    losses = [
        (f"{way.name}, {dim}", name, *interval(scores[dim, way] - full[name]))
        for dim, way in LIMITS
        for name, scores in measured.items()
    ]
    label = Path(model.name).name
    return ResultPage(
        kind="sizes",
        name="sizes",
        title=f"What fewer dimensions and fewer bits cost: {label}",
        summary=" ".join(verdict(measured, full, *size) for size in LIMITS),
        machine=Machine.running(model),
        tables=(
            Table(
                title="nDCG@10 by dimensions and precision",
                columns=(
                    Column(name="dimensions", digits=0),
                    Column(name="precision"),
                    Column(name="bytes a vector", digits=0),
                    *(Column(name=name) for name in measured),
                    Column(name="mean", best="highest"),
                    Column(name="less float32's of all"),
                ),
                rows=tuple(rows),
                notes=(
                    f"The model is {label} (fingerprint {model.fingerprint}), in windows of "
                    f"{settings.window:,} tokens, with chunks of 128 tokens or those that are "
                    "judged; queries in float32.",
                    "Rescored: Dewey.nearest finds 40 by their bits and orders them by int8 "
                    "vectors, of which only these are read; bytes are those of the bits.",
                    f"Long tasks are cut to their first {settings.characters:,} characters of "
                    "documents, with the queries and judgements of these.",
                ),
            ),
            Table(
                title="What the sizes with a limit lose, by task",
                columns=(
                    Column(name="size"),
                    Column(name="task"),
                    *(Column(name=f"difference{end}") for end in ("", ", low", ", high")),
                ),
                rows=tuple(losses),
                notes=(
                    "Differences of nDCG@10 from float32 of all dimensions, with 95% intervals "
                    "over queries: percentile bootstrap, 2,000 resamples.",
                ),
            ),
        ),
    )


def verdict(
    measured: dict[str, dict[tuple[int, Way], Doubles]],
    full: dict[str, Doubles],
    dim: int,
    way: Way,
) -> str:
    """Whether a size loses as little as it may, in a sentence."""
    loss = np.mean(
        [scores[dim, way].mean() - full[name].mean() for name, scores in measured.items()]
    )
    limit = LIMITS[dim, way]
    holds = "holds" if loss >= -limit else "does not hold"
    return f"{way.name} of {dim} dimensions within {limit:g} of float32 {holds}: {loss:+.4f}."


if __name__ == "__main__":
    main()
