"""Tables, Markdown and HTML: digits, dashes, the best; text that means itself; one file."""

import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.eval.report.markup import (
    MISSING,
    code,
    escape,
    holds_numbers,
    inline_svg,
    number_text,
    page_to_markdown,
    show,
    to_html,
    to_markdown,
)
from dewey_embed.eval.report.pages import Group, Page, collect
from dewey_embed.eval.result_page import Column, Table
from tests.eval.report.samples import alignment, by_length, evaluation, findings


def column(*cells, **settings) -> Table:
    return Table(
        title="t", columns=(Column(name="c", **settings),), rows=tuple((cell,) for cell in cells)
    )


def bold(table) -> list[str]:
    return [row[0].text for row in show(table) if row[0].best]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.81649, 4, "0.8165"),
        (10449, 4, "10,449"),
        (12345.678, 1, "12,345.7"),
        (0.0, 3, "0.000"),
        (-0.0, 3, "0.000"),
        (0.00004, 3, "4.0e-05"),  # small is not nothing
        (-0.00004, 3, "-4.0e-05"),
        (1e300, 2, "1.00e+300"),
        (0.5, -3, "5.0e-01"),
        (10**40, 4, f"{10**40:,}"),
    ],
)
def test_numbers_are_shown_with_their_digits(value, digits, text) -> None:
    assert number_text(value, digits) == text


@pytest.mark.parametrize("cell", [None, math.nan, math.inf, -math.inf, "", "  "])
def test_what_was_not_measured_is_a_dash(cell) -> None:
    [[shown]] = show(column(cell))
    assert shown.text == MISSING
    assert shown.value is None


def test_the_best_is_marked_and_so_is_what_reads_like_it() -> None:
    cells = (0.12341, 0.98761, None, 0.98764, "n/a")
    assert bold(column(*cells, best="highest")) == ["0.9876", "0.9876"]
    assert bold(column(*cells, best="lowest")) == ["0.1234"]
    assert bold(column(*cells)) == []


def test_nothing_is_best_where_nothing_is_worse() -> None:
    assert bold(column(0.5, None, "n/a", best="highest")) == []
    assert bold(column(0.5, 0.5, best="highest")) == []


def test_a_column_of_numbers_with_gaps_is_one_of_numbers() -> None:
    assert holds_numbers(column(1, None, 0.5, ""), 0)
    assert not holds_numbers(column(1, "0.4 – 0.5"), 0)
    assert not holds_numbers(column(None, None), 0)


@given(
    cells=st.lists(st.none() | st.text() | st.floats() | st.integers(), min_size=1),
    digits=st.integers(-5, 400),
    best=st.sampled_from(["highest", "lowest", None]),
)
def test_any_cell_can_be_shown(cells, digits, best) -> None:
    shown = [row[0] for row in show(column(*cells, digits=digits, best=best))]
    numbers = [cell.number for cell in shown if cell.number is not None]
    for cell in shown:
        assert cell.text.strip() or cell.text == "\x1f" or not cell.text.isprintable()
        if cell.best:
            extreme = (max if best == "highest" else min)(numbers)
            assert cell.text == number_text(extreme, digits)


def test_the_best_of_a_row_is_marked_where_the_table_asks_for_rows():
    table = Table(
        title="models by task",
        columns=(
            Column(name="task"),
            Column(name="a", best="highest"),
            Column(name="b", best="highest"),
        ),
        rows=(("one", 0.5, 0.6), ("two", 0.9, 0.7), ("three", 0.4, None)),
        best_in="row",
    )
    assert [[cell.best for cell in row] for row in show(table)] == [
        [False, False, True],
        [False, True, False],
        [False, False, False],
    ]


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'width="9pt" viewBox="0 0 9 9"><metadata>m</metadata><style>* {{}}</style>'
    '<g id="unused"><path id="{0}" clip-path="url(#c)"/><clipPath id="c"/>'
    '<use xlink:href="#{0}" style="fill: url(#c)"/><text>id="{0}" &lt;b></text></g></svg>'
)


class Reader(HTMLParser):
    """Cells, titles and names of a page, and every element in it."""

    def __init__(self, text) -> None:
        super().__init__()
        self.elements, self.cells, self.headers, self.titles = [], [], [], []
        self.numbers, self._into = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append(tag)
        into = {"td": self.cells, "th": self.headers, "h2": self.titles}.get(tag)
        if into is not None:
            into.append("")
            self._into = into
        if tag == "td":
            self.numbers.append(dict(attrs).get("data-number"))

    def handle_endtag(self, tag) -> None:
        if tag in {"td", "th", "h2"}:
            self._into = None

    def handle_data(self, data) -> None:
        if self._into is not None:
            self._into[-1] += data


def page_of(**values) -> Reader:
    page = Page("anchor", findings(**{"kind": "eval", "name": "n"} | values))
    return Reader(to_html([Group("eval", "Evaluation", (page,))], {}))


ELEMENTS = page_of(
    tables=(Table(title="t", columns=(Column(name="c", unit="u"),), rows=((1.0,),), notes=("n",)),),
    summary="s",
).elements

words = st.text(min_size=1).filter(
    lambda text: text.strip() and text.isprintable() and text.count("`") < 2
)


@settings(deadline=None, max_examples=50)
@given(word=words)
def test_text_is_text_wherever_it_stands(word) -> None:
    column = Column(name=word, unit=word)
    table = Table(title=word, columns=(column,), rows=((word,),), notes=(word,))
    read = page_of(title=word, summary=word, command=word, tables=(table,))
    assert read.elements == ELEMENTS
    assert read.cells == [word]
    assert read.headers == [word + word]
    assert word in read.titles


def test_text_between_backticks_in_prose_is_code_and_in_cells_is_itself() -> None:
    table = Table(title="t", columns=(Column(name="c"),), rows=(("`x`",),), notes=("a `b_c` <d>",))
    values = {"kind": "eval", "name": "n", "summary": "Run `dewey <x>` *now*", "tables": (table,)}
    page = Page("anchor", findings(**values))
    html = to_html([Group("eval", "Evaluation", (page,))], {})
    assert "Run <code>dewey &lt;x&gt;</code> *now*" in html
    assert "a <code>b_c</code> &lt;d&gt;" in html
    assert ">`x`</td>" in html
    markdown = page_to_markdown(page.result)
    assert r"Run `dewey <x>` \*now\*" in markdown
    assert "- a `b_c` &lt;d&gt;" in markdown
    assert r"| \`x\` |" in markdown


def test_a_script_in_a_title_is_read_and_not_run() -> None:
    evil = "</style><script>alert(1)</script><img src=x onerror=alert(2)>"
    read = page_of(title=evil, summary=evil)
    assert read.elements.count("script") == 1
    assert "img" not in read.elements


def test_numbers_stand_in_full_for_sorting() -> None:
    columns = (Column(name="c", digits=2),)
    rows = ((0.12345,), (None,), ("text",), (10_449,))
    read = page_of(tables=(Table(title="t", columns=columns, rows=rows),))
    assert read.cells == ["0.12", "–", "text", "10,449"]
    assert read.numbers == ["0.12345", None, None, "10449"]


def test_ids_of_a_picture_are_its_own_and_its_text_is_left_alone() -> None:
    svg = inline_svg(SVG.format("mark"), prefix="page-1", label='a "name"')
    assert 'id="page-1-mark"' in svg
    assert 'href="#page-1-mark"' in svg
    assert svg.count("url(#page-1-c)") == 2
    assert '<text>id="mark" &lt;b&gt;</text>' in svg
    assert 'aria-label="a &quot;name&quot;"' in svg
    for gone in ("unused", "metadata", "<style", "9pt", "xmlns:ns"):
        assert gone not in svg


COLUMNS = (Column(name="task"), Column(name="score", unit="nDCG@10", best="highest", digits=3))


def test_a_table_is_aligned_with_the_best_bold_and_a_dash_for_what_is_missing() -> None:
    rows = (("qasper", 0.5), ("a|b", None), ("2wikimqa", 0.75), ("snow_white", 3))
    table = Table(title="Scores", columns=COLUMNS, rows=rows, notes=("A note.",))
    text = page_to_markdown(findings(kind="eval", name="n", title="T", tables=(table,)))
    assert text.splitlines()[2:13] == [
        "**Scores**", "",
        "| task | score (nDCG@10) |",
        "| --- | ---: |",
        "| qasper | 0.500 |",
        r"| a\|b | – |",
        "| 2wikimqa | 0.750 |",
        "| snow_white | **3** |",
        "",
        "- A note.", "",
    ]  # fmt: skip


def test_every_page_names_its_command_machine_and_versions() -> None:
    last = page_to_markdown(evaluation()).splitlines()[-1]
    assert f"`{evaluation().command}`, 2026-11-23." in last
    assert "AMD EPYC 9R14 (AVX512), 2 cores" in last
    assert "torch 2.13.0+cpu" in last


def test_plots_link_to_their_files_and_are_left_out_without(tmp_path) -> None:
    alignment().write(tmp_path / "a.json")
    groups = collect([tmp_path]).groups
    assert "![" not in to_markdown(groups, {})
    links = {("alignment-mini", 1): ("results/x.png", "results/x.svg")}
    text = to_markdown(groups, links)
    assert "[![Cosine by position in the document](results/x.png)](results/x.svg)" in text
    assert text.count("![") == 1


def test_a_note_of_several_tables_stands_once() -> None:
    assert page_to_markdown(by_length()).count("Chunks of 256 tokens") == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("*bold* _it_ a_b", r"\*bold\* \_it\_ a_b"),
        ("[x](y) `c` $m$", r"\[x\](y) \`c\` \$m\$"),
        ("two\nlines", "two lines"),
        ("1. first", r"1\. first"),
        ("0.5 is half", "0.5 is half"),
        ("-0.5", "-0.5"),
        ("- item", r"\- item"),
        ("---", r"\---"),
    ],
)
def test_text_means_itself(text, escaped) -> None:
    assert escape(text) == escaped


def test_code_may_hold_backticks() -> None:
    assert code("a ` b") == "``a ` b``"
    assert code("`a`") == "`` `a` ``"


@given(st.lists(st.tuples(st.text(), st.text() | st.none() | st.floats()), max_size=4))
def test_any_text_leaves_a_table_its_rows_and_columns(rows) -> None:
    table = Table(title="t", columns=COLUMNS, rows=tuple(rows))
    text = page_to_markdown(findings(kind="eval", name="n", title="T", tables=(table,)))
    lines = [line for line in text.split("\n") if line.startswith("| ")]
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(COLUMNS) + 1
        assert not re.search(r"<[a-zA-Z/!]", line)
