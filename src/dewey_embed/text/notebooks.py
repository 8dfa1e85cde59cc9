"""A Jupyter notebook → its cells and the text of their outputs."""

from __future__ import annotations

import json
import re
from typing import Any

from dewey_embed.errors import ReadError
from dewey_embed.text.encodings import decode
from dewey_embed.text.headings import markdown_headings
from dewey_embed.text.inputs import Content, ReadOptions
from dewey_embed.text.lines import Lines
from dewey_embed.text.markup import first_heading

_TERMINAL_STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OBJECT = re.compile(r"<[^<>\n]{1,200}>|\[?<[^<>\n]{1,200} at 0x[0-9a-f]+>.{0,200}", re.DOTALL)


def read_notebook(data: bytes, options: ReadOptions) -> Content:
    """A notebook's cells with blank lines between, each followed by the text of its outputs.

    Outputs without text, such as pictures, are counted.

    Raises:
        ReadError: it is damaged, or not a notebook.

    """
    try:
        decoded = decode(data)
        notebook = json.loads(decoded.text)
        cells = notebook["cells"] if "cells" in notebook else _old_cells(notebook)
        lines = Lines(options.limits)
        unread = {**decoded.unread, "cell outputs": 0}
        title = ""
        for number, cell in enumerate(cells, start=1):
            source = _joined(cell.get("source", cell.get("input", "")))
            if cell.get("cell_type") == "heading":  # of format 3
                source = f"{'#' * min(cell.get('level', 1), 6)} {source}"
            outputs = [*map(_output_text, cell.get("outputs") or ())]
            unread["cell outputs"] += outputs.count("")
            texts = [source, *outputs] if source.strip() else outputs
            if not any(text.strip() for text in texts):
                continue
            lines.end_block()
            lines.mark("cell", number)
            if cell.get("cell_type") in ("markdown", "heading"):
                first = _write_markdown(lines, source)
                title = title or first
                texts = outputs
            for text in filter(None, texts):
                lines.add(text.strip("\n").split("\n"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"not a Jupyter notebook, or damaged ({error})") from None
    return lines.content(title, unread)


def _old_cells(notebook: Any) -> list[Any]:
    """The cells of a notebook of format 3."""
    return [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]


def _joined(source: Any) -> str:
    text = source if isinstance(source, str) else "".join(source)
    return text.replace("\r\n", "\n")


def _write_markdown(lines: Lines, source: str) -> str:
    """Write Markdown with landmarks at its headings; the words of the first come back."""
    source = source.strip("\n")
    headings = {each.char: each for each in markdown_headings(source)}
    char = 0
    for line in source.split("\n"):
        if heading := headings.get(char):
            lines.mark("heading", heading.number, heading.label)
        lines.add([line])
        char += len(line) + 1
    return first_heading(headings.values())


def _output_text(output: Any) -> str:
    """The text of an output, or nothing where it is a picture or the address of an object."""
    if output.get("output_type") in ("error", "pyerr"):
        return _plain(f"{output.get('ename', '')}: {output.get('evalue', '')}")
    data = output.get("data", output)
    if any(str(key).startswith(("image/", "png", "jpeg", "svg")) for key in data):
        return ""
    text = _plain(_joined(data.get("text/plain") or data.get("text") or ""))
    return "" if _OBJECT.fullmatch(text) else text


def _plain(text: str) -> str:
    """A terminal's text as it ends up: without styles, and lines as they were last written."""
    text = _TERMINAL_STYLE.sub("", text)
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")).strip("\n")
