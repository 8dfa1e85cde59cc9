"""The page in a real browser: tables sort, plots are there, nothing leaves the page."""

from pathlib import Path

import pytest

from dewey_embed.eval.report.output import write_report
from dewey_embed.eval.report.pages import collect
from dewey_embed.eval.result_page import Column, Table
from tests.eval.report.samples import findings, write_all

MIXED = Table(
    title="Mixed",
    columns=(Column(name="name"), Column(name="score", best="highest"), Column(name="any")),
    rows=(
        ("task 10", 0.1, "b"), ("task 9", None, None), ("task 1", 10.0, 3), ("other", -2.0, "a"),
        ("task 2", 9.0, 20),
    ),
)  # fmt: skip

WIDE = Table(
    title="Wide",
    columns=tuple(
        Column(name=name, unit=unit, digits=digits)
        for name, unit, digits in (
            ("vectors", "", 0), ("chunk", "tokens", 0), ("overlap", "tokens", 0),
            ("clusters a document", "", 0), ("precision", "", 0), ("dimensions", "", 0),
            ("nDCG@10", "", 4), ("low", "", 4), ("high", "", 4), ("recall@10", "", 4),
            ("number of vectors", "", 0), ("index", "bytes", 0), ("query", "ms", 3),
            ("on the front", "", 0),
        )
    ),
    rows=(
        ("one vector", 1024, 512, 16, "float32", 384, 0.7, 0.6, 0.8, 0.9, 123_456_789,
         123_456_789_012, 12.3, "yes"),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_all(folder / "in")
    findings(kind="zoo", name="mixed", tables=(MIXED,)).write(folder / "in" / "mixed.json")
    path = folder / "report.html"
    write_report(collect([folder / "in"]).groups, [path], None)
    return path


@pytest.fixture
def page(browser, report):
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.requests, page.faults = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(report.as_uri())
    yield page
    page.close()


def cells(page, column) -> list[str]:
    return page.locator(f"#zoo-mixed tbody td:nth-child({column})").all_inner_texts()


def header(page, column):
    return page.locator(f"#zoo-mixed thead th:nth-child({column})")


def test_a_click_sorts_numbers_as_numbers_the_best_first_the_missing_last(page) -> None:
    header(page, 2).locator("button").click()
    assert cells(page, 2) == ["10.0000", "9.0000", "0.1000", "-2.0000", "–"]
    assert header(page, 2).get_attribute("aria-sort") == "descending"
    header(page, 2).locator("button").click()
    assert cells(page, 2) == ["-2.0000", "0.1000", "9.0000", "10.0000", "–"]
    assert header(page, 2).get_attribute("aria-sort") == "ascending"


def test_enter_and_space_sort_names_as_people_count(page) -> None:
    button = header(page, 1).locator("button")
    button.focus()
    page.keyboard.press("Enter")
    assert cells(page, 1) == ["other", "task 1", "task 2", "task 9", "task 10"]
    page.keyboard.press("Space")
    assert cells(page, 1) == ["task 10", "task 9", "task 2", "task 1", "other"]


def test_a_mixed_column_has_numbers_before_text_and_one_column_is_sorted_at_a_time(page) -> None:
    header(page, 1).locator("button").click()
    header(page, 3).locator("button").click()
    assert cells(page, 3) == ["3", "20", "a", "b", "–"]
    assert header(page, 1).get_attribute("aria-sort") == "none"


def test_every_table_of_the_page_sorts_whole_rows(page) -> None:
    table = page.locator("#eval-offline table")
    before = {tuple(row.split("\t")) for row in table.locator("tbody tr").all_inner_texts()}
    table.locator("th").nth(1).locator("button").click()
    rows = [tuple(row.split("\t")) for row in table.locator("tbody tr").all_inner_texts()]
    assert set(rows) == before
    queries = [int(row[1].replace(",", "")) for row in rows]
    assert queries == sorted(queries)


@pytest.mark.parametrize("width", [1360, 390])
def test_every_plot_is_seen_and_the_page_is_no_wider_than_its_window(page, width) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    pictures = page.locator("figure svg")
    assert pictures.count() == 7
    for number in range(pictures.count()):
        box = pictures.nth(number).bounding_box()
        assert pictures.nth(number).is_visible()
        assert box["width"] > 0.75 * min(width, 400)
        assert box["height"] > 150
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_wide_table_shows_all_columns_in_a_window_of_1200_pixels(browser, tmp_path) -> None:
    findings(kind="zoo", name="wide", tables=(WIDE,)).write(tmp_path / "wide.json")
    write_report(collect([tmp_path]).groups, [tmp_path / "report.html"], None)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    hidden = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
    )
    page.close()
    assert hidden == [0]


def test_ids_are_unique_and_links_lead_somewhere(page) -> None:
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.evaluate("[...document.querySelectorAll('a')].map(a => a.hash.slice(1))")
    assert len(targets) == 10
    assert set(targets) <= set(ids)
    used = page.evaluate(
        "[...document.querySelectorAll('use')].map(e => e.getAttribute('href').slice(1))"
    )
    assert set(used) <= set(ids)


def test_no_request_leaves_the_page_and_nothing_is_wrong_with_it(page, report) -> None:
    page.wait_for_load_state("networkidle")
    header(page, 1).locator("button").click()
    page.mouse.wheel(0, 9000)
    assert page.requests == [report.as_uri()]
    assert page.faults == []


def test_the_policy_refuses_what_a_script_would_fetch(page) -> None:
    refused = page.evaluate("fetch('https://example.org').then(() => false, () => true)")
    assert refused
    assert any("Content Security Policy" in fault for fault in page.faults)
