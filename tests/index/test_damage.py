"""A damaged index answers rightly, is healed, or is called damaged: it never answers otherwise."""

import random
import shutil

import numpy as np
import pytest

from dewey_embed.errors import IndexStoreError
from dewey_embed.index import layout
from dewey_embed.index.checksums import LEDGER_NAME, Checksum, Ledger
from dewey_embed.index.index import Index
from dewey_embed.index.store import Store
from tests.index.conftest import WIDTH, record, settings, unit
from tests.index.test_store import write

TIMES = 5  # that every file is damaged, each time otherwise
QUERY = unit(np.random.default_rng(1), WIDTH)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """An index after several runs: documents added, changed and removed, some with titles."""
    store = Store(tmp_path_factory.mktemp("damage") / "intact", settings())
    texts = {
        f"d{n}": f"text {n} of zebras and {'leases' if n % 2 else 'patents'}" for n in range(9)
    }
    titled = [
        record(name, text, title=name * (n % 3)) for n, (name, text) in enumerate(texts.items())
    ]
    write(store, titled)
    write(store, [record("d1", "changed zebras"), record("late", "a late lease")], remove=["d3"])
    answers(store.folder)
    return store.folder


def answers(folder):
    """What an index answers: every document with all of its passages, in every mode."""
    index = Index.open(folder)
    return [
        index.search("zebras of a lease", 99, mode=mode, passages=9, vector=QUERY)
        for mode in ("hybrid", "multi", "single")
    ] + [len(index), index.num_chunks]


def flipped(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


DAMAGES = {
    "flipped": flipped,
    "overwritten": lambda data, rng: rng.randbytes(len(data)),
    "zeroed": lambda data, rng: data[: len(data) // 2].ljust(len(data), b"\0"),
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "emptied": lambda data, rng: b"",
    "extended": lambda data, rng: data + rng.randbytes(9),
    "removed": None,
}


def damage(path, kind, rng):
    data = path.read_bytes()
    if kind == "removed":
        path.unlink()
    elif data:
        path.write_bytes(DAMAGES[kind](data, rng))


@pytest.mark.parametrize("rebuilt", [False, True], ids=["as it lies", "without derived files"])
def test_no_damage_to_any_file_changes_an_answer(intact, tmp_path, rebuilt):
    rng = random.Random(26 + rebuilt)
    expected = answers(intact)
    files = sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file())
    named = right = 0
    remedies = set()
    for file in files:
        if rebuilt and file.parts[0] == "derived":
            continue
        for _ in range(TIMES):
            kind = rng.choice(list(DAMAGES))
            folder = tmp_path / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(intact, folder)
            if rebuilt:
                shutil.rmtree(folder / "derived")
            damage(folder / file, kind, rng)
            try:
                found = answers(folder)
            except IndexStoreError as error:
                remedies.add(str(error).rpartition("; ")[2][:20])
                named += 1
            else:
                assert found == expected, f"{file} {kind}"
                right += 1
            if file.parts[0] == "derived":
                assert (folder / "derived").is_dir()
    assert remedies <= {"restore the index fr", "make one with: dewey"}
    assert right
    assert named + right >= (60 if rebuilt else 120)


@pytest.mark.parametrize("kind", DAMAGES)
def test_derived_files_are_made_again(intact, tmp_path, kind):
    expected = answers(intact)
    names = sorted(path.name for path in (intact / "derived").glob("*/*"))
    for name in names:
        folder = tmp_path / name
        shutil.copytree(intact, folder)
        [derived] = (folder / "derived").iterdir()
        damage(derived / name, kind, random.Random(name))
        assert answers(folder) == expected
        [healed] = (folder / "derived").iterdir()
        assert Ledger.read(healed / LEDGER_NAME).damaged(healed) is None


def test_a_writer_does_not_build_on_damage(intact, tmp_path):
    for number, path in enumerate(sorted(intact.glob("*.lance/data/*"))):
        folder = tmp_path / str(number)
        shutil.copytree(intact, folder)
        damage(folder / path.relative_to(intact), "flipped", random.Random(number))
        before = {path: path.read_bytes() for path in folder.rglob("*.lance") if path.is_file()}
        with pytest.raises(IndexStoreError, match="damaged"):
            write(Store.open(folder), [record("new")])
        assert {p: p.read_bytes() for p in folder.rglob("*.lance") if p.is_file()} == before


@pytest.mark.parametrize("kind", DAMAGES)
def test_settings_are_read_from_their_copy_and_healed_by_the_next_writer(intact, tmp_path, kind):
    folder = tmp_path / "i"
    shutil.copytree(intact, folder)
    damage(folder / "dewey.json", kind, random.Random(3))
    assert Store.open(folder).settings == settings()
    write(Store.open(folder), [record("new")])
    assert (folder / "dewey.json").read_bytes() == (intact / "dewey.json").read_bytes()


def test_a_text_that_is_not_the_one_that_was_indexed_is_never_shown(store):
    """As after damage to a file that no run has finished writing checksums of."""
    write(store, [record("a", "the true text"), record("b")], finish=False)
    documents = store.snapshot().documents
    documents.update(where="id = 'a'", values={"text": "the false text"})
    with pytest.raises(IndexStoreError, match="the text of document 'a' is not the one"):
        answers(store.folder)


@pytest.mark.parametrize(
    ("table", "values", "what"),
    [
        ("chunks", {"char_end": 1_000}, "a chunk"),
        ("chunks", {"ordinal": 0}, "a chunk"),
        ("chunks", {"vector": [0.5] * WIDTH}, "a chunk"),
        ("documents", {"vector": [0.5] * WIDTH}, "a document's vector"),
        ("documents", {"title_vector": [0.5] * WIDTH}, "a document's vector"),
        ("documents", {"word_crc": 1}, "a document's words"),
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_damage_without_a_ledger(store, table, values, what):
    write(store, [record("a", num_chunks=3), record("b")], finish=False)
    getattr(store.snapshot(), table).update(values=values)
    with pytest.raises(IndexStoreError, match=f"damaged: {what} is not as it was written"):
        answers(store.folder)


def test_a_large_file_is_read_again_when_it_was_touched(tmp_path, monkeypatch):
    monkeypatch.setattr("dewey_embed.index.checksums.TRUSTED_BYTES", 10)
    path = tmp_path / "large"
    path.write_bytes(b"x" * 100)
    ledger = Ledger.of(tmp_path, [path])
    assert ledger.damaged(tmp_path) is None
    path.write_bytes(b"x" * 99 + b"y")
    assert "another checksum" in ledger.damaged(tmp_path)
    path.write_bytes(b"x" * 101)
    assert "has 101 bytes, not 100" in ledger.damaged(tmp_path)


def test_a_ledger_that_is_damaged_is_none(tmp_path):
    ledger = Ledger({"a": Checksum(1, 2, 3)}, {"versions": [1, 2]})
    ledger.write(tmp_path / "l")
    assert Ledger.read(tmp_path / "l") == ledger
    data = (tmp_path / "l").read_bytes()
    rng = random.Random(5)
    for _ in range(200):
        (tmp_path / "l").write_bytes(flipped(data, rng))
        assert Ledger.read(tmp_path / "l") in (None, ledger)


def test_a_full_disk_is_named_and_the_documents_are_kept(store, monkeypatch):
    write(store, [record("a")])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout.os, "posix_fallocate", full)
    with pytest.raises(IndexStoreError, match=r"No space left.*the documents are safe"):
        answers(store.folder)
    monkeypatch.undo()
    assert [hit.document_id for hit in answers(store.folder)[0]] == ["a"]
    assert not list((store.folder / "derived").glob(".draft-*"))
