"""`Plot` → a figure → SVG and PNG: the same bytes for the same plot, whatever the settings here.

Title at the left, what is measured under it, a light grid, colours that colour-blind readers tell
apart with a marker for each, so that none hangs on colour alone. Text stays text in SVG.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.eval.report.labels import place_beside_points, plain, separate_ends
from dewey_embed.eval.report.marks import draw_marks, height_of
from dewey_embed.eval.result_page import Plot
from dewey_embed.extras import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

WIDTH, HEIGHT = 5.2, 3.5
"""Inches, of 96 CSS pixels."""

ROW = 60
"""Characters of a row of a legend, with six for each marker."""

LINE = 17
"""Points from one line of text to the next."""

EDGE = 0.06
"""Inches left free around all that is drawn."""

PNG_DPI = 192
"""Two pixels for each of CSS."""

INK, MUTED, FAINT = "#1f2328", "#59636e", "#e4e7eb"

STYLE: Any = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: one layout on every machine
    "font.size": 10,
    "text.color": INK,
    "text.hinting": "none",  # hinted text is wider at one resolution than at another
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": "#b6bcc4",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": "#b6bcc4",
    "ytick.color": "#b6bcc4",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.9,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "dewey",
}


class Picture(NamedTuple):
    """A drawn plot: SVG, with its text as text, and PNG, with two pixels for each of CSS."""

    svg: str
    png: bytes


def render(plot: Plot) -> Picture:
    """A plot, drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.

    """
    with _style():
        figure = draw(plot)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
        return Picture(svg.getvalue(), png.getvalue())


def draw(plot: Plot) -> Figure:
    """A plot as a figure of matplotlib's, laid out under the style at hand."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    heading, measured = _wrapped(plot.title, 46), _wrapped(plot.y_label, 60)
    layout = ConstrainedLayoutEngine(w_pad=EDGE, h_pad=EDGE)
    figure = Figure(figsize=(WIDTH, height_of(plot, HEIGHT)), layout=layout, dpi=PNG_DPI)
    axes = figure.add_subplot()
    drawn = draw_marks(axes, plot)
    title = figure.suptitle(heading, x=0.0, ha="left", weight="bold", size=12, color=INK)
    axes.set_title(measured, loc="left", size=10, color=MUTED, pad=9)
    axes.set_xlabel(_wrapped(plot.x_label, 60), labelpad=6)
    num_rows = 0
    if drawn.legend:
        above = 9 + LINE * len(measured.splitlines())
        num_rows = _add_legend(figure, axes, drawn.legend, above=above)
    # What stands above the axes takes nothing from them.
    lines = max(0, num_rows - 1) + heading.count("\n") + measured.count("\n")
    figure.set_figheight(figure.get_figheight() + lines * LINE / 72)
    _lay_out(figure, axes, title)
    separate_ends(axes, drawn.ends)
    place_beside_points(axes, drawn.beside)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """Our style and no one else's settings, while a figure is drawn and written."""
    with needs("eval", "drawing"):
        import matplotlib as mpl
    with mpl.rc_context(), warnings.catch_warnings():
        # In SVG the reader's fonts draw what ours lack.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        # Names as tall as the picture leave no room; it is drawn as far as it goes.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(plain(text), width))


def _add_legend(
    figure: Figure, axes: Axes, entries: Sequence[tuple[Any, str]], *, above: int
) -> int:
    """How many rows of names then stand, so many points above the axes."""
    from matplotlib.transforms import ScaledTranslation

    longest = max(len(name) for _, name in entries)
    in_one_row = sum(len(name) + 6 for _, name in entries) <= ROW
    num_columns = len(entries) if in_one_row else min(len(entries), ROW // (longest + 6))
    legend = axes.legend(
        [handle for handle, _ in entries],
        ["·"] * len(entries),  # a name that begins with _ would be left out
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=axes.transAxes + ScaledTranslation(0, above / 72, figure.dpi_scale_trans),
        ncols=num_columns,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.6,
        columnspacing=1.4,
    )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)
    return math.ceil(len(entries) / num_columns)


def _lay_out(figure: Figure, axes: Axes, title: Text) -> None:
    """Nothing; the layout is then final, and all that stands above the axes starts at the left."""
    left = EDGE / figure.get_figwidth()
    title.set_x(left)
    legend = axes.get_legend()
    for _ in range(2):  # what is moved to the left leaves room to the right
        figure.draw_without_rendering()
        box = axes.get_position()
        shift = (left - box.x0) / box.width
        axes._left_title.set_x(shift)  # type: ignore[attr-defined]
        if legend is not None:
            transform = legend.get_bbox_to_anchor()._transform  # type: ignore[attr-defined]
            legend.set_bbox_to_anchor((shift, 1), transform=transform)
    figure.set_layout_engine("none")
