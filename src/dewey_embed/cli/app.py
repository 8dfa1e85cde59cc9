"""The application: the table of its commands, and how warnings leave it."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from dewey_embed.cli import console, options
from dewey_embed.cli.audit import audit
from dewey_embed.cli.documents import list_documents, open_place, show
from dewey_embed.cli.encode import encode
from dewey_embed.cli.evaluate import evaluate, report
from dewey_embed.cli.index import index, info, remove
from dewey_embed.cli.mcp import mcp
from dewey_embed.cli.mine import mine
from dewey_embed.cli.publish import card, merge, push, rotate
from dewey_embed.cli.search import search
from dewey_embed.cli.serve import serve
from dewey_embed.cli.train import ablate, plan, teach, train, warm_start

COMMANDS = {
    "index": (
        index,
        "dewey index ~/Documents/contracts --index my.index",
        "dewey index export.jsonl --index my.index --text-field title --text-field body",
    ),
    "search": (
        search,
        "dewey search my.index who owns the patents",
        "dewey search my.index - --json -k 10 < queries.txt",
    ),
    "remove": (
        remove,
        "dewey remove my.index ~/Documents/contracts/old.pdf",
        "dewey remove my.index ~/Documents/contracts/2019 --json",
    ),
    "encode": (
        encode,
        "dewey encode ~/Documents/contracts --output vectors.parquet --chunks",
        "dewey encode - --output - < lease.txt",
    ),
    "info": (info, "dewey info my.index", "dewey info mini --json"),
    "warm-start": (
        warm_start,
        "dewey warm-start recipes/mini.toml --output start",
        "dewey warm-start recipes/quickstart.toml --output ~/models/start",
    ),
    "teach": (
        teach,
        "dewey teach recipes/mini.toml",
        "accelerate launch --num_processes 8 --module dewey_embed.cli teach recipes/dewey_en.toml",
    ),
    "train": (
        train,
        "dewey train recipes/mini.toml --max-minutes 60",
        "dewey train recipes/mini.toml --output runs/other --set training.learning_rate=0.001",
    ),
    "mine": (
        mine,
        "dewey mine pairs.jsonl --output triplets.jsonl",
        "dewey mine task --model runs/mini/model --negatives 6 --output triplets.jsonl",
    ),
    "merge": (
        merge,
        "dewey merge runs/a/model runs/b/model --output runs/ab",
        "dewey merge mini runs/a/model --weights 0.3,0.7 --output runs/ab",
    ),
    "rotate": (
        rotate,
        "dewey rotate runs/mini/model --data data/train --output runs/mini_rotated",
        "dewey rotate mini --data texts.jsonl --data books --chunks 2000 --output rotated",
    ),
    "card": (
        card,
        "dewey card runs/mini --results results/chunks.json",
        "dewey card runs/mini/model --results chunks.json --results eval.json --label mini",
    ),
    "push": (
        push,
        "dewey push runs/mini/model you/my-model --dry-run",
        "dewey push runs/mini you/my-model --private",
    ),
    "serve": (
        serve,
        "dewey serve",
        "dewey serve --index my.index --host 0.0.0.0 --key-file keys.txt",
    ),
    "list": (
        list_documents,
        "dewey list my.index",
        "dewey list my.index --json",
    ),
    "show": (
        show,
        "dewey show my.index lease.pdf",
        "dewey show my.index lease.pdf --at 1200",
    ),
    "open": (
        open_place,
        "dewey open my.index lease.pdf",
        "dewey open my.index lease.pdf:12",
    ),
    "mcp": (
        mcp,
        "dewey mcp --index my.index",
        "dewey mcp --index contracts.index --index letters.index",
    ),
    "plan": (
        plan,
        "dewey plan recipes/dewey_en.toml --hardware 8xH100 --price-per-hour 2.5",
        "dewey plan recipes/mini.toml --hardware cpu --json",
    ),
    "ablate": (
        ablate,
        "dewey ablate recipes/ablations/length.toml",
        "dewey ablate recipes/ablations/splitters.toml --output runs/splitters",
    ),
    "eval": (
        evaluate,
        "dewey eval mini bm25 --suite passkey",
        "dewey eval mini minilm --suite ~/data/beir --mode hybrid --output results/mine.json",
    ),
    "report": (
        report,
        "dewey report results --output report.html",
        "dewey report results runs --output report.md --plots plots",
    ),
}
"""Every command by its name: its function, and two examples for its help."""


class Commands(TyperGroup):
    """All commands, whose options may come from the environment."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        options.prepare(self)


app = typer.Typer(
    cls=Commands,
    help="Search long documents by meaning: one vector for each document and for each chunk.",
    epilog="Every option can also be set by an environment variable: docs/environment.md lists "
    "them. DEWEY_TRACEBACK=1 shows where an error came from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
options.register(app, COMMANDS)
app.add_typer(audit, name="audit")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.echo(f"dewey {version('dewey-embed')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold the options that come before a command."""


ENDS_AT_ONCE = ("search", "info", "list", "show", "open", "mcp")
"""Commands with nothing left to write: unloading what they imported would take half a second."""


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    console.prepare_streams()
    warnings.showwarning = _show_warning
    code = console.run(lambda: app(prog_name="dewey", standalone_mode=False))
    if code == 0 and sys.argv[1:2] and sys.argv[1] in ENDS_AT_ONCE:
        sys.stderr.flush()
        os._exit(0)
    sys.exit(code)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object
) -> None:
    """Show a warning in one line, unless it is meant for developers or comes from mteb."""
    if category is UserWarning and "mteb" not in Path(filename).parts:
        console.say(f"warning: {message}")
