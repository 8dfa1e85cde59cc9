"""Titles, headings, masking and questions of a text; what the teacher is told of each chunk."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.errors import CheckpointError
from dewey_embed.train.batches import pack_samples, places
from dewey_embed.train.context import (
    Question,
    Surroundings,
    headings,
    masked,
    questions,
    titled,
)
from dewey_embed.train.corpus import CorpusText
from dewey_embed.train.recipe import BaseRecipe, ContextRecipe, SplitRecipe
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.samples import Draw, Sample, cut_samples
from dewey_embed.train.start import from_checkpoint, start_folder, start_tokenizer
from dewey_embed.train.teach import teach
from dewey_embed.train.teacher_requests import request_for, teacher_vectors
from dewey_embed.train.teachers.minilm import MiniLM
from tests.text.conftest import HARD

from .conftest import MINI
from .test_samples import SOUND, prose

TOKENIZER = start_tokenizer(MINI)
LEAD = "Freiburg (Breisgau) is a town at the edge of the Black Forest."
CLIMATE = "It is among the warmest places of the country, and Freiburg has long dry summers. "
RIVER = "The Dreisam, which rises in the hills, flows through the town to the Elz and the Rhine. "
TEXT = f"Freiburg (Breisgau)\n\n{LEAD}\n\nClimate.\n{CLIMATE * 3}\n\nRivers\n\n{RIVER * 3}\n"
SPLIT = SplitRecipe(splitters={"recursive": 1.0}, chunk_tokens=(24, 40), overlap=(0, 0))


def random():
    return np.random.default_rng(1)


def corpus_text(text):
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return CorpusText(digest, text, "here", False, titled(text, Counter()))


def cut(text=TEXT, why=None, **options):
    recipe = ContextRecipe(**{"texts": 1.0, "tops": {"title": 1.0}, "masked": 0.0} | options)
    return cut_samples(corpus_text(text), TOKENIZER, SPLIT, context=recipe, why=why)


class TestTitles:
    def test_the_first_line_is_the_title_of_what_follows(self):
        parts = titled(TEXT, Counter())
        assert (parts.title, parts.lead) == ("Freiburg (Breisgau)", LEAD)
        assert parts.body == TEXT.partition("\n\n")[2].strip()

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("The tenant pays the rent.\nIt is due in May.", "texts without a title"),
            ("", "texts without a title"),
            (
                "The tenant pays the rent on the first day of May.\n\nIt is due.",
                "texts without a title",
            ),
            ("---\n\nThe tenant pays the rent.", "texts without a title"),
            ("Two lines\nof words\n\nThe tenant pays the rent.", "texts without a title"),
            ("lease_2024-final (2).pdf".replace(" (2)", "") + "\n\nThe tenant pays.", "file name"),
            ("word " * 60 + "\n\nThe tenant pays the rent.", "texts whose title is too long"),
            ("Lease\n\n- - -", "texts with nothing below the title"),
        ],
    )
    def test_what_is_no_title_is_counted_by_its_reason(self, text, reason):
        why = Counter()
        assert titled(text, why) is None
        [(found, count)] = why.items()
        assert reason in found
        assert count == 1

    @given(st.lists(st.sampled_from([*SOUND, *HARD, "\n\n", "Title"]), max_size=12).map("".join))
    def test_a_title_and_its_body_are_all_of_the_text_but_for_blanks(self, text):
        parts = titled(text, Counter())
        if parts is not None:
            assert "".join((parts.title + parts.body).split()) == "".join(text.split())


class TestHeadings:
    def test_they_are_short_lines_above_prose(self):
        found = headings(TEXT)
        assert [words for _, _, words in found] == ["Climate", "Rivers"]
        assert all(TEXT[start:end].startswith(words) for start, end, words in found)

    def test_lists_and_verses_have_none(self):
        assert headings("Eggs\nFlour\nMilk and butter\nA pinch of salt\n") == []
        assert headings("- Eggs\n" + CLIMATE) == []

    def test_a_chunk_is_told_the_heading_above_it_and_not_its_own(self):
        around = Surroundings(TEXT, ["Freiburg"])
        climate, rivers = TEXT.index("Climate"), TEXT.index("Rivers")
        why = Counter()
        assert around.of_chunk(0, 90, why) == "Freiburg"
        assert around.of_chunk(climate, climate + 90, why) == "Freiburg"
        assert around.of_chunk(climate + 10, climate + 90, why) == "Freiburg. Climate"
        assert around.of_chunk(rivers + 10, rivers + 90, why) == "Freiburg. Rivers"
        assert not why

    def test_a_title_longer_than_its_chunk_is_not_told_and_counted(self):
        why = Counter()
        assert Surroundings(TEXT, ["Freiburg"]).of_chunk(0, 7, why) == ""
        assert why == {"chunks shorter than their title": 1}


class TestMasking:
    def test_no_mention_of_the_title_is_left_with_or_without_its_qualifier(self):
        for title in ("Freiburg (Breisgau)", "freiburg"):
            found = masked(CLIMATE + RIVER * 3, title, random(), Counter())
            assert "Freiburg" not in found
            assert "Dreisam" in found

    def test_names_in_a_title_are_masked_alone_and_common_words_are_not(self):
        text = (
            "Lincoln was a lawyer. He read the law at night. Abraham Lincoln's term began in May."
        )
        found = masked(text, "Abraham Lincoln", random(), Counter())
        assert "Lincoln" not in found
        assert "law of the sea" in masked(
            "It is the law of the sea. " + RIVER * 3, "History of law", random(), Counter()
        )

    def test_a_title_in_every_sentence_stays_and_is_counted(self):
        why = Counter()
        text = "Rent is due. The rent is high. Rent is paid. All pay rent."
        assert masked(text, "Rent", random(), why) == text
        assert why == {"crops with the title in every sentence": 1}

    def test_a_text_of_nothing_but_its_title_stays_and_is_counted(self):
        for seed in range(20):
            why = Counter()
            found = masked("Rent!", "Rent", np.random.default_rng(seed), why)
            assert found.strip("!") or why == {"crops that masking would empty": 1}
            if why:
                return
        pytest.fail("no seed leaves a mention out")


class TestSamples:
    def test_the_title_stands_above_and_in_no_chunk_and_before_what_the_teacher_reads(self):
        [sample] = cut()
        assert sample.text.startswith(f"Freiburg (Breisgau)\n\n{LEAD}")
        assert min(start for start, _ in sample.spans) >= len("Freiburg (Breisgau)\n\n")
        assert {"Freiburg (Breisgau)", "Freiburg (Breisgau). Climate"} <= set(sample.contexts)
        assert sample.prefixes()[0] == "Freiburg (Breisgau). "
        assert len(sample.contexts) == len(sample.spans)

    def test_a_crop_from_the_middle_has_the_title_too(self):
        text = f"Tides\n\n{prose(400)}"
        samples = cut(text, crop_tokens={96: 1.0}, crops_per_text=3)
        assert len(samples) == 3
        for sample in samples:
            top, body = sample.text[:7], sample.text[7:]
            assert (top, body in text) == ("Tides\n\n", True)
            assert len(TOKENIZER.encode([sample.text])[0]) <= 96

    def test_a_masked_crop_names_its_title_only_above(self):
        [sample] = cut(masked=1.0)
        assert sample.text.startswith("Freiburg (Breisgau)\n\n")
        assert "Freiburg" not in sample.text[len("Freiburg (Breisgau)\n\n") :]
        assert all("Freiburg" not in chunk for chunk in sample.chunks())
        assert all(not context or context.startswith("Freiburg") for context in sample.contexts)

    def test_a_lead_that_names_the_title_stands_in_for_it(self):
        samples = cut(tops={"lead": 1.0}, crop_tokens={72: 1.0}, masked=1.0)
        for sample in samples:
            assert sample.text.startswith(LEAD)
            assert "Freiburg (Breisgau)\n\n" not in sample.text
            assert sample.contexts[-1].startswith("Freiburg (Breisgau)")

    def test_the_lead_is_told_where_the_recipe_says_so(self):
        [sample] = cut(tops={"title_and_lead": 1.0})
        assert sample.text.count(LEAD) == 1
        assert sample.contexts[-1].startswith("Freiburg (Breisgau). Rivers. Freiburg (Breisgau) is")

    def test_without_a_lead_there_is_the_title_and_it_is_counted(self):
        why = Counter()
        [sample] = cut("Tides\n\nTides rise.\n" + RIVER * 2, why, tops={"lead": 1.0})
        assert sample.text.startswith("Tides\n\n")
        assert why["texts without a lead sentence"] == 1

    def test_a_context_has_no_more_tokens_than_the_recipe_says(self):
        [sample] = cut(max_tokens=3)
        assert {len(TOKENIZER.encode([each])[0]) for each in sample.contexts} == {0, 3}

    def test_answers_stand_where_their_questions_say_in_the_samples_text(self):
        [sample] = cut(questions_per_crop=9)
        sections = [sample.text[one.start : one.end].strip() for one in sample.questions[:2]]
        assert sorted(sections) == sorted([(CLIMATE * 3).strip(), (RIVER * 3).strip()])
        for one in sample.questions[2:]:
            assert (one.start, one.end) in sample.spans

    def test_plain_samples_of_titled_texts_have_a_title_among_their_words_or_none(self):
        title, _, body = (part.strip() for part in TEXT.partition("\n\n"))
        recipes = [SPLIT.model_copy(update={"seed": seed}) for seed in range(40)]
        context = ContextRecipe(texts=0.0)
        found = [
            cut_samples(corpus_text(TEXT), TOKENIZER, each, context=context) for each in recipes
        ]
        starts = Counter(sample.text[: len(title) + 2] for sample, *_ in found)
        assert set(starts) == {body[: len(title) + 2], f"{title} {body[0]}"}
        assert min(starts.values()) > 8
        assert not any(sample.contexts for sample, *_ in found)

    def test_plain_samples_do_not_begin_as_a_text_under_its_title_does(self):
        text = replace(corpus_text(TEXT), titled=None)
        [sample] = cut_samples(text, TOKENIZER, SPLIT, context=ContextRecipe(texts=1.0))
        assert sample.text == TEXT.replace("\n\n", " \n", 1)
        [other] = cut_samples(text, TOKENIZER, SPLIT)
        assert other.text == TEXT

    @given(
        st.lists(st.sampled_from([*SOUND, "Rent", ". ", "\n\n", "\n"]), max_size=40).map("".join),
        st.floats(0, 1),
        st.sampled_from(["title", "title_and_lead", "lead"]),
    )
    @settings(max_examples=60, deadline=None)
    def test_spans_and_answers_lie_in_any_text(self, body, share, top):
        text = f"Rent and Lease\n\n{body}"
        for sample in cut(text, tops={top: 1.0}, masked=share, questions_per_crop=3):
            size = len(sample.text)
            assert all(0 <= start < end <= size for start, end in sample.spans)
            assert all(0 <= one.start < one.end <= size for one in sample.questions)
            assert len(sample.contexts) in {0, len(sample.spans)}  # 0: nothing below the title
            assert all(one.text.strip() for one in sample.questions)

    def test_the_same_is_drawn_again(self):
        options = dict(masked=0.5, questions_per_crop=4)
        assert cut(**options) == cut(**options)


class TestQuestions:
    def test_they_name_the_title_and_their_answers_are_sections_or_chunks(self):
        spans = [(start, start + 60) for start in range(0, len(TEXT) - 60, 60)]
        found = questions(
            Surroundings(TEXT, ["Freiburg (Breisgau)"]), spans, 6, random(), Counter()
        )
        assert len(found) == 6
        assert all("Freiburg" in one.text and "Breisgau" not in one.text for one in found)
        climate = next(one for one in found if "climate" in one.text)
        assert TEXT[climate.start : climate.end].strip() == (CLIMATE * 3).strip()
        for one in found[2:]:
            assert (one.start, one.end) in spans

    def test_a_chunk_without_words_has_none_and_is_counted(self):
        why = Counter()
        found = questions(Surroundings("...", ["Rent"]), [(0, 3)], 2, random(), why)
        assert found == []
        assert why == {"questions without a passage": 1}


@pytest.fixture(scope="module")
def mini_lm():
    return MiniLM(max_tokens=254, device="cpu")


class TestTargets:
    def request(self, recipe, teacher, samples):
        tokens = TOKENIZER.encode([sample.text for sample in samples])
        request = request_for(samples, tokens, teacher, recipe)
        return request, teacher_vectors(teacher, request)

    def sample(self, contexts):
        chunks = ["The keeper writes down every ship that passes.", "Naïve tides, 3 a day."]
        text = "Lights\n\n" + "\n".join(chunks)
        spans = [(text.index(chunk), text.index(chunk) + len(chunk)) for chunk in chunks]
        return Sample("a-0", "here", text, spans, Draw(0, 64, "words", 20, 0), contexts)

    def test_a_chunks_target_is_the_teachers_vector_of_context_and_chunk(self, tiny, mini_lm):
        sample = self.sample(["Lighthouses", ""])
        request, found = self.request(read_recipe(tiny.recipe), mini_lm, [sample])
        joined = ["Lighthouses. The keeper writes down every ship that passes.", sample.chunks()[1]]
        assert request.texts[:2] == joined
        np.testing.assert_allclose(found.chunks, mini_lm.embed(joined), atol=2e-2)

    def test_emphasis_adds_the_vector_of_the_context_alone(self, tiny, mini_lm):
        sample = self.sample(["Lighthouses of the north", ""])
        changes = ["context.emphasis=0.5", "targets.part_tokens=500"]
        _, plain = self.request(read_recipe(tiny.recipe, changes[1:]), mini_lm, [sample])
        _, found = self.request(read_recipe(tiny.recipe, changes), mini_lm, [sample])
        [context] = mini_lm.embed(["Lighthouses of the north"])
        expected = plain.chunks[0].numpy() + 0.5 * context
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(found.chunks[0], expected, atol=1e-2)
        np.testing.assert_allclose(found.segments[0], expected, atol=1e-2)
        np.testing.assert_allclose(found.chunks[1], plain.chunks[1], atol=1e-2)
        np.testing.assert_allclose(found.segments[1], plain.segments[1], atol=1e-2)

    def test_segments_are_of_the_chunk_alone_and_together_give_its_contextual_vector(
        self, tiny, mini_lm
    ):
        sample = self.sample(["Lighthouses of the north. Their keepers", "Tides"])
        whole, found = self.request(
            read_recipe(tiny.recipe, ["targets.part_tokens=500"]), mini_lm, [sample]
        )
        [own] = TOKENIZER.encode([sample.text])
        inside = [
            [n for n, (a, b) in enumerate(own.offsets) if a < end and b > start]
            for start, end in sample.spans
        ]
        assert whole.segments.bounds[0].tolist() == [[each[0], each[-1] + 1] for each in inside]
        np.testing.assert_allclose(found.segments, found.chunks, atol=1e-5)
        parts, found = self.request(
            read_recipe(tiny.recipe, ["targets.part_tokens=3"]), mini_lm, [sample]
        )
        sizes = np.diff(parts.segments.bounds[0], axis=1)[:, 0]
        assert sizes.sum() == sum(map(len, inside))
        first = -(-len(inside[0]) // 3)
        for rows, chunk in zip((slice(0, first), slice(first, None)), found.chunks, strict=True):
            mean = sizes[rows] @ found.segments[rows].numpy()
            assert mean @ chunk.numpy() / np.linalg.norm(mean) > 0.95

    def test_segments_are_the_teachers_states_of_the_chunk_and_a_share_of_the_others(
        self, tiny, mini_lm
    ):
        sample = self.sample(["Lighthouses", ""])
        request, found = self.request(
            read_recipe(tiny.recipe, ["targets.part_tokens=3"]), mini_lm, [sample]
        )
        read = mini_lm.tokenize([request.texts[0]])
        with torch.no_grad():
            ids = torch.from_numpy(read.ids).unsqueeze(0)
            states = mini_lm._model(ids).last_hidden_state[0].float()
        first = 1 + len(TOKENIZER.encode(["Lighthouses. "])[0])
        own = states[first:-1]
        own = own + (states.sum(0) - own.sum(0)) / len(own)
        expected = torch.nn.functional.normalize(
            torch.stack([part.sum(0) for part in own.split(3)]), dim=-1
        )
        assert (found.segments[: len(expected)] * expected).sum(1).min() > 0.995


def test_questions_are_read_after_all_texts_and_places_are_those_of_texts_and_samples():
    one = Sample("ab-0", "", "The rent is due.", [(0, 8)], Draw(0, 8, "", 1, 0), [], [
        Question("When is the rent due?", 4, 16), Question("rent", 0, 8),
    ])  # fmt: skip
    other = replace(one, id="ab-1", questions=[])
    none = [np.empty((0, 2), np.int64)] * 2
    tokens = TOKENIZER.encode([one.text, other.text])
    packed, rows = pack_samples([one, other], tokens, none, TOKENIZER)
    asked = TOKENIZER.encode(["When is the rent due?", "rent"])
    assert packed.lengths[2:] == tuple(len(each) + 2 for each in asked)
    for start, end, each in zip(rows.question_starts, rows.question_ends, asked, strict=True):
        assert packed.ids_T[start:end].tolist() == each.ids.tolist()
        assert packed.ids_T[start - 1] == TOKENIZER.cls_token_id
    chunks, answers = places([one, other])
    assert chunks[0, 0] == chunks[1, 0] == answers[0, 0]
    assert chunks[0, 1] == answers[1, 1] != chunks[1, 1]
    assert answers[:, 2:].tolist() == [[4, 16], [0, 8]]


def test_a_shard_keeps_contexts_and_questions_and_says_what_had_none(tiny, tmp_path):
    texts = [f"Tide {number}\n\n{LEAD}\n{prose(200, number)}" for number in range(6)]
    (tmp_path / "untitled.txt").write_text(prose(300))
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    changes = [
        f'corpus.sources=[{{kind="files", path="{tmp_path}/*.txt", titles="first_line"}}]',
        "corpus.held_out=0.0", "corpus.min_characters=10", "context.texts=1.0",
        "context.questions_per_crop=2", "context.max_tokens=16", "split.chunk_tokens=[16, 40]",
    ]  # fmt: skip
    recipe = read_recipe(tiny.recipe, changes)
    start = start_folder(recipe, tmp_path / "start")
    folder = teach(recipe, start, tmp_path / "targets")
    samples = [one.sample for shard in folder.shards for one in folder.read(shard)]
    expected = {
        sample.id: sample
        for text in texts
        for sample in cut_samples(
            corpus_text(text), start_tokenizer(start), recipe.split, context=recipe.context
        )
    }
    kept = {one.id: replace(one, source="here") for one in samples if one.contexts}
    assert kept == expected
    assert sum(len(sample.questions) for sample in kept.values()) > 6
    assert folder.no_context["texts without a title"] == 1


def test_a_start_with_a_title_mark_reads_it_wherever_its_tokenizer_does(tmp_path):
    from transformers import AutoTokenizer

    recipe = BaseRecipe(checkpoint=str(MINI), title_mark="¶", single_vector="mean")
    from_checkpoint(recipe, tmp_path / "start")
    tokenizer = start_tokenizer(tmp_path / "start")
    assert tokenizer.marks_titles
    theirs = AutoTokenizer.from_pretrained(tmp_path / "start")
    own = tokenizer.encode([TEXT])[0].ids.tolist()
    assert theirs(TEXT)["input_ids"][1:-1] == own
    assert own.count(theirs.convert_tokens_to_ids("¶")) == 1
    with pytest.raises(CheckpointError, match="'no such' is no token"):
        from_checkpoint(recipe.model_copy(update={"title_mark": "no such"}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_texts_of_sources_without_titles_are_counted_where_contexts_are_wanted(tiny, tmp_path):
    (tmp_path / "a.txt").write_text(prose(300))
    changes = [
        f'corpus.sources=[{{kind="files", path="{tmp_path}/*.txt"}}]', "corpus.held_out=0.0",
    ]  # fmt: skip
    recipe = read_recipe(tiny.recipe, changes)
    start = start_folder(recipe, tmp_path / "start")
    folder = teach(recipe, start, tmp_path / "targets")
    assert folder.no_context == {"texts of a source without titles": 1}
    assert sum(shard.num_contextual for shard in folder.shards) == 0
    plain = recipe.model_copy(update={"context": None})
    assert teach(plain, start, tmp_path / "plain").no_context == {}


def test_a_title_of_a_column_stands_above_its_text_and_in_the_targets(tiny, tmp_path):
    rows = [{"name": f"Tide {n}", "text": f"{LEAD}\n{prose(120, n)}"} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [
        f'corpus.sources=[{{kind="files", path="{tmp_path}/a.jsonl", titles="column:name"}}]',
        "corpus.held_out=0.0", "context.texts=1.0", 'context.tops={"title"=1.0}',
    ]  # fmt: skip
    recipe = read_recipe(tiny.recipe, changes)
    folder = teach(recipe, start_folder(recipe, tmp_path / "start"), tmp_path / "targets")
    samples = [one.sample for shard in folder.shards for one in folder.read(shard)]
    tops = {sample.text.partition("\n\n")[0] for sample in samples}
    assert tops == {row["name"] for row in rows}
    for sample in samples:
        assert {each.partition(".")[0] for each in sample.contexts} <= {sample.text[:6], ""}
    assert folder.no_context.keys() <= {"questions without a passage"}
