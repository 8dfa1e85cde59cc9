"""`dewey search`: queries to an index."""

from __future__ import annotations

import codecs
import json as jsonlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.background import begun
from dewey_embed.errors import InputError, TextTooLongError
from dewey_embed.printable import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dewey_embed.index.index import Index
    from dewey_embed.types import Hit, MetadataValue

EXAMPLES = """Examples:

dewey search my.index who owns the patents

dewey search my.index - --json -k 10 < queries.txt"""


TOO_LONG = "is longer than the model takes; ask with fewer words"


class Mode(StrEnum):
    """How documents are ranked."""

    multi = "multi"
    single = "single"
    hybrid = "hybrid"


def search(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY",
            help="What to look for; - or nothing: one query a line from stdin.",
        ),
    ] = None,
    *,
    k: Annotated[int, typer.Option("-k", envvar="DEWEY_K", min=1, help="How many documents.")] = 5,
    mode: Annotated[
        Mode,
        typer.Option(
            envvar="DEWEY_MODE",
            help="multi: by each document's best chunk, with a share of its one vector; single: by "
            "its one vector; hybrid: by multi and by words.",
        ),
    ] = Mode.hybrid,
    passages: Annotated[
        int,
        typer.Option(envvar="DEWEY_PASSAGES", min=0, help="How many passages of each."),
    ] = 3,
    filter: Annotated[  # noqa: A002 - the option's name
        list[str] | None,
        typer.Option(
            envvar="DEWEY_FILTER",
            metavar="KEY=VALUE",
            help="Metadata that documents must have; a key given again takes any of its values.",
        ),
    ] = None,
    model: options.Model = None,
    json: options.Json = False,
) -> None:
    """Find the documents that answer a query, with their best passages.

    With --json one object a query and line: {"query": ..., "hits": [...]}.
    """
    wanted = parse_filters(filter or [])
    query = " ".join(words or ["-"])
    if not words and sys.stdin.isatty():
        raise typer.BadParameter("give a query, or - to read them from stdin")
    from_stdin = query == "-"
    vector_of = None
    if not from_stdin:
        query = checked(query, "the query")
        vector_of = begun(partial(_vector, index, model, query))
    opened = _open(index, None if vector_of else model)

    def answer(text: str) -> None:
        vector = vector_of() if vector_of else None
        hits = opened.search(
            text, k, mode=mode.value, passages=passages, filter=wanted, vector=vector
        )
        if json:
            console.print_json({"query": text, "hits": [asdict(hit) for hit in hits]})
        else:
            _print_hits(text, hits, heading=from_stdin)

    if from_stdin:
        _answer_lines(answer)
        return
    try:
        answer(query)
    except TextTooLongError:
        raise InputError(f"the query {TOO_LONG}") from None


def _answer_lines(answer: Callable[[str], None]) -> None:
    """Answer the queries on standard input; one that cannot be answered is named.

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
    """The index, with what is read of it for any query in memory."""
    from dewey_embed.index.index import Index

    opened = Index.open(index, model)
    len(opened)
    return opened


def _vector(index: Path, model: str | None, query: str) -> NDArray[np.float32]:
    """The query's vector, by the model that made the index."""
    from dewey_embed.index.index import Index

    return Index.open(index, model).model.encode_query(query)


def parse_filters(pairs: Sequence[str]) -> dict[str, list[MetadataValue]]:
    """Filters from `key=value` pairs; a value that reads as JSON also stands for what it says."""
    wanted: dict[str, list[MetadataValue]] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is no KEY=VALUE", param_hint="--filter")
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
    """The query as text; one that a terminal or a file gave in bytes is UTF-8.

    Raises:
        InputError: it is not, or it is blank; begins with `name`.

    """
    try:
        # What was no UTF-8 on the command line comes as lone surrogates.
        text = (query if isinstance(query, bytes) else os.fsencode(query)).decode()
    except UnicodeError:
        raise InputError(f"{name} is not UTF-8: {query!r:.80}; convert it to UTF-8") from None
    if not text.strip():
        raise InputError(f"{name} is blank; give words to look for")
    return text.strip()


def _lines() -> Iterator[bytes]:
    """The lines of standard input as they are, without blank ones."""
    for number, line in enumerate(sys.stdin.buffer):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        if text.strip():
            yield text.strip()


def _print_hits(query: str, hits: Sequence[Hit], *, heading: bool) -> None:
    """Hits for people: documents with their score, passages with their characters."""
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
