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
    `questions` (Q, D) have no targets, but answers: `chunk_places` (C, 4) and `answer_places`
    (Q, 4) int64 say where chunks and answers stand: text, sample, first and last characters.
    """

    chunks: Tensor
    chunk_targets: Tensor
    cls: Tensor
    cls_targets: Tensor
    segments: Tensor
    segment_targets: Tensor
    questions: Tensor
    chunk_places: Tensor
    answer_places: Tensor


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


TEMPERATURE = 0.05
"""Divides the similarities of contrastive terms. Source: all-MiniLM-L6-v2 was trained so."""

TRUNCATED = (64, 128, 256)
"""First dimensions whose vectors are to be as alike as all dimensions' are."""


def contrastive_loss(
    questions_QD: Tensor, chunks_CD: Tensor, right_QC: Tensor, wrong_QC: Tensor
) -> Tensor:
    """Mean over all right pairs of -log(eˢ / (eˢ + Σ eʷ)), where w are the question's wrong chunks.

    s and w are dot products over `TEMPERATURE`. Other right chunks of a question are in no sum; 0
    where no question has both. Source: InfoNCE, arXiv 1807.03748 eq. 4.
    """
    from torch.nn.functional import softplus

    pairs_QC = right_QC & wrong_QC.any(1, keepdim=True)
    if not pairs_QC.any():
        return chunks_CD.new_zeros(())
    scores_QC = questions_QD @ chunks_CD.T / TEMPERATURE
    wrong_Q1 = scores_QC.masked_fill(~wrong_QC, float("-inf")).logsumexp(1, keepdim=True)
    return softplus((wrong_Q1 - scores_QC)[pairs_QC]).mean()


def answers(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Which chunks are a question's answer, in its sample but not, and in another text; (Q, C).

    A chunk is an answer where the answer's characters are half of it or more, or it is half of
    them; one that shares fewer characters, and one of the same text in another sample, is none of
    the three.
    """
    answer, chunk = batch.answer_places.unsqueeze(1), batch.chunk_places.unsqueeze(0)
    same = answer[..., 1] == chunk[..., 1]
    first, last = (
        answer[..., 2].maximum(chunk[..., 2]),
        answer[..., 3].minimum(chunk[..., 3]),
    )
    shared = same * (last - first).clamp(min=0)
    shorter = (answer[..., 3] - answer[..., 2]).minimum(chunk[..., 3] - chunk[..., 2])
    right = same & (2 * shared >= shorter) & (shared > 0)
    return right, same & (shared == 0), answer[..., 0] != chunk[..., 0]


def _in_sequence(batch: Batch) -> Tensor:
    """Questions against the other chunks of their documents.

    Source: InSeNT, arXiv 2505.24782 §4: L = λ L_in-sequence + (1 - λ) L_in-batch.
    """
    right, sequence, _ = answers(batch)
    return contrastive_loss(batch.questions, batch.chunks, right, sequence)


def _in_batch(batch: Batch) -> Tensor:
    """Questions against the chunks of other documents. Source: as `_in_sequence`."""
    right, _, others = answers(batch)
    return contrastive_loss(batch.questions, batch.chunks, right, others)


def spread_loss(vectors_ND: Tensor) -> Tensor:
    """Mean of (vᵢ·vⱼ)² over all pairs of different rows: 1 / D for directions without order.

    Source: arXiv 1708.06320 eq. 8, the second moment; in arXiv 2602.15547 on embeddings.
    """
    count = len(vectors_ND)
    if count < 2:
        return vectors_ND.new_zeros(())
    squares = (vectors_ND @ vectors_ND.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (count * (count - 1))


def truncated_similarity_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean of `similarity_loss` over the student's first `TRUNCATED` dimensions, at unit length.

    The teacher's rows stay whole: its first dimensions alone are not to be learned.
    Source: arXiv 2205.13147 §3, nested losses; of similarities, ours.
    """
    from torch.nn.functional import normalize

    sizes = [size for size in TRUNCATED if size < student_ND.shape[1]]
    if not sizes:
        return student_ND.new_zeros(())
    losses = [
        similarity_loss(normalize(student_ND[:, :size], dim=-1), teacher_ND) for size in sizes
    ]
    return sum(losses[1:], losses[0]) / len(losses)


LOSS_TERMS = {
    "cosine_chunks": LossTerm(lambda b: cosine_loss(b.chunks, b.chunk_targets), "chunks"),
    "cosine_cls": LossTerm(lambda b: cosine_loss(b.cls, b.cls_targets), "documents"),
    "similarity_chunks": LossTerm(lambda b: similarity_loss(b.chunks, b.chunk_targets), "chunks"),
    "similarity_cls": LossTerm(lambda b: similarity_loss(b.cls, b.cls_targets), "documents"),
    "cosine_parts": LossTerm(_segments, "chunks", weight=0.0),
    "similarity_truncated": LossTerm(
        lambda b: truncated_similarity_loss(b.chunks, b.chunk_targets), "chunks", weight=0.0
    ),
    "in_sequence": LossTerm(_in_sequence, "chunks", weight=0.0),
    "in_batch": LossTerm(_in_batch, "chunks", weight=0.0),
    "spread_chunks": LossTerm(lambda b: spread_loss(b.chunks), "chunks", weight=0.0),
}
"""Every term, by its key in the `[loss]` section of a recipe."""
