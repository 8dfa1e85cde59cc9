"""The Python language reference, searched: `make demo`.

The text lies inside CPython itself (`pydoc_data.topics`): 79 topics, 465,000 characters. They are
indexed twice, each in seconds: as one document a topic, and as a single document of over 100,000
tokens. Both answer the same queries.
"""

import pydoc_data.topics
import shlex
import shutil
import subprocess
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
    by_topic = [
        Document(id=name, title=text.partition("\n")[0], text=text) for name, text in topics.items()
    ]
    reference = Document(
        id="reference", title="The Python Language Reference", text="\n\n".join(topics.values())
    )
    search(build("topics", by_topic), "-k", "2", "--passages", "1")
    search(build("reference", [reference]), "--passages", "2")
    say("\nAsk more, at a prompt:\n  dewey search demo.index/topics")


def build(name: str, documents: list[Document]) -> Path:
    """The folder of an index of the documents."""
    started = time.perf_counter()
    index = Index.open(INDEXES / name)
    index.add(documents, progress=True)
    seconds = time.perf_counter() - started
    characters = sum(len(document.text) for document in documents)
    say(f"\n== {name}: {len(index)} document{'s' * (len(index) > 1)}, {characters:,} characters, "
        f"indexed in {seconds:.0f} s ==")  # fmt: skip
    return index.path


def search(index: Path, *options: str) -> None:
    """Ask each query as one would in a shell."""
    for query in QUERIES:
        say(f'\n$ dewey search {index.relative_to(Path.cwd())} "{query}" {shlex.join(options)}')
        command = [sys.executable, "-m", "dewey_embed.cli", "search", str(index), query, *options]
        subprocess.run(command, check=True)


def say(line: str) -> None:
    """Print a line at once, even into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
