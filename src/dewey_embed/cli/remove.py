"""`dewey remove`: documents out of an index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console, options


def remove(
    index: Annotated[Path, typer.Argument(help="The index's folder.")],
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

    Files themselves are left alone; one that still lies in a folder comes back when that folder is
    indexed again.
    """
    from dewey_embed.search import Index

    opened = Index.open(index)
    report = opened.remove(names)
    for name in report.unknown:
        console.say(f"nothing in {index} has this id or lies there: {name}")
    num_documents = len(opened)
    if json:
        facts = {"index": str(index), **asdict(report), "num_documents": num_documents}
        console.print_json(facts)
    else:
        console.echo(f"{index}: {report.num_removed:,} removed, {num_documents:,} documents left")
    if report.unknown:
        raise typer.Exit(options.EXIT_UNREADABLE)
