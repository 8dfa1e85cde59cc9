"""Data on disk, or made here, as mteb's tasks: retrieval, similarity and classification.

Nothing is fetched, and scores are mteb's. Of retrieval they are pytrec_eval's over the 1,000 best
documents, with a gain counted as it stands, not as 2^gain; a document that has a query's id is a
document like any other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import mteb
from mteb.abstasks import AbsTask, AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import RetrievalData, is_beir_folder, read_beir

if TYPE_CHECKING:
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

SPLIT = "test"
"""The split of a task that has only one."""

SHORT_TEXT_FILES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "SICK-R": {"test": "sts/sickr.tsv"},
        "STS13": {"test": "sts/sts13.tsv"},
        "STS14": {"test": "sts/sts14.tsv"},
        "STS15": {"test": "sts/sts15.tsv"},
        "STSBenchmark": {"test": "sts/stsb_test.tsv"},
        "Banking77Classification": {
            "train": "cls/banking77_train.tsv",
            "test": "cls/banking77_test.tsv",
        },
    }
)
"""mteb's tasks of short texts that are read from files below the data folder, by split."""

STS_COLUMNS = ("sentence1", "sentence2", "score")
LABEL_COLUMNS = ("text", "label")

Columns = dict[str, list[Any]]


def beir_task(
    source: Path | RetrievalData,
    *,
    name: str | None = None,
    main_score: Literal["ndcg_at_10", "ndcg_at_1"] = "ndcg_at_10",
) -> AbsTaskRetrieval:
    """The task of a folder in BEIR's layout, or of data made here; English to mteb.

    Its name is `name`, else that of its data. Its revision is the digest of its data, so that
    results of changed data are not taken for those of the old.

    Raises:
        TaskError: the folder does not hold a task, or one that contradicts itself.

    """
    data = source if isinstance(source, RetrievalData) else read_beir(source)
    metadata = retrieval_metadata(
        name or data.name,
        path=data.name if isinstance(source, RetrievalData) else str(source),
        revision=data.digest,
        description="A corpus and queries in BEIR's layout.",
        main_score=main_score,
    )
    return retrieval_task(AbsTaskRetrieval, metadata, lambda: {SPLIT: data}, left_out=data.left_out)


def local_task(original: AbsTaskRetrieval, folder: Path) -> AbsTaskRetrieval:
    """One of mteb's retrieval tasks over a folder in BEIR's layout in place of the hub's data.

    A task of several splits has a folder in BEIR's layout for each. The revision is the digest of
    the data, since they may differ from the hub's; all else is the original's.

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
    return retrieval_task(
        type(original),
        _local_metadata(original.metadata, folder, hashlib.sha256(digests.encode())),
        lambda: data,
        left_out=tuple(message for each in data.values() for message in each.left_out),
    )


def missing_splits(original: AbsTaskRetrieval, folder: Path) -> list[str]:
    """The splits of one of mteb's tasks that a folder does not hold."""
    splits = original.metadata.eval_splits
    if len(splits) == 1 and is_beir_folder(folder):
        return []
    return [split for split in splits if not is_beir_folder(folder / split)]


def retrieval_task(
    base: type[AbsTaskRetrieval],
    metadata: TaskMetadata,
    read: Callable[[], Mapping[str, RetrievalData]],
    *,
    left_out: tuple[str, ...] = (),
) -> AbsTaskRetrieval:
    """A retrieval task; `read` gives its data by split when they are needed.

    `left_out` is the task's attribute of that name: what of its files is no part of it, in words.
    """
    task: AbsTaskRetrieval = _make_task(
        base,
        metadata,
        lambda: {"default": {split: _as_mteb(data) for split, data in read().items()}},
    )
    task.left_out = left_out  # type: ignore[attr-defined]
    return task


def retrieval_metadata(
    name: str,
    *,
    path: str,
    revision: str,
    description: str,
    main_score: str = "ndcg_at_10",
    **more: Any,
) -> TaskMetadata:
    """The metadata that mteb wants of an English retrieval task."""
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


def short_text_task(name: str, data: Path) -> AbsTask:
    """The task of a name in `SHORT_TEXT_FILES`, read from a data folder.

    Raises:
        TaskError: a file is missing, differs from mteb's task in the number of rows, or has a row
            that cannot be read; names file and line.

    """
    original = type(mteb.get_task(name))
    paths = {split: data / file for split, file in SHORT_TEXT_FILES[name].items()}
    columns: dict[str, Columns] = {}
    for split, path in paths.items():
        if issubclass(original, AbsTaskSTS):
            columns[split] = _pairs(path, original.min_score, original.max_score)
        else:
            columns[split] = _labelled(path)
        _check_count(original, split, path, columns[split])
    if issubclass(original, AbsTaskClassification):
        _number_labels(columns, paths)
    digest = hashlib.sha256()
    for path in paths.values():
        digest.update(path.read_bytes())
    metadata = _local_metadata(original.metadata, data / SHORT_TEXT_FILES[name]["test"], digest)

    def load() -> Any:
        from datasets import Dataset, DatasetDict

        return DatasetDict({split: Dataset.from_dict(each) for split, each in columns.items()})

    task: AbsTask = _make_task(original, metadata, load)
    return task


def _make_task(base: type[AbsTask], about: TaskMetadata, load: Callable[[], Any]) -> Any:
    """A task of a class of its own, since mteb reads the class's metadata to unload a task."""

    class Task(base):  # type: ignore[misc,valid-type] # any of mteb's tasks
        metadata = about
        data_loaded: bool = False

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            """Put the data into `dataset`."""
            if not self.data_loaded:
                self.dataset = load()
                self.data_loaded = True

    Task.__name__ = Task.__qualname__ = about.name
    return Task()


def _local_metadata(original: TaskMetadata, path: Path, digest: hashlib._Hash) -> TaskMetadata:
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


def _pairs(path: Path, lowest: float, highest: float) -> Columns:
    """Sentence pairs with people's scores of how similar they are."""
    columns: Columns = {name: [] for name in STS_COLUMNS}
    for place, (first, second, cell) in _rows(path, STS_COLUMNS):
        try:
            score = float(cell)
        except ValueError:
            score = math.nan
        if not lowest <= score <= highest:  # NaN neither
            raise TaskError(f"{place}: the score {cell!r} is not a number in {lowest} to {highest}")
        for name, value in zip(STS_COLUMNS, (first, second, score), strict=True):
            columns[name].append(value)
    return columns


def _labelled(path: Path) -> Columns:
    rows = [cells for _, cells in _rows(path, LABEL_COLUMNS)]
    return {name: [cells[i] for cells in rows] for i, name in enumerate(LABEL_COLUMNS)}


def _number_labels(columns: Mapping[str, Columns], paths: Mapping[str, Path]) -> None:
    """Replace labels by numbers, as on the hub: a label's place in alphabetical order."""
    numbers = {label: number for number, label in enumerate(sorted(set(columns["train"]["label"])))}
    for split, each in columns.items():
        unknown = sorted(set(each["label"]) - set(numbers))
        if unknown:
            raise TaskError(
                f"{paths[split]}: the labels {unknown[:4]} have no text to train on in "
                f"{paths['train']}"
            )
        each["label"] = [numbers[label] for label in each["label"]]


def _check_count(original: type[AbsTask], split: str, path: Path, columns: Columns) -> None:
    """Refuse a file of another size than mteb's task: a part scores otherwise than all of it."""
    known = (original.metadata.n_samples or {}).get(split)
    num = len(next(iter(columns.values())))
    if known is not None and num != known:
        raise TaskError(
            f"{path}: has {num} rows, mteb's {original.metadata.name} has {known}; "
            "scores over other data do not compare"
        )


def _rows(path: Path, header: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The rows under the header, each with its place; quotes are ordinary characters."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        cells = line.rstrip("\r").split("\t")
        if number == 1:
            if cells != list(header):
                raise TaskError(f"{path}, line 1: is {line!r}, not the header {' '.join(header)}")
        elif line.strip():
            place = f"{path}, line {number}"
            if len(cells) != len(header) or not all(cell.strip() for cell in cells):
                raise TaskError(f"{place}: {len(cells)} cells, not a {', a '.join(header)}")
            rows.append((place, cells))
    if not rows:
        raise TaskError(f"{path}: holds no row under its header; there is nothing to measure")
    return rows
