"""One run by its number: a command, a fault, and whether every invariant held."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dewey_embed.errors import DeweyError
from tests.faults.faults import (
    FAULTS,
    Case,
    Damage,
    Fault,
    FullDisk,
    Struck,
    Unbroken,
    can_mount,
    files_by_kind,
)
from tests.faults.operations import OPERATIONS, Ended, Operation, Shared, files_of
from tests.faults.shim import Plan


@dataclass
class Outcome:
    """What became of a run: the invariants that did not hold, each with what was seen."""

    number: int
    command: str
    fault: str
    what: str
    happened: bool
    failures: list[str]
    seconds: float

    def line(self) -> str:
        """The run in a line."""
        state = "FAILED" if self.failures else "held" if self.happened else "held (no fault)"
        return f"{self.number:>4} {self.command:<12} {self.fault:<30} {state}: {self.what}"


class Laboratory:
    """A folder in which commands are run under faults, one at a time, always at the same path.

    Names of documents are paths, and so are hashes, vectors' files and results: only at one path
    do two runs leave the same bytes.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        commands: Sequence[str] | None = None,
        only: Sequence[str] | None = None,
    ) -> None:
        self.folder, self.seed = folder, seed
        folder.chmod(0o755)
        self.home = folder / "home"
        self.shared = make_shared(folder / "shared")
        self._unbroken: dict[type[Operation], Unbroken] = {}
        self.skipped: dict[str, str] = {}
        faults = [each for each in FAULTS if only is None or each.name in only]
        if not can_mount(folder):
            faults = [each for each in faults if not isinstance(each, FullDisk)]
            self.skipped[FullDisk.name] = "this user may not mount a file system"
        self._faults = faults
        self._operations = [each for each in OPERATIONS if not commands or each.name in commands]

    def plan(self, runs: int) -> list[tuple[type[Operation], Fault]]:
        """So many pairs of a command and a fault: all pairs in a random order, and once more."""
        pairs = [
            (operation, fault)
            for operation in self._operations
            for fault in self._faults
            if fault.strikes(operation(self.shared))
        ]
        random.Random(self.seed).shuffle(pairs)
        return [pairs[number % len(pairs)] for number in range(runs)]

    def every_file(self) -> list[tuple[type[Operation], Fault]]:
        """Each kind of damage to each kind of file that a command leaves."""
        return [
            (operation, replace(fault, name=f"{fault.name}, each kind of file", kind=kind))
            for operation in self._operations
            for kind in files_by_kind(self.unbroken(operation).folder)
            for fault in self._faults
            if isinstance(fault, Damage)
        ]

    def run(self, number: int, kind: type[Operation], fault: Fault) -> Outcome:
        """The run of a number, which sets how the fault meets the command."""
        operation = kind(self.shared)
        choose = random.Random(f"{self.seed} {number}")
        unbroken = self.unbroken(kind)
        self.begin(operation)
        began = time.monotonic()
        case = Case(operation, self.home, choose, unbroken)
        struck = None
        try:
            with fault.around(case):
                struck = fault.strike(case)
                failures = judge(case, fault, struck)
        except Exception as error:
            failures = [f"the harness failed: {type(error).__name__}: {error}"]
        return Outcome(
            number, operation.name, fault.name, struck.what if struck else "",
            struck is not None and struck.happened, failures, time.monotonic() - began,
        )  # fmt: skip

    def begin(self, operation: Operation) -> None:
        """Make the folder as it is before a command."""
        shutil.rmtree(self.home, ignore_errors=True)
        if operation.starts_from is not None:
            shutil.copytree(self.unbroken(operation.starts_from).folder, self.home)
        operation.begin(self.home)

    def unbroken(self, kind: type[Operation]) -> Unbroken:
        """What a run without faults does; found out once."""
        if kind not in self._unbroken:
            operation = kind(self.shared)
            if kind.starts_from is not None:
                self.unbroken(kind.starts_from)
            self.begin(operation)
            plan = Plan(self.home)
            began = time.monotonic()
            ended = operation.run(self.home, plan.armed())
            seconds = time.monotonic() - began
            if ended.code:
                raise RuntimeError(f"{operation.name} fails without faults: {ended.errors}")
            contents, answers = operation.finished(self.home), operation.answers(self.home)
            kept = self.folder / kind.__name__
            shutil.copytree(self.home, kept)
            self._unbroken[kind] = Unbroken(kept, contents, answers, plan.report(), seconds)
        return self._unbroken[kind]


def judge(case: Case, fault: Fault, struck: Struck) -> list[str]:
    """The invariants that do not hold after a fault."""
    failures = [said for ended in struck.ended for said in fair_end(case, struck, ended)]
    fault.lift(case)
    operation, home = case.operation, case.home
    units: dict[str, Any] = {}
    try:
        units = operation.units(home)
    except DeweyError as error:
        if not names(str(error), struck.damaged):
            failures.append(f"what was finished cannot be read: {error}")
    except Exception as error:
        failures.append(f"what was finished cannot be read: {type(error).__name__}: {error}")
    if not isinstance(fault, Damage):
        # With 3 it has said that inputs could not be read, and what it wrote lacks them.
        partial = operation.name == "encode" and struck.ended[0].code == 3
        faulty = [] if partial else operation.faulty_units(units, case.unbroken.contents)
        failures += [f"{name} is visible and not as an unbroken run leaves it" for name in faulty]
        lost = {name for ended in struck.ended for name in ended.promised} - set(units)
        failures += [f"{name} was promised and is not there" for name in lost]
    else:
        failures += fair_answers(case)
    failures += fair_again(case, struck, units)
    return failures


def fair_end(case: Case, struck: Struck, ended: Ended) -> list[str]:
    """Faults of a command's end: its exit code, what it said, and what it left if it ended well."""
    failures = []
    if ended.code not in struck.codes:
        failures.append(f"exit code {ended.code}, not {struck.codes}: {ended.errors[-600:]}")
    failures += fair_words(ended)
    if ended.code == 1 and struck.named and not any(name in ended.errors for name in struck.named):
        failures.append(f"the error does not name its file: {ended.errors[-600:]}")
    if ended.code == 0 and case.operation.ends_complete and len(struck.ended) == 1:
        failures += difference(case, "it ended with 0")
    return failures


def fair_words(ended: Ended) -> list[str]:
    """Faults of what a command said."""
    for word in ("Traceback (most recent", "a bug in dewey", "panicked at", "Exception ignored"):
        if word in ended.errors:
            return [f"said {word!r}: {ended.errors[-1500:]}"]
    errors = [line for line in ended.errors.splitlines() if line.startswith("dewey: error:")]
    return [f"{len(errors)} errors: {errors}"] if len(errors) > 1 else []


def fair_answers(case: Case) -> list[str]:
    """Faults of what is read back from damaged results: it is right, or refused by name."""
    try:
        answers = case.operation.answers(case.home)
    except DeweyError as error:
        return [] if str(case.home) in str(error) else [f"the damage is not named: {error}"]
    except Exception as error:
        return [f"damaged results give {type(error).__name__}: {error}"]
    is_right = case.operation.is_right(answers, case.unbroken.answers)
    return [] if is_right else ["damaged results were answered from"]


def fair_again(case: Case, struck: Struck, units: dict[str, Any]) -> list[str]:
    """Faults of the next run: it ends as an unbroken one, keeps what was finished, leaves no draft.

    Where files were damaged it may refuse by name, once, and works when they are put back.
    """
    operation, home = case.operation, case.home
    again = operation.run(home)
    failures = fair_words(again)
    if again.code == 1 and struck.damaged:
        if not names(again.errors, struck.damaged):
            return [*failures, f"the damage is not named: {again.errors[-600:]}"]
        if not put_back(case, struck):
            return failures
        again = operation.run(home)
    if again.code:
        return [*failures, f"the next run ends with {again.code}: {again.errors[-600:]}"]
    if struck.damaged and remedied(case, struck):
        again = operation.run(home)
    failures += difference(case, "the next run")
    if not struck.damaged:
        made = operation.kept(units, again, home)
        failures += [f"{name}: finished, and made again" for name in made]
    return failures + strays(case)


def remedied(case: Case, struck: Struck) -> bool:
    """Whether damage is named only when it is read, and was removed as the error says."""
    try:
        case.operation.finished(case.home)
    except DeweyError as error:
        if names(str(error), struck.damaged) and "remove the file" in str(error):
            for path in struck.damaged:
                path.unlink(missing_ok=True)
            return True
    except Exception:  # judged by what follows
        return False
    return False


def put_back(case: Case, struck: Struck) -> bool:
    """Whether the damaged files could be put back from a copy."""
    copies = [case.unbroken.folder / path.relative_to(case.home) for path in struck.damaged]
    if not all(copy.exists() for copy in copies):
        return False
    for copy, path in zip(copies, struck.damaged, strict=True):
        shutil.copy2(copy, path)
    return True


def names(message: str, damaged: Sequence[Path]) -> bool:
    """Whether a message names a damaged file, or a folder that it lies in."""
    return any(str(place) in message for path in damaged for place in (path, *path.parents[:4]))


def difference(case: Case, when: str) -> list[str]:
    """How the results differ from those of an unbroken run."""
    try:
        found = case.operation.finished(case.home)
    except Exception as error:
        return [f"{when}, and the results cannot be read: {type(error).__name__}: {error}"]
    where = differing(found, case.unbroken.contents)
    return [f"{when}, and the results differ from an unbroken run's: {where}"] if where else []


def differing(found: Any, expected: Any, place: str = "") -> str:
    """The first place at which two values differ; empty where they are equal."""
    if isinstance(found, dict) and isinstance(expected, dict):
        if found.keys() != expected.keys():
            return f"{place}: {sorted(found.keys() ^ expected.keys(), key=str)[:5]}"
        pairs = ((f"{place}/{key}", found[key], expected[key]) for key in found)
    elif isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        if len(found) != len(expected):
            return f"{place}: {len(found)} for {len(expected)}"
        pairs = ((f"{place}/{n}", *two) for n, two in enumerate(zip(found, expected, strict=True)))
    else:
        return "" if found == expected else f"{place}: {repr(found)[:80]} for {repr(expected)[:80]}"
    return next((said for name, a, b in pairs if (said := differing(a, b, name))), "")


DRAFT = re.compile(r"\.(draft|tmp|unfinished|link|dewey-draft|dewey-saved|old)\b|\.draft-")


def strays(case: Case) -> list[str]:
    """Drafts and temporary files that are still there."""
    left = [path for path in files_of(case.home) if DRAFT.search(str(path.relative_to(case.home)))]
    return [f"left behind: {path.relative_to(case.home)}" for path in left]


def make_shared(folder: Path) -> Shared:
    """The model, the teacher and the recipe of all runs."""
    from dewey_embed import Dewey as Model
    from tests.model.random_folders import make_folder
    from tests.model.test_save import WITH_HEAD
    from tests.train.conftest import RECIPE, write_corpus, write_student, write_teacher

    made = Shared(folder)
    folder.mkdir()
    make_folder(folder / "made", WITH_HEAD)
    Model.load(folder / "made", dtype="float32").save(made.model)
    write_student(folder / "student")
    write_teacher(made.teacher)
    write_corpus(folder / "corpus.jsonl")
    made.recipe.write_text(
        RECIPE.format(
            student=folder / "student", teacher=made.teacher, corpus=folder / "corpus.jsonl"
        )
    )
    return made
