"""The table of engines: which one runs a backbone, and that all give the same states."""

import ast
from pathlib import Path

import pytest
import torch

import dewey_embed.model
from dewey_embed.model.engine import (
    ENGINES,
    choose_engine,
    engine_name,
    hidden_states,
    train_with_kernels,
)
from dewey_embed.model.native.kernels import kernels
from tests.model.test_native import needs_bfloat16, some_texts
from tests.model.twins import twins


def chosen(backbone, *, gradients):
    with torch.set_grad_enabled(gradients):
        return choose_engine(backbone)[0].name


@needs_bfloat16
def test_dtype_and_gradients_choose_the_engine(monkeypatch):
    backbone = twins("mini")[0]
    for dtype in (torch.float32, torch.bfloat16):
        kernels(dtype, may_build=True)
        assert chosen(backbone.to(dtype), gradients=False) == "C++ kernels"
        assert chosen(backbone, gradients=True) == "PyTorch"
    assert train_with_kernels(backbone)
    assert chosen(backbone, gradients=True) == "PyTorch, attention by C++ kernels"
    assert chosen(backbone.double(), gradients=False) == "PyTorch"
    monkeypatch.setenv("DEWEY_NATIVE", "0")
    for gradients in (False, True):
        assert chosen(backbone.bfloat16(), gradients=gradients) == "PyTorch"
    assert engine_name(backbone) == "PyTorch"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_cuda_runs_flash_attention():
    backbone = twins("mini")[0].cuda()
    for dtype, name in ((torch.bfloat16, "PyTorch, FlashAttention"), (torch.float32, "PyTorch")):
        for gradients in (False, True):
            assert chosen(backbone.to(dtype), gradients=gradients) == name


def test_the_last_engine_runs_anything():
    last = ENGINES[-1]
    assert (last.device, last.dtypes, last.gradients, last.find_kernels) == (None,) * 4


@torch.inference_mode()
def test_a_backbone_called_by_itself_gives_the_engines_states():
    backbone, packed = twins("tiny")[0], some_texts(1, 65, 300)
    torch.testing.assert_close(backbone(packed), hidden_states(backbone, packed))


@pytest.mark.parametrize("name", ["backbone", "attention"])
def test_the_modules_of_plain_torch_import_no_kernel(name):
    source = Path(dewey_embed.model.__file__).with_name(f"{name}.py").read_text()
    imported = {
        node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)
    }
    ours = {each for each in imported if each and each.startswith("dewey_embed.model")}
    assert ours <= {"dewey_embed.model.attention", "dewey_embed.model.packing"}
