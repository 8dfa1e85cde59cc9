"""`dewey plan`, `warm-start`, `teach`, `train`, `ablate`: from raw text to a finished model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dewey_embed.cli import console
from dewey_embed.cli.options import Json
from dewey_embed.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dewey_embed.train.plan import Plan
    from dewey_embed.train.recipe import Recipe
    from dewey_embed.train.targets import TargetsFolder

RecipeFile = Annotated[Path, typer.Argument(help="A recipe, such as recipes/mini.toml.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", envvar="DEWEY_SET", metavar="SECTION.KEY=VALUE",
        help="A value in place of the recipe's; give it again for another.",
    ),
]  # fmt: skip
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o",
        help="The run's folder. Default: runs/NAME, after the recipe's file.",
    ),
]  # fmt: skip
TargetsOption = Annotated[
    Path | None,
    typer.Option(
        "--targets", envvar="DEWEY_TARGETS",
        help="Folder of the teacher's vectors. Default: within the run's folder.",
    ),
]  # fmt: skip
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder that takes the place of data/ in the paths of the recipe's sources."
    ),
]


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
    data: Data = None,
    overrides: Set = None,
) -> None:
    """Write the teacher's vectors for all texts of a recipe; resumes where it was stopped.

    Under `accelerate launch --module dewey_embed.cli` the shards are shared among the processes.
    """
    from dewey_embed.train.recipe_file import read_recipe, with_data

    # Before what takes seconds to import: most mistakes are in the recipe.
    read = read_recipe(recipe, overrides or ())
    read = read if data is None else with_data(read, data)
    require_train()
    from dewey_embed.train.corpus import check_sources
    from dewey_embed.train.run import RunFolder
    from dewey_embed.train.sharding import named_loss_of_others, processes
    from dewey_embed.train.start import start_folder
    from dewey_embed.train.targets import targets_complete
    from dewey_embed.train.teach import kept_structure
    from dewey_embed.train.teach import teach as write

    run = RunFolder(output or Path("runs") / recipe.stem, targets)
    if not targets_complete(run.targets):
        check_sources(read.corpus)  # now, and not after a warm start
    state = processes()
    rest = "and it goes on after the last finished shard"
    with run.alone(), named_loss_of_others(lambda: rest):
        with state.main_process_first():
            start_folder(read, run.start, progress=state.is_main_process)
        written = write(
            read, run.start, run.targets, rank=state.process_index,
            num_ranks=state.num_processes, checked=True, progress=state.is_main_process,
        )  # fmt: skip
        state.wait_for_everyone()
    if not state.is_main_process:
        return
    _say_what_was_written(written, read)
    if read.teacher.reduce != "none" and not read.targets.on_the_fly:
        kept = kept_structure(read, run.start, run.targets)
        console.echo(
            f"{read.teacher.reduce} to {read.vector_size} dimensions keeps {kept:.3f} of the "
            "teacher's similarity structure (correlation of dot products)"
        )


def _say_what_was_written(written: TargetsFolder, recipe: Recipe) -> None:
    """Print how much lies in a folder of targets, and what was left out, by reason."""
    shards = written.shards
    trained, held_out = (
        sum(shard.num_texts for shard in shards if shard.part == part)
        for part in ("train", "held_out")
    )
    num_texts = trained // (1 + recipe.split.resplits) + held_out
    num_chunks = sum(shard.num_chunks for shard in shards)
    console.echo(
        f"{written.path}: {num_texts:,} texts, "
        f"{sum(s.num_samples for s in shards):,} samples, "
        f"{num_chunks:,} chunks, "
        f"{sum(s.num_bytes for s in shards) / 1e6:,.1f} MB"
    )
    if written.left_out:
        console.echo(f"left out of the corpus: {_reasons(written.left_out)}")
    if recipe.context is not None:
        contextual = sum(shard.num_contextual for shard in shards)
        console.echo(
            f"chunks that know their document: {contextual:,} of {num_chunks:,}; "
            f"plain, or not masked: {_reasons(written.no_context) or 'none'}"
        )


def _reasons(counts: Mapping[str, int]) -> str:
    """Counts with their reasons, in a line."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


def train(
    recipe: RecipeFile,
    *,
    output: Output = None,
    targets: TargetsOption = None,
    data: Data = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=10**6,
            help="Minutes of training; the learning rate reaches zero at their end.",
        ),
    ] = None,
    overrides: Set = None,
) -> None:
    """Train a recipe's model to its end and write the best; resumes where it was stopped.

    Targets that are missing are written first. Under `accelerate launch --module dewey_embed.cli`
    several processes share the batch.
    """
    from dewey_embed.train.recipe_file import read_recipe, with_data

    read = read_recipe(recipe, overrides or ())
    read = read if data is None else with_data(read, data)
    require_train()
    from dewey_embed.train.run import RunFolder
    from dewey_embed.train.run import train as run_training

    run = RunFolder(output or Path("runs") / recipe.stem, targets)
    with run.alone():
        figures = run_training(read, run, max_minutes=max_minutes, progress=True)
    if figures:
        console.echo(f"{run.model}: {nearness(figures)}")


def nearness(figures: Mapping[str, float]) -> str:
    """How near the chunks and CLS of a run came to the teacher, in words."""
    chunks = f"{figures['chunk_cosine']:.3f} for chunks"
    kinds = [kind for kind in ("contextual", "plain") if f"chunk_cosine_{kind}" in figures]
    if kinds:
        parts = (
            f"{figures[f'chunk_cosine_{kind}']:.3f} for {figures[f'{kind}_chunks']:,.0f} {kind}"
            for kind in kinds
        )
        chunks += f" ({', '.join(parts)} ones)"
    return f"held-out cosine to the teacher {chunks}, {figures['cls_cosine']:.3f} for CLS"


DERIVED = ("student_flops", "tokens_per_second", "device_hours", "cost")

HardwareName = Annotated[
    str,
    typer.Option(
        envvar="DEWEY_HARDWARE",
        help='The devices: "8xH100", "L4", "cpu"; an unknown name lists all.',
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        envvar="DEWEY_PRICE_PER_HOUR",
        min=0,
        help="Price of one device for an hour, in any currency.",
    ),
]
Texts = Annotated[
    int | None,
    typer.Option(
        envvar="DEWEY_TEXTS",
        min=1,
        help="Texts of the corpus. Default: corpus.max_texts.",
    ),
]
TextTokens = Annotated[
    int | None,
    typer.Option(
        envvar="DEWEY_TEXT_TOKENS",
        min=1,
        help="Mean tokens of a text. Default: those of its crops.",
    ),
]
TeacherParameters = Annotated[
    float | None,
    typer.Option(
        envvar="DEWEY_TEACHER_PARAMETERS",
        min=1,
        help="The teacher's parameters without its embedding table, such as 7.1e9. "
        "Default: by its name, if it is a known one.",
    ),
]


def plan(
    recipe: RecipeFile,
    *,
    hardware: HardwareName,
    price_per_hour: Price = None,
    texts: Texts = None,
    text_tokens: TextTokens = None,
    teacher_parameters: TeacherParameters = None,
    overrides: Set = None,
    json: Json = False,
) -> None:
    """Work out the cost of a training run: tokens, hours, disk, memory, money."""
    from dewey_embed.train.plan import Hardware, make_plan
    from dewey_embed.train.recipe_file import read_recipe

    made = make_plan(
        read_recipe(recipe, overrides or ()),
        Hardware.parse(hardware),
        texts=texts,
        text_tokens=text_tokens,
        teacher_parameters=teacher_parameters,
        price_per_hour=price_per_hour,
    )
    if json:
        console.print_json(facts(made))
        return
    rows = table(made)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        console.echo(f"{label:<{width}}  {value}")
    for note in made.notes:
        console.echo(f"- {note}")


def facts(plan: Plan) -> dict[str, Any]:
    """All numbers of a plan, for JSON."""
    return {**asdict(plan), **{name: getattr(plan, name) for name in DERIVED}}


def table(plan: Plan) -> list[tuple[str, str]]:
    """The printed rows: labels and values."""
    amounts, devices = plan.amounts, plan.hardware
    parameters = plan.embedding_parameters + plan.other_parameters
    rows = [
        ("hardware", f"{devices.count} x {devices.name}, {devices.peak_flops / 1e12:,.4g} TFLOP/s"),
        ("parameters", f"{short(parameters)}: {short(plan.embedding_parameters)} in the table, "
                       f"{short(plan.other_parameters)} in the rest"),
        ("FLOPs a token", f"{short(plan.forward_flops_per_token)} forward, "
                          f"{short(plan.training_flops_per_token)} in training"),
        ("texts", f"{amounts.texts:,}"),
        ("samples", f"{amounts.samples:,}"),
        ("chunks", f"{amounts.chunks:,}"),
        ("tokens", f"{amounts.tokens:,}; {plan.student_tokens:,} in training"),
        ("teacher tokens", f"{amounts.teacher_tokens:,}"),
        ("teacher FLOPs", "unknown" if plan.teacher_flops is None else short(plan.teacher_flops)),
        ("teacher hours", hours(plan.teacher_hours)),
        ("student FLOPs", short(plan.student_flops)),
        ("student hours", f"{hours(plan.student_hours)} at {plan.tokens_per_second:,.0f} tokens/s"),
        ("device-hours", hours(plan.device_hours)),
        ("targets on disk", size(plan.target_bytes)),
        ("memory a device", f"{size(plan.memory_bytes)} of {size(devices.memory_bytes)}"),
    ]  # fmt: skip
    if plan.cost is not None:
        rows.append(("cost", f"{plan.cost:,.2f} at {plan.price_per_hour:g} a device-hour"))
    return rows


def short(number: float) -> str:
    """Three digits and a unit: 20.7M, 1.23E."""
    units = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    power = 0
    while abs(number) >= 999.5 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.3g}{units[power]}"


def size(number: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"


def hours(number: float | None) -> str:
    """Hours to two decimals, or to two digits where there are few."""
    if number is None:
        return "unknown"
    return f"{number:,.2f}" if number >= 1 else f"{number:.2g}"


def warm_start(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/mini.toml.")],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The model's folder; an older model there is replaced by the complete new one.",
        ),
    ],
) -> None:
    """Build an untrained model from its teacher's token vectors; it searches by words."""
    from dewey_embed.train.recipe_file import read_recipe
    from dewey_embed.train.start import warm_start as build

    config = build(read_recipe(recipe), output, progress=True)
    backbone = config.backbone
    console.echo(
        f"{output}: {backbone.num_hidden_layers} layers, hidden {backbone.hidden_size}, "
        f"{config.embedding_dim} dimensions, {config.max_tokens:,} tokens"
    )


def ablate(
    grid: Annotated[Path, typer.Argument(help="A grid, such as recipes/ablations/length.toml.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of runs and results. Default: runs/ablate-NAME, after the grid's file.",
        ),
    ] = None,
    overrides: Set = None,
) -> None:
    """Train variants of a recipe and compare them; resumes where it was stopped.

    All are measured on the same held-out texts. Results are numbers, a table and a plot.
    """
    from dewey_embed.train.ablate import read_grid

    read = read_grid(grid, overrides or ())
    require_train()
    from dewey_embed.train.ablate import ablate as run_all

    folder = output or Path("runs") / f"ablate-{grid.stem}"
    results = run_all(read, folder, progress=True)
    width = max(len(result.name) for result in results)
    for result in results:
        console.echo(f"{result.name:<{width}}  {nearness(result.figures)}")
    console.echo(f"{folder}: results.json, results.md, results.png, results.svg")
