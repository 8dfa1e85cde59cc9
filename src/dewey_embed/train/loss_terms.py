"""The terms of the loss, as a table: what each compares, its formula, its weight unless set.

A new term is a function of a `Batch` and one row of `LOSS_TERMS`: recipes, the loss, the log and
TensorBoard read the table. Every term is a mean, so that a weight has the same meaning at any
batch size. Source: arXiv 2503.20376 §3, which adds two losses and names no weights.

Shape suffixes: N vectors of one kind (CLS or chunks) of a whole batch, D their width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Batch(NamedTuple):
    """Vectors of the student and their targets: float32, unit length, of all processes.

    `chunks` (C, D), `cls` (B, D), and `segments` (P, D), which are segments of chunks; P may be 0.
    """

    chunks: Tensor
    chunk_targets: Tensor
    cls: Tensor
    cls_targets: Tensor
    segments: Tensor
    segment_targets: Tensor


class LossTerm(NamedTuple):
    """A term: its formula, whether it aligns chunks or documents, and its weight unless set."""

    of: Callable[[Batch], Tensor]
    aligns: Literal["chunks", "documents"]
    weight: float = 1.0


def cosine_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean of 1 - s·t over the rows: 0 where all are aligned, 2 where all are opposite.

    Source: arXiv 2503.20376 §3, L_cosine = Σ (1 - s·t), here divided by the number of rows.
    """
    return (1 - (student_ND * teacher_ND).sum(-1)).mean()


def similarity_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean squared difference of all N² dot products among the student's and the teacher's rows.

    Source: arXiv 2503.20376 §3, L_similarity = MSE(S Sᵀ, T Tᵀ).
    """
    from torch.nn.functional import mse_loss

    return mse_loss(student_ND @ student_ND.T, teacher_ND @ teacher_ND.T)


def _segments(batch: Batch) -> Tensor:
    """The cosine loss of segments; ours.

    A teacher that pools by mean has, for a chunk, the mean of its vectors of the chunk's segments.
    A student that learns those has twenty times as many targets a text (docs/log.md).
    """
    if not len(batch.segments):
        return batch.chunks.new_zeros(())
    return cosine_loss(batch.segments, batch.segment_targets)


LOSS_TERMS = {
    "cosine_chunks": LossTerm(lambda b: cosine_loss(b.chunks, b.chunk_targets), "chunks"),
    "cosine_cls": LossTerm(lambda b: cosine_loss(b.cls, b.cls_targets), "documents"),
    "similarity_chunks": LossTerm(lambda b: similarity_loss(b.chunks, b.chunk_targets), "chunks"),
    "similarity_cls": LossTerm(lambda b: similarity_loss(b.cls, b.cls_targets), "documents"),
    "cosine_parts": LossTerm(_segments, "chunks", weight=0.0),
}
"""Every term, by its key in the `[loss]` section of a recipe."""
