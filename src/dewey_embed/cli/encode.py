"""`dewey encode`: documents into a file of vectors."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dewey_embed.cli import console, options
from dewey_embed.errors import ConfigError, ReadError, each_that_fits
from dewey_embed.printable import counted
from dewey_embed.storage import folder_named
from dewey_embed.text.inputs import FILE_MEMORY_MB, FILE_TIMEOUT_S, MAX_TEXT_MB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dewey_embed.encoder import Dewey
    from dewey_embed.types import Document, DocumentVectors, Unreadable


Docs = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="Files and folders; - for standard input."),
]
OutputOption = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="A .parquet, .npz or .jsonl file; - for JSON lines on standard output. With --ray a "
        ".lance dataset, a folder of Parquet files (.parquet) or an .index, here or at s3://….",
    ),
]
Chunks = Annotated[
    bool, typer.Option("--chunks", envvar="DEWEY_CHUNKS", help="Write each chunk, too.")
]
Texts = Annotated[
    bool,
    typer.Option(
        "--with-texts",
        envvar="DEWEY_WITH_TEXTS",
        help="Write texts, titles, metadata and places in the files beside the vectors.",
    ),
]


def encode(
    docs: Docs,
    *,
    output: OutputOption,
    chunks: Chunks = False,
    with_texts: Texts = False,
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
    ray: options.Ray = None,
    workers: options.NumWorkers = None,
    worker_cpus: options.WorkerCpus = 1,
    worker_gpus: options.WorkerGpus = None,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Encode documents into a file: a vector for each, and with --chunks one for each chunk.

    With --ray many processes do so, on this machine or a cluster; files may lie at s3://…, and
    Parquet and Lance are read, too. What the output holds already is not encoded again.
    """
    sizes = options.chunk_sizes(chunk_tokens, chunk_overlap)
    given = {**sizes, "splitter": splitter, "overflow": overflow}
    reading = options.reading(
        text_field=text_field, id_field=id_field, title_field=title_field,
        stdin_extension=stdin_extension, file_timeout_s=file_timeout_s,
        file_memory_mb=file_memory_mb, max_text_mb=max_text_mb,
    )  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    wanted = {"chunks": chunks, "texts": with_texts}
    if ray is not None:
        if output == "-":
            raise ConfigError(
                "-: with --ray, vectors are written to a .lance dataset, a .parquet folder or an "
                ".index, not to standard output; name one, or leave --ray out"
            )
        from dewey_embed.cluster.encode import is_index

        chunks = chunks or is_index(output)  # which always has them
        run = partial(
            _on_ray, docs, output, address=ray, encoding=chosen,
            workers={"num": workers, "cpus": worker_cpus, "gpus": worker_gpus},
        )  # fmt: skip
    else:
        if workers or worker_gpus is not None or worker_cpus != 1:
            console.say(
                "--workers, --worker-cpus and --worker-gpus count with --ray only: this process "
                "encodes"
            )
        run = partial(_here, docs, folder_named(output), encoding=chosen)
    summary = run(model=model, reading=reading, wanted=wanted, progress=not json)
    _report(summary, chunks=chunks, as_json=json, verbose=verbose)


def _here(
    docs: list[str],
    output: Path,
    *,
    model: str | None,
    reading: dict[str, Any],
    encoding: dict[str, Any],
    wanted: dict[str, bool],
    progress: bool,
) -> Summary:
    """Encode in this process."""
    from dewey_embed.cli.outputs import check_output, write_vectors
    from dewey_embed.encoder import Dewey
    from dewey_embed.text.reader import read_documents

    check_output(output, inputs=docs)
    items = read_documents(docs, **reading)
    dewey = Dewey.load(model)
    path = str(output) if str(output) == "-" else os.path.abspath(output)
    summary = Summary(path, dewey.embedding_dim, dewey.name)
    encoded = _encoded(summary, items, dewey, encoding, progress)
    write_vectors(output, encoded, **wanted)
    return summary


def _on_ray(
    docs: list[str],
    output: str,
    *,
    model: str | None,
    address: str,
    workers: dict[str, Any],
    reading: dict[str, Any],
    encoding: dict[str, Any],
    wanted: dict[str, bool],
    progress: bool,
) -> Summary:
    """Encode on a Ray cluster."""
    from dewey_embed.cluster.encode import (
        ClusterOptions,
        NothingReadError,
        encode_on_ray,
        is_index,
    )
    from dewey_embed.cluster.outputs import Making
    from dewey_embed.cluster.session import Workers
    from dewey_embed.text.reader import read_options

    given = {name: value for name, value in reading.items() if name != "stdin_extension"}
    try:
        report = encode_on_ray(
            docs, output, model=model, address=address, workers=Workers(**workers),
            options=ClusterOptions(
                reading=read_options(**given), making=Making(encoding=encoding, **wanted)
            ),
            progress=progress,
        )  # fmt: skip
    except NothingReadError as error:
        faults = [each for each in error.report.faults if not each.skipped]
        options.list_faults(faults, [each for each in error.report.faults if each.skipped])
        raise
    if is_index(output):  # a library of long documents is what an index is for
        kinds = Counter(overflow for _, overflow, _, _ in report.long)
        options.list_long(kinds["windows"], kinds["truncate"])
    else:
        for facts in report.long:
            _say_longer(*facts, report.max_tokens)
    names = [each.name for each in fields(Summary)]
    return Summary(**{name: getattr(report, name) for name in names})


@dataclass
class Summary:
    """The numbers of a run so far, and the files that it could not read.

    On a cluster, `num_held` documents were in the output before, and `num_removed` left it.
    """

    output: str
    embedding_dim: int
    model: str
    num_documents: int = 0
    num_chunks: int = 0
    num_held: int | None = None
    num_removed: int | None = None
    faults: list[Unreadable] = field(default_factory=list)
    unread: dict[str, dict[str, int]] = field(default_factory=dict)


def _encoded(
    summary: Summary,
    items: Iterator[Document | Unreadable],
    dewey: Dewey,
    encode_options: dict[str, Any],
    progress: bool,
) -> Iterator[tuple[Document, DocumentVectors]]:
    """The documents with their vectors, counted in `summary`.

    Raises:
        CheckpointError: the model gives no finite vectors.
        ReadError: none could be read, or none has finite vectors.

    """
    from dewey_embed.types import Unreadable

    def encode(documents: Sequence[Document]) -> list[DocumentVectors | str]:
        prepared = dewey.prepare([document.text for document in documents], **encode_options)
        return dewey.encode_sound(prepared, progress=progress)

    for group in _groups(items, summary):
        encoded = each_that_fits(encode, group)
        for document, vectors in zip(group, encoded, strict=True):
            if isinstance(vectors, str):
                summary.faults.append(Unreadable.of(document, vectors))
                continue
            _say_if_longer(document, vectors, dewey.max_tokens)
            summary.num_documents += 1
            summary.num_chunks += len(vectors.spans)
            yield document, vectors
    if not summary.num_documents:
        _list(summary, verbose=True)
        raise ReadError("nothing was encoded: no document could be read; nothing was written")


def _report(summary: Summary, *, chunks: bool, as_json: bool, verbose: bool) -> None:
    """Print the summary and list the unreadable files, which set the exit code."""
    unreadable = _list(summary, verbose=verbose)
    summary.num_chunks *= chunks  # only what was written
    if summary.output == "-":
        pass  # the vectors themselves are what is printed
    elif as_json:
        facts = {
            name: value
            for name, value in vars(summary).items()
            if name != "faults" and value is not None
        }
        console.print_json({**facts, "unreadable": [str(fault) for fault in unreadable]})
    else:
        counts = [counted(summary.num_documents, "document")]
        counts += [counted(summary.num_chunks, "chunk")] if chunks else []
        counts += [counted(summary.embedding_dim, "dimension")]
        if summary.num_held is not None:
            counts += [f"{summary.num_held:,} there already", f"{summary.num_removed:,} replaced"]
        console.echo(f"{summary.output}: {', '.join(counts)}")
    if unreadable:
        raise typer.Exit(options.EXIT_UNREADABLE)


def _list(summary: Summary, *, verbose: bool) -> list[Unreadable]:
    """The files that could not be read; lists them with all else that is in no vector."""
    unreadable = [fault for fault in summary.faults if not fault.skipped]
    skipped = [fault for fault in summary.faults if fault.skipped]
    options.list_faults(unreadable, skipped, summary.unread, verbose=verbose)
    return unreadable


def _groups(items: Iterator[Document | Unreadable], summary: Summary) -> Iterator[list[Document]]:
    """Documents in groups that are encoded together; the others go into `summary`."""
    from dewey_embed.types import Unreadable

    group: list[Document] = []
    size = 0
    for item in items:
        if isinstance(item, Unreadable):
            summary.faults.append(item)
            continue
        if item.unread:
            summary.unread[item.id] = dict(item.unread)
        if group and size + len(item.text) > options.GROUP_CHARS:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item.text)
    if group:
        yield group


def _say_if_longer(document: Document, vectors: DocumentVectors, max_tokens: int) -> None:
    """Say on standard error how a text longer than the model takes was read."""
    if vectors.overflow is not None:
        sizes = (vectors.num_tokens, vectors.used_tokens)
        _say_longer(document.id, vectors.overflow, *sizes, max_tokens)


def _say_longer(
    name: str, overflow: str, num_tokens: int, used_tokens: int, max_tokens: int
) -> None:
    what = (
        "it was read in overlapping windows"
        if overflow == "windows"
        else f"only its first {used_tokens:,} are in the vectors"
    )
    console.say(f"{name} has {num_tokens:,} tokens, the model takes {max_tokens:,}: {what}")
