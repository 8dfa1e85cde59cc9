"""`dewey merge`, `rotate`, `card`, `push`: what is done to a finished model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.train import require_train
from dewey_embed.files import write_text


def merge(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Model folders, or Hugging Face ids, of one shape."
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The merged model's folder; an older model there is replaced by the complete one.",
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="W,...",
            help="A weight for each model, with commas between; they are divided by their sum. "
            "Default: all alike.",
        ),
    ] = None,
) -> None:
    """Merge models of one shape into one: the weighted mean of their weights (a model soup)."""
    given = None if weights is None else options.several("--weights", weights, float)
    require_train()
    from dewey_embed.train.merge import merge as run_merging

    merged = run_merging(models, output, given, progress=True)
    parts = ", ".join(f"{each.share:.4g} of {each.name}" for each in merged)
    console.echo(f"{output}: {parts}")


def rotate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model folder, a Hugging Face id, or mini.")
    ],
    *,
    data: Annotated[
        list[Path],
        typer.Option(
            help="Files, folders or globs of texts, JSON lines or Parquet, like those that will be "
            "searched; give it again for another."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The rotated model's folder; an older model there is replaced by the complete "
            "one.",
        ),
    ],
    chunks: Annotated[
        int, typer.Option(min=1, help="Chunks whose vectors the axes are fitted on.")
    ] = 4096,
    text_field: Annotated[
        str, typer.Option(help="The column of texts in JSON lines and Parquet.")
    ] = "text",
) -> None:
    """Rotate a model's vectors to their principal axes, so that their first dimensions say most.

    Complete vectors keep all of their cosines; truncated ones keep more. The rotation is written
    beside the weights, for vectors of the teacher: teacher_axes.safetensors.
    """
    require_train()
    from dewey_embed.train.rotate import rotate as run_rotation

    rotation = run_rotation(
        model, data, output, num_chunks=chunks, text_field=text_field, progress=True
    )
    num_chunks, size = rotation.vectors.shape
    console.echo(f"{output}: {size} axes of {num_chunks:,} chunks")
    for dim in (part for part in (64, 128, 256) if part < size):
        before, after = rotation.shares(dim)
        console.echo(f"first {dim}: {after:.3f} of the vectors' squares, {before:.3f} before")


def card(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model's folder, whose README.md is its card, or that of the run that made it."
        ),
    ],
    *,
    results: Annotated[
        list[Path],
        typer.Option(help="A page that dewey eval wrote; give it again for another."),
    ],
    label: Annotated[
        str | None,
        typer.Option(help="The model's name in the pages' columns. Default: the folder's name."),
    ] = None,
) -> None:
    """Write the scores of evaluations into a model's card, and as metadata that the hub reads.

    Scores that the card had from this command are replaced.
    """
    options.require_eval()
    from dewey_embed.eval.model_card import read_card, with_results
    from dewey_embed.eval.result_page import ResultPage
    from dewey_embed.model.folder import in_run

    path = in_run(folder) / "README.md"
    pages = [ResultPage.read(page) for page in results]
    write_text(path, with_results(read_card(path), label or folder.resolve().name, pages))
    console.echo(f"{path}: scores of {', '.join(page.name for page in pages)}")


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
