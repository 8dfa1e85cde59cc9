"""The engines that `search.py` compares, each building and searching in processes of its own.

All get the same unit vectors in float16 and answer one query at a time with ten rows. An engine's
settings run from quick to thorough; `search.py` takes the first that is good enough.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

NUM = 10
BLOCK = 65_536
LONG_ENOUGH_S = 30
"""A slow engine answers as many of the queries as it can in that time."""
Search = Callable[[np.ndarray, Any], np.ndarray]


def build_dewey(vectors: np.ndarray, folder: Path) -> None:
    from dewey_embed.index.ivf import build_ivf

    build_ivf(vectors, folder / "chunks.faiss")


def open_dewey(vectors: np.ndarray, folder: Path) -> Search:
    from dewey_embed.index.vectors import read_neighbours

    neighbours = read_neighbours(vectors, folder / "chunks.faiss")
    return lambda query, _: neighbours.nearest(query, NUM)[0]


def build_faiss(factory: str, vectors: np.ndarray, folder: Path) -> None:
    import faiss

    lists = round(1.5 * len(vectors) ** 0.5)
    description = factory.format(lists=lists)
    index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        step = max(1, len(vectors) // (48 * lists))
        index.train(np.ascontiguousarray(vectors[::step], np.float32))
    for start in range(0, len(vectors), BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + BLOCK], np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))


def open_faiss(_: np.ndarray, folder: Path) -> Search:
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
    inverted = isinstance(index, faiss.IndexIVF)

    def search(query: np.ndarray, setting: Any) -> np.ndarray:
        params = None
        if inverted:
            params = faiss.SearchParametersIVF()
            params.nprobe = max(1, round(setting * index.nlist))
        elif setting:
            params = faiss.SearchParametersHNSW()
            params.efSearch = setting
        return index.search(query[None], NUM, params=params)[1][0]

    return search


def build_bits(vectors: np.ndarray, folder: Path) -> None:
    import faiss

    from dewey_embed.quantization import to_precision

    index = faiss.IndexBinaryFlat(vectors.shape[1])
    exact = np.lib.format.open_memmap(folder / "int8.npy", "w+", np.int8, vectors.shape)
    for start in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[start : start + BLOCK], np.float32)
        index.add(np.packbits(block > 0, axis=1))
        exact[start : start + len(block)] = to_precision(block, "int8")
    faiss.write_index_binary(index, str(folder / "bits.faiss"))


def open_bits(_: np.ndarray, folder: Path) -> Search:
    import faiss

    index = faiss.read_index_binary(str(folder / "bits.faiss"))
    exact = np.load(folder / "int8.npy", "r")

    def search(query: np.ndarray, candidates: Any) -> np.ndarray:
        rows = np.sort(index.search(np.packbits(query > 0)[None], candidates)[1][0])
        own = exact[rows].astype(np.float32)
        scores = own @ query / np.linalg.norm(own, axis=1)
        return rows[np.argsort(-scores, kind="stable")[:NUM]]

    return search


def build_usearch(vectors: np.ndarray, folder: Path) -> None:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
    for start in range(0, len(vectors), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(vectors)))
        index.add(rows, np.ascontiguousarray(vectors[rows]))
    index.save(str(folder / "index.usearch"))


def open_usearch(_: np.ndarray, folder: Path) -> Search:
    from usearch.index import Index

    index = Index.restore(str(folder / "index.usearch"), view=True)

    def search(query: np.ndarray, setting: Any) -> np.ndarray:
        index.expansion_search = setting
        return index.search(query.astype(np.float16), NUM).keys

    return search


def build_lancedb(kind: str, vectors: np.ndarray, folder: Path) -> None:
    import lancedb
    import pyarrow as pa

    width = vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(np.asarray(vectors, np.float32).ravel()), width
    )
    data = pa.table({"row": np.arange(len(vectors)), "vector": column})
    table = lancedb.connect(folder).create_table("chunks", data)
    parts = {"num_sub_vectors": width // 8} if kind == "IVF_PQ" else {}
    table.create_index("dot", index_type=kind, **parts)


def open_lancedb(_: np.ndarray, folder: Path) -> Search:
    import lancedb

    table = lancedb.connect(folder).open_table("chunks")

    def search(query: np.ndarray, setting: Any) -> np.ndarray:
        asked = table.search(query).distance_type("dot").select(["row", "_distance"]).limit(NUM)
        asked = asked.nprobes(setting).refine_factor(20)
        return asked.to_arrow()["row"].to_numpy()

    return search


@dataclass(frozen=True)
class Engine:
    """How to build, how to open, settings from quick to thorough, and up to how many rows."""

    build: Callable[[np.ndarray, Path], None]
    open: Callable[[np.ndarray, Path], Search]
    settings: tuple = (None,)
    max_rows: int = 100_000_000


SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
EFFORTS = (64, 128, 256, 512, 1024)
PROBES = (10, 20, 40, 80, 160)
CANDIDATES = (40, 100, 400, 1000, 4000)
ENGINES: dict[str, Engine] = {
    "dewey": Engine(build_dewey, open_dewey),
    "faiss Flat": Engine(lambda v, f: build_faiss("Flat", v, f), open_faiss),
    "faiss IVF,SQ8": Engine(lambda v, f: build_faiss("IVF{lists},SQ8", v, f), open_faiss, SHARES),
    "faiss bits, rescored by int8": Engine(build_bits, open_bits, CANDIDATES),
    "faiss HNSW32,SQ8": Engine(
        lambda v, f: build_faiss("HNSW32_SQ8", v, f), open_faiss, EFFORTS, 100_000
    ),
    "usearch HNSW, f16": Engine(build_usearch, open_usearch, EFFORTS, 100_000),
    "lancedb IVF_PQ": Engine(
        lambda v, f: build_lancedb("IVF_PQ", v, f), open_lancedb, PROBES, 100_000
    ),
    "lancedb IVF_HNSW_SQ": Engine(
        lambda v, f: build_lancedb("IVF_HNSW_SQ", v, f), open_lancedb, PROBES, 100_000
    ),
}


class Process:
    """An engine in a process of its own, over vectors in a file."""

    def __init__(self, name: str, vectors: Path, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        arguments = (name, vectors, folder, other)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def __call__(self, *request: Any) -> Any:
        """What the process answers to `"build"`, `"memory"` or `"search", queries, setting`.

        Raises:
            RuntimeError: the engine failed.

        """
        self._pipe.send(request)
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the engine ended at {request[0]}") from None

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _serve(name: str, path: Path, folder: Path, pipe: Connection) -> None:
    engine, vectors, search = ENGINES[name], np.load(path, "r"), None
    while (request := pipe.recv()) is not None:
        started, used = time.perf_counter(), os.times()
        if request[0] == "memory":
            pipe.send(_memory())
        elif request[0] == "build":
            engine.build(vectors, folder)
            now, seconds = os.times(), time.perf_counter() - started
            cpu = now.user + now.system - used.user - used.system
            pipe.send((seconds, cpu, _memory()["peak_mb"]))
        else:
            _, queries, setting = request
            search = search or engine.open(vectors, folder)
            rows, times = [], []
            for query in queries:
                asked = time.perf_counter()
                rows.append(search(query, setting))
                times.append(time.perf_counter() - asked)
                if time.perf_counter() - started > LONG_ENOUGH_S:
                    break
            pipe.send((rows, times, time.perf_counter() - started))


def _memory() -> dict[str, float]:
    """Megabytes resident at most and now, of these not of mapped files, and read from disks."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {
        "peak_mb": int(status["VmHWM"]) / 1e3,
        "resident_mb": int(status["VmRSS"]) / 1e3,
        "not_mapped_mb": int(status["RssAnon"]) / 1e3,
        "read_mb": int(io["read_bytes"]) / 1e6,
    }
