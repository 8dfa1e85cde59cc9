"""Mailboxes by the mailbox module: a document for each letter, whatever its encoding."""

import mailbox
from email.message import EmailMessage

import pytest

from dewey_embed.text.inputs import ReadLimits
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Unreadable
from tests.text.places import one


def letter(subject: str, text: str, **headers: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "Ann <a@x.org>", "b@x.org", subject
    for name, value in headers.items():
        made[name] = value
    made.set_content(text)
    return made


def make_mailbox(path) -> None:
    box = mailbox.mbox(str(path))
    box.add(letter("Die Miete", "Die Miete ist fällig.", Date="Fri, 31 May 2024 10:00:00 +0200"))
    box.add(letter("Lines", "Hello.\n\nFrom here we go\n\nFrom: the start"))
    page = letter("", "unused")
    page.set_content("<p>A <b>page</b></p>", subtype="html")
    page.add_attachment(b"\0", maintype="image", subtype="png", filename="x.png")
    box.add(page)
    box.close()


def test_each_letter_is_a_document_with_its_subject_and_metadata(tmp_path):
    make_mailbox(tmp_path / "a.mbox")
    first, second, third = read_documents([tmp_path])
    source = (tmp_path / "a.mbox").resolve().as_posix()
    assert [each.id for each in (first, second, third)] == [f"{source}#{n}" for n in (1, 2, 3)]
    assert (first.title, second.title, third.title) == ("Die Miete", "Lines", "")
    assert first.text.endswith("\n\nDie Miete ist fällig.")
    assert first.metadata == {
        **{"from": "Ann <a@x.org>", "to": "b@x.org", "date": "2024-05-31"},
        **{"extension": ".mbox", "folder": ""},
    }
    assert second.text.endswith("\n\nHello.\n\nFrom here we go\n\nFrom: the start")
    assert third.text.endswith("\n\nA page")
    assert third.unread == {"attachments": 1}


def test_a_mailbox_is_known_without_its_extension(tmp_path):
    make_mailbox(tmp_path / "Inbox")
    (tmp_path / "b.txt").write_bytes((tmp_path / "Inbox").read_bytes())
    for name in ("Inbox", "b.txt"):
        assert [each.title for each in read_documents([tmp_path / name])][:2] == [
            *("Die Miete", "Lines")
        ]


BROKEN = (
    b"From - Fri May 31 10:00:00 2024\n"
    b"From: M\xfcller <m@x.org>\nSubject: \xdcberweisung der K\xe4lte\n"
    b"Date: no day\n\nSch\xf6n.\n\n"
    b"From a@x.org Fri May 31 10:00:00 2024\n"
    b"Subject: =?no-such-charset?B?w6Q=?= x\nContent-Type: text/plain; charset=no-such\n\ntext\n\n"
    b"From a@x.org Fri May 31 10:00:00 2024\n"
    b"Subject: parts\nContent-Type: multipart/mixed\n\nno boundary in it\n\n"
    b"From a@x.org Fri May 31 10:00:00 2024\n"
    b"Subject: ok\nFrom: =?utf-8?Q?=ff=fe?= <\xff>\n"
    b"Content-Transfer-Encoding: base64\n\n!!not64\n\n"
    b"From a@x.org Fri May 31 10:00:00 2024\n"
    b"Subject: last\n\nthe end\n"
)


def test_broken_encodings_are_read_as_far_as_they_go(tmp_path):
    (tmp_path / "a.mbox").write_bytes(BROKEN)
    found = [*read_documents([tmp_path])]
    assert not [each for each in found if isinstance(each, Unreadable)]
    assert [each.title for each in found][::2] == ["Überweisung der Kälte", "parts", "last"]
    assert found[0].text.endswith("Schön.")
    assert found[0].metadata["from"] == "Müller <m@x.org>"
    assert "date" not in found[0].metadata
    assert "no boundary in it" in found[2].text
    for each in found:
        each.text.encode()  # no lone surrogates


def test_a_letter_that_is_too_long_does_not_cost_the_others(tmp_path):
    box = mailbox.mbox(str(tmp_path / "a.mbox"))
    for subject, text in (("one", "x"), ("long", "words " * 200_000), ("three", "y")):
        box.add(letter(subject, text))
    box.close()
    first, second, third = read_documents([tmp_path], limits=ReadLimits(max_text_mb=1))
    assert (first.title, third.title) == ("one", "three")
    assert second.reason.startswith("letter 2 is longer than the 1 MB")
    assert third.id.endswith("#3")


def test_single_letters_have_the_same_metadata(tmp_path):
    (tmp_path / "a.eml").write_bytes(
        letter("Rent", "due", Date="Fri, 31 May 2024 10:00:00 +0200").as_bytes()
    )
    found = one(tmp_path / "a.eml")
    assert found.metadata["date"] == "2024-05-31"
    assert found.metadata["from"] == "Ann <a@x.org>"


def test_empty_letters_are_passed_over(tmp_path):
    (tmp_path / "a.mbox").write_bytes(b"From a@x.org Fri May 31 10:00:00 2024\n\n" * 2 + BROKEN)
    first, *_, last = read_documents([tmp_path])
    assert (first.kind, first.skipped) == ("empty", True)
    assert last.title == "last"


DAMAGED = b"\xff\xfe bad The captain pays the rent."
TYPED = b"The captain pays the rent.\nOn Fridays."
BEGIN = b"From a@x.org Fri May 31 10:00:00 2024\n"
UNREADABLE = {
    "marked": b"Subject: Rent\n\n" + DAMAGED,
    "of even length": b"Subject: Rent\n\n" + DAMAGED + b"!",
    "binary": b"Subject: Rent\nContent-Type: text/plain; charset=x-nope\n\n\0\x81 rent",
    "no header": DAMAGED,
    "attachment only": b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBORw0K",
    "nested": b"Subject: Fwd\nContent-Type: message/rfc822\n\nSubject: Rent\n\n" + DAMAGED,
    "alternative": b"Subject: Rent\nContent-Type: multipart/alternative; boundary=q\n\n"
    b"--q\nContent-Type: text/plain\n\n" + DAMAGED + b"\n--q--",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_letter_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path, kind):
    letters = [b"Subject: one\n\nx", UNREADABLE[kind], b"Subject: three\n\ny"]
    (tmp_path / "a.mbox").write_bytes(b"".join(BEGIN + each + b"\n\n" for each in letters))
    first, second, third = read_documents([tmp_path])
    assert (first.title, third.title) == ("one", "three")
    assert isinstance(second, Unreadable)
    assert not second.skipped
    assert second.reason.startswith("letter 2: ")
    assert (second.line, second.document_id) == (2, second.source + "#2")
    (tmp_path / "a.eml").write_bytes(UNREADABLE[kind])
    found = one(tmp_path / "a.eml")
    assert (found.reason, found.skipped) == (second.reason.removeprefix("letter 2: "), False)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"Content-Transfer-Encoding: base64\n\n" + TYPED, TYPED.decode()),
        (
            b"Content-Transfer-Encoding: base64\n\nVGhlIHJlbnQgaXMgZHVlLg==\n___\nlist",
            "The rent is due.",
        ),
        (b"Content-Type: text/plain; charset=x-nope\n\n" + TYPED, TYPED.decode()),
        (
            b"Content-Type: message/rfc822\n\nSubject: Rent\n\n" + TYPED,
            "Subject: Rent\n\n" + TYPED.decode(),
        ),
        (
            b"Content-Type: multipart/alternative; boundary=q\n\n--q\n\n"
            + DAMAGED
            + b"\n--q\nContent-Type: text/html\n\n<p>The rent</p>\n--q--\n",
            "The rent",
        ),
        (
            b"Content-Type: multipart/alternative; boundary=q\n\n--q\n\n"
            b"\n--q\nContent-Type: text/html\n\n<p>The rent</p>\n--q--\n",
            "The rent",
        ),
    ],
    ids=["typed", "with a footer", "charset", "nested", "damaged first kind", "blank first kind"],
)
def test_letters_whose_headers_are_wrong_are_read_as_they_are(tmp_path, data, text):
    (tmp_path / "a.eml").write_bytes(b"Subject: Note\n" + data)
    assert one(tmp_path / "a.eml").text == "Subject: Note\n\n" + text


def test_a_letter_without_a_body_is_passed_over(tmp_path):
    (tmp_path / "a.mbox").write_bytes(BEGIN + b"X-Spam: no\n\n\n" + BEGIN + b"Subject: b\n\nb\n")
    first, second = read_documents([tmp_path])
    assert (first.kind, first.skipped, second.title) == ("empty", True, "b")
