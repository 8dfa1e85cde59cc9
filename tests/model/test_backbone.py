"""Our backbone against transformers' own, over one sequence and over packed ones."""

import numpy as np
import pytest
import torch

from dewey_embed.config import GLOBAL_THETA_128K
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.model.backbone import Backbone, extend_context
from dewey_embed.model.engine import hidden_states
from dewey_embed.model.hugging_face import from_hugging_face, to_hugging_face
from dewey_embed.model.packing import pack
from tests.model.twins import hugging_face_config, twins

LENGTHS = (1, 63, 64, 65, 127, 128, 129, 1000, 4097)


def sequences(lengths, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(3, 300, length) for length in lengths]


@torch.inference_mode()
def reference(theirs, sequence):
    return theirs(torch.from_numpy(sequence)[None]).last_hidden_state[0]


@pytest.mark.parametrize("shape", ["tiny", "mini", "base"])
@torch.inference_mode()
def test_a_packed_and_a_single_sequence_equal_transformers(model_twins, shape):
    ours, theirs = model_twins(shape)
    # Long sequences cost transformers minutes at base shape: at mini they are enough here; base
    # at 4,097 stands in the slow tests.
    lengths = {"tiny": LENGTHS[:-1], "mini": LENGTHS, "base": LENGTHS[:-2]}[shape]
    inputs = sequences(lengths)
    packed = hidden_states(ours, pack(inputs)).split(lengths)
    for sequence, together in zip(inputs, packed, strict=True):
        expected = reference(theirs, sequence)
        torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            hidden_states(ours, pack([sequence])), expected, atol=1e-5, rtol=0
        )


@pytest.mark.slow
@torch.inference_mode()
def test_base_shape_equals_transformers_at_4097(model_twins):
    ours, theirs = model_twins("base")
    (sequence,) = sequences([4097])
    torch.testing.assert_close(
        hidden_states(ours, pack([sequence])), reference(theirs, sequence), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shape", ["mini", "base"])
@torch.inference_mode()
def test_bfloat16_stays_within_a_hundredth(shape):
    ours, theirs = twins(shape)
    lengths = LENGTHS[: -1 if shape == "mini" else -2]
    inputs = sequences(lengths)
    packed = hidden_states(ours.bfloat16(), pack(inputs)).float().split(lengths)
    for sequence, got in zip(inputs, packed, strict=True):
        expected = reference(theirs, sequence)
        assert (got - expected).norm() / expected.norm() < 1e-2


@torch.inference_mode()
def test_the_other_sequences_of_a_row_change_nothing(model_twins):
    ours, _ = model_twins("tiny")
    lengths = (200, 3, 70, 1, 64)
    inputs = sequences(lengths)
    forward = hidden_states(ours, pack(inputs)).split(lengths)
    backward = hidden_states(ours, pack(inputs[::-1])).split(lengths[::-1])[::-1]
    for one, other in zip(forward, backward, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=0)


def test_gradients_equal_transformers(model_twins):
    ours, theirs = model_twins("tiny")
    (sequence,) = sequences([150])
    weights = torch.randn(150, 32, generator=torch.Generator().manual_seed(1))
    (hidden_states(ours, pack([sequence])) * weights).sum().backward()
    (theirs(torch.from_numpy(sequence)[None]).last_hidden_state[0] * weights).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "biases", [{"attention_bias": True}, {"mlp_bias": True}, {"norm_bias": True}]
)
@torch.inference_mode()
def test_biases_of_the_config_are_used(biases):
    ours, theirs = twins("tiny", **biases)
    for name, weight in theirs.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_()
    ours.load_state_dict(theirs.state_dict())
    (sequence,) = sequences([100])
    torch.testing.assert_close(
        hidden_states(ours, pack([sequence])), reference(theirs, sequence), atol=1e-5, rtol=0
    )


def test_both_generations_of_config_keys_mean_the_same():
    new = hugging_face_config("tiny").to_dict()
    old = {
        key: value for key, value in new.items() if key not in ("rope_parameters", "layer_types")
    }
    old |= {"global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    old |= {"global_attn_every_n_layers": 3}
    assert from_hugging_face(new, source="new") == from_hugging_face(old, source="old")


def test_transformers_reads_a_written_config(model_twins):
    transformers = pytest.importorskip("transformers")
    config = from_hugging_face(hugging_face_config("tiny").to_dict(), source="x")
    config = extend_context(config)
    theirs = transformers.ModernBertConfig(**to_hugging_face(config))
    assert theirs.rope_parameters["full_attention"]["rope_theta"] == GLOBAL_THETA_128K
    assert from_hugging_face(theirs.to_dict(), source="y") == config


def test_extended_context_moves_the_global_base_and_nothing_else():
    config = from_hugging_face(hugging_face_config("tiny").to_dict(), source="x")
    extended = extend_context(config.model_copy(update={"max_position_embeddings": 8192}))
    assert extended.max_position_embeddings == 131_072
    assert extended.global_rope_theta == 73_780_400.0
    assert extended.local_rope_theta == config.local_rope_theta


def test_a_sequence_past_the_positions_is_refused_with_both_numbers():
    config = from_hugging_face(hugging_face_config("tiny").to_dict(), source="x")
    short = Backbone(config.model_copy(update={"max_position_embeddings": 10}))
    with pytest.raises(ValueError, match=r"11 tokens.*10 positions"):
        hidden_states(short, pack(sequences([11])))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model_type": "bert"}, CheckpointError, "model_type is 'bert'"),
        ({"hidden_activation": "relu"}, CheckpointError, "'relu'"),
        ({"rope_scaling": {"type": "yarn"}}, CheckpointError, "yarn"),
        ({"num_attention_heads": 5}, ConfigError, "num_attention_heads 5"),
        ({"hidden_size": -1}, ConfigError, "hidden_size"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(change, error, message):
    values = {**hugging_face_config("tiny").to_dict(), **change}
    with pytest.raises(error, match=message):
        from_hugging_face(values, source="config.json")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", ["mini", "base"])
@torch.inference_mode()
def test_flash_attention_on_cuda_equals_transformers_on_the_cpu(shape):
    ours, theirs = twins(shape)
    inputs = sequences(LENGTHS)
    packed = (
        hidden_states(ours.to("cuda", torch.bfloat16), pack(inputs, "cuda"))
        .float()
        .cpu()
        .split(LENGTHS)
    )
    for sequence, got in zip(inputs, packed, strict=True):
        expected = reference(theirs, sequence)
        assert (got - expected).norm() / expected.norm() < 1e-2
