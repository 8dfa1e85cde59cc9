"""Tasks whose qrels name passages, over mteb's retrieval task: its documents are the chunks.

A peer ranks the annotated chunks as texts. A Dewey model indexes the documents as `dewey index`
does, and its passages, as `Index.passages` ranks them, stand for the chunks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteb.abstasks import AbsTaskRetrieval

from dewey_embed.eval.adapters import DeweySearch
from dewey_embed.eval.passages import PassageData, Place, read_passages
from dewey_embed.eval.tasks import SPLIT, retrieval_metadata, retrieval_task

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.models.models_protocols import MTEBModels
    from mteb.types import (
        CorpusDatasetType,
        QueryDatasetType,
        RelevantDocumentsType,
        RetrievalOutputType,
        TopRankedDocumentsType,
    )

RANKED_PASSAGES = 100
"""Passages of an index that are ranked for a query: several may stand for one chunk."""

SHOWN = (1, 3)
"""Numbers of passages shown, among which an answer counts."""


def passage_task(folder: Path, *, name: str | None = None) -> AbsTaskRetrieval:
    """The task of a folder with passages; its name is `name`, else that of the folder.

    Raises:
        TaskError: the folder does not hold such a task, or one that contradicts itself.

    """
    data = read_passages(folder)
    metadata = retrieval_metadata(
        name or data.chunks.name,
        path=str(folder),
        revision=data.digest,
        description="Documents, and queries whose answers are annotated places in them.",
    )
    chunks = data.chunks
    task = retrieval_task(PassageTask, metadata, lambda: {SPLIT: chunks}, left_out=chunks.left_out)
    task.data = data  # type: ignore[attr-defined]
    return task


class PassageTask(AbsTaskRetrieval):
    """A retrieval task over chunks of documents, which also scores the passages shown."""

    data: PassageData
    _shown: Mapping[str, Sequence[Place]]

    def evaluate(self, model: MTEBModels, *arguments: Any, **options: Any) -> Any:
        """The scores of a model; those of its passages are then in `passage_scores`."""
        ranking = PassageSearch(model, self.data) if isinstance(model, DeweySearch) else None
        self._shown = ranking.shown if ranking else {}
        return super().evaluate(ranking or model, *arguments, **options)

    def task_specific_scores(
        self,
        scores: dict[str, dict[str, float]],
        qrels: RelevantDocumentsType,
        results: dict[str, dict[str, float]],
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        """The means of `passage_scores`."""
        if not self._shown:  # a peer shows the chunks that it ranks
            places = self.data.places
            self._shown = {
                query: [places[name] for name in sorted(own, key=own.__getitem__, reverse=True)]
                for query, own in results.items()
            }
        by_query = self.passage_scores().values()
        return {
            measure: sum(own[measure] for own in by_query) / len(by_query)
            for measure in map(_measure, SHOWN)
        }

    def passage_scores(self) -> dict[str, dict[str, float]]:
        """For each query 1 where one of the first passages and a relevant chunk share a half."""
        places = self.data.places
        scores = {}
        for query, gains in self.data.chunks.qrels.items():
            relevant = [places[name] for name in gains]
            hits = [
                any(place.covers_half(each) for each in relevant)
                for place in self._shown.get(query, ())[: max(SHOWN)]
            ]
            scores[query] = {_measure(num): float(any(hits[:num])) for num in SHOWN}
        return scores


class PassageSearch:
    """A Dewey model under mteb's `SearchProtocol`, whose passages stand for annotated chunks.

    A passage stands for the chunk that it overlaps most, and each chunk has the rank of its best
    passage. A passage outside of all chunks keeps its rank, and is not relevant. `shown` holds the
    passages of each query.
    """

    def __init__(self, model: DeweySearch, data: PassageData) -> None:
        self._model = model
        self._data = data
        self._chunks: dict[str, list[tuple[str, Place]]] = {}
        for name, place in data.places.items():
            self._chunks.setdefault(place.document, []).append((name, place))
        self.shown: dict[str, list[Place]] = {}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The card of the model."""
        return self._model.mteb_model_meta

    def index(self, corpus: CorpusDatasetType, **options: Any) -> None:
        """Index the documents; the corpus, which holds the chunks, is not read.

        Raises:
            ResultsError: the index of an earlier evaluation cannot be used.

        """
        rows = [
            {"id": name, "title": each.title, "text": each.text}
            for name, each in self._data.documents.items()
        ]
        self._model.index(rows, **options)

    def search(
        self,
        queries: QueryDatasetType,
        *,
        top_ranked: TopRankedDocumentsType | None = None,
        **options: Any,
    ) -> RetrievalOutputType:
        """The chunks of each query's best passages; the scores are ranks, for scores may be equal.

        The passages are in `shown`.
        """
        passages = self._model.passages(
            queries, RANKED_PASSAGES, task_metadata=options["task_metadata"]
        )
        for query, own in passages.items():
            self.shown[query] = [
                Place(each.document_id, each.char_start, each.char_end) for each in own
            ]
        return {
            query: {
                name: float(RANKED_PASSAGES - rank)
                for rank, name in enumerate(dict.fromkeys(map(self._chunk_of, own)))
            }
            for query, own in self.shown.items()
        }

    def _chunk_of(self, passage: Place) -> str:
        """The chunk that a passage overlaps most; a name of its own where there is none."""
        name, place = max(
            self._chunks.get(passage.document, [("", passage._replace(end=passage.start))]),
            key=lambda item: passage.overlap(item[1]),
        )
        if passage.overlap(place):
            return name
        return f"{passage.document}, characters {passage.start} to {passage.end}"


def _measure(num: int) -> str:
    return f"passage_success_at_{num}"
