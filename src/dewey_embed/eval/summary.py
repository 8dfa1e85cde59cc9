"""Scores of models on tasks → a page of results: main scores, intervals, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from dewey_embed.eval.chunk_vectors import TITLE_WEIGHT
from dewey_embed.eval.locov1 import LOCOV1, LONGEMBED
from dewey_embed.eval.passages import sampled_task
from dewey_embed.eval.result_page import Cell, Column, Machine, Plot, ResultPage, Series, Table
from dewey_embed.eval.scores import Doubles, Failure, TaskScores, interval, paired_p_value

Scores = dict[tuple[str, str], TaskScores]
"""Scores by task and model."""

DEVELOPMENT_TASKS = frozenset(
    {
        "chroma_chunks", "cranfield", "fairytaleqa", "legal_case_reports", "leval_mix", "locomo",
        "medline", "nfcorpus_filtered", "time", "wiki_lead",
        "chroma_chunks_passages", "factbook_fields_dev", "fairytaleqa_sections",
        "medquad_sections_dev",
    }
)  # fmt: skip
"""Tasks on which the weights of `multi` and `hybrid`, the size of chunks, and the weights of
titles and of function words were chosen (docs/log.md, 23, 28 and 29 November 2026)."""

FAILED, LEFT_OUT = "Failed", "Left out of the tasks"
"""Titles of tables: tasks that could not be measured, and parts of a task's files left unused."""


class Beside(NamedTuple):
    """A table of measures beside the main one: its title, their names, and notes."""

    title: str
    measures: Mapping[str, str]
    notes: tuple[str, ...]


PASSAGES = Beside(
    "Passages",
    {
        "recall_at_5": "recall@5",
        "passage_success_at_1": "answered in the first passage",
        "passage_success_at_3": "answered in the first three",
    },
    (
        "nDCG and recall: a passage stands for the annotated chunk that it overlaps most, and "
        "each chunk counts once, at its best passage.",
        "Answered: the share of queries of which a passage shown and a relevant chunk cover "
        "half of the shorter of the two.",
        "Dewey models rank passages of their own; peers the annotated chunks, each under its "
        "document's title.",
        "single ranks passages as multi does: its one vector a document ranks documents alone.",
    ),
)
"""Tasks whose qrels name passages."""

CHUNKS = Beside(
    "Chunks",
    {"recall_at_5": "recall@5"},
    (
        "All chunks of all documents are ranked. alone: a chunk's text; titled: its document's "
        "title before it, as one text; in-context: its range in the one pass over its document; "
        "under-title: in that pass, the title read above it; in-context+title: in-context, with "
        f"the vector of the title added, weighted by {TITLE_WEIGHT:g}. A document without a title "
        "has its text's first line, where a blank line follows it.",
    ),
)
"""Tasks that rank all chunks."""

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
    scores: Sequence[TaskScores],
    *,
    measures: Mapping[str, str],
    missing: Mapping[str, str],
    failed: Sequence[Failure] = (),
    left_out: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ranks_chunks: bool = False,
    machine: Machine,
) -> ResultPage:
    """The page of one evaluation.

    `measures` holds each task's main measure under mteb's name, in the order of the tasks;
    `missing` the tasks of the suite without data, and why; `left_out` the messages on what of a
    task's files is no part of it. `ranks_chunks` says that the tasks rank all chunks.
    """
    by_place: Scores = {(each.task, each.model): each for each in scores}
    models = list(dict.fromkeys(each.model for each in scores))
    tasks = [task for task in measures if any((task, model) in by_place for model in models)]
    retrieval = [
        task for task in tasks if any(_ndcg(by_place, task, model) is not None for model in models)
    ]
    tables = [_scores_table(by_place, tasks, models, measures, suite)]
    if retrieval:
        tables.append(_intervals_table(by_place, retrieval, models))
    if retrieval and len(models) > 1:
        tables.append(_differences_table(by_place, retrieval, models))
    if passage_tasks := [
        task for task in tasks if _means_by_model(by_place, task, models, "passage_success_at_1")
    ]:
        tables.append(_beside_table(PASSAGES, by_place, passage_tasks, models))
    if ranks_chunks and tasks:
        tables.append(_beside_table(CHUNKS, by_place, tasks, models))
    messages = [(task, message) for task, own in left_out.items() for message in own]
    failures = [(each.task, each.model or "every model", each.reason) for each in failed]
    for title, columns, rows in (
        ("Not measured", ("task", "reason"), list(missing.items())),
        (FAILED, ("task", "model", "reason"), failures),
        (LEFT_OUT, ("task", "reason"), messages),
    ):
        if rows:
            named = tuple(Column(name=name) for name in columns)
            tables.append(Table(title=title, columns=named, rows=tuple(rows)))
    return ResultPage(
        kind="eval",
        name=suite,
        title=f"Scores on {suite}",
        summary=_summary(by_place, tasks, models),
        machine=machine,
        tables=tuple(tables),
        plots=(_means_plot(by_place, retrieval, models),) if retrieval else (),
    )


def groups_of(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Development tasks and the others, by the name of the group; one group if all are of one."""
    development = _development(tasks)
    others = [task for task in tasks if task not in development]
    if not development:
        return {_counted(others, "task"): others}
    groups = {_counted(development, "development task"): development}
    return groups | {_counted(others, "other task"): others} if others else groups


def _development(tasks: Sequence[str]) -> list[str]:
    """The development tasks among others, and samples of them."""
    return [task for task in tasks if sampled_task(task) in DEVELOPMENT_TASKS]


def _scores_table(
    scores: Scores,
    tasks: Sequence[str],
    models: Sequence[str],
    measures: Mapping[str, str],
    suite: str,
) -> Table:
    columns = [
        Column(name="task"),
        Column(name="measure"),
        *(Column(name=model, best="highest") for model in models),
    ]
    paper = LOCOV1 if suite == "locov1" else {}
    if paper:
        columns += [Column(name=f"paper, {kind}") for kind in ("teacher", "single", "multi")]
    rows: dict[str, tuple[Cell, ...]] = {}
    for task in tasks:
        measure = MEASURE_NAMES.get(measures[task], measures[task])
        figures: tuple[Cell, ...] = (paper.get(task) or (None,) * 3) if paper else ()
        ours = (_main_score(scores, task, model) for model in models)
        rows[task] = (task, measure, *ours, *figures)
    means: list[tuple[Cell, ...]] = []
    if len(rows) > 1:
        groups = groups_of(tasks)
        named = {f"mean of {name}": own for name, own in groups.items()} if len(groups) > 1 else {}
        for name, own in (named | {"mean": list(tasks)}).items():
            columns_of_means = zip(*(rows[task][2:] for task in own), strict=True)
            means.append((name, "", *map(_mean, columns_of_means)))
    return Table(
        title="Main scores",
        columns=tuple(columns),
        rows=(*rows.values(), *means),
        best_in="row",
        notes=tuple(_scores_notes(tasks, suite)),
    )


def _scores_notes(tasks: Sequence[str], suite: str) -> Iterable[str]:
    yield "A mean is given where a model was measured on every task."
    if suite == "longembed":
        yield (
            f"The paper's means on LongEmbed: {LONGEMBED['single']:.4f} with one vector, "
            f"{LONGEMBED['multi']:.4f} with one for each chunk (arXiv 2503.20376)."
        )
    if development := _development(tasks):
        yield (
            "Development tasks, on which the size of chunks and the weights of multi and hybrid "
            f"were chosen, so that these scores flatter them: {', '.join(development)}."
        )


def _intervals_table(scores: Scores, tasks: Sequence[str], models: Sequence[str]) -> Table:
    columns = [Column(name="task"), Column(name="queries", digits=0)]
    columns += [Column(name=model) for model in models]
    rows: list[tuple[Cell, ...]] = []
    for task in tasks:
        values = [_ndcg(scores, task, model) for model in models]
        num = max(len(each) for each in values if each is not None)
        rows.append((task, num, *(None if each is None else _range(each) for each in values)))
    return Table(
        title="95% intervals of nDCG@10",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=("Percentile bootstrap over the queries, 2,000 resamples.",),
    )


def _differences_table(scores: Scores, tasks: Sequence[str], models: Sequence[str]) -> Table:
    """The default mode, else the first model, against each of the others on the same queries."""
    base = next(
        (model for model in models if model.endswith((" hybrid", " in-context"))), models[0]
    )
    others = [model for model in models if model != base]
    columns = [Column(name="task")]
    for other in others:
        columns += [Column(name=f"{base} − {other}"), Column(name="p", digits=3)]
    rows = []
    for task in tasks:
        ours = _ndcg(scores, task, base)
        cells: list[Cell] = [task]
        for other in others:
            theirs = _ndcg(scores, task, other)
            if ours is None or theirs is None:
                cells += [None, None]
            else:
                cells += [float((ours - theirs).mean()), paired_p_value(ours, theirs)]
        rows.append(tuple(cells))
    return Table(
        title=f"{base} against the others: difference of nDCG@10",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=("p: paired randomisation test over the queries, two-sided, 2,000 resamples.",),
    )


def _beside_table(
    beside: Beside, scores: Scores, tasks: Sequence[str], models: Sequence[str]
) -> Table:
    """Measures of every task, and their means over several."""
    rows: list[tuple[Cell, ...]] = []
    for measure, name in beside.measures.items():
        means = {task: _means_by_model(scores, task, models, measure) for task in tasks}
        own = [(task, name, *(means[task].get(model) for model in models)) for task in tasks]
        rows += own
        if len(own) > 1:
            rows.append(("mean", name, *map(_mean, list(zip(*own, strict=True))[2:])))
    return Table(
        title=beside.title,
        columns=(
            Column(name="task"),
            Column(name="measure"),
            *(Column(name=model, best="highest") for model in models),
        ),
        rows=tuple(rows),
        best_in="row",
        notes=beside.notes,
    )


def _means_by_model(
    scores: Scores, task: str, models: Sequence[str], measure: str
) -> dict[str, float]:
    """The mean of a measure over the queries of a task, by model."""
    values = {
        model: known.by_query(measure)
        for model in models
        if (known := scores.get((task, model))) is not None
    }
    return {model: float(each.mean()) for model, each in values.items() if each is not None}


def _means_plot(scores: Scores, tasks: Sequence[str], models: Sequence[str]) -> Plot:
    """Mean nDCG@10 of every model that was measured on all tasks, with its interval, by group."""
    series = tuple(
        _means_series(name, scores, own, models) for name, own in groups_of(tasks).items()
    )
    return Plot(
        title=f"Mean nDCG@10 over {_counted(tasks, 'retrieval task')}",
        kind="bars",
        x_label="",
        y_label="nDCG@10",
        series=series,
        notes=("Intervals: 95%, over the queries of each task.",),
    )


def _means_series(name: str, scores: Scores, tasks: Sequence[str], models: Sequence[str]) -> Series:
    means: dict[str, tuple[float, float, float]] = {}
    for model in models:
        known = [_ndcg(scores, task, model) for task in tasks]
        values = [each for each in known if each is not None]
        if len(values) == len(tasks):
            # Each task has the same weight, however many queries it has.
            deviation = np.sqrt(sum(each.var() / len(each) for each in values)) / len(values)
            mean, reach = float(np.mean([each.mean() for each in values])), 1.96 * float(deviation)
            means[model] = mean, mean - reach, mean + reach
    return Series.of_intervals(name, list(means), list(means.values()))


def _summary(scores: Scores, tasks: Sequence[str], models: Sequence[str]) -> str:
    """The means of the models that were measured on all tasks, best first, by group."""
    sentences = []
    for name, own in groups_of(tasks).items():
        means = {
            model: mean
            for model in models
            if (mean := _mean([_main_score(scores, task, model) for task in own])) is not None
        }
        if means:
            ordered = sorted(means.items(), key=lambda item: -item[1])
            figures = ", ".join(f"{model} {mean:.4f}" for model, mean in ordered)
            sentences.append(f"Means over {name}: {figures}.")
    if not sentences:
        return f"{len(scores)} of {len(tasks) * len(models)} measurements are there."
    return " ".join(sentences)


def _main_score(scores: Scores, task: str, model: str) -> float | None:
    known = scores.get((task, model))
    return None if known is None else known.main_score


def _ndcg(scores: Scores, task: str, model: str) -> Doubles | None:
    known = scores.get((task, model))
    return None if known is None else known.ndcg_by_query


def _range(values: Doubles) -> str:
    _, low, high = interval(values)
    return f"{low:.4f} – {high:.4f}"


def _mean(cells: Sequence[Cell]) -> float | None:
    """The mean of scores, where none is missing."""
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return float(np.mean(numbers)) if numbers and len(numbers) == len(cells) else None


def _counted(tasks: Sequence[str], noun: str) -> str:
    return f"{len(tasks)} {noun}" + ("" if len(tasks) == 1 else "s")
