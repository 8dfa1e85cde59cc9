"""`dewey audit`: the experiments that show where a model breaks, and what it costs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from dewey_embed.cli import console
from dewey_embed.cli.options import require_eval
from dewey_embed.errors import ConfigError

CACHE = Path("~/.cache/dewey-embed/audits")

Value = TypeVar("Value")

LARGEST = 2**24
"""Beyond what any model reads, in tokens, or a vector has, in dimensions."""

Cache = Annotated[
    Path, typer.Option(help="Folder for what was measured; a killed run goes on from there.")
]
Seed = Annotated[int, typer.Option(help="Another choice of documents.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda.")]
Model = Annotated[
    str | None,
    typer.Argument(help="A model folder or Hugging Face id; default: the embedded mini."),
]


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
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for a page of `dewey report`.")
    ] = Path("results/baseline.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure models side by side on your corpus: accuracy, latency, speed, bytes.

    Dewey models are measured in the modes single, multi and hybrid.
    """
    from dewey_embed.eval.audits.baseline import MODELS, audit_baseline

    found = audit_baseline(
        data, model or MODELS, device=device, cache=cache, progress=sys.stderr.isatty()
    )
    _finish(found, output)


def alignment(
    model: Model = None,
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
            min=0, max=1, help="Only texts that a recipe with this corpus.held_out trains not on."
        ),
    ] = None,
    seed: Seed = 0,
    cache: Cache = CACHE,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for a page of `dewey report`.")
    ] = Path("results/alignment.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure angles between a model and its teacher, by chunk size, place and document length."""
    sizes = several("--chunk-tokens", chunk_tokens, int)
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.alignment import audit_alignment, named_teacher

    found = audit_alignment(
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
    _finish(found, output)


def cost(
    model: Model = None,
    *,
    data: Annotated[Path, typer.Option(help="A folder in BEIR's layout.")],
    chunk_tokens: Annotated[
        str, typer.Option(help="Tokens of chunks, several sizes with commas between.")
    ] = "64,128,256,512,1024",
    overlaps: Annotated[
        str,
        typer.Option(
            help="Shares of a chunk that the next has too. All is measured with the first; the "
            "others in the first precision and at full width."
        ),
    ] = "0.25,0,0.5",
    precisions: Annotated[
        str, typer.Option(help="Of float32, float16, int8 and binary.")
    ] = "float32,float16,int8,binary",
    dims: Annotated[
        str | None,
        typer.Option(help="Dimensions to keep; default: all, and powers of two from 1024 to 64."),
    ] = None,
    clusters: Annotated[
        str, typer.Option(help="Vectors a document, made by k-means from its chunks'.")
    ] = "1,2,4,8,16",
    seed: Seed = 0,
    cache: Cache = CACHE,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for a page of `dewey report`.")
    ] = Path("results/cost.json"),
    device: Device = None,
) -> None:  # fmt: skip
    """Measure what many vectors buy and cost: accuracy against bytes and time, and the front."""
    values: dict[str, Any] = {
        "chunk_tokens": several("--chunk-tokens", chunk_tokens, int),
        "overlaps": several("--overlaps", overlaps, float),
        "precisions": several("--precisions", precisions, str),
        "dims": several("--dims", dims, int) if dims else None,
        "clusters": several("--clusters", clusters, int) if clusters else (),
    }
    from dewey_embed.eval.audits.storage import StorageChoices

    choices = StorageChoices(**values)
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.cost import audit_cost

    found = audit_cost(
        Dewey.load(model, device=device),
        data,
        choices=choices,
        cache=cache,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    _finish(found, output)


def _finish(found: Any, output: Path) -> None:
    """Write findings and say what they are."""
    found.write(output)
    console.echo(found.summary)
    console.say(f"wrote {output}")


def several(option: str, text: str, kind: Callable[[str], Value]) -> tuple[Value, ...]:
    """Values with commas between.

    Raises:
        ConfigError: one of them is of another kind, or no number that means anything.

    """
    try:
        values = tuple(kind(part.strip()) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{option} is {text!r}; give values with commas between, as in its default"
        ) from None
    for value in values:
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            raise ConfigError(f"{option} has {value}; the largest that it takes is {LARGEST:,}")
    return values


LENGTHS = "1024,2048,4096,8192,16384,32768,65536,131072"

audit = typer.Typer(
    help="Measure where a model breaks and what it costs; each audit writes findings for "
    "`dewey report`.",
    no_args_is_help=True,
)


@audit.callback()
def _audits() -> None:
    """Hold the audits, which need the extra `eval`."""
    require_eval()


@audit.command("length")
def length(
    model: Annotated[
        str | None,
        typer.Argument(help="A model folder or Hugging Face id; default: the embedded mini."),
    ] = None,
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A folder in BEIR's layout; give it again for another."),
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Lengths in tokens, ascending, with commas between.")
    ] = LENGTHS,
    tokens_per_length: Annotated[
        int,
        typer.Option(min=1, help="Tokens of all documents at the longest length together; decides "
                     "how many documents there are at every length, at least 8."),
    ] = 2**20,
    longest_passkey: Annotated[
        int | None,
        typer.Option(min=0, help="Pass keys up to this length only, 0 for none; default: all "
                     "lengths."),
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a chunk; default: 128.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another choice of documents and places.")] = 0,
    cache: Annotated[
        Path, typer.Option(help="Folder for vectors; a run that was killed goes on from there.")
    ] = CACHE,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for a page of `dewey report`.")
    ] = Path("results/length.json"),
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
) -> None:  # fmt: skip
    """Measure retrieval by document length, 1K to 128K tokens, with one vector and with many.

    The user's documents are joined with others of their corpus up to each length, and pass keys
    are hidden in filler; the same questions at every length. Goes on where it was stopped.
    """
    asked = several("--lengths", lengths, int)
    from dewey_embed.config import CHUNK_TOKENS
    from dewey_embed.encoder import Dewey
    from dewey_embed.eval.audits.length import audit_length

    found = audit_length(
        Dewey.load(model, device=device),
        data=data or [],
        lengths=asked,
        tokens_per_length=tokens_per_length,
        longest_passkey=longest_passkey,
        chunk_tokens=chunk_tokens or CHUNK_TOKENS,
        cache=cache,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    found.write(output)
    console.echo(found.summary)
    console.say(f"wrote {output}")


audit.command("baseline")(baseline)
audit.command("alignment")(alignment)
audit.command("cost")(cost)
