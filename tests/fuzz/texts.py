"""Tokens, spans and pooled states of any text, against what they promise and a naive pooling."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from tests.fuzz.cases import Check, Draw

_WORD = re.compile(r"\S+")
PROMPTS = ("", "query: ", "Zü ", "a\n\n")
SEGMENT_CHARS = 300
"""Of the tokenizer under test, longer than any title, so that short texts have several segments."""
MAX_WINDOWS = 4
"""Of a text whose states are pooled, which takes a while for each of them."""


def tokenizer() -> Check:
    """Offsets of tokens, over tokenizers of every kind, the embedded default's first."""
    import tokenizers

    from dewey_embed.model.folder import locate_model
    from dewey_embed.text import tokenizer as module
    from tests.model.random_folders import KINDS, trained

    usual = module.SEGMENT_CHARS
    path = locate_model(None)[1] / "tokenizer.json"
    shipped = module.Tokenizer.from_file(path)
    assert shipped.marks_titles
    kinds = [module.Tokenizer(tokenizers.Tokenizer.from_str(trained(kind))) for kind in KINDS]
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.post_processor = None
    mark = backend.token_to_id("¶")

    def check(data: bytes) -> None:
        draw = Draw(data)
        which = draw.number(2 * len(kinds) - 1)
        own = shipped if which >= len(kinds) else kinds[which]
        prompt = PROMPTS[draw.number(len(PROMPTS) - 1)]
        times = 1 + max(draw.number(63) - 56, 0)  # of some, so that they have several segments
        text = draw.text() * times
        module.SEGMENT_CHARS = SEGMENT_CHARS
        try:
            [tokens] = own.encode([text], prompt=prompt)
        finally:
            module.SEGMENT_CHARS = usual
        _check_offsets(own, text, tokens)
        if own is shipped:
            _check_words(backend, text, tokens, mark, prompt)

    return check


def _check_offsets(tokenizer, text, tokens) -> None:
    """Offsets lie within the text, never decrease, and leave out only what has no token."""
    ids, offsets = tokens.ids, tokens.offsets
    assert offsets.shape == (len(ids), 2)
    if not len(ids):
        left = [(0, len(text))]
    else:
        assert offsets.min() >= 0
        assert offsets.max() <= len(text)
        assert (offsets[:, 0] <= offsets[:, 1]).all()
        assert (np.diff(offsets, axis=0) >= 0).all()
        left = [(0, int(offsets[0, 0])), (int(offsets[-1, 1]), len(text))]
        left += [(int(a[1]), int(b[0])) for a, b in pairwise(offsets) if a[1] < b[0]]
    for start, end in left:
        for piece in _WORD.finditer(text, start, end):
            # dropped characters stand alone only where none stands before them
            before = piece.start()
            assert before == 0 or text[before - 1].isspace(), (text, tokens)
            assert not len(tokenizer.encode([piece[0]])[0]), (text, piece, tokens)


def _check_words(backend, text, tokens, mark, prompt) -> None:
    """Each token's characters hold its word; a title's mark stands for its last character."""
    from dewey_embed.text.characters import without_surrogates
    from dewey_embed.titles import title_break

    unknown = backend.token_to_id("[UNK]")
    start, _ = title_break(prompt + text)
    last = max(len((prompt + text)[:start].rstrip()) - len(prompt), 0)
    clean = without_surrogates(text)
    marks = 0
    for token_id, (begin, end) in zip(tokens.ids.tolist(), tokens.offsets.tolist(), strict=True):
        word = backend.id_to_token(token_id).removeprefix("##")
        if token_id == mark and (begin, end) == (max(last - 1, 0), last):
            marks += 1
        elif token_id != unknown:
            assert word in backend.normalizer.normalize_str("x" + clean[begin:end]), (text, word)
    assert marks <= 1 or "¶" in text


def splitters() -> Check:
    """Spans of every splitter, and of ranges of characters."""
    import tokenizers

    from dewey_embed.errors import SpanError
    from dewey_embed.model.folder import locate_model
    from dewey_embed.text.splitter import SPLITTERS, spans_from_characters, split
    from dewey_embed.text.tokenizer import Tokenizer
    from dewey_embed.types import Landmark
    from tests.model.random_folders import byte_level, prepended, trained

    own = [Tokenizer.from_file(locate_model(None)[1] / "tokenizer.json")]
    for kind in (byte_level, prepended):
        own.append(Tokenizer(tokenizers.Tokenizer.from_str(trained(kind))))
    kinds = ("heading", "slide", "sheet", "cell", "row", "line", "page")

    def check(data: bytes) -> None:
        draw = Draw(data)
        tokenizer = own[draw.number(len(own) - 1)]
        name = [*SPLITTERS, ""][draw.number(len(SPLITTERS))]
        size = 1 + draw.number(40)
        overlap = draw.number(size - 1)
        places = [(draw.number(1000), draw.number(6), draw.number(2)) for _ in range(2)]
        text = draw.text()
        [tokens] = tokenizer.encode([text])
        if not name:
            ranges = [(places[0][0], places[1][0]), (size, size + overlap)]
            try:
                spans = spans_from_characters(tokens, ranges, num_chars=len(text))
            except SpanError:
                return
            _check_touched(tokens, ranges, spans)
            return
        landmarks = [
            Landmark(char % (len(text) + 1), kinds[kind], number, text[:5])
            for char, kind, number in sorted(places)
        ]
        landmarks.sort()
        given = dict(chunk_tokens=size, chunk_overlap=overlap, landmarks=landmarks)
        spans = split(text, tokens, splitter=name, **given)
        _check_cover(text, tokens, spans, size, 0 if name == "sentence" else overlap)
        _check_characters(tokens, spans, size - overlap)

    return check


def _check_touched(tokens, ranges, spans) -> None:
    """A span holds every token that its range touches, and no other."""
    for (start, end), span in zip(ranges, spans, strict=True):
        held = (tokens.offsets[:, 1] > start) & (tokens.offsets[:, 0] < end)
        rows = np.flatnonzero(held)
        inside = np.arange(span.token_start, span.token_end)
        assert set(rows) <= set(inside)
        assert {inside[0], inside[-1]} <= set(rows)


def _check_cover(text, tokens, spans, size, overlap) -> None:
    """Spans cover all tokens within their sizes, and none lies in another."""
    if not len(tokens):
        assert spans == []
        return
    assert spans[0].token_start == 0
    assert spans[-1].token_end == len(tokens)
    for span in spans:
        assert 0 < span.token_end - span.token_start <= size
        assert span.char_start == tokens.offsets[span.token_start, 0]
        assert span.char_end == tokens.offsets[span.token_end - 1, 1]
        assert 0 <= span.char_start <= span.char_end <= len(text)
    for before, after in pairwise(spans):
        assert before.token_start < after.token_start <= before.token_end < after.token_end
        assert before.token_end - after.token_start <= overlap


def _check_characters(tokens, spans, room) -> None:
    """No span ends within a character whose tokens fit into one."""
    apart = np.flatnonzero(tokens.offsets[1:, 0] >= tokens.offsets[:-1, 1]) + 1
    bounds = np.concatenate(([0], apart, [len(tokens)]))
    for span in spans:
        for place in (span.token_start, span.token_end):
            row = int(np.searchsorted(bounds, place))
            if bounds[row] != place:
                assert bounds[row] - bounds[row - 1] > room, (place, bounds)


def pooling() -> Check:
    """Means of spans over any windows, against a mean of their tokens one by one."""
    import torch

    from dewey_embed.model.inference import KeptStates
    from dewey_embed.model.pooling import RunningSums
    from dewey_embed.model.windows import assign_pieces, plan_windows

    torch.set_num_threads(1)
    states = torch.randn(256, 3, generator=torch.Generator().manual_seed(1))
    naive = np.concatenate((np.zeros((1, 3)), states.double().numpy().cumsum(0)))

    def check(data: bytes) -> None:
        draw = Draw(data)
        num_tokens = 1 + draw.number(255)
        size = 1 + draw.number(num_tokens - 1)
        overlap = draw.number(size // 2)
        windows = plan_windows(num_tokens, size=size, overlap=overlap)
        _check_windows(windows, num_tokens, size, overlap)
        pairs = []
        for _ in range(1 + draw.number(4)):
            start = draw.number(num_tokens - 1)
            pairs.append((start, start + 1 + draw.number(num_tokens - 1 - start)))
        starts, ends = np.array(pairs, np.int64).T.copy()
        pieces = assign_pieces(starts, ends, windows)
        _check_pieces(pieces, starts, ends, windows)
        if len(windows) > MAX_WINDOWS:
            return
        with torch.inference_mode():
            hidden = states[:num_tokens]
            kept = KeptStates(windows, [RunningSums(hidden[low:high]) for low, high in windows])
            means = kept.means(starts, ends).numpy()
        expected = (naive[ends] - naive[starts]) / (ends - starts)[:, None]
        np.testing.assert_allclose(means, expected, atol=2e-6)

    return check


def _check_windows(windows, num_tokens, size, overlap) -> None:
    """Windows cover a text in order, full but for a text's only one, and share what they should."""
    assert windows[0, 0] == 0
    assert windows[-1, 1] == num_tokens
    assert len(windows) == 1 or (windows[:, 1] - windows[:, 0] == size).all()
    assert (windows[1:, 0] > windows[:-1, 0]).all()
    assert (windows[:-1, 1] - windows[1:, 0] >= overlap).all()


def _check_pieces(pieces, starts, ends, windows) -> None:
    """The pieces of a span are its tokens, each once, each within its piece's window."""
    for row in range(len(starts)):
        own = np.flatnonzero(pieces.row == row)
        parts = sorted((int(pieces.start[i]), int(pieces.end[i])) for i in own)
        assert parts[0][0] == starts[row]
        assert parts[-1][1] == ends[row]
        assert all(a[1] == b[0] for a, b in pairwise(parts))
    assert (pieces.start < pieces.end).all()
    assert (pieces.start >= windows[pieces.window, 0]).all()
    assert (pieces.end <= windows[pieces.window, 1]).all()
