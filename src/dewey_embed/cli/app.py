"""The application: its commands, and how errors and warnings leave it."""

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
from dewey_embed.cli.encode import encode
from dewey_embed.cli.evaluate import evaluate, report
from dewey_embed.cli.index import EXAMPLES as INDEX_EXAMPLES
from dewey_embed.cli.index import index, info, remove
from dewey_embed.cli.search import EXAMPLES as SEARCH_EXAMPLES
from dewey_embed.cli.search import search
from dewey_embed.cli.train import ablate, plan, teach, train, warm_start


class Commands(TyperGroup):
    """All commands, whose options may come from the environment."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        options.prepare(self)


app = typer.Typer(
    cls=Commands,
    help="Search long documents by meaning: one vector for the whole, one for every chunk.",
    epilog="Every option can be set as an environment variable, too; each command's --help "
    "names them. DEWEY_TRACEBACK=1 shows where an error came from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("index", epilog=INDEX_EXAMPLES)(index)
app.command("search", epilog=SEARCH_EXAMPLES)(search)
app.command("remove")(remove)
app.command("encode")(encode)
app.command("info")(info)
app.command("warm-start")(warm_start)
app.command("teach")(teach)
app.command("train")(train)
app.command("plan")(plan)
app.command("ablate")(ablate)
app.command("eval")(evaluate)
app.add_typer(audit, name="audit")
app.command("report")(report)


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


ENDS_AT_ONCE = ("search", "info")
"""Commands with nothing left to write: taking down what they imported would be half a second."""


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
    """Say a warning in one line; those meant for developers are not for users, nor is mteb's."""
    if category is UserWarning and "mteb" not in Path(filename).parts:
        console.say(f"warning: {message}")
