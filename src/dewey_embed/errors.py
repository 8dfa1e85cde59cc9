"""Every error a user of Dewey can meet, as one tree.

::

    DeweyError
    ├── ConfigError (ValueError)             an option or recipe with an unknown key or bad value
    ├── CheckpointError (ValueError)         a model folder that is missing, truncated or foreign
    ├── InputError (ValueError)              a text, span or file that is refused
    │   ├── TextTooLongError                 past `max_tokens` with `overflow="error"`
    │   ├── SpanError                        a span outside its text, or running backwards
    │   │   └── StatesNotKeptError           spans pooled of a document encoded without its states
    │   └── ReadError                        a file that cannot be read as text
    ├── IndexStoreError                      an index that is missing, in use or damaged
    │   └── IndexMismatchError (ValueError)  an index made by another model or with other settings
    ├── TargetsError                         training targets that are missing, damaged or foreign
    ├── TeacherError                         a teacher with too few vectors, another width, NaN
    ├── RunError                             a training run that cannot start or resume
    ├── TaskError                            an evaluation task whose data are missing or wrong
    ├── ResultsError                         results that cannot be read, compared or drawn
    └── MissingDependencyError (ImportError) an optional package, with the command that installs it

Each message says what was given, what the limit is, and what to do about it. Mistakes of type
(a number where a text belongs) are plain `TypeError`, as everywhere in Python.
"""


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


class TargetsError(DeweyError):
    """Training targets are missing, damaged, or were made by another recipe."""


class TeacherError(DeweyError):
    """A teacher cannot be reached, or returns too few vectors, another width, or NaN."""


class RunError(DeweyError):
    """A training run cannot start or resume: its folder, checkpoint or step does not fit."""


class TaskError(DeweyError):
    """An evaluation task has no data, or data that contradict themselves; names file and line."""


class ResultsError(DeweyError):
    """Results cannot be read, or are not of a kind that can be compared or drawn."""


class MissingDependencyError(DeweyError, ImportError):
    """An optional package is needed; the message holds the command that installs it."""
