"""Running sums against naive means, at any length and any span."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.model.packing import fill_batches, pack
from dewey_embed.model.pooling import RunningSums
from dewey_embed.model.windows import assign_pieces, owned_ranges, place_windows, plan_windows

INDEXED = {"size": 2040, "overlap": 256}
"""Windows as an index has them."""


def states(num_tokens, width=8, dtype=torch.float32, offset=0.0):
    generator = torch.Generator().manual_seed(num_tokens)
    return (torch.randn(num_tokens, width, generator=generator) + offset).to(dtype)


@given(num_tokens=st.integers(1, 400), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_span_is_the_mean_of_its_tokens(num_tokens, data):
    hidden = states(num_tokens)
    pairs = st.tuples(st.integers(0, num_tokens - 1), st.integers(1, num_tokens)).filter(
        lambda pair: pair[0] < pair[1]
    )
    spans = data.draw(st.lists(pairs, min_size=1, max_size=10))
    starts, ends = torch.tensor(spans).T
    pooled = RunningSums(hidden).means(starts, ends)
    for row, (start, end) in enumerate(spans):
        torch.testing.assert_close(pooled[row], hidden[start:end].mean(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_131072_tokens_running_sums_equal_direct_pooling(dtype):
    # States far from zero are the hard case: the sums grow while their differences do not.
    hidden = states(131_072, dtype=dtype, offset=1.0)
    starts = torch.tensor([0, 0, 131_071, 131_000, 65_536, 100_003, 7])
    ends = torch.tensor([1, 131_072, 131_072, 131_072, 65_600, 100_256, 131_071])
    pooled = RunningSums(hidden).means(starts, ends)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        direct = hidden[start:end].double().mean(0).float()
        torch.testing.assert_close(pooled[row], direct, atol=1e-5, rtol=0)


def test_gradients_of_a_pooled_span_are_those_of_a_mean():
    hidden = states(200).requires_grad_()
    RunningSums(hidden).means(torch.tensor([10]), torch.tensor([150])).sum().backward()
    expected = torch.zeros(200, 8)
    expected[10:150] = 1 / 140
    torch.testing.assert_close(hidden.grad, expected)


@given(
    num_tokens=st.integers(0, 500),
    size=st.integers(4, 60),
    share=st.floats(0, 0.5),
)
@settings(max_examples=200, deadline=None)
def test_windows_cover_a_text_and_are_full(num_tokens, size, share):
    windows = plan_windows(num_tokens, size=size, overlap=int(size * share))
    seen = np.zeros(num_tokens, bool)
    for start, end in windows:
        seen[start:end] = True
        assert end - start == min(size, num_tokens)
    assert seen.all()
    assert (np.diff(windows[:, 0]) > 0).all()


@given(
    num_tokens=st.integers(0, 500),
    size=st.integers(2, 60),
    share=st.floats(0, 0.5),
    num_ids=st.sampled_from([1, 2, 1000]),
)
@settings(max_examples=200, deadline=None)
def test_windows_placed_by_content_cover_a_text(num_tokens, size, share, num_ids):
    overlap = int(size * share)
    ids = np.random.default_rng(num_tokens).integers(0, num_ids, num_tokens)
    windows = place_windows(ids, size=size, overlap=overlap)
    assert windows[0, 0] == 0
    assert windows[-1, 1] == num_tokens
    assert (np.diff(windows) <= size).all()
    assert (np.diff(windows, axis=0) > 0).all()
    shared = windows[:-1, 1] - windows[1:, 0]
    assert (shared >= min(overlap, (size - 1) // 3)).all()
    owned = owned_ranges(windows)
    assert (owned[0, 0], owned[-1, 1]) == (0, num_tokens)
    assert np.array_equal(owned[1:, 0], owned[:-1, 1])


def windows_and_ids(ids):
    return [(int(end), ids[start:end].tobytes()) for start, end in place_windows(ids, **INDEXED)]


@given(seed=st.integers(0, 2**32), num_ids=st.sampled_from([3, 30_000]))
@settings(max_examples=25, deadline=None)
def test_windows_far_before_an_edit_stay(seed, num_ids):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, num_ids, 20_000)
    at = int(rng.integers(0, 20_000))
    edited = np.concatenate((ids[:at], rng.integers(0, num_ids, 300), ids[at + 100 :]))
    old, new = windows_and_ids(ids), windows_and_ids(edited)
    # What decides on the end of a window is at most a window's size behind its own.
    before = [window for window in old if window[0] + INDEXED["size"] <= at]
    assert new[: len(before)] == before


def test_one_paragraph_moves_few_windows():
    shares = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, 30_000, 25_000)
        at = int(rng.integers(0, 24_900))
        edited = np.concatenate((ids[:at], rng.integers(0, 30_000, 150), ids[at + 100 :]))
        old = {key for _, key in windows_and_ids(ids)}
        new = [key for _, key in windows_and_ids(edited)]
        sizes = np.array(list(map(len, new)))
        shares.append(sizes[[key not in old for key in new]].sum() / sizes.sum())
    assert np.median(shares) < 0.1
    assert np.mean(shares) < 0.12
    assert max(shares) < 0.6


def test_windows_by_content_read_no_more_than_even_ones():
    read = {"even": 0, "content": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, 30_000, int(2_041 * 20 ** rng.random()))
        read["even"] += np.diff(plan_windows(len(ids), **INDEXED)).sum()
        read["content"] += np.diff(place_windows(ids, **INDEXED)).sum()
    assert read["content"] < 1.02 * read["even"]


@given(num_tokens=st.integers(1, 300), size=st.integers(4, 60), data=st.data())
@settings(max_examples=200, deadline=None)
def test_the_pieces_of_a_span_are_the_span(num_tokens, size, data):
    windows = plan_windows(num_tokens, size=size, overlap=size // 3)
    start = data.draw(st.integers(0, num_tokens - 1))
    end = data.draw(st.integers(start + 1, num_tokens))
    pieces = assign_pieces(np.array([start]), np.array([end]), windows)
    tokens = [t for a, b in zip(pieces.start, pieces.end, strict=True) for t in range(a, b)]
    assert sorted(tokens) == list(range(start, end))
    for window, a, b in zip(pieces.window, pieces.start, pieces.end, strict=True):
        assert windows[window, 0] <= a < b <= windows[window, 1]


def test_a_chunk_comes_from_the_window_where_it_stands_farthest_from_an_edge():
    windows = np.array([[0, 100], [50, 150], [100, 200]])
    pieces = assign_pieces(
        np.array([0, 60, 80, 95, 190]), np.array([10, 70, 90, 105, 200]), windows
    )
    # The text's own ends are no edges; [60, 70) is 30 from the end of one window, 10 from the
    # start of the next.
    assert pieces.window.tolist() == [0, 0, 1, 1, 2]


def test_batches_are_filled_by_tokens_longest_first_and_lose_no_sequence():
    lengths = [5, 100, 7, 60, 40, 1]
    batches = fill_batches(lengths, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert batches == [[1], [3, 4], [2, 0, 5]]
    assert fill_batches([500], 100) == [[0]]


def test_packing_refuses_an_empty_sequence():
    with pytest.raises(ValueError, match="at least one token"):
        pack([np.array([1]), np.array([], int)])
