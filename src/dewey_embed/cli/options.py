"""Options that several commands share, and the ways in which all of them speak."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli.console import complain, say
from dewey_embed.extras import require
from dewey_embed.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dewey_embed.text.reader import Unreadable

EXIT_UNREADABLE = 3
GROUP_CHARS = 400_000


class Splitter(StrEnum):
    """How documents are cut into chunks."""

    tokens = "tokens"
    recursive = "recursive"
    words = "words"


class Overflow(StrEnum):
    """What becomes of a text that is longer than the model takes."""

    windows = "windows"
    truncate = "truncate"
    error = "error"


Model = Annotated[
    str | None,
    typer.Option(
        envvar="DEWEY_MODEL",
        metavar="MODEL",
        help="A model folder or Hugging Face id. Default: the index's own, or the embedded mini.",
    ),
]
ChunkTokens = Annotated[
    list[int] | None,
    typer.Option(
        envvar="DEWEY_CHUNK_TOKENS",
        min=1,
        help="Tokens of a chunk; give it again for a second size. Default: 128.",
    ),
]
ChunkOverlap = Annotated[
    list[int] | None,
    typer.Option(
        envvar="DEWEY_CHUNK_OVERLAP",
        min=0,
        help="Tokens that a chunk shares with the next. Default: a quarter of its size.",
    ),
]
SplitterOption = Annotated[
    Splitter | None,
    typer.Option(
        "--splitter",
        envvar="DEWEY_SPLITTER",
        help="Cut every so many tokens, at paragraphs and sentences, or at words. Default: tokens.",
    ),
]
OverflowOption = Annotated[
    Overflow | None,
    typer.Option(
        "--overflow",
        envvar="DEWEY_OVERFLOW",
        help="A text longer than the model takes is read in overlapping windows, truncated, or "
        "an error. Default: windows.",
    ),
]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DEWEY_TEXT_FIELD",
        help="Field of a JSONL record that holds its text; give it again to join several.",
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
        help="What standard input is read as: .txt, .jsonl, .html, ...",
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


def sizes(values: Sequence[int] | None) -> tuple[int, ...] | None:
    """The sizes given, or `None` where none were."""
    return tuple(values) if values else None


def require_eval() -> None:
    """Refuse to measure where the packages of the extra `eval` are missing.

    Raises:
        MissingDependencyError: with the command that installs them.

    """
    require("eval", "measuring", "mteb", "bm25s", "pytrec_eval", "scipy")


def _counted(kinds: Counter[str]) -> str:
    """Kinds with their numbers, most first."""
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())


def list_faults(
    unreadable: Sequence[Unreadable],
    skipped: Sequence[Unreadable] = (),
    unread: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    *,
    verbose: bool = True,
) -> None:
    """Say on standard error what of the documents given is in none of the vectors.

    What could not be read is listed, with the reason; what was not meant to be (`skipped`) and what
    was left out of files that were read (`unread`) is counted by kind, and named if `verbose`.
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
