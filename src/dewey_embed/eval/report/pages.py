"""Result files → pages, grouped by kind: the content of a report, in the order it is read.

Most files hold a `ResultPage`. What `dewey ablate` and `dewey train` write becomes one here; those
files record neither a date nor the number of threads, and the pages leave both out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dewey_embed.config import fault
from dewey_embed.errors import ConfigError, ResultsError
from dewey_embed.eval.result_page import Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.train.ablate import Grid, Result
from dewey_embed.train.card import CONTEXTUAL_FIGURES, FIGURES, figure_rows
from dewey_embed.train.recipe import renamed

KINDS = {
    "eval": "Evaluation",
    "baseline": "Models side by side",
    "length": "Length",
    "alignment": "Alignment",
    "context": "Context",
    "cost": "Cost",
    "asymmetric": "Two models, one index",
    "ablation": "Ablations",
    "training": "Training",
}
"""The titles of the kinds of pages, in the order of a report; other kinds follow."""

MEASURES: dict[str, tuple[str, Literal["highest", "lowest"]]] = {
    "chunk_cosine": ("chunks", "highest"),
    "cls_cosine": ("CLS", "highest"),
    "similarity_correlation": ("similarities", "highest"),
    "target_recall_at_1": ("target recall at 1", "highest"),
    "extra_tightness": ("extra tightness", "lowest"),
}
"""Figures of an ablation's runs: the column's name, and which is best."""

BY_LENGTH = {"chunk_cosine_in/": "Chunks", "cls_cosine/": "CLS"}
"""Figures by length of the text: the prefix of their names, and the name of their line."""


@dataclass(frozen=True)
class Page:
    """A page of results and its name within one report, for links and files.

    The name has letters, digits and hyphens only.
    """

    anchor: str
    result: ResultPage

    def shared_notes(self) -> list[str]:
        """Notes of several tables or plots, which stand once, at the end of the page."""
        plots, tables = self.result.plots, self.result.tables
        lists = [*(plot.notes for plot in plots), *(table.notes for table in tables)]
        counted = Counter(note for notes in lists for note in dict.fromkeys(notes))
        return [note for note, times in counted.items() if times > 1]


@dataclass(frozen=True)
class Group:
    """The pages of one kind."""

    kind: str
    title: str
    pages: tuple[Page, ...]


@dataclass(frozen=True)
class Collected:
    """The content of a report, and why files of its folders are left out."""

    groups: tuple[Group, ...]
    passed_over: tuple[str, ...]


def collect(paths: Sequence[Path]) -> Collected:
    """The pages of result files and of folders, searched recursively.

    Pages of one kind stand in the order of `paths`; those of a folder in that of their paths.

    Raises:
        ResultsError: a path is missing, a file given by name holds no results, two files have
            one name for their page, or there is no result.

    """
    pages: dict[str, tuple[Path, ResultPage]] = {}
    passed_over: list[str] = []
    read: set[Path] = set()
    for path, by_name in _files(paths):
        if path.resolve() in read:
            continue
        try:
            result = read_page(path)
        except ResultsError as error:
            if by_name:
                raise
            passed_over.append(str(error))
            continue
        read.add(path.resolve())
        other, _ = pages.setdefault(result.name, (path, result))
        if other != path:
            raise ResultsError(
                f"{other} and {path}: both are called {result.name!r}; a report has one page of "
                "a name: leave one of them out"
            )
    if not pages:
        more = f" ({len(passed_over)} JSON files hold something else)" if passed_over else ""
        raise ResultsError(
            f"{', '.join(map(str, paths))}: no results there; `dewey eval` and `dewey audit` "
            f"write such files{more}"
        )
    return Collected(_grouped([result for _, result in pages.values()]), tuple(passed_over))


def read_page(path: Path) -> ResultPage:
    """The page of a file: its own, or made from the output of `dewey ablate` or `dewey train`.

    Raises:
        ResultsError: it cannot be read, or holds something else.

    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read as JSON: {error}") from None
    for keys, command, to_page in (
        ({"grid", "runs"}, "dewey ablate", _ablation_page),
        ({"figures", "train_hours", "recipe"}, "dewey train", _training_page),
    ):
        if isinstance(values, dict) and keys <= values.keys():
            try:
                return to_page(path, values)
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise ResultsError(
                    f"{path}: is not a result of `{command}`: {_reason(error)}"
                ) from None
    return ResultPage.read(path)


def machine_text(machine: Machine) -> str:
    """A machine in a line; the number of threads only where it was recorded."""
    parts = [
        f"{machine.processor} ({machine.capability})" if machine.capability else machine.processor,
        _count(machine.cores, "core"),
        *([_count(machine.threads, "thread")] if machine.threads else []),
        machine.device,
        machine.dtype,
    ]
    return ", ".join(part for part in parts if part)


def versions_text(result: ResultPage) -> str:
    """Packages and their versions in a line."""
    return ", ".join(f"{package} {number}" for package, number in result.versions.items())


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which Python's own reader accepts."""
    raise ValueError(f"it holds {constant}, which is not JSON")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Files that may hold results, and whether each was given by name."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if file.is_file() and not hidden:
                    yield file, False
        elif path.exists():
            yield path, True
        else:
            raise ResultsError(f"{path}: no such file or folder")


def _grouped(results: Sequence[ResultPage]) -> tuple[Group, ...]:
    """The pages of each kind, known kinds first."""
    anchors: set[str] = set()
    pages: dict[str, list[Page]] = {}
    for each in results:
        pages.setdefault(each.kind, []).append(Page(_anchor(each, anchors), each))
    known = [kind for kind in KINDS if kind in pages]
    others = sorted(kind for kind in pages if kind not in KINDS)
    return tuple(
        Group(kind, KINDS.get(kind) or kind.capitalize() or "Other", tuple(pages[kind]))
        for kind in (*known, *others)
    )


def _anchor(result: ResultPage, used: set[str]) -> str:
    """A name that no other page of the report has."""
    kind, name = (
        re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") for text in (result.kind, result.name)
    )
    wanted = name if name.startswith(kind) else f"{kind}-{name}"
    base = wanted.strip("-")[:80] or "page"
    anchor, number = base, 1
    while anchor in used:
        number += 1
        anchor = f"{base}-{number}"
    used.add(anchor)
    return anchor


def _ablation_page(path: Path, values: Mapping[str, Any]) -> ResultPage:
    """The page of a grid: every run's figures, overall and by length of the text."""
    grid = Grid.parse(values["grid"], source=f"{path}: grid")
    runs = [Result.parse(run, source=f"{path}: runs") for run in values["runs"]]
    if not runs:
        raise ResultsError(f"{path}: holds no finished run; start `dewey ablate` again")
    plots = (
        _length_plot(
            f"{label}, by length of their text" if label == "Chunks" else f"{label}, by length",
            {run.name: (run.figures, prefix) for run in runs},
            notes=(f"Each line is one {grid.axis}.",),
        )
        for prefix, label in BY_LENGTH.items()
    )
    return ResultPage(
        kind="ablation",
        name=_page_name(path),
        title=grid.title,
        summary=grid.question,
        tables=(_ablation_table(grid, runs),),
        plots=tuple(plot for plot in plots if plot.series),
        **_origin(values),
    )


def _ablation_table(grid: Grid, runs: Sequence[Result]) -> Table:
    measures = {
        key: measure for key, measure in MEASURES.items() if any(key in r.figures for r in runs)
    }
    contextual = any("contextual_chunks" in r.figures for r in runs)
    about = CONTEXTUAL_FIGURES if contextual else FIGURES
    return Table(
        title="Figures on the same held-out texts",
        columns=(
            Column(name=grid.axis),
            Column(name="steps", digits=0),
            Column(name="tokens", digits=0),
            Column(name="time", unit="minutes", digits=1),
            *(Column(name=label, best=best) for label, best in measures.values()),
        ),
        rows=tuple(
            (r.name, r.steps, r.tokens, r.seconds / 60, *(r.figures.get(key) for key in measures))
            for r in runs
        ),
        notes=tuple(f"{label}: {about[key]}." for key, (label, _) in measures.items()),
    )


def _training_page(path: Path, values: Mapping[str, Any]) -> ResultPage:
    """The page of one training run: its figures on held-out texts, and its cost."""
    figures = TypeAdapter(dict[str, float]).validate_python(renamed(values["figures"]))
    hours, steps, tokens = float(values["train_hours"]), values["steps"], values["tokens"]
    summary = (
        f"{steps:,} steps, {tokens:,} tokens, {hours:.2f} hours; the best checkpoint is that "
        f"of step {values['best_step']:,}."
    )
    if before := values.get("before"):
        summary += (
            f" It continued {len(before)} earlier runs: {sum(run['tokens'] for run in before):,} "
            f"tokens, {sum(run['train_hours'] for run in before):.2f} hours."
        )
    plot = _length_plot(
        "Cosine to the teacher by length of the text",
        {label: (figures, prefix) for prefix, label in BY_LENGTH.items()},
    )
    table = Table(
        title="On held-out texts",
        columns=(Column(name="figure"), Column(name="value")),
        rows=tuple(figure_rows(figures, contextual=bool(values["recipe"].get("context")))),
        notes=("The model was not trained on these texts.",),
    )
    return ResultPage(
        kind="training",
        name=_page_name(path),
        title=f"Training: {_page_name(path)}",
        summary=summary,
        tables=(table,),
        plots=(plot,) if plot.series else (),
        **_origin(values),
    )


def _length_plot(
    title: str, lines: Mapping[str, tuple[Mapping[str, float], str]], notes: tuple[str, ...] = ()
) -> Plot:
    """A line over the lengths of the texts for each name with figures under its prefix."""
    spans = {
        key.removeprefix(prefix)
        for figures, prefix in lines.values()
        for key in figures
        if key.startswith(prefix) and key.removeprefix(prefix).partition("-")[0].isdecimal()
    }
    ordered = sorted(spans, key=lambda span: int(span.partition("-")[0]))
    values = {
        name: tuple(figures.get(prefix + span) for span in ordered)
        for name, (figures, prefix) in lines.items()
    }
    return Plot(
        title=title,
        kind="line",
        x_label="tokens of the text",
        y_label="cosine to the teacher",
        series=tuple(
            Series(name=name, x=tuple(map(_span_text, ordered)), y=y)
            for name, y in values.items()
            if any(value is not None for value in y)
        ),
        notes=notes,
    )


def _span_text(span: str) -> str:
    """A range of lengths for people: `1,024–4,096`, or `from 4,096`."""
    low, _, high = span.partition("-")
    return f"{int(low):,}–{int(high):,}" if high.isdecimal() else f"from {int(low):,}"


def _origin(values: Mapping[str, Any]) -> dict[str, Any]:
    """The command, the machine and the versions that a run recorded."""
    recorded = values["machine"]
    machine = Machine(
        processor=recorded["processor"],
        capability=recorded["capability"],
        cores=recorded["cores"],
        device=", ".join(recorded["devices"]) or "cpu",
    )
    versions = {"torch": str(recorded["torch"])}
    return {
        "command": str(values["command"]), "date": "", "machine": machine, "versions": versions,
    }  # fmt: skip


def _page_name(path: Path) -> str:
    """The name of the file, or of its folder where all files are called alike."""
    return path.resolve().parent.name if path.stem in {"result", "results"} else path.stem


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        item = error.errors()[0]
        return f"{'.'.join(map(str, item['loc']))}: {fault(item)}"
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
