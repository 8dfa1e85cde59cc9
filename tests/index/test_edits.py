"""Changed documents: what they keep of their earlier versions, against encoding them alone."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed import Dewey, Document, Index
from dewey_embed.index.earlier import earlier_of
from dewey_embed.index.settings import INDEX_OPTIONS, changed_options
from dewey_embed.index.sync import IndexEncoder, new_settings
from dewey_embed.index.tables import (
    Record,
    chunks_schema,
    chunks_table,
    content_hash,
    packed_windows,
    unpacked_windows,
)
from dewey_embed.model.inference import num_states

WINDOW = 96
BOUND = 1e-6
BOUND_BFLOAT16 = 1e-4
"""Largest 1 - cosine between what is kept and what is encoded again (docs/index-format.md)."""

WORDS = ("rent", "roof", "river", "timber", "ship", "heir", "patent", "fox", "lease", "owner")


@pytest.fixture(scope="module")
def model():
    return Dewey.load(dtype="float32")


def encoder_of(model, window=WINDOW, **options):
    chosen = changed_options(
        INDEX_OPTIONS, *(options.get(name) for name in ("chunk_tokens", "chunk_overlap")),
        options.get("splitter"), options.get("overflow"),
    )  # fmt: skip
    return IndexEncoder(lambda: model, chosen, new_settings(model, chosen, window))


def encode(encoder, text, earlier=None):
    """A document encoded, beside an earlier version of it where there is one."""
    document = Document(id="a", text=text)
    held = {} if earlier is None else {"a": earlier}
    return document, encoder.encode([document], lambda _: held, lambda _: lambda _: None)[0]


def stored(model, document, encoded):
    """What an index reads of the version that it holds."""
    windows = packed_windows(encoded.vectors.windows)
    record = Record(
        document=document,
        hash=content_hash(document),
        vectors=encoded.vectors,
        passages=encoded.passages,
    )
    chunks = chunks_table([record], chunks_schema(model.embedding_dim))
    states = unpacked_windows(windows, num_states(model.config))
    return chunks, states and earlier_of(states, chunks)


def edited(model, encoder, old, new):
    """A new text encoded beside the old one, and encoded alone."""
    _, earlier = stored(model, *encode(encoder, old))
    return encode(encoder, new, earlier), encode(encoder, new)


def assert_equal(model, one, other):
    """Both are in the tables with the same rows, and vectors within the bound."""
    (document, kept), (_, full) = one, other
    assert kept.vectors.spans == full.vectors.spans
    assert kept.vectors.used_tokens == full.vectors.used_tokens
    assert 1 - float(kept.vectors.vector @ full.vectors.vector) < BOUND
    ours, theirs = (stored(model, document, each)[0] for each in (kept, full))
    for name in set(ours.column_names) - {"vector", "weight", "sum"}:
        assert ours[name].equals(theirs[name])
    bytes_ours, bytes_theirs = (
        np.array(table["vector"].to_pylist(), np.int64) for table in (ours, theirs)
    )
    assert np.abs(bytes_ours - bytes_theirs).max(initial=0) <= 1  # rounded the other way
    assert np.allclose(ours["weight"].to_numpy(), theirs["weight"].to_numpy(), rtol=1e-4)
    if full.vectors.windows is not None:
        assert kept.vectors.windows.keys == full.vectors.windows.keys
        assert np.allclose(kept.vectors.windows.states, full.vectors.windows.states, atol=1e-2)


def sentences(rng, count):
    return [
        " ".join(rng.choices(WORDS, k=rng.randint(3, 14))).capitalize() + "." for _ in range(count)
    ]


EDITS = {
    "insert": lambda rng, text, at: text[:at] + sentences(rng, rng.randint(1, 6)) + text[at:],
    "delete": lambda rng, text, at: text[:at] + text[at + rng.randint(1, 6) :],
    "replace": lambda rng, text, at: text[:at] + sentences(rng, 2) + text[at + 2 :],
    "move": lambda rng, text, at: text[at : at + 8] + text[:at] + text[at + 8 :],
    "append": lambda rng, text, at: text + sentences(rng, rng.randint(1, 20)),
    "cut": lambda rng, text, at: text[: at // 8],
}


@pytest.mark.filterwarnings("ignore:1 of 1 texts hold no token")
@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(0, 60), st.lists(st.sampled_from(sorted(EDITS)), max_size=3)
)
def test_an_edited_text_has_the_vectors_that_it_has_alone(model, seed, length, names):
    rng = random.Random(seed)
    old = sentences(rng, length)
    new = old
    for name in names:
        new = EDITS[name](rng, new, rng.randint(0, len(new)))
    encoder = encoder_of(model)
    kept, full = edited(model, encoder, "\n\n".join(old), "\n\n".join(new))
    assert_equal(model, kept, full)
    assert full[1].num_kept == 0
    assert kept[1].num_kept <= kept[1].vectors.used_tokens


@pytest.mark.parametrize("at", [0, 40, 99])
def test_one_changed_sentence_leaves_most_of_a_text(model, at):
    text = sentences(random.Random(1), 100)
    new = [*text[:at], "A heron stood in the mill pond.", *text[at + 1 :]]
    kept, full = edited(model, encoder_of(model), " ".join(text), " ".join(new))
    assert_equal(model, kept, full)
    assert kept[1].num_kept > 0.6 * kept[1].vectors.used_tokens


def test_what_is_written_at_the_end_leaves_all_but_the_last_windows(model):
    text = sentences(random.Random(2), 100)
    kept, full = edited(model, encoder_of(model), " ".join(text), " ".join([*text, "And then."]))
    assert_equal(model, kept, full)
    assert kept[1].num_kept >= kept[1].vectors.used_tokens - WINDOW


def test_a_text_read_as_before_needs_no_pass(model):
    text = " ".join(sentences(random.Random(3), 60))
    read = []
    document, before = encode(encoder_of(model), text)
    _, earlier = stored(model, document, before)
    spaced = Document(id="a", text=text + "\n")  # white space at an end is no token
    [kept] = encoder_of(model).encode([spaced], lambda _: {"a": earlier}, read.append)
    assert kept.num_kept == kept.vectors.used_tokens
    assert sum(read) == 0
    assert_equal(model, (spaced, kept), (document, before))


def test_another_title_is_read_above_every_window(model):
    text = " ".join(sentences(random.Random(4), 60))
    old, new = (f"{title}\n\n{text}" for title in ("Mills and rivers", "Courts and winters"))
    kept, full = edited(model, encoder_of(model), old, new)
    assert_equal(model, kept, full)
    assert kept[1].num_kept == 0


@pytest.mark.parametrize(
    "options",
    [
        {"splitter": "tokens", "chunk_tokens": 16, "chunk_overlap": 4},
        {"splitter": "tokens", "chunk_tokens": (16, 64), "chunk_overlap": (0, 0)},
        {"splitter": "tokens", "chunk_tokens": 200},  # longer than a window
        {"splitter": "words", "chunk_tokens": 20},
        {"splitter": "recursive", "chunk_tokens": 32},
        {"splitter": "sentence", "chunk_tokens": 24},
    ],
    ids=str,
)
def test_all_splitters_give_what_they_give_alone(model, options):
    text = sentences(random.Random(5), 80)
    new = [*text[:50], "A heron stood.", *text[50:]]
    kept, full = edited(model, encoder_of(model, **options), " ".join(text), " ".join(new))
    assert_equal(model, kept, full)
    assert kept[1].num_kept > 0


@pytest.mark.parametrize("kind", ["cls", "cls_add_mean", "topics"])
def test_all_kinds_of_single_vector_are_kept(kind):
    model = Dewey.load(dtype="float32", single_vector=kind)
    text = sentences(random.Random(6), 60)
    new = [*text[:30], "A heron stood.", *text[30:]]
    kept, full = edited(model, encoder_of(model), " ".join(text), " ".join(new))
    assert_equal(model, kept, full)
    assert kept[1].num_kept > 0


def test_a_vector_pooled_from_special_tokens_too_is_kept(model):
    config = model.config.model_copy(update={"pooled_over": "all"})
    around = Dewey.load(dtype="float32")
    around.model.config = config
    text = sentences(random.Random(7), 60)
    new = [*text[:30], "A heron stood.", *text[30:]]
    kept, full = edited(around, encoder_of(around), " ".join(text), " ".join(new))
    assert_equal(around, kept, full)
    assert kept[1].num_kept > 0


def test_what_is_cut_off_is_not_counted():
    model = Dewey.load(dtype="float32", max_tokens=300)
    text = sentences(random.Random(8), 100)
    new = [*text[:10], "A heron stood.", *text[10:]]
    encoder = encoder_of(model, overflow="truncate")
    kept, full = edited(model, encoder, " ".join(text), " ".join(new))
    assert_equal(model, kept, full)
    assert kept[1].vectors.overflow == "truncate"
    assert 0 < kept[1].num_kept < kept[1].vectors.used_tokens < kept[1].vectors.num_tokens


def test_damaged_windows_are_encoded_again(model):
    document, encoded = encode(encoder_of(model), " ".join(sentences(random.Random(9), 40)))
    data = packed_windows(encoded.vectors.windows)
    width = num_states(model.config)
    found = unpacked_windows(data, width)
    assert found.keys == encoded.vectors.windows.keys
    assert np.array_equal(found.states, encoded.vectors.windows.states)
    assert np.array_equal(found.bounds, encoded.vectors.windows.bounds)
    assert unpacked_windows(None, width) is None
    assert unpacked_windows(data, 2 * width) is None
    for at in (0, 5, 40, len(data) - 1):
        torn = bytearray(data)
        torn[at] ^= 1
        assert unpacked_windows(bytes(torn), width) is None
    chunks, earlier = stored(model, document, encoded)
    assert earlier is not None
    weights = chunks["weight"].to_pylist()
    weights[3] *= 2
    column = chunks.column_names.index("weight")
    values = pa.array(weights, pa.float32())
    damaged = chunks.set_column(column, chunks.schema.field("weight"), values)
    assert earlier_of(found, damaged) is None


def rows(index):
    """All rows of both tables, without what is of one writing only."""
    snapshot = index._store.snapshot()
    documents = snapshot.documents.search().to_arrow().sort_by("id").to_pylist()
    hashes = {document["hash"] for document in documents}
    chunks = [
        chunk
        for chunk in snapshot.chunks.search().to_arrow().to_pylist()
        if chunk["document_hash"] in hashes
    ]
    return documents, sorted(chunks, key=lambda chunk: (chunk["document_id"], chunk["ordinal"]))


@pytest.fixture
def versions():
    """Two documents, of which one has a second version."""
    rng = random.Random(10)
    long, other = sentences(rng, 80), sentences(rng, 30)
    new = [*long[:40], "A heron stood in the pond.", *long[41:]]
    return [
        [Document(id=name, text=" ".join(text)) for name, text in {"a": first, "b": other}.items()]
        for first in (long, new)
    ]


def test_an_index_keeps_what_an_edit_did_not_reach(model, versions, tmp_path):
    old, new = versions
    edited, made = (Index.open(tmp_path / name, model, window=WINDOW) for name in ("e", "m"))
    edited.add(old)
    report = edited.add(new)
    assert (report.num_changed, report.num_unchanged) == (1, 1)
    assert 0.6 < report.num_kept_tokens / report.num_changed_tokens < 1
    assert made.add(new).num_kept_tokens == 0
    for ours, theirs in zip(*(rows(index) for index in (edited, made)), strict=True):
        assert len(ours) == len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            differ = {key for key in one if one[key] != two[key]}
            assert differ <= {"vector", "vector_sum", "windows", "weight", "sum"}
            assert np.allclose(one["vector"], two["vector"], atol=1 if "sum" in one else 1e-6)
    for query in ("where did the heron stand?", "who owns the mill?"):
        ours, theirs = (index.search(query, 2) for index in (edited, made))
        assert [hit.document_id for hit in ours] == [hit.document_id for hit in theirs]
        assert [p.char_start for hit in ours for p in hit.passages] == [
            p.char_start for hit in theirs for p in hit.passages
        ]
    # What was kept once is kept again, and does not drift.
    again = edited.add([old[0], new[1]])
    assert again.num_kept_tokens > 0.6 * again.num_changed_tokens


def test_an_index_of_an_earlier_dewey_has_nothing_to_keep_at_first(model, versions, tmp_path):
    old, new = versions
    index = Index.open(tmp_path / "i", model, window=WINDOW)
    index.add(old)
    index._store.snapshot().documents.drop_columns(["windows"])
    earlier = Index.open(tmp_path / "i", model)
    assert earlier.search("who owns the mill?", 1)
    assert earlier.add(new).num_kept_tokens == 0
    assert earlier.add(old).num_kept_tokens > 0


def test_in_bfloat16_what_is_kept_is_within_its_bound():
    model = Dewey.load(dtype="bfloat16")
    text = sentences(random.Random(11), 80)
    new = [*text[:30], "A heron stood.", *text[30:]]
    (_, kept), (_, full) = edited(model, encoder_of(model), " ".join(text), " ".join(new))
    assert kept.num_kept > 0
    rows = kept.vectors.chunks / np.linalg.norm(kept.vectors.chunks, axis=1, keepdims=True)
    cosines = (rows * full.vectors.chunks).sum(axis=1)
    # Of these 5e-5 is the price of int8 bytes, which an index pays for all of its chunks.
    assert 1 - cosines.min() < BOUND_BFLOAT16 + 5e-5
    assert 1 - float(kept.vectors.vector @ full.vectors.vector) < BOUND_BFLOAT16


def test_versions_that_a_killed_run_on_a_cluster_left_together_are_one_again(
    model, versions, tmp_path
):
    old, new = versions
    one, two = (Index.open(tmp_path / name, model, window=WINDOW) for name in ("o", "t"))
    one.add(old)
    two.add(new)
    for name in ("chunks", "documents"):
        theirs = getattr(two._store.snapshot(), name).search().to_arrow()
        own = getattr(one._store.snapshot(), name)
        column = "hash" if name == "documents" else "document_hash"
        held = set(own.search().to_arrow()[column].to_pylist())
        own.add(theirs.filter(pa.array([each not in held for each in theirs[column].to_pylist()])))
    index = Index.open(tmp_path / "o", model)
    assert index.add(new).num_unchanged == 2
    assert len(index) == 2
    assert index.document("a").text == new[0].text
    assert index.num_chunks == two.num_chunks
