"""`dewey search`: questions to an index."""

from __future__ import annotations

import json as jsonlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli import options
from dewey_embed.cli.ahead import begun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dewey_embed.search import Index
    from dewey_embed.types import Hit, MetadataValue


class Mode(StrEnum):
    """How documents are ranked."""

    multi = "multi"
    single = "single"
    hybrid = "hybrid"


def search(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
    question: Annotated[
        str | None,
        typer.Argument(help="What to look for; - or nothing: one question a line from stdin."),
    ] = None,
    *,
    k: Annotated[int, typer.Option("-k", envvar="DEWEY_K", min=1, help="Documents.")] = 5,
    mode: Annotated[
        Mode,
        typer.Option(
            envvar="DEWEY_MODE",
            help="Rank by chunks and words, by each document's best chunk, or by its one vector.",
        ),
    ] = Mode.hybrid,
    passages: Annotated[
        int,
        typer.Option(envvar="DEWEY_PASSAGES", min=0, help="Passages of each document."),
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
    """Find the documents that answer a question, with their best passages.

    With --json one object a question and line: {"query": ..., "hits": [...]}.
    """
    wanted = parse_filters(filter or [])
    if question is None and sys.stdin.isatty():
        raise typer.BadParameter("give a question, or - to read them from stdin")
    vector_of = None
    if question is not None and question != "-" and question.strip():
        vector_of = begun(partial(_vector, index, model, question))
    opened = _open(index, None if vector_of else model)
    for query in _questions(question):
        hits = opened.search(
            query, k, mode=mode.value, passages=passages, filter=wanted,
            vector=vector_of() if vector_of else None,
        )  # fmt: skip
        if json:
            options.print_json({"query": query, "hits": [asdict(hit) for hit in hits]})
        else:
            _print_hits(query, hits, heading=question in (None, "-"))


def _open(index: Path, model: str | None) -> Index:
    """The index, with what is read of it for any question in memory."""
    from dewey_embed.search import Index

    opened = Index.open(index, model)
    len(opened)
    return opened


def _vector(index: Path, model: str | None, question: str) -> NDArray[np.float32]:
    """The question's vector, by the model that made the index."""
    from dewey_embed.search import Index

    return Index.open(index, model).model.encode_query(question)


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


def _questions(question: str | None) -> Iterator[str]:
    """The question given, or those on standard input, without blank lines."""
    if question not in (None, "-"):
        yield str(question)
        return
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _print_hits(query: str, hits: Sequence[Hit], *, heading: bool) -> None:
    """Hits for people: documents with their score, passages with their characters."""
    if heading:
        typer.secho(f"? {query}", bold=True)
    if not hits:
        typer.echo("  nothing found")
    # A terminal shows the beginning of a passage; a pipe gets all of it, on one line.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for rank, hit in enumerate(hits, start=1):
        name = hit.title or hit.document_id
        typer.secho(f"{rank}. {name}", bold=True, nl=False)
        where = "" if hit.source in ("", name) else f"  {hit.source}"
        typer.echo(f"  {hit.score:.3f}{where}")
        for passage in hit.passages:
            head = f"   {passage.score:.3f}  [{passage.char_start}:{passage.char_end}]  "
            text = " ".join(passage.text.split())
            room = max(20, 2 * width - len(head))
            shown = text if len(text) <= room else text[: room - 1] + "…"
            typer.echo(head + shown)
