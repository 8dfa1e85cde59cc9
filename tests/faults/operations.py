"""The commands under test: how each begins, what it leaves, what may be seen meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import httpx2 as httpx
import numpy as np

from dewey_embed.errors import DeweyError
from dewey_embed.index.index import Index as OpenIndex
from dewey_embed.train.targets import MANIFEST, TargetsFolder, read_manifest
from dewey_embed.train.trainer import COMPLETE_FILE, intact
from tests.commands import Dewey
from tests.test_index_kill import contents as index_contents

SECONDS = 240
"""After which a command hangs."""

QUERIES = ("how do I make an object work in a with statement?", "operators", "what is a slice?")
PER_RUN = {"evaluation_time", "date", "command", "machine", "evaluation_phases", "train_hours"}
"""Keys of results whose values are those of one run."""


@dataclass
class Ended:
    """How a command ended: its exit code, what it said, and what it had promised by then."""

    code: int
    errors: str
    output: str = ""
    promised: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shared:
    """What all runs read: a tiny model that Dewey wrote, a tiny teacher and its recipe."""

    folder: Path

    @property
    def model(self) -> Path:
        """A random model of width 12 in Dewey's own layout."""
        return self.folder / "model"

    @property
    def teacher(self) -> Path:
        """A random teacher of width 32."""
        return self.folder / "teacher"

    @property
    def recipe(self) -> Path:
        """A recipe that trains in a second."""
        return self.folder / "tiny.toml"


class Operation:
    """A command with its starting state in a folder `home`; it writes below `home/out`."""

    name = ""
    starts_from: type[Operation] | None = None
    """Another operation whose results this one begins with."""

    model_beside = True

    ends_complete = True
    """Whether an end without an error means that everything has been done."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def begin(self, home: Path) -> None:
        """Make a folder as it is before the command."""
        (home / "out").mkdir(parents=True, exist_ok=True)
        (home / "tmp").mkdir(exist_ok=True)
        if self.model_beside:
            shutil.copytree(self.shared.model, home / "model")

    def words(self, home: Path) -> list[object]:
        """The command's arguments."""
        raise NotImplementedError

    def start(self, home: Path, before: Callable[[], None] | None = None) -> Dewey:
        """The command, begun; `before` is called in its process."""
        return Dewey(*self.words(home), before=before, TMPDIR=str(home / "tmp"), HF_HUB_OFFLINE="1")

    def drive(self, process: Dewey, home: Path) -> Ended:
        """Wait for the end of the command."""
        output, errors = process.communicate(SECONDS)
        return Ended(process.returncode, errors, output)

    def run(self, home: Path, before: Callable[[], None] | None = None) -> Ended:
        """The command from its beginning to its end."""
        process = self.start(home, before)
        try:
            return self.drive(process, home)
        finally:
            process.kill()

    def finished(self, home: Path) -> Any:
        """What a finished run has left, but for what differs from one run to the next."""
        raise NotImplementedError

    def units(self, home: Path) -> dict[str, Any]:
        """Finished units that can be seen, each with a value that no later run may change."""
        raise NotImplementedError

    def faulty_units(self, units: Mapping[str, Any], expected: Any) -> list[str]:
        """Names of seen units that are not as an unbroken run leaves them."""
        raise NotImplementedError

    def answers(self, home: Path) -> Any:
        """What is read back from the results; raises DeweyError where damage is named."""
        return None

    def is_right(self, answers: Any, expected: Any) -> bool:
        """Whether what is read back from damaged results is what stood there."""
        return bool(answers == expected)

    def kept(self, before: Mapping[str, Any], again: Ended, home: Path) -> list[str]:
        """Names of units that the run after a fault made again, though they were finished."""
        after = self.units(home)
        return [name for name, value in before.items() if after.get(name) != value]


def write_documents(home: Path, *, changed: bool = False) -> None:
    """Sixteen short texts; changed ones are longer, some are new and some are gone."""
    folder = home / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, name in enumerate(sorted(topics)[:18]):
        if number % 6 == (5 if changed else 0):
            continue
        length = 200 + 20 * (number % 4) + (40 if changed and number % 3 == 1 else 0)
        (folder / f"{name}.txt").write_text(str(topics[name])[:length])


class Index(Operation):
    """`dewey index` of a folder into a new index."""

    name = "index"

    def begin(self, home: Path) -> None:
        super().begin(home)
        write_documents(home)

    def words(self, home: Path) -> list[object]:
        options = ["--group-chars", "800", "--chunk-tokens", "32", "--json"]
        return ["index", home / "docs", "--index", self.index(home), "--model", home / "model",
                *options]  # fmt: skip

    def index(self, home: Path) -> Path:
        """The index's folder."""
        return home / "out" / "my.index"

    def finished(self, home: Path) -> Any:
        return comparable(index_contents(self.index(home)))

    def units(self, home: Path) -> dict[str, Any]:
        if not (self.index(home) / "dewey.json").exists():
            return {}
        with OpenIndex.open(self.index(home), home / "model") as index:
            len(index)  # lays it out, if that is still to be done
            found = [index.document(each.id) for each in index.documents()]
        return {each.id: each.text for each in found}

    def faulty_units(self, units: Mapping[str, Any], expected: Any) -> list[str]:
        texts = [
            {row["id"]: row["text"] for row in each["documents"][0]}
            for each in self.sides(expected)
        ]
        return [name for name, text in units.items() if text not in [t.get(name) for t in texts]]

    def sides(self, expected: Any) -> list[Any]:
        """The contents from which a seen document may come."""
        return [expected]

    def answers(self, home: Path) -> Any:
        found = []
        with OpenIndex.open(self.index(home), home / "model") as index:
            for query in QUERIES:
                for mode in ("hybrid", "multi", "single"):
                    hits = index.search(query, 50, mode=mode, passages=9)
                    found.append([repr(hit) for hit in hits])
        return found

    def kept(self, before: Mapping[str, Any], again: Ended, home: Path) -> list[str]:
        current = {str(path): path.read_text() for path in (home / "docs").iterdir()}
        finished = sum(current.get(name) == text for name, text in before.items())
        unchanged = json.loads(again.output)["num_unchanged"]
        return [f"{finished - unchanged} documents"] if unchanged < finished else []


class Update(Index):
    """`dewey index` of a folder that has changed into its index."""

    name = "update"
    starts_from = Index

    def begin(self, home: Path) -> None:
        (home / "tmp").mkdir(exist_ok=True)
        self.base = self.finished(home)
        write_documents(home, changed=True)

    def sides(self, expected: Any) -> list[Any]:
        return [expected, self.base]


class Encode(Operation):
    """`dewey encode` of a folder into one file, over an older one."""

    name = "encode"
    kind = "parquet"

    def begin(self, home: Path) -> None:
        super().begin(home)
        write_documents(home)
        self.file(home).write_text("older")

    def file(self, home: Path) -> Path:
        """The file of vectors."""
        return home / "out" / f"vectors.{self.kind}"

    def words(self, home: Path) -> list[object]:
        return ["encode", home / "docs", "-o", self.file(home), "--model", home / "model",
                "--chunks", "--json"]  # fmt: skip

    def finished(self, home: Path) -> Any:
        return self.file(home).read_bytes()

    def units(self, home: Path) -> dict[str, Any]:
        return {self.kind: self.finished(home)} if self.file(home).exists() else {}

    def faulty_units(self, units: Mapping[str, Any], expected: Any) -> list[str]:
        return [name for name, data in units.items() if data not in (expected, b"older")]

    def kept(self, before: Mapping[str, Any], again: Ended, home: Path) -> list[str]:
        return []


class EncodeJson(Encode):
    """The same into JSON lines."""

    kind = "jsonl"


class EncodeNumpy(Encode):
    """The same into an archive of arrays."""

    kind = "npz"


SETTINGS = (
    "corpus.max_texts=20", "targets.shard_texts=4", "training.max_steps=6",
    "training.save_steps=1", "training.evaluate_steps=2", "training.warmup_steps=1",
)  # fmt: skip


class Teach(Operation):
    """`dewey teach` of a tiny recipe."""

    name = "teach"
    model_beside = False

    def run_folder(self, home: Path) -> Path:
        """The folder of the run."""
        return home / "out" / "run"

    def words(self, home: Path) -> list[object]:
        settings = [word for each in SETTINGS for word in ("--set", each)]
        return [self.name, self.shared.recipe, "--output", self.run_folder(home), *settings]

    def finished(self, home: Path) -> Any:
        folder = self.run_folder(home) / "targets"
        start = self.run_folder(home) / "start"
        return {
            "manifest": read_manifest(folder),
            "shards": self.shards(home),
            "start": {str(f.relative_to(start)): f.read_bytes() for f in files_of(start)},
        }

    def shards(self, home: Path, *, lost_ok: bool = False) -> dict[str, Any]:
        """The samples of all shards that are listed, or of those that are there besides."""
        folder = self.run_folder(home) / "targets"
        manifest = read_manifest(folder)
        opened = TargetsFolder(folder, fingerprint=manifest["recipe"], about=manifest["about"],
                               max_texts=manifest["max_texts"])  # fmt: skip
        return {
            each.file: [
                (one.sample.id, one.sample.text, one.document.tobytes(), one.chunks.tobytes())
                for one in opened.read(each)
            ]
            for each in opened.shards
            if not lost_ok or opened.holds(each)
        }

    def units(self, home: Path) -> dict[str, Any]:
        if not (self.run_folder(home) / "targets" / MANIFEST).exists():
            return {}
        return self.shards(home, lost_ok=True)

    def faulty_units(self, units: Mapping[str, Any], expected: Any) -> list[str]:
        return [name for name, rows in units.items() if expected["shards"].get(name) != rows]

    def answers(self, home: Path) -> Any:
        return self.shards(home)


class Train(Teach):
    """`dewey train` of a recipe whose targets are there."""

    name = "train"
    starts_from = Teach

    def begin(self, home: Path) -> None:
        (home / "tmp").mkdir(exist_ok=True)

    def finished(self, home: Path) -> Any:
        run = self.run_folder(home)
        result = json.loads((run / "result.json").read_text())
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert max(line["step"] for line in log) == result["steps"]
        return {
            "model": model_contents(run / "model"),
            "result": {key: result[key] for key in ("figures", "best_step", "steps", "tokens")},
        }

    def units(self, home: Path) -> dict[str, Any]:
        """Checkpoints that say that they are complete, and the model."""
        run = self.run_folder(home)
        found: dict[str, Any] = {}
        for path in (run / "checkpoints").glob(f"checkpoint-*/{COMPLETE_FILE}"):
            intact(path.parent)  # raises an error that names the file, if they are not
            found[path.parent.name] = True
        if (run / "model" / "dewey.json").exists():
            found["model"] = model_contents(run / "model")
        return found

    def faulty_units(self, units: Mapping[str, Any], expected: Any) -> list[str]:
        return [
            name
            for name, value in units.items()
            if value is not True and value != expected["model"]
        ]

    def answers(self, home: Path) -> Any:
        """Vectors by the trained model."""
        from dewey_embed import Dewey as Model

        model = Model.load(self.run_folder(home) / "model", dtype="float32")
        return model.encode(list(QUERIES)).tobytes()

    def kept(self, before: Mapping[str, Any], again: Ended, home: Path) -> list[str]:
        return []  # older checkpoints are removed as new ones come


class Evaluate(Operation):
    """`dewey eval` of three models on two tasks."""

    name = "eval"
    tasks = ("one", "two")

    def begin(self, home: Path) -> None:
        from tests.eval.test_evaluate_command import write_task

        super().begin(home)
        write_task(home / "data" / "one")
        write_task(home / "data" / "two", num_documents=5)

    def words(self, home: Path) -> list[object]:
        return ["eval", home / "model", "bm25", f"st:{self.shared.teacher}", "--mode", "multi",
                "--suite", home / "data", "--results", home / "out" / "results",
                "--cache", home / "out" / "cache", "-o", home / "out" / "page.json"]  # fmt: skip

    def finished(self, home: Path) -> Any:
        page = json.loads((home / "out" / "page.json").read_text())
        return {**self.units(home), "page": comparable(page)}

    def units(self, home: Path) -> dict[str, Any]:
        found = {}
        for path in sorted((home / "out" / "results").rglob("*.json")):
            if path.name != "model_meta.json" and (path.parent / "queries" / path.name).exists():
                for each in (path, path.parent / "queries" / path.name):
                    name = str(each.relative_to(home / "out"))
                    found[name] = comparable(json.loads(each.read_text()))
        return found

    def faulty_units(self, units: Mapping[str, Any], expected: Any) -> list[str]:
        return [name for name, value in units.items() if expected.get(name) != value]

    def answers(self, home: Path) -> Any:
        """What the results are when nothing may be measured."""
        words = [*self.words(home)[:-1], home / "tmp" / "again.json", "--finished-only"]
        done = Dewey(*words, TMPDIR=str(home / "tmp"), HF_HUB_OFFLINE="1")
        _, errors = done.communicate(SECONDS)
        if done.returncode:
            raise DeweyError(errors)
        page = json.loads((home / "tmp" / "again.json").read_text())
        (home / "tmp" / "again.json").unlink()
        scores = page["tables"][0]
        columns = [column["name"] for column in scores["columns"]]
        return {row[0]: dict(zip(columns, row, strict=True)) for row in scores["rows"]}

    def is_right(self, answers: Any, expected: Any) -> bool:
        """A damaged result is left out, to be measured again; the mean is then another."""
        return all(
            value in (None, expected[task][name])
            for task, row in answers.items()
            if task in self.tasks
            for name, value in row.items()
        )


class Serve(Index):
    """`dewey serve` of an index that its clients fill; what was answered with 200 is promised."""

    name = "serve"
    ends_complete = False

    def index(self, home: Path) -> Path:
        return home / "out" / "served.index"

    def words(self, home: Path) -> list[object]:
        return ["serve", home / "model", "--index", self.index(home), "--port", 0]

    def drive(self, process: Dewey, home: Path) -> Ended:
        """Post documents in four requests, search, and stop the server."""
        promised: list[str] = []
        output: list[str] = []
        address = self.address(process)
        paths = sorted((home / "docs").iterdir())
        try:
            for start in range(0, len(paths) if address else 0, 4):
                group = [{"id": str(p), "text": p.read_text()} for p in paths[start : start + 4]]
                url = f"{address}/v1/indexes/served/documents"
                answer = httpx.post(url, json={"documents": group}, timeout=SECONDS)
                output.append(f"{answer.status_code} {answer.text}")
                if answer.status_code == 200:
                    promised += [each["id"] for each in group]
            if address:
                httpx.post(f"{address}/v1/indexes/served/search", json={"query": QUERIES[0]},
                           timeout=SECONDS)  # fmt: skip
        except httpx.HTTPError as error:
            output.append(repr(error))
        process.signal(signal.SIGTERM)
        _, errors = process.communicate(SECONDS)
        return Ended(process.returncode, errors, "\n".join(output), promised)

    def address(self, process: Dewey) -> str | None:
        """Where it listens; None where it ended before."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if found := re.search(r"http://[^ ]+", process.printed("stderr")):
                return found[0]
            if process.poll() is not None:
                return None
            time.sleep(0.01)
        return None

    def kept(self, before: Mapping[str, Any], again: Ended, home: Path) -> list[str]:
        answers = [json.loads(line[4:]) for line in again.output.splitlines()]
        unchanged = sum(each["num_unchanged"] for each in answers)
        return [f"{len(before) - unchanged} documents"] if unchanged < len(before) else []


OPERATIONS: tuple[type[Operation], ...] = (
    Index, Update, Encode, EncodeJson, EncodeNumpy, Teach, Train, Evaluate, Serve,
)  # fmt: skip


def files_of(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def model_contents(folder: Path) -> dict[str, bytes]:
    """The files of a model, but for its card and its history, which tell of one run."""
    files = [path for path in files_of(folder) if path.suffix in (".safetensors", ".json")]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "dewey_training.json"
    }


def comparable(value: Any) -> Any:
    """The value without what differs from one run to the next."""
    if isinstance(value, dict):
        return {key: comparable(each) for key, each in value.items() if key not in PER_RUN}
    if isinstance(value, list | tuple):
        return [comparable(each) for each in value]
    return value.tobytes() if isinstance(value, np.ndarray) else value


class Alarm:
    """A signal for a process after some seconds, unless it has ended."""

    def __init__(self, process: Dewey, number: int, seconds: float) -> None:
        self._timer = threading.Timer(seconds, process.signal, (number,))
        self._timer.start()

    def cancel(self) -> None:
        """Let it be."""
        self._timer.cancel()
        self._timer.join()
