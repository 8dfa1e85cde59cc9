"""Seconds from the shell to the hits: `import dewey_embed`, `dewey --help`, `dewey search`.

    python benchmarks/start.py --data data

Each run is a new process on a warm disk; the commands take turns, and the figures are medians. CPU
seconds exclude the process in which `dewey search` encodes the query.
An interpreter that does nothing shows the time of Python itself. The index that is searched holds
the evaluation documents of one task, made by the embedded model. Results are written to
benchmarks/results/ as JSON, with a table beside them.

docs/data.md says what the data are and how to make them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recording import versions_of_peers, write_rows

LIMITS_S = {"import dewey_embed": 0.2, "dewey --help": 0.5, "dewey search": 2.0}
PACKAGES = ("dewey-embed", "torch", "lancedb", "faiss-cpu", "typer", "rich")


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "my.index"
        num, query = make_index(arguments.data / "eval" / arguments.task, index, arguments.limit)
        dewey = str(Path(sys.executable).with_name("dewey"))
        commands = {
            "python, nothing": [sys.executable, "-c", ""],
            "import dewey_embed": [sys.executable, "-c", "import dewey_embed"],
            "dewey --help": [dewey, "--help"],
            "dewey search": [dewey, "search", str(index), query],
            "dewey search --mode multi": [dewey, "search", str(index), query, "--mode", "multi"],
        }
        rows = measure(commands, arguments.rounds)
    write_rows(
        arguments.output, rows, to_markdown, packages=PACKAGES,
        load_average=os.getloadavg()[1], searched=f"{num} documents of {arguments.task}",
    )  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/")
    parser.add_argument("--task", default="locomo", help="the task whose documents are indexed")
    parser.add_argument("--limit", type=int, default=300, help="most documents that are indexed")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", default="start", help="name of the result files")
    return parser.parse_args()


def make_index(task: Path, path: Path, limit: int) -> tuple[int, str]:
    """How many documents of a task were indexed at `path`, and a question to them."""
    from dewey_embed import Document, Index

    documents = []
    with (task / "corpus.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            documents.append(Document(id=row["_id"], text=row["text"]))
    index = Index.open(path)
    index.add(documents[:limit], progress=True)
    with (task / "queries.jsonl").open(encoding="utf-8") as lines:
        return len(index), json.loads(next(lines))["text"]


def measure(commands: dict[str, list[str]], rounds: int) -> list[dict]:
    """A row for each command: median seconds, and those of all rounds but a first, unmeasured."""
    # Compiled modules are kept, as for any user.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    times: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            before, started = os.times(), time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - started)
            now = os.times()
            used = now.children_user - before.children_user
            cpu[name].append(used + now.children_system - before.children_system)
    return [
        {
            "command": name,
            "seconds_median": statistics.median(taken[1:]),
            "cpu_seconds_median": statistics.median(cpu[name][1:]),
            "seconds": taken[1:],
            "limit_s": LIMITS_S.get(name),
        }
        for name, taken in times.items()
    ]


def to_markdown(about: dict, rows: list[dict]) -> str:
    lines = [
        f"`{about['command']}` on {about['cpu']}, {about['cores']} cores, {about['date']}, "
        f"Python {about['python']}, {versions_of_peers(about)}; load average of the last 5 minutes "
        f"{about['load_average']:.1f}; searched: {about['searched']}",
        "",
        "| command | seconds | least to most | CPU seconds | limit | of the limit |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        limit, taken = row["limit_s"], row["seconds_median"]
        share = f"{limit:.1f} | {taken / limit:.0%}" if limit else "|"
        lines.append(
            f"| `{row['command']}` | {taken:.3f} "
            f"| {min(row['seconds']):.3f} to {max(row['seconds']):.3f} "
            f"| {row['cpu_seconds_median']:.3f} | {share} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
