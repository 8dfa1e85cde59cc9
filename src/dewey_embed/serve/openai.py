"""OpenAI's API: `/v1/embeddings`, with Jina's and Voyage's fields, and `/v1/models`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import ConfigDict, Discriminator, FailFast, Field, Tag
from typing_extensions import TypeAliasType

from dewey_embed.serve.bodies import Body, Dimensions, Text, Texts, Usage, answered, new_router
from dewey_embed.serve.encodings import FORMATS, Dtype, encoded, narrowed, refuse_dimensions
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.server import Server, server_of
from dewey_embed.serve.texts import (
    Dialect,
    document_rows,
    embed,
    joined,
    known_model,
    prompt_for,
    refuse_number,
    refuse_texts,
    served_names,
    truncated,
    truncation_header,
    usage,
)
from dewey_embed.types import Floats

router = new_router("OpenAI, Jina, Voyage")

DIALECT = Dialect(
    remedy="split it, or set truncate to true to leave its end out",
)
LATE_CHUNKING = Dialect(
    field="document",
    remedy="send fewer chunks in one request: with late_chunking, all of them are one document",
)

CL100K = "cl100k_base"
CL100K_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
NO_TOKEN_IDS = (
    "set check_embedding_ctx_length=False in LangChain's OpenAIEmbeddings, or send strings"
)

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = TypeAliasType("TokenIds", Annotated[list[TokenId], FailFast()])
TokenIdsOfTexts = TypeAliasType("TokenIdsOfTexts", Annotated[list[TokenIds], FailFast()])


def _kind_of_input(value: Any) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, str):
        return "<texts>" if isinstance(value, list) else "<text>"
    if not isinstance(value, list):
        return None
    if isinstance(first, list) and value:
        return "<token ids of texts>"
    return "<token ids>" if isinstance(first, int) else "<texts>"


Input = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Texts, Tag("<texts>")]
    | Annotated[TokenIds, Tag("<token ids>")]
    | Annotated[TokenIdsOfTexts, Tag("<token ids of texts>")],
    Discriminator(
        _kind_of_input,
        custom_error_type="input",
        custom_error_message="Input should be a string, a list of strings, or token ids",
    ),
]

Format = Literal["float", "base64", "base64_int8", "base64_binary"]

Task = Literal[
    "retrieval.query", "retrieval.passage", "text-matching", "classification", "separation"
]
TASKS: dict[Task, Literal["query", "document"]] = {
    "retrieval.query": "query",
    "retrieval.passage": "document",
}
"""Jina's tasks → the prompt; the others have the model's default."""


class EmbeddingsRequest(Body):
    """Texts to embed: a vector for each."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "mini", "input": "The tenant pays the rent."},
                {
                    "model": "mini",
                    "input": ["It is due on Mondays.", "The owner mends the roof."],
                    "late_chunking": True,
                },
            ]
        }
    )

    input: Input = Field(
        description="A text, a list of texts, or the cl100k token ids of one or several."
    )
    model: str | None = Field(None, description="The model's name; null is the one served.")
    dimensions: Dimensions | None = Field(
        None, description="Keep that many dimensions; vectors are of unit length again."
    )
    encoding_format: Format | None = Field(
        "float",
        description="Lists of numbers, or base64 of little-endian float32, int8 or packed signs.",
    )
    user: str | None = Field(None, description="Accepted, and not used.")
    task: Task | None = Field(
        None, description="Jina's: whether texts are queries or passages; else no prompt is set."
    )
    late_chunking: bool | None = Field(
        False,
        description="Jina's: all inputs are chunks of one document, which is read in one pass.",
    )
    embedding_type: Literal["float", "base64", "int8", "uint8", "binary", "ubinary"] | None = Field(
        None, description="Jina's name of `encoding_format`, with more formats."
    )
    truncate: bool | None = Field(
        False,
        description="Leave out the end of a text longer than the model takes; without it, such a "
        "text is refused. The header `x-truncated-inputs` names those that were cut.",
    )
    normalized: bool | None = Field(True, description="Vectors always are of unit length.")
    input_type: Literal["query", "document"] | None = Field(
        None, description="Voyage's: whether texts are queries or passages; else no prompt is set."
    )
    truncation: bool | None = Field(
        None, description="Voyage's name of `truncate`; its client sends true unless told not to."
    )
    output_dimension: Dimensions | None = Field(None, description="Voyage's name of `dimensions`.")
    output_dtype: Dtype | None = Field(
        None,
        description="Voyage's: the type of the values, in lists or, with `encoding_format` base64, "
        "as bytes.",
    )


class Embedding(Body):
    """A text's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str


class EmbeddingsAnswer(Body):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


@router.post("/v1/embeddings", responses={200: {"model": EmbeddingsAnswer}})
async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
    """A vector for each text: what `Dewey.encode` returns.

    OpenAI knows neither queries nor documents: texts have the model's default prompt, if it has
    one. `task` or `input_type` sets another.
    """
    server = server_of(request)
    name = known_model(server, body.model)
    _refuse_both(body)
    field = "dimensions" if body.output_dimension is None else "output_dimension"
    dimensions: int | None = getattr(body, field)
    refuse_dimensions(dimensions, server.model.embedding_dim, field=field)
    if body.normalized is False:
        raise ApiError(400, "normalized is false; vectors here are of unit length: leave it out")
    texts = await _texts(body.input, server)
    kind = body.input_type if body.task is None else TASKS.get(body.task)
    prompt_name = prompt_for(server.model, kind)
    if body.late_chunking:
        refuse_texts(server, texts, DIALECT)
        text, spans = joined(texts)
        vectors = await embed(
            request, [text], LATE_CHUNKING, spans=[spans], prompt_name=prompt_name
        )
        rows: Floats = vectors[0].chunks
    else:
        truncate = bool(body.truncate or body.truncation)
        vectors = await embed(request, texts, DIALECT, truncate=truncate, prompt_name=prompt_name)
        rows = document_rows(vectors)
    dtype, in_base64 = FORMATS[body.embedding_type or body.encoding_format or "float"]
    dtype = body.output_dtype or dtype

    def answer() -> dict[str, Any]:
        values = encoded(narrowed(rows, dimensions), dtype, in_base64=in_base64)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": value}
                for index, value in enumerate(values)
            ],
            "model": name,
            "usage": usage(vectors),
        }

    return await answered(answer, truncation_header(truncated(vectors)))


def _refuse_both(body: EmbeddingsRequest) -> None:
    """Refuse fields of two APIs for the same thing.

    Raises:
        ApiError: with their names.

    """
    packed = body.encoding_format in ("base64_int8", "base64_binary")
    for field, other in (
        ("output_dimension", "dimensions"),
        ("input_type", "task"),
        ("output_dtype", "encoding_format" if packed else "embedding_type"),
    ):
        if getattr(body, field) is not None and getattr(body, other) is not None:
            raise ApiError(400, f"{field} and {other} are both given; leave one out")


async def _texts(given: Any, server: Server) -> list[str]:
    """The texts of a request; token ids are decoded."""
    many: list[Any] = [given] if isinstance(given, str) else given
    if many and isinstance(many[0], int):
        many = [many]
    if many and isinstance(many[0], list):
        refuse_number(server, len(many), DIALECT)
        return await asyncio.to_thread(_decoded, many)
    return list(many)


def _decoded(inputs: Sequence[Sequence[int]]) -> list[str]:
    """The texts of cl100k token ids.

    Raises:
        ApiError: the vocabulary is not at hand, or an id is not in it.

    """
    encoding = cl100k()
    if encoding is None:
        raise ApiError(
            400,
            "input holds token ids, for which this server has no vocabulary (cl100k of the package "
            f"tiktoken); {NO_TOKEN_IDS}",
        )
    try:
        return [encoding.decode(list(ids)) for ids in inputs]
    except (KeyError, OverflowError):
        raise ApiError(
            400, f"input holds token ids that cl100k does not have; {NO_TOKEN_IDS}"
        ) from None


def cl100k() -> Any:
    """OpenAI's vocabulary of embedding models; None without tiktoken, or its file on this machine.

    A request never makes the server fetch it.
    """
    try:
        import tiktoken
    except ImportError:
        return None
    given = (os.environ.get(key) for key in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"))
    default = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    folder = next((each for each in given if each is not None), default)
    file = hashlib.sha1(CL100K_URL.encode(), usedforsecurity=False).hexdigest()
    if not folder or not (Path(folder) / file).is_file():
        return None
    return tiktoken.get_encoding(CL100K)


class Model(Body):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str] = Field(description="Further names of it.")
    embedding_dim: int = Field(description="Width of its vectors.")
    max_model_len: int = Field(description="Tokens of one pass, special ones and prompt included.")
    pooling: str = Field(description="How a document's vector is made.")
    prompts: dict[str, str]
    dtype: str


class Models(Body):
    """The models that are served: one."""

    object: Literal["list"]
    data: list[Model]


@router.get("/v1/models", responses={200: {"model": Models}})
async def models(request: Request) -> Response:
    """The model that is served, with its width, limit and prompts."""
    server = server_of(request)
    return await answered(lambda: {"object": "list", "data": [_model(server)]})


@router.get("/v1/models/{name:path}", responses={200: {"model": Model}})
async def model(name: str, request: Request) -> Response:
    """The same by name."""
    server = server_of(request)
    known_model(server, name)
    return await answered(lambda: _model(server))


def _model(server: Server) -> dict[str, Any]:
    name, *aliases = served_names(server)
    model = server.model
    return {
        "id": name,
        "object": "model",
        "created": int(model.folder.stat().st_mtime),
        "owned_by": "dewey",
        "aliases": aliases,
        "embedding_dim": model.embedding_dim,
        "max_model_len": model.max_tokens,
        "pooling": model.config.single_vector,
        "prompts": model.prompts,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
