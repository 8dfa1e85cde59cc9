"""`dewey teach` and `dewey train`: from raw text and a teacher to a finished model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console
from dewey_embed.extras import require

RecipeFile = Annotated[Path, typer.Argument(help="A recipe, such as recipes/mini.toml.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", envvar="DEWEY_SET", metavar="SECTION.KEY=VALUE",
        help="A value in place of the recipe's; may be given again.",
    ),
]  # fmt: skip
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o",
        help="The run's folder; default: runs/NAME, after the recipe's file.",
    ),
]  # fmt: skip
TargetsOption = Annotated[
    Path | None,
    typer.Option(
        "--targets", envvar="DEWEY_TARGETS",
        help="Where the teacher's vectors lie; default: within the run's folder.",
    ),
]  # fmt: skip


def require_train() -> None:
    """Refuse to train where packages that every training needs are missing.

    Raises:
        MissingDependencyError: with the command that installs them.

    """
    require("train", "training", "accelerate", "datasets", "transformers")


def teach(
    recipe: RecipeFile,
    *,
    output: Output = None,
    targets: TargetsOption = None,
    overrides: Set = None,
) -> None:
    """Write the teacher's vectors for all texts of a recipe; continues where it was stopped.

    Under `accelerate launch --module dewey_embed.cli` the shards are shared among the processes.
    """
    from dewey_embed.train.recipe_file import read_recipe

    # Before what takes seconds to import: most mistakes are in the recipe.
    read = read_recipe(recipe, overrides or ())
    require_train()
    from accelerate import PartialState

    from dewey_embed.train.corpus import check_sources
    from dewey_embed.train.manifest import targets_complete
    from dewey_embed.train.run import RunFolder
    from dewey_embed.train.start import start_folder
    from dewey_embed.train.teach import kept_structure
    from dewey_embed.train.teach import teach as write

    run = RunFolder(output or Path("runs") / recipe.stem, targets)
    if not targets_complete(run.targets):
        check_sources(read.corpus)  # now, and not after a warm start
    state = PartialState()
    with state.main_process_first():
        start_folder(read, run.start, progress=state.is_main_process)
    written = write(
        read, run.start, run.targets, rank=state.process_index,
        num_ranks=state.num_processes, progress=state.is_main_process,
    )  # fmt: skip
    state.wait_for_everyone()
    if not state.is_main_process:
        return
    shards = written.shards
    trained, held_out = (
        sum(shard.num_texts for shard in shards if shard.part == part)
        for part in ("train", "held_out")
    )
    num_texts = trained // (1 + read.split.recuts) + held_out
    console.echo(
        f"{run.targets}: {num_texts:,} texts, "
        f"{sum(s.num_samples for s in shards):,} samples, "
        f"{sum(s.num_chunks for s in shards):,} chunks, "
        f"{sum(s.num_bytes for s in shards) / 1e6:,.1f} MB"
    )
    if written.left_out:
        reasons = (f"{count:,} {reason}" for reason, count in sorted(written.left_out.items()))
        console.echo(f"left out of the corpus: {', '.join(reasons)}")
    if read.teacher.reduce != "none" and not read.targets.on_the_fly:
        kept = kept_structure(read, run.start, run.targets)
        console.echo(
            f"{read.teacher.reduce} to {read.vector_size} dimensions keeps {kept:.3f} of the "
            "teacher's similarity structure (correlation of dot products)"
        )


def train(
    recipe: RecipeFile,
    *,
    output: Output = None,
    targets: TargetsOption = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=10**6,
            help="Train for so long; the learning rate reaches zero at the end of it.",
        ),
    ] = None,
    overrides: Set = None,
) -> None:
    """Train a recipe's model to its end and write the best; continues where it was stopped.

    Targets that are missing are written first. Under `accelerate launch --module dewey_embed.cli`
    several processes share the batch.
    """
    from dewey_embed.train.recipe_file import read_recipe

    read = read_recipe(recipe, overrides or ())
    require_train()
    from dewey_embed.train.run import RunFolder
    from dewey_embed.train.run import train as run_training

    run = RunFolder(output or Path("runs") / recipe.stem, targets)
    figures = run_training(read, run, max_minutes=max_minutes, progress=True)
    if figures:
        console.echo(
            f"{run.model}: held-out cosine to the teacher {figures['chunk_cosine']:.3f} for "
            f"chunks, {figures['cls_cosine']:.3f} for CLS"
        )
