"""`dewey audit alignment`: how far a student's vectors are from its teacher's, and where.

The student reads complete documents and gives the vectors of chunks of several sizes from one pass;
the teacher reads the text of each chunk alone. The difference is what the pass adds or loses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.audits import CACHE
from dewey_embed.eval.audits.angles import (
    DECILES,
    MIDDLES,
    Alignment,
    Angles,
    by_document,
    by_length,
    by_place,
    degrees,
    histogram,
    length_bins,
    pair_cosines,
)
from dewey_embed.eval.beir import is_beir_folder
from dewey_embed.eval.models import OPENAI, ST
from dewey_embed.eval.result_page import (
    Cell,
    Column,
    Machine,
    Plot,
    ResultPage,
    Series,
    Table,
    interval_columns,
)
from dewey_embed.eval.scores import Doubles, Interval
from dewey_embed.eval.vector_cache import ChunkSize, DocumentVectorCache, VectorCache
from dewey_embed.train.corpus import Corpus, CorpusText
from dewey_embed.train.diagnostics import alignment_figures, rank_figures
from dewey_embed.train.recipe import (
    CorpusRecipe,
    EndpointTeacher,
    FilesSource,
    PackageTeacher,
    SentenceTransformersTeacher,
    TeacherRecipe,
)
from dewey_embed.train.samples import Draw, Sample
from dewey_embed.train.teacher_requests import document_vectors_of
from dewey_embed.train.teachers import open_teacher
from dewey_embed.train.teachers.teacher import Teacher, embed_unique
from dewey_embed.types import DocumentVectors, Floats

CHUNK_TOKENS = (64, 128, 256, 500)
"""Chunk sizes, from the smallest to the largest that the paper's recipe trains on."""

NUM_DOCUMENTS = 60
MAX_TOKENS = 8192
TEACHER_TOKENS = 256
PAIR_CHUNKS = 1500
"""Chunks of which all pairs are counted."""


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
    layout; `num_documents` texts of 200 characters or more are drawn from them by seed and cut at
    `max_tokens`. With `held_out` they are texts that a recipe with that `corpus.held_out` does not
    train on. The teacher reads the first `teacher_tokens` of a text. Vectors are kept in `cache`.

    Raises:
        ConfigError: impossible sizes, or a teacher whose vectors have another width.
        ReadError: a file cannot be read.
        TaskError: the files hold no text to measure on.
        TeacherError: the teacher does not return vectors.
        InputError: the model makes NaN.

    """
    if num_documents < 1 or max_tokens < 1:
        raise ConfigError(
            f"num_documents is {num_documents} and max_tokens {max_tokens}; both must be 1 or more"
        )
    if not data:
        raise ConfigError("no data are given; give files of texts with --data")
    axes = model.teacher_axes
    width = model.embedding_dim if axes is None else len(axes)
    if teacher.dim != width:
        raise ConfigError(
            f"vectors of {model.name} have {width} dimensions and those of {teacher.name} "
            f"{teacher.dim}; only vectors of one width have angles between them"
        )
    sizes = sorted(set(chunk_tokens))
    student = DocumentVectorCache(model, cache, [ChunkSize(size, 0.0) for size in sizes])
    corpus = _corpus(data, text_field=text_field, held_out=held_out, seed=seed)
    drawn = _drawn(corpus, num_documents, only=held_out is not None)
    texts = _beginnings(model, drawn, max_tokens)
    documents = student.encode_with_progress(texts, show=progress)
    if axes is not None:
        documents = [_in_teacher_space(each, axes) for each in documents]
    targets = _chunk_targets(
        teacher, _teacher_file(teacher, teacher_tokens, cache), texts, documents, len(sizes)
    )
    # Documents past the teacher's limit are compared with their largest chunks within it.
    number = max((n for n, size in enumerate(sizes) if size <= teacher_tokens), default=0)
    samples = _samples(texts, documents, number)
    document_targets = document_vectors_of(
        teacher,
        samples,
        np.split(targets[number], np.cumsum([len(each.spans) for each in samples])[:-1]),
        model.tokenizer,
        TeacherRecipe(max_tokens=teacher_tokens, long_texts="mean_of_chunks"),
    )
    return _page(
        model,
        [Alignment.of(size, documents, place, targets[place], document_targets)
         for place, size in enumerate(sizes)],
        notes=_notes(documents, data, max_tokens, sizes,
                     teacher_name=teacher.name, teacher_tokens=teacher_tokens),
        teacher_name=teacher.name,
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
    """The first texts of a corpus, with `only` those that are held out."""
    texts = list(islice((text for text in corpus if text.held_out or not only), num))
    if not texts:
        left_out = ", ".join(f"{count} {why}" for why, count in corpus.left_out.items()) or "none"
        raise TaskError(
            f"{', '.join(source.path for source in corpus.recipe.sources)}: no text to measure on "  # type: ignore[union-attr]
            f"(left out: {left_out}{'; all others are trained on' if only else ''})"
        )
    return texts


def _beginnings(model: Dewey, drawn: Sequence[CorpusText], max_tokens: int) -> list[str]:
    """The texts, cut at `max_tokens`, without those that hold no token."""
    texts = []
    for each in drawn:
        offsets = model.tokenizer.encode([each.text])[0].offsets
        if len(offsets):
            fits = len(offsets) <= max_tokens
            texts.append(each.text if fits else each.text[: offsets[max_tokens - 1, 1]])
    if not texts:
        raise TaskError(f"none of {len(drawn)} texts holds a token; nothing can be measured")
    return texts


def _teacher_file(teacher: Teacher, teacher_tokens: int, cache: Path) -> Path:
    """Where a teacher's vectors are kept; another file if its vectors are not as before."""
    vector = teacher.embed(["What does the teacher say of this?"])
    digest = hashlib.sha256(f"{teacher.name} {teacher_tokens}".encode())
    digest.update(np.round(vector, 4).tobytes())
    return cache.expanduser() / "teachers" / f"{digest.hexdigest()[:16]}.sqlite"


def _chunk_targets(
    teacher: Teacher,
    file: Path,
    texts: Sequence[str],
    documents: Sequence[DocumentVectors],
    num_sizes: int,
) -> list[Floats]:
    """(C, D) by size: the teacher's vectors of the texts of all chunks."""
    vectors = VectorCache(file, partial(embed_unique, teacher))
    chunks = [
        [chunk for sample in _samples(texts, documents, number) for chunk in sample.chunks()]
        for number in range(num_sizes)
    ]
    flat = vectors.embed([text for own in chunks for text in own], label="teacher")
    return np.split(flat, np.cumsum([len(own) for own in chunks])[:-1])


def _samples(
    texts: Sequence[str], documents: Sequence[DocumentVectors], number: int
) -> list[Sample]:
    """The texts with the chunks of one size, as training has them."""
    draw = Draw(crop_start=0, crop_tokens=0, splitter="tokens", chunk_tokens=0, chunk_overlap=0)
    return [
        Sample("", "", text, [span[:2] for span in each.at(number)[1]], draw)
        for text, each in zip(texts, documents, strict=True)
    ]


def _in_teacher_space(document: DocumentVectors, axes: Floats) -> DocumentVectors:
    """A document's vectors (D) along the teacher's own axes; `axes` are (T, D)."""
    return replace(document, vector=document.vector @ axes.T, chunks=document.chunks @ axes.T)


def _page(
    model: Dewey,
    alignments: Sequence[Alignment],
    *,
    notes: Sequence[str],
    teacher_name: str,
) -> ResultPage:
    """The page of a student and a teacher; the smallest chunk size comes first."""
    places, lengths = by_place(alignments), by_length(alignments)
    bins = length_bins(alignments[0])
    label = Path(model.name).name
    names = [f"chunks of {each.size}" for each in alignments]
    return ResultPage(
        kind="alignment",
        name=f"alignment-{label}",
        title=f"Alignment of {label} with {Path(teacher_name).name}",
        summary=_summary(alignments, places),
        machine=Machine.running(model),
        tables=(
            _size_table(alignments, notes),
            _place_table(alignments, places),
            _length_table(alignments, bins, lengths),
            _tightness_table(alignments),
        ),
        plots=(
            _histogram(
                "Cosine of student and teacher",
                {name: each.cosines for name, each in zip(names, alignments, strict=True)},
                "share of the chunks",
            ),
            _angle_plot(
                "Angle by place in the document", "middle of the chunk (% of the document)",
                MIDDLES,
                dict(zip(names, places, strict=True)),
            ),
            _angle_plot(
                "Angle by length of the document", "tokens of the document",
                [float(middle) for _, _, middle in bins],
                dict(zip([*names, "the document's vector"], lengths, strict=True)), log_x=True,
            ),
            _tightness_plot(alignments),
            _pair_histogram(alignments),
        ),
    )  # fmt: skip


def _notes(
    documents: Sequence[DocumentVectors],
    data: Sequence[Path],
    max_tokens: int,
    sizes: Sequence[int],
    *,
    teacher_name: str,
    teacher_tokens: int,
) -> list[str]:
    num_tokens = sum(each.num_tokens for each in documents)
    notes = [
        f"{len(documents):,} documents with {num_tokens:,} tokens from "
        f"{', '.join(map(str, data))}, cut at {max_tokens:,} tokens. The student reads complete "
        f"documents; {teacher_name} reads the text of each chunk alone. Chunks do not overlap.",
        "Means over documents of the means of their chunks, with 95% bootstrap intervals over "
        "documents.",
    ]
    cut = [str(size) for size in sizes if size > teacher_tokens]
    if cut:
        notes.append(
            f"The teacher reads {teacher_tokens} tokens: of chunks of {', '.join(cut)} tokens it "
            "sees the beginning only."
        )
    if len(documents) == 1:
        notes.append("One document: no chunks of two documents can be compared.")
    return notes


def _summary(alignments: Sequence[Alignment], places: Angles) -> str:
    angles = [
        f"{angle.mean:.1f}° at {each.size} tokens"
        for each in alignments
        if (angle := each.angle()) is not None
    ]
    summary = f"Mean angle to the teacher: {', '.join(angles)}."
    middle = len(alignments) // 2
    known = [angle.mean for angle in places[middle] if angle is not None]
    if known:
        summary += (
            f" Along documents (chunks of {alignments[middle].size}) it lies between "
            f"{min(known):.1f}° and {max(known):.1f}°."
        )
    ours, theirs = alignments[middle].tightness
    if ours.difference is not None and theirs.difference is not None:
        summary += (
            f" The cosine of two chunks of one document is higher than that of two documents by "
            f"{ours.difference:.3f} for the student, {theirs.difference:.3f} for the teacher."
        )
    return summary


def _size_table(alignments: Sequence[Alignment], notes: Sequence[str]) -> Table:
    """Cosine and angle of chunks of each size."""
    rows: list[tuple[Cell, ...]] = []
    for each in alignments:
        cosine = by_document(each.cosines, each.held.texts)
        angle = by_document(degrees(each.cosines), each.held.texts)
        assert cosine is not None
        assert angle is not None
        figures = alignment_figures(each.held)
        rows.append(
            (
                each.size, len(each.cosines), *cosine, *angle,
                float(np.quantile(degrees(each.cosines), 0.9)),
                figures.get("similarity_correlation"), figures["target_recall_at_1"],
            )
        )  # fmt: skip
    return Table(
        title="By size of chunks",
        columns=(
            Column(name="chunk", unit="tokens", digits=0),
            Column(name="chunks", digits=0),
            *interval_columns("cosine", best="highest", digits=3),
            *interval_columns("angle", unit="°", best="lowest", digits=1),
            Column(name="90th percentile", unit="°", best="lowest", digits=1),
            Column(name="correlation of similarities", best="highest", digits=3),
            Column(name="own target nearest", best="highest", digits=3),
        ),
        rows=tuple(rows),
        notes=(
            *notes,
            "Correlation of similarities: between the student's and the teacher's cosines of "
            "pairs of chunks. Own target nearest: the share of chunks whose nearest teacher "
            "vector is that of their own text. Both over the first 2,000 chunks.",
        ),
    )


def _place_table(alignments: Sequence[Alignment], places: Angles) -> Table:
    return Table(
        title="By place in the document",
        columns=(Column(name="place in the document"), *_angle_columns(alignments)),
        rows=tuple(
            (f"{10 * place}–{10 * place + 10}%", *_means(places, place)) for place in range(DECILES)
        ),
        notes=("Over documents with at least ten chunks of the size.",),
    )


def _length_table(
    alignments: Sequence[Alignment], bins: Sequence[tuple[int, int, int]], lengths: Angles
) -> Table:
    tokens = alignments[0].held.text_tokens
    return Table(
        title="By length of the document",
        columns=(
            Column(name="over", unit="tokens", digits=0),
            Column(name="up to", unit="tokens", digits=0),
            Column(name="documents", digits=0),
            *_angle_columns(alignments),
            Column(name="the document's vector", unit="°", best="lowest", digits=1),
        ),
        rows=tuple(
            (low, high, int(((tokens > low) & (tokens <= high)).sum()), *_means(lengths, row))
            for row, (low, high, _) in enumerate(bins)
        ),
        notes=(
            "The document's vector is compared with the mean of the teacher's vectors of its "
            "chunks, weighted by length; that of a short document with the teacher's vector of it.",
        ),
    )


def _angle_columns(alignments: Sequence[Alignment]) -> list[Column]:
    return [
        Column(name=f"chunks of {each.size}", unit="°", best="lowest", digits=1)
        for each in alignments
    ]


def _means(angles: Angles, row: int) -> list[float | None]:
    return [None if (angle := line[row]) is None else angle.mean for line in angles]


def _tightness_table(alignments: Sequence[Alignment]) -> Table:
    """How chunks of one document cluster, to the student and to the teacher."""
    rows: list[tuple[Cell, ...]] = []
    for each in alignments:
        ours, theirs = each.tightness
        excess = None
        if ours.difference is not None and theirs.difference is not None:
            excess = ours.difference - theirs.difference
        ranks = rank_figures(each.held)
        rows.append(
            (
                each.size, *ours, ours.difference, *theirs, theirs.difference, excess,
                ranks["effective_rank"], ranks["rank_ratio"],
            )
        )  # fmt: skip
    return Table(
        title="How tightly a document's chunks cluster",
        columns=(
            Column(name="chunk", unit="tokens", digits=0),
            *(
                Column(name=f"{who}: {what}", digits=3)
                for who in ("student", "teacher")
                for what in ("within", "between", "difference")
            ),
            Column(name="excess of the student", digits=3, best="lowest"),
            Column(name="effective rank", digits=1, best="highest"),
            Column(name="share of the teacher's rank", digits=3, best="highest"),
        ),
        rows=tuple(rows),
        notes=(
            "Within: mean cosine of two chunks of one document; between: of two documents. A "
            "dash: there are no two.",
        ),
    )


def _pair_histogram(alignments: Sequence[Alignment]) -> Plot:
    """Cosines of two chunks of one document and of two, to the student and to the teacher."""
    chosen = alignments[len(alignments) // 2]
    held = chosen.held
    values: dict[str, Doubles] = {}
    for who, vectors in (("student", held.chunks), ("teacher", held.chunk_targets)):
        same, other = pair_cosines(vectors, held.texts, PAIR_CHUNKS)
        values |= {f"{who}, one document": same, f"{who}, two": other}
    return _histogram(
        f"Cosines of two chunks of {chosen.size} tokens", values, "share of the pairs"
    )


def _histogram(title: str, values: Mapping[str, Doubles], y_label: str) -> Plot:
    """Shares by cosine, in the same bars for all; series without values are left out."""
    known = {name: each for name, each in values.items() if len(each)}
    both = np.concatenate([*known.values(), np.empty(0)])
    low = float(np.floor(both.min(initial=1.0) * 10) / 10)
    series = tuple(histogram(name, each, min(low, 0.9), 1.0) for name, each in known.items())
    return Plot(title=title, kind="histogram", x_label="cosine", y_label=y_label, series=series)


def _angle_plot(
    title: str,
    x_label: str,
    x: Sequence[float],
    lines: Mapping[str, Sequence[Interval | None]],
    *,
    log_x: bool = False,
) -> Plot:
    """Angles with their intervals along an axis, with gaps where there are none."""
    return Plot(
        title=title,
        kind="line",
        x_label=x_label,
        y_label="angle to the teacher (°)",
        log_x=log_x,
        series=tuple(
            Series.of_intervals(name, x, angles) for name, angles in lines.items() if any(angles)
        ),
    )


def _tightness_plot(alignments: Sequence[Alignment]) -> Plot:
    """How much more alike a document's chunks are, by their size, to each of the two."""
    return Plot(
        title="How tightly a document's chunks cluster",
        kind="line",
        x_label="tokens of a chunk",
        y_label="cosine within a document − between documents",
        log_x=True,
        series=tuple(
            Series(
                name=who,
                x=tuple(float(each.size) for each in alignments),
                y=tuple(each.tightness[number].difference for each in alignments),
            )
            for number, who in enumerate(("student", "teacher"))
        ),
    )
