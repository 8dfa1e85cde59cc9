"""What mteb's result files and leaderboards say of Dewey models."""

from __future__ import annotations

from pathlib import Path

from mteb.models.model_meta import ModelMeta, ScoringFunction

from dewey_embed.encoder import Dewey
from dewey_embed.model.folder import EMBEDDED

OWNER = "dewey-embed"
"""Stands before the names of models that have no owner, for mteb wants one."""

PAPER = """@misc{zhang2025dewey,
  title={Dewey Long Context Embedding Model: A Technical Report},
  author={Dun Zhang and Panxiang Zou and Yudong Zhou},
  year={2025},
  eprint={2503.20376},
  archivePrefix={arXiv},
}"""

DEWEY = ModelMeta.create_empty(
    {
        "languages": ["eng-Latn"],
        "framework": ["PyTorch", "Sentence Transformers", "safetensors"],
        "similarity_fn_name": ScoringFunction.COSINE,
        "open_weights": True,
        "citation": PAPER,
    }
)
"""What holds for every Dewey model; `model_meta` adds what a model itself tells."""

MINI = DEWEY.model_copy(
    update={
        "name": f"{OWNER}/{EMBEDDED}",
        "license": "apache-2.0",
        "public_training_data": True,
        "training_datasets": set(),
        "adapted_from": "sentence-transformers/all-MiniLM-L6-v2",
    }
)
"""The embedded default, without what it tells itself. None of mteb's data sets was trained on; its
teacher, which is what it was adapted from to mteb, was trained on several."""

DEWEY_EN_BETA = DEWEY.model_copy(
    update={
        "name": "infgrad/dewey_en_beta",
        "license": "mit",
        "release_date": "2025-03-24",
        "reference": "https://huggingface.co/infgrad/dewey_en_beta",
        "use_instructions": True,
        "n_parameters": 395_000_000,
        "max_tokens": 131_072.0,
        "embed_dim": 2048,
    }
)
"""The paper's released model, which mteb has not registered. Source: arXiv 2503.20376; licence and
date: the `ModelMeta` that a public script for evaluating it carries."""

KNOWN = {EMBEDDED: MINI, DEWEY_EN_BETA.name: DEWEY_EN_BETA}


def model_meta(model: Dewey) -> ModelMeta:
    """The metadata of a loaded model; its revision is the fingerprint.

    So results of changed weights or settings are told apart from those of the old.
    """
    weights = list(model.model.parameters())
    table = model.model.backbone.embeddings.tok_embeddings.weight
    num = sum(weight.numel() for weight in weights)
    bytes_ = sum(weight.numel() * weight.element_size() for weight in weights)
    return KNOWN.get(model.name, DEWEY).model_copy(
        update={
            "name": _name(model),
            "revision": model.fingerprint,
            "n_parameters": num,
            "n_embedding_parameters": table.numel(),
            "memory_usage_mb": round(bytes_ / 2**20, 1),
            "max_tokens": float(model.max_tokens),
            "embed_dim": model.embedding_dim,
            "use_instructions": any(model.prompts.values()),
        }
    )


def _name(model: Dewey) -> str:
    """The model's name as mteb wants it, `owner/model`: a hub id, or the name of its folder."""
    if Path(model.name).is_dir() or model.name == EMBEDDED or model.name.count("/") != 1:
        return f"{OWNER}/{Path(model.name).resolve().name}"
    return model.name
