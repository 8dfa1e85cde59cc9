"""A suite and contenders → findings: what `dewey eval` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dewey_embed.errors import TaskError
from dewey_embed.eval.findings import Findings, Machine
from dewey_embed.eval.run import Contender, run
from dewey_embed.eval.suites import Suite
from dewey_embed.eval.summary import summarise


def evaluate(
    suite: Suite,
    contenders: Sequence[Contender],
    results: Path,
    *,
    only: Sequence[str] | None = None,
    finished_only: bool = False,
    device: str = "cpu",
    on_task: Callable[[str, str], None] = lambda contender, task: None,
) -> Findings:
    """The findings over all tasks of a suite, or over some of them by name.

    Raises:
        TaskError: none of the tasks has data, or a name is no task of the suite.

    """
    names = [task.metadata.name for task in suite.tasks]
    known = {*names, *suite.missing}
    unknown = set(only or ()) - known
    if unknown:
        raise TaskError(
            f"{suite.name} has no task {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known))}"
        )
    tasks = [task for task in suite.tasks if not only or task.metadata.name in only]
    missing = {name: why for name, why in suite.missing.items() if not only or name in only}
    if not tasks:
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise TaskError(f"{suite.name}: no task has data here: {reasons}")
    outcomes = list(run(contenders, tasks, results, finished_only=finished_only, on_task=on_task))
    return summarise(
        suite.name,
        outcomes,
        measures={task.metadata.name: task.metadata.main_score for task in tasks},
        missing=missing,
        machine=Machine.here(device=device),
    )
