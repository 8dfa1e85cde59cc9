"""Words of a text as word search sees them, in any script: folded, stemmed, counted, numbered.

Case, accents and compatibility forms are folded away (NFKC, case folding). English words are
stemmed; other scripts that put spaces between words are taken word by word, and those that do not
(Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan), and Korean, whose words take endings, by
pairs of neighbouring characters. No word is left out for being frequent: rare words weigh more,
and those that only hold an English query together weigh less in it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # radicals, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af\ua960-\ua97f\ud7b0-\ud7ff"  # Hangul
)
_ASCII_WORD = re.compile(r"[0-9a-z]+")
_DROPPED = re.compile("[\u00ad\u0640\u200c\u200d\u2060\ufeff]")
"""Characters within a word that nobody types: soft hyphen, tatweel, joiners."""

_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
"""Marks that readers leave out: Latin, Greek and Cyrillic accents, Hebrew and Arabic vowels."""

_LETTERS = str.maketrans(
    {"æ": "ae", "ð": "d", "ø": "o", "þ": "th", "đ": "d", "ħ": "h", "ı": "i", "ł": "l", "œ": "oe"}
)
"""Letters that Unicode does not take apart, as they are typed where the keyboard lacks them."""

_FUNCTION_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
hers herself it its itself they them their theirs themselves what which who whom this that these
those am is are was were be been being have has had having do does did doing a an the and but if or
because as until while of at by for with about against between into through during before after
above below to from up down in out on off over under again further then once here there when where
why how all any both each few more most other some such no nor not only own same so than too very
s t can will just don should now
"""
FUNCTION_WORD_WEIGHT = 0.4
"""What these weigh in a query beside other words of the same rarity (docs/log.md): "his" and
"during" are rare in a small collection, and say nothing of what is looked for."""

MAX_STEMMED = 40
"""A longer run of letters is a code or a hash, not a word of English."""


def count_words(text: str) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Numbers (W,) of the distinct words of a text, ascending, and how often each stands in it.

    >>> numbers, counts = count_words("The tenants pay; a tenant paid.")
    >>> sorted(counts.tolist())
    [1, 1, 1, 1, 2]
    """
    return _numbered(_counted(text, singles=True))


def query_words(query: str) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Numbers (W,) of the distinct words of a query, ascending, and what each weighs in it.

    A query asks for pairs of characters where it has pairs. A word that is repeated asks for no
    more than one that is not.
    """
    words = _counted(query, singles=False)
    numbers, _ = _numbered(words)
    lesser = np.isin(numbers, _function_words())
    weights = np.where(lesser, np.float32(FUNCTION_WORD_WEIGHT), np.float32(1))
    return numbers, weights


def _numbered(words: Counter[str]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Words by number: the CRC-32 of their UTF-8, which two words hardly ever share."""
    encoded = [zlib.crc32(word.encode("utf-8", "replace")) for word in words]
    numbers, places = np.unique(np.array(encoded, np.uint32), return_inverse=True)
    counts = np.zeros(len(numbers), np.uint32)
    np.add.at(counts, places, np.fromiter(words.values(), np.uint32, len(words)))
    return numbers, counts


def _counted(text: str, *, singles: bool) -> Counter[str]:
    """Words and how often each stands in the text; with single characters of unspaced scripts."""
    folded = _folded(text)
    grams: Counter[str] = Counter()
    if folded.isascii():
        plain = Counter(_ASCII_WORD.findall(folded))
    else:
        word, unspaced = _patterns()
        plain = Counter(word.findall(folded))
        for run in unspaced.findall(folded):
            if singles or len(run) == 1:
                grams.update(run)
            grams.update(map("".join, pairwise(run)))
    stemmed: Counter[str] = Counter()
    for (_, count), stem in zip(plain.items(), _stems(list(plain)), strict=True):
        stemmed[stem] += count
    stemmed.update(grams)
    return stemmed


@lru_cache(maxsize=1)
def _function_words() -> NDArray[np.uint32]:
    """Numbers of the words that hold an English query together."""
    return _numbered(Counter(_stems(_FUNCTION_WORDS.split())))[0]


def _stems(words: list[str]) -> list[str]:
    """Words of English without their endings (Snowball's English stemmer); others as they are."""
    import Stemmer

    # One for each call: a stemmer must not be used by two threads.
    stems = iter(Stemmer.Stemmer("english").stemWords([w for w in words if _is_english(w)]))
    return [next(stems) if _is_english(word) else word for word in words]


def _is_english(word: str) -> bool:
    return word.isascii() and len(word) <= MAX_STEMMED


def _folded(text: str) -> str:
    """Text without case, accents and compatibility forms."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", _DROPPED.sub("", text)).casefold()
    text = _ACCENTS.sub("", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", text).translate(_LETTERS)


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a word between spaces, marks within it included, and of an unspaced run."""
    marks = "".join(
        chr(code)
        for code in range(0x300, min(sys.maxunicode, 0x20000))
        if unicodedata.category(chr(code)) in ("Mn", "Mc")
    )
    spaced = f"(?:(?![{_UNSPACED}])[^\\W_]|(?![{_UNSPACED}])[{marks}])+"
    return re.compile(spaced), re.compile(f"[{_UNSPACED}]+")


K1, B = 1.2, 0.75
"""Saturation and length normalisation of BM25. Source: Robertson and Zaragoza 2009."""

_NAMES = ("numbers", "starts", "rows", "counts", "lengths")

Integers = NDArray[Any]


class WordIndex:
    """N texts by their words; word i stands in `rows[starts[i] : starts[i + 1]]`.

    `lengths` (N,) are their numbers of words, repeated ones counted.
    """

    def __init__(self, folder: Path, name: str, mapped: Callable[[Path], NDArray[Any]]) -> None:
        self._numbers, self._starts, self._rows, self._counts, lengths = (
            mapped(folder / f"{name}_word_{part}.npy") for part in _NAMES
        )
        self.lengths = np.asarray(lengths)
        self.norms = length_norms(self.lengths)
        self._num = max(1, int((self.lengths > 0).sum()))

    def postings(self, query: str) -> tuple[list[Posting], float]:
        """The words of a query that stand in any text, and the weight of all of its words.

        A word weighs more the fewer texts hold it; one that stands in none weighs the most.
        """
        numbers, weights = query_words(query)
        found, total = [], 0.0
        for number, weight, place in zip(
            numbers, weights, np.searchsorted(self._numbers, numbers), strict=True
        ):
            held = slice(0, 0)
            if place < len(self._numbers) and self._numbers[place] == number:
                held = slice(int(self._starts[place]), int(self._starts[place + 1]))
            frequency = held.stop - held.start
            rarity = np.log1p((self._num - frequency + 0.5) / (frequency + 0.5))
            total += float(weight * rarity)
            if frequency:
                counts = self._counts[held].astype(np.float32)
                found.append(Posting(np.float32(weight * rarity), self._rows[held], counts))
        return found, max(total, 1e-12)

    def held(self, query: str, row: int) -> float:
        """The weights, added up, of the words of a query that a text holds."""
        postings, _ = self.postings(query)
        places = [(each, np.searchsorted(each.rows, row)) for each in postings]
        return sum(
            float(each.weight)
            for each, place in places
            if place < len(each.rows) and each.rows[place] == row
        )

    def scores(self, query: str) -> NDArray[np.float32]:
        """BM25 scores (N,) of all texts divided by the most there could be; 0 without a word."""
        scores = np.zeros(len(self.lengths), np.float32)
        postings, most = self.postings(query)
        for posting in postings:
            norms = self.norms[posting.rows]
            scores[posting.rows] += posting.weight * saturated(posting.counts, norms)
        return scores / np.float32(most)


class Posting(NamedTuple):
    """A word of a query: its weight, the rows (R,) of the texts that hold it, and how often."""

    weight: np.float32
    rows: NDArray[np.int32]
    counts: NDArray[np.float32]

    def spread(self, num: int) -> NDArray[np.float32]:
        """How often the word stands in each of `num` texts."""
        dense = np.zeros(num, np.float32)
        dense[self.rows] = self.counts
        return dense


def length_norms(lengths: NDArray[Any]) -> NDArray[np.float32]:
    """What BM25 adds to the counts (N,) of a word in texts of these lengths (N,)."""
    held = lengths[lengths > 0]
    mean = held.mean() if len(held) else 1.0
    norms: NDArray[np.float32] = (K1 * (1 - B + B * lengths / mean)).astype(np.float32)
    return norms


def saturated(counts: NDArray[np.float32], norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a word that stands in texts so often adds to their BM25 score, from 0 to 1."""
    return counts / (counts + norms)


Postings = tuple[Integers, Integers, Integers]
"""Rows of texts, numbers of words, and how often each word stands in the text (P,)."""


def write_word_index(folder: Path, name: str, num: int, postings: Postings) -> None:
    """Write the word index of `num` texts by their postings, in any order.

    Text `rows[i]` holds word `numbers[i]`, `counts[i]` times, all (P,); those of one word and text
    are added up.
    """
    rows, numbers, counts = postings
    order = np.lexsort((rows, numbers))
    rows, numbers, counts = rows[order].astype(np.int32), numbers[order], counts[order]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = (rows[1:] != rows[:-1]) | (numbers[1:] != numbers[:-1])
    firsts = np.flatnonzero(is_first)
    if len(firsts):
        counts = np.add.reduceat(counts.astype(np.int64), firsts)
        rows, numbers = rows[firsts], numbers[firsts]
    words, starts = np.unique(numbers, return_index=True)
    arrays: tuple[NDArray[Any], ...] = (
        words.astype(np.uint32),
        np.append(starts, len(numbers)).astype(np.int64),
        rows,
        counts.astype(np.uint32),
        np.bincount(rows, counts, minlength=num).astype(np.float32),
    )
    for part, array in zip(_NAMES, arrays, strict=True):
        np.save(folder / f"{name}_word_{part}.npy", array)


def word_signatures(num: int, postings: Postings) -> Integers:
    """A number (num,) uint64 for each text, the same for texts of the same words; 0 without words.

    The order of the words, their case, accents and endings do not matter, nor do marks.
    """
    rows, numbers, counts = postings
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    signatures = np.zeros(num, np.uint64)
    np.add.at(signatures, rows, mixed * counts.astype(np.uint64))
    return signatures
