"""The paper's signs of failure as figures, each with a threshold and the recipe value to change.

Works on vectors alone. Shape suffixes: B texts, C chunks of all of them, D width. All vectors have
unit length. Source: arXiv 2503.20376 and its open questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dewey_embed.train.recipe import DiagnosticsRecipe

Floats = NDArray[np.float32]
Int = NDArray[np.int64]

CHUNK_EDGES = (64, 128, 256)
LENGTH_EDGES = (256, 1024, 4096)
RANK_ROWS = 2000
"""Rows on which similarities and ranks are measured: enough, and their square is small."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Student and teacher on the same texts.

    `cls`, `cls_targets` (B, D); `chunks`, `chunk_targets` (C, D); `texts` (C,): whose chunk;
    `chunk_tokens` (C,) and `text_tokens` (B,): lengths.
    """

    cls: Floats
    cls_targets: Floats
    chunks: Floats
    chunk_targets: Floats
    texts: Int
    chunk_tokens: Int
    text_tokens: Int


def alignment_figures(held: HeldOut) -> dict[str, float]:
    """Cosines to the teacher: of chunks, of CLS, by length; and how alike the similarities are."""
    chunk = (held.chunks * held.chunk_targets).sum(1)
    cls = (held.cls * held.cls_targets).sum(1)
    figures = {
        "alignment": float(chunk.mean() + cls.mean()) / 2,
        "chunk_cosine": float(chunk.mean()),
        "cls_cosine": float(cls.mean()),
    }
    figures |= _by_length("chunk_cosine", chunk, held.chunk_tokens, CHUNK_EDGES)
    figures |= chunk_cosine_by_text_length(held)
    figures |= _by_length("cls_cosine", cls, held.text_tokens, LENGTH_EDGES)
    some = slice(0, RANK_ROWS)
    student, teacher = held.chunks[some], held.chunk_targets[some]
    pairs = np.triu_indices(len(student), 1)
    if len(pairs[0]) > 1:
        ours, theirs = (student @ student.T)[pairs], (teacher @ teacher.T)[pairs]
        figures["similarity_correlation"] = float(np.corrcoef(ours, theirs)[0, 1])
    figures["own_target_first"] = float(
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


def _by_length(name: str, values: Floats, lengths: Int, edges: tuple[int, ...]) -> dict[str, float]:
    """Means by length, under `name/from-to`; only of lengths that occur."""
    bounds = (0, *edges, None)
    figures = {}
    for low, high in pairwise(bounds):
        inside = (lengths >= (low or 0)) & ((lengths < high) if high else True)
        if inside.any():
            figures[f"{name}/{low}-{high or ''}"] = float(values[inside].mean())
    return figures
