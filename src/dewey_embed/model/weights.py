"""Safetensors files → named tensors, under the names of Hugging Face's `ModernBertModel`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dewey_embed.errors import CheckpointError

ANCHOR = "embeddings.tok_embeddings.weight"
"""Every ModernBERT has it, and nothing else does: what stands before it is the prefix."""

BODY = ("embeddings.", "layers.", "final_norm.")


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors by name, and the file that they came from, for messages."""

    tensors: dict[str, Tensor]
    source: str


def read_weights(folder: Path) -> Weights:
    """All tensors of a folder's `model.safetensors`, or of the shards that its index lists.

    Raises:
        CheckpointError: there are only pickles, or a file is missing, truncated or no safetensors.

    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        paths = [single]
    elif index.exists():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        paths = [folder / name for name in sorted(set(names))]
    else:
        others = sorted(path.name for path in folder.glob("*.bin"))
        remedy = f"; {others[0]} is a pickle, which we do not open: convert it" if others else ""
        raise CheckpointError(f"{single}: no such file{remedy}")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: truncated or no safetensors file ({error}); fetch or copy it again"
            ) from None
    return Weights(tensors, str(paths[0] if len(paths) == 1 else index))


def strip_prefix(weights: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's tensors under ModernBERT's own names, and those that are not the backbone's.

    Raises:
        CheckpointError: no token table, so no ModernBERT.

    """
    anchors = [name for name in weights.tensors if name.endswith(ANCHOR)]
    if len(anchors) != 1:
        first = next(iter(sorted(weights.tensors)), "none")
        raise CheckpointError(
            f"{weights.source}: {len(anchors)} tensors named …{ANCHOR}, need exactly one "
            f"(first tensor: {first!r}); this is no ModernBERT"
        )
    prefix = anchors[0].removesuffix(ANCHOR)
    starts = tuple(prefix + part for part in BODY)
    body = {n.removeprefix(prefix): t for n, t in weights.tensors.items() if n.startswith(starts)}
    rest = {n: t for n, t in weights.tensors.items() if not n.startswith(starts)}
    return body, rest


def head_left_over(
    rest: Mapping[str, Tensor], vector_size: int | None, hidden_size: int, source: str
) -> dict[str, Tensor]:
    """`weight`, and `bias` if there is one, of the only linear layer left over.

    Raises:
        CheckpointError: none, more than one, or something else besides; all are listed.

    """
    weights = [
        name
        for name, tensor in rest.items()
        if tensor.ndim == 2
        and tensor.shape[1] == hidden_size
        and (vector_size is None or tensor.shape[0] == vector_size)
    ]
    if len(weights) == 1:
        head = {"weight": rest[weights[0]]}
        bias = weights[0].removesuffix("weight") + "bias"
        if bias in rest and rest[bias].shape == rest[weights[0]].shape[:1]:
            head["bias"] = rest[bias]
        if len(head) == len(rest):
            return head
    listed = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(rest.items()))
    raise CheckpointError(
        f"{source}: beside the backbone there must be exactly one linear layer of shape "
        f"({vector_size or 'any'}, {hidden_size}), with or without bias; found: {listed or 'none'}"
    )
