"""Position bias: the same facts early, in the middle and late in the same documents."""

from __future__ import annotations

from random import Random
from typing import Literal, get_args

from dewey_embed.errors import ConfigError
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.generated.facts import facts
from dewey_embed.eval.generated.hidden import check_sizes, draw, hide_all
from dewey_embed.eval.generated.needle import NUM_QUERIES, essay_chars, question_chars
from dewey_embed.eval.generated.prose import essay

Place = Literal["early", "middle", "late"]
PLACES: tuple[Place, ...] = get_args(Place)
DEPTHS: dict[Place, tuple[float, float]] = {
    "early": (0.0, 0.1), "middle": (0.45, 0.55), "late": (0.9, 1.0),
}  # fmt: skip
"""The part of a document in which its fact stands."""


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
    that what differs between their scores is where the answer stands.
    Source: the comparison by position of "Collapse of Dense Retrievers" (arXiv 2503.05037) and
    "The Myopic Trap" (arXiv 2505.13950); the texts are made here.

    Raises:
        ConfigError: as `needle`, or another place.

    """
    if place not in PLACES:
        raise ConfigError(f"place is {place!r}; accepted: {', '.join(PLACES)}")
    num_documents = check_sizes(length, num, num_documents)
    rng = Random(f"position {length} {num} {num_documents} {seed}")
    found = draw(facts, num, num_documents, question_chars(length), rng)
    first, last = DEPTHS[place]
    return hide_all(
        f"position-{length}-{place}",
        found,
        num,
        length=length,
        num_chars=essay_chars(length),
        filler=essay,
        depths=[first + (last - first) * rng.random() for _ in found],
        rng=rng,
    )
