"""What a document that changed keeps of its earlier version in an index.

A window of the new text that is read as one of the old was (the same tokens under the same title,
with the same share in the document's vector) needs no pass: its chunks have their vectors in the
table, and its part of the document's vector lies beside the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.earlier import Earlier
from dewey_embed.model.windows import assign_pieces, owned_ranges
from dewey_embed.types import DocumentVectors, Rows

if TYPE_CHECKING:
    from dewey_embed.model.inference import Request


class Kept(NamedTuple):
    """A request that reads only what is not kept, and the earlier row (C,) of each chunk, or -1."""

    request: Request
    rows: Rows
    earlier: Earlier

    @property
    def num_tokens(self) -> int:
        """Tokens whose share in the document's vector comes from windows that are not read."""
        sizes = np.diff(owned_ranges(self.request.windows))[:, 0]
        return sum(int(sizes[number]) for number in self.request.known)

    def completed(self, vectors: DocumentVectors) -> DocumentVectors:
        """The document's vectors, with those that it keeps in their places.

        They are int8 values, and so stored as they were.
        """
        new = np.flatnonzero(self.rows >= 0)
        old, earlier = self.rows[new], self.earlier
        chunks = np.array(vectors.chunks, np.float32)
        chunks[new] = earlier.vectors[old]
        # In float64: the product with the number of tokens is then the earlier weight, bit for bit.
        norms: NDArray[Any] = np.array(vectors.norms, np.float64)
        norms[new] = earlier.weights[old] / (earlier.ends - earlier.starts)[old]
        return replace(vectors, chunks=chunks, norms=norms)


def kept_of(request: Request, keys: Sequence[bytes], earlier: Earlier) -> Kept:
    """What a text keeps of its earlier version; `keys` are those of the request's windows.

    A window is read again where one of its chunks is not among those that the earlier window had.
    """
    old = earlier.windows
    known_rows = {
        place: row
        for row, place in enumerate(_places(earlier.starts, earlier.ends, old.bounds, old.keys))
    }
    places = _places(request.starts, request.ends, request.windows, keys)
    rows = np.array([known_rows.get(place, -1) for place in places], np.int64)
    pieces = assign_pieces(request.starts, request.ends, request.windows)
    unknown = set(pieces.window[rows[pieces.row] < 0].tolist())
    states = dict(zip(old.keys, old.states, strict=True))
    known = {
        number: states[key]
        for number, key in enumerate(keys)
        if key in states and number not in unknown
    }
    return Kept(replace(request, known=known), rows, earlier)


def _places(starts: Rows, ends: Rows, windows: Rows, keys: Sequence[bytes]) -> list[bytes]:
    """For each chunk the windows that it is pooled in, by their keys, and where in them."""
    pieces = assign_pieces(starts, ends, windows)
    places = [b""] * len(starts)
    within = np.stack((pieces.start, pieces.end), axis=1) - windows[pieces.window, :1]
    for row, window, own in zip(pieces.row, pieces.window, within.astype("<i8"), strict=True):
        places[row] += keys[window] + own.tobytes()
    return places
