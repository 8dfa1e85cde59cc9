"""`dewey plan`: what a training run takes, before it is paid for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.training import RecipeFile, Set

if TYPE_CHECKING:
    from dewey_embed.train.plan import Plan

DERIVED = ("student_flops", "tokens_per_second", "device_hours", "cost")

HardwareName = Annotated[
    str,
    typer.Option(
        envvar="DEWEY_HARDWARE",
        help='What it runs on: "8xH100", "L4", "cpu"; an unknown name lists all.',
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
        help="Mean tokens of a text. Default: as many as its crops take.",
    ),
]
TeacherParameters = Annotated[
    float | None,
    typer.Option(
        envvar="DEWEY_TEACHER_PARAMETERS",
        min=1,
        help="The teacher's parameters without its embedding table, such as 7.1e9. "
        "Default: by its name, where we know it.",
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
    json: options.Json = False,
) -> None:
    """Say what a training run takes: tokens, hours, disk, memory, money."""
    from dewey_embed.train.hardware import Hardware
    from dewey_embed.train.plan import make_plan
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


def facts(made: Plan) -> dict[str, Any]:
    """All numbers of a plan, for machines."""
    return {**asdict(made), **{name: getattr(made, name) for name in DERIVED}}


def table(made: Plan) -> list[tuple[str, str]]:
    """The rows that are printed: a label and its value."""
    amounts, devices = made.amounts, made.hardware
    parameters = made.embedding_parameters + made.other_parameters
    rows = [
        ("hardware", f"{devices.count} x {devices.name}, {devices.peak_flops / 1e12:,.4g} TFLOP/s"),
        ("parameters", f"{short(parameters)}: {short(made.embedding_parameters)} in the table, "
                       f"{short(made.other_parameters)} in the rest"),
        ("FLOPs a token", f"{short(made.forward_flops_per_token)} forward, "
                          f"{short(made.training_flops_per_token)} in training"),
        ("texts", f"{amounts.texts:,}"),
        ("samples", f"{amounts.samples:,}"),
        ("chunks", f"{amounts.chunks:,}"),
        ("tokens", f"{amounts.tokens:,}; {made.student_tokens:,} in training"),
        ("teacher tokens", f"{amounts.teacher_tokens:,}"),
        ("teacher FLOPs", "unknown" if made.teacher_flops is None else short(made.teacher_flops)),
        ("teacher hours", hours(made.teacher_hours)),
        ("student FLOPs", short(made.student_flops)),
        ("student hours", f"{hours(made.student_hours)} at {made.tokens_per_second:,.0f} tokens/s"),
        ("device-hours", hours(made.device_hours)),
        ("targets on disk", size(made.target_bytes)),
        ("memory a device", f"{size(made.memory_bytes)} of {size(devices.memory_bytes)}"),
    ]  # fmt: skip
    if made.cost is not None:
        rows.append(("cost", f"{made.cost:,.2f} at {made.price_per_hour:g} a device-hour"))
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
