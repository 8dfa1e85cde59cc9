"""Outcomes → `ResultPage`: scores by task and model, intervals, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dewey_embed.eval.locov1 import LONGEMBED, paper_figures
from dewey_embed.eval.result_page import Cell, Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.eval.scores import Failure, TaskScores, interval, paired_p_value

Scores = dict[tuple[str, str], TaskScores]

FAILED, LEFT_OUT = "Failed", "Left out of the tasks"
"""Titles of tables: what could not be measured, and what of a task's files was not used."""

MEASURE_NAMES = {
    "ndcg_at_10": "nDCG@10",
    "ndcg_at_1": "nDCG@1",
    "cosine_spearman": "Spearman",
    "accuracy": "accuracy",
    "v_measure": "V-measure",
    "map_at_1000": "MAP",
    "max_ap": "average precision",
}


def summarise(
    suite: str,
    outcomes: Sequence[TaskScores],
    *,
    measures: Mapping[str, str],
    missing: Mapping[str, str],
    failed: Sequence[Failure] = (),
    left_out: Mapping[str, Sequence[str]] = MappingProxyType({}),
    machine: Machine,
) -> ResultPage:
    """The findings of one evaluation.

    `measures` holds each task's main measure under mteb's name, in the order of the tasks;
    `missing` the tasks of the suite whose data were not found, and why; `left_out` what of a
    task's files is no part of it.
    """
    by_place: Scores = {(each.task, each.contender): each for each in outcomes}
    contenders = list(dict.fromkeys(each.contender for each in outcomes))
    tasks = [task for task in measures if any((task, c) in by_place for c in contenders)]
    tables = [_scores_table(by_place, tasks, contenders, measures, suite)]
    ranked = [
        task for task in tasks if any(_values(by_place, task, c) is not None for c in contenders)
    ]
    if ranked:
        tables.append(_intervals_table(by_place, ranked, contenders))
    if ranked and len(contenders) > 1:
        tables.append(_differences_table(by_place, ranked, contenders))
    if missing:
        tables.append(_reasons_table("Not measured", missing.items()))
    if failed:
        tables.append(_failed_table(failed))
    if left_out:
        told = [(task, each) for task, messages in left_out.items() for each in messages]
        tables.append(_reasons_table(LEFT_OUT, told))
    return ResultPage(
        kind="eval",
        name=suite,
        title=f"Scores on {suite}",
        summary=_summary(by_place, tasks, contenders),
        machine=machine,
        tables=tuple(tables),
        plots=(_means_plot(by_place, ranked, contenders),) if ranked else (),
    )


def main_score(outcome: TaskScores) -> float:
    """The task's main score, the mean over its splits and subsets."""
    scores = [entry["main_score"] for split in outcome.result.scores.values() for entry in split]
    return float(np.mean(scores))


def _scores_table(
    found: Scores,
    tasks: Sequence[str],
    contenders: Sequence[str],
    measures: Mapping[str, str],
    suite: str,
) -> Table:
    paper = {task: figures for task in tasks if (figures := paper_figures(task))}
    columns = [
        Column(name="task"),
        Column(name="measure"),
        *(Column(name=contender, best="highest") for contender in contenders),
    ]
    if paper:
        columns += [Column(name=f"paper, {kind}") for kind in ("teacher", "single", "multi")]
    rows: list[tuple[Cell, ...]] = []
    for task in tasks:
        cells: list[Cell] = [task, MEASURE_NAMES.get(measures[task], measures[task])]
        cells += [_score(found, task, contender) for contender in contenders]
        if paper:
            cells += [*paper.get(task, (None, None, None))]
        rows.append(tuple(cells))
    if len(rows) > 1:
        rows.append(
            ("mean", "", *(_mean([row[i] for row in rows]) for i in range(2, len(columns))))
        )
    notes = ["A mean is given where a model was measured on every task."]
    if suite == "longembed":
        notes.append(
            f"The paper's means on LongEmbed: {LONGEMBED['single']:.4f} with one vector, "
            f"{LONGEMBED['multi']:.4f} with one for each chunk (arXiv 2503.20376)."
        )
    return Table(
        title="Main scores",
        columns=tuple(columns),
        rows=tuple(rows),
        best_in="row",
        notes=tuple(notes),
    )


def _intervals_table(found: Scores, tasks: Sequence[str], contenders: Sequence[str]) -> Table:
    columns = [Column(name="task"), Column(name="queries", digits=0)]
    columns += [Column(name=contender) for contender in contenders]
    rows = []
    for task in tasks:
        values = [_values(found, task, contender) for contender in contenders]
        num = max(len(each) for each in values if each is not None)
        cells = [None if each is None else _range(each) for each in values]
        rows.append((task, num, *cells))
    return Table(
        title="95% intervals of nDCG@10",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=("Percentile bootstrap over the queries, 2,000 resamples.",),
    )


def _differences_table(found: Scores, tasks: Sequence[str], contenders: Sequence[str]) -> Table:
    """Each later contender against the first, on the same queries."""
    first, *others = contenders
    columns = [Column(name="task")]
    for other in others:
        columns += [Column(name=f"{first} − {other}"), Column(name="p", digits=3)]
    rows = []
    for task in tasks:
        ours = _values(found, task, first)
        cells: list[Cell] = [task]
        for other in others:
            theirs = _values(found, task, other)
            if ours is None or theirs is None:
                cells += [None, None]
            else:
                cells += [float((ours - theirs).mean()), paired_p_value(ours, theirs)]
        rows.append(tuple(cells))
    return Table(
        title=f"{first} against the others: difference of nDCG@10",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=("p: paired randomisation test over the queries, two-sided, 2,000 resamples.",),
    )


def _reasons_table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    return Table(
        title=title, columns=(Column(name="task"), Column(name="reason")), rows=tuple(rows)
    )


def _failed_table(failed: Sequence[Failure]) -> Table:
    return Table(
        title=FAILED,
        columns=(Column(name="task"), Column(name="model"), Column(name="reason")),
        rows=tuple((each.task, each.contender or "every model", each.reason) for each in failed),
    )


def _means_plot(found: Scores, tasks: Sequence[str], contenders: Sequence[str]) -> Plot:
    """Mean nDCG@10 of every contender that was measured on all ranked tasks, with its interval."""
    names, ys, lows, highs = [], [], [], []
    for contender in contenders:
        values = [_values(found, task, contender) for task in tasks]
        whole = [each for each in values if each is not None]
        if len(whole) < len(tasks):
            continue
        # Tasks count alike, however many queries they have.
        deviation = np.sqrt(sum(each.var() / len(each) for each in whole)) / len(whole)
        mean = float(np.mean([each.mean() for each in whole]))
        names.append(contender)
        ys.append(mean)
        lows.append(mean - 1.96 * float(deviation))
        highs.append(mean + 1.96 * float(deviation))
    series = Series(name="nDCG@10", x=tuple(names), y=tuple(ys), low=tuple(lows), high=tuple(highs))
    return Plot(
        title=f"Mean nDCG@10 over {len(tasks)} retrieval tasks",
        kind="bars",
        x_label="",
        y_label="nDCG@10",
        series=(series,),
        notes=("Intervals: 95%, over the queries of each task.",),
    )


def _summary(found: Scores, tasks: Sequence[str], contenders: Sequence[str]) -> str:
    means = {
        contender: mean
        for contender in contenders
        if (mean := _mean([_score(found, task, contender) for task in tasks])) is not None
    }
    if not means:
        return f"{len(found)} of {len(tasks) * len(contenders)} measurements are there."
    ordered = sorted(means.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {mean:.4f}" for name, mean in ordered)
    return f"Means over {len(tasks)} tasks: {told}."


def _score(found: Scores, task: str, contender: str) -> float | None:
    outcome = found.get((task, contender))
    return None if outcome is None else main_score(outcome)


def _values(found: Scores, task: str, contender: str) -> NDArray[np.float64] | None:
    """nDCG@10 of every query, in one order for all contenders; `None` where none is known."""
    outcome = found.get((task, contender))
    if outcome is None or not outcome.queries:
        return None
    return np.array(
        [
            scores["ndcg_at_10"]
            for _, queries in sorted(outcome.queries.items())
            for _, scores in sorted(queries.items())
        ]
    )


def _range(values: NDArray[np.float64]) -> str:
    found = interval(values)
    return f"{found.low:.4f} – {found.high:.4f}"


def _mean(cells: Sequence[Cell]) -> float | None:
    """The mean of scores, where none is missing."""
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return float(np.mean(numbers)) if numbers and len(numbers) == len(cells) else None
