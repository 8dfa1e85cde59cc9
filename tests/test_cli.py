"""The command `dewey`, as a process: what it prints, where, and with which exit code."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dewey_embed.cli.outputs import write_vectors
from dewey_embed.cli.search import parse_filters
from dewey_embed.types import Document, DocumentVectors, Span
from tests.commands import Dewey, dewey, done, started_from_nothing

TEXTS = {
    "patents.txt": "The patents are owned by the company. They expire in twenty years. " * 8,
    "zebra.md": "# Zebras\n\nA zebra is a striped animal of the savanna. It eats grass. " * 8,
    "music.txt": "The violin has four strings, played with a bow of horse hair. " * 8,
}
QUESTION = "which striped animal eats grass?"


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "docs"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def index(docs):
    path = docs.parent / "my.index"
    words = ("index", docs, "--index", path, "--chunk-tokens", "32")
    output = done(*words, run=started_from_nothing)
    assert "3 documents" in output
    assert "(3 added, 0 changed, 0 removed, 0 unchanged)" in output
    return path


def cpu_seconds(*arguments):
    """The processor time of a run that succeeds: unlike its duration, it hardly depends on load."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = done(*arguments, run=started_from_nothing)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, output


def test_help_answers_in_half_a_second():
    done("--help", run=started_from_nothing)  # once, so that it is not the disk that is measured
    seconds, outputs = zip(*(cpu_seconds("--help") for _ in range(5)), strict=True)
    assert min(seconds) < 0.5
    for command in ("index", "search", "encode", "info"):
        assert command in outputs[0]


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, dewey_embed, dewey_embed.cli\n"
        "heavy = {'torch', 'lancedb', 'faiss', 'pyarrow', 'numpy', 'pydantic', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_second_run_encodes_nothing_and_says_so_in_json(docs, index):
    report = json.loads(done("index", docs, "--index", index, "--json"))
    assert (report["num_unchanged"], report["num_added"], report["num_documents"]) == (3, 0, 3)


def test_options_come_from_the_environment(docs, index):
    result = dewey("index", docs, DEWEY_INDEX=str(index), DEWEY_CHUNK_TOKENS="64")
    assert result.returncode == 1
    assert "chunk_tokens=(32,)" in result.stderr
    assert "not with chunk_tokens=(64,)" in result.stderr
    assert result.stderr.startswith("dewey: error: ")
    assert result.stderr.count("\n") == 1


def test_an_option_without_a_variable_of_its_own_has_one_after_its_command(tmp_path):
    result = dewey("eval", "bm25", DEWEY_EVAL_SUITE=str(tmp_path / "nowhere"))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert f"no suite '{tmp_path / 'nowhere'}'" in result.stderr


def test_search_prints_documents_and_passages_with_their_characters(docs, index):
    words = ("search", index, QUESTION, "-k", "2", "--passages", "1")
    output = done(*words)
    assert output.startswith("1. Zebras")
    text = (docs / "zebra.md").read_text()
    _, place, shown, *_ = output.splitlines()
    start, end = place[place.index("[") + 1 : place.index("]")].split(":")
    assert shown.strip() == " ".join(text[int(start) : int(end)].split())
    assert "\n2. " in output


@pytest.mark.parametrize("mode", ["multi", "single", "hybrid"])
def test_search_answers_lines_of_stdin_with_a_line_of_json_each(docs, index, mode):
    lines = done("search", index, "-", "--json", "--mode", mode, stdin=f"{QUESTION}\n\nviolin\n")
    first, second = map(json.loads, lines.splitlines())
    assert (first["query"], second["query"]) == (QUESTION, "violin")
    assert Path(first["hits"][0]["document_id"]).name == "zebra.md"
    text = (docs / "zebra.md").read_text()
    for passage in first["hits"][0]["passages"]:
        assert text[passage["char_start"] : passage["char_end"]] == passage["text"]


def test_search_filters_by_metadata(index):
    lines = done("search", index, QUESTION, "--filter", "extension=.txt", "--json")
    found = {Path(hit["document_id"]).name for hit in json.loads(lines)["hits"]}
    assert found == {"patents.txt", "music.txt"}


def test_a_filter_that_no_document_passes_says_which_values_there_are(index):
    result = dewey("search", index, QUESTION, "--filter", "extension=pdf", "--filter", "folder=")
    assert result.returncode == 0
    assert result.stderr == (
        "dewey: no document has extension=pdf and folder=; "
        "there are extension=.txt (2), extension=.md (1), folder= (3)\n"
    )


@pytest.fixture(scope="module")
def whales(tmp_path_factory):
    """An index of records with years as numbers, days as text, and something true."""
    folder = tmp_path_factory.mktemp("whales")
    records = [
        {"id": f"whale{n}", "text": "Whales sing.", "public": True, "year": 2000 + n}
        | ({"day": f"2024-{n + 1:02}-15"} if n < 12 else {})
        for n in range(20)
    ]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    done("index", folder / "records.jsonl", "--index", folder / "index")
    return folder / "index"


def test_values_that_a_filter_could_have_are_named_as_it_takes_them(whales):
    result = dewey("search", whales, "whales", "--filter", "public=yes")
    assert "there are public=true (20)\n" in result.stderr
    found = done("search", whales, "whales", "--filter", "public=true")
    assert found.startswith("1. whale")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["year>=2017"], {17, 18, 19}),
        (["year>2003", "year<2006"], {4, 5}),
        (["year<=2000.5", "year=2007"], {0, 7}),
        (["day>=2024-12"], {11}),
        (["day>2024-01-15", "day<2024-03", "year<2002"], {1}),
        (["year>=2030"], set()),
        (["day>=2025"], set()),
    ],
)
def test_search_filters_by_ranges_of_numbers_and_of_text(whales, filters, found):
    options = [word for each in filters for word in ("--filter", each)]
    [line] = done("search", whales, "whales", "-k", "20", "--json", *options).splitlines()
    assert {int(hit["document_id"][5:]) for hit in json.loads(line)["hits"]} == found


def test_a_range_that_holds_nothing_says_what_the_key_ranges_over(whales):
    said = {
        "year>=2030": "there are year from 2000 to 2019",
        "day>2030": "there are day from 2024-01-15 to 2024-12-15",
        "day=monday": "day=2024-10-15 (1) and 2 more of day",
    }
    for pair, words in said.items():
        result = dewey("search", whales, "whales", "--filter", pair)
        assert (result.returncode, result.stderr.count("\n")) == (0, 1)
        assert f"dewey: no document has {pair}; " in result.stderr
        assert words in result.stderr
    result = dewey("search", whales, "whales", "--filter", "yaer>=2000")
    assert "no document has metadata 'yaer'" in result.stderr
    assert "known: day, extension, folder, public, year" in result.stderr


def test_a_filters_value_is_taken_as_text_and_as_what_it_says():
    assert parse_filters(["year=2020", "kind=pdf", "kind=", "ok=true", "x=[1]", "n=1e999"]) == {
        "year": ["2020", 2020],
        "kind": ["pdf", ""],
        "ok": ["true", True],
        "x": ["[1]"],
        "n": ["1e999"],
    }
    assert parse_filters(["year>=2020", "year<2024", "day>2024-01", "day=x"]) == {
        "year": [{">=": 2020, "<": 2024}, {">=": "2020", "<": "2024"}],
        "day": ["x", {">": "2024-01"}],
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("search",),
        ("search", "my.index", "x", "--mode", "fuzzy"),
        ("search", "my.index", "x", "-k", "0"),
        ("search", "my.index", "x", "--filter", "novalue"),
        ("search", "my.index", "x", "--filter", ">=3"),
        ("search", "my.index", "x", "--filter", "year>1", "--filter", "year>2"),
        ("index", "docs"),
        ("index", "docs", "--index", "i", "--colour"),
        ("fly",),
    ],
)
def test_wrong_usage_ends_with_2(arguments, tmp_path):
    assert dewey(*arguments, cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "none.index", "x"), "make one with: dewey index"),
        (("index", "nowhere", "--index", "i"), "no such file or folder: nowhere"),
        (("index", ".", "--index", "i", "--chunk-tokens", "8", "--chunk-overlap", "8"), "overlap"),
        (("info", "./nowhere"), "nowhere"),
        (("encode", "nowhere", "--output", "v.npz"), "no such file or folder: nowhere"),
        (("encode", ".", "--output", "v.csv"), ".parquet, .npz, .jsonl"),
        (("index", ".", "--index", "i", "--model", "./nowhere"), "no such folder"),
    ],
)
def test_an_error_is_one_line_and_ends_with_1(arguments, message, tmp_path):
    result = dewey(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("dewey: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_one_unreadable_file_among_many_is_listed_and_the_rest_indexed(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"text number {number}")
    (folder / "binary.txt").write_bytes(b"\x00\x01\xff")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    result = dewey("index", folder, "--index", tmp_path / "i", "--json")
    assert result.returncode == 3
    report = json.loads(result.stdout)
    assert report["num_added"] == 30
    assert [Path(each["source"]).name for each in report["unreadable"]] == ["binary.txt"]
    assert "1 could not be read:\n" in result.stderr
    assert "binary.txt: binary" in result.stderr
    assert "passed over 1: .png (1); --verbose names them" in result.stderr


def test_stdin_is_indexed_as_text_and_as_jsonl(tmp_path):
    done("index", "-", "--index", tmp_path / "i", stdin="a striped animal")
    rows = '{"id": "r", "body": "the violin"}\n'
    options = ["--stdin-extension", ".jsonl", "--text-field", "body", "--json"]
    report = json.loads(done("index", "-", "--index", tmp_path / "i", *options, stdin=rows))
    assert (report["num_added"], report["num_removed"], report["num_documents"]) == (1, 0, 2)


def test_info_describes_an_index_and_a_model(index):
    facts = json.loads(done("info", index, "--json"))
    assert (facts["num_documents"], facts["chunk_tokens"], facts["model"]) == (3, [32], "mini")
    assert facts["bytes"] > 0
    facts = json.loads(done("info", "--json"))
    assert facts["model"] == "mini"
    assert facts["max_tokens"] == 131072
    assert facts["parameters"] > 20_000_000
    # A model's folder is one by whatever name, though it has a dewey.json as an index does.
    assert json.loads(done("info", facts["folder"], "--json"))["parameters"] == facts["parameters"]
    assert facts["encodes_by"].startswith(("PyTorch", "C++ kernels"))


def test_encode_writes_the_same_vectors_in_every_format(docs, tmp_path):
    files = {kind: tmp_path / f"v.{kind}" for kind in ("parquet", "npz", "jsonl")}
    for path in files.values():
        output = done(
            "encode", docs, "--output", path, "--chunks", "--chunk-tokens", "32", "--json"
        )
        summary = json.loads(output)
        assert (summary["num_documents"], summary["embedding_dim"]) == (3, 384)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.jsonl", "v.npz", "v.parquet"]
    table = pq.read_table(files["parquet"]).to_pylist()
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert [{**row, "vector": 0} for row in table] == [{**row, "vector": 0} for row in lines]
    arrays = np.load(files["npz"])
    for rows in (table, lines):
        whole = [row["vector"] for row in rows if row["chunk"] is None]
        np.testing.assert_array_equal(np.array(whole, np.float32), arrays["vectors"])
        chunks = [row["vector"] for row in rows if row["chunk"] is not None]
        np.testing.assert_array_equal(np.array(chunks, np.float32), arrays["chunks"])
    spans = [[row[name] for name in Span._fields] for row in table if row["chunk"] is not None]
    assert arrays["spans"].tolist() == spans
    assert [arrays["ids"][i] for i in arrays["chunk_documents"]] == [
        row["document_id"] for row in table if row["chunk"] is not None
    ]
    assert table[0]["char_end"] == len(Path(table[0]["source"]).read_text())


def test_encode_of_stdin_to_stdout_is_json_lines_only():
    output = done("encode", "-", "--output", "-", stdin="a zebra")
    [row] = map(json.loads, output.splitlines())
    assert (row["chunk"], row["char_end"], len(row["vector"])) == (None, 7, 384)


def test_encode_of_nothing_readable_writes_nothing(tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01")
    result = dewey("encode", tmp_path / "binary.txt", "--output", tmp_path / "v.npz")
    assert result.returncode == 1
    assert "nothing was encoded" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["binary.txt"]


def small_model(folder: Path, max_tokens: int) -> None:
    """Save the embedded model with a shorter context."""
    from dewey_embed.encoder import Dewey

    Dewey.load(max_tokens=max_tokens).save(folder)


def test_a_text_longer_than_the_model_is_said_on_stderr(docs, tmp_path):
    small_model(tmp_path / "small", 64)
    common = ["--model", tmp_path / "small", "--chunk-tokens", "16"]
    result = dewey("encode", docs / "music.txt", "--output", tmp_path / "v.jsonl", *common)
    assert result.returncode == 0
    assert "music.txt has" in result.stderr
    assert "the model takes 64: it was read in overlapping windows" in result.stderr
    result = dewey("index", docs, "--index", tmp_path / "i", *common, "--overflow", "truncate")
    assert result.returncode == 0
    assert "0 read in overlapping windows, 3 truncated" in result.stderr
    options = [*common, "--overflow", "error"]
    result = dewey("index", docs, "--index", tmp_path / "e", *options)
    assert result.returncode == 3
    assert result.stderr.count("; overflow windows reads all of it") == 3


def test_an_index_asked_with_another_model_names_both(index, tmp_path):
    from safetensors.torch import load_file, save_file

    small_model(tmp_path / "other", 512)
    weights = tmp_path / "other" / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    save_file({**tensors, name: -tensors[name]}, weights)
    (tmp_path / "other" / "dewey_checksums.json").unlink()  # of the weights before
    for arguments in (("search", index, "x"), ("index", tmp_path, "--index", index)):
        result = dewey(*arguments, "--model", tmp_path / "other")
        assert result.returncode == 1
        assert "was made by model 'mini'" in result.stderr
        assert str(tmp_path / "other") in result.stderr
        assert result.stderr.count("\n") == 1


def test_an_output_that_fails_half_way_leaves_what_was_there(tmp_path):
    vectors = DocumentVectors(
        vector=np.ones(4, np.float32), chunks=np.ones((1, 4), np.float32),
        spans=[Span(0, 1, 0, 1)], num_tokens=1, used_tokens=1,
    )  # fmt: skip
    document = Document(id="a", text="x")
    for name in ("v.parquet", "v.npz", "v.jsonl"):
        path = tmp_path / name
        path.write_text("older")

        def encoded():
            yield document, vectors
            raise RuntimeError("half way")

        with pytest.raises(RuntimeError, match="half way"):
            write_vectors(path, encoded(), chunks=True)
        assert path.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_reader_that_stops_reading_is_no_error(index):
    command = f"{sys.executable} -m dewey_embed.cli search {index} - --json"
    questions = "zebra\n" * 300
    with subprocess.Popen(
        f"{command} | head -c 10", shell=True, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        output, errors = process.communicate(questions, timeout=120)
    assert len(output) == 10
    assert errors == ""


def test_ctrl_c_ends_with_130_and_leaves_an_index_that_goes_on(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"a text, number {number}. " * 120)
    arguments = ["index", folder, "--index", tmp_path / "i", "--group-chars", "1"]
    run = Dewey(*arguments)
    versions = tmp_path / "i" / "documents.lance" / "_versions"
    while len(list(versions.glob("*.manifest"))) < 5:
        time.sleep(0.02)
        assert run.poll() is None
    os.kill(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in errors
    report = json.loads(done(*arguments, "--json"))
    assert report["num_unchanged"] > 0
    assert report["num_documents"] == 40


@pytest.mark.parametrize(("place", "code"), [("show_help", 0), ("elsewhere", 1)])
def test_a_pipe_that_breaks_while_help_is_written_is_no_error(place, code):
    # As typer does it: an exit in place of the broken pipe. Which write breaks is chance.
    script = (
        "import sys\nfrom dewey_embed.cli.console import run\n"
        f"def {place}(): raise BrokenPipeError(32, 'Broken pipe')\n"
        "def command():\n"
        f"    try: {place}()\n"
        "    except OSError: sys.exit(1)\n"
        "sys.exit(run(command))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert ("Broken pipe" in ended.stderr) == bool(code)


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(docs, tmp_path):
    assert "indexing" not in dewey("index", docs, "--index", tmp_path / "a").stderr
    parent, child = pty.openpty()
    arguments = ("index", docs, "--index", tmp_path / "b")
    run = Dewey(*arguments, terminal=child, on=["stderr"], TERM="xterm", COLUMNS="120")
    run.communicate(timeout=120)
    os.close(child)
    seen = os.read(parent, 100_000).decode()
    os.close(parent)
    assert run.returncode == 0
    assert "3 documents" in run.printed("stdout")
    assert "indexing" in seen
    assert "bytes" in seen
