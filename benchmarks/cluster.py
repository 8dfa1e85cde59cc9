"""Encoding on a Ray cluster of this machine: equal to one process, whatever dies, and how fast.

    python benchmarks/cluster.py

5,000 documents of three retrieval tasks are encoded by one process, and by four workers of a real
cluster, one of which is killed at random (SIGKILL) after the first tenth was written: rows are
compared one by one. Then one worker and two take turns with a part of the documents, each with one
thread. Their rate is that of the groups done after every worker had done its first, until the first
worker has none left: starting Ray and loading models is in the seconds beside it, not in the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from recording import write_page

from dewey_embed.cluster.encode import ClusterOptions, EncodeReport, encode_on_ray
from dewey_embed.cluster.outputs import Making
from dewey_embed.cluster.session import Workers, connected
from dewey_embed.eval.result_page import Column, Machine, ResultPage, Table

TASKS = ("nfcorpus_filtered", "cranfield", "medline")
GROUP_CHARS = 40_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/eval"))
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--timed-documents", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output", "-o", type=Path, default=Path("benchmarks/results/cluster.json")
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(arguments.data, arguments.documents, folder / "corpus.jsonl")
        equality = compare(corpus, folder, arguments.seed)
        part = write_corpus(arguments.data, arguments.timed_documents, folder / "part.jsonl")
        speed = measure(part, folder, arguments.rounds)
    write_page(
        ResultPage(
            kind="speed",
            name="cluster",
            title="Encoding on a Ray cluster",
            machine=Machine.here(device="cpu", dtype="bfloat16"),
            tables=(equality, speed),
        ),
        arguments.output,
    )


def write_corpus(data: Path, num: int, path: Path) -> Path:
    """The first documents of the tasks as one file, their ids after their tasks."""
    lines = []
    for task in TASKS:
        with (data / task / "corpus.jsonl").open(encoding="utf-8") as file:
            for record in map(json.loads, file):
                text = "\n\n".join(filter(None, (record.get("title"), record["text"])))
                lines.append(json.dumps({"id": f"{task}/{record['_id']}", "text": text}))
    path.write_text("\n".join(lines[:num]) + "\n", encoding="utf-8")
    return path


def compare(corpus: Path, folder: Path, seed: int) -> Table:
    """The rows of one process beside those of four workers, one of them killed."""
    one = folder / "one.parquet"
    words = [sys.executable, "-m", "dewey_embed.cli", "encode", str(corpus), "-o", str(one)]
    started = time.monotonic()
    subprocess.run([*words, "--chunks"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone = time.monotonic() - started
    many = folder / "many.parquet"
    with connected("local", Workers(num=4), cores=4):
        killer = Killer(
            many, random.Random(seed), after=1 + corpus.stat().st_size // GROUP_CHARS // 10
        )
        killer.start()
        report, seconds = encode(corpus, many, 4)
        killer.join()
    expected, rows = ordered(pq.read_table(one)), ordered(pq.read_table(many))
    rows = rows.drop_columns(["hash"])
    names = [
        list(zip(*(table[name].to_pylist() for name in ("document_id", "chunk")), strict=True))
        for table in (expected, rows)
    ]
    difference = "rows differ"
    if rows.num_rows == expected.num_rows:
        difference = f"{np.abs(vectors(rows) - vectors(expected)).max():.1e}"
    same = rows.drop_columns(["vector"]) == expected.drop_columns(["vector"])
    return Table(
        title="Four workers, one killed, beside one process",
        columns=(
            Column(name="", unit=""),
            Column(name="documents", digits=0),
            Column(name="rows", digits=0),
            Column(name="twice", digits=0),
            Column(name="missing", digits=0),
            Column(name="other columns"),
            Column(name="largest difference of a vector"),
            Column(name="seconds", unit="s", digits=0),
        ),
        rows=(
            ("one process", documents(expected), expected.num_rows, 0, 0, "", "", alone),
            (
                f"four workers, process {killer.killed} killed",
                report.num_documents,
                rows.num_rows,
                len(names[1]) - len(set(names[1])),
                len(set(names[0]) - set(names[1])),
                "equal" if same else "differ",
                difference,
                seconds,
            ),
        ),
        notes=(
            f"{report.num_documents:,} documents of {', '.join(TASKS)}; groups of "
            f"{GROUP_CHARS:,} characters on the cluster, of 400,000 in one process. Seconds "
            "with the start of Ray, and of a new worker for the one that was killed.",
        ),
    )


def measure(corpus: Path, folder: Path, rounds: int) -> Table:
    """Characters a second of one worker and of two, by turns."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    times: dict[int, list[float]] = {1: [], 2: []}
    loads = []
    with connected("local", Workers(num=2)):
        for turn in range(rounds):
            for num in (1, 2):
                loads.append(os.getloadavg()[0])
                output = folder / f"{num}-{turn}.parquet"
                _, seconds = encode(corpus, output, num)
                rates[num].append(rate(output, num))
                times[num].append(seconds)
    medians = {num: statistics.median(each) for num, each in rates.items()}
    return Table(
        title="Throughput with one thread a worker",
        columns=(
            Column(name="workers", digits=0),
            Column(name="characters a second", best="highest", digits=0),
            Column(name="rounds"),
            Column(name="times one worker's", unit="×", digits=2),
            Column(name="seconds in all", unit="s", digits=0),
        ),
        rows=tuple(
            (
                num,
                medians[num],
                ", ".join(f"{each:,.0f}" for each in rates[num]),
                medians[num] / medians[1],
                statistics.median(times[num]),
            )
            for num in rates
        ),
        notes=(
            f"Medians of {rounds} rounds by turns. Load of the machine's two cores before each run "
            f"(other programs' and our own of the run before): "
            f"{', '.join(f'{load:.1f}' for load in loads)}.",
        ),
    )


def encode(corpus: Path, output: Path, num: int) -> tuple[EncodeReport, float]:
    """Encode the corpus by some workers; the report and the seconds."""
    started = time.monotonic()
    report = encode_on_ray(
        [str(corpus)],
        str(output),
        workers=Workers(num=num),
        options=ClusterOptions(making=Making(chunks=True), group_chars=GROUP_CHARS),
    )
    return report, time.monotonic() - started


def rate(output: Path, num: int) -> float:
    """Characters a second between the first groups and the last, by the times of their files."""
    files = sorted(output.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    sizes = [characters(path) for path in files]
    first, last = files[num - 1], files[-num]
    seconds = (last.stat().st_mtime_ns - first.stat().st_mtime_ns) / 1e9
    return sum(sizes[num : len(files) - num + 1]) / seconds


def characters(path: Path) -> int:
    """Characters of a group's documents."""
    table = pq.read_table(path, columns=["chunk", "char_end"])
    return sum(
        end
        for chunk, end in zip(
            table["chunk"].to_pylist(), table["char_end"].to_pylist(), strict=True
        )
        if chunk is None
    )


class Killer(threading.Thread):
    """Kills one of the encoding processes at random, once some groups were written."""

    def __init__(self, output: Path, rng: random.Random, after: int) -> None:
        super().__init__(daemon=True)
        self.output, self.rng, self.after, self.killed = output, rng, after, 0

    def run(self) -> None:
        """Wait for the groups, then kill."""
        while len(list(self.output.glob("*.parquet"))) < self.after:
            time.sleep(0.05)
        found = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "MapBatches(_Encoder)" in " ".join(process.info["cmdline"] or [])
        ]
        self.killed = self.rng.choice(sorted(found))
        os.kill(self.killed, signal.SIGKILL)


def ordered(table: pa.Table) -> pa.Table:
    return table.sort_by([("document_id", "ascending"), ("chunk", "ascending")])


def vectors(table: pa.Table) -> np.ndarray:
    return np.stack(table["vector"].to_numpy(zero_copy_only=False))


def documents(table: pa.Table) -> int:
    return sum(chunk is None for chunk in table["chunk"].to_pylist())


if __name__ == "__main__":
    main()
