"""Sentence Transformers' model folders, read for the same vectors as there, or refused.

`modules.json` is a sequence, and every module of it either runs as it does there or is refused by
name: a Transformer, a Pooling, then any number of Dense and Normalize. Source of the meaning of
each file: Sentence Transformers 6.2, `base/model.py`, `base/modules/`,
`sentence_transformer/modules/`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field

from dewey_embed.config import MIN_TOKENS, Activation, Count, Dense, DeweyConfig, Normalize
from dewey_embed.errors import CheckpointError
from dewey_embed.model.folder import (
    FETCH,
    MODULES_FILE,
    Json,
    JsonFile,
    is_there,
    parse,
    read_file,
    read_json,
)
from dewey_embed.model.hugging_face import from_hugging_face
from dewey_embed.single_vectors import SINGLE_VECTORS, SingleVector
from dewey_embed.types import PooledOver

PACKAGE = "sentence_transformers."
RUNNABLE = (
    "Dewey can run Transformer, Pooling (one of cls and mean), then any number of Dense and "
    "Normalize"
)

# Named after the model it was first written for; the first that is there and not empty counts.
TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

POOLING_MODES = [name for name, kind in SINGLE_VECTORS.items() if kind.mode == name]
"""Those that are a single vector of ours, by the same name."""


class _Module(JsonFile):
    name: str
    path: str
    type: str

    @property
    def kind(self) -> str:
        """The name of its class."""
        return self.type.rsplit(".", 1)[-1]


class _TransformerFile(JsonFile):
    max_seq_length: int | None = None
    do_lower_case: bool = False


TEXT_MODALITY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}

RUNNABLE_VALUES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("query_length", "document_length", "query_expansion", "processing_kwargs", "model_args",
         "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
        (None, {}),
    ),
    "transformer_task": (None, "feature-extraction"),
    "modality_config": (None, TEXT_MODALITY),
    "module_output_name": (None, "token_embeddings"),
}  # fmt: skip
"""Keys of a Transformer that change its vectors, each with the values that Dewey can run."""


class _TokenizerFile(JsonFile):
    model_max_length: int | float | None = None
    max_len: int | float | None = None
    truncation_side: Literal["right"] = "right"
    split_special_tokens: Literal[False] = False


class _PoolingFile(JsonFile):
    """Before version 6 every mode had a key of its own, in place of `pooling_mode`."""

    pooling_mode: str | list[str] | None = None
    include_prompt: bool = True
    cls: bool = Field(default=False, alias="pooling_mode_cls_token")
    max: bool = Field(default=False, alias="pooling_mode_max_tokens")
    mean: bool = Field(default=False, alias="pooling_mode_mean_tokens")
    mean_sqrt_len_tokens: bool = Field(default=False, alias="pooling_mode_mean_sqrt_len_tokens")
    weightedmean: bool = Field(default=False, alias="pooling_mode_weightedmean_tokens")
    lasttoken: bool = Field(default=False, alias="pooling_mode_lasttoken")


class _StepFile(JsonFile):
    module_input_name: Literal["sentence_embedding"] = "sentence_embedding"
    module_output_name: Literal["sentence_embedding"] | None = None


class _DenseFile(_StepFile):
    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: Literal[False] = False


class _ModelFile(JsonFile):
    model_type: Literal["SentenceTransformer"] = "SentenceTransformer"
    prompts: dict[str, str | None] = Field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: Count | None = None


class SentenceTransformersFolder(NamedTuple):
    """A folder as it describes itself: settings, and where weights and tokenizer lie.

    `dense` are the folders of the weights of steps and head, in their order.
    """

    config: DeweyConfig
    transformer: Path
    dense: list[Path]
    lower_case: bool


def read_folder(folder: Path) -> SentenceTransformersFolder:
    """The folder's own description of its model, refused where Dewey would run it otherwise.

    Raises:
        CheckpointError: naming the file and the value in it that cannot be run or read.
        ConfigError: an impossible value, or sizes that do not fit together.

    """
    first, pooling, *modules = _read_modules(folder / MODULES_FILE)
    transformer = folder / first.path
    read = _read_transformer(transformer)
    path = transformer / "config.json"
    backbone = from_hugging_face(read_json(path), source=str(path), needs_special_ids=False)
    limit = _max_tokens(transformer, read.max_seq_length, backbone.max_position_embeddings)
    # Rotary positions need no weights: there is room for any number.
    positions = max(limit, backbone.max_position_embeddings)
    single_vector, pooled_over = _read_pooling(folder / pooling.path / "config.json")
    steps = [STEPS[each.kind](folder / each.path / "config.json") for each in modules]
    config = DeweyConfig.parse(
        {
            "backbone": backbone.model_copy(update={"max_position_embeddings": positions}),
            "max_tokens": limit,
            "single_vector": single_vector,
            "pooled_over": pooled_over,
            **_steps_and_head([step for step in steps if step is not None]),
            **_read_model_file(folder / "config_sentence_transformers.json", steps),
        },
        source=str(folder / MODULES_FILE),
    )
    dense = [folder / module.path for module in modules if module.kind == "Dense"]
    return SentenceTransformersFolder(config, transformer, dense, read.do_lower_case)


def _max_tokens(transformer: Path, max_seq_length: int | None, positions: int) -> int:
    """The number of tokens that Sentence Transformers reads at once.

    It is `max_seq_length`, past the model's positions, too; without it the tokenizer's
    `model_max_length`, up to the positions.
    """
    read = read_file(_TokenizerFile, transformer / "tokenizer_config.json", missing_ok=True)
    limit = max_seq_length
    if limit is None:
        longest = read.max_len if read.model_max_length is None else read.model_max_length
        limit = positions if longest is None else int(min(longest, positions))
    if limit < MIN_TOKENS:
        raise CheckpointError(
            f"{transformer}: max_seq_length (or tokenizer_config.json's model_max_length) is "
            f"{limit}, need {MIN_TOKENS} or more: special tokens take room, too"
        )
    return limit


def _steps_and_head(steps: Sequence[Dense | Normalize]) -> Json:
    """Steps as settings: a last plain linear layer is the head."""
    while steps and isinstance(steps[-1], Normalize):
        steps = steps[:-1]  # Dewey normalises at the end anyway
    if steps and isinstance(last := steps[-1], Dense) and last.activation == "identity":
        return {"steps": steps[:-1], "vector_size": last.out_features, "head_bias": last.bias}
    return {"steps": steps}


def _read_modules(path: Path) -> list[_Module]:
    """The modules in their order, if they are a sequence that can be run."""
    modules = [parse(_Module, value, path) for value in read_json(path, list)]
    kinds = [module.kind for module in modules]
    listed = f"{path}: modules {', '.join(kinds) or 'none'}"
    foreign = [module.type for module in modules if not module.type.startswith(PACKAGE)]
    if foreign:
        raise CheckpointError(f"{path}: module {foreign[0]!r} is code of its own; {RUNNABLE}")
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise CheckpointError(f"{listed}; {RUNNABLE}")
    for kind in kinds[2:]:
        if kind not in STEPS:
            raise CheckpointError(f"{listed}: {kind} after Pooling cannot be run; {RUNNABLE}")
    if len({module.name for module in modules}) < len(modules):
        raise CheckpointError(f"{listed}: two share a name, so one of them is lost; {FETCH}")
    for module in modules:
        if PureWindowsPath(module.path).anchor or ".." in PurePosixPath(module.path).parts:
            raise CheckpointError(f"{path}: path {module.path!r} leads out of the folder; {FETCH}")
    return modules


def _read_transformer(folder: Path) -> _TransformerFile:
    """The Transformer's settings, refused where they ask for more than Dewey does."""
    path, values = folder / TRANSFORMER_FILES[0], {}
    for name in TRANSFORMER_FILES:
        if values := read_json(folder / name, missing_ok=True):
            path = folder / name
            break
    for name, runnable in RUNNABLE_VALUES.items():
        if (value := values.get(name)) not in runnable:
            raise CheckpointError(f"{path}: {name} {value!r} cannot be honoured; take it out")
    if is_there(folder / "adapter_config.json"):
        raise CheckpointError(
            f"{folder / 'adapter_config.json'}: an adapter cannot be run; merge it into its model "
            "(merge_and_unload), then save that"
        )
    return parse(_TransformerFile, values, path)


def _read_pooling(path: Path) -> tuple[SingleVector, PooledOver]:
    """The document's vector of a Pooling module's config."""
    read = read_file(_PoolingFile, path)
    older = [mode for mode, each in _PoolingFile.model_fields.items() if each.alias]
    older = [mode for mode in older if getattr(read, mode)]
    mode = read.pooling_mode if read.pooling_mode is not None else older or ["mean"]
    modes = [mode] if isinstance(mode, str) else mode
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise CheckpointError(
            f"{path}: pooling mode {' + '.join(modes)!r}; Dewey can run one of {POOLING_MODES}"
        )
    return modes[0], "all" if read.include_prompt else "after_prompt"


def _read_dense(path: Path) -> Dense:
    read = read_file(_DenseFile, path)
    name = read.activation_function
    activation = name.rsplit(".", 1)[-1].lower()
    if not name.startswith("torch.") or activation not in get_args(Activation):
        raise CheckpointError(
            f"{path}: Dense with activation {name!r}; Dewey can run "
            f"{', '.join(get_args(Activation))}"
        )
    values = read.model_dump(include={"in_features", "out_features", "bias"})
    return Dense.parse({**values, "activation": activation}, source=str(path))


def _read_normalize(path: Path) -> Normalize:
    read_file(_StepFile, path, missing_ok=True)
    return Normalize()


STEPS: dict[str, Callable[[Path], Dense | Normalize | None]] = {
    "Dense": _read_dense,
    "Normalize": _read_normalize,
    "Dropout": lambda path: None,  # it does nothing outside training
}
"""Modules that may follow the pooling, by the reader of their config."""


def _read_model_file(path: Path, steps: Sequence[Dense | Normalize | None]) -> Json:
    """Prompts, the default one, and the dimensions that are kept."""
    read = read_file(_ModelFile, path, missing_ok=True)
    prompts = {name: prompt or "" for name, prompt in read.prompts.items()}
    prompts = {"query": "", "document": "", **prompts}
    if read.default_prompt_name is not None and read.default_prompt_name not in prompts:
        raise CheckpointError(
            f"{path}: default_prompt_name {read.default_prompt_name!r} is none of the prompts "
            f"{sorted(prompts)}; add it, or set it to null"
        )
    scaled = not any(isinstance(step, Normalize) for step in steps[-1:])
    if read.similarity_fn_name == "manhattan" or (
        scaled and read.similarity_fn_name in ("dot", "euclidean")
    ):
        warnings.warn(
            f"{path}: similarity_fn_name is {read.similarity_fn_name!r}; Dewey's vectors have unit "
            "length and are compared by their cosine, which may rank otherwise",
            stacklevel=2,
        )
    return {
        "prompts": prompts,
        "default_prompt_name": read.default_prompt_name,
        "truncate_dim": read.truncate_dim,
    }
