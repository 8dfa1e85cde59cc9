"""The values that pass between stages: text → tokens → spans → vectors → hits. All are frozen.

Every stage receives one of them and returns the next.
Positions are half-open: `text[span.char_start:span.char_end]` is a chunk's text, and
`tokens.ids[span.token_start:span.token_end]` are its tokens.

Shape suffixes used across the package: B documents, T tokens, C chunks (spans), D vector width,
H hidden width, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError, StatesNotKeptError
from dewey_embed.printable import counted, short_repr

SearchMode = Literal["multi", "single", "hybrid"]
SimilarityMode = Literal["multi", "single"]
Overflow = Literal["windows", "truncate", "error"]
WindowCuts = Literal["even", "content"]
Precision = Literal["float32", "float16", "int8", "binary"]
PooledOver = Literal["text", "all", "after_prompt"]
"""Tokens that the document's vector is pooled from: its text's own (ours), all that the model
reads (special tokens and prompt, as Sentence Transformers does), or all after the prompt."""

LandmarkKind = Literal["page", "slide", "sheet", "cell", "heading", "line", "row"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

CharSpans = Sequence[tuple[int, int]]
"""Half-open ranges of one text's characters."""

Splitter = str | Callable[[str], Iterable[tuple[int, int]]]
"""A name of `text.splitter.SPLITTERS`, or a function from a text to ranges of its characters."""

MetadataValue = str | int | float | bool | None

Bound = str | int | float
Range = Mapping[str, Bound]
"""Bounds of a value, by comparison: `{">=": 2020, "<": 2024}`. Text is compared with text only."""

FilterValue = MetadataValue | Range
Filter = Mapping[str, FilterValue | Iterable[FilterValue]]
"""Metadata that a hit must have: for each key a value, a range, or several of which one must match.

`{"extension": ".pdf", "year": {">=": 2020, "<": 2024}, "court": ["BGH", "BVerfG"]}`
"""


class Span(NamedTuple):
    """A half-open range of one text, in characters and in tokens of the text itself.

    Tokens are counted from the text's first: neither CLS nor the prompt has a number.

    >>> span = Span(char_start=4, char_end=17, token_start=1, token_end=3)
    >>> "The quick brown fox"[span.char_start : span.char_end], span.num_tokens
    ('quick brown f', 2)
    """

    char_start: int
    char_end: int
    token_start: int
    token_end: int

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the span."""
        return self.token_end - self.token_start


class _ShortRepr:
    """A dataclass whose `repr` shortens long texts and leaves out what is empty or a default."""

    __slots__ = ()

    def __repr__(self) -> str:
        values = {each: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        shown = [
            f"{each.name}={short_repr(value)}"
            for each, value in values.items()
            if value not in ("", {}) and value != each.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


class Landmark(NamedTuple):
    """A place in a document's text where something of its file begins.

    | `kind`      | `number`                        | `label`                                   |
    |-------------|---------------------------------|-------------------------------------------|
    | `"page"`    | of the page, from 1             | the number printed on it, where it differs |
    | `"slide"`   | of the slide, from 1            |                                           |
    | `"sheet"`   | of the sheet, from 1            | its name                                  |
    | `"cell"`    | of a notebook's cell, from 1    |                                           |
    | `"heading"` | its level, from 1               | its words; without, it only ends others    |
    | `"line"`    | of the text's line that begins here, in the file; lines after it count on ||
    | `"row"`     | the same of a table's rows, one on a line                                  ||

    Number 0 ends what came before of this kind: what follows has none. A heading ends those before
    it of its level and narrower ones.

    >>> Landmark(char=0, kind="heading", number=1, label="Rent").label
    'Rent'
    """

    char: int
    kind: LandmarkKind
    number: int
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Location(_ShortRepr):
    """Where a range of a document's text stands in its file; `None` and empty where unknown.

    Numbers count from 1; `last_page`, `last_line` and `last_row` are those of the range's end.
    `page_label` is the number printed on the page, where the file has one. `headings` are those
    above the range, the widest first.

    >>> Location(page=12, last_page=13, headings=("Rent", "Late payment"))
    Location(page=12, last_page=13, headings=('Rent', 'Late payment'))
    """

    page: int | None = None
    last_page: int | None = None
    page_label: str = ""
    slide: int | None = None
    sheet: str = ""
    row: int | None = None
    last_row: int | None = None
    cell: int | None = None
    line: int | None = None
    last_line: int | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Document(_ShortRepr):
    """A text with its name, as readers return it and indexes keep it.

    `id` is stable from run to run (for a file, its path), `source` is where the text came from,
    `root` is the path under which it was found; `metadata` holds flat values to filter by. `unread`
    counts, kind by kind, what its file holds beside the text ("scanned pages", "attachments"), and
    what of the text is a guess; it is left out when documents are compared. `landmarks`, in the
    order of the text, say where its pages, headings and lines begin.

    >>> Document(id="lease-7", text="The tenant pays the rent.", metadata={"year": 2021})
    Document(id='lease-7', text='The tenant pays the rent.', metadata={'year': 2021})
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    root: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict, compare=False)
    landmarks: Sequence[Landmark] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file, or a line of one, from which no document could be read, with the reason.

    `source` and `root` are those of the document that it would have been; `document_id` is the id
    of a bad line's document where that is known. `skipped` marks what is not a failure, such as a
    file of unknown kind in a folder, or an empty record; summaries count it by its `kind`.

    >>> print(Unreadable(source="letters.jsonl", line=3, reason="not JSON"))
    letters.jsonl, line 3: not JSON
    """

    source: str
    reason: str
    root: str = ""
    line: int | None = None
    skipped: bool = False
    document_id: str | None = None
    kind: str = ""

    @classmethod
    def of(cls, document: Document, reason: str) -> Self:
        """A document that was read, and cannot be used for a reason that is its own."""
        source = document.source or document.id
        name = "" if document.id == source else f"id {document.id!r}: "
        return cls(source=source, reason=name + reason, root=document.root, document_id=document.id)

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.source}{line}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A text's tokens: `ids` (T,) int64 and `offsets` (T, 2) int64 characters, half-open.

    Special tokens are not among them. `prompt_ids` (P,) are the tokens of the prompt before the
    text; they have no offsets, and no span ever holds them. Offsets never decrease; tokens that
    share one character (the bytes of an emoji) share its offsets.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    prompt_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)


class WindowStates(NamedTuple):
    """What each window of a text gave to the document's vector: a changed text may take it over.

    | field    | shape    | dtype   | meaning                                                   |
    |----------|----------|---------|-----------------------------------------------------------|
    | `bounds` | (W, 2)   | int64   | ranges of the text's tokens                               |
    | `keys`   | W        | bytes   | 16; equal for windows that are read, and counted, alike   |
    | `states` | (W, S·H) | float32 | the sum of hidden states; CLS, and the sum over special   |
    |          |          |         | tokens and prompt, where the document's vector needs them |
    """

    bounds: Rows
    keys: list[bytes]
    states: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DocumentVectors:
    """A document's vectors from one forward pass: one for the document, one for every span.

    | field         | shape  | dtype                                                               |
    |---------------|--------|---------------------------------------------------------------------|
    | `vector`      | (D,)   | float32, unit length, unless `precision` says otherwise             |
    | `chunks`      | (C, D) | the same; row j belongs to `spans[j]`                               |
    | `granularity` | (C,)   | int32: the position in `chunk_tokens` of the size of each span      |
    | `norms`       | (C,)   | float32: lengths of the chunks' vectors before they were made unit  |
    | `vectors`     | (V, D) | as `vector`, up to four, with `single_vector="topics"`; else `None` |

    The text has `num_tokens` tokens, of which the model read `used_tokens`. `overflow` says how a
    text longer than the model takes was read: in overlapping `"windows"`, or without its end
    (`"truncate"`); it is `None` for a text that fitted. `windows` are there for a text of several
    with `window_cuts="content"`.

    The vector of several chunks together is, in a model whose head is one linear layer without
    bias, the sum of `norms * num_tokens * chunks` over them, scaled to unit length.

    >>> from dewey_embed import Dewey
    >>> document = Dewey.load().encode_document("The tenant pays the rent.")
    >>> document
    DocumentVectors(1 chunk, width 384, 6 tokens, overflow=None)
    """

    vector: NDArray[Any]
    chunks: NDArray[Any]
    spans: list[Span]
    num_tokens: int
    used_tokens: int
    overflow: Literal["windows", "truncate"] | None = None
    granularity: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    norms: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    vectors: NDArray[Any] | None = None
    windows: WindowStates | None = None
    states: Callable[[CharSpans], Floats] | None = None
    """Makes vectors of ranges of characters from the states of the text's tokens."""

    def __repr__(self) -> str:
        return (
            f"DocumentVectors({counted(len(self.spans), 'chunk')}, width {self.vector.shape[-1]}, "
            f"{counted(self.num_tokens, 'token')}, overflow={self.overflow!r})"
        )

    def pool(self, char_spans: CharSpans) -> Floats:
        """Unit vectors (len(char_spans), D) of any character ranges, without a second pass.

        The document must have been encoded with `keep_states=True`. A range includes every token
        that it touches.

        >>> from dewey_embed import Dewey
        >>> document = Dewey.load().encode_document("The tenant pays the rent.", keep_states=True)
        >>> document.pool([(4, 10), (0, 25)]).shape
        (2, 384)

        Raises:
            StatesNotKeptError: the document was encoded without `keep_states`.
            SpanError: a range is empty, reversed, outside the text, or holds no token.

        """
        if self.states is None:
            raise StatesNotKeptError(
                "this document was encoded without its token states; "
                "pass keep_states=True to encode_document to pool spans later"
            )
        return self.states(char_spans)

    def at(self, granularity: int) -> tuple[NDArray[Any], list[Span]]:
        """Chunk vectors and spans of one granularity: `at(0)` for the first of `chunk_tokens`.

        >>> from dewey_embed import Dewey
        >>> document = Dewey.load().encode_document("Rent is due. " * 50, chunk_tokens=(32, 128))
        >>> small, spans = document.at(0)
        >>> large, _ = document.at(1)
        >>> len(small) == len(spans) > len(large)
        True

        Raises:
            ConfigError: the document has no such granularity.

        """
        num = int(self.granularity.max(initial=0)) + 1
        known = not isinstance(granularity, bool) and granularity in range(num)
        if self.spans and not known:  # a blank text has no chunks of any size
            raise ConfigError(
                f"granularity is {granularity!r}; the document has {counted(num, 'size')} of "
                f"chunks: give a whole number from 0 to {num - 1}"
            )
        rows = np.flatnonzero(self.granularity == granularity)
        return self.chunks[rows], [self.spans[row] for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Passage(_ShortRepr):
    """Whole sentences of a document that answer a query: their score, place and text.

    `number` counts the document's passages from 0. `highlight` are the characters, within the
    document, of the sentence that answers best. `num_similar` counts the passages of the document
    that say nearly the same, rank lower, and are left out.

    >>> place = {"document_id": "lease", "number": 3, "char_start": 90, "char_end": 99}
    >>> Passage(**place, score=0.7, text="Rent: 90.")
    Passage(document_id='lease', number=3, score=0.7, char_start=90, char_end=99, text='Rent: 90.')
    """

    document_id: str
    number: int
    score: float
    char_start: int
    char_end: int
    text: str
    highlight: tuple[int, int] | None = None
    location: Location = Location()
    num_similar: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hit(_ShortRepr):
    """A document that a search returns, with its best passages, best first.

    `score` is that of its best passage, from 0 to 1. `probability` is that of the query being
    answered there; `None` where the index cannot tell. `index` is the folder of its index where
    several were searched, else empty.

    >>> Hit(document_id="lease-7", score=0.64, title="", source="", metadata={}, passages=[])
    Hit(document_id='lease-7', score=0.64, passages=[])
    """

    document_id: str
    score: float
    title: str
    source: str
    metadata: Mapping[str, MetadataValue]
    passages: list[Passage]
    probability: float | None = None
    index: str = ""
