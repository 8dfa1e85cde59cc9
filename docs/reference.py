"""Write docs/api.md and docs/environment.md from the code: `make docs`.

docs/api.md is the public names with their signatures and docstrings, docs/environment.md the
environment variables of all commands. A test fails while either is out of date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import dewey_embed
from dewey_embed.cli.app import app

DOCS = Path(__file__).parent
NARROW = 88
"""Signatures wider than this are written one parameter a line."""

BESIDE_OPTIONS = {
    "DEWEY_NATIVE": "`0` encodes and trains in plain PyTorch, without the compiled kernels.",
    "DEWEY_TRACEBACK": "`1` shows the traceback of an error in place of its one line.",
    "NO_COLOR": "Set to anything: no bold text on the terminal.",
    "OMP_NUM_THREADS": "Threads of one process; default: the cores that the container grants.",
    "XDG_CACHE_HOME": "Where compiled kernels are kept; default: `~/.cache`.",
}
"""Variables that are no option of a command, and what each does."""


class Literally(str):
    """An annotation or default that `inspect` prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def api() -> str:
    """docs/api.md."""
    names = [name for name in dewey_embed.__all__ if name != "__version__"]
    sections = [section(name, getattr(dewey_embed, name)) for name in names]
    listed = " · ".join(f"[`{name}`](#{name.lower()})" for name in names)
    return "\n\n".join(
        [
            "# The public names",
            "Written by `make docs` from the docstrings; do not edit. "
            "All are imported from `dewey_embed`.",
            listed,
            *sections,
        ]
    )


def section(name: str, thing: Any) -> str:
    """One public class or function under a heading of its own."""
    lines = [f"## `{name}`", code(signature(name, thing)), text(inspect.getdoc(thing) or "")]
    for member, value in members(thing):
        lines += [f"### `{name}.{member}`"]
        called = value.fget if isinstance(value, property) else getattr(thing, member)
        if not isinstance(value, property):
            lines.append(code(signature(member, called)))
        lines.append(text(inspect.getdoc(called) or ""))
    return "\n\n".join(filter(None, lines))


def members(thing: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines and describes."""
    for name, value in vars(thing).items() if inspect.isclass(thing) else ():
        described = isinstance(value, property | classmethod | staticmethod) or (
            inspect.isfunction(value)
        )
        if described and not name.startswith("_"):
            yield name, value


def signature(name: str, called: Any) -> str:
    """The call of a function or class, one parameter a line where it is long."""
    try:
        found = inspect.signature(called)
    except ValueError:  # an exception that takes what every exception takes
        return f"{name}(message)"
    parameters = [
        each.replace(annotation=shown(each.annotation))
        for each in found.parameters.values()
        if each.name not in {"self", "_cls"}
    ]
    result = found.replace(
        parameters=[
            each.replace(default=Literally("...")) if "factory" in repr(each.default) else each
            for each in parameters
        ],
        return_annotation=found.empty
        if inspect.isclass(called)
        else shown(found.return_annotation),
    )
    line = f"{name}{result}"
    if len(line) <= NARROW or not parameters:
        return line
    rest = str(result.replace(parameters=[]))[2:]
    star = False
    rows = []
    for each in result.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not star:
            star = True
            rows.append("    *,")
        star = star or each.kind is each.VAR_POSITIONAL
        rows.append(f"    {each},")
    return "\n".join([f"{name}(", *rows, f"){rest}"])


def shown(annotation: Any) -> Any:
    """An annotation that prints as it stands in the source."""
    if annotation is inspect.Parameter.empty:
        return annotation
    return Literally(
        annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    )


def text(docstring: str) -> str:
    """A docstring as Markdown: examples and drawings as code, `Raises:` as a list."""
    blocks = []
    for block in docstring.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith(">>>"):
            blocks.append(code(block))
        elif lines and re.fullmatch(r"[A-Z]\w+:", lines[0]):
            entries = re.sub(r"\n {8,}", " ", "\n".join(lines[1:]))
            blocks.append(
                f"**{lines[0]}**\n\n"
                + "\n".join(f"- {entry.strip()}" for entry in entries.splitlines())
            )
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


def code(source: str) -> str:
    """Source fenced as Python."""
    return f"```python\n{source}\n```"


def environment() -> str:
    """docs/environment.md."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for command, option in options(typer.main.get_command(app), "dewey"):
        where = f"`{command} {option.opts[0]}`"
        rows.setdefault(option.envvar, []).append((where, option.help or ""))
    table = [
        f"| `{name}` | {', '.join(where for where, _ in uses)} | {cell(uses[0][1])} |"
        for name, uses in sorted(rows.items())
    ]
    beside = [f"| `{name}` | {meaning} |" for name, meaning in BESIDE_OPTIONS.items()]
    return "\n".join(
        [
            "# Environment variables",
            "",
            "Written by `make docs` from the commands; do not edit. Every option can be set by a",
            "variable; the command line wins over it, and an empty variable counts as unset. An",
            "option that may be given several times takes its values with spaces between them, and",
            "a flag takes `1` or `0`.",
            "",
            "| variable | option | meaning |",
            "|---|---|---|",
            *table,
            "",
            "## Variables that are no option",
            "",
            "| variable | meaning |",
            "|---|---|",
            *beside,
        ]
    )


def options(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every option with a variable, below a command, with the words that call its command."""
    for name, below in getattr(command, "commands", {}).items():
        yield from options(below, f"{path} {name}")
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.envvar:
            yield path, parameter


def cell(words: str) -> str:
    """Text that stays within one cell of a Markdown table."""
    return " ".join(words.split()).replace("|", "\\|")


PAGES = {"api.md": api, "environment.md": environment}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page().rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
