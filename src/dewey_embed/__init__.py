"""One forward pass over up to 128K tokens: a vector for the whole document and for every chunk.

The public names. Each is imported when it is first used, so that `import dewey_embed` loads
neither torch nor a database.

>>> from dewey_embed import Dewey
>>> Dewey.load().encode("The tenant pays the rent.").shape
(384,)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey
    from dewey_embed.errors import DeweyError
    from dewey_embed.index.index import Index
    from dewey_embed.index.sync import IndexReport
    from dewey_embed.text.inputs import ReadLimits
    from dewey_embed.text.reader import read_documents
    from dewey_embed.types import (
        Document,
        DocumentVectors,
        Filter,
        Hit,
        Landmark,
        Location,
        Passage,
        SearchMode,
        Span,
        Unreadable,
    )

__version__ = "0.1.0"

# NumPy's threads wait for more work by spinning, and slow torch's down meanwhile: a query took four
# times as long to encode after a search as before one. Read when NumPy is first imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

__all__ = [
    "Dewey",
    "DeweyError",
    "Document",
    "DocumentVectors",
    "Filter",
    "Hit",
    "Index",
    "IndexReport",
    "Landmark",
    "Location",
    "Passage",
    "ReadLimits",
    "SearchMode",
    "Span",
    "Unreadable",
    "__version__",
    "read_documents",
]

_HOMES = {
    "Dewey": "encoder",
    "DeweyError": "errors",
    "Document": "types",
    "DocumentVectors": "types",
    "Filter": "types",
    "Hit": "types",
    "Index": "index.index",
    "IndexReport": "index.sync",
    "Landmark": "types",
    "Location": "types",
    "Passage": "types",
    "ReadLimits": "text.inputs",
    "SearchMode": "types",
    "Span": "types",
    "Unreadable": "types",
    "read_documents": "text.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
