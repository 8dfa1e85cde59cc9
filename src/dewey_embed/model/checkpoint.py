"""Model folders ↔ models: which layouts we read, and the one that we write.

Each layout is a row of `LAYOUTS`: how to recognise it and how to read its settings. Weights come
from safetensors only, never from pickles, and no code that lies in a folder is ever run. What we
write is a Sentence Transformers folder with `dewey.json` beside it; it appears under its name only
when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dewey_embed.config import PAPER_PROMPTS, BackboneConfig, DeweyConfig
from dewey_embed.errors import CheckpointError
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.weights import Weights, head_left_over, read_weights, strip_prefix

Json = dict[str, Any]

SETTINGS_FILE = "dewey.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder, read: settings, and weights under our names (`backbone.…`, `head.…`)."""

    config: DeweyConfig
    weights: Weights


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which others, or we, lay out a model folder."""

    name: str
    recognise: Callable[[Path, Json], bool]
    read: Callable[[Path, Json], Checkpoint]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Settings and weights of a model folder of any layout that we know.

    Raises:
        CheckpointError: no such folder, no layout fits, or a file is missing, truncated or
            foreign; the file and what is wrong in it are named.

    """
    config = _read_json(folder / "config.json")
    for layout in LAYOUTS:
        if layout.recognise(folder, config):
            return layout.read(folder, config)
    raise CheckpointError(
        f"{folder}: no known layout (config.json says architectures "
        f"{config.get('architectures')}, model_type {config.get('model_type')!r}); "
        f"known: {', '.join(layout.name for layout in LAYOUTS)}"
    )


def build_model(checkpoint: Checkpoint) -> DeweyModel:
    """The model with the checkpoint's weights, in the dtype in which they were stored.

    Raises:
        CheckpointError: naming the first tensor that is missing, of another shape, or unknown.

    """
    import torch

    with torch.device("meta"):
        model = DeweyModel(checkpoint.config)
    tensors, source = checkpoint.weights.tensors, checkpoint.weights.source
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{source}: tensor {name!r} is missing")
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
                f"the config asks for {tuple(tensor.shape)}"
            )
    for name in tensors:
        if name not in expected:
            raise CheckpointError(f"{source}: unknown tensor {name!r}; the config knows none such")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _read_ours(folder: Path, config: Json) -> Checkpoint:
    settings = _read_json(folder / SETTINGS_FILE)
    settings.pop("format", None)
    backbone = BackboneConfig.from_hugging_face(config, source=str(folder / "config.json"))
    source = str(folder / SETTINGS_FILE)
    dewey = DeweyConfig.parse({**settings, "backbone": backbone}, source=source)
    return Checkpoint(dewey, _with_dense(folder, dewey.vector_size is not None))


def _read_sentence_transformers(folder: Path, config: Json) -> Checkpoint:
    """A Transformer, a Pooling, and perhaps one linear Dense and a Normalize."""
    backbone = BackboneConfig.from_hugging_face(config, source=str(folder / "config.json"))
    kinds = {
        module["type"].rsplit(".", 1)[-1]: folder / module["path"]
        for module in _read_json(folder / "modules.json")
    }
    unknown = set(kinds) - {"Transformer", "Pooling", "Dense", "Normalize"}
    if unknown or "Pooling" not in kinds:
        raise CheckpointError(
            f"{folder / 'modules.json'}: modules {sorted(kinds)}; we can run Transformer, "
            "Pooling (cls or mean), and one linear Dense and a Normalize"
        )
    dense = _read_dense_config(kinds["Dense"], backbone) if "Dense" in kinds else {}
    bert = _read_json(folder / "sentence_bert_config.json", missing={})
    prompts = _read_json(folder / "config_sentence_transformers.json", missing={}).get("prompts")
    limit = min(bert.get("max_seq_length") or backbone.max_position_embeddings,
                backbone.max_position_embeddings)  # fmt: skip
    dewey = DeweyConfig(
        backbone=backbone,
        vector_size=dense.get("out_features"),
        head_bias=dense.get("bias", False),
        single_vector="cls" if _read_pooling(kinds["Pooling"]) == "cls" else "mean",
        prompts={"query": "", "document": "", **(prompts or {})},
        max_tokens=limit,
    )
    return Checkpoint(dewey, _with_dense(folder, "Dense" in kinds, kinds.get("Dense")))


def _read_released(folder: Path, config: Json) -> Checkpoint:
    """`infgrad/dewey_en_beta`: a ModernBERT and one linear layer, under names of their own.

    The remote code beside it is not run: ModernBERT's names are found by their endings, and the
    one linear layer left over of shape vector_size × hidden is the head.
    """
    source = str(folder / "config.json")
    backbone = BackboneConfig.from_hugging_face(config, source=source)
    vector_size = config.get("vector_size")
    raw = read_weights(folder)
    body, rest = strip_prefix(raw)
    head = head_left_over(rest, vector_size, backbone.hidden_size, raw.source)
    tensors = {f"backbone.{name}": tensor for name, tensor in body.items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.items()}
    dewey = DeweyConfig.parse(
        {
            "backbone": backbone,
            "vector_size": len(head["weight"]),
            "head_bias": "bias" in head,
            "single_vector": config.get("single_vector_type", "cls_add_mean"),
            "prompts": dict(PAPER_PROMPTS),
            "max_tokens": backbone.max_position_embeddings,
        },
        source=source,
    )
    return Checkpoint(dewey, Weights(tensors, raw.source))


def _read_hugging_face(folder: Path, config: Json) -> Checkpoint:
    """A bare ModernBERT, or one with a head for another task, which is left aside."""
    backbone = BackboneConfig.from_hugging_face(config, source=str(folder / "config.json"))
    dewey = DeweyConfig(
        backbone=backbone, single_vector="mean", max_tokens=backbone.max_position_embeddings
    )
    return Checkpoint(dewey, _with_dense(folder, has_head=False))


def _with_dense(folder: Path, has_head: bool, dense: Path | None = None) -> Weights:
    """Backbone weights from the folder, the head's from its `2_Dense`, under our names."""
    raw = read_weights(folder)
    body, _ = strip_prefix(raw)
    tensors: dict[str, Tensor] = {f"backbone.{name}": tensor for name, tensor in body.items()}
    if has_head:
        for name, tensor in read_weights(dense or folder / "2_Dense").tensors.items():
            tensors[f"head.{name.removeprefix('linear.')}"] = tensor
    return Weights(tensors, raw.source)


def _read_pooling(folder: Path) -> str:
    """`cls` or `mean` of a Pooling module's config, in the keys of before and after ST 6."""
    path = folder / "config.json"
    config = _read_json(path)
    older = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    mode = config.get("pooling_mode", older.get(on[0], on[0]) if len(on) == 1 else on)
    if mode not in ("cls", "mean"):
        raise CheckpointError(f"{path}: pooling mode {mode!r}; we can run 'cls' and 'mean'")
    return str(mode)


def _read_dense_config(folder: Path, backbone: BackboneConfig) -> Json:
    path = folder / "config.json"
    config: Json = _read_json(path)
    activation = config.get("activation_function", "torch.nn.modules.linear.Identity")
    if not str(activation).endswith("Identity") or config.get("use_residual"):
        raise CheckpointError(
            f"{path}: Dense with activation {activation!r}, use_residual "
            f"{config.get('use_residual', False)}; we can run a plain linear layer only"
        )
    if config.get("in_features") != backbone.hidden_size:
        raise CheckpointError(
            f"{path}: in_features {config.get('in_features')}, "
            f"but the backbone is {backbone.hidden_size} wide"
        )
    return config


def _read_json(path: Path, missing: Json | None = None) -> Any:
    """The file's JSON; `missing` where there is no such file and that is all right."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise CheckpointError(f"{path}: no such file; is {path.parent} a model folder?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None


def _is_released(folder: Path, config: Mapping[str, Any]) -> bool:
    return "DeweyV1" in (config.get("architectures") or [])


LAYOUTS: tuple[Layout, ...] = (
    Layout("dewey", lambda folder, _: (folder / SETTINGS_FILE).exists(), _read_ours),
    Layout("dewey_en_beta", _is_released, _read_released),
    Layout(
        "sentence-transformers",
        lambda folder, _: (folder / "modules.json").exists(),
        _read_sentence_transformers,
    ),
    Layout(
        "hugging-face",
        lambda _, config: config.get("model_type") == "modernbert",
        _read_hugging_face,
    ),
)
