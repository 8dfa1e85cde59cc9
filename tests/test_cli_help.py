"""The help of every command: defaults, examples that can be typed, and one way to give sizes."""

import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from dewey_embed import types
from dewey_embed.cli import search as search_module
from dewey_embed.cli.app import app
from dewey_embed.cli.options import options_of, sizes
from dewey_embed.train.ablate import read_grid
from dewey_embed.train.recipe_file import read_recipe
from tests.commands import dewey, ended
from tests.test_cli_variables import COMMANDS


def shown(*words):
    """The help of a command, on one line."""
    output = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
    return " ".join(output.replace("│", " ").split())


def examples(words):
    """The examples of a command, as words."""
    lines = (COMMANDS[words].epilog or "").split("\n\n")
    assert lines[0] == "Examples:"
    return [shlex.split(line.partition(" <")[0]) for line in lines[1:]]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_two_examples_whose_words_are_understood(words):
    both = examples(words)
    assert len(both) == 2
    for example in both:
        program = "dewey" if example[0] == "dewey" else "dewey_embed.cli"  # of `accelerate launch`
        _, *own = example[example.index(program) :]
        assert own[: len(words)] == list(words)
        COMMANDS[words].make_context("dewey", own[len(words) :])  # raises at a mistake


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_recipe_in_an_example_is_there(words, repository):
    for example in examples(words):
        for word in example:
            if word.startswith("recipes/"):
                assert (repository / word).is_file(), word


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_recipes_of_examples_are_read_with_their_settings(words, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for example in examples(words):
        settings = [value for word, value in pairwise(example) if word == "--set"]
        for word in example:
            if word.startswith("recipes/"):
                read = read_grid if words == ("ablate",) else read_recipe
                read(Path(word), settings)  # raises at a mistake


def test_the_help_of_search_names_the_modes_with_the_default_first():
    words = shown("search")
    assert "hybrid: passages by their meaning and their words (BM25)" in words
    assert "[default: hybrid]" in words
    assert set(get_args(search_module.Mode)) == set(get_args(types.SearchMode))


def test_the_help_of_splitters_says_where_each_cuts():
    words = shown("index")
    assert "recursive (at paragraphs, else lines, else words)" in words
    assert "in an index sentences" in words


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_options_have_a_help(words):
    assert all(option.help for option in options_of(COMMANDS[words]))


@pytest.mark.parametrize(
    "given", [["--chunk-tokens", "16,64"], ["--chunk-tokens", "16", "--chunk-tokens", "64"]]
)
def test_several_sizes_have_commas_between_or_the_option_again(given, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("one two three four five six seven eight nine ten " * 4)
    words = ["index", tmp_path / "a.txt", "--index", tmp_path / "i", *given]
    assert ended(*words, "--chunk-overlap", "0") == 0
    capsys.readouterr()
    assert ended("info", tmp_path / "i", "--json") == 0
    printed = capsys.readouterr().out
    assert '"chunk_tokens": [16, 64]' in printed
    assert '"chunk_overlap": [0, 0]' in printed


@pytest.mark.parametrize("text", ["x", "16,", "1.5", "0", "-1", "16,0"])
def test_sizes_that_are_none_are_wrong_usage(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ended("index", ".", "--index", "i", f"--chunk-tokens={text}") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"--chunk-tokens is '{text}'" in said
    with pytest.raises(typer.BadParameter):
        sizes("--chunk-tokens", [text], least=1)


def test_help_of_all_commands_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from dewey_embed.cli import app\n"
        "heavy = {'torch', 'lancedb', 'faiss', 'pyarrow', 'numpy', 'pydantic', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_an_argument_too_many_is_wrong_usage_in_one_line():
    result = dewey("info", "my.index", "other.index")
    assert result.returncode == 2
    assert result.stderr == (
        "dewey: error: unexpected argument: other.index (quote an argument that has blanks); "
        "see dewey info --help\n"
    )
