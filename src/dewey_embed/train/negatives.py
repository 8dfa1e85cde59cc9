"""Questions with the passages that answer them → hard negatives: passages that only look alike.

Half of a question's negatives stand in the document that answers it, half in others, and each is as
near to the question as it may be: one that comes nearer than 95% of the answer's own cosine is
likely an answer that nobody marked, and is left out.
Source: NV-Retriever, arXiv 2407.15831 §3: TopK-PercPos.

`mine_hard_negatives` of Sentence Transformers chooses alike from vectors that a text alone
determines, and knows no documents; here a passage may have its vector from one pass over its
document. Without documents both choose the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, InputError
from dewey_embed.progress import progress_bar
from dewey_embed.types import CharSpans, Floats, Rows

MARGIN = 0.95
"""The most of its answer's cosine that a negative may have. Source: arXiv 2407.15831, table 5."""

NEGATIVES = 4

QUESTIONS_AT_ONCE = 256
DOCUMENTS_AT_ONCE = 16
LOOKED_AT = 32
"""So many times the wanted number of passages are sorted first: nearly always enough."""

Mask = NDArray[np.bool_]
LeftOut = dict[str, list[str]]


class Question(NamedTuple):
    """A question, where it stands in its source, and the numbers of the passages that answer it."""

    name: str
    text: str
    positives: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Passages, the number of each one's document, and questions that they answer.

    Where `documents` are known, `places` are the characters of each one's passages, in the order of
    `texts`; else passages are read alone. `left_out` names what is no part of it, by the reason.
    """

    texts: list[str]
    owners: Rows
    questions: list[Question]
    documents: list[str] = field(default_factory=list)
    places: list[CharSpans] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=dict)

    @cached_property
    def text_numbers(self) -> Rows:
        """A number for each passage, that of all passages of the same text."""
        numbers = {text: number for number, text in enumerate(dict.fromkeys(self.texts))}
        return np.array([numbers[text] for text in self.texts], np.int64)

    @cached_property
    def are_blank(self) -> Mask:
        """The passages that hold no word."""
        return np.array([not text.strip() for text in self.texts], np.bool_)

    @cached_property
    def spans(self) -> Rows | None:
        """(P, 2) the characters of each passage in its document, if that is known."""
        flat = [span for own in self.places for span in own]
        return np.array(flat, np.int64) if flat else None

    def answers(self, positives: Sequence[int]) -> Mask:
        """The passages that answer: marked ones, those of the same text, and what overlaps them."""
        chosen = list(positives)
        mask: Mask = np.isin(self.text_numbers, self.text_numbers[chosen])
        if (spans := self.spans) is not None:
            for one in chosen:
                shared = (spans[:, 0] < spans[one, 1]) & (spans[one, 0] < spans[:, 1])
                mask |= shared & (self.owners == self.owners[one])
        return mask


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Rows of an anchor, its positive and its negatives; what has none, by the reason.

    `num_questions` have rows; `num_too_near` passages were left out for being likely answers
    themselves.
    """

    rows: list[dict[str, Any]]
    num_questions: int
    left_out: LeftOut
    num_too_near: int


def mine(
    model: Dewey,
    pool: Pool,
    *,
    negatives: int = NEGATIVES,
    same_document: int | None = None,
    margin: float = MARGIN,
    window: int | None = None,
    scores: bool = False,
    progress: bool = False,
) -> Triplets:
    """A row for each question and passage that answers it, with their negatives.

    Its columns are `anchor`, `positive`, `negative_1` and so on. `same_document` of the
    `negatives`, by default half, come from the document of the positive; where it has too few,
    others stand in, and the reverse. With `scores` a row has its cosines: the positive's, then the
    negatives'.

    Raises:
        ConfigError: an impossible number or margin.
        InputError: no question is left, or none has enough negatives.

    """
    same = negatives // 2 if same_document is None else same_document
    if negatives < 1 or not 0 <= same <= negatives or not 0 < margin <= 1:
        raise ConfigError(
            f"{negatives} negatives, {same} of them from the same document, margin {margin:g}: "
            "need at least one, no more from the same document than in all, and a margin above 0 "
            "and up to 1"
        )
    left_out = {reason: list(names) for reason, names in pool.left_out.items()}
    questions = _usable(pool, left_out)
    if not questions:
        raise InputError(f"no question has a passage that answers it ({_counts(left_out)})")
    vectors = encode_passages(model, pool, window=window, progress=progress)
    asked = np.asarray(model.encode_query([each.text for each in questions], progress=progress))
    rows: list[dict[str, Any]] = []
    num_questions = num_too_near = 0
    few = f"with fewer than {negatives} passages below the margin"
    with progress_bar("mining", len(questions), "questions", show=progress) as advance:
        for question, cosines in zip(questions, _blocks(asked, vectors), strict=True):
            candidates = _Candidates(pool, question, cosines, margin)
            num_too_near += candidates.num_too_near
            own = [
                _row(pool, question, positive, chosen, cosines if scores else None)
                for positive in question.positives
                if len(chosen := candidates.choose(positive, negatives, same)) == negatives
            ]
            if len(own) < len(question.positives):
                left_out.setdefault(few, []).append(question.name)
            rows += own
            num_questions += bool(own)
            advance(1)
    if not rows:
        raise InputError(
            f"no question has enough negatives ({_counts(left_out)}; {num_too_near:,} passages are "
            "nearer than the margin); ask for fewer, or give a larger margin or more passages"
        )
    return Triplets(
        rows=rows, num_questions=num_questions, left_out=left_out, num_too_near=num_too_near
    )


def _counts(left_out: LeftOut) -> str:
    """How many are left out, by the reason."""
    return "; ".join(f"{len(names):,} {why}" for why, names in left_out.items()) or "none is there"


def encode_passages(
    model: Dewey, pool: Pool, *, window: int | None = None, progress: bool = False
) -> Floats:
    """(P, D) float32, unit length: passages in their documents' passes, or alone."""
    if not pool.documents:
        encoded = model.encode_document(
            pool.texts, chunk_tokens=model.max_tokens, chunk_overlap=0,
            window=window, progress=progress,
        )  # fmt: skip
        return np.stack([each.vector for each in encoded])
    parts = []
    with progress_bar("encoding", len(pool.documents), "documents", show=progress) as advance:
        for start in range(0, len(pool.documents), DOCUMENTS_AT_ONCE):
            some = slice(start, start + DOCUMENTS_AT_ONCE)
            encoded = model.encode_document(
                pool.documents[some], spans=pool.places[some], window=window
            )
            parts += [each.chunks for each in encoded]
            advance(len(encoded))
    return np.concatenate(parts)


def _usable(pool: Pool, left_out: LeftOut) -> list[Question]:
    """The questions with words and an answer with words; the others are named in `left_out`."""
    usable = []
    for question in pool.questions:
        positives = tuple(one for one in question.positives if not pool.are_blank[one])
        if not question.text.strip():
            left_out.setdefault("without a question", []).append(question.name)
        elif not positives:
            empty = "whose passage is empty" if question.positives else "without a passage"
            left_out.setdefault(empty, []).append(question.name)
        else:
            usable.append(question._replace(positives=positives))
    return usable


def _blocks(asked: Floats, vectors: Floats) -> Iterator[Floats]:
    """The cosines (P,) of each question with all passages."""
    for start in range(0, len(asked), QUESTIONS_AT_ONCE):
        yield from asked[start : start + QUESTIONS_AT_ONCE] @ vectors.T


class _Candidates:
    """The passages that may be negatives of a question: no answers, and not too near."""

    def __init__(self, pool: Pool, question: Question, cosines: Floats, margin: float) -> None:
        self._pool, self._cosines = pool, cosines
        nearest = float(cosines[list(question.positives)].min())
        others = ~pool.answers(question.positives) & ~pool.are_blank
        self._may = others & (cosines <= nearest - (1 - margin) * abs(nearest))
        self.num_too_near = int((others & ~self._may).sum())

    def choose(self, positive: int, number: int, same: int) -> list[int]:
        """The numbers of the negatives, nearest first."""
        is_own = self._pool.owners == self._pool.owners[positive]
        own = self._nearest(self._may & is_own, number)
        other = self._nearest(self._may & ~is_own, number)
        num_own = max(min(same, len(own)), number - len(other))
        chosen = own[:num_own]
        texts = self._pool.text_numbers
        taken = {int(texts[one]) for one in chosen}
        chosen += [one for one in other if int(texts[one]) not in taken][: number - len(chosen)]
        return sorted(chosen, key=lambda one: -self._cosines[one])

    def _nearest(self, mask: Mask, number: int) -> list[int]:
        """The nearest passages of a mask, none of the same text as another."""
        places = np.flatnonzero(mask)
        looked_at = number * LOOKED_AT
        if len(places) > looked_at:
            first = np.argpartition(-self._cosines[places], looked_at)[:looked_at]
            if len(found := self._distinct(places[np.sort(first)], number)) == number:
                return found
        return self._distinct(places, number)

    def _distinct(self, places: Rows, number: int) -> list[int]:
        """The nearest of some passages, one for each text."""
        order = places[np.argsort(-self._cosines[places], kind="stable")]
        _, firsts = np.unique(self._pool.text_numbers[order], return_index=True)
        return [int(one) for one in order[np.sort(firsts)[:number]]]


def _row(
    pool: Pool,
    question: Question,
    positive: int,
    negatives: Sequence[int],
    cosines: Floats | None,
) -> dict[str, Any]:
    """A row in the columns that Sentence Transformers' losses read."""
    row: dict[str, Any] = {"anchor": question.text, "positive": pool.texts[positive]}
    row |= {f"negative_{place}": pool.texts[one] for place, one in enumerate(negatives, 1)}
    if cosines is not None:
        row["scores"] = [round(float(cosines[one]), 6) for one in (positive, *negatives)]
    return row
