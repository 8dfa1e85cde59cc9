"""`dewey eval` and `dewey report`: models on the tasks of a suite, and results as pages."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dewey_embed.cli import console, options
from dewey_embed.errors import ConfigError

CACHE = Path("~/.cache/dewey-embed/eval")

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Dewey models (mini, a folder, a Hugging Face id), or peers: bm25, st:MODEL, "
        "openai:URL#MODEL, minilm, minilm-windows, minilm-chunks.",
    ),
]
Suite = Annotated[
    str,
    typer.Option(
        help="longembed, locov1, mteb-eng-v2, mteb-offline, passkey, needle, position, conteb, "
        "lmeb-conteb, or a task's folder, or a folder of such folders."
    ),
]
Passages = Annotated[
    bool,
    typer.Option(
        "--passages",
        help="Rank passages, not documents, also where a task's folder has what both need.",
    ),
]
Contexts = Annotated[
    str | None,
    typer.Option(
        metavar="WAYS",
        help="Rank all chunks of all documents, each model reading them in these ways, with "
        "commas between: alone, titled (the title before the chunk), in-context (in the "
        "document's one pass), under-title (in that pass, the title read above it), "
        "in-context+title (in-context, with the title's vector added), or all.",
    ),
]
Documents = Annotated[
    int | None,
    typer.Option(min=1, help="With --contexts: only so many documents of each task, by the seed."),
]
Window = Annotated[
    int | None,
    typer.Option(
        min=4,
        max=options.LARGEST,
        help="With --contexts: tokens of a document read at once. Default: all that the model "
        "takes.",
    ),
]
Seed = Annotated[int, typer.Option(help="A number for another choice of documents.")]
Data = Annotated[
    Path | None, typer.Option(help="The folder of a suite's data, if they are not on the hub.")
]
Mode = Annotated[
    Literal["single", "multi", "hybrid", "all"],
    typer.Option(
        help="How Dewey models rank documents. hybrid: by multi and by words; multi: by the best "
        "chunk, with a share of the one vector; single: by the one vector; all: each of them."
    ),
]
Tasks = Annotated[
    str | None, typer.Option(help="Only these tasks of the suite, with commas between.")
]
Results = Annotated[
    Path, typer.Option(help="Folder for mteb's result files; measured tasks are not run again.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", callback=options.writable, help="File for a page of `dewey report`."
    ),
]
Cache = Annotated[Path, typer.Option(help="Folder for indexes and vectors, which later runs read.")]
FinishedOnly = Annotated[
    bool, typer.Option("--finished-only", help="Measure nothing; show the results there are.")
]


def evaluate(
    models: Models,
    *,
    suite: Suite,
    passages: Passages = False,
    contexts: Contexts = None,
    documents: Documents = None,
    seed: Seed = 0,
    window: Window = None,
    data: Data = None,
    mode: Mode = "all",
    tasks: Tasks = None,
    results: Results = Path("results"),
    output: Output = None,
    cache: Cache = CACHE,
    finished_only: FinishedOnly = False,
    chunk_tokens: options.ChunkTokens = None,
    chunk_overlap: options.ChunkOverlap = None,
    device: options.Device = None,
) -> None:
    """Measure models on a suite of tasks, through mteb; resumes where it was stopped.

    A task that cannot be measured is named with its reason; the others are measured, and the exit
    code is 3.
    """
    sizes = options.chunk_sizes(chunk_tokens, chunk_overlap)
    options.require_eval()
    from dewey_embed.eval.suites import CHUNK_SUITES, check_suite, open_chunks, open_suite

    check_suite(suite, data)  # before what takes seconds to import
    from dewey_embed.eval.models import open_models
    from dewey_embed.eval.report.markup import page_to_markdown
    from dewey_embed.eval.run import evaluate as run_evaluation

    ways = _ways(contexts or ("all" if suite in CHUNK_SUITES else ""))
    given = {"documents": documents, "window": window, "passages": passages, "mode": mode != "all"}
    _check_options(ways, given | sizes)
    if ways:
        measured = open_chunks(suite, data, num_documents=documents, seed=seed)
    else:
        measured = open_suite(suite, data, passages=passages)
    failed: list[str] = []
    opened = open_models(
        models,
        mode=mode,
        cache_folder=cache.expanduser(),
        device=device,
        **sizes,
        contexts=ways, window=window, show=sys.stderr.isatty(),
    )  # fmt: skip
    page = run_evaluation(
        measured,
        opened,
        results,
        only=tasks.split(",") if tasks else None,
        finished_only=finished_only,
        device=device or "cpu",
        on_task=lambda name, task: console.say(f"{task}: {name}"),
        on_failure=failed.append,
    )
    if output is not None:
        page.write(output)
    console.echo(page_to_markdown(page))
    _end(failed)


def _end(failed: Sequence[str]) -> None:
    """Name what failed, and end with an error if something did."""
    for reason in failed:
        console.say(f"failed: {reason}")
    if failed:
        raise typer.Exit(options.EXIT_UNREADABLE)


def _ways(contexts: str) -> list[str]:
    """The names of `--contexts`; none of an empty text.

    Raises:
        ConfigError: a name is unknown.

    """
    from dewey_embed.eval.chunk_vectors import CHUNK_CONTEXTS

    names = [name.strip() for name in contexts.split(",")] if contexts else []
    if names == ["all"]:
        return list(CHUNK_CONTEXTS)
    if unknown := [name for name in names if name not in CHUNK_CONTEXTS]:
        raise ConfigError(
            f"--contexts {unknown[0]!r} is no way to read chunks; there are "
            f"{', '.join(CHUNK_CONTEXTS)}, and all"
        )
    return list(dict.fromkeys(names))


OF_CHUNKS = ("documents", "window")
"""Options of ranking chunks; the others that are checked are of ranking documents."""


def _check_options(ways: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse options of what is not ranked: of chunks without `--contexts`, of documents with it.

    Raises:
        ConfigError: there is one.

    """
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        if value and ways and name not in OF_CHUNKS:
            raise ConfigError(f"{option} has no part in ranking chunks; leave out {option}")
        if value and not ways and name in OF_CHUNKS:
            raise ConfigError(f"{option} is an option of ranking chunks; add --contexts all")


MOST_NAMED = 5
"""Files without results that are named; the others are counted."""


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
    for fault in collected.passed_over[:MOST_NAMED]:
        console.say(f"passed over: {fault}")
    if (more := len(collected.passed_over) - MOST_NAMED) > 0:
        console.say(f"passed over: {more:,} more JSON files that are not pages of results")
    written = write_report(collected.groups, outputs, plots, progress=True)
    num_pages = sum(len(group.pages) for group in collected.groups)
    for path in outputs:
        console.echo(f"{path}: {num_pages:,} {'page' if num_pages == 1 else 'pages'}")
    if plots is not None:
        console.echo(f"{plots}: {len(written) - len(outputs):,} pictures")
