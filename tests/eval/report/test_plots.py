"""Plots as pictures: readable ticks, names that stand apart, the same bytes, and no crash."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dewey_embed.eval.report.marks import short_number, spread
from dewey_embed.eval.report.markup import inline_svg
from dewey_embed.eval.report.plots import draw, render, style
from dewey_embed.eval.result_page import Plot, Series
from tests.eval.report.samples import alignment, by_length, cost

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture) -> list[str]:
    return [element.text for element in ElementTree.fromstring(picture.svg).iter(f"{SVG}text")]


def plot(kind, *series, **values) -> Plot:
    return Plot(
        **{"title": "Title", "x_label": "x", "y_label": "y", "kind": kind, "series": series}
        | values
    )


def test_lengths_are_in_binary_thousands_and_each_line_has_its_name() -> None:
    picture = render(by_length().plots[0])
    found = texts(picture)
    assert [text for text in found if text.endswith("K")] == [
        "1K", "2K", "4K", "8K", "16K", "32K", "64K", "128K",
    ]  # fmt: skip
    assert {series.name for series in by_length().plots[0].series} < set(found)


def test_points_carry_their_labels() -> None:
    [points, _] = cost().plots
    assert {label for each in points.series for label in each.labels} < set(texts(render(points)))


def test_the_same_plot_is_the_same_bytes_whatever_the_settings_here() -> None:
    import matplotlib as mpl

    first = render(alignment().plots[0])
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        again = render(alignment().plots[0])
    assert first == again
    assert first.png.startswith(b"\x89PNG")


def test_gaps_are_gaps_and_not_zeros() -> None:
    with style():
        figure = draw(plot("line", Series(name="a", x=(1.0, 2.0, 3.0), y=(0.5, None, 0.7))))
    [line] = figure.axes[0].get_lines()
    assert math.isnan(line.get_ydata()[1])
    bars = plot("bars", Series(name="a", x=("one", "two"), y=(0.5, None)))
    assert "–" in texts(render(bars))


def test_a_series_is_drawn_by_rising_x() -> None:
    with style():
        figure = draw(plot("line", Series(name="a", x=(3.0, 1.0, 2.0), y=(0.3, 0.1, 0.2))))
    [line] = figure.axes[0].get_lines()
    assert list(line.get_ydata()) == [0.1, 0.2, 0.3]


def test_a_plot_without_figures_says_so() -> None:
    for kind in ("line", "points", "bars", "histogram"):
        assert "Nothing was measured." in texts(render(plot(kind)))
        empty = Series(name="a", x=(1.0,), y=(None,))
        assert "Nothing was measured." in texts(render(plot(kind, empty)))


def test_names_are_text_whatever_is_in_them() -> None:
    name = "_a $x^2$ <b> & \x00 \\frac"
    found = texts(render(plot("line", *(Series(name=name, x=(1.0,), y=(n,)) for n in (1.0, 2.0)))))
    assert found.count("_a $x^2$ <b> & \\frac") == 2


def test_a_logarithm_of_zero_is_not_drawn_on_one() -> None:
    values = Series(name="a", x=(0.0, 1.0, 2.0), y=(1.0, 2.0, 3.0))
    with style():
        assert draw(plot("line", values, log_x=True)).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    ("value", "binary", "text"),
    [
        (131_072, True, "128K"), (512, True, "512"), (2**21, True, "2M"), (1500, False, "1.5K"),
        (0, False, "0"), (0.25, False, "0.25"), (-20_000, False, "−20K"), (3e9, False, "3G"),
        (1e20, False, "1.0e+20"), (1343.2, False, "1.34K"),
    ],
)  # fmt: skip
def test_numbers_on_axes_are_short(value, binary, text) -> None:
    assert short_number(value, binary=binary) == text


@settings(max_examples=20, deadline=None)
@given(low=st.floats(1e-9, 1e9), ratio=st.floats(1.5, 1e6))
def test_logarithmic_ticks_are_few_and_at_least_two(low, ratio) -> None:
    points = Series(name="a", x=(low, low * ratio), y=(1.0, 2.0))
    with style():
        axis = draw(plot("points", points, log_x=True)).axes[0].xaxis
        ticks = axis.get_majorticklocs()
    inside = [tick for tick in ticks if axis.get_view_interval()[0] <= tick <= low * ratio * 1.5]
    assert 2 <= len(inside) <= 10


@given(places=st.lists(st.floats(0, 100), max_size=8))
def test_names_at_ends_are_spread_apart_in_their_order(places) -> None:
    found = spread(places, 10, 0, 100)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for before, after in pairwise(found[i] for i in order):
        assert after - before >= 10 - 1e-6
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in found)


numbers = st.none() | st.floats(allow_nan=False)


@st.composite
def any_plot(draw_from) -> Plot:
    series = []
    for _ in range(draw_from(st.integers(0, 3))):
        size = draw_from(st.integers(0, 5))

        def some(what, num=size):
            return st.none() | st.lists(what, min_size=num, max_size=num).map(tuple)

        x = st.lists(st.floats(allow_nan=False) | st.text(max_size=8), min_size=size, max_size=size)
        y = st.lists(numbers, min_size=size, max_size=size)
        series.append(
            Series(
                name=draw_from(st.text(max_size=50)),
                x=tuple(draw_from(x)),
                y=tuple(draw_from(y)),
                low=draw_from(some(numbers)),
                high=draw_from(some(numbers)),
                labels=draw_from(some(st.text(max_size=8))),
            )
        )
    return Plot(
        title=draw_from(st.text(max_size=80)),
        kind=draw_from(st.sampled_from(["line", "points", "bars", "histogram"])),
        x_label=draw_from(st.text(max_size=20)),
        y_label=draw_from(st.text(max_size=20)),
        log_x=draw_from(st.booleans()),
        series=tuple(series),
    )


@pytest.mark.parametrize("kind", ["line", "points", "bars", "histogram"])
@pytest.mark.parametrize("log_x", [False, True])
def test_the_largest_numbers_are_drawn(kind, log_x) -> None:
    huge = (-1e308, 1e308, 1.0)
    series = Series(
        name="a", x=(1e-308, 1.0, 1e308), y=huge, low=huge[::-1], high=huge, labels=("a",) * 3
    )
    assert render(plot(kind, series, series, log_x=log_x)).png


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(any_plot())
def test_any_plot_can_be_drawn_and_put_into_a_page(plot) -> None:
    svg = inline_svg(render(plot).svg, prefix="p", label=plot.title)
    assert svg.startswith("<svg")
    assert "<script" not in svg
