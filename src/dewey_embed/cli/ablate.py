"""`dewey ablate`: a grid of small trainings that answers one question about a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console
from dewey_embed.cli.training import Set, require_train


def ablate(
    grid: Annotated[Path, typer.Argument(help="A grid, such as recipes/ablations/length.toml.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where runs and results lie; default: runs/ablate-NAME, after the grid's file.",
        ),
    ] = None,
    overrides: Set = None,
) -> None:
    """Train variants of a recipe and compare them; continues where it was stopped.

    All are measured on the same held-out texts. Results are numbers, a table and a drawing.
    """
    from dewey_embed.train.grid import read_grid

    read = read_grid(grid, overrides or ())
    require_train()
    from dewey_embed.train.ablate import ablate as run_all

    folder = output or Path("runs") / f"ablate-{grid.stem}"
    results = run_all(read, folder, progress=True)
    width = max(len(result.name) for result in results)
    for result in results:
        console.echo(
            f"{result.name:<{width}}  held-out cosine to the teacher "
            f"{result.figures['chunk_cosine']:.3f} for chunks, "
            f"{result.figures['cls_cosine']:.3f} for CLS"
        )
    console.echo(f"{folder}: results.json, results.md, results.png, results.svg")
