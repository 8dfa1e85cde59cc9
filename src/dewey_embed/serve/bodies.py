"""Bodies of requests and answers: JSON in, checked against a model of its fields; JSON out."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import pydantic_core
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag
from pydantic_core import PydanticKnownError
from typing_extensions import TypeAliasType

from dewey_embed.serve.errors import ApiError

MAX_VALUES = 2_000_000
"""Commas of a body: a text of 64 MB has about one million."""

_MAX_DIGITS = 100
"""More digits than any number of a request needs."""


class Body(BaseModel):
    """Base of all bodies: unknown fields are refused, and values of another type not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


def _without_surrogates(text: str) -> str:
    """The text, if no half of a surrogate pair stands in it alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticKnownError("string_unicode") from None
    return text


Text = Annotated[str, AfterValidator(_without_surrogates)]
Texts = TypeAliasType("Texts", Annotated[list[Text], FailFast()])


def _one_or_several(value: Any) -> str | None:
    if isinstance(value, str):
        return "<text>"
    return "<texts>" if isinstance(value, list) else None


OneOrSeveral = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[Texts, Tag("<texts>")],
    Discriminator(
        _one_or_several,
        custom_error_type="texts",
        custom_error_message="Input should be a string or a list of strings",
    ),
]
"""A text, or a list of them."""


class Usage(Body):
    """Tokens of the texts, without special ones and prompts."""

    prompt_tokens: int
    total_tokens: int


Dimensions = Annotated[int, Field(ge=1)]


def new_router(tag: str) -> APIRouter:
    """A router of `JsonRoute`s, under a heading of the page of docs."""
    return APIRouter(route_class=JsonRoute, tags=[tag])


class JsonRoute(APIRoute):
    """A route that says in words what is wrong with a body that is not JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request, whose body is read first."""
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            checked = _JsonRequest(request.scope, request.receive)
            if self.body_field is not None:
                _refuse_media(request.headers)
                body = await checked.body()
                _refuse_crowd(body)
                checked.value = parsed(body)
            return await handle(checked)

        return read_and_handle


class _JsonRequest(Request):
    """A request whose body was parsed before its handler asks for it."""

    value: Any = None

    async def json(self) -> Any:
        """The body's value."""
        return self.value


def _refuse_media(headers: Mapping[str, str]) -> None:
    """Refuse bodies of another type, or compressed ones."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not (
        media.startswith("application/") and media.endswith("+json")
    ):
        got = repr(media[:60]) if media else "not given"
        raise ApiError(415, f"content-type is {got}; send JSON as application/json")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise ApiError(415, f"content-encoding is {coding[:60]!r}; send the body as it is")


def _refuse_crowd(body: bytes) -> None:
    """Refuse a body of millions of values, which would hold up all other requests."""
    if (num_values := body.count(b",")) > MAX_VALUES:
        raise ApiError(
            413,
            f"the body has about {num_values:,} values, the limit is {MAX_VALUES:,}; send them in "
            "several requests",
        )


def parsed(body: bytes) -> Any:
    """The value of a JSON body.

    >>> parsed(b'{"input": "The tenant pays the rent."}')
    {'input': 'The tenant pays the rent.'}

    Raises:
        ApiError: it is not JSON, or holds NaN, a key twice, or what no request needs: hundreds
            of levels or digits.

    """
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        fault = f"byte {error.start:,} is not UTF-8"
    except json.JSONDecodeError as error:
        fault = f"{error.msg} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        fault = "it is nested too deeply"
    except ValueError as error:
        fault = str(error)
    raise ApiError(422, f"the body is not JSON that can be read: {fault}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits, the limit is {_MAX_DIGITS}")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = max(counts, key=lambda key: counts[key])
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return values


async def answered(make: Callable[[], Any], headers: Mapping[str, str] | None = None) -> Response:
    """The answer of a JSON value, which is made in a thread: it may hold millions of numbers."""
    body = await asyncio.to_thread(lambda: pydantic_core.to_json(make()))
    return Response(body, media_type="application/json", headers=dict(headers or {}))
