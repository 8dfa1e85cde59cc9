"""What the commands print: harmless on a terminal, valid JSON, whole or said not to be."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata

import pytest

from dewey_embed.cli import console
from dewey_embed.printable import one_line, printable
from dewey_embed.progress import progress_bar
from tests.commands import ended

HOSTILE = {
    "escape": "\x1b[2J\x1b]52;c;cm0gLXJm\x07",
    "link": "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\",
    "c1": "\x9b31m\x9d0;title\x9c",
    "override": "\u202egnp.exe\u202c \u2066a\u2069",
    "invisible": "a\u200bb\ufeffc\u2060d\U000e0041",
    "lines": "a\u2028b\u2029c\x85d\x0be\x0cf\x1eg",
    "surrogate": "a\udce9b\ud800",
    "controls": "a\x00b\x08c\x7fd\re",
}


def acts(text):
    """Characters of a text that a terminal or a reader of lines would act on."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """An index whose ids, titles, metadata and passages are all hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {
            "id": name + text,
            "title": text + name,
            "text": f"a zebra {text} eats grass",
            "kind": text,
        }
        for name, text in HOSTILE.items()
        if name != "surrogate"
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "odd\x1b[31m.jsonl").write_text(lines)
    assert ended("index", folder / "odd\x1b[31m.jsonl", "--index", folder / "i") == 0
    return folder / "i"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_is_shown_without_what_acts_on_a_terminal(name):
    text = HOSTILE[name]
    shown = one_line(text)
    assert acts(shown) == []
    assert "\u202e" not in shown
    assert "\u200b" not in shown


@pytest.mark.parametrize(
    "text",
    ["plain", "naïve café", "日本語 ไทย", "نمی\u200cخواهم", "👩\u200d🔬", "שלום\u200f!", "a\tb\nc"],
)
def test_what_writing_needs_is_shown_as_it_is(text):
    assert printable(text) == text


def test_search_and_index_print_nothing_that_acts_on_a_terminal(index, capsys):
    source = index.parent / "odd\x1b[31m.jsonl"
    for words in (
        ("search", index, "zebra", "\x1b[2J", "-k", 10),
        ("index", source, "--index", index),
        ("info", index),
        ("encode", source, "--output", index.parent / "v\x1b[1m.jsonl"),
        ("search", index, "zebra", "--json"),
        ("info", index, "--json"),
    ):
        assert ended(*words) == 0
        out, err = capsys.readouterr()
        assert out
        assert acts(out + err) == []


@pytest.mark.parametrize(
    "words",
    [
        ("search", "no\x1b[31mwhere", "x"),
        ("info", "./no\x9b31mwhere"),
        ("encode", "no\u202ewhere", "--output", "v.npz"),
        ("fly\x1b[31m",),
        ("index", "x", "--colour\x1b[31m"),
        ("search", "i", "x", "--mode", "\x1b[31m"),
        ("search", "i", "x", "--filter", "\x1b[31m"),
        ("search", "i", "x", "-k", "1.5\x1b[31m"),
        ("search", "i", "x", "-k", "0"),
        ("index", ".", "--index", "i", "--chunk-tokens", "8", "--chunk-overlap", "8"),
    ],
)
def test_an_error_shows_what_was_got_harmlessly_and_in_one_line(
    words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert ended(*words) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("dewey: error: ")
    assert acts(err) == []
    assert "Value error" not in err
    assert "Input should" not in err


def test_a_bar_shows_its_label_harmlessly(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar("a\x1b[31m[bold]b\x07", 3, "files", show=True) as advance:
        advance(3)
    shown = capsys.readouterr().err
    assert "\x07" not in shown
    assert "a\\u001b[31m[bold]b" in shown


def test_json_has_no_number_that_json_does_not_have(capsys):
    console.print_json({"a": float("nan"), "b": [float("inf"), (1.5, -float("inf"))]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, [1.5, None]]}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_of_standard_output_takes_any_text(index, encoding, monkeypatch):
    for words in (["search", index, "zebra 日本 é"], ["search", index, "zebra 日本 é", "--json"]):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        console.prepare_streams()
        assert ended(*words) == 0
        text = written.getvalue().decode(encoding)
    assert json.loads(text)["query"] == "zebra 日本 é"


def shell(command, index, **environment):
    """A finished run of a shell's line, in which $D is the command and $I the index."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False,
        env={**os.environ, "D": f"{sys.executable} -m dewey_embed.cli", "I": str(index),
             **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        'yes zebra | head -50 | $D search "$I" - --json | head -c 10; exit ${PIPESTATUS[2]}',
        "$D --help | true",
        "$D --version | true",
    ],
)
def test_a_reader_that_stops_reading_is_no_error(command, index):
    result = shell(command, index)
    assert result.returncode == 0
    assert result.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("command", ['$D search "$I" zebra', "$D --version", "$D info --help"])
def test_a_full_disk_under_standard_output_is_said(command, index):
    result = shell(f"{command} > /dev/full", index)
    assert result.returncode == 1
    assert result.stderr.startswith("dewey: error: ")
    assert result.stderr.endswith("No space left on device\n")
    assert result.stderr.count("\n") == 1


def test_a_closed_standard_output_is_said(index):
    result = shell("$D --version >&-", index)
    assert result.returncode == 1
    assert result.stderr == "dewey: error: standard output: Bad file descriptor\n"


def test_a_closed_standard_input_or_error_does_no_harm(index):
    assert shell('echo zebra | $D search "$I" 2>&-', index).stdout.startswith("? zebra\n1. ")
    assert shell('$D search "$I" - <&-', index).returncode == 0
    assert shell("$D fly 2>&-", index).returncode == 2


def test_bars_of_other_packages_are_silent_off_a_terminal(tmp_path):
    code = (
        "from dewey_embed.cli import console\n"
        "console.prepare_streams()\n"
        "from tqdm.auto import tqdm\n"
        "list(tqdm(range(3)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stderr == b""


def test_all_that_the_commands_print_goes_through_the_console(repository):
    for path in (repository / "src" / "dewey_embed" / "cli").glob("*.py"):
        if path.name != "console.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"typer\.s?echo|(?<![.\w])print\(|std(out|err)\.write", text), path
