"""mteb's similarity and classification tasks over local TSV files: the same scores, no network.

Only where the data come from differs from mteb's own tasks. A file must have as many rows as mteb
counts for the task, for a part of a task scores otherwise than the whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mteb
from mteb.abstasks import AbsTask, AbsTaskClassification, AbsTaskSTS

from dewey_embed.errors import TaskError
from dewey_embed.eval.tasks import local_metadata

FILES: Mapping[str, Mapping[str, str]] = MappingProxyType(
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
"""Files of each task's splits, below the data folder."""

STS_COLUMNS = ("sentence1", "sentence2", "score")
LABEL_COLUMNS = ("text", "label")

Columns = dict[str, list[Any]]


def short_text_task(name: str, data: Path) -> AbsTask:
    """The task of a name in `FILES`, read from a data folder.

    Raises:
        TaskError: a file is missing, has another number of rows than mteb's task, or a row that
            cannot be read; names file and line.

    """
    original = type(mteb.get_task(name))
    paths = {split: data / file for split, file in FILES[name].items()}
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
    about = local_metadata(original.metadata, data / FILES[name]["test"], digest)
    return _task_over(original, about, columns)


def _task_over(original: type[AbsTask], about: Any, columns: Mapping[str, Columns]) -> AbsTask:
    class Task(original):  # type: ignore[misc,valid-type] # any of mteb's tasks
        metadata = about
        data_loaded: bool = False

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            """Nothing; the data are then in `dataset`."""
            from datasets import Dataset, DatasetDict

            if not self.data_loaded:
                self.dataset = DatasetDict(
                    {split: Dataset.from_dict(each) for split, each in columns.items()}
                )
                self.data_loaded = True

    Task.__name__ = Task.__qualname__ = original.__name__
    return Task()


def _pairs(path: Path, lowest: float, highest: float) -> Columns:
    """Sentence pairs with people's scores of how near they are."""
    columns: Columns = {name: [] for name in STS_COLUMNS}
    for place, (first, second, cell) in _rows(path, STS_COLUMNS):
        try:
            score = float(cell)
        except ValueError:
            score = math.nan
        if not lowest <= score <= highest:  # NaN neither
            raise TaskError(f"{place}: the score {cell!r} is no number in {lowest} to {highest}")
        for name, value in zip(STS_COLUMNS, (first, second, score), strict=True):
            columns[name].append(value)
    return columns


def _labelled(path: Path) -> Columns:
    rows = [cells for _, cells in _rows(path, LABEL_COLUMNS)]
    return {name: [cells[place] for cells in rows] for place, name in enumerate(LABEL_COLUMNS)}


def _number_labels(columns: Mapping[str, Columns], paths: Mapping[str, Path]) -> None:
    """Nothing; labels are numbers then, as on the hub: that of a name is its place by alphabet."""
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
    """Refuse a file of another size than mteb's task; mteb publishes sizes of most splits."""
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
        raise TaskError(f"{path}: holds no row under its header; nothing can be measured on it")
    return rows
