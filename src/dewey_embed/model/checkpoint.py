"""Model folders → models: the layouts that Dewey reads.

Each layout is a row of `LAYOUTS`: how to recognise it and how to read its settings. Weights come
from safetensors only, never from pickles, and no code that lies in a folder is ever run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dewey_embed.config import PAPER_PROMPTS, Dense, DeweyConfig
from dewey_embed.errors import CheckpointError
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.folder import (
    AXES_FILE,
    AXES_NAME,
    MODULES_FILE,
    SETTINGS_FILE,
    Json,
    is_there,
    read_json,
    refuse_damaged,
)
from dewey_embed.model.hugging_face import from_hugging_face
from dewey_embed.model.sentence_transformers import read_folder
from dewey_embed.model.weights import (
    Weights,
    head_left_over,
    read_tensors,
    read_weights,
    split_weights,
)
from dewey_embed.single_vectors import SINGLE_VECTORS
from dewey_embed.types import Floats


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder as read: settings, and weights by `DeweyModel`'s names.

    `tokenizer` is the folder of the tokenizer's files; with `lower_case` texts are lowered before
    it. With `template` the tokenizer's own template names the special tokens around a text, and the
    ids in `config` are only a guess. `teacher_axes` are those of `DeweyModel`.
    """

    config: DeweyConfig
    weights: Weights
    tokenizer: Path
    template: bool = False
    lower_case: bool = False
    teacher_axes: Floats | None = None


class Layout(NamedTuple):
    """A layout of a model folder: how it is recognised and read, given its `config.json`."""

    name: str
    recognise: Callable[[Path, Json], bool]
    read: Callable[[Path, Json], Checkpoint]


def read_checkpoint(folder: Path) -> Checkpoint:
    """The settings and weights of a model folder of any known layout.

    Raises:
        CheckpointError: no such folder, no layout fits, or a file is missing, truncated or
            foreign; the message names the file and its fault.

    """
    refuse_damaged(folder)  # before a damaged file is read, and called by another name
    # A Sentence Transformers folder may keep its Transformer's config in a folder of its own.
    nested = is_there(folder / MODULES_FILE) and not is_there(folder / SETTINGS_FILE)
    config = read_json(folder / "config.json", missing_ok=nested)
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

    try:
        with torch.device("meta"):
            model = DeweyModel(checkpoint.config)
    except RuntimeError as error:  # sizes that no memory could hold
        raise CheckpointError(
            f"{checkpoint.weights.source}: its config describes an impossible model ({error})"
        ) from None
    weights, expected = checkpoint.weights, model.state_dict()
    for name in (*expected, *weights.tensors):
        source = weights.source_of(name)
        if name not in weights.tensors:
            raise CheckpointError(f"{source}: tensor {name!r} is missing")
        if name not in expected:
            raise CheckpointError(f"{source}: tensor {name!r} is not in the model of its config")
    for name, tensor in expected.items():
        _require_fitting(weights, name, tensor)
    model.load_state_dict(weights.tensors, assign=True)
    model.teacher_axes = checkpoint.teacher_axes
    return model.eval()


def read_teacher_axes(folder: Path) -> Floats | None:
    """The (T, D) axes of the vectors of a Dewey folder's model; None where it has none.

    Raises:
        CheckpointError: the file is damaged, or holds something else.

    """
    path = folder / AXES_FILE
    if not is_there(path):
        return None
    tensors = read_tensors(path)
    axes = tensors.get(AXES_NAME)
    if axes is None or axes.ndim != 2 or len(axes) < axes.shape[1] or not axes.isfinite().all():
        raise CheckpointError(
            f"{path}: holds no finite (T, D) matrix {AXES_NAME!r} of axes; fetch the file again"
        )
    return axes.float().numpy()


def _require_fitting(weights: Weights, name: str, expected: Tensor) -> None:
    """Refuse a tensor of another shape or kind, or with a value that is not finite."""
    tensor, source = weights.tensors[name], weights.source_of(name)
    if tensor.shape != expected.shape:
        raise CheckpointError(
            f"{source}: tensor {name!r} has shape {tuple(tensor.shape)}, "
            f"the config needs {tuple(expected.shape)}"
        )
    if not tensor.dtype.is_floating_point or tensor.element_size() == 1:
        raise CheckpointError(
            f"{source}: tensor {name!r} is {str(tensor.dtype).removeprefix('torch.')}: a quantised "
            'model; save the one it was made from, and load it with dtype="int8" for a small one'
        )
    # A sum is not finite if any of its terms is not, and takes one quick pass.
    if not tensor.sum().isfinite() and (count := int((~tensor.isfinite()).sum())):
        raise CheckpointError(
            f"{source}: tensor {name!r} holds {count:,} NaN or infinite values, and so would every "
            "vector; fetch the file again, or use the model as it was before it diverged"
        )


def _read_ours(folder: Path, config: Json) -> Checkpoint:
    """A folder that Dewey wrote: `export` numbers the modules, from the Transformer on."""
    path = folder / SETTINGS_FILE
    settings = read_json(path)
    settings.pop("format", None)
    backbone = from_hugging_face(config, source=str(folder / "config.json"))
    ours = DeweyConfig.parse({**settings, "backbone": backbone}, source=str(path))
    numbers = [n for n, step in enumerate(ours.steps, start=2) if isinstance(step, Dense)]
    if ours.vector_size is not None:
        numbers.append(len(ours.steps) + 2)
    if is_there(folder / MODULES_FILE):
        _refuse_older(path, ours, read_folder(folder).config)
    axes = read_teacher_axes(folder)
    if axes is not None and axes.shape[1] != ours.embedding_dim:
        raise CheckpointError(
            f"{folder / AXES_FILE}: holds {axes.shape[1]} axes for vectors of "
            f"{ours.embedding_dim} dimensions; it belongs to another model"
        )
    weights = _weights(folder, ours, [folder / f"{n}_Dense" for n in numbers])
    return Checkpoint(ours, weights, folder, teacher_axes=axes)


def _refuse_older(path: Path, ours: DeweyConfig, theirs: DeweyConfig) -> None:
    """Refuse a `dewey.json` beside which Sentence Transformers has saved another model.

    It replaces its own files and leaves `dewey.json` as it was.
    """
    mine = {**dict(ours), "single_vector": SINGLE_VECTORS[ours.single_vector].mode}
    known = set(mine) - {"backbone", "pooled_over", "before_ids", "after_ids"}
    if differ := [name for name, value in theirs if name in known and mine[name] != value]:
        raise CheckpointError(
            f"{path}: does not fit Sentence Transformers' files beside it ({', '.join(differ)}), "
            "which were changed after it was written; delete it to load the folder as they say, or "
            "save the model with Dewey again"
        )


def _read_sentence_transformers(folder: Path, _: Json) -> Checkpoint:
    """A Transformer, a Pooling, and the steps after it."""
    config, transformer, dense, lower_case = read_folder(folder)
    weights = _weights(transformer, config, dense)
    return Checkpoint(config, weights, transformer, template=True, lower_case=lower_case)


def _read_released(folder: Path, config: Json) -> Checkpoint:
    """`infgrad/dewey_en_beta`: a ModernBERT and one linear layer, under other names.

    The remote code beside it is not run: ModernBERT's names are recognised by their endings,
    and the only other linear layer, of shape vector_size × hidden, is the head.
    """
    raw = read_weights(folder)
    source = str(folder / "config.json")
    backbone = from_hugging_face(config, source=source)
    body, rest = split_weights(raw)
    head = head_left_over(rest, config.get("vector_size"), backbone.hidden_size, raw.source)
    values: dict[str, Any] = {
        "backbone": backbone,
        "vector_size": len(head["weight"]),
        "head_bias": "bias" in head,
        "single_vector": config.get("single_vector_type", "cls_add_mean"),
        "prompts": dict(PAPER_PROMPTS),
        "max_tokens": backbone.max_position_embeddings,
    }
    tensors = body.tensors | {f"head.{name}": tensor for name, tensor in head.items()}
    dewey = DeweyConfig.parse(values, source=source)
    return Checkpoint(dewey, Weights(tensors, raw.source, body.sources), folder)


def _read_hugging_face(folder: Path, config: Json) -> Checkpoint:
    """A bare ModernBERT, or one with a head for another task, which is ignored."""
    source = str(folder / "config.json")
    backbone = from_hugging_face(config, source=source, needs_special_ids=False)
    limit = backbone.max_position_embeddings
    values = {"backbone": backbone, "single_vector": "mean", "max_tokens": limit}
    dewey = DeweyConfig.parse(values, source=source)
    return Checkpoint(dewey, _weights(folder, dewey, []), folder, template=True)


def _weights(folder: Path, config: DeweyConfig, dense: list[Path]) -> Weights:
    """The backbone's weights from the folder, those of steps and head from the folders `dense`."""
    body, _ = split_weights(read_weights(folder))
    tensors, sources = dict(body.tensors), dict(body.sources)
    layers = [f"steps.{n}" for n, step in enumerate(config.steps) if isinstance(step, Dense)]
    layers += ["head"] if config.vector_size is not None else []
    for layer, path in zip(layers, dense, strict=True):
        read = read_weights(path)
        for name, tensor in read.tensors.items():
            tensors[f"{layer}.{name.removeprefix('linear.')}"] = tensor
        sources |= dict.fromkeys((f"{layer}.weight", f"{layer}.bias"), read.source)
    return Weights(tensors, body.source, sources)


def _is_released(_: Path, config: Json) -> bool:
    named = config.get("architectures")
    return isinstance(named, list) and "DeweyV1" in named


LAYOUTS: tuple[Layout, ...] = (
    Layout("dewey", lambda folder, _: is_there(folder / SETTINGS_FILE), _read_ours),
    Layout("dewey_en_beta", _is_released, _read_released),
    Layout(
        "sentence-transformers",
        lambda folder, _: is_there(folder / MODULES_FILE),
        _read_sentence_transformers,
    ),
    Layout(
        "hugging-face",
        lambda _, config: config.get("model_type") == "modernbert",
        _read_hugging_face,
    ),
)
