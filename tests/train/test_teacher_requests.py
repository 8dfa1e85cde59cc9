"""Requests to a teacher, and its vectors as targets, against naive computation."""

import numpy as np
import pytest
import torch

from dewey_embed.errors import ConfigError, TeacherError
from dewey_embed.train import teach
from dewey_embed.train.batches import Collator
from dewey_embed.train.recipe import PackageTeacher
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.reduce import fit_reduction
from dewey_embed.train.samples import Draw, Sample
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.teach import OnlineTeacher, targets_of, untaught
from dewey_embed.train.teacher_requests import request_for, teacher_vectors
from dewey_embed.train.teachers import minilm, open_teacher
from dewey_embed.train.teachers.minilm import MiniLM

from .conftest import MINI
from .test_targets import WORDS, sample_of, unit
from .test_wholes import WordTeacher

TEXTS = ("The lighthouse keeper writes down every ship.", "Naïve café, 3,14159 tides a day.")


@pytest.fixture(scope="module")
def tokenizer():
    return start_tokenizer(MINI)


@pytest.fixture(scope="module")
def mini_lm():
    return MiniLM(max_tokens=254, device="cpu")


@pytest.fixture
def recipe(tiny):
    """A recipe that asks for segments of so many tokens, or for none."""

    def of(part_tokens):
        changes = [] if part_tokens is None else [f"targets.part_tokens={part_tokens}"]
        return read_recipe(tiny.recipe, changes)

    return of


class TestQuestions:
    def request(self, tokenizer, samples, recipe, teacher=None):
        tokens = tokenizer.encode([sample.text for sample in samples])
        return request_for(samples, tokens, teacher or WordTeacher(), recipe)

    def test_every_text_is_embedded_once(self, tokenizer, recipe):
        twice = sample_of("a", ["the tide comes in", "birds call at dawn", "the tide comes in"])
        single = sample_of("b", ["birds call at dawn"])
        request = self.request(tokenizer, [twice, single], recipe(None))
        assert request.texts == ["the tide comes in", "birds call at dawn", twice.text]
        assert request.rows.tolist() == [0, 1, 0, 1, 2]
        found = teacher_vectors(WordTeacher(), request)
        expected = WordTeacher().embed([*twice.chunks(), *single.chunks()])
        np.testing.assert_allclose(found.chunks, expected, atol=1e-6)
        wholes = WordTeacher().embed([twice.text, single.text])
        np.testing.assert_allclose(found.cls, wholes, atol=1e-6)
        assert found.segments.shape == (0, 24)

    def test_vectors_of_many_passes_come_in_the_order_of_the_samples(
        self, tokenizer, mini_lm, recipe, monkeypatch
    ):
        chunks = [" ".join((WORDS * 3)[: 2 + 5 * n % 29]) + f" {n}" for n in range(12)]
        samples = [sample_of(f"s{n}", chunks[n : n + 3]) for n in range(0, 12, 3)]
        together = self.request(tokenizer, samples, recipe(4), mini_lm)
        at_once = teacher_vectors(mini_lm, together)
        monkeypatch.setitem(minilm.BATCH_TOKENS, "cpu", 40)
        for one, other in zip(at_once, teacher_vectors(mini_lm, together), strict=True):
            torch.testing.assert_close(one, other, atol=2e-2, rtol=0)
        part = 0
        for sample, bounds in zip(samples, together.segments.bounds, strict=True):
            [alone] = targets_of([sample], mini_lm, fit_reduction("none", np.empty((0, 384)), 384),
                                 tokenizer, recipe(4))  # fmt: skip
            np.testing.assert_array_equal(alone.segment_bounds, bounds)
            mine = at_once.segments[part : part + len(bounds)]
            np.testing.assert_allclose(alone.segments, mine, atol=2e-2)
            part += len(bounds)
        assert part == len(at_once.segments)


class TestSegments:
    @pytest.fixture
    def segments_of(self, mini_lm, tokenizer, recipe):
        """The targets of samples, with segments of so many tokens."""
        same = fit_reduction("none", np.empty((0, 384), np.float32), 384)

        def of(part_tokens, *samples):
            samples = samples or (sample_of("a", TEXTS),)
            targets = targets_of(samples, mini_lm, same, tokenizer, recipe(part_tokens))
            return [(one.chunks, one.segment_bounds, one.segments) for one in targets]

        return of

    @pytest.mark.parametrize("part_tokens", [1, 3, 4])
    def test_segments_tile_their_chunks_and_together_give_their_vectors(
        self, mini_lm, tokenizer, segments_of, part_tokens
    ):
        [(vectors, bounds, segments)] = segments_of(part_tokens)
        np.testing.assert_allclose(vectors, mini_lm.embed(TEXTS), atol=2e-2)
        sizes = [len(own) for own in tokenizer.encode(list(TEXTS))]
        tiles = [
            (low, min(low + part_tokens, end))
            for end, size in zip(np.cumsum(sizes), sizes, strict=True)
            for low in range(end - size, end, part_tokens)
        ]
        assert bounds.tolist() == [list(tile) for tile in tiles]
        np.testing.assert_allclose(np.linalg.norm(segments, axis=1), 1, atol=1e-5)
        for row, first in enumerate((0, sizes[0])):
            mine = (bounds[:, 0] >= first) & (bounds[:, 0] < first + sizes[row])
            mean = unit((bounds[mine, 1] - bounds[mine, 0]) @ segments[mine])
            assert mean @ vectors[row] > 0.95

    def test_segments_are_the_teachers_own_states_in_their_order(
        self, mini_lm, tokenizer, segments_of
    ):
        [(_, bounds, segments)] = segments_of(3)
        expected = []
        for text in TEXTS:
            ids = torch.from_numpy(mini_lm.tokenize([text]).ids)
            with torch.no_grad():
                states = mini_lm._model(ids.unsqueeze(0)).last_hidden_state[0].float()
            own = states[1:-1] + (states[0] + states[-1]) / (len(ids) - 2)
            expected += [part.sum(0) for part in own.split(3)]
        expected = unit(torch.stack(expected).numpy())
        assert len(bounds) == len(expected)
        assert (segments * expected).sum(1).min() > 0.995

    def test_one_segment_as_long_as_its_chunk_is_the_chunk(self, segments_of):
        [(vectors, bounds, segments)] = segments_of(500)
        assert len(bounds) == 2
        np.testing.assert_allclose(segments, vectors, atol=1e-5)

    def test_a_chunk_that_the_teacher_reads_otherwise_has_no_segments(self, mini_lm, segments_of):
        cut, whole = (0, 7), (15, 21)  # through "lighthouse"; "keeper"
        draw = Draw(0, 64, "tokens", 4, 0)
        sample = Sample("c", "here", TEXTS[0], [cut, whole], draw)
        other, (vectors, bounds, segments) = segments_of(2, sample_of("a", TEXTS), sample)
        np.testing.assert_allclose(vectors, mini_lm.embed(["The lig", "keeper"]), atol=2e-2)
        assert bounds.tolist() == [[2, 3]]
        np.testing.assert_allclose(segments, vectors[1:], atol=1e-5)
        assert len(other[1]) > 2

    def test_a_teacher_that_gives_no_parts_is_refused(self, tokenizer, recipe):
        sample = sample_of("a", TEXTS)
        tokens = tokenizer.encode([sample.text])
        with pytest.raises(ConfigError, match="the teacher words only gives whole vectors"):
            request_for([sample], tokens, WordTeacher(), recipe(4))


def test_a_batch_answered_on_the_way_is_the_batch_of_stored_targets(tiny, tokenizer, tmp_path):
    recipe = read_recipe(tiny.recipe, ["targets.part_tokens=4", "base.vector_size=384"])
    recipe = recipe.model_copy(update={"teacher": PackageTeacher(kind="package", max_tokens=96)})
    online_teacher = OnlineTeacher(recipe, tmp_path, tmp_path)
    samples = [sample_of("a", TEXTS), sample_of("b", TEXTS[:1])]
    same = fit_reduction("none", np.empty((0, 384), np.float32), 384)
    teacher = open_teacher(recipe.teacher)
    stored = Collator(tokenizer)(targets_of(samples, teacher, same, tokenizer, recipe))
    batch = Collator(tokenizer, online_teacher.request)([untaught(sample) for sample in samples])
    online = online_teacher.with_targets(batch)
    assert online.keys() == stored.keys()
    assert len(stored["segment_starts"]) == len(stored["segment_targets"]) > 0
    for name, expected in stored.items():
        if name == "lengths":
            assert online[name] == expected
        else:
            torch.testing.assert_close(online[name], expected)


def test_an_answer_that_is_no_vector_is_refused_before_it_is_trained_on(
    tiny, tokenizer, tmp_path, monkeypatch
):
    recipe = read_recipe(tiny.recipe, ["targets.part_tokens=4", "base.vector_size=384"])
    recipe = recipe.model_copy(update={"teacher": PackageTeacher(kind="package", max_tokens=96)})
    broken = MiniLM(max_tokens=96, device="cpu")
    with torch.no_grad():
        broken._model.embeddings.word_embeddings.weight[tokenizer.encode(["tide"])[0].ids] = np.nan
    monkeypatch.setattr(teach, "open_teacher", lambda *_, **__: broken)
    online_teacher = OnlineTeacher(recipe, tmp_path, tmp_path)
    samples = [untaught(sample_of("a", ["A ship comes in.", "The tide comes in."]))]
    batch = Collator(tokenizer, online_teacher.request)(samples)
    with pytest.raises(TeacherError, match=r"MiniLM.*'A ship.*got NaN or infinity for text"):
        online_teacher.with_targets(batch)
