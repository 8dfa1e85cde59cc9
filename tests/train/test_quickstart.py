"""recipes/quickstart.toml, end to end: texts of installed packages, a model, its evaluation."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dewey_embed import Dewey
from dewey_embed.eval.beir import read_beir

RECIPES = Path(__file__).parents[2] / "recipes"
PROSE = "A cache keeps the results of calls so that equal calls need not be computed again. " * 12

PACKAGE = f'''"""Functions that remember. {PROSE}"""

def cached(call):
    """A call that is remembered. {PROSE}"""
'''
LIBRARY = f'''"""Binary search over sorted sequences of values."""

def find(values, value):
    """The place of a value. {PROSE}"""
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the texts of a few small packages, where `make quickstart` would run."""
    root = tmp_path_factory.mktemp("quickstart")
    for number in range(24):
        (root / f"packages/p{number}").mkdir(parents=True)
        code = PACKAGE.replace("A cache", f"Cache {number}")
        (root / f"packages/p{number}/caches.py").write_text(code, encoding="utf-8")
    (root / "packages/p0/tests").mkdir()
    (root / "packages/p0/tests/test_caches.py").write_text(PACKAGE, encoding="utf-8")
    (root / "library").mkdir()
    (root / "library/search.py").write_text(LIBRARY, encoding="utf-8")
    (root / "library/undocumented.py").write_text("answer = 42\n", encoding="utf-8")
    run(root, RECIPES / "python_docs.py", "--packages", "packages", "--library", "library")
    return root


def run(root, *words):
    """Run a Python command in a folder."""
    command = [sys.executable, "-W", "ignore", *map(str, words)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_without_tests_are_texts(folder):
    rows = pq.read_table(folder / "runs/python_docs/train.parquet").to_pylist()
    assert len(rows) == 24
    assert all(row["text"].startswith(row["id"].split("/")[0]) for row in rows)


def test_a_first_line_is_the_query_for_the_rest_of_its_module(folder):
    task = read_beir(folder / "runs/python_docs/task")
    [query] = task.queries.values()
    assert query == "Binary search over sorted sequences of values."
    assert task.qrels == {"about-search": {"search": 1}}


def test_the_run_can_be_planned(folder):
    shown = run(
        folder, "-m", "dewey_embed.cli", "plan", RECIPES / "quickstart.toml", "--hardware", "cpu"
    )
    assert "hours" in shown


@pytest.mark.slow
def test_a_student_is_trained(folder):
    run(
        folder, "-m", "dewey_embed.cli", "train", RECIPES / "quickstart.toml",
        "--output", "runs/quickstart", "--set", "training.max_steps=2",
        "--set", "training.batch_samples=4", "--set", "split.crops_per_text=1",
        "--set", "training.warmup_steps=1",
        "--set", "corpus.held_out=0.3", "--set", "diagnostics.passkey_tokens=[]",
    )  # fmt: skip
    result = json.loads((folder / "runs/quickstart/result.json").read_text(encoding="utf-8"))
    assert result["steps"] == 2
    assert Dewey.load(folder / "runs/quickstart/model").embedding_dim == 384


@pytest.mark.slow
def test_the_student_is_measured_on_the_task(folder):
    shown = run(
        folder, "-m", "dewey_embed.cli", "eval", "runs/quickstart/model", "bm25",
        "--mode", "multi", "--suite", "runs/python_docs/task", "--cache", "cache",
    )  # fmt: skip
    assert "bm25" in shown
