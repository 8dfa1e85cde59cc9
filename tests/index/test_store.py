"""The tables: what a writer commits is what readers find, at every moment."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dewey_embed.config import EncodeOptions
from dewey_embed.errors import IndexMismatchError, IndexStoreError
from dewey_embed.index import layout as layout_module
from dewey_embed.index.layout import open_layout
from dewey_embed.index.store import BOOT_NAME, Store
from dewey_embed.index.tables import canonical, content_hash, storable
from dewey_embed.index.writer import COMPACT_FRAGMENTS
from dewey_embed.types import Document
from tests.index.conftest import record, settings


def write(store, *groups, remove=(), finish=True):
    with store.writer() as writer:
        for group in groups:
            writer.write(group)
        writer.remove(remove)
        if finish:
            writer.finish()


def layout(store):
    return open_layout(store.folder, store.snapshot())


def ids(store):
    return layout(store).documents["id"].to_pylist()


def test_documents_and_chunks_come_back_bit_for_bit(store):
    records = [record("b", num_chunks=2), record("a", num_chunks=0), record("c", num_chunks=5)]
    write(store, records)
    found = layout(store)
    assert ids(store) == ["a", "b", "c"]
    assert found.starts.tolist() == [0, 1, 2, 5]
    assert found.chunk_starts.tolist() == [0, 0, 2, 4, 6, 7]
    by_id = sorted(records, key=lambda r: r.document.id)
    np.testing.assert_array_equal(found.document_vectors.vectors, [r.vectors.vector for r in by_id])
    assert found.spans.tolist() == [[0, 0], [0, 3], [0, 3], [2, 5], [4, 6]]
    vectors = found.passage_vectors.vectors.astype(np.float32)
    assert not vectors[0].any()
    for row, (made, chunks) in enumerate(
        [(by_id[1], [0, 1]), (by_id[2], [0, 1]), (by_id[2], [2, 3]), (by_id[2], [4])], start=1
    ):
        weighted = made.vectors.norms[chunks, None] * made.vectors.chunks[chunks]
        expected = weighted.sum(0) / np.linalg.norm(weighted.sum(0))
        np.testing.assert_allclose(vectors[row], expected, atol=5e-3)


def test_texts_come_back_whatever_their_characters(store):
    texts = {
        "nul": "a\0b",
        "emoji": "👩‍👩‍👧 e\u0301",
        "crlf": "x\r\ny",
        "quote's": 'it\'s "q" \\ %',
    }
    write(store, [record(key, text) for key, text in texts.items()])
    rows = layout(store).documents
    found = store.snapshot().texts(rows["row_id"].to_pylist())
    row_of = dict(zip(rows["id"].to_pylist(), rows["row_id"].to_pylist(), strict=True))
    assert {key: found[row_of[key]]["text"] for key in texts} == texts


def test_lone_surrogates_keep_positions_in_texts_and_names_apart():
    document = storable(Document(id="caf\udce9", text="a\ud800b", metadata={"k": "\udcff"}))
    assert document.text == "a\ufffdb"
    assert document.id == "caf\\udce9"
    assert document.metadata == {"k": "\\udcff"}


def test_nested_metadata_is_a_type_error():
    with pytest.raises(TypeError, match="metadata 'tags' is list"):
        storable(Document(id="a", text="", metadata={"tags": ["x"]}))


def test_hash_covers_the_text_and_the_id_and_nothing_that_costs_no_pass():
    document = Document(id="a", text="t", title="T", metadata={"n": 1}, root="r", source="s")
    for change in ({"root": "q"}, {"source": "z"}, {"title": "U"}, {"metadata": {"n": 2}}):
        assert content_hash(document) == content_hash(replace(document, **change))
    for change in ({"id": "b"}, {"text": "u"}):
        assert content_hash(document) != content_hash(replace(document, **change))


def test_a_changed_document_replaces_its_older_version(store):
    write(store, [record("a", "old", num_chunks=4), record("b")])
    write(store, [record("a", "new", num_chunks=2)])
    found = layout(store)
    assert np.diff(found.chunk_starts).tolist() == [2, 2, 1]
    assert store.snapshot().chunks.count_rows() == 5  # the four old ones are swept
    rows = store.snapshot().rows(found.documents["row_id"].to_pylist(), ["id", "text"])
    assert {row["id"]: row["text"] for row in rows} == {"a": "new", "b": "some words"}


def test_removed_documents_leave_with_their_chunks(store):
    write(store, [record("it's"), record("b")])
    write(store, remove=["it's", "never there"])
    assert ids(store) == ["b"]
    assert store.snapshot().chunks.count_rows() == 3


def test_chunks_without_their_document_are_passed_over_and_swept(store):
    write(store, [record("a")])
    with store.writer() as writer:
        from dewey_embed.index.tables import chunks_table

        # As if killed between the two commits.
        writer._chunks.add(chunks_table([record("b"), record("a", "newer")], writer._chunks.schema))
    assert ids(store) == ["a"]
    assert layout(store).num_chunks == 3
    write(store, [record("b")])
    assert ids(store) == ["a", "b"]
    assert store.snapshot().chunks.count_rows() == 6


def test_a_snapshot_stays_as_it_was_while_others_write(store):
    write(store, [record("a")])
    before = store.snapshot()
    write(store, [record("b")], [record("a", "changed")])
    assert open_layout(store.folder, before).documents["id"].to_pylist() == ["a"]
    assert ids(store) == ["a", "b"]


def test_many_small_commits_are_compacted_and_old_versions_leave(store):
    for number in range(2 * COMPACT_FRAGMENTS):
        write(store, [record("a", f"text {number}"), record(f"b{number}")])
    snapshot = store.snapshot()
    for table in (snapshot.documents, snapshot.chunks):
        assert table.stats()["fragment_stats"]["num_fragments"] < COMPACT_FRAGMENTS
        assert len(table.list_versions()) < 4 * COMPACT_FRAGMENTS
    assert len(ids(store)) == 2 * COMPACT_FRAGMENTS + 1


def worded(store, query):
    """Ids of the documents that share words with a query."""
    found = layout(store)
    ids = found.documents["id"].to_pylist()
    return {ids[row] for row in np.flatnonzero(found.document_words.scores(query))}


def test_words_are_found_in_new_and_compacted_rows(store):
    write(store, [record("a", "patents are owned"), record("b", "zebra crossing")])
    assert worded(store, "patent") == {"a"}
    write(store, *([record(f"c{n}", "filler")] for n in range(COMPACT_FRAGMENTS)))
    write(store, [record("d", "a zebra, again")])
    assert worded(store, "ZEBRA") == {"b", "d"}


@pytest.mark.parametrize(
    "query",
    ["", "   ", "?!", 'say "zebra', "AND OR (NOT", "a:b*^~2 +-\\/", "x\0y", "'; --", "é👩"],
)
def test_no_query_is_a_syntax_error(store, query):
    write(store, [record("a", "zebra")])
    assert worded(store, query) in (set(), {"a"})


def test_another_model_or_other_options_are_refused_naming_both(store):
    write(store, [record("a")])
    other = Store(store.folder, settings(model="other", fingerprint="beef"))
    with pytest.raises(IndexMismatchError, match=r"'test' .*f00d.*'other' .*beef"), other.writer():
        pass
    options = EncodeOptions(chunk_tokens=(256,), chunk_overlap=(64,))
    other = Store(store.folder, settings(options=options))
    with pytest.raises(IndexMismatchError, match=r"\(64,\).*\(256,\)"), other.writer():
        pass


def test_a_second_writer_is_refused_and_readers_are_not(store):
    write(store, [record("a")])
    code = (
        "import sys; from pathlib import Path; from dewey_embed.index.store import Store\n"
        "with Store.open(Path(sys.argv[1])).writer(): print('ready', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(store.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(IndexStoreError, match=f"pid {other.pid}"), store.writer():
            pass
        assert ids(store) == ["a"]
        other.kill()
    write(store, [record("b")])
    assert ids(store) == ["a", "b"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(IndexStoreError, match="other files"), Store(tmp_path, settings()).writer():
        pass
    assert os.listdir(tmp_path) == ["thesis.txt"]
    with pytest.raises(IndexStoreError, match="is no Dewey index"):
        Store.open(tmp_path)
    with pytest.raises(IndexStoreError, match="does not exist; make one with"):
        Store.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged, or not the settings"),
        ("[]", "damaged, or not the settings"),
        (json.dumps({"format_version": 99}), "format 99, this Dewey reads 3: index"),
        (json.dumps({"format_version": 1, "model": "m"}), "format 1, this Dewey reads 3: index"),
        (json.dumps({"format_version": 3, "colour": 3}), "another checksum"),
    ],
)
def test_a_damaged_or_newer_index_says_so(store, content, message):
    write(store, [record("a")], finish=False)
    (store.folder / "checksums.json").unlink()  # which has a copy of the settings
    (store.folder / "dewey.json").write_text(content)
    with pytest.raises(IndexStoreError, match=message):
        Store.open(store.folder)


def test_a_table_killed_while_it_was_made_is_made_again(store):
    with store.writer():
        pass
    for path in (*store.folder.glob("*.lance/_versions/*"), store.folder / "checksums.json"):
        path.unlink()
    assert Store.open(store.folder).snapshot() is None
    write(store, [record("a")])
    assert ids(store) == ["a"]


def test_lost_chunks_are_called_damage(store):
    write(store, [record("a")])
    store.snapshot().chunks.delete("ordinal = 1")
    with pytest.raises(IndexStoreError, match="2 chunks for documents that have 3"):
        layout(store)


def test_equal_values_are_canonically_equal():
    assert canonical(1) == canonical(1.0) != canonical(True)
    assert canonical("1") != canonical(1)
    assert canonical(None) == "null"


def test_after_a_loss_of_power_the_recorded_versions_are_gone_back_to(store):
    """What was written after the last ledger may be torn: here it is empty."""
    write(store, [record("a")])
    write(store, [record("b")], finish=False)
    newest = min((store.folder / "documents.lance" / "_versions").glob("*.manifest"))
    newest.write_bytes(b"")
    (store.folder / BOOT_NAME).write_text("an earlier start of the system")
    assert ids(Store.open(store.folder)) == ["a"]
    write(store, [record("b")])
    assert ids(store) == ["a", "b"]


def test_a_killed_run_loses_nothing_while_the_system_stays_up(store):
    write(store, [record("a")])
    write(store, [record("b")], finish=False)
    assert ids(Store.open(store.folder)) == ["a", "b"]


def test_a_long_run_is_recorded_from_time_to_time(store, monkeypatch):
    monkeypatch.setattr("dewey_embed.index.writer.RECORD_SECONDS", 0)
    write(store, [record("a")], [record("b")], finish=False)
    (store.folder / BOOT_NAME).write_text("an earlier start of the system")
    assert ids(Store.open(store.folder)) == ["a", "b"]


def test_a_disk_that_fills_keeps_no_reader_out(store, monkeypatch):
    write(store, [record("a"), record("b")])
    whole = layout_module.write_layout

    def on_a_full_disk(snapshot, folder, **options):
        if folder.is_relative_to(store.folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(snapshot, folder, **options)

    monkeypatch.setattr(layout_module, "write_layout", on_a_full_disk)
    assert ids(store) == ["a", "b"]
    assert not list((store.folder / "derived").iterdir())
    with pytest.raises(IndexStoreError, match=r"No space left .*make room"):
        open_layout(store.folder, store.snapshot(), to_stay=True)
