"""The page in a real browser: open, ask, see where; by keyboard, on a phone, in the dark."""

import pydoc_data.topics
import re
import time
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from dewey_embed import Dewey
from dewey_embed.serve.app import create_app
from dewey_embed.serve.page import HEADERS
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings
from tests.serve.conftest import running

QUERY = "how can attribute access of a class be customised?"
ANSWER = "The following methods can be defined to customize the meaning of attribute"
TOPICS = ("compound", "specialnames", "with")
"""Of the Python language reference, over 30,000 tokens."""


@pytest.fixture(scope="module")
def model():
    return Dewey.load()


@pytest.fixture(scope="module")
def server(model):
    """The address of a server as users start it."""
    with running(create_app(Server(model, {}, ServeSettings()))) as url:
        yield url


@pytest.fixture
def visit(browser, server):
    """A function that opens the page in a window; at the end nothing may be wrong with any."""
    pages = []

    def opened(address="/", *, width=1280, height=860, scheme="light", faults=()):
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        page.requests, page.faults, page.expected = [], [], faults
        page.on("request", lambda request: page.requests.append((request.method, request.url)))
        page.on("console", lambda message: page.faults.append(message.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        pages.append(page)
        page.goto(server + address)
        page.wait_for_selector("body[data-ready]", state="attached")
        return page

    yield opened
    for page in pages:
        unexpected = [
            fault for fault in page.faults if not any(each in fault for each in page.expected)
        ]
        assert unexpected == []
        assert [url for _, url in page.requests if not url.startswith(server)] == []
        page.close()


def drop(page, name, text):
    """Drop a file on the page."""
    page.evaluate(
        """([name, text]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], name));
            dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer }));
            dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        }""",
        [name, text],
    )


def until(page, condition, seconds=30):
    """Wait for a condition; the page's policy keeps playwright from waiting within the page."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)


def wait_for_text(page):
    page.wait_for_selector("body[data-view=reading] #text .s", state="attached", timeout=60_000)


def ask(page, query):
    page.fill("#query", query)
    page.press("#query", "Enter")
    page.wait_for_selector("#answers button")


@pytest.fixture(scope="module")
def reference(browser, server):
    """Where a page has the reference open, and what was seen on the way."""
    page = browser.new_page()
    page.goto(server)
    page.wait_for_selector("body[data-ready]", state="attached")
    topics = pydoc_data.topics.topics
    drop(page, "reference.rst", "\n\n\n".join(topics[name].strip() for name in TOPICS))
    until(page, "document.getElementById('progress').value > 0")
    counted = page.inner_text("#count")
    wait_for_text(page)
    facts, address = page.inner_text("#facts"), page.url.removeprefix(server)
    page.close()
    return address, counted, facts


@pytest.fixture
def reading(visit, reference):
    """A page with the reference open."""
    page = visit(reference[0])
    wait_for_text(page)
    return page


def is_in_view(page, selector):
    return page.evaluate(
        """selector => {
            const box = document.querySelector(selector).getBoundingClientRect();
            return box.top >= 60 && box.bottom <= innerHeight && box.height > 0;
        }""",
        selector,
    )


def answers(page):
    return page.locator("#text .s.answer").all_text_contents()


def test_the_first_screen_says_what_this_is_and_has_a_document_to_try(visit):
    page = visit()
    assert page.inner_text("h1") == "Ask a long document.\nSee where it answers."
    assert page.locator("#samples button").count() >= 1
    assert page.evaluate("document.activeElement.tagName") == "BODY"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_every_file_of_the_page_has_strict_headers_and_holds_no_script_of_its_own(server):
    page = httpx.get(server)
    names = re.findall(r"/page/[\w.]+", page.text)
    assert len(set(names)) == 3
    files = [page, *(httpx.get(server + name) for name in names)]
    script = httpx.get(server + "/page/main.js")
    imported = re.findall(r'from "\./(\w+\.js)"', script.text)
    assert len(imported) == 3
    files += [httpx.get(f"{server}/page/{name}") for name in imported]
    for each in files:
        assert each.status_code == 200
        assert {name: each.headers[name] for name in HEADERS} == HEADERS
        assert "innerHTML" not in each.text
        assert not re.search(r"https?://(?!www\.w3\.org)", each.text)
    assert re.findall(r"<script\b[^>]*>(.+?)</script>|\s(?:on\w+|style)=", page.text) == []
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", ["none.js", "..%2fpage.py", "%2e%2e/page.py", "index", "."])
def test_nothing_else_of_the_package_is_given_out(server, name):
    assert httpx.get(f"{server}/page/{name}").status_code in (404, 405)


def test_a_dropped_document_of_over_30000_tokens_shows_its_progress_and_its_text(
    reading, reference
):
    _, counted, facts = reference
    done, total = (
        int(each.replace(",", ""))
        for each in re.fullmatch(r"(.+) of (.+) tokens", counted).groups()
    )
    assert 0 < done <= total
    assert total > 30_000
    assert facts.startswith(f"{total:,} tokens · ")
    num = int(re.search(r"([\d,]+) sentences", facts)[1].replace(",", ""))
    until(reading, f"document.querySelectorAll('#text .s').length === {num}")
    assert reading.locator("#text h2.heading").first.inner_text() == "Compound statements"


def test_the_passage_that_answers_is_marked_and_scrolled_to_by_keyboard_alone(reading):
    page = reading
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#text .s.answer")
    [marked] = answers(page)
    assert " ".join(marked.split()).startswith(ANSWER)
    until(page, "scrollY > 1000")
    assert is_in_view(page, "#text .s.answer")
    assert "Customizing attribute access" in page.inner_text("#answers li:first-child .place")
    assert "likely" in page.inner_text("#verdict")

    page.keyboard.press("n")
    [second] = answers(page)
    assert second != marked
    assert page.evaluate("document.activeElement.querySelector('.rank').textContent") == "2"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert answers(page) == [second]
    page.keyboard.press("p")
    assert answers(page) == [marked]
    page.wait_for_timeout(100)
    assert is_in_view(page, "#text .s.answer")
    page.keyboard.press("Escape")
    assert answers(page) == []
    assert page.locator("#answers li, #text .s.hot").count() == 0


def test_the_slider_changes_the_heat_at_once_without_a_request(reading):
    page = reading
    ask(page, QUERY)
    page.wait_for_selector("#text .s.hot")
    heat = """[...document.querySelectorAll('#text .s.hot')]
        .map(each => each.textContent.slice(0, 9) + each.style.getPropertyValue('--heat-share'))"""
    picture = "document.getElementById('minimap').toDataURL()"
    fine, drawn, num = page.evaluate(heat), page.evaluate(picture), len(page.requests)
    page.focus("#granularity")
    for name in ("50 words", "150 words", "400 words", "1,500 words"):
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#size") == name
    coarse = page.evaluate(heat)
    assert coarse != fine
    assert page.evaluate(picture) != drawn
    assert page.locator("#granularity").get_attribute("aria-valuetext") == "1,500 words"
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate(heat) == fine
    assert len(page.requests) == num


def test_the_map_shows_all_of_the_document_and_jumps_by_click_and_by_key(reading):
    page = reading
    ask(page, QUERY)
    box = page.locator("#minimap").bounding_box()
    page.mouse.click(box["x"] + 20, box["y"] + 0.9 * box["height"])
    value = lambda: int(page.locator("#minimap").get_attribute("aria-valuenow"))  # noqa: E731
    until(page, "+document.getElementById('minimap').ariaValueNow > 80")
    page.focus("#minimap")
    page.keyboard.press("Home")
    until(page, "scrollY === 0 && +document.getElementById('minimap').ariaValueNow === 0")
    page.keyboard.press("PageDown")
    until(page, "+document.getElementById('minimap').ariaValueNow >= 8")
    assert value() <= 12
    page.mouse.move(box["x"] + 20, box["y"] + 0.95 * box["height"])
    assert page.inner_text("#tip")


def warmth(page):
    """How much more red than blue there is where the map is warmest."""
    picture = Image.open(BytesIO(page.locator("#minimap").screenshot())).convert("RGB")
    pixels = np.asarray(picture, np.int16)
    return int((pixels[..., 0] - pixels[..., 2]).max())


def test_a_query_without_an_answer_says_so_and_leaves_all_faint(reading):
    page = reading
    alpha = """Math.max(...[...document.querySelectorAll('#text .s.hot:not(.answer)')].map(each =>
        +getComputedStyle(each).backgroundColor.match(/([\\d.]+)\\)$/)[1]))"""
    ask(page, QUERY)
    page.wait_for_selector("#text .s.hot")
    page.wait_for_timeout(60)
    map_before, text_before = warmth(page), page.evaluate(alpha)
    ask(page, "which team won the football world cup in Brazil?")
    page.wait_for_selector("#reading.doubt")
    page.wait_for_timeout(60)
    assert page.inner_text("#verdict") == "Probably not in this document; nearest:"
    verdict = page.evaluate("""(() => {
        const range = document.createRange();
        range.selectNodeContents(document.getElementById('verdict'));
        return range.getClientRects().length;
    })()""")
    assert verdict == 1  # line
    assert warmth(page) < 0.6 * map_before
    assert page.evaluate(alpha) < 0.6 * text_before


def test_a_place_in_the_list_is_the_section_and_outlasts_a_reload(visit):
    page = visit()
    title = "Barley supply agreement between the Lochmere estate and the millers of Kelso"
    outer = "Duties of both sides at all times"
    drop(
        page,
        "barley.md",
        f"# {title}\n\nBoth sides sign.\n\n## {outer}\n\n### Delivery\n\n"
        "#### Trucks\n\nThe estate sends the barley by truck in August.\n\n"
        "## Price\n\nA tonne costs 210 pounds.\n",
    )
    wait_for_text(page)
    place = page.locator("#answers li:first-child .place")
    ask(page, "what does a tonne cost?")
    assert place.inner_text().startswith("Price")
    ask(page, "how does the barley get there?")
    until(page, "document.querySelector('#answers mark').innerText.includes('truck')")
    assert place.inner_text().startswith(f"{outer} › Delivery › Trucks")
    page.set_viewport_size({"width": 380, "height": 780})
    until(page, "document.querySelector('.place').innerText.startsWith('… ›')")
    assert "Trucks" in place.inner_text()
    assert place.evaluate("each => each.scrollHeight <= each.clientHeight + 1")
    page.reload()
    page.wait_for_selector("#text .s.answer")
    assert page.input_value("#query") == "how does the barley get there?"
    assert "Trucks" in place.inner_text()


def test_a_phone_shows_the_text_the_map_and_the_answers_without_scrolling_sideways(
    visit, reference
):
    page = visit(reference[0], width=380, height=780)
    wait_for_text(page)
    assert page.inner_text("#verdict") == "Ask anything."  # no word of keys
    ask(page, QUERY)
    page.wait_for_selector("#text .s.answer")
    until(page, "scrollY > 1000")
    assert page.evaluate("document.documentElement.scrollWidth") == 380
    for selector in ("#query", "#minimap", "#granularity", "#answers button"):
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 380
        assert box["y"] + box["height"] <= 780
    marked = page.locator("#text .s.answer").bounding_box()
    below = page.locator("aside").bounding_box()
    assert marked["y"] + marked["height"] < below["y"]
    assert page.locator("#text").bounding_box()["width"] > 300


def luminance(page, script):
    """The relative luminance of a colour, as WCAG defines it."""
    values = [float(each) / 255 for each in re.findall(r"[\d.]+", page.evaluate(script))[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_paper_and_marks_in_both_schemes(visit, reference, scheme):
    page = visit(reference[0], scheme=scheme)
    wait_for_text(page)
    ask(page, QUERY)
    page.wait_for_selector("#text .s.answer")
    page.wait_for_timeout(50)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    paper = luminance(page, style.format("body", "backgroundColor"))
    assert (paper < 0.05) == (scheme == "dark")
    mark = luminance(page, style.format("#text .s.answer", "backgroundColor"))
    for selector, ground, least in (
        ("body", paper, 7), ("#text .s.answer", mark, 4.5), ("#facts", paper, 4.5),
    ):  # fmt: skip
        ink = luminance(page, style.format(selector, "color"))
        contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
        assert contrast >= least, (selector, contrast)


def test_text_and_names_are_shown_as_they_are_and_never_run(visit):
    page = visit()
    name = "<img src=x onerror=alert(1)>.txt"
    text = "<script>alert(1)</script> is a script.\n\n<b>Moths</b> eat wool & silk 🦋 at night."
    drop(page, name, text)
    wait_for_text(page)
    assert page.inner_text("#title") == name
    assert page.locator("#text img, #text script, #text b, h1 img").count() == 0
    assert "<script>alert(1)</script> is a script." in page.inner_text("#text")
    ask(page, "what do moths eat?")
    page.wait_for_selector("#text .s.answer")
    assert answers(page) == ["<b>Moths</b> eat wool & silk 🦋 at night."]
    assert "<b>Moths</b> eat wool & silk 🦋" in page.inner_text("#answers")


def test_a_text_is_pasted_and_a_sample_is_cancelled(visit):
    page = visit()
    page.locator("#samples button").last.click()
    page.wait_for_selector("body[data-view=opening]")
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-view=start]")
    page.click("#paste")
    page.fill("#pasted", "Rent\n\nThe tenant pays 900 euros.")
    page.click("#pasting button.primary")
    wait_for_text(page)
    assert page.inner_text("#title") == "Rent"
    page.click("#another")
    page.wait_for_selector("body[data-view=start]")
    assert ("DELETE" in [method for method, _ in page.requests]) is True


def test_what_goes_wrong_is_one_clear_line(visit, reference):
    page = visit(reference[0], faults=["400", "net::ERR_FAILED", "429", "404"])
    wait_for_text(page)
    drop(page, "report.pdf", "%PDF-1.7 no more than that")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error span").startswith("report.pdf: ")
    page.wait_for_selector("body[data-view=reading]")  # the document that was open still is

    page.route("**/ask", lambda route: route.abort())
    page.fill("#query", QUERY)
    page.press("#query", "Enter")
    until(page, "document.getElementById('error').innerText.includes('reached')")

    page.unroute("**/ask")
    page.route(
        "**/ask", lambda route: route.fulfill(status=429, headers={"Retry-After": "1"}), times=1
    )
    page.press("#query", "Enter")
    until(page, "document.getElementById('error').innerText.includes('busy')")
    page.wait_for_selector("#text .s.answer")
    assert page.locator("#error").is_hidden()


def test_a_server_with_keys_shows_nothing_until_it_gets_one(browser, model):
    app = create_app(Server(model, {}, ServeSettings(keys=frozenset({"sesame"}))))
    with running(app) as url:
        page = browser.new_page()
        page.goto(url)
        for key in ("wrong", "sesame"):
            page.wait_for_selector("#locked[open]")
            assert page.locator("#samples button").count() == 0
            page.fill("#key", key)
            page.press("#key", "Enter")
        page.wait_for_selector("#samples button")
        drop(page, "note.txt", "Moths eat wool.")
        wait_for_text(page)
        ask(page, "what do moths eat?")
        assert answers(page) == ["Moths eat wool."]
        page.close()


def test_128k_tokens_are_drawn_without_stutter(visit, reference):
    sentences = [
        f"Sentence {number} says {'something ' * 6}of no weight. " for number in range(7000)
    ]
    text, bounds = "", []
    for number, sentence in enumerate(sentences):
        bounds += [len(text), len(text) + len(sentence) - 1]
        text += sentence + ("\n\n" if number % 5 == 4 else "")
    document = {
        "id": "long", "title": "Long", "num_tokens": 128_000, "text": text, "sentences": bounds,
        "headings": [], "pages": [], "unread": {}, "queries": [],
    }  # fmt: skip
    page = visit()
    page.route("**/page/documents/long", lambda route: route.fulfill(json=document))
    page.goto(page.url + "#long")
    page.reload()
    until(page, "document.querySelectorAll('#text .s').length === 7000")
    laid_out = """[...document.querySelectorAll('.leaf')].filter(
        leaf => leaf.firstChild.checkVisibility({ contentVisibilityAuto: true })).length"""
    assert 0 < page.evaluate(laid_out) < 20
    frame = """() => new Promise(resolve => {
        const begun = performance.now();
        const key = new KeyboardEvent('keydown', { key: 'PageDown' });
        document.getElementById('minimap').dispatchEvent(key);
        const shown = () => resolve(performance.now() - begun);
        requestAnimationFrame(() => requestAnimationFrame(shown));
    })"""
    assert sorted(page.evaluate(frame) for _ in range(9))[4] < 250  # on a busy machine, too
    until(page, "+document.getElementById('minimap').ariaValueNow > 85")
