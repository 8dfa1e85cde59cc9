"""Hits, passages and documents as people read them: where each stands, and what answers in it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.cli import console
from dewey_embed.cli.console import Styled
from dewey_embed.printable import one_line

if TYPE_CHECKING:
    from dewey_embed.types import Hit, Location, Passage

INDENT = "   "
_RULE = re.compile(r"([^\w\s])\1{3,}")
"""A line drawn under a heading, or around a table."""

LINES = 2
"""Lines of a terminal that a passage takes."""


def print_hits(query: str, hits: Sequence[Hit], *, heading: bool, full: bool) -> None:
    """Print hits: documents with their score, passages with their place and their answer.

    A terminal shows as much of a passage around the answer as two lines hold, unless `full`; a pipe
    gets all of it, on one line.
    """
    from dewey_embed.scoring import UNANSWERED

    if heading:
        console.echo(f"? {one_line(query)}", bold=True)
    if not hits:
        console.echo("  nothing found")
        return
    known = [hit.probability for hit in hits if hit.probability is not None]
    if known and max(known) < UNANSWERED:
        console.echo("  probably not in these documents; the nearest:")
    for rank, hit in enumerate(hits, start=1):
        name = one_line(hit.title or from_here(hit.document_id))
        source = one_line(from_here(hit.source))
        where = "" if source in ("", name) else f"  {source}"
        where += f"  in {one_line(hit.index)}" if hit.index else ""
        chance = "" if hit.probability is None else f"  {hit.probability:.0%}"
        console.echo_styled(Styled(f"{rank}. {name}", bold=True), Styled(f"{chance}{where}"))
        for passage in hit.passages:
            print_passage(passage, hit.source, full=full)


def from_here(path: str) -> str:
    """A path as it is from the working directory, if it lies below; else as it is."""
    return path.removeprefix(os.getcwd().rstrip("/") + "/")


def print_passage(passage: Passage, source: str, *, full: bool) -> None:
    """Print a passage under its place in the file, with the answering sentence in bold."""
    from dewey_embed.text.locations import place_in_words

    place = place_in_words(passage.location)
    like = f"  (and {passage.num_similar:,} like it)" if passage.num_similar else ""
    span = f"#{passage.number} [{passage.char_start}:{passage.char_end}]"
    console.echo_styled(
        Styled(f"{INDENT}{passage.score:.3f}  "),
        Styled(f"{place}  {span}" if place else span, link=link_to(source, passage.location)),
        Styled(like),
    )
    before, answer, after = _around_answer(passage)
    if sys.stdout.isatty() and not full:
        room = max(20, LINES * (shutil.get_terminal_size().columns - len(INDENT)) - 2)
        before, answer, after = _window(before, answer, after, room)
    console.echo_styled(Styled(INDENT + before), Styled(answer, bold=True), Styled(after))


def link_to(source: str, location: Location) -> str:
    """The address of a place in a file on this machine; empty for any other source."""
    path = Path(source)
    if not source or not path.is_absolute() or not path.is_file():
        return ""
    page = f"#page={location.page}" if location.page and path.suffix.lower() == ".pdf" else ""
    return path.as_uri() + page


def _around_answer(passage: Passage) -> tuple[str, str, str]:
    """A passage's text on one line: before the answer, the answer, after it."""
    start, end = passage.highlight or (passage.char_start, passage.char_start)
    start, end = start - passage.char_start, end - passage.char_start
    text = passage.text
    parts = (text[:start], text[start:end], text[end:])
    before, answer, after = (_RULE.sub(r"\1\1\1", one_line(part)) for part in parts)
    return (
        before + " " * bool(before and answer),
        answer,
        " " * bool(after and (before or answer)) + after,
    )


def _window(before: str, answer: str, after: str, room: int) -> tuple[str, str, str]:
    """As much of a passage as `room` characters hold, with the answer, or its beginning."""
    if len(before) + len(answer) + len(after) <= room:
        return before, answer, after
    if len(answer) >= room:
        return "", answer[: room - 1] + "…", ""
    spare = room - len(answer)
    left = min(len(before), max(spare // 2, spare - len(after)))
    right = min(len(after), spare - left)
    if left < len(before):
        before = "…" + before[len(before) - max(left - 1, 0) :]
    if right < len(after):
        after = after[: max(right - 1, 0)] + "…"
    return before, answer, after
