"""What a document's title does for its chunks: suites whose answer is a chunk, with and without.

    python benchmarks/titles.py --data data/context

A suite is a folder of documents, ranges of their characters (chunks), queries, and which chunk
answers which query. All chunks of all documents are ranked, as `Index.search` scores its passages,
once with the documents' titles and once without. Results are written to benchmarks/results/ as
JSON, with a table.

docs/data.md says what the data are and how to make them.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from recording import write_rows

from dewey_embed import Dewey, Document, Index
from dewey_embed.config import EncodeOptions
from dewey_embed.index.sync import Encoded, IndexEncoder
from dewey_embed.progress import Advance

PACKAGES = ("dewey-embed", "torch", "lancedb", "faiss-cpu", "numpy")


class ChunkedIndex(Index):
    """An index whose documents are cut where the suite says."""

    ranges: dict[str, list[tuple[int, int]]]

    def _encoder(self) -> IndexEncoder:
        return ChunkEncoder(self._load_model, self.options, self.ranges)


class ChunkEncoder(IndexEncoder):
    """An encoder of documents that are cut at given ranges."""

    def __init__(
        self,
        load_model: Callable[[], Dewey],
        options: EncodeOptions,
        ranges: dict[str, list[tuple[int, int]]],
    ) -> None:
        super().__init__(load_model, options)
        self.ranges = ranges

    def encode(self, documents: Sequence[Document], progress: Advance) -> list[Encoded]:
        """The documents' vectors and their titles'."""
        vectors = self._load_model().encode_document(
            [document.text for document in documents],
            spans=[self.ranges[document.id] for document in documents],
            progress=progress,
        )
        return list(zip(vectors, self.encode_titles(documents), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of suites")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--suites", nargs="+", help="these suites")
    parser.add_argument("--output", default="titles", help="name of the result files")
    arguments = parser.parse_args()
    model = Dewey.load(arguments.model)
    names = arguments.suites or sorted(p.parent.name for p in arguments.data.glob("*/chunks.jsonl"))
    rows = [measured(arguments.data / name, model) for name in names]
    write_rows(arguments.output, rows, to_markdown, packages=PACKAGES, model=model.fingerprint)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def measured(suite: Path, model: Dewey) -> dict:
    """A suite's nDCG@10 with titles and without, as a row."""
    documents, chunks = lines(suite / "documents.jsonl"), lines(suite / "chunks.jsonl")
    places = {(each["doc"], each["start"], each["end"]): each["_id"] for each in chunks}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for document, start, end in places:
        ranges.setdefault(document, []).append((start, end))
    queries = {each["_id"]: each["text"] for each in lines(suite / "queries.jsonl")}
    gains: dict[str, dict[str, float]] = {}
    for line in (suite / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, chunk, gain = line.split("\t")
        gains.setdefault(query, {})[chunk] = float(gain)
    vectors = dict(zip(gains, model.encode_query([queries[q] for q in gains]), strict=True))
    row = {"suite": suite.name, "documents": len(ranges), "chunks": len(chunks)}
    row["queries"] = len(gains)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("without", "with"):
            index = ChunkedIndex.open(Path(scratch) / name, model)
            index.ranges = ranges
            index.add(
                Document(
                    id=each["_id"],
                    title=each["title"] if name == "with" else "",
                    text=each["text"],
                )
                for each in documents
                if each["_id"] in ranges
            )
            row[f"{name}_titles"] = float(
                np.mean(
                    [
                        ndcg(ranked(index, queries[query], vectors[query], places), expected)
                        for query, expected in gains.items()
                    ]
                )
            )
    return row


def ranked(index: Index, query: str, vector: np.ndarray, places: dict) -> list[str]:
    """The chunks of all documents, best first, by the scores of their passages."""
    hits = index.search(query, len(index), mode="multi", passages=10, vector=vector)
    passages = [
        (-passage.score, places[hit.document_id, passage.char_start, passage.char_end])
        for hit in hits
        for passage in hit.passages
    ]
    return [name for _, name in sorted(passages)[:10]]


def ndcg(found: list[str], expected: dict[str, float]) -> float:
    """nDCG@10; a gain counts as it stands."""
    discount = 1 / np.log2(np.arange(2, 12))
    got = [expected.get(name, 0.0) for name in found]
    best = sorted(expected.values(), reverse=True)[:10]
    return float(got @ discount[: len(got)] / (best @ discount[: len(best)]))


def to_markdown(about: dict, rows: list[dict]) -> str:
    table = [
        f"`{about['command']}` on {about['cpu']}, {about['cores']} cores, {about['date']}; nDCG@10 "
        "over the chunks of all documents, by `Index.search`",
        "",
        "| suite | documents | chunks | queries | without titles | with titles |",
        "|---|---|---|---|---|---|",
    ]
    table += [
        f"| {row['suite']} | {row['documents']:,} | {row['chunks']:,} | {row['queries']:,} "
        f"| {row['without_titles']:.4f} | {row['with_titles']:.4f} |"
        for row in rows
    ]
    return "\n".join(table) + "\n"


if __name__ == "__main__":
    main()
