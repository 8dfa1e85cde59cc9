"""Inputs of `Dewey`: each gives right vectors, or an error that names the fault."""

import inspect
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from dewey_embed import Dewey, Document, Hit, Passage
from dewey_embed.encoder import DocumentOptions
from dewey_embed.errors import ConfigError, InputError
from tests.model.random_folders import make_folder

TEXTS = ["Ships carry timber.", "The tenant pays the rent."]


@pytest.fixture(scope="module")
def model():
    return Dewey.load(dtype="float32")


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_any_iterable_of_texts_is_encoded_in_its_order(model, method):
    encode = getattr(model, method)
    expected = [np.asarray(getattr(each, "vector", each)) for each in encode(TEXTS)]
    for texts in (tuple(TEXTS), iter(TEXTS), (text for text in TEXTS), np.array(TEXTS)):
        got = [np.asarray(getattr(each, "vector", each)) for each in encode(texts)]
        np.testing.assert_array_equal(got, expected)


def test_a_document_stands_for_its_text(model):
    documents = [Document(id=str(number), text=text) for number, text in enumerate(TEXTS)]
    expected = model.encode_document(TEXTS)
    for got, each in zip(model.encode_document(documents), expected, strict=True):
        np.testing.assert_array_equal(got.chunks, each.chunks)
    alone = model.encode_document(documents[0])
    np.testing.assert_allclose(alone.vector, expected[0].vector, atol=1e-6)
    assert model.encode(documents[0]).shape == (384,)


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": "text"}, "texts is a dict"),
        ({"a", "b"}, "texts is a set"),
        (b"bytes", "texts is a bytes"),
        (None, "texts is NoneType"),
        (3, "texts is int"),
        (["text", b"bytes"], r"texts\[1\] is bytes"),
        (["text", None], r"texts\[1\] is NoneType"),
        ([float("nan")], r"texts\[0\] is float"),
        ([["nested"]], r"texts\[0\] is list"),
        ([Path("file.txt")], r"texts\[0\] is PosixPath"),
    ],
)
def test_texts_of_another_type_are_refused_by_name(model, method, texts, message):
    with pytest.raises(TypeError, match=message):
        getattr(model, method)(texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens"),
        ({"chunk_tokens": -3}, "chunk_tokens"),
        ({"chunk_tokens": None}, "chunk_tokens is None"),
        ({"chunk_tokens": "128"}, "chunk_tokens is '128'"),
        ({"chunk_tokens": 12.5}, "chunk_tokens is 12.5"),
        ({"chunk_tokens": True}, "chunk_tokens is True"),
        ({"chunk_tokens": []}, "names no size"),
        ({"chunk_overlap": 500}, "chunk_overlap"),
        ({"chunk_overlap": "4"}, "chunk_overlap is '4'"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"batch_tokens": -1}, "batch_tokens is -1"),
        ({"batch_tokens": "many"}, "batch_tokens is 'many'"),
        ({"precision": "float8"}, "precision"),
        ({"overflow": "drop"}, "overflow"),
        ({"prompt_name": "unknown"}, "prompt_name 'unknown'"),
    ],
)
def test_impossible_options_are_refused_by_name(model, options, message):
    with pytest.raises(ConfigError, match=message):
        model.encode_document(TEXTS, **options)


def test_a_prompt_of_another_type_is_refused(model):
    with pytest.raises(TypeError, match="prompt is int"):
        model.encode_query(TEXTS, prompt=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device 'gpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
        ({"device": "meta"}, "device 'meta'"),
        ({"device": "cpu:x"}, "device 'cpu:x'"),
        ({"dtype": "float8"}, "dtype 'float8'"),
        ({"truncate_dim": 385}, "truncate_dim is 385"),
        ({"truncate_dim": 0}, "truncate_dim is 0; give a number from 1 to"),
        ({"truncate_dim": 2.5}, "truncate_dim is 2.5"),
        ({"truncate_dim": True}, "truncate_dim is True"),
        ({"max_tokens": 10**9}, "max_tokens is 1000000000"),
        ({"max_tokens": 2}, "max_tokens"),
        ({"single_vector": "last"}, "single_vector"),
    ],
)
def test_impossible_options_of_load_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        Dewey.load(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_without_cuda_the_error_names_the_remedy():
    with pytest.raises(ConfigError, match=r"device 'cuda' cannot be used .*CPU"):
        Dewey.load(device="cuda")


def test_one_document_is_compared_as_a_list_of_one(model):
    queries, documents = model.encode_query(TEXTS), model.encode_document(TEXTS)
    one = model.similarity(queries, documents[0])
    assert one.shape == (2, 1)
    np.testing.assert_array_equal(one, model.similarity(queries, documents)[:, :1])
    rows = [document.vector for document in documents]
    expected = model.similarity(queries, documents, mode="single")
    np.testing.assert_allclose(model.similarity(list(queries), rows), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_not_compared(model, bad):
    queries, document = model.encode_query(TEXTS), model.encode_document(TEXTS[0])
    queries[1, 3] = bad
    with pytest.raises(InputError, match="queries"):
        model.similarity(queries, document)
    document.chunks[0, 0] = bad
    with pytest.raises(InputError, match="document 0"):
        model.similarity(queries[0], document)
    with pytest.raises(InputError, match="documents"):
        model.similarity(queries[0], queries)


@pytest.mark.parametrize("shape", [(2, 383), (3,), (0,)])
def test_vectors_of_another_width_are_not_compared(model, shape):
    with pytest.raises(ConfigError, match=f"width {shape[-1]}"):
        model.similarity(np.zeros(shape, np.float32), model.encode_document(TEXTS))


def test_the_typed_options_are_those_of_encode_document():
    parameters = inspect.signature(Dewey.encode_document).parameters.values()
    names = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert set(DocumentOptions.__annotations__) == names


def test_reprs_are_short(model):
    document = model.encode_document(TEXTS[0] * 50, keep_states=True)
    assert len(repr(document)) < 200
    assert len(repr(model)) < 200
    assert "mini" in repr(model)
    text = "The tenant pays the rent. " * 10_000
    passage = Passage(
        document_id="a", number=0, score=0.7, char_start=0, char_end=len(text), text=text
    )
    hit = Hit(
        document_id="lease", score=0.7, title="", source="", metadata={}, passages=[passage] * 9
    )
    assert len(repr(Document(id="lease", text=text))) < 200
    assert len(repr(passage)) < 200
    assert len(repr(hit)) < 2000


def test_a_model_that_overflows_names_the_text_instead_of_returning_nan(tmp_path):
    make_folder(tmp_path / "model", 13)
    model = Dewey.load(tmp_path / "model", dtype="bfloat16")
    with torch.no_grad():
        model.model.backbone.layers[0].mlp.Wo.weight.fill_(torch.finfo(model.dtype).max)
    message = r"text 0: its vectors are not finite: in bfloat16, backbone\.layers\.0\.mlp\.Wo"
    for encode in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(InputError, match=message):
            encode(["ships"])


def _encode(model, pipe):
    pipe.send(model.encode(TEXTS * 40))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.parametrize("native", ["0", "1"])
def test_a_process_forked_after_encoding_encodes_the_same(model, monkeypatch, native):
    monkeypatch.setenv("DEWEY_NATIVE", native)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = model.encode(TEXTS * 40)
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_encode, args=(model, there))
        child.start()
        try:
            assert here.poll(60), "the child hangs"
            np.testing.assert_allclose(here.recv(), expected, atol=1e-5)
            child.join(20)
            assert child.exitcode == 0
        finally:
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
        np.testing.assert_allclose(model.encode(TEXTS * 40), expected, atol=1e-5)
    finally:
        torch.set_num_threads(threads)
