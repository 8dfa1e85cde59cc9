"""The kinds of single vector: how a document's one vector is made of its CLS and its mean.

A kind may make several vectors of a document beside the one. They are `DocumentVectors.vectors`, by
which `similarity` compares; all that keeps one vector a text (`encode`, indexes, servers, Sentence
Transformers) has the one.

To add one, add a row to `SINGLE_VECTORS`: checks, folders and messages follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from dewey_embed.topics import topic_vectors
from dewey_embed.types import Floats, PooledOver

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SingleVectorKind:
    """One kind of single vector, here and in Sentence Transformers.

    `combine` makes it of unit CLS vectors and unit means, both (B, D). A saved folder names the
    pooling `mode` of Sentence Transformers, which gives the same vectors where the model's
    `pooled_over` is among `same_over`; elsewhere `difference` says how its vectors differ.
    `several` makes a document's several vectors (V, D) of those of its stretches (P, D), in order,
    and of its one (D,); all are unit. `window` is the most tokens that are read at once unless one
    says otherwise; the default is all that the model takes. `reads_cls` is false where the CLS
    vector does not count.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    mode: str
    same_over: tuple[PooledOver, ...]
    difference: str
    several: Callable[[Floats, Floats], Floats] | None = None
    window: int | None = None
    reads_cls: bool = True

    def difference_of(self, pooled_over: PooledOver) -> str | None:
        """How Sentence Transformers' vectors differ for a model pooled so; None if they do not."""
        return None if pooled_over in self.same_over else self.difference


def _unit_sum(cls: Tensor, mean: Tensor) -> Tensor:
    total = cls + mean
    unit: Tensor = total / total.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return unit


SINGLE_VECTORS = {
    "cls": SingleVectorKind(
        combine=lambda cls, mean: cls,
        mode="cls",
        same_over=("text", "all", "after_prompt"),
        difference="",
    ),
    "mean": SingleVectorKind(
        combine=lambda cls, mean: mean,
        reads_cls=False,
        mode="mean",
        same_over=("all", "after_prompt"),
        difference=(
            "Sentence Transformers' mean also counts CLS and SEP, which Dewey's leaves out, so its "
            "vectors differ from Dewey's: slightly for long texts, much for a few words."
        ),
    ),
    "cls_add_mean": SingleVectorKind(
        combine=_unit_sum,
        mode="mean",
        same_over=(),
        difference=(
            "Sentence Transformers has no sum of CLS and mean: it gives the mean "
            "(which there counts CLS and SEP too), so its vectors differ from Dewey's."
        ),
    ),
    "topics": SingleVectorKind(
        combine=lambda cls, mean: mean,
        reads_cls=False,
        mode="mean",
        same_over=(),
        difference=(
            "Sentence Transformers has no vectors of topics: it gives the mean "
            "(which there counts CLS and SEP too), so its vectors differ from Dewey's."
        ),
        several=topic_vectors,
        # In one pass over 131,072 tokens stretches become too much alike (docs/log.md).
        window=8192,
    ),
}
"""Source: arXiv 2503.20376 §2 and the released config's `single_vector_type`; `cls_add_mean` is
read as the sum of the two unit vectors, for the paper gives no formula."""


def _known(name: str) -> str:
    if name not in SINGLE_VECTORS:
        *others, last = map(repr, SINGLE_VECTORS)
        raise ValueError(f"must be {', '.join(others)} or {last}")
    return name


SingleVector = Annotated[str, AfterValidator(_known)]
"""The name of a kind of single vector, checked wherever settings are read."""
