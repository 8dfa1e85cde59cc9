"""What an index holds of the earlier version of a document that changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.tables import POSITIONS, row_sums
from dewey_embed.types import Floats, Rows, WindowStates

if TYPE_CHECKING:
    import pyarrow as pa


CHUNK_COLUMNS = ("document_hash", "ordinal", "passage", *POSITIONS, "weight", "sum", "vector")


@dataclass(frozen=True, slots=True)
class Earlier:
    """A document's windows and chunks: token ranges [starts, ends) (C,), int8 `vectors` (C, D).

    `weights` (C,) are as in the table of chunks.
    """

    windows: WindowStates
    starts: Rows
    ends: Rows
    vectors: NDArray[np.int8]
    weights: Floats


def earlier_of(windows: WindowStates, chunks: pa.Table) -> Earlier | None:
    """A document's windows with its rows of `chunks`; `None` where a row is damaged."""
    chunks = chunks.sort_by("ordinal")
    vectors = chunks["vector"].combine_chunks().flatten().to_numpy().reshape(len(chunks), -1)
    columns = {name: chunks[name].to_numpy() for name in CHUNK_COLUMNS if name != "vector"}
    spans = np.stack([columns[name] for name in POSITIONS], axis=1)
    weights = columns["weight"]
    sums = row_sums(vectors, columns["ordinal"], columns["passage"], spans, weights)
    if not np.array_equal(sums, columns["sum"]):
        return None
    return Earlier(windows, columns["token_start"], columns["token_end"], vectors, weights)
