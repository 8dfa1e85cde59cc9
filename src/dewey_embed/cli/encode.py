"""`dewey encode`: documents into a file of vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dewey_embed.cli import console, options
from dewey_embed.text.inputs import FILE_MEMORY_MB, FILE_TIMEOUT_S, MAX_TEXT_MB, ReadLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dewey_embed.cli.outputs import Output
    from dewey_embed.encoder import Dewey
    from dewey_embed.types import Document, DocumentVectors, Unreadable


def encode(
    docs: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files and folders; - for stdin.")
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A .parquet, .npz or .jsonl file; - for JSON lines on standard output.",
        ),
    ],
    chunks: Annotated[
        bool,
        typer.Option("--chunks", envvar="DEWEY_CHUNKS", help="Write each chunk, too."),
    ] = False,
    model: options.Model = None,
    chunk_tokens: options.ChunkTokens = None,
    chunk_overlap: options.ChunkOverlap = None,
    splitter: options.Splitter = None,
    overflow: options.Overflow = None,
    text_field: options.TextField = None,
    id_field: options.IdField = None,
    title_field: options.TitleField = None,
    stdin_extension: options.StdinExtension = ".txt",
    file_timeout_s: options.FileTimeout = FILE_TIMEOUT_S,
    file_memory_mb: options.FileMemory = FILE_MEMORY_MB,
    max_text_mb: options.MaxText = MAX_TEXT_MB,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Encode documents into a file: a vector for each, and with --chunks one for each chunk."""
    from dewey_embed.cli.outputs import open_output
    from dewey_embed.config import CHUNK_TOKENS
    from dewey_embed.encoder import Dewey
    from dewey_embed.text.reader import read_documents

    writer = open_output(output, chunks=chunks, inputs=docs)
    items = read_documents(
        docs, text_fields=text_field or (), id_field=id_field, title_field=title_field,
        stdin_extension=stdin_extension,
        limits=ReadLimits(
            file_timeout_s=file_timeout_s, file_memory_mb=file_memory_mb, max_text_mb=max_text_mb
        ),
    )  # fmt: skip
    dewey = Dewey.load(model)
    made = Made(str(output), dewey.embedding_dim, dewey.name)
    how = {
        "chunk_tokens": options.sizes(chunk_tokens) or CHUNK_TOKENS,
        "chunk_overlap": options.sizes(chunk_overlap),
        "splitter": splitter or "tokens",
        "overflow": overflow or "windows",
        "progress": not json,
    }
    _write_all(made, writer, items, dewey, how)
    _report(made, as_json=json, verbose=verbose)


@dataclass
class Made:
    """What a run has made so far, and what it could not read."""

    output: str
    embedding_dim: int
    model: str
    num_documents: int = 0
    num_chunks: int = 0
    faults: list[Unreadable] = field(default_factory=list)
    unread: dict[str, dict[str, int]] = field(default_factory=dict)


def _write_all(
    made: Made,
    writer: Output,
    items: Iterator[Document | Unreadable],
    dewey: Dewey,
    how: dict[str, Any],
) -> None:
    """Encode and write all documents; `made` is then full.

    Raises:
        ReadError: there was none that could be read.

    """
    from dewey_embed.errors import ReadError

    with writer:
        for group in _groups(items, made):
            encoded = dewey.encode_document([document.text for document in group], **how)
            for document, vectors in zip(group, encoded, strict=True):
                _say_if_longer(document, vectors, dewey.max_tokens)
                writer.add(document, vectors)
                made.num_documents += 1
                made.num_chunks += len(vectors.spans)
        if not made.num_documents:
            _list(made, verbose=True)
            raise ReadError("nothing was encoded: no document could be read; nothing was written")


def _report(made: Made, *, as_json: bool, verbose: bool) -> None:
    """Say what was made, and what could not be read, which is the exit status too."""
    unreadable = _list(made, verbose=verbose)
    if made.output == "-":
        pass  # the vectors themselves are what is printed
    elif as_json:
        facts = {name: value for name, value in vars(made).items() if name != "faults"}
        console.print_json({**facts, "unreadable": [str(fault) for fault in unreadable]})
    else:
        console.echo(
            f"{made.output}: {made.num_documents:,} documents, {made.num_chunks:,} chunks, "
            f"{made.embedding_dim} dimensions"
        )
    if unreadable:
        raise typer.Exit(options.EXIT_UNREADABLE)


def _list(made: Made, *, verbose: bool) -> list[Unreadable]:
    """What could not be read, which is then said, with all else that is in no vector."""
    unreadable = [fault for fault in made.faults if not fault.skipped]
    skipped = [fault for fault in made.faults if fault.skipped]
    options.list_faults(unreadable, skipped, made.unread, verbose=verbose)
    return unreadable


def _groups(items: Iterator[Document | Unreadable], made: Made) -> Iterator[list[Document]]:
    """Documents in groups that are encoded together; what is not read goes into `made`."""
    from dewey_embed.types import Unreadable

    group: list[Document] = []
    size = 0
    for item in items:
        if isinstance(item, Unreadable):
            made.faults.append(item)
            continue
        if item.unread:
            made.unread[item.id] = dict(item.unread)
        if group and size + len(item.text) > options.GROUP_CHARS:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item.text)
    if group:
        yield group


def _say_if_longer(document: Document, vectors: DocumentVectors, max_tokens: int) -> None:
    """Say on standard error what became of a text longer than the model takes."""
    if vectors.overflow is None:
        return
    what = (
        "it was read in overlapping windows"
        if vectors.overflow == "windows"
        else f"only its first {vectors.used_tokens:,} are in the vectors"
    )
    console.say(
        f"{document.id} has {vectors.num_tokens:,} tokens, the model takes {max_tokens:,}: {what}"
    )
