"""Sentence Transformers' folders: its own vectors to 1e-5, or a refusal that says why."""

import json
import warnings

import numpy as np
import pytest
import torch

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError
from tests.model.random_folders import TEXTS, make_folder

pytest.importorskip("sentence_transformers")


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def theirs_of(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def compare(folder):
    """Why a folder is refused; None where all vectors are theirs, before and after a save."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of similarity functions and blank texts
        try:
            ours = Dewey.load(folder, dtype="float32")
        except CheckpointError as error:
            return str(error)
        theirs = theirs_of(folder)
        # A blank text without special tokens is nothing to either.
        texts = [text for text in TEXTS if text or any(ours.config.special_ids)]
        expected = unit(theirs.encode(texts))
        queries, documents = unit(theirs.encode_query(texts)), unit(theirs.encode_document(texts))
        ours.save(folder.with_name("saved"))
        again, their_again = Dewey.load(folder.with_name("saved"), dtype="float32"), None
        for model in (ours, again):
            got = model.encode(texts, overflow="truncate")
            np.testing.assert_allclose(got, expected, atol=1e-5)
            got = model.encode(texts, overflow="truncate", prompt=model.prompts["query"])
            np.testing.assert_allclose(got, queries, atol=1e-5)
            got = [each.vector for each in model.encode_document(texts, overflow="truncate")]
            np.testing.assert_allclose(got, documents, atol=1e-5)
        their_again = theirs_of(folder.with_name("saved"))
        np.testing.assert_allclose(unit(their_again.encode(texts)), expected, atol=1e-5)
        np.testing.assert_allclose(unit(their_again.encode_query(texts)), queries, atol=1e-5)
        assert their_again.max_seq_length == theirs.max_seq_length
        assert (their_again.default_prompt_name or None) == theirs.default_prompt_name
    return None


def check(tmp_path, seeds):
    refused = {}
    for seed in seeds:
        folder = tmp_path / str(seed) / "folder"
        make_folder(folder, seed)
        try:
            refused[seed] = compare(folder)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    reasons = [reason for reason in refused.values() if reason]
    assert len(seeds) / 2 < sum(reason is None for reason in refused.values())
    assert len(reasons) > len(seeds) / 20
    assert all(str(tmp_path) in reason and ".json" in reason for reason in reasons)
    return reasons


def test_a_hundred_random_folders_give_sentence_transformers_own_vectors_or_are_refused(tmp_path):
    check(tmp_path, range(100))


@pytest.mark.slow
def test_hundreds_of_random_folders_give_their_own_vectors_or_are_refused(tmp_path):
    reasons = "\n".join(check(tmp_path, range(1000, 1400)))
    for named in ("pooling mode", "use_residual", "Softplus", "LSTM", "truncation_side", "zebra"):
        assert named in reasons


@pytest.mark.parametrize("change", ["pooling", "prompts", "length", "normalize", "dimensions"])
def test_a_model_saved_by_sentence_transformers_over_ours_is_not_read_as_ours(tmp_path, change):
    make_folder(tmp_path / "made", 13)
    model = Dewey.load(tmp_path / "made", dtype="float32")
    model.save(tmp_path / "model")
    theirs = theirs_of(tmp_path / "model")
    if change == "pooling":
        theirs[1].pooling_mode = "cls" if theirs[1].pooling_mode == "mean" else "mean"
    elif change == "prompts":
        theirs.prompts["query"] = "another: "
    elif change == "length":
        theirs.max_seq_length = 17
    elif change == "normalize":
        theirs.insert(2, type(theirs[-1])())
    else:
        theirs.truncate_dim = 3
    theirs.save(str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match=r"dewey\.json: does not fit .* delete it"):
        Dewey.load(tmp_path / "model")
    (tmp_path / "model" / "dewey.json").unlink()
    again = Dewey.load(tmp_path / "model", dtype="float32")
    got, expected = again.encode(TEXTS[:2], overflow="truncate"), unit(theirs.encode(TEXTS[:2]))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_weights_that_sentence_transformers_trains_and_saves_over_ours_are_read(tmp_path):
    make_folder(tmp_path / "made", 13)
    Dewey.load(tmp_path / "made", dtype="float32").save(tmp_path / "model")
    theirs = theirs_of(tmp_path / "model")
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.1)
    theirs.save(str(tmp_path / "model"))
    got = Dewey.load(tmp_path / "model", dtype="float32").encode(TEXTS[:2])
    np.testing.assert_allclose(got, unit(theirs.encode(TEXTS[:2])), atol=1e-5)


def test_adapters_and_quantised_models_are_refused_by_name(tmp_path):
    make_folder(tmp_path / "model", 13)
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: an adapter"):
        Dewey.load(tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").unlink()
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text()) | {"quantization_config": {"load_in_8bit": True}}
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="quantization_config: a quantised model"):
        Dewey.load(tmp_path / "model")


def test_a_similarity_that_may_rank_otherwise_gets_a_warning(tmp_path):
    make_folder(tmp_path / "model", 5)
    path = tmp_path / "model" / "config_sentence_transformers.json"
    for name, warned in (("cosine", False), (None, False), ("manhattan", True)):
        path.write_text(json.dumps({"similarity_fn_name": name}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Dewey.load(tmp_path / "model")
        assert any("similarity_fn_name is 'manhattan'" in str(w.message) for w in caught) is warned
