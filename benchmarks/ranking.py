"""How the weights of `multi` and `hybrid` were chosen: formulas, on the development tasks.

    python benchmarks/ranking.py --data data/eval

Each task is encoded once, at four chunk sizes in one pass, and every formula is then a few
array operations on the same scores. Of long corpora only `--tokens` tokens are read, drawn by
seed, with the queries that they answer. Encoded tasks are kept under `--cache`.

docs/data.md says what the data are and how to make them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dewey_embed import Dewey
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.report.markup import page_to_markdown
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.index.ranking import CANDIDATES
from dewey_embed.index.words import WordIndex, count_words, write_word_index
from dewey_embed.progress import progress_bar
from dewey_embed.scoring import multi_scores

SIZES = (64, 128, 256, 512)
DOCUMENT_WEIGHTS = (0.0, 0.1, 0.25, 0.4)
DENSE_WEIGHTS = (0.2, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.6)
CHARS_PER_TOKEN = 4.5
SEED = 0

Scores = np.ndarray  # (Q, N)


@dataclass
class Encoded:
    """A task's gains and scores (Q, N): of document vectors, of words, and of chunks by size."""

    name: str
    gains: Scores
    documents: Scores
    words: Scores
    best: dict[int, Scores]
    best_two: dict[int, Scores]
    best_five: dict[int, Scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of BEIR folders")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tasks", type=lambda names: names.split(","))
    parser.add_argument("--tokens", type=int, default=800_000, help="of each task, about")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/dewey-embed/ranking"))
    parser.add_argument(
        "--output", "-o", type=Path, default=Path("benchmarks/results/ranking.json")
    )
    arguments = parser.parse_args()
    model = Dewey.load(arguments.model)
    names = arguments.tasks or sorted(p.parent.name for p in arguments.data.glob("*/corpus.jsonl"))
    tasks = []
    for name in names:
        data = sample_of(read_beir(arguments.data / name), arguments.tokens)
        folder = arguments.cache.expanduser() / f"{model.fingerprint}-{name}-{data.digest}"
        tasks.append(scores_of(data, model, folder))
    page = result_page(tasks, model)
    page.write(arguments.output)
    sys.stdout.write(page_to_markdown(page))


def sample_of(data: RetrievalData, num_tokens: int) -> RetrievalData:
    """Documents of about `num_tokens` tokens, drawn by seed, and the queries that they answer."""
    order = np.random.default_rng(SEED).permutation(list(data.documents))
    sizes = np.cumsum([len(data.documents[name]) for name in order]) / CHARS_PER_TOKEN
    kept = set(order[: max(1, int((sizes <= num_tokens).sum()))])
    qrels = {
        query: found
        for query, gains in data.qrels.items()
        if (found := {name: gain for name, gain in gains.items() if name in kept})
    }
    return RetrievalData(
        name=data.name,
        documents={name: text for name, text in data.documents.items() if name in kept},
        queries={query: data.queries[query] for query in qrels},
        qrels=qrels,
    )


def scores_of(data: RetrievalData, model: Dewey, folder: Path) -> Encoded:
    """All scores of a task, from vectors on disk or made now."""
    path = folder / "vectors.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        encode(data, model, path)
    kept = np.load(path)
    places = {name: place for place, name in enumerate(data.documents)}
    gains = np.zeros((len(data.queries), len(places)), np.float32)
    for row, query in enumerate(data.queries):
        for name, gain in data.qrels[query].items():
            gains[row, places[name]] = gain
    by_size = {
        size: list(
            best_chunks(kept["queries"], kept["chunks"], kept["owners"], kept["sizes"], number)
        )
        for number, size in enumerate(SIZES)
    }
    return Encoded(
        name=data.name,
        gains=gains,
        documents=kept["queries"] @ kept["wholes"].T,
        words=word_scores(data, folder),
        best={size: each[0] for size, each in by_size.items()},
        best_two={size: each[1] for size, each in by_size.items()},
        best_five={size: each[2] for size, each in by_size.items()},
    )


def encode(data: RetrievalData, model: Dewey, path: Path) -> None:
    """Nothing; `path` then holds the task's vectors at every chunk size."""
    texts = list(data.documents.values())
    wholes, chunks, owners, sizes = [], [], [], []
    with progress_bar(data.name, len(texts), "documents", show=True) as advance:
        for start in range(0, len(texts), 16):
            some = model.encode_document(texts[start : start + 16], chunk_tokens=SIZES)
            for place, each in enumerate(some, start):
                wholes.append(each.vector)
                chunks.append(each.chunks.astype(np.float16))
                owners.append(np.full(len(each.chunks), place))
                sizes.append(each.granularity)
            advance(len(some))
    np.savez(
        path,
        queries=model.encode_query(list(data.queries.values())),
        wholes=np.stack(wholes),
        chunks=np.concatenate(chunks),
        owners=np.concatenate(owners),
        sizes=np.concatenate(sizes),
    )


def best_chunks(
    queries: np.ndarray, chunks: np.ndarray, owners: np.ndarray, sizes: np.ndarray, number: int
) -> Iterator[Scores]:
    """Of one chunk size the best chunk of each document, the mean of its best two, and of five."""
    own = owners[sizes == number]
    scores = queries @ chunks[sizes == number].astype(np.float32).T
    firsts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
    num_documents = int(owners.max()) + 1
    for k in (1, 2, 5):
        out = np.full((len(queries), num_documents), -1.0, np.float32)
        for start, end in zip(firsts, [*firsts[1:], len(own)], strict=True):
            part = scores[:, start:end]
            keep = min(k, part.shape[1])
            out[:, own[start]] = -np.partition(-part, keep - 1, axis=1)[:, :keep].mean(1)
        yield out


def word_scores(data: RetrievalData, folder: Path) -> Scores:
    """BM25 scores (Q, N) as an index gives them; 0 where no word is shared."""
    counted = [count_words(text) for text in data.documents.values()]
    rows = np.repeat(np.arange(len(counted)), [len(numbers) for numbers, _ in counted])
    numbers, counts = (np.concatenate(each) for each in zip(*counted, strict=True))
    write_word_index(folder, rows, numbers, counts)
    words = WordIndex(folder, len(counted), np.load)
    return np.stack([words.scores(query) for query in data.queries.values()])


def formulas(task: Encoded) -> dict[str, Scores]:
    """The scores of every formula by name."""
    every: dict[str, Scores] = {"words (BM25)": task.words, "single": task.documents}
    for size in SIZES:
        for share in DOCUMENT_WEIGHTS:
            name = f"multi {size}" + (f", whole {share:.2f}" if share else "")
            every[name] = (1 - share) * task.best[size] + share * task.documents
        every[f"multi {size}, mean of best 2"] = task.best_two[size]
        every[f"multi {size}, mean of best 5"] = task.best_five[size]
    every["multi, sum of four sizes"] = sum(task.best.values())
    every["multi, largest of four sizes"] = np.maximum.reduce(list(task.best.values()))
    for size in (128, 256):
        meaning = multi_scores(task.best[size], task.documents)
        every[f"hybrid {size}, reciprocal ranks"] = reciprocal(meaning) + reciprocal(task.words)
        seen = top(meaning) | (top(task.words) & (task.words > 0))
        standard_meaning, standard_words = (within(x, top(meaning)) for x in (meaning, task.words))
        for share in DENSE_WEIGHTS:
            every[f"hybrid {size}, meaning {share:.2f}"] = np.where(
                seen, share * standard_meaning + (1 - share) * standard_words, -np.inf
            )
    return every


def top(scores: Scores) -> np.ndarray:
    """Which documents are among the candidates of a ranking."""
    num = min(CANDIDATES, scores.shape[1])
    return scores >= -np.partition(-scores, num - 1, axis=1)[:, num - 1 : num]


def within(scores: Scores, seen: np.ndarray) -> Scores:
    """Scores in deviations from the mean of the `seen` ones."""
    masked = np.where(seen, scores, np.nan)
    deviation = np.nanstd(masked, 1, keepdims=True)
    return (scores - np.nanmean(masked, 1, keepdims=True)) / np.maximum(deviation, 1e-9)


def reciprocal(scores: Scores) -> Scores:
    """1 / (60 + rank). Source: Cormack, Clarke and Büttcher, SIGIR 2009."""
    return 1 / (61 + np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1))


def ndcg(gains: Scores, scores: Scores) -> float:
    """Mean nDCG@10; gains count as they stand."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    discount = 1 / np.log2(np.arange(2, 2 + order.shape[1]))
    got = (np.take_along_axis(gains, order, 1) * discount).sum(1)
    ideal = (-np.sort(-gains, axis=1)[:, :10] * discount).sum(1)
    return float((got / ideal).mean())


def result_page(tasks: list[Encoded], model: Dewey) -> ResultPage:
    """A table of nDCG@10 by formula and task, with each one's mean and its worst loss to a half."""
    by_task = {
        task.name: {w: ndcg(task.gains, s) for w, s in formulas(task).items()} for task in tasks
    }
    rows: list[tuple[Cell, ...]] = []
    for formula in next(iter(by_task.values())):
        scores = [scores_of_task[formula] for scores_of_task in by_task.values()]
        halves = [max(each["words (BM25)"], each[half_of(formula)]) for each in by_task.values()]
        worst = min(score - half for score, half in zip(scores, halves, strict=True))
        hybrid = formula.startswith("hybrid")
        rows.append((formula, float(np.mean(scores)), worst if hybrid else None, *scores))
    columns = [
        Column(name="formula"),
        Column(name="mean", best="highest"),
        Column(name="least lead over the better half", best="highest"),
        *(Column(name=f"{task.name} ({len(task.gains)})", best="highest") for task in tasks),
    ]
    threads = torch.get_num_threads()
    return ResultPage(
        kind="ranking",
        name="ranking",
        title="Formulas of ranking with one pass's vectors and the words",
        summary=f"Development tasks, model {model.name}, {threads} threads; nDCG@10.",
        machine=Machine.here(dtype=str(model.dtype).removeprefix("torch.")),
        tables=(
            Table(
                title="nDCG@10 by formula",
                columns=tuple(columns),
                rows=tuple(rows),
                notes=("In brackets the number of queries. Long corpora in part: --tokens.",),
            ),
        ),
    )


def half_of(formula: str) -> str:
    """The part of a hybrid formula that ranks by vectors."""
    return (
        f"multi {formula.split()[1].rstrip(',')}, whole 0.25"
        if formula.startswith("hybrid")
        else formula
    )


if __name__ == "__main__":
    main()
