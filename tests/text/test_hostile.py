"""Files that are damaged, made to do harm, or too large: named, and the rest read."""

import contextlib
import gc
import gzip
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from dewey_embed.errors import ConfigError, ReadError
from dewey_embed.text import child
from dewey_embed.text.child import Parsers
from dewey_embed.text.html import read_html
from dewey_embed.text.inputs import ReadLimits, ReadOptions
from dewey_embed.text.markup import read_markdown, read_restructured
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Unreadable


@pytest.fixture(autouse=True)
def started_as_by_users(monkeypatch):
    monkeypatch.setattr(child, "subprocess", subprocess)


DRAWN_BY_ITSELF = """%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R
/Resources <</XObject <</F0 5 0 R>>>>>> endobj
4 0 obj <</Length 6>> stream
/F0 Do
endstream endobj
"""


def laughing_pdf(depth: int = 9, times: int = 10) -> bytes:
    """Forms that draw ten forms each that draw ten forms each."""
    parts = [DRAWN_BY_ITSELF]
    for number in range(depth):
        draw = f"/F{number + 1} Do " * times
        resources = f"/Resources <</XObject <</F{number + 1} {number + 6} 0 R>>>>"
        parts.append(
            f"{number + 5} 0 obj <</Type/XObject/Subtype/Form/BBox[0 0 9 9]{resources}"
            f"/Length {len(draw)}>> stream\n{draw}\nendstream endobj\n"
        )
    text = "BT (ha) Tj ET"
    parts.append(
        f"{depth + 5} 0 obj <</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length {len(text)}>>"
        " stream\n"
        f"{text}\nendstream endobj\ntrailer <</Root 1 0 R>>\n%%EOF"
    )
    return "".join(parts).encode()


def word_file(path: Path, body: str | bytes, **others: bytes) -> None:
    """A Word file with a body of one's own."""
    inside = body if isinstance(body, bytes) else body.encode()
    name = b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        whole = b'<w:document xmlns:w="%s"><w:body>%s</w:body></w:document>' % (name, inside)
        package.writestr("word/document.xml", whole)
        for part, data in others.items():
            package.writestr(f"word/media/{part}", data)


def by_name(*inputs: Path, **limits: float) -> dict[str, Document | Unreadable]:
    found = read_documents(list(inputs), limits=ReadLimits(**limits))  # type: ignore[arg-type]
    return {Path(each.source).name: each for each in found}


def test_files_that_never_end_are_named_with_the_limit_and_the_rest_is_read(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("good")
        (tmp_path / f"{number}.html").write_text("<p>good")
    (tmp_path / "0.pdf").write_bytes(laughing_pdf())
    word_file(tmp_path / "1.docx", "<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 600_000)
    start = time.monotonic()
    found = by_name(tmp_path, file_timeout_s=0.8, file_memory_mb=400)
    assert time.monotonic() - start < 30
    texts = [each.text for each in found.values() if isinstance(each, Document)]
    assert texts == ["good"] * 60
    assert found["1.docx"].reason == (
        "parsing takes more than 0.8 s; --file-timeout-s raises the limit"
    )
    assert found["0.pdf"].reason in (
        "parsing takes more than 0.8 s; --file-timeout-s raises the limit",
        "parsing needs more than 400 MB; --file-memory-mb raises the limit",
    )
    assert not any(each.skipped for each in found.values() if isinstance(each, Unreadable))


def test_what_needs_too_much_memory_is_named_with_the_limit(tmp_path):
    word_file(tmp_path / "a.docx", "<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 300_000)
    (tmp_path / "b.html").write_text("<p>good")
    found = by_name(tmp_path, file_memory_mb=64)
    expected = "parsing needs more than 64 MB; --file-memory-mb raises the limit"
    assert found["a.docx"].reason == expected
    assert found["b.html"].text == "good"


def test_a_parser_that_is_killed_costs_only_its_file(tmp_path):
    (tmp_path / "a.html").write_text("<p>one")
    (tmp_path / "b.html").write_text("<p>two")
    with Parsers(ReadOptions()) as parsers:
        assert [each.text for each in parsers.read("html", tmp_path / "a.html")] == ["one"]
        os.kill(parsers._worker._process.pid, signal.SIGKILL)
        assert [each.text for each in parsers.read("html", tmp_path / "b.html")] == ["two"]
        process = parsers._worker._process
    assert process.poll() is not None


def test_a_parser_left_alone_ends_by_itself(tmp_path):
    word_file(tmp_path / "a.docx", "<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 900_000)
    limits = json.dumps([{"file_timeout_s": 0.1}, {}])
    code = "from dewey_embed.text.child import main; main()"
    orphan = subprocess.Popen(
        [sys.executable, "-c", code, limits], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with orphan:
        child.send(orphan.stdin, {"format": "docx", "path": str(tmp_path / "a.docx")})
        assert orphan.wait(20) == -signal.SIGALRM


def test_ctrl_c_ends_a_reading_that_is_held_up(tmp_path):
    word_file(tmp_path / "a.docx", "<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 900_000)
    code = (
        "import sys; from dewey_embed import read_documents; print('begun', flush=True);"
        f"print(list(read_documents([{str(tmp_path)!r}]))[0].reason)"
    )
    reading = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert reading.stdout.readline() == "begun\n"
    time.sleep(1)
    reading.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, stderr = reading.communicate(timeout=20)
    assert time.monotonic() - start < 2
    assert reading.returncode != 0
    assert "KeyboardInterrupt" in stderr


def test_texts_past_the_limit_are_refused_with_both_numbers(tmp_path):
    with open(tmp_path / "sparse.txt", "wb") as file:
        file.truncate(3_000_000_000)
    for name in ("a.md", "b.html"):
        (tmp_path / name).write_bytes(b"word " * 250_000)
    (tmp_path / "c.txt").write_bytes(b"word " * 150_000)
    with gzip.open(tmp_path / "d.jsonl.gz", "wb") as lines:
        lines.write(b'{"text": "' + b"a" * 5_000_000 + b'"}\n{"text": "good"}\n')
    found = by_name(tmp_path, max_text_mb=1)
    limit = "longer than the 1 MB of text that are read; --max-text-mb raises the limit"
    assert found["sparse.txt"].reason == f"3,000 MB, {limit}"
    assert found["a.md"].reason == f"1 MB, {limit}"
    assert found["b.html"].reason == f"1 MB, {limit}"
    assert len(found["c.txt"].text) == 750_000
    *_, line, good = read_documents([tmp_path / "d.jsonl.gz"], limits=ReadLimits(max_text_mb=1))
    assert (line.line, line.reason) == (1, f"a line {limit}")
    assert good.text == "good"


def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path):
    word_file(tmp_path / "a.docx", b"<w:p/>" + b" " * 5_000_000)
    word_file(tmp_path / "b.docx", "<w:p><w:r><w:t>good</w:t></w:r></w:p>", x=bytes(200_000_000))
    found = by_name(tmp_path, max_text_mb=1, file_memory_mb=64)
    assert "word/document.xml is 5 MB, longer than the 1 MB" in found["a.docx"].reason
    word_file(tmp_path / "c.docx", "<w:p><w:r><w:t>rent</w:t></w:r></w:p>" * 60_000)
    assert "2 MB, longer than" in by_name(tmp_path, max_text_mb=1)["c.docx"].reason
    assert found["b.docx"].text == "good"


def test_records_that_unpack_out_of_all_proportion_are_left(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as lines:
        lines.write(b'{"text": "good"}\n' + (b" " * 1000 + b"\n") * 40_000)
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as lines:
        lines.write(
            os.urandom(200_000).hex().encode().join([b'{"text": "', b'"}\n']) + b" " * 20_000
        )
    good, fault, other = read_documents([tmp_path])
    assert good.text == "good"
    assert "unpacks to more than 200 times its size; if that is right, unpack it" in fault.reason
    assert len(other.text) == 400_000


def test_entities_are_neither_multiplied_nor_fetched(tmp_path):
    (tmp_path / "secret").write_text("secret")
    for name, entity in [("a", f'SYSTEM "file://{tmp_path}/secret"'), ("b", '"&c;&c;"')]:
        with zipfile.ZipFile(tmp_path / f"{name}.docx", "w") as package:
            package.writestr(
                "word/document.xml",
                f'<!DOCTYPE d [<!ENTITY c "ha"><!ENTITY e {entity}>]><w:document xmlns:w="http://'
                'schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
                "<w:t>seen</w:t><w:t>&e;</w:t></w:r></w:p></w:body></w:document>",
            )
    found = by_name(tmp_path)
    assert found["a.docx"].text == found["b.docx"].text == "seen"


@pytest.mark.parametrize("name", ["file_timeout_s", "file_memory_mb", "max_text_mb"])
@pytest.mark.parametrize("value", [0, -1, "much", float("nan")])
def test_a_limit_that_is_none_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        ReadLimits(**{name: value})


# Time that grows with the size of a text, and no faster

LONG = {
    "heading": (read_markdown, "# a" + " " * 100 + "b "),
    "blanks": (read_markdown, " " * 100),
    "blank lines": (read_markdown, "a" + " " * 99 + "\n"),
    "fences": (read_markdown, "```\nx\n~~~\n"),
    "hashes": (read_markdown, "#" * 100),
    "links": (read_markdown, "# [a](" * 20 + "\n"),
    "quotations": (read_markdown, "> " * 50),
    "items": (read_markdown, "- " * 20 + "```\n"),
    "closing hashes": (read_markdown, "# a" + " #" * 50),
    "paragraphs": (read_markdown, "a\n"),
    "html": (read_markdown, "<div\n\n"),
    "headings in html": (read_markdown, "<h1>a"),
    "open tags": (read_markdown, "<h1 "),
    "cells": (read_html, "<table><tr><td><h2>a</h2></td> <td>b</td></tr></table>"),
    "cells of one row": (read_html, "<td> <!-- a -->"),
    "sections": (read_html, "<section><h2>a</h2>"),
    "headings": (read_html, "<h1>a<h2>"),
    "front matter": (read_markdown, "---\ntitle:\n"),
    "underlines": (read_restructured, "a" + " " * 50 + "\n" + "=" * 50 + "x\n"),
    "marks": (read_restructured, "`a <b" * 20 + "\n" + "=" * 100 + "\n\n"),
    "rules": (read_restructured, "=" * 100 + "\n"),
    "attributes": (read_html, "<a b='"),
    "many attributes": (read_html, "".join(f" a{number}=1" for number in range(10_000))),
    "comments": (read_html, "<p>a<!--"),
    "depth": (read_html, "<div>a"),
    "closed by others": (read_html, "<p><b>a</i>"),
    "fonts": (read_html, "<p><font color=1>a</p>"),
    "frames": (read_html, "a<iframe>"),
    "scripts": (read_html, "<p>a<script "),
    "declared": (read_html, "<meta a <p>a"),
    "selects": (read_html, "a<select><option>"),
    "tables": (read_html, "<table><tr><td>a"),
}


@pytest.mark.parametrize("kind", LONG)
def test_time_grows_no_faster_than_a_text(kind):
    read, piece = LONG[kind]

    def seconds(size: int) -> float:
        start = "<p>a<a" if kind == "many attributes" else ""
        data = (start + piece * (size // len(piece))).encode()
        gc.disable()  # a collection in the midst of it walks whatever other tests have left
        try:
            begun = time.thread_time()
            with contextlib.suppress(ReadError):
                read(data)
            return time.thread_time() - begun
        finally:
            gc.enable()

    def grows_too_fast() -> bool:
        large = seconds(400_000)
        return large >= 4 or (large >= 0.5 and large >= 8 * seconds(100_000))  # four times the text

    assert not all(grows_too_fast() for _ in range(4))  # other work slows the machine
