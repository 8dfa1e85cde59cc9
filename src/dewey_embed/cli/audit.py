"""`dewey audit`: the experiments that show where a model breaks, and what it costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dewey_embed.cli import console
from dewey_embed.cli.audits import alignment, baseline, cost, several
from dewey_embed.cli.options import require_eval

CACHE = Path("~/.cache/dewey-embed/audits")
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
