"""What the length audit found → its page: where each line falls, every figure, two plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dewey_embed.encoder import Dewey
from dewey_embed.eval.result_page import Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.eval.scores import Interval

FALL = 0.05

Mode = Literal["single", "multi"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was found at one length in one mode; `num_tokens` is the mean of the documents."""

    task: str
    mode: Mode
    length: int
    num_documents: int
    num_queries: int
    num_tokens: float
    in_windows: bool
    ndcg: Interval
    accuracy: Interval


Lines = dict[tuple[str, Mode], list[Point]]


def first_fall(points: Sequence[Point]) -> int | None:
    """The first length whose accuracy is 5 points or more below the shortest's; `None` if none.

    `points` are of one task and mode, shortest first.
    """
    for point in points[1:]:
        if points[0].accuracy.mean - point.accuracy.mean >= FALL - 1e-9:
            return point.length
    return None


def to_findings(
    model: Dewey, points: Sequence[Point], task_notes: Sequence[str], *, chunk_tokens: int
) -> ResultPage:
    """The page of a model's points, those of a task and mode with the shortest length first."""
    lines: Lines = {}
    for point in points:
        lines.setdefault((point.task, point.mode), []).append(point)
    notes = [
        f"Model {model.name}, fingerprint {model.fingerprint}.",
        *task_notes,
        f"single: by the document's vector; multi: by chunks of {chunk_tokens} tokens, as `dewey "
        "search` ranks them. Intervals: 95% bootstrap over queries. Chance is one in "
        "as many as there are documents.",
    ]
    windows = sorted({point.length for point in points if point.in_windows})
    if windows:
        notes.append(
            f"Longer than the model's {model.max_tokens:,} tokens, so read in overlapping windows: "
            f"{', '.join(f'{length:,}' for length in windows)}."
        )
    label = Path(model.name).name
    return ResultPage(
        kind="length",
        name=f"length-{label}",
        title=f"Retrieval by document length: {label}",
        summary=" ".join(_fall_in_words(*key, line) for key, line in lines.items()),
        machine=Machine.here(
            device=model.device.type, dtype=str(model.dtype).removeprefix("torch.")
        ),
        tables=(_falls(lines), _all_points(points, notes)),
        plots=(
            _plot("Accuracy@1", "accuracy", lines, notes),
            _plot("nDCG@10", "ndcg", lines, notes),
        ),
    )


def _fall_in_words(task: str, mode: Mode, line: Sequence[Point]) -> str:
    fall = first_fall(line)
    first, last = line[0], line[-1]
    start = f"{task}, {mode}: accuracy@1 is {first.accuracy.mean:.2f} at {first.length:,} tokens"
    if fall is None:
        return f"{start} and does not fall by 5 points up to {last.length:,}."
    at = next(point for point in line if point.length == fall)
    return (
        f"{start}; it has fallen by 5 points at {fall:,} ({at.accuracy.mean:.2f}) and is "
        f"{last.accuracy.mean:.2f} at {last.length:,}."
    )


def _falls(lines: Lines) -> Table:
    """Where each line falls by 5 points."""
    return Table(
        title="Where accuracy@1 falls by 5 points",
        columns=(
            Column(name="task"),
            Column(name="mode"),
            Column(name="shortest", unit="tokens", digits=0),
            Column(name="accuracy@1 there"),
            Column(name="5 points less at", unit="tokens", digits=0),
            Column(name="longest", unit="tokens", digits=0),
            Column(name="accuracy@1 at the longest", best="highest"),
        ),
        rows=tuple(
            (
                *key, line[0].length, line[0].accuracy.mean, first_fall(line), line[-1].length,
                line[-1].accuracy.mean,
            )
            for key, line in lines.items()
        ),
        notes=("An empty cell: it does not fall so far at any length measured.",),
    )  # fmt: skip


def _all_points(points: Sequence[Point], notes: Sequence[str]) -> Table:
    """Every figure with its interval."""
    figures = [
        Column(name=f"{name}{end}", best=None if end else "highest")
        for name in ("nDCG@10", "accuracy@1")
        for end in ("", " low", " high")
    ]
    return Table(
        title="By length",
        columns=(
            Column(name="task"),
            Column(name="mode"),
            Column(name="length", unit="tokens", digits=0),
            Column(name="mean of documents", unit="tokens", digits=0),
            Column(name="documents", digits=0),
            Column(name="queries", digits=0),
            *figures,
        ),
        rows=tuple(
            (
                point.task, point.mode, point.length, point.num_tokens, point.num_documents,
                point.num_queries, *point.ndcg, *point.accuracy,
            )
            for point in points
        ),
        notes=tuple(notes),
    )  # fmt: skip


def _plot(
    title: str, measure: Literal["accuracy", "ndcg"], lines: Lines, notes: Sequence[str]
) -> Plot:
    """A line for each task and mode over the length."""
    series = []
    for (task, mode), line in lines.items():
        values: list[Interval] = [getattr(point, measure) for point in line]
        series.append(
            Series(
                name=f"{task}, {mode}",
                x=tuple(float(point.length) for point in line),
                y=tuple(value.mean for value in values),
                low=tuple(value.low for value in values),
                high=tuple(value.high for value in values),
            )
        )
    return Plot(
        title=f"{title} by document length",
        kind="line",
        x_label="document length (tokens)",
        y_label=title,
        log_x=True,
        series=tuple(series),
        notes=tuple(notes),
    )
