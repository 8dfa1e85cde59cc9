"""The model with its loss, as Hugging Face's Trainer takes it: one batch in, the loss out."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.model.checkpoint import build_model, read_checkpoint
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.engine import train_in_int8, train_with_kernels
from dewey_embed.model.packing import Packed
from dewey_embed.model.pooling import RunningSums
from dewey_embed.single_vectors import SINGLE_VECTORS
from dewey_embed.train.loss_terms import LOSS_TERMS, Batch
from dewey_embed.train.recipe import LossRecipe, Recipe
from dewey_embed.train.schedule import zero_output_projections


class Loss(NamedTuple):
    """The loss and its terms by name, each a scalar; terms without their weights."""

    loss: Tensor
    terms: dict[str, Tensor]


class AlignmentLoss(nn.Module):
    """The terms of `LOSS_TERMS` as a recipe weighs them; those off by default only where it does.

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
        weights = self.recipe.weights
        terms = {
            name: term.of(batch)
            for name, term in LOSS_TERMS.items()
            if weights[name] or term.weight  # those that are off by default cost a GPU its queue
        }
        chunks = documents = batch.chunks.new_zeros(())
        for name, term in terms.items():
            if LOSS_TERMS[name].aligns == "chunks":
                chunks = chunks + weights[name] * term
            else:
                documents = documents + weights[name] * term
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
    segments = [part[:size] for part, size in zip(others, sizes, strict=True)]
    return torch.cat([*segments[:rank], own, *segments[rank + 1 :]])


ROUND_TOKENS = 256
"""Rows are filled up to a multiple: every new length is a new program for the CPU's kernels, and
blocks of a new size for the allocator, which fragments: a run without grew to 12 GB in 600 steps.
"""


class Student(nn.Module):
    """A `DeweyModel` that is being aligned to its teacher."""

    main_input_name = "ids"  # the Trainer counts its elements as tokens seen

    def __init__(self, model: DeweyModel, loss: LossRecipe) -> None:
        super().__init__()
        self.model = model
        self.alignment = AlignmentLoss(loss)

    def forward(
        self,
        *,
        ids: Tensor,
        lengths: tuple[int, ...],
        starts: Tensor,
        ends: Tensor,
        cls_targets: Tensor,
        chunk_targets: Tensor,
        segment_starts: Tensor,
        segment_ends: Tensor,
        segment_targets: Tensor,
        question_starts: Tensor,
        question_ends: Tensor,
        chunk_places: Tensor,
        answer_places: Tensor,
        vectors_only: bool = False,
    ) -> dict[str, Tensor]:
        """`loss` and its terms, scalars; or the batch's `cls` (B, D) and `chunks` (C, D).

        `ids` (T,) is a packed row of B texts and Q questions of these `lengths`; `starts`, `ends`
        (C,) are each chunk's tokens in the row, `segment_starts`, `segment_ends` (P,) each
        segment's, `question_starts`, `question_ends` (Q,) each question's; targets are (B, D),
        (C, D) and (P, D), float32, unit length; places are as in `Batch`.
        """
        packed = repacked(ids, lengths)
        hidden_TH = self.model(packed)
        first = packed.cu_seqlens[: len(lengths)]
        num_texts = len(lengths) - len(question_starts)
        with torch.autocast(ids.device.type, enabled=False):
            cls = self.model.embed(hidden_TH[first])
            spans = RunningSums(hidden_TH).means(
                torch.cat((starts, segment_starts, question_starts)),
                torch.cat((ends, segment_ends, question_ends)),
            )
            chunks, segments, means = self.model.embed(spans).split(
                (len(starts), len(segment_starts), len(question_starts))
            )
            cls, question_cls = cls.split((num_texts, len(question_starts)))
            if vectors_only:
                return {"cls": cls, "chunks": chunks}
            combine = SINGLE_VECTORS[self.model.config.single_vector].combine
            loss, terms = self.alignment(
                chunks=chunks, chunk_targets=chunk_targets, cls=cls, cls_targets=cls_targets,
                segments=segments, segment_targets=segment_targets,
                questions=combine(question_cls, means), chunk_places=chunk_places,
                answer_places=answer_places,
            )  # fmt: skip
            return {"loss": loss, **terms}


def build_student(recipe: Recipe, start: Path) -> Student:
    """The started model with its loss: float32 weights, ready to be trained."""
    model = build_model(read_checkpoint(start)).float().train()
    backbone, training = model.backbone, recipe.training
    if training.depth:
        zero_output_projections(backbone, min(training.depth))
    backbone.recompute = training.gradient_checkpointing
    has_compiler = any(shutil.which(name) for name in ("g++", "clang++"))
    if training.compile == "auto" and has_compiler and not torch.cuda.is_available():
        backbone.compile_layers()
        train_with_kernels(backbone)
    if training.precision == "int8" and not train_in_int8(backbone):
        warnings.warn(
            "training.precision is int8, for which this processor, the model's widths or "
            "training.compile leave no kernels: training in bfloat16",
            UserWarning,
            stacklevel=2,
        )
    return Student(model, recipe.loss)


def repacked(ids: Tensor, lengths: tuple[int, ...]) -> Packed:
    """The packed row that these ids are, sequences of `lengths` one after another.

    One more sequence fills it up to a round length, and takes part in nothing.
    """
    if fill := -len(ids) % ROUND_TOKENS:
        ids, lengths = F.pad(ids, (0, fill)), (*lengths, fill)
    sizes = torch.tensor(lengths).to(ids.device, non_blocking=True)
    ends = sizes.cumsum(0)
    first = torch.repeat_interleave(ends - sizes, sizes, output_size=len(ids))
    positions = torch.arange(len(ids), device=ids.device) - first
    cu_seqlens = F.pad(ends, (1, 0)).to(torch.int32)
    return Packed(ids, positions, cu_seqlens, tuple(lengths))
