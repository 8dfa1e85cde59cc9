"""Ways to store a corpus's vectors: which are tried, what each was found to be, which are best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.errors import ConfigError
from dewey_embed.eval.audits.cuts import Cut
from dewey_embed.types import Precision

WIDTHS = (1024, 512, 256, 128, 64)

Kind = Literal["single", "clustered", "multi"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is tried; all of it at the first overlap, the other overlaps at full precision only.

    `dims` None is the model's own width and every power of two from 1,024 to 64 below it.
    `clusters` are vectors a document, made from the chunks of `base`.

    Raises:
        ConfigError: nothing to try, an unknown precision, or fewer than one cluster.

    """

    chunk_tokens: tuple[int, ...] = (64, 128, 256, 512, 1024)
    overlaps: tuple[float, ...] = (0.25, 0.0, 0.5)
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8", "binary")
    dims: tuple[int, ...] | None = None
    clusters: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        for name in ("chunk_tokens", "overlaps", "precisions"):
            if not getattr(self, name):
                raise ConfigError(f"{name} names nothing to try; give at least one")
        unknown = set(self.precisions) - set(get_args(Precision))
        if unknown:
            raise ConfigError(
                f"precision {', '.join(sorted(unknown))} is unknown; "
                f"accepted: {', '.join(get_args(Precision))}"
            )
        if min(self.clusters, default=1) < 1:
            raise ConfigError(f"clusters are {list(self.clusters)}; need at least 1 a document")

    @property
    def base(self) -> Cut:
        """The cut that `dewey search` makes, or that of the smallest chunks; clusters are of it."""
        usual = CHUNK_TOKENS in self.chunk_tokens
        return Cut(CHUNK_TOKENS if usual else min(self.chunk_tokens), self.overlaps[0])

    def cuts(self) -> list[Cut]:
        """Every size with every overlap, those of the first overlap first."""
        return [Cut(size, overlap) for overlap in self.overlaps for size in self.chunk_tokens]

    def widths(self, embedding_dim: int) -> tuple[int, ...]:
        """The widths to try of vectors of a width.

        Raises:
            ConfigError: one of them is below 1 or wider than the vectors.

        """
        own = (embedding_dim, *(dim for dim in WIDTHS if dim < embedding_dim))
        dims = own if self.dims is None else self.dims
        wrong = [dim for dim in dims if not 0 < dim <= embedding_dim]
        if wrong or not dims:
            raise ConfigError(
                f"dims are {list(dims)}; the model's vectors have {embedding_dim} dimensions"
            )
        return dims


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to store a corpus: one vector a document, or some clusters' beside it, or chunks'."""

    kind: Kind
    cut: Cut | None = None
    clusters: int | None = None
    precision: Precision
    dim: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """What a way takes and finds: `scores` are nDCG@10 by query, `seconds` one query's search."""

    way: Way
    scores: NDArray[np.float64]
    recall: float
    num_vectors: int
    num_bytes: int
    seconds: float

    @property
    def ndcg(self) -> float:
        """The mean nDCG@10."""
        return float(self.scores.mean())


def ways(choices: Choices, widths: Sequence[int]) -> list[Way]:
    """What is measured, in order: widths, within them precisions, within them kinds."""
    found = []
    for dim in widths:
        for precision in choices.precisions:
            make = partial(Way, precision=precision, dim=dim)
            found.append(make(kind="single"))
            found += [
                make(kind="clustered", clusters=num, cut=choices.base)
                for num in sorted(choices.clusters)
            ]
            full = precision == choices.precisions[0] and dim == widths[0]
            found += [
                make(kind="multi", cut=cut)
                for cut in choices.cuts()
                if full or cut.overlap == choices.overlaps[0]
            ]
    return found


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points for which no other finds as much with fewer bytes, or more with as many.

    Fewest bytes first; of equal ones all are there.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.num_bytes, -each.ndcg)):
        last = front[-1] if front else None
        alike = last and (last.num_bytes, last.ndcg) == (point.num_bytes, point.ndcg)
        if last is None or alike or point.ndcg > last.ndcg:
            front.append(point)
    return front


def name_of(way: Way) -> str:
    """What a way is called beside its point."""
    if way.cut is None:
        what = "1 vector"
    elif way.clusters is not None:
        what = f"{way.clusters} cluster{'s' * (way.clusters > 1)}"
    else:
        what = f"chunks {way.cut.chunk_tokens}"
        if way.cut.overlap_tokens != way.cut.chunk_tokens // 4:
            what += f"/{way.cut.overlap_tokens}"
    return f"{what}, {way.precision}, {way.dim}"
