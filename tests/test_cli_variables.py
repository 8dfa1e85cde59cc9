"""Environment variables in place of options, and `~` in paths."""

import json

import pytest
import typer
from typer.testing import CliRunner

from dewey_embed.cli.app import app
from dewey_embed.cli.options import options_of
from dewey_embed.errors import ConfigError


def walked(group, words=()):
    """Every command below a group, with its words."""
    for name, below in group.commands.items():
        if hasattr(below, "commands"):
            yield from walked(below, (*words, name))
        else:
            yield (*words, name), below


COMMANDS = dict(walked(typer.main.get_command(app)))


def test_no_two_options_of_different_meaning_share_a_variable():
    users = {}
    for words, each in COMMANDS.items():
        for option in options_of(each):
            assert isinstance(option.envvar, str)
            users.setdefault(option.envvar, []).append((words, option))
    for name, uses in users.items():
        meanings = {(option.name, option.help) for _, option in uses}
        assert len(meanings) == 1, f"{name}: {[' '.join(words) for words, _ in uses]}"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_variables_stand_on_one_page_and_not_in_the_help(words, repository):
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
    assert "env var" not in shown
    assert "DEWEY_" not in shown
    page = (repository / "docs/environment.md").read_text(encoding="utf-8")
    for option in options_of(COMMANDS[words]):
        assert f"| `{option.envvar}` |" in page


@pytest.mark.parametrize("name", ["VERSION", "HELP", "INFO_HELP", "INSTALL_COMPLETION"])
@pytest.mark.parametrize("value", ["0.1.0", "1", ""])
def test_options_that_end_the_run_have_no_variable(name, value):
    result = CliRunner().invoke(app, ["info", "--json"], env={f"DEWEY_{name}": value})
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "mini"


def test_an_empty_variable_is_as_good_as_none(tmp_path):
    empty = {option.envvar: "" for option in options_of(COMMANDS["index",])}
    (tmp_path / "a.txt").write_text("a zebra eats grass")
    made = CliRunner().invoke(
        app, ["index", str(tmp_path / "a.txt"), "--index", str(tmp_path / "i")], env=empty
    )
    assert made.exit_code == 0, made.output
    empty = {option.envvar: "" for option in options_of(COMMANDS["search",])}
    assert CliRunner().invoke(app, ["search", str(tmp_path / "i"), "x"], env=empty).exit_code == 0


def test_an_output_named_for_one_command_is_not_another_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a zebra eats grass")
    for name in ("OUTPUT", "TEACH_OUTPUT", "REPORT_OUTPUT"):
        monkeypatch.setenv(f"DEWEY_{name}", str(tmp_path / "other.npz"))
    monkeypatch.setenv("DEWEY_ENCODE_OUTPUT", str(tmp_path / "own.npz"))
    assert CliRunner().invoke(app, ["encode", "a.txt"]).exit_code == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.txt", "own.npz"]


@pytest.mark.parametrize("by", ["option", "variable", "argument"])
def test_a_tilde_that_the_shell_leaves_is_the_home_folder(by, tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(home))
    (home / "a.txt").write_text("a zebra eats grass")
    monkeypatch.setenv("DEWEY_ENCODE_OUTPUT", "~/v.npz" if by == "variable" else "")
    words = ["encode", "~/a.txt" if by == "argument" else str(home / "a.txt")]
    words += [] if by == "variable" else ["--output=~/v.npz"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in home.iterdir()) == ["a.txt", "v.npz"]
    assert list(elsewhere.iterdir()) == []


def test_a_home_folder_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["info", "~nobody-of-that-name/model"])
    assert isinstance(result.exception, ConfigError)
    assert "there is no such home folder" in str(result.exception)
