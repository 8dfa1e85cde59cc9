"""`Dewey`: its vectors against naive pooling, its spans against the text."""

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters

from dewey_embed import Dewey, DeweyError, Document, files
from dewey_embed.chunking import TITLE_TOKENS
from dewey_embed.errors import (
    CheckpointError,
    ConfigError,
    SpanError,
    StatesNotKeptError,
    TextTooLongError,
)
from dewey_embed.model.folder import CHECKSUMS_FILE
from dewey_embed.model.packing import pack
from dewey_embed.single_vectors import SINGLE_VECTORS

WORDS = "The patents — all of them — belong to Ms. Okafor's heirs; see §4.2 (b). "
TEXTS = [
    WORDS * 3,
    "Kurz.",
    "Überall gilt: 你好 👋🏽 e\u0301t\u00e9\r\nzweite Zeile\x00 " * 5,
    WORDS * 12 + "\n\n" + "A closing paragraph about ships. " * 20,
]
SPLITTERS = ["tokens", "recursive", "words", lambda text: [(0, 5), (2, len(text))]]


@pytest.fixture(scope="module")
def model():
    return Dewey.load(dtype="float32")


def naive(model, text, spans):
    """Means over spans' tokens of the text encoded alone, projected token by token."""
    tokens = model.tokenizer.encode([text])[0]
    backbone = model.config.backbone
    ids = np.concatenate(([backbone.cls_token_id], tokens.ids, [backbone.sep_token_id]))
    with torch.inference_mode():
        projected = model.model.head(model.model(pack([ids])))[1:-1]
        rows = [projected[s.token_start : s.token_end].mean(0) for s in spans]
        whole = projected.mean(0)
        return [torch.nn.functional.normalize(row, dim=0).numpy() for row in [whole, *rows]]


@pytest.mark.parametrize("splitter", SPLITTERS, ids=["tokens", "recursive", "words", "callable"])
@pytest.mark.parametrize("order", [1, -1])
def test_chunks_equal_naive_pooling_of_the_document_encoded_alone(model, splitter, order):
    texts = TEXTS[::order]
    documents = model.encode_document(texts, chunk_tokens=40, chunk_overlap=12, splitter=splitter)
    for text, document in zip(texts, documents, strict=True):
        assert len(document.spans) == len(document.chunks) > 0
        whole, *chunks = naive(model, text, document.spans)
        np.testing.assert_allclose(document.vector, whole, atol=1e-5)
        np.testing.assert_allclose(document.chunks, chunks, atol=1e-5)


def test_explicit_ranges_give_one_row_each_in_their_order(model):
    ranges = [(4, 11), (0, 40)]
    document = model.encode_document(TEXTS[0], spans=ranges)
    assert [TEXTS[0][s.char_start : s.char_end] for s in document.spans] == [
        "patents",
        TEXTS[0][:40].strip(),
    ]
    np.testing.assert_allclose(
        document.chunks, naive(model, TEXTS[0], document.spans)[1:], atol=1e-5
    )


def test_every_text_has_spans_of_its_own(model):
    spans = [[(0, 5)], [], [(3, 9), (0, 6)], [(4, 11)]]
    documents = model.encode_document(TEXTS, spans=spans)
    assert [len(document.spans) for document in documents] == [1, 0, 2, 1]
    alone = model.encode_document(TEXTS[2], spans=spans[2])
    np.testing.assert_allclose(documents[2].chunks, alone.chunks, atol=1e-6)
    with pytest.raises(SpanError, match=r"text 1: range 0 .*5 characters"):
        model.encode_document(TEXTS[:2], spans=[[(0, 5)], [(0, 99)]])


def test_several_granularities_come_from_one_pass(model):
    both = model.encode_document(TEXTS[3], chunk_tokens=(32, 128), chunk_overlap=(8, 0))
    for level, (size, overlap) in enumerate([(32, 8), (128, 0)]):
        alone = model.encode_document(TEXTS[3], chunk_tokens=size, chunk_overlap=overlap)
        chunks, spans = both.at(level)
        assert spans == alone.spans
        np.testing.assert_allclose(chunks, alone.chunks, atol=1e-6)


def test_any_range_can_be_pooled_later_from_kept_states(model):
    document = model.encode_document(TEXTS[3], keep_states=True)
    ranges = [(4, 300), (100, 101), (0, len(TEXTS[3]))]  # the text ends in white space
    fresh = model.encode_document(TEXTS[3], spans=ranges)
    np.testing.assert_allclose(document.pool(ranges), fresh.chunks, atol=1e-6)
    with pytest.raises(StatesNotKeptError, match="keep_states=True"):
        fresh.pool(ranges)
    with pytest.raises(SpanError, match="range 0"):
        document.pool([(5, 5)])


def test_a_long_text_is_read_in_windows_and_the_result_says_so(model):
    short = Dewey.load(dtype="float32", max_tokens=100)
    document = short.encode_document(TEXTS[3], chunk_tokens=24, chunk_overlap=6, keep_states=True)
    assert document.overflow == "windows"
    assert document.used_tokens == document.num_tokens > 300
    assert len(document.spans) == len(document.chunks)
    assert document.spans[-1].token_end == document.num_tokens
    # Local layers see little past a chunk: windows change its vector, but not much.
    whole = model.encode_document(TEXTS[3], chunk_tokens=24, chunk_overlap=6)
    assert (document.chunks * whole.chunks).sum(1).min() > 0.95
    ranges = [(s.char_start, s.char_end) for s in document.spans]
    np.testing.assert_allclose(document.pool(ranges), document.chunks, atol=1e-6)


def test_a_title_is_read_above_a_text_and_is_in_no_span(model):
    text, title = TEXTS[0], "On tides"
    document = model.encode_document(text, titles=title, chunk_tokens=24, chunk_overlap=6)
    plain = model.encode_document(text, chunk_tokens=24, chunk_overlap=6)
    assert document.spans == plain.spans
    assert document.num_tokens == plain.num_tokens
    joined = f"{title}\n\n{text}"
    ranges = [(s.char_start + len(title) + 2, s.char_end + len(title) + 2) for s in plain.spans]
    whole = model.encode_document(joined, spans=[*ranges, (len(title) + 2, len(joined))])
    np.testing.assert_allclose(document.chunks, whole.chunks[:-1], atol=1e-6)
    np.testing.assert_allclose(document.vector, whole.chunks[-1], atol=1e-6)
    assert np.abs(document.chunks - plain.chunks).max() > 1e-3


def test_a_title_is_read_above_every_window():
    short = Dewey.load(dtype="float32", max_tokens=100)
    options = {"chunk_tokens": 24, "chunk_overlap": 6}
    titled = short.encode_document(TEXTS[3], titles="Tides", **options)
    plain = short.encode_document(TEXTS[3], **options)
    assert titled.overflow == plain.overflow == "windows"
    assert (np.abs(titled.chunks - plain.chunks).max(1) > 1e-3).all()


def test_titles_are_one_for_each_text_from_any_iterable(model):
    texts = [TEXTS[0], TEXTS[1]]
    apart = [model.encode_document(texts[0]), model.encode_document(texts[1], titles="Tides")]
    for titles in (["", "Tides"], (each for each in ("", "Tides")), np.array(["", "Tides"])):
        both = model.encode_document(texts, titles=titles)
        for one, other in zip(both, apart, strict=True):
            np.testing.assert_allclose(one.chunks, other.chunks, atol=1e-6)
    with pytest.raises(ConfigError, match="1 titles, but there are 2 texts"):
        model.encode_document(texts, titles=["Tides"])
    for wrong in ("Tides", {"a": "Tides", "b": ""}, {"Tides", ""}, b"ab", 7):
        with pytest.raises(TypeError, match="pass a string for each text"):
            model.encode_document(texts, titles=wrong)
    with pytest.raises(TypeError, match=r"titles\[1\] is None, not str; pass a string"):
        model.encode_document(texts, titles=["Tides", None])
    with pytest.raises(TypeError, match="titles is 7, not str"):
        model.encode_document(texts[0], titles=7)


def test_the_title_of_a_document_is_read_where_it_is_given(model):
    document = Document(id="1", title="Tides", text=TEXTS[0])
    untitled = model.encode_document(TEXTS[0])
    np.testing.assert_array_equal(model.encode_document(document).chunks, untitled.chunks)
    titled = model.encode_document(document, titles=document.title)
    expected = model.encode_document(TEXTS[0], titles="Tides")
    np.testing.assert_array_equal(titled.chunks, expected.chunks)


def test_titles_that_are_cut_are_counted(model):
    texts, longest = [TEXTS[0]] * 3, "sea " * (TITLE_TOKENS - 1)  # its mark is one, too
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = model.encode_document(texts[0], titles=longest)
    said = r"2 of 3 titles are longer than the 64 .*\(positions 0, 2\): .* shorter ones$"
    with pytest.warns(UserWarning, match=said) as caught:
        cut = model.encode_document(texts, titles=["sea " * 9000, "Tides", "sea " * 65])
    assert caught[0].filename == __file__
    np.testing.assert_allclose(cut[0].chunks, whole.chunks, atol=1e-6)
    np.testing.assert_allclose(cut[2].chunks, whole.chunks, atol=1e-6)


@given(window=st.integers(8, 40), words=st.integers(0, 30), prompt=st.sampled_from(["", "a b: "]))
@settings(max_examples=40, deadline=None)
def test_no_window_is_longer_than_the_limit_whatever_the_title(model, window, words, prompt):
    options = {"window": window, "prompt": prompt}
    [plain] = model.prepare([TEXTS[3]], **options).requests
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [titled] = model.prepare([TEXTS[3]], titles=["sea " * words], **options).requests
    around = 2 + len(plain.tokens.prompt_ids)
    num_title = len(titled.tokens.prompt_ids) - len(plain.tokens.prompt_ids)
    quarter = (window - around) // 4
    assert num_title == (min(words + 1, quarter) if words and quarter > 1 else 0)
    for request, size in ((plain, window - around), (titled, window - around - num_title)):
        assert np.diff(request.windows, axis=1).max() == size


def test_a_window_that_the_prompt_fills_is_refused(model):
    with pytest.raises(ConfigError, match=r"window is 6 and the prompt has 3 tokens.* larger"):
        model.encode_document(TEXTS[3], window=6, prompt="a b: ")
    assert len(model.encode_document(TEXTS[3], window=7, prompt="a b: ").spans)


def test_a_range_longer_than_any_window_is_pooled_from_several(model):
    short = Dewey.load(dtype="float32", max_tokens=60)
    length = len(TEXTS[3])
    document = short.encode_document(TEXTS[3], spans=[(0, length), (0, 50)])
    np.testing.assert_allclose(document.chunks[0], document.vector, atol=1e-6)


def test_a_truncated_text_keeps_to_the_limit_and_counts_used_tokens():
    short = Dewey.load(max_tokens=100)
    document = short.encode_document(TEXTS[3], chunk_tokens=30, overflow="truncate")
    assert (document.overflow, document.used_tokens) == ("truncate", 98)
    assert document.num_tokens > 98
    assert document.spans[-1].token_end == 98
    with pytest.raises(SpanError, match="text 0"):
        short.encode_document(TEXTS[3], spans=[(0, len(TEXTS[3]))], overflow="truncate")


def test_overflow_error_refuses_a_text_past_the_limit():
    short = Dewey.load(max_tokens=100)
    with pytest.raises(TextTooLongError, match=r"text 1: .* the limit is 98"):
        short.encode_document(["fits", TEXTS[3]], overflow="error")


@pytest.mark.parametrize("method", ["encode", "encode_document"])
def test_the_warning_of_a_blank_text_points_at_the_callers_line(model, method):
    with pytest.warns(UserWarning, match="hold no token") as caught:
        getattr(model, method)(["", "words"])
    assert caught[0].filename == __file__


def test_a_blank_text_gets_a_vector_no_chunks_and_a_warning(model):
    with pytest.warns(UserWarning, match="2 of 3 texts hold no token"):
        documents = model.encode_document(["", "words", " \n\t "])
    for document in (documents[0], documents[2]):
        assert document.chunks.shape == (0, 384)
        assert document.spans == []
        assert np.linalg.norm(document.vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(documents[0].vector, documents[2].vector, atol=1e-6)


def test_items_other_than_strings_are_refused_by_position(model):
    with pytest.raises(TypeError, match=r"1.*int"):
        model.encode_document(["fine", 7])
    with pytest.raises(TypeError, match=r"0.*bytes"):
        model.encode_query([b"bytes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens 0"),
        ({"chunk_tokens": 10, "chunk_overlap": 10}, "chunk_overlap 10"),
        ({"overflow": "wrap"}, "overflow"),
        ({"precision": "int4"}, "precision"),
        ({"splitter": "pages"}, "pages"),
        ({"prompt_name": "title"}, "title"),
        ({"spans": [[(0, 1)], [(0, 1)]]}, "2 texts"),
        ({"splitter": [[(0, 1)]]}, "pass ranges of characters as spans="),
        ({"splitter": "words", "spans": [[(0, 1)]]}, "splitter and spans are both given"),
    ],
)
def test_an_impossible_option_is_refused(model, options, message):
    with pytest.raises(DeweyError, match=message):
        model.encode_document(["some text"], **options)


def test_impossible_load_options_are_refused():
    for options in ({"truncate_dim": 9999}, {"dtype": "int3"}, {"max_tokens": 10**9}):
        with pytest.raises(ConfigError):
            Dewey.load(**options)
    with pytest.raises(CheckpointError, match="no such folder"):
        Dewey.load("./nowhere")


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "binary"])
def test_every_precision_ranks_alike_and_has_its_size(model, precision):
    width, dtype = {
        "float32": (384, np.float32),
        "float16": (384, np.float16),
        "int8": (384, np.int8),
        "binary": (48, np.int8),
    }[precision]
    documents = model.encode_document(TEXTS, precision=precision)
    assert documents[3].chunks.shape[1] == width
    assert documents[3].chunks.dtype == dtype
    queries = model.encode_query(["who owns the patents?"])
    scores = model.similarity(queries, documents)
    exact = model.similarity(queries, model.encode_document(TEXTS))
    assert scores.shape == (1, 4)
    tolerance = {"float32": 1e-6, "float16": 1e-3, "int8": 1e-2, "binary": 0.2}[precision]
    np.testing.assert_allclose(scores, exact, atol=tolerance)


def test_similarity_multi_is_mostly_the_best_chunk_and_single_the_document_vector(model):
    documents = model.encode_document(TEXTS, chunk_tokens=20)
    queries = model.encode_query(["closing paragraph", "greetings"])
    multi = model.similarity(queries, documents)
    single = model.similarity(queries, documents, mode="single")
    for column, document in enumerate(documents):
        best = (queries @ document.chunks.T).max(1)
        np.testing.assert_allclose(
            multi[:, column], 0.75 * best + 0.25 * single[:, column], atol=1e-6
        )
        np.testing.assert_allclose(single[:, column], queries @ document.vector, atol=1e-6)
    with pytest.raises(ConfigError, match="multi, single"):
        model.similarity(queries, documents, mode="best")


RENT, SHIPS = "The tenant pays the rent by the month. ", "Ships carry timber over the sea. "


@pytest.fixture(scope="module")
def topical():
    return Dewey.load(dtype="float32", single_vector="topics")


def test_topics_have_a_vector_each_beside_the_mean(model, topical):
    text = RENT * 120 + SHIPS * 30
    document, plain = topical.encode_document(text), model.encode_document(text)
    np.testing.assert_allclose(document.vector, plain.vector, atol=1e-6)
    np.testing.assert_allclose(document.chunks, plain.chunks, atol=1e-6)
    assert plain.vectors is None
    assert document.vectors.shape == (2, 384)
    query = topical.encode_query("what do ships carry?")
    assert query.shape == (384,)
    single = topical.similarity(query, document, mode="single")
    np.testing.assert_allclose(single, [[(document.vectors @ query).max()]], atol=1e-6)
    assert single[0, 0] > plain.vector @ query + 0.1
    multi = topical.similarity(query, document)
    np.testing.assert_allclose(multi, model.similarity(query, plain), atol=1e-6)


def test_one_vector_of_texts_with_topics_is_their_mean(model, topical):
    texts = [RENT * 60 + SHIPS * 60, RENT]
    np.testing.assert_allclose(topical.encode(texts), model.encode(texts), atol=1e-6)
    np.testing.assert_allclose(topical.encode(texts[0]), model.encode(texts[0]), atol=1e-6)


def test_topics_are_those_of_each_text_of_a_batch(topical):
    texts = [RENT * 60 + SHIPS * 60, RENT, SHIPS * 200 + RENT * 30 + SHIPS * 90]
    documents = topical.encode_document(texts)
    assert [len(each.vectors) for each in documents] == [2, 1, 3]
    for text, document in zip(texts, documents, strict=True):
        alone = topical.encode_document(text, spans=[])
        np.testing.assert_allclose(document.vectors, alone.vectors, atol=1e-5)
    np.testing.assert_array_equal(documents[1].vectors, documents[1].vector[None])


def test_topics_of_a_blank_text_are_its_own_vector(topical):
    with pytest.warns(UserWarning, match="hold no token"):
        document = topical.encode_document("")
    np.testing.assert_array_equal(document.vectors, document.vector[None])


@pytest.mark.parametrize("precision", ["float16", "int8", "binary"])
def test_topics_have_the_precision_and_width_of_chunks(precision):
    model = Dewey.load(dtype="float32", single_vector="topics", truncate_dim=64)
    text = RENT * 60 + SHIPS * 60
    document = model.encode_document(text, precision=precision)
    assert document.vectors.shape == (2, *document.chunks.shape[1:])
    assert document.vectors.dtype == document.chunks.dtype
    scores = model.similarity(model.encode_query("timber"), document, mode="single")
    exact = model.similarity(
        model.encode_query("timber"), model.encode_document(text), mode="single"
    )
    np.testing.assert_allclose(scores, exact, atol=0.25 if precision == "binary" else 0.02)


def test_topics_are_of_windows_that_keep_parts_of_long_documents_apart(model, topical, monkeypatch):
    assert topical.config.window == 8192
    assert model.config.window == 131_072
    kind = replace(SINGLE_VECTORS["topics"], window=512)
    monkeypatch.setitem(SINGLE_VECTORS, "topics", kind)
    text = RENT * 60 + SHIPS * 60
    document = topical.encode_document(text)
    assert document.overflow is None
    apart = topical.encode_document(text, window=512)
    np.testing.assert_array_equal(document.vectors, apart.vectors)
    # Windows overlap by the longest chunk, and here there is none.
    np.testing.assert_allclose(topical.encode(text), document.vector, atol=3e-3)
    plain = model.encode_document(text)
    assert np.abs(plain.vector - document.vector).max() > 5e-3
    whole = topical.encode_document(text, window=131_072)
    np.testing.assert_allclose(whole.vector, plain.vector, atol=1e-5)


def test_topics_do_not_depend_on_the_chunks_or_on_windows_that_hold_them(topical):
    text = RENT * 120 + SHIPS * 120
    one = topical.encode_document(text).vectors
    for options in ({"chunk_tokens": 32}, {"spans": [(0, 9)]}, {"splitter": "sentence"}):
        other = topical.encode_document(text, **options).vectors
        np.testing.assert_allclose(other, one, atol=1e-5)
    assert topical.encode_document(text, window=512).vectors.shape == one.shape


@pytest.mark.parametrize("kind", ["cls", "mean", "cls_add_mean"])
def test_single_vector_is_chosen_at_load(model, kind):
    cls = Dewey.load(dtype="float32", single_vector="cls").encode_document(TEXTS[0]).vector
    mean = model.encode_document(TEXTS[0]).vector
    both = (cls + mean) / np.linalg.norm(cls + mean)
    got = Dewey.load(dtype="float32", single_vector=kind).encode_document(TEXTS[0]).vector
    np.testing.assert_allclose(
        got, {"cls": cls, "mean": mean, "cls_add_mean": both}[kind], atol=1e-5
    )


def test_the_model_reads_prompts_but_chunks_leave_them_out(model):
    plain = model.encode_document(TEXTS[0], chunk_tokens=30)
    prompted = model.encode_document(TEXTS[0], chunk_tokens=30, prompt="Candidate document: ")
    assert plain.spans == prompted.spans
    assert plain.num_tokens == prompted.num_tokens
    assert not np.allclose(plain.chunks, prompted.chunks, atol=1e-4)
    assert (plain.chunks * prompted.chunks).sum(1).min() > 0.9


def test_truncated_dimensions_are_the_first_ones_at_unit_length(model):
    short = Dewey.load(dtype="float32", truncate_dim=64)
    whole, narrow = model.encode_document(TEXTS[0]), short.encode_document(TEXTS[0])
    expected = whole.vector[:64] / np.linalg.norm(whole.vector[:64])
    np.testing.assert_allclose(narrow.vector, expected, atol=1e-6)
    assert short.get_embedding_dimension() == 64
    assert short.fingerprint != model.fingerprint


def test_the_fingerprint_hashes_weights_once_until_their_file_changes(tmp_path, monkeypatch, model):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_SETTLED_NS", -1)
    hashed = []
    plain = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path.name) or plain(path))
    folder = tmp_path / "model"
    Dewey.load(single_vector="cls").save(folder)
    (folder / CHECKSUMS_FILE).unlink()  # so that other weights are another model, and no damage
    first, again = Dewey.load(folder).fingerprint, Dewey.load(folder).fingerprint
    assert first == again
    assert hashed.count("model.safetensors") == 3, "the backbone's once, the small head's twice"
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert Dewey.load(folder).fingerprint != first


def test_encode_has_the_shapes_of_sentence_transformers(model):
    assert model.encode("one string").shape == (384,)
    assert model.encode(["a", "b", "c"]).shape == (3, 384)
    assert model.encode([]).shape == (0, 384)
    np.testing.assert_allclose(
        model.encode(TEXTS), [d.vector for d in model.encode_document(TEXTS)], atol=1e-6
    )


def test_encode_makes_no_chunks(model, monkeypatch):
    expected = model.encode(TEXTS)
    monkeypatch.setattr("dewey_embed.encoder.chunk_texts", None)
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    with pytest.raises(ConfigError, match="overflow"):
        model.encode(TEXTS, overflow="drop")


def test_progress_counts_every_token_once(model):
    seen = []
    documents = model.encode_document(TEXTS, batch_tokens=64, progress=seen.append)
    assert sum(seen) == sum(document.num_tokens for document in documents)
    assert len(seen) > 1


def test_progress_moves_within_one_long_pass(model, monkeypatch):
    monkeypatch.setattr("dewey_embed.model.inference.LONG_ROW", 20)
    seen = []
    document = model.encode_document(" ".join(TEXTS), progress=seen.append)
    assert len(seen) == len(model.model.backbone.layers)
    assert min(seen) > 0
    assert sum(seen) == document.num_tokens


def test_batches_larger_than_memory_are_halved(model, monkeypatch):
    """No GPU is needed to run out of its memory: the model raises the error, as torch would."""
    expected = [model.encode_document(text) for text in TEXTS]
    forward, tried, seen = model.model.forward, [], []

    def with_little_memory(packed, limit=450):
        tried.append(len(packed.ids_T))
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(packed)

    monkeypatch.setattr(model.model, "forward", with_little_memory)
    documents = model.encode_document(TEXTS, progress=seen.append)
    assert tried[0] > 450
    assert max(tried[-2:]) <= 450
    assert sum(seen) == sum(document.num_tokens for document in documents)
    for document, alone in zip(documents, expected, strict=True):
        np.testing.assert_allclose(document.vector, alone.vector, atol=1e-5)
        np.testing.assert_allclose(document.chunks, alone.chunks, atol=1e-5)
    with pytest.raises(TextTooLongError, match=r"2,702 tokens in one pass.*max_tokens"):
        model.encode(WORDS * 100)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++ on a CPU")
def test_a_compiled_model_gives_the_same_vectors(model, monkeypatch):
    monkeypatch.setenv("DEWEY_NATIVE", "0")  # our kernels would be used instead
    compiled = Dewey.load(dtype="float32", compile_layers=True)
    before = counters["frames"]["ok"]
    for text in TEXTS[2:]:
        np.testing.assert_allclose(compiled.encode(text), model.encode(text), atol=1e-5)
    assert counters["frames"]["ok"] > before, "nothing was compiled"


ANY_TEXT = st.text(
    st.characters() | st.sampled_from(" \n\r\t\x00.,'👋🏽é\u0301\u200d\ud800中ß"), max_size=300
)


@given(
    text=ANY_TEXT,
    size=st.integers(2, 40),
    splitter=st.sampled_from(["tokens", "recursive", "words"]),
)
@settings(max_examples=300, deadline=None)
def test_for_any_text_a_chunks_characters_hold_its_tokens(model, text, size, splitter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = model.encode_document(text, chunk_tokens=size, splitter=splitter)
    assert len(document.spans) == len(document.chunks)
    tokens = model.tokenizer.encode([text])[0]
    assert document.num_tokens == document.used_tokens == len(tokens)
    covered = np.zeros(len(tokens), bool)
    for span in document.spans:
        covered[span.token_start : span.token_end] = True
        inside = tokens.offsets[span.token_start : span.token_end]
        assert span.char_start == inside[0, 0]
        assert span.char_end == inside[-1, 1]
        again = model.tokenizer.encode([text[span.char_start : span.char_end]])[0]
        assert len(again) >= 1
    assert covered.all()
    assert all(a.token_start < b.token_start for a, b in pairwise(document.spans))
    assert np.isfinite(document.chunks).all()


def test_loading_a_model_and_encoding_a_query_do_not_import_torchs_compiler():
    code = (
        "import sys; from dewey_embed import Dewey; Dewey.load().encode_query('x'); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ranges_may_come_from_generators(model):
    pairs = [(0, 5), (6, 11)]
    one = model.encode_document(TEXTS[0], spans=(pair for pair in pairs))
    [listed] = model.encode_document(TEXTS[:1], spans=(iter(pairs) for _ in "x"))
    assert one.spans == listed.spans == model.encode_document(TEXTS[0], spans=pairs).spans


@pytest.mark.parametrize(
    ("texts", "spans", "message"),
    [
        (TEXTS[0], 5, "spans is 5; pass a list of"),
        (TEXTS[:1], 5, r"spans is 5; pass a list of .* for each text"),
        (TEXTS[:1], [(0, 3)], "one list of ranges for a list of texts"),
    ],
)
def test_spans_of_another_shape_are_named(model, texts, spans, message):
    with pytest.raises(TypeError, match=message):
        model.encode_document(texts, spans=spans)


def test_a_range_past_every_text_is_named_as_it_was_given(model):
    with pytest.raises(SpanError, match=str(10**30)):
        model.encode_document(TEXTS[0], spans=[(0, 10**30)])


@pytest.mark.parametrize("granularity", [2, -1, "first", 0.5, True])
def test_an_unknown_granularity_is_refused(model, granularity):
    document = model.encode_document(TEXTS[0], chunk_tokens=(8, 16))
    with pytest.raises(ConfigError, match=r"granularity is .* from 0 to 1"):
        document.at(granularity)


def test_a_blank_text_has_no_chunks_of_any_granularity(model):
    with pytest.warns(UserWarning, match="no token"):
        document = model.encode_document("", chunk_tokens=(8, 16))
    assert document.at(1)[0].shape == (0, 384)
