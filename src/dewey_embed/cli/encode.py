"""`dewey encode`: documents into a file of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dewey_embed.text.reader import Unreadable
    from dewey_embed.types import Document, DocumentVectors


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
            envvar="DEWEY_OUTPUT",
            show_envvar=True,
            help="A .parquet, .npz or .jsonl file; - for JSON lines on standard output.",
        ),
    ],
    chunks: Annotated[
        bool,
        typer.Option(
            "--chunks", envvar="DEWEY_CHUNKS", show_envvar=True, help="Write each chunk, too."
        ),
    ] = False,
    model: options.Model = None,
    chunk_tokens: options.ChunkTokens = None,
    chunk_overlap: options.ChunkOverlap = None,
    splitter: options.SplitterOption = None,
    overflow: options.OverflowOption = None,
    text_field: options.TextField = None,
    id_field: options.IdField = None,
    title_field: options.TitleField = None,
    stdin_extension: options.StdinExtension = ".txt",
    json: options.Json = False,
) -> None:
    """Encode documents into a file: a vector for each, and with --chunks one for each chunk."""
    from dewey_embed.cli.outputs import open_output
    from dewey_embed.config import CHUNK_TOKENS
    from dewey_embed.encoder import Dewey
    from dewey_embed.errors import ReadError
    from dewey_embed.text.reader import read_documents

    writer = open_output(output, chunks=chunks)
    items = read_documents(
        docs,
        text_fields=text_field or (),
        id_field=id_field,
        title_field=title_field,
        stdin_extension=stdin_extension,
    )
    dewey = Dewey.load(model)
    faults: list[Unreadable] = []
    num_documents = num_chunks = 0
    with writer:
        for group in _groups(items, faults):
            texts = [document.text for document in group]
            encoded = dewey.encode_document(
                texts,
                chunk_tokens=options.sizes(chunk_tokens) or CHUNK_TOKENS,
                chunk_overlap=options.sizes(chunk_overlap),
                splitter=splitter.value if splitter else "tokens",
                overflow=overflow.value if overflow else "windows",
                progress=not json,
            )
            for document, vectors in zip(group, encoded, strict=True):
                _say_if_longer(document, vectors, dewey.max_tokens)
                writer.write(document, vectors)
                num_documents += 1
                num_chunks += len(vectors.spans)
        if not num_documents:
            options.list_faults(faults)
            raise ReadError("nothing was encoded: no document could be read; nothing was written")
    unreadable = [fault for fault in faults if not fault.skipped]
    options.list_faults(unreadable, [fault for fault in faults if fault.skipped])
    if json and str(output) != "-":
        options.print_json(
            {
                "output": str(output),
                "num_documents": num_documents,
                "num_chunks": num_chunks,
                "embedding_dim": dewey.embedding_dim,
                "model": dewey.name,
                "unreadable": [str(fault) for fault in unreadable],
            }
        )
    elif str(output) != "-":
        typer.echo(
            f"{output}: {num_documents:,} documents, {num_chunks:,} chunks, "
            f"{dewey.embedding_dim} dimensions"
        )
    if unreadable:
        raise typer.Exit(options.EXIT_UNREADABLE)


def _groups(
    items: Iterator[Document | Unreadable], faults: list[Unreadable]
) -> Iterator[list[Document]]:
    """Documents in groups that are encoded together; the rest goes into `faults`."""
    from dewey_embed.text.reader import Unreadable

    group: list[Document] = []
    size = 0
    for item in items:
        if isinstance(item, Unreadable):
            faults.append(item)
            continue
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
    options.say(
        f"{document.id} has {vectors.num_tokens:,} tokens, the model takes {max_tokens:,}: {what}"
    )
