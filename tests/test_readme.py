"""The README's Python runs as it stands, in one namespace, and its answer is a real one."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dewey_embed import Document, Index
from dewey_embed.cli.app import app


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_snippets_run_and_print_what_they_say(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    snippets = [each for each in blocks(repository, "python") if "base_url" not in each]
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


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="topics differ from Python to Python")
def test_the_answer_in_the_readme_is_what_the_command_prints(repository, tmp_path, monkeypatch):
    topics = importlib.import_module("pydoc_data.topics").topics
    monkeypatch.chdir(tmp_path)
    index = Index.open("demo.index/topics")
    index.add(
        Document(id=name, title=text.strip().partition("\n")[0], text=text.strip())
        for name, text in sorted(topics.items())
    )
    [session] = [block for block in blocks(repository, "console") if "dewey search" in block]
    command, _, answer = session.partition("\n")
    shown = CliRunner().invoke(app, shlex.split(command.removeprefix("$ "))[1:]).output
    shown = " ".join(shown.split())
    for line in re.split(r"\n(?=\d\. )|…\n?", answer):
        assert " ".join(line.split()) in shown
