"""Sentence Transformers' folders: its own vectors to 1e-5, or a refusal that says why."""

import warnings

import numpy as np
import pytest

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
        warnings.simplefilter("ignore")  # of similarity functions
        try:
            ours = Dewey.load(folder, dtype="float32")
        except CheckpointError as error:
            return str(error)
        theirs = theirs_of(folder)
        expected = unit(theirs.encode(TEXTS))
        queries, documents = unit(theirs.encode_query(TEXTS)), unit(theirs.encode_document(TEXTS))
        ours.save(folder.with_name("saved"))
        again, their_again = Dewey.load(folder.with_name("saved"), dtype="float32"), None
        for model in (ours, again):
            got = model.encode(TEXTS, overflow="truncate")
            np.testing.assert_allclose(got, expected, atol=1e-5)
            got = model.encode(TEXTS, overflow="truncate", prompt=model.prompts["query"])
            np.testing.assert_allclose(got, queries, atol=1e-5)
            got = [each.vector for each in model.encode_document(TEXTS, overflow="truncate")]
            np.testing.assert_allclose(got, documents, atol=1e-5)
        their_again = theirs_of(folder.with_name("saved"))
        np.testing.assert_allclose(unit(their_again.encode(TEXTS)), expected, atol=1e-5)
        np.testing.assert_allclose(unit(their_again.encode_query(TEXTS)), queries, atol=1e-5)
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
