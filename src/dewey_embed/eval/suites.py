"""Names and folders → suites: the tasks that can be measured here, and why the others cannot.

Data are looked for in the data folder first, then in the Hugging Face cache, then on the hub. A
task whose data are in none of these is missing, with the reason. One whose data are there but
wrong is faulty: the other tasks of the suite are measured, and the run ends with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.beir import LAYOUT, is_beir_folder
from dewey_embed.eval.passages import PASSAGE_FILES, is_passage_folder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

BENCHMARKS = {"longembed": "LongEmbed", "mteb-eng-v2": "MTEB(eng, v2)"}
"""Suites that are benchmarks of mteb, under mteb's names."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks to measure on; why others are missing, by task; and the faults of the rest."""

    name: str
    tasks: list[AbsTask] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], AbsTask]) -> None:
        """Add the task that `make` gives, or the fault of its data."""
        try:
            self.tasks.append(make())
        except TaskError as error:
            self.faulty[name] = str(error)


def open_chunks(
    name_or_path: str,
    data: Path | None = None,
    *,
    num_documents: int | None = None,
    seed: int = 0,
) -> Suite:
    """The tasks that rank chunks: of a name in `CHUNK_SUITES`, of a folder, or of its folders.

    With `num_documents` each is over a sample of its documents. `data` is a folder in which
    `conteb/` holds the hub's data sets.

    Raises:
        ConfigError: a suite whose tasks have no chunks, neither a suite nor a folder of tasks, or
            the data folder is not there.
        TaskError: a folder cannot be looked into.

    """
    data = _data_folder(data)
    if name_or_path in CHUNK_SUITES:
        return CHUNK_SUITES[name_or_path](name_or_path, data, num_documents, seed)
    if name_or_path in SUITES:
        raise ConfigError(
            f"{name_or_path}: has no chunks to rank; give --suite {', '.join(CHUNK_SUITES)} or a "
            "folder, or leave out --contexts"
        )
    folder = _existing(name_or_path)
    from dewey_embed.eval.chunk_task import folder_task

    def maker(folder: Path) -> Callable[[], AbsTask] | None:
        if not is_passage_folder(folder):
            return None
        return partial(folder_task, folder, num_documents=num_documents, seed=seed)

    return _folder(folder, maker, lacking=PASSAGE_FILES)


def check_suite(name_or_path: str, data: Path | None) -> None:
    """Refuse what is neither a suite's name nor a folder, and a data folder that is not there.

    Raises:
        ConfigError: naming it.

    """
    _data_folder(data)
    if name_or_path not in SUITES and name_or_path not in CHUNK_SUITES:
        _existing(name_or_path)


def _data_folder(data: Path | None) -> Path | None:
    """The data folder, if one is given; an error if it is not there."""
    if data is not None and not (data := data.expanduser()).is_dir():
        raise ConfigError(
            f"{data}: no such folder, so no data can be read from it; give --data a folder that "
            "holds the suite's data, or leave it out to read them from the Hugging Face hub"
        )
    return data


def _existing(name_or_path: str) -> Path:
    """The folder that is not a suite's name.

    Raises:
        ConfigError: there is none.

    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    raise ConfigError(
        f"no suite {name_or_path!r}, and no such folder; suites: "
        f"{', '.join([*SUITES, *CHUNK_SUITES])}, or a folder of a task, or a folder of such "
        f"folders; {LAYOUT}"
    )


def open_suite(name_or_path: str, data: Path | None = None, *, passages: bool = False) -> Suite:
    """The suite of a name, of a task's folder, or of a folder of such folders.

    A task's folder is in BEIR's layout, or has passages (`eval/passages.py`); one with both is a
    task of documents, unless `passages`, which leaves out all tasks but those of passages.

    `data` is where tasks may lie: `sts/*.tsv` and `cls/*.tsv`, `locov1/` with the files of the
    hub's data sets, and a folder in BEIR's layout under a task's own name (`LEMBQMSumRetrieval/`;
    one more for each split, where a task has several).

    Raises:
        ConfigError: neither a suite nor a folder of tasks, a suite without passages, or the data
            folder is not there.
        TaskError: a folder cannot be looked into.

    """
    data = _data_folder(data)
    if name_or_path in CHUNK_SUITES:
        raise ConfigError(f"{name_or_path}: ranks chunks; add --contexts all")
    if name_or_path in SUITES:
        if passages:
            raise ConfigError(
                f"{name_or_path}: has no passages to rank; give --suite a folder, or leave out "
                "--passages"
            )
        return SUITES[name_or_path](name_or_path, data)
    return _folder(
        _existing(name_or_path),
        partial(_maker, passages=passages),
        lacking=PASSAGE_FILES if passages else "corpus.jsonl",
    )


Maker = Callable[[Path], "Callable[[], AbsTask] | None"]
"""Gives what makes the task of a folder; `None` where the folder holds none."""


def _folder(folder: Path, maker: Maker, *, lacking: str) -> Suite:
    """The task of a folder, or the tasks of its folders; `lacking` is what others do not hold."""
    suite = Suite(name=folder.name)
    if make := maker(folder):
        suite.add(folder.name, make)
        return suite
    try:
        inner = sorted(
            path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"
        )
    except OSError as error:
        raise TaskError(f"{folder}: cannot be looked into: {error.strerror}") from None
    for path in inner:
        try:
            make = maker(path)
        except TaskError as error:
            suite.faulty[path.name] = str(error)
            continue
        if make is not None:
            suite.add(path.name, make)
        else:
            suite.missing[path.name] = f"holds no {lacking}"
    if not suite.tasks and not suite.faulty:
        raise ConfigError(
            f"{folder}: holds no {lacking}, and neither does a folder in it; {LAYOUT}"
        )
    return suite


def _maker(folder: Path, *, passages: bool) -> Callable[[], AbsTask] | None:
    """What makes the task of a folder; `None` where the folder holds none."""
    is_beir = is_beir_folder(folder)
    if is_passage_folder(folder) and (passages or not is_beir):
        from dewey_embed.eval.passage_task import passage_task

        return partial(passage_task, folder, name=f"{folder.name}_passages" if is_beir else None)
    if is_beir and not passages:
        from dewey_embed.eval.tasks import beir_task

        return partial(beir_task, folder)
    return None


def _benchmark(name: str, data: Path | None) -> Suite:
    import mteb

    return _of_mteb(name, mteb.get_benchmark(BENCHMARKS[name]).tasks, data)


def _mteb_offline(name: str, data: Path | None) -> Suite:
    """The tasks of MTEB(eng, v2) whose data can lie in the data folder as TSV files."""
    import mteb

    from dewey_embed.eval.tasks import SHORT_TEXT_FILES

    return _of_mteb(name, [mteb.get_task(task) for task in SHORT_TEXT_FILES], data)


def _of_mteb(name: str, tasks: Iterable[AbsTask], data: Path | None) -> Suite:
    """A suite of mteb's tasks, each over data in the data folder or over the hub's."""
    from dewey_embed.eval.hub import why_no_dataset

    suite = Suite(name=name)
    for task in tasks:
        try:
            local, why_not_local = _local(task, data) if data is not None else (None, None)
        except TaskError as error:
            suite.faulty[task.metadata.name] = str(error)
            continue
        why_not = None if local else why_no_dataset(task.metadata.dataset["path"])
        if why_not is None:
            suite.tasks.append(local or task)
        else:
            reasons = [why_not_local or "no data folder was given", why_not]
            suite.missing[task.metadata.name] = "; ".join(reasons)
    return suite


def _local(task: AbsTask, data: Path) -> tuple[AbsTask | None, str]:
    """One of mteb's tasks over the data folder's data, or a reason why they are not there."""
    from mteb.abstasks import AbsTaskRetrieval

    from dewey_embed.eval.tasks import (
        SHORT_TEXT_FILES,
        local_task,
        missing_splits,
        short_text_task,
    )

    name = task.metadata.name
    if name in SHORT_TEXT_FILES:
        lacking = [each for each in SHORT_TEXT_FILES[name].values() if not (data / each).is_file()]
        if lacking:
            return None, f"{data} has no {', '.join(lacking)}"
        return short_text_task(name, data), ""
    folder = data / name
    # Without the candidates of a reranking task, a folder in BEIR's layout is another task.
    if task.metadata.type != "Retrieval" or not isinstance(task, AbsTaskRetrieval):
        return None, f"a {task.metadata.type} task is not read from a data folder"
    splits = missing_splits(task, folder)
    if splits == task.metadata.eval_splits:
        return None, f"{data} has no {name}/corpus.jsonl"
    if splits:
        return None, f"{folder} has no corpus.jsonl for {', '.join(splits)}"
    return local_task(task, folder), ""


def _locov1(name: str, data: Path | None) -> Suite:
    from dewey_embed.eval.hub import why_no_dataset
    from dewey_embed.eval.locov1 import FOLDER, HUB, NAMES, locov1_task

    folder = data / FOLDER if data is not None else None
    if folder is not None and folder.is_dir():
        suite = Suite(name=name)
        for task in NAMES:
            suite.add(task, partial(locov1_task, task, folder))
        return suite
    reasons = [reason for path in HUB.values() if (reason := why_no_dataset(path))]
    if not reasons:
        return Suite(name=name, tasks=[locov1_task(task) for task in NAMES])
    why = f"{folder} is not there" if folder else "no data folder was given"
    return Suite(name=name, missing=dict.fromkeys(NAMES, f"{why}; {reasons[0]}"))


def _generated(name: str, data: Path | None) -> Suite:
    """A suite of texts that are made here; LongEmbed's two tests count the first hit alone."""
    from dewey_embed.eval import generated
    from dewey_embed.eval.tasks import beir_task

    tasks = [
        beir_task(made, main_score="ndcg_at_10" if name == "position" else "ndcg_at_1")
        for made in generated.suite(name)
    ]
    return Suite(name=name, tasks=list(tasks))


SUITES: dict[str, Callable[[str, Path | None], Suite]] = {
    "longembed": _benchmark,
    "locov1": _locov1,
    "mteb-eng-v2": _benchmark,
    "mteb-offline": _mteb_offline,
    "passkey": _generated,
    "needle": _generated,
    "position": _generated,
}
"""Suites by name; each function takes the name and the data folder."""


def _conteb(name: str, data: Path | None, num_documents: int | None, seed: int) -> Suite:
    from dewey_embed.eval.conteb import FOLDER, OWNER, SPLITS, conteb_task
    from dewey_embed.eval.hub import why_no_dataset

    suite = Suite(name=name)
    for task in SPLITS:
        folder = data / FOLDER / task if data is not None else None
        local = folder if folder is not None and folder.is_dir() else None
        why_not = None if local else why_no_dataset(f"{OWNER}/{task}")
        if why_not is None:
            make = partial(conteb_task, task, local, num_documents=num_documents, seed=seed)
            suite.add(task, make)
        else:
            why = f"{folder} is not there" if folder else "no data folder was given"
            suite.missing[task] = f"{why}; {why_not}"
    return suite


def _lmeb_conteb(name: str, data: Path | None, num_documents: int | None, seed: int) -> Suite:
    from dewey_embed.eval.conteb import LMEB, lmeb_task
    from dewey_embed.eval.hub import why_no_dataset

    suite = Suite(name=name)
    for task in map(lmeb_task, LMEB):
        why_not = why_no_dataset(task.metadata.dataset["path"])
        if num_documents is not None:
            why_not = "its documents are not sampled; leave out --documents"
        if why_not is None:
            suite.tasks.append(task)
        else:
            suite.missing[task.metadata.name] = why_not
    return suite


CHUNK_SUITES: dict[str, Callable[[str, Path | None, int | None, int], Suite]] = {
    "conteb": _conteb,
    "lmeb-conteb": _lmeb_conteb,
}
"""Suites whose tasks rank chunks; each function takes the name, the data folder, the number of
documents of a sample and its seed."""
