"""What speed costs in exactness: every variant of encoding against plain float32, on a real task.

    python benchmarks/precision.py data/eval/time data/eval/cranfield

The shipped model, document and chunk vectors. `difference` is |v - r| / |r| of a vector to its
float32 one, nDCG@10 that of ranking as `multi` does. Results are
written to benchmarks/results/ as JSON, with a table beside them.

docs/data.md says what the data are and how to make them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from recording import write_page

from dewey_embed import Dewey
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.eval.scores import query_scores
from dewey_embed.model.native.kernels import kernels
from dewey_embed.types import DocumentVectors


class EncodeVariant(NamedTuple):
    """A variant of encoding: the type of the weights, and whether by our kernels."""

    dtype: str
    native: bool


VARIANTS = {
    "float32, PyTorch": EncodeVariant("float32", native=False),
    "float32, kernels": EncodeVariant("float32", native=True),
    "bfloat16, PyTorch": EncodeVariant("bfloat16", native=False),
    "bfloat16, kernels": EncodeVariant("bfloat16", native=True),
    "int8, kernels": EncodeVariant("int8", native=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", type=Path, help="folders in BEIR's layout")
    parser.add_argument(
        "--output", "-o", type=Path, default=Path("benchmarks/results/precision.json")
    )
    arguments = parser.parse_args()
    if not all(kernels(dtype, may_build=True) for dtype in (torch.float32, torch.bfloat16)):
        sys.exit("no kernels here: those for bfloat16 need AVX512-BF16 and g++")
    rows: list[tuple[Cell, ...]] = []
    for folder in arguments.tasks:
        rows += measure(read_beir(folder))
    page = ResultPage(
        kind="speed",
        name="precision",
        title="What speed costs in exactness",
        machine=Machine.here(device="cpu"),
        tables=(
            Table(
                title="Against plain float32",
                columns=(
                    Column(name="task"),
                    Column(name="variant"),
                    Column(name="tokens/s", best="highest", digits=0),
                    Column(name="difference, mean"),
                    Column(name="difference, largest"),
                    Column(name="nDCG@10", best="highest"),
                    Column(name="less float32's"),
                ),
                rows=tuple(rows),
                notes=("One pass over the task's documents each.",),
            ),
        ),
    )
    write_page(page, arguments.output)


def measure(data: RetrievalData) -> list[tuple[Cell, ...]]:
    """A row for each variant, on one task."""
    texts, queries = list(data.documents.values()), list(data.queries.values())
    rows: list[tuple[Cell, ...]] = []
    reference, best = np.empty(0), 0.0
    for name, variant in VARIANTS.items():
        os.environ["DEWEY_NATIVE"] = str(int(variant.native))
        model = Dewey.load(dtype=variant.dtype)
        model.encode_document(texts[:2])
        started = time.perf_counter()
        documents = model.encode_document(texts)
        seconds = time.perf_counter() - started
        cosines = model.similarity(model.encode_query(queries), documents)
        ranking = {
            query: dict(zip(data.documents, map(float, row), strict=True))
            for query, row in zip(data.queries, cosines, strict=True)
        }
        scores = query_scores(data.qrels, ranking).values()
        ndcg = float(np.mean([each["ndcg_at_10"] for each in scores]))
        vectors = all_vectors(documents)
        if not len(reference):
            reference, best = vectors, ndcg
        difference = np.linalg.norm(vectors - reference, axis=1)  # of unit vectors
        num_tokens = sum(document.num_tokens for document in documents)
        mean, largest = float(difference.mean()), float(difference.max())
        rows.append((data.name, name, num_tokens / seconds, mean, largest, ndcg, ndcg - best))
        sys.stderr.write(f"{data.name}, {name}: {seconds:.1f} s, nDCG@10 {ndcg:.4f}\n")
    return rows


def all_vectors(documents: list[DocumentVectors]) -> np.ndarray:
    """(R, D): documents and chunks, in order."""
    return np.concatenate([np.vstack([each.vector, *each.chunks]) for each in documents])


if __name__ == "__main__":
    main()
