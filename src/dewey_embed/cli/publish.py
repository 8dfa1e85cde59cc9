"""`dewey push`: a finished model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console


def push(
    folder: Annotated[
        Path, typer.Argument(help="A finished model's folder, or that of the run that made it.")
    ],
    repository: Annotated[
        str, typer.Argument(metavar="NAMESPACE/NAME", help="Where it goes on the hub.")
    ],
    *,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private; refuse a public one.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the files and their bytes; send nothing."),
    ] = False,
) -> None:
    """Push a finished model to the Hugging Face hub, in one commit.

    The folder is checked first: it loads, has a card with a licence, and holds nothing that
    training left. The token is that of HF_TOKEN or of `hf auth login`.
    """
    from dewey_embed.train.push import files_to_push, require_repository_id
    from dewey_embed.train.push import push as send

    require_repository_id(repository)
    files = files_to_push(folder)
    total = sum(each.size for each in files)
    if dry_run:
        width = len(f"{total:,}")
        for each in files:
            console.echo(f"{each.size:>{width},}  {each.name}")
        console.echo(f"{total:>{width},}  bytes in {len(files)} files for {repository}; none sent")
        return
    address = send(files, repository, private=private)
    console.echo(f"{address}: {len(files)} files, {total:,} bytes")
