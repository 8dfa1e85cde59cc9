"""A new format is a function and a row of the table; everything else follows from the row."""

import io
import json
import zipfile

import pytest

from dewey_embed.errors import MissingDependencyError, ReadError
from dewey_embed.text import formats, reader
from dewey_embed.text.child import Parsers
from dewey_embed.text.formats import FORMATS, Format, format_of, from_bytes
from dewey_embed.text.inputs import Content, ReadLimits, ReadOptions
from dewey_embed.text.jsonl import record_content
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Unreadable


@pytest.fixture
def add_format(monkeypatch):
    """A function that adds a row to the table, and what is derived from the table at import."""

    def add(name, row):
        monkeypatch.setitem(FORMATS, name, row)
        for extension in row.extensions:
            monkeypatch.setitem(formats.BY_EXTENSION, extension, name)

    return add


def read_lines(stream, options):
    """Letters of a mailbox, as it were: a text and the file's own metadata for each line."""
    for number, line in enumerate(stream.read().decode().splitlines(), start=1):
        if line == "bad":
            yield Unreadable(source="", reason="a bad line", line=number, document_id="")
        else:
            yield Content(line, title=line[:3], line=number)


def test_a_row_with_several_documents_a_file_gives_them_ids_and_places(add_format, tmp_path):
    add_format("lines", Format((".lines",), read_lines, in_child=False))
    (tmp_path / "a.lines").write_text("one two\nbad\n\nthree")
    source = (tmp_path / "a.lines").resolve().as_posix()
    first, bad, empty, last = read_documents([tmp_path])
    assert (first.id, first.text, first.title) == (f"{source}#1", "one two", "one")
    assert first.metadata == {"extension": ".lines", "folder": ""}
    assert (bad.source, bad.line, bad.document_id) == (source, 2, f"{source}#2")
    assert (empty.reason, empty.skipped, empty.document_id) == ("empty", True, f"{source}#3")
    assert last.id == f"{source}#4"


def test_a_pipes_documents_have_ids_of_their_texts(add_format):
    add_format("lines", Format((".lines",), read_lines, in_child=False))
    first, bad = read_documents(["-"], stdin=io.BytesIO(b"one\nbad"), stdin_extension=".lines")
    assert first.id.startswith("stdin-")
    assert bad.document_id is None


def test_records_of_another_format_have_the_fields_of_jsonl(add_format, tmp_path):
    def read_list(stream, options):
        for number, record in enumerate(json.load(stream), start=1):
            yield record_content(record, number, options.fields)

    add_format("list", Format((".list",), read_list, in_child=False))
    (tmp_path / "a.list").write_text('[{"id": 7, "body": "x", "year": 1999}, {"id": 8}]')
    good, bad = read_documents([tmp_path], text_fields="body")
    assert isinstance(good, Document)
    assert (good.id, good.text) == ("7", "x")
    assert good.metadata == {"extension": ".list", "folder": "", "year": 1999}
    assert (bad.document_id, bad.line) == ("8", 2)
    assert "no field 'body'" in bad.reason


def test_the_child_gives_documents_one_by_one_and_reads_on_after_an_unfinished_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nbad\n{"text": "two", "n": 2}\n')
    with Parsers(ReadOptions()) as parsers:
        items = parsers.read("jsonl", tmp_path / "a.jsonl")
        assert next(items).text == "one"
        one, bad, two = parsers.read("jsonl", tmp_path / "a.jsonl")
    assert (one.line, one.text, two.line, two.metadata) == (1, "one", 3, {"n": 2})
    assert isinstance(bad, Unreadable)
    assert bad.reason.startswith("not JSON")


def test_every_document_of_a_file_is_held_to_the_limits(tmp_path):
    lines = [json.dumps({"text": text}) for text in ("good", "x" * 2_000_000, "good")]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with Parsers(ReadOptions(ReadLimits(max_text_mb=1))) as parsers:
        first, long, last = parsers.read("jsonl", tmp_path / "a.jsonl")
    assert first.text == last.text == "good"
    assert "longer than the 1 MB" in long.reason


def test_a_format_in_a_zip_is_told_by_its_extension(add_format):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as package:
        package.writestr("index.zip", "")
    head = stream.getvalue()
    with pytest.raises(ReadError, match="a presentation"):
        format_of(("a.key",), head)
    read_key = from_bytes(lambda data: Content("slides"))
    add_format("key", Format((".key",), read_key, formats.FORMATS["docx"].magic))
    assert format_of(("a.key",), head) == ("key", ".key")
    assert format_of(("a.docx",), head) == ("docx", ".docx")


def test_a_missing_extra_is_a_reason_with_its_remedy(add_format, tmp_path):
    def read_scan(stream, options):
        raise MissingDependencyError('reading .scan needs the package ocr: pip install "x[ocr]"')

    add_format("scan", Format((".scan",), read_scan, in_child=False))
    (tmp_path / "a.scan").write_bytes(b"x")
    (fault,) = reader.read_documents([tmp_path / "a.scan"])
    assert fault.reason == 'reading .scan needs the package ocr: pip install "x[ocr]"'
