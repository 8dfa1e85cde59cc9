"""Attention by blocks and by tiles against the plain formula with a full mask."""

import pytest
import torch

from dewey_embed.config import BackboneConfig
from dewey_embed.model import attention
from dewey_embed.model.attention import RowAttention, tiled_attention
from dewey_embed.model.packing import pack


def plain(q, k, v, mask=None):
    """Softmax attention in float32 over the complete matrix."""
    q, k, v = (x.float().transpose(0, 1) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1)


def draw(num_tokens, num_heads=3, width=64, scale=1.5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(num_tokens)
    shape = (3, num_tokens, num_heads, width)
    return (torch.randn(shape, generator=generator) * scale).to(dtype).unbind(0)


def relative_error(got, expected):
    return ((got.float() - expected).norm() / expected.norm()).item()


def small_config(local_attention):
    return BackboneConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        layer_types=("full_attention",),
        max_position_embeddings=8,
        global_rope_theta=1.0,
        local_rope_theta=1.0,
        local_attention=local_attention,
        cls_token_id=1,
        sep_token_id=2,
    )


@pytest.mark.parametrize("lengths", [(1,), (64,), (65, 3, 200), (10, 10, 10, 500), (129, 1, 1)])
@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
@pytest.mark.parametrize("window", [64, 16])
def test_sequences_of_a_row_see_themselves_and_within_the_window_only(lengths, kind, window):
    q, k, v = draw(sum(lengths))
    packed = pack([torch.zeros(n, dtype=torch.long).numpy() for n in lengths])
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = owner[:, None] == owner
    if kind == "sliding_attention":
        place = torch.arange(sum(lengths))
        mask &= (place[:, None] - place).abs() <= window
    config = small_config(local_attention=2 * window)
    got = RowAttention(packed, config, torch.float32, torch.float32)(q, k, v, kind)
    torch.testing.assert_close(got, plain(q, k, v, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_tokens", [64, 511, 512, 513, 2048, 2049, 3000])
def test_tiles_equal_the_plain_formula(num_tokens):
    q, k, v = draw(num_tokens, dtype=torch.bfloat16)
    assert relative_error(tiled_attention(q, k, v), plain(q, k, v)) < 1e-2


def test_a_maximum_far_above_its_estimate_is_noticed(monkeypatch):
    q, k, v = draw(1000, dtype=torch.bfloat16)
    # Row 7 attends to one key only, 300 powers of two above all others; row 9 likewise to two.
    k[500] = 0
    k[500, :, 0] = 40
    k[501] = k[500]
    q[[7, 9]] = 0
    q[[7, 9], :, 0] = 40
    got = tiled_attention(q, k, v)
    assert torch.isfinite(got).all()
    expected = plain(q, k, v)
    torch.testing.assert_close(got[[7, 9]].float(), expected[[7, 9]], atol=2e-2, rtol=0)
    assert relative_error(got, expected) < 1e-2
    # Without the second look the sums overflow: the test would notice its absence.
    monkeypatch.setattr(attention, "SUM_LIMIT", float("inf"))
    assert not torch.isfinite(tiled_attention(q, k, v)).all()


def test_a_config_without_the_usual_window_is_refused():
    with pytest.raises(ValueError, match="local_attention"):
        small_config(local_attention=7)


def test_a_row_that_attends_to_all_keys_alike_is_computed_once(monkeypatch):
    calls = []
    weigh = attention._weigh
    monkeypatch.setattr(attention, "_weigh", lambda *a: calls.append(1) or weigh(*a))
    q, k, v = draw(40_000, num_heads=2, width=2, scale=1e-3, dtype=torch.bfloat16)
    tiled_attention(q, k, v)
    assert len(calls) == -(-40_000 // attention.TILE_ROWS)
