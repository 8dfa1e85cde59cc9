"""Models on tasks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import FiniteFloat, TypeAdapter

from dewey_embed.errors import DeweyError, ResultsError, TaskError
from dewey_embed.eval.models import EvaluatedModel
from dewey_embed.eval.result_page import Machine, ResultPage
from dewey_embed.eval.scores import Failure, QueryScores, TaskScores, query_scores
from dewey_embed.eval.suites import Suite
from dewey_embed.eval.summary import summarise

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.cache import ResultCache
    from mteb.models.models_protocols import MTEBModels
    from mteb.results import TaskResult

QUERIES = "queries"
"""Folder beside mteb's result files for scores by query."""

QUERY_SCORES = TypeAdapter(dict[str, dict[str, dict[str, FiniteFloat]]])
"""What such a file holds: split, query, measure."""


def run(
    contenders: Sequence[EvaluatedModel],
    tasks: Sequence[AbsTask],
    output: Path,
    *,
    finished_only: bool = False,
    on_task: Callable[[str, str], None] = lambda contender, task: None,
) -> Iterator[TaskScores | Failure]:
    """Each outcome as soon as it is there, task by task; those on disk are not measured again.

    A model that only searches has no outcome on a task of another kind. What cannot be measured is
    a failure, and the other tasks and models go on.

    `output` gets mteb's own layout (`results/MODEL/REVISION/…`). With `finished_only` nothing is
    measured. `on_task` is called before a measurement begins.

    Raises:
        DeweyError: a model cannot be opened.
        ResultsError: the results cannot be looked at.

    """
    from mteb.cache import ResultCache

    try:
        cache = ResultCache(output)
    except OSError as error:
        raise ResultsError(
            f"{output}: results cannot be kept there ({error.strerror}); give another --results"
        ) from None
    opened: dict[str, MTEBModels] = {}
    for task in tasks:
        for contender in contenders:
            if contender.label not in opened:
                opened[contender.label] = contender.open()
            model = opened[contender.label]
            name = task.metadata.name
            known = _known(cache, model, task)
            if known is None and not finished_only and _fits(model, task):
                on_task(contender.label, name)
                try:
                    known = _measure(cache, model, task)
                except DeweyError as error:
                    yield Failure(contender=contender.label, task=name, reason=str(error))
            if known is not None:
                result, queries = known
                yield TaskScores(
                    contender=contender.label,
                    task=name,
                    result=result,
                    queries=queries,
                )


def _fits(model: MTEBModels, task: AbsTask) -> bool:
    """Whether a model can be measured on a task: BM25 has no vectors to classify by."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.models.models_protocols import EncoderProtocol

    return isinstance(task, AbsTaskRetrieval) or isinstance(model, EncoderProtocol)


def _known(
    cache: ResultCache, model: MTEBModels, task: AbsTask
) -> tuple[TaskResult, dict[str, QueryScores]] | None:
    """What is on disk of a task, if it is complete, sound and of the same data.

    Earlier versions wrote an experiment of the model's where a model of its own stands now.
    """
    metas = (model.mteb_model_meta, getattr(model, "earlier_meta", None))
    paths = [cache.get_task_result_path(task.metadata.name, meta) for meta in metas if meta]
    return next((found for path in paths if (found := _read(path, task)) is not None), None)


def _read(path: Path, task: AbsTask) -> tuple[TaskResult, dict[str, QueryScores]] | None:
    """A result and its scores by query; `None` where they are missing, damaged or of other data.

    Raises:
        ResultsError: they cannot be looked at.

    """
    from mteb.results import TaskResult

    try:
        result = TaskResult.from_disk(path)
        text = (path.parent / QUERIES / path.name).read_text(encoding="utf-8")
        scores = QUERY_SCORES.validate_json(text)
        found = [entry["main_score"] for split in result.scores.values() for entry in split]
        if not all(math.isfinite(score) for score in found):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ResultsError(
            f"{error.filename}: cannot be read ({error.strerror}); change its permissions, or "
            "give another --results"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if result.dataset_revision != task.metadata.dataset["revision"]:
        return None
    if set(task.eval_splits) - set(result.scores):
        return None
    return result, scores


def _measure(
    cache: ResultCache, model: MTEBModels, task: AbsTask
) -> tuple[TaskResult, dict[str, QueryScores]]:
    """The result of a task, which is then on disk; the scores by query come last."""
    import tempfile

    import mteb
    from mteb.abstasks import AbsTaskRetrieval

    with tempfile.TemporaryDirectory(prefix="dewey-eval-") as folder:
        try:
            task.load_data()
            done = mteb.evaluate(
                model,
                task,
                cache=None,  # written below, once it is known to be sound
                prediction_folder=folder,
                show_progress_bar=False,
                co2_tracker=False,
            )
        except DeweyError:
            raise
        except Exception as error:  # whatever a task, a model or the hub may raise
            reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
            raise TaskError(f"{task.metadata.name}: cannot be measured: {reason}") from error
        queries: dict[str, QueryScores] = {}
        if isinstance(task, AbsTaskRetrieval):
            queries = _query_scores(task, Path(folder))
        task.unload_data()
    [result] = done.task_results
    result = _without_nan(result)
    path = cache.get_task_result_path(task.metadata.name, model.mteb_model_meta)
    try:
        cache.save_to_cache(result, model.mteb_model_meta)
        _write(path.parent / QUERIES / path.name, queries)
    except ValueError as error:  # mteb adds to a file that it wrote before
        raise ResultsError(
            f"{path.parent}: a file of mteb's there is damaged ({error}); remove it"
        ) from None
    return result, queries


def _without_nan(result: TaskResult) -> TaskResult:
    """The result with null for what mteb cannot compute of few queries: NaN is no JSON.

    Raises:
        ResultsError: the main score is among it.

    """
    scores = {
        split: [
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in entry.items()
            }
            for entry in entries
        ]
        for split, entries in result.scores.items()
    }
    if any(entry["main_score"] is None for entries in scores.values() for entry in entries):
        raise ResultsError(
            f"{result.task_name}: the main score is NaN; the model's vectors or the task's data "
            "are to blame"
        )
    return result.model_copy(update={"scores": scores})


def _query_scores(task: Any, folder: Path) -> dict[str, QueryScores]:
    """Scores by query of each split and subset that mteb wrote predictions of."""
    predictions = json.loads((folder / task.prediction_file_name).read_text(encoding="utf-8"))
    for splits in predictions.values():
        for split in task.eval_splits:
            _refuse_nan(task.metadata.name, splits.get(split, {}))
    return {
        split if len(task.dataset) == 1 else f"{subset}/{split}": query_scores(
            data["relevant_docs"], predictions[subset][split]
        )
        for subset, splits in task.dataset.items()
        for split, data in splits.items()
        if split in predictions.get(subset, {})
    }


def _refuse_nan(task: str, ranking: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse scores that rank nothing: trec_eval would sort NaN anywhere."""
    for query, scores in ranking.items():
        if not all(math.isfinite(score) for score in scores.values()):
            raise ResultsError(
                f"{task}: the model scores documents with NaN or infinity for the query "
                f"{query!r}; no figure is taken from them. If its vectors come from a cache, "
                "give another --cache"
            )


def _write(path: Path, scores: dict[str, QueryScores]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(scores) + "\n", encoding="utf-8")
    os.replace(draft, path)


def evaluate(
    suite: Suite,
    contenders: Sequence[EvaluatedModel],
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
    outcomes: list[TaskScores] = []
    for each in run(contenders, tasks, results, finished_only=finished_only, on_task=on_task):
        if isinstance(each, TaskScores):
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
