"""What is in files of each format: read, or counted as left out; never mojibake, never markup."""

import io
import zipfile
from pathlib import Path

import pytest

from dewey_embed.text.encodings import decode
from dewey_embed.text.headings import markdown_headings
from dewey_embed.text.html import decoded, visible
from dewey_embed.text.inputs import Content
from dewey_embed.text.mail import read_mail, read_rich_text
from dewey_embed.text.markup import first_heading, split_front_matter, usable
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Unreadable


def one(path: Path, data: bytes | str, **options) -> Document | Unreadable:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    (found,) = read_documents([path], **options)
    return found


# Pages


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<!doctype html><html><head><title>T</title>\n<body><p>seen</p></body></html>", "seen"),
        ("<html><head><meta name=x>seen", "seen"),
        ("<p>before<iframe src=x><p>seen", "before\n\nseen"),
        ("<p>before<iframe src=x>hidden</iframe><p>seen", "before\n\nseen"),
        ("<p>before<iframe src=x><p>seen<iframe src=y></iframe>", "before\n\nseen"),
        ("<p>before<select><option>A<option>B<p>seen", "before\nA\nB\n\nseen"),
        ("<p>before<select><option>A</select><p>seen", "before\n\nseen"),
        ('<p>before<svg><path d="M0">seen', "before seen"),
        ("<p>before<svg><text>drawn</text></svg><p>seen", "before\n\nseen"),
        ("<title>never closed<body><p>seen", "never closed\n\nseen"),
        ("<p>before<textarea>seen", "before seen"),
        ("<p>before<noscript>seen", "before seen"),
        ("<p>before<template>seen", "before seen"),
        ("<p>before<object data=x>seen", "before seen"),
        ("<p>before<!-- seen", "before seen"),
        ("<p>before<!-- hidden --> seen", "before seen"),
        ("<p>before<plaintext><p>seen", "before\n\nseen"),
        ("<p>before<xmp>seen", "before seen"),
        ("<p>before<style>p {}<p>seen", "before\n\nseen"),
        ("<p>before<script>var x<p>seen", "before\n\nseen"),
        ("<script src=x />before<p>seen</p><script>var x</script>", "before\n\nseen"),
        ("<script>write('<script>')</script><p>seen", "seen"),
        ("<noscript><p>seen</noscript>", "seen"),
        ("<div hidden><p>seen</div>", "seen"),
        ('<p style="display:none">styled</p><p>seen', "styled\n\nseen"),
        ("<nav>menu</nav><main>seen</main><footer>foot</footer>", "seen\n\nfoot"),
        ("<nav>menu</nav><div role=navigation>more</div>", "menu\n\nmore"),
        ("<div role=navigation>menu</div><p>seen", "seen"),
        ("<nav>Home<p>seen", "Home\n\nseen"),
        ("<nav>menu</nav><noscript>no script</noscript>", "menu"),
        ("<p>before<![CDATA[seen]]>", "beforeseen"),
        ("<p>a &lt;b&gt; &amp;eacute; &#233;", "a <b> &eacute; é"),
        ("<div>" * 100_000 + "seen" + "</div>" * 100_000, "seen"),
        ("<b>" * 30_000 + "seen", "seen"),
        ("<table><tr><td>" * 3_000 + "seen", "seen"),
    ],
    ids=lambda value: value[:40],
)
def test_visible_text_survives_what_is_not_closed(page, text):
    assert visible(page).text == text


def test_siblings_past_the_depth_that_is_kept_stay_apart():
    inner = "".join(f"<div>line {number}</div>" for number in range(3))
    text = visible("<div>" * 600 + inner + "</div>" * 600).text
    assert text.split() == ["line", "0", "line", "1", "line", "2"]
    assert "0\n" in text


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ("<meta http-equiv=content-type content='text/html; charset=koi8-r'>", "koi8_r"),
        ('<?xml version="1.0" encoding="iso-8859-5"?>', "iso8859-5"),
        ("<meta charset=shift_jis>", "shift_jis"),
        ("<meta charset=windows-1251>", "utf-8"),  # a declaration that is false
        ("<meta charset=utf-16>", "utf-8"),
        ("<meta charset=idna>", "utf-8"),
        ("<meta charset=unicode_escape>", "utf-8"),
        ("<meta charset=utf-8>", "cp1251"),
    ],
)
def test_a_page_is_decoded_as_it_declares_unless_it_cannot_be(head, encoding):
    source = f"{head}<p>Привет, это обычная страница в старой кодировке."
    if encoding == "shift_jis":
        source = f"{head}<p>日本語の文章です"
    found = decoded(source.encode(encoding))
    assert found.text == source
    is_guess = encoding == "cp1251" and "utf-8" in head
    assert found.guess == ("cp1251" if is_guess else None)


# Encodings

POLISH = "Zażółć gęślą jaźń. To jest zdanie w starym kodowaniu, i jeszcze jedno."
RUSSIAN = "Съешь ещё этих мягких французских булок, да выпей чаю."
ENGLISH = "The whole of this text is English, with a single naïve word in it and “quotes”."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (POLISH, "cp1250"),
        (POLISH, "iso8859-2"),
        ("Işık ve ağaç. Bu eski bir belge, başka bir şey değil.", "cp1254"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp866"),
        ("Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, και όλα τα άλλα.", "cp1253"),
        ("日本語の文章です。カメラの使い方を説明します。", "shift_jis"),
        ("日本語の文章です。カメラの使い方を説明します。", "euc_jp"),
        ("日本語の文章です。カメラの使い方を説明します。", "iso2022_jp"),
        ("This manual was written in English for the camera カメラ model. " * 3, "shift_jis"),
        ("这是一个用旧编码写的中文文件，内容是关于图书馆的规定。", "gb18030"),
        ("這是一個用舊編碼寫的中文文件，內容是關於圖書館的規定。", "big5"),
        ("이 문서는 오래된 인코딩으로 작성되었습니다. 도서관 규정에 관한 것입니다.", "euc_kr"),
        ("Un café très agréable, “à la française”", "cp1252"),
        ("Größe, Übermut, Fußgängerübergänge", "latin-1"),
        ("El niño comió mañana en España. ¿Qué pasó después?", "latin-1"),
        ("Það er gott að þú ert hér og sérð þetta", "cp1252"),
        (ENGLISH, "cp1252"),
        ("Der Käse und das Brötchen über dem Fluss. " * 3, "cp850"),
    ],
)
def test_old_encodings_are_read_and_said_to_be_guesses(tmp_path, text, encoding):
    found = one(tmp_path / "a.txt", text.encode(encoding))
    assert found.text == text
    [(kind, number)] = found.unread.items()
    assert kind.startswith("guessed encoding ")
    assert number == 1


@pytest.mark.parametrize("line_end", ["", "\n", " and so on, in English for a while. " * 20])
@pytest.mark.parametrize("encoding", ["shift_jis", "iso2022_jp"])
def test_long_texts_are_decoded_as_short_ones_are(encoding, line_end):
    text = f"A manual.\n{line_end}カメラの使い方を説明します。{line_end}" * 3_000
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["mac_roman", "cp1257", "iso8859-3", "hp_roman8", "utf-7"])
def test_what_may_be_guessed_wrong_is_said_to_be_a_guess(tmp_path, encoding):
    text = "Le café et la forêt naïve du résumé de l'été, et à côté le garçon. " * 3
    found = one(tmp_path / "a.txt", text.encode(encoding, "ignore"))
    if isinstance(found, Document) and encoding != "utf-7":
        assert found.text == text or found.unread


def test_damaged_utf8_is_not_taken_for_another_encoding():
    with pytest.raises(ValueError, match="not UTF-8 text: byte 57 is 0xff"):
        decode("日本語の文章です。カメラの使い方。中文".encode() + b"\xff and more")


# Titles


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: Garden plan\ntags: [a]\n---\n\n# Roses", "Garden plan"),
        ("---\ntags: [a]\ntitle: 'It''s: here'\n---\n", "It"),
        ('---\ntitle: "A: b" # remark\n...\n# Roses', "A: b"),
        ('+++\ntitle = "Hugo note"\ndraft = true\n+++\n\nText.', "Hugo note"),
        ('{"title": "Json note", "x": 1}\n\n# Roses', "Json note"),
        ("---\ntags: [a]\n---\n\n# Roses", "Roses"),
        ("---\r\ntitle: Garden plan\r\n---\r\n\r\n# Roses", "Garden plan"),
        ("---\nnever closed\n\n# Roses", "Roses"),
        ("***\n\nRoses\n-----\n", "Roses"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\n# Roses", "Roses"),
    ],
)
def test_front_matter_is_no_heading(text, title):
    found, body = split_front_matter(text)
    assert (found or first_heading(markdown_headings(body))) == title


@pytest.mark.parametrize(
    "title",
    [
        *("", " \0", "untitled", "Untitled Document", "untitled-1", "Microsoft Word - x.doc"),
        *("Letter.indd", "C:\\docs\\report.docx", "Document1", "PowerPoint Presentation"),
        *("Word Document", "Presentation2", "Slide 1", "(none)", "Unbenannt", "Sans titre", "..."),
        *("a" * 5000, "/home/me/thesis.tex", "index", "scan0001.jpg"),
    ],
)
def test_titles_that_programs_write_are_none(title):
    assert usable(title) == ""


def test_titles_that_people_write_are_kept():
    for title in ("A report", "Untitled: a memoir", "Microsoft Word for all", "1984", "版本"):
        assert usable(title) == title
    assert usable("Microsoft Word - Rental\n contract") == "Rental contract"


# Word

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def word_file(body: str, *, core: str = "", styles: str = "", **parts: str) -> bytes:
    stream = io.BytesIO()
    names = (
        f'xmlns:w="{_W}" xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    with zipfile.ZipFile(stream, "w") as package:
        package.writestr(
            "word/document.xml", f"<w:document {names}><w:body>{body}</w:body></w:document>"
        )
        if core:
            dc = "http://purl.org/dc/elements/1.1/"
            package.writestr(
                "docProps/core.xml", f'<c xmlns:d="{dc}"><d:title>{core}</d:title></c>'
            )
        if styles:
            package.writestr("word/styles.xml", f"<w:styles {names}>{styles}</w:styles>")
        for name, inside in parts.items():
            package.writestr(f"word/{name}.xml", f"<w:x {names}>{inside}</w:x>")
    return stream.getvalue()


def p(text: str, style: str = "") -> str:
    styled = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{styled}<w:r><w:t>{text}</w:t></w:r></w:p>"


def box(*paragraphs: str) -> str:
    inner = f"<w:txbxContent>{''.join(paragraphs)}</w:txbxContent>"
    return (
        f"<w:r><mc:AlternateContent><mc:Choice>{inner}</mc:Choice>"
        f"<mc:Fallback>{inner}</mc:Fallback></mc:AlternateContent></w:r>"
    )


def test_text_boxes_are_paragraphs_of_their_own_each_once(tmp_path):
    table = f"<w:tbl><w:tr><w:tc>{p('a')}</w:tc><w:tc>{p('b')}</w:tc></w:tr></w:tbl>"
    host = f"<w:p><w:r><w:t>host</w:t></w:r>{box(p('one'), p('two'), table)}</w:p>"
    found = one(tmp_path / "a.docx", word_file(host + p("after")))
    assert found.text == "host\none\ntwo\na\tb\nafter"


def test_notes_comments_headers_and_equations_are_read(tmp_path):
    equation = (
        "<w:p><w:r><w:t>so </w:t></w:r><m:oMath><m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e>"
        "<m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup></m:oMath></w:p>"
    )
    note = '<w:footnote w:type="separator"><w:p/></w:footnote><w:footnote>{}</w:footnote>'
    data = word_file(
        equation,
        footnotes=note.format(p("a foot note")),
        endnotes=p("an end note"),
        comments=p("a comment"),
        header1=p("page head"),
        header2=p("page head"),
        footer1=p("page foot"),
    )
    found = one(tmp_path / "a.docx", data)
    assert found.text.split("\n") == [
        *("so x^2", "page head", "page foot", "a foot note", "an end note", "a comment")
    ]
    assert found.unread == {}


def test_what_a_word_file_holds_beside_text_is_counted(tmp_path):
    parts = {"embeddings/sheet1": "", "charts/chart1": "", "diagrams/data1": ""}
    found = one(tmp_path / "a.docx", word_file(p("text"), **parts))
    assert found.unread == {"embedded files": 1, "charts": 1, "diagrams": 1}
    assert "without text" in one(tmp_path / "b.docx", word_file("<w:p/>")).reason


def test_a_word_files_title_is_its_property_or_its_styled_line(tmp_path):
    names = '<w:style w:styleId="{}"><w:name w:val="{}"/></w:style>'
    styles = names.format("Titel", "Title") + names.format("berschrift1", "heading 1")
    body = p("Kapitel", "berschrift1") + p("Das Buch", "Titel")
    for number, (data, title) in enumerate(
        [
            (word_file(body, core="Given", styles=styles), "Given"),
            (word_file(body, core="Microsoft Word - x.doc", styles=styles), "Das Buch"),
            (word_file(p("Kapitel", "berschrift1"), styles=styles), "Kapitel"),
            (word_file(p("Chapter", "Heading1")), "Chapter"),
            (word_file(p("Chapter")), "4.docx"),
        ]
    ):
        assert one(tmp_path / f"{number}.docx", data).title == title


# PDF


def annotated_pdf() -> bytes:
    from fpdf import FPDF

    made = FPDF()
    made.set_font("helvetica", size=12)
    made.add_page()
    made.cell(text="Body text")
    made.text_annotation(10, 10, text="a sticky note")
    made.free_text_annotation("typed on it", x=10, y=30, w=50, h=10)
    made.embed_file(bytes=b"data", basename="data.csv")
    for _ in range(2):
        made.add_page()
        made.rect(10, 10, 50, 50)
    made.add_page()
    return bytes(made.output())


def test_a_pdfs_notes_are_read_and_what_is_left_out_is_counted(tmp_path):
    found = one(tmp_path / "a.pdf", annotated_pdf())
    assert found.text == "Body text\na sticky note\ntyped on it"
    assert found.unread == {"pages without text": 2, "attachments": 1}


def form_pdf() -> bytes:
    fields = [
        "/FT/Tx /T(tenant) /V(Wilhelmina)",
        "/FT/Tx /T(empty) /V()",
        "/FT/Ch /T(city) /V(Trieste) /Opt[(Trieste)(Graz)] /Ff 131072",
        "/FT/Btn /T(agreed) /V/Yes /AS/Yes /AP<</N<</Yes 4 0 R /Off 4 0 R>>>>",
        "/FT/Btn /T(refused) /V/Off /AS/Off /AP<</N<</Yes 4 0 R /Off 4 0 R>>>>",
    ]
    numbers = [f"{5 + index} 0 R" for index in range(len(fields))]
    objects = [
        f"1 0 obj <</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[{' '.join(numbers)}]>>>> endobj",
        "2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj",
        "3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]"
        f"/Annots[{' '.join(numbers)}]>> endobj",
        "4 0 obj <</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length 0>> stream\n\nendstream endobj",
        *(
            f"{5 + index} 0 obj <</Type/Annot/Subtype/Widget/Rect[0 0 50 20]{field}>> endobj"
            for index, field in enumerate(fields)
        ),
    ]
    return ("%PDF-1.4\n" + "\n".join(objects) + "\ntrailer <</Root 1 0 R>>\n%%EOF").encode()


def test_a_pdfs_form_is_read_with_its_values(tmp_path):
    found = one(tmp_path / "a.pdf", form_pdf())
    assert found.text == "tenant: Wilhelmina\ncity: Trieste\nagreed: Yes"


# Letters, Rich Text


def test_a_letter_is_its_headers_and_its_text_and_attachments_are_counted():
    from email.message import EmailMessage

    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = "a@x.org", "b@x.org", "Die Miete für Mai"
    letter.set_content("Die Miete ist fällig.")
    letter.add_alternative("<p>Die Miete ist <b>fällig</b>.", subtype="html")
    letter.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="x")
    found = read_mail(letter.as_bytes())
    assert found.title == "Die Miete für Mai"
    assert found.text == (
        "From: a@x.org\nTo: b@x.org\nSubject: Die Miete für Mai\n\nDie Miete ist fällig."
    )
    assert found.unread == {"attachments": 1}


def test_a_letter_that_cannot_be_opened_is_its_headers_and_says_so():
    data = b"Subject: Rent\nContent-Type: application/pkcs7-mime\n\nMIAGCSqGSIb3DQEHA6CAMIACAQ\n"
    assert read_mail(data) == Content("Subject: Rent", "Rent", {"attachments": 1})
    latin = b"Subject: Rent\nContent-Type: text/plain\n\nDie Miete ist f\xe4llig, sp\xe4testens."
    found = read_mail(latin)
    assert found.text.endswith("Die Miete ist fällig, spätestens.")
    assert "guessed encoding" in str(found.unread)


def test_a_saved_page_is_read_without_its_markup():
    data = (
        b"From: <Saved by Blink>\r\nSubject: A page\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/related; type="text/html"; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/html; charset=cp1251\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\nPHA+z/Do4uXy\r\n--b--\r\n"
    )
    assert read_mail(data).text.endswith("\n\nПривет")


def test_rich_text_is_read_without_its_commands():
    data = rb"{\rtf1\ansi\ansicpg1252{\fonttbl\f0 Arial;}\f0 Rent is {\b due}.\par Caf\'e9 \u8364?}"
    assert read_rich_text(data).text == "Rent is due.\nCafé €"
    fonts = rb"{\fonttbl{\f0\fcharset0 A;}{\f1\fcharset238 B;}}"
    data = (
        rb"{\rtf1\ansi\ansicpg1252"
        + fonts
        + rb"\f1 Za\'bf\'f3\'b3\'e6 \f0 caf\'e9 \u-10179?\u-8704?}"
    )
    assert read_rich_text(data).text == "Zażółć café \U0001f600"
    assert read_rich_text(rb"{\rtf1\mac caf\'8e}").text == "café"
    assert read_rich_text(rb"{\rtf1\ansi\ansicpg936 \'d6\'d0\'ce\'c4}").text == "中文"
    found = read_rich_text(rb"{\rtf1 a{\footnote b}\ansicpg932 \'83}")
    assert found == Content("a\ufffd", "", {"notes": 1, "damaged characters": 1})
    with pytest.raises(ValueError, match="without text"):
        read_rich_text(rb"{\rtf1{\pict 8950}}")
