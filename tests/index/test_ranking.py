"""One score ranks passages and documents: the formula of scoring.py, row by row."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from dewey_embed.index.hits import document_hits, passage_hits
from dewey_embed.index.layout import open_layout
from dewey_embed.index.ranking import Query
from dewey_embed.index.words import K1, B, count_words, query_words
from tests.index.conftest import WIDTH, ranking, record, unit
from tests.index.test_store import write

VOCABULARY = [f"w{n}x" for n in range(30)]
QUERY = "w1x w2x w3x w77x"


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def text_of(rng, num):
    return " ".join(rng.choice(VOCABULARY, num))


def records_of(rng, num=40):
    """Documents of 1 to 9 sentences of one word, two to a passage; two in three have a title."""
    titles = unit(rng, 5, WIDTH)
    records = []
    for number in range(num):
        sentences = 1 + number % 9
        text = " ".join(rng.choice(VOCABULARY, sentences))
        made = record(f"d{number:03}", text, num_chunks=sentences)
        words = text.split()
        ends = np.cumsum([len(word) + 1 for word in words])
        spans = [
            span._replace(char_start=int(end) - len(word) - 1, char_end=int(end) - 1)
            for span, word, end in zip(made.vectors.spans, words, ends, strict=True)
        ]
        made = replace(made, vectors=replace(made.vectors, spans=spans))
        if number % 3:
            document = replace(made.document, title=f"t{number % 5}")
            made = replace(made, document=document, title_vector=titles[number % 5])
        records.append(made)
    return records


def unit_of(vector):
    return vector / np.linalg.norm(vector)


class Naive:
    """The scores of scoring.py's table, passage by passage, in plain loops."""

    def __init__(self, records, vector):
        self.vector = vector.astype(float)
        self.passages, self.texts, self.owner = [], [], []
        for owner, each in enumerate(records):
            for number in range(int(each.passages[-1]) + 1):
                own = each.passages == number
                weights = each.vectors.norms[own]  # of one token each
                self.passages.append((each.vectors.chunks[own] * weights[:, None]).sum(0))
                spans = [s for s, is_own in zip(each.vectors.spans, own, strict=True) if is_own]
                self.texts.append(each.document.text[spans[0].char_start : spans[-1].char_end])
                self.owner.append(owner)
        self.records = records

    def near(self, row):
        return [
            other
            for other in range(max(0, row - 2), min(len(self.passages), row + 3))
            if self.owner[other] == self.owner[row]
        ]

    def cosine(self, vector):
        return max(0.0, float(unit_of(vector.astype(float)) @ self.vector))

    def document(self, owner):
        return self.cosine(self.records[owner].vectors.vector)

    def title(self, owner):
        title = self.records[owner].title_vector
        return self.document(owner) if title is None else self.cosine(title)

    def meaning(self, row):
        around = sum(self.passages[other] for other in self.near(row))
        document, title = self.document(self.owner[row]), self.title(self.owner[row])
        return (
            self.cosine(self.passages[row]) + self.cosine(around) / 2 + document * 3 / 4 + title / 2
        )

    def words(self, row):
        around = [" ".join(self.texts[r] for r in self.near(o)) for o in range(len(self.texts))]
        whole = [f"{each.document.title} {each.document.text}" for each in self.records]
        return (
            bm25(self.texts, row, self.texts)
            + bm25(around, row, self.texts) / 2
            + bm25(whole, self.owner[row], whole) * 3 / 4
        )

    def scores(self, mode):
        if mode == "single":
            return [0.6 * self.document(owner) + 0.4 * self.title(owner) for owner in self.owner]
        rows = range(len(self.passages))
        if mode == "multi":
            return [self.meaning(row) / 2.75 for row in rows]
        most = 0.35 * 2.75 + 0.65 * 2.25
        return [(0.35 * self.meaning(row) + 0.65 * self.words(row)) / most for row in rows]


@cache
def counts(text):
    """How often a text holds each word, by the word's number."""
    return dict(zip(*map(np.ndarray.tolist, count_words(text)), strict=True))


def bm25(texts, row, rarity_of):
    """The share of the most that a query could reach in one of several texts."""
    counted = [counts(text) for text in texts]
    held = [set(counts(text)) for text in rarity_of]
    lengths = [sum(each.values()) for each in counted]
    total = most = 0.0
    for number, weight in zip(*map(np.ndarray.tolist, query_words(QUERY)), strict=True):
        frequency = sum(number in words for words in held)
        rarity = weight * np.log(1 + (len(held) - frequency + 0.5) / (frequency + 0.5))
        count = counted[row].get(number, 0)
        norm = K1 * (1 - B + B * lengths[row] / np.mean(lengths))
        total += rarity * count / (count + norm)
        most += rarity
    return total / most


@pytest.mark.parametrize("mode", ["hybrid", "multi", "single"])
@pytest.mark.parametrize("few", [False, True], ids=["all compared", "candidates"])
def test_scores_are_those_of_the_table(store, rng, monkeypatch, mode, few):
    if few:
        monkeypatch.setattr("dewey_embed.index.layout_writer.EXACT_LIMIT", 20)
        monkeypatch.setattr("dewey_embed.index.vectors.EXACT_LIMIT", 20)
        monkeypatch.setattr("dewey_embed.index.ranking.CANDIDATES", 2)
        monkeypatch.setattr("dewey_embed.index.ranking.MOST_OF", 16)
        monkeypatch.setattr("dewey_embed.index.ranking.PASSAGES_OF_NEAR", 2)
    records = records_of(rng)
    write(store, records)
    layout = open_layout(store.folder, store.snapshot())
    for _ in range(5):
        vector = unit(rng, WIDTH)
        naive = Naive(records, vector)
        expected = np.array(naive.scores("multi" if mode == "single" else mode))
        found = ranking(layout, vector, text=QUERY, mode=mode)
        passages = list(found.passages())
        assert sorted(row for row, _ in passages) == list(range(len(expected)))
        scores = [score for _, score in passages]
        assert scores == sorted(scores, reverse=True)
        by_document = np.array(naive.scores(mode))
        best = [max(by_document[np.array(naive.owner) == owner]) for owner in range(len(records))]
        documents = found.documents(len(records))
        assert len(documents) == len(records)
        if few:  # the best are nearly always candidates; a score never exceeds one before it
            assert passages[0][1] > 0.75 * max(expected)
            assert all(score <= best[row] + 2e-3 for row, score in documents)
            continue
        np.testing.assert_allclose(scores, -np.sort(-expected), atol=2e-3)
        for row, score in passages:
            assert score == pytest.approx(expected[row], abs=2e-3)
        for row, score in documents:
            assert score == pytest.approx(best[row], abs=2e-3)


@pytest.mark.parametrize("mode", ["hybrid", "multi", "single"])
@pytest.mark.parametrize("few", [False, True], ids=["all compared", "candidates"])
def test_fewer_are_the_first_of_more(store, rng, monkeypatch, mode, few):
    if few:
        monkeypatch.setattr("dewey_embed.index.layout_writer.EXACT_LIMIT", 20)
        monkeypatch.setattr("dewey_embed.index.vectors.EXACT_LIMIT", 20)
        monkeypatch.setattr("dewey_embed.index.ranking.CANDIDATES", 2)
        monkeypatch.setattr("dewey_embed.index.ranking.MOST_OF", 16)
    write(store, records_of(rng))
    layout = open_layout(store.folder, store.snapshot())
    for _ in range(10):
        vector = unit(rng, WIDTH)
        every = ranking(layout, vector, text=QUERY, mode=mode).documents(1000)
        for num in (1, 5, 39):
            few_documents = ranking(layout, vector, text=QUERY, mode=mode).documents(num)
            assert few_documents == every[:num]


@pytest.mark.parametrize("mode", ["hybrid", "multi", "single"])
def test_what_is_shown_for_few_is_the_beginning_of_what_is_shown_for_many(store, rng, mode):
    write(store, records_of(rng))
    snapshot = store.snapshot()
    layout = open_layout(store.folder, snapshot)
    for _ in range(15):
        words = " ".join(rng.choice([*VOCABULARY, "unknown"], rng.integers(1, 5)))
        query = Query(text=words, vector=unit(rng, WIDTH), k=5, mode=mode, passages=2)
        many = replace(query, k=1000, passages=100)
        few, every = (document_hits(each, snapshot, layout) for each in (query, many))
        assert len(every) == 40
        shortened = [replace(hit, passages=hit.passages[:2]) for hit in every[:5]]
        assert few == shortened
        assert passage_hits(query, snapshot, layout) == passage_hits(many, snapshot, layout)[:5]


@pytest.mark.parametrize("mode", ["hybrid", "multi", "single"])
def test_a_filter_leaves_the_scores_alone_and_still_gives_k(store, rng, mode):
    records = [
        replace(each, document=replace(each.document, metadata={"odd": bool(number % 2)}))
        for number, each in enumerate(records_of(rng))
    ]
    write(store, records)
    layout = open_layout(store.folder, store.snapshot())
    vector = unit(rng, WIDTH)
    every = ranking(layout, vector, text=QUERY, mode=mode).documents(40)
    odd = ranking(layout, vector, text=QUERY, mode=mode, where={"odd": True}).documents(40)
    assert odd == [(row, score) for row, score in every if row % 2]
    rows = {row for row, _ in ranking(layout, vector, where={"odd": True}).passages()}
    assert {int(layout.owners[row]) % 2 for row in rows} == {1}


def test_documents_without_text_are_found_by_their_title_and_have_no_passage(store, rng):
    title = unit(rng, WIDTH)
    blank = replace(record("blank", "", num_chunks=0, title="Quetzal"), title_vector=title)
    write(store, [blank, record("a"), record("b")])
    layout = open_layout(store.folder, store.snapshot())
    found = ranking(layout, title, text="quetzal")
    assert found.documents(1)[0][0] == 2  # behind a and b, by id
    assert sorted(row for row, _ in found.passages()) == [0, 1, 2, 3]
    assert list(map(len, found.passages_of(2))) == [0, 0]


def test_equal_documents_come_in_the_order_of_their_ids(store, rng):
    one = record("a", num_chunks=4)
    copies = [
        replace(one, document=replace(one.document, id=name), hash=name * 64) for name in "dcba"
    ]
    write(store, copies)
    layout = open_layout(store.folder, store.snapshot())
    for mode in ("hybrid", "multi", "single"):
        found = ranking(layout, unit(rng, WIDTH), mode=mode).documents(4)
        assert [row for row, _ in found] == [0, 1, 2, 3]
        assert len({score for _, score in found}) == 1
