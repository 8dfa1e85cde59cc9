"""`dewey audit cost`: the benefit of many vectors, and their cost in bytes and in time.

One pass over the corpus gives the chunks of every size and overlap; precisions, dimensions and
clusters are arithmetic on the vectors of that pass. So all variants are compared on the same
vectors, and only the encoding is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.eval.audits import CACHE
from dewey_embed.eval.audits.encode_time import EncodeTime, encode_table, encode_times
from dewey_embed.eval.audits.storage import (
    CorpusVectors,
    StorageChoices,
    StorageCost,
    StorageVariant,
    StoredVectors,
    VectorKind,
    cluster_centres,
    pareto_front,
)
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.result_page import Cell, Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.eval.scores import interval, paired_p_value, query_scores, rank_documents
from dewey_embed.eval.vector_cache import ChunkSize, DocumentVectorCache
from dewey_embed.progress import progress_bar
from dewey_embed.types import DocumentVectors, Floats

TOP_K = 10
TIMED_QUERIES = 30

NEAR = 0.01
"""Below the default's nDCG@10 by no more than this, a variant is as good in the summary."""

NAMED_GAIN = 0.05
"""How far a point of the front must be below the next named one to be named; the last one is."""

KINDS: dict[VectorKind, str] = {"single": "one vector", "clustered": "clusters", "multi": "chunks"}


def audit_cost(
    model: Dewey,
    data: Path,
    *,
    choices: StorageChoices | None = None,
    cache: Path = CACHE,
    seed: int = 0,
    progress: bool = False,
) -> ResultPage:
    """The accuracy, the bytes and the search time of each way to store a corpus's vectors.

    `data` is a BEIR folder. Vectors are kept in `cache`: a run that was killed resumes with the
    documents that it was encoding.

    Raises:
        TaskError: the folder is not a task.
        ConfigError: an impossible choice.
        InputError: the model makes NaN.

    """
    choices = choices or StorageChoices()
    task = read_beir(data)
    costs, documents = measure(model, task, choices, cache, progress=progress)
    sizes = [size for size in choices.sizes() if size.overlap == choices.overlaps[0]]
    times = encode_times(model, task, sizes, seed=seed, progress=progress)
    return _page(model, task, documents, choices=choices, costs=costs, times=times)


def measure(
    model: Dewey, data: RetrievalData, choices: StorageChoices, cache: Path, *, progress: bool
) -> tuple[list[StorageCost], list[DocumentVectors]]:
    """The cost of each variant, and the documents' vectors at all chunk sizes.

    Raises:
        ConfigError: an impossible size, overlap or width.
        InputError: the model makes NaN.

    """
    variants = choices.variants(model.embedding_dim)
    vectors = DocumentVectorCache(model, cache, choices.sizes())
    documents = vectors.encode_with_progress(list(data.documents.values()), show=progress)
    queries = model.encode_query(list(data.queries.values()))
    own = np.stack([each.vector for each in documents])
    corpora: dict[tuple[ChunkSize | None, int | None], CorpusVectors] = {}
    costs = []
    with progress_bar("measuring", len(variants), "variants", show=progress) as advance:
        for variant in variants:
            key = variant.size, variant.clusters
            if key not in corpora:
                corpora[key] = _corpus_vectors(variant, vectors.sizes, documents, own)
            stored = StoredVectors(corpora[key], variant.precision, variant.dim)
            costs.append(_cost(variant, stored, data, queries))
            advance(1)
    return costs, documents


def _corpus_vectors(
    variant: StorageVariant,
    sizes: Sequence[ChunkSize],
    documents: Sequence[DocumentVectors],
    own: Floats,
) -> CorpusVectors:
    """The vectors that a variant stores, at full precision and width."""
    if variant.size is None:
        return CorpusVectors.of(own)
    chunks = [each.at(sizes.index(variant.size))[0] for each in documents]
    if variant.clusters is not None:
        chunks = [cluster_centres(each, variant.clusters) for each in chunks]
    return CorpusVectors.of(own, chunks)


def _cost(
    variant: StorageVariant, stored: StoredVectors, data: RetrievalData, queries: Floats
) -> StorageCost:
    scores = stored.scores(queries)
    ranking = rank_documents(data.queries, list(data.documents), scores, TOP_K)
    by_query = query_scores(data.qrels, ranking).values()
    timed = queries[:: max(1, len(queries) // TIMED_QUERIES)][:TIMED_QUERIES]
    return StorageCost(
        variant=variant,
        ndcg_scores=np.array([each["ndcg_at_10"] for each in by_query]),
        recall=float(np.mean([each["recall_at_10"] for each in by_query])),
        num_vectors=stored.num_vectors,
        num_bytes=stored.num_bytes,
        seconds=stored.seconds(timed),
    )


def _page(
    model: Dewey,
    task: RetrievalData,
    documents: Sequence[DocumentVectors],
    *,
    choices: StorageChoices,
    costs: Sequence[StorageCost],
    times: Sequence[EncodeTime],
) -> ResultPage:
    front = pareto_front(costs)
    default = next(
        each for each in costs if each.variant.kind == "multi" and each.variant.size == choices.base
    )
    notes = _notes(task, documents, choices)
    label = Path(model.name).name
    return ResultPage(
        kind="cost",
        name=f"cost-{label}-{task.name}",
        title=f"What many vectors buy and cost: {label} on {task.name}",
        summary=_summary(costs, front, default, times),
        machine=Machine.running(model),
        tables=(
            _costs_table("Pareto front", front, front, notes),
            _one_change_table(costs, default),
            encode_table(times),
            _costs_table("All variants", costs, front, notes),
        ),
        plots=(_front_plot(costs, front), *_curves(costs, default, choices)),
    )


def _notes(
    task: RetrievalData, documents: Sequence[DocumentVectors], choices: StorageChoices
) -> list[str]:
    num_tokens = sum(each.num_tokens for each in documents)
    base = choices.base
    notes = [
        f"{task.name}: {len(documents):,} documents with {num_tokens:,} tokens, "
        f"{len(task.queries):,} queries.",
        "One vector: the document's own. Chunks and clusters are stored beside it, and documents "
        "are ranked as `dewey search --mode multi` ranks them: three quarters the score of the "
        "best chunk or cluster, one quarter that of the document's vector. Clusters: spherical "
        f"k-means over chunks of {base.tokens} tokens that overlap by {base.overlap_tokens}; a "
        "document with fewer chunks keeps them.",
        "Bytes: all vectors as stored, including the documents' own, without ids and texts. "
        "Query: the median time of one exact search by FAISS on one thread for the 400 nearest "
        "vectors, after the query was encoded. Queries stay in float32.",
        "Pareto front: no other variant has a higher nDCG@10 with as many bytes, or the same with "
        "fewer. It is drawn from the queries that it is judged by: differences below a point mean "
        "nothing.",
    ]
    empty = sum(not len(each.chunks) for each in documents)
    if empty:
        notes.append(
            f"Documents without tokens: {empty:,}. Their own vector stands for their chunks."
        )
    if len(documents) == 1:
        notes.append(
            "The corpus is one document: every variant finds it, and no figure means anything."
        )
    if len(choices.overlaps) > 1:
        others = ", ".join(f"{each:g}" for each in choices.overlaps[1:])
        notes.append(
            f"Overlaps of {others} of a chunk are measured in {choices.precisions[0]} at full "
            f"width; all other variants overlap by {choices.overlaps[0]:g}."
        )
    return notes


def _summary(
    costs: Sequence[StorageCost],
    front: Sequence[StorageCost],
    default: StorageCost,
    times: Sequence[EncodeTime],
) -> str:
    single = next(each for each in costs if each.variant.kind == "single")
    near = next(each for each in front if each.ndcg >= default.ndcg - NEAR)
    alone = times[0]
    with_chunks = next(each for each in times if each.size == default.variant.size)
    return (
        f"{single.variant.name}: nDCG@10 {single.ndcg:.3f} in {_bytes_text(single)}; "
        f"{default.variant.name}: {default.ndcg:.3f} in {_bytes_text(default)} "
        f"({default.num_bytes / single.num_bytes:.1f} times the bytes). "
        f"Smallest within a point of that: {near.variant.name}, {near.ndcg:.3f} in "
        f"{_bytes_text(near)} ({near.num_bytes / single.num_bytes:.2f} times the bytes of single "
        "vectors). Chunk vectors change the time of encoding by "
        f"{with_chunks.seconds / alone.seconds - 1:+.1%}; rounds of the same pass differ by "
        f"{alone.slowest / alone.seconds - 1:.1%}."
    )


def _bytes_text(cost: StorageCost) -> str:
    size = cost.num_bytes
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _costs_table(
    title: str, costs: Sequence[StorageCost], front: Sequence[StorageCost], notes: Sequence[str]
) -> Table:
    """A row for each variant."""
    on_front = set(map(id, front))
    rows: list[tuple[Cell, ...]] = []
    for cost in costs:
        variant, size = cost.variant, cost.variant.size
        rows.append(
            (
                KINDS[variant.kind], size.tokens if size else None,
                size.overlap_tokens if size else None, variant.clusters, variant.precision,
                variant.dim, *interval(cost.ndcg_scores), cost.recall, cost.num_vectors,
                cost.num_bytes, 1000 * cost.seconds, "yes" if id(cost) in on_front else "no",
            )
        )  # fmt: skip
    return Table(
        title=title,
        columns=(
            Column(name="vectors"),
            Column(name="chunk", unit="tokens", digits=0),
            Column(name="overlap", unit="tokens", digits=0),
            Column(name="clusters a document", digits=0),
            Column(name="precision"),
            Column(name="dimensions", digits=0),
            Column(name="nDCG@10", best="highest"),
            Column(name="low"),
            Column(name="high"),
            Column(name="recall@10", best="highest"),
            Column(name="number of vectors", digits=0),
            Column(name="index", unit="bytes", best="lowest", digits=0),
            Column(name="query", unit="ms", best="lowest", digits=3),
            Column(name="Pareto front"),
        ),
        rows=tuple(rows),
        notes=(*notes, "Low and high: the 95% bootstrap interval over queries."),
    )


def _one_change_table(costs: Sequence[StorageCost], default: StorageCost) -> Table:
    """The variants that differ from the default in one thing, each against it query by query."""
    rows: list[tuple[Cell, ...]] = []
    for changed, cost in _one_change(costs, default):
        p_value = paired_p_value(cost.ndcg_scores, default.ndcg_scores)
        rows.append(
            (
                changed, cost.variant.name, cost.ndcg, cost.ndcg - default.ndcg,
                None if cost is default else p_value,
                cost.num_bytes / default.num_bytes, cost.seconds / default.seconds,
            )
        )  # fmt: skip
    return Table(
        title="One thing changed",
        columns=(
            Column(name="changed"),
            Column(name="variant"),
            Column(name="nDCG@10", best="highest"),
            Column(name="difference"),
            Column(name="p", digits=3),
            Column(name="bytes", unit="times", digits=3, best="lowest"),
            Column(name="query", unit="times", digits=2, best="lowest"),
        ),
        rows=tuple(rows),
        notes=(
            f"Each compared with {default.variant.name}. p: paired randomisation test over the "
            "queries.",
        ),
    )


def _one_change(
    costs: Sequence[StorageCost], default: StorageCost
) -> list[tuple[str, StorageCost]]:
    """The variants that differ from the default in one thing, with its name."""
    changes = [("nothing", default)]
    base = default.variant
    assert base.size is not None
    for cost in costs:
        other = cost.variant
        alike = replace(other, size=base.size, clusters=None) == base
        if other.kind != "multi":
            if alike:
                changes.append(("vectors", cost))
        elif other.size and alike and other != base:
            if other.size.overlap == base.size.overlap:
                changes.append(("chunk size", cost))
            elif other.size.tokens == base.size.tokens:
                changes.append(("overlap", cost))
        elif replace(other, precision=base.precision) == base and other != base:
            changes.append(("precision", cost))
        elif replace(other, dim=base.dim) == base and other != base:
            changes.append(("dimensions", cost))
    return changes


def _front_plot(costs: Sequence[StorageCost], front: Sequence[StorageCost]) -> Plot:
    """Accuracy against bytes; the front last, over the others."""
    on_front = set(map(id, front))
    named = [front[-1]]
    for cost in reversed(front):
        if cost.ndcg <= named[-1].ndcg - NAMED_GAIN:
            named.append(cost)
    labels = tuple(cost.variant.name if cost in named else "" for cost in front)
    groups = {
        name: [c for c in costs if c.variant.kind == kind and id(c) not in on_front]
        for kind, name in KINDS.items()
    }
    series = [
        Series(
            name=name,
            x=tuple(each.num_bytes / 1e6 for each in group),
            y=tuple(each.ndcg for each in group),
            labels=labels if group is front else None,
        )
        for name, group in {**groups, "Pareto front": front}.items()
        if group
    ]
    return Plot(
        title="Accuracy against bytes",
        kind="points",
        x_label="bytes of all vectors (MB)",
        y_label="nDCG@10",
        log_x=True,
        series=tuple(series),
        notes=(
            f"Named: the last of the front, and each that is {NAMED_GAIN:g} below the next named.",
        ),
    )


def _curves(
    costs: Sequence[StorageCost], default: StorageCost, choices: StorageChoices
) -> list[Plot]:
    """Accuracy by chunk size and overlap, by clusters, and by dimensions at each precision."""
    full = [each for each in costs if each.variant.dim == default.variant.dim]
    by_size = {
        f"overlap {overlap:g}": [
            each for each in full
            if each.variant.precision == default.variant.precision
            and each.variant.kind == "multi"
            and each.variant.size and each.variant.size.overlap == overlap
        ]
        for overlap in sorted(choices.overlaps)
    }  # fmt: skip
    by_clusters = {
        precision: [
            each for each in full
            if each.variant.kind == "clustered" and each.variant.precision == precision
        ]
        for precision in choices.precisions
    }  # fmt: skip
    by_dim = {
        f"{KINDS[kind]}, {precision}": [
            each for each in costs
            if each.variant.kind == kind and each.variant.precision == precision
            and each.variant.size in (None, choices.base)
        ]
        for kind in ("single", "multi")
        for precision in choices.precisions
    }  # fmt: skip
    plots = (
        _lines("Accuracy by chunk size", "tokens of a chunk", by_size,
               lambda variant: variant.size.tokens if variant.size else 0),
        _lines("Accuracy by clusters", "clusters a document", by_clusters,
               lambda variant: variant.clusters or 0),
        _lines("Accuracy by dimensions", "dimensions", by_dim, lambda variant: variant.dim),
    )  # fmt: skip
    return [plot for plot in plots if plot.series]


def _lines(
    title: str,
    x_label: str,
    lines: Mapping[Any, Sequence[StorageCost]],
    x_of: Callable[[StorageVariant], int],
) -> Plot:
    """A line for each name, over `x_of` its variants."""
    series = []
    for name, costs in lines.items():
        if costs:
            ordered = sorted(costs, key=lambda each: x_of(each.variant))
            x = tuple(float(x_of(each.variant)) for each in ordered)
            series.append(Series(name=name, x=x, y=tuple(each.ndcg for each in ordered)))
    return Plot(
        title=title,
        kind="line",
        x_label=x_label,
        y_label="nDCG@10",
        log_x=True,
        series=tuple(series),
    )
