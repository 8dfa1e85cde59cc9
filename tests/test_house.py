"""Rules that all of the source keeps: one writer of files, docstrings, lengths of functions."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dewey_embed import errors

PACKAGE = Path(__file__).parents[1] / "src" / "dewey_embed"
TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}

MAX_LINES = 60
P90_LINES = 27

WRITERS = {
    "files.py": "is the one home of files that appear at once",
    "index/layout.py": "replaces a damaged folder, but not one that another reader has just made",
    "model/folder.py": "replaces the files of a model in a folder that holds others, too",
    "train/trainer.py": "sets damaged checkpoints aside, which are folders",
    "train/ablate.py": "copies a start, which is a folder",
}
"""Modules that may rename, flush or lock files themselves, with the reason."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """All functions of the package, each with where it stands."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}:{node.lineno} {node.name}", node


def docstrings() -> Iterator[tuple[str, str]]:
    """All docstrings of the package, each with where it stands."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | Function):
                line = getattr(node, "lineno", 1)
                yield f"{name}:{line}", ast.get_docstring(node) or ""


def writes_itself(node: ast.AST) -> bool:
    """Whether a node renames, flushes or locks a file, or writes JSON to one."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names]
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        return bool({"fcntl", "filelock"} & set(modules))
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    called = ast.unparse(node.func)
    # `Path.replace` has one argument, `str.replace` has two.
    return called in ("os.replace", "os.rename", "os.fsync", "json.dump") or (
        node.func.attr in ("rename", "replace") and len(node.args) == 1 and not node.keywords
    )


@pytest.mark.parametrize("name", [name for name in TREES if name not in WRITERS])
def test_files_are_renamed_flushed_and_locked_in_one_module(name):
    lines = [node.lineno for node in ast.walk(TREES[name]) if writes_itself(node)]
    assert [f"{name}:{line}: use dewey_embed.files" for line in lines] == []


def test_no_docstring_begins_with_nothing():
    assert [where for where, text in docstrings() if text.startswith("Nothing")] == []


def test_functions_are_short():
    lengths, too_long = [], []
    for where, node in functions():
        docstring = node.body[0] if ast.get_docstring(node) else None
        of_docstring = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
        lengths.append(node.end_lineno - node.lineno + 1)
        if lengths[-1] - of_docstring > MAX_LINES:
            too_long.append(f"{where}: {lengths[-1] - of_docstring} lines")
    assert too_long == []
    assert sorted(lengths)[int(0.9 * len(lengths))] <= P90_LINES


def test_docstrings_name_exceptions_that_exist_one_a_line():
    known = {name for name, value in vars(builtins).items() if isinstance(value, type)}
    for tree in TREES.values():
        known |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    known |= {"Exit", "BadParameter"}  # of typer
    faults = []
    for where, text in docstrings():
        section = text.partition("\nRaises:\n")[2].partition("\n\n")[0]
        entries = [line for line in section.splitlines() if re.match(r" {4}\S", line)]
        for entry in entries:
            named = re.fullmatch(r" {4}(?:\w+\.)*(\w+): \S.*", entry)
            if not named or named[1] not in known or re.search(r"[;.,] \w+Error: ", entry):
                faults.append(f"{where}: {entry.strip()}")
    assert faults == []


def test_public_functions_name_the_errors_that_they_raise():
    faults = []
    for where, node in functions():
        text = ast.get_docstring(node)
        if node.name.startswith("_") or not text or where.startswith("cli/"):
            continue  # the docstring of a command is its help
        for each in ast.walk(node):
            if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call):
                name = ast.unparse(each.exc.func)
                if name in vars(errors) and f"    {name}: " not in text:
                    faults.append(f"{where}: raises {name}")
    assert faults == []
