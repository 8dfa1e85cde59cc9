"""The tools for agents: their answers, how these fit a budget of tokens, and what is refused."""

import json
import re
import shutil
import unicodedata

import anyio
import pytest
from fpdf import FPDF
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from mcp import Client

from dewey_embed import Document, Index, Landmark
from dewey_embed.serve.mcp import mcp_server
from dewey_embed.serve.mcp_budget import TokenCounter, most
from dewey_embed.serve.mcp_excerpts import excerpt

LEASE = """# Lease

The tenant is Anna Weber. The landlord is the City of Bremen.

## Rent

The rent is 900 euros a month. It is due on the third working day. Late rent bears interest of five
percent.

## Repairs

The landlord mends the roof. Small repairs up to 100 euros are the tenant's.

### Heating

The boiler is serviced every autumn.

## End

Either side may end the lease with three months' notice.
"""
PAGES = [
    "Whales are mammals. They breathe air and nurse their young. " * 8,
    "Sharks are fish with a skeleton of cartilage. They have several rows of teeth. " * 8,
    "Squids have ten arms and three hearts. " * 12,
]
HOSTILE = {
    "a": "Plain words of the first.",
    "a#": "Plain words of the second.",
    "a#char=0,5": "Plain words of the third.",
    "b::a": "Plain words of the fourth.",
    "line\nbreak \u202eevil": "Plain words\x1b[2J of the fifth, \u200bunseen\U000e0041 ones, too.",
    "long/" + "x" * 1_500: "Plain words under a long name.",
    "word": "incomprehensibilities" * 250,
    "emoji": "\N{OLD KEY}\N{ROCKET}" * 300 + " and words. ",
    "heap": "e" + "\u0301" * 900 + ". Plain words. " + " \n" * 600 + "The end.",
    "signs": "契約は三十日前に通知することにより解除できる。" * 20,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of several formats, of which an index is made."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "lease.md").write_text(LEASE)
    (folder / "offers.csv").write_text("boat,price\nThe red canoe,300\nThe blue kayak,450\n")
    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    for text in PAGES:
        pdf.add_page()
        pdf.multi_cell(0, 8, text)
    pdf.output(str(folder / "sea.pdf"))
    return folder


@pytest.fixture(scope="module")
def index(folder, mini, tmp_path_factory):
    index = Index.open(tmp_path_factory.mktemp("indexes") / "files", mini)
    index.add_files(folder)
    return index


@pytest.fixture(scope="module")
def hostile(mini, tmp_path_factory):
    """An index of documents whose ids, titles, metadata and texts are hard to fit."""
    index = Index.open(tmp_path_factory.mktemp("indexes") / "hostile", mini)
    marks = [Landmark(0, "heading", 1, "Chapter " * 90), Landmark(6, "heading", 2, "Section")]
    index.add(
        Document(id=name, text=text, title="title " * 400 * (name == "heap"), landmarks=marks,
                 metadata={"notes": "metadata " * 300 * (name == "emoji")})
        for name, text in HOSTILE.items()
    )  # fmt: skip
    return index


def result(indexes, name, arguments):
    """What a client within this process gets from a tool."""

    async def call():
        async with Client(mcp_server(indexes)) as client:
            return await client.call_tool(name, arguments)

    return anyio.run(call)


def answer(indexes, name, **arguments):
    indexes = indexes if isinstance(indexes, dict) else {"one": indexes}
    found = result(indexes, name, arguments)
    assert not found.is_error, found.content
    [item] = found.content
    return json.loads(item.text)


def refusal(indexes, name, **arguments):
    """The one line of a tool's error."""
    indexes = indexes if isinstance(indexes, dict) else {"one": indexes}
    found = result(indexes, name, arguments)
    assert found.is_error
    [item] = found.content
    assert "\n" not in item.text
    assert "Traceback" not in item.text
    return item.text


def test_search_and_fetch_have_the_shapes_of_chatgpts_connectors(index):
    found = answer(index, "search", query="Who mends the roof?")
    best = found["results"][0]
    assert {"id", "title", "url"} <= best.keys()
    assert best["title"] == "Lease"
    assert "The landlord mends the roof." in best["text"]
    for each in found["results"]:
        fetched = answer(index, "fetch", id=each["id"])
        assert {"id", "title", "text", "url", "metadata"} <= fetched.keys()
        assert fetched["id"] == each["id"]
        assert each["text"] in fetched["text"]


def test_every_passage_says_where_it_stands(index, folder):
    [best, *_] = answer(index, "search", query="skeleton of cartilage")["results"]
    document = index.document(str(folder / "sea.pdf"))
    start, end = best["place"]["characters"]
    assert best["place"]["page"] == 2
    assert best["url"] == (folder / "sea.pdf").as_uri() + "#page=2"
    assert best["id"] == f"{document.id}#char={start},{end}"
    assert best["text"] == document.text[start:end]
    [best, *_] = answer(index, "search", query="boiler service")["results"]
    assert best["place"]["headings"] == ["Lease", "Repairs", "Heating"]
    [best, *_] = answer(index, "search", query="blue kayak")["results"]
    assert best["place"]["row"] <= 3 <= best["place"].get("last_row", best["place"]["row"])


def test_documents_come_with_their_best_passages(index, folder):
    found = answer(index, "search", query="Who mends the roof?", by="document", k=2)
    assert len(found["results"]) == 2
    lease = found["results"][0]
    assert lease["title"] == "Lease"
    assert lease["id"] == str(folder / "lease.md")
    text = index.document(lease["id"]).text
    for passage in lease["passages"]:
        start, end = passage["place"]["characters"]
        assert passage["text"] == text[start:end]
    assert lease["passages"][0]["text"] in answer(index, "fetch", id=lease["id"])["text"]


def test_a_filter_lets_pass_what_index_search_does(index):
    found = answer(index, "search", query="water", filter={"extension": [".pdf", ".txt"]})
    assert {each["title"] for each in found["results"]} == {"sea.pdf"}
    assert "known: extension" in refusal(index, "search", query="water", filter={"colour": "red"})


def test_what_is_not_in_the_documents_is_said_to_be_missing(index):
    note = "probably not in these documents"
    assert note in answer(index, "search", query="quantum chromodynamics on a lattice")["note"]
    assert "note" not in answer(index, "search", query="How much is the rent a month?")


def test_expand_returns_what_index_around_does(index):
    [best, *_] = answer(index, "search", query="Late rent bears interest", k=1)["results"]
    [hit] = index.passages("Late rent bears interest", k=1)
    for sentences in (1, 4):
        expanded = answer(index, "expand", id=best["id"], sentences=sentences)
        around = index.around(hit.passages[0], sentences)
        assert expanded["text"] == around.text
        assert expanded["place"]["characters"] == [around.char_start, around.char_end]


def test_fetch_returns_characters_and_pages(index, folder):
    sea = index.document(str(folder / "sea.pdf"))
    page = answer(index, "fetch", id=sea.id, first_page=2)
    assert "Sharks" in page["text"]
    assert "Whales" not in page["text"]
    pages = answer(index, "fetch", id=sea.id, first_page=2, last_page=9)
    assert pages["text"].strip().endswith("three hearts.")
    assert answer(index, "fetch", id=sea.id, start=3, end=9)["text"] == sea.text[3:9]
    assert answer(index, "fetch", id=sea.id, start=3, end=10**9)["text"] == sea.text[3:]
    assert "1 to 3" in refusal(index, "fetch", id=sea.id, first_page=7)
    lease = str(folder / "lease.md")
    assert "no pages" in refusal(index, "fetch", id=lease, first_page=1)
    assert f"{len(sea.text):,}" in refusal(index, "fetch", id=sea.id, start=10**9)
    assert "either" in refusal(index, "fetch", id=sea.id, start=1, first_page=1)


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("long")])
def test_what_fetch_cuts_is_read_on_without_a_gap(hostile, name):
    text = HOSTILE[name]
    # An answer may hold the metadata too, which leaves less room at the beginning.
    part = answer(hostile, "fetch", id=name + "#", max_tokens=2_000)
    read = part["text"]
    while "after" in part:
        assert part["after"]["start"] == len(read)
        part = answer(hostile, "fetch", id=name + "#", max_tokens=2_000, **part["after"])
        assert part["text"]
        read += part["text"]
    assert read == text


def test_a_passage_is_fetched_with_the_text_on_both_sides(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    sentences = [f"Ship {number} carries timber. " for number in range(400)]
    index.add(Document(id="ships", text="".join(sentences)))
    start = index.document("ships").text.index("Ship 200")
    fetched = answer(index, "fetch", id=f"ships#char={start},{start + 25}", max_tokens=300)
    text = index.document("ships").text
    low, high = fetched["place"]["characters"]
    assert low < start < high
    assert fetched["text"] == text[low:high]
    assert fetched["text"].startswith("Ship 1")
    assert fetched["before"] == {"start": 0, "end": low}
    assert fetched["after"] == {"start": high, "end": len(text)}


def test_an_outline_lists_sections_with_their_ranges(index, folder):
    lease = index.document(str(folder / "lease.md"))
    outline = answer(index, "outline", id=lease.id)
    assert [(each["title"], each["level"]) for each in outline["sections"]] == [
        ("Lease", 1), ("Rent", 2), ("Repairs", 2), ("Heating", 3), ("End", 2),
    ]  # fmt: skip
    repairs = outline["sections"][2]
    text = lease.text[repairs["start"] : repairs["end"]]
    assert "mends the roof" in text
    assert "boiler" in text
    assert "notice" not in text
    shallow = answer(index, "outline", id=lease.id, depth=2)
    assert "Heating" not in [each["title"] for each in shallow["sections"]]
    assert shallow["deeper_sections_left_out"] == 1
    pages = answer(index, "outline", id=str(folder / "sea.pdf"))
    assert [each["page"] for each in pages["sections"]] == [1, 2, 3]
    offers = answer(index, "outline", id=str(folder / "offers.csv"))
    assert offers["sections"][-1]["end"] == offers["length"]


def test_an_outline_that_does_not_fit_is_read_on(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    marks = [Landmark(9 * number, "heading", 1 + (number % 3 > 0), f"Part {number}")
             for number in range(300)]  # fmt: skip
    index.add(Document(id="long", text="A word. \n" * 300, landmarks=marks))
    first = answer(index, "outline", id="long", max_tokens=4_000)
    wide = [each["title"] for each in first["sections"] if each["level"] == 1]
    assert wide == [f"Part {number}" for number in range(0, 300, 3)]
    deep = [each["title"] for each in first["sections"] if each["level"] == 2]
    every = [f"Part {number}" for number in range(300) if number % 3]
    assert 1 <= len(deep) < 200
    assert deep == every[: len(deep)]
    assert first["sections_left_out"] == 200 - len(deep)
    assert first["next_start"] == 9 * int(every[len(deep)].split()[1])
    titles, start = [], 0
    while start is not None:
        part = answer(index, "outline", id="long", max_tokens=600, depth=1, start=start)
        titles += [each["title"] for each in part["sections"]]
        start = part.get("next_start")
    assert titles == [f"Part {number}" for number in range(0, 300, 3)]


def test_a_small_outline_goes_beyond_the_title_and_on_to_the_last_section(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    levels = [1] + [2 + (number % 4 > 0) for number in range(1, 60)]
    marks = [
        Landmark(9 * number, "heading", level, f"P {number}") for number, level in enumerate(levels)
    ]
    index.add(Document(id="long", text="A word. \n" * 60, landmarks=marks))
    titles, start, sizes = [], 0, []
    while start is not None:
        part = answer(index, "outline", id="long", max_tokens=400, depth=2, start=start)
        sizes.append(len(part["sections"]))
        titles += [each["title"] for each in part["sections"] if each["level"] < 3]
        start = part.get("next_start")
    assert titles[:15] == ["P 0", *(f"P {number}" for number in range(4, 60, 4))]
    part = answer(index, "outline", id="long", max_tokens=400)
    assert sizes[0] == len(part["sections"]) > 4
    assert part["sections_left_out"] == 15 - len(part["sections"])
    assert part["deeper_sections_left_out"] == 45
    # Where wide sections alone fill the budget, each call still gets one further.
    seen, start = set(), 0
    while start is not None:
        part = answer(index, "outline", id="long", max_tokens=250, start=start)
        seen |= {each["title"] for each in part["sections"]}
        assert part.get("next_start", 10**9) > start
        start = part.get("next_start")
    assert {f"P {number}" for number in range(0, 60, 4)} <= seen


@pytest.mark.parametrize("tool", ["fetch", "expand", "outline"])
def test_the_least_budget_that_a_refusal_names_is_the_least_that_works(mini, tmp_path, tool):
    index = Index.open(tmp_path / "i", mini)
    name = "archive/" * 40 + "lease.txt"
    index.add(Document(id=name, text="The tenant pays the rent. " * 40,
                       landmarks=[Landmark(0, "heading", 1, "Rent")],
                       metadata={"year": 2020, "town": "Bremen"}))  # fmt: skip
    asked = {"id": name if tool == "outline" else f"{name}#char=26,51"}
    line = refusal(index, tool, **asked, max_tokens=200)
    least = int(re.search(r"at least ([\d,]+)", line)[1].replace(",", ""))
    assert least > 200
    shown = answer(index, tool, **asked, max_tokens=least)
    assert shown["sections"] if tool == "outline" else shown["text"]
    assert "at least" in refusal(index, tool, **asked, max_tokens=least - 1)


def test_short_metadata_are_kept_where_long_ones_do_not_fit(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    text = "The tenant pays the rent. " * 200
    index.add([
        Document(id="short", text=text, metadata={"year": 2020, "town": "Bremen"}),
        Document(id="long", text=text, metadata={"notes": "many words " * 300, "year": 2020}),
    ])  # fmt: skip
    short = answer(index, "fetch", id="short#char=26,51", max_tokens=200)
    assert short["metadata"] == {"year": 2020, "town": "Bremen"}
    assert "metadata_left_out" not in short
    long = answer(index, "fetch", id="long#char=26,51", max_tokens=200)
    assert long["metadata"] == {"year": 2020}
    assert long["metadata_left_out"] == 1
    assert "The tenant pays the rent." in long["text"]


def test_similar_finds_the_same_elsewhere(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    rent = "The tenant pays the rent on the third day of each month."
    filler = "Bees make honey from the nectar of flowers. Ships carry timber to the north. " * 9
    index.add([
        Document(id="one", text=f"{rent} {filler} The rent is due on the third day of a month."),
        Document(id="two", text=f"{filler} On the third day of a month tenants pay the rent."),
    ])  # fmt: skip
    own = f"one#char=0,{len(rent)}"
    found = answer(index, "similar", id=own, k=3)["results"]
    assert {each["title"] for each in found[:2]} == {"one", "two"}
    assert all(
        each["place"]["characters"][0] >= len(rent) for each in found if each["title"] == "one"
    )
    found = answer(index, "similar", id=own, k=3, other_documents=True)["results"]
    assert {each["title"] for each in found} == {"two"}
    assert answer(index, "similar", text=rent, k=1)["results"][0]["title"] == "one"
    assert "either" in refusal(index, "similar", id=own, text=rent)
    assert "passage" in refusal(index, "similar", id="one")


def test_ids_of_any_form_lead_to_their_own_document(hostile):
    for name, text in HOSTILE.items():
        query = text[:60]
        hits = hostile.search(query, k=len(HOSTILE))
        assert name in {hit.document_id for hit in hits}
    found = answer(hostile, "search", query="plain words", k=50, by="document", max_tokens=60_000)
    seen = set()
    for each in found["results"]:
        text = answer(hostile, "fetch", id=each["id"], max_tokens=100_000)["text"]
        [name] = [name for name, known in HOSTILE.items() if known == text]
        seen.add(name)
        for passage in each["passages"]:
            part = answer(hostile, "expand", id=passage["id"], max_tokens=100_000)["text"]
            assert passage["text"] in part
            assert part in text
    assert seen == HOSTILE.keys()


def test_nothing_in_an_answer_acts_on_a_terminal_and_nothing_is_lost(hostile):
    name = "line\nbreak \u202eevil"
    found = result({"one": hostile}, "fetch", {"id": name})
    shown = found.content[0].text
    assert all(unicodedata.category(each) not in ("Cc", "Cf") for each in shown)
    assert json.loads(shown)["text"] == HOSTILE[name]


def test_ids_tell_the_index_where_there_are_several(mini, tmp_path):
    indexes = {}
    for name, text in (("new", "The rent is 900 euros."), ("old", "The rent was 700 euros.")):
        indexes[name] = Index.open(tmp_path / name, mini)
        indexes[name].add(Document(id="lease", text=text))
    found = answer(indexes, "search", query="rent")["results"]
    assert {each["id"].split("::")[0] for each in found} == {"new", "old"}
    for each in found:
        assert answer(indexes, "fetch", id=each["id"])["text"] == each["text"]
    assert "new::lease" in refusal(indexes, "fetch", id="lease")
    assert "700" in answer(indexes, "fetch", id="old::lease")["text"]
    elsewhere = answer(indexes, "similar", id="old::lease#char=0,23")["results"]
    assert [each["id"].split("::")[0] for each in elsewhere] == ["new"]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("search", {"query": "  "}, "blank"),
        ("search", {}, "query is missing"),
        ("search", {"query": "rent", "top_k": 3}, "no parameter 'top_k'"),
        ("search", {"query": "rent", "k": 0}, "k is 0; it must be greater"),
        ("search", {"query": 7}, "query is 7; it must be a valid string"),
        ("search", {"query": "rent", "max_tokens": 20}, "greater than or equal to 200"),
        ("search", {"query": "\ud800"}, "is not Unicode text"),
        ("fetch", {"id": "nothing.pdf"}, "no document has the id 'nothing.pdf'"),
        ("fetch", {"id": "x" * 100_000}, "no document has the id 'xxx"),
        ("expand", {"id": "nothing.pdf#char=0,4"}, "no document has the id"),
        ("outline", {"id": ""}, "no document has the id ''"),
        ("similar", {}, "either"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_that_says_why(index, tool, arguments, said):
    assert said in refusal(index, tool, **arguments)


def test_a_range_that_is_not_in_the_text_is_refused(index, folder):
    line = refusal(index, "expand", id=f"{folder / 'lease.md'}#char=4,99999")
    assert "99,999" in line
    assert "search again" in line


def test_null_stands_for_a_parameter_that_is_left_out(index):
    asked = {"query": "rent", "k": 1}
    assert answer(index, "search", **asked, filter=None, by=None, max_tokens=None) == answer(
        index, "search", **asked
    )


def test_a_file_that_has_changed_since_is_said_to_have(mini, tmp_path):
    path = tmp_path / "rent.txt"
    path.write_text("The rent is 700 euros.")
    index = Index.open(tmp_path / "i", mini)
    index.add_files(path)
    assert "note" not in answer(index, "fetch", id=str(path))
    path.write_text("The rent is 900 euros.")
    fetched = answer(index, "fetch", id=str(path))
    assert "changed" in fetched["note"]
    assert fetched["text"] == "The rent is 700 euros."


def test_an_index_that_vanishes_is_named_and_the_others_go_on(mini, tmp_path):
    indexes = {}
    for name in ("kept", "gone"):
        indexes[name] = Index.open(tmp_path / name, mini)
        indexes[name].add(Document(id=name, text="The rent is due."))
    server = mcp_server(indexes)

    async def calls():
        async with Client(server) as client:
            assert not (await client.call_tool("search", {"query": "rent"})).is_error
            shutil.rmtree(tmp_path / "gone")
            broken = await client.call_tool("search", {"query": "rent"})
            fetched = await client.call_tool("fetch", {"id": "kept::kept"})
            return broken, fetched

    broken, fetched = anyio.run(calls)
    assert broken.is_error
    assert str(tmp_path / "gone") in broken.content[0].text
    assert not fetched.is_error


def test_an_index_without_documents_has_no_results(mini, tmp_path):
    line = refusal(Index.open(tmp_path / "none", mini), "search", query="rent")
    assert str(tmp_path / "none") in line
    assert "--index" in refusal({}, "search", query="rent")


def test_tools_are_listed_alike_each_time_with_when_to_use_them(index):
    async def listed():
        async with Client(mcp_server({"one": index})) as client:
            assert "untrusted" in client.instructions or "not instructions" in client.instructions
            return (await client.list_tools()).tools

    tools, again = anyio.run(listed), anyio.run(listed)
    assert tools == again
    assert [tool.name for tool in tools] == ["search", "fetch", "expand", "outline", "similar"]
    for tool in tools:
        assert tool.description.startswith("Use this to ")
        assert tool.annotations.read_only_hint
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False
        assert "max_tokens" in tool.input_schema["properties"]
        assert all("description" in each or "enum" in each
                   for each in tool.input_schema["properties"].values())  # fmt: skip


WORDS = st.sampled_from(["plain words", "the roof \N{ROCKET}", "契約", "x", "e\u0301 " * 40, "end"])
NAMES = st.sampled_from([*HOSTILE, "nothing", "word#char=0,900", "heap#char=902,915"])
CALLS = st.one_of(
    st.tuples(st.just("search"), st.fixed_dictionaries(
        {"query": WORDS, "k": st.integers(1, 40), "by": st.sampled_from(["passage", "document"])})),
    st.tuples(st.just("fetch"), st.fixed_dictionaries(
        {"id": NAMES}, optional={"start": st.integers(0, 900), "end": st.integers(0, 9_000)})),
    st.tuples(st.just("expand"), st.fixed_dictionaries(
        {"id": st.tuples(st.sampled_from(list(HOSTILE)), st.integers(0, 24)).map(
            lambda each: f"{each[0]}#char={each[1]},{each[1] + 1}"),
         "sentences": st.integers(1, 200)})),
    st.tuples(st.just("outline"), st.fixed_dictionaries({"id": NAMES})),
    st.tuples(st.just("similar"), st.fixed_dictionaries({"text": WORDS, "k": st.integers(1, 40)})),
)  # fmt: skip


@pytest.fixture(scope="module")
def call(hostile):
    """Calls the tools of one server."""
    with anyio.from_thread.start_blocking_portal() as portal:
        client = Client(mcp_server({"one": hostile}))
        with portal.wrap_async_context_manager(client):
            yield lambda name, arguments: portal.call(client.call_tool, name, arguments)


@settings(max_examples=40, deadline=None)
@given(called=CALLS, max_tokens=st.integers(200, 1_500))
def test_an_answer_never_has_more_tokens_than_asked_for(call, mini, called, max_tokens):
    name, arguments = called
    found = call(name, {**arguments, "max_tokens": max_tokens})
    [item] = found.content
    assert len(mini.tokenizer.encode([item.text])[0]) <= max_tokens
    assert TokenCounter(mini.tokenizer)(item.text) <= max_tokens
    assert found.structured_content is None
    if not found.is_error:
        held = json.loads(item.text)
        for each in held.get("results", []):
            for passage in each.get("passages", [each]):
                start, end = passage["place"]["characters"]
                assert len(passage["text"]) == end - start


def test_a_larger_budget_shows_more_and_says_what_is_left_out(hostile):
    asked = {"query": "plain words", "k": 10}
    num = len(hostile.passages("plain words", k=10))
    shown = []
    for max_tokens in (200, 400, 1_000, 90_000):
        found = answer(hostile, "search", **asked, max_tokens=max_tokens)
        shown.append(len(found["results"]))
        assert shown[-1] + found.get("passages_left_out", 0) == num
    assert shown == sorted(shown)
    assert shown[0] >= 1
    assert shown[-1] == num


@given(
    st.text(st.sampled_from("ab .!?\n契"), max_size=400),
    st.integers(0, 400),
    st.integers(0, 30),
    st.integers(-1, 450),
)
def test_an_excerpt_holds_what_it_is_around_and_cannot_grow(text, at, length, budget):
    at = min(at, len(text))
    around = at, min(len(text), at + length)
    within = 0, len(text)
    document = Document(id="a", text=text)

    def fits(start, end):
        return end - start <= budget

    found = excerpt(document, within=within, around=around, fits=fits, reach=1_000)
    if budget < 0:
        assert found is None
        return
    start, end = found
    assert fits(start, end)
    if around[1] - around[0] <= budget:
        assert start <= around[0]
        assert end >= around[1] or around[0] == around[1]
    else:
        assert start == around[0]
    if budget >= len(text):
        assert (start, end) == within
    elif budget > 0 and start < len(text):
        assert start < end


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9), st.integers(1, 9))
def test_most_is_the_largest_number_that_fits(largest, limit, least, first):
    expected = min(largest, limit) if min(largest, limit) >= least else None
    assert most(lambda each: each <= largest, limit, least=least, first=first) == expected


@pytest.mark.parametrize(
    ("text", "of_language_model"),
    [
        (
            "Notwithstanding anything to the contrary, indemnification survives termination.",
            12,
        ),
        ("Der Mieter zahlt die Miete spätestens am dritten Werktag eines Monats.", 22),
        ("Арендатор обязан своевременно вносить плату за пользование имуществом.", 29),
        ("किराएदार को हर महीने की पहली तारीख को किराया देना होगा।", 51),
        ("يجب على المستأجر دفع الإيجار في اليوم الأول من كل شهر.", 33),
        ("ผู้เช่าต้องชำระค่าเช่าในวันแรกของทุกเดือน", 35),
        ("租户应在每月第一天支付租金，并保持房屋清洁。", 25),
        ("세입자는 매월 첫째 날에 임대료를 지불해야 합니다.", 27),
        ("\N{OLD KEY}\N{ROCKET}\N{PARTY POPPER}" * 20, 180),
        (" \n\t  " * 100, 101),
        ('{"id":"lease.pdf#char=1234,1567","place":{"page":12,"headings":["Rent"]}}', 26),
    ],
)
def test_tokens_are_counted_above_those_of_a_language_model(mini, text, of_language_model):
    # Source: tiktoken 0.14, cl100k_base
    assert TokenCounter(mini.tokenizer)(text) >= of_language_model
