"""`dewey eval` and `dewey report`: models on the tasks of a suite, and results as pages."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console
from dewey_embed.cli.options import (
    EXIT_UNREADABLE,
    ChunkOverlap,
    ChunkTokens,
    require_eval,
    sizes,
)

CACHE = Path("~/.cache/dewey-embed/eval")


class EvalMode(StrEnum):
    """How a Dewey model ranks documents."""

    single = "single"
    multi = "multi"
    hybrid = "hybrid"
    all = "all"


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Dewey models (mini, a folder, a Hugging Face id), or peers: bm25, st:MODEL, "
            "openai:URL#MODEL, minilm, minilm-windows, minilm-chunks.",
        ),
    ],
    *,
    suite: Annotated[
        str,
        typer.Option(
            help="longembed, locov1, mteb-eng-v2, mteb-offline, passkey, needle, position, or a "
            "folder in BEIR's layout, or a folder of such folders."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Where the data of a suite lie, if not on the hub.")
    ] = None,
    mode: Annotated[EvalMode, typer.Option(help="How Dewey models rank.")] = EvalMode.all,
    tasks: Annotated[
        str | None, typer.Option(help="Only these tasks of the suite, with commas between.")
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Folder for mteb's result files; measured tasks are not run again.")
    ] = Path("results"),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for a page of `dewey report`."),
    ] = None,
    cache: Annotated[
        Path, typer.Option(help="Folder for indexes and vectors, which later runs read.")
    ] = CACHE,
    finished_only: Annotated[
        bool, typer.Option("--finished-only", help="Measure nothing; show what there is.")
    ] = False,
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
) -> None:
    """Measure models on a suite of tasks, through mteb; resumes where it was stopped.

    A task that cannot be measured is named with its reason; the others go on, and the exit code is
    3.
    """
    require_eval()
    from dewey_embed.config import CHUNK_TOKENS
    from dewey_embed.eval.models import open_models
    from dewey_embed.eval.report.markup import page_to_markdown
    from dewey_embed.eval.run import evaluate as run_evaluation
    from dewey_embed.eval.suites import open_suite

    show = sys.stderr.isatty()
    failed: list[str] = []
    contenders = open_models(
        models,
        mode=mode.value,
        cache_folder=cache.expanduser(),
        device=device,
        chunk_tokens=sizes(chunk_tokens) or CHUNK_TOKENS,
        chunk_overlap=sizes(chunk_overlap),
        show=show,
    )
    found = run_evaluation(
        open_suite(suite, data),
        contenders,
        results,
        only=tasks.split(",") if tasks else None,
        finished_only=finished_only,
        device=device or "cpu",
        on_task=lambda contender, task: console.say(f"{task}: {contender}"),
        on_failure=failed.append,
    )
    if output is not None:
        found.write(output)
    console.echo(page_to_markdown(found))
    for reason in failed:
        console.say(f"failed: {reason}")
    if failed:
        raise typer.Exit(EXIT_UNREADABLE)


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
