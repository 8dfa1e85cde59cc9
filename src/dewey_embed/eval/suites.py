"""Suites by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.beir import LAYOUT, is_beir_folder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

TIMEOUT_S = 4.0


def why_not_on_hub(path: str) -> str | None:
    """Why a data set (`owner/name`) cannot be had, in a few words; `None` if it can."""
    reason = _why_unreachable()
    if reason is None or in_cache(path):
        return None
    return f"{path} is not in the Hugging Face cache, and {reason}"


def in_cache(path: str) -> bool:
    """Whether `datasets` has prepared this data set before, so that it opens without a network."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = path.partition("/")
    folder = config.HF_DATASETS_CACHE / f"{owner}___{camelcase_to_snakecase(name)}"
    return next(folder.glob("*/*/*/dataset_info.json"), None) is not None


@cache
def _why_unreachable() -> str | None:
    """Why the hub does not answer, asked once in a process; `None` if it does.

    If it does not, this process is in offline mode from then on: what is in the cache then opens
    at once, not after the clients' retries.
    """
    import requests
    from datasets import config
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        requests.head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except requests.RequestException:
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        return f"{constants.ENDPOINT} cannot be reached"
    return None


MTEB_ENGLISH = "MTEB(eng, v2)"
LONGEMBED = "LongEmbed"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks to measure on; why others are missing, by task; and what is wrong with the rest."""

    name: str
    tasks: list[AbsTask] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], AbsTask]) -> None:
        """Add the task that `make` gives, or what is wrong with its data."""
        try:
            self.tasks.append(make())
        except TaskError as error:
            self.faulty[name] = str(error)


def open_suite(name_or_path: str, data: Path | None = None) -> Suite:
    """The suite of a name, of a folder in BEIR's layout, or of a folder of such folders.

    `data` is where tasks may lie: `sts/*.tsv` and `cls/*.tsv`, `locov1/` with the files of the
    hub's data sets, and a folder in BEIR's layout under a task's own name (`LEMBQMSumRetrieval/`;
    one more for each split, where a task has several).

    Raises:
        ConfigError: neither a suite nor a folder of tasks.
        TaskError: a folder cannot be looked into.

    """
    opened = SUITES.get(name_or_path)
    if opened is not None:
        return opened(data.expanduser() if data is not None else None)
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return _folder(folder.resolve())
    raise ConfigError(
        f"no suite {name_or_path!r}, and no such folder; suites: {', '.join(SUITES)}, or a folder "
        "in BEIR's layout, or a folder of such folders"
    )


def _folder(folder: Path) -> Suite:
    """The task of a folder, or the tasks of its folders."""
    from dewey_embed.eval.tasks import beir_task

    suite = Suite(name=folder.name)
    if is_beir_folder(folder):
        suite.add(folder.name, partial(beir_task, folder))
        return suite
    try:
        inner = sorted(
            each for each in folder.iterdir() if each.is_dir() and each.name[0] not in "._"
        )
    except OSError as error:
        raise TaskError(f"{folder}: cannot be looked into: {error.strerror}") from None
    for path in inner:
        if path.name[0] in "._":
            continue
        try:
            is_task = is_beir_folder(path)
        except TaskError as error:
            suite.faulty[path.name] = str(error)
            continue
        if is_task:
            suite.add(path.name, partial(beir_task, path))
        else:
            suite.missing[path.name] = "holds no corpus.jsonl"
    if not suite.tasks and not suite.faulty:
        raise ConfigError(
            f"{folder}: holds no corpus.jsonl, and neither does a folder in it; {LAYOUT}"
        )
    return suite


def _longembed(data: Path | None) -> Suite:
    import mteb

    return _of_mteb("longembed", mteb.get_benchmark(LONGEMBED).tasks, data)


def _mteb_english(data: Path | None) -> Suite:
    import mteb

    return _of_mteb("mteb-eng-v2", mteb.get_benchmark(MTEB_ENGLISH).tasks, data)


def _mteb_offline(data: Path | None) -> Suite:
    """The tasks of MTEB(eng, v2) whose data can lie in the data folder as TSV files."""
    import mteb

    from dewey_embed.eval.tasks import FILES

    return _of_mteb("mteb-offline", [mteb.get_task(name) for name in FILES], data)


def _of_mteb(name: str, tasks: Iterable[AbsTask], data: Path | None) -> Suite:
    """A suite of mteb's tasks, each over data in the data folder or over the hub's."""
    suite = Suite(name=name)
    for task in tasks:
        try:
            local, why_not_local = _local(task, data) if data is not None else (None, None)
        except TaskError as error:
            suite.faulty[task.metadata.name] = str(error)
            continue
        why_not = None if local else why_not_on_hub(task.metadata.dataset["path"])
        if why_not is None:
            suite.tasks.append(local or task)
        else:
            reasons = [why_not_local or "no data folder was given", why_not]
            suite.missing[task.metadata.name] = "; ".join(reasons)
    return suite


def _local(task: AbsTask, data: Path) -> tuple[AbsTask | None, str]:
    """One of mteb's tasks over the data folder's data, or a reason why they are not there."""
    from mteb.abstasks import AbsTaskRetrieval

    from dewey_embed.eval.tasks import FILES, local_task, missing_splits, short_text_task

    name = task.metadata.name
    if name in FILES:
        lacking = [file for file in FILES[name].values() if not (data / file).is_file()]
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


def _locov1(data: Path | None) -> Suite:
    from dewey_embed.eval.locov1 import FOLDER, HUB, NAMES, locov1_task

    folder = data / FOLDER if data is not None else None
    if folder is not None and folder.is_dir():
        suite = Suite(name="locov1")
        for name in NAMES:
            suite.add(name, partial(locov1_task, name, folder))
        return suite
    reasons = [reason for path in HUB.values() if (reason := why_not_on_hub(path))]
    if not reasons:
        return Suite(name="locov1", tasks=[locov1_task(name) for name in NAMES])
    here = f"{folder} is not there" if folder else "no data folder was given"
    return Suite(name="locov1", missing=dict.fromkeys(NAMES, f"{here}; {reasons[0]}"))


def _generated(name: str) -> Suite:
    """A suite whose texts are made here; that of LongEmbed's two tests is right at the first."""
    from dewey_embed.eval import generated
    from dewey_embed.eval.tasks import beir_task

    tasks = [
        beir_task(data, main_score="ndcg_at_10" if name == "position" else "ndcg_at_1")
        for data in generated.suite(name)
    ]
    return Suite(name=name, tasks=list(tasks))


SUITES: dict[str, Callable[[Path | None], Suite]] = {
    "longembed": _longembed,
    "locov1": _locov1,
    "mteb-eng-v2": _mteb_english,
    "mteb-offline": _mteb_offline,
    "passkey": lambda _: _generated("passkey"),
    "needle": lambda _: _generated("needle"),
    "position": lambda _: _generated("position"),
}
"""Suites by name."""
