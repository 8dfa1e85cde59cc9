"""How the weights of a passage's score were chosen, and how well it tells that nothing answers.

    python benchmarks/ranking.py --data data/eval
    python benchmarks/ranking.py --data data/eval --unanswered

Each task is indexed once, as `dewey index` does it, and kept under `--cache`. The first command
ranks documents by every set of weights in `WEIGHTS`; the second compares the probability of the
best hit with that of the best one when the documents that answer are taken out of the hits, and
with that of queries of the other tasks; and, in indexes of a few of the documents, with that of
queries that the others answer. docs/data.md says what the data are and how to make them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from recording import RESULTS, write_page

from dewey_embed import Dewey, Document, Index
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.index.ranking import Query, Ranking, ranked
from dewey_embed.progress import progress_bar
from dewey_embed.scoring import (
    DOCUMENT_SCALE_WEIGHT,
    MEANING,
    SURROUNDINGS_WEIGHT,
    TITLE_WEIGHT,
    UNANSWERED,
    Scales,
)

SEED = 0
TOP = 10
FEW = (5, 15, 40)
"""Documents of an index that answers some of its task's queries, and not the others."""

OF_FEW = 40
"""Queries of each kind asked of such an index."""

LONGEST = 25_000
"""Characters of its documents."""

OTHER_QUERIES = 10
"""Queries taken from each of the other tasks, which no document answers."""


@dataclass(frozen=True)
class Weights:
    """Weights of meaning beside words, and of surroundings, document and title beside 1."""

    meaning: float = MEANING
    surroundings: float = SURROUNDINGS_WEIGHT
    document: float = DOCUMENT_SCALE_WEIGHT
    title: float = TITLE_WEIGHT

    def __str__(self) -> str:
        return (
            f"meaning {self.meaning:g}, surroundings {self.surroundings:g}, "
            f"document {self.document:g}, title {self.title:g}"
        )


OURS = Weights()
WEIGHTS = (
    OURS,
    *(replace(OURS, meaning=share) for share in (0, 0.2, 0.5, 0.7, 1)),
    *(replace(OURS, surroundings=weight) for weight in (0, 0.25, 1)),
    *(replace(OURS, document=weight) for weight in (0, 0.5, 1, 2)),
    *(replace(OURS, title=weight) for weight in (0, 0.25, 1)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of BEIR folders")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--queries", type=int, default=120, help="of each task, drawn by seed")
    parser.add_argument("--unanswered", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/dewey-embed/ranking"))
    parser.add_argument("--output", help="name under benchmarks/results")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    model = Dewey.load(options.model)
    tasks = [
        read_beir(folder)
        for folder in sorted(options.data.iterdir())
        if (folder / "corpus.jsonl").is_file()
    ]
    measure = unanswered if options.unanswered else weights
    found = measure(tasks, model, options.cache.expanduser(), options.queries)
    if options.unanswered:
        found = found.model_copy(update={"tables": (*found.tables, of_few(tasks, model))})
    write_page(found, RESULTS / f"{options.output or found.name}.json")


def indexed(task: RetrievalData, model: Dewey, cache: Path) -> Index:
    """The index of a task's documents."""
    index = Index.open(cache / task.name, model)
    titles = task.titles
    index.add(
        [
            Document(
                id=name,
                title=titles.get(name, ""),
                text=text.removeprefix(titles.get(name, "")).removeprefix(" "),
            )
            for name, text in task.documents.items()
        ],
        progress=True,
    )
    return index


def drawn(task: RetrievalData, num: int) -> Iterator[tuple[str, str]]:
    """Ids and texts of up to `num` queries that a document answers."""
    names = [name for name in task.queries if any(task.qrels.get(name, {}).values())]
    if len(names) > num:
        rng = np.random.default_rng(SEED)
        names = [names[row] for row in sorted(rng.choice(len(names), num, replace=False))]
    return ((name, task.queries[name]) for name in names)


def weights(tasks: Sequence[RetrievalData], model: Dewey, cache: Path, num: int) -> ResultPage:
    """nDCG@10 of each task by every set of weights."""
    scores = {each: [] for each in WEIGHTS}
    for task in tasks:
        index = indexed(task, model, cache)
        layout = index._committed()._newest().layout
        ids = layout.documents["id"].to_pylist()
        gains = {each: [] for each in WEIGHTS}
        with progress_bar(task.name, num, "queries", show=True) as advance:
            for name, text in drawn(task, num):
                vector = model.encode_query(text)
                query = Query(text=text, vector=vector, k=TOP, mode="hybrid", passages=0)
                for each, best in best_documents(ranked(query, layout)):
                    found = [task.qrels[name].get(ids[row], 0) for row in best]
                    gains[each].append(ndcg(found, task.qrels[name].values()))
                advance(1)
        for each in WEIGHTS:
            scores[each].append(float(np.mean(gains[each])))
    columns = [Column(name=task.name) for task in tasks]
    rows = [[str(each), np.mean(scores[each]), *scores[each]] for each in WEIGHTS]
    return page(
        "Weights of a passage's score",
        f"nDCG@10 of up to {num} queries of each task, by documents",
        [Column(name="weights"), Column(name="mean"), *columns],
        rows,
    )


def best_documents(ranking: Ranking) -> Iterator[tuple[Weights, np.ndarray]]:
    """The best documents by every set of weights."""
    layout, scorer = ranking._layout, ranking._scorer
    rows = np.arange(len(layout.owners))
    meaning, words = scorer._meaning_at(rows), scorer._words
    for each in WEIGHTS:
        by_meaning = each.meaning * combined(meaning, each)
        total = by_meaning + (1 - each.meaning) * combined(words, each)
        best = np.maximum.reduceat(total, layout.starts[:-1])
        yield each, np.argsort(-best, kind="stable")[:TOP]


def combined(scales: Scales, each: Weights) -> np.ndarray:
    """The weighted sum over all scales."""
    total = np.maximum(scales.passage, 0) + each.surroundings * np.maximum(scales.surroundings, 0)
    total = total + each.document * np.maximum(scales.document, 0)
    if scales.title is not None:
        total = total + each.title * np.maximum(scales.title, 0)
    return total


def ndcg(gains: Sequence[float], every: Sequence[float]) -> float:
    """NDCG of gains in their order, among all that there are."""

    def discounted(values: Sequence[float]) -> float:
        return sum(value / np.log2(rank + 2) for rank, value in enumerate(values))

    return discounted(gains) / discounted(sorted(every, reverse=True)[:TOP])


def unanswered(tasks: Sequence[RetrievalData], model: Dewey, cache: Path, num: int) -> ResultPage:
    """How well the probability of the best hit tells queries with an answer from those without."""
    queries = {task.name: list(drawn(task, num)) for task in tasks}
    rows = []
    for task in tasks:
        index = indexed(task, model, cache)
        others = [
            text
            for name, several in queries.items()
            if name != task.name
            for _, text in several[:OTHER_QUERIES]
        ]
        there, gone, elsewhere = [], [], []
        num_asked = len(queries[task.name]) + len(others)
        with progress_bar(task.name, num_asked, "queries", show=True) as advance:
            for name, text in queries[task.name]:
                gold = {key for key, gain in task.qrels[name].items() if gain > 0}
                hits = index.search(text, k=len(gold) + 1, passages=1)
                there.append(hits[0].probability)
                gone.append(next(hit.probability for hit in hits if hit.document_id not in gold))
                advance(1)
            for text in others:
                elsewhere.append(index.search(text, k=1, passages=1)[0].probability)
                advance(1)
        two_percent = float(np.quantile(there, 0.02))
        rows.append(
            [
                task.name,
                auroc(there, gone),
                auroc(there, elsewhere),
                *(share_from(values, UNANSWERED) for values in (there, gone, elsewhere)),
                *(share_from(values, two_percent) for values in (gone, elsewhere)),
            ]
        )
    means = ["mean", *np.mean([row[1:] for row in rows], axis=0)]
    names = [
        "task", "AUROC, answer taken out", "AUROC, of other tasks",
        f"answered at {UNANSWERED}", "taken out, said to be answered", "of others, the same",
        "taken out, at 2% lost", "of others, at 2% lost",
    ]  # fmt: skip
    return page(
        "Queries without an answer",
        f"the probability of the best hit, by `Index.search`, of up to {num} queries of each task; "
        f"of others: {OTHER_QUERIES} queries of each of the other tasks",
        [Column(name=name) for name in names],
        [*rows, means],
    )


def of_few(tasks: Sequence[RetrievalData], model: Dewey) -> Table:
    """How well the probability tells what a few documents answer from what they do not."""
    rng = np.random.default_rng(SEED)
    rows = []
    for task in tasks:
        there, gone = [], []
        for num in FEW:
            chosen = some_documents(task, num, rng)
            part = replace(task, documents={each: task.documents[each] for each in chosen})
            with tempfile.TemporaryDirectory() as folder:
                index = indexed(part, model, Path(folder))
                for name in map(str, rng.permutation(list(task.qrels))):
                    gold = {key for key, gain in task.qrels[name].items() if gain > 0}
                    probabilities = there if gold & set(chosen) else gone
                    if len(probabilities) < OF_FEW * (1 + FEW.index(num)):
                        hits = index.search(task.queries[name], k=1, passages=1)
                        probabilities.append(hits[0].probability)
        rows.append(
            [
                task.name,
                len(there),
                len(gone),
                auroc(there, gone),
                *(share_from(values, UNANSWERED) for values in (there, gone)),
                share_from(gone, float(np.quantile(there, 0.02))),
            ]
        )
    means: list[Cell] = ["mean", None, None, *np.mean([row[3:] for row in rows], axis=0)]
    names = (
        "task", "answered queries", "others", "AUROC", f"answered at {UNANSWERED}",
        "others, said to be answered", "others, at 2% lost",
    )  # fmt: skip
    return Table(
        title=f"Queries without an answer in {', '.join(map(str, FEW))} documents of a task",
        columns=tuple(Column(name=name) for name in names),
        rows=tuple(tuple(row) for row in [*rows, means]),
    )


def some_documents(task: RetrievalData, num: int, rng: np.random.Generator) -> list[str]:
    """Documents of a task, about half of which answer a query."""
    short = [name for name, text in task.documents.items() if len(text) < LONGEST]
    answering = [
        key
        for name in rng.permutation(list(task.qrels))[: 3 * num]
        for key, gain in task.qrels[name].items()
        if gain > 0 and key in set(short)
    ]
    others = map(str, rng.permutation(short)[:num])
    return list(dict.fromkeys([*answering[: max(2, num // 2)], *others]))[:num]


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a positive is above a negative; equal ones count half."""
    above = np.array(positive)[:, None] - np.array(negative)
    return float((above > 0).mean() + (above == 0).mean() / 2)


def share_from(values: Sequence[float], least: float) -> float:
    """The share of values from a least one on."""
    return float((np.array(values) >= least).mean())


def page(title: str, caption: str, columns: list[Column], rows: list[list[Cell]]) -> ResultPage:
    """A page with one table."""
    name = "unanswered" if title.startswith("Queries") else "ranking"
    return ResultPage(
        kind=name,
        name=name,
        title=title,
        summary=f"{caption}.",
        machine=Machine.here(),
        tables=(
            Table(title=title, columns=tuple(columns), rows=tuple(tuple(row) for row in rows)),
        ),
    )


if __name__ == "__main__":
    main()
