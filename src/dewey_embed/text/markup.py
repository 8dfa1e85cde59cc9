"""Plain text, Markdown and reStructuredText, and the titles that files give themselves."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from dewey_embed.text.encodings import decode
from dewey_embed.text.headings import MAX_TITLE, markdown_headings, restructured_headings
from dewey_embed.text.inputs import Content
from dewey_embed.text.lines import moved, numbered_lines
from dewey_embed.titles import title_line
from dewey_embed.types import Landmark

_PROGRAM = re.compile(r"^(?:microsoft (?:word|powerpoint|excel)|adobe \w+|scan)\s*[-–:]\s*", re.I)
_FILE_NAME = re.compile(
    r"[^\r\n]{0,200}\.(?:docx?|docm|dotx?|indd|pdf|qxd|qxp|tex|dvi|rtf|pptx?|xlsx?|html?|txt|odt|odp"
    r"|pages|ps|eps|ai|cdr|wpd|pub|pmd|p65|fm|md|tmp|jpe?g|png|tiff?)",
    re.IGNORECASE,
)
_NO_TITLE = re.compile(
    r"\W*|(?:an? )?(?:untitled|unnamed|unbenannt|sans titre|sin t[ií]tulo|senza titolo|no title"
    r"|\(?none\)?|null|undefined|unknown|title|document|(?:new |blank )?page|index|home ?page"
    r"|(?:microsoft )?word document|powerpoint presentation|powerpoint-pr[äa]sentation"
    r"|pr[ée]sentation powerpoint|presentaci[óo]n de powerpoint|(?:excel )?worksheet"
    r"|doc|docx|dokument|presentation|slide|folie|template|layout)(?: document| page)?[ _-]?\d*",
    re.IGNORECASE,
)


def usable(title: str) -> str:
    """A title from a file's properties, or nothing where it is not a title.

    Programs write their own name, a file's name or a word for "none" where nobody gave a title.
    """
    title = " ".join(title.replace("\0", "").split())
    title = _PROGRAM.sub("", title)
    if len(title) > MAX_TITLE or _NO_TITLE.fullmatch(title) or _FILE_NAME.fullmatch(title):
        return ""
    return "" if PurePosixPath(title.replace("\\", "/")).is_absolute() else title


_FRONT_MATTER = {"---": ("---", "..."), "+++": ("+++",)}


def first_heading(headings: Iterable[Landmark]) -> str:
    """The words of the first heading that has some."""
    return next((each.label for each in headings if each.label), "")


def split_front_matter(text: str) -> tuple[str, str]:
    """The title in a block of YAML, TOML or JSON before Markdown, and the text after the block."""
    first, _, rest = text.partition("\n")
    ends = _FRONT_MATTER.get(first.rstrip())
    if ends:
        title = ""
        position = len(first) + 1
        for line in io.StringIO(rest, newline=""):
            position += len(line)
            if line.rstrip() in ends:
                return usable(title), text[position:]
            if not title:
                title = _assigned_title(line, ":" if ends[0] == "---" else "=")
    if text.startswith("{"):
        try:
            block, end = json.JSONDecoder().raw_decode(text)
            title = block.get("title", "") if isinstance(block, dict) else ""
            return usable(title) if isinstance(title, str) else "", text[end:]
        except (ValueError, RecursionError):
            pass
    return "", text


def _assigned_title(line: str, sign: str) -> str:
    """The value of a line `title: …` or `title = …`, without quotes and comments."""
    key, found, value = line.partition(sign)
    if not found or key.strip().strip("\"'").lower() != "title":
        return ""
    value = value.strip()
    if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
        return value[1 : value.find(value[0], 1)]
    return value.partition(" #")[0].strip()


def read_text(data: bytes) -> Content:
    """Plain text; its title is its first line, where a blank line follows it."""
    decoded = decode(data)
    return Content(
        decoded.text,
        title_line(decoded.text),
        decoded.unread,
        landmarks=numbered_lines(decoded.text),
    )


def read_markdown(data: bytes) -> Content:
    """Markdown as it is written; the title is that of its front matter, else the first heading.

    Without either it is the first line, as of plain text.
    """
    decoded = decode(data)
    title, body = split_front_matter(decoded.text)
    headings = moved(markdown_headings(body), len(decoded.text) - len(body))
    return Content(
        decoded.text,
        title or first_heading(headings) or title_line(decoded.text),
        decoded.unread,
        landmarks=[*numbered_lines(decoded.text), *headings],
    )


def read_restructured(data: bytes) -> Content:
    """The text as it is written; the title is the first underlined line, else as of plain text."""
    decoded = decode(data)
    headings = [*restructured_headings(decoded.text)]
    return Content(
        decoded.text,
        first_heading(headings) or title_line(decoded.text),
        decoded.unread,
        landmarks=[*numbered_lines(decoded.text), *headings],
    )
