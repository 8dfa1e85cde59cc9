"""The public names, pinned: adding or dropping one is a decision, not an accident."""

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import dewey_embed

SOURCE = Path(__file__).parents[1] / "src"
WITH_EXAMPLES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_the_public_names_are_these():
    assert sorted(dewey_embed.__all__) == [
        "Dewey",
        "DeweyError",
        "Document",
        "DocumentVectors",
        "Filter",
        "Hit",
        "Index",
        "IndexReport",
        "Landmark",
        "Location",
        "Passage",
        "ReadLimits",
        "SearchMode",
        "Span",
        "Unreadable",
        "__version__",
        "read_documents",
    ]
    for name in dewey_embed.__all__:
        assert getattr(dewey_embed, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(dewey_embed, "Encoder")


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, dewey_embed; "
        "heavy = {'torch', 'lancedb', 'faiss', 'transformers', 'pyarrow', 'numpy'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imported = importlib.import_module(module)
    results = doctest.testmod(imported, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    assert results.attempted
    assert not results.failed


def test_every_public_class_and_function_has_an_example():
    public = {name: getattr(dewey_embed, name) for name in dewey_embed.__all__}
    documented = {
        name: value.__doc__
        for name, value in public.items()
        if inspect.isclass(value) or inspect.isfunction(value)
    }
    assert len(documented) > 8
    assert {name for name, text in documented.items() if ">>> " not in text} == set()
