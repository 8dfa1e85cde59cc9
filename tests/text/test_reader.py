"""Files become documents, whatever their kind; what cannot be read says why and stops nothing."""

import codecs
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dewey_embed.errors import ReadError
from dewey_embed.text.encodings import MAX_WESTERN_SHARE, decode
from dewey_embed.text.formats import FORMATS
from dewey_embed.text.reader import check_inputs, read_documents
from dewey_embed.types import Document, Landmark, Unreadable


def read(*inputs: Path | str, **options) -> list[Document | Unreadable]:
    return list(read_documents(list(inputs), **options))


def one(path: Path, data: bytes | str, **options) -> Document | Unreadable:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    (found,) = read(path, **options)
    return found


def pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    from fpdf import FPDF

    made = FPDF()
    if title:
        made.set_title(title)
    if password:
        made.set_encryption(owner_password="owner", user_password=password)
    made.set_font("helvetica", size=12)
    for page in pages:
        made.add_page()
        made.multi_cell(0, 8, page)
    return bytes(made.output())


# Folders


def test_a_folder_is_read_in_a_fixed_order_with_hidden_and_foreign_files_passed_over(tmp_path):
    for name in ("b.txt", "a.md", "sub/z.rst", "sub/deep/y.txt", ".hidden.txt", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "photo.PNG").write_bytes(b"\x89PNG\0")
    found = read(tmp_path)
    assert [Path(each.source).name for each in found] == [
        *("a.md", "b.txt", "photo.PNG", "z.rst", "y.txt")
    ]
    assert found == read(tmp_path)
    skipped = found[2]
    assert isinstance(skipped, Unreadable)
    assert skipped.skipped
    assert "not a kind of file that is read" in skipped.reason


def test_a_files_document_knows_where_it_is_from(tmp_path, monkeypatch):
    (tmp_path / "docs" / "guide").mkdir(parents=True)
    file = tmp_path / "docs" / "guide" / "Start.TXT"
    file.write_text("hello")
    (found,) = read(tmp_path / "docs")
    assert found == Document(
        id=file.resolve().as_posix(),
        text="hello",
        title="Start.TXT",
        source=file.resolve().as_posix(),
        root=(tmp_path / "docs").resolve().as_posix(),
        metadata={"extension": ".txt", "folder": "guide"},
        landmarks=(Landmark(0, "line", 1),),
    )
    monkeypatch.chdir(tmp_path / "docs")
    assert read("../docs") == [found]
    assert read(".") == [found]


def test_a_file_reached_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "link.txt").symlink_to("a.txt")
    assert len(read(tmp_path, tmp_path / "a.txt", tmp_path)) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (outside / "far.txt").write_text("far")
    (inside / "deep" / "near.txt").write_text("near")
    (inside / "deep" / "up").symlink_to(inside)
    (inside / "out").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    (inside / "self.txt").symlink_to("self.txt")
    (inside / "nowhere.txt").symlink_to("gone.txt")
    found = read(inside)
    assert sorted(each.text for each in found if isinstance(each, Document)) == ["far", "near"]
    faults = [each for each in found if isinstance(each, Unreadable)]
    assert len(faults) == 2
    assert [(Path(each.source).name, each.reason) for each in faults] == [
        ("nowhere.txt", "a broken link: gone.txt is not there"),
        ("self.txt", "a link that leads to itself"),
    ]


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (found,) = read(tmp_path)
    assert found.reason == "not a regular file"


def test_one_bad_file_does_not_stop_the_rest(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text("fine")
    (tmp_path / "07.txt").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "08.pdf").write_bytes(b"%PDF-1.7 nothing")
    (tmp_path / "09.docx").write_bytes(b"PK\x03\x04 cut")
    found = read(tmp_path)
    assert sum(isinstance(each, Document) for each in found) == 19
    faults = [each for each in found if isinstance(each, Unreadable)]
    assert [Path(each.source).name for each in faults] == ["07.txt", "08.pdf", "09.docx"]
    assert not any(each.skipped for each in faults)
    assert all(each.root == tmp_path.resolve().as_posix() for each in faults)


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("hello")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dewey_embed.text.reader.open", refuse, raising=False)
    (found,) = read(tmp_path)
    assert found.reason == "cannot be read: Permission denied"


def test_a_parser_that_breaks_is_a_reason_not_a_crash(tmp_path, monkeypatch):
    def broken(*_):
        raise RecursionError("too deep")

    broken_format = FORMATS["markdown"]._replace(read=broken, in_child=False)
    monkeypatch.setitem(FORMATS, "markdown", broken_format)
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "b.txt").write_text("y")
    fault, fine = read(tmp_path)
    assert fault.reason == "a damaged markdown file (RecursionError: too deep)"
    assert fine.text == "y"


def test_inputs_none_of_which_exists_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ReadError, match=r"no such file or folder: .*gone.*, other\.md; check"):
        read_documents([tmp_path / "gone", "other.md"])
    with pytest.raises(ReadError, match="only `dewey encode … --ray` reads addresses"):
        check_inputs(["s3://bucket/docs"])
    with pytest.raises(ReadError, match="no such file"):
        check_inputs(["nul\0name"])
    check_inputs([tmp_path, "-"])


@pytest.mark.parametrize("inputs", ["docs", Path("docs"), [3], [None]])
def test_inputs_of_a_wrong_type_are_refused(inputs):
    with pytest.raises(TypeError, match=r"single path|not a path"):
        read_documents(inputs)


def test_names_that_are_not_utf8_are_spelled_out(tmp_path):
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / name).write_text("hello")
    (found,) = read(tmp_path)
    assert found.id.endswith("/caf\\udce9.txt")
    assert found.title == "caf\\udce9.txt"


# Plain text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("plain é\r\nline\n".encode(), "plain é\r\nline\n"),
        (codecs.BOM_UTF8 + "é".encode(), "é"),
        (codecs.BOM_UTF16_LE + "é👩\r\n".encode("utf-16-le"), "é👩\r\n"),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "é"),
        (codecs.BOM_UTF32_LE + "é".encode("utf-32-le"), "é"),
        ("Un café très agréable, “à la française”".encode("cp1252"), None),
        ("Größe, Übermut, Fußgängerübergänge".encode("latin-1"), None),
    ],
)
def test_encodings_are_told_apart(data, text):
    guess = None if text else "cp1252"
    assert decode(data) == (text or data.decode("cp1252"), guess)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"abc\0def", "binary: a NUL at byte 3"),
        ("no mark".encode("utf-16-le"), "binary: a NUL at byte 1; if it is UTF-16"),
        (codecs.BOM_UTF16_LE + b"a\0b", "marked as UTF-16-LE, but byte 4"),
        (codecs.BOM_UTF8 + b"a\xffb", "marked as UTF-8, but byte 4"),
        ("damaged naïve café".encode() + b" \xc3 and more", "not UTF-8 text: byte 21 is 0xc3"),
        (b"text with \x01 and \xe9", "not UTF-8 text: byte 16"),
        (bytes(range(1, 256)), "not UTF-8 text: byte 127 is 0x80"),
    ],
)
def test_what_is_not_text_says_where(data, reason):
    with pytest.raises(ReadError) as caught:
        decode(data)
    assert str(caught.value).startswith(reason)


def test_the_share_of_western_letters_separates_the_alphabets():
    def share(text: str, encoding: str) -> float:
        data = text.encode(encoding)
        return sum(byte > 127 for byte in data) / len(data)

    french = "Le cœur a ses raisons que la raison ne connaît point ; on le sait en mille choses."
    german = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, früh am Morgen."
    russian = "В чащах юга жил бы цитрус? Да, но фальшивый экземпляр!"
    greek = "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, και όλα τα άλλα."
    assert max(share(french, "cp1252"), share(german, "cp1252")) < 0.1 < MAX_WESTERN_SHARE
    assert min(share(russian, "cp1251"), share(greek, "cp1253")) > 0.5 > MAX_WESTERN_SHARE


@pytest.mark.parametrize("data", [b"", b" \r\n\t", codecs.BOM_UTF8])
def test_an_empty_file_is_reported_as_skipped(tmp_path, data):
    found = one(tmp_path / "a.txt", data)
    assert isinstance(found, Unreadable)
    assert (found.reason, found.skipped) == ("empty", True)


def test_a_named_file_of_unknown_kind_is_tried_as_text(tmp_path):
    assert one(tmp_path / "Makefile", "all:\n").text == "all:\n"
    assert one(tmp_path / "main.py", "print()").metadata == {"extension": ".py", "folder": ""}
    assert "NUL" in one(tmp_path / "data.bin", b"abc\0").reason


def test_standard_input_is_a_file_of_the_kind_that_is_said():
    (found,) = read("-", "-", stdin=io.BytesIO(b"hello\n"))
    assert (found.source, found.root, found.text) == ("stdin", "-", "hello\n")
    assert found.id == "stdin-5891b5b522d5"  # of its text, so that two texts are two documents
    found = read("-", stdin=io.BytesIO(b'{"text": "a"}\n{"text": "b"}'), stdin_extension=".jsonl")
    assert [each.text for each in found] == ["a", "b"]


# Titles of marked-up text


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "intro\n\n## The *title* ##\r\n\n# Later", "The title"),
        ("a.md", "```sh\n# a comment\n```\n\nReal\n====\n", "Real"),
        ("a.markdown", "no heading\n#hashtag", "a.markdown"),
        ("a.rst", ".. comment\n\nName\r\n~~~~\r\ntext", "Name"),
        ("a.rst", "=====\nAbove\n=====\n", "Above"),
        ("a.txt", "# not markdown", "a.txt"),
        ("a.txt", "Supply of coal\r\n \r\nThe price.", "Supply of coal"),
        ("a.txt", "The price is paid\nmonthly.\n\nLate sums", "a.txt"),
        ("a.txt", "x" * 201 + "\n\nToo long for a title.", "a.txt"),
        ("a.md", "Supply of coal\n\nThe price.", "Supply of coal"),
        ("a.rst", "Supply of coal\n\nThe price.", "Supply of coal"),
    ],
)
def test_the_title_is_the_first_heading_or_a_first_line_with_a_blank_one_below_or_the_name(
    tmp_path, name, text, title
):
    found = one(tmp_path / name, text)
    assert found.title == title
    assert found.text == text


# HTML


def test_a_pages_visible_text_keeps_its_blocks(tmp_path):
    page = """<!doctype html><html><head><title> The
      title </title><style>p {color: red}</style></head><body>
      <script>alert("no")</script><!-- nor this -->
      <h1>Heading</h1><p>One <b>bold</b>
      word&nbsp;&amp; more.<br>New line</p><ul><li>first</li><li>second</li></ul>
      <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
      <pre>  keep
    this</pre><div hidden>secret</div><div>end</div></body></html>"""
    found = one(tmp_path / "a.html", page)
    assert found.title == "The title"
    assert found.text == (
        "Heading\n\nOne bold word\xa0& more.\nNew line\n\nfirst\nsecond\n\na\tb\n1\t2\n\n"
        "  keep\n    this\n\nend"
    )


def test_a_pages_declared_encoding_is_used_unless_it_is_false(tmp_path):
    page = '<meta charset="{}"><p>Привет</p>'
    assert one(tmp_path / "a.htm", page.format("windows-1251").encode("cp1251")).text == "Привет"
    assert one(tmp_path / "b.htm", page.format("no-such").encode()).text == "Привет"
    assert one(tmp_path / "c.htm", page.format("ascii").encode()).text == "Привет"
    latin = '<meta charset="iso-8859-1"><p>“café”</p>'.encode("cp1252")
    assert one(tmp_path / "d.htm", latin).text == "“café”"


def test_a_page_nested_deeper_than_python_recurses_is_read(tmp_path):
    deep = "<div>" * 5000 + "bottom" + "</div>" * 5000
    assert one(tmp_path / "a.html", deep).text == "bottom"


def test_a_page_of_scripts_only_is_not_taken_for_empty(tmp_path):
    found = one(tmp_path / "a.html", "<script>x</script>")
    assert found.reason.startswith("a page of 18 bytes without visible text; if scripts write")
    assert not found.skipped


# PDF


def test_a_pdfs_pages_are_paragraphs(tmp_path):
    found = one(tmp_path / "a.pdf", pdf("First page.\nIts line.", "Second", title="On Pages"))
    assert found.text == "First page.\nIts line.\n\nSecond"
    assert found.title == "On Pages"
    assert one(tmp_path / "b.pdf", pdf("x")).title == "b.pdf"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"junk", "not a PDF that can be opened"),
        (pdf("x")[:200], "not a PDF that can be opened"),
        (pdf("x", password="secret"), "protected by a password"),
        (pdf(" "), "its pages hold no text; if it is a scan"),
    ],
)
def test_a_pdf_that_cannot_be_read_says_why(tmp_path, data, reason):
    found = one(tmp_path / "a.pdf", data)
    assert found.reason.startswith(reason)
    assert not found.skipped


# Word


def word_file(*, title: str = "") -> bytes:
    import docx
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    made = docx.Document()
    made.core_properties.title = title
    made.add_heading("Heading", 1)
    made.add_paragraph("Before\tthe table")
    table = made.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, [("a", "b"), ("c", "d")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    inner = table.cell(1, 1).add_table(rows=1, cols=1)
    inner.cell(0, 0).text = "nested"
    last = made.add_paragraph("After ")
    last._p.append(parse_xml(f"<w:ins {nsdecls('w')}><w:r><w:t>inserted</w:t></w:r></w:ins>"))
    last._p.append(
        parse_xml(f"<w:del {nsdecls('w')}><w:r><w:delText>deleted</w:delText></w:r></w:del>")
    )
    last._p.append(
        parse_xml(f"<w:moveFrom {nsdecls('w')}><w:r><w:t>moved</w:t></w:r></w:moveFrom>")
    )
    made.element.body.insert(
        -1,
        parse_xml(
            f"<w:sdt {nsdecls('w')}><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p>"
            "</w:sdtContent></w:sdt>"
        ),
    )
    stream = io.BytesIO()
    made.save(stream)
    return stream.getvalue()


def test_a_word_files_paragraphs_and_tables_are_read_in_order(tmp_path):
    found = one(tmp_path / "a.docx", word_file(title="A report"))
    assert found.text.split("\n") == [
        "Heading",
        "Before\tthe table",
        "a\tb",
        "c\td nested",
        "After inserted",
        "control",
    ]
    assert found.title == "A report"
    assert one(tmp_path / "b.docx", word_file()).title == "Heading"


@pytest.mark.parametrize("data", [b"junk", word_file()[:2000], b"\xd0\xcf\x11\xe0" + b"\0" * 600])
def test_a_word_file_that_cannot_be_opened_says_so(tmp_path, data):
    assert one(tmp_path / "a.docx", data).reason.startswith("not a Word file (.docx)")


# JSONL

RECORDS = b"""\xef\xbb\xbf{"_id": "d1", "title": "One", "text": "first", "year": 1999, "x": null}

{"id": 7, "text": "second", "tags": ["nested", "left out"], "score": NaN}\r
{"text": "third"}
not json
[1, 2]
{"body": "no text"}
{"text": 5}
{"text": "caf\xe9"}
{"text": "  "}
{"id": [1], "text": "bad id"}
{"text": "last"}"""


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "A.JSONL", "a.b.jsonl.gz"])
def test_records_become_documents_and_bad_lines_are_numbered(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(RECORDS) if name.endswith("gz") else RECORDS)
    found = read(tmp_path)
    source = path.resolve().as_posix()
    documents = [each for each in found if isinstance(each, Document)]
    assert [each.id for each in documents] == ["d1", "7", f"{source}#4", f"{source}#12"]
    assert [each.text for each in documents] == ["first", "second", "third", "last"]
    assert documents[0].title == "One"
    of_file = {"extension": ".jsonl.gz" if name.endswith("gz") else path.suffix.lower()}
    of_file["folder"] = ""
    assert documents[0].metadata == {**of_file, "year": 1999, "x": None}
    assert documents[1].metadata == of_file
    assert documents[1].unread == {
        "metadata values that are not finite": 1,
        "metadata values that are not flat": 1,
    }
    assert {each.source for each in found} == {source}
    faults = {each.line: each.reason for each in found if isinstance(each, Unreadable)}
    assert sorted(faults) == [5, 6, 7, 8, 9, 10, 11]
    assert faults[5].startswith("not JSON: ")
    assert faults[6] == "a JSON list, not an object"
    assert faults[7].startswith("no field 'text'; it has 'body'")
    assert faults[8] == "field 'text' is int, not a string"
    assert faults[9].startswith("not JSON: 'utf-8' codec can't decode byte 0xe9 in position 13")
    assert faults[10] == "empty"
    assert faults[11] == "field 'id' is [1]; an id is a string or an integer"
    assert [each.line for each in found if isinstance(each, Unreadable) and each.skipped] == [10]


def test_a_record_without_a_title_has_that_of_its_text(tmp_path):
    text = "Supply of coal\n\nThe price."
    records = [{"text": text}, {"text": text, "title": " "}, {"text": text, "title": "T"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    titles = [each.title for each in read(tmp_path / "a.jsonl")]
    assert titles == ["Supply of coal", "Supply of coal", "T"]


def test_chosen_fields_are_text_id_and_title(tmp_path):
    record = '{"key": "k", "id": 3, "name": "N", "title": "T", "abstract": "A", "body": "B"}'
    options = {"text_fields": ["abstract", "body"], "id_field": "key", "title_field": "name"}
    found = one(tmp_path / "a.jsonl", record, **options)
    assert (found.id, found.title, found.text) == ("k", "N", "A\n\nB")
    assert found.metadata == {"extension": ".jsonl", "folder": "", "id": 3, "title": "T"}
    assert one(tmp_path / "b.jsonl", record, text_fields="body").text == "B"


def test_a_records_own_extension_and_folder_come_before_its_files(tmp_path):
    found = one(tmp_path / "a.jsonl", '{"text": "x", "folder": "letters"}')
    assert found.metadata == {"extension": ".jsonl", "folder": "letters"}


def test_a_record_without_the_chosen_id_is_refused(tmp_path):
    found = one(tmp_path / "a.jsonl", '{"text": "x", "id": 1}', id_field="key")
    assert found.reason.startswith("field 'key' is None")


def test_a_gzip_cut_short_keeps_what_came_before(tmp_path):
    lines = b"".join(
        b'{"text": "%d %s"}\n' % (n, os.urandom(20).hex().encode()) for n in range(9000)
    )
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines)[:-1000])
    *documents, fault = read(path)
    assert len(documents) > 1000
    assert all(isinstance(each, Document) for each in documents)
    assert fault.reason.startswith("damaged after line ")
    (fault,) = read_documents([_write(tmp_path / "b.jsonl.gz", b"not gzip")])
    assert fault.reason.startswith("damaged after line 0")


def test_a_binary_file_named_jsonl_is_one_fault(tmp_path):
    found = one(tmp_path / "a.jsonl", b"\x00\x01\n" * 100)
    assert (found.reason, found.line) == ("binary, not JSONL", None)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_an_unreadable_prints_as_one_line():
    assert str(Unreadable(source="/a.jsonl", reason="empty", line=3)) == "/a.jsonl, line 3: empty"
    assert str(Unreadable(source="/a.txt", reason="empty")) == "/a.txt: empty"


def test_text_modules_import_nothing_heavy():
    code = (
        "import sys; from dewey_embed.text import reader, splitter, tokenizer;"
        "heavy = ['torch', 'bs4', 'docx', 'lxml', 'pypdfium2', 'langchain_text_splitters'];"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
