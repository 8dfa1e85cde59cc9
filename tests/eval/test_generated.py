"""Generated tasks: LongEmbed's statistics, one answer to each question, the answer in its place."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.encoder import Dewey
from dewey_embed.errors import ConfigError
from dewey_embed.eval.generated import (
    FORMS,
    LENGTHS,
    SUITES,
    TOWNS,
    essay,
    needle,
    passkey,
    position,
    refrain,
    suite,
)

PASS_KEY = re.compile(
    r"(\w+ \w+)'s pass key is (\d{5})\. Remember it\. \2 is the pass key for \1\."
)
SLOTS = re.compile(r"\\\{(?!town)\w+\\\}")


def published(task):
    """What mteb publishes of a task, by length."""
    [folder] = find_spec("mteb").submodule_search_locations
    path = Path(folder, "descriptive_stats", "Retrieval", f"LEMB{task}Retrieval.json")
    return {
        int(split.removeprefix("test_")): statistics
        for split, statistics in json.loads(path.read_text(encoding="utf-8")).items()
    }


def fact_of(question):
    """The pattern of the sentence that answers a question of `needle`."""
    for sentence, asked in FORMS:
        found = re.fullmatch(re.escape(asked).replace(r"\{town\}", "(.+)"), question)
        if found and found[1] in TOWNS:
            pattern = SLOTS.sub("[^.]+?", re.escape(sentence))
            return re.compile(pattern.replace(r"\{town\}", re.escape(found[1])))
    raise AssertionError(question)


class TestLongEmbedStatistics:
    @pytest.mark.parametrize(("task", "make"), [("Passkey", passkey), ("Needle", needle)])
    def test_counts_are_equal_and_mean_lengths_within_one_percent(self, task, make):
        statistics = published(task)
        assert tuple(sorted(statistics)) == LENGTHS
        for length, of in statistics.items():
            made = make(length)
            documents = [len(text) for text in made.documents.values()]
            queries = [len(text) for text in made.queries.values()]
            relevant = of["relevant_docs_statistics"]
            assert len(documents) + len(queries) == of["num_samples"]
            assert (
                len(set(made.documents.values())) == of["documents_text_statistics"]["unique_texts"]
            )
            assert sum(map(len, made.qrels.values())) == relevant["num_relevant_docs"]
            assert (
                len({next(iter(one)) for one in made.qrels.values()})
                == (relevant["unique_relevant_docs"])
            )
            for ours, theirs in (
                (documents, of["documents_text_statistics"]),
                (queries, of["queries_text_statistics"]),
            ):
                wanted = theirs["average_text_length"]
                assert mean(ours) == pytest.approx(wanted, rel=0.01), length

    def test_the_longest_lengths_go_on_in_proportion(self):
        for make in (passkey, needle):
            longest, twice = (
                mean(map(len, make(length, num=2).documents.values())) for length in (32768, 131072)
            )
            assert twice / longest == pytest.approx(4, rel=0.01)

    def test_a_pass_key_at_131072_fits_into_as_many_tokens_of_the_mini(self):
        tokenizer = Dewey.load().tokenizer
        [text] = passkey(131_072, num=1, num_documents=1).documents.values()
        assert 115_000 < len(tokenizer.encode([text])[0]) <= 131_070


class TestSameEveryTime:
    @pytest.mark.parametrize("make", [passkey, needle, lambda *a, **k: position(*a, "late", **k)])
    def test_the_same_arguments_make_the_same_texts_and_another_seed_others(self, make):
        assert make(300, num=5).digest == make(300, num=5).digest
        assert make(300, num=5, seed=1).digest != make(300, num=5).digest

    def test_pass_keys_and_questions_are_the_same_at_every_length(self):
        short, long = passkey(100, num=6), passkey(900, num=6)
        assert short.queries == long.queries
        assert short.qrels == long.qrels

    @given(st.integers(0, 3000), st.integers(0, 3000))
    def test_filler_is_the_start_of_longer_filler_and_no_longer_than_asked(self, one, other):
        for make in (essay, refrain):
            short, long = make(min(one, other)), make(max(one, other))
            assert long.startswith(short)
            assert len(short) <= min(one, other)
            assert len(short) > min(one, other) - 20


sizes = {"length": st.integers(64, 1500), "num": st.integers(1, 12), "seed": st.integers(0, 99)}


class TestOneAnswerToEachQuestion:
    @settings(max_examples=25, deadline=None)
    @given(**sizes)
    def test_a_pass_key_is_in_its_document_and_its_name_in_no_other(self, length, num, seed):
        made = passkey(length, num=num, seed=seed)
        names = {}
        for document, text in made.documents.items():
            [(name, _)] = PASS_KEY.findall(text)
            names[name] = document
            rest = " ".join(PASS_KEY.sub("", text).split())
            assert refrain(10_000).startswith(rest)
        assert len(names) == len(made.documents) == 2 * num
        for query, text in made.queries.items():
            name = text.removeprefix("what is the pass key for ").removesuffix("?")
            assert made.qrels[query] == {names[name]: 1}

    @settings(max_examples=25, deadline=None)
    @given(**sizes)
    def test_a_fact_is_in_its_document_and_in_no_other(self, length, num, seed):
        made = needle(length, num=num, seed=seed)
        assert len(set(made.queries.values())) == num
        for query, question in made.queries.items():
            fact = fact_of(question)
            holding = {name: 1 for name, text in made.documents.items() if fact.search(text)}
            assert holding == made.qrels[query]

    def test_answers_are_not_the_first_documents(self):
        made = needle(256)
        answering = {next(iter(one)) for one in made.qrels.values()}
        assert answering != set(list(made.documents)[:50])


class TestPosition:
    @pytest.mark.parametrize(
        ("place", "first", "last"), [("early", 0, 0.1), ("middle", 0.45, 0.55), ("late", 0.9, 1)]
    )
    def test_the_answer_stands_in_its_tenth(self, place, first, last):
        made = position(2048, place, num=10)
        for query, question in made.queries.items():
            [document] = made.qrels[query]
            text = made.documents[document]
            depth = fact_of(question).search(text).start() / len(text)
            assert first - 0.02 <= depth <= last + 0.02

    def test_only_the_place_differs(self):
        early, middle, late = (position(512, place, num=8) for place in ("early", "middle", "late"))
        assert early.queries == middle.queries == late.queries
        assert early.qrels == middle.qrels == late.qrels
        for name, text in early.documents.items():
            assert sorted(text.split()) == sorted(late.documents[name].split())
            assert text != late.documents[name]


class TestSuites:
    def test_tasks_are_named_by_what_and_length(self):
        assert [task.name for task in suite("passkey")] == [f"passkey-{each}" for each in LENGTHS]

    def test_another_name_is_refused_with_those_there_are(self):
        with pytest.raises(ConfigError, match=", ".join(SUITES)):
            suite("haystack")


class TestRefusals:
    @pytest.mark.parametrize("length", [1, 10, 20])
    @pytest.mark.parametrize("make", [passkey, needle, lambda length: position(length, "late")])
    def test_a_length_too_short_for_the_sentence(self, make, length):
        with pytest.raises(ConfigError, match=f"length {length} is too short.*a sentence of"):
            make(length)

    def test_numbers_below_one(self):
        with pytest.raises(ConfigError, match="length is 0"):
            passkey(0)
        with pytest.raises(ConfigError, match="num 0"):
            needle(256, num=0)

    def test_fewer_documents_than_queries(self):
        with pytest.raises(ConfigError, match="num_documents is 3, fewer than the 5 queries"):
            passkey(256, num=5, num_documents=3)

    def test_more_than_there_are_different_ones(self):
        with pytest.raises(ConfigError, match="there are 900"):
            needle(256, num=451)

    def test_an_unknown_place(self):
        with pytest.raises(ConfigError, match="early, middle, late"):
            position(256, "somewhere")
