"""The layout: ranks, passages and filters over a snapshot, in one order however written."""

import stat

import numpy as np
import pytest

from dewey_embed.errors import InputError
from dewey_embed.index.layout import open_layout, remove_stale_layouts
from dewey_embed.index.store import Store
from tests.index.conftest import WIDTH, record, settings, unit
from tests.index.test_store import write


@pytest.fixture
def query():
    return unit(np.random.default_rng(1), WIDTH)


def opened(store):
    return open_layout(store.folder, store.snapshot())


def files(store):
    [folder] = (store.folder / "derived").iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".npy"}


def test_the_same_content_gives_the_same_bytes_however_it_was_written(tmp_path):
    one, two = (Store(tmp_path / name, settings()) for name in "ab")
    records = [record(f"d{n}", num_chunks=n % 4) for n in range(30)]
    write(one, records)
    write(two, [record("d3", "older")], [record("gone")], finish=False)
    write(two, *([each] for each in reversed(records)), remove=["gone"])
    opened(one), opened(two)
    assert files(one) == files(two)


def test_multi_ranks_by_best_chunk_and_single_by_the_whole(store, query):
    records = [record(f"d{n}", num_chunks=1 + n % 5) for n in range(40)]
    write(store, records)
    found = opened(store)
    ids = found.documents["id"].to_pylist()
    best = {
        r.document.id: float((r.vectors.chunks.astype(np.float16).astype(float) @ query).max())
        for r in records
    }
    rows, scores = found.nearest_by_chunks(query, 7)
    assert [ids[row] for row in rows] == sorted(best, key=best.get, reverse=True)[:7]
    np.testing.assert_allclose(scores, sorted(best.values(), reverse=True)[:7], atol=1e-6)
    whole = {r.document.id: float(r.vectors.vector @ query) for r in records}
    rows, _ = found.document_vectors.nearest(query, 7)
    assert [ids[row] for row in rows] == sorted(whole, key=whole.get, reverse=True)[:7]


def test_passages_are_a_documents_best_chunks_best_first(store, query):
    a = record("a", num_chunks=9)
    write(store, [a, record("b")])
    passages = opened(store).passages(0, query, 3)
    scores = a.vectors.chunks.astype(np.float16).astype(np.float32) @ query
    order = np.argsort(-scores)[:3]
    assert [p[1:] for p in passages] == [tuple(a.vectors.spans[i][:2]) for i in order]
    assert [p[0] for p in passages] == pytest.approx(scores[order].tolist(), abs=1e-6)


def test_filters_take_values_lists_and_none(store):
    rows = {
        "a": {"year": 2020, "kind": "pdf"},
        "b": {"year": 2021.0},
        "c": {"kind": None, "year": True},
    }
    write(store, [record(key, metadata=value) for key, value in rows.items()])
    found = opened(store)

    def chosen(**where):
        return [key for key, hit in zip("abc", found.filter_mask(where), strict=True) if hit]

    assert chosen(year=2020) == ["a"]
    assert chosen(year=2021) == ["b"]
    assert chosen(year=[2020, 2021]) == ["a", "b"]
    assert chosen(year=1) == []
    assert chosen(kind=None) == ["b", "c"]
    assert chosen(kind=("pdf", None), year=2020) == ["a"]
    assert chosen() == ["a", "b", "c"]
    assert found.metadata(0) == rows["a"]
    with pytest.raises(InputError, match=r"'yaer'.*known: kind, year"):
        found.filter_mask({"yaer": 2020})


def test_a_filtered_search_still_finds_k_documents(store, query):
    write(store, [record(f"d{n:03}", metadata={"odd": bool(n % 2)}) for n in range(60)])
    found = opened(store)
    mask = found.filter_mask({"odd": True})
    for nearest in (found.document_vectors.nearest, found.nearest_by_chunks):
        rows, _ = nearest(query, 20, mask)
        assert len(rows) == 20
        assert mask[rows].all()


def test_an_empty_index_answers_nothing(store, query):
    write(store)
    found = opened(store)
    assert len(found) == found.num_chunks == 0
    assert (
        len(found.nearest_by_chunks(query, 5)[0])
        == len(found.document_vectors.nearest(query, 5)[0])
        == 0
    )
    assert found.filter_mask({"any": 1}).tolist() == []
    assert found.find(["a"]) == [None]


def test_documents_without_chunks_are_found_by_their_whole_only(store, query):
    write(store, [record("blank", "", num_chunks=0)])
    found = opened(store)
    assert len(found.nearest_by_chunks(query, 5)[0]) == 0
    assert len(found.document_vectors.nearest(query, 5)[0]) == 1


def test_stale_catalogues_leave_and_open_ones_go_on(store, query):
    write(store, [record("a")])
    old = opened(store)
    write(store, [record("b")])
    opened(store)
    (store.folder / "derived" / ".draft-of-a-killed-run").mkdir()
    remove_stale_layouts(store.folder, store.snapshot())
    assert len(list((store.folder / "derived").iterdir())) == 1
    assert len(old.nearest_by_chunks(query, 5)[0]) == 1
    assert old.documents["id"].to_pylist() == ["a"]


def test_an_index_that_cannot_be_written_is_searched_all_the_same(store, query):
    write(store, [record("a")])
    (store.folder / "derived").write_text("in the way, for root may write anywhere")
    assert len(opened(store).nearest_by_chunks(query, 5)[0]) == 1
    assert (store.folder / "derived").is_file()


def test_catalogues_are_readable_by_whom_the_umask_says(store):
    write(store, [record("a")])
    opened(store)
    [folder] = (store.folder / "derived").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(store.folder.stat().st_mode)
