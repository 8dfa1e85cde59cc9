"""Our kernels against the plain formulas, and what happens where they cannot be had."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from dewey_embed.model import engine
from dewey_embed.model.engine import hidden_states, inference_kernels
from dewey_embed.model.int8 import Int8Linear, to_int8
from dewey_embed.model.native import build
from dewey_embed.model.native.kernels import AttentionMetadata, kernels, load
from dewey_embed.model.packing import pack
from tests.model.test_attention import plain, relative_error
from tests.model.twins import twins

HAVE_COMPILER = shutil.which("g++") is not None
BFLOAT16 = build.LIBRARIES[0]
needs_bfloat16 = pytest.mark.skipif(
    not (HAVE_COMPILER and BFLOAT16.fits_processor()), reason="needs AVX512-BF16 and g++"
)
needs_float32 = pytest.mark.skipif(
    not (HAVE_COMPILER and build.library_for(torch.float32)), reason="needs AVX2 and g++"
)


@pytest.fixture(scope="module", params=build.LIBRARIES, ids=lambda library: library.name)
def native(request):
    """Where a processor and a compiler are there, kernels must be too: a failed build is silent."""
    if not (HAVE_COMPILER and request.param.fits_processor()):
        pytest.skip(f"needs {', '.join(request.param.needs)} and g++")
    assert build.build(request.param)
    found = load(request.param)
    assert found is not None
    return found


@pytest.fixture
def bfloat16_kernels():
    """The kernels for bfloat16, as a model gets them."""
    found = kernels(torch.bfloat16, may_build=True)
    assert found is not None
    return found


def tolerance(native, halves):
    """`halves` for bfloat16, and in float32 what sums in another order may differ by."""
    return halves if native.dtype == torch.bfloat16 else 2e-6


def angles(num_positions, theta=10_000.0):
    steps = torch.arange(num_positions).float()[:, None] / theta ** (torch.arange(0, 64, 2) / 64)
    return steps.cos(), steps.sin()


def rotated(x_TND, lengths, cos, sin):
    """Rotary positions, each sequence from zero."""
    parts = []
    for part in x_TND.float().split(lengths):
        first, second = part.chunk(2, -1)
        c, s = cos[: len(part), None], sin[: len(part), None]
        parts.append(torch.cat((first * c - second * s, second * c + first * s), -1))
    return torch.cat(parts)


def run_attention(native, qkv, lengths, window, cos, sin):
    out = torch.full((len(qkv), *qkv.shape[2:]), float("nan"), dtype=native.dtype)
    starts = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)
    native.attention(qkv, out, AttentionMetadata(cos, sin, starts, window))
    return out


@pytest.mark.parametrize(
    "lengths", [(1,), (16, 17), (64,), (65, 3, 200), (513, 63, 1, 1), (129,), (1000, 7), (2049,)]
)
@pytest.mark.parametrize("window", [-1, 64, 16, 5])
def test_attention_equals_the_plain_formula(native, lengths, window):
    generator = torch.Generator().manual_seed(sum(lengths))
    qkv = torch.randn(sum(lengths), 3, 3, 64, generator=generator).to(native.dtype)
    cos, sin = angles(max(lengths))
    got = run_attention(native, qkv, lengths, window, cos, sin)
    q, k = (rotated(x, lengths, cos, sin) for x in (qkv[:, 0], qkv[:, 1]))
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = owner[:, None] == owner
    if window >= 0:
        place = torch.arange(sum(lengths))
        mask &= (place[:, None] - place).abs() <= window
    assert relative_error(got, plain(q, k, qkv[:, 2], mask)) < tolerance(native, 5e-3)


def test_scores_far_above_a_querys_own_are_weighed_right(native):
    qkv = torch.randn(300, 3, 1, 64, generator=torch.Generator().manual_seed(0)).to(native.dtype)
    cos, sin = torch.ones(300, 32), torch.zeros(300, 32)
    # Query 7 sees one key 290 powers of two above its own, query 9 two alike, in other tiles.
    qkv[[7, 9], 0, 0, 0] = 40
    qkv[200, 1] = 0
    qkv[200, 1, 0, 0] = 40
    qkv[250, 1] = qkv[200, 1]
    qkv[290, 1] = qkv[200, 1] * 1.25
    qkv[7, 0, 0, 1:] = qkv[9, 0, 0, 1:] = 0
    got = run_attention(native, qkv, (300,), -1, cos, sin)
    expected = plain(*qkv.unbind(1))
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got[[7, 9]].float(), expected[[7, 9]], atol=2e-2, rtol=0)
    assert relative_error(got, expected) < tolerance(native, 5e-3)


@pytest.mark.parametrize("num_tokens", [1, 16, 31, 64, 129, 600])
@pytest.mark.parametrize(("inner", "outer"), [(384, 1152), (32, 48), (768, 80), (96, 384)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_equals_torch(native, num_tokens, inner, outer, bias):
    generator = torch.Generator().manual_seed(num_tokens)
    tokens = torch.randn(num_tokens, inner, generator=generator).to(native.dtype)
    layer = torch.nn.Linear(inner, outer, bias=bias).to(native.dtype)
    out = torch.full((num_tokens, outer), float("nan"), dtype=native.dtype)
    with torch.no_grad():
        native.linear(tokens, layer.weight, layer.bias, out)
        assert relative_error(out, layer.double()(tokens.double())) < tolerance(native, 3e-3)


@needs_bfloat16
@pytest.mark.parametrize("num_tokens", [1, 17, 129, 600])
@pytest.mark.parametrize(("inner", "outer"), [(384, 1152), (64, 48), (768, 80)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_by_int8_weights_is_exact_but_for_quantization(
    bfloat16_kernels, num_tokens, inner, outer, bias
):
    generator = torch.Generator().manual_seed(num_tokens)
    tokens = (torch.randn(num_tokens, inner, generator=generator) * 3).bfloat16()
    tokens[: num_tokens - 1][:1] = 0  # a token of zeros, where there are others
    layer = Int8Linear(torch.nn.Linear(inner, outer, bias=bias).bfloat16())
    weights = layer.weight, layer.scale, layer.shift
    out = torch.full((num_tokens, outer), float("nan"), dtype=torch.bfloat16)
    bfloat16_kernels.linear_int8(tokens, weights, layer.bias, out)
    steps = tokens.float().abs().amax(1, keepdim=True) / 127
    rounded = (tokens.float() / steps.clamp(min=1e-30)).round() * steps
    expected = rounded.double() @ (layer.weight.double() * layer.scale.double()[:, None]).T
    expected = expected + layer.bias.double() if bias else expected
    assert relative_error(out, expected.float()) < 3e-3
    tokens[-1, 3] = float("nan")
    bfloat16_kernels.linear_int8(tokens, weights, layer.bias, out)
    assert out[-1].isnan().all()
    assert not out[:-1].isnan().any()


@pytest.mark.parametrize("bias", [False, True])
def test_add_norm_equals_torch(native, bias):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(37, 384, generator=generator) * 3 + 1
    added = torch.randn(37, 384, generator=generator).to(native.dtype)
    norm = torch.nn.LayerNorm(384, bias=bias)
    for given in norm.parameters():
        torch.nn.init.normal_(given, generator=generator)
    total = states + added.float()
    out = torch.empty_like(added)
    with torch.no_grad():
        norm = norm.to(native.dtype)
        native.add_norm(states, added, norm, out)
        expected = torch.nn.functional.layer_norm(
            total, (384,), norm.weight.float(), norm.bias.float() if bias else None, norm.eps
        )
    torch.testing.assert_close(states, total)
    assert relative_error(out, expected) < tolerance(native, 3e-3)
    native.add_norm(states, None, None, out)
    assert torch.equal(out, total.to(native.dtype))


def test_geglu_equals_torch_over_the_whole_range(native):
    gates = torch.cat([torch.linspace(-12, 12, 4000), torch.tensor([-1e4, -40.0, 0.0, 1e4])])
    gates = gates[: len(gates) // 16 * 16].to(native.dtype)
    wide = torch.cat([gates, torch.full_like(gates, 2.0)])[None].contiguous()
    out = torch.empty(1, len(gates), dtype=native.dtype)
    native.geglu(wide, out)
    expected = torch.nn.functional.gelu(gates.double()) * 2
    halves = native.dtype == torch.bfloat16
    near = {"atol": 2e-4, "rtol": 5e-3} if halves else {"atol": 2e-6, "rtol": 1e-6}
    torch.testing.assert_close(out[0].double(), expected, **near)


CHANGES = [{}, {"attention_bias": True, "mlp_bias": True}]


def some_texts(*lengths):
    draw = np.random.default_rng(0)
    return pack([draw.integers(3, 300, length) for length in lengths])


@needs_bfloat16
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("tiles", [False, True], ids=["AVX512", "AMX"])
@torch.inference_mode()
def test_a_backbone_is_as_near_to_float32_with_kernels_as_without(
    bfloat16_kernels, monkeypatch, changes, tiles
):
    packed = some_texts(1, 64, 129, 1000, 33)
    backbone = twins("mini", **changes)[0]
    monkeypatch.setattr(bfloat16_kernels, "has_tiles", tiles)
    with_kernels = hidden_states(backbone.bfloat16(), packed)
    monkeypatch.setenv("DEWEY_NATIVE", "0")
    without = hidden_states(backbone, packed)
    exact = hidden_states(twins("mini", **changes)[0], packed)
    assert not torch.equal(with_kernels, without), "the kernels were not used"
    assert relative_error(with_kernels, exact) < 1e-2
    assert relative_error(with_kernels, exact) < 1.2 * relative_error(without, exact)


@pytest.mark.parametrize("changes", CHANGES)
@torch.inference_mode()
def test_a_float32_backbone_is_the_same_with_kernels(native, monkeypatch, changes):
    if native.dtype != torch.float32:
        pytest.skip("the other test is for bfloat16")
    packed = some_texts(1, 64, 129, 1000, 33)
    backbone = twins("mini", **changes)[0]
    monkeypatch.setattr(engine, "kernels", lambda dtype, *, may_build: native)
    with_kernels = hidden_states(backbone, packed)
    monkeypatch.setattr(engine, "kernels", lambda dtype, *, may_build: None)
    without = hidden_states(backbone, packed)
    assert not torch.equal(with_kernels, without), "the kernels were not used"
    assert relative_error(with_kernels, without) < 5e-6


@torch.inference_mode()
def test_int8_weights_stay_near_with_kernels_and_without(monkeypatch):
    packed = some_texts(1, 64, 300)
    backbone = twins("mini")[0]
    monkeypatch.setenv("DEWEY_NATIVE", "0")
    exact = hidden_states(backbone, packed)
    backbone = backbone.bfloat16()
    to_int8(backbone)
    assert relative_error(hidden_states(backbone, packed), exact) < 2e-2
    monkeypatch.delenv("DEWEY_NATIVE")
    if HAVE_COMPILER and BFLOAT16.fits_processor():
        kernels(torch.bfloat16, may_build=True)
        assert inference_kernels(backbone) is not None
        assert relative_error(hidden_states(backbone, packed), exact) < 3e-2
    assert inference_kernels(backbone.float(), may_build=True) is None


@needs_float32
def test_a_pass_with_gradients_or_in_mixed_precision_is_torchs_own():
    backbone, found = twins("mini")[0], kernels(torch.float32, may_build=True)
    assert inference_kernels(backbone) is None
    with torch.inference_mode():
        assert inference_kernels(backbone) is found
        with torch.autocast("cpu", torch.bfloat16):
            assert inference_kernels(backbone) is None
        assert inference_kernels(backbone.double()) is None


def test_torch_runs_heads_of_another_width():
    with torch.inference_mode():
        assert inference_kernels(twins("tiny")[0], may_build=True) is None


def test_kernels_are_built_when_a_model_has_encoded_enough(monkeypatch):
    built = []
    monkeypatch.setattr(engine, "kernels", lambda dtype, *, may_build: built.append(may_build))
    backbone = twins("mini")[0]
    with torch.inference_mode():
        for _ in range(4):
            engine.prepare(backbone, 8000)
    assert built == [False, False, True, True]


RUN = (
    "import logging, torch; logging.basicConfig(level=logging.DEBUG)\n"
    "from dewey_embed.model.native.kernels import kernels\n"
    "found = kernels(torch.float32, may_build=True)\n"
    "print('kernels' if found else 'none')\n"
)


def start(home, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        env=os.environ | {"HOME": str(home)} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@needs_float32
def test_processes_that_build_at_once_leave_one_complete_library(tmp_path, path_of_copier):
    running = [start(tmp_path, PATH=path_of_copier) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=300)
        assert out.strip() == "kernels", err
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["kernels.so"]


def test_without_a_compiler_torch_does_the_work(tmp_path):
    out, err = start(tmp_path, PATH=str(tmp_path)).communicate(timeout=300)
    assert out.strip() == "none", err


def test_the_environment_turns_the_kernels_off(tmp_path):
    out, _ = start(tmp_path, DEWEY_NATIVE="0").communicate(timeout=300)
    assert out.strip() == "none"
    assert not list(tmp_path.rglob("*.so"))
