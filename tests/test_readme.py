"""The README's Python runs as it stands, top to bottom, in one namespace."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dewey_embed.cli.app import app


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_snippets_run_and_print_what_they_say(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    snippets = blocks(repository, "python")
    assert len(snippets) >= 3
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    for said in ("(384,)", "(1, 384)", "(1, 2)"):
        assert said in snippets[0]
        assert said in printed
    [span] = re.findall(r"# (Span\(.*\))", snippets[0])
    assert span in printed
    assert namespace["doc"].overflow is None


def test_every_dewey_command_in_the_readme_is_one(repository):
    lines = [line for block in blocks(repository, "sh") for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("dewey ")]
    assert {command[0] for command in commands} >= {"index", "search"}
    for command in commands:
        options = [word for word in command if word.startswith("-")]
        words = command[:2] if command[0] == "audit" else command[:1]
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
        for option in options:
            assert option in shown, f"{command[0]} has no {option}"


def test_every_make_target_in_the_readme_is_one(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z][a-z-]*)", readme)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/architecture.md",
        "docs/evaluation.md",
        "docs/index-format.md",
        "docs/training.md",
    ],
)
def test_every_file_that_the_docs_name_is_there(repository, name):
    path = repository / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
