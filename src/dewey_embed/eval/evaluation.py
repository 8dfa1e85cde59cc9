"""A suite and contenders → findings: what `dewey eval` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dewey_embed.errors import TaskError
from dewey_embed.eval.result_page import Machine, ResultPage
from dewey_embed.eval.run import Contender, Failure, Outcome, run
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
    on_failure: Callable[[str], None] = lambda reason: None,
) -> ResultPage:
    """The findings over all tasks of a suite, or over some of them by name.

    A task with faulty data and a measurement that fails are told to `on_failure` and stand in the
    findings with their reason; the others go on.

    Raises:
        TaskError: none of the tasks has data or could be measured, or a name is no task of the
            suite.

    """
    names = [task.metadata.name for task in suite.tasks]
    known = {*names, *suite.missing, *suite.faulty}
    unknown = set(only or ()) - known
    if unknown:
        raise TaskError(
            f"{suite.name} has no task {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known))}"
        )
    tasks = [task for task in suite.tasks if not only or task.metadata.name in only]
    missing = {name: why for name, why in suite.missing.items() if not only or name in only}
    failed = [
        Failure(contender="", task=name, reason=why)
        for name, why in suite.faulty.items()
        if not only or name in only
    ]
    for failure in failed:
        on_failure(f"{failure.task}: {failure.reason}")
    if not tasks:
        missing |= {failure.task: failure.reason for failure in failed}
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise TaskError(f"{suite.name}: no task has data here: {reasons}")
    outcomes: list[Outcome] = []
    for each in run(contenders, tasks, results, finished_only=finished_only, on_task=on_task):
        if isinstance(each, Outcome):
            outcomes.append(each)
        else:
            failed.append(each)
            on_failure(f"{each.task}, {each.contender}: {each.reason}")
    if failed and not outcomes:
        raise TaskError(f"{suite.name}: nothing could be measured; {_first(failed)}")
    left_out = {
        task.metadata.name: told for task in tasks if (told := getattr(task, "left_out", ()))
    }
    return summarise(
        suite.name,
        outcomes,
        measures={task.metadata.name: task.metadata.main_score for task in tasks},
        missing=missing,
        failed=failed,
        left_out=left_out,
        machine=Machine.here(device=device),
    )


def _first(failed: Sequence[Failure]) -> str:
    """The first failure, and how many more there are."""
    more = f" (and {len(failed) - 1:,} more)" if len(failed) > 1 else ""
    return f"{failed[0].task}: {failed[0].reason}{more}"
