"""Models × tasks → scores through mteb, and a page of results: the work of `dewey eval`.

Each task is kept when it is done: a run that is killed loses the task it was in, and resumes when
it is run again. Beside each of mteb's result files lie the scores of every query, from which
intervals and paired differences are computed.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import FiniteFloat, TypeAdapter

from dewey_embed.errors import DeweyError, ResultsError, TaskError, first_line
from dewey_embed.eval.models import EvaluatedModel
from dewey_embed.eval.result_page import Machine, ResultPage
from dewey_embed.eval.scores import Failure, QueryScores, TaskScores, query_scores
from dewey_embed.eval.suites import Suite
from dewey_embed.eval.summary import summarise
from dewey_embed.files import crc32, flush, sweep_drafts, write_json, write_text

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.cache import ResultCache
    from mteb.models.models_protocols import MTEBModels
    from mteb.results import TaskResult

QUERIES = "queries"
"""Folder beside mteb's result files for scores by query; it keeps itself out of git."""

CHECKSUMS = ".crc"
"""Ending of the file beside them by which damage to either is found."""

QUERY_SCORES = TypeAdapter(dict[str, dict[str, dict[str, FiniteFloat]]])
"""The content of such a file: scores by split, query and measure."""


def evaluate(
    suite: Suite,
    models: Sequence[EvaluatedModel],
    results: Path,
    *,
    only: Sequence[str] | None = None,
    finished_only: bool = False,
    device: str = "cpu",
    on_task: Callable[[str, str], None] = lambda model, task: None,
    on_failure: Callable[[str], None] = lambda reason: None,
) -> ResultPage:
    """The page of results over all tasks of a suite, or over those of `only` by name.

    A task with faulty data and a measurement that fails are passed to `on_failure` and stand on
    the page with their reason; the others go on.

    Raises:
        TaskError: none of the tasks has data or could be measured, or a name is no task of the
            suite.

    """
    names = [task.metadata.name for task in suite.tasks]
    known = {*names, *suite.missing, *suite.faulty}
    if unknown := set(only or ()) - known:
        raise TaskError(
            f"{suite.name} has no task {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known))}"
        )
    wanted = set(only or known)
    tasks = [task for task in suite.tasks if task.metadata.name in wanted]
    missing = {task: reason for task, reason in suite.missing.items() if task in wanted}
    failures = [
        Failure(model="", task=task, reason=reason)
        for task, reason in suite.faulty.items()
        if task in wanted
    ]
    for failure in failures:
        on_failure(f"{failure.task}: {failure.reason}")
    if not tasks:
        missing |= {failure.task: failure.reason for failure in failures}
        reasons = "; ".join(f"{task}: {reason}" for task, reason in missing.items())
        raise TaskError(f"{suite.name}: no task has data here: {reasons}")
    scores: list[TaskScores] = []
    for each in run(models, tasks, results, finished_only=finished_only, on_task=on_task):
        if isinstance(each, TaskScores):
            scores.append(each)
        else:
            failures.append(each)
            on_failure(f"{each.task}, {each.model}: {each.reason}")
    if failures and not scores:
        more = f" (and {len(failures) - 1:,} more)" if len(failures) > 1 else ""
        first = f"{failures[0].task}: {failures[0].reason}{more}"
        raise TaskError(f"{suite.name}: nothing could be measured; {first}")
    return summarise(
        suite.name,
        scores,
        measures={task.metadata.name: task.metadata.main_score for task in tasks},
        missing=missing,
        failed=failures,
        left_out={task.metadata.name: getattr(task, "left_out", ()) for task in tasks},
        ranks_chunks=any(getattr(task, "ranks_chunks", False) for task in tasks),
        machine=Machine.here(device=device),
    )


def run(
    models: Sequence[EvaluatedModel],
    tasks: Sequence[AbsTask],
    output: Path,
    *,
    finished_only: bool = False,
    on_task: Callable[[str, str], None] = lambda model, task: None,
) -> Iterator[TaskScores | Failure]:
    """The scores of each model on each task as soon as they are known, task by task.

    Those on disk are not measured again. A model that only searches has no scores on a task of
    another kind. A measurement that fails is a `Failure`, and the other tasks and models go on.

    `output` gets mteb's own layout (`results/MODEL/REVISION/…`). With `finished_only` nothing is
    measured. `on_task` is called before a measurement begins.

    Raises:
        DeweyError: a model cannot be opened.
        ResultsError: the results cannot be looked at.

    """
    from mteb.cache import ResultCache

    try:
        cache = ResultCache(output)
        sweep_drafts(output)
    except OSError as error:
        raise ResultsError(
            f"{output}: results cannot be kept there ({error.strerror}); give another --results"
        ) from None
    opened: dict[str, MTEBModels] = {}
    for task in tasks:
        name = task.metadata.name
        for each in models:
            if each.label not in opened:
                opened[each.label] = each.open()
            model = opened[each.label]
            known = _known(cache, model, task)
            if known is None and not finished_only and _fits(model, task):
                on_task(each.label, name)
                try:
                    known = _measure(cache, model, task)
                except DeweyError as error:
                    yield Failure(model=each.label, task=name, reason=str(error))
            if known is not None:
                result, queries = known
                yield TaskScores(model=each.label, task=name, result=result, queries=queries)


def _fits(model: MTEBModels, task: AbsTask) -> bool:
    """Whether a model can be measured on a task: BM25 has no vectors to classify by."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.models.models_protocols import EncoderProtocol

    return isinstance(task, AbsTaskRetrieval) or isinstance(model, EncoderProtocol)


def _known(
    cache: ResultCache, model: MTEBModels, task: AbsTask
) -> tuple[TaskResult, dict[str, QueryScores]] | None:
    """The result of a task on disk, if it is complete, sound and of the same data.

    Earlier versions kept as an experiment of the model what is now a model of its own.
    """
    metas = (model.mteb_model_meta, getattr(model, "earlier_meta", None))
    paths = [cache.get_task_result_path(task.metadata.name, meta) for meta in metas if meta]
    return next((known for path in paths if (known := _read(path, task)) is not None), None)


def _read(path: Path, task: AbsTask) -> tuple[TaskResult, dict[str, QueryScores]] | None:
    """A result and its scores by query; `None` where they are missing, damaged or of other data.

    Raises:
        ResultsError: they cannot be looked at.

    """
    from mteb.results import TaskResult

    try:
        result = TaskResult.from_disk(path)
        text = (path.parent / QUERIES / path.name).read_text(encoding="utf-8")
        queries = QUERY_SCORES.validate_json(text)
        main = [entry["main_score"] for split in result.scores.values() for entry in split]
        if not (_is_intact(path) and all(math.isfinite(score) for score in main)):
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
    return result, queries


def _measure(
    cache: ResultCache, model: MTEBModels, task: AbsTask
) -> tuple[TaskResult, dict[str, QueryScores]]:
    """The result of a task, which is then on disk; the scores by query are written last."""
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
            reason = first_line(error)
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
        flush(path)
        _write_queries(path.parent / QUERIES / path.name, queries)
    except OSError as error:
        raise ResultsError(
            f"{path}: results cannot be written ({error.strerror or error}); what was measured "
            "before is kept, and the same command goes on from there"
        ) from None
    except ValueError as error:  # mteb adds to a file that it wrote before
        raise ResultsError(
            f"{path.parent}: a file of mteb's there is damaged ({error}); remove it"
        ) from None
    return result, queries


def _without_nan(result: TaskResult) -> TaskResult:
    """The result with null where mteb computes NaN, of few queries: JSON has no NaN."""
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
    of_passages: Callable[[], dict[str, dict[str, float]]] = getattr(task, "passage_scores", dict)
    passage_scores = of_passages()
    return {
        split if len(task.dataset) == 1 else f"{subset}/{split}": {
            query: own | passage_scores.get(query, {})
            for query, own in query_scores(
                data["relevant_docs"], predictions[subset][split]
            ).items()
        }
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
                f"{query!r}; no score is taken from them. If its vectors come from a cache, "
                "give another --cache"
            )


def _write_queries(path: Path, scores: dict[str, QueryScores]) -> None:
    """Write scores by query into a folder that git leaves alone: they are many and large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path.parent / ".gitignore", "*\n")
    write_json(path, scores, sync=True)
    checksums = _checksums(path.parents[1] / path.name)
    write_json(path.with_suffix(CHECKSUMS), checksums, sync=True)


def _checksums(result: Path) -> dict[str, int]:
    """CRC-32 of a result of mteb's, and of the scores by query beside it."""
    return {"result": crc32(result), "queries": crc32(result.parent / QUERIES / result.name)}


def _is_intact(result: Path) -> bool:
    """Whether a result and its scores are as they were written; older ones are taken as they are.

    Raises:
        OSError: a file cannot be read.
        ValueError: the checksums are damaged.

    """
    path = (result.parent / QUERIES / result.name).with_suffix(CHECKSUMS)
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    return bool(written == _checksums(result))
