"""docs/scale.md: what a collection past one machine takes, by the rates that were measured.

    python benchmarks/scale.py
    python benchmarks/scale.py --documents 1e9 --tokens 2000 --core-hour 0.03

Nothing is measured here: rates, sizes and times are read from the result files of the other
benchmarks, each named beside its figures, and carried forward. Prices are not measured: they are
options, and stand in the page.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording import RESULTS

from dewey_embed.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
HISTORY = ROOT / "src" / "dewey_embed" / "models" / "mini" / "dewey_training.json"
SEARCHES = ("search", "search_million", "search_ten_million")
ENGINES = ("dewey", "faiss Flat", "faiss IVF,SQ8", "faiss bits, rescored by int8")
PASSAGE_TOKENS = (64, 128, 256, 512)
BYTES = {
    "float32": lambda dim: 4 * dim,
    "float16": lambda dim: 2 * dim,
    "int8": lambda dim: dim,
    "binary": lambda dim: math.ceil(dim / 8),
}
DIMENSIONS = (384, 128)
HOUR = 3600


@dataclass(frozen=True)
class Fleet:
    """Machines of one kind that encode: tokens a second of one unit, and its price an hour."""

    unit: str
    what: str
    tokens_per_second: float
    price: float
    source: str


def main() -> None:
    arguments = parse()
    parts = [head(arguments), encoding(arguments), vectors(arguments)]
    write_text(PAGE, "\n".join([*parts, searching(), bottlenecks(arguments)]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=float, default=1e8)
    parser.add_argument("--tokens", type=float, default=1e4, help="of a document")
    parser.add_argument("--days", type=float, default=7, help="in which all is to be encoded")
    parser.add_argument("--queries", type=float, default=10, help="a second")
    parser.add_argument("--core-hour", type=float, default=0.04, help="dollars, of a CPU")
    parser.add_argument("--gpu-hour", type=float, default=3.0, help="dollars")
    parser.add_argument("--gigabyte-month", type=float, default=0.023, help="dollars, stored")
    arguments = parser.parse_args()
    arguments.total = arguments.documents * arguments.tokens
    return arguments


def head(arguments: argparse.Namespace) -> str:
    """The title, and what is assumed."""
    command = shlex.join(["python", *sys.argv])
    return (
        f"<!-- Written by `{command}` from result files: change those. -->\n"
        f"# Past one machine\n\nWhat {arguments.documents:,.0f} documents of "
        f"{arguments.tokens:,.0f} tokens take, {short(arguments.total)} tokens in all. Rates were "
        "measured on one small machine and are carried forward in proportion; a fleet loses "
        "something to starting, reading and waiting. Prices are assumed: "
        f"${arguments.core_hour:g} an hour of a CPU core, ${arguments.gpu_hour:g} an hour of a "
        f"GPU, ${arguments.gigabyte_month:g} a month of a stored gigabyte. "
        "[cluster.md](cluster.md) says how a cluster is used.\n"
    )


def encoding(arguments: argparse.Namespace) -> str:
    """Hours, machines and money for the vectors."""
    lines = []
    for fleet in fleets(arguments):
        hours = arguments.total / fleet.tokens_per_second / HOUR
        lines.append(
            f"| {fleet.what} | {fleet.unit} | {fleet.tokens_per_second:,.0f} | {hours:,.0f} "
            f"| {math.ceil(hours / (24 * arguments.days)):,} | {hours * fleet.price:,.0f} "
            f"| {fleet.source} |"
        )
    table = [
        f"| what is run | on | tokens/s | hours | at once, for {arguments.days:g} days | $ "
        "| measured in |",
        "|---|---|---:|---:|---:|---:|---|",
        *lines,
    ]
    return section(
        "Encoding", "One pass gives the document's vector and those of all chunks.", table
    )


def fleets(arguments: argparse.Namespace) -> Iterator[Fleet]:
    """What was measured of encoding, CPUs by the core."""
    measured = [
        ("encode_corpus", "mini", "mini, documents of mixed lengths"),
        ("encode", "mini", "mini, documents of 8,192 tokens"),
        ("encode", "base", "ModernBERT-base's shape, documents of 8,192 tokens"),
    ]
    for name, shape, what in measured:
        found = result(name)
        [rate] = [
            row["tokens_per_second"]
            for row in found["rows"]
            if (row["engine"], row["shape"]) == ("dewey, bfloat16", shape)
            and (name == "encode_corpus" or row["texts"] == "8,192 tokens")
        ]
        yield Fleet("core", what, rate / found["cores"], arguments.core_hour, f"{name}.json")
    runs = [run for run in json.loads(HISTORY.read_text("utf-8")) if run["machine"]["devices"]]
    fastest = max(runs, key=lambda run: run["tokens"] / run["train_hours"])
    yield Fleet(
        fastest["machine"]["devices"][0],
        "mini in *training*, which encodes and does more: encoding alone has no figure yet",
        fastest["tokens"] / fastest["train_hours"] / HOUR, arguments.gpu_hour,
        "mini's dewey_training.json",
    )  # fmt: skip


def vectors(arguments: argparse.Namespace) -> str:
    """Bytes of the vectors by the tokens of a chunk, dimensions and precision."""
    kinds = [(dim, name) for dim in DIMENSIONS for name in BYTES]
    table = [
        "| vectors of | number | " + " | ".join(f"{dim} {name}" for dim, name in kinds) + " |",
        "|---|---:|" + "---:|" * len(kinds),
    ]
    numbers = {"documents": arguments.documents}
    for size in PASSAGE_TOKENS:
        each = math.ceil(arguments.tokens / size)
        numbers[f"chunks of {size} tokens"] = arguments.documents * each
    for name, number in numbers.items():
        sizes = [data(number * BYTES[precision](dim)) for dim, precision in kinds]
        table.append(f"| {name} | {short(number)} | " + " | ".join(sizes) + " |")
    about = (
        "What fewer dimensions and fewer bits cost in nDCG@10 stands in "
        "[results.md](results.md) (`benchmarks/sizes.py`)."
    )
    return section("Vectors", about, table)


def searching() -> str:
    """How building and searching grow with the number of chunks."""
    found = [row for row in searches() if row["engine"] in ENGINES]
    table = [
        "| chunks | engine | recall@10 | p50 ms | p95 ms | build s (CPU s) | build peak GB "
        "| resident GB (not mapped) | index GB | cold start s |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(found, key=lambda row: (row["engine"], row["rows"])):
        gigabytes = {
            name: row[f"{name}_mb"] / 1e3
            for name in ("build_peak", "resident", "not_mapped", "index")
        }
        table.append(
            f"| {row['rows']:,} | {row['engine']} | {row['recall_at_10']:.4f} "
            f"| {row['p50_ms']:.1f} | {row['p95_ms']:.1f} "
            f"| {row['build_s']:,.0f} ({row['build_cpu_s']:,.0f}) | {gigabytes['build_peak']:.2f} "
            f"| {gigabytes['resident']:.2f} ({gigabytes['not_mapped']:.2f}) "
            f"| {gigabytes['index']:.2f} | {row['cold_s']:.1f} |"
        )
    commands = [f"`{result(name)['command']}` ({result(name)['date']})" for name in SEARCHES]
    ours = sorted((row for row in found if row["engine"] == "dewey"), key=lambda row: row["rows"])
    growth = "; ".join(
        f"from {short(few['rows'])} to {short(many['rows'])} chunks a query takes "
        f"{many['p50_ms'] / few['p50_ms']:.1f} times as long, the index "
        f"{many['build_cpu_s'] / few['build_cpu_s']:.1f} times the processor's time"
        for few, many in itertools.pairwise(ours)
    )
    about = (
        f"The nearest chunks alone, without words and ranking, on two cores: {growth}. Up to some "
        "tens of thousands of chunks are real, the others moved copies. "
        + ", ".join(commands)
        + "."
    )
    return section("Searching", about, table)


def bottlenecks(arguments: argparse.Namespace) -> str:
    """What a fleet of indexes, each as large as was measured, takes; the largest cost first."""
    passages = arguments.documents * math.ceil(arguments.tokens / 128)
    shard = max(
        (row for row in searches() if row["engine"] == "dewey"), key=lambda row: row["rows"]
    )
    shards = math.ceil(passages / shard["rows"])
    costs, text = (
        table_row(result("index_cost"), title) for title in ("Indexing and searching", "The text")
    )
    megabytes = arguments.total * text["size"] / text["tokens"]
    core_days = {
        "encoding, by the mini": arguments.total / next(iter(fleets(arguments))).tokens_per_second,
        "reading, encoding, words and tables, as `dewey index` does": megabytes
        * costs["to index"] * result("index_cost")["machine"]["cores"],
        "inverted files of the chunks": shards * shard["build_cpu_s"],
        f"{arguments.queries:g} queries a second for a day, over all shards": arguments.queries
        * 24 * HOUR * shards * shard["p50_ms"] / 1e3,
    }  # fmt: skip
    stored = {
        "text": megabytes * 1e6,
        "`dewey index` in all: text, words, vectors of sentences": megabytes
        * costs["on disk"]
        * 1e3,
        "int8 vectors of chunks of 128 tokens, 384 dimensions": passages * 384,
        "their codes, which every query looks into": shards * shard["index_mb"] * 1e6,
    }
    table = ["| work | core-days | $ |", "|---|---:|---:|"]
    for name, seconds in sorted(core_days.items(), key=lambda item: -item[1]):
        price = seconds / HOUR * arguments.core_hour
        table.append(f"| {name} | {seconds / HOUR / 24:,.0f} | {price:,.0f} |")
    table += ["", "| stored | | $ a month |", "|---|---:|---:|"]
    for name, size in sorted(stored.items(), key=lambda item: -item[1]):
        table.append(f"| {name} | {data(size)} | {size / 1e9 * arguments.gigabyte_month:,.0f} |")
    largest = max(core_days, key=lambda name: core_days[name])
    about = (
        f"{short(passages)} chunks of 128 tokens are {shards:,} indexes of {short(shard['rows'])} "
        f"each. Once, the most work is {largest}. For good, a query that asks every index takes "
        f"{shards * shard['p50_ms'] / 1e3:,.1f} s of one core and wants "
        f"{data(shards * shard['index_mb'] * 1e6)} of codes in memory, "
        f"{data(shards * shard['index_mb'] * 1e6 / 64)} on each of 64 machines. A query that says "
        "which indexes it means (a customer's, a year's) asks only these; one that asks the "
        "documents' own vectors first looks into "
        f"{data(arguments.documents * shard['index_mb'] * 1e6 / shard['rows'])} of codes."
    )
    return section("What becomes too much first", about, table)


def section(title: str, about: str, table: list[str]) -> str:
    """A part of the page."""
    return "\n".join([f"## {title}", "", about, "", *table, ""])


def searches() -> list[dict[str, Any]]:
    """The rows of all measurements of search."""
    return [row for name in SEARCHES for row in result(name)["rows"]]


def result(name: str) -> dict[str, Any]:
    """A result file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def table_row(page: dict[str, Any], title: str) -> dict[str, Any]:
    """The first row of a page's table, by the names of its columns."""
    [table] = [each for each in page["tables"] if each["title"] == title]
    return dict(zip((column["name"] for column in table["columns"]), table["rows"][0], strict=True))


def short(number: float) -> str:
    """A count in words: 7.9 billion."""
    for power, name in ((12, "trillion"), (9, "billion"), (6, "million")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {name}"
    return f"{number:,.0f}"


def data(size: float) -> str:
    """Bytes, in the unit that suits them."""
    for power, name in ((15, "PB"), (12, "TB"), (9, "GB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {name}"
    return f"{size / 1e6:.3g} MB"


if __name__ == "__main__":
    main()
