"""Voyage's `/v1/contextualizedembeddings`, and Perplexity's on the same path.

The chunks of a document are joined into one text (`texts.joined` says how), which is read in one
pass; each chunk's vector knows what stands around it. A query's vector is that of its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import ConfigDict, Discriminator, FailFast, Field, Tag
from typing_extensions import TypeAliasType

from dewey_embed.encoder import ReadingOptions
from dewey_embed.serve.bodies import Body, Dimensions, Texts, Usage, answered, new_router
from dewey_embed.serve.encodings import FORMATS, Dtype, encoded, narrowed, refuse_dimensions
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.server import server_of
from dewey_embed.serve.texts import (
    MAX_CHUNKS,
    Dialect,
    embed,
    joined,
    known_model,
    prompt_for,
    refuse_number,
    usage,
)
from dewey_embed.types import DocumentVectors, Floats

router = new_router("Voyage, Perplexity")

CHUNKER_VERSION = "sentences-1"
CHUNK_SIZE = 512
"""Tokens of a chunk where auto-chunking gives none."""


def _kind_of_inputs(value: Any) -> str | None:
    if not isinstance(value, list):
        return None
    return "<documents>" if value and isinstance(value[0], list) else "<texts>"


Documents = TypeAliasType("Documents", Annotated[list[Texts], FailFast()])
Inputs = Annotated[
    Annotated[Documents, Tag("<documents>")] | Annotated[Texts, Tag("<texts>")],
    Discriminator(
        _kind_of_inputs,
        custom_error_type="inputs",
        custom_error_message="Input should be a list of documents, each a list of its chunks",
    ),
]


class ContextualizedRequest(Body):
    """Documents as lists of their chunks, or complete, to be cut into chunks here."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mini",
                    "inputs": [
                        ["The tenant pays the rent.", "It is due on Mondays."],
                        ["Ships carry timber."],
                    ],
                    "input_type": "document",
                },
                {"model": "mini", "inputs": [["who pays the rent?"]], "input_type": "query"},
                {
                    "model": "mini",
                    "inputs": ["The tenant pays the rent. It is due on Mondays."],
                    "enable_auto_chunking": True,
                    "chunk_size": 64,
                },
            ]
        }
    )

    inputs: Inputs | None = Field(
        None,
        description="Documents, each a list of its chunks in order. A flat list holds queries, or "
        "complete documents with `enable_auto_chunking`.",
    )
    input: Inputs | None = Field(
        None, description="Perplexity's name of `inputs`; vectors then are int8 in base64."
    )
    model: str | None = Field(None, description="The model's name; null is the one served.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Which of the model's prompts stands before the texts."
    )
    output_dimension: Dimensions | None = Field(
        None, description="Keep that many dimensions; vectors are of unit length again."
    )
    dimensions: Dimensions | None = Field(
        None, description="Perplexity's name of `output_dimension`."
    )
    output_dtype: Dtype | None = Field(
        "float", description="The type of the vectors' values; null is float."
    )
    encoding_format: Literal["base64", "base64_int8", "base64_binary"] | None = Field(
        None, description="Lists of numbers (null), or base64 of little-endian bytes."
    )
    enable_auto_chunking: bool | None = Field(
        False, description="Cut documents here, into chunks of as many whole sentences as fit."
    )
    chunk_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description=f"Tokens of a chunk with `enable_auto_chunking`; {CHUNK_SIZE} by default."
    )
    chunk_overlap: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Tokens that neighbouring chunks share at most."
    )


class Chunk(Body):
    """A chunk's vector; its text where it was cut here."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str
    text: str | None = None


class DocumentChunks(Body):
    """The chunks of a document in order."""

    object: Literal["list"]
    index: int
    data: list[Chunk]


class ContextualizedAnswer(Body):
    """Documents in the order of the request."""

    object: Literal["list"]
    data: list[DocumentChunks]
    model: str
    usage: Usage
    chunker_version: str | None = None


@router.post("/v1/contextualizedembeddings", responses={200: {"model": ContextualizedAnswer}})
async def contextualized_embeddings(body: ContextualizedRequest, request: Request) -> Response:
    """A vector for each chunk of each document, which is read in one pass."""
    server = server_of(request)
    model = known_model(server, body.model)
    field = "input" if body.inputs is None else "inputs"
    dimensions = body.dimensions if body.output_dimension is None else body.output_dimension
    name = "dimensions" if body.output_dimension is None else "output_dimension"
    refuse_dimensions(dimensions, server.model.embedding_dim, field=name)
    documents = _documents(body, field)
    dialect = Dialect(field=field, remedy="send its parts as documents of their own")
    refuse_number(server, len(documents), dialect)
    _refuse_chunks(documents, field)
    texts, options = _texts(documents, body)
    options["prompt_name"] = prompt_for(server.model, body.input_type)
    vectors = await embed(request, texts, dialect, **options)
    is_query = body.input_type == "query"
    num_chunks = sum(len(each.spans) for each in vectors)
    if num_chunks > MAX_CHUNKS:
        raise ApiError(
            400,
            f"the documents have {num_chunks:,} chunks, the limit is {MAX_CHUNKS:,}; "
            "send a larger chunk_size, or fewer documents",
        )
    dtype, in_base64 = _format(body)

    def answer() -> dict[str, Any]:
        data = []
        for index, (text, each) in enumerate(zip(texts, vectors, strict=True)):
            rows: Floats = each.vector[None] if is_query else each.chunks
            values = encoded(narrowed(rows, dimensions), dtype, in_base64=in_base64)
            shown = _shown(text, each) if body.enable_auto_chunking else [{}] * len(values)
            chunks = [
                {"object": "embedding", "index": position, "embedding": value, **extra}
                for position, (value, extra) in enumerate(zip(values, shown, strict=True))
            ]
            data.append({"object": "list", "index": index, "data": chunks})
        found = {"object": "list", "data": data, "model": model, "usage": usage(vectors)}
        return found | ({"chunker_version": CHUNKER_VERSION} if body.enable_auto_chunking else {})

    return await answered(answer)


def _documents(body: ContextualizedRequest, field: str) -> list[list[str]]:
    """The documents as lists of chunks; a flat list holds one text for each.

    Raises:
        ApiError: the inputs' nesting does not fit the other options.

    """
    if (body.inputs is None) == (body.input is None):
        both = body.inputs is not None
        raise ApiError(422, f"inputs: {'and input are both given' if both else 'Field required'}")
    given: list[Any] = body.inputs if body.inputs is not None else (body.input or [])
    if not given:
        raise ApiError(400, f"{field} is empty; give at least one document")
    sizes = {"chunk_size": body.chunk_size, "chunk_overlap": body.chunk_overlap}
    named = [name for name, value in sizes.items() if value is not None]
    if named and not body.enable_auto_chunking:
        raise ApiError(400, f"{named[0]} is given without enable_auto_chunking; set it to true")
    is_query = body.input_type == "query"
    if body.enable_auto_chunking and is_query:
        raise ApiError(400, "enable_auto_chunking cuts documents; input_type is 'query'")
    if isinstance(given[0], str):
        if not (is_query or body.enable_auto_chunking):
            raise ApiError(
                400,
                f"{field} is a flat list; give each document as a list of its chunks, or set "
                "enable_auto_chunking to true, or input_type to 'query'",
            )
        return [[text] for text in given]
    for position, chunks in enumerate(given):
        if len(chunks) != 1 and (is_query or body.enable_auto_chunking):
            why = "a query is" if is_query else "with enable_auto_chunking a document is"
            raise ApiError(400, f"{field}.{position} has {len(chunks)} strings; {why} one")
    return given


def _refuse_chunks(documents: Sequence[Sequence[str]], field: str) -> None:
    """Refuse documents without chunks, blank chunks, and more chunks than one request may hold."""
    num_chunks = sum(map(len, documents))
    if num_chunks > MAX_CHUNKS:
        raise ApiError(
            400,
            f"{field} has {num_chunks:,} chunks, the limit is {MAX_CHUNKS:,}; "
            "send them in several requests",
        )
    for position, chunks in enumerate(documents):
        if not chunks:
            raise ApiError(400, f"{field}.{position} is empty; give at least one chunk")
        for number, chunk in enumerate(chunks):
            if not chunk or chunk.isspace():
                raise ApiError(400, f"{field}.{position}.{number} is blank; leave it out")


def _texts(
    documents: Sequence[Sequence[str]], body: ContextualizedRequest
) -> tuple[list[str], ReadingOptions]:
    """The documents' texts, and how their chunks are found."""
    if body.input_type == "query":
        return [chunks[0] for chunks in documents], {}
    if not body.enable_auto_chunking:
        pairs = [joined(chunks) for chunks in documents]
        return [text for text, _ in pairs], {"spans": [spans for _, spans in pairs]}
    size, overlap = body.chunk_size or CHUNK_SIZE, body.chunk_overlap or 0
    if overlap >= size:
        raise ApiError(
            400, f"chunk_overlap is {overlap:,}, chunk_size {size:,}; the overlap must be less"
        )
    return [chunks[0] for chunks in documents], {
        "chunk_tokens": size,
        "chunk_overlap": overlap,
        "splitter": "sentences",
    }


def _shown(text: str, vectors: DocumentVectors) -> list[dict[str, str]]:
    """The text of each chunk."""
    return [{"text": text[span.char_start : span.char_end]} for span in vectors.spans]


def _format(body: ContextualizedRequest) -> tuple[Dtype, bool]:
    """What vectors become, and whether their bytes are sent as base64."""
    default = "base64_int8" if body.inputs is None else None
    name = body.encoding_format or default
    if name in ("base64_int8", "base64_binary"):
        return FORMATS[name]
    return body.output_dtype or "float", name == "base64"
