"""`dewey search`: queries of an index, and how hits are printed."""

from __future__ import annotations

import codecs
import json as jsonlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.background import in_background
from dewey_embed.errors import InputError, TextTooLongError
from dewey_embed.printable import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dewey_embed.index.index import Index
    from dewey_embed.types import Hit, MetadataValue

TOO_LONG = "is longer than the model takes; ask with fewer words"

_NEAREST, _SHOWN = 100, 10
"""Documents looked at, and values shown, where a filter lets no document pass."""

Mode = Literal["hybrid", "multi", "single"]
IndexArgument = Annotated[Path, typer.Argument(help="The index's folder.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="QUERY",
        help="What to look for, with or without quotes; - or nothing: one query a line of "
        "standard input.",
    ),
]
TopK = Annotated[int, typer.Option("-k", envvar="DEWEY_K", min=1, help="How many documents.")]
ModeOption = Annotated[
    Mode,
    typer.Option(
        "--mode",
        envvar="DEWEY_MODE",
        help="How documents are ranked. hybrid: by multi and by their words (BM25); multi: by "
        "each document's best chunk, with a share of its one vector; single: by its one vector.",
    ),
]
Passages = Annotated[
    int, typer.Option(envvar="DEWEY_PASSAGES", min=0, help="How many passages of each document.")
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DEWEY_FILTER",
        metavar="KEY=VALUE",
        help="Metadata that documents must have; a key given again takes any of its values.",
    ),
]


def search(
    index: IndexArgument,
    words: Words = None,
    *,
    k: TopK = 5,
    mode: ModeOption = "hybrid",
    passages: Passages = 3,
    filter: Filter = None,  # noqa: A002 - the option's name
    model: options.Model = None,
    json: options.Json = False,
) -> None:
    """Find the documents that answer a query, with their best passages.

    With --json, one object for each query, on a line: {"query": ..., "hits": [...]}.
    """
    wanted = parse_filters(filter or [])
    query = " ".join(words or ["-"])
    if not words and sys.stdin.isatty():
        raise typer.BadParameter("give a query, or - to read them from stdin")
    from_stdin = query == "-"
    query_vector = None
    if not from_stdin:
        query = checked(query, "the query")
        query_vector = in_background(partial(_query_vector, index, model, query))
    opened = _open(index, None if query_vector else model)

    def answer(text: str) -> None:
        vector = query_vector() if query_vector else None
        hits = opened.search(text, k, mode=mode, passages=passages, filter=wanted, vector=vector)
        if json:
            console.print_json({"query": text, "hits": [asdict(hit) for hit in hits]})
        else:
            _print_hits(text, hits, heading=from_stdin)
        if filter and not hits:
            _say_what_there_is(opened, text, filter, vector)

    if from_stdin:
        _answer_lines(answer)
        return
    try:
        answer(query)
    except TextTooLongError:
        raise InputError(f"the query {TOO_LONG}") from None


def _say_what_there_is(
    opened: Index, query: str, filters: Sequence[str], vector: NDArray[np.float32] | None
) -> None:
    """Say which values the nearest documents have, where no document passes the filter."""
    nearest = opened.search(query, k=_NEAREST, passages=0, vector=vector)
    held = [
        f"{key}={value if isinstance(value, str) else jsonlib.dumps(value)}"
        for key in dict.fromkeys(pair.partition("=")[0] for pair in filters)
        for value in dict.fromkeys(hit.metadata.get(key) for hit in nearest)
        if value is not None
    ]
    console.say(
        f"no document has {' and '.join(filters)}; "
        f"the nearest have {', '.join(held[:_SHOWN]) or 'no such metadata'}"
    )


def _answer_lines(answer: Callable[[str], None]) -> None:
    """Answer the queries on standard input, and name those that cannot be answered.

    Raises:
        Exit: some were not answered.

    """
    num_failed = num_answered = 0
    for number, line in enumerate(_lines(), start=1):
        name = f"query {number} on standard input"
        try:
            answer(checked(line, name))
            num_answered += 1
        except InputError as error:
            num_failed += 1
            said = f"{name} {TOO_LONG}" if isinstance(error, TextTooLongError) else str(error)
            console.say(f"error: {said if said.startswith(name) else f'{name}: {said}'}")
    if num_failed:
        raise typer.Exit(options.EXIT_UNREADABLE if num_answered else 1)


def _open(index: Path, model: str | None) -> Index:
    """The index, with what every query needs in memory."""
    from dewey_embed.index.index import Index

    opened = Index.open(index, model)
    len(opened)
    return opened


def _query_vector(index: Path, model: str | None, query: str) -> NDArray[np.float32]:
    """The query's vector, by the model that made the index."""
    from dewey_embed.index.index import Index

    return Index.open(index, model).model.encode_query(query)


def parse_filters(pairs: Sequence[str]) -> dict[str, list[MetadataValue]]:
    """Filters from `key=value` pairs; a value that is valid JSON also matches that JSON value.

    Raises:
        BadParameter: a pair without a key or an equals sign.

    """
    wanted: dict[str, list[MetadataValue]] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--filter")
        values = wanted.setdefault(key, [])
        values.append(text)
        try:
            value = jsonlib.loads(text)
        except ValueError:
            continue
        if value is None or isinstance(value, str | int | float | bool):
            values.append(value)
    return wanted


def checked(query: str | bytes, name: str) -> str:
    """The query as text, stripped.

    Raises:
        InputError: it is not UTF-8, or it is blank; the message begins with `name`.

    """
    try:
        # Python gives bytes of the command line that are not UTF-8 as lone surrogates.
        text = (query if isinstance(query, bytes) else os.fsencode(query)).decode()
    except UnicodeError:
        raise InputError(f"{name} is not UTF-8: {query!r:.80}; convert it to UTF-8") from None
    if not text.strip():
        raise InputError(f"{name} is blank; give words to look for")
    return text.strip()


def _lines() -> Iterator[bytes]:
    """The lines of standard input in bytes, without blank ones."""
    for number, line in enumerate(sys.stdin.buffer):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        if text.strip():
            yield text.strip()


def _print_hits(query: str, hits: Sequence[Hit], *, heading: bool) -> None:
    """Print hits for people: documents with their score, passages with their characters."""
    if heading:
        console.echo(f"? {one_line(query)}", bold=True)
    if not hits:
        console.echo("  nothing found")
    # A terminal shows the beginning of a passage; a pipe gets all of it, on one line.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for rank, hit in enumerate(hits, start=1):
        name = one_line(hit.title or hit.document_id)
        source = one_line(hit.source)
        console.echo(f"{rank}. {name}", bold=True, end="")
        where = "" if source in ("", name) else f"  {source}"
        console.echo(f"  {hit.score:.3f}{where}")
        for passage in hit.passages:
            head = f"   {passage.score:.3f}  [{passage.char_start}:{passage.char_end}]  "
            text = one_line(passage.text)
            room = max(20, 2 * width - len(head))
            shown = text if len(text) <= room else text[: room - 1] + "…"
            console.echo(head + shown)
