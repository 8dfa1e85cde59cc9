"""Retrieval data → tasks that mteb runs, saves and loads; nothing is fetched.

Scores are mteb's: pytrec_eval over the 1,000 best documents, a gain counted as it stands, not as
2^gain. A document that has a query's id is a document like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import RetrievalData, is_beir_folder, read_beir

if TYPE_CHECKING:
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

SPLIT = "test"
"""The split of a task that has only one."""

ReadSplits = Callable[[], Mapping[str, RetrievalData]]


def beir_task(
    source: Path | RetrievalData,
    *,
    name: str | None = None,
    main_score: Literal["ndcg_at_10", "ndcg_at_1"] = "ndcg_at_10",
) -> AbsTaskRetrieval:
    """The task of a folder in BEIR's layout, or of data made here; English to mteb.

    It is called `name`, else as its data are. Its revision is the data's digest, so results of
    changed data are told apart from those of the old.

    Raises:
        TaskError: the folder does not hold a task, or one that contradicts itself.

    """
    data = source if isinstance(source, RetrievalData) else read_beir(source)
    about = retrieval_metadata(
        name or data.name,
        path=data.name if isinstance(source, RetrievalData) else str(source),
        revision=data.digest,
        description="A corpus and queries in BEIR's layout.",
        main_score=main_score,
    )
    return task_over(AbsTaskRetrieval, about, lambda: {SPLIT: data}, left_out=data.left_out)


def local_task(original: AbsTaskRetrieval, folder: Path) -> AbsTaskRetrieval:
    """One of mteb's retrieval tasks over data in a folder, in BEIR's layout, in place of the hub's.

    A task of several splits has a folder in BEIR's layout for each. All else is the original's;
    the revision is the data's digest, for nothing says that they are the hub's data.

    Raises:
        TaskError: a split is missing, or does not hold a task.

    """
    missing = missing_splits(original, folder)
    if missing:
        raise TaskError(
            f"{folder}: holds no corpus.jsonl for {', '.join(missing)}; "
            f"{original.metadata.name} needs a folder in BEIR's layout for each split"
        )
    splits = original.metadata.eval_splits
    if len(splits) == 1 and is_beir_folder(folder):
        data = {split: read_beir(folder, split=split) for split in splits}
    else:
        data = {split: read_beir(folder / split) for split in splits}
    digests = ",".join(each.digest for each in data.values())
    about = local_metadata(original.metadata, folder, hashlib.sha256(digests.encode()))
    left_out = tuple(message for each in data.values() for message in each.left_out)
    return task_over(type(original), about, lambda: data, left_out=left_out)


def missing_splits(original: AbsTaskRetrieval, folder: Path) -> list[str]:
    """The splits of one of mteb's tasks that a folder does not hold."""
    splits = original.metadata.eval_splits
    if len(splits) == 1 and is_beir_folder(folder):
        return []
    return [split for split in splits if not is_beir_folder(folder / split)]


def task_over(
    base: type[AbsTaskRetrieval],
    about: TaskMetadata,
    read: ReadSplits,
    *,
    left_out: tuple[str, ...] = (),
) -> AbsTaskRetrieval:
    """A task of a class made for it: `read` is called for its data, by split, when they are needed.

    The class must be its own, for mteb looks for metadata there when it unloads a task. `left_out`
    is the task's attribute of that name: what of its files is no part of it, in words.
    """
    told = left_out

    class Task(base):  # type: ignore[misc,valid-type] # any of mteb's retrieval tasks
        metadata = about
        data_loaded: bool = False
        left_out: tuple[str, ...] = told

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            """Put the data into `dataset`."""
            if not self.data_loaded:
                self.dataset = {
                    "default": {split: _as_mteb(data) for split, data in read().items()}
                }
                self.data_loaded = True

    Task.__name__ = Task.__qualname__ = about.name
    return Task()


def retrieval_metadata(
    name: str,
    *,
    path: str,
    revision: str,
    description: str,
    main_score: str = "ndcg_at_10",
    **more: Any,
) -> TaskMetadata:
    """What mteb wants to know of an English retrieval task."""
    return TaskMetadata(
        name=name,
        description=description,
        dataset={"path": path, "revision": revision},
        type="Retrieval",
        category="t2t",
        eval_splits=[SPLIT],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        **more,
    )


def local_metadata(original: TaskMetadata, path: Path, digest: hashlib._Hash) -> TaskMetadata:
    """The metadata of one of mteb's tasks whose data come from `path`."""
    dataset = {"path": str(path), "revision": digest.hexdigest()[:16]}
    return original.model_copy(update={"dataset": dataset})


def _as_mteb(data: RetrievalData) -> RetrievalSplitData:
    """The data as mteb holds them: titles apart, which every model puts before its text."""
    from datasets import Dataset

    def table(texts: Mapping[str, str]) -> Dataset:
        return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})

    corpus = table(
        {
            name: text.removeprefix(data.titles.get(name, "")).removeprefix(" ")
            if name in data.titles
            else text
            for name, text in data.documents.items()
        }
    )
    if data.titles:
        titles = [data.titles.get(name, "") for name in data.documents]
        corpus = corpus.add_column("title", titles)
    return {
        "corpus": corpus,
        "queries": table(data.queries),
        "relevant_docs": {query: dict(gains) for query, gains in data.qrels.items()},
        "top_ranked": None,
    }
