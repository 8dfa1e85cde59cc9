"""The folder of a retrieval task → the passages and questions that negatives are mined from.

Where judgements name places in documents, passages are read in them; in BEIR's layout each document
is a passage.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dewey_embed.eval.beir import RetrievalData, read_beir, read_texts
from dewey_embed.eval.passages import is_passage_folder, read_passages
from dewey_embed.train.negatives import LeftOut, Pool, Question


def read_pool(folder: Path) -> Pool:
    """The passages of a folder, and its questions.

    Raises:
        TaskError: as `read_passages` and `read_beir`.

    """
    if not is_passage_folder(folder):
        data = read_beir(folder)
        names = list(data.documents)
        return Pool(
            texts=list(data.documents.values()),
            owners=np.arange(len(names)),
            questions=_questions(data, names),
            left_out=_left_out(folder, data),
        )
    passages = read_passages(folder)
    order = {name: number for number, name in enumerate(passages.documents)}
    names = sorted(passages.places, key=lambda name: order[passages.places[name].document])
    owners = np.array([order[passages.places[name].document] for name in names], np.int64)
    documents = [each.text for each in passages.documents.values()]
    spans: list[list[tuple[int, int]]] = [[] for _ in documents]
    for name, owner in zip(names, owners, strict=True):
        place = passages.places[name]
        spans[owner].append((place.start, place.end))
    return Pool(
        texts=[
            documents[owner][start:end] for owner, own in enumerate(spans) for start, end in own
        ],
        owners=owners,
        questions=_questions(passages.chunks, names),
        documents=documents,
        places=[*spans],
        left_out=_left_out(folder, passages.chunks),
    )


def _questions(data: RetrievalData, names: Iterable[str]) -> list[Question]:
    """The judged questions, with the numbers of their passages."""
    numbers = {name: number for number, name in enumerate(names)}
    return [
        Question(query, text, tuple(numbers[name] for name in data.qrels[query]))
        for query, text in data.queries.items()
    ]


def _left_out(folder: Path, data: RetrievalData) -> LeftOut:
    """The questions of a folder's file that no passage answers."""
    if not data.num_unjudged:
        return {}
    every = read_texts(folder / "queries.jsonl", titles=False)
    unjudged = [name for name, each in every.items() if name not in data.queries]
    return {"without a passage": [name for name in unjudged if every[name].text.strip()]}
