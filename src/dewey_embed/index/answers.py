"""A question's vector and words → hits: ranked documents with their best passages."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dewey_embed.index.catalogue import Catalogue
from dewey_embed.index.ranking import Question, ranked_rows
from dewey_embed.index.snapshot import Snapshot
from dewey_embed.types import Document, Hit, Passage


def answer(question: Question, snapshot: Snapshot, catalogue: Catalogue) -> list[Hit]:
    """The `k` best documents, best first.

    Raises:
        InputError: the filter names metadata that no document has.

    """
    return _hits(question, snapshot, catalogue, ranked_rows(question, catalogue))


def ranked_ids(
    questions: Sequence[Question], snapshot: Snapshot, catalogue: Catalogue
) -> list[list[tuple[str, float]]]:
    """For each question the ids and scores of its `k` best documents, best first."""
    import pyarrow as pa

    ranked = [ranked_rows(question, catalogue) for question in questions]
    rows = pa.array([row for each in ranked for row, _ in each], pa.int64())
    ids = iter(catalogue.documents["id"].take(rows).to_pylist())
    return [[(next(ids), score) for _, score in each] for each in ranked]


def stored_document(document_id: str, snapshot: Snapshot, catalogue: Catalogue) -> Document | None:
    """The document with this id, as it is in the index; None if there is none."""
    [row] = catalogue.find([document_id])
    if row is None:
        return None
    row_id = catalogue.documents["row_id"][row].as_py()
    [values] = snapshot.rows([row_id], ["places"])
    fields = {name: catalogue.documents[name][row].as_py() for name in ("id", "source", "title")}
    return Document(
        **fields,
        text=snapshot.texts([row_id])[row_id],
        root=json.loads(values["places"])[0][0],
        metadata=catalogue.metadata(row),
    )


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
