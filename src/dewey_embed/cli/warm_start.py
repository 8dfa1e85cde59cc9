"""`dewey warm-start`: a recipe and its teacher's weights into an untrained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console


def warm_start(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/mini.toml.")],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The model's folder; an older model there is replaced when the new one is whole.",
        ),
    ],
) -> None:
    """Build an untrained model from its teacher's token vectors; it searches by words."""
    from dewey_embed.train.recipe_file import read_recipe
    from dewey_embed.train.warm_start import warm_start as build

    config = build(read_recipe(recipe), output, progress=True)
    backbone = config.backbone
    console.echo(
        f"{output}: {backbone.num_hidden_layers} layers, hidden {backbone.hidden_size}, "
        f"{config.embedding_dim} dimensions, {config.max_tokens:,} tokens"
    )
