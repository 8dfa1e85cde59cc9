"""Bytes → characters, and what of that is a guess.

What an encoding of before Unicode says depends on which one it is, and nothing in a file says so:
the detector of `chardet` is asked, and whoever reads the text is told that it is a guess.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from dewey_embed.errors import ReadError


class Decoded(NamedTuple):
    """A text, and the encoding that was guessed, if it was."""

    text: str
    guess: str | None = None

    @property
    def unread(self) -> dict[str, int]:
        """The guess as it is counted in `Document.unread`."""
        return {f"guessed encoding {self.guess}": 1} if self.guess else {}


# UTF-32's mark begins with UTF-16's, so it is asked for first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_LONG_CHARACTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_PAST_ASCII = re.compile(rb"[\x80-\xff]")
# Japanese in seven bits is valid ASCII, with escapes that no other text has.
_SEVEN_BITS = re.compile(rb"\x1b(?:\$[@B]|\$\([DOPQ]|\([BJI])")
_LINE_PAST_ASCII = re.compile(rb"[^\n\x80-\xff]{0,200}[\x80-\xff][^\n]{0,400}")
SAMPLE_BYTES = 60_000
"""What the detector is shown: lines with bytes past ASCII, for only these tell encodings apart."""
MAX_UTF8_SHARE = 0.6
"""The share of bytes past ASCII in valid UTF-8 characters above which a text is damaged UTF-8. In
other encodings such characters come about by chance, in up to a third of Chinese text."""


MAX_WESTERN_SHARE = 0.25
"""The share of bytes past ASCII up to which Western text is believed where the detector is wrong.
In German and French it is under 0.1; in 8-bit Cyrillic or Greek, around a half or more."""


def decode(data: bytes) -> Decoded:
    """The text of some bytes, line ends as they are.

    With a byte order mark: what it says (UTF-8, UTF-16, UTF-32). Without: UTF-8. Where that fails,
    a guess among older encodings. NUL bytes mean a binary file.

    Raises:
        ReadError: none of these, with the byte where it goes wrong.

    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return Decoded(data[len(mark) :].decode(encoding))
            except UnicodeDecodeError as error:
                raise ReadError(
                    f"marked as {encoding.upper()}, but byte {error.start + len(mark)} is not; "
                    "the file is damaged or cut short"
                ) from None
    nul = data.find(0)
    if nul >= 0:
        raise ReadError(
            f"binary: a NUL at byte {nul}; if it is UTF-16 text, save it with a byte order mark"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        guessed = _guessed(data)
        if guessed is None:
            raise ReadError(
                f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}; "
                "if it is text in another encoding, convert it to UTF-8"
            ) from None
        return guessed
    if "\x1b" in text and _SEVEN_BITS.search(data):
        try:
            return Decoded(data.decode("iso2022_jp_2"), "iso2022_jp")
        except UnicodeDecodeError:
            pass  # a terminal's log
    return Decoded(text)


def _guessed(data: bytes) -> Decoded | None:
    """Text in an encoding of before Unicode, where the bytes look like one."""
    past_ascii = len(_PAST_ASCII.findall(data))
    in_utf8 = sum(len(each) for each in _LONG_CHARACTER.findall(data))
    if _CONTROL.search(data) or in_utf8 > MAX_UTF8_SHARE * past_ascii:
        return None
    import chardet

    found = chardet.detect(b"\n".join(_sampled(data)))["encoding"] or ""
    # What is taken for Latin-1 is Windows-1252, to every browser.
    guesses = ["cp1252" if found.lower() in ("iso-8859-1", "iso8859-1") else found]
    if past_ascii <= MAX_WESTERN_SHARE * len(data):
        guesses.append("cp1252")
    for guess in guesses:
        try:
            text = data.decode(guess)
        except (LookupError, UnicodeDecodeError):
            continue
        if _is_plausible(text):
            name = codecs.lookup(guess).name
            if name == "cp1252" and _TURKISH.search(text) and not _ICELANDIC.search(text):
                name, text = "cp1254", data.decode("cp1254", "replace")
            return Decoded(text, name)
    return None


# Windows-1252 and its Turkish sister differ in six letters, which but for Icelandic no other has.
_TURKISH = re.compile("[ðþýÐÞÝ]")
_ICELANDIC = re.compile("[áíúæÁÍÚÆ]")
_NO_CHARACTER = re.compile("[\x80-\x84\x86-\x9f\ufffd]")
_FOREIGN_LETTER = re.compile(r"[^\W\d_\x00-\u024f\u1e00-\u1eff]")
_WITHIN_LATIN = re.compile(r"[A-Za-z][^\W\d_\x00-\u024f\u1e00-\u1eff]")


def _is_plausible(text: str) -> bool:
    """Whether a text has no control characters, and no foreign letters within Latin words."""
    if _NO_CHARACTER.search(text):
        return False
    num_foreign = len(_FOREIGN_LETTER.findall(text))
    return len(_WITHIN_LATIN.findall(text)) <= num_foreign / 2


def _sampled(data: bytes) -> list[bytes]:
    """Lines with bytes past ASCII, in order, up to about `SAMPLE_BYTES`."""
    lines: list[bytes] = []
    size = 0
    for found in _LINE_PAST_ASCII.finditer(data):
        lines.append(found[0])
        size += len(found[0])
        if size > SAMPLE_BYTES:
            break
    return lines


_TEXT_ENCODINGS_OF_PAGES = re.compile(
    r"ascii|utf-8|cp(?:874|866|125\d|932|949|950|936)|iso8859-\d+|koi8-[ru]|mac-\w+|gb\w+|big5\w*"
    r"|euc_\w+|shift_jis\w*|iso2022_jp\w*|johab|tis-620",
)


def declared(name: str) -> str | None:
    """Python's name of an encoding that a page or letter declares, if it is one of texts.

    Codecs such as `idna`, `rot13` and `unicode_escape` are none; UTF-16 is none that a page in
    readable bytes could be in.
    """
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    found = "cp1252" if found == "iso8859-1" else found
    return found if _TEXT_ENCODINGS_OF_PAGES.fullmatch(found) else None
