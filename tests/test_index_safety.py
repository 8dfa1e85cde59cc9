"""Nothing is lost and nothing goes wrong in silence: paths, ids, places, queries, depths."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError, IndexStoreError, InputError
from dewey_embed.index import sync
from dewey_embed.index.changes import Place, is_gone, left_places
from dewey_embed.index.index import Index
from dewey_embed.index.ranking import CANDIDATES
from dewey_embed.index.settings import INDEX_OPTIONS
from dewey_embed.index.tables import title_above
from dewey_embed.types import Document, Unreadable


@pytest.fixture(scope="module")
def mini():
    return Dewey.load(dtype="float32")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path


def moth(mini, path):
    index = Index.open(path, mini)
    index.add(Document(id="moth", text="Moths eat wool."))
    return index


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("~/my.index", "home/my.index"),
        ("memory:x", "memory:x"),
        ("notes:2024", "notes:2024"),
        ("gs:b", "gs:b"),
        ("a b#c%20d?e", "a b#c%20d?e"),
        ("東京 \u200b\xa0👩\u200d👧", "東京 \u200b\xa0👩\u200d👧"),
        ("./x/../y", "y"),
        (Path("deep/er"), "deep/er"),
    ],
)
def test_an_index_lies_in_the_folder_that_was_named(mini, here, path, folder):
    moth(mini, path)
    assert (here / folder / "documents.lance").is_dir()
    assert (here / folder / "dewey.json").is_file()
    assert len(Index.open(here / folder, mini)) == len(Index.open(path, mini)) == 1


def test_an_index_stays_the_same_when_the_working_directory_changes(mini, here):
    index = moth(mini, "my.index")
    (here / "other").mkdir()
    os.chdir(here / "other")
    assert [hit.document_id for hit in index.search("moths")] == ["moth"]
    index.add(Document(id="b", text="Rent is due."))
    assert len(index) == 2
    assert os.listdir(".") == []


@pytest.mark.parametrize(
    "path", ["", "a\0b", "a\nb", "\x1b[2J", "caf\udce9", "https://a.b/x", "file:///tmp/x"]
)
def test_a_path_that_is_no_folder_is_refused(mini, here, path):
    with pytest.raises(ConfigError, match="an index's path is"):
        Index.open(path, mini)


def test_a_file_in_the_place_of_an_index_is_refused_when_it_is_opened(mini, here):
    (here / "file").write_text("mine")
    with pytest.raises(IndexStoreError, match="is a file; an index is a folder"):
        Index.open("file", mini)


# --- nothing is deleted on a guess --------------------------------------------------------------


def test_a_table_that_cannot_be_looked_into_is_not_taken_for_none(mini, here, monkeypatch):
    index = moth(mini, "i")
    looked = Path.iterdir

    def refused(path):  # for a test that runs as root may look anywhere
        if path.name == "_versions":
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    for act in (lambda: index.search("moths"), lambda: index.add(Document(id="b", text="x"))):
        with pytest.raises(IndexStoreError, match="cannot be looked into"):
            act()
    monkeypatch.undo()
    assert [hit.document_id for hit in Index.open(here / "i", mini).search("moths")] == ["moth"]


@pytest.mark.parametrize("name", ["documents", "chunks"])
@pytest.mark.parametrize("lost", ["versions", "table"])
def test_data_without_its_versions_is_called_damage_and_left_alone(mini, here, name, lost):
    index = moth(mini, "i")
    if lost == "table":
        shutil.rmtree(here / "i" / f"{name}.lance")
    else:
        shutil.rmtree(here / "i" / f"{name}.lance" / "_versions")
    left = sorted(path for path in (here / "i").rglob("*.lance"))
    with pytest.raises(IndexStoreError, match=r"damaged|cannot be read"):
        Index.open("i", mini).search("moths")
    with pytest.raises(IndexStoreError, match=r"damaged|cannot be read"):
        index.add(Document(id="b", text="x"))
    assert sorted(path for path in (here / "i").rglob("*.lance")) == left


def test_what_a_user_put_beside_the_derived_files_stays(mini, here):
    index = moth(mini, "i")
    (here / "i" / "derived" / "notes").mkdir()
    (here / "i" / "mine.txt").write_text("mine")
    index.add(Document(id="b", text="Rent is due."))
    assert (here / "i" / "derived" / "notes").is_dir()
    assert (here / "i" / "mine.txt").read_text() == "mine"


# --- ids and places -----------------------------------------------------------------------------


def records(path, **texts):
    path.parent.mkdir(exist_ok=True)
    rows = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    path.write_text("\n".join(rows) + "\n")
    return path


def ids(index):
    return sorted(hit.document_id for hit in index.search("anything", 99, passages=0))


def test_records_of_a_file_that_moved_to_another_folder_stay(mini, here):
    index = Index.open("i", mini)
    records(here / "A" / "x.jsonl", r1="Copper mines.", r2="Salt works.")
    (here / "A" / "keep.txt").write_text("A note.")
    (here / "B").mkdir()
    index.add_files("A")
    (here / "A" / "x.jsonl").rename(here / "B" / "x.jsonl")
    assert index.add_files("B").num_unchanged == 2
    assert index.add_files("A").num_removed == 0
    assert {"r1", "r2"} < set(ids(index))
    assert index.document("r1").source == str(here / "B" / "x.jsonl")
    (here / "B" / "x.jsonl").unlink()
    assert index.add_files("B").num_removed == 2


def test_a_file_found_through_a_link_stays_while_it_is_anywhere(mini, here):
    index = Index.open("i", mini)
    (here / "real").mkdir()
    (here / "d").mkdir()
    (here / "real" / "owls.txt").write_text("Note on owls.")
    (here / "real" / "more.txt").write_text("More.")
    (here / "d" / "owls.txt").symlink_to(here / "real" / "owls.txt")
    index.add_files("real")
    index.add_files("d")
    (here / "d" / "owls.txt").unlink()
    assert index.add_files("d").num_removed == 0
    (here / "real" / "owls.txt").unlink()
    assert index.add_files("real").num_removed == 1


def test_a_record_taken_out_of_its_file_leaves_though_the_file_is_there(mini, here):
    index = Index.open("i", mini)
    path = records(here / "d" / "x.jsonl", a="One.", b="Two.")
    index.add_files("d")
    records(path, a="One.")
    assert index.add_files("d").num_removed == 1
    assert ids(index) == ["a"]


@pytest.mark.parametrize("order", ["apart", "together"])
def test_the_same_id_in_two_files_is_reported_and_the_first_kept(mini, here, order):
    index = Index.open("i", mini)
    records(here / "d1" / "a.jsonl", x="Ducks.", y="Geese.")
    records(here / "d2" / "b.jsonl", x="Cars.", z="Vans.")
    if order == "apart":
        index.add_files("d1")
        report = index.add_files("d2")
    else:
        report = index.add_files(["d1", "d2"])
    assert ["id 'x'" in fault.reason for fault in report.unreadable] == [True]
    assert ids(index) == ["x", "y", "z"]
    assert index.document("x").text == "Ducks."
    shutil.rmtree(here / "d1")  # now it is nobody's
    assert index.add_files("d2").unreadable == []
    assert index.document("x").text == "Cars."


def test_a_record_that_moved_to_a_file_read_later_in_the_same_run_is_taken_over(mini, here):
    index = Index.open("i", mini)
    records(here / "d" / "a.jsonl", x="Ducks.", y="Geese.")
    index.add_files("d")
    records(here / "d" / "a.jsonl", y="Geese.")
    records(here / "d" / "b.jsonl", x="Ducks, changed.")
    assert index.add_files("d").unreadable == []
    assert index.document("x").text == "Ducks, changed."


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id": "c", "text": null}',
        b'{"id": "c", "text": "Thr\xff"}',
        b'{"text": "Three.", "id": "c", "more": }',
        b'{"id": "c", "id": "c", "text": "Three."}',
        b'{"id": "c", "text": "Thr',
    ],
)
def test_a_bad_line_keeps_its_own_record_and_no_other(mini, here, bad):
    index = Index.open("i", mini)
    path = records(here / "d" / "x.jsonl", a="One.", b="Two.", c="Three.")
    index.add_files("d")
    path.write_bytes(b'{"id": "a", "text": "One."}\nnot json\n' + bad + b"\n")
    report = index.add_files("d")
    assert (report.num_removed, len(report.unreadable)) == (1, 2)
    assert ids(index) == ["a", "c"]


def test_a_bad_line_without_an_id_keeps_the_record_of_its_number(mini, here):
    index = Index.open("i", mini)
    path = here / "x.jsonl"
    path.write_text('{"text": "alpha one"}\n{"text": "beta two"}\n{"text": "gamma three"}\n')
    index.add_files(path)
    path.write_text('{"text": "alpha one"}\n{"text": "beta two"\n')
    assert index.add_files(path).num_removed == 1
    assert ids(index) == [f"{path}#1", f"{path}#2"]


def test_a_file_that_is_cut_short_keeps_all_that_may_have_been_in_it(mini, here):
    index = Index.open("i", mini)
    path = records(here / "x.jsonl", a="One.", b="Two.", c="Three.")
    index.add_files(path)
    path.write_bytes(path.read_bytes()[:40])
    report = index.add_files(path)
    assert (report.num_removed, len(report.unreadable)) == (0, 1)
    assert "cut short in line 2" in report.unreadable[0].reason


def test_a_folder_that_was_replaced_by_a_link_to_its_new_place_is_one_folder(mini, here):
    index = Index.open("i", mini)
    (here / "d").mkdir()
    (here / "d" / "g.txt").write_text("old words")
    records(here / "d" / "x.jsonl", r="Copper.")
    index.add_files("d")
    (here / "d").rename(here / "real")
    (here / "d").symlink_to(here / "real")
    report = index.add_files("d")
    assert (report.num_added, report.num_removed) == (1, 1)
    assert ids(index) == sorted([str(here / "real" / "g.txt"), "r"])
    (here / "real" / "g.txt").write_text("new words")
    assert index.add_files("d").num_changed == 1


def test_metadata_that_changes_costs_no_pass(mini, here, monkeypatch):
    index = Index.open("i", mini)
    document = Document(id="a", text="Counted in March.", title="Inventory", metadata={"year": 1})
    index.add([document, Document(id="b", text="Rent is due.")])
    encode = lambda *_: pytest.fail("the text was encoded again")  # noqa: E731
    monkeypatch.setattr(sync.IndexEncoder, "encode", encode)
    changed = Document(id="a", text=document.text, title="Inventory", metadata={"year": 2})
    report = index.add([changed])
    assert (report.num_changed, report.num_unchanged) == (1, 0)
    assert index.document("a") == changed


@pytest.mark.parametrize("reads_titles", [True, False])
def test_a_new_title_is_read_above_its_text_where_titles_are(mini, here, monkeypatch, reads_titles):
    settings = sync.new_settings(mini, INDEX_OPTIONS, None)
    of_earlier = settings.model_copy(update={"reads_titles": reads_titles})
    monkeypatch.setattr("dewey_embed.index.index.new_settings", lambda *_: of_earlier)
    index = Index.open("i", mini)
    document = Document(
        id="a",
        text="The inventory of Quetzalcoatl was counted in March.",
        title="Inventory",
        metadata={"year": 1},
    )
    other = Document(id="b", text="Rent is due.")
    index.add([document, other])
    encode, encoded = sync.IndexEncoder.encode, []
    monkeypatch.setattr(
        sync.IndexEncoder, "encode", lambda *given: encoded.append(1) or encode(*given)
    )
    changed = Document(id="a", text=document.text, title="Quetzalcoatl", metadata={"year": 2})
    report = index.add([changed])
    assert (report.num_changed, report.num_unchanged) == (1, 0)
    assert bool(encoded) == reads_titles
    [made] = encode(index._encoder(), [changed], lambda _: {}, lambda _: None)
    title = changed.title if reads_titles else None
    expected = mini.encode_document(changed.text, splitter="sentence", titles=title)
    np.testing.assert_allclose(made.vectors.chunks, expected.chunks, atol=1e-6)
    assert index.document("a") == changed
    assert index.search("quetzalcoatl", 1, filter={"year": 2})[0].document_id == "a"
    fresh = Index.open("j", mini)
    fresh.add([changed, other])
    for mode in ("single", "multi", "hybrid"):
        assert index.search("quetzalcoatl", mode=mode) == fresh.search("quetzalcoatl", mode=mode)


def test_new_indexes_read_titles_where_the_model_has_a_mark_for_them(mini):
    settings = sync.new_settings(mini, INDEX_OPTIONS, None)
    assert settings.reads_titles == mini.tokenizer.marks_titles


@pytest.mark.parametrize(
    ("title", "source", "text", "above"),
    [
        ("On rent", "/c/1.pdf", "Lease\n\nRent is due on Monday.", "On rent"),
        ("contracts", "/c/1.pdf", "Lease\n\nRent is due on Monday.", "Lease"),
        ("state_of_the_union", "", "We meet tonight in the House.", ""),
        ("租赁", "", "本租赁合同自三月起生效。", "租赁"),
        ("", "", "", ""),
        ("1.pdf", "/c/1.pdf", "Rent\n\nIs due.", "Rent"),
        ("", "/c/1.pdf", "Rent\nis due.", ""),
        ("", "", "Rent\n\nIs due.", "Rent"),
    ],
)
def test_the_name_of_a_file_is_read_above_no_passage(title, source, text, above):
    document = Document(id=source or "a", title=title, source=source, text=text)
    assert title_above(document) == above


def test_documents_leave_by_id_by_file_and_by_folder(mini, here):
    index = Index.open("i", mini)
    (here / "d" / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt", "sub/c.txt"):
        (here / "d" / name).write_text(f"Text of {name}.")
    index.add_files("d")
    index.add([Document(id="loose", text="Loose."), Document(id="kept", text="Kept.")])
    report = index.remove(["loose", "d/a.txt", "d/sub", "nobody"])
    assert (report.num_removed, report.unknown) == (4, ["nobody"])
    assert ids(index) == ["kept"]


def test_pruning_removes_what_is_gone_wherever_it_was(mini, here):
    index = Index.open("i", mini)
    (here / "old").mkdir()
    (here / "old" / "moth.txt").write_text("Text of a moth.")
    (here / "stay.txt").write_text("Stays.")
    index.add_files(["old", "stay.txt"])
    index.add(Document(id="loose", text="Loose."))
    (here / "old").rename(here / "new")
    report = index.add_files(["new"])
    assert (report.num_removed, report.num_missing) == (0, 1)
    assert index.add_files([], prune=True).num_removed == 1
    assert ids(index) == sorted([str(here / "new" / "moth.txt"), str(here / "stay.txt"), "loose"])


def test_a_file_whose_name_is_no_utf8_is_not_taken_for_gone(here):
    name = os.fsencode(here) + b"/caf\xe9.txt"
    with open(name, "w") as file:
        file.write("x")
    spelled = os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
    assert not is_gone(spelled)
    os.unlink(name)
    assert is_gone(spelled)
    assert not is_gone("stdin")
    assert not is_gone("")


def test_places_are_left_only_where_a_run_looked_and_did_not_find():
    def left(places, roots, read=()):
        known = {place.root for place in places} | {"/k"}
        return left_places(places, roots=roots, read=read, known_roots=known)

    gone, here_ = Place("/a", "/a/x"), Place("/a", __file__)
    assert left([gone], ["/b"]) == (gone,)
    assert left([gone], ["/a"]) == ()
    assert left([Place("/other", "/a/x")], ["/a"]) == ()
    assert left([here_], ["/a"], read=[__file__]) == ()
    parent = str(Path(__file__).parent)
    places = [here_, Place(parent, parent + "/other")]
    assert Place(parent, __file__) in left(places, ["/a"])


# --- what may be added and asked ------------------------------------------------------------------


def test_one_document_a_generator_and_what_could_not_be_read_may_be_added(mini, here):
    index = Index.open("i", mini)
    assert index.add(Document(id="a", text="One.")).num_added == 1
    assert index.add(Document(id=str(n), text=f"Text {n}.") for n in range(2)).num_added == 2
    fault = Unreadable(source="x.pdf", reason="a scan")
    report = index.add([fault, Document(id="c", text="Three.")])
    assert (report.num_added, report.unreadable) == (1, [fault])
    for wrong in ("text", {"id": "a"}, 3, None):
        with pytest.raises(TypeError, match="Document"):
            index.add(wrong)


def test_numbers_that_no_filter_compares_are_left_out_of_metadata_and_said(mini, here):
    index = Index.open("i", mini)
    metadata = {"n": float("nan"), "m": 10**5000, "year": np.int64(2024), "x": np.float32(0.5)}
    report = index.add(Document(id="a", text="Timber.", metadata=metadata))
    assert sum(report.unread["a"].values()) == 2
    assert index.document("a").metadata == {"year": 2024, "x": 0.5}
    assert json.loads(json.dumps(dict(index.search("timber")[0].metadata), allow_nan=False))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (2024, True),
        (np.int64(2024), True),
        (2024.0, True),
        (range(2020, 2030), True),
        (np.array([2023, 2024]), True),
        ((year for year in (2024,)), True),
        ({">=": 2020, "<": 2025}, True),
        ({">": np.int64(2024)}, False),
        ([{"<": 2000}, {">=": 2024.0}], True),
        ({">=": "2020"}, False),
        ("2024", False),
        (True, False),
        (None, False),
    ],
)
def test_filters_take_a_value_or_any_of_several(mini, here, values, found):
    index = Index.open("i", mini)
    index.add([Document(id="a", text="Timber.", metadata={"year": 2024})])
    assert bool(index.search("timber", filter={"year": values})) == found


@pytest.mark.parametrize(
    "values",
    [
        [],
        b"2024",
        [[2024]],
        float("nan"),
        {(1,)},
        object(),
        10**50,
        range(10**12),
        {"$gt": 1},
        {},
        {">": True},
        {">": None},
        {">=": float("inf")},
        {">=": 1, "<": "2"},
        {">": [1]},
        [{"=": 1}],
    ],
)
def test_filters_that_could_match_nothing_are_refused(mini, here, values):
    index = Index.open("i", mini)
    index.add([Document(id="a", text="Timber.", metadata={"year": 2024})])
    with pytest.raises(InputError, match="filter 'year'"):
        index.search("timber", filter={"year": values})


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, 2.0, 0.5])
def test_a_vector_that_is_not_a_direction_is_refused(mini, here, scale):
    index = moth(mini, "i")
    vector = np.asarray(mini.encode_query("moths"))
    with pytest.raises(InputError, match="has length"), np.errstate(invalid="ignore"):
        index.search("moths", vector=vector * np.float32(scale))


@pytest.mark.parametrize("query", ["caf\udce9", "half \ud83d", "\udcff"])
def test_a_query_that_is_not_unicode_is_named_and_the_index_is_not_blamed(mini, here, query):
    index = moth(mini, "i")
    with pytest.raises(InputError, match="not Unicode"):
        index.search(query)
    with pytest.raises(InputError, match="not Unicode"):
        index.rank(["moths", query])
    assert index.search("moths")


@pytest.mark.parametrize("number", [1.5, True, "3", None])
def test_a_number_that_is_not_whole_is_a_type_error(mini, here, number):
    index = moth(mini, "i")
    with pytest.raises(TypeError, match="not a whole number"):
        index.search("moths", number)


def test_any_number_of_documents_may_be_asked_for(mini, here):
    index = moth(mini, "i")
    for number in (2**32, 10**19, np.int64(7), sys.maxsize):
        assert len(index.search("moths", number)) == 1


@pytest.fixture(scope="module")
def paragraphs(mini, tmp_path_factory):
    from pydoc_data.topics import topics

    texts = [
        part[:60] for text in topics.values() for part in str(text).split("\n\n") if len(part) > 60
    ][: 5 * CANDIDATES]
    assert len(texts) > 4 * CANDIDATES
    index = Index.open(tmp_path_factory.mktemp("paragraphs") / "i", mini)
    index.add(
        Document(id=f"p{n}", text=text, title="with" if n % 7 == 0 else "")
        for n, text in enumerate(texts)
    )
    return index


@pytest.mark.parametrize("mode", ["hybrid", "multi", "single"])
def test_a_search_for_few_is_the_beginning_of_a_search_for_many(paragraphs, mode):
    index = paragraphs
    queries = ["with statement", "how are names bound?", "slices of a sequence", "for", "lambda"]
    every = index.rank(queries, 10**6, mode=mode)
    for found in every:
        assert len({name for name, _ in found}) == len(found) > 4 * CANDIDATES
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
    for number in (1, 5, 50, CANDIDATES, CANDIDATES + 1, 400, 450):
        assert index.rank(queries, number, mode=mode) == [found[:number] for found in every]


def test_words_that_are_frequent_everywhere_are_found_where_they_are_the_subject(mini, here):
    index = Index.open("i", mini)
    index.add(
        [
            Document(id="with", text="with: with enters a context manager, with leaves it."),
            *(Document(id=f"f{n}", text=f"The clerk stamped ledger {n}.") for n in range(30)),
        ]
    )
    assert index.rank(["with"], 1)[0][0][0] == "with"


@pytest.mark.parametrize(
    "query", ["quetzalcoatl", "Quetzalcoatl inventory", "kukulkan_ledger", "kukulkan"]
)
@pytest.mark.parametrize("mode", ["hybrid", "multi", "single"])
def test_a_word_of_a_title_or_of_a_files_name_is_found_in_every_mode(mini, here, query, mode):
    if mode == "multi" and query in ("kukulkan_ledger", "Quetzalcoatl inventory"):
        pytest.skip("by meaning alone, thirty documents about ledgers are nearer to one")
    index = Index.open("i", mini)
    if query.startswith("kuk"):
        (here / "d").mkdir()
        (here / "d" / "kukulkan_ledger-2.txt").write_text("Counted in March and again in June.")
        index.add_files("d")
    else:
        title = "Quetzalcoatl inventory"
        index.add(Document(id="t", title=title, text="Counted in March and again in June."))
    index.add(
        Document(id=f"f{n}", text=f"The clerk stamped the ledger number {n} for the harbour.")
        for n in range(30)
    )
    assert index.search(query, 1, mode=mode)[0].passages[0].text.startswith("Counted")


def test_an_open_index_answers_from_what_lies_there_now(mini, here):
    index = moth(mini, "i")
    assert [name for name, _ in index.rank(["honey"])[0]] == ["moth"]
    shutil.rmtree(here / "i")
    other = Index.open("i", mini)
    other.add(Document(id="bee", text="Bees make honey."))
    assert [name for name, _ in index.rank(["honey"])[0]] == ["bee"]
    assert index.search("honey", passages=0)[0].document_id == "bee"


def test_derived_files_of_another_index_are_not_answered_from(mini, here):
    moth(mini, "i")
    other = Index.open("j", mini)
    other.add(Document(id="bee", text="Bees make honey."))
    shutil.rmtree(here / "i" / "derived")
    shutil.copytree(here / "j" / "derived", here / "i" / "derived")
    assert ids(Index.open("i", mini)) == ["moth"]
    for name in ("documents.lance", "chunks.lance", "checksums.json"):
        path = here / "j" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(IndexStoreError, match="damaged"):
        Index.open("j", mini).search("honey")


def test_the_settings_of_another_index_are_refused(mini, here):
    moth(mini, "i")
    Index.open("j", mini, chunk_tokens=16).add(Document(id="bee", text="Bees make honey."))
    shutil.copy(here / "j" / "dewey.json", here / "i" / "dewey.json")
    with pytest.raises(IndexStoreError, match="is that of another index"):
        Index.open("i", mini)
    (here / "i" / "dewey.json").unlink()
    assert Index.open("i", mini).add(Document(id="b", text="Rent.")).num_added == 1
    assert ids(Index.open("i", mini)) == ["b", "moth"]


@pytest.mark.parametrize("name", ["derived", "derived/*", "derived/*/checksums.json", "dewey.pid"])
@pytest.mark.parametrize("instead", ["folder", "loop", "nested"])
def test_odd_things_in_place_of_what_can_be_made_again_are_no_matter(mini, here, name, instead):
    moth(mini, "i")
    [path] = (here / "i").glob(name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if instead == "folder":
        path.mkdir()
    elif instead == "loop":
        path.symlink_to(path)
    else:
        path.write_text("[" * 200_000)
    assert ids(Index.open("i", mini)) == ["moth"]
    assert Index.open("i", mini).add(Document(id="b", text="Rent.")).num_added == 1
    assert ids(Index.open("i", mini)) == ["b", "moth"]


def test_names_are_spelled_the_same_wherever_they_are_given(mini, here):
    index = Index.open("i", mini)
    index.add([Document(id="\ud800", text="Half."), Document(id="a\0b", text="Nul.")])
    assert index.document("\ud800").text == "Half."
    report = index.remove(["\ud800", "a\0b", "c\0d", "\udfff"])
    assert (report.num_removed, report.unknown) == (2, ["c\0d", "\udfff"])


def test_mistakes_of_type_are_type_errors(mini, here):
    index = moth(mini, "i")
    for metadata in (None, ["x"], {"tags": ["x"]}, {1: 2}):
        with pytest.raises(TypeError, match="metadata"):
            index.add(Document(id="a", text="x", metadata=metadata))
    for where in ("x", [("x", 1)]):
        with pytest.raises(TypeError, match="filter is"):
            index.search("moths", filter=where)
    with pytest.raises(TypeError, match="vector is str"):
        index.search("moths", vector="x")
    with pytest.raises(IndexStoreError, match="choose another path"):
        Index.open("x" * 300, mini)


def test_an_index_made_by_an_older_version_says_what_to_do(mini, here):
    moth(mini, "i")
    path = here / "i" / "dewey.json"
    old = {**json.loads(path.read_text()), "format_version": 1}
    del old["crc"]
    path.write_text(json.dumps(old))
    with pytest.raises(IndexStoreError, match="format 1, this Dewey reads 3: index the documents"):
        Index.open("i", mini)


def test_drafts_that_a_killed_run_left_are_no_foreign_files_and_are_removed(mini, here):
    folder = here / "i"
    folder.mkdir()
    drafts = [folder / f".{name}.0123abcd.draft" for name in ("dewey.json", "checksums.json")]
    drafts[0].write_text('{"format_ver')
    moth(mini, "i")
    drafts[1].write_text("{")
    Index.open("i", mini).add(Document(id="bee", text="Bees make honey."))
    assert len(Index.open("i", mini)) == 2
    assert not any(draft.exists() for draft in drafts)
