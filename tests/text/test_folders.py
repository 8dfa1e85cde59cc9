"""Which files are read, as what, and under which name: links, pipes, clutter, unknown kinds."""

import codecs
import gzip
import io
import os
import threading
from pathlib import Path

import pytest

from dewey_embed.text.formats import format_of
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Unreadable
from tests.text.test_formats import p, word_file
from tests.text.test_reader import pdf


def read(*inputs: Path | str, **options) -> list[Document | Unreadable]:
    return list(read_documents(list(inputs), **options))


def faults(found: list[Document | Unreadable]) -> dict[str, str]:
    return {Path(each.source).name: each.reason for each in found if isinstance(each, Unreadable)}


# Names and bytes


def test_a_link_without_an_extension_behind_it_is_what_its_name_says(tmp_path):
    docs, store = tmp_path / "docs", tmp_path / "store"
    docs.mkdir()
    store.mkdir()
    blobs = {
        "report.pdf": pdf("in a PDF"),
        "page.html": b"<p>on a <b>page</b>",
        "rec.jsonl": b'{"id": "q", "text": "in a record"}',
        "memo.docx": word_file(p("in a memo")),
    }
    for number, (name, data) in enumerate(blobs.items()):
        (store / str(number)).write_bytes(data)
        (docs / name).symlink_to(store / str(number))
    found = read(docs)
    assert {each.text: each.title for each in found} == {
        "in a memo": "memo.docx",
        "on a page": "page.html",
        "in a PDF": "report.pdf",
        "in a record": "",
    }
    assert [each.metadata.get("extension") for each in found] == [
        ".docx",
        ".html",
        ".jsonl",
        ".pdf",
    ]
    assert found[0].id == (store / "3").as_posix()
    assert read(docs / "report.pdf")[0].text == "in a PDF"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a", "a.html", "a.dat", "a.pdf"])
def test_bytes_count_more_than_a_false_name(tmp_path, name):
    (tmp_path / name).write_bytes(pdf("inside"))
    assert read(tmp_path / name)[0].text == "inside"
    (tmp_path / name).write_bytes(b"a line before\n" + pdf("inside"))
    assert "%PDF" not in str(read(tmp_path / name)[0])
    (tmp_path / name).write_bytes(rb"{\rtf1 inside}")
    assert read(tmp_path / name)[0].text == "inside"
    (tmp_path / name).write_bytes(word_file(p("inside")))
    assert read(tmp_path / name)[0].text == "inside"
    (tmp_path / name).write_bytes(codecs.BOM_UTF8 + b"\n<!DOCTYPE html><p>inside")
    assert read(tmp_path / name)[0].text == "inside"


@pytest.mark.parametrize(
    "text",
    [
        *("BZh is a name", "Rar! it said", "MZ and so on, This program", "GIF89a is a format"),
        *("a < b", "PK is a firm", "%PDF is what begins a PDF", "II* is a mark", "II.\n"),
    ],
)
def test_plain_words_are_not_taken_for_the_marks_of_formats(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path)[0].text == text


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pptx", b"PK\x03\x04", "not a PowerPoint file (.pptx)"),
        ("a.xlsx", b"PK\x03\x04", "not an Excel workbook (.xlsx)"),
        ("a.zip", b"PK\x03\x04", "an archive; unpack it"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Word file of before 2007; save it as"),
        ("a.tar", b"a/\0\0", "an archive; unpack it"),
        ("a.epub", b"PK\x03\x04", "not an EPUB book (.epub)"),
        ("a.mobi", b"BOOKMOBI", "an electronic book; save it as .epub"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "a picture; run OCR over it"),
        ("blob", b"\x89PNG\r\n\x1a\n", "a picture; run OCR over it"),
        ("blob", b"\x1f\x8b\x08\0", "an archive; unpack it"),
        ("a.txt", gzip.compress(b"text", mtime=0), "an archive; unpack it"),
        (
            "a.docx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "an Office file of before 2007",
        ),
        ("a.mbox", b"\n", "a mailbox without letters"),
    ],
)
def test_what_is_in_no_format_that_is_read_is_named_with_a_remedy(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    (found,) = read(tmp_path / name)
    assert found.reason.startswith(reason)
    assert "UTF-16" not in found.reason


def test_archives_are_told_from_word_files_by_what_is_in_them(tmp_path):
    import zipfile

    for name, inside in [("a", "ppt/x.xml"), ("b", "xl/x.xml"), ("c", "content.xml"), ("d", "x")]:
        with zipfile.ZipFile(tmp_path / f"{name}.docx", "w") as package:
            package.writestr(inside, "x")
    words = ["PowerPoint", "Excel", "content.xml", "another ZIP archive"]
    reasons = faults(read(tmp_path)).values()
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_markup_is_never_read_as_it_stands(tmp_path):
    (tmp_path / "a.rtf").write_text(r"{\rtf1 Rent is due.}")
    (tmp_path / "b.eml").write_text("Subject: Rent\n\nRent is due.\n")
    (tmp_path / "c.ipynb").write_text('{"cells": [{"cell_type": "code", "source": "rent()"}]}')
    (tmp_path / "d.rtf").write_text("no rich text")
    *found, fault = read(tmp_path)
    assert [each.text for each in found] == [
        "Rent is due.",
        "Subject: Rent\n\nRent is due.",
        "rent()",
    ]
    assert fault.reason.startswith("not a Rich Text file")


def test_a_kind_is_the_first_names_that_has_one():
    assert format_of(("a.pdf", "9f"), b"x")[0] == "pdf"
    assert format_of(("a", "b.html"), b"x") == ("html", ".html")
    assert format_of(("a.md", "b.html"), b"x")[0] == "markdown"
    assert format_of(("a", "b"), b"x") == ("text", "")


# Folders


def test_what_nobody_wrote_is_passed_over_and_counted(tmp_path):
    for name in ("~$report.docx", "Thumbs.db", "a.pdf.part", "b.docx.crdownload", "c.txt~"):
        (tmp_path / name).write_bytes(b"\x05owner")
    for name in ("zero.pdf", "zero.docx", "zero.txt", "zero.jsonl", "zero.html"):
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("text")
    *found, lock = [*read(tmp_path), *read(tmp_path / "~$report.docx")]
    assert all(each.skipped for each in [*found, lock] if isinstance(each, Unreadable))
    assert sorted(each.kind for each in found if isinstance(each, Unreadable)) == [
        *("empty",) * 5,
        *("lock or backup", "lock or backup", "system"),
        *("unfinished download", "unfinished download"),
    ]


def test_unknown_kinds_are_named_by_their_extension(tmp_path):
    for name in ("a.pub", "b.PUB", "c.py", "LICENSE"):
        (tmp_path / name).write_bytes(b"x")
    found = read(tmp_path)
    assert [each.kind for each in found] == ["without an extension", ".pub", ".pub", ".py"]
    assert "a .py file in a folder: not a kind of file that is read" in found[3].reason


def test_an_index_of_our_own_is_not_looked_at(tmp_path):
    index = tmp_path / "my.index"
    (index / "documents.lance").mkdir(parents=True)
    (index / "dewey.json").write_text("{}")
    (index / "documents.lance" / "a.txt").write_text("inside")
    (tmp_path / "a.txt").write_text("text")
    assert [each.source for each in read(tmp_path)] == [(tmp_path / "a.txt").as_posix()]
    assert "an index of Dewey's own" in read(index)[0].reason


def test_a_links_name_changes_nothing_of_a_file_the_folder_holds(tmp_path):
    (tmp_path / "b-real").mkdir()
    (tmp_path / "b-real" / "x.txt").write_text("bees")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "y.txt").write_text("hidden")
    before = read(tmp_path)
    (tmp_path / "a-link").symlink_to("b-real")
    (tmp_path / "a.md").symlink_to("b-real/x.txt")
    assert read(tmp_path) == before
    assert before[0].metadata == {"extension": ".txt", "folder": "b-real"}
    (tmp_path / "shown.txt").symlink_to(".hidden/y.txt")
    assert [each.text for each in read(tmp_path)] == ["hidden", "bees"]


def test_a_broken_link_is_reported_by_its_own_name(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("broken.txt", "unknown", "folder"):
        (tmp_path / "docs" / name).symlink_to(tmp_path / "gone" / name)
    (tmp_path / "docs" / "a.txt").write_text("text")
    found = read(tmp_path / "docs", tmp_path / "docs" / "broken.txt")
    assert len(found) == 5
    broken = [each for each in found if isinstance(each, Unreadable)]
    assert all(Path(each.source).parent == tmp_path / "docs" for each in broken)
    assert all(each.reason.startswith("a broken link") for each in broken)


def test_a_folder_that_may_not_be_looked_at_is_a_reason_not_an_absence(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.txt").write_text("text")
    listed, looked = os.listdir, os.stat

    def listdir(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    def look(path, *arguments, **options):
        if str(path).endswith("elsewhere/x"):
            raise PermissionError(13, "Permission denied")
        return looked(path, *arguments, **options)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(os, "stat", look)
    monkeypatch.setattr(os, "lstat", look)
    found = read(tmp_path, tmp_path / "elsewhere" / "x")
    assert found[0].text == "text"
    assert faults(found) == {
        "locked": "folder cannot be read: Permission denied",
        "x": "cannot be read: Permission denied",
    }


def test_a_file_that_icloud_holds_is_not_taken_for_gone(tmp_path):
    (tmp_path / ".report.pdf.icloud").write_bytes(b"bplist")
    (found,) = read(tmp_path)
    assert found.source == (tmp_path / "report.pdf").as_posix()
    assert (found.skipped, found.reason.split(";")[0]) == (False, "not on this machine")


def test_a_missing_input_does_not_stop_the_others(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    found = read(tmp_path / "gone.txt", tmp_path / "a.txt", tmp_path / "a.txt" / "x")
    assert [type(each) for each in found] == [Unreadable, Document, Unreadable]
    assert set(faults(found).values()) == {"no such file or folder"}
    assert found[0].source == found[0].root == (tmp_path / "gone.txt").as_posix()


# Pipes


def test_a_pipe_that_is_named_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["piped"])
    writer.start()
    (found,) = read(tmp_path / "pipe", tmp_path / "pipe")
    writer.join()
    assert (found.text, found.source, found.root) == (
        "piped",
        (tmp_path / "pipe").as_posix(),
        "-",
    )
    end, other = os.pipe()
    os.write(other, pdf("in a pipe"))
    os.close(other)
    (found,) = read(f"/dev/fd/{end}")
    os.close(end)
    assert found.text == "in a pipe"


def test_texts_on_standard_input_are_kept_apart_by_what_they_say():
    first, second = (read("-", stdin=io.BytesIO(data))[0] for data in (b"one", b"two"))
    assert first.id != second.id
    assert first == read("-", stdin=io.BytesIO(b"one"))[0]
    lines = b'{"text": "one"}\n{"text": "two"}\n{"id": 1, "text": "three"}'
    found = read("-", stdin=io.BytesIO(lines), stdin_extension=".jsonl")
    assert [each.id for each in found] == [first.id, second.id, "1"]
    assert {(each.source, each.root) for each in found} == {("stdin", "-")}


# Records


def test_a_bad_line_names_the_document_that_it_would_have_been(tmp_path):
    lines = [
        b'{"id": "r1", "text": null}',
        b'{"id": "r2", "text": "cut sho',
        b'{"_id": 7, "text": "twice", "text": "over"}',
        b"not json",
        b'{"name": "no text"}',
        b'{"id": "r6", "text": " "}',
        b'{"id": "r7", "text": "good", "x": {"a": 1, "a": 2}}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    *bad, good = read(tmp_path)
    source = (tmp_path / "a.jsonl").as_posix()
    assert [(each.line, each.document_id) for each in bad] == [
        *((1, "r1"), (2, "r2"), (3, "7"), (4, None), (5, f"{source}#5"), (6, "r6")),
    ]
    assert "key 'text' comes twice" in bad[2].reason
    assert good.text == "good"


def test_metadata_that_no_filter_could_compare_is_left_out_and_counted(tmp_path):
    line = b'{"text": "a", "i": 1e999, "n": NaN, "m": -Infinity, "b": 1%s, "ok": 1.5, "k": 9}'
    (tmp_path / "a.jsonl").write_bytes(line % (b"0" * 30))
    (found,) = read(tmp_path)
    assert found.metadata == {"ok": 1.5, "k": 9, "extension": ".jsonl", "folder": ""}
    assert found.unread == {
        "metadata values that are not finite": 3,
        "metadata integers past 64 bits": 1,
    }


def test_records_that_are_too_much_for_json_are_one_bad_line(tmp_path):
    deep = b'{"id": "deep", "text": "a", "x": %s%s}' % (b"[" * 100_000, b"]" * 100_000)
    digits = b'{"id": "big", "text": "a", "n": %s}' % (b"9" * 10_000)
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([deep, digits, b'{"text": "good"}']))
    *bad, good = read(tmp_path)
    assert [each.document_id for each in bad] == ["deep", "big"]
    assert good.text == "good"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_records_marked_as_another_unicode_are_read(tmp_path, encoding):
    lines = '{"id": "a", "text": "Größe"}\n{"id": "b", "text": "日本\U0001f600"}\nno\n'
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    first, second, bad = read(tmp_path)
    assert (first.text, second.text, bad.line) == ("Größe", "日本\U0001f600", 3)
