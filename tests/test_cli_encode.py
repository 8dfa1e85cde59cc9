"""`dewey encode`: the file is complete or as it was, whatever becomes of the run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from dewey_embed.cli.outputs import check_output, write_vectors
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.rows import rows_of
from dewey_embed.types import Document, DocumentVectors, Span
from tests.commands import ended

KINDS = ("npz", "parquet", "jsonl")
DOCUMENT = Document(id="a", text="x")


def vectors(fill=1.0, width=4):
    return DocumentVectors(
        vector=np.full(width, fill, np.float32), chunks=np.full((1, width), fill, np.float32),
        spans=[Span(0, 1, 0, 1)], num_tokens=1, used_tokens=1,
    )  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_run_leaves_a_draft_that_the_next_one_removes(tmp_path):
    words = ["encode", "-", "-o", str(tmp_path / "v.npz")]
    with subprocess.Popen(
        [sys.executable, "-m", "dewey_embed.cli", *words], stdin=subprocess.PIPE
    ) as process:
        while not [name for name in names(tmp_path) if name.endswith(".draft")]:
            time.sleep(0.02)
            assert process.poll() is None
        with pytest.raises(ConfigError, match="is being written by another process"):
            write_vectors(tmp_path / "v.npz", [(DOCUMENT, vectors())], chunks=False)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any(name.endswith(".draft") for name in names(tmp_path))
    (tmp_path / ".v.npz.mine.tmp").write_text("no draft of ours")
    (tmp_path / ".w.npz.0123abcd.tmp").write_text("another file's")
    (tmp_path / ".v.npz.0123abcd.tmp").write_text("a draft of an older version")
    write_vectors(tmp_path / "v.npz", [(DOCUMENT, vectors())], chunks=False)
    assert names(tmp_path) == [".v.npz.mine.tmp", ".w.npz.0123abcd.tmp", "v.npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_or_is_an_input_is_not_replaced(kind, tmp_path, capsys):
    (tmp_path / f"folder.{kind}").mkdir()
    assert ended("encode", tmp_path, "-o", tmp_path / f"folder.{kind}") == 1
    assert "is there and is no file" in capsys.readouterr().err
    own = tmp_path / f"own.{kind}"
    own.write_text("mine")
    assert ended("encode", own, "-o", own) == 1
    assert "is read as an input, too" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(own)
    assert ended("encode", tmp_path / "link", "-o", own) == 1
    assert own.read_text() == "mine"
    os.mkfifo(tmp_path / f"pipe.{kind}")
    with pytest.raises(ConfigError, match="is no file"):
        check_output(tmp_path / f"pipe.{kind}")


def test_a_file_of_vectors_within_a_folder_of_inputs_is_not_read_and_replaced(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a zebra")
    (tmp_path / "v.jsonl").write_text('{"text": "a record of mine"}\n')
    assert ended("encode", tmp_path, "-o", tmp_path / "v.jsonl") == 1
    assert "is read as an input, too" in capsys.readouterr().err
    assert ended("encode", tmp_path, "-o", tmp_path / "v.npz") == 0
    assert ended("encode", tmp_path, "-o", tmp_path / "v.npz") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_stays_and_its_target_is_written(kind, tmp_path):
    (tmp_path / f"link.{kind}").symlink_to(tmp_path / f"target.{kind}")
    write_vectors(tmp_path / f"link.{kind}", [(DOCUMENT, vectors())], chunks=True)
    assert (tmp_path / f"link.{kind}").is_symlink()
    assert (tmp_path / f"target.{kind}").stat().st_size > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_not_there_is_named_with_the_file(kind, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a zebra")
    assert ended("encode", tmp_path / "a.txt", "-o", tmp_path / "none" / f"v.{kind}") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/none/v.{kind}: cannot be written: No such file or directory" in said
    assert ended("encode", tmp_path / "a.txt", "-o", tmp_path / "a.txt" / f"v.{kind}") == 1
    assert (
        f"{tmp_path}/a.txt/v.{kind}: cannot be written: Not a directory" in capsys.readouterr().err
    )
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a file's size")
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_full_leaves_what_was_there(kind, tmp_path):
    (tmp_path / f"v.{kind}").write_text("older")
    code = f"""
import resource, numpy as np
from tests.test_cli_encode import DOCUMENT, vectors
from dewey_embed.cli import console
from dewey_embed.cli.outputs import write_vectors
from pathlib import Path
def encoded():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    for number in range(50):
        yield DOCUMENT, vectors(width=999)
def write():
    write_vectors(Path({str(tmp_path / f"v.{kind}")!r}), encoded(), chunks=True)
raise SystemExit(console.run(write))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"dewey: error: {tmp_path}/v.{kind}: cannot be written: ")
    assert "File too large" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / f"v.{kind}").read_text() == "older"
    assert names(tmp_path) == [f"v.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_no_numbers_are_refused(kind, value, tmp_path):
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        write_vectors(tmp_path / f"v.{kind}", [(DOCUMENT, vectors(value))], chunks=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_another_file_is_not_taken_for_one_of_writing(kind, tmp_path):
    def encoded():
        yield DOCUMENT, vectors()
        raise OSError(5, "Input/output error", "elsewhere")

    with pytest.raises(OSError, match="Input/output error: 'elsewhere'"):
        write_vectors(tmp_path / f"v.{kind}", encoded(), chunks=True)
    assert names(tmp_path) == []


def test_only_what_is_written_is_counted_with_the_files_full_path(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a zebra")
    for options, counts in (
        ([], "1 document, 384 dimensions"),
        (["--chunks"], "1 document, 1 chunk, 384 dimensions"),
    ):
        assert ended("encode", "a.txt", "-o", "v.npz", *options) == 0
        assert capsys.readouterr().out == f"{tmp_path}/v.npz: {counts}\n"
    assert ended("encode", "a.txt", "-o", "v.npz", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["num_chunks"], facts["output"]) == (0, f"{tmp_path}/v.npz")


def test_names_with_lone_surrogates_are_in_every_format(tmp_path):
    for kind in KINDS:
        document = Document(id="\udce9", text="x", source="\ud800")
        write_vectors(tmp_path / f"v.{kind}", [(document, vectors())], chunks=False)
    row = json.loads((tmp_path / "v.jsonl").read_text())
    assert (row["document_id"], row["source"]) == ("\\udce9", "\\ud800")
    assert pq.read_table(tmp_path / "v.parquet")["document_id"].to_pylist() == ["\\udce9"]
    assert np.load(tmp_path / "v.npz")["ids"].tolist() == ["\\udce9"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "a\x1b[31m", "日本", "a b'c"])
def test_any_name_of_a_file_is_written(kind, name, tmp_path):
    write_vectors(tmp_path / f"{name}.{kind}", [(DOCUMENT, vectors())], chunks=True)
    assert names(tmp_path) == [f"{name}.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_titles_metadata_and_places_stand_beside_vectors(kind, tmp_path):
    (tmp_path / "a.md").write_text("# Bees\n\nBees make honey.\n\n# Moths\n\nMoths eat wool.\n")
    (tmp_path / "r.jsonl").write_text('{"_id": "r", "title": "T", "text": "Ünï.", "year": 1898}\n')
    path = tmp_path / "out" / f"v.{kind}"
    path.parent.mkdir()
    files = (tmp_path / "a.md", tmp_path / "r.jsonl")
    options = ("--chunks", "--with-texts", "--chunk-tokens", "7", "--splitter", "sentences")
    assert ended("encode", *files, "-o", path, *options) == 0
    whole, chunks = read(path)
    note = "# Bees\n\nBees make honey.\n\n# Moths\n\nMoths eat wool."
    assert [row["text"].strip() for row in whole] == [note, "Ünï."]
    assert [row["title"] for row in whole][1:] == ["T"]
    assert whole[1]["metadata"]["year"] == 1898
    places = {row["text"].split()[-2]: row["location"] for row in chunks if "eat" in row["text"]}
    assert places == {"eat": {"headings": ["Moths"], "line": 5, "last_line": 7}}
    assert "".join(chunk["text"] for chunk in chunks if "Bees" in chunk["text"]) in note


def read(path):
    """The rows of documents and those of chunks, from any kind of file."""
    if path.suffix == ".npz":
        arrays = np.load(path)
        columns = zip(arrays["titles"], arrays["metadata"], arrays["texts"], strict=True)
        whole = [
            {"title": title, "metadata": json.loads(metadata), "text": text}
            for title, metadata, text in columns
        ]
        columns = zip(arrays["chunk_texts"], arrays["chunk_locations"], strict=True)
        return whole, [{"text": text, "location": json.loads(where)} for text, where in columns]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    else:
        rows = [
            {
                name: json.loads(v) if name in ("metadata", "location") else v
                for name, v in r.items()
            }
            for r in pq.read_table(path).to_pylist()
        ]
    return [r for r in rows if r["chunk"] is None], [r for r in rows if r["chunk"] is not None]


@pytest.mark.parametrize("words", [("--workers", 1), ("--worker-cpus", 2), ("--worker-gpus", 0)])
def test_workers_without_a_cluster_are_said_to_count_for_nothing(words, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a lease")
    assert ended("encode", tmp_path / "a.txt", "-o", tmp_path / "v.jsonl", *words) == 0
    assert "--worker-gpus count with --ray only" in capsys.readouterr().err


def test_a_text_longer_than_the_model_takes_costs_itself_alone(tmp_path, capsys):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("a lease")
    (folder / "long.txt").write_text("rent " * 140_000)
    (folder / "z.txt").write_text("a patent")
    words = (folder, "--overflow", "error")
    assert ended("encode", *words, "-o", tmp_path / "v.jsonl") == 3
    said = "long.txt: a text has 140,000 tokens, the limit is 131,070; overflow windows reads all"
    assert said in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [os.path.basename(row["document_id"]) for row in rows] == ["a.txt", "z.txt"]
    assert ended("index", *words, "--index", tmp_path / "ix") == 3
    output, errors = capsys.readouterr()
    assert said in errors
    assert "2 documents" in output


def test_the_row_of_a_cut_text_ends_where_the_vector_does():
    document = Document(id="a", text="rent paid late")
    own = replace(
        vectors(), spans=[Span(0, 4, 0, 1), Span(5, 9, 1, 2)], chunks=np.ones((2, 4), np.float32),
        num_tokens=3, used_tokens=2, overflow="truncate",
    )  # fmt: skip
    [row, *chunks] = rows_of(document, own, chunks=True, texts=True)
    assert (row["char_start"], row["char_end"], row["token_end"]) == (0, 9, 2)
    assert row["text"] == "rent paid"
    assert len(chunks) == 2
    [row] = rows_of(document, replace(own, overflow="windows"), chunks=False, texts=False)
    assert (row["char_end"], row["token_end"]) == (14, 3)
