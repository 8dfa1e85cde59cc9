"""The layout: ranks, passages and filters over a snapshot, in one order however written."""

import stat

import numpy as np
import pytest

from dewey_embed.errors import InputError
from dewey_embed.index.layout import open_layout, remove_stale_layouts
from dewey_embed.index.store import Store
from tests.index.conftest import WIDTH, ranking, record, settings, unit
from tests.index.test_store import write


@pytest.fixture
def query():
    return unit(np.random.default_rng(1), WIDTH)


def opened(store):
    return open_layout(store.folder, store.snapshot())


def files(store):
    [folder] = (store.folder / "derived").iterdir()
    arrays = [path for path in folder.iterdir() if path.suffix == ".npy"]
    # Where a chunk stands in its table depends on when it was written.
    return {path.name: path.read_bytes() for path in arrays if path.stem != "chunk_rows"}


def test_the_same_content_gives_the_same_bytes_however_it_was_written(tmp_path):
    one, two = (Store(tmp_path / name, settings()) for name in "ab")
    records = [record(f"d{n}", num_chunks=n % 4) for n in range(30)]
    write(one, records)
    write(two, [record("d3", "older")], [record("gone")], finish=False)
    write(two, *([each] for each in reversed(records)), remove=["gone"])
    opened(one), opened(two)
    assert files(one) == files(two)


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


def test_an_empty_index_answers_nothing(store, query):
    write(store)
    found = opened(store)
    assert len(found) == found.num_chunks == 0
    for mode in ("hybrid", "multi", "single"):
        assert ranking(found, query, mode=mode).documents(5) == []
        assert list(ranking(found, query, mode=mode).passages()) == []
    assert found.filter_mask({"any": 1}).tolist() == []
    assert found.find(["a"]) == [None]


def test_stale_catalogues_leave_and_open_ones_go_on(store, query):
    write(store, [record("a")])
    old = opened(store)
    write(store, [record("b")])
    opened(store)
    (store.folder / "derived" / ".draft-of-a-killed-run").mkdir()
    remove_stale_layouts(store.folder, store.snapshot())
    assert len(list((store.folder / "derived").iterdir())) == 1
    assert len(ranking(old, query).documents(5)) == 1
    assert old.documents["id"].to_pylist() == ["a"]


def test_an_index_that_cannot_be_written_is_searched_all_the_same(store, query):
    write(store, [record("a")])
    (store.folder / "derived").write_text("in the way, for root may write anywhere")
    assert len(ranking(opened(store), query).documents(5)) == 1
    assert (store.folder / "derived").is_file()


def test_catalogues_are_readable_by_whom_the_umask_says(store):
    write(store, [record("a")])
    opened(store)
    [folder] = (store.folder / "derived").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(store.folder.stat().st_mode)
