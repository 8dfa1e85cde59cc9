"""Tasks that rank all chunks of all documents, as ConTEB does, over mteb's retrieval task.

A Dewey model gives each chunk a vector by a row of `CHUNK_CONTEXTS`; a peer, which knows no
ranges of a text, reads chunks as texts, alone or under their document's title.

Source: Conti et al., "Context is gold to find the gold passage", arXiv 2505.24782.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.abstasks import AbsTaskRetrieval
from mteb.models.models_protocols import SearchProtocol
from mteb.models.search_wrappers import SearchEncoderWrapper

from dewey_embed.encoder import Dewey
from dewey_embed.eval.adapters import DeweyEncoder
from dewey_embed.eval.chunk_vectors import CHUNK_CONTEXTS, ChunkVectorCache
from dewey_embed.eval.passages import PassageData, num_without_chunks, read_passages
from dewey_embed.eval.scores import rank_documents
from dewey_embed.eval.tasks import SPLIT, retrieval_metadata, retrieval_task

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.models.models_protocols import MTEBModels
    from mteb.types import (
        CorpusDatasetType,
        QueryDatasetType,
        RetrievalOutputType,
        TopRankedDocumentsType,
    )


def folder_task(
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
    return chunk_task(
        data.chunks.name,
        lambda: data,
        path=str(folder),
        revision=data.digest,
        left_out=(*data.chunks.left_out, *_notes(data, folder)),
    )


def chunk_task(
    name: str,
    read: Callable[[], PassageData],
    *,
    path: str,
    revision: str,
    left_out: tuple[str, ...] = (),
) -> AbsTaskRetrieval:
    """A task over chunks; `read` gives its data when they are needed."""
    read = cache(read)
    metadata = retrieval_metadata(
        name,
        path=path,
        revision=revision,
        description="Chunks of documents, all of them ranked.",
        reference="https://arxiv.org/abs/2505.24782",
    )
    task = retrieval_task(ChunkTask, metadata, lambda: {SPLIT: read().chunks}, left_out=left_out)
    task.passages = read  # type: ignore[attr-defined]
    return task


def _notes(data: PassageData, folder: Path) -> list[str]:
    """What the files do not hold, in words: queries with a relevant chunk, titles."""
    notes = []
    if data.chunks.num_unjudged:
        notes.append(
            f"{folder / 'queries.jsonl'}: {data.chunks.num_unjudged:,} queries left out for having "
            "no relevant chunk"
        )
    if missing := num_without_chunks(data.documents, data.places):
        notes.append(
            f"{folder / 'documents.jsonl'}: {missing:,} of {len(data.documents):,} documents left "
            "out for having no chunk"
        )
    if untitled := sum(not each.title for each in data.documents.values()):
        notes.append(
            f"{folder / 'documents.jsonl'}: {untitled:,} of {len(data.documents):,} documents have "
            "no title, so that their chunks are read without one where titles are asked for"
        )
    return notes


class ChunkTask(AbsTaskRetrieval):
    """A retrieval task over chunks, whose documents a Dewey model reads; `passages` holds them."""

    ranks_chunks = True
    passages: Callable[[], PassageData]

    def evaluate(self, model: MTEBModels, *arguments: Any, **options: Any) -> Any:
        """The scores of a model."""
        if isinstance(model, ChunkReader):
            self.load_data()
            model = ChunkSearch(model, self.passages())
        return super().evaluate(model, *arguments, **options)


class ChunkReader(DeweyEncoder):
    """A Dewey model that reads chunks by a row of `CHUNK_CONTEXTS`.

    `cache` is a folder for their vectors. `window` is the most tokens of a document read at once;
    the default is the model's maximum.
    """

    def __init__(
        self,
        model: Dewey,
        cache: Path,
        *,
        context: str,
        window: int | None = None,
        show: bool = False,
    ) -> None:
        super().__init__(model, show=show)
        self.context = context
        self.cache = ChunkVectorCache(model, cache, window=window, show=show)
        self._meta = _named(self._meta, context, window)


class ChunkSearch:
    """A Dewey model under mteb's `SearchProtocol`, over the chunks of a task."""

    def __init__(self, model: ChunkReader, data: PassageData) -> None:
        self._model, self._data = model, data

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The card of the model."""
        return self._model.mteb_model_meta

    def index(self, corpus: CorpusDatasetType, **options: Any) -> None:
        """Embed the chunks; the corpus, which holds them as texts, is not read.

        A chunk without a token is left out of what is ranked.
        """
        own = self._data.by_document().values()
        documents = [document for _, document in own]
        vectors = np.concatenate(self._model.cache.vectors(documents, self._model.context))
        rows = np.flatnonzero(vectors.any(axis=1))
        names = [name for names, _ in own for name in names]
        self._names = [names[row] for row in rows]
        self._vectors = vectors[rows]

    def search(
        self,
        queries: QueryDatasetType,
        *,
        top_k: int,
        top_ranked: TopRankedDocumentsType | None = None,
        **options: Any,
    ) -> RetrievalOutputType:
        """The cosines of each query's `top_k` best chunks; of its candidates in reranking."""
        vectors = np.asarray(self._model.model.encode_query(list(queries["text"])), np.float32)
        scores = vectors @ self._vectors.T
        if top_ranked is None:
            return rank_documents(queries["id"], self._names, scores, top_k)
        rows = {name: row for row, name in enumerate(self._names)}
        return {
            query: {name: float(own[rows[name]]) for name in top_ranked[query] if name in rows}
            for query, own in zip(queries["id"], scores, strict=True)
        }


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
        if not self._titled and "title" in corpus.column_names:
            corpus = corpus.remove_columns("title")
        self._search.index(corpus, **options)

    def search(self, queries: QueryDatasetType, **options: Any) -> RetrievalOutputType:
        """The peer's ranking."""
        ranking: RetrievalOutputType = self._search.search(queries, **options)
        return ranking


def _named(meta: ModelMeta, context: str, window: int | None = None) -> ModelMeta:
    """The card with the context in its name: by default mteb loads no experiments of a model."""
    words = [context.replace("+", "-and-")]
    if weight := CHUNK_CONTEXTS[context].title_weight:
        words.append(f"{weight:g}")
    if window is not None:
        words.append(f"window-{window}")
    return meta.model_copy(update={"name": "-".join([meta.name or "", *words])})
