"""`Index`: what is added is found, with its characters; what changes or goes is followed."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from itertools import pairwise

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


def test_single_scores_are_the_models_own_similarities(tmp_path, mini):
    index = Index.open(tmp_path / "i", mini, **SMALL)
    index.add(untitled())
    question = "what has four strings?"
    encoded = mini.encode_document(list(TEXTS.values()))
    scores = mini.similarity(mini.encode_query([question]), encoded, mode="single")[0]
    expected = np.maximum(scores, 0).tolist()
    found = {hit.document_id: hit.score for hit in index.search(question, k=9, mode="single")}
    assert found == pytest.approx(dict(zip(TEXTS, expected, strict=True)), abs=1e-5)


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


def test_multi_is_what_one_pass_gives_a_passage_its_surroundings_and_its_document(mini, tmp_path):
    index = Index.open(tmp_path / "i", mini, **SMALL)
    index.add(untitled())
    [query] = mini.encode_query(["zebra"])
    for hit in index.search("zebra", k=4, mode="multi", passages=99):
        passages = sorted(hit.passages, key=lambda each: each.number)
        spans = [(each.char_start, each.char_end) for each in passages]
        around = [
            (spans[max(0, n - 2)][0], spans[min(len(spans), n + 3) - 1][1])
            for n in range(len(spans))
        ]
        text = index.document(hit.document_id).text
        vectors = mini.encode_document(text, spans=[*spans, *around])
        own, near = np.split(np.maximum(vectors.chunks @ query, 0), 2)
        document = max(0, vectors.vector @ query)
        expected = (own + near / 2 + document * (3 / 4 + 1 / 2)) / 2.75
        assert [each.score for each in passages] == pytest.approx(expected.tolist(), abs=3e-3)
        assert hit.score == max(each.score for each in passages)


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
    assert len(index) == 2
    for mode in ("hybrid", "multi", "single"):
        hits = index.search("patents", k=5, mode=mode)
        assert hits[-1].document_id == "blank"
        assert not hits[-1].passages


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
    with pytest.raises(IndexMismatchError, match="splitter='sentences'"):
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
    from dewey_embed.index.tables import title_above

    table = Store.open(built).snapshot().documents.to_arrow()
    stored = dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    titles = [title_above(document) for document in documents()]
    encoded = mini.encode_document(list(TEXTS.values()), titles=titles, **SMALL)
    for name, vectors in zip(TEXTS, encoded, strict=True):
        np.testing.assert_array_equal(np.array(stored[name], np.float32), vectors.vector)


def test_a_score_is_the_same_beside_documents_that_share_no_word_with_the_query(mini, tmp_path):
    scores = []
    for others in (0, 2):
        index = Index.open(tmp_path / str(others), mini)
        index.add(Document(id="music", text=TEXTS["music"]))
        index.add(Document(id=str(n), text=f"q{n}q z{n}z") for n in range(others))
        scores += [index.search("violin", k=1, mode=mode)[0].score for mode in ("hybrid", "multi")]
    assert min(scores) > 0.2
    assert max(scores) < 1
    assert scores[1] == scores[3]
    assert scores[0] == pytest.approx(scores[2], abs=0.1)  # a word is rarer among more


def test_passages_of_one_document_do_not_overlap_and_a_text_is_shown_once(mini, tmp_path):
    same = "The violin has four strings and a bow. " * 3
    text = f"{TEXTS['music']}\n\n{same}\n\n{TEXTS['zebra']}\n\n{same}"
    index = Index.open(tmp_path / "i", mini, chunk_tokens=32)
    index.add(Document(id="a", text=text))
    [hit] = index.search("violin strings", k=1, passages=99)
    shown = sorted((p.char_start, p.char_end) for p in hit.passages)
    assert all(end <= start for (_, end), (start, _) in pairwise(shown))
    texts = [" ".join(p.text.split()) for p in hit.passages]
    assert len(set(texts)) == len(texts)
    assert max(p.num_similar for p in hit.passages) > 0
    best = index.passages("violin strings", k=99)
    assert [hit.passages[0].text for hit in best] == [p.text for p in hit.passages]


def test_a_passage_begins_and_ends_with_a_sentence_and_marks_the_one_that_answers(mini, tmp_path):
    text = "Rent is due on Monday. The owner mends the roof. " + "Ships carry timber. " * 40
    index = Index.open(tmp_path / "i", mini)
    index.add(Document(id="a", text=text))
    [hit] = index.search("who repairs the roof?", k=1, passages=1)
    [passage] = hit.passages
    assert passage.text.startswith("Rent is due")
    assert passage.text.endswith(".")
    start, end = passage.highlight
    assert text[start:end] == "The owner mends the roof."


def test_more_sentences_around_a_passage_are_read_from_the_index(mini, tmp_path):
    text = " ".join(f"Sentence number {n} says {n}." for n in range(60))
    index = Index.open(tmp_path / "i", mini)
    index.add(Document(id="a", text=text))
    [hit] = index.passages("sentence number 30 says 30", k=1)
    [passage] = hit.passages
    wide = index.around(passage, sentences=1)
    before, _, after = wide.text.partition(passage.text)
    assert before.count(".") == after.count(".") == 1
    assert (wide.score, wide.highlight) == (passage.score, passage.highlight)
    index.add(Document(id="a", text="Another text."))
    with pytest.raises(InputError, match="'a' has changed since"):
        index.around(passage)


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


def test_several_indexes_are_searched_as_one(index, built, mini, tmp_path):
    other = Index.open(tmp_path / "other", mini, **SMALL)
    other.add(
        [
            Document(
                id="patents", text="Copyright and patents lapse after the author's death. " * 4
            ),
            Document(id="oxen", text="Oxen pull ploughs over the fields in spring. " * 4),
        ]
    )
    query = "who owns the patents?"
    hits = index.search(query, k=3, also=[other])
    assert hits[0].document_id == "patents"
    assert {hit.index for hit in hits} == {str(index.path), str(other.path)}
    assert [hit.score for hit in hits] == sorted([hit.score for hit in hits], reverse=True)
    every = index.search(query, k=100, also=[other, Index.open(built, mini), other])
    assert every[:3] == hits
    alone = [*index.search(query, k=9), *other.search(query, k=9)]
    assert sorted(h.score for h in every) == sorted(h.score for h in alone)
    assert all(hit.index == "" for hit in alone)
    passages = index.passages(query, k=4, also=[other])
    assert passages[0].passages[0] == hits[0].passages[0]
    with_letters = index.search(query, filter={"letters": 5}, also=[other])  # the other has none
    assert {hit.document_id for hit in with_letters} == {"zebra", "music"}
    with pytest.raises(InputError, match="colour"):
        index.search(query, filter={"colour": "red"}, also=[other])


def test_a_file_that_several_indexes_hold_is_shown_once(mini, tmp_path):
    (tmp_path / "docs").mkdir()
    for number in range(9):
        (tmp_path / "docs" / f"{number}.txt").write_text(f"House {number} has a tenant.")
    indexes = [Index.open(tmp_path / name, mini) for name in ("one", "two")]
    for each in indexes:
        each.add_files(tmp_path / "docs")
    for call in (indexes[0].search, indexes[0].passages):
        ids = [hit.document_id for hit in call("a house with a tenant", k=9, also=indexes[1:])]
        assert len(set(ids)) == len(ids) == 9


def test_an_index_of_another_model_is_not_searched_beside(index, mini, tmp_path):
    smaller = Index.open(tmp_path / "other", Dewey.load(dtype="float32", truncate_dim=128))
    smaller.add([Document(id="oxen", text="Oxen pull ploughs.")])
    with pytest.raises(IndexMismatchError, match="was made by model"):
        index.search("oxen", also=[smaller])
