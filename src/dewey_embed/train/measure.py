"""A student in training + held-out samples → the figures of diagnostics, and their warnings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from dewey_embed.model.device import default_dtype
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.progress import progress_bar
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.batches import Answer, Collator
from dewey_embed.train.diagnostics import (
    HeldOut,
    alignment_figures,
    rank_figures,
    tightness_figures,
)
from dewey_embed.train.passkey import passkey_accuracy
from dewey_embed.train.recipe import DiagnosticsRecipe
from dewey_embed.train.student import Student
from dewey_embed.train.targets import Targets

BATCH_SAMPLES = 8


class HeldOutMeasure:
    """Figures of a student on held-out samples and short texts, and in passkey tests.

    The first evaluation, the last, and every `passkey_every`-th in between look for passkeys.
    """

    def __init__(
        self,
        held_out: Sequence[Targets],
        short: Sequence[Targets],
        collator: Collator,
        tokenizer: Tokenizer,
        recipe: DiagnosticsRecipe,
        *,
        answer: Answer | None = None,
        show: bool = False,
    ) -> None:
        self.held_out, self.short = held_out, short
        self.collator, self.tokenizer = collator, tokenizer
        self.recipe, self.answer, self.show = recipe, answer, show
        self.evaluations = 0

    def __call__(self, student: nn.Module, *, last: bool) -> dict[str, float]:
        """All figures; `alignment`, the mean of the chunk and CLS cosines, is what counts."""
        student = _as_used(student)
        held = self.compare(student, self.held_out)
        figures = alignment_figures(held) | tightness_figures(held) | rank_figures(held)
        if self.short:
            figures["short_cls_cosine"] = alignment_figures(self.compare(student, self.short))[
                "cls_cosine"
            ]
        wanted = last or self.evaluations % self.recipe.passkey_every == 0
        if wanted and isinstance(student, Student) and not _is_sharded(student):
            filler = [one.sample.text for one in self.held_out]
            for length in self.recipe.passkey_tokens:
                if length <= student.model.config.max_tokens:
                    with _precision(student):
                        accuracy = passkey_accuracy(student.model, self.tokenizer, filler, length)
                    figures[f"passkey/{length}"] = accuracy
        self.evaluations += 1
        return figures

    @torch.no_grad()
    def compare(self, student: nn.Module, samples: Sequence[Targets]) -> HeldOut:
        """The student's vectors of the samples beside the teacher's."""
        device = next(student.parameters()).device
        parts: list[list[np.ndarray]] = [[] for _ in range(7)]
        texts_before = 0
        with progress_bar("held out", len(samples), "texts", show=self.show) as advance:
            for first in range(0, len(samples), BATCH_SAMPLES):
                some = samples[first : first + BATCH_SAMPLES]
                batch = self.collator(some)
                moved = {
                    name: value.to(device) if isinstance(value, torch.Tensor) else value
                    for name, value in batch.items()
                }
                if self.answer is not None:
                    moved = self.answer(moved)
                with _precision(student):
                    vectors = student(**moved, vectors_only=True)
                whose = np.repeat(np.arange(len(some)), [len(one.sample.spans) for one in some])
                row = (
                    vectors["cls"].cpu().numpy(),
                    moved["cls_targets"].cpu().numpy(),
                    vectors["chunks"].cpu().numpy(),
                    moved["chunk_targets"].cpu().numpy(),
                    whose + texts_before,
                    (batch["ends"] - batch["starts"]).numpy(),
                    np.array(batch["lengths"]) - 2,
                )
                for part, values in zip(parts, row, strict=True):
                    part.append(values)
                texts_before += len(some)
                advance(len(some))
        return HeldOut(*(np.concatenate(part) for part in parts))


def _is_sharded(student: nn.Module) -> bool:
    """Whether FSDP has shared its weights out: only a call of the whole student gathers them."""
    return any(isinstance(weight, DTensor) for weight in student.parameters())


def _as_used(student: nn.Module) -> nn.Module:
    """The student with weights as its model will have them: on a CPU kernels then run it."""
    device = next(student.parameters()).device
    if device.type != "cpu" or not isinstance(student, Student) or _is_sharded(student):
        return student
    with torch.device("meta"):  # which draws no weights, and no random numbers for them
        model = DeweyModel(student.model.config)
    weights = student.model.state_dict()
    model.load_state_dict(
        {name: weight.to(default_dtype(device)) for name, weight in weights.items()}, assign=True
    )
    return Student(model, student.alignment.recipe).eval()


def _precision(student: nn.Module) -> torch.autocast:
    """The context in which a student is measured: what the hardware multiplies fastest."""
    weight = next(student.parameters())
    dtype = default_dtype(weight.device)
    return torch.autocast(weight.device.type, dtype, enabled=dtype != weight.dtype)
