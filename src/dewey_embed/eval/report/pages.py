"""Result files → pages, grouped by kind: what a report is made of, in the order it is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dewey_embed.errors import ResultsError
from dewey_embed.eval.report.trainings import is_ablation, is_training, read_ablation, read_training
from dewey_embed.eval.result_page import Machine, ResultPage

KINDS = {
    "eval": "Evaluation",
    "baseline": "Models side by side",
    "length": "Length",
    "alignment": "Alignment",
    "cost": "Cost",
    "ablation": "Ablations",
    "training": "Training",
}
"""What readers call the kinds of pages, in the order of a report; others come after these."""


@dataclass(frozen=True)
class Page:
    """A `ResultPage` and its name within a report: letters, digits, hyphens."""

    anchor: str
    findings: ResultPage

    def shared_notes(self) -> list[str]:
        """Notes that stand under several tables or plots: said once, at the end of the page."""
        plots, tables = self.findings.plots, self.findings.tables
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
    """What a report is made of, and why files of folders are no part of it."""

    groups: tuple[Group, ...]
    passed_over: tuple[str, ...]


def collect(paths: Sequence[Path]) -> Collected:
    """The pages of result files and of folders, searched recursively.

    Pages of one kind stand in the order of `paths`; those of a folder in that of their paths.

    Raises:
        ResultsError: a path is missing, a file given by name holds no results, two files have
            one name for their page, or nothing was found.

    """
    found: dict[str, tuple[Path, ResultPage]] = {}
    passed_over: list[str] = []
    read: set[Path] = set()
    for path, by_name in _files(paths):
        if path.resolve() in read:
            continue
        try:
            findings = read_findings(path)
        except ResultsError as error:
            if by_name:
                raise
            passed_over.append(str(error))
            continue
        read.add(path.resolve())
        other, _ = found.setdefault(findings.name, (path, findings))
        if other != path:
            raise ResultsError(
                f"{other} and {path}: both are called {findings.name!r}; a report has one page of "
                "a name: leave one of them out"
            )
    if not found:
        message = f"{', '.join(map(str, paths))}: no findings there; `dewey eval` and `dewey audit`"
        more = f" ({len(passed_over)} JSON files hold something else)" if passed_over else ""
        raise ResultsError(f"{message} write such files{more}")
    return Collected(_grouped([findings for _, findings in found.values()]), tuple(passed_over))


def read_findings(path: Path) -> ResultPage:
    """The findings of a file: its own, or made from what `dewey ablate` or `dewey train` wrote.

    Raises:
        ResultsError: it cannot be read, or holds something else.

    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read as JSON: {error}") from None
    if is_ablation(values):
        return read_ablation(path, values)
    if is_training(values):
        return read_training(path, values)
    return ResultPage.read(path)


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which Python's own reader takes."""
    raise ValueError(f"it holds {constant}, which is no JSON")


def machine_text(machine: Machine) -> str:
    """A machine in a line; threads are left out where their number was not recorded."""
    parts = [
        f"{machine.processor} ({machine.capability})" if machine.capability else machine.processor,
        _count(machine.cores, "core"),
        *([_count(machine.threads, "thread")] if machine.threads else []),
        machine.device,
        machine.dtype,
    ]
    return ", ".join(part for part in parts if part)


def versions_text(findings: ResultPage) -> str:
    """Packages and their versions in a line."""
    return ", ".join(f"{package} {number}" for package, number in findings.versions.items())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Files that may hold findings, and whether each was given by name."""
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


def _grouped(findings: Sequence[ResultPage]) -> tuple[Group, ...]:
    """The pages of each kind, known kinds first."""
    anchors: set[str] = set()
    pages: dict[str, list[Page]] = {}
    for each in findings:
        pages.setdefault(each.kind, []).append(Page(_anchor(each, anchors), each))
    known = [kind for kind in KINDS if kind in pages]
    others = sorted(kind for kind in pages if kind not in KINDS)
    return tuple(
        Group(kind, KINDS.get(kind) or kind.capitalize() or "Other", tuple(pages[kind]))
        for kind in (*known, *others)
    )


def _anchor(findings: ResultPage, taken: set[str]) -> str:
    """A name that no other page of the report has."""
    kind, name = (
        re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
        for text in (findings.kind, findings.name)
    )
    wanted = name if name.startswith(kind) else f"{kind}-{name}"
    base = wanted.strip("-")[:80] or "page"
    anchor, number = base, 1
    while anchor in taken:
        number += 1
        anchor = f"{base}-{number}"
    taken.add(anchor)
    return anchor
