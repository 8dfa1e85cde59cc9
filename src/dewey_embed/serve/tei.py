"""The endpoints of Text Embeddings Inference: `/embed`, `/embed_all`, `/similarity` and others.

`truncate` is honoured, never assumed. Errors are 413 (too many, too long), 422, 424 and 429.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import ConfigDict, Field

from dewey_embed.serve import metrics
from dewey_embed.serve.bodies import (
    Body,
    Dimensions,
    OneOrSeveral,
    Text,
    Texts,
    answered,
    new_router,
)
from dewey_embed.serve.encodings import encoded, narrowed, refuse_dimensions
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.server import Server, server_of
from dewey_embed.serve.texts import (
    Dialect,
    Side,
    cut,
    document_rows,
    embed,
    known_prompt,
    model_id,
    num_tokens,
    refuse_longer,
    refuse_number,
    refuse_texts,
    truncated,
    truncation_header,
)
from dewey_embed.types import DocumentVectors, Tokens

router = new_router("Text Embeddings Inference")

DIALECT = Dialect(
    field="inputs",
    too_many=413,
    too_long=413,
    remedy="split it, or set truncate to true to leave its end out",
)
SENTENCES = replace(DIALECT, field="inputs.sentences")
MAX_TOKEN_VECTORS = 16_384
"""Vectors of tokens in one answer. Source: TEI's default of tokens in one batch."""

Direction = Literal["left", "right", "Left", "Right"]


class Truncation(Body):
    """What to do with texts longer than the model takes, and which prompt stands before them."""

    truncate: bool | None = Field(
        default=False,
        description="Leave out one side of a text longer than the model takes; without it, such a "
        "text is refused. The header `x-truncated-inputs` names those that were cut.",
    )
    truncation_direction: Direction | None = Field(
        default="right", description="The side that is left out with `truncate`."
    )
    prompt_name: str | None = Field(
        default=None, description="One of the model's prompts; null is its default, if it has one."
    )


class TokenVectorsRequest(Truncation):
    """Texts, of which each token gets a vector."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": "The tenant pays the rent."}]}
    )

    inputs: OneOrSeveral = Field(description="A text, or a list of texts.")


class EmbedRequest(TokenVectorsRequest):
    """Texts to embed."""

    normalize: bool | None = Field(True, description="Vectors always are of unit length.")
    dimensions: Dimensions | None = Field(
        None, description="Keep that many dimensions; vectors are of unit length again."
    )


class Compared(Body):
    """A sentence, and those to compare it with."""

    source_sentence: Text
    sentences: Texts


class SimilarityRequest(Body):
    """Sentences to compare."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": {
                        "source_sentence": "The tenant pays the rent.",
                        "sentences": ["Rent is due.", "Ships carry timber."],
                    }
                }
            ]
        }
    )

    inputs: Compared = Field(description="A sentence, and those to compare it with.")
    parameters: Truncation | None = Field(None, description="Options.")


class TokenizeRequest(Body):
    """Texts to tokenize."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": "The tenant pays the rent."}]}
    )

    inputs: OneOrSeveral = Field(description="A text, or a list of texts.")
    add_special_tokens: bool = Field(
        True, description="Whether the special tokens around a text are among them."
    )


class Token(Body):
    """A token of a text, and its characters; special tokens have none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class EmbeddingModel(Body):
    """How a document's vector is made."""

    pooling: str


class ModelType(Body):
    """The kind of model: it makes vectors."""

    embedding: EmbeddingModel


class Info(Body):
    """The model, its limits, and this server's."""

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: ModelType
    embedding_dim: Annotated[int, Field(description="Width of the vectors.")]
    prompts: dict[str, str]
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str


@router.post("/", include_in_schema=False)
@router.post("/embed", responses={200: {"model": list[list[float]]}})
async def embed_texts(body: EmbedRequest, request: Request) -> Response:
    """A vector for each text."""
    model = server_of(request).model
    if body.normalize is False:
        raise ApiError(400, "normalize is false; vectors here are of unit length: leave it out")
    refuse_dimensions(body.dimensions, model.embedding_dim)
    vectors, positions = await _vectors(request, _several(body.inputs), body)
    return await answered(
        lambda: encoded(narrowed(document_rows(vectors), body.dimensions)),
        _headers(vectors, positions),
    )


@router.post("/embed_all", responses={200: {"model": list[list[list[float]]]}})
async def embed_tokens(body: TokenVectorsRequest, request: Request) -> Response:
    """A vector for each token of each text, special tokens left out; all know their context."""
    server, texts = server_of(request), _several(body.inputs)
    refuse_texts(server, texts, DIALECT)
    if not body.truncate:
        await asyncio.to_thread(_refuse_tokens, server, texts, MAX_TOKEN_VECTORS)
    vectors, positions = await _vectors(
        request, texts, body, most=MAX_TOKEN_VECTORS // len(texts), chunk_tokens=1, chunk_overlap=0
    )
    return await answered(
        lambda: [encoded(each.chunks) for each in vectors], _headers(vectors, positions)
    )


@router.post("/similarity", responses={200: {"model": list[float]}})
async def similarity(body: SimilarityRequest, request: Request) -> Response:
    """The cosine of a sentence's vector with that of each other sentence."""
    source, sentences = body.inputs.source_sentence, body.inputs.sentences
    server = server_of(request)
    refuse_texts(server, sentences, SENTENCES)
    texts = [*sentences, source]
    vectors, positions = await _vectors(request, texts, body.parameters or Truncation())
    rows = document_rows(vectors)
    return await answered((rows[:-1] @ rows[-1]).tolist, _headers(vectors, positions))


@router.post("/tokenize", responses={200: {"model": list[list[Token]]}})
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of each text as the model reads them, with their characters."""
    server, texts = server_of(request), _several(body.inputs)
    refuse_number(server, len(texts), DIALECT)

    def answer() -> list[list[dict[str, Any]]]:
        tokens = _refuse_tokens(server, texts, server.model.max_tokens)
        return [
            _tokens(server, text, each, around=body.add_special_tokens)
            for text, each in zip(texts, tokens, strict=True)
        ]

    return await answered(answer)


@router.get("/info", responses={200: {"model": Info}})
async def info(request: Request) -> Response:
    """The model, its limits, and this server's."""
    server = server_of(request)
    model, settings = server.model, server.settings
    return await answered(
        lambda: {
            "model_id": model_id(server),
            "model_sha": model.fingerprint,
            "model_dtype": str(model.dtype).removeprefix("torch."),
            "model_type": {"embedding": {"pooling": model.config.single_vector}},
            "embedding_dim": model.embedding_dim,
            "prompts": model.prompts,
            "max_input_length": model.max_tokens,
            "max_batch_tokens": settings.max_tokens,
            "max_client_batch_size": settings.max_inputs,
            "auto_truncate": False,
            "version": version("dewey-embed"),
        }
    )


@router.get("/health", response_class=Response)
async def health(request: Request) -> Response:
    """200 while the server answers; 503 once what the model gives cannot be trusted any more.

    Raises:
        ApiError: with the fault.

    """
    if fault := server_of(request).queue.fault:
        raise ApiError(503, f"{fault}; restart the server", kind="server_error")
    return Response()


@router.get("/metrics", response_class=Response)
async def prometheus() -> Response:
    """Figures for Prometheus."""
    body, media_type = metrics.exposition()
    return Response(body, media_type=media_type)


def _several(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else given


async def _vectors(
    request: Request,
    texts: Sequence[str],
    options: Truncation,
    *,
    most: int | None = None,
    **chunks: Any,
) -> tuple[list[DocumentVectors], list[int]]:
    """The vectors of texts, and the positions of those that were cut, to `most` tokens at most."""
    model = server_of(request).model
    refuse_texts(server_of(request), texts, DIALECT)
    prompt_name = known_prompt(model, options.prompt_name)
    positions: list[int] = []
    side: Side = "start" if (options.truncation_direction or "right").lower() == "left" else "end"
    if options.truncate and (side == "start" or most is not None):
        texts, positions = await asyncio.to_thread(
            cut, model, texts, prompt_name=prompt_name, room=most, side=side
        )
    vectors = await embed(
        request,
        texts,
        DIALECT,
        truncate=bool(options.truncate),
        prompt_name=prompt_name,
        **chunks,
    )
    return vectors, positions or truncated(vectors)


def _refuse_tokens(server: Server, texts: Sequence[str], limit: int) -> list[Tokens]:
    """The tokens of texts, if they are at most `limit` together.

    Raises:
        ApiError: with both numbers.

    """
    refuse_longer(server.model, texts, limit, DIALECT)
    tokens = server.model.tokenizer.encode(texts)
    total = sum(map(len, tokens))
    if total > limit:
        raise ApiError(
            413,
            f"inputs has {total:,} tokens, the limit is {limit:,}; send it in several requests",
        )
    return tokens


def _tokens(server: Server, text: str, tokens: Tokens, *, around: bool) -> list[dict[str, Any]]:
    """A text's tokens as TEI lists them."""
    before, after = server.model.config.special_ids if around else ((), ())
    listed = [
        {"id": token, "text": text[start:stop], "special": False, "start": start, "stop": stop}
        for token, (start, stop) in zip(tokens.ids.tolist(), tokens.offsets.tolist(), strict=True)
    ]
    special = server.model.tokenizer.token

    def of(ids: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"id": token, "text": special(token), "special": True, "start": None, "stop": None}
            for token in ids
        ]

    return [*of(before), *listed, *of(after)]


def _headers(vectors: Sequence[DocumentVectors], positions: Sequence[int]) -> dict[str, str]:
    """TEI's header with the number of tokens, and ours with the texts that were cut."""
    return {"x-compute-tokens": str(num_tokens(vectors))} | truncation_header(positions)
