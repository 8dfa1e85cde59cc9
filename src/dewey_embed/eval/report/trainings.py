"""What `dewey ablate` and `dewey train` wrote → `ResultPage`, so that a report can hold them.

Their files tell neither a date nor the number of threads; the pages leave both out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dewey_embed.config import fault
from dewey_embed.errors import ConfigError, ResultsError
from dewey_embed.eval.result_page import Cell, Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.train.card import FIGURES
from dewey_embed.train.grid import Grid, Result

MEASURES: dict[str, tuple[str, Literal["highest", "lowest"]]] = {
    "chunk_cosine": ("chunks", "highest"),
    "cls_cosine": ("CLS", "highest"),
    "similarity_correlation": ("similarities", "highest"),
    "own_target_first": ("own target first", "highest"),
    "extra_tightness": ("extra tightness", "lowest"),
}
BY_LENGTH = {"chunk_cosine_in/": "Chunks", "cls_cosine/": "CLS"}


def is_ablation(values: Any) -> bool:
    """Whether a JSON file's content is what `dewey ablate` writes."""
    return isinstance(values, dict) and {"grid", "runs"} <= values.keys()


def is_training(values: Any) -> bool:
    """Whether a JSON file's content is what `dewey train` writes at the end of a run."""
    return isinstance(values, dict) and {"figures", "train_hours", "recipe"} <= values.keys()


def read_ablation(path: Path, values: Mapping[str, Any]) -> ResultPage:
    """The page of a grid: every run's figures, overall and by length of the text.

    Raises:
        ResultsError: the file is not as `dewey ablate` writes it.

    """
    try:
        grid = Grid.parse(values["grid"], source=f"{path}: grid")
        runs = [Result.parse(run, source=f"{path}: runs") for run in values["runs"]]
        machine, versions = _setup(values["machine"])
        command = str(values["command"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: is no result of `dewey ablate`: {_reason(error)}") from None
    if not runs:
        raise ResultsError(f"{path}: holds no finished run; start `dewey ablate` again")
    return ResultPage(
        kind="ablation",
        name=_name(path),
        title=grid.title,
        summary=grid.question,
        command=command,
        date="",
        machine=machine,
        versions=versions,
        tables=(_overall(grid, runs),),
        plots=tuple(
            plot
            for prefix, label in BY_LENGTH.items()
            if (plot := _by_length(grid, runs, prefix, label)) is not None
        ),
    )


def read_training(path: Path, values: Mapping[str, Any]) -> ResultPage:
    """The page of one training run: its figures on held-out texts, and what it took.

    Raises:
        ResultsError: the file is not as `dewey train` writes it.

    """
    try:
        figures = TypeAdapter(dict[str, float]).validate_python(values["figures"])
        machine, versions = _setup(values["machine"])
        hours, steps, tokens = float(values["train_hours"]), values["steps"], values["tokens"]
        summary = (
            f"{steps:,} steps, {tokens:,} tokens, {hours:.2f} hours; the best checkpoint is that "
            f"of step {values['best_step']:,}."
        )
        if before := values.get("before"):
            summary += (
                f" It went on from {len(before)} runs: {sum(run['tokens'] for run in before):,} "
                f"tokens, {sum(run['train_hours'] for run in before):.2f} hours."
            )
        command = str(values["command"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: is no result of `dewey train`: {_reason(error)}") from None
    rows: list[tuple[Cell, ...]] = [
        (about, figures[key]) for key, about in FIGURES.items() if key in figures
    ]
    rows += [
        (f"passkey found at {key.partition('/')[2]} tokens", value)
        for key, value in figures.items()
        if key.startswith("passkey/")
    ]
    table = Table(
        title="On held-out texts",
        columns=(Column(name="figure"), Column(name="value")),
        rows=tuple(rows),
        notes=("The texts were never trained on.",),
    )
    lines = _lines(figures)
    plot = Plot(
        title="Cosine to the teacher by length of the text",
        kind="line",
        x_label="tokens of the text",
        y_label="cosine to the teacher",
        series=tuple(lines),
    )
    return ResultPage(
        kind="training",
        name=_name(path),
        title=f"Training: {_name(path)}",
        summary=summary,
        command=command,
        date="",
        machine=machine,
        versions=versions,
        tables=(table,),
        plots=(plot,) if lines else (),
    )


def _overall(grid: Grid, runs: Sequence[Result]) -> Table:
    told = {key: told for key, told in MEASURES.items() if any(key in r.figures for r in runs)}
    return Table(
        title="Figures on the same held-out texts",
        columns=(
            Column(name=grid.axis),
            Column(name="steps", digits=0),
            Column(name="tokens", digits=0),
            Column(name="time", unit="minutes", digits=1),
            *(Column(name=label, best=best) for label, best in told.values()),
        ),
        rows=tuple(
            (r.name, r.steps, r.tokens, r.seconds / 60, *(r.figures.get(key) for key in told))
            for r in runs
        ),
        notes=tuple(f"{label}: {FIGURES[key]}." for key, (label, _) in told.items()),
    )


def _by_length(grid: Grid, runs: Sequence[Result], prefix: str, label: str) -> Plot | None:
    """A line a run over the lengths of the texts; `None` where no run has such figures."""
    spans = sorted({s for run in runs for s in _spans(run.figures, prefix)}, key=_start)
    if not spans:
        return None
    return Plot(
        title=f"{label}, by length of their text" if label == "Chunks" else f"{label}, by length",
        kind="line",
        x_label="tokens of the text",
        y_label="cosine to the teacher",
        series=tuple(
            Series(
                name=run.name,
                x=tuple(map(_span_text, spans)),
                y=tuple(run.figures.get(prefix + span) for span in spans),
            )
            for run in runs
        ),
        notes=(f"Each line is one {grid.axis}.",),
    )


def _lines(figures: Mapping[str, float]) -> list[Series]:
    """One line for chunks and one for CLS, where there are figures by length."""
    lines = []
    for prefix, label in BY_LENGTH.items():
        if spans := sorted(_spans(figures, prefix), key=_start):
            x = tuple(map(_span_text, spans))
            y = tuple(figures[prefix + span] for span in spans)
            lines.append(Series(name=label, x=x, y=y))
    return lines


def _spans(figures: Mapping[str, float], prefix: str) -> list[str]:
    """Ranges of lengths under which a figure is told, such as `256-1024` or `4096-`."""
    found = (key.removeprefix(prefix) for key in figures if key.startswith(prefix))
    return [span for span in found if span.partition("-")[0].isdecimal()]


def _start(span: str) -> int:
    return int(span.partition("-")[0])


def _span_text(span: str) -> str:
    """A range of lengths for people: `1,024–4,096`, or `from 4,096`."""
    low, _, high = span.partition("-")
    return f"{int(low):,}–{int(high):,}" if high.isdecimal() else f"from {int(low):,}"


def _setup(values: Mapping[str, Any]) -> tuple[Machine, dict[str, str]]:
    """The machine and the versions that `train.run.machine` recorded."""
    machine = Machine(
        processor=values["processor"],
        capability=values["capability"],
        cores=values["cores"],
        device=", ".join(values["devices"]) or "cpu",
    )
    return machine, {"torch": str(values["torch"])}


def _name(path: Path) -> str:
    """What a page is called: its file, or its folder where all files are called alike."""
    return path.resolve().parent.name if path.stem in {"result", "results"} else path.stem


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        item = error.errors()[0]
        return f"{'.'.join(map(str, item['loc']))}: {fault(item)}"
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
