"""Safetensors files → named tensors, under the names of Hugging Face's `ModernBertModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from dewey_embed.errors import CheckpointError
from dewey_embed.model.folder import FETCH, JsonFile, is_there, read_file

ANCHOR = "embeddings.tok_embeddings.weight"
"""The end of a name that every ModernBERT has once; the beginning is the prefix of all names."""

BODY = ("embeddings.", "layers.", "final_norm.")


class _Index(JsonFile):
    """The shard of each tensor."""

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors by name, with the files that messages name: one for all, or one for a tensor."""

    tensors: dict[str, Tensor]
    source: str
    sources: dict[str, str] = field(default_factory=dict)

    def source_of(self, name: str) -> str:
        """The file that a tensor came from."""
        return self.sources.get(name, self.source)


def read_weights(folder: Path) -> Weights:
    """All tensors of a folder's `model.safetensors`, or of the shards that its index lists.

    Raises:
        CheckpointError: there are only pickles, or a file is missing, truncated or foreign.

    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if is_there(single):
        return Weights(read_tensors(single), str(single))
    if not is_there(index):
        raise CheckpointError(f"{single}: no such file{_instead(folder)}")
    shards = read_file(_Index, index).weight_map.values()
    tensors: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for name in sorted(set(shards)):
        if Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} does not lie beside it; {FETCH}")
        shard = read_tensors(folder / name)
        tensors |= shard
        sources |= dict.fromkeys(shard, str(folder / name))
    return Weights(tensors, str(index), sources)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        CheckpointError: it is missing, truncated or foreign.

    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file, but the index lists it; {FETCH}") from None
    except PermissionError as error:
        raise CheckpointError(f"{path}: may not be read ({error}); check its permissions") from None
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: truncated, or not a safetensors file ({error}); fetch or copy it again"
        ) from None


def _instead(folder: Path) -> str:
    """The rest of a message: the weights that the folder has instead, and the remedy."""
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        return (
            f"; {pickles[0]} is a pickle, which Dewey does not open: convert it "
            "(load it with transformers and save_pretrained it)"
        )
    for kind in ("onnx", "openvino"):
        if (folder / kind).is_dir():
            return (
                f"; the folder holds an {kind} model, which Dewey cannot run: "
                "save the PyTorch model it was made from as safetensors"
            )
    return "; fetch or copy the folder again"


def split_weights(weights: Weights) -> tuple[Weights, dict[str, Tensor]]:
    """The backbone's weights under `DeweyModel`'s names, and all other tensors.

    Raises:
        CheckpointError: there is no token table, so this is not a ModernBERT.

    """
    anchors = [name for name in weights.tensors if name.endswith(ANCHOR)]
    if len(anchors) != 1:
        first = next(iter(sorted(weights.tensors)), "none")
        raise CheckpointError(
            f"{weights.source}: {len(anchors)} tensors named …{ANCHOR}, need exactly one "
            f"(first tensor: {first!r}); this is not a ModernBERT"
        )
    prefix = anchors[0].removesuffix(ANCHOR)
    starts = tuple(prefix + part for part in BODY)
    names = {
        n: f"backbone.{n.removeprefix(prefix)}" for n in weights.tensors if n.startswith(starts)
    }
    body = {new: weights.tensors[name] for name, new in names.items()}
    sources = {new: weights.source_of(name) for name, new in names.items()}
    rest = {name: tensor for name, tensor in weights.tensors.items() if name not in names}
    return Weights(body, weights.source, sources), rest


def head_left_over(
    rest: Mapping[str, Tensor], vector_size: int | None, hidden_size: int, source: str
) -> dict[str, Tensor]:
    """The `weight`, and the `bias` if any, of the only linear layer beside the backbone.

    Raises:
        CheckpointError: there is none, more than one, or another tensor; all are listed.

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
