"""`dewey audit baseline`: models side by side on one corpus: accuracy, speed and bytes.

Each model indexes the corpus and then ranks documents for one query at a time, as its users do; the
rankings that are timed are the rankings that are scored.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from dewey_embed.config import Settings
from dewey_embed.errors import ConfigError
from dewey_embed.eval.audits import CACHE
from dewey_embed.eval.audits.rankers import TOP_K, Ranker, finite, open_ranker
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.models import is_peer
from dewey_embed.eval.result_page import Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.eval.scores import interval, query_scores
from dewey_embed.files import write_text
from dewey_embed.model.folder import locate_model
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.text.tokenizer import Tokenizer

MODELS = ("mini", "bm25")
WARM_UP = ("What is this about?", "Who said so, and why?", "The end of the story")


class ModelFigures(Settings):
    """The figures of one model in one mode; `ndcg` is a mean with its 95% interval."""

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


class FinishedModel(Settings):
    """A file with the figures of one model, kept until all are done."""

    figures: tuple[ModelFigures, ...]


def audit_baseline(
    data: Path,
    models: Sequence[str] = MODELS,
    *,
    device: str | None = None,
    cache: Path = CACHE,
    progress: bool = False,
) -> ResultPage:
    """Accuracy, latency, speed of indexing and bytes of models on a BEIR folder.

    `models` are Dewey's (`mini`, a folder, a Hugging Face id), each measured in three modes, or
    peers (`bm25`, `st:MODEL`, …). A run that was killed resumes with the model it was in; one that
    was finished measures again.

    Raises:
        TaskError: the folder is not a task.
        ConfigError: no model, or one twice.
        CheckpointError: a model cannot be found.
        ResultsError: a model scores a document with NaN.

    """
    if not models or len(set(models)) < len(models):
        raise ConfigError(f"the models are {list(models)}; name at least one, and each once")
    task = read_beir(data)
    for name in models:
        if not is_peer(name):
            locate_model(name)  # a mistyped name is refused now, not after an hour
    num_tokens = count_tokens(task)
    kept: list[Path] = []
    figures: list[ModelFigures] = []
    for name in models:
        ranker = open_ranker(name, device=device)
        path = _path(cache.expanduser(), ranker, task, device)
        known = _read(path)
        if known is None:
            known = measure(ranker, task, num_tokens, progress=progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, FinishedModel(figures=tuple(known)).model_dump_json())
        kept.append(path)
        figures += known
    for path in kept:
        path.unlink(missing_ok=True)
    used = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return _page(task, figures, num_tokens, Machine.here(device=used))


def measure(
    ranker: Ranker, task: RetrievalData, num_tokens: int, *, progress: bool
) -> list[ModelFigures]:
    """The figures of a model, in each of its modes.

    Raises:
        ResultsError: it scores a document with NaN.

    """
    with tempfile.TemporaryDirectory(prefix="dewey-audit-") as folder:
        began = time.perf_counter()
        ranker.index(task.documents, Path(folder) / "index", progress=progress)
        seconds = time.perf_counter() - began
        total = len(ranker.modes) * len(task.queries)
        figures = []
        with progress_bar(
            f"searching with {ranker.name}", total, "queries", show=progress
        ) as advance:
            for mode in ranker.modes:
                ranking, seconds_by_query = _rank_all(ranker, task, mode, advance)
                scores = query_scores(task.qrels, ranking).values()
                figures.append(
                    ModelFigures(
                        model=ranker.name,
                        mode=mode,
                        ndcg=interval(np.array([each["ndcg_at_10"] for each in scores])),
                        recall=float(np.mean([each["recall_at_10"] for each in scores])),
                        mrr=mean_reciprocal_rank(task, ranking),
                        median_ms=1000 * float(np.median(seconds_by_query)),
                        p95_ms=1000 * float(np.percentile(seconds_by_query, 95)),
                        documents_per_second=len(task.documents) / seconds,
                        tokens_per_second=num_tokens / seconds,
                        num_bytes=ranker.num_bytes(),
                    )
                )
    return figures


def _rank_all(
    ranker: Ranker, task: RetrievalData, mode: str, advance: Advance
) -> tuple[dict[str, dict[str, float]], list[float]]:
    """The ten best documents of every query, and the seconds of each search."""
    for words in WARM_UP:
        ranker.rank(words, mode)
    ranking, seconds = {}, []
    for query, words in task.queries.items():
        began = time.perf_counter()
        scores = ranker.rank(words, mode)
        seconds.append(time.perf_counter() - began)
        ranking[query] = finite(scores, ranker.name, query)
        advance(1)
    return ranking, seconds


def mean_reciprocal_rank(task: RetrievalData, ranking: dict[str, dict[str, float]]) -> float:
    """MRR@10 of rankings of ten documents; a query without its document among them counts 0."""
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(task.qrels, {"recip_rank"})
    by_query = evaluator.evaluate(ranking)
    values = [by_query.get(query, {}).get("recip_rank", 0.0) for query in task.qrels]
    return float(np.mean(values))


def count_tokens(task: RetrievalData) -> int:
    """Tokens of all documents by mini's tokenizer, the same measure for every model."""
    config = locate_model(None)[1] / "tokenizer.json"
    tokenizer = Tokenizer.from_file(config, cls_token_id=101, sep_token_id=102)
    return sum(len(tokenizer.encode([text])[0]) for text in task.documents.values())


def _path(cache: Path, ranker: Ranker, task: RetrievalData, device: str | None) -> Path:
    """Where a model's figures on a corpus are kept until all are done."""
    setup = [ranker.name, ranker.identity, task.digest, Machine.here().threads, device]
    digest = hashlib.sha256(json.dumps(setup).encode()).hexdigest()[:16]
    return cache / "baseline" / f"{digest}.json"


def _read(path: Path) -> list[ModelFigures] | None:
    """The figures of a model that is finished; `None` if it is not, or its file is damaged."""
    try:
        return list(FinishedModel.model_validate_json(path.read_text(encoding="utf-8")).figures)
    except (OSError, ValidationError):
        return None


def _page(
    task: RetrievalData, figures: Sequence[ModelFigures], num_tokens: int, machine: Machine
) -> ResultPage:
    """The page of models on a corpus."""
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
                    Series.of_intervals(
                        "nDCG@10", [each.label for each in figures], [each.ndcg for each in figures]
                    ),
                ),
            ),
            _points("Accuracy against latency", "median of a query (ms)",
                    [(each, each.median_ms) for each in figures]),
            _points("Accuracy against bytes of the index", "index on disk (MB)",
                    [(each, each.num_bytes / 1e6) for each in figures if each.num_bytes]),
        ),
    )  # fmt: skip


def _notes(task: RetrievalData, figures: Sequence[ModelFigures], num_tokens: int) -> list[str]:
    notes = [
        f"{task.name}: {len(task.documents):,} documents with {num_tokens:,} tokens (by mini's "
        f"tokenizer), {len(task.queries):,} queries with a relevant document.",
        "Query: the time from its words to ten documents, one query at a time, after three "
        "others; Dewey through `Index.search` with passages, peers through mteb's protocols. Low "
        "and high: the 95% bootstrap interval over queries.",
        "Index: for Dewey all files, with texts, words and vectors, the same for all modes; for "
        "BM25 the files that bm25s saves; for other peers their vectors alone.",
    ]
    if any(each.num_bytes is None for each in figures):
        notes.append("No bytes: the peer keeps its index in memory and does not report its size.")
    if task.num_unjudged:
        notes.append(f"Queries without a relevant document, left out: {task.num_unjudged:,}.")
    if len(task.documents) <= TOP_K:
        notes.append(
            f"Only {len(task.documents)} documents: all of them are among the ten best, so "
            "recall@10 means nothing."
        )
    return notes


def _table(figures: Sequence[ModelFigures], notes: Sequence[str]) -> Table:
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
            Column(name="query, 95th percentile", unit="ms", best="lowest", digits=2),
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


def _points(title: str, x_label: str, points: Sequence[tuple[ModelFigures, float]]) -> Plot:
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
