"""Environment variables in place of options, one for each, and paths that begin with `~`.

An option names its variable where several commands share it in the same meaning, as `DEWEY_MODEL`;
any other has one after its command: `DEWEY_ENCODE_OUTPUT`. Options that end the run, such as
`--version`, have none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dewey_embed.errors import ConfigError

NAMES_OF_FOLDERS = ("docs", "model", "models", "names", "what")
"""Parameters that are text and may name a file or folder, too."""


def prepare(command: Any, words: tuple[str, ...] = ("DEWEY",)) -> None:
    """Give every option of a command, and of those below it, its variable, and say so at the end.

    The shell leaves the `~` of a variable, and of `--option=~/folder`, to us.
    """
    for name, below in getattr(command, "commands", {}).items():
        prepare(below, (*words, name))
    for option in options_of(command):
        option.envvar = option.envvar or "_".join((*words, option.name)).upper().replace("-", "_")
        option.show_envvar = False
    if names := [option.envvar for option in options_of(command)]:
        variables = f"Options from the environment: {', '.join(names)}."
        command.epilog = "\n\n".join(filter(None, (command.epilog, variables)))
    if command.callback is not None:
        command.callback = _at_home(command.callback)


def options_of(command: Any) -> Iterator[Any]:
    """The options of a command that may be set by a variable; a group of commands has none."""
    if not hasattr(command, "commands"):
        for each in command.params:
            if each.param_type_name == "option" and not each.is_eager:
                yield each


def _at_home(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called with paths that begin with `~` at the user's home folder."""

    @functools.wraps(callback)
    def called(*arguments: Any, **values: Any) -> Any:
        return callback(
            *arguments, **{name: _expanded(name, each) for name, each in values.items()}
        )

    return called


def _expanded(name: str, value: Any) -> Any:
    """A value with `~` as the home folder, where it is a path or may name one.

    Raises:
        ConfigError: there is no home folder to be found.

    """
    if isinstance(value, list):
        return [_expanded(name, each) for each in value]
    if not isinstance(value, Path) and not (isinstance(value, str) and name in NAMES_OF_FOLDERS):
        return value
    try:
        return type(value)(Path(value).expanduser()) if str(value).startswith("~") else value
    except RuntimeError:
        raise ConfigError(
            f"{value}: there is no such home folder; set HOME, or give the path in full"
        ) from None
