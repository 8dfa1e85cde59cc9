"""The public names, pinned: adding or dropping one is a decision, not an accident."""

import subprocess
import sys

import dewey_embed


def test_the_public_names_are_these():
    assert sorted(dewey_embed.__all__) == [
        "Dewey",
        "DeweyError",
        "Document",
        "DocumentVectors",
        "Hit",
        "Index",
        "Passage",
        "ReadLimits",
        "Span",
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
