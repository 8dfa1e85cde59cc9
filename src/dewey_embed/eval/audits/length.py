"""`dewey audit length`: retrieval by document length, from 1K to 128K tokens.

The queries and the documents that answer them are the same at every length; only the text around
the answer grows. So a fall has two causes: the pass over a longer text, and the other text, which
can be confused with the answer.

How much of the answer a document's own vector lost is told by the Evidence Dilution Index (EDI):
the cosine of its best chunk less that of its own vector, in the document that answers, as a mean
over queries. Source: arXiv 2606.18781.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import numpy as np

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, TaskError
from dewey_embed.eval.audits import CACHE, LENGTHS, MIN_DOCUMENTS
from dewey_embed.eval.beir import RetrievalData, read_beir
from dewey_embed.eval.generated import passkey
from dewey_embed.eval.result_page import (
    Column,
    Machine,
    Plot,
    ResultPage,
    Series,
    Table,
    interval_columns,
)
from dewey_embed.eval.scores import Interval, interval, query_scores, rank_documents
from dewey_embed.eval.vector_cache import ChunkSize, DocumentVectorCache
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.single_vectors import SINGLE_VECTORS
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.topics import MOST_VECTORS, STRETCH_TOKENS
from dewey_embed.types import DocumentVectors, Floats

MIN_LENGTH = 64
SEPARATOR = "\n\n"
TOKENS_PER_LENGTH = 2**20
FALL = 0.05

SINGLE, MULTI = "single", "multi"
"""Modes of a comparison: by the model's own single vector, and by chunks. Between them, under its
own name, is every kind of single vector that has several a document, read as it asks for."""

STRETCHES = ChunkSize(STRETCH_TOKENS, overlap=0.0)
"""What those kinds are made of."""


class LengthTask(NamedTuple):
    """A task that exists at several lengths, with a note on its documents."""

    name: str
    lengths: Sequence[int]
    at: Callable[[int], RetrievalData]
    note: str


@dataclass(frozen=True, kw_only=True)
class LengthScores:
    """The scores at one length in one mode; `num_tokens` is the mean of the documents.

    `dilution` is None where documents are compared by their chunks, `window` where they are read as
    the model reads them.
    """

    task: str
    mode: str
    length: int
    num_documents: int
    num_queries: int
    num_tokens: float
    in_windows: bool
    ndcg: Interval
    accuracy: Interval
    dilution: Interval | None = None
    window: int | None = None


Lines = dict[tuple[str, str], list[LengthScores]]


def audit_length(
    model: Dewey,
    *,
    data: Sequence[Path] = (),
    lengths: Sequence[int] = LENGTHS,
    tokens_per_length: int = TOKENS_PER_LENGTH,
    longest_passkey: int | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
    cache: Path = CACHE,
    seed: int = 0,
    progress: bool = False,
) -> ResultPage:
    """nDCG@10, accuracy@1 and EDI by document length: with one vector, with a few and with many.

    The tasks are the BEIR folders of `data`, their documents joined to each length, and generated
    pass keys. `lengths` are complete passes, CLS and SEP included; for pass keys they are
    LongEmbed's tokens. Every length has the same number of documents, at least eight: as many as
    `tokens_per_length` tokens hold at the longest. Pass keys go up to `longest_passkey`; they cost
    as much as real documents, and say less. Vectors are kept in `cache`: a run that was killed
    resumes with the document it was in.

    Raises:
        ConfigError: lengths that do not ascend from 64 or more, too few tokens, or no task.
        TaskError: a folder is not a task, or holds too few documents.
        InputError: the model makes NaN.

    """
    if not lengths or lengths[0] < MIN_LENGTH or any(a >= b for a, b in pairwise(lengths)):
        raise ConfigError(
            f"lengths are {list(lengths)}; they must ascend, from {MIN_LENGTH} tokens or more"
        )
    if tokens_per_length < 1:
        raise ConfigError(f"tokens_per_length is {tokens_per_length}; it must be 1 or more")
    num_documents = max(MIN_DOCUMENTS, tokens_per_length // lengths[-1])
    tasks = [_joined_task(model, folder, lengths, num_documents, seed) for folder in data]
    keyed = [each for each in lengths if longest_passkey is None or each <= longest_passkey]
    if keyed:
        tasks.append(_passkey_task(keyed, num_documents, seed))
    if not tasks:
        raise ConfigError(
            f"longest_passkey is {longest_passkey}, the shortest length {lengths[0]}, and no data "
            "is named: nothing to measure; name a folder, or allow longer pass keys"
        )
    size = ChunkSize(chunk_tokens)
    vectors = DocumentVectorCache(model, cache, [size, STRETCHES])
    scores: list[LengthScores] = []
    total = sum(
        num_documents * length * len(set(_windows(model, length).values()))
        for task in tasks
        for length in task.lengths
    )
    with progress_bar("encoding", total, "tokens", show=progress) as advance:
        for task in tasks:
            for length in task.lengths:
                scores += _measure(task, length, vectors, size, advance)
    return _page(model, scores, [task.note for task in tasks], chunk_tokens=chunk_tokens)


def first_fall(line: Sequence[LengthScores]) -> int | None:
    """The first length whose accuracy is 5 points or more below the shortest's; else `None`.

    `line` is of one task and mode, shortest first.
    """
    for scores in line[1:]:
        if line[0].accuracy.mean - scores.accuracy.mean >= FALL - 1e-9:
            return scores.length
    return None


def _windows(model: Dewey, length: int) -> dict[str, int | None]:
    """For each mode the most tokens of a document of `length` that are read at once.

    It is `None` for all that the model takes.
    """
    own = {name: kind.window for name, kind in SINGLE_VECTORS.items() if kind.several}
    most = min(length, model.config.window)
    several = {name: window if window and window < most else None for name, window in own.items()}
    return {SINGLE: None, **several, MULTI: None}


def _measure(
    task: LengthTask,
    length: int,
    vectors: DocumentVectorCache,
    size: ChunkSize,
    advance: Advance,
) -> list[LengthScores]:
    """The scores of each mode at one length."""
    data = task.at(length)
    names, texts = list(data.documents), list(data.documents.values())
    model = vectors.model
    windows = _windows(model, length)
    read = {
        each: vectors.encode(texts, advance, window=each)
        for each in dict.fromkeys(windows.values())
    }
    queries = model.encode_query(list(data.queries.values()))
    answers = [names.index(next(iter(data.qrels[query]))) for query in data.queries]
    scores = []
    for mode, window in windows.items():
        documents = [_in_mode(mode, each, vectors.sizes, size) for each in read[window]]
        similarities = model.similarity(
            queries, documents, mode="multi" if mode == MULTI else "single"
        )
        best = _best_chunks(model, queries, documents, answers)
        ranking = rank_documents(data.queries, names, similarities, len(names))
        by_query = query_scores(data.qrels, ranking).values()
        own = similarities[np.arange(len(answers)), answers]
        scores.append(
            LengthScores(
                task=task.name,
                mode=mode,
                length=length,
                num_documents=len(documents),
                num_queries=len(data.queries),
                num_tokens=float(np.mean([each.num_tokens for each in documents])),
                in_windows=any(each.overflow for each in documents),
                window=window,
                ndcg=interval(np.array([each["ndcg_at_10"] for each in by_query])),
                accuracy=interval(np.array([each["ndcg_at_1"] for each in by_query])),
                dilution=None if mode == MULTI else interval((best - own).astype(np.float64)),
            )
        )
    return scores


def _in_mode(
    mode: str, document: DocumentVectors, sizes: Sequence[ChunkSize], size: ChunkSize
) -> DocumentVectors:
    """A document with its chunks of one size, its one vector, and the several of the mode."""
    kind = SINGLE_VECTORS.get(mode)
    stretches, _ = document.at(sizes.index(STRETCHES))
    several = None
    if kind is not None and kind.several is not None:
        several = kind.several(stretches, document.vector)
    chunks, spans = document.at(sizes.index(size))
    return replace(document, chunks=chunks, spans=spans, vectors=several)


def _best_chunks(
    model: Dewey, queries: Floats, documents: Sequence[DocumentVectors], answers: Sequence[int]
) -> Floats:
    """The score (Q,) of the best chunk of the document that answers each query."""
    best = np.empty(len(answers), np.float32)
    for row, document in enumerate(documents):
        own = np.flatnonzero(np.array(answers) == row)
        best[own] = model.similarity(queries[own], document.chunks).max(axis=1)
    return best


def _joined_task(
    model: Dewey, folder: Path, lengths: Sequence[int], num_documents: int, seed: int
) -> LengthTask:
    """A corpus, its documents joined to each length."""
    data = read_beir(folder)
    prompt = model.prompts.get("document", "")
    around = 2 + len(model.tokenizer.encode([""], prompt=prompt)[0].prompt_ids)
    joined = JoinedTasks(
        data,
        model.tokenizer,
        lengths=[length - around for length in lengths],
        num_documents=num_documents,
        seed=seed,
    )
    left_out = [length for length in lengths if length - around not in joined.lengths]
    note = (
        f"{data.name}: {len(joined.qrels)} queries about {len(joined.answers)} documents of at "
        f"most {joined.lengths[0]:,} tokens, each joined with other documents of the corpus up to "
        f"the length. The others have {joined.num_other_tokens:,} tokens together, and are "
        "repeated where that is less than a length."
    )
    if left_out:
        note += (
            f" Fewer than {MIN_DOCUMENTS} such documents fit into "
            f"{', '.join(f'{length:,}' for length in left_out)} tokens: not measured."
        )
    return LengthTask(
        data.name,
        [length + around for length in joined.lengths],
        lambda length: joined.at(length - around),
        note,
    )


def _passkey_task(lengths: Sequence[int], num_documents: int, seed: int) -> LengthTask:
    """Generated pass keys, with a query for each."""
    return LengthTask(
        "passkey",
        lengths,
        lambda length: passkey(length, num=num_documents, num_documents=num_documents, seed=seed),
        f"passkey: {num_documents} documents at each length, one query for each; lengths are "
        "LongEmbed's tokens of 0.75 words, the column of tokens holds the model's own.",
    )


class JoinedTasks:
    """A corpus → one task for each length, with the same answering documents and queries.

    An answering document is the only relevant one of a query and fits into the shortest of
    `lengths`, which are the requested lengths into which at least eight documents fit. The
    documents around it are relevant to none of the queries. Its id and the seed decide their order
    and its depth, for all lengths alike.
    """

    def __init__(
        self,
        data: RetrievalData,
        tokenizer: Tokenizer,
        *,
        lengths: Sequence[int],
        num_documents: int,
        seed: int,
    ) -> None:
        """Choose the documents; lengths are in tokens of the texts themselves.

        Raises:
            TaskError: too few documents answer a query and fit, or there are no others to join.

        """
        self.data, self.tokenizer, self.seed = data, tokenizer, seed
        self._sizes: dict[str, int] = {}
        alone = {next(iter(gains)) for gains in data.qrels.values() if len(gains) == 1}
        names = sorted(name for name in alone if self._size(name))
        fitting = {
            length: [name for name in names if self._size(name) <= length]
            for length in sorted(lengths)
        }
        self.lengths = [length for length in fitting if len(fitting[length]) >= MIN_DOCUMENTS]
        if not self.lengths:
            raise TaskError(
                f"{data.name}: {len(fitting[max(lengths)])} documents are the only relevant one of "
                f"a query and have at most {max(lengths):,} tokens; {MIN_DOCUMENTS} are needed"
            )
        shortest = fitting[self.lengths[0]]
        kept = Random(seed).sample(shortest, min(num_documents, len(shortest)))
        self.answers = kept
        self.qrels = {
            query: dict(gains)
            for query, gains in data.qrels.items()
            if len(gains) == 1 and set(kept).issuperset(gains)
        }
        self.others = sorted(set(data.documents) - set(kept))
        if not self.others:
            raise TaskError(
                f"{data.name}: all {len(kept)} documents answer a query; there is none to join "
                "them with. Take fewer (--tokens-per-length), or take a larger corpus"
            )

    def at(self, length: int) -> RetrievalData:
        """The task whose documents all have `length` tokens, or a few less."""
        return RetrievalData(
            name=f"{self.data.name}-{length}",
            documents={name: self._join(name, length) for name in self.answers},
            queries={query: self.data.queries[query] for query in self.qrels},
            qrels=self.qrels,
        )

    @property
    def num_other_tokens(self) -> int:
        """Tokens of all documents that the answering ones are joined with."""
        return sum(self._size(name) for name in self.others)

    def _join(self, answer: str, length: int) -> str:
        """The answering document among others."""
        rng = Random(f"{self.seed} {answer}")
        order = rng.sample(self.others, len(self.others))
        depth = rng.random()
        room = length - self._size(answer)
        while True:
            parts = self._fill(order, room)
            parts.insert(round(depth * len(parts)), self.data.documents[answer])
            text = SEPARATOR.join(parts)
            # Tokenizers may count joined texts a little differently from single ones.
            surplus = self._count(text) - length
            if surplus <= 0:
                return text
            room -= surplus

    def _fill(self, order: Sequence[str], room: int) -> list[str]:
        """Documents of `room` tokens together, the last one cut."""
        parts: list[str] = []
        for name in cycle(order):
            if room <= 0:
                break
            text = self.data.documents[name]
            if self._size(name) > room:
                tokens = self.tokenizer.encode([text])[0]
                text = text[: int(tokens.offsets[room - 1, 1])]
            parts.append(text)
            room -= max(self._size(name), 1)
        return parts

    def _size(self, name: str) -> int:
        """Tokens of a document."""
        if name not in self._sizes:
            self._sizes[name] = self._count(self.data.documents[name])
        return self._sizes[name]

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode([text])[0])


def _page(
    model: Dewey, scores: Sequence[LengthScores], task_notes: Sequence[str], *, chunk_tokens: int
) -> ResultPage:
    lines: Lines = {}
    for each in scores:
        lines.setdefault((each.task, each.mode), []).append(each)
    notes = [
        f"Model {model.name}, fingerprint {model.fingerprint}.",
        *task_notes,
        f"single: by the document's one vector; topics: by the nearest of up to {MOST_VECTORS}, "
        f'`single_vector="topics"`; multi: by chunks of {chunk_tokens} tokens and the one vector. '
        "Intervals: 95% bootstrap over queries. A random ranking has an accuracy@1 of one over the "
        "number of documents.",
        "Evidence dilution (EDI): the cosine of the best chunk less that of the document's one "
        "vector, or of the nearest of its topics, in the document that answers; mean over queries.",
    ]
    for mode, window in sorted({(each.mode, each.window) for each in scores if each.window}):
        notes.append(
            f"{mode}: documents of more than {window:,} tokens are read in overlapping windows of "
            "so many, as such a model reads them."
        )
    windows = sorted({each.length for each in scores if each.in_windows})
    if windows:
        notes.append(
            f"Longer than the model's {model.max_tokens:,} tokens, so read in overlapping windows: "
            f"{', '.join(f'{length:,}' for length in windows)}."
        )
    label = Path(model.name).name
    return ResultPage(
        kind="length",
        name=f"length-{label}",
        title=f"Retrieval by document length: {label}",
        summary=" ".join(_fall_in_words(*key, line) for key, line in lines.items()),
        machine=Machine.running(model),
        tables=(_falls_table(lines), _scores_table(scores, notes)),
        plots=(
            _plot("Accuracy@1", "accuracy", lines, notes),
            _plot("nDCG@10", "ndcg", lines, notes),
            _plot("Evidence dilution", "dilution", lines, notes),
        ),
    )


def _fall_in_words(task: str, mode: str, line: Sequence[LengthScores]) -> str:
    fall = first_fall(line)
    first, last = line[0], line[-1]
    start = f"{task}, {mode}: accuracy@1 is {first.accuracy.mean:.2f} at {first.length:,} tokens"
    if fall is None:
        return f"{start} and does not fall by 5 points up to {last.length:,}."
    at = next(scores for scores in line if scores.length == fall)
    return (
        f"{start}; it has fallen by 5 points at {fall:,} ({at.accuracy.mean:.2f}) and is "
        f"{last.accuracy.mean:.2f} at {last.length:,}."
    )


def _falls_table(lines: Lines) -> Table:
    """Where each line falls by 5 points."""
    return Table(
        title="Where accuracy@1 falls by 5 points",
        columns=(
            Column(name="task"),
            Column(name="mode"),
            Column(name="shortest", unit="tokens", digits=0),
            Column(name="accuracy@1 there"),
            Column(name="5 points less at", unit="tokens", digits=0),
            Column(name="longest", unit="tokens", digits=0),
            Column(name="accuracy@1 at the longest", best="highest"),
        ),
        rows=tuple(
            (
                *key, line[0].length, line[0].accuracy.mean, first_fall(line), line[-1].length,
                line[-1].accuracy.mean,
            )
            for key, line in lines.items()
        ),
        notes=("A dash under `5 points less at`: it does not fall so far at any length.",),
    )  # fmt: skip


def _scores_table(scores: Sequence[LengthScores], notes: Sequence[str]) -> Table:
    """Every figure with its interval."""
    return Table(
        title="By length",
        columns=(
            Column(name="task"),
            Column(name="mode"),
            Column(name="length", unit="tokens", digits=0),
            Column(name="mean of documents", unit="tokens", digits=0),
            Column(name="documents", digits=0),
            Column(name="queries", digits=0),
            *interval_columns("nDCG@10", best="highest"),
            *interval_columns("accuracy@1", best="highest"),
            *interval_columns("EDI", best="lowest"),
        ),
        rows=tuple(
            (
                each.task, each.mode, each.length, each.num_tokens, each.num_documents,
                each.num_queries, *each.ndcg, *each.accuracy,
                *(each.dilution or (None, None, None)),
            )
            for each in scores
        ),
        notes=tuple(notes),
    )  # fmt: skip


def _plot(
    title: str,
    measure: Literal["accuracy", "ndcg", "dilution"],
    lines: Lines,
    notes: Sequence[str],
) -> Plot:
    """A line over the length for each task and mode that has the measure."""
    series = [
        Series.of_intervals(
            f"{task}, {mode}",
            [float(scores.length) for scores in line],
            [getattr(scores, measure) for scores in line],
        )
        for (task, mode), line in lines.items()
        if getattr(line[0], measure) is not None
    ]
    return Plot(
        title=f"{title} by document length",
        kind="line",
        x_label="document length (tokens)",
        y_label=title,
        log_x=True,
        series=tuple(series),
        notes=tuple(notes),
    )
