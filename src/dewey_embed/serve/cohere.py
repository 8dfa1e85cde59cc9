"""Cohere's `/v2/embed`.

`truncate` is `NONE` unless it is given, where Cohere's own server cuts the end in silence; texts
that were cut as it was asked stand in `meta.warnings`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import Request, Response
from pydantic import ConfigDict, Field

from dewey_embed.serve.bodies import Body, Dimensions, Texts, answered, new_router
from dewey_embed.serve.encodings import FORMATS, encoded, narrowed, refuse_dimensions
from dewey_embed.serve.server import server_of
from dewey_embed.serve.texts import (
    Dialect,
    Side,
    cut,
    document_rows,
    embed,
    known_model,
    num_tokens,
    prompt_for,
    refuse_longer,
    refuse_texts,
    truncated,
    truncation_header,
)

router = new_router("Cohere")

DIALECT = Dialect(field="texts", remedy="split it, or set truncate to START or END")

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
InputType = Literal["search_document", "search_query", "classification", "clustering"]
KINDS: dict[InputType, Literal["query", "document"]] = {
    "search_document": "document",
    "search_query": "query",
}
"""Types of input → the prompt; the others have the model's default."""

SIDES: dict[str, Side] = {"START": "start", "END": "end"}


EmbeddingTypes = Annotated[list[EmbeddingType], Field(min_length=1, max_length=6)]


class EmbedRequest(Body):
    """Texts to embed: a vector of each of the types for each."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mini",
                    "input_type": "search_document",
                    "texts": ["The tenant pays the rent."],
                    "embedding_types": ["float", "int8"],
                }
            ]
        }
    )

    model: str | None = Field(None, description="The model's name; null is the one served.")
    input_type: InputType = Field(description="What the texts are; it chooses the prompt.")
    texts: Texts = Field(description="The texts.")
    embedding_types: EmbeddingTypes | None = Field(
        None, description="Types of the vectors; null is float, `base64` that of float32."
    )
    output_dimension: Dimensions | None = Field(
        None, description="Keep that many dimensions; vectors are of unit length again."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="A limit of the tokens of a text that is less than the model's."
    )
    truncate: Literal["NONE", "START", "END"] | None = Field(
        "NONE",
        description="Which side of a text over the limit is left out; by default such a text is "
        "refused.",
    )


class ApiVersion(Body):
    """The API's version."""

    version: str


class BilledUnits(Body):
    """Tokens of the texts, without special ones and prompts."""

    input_tokens: int


class Meta(Body):
    """What the request took."""

    api_version: ApiVersion
    billed_units: BilledUnits
    warnings: list[str] | None = None


class EmbedAnswer(Body):
    """Vectors by type, in the order of the texts."""

    response_type: Literal["embeddings_by_type"]
    id: str
    embeddings: dict[EmbeddingType, list[list[float]] | list[list[int]] | list[str]]
    texts: list[str]
    meta: Meta


@router.post("/v2/embed", responses={200: {"model": EmbedAnswer}})
async def cohere_embed(body: EmbedRequest, request: Request) -> Response:
    """A vector of each type for each text."""
    server = server_of(request)
    model = server.model
    known_model(server, body.model)
    refuse_dimensions(body.output_dimension, model.embedding_dim, field="output_dimension")
    refuse_texts(server, body.texts, DIALECT)
    prompt_name = prompt_for(model, KINDS.get(body.input_type))
    texts, positions, side = body.texts, list[int](), SIDES.get(body.truncate or "NONE")
    if side is None and body.max_tokens is not None:
        await asyncio.to_thread(refuse_longer, model, texts, body.max_tokens, DIALECT)
    elif side == "start" or (side == "end" and body.max_tokens is not None):
        texts, positions = await asyncio.to_thread(
            cut, model, texts, prompt_name=prompt_name, room=body.max_tokens, side=side
        )
    vectors = await embed(
        request, texts, DIALECT, truncate=side is not None, prompt_name=prompt_name
    )
    positions = positions or truncated(vectors)

    def answer() -> dict[str, Any]:
        rows = narrowed(document_rows(vectors), body.output_dimension)
        meta: dict[str, Any] = {
            "api_version": {"version": "2"},
            "billed_units": {"input_tokens": num_tokens(vectors)},
        }
        if positions:
            left_out = f"the {side} of texts {', '.join(map(str, positions))} was left out"
            meta["warnings"] = [left_out]
        return {
            "response_type": "embeddings_by_type",
            "id": str(uuid4()),
            "embeddings": {
                kind: encoded(rows, FORMATS[kind][0], in_base64=FORMATS[kind][1])
                for kind in body.embedding_types or ["float"]
            },
            "texts": body.texts,
            "meta": meta,
        }

    return await answered(answer, truncation_header(positions))
