"""Bytes → characters, with a note where the encoding is a guess.

A file in an encoding of before Unicode does not name it. The detector of `chardet` guesses it, and
`Decoded.guess` says so.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from dewey_embed.errors import ReadError


class Decoded(NamedTuple):
    """A text, and its encoding if that is a guess."""

    text: str
    guess: str | None = None

    @property
    def unread(self) -> dict[str, int]:
        """The guess as `Document.unread` counts it."""
        return {f"guessed encoding {self.guess}": 1} if self.guess else {}


# UTF-32's mark begins with UTF-16's, so it comes first.
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
_PAST_ASCII = bytes(range(128, 256))
# Japanese in seven bits is valid ASCII, with escapes that no other text has.
_SEVEN_BITS = re.compile(rb"\x1b(?:\$[@B]|\$\([DOPQ]|\([BJI])")
_LINE_PAST_ASCII = re.compile(rb"[\x80-\xff][^\n]{0,400}")
_WORD_PAST_ASCII = re.compile(rb"[\x21-\x7f]{0,40}[\x80-\xff][^\n ]{0,2000}")
_BEFORE = 200
"""Bytes of a line before its first one past ASCII that the detector sees, too."""
SAMPLE_BYTES = 60_000
"""Bytes that the detector sees: lines with bytes past ASCII, which alone tell encodings apart."""
DAMAGED_UTF8_SHARE, CHANCE_UTF8_SHARE = 0.9, 0.6
"""The shares of bytes past ASCII in valid UTF-8 characters above which a text is damaged UTF-8, for
certain, and if it is no Asian text: there such characters come about by chance."""
MAX_WESTERN_SHARE = 0.25
"""The share of bytes past ASCII up to which Western text is believed where the detector is wrong.
In German and French it is under 0.1; in 8-bit Cyrillic or Greek, around a half or more."""


def decode(data: bytes) -> Decoded:
    """The text of some bytes, with its own line ends.

    A byte order mark decides (UTF-8, UTF-16, UTF-32); without one it is UTF-8, or else a guess
    among older encodings. NUL bytes mean a binary file.

    Raises:
        ReadError: it is in none of these; names the byte where it fails.

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
    past_ascii = len(data) - len(data.translate(None, _PAST_ASCII))
    in_utf8 = (len(data) - len(_LONG_CHARACTER.sub(b"", data))) / past_ascii
    if _CONTROL.search(data) or in_utf8 > DAMAGED_UTF8_SHARE:
        return None
    sample = _sampled(data)
    # a few foreign words in a long English text are only seen by themselves
    words = b"\n".join(_WORD_PAST_ASCII.findall(sample))
    found = [_plausible(data, guess) for guess in (_detected(sample), _detected(words))]
    for decoded in found:
        if decoded and _FOREIGN_LETTER.search(decoded.text):
            return decoded
    if in_utf8 > CHANCE_UTF8_SHARE:
        return None
    if found[0] is None and past_ascii <= MAX_WESTERN_SHARE * len(data):
        found[0] = _plausible(data, "cp1252")
    return found[0] or found[1]


def _detected(sample: bytes) -> str:
    """The likeliest encoding by the detector, or nothing."""
    import chardet

    found = chardet.detect(sample)["encoding"] or ""
    # Every browser reads Latin-1 as Windows-1252.
    return "cp1252" if found.lower() in ("iso-8859-1", "iso8859-1") else found


def _plausible(data: bytes, encoding: str) -> Decoded | None:
    """The text in an encoding, if a person may have written it."""
    try:
        text = data.decode(encoding)
        holds_ascii = "a".encode(encoding) == b"a"  # hardly a file is left in the others
    except (LookupError, UnicodeError):
        return None
    if not holds_ascii or not _is_plausible(text):
        return None
    name = codecs.lookup(encoding).name
    if name == "cp1252" and _TURKISH.search(text) and not _ICELANDIC.search(text):
        name, text = "cp1254", data.decode("cp1254", "replace")
    return Decoded(text, name)


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
    num_foreign = _FOREIGN_LETTER.subn("", text)[1]
    return _WITHIN_LATIN.subn("", text)[1] <= num_foreign / 2


def _sampled(data: bytes) -> bytes:
    """Lines with bytes past ASCII, up to about `SAMPLE_BYTES`; the first in one piece.

    In many encodings half a character may be a letter, so lines are cut at blanks, which never are.
    """
    first = _LINE_PAST_ASCII.search(data)
    if first is None:
        return b""
    start = max(data.rfind(b"\n", 0, first.start()) + 1, first.start() - _BEFORE)
    lines = [_piece(data, start, start + SAMPLE_BYTES // 3)]
    size = len(lines[0])
    for found in _LINE_PAST_ASCII.finditer(data, start + size):
        begin = data.rfind(b"\n", found.start() - _BEFORE, found.start()) + 1
        if begin:  # else it is the middle of a long line
            lines.append(_piece(data, begin, found.end()))
            size += len(lines[-1])
        if size > SAMPLE_BYTES:
            break
    return b"\n".join(lines)


def _piece(data: bytes, start: int, end: int) -> bytes:
    """A piece of a text, up to its last blank if it is cut."""
    piece = data[start:end]
    last = max(piece.rfind(b" "), piece.rfind(b"\n")) + 1
    return piece[:last] if last and end < len(data) else piece


_TEXT_ENCODINGS_OF_PAGES = re.compile(
    r"ascii|utf-8|cp(?:874|866|125\d|932|949|950|936)|iso8859-\d+|koi8-[ru]|mac-\w+|gb\w+|big5\w*"
    r"|euc_\w+|shift_jis\w*|iso2022_jp\w*|johab|tis-620",
)


def declared(name: str) -> str | None:
    """Python's name of an encoding that a page or letter declares, if texts may be in it.

    That leaves out codecs such as `idna`, `rot13` and `unicode_escape`, and UTF-16, whose bytes
    could not have been read as a declaration.
    """
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    found = "cp1252" if found == "iso8859-1" else found
    return found if _TEXT_ENCODINGS_OF_PAGES.fullmatch(found) else None
