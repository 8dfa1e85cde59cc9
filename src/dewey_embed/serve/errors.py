"""Errors as the answers that clients of each API know: what was got, the limit, the remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dewey_embed.errors import (
    DeweyError,
    IndexStoreError,
    InputError,
    MissingDependencyError,
    TextTooLongError,
)
from dewey_embed.printable import one_line, short_repr

log = logging.getLogger(__name__)


ENDPOINTS = (
    "texts are embedded by /v1/embeddings (OpenAI, Jina, Voyage), /v2/embed (Cohere) and /embed; "
    "/docs lists all paths"
)


class ApiError(Exception):
    """A request that is refused: an HTTP status, a message, and a word that programs know it by."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.headers = status, message, kind, headers


STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (TextTooLongError, 413, "context_length_exceeded"),
    (InputError, 400, "invalid_request_error"),
    (IndexStoreError, 503, "index_unavailable"),
    (MissingDependencyError, 501, "not_installed"),
    (DeweyError, 400, "invalid_request_error"),
    (TypeError, 422, "invalid_request_error"),
)
"""The status and kind of every error of the library; the first that fits."""


def api_error(error: Exception) -> ApiError:
    """The refusal that an error of the library stands for; anything else is a fault of ours."""
    if isinstance(error, ApiError):
        return error
    for kind, status, word in STATUS:
        if isinstance(error, kind) and not (kind is TypeError and _is_ours(error)):
            return ApiError(status, one_line(str(error)), kind=word)
    return ApiError(500, "an error of the server's own; its log says more", kind="server_error")


def _is_ours(error: Exception) -> bool:
    """Whether a `TypeError` came from Python, not from a check of what users gave."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    name = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__", ""))
    return not name.startswith(("dewey_embed.chunking", "dewey_embed.encoder", "dewey_embed.index"))


def _openai(error: ApiError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message, "type": error.kind, "param": None, "code": error.kind,
        },
        "detail": error.message,  # Voyage's client reads nothing else
    }  # fmt: skip


def _tei(error: ApiError) -> dict[str, Any]:
    words = {413: "Validation", 422: "Tokenizer", 424: "Backend", 429: "Overloaded"}
    word = "Empty" if error.kind == "empty" else words.get(error.status, "Validation")
    return {"error": error.message, "error_type": word}


def _voyage(error: ApiError) -> dict[str, Any]:
    return {"detail": error.message}


def _cohere(error: ApiError) -> dict[str, Any]:
    return {"message": error.message}


SHAPES: tuple[tuple[str, Callable[[ApiError], dict[str, Any]]], ...] = (
    ("/v1/contextualizedembeddings", _voyage),
    ("/v2/", _cohere),
    ("/v1/", _openai),
    ("/", _tei),
)
"""The shape of errors below each path; the first that fits."""


def answer(request: Request, error: ApiError) -> JSONResponse:
    """The answer to a request that is refused, in the shape of the API that was called."""
    shape = next(shape for path, shape in SHAPES if request.url.path.startswith(path))
    return JSONResponse(shape(error), status_code=error.status, headers=error.headers)


def validation_message(error: RequestValidationError) -> str:
    """All findings of a check on one line, each with the path of its field."""
    findings = []
    for item in error.errors():
        # Tags of the members of a union stand in angle brackets.
        steps = (str(step) for step in item["loc"] if step != "body")
        path = ".".join(step for step in steps if not step.startswith("<")) or "body"
        if item["type"] == "extra_forbidden":
            findings.append(f"{path}: unknown field")
        elif item["type"] == "json_invalid":
            findings.append(f"the body is not JSON: {item['ctx']['error']}")
        else:
            got = "" if item["type"] == "missing" else f" (got {short_repr(item['input'])})"
            findings.append(f"{path}: {item['msg']}{got}")
    return one_line("; ".join(findings))


def install(app: FastAPI) -> None:
    """Answer every error of an application in the shape of the API that was called."""

    @app.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(request, ApiError(422, validation_message(error)))

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"there is no {short_repr(request.url.path)} here; {ENDPOINTS}"
        headers = dict(error.headers or {})
        return answer(request, ApiError(error.status_code, message, headers=headers))

    @app.exception_handler(Exception)
    def _(request: Request, error: Exception) -> JSONResponse:
        return answer(request, _logged(request, error))

    for kind in (ApiError, DeweyError, TypeError):

        @app.exception_handler(kind)
        def _(request: Request, error: Exception) -> JSONResponse:
            return answer(request, _logged(request, error))


def _logged(request: Request, error: Exception) -> ApiError:
    """The refusal, with the server's own faults in its log."""
    refusal = api_error(error)
    if refusal.status >= 500:
        is_ours = not isinstance(error, ApiError | DeweyError)
        log.error(
            "%s %s: %s",
            request.method,
            request.url.path,
            error,
            exc_info=error if is_ours else None,
        )
    return refusal
