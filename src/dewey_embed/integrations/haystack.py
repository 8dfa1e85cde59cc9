"""Haystack: components that embed documents, chunks and all, in one pass each, and queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import InputError
from dewey_embed.extras import needs
from dewey_embed.integrations.documents import (
    Chunk,
    chunks_of,
    load_options_of,
    loaded,
    name_of,
    query_vector,
    title_of,
)
from dewey_embed.types import Overflow, Splitter

with needs("haystack", "dewey_embed.integrations.haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import deserialize_callable, serialize_callable


@component
class DeweyDocumentEmbedder:
    """Splits documents and embeds the chunks, one pass a document: documents in, chunks out.

    It stands in place of a splitter and an embedder: each chunk knows its document, for its
    vector is pooled from the pass over all of it. Chunks have what Haystack's splitters write into
    `meta` (`source_id`, `split_id`, `split_idx_start`, `page_number`), and `split_idx_end`.
    `chunk_tokens` to `window` are options of `Dewey.encode_document`; a text longer than the model
    is read in overlapping windows, never cut. With `title_weight` the vector of a document's
    `title` in `meta` is added to its chunks', with that weight; it finds more where sections do not
    name what they are about. `load_options` are those of `Dewey.load`.

    >>> embedder = DeweyDocumentEmbedder(splitter="sentence")
    >>> text = "The tenant pays the rent. The owner mends the roof."
    >>> chunks = embedder.run([Document(content=text, id="lease")])["documents"]
    >>> [(chunk.content, chunk.meta["split_idx_start"]) for chunk in chunks]
    [('The tenant pays the rent.', 0), ('The owner mends the roof.', 26)]
    """

    def __init__(
        self,
        model: Dewey | str | None = None,
        *,
        load_options: dict[str, Any] | None = None,
        chunk_tokens: int = CHUNK_TOKENS,
        chunk_overlap: int | None = None,
        splitter: Splitter = "tokens",
        overflow: Overflow = "windows",
        window: int | None = None,
        title_weight: float = 0.0,
        progress_bar: bool = False,
    ) -> None:
        self.model = model
        self.load_options = load_options
        self.chunk_tokens = chunk_tokens
        self.chunk_overlap = chunk_overlap
        self.splitter = splitter
        self.overflow: Overflow = overflow
        self.window = window
        self.title_weight = title_weight
        self.progress_bar = progress_bar
        self._loaded: Dewey | None = None

    def warm_up(self) -> None:
        """Load the model.

        Raises:
            CheckpointError: it cannot be found, or its folder is damaged.

        """
        self._loaded = self._loaded or loaded(self.model, self.load_options)

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it to a file; a splitter that is a function by its name.

        Haystack refuses one that is a lambda or a nested function.
        """
        return default_to_dict(
            self,
            **_named_model(self.model, self.load_options),
            chunk_tokens=self.chunk_tokens,
            chunk_overlap=self.chunk_overlap,
            splitter=_named_splitter(self.splitter),
            overflow=self.overflow,
            window=self.window,
            title_weight=self.title_weight,
            progress_bar=self.progress_bar,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component that `to_dict` described.

        Haystack refuses a splitter that is a function of a module it may not import.
        """
        parameters = dict(data.get("init_parameters", {}))
        if isinstance(splitter := parameters.get("splitter"), Mapping):
            parameters["splitter"] = deserialize_callable(splitter["function"])
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """The chunks of documents, with embeddings, under `documents`.

        A blank document has none, and a warning.

        Raises:
            InputError: a document has no text; names it.
            TypeError: documents is not a list of documents.

        """
        texts = _texts_of(documents)
        self.warm_up()
        assert self._loaded is not None
        chunked = chunks_of(
            self._loaded,
            texts,
            names=[title_of(each.meta) for each in documents],
            title_weight=self.title_weight,
            chunk_tokens=self.chunk_tokens,
            chunk_overlap=self.chunk_overlap,
            splitter=self.splitter,
            overflow=self.overflow,
            window=self.window,
            progress=self.progress_bar,
        )
        return {
            "documents": [
                _chunk_document(document, text, number, chunk)
                for document, text, chunks in zip(documents, texts, chunked, strict=True)
                for number, chunk in enumerate(chunks)
            ]
        }


@component
class DeweyTextEmbedder:
    """Embeds queries for chunks that `DeweyDocumentEmbedder` embedded with the same model.

    >>> len(DeweyTextEmbedder().run("who pays the rent?")["embedding"])
    384
    """

    def __init__(
        self, model: Dewey | str | None = None, *, load_options: dict[str, Any] | None = None
    ) -> None:
        self.model = model
        self.load_options = load_options
        self._loaded: Dewey | None = None

    def warm_up(self) -> None:
        """Load the model.

        Raises:
            CheckpointError: it cannot be found, or its folder is damaged.

        """
        self._loaded = self._loaded or loaded(self.model, self.load_options)

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it to a file."""
        return default_to_dict(self, **_named_model(self.model, self.load_options))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component that `to_dict` described."""
        return default_from_dict(cls, data)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The vector of a query, under `embedding`.

        Raises:
            TextTooLongError: it is longer than the model takes.
            TypeError: it is not a string.

        """
        if not isinstance(text, str):
            raise TypeError(
                f"text is {type(text).__name__}, not str; documents go to DeweyDocumentEmbedder"
            )
        self.warm_up()
        assert self._loaded is not None
        return {"embedding": query_vector(self._loaded, text)}


def _named_model(model: Dewey | str | None, load_options: dict[str, Any] | None) -> dict[str, Any]:
    """Parameters that load a model again."""
    if isinstance(model, Dewey):
        return {"model": name_of(model), "load_options": load_options_of(model)}
    return {"model": model, "load_options": load_options}


def _named_splitter(splitter: Splitter) -> str | dict[str, str]:
    """A splitter's name, or where its function is found."""
    return splitter if isinstance(splitter, str) else {"function": serialize_callable(splitter)}


def _texts_of(documents: list[Document]) -> list[str]:
    """The texts of documents, all of which must have one."""
    if not isinstance(documents, list) or not all(isinstance(each, Document) for each in documents):
        raise TypeError("documents is not a list of Documents; a query goes to DeweyTextEmbedder")
    without = [each.id for each in documents if each.content is None]
    if without:
        raise InputError(
            f"{len(without)} of {len(documents)} documents have no text ({without[:3]}); convert "
            "them to text first, or leave them out"
        )
    return [each.content or "" for each in documents]


def _chunk_document(document: Document, text: str, number: int, chunk: Chunk) -> Document:
    """A chunk as a Haystack document, whose id does not depend on its embedding."""
    meta = {
        **document.meta,
        "source_id": document.id,
        "split_id": number,
        "split_idx_start": chunk.char_start,
        "split_idx_end": chunk.char_end,
        "page_number": 1 + text.count("\f", 0, chunk.char_start),
    }
    without = Document(content=text[chunk.char_start : chunk.char_end], meta=meta)
    return replace(without, embedding=chunk.vector)
