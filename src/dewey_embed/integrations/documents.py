"""Documents of other frameworks: their chunks with vectors, and passages with metadata."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from dewey_embed.encoder import Dewey, DocumentOptions
from dewey_embed.errors import ConfigError, InputError
from dewey_embed.index.index import Index
from dewey_embed.scoring import with_title
from dewey_embed.types import Document, DocumentVectors, Floats, Hit, Passage

PLACE_KEYS = ("document_id", "char_start", "char_end", "score", "probability")
"""Keys of a passage's metadata that say where it stands, which a language model need not read."""


class Chunk(NamedTuple):
    """A range of a document's characters and its vector."""

    char_start: int
    char_end: int
    vector: list[float]


def loaded(
    model: Dewey | str | Path | None, load_options: Mapping[str, Any] | None = None
) -> Dewey:
    """A model as it was given, or loaded by its name."""
    return model if isinstance(model, Dewey) else Dewey.load(model, **(load_options or {}))


def name_of(model: Dewey) -> str:
    """The name by which the model can be loaded from any working directory."""
    folder = Path(model.name)
    return str(folder.resolve()) if folder.is_dir() else model.name


def load_options_of(model: Dewey) -> dict[str, Any]:
    """Options with which `Dewey.load` gives the model's vectors again."""
    return {
        "single_vector": model.config.single_vector,
        "max_tokens": model.config.max_tokens,
        "truncate_dim": model.truncate_dim,
    }


def text_vectors(model: Dewey, texts: Sequence[str]) -> list[list[float]]:
    """Vectors of texts, each read alone; one longer than the model is read in windows."""
    vectors: list[list[float]] = model.encode(texts, prompt_name="document").tolist()
    return vectors


def query_vector(model: Dewey, text: str) -> list[float]:
    """The vector of a query."""
    vector: list[float] = model.encode_query(text).tolist()
    return vector


def chunks_of(
    model: Dewey,
    texts: Sequence[str],
    *,
    names: Sequence[str] = (),
    title_weight: float = 0.0,
    **options: Unpack[DocumentOptions],
) -> list[list[Chunk]]:
    """The chunks of each text, whose vectors come from one pass over the text.

    With `title_weight`, the vector of a text's title, one of `names`, is added to its chunks' with
    that weight.
    Warns where `overflow="truncate"` left the end of a text out.

    Raises:
        ConfigError: `title_weight` is negative, or an option has an impossible value.

    """
    if not title_weight >= 0:
        raise ConfigError(f"title_weight is {title_weight!r}; give 0, or a weight such as 0.8")
    documents = model.encode_document(texts, **options)
    cut = [position for position, each in enumerate(documents) if each.overflow == "truncate"]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(texts)} documents are longer than the model takes (positions "
            f'{cut[:8]}): their ends were left out; overflow="windows" reads all of them',
            stacklevel=4,
        )
    vectors = [each.chunks for each in documents]
    if title_weight and any(names):
        vectors = _with_titles(model, documents, names, title_weight)
    return [
        [
            Chunk(span.char_start, span.char_end, row)
            for span, row in zip(document.spans, rows.tolist(), strict=True)
        ]
        for document, rows in zip(documents, vectors, strict=True)
    ]


def _with_titles(
    model: Dewey, documents: Sequence[DocumentVectors], titles: Sequence[str], weight: float
) -> list[Floats]:
    """Chunks' vectors with those of their documents' titles added, of unit length again."""
    named = [title for title in titles if title.strip()]
    vectors = iter(model.encode(named, prompt_name="document"))
    return [
        with_title(document.chunks, next(vectors), weight) if title.strip() else document.chunks
        for document, title in zip(documents, titles, strict=True)
    ]


def title_of(metadata: Mapping[str, Any]) -> str:
    """The title among a document's metadata; empty where there is none."""
    title = metadata.get("title")
    return title if isinstance(title, str) else ""


def add_to_index(index: Index, documents: Iterable[Document]) -> None:
    """Add documents to an index; warns of those refused, and of those not read to their end.

    Raises:
        InputError: the index refused all of them.

    """
    several = list(documents)
    report = index.add(several)
    refused = report.unreadable
    if refused and len(refused) == len(several):
        raise InputError("; ".join(map(str, refused)))
    if refused:
        warnings.warn(f"not indexed: {'; '.join(map(str, refused))}", stacklevel=3)
    if report.num_truncated:
        warnings.warn(
            f"{report.num_truncated} documents are longer than the model takes, and the index was "
            'made with overflow="truncate": their ends were left out',
            stacklevel=3,
        )


def passage_id(passage: Passage) -> str:
    """The id of a passage: its document's, and its number there."""
    return f"{passage.document_id}:{passage.number}"


def passage_metadata(hit: Hit, passage: Passage) -> dict[str, Any]:
    """What is known of a passage: its document's metadata, its place, and how well it answers."""
    place = {**asdict(passage.location), "headings": list(passage.location.headings)}
    known = {
        "source": hit.source, "title": hit.title, **place, "probability": hit.probability,
    }  # fmt: skip
    return {
        **hit.metadata,
        **{key: value for key, value in known.items() if value not in (None, "", [])},
        "document_id": passage.document_id,
        "char_start": passage.char_start,
        "char_end": passage.char_end,
        "score": passage.score,
    }
