"""Plots of the alignment audit: histograms of cosines, angles along an axis, clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dewey_embed.eval.audits.angles import Doubles, Measured, Tightness, pair_cosines
from dewey_embed.eval.result_page import Plot, Series
from dewey_embed.eval.scores import Interval

BARS = 40
PAIR_CHUNKS = 1500
"""Chunks of which all pairs are counted."""


def cosine_histogram(measured: Sequence[Measured]) -> Plot:
    """Cosines of student and teacher, for each size of chunks."""
    return _histogram(
        "Cosine of student and teacher",
        {f"chunks of {each.size}": each.cosines for each in measured},
        "share of the chunks",
    )


def pair_histogram(measured: Sequence[Measured]) -> Plot:
    """Cosines of two chunks of one document and of two, to the student and to the teacher."""
    chosen = measured[len(measured) // 2]
    held = chosen.held
    values: dict[str, Doubles] = {}
    for who, vectors in (("student", held.chunks), ("teacher", held.chunk_targets)):
        same, other = pair_cosines(vectors, held.texts, PAIR_CHUNKS)
        values |= {f"{who}, one document": same, f"{who}, two": other}
    return _histogram(
        f"Cosines of two chunks of {chosen.size} tokens", values, "share of the pairs"
    )


def _histogram(title: str, values: Mapping[str, Doubles], y_label: str) -> Plot:
    """Shares by cosine, the same bars for all; without what has no values."""
    known = {name: each for name, each in values.items() if len(each)}
    both = np.concatenate([*known.values(), np.empty(0)])
    low = float(np.floor(both.min(initial=1.0) * 10) / 10)
    edges = np.linspace(min(low, 0.9), 1.0, BARS + 1)
    series = []
    for name, each in known.items():
        counts, _ = np.histogram(np.clip(each, edges[0], 1.0), edges)
        series.append(
            Series(
                name=name,
                x=tuple(edges[:-1].tolist()),
                y=tuple((counts / len(each)).tolist()),
            )
        )
    return Plot(
        title=title, kind="histogram", x_label="cosine", y_label=y_label, series=tuple(series)
    )


def angle_plot(
    title: str,
    x_label: str,
    x: Sequence[float],
    lines: Mapping[str, Sequence[Interval | None]],
    *,
    log_x: bool = False,
) -> Plot:
    """Angles with their intervals along an axis; where there is none, a gap."""
    return Plot(
        title=title,
        kind="line",
        x_label=x_label,
        y_label="angle to the teacher (°)",
        log_x=log_x,
        series=tuple(
            Series(
                name=name,
                x=tuple(x),
                y=tuple(None if each is None else each.mean for each in angles),
                low=tuple(None if each is None else each.low for each in angles),
                high=tuple(None if each is None else each.high for each in angles),
            )
            for name, angles in lines.items()
            if any(angles)
        ),
    )


def tightness_plot(
    measured: Sequence[Measured], tight: Sequence[tuple[Tightness, Tightness]]
) -> Plot:
    """How much more alike a document's chunks are, by their size, to each of the two."""
    return Plot(
        title="How tightly a document's chunks cluster",
        kind="line",
        x_label="tokens of a chunk",
        y_label="cosine within less between",
        log_x=True,
        series=tuple(
            Series(
                name=who,
                x=tuple(float(each.size) for each in measured),
                y=tuple(pair[number].difference for pair in tight),
            )
            for number, who in enumerate(("student", "teacher"))
        ),
    )
