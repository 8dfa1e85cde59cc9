"""recipes/software_docs.py: the prose of wheels becomes a corpus, and nothing else of them does."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[2] / "recipes/software_docs.py"
SAYING = "A parser finds the structure of a sentence. " * 20

MODULE = f'''"""{SAYING}"""

def parse(text):
    """The tree.

    >>> parse("birds call")
    (S birds call)
    """
    return "no prose"
'''

FILES = {
    "parsers/tree.py": MODULE,
    "parsers/short.py": '"""Too short."""',
    "parsers/silent.py": "answer = 42\n" * 200,
    "parsers/other_python.py": 'print "hello"\n' + MODULE,
    "parsers/tests/test_tree.py": MODULE,
    "parsers/README.md": f"# Parsers\n\n{SAYING}",
    "parsers/data.txt": SAYING,
    "parsers-1.0.dist-info/METADATA": f"Name: parsers\nVersion: 1.0\n\n{SAYING}",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    with zipfile.ZipFile(folder / "parsers-1.0-py3-none-any.whl", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    output = folder / "made" / "docs.parquet"
    command = [sys.executable, str(SCRIPT), "--wheels", str(folder), "--output", str(output)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = pq.read_table(output).to_pylist()
    assert f"{len(found)} documents" in said
    return {row["id"]: row for row in found}


def test_docstrings_and_readmes_are_documents(rows):
    assert list(rows) == ["parsers-1.0.dist-info/METADATA", "parsers/README.md", "parsers/tree.py"]
    assert {row["source"] for row in rows.values()} == {"parsers"}


def test_a_module_is_its_name_and_its_docstrings_without_code_or_examples(rows):
    text = rows["parsers/tree.py"]["text"]
    assert text.startswith(f"parsers tree\n\n{SAYING.strip()}\n\nThe tree.")
    assert ">>>" not in text
    assert "no prose" not in text


def test_of_the_metadata_only_the_description(rows):
    assert rows["parsers-1.0.dist-info/METADATA"]["text"] == SAYING.strip()
