"""What Python and its installed packages say of themselves: the texts of `make quickstart`.

    python recipes/python_docs.py --output runs/python_docs

Every machine that runs Dewey has these texts. `train.parquet` holds the docstrings of modules of
the installed packages; `task/` is a retrieval task in BEIR's layout over the standard library: a
query is the first line of a module's docstring, its document the docstrings of the module's classes
and functions. So nothing of the task is trained on. The texts are for use on this machine; each
package's licence says what else may be done with them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from software_docs import MIN_CHARACTERS, docstrings, text_of

MAX_DOCUMENTS = 500
"""Enough for some minutes of training; more only takes longer to read."""

LEFT_OUT = {"test", "tests", "testing", "idlelib", "lib2to3", "site-packages", "dist-packages"}
MIN_QUERY_CHARACTERS = 25


def modules(folder: Path) -> list[Path]:
    """The modules below a folder without tests, in an order that does not depend on their names."""
    found = [
        path
        for path in folder.rglob("*.py")
        if not LEFT_OUT & set(path.relative_to(folder).parts) and not path.name.startswith("_")
    ]
    return sorted(found, key=lambda path: hashlib.sha256(path.as_posix().encode()).hexdigest())


def installed_texts(folder: Path, most: int) -> Iterator[dict[str, str]]:
    """Texts of at most `most` installed modules."""
    for path in modules(folder):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        text = text_of(name, path.read_text(encoding="utf-8", errors="replace"))
        if most <= 0:
            return
        if len(text) >= MIN_CHARACTERS:
            most -= 1
            yield {"id": str(name), "text": text}


def library_task(folder: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A document and its query for each module of the standard library that has both."""
    for path in sorted(modules(folder)):
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        own, *below = docstrings(path.read_text(encoding="utf-8", errors="replace")) or [""]
        query, text = own.partition("\n")[0], "\n\n".join(filter(None, below))
        if len(query) >= MIN_QUERY_CHARACTERS and len(text) >= MIN_CHARACTERS:
            document = {"_id": name, "title": name, "text": text}
            yield document, {"_id": f"about-{name}", "text": query}


def write_task(folder: Path, library: Path) -> int:
    """Write the three files of a task in BEIR's layout; the number of its queries."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(library_task(library))
    documents, queries = zip(*pairs, strict=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judgements = "".join(f"{query['_id']}\t{document['_id']}\t1\n" for document, query in pairs)
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements, encoding="utf-8")
    return len(pairs)


def main() -> None:
    """Write the corpus and the task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/python_docs"))
    parser.add_argument("--max-documents", type=int, default=MAX_DOCUMENTS)
    parser.add_argument("--packages", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--library", type=Path, default=Path(sysconfig.get_path("stdlib")))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = list(installed_texts(options.packages, options.max_documents))
    columns = pa.schema([("id", pa.string()), ("text", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, columns), options.output / "train.parquet")
    queries = write_task(options.output / "task", options.library)
    words = sum(len(row["text"].split()) for row in rows)
    print(
        f"{options.output}: {len(rows)} documents with {words:,} words to train on, "
        f"{queries} queries and documents to measure on"
    )


if __name__ == "__main__":
    main()
