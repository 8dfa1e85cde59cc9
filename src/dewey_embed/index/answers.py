"""A question's vector and words → hits: ranked documents with their best passages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.catalogue import Catalogue, Filter
from dewey_embed.index.neighbours import Mask
from dewey_embed.index.store import Snapshot
from dewey_embed.types import Hit, Passage

Mode = Literal["multi", "single", "hybrid"]

RANK_CONSTANT = 60
"""Of reciprocal rank fusion. Source: Cormack, Clarke and Büttcher, SIGIR 2009."""

FUSED_DEPTH = 100
"""Of each ranking so many documents, or as many as are asked for if more, are fused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: words, their vector (D,) float32, and how to answer."""

    words: str
    vector: NDArray[np.float32]
    k: int
    mode: Mode
    passages: int
    filter: Filter | None = None


def answer(question: Question, snapshot: Snapshot, catalogue: Catalogue) -> list[Hit]:
    """The `k` best documents, best first.

    Raises:
        InputError: the filter names metadata that no document has.

    """
    allowed = catalogue.matching(question.filter) if question.filter else None
    if question.mode == "hybrid":
        depth = max(question.k, FUSED_DEPTH)
        rows, _ = catalogue.rank(question.vector, depth, whole=False, allowed=allowed)
        worded = _full_text_rows(question.words, snapshot, catalogue, depth, allowed)
        ranked = fuse([rows.tolist(), worded])[: question.k]
    else:
        whole = question.mode == "single"
        rows, scores = catalogue.rank(question.vector, question.k, whole=whole, allowed=allowed)
        ranked = list(zip(rows.tolist(), scores.tolist(), strict=True))
    return _hits(question, snapshot, catalogue, ranked)


def fuse(rankings: Iterable[Sequence[int]]) -> list[tuple[int, float]]:
    """Rows with the sum over rankings of 1 / (60 + rank), best first; equal ones by row.

    Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
    individual rank learning methods", SIGIR 2009.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _full_text_rows(
    words: str, snapshot: Snapshot, catalogue: Catalogue, num: int, allowed: Mask | None
) -> list[int]:
    """Up to `num` rows of documents that share words with the question, best first."""
    fetch = num
    while True:
        ids = snapshot.full_text(words, fetch)
        rows = [row for row in catalogue.find(ids) if row is not None]
        if allowed is not None:
            rows = [row for row in rows if allowed[row]]
        if len(rows) >= num or len(ids) < fetch:
            return rows[:num]
        fetch *= 4


def _hits(
    question: Question,
    snapshot: Snapshot,
    catalogue: Catalogue,
    ranked: Sequence[tuple[int, float]],
) -> list[Hit]:
    """Hits for ranked rows, with passages and what is known of the documents."""
    import pyarrow as pa

    rows = pa.array([row for row, _ in ranked], pa.int64())
    known = catalogue.documents.select(["id", "title", "source", "row_id"]).take(rows).to_pylist()
    texts = snapshot.texts([each["row_id"] for each in known]) if question.passages else {}
    hits = []
    for (row, score), each in zip(ranked, known, strict=True):
        best = catalogue.passages(row, question.vector, question.passages)
        hits.append(
            Hit(
                document_id=each["id"],
                score=score,
                title=each["title"],
                source=each["source"],
                metadata=catalogue.metadata(row),
                passages=[
                    Passage(
                        score=similarity,
                        char_start=start,
                        char_end=end,
                        text=texts[each["row_id"]][start:end],
                    )
                    for similarity, start, end in best
                ],
            )
        )
    return hits
