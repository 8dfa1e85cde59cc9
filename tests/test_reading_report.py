"""What `dewey index` says of what it could not read, did not read, or guessed."""

import json

from tests.commands import dewey
from tests.text.test_formats import annotated_pdf


def test_what_is_left_out_is_counted_named_on_demand_and_complete_in_json(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.pdf").write_bytes(annotated_pdf())
    (docs / "b.txt").write_bytes("Größe und Übermut".encode("cp1252"))
    for name in ("c.mobi", "d.mobi", "e.msg"):
        (docs / name).write_bytes(b"x")
    (docs / "empty.txt").touch()
    index = ["index", docs, "--index", tmp_path / "i"]

    brief = dewey(*index)
    assert brief.returncode == 0
    assert brief.stderr.splitlines() == [
        "dewey: passed over 4: .mobi (2), .msg (1), empty (1); --verbose names them",
        "dewey: left out of 2 files, or guessed: pages without text (2), attachments (1), "
        "guessed encoding cp1252 (1); --verbose names them",
    ]
    assert brief.stdout.count("\n") == 1

    done = dewey(*index, "--verbose", "--json")
    full = done.stderr
    assert f"{docs / 'c.mobi'}: a .mobi file in a folder: not a kind of file" in full
    assert f"{docs / 'a.pdf'}: pages without text (2), attachments (1)" in full

    facts = json.loads(done.stdout)
    assert facts["unread"] == {
        str(docs / "a.pdf"): {"pages without text": 2, "attachments": 1},
        str(docs / "b.txt"): {"guessed encoding cp1252": 1},
    }
    assert [each["kind"] for each in facts["skipped"]] == [".mobi", ".mobi", ".msg", "empty"]
    assert facts["unreadable"] == []


def test_hostile_and_missing_files_cost_only_themselves(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(20):
        (docs / f"{number}.html").write_text(f"<p>page {number}")
    with open(docs / "sparse.txt", "wb") as file:
        file.truncate(3_000_000_000)
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    done = dewey(
        *("index", docs, tmp_path / "gone.txt", "--index", tmp_path / "i", "--json"),
        PATH="",
        DEWEY_MAX_TEXT_MB="2",
    )
    assert done.returncode == 3
    facts = json.loads(done.stdout)
    assert facts["num_documents"] == 20
    assert {each["source"].rsplit("/", 1)[1] for each in facts["unreadable"]} == {
        *("sparse.txt", "broken.pdf", "gone.txt"),
    }
    assert "3,000 MB, longer than the 2 MB of text that are read; --max-text-mb" in done.stderr
    assert "Traceback" not in done.stderr


def test_inputs_that_are_all_missing_are_one_error(tmp_path):
    done = dewey("index", tmp_path / "a", tmp_path / "b", "--index", tmp_path / "i")
    assert done.returncode == 1
    assert done.stderr.startswith("dewey: error: no such file or folder: ")
    assert done.stderr.count("\n") == 1
