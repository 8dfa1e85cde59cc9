"""Time, recall, memory and building of search among many chunk vectors on this machine's CPU.

    python benchmarks/search.py --data data
    python benchmarks/search.py --data data --rows 1000000 --output search_million

Chunks and queries are those of `search_vectors.py`; each engine builds its index from them, and
answers one query at a time in a process of its own. A part of the queries chooses each engine's
setting: the first that reaches recall@10 of 0.99 against comparing all vectors, else its most
thorough. Then the engines take turns on the others. Rows that score as well as the tenth count as
found, for some chunks are the same text.

A cold start is a new process, with nothing of vectors or index in the page cache, that opens the
index and answers one query. Results are written to benchmarks/results/ as JSON, with a table.

docs/data.md says what the data are and how to make them.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from recording import versions_of_peers, write_rows
from search_engines import ENGINES, NUM, Process
from search_vectors import Chunks, extended, real_vectors

CACHE = Path("~/.cache/dewey-search")
GOOD_ENOUGH = 0.99
TUNING_QUERIES = 100
TOLERANCE = 1e-5
PACKAGES = ("dewey-embed", "faiss-cpu", "usearch", "lancedb", "numpy")


def main() -> None:
    arguments = parse()
    real, queries = real_vectors(arguments.data, arguments.cache.expanduser())
    queries = np.random.default_rng(3).permutation(queries)[: TUNING_QUERIES + arguments.queries]
    rows = []
    for num in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            path = Path(scratch) / "vectors.npy"
            chunks = extended(real, num, path)
            truth = Truth(chunks, queries)
            names = [name for name in ENGINES if not arguments.only or name in arguments.only]
            names = [name for name in names if num <= ENGINES[name].max_rows]
            engines = [Contender(name, path, chunks, truth) for name in names]
            for _ in range(arguments.rounds):
                for engine in engines:
                    engine.answer_all()
            rows += [engine.finish() for engine in engines]
    write_rows(
        arguments.output, rows, to_markdown, packages=PACKAGES,
        load_average=os.getloadavg()[2], real_chunks=len(real.vectors),
    )  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/ and train/")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where real vectors are kept")
    parser.add_argument("--scratch", type=Path, help="a folder on a disk, for the indexes")
    parser.add_argument("--rows", nargs="+", type=int, default=[100_000])
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ENGINES, help="these engines")
    parser.add_argument("--output", default="search", help="name of the result files")
    return parser.parse_args()


class Truth:
    """Queries (Q, D) and the tenth best score of each among the chunks."""

    def __init__(self, chunks: Chunks, queries: np.ndarray) -> None:
        self.chunks, self.queries = chunks, queries
        best = []
        for part in np.array_split(queries, -(-len(queries) // 50)):
            scores = np.empty((len(part), len(chunks.vectors)), np.float32)
            for start in range(0, len(chunks.vectors), 65_536):
                block = chunks.vectors[start : start + 65_536].astype(np.float32)
                scores[:, start : start + len(block)] = part @ block.T
            best.append(np.partition(scores, -NUM, axis=1)[:, -NUM])
        self.best = np.concatenate(best)

    def recall(self, first: int, found: list[np.ndarray]) -> float:
        """Share of the ten nearest of the queries from the `first` on that were found."""
        hits = 0
        for i, rows in enumerate(found, start=first):
            distinct = self.chunks.vectors[np.unique(rows[:NUM])].astype(np.float32)
            hits += int((distinct @ self.queries[i] >= self.best[i] - TOLERANCE).sum())
        return hits / (NUM * len(found))


class Contender:
    """An engine with its index built and its setting chosen, and what was measured so far."""

    def __init__(self, name: str, path: Path, chunks: Chunks, truth: Truth) -> None:
        self.name, self.truth = name, truth
        self.engine = ENGINES[name]
        self.folder = path.parent / name.replace(" ", "_")
        self.folder.mkdir()
        self._start = lambda: Process(name, path, self.folder)
        self._vectors, self._rounds, self._found = path, [], []
        say(f"{len(chunks.vectors):,} {name}: building")
        builder = self._start()
        self.built = builder("build")
        builder.close()
        self.process = self._start()
        self.setting = self._choose()

    def _choose(self) -> float | None:
        """The first setting that is good enough, or the most thorough."""
        for setting in self.engine.settings:
            found, _, _ = self.process("search", self.truth.queries[:TUNING_QUERIES], setting)
            recall = self.truth.recall(0, found)
            say(f"{self.name}, {setting}: recall {recall:.4f}")
            if recall >= GOOD_ENOUGH:
                break
        return setting

    def answer_all(self) -> None:
        """Answer the queries that were not used for choosing."""
        asked = self.truth.queries[TUNING_QUERIES:]
        self._found, times, _ = self.process("search", asked, self.setting)
        self._rounds.append(times)

    def finish(self) -> dict:
        """What was measured, as a row; milliseconds, megabytes, seconds."""
        memory = self.process("memory")
        self.process.close()
        rounds = [1e3 * np.array(times) for times in self._rounds]
        times = np.concatenate(rounds)
        seconds, cpu, peak = self.built
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {
            "rows": len(self.truth.chunks.vectors),
            "engine": self.name,
            "setting": self.setting,
            "recall_at_10": self.truth.recall(TUNING_QUERIES, self._found),
            "p50_ms": float(np.median(times)),
            "p95_ms": float(np.percentile(times, 95)),
            "p50_ms_of_rounds": [float(np.median(each)) for each in rounds],
            "num_queries": len(self._found),
            "build_s": seconds,
            "build_cpu_s": cpu,
            "build_peak_mb": peak,
            "resident_mb": memory["resident_mb"],
            "not_mapped_mb": memory["not_mapped_mb"],
            "index_mb": sum(path.stat().st_size for path in files) / 1e6,
            **self._cold_start([*files, self._vectors]),
        }

    def _cold_start(self, files: list[Path]) -> dict[str, float]:
        """Seconds of opening and one query with nothing cached, and megabytes read; of three."""
        seconds, read = [], []
        for query in self.truth.queries[:3]:
            process = self._start()
            before = process("memory")["read_mb"]
            for path in files:
                forget(path)
            seconds.append(process("search", query[None], self.setting)[2])
            read.append(process("memory")["read_mb"] - before)
            process.close()
        return {"cold_s": statistics.median(seconds), "cold_read_mb": statistics.median(read)}


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def to_markdown(about: dict, rows: list[dict]) -> str:
    lines = [
        f"`{about['command']}` on {about['cpu']}, {about['cores']} cores, {about['date']}, "
        f"{versions_of_peers(about)}; load average of the last 15 minutes "
        f"{about['load_average']:.1f}; {about['real_chunks']:,} real chunks, the others moved "
        "copies",
        "",
        "| chunks | engine | setting | recall@10 | p50 ms | p95 ms | Dewey is | build s (CPU s) "
        "| build peak MB | resident MB (not mapped) | index MB | cold start s (read MB) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    ours = {row["rows"]: row["p50_ms"] for row in rows if row["engine"] == "dewey"}
    for row in rows:
        ratio = f"{row['p50_ms'] / ours[row['rows']]:.2f}× as fast" if row["rows"] in ours else ""
        lines.append(
            f"| {row['rows']:,} | {row['engine']} | {row['setting'] or ''} "
            f"| {row['recall_at_10']:.4f} | {row['p50_ms']:.2f} | {row['p95_ms']:.2f} | {ratio} "
            f"| {row['build_s']:.0f} ({row['build_cpu_s']:.0f}) | {row['build_peak_mb']:.0f} "
            f"| {row['resident_mb']:.0f} ({row['not_mapped_mb']:.0f}) | {row['index_mb']:.0f} "
            f"| {row['cold_s']:.2f} ({row['cold_read_mb']:.0f}) |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
