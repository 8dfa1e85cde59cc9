"""The Python language reference, searched: `make demo`.

The text lies inside CPython itself (`pydoc_data.topics`): 79 topics, 465,000 characters. They are
indexed twice: as one document a topic, in a minute or two, and as a single document of over
100,000 tokens, which the model reads in one pass of some minutes. Both answer the same queries.
"""

import pydoc_data.topics
import shutil
import sys
import time
from pathlib import Path

from dewey_embed import Document, Index

QUERIES = (
    "how can a class customise attribute access?",
    "which exception is raised when a name is not found?",
    "how are strings formatted with a width and precision?",
)
INDEXES = Path("demo.index")


def main() -> None:
    """Index the reference both ways and search each index."""
    shutil.rmtree(INDEXES, ignore_errors=True)
    topics = {name: text.strip() for name, text in sorted(pydoc_data.topics.topics.items())}
    by_topic = [Document(id=name, title=name, text=text) for name, text in topics.items()]
    reference = Document(
        id="reference", title="The Python Language Reference", text="\n\n".join(topics.values())
    )
    search(build("topics", by_topic), documents=3, passages=1)
    search(build("reference", [reference]), documents=1, passages=3)
    say(f"\nThe indexes are in {INDEXES}/. Search them:\n"
        f'  dewey search {INDEXES}/topics "how are decorators applied?"')  # fmt: skip


def build(name: str, documents: list[Document]) -> Index:
    """An index of the documents."""
    started = time.perf_counter()
    index = Index.open(INDEXES / name)
    index.add(documents, progress=True)
    seconds = time.perf_counter() - started
    characters = sum(len(document.text) for document in documents)
    say(f"\n== {name}: {len(index)} documents, {characters:,} characters, "
        f"{index.num_chunks} chunks, indexed in {seconds:.0f} s ==")  # fmt: skip
    return index


def search(index: Index, *, documents: int, passages: int) -> None:
    """Print each query's best documents, and their passages with the characters they span."""
    for query in QUERIES:
        say(f"\n? {query}")
        for hit in index.search(query, documents, passages=passages):
            say(f"  {hit.score:.3f}  {hit.title}")
            for passage in hit.passages:
                line = " ".join(passage.text.split())
                say(f"         [{passage.char_start}:{passage.char_end}] {line[:90]}…")


def say(line: str) -> None:
    """Print a line at once, even into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
