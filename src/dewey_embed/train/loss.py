"""The alignment loss: the weighed terms of `loss_terms.py` over the batches of all processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.train.loss_terms import LOSS_TERMS, Batch
from dewey_embed.train.recipe import LossRecipe


class Loss(NamedTuple):
    """The loss and its terms by name, each a scalar; terms without their weights."""

    loss: Tensor
    terms: dict[str, Tensor]


class AlignmentLoss(nn.Module):
    """The terms of `LOSS_TERMS`, as a recipe weighs them.

    With `balance = "dynamic"` the sum L₁ of the terms that align chunks and the sum L₂ of those
    that align documents are weighed by learned log variances s: Σ ½ exp(-sᵢ) Lᵢ + ½ sᵢ, least at
    sᵢ = log Lᵢ. So each sum pulls in proportion to how far it has come; neither drowns the other.
    Source: Kendall, Gal and Cipolla, arXiv 1705.07115 eq. 7 and §3.2; the paper's open question 3.

    The rows of all processes make one batch; every process computes the same loss, and averaging
    gradients over processes gives those of one process with that batch.
    """

    def __init__(self, recipe: LossRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.log_variances: nn.Parameter | None = None
        if recipe.balance == "dynamic":
            self.log_variances = nn.Parameter(torch.zeros(2))

    def forward(self, **vectors: Tensor) -> Loss:
        """The loss of a batch, whose fields are those of `Batch`, of this process alone."""
        batch = Batch(**{name: gathered(vectors[name]) for name in Batch._fields})
        terms = {name: term.of(batch) for name, term in LOSS_TERMS.items()}
        chunks = documents = batch.chunks.new_zeros(())
        for name, weight in self.recipe.weights.items():
            if LOSS_TERMS[name].aligns == "chunks":
                chunks = chunks + weight * terms[name]
            else:
                documents = documents + weight * terms[name]
        return Loss(self._balanced(chunks, documents), terms)

    def _balanced(self, chunks: Tensor, documents: Tensor) -> Tensor:
        """Both sums as one scalar."""
        if self.log_variances is None:
            return chunks + documents
        sums = torch.stack((chunks, documents))
        return 0.5 * (torch.exp(-self.log_variances) * sums + self.log_variances).sum()


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
