"""Corpus + teacher → targets on disk, shard by shard; a killed run resumes.

A shard is one cut of a fixed number of the stream's texts, so its number alone says what is in
it: any number of processes share the work by number, and a finished shard is passed over unread.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dewey_embed.model.checkpoint import read_teacher_axes
from dewey_embed.progress import progress_bar
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.corpus import Corpus, CorpusText
from dewey_embed.train.memory import kept_memory
from dewey_embed.train.recipe import Recipe, SplitRecipe, fingerprint
from dewey_embed.train.reduce import Reduction, fit_reduction, reduction_to, structure_kept
from dewey_embed.train.samples import Sample, cut_samples
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.targets import Split, Targets, TargetsFolder
from dewey_embed.train.teacher_requests import TeacherRequest, request_for, teacher_vectors
from dewey_embed.train.teachers import open_teacher
from dewey_embed.train.teachers.teacher import Teacher, batch_name, checked, embed_unique
from dewey_embed.types import Rows, Tokens

REDUCTION = "reduction.npz"
STRUCTURE_CHUNKS = 2000
"""Chunks on which it is measured how much of the teacher's similarities a reduction keeps."""

NO_SEGMENTS: Rows = np.empty((0, 2), np.int64)

SHORT = SplitRecipe(
    crop_tokens={32: 1.0}, splitters={"words": 1.0}, chunk_tokens=(32, 32), overlap=(0.0, 0.0)
)
"""Texts of a sentence or two: whether CLS still serves them."""


def teach(
    recipe: Recipe,
    start: Path,
    folder: Path,
    *,
    device: str | None = None,
    rank: int = 0,
    num_ranks: int = 1,
    checked: bool = False,
    progress: bool = False,
) -> TargetsFolder:
    """The targets of a recipe, finished as far as this process has a part in them.

    `start` is the student's folder, whose tokenizer measures crops and chunks. Process `rank` of
    `num_ranks` writes every `num_ranks`-th shard. `checked`, finished shards are read, and damaged
    ones written again; otherwise whoever reads them names the damage.

    Raises:
        TargetsError: `folder` holds targets of another recipe, or of more texts.
        TeacherError: the teacher cannot be reached, or gives no good vectors.
        ReadError: a source of the corpus cannot be read.

    """
    tokens_by = (start / "tokenizer.json").read_bytes()
    about = recipe.targets_about() | {"tokenizer": hashlib.sha256(tokens_by).hexdigest()[:16]}
    if (axes := read_teacher_axes(start)) is not None:
        about["teacher_axes"] = hashlib.sha256(axes.tobytes()).hexdigest()[:16]
    total = recipe.corpus.max_texts
    targets = TargetsFolder(folder, fingerprint=fingerprint(about), about=about, max_texts=total)
    held = targets.held(checked=checked, progress=checked and progress)
    if targets.is_complete and held == targets.shards:
        return targets
    tokenizer = start_tokenizer(start)
    teacher = None if recipe.targets.on_the_fly else open_teacher(recipe.teacher, device=device)
    reduction = None if teacher is None else reduction_of(recipe, start, teacher, folder)

    def write(
        split: Split, number: int, texts: list[CorpusText], cuts: SplitRecipe, resplit: int = 0
    ) -> None:
        context = recipe.context if split != "short" else None
        why = Counter[str]()
        cut = partial(cut_samples, tokenizer=tokenizer, recipe=cuts, context=context, why=why)
        samples = [one for text in texts for one in cut(text, resplit=resplit)]
        if teacher is None or reduction is None:
            rows = [untaught(sample) for sample in samples]
        else:
            rows = targets_of(samples, teacher, reduction, tokenizer, recipe)
        targets.write(split, number, len(texts), rows, dict(why))

    # a shard that was the last, before the corpus grew, may have too few texts
    done = {(one.part, one.number, one.num_texts) for one in held}
    counts: Counter[Split] = Counter()
    corpus = Corpus(recipe.corpus)
    bar = progress_bar("targets", total, "texts", show=progress)
    with kept_memory(), bar as advance:
        for turn, (split, texts) in enumerate(shards(corpus, recipe)):
            for resplit in range(1 + recipe.split.resplits if split == "train" else 1):
                number = counts[split]
                counts[split] += 1
                if turn % num_ranks != rank:
                    continue
                for part, cuts in cuts_of(split, recipe):
                    if (part, number, len(texts)) not in done:
                        write(part, number, texts, cuts, resplit)
            advance(len(texts))
    counts["short"] = counts["held_out"]
    untitled = dict(corpus.untitled) if recipe.context else None
    targets.finish(dict(counts), dict(corpus.left_out), untitled)
    return targets


def cuts_of(split: Split, recipe: Recipe) -> list[tuple[Split, SplitRecipe]]:
    """The shards that are made of one group of texts, each with how its samples are cut."""
    short: list[tuple[Split, SplitRecipe]] = [("short", SHORT)] if split == "held_out" else []
    return [*short, (split, recipe.split)]


def shards(
    corpus: Iterable[CorpusText], recipe: Recipe
) -> Iterator[tuple[Split, list[CorpusText]]]:
    """The texts of each shard, in the order in which shards are numbered."""
    size = recipe.targets.shard_texts
    waiting: dict[Split, list[CorpusText]] = {"train": [], "held_out": []}
    for text in corpus:
        split: Split = "held_out" if text.held_out else "train"
        waiting[split].append(text)
        if len(waiting[split]) == size:
            yield split, waiting[split]
            waiting[split] = []
    for split, texts in waiting.items():
        if texts:
            yield split, texts


def targets_of(
    samples: Sequence[Sample],
    teacher: Teacher,
    reduction: Reduction,
    tokenizer: Tokenizer,
    recipe: Recipe,
) -> list[Targets]:
    """Every sample with its targets: its document's, and one for each chunk and segment."""
    tokens = tokenizer.encode([sample.text for sample in samples])
    request = request_for(samples, tokens, teacher, recipe)
    where = batch_name(teacher.name, request.texts)
    documents, chunks, segments = (
        reduction.apply(checked(rows.cpu().numpy(), len(rows), teacher.dim, where))
        for rows in teacher_vectors(teacher, request)
    )
    bounds = [NO_SEGMENTS] * len(samples) if request.segments is None else request.segments.bounds
    chunk_rows = np.split(chunks, np.cumsum([len(sample.spans) for sample in samples])[:-1])
    segment_rows = np.split(segments, np.cumsum([len(own) for own in bounds])[:-1])
    rows = zip(samples, documents, chunk_rows, bounds, segment_rows, strict=True)
    return [Targets(*row) for row in rows] if samples else []


class OnlineTeacher:
    """A recipe's teacher, which embeds while training, so that no targets are stored."""

    def __init__(self, recipe: Recipe, start: Path, folder: Path) -> None:
        self._recipe = recipe
        self._teacher = open_teacher(recipe.teacher)
        self._reduction = reduction_of(recipe, start, self._teacher, folder)

    def request(self, samples: Sequence[Sample], tokens: Sequence[Tokens]) -> TeacherRequest:
        """The request to the teacher for the samples' targets."""
        return request_for(samples, tokens, self._teacher, self._recipe)

    def with_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its targets in place of its request, on the device of its ids.

        Raises:
            TeacherError: the teacher gives no good vectors; those on a GPU are not looked at, which
                would wait for it, and a bad one breaks the loss.

        """
        request: TeacherRequest = batch["request"]
        rest = {name: value for name, value in batch.items() if name != "request"}
        where = batch_name(self._teacher.name, request.texts)
        targets = (self._reduced(rows, where) for rows in teacher_vectors(self._teacher, request))
        device = batch["ids"].device
        names = ("cls_targets", "chunk_targets", "segment_targets")
        return rest | {name: rows.to(device) for name, rows in zip(names, targets, strict=True)}

    def _reduced(self, rows: Tensor, where: str) -> Tensor:
        """The rows at the student's size; looked at on the host, but for a GPU's that fit as is."""
        if self._reduction.kind == "none" and rows.device.type == "cuda":
            return rows
        vectors = checked(rows.cpu().numpy(), len(rows), self._teacher.dim, where)
        return torch.from_numpy(self._reduction.apply(vectors))


def untaught(sample: Sample) -> Targets:
    """A sample whose targets are made during training: its vectors have no dimensions."""
    nothing = np.empty((0, 0), np.float32)
    chunks = np.empty((len(sample.spans), 0), np.float32)
    return Targets(sample, nothing.ravel(), chunks, NO_SEGMENTS, nothing)


def reduction_of(recipe: Recipe, start: Path, teacher: Teacher, folder: Path) -> Reduction:
    """How the teacher's vectors become the student's; fitted once and kept in `folder`.

    A student that stands in axes of its own goes on in these, and nothing is fitted.

    Raises:
        ConfigError: the student's axes are another teacher's, or are to be cut.

    """
    path = folder / REDUCTION
    if path.exists():
        return Reduction.load(path)
    reduce, size = recipe.teacher.reduce, recipe.vector_size or teacher.dim
    if (axes := read_teacher_axes(start)) is not None:
        reduction = reduction_to(axes, reduce, teacher.dim)
    elif reduce != "pca":
        reduction = fit_reduction(reduce, np.empty((0, teacher.dim), np.float32), size)
    else:
        chunks = _first_chunks(recipe, start_tokenizer(start))
        reduction = fit_reduction(reduce, embed_unique(teacher, chunks), size)
    reduction.save(path)
    return reduction


def kept_structure(recipe: Recipe, start: Path, folder: Path) -> float:
    """How much of the teacher's similarities the reduction keeps: a correlation, at best 1."""
    teacher = open_teacher(recipe.teacher)
    reduction = reduction_of(recipe, start, teacher, folder)
    chunks = _first_chunks(recipe, start_tokenizer(start))[:STRUCTURE_CHUNKS]
    vectors = embed_unique(teacher, chunks)
    return structure_kept(vectors, reduction.apply(vectors))


def _first_chunks(recipe: Recipe, tokenizer: Tokenizer) -> list[str]:
    """The first chunks of the corpus, as many as a reduction is fitted on."""
    chunks: list[str] = []
    for text in Corpus(recipe.corpus):
        for sample in cut_samples(text, tokenizer, recipe.split, context=recipe.context):
            chunks += map("".join, zip(sample.prefixes(), sample.chunks(), strict=True))
        if len(chunks) >= recipe.teacher.pca_texts:
            break
    return chunks[: recipe.teacher.pca_texts]
