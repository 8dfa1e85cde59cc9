"""LlamaIndex: nodes whose vectors come from one pass over their document, and a retriever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PrivateAttr

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.extras import needs
from dewey_embed.index.index import Index
from dewey_embed.integrations.documents import (
    PLACE_KEYS,
    add_to_index,
    chunks_of,
    load_options_of,
    loaded,
    name_of,
    passage_id,
    passage_metadata,
    query_vector,
    text_vectors,
    title_of,
)
from dewey_embed.types import Document as IndexDocument
from dewey_embed.types import Filter, Hit, Overflow, SearchMode, Splitter

with needs("llama-index", "dewey_embed.integrations.llama_index"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.node_parser import NodeParser
    from llama_index.core.node_parser.node_utils import build_nodes_from_splits
    from llama_index.core.schema import (
        BaseNode,
        Document,
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )


def _splitter_name(splitter: Splitter) -> str:
    """The name of a splitter, as it stands in the keys of caches."""
    if isinstance(splitter, str):
        return splitter
    return f"{splitter.__module__}.{getattr(splitter, '__qualname__', type(splitter).__name__)}"


class DeweyNodeParser(NodeParser):
    """A transformation that splits documents and embeds their nodes, one pass a document.

    Each node knows its document: its vector is pooled from the pass over all of it. Nodes have
    `start_char_idx` and `end_char_idx`, their document's metadata, their neighbours and an
    embedding, so that `VectorStoreIndex` and other transformations embed them no more; queries
    need `DeweyEmbedding` with the same model. `chunk_tokens` to `window` are options of
    `Dewey.encode_document`; a text longer than the model is read in overlapping windows, never
    cut. With `title_weight` the vector of a document's `title` in its metadata is added to its
    nodes', with that weight; it finds more where sections do not name what they are about.

    >>> parser = DeweyNodeParser(splitter="sentence")
    >>> text = "The tenant pays the rent. The owner mends the roof."
    >>> nodes = parser.get_nodes_from_documents([Document(text=text)])
    >>> [(node.start_char_idx, node.end_char_idx, len(node.embedding)) for node in nodes]
    [(0, 25, 384), (26, 51, 384)]

    Raises:
        CheckpointError: the model cannot be found, or its folder is damaged.

    """

    model_name: str
    load_options: dict[str, Any]
    fingerprint: str = Field(description="Changes with the model, and so do keys of caches.")
    chunk_tokens: int = CHUNK_TOKENS
    chunk_overlap: int | None = None
    splitter: Annotated[Splitter, PlainSerializer(_splitter_name)] = "tokens"
    overflow: Overflow = "windows"
    window: int | None = None
    title_weight: float = 0.0
    _model: Dewey = PrivateAttr()

    def __init__(self, model: Dewey | str | Path | None = None, **fields: Any) -> None:
        loaded_model = _take_model(model, fields)
        super().__init__(**fields)
        self._model = loaded_model

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex keeps the component."""
        return "DeweyNodeParser"

    def _parse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        chunked = chunks_of(
            self._model,
            texts,
            names=[title_of(node.metadata) for node in nodes],
            title_weight=self.title_weight,
            chunk_tokens=self.chunk_tokens,
            chunk_overlap=self.chunk_overlap,
            splitter=self.splitter,
            overflow=self.overflow,
            window=self.window,
            progress=show_progress,
        )
        parsed: list[BaseNode] = []
        for node, text, chunks in zip(nodes, texts, chunked, strict=True):
            splits = [text[chunk.char_start : chunk.char_end] for chunk in chunks]
            own = build_nodes_from_splits(splits, node, id_func=self.id_func)
            for each, chunk in zip(own, chunks, strict=True):
                each.embedding = chunk.vector
                each.start_char_idx, each.end_char_idx = chunk.char_start, chunk.char_end
            parsed += own
        return parsed

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        return await asyncio.to_thread(self._parse_nodes, nodes, show_progress, **kwargs)

    def _postprocess_parsed_nodes(
        self, nodes: list[BaseNode], parent_doc_map: dict[str, Document]
    ) -> list[BaseNode]:
        # LlamaIndex looks for each text in the document, and finds an earlier one with its words.
        texts = [node for node in nodes if isinstance(node, TextNode)]
        places = [(node.start_char_idx, node.end_char_idx) for node in texts]
        processed = super()._postprocess_parsed_nodes(nodes, parent_doc_map)
        for node, place in zip(texts, places, strict=True):
            node.start_char_idx, node.end_char_idx = place
        return processed


class DeweyEmbedding(BaseEmbedding):
    """LlamaIndex's plain interface: queries, and texts read alone.

    Nodes that `DeweyNodeParser` made have their embeddings already. A text longer than the model
    is read in overlapping windows, never cut; a query that long is refused.

    >>> len(DeweyEmbedding().get_query_embedding("who pays the rent?"))
    384

    Raises:
        CheckpointError: the model cannot be found, or its folder is damaged.

    """

    load_options: dict[str, Any]
    fingerprint: str = Field(description="Changes with the model, and so do keys of caches.")
    embed_batch_size: int = Field(default=256, gt=0, le=2048)
    _model: Dewey = PrivateAttr()

    def __init__(self, model: Dewey | str | Path | None = None, **fields: Any) -> None:
        loaded_model = _take_model(model, fields)
        super().__init__(**fields)
        self._model = loaded_model

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex keeps the component."""
        return "DeweyEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return query_vector(self._model, query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return text_vectors(self._model, texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class DeweyRetriever(BaseRetriever):
    """A retriever over an `Index`: passages of complete documents, best first, as nodes.

    `index` is an index, or the path of one, made by `dewey index`, `Index.add` or this class's
    `add_documents`. Nodes have their document's metadata and, where known, `source`, `title`,
    `page` and what else the file tells, and `headings`; `document_id`, `char_start`, `char_end`,
    `score` and `probability` are kept from language models. `filter` is that of `Index.search`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     retriever = DeweyRetriever(folder, similarity_top_k=1)
    ...     _ = retriever.add_documents([Document(text="Moths eat wool.", id_="moth")])
    ...     [found] = retriever.retrieve("what eats wool?")
    >>> found.node.ref_doc_id, found.node.start_char_idx, found.node.get_content()
    ('moth', 0, 'Moths eat wool.')

    Raises:
        IndexMismatchError: the index was made by another model.
        IndexStoreError: it is damaged.

    """

    def __init__(
        self,
        index: Index | str | Path,
        *,
        similarity_top_k: int = 5,
        mode: SearchMode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of Index.search
        **fields: Any,
    ) -> None:
        super().__init__(**fields)
        self.index = index if isinstance(index, Index) else Index.open(index)
        self.similarity_top_k = similarity_top_k
        self.mode: SearchMode = mode
        self.filter = filter

    def add_documents(self, documents: Iterable[BaseNode]) -> list[str]:
        """The ids of the documents, once they are encoded and in the index.

        A document with a known id replaces that one. Its `title` in the metadata helps to find
        all of its passages.

        Raises:
            TypeError: metadata hold more than text, numbers, truth values and None.
            InputError: the index refused all of them.
            IndexStoreError: another process is writing.

        """
        several = [
            IndexDocument(
                id=each.node_id,
                text=each.get_content(metadata_mode=MetadataMode.NONE),
                title=title_of(each.metadata),
                metadata=each.metadata,
            )
            for each in documents
        ]
        add_to_index(self.index, several)
        return [each.id for each in several]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.index.passages(
            query_bundle.query_str, self.similarity_top_k, mode=self.mode, filter=self.filter
        )
        return [NodeWithScore(node=_passage_node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _passage_node(hit: Hit) -> TextNode:
    """The one passage of a hit as a node."""
    [passage] = hit.passages
    return TextNode(
        id_=passage_id(passage),
        text=passage.text,
        start_char_idx=passage.char_start,
        end_char_idx=passage.char_end,
        metadata=passage_metadata(hit, passage),
        excluded_llm_metadata_keys=list(PLACE_KEYS),
        excluded_embed_metadata_keys=list(PLACE_KEYS),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=passage.document_id)},
    )


def _take_model(model: Dewey | str | Path | None, fields: dict[str, Any]) -> Dewey:
    """The model given, or named in the fields, which name it afterwards."""
    given = fields.get("model_name") if model is None else model
    found = loaded(given, fields.get("load_options"))
    fields["model_name"] = name_of(found)
    fields["load_options"] = load_options_of(found)
    fields["fingerprint"] = found.fingerprint
    return found
