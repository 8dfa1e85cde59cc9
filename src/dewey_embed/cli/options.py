"""Options that several commands share, their environment variables, and the faults they list.

An option names its variable where several commands share it in the same meaning, as `DEWEY_MODEL`;
any other has one after its command: `DEWEY_ENCODE_OUTPUT`. Options that end the run, such as
`--version`, have none. docs/environment.md lists all of them.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand

from dewey_embed.cli.console import complain, say
from dewey_embed.errors import ConfigError
from dewey_embed.extras import require
from dewey_embed.files import require_writable
from dewey_embed.printable import one_line
from dewey_embed.storage import folder_named
from dewey_embed.text.inputs import ReadLimits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dewey_embed.types import Unreadable

EXIT_UNREADABLE = 3
GROUP_CHARS = 400_000

LARGEST = 2**24
"""More tokens than any model reads, and more dimensions than any vector has."""

Value = TypeVar("Value")


def writable(path: Path | None) -> Path | None:
    """The path of an option, if a file can be written to it; asked before hours of work.

    Raises:
        ConfigError: it is a folder, or its folder takes no file.

    """
    if path is not None:
        require_writable(path.expanduser())
    return path


def _known_splitter(name: str | None) -> str | None:
    """A splitter's name, checked only where one is given: the table is slow to import."""
    if name is None:
        return None
    from dewey_embed.text.splitter import known_splitter

    try:
        return known_splitter(name)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


Model = Annotated[
    str | None,
    typer.Option(
        envvar="DEWEY_MODEL",
        metavar="MODEL",
        help="A model folder or Hugging Face id. Default: an index's own, else the embedded mini.",
    ),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(help="A model folder or Hugging Face id. Default: the embedded mini."),
]
IndexArgument = Annotated[
    Path,
    typer.Argument(
        parser=folder_named,
        metavar="INDEX",
        help="The index's folder, or its address: s3://bucket/my.index.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda if there is one.")]
ChunkTokens = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DEWEY_CHUNK_TOKENS",
        metavar="N,...",
        help="Tokens of a chunk; several sizes with commas between. Default: 128; in an index 64.",
    ),
]
ChunkOverlap = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DEWEY_CHUNK_OVERLAP",
        metavar="N,...",
        help="Tokens that a chunk shares with the next, for all sizes or for each. Default: a "
        "quarter of the size; in an index none.",
    ),
]
Splitter = Annotated[
    str | None,
    typer.Option(
        envvar="DEWEY_SPLITTER",
        metavar="NAME",
        callback=_known_splitter,
        help="How documents are cut into chunks: tokens (windows of --chunk-tokens), recursive (at "
        "paragraphs, else lines, else words), words, or sentences; an unknown name lists all. "
        "Default: tokens; in an index sentences.",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        envvar="DEWEY_WINDOW",
        min=4,
        help="Tokens read at once; longer texts are read in overlapping windows. Default: 2048.",
    ),
]
Overflow = Annotated[
    Literal["windows", "truncate", "error"] | None,
    typer.Option(
        "--overflow",
        envvar="DEWEY_OVERFLOW",
        help="What becomes of a text longer than the model takes: windows (read in overlapping "
        "windows), truncate (without its end) or error. Default: windows.",
    ),
]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DEWEY_TEXT_FIELD",
        help="Field of a JSONL record that holds its text; give it again to join several. "
        "Default: text.",
    ),
]
IdField = Annotated[
    str | None,
    typer.Option(
        envvar="DEWEY_ID_FIELD",
        help="Field of a JSONL record that names it. Default: _id or id, else file and line.",
    ),
]
TitleField = Annotated[
    str | None,
    typer.Option(
        envvar="DEWEY_TITLE_FIELD",
        help="Field of a JSONL record that is its title. Default: title.",
    ),
]
StdinExtension = Annotated[
    str,
    typer.Option(
        envvar="DEWEY_STDIN_EXTENSION",
        help="The format of standard input, by its extension: .txt, .jsonl, .html, ...",
    ),
]
FileTimeout = Annotated[
    float,
    typer.Option(
        "--file-timeout-s",
        envvar="DEWEY_FILE_TIMEOUT_S",
        min=0.1,
        max=10**6,
        help="Seconds of processor time for one file's parser: PDF, Word, HTML and the like.",
    ),
]
FileMemory = Annotated[
    int,
    typer.Option(
        "--file-memory-mb",
        envvar="DEWEY_FILE_MEMORY_MB",
        min=64,
        max=10**7,
        help="Megabytes of memory for one file's parser.",
    ),
]
MaxText = Annotated[
    int,
    typer.Option(
        "--max-text-mb",
        envvar="DEWEY_MAX_TEXT_MB",
        min=1,
        max=10**6,
        help="Megabytes of one document's text, or of one line of JSONL.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        envvar="DEWEY_RAY",
        metavar="[ADDRESS]",
        help="Encode on a Ray cluster: the one at this address (host:port), or auto for the one "
        "that runs here. Without an address, that of RAY_ADDRESS, else this machine's own cores.",
    ),
]
NumWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        envvar="DEWEY_WORKERS",
        min=1,
        help="With --ray: processes that encode, each with the model. Default: as many as fit.",
    ),
]
WorkerCpus = Annotated[
    int,
    typer.Option(envvar="DEWEY_WORKER_CPUS", min=1, help="With --ray: cores of each worker."),
]
WorkerGpus = Annotated[
    float | None,
    typer.Option(
        envvar="DEWEY_WORKER_GPUS",
        min=0,
        help="With --ray: GPUs of each worker, or a part of one. Default: 1 where there are any.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", envvar="DEWEY_VERBOSE", help="Name every file that is passed over."
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", envvar="DEWEY_JSON", help="Print JSON and nothing else."),
]


def register(commands: typer.Typer, table: Mapping[str, tuple[Any, str, str]]) -> None:
    """Add the commands of a table, each by its name with its function and two examples."""
    for name, (function, *examples) in table.items():
        commands.command(name, cls=Command, epilog="\n\n".join(["Examples:", *examples]))(function)


class Command(TyperCommand):
    """A command whose `--ray` may stand without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, `--ray` alone as that of the cluster that is meant then."""
        meant = f"--ray={os.environ.get('RAY_ADDRESS') or 'local'}"
        ends = args.index("--") if "--" in args else len(args)
        given = [
            meant if word == "--ray" and (place + 1 >= ends or args[place + 1][:1] == "-") else word
            for place, word in enumerate(args[:ends])
        ]
        return super().parse_args(ctx, [*given, *args[ends:]])


def several(option: str, text: str, kind: Callable[[str], Value]) -> tuple[Value, ...]:
    """Values with commas between.

    Raises:
        ConfigError: one of them is of another kind, or a number beyond all bounds.

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


def sizes(option: str, given: Sequence[str] | None, *, least: int) -> tuple[int, ...] | None:
    """Sizes in tokens, or `None` where none were given; the option may be given again for more.

    Raises:
        BadParameter: one of them is not a whole number, or too small.

    """
    if not given:
        return None
    text = ",".join(given)
    try:
        values = several(option, text, int)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    if min(values) < least:
        raise typer.BadParameter(f"{option} is {text!r}; need whole numbers from {least}")
    return values


def chunk_sizes(
    chunk_tokens: Sequence[str] | None, chunk_overlap: Sequence[str] | None
) -> dict[str, tuple[int, ...] | int | None]:
    """The options of chunk sizes, as Python's functions take them; one overlap is for all sizes."""
    overlaps = sizes("--chunk-overlap", chunk_overlap, least=0)
    return {
        "chunk_tokens": sizes("--chunk-tokens", chunk_tokens, least=1),
        "chunk_overlap": overlaps[0] if overlaps and len(overlaps) == 1 else overlaps,
    }


def reading(
    *,
    text_field: list[str] | None,
    id_field: str | None,
    title_field: str | None,
    stdin_extension: str,
    file_timeout_s: float,
    file_memory_mb: int,
    max_text_mb: int,
) -> dict[str, Any]:
    """The options of reading documents, as `read_documents` and `Index.add_files` take them."""
    return {
        "text_fields": text_field or (),
        "id_field": id_field,
        "title_field": title_field,
        "stdin_extension": stdin_extension,
        "limits": ReadLimits(
            file_timeout_s=file_timeout_s, file_memory_mb=file_memory_mb, max_text_mb=max_text_mb
        ),
    }


def require_eval() -> None:
    """Refuse to measure where packages of the extra `eval` are missing.

    Raises:
        MissingDependencyError: with the command that installs them.

    """
    require("eval", "measuring", "mteb", "bm25s", "pytrec_eval", "scipy")


def _counted(kinds: Counter[str]) -> str:
    """Kinds with their numbers, most first."""
    return ", ".join(f"{kind} ({number:,})" for kind, number in kinds.most_common())


def list_faults(
    unreadable: Sequence[Unreadable],
    skipped: Sequence[Unreadable] = (),
    unread: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    *,
    verbose: bool = True,
) -> None:
    """Say on standard error what is in none of the vectors.

    Files that could not be read are listed with their reasons; those that were passed over
    (`skipped`), and parts left out of the others (`unread`), are counted by kind, and named if
    `verbose`.
    """
    more = "" if verbose else "; --verbose names them"
    if skipped:
        kinds = Counter(fault.kind or fault.reason for fault in skipped)
        say(f"passed over {len(skipped):,}: {_counted(kinds)}{more}")
        for fault in skipped if verbose else ():
            complain(f"  {one_line(str(fault))}")
    if unread:
        total: Counter[str] = Counter()
        for counts in unread.values():
            total.update(counts)
        files = "a file" if len(unread) == 1 else f"{len(unread):,} files"
        say(f"left out of {files}, or guessed: {_counted(total)}{more}")
        for source, counts in unread.items() if verbose else ():
            complain(f"  {one_line(source)}: {_counted(Counter(counts))}")
    if unreadable:
        say(f"{len(unreadable):,} could not be read:")
        for fault in unreadable:
            complain(f"  {one_line(str(fault))}")


def list_long(num_windows: int, num_truncated: int) -> None:
    """Say on standard error how many texts longer than the model takes there were, if any."""
    if num_windows or num_truncated:
        say(
            f"longer than the model takes: {num_windows:,} read in overlapping windows, "
            f"{num_truncated:,} truncated"
        )


NAMES_OF_FOLDERS = ("docs", "model", "models", "names", "output", "what")
"""Parameters that are text and may also name a file or folder."""


def prepare(command: Any, words: tuple[str, ...] = ("DEWEY",)) -> None:
    """Give every option of a command, and of those below it, its variable.

    Shells do not expand the `~` of a variable, nor of `--option=~/folder`, so commands do.
    """
    for name, below in getattr(command, "commands", {}).items():
        prepare(below, (*words, name))
    for option in options_of(command):
        option.envvar = option.envvar or "_".join((*words, option.name)).upper().replace("-", "_")
        option.show_envvar = False
    if command.callback is not None:
        command.callback = _with_home(command.callback)


def options_of(command: Any) -> Iterator[Any]:
    """The options of a command that may be set by a variable; a group of commands has none."""
    if not hasattr(command, "commands"):
        for each in command.params:
            if each.param_type_name == "option" and not each.is_eager:
                yield each


def _with_home(callback: Callable[..., Any]) -> Callable[..., Any]:
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
        ConfigError: the home folder cannot be found.

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
