"""Every error that a user of Dewey can meet, as one tree of classes.

Each message says what was given, what the limit is, and what to do about it. Mistakes of type
(a number where a text belongs) are plain `TypeError`, as everywhere in Python.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

_KIND_IN_RUST = re.compile(r"^(?:lance error: )?LanceError\(\w+\): ")
_PLACE_IN_RUST = re.compile(r"(?:, /\S+\.rs:\d+:\d+)+\s*$")
"""The name of a fault in a library, and where on its maker's machine it was found."""

Text = TypeVar("Text")
Encoded = TypeVar("Encoded")


class DeweyError(Exception):
    """Base of every error that Dewey raises for its users.

    >>> from dewey_embed import Dewey
    >>> try:
    ...     Dewey.load("./no/such/folder")
    ... except DeweyError as error:
    ...     print(error)
    ./no/such/folder: no such folder; give a model folder, a Hugging Face id (owner/name), or \
nothing for the embedded default
    """


class ConfigError(DeweyError, ValueError):
    """An option, recipe or config holds an unknown key or an impossible value."""


class CheckpointError(DeweyError, ValueError):
    """A model folder is missing, truncated, or of a kind that Dewey does not run."""


class InputError(DeweyError, ValueError):
    """A text, span or file is refused; the message says why."""


class TextTooLongError(InputError):
    """A text has more tokens than the model takes (`overflow="error"`) or a GPU's memory holds."""


class SpanError(InputError):
    """A span lies outside its text, is empty, or runs backwards."""


class StatesNotKeptError(SpanError):
    """A document was encoded without `keep_states`, so that no more spans of it can be pooled."""


class ReadError(InputError):
    """A file cannot be read as text."""


class IndexStoreError(DeweyError):
    """An index is missing, damaged, or being written by another process."""


class IndexMismatchError(IndexStoreError, ValueError):
    """An index was made by another model, or with other chunk settings, than the one at hand."""


class StorageError(DeweyError):
    """A folder or an object storage cannot be reached, read or written."""


class ClusterError(DeweyError):
    """A Ray cluster cannot be reached, has too little room, or lost its work."""


class TargetsError(DeweyError):
    """Training targets are missing, damaged, or were made by another recipe."""


class TeacherError(DeweyError):
    """A teacher cannot be reached, or returns too few vectors, another width, or NaN."""


class EndpointError(DeweyError):
    """A server of embeddings cannot be reached, or speaks none of the APIs that are known."""


class HubError(DeweyError):
    """A model cannot be pushed: it is not finished, there is no token, or the hub refuses it."""


class RunError(DeweyError):
    """A training run cannot start or resume: its folder, checkpoint or step does not fit."""


class TaskError(DeweyError):
    """An evaluation task has no data, or data that contradict themselves; names file and line."""


class ResultsError(DeweyError):
    """Results cannot be read, or are not of a kind that can be compared or drawn."""


class MissingDependencyError(DeweyError, ImportError):
    """An optional package is needed; the message holds the command that installs it."""


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says, at most 300 characters; its type's name if nothing.

    >>> first_line(OSError("no space left, /home/x/object_store.rs:1013:21\nmore"))
    'no space left'
    """
    line = _KIND_IN_RUST.sub("", str(error).strip().split("\n", 1)[0])
    return _PLACE_IN_RUST.sub("", line)[:300] or type(error).__name__


def each_that_fits(
    encode: Callable[[Sequence[Text]], list[Encoded | str]], texts: Sequence[Text]
) -> list[Encoded | str]:
    """What `encode` makes of the texts, and the reason for one that is longer than it takes.

    So that such a text, with `overflow="error"`, costs itself and not those beside it.
    """
    try:
        return encode(texts)
    except TextTooLongError as error:
        if len(texts) > 1:
            middle = len(texts) // 2
            halves = texts[:middle], texts[middle:]
            return [each for half in halves for each in each_that_fits(encode, half)]
        reason = str(error).removeprefix("text 0: ").partition("; pass overflow=")[0]
        return [f"{reason}; overflow windows reads all of it, truncate leaves its end out"]
