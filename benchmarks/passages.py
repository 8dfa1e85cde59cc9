"""What five passages hold of the evidence: Dewey's, and the chunks of other splitters.

    python benchmarks/passages.py data/eval/chroma_chunks

The measures are those of Chroma's "Evaluating Chunking Strategies for Retrieval" (Smith and
Troynikov, 2024), over characters, for five passages a query: recall is the share of the evidence
that they hold, precision the share of them that is evidence, and IoU what both share over what
either holds. Text that is shown twice counts once as evidence and twice as shown.

The evidence of a query are its annotated excerpts. `chroma_excerpts.tsv` beside this file has their
places, from github.com/brandonstarxel/chunking_evaluation (MIT). Where their text stands elsewhere
in the documents, too, as much of the financial reports does, any copy is as good.

`dewey eval` has coarser evidence for the same queries: the chunks of about 1,000 characters that
`qrels.tsv` names, in which these excerpts stand. A second table is measured on them.

Dewey ranks its passages as `Index.passages` does; chunks are ranked by the cosines of their
vectors, or by their words. Results are written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recording import RESULTS, write_page
from splitters import (
    SMALLEST,
    SPLITTERS,
    EachAlone,
    Embedder,
    OnePass,
    Range,
    Splitter,
    Tokenized,
    bm25_scores,
)

from dewey_embed import Dewey, Document, Index
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.index.settings import INDEX_OPTIONS
from dewey_embed.text.sentences import sentence_starts
from dewey_embed.types import Floats, SearchMode

NUM_SHOWN = 5
DEFAULT_SIZE = INDEX_OPTIONS.chunk_tokens[0]
SIZES = (64, 96, 128, 160, 200, 256, 400)
SENTENCES = (1, 2, 3, 4, 6, 8, 10)
"""Numbers of sentences on each side of a passage, as `--context` shows them."""

BESIDE = (2, 8)
"""Those in the tables with other splitters, where they stand around the smallest chunks, too."""

SLACK = 0.01
"""Windows that hold as much as a splitter's chunks may lack so much of the evidence."""

MODES: dict[SearchMode, str] = {"hybrid": "meaning and words", "multi": "meaning alone"}

EXCERPTS = Path(__file__).parent / "chroma_excerpts.tsv"


class Place(NamedTuple):
    """Characters of a document, by its number."""

    document: int
    start: int
    end: int

    def shared(self, other: Place) -> int:
        """The number of characters that two places share."""
        if self.document != other.document:
            return 0
        return max(0, min(self.end, other.end) - max(self.start, other.start))


OURS = "Dewey"

WHOSE = ("its", "Dewey's")

NOTES = (
    "First passage, one of three, one of five: the share of queries of which one of the first "
    "passages and one piece of evidence cover half of the shorter of the two.",
    "Sizes in tokens; of 400/200, 400 with 200 of the chunk before. 64/0 is not among Chroma's "
    "settings: it is as small as Dewey's passages, and has the same windows. mini: vectors of "
    "chunks are pooled from one pass over their document; all-MiniLM-L6-v2, its teacher, reads "
    "each alone.",
    "With sentences around them, passages that meet are one, and come where the best of them does.",
    "chroma_chunks is a development task: the size of Dewey's passages and the weights of meaning "
    "and words were chosen on it, among others.",
)
OF_EXCERPTS = (
    "Evidence: the sentences that the authors of the queries marked; any copy of one is as good."
)
OF_CHUNKS = (
    "Evidence: the chunks of up to 1,000 characters, and their near copies, in which marked "
    "sentences stand: more than anybody marked, so that precision is higher and recall lower."
)

Copies = list[Place]
"""The places of one text."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Documents and queries, and for each query its evidence: texts, by all their places."""

    names: list[str]
    texts: list[str]
    queries: list[str]
    excerpts: list[list[Copies]]
    chunks: list[list[Copies]]

    @classmethod
    def read(cls, folder: Path) -> Task:
        """The task in a folder, with the excerpts beside this file."""
        documents = {each["_id"]: each["text"] for each in lines(folder / "documents.jsonl")}
        names, texts = list(documents), list(documents.values())
        chunk_places = {
            each["_id"]: Place(names.index(each["doc"]), each["start"], each["end"])
            for each in lines(folder / "spans.jsonl")
        }
        queries = {each["_id"]: each["text"] for each in lines(folder / "queries.jsonl")}
        chunks: dict[str, list[Place]] = {query: [] for query in queries}
        for query, chunk, _ in rows(folder / "qrels.tsv"):
            chunks[query].append(chunk_places[chunk])
        excerpts: dict[str, list[Place]] = {query: [] for query in queries}
        for query, name, start, end in rows(EXCERPTS):
            excerpts[query].append(Place(names.index(name), int(start), int(end)))
        return cls(
            names=names,
            texts=texts,
            queries=list(queries.values()),
            excerpts=[[copies(each, texts) for each in merged(own)] for own in excerpts.values()],
            chunks=[[[each] for each in merged(own)] for own in chunks.values()],
        )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def rows(path: Path) -> list[list[str]]:
    """The rows of a table under its header."""
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]


def merged(places: Sequence[Place]) -> list[Place]:
    """The same characters in places that do not overlap."""
    union: list[Place] = []
    for place in sorted(places):
        last = union[-1] if union else None
        if last and last.document == place.document and place.start <= last.end:
            union[-1] = last._replace(end=max(last.end, place.end))
        else:
            union.append(place)
    return union


def copies(place: Place, texts: Sequence[str]) -> Copies:
    """The places, in all documents, of a place's text."""
    wanted = texts[place.document][place.start : place.end]
    found = []
    for number, text in enumerate(texts):
        start = text.find(wanted)
        while start >= 0:
            found.append(Place(number, start, start + len(wanted)))
            start = text.find(wanted, start + len(wanted))
    return found


def covered(evidence: Copies, shown: Sequence[Place]) -> int:
    """Characters of a text that are shown in any of its places."""
    size = evidence[0].end - evidence[0].start
    seen = np.zeros(size, np.bool_)
    for copy in evidence:
        for place in shown:
            if place.shared(copy):
                seen[max(0, place.start - copy.start) : max(0, place.end - copy.start)] = True
    return int(seen.sum())


def answers(place: Place, evidence: Sequence[Copies]) -> bool:
    """Whether a place and one of the evidence share half of the shorter."""
    return any(
        2 * place.shared(copy) >= min(place.end - place.start, copy.end - copy.start) > 0
        for each in evidence
        for copy in each
    )


def measured(shown: Sequence[Sequence[Place]], task_evidence: Sequence[list[Copies]]) -> Floats:
    """Characters, recall, precision, IoU, and answered in one, three and five: means."""
    figures = []
    for places, evidence in zip(shown, task_evidence, strict=True):
        given = sum(end - start for _, start, end in places)
        wanted = sum(each[0].end - each[0].start for each in evidence)
        found = sum(covered(each, places) for each in evidence)
        right = [answers(place, evidence) for place in places]
        figures.append(
            (
                given,
                found / wanted,
                found / max(given, 1),
                found / (wanted + given - found),
                *(any(right[:num]) for num in (1, 3, NUM_SHOWN)),
            )
        )
    means: Floats = np.mean(figures, axis=0)
    return means


class Row(NamedTuple):
    """What one way to cut and rank shows for each query."""

    passages: str
    ranking: str
    shown: list[list[Place]]


def index_rows(task: Task, model: Dewey, cache: Path) -> Iterator[Row]:
    """The first passages of indexes, and those of the default size with sentences around them."""
    vectors = model.encode_query(task.queries)
    for size in SIZES:
        index = Index.open(cache / f"index-{size}", model, chunk_tokens=size)
        pairs = zip(task.names, task.texts, strict=True)
        index.add(Document(id=name, text=text) for name, text in pairs)
        for mode, ranking in MODES.items():
            shown = [
                [
                    Place(task.names.index(each.document_id), each.char_start, each.char_end)
                    for hit in index.passages(query, NUM_SHOWN, mode=mode, vector=vector)
                    for each in hit.passages
                ]
                for query, vector in zip(task.queries, vectors, strict=True)
            ]
            yield Row(named(size), ranking, shown)
            if size != DEFAULT_SIZE:
                continue
            texts = [Sentences(text) for text in task.texts]
            for num in SENTENCES:
                wide = [around(places, texts, num) for places in shown]
                yield Row(named(size, num), ranking, wide)


def named(size: int, sentences: int = 0) -> str:
    """What a row of an index is called."""
    return f"{OURS} {size}{more(sentences)}"


def more(sentences: int) -> str:
    """What a row's name says of the sentences around its passages."""
    plural = "s" * (sentences > 1)
    return f", {sentences} more sentence{plural} on each side" if sentences else ""


class Sentences:
    """The sentences of a text: what `widened` finds, without finding them again each time."""

    def __init__(self, text: str) -> None:
        self._text, self._starts = text, [*sentence_starts(text), len(text)]

    def around(self, start: int, end: int, num: int) -> Range:
        """A range with `num` sentences more before it, and as many after it."""
        starts = self._starts
        before = starts[max(0, bisect_right(starts, start) - 1 - num)]
        after = starts[min(len(starts) - 1, bisect_left(starts, end) + num)]
        return min(start, before), max(end, before + len(self._text[before:after].rstrip()))


def around(places: Sequence[Place], texts: Sequence[Sentences], num: int) -> list[Place]:
    """Places as `Index.around` widens them, in the same order; those that meet are one."""
    wide = [
        Place(document, *texts[document].around(start, end, num)) for document, start, end in places
    ]
    union = merged(wide)
    return list(dict.fromkeys(next(one for one in union if one.shared(each)) for each in wide))


def splitter_rows(task: Task, model: Dewey, cache: Path) -> Iterator[Row]:
    """The first chunks of each splitter, by the cosines of two models and by words."""
    texts = [Tokenized(text, model) for text in task.texts]
    sentences = [Sentences(text) for text in task.texts]
    for embedder in (OnePass(model, task.texts), EachAlone(task.texts)):
        queries = embedder.queries(task.queries)
        for name, split in SPLITTERS.items():
            chunks = Chunks(texts, split, embedder, cache / f"{embedder.name}-{slug(name)}")
            scores = {f"meaning, {embedder.name}": queries @ chunks.vectors.T}
            if isinstance(embedder, OnePass):
                own = [task.texts[document][start:end] for document, start, end in chunks.places]
                scores["words (BM25)"] = bm25_scores(own, task.queries)
            for ranking, each in scores.items():
                shown = first(chunks.places, each)
                yield Row(name, ranking, shown)
                for num in BESIDE if name == SMALLEST else ():
                    wide = [around(places, sentences, num) for places in shown]
                    yield Row(f"{name}{more(num)}", ranking, wide)


class Chunks:
    """The chunks that a splitter makes of documents, and their vectors, kept in files."""

    def __init__(
        self, texts: Sequence[Tokenized], split: Splitter, embedder: Embedder, path: Path
    ) -> None:
        self._texts, self._split, self._embedder, self._path = texts, split, embedder, path

    @cached_property
    def places(self) -> list[Place]:
        """The chunks of all documents, in order."""

        def split() -> np.ndarray:
            found = []
            for number, text in enumerate(self._texts):
                embed = partial(self._embedder.ranges, number)
                found += [(number, *each) for each in self._split(text, embed)]
            return np.array(found)

        return [
            Place(*each) for each in kept(self._path.with_suffix(".places.npy"), split).tolist()
        ]

    @cached_property
    def vectors(self) -> Floats:
        """Their unit vectors (C, D)."""

        def embed() -> Floats:
            ranges: dict[int, list[Range]] = {number: [] for number in range(len(self._texts))}
            for document, start, end in self.places:
                ranges[document].append((start, end))
            return np.concatenate([self._embedder.ranges(*each) for each in ranges.items()])

        return kept(self._path.with_suffix(".vectors.npy"), embed)


def slug(name: str) -> str:
    return name.replace("/", "-").replace(" ", "-")


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array, kept in a file from run to run."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    array: np.ndarray = np.load(path)
    return array


def first(places: Sequence[Place], scores: Floats) -> list[list[Place]]:
    """The first places by their scores, for each query."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :NUM_SHOWN]
    return [[places[row] for row in best] for best in order]


def beside(row: Row) -> bool:
    """Whether a row stands in the tables with other splitters: not all sizes and windows do."""
    if not row.passages.startswith(OURS):
        return True
    if row.ranking == MODES["multi"]:
        return row.passages == named(DEFAULT_SIZE)
    return row.passages in (*(named(DEFAULT_SIZE, num) for num in (0, *BESIDE)), named(200))


def table(title: str, found: Sequence[Row], evidence: Sequence[list[Copies]], note: str) -> Table:
    """The measures of all rows."""
    names = ("recall", "precision", "IoU", "first passage", "one of three", "one of five")
    columns = (
        Column(name="passages"),
        Column(name="ranked by"),
        Column(name="characters shown", digits=0),
        *(Column(name=name, best="highest", digits=3) for name in names),
    )
    cells = []
    for row in found:
        given, *figures = measured(row.shown, evidence).tolist()
        cells.append((row.passages, row.ranking, round(given), *figures))
    return Table(title=title, columns=columns, rows=tuple(cells), notes=(note, *NOTES))


def as_much(ours: Table, others: Table) -> Table:
    """Beside each splitter the narrowest window of Dewey's that holds as much of the evidence."""
    windows = [
        (num, row)
        for num in (0, *SENTENCES)
        for row in ours.rows
        if row[:2] == (named(DEFAULT_SIZE, num), MODES["hybrid"])
    ]
    cells: list[tuple[Cell, ...]] = []
    for name, ranking, given, recall, _, iou, *_ in others.rows:
        if str(name).startswith(OURS):
            continue
        found = (each for each in windows if figure(each[1][3]) >= figure(recall) - SLACK)
        num, row = next(found, (None, (None,) * 6))
        cells.append((name, ranking, given, recall, iou, num, row[2], row[3], row[5]))
    names = ("characters", "recall", "IoU")
    theirs, own = ([Column(name=f"{whose} {name}", digits=3) for name in names] for whose in WHOSE)
    return Table(
        title="Windows that hold as much",
        columns=(
            Column(name="passages"),
            Column(name="ranked by"),
            *theirs,
            Column(name="sentences on each side"),
            *own,
        ),
        rows=tuple(cells),
        notes=(
            f"The narrowest window around Dewey's five passages of {DEFAULT_SIZE} tokens, by "
            f"{MODES['hybrid']}, whose recall is no lower than the splitter's less {SLACK}.",
        ),
    )


def figure(cell: Cell) -> float:
    """A cell that holds a number."""
    return float(cell or 0)


def summary(rows: Sequence[tuple[Cell, ...]]) -> str:
    """The default's recall and IoU, and those of the splitter with the best IoU."""
    ours = next(row for row in rows if row[0] == named(DEFAULT_SIZE))
    peers = [row for row in rows if not str(row[0]).startswith(OURS)]
    peer = max(peers, key=lambda row: figure(row[5]))
    return (
        "The first five passages for each query of chroma_chunks, read as five whole documents: "
        f"{ours[0]}, by {ours[1]}, hold {ours[3]:.3f} of the evidence at an IoU of {ours[5]:.3f}; "
        f"of all other splitters {peer[0]} by {peer[1]} has the best IoU, {peer[5]:.3f}, "
        f"with {peer[3]:.3f} of the evidence."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of chroma_chunks")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/dewey-embed/passages"))
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    task, model = Task.read(options.data), Dewey.load(options.model)
    cache = options.cache.expanduser() / model.fingerprint
    ours = list(index_rows(task, model, cache))
    found = [row for row in (*ours, *splitter_rows(task, model, cache)) if beside(row)]
    windows = table("Sizes and windows", ours, task.excerpts, OF_EXCERPTS)
    main_table = table("Against the marked sentences", found, task.excerpts, OF_EXCERPTS)
    page = ResultPage(
        kind="eval",
        name="passages_splitters",
        title="Passages beside the chunks of other splitters",
        summary=summary(main_table.rows),
        machine=Machine.here(),
        tables=(
            main_table,
            as_much(windows, main_table),
            windows,
            table("Against the chunks that hold them", found, task.chunks, OF_CHUNKS),
        ),
    )
    write_page(page, RESULTS / f"{page.name}.json")


if __name__ == "__main__":
    main()
