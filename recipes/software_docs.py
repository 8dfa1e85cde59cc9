"""The documentation of open-source packages on language and learning, as a Parquet corpus.

    python recipes/software_docs.py --output runs/software_docs.parquet

The training files have hardly a text on computing with language (`question answering` is in 5 of
41,760), and queries on it were what the embedded default knew least (docs/log.md). PyPI is the one
place with such prose under permissive licences that every machine here reaches: one document is a
module's docstrings, or a README. Packages that hold evaluation data are left out.
"""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from email import message_from_string
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGES = {
    "allennlp": ("2.10.1", "Apache-2.0"),
    "allennlp-models": ("2.10.1", "Apache-2.0"),
    "bertopic": ("0.17.4", "MIT"),
    "deeppavlov": ("1.7.0", "Apache-2.0"),
    "flair": ("0.15.1", "MIT"),
    "haystack-ai": ("3.4.1", "Apache-2.0"),
    "jiant": ("2.2.0", "MIT"),
    "nltk": ("3.10.4", "Apache-2.0"),
    "parlai": ("1.7.2", "MIT"),
    "sacrebleu": ("2.6.0", "Apache-2.0"),
    "scikit-learn": ("1.9.1", "BSD-3-Clause"),
    "snorkel": ("0.10.0", "Apache-2.0"),
    "spacy": ("3.8.18", "MIT"),
    "stanza": ("1.15.0", "Apache-2.0"),
    "sumy": ("0.13.0", "Apache-2.0"),
    "textacy": ("0.13.0", "Apache-2.0"),
    "textblob": ("0.20.1", "MIT"),
    "torchtext": ("0.18.0", "BSD-3-Clause"),
}
"""Version and licence of each package, the licence as its metadata have it."""

MIN_CHARACTERS = 600
"""A shorter text is of a module that is hardly documented."""

EXAMPLE = re.compile(r"^\s*(>>>|\.\.\. ).*\n?", re.MULTILINE)
"""A line of an example at the prompt: code, not prose."""


def download(folder: Path) -> None:
    """Every package's wheel, from the registry that pip is set to."""
    wanted = [f"{name}=={version}" for name, (version, _) in PACKAGES.items()]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
         "--dest", str(folder), *wanted],
        check=True,
    )  # fmt: skip


def documents(wheel: Path) -> Iterator[dict[str, str]]:
    """The documents of a wheel, in the order of their paths."""
    package = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            text = _prose(PurePosixPath(name), archive)
            if len(text) >= MIN_CHARACTERS:
                yield {"id": name, "text": text, "source": package}


def _prose(path: PurePosixPath, archive: zipfile.ZipFile) -> str:
    """The prose of a file of a wheel; empty for files without prose and for tests."""
    read = READERS.get(path.name) or READERS.get(path.suffix)
    if read is None or "tests" in path.parts:
        return ""
    return read(path, archive.read(str(path)).decode(errors="replace")).strip()


def text_of(path: PurePosixPath, source: str) -> str:
    """A module's name and its docstrings without their examples; empty where it has none."""
    prose = [text for text in docstrings(source) if text]
    return "\n\n".join([" ".join(path.with_suffix("").parts), *prose]) if prose else ""


def docstrings(source: str) -> list[str]:
    """The docstrings without their examples: the module's own, perhaps empty, and all below it.

    An empty list where this Python cannot parse the module.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # escapes of old code are not ours
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # code of another Python, or null bytes
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [EXAMPLE.sub("", ast.get_docstring(node) or "").strip() for node in nodes]


READERS: dict[str, Callable[[PurePosixPath, str], str]] = {
    ".py": text_of,
    ".md": lambda _, text: text,
    ".rst": lambda _, text: text,
    "METADATA": lambda _, text: str(message_from_string(text).get_payload()),
}
"""Readers of prose by a file's name or extension."""


def main() -> None:
    """Write the Parquet file; wheels given by `--wheels` are not downloaded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/software_docs.parquet"))
    parser.add_argument("--wheels", type=Path, help="folder with the wheels, if they are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheels = options.wheels or Path(folder)
        if options.wheels is None:
            download(wheels)
        rows = [row for wheel in sorted(wheels.glob("*.whl")) for row in documents(wheel)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    columns = pa.schema([(name, pa.string()) for name in ("id", "text", "source")])
    pq.write_table(pa.Table.from_pylist(rows, columns), options.output)
    words = sum(len(row["text"].split()) for row in rows)
    print(f"{options.output}: {len(rows)} documents, {words:,} words")


if __name__ == "__main__":
    main()
