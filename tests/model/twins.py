"""Small random backbones and their Hugging Face twins."""

import pytest
import torch

from dewey_embed.model.backbone import Backbone
from dewey_embed.model.hugging_face import from_hugging_face

SHAPES = {
    "tiny": dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2),
    "mini": dict(
        hidden_size=384, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6
    ),
    "base": dict(
        hidden_size=768, intermediate_size=1152, num_hidden_layers=22, num_attention_heads=12
    ),
}


def hugging_face_config(shape: str, **changes):
    transformers = pytest.importorskip("transformers")
    return transformers.ModernBertConfig(
        vocab_size=300,
        pad_token_id=0,
        cls_token_id=1,
        sep_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=131_072,
        **SHAPES[shape],
        **changes,
    )


@torch.inference_mode(False)  # a test may make them within its own inference mode
def twins(shape: str, **changes):
    """Our backbone and transformers' with the same random weights, in float32."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = hugging_face_config(shape, **changes)
    theirs = transformers.ModernBertModel(config).eval()
    # Random projections at their initial scale hardly attend: make scores matter.
    for name, weight in theirs.named_parameters():
        if "norm" not in name:
            weight.data.mul_(2.0)
    ours = Backbone(from_hugging_face(config.to_dict(), source="test")).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs
