"""What the alignment audit found → its page: angles by size, place and length; clusters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.eval.audits.alignment_plots import (
    angle_plot,
    cosine_histogram,
    pair_histogram,
    tightness_plot,
)
from dewey_embed.eval.audits.angles import (
    DECILES,
    Angles,
    Measured,
    Tightness,
    angle_of,
    by_document,
    by_length,
    by_place,
    degrees,
    length_bins,
    tightness,
)
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.eval.scores import Interval
from dewey_embed.train.diagnostics import alignment_figures, rank_figures


def to_findings(
    model: Dewey,
    measured: Sequence[Measured],
    *,
    teacher_name: str,
    teacher_tokens: int,
    max_tokens: int,
    sources: Sequence[str],
) -> ResultPage:
    """The page of a student and a teacher; `measured` are sizes of chunks, the smallest first."""
    places, lengths = by_place(measured), by_length(measured)
    bins = length_bins(measured[0])
    tight = [_tightness(each) for each in measured]
    notes = _notes(measured, teacher_name, teacher_tokens, max_tokens, sources)
    label = Path(model.name).name
    names = [f"chunks of {each.size}" for each in measured]
    return ResultPage(
        kind="alignment",
        name=f"alignment-{label}",
        title=f"Alignment of {label} with {Path(teacher_name).name}",
        summary=_summary(measured, places, tight),
        machine=Machine.here(
            device=model.device.type, dtype=str(model.dtype).removeprefix("torch.")
        ),
        tables=(
            _size_table(measured, notes),
            _place_table(measured, places),
            _length_table(measured, bins, lengths),
            _tightness_table(measured, tight),
        ),
        plots=(
            cosine_histogram(measured),
            angle_plot(
                "Angle by place in the document", "middle of the chunk (% of the document)",
                [100 * (place + 0.5) / DECILES for place in range(DECILES)],
                dict(zip(names, places, strict=True)),
            ),
            angle_plot(
                "Angle by length of the document", "tokens of the document",
                [float(middle) for _, _, middle in bins],
                dict(zip([*names, "the document's vector"], lengths, strict=True)), log_x=True,
            ),
            tightness_plot(measured, tight),
            pair_histogram(measured),
        ),
    )  # fmt: skip


def _tightness(measured: Measured) -> tuple[Tightness, Tightness]:
    """The student's, and the teacher's."""
    held = measured.held
    return tightness(held.chunks, held.texts), tightness(held.chunk_targets, held.texts)


def _notes(
    measured: Sequence[Measured],
    teacher_name: str,
    teacher_tokens: int,
    max_tokens: int,
    sources: Sequence[str],
) -> list[str]:
    lengths = measured[0].held.text_tokens
    notes = [
        f"{len(lengths):,} documents of {int(lengths.sum()):,} tokens from {', '.join(sources)}, "
        f"cut at {max_tokens:,} tokens. The student reads them whole; {teacher_name} reads the "
        "text of each chunk alone. Chunks do not overlap.",
        "Means over documents of the means of their chunks, with 95% bootstrap intervals over "
        "documents.",
    ]
    cut = [str(each.size) for each in measured if each.size > teacher_tokens]
    if cut:
        notes.append(
            f"The teacher reads {teacher_tokens} tokens: of chunks of {', '.join(cut)} tokens it "
            "sees the beginning only."
        )
    if len(lengths) == 1:
        notes.append("One document: nothing can be said of likeness between documents.")
    return notes


def _summary(
    measured: Sequence[Measured],
    places: Angles,
    tight: Sequence[tuple[Tightness, Tightness]],
) -> str:
    parts = []
    for each in measured:
        angle = angle_of(each, np.ones(len(each.cosines), bool))
        assert angle is not None
        parts.append(f"{angle.mean:.1f}° at {each.size} tokens")
    said = f"Mean angle to the teacher: {', '.join(parts)}."
    middle = len(measured) // 2
    known = [angle.mean for angle in places[middle] if angle is not None]
    if known:
        said += (
            f" Along documents (chunks of {measured[middle].size}) it is between {min(known):.1f}° "
            f"and {max(known):.1f}°."
        )
    ours, theirs = tight[middle]
    if ours.difference is not None and theirs.difference is not None:
        said += (
            f" Chunks of one document are {ours.difference:.3f} more alike than others to the "
            f"student, {theirs.difference:.3f} to the teacher."
        )
    return said


def _size_table(measured: Sequence[Measured], notes: Sequence[str]) -> Table:
    """Cosine and angle of chunks of each size."""
    rows: list[tuple[Cell, ...]] = []
    for each in measured:
        cosine = by_document(each.cosines, each.held.texts)
        angle = by_document(degrees(each.cosines), each.held.texts)
        assert cosine is not None
        assert angle is not None
        figures = alignment_figures(each.held)
        rows.append(
            (
                each.size, len(each.cosines), *cosine, *angle,
                float(np.quantile(degrees(each.cosines), 0.9)),
                figures.get("similarity_correlation"), figures["own_target_first"],
            )
        )  # fmt: skip
    return Table(
        title="By size of chunks",
        columns=(
            Column(name="chunk", unit="tokens", digits=0),
            Column(name="chunks", digits=0),
            Column(name="cosine", best="highest", digits=3),
            Column(name="cosine low", digits=3),
            Column(name="cosine high", digits=3),
            Column(name="angle", unit="°", best="lowest", digits=1),
            Column(name="angle low", unit="°", digits=1),
            Column(name="angle high", unit="°", digits=1),
            Column(name="nine in ten below", unit="°", best="lowest", digits=1),
            Column(name="correlation of similarities", best="highest", digits=3),
            Column(name="own vector nearest", best="highest", digits=3),
        ),
        rows=tuple(rows),
        notes=(
            *notes,
            "Correlation: of student's and teacher's cosines of pairs of chunks. Own vector "
            "nearest: share of chunks whose nearest teacher vector is their own, of the first "
            "2,000.",
        ),
    )


def _place_table(measured: Sequence[Measured], places: Angles) -> Table:
    return Table(
        title="By place in the document",
        columns=(Column(name="part of the document"), *_angle_columns(measured)),
        rows=tuple(
            (f"{10 * place}–{10 * place + 10}%", *(_mean(angles[place]) for angles in places))
            for place in range(DECILES)
        ),
        notes=("Documents of ten chunks of the size or more.",),
    )


def _length_table(
    measured: Sequence[Measured], bins: Sequence[tuple[int, int, int]], lengths: Angles
) -> Table:
    found = measured[0].held.text_tokens
    return Table(
        title="By length of the document",
        columns=(
            Column(name="over", unit="tokens", digits=0),
            Column(name="up to", unit="tokens", digits=0),
            Column(name="documents", digits=0),
            *_angle_columns(measured),
            Column(name="the document's vector", unit="°", best="lowest", digits=1),
        ),
        rows=tuple(
            (
                low, high, int(((found > low) & (found <= high)).sum()),
                *(_mean(angles[row]) for angles in lengths),
            )
            for row, (low, high, _) in enumerate(bins)
        ),
        notes=(
            "The document's vector is compared with the mean of the teacher's vectors of its "
            "chunks, weighted by length; a short document's with the teacher's vector of it.",
        ),
    )  # fmt: skip


def _angle_columns(measured: Sequence[Measured]) -> list[Column]:
    return [
        Column(name=f"chunks of {each.size}", unit="°", best="lowest", digits=1)
        for each in measured
    ]


def _mean(angle: Interval | None) -> float | None:
    return None if angle is None else angle.mean


def _tightness_table(
    measured: Sequence[Measured], tight: Sequence[tuple[Tightness, Tightness]]
) -> Table:
    """How chunks of one document cluster, to the student and to the teacher."""
    rows: list[tuple[Cell, ...]] = []
    for each, (ours, theirs) in zip(measured, tight, strict=True):
        extra = None
        if ours.difference is not None and theirs.difference is not None:
            extra = ours.difference - theirs.difference
        ranks = rank_figures(each.held)
        rows.append(
            (
                each.size, *ours, ours.difference, *theirs, theirs.difference, extra,
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
            Column(name="student's more", digits=3, best="lowest"),
            Column(name="effective rank", digits=1, best="highest"),
            Column(name="of the teacher's", digits=3, best="highest"),
        ),
        rows=tuple(rows),
        notes=(
            "Mean cosines of two chunks of one document, and of two documents. An empty cell: "
            "there are no two.",
        ),
    )
