"""What the baseline audit found → its page: one table, and accuracy against speed and bytes."""

from __future__ import annotations

from collections.abc import Sequence

from dewey_embed.config import Settings
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.result_page import Column, Machine, Plot, ResultPage, Series, Table


class Figures(Settings):
    """What one model reached in one mode; `ndcg` is a mean with its 95% interval."""

    model: str
    mode: str
    ndcg: tuple[float, float, float]
    recall: float
    mrr: float
    median_ms: float
    p95_ms: float
    documents_per_second: float
    tokens_per_second: float
    num_bytes: int | None

    @property
    def label(self) -> str:
        """The model with its mode."""
        return f"{self.model} {self.mode}".strip()


def to_findings(
    task: RetrievalData, figures: Sequence[Figures], num_tokens: int, machine: Machine
) -> ResultPage:
    """The page of some models on a corpus."""
    notes = _notes(task, figures, num_tokens)
    best = max(figures, key=lambda each: each.ndcg[0])
    fastest = min(figures, key=lambda each: each.median_ms)
    return ResultPage(
        kind="baseline",
        name=f"baseline-{task.name}",
        title=f"Models side by side on {task.name}",
        summary=(
            f"Best by nDCG@10: {best.label}, {best.ndcg[0]:.3f} (recall@10 {best.recall:.3f}, "
            f"{best.median_ms:.1f} ms a query). Fastest: {fastest.label}, "
            f"{fastest.median_ms:.1f} ms a query ({fastest.ndcg[0]:.3f})."
        ),
        machine=machine,
        tables=(_table(figures, notes),),
        plots=(
            Plot(
                title=f"Accuracy on {task.name}",
                kind="bars",
                x_label="model",
                y_label="nDCG@10",
                series=(
                    Series(
                        name="nDCG@10",
                        x=tuple(each.label for each in figures),
                        y=tuple(each.ndcg[0] for each in figures),
                        low=tuple(each.ndcg[1] for each in figures),
                        high=tuple(each.ndcg[2] for each in figures),
                    ),
                ),
            ),
            _points("Accuracy against latency", "median of a query (ms)",
                    [(each, each.median_ms) for each in figures]),
            _points("Accuracy against bytes of the index", "index on disk (MB)",
                    [(each, each.num_bytes / 1e6) for each in figures if each.num_bytes]),
        ),
    )  # fmt: skip


def _notes(task: RetrievalData, figures: Sequence[Figures], num_tokens: int) -> list[str]:
    notes = [
        f"{task.name}: {len(task.documents):,} documents of {num_tokens:,} tokens (by mini's "
        f"tokenizer) together, {len(task.queries):,} queries with an answer.",
        "A query: from its words to ten documents, one query at a time, after three others; of "
        "Dewey through `Index.search` with passages, of peers through mteb's protocols. Low and "
        "high: the 95% bootstrap interval over queries.",
        "Bytes: of Dewey the whole index, with texts, words and vectors, the same for all modes; "
        "of BM25 what bm25s saves; of other peers their vectors alone.",
    ]
    if any(each.num_bytes is None for each in figures):
        notes.append("No bytes: the peer keeps its index in memory and does not say its size.")
    if task.num_unjudged:
        notes.append(f"{task.num_unjudged:,} queries without an answer were not asked.")
    if len(task.documents) <= 10:
        notes.append(
            f"Only {len(task.documents)} documents: all of them are among the ten best, so "
            "recall@10 says nothing."
        )
    return notes


def _table(figures: Sequence[Figures], notes: Sequence[str]) -> Table:
    return Table(
        title="Side by side",
        columns=(
            Column(name="model"),
            Column(name="mode"),
            Column(name="nDCG@10", best="highest"),
            Column(name="low"),
            Column(name="high"),
            Column(name="recall@10", best="highest"),
            Column(name="MRR@10", best="highest"),
            Column(name="query, median", unit="ms", best="lowest", digits=2),
            Column(name="query, 95%", unit="ms", best="lowest", digits=2),
            Column(name="indexing", unit="documents/s", best="highest", digits=2),
            Column(name="indexing", unit="tokens/s", best="highest", digits=0),
            Column(name="index", unit="bytes", best="lowest", digits=0),
        ),
        rows=tuple(
            (
                each.model, each.mode, *each.ndcg, each.recall, each.mrr, each.median_ms,
                each.p95_ms, each.documents_per_second, each.tokens_per_second, each.num_bytes,
            )
            for each in figures
        ),
        notes=tuple(notes),
    )  # fmt: skip


def _points(title: str, x_label: str, points: Sequence[tuple[Figures, float]]) -> Plot:
    """A named point for each model."""
    return Plot(
        title=title,
        kind="points",
        x_label=x_label,
        y_label="nDCG@10",
        log_x=True,
        series=(
            Series(
                name="models",
                x=tuple(x for _, x in points),
                y=tuple(each.ndcg[0] for each, _ in points),
                labels=tuple(each.label for each, _ in points),
            ),
        ),
    )
