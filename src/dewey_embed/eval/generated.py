"""Retrieval tasks that are made here, at any length: the same arguments make the same texts.

Each document hides one sentence, and each query asks for one of these: `passkey` and `needle` are
LongEmbed's tests, `position` compares places in the document.
Source of both tests: LongEmbed, arXiv 2404.12096 §3.2. Its facts are GPT-4's and its essays Paul
Graham's; here all texts are made up, to mteb's published counts, so that scores are near
LongEmbed's, not equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, get_args

import numpy as np

from dewey_embed.errors import ConfigError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.generated_texts import essay, facts, refrain
from dewey_embed.train.passkey import Secret, hide, pass_keys

SUITES = ("passkey", "needle", "position")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""LongEmbed's."""
POSITION_LENGTHS = (512, 2048, 8192, 32768)

NUM_QUERIES = 50
NUM_DRAWS = 256
"""Drawings of secrets, of which the one with questions nearest to the wanted length is kept."""

PASSKEY_CHARS_PER_TOKEN, PASSKEY_CHARS_LESS = 3.5526, 32
"""A document of L tokens has about 3.5526 · L − 32 characters in LongEmbed."""
PASSKEY_QUESTION_CHARS = 37.8
"""The mean over LongEmbed's eight lengths. Source of all three: mteb, LEMBPasskeyRetrieval."""

NEEDLE_CHARS = {
    256: 1013.1, 512: 2009.93, 1024: 4069.87, 2048: 8453.82, 4096: 17394.8, 8192: 35202.82,
    16384: 72054.8, 32768: 141769.8,
}  # fmt: skip
"""Mean characters of a document by length. Source: mteb, LEMBNeedleRetrieval."""
NEEDLE_QUESTION_CHARS = {
    256: 60.48, 512: 57.3, 1024: 58.28, 2048: 59.92, 4096: 55.86, 8192: 59.6, 16384: 59.12,
    32768: 58.34,
}  # fmt: skip
"""Mean characters of a question by length. Source: mteb, LEMBNeedleRetrieval."""

Place = Literal["early", "middle", "late"]
PLACES: tuple[Place, ...] = get_args(Place)
DEPTHS: dict[Place, tuple[float, float]] = {
    "early": (0.0, 0.1), "middle": (0.45, 0.55), "late": (0.9, 1.0),
}  # fmt: skip
"""The part of a document in which its fact stands."""


def suite(name: str) -> list[RetrievalData]:
    """The tasks of a suite at its standard lengths, shortest first.

    Raises:
        ConfigError: the name is not one of `SUITES`.

    """
    if name == "passkey":
        return [passkey(length) for length in LENGTHS]
    if name == "needle":
        return [needle(length) for length in LENGTHS]
    if name == "position":
        return [position(length, place) for length in POSITION_LENGTHS for place in PLACES]
    raise ConfigError(f"no suite {name!r} can be generated; accepted: {', '.join(SUITES)}")


def passkey(
    length: int, *, num: int = NUM_QUERIES, num_documents: int | None = None, seed: int = 0
) -> RetrievalData:
    """A task of `num` questions, each for the pass key of one person among twice as many.

    `length` is in LongEmbed's tokens, 0.75 words each: 131,072 of them are about 123,000 tokens
    of a WordPiece tokenizer. Every document is the same refrain with one pass key at a random
    place. `num_documents` is 2 · `num` unless given. Keys, questions and depths are the same at
    every length, so that lengths can be compared.

    Raises:
        ConfigError: a length too short for a key, `num` below 1, more people than names.

    """
    num_documents = _count_documents(length, num, num_documents)
    rng = Random(f"passkey {num} {num_documents} {seed}")
    keys = _draw(pass_keys, num, num_documents, PASSKEY_QUESTION_CHARS, rng)
    return _hide_all(
        f"passkey-{length}",
        keys,
        num,
        length=length,
        num_chars=round(PASSKEY_CHARS_PER_TOKEN * length - PASSKEY_CHARS_LESS),
        filler=refrain,
        depths=[rng.random() for _ in keys],
        rng=rng,
    )


def needle(
    length: int, *, num: int = NUM_QUERIES, num_documents: int | None = None, seed: int = 0
) -> RetrievalData:
    """A task of `num` questions, each for one fact among twice as many, hidden in an essay.

    `length` is in LongEmbed's tokens, as in `passkey`. Every document is the same essay with one
    fact between two of its sentences; `num_documents` is 2 · `num` unless given.

    Raises:
        ConfigError: a length too short for a fact, `num` below 1, more facts than there are.

    """
    return _facts_task(
        "needle", length, depths=(0.0, 1.0), num=num, num_documents=num_documents, seed=seed
    )


def position(
    length: int,
    place: Place,
    *,
    num: int = NUM_QUERIES,
    num_documents: int | None = None,
    seed: int = 0,
) -> RetrievalData:
    """A task as `needle`'s whose facts all stand in the first, middle or last tenth.

    At one length and seed the queries, the facts and the essay are the same for every place, so
    that scores differ by the place of the answer alone.
    Source: the comparison by position of "Collapse of Dense Retrievers" (arXiv 2503.05037) and
    "The Myopic Trap" (arXiv 2505.13950).

    Raises:
        ConfigError: as `needle`, or another place.

    """
    if place not in PLACES:
        raise ConfigError(f"place is {place!r}; accepted: {', '.join(PLACES)}")
    return _facts_task(
        "position", length, f"-{place}", depths=DEPTHS[place], num=num,
        num_documents=num_documents, seed=seed,
    )  # fmt: skip


def _facts_task(
    name: str,
    length: int,
    suffix: str = "",
    *,
    depths: tuple[float, float],
    num: int,
    num_documents: int | None,
    seed: int,
) -> RetrievalData:
    """Facts in an essay, each at a depth drawn between the two."""
    num_documents = _count_documents(length, num, num_documents)
    rng = Random(f"{name} {length} {num} {num_documents} {seed}")
    drawn = _draw(facts, num, num_documents, _question_chars(length), rng)
    first, last = depths
    return _hide_all(
        f"{name}-{length}{suffix}",
        drawn,
        num,
        length=length,
        num_chars=_essay_chars(length),
        filler=essay,
        depths=[first + (last - first) * rng.random() for _ in drawn],
        rng=rng,
    )


def _essay_chars(length: int) -> int:
    """Characters of a document of a length: LongEmbed's, and in proportion between and beyond."""
    longest = max(NEEDLE_CHARS)
    if length > longest:
        return round(NEEDLE_CHARS[longest] / longest * length)
    return round(float(np.interp(length, [0, *NEEDLE_CHARS], [0.0, *NEEDLE_CHARS.values()])))


def _question_chars(length: int) -> float:
    """Mean characters of a question: LongEmbed's at its lengths, elsewhere their mean."""
    lengths = NEEDLE_QUESTION_CHARS
    return lengths.get(length, sum(lengths.values()) / len(lengths))


def _count_documents(length: int, num: int, num_documents: int | None) -> int:
    """The number of documents: unless given, twice that of queries, as in LongEmbed."""
    if length < 1 or num < 1:
        raise ConfigError(f"length is {length} and num {num}; both must be 1 or more")
    if num_documents is None:
        return 2 * num
    if num_documents < num:
        raise ConfigError(f"num_documents is {num_documents}, fewer than the {num} queries")
    return num_documents


def _draw(
    make: Callable[[int, Random], list[Secret]],
    num: int,
    num_documents: int,
    question_chars: float,
    rng: Random,
) -> list[Secret]:
    """Secrets for all documents, of which the first `num` are asked for.

    Of many drawings it is the one whose questions have a mean length nearest to `question_chars`.
    """

    def distance(secrets: list[Secret]) -> float:
        return abs(sum(len(one.question) for one in secrets[:num]) / num - question_chars)

    return min((make(num_documents, rng) for _ in range(NUM_DRAWS)), key=distance)


def _hide_all(
    name: str,
    secrets: Sequence[Secret],
    num: int,
    *,
    length: int,
    num_chars: int,
    filler: Callable[[int], str],
    depths: Sequence[float],
    rng: Random,
) -> RetrievalData:
    """The task in which each secret lies at its depth (0 to 1) of a document of its own.

    Documents have a mean length of `num_chars` and differ only in the secret and its place. The
    first `num` secrets are asked for; documents are in random order.
    """
    longest = max(len(one.sentence) for one in secrets)
    if num_chars <= longest:
        raise ConfigError(
            f"length {length} is too short: documents of {max(num_chars, 0)} characters cannot "
            f"hold a sentence of {longest}; give a greater length"
        )
    mean_chars = sum(len(one.sentence) + 1 for one in secrets) / len(secrets)
    text = filler(round(num_chars - mean_chars))
    ids = [f"document-{number}" for number in range(len(secrets))]
    rng.shuffle(ids)
    texts = {
        document: hide(one.sentence, text, depth)[0]
        for document, one, depth in zip(ids, secrets, depths, strict=True)
    }
    return RetrievalData(
        name=name,
        documents=dict(sorted(texts.items())),
        queries={f"query-{number}": one.question for number, one in enumerate(secrets[:num])},
        qrels={f"query-{number}": {ids[number]: 1} for number in range(num)},
    )
