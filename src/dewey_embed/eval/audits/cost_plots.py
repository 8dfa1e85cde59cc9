"""Plots of the cost audit: accuracy against bytes, and by each choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dewey_embed.eval.audits.ways import Choices, Kind, Point, Way, name_of
from dewey_embed.eval.result_page import Plot, Series

NAMED_GAIN = 0.05
"""How far below the next named a point of the front must be to be named; the last one is."""

KINDS: dict[Kind, str] = {"single": "one vector", "clustered": "clusters", "multi": "chunks"}


def front_plot(points: Sequence[Point], front: Sequence[Point]) -> Plot:
    """Accuracy against bytes; the front last, over the others."""
    on_front = {id(point) for point in front}
    series = []
    for kind, name in KINDS.items():
        some = [each for each in points if each.way.kind == kind and id(each) not in on_front]
        if some:
            series.append(
                Series(
                    name=name,
                    x=tuple(each.num_bytes / 1e6 for each in some),
                    y=tuple(each.ndcg for each in some),
                )
            )
    named = [front[-1]]
    for point in reversed(front):
        if point.ndcg <= named[-1].ndcg - NAMED_GAIN:
            named.append(point)
    ids = {id(each) for each in named}
    labels = [name_of(each.way) if id(each) in ids else "" for each in front]
    series.append(
        Series(
            name="on the front",
            x=tuple(each.num_bytes / 1e6 for each in front),
            y=tuple(each.ndcg for each in front),
            labels=tuple(labels),
        )
    )
    return Plot(
        title="Accuracy against bytes",
        kind="points",
        x_label="bytes of all vectors (MB)",
        y_label="nDCG@10",
        log_x=True,
        series=tuple(series),
        notes=(f"Named: the last of the front, and what is {NAMED_GAIN:g} below the next named.",),
    )


def curves(points: Sequence[Point], usual: Point, choices: Choices) -> list[Plot]:
    """Accuracy by chunk size and overlap, by clusters, and by width at each precision."""
    full = [each for each in points if each.way.dim == usual.way.dim]
    plain = [each for each in full if each.way.precision == usual.way.precision]
    by_size = {
        f"overlap {overlap:g}": [
            each for each in plain
            if each.way.kind == "multi" and each.way.cut and each.way.cut.overlap == overlap
        ]
        for overlap in sorted(choices.overlaps)
    }  # fmt: skip
    by_clusters = {
        precision: [
            each for each in full
            if each.way.kind == "clustered" and each.way.precision == precision
        ]
        for precision in choices.precisions
    }  # fmt: skip
    by_width = {
        f"{KINDS[kind]}, {precision}": [
            each for each in points
            if each.way.kind == kind and each.way.precision == precision
            and each.way.cut in (None, choices.base)
        ]
        for kind in ("single", "multi")
        for precision in choices.precisions
    }  # fmt: skip
    made = (
        _lines("Accuracy by size of chunks", "tokens of a chunk", by_size, _chunk_tokens),
        _lines("Accuracy by clusters", "clusters a document", by_clusters, _clusters),
        _lines("Accuracy by width", "dimensions", by_width, _dim),
    )
    return [plot for plot in made if plot.series]


def _chunk_tokens(way: Way) -> int:
    return way.cut.chunk_tokens if way.cut else 0


def _clusters(way: Way) -> int:
    return way.clusters or 0


def _dim(way: Way) -> int:
    return way.dim


def _lines(
    title: str, x_label: str, lines: Mapping[Any, Sequence[Point]], x_of: Callable[[Way], int]
) -> Plot:
    """A line for each name, over what `x_of` says of its points' ways."""
    series = []
    for name, points in lines.items():
        along = sorted(points, key=lambda each: x_of(each.way))
        if along:
            series.append(
                Series(
                    name=name,
                    x=tuple(float(x_of(each.way)) for each in along),
                    y=tuple(each.ndcg for each in along),
                )
            )
    return Plot(
        title=title,
        kind="line",
        x_label=x_label,
        y_label="nDCG@10",
        log_x=True,
        series=tuple(series),
    )
