"""`dewey list`, `dewey show` and `dewey open`: the documents of an index, and places in them."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dewey_embed.cli import console, options
from dewey_embed.cli.console import Styled
from dewey_embed.cli.hits import link_to
from dewey_embed.errors import InputError
from dewey_embed.printable import one_line, printable

if TYPE_CHECKING:
    from dewey_embed.index.index import Index
    from dewey_embed.types import Document, Passage

DocumentId = Annotated[str, typer.Argument(metavar="ID", help="The document's id, or its file.")]
SHOWN_AROUND = 10
"""Sentences shown before and after a place."""


def list_documents(index: options.IndexArgument, *, json: options.Json = False) -> None:
    """List the documents of an index: ids and titles.

    With --json, one object for each document, on a line.
    """
    from dewey_embed.index.index import Index

    for document in Index.open(index).documents():
        if json:
            values = asdict(document)
            console.print_json({key: values[key] for key in ("id", "title", "source", "metadata")})
            continue
        name = one_line(document.id)
        title = one_line(document.title)
        beside = title not in ("", name, Path(name).name)
        console.echo(f"{name}  {title}" if beside else name)


def show(
    index: options.IndexArgument,
    document: DocumentId,
    *,
    at: Annotated[
        int | None,
        typer.Option(min=0, help="A character of the text: show the sentences around it."),
    ] = None,
) -> None:
    """Show the text of a document as it was indexed, or the part around a place."""
    from dewey_embed.index.index import Index

    opened = Index.open(index)
    found = _document(opened, document)
    _say_if_changed(opened, found)
    if at is None:
        console.echo(found.text)
        return
    if at >= len(found.text):
        raise InputError(
            f"--at is {at}; the text of {document!r} has {len(found.text):,} characters"
        )
    _print_around(found, at, at + 1)


def open_place(
    index: options.IndexArgument,
    place: Annotated[
        str,
        typer.Argument(
            metavar="ID[:PASSAGE]",
            help="A document's id, or its file; and a passage's number in it, as --json has it.",
        ),
    ],
) -> None:
    """Open the file of a document, a PDF at the passage's page; else print the text there.

    Without a screen, or without a file of a kind that folders of documents hold, the text around
    the passage is printed.
    """
    from dewey_embed.index.index import Index

    opened = Index.open(index)
    found, passage = _place(opened, place)
    _say_if_changed(opened, found)
    location = passage.location if passage else None
    link = link_to(found.source, location) if location else _file_link(found.source)
    if link and _is_of_documents(found.source) and _has_screen():
        console.echo(f"opening {link}")
        if typer.launch(link) == 0:
            return
        console.say(f"{link} cannot be opened here; its text:")
    if passage is None:
        console.echo(found.text)
    else:
        _print_around(found, passage.char_start, passage.char_end)


def _place(opened: Index, place: str) -> tuple[Document, Passage | None]:
    """A document, and one of its passages where the place names one."""
    name, colon, number = place.rpartition(":")
    if colon and number.isdecimal():
        try:
            found = _document(opened, name)
        except InputError:
            return _document(opened, place), None
        return found, opened.passage(found.id, int(number))
    return _document(opened, place), None


def _document(opened: Index, name: str) -> Document:
    """The document of an id, or of a file's path.

    Raises:
        InputError: there is none.

    """
    try:
        return opened.document(name)
    except InputError:
        path = os.path.realpath(os.path.expanduser(name))
        if path == name:
            raise
    try:
        return opened.document(path)
    except InputError:
        return opened.document(_id_ending(opened, name))


def _id_ending(opened: Index, name: str) -> str:
    """The id of the one document whose path ends so.

    Raises:
        InputError: there is none, or there are several.

    """
    ending = "/" + os.path.normpath(name).replace(os.sep, "/")
    ids = [each.id for each in opened.documents() if each.id.endswith(ending)]
    if len(ids) == 1:
        return ids[0]
    several = f"{len(ids)} documents end in {name!r}, such as {' and '.join(ids[:2])}"
    raise InputError(
        f"{several if ids else f'no document {name!r}'} in index {opened.path}; "
        f"dewey list {opened.path} names all"
    )


def _say_if_changed(opened: Index, document: Document) -> None:
    """Say that a file is gone, or holds another text by now."""
    source = document.source
    of_then = "this is the text of then"
    if os.path.isabs(source):
        try:
            is_file = stat.S_ISREG(os.stat(source).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            is_file = False
        except OSError as error:
            console.say(f"{source} cannot be looked at ({error.strerror}); {of_then}")
            return
        if not is_file:
            console.say(f"{source} is no longer there; {of_then}")
            return
    if opened.has_changed(document.id):
        console.say(f"{source} has changed since it was indexed; {of_then}: index it again")


def _print_around(document: Document, start: int, end: int) -> None:
    """Print the sentences around a range of a document's text, with the range in bold."""
    from dewey_embed.text.locations import location_of, place_in_words
    from dewey_embed.text.sentences import widened

    first, last = widened(document.text, start, end, SHOWN_AROUND, document.landmarks)
    location = location_of(document.landmarks, document.text, start, end)
    title = document.title or document.id
    headings = location.headings[location.headings[:1] == (title,) :]
    place = place_in_words(replace(location, headings=headings))
    console.echo(" · ".join(filter(None, (one_line(title), place))), bold=True)
    before, marked, after = (
        printable(document.text[a:b]) for a, b in ((first, start), (start, end), (end, last))
    )
    console.echo_styled(Styled(before), Styled(marked, bold=True), Styled(after))


def _file_link(source: str) -> str:
    from dewey_embed.types import Location

    return link_to(source, Location())


def _is_of_documents(source: str) -> bool:
    """Whether a file can only be shown: an index may name a program, which opening would run."""
    from dewey_embed.text.formats import EXTENSIONS, extension_of

    return all(extension_of(name) in EXTENSIONS for name in (source, os.path.realpath(source)))


def _has_screen() -> bool:
    """Whether a program with a window can be started, by somebody who sees it."""
    if not sys.stdout.isatty():
        return False
    has_display = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return has_display or sys.platform in ("darwin", "win32")
