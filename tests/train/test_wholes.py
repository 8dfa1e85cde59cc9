"""Targets of whole texts and of parts of chunks, against naive computation."""

from types import SimpleNamespace

import numpy as np
import pytest

from dewey_embed.errors import ConfigError
from dewey_embed.train.parts import chunk_and_part_vectors
from dewey_embed.train.samples import Draw, Sample
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.train.teachers.recipe import PackageTeacher
from dewey_embed.train.wholes import whole_vectors

from .conftest import MINI
from .test_targets import WORDS, sample_of, unit


@pytest.fixture(scope="module")
def tokenizer():
    return start_tokenizer(MINI)


@pytest.fixture(scope="module")
def mini_lm():
    return MiniLM(max_tokens=254, device="cpu")


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
        return whole_vectors(teacher, samples, chunks, tokenizer, recipe)

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
        [whole] = whole_vectors(nobody, [sample], [vectors], tokenizer, recipe)
        np.testing.assert_allclose(whole, vector, atol=1e-6)


class TestParts:
    TEXTS = ("The lighthouse keeper writes down every ship.", "Naïve café, 3,14159 tides a day.")

    def answer(self, mini_lm, tokenizer, part_tokens, *samples):
        samples = samples or (sample_of("a", self.TEXTS),)
        return chunk_and_part_vectors(mini_lm, samples, tokenizer, part_tokens)

    @pytest.mark.parametrize("part_tokens", [1, 3, 4])
    def test_parts_tile_their_chunks_and_together_give_their_vectors(
        self, mini_lm, tokenizer, part_tokens
    ):
        [(vectors, bounds, parts)] = self.answer(mini_lm, tokenizer, part_tokens)
        np.testing.assert_allclose(vectors, mini_lm.embed(self.TEXTS), atol=2e-2)
        sizes = [len(own) for own in tokenizer.encode(list(self.TEXTS))]
        tiles = [
            (low, min(low + part_tokens, end))
            for end, size in zip(np.cumsum(sizes), sizes, strict=True)
            for low in range(end - size, end, part_tokens)
        ]
        assert bounds.tolist() == [list(tile) for tile in tiles]
        np.testing.assert_allclose(np.linalg.norm(parts, axis=1), 1, atol=1e-5)
        for row, first in enumerate((0, sizes[0])):
            mine = (bounds[:, 0] >= first) & (bounds[:, 0] < first + sizes[row])
            mean = unit((bounds[mine, 1] - bounds[mine, 0]) @ parts[mine])
            assert mean @ vectors[row] > 0.95

    def test_one_part_as_long_as_its_chunk_is_the_chunk(self, mini_lm, tokenizer):
        [(vectors, bounds, parts)] = self.answer(mini_lm, tokenizer, 500)
        assert len(bounds) == 2
        np.testing.assert_allclose(parts, vectors, atol=1e-5)

    def test_a_chunk_that_the_teacher_reads_otherwise_has_no_parts(self, mini_lm, tokenizer):
        cut, whole = (0, 7), (15, 21)  # through "lighthouse"; "keeper"
        draw = Draw(0, 64, "tokens", 4, 0)
        sample = Sample("c", "here", self.TEXTS[0], [cut, whole], draw)
        other, answer = self.answer(mini_lm, tokenizer, 2, sample_of("a", self.TEXTS), sample)
        vectors, bounds, parts = answer
        np.testing.assert_allclose(vectors, mini_lm.embed(["The lig", "keeper"]), atol=2e-2)
        assert bounds.tolist() == [[2, 3]]
        np.testing.assert_allclose(parts, vectors[1:], atol=1e-5)
        assert len(other[1]) > 2

    def test_a_teacher_that_gives_no_parts_is_refused(self, tokenizer):
        with pytest.raises(ConfigError, match="the teacher words only gives whole vectors"):
            chunk_and_part_vectors(WordTeacher(), [sample_of("a", self.TEXTS)], tokenizer, 4)
