"""Names and folders → suites: the tasks that can be measured here, and why the others cannot.

Data are looked for in the data folder first, then in the Hugging Face cache, then on the hub. What
is nowhere is named with the reason; what is there but wrong is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.errors import ConfigError
from dewey_embed.eval.beir import is_beir_folder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MTEB_ENGLISH = "MTEB(eng, v2)"
LONGEMBED = "LongEmbed"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks to measure on, and why others of the same name are missing, by task."""

    name: str
    tasks: list[AbsTask] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def open_suite(name_or_path: str, data: Path | None = None) -> Suite:
    """The suite of a name, of a folder in BEIR's layout, or of a folder of such folders.

    `data` is where tasks may lie: `sts/*.tsv` and `cls/*.tsv`, `locov1/` with the files of the
    hub's data sets, and a folder in BEIR's layout under a task's own name (`LEMBQMSumRetrieval/`;
    one more for each split, where a task has several).

    Raises:
        ConfigError: neither a suite nor a folder of tasks.
        TaskError: data are there, but not as they must be; names file and line.

    """
    opened = SUITES.get(name_or_path)
    if opened is not None:
        return opened(data)
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

    if is_beir_folder(folder):
        return Suite(name=folder.name, tasks=[beir_task(folder)])
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    tasks = [path for path in inner if is_beir_folder(path)]
    if not tasks:
        raise ConfigError(
            f"{folder}: holds no corpus.jsonl, and neither does a folder in it; a task in BEIR's "
            "layout has corpus.jsonl, queries.jsonl and qrels.tsv"
        )
    return Suite(
        name=folder.name,
        tasks=[beir_task(path) for path in tasks],
        missing={path.name: "holds no corpus.jsonl" for path in inner if path not in tasks},
    )


def _longembed(data: Path | None) -> Suite:
    import mteb

    return _of_mteb("longembed", mteb.get_benchmark(LONGEMBED).tasks, data)


def _mteb_english(data: Path | None) -> Suite:
    import mteb

    return _of_mteb("mteb-eng-v2", mteb.get_benchmark(MTEB_ENGLISH).tasks, data)


def _mteb_offline(data: Path | None) -> Suite:
    """The tasks of MTEB(eng, v2) whose data can lie in the data folder as TSV files."""
    import mteb

    from dewey_embed.eval.short_texts import FILES

    return _of_mteb("mteb-offline", [mteb.get_task(name) for name in FILES], data)


def _of_mteb(name: str, tasks: Iterable[AbsTask], data: Path | None) -> Suite:
    """A suite of mteb's tasks, each over data in the data folder or over the hub's."""
    from dewey_embed.eval.hub import why_not_on_hub

    suite = Suite(name=name)
    for task in tasks:
        local, why_not_local = _local(task, data) if data is not None else (None, None)
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

    from dewey_embed.eval.short_texts import FILES, short_text_task
    from dewey_embed.eval.tasks import local_task, missing_splits

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
    from dewey_embed.eval.hub import why_not_on_hub
    from dewey_embed.eval.locov1 import FOLDER, HUB, NAMES, locov1_task

    folder = data / FOLDER if data is not None else None
    if folder is not None and folder.is_dir():
        return Suite(name="locov1", tasks=[locov1_task(name, folder) for name in NAMES])
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
