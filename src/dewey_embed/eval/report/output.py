"""Pages → files: the report in each format, and its plots as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dewey_embed.errors import ConfigError, ResultsError
from dewey_embed.eval.report.markup import Key, to_html, to_markdown
from dewey_embed.eval.report.pages import Group
from dewey_embed.extras import needs
from dewey_embed.files import atomic_file
from dewey_embed.progress import progress_bar

if TYPE_CHECKING:
    from dewey_embed.eval.report.plots import Picture

SUFFIXES = (".html", ".md")


def check_outputs(outputs: Sequence[Path], plots: Path | None) -> None:
    """Refuse outputs that could not be written, before anything is drawn.

    Raises:
        ConfigError: there is no output, or one has an unknown suffix.
        ResultsError: a path is a folder, or `plots` a file.

    """
    if not outputs and plots is None:
        raise ConfigError("nothing to write: give -o report.html, -o results.md or --plots DIR")
    for path in outputs:
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(
                f"{path}: a report is written as {' or '.join(SUFFIXES)}, not "
                f"{path.suffix or 'a name without a suffix'}"
            )
        if path.is_dir():
            raise ResultsError(f"{path}: is a folder; name a file to write")
    if plots is not None and plots.exists() and not plots.is_dir():
        raise ResultsError(f"{plots}: is a file; plots are written to a folder")


def write_report(
    groups: Sequence[Group], outputs: Sequence[Path], plots: Path | None, *, progress: bool = False
) -> list[Path]:
    """The files written, pictures last; each is complete or not there.

    Raises:
        ConfigError: there is no output, or one has an unknown suffix.
        ResultsError: a file cannot be written.
        MissingDependencyError: matplotlib or jinja2 is needed and not installed.

    """
    check_outputs(outputs, plots)
    is_html = {path: path.suffix.lower() == ".html" for path in outputs}
    needs_pictures = plots is not None or any(is_html.values())
    drawn = _draw(groups, progress=progress) if needs_pictures else {}
    files = {} if plots is None else _write_pictures(drawn, plots)
    for path in outputs:
        if is_html[path]:
            page = to_html(groups, {key: picture.svg for key, picture in drawn.items()})
        else:
            page = to_markdown(groups, {key: _links(path, pair) for key, pair in files.items()})
        _write(path, page.encode())
    return [*outputs, *(file for pair in files.values() for file in pair)]


def _draw(groups: Sequence[Group], *, progress: bool) -> dict[Key, Picture]:
    """The picture of every plot."""
    with needs("eval", "drawing"):
        from dewey_embed.eval.report.plots import render
    plots = {
        (page.anchor, number): plot
        for group in groups
        for page in group.pages
        for number, plot in enumerate(page.result.plots)
    }
    drawn = {}
    with progress_bar("drawing", len(plots), "plots", show=progress) as advance:
        for key, plot in plots.items():
            drawn[key] = render(plot)
            advance(1)
    return drawn


def _write_pictures(drawn: dict[Key, Picture], folder: Path) -> dict[Key, tuple[Path, Path]]:
    """The files of every plot; the folder is made even for no plot."""
    _make_folder(folder)
    written = {}
    for (anchor, number), picture in drawn.items():
        png, svg = (folder / f"{anchor}-{number + 1}.{kind}" for kind in ("png", "svg"))
        _write(png, picture.png)
        _write(svg, picture.svg.encode())
        written[anchor, number] = (png, svg)
    return written


def _links(page: Path, files: tuple[Path, Path]) -> tuple[str, str]:
    """Addresses of PNG and SVG as seen from a page."""
    png, svg = (
        quote(Path(os.path.relpath(file.resolve(), page.resolve().parent)).as_posix())
        for file in files
    )
    return png, svg


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _write(path: Path, content: bytes) -> None:
    """Write a file that, if this is killed, holds its old content."""
    _make_folder(path.parent)
    try:
        with atomic_file(path) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ResultsError:
    return ResultsError(f"{path}: cannot be written: {error.strerror or error}")
