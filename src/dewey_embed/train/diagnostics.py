"""Held-out figures of a student in training: the paper's signs of failure, each with a threshold.

Shape suffixes: B texts, C chunks of all of them, D width. All vectors have unit length.
Source: arXiv 2503.20376 and its open questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from dewey_embed.model.device import default_dtype
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.progress import progress_bar
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.batches import AddTargets, Collator
from dewey_embed.train.passkey import passkey_accuracy
from dewey_embed.train.recipe import DiagnosticsRecipe
from dewey_embed.train.student import Student
from dewey_embed.train.targets import Targets
from dewey_embed.types import Floats, Mask, Rows

CHUNK_EDGES = (64, 128, 256)
LENGTH_EDGES = (256, 1024, 4096)
RANK_ROWS = 2000
"""Rows on which similarities and ranks are measured: enough, and their square is small."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Student and teacher on the same texts.

    `cls`, `cls_targets` (B, D); `chunks`, `chunk_targets` (C, D); `texts` (C,): whose chunk;
    `chunk_tokens` (C,) and `text_tokens` (B,): lengths; `contextual` (C,): whose target is that of
    more than the chunk, None where no chunk's is.
    """

    cls: Floats
    cls_targets: Floats
    chunks: Floats
    chunk_targets: Floats
    texts: Rows
    chunk_tokens: Rows
    text_tokens: Rows
    contextual: Mask | None = None


def alignment_figures(held: HeldOut) -> dict[str, float]:
    """Cosines to the teacher: of chunks, of CLS, by length; and how alike the similarities are."""
    chunk = (held.chunks * held.chunk_targets).sum(1)
    cls = (held.cls * held.cls_targets).sum(1)
    figures = {
        "alignment": float(chunk.mean() + cls.mean()) / 2,
        "chunk_cosine": float(chunk.mean()),
        "cls_cosine": float(cls.mean()),
    }
    figures |= _by_context(chunk, held.contextual)
    figures |= _by_length("chunk_cosine", chunk, held.chunk_tokens, CHUNK_EDGES)
    figures |= chunk_cosine_by_text_length(held)
    figures |= _by_length("cls_cosine", cls, held.text_tokens, LENGTH_EDGES)
    some = slice(0, RANK_ROWS)
    student, teacher = held.chunks[some], held.chunk_targets[some]
    pairs = np.triu_indices(len(student), 1)
    if len(pairs[0]) > 1:
        ours, theirs = (student @ student.T)[pairs], (teacher @ teacher.T)[pairs]
        figures["similarity_correlation"] = float(np.corrcoef(ours, theirs)[0, 1])
    figures["target_recall_at_1"] = float(
        ((student @ teacher.T).argmax(1) == np.arange(len(student))).mean()
    )
    return figures


def chunk_cosine_by_text_length(held: HeldOut) -> dict[str, float]:
    """Cosines of chunks to the teacher, under `chunk_cosine_in/from-to` of their text's tokens.

    A chunk is the same to the teacher in a short text and in a long one; to the student it is not.
    """
    cosine = (held.chunks * held.chunk_targets).sum(1)
    return _by_length("chunk_cosine_in", cosine, held.text_tokens[held.texts], LENGTH_EDGES)


def tightness_figures(held: HeldOut) -> dict[str, float]:
    """How alike the chunks of one text are, beyond how alike the teacher finds them.

    A sign of failure is a student whose chunks say only which document they are from.
    """
    ours, theirs = [], []
    for text in range(len(held.cls)):
        mine = held.texts == text
        if mine.sum() > 1:
            ours.append(mean_pairwise_cosine(held.chunks[mine]))
            theirs.append(mean_pairwise_cosine(held.chunk_targets[mine]))
    if not ours:
        return {}
    figures = {"tightness": float(np.mean(ours)), "teacher_tightness": float(np.mean(theirs))}
    return figures | {"extra_tightness": figures["tightness"] - figures["teacher_tightness"]}


def rank_figures(held: HeldOut) -> dict[str, float]:
    """Effective ranks of the chunk vectors, the student's and its ratio to the teacher's."""
    ours = effective_rank(held.chunks[:RANK_ROWS])
    return {
        "effective_rank": ours,
        "rank_ratio": ours / effective_rank(held.chunk_targets[:RANK_ROWS]),
    }


def mean_pairwise_cosine(vectors: Floats) -> float:
    """The mean dot product of two different rows: (|Σ v|² - n) / (n (n - 1))."""
    count = len(vectors)
    total = vectors.sum(0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def effective_rank(vectors: Floats) -> float:
    """Exp of the entropy of the singular values' shares: 1 if all are alike, D if spread evenly.

    Source: Roy and Vetterli 2007, "The effective rank", eq. 2.
    """
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def warnings(figures: Mapping[str, float], recipe: DiagnosticsRecipe) -> list[str]:
    """What is past its threshold, each with its figure and the recipe value to change."""
    found = []

    def check(name: str, wrong: bool, limit: float, remedy: str) -> None:
        if wrong:
            found.append(f"{name} is {figures[name]:.3f}, the limit {limit:g}: {remedy}")

    lengths = [v for k, v in figures.items() if k.startswith("cls_cosine/")]
    for name, value in figures.items():
        if name == "chunk_cosine":
            check(name, value < recipe.min_chunk_cosine, recipe.min_chunk_cosine,
                  "train longer, or raise training.learning_rate")  # fmt: skip
        elif name == "extra_tightness":
            check(name, value > recipe.max_extra_tightness, recipe.max_extra_tightness,
                  "chunks of one text cluster: raise loss.similarity_chunks")  # fmt: skip
        elif name == "rank_ratio":
            check(name, value < recipe.min_rank_ratio, recipe.min_rank_ratio,
                  "vectors collapse: raise loss.similarity_chunks or lower "
                  "training.learning_rate")  # fmt: skip
        elif name == "short_cls_cosine":
            check(name, value < recipe.min_short_cls_cosine, recipe.min_short_cls_cosine,
                  "CLS suffers on short texts: raise loss.cosine_cls, or add sentences with "
                  "split.sentences")  # fmt: skip
        elif name.startswith("passkey/"):
            check(name, value < recipe.min_passkey_accuracy, recipe.min_passkey_accuracy,
                  "lost at this length: add longer split.crop_tokens, or raise "
                  "global_rope_theta")  # fmt: skip
    if len(lengths) > 1 and lengths[0] - lengths[-1] > recipe.max_length_drop:
        found.append(
            f"cls_cosine falls by {lengths[0] - lengths[-1]:.3f} from the shortest to the longest "
            f"texts, the limit {recipe.max_length_drop:g}: add longer split.crop_tokens"
        )
    return found


def _by_context(cosines: Floats, contextual: Mask | None) -> dict[str, float]:
    """How many chunks have contextual and plain targets, and their means; none without contexts."""
    if contextual is None or not contextual.any():
        return {}
    figures = {}
    for kind, mask in (("contextual", contextual), ("plain", ~contextual)):
        figures[f"{kind}_chunks"] = float(mask.sum())
        if mask.any():
            figures[f"chunk_cosine_{kind}"] = float(cosines[mask].mean())
    return figures


def _by_length(
    name: str, values: Floats, lengths: Rows, edges: tuple[int, ...]
) -> dict[str, float]:
    """Means by length, under `name/from-to`; only of lengths that occur."""
    bounds = (0, *edges, None)
    figures = {}
    for low, high in pairwise(bounds):
        inside = (lengths >= (low or 0)) & ((lengths < high) if high else True)
        if inside.any():
            figures[f"{name}/{low}-{high or ''}"] = float(values[inside].mean())
    return figures


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
        add_targets: AddTargets | None = None,
        show: bool = False,
    ) -> None:
        self.held_out, self.short = held_out, short
        self.collator, self.tokenizer = collator, tokenizer
        self.recipe, self.add_targets, self.show = recipe, add_targets, show

    def __call__(self, student: nn.Module, *, number: int, last: bool) -> dict[str, float]:
        """All figures, after `number` evaluations of the run.

        `alignment`, the mean of the chunk and CLS cosines, is what counts.
        """
        student = _as_used(student)
        held = self.compare(student, self.held_out)
        figures = alignment_figures(held) | tightness_figures(held) | rank_figures(held)
        if self.short:
            figures["short_cls_cosine"] = alignment_figures(self.compare(student, self.short))[
                "cls_cosine"
            ]
        wanted = last or number % self.recipe.passkey_every == 0
        if wanted and isinstance(student, Student) and not _is_sharded(student):
            filler = [one.sample.text for one in self.held_out]
            for length in self.recipe.passkey_tokens:
                if length <= student.model.config.max_tokens:
                    with _precision(student):
                        accuracy = passkey_accuracy(student.model, self.tokenizer, filler, length)
                    figures[f"passkey/{length}"] = accuracy
        return figures

    @torch.no_grad()
    def compare(self, student: nn.Module, samples: Sequence[Targets]) -> HeldOut:
        """The student's vectors of the samples beside the teacher's."""
        device = next(student.parameters()).device
        parts: list[list[np.ndarray]] = [[] for _ in range(8)]
        texts_before = 0
        with progress_bar("held out", len(samples), "texts", show=self.show) as advance:
            for first in range(0, len(samples), BATCH_SAMPLES):
                some = samples[first : first + BATCH_SAMPLES]
                batch = self.collator(some)
                moved = {
                    name: value.to(device) if isinstance(value, torch.Tensor) else value
                    for name, value in batch.items()
                }
                if self.add_targets is not None:
                    moved = self.add_targets(moved)
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
                    np.array(batch["lengths"][: len(some)]) - 2,
                    np.array([bool(each) for one in some for each in one.sample.prefixes()]),
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
