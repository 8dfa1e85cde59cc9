"""`dewey audit baseline`: models side by side on one corpus: what they find, how fast, how large.

Each model indexes the corpus and answers every query alone, as a user would ask it; the answers
that are timed are the answers that are scored.
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
from dewey_embed.eval.audits.baseline_findings import Figures, to_findings
from dewey_embed.eval.audits.rankers import Ranker, finite, open_ranker
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.models import is_peer
from dewey_embed.eval.result_page import Machine, ResultPage
from dewey_embed.eval.scores import interval, query_scores
from dewey_embed.model.folder import locate_model
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.text.tokenizer import Tokenizer

CACHE = Path("~/.cache/dewey-embed/audits")
MODELS = ("mini", "bm25")
WARM_UP = ("What is this about?", "Who said so, and why?", "The end of the story")


class Measured(Settings):
    """What is kept of one model until all are done."""

    figures: tuple[Figures, ...]


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
    peers (`bm25`, `st:MODEL`, …). A run that was killed goes on with the model it was in; one that
    was finished measures anew.

    Raises:
        TaskError: the folder is no task.
        ConfigError: no model, or one twice. CheckpointError: a model cannot be found.
        ResultsError: a model answers with NaN.

    """
    if not models or len(set(models)) < len(models):
        raise ConfigError(f"the models are {list(models)}; name at least one, and each once")
    task = read_beir(data)
    for name in models:
        if not is_peer(name):
            locate_model(name)  # a mistyped name is refused now, not after an hour
    num_tokens = count_tokens(task)
    kept: list[Path] = []
    figures: list[Figures] = []
    for name in models:
        ranker = open_ranker(name, device=device)
        path = _path(cache.expanduser(), ranker, task, device)
        known = _read(path)
        if known is None:
            known = measure(ranker, task, num_tokens, progress=progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Measured(figures=tuple(known)).model_dump_json(), encoding="utf-8")
        kept.append(path)
        figures += known
    for path in kept:
        path.unlink(missing_ok=True)
    used = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return to_findings(task, figures, num_tokens, Machine.here(device=used))


def measure(
    ranker: Ranker, task: RetrievalData, num_tokens: int, *, progress: bool
) -> list[Figures]:
    """The figures of a model, in each of its modes.

    Raises:
        ResultsError: it answers with NaN.

    """
    with tempfile.TemporaryDirectory(prefix="dewey-audit-") as folder:
        began = time.perf_counter()
        ranker.index(task.documents, Path(folder) / "index", progress=progress)
        seconds = time.perf_counter() - began
        total = len(ranker.modes) * len(task.queries)
        found = []
        with progress_bar(f"asking {ranker.name}", total, "queries", show=progress) as advance:
            for mode in ranker.modes:
                ranking, taken = _ask(ranker, task, mode, advance)
                scores = query_scores(task.qrels, ranking).values()
                found.append(
                    Figures(
                        model=ranker.name,
                        mode=mode,
                        ndcg=interval(np.array([each["ndcg_at_10"] for each in scores])),
                        recall=float(np.mean([each["recall_at_10"] for each in scores])),
                        mrr=mean_reciprocal_rank(task, ranking),
                        median_ms=1000 * float(np.median(taken)),
                        p95_ms=1000 * float(np.percentile(taken, 95)),
                        documents_per_second=len(task.documents) / seconds,
                        tokens_per_second=num_tokens / seconds,
                        num_bytes=ranker.num_bytes(),
                    )
                )
    return found


def _ask(
    ranker: Ranker, task: RetrievalData, mode: str, advance: Advance
) -> tuple[dict[str, dict[str, float]], list[float]]:
    """Every query's ten best documents, and the seconds that each query took."""
    for words in WARM_UP:
        ranker.rank(words, mode)
    ranking, taken = {}, []
    for query, words in task.queries.items():
        began = time.perf_counter()
        scores = ranker.rank(words, mode)
        taken.append(time.perf_counter() - began)
        ranking[query] = finite(scores, ranker.name, query)
        advance(1)
    return ranking, taken


def mean_reciprocal_rank(task: RetrievalData, ranking: dict[str, dict[str, float]]) -> float:
    """MRR@10 of rankings of ten documents; a query without its document among them counts 0."""
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(task.qrels, {"recip_rank"})
    found = evaluator.evaluate(ranking)
    values = [found.get(query, {}).get("recip_rank", 0.0) for query in task.qrels]
    return float(np.mean(values))


def count_tokens(task: RetrievalData) -> int:
    """Tokens of all documents by mini's tokenizer, the same measure for every model."""
    config = locate_model(None)[1] / "tokenizer.json"
    tokenizer = Tokenizer.from_file(config, cls_token_id=101, sep_token_id=102)
    return sum(len(tokenizer.encode([text])[0]) for text in task.documents.values())


def _path(cache: Path, ranker: Ranker, task: RetrievalData, device: str | None) -> Path:
    """Where a model's figures on a corpus are kept until all are done."""
    told = json.dumps([ranker.name, ranker.identity, task.digest, Machine.here().threads, device])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return cache / "baseline" / f"{digest}.json"


def _read(path: Path) -> list[Figures] | None:
    """What is kept of a model; None where nothing is, or a torn file."""
    try:
        return list(Measured.model_validate_json(path.read_text(encoding="utf-8")).figures)
    except (OSError, ValidationError):
        return None
