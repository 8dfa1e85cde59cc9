"""A document opened on the page: the passages of `dewey search`, heat of any range, limits."""

import asyncio
import json
import tempfile
import threading
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest
from fpdf import FPDF

from dewey_embed import Document, Index
from dewey_embed.serve.app import create_app
from dewey_embed.serve.reading import GRANULARITIES, Heat, Reading, Shelf, ranges_around
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings
from dewey_embed.serve.uploads import file_name
from dewey_embed.text.locations import place_in_words
from dewey_embed.types import DocumentVectors, Span
from tests.serve.conftest import client_of, running

LEASE = """\
# Lease 🏠

The flat lies in the second storey. It has three rooms and a balcony.

## Rent

The tenant pays 900 euros a month. It is due on the third working day.

## Pets

Cats are allowed. A dog needs the consent of the owner, which is given in writing.

## Repairs

The owner mends the roof and the pipes. Small repairs are paid for by the tenant.
"""


def below_title(location):
    """A place in the lease in words; its title goes without saying, but where nothing follows."""
    return place_in_words(replace(location, headings=location.headings[1:] or location.headings))


def states(answer):
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def opened(client, *, name="lease.md", data=b""):
    """The id of an uploaded document, once it is ready."""
    last = states(client.post("/page/files", files={"file": (name, data or LEASE.encode())}))[-1]
    assert last["state"] == "ready", last
    return last["id"]


def ask(client, document, query):
    answer = client.post(f"/page/documents/{document}/ask", json={"query": query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def drawn(client, document):
    return client.get(f"/page/documents/{document}").json()


def units(text, start, end):
    """A slice of a text as JavaScript counts."""
    return text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")


@pytest.fixture(scope="module")
def lease(mini_client):
    return opened(mini_client)


def test_passages_are_those_of_a_search_in_an_index_of_the_same_file(
    mini, mini_client, lease, tmp_path
):
    (tmp_path / "lease.md").write_text(LEASE)
    index = Index.open(tmp_path / "index", mini)
    index.add_files(tmp_path / "lease.md")
    text = drawn(mini_client, lease)["text"]
    for query in ("may I keep a dog?", "who mends the roof?", "how much is the rent?"):
        [hit] = index.search(query, k=1, passages=8)
        answer = ask(mini_client, lease, query)
        assert answer["probability"] == hit.probability
        assert [
            (units(text, each["start"], each["end"]), each["places"][0], each["score"])
            for each in answer["passages"]
        ] == [
            (each.text, below_title(each.location), pytest.approx(each.score, abs=1e-5))
            for each in hit.passages
        ]
        start, end = hit.passages[0].highlight
        assert units(text, *answer["passages"][0]["highlight"]) == text[start:end]


def test_the_sentence_that_answers_is_marked_and_its_section_the_hottest(mini_client, lease):
    read, answer = drawn(mini_client, lease), ask(mini_client, lease, "may I keep a dog?")
    best = answer["passages"][0]
    assert units(read["text"], *best["highlight"]).startswith("A dog needs")
    assert best["places"][0].startswith("Pets")
    sentences = list(zip(read["sentences"][::2], read["sentences"][1::2], strict=True))
    texts = [units(read["text"], *each) for each in sentences]
    heat = dict(zip(texts, answer["relevance"]["sentence"], strict=True))
    pets = texts[texts.index("## Pets") : texts.index("## Repairs")]
    assert max(heat, key=heat.get) in pets
    assert min(heat[each] for each in pets) > heat["It has three rooms and a balcony."] == 0
    assert [units(read["text"], start, end) for start, end, _ in read["headings"]] == [
        "# Lease 🏠", "## Rent", "## Pets", "## Repairs",
    ]  # fmt: skip
    assert [level for _, _, level in read["headings"]] == [1, 2, 2, 2]


def test_a_query_that_the_document_does_not_answer_is_said_to_have_no_answer(mini_client, lease):
    assert ask(mini_client, lease, "who mends the roof and the pipes?")["answered"]
    assert not ask(mini_client, lease, "in what year was Napoleon crowned?")["answered"]


def test_the_heat_of_a_range_is_the_cosine_of_its_own_vector(mini):
    document = mini.encode_document(LEASE, splitter="sentence", keep_states=True)
    sections = np.array([0, 4, 6])
    heat = Heat(document, sections)
    query = mini.encode_query("who mends the roof?")
    tokens = np.array([span.num_tokens for span in document.spans])
    for name, size in GRANULARITIES.items():
        starts, ends = ranges_around(tokens, size, sections)
        ranges = [
            (document.spans[start].char_start, document.spans[end - 1].char_end)
            for start, end in zip(starts, ends, strict=True)
        ]
        expected = document.pool(ranges) @ query
        np.testing.assert_allclose(heat.cosines(query, name), expected, atol=2e-5)


@pytest.mark.parametrize("size", sorted(GRANULARITIES.values()))
def test_ranges_hold_their_sentence_and_stay_in_its_section(size):
    tokens = np.random.default_rng(3).integers(1, 90, 400)
    sections = np.array([0, 3, 200, 201, 400])  # one of them after the last sentence
    starts, ends = ranges_around(tokens, size, sections)
    rows = np.arange(400)
    assert (starts <= rows).all()
    assert (rows < ends).all()
    for bound in (3, 200, 201):
        assert not ((starts < bound) & (bound < ends)).any()
    sums = np.concatenate([[0], np.cumsum(tokens)])
    assert (sums[ends] - sums[starts] <= size + 2 * 90).all()


def made_up(num_sentences=6000, width=384):
    """A document of the length of 128K tokens, with vectors that mean nothing."""
    rng = np.random.default_rng(0)
    words = rng.choice([f"word{number}" for number in range(3000)], (num_sentences, 14))
    sentences = [" ".join(each) + "." for each in words]
    starts = np.cumsum([0] + [len(each) + 1 for each in sentences])
    spans = [
        Span(int(start), int(start) + len(text), 21 * row, 21 * (row + 1))
        for row, (start, text) in enumerate(zip(starts, sentences, strict=False))
    ]
    chunks = rng.normal(size=(num_sentences, width)).astype(np.float32)
    chunks /= np.linalg.norm(chunks, axis=1, keepdims=True)
    tokens = 21 * num_sentences
    return Document(id="long", text=" ".join(sentences)), DocumentVectors(
        vector=chunks[0], chunks=chunks, spans=spans, num_tokens=tokens, used_tokens=tokens,
        norms=np.ones(num_sentences, np.float32),
    )  # fmt: skip


def test_a_document_of_128k_tokens_answers_in_50_milliseconds(mini):
    document, vectors = made_up()
    reading = Reading(document, vectors, None, mini)
    query = vectors.chunks[1234]
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        hit, relevance = reading.hit("word7 word8", query), reading.heat.relevance(query)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.05
    assert int(np.argmax(relevance["sentence"])) == 1234
    assert len(hit.passages) == 8


class Held:
    def __init__(self, num_bytes=1):
        self.num_bytes = num_bytes

    def close(self):
        pass


def test_documents_used_longest_ago_leave_when_there_are_too_many_or_they_are_too_large():
    shelf = Shelf(max_documents=3, max_bytes=100)
    first, second, third = (shelf.put(Held()) for _ in range(3))
    shelf.get(first)
    fourth = shelf.put(Held())
    with pytest.raises(Exception, match="no longer open here"):
        shelf.get(second)
    assert all(shelf.get(each) for each in (first, third, fourth))
    large = shelf.put(Held(1000))  # one alone may be larger than the limit
    assert len(shelf) == 1
    assert shelf.get(large)
    assert len({first, second, third, fourth, large}) == 5
    assert min(map(len, (first, large))) >= 24


def test_what_was_written_for_a_document_goes_with_it(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other servers write to the machine's
    with client_of(mini) as client:
        document = opened(client)
        [own] = tmp_path.glob("dewey-page-*")
        assert client.delete(f"/page/documents/{document}").status_code == 200
        assert not own.exists()
        gone = client.get(f"/page/documents/{document}")
    assert gone.status_code == 404
    assert "open it again" in gone.json()["error"]


def test_an_upload_leaves_no_file_behind_and_names_no_folder(mini_client, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    damaged = {"file": ("../../secret/report.pdf", b"%PDF-1.7 no more than that")}
    answer = mini_client.post("/page/files", files=damaged)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("report.pdf: ")
    assert str(tmp_path) not in answer.text
    assert not list(tmp_path.glob("dewey-upload-*"))


def test_a_pdf_has_its_pages_and_passages_name_them(mini_client):
    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    for page in range(1, 6):
        pdf.add_page()
        words = "The wharf closes at nine in winter. " if page == 4 else "Ships carry timber. "
        pdf.multi_cell(0, 6, words * 20)
    document = opened(mini_client, name="port.pdf", data=bytes(pdf.output()))
    assert [label for _, label in drawn(mini_client, document)["pages"]] == list("12345")
    answer = ask(mini_client, document, "when does the wharf close?")
    assert answer["passages"][0]["places"][0].startswith("p. 4")


def test_records_of_one_file_become_one_document_with_their_titles_as_headings(mini_client):
    records = [
        {"title": f"Note {number}", "text": f"It rains on day {number}."} for number in "123"
    ]
    data = "\n".join(map(json.dumps, records)).encode()
    read = drawn(mini_client, opened(mini_client, name="notes.jsonl", data=data))
    assert read["title"] == "notes.jsonl"
    assert [read["text"][start:end] for start, end, _ in read["headings"]] == [
        "Note 1", "Note 2", "Note 3",
    ]  # fmt: skip


def test_a_pasted_text_a_sample_and_a_document_of_an_index_are_opened(mini, tmp_path):
    index = Index.open(tmp_path / "index", mini)
    index.add(
        [Document(id=name, text=f"{name} eat wool.", title=name) for name in ("Moths", "Ants")]
    )
    app = create_app(Server(mini, {"insects": index}, ServeSettings()))
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        listed = client.get("/page/indexes/insects", params={"words": "mo"}).json()
        assert listed == {"documents": [{"id": "Moths", "title": "Moths"}], "more": False}
        start = client.get("/page/start").json()
        assert start["indexes"] == [{"name": "insects", "num_documents": 2}]
        assert start["samples"]
        assert ".pdf" in start["extensions"]
        bodies = {
            "Moths": {"index": "insects", "document_id": "Moths"},
            "A note": {"text": "Moths eat silk.", "title": "A note"},
        }
        for title, body in bodies.items():
            document = states(client.post("/page/documents", json=body))[-1]["id"]
            assert drawn(client, document)["title"] == title
            assert ask(client, document, "what do moths eat?")["passages"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "give one of text, sample"),
        ({"text": "a", "sample": "python"}, 422, "give one of text, sample"),
        ({"index": "a"}, 422, "belong together"),
        ({"text": " \n"}, 400, "blank"),
        ({"text": 7}, 422, "text"),
        ({"text": "a", "more": 1}, 422, "more: unknown field"),
        ({"sample": "none"}, 404, "no such sample"),
        ({"index": "none", "document_id": "a"}, 404, "no such index"),
    ],
)
def test_a_bad_body_is_refused_with_a_reason(mini_client, body, status, words):
    answer = mini_client.post("/page/documents", json=body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_a_blank_query_an_unknown_document_and_a_blank_file_are_refused(mini_client, lease):
    path = f"/page/documents/{lease}/ask"
    assert mini_client.post(path, json={"query": " "}).status_code == 400
    assert mini_client.post(path, json={}).status_code == 422
    unknown = mini_client.post("/page/documents/abc/ask", json={"query": "a"})
    assert unknown.status_code == 404
    blank = mini_client.post("/page/files", files={"file": ("a.txt", b" \n ")})
    assert (blank.status_code, blank.json()["error"]) == (400, "a.txt: empty")


def test_lone_surrogates_are_read_as_unknown_characters(mini_client):
    body = b'{"text": "Moths \\ud800 eat wool."}'
    answer = mini_client.post(
        "/page/documents", content=body, headers={"Content-Type": "application/json"}
    )
    assert drawn(mini_client, states(answer)[-1]["id"])["text"] == "Moths \ufffd eat wool."


def test_a_document_of_too_many_tokens_is_refused_with_both_numbers(mini):
    app = create_app(Server(mini, {}, replace(ServeSettings(), max_tokens=20)))
    with running(app) as url:
        answer = httpx.post(f"{url}/page/documents", json={"text": "moths eat wool " * 20})
    [failed] = states(answer)
    assert (failed["state"], failed["status"]) == ("failed", 413)
    assert "the limit is 20" in failed["error"]


def test_a_reader_who_leaves_ends_the_pass(mini):
    ended = threading.Event()

    class Slow(Server):
        async def encode(self, request, texts, on_tokens=None, **options):
            on_tokens(3)
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    with running(create_app(Slow(mini, {}, ServeSettings()))) as url:
        with httpx.stream("POST", f"{url}/page/documents", json={"text": LEASE}) as answer:
            lines = answer.iter_lines()
            while not (state := json.loads(next(lines)))["done"]:
                pass
            assert (state["state"], state["done"]) == ("encoding", 3)
            assert state["total"] > 60
        assert ended.wait(2)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("lease.pdf", "lease.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\lease.docx", "lease.docx"),
        ("a\x00b\n.txt", "ab.txt"),
        (".profile", "profile"),
        ("", "document"),
        ("..", "document"),
        ("-", "document"),
        ("x" * 500 + ".pdf", "x" * 196 + ".pdf"),
    ],
)
def test_a_file_keeps_its_name_but_no_path(given, kept):
    assert file_name(given, otherwise="document") == kept
