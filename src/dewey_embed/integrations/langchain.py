"""LangChain: embeddings, and a vector store of complete documents that returns passages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, IndexStoreError, InputError
from dewey_embed.extras import needs
from dewey_embed.index.index import Index
from dewey_embed.integrations.documents import (
    add_to_index,
    loaded,
    passage_id,
    passage_metadata,
    query_vector,
    text_vectors,
    title_of,
)
from dewey_embed.types import Document as IndexDocument
from dewey_embed.types import Filter, Hit, SearchMode

with needs("langchain", "dewey_embed.integrations.langchain"):
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore


class DeweyEmbeddings(Embeddings):
    """LangChain's plain interface: each text is read alone, and has one vector.

    A chunk that is given here does not know its document; `DeweyVectorStore` keeps them together.
    A text longer than the model is read in overlapping windows, never cut; a query that long is
    refused.

    >>> embeddings = DeweyEmbeddings()
    >>> len(embeddings.embed_query("who pays the rent?"))
    384

    Raises:
        CheckpointError: the model cannot be found, or its folder is damaged.

    """

    def __init__(self, model: Dewey | str | Path | None = None) -> None:
        self.model = loaded(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of texts, one each."""
        return text_vectors(self.model, texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return query_vector(self.model, text)


class DeweyVectorStore(VectorStore):
    """An `Index` under LangChain's interface: complete documents in, passages out.

    Give it documents as they are, not chunks: each is read in one pass, in which every passage
    sees what stands around it. A document longer than the index's window is read in overlapping
    windows; nothing is cut. A search returns passages, best first, as LangChain documents. Their
    metadata are those of their document and, where known, `source`, `title`, `page` and what else
    the file tells, `headings`, `document_id`, `char_start`, `char_end`, `score` and `probability`.

    `index` is an index, or the path of one; without it the index is kept in a folder that is
    removed with the store. `embedding` is `DeweyEmbeddings`, whose model a new index takes; an
    existing one knows its own. `options` are those of `Index.open`.

    >>> store = DeweyVectorStore()
    >>> store.add_texts(["The tenant pays the rent. The owner mends the roof."], ids=["lease"])
    ['lease']
    >>> [passage] = store.similarity_search("who mends the roof?", k=1)
    >>> passage.id, passage.metadata["document_id"], passage.metadata["char_start"]
    ('lease:0', 'lease', 0)

    Raises:
        ConfigError: `embedding` is of another kind, or options are given with an `Index`.
        IndexMismatchError: the index was made by another model or with other options.
        IndexStoreError: it is damaged.

    """

    def __init__(
        self,
        index: Index | str | Path | None = None,
        *,
        embedding: Embeddings | None = None,
        mode: SearchMode = "hybrid",
        **options: Any,
    ) -> None:
        model = _model_of(embedding)
        if isinstance(index, Index):
            if options or model is not None:
                raise ConfigError(
                    "an Index has its model and options already; give its path with others"
                )
            self.index = index
        else:
            if index is None:
                self._folder = TemporaryDirectory(prefix="dewey-")  # removed with this object
            self.index = Index.open(index or self._folder.name, model, **options)
        self.mode: SearchMode = mode

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        index: Index | str | Path | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store that holds the texts, each a document; further options are the class's own.

        Raises:
            ConfigError: as the class.
            InputError: as `add_documents`.

        """
        store = cls(index, embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> DeweyEmbeddings:
        """The embeddings of the index's own model."""
        return DeweyEmbeddings(self.index.model)

    def add_documents(
        self,
        documents: list[Document],
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """The ids of the documents, once they are encoded and in the index.

        A document with a known id replaces that one. Without an id it has one made from its text
        and metadata, so that to add it again changes nothing. Its `title` in the metadata helps
        to find all of its passages.

        Raises:
            InputError: there are more or fewer ids than documents.
            TypeError: metadata hold more than text, numbers, truth values and None.
            IndexStoreError: another process is writing.

        """
        given = [each.id for each in documents] if ids is None else list(ids)
        if len(given) != len(documents):
            raise InputError(
                f"there are {len(given)} ids for {len(documents)} documents; give one for each, "
                "or none"
            )
        several = [
            IndexDocument(
                id=name or _content_id(each),
                text=each.page_content,
                title=title_of(each.metadata),
                metadata=each.metadata,
            )
            for name, each in zip(given, documents, strict=True)
        ]
        if several:
            add_to_index(self.index, several)
        return [each.id for each in several]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Whether all of these documents were in the index, which they have left; all without ids.

        Ids are those of documents: a passage's metadata has it as `document_id`.

        Raises:
            IndexStoreError: another process is writing.

        """
        if self._is_empty():
            return not ids
        known = [each.id for each in self.index.documents()]
        names = known if ids is None else [name for name in ids if name in set(known)]
        if names:
            self.index.remove(names)
        return ids is None or len(names) == len(ids)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by their ids, complete, and passages by theirs; unknown ids are left out."""
        if self._is_empty():
            return []
        return [each for each in map(self._by_id, ids) if each is not None]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` passages that answer best, best first; options as `similarity_search_with_score`.

        Raises:
            InputError: as `similarity_search_with_score`.

        """
        return [each for each, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002 - LangChain's word, and ours
        mode: SearchMode | None = None,
    ) -> list[tuple[Document, float]]:
        """The `k` passages that answer best, best first, with scores from 0 to 1, higher better.

        `filter` is that of `Index.search`: `{"year": {">=": 2020}, "court": ["BGH", "BVerfG"]}`.

        Raises:
            InputError: a blank query, `k` below one, or an unknown key in `filter`.

        """
        if self._is_empty():
            return []
        hits = self.index.passages(query, k, mode=mode or self.mode, filter=filter)
        return [(_passage(hit), hit.score) for hit in hits]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: score

    def _is_empty(self) -> bool:
        """Whether the index is still to be made, or holds no document."""
        try:
            _ = self.index.settings  # looks for an index that another process has made since
        except IndexStoreError:
            if any(self.index.path.glob("*")):
                raise
            return True
        return not len(self.index)

    def _by_id(self, name: str) -> Document | None:
        try:
            found = self.index.document(name)
        except InputError:
            return self._passage_by_id(name)
        known = {"source": found.source, "title": found.title}
        metadata = {key: value for key, value in known.items() if value} | dict(found.metadata)
        return Document(id=found.id, page_content=found.text, metadata=metadata)

    def _passage_by_id(self, name: str) -> Document | None:
        document_id, _, number = name.rpartition(":")
        try:
            passage = self.index.passage(document_id, int(number))
        except (InputError, ValueError):
            return None
        found = self.index.document(document_id)
        hit = Hit(
            document_id=document_id, score=passage.score, title=found.title, source=found.source,
            metadata=found.metadata, passages=[passage],
        )  # fmt: skip
        document = _passage(hit)
        del document.metadata["score"]  # it answers no query
        return document


def _passage(hit: Hit) -> Document:
    """The one passage of a hit as a LangChain document."""
    [passage] = hit.passages
    return Document(
        id=passage_id(passage),
        page_content=passage.text,
        metadata=passage_metadata(hit, passage),
    )


def _model_of(embedding: Embeddings | None) -> Dewey | None:
    """The model of embeddings, which must be Dewey's."""
    if embedding is None:
        return None
    if not isinstance(embedding, DeweyEmbeddings):
        raise ConfigError(
            f"embedding is {type(embedding).__name__}, which reads each chunk alone; give "
            "DeweyEmbeddings, or None for the embedded default"
        )
    return embedding.model


def _content_id(document: Document) -> str:
    """An id of a document's text and metadata."""
    content = json.dumps([document.page_content, document.metadata], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
