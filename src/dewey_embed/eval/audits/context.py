"""`dewey audit context`: what a document does to its chunks, and whether it is worth reading whole.

Every chunk has a vector of its text alone, one after its title, one from the one pass over its
document, and one from that pass with the title read above it. How far these lie apart, and how near
the chunks of a document come to each other, needs no queries; whether more is found does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.audits import CACHE
from dewey_embed.eval.audits.angles import (
    DECILES,
    MIDDLES,
    by_document,
    histogram,
    row_cosines,
    tenths,
    tightness,
)
from dewey_embed.eval.audits.context_data import Collection, collections
from dewey_embed.eval.chunk_vectors import CHUNK_CONTEXTS, ChunkVectorCache
from dewey_embed.eval.result_page import (
    Cell,
    Column,
    Machine,
    Plot,
    ResultPage,
    Series,
    Table,
    interval_columns,
)
from dewey_embed.eval.scores import (
    Doubles,
    Interval,
    QueryScores,
    interval,
    query_scores,
    rank_documents,
)
from dewey_embed.types import Floats, Rows

ALONE, TITLED, IN_CONTEXT, UNDER_TITLE = "alone", "titled", "in-context", "under-title"
"""Rows of `CHUNK_CONTEXTS` that the verdict is about."""

NUM_DOCUMENTS = 60
CHUNK_TOKENS = 128
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
TOP_K = 100

MIN_GAIN = 0.01
"""A smaller gain in nDCG@10 is not worth reading whole, however sure it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """A collection's chunks that hold a token (C,), and their vectors (C, D) by the way of reading.

    `owners` (C,) are the numbers of their documents, and `places` (C,) their middles in these,
    from 0 to 1. `scores` of each query are empty without queries.
    """

    collection: Collection
    vectors: Mapping[str, Floats]
    owners: Rows
    places: Doubles
    scores: Mapping[str, QueryScores] = field(default_factory=dict)

    @classmethod
    def of(cls, collection: Collection, model: Dewey, cache: ChunkVectorCache) -> Context:
        """The collection, read in every way.

        Raises:
            TaskError: no chunk holds a token.

        """
        vectors = {
            name: np.concatenate(cache.vectors(collection.documents, name))
            for name in CHUNK_CONTEXTS
        }
        rows = np.flatnonzero(vectors[ALONE].any(axis=1))
        if not len(rows):
            raise TaskError(
                f"{collection.name}: no chunk holds a token, so there is nothing to measure"
            )
        middles = [
            (start + end) / 2 / len(each.text)
            for each in collection.documents
            for start, end in each.spans
        ]
        kept = {name: own[rows] for name, own in vectors.items()}
        return cls(
            collection=collection,
            vectors=kept,
            owners=collection.owners[rows],
            places=np.array(middles)[rows],
            scores=_scores(
                collection, model, kept, [collection.chunks[row] for row in rows.tolist()]
            ),
        )

    def moved(self, name: str) -> Doubles:
        """How far each chunk (C,) lies from its text alone: 1 − cosine, from 0 to 2."""
        return 1 - row_cosines(self.vectors[name], self.vectors[ALONE])

    def by_query(self, name: str, measure: str = "ndcg_at_10") -> Doubles:
        """The score of each query (Q,), in the same order for all ways."""
        return np.array([own[measure] for _, own in sorted(self.scores[name].items())])

    def gain(self, name: str, over: str) -> Interval:
        """The mean difference of two ways in nDCG@10, with its interval over the queries."""
        return interval(self.by_query(name) - self.by_query(over))

    @property
    def whole(self) -> str:
        """How a document is read whole: under its title where that surely finds more."""
        surely = self.scores and self.gain(UNDER_TITLE, IN_CONTEXT).low > 0
        return UNDER_TITLE if surely else IN_CONTEXT

    @property
    def verdict(self) -> str:
        """Whether reading whole is worth it, in the way that finds more."""
        gain = self.gain(self.whole, ALONE) if self.scores else None
        return verdict(gain, under_title=self.whole == UNDER_TITLE)


def _scores(
    collection: Collection, model: Dewey, vectors: Mapping[str, Floats], chunks: Sequence[str]
) -> dict[str, QueryScores]:
    """The scores of each query by the way of reading; none without queries."""
    if not collection.queries:
        return {}
    queries = np.asarray(model.encode_query(list(collection.queries.values())), np.float32)
    return {
        name: query_scores(
            collection.qrels, rank_documents(collection.queries, chunks, queries @ own.T, TOP_K)
        )
        for name, own in vectors.items()
    }


def audit_context(
    model: Dewey,
    data: Sequence[Path],
    *,
    num_documents: int = NUM_DOCUMENTS,
    chunk_tokens: int = CHUNK_TOKENS,
    window: int | None = None,
    cache: Path = CACHE,
    seed: int = 0,
    progress: bool = False,
) -> ResultPage:
    """How far documents move their chunks, how near these come to each other, and what is found.

    `data` are folders with annotated chunks (`eval/passages.py`), with or without queries, or
    folders of them, or any files and folders that `dewey index` reads, whose documents are cut
    into whole sentences of up to `chunk_tokens`. `num_documents` are drawn from each by `seed`.
    `window` is the most tokens read at once; the default is the model's maximum. Vectors are kept
    in `cache`.

    Raises:
        ConfigError: no data are given, or a number is impossible.
        ReadError: there is no such file.
        TaskError: there is no document with text, or a folder's files contradict each other.
        InputError: the model makes NaN.

    """
    if not data:
        raise ConfigError("no data are given; give a folder of documents with --data")
    if num_documents < 1 or chunk_tokens < 1:
        raise ConfigError(
            f"num_documents is {num_documents} and chunk_tokens {chunk_tokens}; both must be 1 or "
            "more"
        )
    vectors = ChunkVectorCache(model, cache.expanduser() / "chunks", window=window, show=progress)
    contexts = [
        Context.of(collection, model, vectors)
        for path in data
        for collection in collections(
            path, model, num_documents=num_documents, chunk_tokens=chunk_tokens, seed=seed
        )
    ]
    return _page(model, contexts, window)


def verdict(gain: Interval | None, *, under_title: bool = False) -> str:
    """Whether reading whole is worth it, by the gain in nDCG@10 over chunks read alone.

    >>> verdict(Interval(0.04, 0.02, 0.06), under_title=True)
    'reading whole, under the title: worth it for these documents'
    >>> verdict(Interval(0.04, -0.01, 0.09))
    'reading whole: not worth it for these documents, as far as these queries tell'
    """
    reading = "reading whole, under the title" if under_title else "reading whole"
    if gain is None:
        return f"{reading}: no verdict without queries about the chunks"
    if gain.low > 0 and gain.mean >= MIN_GAIN:
        return f"{reading}: worth it for these documents"
    if gain.high < 0:
        return f"{reading}: not worth it for these documents, for less is found"
    return f"{reading}: not worth it for these documents, as far as these queries tell"


def _page(model: Dewey, contexts: Sequence[Context], window: int | None) -> ResultPage:
    label = Path(model.name).name
    tables = [_verdict_table(contexts, window), _moved_table(contexts), _near_table(contexts)]
    plots = [_moved_plot(contexts), _place_plot(contexts), _near_plot(contexts)]
    if any(each.scores for each in contexts):
        tables.insert(1, _found_table(contexts))
        plots.append(_found_plot(contexts))
    return ResultPage(
        kind="context",
        name=f"context-{label}",
        title=f"What {label} gains by context",
        summary=" ".join(map(_sentence, contexts)),
        machine=Machine.running(model),
        tables=tuple(tables),
        plots=tuple(plots),
    )


def _sentence(context: Context) -> str:
    """The verdict of a collection with its figures; without queries how its chunks moved."""
    name = context.collection.name
    if not context.scores:
        alone, whole = (
            tightness(context.vectors[way], context.owners).within for way in (ALONE, IN_CONTEXT)
        )
        sentence = (
            f"{name}: {context.verdict}; its document moved a chunk by "
            f"{np.median(context.moved(IN_CONTEXT)):.3f} (median of 1 − cosine)"
        )
        if alone is not None and whole is not None:
            sentence += (
                f", and the cosine of two chunks of a document went from {alone:.3f} to {whole:.3f}"
            )
        return f"{sentence}."
    gain = context.gain(context.whole, ALONE)
    means = {way: float(context.by_query(way).mean()) for way in context.scores}
    num_queries = len(context.by_query(ALONE))
    ways = [f"{means[ALONE]:.3f} alone", f"{means[IN_CONTEXT]:.3f} in context"]
    if context.whole == UNDER_TITLE:
        ways.append(
            f"{means[UNDER_TITLE]:.3f} with the title read above it (encode_document(titles=...), "
            "as dewey index does with names and titles that describe their texts)"
        )
    sentence = (
        f"{name}: {context.verdict}: nDCG@10 {', '.join(ways)}, a difference of {gain.mean:+.3f} "
        f"(95% interval {gain.low:+.3f} to {gain.high:+.3f}, {num_queries:,} "
        f"{'query' if num_queries == 1 else 'queries'})"
    )
    if context.gain(TITLED, context.whole).low > 0:
        sentence += f"; a title before each chunk finds more, {means[TITLED]:.3f}"
    return f"{sentence}."


def _verdict_table(contexts: Sequence[Context], window: int | None) -> Table:
    """What to do with each collection, and what its documents are like."""
    rows: list[tuple[Cell, ...]] = []
    for each in contexts:
        gain = each.gain(each.whole, ALONE) if each.scores else None
        own = each.collection
        rows.append(
            (
                own.name, len(own.documents), len(each.owners), len(own.qrels) or None,
                own.share_named, *(gain or (None,) * 3), each.verdict,
            )
        )  # fmt: skip
    notes = [
        f"{each.collection.name}: {note}." for each in contexts for note in each.collection.notes
    ]
    read = "one pass" if window is None else f"windows of {window:,} tokens"
    return Table(
        title="Is reading whole worth it?",
        columns=(
            Column(name="documents of"),
            Column(name="documents", digits=0),
            Column(name="chunks", digits=0),
            Column(name="queries", digits=0),
            Column(name="answers that name the title", digits=2),
            *interval_columns("gain"),
            Column(name="verdict"),
        ),
        rows=tuple(rows),
        notes=(
            f"Gain: nDCG@10 over all chunks, each read in its document's {read}, less that of "
            "chunks read alone, with its 95% bootstrap interval over the queries; under the title "
            "where the interval of what that finds more is above 0. Worth it: the gain's interval "
            f"is above 0, and it is {MIN_GAIN:g} or more.",
            *notes,
        ),
    )


def _found_table(contexts: Sequence[Context]) -> Table:
    """What is found by each way of reading."""
    rows: list[tuple[Cell, ...]] = []
    for each in contexts:
        for name in each.scores:
            gain = (None,) * 3 if name == ALONE else each.gain(name, ALONE)
            recall = float(each.by_query(name, "recall_at_5").mean())
            rows.append((each.collection.name, name, *interval(each.by_query(name)), recall, *gain))
    return Table(
        title="What is found",
        columns=(
            Column(name="documents of"),
            Column(name="a chunk is read"),
            *interval_columns("nDCG@10"),
            Column(name="recall@5"),
            *interval_columns("more than alone"),
        ),
        rows=tuple(rows),
        notes=("All chunks are ranked for each query.",),
    )


def _moved_table(contexts: Sequence[Context]) -> Table:
    """How far chunks lie from themselves alone."""
    rows: list[tuple[Cell, ...]] = []
    for each in contexts:
        for name in CHUNK_CONTEXTS:
            if name != ALONE:
                moved = each.moved(name)
                mean = by_document(moved, each.owners) or (None,) * 3
                quantiles = (float(np.quantile(moved, share)) for share in QUANTILES)
                rows.append((each.collection.name, name, *mean, *quantiles))
    return Table(
        title="How far a chunk is moved",
        columns=(
            Column(name="documents of"),
            Column(name="a chunk is read"),
            *interval_columns("mean", digits=3),
            *(Column(name=f"{share:.0%} of chunks up to", digits=3) for share in QUANTILES),
        ),
        rows=tuple(rows),
        notes=(
            "1 − cosine of a chunk's vector and of its text's alone: 0 is where it stays. Means "
            "over documents, with 95% bootstrap intervals over documents.",
        ),
    )


def _near_table(contexts: Sequence[Context]) -> Table:
    """How near the chunks of a document are to each other, before and after."""
    rows: list[tuple[Cell, ...]] = []
    for each in contexts:
        for name, vectors in each.vectors.items():
            near = tightness(vectors, each.owners)
            rows.append((each.collection.name, name, *near, near.difference))
    return Table(
        title="How near the chunks of a document come to each other",
        columns=(
            Column(name="documents of"),
            Column(name="a chunk is read"),
            *(Column(name=name, digits=3) for name in ("siblings", "others", "difference")),
        ),
        rows=tuple(rows),
        notes=(
            "Siblings: mean cosine of two chunks of one document; others: of two documents. A "
            "dash: there are no two.",
        ),
    )


def _moved_plot(contexts: Sequence[Context]) -> Plot:
    """Shares of chunks by how far their document moved them."""
    values = {each.collection.name: each.moved(IN_CONTEXT) for each in contexts}
    highest = max(float(own.max(initial=0.1)) for own in values.values())
    return Plot(
        title="How far its document moves a chunk",
        kind="histogram",
        x_label="1 − cosine of the chunk in context and alone",
        y_label="share of the chunks",
        series=tuple(histogram(name, own, 0, highest) for name, own in values.items()),
    )


def _place_plot(contexts: Sequence[Context]) -> Plot:
    """How far chunks are moved by their place in the document."""
    series = []
    for each in contexts:
        moved = each.moved(IN_CONTEXT)
        masks = [tenths(each.places) == tenth for tenth in range(DECILES)]
        means = [by_document(moved[mask], each.owners[mask]) for mask in masks]
        series.append(Series.of_intervals(each.collection.name, MIDDLES, means))
    return Plot(
        title="How far a chunk is moved, by its place",
        kind="line",
        x_label="middle of the chunk (% of the document)",
        y_label="1 − cosine of the chunk in context and alone",
        series=tuple(series),
    )


def _near_plot(contexts: Sequence[Context]) -> Plot:
    """The cosines of siblings by the way of reading."""
    return Plot(
        title="How near the chunks of a document are to each other",
        kind="bars",
        x_label="",
        y_label="mean cosine of two chunks of one document",
        series=tuple(
            Series(
                name=each.collection.name,
                x=tuple(each.vectors),
                y=tuple(tightness(own, each.owners).within for own in each.vectors.values()),
            )
            for each in contexts
        ),
    )


def _found_plot(contexts: Sequence[Context]) -> Plot:
    """nDCG@10 by the way of reading."""
    return Plot(
        title="What is found by the way a chunk is read",
        kind="bars",
        x_label="",
        y_label="nDCG@10",
        series=tuple(
            Series.of_intervals(
                each.collection.name,
                list(each.scores),
                [interval(each.by_query(name)) for name in each.scores],
            )
            for each in contexts
            if each.scores
        ),
        notes=("Intervals: 95%, over the queries.",),
    )
