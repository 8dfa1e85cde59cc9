"""`dewey index`, `dewey remove` and `dewey info`: make, change and describe an index."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.watch import Watch, require_watchable
from dewey_embed.errors import InputError
from dewey_embed.printable import counted
from dewey_embed.storage import Address, folder_named, is_address, open_place
from dewey_embed.text.inputs import FILE_MEMORY_MB, FILE_TIMEOUT_S, MAX_TEXT_MB

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey
    from dewey_embed.index.index import Index
    from dewey_embed.index.sync import IndexReport

Docs = Annotated[
    list[str] | None,
    typer.Argument(metavar="DOCS...", help="Files and folders; - for standard input."),
]
IndexFolder = Annotated[
    Path,
    typer.Option(
        "--index",
        "-i",
        envvar="DEWEY_INDEX",
        parser=folder_named,
        metavar="FOLDER",
        help="The index's folder.",
    ),
]
IDS = ("added", "changed", "removed")
"""Fields of a report that are ids; one run may have a million of them."""

GroupChars = Annotated[
    int,
    typer.Option(
        envvar="DEWEY_GROUP_CHARS",
        min=1,
        help="Characters committed at once: the most that a killed run has to encode again.",
    ),
]
WatchOption = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Go on, and follow changes of the files until Ctrl-C: + new, ~ changed, - gone.",
    ),
]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Remove all documents whose file is gone, wherever it was; DOCS may be left out.",
    ),
]


def index(
    docs: Docs = None,
    *,
    index: IndexFolder,
    model: options.Model = None,
    chunk_tokens: options.ChunkTokens = None,
    chunk_overlap: options.ChunkOverlap = None,
    splitter: options.Splitter = None,
    overflow: options.Overflow = None,
    window: options.Window = None,
    text_field: options.TextField = None,
    id_field: options.IdField = None,
    title_field: options.TitleField = None,
    stdin_extension: options.StdinExtension = ".txt",
    group_chars: GroupChars = options.GROUP_CHARS,
    file_timeout_s: options.FileTimeout = FILE_TIMEOUT_S,
    file_memory_mb: options.FileMemory = FILE_MEMORY_MB,
    max_text_mb: options.MaxText = MAX_TEXT_MB,
    prune: Prune = False,
    watch: WatchOption = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Make an index of documents, or bring one up to date.

    Only new and changed documents are encoded; those that have left their folder leave the index.
    A run that was stopped resumes where it was. With --watch the index follows its files.
    """
    if not docs and not prune:
        raise typer.BadParameter("name files or folders to index", param_hint="DOCS")
    if watch:
        require_watchable(docs or [])
    sizes = options.chunk_sizes(chunk_tokens, chunk_overlap)
    reading = options.reading(
        text_field=text_field, id_field=id_field, title_field=title_field,
        stdin_extension=stdin_extension, file_timeout_s=file_timeout_s,
        file_memory_mb=file_memory_mb, max_text_mb=max_text_mb,
    )  # fmt: skip
    from dewey_embed.index.index import Index

    opened = Index.open(index, model, **sizes, splitter=splitter, overflow=overflow, window=window)

    update = partial(opened.add_files, docs or [], **reading, prune=prune, group_chars=group_chars)
    report = partial(_report, opened, as_json=json, verbose=verbose)
    if watch:
        Watch(opened, docs or [], update, json).run(report)
        return
    done = update(progress=not json)
    report(done)
    if done.unreadable:
        raise typer.Exit(options.EXIT_UNREADABLE)


def _report(opened: Index, report: IndexReport, *, as_json: bool, verbose: bool) -> None:
    """Print the changes of the index, and list what could not be read."""
    options.list_faults(report.unreadable, report.skipped, report.unread, verbose=verbose)
    num_documents, num_chunks = len(opened), opened.num_chunks
    if as_json:
        facts = {"num_documents": num_documents, "num_chunks": num_chunks}
        counts = {name: value for name, value in asdict(report).items() if name not in IDS}
        console.print_json({"index": str(opened.path), **counts, **facts})
    else:
        console.echo(
            f"{opened.path}: {counted(num_documents, 'document')}, "
            f"{counted(num_chunks, 'chunk')} ({report.num_added:,} added, "
            f"{report.num_changed:,} changed{_kept(report)}, {report.num_removed:,} removed, "
            f"{report.num_unchanged:,} unchanged)"
        )
        options.list_long(report.num_windows, report.num_truncated)
    if report.num_missing and not as_json:
        console.say(
            f"{counted(report.num_missing, 'document')} of files that are gone; "
            "dewey index --prune removes them"
        )


def _kept(report: IndexReport) -> str:
    """How much of changed documents was not encoded again, if anything."""
    if not report.num_kept_tokens:
        return ""
    percent = 100 * report.num_kept_tokens // report.num_changed_tokens
    return f", {percent}% of {'its' if report.num_changed == 1 else 'their'} tokens kept"


def remove(
    index: options.IndexArgument,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Ids of documents, or the files and folders that they were read from.",
        ),
    ],
    *,
    json: options.Json = False,
) -> None:
    """Remove documents from an index: by their id, their file, or a folder above it.

    Files themselves stay; one that is still in its folder comes back when that folder is indexed
    again.
    """
    from dewey_embed.index.index import Index

    opened = Index.open(index)
    report = opened.remove(names)
    for name in report.unknown:
        console.say(f"no document of {opened.path} has this id or lies there: {name}")
    num_documents = len(opened)
    if json:
        facts = {"index": str(opened.path), **asdict(report), "num_documents": num_documents}
        console.print_json(facts)
    else:
        left = counted(num_documents, "document")
        console.echo(f"{opened.path}: {report.num_removed:,} removed, {left} left")
    if report.unknown:
        raise typer.Exit(options.EXIT_UNREADABLE)


def info(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|INDEX]", help="A model, or an index's folder. Default: mini."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Describe a model or an index: dimensions, context, sizes."""
    from dewey_embed.index.index import Index

    if what is not None and (is_address(what) or is_index(Path(what))):
        facts = index_facts(Index.open(what))
    elif what is not None and is_other_folder(Path(what)):
        raise InputError(
            f"{what} is a folder, and neither an index nor a model; make an index of its documents "
            f"with: dewey index {shlex.quote(what)} --index my.index"
        )
    else:
        from dewey_embed.encoder import Dewey

        facts = model_facts(Dewey.load(what))
    if json:
        console.print_json(facts)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        console.echo(f"{key.replace('_', ' '):<{width}}  {shown}")


def is_index(folder: Path) -> bool:
    """Whether a folder is an index, damaged or not; a model has a config.json beside it."""
    names = ("dewey.json", "documents.lance", "chunks.lance")
    return any((folder / name).exists() for name in names) and not (folder / "config.json").exists()


def is_other_folder(folder: Path) -> bool:
    """Whether a folder has nothing of a model in it, nor of an index."""
    parts = ("*.safetensors", "*.json", "*.bin", "pytorch_model*")
    return folder.is_dir() and not any(next(folder.glob(part), None) for part in parts)


def index_facts(index: Index) -> dict[str, Any]:
    """The contents of an index, and the settings that it was made with."""
    settings = index.settings
    return {
        "index": str(index.path),
        "num_documents": len(index),
        "num_chunks": index.num_chunks,
        "model": settings.model,
        "fingerprint": settings.fingerprint,
        "embedding_dim": settings.embedding_dim,
        "single_vector": settings.single_vector,
        **settings.options.model_dump(mode="json"),
        "window": settings.window,
        "bytes": folder_bytes(index.path),
    }


def model_facts(model: Dewey) -> dict[str, Any]:
    """The shape, context and folder of a model."""
    from dewey_embed.model.engine import engine_name

    backbone = model.config.backbone
    return {
        "model": model.name,
        "folder": str(model.folder),
        "parameters": sum(each.numel() for each in model.model.parameters()),
        "layers": backbone.num_hidden_layers,
        "hidden_size": backbone.hidden_size,
        "vocabulary": backbone.vocab_size,
        "max_tokens": model.max_tokens,
        "embedding_dim": model.embedding_dim,
        "single_vector": model.config.single_vector,
        "prompts": model.prompts,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "encodes_by": engine_name(model.model.backbone),
        "fingerprint": model.fingerprint,
        "bytes": folder_bytes(model.folder),
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all readable files in a folder, or at an address."""
    if isinstance(folder, Address):
        return sum(each.size for each in open_place(str(folder)).files())
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it has gone, as files do while an index is written
                total += os.stat(os.path.join(parent, name)).st_size
    return total
