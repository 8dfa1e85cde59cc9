"""`dewey audit`: the experiments that show where a model breaks, and what it costs."""

from __future__ import annotations

import glob
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dewey_embed.cli import console
from dewey_embed.cli.options import (
    LARGEST,
    Device,
    Json,
    ModelArgument,
    register,
    require_eval,
    several,
    writable,
)
from dewey_embed.errors import ReadError
from dewey_embed.eval.audits import CACHE, LENGTHS, MIN_DOCUMENTS
from dewey_embed.printable import printable
from dewey_embed.text.inputs import is_there

Cache = Annotated[
    Path, typer.Option(help="Folder for what was measured; a killed run resumes from there.")
]
Seed = Annotated[int, typer.Option(help="A number for another choice of documents.")]
_OUTPUT = typer.Option(
    "--output", "-o", callback=writable, help="File for a page of `dewey report`."
)
Output = Annotated[Path, _OUTPUT]
OutputIfAny = Annotated[Path | None, _OUTPUT]
BeirFolder = Annotated[Path, typer.Option(help="A folder in BEIR's layout.")]


def length(
    model: ModelArgument = None,
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"A folder in BEIR's layout; give it again for another. At least {MIN_DOCUMENTS} "
            "documents must fit into a length and each be the only relevant one of a query."
        ),
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Lengths in tokens, ascending, with commas between.")
    ] = ",".join(map(str, LENGTHS)),
    tokens_per_length: Annotated[
        int,
        typer.Option(min=1, help="Tokens of all documents at the longest length together; decides "
                     f"how many documents there are at every length, at least {MIN_DOCUMENTS}."),
    ] = 2**20,
    longest_passkey: Annotated[
        int | None,
        typer.Option(min=0, help="Pass keys up to this length only, 0 for none; default: all "
                     "lengths."),
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a chunk; default: 128.")
    ] = None,
    seed: Seed = 0,
    cache: Cache = CACHE,
    output: Output = Path("results/length.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure retrieval by document length, 1K to 128K tokens, with one vector and with many.

    Your documents are joined with others of their corpus up to each length, and pass keys are
    hidden in filler; the queries are the same at every length. Resumes where it was stopped.
    """
    chosen = several("--lengths", lengths, int)
    _check_tasks(data or [])
    from dewey_embed.config import CHUNK_TOKENS
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.length import audit_length

    page = audit_length(
        Dewey.load(model, device=device),
        data=data or [],
        lengths=chosen,
        tokens_per_length=tokens_per_length,
        longest_passkey=longest_passkey,
        chunk_tokens=chunk_tokens or CHUNK_TOKENS,
        cache=cache,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    _finish(page, output)


def baseline(
    data: Annotated[Path, typer.Argument(help="A folder in BEIR's layout.")],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A Dewey model (mini, a folder, a Hugging Face id) or a peer: bm25, minilm, "
            "minilm-windows, minilm-chunks, st:MODEL, openai:URL#MODEL; give it again for another. "
            "Default: mini, bm25."
        ),
    ] = None,
    cache: Cache = CACHE,
    output: Output = Path("results/baseline.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure models side by side on your corpus: accuracy, latency, speed, bytes.

    Dewey models are measured in the modes single, multi and hybrid.
    """
    _check_tasks([data])
    from dewey_embed.eval.audits.baseline import MODELS, audit_baseline

    page = audit_baseline(
        data, model or MODELS, device=device, cache=cache, progress=sys.stderr.isatty()
    )
    _finish(page, output)


def alignment(
    model: ModelArgument = None,
    *,
    data: Annotated[
        list[Path],
        typer.Option(
            help="Texts: files, folders, JSON lines, Parquet, or a folder in BEIR's layout; give "
            "it again for more."
        ),
    ],
    teacher: Annotated[
        str, typer.Option(help="minilm (the bundled one), st:MODEL, or openai:URL#MODEL.")
    ] = "minilm",
    teacher_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that the teacher reads of a text.")
    ] = 256,
    documents: Annotated[int, typer.Option(min=1, help="How many documents, by the seed.")] = 60,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longer documents are cut here, in tokens.")
    ] = 8192,
    chunk_tokens: Annotated[
        str, typer.Option(help="Tokens of chunks, several sizes with commas between.")
    ] = "64,128,256,500",
    text_field: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
    held_out: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Only texts that recipes with this corpus.held_out do not train on."
        ),
    ] = None,
    seed: Seed = 0,
    cache: Cache = CACHE,
    output: Output = Path("results/alignment.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure angles between a model and its teacher, by chunk size, place and document length."""
    sizes = several("--chunk-tokens", chunk_tokens, int)
    _check_texts(data)
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.alignment import audit_alignment, named_teacher

    page = audit_alignment(
        Dewey.load(model, device=device),
        data,
        teacher=named_teacher(teacher, max_tokens=teacher_tokens, device=device),
        teacher_tokens=teacher_tokens,
        chunk_tokens=sizes,
        num_documents=documents,
        max_tokens=max_tokens,
        text_field=text_field,
        held_out=held_out,
        cache=cache,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    _finish(page, output)


def context(
    model: ModelArgument = None,
    *,
    data: Annotated[
        list[Path],
        typer.Option(
            help="A folder with documents.jsonl and chunks.jsonl, with or without queries.jsonl "
            "and qrels.tsv, a folder of such folders, or any files that dewey index reads; give "
            "it again for more."
        ),
    ],
    documents: Annotated[
        int, typer.Option(min=1, help="How many documents of each, by the seed.")
    ] = 60,
    chunk_tokens: Annotated[
        int, typer.Option(min=1, max=LARGEST, help="Tokens of a chunk where none is annotated.")
    ] = 128,
    window: Annotated[
        int | None,
        typer.Option(
            min=4,
            max=LARGEST,
            help="Tokens of a document read at once. Default: all that the model takes.",
        ),
    ] = None,
    seed: Seed = 0,
    cache: Cache = CACHE,
    output: Output = Path("results/context.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure what documents do to their chunks, and whether reading them whole is worth it.

    How far each chunk moved by its document, how near a document's chunks came to each other, and,
    with queries about chunks, what is found alone, after the title, in context, and in context
    under the title.
    """
    _check_texts(data)
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.context import audit_context

    page = audit_context(
        Dewey.load(model, device=device),
        data,
        num_documents=documents,
        chunk_tokens=chunk_tokens,
        window=window,
        cache=cache,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    _finish(page, output)


def cost(
    model: ModelArgument = None,
    *,
    data: BeirFolder,
    chunk_tokens: Annotated[
        str, typer.Option(help="Tokens of chunks, several sizes with commas between.")
    ] = "64,128,256,512,1024",
    overlaps: Annotated[
        str,
        typer.Option(
            help="Shares of a chunk that the next one repeats. Everything is measured with the "
            "first; the others in the first precision and at full width."
        ),
    ] = "0.25,0,0.5",
    precisions: Annotated[
        str, typer.Option(help="Of float32, float16, int8 and binary.")
    ] = "float32,float16,int8,binary",
    dims: Annotated[
        str | None,
        typer.Option(help="Dimensions to keep. Default: all, and powers of two from 1024 to 64."),
    ] = None,
    clusters: Annotated[
        str, typer.Option(help="Vectors a document, by k-means of those of its chunks.")
    ] = "1,2,4,8,16",
    seed: Seed = 0,
    cache: Cache = CACHE,
    output: Output = Path("results/cost.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure what many vectors gain and cost: accuracy against bytes and time."""
    values: dict[str, Any] = {
        "chunk_tokens": several("--chunk-tokens", chunk_tokens, int),
        "overlaps": several("--overlaps", overlaps, float),
        "precisions": several("--precisions", precisions, str),
        "dims": several("--dims", dims, int) if dims else None,
        "clusters": several("--clusters", clusters, int) if clusters else (),
    }
    _check_tasks([data])
    from dewey_embed.eval.audits.storage import StorageChoices

    choices = StorageChoices(**values)
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.cost import audit_cost

    page = audit_cost(
        Dewey.load(model, device=device),
        data,
        choices=choices,
        cache=cache,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    _finish(page, output)


def server(
    url: Annotated[
        str,
        typer.Argument(
            help="Address of the server, such as http://127.0.0.1:8080; with the path of an API "
            "that one is spoken."
        ),
    ],
    *,
    api: Annotated[
        Literal["auto", "openai", "tei", "ollama"],
        typer.Option(
            help="The API: openai (/v1/embeddings), tei (/embed), ollama (/api/embed), or auto: "
            "the first of these that answers."
        ),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Name of the server's model. Default: the first it lists."),
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="File with the server's key.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="The server's key. Other users see it in the list of processes: better name a "
            "file, or set the variable."
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=256, max=LARGEST, help="Tokens of the longest text that is sent.")
    ] = 16_384,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, max=10**5, help="Seconds to wait for an answer.")
    ] = 120.0,
    json: Json = False,
    output: OutputIfAny = None,
) -> None:  # fmt: skip
    """Test a server of embeddings, any that speaks OpenAI's, TEI's or Ollama's API.

    Silent cuts, honest counts, batches, short texts after long ones, bad input, formats. It sends
    texts of common words, and none of yours. The exit code is 1 if a check fails.
    """
    from dewey_embed.eval.audits.server import audit_server

    results = audit_server(
        url,
        api=api,
        model=model,
        key=key_file.expanduser().read_text("utf-8").strip() if key_file else key,
        max_tokens=max_tokens,
        timeout_s=timeout_s,
        progress=sys.stderr.isatty(),
    )
    if output is not None:
        results.page().write(output)
        console.say(f"wrote {output}")
    if json:
        console.print_json(results.as_json())
    else:
        _print_checks(results)
    if results.failed:
        raise typer.Exit(1)


def _print_checks(results: Any) -> None:
    """Print the checks of a server as a table as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, leading=1)
    for name, width in (("check", 26), ("result", 11)):
        table.add_column(name, width=width)
    table.add_column("evidence", ratio=1)
    for check in results.checks:
        remedy = f"\nremedy: {check.remedy}" if check.remedy else ""
        status = check.status.upper() if check.status == "fail" else check.status
        cells = (f"{check.topic}:\n{check.name}", status, check.evidence + remedy)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    text = io.StringIO()
    Console(file=text, width=max(80, shutil.get_terminal_size((120, 24)).columns)).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    console.echo("\n".join([*lines, "", results.summary]))


def _check_tasks(folders: Sequence[Path]) -> None:
    """Refuse folders that are not there, before what takes seconds to import.

    Raises:
        TaskError: naming the first of them.

    """
    from dewey_embed.eval.beir import check_folder

    for folder in folders:
        check_folder(folder)


def _check_texts(paths: Sequence[Path]) -> None:
    """Refuse files and folders that are not there, but for patterns of names.

    Raises:
        ReadError: naming the first of them.

    """
    for path in paths:
        if not glob.has_magic(str(path)) and not is_there(path.expanduser()):
            raise ReadError(f"no such file or folder: {path}; check the spelling")


def _finish(page: Any, output: Path) -> None:
    """Write a page of results and print its summary."""
    page.write(output)
    console.echo(page.summary)
    console.say(f"wrote {output}")


AUDITS = {
    "length": (
        length,
        "dewey audit length",
        "dewey audit length my-model --data ~/data/scifact --lengths 1024,8192",
    ),
    "baseline": (
        baseline,
        "dewey audit baseline ~/data/scifact",
        "dewey audit baseline ~/data/scifact --model mini --model minilm --model bm25",
    ),
    "alignment": (
        alignment,
        "dewey audit alignment --data ~/Documents",
        "dewey audit alignment my-model --data texts.parquet --chunk-tokens 64,256",
    ),
    "context": (
        context,
        "dewey audit context --data ~/Documents",
        "dewey audit context my-model --data data/context --documents 20",
    ),
    "cost": (
        cost,
        "dewey audit cost --data ~/data/scifact",
        "dewey audit cost --data ~/data/scifact --chunk-tokens 64,128 --precisions float32,int8",
    ),
    "server": (
        server,
        "dewey audit server http://127.0.0.1:8080",
        "dewey audit server http://127.0.0.1:11434 --api ollama --model nomic-embed-text",
    ),
}
"""Every audit by its name: its function, and two examples for its help."""

audit = typer.Typer(
    help="Measure where a model breaks and what it costs; each audit writes a page for "
    "`dewey report`.",
    no_args_is_help=True,
)
register(audit, AUDITS)


@audit.callback()
def _audits(context: typer.Context) -> None:
    """Hold the audits, of which those of models need the extra `eval`."""
    if context.invoked_subcommand != "server":
        require_eval()
