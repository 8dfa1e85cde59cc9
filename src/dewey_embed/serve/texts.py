"""Texts of requests → vectors: what all embedding endpoints check, and how they call the queue.

Nothing is cut unless the request says so; then the answer's header `x-truncated-inputs` has the
positions of the texts that were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
from fastapi import Request

from dewey_embed.encoder import Dewey, ReadingOptions
from dewey_embed.errors import InputError, TextTooLongError
from dewey_embed.serve import metrics
from dewey_embed.serve.errors import ApiError
from dewey_embed.serve.server import Server, server_of
from dewey_embed.types import CharSpans, DocumentVectors, Floats

MAX_CHUNKS = 16_000
"""Vectors of chunks in one answer. Source: Voyage's and Perplexity's limit."""

TRUNCATED = "x-truncated-inputs"
"""The header with the positions of texts that were cut."""

_CHARS_PER_TOKEN = 4
_LONG_CHARS = 500_000
"""Longer texts, which also have more characters for each token of the model's limit, are tokenized
from their beginning on until they are seen to be too long."""

_OWN_REMEDY = "; pass overflow="
"""Where the library's remedy begins, which is written for Python."""

Side = Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What clients of an API know: the field of the texts, statuses, and what to do instead."""

    field: str = "input"
    too_many: int = 400
    too_long: int = 400
    remedy: str = "send it in parts"


def served_names(server: Server) -> tuple[str, ...]:
    """The names under which the model may be asked for; the first is its id in answers.

    A folder's model has the folder's own name, and its path; a Hugging Face id also its last part.
    Aliases come last.
    """
    name = server.model.name
    last = Path(name).expanduser().name
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    own = (name, last) if is_hub_id or not last else (last, name)
    return tuple(dict.fromkeys((*own, *server.settings.aliases)))


def model_id(server: Server) -> str:
    """The model's id in answers."""
    return served_names(server)[0]


def known_model(server: Server, name: str | None) -> str:
    """The model's id in answers, if the name of a request is one of its names.

    Raises:
        ApiError: the name is another model's.

    """
    names = served_names(server)
    if name is not None and name not in names:
        raise ApiError(
            404,
            f"the model {name[:120]!r} is not served here; the model is {names[0]!r}",
            kind="model_not_found",
        )
    return names[0]


def prompt_for(model: Dewey, kind: Literal["query", "document"] | None) -> str | None:
    """The name of the prompt for texts of a kind: the model's own, else its default, if any."""
    if kind is not None and kind in model.prompts:
        return kind
    return model.config.default_prompt_name


def known_prompt(model: Dewey, name: str | None) -> str | None:
    """The name of a prompt that a request names, else of the model's default, if any.

    Raises:
        ApiError: the model has no prompt of that name.

    """
    if name is not None and name not in model.prompts:
        raise ApiError(
            400, f"prompt_name is {name[:120]!r}; the model has {', '.join(sorted(model.prompts))}"
        )
    return model.config.default_prompt_name if name is None else name


def refuse_texts(server: Server, texts: Sequence[str], dialect: Dialect) -> None:
    """Refuse an empty list, too many texts, or one without a character that can be seen.

    Raises:
        ApiError: with the position of a blank text, or the number of texts and the limit.

    """
    field = dialect.field
    if not texts:
        raise ApiError(400, f"{field} is empty; give at least one text", kind="empty")
    refuse_number(server, len(texts), dialect)
    for position, text in enumerate(texts):
        if not text or text.isspace():
            fault = "is blank" if text else "is an empty string"
            raise ApiError(400, f"{field}.{position} {fault}; leave it out", kind="empty")


def refuse_number(server: Server, number: int, dialect: Dialect) -> None:
    """Refuse more texts than one request may hold.

    Raises:
        ApiError: with both numbers.

    """
    limit = server.settings.max_inputs
    if number > limit:
        raise ApiError(
            dialect.too_many,
            f"{dialect.field} has {number:,} texts, the limit is {limit:,}; "
            "send them in several requests",
        )


async def embed(
    request: Request,
    texts: Sequence[str],
    dialect: Dialect,
    *,
    truncate: bool = False,
    **options: Unpack[ReadingOptions],
) -> list[DocumentVectors]:
    """The vectors of texts, each read in one pass; without chunks unless `options` name some.

    Raises:
        ApiError: a text is blank, or longer than the model takes and `truncate` is not set.

    """
    server = server_of(request)
    refuse_texts(server, texts, dialect)
    if "spans" not in options and "chunk_tokens" not in options:
        options["spans"] = [[] for _ in texts]
    options["overflow"] = "truncate" if truncate else "error"
    try:
        texts = await asyncio.to_thread(_looked_at, server.model, texts, truncate)
        vectors = await server.encode(request, texts, **options)
    except TextTooLongError as error:
        raise ApiError(
            dialect.too_long,
            _in_words(error, dialect, f"; {dialect.remedy}"),
            kind="context_length_exceeded",
        ) from None
    except InputError as error:
        raise ApiError(400, _in_words(error, dialect)) from None
    metrics.TEXTS.inc(len(texts))
    metrics.TOKENS.inc(num_tokens(vectors))
    return vectors


def _in_words(error: Exception, dialect: Dialect, remedy: str = "") -> str:
    """A message of the library, with the field's name and the remedy that this API has."""
    fault, is_python, _ = str(error).partition(_OWN_REMEDY)
    if fault.startswith("text ") and fault[5:6].isdigit():
        fault = f"{dialect.field}.{fault[5:]}"
    return fault + remedy if is_python else fault


def _looked_at(model: Dewey, texts: Sequence[str], truncate: bool) -> list[str]:
    """The texts, without most of what the model will not read of those that are to be cut.

    Raises:
        InputError: a text holds no token.
        TextTooLongError: a text's beginning alone is longer than the model takes.

    """
    looked_at = []
    for position, text in enumerate(texts):
        if not any(map(str.isalnum, text)) and not len(model.tokenizer.encode([text])[0]):
            raise InputError(f"text {position} holds no token; leave it out")
        part, number = _excerpt(model, text, model.max_tokens, "end")
        if len(part) < len(text) and not truncate:
            raise TextTooLongError(
                f"text {position}: its first {len(part):,} of {len(text):,} characters have "
                f"{number:,} tokens, the limit is {model.max_tokens:,}{_OWN_REMEDY}"
            )
        looked_at.append(part)
    return looked_at


def _excerpt(model: Dewey, text: str, limit: int, cut_side: Side) -> tuple[str, int]:
    """What is left of a long text that is cut on one side, and the number of its tokens.

    They are more than `limit`. A text that is not long, or has no more, is returned as it is, with
    0. To tokenize ten megabytes takes half a minute; to see that they are too many, much less.
    """
    num_chars = limit * _CHARS_PER_TOKEN
    if len(text) <= max(num_chars, _LONG_CHARS):
        return text, 0
    while num_chars < len(text):
        part = text[:num_chars] if cut_side == "end" else text[-num_chars:]
        if (number := len(model.tokenizer.encode([part])[0])) > limit:
            return part, number
        num_chars *= 2
    return text, 0


def refuse_longer(model: Dewey, texts: Sequence[str], limit: int, dialect: Dialect) -> None:
    """Refuse texts of more than `limit` tokens.

    Raises:
        ApiError: with the position of the text and both numbers.

    """
    for position, text in enumerate(texts):
        part, number = _excerpt(model, text, limit, "end")
        number = number or len(model.tokenizer.encode([text])[0])
        if number > limit:
            least = "at least " if len(part) < len(text) else ""
            raise ApiError(
                dialect.too_long,
                f"{dialect.field}.{position} has {least}{number:,} tokens, the limit is {limit:,}; "
                f"{dialect.remedy}",
                kind="context_length_exceeded",
            )


def cut(
    model: Dewey, texts: Sequence[str], *, prompt_name: str | None, room: int | None, side: Side
) -> tuple[list[str], list[int]]:
    """The texts without what stands before or after their last or first `room` tokens.

    `room` is what the model takes, unless it is less. With the positions of those that were cut.
    """
    prompt = "" if prompt_name is None else model.prompts.get(prompt_name, "")
    special = sum(map(len, model.config.special_ids))
    kept, positions = [], []
    for position, text in enumerate(texts):
        part, _ = _excerpt(model, text, model.max_tokens, side)
        tokens = model.tokenizer.encode([part], prompt=prompt)[0]
        most = max(model.max_tokens - special - len(tokens.prompt_ids), 1)
        goal = most = most if room is None else min(room, most)
        while len(tokens) > most:
            # A word cut in two may have more tokens than before: cut again, by a little more.
            start, end = tokens.offsets[-goal, 0], tokens.offsets[goal - 1, 1]
            part = part[:end] if side == "end" else part[start:]
            tokens = model.tokenizer.encode([part], prompt=prompt)[0]
            goal = max(goal - 1, 1)
        kept.append(part)
        if len(part) < len(text):
            positions.append(position)
    return kept, positions


def joined(chunks: Sequence[str]) -> tuple[str, CharSpans]:
    r"""The chunks of a document as one text, and the characters of each.

    Where neither of two neighbours has white space at the joint, a line break stands between them.

    >>> joined(["Rent is due.", "On Mondays. ", "In cash."])
    ('Rent is due.\nOn Mondays. In cash.', [(0, 12), (13, 25), (25, 33)])
    """
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    end = 0
    for chunk in chunks:
        if pieces and not pieces[-1][-1:].isspace() and not chunk[:1].isspace():
            pieces.append("\n")
            end += 1
        pieces.append(chunk)
        spans.append((end, end + len(chunk)))
        end += len(chunk)
    return "".join(pieces), spans


def num_tokens(vectors: Sequence[DocumentVectors]) -> int:
    """The tokens of the texts that the model read, without special ones and prompts."""
    return sum(each.used_tokens for each in vectors)


def document_rows(vectors: Sequence[DocumentVectors]) -> Floats:
    """The documents' vectors (N, D)."""
    return np.stack([each.vector for each in vectors])


def truncation_header(positions: Sequence[int]) -> dict[str, str]:
    """The header that names texts that were cut; none where all were read in full."""
    return {TRUNCATED: ", ".join(map(str, positions))} if positions else {}


def truncated(vectors: Sequence[DocumentVectors]) -> list[int]:
    """Positions of the texts whose end was left out."""
    return [position for position, each in enumerate(vectors) if each.overflow == "truncate"]


def usage(vectors: Sequence[DocumentVectors]) -> dict[str, Any]:
    """The counts of tokens that clients read."""
    total = num_tokens(vectors)
    return {"prompt_tokens": total, "total_tokens": total}
