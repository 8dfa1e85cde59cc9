"""A server under twice the load that it can do: short requests beside texts of 32K tokens.

    python benchmarks/serving.py

`dewey serve` runs in a process of its own, on loopback, with its defaults. First `Dewey.encode`
encodes the same mixture of texts without a server: that is what the machine can do. Then short
requests are timed one after the other, with nothing beside. Then requests come at random times
(a Poisson process) for two minutes, at twice the rate that the machine can do, each over its own
connection, as OpenAI's client sends them (base64); what is refused is not sent again. At last a
client of 128K tokens is cut off, and the time until the server's processor is idle is taken. The
result is written to benchmarks/results/, and its table into docs/serving.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
from recording import write_rows

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "serving.md"
MARKS = ("<!-- load -->\n", "<!-- /load -->")

SHORT_WORDS, LONG_WORDS = (60, 340), 22_500
"""About 100 to 550 tokens, and 32K."""

SHORT_OF_EACH_LONG = 20
OVERLOAD = 2.0
NUM_LONG_ALONE = 4
NUM_SHORT_ALONE = 200
SEED = 29


@dataclass(frozen=True)
class Answer:
    """One request: its kind, its status, when it was sent, and its seconds."""

    kind: str
    status: int
    sent: float
    seconds: float
    tokens: int


class Texts:
    """Texts of random words of this repository's documentation; no two are the same."""

    def __init__(self) -> None:
        pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
        self.words = re.findall(r"[A-Za-z]{2,}", " ".join(pages))
        self.random = random.Random(SEED)

    def short(self) -> str:
        """A text of 100 to 550 tokens."""
        return self.of(self.random.randint(*SHORT_WORDS))

    def long(self) -> str:
        """A text of 32K tokens."""
        return self.of(LONG_WORDS)

    def of(self, num_words: int) -> str:
        """A text of as many words."""
        return " ".join(self.random.choices(self.words, k=num_words))


def body_of(text: str) -> bytes:
    return json.dumps({"input": text, "model": "mini", "encoding_format": "base64"}).encode()


def without_server(texts: Texts) -> tuple[float, float]:
    """Tokens a second of `Dewey.encode` over the mixture, and the tokens of a long text."""
    from dewey_embed import Dewey

    model = Dewey.load()
    mixture = [texts.long() for _ in range(NUM_LONG_ALONE)]
    mixture += [texts.short() for _ in range(NUM_LONG_ALONE * SHORT_OF_EACH_LONG)]
    model.encode(mixture[:2])  # kernels are built, and memory is warm
    sizes = [len(each.tokens) for each in model.prepare(mixture).requests]
    rates = []
    for _ in range(3):
        begun = time.perf_counter()
        model.encode(mixture)
        rates.append(sum(sizes) / (time.perf_counter() - begun))
    return statistics.median(rates), statistics.mean(sizes[:NUM_LONG_ALONE])


@contextmanager
def serving() -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dewey_embed.cli", "serve", "mini", "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    log = iter(process.stderr)
    address = next(found[0] for line in log if (found := re.search(r"http://[^ ]+", line)))
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    try:
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(90)
        drain.wait(10)


async def ask(client: httpx.AsyncClient, kind: str, body: bytes) -> Answer:
    """Send one request."""
    sent = time.perf_counter()
    answer = await client.post("/v1/embeddings", content=body)
    seconds = time.perf_counter() - sent
    tokens = answer.json()["usage"]["total_tokens"] if answer.status_code == 200 else 0
    return Answer(kind, answer.status_code, sent, seconds, tokens)


async def alone(client: httpx.AsyncClient, texts: Texts) -> list[float]:
    """Seconds of short requests, one after the other."""
    await ask(client, "long", body_of(texts.long()))
    answers = [await ask(client, "short", body_of(texts.short())) for _ in range(NUM_SHORT_ALONE)]
    return [each.seconds for each in answers[NUM_SHORT_ALONE // 4 :]]


async def loaded(
    client: httpx.AsyncClient, texts: Texts, rate: float, seconds: float, server: psutil.Process
) -> tuple[list[Answer], float, float]:
    """Answers to `rate` requests a second, the seconds until the last one, and peak megabytes."""
    bodies = []
    for _ in range(int(rate * seconds) + 1):
        is_long = texts.random.random() < 1 / (1 + SHORT_OF_EACH_LONG)
        text = texts.long() if is_long else texts.short()
        bodies.append(("long" if is_long else "short", body_of(text)))
    begun = time.perf_counter()
    highest = [0.0]
    watching = asyncio.ensure_future(watch_memory(server, highest))
    tasks = []
    for kind, body in bodies:
        tasks.append(asyncio.ensure_future(ask(client, kind, body)))
        await asyncio.sleep(texts.random.expovariate(rate))
        if time.perf_counter() - begun > seconds:
            break
    answers = list(await asyncio.gather(*tasks))
    watching.cancel()
    return answers, time.perf_counter() - begun, highest[0]


async def watch_memory(server: psutil.Process, highest: list[float]) -> None:
    """Note the server's highest resident memory, in megabytes, until cancelled."""
    while True:
        highest[0] = max(highest[0], server.memory_info().rss / 1e6)
        await asyncio.sleep(0.2)


async def cut_off(address: str, texts: Texts, server: psutil.Process) -> float:
    """Seconds until the server stands still after the client of 128K tokens is gone."""
    body = body_of(texts.of(4 * LONG_WORDS))
    host, port = address.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await asyncio.sleep(5)
    assert await busy(server) > 0.5
    writer.transport.abort()
    left = time.perf_counter()
    while await busy(server) > 0.1:
        pass
    return time.perf_counter() - left


async def busy(server: psutil.Process) -> float:
    """Cores that the server uses, over a twentieth of a second."""
    before = sum(server.cpu_times()[:2])
    await asyncio.sleep(0.05)
    return (sum(server.cpu_times()[:2]) - before) / 0.05


async def measure(
    address: str, server: psutil.Process, texts: Texts, *, seconds: float, capacity: float,
    long_tokens: float,
) -> dict[str, Any]:  # fmt: skip
    """All figures of a running server."""
    async with httpx.AsyncClient(
        base_url=address, timeout=None, limits=httpx.Limits(max_connections=None),
        headers={"content-type": "application/json"},
    ) as client:  # fmt: skip
        unloaded = await alone(client, texts)
        mean_tokens = (long_tokens + SHORT_OF_EACH_LONG * 300) / (1 + SHORT_OF_EACH_LONG)
        rate = OVERLOAD * capacity / mean_tokens
        answers, took, memory = await loaded(client, texts, rate, seconds, server)
    stopped = await cut_off(address, texts, server)
    short = sorted(each.seconds for each in answers if each.kind == "short" and each.status == 200)
    done = sum(each.tokens for each in answers)
    statuses = {
        kind: dict(Counter(each.status for each in answers if each.kind == kind))
        for kind in ("short", "long")
    }
    median = statistics.median(unloaded)
    return {
        "requests_per_second": rate,
        "statuses": statuses,
        "short_median_unloaded_ms": 1e3 * median,
        "short_median_ms": 1e3 * statistics.median(short),
        "short_p95_ms": 1e3 * short[int(0.95 * len(short))],
        "short_p95_in_medians": short[int(0.95 * len(short))] / median,
        "tokens_per_second": done / took,
        "tokens_per_second_without_server": capacity,
        "throughput_ratio": done / took / capacity,
        "peak_memory_mb": memory,
        "seconds_to_stop": stopped,
    }


def table(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The figures for docs/serving.md."""
    [row] = rows
    short, long = (row["statuses"][kind] for kind in ("short", "long"))
    lines = [
        "| | |", "|---|---|",
        f"| requests | {row['requests_per_second']:.1f} a second for {about['seconds']:g} s, "
        f"{SHORT_OF_EACH_LONG} of 100 to 550 tokens to one of 32K: twice what the machine can do |",
        f"| answers to short ones | {_counts(short)} |",
        f"| answers to long ones | {_counts(long)} |",
        f"| short, nothing beside | {row['short_median_unloaded_ms']:.0f} ms (median) |",
        f"| short, under this load | {row['short_median_ms']:.0f} ms (median), "
        f"{row['short_p95_ms']:.0f} ms (95%: {row['short_p95_in_medians']:.1f} times the median "
        "with nothing beside) |",
        f"| tokens a second | {row['tokens_per_second']:,.0f}; `Dewey.encode` without a server "
        f"{row['tokens_per_second_without_server']:,.0f} ({row['throughput_ratio']:.2f}) |",
        f"| memory, at most | {row['peak_memory_mb']:,.0f} MB |",
        f"| a client of 128K tokens is gone | the server stands still after "
        f"{row['seconds_to_stop']:.2f} s |",
    ]  # fmt: skip
    machine = f"{about['cores']} cores, {about['cpu']}; {about['date']}; `{about['command']}`"
    return "\n".join([*lines, "", machine, ""])


def _counts(statuses: dict[int, int]) -> str:
    return ", ".join(f"{number:,} × {status}" for status, number in sorted(statuses.items()))


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    texts = Texts()
    capacity, long_tokens = without_server(texts)
    with serving() as (address, server):
        row = asyncio.run(
            measure(
                address, server, texts,
                seconds=options.seconds, capacity=capacity, long_tokens=long_tokens,
            )
        )  # fmt: skip
    packages = ("dewey-embed", "torch", "fastapi", "uvicorn")
    shown = ""

    def kept(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
        nonlocal shown
        shown = table(about, rows)
        return shown

    write_rows("serving", [row], kept, packages=packages, seconds=options.seconds)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}{shown}{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
