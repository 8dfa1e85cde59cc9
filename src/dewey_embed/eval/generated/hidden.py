"""Secrets and filler → a task: one secret in each document, questions for some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from dewey_embed.errors import ConfigError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.train.keys import Secret, hide

DRAWS = 256
"""Drawings of secrets; the one is kept whose questions come nearest to the wanted length."""


def check_sizes(length: int, num: int, num_documents: int | None) -> int:
    """How many documents: twice as many as queries, as in LongEmbed, unless given.

    Raises:
        ConfigError: a number that is too small.

    """
    if length < 1 or num < 1:
        raise ConfigError(f"length is {length} and num {num}; both must be 1 or more")
    if num_documents is None:
        return 2 * num
    if num_documents < num:
        raise ConfigError(f"num_documents is {num_documents}, fewer than the {num} queries")
    return num_documents


def draw(
    make: Callable[[int, Random], list[Secret]],
    num: int,
    num_documents: int,
    question_chars: float,
    rng: Random,
) -> list[Secret]:
    """Secrets for all documents; the first `num` will be asked for.

    Their questions have a mean length near `question_chars`, as near as chance comes to it.
    """

    def distance(secrets: list[Secret]) -> float:
        return abs(sum(len(one.question) for one in secrets[:num]) / num - question_chars)

    return min((make(num_documents, rng) for _ in range(DRAWS)), key=distance)


def hide_all(
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

    Documents have a mean length of `num_chars` and differ in nothing but the secret and its
    place. The first `num` secrets are asked for; documents are in random order.

    Raises:
        ConfigError: `num_chars` leaves no room for a secret.

    """
    longest = max(len(one.sentence) for one in secrets)
    if num_chars <= longest:
        raise ConfigError(
            f"length {length} is too short: documents of {max(num_chars, 0)} characters cannot "
            f"hold a sentence of {longest}; give a greater length"
        )
    hidden = sum(len(one.sentence) + 1 for one in secrets) / len(secrets)
    text = filler(round(num_chars - hidden))
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
