"""`dewey audit cost`: what many vectors buy, and what they cost in bytes and in time.

One pass of the corpus gives the chunks of every size and overlap; the rest is arithmetic on the
vectors of that pass: precisions, widths, clusters. So every way of storing a corpus is compared on
the same vectors, and only the encoding is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.eval.audits.clusters import clustered
from dewey_embed.eval.audits.cost_findings import to_findings
from dewey_embed.eval.audits.cuts import Cut, CutCache
from dewey_embed.eval.audits.encode_time import encode_times
from dewey_embed.eval.audits.stored import Floats, Parts, Stored
from dewey_embed.eval.audits.ways import Choices, Point, Way, ways
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.scores import query_scores
from dewey_embed.progress import progress_bar
from dewey_embed.types import DocumentVectors

CACHE = Path("~/.cache/dewey-embed/audits")
TOP = 10
TIMED_QUERIES = 30


def audit_cost(
    model: Dewey,
    data: Path,
    *,
    choices: Choices | None = None,
    cache: Path = CACHE,
    seed: int = 0,
    progress: bool = False,
) -> ResultPage:
    """What ways of storing a corpus's vectors find, and what they take in bytes and time.

    `data` is a BEIR folder. Vectors are kept in `cache`: a run that was killed goes on with the
    documents that it was encoding.

    Raises:
        TaskError: the folder is no task.
        ConfigError: an impossible choice.
        InputError: the model makes NaN.

    """
    choices = choices or Choices()
    task = read_beir(data)
    points, documents = measure(model, task, choices, cache, progress=progress)
    cuts = [cut for cut in choices.cuts() if cut.overlap == choices.overlaps[0]]
    times = encode_times(model, task, cuts, seed=seed, progress=progress)
    return to_findings(model, task, documents, choices=choices, points=points, times=times)


def measure(
    model: Dewey,
    data: RetrievalData,
    choices: Choices,
    cache: Path,
    *,
    progress: bool,
) -> tuple[list[Point], list[DocumentVectors]]:
    """A point for each way, and the documents' vectors in all cuts.

    Raises:
        ConfigError: an impossible size, overlap or width.
        InputError: the model makes NaN.

    """
    tried = ways(choices, choices.widths(model.embedding_dim))
    vectors = CutCache(model, cache, choices.cuts())
    documents = vectors.encode(list(data.documents.values()), progress=progress)
    asked = model.encode_query(list(data.queries.values()))
    whole = np.stack([each.vector for each in documents])
    parts: dict[tuple[Cut | None, int | None], Parts] = {}

    def parts_of(way: Way) -> Parts:
        """The vectors that a way stores, made once."""
        key = way.cut, way.clusters
        if key not in parts:
            parts[key] = _parts(way, vectors.cuts, documents, whole)
        return parts[key]

    points = []
    with progress_bar("measuring", len(tried), "ways", show=progress) as advance:
        for way in tried:
            points.append(_point(way, Stored(parts_of(way), way.precision, way.dim), data, asked))
            advance(1)
    return points, documents


def _parts(
    way: Way, cuts: Sequence[Cut], documents: Sequence[DocumentVectors], whole: Floats
) -> Parts:
    """The vectors that a way stores, at full precision and width."""
    if way.cut is None:
        return Parts.without(whole)
    chunks = [each.at(cuts.index(way.cut))[0] for each in documents]
    if way.clusters is not None:
        chunks = [clustered(each, way.clusters) for each in chunks]
    return Parts.of(whole, chunks)


def _point(way: Way, stored: Stored, data: RetrievalData, asked: Floats) -> Point:
    """What a way of storing takes and finds."""
    scores = stored.scores(asked)
    names = list(data.documents)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    ranking = {
        query: {names[place]: float(row[place]) for place in places.tolist()}
        for query, row, places in zip(data.queries, scores, best, strict=True)
    }
    found = query_scores(data.qrels, ranking).values()
    some = asked[:: max(1, len(asked) // TIMED_QUERIES)][:TIMED_QUERIES]
    return Point(
        way=way,
        scores=np.array([each["ndcg_at_10"] for each in found]),
        recall=float(np.mean([each["recall_at_10"] for each in found])),
        num_vectors=stored.num_vectors,
        num_bytes=stored.num_bytes,
        seconds=stored.seconds(some),
    )
