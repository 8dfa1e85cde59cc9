"""The frozen values that pass between stages: text → tokens → spans → vectors → hits.

Every stage takes one of these and returns the next; none of them knows how it was made.
Positions are half-open: `text[span.char_start:span.char_end]` is a chunk's text, and
`tokens.ids[span.token_start:span.token_end]` are its tokens.

Shape suffixes used across the package: B documents, T tokens, C chunks (spans), D vector width,
H hidden width, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import SpanError

SearchMode = Literal["multi", "single", "hybrid"]
SimilarityMode = Literal["multi", "single"]
Overflow = Literal["windows", "truncate", "error"]
Precision = Literal["float32", "float16", "int8", "binary"]
PooledOver = Literal["text", "all", "after_prompt"]
"""Tokens that the document's vector is pooled from: its text's own (ours), all that the model
reads (special tokens and prompt, as Sentence Transformers does), or all after the prompt."""

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

MetadataValue = str | int | float | bool | None


class Span(NamedTuple):
    """A half-open range of one text, in characters and in tokens of the text itself.

    Tokens are counted from the text's first: neither CLS nor the prompt has a number.
    """

    char_start: int
    char_end: int
    token_start: int
    token_end: int

    @property
    def num_tokens(self) -> int:
        """How many tokens the span holds."""
        return self.token_end - self.token_start


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text with its name: what readers make and indexes keep.

    `id` is stable from run to run (for a file, its path), `source` is where the text came from,
    `root` is the argument it was found under; `metadata` holds flat values to filter by. `unread`
    counts, kind by kind, what its file holds beside the text ("scanned pages", "attachments"), and
    what of the text is a guess; it is no part of what the document is.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    root: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file, or a line of one, that gave no document, and why.

    `source` and `root` are what its documents would have had, and `document_id` the id of a bad
    line's document where it can still be told. `skipped` marks what nobody would call a failure,
    such as an unknown kind of file in a folder or an empty record; `kind` is what it is counted
    as in a summary.
    """

    source: str
    reason: str
    root: str = ""
    line: int | None = None
    skipped: bool = False
    document_id: str | None = None
    kind: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.source}{line}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A text's tokens: `ids` (T,) int64 and `offsets` (T, 2) int64 characters, half-open.

    Special tokens are not among them. `prompt_ids` (P,) are the tokens of the prompt that was put
    before the text; they have no offsets, and no span ever holds them. Offsets never decrease;
    tokens that share one character (the bytes of an emoji) share its offsets.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    prompt_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)


class SpanPooler(Protocol):
    """What a document keeps of its pass so that any span can be pooled later."""

    def pool(self, char_spans: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Vectors (len(char_spans), D) float32, unit length, of character ranges."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DocumentVectors:
    """A document's vectors from one forward pass: one for the whole, one for every span.

    | field         | shape  | dtype                                                               |
    |---------------|--------|---------------------------------------------------------------------|
    | `vector`      | (D,)   | float32, unit length, unless another `precision` was asked for      |
    | `chunks`      | (C, D) | the same; row j belongs to `spans[j]`, always `len(spans)` rows     |
    | `granularity` | (C,)   | int32: which of the asked `chunk_tokens` each span was cut for      |

    `num_tokens` is what the text has; `used_tokens` how many of them the vectors have seen;
    `overflow` says what happened if the text was longer than the model takes: `None` (it fitted),
    `"windows"` (read in overlapping windows, all of it) or `"truncate"` (the end was left out).
    """

    vector: NDArray[Any]
    chunks: NDArray[Any]
    spans: list[Span]
    num_tokens: int
    used_tokens: int
    overflow: Literal["windows", "truncate"] | None = None
    granularity: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    states: SpanPooler | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return (
            f"DocumentVectors({len(self.spans)} chunks, width {self.vector.shape[-1]}, "
            f"{self.num_tokens} tokens, overflow={self.overflow!r})"
        )

    def pool(self, char_spans: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Vectors (len(char_spans), D) float32 of any character ranges, without a second pass.

        Needs `keep_states=True` when the document was encoded. A range takes in every token that
        it touches.

        Raises:
            SpanError: no states were kept, or a range is empty, reversed, outside the text, or
                holds no token.

        """
        if self.states is None:
            raise SpanError(
                "this document was encoded without its token states; "
                "pass keep_states=True to encode_document to pool spans later"
            )
        return self.states.pool(char_spans)

    def at(self, granularity: int) -> tuple[NDArray[Any], list[Span]]:
        """Chunk vectors and spans of one granularity: `at(0)` for the first of `chunk_tokens`."""
        rows = np.flatnonzero(self.granularity == granularity)
        return self.chunks[rows], [self.spans[row] for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk that answered: its score, its characters within its document, and its text."""

    score: float
    char_start: int
    char_end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A document that answered a query, with its best passages, best first."""

    document_id: str
    score: float
    title: str
    source: str
    metadata: Mapping[str, MetadataValue]
    passages: list[Passage]
