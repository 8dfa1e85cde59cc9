"""Gradients of attention by our kernels against those of the plain formula in float64."""

from functools import cache

import numpy as np
import pytest
import torch

from dewey_embed.model.attention import rotary_tables
from dewey_embed.model.engine import hidden_states, train_with_kernels, training_kernels
from dewey_embed.model.native.kernels import kernels
from dewey_embed.model.native.layers import KernelAttention
from dewey_embed.model.packing import pack
from tests.model.test_attention import relative_error
from tests.model.test_native import needs_bfloat16
from tests.model.twins import twins

WINDOW = 64
LENGTHS = [
    (2,), (63,), (64, 65), (5, 1, 130), (17, 200, 3), (129, 64), (513,), (300, 2, 2, 40), (1100,),
]  # fmt: skip


@cache
def mini_config():
    return twins("mini")[0].config


def trained(lengths):
    """The attention of a row of sequences of these lengths."""
    packed = pack([np.zeros(length, np.int64) for length in lengths])
    return KernelAttention(kernels(torch.bfloat16, may_build=True), mini_config(), packed)


def plainly(qkv, lengths, kind, config):
    """The same by the formula, in the dtype of `qkv`."""
    outputs = []
    for part in qkv.split(lengths):
        cos, sin = (
            x[:, None, None].to(qkv.dtype)
            for x in rotary_tables(config, torch.arange(len(part)), torch.float32)[kind]
        )
        first, second = part[:, :2].chunk(2, -1)
        rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
        query, key, value = (x.transpose(0, 1) for x in (*rotated.unbind(1), part[:, 2]))
        scores = query @ key.transpose(1, 2) / 8
        if kind == "sliding_attention":
            place = torch.arange(len(part))
            scores = scores.masked_fill((place[:, None] - place).abs() > WINDOW, float("-inf"))
        outputs.append((scores.softmax(-1) @ value).transpose(0, 1))
    return torch.cat(outputs)


def both(qkv, gradient, lengths, kind):
    """The gradients of queries, keys and values: by the kernels, and by the formula in float64."""
    ours, exact = qkv.clone().requires_grad_(), qkv.double().requires_grad_()
    trained(lengths)(ours, kind).backward(gradient)
    plainly(exact, lengths, kind, mini_config()).backward(gradient.double())
    return ours.grad, exact.grad


def normal(num_tokens, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, *shape, generator=generator).bfloat16()


@needs_bfloat16
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_gradients_equal_those_of_the_formula(lengths, kind):
    qkv, gradient = normal(sum(lengths), 3, 6, 64), normal(sum(lengths), 6, 64, seed=1)
    got, expected = both(qkv, gradient, lengths, kind)
    for part in range(3):
        assert relative_error(got[:, part], expected[:, part]) < 6e-3


@needs_bfloat16
@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_a_text_of_one_token_moves_its_value_alone(kind):
    got, _ = both(normal(1, 3, 6, 64), gradient := normal(1, 6, 64, seed=1), (1,), kind)
    torch.testing.assert_close(got[:, 2], gradient)
    assert got[:, :2].abs().max() < 1e-6


@needs_bfloat16
def test_gradients_are_right_with_scores_far_above_a_querys_own():
    qkv = normal(300, 3, 6, 64)
    qkv[7, 0] *= 12  # its own key is far from its highest score, and shifts have to move
    qkv[250, 1] *= 12
    got, expected = both(qkv, normal(300, 6, 64, seed=1), (300,), "full_attention")
    # Such scores are rounded by up to an eighth: the formula in bfloat16 is off by 0.022.
    for part in range(3):
        assert relative_error(got[:, part], expected[:, part]) < 2e-2


@needs_bfloat16
def test_gradients_are_finite_with_scores_far_below_zero():
    """A score of zero, as of a key that is none, would then weigh more than a float can hold."""
    qkv = torch.ones(5, 3, 6, 64)
    qkv[:, 0], qkv[:, 1] = -10, 3
    got, expected = both(qkv.bfloat16(), normal(5, 6, 64, seed=1), (5,), "full_attention")
    assert torch.isfinite(got).all()
    assert relative_error(got[:, 2], expected[:, 2]) < 6e-3


@needs_bfloat16
def test_gradients_are_the_same_with_any_number_of_threads():
    lengths = (300, 40, 2, 129)
    qkv, gradient = normal(sum(lengths), 3, 6, 64), normal(sum(lengths), 6, 64, seed=1)
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(both(qkv, gradient, lengths, "full_attention")[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def weights_gradients(backbone, packed, *, dtype):
    """All weights' gradients, flat, from the same loss."""
    backbone.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        states = hidden_states(backbone, packed)
    generator = torch.Generator().manual_seed(0)
    (states * torch.randn(states.shape, generator=generator)).mean().backward()
    return torch.cat([each.grad.flatten() for each in backbone.parameters()])


@needs_bfloat16
def test_a_backbones_gradients_are_as_near_to_float32_as_torchs():
    backbone = twins("mini")[0]
    generator = np.random.default_rng(0)
    packed = pack([generator.integers(3, 300, length) for length in (300, 12, 70)])
    exact = weights_gradients(backbone, packed, dtype=torch.float32)
    by_torch = weights_gradients(backbone, packed, dtype=torch.bfloat16)
    assert train_with_kernels(backbone)
    ours = weights_gradients(backbone, packed, dtype=torch.bfloat16)
    assert not torch.equal(ours, by_torch)
    assert relative_error(ours, exact) < 1.05 * relative_error(by_torch, exact)
    # Without mixed precision and without gradients they are not used.
    assert torch.equal(weights_gradients(backbone, packed, dtype=torch.float32), exact)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = hidden_states(backbone, packed)
        backbone.own_training = False
        assert torch.equal(states, hidden_states(backbone, packed))
    assert train_with_kernels(backbone)
    backbone.recompute = True
    again = weights_gradients(backbone, packed, dtype=torch.bfloat16)
    assert torch.equal(ours, again)


@needs_bfloat16
def test_attention_keeps_no_scores_for_its_gradients():
    """What is kept for a token is the same in a text of any length."""
    kept = {}
    for length in (256, 2048):
        qkv = normal(length, 3, 6, 64).requires_grad_()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x
        ):
            trained((length,))(qkv, "full_attention")
        kept[length] = sum(sizes) / length
    assert kept[2048] == pytest.approx(kept[256], abs=1)
    assert kept[256] == pytest.approx(4 * 6 * 64 * 2 + 6 * 4, abs=1)


def test_heads_of_another_width_are_trained_by_torch():
    assert not train_with_kernels(twins("tiny")[0])


def test_the_environment_turns_the_kernels_off(monkeypatch):
    monkeypatch.setenv("DEWEY_NATIVE", "0")
    assert not train_with_kernels(twins("mini")[0])


@needs_bfloat16
def test_a_processor_with_a_unit_for_tiles_trains_by_torch(monkeypatch):
    backbone = twins("mini")[0]
    assert train_with_kernels(backbone)
    monkeypatch.setattr(kernels(torch.bfloat16, may_build=True), "has_tiles", True)
    assert training_kernels(backbone) is None
