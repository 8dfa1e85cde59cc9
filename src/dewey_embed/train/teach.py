"""Corpus + teacher → targets on disk, shard by shard; goes on where it was killed.

A shard is a fixed number of the stream's texts, so its number alone says what is in it: any number
of processes share the work by number, and a finished shard is passed over without a look.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from dewey_embed.progress import progress_bar
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.batches import Answer
from dewey_embed.train.corpus import Corpus, CorpusText
from dewey_embed.train.memory import kept_memory
from dewey_embed.train.parts import chunk_and_part_vectors
from dewey_embed.train.recipe import Recipe, SplitRecipe, fingerprint
from dewey_embed.train.reduce import Reduction, fit_reduction, structure_kept
from dewey_embed.train.samples import Sample, cut_samples
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.targets import Floats, Int, Part, Targets, TargetsFolder
from dewey_embed.train.teachers.teacher import Teacher, embed_unique, open_teacher
from dewey_embed.train.wholes import whole_vectors

REDUCTION = "reduction.npz"
STRUCTURE_CHUNKS = 2000
"""Chunks on which it is measured how much of the teacher's similarities a reduction keeps."""


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
    progress: bool = False,
) -> TargetsFolder:
    """The targets of a recipe, finished as far as this process has a part in them.

    `start` is the student's folder, whose tokenizer measures crops and chunks. Process `rank` of
    `num_ranks` writes every `num_ranks`-th shard.

    Raises:
        TargetsError: `folder` holds targets of another recipe, or of more texts.
        TeacherError: the teacher cannot be asked, or answers what is no embedding.
        ReadError: a source of the corpus cannot be read.

    """
    tokens_by = (start / "tokenizer.json").read_bytes()
    about = recipe.targets_about() | {"tokenizer": hashlib.sha256(tokens_by).hexdigest()[:16]}
    total = recipe.corpus.max_texts
    targets = TargetsFolder(folder, fingerprint=fingerprint(about), about=about, max_texts=total)
    if targets.is_complete:
        return targets
    tokenizer = start_tokenizer(start)
    teacher = None if recipe.targets.on_the_fly else open_teacher(recipe.teacher, device=device)
    reduction = None if teacher is None else reduction_of(recipe, tokenizer, teacher, folder)

    def write(part: Part, number: int, texts: list[CorpusText], split: SplitRecipe) -> None:
        samples = cut_all(texts, tokenizer, split)
        if teacher is None or reduction is None:
            answers = [untaught(sample) for sample in samples]
        else:
            answers = ask(teacher, reduction, samples, tokenizer, recipe)
        targets.write(part, number, len(texts), answers)

    # a shard that was the last, before the corpus grew, may have too few texts
    done = {(shard.part, shard.number, shard.num_texts) for shard in targets.shards}
    counts: Counter[Part] = Counter()
    bar = progress_bar("targets", total, "texts", show=progress)
    with kept_memory(), bar as advance:
        for turn, (part, texts) in enumerate(shards(Corpus(recipe.corpus), recipe)):
            number = counts[part]
            counts[part] += 1
            if turn % num_ranks == rank and (part, number, len(texts)) not in done:
                if part == "held_out":  # first: a killed run looks only for the other one
                    write("short", number, texts, SHORT)
                write(part, number, texts, recipe.split)
            advance(len(texts))
    counts["short"] = counts["held_out"]
    targets.finish(dict(counts))
    return targets


def shards(corpus: Iterable[CorpusText], recipe: Recipe) -> Iterator[tuple[Part, list[CorpusText]]]:
    """The texts of each shard, in the order in which shards are numbered."""
    size = recipe.targets.shard_texts
    waiting: dict[Part, list[CorpusText]] = {"train": [], "held_out": []}
    for text in corpus:
        part: Part = "held_out" if text.held_out else "train"
        waiting[part].append(text)
        if len(waiting[part]) == size:
            yield part, waiting[part]
            waiting[part] = []
    for part, texts in waiting.items():
        if texts:
            yield part, texts


def cut_all(texts: Iterable[CorpusText], tokenizer: Tokenizer, recipe: SplitRecipe) -> list[Sample]:
    """The samples of all texts, in their order."""
    return [sample for text in texts for sample in cut_samples(text, tokenizer, recipe)]


def ask(
    teacher: Teacher,
    reduction: Reduction,
    samples: Sequence[Sample],
    tokenizer: Tokenizer,
    recipe: Recipe,
) -> list[Targets]:
    """Every sample with its targets: its whole text's, and one for each chunk."""
    answers = _chunk_vectors(teacher, samples, tokenizer, recipe)
    wholes = whole_vectors(
        teacher, samples, [chunks for chunks, _, _ in answers], tokenizer, recipe.teacher
    )
    return [
        Targets(
            sample, reduction.apply(whole[None])[0], reduction.apply(chunks),
            bounds, reduction.apply(parts),
        )
        for sample, whole, (chunks, bounds, parts) in zip(samples, wholes, answers, strict=True)
    ]  # fmt: skip


def _chunk_vectors(
    teacher: Teacher, samples: Sequence[Sample], tokenizer: Tokenizer, recipe: Recipe
) -> list[tuple[Floats, Int, Floats]]:
    """For each sample its chunks' vectors, and its parts' bounds and vectors if asked for."""
    if recipe.targets.part_tokens is not None:
        return chunk_and_part_vectors(teacher, samples, tokenizer, recipe.targets.part_tokens)
    vectors = embed_unique(teacher, [chunk for sample in samples for chunk in sample.chunks()])
    bounds = np.cumsum([0, *(len(sample.spans) for sample in samples)])
    no_bounds = np.empty((0, 2), np.int64)
    return [(vectors[low:high], no_bounds, vectors[:0]) for low, high in pairwise(bounds)]


def asker(recipe: Recipe, tokenizer: Tokenizer, folder: Path) -> Answer:
    """A function that asks the teacher for the targets of samples that have none on disk."""
    teacher = open_teacher(recipe.teacher)
    reduction = reduction_of(recipe, tokenizer, teacher, folder)

    def answer(samples: Sequence[Targets]) -> list[Targets]:
        return ask(teacher, reduction, [one.sample for one in samples], tokenizer, recipe)

    return answer


def untaught(sample: Sample) -> Targets:
    """A sample whose targets are asked for during training: vectors of no dimensions."""
    nothing = np.empty((0, 0), np.float32)
    chunks = np.empty((len(sample.spans), 0), np.float32)
    return Targets(sample, nothing.ravel(), chunks, np.empty((0, 2), np.int64), nothing)


def reduction_of(recipe: Recipe, tokenizer: Tokenizer, teacher: Teacher, folder: Path) -> Reduction:
    """How the teacher's vectors become the student's size; fitted once and kept in `folder`."""
    path = folder / REDUCTION
    if path.exists():
        return Reduction.load(path)
    size = recipe.vector_size or teacher.dim
    if recipe.teacher.reduce != "pca":
        sample: Floats = np.empty((0, teacher.dim), np.float32)
    else:
        sample = embed_unique(teacher, _first_chunks(recipe, tokenizer))
    reduction = fit_reduction(recipe.teacher.reduce, sample, size)
    reduction.save(path)
    return reduction


def kept_structure(recipe: Recipe, start: Path, folder: Path) -> float:
    """How much of the teacher's similarities the reduction keeps: a correlation, at best 1."""
    tokenizer, teacher = start_tokenizer(start), open_teacher(recipe.teacher)
    reduction = reduction_of(recipe, tokenizer, teacher, folder)
    vectors = embed_unique(teacher, _first_chunks(recipe, tokenizer)[:STRUCTURE_CHUNKS])
    return structure_kept(vectors, reduction.apply(vectors))


def _first_chunks(recipe: Recipe, tokenizer: Tokenizer) -> list[str]:
    """The first chunks of the corpus, as many as a reduction is fitted on."""
    chunks: list[str] = []
    for text in Corpus(recipe.corpus):
        for sample in cut_samples(text, tokenizer, recipe.split):
            chunks += sample.chunks()
        if len(chunks) >= recipe.teacher.pca_texts:
            break
    return chunks[: recipe.teacher.pca_texts]
