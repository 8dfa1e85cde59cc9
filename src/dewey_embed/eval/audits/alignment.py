"""`dewey audit alignment`: how far a student's vectors are from its teacher's, and where.

The student reads whole documents and gives the vectors of chunks of several sizes from one pass;
the teacher reads the text of each chunk alone. What differs is what the pass adds or loses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.audits.alignment_findings import to_findings
from dewey_embed.eval.audits.angles import Measured
from dewey_embed.eval.audits.cuts import Cut, CutCache
from dewey_embed.eval.beir import is_beir_folder
from dewey_embed.eval.models import OPENAI, ST
from dewey_embed.eval.result_page import ResultPage
from dewey_embed.eval.vector_cache import VectorCache
from dewey_embed.train.corpus import Corpus, CorpusText
from dewey_embed.train.corpus_recipe import CorpusRecipe, FilesSource
from dewey_embed.train.diagnostics import Floats, HeldOut
from dewey_embed.train.samples import Draw, Sample
from dewey_embed.train.teachers.recipe import (
    EndpointTeacher,
    PackageTeacher,
    SentenceTransformersTeacher,
    TeacherRecipe,
)
from dewey_embed.train.teachers.teacher import Teacher, embed_unique, open_teacher
from dewey_embed.train.wholes import whole_vectors
from dewey_embed.types import DocumentVectors

CACHE = Path("~/.cache/dewey-embed/audits")
CHUNK_TOKENS = (64, 128, 256, 500)
"""Sizes of chunks, from the least to the most that the paper's recipe trains on."""

NUM_DOCUMENTS = 60
MAX_TOKENS = 8192
TEACHER_TOKENS = 256


def audit_alignment(
    model: Dewey,
    data: Sequence[Path],
    *,
    teacher: Teacher,
    teacher_tokens: int = TEACHER_TOKENS,
    chunk_tokens: Sequence[int] = CHUNK_TOKENS,
    num_documents: int = NUM_DOCUMENTS,
    max_tokens: int = MAX_TOKENS,
    text_field: str = "text",
    held_out: float | None = None,
    cache: Path = CACHE,
    seed: int = 0,
    progress: bool = False,
) -> ResultPage:
    """Angles between student and teacher by chunk size, place and document length; and clusters.

    `data` are files, folders or globs of texts, JSON lines or Parquet, or folders in BEIR's
    layout; of them `num_documents` texts of 200 characters or more are drawn by seed and cut at
    `max_tokens`. With `held_out` they are texts that a recipe with that `corpus.held_out` does not
    train on. `teacher_tokens` is what the teacher reads of a text. Vectors are kept in `cache`.

    Raises:
        ConfigError: impossible sizes, or a teacher whose vectors have another width.
        ReadError: a file cannot be read. TaskError: it holds no text to measure on.
        TeacherError: the teacher does not answer with vectors. InputError: the model makes NaN.

    """
    if num_documents < 1 or max_tokens < 1:
        raise ConfigError(
            f"num_documents is {num_documents} and max_tokens {max_tokens}; both must be 1 or more"
        )
    if not data:
        raise ConfigError("no data are given; give files of texts with --data")
    if teacher.dim != model.embedding_dim:
        raise ConfigError(
            f"vectors of {model.name} have {model.embedding_dim} dimensions and those of "
            f"{teacher.name} {teacher.dim}; there are angles between vectors of one width only"
        )
    sizes = sorted(set(chunk_tokens))
    student = CutCache(model, cache, [Cut(size, 0.0) for size in sizes])
    corpus = _corpus(data, text_field=text_field, held_out=held_out, seed=seed)
    drawn = _drawn(corpus, num_documents, only=held_out is not None)
    texts = _beginnings(model, drawn, max_tokens)
    documents = student.encode(texts, progress=progress)
    answers = _answers(
        teacher, _teacher_file(teacher, teacher_tokens, cache), texts, documents, len(sizes)
    )
    # The largest chunks that the teacher reads whole stand for documents that it does not.
    number = max((n for n, size in enumerate(sizes) if size <= teacher_tokens), default=0)
    samples = _samples(texts, documents, number)
    whole = whole_vectors(
        teacher,
        samples,
        np.split(answers[number], np.cumsum([len(each.spans) for each in samples])[:-1]),
        model.tokenizer,
        TeacherRecipe(max_tokens=teacher_tokens, long_texts="mean_of_chunks"),
    )
    return to_findings(
        model,
        [_measured(size, documents, place, answers[place], whole)
         for place, size in enumerate(sizes)],
        teacher_name=teacher.name,
        teacher_tokens=teacher_tokens,
        max_tokens=max_tokens,
        sources=[str(path) for path in data],
    )  # fmt: skip


def named_teacher(
    name: str, *, max_tokens: int = TEACHER_TOKENS, device: str | None = None
) -> Teacher:
    """The teacher of a name: `minilm`, `st:MODEL` or `openai:URL#MODEL`, as among the peers.

    Raises:
        ConfigError: another name, or `max_tokens` that the teacher does not read.
        MissingDependencyError: its package is not installed.
        TeacherError: it cannot be loaded or reached.

    """
    recipe: PackageTeacher | SentenceTransformersTeacher | EndpointTeacher
    if name == "minilm":
        recipe = PackageTeacher(kind="package", max_tokens=max_tokens)
    elif name.startswith(ST):
        recipe = SentenceTransformersTeacher(
            kind="sentence-transformers", model=name.removeprefix(ST), max_tokens=max_tokens
        )
    elif name.startswith(OPENAI) and "#" in name:
        url, _, model = name.removeprefix(OPENAI).partition("#")
        recipe = EndpointTeacher(kind="endpoint", url=url, model=model, max_tokens=max_tokens)
    else:
        raise ConfigError(f"no teacher {name!r}; teachers: minilm, st:MODEL, openai:URL#MODEL")
    return open_teacher(recipe, device=device)


def _corpus(data: Sequence[Path], *, text_field: str, held_out: float | None, seed: int) -> Corpus:
    """The texts of all paths, mixed evenly; of a folder in BEIR's layout those of its corpus."""
    paths = [path / "corpus.jsonl" if is_beir_folder(path) else path for path in data]
    sources = tuple(FilesSource(path=str(path), text=text_field) for path in paths)
    values = {"sources": sources, "seed": seed, "held_out": held_out or 0.0}
    return Corpus(CorpusRecipe.parse(values, source="audit alignment"))


def _drawn(corpus: Corpus, num: int, *, only: bool) -> list[CorpusText]:
    """The first texts of a corpus, `only` those that are held out.

    Raises:
        TaskError: there is none.

    """
    found = list(islice((text for text in corpus if text.held_out or not only), num))
    if not found:
        left_out = ", ".join(f"{count} {why}" for why, count in corpus.left_out.items()) or "none"
        raise TaskError(
            f"{', '.join(source.path for source in corpus.recipe.sources)}: no text to measure on "  # type: ignore[union-attr]
            f"(left out: {left_out}{'; all others are trained on' if only else ''})"
        )
    return found


def _beginnings(model: Dewey, drawn: Sequence[CorpusText], max_tokens: int) -> list[str]:
    """The texts cut at so many tokens, without those that hold no token.

    Raises:
        TaskError: none holds a token.

    """
    texts = []
    for each in drawn:
        offsets = model.tokenizer.encode([each.text])[0].offsets
        if len(offsets):
            whole = len(offsets) <= max_tokens
            texts.append(each.text if whole else each.text[: offsets[max_tokens - 1, 1]])
    if not texts:
        raise TaskError(f"none of {len(drawn)} texts holds a token; nothing can be measured")
    return texts


def _teacher_file(teacher: Teacher, teacher_tokens: int, cache: Path) -> Path:
    """Where a teacher's vectors are kept; another file if it answers otherwise than before."""
    answer = teacher.embed(["What does the teacher say of this?"])
    digest = hashlib.sha256(f"{teacher.name} {teacher_tokens}".encode())
    digest.update(np.round(answer, 4).tobytes())
    return cache.expanduser() / "teachers" / f"{digest.hexdigest()[:16]}.sqlite"


def _answers(
    teacher: Teacher,
    file: Path,
    texts: Sequence[str],
    documents: Sequence[DocumentVectors],
    num_sizes: int,
) -> list[Floats]:
    """(C, D) by size: the teacher's vectors of the texts of all chunks."""
    vectors = VectorCache(file, partial(embed_unique, teacher))
    asked = [
        [chunk for sample in _samples(texts, documents, number) for chunk in sample.chunks()]
        for number in range(num_sizes)
    ]
    flat = vectors.embed([text for some in asked for text in some], label="teacher")
    return np.split(flat, np.cumsum([len(some) for some in asked])[:-1])


def _samples(
    texts: Sequence[str], documents: Sequence[DocumentVectors], number: int
) -> list[Sample]:
    """The texts with the chunks of one size, as training has them."""
    draw = Draw(crop_start=0, crop_tokens=0, splitter="tokens", chunk_tokens=0, chunk_overlap=0)
    return [
        Sample("", "", text, [span[:2] for span in each.at(number)[1]], draw)
        for text, each in zip(texts, documents, strict=True)
    ]


def _measured(
    size: int,
    documents: Sequence[DocumentVectors],
    number: int,
    answers: Floats,
    whole: Floats,
) -> Measured:
    """Student and teacher on the chunks of one size."""
    chunks, spans = zip(*(each.at(number) for each in documents), strict=True)
    lengths = np.array([each.num_tokens for each in documents])
    owners = np.repeat(np.arange(len(documents)), [len(some) for some in spans])
    flat = [span for some in spans for span in some]
    middles = np.array([(span.token_start + span.token_end) / 2 for span in flat])
    held = HeldOut(
        cls=np.stack([each.vector for each in documents]),
        cls_targets=whole,
        chunks=np.concatenate(chunks),
        chunk_targets=answers,
        texts=owners,
        chunk_tokens=np.array([span.num_tokens for span in flat]),
        text_tokens=lengths,
    )
    return Measured(size=size, held=held, places=middles / lengths[owners])
