"""`/v1/spans`: a text and any ranges of its characters, one pass, a vector for each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import ConfigDict, FailFast, Field
from typing_extensions import TypeAliasType

from dewey_embed.serve.bodies import Body, Dimensions, Text, Texts, Usage, answered, new_router
from dewey_embed.serve.encodings import encoded, narrowed, refuse_dimensions
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.server import server_of
from dewey_embed.serve.texts import (
    MAX_CHUNKS,
    Dialect,
    embed,
    known_model,
    refuse_number,
    usage,
)
from dewey_embed.types import CharSpans

router = new_router("Dewey")

Range = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
Ranges = TypeAliasType("Ranges", Annotated[list[Range], FailFast()])
RangesOfTexts = TypeAliasType("RangesOfTexts", Annotated[list[Ranges], FailFast()])

REMEDY = "send its parts as texts of their own"


class SpansRequest(Body):
    """A text with ranges of its characters, or several texts with a list of ranges each."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": "The tenant pays the rent. The owner pays for the roof.",
                    "spans": [[0, 25], [26, 54]],
                },
                {
                    "texts": ["The tenant pays the rent.", "Ships carry timber."],
                    "spans": [[[4, 10]], [[0, 5], [12, 18]]],
                },
            ]
        }
    )

    text: Text | None = Field(None, description="A text.")
    texts: Texts | None = Field(None, description="Several texts, in its place.")
    spans: Annotated[Ranges | RangesOfTexts, Field(union_mode="left_to_right")] = Field(
        description="Half-open ranges of characters (Unicode code points), counted from 0: of "
        "`text` a list, of `texts` a list for each."
    )
    model: str | None = Field(None, description="The model's name; null is the one served.")
    dimensions: Dimensions | None = Field(
        None, description="Keep that many dimensions; vectors are of unit length again."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        "float", description="Lists of numbers, or base64 of little-endian float32."
    )
    prompt_name: str | None = Field(
        "document", description="The model's prompt before the texts; null is none."
    )


class SpanVector(Body):
    """A range's vector, and the characters of the tokens that the range touches."""

    object: Literal["span"]
    index: int
    char_start: int
    char_end: int
    embedding: list[float] | str


class SpannedDocument(Body):
    """The vector of a text, and those of its ranges in their order."""

    object: Literal["document"]
    index: int
    embedding: list[float] | str
    spans: list[SpanVector]


class SpansAnswer(Body):
    """Texts in the order of the request."""

    object: Literal["list"]
    data: list[SpannedDocument]
    model: str
    usage: Usage


@router.post("/v1/spans", responses={200: {"model": SpansAnswer}})
async def spans(body: SpansRequest, request: Request) -> Response:
    """A vector for each range of each text, and one for the text, from one pass.

    Ranges may overlap, nest and come in any order. A range stands for every token that it touches.
    """
    server = server_of(request)
    name = known_model(server, body.model)
    refuse_dimensions(body.dimensions, server.model.embedding_dim)
    texts, ranges = _paired(body)
    dialect = Dialect(field="texts" if body.text is None else "text", remedy=REMEDY)
    refuse_number(server, len(texts), dialect)
    num_ranges = sum(map(len, ranges))
    if num_ranges > MAX_CHUNKS:
        raise ApiError(
            400,
            f"spans has {num_ranges:,} ranges, the limit is {MAX_CHUNKS:,}; "
            "send them in several requests",
        )
    vectors = await embed(request, texts, dialect, spans=ranges, prompt_name=body.prompt_name)

    def answer() -> dict[str, Any]:
        data = []
        in_base64 = body.encoding_format == "base64"
        for index, each in enumerate(vectors):
            (own,) = encoded(narrowed(each.vector[None], body.dimensions), in_base64=in_base64)
            rows = encoded(narrowed(each.chunks, body.dimensions), in_base64=in_base64)
            values = [
                {
                    "object": "span",
                    "index": number,
                    "char_start": span.char_start,
                    "char_end": span.char_end,
                    "embedding": row,
                }
                for number, (span, row) in enumerate(zip(each.spans, rows, strict=True))
            ]
            data.append({"object": "document", "index": index, "embedding": own, "spans": values})
        return {"object": "list", "data": data, "model": name, "usage": usage(vectors)}

    return await answered(answer)


def _paired(body: SpansRequest) -> tuple[list[str], list[CharSpans]]:
    """The texts, and the ranges of each.

    Raises:
        ApiError: neither or both of `text` and `texts` are given, or ranges for another number.

    """
    given: list[Any] = body.spans
    nested = bool(given) and (not given[0] or isinstance(given[0][0], list))
    if (body.text is None) == (body.texts is None):
        both = body.text is not None
        raise ApiError(422, f"text: {'and texts are both given' if both else 'Field required'}")
    if body.text is not None:
        if nested:
            raise ApiError(422, "spans: give a list of [start, end] pairs for one text")
        return [body.text], [[(start, end) for start, end in given]]
    texts = body.texts or []
    if given and not nested:
        raise ApiError(422, "spans: give a list of [start, end] pairs for each of the texts")
    if len(given) != len(texts):
        raise ApiError(
            422, f"spans: has ranges for {len(given):,} texts, but there are {len(texts):,}"
        )
    return texts, [[(start, end) for start, end in each] for each in given]
