"""Ids are those of transformers, offsets those of Python, for any text."""

import json
import sys
import time
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dewey_embed.errors import CheckpointError
from dewey_embed.text.characters import WHITE_SPACE
from dewey_embed.text.tokenizer import (
    GROUP_CHARS,
    SEGMENT_CHARS,
    Tokenizer,
    lossless_word_pieces,
    marking_titles,
)
from dewey_embed.titles import title_line, untitled

from .conftest import MINILM, hard_texts, train_byte_level

PROMPT = "<|START_INSTRUCTION|>Candidate document<|END_INSTRUCTION|>"

properties = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def hugging_face(word_pieces, byte_level):
    """The tokenizers of `transformers` for our two."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    return {
        word_pieces: AutoTokenizer.from_pretrained(MINILM),
        byte_level: PreTrainedTokenizerFast(tokenizer_object=train_byte_level()),
    }


def pieces(tokenizer: Tokenizer, text: str, **options: str) -> list[str]:
    (tokens,) = tokenizer.encode([text], **options)
    return [text[start:end] for start, end in tokens.offsets]


def test_ids_are_those_of_transformers(tokenizer, hugging_face, english):
    oracle = hugging_face[tokenizer](english, add_special_tokens=False, verbose=False)
    for tokens, ids in zip(tokenizer.encode(english), oracle["input_ids"], strict=True):
        assert tokens.ids.tolist() == ids
        assert tokens.ids.dtype == tokens.offsets.dtype == np.int64


def test_a_text_of_many_segments_has_the_ids_of_one_pass(tokenizer, hugging_face, english):
    text = "\n".join(english) + "  é\n\n \ttail"
    assert len(text) > 3 * SEGMENT_CHARS
    (tokens,) = tokenizer.encode([text])
    oracle = hugging_face[tokenizer](
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    assert tokens.ids.tolist() == oracle["input_ids"]
    assert tokens.offsets.tolist() == [list(pair) for pair in oracle["offset_mapping"]]


def test_groups_of_texts_come_back_in_order(byte_level, english):
    texts = english * 3
    assert sum(map(len, texts)) > GROUP_CHARS
    together = byte_level.encode(texts)
    for text, tokens in zip(texts[:5] + texts[-5:], together[:5] + together[-5:], strict=True):
        assert tokens.ids.tolist() == byte_level.encode([text])[0].ids.tolist()


@pytest.mark.parametrize("prompt", ["query: ", "search_document: ", "Represent this", PROMPT])
def test_prompt_and_text_have_the_ids_of_their_concatenation(
    tokenizer, hugging_face, english, prompt
):
    for text in english[:5]:
        (tokens,) = tokenizer.encode([text], prompt=prompt)
        oracle = hugging_face[tokenizer](prompt + text, add_special_tokens=False, verbose=False)
        assert [*tokens.prompt_ids, *tokens.ids] == oracle["input_ids"]


def test_a_prompts_own_control_tokens_are_recognised(byte_level):
    (tokens,) = byte_level.encode(["hello"], prompt=PROMPT)
    assert (tokens.prompt_ids[0], tokens.prompt_ids[-1]) == (2, 3)
    assert pieces(byte_level, "hello", prompt=PROMPT) == pieces(byte_level, "hello")


def test_a_token_that_straddles_prompt_and_text_is_the_texts(byte_level):
    (tokens,) = byte_level.encode(["the rest"], prompt="query: ")
    assert tokens.offsets[0].tolist()[0] == 0
    assert (tokens.offsets[:, 0] < tokens.offsets[:, 1]).all()
    (alone,) = byte_level.encode([" the rest"])
    assert tokens.ids.tolist() == alone.ids.tolist()


@pytest.mark.parametrize("special", ["[SEP]", "[CLS]", "[UNK]", "[MASK]", "<|END_INSTRUCTION|>"])
@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_special_tokens_spelled_in_a_text_are_ordinary(tokenizer, special, prompt):
    text = f"before {special}after{special}"
    (tokens,) = tokenizer.encode([text], prompt=prompt)
    specials = {i for i, t in tokenizer._backend.get_added_tokens_decoder().items() if t.special}
    assert not specials & set(tokens.ids.tolist())
    assert "".join(text[start:end] for start, end in tokens.offsets).replace(
        " ", ""
    ) == text.replace(" ", "")


def test_an_unknown_word_beside_a_spelled_unk_stays_unknown(word_pieces):
    (tokens,) = word_pieces.encode(["[UNK] \u5b57"])
    assert tokens.ids.tolist()[-1] == 100
    assert tokens.ids.tolist().count(100) == 1


@given(text=hard_texts)
@properties
def test_offsets_are_sound_for_any_text(tokenizer, text):
    (tokens,) = tokenizer.encode([text])
    starts, ends = tokens.offsets.T
    assert len(tokens.ids) == len(tokens.offsets)
    assert (starts < ends).all()
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(ends) >= 0).all()
    assert not len(tokens) or ends[-1] <= len(text)
    covered = np.zeros(len(text), bool)
    for start, end in tokens.offsets:
        covered[start:end] = True
    for place, character in enumerate(text):
        # What no token holds is white space, or was dropped after some or at the beginning.
        if not covered[place] and not character.isspace() and place:
            assert not covered[place - 1]


@given(text=hard_texts)
@properties
def test_byte_level_offsets_hold_the_bytes_of_their_tokens(byte_level, text):
    if text.isspace():
        return
    (tokens,) = byte_level.encode([text])
    replaced = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    alphabet = {c: b for b, c in _bytes_to_unicode().items()}
    for token_id, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
        written = bytes(alphabet[c] for c in byte_level._backend.id_to_token(int(token_id)))
        # Composition may reach over a mark to the next but one: look at all marks of the letter.
        whole = slice(*_with_its_marks(replaced, int(start), int(end)))
        assert written in unicodedata.normalize("NFC", replaced[whole]).encode()


def _with_its_marks(text: str, start: int, end: int) -> tuple[int, int]:
    """A range widened to the letter before and all the combining marks around it."""
    while start and unicodedata.combining(text[start]):
        start -= 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return start, end


def _bytes_to_unicode() -> dict[int, str]:
    """GPT-2's byte alphabet."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(others)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301x y", ["e\u0301x", "y"]),
        ("q\u0323\u0307 z", ["q\u0323\u0307", "z"]),
        ("a\x00b\r\nc", ["a\x00b", "c"]),
        ("one\ud800 two", ["one\ud800", "two"]),
        ("\u05d0 b", ["\u05d0", "b"]),
    ],
)
def test_characters_that_bert_drops_stay_with_their_word(word_pieces, text, expected):
    assert pieces(word_pieces, text) == expected


def test_bytes_of_an_emoji_share_its_offsets(byte_level):
    (tokens,) = byte_level.encode(["a👩b"])
    assert set(map(tuple, tokens.offsets.tolist())) == {(0, 1), (1, 2), (2, 3)}
    assert len(tokens) > 3


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\u3000"])
def test_a_blank_text_has_no_tokens(tokenizer, text):
    (tokens,) = tokenizer.encode([text], prompt="query: ")
    assert tokens.ids.shape == (0,)
    assert tokens.offsets.shape == (0, 2)
    assert len(tokens.prompt_ids) > 0


def test_no_texts_give_no_tokens(tokenizer):
    assert tokenizer.encode([]) == []


def test_a_long_word_is_cut_instead_of_lost(word_pieces):
    plain = Tokenizer(
        tokenizers.Tokenizer.from_file(str(MINILM / "tokenizer.json")),
        cls_token_id=101,
        sep_token_id=102,
    )
    text = "see " + "abcdefghij" * 30 + " end"
    assert plain.encode([text])[0].ids.tolist()[1] == 100
    (tokens,) = word_pieces.encode([text])
    assert 100 not in tokens.ids
    assert "".join(pieces(word_pieces, text)) == text.replace(" ", "")


def test_words_of_up_to_a_hundred_characters_keep_their_ids(word_pieces):
    plain = tokenizers.Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    for length in (1, 99, 100):
        text = ("word" * 25)[:length] + " after"
        expected = plain.encode(text, add_special_tokens=False).ids
        assert word_pieces.encode([text])[0].ids.tolist() == expected


def test_making_word_pieces_lossless_leaves_the_original_and_other_kinds_alone():
    backend = tokenizers.Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    before = backend.to_str()
    assert "FixedLength" in lossless_word_pieces(backend).to_str()
    assert backend.to_str() == before
    other = train_byte_level()
    assert lossless_word_pieces(other).to_str() == other.to_str()


@pytest.mark.parametrize("unit", ["a", "👩", "\u0301", "\x00", "[SEP]"])
def test_a_long_text_without_a_space_keeps_every_character(tokenizer, unit):
    text = unit * (5 * SEGMENT_CHARS // len(unit))
    (tokens,) = tokenizer.encode([text])
    if len(tokens):
        assert tokens.offsets[0, 0] == 0
        assert tokens.offsets[-1, 1] == len(text)
        assert (tokens.offsets[1:, 0] <= tokens.offsets[:-1, 1]).all()


@pytest.mark.slow
def test_ten_megabytes_without_a_space_take_seconds(tokenizer):
    text = "abcdefghij" * 1_000_000
    start = time.perf_counter()
    (tokens,) = tokenizer.encode([text])
    assert time.perf_counter() - start < 60
    assert tokens.offsets[-1, 1] == len(text)


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["nested"]])
def test_what_is_not_a_string_is_refused_with_its_position(tokenizer, wrong):
    with pytest.raises(TypeError, match=r"texts\[1\] is " + type(wrong).__name__):
        tokenizer.encode(["fine", wrong])


def test_a_single_string_is_not_a_list_of_texts(tokenizer):
    with pytest.raises(TypeError, match="single string"):
        tokenizer.encode("fine")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", cls_token_id=0, sep_token_id=1)


@pytest.mark.parametrize("content", ["", "not json", "{}", "\x00" * 20])
def test_a_foreign_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.from_file(path, cls_token_id=0, sep_token_id=1)


def test_cls_and_sep_must_be_in_the_vocabulary():
    with pytest.raises(CheckpointError, match="sep_token_id 99999"):
        Tokenizer.from_file(MINILM / "tokenizer.json", cls_token_id=101, sep_token_id=99_999)


def test_a_saved_tokenizer_gives_the_same_tokens_and_keeps_its_template(
    tokenizer, tmp_path, english
):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    again = Tokenizer.from_file(
        path, cls_token_id=tokenizer.cls_token_id, sep_token_id=tokenizer.sep_token_id
    )
    assert (
        again.encode(english[:3])[0].ids.tolist() == tokenizer.encode(english[:3])[0].ids.tolist()
    )
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["truncation"] is None
    assert saved["padding"] is None
    ids = tokenizers.Tokenizer.from_file(str(path)).encode("hello").ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_white_space_is_what_python_says():
    assert set(WHITE_SPACE) == {c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()}


TITLED = [
    "Albania\n\nIt lies by the sea.",
    "Ünïcode ﬁ \r\n \n\n  body\n\nmore",
    "a" * 200 + "\n\nb",
]
UNTITLED = [
    "Albania\nIt lies by the sea.",
    " Albania\n\nIt lies",
    "a" * 201 + "\n\nb",
    "One line only",
    "",
    "\n\nAlbania",
]


@pytest.fixture(scope="module")
def marking(word_pieces):
    backend = marking_titles(word_pieces._backend, "¶")
    return Tokenizer(backend, cls_token_id=101, sep_token_id=102)


def test_a_mark_stands_where_a_blank_line_follows_the_first_line(word_pieces, marking):
    assert marking.marks_titles
    assert not word_pieces.marks_titles
    mark = marking._backend.token_to_id("¶")
    for text, plain, found in zip(
        TITLED, word_pieces.encode(TITLED), marking.encode(TITLED), strict=True
    ):
        (at,) = np.flatnonzero(found.ids == mark)
        np.testing.assert_array_equal(np.delete(found.ids, at), plain.ids)
        start, end = found.offsets[at].tolist()
        assert (start, end) == (len(title_line(text)) - 1, len(title_line(text)))
    for plain, found in zip(word_pieces.encode(UNTITLED), marking.encode(UNTITLED), strict=True):
        np.testing.assert_array_equal(found.ids, plain.ids)
        np.testing.assert_array_equal(found.offsets, plain.offsets)


@properties
@given(st.text(alphabet="ab¶ \n\t\r\u2028é", max_size=40))
def test_a_text_without_its_title_is_as_long_and_has_no_mark_more(word_pieces, marking, text):
    without = untitled(text)
    assert len(without) == len(text)
    found, plain = marking.encode([without])[0], word_pieces.encode([text])[0]
    np.testing.assert_array_equal(found.ids, plain.ids)
    np.testing.assert_array_equal(found.offsets, plain.offsets)


def test_a_mark_stands_only_once_in_a_text_of_many_segments(marking):
    text = "Title\n\n" + "word\n\n" * (3 * SEGMENT_CHARS // 6)
    ids = marking.encode([text])[0].ids
    assert (ids == marking._backend.token_to_id("¶")).sum() == 1


def test_a_mark_stands_below_a_title_alone_whatever_special_tokens_a_text_spells_out(marking):
    mark = marking._backend.token_to_id("¶")
    text = "One [SEP] two\n\nthree [CLS]four\n\nfive ¶ [UNK]six\n\nseven"
    [tokens] = marking.encode([text])
    places = tokens.offsets[tokens.ids == mark].tolist()
    assert places == [[12, 13], [text.index("¶"), text.index("¶") + 1]]


def test_a_mark_never_stands_where_a_long_word_is_cut(marking):
    text = "a" * (2 * SEGMENT_CHARS) + "bc\n\ndef" + "g" * SEGMENT_CHARS
    [tokens] = marking.encode([text])
    assert marking._backend.token_to_id("¶") not in tokens.ids


def test_a_title_of_blanks_that_are_no_spaces_is_none(marking):
    [tokens] = marking.encode(["\u00a0\n\nAlbania"])
    assert tokens.offsets.tolist() == [[3, 10]]
    assert not len(tokens.prompt_ids)


def test_titles_are_one_line_and_keep_their_end_where_they_are_cut(word_pieces, marking):
    mark = marking._backend.token_to_id("¶")
    titles = ["On\ntides\n\nand winds", " \n", "sea " * 500]
    encoded = marking.encode_titles(titles, 64)
    whole, blank, long = (each.ids for each in encoded)
    assert [each.is_cut for each in encoded] == [False, False, True]
    assert [len(each.ids) for each in marking.encode_titles(titles, 1)] == [0, 0, 0]
    np.testing.assert_array_equal(whole, [*word_pieces.encode(["On tides and winds"])[0].ids, mark])
    assert len(blank) == 0
    assert len(long) == 64
    assert long[-1] == mark
    assert len(word_pieces.encode_titles(titles, 64)[0].ids) == len(whole) - 1


def test_marking_twice_is_marking_once_and_the_mark_is_a_token(word_pieces):
    once = marking_titles(word_pieces._backend, "¶")
    assert marking_titles(once, "¶").to_str() == once.to_str()
    with pytest.raises(CheckpointError, match="no token of the vocabulary"):
        marking_titles(word_pieces._backend, "no-such-token")
