"""Crops and chunks of any text: within bounds, apart from each other, and drawn by seed alone."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dewey_embed.text.splitter import spans_from_characters
from dewey_embed.titles import untitled
from dewey_embed.train.corpus import CorpusText
from dewey_embed.train.recipe import SplitRecipe
from dewey_embed.train.samples import NUM_SPECIAL, SENTENCE_TOKENS, cut_samples
from dewey_embed.train.start import start_tokenizer
from tests.text.conftest import HARD

from .conftest import MINI

TOKENIZER = start_tokenizer(MINI)
WORDS = [
    *("tide", "lighthouse", "internationalization", "well-known", "3,14159", "naïve", "café"),
    *("北京", "각", "한글", "don't.", "E=mc²"),
]
SOUND = [piece for piece in HARD if not any("\ud800" <= char <= "\udfff" for char in piece)]

spaced = st.lists(st.sampled_from(WORDS), min_size=1, max_size=200).map(" ".join)

texts = st.one_of(
    spaced,
    st.lists(st.sampled_from([*WORDS, "\n", "\n\n", " "]), max_size=120).map(" ".join),
    st.lists(st.sampled_from(SOUND), max_size=80).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)  # as they come from the corpus: valid UTF-8

recipes = st.builds(
    lambda crop, crops, place, splitter, low, more, overlap, seed: SplitRecipe(
        crop_tokens={crop: 1.0}, crops_per_text=crops, crop_from=place, splitters={splitter: 1.0},
        chunk_tokens=(low, low + more), overlap=(0, overlap), seed=seed,
    ),
    st.integers(8, 60), st.integers(1, 6), st.sampled_from(["start", "anywhere"]),
    st.sampled_from(["recursive", "words", "tokens"]), st.integers(1, 20), st.integers(0, 10),
    st.sampled_from([0, 0.3, 0.6]), st.integers(0, 99),
)  # fmt: skip


def corpus_text(text):
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return CorpusText(digest, text, "here", False)


def cut(text, recipe):
    return cut_samples(corpus_text(text), TOKENIZER, recipe)


def prose(num_words, seed=0):
    random = np.random.default_rng(seed)
    vocabulary = [
        "the",
        "tide",
        "comes",
        "in",
        "over",
        "stones",
        "and",
        "birds",
        "call",
        "at",
        "dawn",
    ]
    words = random.choice(vocabulary, num_words).tolist()
    return " ".join(f"{word}.\n\n" if n % 40 == 39 else word for n, word in enumerate(words))


class TestCrops:
    @given(text=texts, recipe=recipes)
    @settings(max_examples=120, deadline=None)
    def test_a_crop_is_a_slice_of_the_text_and_no_two_overlap(self, text, recipe):
        samples = cut(text, recipe)
        assert len(samples) <= recipe.crops_per_text
        end = 0
        for sample in samples:
            start = sample.draw.crop_start
            assert start >= end
            end = start + len(sample.text)
            assert text[start:end] == sample.text
        assert len({sample.id for sample in samples}) == len(samples)
        assert {sample.source for sample in samples} <= {"here"}

    @given(text=spaced, recipe=recipes)
    @settings(max_examples=120, deadline=None)
    def test_a_crop_has_the_recipes_size_or_is_the_whole_text(self, text, recipe):
        [crop_tokens] = recipe.crop_tokens
        room = crop_tokens - NUM_SPECIAL
        whole = len(TOKENIZER.encode([text])[0])
        samples = cut(text, recipe)
        sizes = [len(own) for own in TOKENIZER.encode([sample.text for sample in samples])]
        if whole <= room:
            assert [sample.text for sample in samples] == ([text] if whole else [])
        else:
            # The words that a crop cuts, at both ends, may have other tokens.
            assert all(abs(size - room) <= 8 for size in sizes)

    @given(seed=st.integers(0, 999), crop_tokens=st.integers(8, 200))
    @settings(max_examples=40, deadline=None)
    def test_crops_of_plain_words_have_exactly_the_recipes_size(self, seed, crop_tokens):
        recipe = SplitRecipe(crop_tokens={crop_tokens: 1}, crops_per_text=9, crop_from="anywhere")
        samples = cut(prose(300, seed), recipe)
        # Below the first line of a crop may stand a mark that is none in the whole text.
        tokens = TOKENIZER.encode([untitled(sample.text) for sample in samples])
        assert {len(own) for own in tokens} <= {crop_tokens - NUM_SPECIAL - n for n in (0, 1)}
        whole = len(TOKENIZER.encode([prose(300, seed)])[0])
        assert len(samples) == min(9, whole // (crop_tokens - NUM_SPECIAL))

    def test_crops_from_the_start_follow_each_other(self):
        recipe = SplitRecipe(crop_tokens={52: 1}, crops_per_text=3, crop_from="start")
        text = prose(400)
        samples = cut(text, recipe)
        offsets = TOKENIZER.encode([text])[0].offsets
        assert [sample.draw.crop_start for sample in samples] == offsets[[0, 50, 100], 0].tolist()

    def test_crops_from_anywhere_reach_both_ends_over_many_texts(self):
        recipe = SplitRecipe(crop_tokens={52: 1}, crop_from="anywhere")
        texts = [prose(400, seed) for seed in range(80)]
        places = [cut(text, recipe)[0].draw.crop_start / len(text) for text in texts]
        assert min(places) < 0.1
        assert max(places) > 0.7
        assert 0.3 < np.mean(places) < 0.6

    @pytest.mark.parametrize("text", ["", " ", "\n\n \t\r\n", "\u3000"])
    def test_a_text_without_words_gives_none(self, text):
        assert cut(text, SplitRecipe()) == []

    def test_characters_of_several_tokens_belong_to_one_crop(self):
        text = "한각" * 40
        samples = cut(text, SplitRecipe(crop_tokens={10: 1.0}, crops_per_text=99))
        ends = [sample.draw.crop_start + len(sample.text) for sample in samples]
        starts = [sample.draw.crop_start for sample in samples]
        assert len(samples) > 20
        assert all(end <= start for end, start in zip(ends[:-1], starts[1:], strict=True))


class TestChunks:
    @given(text=texts, recipe=recipes)
    @settings(max_examples=150, deadline=None)
    def test_chunks_lie_within_their_crop_and_cover_all_its_tokens(self, text, recipe):
        for sample in cut(text, recipe):
            [tokens] = TOKENIZER.encode([sample.text])
            assert all(0 <= start < end <= len(sample.text) for start, end in sample.spans)
            spans = spans_from_characters(tokens, sample.spans, num_chars=len(sample.text))
            covered = np.zeros(len(tokens), bool)
            for span in spans:
                covered[span.token_start : span.token_end] = True
            assert covered.all()
            assert sample.chunks() == [sample.text[start:end] for start, end in sample.spans]
            assert not any(chunk.isspace() for chunk in sample.chunks())

    @given(text=texts, recipe=recipes)
    @settings(max_examples=60, deadline=None)
    def test_chunks_keep_to_the_size_that_was_drawn(self, text, recipe):
        for sample in cut(text, recipe):
            draw = sample.draw
            assert recipe.chunk_tokens[0] <= draw.chunk_tokens <= recipe.chunk_tokens[1]
            assert 0 <= draw.chunk_overlap <= recipe.overlap[1] * draw.chunk_tokens
            [tokens] = TOKENIZER.encode([sample.text])
            shared = (np.diff(tokens.offsets, axis=0)[:, 0] == 0).sum() if len(tokens) > 1 else 0
            spans = spans_from_characters(tokens, sample.spans, num_chars=len(sample.text))
            assert max(span.num_tokens for span in spans) <= draw.chunk_tokens + shared

    @given(text=texts, max_chunks=st.integers(1, 4))
    @settings(max_examples=60, deadline=None)
    def test_of_too_many_chunks_some_are_kept_in_order(self, text, max_chunks):
        sizes = dict(crop_tokens={4096: 1.0}, chunk_tokens=(4, 4), overlap=(0, 0))
        every = cut(text, SplitRecipe(**sizes))
        some = cut(text, SplitRecipe(**sizes, max_chunks=max_chunks))
        assume(every)
        [every], [some] = every, some
        assert len(some.spans) == min(max_chunks, len(every.spans))
        assert set(some.spans) <= set(every.spans)
        assert some.spans == sorted(some.spans)


class TestSentences:
    @pytest.mark.parametrize("clauses", [0.0, 0.5, 1.0])
    @given(text=texts, recipe=recipes)
    @settings(max_examples=120, deadline=None)
    def test_a_sentence_is_a_slice_of_one_line_and_no_two_overlap(self, clauses, text, recipe):
        changed = {"sentences": 1.0, "sentences_per_text": 3, "clauses": clauses}
        samples = cut(text, recipe.model_copy(update=changed))
        assert len(samples) <= 3
        end = 0
        for sample in samples:
            start = sample.draw.crop_start
            assert start >= end
            end = start + len(sample.text)
            assert text[start:end] == sample.text
            assert "\n" not in sample.text
        sizes = [len(own) + NUM_SPECIAL for own in TOKENIZER.encode([s.text for s in samples])]
        assert all(SENTENCE_TOKENS[0] <= size <= SENTENCE_TOKENS[1] for size in sizes)

    def test_sentences_end_where_they_end(self):
        text = (
            "# The sea\n\nThe tide comes at 6.30 in the morning. Is it high? \tBirds call, e.g."
            " terns! 潮が満ちる。鳥が鳴く。 All of the stones lie under\nthe water at noon"
        )
        found = cut(text, SplitRecipe(sentences=1.0, sentences_per_text=20))
        assert [sample.text for sample in found] == [
            "# The sea", "The tide comes at 6.30 in the morning.", "Is it high?",
            "Birds call, e.g.", "terns!", "潮が満ちる。", "鳥が鳴く。",
            "All of the stones lie under", "the water at noon",
        ]  # fmt: skip

    def test_a_clause_ends_where_a_comma_or_a_bracket_parts_it_from_the_next(self):
        text = "The tide (of the North Sea), birds calling at dawn: all is as it was before."
        recipe = SplitRecipe(sentences=1.0, sentences_per_text=20, clauses=1.0)
        found = {
            each.text
            for seed in range(40)
            for each in cut(text, recipe.model_copy(update={"seed": seed}))
        }
        assert found == {
            "of the North Sea", "birds calling at dawn", "all is as it was before."
        }  # fmt: skip

    def test_clauses_come_in_the_recipes_share(self):
        text = "All of the old stones lie there, in the deep water. " * 400
        recipe = SplitRecipe(sentences=1.0, sentences_per_text=400, clauses=0.25)
        whole = [each.text.endswith(".") and "," in each.text for each in cut(text, recipe)]
        assert abs(sum(whole) / 400 - 0.75) < 0.07  # three deviations

    def test_a_text_without_a_sentence_of_that_size_gives_none(self):
        assert cut("word " * 500, SplitRecipe(sentences=1.0)) == []
        assert cut("No. No. No.", SplitRecipe(sentences=1.0)) == []

    def test_they_come_in_the_recipes_share(self):
        recipe = SplitRecipe(sentences=0.3, crop_tokens={128: 1.0}, crops_per_text=1)
        drawn = [cut(prose(200, seed), recipe)[0].draw.crop_tokens for seed in range(400)]
        assert abs(drawn.count(SENTENCE_TOKENS[1]) / 400 - 0.3) < 0.07  # three deviations

    def test_without_them_the_same_crops_are_drawn_as_ever(self):
        recipe = SplitRecipe(crop_tokens={64: 1.0}, crop_from="anywhere")
        starts = [cut(prose(500, seed), recipe)[0].draw.crop_start for seed in range(3)]
        assert starts == [69, 2089, 649]


class TestChance:
    @given(text=texts, recipe=recipes)
    @settings(max_examples=40, deadline=None)
    def test_the_same_text_and_seed_give_the_same_samples(self, text, recipe):
        assert cut(text, recipe) == cut(text, SplitRecipe(**recipe.model_dump()))

    def test_another_seed_gives_others(self):
        sizes = dict(crop_tokens={64: 1.0}, crop_from="anywhere", crops_per_text=2)
        drawn = [
            tuple(s.draw for s in cut(prose(500), SplitRecipe(**sizes, seed=n))) for n in range(9)
        ]
        assert len(set(drawn)) == 9

    def test_every_recut_cuts_the_same_text_elsewhere(self):
        recipe = SplitRecipe(crop_tokens={60: 1.0}, crop_from="anywhere", crops_per_text=3)
        text = corpus_text(prose(2000))
        cuts = [cut_samples(text, TOKENIZER, recipe, resplit) for resplit in range(4)]
        assert cuts[0] == cut_samples(text, TOKENIZER, recipe)
        for part in ("draw", "spans", "id"):
            of_each = [tuple(str(getattr(one, part)) for one in samples) for samples in cuts]
            assert len(set(of_each)) == 4, part
        assert len({one.id for samples in cuts for one in samples}) == 12

    def test_another_text_draws_otherwise_under_the_same_seed(self):
        recipe = SplitRecipe(crop_tokens={64: 1.0}, crop_from="anywhere")
        drawn = {tuple(s.draw for s in cut(prose(500, n), recipe)) for n in range(9)}
        assert len(drawn) == 9

    def test_sizes_and_splitters_come_in_the_recipes_shares(self):
        recipe = SplitRecipe(
            crop_tokens={16: 0.2, 32: 0.5, 64: 0.3}, splitters={"recursive": 3, "words": 1},
            chunk_tokens=(8, 12), overlap=(0.25, 0.5), crops_per_text=1,
        )  # fmt: skip
        drawn = [cut(prose(80, seed), recipe)[0].draw for seed in range(500)]
        sizes = Counter(draw.crop_tokens for draw in drawn)
        for size, share in recipe.crop_tokens.items():
            assert abs(sizes[size] / 500 - share) < 0.07  # three deviations
        words = Counter(draw.splitter for draw in drawn)["words"]
        assert abs(words / 500 - 0.25) < 0.06
        assert {draw.chunk_tokens for draw in drawn} == {8, 9, 10, 11, 12}
        overlaps = [draw.chunk_overlap / draw.chunk_tokens for draw in drawn]
        assert 0.1 <= min(overlaps) < 0.3
        assert 0.35 < max(overlaps) <= 0.5

    def test_a_share_of_nothing_never_comes(self):
        recipe = SplitRecipe(crop_tokens={16: 0, 32: 1}, splitters={"words": 0, "tokens": 1})
        drawn = {
            (s.draw.crop_tokens, s.draw.splitter)
            for n in range(40)
            for s in cut(prose(60, n), recipe)
        }
        assert drawn == {(32, "tokens")}
