"""Tasks that rank all chunks of all documents, as ConTEB does, over mteb's retrieval task.

A Dewey model gives each chunk a vector by a row of `CHUNK_CONTEXTS`; a peer, which knows no
ranges of a text, reads chunks as texts, with their document's title before them or without.

Source: Conti et al., "Context is gold to find the gold passage", arXiv 2505.24782.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.abstasks import AbsTaskRetrieval
from mteb.models.models_protocols import SearchProtocol
from mteb.models.search_wrappers import SearchEncoderWrapper

from dewey_embed.encoder import Dewey
from dewey_embed.eval.adapters import DeweyEncoder
from dewey_embed.eval.chunk_vectors import CHUNK_CONTEXTS, ChunkedDocument, ChunkVectorCache
from dewey_embed.eval.passages import PassageData, read_passages
from dewey_embed.eval.scores import rank_documents
from dewey_embed.eval.tasks import SPLIT, retrieval_metadata, retrieval_task

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.models.models_protocols import MTEBModels
    from mteb.types import CorpusDatasetType, QueryDatasetType, RetrievalOutputType


def chunk_task(
    folder: Path, *, num_documents: int | None = None, seed: int = 0
) -> AbsTaskRetrieval:
    """The task of a folder with passages, or of a sample of its documents.

    Raises:
        TaskError: the folder does not hold such a task, or one that contradicts itself, or no
            query is about the sample.

    """
    data = read_passages(folder)
    if num_documents is not None:
        data = data.sample(num_documents, seed)
    metadata = retrieval_metadata(
        data.chunks.name,
        path=str(folder),
        revision=data.digest,
        description="Chunks of documents, all of them ranked.",
    )
    chunks = data.chunks
    task = retrieval_task(ChunkTask, metadata, lambda: {SPLIT: chunks}, left_out=chunks.left_out)
    task.data = data  # type: ignore[attr-defined]
    return task


class ChunkTask(AbsTaskRetrieval):
    """A retrieval task over chunks, whose documents a Dewey model reads."""

    data: PassageData

    def evaluate(self, model: MTEBModels, *arguments: Any, **options: Any) -> Any:
        """The scores of a model."""
        over = ChunkSearch(model, self.data) if isinstance(model, ChunkReader) else model
        return super().evaluate(over, *arguments, **options)


class ChunkReader(DeweyEncoder):
    """A Dewey model that reads chunks by a row of `CHUNK_CONTEXTS`; `cache` keeps their vectors."""

    def __init__(self, model: Dewey, cache: Path, *, context: str, show: bool = False) -> None:
        super().__init__(model, show=show)
        self.context = context
        self.cache = ChunkVectorCache(model, cache, show=show)
        self._meta = _named(self._meta, context)


class ChunkSearch:
    """A Dewey model under mteb's `SearchProtocol`, over the chunks of a task."""

    def __init__(self, model: ChunkReader, data: PassageData) -> None:
        self._model, self._data = model, data

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The card of the model."""
        return self._model.mteb_model_meta

    def index(self, corpus: CorpusDatasetType, **options: Any) -> None:
        """Embed the chunks; the corpus, which holds them as texts, is not read."""
        by_document: dict[str, list[str]] = {}
        for name, place in self._data.places.items():
            by_document.setdefault(place.document, []).append(name)
        self._ids = [name for own in by_document.values() for name in own]
        documents = [
            ChunkedDocument(
                title=self._data.documents[document].title,
                text=self._data.documents[document].text,
                spans=[self._data.places[name][1:] for name in own],
            )
            for document, own in by_document.items()
        ]
        self._vectors = np.concatenate(self._model.cache.vectors(documents, self._model.context))

    def search(
        self, queries: QueryDatasetType, *, top_k: int, **options: Any
    ) -> RetrievalOutputType:
        """The cosines of each query's `top_k` best chunks."""
        vectors = np.asarray(self._model.model.encode_query(list(queries["text"])))
        return rank_documents(queries["id"], self._ids, vectors @ self._vectors.T, top_k)


class PeerChunks:
    """A peer under mteb's `SearchProtocol` that reads chunks as texts, titled or alone."""

    def __init__(self, peer: Any, context: str) -> None:
        self._meta = _named(peer.mteb_model_meta, context)
        self._titled = context == "titled"
        is_search = isinstance(peer, SearchProtocol)
        self._search: Any = peer if is_search else SearchEncoderWrapper(peer)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The card of the peer."""
        return self._meta

    def index(self, corpus: CorpusDatasetType, **options: Any) -> None:
        """Give the chunks to the peer."""
        titles = [] if self._titled or "title" not in corpus.column_names else ["title"]
        self._search.index(corpus.remove_columns(titles), **options)

    def search(self, queries: QueryDatasetType, **options: Any) -> RetrievalOutputType:
        """The peer's ranking."""
        ranking: RetrievalOutputType = self._search.search(queries, **options)
        return ranking


def _named(meta: ModelMeta, context: str) -> ModelMeta:
    """The card with the context in its name: by default mteb loads no experiments of a model."""
    weight = CHUNK_CONTEXTS[context].title_weight
    suffix = context.replace("+", "-and-") + (f"-{weight:g}" if weight else "")
    return meta.model_copy(update={"name": f"{meta.name}-{suffix}"})
