"""The vectors that `search.py` searches: real chunks and real queries, and more like the chunks.

The embedded model reads passages of the training corpus, and documents of the evaluation corpora
that answer the queries, so that some queries have good hits and others hardly any. Its own chunk
vectors are tens of thousands. More are made by copying documents: every chunk is moved by
half the difference of two chunks of one other document, drawn at random. So a copy's chunks keep
their neighbourhood, and are moved in the directions in which chunks differ.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dewey_embed.progress import progress_bar

QUERIES_A_TASK = 100
ANSWER_CHARS, PASSAGE_CHARS = 4_000, 8_000
PASSAGES = 1_000
CHUNK_TOKENS = 64
MOVED = 0.5
TOGETHER = 16


@dataclass(frozen=True)
class Chunks:
    """Chunk vectors (C, D) float16 of unit length; document i owns `starts[i]:starts[i + 1]`."""

    vectors: np.ndarray
    starts: np.ndarray


def real_vectors(data: Path, cache: Path) -> tuple[Chunks, np.ndarray]:
    """Real chunks, and queries (Q, D) float32; read from `cache` where this was done before."""
    from dewey_embed import Dewey

    model = Dewey.load()
    path = cache / f"{model.fingerprint[:16]}.npz"
    if not path.exists():
        questions, answers = _tasks(data / "eval")
        queries = np.asarray(model.encode_query(questions), np.float32)
        texts = answers + _passages(data / "train")
        np.random.default_rng(0).shuffle(texts)
        groups: list[np.ndarray] = []
        with progress_bar("encoding", len(texts), "documents", show=True) as advance:
            for start in range(0, len(texts), TOGETHER):
                some = texts[start : start + TOGETHER]
                done = model.encode_document(some, chunk_tokens=CHUNK_TOKENS, chunk_overlap=0)
                groups += [each.chunks.astype(np.float16) for each in done if len(each.chunks)]
                advance(len(some))
        cache.mkdir(parents=True, exist_ok=True)
        starts = np.cumsum([0, *(len(group) for group in groups)])
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, vectors=np.concatenate(groups), starts=starts, queries=queries)
        path.with_suffix(".part").rename(path)
    held = np.load(path)
    return Chunks(held["vectors"], held["starts"]), held["queries"]


def _tasks(folder: Path) -> tuple[list[str], list[str]]:
    """Queries of every task, evenly spaced, and the beginnings of documents that answer them."""
    questions, answers = [], []
    for task in sorted(folder.glob("*/qrels.tsv")):
        rows = _json_lines(task.with_name("queries.jsonl"))
        chosen = np.linspace(0, len(rows) - 1, min(QUERIES_A_TASK, len(rows))).astype(int)
        questions += [rows[i]["text"] for i in chosen]
        asked = {rows[i]["_id"] for i in chosen}
        relevant: dict[str, str] = {}
        for line in task.read_text(encoding="utf-8").splitlines()[1:]:
            query, document, _ = line.split("\t")
            if query in asked:
                relevant.setdefault(query, document)
        wanted = set(relevant.values())
        for row in _json_lines(task.with_name("corpus.jsonl")):
            if row["_id"] in wanted:
                answers.append(f"{row.get('title', '')}\n{row['text']}"[:ANSWER_CHARS])
    return questions, answers


def _passages(folder: Path) -> list[str]:
    """Passages of the training corpus, one a document, as many of each file as it has documents."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    files = {path: pq.read_metadata(path).num_rows for path in sorted(folder.glob("*.parquet"))}
    passages = []
    for path, num_rows in files.items():
        texts = pq.read_table(path, columns=["text"])["text"]
        num = round(PASSAGES * num_rows / sum(files.values()))
        for row in rng.choice(num_rows, num, replace=False):
            text = texts[int(row)].as_py()
            start = int(rng.integers(max(1, len(text) - PASSAGE_CHARS)))
            passages.append(text[start : start + PASSAGE_CHARS])
    return passages


def _json_lines(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def extended(real: Chunks, num: int, path: Path) -> Chunks:
    """`num` chunks written to `path` as .npy: the real ones, then moved copies of the documents."""
    vectors = np.lib.format.open_memmap(path, "w+", np.float16, (num, real.vectors.shape[1]))
    some = min(num, len(real.vectors))
    vectors[:some] = real.vectors[:some]
    own = real.vectors.astype(np.float32)
    sizes = np.diff(real.starts)
    rng = np.random.default_rng(2)
    for start in range(some, num, len(own)):
        rows = np.arange(min(len(own), num - start))
        others = rng.integers(len(sizes), size=len(rows))
        one, two = (
            real.starts[others] + (rng.random(len(rows)) * sizes[others]).astype(int)
            for _ in range(2)
        )
        moved = own[rows] + MOVED * (own[one] - own[two])
        vectors[start : start + len(rows)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    vectors.flush()
    copies = -(-num // len(own))
    starts = np.concatenate([real.starts[:-1] + copy * len(own) for copy in range(copies)])
    return Chunks(vectors, np.append(starts[starts < num], num))
