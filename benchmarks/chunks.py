"""What chunk vectors cost: a document's vector alone, one size of chunks, four, over the bare pass.

    python benchmarks/chunks.py

The bare pass is the backbone on the same tokens, already cut into batches; all else that encoding
does is counted: tokenising, splitting, pooling, the head. The variants take turns on the same
texts; figures are medians. Results are written to benchmarks/results/ as JSON, with a table
beside them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from recording import write_page
from workloads import one_document

from dewey_embed import Dewey
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.model.native.kernels import kernels
from dewey_embed.model.packing import pack

SIZES = (64, 128, 256, 512)
BARE = "bare pass"
TOKENISED = "text to tokens, and the bare pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 2048, 8192, 32768])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", "-o", type=Path, default=Path("benchmarks/results/chunks.json"))
    arguments = parser.parse_args()
    model = Dewey.load()
    kernels(model.dtype, may_build=True)  # once a machine, not once a run
    rows: list[tuple[Cell, ...]] = []
    for num_tokens in arguments.tokens:
        rows += measure(model, num_tokens, arguments.rounds)
    page = ResultPage(
        kind="speed",
        name="chunks",
        title="What chunk vectors cost",
        machine=Machine.here(device=model.device.type, dtype=str(model.dtype)),
        tables=(
            Table(
                title="Seconds of the mini",
                columns=(
                    Column(name="tokens", digits=0),
                    Column(name="vectors of"),
                    Column(name="vectors", digits=0),
                    Column(name="seconds", unit="s", digits=4),
                    Column(name="over the bare pass", unit="%", digits=1),
                    Column(name="over both", unit="%", digits=1),
                ),
                rows=tuple(rows),
                notes=(
                    f"Median of {arguments.rounds} rounds after one to warm up; over the bare "
                    "pass, and over both that and making tokens of the text, which every "
                    "embedder does: the medians of the rounds' own differences.",
                ),
            ),
        ),
    )
    write_page(page, arguments.output)


def measure(model: Dewey, num_tokens: int, rounds: int) -> list[tuple[Cell, ...]]:
    """A row for each variant at one length."""
    [text] = one_document(num_tokens).texts
    ids = model.tokenizer.encode([text])[0].ids
    special = model.config.backbone
    packed = pack(
        [np.concatenate(([special.cls_token_id], ids, [special.sep_token_id])).astype(np.int64)]
    )

    @torch.inference_mode()
    def bare() -> int:
        model.model(packed)
        return 0

    def tokenised() -> int:
        model.tokenizer.encode([text])
        return bare()

    def document() -> int:
        model.encode(text)
        return 1

    def one_size() -> int:
        return 1 + len(model.encode_document(text, chunk_tokens=128).chunks)

    def four_sizes() -> int:
        return 1 + len(model.encode_document(text, chunk_tokens=SIZES).chunks)

    variants: dict[str, Callable[[], int]] = {
        BARE: bare,
        TOKENISED: tokenised,
        "the document": document,
        "the document, its chunks of 128": one_size,
        f"the document, its chunks of {', '.join(map(str, SIZES))}": four_sizes,
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    num_vectors = {name: variant() for name, variant in variants.items()}
    for _ in range(rounds):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - started)
    rows: list[tuple[Cell, ...]] = []
    for name, times in seconds.items():
        more = [
            100 * statistics.median(a / b - 1 for a, b in zip(times, seconds[base], strict=True))
            for base in (BARE, TOKENISED)
        ]
        rows.append((num_tokens, name, num_vectors[name], statistics.median(times), *more))
    return rows


if __name__ == "__main__":
    main()
