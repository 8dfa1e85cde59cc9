"""Words: any script is found by what people type, and BM25 is the textbook's."""

import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_embed.index.words import (
    FUNCTION_WORD_WEIGHT,
    K1,
    B,
    WordIndex,
    count_words,
    query_words,
    word_signatures,
    write_word_index,
)


def index_of(texts, folder):
    counted = [count_words(text) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(numbers) for numbers, _ in counted])
    numbers, counts = (np.concatenate(each) for each in zip(*counted, strict=True))
    write_word_index(folder, "document", len(texts), (rows, numbers, counts))
    return WordIndex(folder, "document", np.load)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("東京の天気は晴れです。明日は雨が降るでしょう。", "天気"),
        ("東京の天気は晴れです。明日は雨が降るでしょう。", "雨"),
        ("合同的终止条款如下", "终止"),
        ("ประเทศไทยมีอากาศร้อน", "อากาศ"),
        ("ປະເທດລາວມີອາກາດຮ້ອນ", "ອາກາດ"),
        ("ព្រះរាជាណាចក្រកម្ពុជា", "កម្ពុជា"),
        ("계약서를 해지할 수 있다", "계약서"),
        ("ｶﾀｶﾅ ABC", "カタカナ"),
        ("नमस्ते दुनिया", "दुनिया"),
        (unicodedata.normalize("NFD", "Herr Müller öffnet spät."), "Müller"),
        ("Herr Müller öffnet spät.", "muller"),
        ("Die Donau\u00addampf\u00adschiff\u00adfahrt beginnt.", "Donaudampfschifffahrt"),
        ("STRASSE und Straße", "straße"),
        ("Łódź, Ærø, Þórr", "lodz aero thorr"),
        ("ﬁnancial ﬂow Ⅻ", "financial flow xii"),
        ("Ελλάδα και Κρήτη", "ΕΛΛΑΔΑ"),
        ("שָׁלוֹם", "שלום"),
        ("مُحَمَّد", "محمد"),
        ("x" * 60 + " is the hash", "x" * 60),
        ("part qx7731b", "QX7731B"),
        ("leases were terminated", "terminating a lease"),
        ("snake_case_name(self)", "case"),
        ("with", "with"),
        ("a loop: for, while", "for"),
        ("to be or not to be", "to be or not to be"),
    ],
)
def test_a_word_is_found_as_people_type_it(tmp_path, text, query):
    scores = index_of([text, "The clerk stamped ledger nine."], tmp_path).scores(query)
    assert scores[0] > scores[1]


def test_part_of_an_unspaced_sentence_that_is_not_in_it_is_not_found(tmp_path):
    assert index_of(["東京の天気", "x"], tmp_path).scores("京都").max() == 0


@given(st.text(max_size=60))
def test_whatever_the_text_its_counts_are_of_distinct_words(text):
    numbers, counts = count_words(text)
    assert np.all(np.diff(numbers.astype(np.int64)) > 0)
    assert np.all(counts > 0)
    asked, weights = query_words(text)
    assert len(asked) == len(weights)
    assert np.isin(asked, numbers).all()  # a text is found by itself


def test_scores_are_those_of_the_formula(tmp_path):
    texts = ["zebra zebra grass", "grass", "grass patents zebra lion tiger", ""]
    scores = index_of(texts, tmp_path).scores("zebra patent")
    lengths, mean = np.array([3, 1, 5]), 3.0

    def rarity(holders, num=3):
        return np.log(1 + (num - holders + 0.5) / (holders + 0.5))

    def part(count, length, holders):
        return rarity(holders) * count / (count + K1 * (1 - B + B * length / mean))

    expected = [
        part(2, lengths[0], 2),
        0,
        part(1, lengths[2], 2) + part(1, lengths[2], 1),
        0,
    ]
    most = rarity(2) + rarity(1)
    np.testing.assert_allclose(scores, np.array(expected) / most, rtol=1e-6)


def test_a_word_that_stands_nowhere_lowers_every_score_alike(tmp_path):
    index = index_of(["zebra grass", "grass", "lion"], tmp_path)
    known, beside = index.scores("zebra grass"), index.scores("zebra grass quagga")
    assert (beside[:2] < known[:2]).all()
    np.testing.assert_allclose(beside / beside[0], known / known[0], rtol=1e-6)


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=6), st.text("ab ", max_size=6))
def test_scores_are_from_zero_to_one(texts, query):
    with TemporaryDirectory() as folder:
        scores = index_of(texts, Path(folder)).scores(query)
    assert ((scores >= 0) & (scores < 1)).all()


def test_texts_of_the_same_words_have_the_same_signature():
    texts = [
        "The tenant pays.",
        "PAYS the tenant",
        "The tenants pay!",
        "The tenant pays 2",
        "",
        "?",
    ]
    counted = [count_words(text) for text in texts]
    rows = np.repeat(np.arange(len(texts)), [len(numbers) for numbers, _ in counted])
    numbers, counts = (np.concatenate(each) for each in zip(*counted, strict=True))
    one, two, three, other, empty, marks = word_signatures(len(texts), (rows, numbers, counts))
    assert one == two == three != other
    assert empty == marks == 0


def test_scores_equal_another_implementations(tmp_path):
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(5)
    vocabulary = [f"w{n}x" for n in range(40)]
    texts = [" ".join(rng.choice(vocabulary, 1 + n % 17)) for n in range(60)]
    peer = bm25s.BM25(k1=K1, b=B, method="lucene")
    peer.index([text.split() for text in texts], show_progress=False)
    ours = index_of(texts, tmp_path)
    for query in (["w1x", "w2x"], ["w39x"], ["w5x", "w6x", "w7x"]):
        _, most = ours.postings(" ".join(query))
        np.testing.assert_allclose(
            most * ours.scores(" ".join(query)), peer.get_scores(query), rtol=1e-4
        )


def test_function_words_weigh_less_and_repeats_no_more():
    [number], [count] = count_words("patent")
    assert count == 1
    numbers, weights = query_words("patent, patents: the patent of his")
    by_number = dict(zip(numbers.tolist(), weights.tolist(), strict=True))
    assert by_number.pop(int(number)) == 1
    assert set(by_number.values()) == {np.float32(FUNCTION_WORD_WEIGHT)}
    assert len(by_number) == 3
