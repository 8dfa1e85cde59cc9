"""What the cost audit found → its page: the front, every way of storing, what each choice costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dewey_embed.encoder import Dewey
from dewey_embed.eval.audits.cost_plots import KINDS, curves, front_plot
from dewey_embed.eval.audits.encode_time import EncodeTime
from dewey_embed.eval.audits.ways import Choices, Point, Way, name_of, pareto_front
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.eval.scores import interval, paired_p_value
from dewey_embed.types import DocumentVectors

NEAR = 0.01
"""What the summary takes for as good as the usual way."""


def to_findings(
    model: Dewey,
    task: RetrievalData,
    documents: Sequence[DocumentVectors],
    *,
    choices: Choices,
    points: Sequence[Point],
    times: Sequence[EncodeTime],
) -> ResultPage:
    """The page of a model's points on a corpus."""
    front = pareto_front(points)
    usual = next(
        each for each in points if each.way.kind == "multi" and each.way.cut == choices.base
    )
    notes = _notes(task, documents, choices)
    label = Path(model.name).name
    return ResultPage(
        kind="cost",
        name=f"cost-{label}-{task.name}",
        title=f"What many vectors buy and cost: {label} on {task.name}",
        summary=_summary(points, front, usual, times),
        machine=Machine.here(
            device=model.device.type, dtype=str(model.dtype).removeprefix("torch.")
        ),
        tables=(
            _points_table("On the front", front, front, notes),
            _one_change_table(points, usual),
            _encode_table(times),
            _points_table("All ways", points, front, notes),
        ),
        plots=(front_plot(points, front), *curves(points, usual, choices)),
    )


def _notes(
    task: RetrievalData, documents: Sequence[DocumentVectors], choices: Choices
) -> list[str]:
    """What a reader of the figures must know."""
    num_tokens = sum(each.num_tokens for each in documents)
    base = choices.base
    notes = [
        f"{task.name}: {len(documents):,} documents of {num_tokens:,} tokens together, "
        f"{len(task.queries):,} queries.",
        "One vector: the document's own. Chunks and clusters stand beside it, and documents are "
        "ranked as `dewey search` ranks them in mode multi: by the best of these and, a quarter, "
        f"by their own. Clusters: spherical k-means over chunks of {base.chunk_tokens} tokens that "
        f"overlap by {base.overlap_tokens}; a document with fewer chunks keeps them.",
        "Bytes: of all vectors as stored, the documents' own with them, without ids and texts. "
        "Query: the median of one exact search by FAISS on one thread for the 400 nearest vectors, "
        "after the query was encoded. Queries stay in float32.",
        "The front: no other way finds more with as many bytes, or as much with fewer. It is "
        "drawn from the same queries that it is judged by: read differences below a point as none.",
    ]
    without = sum(not len(each.chunks) for each in documents)
    if without:
        notes.append(f"{without:,} documents hold no token: their own vector stands for chunks.")
    if len(documents) == 1:
        notes.append("The corpus is one document: every way finds it, and no figure says anything.")
    if len(choices.overlaps) > 1:
        others = ", ".join(f"{each:g}" for each in choices.overlaps[1:])
        notes.append(
            f"Overlaps of {others} of a chunk are measured in {choices.precisions[0]} at full "
            f"width; all else overlaps by {choices.overlaps[0]:g}."
        )
    return notes


def _summary(
    points: Sequence[Point], front: Sequence[Point], usual: Point, times: Sequence[EncodeTime]
) -> str:
    """The figures that most readers want."""
    single = next(each for each in points if each.way.kind == "single")
    near = next(each for each in front if each.ndcg >= usual.ndcg - NEAR)
    cut = usual.way.cut
    alone = times[0]
    extra = next(each.seconds for each in times if each.cut == cut) / alone.seconds - 1
    spread = alone.slowest / alone.seconds - 1
    return (
        f"{name_of(single.way)}: nDCG@10 {single.ndcg:.3f} in {_size(single)}; "
        f"{name_of(usual.way)}: {usual.ndcg:.3f} in {_size(usual)} "
        f"({usual.num_bytes / single.num_bytes:.1f} times the bytes). "
        f"Smallest within a point of that: {name_of(near.way)}, {near.ndcg:.3f} in "
        f"{_size(near)} ({near.num_bytes / single.num_bytes:.2f} times the single vectors'). "
        f"Its chunk vectors change the time of encoding by {extra:+.1%}, where rounds of the same "
        f"differ by {spread:.1%}."
    )


def _size(point: Point) -> str:
    """The bytes of a point in words."""
    if point.num_bytes < 1e6:
        return f"{point.num_bytes / 1e3:.1f} kB"
    return f"{point.num_bytes / 1e6:.1f} MB"


def _points_table(
    title: str, points: Sequence[Point], front: Sequence[Point], notes: Sequence[str]
) -> Table:
    """A row for each point."""
    on_front = {id(point) for point in front}
    return Table(
        title=title,
        columns=(
            Column(name="vectors"),
            Column(name="chunk", unit="tokens", digits=0),
            Column(name="overlap", unit="tokens", digits=0),
            Column(name="clusters a document", digits=0),
            Column(name="precision"),
            Column(name="dimensions", digits=0),
            Column(name="nDCG@10", best="highest"),
            Column(name="low"),
            Column(name="high"),
            Column(name="recall@10", best="highest"),
            Column(name="number of vectors", digits=0),
            Column(name="index", unit="bytes", best="lowest", digits=0),
            Column(name="query", unit="ms", best="lowest", digits=3),
            Column(name="on the front"),
        ),
        rows=tuple(
            (
                *_way_cells(point.way), *interval(point.scores), point.recall, point.num_vectors,
                point.num_bytes, 1000 * point.seconds, "yes" if id(point) in on_front else "no",
            )
            for point in points
        ),
        notes=(*notes, "Low and high: the 95% bootstrap interval over queries."),
    )  # fmt: skip


def _way_cells(way: Way) -> tuple[Cell, ...]:
    cut = way.cut
    return (
        KINDS[way.kind],
        cut.chunk_tokens if cut else None,
        cut.overlap_tokens if cut else None,
        way.clusters,
        way.precision,
        way.dim,
    )


def _one_change_table(points: Sequence[Point], usual: Point) -> Table:
    """The ways that differ from the usual one in one thing, each against it, query by query."""
    rows: list[tuple[Cell, ...]] = []
    for what, point in _one_change(points, usual):
        rows.append(
            (
                what, name_of(point.way), point.ndcg, point.ndcg - usual.ndcg,
                None if point is usual else paired_p_value(point.scores, usual.scores),
                point.num_bytes / usual.num_bytes, point.seconds / usual.seconds,
            )
        )  # fmt: skip
    return Table(
        title="One thing changed",
        columns=(
            Column(name="changed"),
            Column(name="to"),
            Column(name="nDCG@10", best="highest"),
            Column(name="difference", digits=4),
            Column(name="p", digits=3),
            Column(name="bytes", unit="times", digits=3, best="lowest"),
            Column(name="query", unit="times", digits=2, best="lowest"),
        ),
        rows=tuple(rows),
        notes=(
            f"All against {name_of(usual.way)}. p: the paired randomisation test over queries.",
        ),
    )


def _one_change(points: Sequence[Point], usual: Point) -> list[tuple[str, Point]]:
    """The points that differ from the usual one in one thing, with its name."""
    found = [("nothing", usual)]
    way = usual.way
    assert way.cut is not None
    for point in points:
        other = point.way
        alike = replace(other, cut=way.cut, clusters=None, kind="multi") == way
        if other.kind != "multi":
            if alike:
                found.append(("vectors", point))
        elif other.cut and alike and other != way:
            if other.cut.overlap == way.cut.overlap:
                found.append(("chunk size", point))
            elif other.cut.chunk_tokens == way.cut.chunk_tokens:
                found.append(("overlap", point))
        elif replace(other, precision=way.precision) == way and other != way:
            found.append(("precision", point))
        elif replace(other, dim=way.dim) == way and other != way:
            found.append(("dimensions", point))
    return found


def _encode_table(times: Sequence[EncodeTime]) -> Table:
    """What chunk vectors add to the time of a pass."""
    alone = times[0].seconds
    return Table(
        title="Time of encoding",
        columns=(
            Column(name="made"),
            Column(name="speed", unit="tokens/s", digits=0, best="highest"),
            Column(name="time", unit="ms for 1,000 tokens", digits=2, best="lowest"),
            Column(name="more than one vector", unit="%", digits=1),
            Column(name="slowest round", unit="% more", digits=1),
            Column(name="vectors", digits=0),
        ),
        rows=tuple(
            (
                each.name, each.num_tokens / each.seconds, 1e6 * each.seconds / each.num_tokens,
                100 * (each.seconds / alone - 1), 100 * (each.slowest / each.seconds - 1),
                each.num_vectors,
            )
            for each in times
        ),
        notes=(
            f"Some of the documents, {times[0].num_tokens:,} tokens; the fastest of three rounds, "
            "tokenizing and cutting included.",
        ),
    )  # fmt: skip
