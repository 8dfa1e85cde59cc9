"""Plots as pictures: readable ticks, names that stand apart, the same bytes, and no crash."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dewey_embed.eval.report.html import inline_svg
from dewey_embed.eval.report.labels import spread
from dewey_embed.eval.report.plots import _style, draw, render
from dewey_embed.eval.report.ticks import round_ticks, short_number
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


def test_lengths_are_told_in_binary_thousands_and_each_line_by_its_name() -> None:
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
    with _style():
        figure = draw(plot("line", Series(name="a", x=(1.0, 2.0, 3.0), y=(0.5, None, 0.7))))
    [line] = figure.axes[0].get_lines()
    assert math.isnan(line.get_ydata()[1])
    bars = plot("bars", Series(name="a", x=("one", "two"), y=(0.5, None)))
    assert "–" in texts(render(bars))


def test_a_series_is_drawn_by_rising_x() -> None:
    with _style():
        figure = draw(plot("line", Series(name="a", x=(3.0, 1.0, 2.0), y=(0.3, 0.1, 0.2))))
    [line] = figure.axes[0].get_lines()
    assert list(line.get_ydata()) == [0.1, 0.2, 0.3]


def test_nothing_measured_is_said() -> None:
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
    with _style():
        assert draw(plot("line", values, log_x=True)).axes[0].get_xscale() == "linear"


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (131_072, 1024, "128K"), (512, 1024, "512"), (2**21, 1024, "2M"), (1500, 1000, "1.5K"),
        (0, 1000, "0"), (0.25, 1000, "0.25"), (-20_000, 1000, "−20K"), (3e9, 1000, "3G"),
        (1e20, 1000, "1.0e+20"),
    ],
)  # fmt: skip
def test_numbers_on_axes_are_short(value, step, text) -> None:
    assert short_number(value, step=step) == text


@given(low=st.floats(1e-9, 1e9), ratio=st.floats(1.5, 1e6))
def test_ticks_lie_within_the_axis_and_are_few(low, ratio) -> None:
    ticks = round_ticks(low, low * ratio)
    assert len(ticks) <= 9
    assert all(low <= tick <= low * ratio for tick in ticks)


@given(places=st.lists(st.floats(0, 100), max_size=8))
def test_names_at_ends_are_spread_apart_in_their_order(places) -> None:
    found = spread(places, 10, 0, 100)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for before, after in pairwise(found[i] for i in order):
        assert after - before >= 10 - 1e-6
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in found)


numbers = st.none() | st.floats(-1e12, 1e12)


@st.composite
def any_plot(draw_from) -> Plot:
    series = []
    for _ in range(draw_from(st.integers(0, 3))):
        size = draw_from(st.integers(0, 5))

        def some(what, num=size):
            return st.none() | st.lists(what, min_size=num, max_size=num).map(tuple)

        x = st.lists(st.floats(-1e9, 1e9) | st.text(max_size=8), min_size=size, max_size=size)
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


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(any_plot())
def test_any_plot_can_be_drawn_and_put_into_a_page(plot) -> None:
    svg = inline_svg(render(plot).svg, prefix="p", label=plot.title)
    assert svg.startswith("<svg")
    assert "<script" not in svg
