"""What an edit inside a long document costs in an index, and what its answers are then.

    python benchmarks/edits.py data/train/novels.parquet --ids eltec_ENG19120_Wells

Documents whose ids begin so become one file of Markdown, of 105 KB unless `--bytes` says otherwise.
It is indexed; then one place of it changes, and it is indexed again. Beside it the changed file is
indexed as a new one. Tokens, seconds of forward passes and of all that indexing does, the largest
1 - cosine between vectors, and the answers to queries (sentences of the file) are compared, for
every kind of edit at places all over the file. The two commands are timed, too. Results are
written to benchmarks/results/edits.json, with a table beside them.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from recording import RESULTS, write_page

from dewey_embed import Dewey, Document, Index
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.model.inference import Request
from dewey_embed.types import Floats

NUM_QUERIES = 20
Paragraphs = list[str]
Edit = Callable[[Paragraphs, int, Paragraphs], Paragraphs]
"""From paragraphs, a place and other text to the changed paragraphs."""


def _word(paragraph: str) -> str:
    """The paragraph with another word in its middle."""
    words = paragraph.split(" ")
    words[len(words) // 2] = "otherwise"
    return " ".join(words)


EDITS: dict[str, Edit] = {
    "a word changed": lambda text, at, _: [*text[:at], _word(text[at]), *text[at + 1 :]],
    "a paragraph rewritten": lambda text, at, other: [*text[:at], other[0], *text[at + 1 :]],
    "a paragraph inserted": lambda text, at, other: [*text[:at], other[0], *text[at:]],
    "a paragraph deleted": lambda text, at, _: [*text[:at], *text[at + 1 :]],
    "a section of ten inserted": lambda text, at, other: [*text[:at], *other[:10], *text[at:]],
    "a paragraph moved to the end": lambda text, at, _: [*text[:at], *text[at + 1 :], text[at]],
    "a paragraph appended": lambda text, _, other: [*text, other[0]],
}


class Cost(NamedTuple):
    """What an edit cost, as shares of indexing the changed file as a new one, and what is found."""

    tokens: float
    passes: float
    indexing: float
    difference: float
    same_answers: float


class Timed(Dewey):
    """A model that counts what it reads and the seconds of its passes."""

    seconds = 0.0
    num_read = 0

    def _run(self, requests: Sequence[Request], *arguments: object, **options: object) -> list:  # type: ignore[override, type-arg]
        start = time.perf_counter()
        embedded = super()._run(requests, *arguments, **options)  # type: ignore[arg-type]
        self.seconds += time.perf_counter() - start
        self.num_read += sum(request.num_read for request in requests)
        return embedded


def paragraphs_of(path: Path, ids: str, num_bytes: int) -> tuple[Paragraphs, Paragraphs]:
    """Markdown of the documents whose ids begin so, in paragraphs, and paragraphs after it."""
    table = pq.read_table(path, columns=["id", "text"])
    rows = sorted(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    text: Paragraphs = ["# Collected texts"]
    for name, own in rows:
        if name.startswith(ids):
            text += [f"## {name}", *(each for each in own.split("\n") if each.strip())]
    sizes = np.cumsum([len(each.encode()) + 2 for each in text])
    cut = int(np.searchsorted(sizes, num_bytes))
    long = [each for each in text[cut:] if len(each) > 200]
    if len(long) < 20:
        sys.exit(f"{path} has only {sizes[-1]:,} bytes in documents whose ids begin with {ids}")
    return text[:cut], long


def indexed(index: Index, text: Paragraphs, model: Timed) -> tuple[int, float, float]:
    """Tokens read, and the seconds of passes and of all, to bring an index up to date."""
    model.seconds, model.num_read = 0.0, 0
    start = time.perf_counter()
    index.add(Document(id="file.md", text="\n\n".join(text)))
    return model.num_read, model.seconds, time.perf_counter() - start


def vectors_of(index: Index) -> Floats:
    """The document's vector and those of its chunks, as they are stored, of unit length."""
    snapshot = index._store.snapshot()  # type: ignore[union-attr]
    documents = snapshot.documents.search().to_arrow()  # type: ignore[union-attr]
    digest = documents["hash"][0].as_py()
    chunks = snapshot.chunks.search().where(f"document_hash = '{digest}'").to_arrow()  # type: ignore[union-attr]
    rows = [documents["vector"][0].as_py(), *chunks.sort_by("ordinal")["vector"].to_pylist()]
    vectors = np.array(rows, np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def answers(index: Index, queries: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Characters of the first five passages for each query."""
    return [
        [(p.char_start, p.char_end) for hit in index.passages(query) for p in hit.passages]
        for query in queries
    ]


def cost(model: Timed, text: Paragraphs, changed: Paragraphs, queries: Sequence[str]) -> Cost:
    """What it cost to index a text and then the changed one, against the changed one alone."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        edited, alone = Index.open(first, model), Index.open(second, model)
        indexed(edited, text, model)
        ours, theirs = indexed(edited, changed, model), indexed(alone, changed, model)
        tokens, passes, indexing = (one / other for one, other in zip(ours, theirs, strict=True))
        difference = 1 - (vectors_of(edited) * vectors_of(alone)).sum(1).min()
        same = np.mean([a == b for a, b in zip(*(answers(i, queries) for i in (edited, alone)))])  # noqa: B905
        return Cost(tokens, passes, indexing, float(difference), float(same))


def commands(text: Paragraphs, changed: Paragraphs) -> tuple[float, float]:
    """Seconds of `dewey index` of a text, and of the changed one after it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "file.md"
        seconds = []
        for each in (text, changed):
            file.write_text("\n\n".join(each))
            start = time.perf_counter()
            arguments = ["index", str(file), "--index", f"{scratch}/index"]
            subprocess.run(
                [sys.executable, "-m", "dewey_embed.cli", *arguments],
                check=True, capture_output=True,
            )  # fmt: skip
            seconds.append(time.perf_counter() - start)
        return seconds[0], seconds[1]


def edits_table(costs: dict[str, list[Cost]]) -> Table:
    """A row for each kind of edit."""
    columns = (
        Column(name="edit"),
        *(Column(name=f"tokens read, {name}", unit="%", digits=1) for name in ("median", "most")),
        Column(name="passes take, median", unit="%", digits=1),
        Column(name="indexing takes, median", unit="%", digits=1),
        Column(name="largest 1 − cosine", unit="1e-6", digits=1),
        Column(name="same answers", unit="%", digits=1),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, own in costs.items():
        table = np.array(own)
        median = np.median(table, axis=0) * 100
        most = float(table[:, 0].max() * 100)
        same = float(table[:, 4].mean() * 100)
        worst = float(table[:, 3].max() * 1e6)
        rows.append((name, float(median[0]), most, float(median[1]), float(median[2]), worst, same))
    return Table(
        title="Of what indexing the changed file as a new one takes",
        columns=columns,
        rows=tuple(rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, help="Parquet file with id and text")
    parser.add_argument("--ids", required=True, help="how the ids of the documents to take begin")
    parser.add_argument("--bytes", type=int, default=105_000)
    parser.add_argument("--places", type=int, default=5, help="places of each kind of edit")
    options = parser.parse_args()
    text, other = paragraphs_of(options.texts, options.ids, options.bytes)
    loaded = Dewey.load()
    model = Timed(
        loaded.model, loaded.tokenizer, name=loaded.name, folder=loaded.folder, truncate_dim=None
    )
    rng = random.Random(0)
    long = [row for row, each in enumerate(text) if len(each) > 200]
    queries = [text[row].split(". ")[0] for row in rng.sample(long, NUM_QUERIES)]
    costs: dict[str, list[Cost]] = {name: [] for name in EDITS}
    model.encode(["\n".join(text)])  # with kernels compiled
    for place in range(options.places):
        at = long[int((place + 0.5) * len(long) / options.places)]
        for name, edit in EDITS.items():
            changed = edit(text, at, rng.sample(other, 10))
            costs[name].append(cost(model, text, changed, queries))
            print(f"{name}: {costs[name][-1]}", flush=True)
    full_s, edit_s = commands(text, EDITS["a paragraph rewritten"](text, at, other))
    size = len("\n\n".join(text).encode())
    load = os.getloadavg()[0]
    page = ResultPage(
        kind="edits",
        name="edits",
        title="What an edit inside a long document costs",
        summary=f"Markdown of {size:,} bytes in {len(text):,} paragraphs, {options.places} places "
        f"for each kind of edit. `dewey index` of the file takes {full_s:.1f} s, and after one "
        f"paragraph was rewritten {edit_s:.1f} s. The machine's load at the end was {load:.1f}.",
        machine=Machine.here(),
        tables=(edits_table(costs),),
    )
    write_page(page, RESULTS / "edits.json")


if __name__ == "__main__":
    main()
