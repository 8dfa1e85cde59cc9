"""`dewey index`, killed at random moments and run again, ends in the index of an unbroken run.

Real processes, real SIGKILLs, a seeded choice of moments: one half anywhere between the taking of
the writer's lock and the end, the other within ten milliseconds of a commit to one of the tables,
when the other table is next. Two series run beside each other: a new index, and one brought up to
date after documents were changed, removed and added.
"""

import json
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from dewey_embed.index.index import Index
from dewey_embed.index.store import HOLDER_NAME, Store
from dewey_embed.index.writer import COMPACT_FRAGMENTS
from tests.commands import Dewey

KILLS = 6  # in each series
GROUP_CHARS = 1200
QUESTIONS = ("how do I make an object work in a with statement?", "operators", "what is a slice?")


def start(docs: Path, index: Path) -> Dewey:
    options = ["--group-chars", str(GROUP_CHARS), "--chunk-tokens", "32", "--json"]
    return Dewey("index", docs, "--index", index, *options)


def wait_for_lock(process: Dewey, index: Path) -> None:
    holder = index / HOLDER_NAME
    while process.poll() is None:
        if holder.exists() and holder.read_text().strip() == str(process.pid):
            return
        time.sleep(0.005)


def run(docs: Path, index: Path) -> float:
    """An unbroken run; how long it held the lock, in seconds."""
    process = start(docs, index)
    wait_for_lock(process, index)
    begun = time.monotonic()
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(output)["unreadable"] == []
    return time.monotonic() - begun


def contents(index: Path) -> dict:
    """Everything that is in an index, in an order of its own."""
    snapshot = Store.open(index).snapshot()
    documents = snapshot.documents.to_arrow().sort_by("id")
    order = [("document_id", "ascending"), ("ordinal", "ascending")]
    chunks = snapshot.chunks.to_arrow().sort_by(order)
    tables = {}
    for name, table in (("documents", documents), ("chunks", chunks)):
        vectors = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        tables[name] = table.drop_columns("vector").to_pylist(), vectors.tobytes()
    [derived] = (index / "derived").iterdir()
    arrays = {path.stem: np.load(path) for path in derived.glob("*.npy")}
    arrays.pop("chunk_rows")  # LanceDB numbers rows by the commits they came in
    return {**tables, "settings": (index / "dewey.json").read_text(), "arrays": arrays}


def assert_same(found: dict, expected: dict) -> None:
    assert found["documents"] == expected["documents"]
    assert found["chunks"] == expected["chunks"]
    assert found["settings"] == expected["settings"]
    assert found["arrays"].keys() == expected["arrays"].keys()
    for name, array in expected["arrays"].items():
        np.testing.assert_array_equal(found["arrays"][name], array)


@dataclass
class Series:
    name: str
    docs: Path
    base: Path | None  # the index to begin from
    unbroken: Path
    seconds: float


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> list[Series]:
    home = tmp_path_factory.mktemp("kill")
    docs = home / "docs"
    docs.mkdir()
    names = sorted(topics)[:40]
    for number, name in enumerate(names):
        if number % 5:
            (docs / f"{name}.txt").write_text(str(topics[name])[: 250 + 20 * (number % 8)])
    base = home / "base.index"
    run(docs, base)
    for number, name in enumerate(names):
        path = docs / f"{name}.txt"
        if number % 5 == 0 or number % 3 == 1:
            path.write_text(str(topics[name])[: 280 + 20 * (number % 8)])  # new and changed
        elif number % 7 == 2:
            path.unlink()
    updated = home / "updated.index"
    shutil.copytree(base, updated)
    update_s = run(docs, updated)
    fresh = home / "fresh.index"
    fresh_s = run(docs, fresh)
    return [
        Series("fresh", docs, None, fresh, fresh_s),
        Series("update", docs, base, updated, update_s),
    ]


def num_versions(index: Path) -> int:
    return sum(1 for _ in index.glob("*.lance/_versions/*.manifest"))


def let_it_run(process: Dewey, index: Path, kill: int, moment: float) -> None:
    """Wait for the moment to kill: of each two, one by the clock and one by the tables.

    `moment` is a share of the whole.
    """
    begun = num_versions(index)
    wait_for_lock(process, index)
    if kill % 2:
        wanted = begun + 2 + int(10 * moment)
        while process.poll() is None and num_versions(index) < wanted:
            time.sleep(0.0005)
        time.sleep(0.01 * (10 * moment % 1))


def kill_often(each: Series, home: Path) -> list[Path]:
    """The indexes that a series of kills ends in."""
    random_ = random.Random(f"2 {each.name}")
    moments = [(number + random_.random()) / KILLS for number in range(KILLS)]
    random_.shuffle(moments)
    finished: list[Path] = []
    killed, tries = 0, 0

    def begin() -> Path:
        path = home / f"{each.name}{len(finished)}.index"
        if each.base:
            shutil.copytree(each.base, path)
        return path

    index = begin()
    while killed < KILLS:
        process = start(each.docs, index)
        moment = moments[killed] * 0.9**tries  # sooner if it ended before, as on a faster machine
        let_it_run(process, index, killed, moment)
        try:
            by_clock = killed % 2 == 0
            _, errors = process.communicate(timeout=moment * each.seconds * by_clock)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed, tries = killed + 1, 0
            readable(index)
        else:
            tries += 1
            assert process.returncode == 0, errors
            finished.append(index)
            index = begin()
    run(each.docs, index)
    return [*finished, index]


def readable(index: Path) -> None:
    """Whatever a kill leaves reads as an index, or as none yet."""
    if (index / "dewey.json").exists():
        opened = Index.open(index)
        assert 0 <= len(opened) <= 40
        assert opened.num_chunks >= 0


def test_killed_runs_end_in_the_index_of_an_unbroken_run(series, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda each: kill_often(each, tmp_path), series))
    for each, indexes in zip(series, ended, strict=True):
        expected = contents(each.unbroken)
        assert len(expected["documents"][0]) > COMPACT_FRAGMENTS
        for index in indexes:
            assert_same(contents(index), expected)
            searched, unbroken = Index.open(index), Index.open(each.unbroken)
            for question in QUESTIONS:
                for mode in ("multi", "single", "hybrid"):
                    hits = searched.search(question, 5, mode=mode)
                    assert hits == unbroken.search(question, 5, mode=mode)
