"""Every splitter covers the tokens, keeps its sizes, and says which characters it took."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dewey_embed.errors import ConfigError, SpanError
from dewey_embed.text.splitter import SPLITTERS, _words, spans_from_characters, split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.types import Span, Tokens

from .conftest import hard_texts

properties = settings(
    max_examples=350, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def cut(tokenizer: Tokenizer, text: str, **options) -> list[Span]:
    return split(text, tokenizer.encode([text])[0], **options)


def plain_tokens(num_tokens: int) -> Tokens:
    """Tokens of one character each."""
    starts = np.arange(num_tokens)
    return Tokens(ids=starts, offsets=np.stack([starts, starts + 1], axis=1))


@pytest.mark.parametrize("splitter", SPLITTERS)
@given(text=hard_texts, chunk_tokens=st.integers(1, 12), data=st.data())
@properties
def test_any_text_is_covered_within_sizes(tokenizer, splitter, text, chunk_tokens, data):
    chunk_overlap = data.draw(st.integers(0, chunk_tokens - 1))
    (tokens,) = tokenizer.encode([text])
    options = {"splitter": splitter, "chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
    spans = split(text, tokens, **options)
    assert spans == split(text, tokens, **options)
    if not len(tokens):
        assert spans == []
        return
    assert spans[0].token_start == 0
    assert spans[-1].token_end == len(tokens)
    for span in spans:
        assert type(span) is Span
        assert all(type(number) is int for number in span)
        assert 0 < span.num_tokens <= chunk_tokens
        assert span.char_start == tokens.offsets[span.token_start, 0]
        assert span.char_end == tokens.offsets[span.token_end - 1, 1]
        assert 0 <= span.char_start < span.char_end <= len(text)
    for before, after in pairwise(spans):
        assert before.token_start < after.token_start <= before.token_end
        assert before.token_end < after.token_end
        assert before.token_end - after.token_start <= chunk_overlap


@given(text=hard_texts, chunk_tokens=st.integers(1, 8))
@properties
def test_a_spans_text_alone_tokenizes_to_all_its_characters(tokenizer, text, chunk_tokens):
    spans = cut(tokenizer, text, splitter="words", chunk_tokens=chunk_tokens)
    slices = [text[span.char_start : span.char_end] for span in spans]
    for piece, tokens in zip(slices, tokenizer.encode(slices), strict=True):
        if piece.isspace():
            continue
        assert tokens.offsets[0, 0] == 0
        assert tokens.offsets[-1, 1] == len(piece)


@given(text=hard_texts, data=st.data())
@properties
def test_an_explicit_range_takes_in_every_token_that_it_touches(tokenizer, text, data):
    (tokens,) = tokenizer.encode([text])
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    touched = [i for i, (a, b) in enumerate(tokens.offsets.tolist()) if a < end and b > start]
    if not touched:
        with pytest.raises(SpanError, match="holds no token"):
            spans_from_characters(tokens, [(start, end)], num_chars=len(text))
        return
    (span,) = spans_from_characters(tokens, [(start, end)], num_chars=len(text))
    assert list(range(span.token_start, span.token_end)) == touched
    assert span.char_start == tokens.offsets[touched[0], 0]
    assert span.char_end == tokens.offsets[touched[-1], 1]


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [
        (1, [(0, 1)]),
        (10, [(0, 10)]),
        (11, [(0, 10), (7, 11)]),
        (17, [(0, 10), (7, 17)]),
        (18, [(0, 10), (7, 17), (14, 18)]),
    ],
)
def test_windows_stop_when_the_text_is_covered(num_tokens, expected):
    spans = split("x" * num_tokens, plain_tokens(num_tokens), chunk_tokens=10, chunk_overlap=3)
    assert [(span.token_start, span.token_end) for span in spans] == expected


def test_a_window_does_not_divide_an_emoji(byte_level):
    text = "a b c 👩 d"
    (tokens,) = byte_level.encode([text])
    for chunk_tokens in range(4, 8):
        spans = split(text, tokens, chunk_tokens=chunk_tokens)
        assert "".join(text[span.char_start : span.char_end] for span in spans) == text


@pytest.mark.parametrize("splitter", ["words", "recursive"])
@pytest.mark.parametrize("chunk_overlap", [0, 16])
def test_chunks_of_words_tokenize_alone_as_they_do_within(
    word_pieces, english, splitter, chunk_overlap
):
    for text in english[:8]:
        (tokens,) = word_pieces.encode([text])
        spans = split(text, tokens, splitter=splitter, chunk_tokens=64, chunk_overlap=chunk_overlap)
        alone = word_pieces.encode([text[span.char_start : span.char_end] for span in spans])
        for span, found in zip(spans, alone, strict=True):
            assert found.ids.tolist() == tokens.ids[span.token_start : span.token_end].tolist()


@pytest.mark.parametrize("splitter", ["words", "recursive"])
def test_edges_are_at_white_space(tokenizer, english, splitter):
    text = english[0]
    for span in cut(tokenizer, text, splitter=splitter, chunk_tokens=40, chunk_overlap=10):
        assert span.char_start == 0 or text[span.char_start - 1 : span.char_start + 1].split() != [
            text[span.char_start - 1 : span.char_start + 1]
        ]
        assert span.char_end == len(text) or text[span.char_end].isspace()


def test_words_fill_chunks_and_overlap_by_whole_words(word_pieces):
    text = "one two three four five six seven"
    spans = cut(word_pieces, text, splitter="words", chunk_tokens=3, chunk_overlap=1)
    assert [text[span.char_start : span.char_end] for span in spans] == [
        "one two three",
        "three four five",
        "five six seven",
    ]


def test_a_word_too_long_for_a_chunk_is_cut_between_tokens(word_pieces):
    text = "a " + "abcdefghij" * 20 + " b"
    spans = cut(word_pieces, text, splitter="words", chunk_tokens=8)
    assert max(span.num_tokens for span in spans) == 8
    assert text[spans[0].char_start : spans[0].char_end] == "a"
    assert "".join(text[s.char_start : s.char_end] for s in spans).replace(" ", "") == text.replace(
        " ", ""
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_recursive_prefers_paragraphs_then_lines(word_pieces, newline):
    paragraphs = ["one two" + newline + "three four", "five six", "seven eight nine ten eleven"]
    text = (newline * 2).join(paragraphs)
    spans = cut(word_pieces, text, splitter="recursive", chunk_tokens=5)
    assert [text[s.char_start : s.char_end] for s in spans] == [
        "one two" + newline + "three four",
        "five six",
        "seven eight nine ten eleven",
    ]
    spans = cut(word_pieces, text, splitter="recursive", chunk_tokens=3)
    assert [text[s.char_start : s.char_end] for s in spans] == [
        *("one two", "three four", "five six", "seven eight nine", "ten eleven")
    ]


def test_recursive_cuts_where_langchain_does(word_pieces, english):
    """On the text itself, measured by tokenizing every piece: slow, but the definition."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    langchain = RecursiveCharacterTextSplitter(
        chunk_size=50,
        chunk_overlap=0,
        keep_separator=True,
        strip_whitespace=True,
        length_function=lambda piece: len(word_pieces.encode([piece])[0]),
    )
    for topic in english[:3]:
        # One separator at a time: langchain counts each blank of a run as a word's place.
        text = "\n\n".join(
            "\n".join(" ".join(line.split()) for line in paragraph.split("\n"))
            for paragraph in topic.split("\n\n")
        ).strip()
        spans = cut(word_pieces, text, splitter="recursive", chunk_tokens=50)
        assert [text[s.char_start : s.char_end] for s in spans] == langchain.split_text(text)


@given(text=hard_texts, room=st.integers(1, 12))
@properties
def test_recursive_cuts_any_text_where_langchain_does(tokenizer, text, room):
    """On a picture of the text: an `x` for each token, a separator before each word."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    (tokens,) = tokenizer.encode([text])
    if not len(tokens):
        return
    words, num_breaks = _words(text, tokens)
    separators = np.array([" ", "\n", "\f"])[np.minimum(num_breaks, 2)].tolist()
    picture = "".join(
        separator + "x" * num_tokens
        for separator, num_tokens in zip(separators, np.diff(words).tolist(), strict=True)
    )
    pieces = RecursiveCharacterTextSplitter(
        separators=["\f", "\n", " "],
        chunk_size=room,
        chunk_overlap=0,
        length_function=lambda piece: piece.count("x"),
        keep_separator=True,
        strip_whitespace=False,
    ).split_text(picture)
    theirs = set(np.cumsum([piece.count("x") for piece in pieces]).tolist())
    ours = {span.token_end for span in split(text, tokens, splitter="recursive", chunk_tokens=room)}
    assert theirs <= ours
    for end in ours - theirs:  # only within words that are longer than a chunk
        word = int(np.searchsorted(words, end)) - 1
        assert words[word] < end < words[word + 1]
        assert words[word + 1] - words[word] > room


def test_recursive_places_repeated_text_where_it_stands(word_pieces):
    text = "the same line\n\n" * 40
    spans = cut(word_pieces, text, splitter="recursive", chunk_tokens=3)
    assert [span.char_start for span in spans] == list(range(0, len(text), 15))


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_an_overlap_is_kept_to_and_used_where_units_are_small(tokenizer, english, splitter):
    spans = cut(tokenizer, english[0], splitter=splitter, chunk_tokens=64, chunk_overlap=16)
    overlaps = [before.token_end - after.token_start for before, after in pairwise(spans)]
    assert max(overlaps) <= 16
    if splitter in ("tokens", "words", "recursive"):  # a longer unit may not fit in the overlap
        assert np.mean(overlaps) > 12


def test_a_function_gives_ranges_in_its_own_order(word_pieces):
    text = "one two three"
    spans = cut(
        word_pieces, text, splitter=lambda _: iter([(4, 13), (0, 3), (0, 13)]), chunk_tokens=1
    )
    assert spans == [(4, 13, 1, 3), (0, 3, 0, 1), (0, 13, 0, 3)]


def test_a_range_within_a_token_takes_all_of_it(word_pieces):
    (tokens,) = word_pieces.encode(["one two three"])
    assert spans_from_characters(tokens, [(5, 6), (2, 5)], num_chars=13) == [
        (4, 7, 1, 2),
        (0, 7, 0, 2),
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((3, 3), r"range 1 is \(3, 3\): it is empty"),
        ((5, 2), r"range 1 is \(5, 2\): it runs backwards"),
        ((5, -1), r"range 1 is \(5, -1\): it runs backwards"),
        ((-2, 2), r"range 1 is \(-2, 2\): the text has 13 characters"),
        ((0, 14), r"range 1 is \(0, 14\): the text has 13 characters"),
        ((0, 10**30), r"range 1 .* the text has 13 characters"),
        ((3, 4), r"range 1 is \(3, 4\): it holds no token"),
    ],
)
def test_a_bad_range_is_refused_with_its_position_and_numbers(word_pieces, bad, message):
    (tokens,) = word_pieces.encode(["one two three"])
    with pytest.raises(SpanError, match=message):
        spans_from_characters(tokens, [(0, 3), bad], num_chars=13)
    with pytest.raises(SpanError, match=message):
        split("one two three", tokens, splitter=lambda _: [(0, 3), bad], chunk_tokens=8)


@pytest.mark.parametrize("bad", [(0.0, 3.0), "ab", (1,), (1, 2, 3), None, 5, ("0", "3")])
def test_a_range_that_is_no_pair_of_integers_is_a_type_error(word_pieces, bad):
    (tokens,) = word_pieces.encode(["one two three"])
    with pytest.raises(TypeError, match="range 1 is"):
        spans_from_characters(tokens, [(0, 3), bad], num_chars=13)


def test_ranges_may_be_numpys(word_pieces):
    (tokens,) = word_pieces.encode(["one two three"])
    expected = [(0, 3, 0, 1)]
    assert spans_from_characters(tokens, np.array([[0, 3]]), num_chars=13) == expected
    assert spans_from_characters(tokens, [(np.int32(0), np.int64(3))], num_chars=13) == expected
    assert spans_from_characters(tokens, [], num_chars=13) == []


@pytest.mark.parametrize(("chunk_tokens", "chunk_overlap"), [(0, 0), (-1, 0), (8, 8), (8, -1)])
def test_sizes_that_cannot_advance_are_refused(chunk_tokens, chunk_overlap):
    with pytest.raises(ConfigError, match=f"chunk_tokens {chunk_tokens} with"):
        split("x", plain_tokens(1), chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap)


@pytest.mark.parametrize("splitter", ["no-such", None, 3])
def test_an_unknown_splitter_is_refused(splitter):
    with pytest.raises(ConfigError, match=r"splitter is .* use 'tokens'"):
        split("x", plain_tokens(1), splitter=splitter, chunk_tokens=8)


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize(
    "text", ["a" * 200_000, " " * 200_000 + "x", "\n \r\n" * 40_000 + "x", "a\n\n" * 80_000]
)
def test_huge_dull_texts_are_cut_in_moments(tokenizer, splitter, text):
    (tokens,) = tokenizer.encode([text])
    start = time.process_time()
    spans = split(text, tokens, splitter=splitter, chunk_tokens=256, chunk_overlap=64)
    assert time.process_time() - start < 4
    assert spans[-1].token_end == len(tokens)


def test_windows_cost_a_few_microseconds_each():
    tokens = plain_tokens(131_072)
    text = "x" * 131_072
    best = min(_timed(split, text, tokens, chunk_tokens=64, chunk_overlap=32) for _ in range(3))
    assert best < 4095 * 10e-6


def _timed(function, *values, **options) -> float:
    start = time.perf_counter()
    function(*values, **options)
    return time.perf_counter() - start
