"""`dewey report`: result files as one page that needs no network, as Markdown, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console

MOST_TOLD = 5


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Files that dewey eval, audit, ablate or train wrote; folders are searched."
        ),
    ],
    *,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A .html or .md file to write; give it again for a second one.",
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            envvar="DEWEY_PLOTS",
            help="A folder for every plot as PNG and SVG; Markdown then links to them.",
        ),
    ] = None,
) -> None:
    """Write a report of results: tables that sort, plots, each figure with command and machine."""
    from dewey_embed.eval.report.output import check_outputs, write_report
    from dewey_embed.eval.report.pages import collect

    outputs = output or []
    check_outputs(outputs, plots)
    collected = collect(results)
    for fault in collected.passed_over[:MOST_TOLD]:
        console.say(f"passed over: {fault}")
    if (more := len(collected.passed_over) - MOST_TOLD) > 0:
        console.say(f"passed over: {more:,} more JSON files that hold no findings")
    written = write_report(collected.groups, outputs, plots, progress=True)
    num_pages = sum(len(group.pages) for group in collected.groups)
    for path in outputs:
        console.echo(f"{path}: {num_pages:,} {'page' if num_pages == 1 else 'pages'}")
    if plots is not None:
        console.echo(f"{plots}: {len(written) - len(outputs):,} pictures")
