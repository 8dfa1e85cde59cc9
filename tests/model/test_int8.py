"""Linear layers trained in int8 against exact products, and the rounding of each factor."""

import pytest
import torch
from torch import nn

from dewey_embed.model.engine import train_in_int8, train_with_kernels
from dewey_embed.model.int8 import TrainedLinear, int8_linear, int8_linear_gradients
from dewey_embed.model.packing import pack
from tests.model.test_attention import relative_error
from tests.model.test_gradients import weights_gradients
from tests.model.test_native import needs_bfloat16
from tests.model.twins import twins

SHAPES = [(64, 64), (192, 128), (1152, 384), (384, 768)]
TOKENS = [1, 3, 63, 255, 256, 257, 700]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(*shape, dim, seed=0):
    """Whole numbers up to 127, which is the highest along `dim`: int8 holds them as they are."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-127, 128, shape, generator=generator).float()
    numbers.select(dim, 0).fill_(127)
    return numbers


@needs_bfloat16
@pytest.mark.parametrize("num_tokens", TOKENS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_and_gradients_are_right_but_for_rounding(num_tokens, shape):
    weight, rows = 0.05 * normal(*shape), normal(num_tokens, shape[1], seed=1).bfloat16()
    grads = normal(num_tokens, shape[0], seed=2).bfloat16()
    of_rows, of_weight = int8_linear_gradients(grads, rows, weight)
    exact = weight.double()
    assert relative_error(int8_linear(rows, weight), rows.double() @ exact.T) < 0.015
    assert relative_error(of_rows, grads.double() @ exact) < 0.015
    assert relative_error(of_weight, grads.double().T @ rows.double()) < 0.02


@needs_bfloat16
@pytest.mark.parametrize("num_tokens", [1, 255, 600])
def test_numbers_that_int8_holds_are_multiplied_exactly(num_tokens):
    weight, rows = whole(192, 128, dim=1), whole(num_tokens, 128, dim=1)
    expected = (rows @ weight.T).bfloat16()
    assert torch.equal(int8_linear(rows.bfloat16(), weight), expected)
    transposed, grads = whole(192, 128, dim=0), whole(num_tokens, 192, dim=1)
    of_rows, _ = int8_linear_gradients(grads.bfloat16(), rows.bfloat16(), transposed)
    assert torch.equal(of_rows, (grads @ transposed).bfloat16())


@needs_bfloat16
@pytest.mark.parametrize("num_tokens", [1, 255, 600])
def test_numbers_that_int8_holds_are_summed_over_tokens_exactly(num_tokens):
    rows, grads = whole(num_tokens, 128, dim=0), whole(num_tokens, 192, dim=0, seed=1)
    for block in range(0, num_tokens, 256):  # the highest of each block is 127, too
        rows[block], grads[block] = 127, -127
    _, of_weight = int8_linear_gradients(grads.bfloat16(), rows.bfloat16(), normal(192, 128))
    assert torch.equal(of_weight, grads.T @ rows)


@needs_bfloat16
def test_a_column_is_rounded_by_its_own_highest_among_256_tokens():
    """One number a million times as high costs its column and its block, and nothing else."""
    rows, grads = normal(512, 128).bfloat16(), normal(512, 192, seed=1).bfloat16()
    calm = grads.clone()
    grads[300, 7] = 1e6
    exact = grads.double().T @ rows.double()
    _, of_weight = int8_linear_gradients(grads, rows, normal(192, 128))
    others = [column for column in range(192) if column != 7]
    assert relative_error(of_weight[others], exact[others]) < 0.015
    # In the other block column 7 is as exact as ever.
    _, first_block = int8_linear_gradients(grads[:256], rows[:256], normal(192, 128))
    assert relative_error(first_block[7], calm[:256, 7].double() @ rows[:256].double()) < 0.03


@needs_bfloat16
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["rows", "weight", "grads"])
def test_a_number_that_is_not_finite_stays_so(wrong, where):
    """So that a broken run is seen, and stopped."""
    parts = {
        "rows": normal(300, 128).bfloat16(),
        "weight": normal(192, 128, seed=1),
        "grads": normal(300, 192, seed=2).bfloat16(),
    }
    parts[where][5, 9] = wrong
    rows, weight, grads = parts.values()
    out = int8_linear(rows, weight)
    of_rows, of_weight = int8_linear_gradients(grads, rows, weight)
    assert not torch.isfinite(out).all() or where == "grads"
    assert not torch.isfinite(of_rows).all() or where == "rows"
    assert not torch.isfinite(of_weight).all() or where == "weight"


@needs_bfloat16
def test_factors_of_zeros_give_zeros():
    zeros = torch.zeros(300, 128).bfloat16(), torch.zeros(300, 192).bfloat16()
    assert not int8_linear(zeros[0], torch.zeros(192, 128)).any()
    for gradient in int8_linear_gradients(zeros[1], zeros[0], torch.zeros(192, 128)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@needs_bfloat16
def test_products_are_the_same_with_any_number_of_threads():
    rows, grads = normal(700, 384).bfloat16(), normal(700, 1152, seed=1).bfloat16()
    weight, found, threads = normal(1152, 384, seed=2), [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            of_rows, of_weight = int8_linear_gradients(grads, rows, weight)
            found.append((int8_linear(rows, weight), of_rows, of_weight))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


@needs_bfloat16
def test_torch_can_trace_and_differentiate_int8_linear():
    rows = normal(70, 128).bfloat16().requires_grad_()
    weight = normal(192, 128, seed=1).requires_grad_()
    torch.library.opcheck(int8_linear, (rows, weight))


@needs_bfloat16
def test_a_trained_layer_shares_the_linears_weights_and_adds_its_bias():
    linear = nn.Linear(128, 192)
    trained = TrainedLinear(linear)
    assert trained.weight is linear.weight
    assert set(trained.state_dict()) == set(linear.state_dict())
    rows = normal(30, 128).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = trained(rows)
    exact = nn.functional.linear(rows.double(), linear.weight.double(), linear.bias.double())
    assert relative_error(out, exact) < 0.015
    out.backward(torch.ones_like(out))
    torch.testing.assert_close(linear.bias.grad, torch.full((192,), 30.0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(trained(rows), linear(rows))


@needs_bfloat16
def test_a_backbones_gradients_point_where_exact_ones_do():
    backbone = twins("mini")[0]
    generator = torch.Generator().manual_seed(0)
    packed = pack([
        torch.randint(3, 300, (length,), generator=generator).numpy() for length in (300, 12, 70)
    ])  # fmt: skip
    exact = weights_gradients(backbone, packed, dtype=torch.float32)
    assert train_with_kernels(backbone)
    in_halves = weights_gradients(backbone, packed, dtype=torch.bfloat16)
    names = list(backbone.state_dict())
    assert train_in_int8(backbone)
    assert list(backbone.state_dict()) == names
    ours = weights_gradients(backbone, packed, dtype=torch.bfloat16)
    assert not torch.equal(ours, in_halves)
    assert torch.nn.functional.cosine_similarity(ours, exact, dim=0) > 0.998
    # In float32 nothing of it is used.
    backbone.own_training = False
    assert torch.equal(weights_gradients(backbone, packed, dtype=torch.float32), exact)


@needs_bfloat16
def test_where_attention_has_no_kernels_or_widths_do_not_fit_nothing_changes():
    backbone = twins("mini")[0]
    assert not train_in_int8(backbone)
    narrow = twins("mini")[0]
    assert train_with_kernels(narrow)
    narrow.config = narrow.config.model_copy(update={"intermediate_size": 96})
    assert not train_in_int8(narrow)
    for each in (backbone, narrow):
        assert type(each.layers[0].mlp.Wi) is nn.Linear
