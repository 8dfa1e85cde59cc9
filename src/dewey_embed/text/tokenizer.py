"""Text → tokens with exact character offsets, for any text that a Python string can hold.

Texts are neither truncated nor padded, and special tokens are added where batches are built.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from numpy.typing import NDArray

from dewey_embed.errors import CheckpointError
from dewey_embed.text.characters import code_points, white_space, without_surrogates
from dewey_embed.text.special_tokens import SpecialIds, special_ids
from dewey_embed.titles import TITLE_BREAK, TITLE_LINE, title_break
from dewey_embed.types import Tokens

SEGMENT_CHARS = 65_536
"""About the number of characters in one piece for the backend.

It bounds the memory for huge texts and lets the backend's threads share a long one.
"""

GROUP_CHARS = 1_048_576
"""The most characters in one call of the backend, unless a single piece is longer."""

# BERT's and byte-level tokenizers never join characters across the step from text to white
# space, so a cut there changes no token.
_SAFE_CUT = re.compile(r"(?<=\S)[ \n]")

_SPECIAL_IN_TEXT_MIN = 2


class _Piece(NamedTuple):
    """Tokens of one piece of a text: ids (T,) int64, offsets (T, 2) int64."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]


class TitleIds(NamedTuple):
    """The ids of a title as a text under it begins, and whether it has more than were wanted."""

    ids: NDArray[np.int64]
    is_cut: bool


class Tokenizer:
    """A `tokenizers` backend with every token of a text and its exact place.

    Three things differ from the backend as it was saved, none of them in ordinary text:

    - truncation, padding and post-processing are off: only the text's own tokens come out;
    - the strings of special tokens (`[SEP]`) are control tokens in a prompt, which comes from the
      model's maker, but ordinary characters in a text, which anyone may have written;
    - characters that the backend drops or folds away (the accents that BERT strips, the second
      half of a composed `é`, NUL) belong to the token that they follow, so that a slice of the
      text by offsets keeps them. White space, and what is dropped after it, stays between tokens.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        cls_token_id: int | None = None,
        sep_token_id: int | None = None,
        special: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        path: Path | None = None,
    ) -> None:
        """A tokenizer with CLS and SEP or `special` ids around a text, else its own template's."""
        backend.no_truncation()
        backend.no_padding()
        self.path = path
        self._post_processor = backend.post_processor
        if cls_token_id is not None and sep_token_id is not None:
            special = (cls_token_id,), (sep_token_id,)
        self.special_ids = special_ids(backend) if special is None else SpecialIds(*special)
        for name, ids in zip(("cls_token_id", "sep_token_id"), self.special_ids, strict=True):
            for token_id in ids:
                _refuse_unknown(backend, name, token_id)
        # A byte-level post-processor would trim white space off the offsets.
        backend.post_processor = None
        self._backend = backend
        self._num_rows: int | None = None
        self._title_mark = _title_mark(backend)
        self._specials = {
            token.content: token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special and len(token.content) >= _SPECIAL_IN_TEXT_MIN
        }

    @property
    def marks_titles(self) -> bool:
        """Whether a mark stands between a text's title and what is below it."""
        return self._title_mark is not None

    @property
    def cls_token_id(self) -> int:
        """The one special token before a text."""
        (token_id,) = self.special_ids.before
        return token_id

    @property
    def sep_token_id(self) -> int:
        """The one special token after a text."""
        (token_id,) = self.special_ids.after
        return token_id

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        cls_token_id: int | None = None,
        sep_token_id: int | None = None,
        special: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        lower_case: bool = False,
    ) -> Tokenizer:
        """The tokenizer of a `tokenizer.json`; with `lower_case`, texts are lower-cased first.

        Raises:
            CheckpointError: the file is missing or is not a tokenizer, has no such CLS or SEP, or
                its template is wrong.

        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CheckpointError(
                f"{path}: no such file; a model folder needs a tokenizer.json "
                "(save it from a fast Hugging Face tokenizer)"
            ) from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); fetch it again") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except BaseException as error:  # the backend's own panics are not Exceptions
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise CheckpointError(
                f"{path}: not a tokenizer.json that can be read ({error}); fetch or save it again"
            ) from None
        if lower_case:
            parts = [tokenizers.normalizers.Lowercase()]
            parts += [backend.normalizer] if backend.normalizer is not None else []
            backend.normalizer = tokenizers.normalizers.Sequence(parts)
        try:
            return cls(
                backend, cls_token_id=cls_token_id, sep_token_id=sep_token_id, special=special,
                path=path,
            )  # fmt: skip
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None

    def refuse_ids_from(self, num_rows: int) -> None:
        """Refuse a vocabulary with ids that a table of `num_rows` embeddings does not hold.

        Raises:
            CheckpointError: naming the first such token.

        """
        self._num_rows = num_rows
        added = {i: token.content for i, token in self._backend.get_added_tokens_decoder().items()}
        vocabulary = self._backend.get_vocab_size(with_added_tokens=False)
        if max((*added, vocabulary - 1)) < num_rows:
            return
        ids = {i: token for token, i in self._backend.get_vocab().items()} | added
        if beyond := [i for i in ids if i >= num_rows]:
            raise self._beyond(min(beyond))

    def _beyond(self, token_id: int) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: token {self._backend.id_to_token(token_id)!r} has id {token_id}, the "
            f"model's embedding table {self._num_rows} rows; resize the table to the tokenizer "
            "(model.resize_token_embeddings), or use the tokenizer that belongs to the weights"
        )

    def prompt_length(self, prompt: str, named: Collection[str], limit: int) -> int:
        """Ids that Sentence Transformers takes for the prompt's, where it pools without them.

        It reads the prompt alone, special tokens around it, and leaves out the last id if it is
        one of the `named` special tokens. Where words join, these are not the joined text's ids.
        """
        before, after = self.special_ids
        own = self.encode([""], prompt=prompt)[0].prompt_ids.tolist()
        ids = [*before, *own[: max(limit - len(before) - len(after), 0)], *after]
        ends_special = bool(ids) and self._backend.id_to_token(ids[-1]) in named
        return len(ids) - ends_special

    def encode_titles(self, titles: Sequence[str], most: int) -> list[TitleIds]:
        """The ids of each title as a text under it begins, at most `most`; none for a blank one.

        A title is read as one line. Of one that is too long, what ends a title is kept.
        """
        lines = [" ".join(title.split()) for title in titles]
        line, whole = self.encode(["a", "a\n\n"])
        end = whole.ids[len(line) :]
        room = max(most - len(end), 0)
        return [
            TitleIds(np.concatenate((own.ids[:room], end if len(own) and room else end[:0])),
                     is_cut=len(own) > room)
            for own in self.encode(lines)
        ]  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the backend to `path` as a `tokenizer.json` without truncation or padding."""
        copy = tokenizers.Tokenizer.from_str(self._backend.to_str())
        if self._post_processor is not None:
            copy.post_processor = self._post_processor
        path.write_text(copy.to_str(pretty=True), encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """The number of ids, with added tokens."""
        return self._backend.get_vocab_size()

    def token(self, token_id: int) -> str:
        """The token of an id as the vocabulary spells it; empty for an id that it does not have."""
        return self._backend.id_to_token(token_id) or ""

    def encode(self, texts: Sequence[str], *, prompt: str = "") -> list[Tokens]:
        """The tokens of each text, without CLS and SEP, in the texts' order.

        The prompt and the text are tokenized as one string, as Sentence Transformers does. Tokens
        wholly inside the prompt become `prompt_ids`; one that straddles the two is the text's.
        A lone surrogate is read as U+FFFD. A blank text has no tokens of its own. Words are cut
        after 131,072 characters.

        Raises:
            TypeError: `texts` is itself a string, or an element is not a string.
            CheckpointError: a token has an id past the model's embedding table.

        """
        joined = [self._join(text, prompt) for text in _checked(texts)]
        cuts = [_cuts(text) for text in joined]
        pieces = self._pieces(zip(joined, cuts, strict=True), num_prompt_chars=len(prompt))
        found = [
            _assemble(list(itertools.islice(pieces, len(starts))), starts, text, len(prompt))
            for text, starts in zip(joined, cuts, strict=True)
        ]
        if self._num_rows is not None:  # ids of a vocabulary with gaps are seen only here
            for tokens in found:
                highest = int(max(tokens.ids.max(initial=0), tokens.prompt_ids.max(initial=0)))
                if highest >= self._num_rows:
                    raise self._beyond(highest)
        return found

    @staticmethod
    def _join(text: str, prompt: str) -> str:
        """Prompt and text as one string that the backend can take."""
        return without_surrogates(prompt if not text or text.isspace() else prompt + text)

    def _pieces(
        self, texts: Iterable[tuple[str, list[int]]], *, num_prompt_chars: int
    ) -> Iterator[_Piece]:
        """The tokens of every segment of every text, in order."""
        segments = (
            (text[start:stop], start)
            for text, starts in texts
            for start, stop in itertools.pairwise([*starts, len(text)])
        )
        for group in _grouped(segments):
            encodings = self._encodings([segment for segment, _ in group])
            for (segment, start), encoding in zip(group, encodings, strict=True):
                piece = _to_arrays(encoding)
                if self._title_mark is not None:
                    title = title_break(segment) if start == 0 else (0, 0)
                    piece = _marked_once(piece, segment, self._title_mark, title)
                num_prompt = max(num_prompt_chars - start, 0)
                yield self._without_specials(piece, segment, num_prompt)

    def _encodings(self, segments: list[str]) -> list[tokenizers.Encoding]:
        """What the backend makes of segments."""
        try:
            return self._backend.encode_batch(segments, add_special_tokens=False)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # the backend's own, and no Exception
                raise
            raise CheckpointError(
                f"{self.path}: the tokenizer fails ({error}); fetch or save it again"
            ) from None

    def _without_specials(self, piece: _Piece, text: str, num_prompt_chars: int) -> _Piece:
        """The piece, with ordinary tokens where the text itself spells out a special one."""
        spelled = {content: i for content, i in self._specials.items() if content in text}
        if not spelled:
            return piece
        suspects = np.isin(piece.ids, list(spelled.values()))
        suspects &= piece.offsets[:, 1] > num_prompt_chars
        parts: list[_Piece] = []
        ordinary: dict[str, _Piece] = {}
        done = 0
        for row in np.flatnonzero(suspects).tolist():
            start, end = piece.offsets[row].tolist()
            found = text[start:end]
            # [UNK] also stands for a word that the model does not know.
            if not any(content in found for content in spelled):
                continue
            if found not in ordinary:
                ordinary[found] = self._ordinary(found)
            parts.append(_Piece(piece.ids[done:row], piece.offsets[done:row]))
            parts.append(_Piece(ordinary[found].ids, ordinary[found].offsets + start))
            done = row + 1
        parts.append(_Piece(piece.ids[done:], piece.offsets[done:]))
        return _concatenate(parts)

    def _ordinary(self, text: str) -> _Piece:
        """Tokens of a short text, none of them special.

        Its first character is tokenized apart from the rest: a string cut in two is not that
        special token any more.
        """
        parts = []
        for at, part in enumerate((text[:1], text[1:])):
            if any(content in part for content in self._specials):
                found = self._ordinary(part)
            else:
                found = _to_arrays(self._backend.encode(part, add_special_tokens=False))
            parts.append(_Piece(found.ids, found.offsets + at))
        return _concatenate(parts)


def _refuse_unknown(backend: tokenizers.Tokenizer, name: str, token_id: int) -> None:
    """Refuse a special token that the vocabulary does not hold."""
    if backend.id_to_token(token_id) is None:
        raise CheckpointError(
            f"{name} {token_id} is not in the tokenizer's vocabulary of "
            f"{backend.get_vocab_size()} tokens; the model's files do not belong together"
        )


def lossless_word_pieces(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy of a WordPiece tokenizer that cuts a word too long for its model instead of losing it.

    BERT's model makes one `[UNK]` of a word of more than 100 characters (a URL, a line of base64).
    The copy splits such words every 100 characters first; all other words keep their ids. Other
    kinds of tokenizer are copied unchanged.
    """
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    if isinstance(copy.model, tokenizers.models.WordPiece):
        cut = tokenizers.pre_tokenizers.FixedLength(copy.model.max_input_chars_per_word)
        first = [copy.pre_tokenizer] if copy.pre_tokenizer is not None else []
        copy.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*first, cut])
    return copy


_MARKED = rf"\A{TITLE_LINE}\K{TITLE_BREAK}"
"""What the backend replaces; `\\K` leaves the title out. Later segments begin with space."""


def marking_titles(backend: tokenizers.Tokenizer, mark: str) -> tokenizers.Tokenizer:
    """A copy that reads `mark` between a text's title and what is below it.

    WordPiece tokenizers drop line breaks, so a model cannot know a title from the words after it.
    A text has a title where a blank line follows its first line, of at most 200 characters.

    Raises:
        CheckpointError: the mark is not one token of the vocabulary.

    """
    if backend.token_to_id(mark) is None:
        raise CheckpointError(
            f"title_mark {mark!r} is no token of the vocabulary; take a character that is one and "
            "that texts hardly hold, such as '¶'"
        )
    settings = json.loads(backend.to_str())
    marks = {"type": "Replace", "pattern": {"Regex": _MARKED}, "content": f" {mark} "}
    own = settings["normalizer"] or {"type": "Sequence", "normalizers": []}
    parts = own["normalizers"] if own["type"] == "Sequence" else [own]
    unmarked = [part for part in parts if part.get("pattern") != marks["pattern"]]
    settings["normalizer"] = {"type": "Sequence", "normalizers": [marks, *unmarked]}
    return tokenizers.Tokenizer.from_str(json.dumps(settings))


def _title_mark(backend: tokenizers.Tokenizer) -> int | None:
    """The id of the mark of a tokenizer that came from `marking_titles`."""
    if not isinstance(backend.normalizer, tokenizers.normalizers.Sequence):
        return None
    parts = json.loads(backend.normalizer.__getstate__())["normalizers"]
    marks = [part["content"] for part in parts if part.get("pattern") == {"Regex": _MARKED}]
    return backend.token_to_id(marks[0].strip()) if marks else None


def _checked(texts: Sequence[str]) -> Sequence[str]:
    """The texts, if each of them is a string."""
    if isinstance(texts, str):
        raise TypeError("texts is a single string; pass a list of strings, such as [text]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"texts[{position}] is {type(text).__name__}, not str; decode or convert it first"
            )
    return texts


def _cuts(text: str) -> list[int]:
    """Where the segments of a text start: before white space if there is any near."""
    cuts = [0]
    while len(text) - cuts[-1] > 2 * SEGMENT_CHARS:
        near, far = cuts[-1] + SEGMENT_CHARS, cuts[-1] + 2 * SEGMENT_CHARS
        safe = _SAFE_CUT.search(text, near, far)
        cuts.append(safe.start() if safe else far)
    return cuts


def _grouped(segments: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Segments in groups of up to `GROUP_CHARS` characters."""
    group: list[tuple[str, int]] = []
    num_chars = 0
    for segment in segments:
        if group and num_chars + len(segment[0]) > GROUP_CHARS:
            yield group
            group, num_chars = [], 0
        group.append(segment)
        num_chars += len(segment[0])
    if group:
        yield group


def _to_arrays(encoding: tokenizers.Encoding) -> _Piece:
    """The backend's lists as arrays; offsets are made to never decrease."""
    num_tokens = len(encoding)
    flat = itertools.chain.from_iterable(encoding.offsets)
    offsets = np.fromiter(flat, np.int64, count=2 * num_tokens).reshape(num_tokens, 2)
    return _Piece(np.array(encoding.ids, np.int64), np.maximum.accumulate(offsets, axis=0))


def _marked_once(piece: _Piece, text: str, mark: int, title: tuple[int, int]) -> _Piece:
    """The piece with the mark below the text's `title`, if that is not blank, and nowhere else.

    The backend also takes what follows a special token, or the cut of a long word, for a beginning.
    The mark stands for the title's last character: so it belongs to what the title belongs to, and
    no range of characters holds it alone.
    """
    start, end = title
    last = len(text[:start].rstrip())
    rows = [
        row
        for row in np.flatnonzero(piece.ids == mark).tolist()
        if not text[piece.offsets[row, 0] : piece.offsets[row, 1]].strip()  # else it is the text's
    ]
    if not rows and not last:
        return piece
    if len(rows) != 1 or not last or not last <= piece.offsets[rows[0], 0] < end:
        ids, offsets = np.delete(piece.ids, rows), np.delete(piece.offsets, rows, axis=0)
        if not last:
            return _Piece(ids, offsets)
        rows = [int(np.searchsorted(offsets[:, 0], start))]
        piece = _Piece(np.insert(ids, rows[0], mark), np.insert(offsets, rows[0], start, axis=0))
    piece.offsets[rows[0]] = last - 1, last
    return piece


def _concatenate(parts: Sequence[_Piece]) -> _Piece:
    """Pieces one after another."""
    if len(parts) == 1:
        return parts[0]
    return _Piece(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.offsets for part in parts]),
    )


def _assemble(
    pieces: Sequence[_Piece], starts: Sequence[int], text: str, num_prompt_chars: int
) -> Tokens:
    """A text's pieces as its `Tokens`, the prompt's part taken off."""
    ids, offsets = _concatenate(
        [
            _Piece(piece.ids, piece.offsets + start)
            for piece, start in zip(pieces, starts, strict=True)
        ]
    )
    _adopt_dropped_characters(offsets, text)
    num_prompt = int(np.searchsorted(offsets[:, 1], num_prompt_chars, side="right"))
    return Tokens(
        ids=ids[num_prompt:],
        offsets=np.maximum(offsets[num_prompt:] - num_prompt_chars, 0),
        prompt_ids=ids[:num_prompt],
    )


def _adopt_dropped_characters(offsets: NDArray[np.int64], text: str) -> None:
    """Move token ends, in place, over characters after them that no token holds.

    They stop at the next token and at white space. Tokens that share an end move together.
    """
    ends = offsets[:, 1].copy()
    next_starts = np.append(offsets[1:, 0], len(text))
    gaps = np.flatnonzero(next_starts > ends)
    if not len(gaps):
        return
    is_space = white_space(code_points(text))
    gaps = gaps[~is_space[ends[gaps]]]
    for gap in gaps.tolist():
        start, stop = int(ends[gap]), int(next_starts[gap])
        spaces = np.flatnonzero(is_space[start:stop])
        end = start + int(spaces[0]) if len(spaces) else stop
        first = int(np.searchsorted(ends, start, side="left"))
        offsets[first : gap + 1, 1] = end
