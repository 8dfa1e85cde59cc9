"""Targets of whole texts, against naive computation."""

from types import SimpleNamespace

import numpy as np
import pytest

from dewey_embed.train.recipe import PackageTeacher
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.teacher_requests import document_vectors_of

from .conftest import MINI
from .test_targets import WORDS, sample_of, unit


@pytest.fixture(scope="module")
def tokenizer():
    return start_tokenizer(MINI)


class WordTeacher:
    """The mean of a fixed random vector for each word."""

    name, dim = "words", 24

    def __init__(self):
        self._table = dict(zip(WORDS, np.random.default_rng(0).normal(size=(11, 24)), strict=True))

    def embed(self, texts):
        return unit(np.stack([sum(self._table[w] for w in text.split()) for text in texts]))


class TestWholes:
    CHUNKS = (" ".join(WORDS * 2), " ".join(WORDS[:5]), " ".join(WORDS[3:9]))

    def wholes(self, tokenizer, samples, long_texts, max_tokens=10):
        """Every word is one token, so that windows are known."""
        teacher = WordTeacher()
        chunks = [teacher.embed(sample.chunks()) for sample in samples]
        recipe = PackageTeacher(kind="package", max_tokens=max_tokens, long_texts=long_texts)
        return document_vectors_of(teacher, samples, chunks, tokenizer, recipe)

    def weighted(self, pieces):
        return unit(np.array([len(piece) for piece in pieces]) @ WordTeacher().embed(pieces))

    def test_long_texts_as_the_recipe_says(self, tokenizer):
        sample = sample_of("a", self.CHUNKS)
        words = sample.text.split()
        windows = [" ".join(words[first : first + 10]) for first in range(0, len(words), 10)]
        expected = {
            "truncate": WordTeacher().embed(windows[:1])[0],
            "mean_of_windows": self.weighted(windows),
            "mean_of_chunks": self.weighted(sample.chunks()),
        }
        for long_texts, vector in expected.items():
            [whole] = self.wholes(tokenizer, [sample], long_texts)
            np.testing.assert_allclose(whole, vector, atol=1e-6)
        assert len({tuple(vector.round(3)) for vector in expected.values()}) == 3

    @pytest.mark.parametrize("long_texts", ["truncate", "mean_of_windows", "mean_of_chunks"])
    def test_a_text_within_the_limit_is_asked_about_whole_and_order_is_kept(
        self, tokenizer, long_texts
    ):
        short = sample_of("b", [" ".join(WORDS[:4]), " ".join(WORDS[4:10])])
        long = sample_of("a", self.CHUNKS)
        wholes = self.wholes(tokenizer, [long, short, long], long_texts)
        np.testing.assert_allclose(wholes[1], WordTeacher().embed([short.text])[0], atol=1e-6)
        np.testing.assert_array_equal(wholes[0], wholes[2])
        np.testing.assert_allclose(np.linalg.norm(wholes, axis=1), 1, atol=1e-6)

    def test_a_text_that_is_one_chunk_is_not_asked_about_again(self, tokenizer):
        sample = sample_of("c", [" ".join(WORDS[:4])])
        [vector] = vectors = WordTeacher().embed(sample.chunks())
        recipe = PackageTeacher(kind="package", max_tokens=10, long_texts="truncate")
        nobody = SimpleNamespace(name="nobody", dim=24)  # has no `embed`
        [whole] = document_vectors_of(nobody, [sample], [vectors], tokenizer, recipe)
        np.testing.assert_allclose(whole, vector, atol=1e-6)
