"""Queries by one model, chunks by another: a student against its teacher's index, and the reverse.

    python benchmarks/asymmetric.py --data data --model FOLDER

LEAF's students stand in their teacher's space, so that either may embed queries and the other
documents (arXiv 2509.12539). Both models embed the same chunks: the student pools each from one
pass over its document, the teacher, all-MiniLM-L6-v2, reads each alone. A document's score is the
cosine of its best chunk; nothing else is mixed in, so that the four ways differ in vectors alone.
Where the student has axes of its own (`dewey rotate`), queries are turned into those of the index:
its own by `queries @ student.teacher_axes.T`, the teacher's by `queries @ student.teacher_axes`.

The teacher's vectors are kept in the cache by text, the student's by model and task: a second
model costs its own passes, a second run seconds. Long tasks are cut to their first documents of
`--characters` in all, with the queries and judgements of these. Results are written to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
from recording import RESULTS, write_page

from dewey_embed import Dewey
from dewey_embed.eval.adapters import MINILM_PACKAGE, WINDOW_TOKENS
from dewey_embed.eval.beir import RetrievalData, is_beir_folder, read_beir
from dewey_embed.eval.passages import is_passage_folder, read_passages
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.eval.scores import Doubles, interval, query_scores, rank_documents
from dewey_embed.eval.vector_cache import VectorCache
from dewey_embed.files import atomic_file
from dewey_embed.progress import progress_bar
from dewey_embed.text.splitter import split
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.types import CharSpans, Floats, Rows

TASKS = (
    "eval/chroma_chunks", "eval/cranfield", "eval/fairytaleqa", "eval/legal_case_reports",
    "eval/leval_mix", "eval/locomo", "eval/medline", "eval/nfcorpus_filtered",
    "eval/scisumm_title", "eval/time", "eval/wiki_lead", "context/factbook_fields_dev",
    "context/fairytaleqa_sections", "context/medquad_sections_dev",
)  # fmt: skip
CHARACTERS = 600_000
CHUNK_TOKENS = 128
"""Tokens of a chunk where a task does not cut its documents itself: half of what the teacher
reads."""
TOP_K = 1000
DOCUMENTS_AT_ONCE = 16

HELD = 0.01
"""Of nDCG@10: what a way of two models may lose on the mean against the index's own model."""

WAYS = {
    "student": ("student", "student"),
    "teacher": ("teacher", "teacher"),
    "teacher → student's index": ("teacher", "student"),
    "student → teacher's index": ("student", "teacher"),
}
"""Who embeds queries, and who the index."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Queries and the gains of what is there; `cut` where something is not."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    cut: bool

    @classmethod
    def of(cls, data: RetrievalData, names: Sequence[str]) -> Self:
        """The queries that one of `names` answers, with the judgements of these."""
        known = set(names)
        qrels = {
            query: {name: gain for name, gain in gains.items() if name in known}
            for query, gains in data.qrels.items()
        }
        qrels = {query: gains for query, gains in qrels.items() if gains}
        queries = {query: data.queries[query] for query in qrels}
        return cls(queries=queries, qrels=qrels, cut=qrels != data.qrels)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Documents with the chunks to embed, what each chunk stands for, queries and judgements.

    `names` are what the judgements name: documents, or the chunks themselves; `owners` has the
    number of the one that each chunk stands for.
    """

    name: str
    texts: list[str]
    chunks: list[CharSpans]
    names: list[str]
    owners: Rows
    judged: Judged

    def chunk_texts(self) -> list[str]:
        """The text of each chunk, in the order of `owners`."""
        return [
            text[start:end]
            for text, spans in zip(self.texts, self.chunks, strict=True)
            for start, end in spans
        ]

    @property
    def digest(self) -> str:
        """A name that changes with any text or chunk."""
        parts = json.dumps([self.texts, self.chunks, self.judged.queries])
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--characters", type=int, default=CHARACTERS)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--cache", type=Path, default=Path("runs/asymmetric"))
    parser.add_argument("--output", "-o", type=Path, default=RESULTS / "asymmetric.json")
    arguments = parser.parse_args()
    student = Dewey.load(arguments.model)
    file = f"{MINILM_PACKAGE}-{version(MINILM_PACKAGE)}.sqlite"
    teacher = VectorCache(arguments.cache / file, MiniLM(max_tokens=WINDOW_TOKENS).embed)
    measured = []
    for name in arguments.tasks:
        task = read_task(arguments.data / name, student, arguments.characters)
        vectors = {
            "student": by_student(student, task, arguments.window, arguments.cache),
            "teacher": by_teacher(teacher, task),
        }
        measured.append(
            (task, {way: scores(task, vectors, way, student.teacher_axes) for way in WAYS})
        )
    write_page(page_of(student, measured, arguments), arguments.output)


def read_task(folder: Path, student: Dewey, characters: int) -> Task:
    """The task of a folder; of a long one the first documents, and the queries that they answer."""
    if is_passage_folder(folder) and not is_beir_folder(folder):
        return passage_task(folder, characters)
    data = read_beir(folder)
    documents = first(data.documents, characters)
    cuts = {name: spans for name, text in documents.items() if (spans := cut(student, text))}
    names, chunks = list(cuts), list(cuts.values())
    owners = np.repeat(np.arange(len(names)), [len(spans) for spans in chunks])
    return Task(
        name=folder.name,
        texts=[documents[name] for name in names],
        chunks=chunks,
        names=names,
        owners=owners,
        judged=Judged.of(data, names),
    )


def passage_task(folder: Path, characters: int) -> Task:
    """A task whose judgements name chunks of documents, each read in its document."""
    data = read_passages(folder)
    texts = {name: each.text for name, each in data.documents.items()}
    documents = first(texts, characters)
    places: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in documents}
    for chunk, place in data.places.items():
        if place.document in places:
            places[place.document][chunk] = (place.start, place.end)
    names = [chunk for own in places.values() for chunk in own]
    return Task(
        name=folder.name,
        texts=list(documents.values()),
        chunks=[list(own.values()) for own in places.values()],
        names=names,
        owners=np.arange(len(names)),
        judged=Judged.of(data.chunks, names),
    )


def first(texts: Mapping[str, str], characters: int) -> dict[str, str]:
    """The first texts, as many as have at most `characters` in all, and at least one."""
    sizes = itertools.accumulate(map(len, texts.values()))
    kept = [size <= characters for size in sizes]
    return dict(itertools.islice(texts.items(), max(1, sum(kept))))


def cut(student: Dewey, text: str) -> CharSpans:
    """The characters of a text's chunks; none of a text without tokens."""
    [tokens] = student.tokenizer.encode([text])
    spans = split(text, tokens, chunk_tokens=CHUNK_TOKENS, chunk_overlap=0)
    return [(each.char_start, each.char_end) for each in spans]


def by_student(student: Dewey, task: Task, window: int, cache: Path) -> tuple[Floats, Floats]:
    """The student's vectors of queries and chunks, kept by model, task and window."""
    path = cache / student.fingerprint / f"{task.name}-{task.digest}-{window}.npz"
    if path.exists():
        with np.load(path) as kept:
            return kept["queries"], kept["chunks"]
    chunks = []
    with progress_bar(task.name, len(task.texts), "documents", show=True) as advance:
        for start in range(0, len(task.texts), DOCUMENTS_AT_ONCE):
            some = slice(start, start + DOCUMENTS_AT_ONCE)
            documents = student.encode_document(
                task.texts[some], spans=task.chunks[some], window=window
            )
            chunks += [document.chunks for document in documents]
            advance(len(documents))
    queries = np.asarray(student.encode_query(list(task.judged.queries.values())), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft, draft.open("wb") as file:
        np.savez(file, queries=queries, chunks=np.concatenate(chunks))
    return queries, np.concatenate(chunks)


def by_teacher(teacher: VectorCache, task: Task) -> tuple[Floats, Floats]:
    """The teacher's vectors of queries and chunks, each read alone."""
    queries = teacher.embed(list(task.judged.queries.values()), label=f"{task.name}, queries")
    return queries, teacher.embed(task.chunk_texts(), label=f"{task.name}, chunks")


def scores(
    task: Task, vectors: Mapping[str, tuple[Floats, Floats]], way: str, axes: Floats | None
) -> Doubles:
    """nDCG@10 of every query, in the order of their names."""
    asks, holds = WAYS[way]
    queries = vectors[asks][0]
    if axes is not None and asks != holds:
        queries = queries @ (axes.T if asks == "student" else axes)
    cosines = queries @ vectors[holds][1].T
    starts = np.flatnonzero(np.diff(task.owners, prepend=-1))
    best = np.maximum.reduceat(cosines, starts, axis=1)
    ranking = rank_documents(task.judged.queries, task.names, best, TOP_K)
    by_query = query_scores(task.judged.qrels, ranking)
    return np.array([by_query[query]["ndcg_at_10"] for query in sorted(by_query)])


def page_of(
    student: Dewey,
    measured: Sequence[tuple[Task, dict[str, Doubles]]],
    settings: argparse.Namespace,
) -> ResultPage:
    """The page: a row for each task, and the differences with their intervals."""
    rows: list[tuple[Cell, ...]] = []
    differences: list[tuple[Cell, ...]] = []
    for task, by_way in measured:
        name = f"{task.name}, first {len(task.texts):,}" if task.judged.cut else task.name
        rows.append(
            (name, len(task.judged.queries), *(float(each.mean()) for each in by_way.values()))
        )
        differences.append((name, *difference(by_way, *NEW), *difference(by_way, *OLD)))
    means = [float(np.mean([row[column] for row in rows])) for column in range(2, 2 + len(WAYS))]
    rows.append(("mean", None, *means))
    mean = dict(zip(WAYS, means, strict=True))
    label = Path(student.name).name
    return ResultPage(
        kind="asymmetric",
        name="asymmetric",
        title=f"Queries by one model, chunks by another: {label} and all-MiniLM-L6-v2",
        summary=summary(mean),
        machine=Machine.running(student),
        tables=(
            Table(
                title="nDCG@10 by who embeds queries and who the index",
                columns=(
                    Column(name="task"),
                    Column(name="queries", digits=0),
                    *(Column(name=way, best="highest") for way in WAYS),
                ),
                rows=tuple(rows),
                best_in="row",
                notes=(
                    f"The student is {label} (fingerprint {student.fingerprint}), in windows of "
                    f"{settings.window:,} tokens; the teacher is all-MiniLM-L6-v2, each chunk "
                    "alone.",
                    f"Chunks of {CHUNK_TOKENS} tokens without overlap; those of the tasks of "
                    "sections are the tasks' own, and ranked themselves. A document's score is the "
                    "cosine of its best chunk.",
                    f"Long tasks are cut to their first {settings.characters:,} characters of "
                    "documents, with the queries and judgements of these.",
                ),
            ),
            Table(
                title="What the other model's queries change",
                columns=(
                    Column(name="task"),
                    *(
                        Column(name=f"{what}{end}")
                        for what in ("student's index, teacher's queries",
                                     "teacher's index, student's queries")
                        for end in ("", ", low", ", high")
                    ),
                ),
                rows=tuple(differences),
                notes=(
                    "Differences of nDCG@10 from the queries of the model that made the index, "
                    "with 95% intervals over queries: percentile bootstrap, 2,000 resamples.",
                ),
            ),
        ),
    )  # fmt: skip


NEW = ("teacher → student's index", "student")
OLD = ("student → teacher's index", "teacher")


def difference(by_way: Mapping[str, Doubles], asymmetric: str, symmetric: str) -> tuple[float, ...]:
    """The mean difference of two ways with its interval."""
    return tuple(interval(by_way[asymmetric] - by_way[symmetric]))


def summary(mean: Mapping[str, float]) -> str:
    """Whether either way holds, in a sentence each."""
    sentences = []
    for what, (asymmetric, symmetric) in (
        ("An index of the student's, with the teacher's queries", NEW),
        ("An existing index of the teacher's, with the student's queries", OLD),
    ):
        change = mean[asymmetric] - mean[symmetric]
        holds = "holds" if change >= -HELD else "does not hold"
        sentences.append(
            f"{what}, {holds}: mean nDCG@10 {mean[asymmetric]:.4f}, {change:+.4f} from its own."
        )
    return " ".join(sentences)


if __name__ == "__main__":
    main()
