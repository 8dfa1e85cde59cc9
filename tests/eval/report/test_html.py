"""The page: one file, all text escaped, figures that can be sorted as numbers."""

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.eval.report.html import inline_svg, to_html
from dewey_embed.eval.report.pages import Group, Page
from dewey_embed.eval.result_page import Column, Table
from tests.eval.report.samples import findings

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

words = st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable())


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


def test_a_script_in_a_title_is_read_and_not_run() -> None:
    evil = "</style><script>alert(1)</script><img src=x onerror=alert(2)>"
    read = page_of(title=evil, summary=evil)
    assert read.elements.count("script") == 1
    assert "img" not in read.elements


def test_numbers_are_told_in_full_for_sorting() -> None:
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
