"""`Index`: what is added is found, with its characters; what changes or goes is followed."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from dewey_embed.encoder import Dewey
from dewey_embed.errors import (
    ConfigError,
    IndexMismatchError,
    IndexStoreError,
    InputError,
    ReadError,
)
from dewey_embed.index.index import Index
from dewey_embed.index.sync import RemoveReport
from dewey_embed.types import Document

TEXTS = {
    "patents": "The patents are owned by the company. They expire in twenty years. " * 8,
    "zebra": "A zebra is a striped animal of the African savanna. It eats grass. " * 8,
    "cooking": "Boil the pasta in salted water, then add the sauce and the cheese. " * 8,
    "music": "The violin has four strings, and is played with a bow of horse hair. " * 8,
}
SMALL = {"chunk_tokens": 32, "chunk_overlap": 8}


@pytest.fixture(scope="module")
def mini():
    return Dewey.load(dtype="float32")


def documents():
    return [
        Document(
            id=name, text=text, title=name.title(), metadata={"letters": len(name), "kind": "x"}
        )
        for name, text in TEXTS.items()
    ]


@pytest.fixture(scope="module")
def built(mini, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "my.index"
    Index.open(path, mini, **SMALL).add(documents())
    return path


@pytest.fixture
def index(built, mini):
    return Index.open(built, mini)


@pytest.mark.parametrize("mode", ["multi", "single", "hybrid"])
def test_the_document_about_it_is_found_in_every_mode(index, mode):
    hits = index.search("which striped animal eats grass?", k=2, mode=mode)
    assert hits[0].document_id == "zebra"
    assert len(hits) == 2
    assert hits[0].score >= hits[1].score
    assert hits[0].title == "Zebra"
    assert hits[0].metadata == {"letters": 5, "kind": "x"}


def test_passages_are_slices_of_the_document_best_first(index):
    for hit in index.search("who owns the patents?", k=4, passages=3):
        text = index.document(hit.document_id).text
        assert 1 <= len(hit.passages) <= 3
        for passage in hit.passages:
            assert text[passage.char_start : passage.char_end] == passage.text
        scores = [passage.score for passage in hit.passages]
        assert scores == sorted(scores, reverse=True)


def untitled():
    return [dataclasses.replace(document, title="") for document in documents()]


def test_scores_are_the_models_own_similarities(tmp_path, mini):
    index = Index.open(tmp_path / "i", mini, **SMALL)
    index.add(untitled())
    question = "what has four strings?"
    encoded = mini.encode_document(list(TEXTS.values()), **SMALL)
    for mode in ("multi", "single"):
        expected = mini.similarity(mini.encode_query([question]), encoded, mode=mode)[0]
        found = {hit.document_id: hit.score for hit in index.search(question, k=9, mode=mode)}
        assert found == pytest.approx(dict(zip(TEXTS, expected.tolist(), strict=True)), abs=2e-3)


def test_a_vector_that_is_known_is_searched_with_and_no_model_is_loaded(built, index, mini):
    question = "which striped animal eats grass?"
    vector = mini.encode_query(question)
    assert Index.open(built).search(question, vector=vector) == index.search(question)
    code = (
        "import sys, numpy as np; from dewey_embed import Index; "
        f"found = Index.open({str(built)!r}).search('grass', vector=np.ones(384) / 384**0.5); "
        "sys.exit(len(found) != 4 or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", [(383,), (1, 384), ()])
def test_a_vector_of_another_width_is_refused(index, shape):
    with pytest.raises(InputError, match="holds vectors of 384 numbers"):
        index.search("grass", vector=np.ones(shape, np.float32))


def test_no_passages_means_none(index):
    assert index.search("zebra", k=1, passages=0)[0].passages == []


@pytest.mark.parametrize("mode", ["multi", "single", "hybrid"])
def test_filters_are_kept_and_still_give_k(index, mode):
    hits = index.search("zebra", k=2, mode=mode, filter={"letters": [7], "kind": "x"})
    assert {hit.document_id for hit in hits} == {"patents", "cooking"}
    assert index.search("zebra", mode=mode, filter={"letters": 99}) == []
    with pytest.raises(InputError, match=r"'lettres'.*known: kind, letters"):
        index.search("zebra", mode=mode, filter={"lettres": 7})


@pytest.mark.parametrize(
    "question", ['"', "(AND OR", "it's; DROP TABLE", "a:b^2~*", "\0?", "👩‍👧 é"]
)
def test_any_characters_may_be_asked_in_hybrid(index, question):
    assert len(index.search(question, k=4, mode="hybrid")) == 4


def test_hybrid_finds_a_rare_word_that_vectors_miss(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    index.add([*documents(), Document(id="code", text="part qx7731b " + TEXTS["music"])])
    assert index.search("qx7731b", k=1, mode="hybrid")[0].document_id == "code"


def test_multi_is_three_quarters_the_best_chunk_and_one_the_whole(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini, **SMALL)
    index.add(untitled())
    [query] = mini.encode_query(["zebra"])
    for hit in index.search("zebra", k=4, mode="multi", passages=1):
        vectors = mini.encode_document(index.document(hit.document_id).text, **SMALL)
        expected = 0.75 * (vectors.chunks @ query).max() + 0.25 * vectors.vector @ query
        assert hit.score == pytest.approx(expected, abs=2e-3)
        assert hit.score == pytest.approx(
            mini.similarity(query, [vectors], mode="multi")[0, 0], abs=2e-3
        )


@pytest.mark.parametrize("mode", ["single", "multi", "hybrid"])
def test_ranking_many_queries_is_searching_for_each(index, mode):
    queries = ["zebra", "who owns the patents?"]
    ranked = index.rank(queries, 3, mode=mode)
    for query, found in zip(queries, ranked, strict=True):
        hits = index.search(query, 3, mode=mode)
        assert [name for name, _ in found] == [hit.document_id for hit in hits]
        assert [score for _, score in found] == pytest.approx([hit.score for hit in hits], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"query": "  "}, InputError),
        ({"query": "a", "k": 0}, InputError),
        ({"query": "a", "passages": -1}, InputError),
        ({"query": "a", "mode": "fuzzy"}, InputError),
        ({"query": ["a", "b"]}, TypeError),
    ],
)
def test_impossible_questions_are_refused(index, arguments, error):
    with pytest.raises(error):
        index.search(**arguments)


def test_only_new_and_changed_documents_are_encoded_again(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini, **SMALL)
    first, second, third, fourth = documents()
    report = index.add([first, second])
    assert (report.num_added, len(index)) == (2, 2)
    changed = dataclasses.replace(second, text=TEXTS["cooking"])
    report = index.add(iter([first, changed, third, third]))
    counts = report.num_added, report.num_changed, report.num_unchanged, report.num_removed
    assert counts == (1, 1, 1, 0)
    assert report.unreadable == []
    assert len(index) == 3
    assert index.document("zebra").text == TEXTS["cooking"]
    assert index.remove(["zebra", "nobody"]) == RemoveReport(num_removed=1, unknown=["nobody"])
    assert {hit.document_id for hit in index.search("zebra", k=9)} == {"patents", "cooking"}
    with pytest.raises(InputError, match="'zebra'"):
        index.document("zebra")
    report = index.add([fourth, dataclasses.replace(fourth, text="another")])
    assert "came before with another content" in report.unreadable[0].reason


def test_what_comes_back_is_what_was_added(index):
    assert [index.document(each.id) for each in documents()] == documents()


def test_a_blank_document_is_kept_and_said(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    with pytest.warns(UserWarning, match="no token"):
        index.add([Document(id="blank", text=" \n"), *documents()[:1]])
    assert (len(index), index.num_chunks) == (2, 1)
    assert len(index.search("patents", k=5)) == 1
    assert len(index.search("patents", k=5, mode="single")) == 2


def test_lone_surrogates_in_a_text_do_not_stop_it(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    index.add([Document(id="a\udce9", text="half \ud83d of a pair, and a zebra")])
    [hit] = index.search("zebra")
    assert hit.document_id == "a\\udce9"
    assert hit.passages[0].text == "half \ufffd of a pair, and a zebra"


def test_texts_where_documents_belong_are_a_type_error(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    with pytest.raises(TypeError, match=r"item 1 is str.*add_files"):
        index.add([documents()[0], "text"])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "patents.txt").write_text(TEXTS["patents"])
    (folder / "sub" / "zebra.md").write_text(TEXTS["zebra"])
    (folder / "sub" / "music.md").write_text(TEXTS["music"])
    return folder


def names(index):
    hits = index.search("anything", k=99, passages=0)
    return sorted(os.path.basename(hit.document_id) for hit in hits)


def test_files_that_are_gone_leave(mini, folder, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    assert index.add_files(folder).num_added == 3
    (folder / "sub" / "zebra.md").unlink()
    report = index.add_files(folder)
    assert (report.num_removed, report.num_unchanged) == (1, 2)
    assert names(index) == ["music.md", "patents.txt"]


def test_files_of_other_folders_stay(mini, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "cooking.txt").write_text(TEXTS["cooking"])
    index = Index.open(tmp_path / "i", mini)
    index.add_files([folder, other])
    index.add(documents()[:1])
    shutil.rmtree(folder / "sub")
    assert index.add_files([folder]).num_removed == 2
    assert names(index) == ["cooking.txt", "patents", "patents.txt"]


def test_a_folder_within_a_folder_is_brought_up_to_date_by_itself(mini, folder, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    index.add_files(folder)
    (folder / "sub" / "zebra.md").unlink()
    (folder / "sub" / "new.md").write_text(TEXTS["cooking"])
    report = index.add_files(folder / "sub")
    assert (report.num_added, report.num_removed, report.num_unchanged) == (1, 1, 1)
    assert index.search("violin", k=1, filter={"folder": "sub"})  # as it was found first
    (folder / "sub" / "new.md").unlink()
    assert index.add_files(folder).num_removed == 1
    assert names(index) == ["music.md", "patents.txt"]


def test_a_file_that_cannot_be_read_now_keeps_its_older_version(mini, folder, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    index.add_files(folder)
    (folder / "patents.txt").write_bytes(b"\0\1\2")
    report = index.add_files(folder)
    assert [os.path.basename(fault.source) for fault in report.unreadable] == ["patents.txt"]
    assert (report.num_removed, report.num_unchanged) == (0, 2)
    assert "patents.txt" in names(index)


def test_an_emptied_file_leaves(mini, folder, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    index.add_files(folder)
    (folder / "patents.txt").write_text("")
    report = index.add_files(folder)
    assert (report.num_removed, len(report.skipped), report.unreadable) == (1, 1, [])


def test_records_of_a_jsonl_file_come_and_go_by_their_ids(mini, tmp_path):
    file = tmp_path / "records.jsonl"
    rows = ['{"id": "a", "text": "zebra", "year": 2020}\n', '{"id": "b", "text": "violin"}\n']
    file.write_text("".join(rows))
    index = Index.open(tmp_path / "i", mini)
    index.add_files(file)
    assert [hit.document_id for hit in index.search("x", filter={"year": 2020})] == ["a"]
    file.write_text(rows[1] + "{broken\n")
    report = index.add_files(file)
    assert (report.num_removed, len(report.unreadable)) == (1, 1)


def test_a_missing_input_is_an_error_before_anything_is_done(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    with pytest.raises(ReadError, match="no such file"):
        index.add_files([tmp_path / "nowhere"])
    assert not (tmp_path / "i").exists()


def test_a_missing_index_says_how_to_make_one(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    assert len(index) == 0
    with pytest.raises(IndexStoreError, match="does not exist; make one with: dewey index"):
        index.search("x")
    assert not (tmp_path / "i").exists()


def test_the_model_is_found_again_by_what_the_index_recorded(tmp_path):
    model = Dewey.load(single_vector="cls", truncate_dim=64, max_tokens=512)
    Index.open(tmp_path / "i", model).add(documents())
    index = Index.open(tmp_path / "i")
    assert index.settings.embedding_dim == 64
    assert index.search("zebra") == Index.open(tmp_path / "i", model).search("zebra")
    assert index.model.fingerprint == model.fingerprint


def test_another_model_is_refused_naming_both(built):
    with pytest.raises(IndexMismatchError, match=r"made by model 'mini' .*, not by 'mini'"):
        Index.open(built, Dewey.load(single_vector="cls"))


def test_other_chunk_options_are_refused_and_the_same_are_not(built, mini):
    assert Index.open(built, mini, chunk_tokens=32).options.chunk_overlap == (8,)
    with pytest.raises(IndexMismatchError, match=r"chunk_tokens=\(32,\).*not with.*\(64,\)"):
        Index.open(built, mini, chunk_tokens=64)
    with pytest.raises(IndexMismatchError, match="splitter='tokens'"):
        Index.open(built, mini, splitter="words")
    with pytest.raises(ConfigError, match="chunk_overlap"):
        Index.open(built, mini, chunk_tokens=[16, 64], chunk_overlap=20)


def test_several_granularities_are_searched_together(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini, chunk_tokens=[16, 64])
    index.add(documents())
    sizes = {
        p.char_end - p.char_start
        for p in index.search("striped animal", k=1, passages=9)[0].passages
    }
    assert max(sizes) > 2 * min(sizes)


def test_searching_goes_on_while_another_writes(mini, tmp_path):
    writer = Index.open(tmp_path / "i", mini, **SMALL)
    writer.add(documents())
    reader = Index.open(tmp_path / "i", mini)
    stop, seen, faults = threading.Event(), [], []

    def search():
        while not stop.is_set():
            try:
                hits = reader.search("which striped animal eats grass?", k=3, mode="hybrid")
                seen.append({hit.document_id for hit in hits})
            except Exception as error:
                faults.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    for round_ in range(4):
        more = [Document(id=f"m{n}", text=f"filler {n} in {round_}") for n in range(12)]
        writer.add(more, group_chars=1)  # a commit each, and a compaction
    stop.set()
    thread.join()
    assert faults == []
    assert seen
    assert all("zebra" in ids for ids in seen)
    assert len(reader) == 16


def test_an_index_outlives_the_folder_it_was_made_in(mini, built, tmp_path):
    shutil.copytree(built, tmp_path / "moved")
    hits = Index.open(tmp_path / "moved", mini).search("zebra", k=4)
    assert hits == Index.open(built, mini).search("zebra", k=4)
    shutil.rmtree(tmp_path / "moved" / "derived")
    assert hits == Index.open(tmp_path / "moved", mini).search("zebra", k=4)


def test_stored_vectors_are_the_models_bit_for_bit(built, mini):
    from dewey_embed.index.store import Store

    table = Store.open(built).snapshot().documents.to_arrow()
    stored = dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    encoded = mini.encode_document(list(TEXTS.values()), **SMALL)
    for name, vectors in zip(TEXTS, encoded, strict=True):
        np.testing.assert_array_equal(np.array(stored[name], np.float32), vectors.vector)


def test_the_one_document_of_an_index_has_its_multi_score_in_hybrid(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini)
    index.add(Document(id="music", text=TEXTS["music"]))
    [hybrid], [multi] = (index.search("a song", mode=mode) for mode in ("hybrid", "multi"))
    assert hybrid.score == multi.score != 0


def test_an_update_without_changes_loads_no_model(mini, tmp_path):
    Index.open(tmp_path / "i", mini).add(documents())
    script = (
        "import sys; from dewey_embed import Document, Index\n"
        "index = Index.open(sys.argv[1])\n"
        "assert index.add(index.document(name) for name in sys.argv[2:]).num_unchanged == 2\n"
        "assert 'torch' not in sys.modules"
    )
    names = [document.id for document in documents()][:2]
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "i"), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
