"""The alignment loss: student vectors against teacher vectors, term by term.

Shape suffixes: N vectors of one kind (CLS or chunks) of a whole batch, D their width. All vectors
have unit length.

The paper adds two losses and names no weights (the same group's Jasper recipe takes 10 and 200);
here every term is a mean, so that a weight means the same at any batch size, and the weights are
recipe values. Source: arXiv 2503.20376 §3.

Ours is the term over parts: where the teacher pools by mean, its vector of a chunk is the mean of
what it has over stretches of the chunk, and a student that learns those learns from twenty times
as many targets a text (docs/log.md has what that is worth).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.train.recipe import LossRecipe


class Terms(NamedTuple):
    """The loss and its terms, each a scalar; terms without their weights."""

    loss: Tensor
    cosine_chunks: Tensor
    cosine_cls: Tensor
    similarity_chunks: Tensor
    similarity_cls: Tensor
    cosine_parts: Tensor


def cosine_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean of 1 - s·t over the rows: 0 where all are aligned, 2 where all are opposite.

    Source: arXiv 2503.20376 §3, L_cosine = Σ (1 - s·t), here divided by the number of rows.
    """
    return (1 - (student_ND * teacher_ND).sum(-1)).mean()


def similarity_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean squared difference of all N² dot products among the student's and the teacher's rows.

    Source: arXiv 2503.20376 §3, L_similarity = MSE(S Sᵀ, T Tᵀ).
    """
    return F.mse_loss(student_ND @ student_ND.T, teacher_ND @ teacher_ND.T)


class AlignmentLoss(nn.Module):
    """Cosine and similarity terms over chunks and over CLS, as a recipe weighs them.

    With `balance = "dynamic"` the local part L₁ (chunks) and the global part L₂ (CLS) are weighed
    by learned log variances s: Σ ½ exp(-sᵢ) Lᵢ + ½ sᵢ, least at sᵢ = log Lᵢ. So each part pulls
    in proportion to how far it has come, and neither drowns the other.
    Source: Kendall, Gal and Cipolla, arXiv 1705.07115 eq. 7 and §3.2; the paper's open question 3.

    Over several processes the rows of all of them make one batch; every process gives out the
    same loss, and averaging gradients over processes gives those of one process with that batch.
    """

    def __init__(self, recipe: LossRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.log_variances: nn.Parameter | None = None
        if recipe.balance == "dynamic":
            self.log_variances = nn.Parameter(torch.zeros(2))

    def forward(
        self,
        *,
        chunks: Tensor,
        chunk_targets: Tensor,
        cls: Tensor,
        cls_targets: Tensor,
        parts: Tensor,
        part_targets: Tensor,
    ) -> Terms:
        """The loss of a batch: `chunks` (C, D), `cls` (B, D), `parts` (P, D), and their targets.

        All float32 and of unit length; there may be no parts.
        """
        parts, part_targets = gathered(parts), gathered(part_targets)
        chunks, chunk_targets = gathered(chunks), gathered(chunk_targets)
        cls, cls_targets = gathered(cls), gathered(cls_targets)
        terms = (
            cosine_loss(chunks, chunk_targets),
            cosine_loss(cls, cls_targets),
            similarity_loss(chunks, chunk_targets),
            similarity_loss(cls, cls_targets),
            cosine_loss(parts, part_targets) if len(parts) else chunks.new_zeros(()),
        )
        weights = self.recipe
        local = weights.cosine_chunks * terms[0] + weights.similarity_chunks * terms[2]
        local = local + weights.cosine_parts * terms[4]
        whole = weights.cosine_cls * terms[1] + weights.similarity_cls * terms[3]
        return Terms(self._balanced(local, whole), *terms)

    def _balanced(self, local: Tensor, whole: Tensor) -> Tensor:
        """Both parts as one scalar."""
        if self.log_variances is None:
            return local + whole
        parts = torch.stack((local, whole))
        return 0.5 * (torch.exp(-self.log_variances) * parts + self.log_variances).sum()


def gathered(rows_ND: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; gradients flow to this one's own.

    Gradients are made larger by the number of processes, because averaging them over processes
    (as DDP and FSDP do) divides the one contribution that each row has by that number.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows_ND
    world, rank = dist.get_world_size(), dist.get_rank()
    count = torch.tensor([len(rows_ND)], device=rows_ND.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    sizes = [int(one) for one in counts]
    padded = F.pad(rows_ND.detach(), (0, 0, 0, max(sizes) - len(rows_ND)))
    others = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(others, padded)
    own = rows_ND
    if rows_ND.requires_grad:
        own = rows_ND.clone()
        own.register_hook(lambda gradient: gradient * world)
    parts = [part[:size] for part, size in zip(others, sizes, strict=True)]
    return torch.cat([*parts[:rank], own, *parts[rank + 1 :]])
