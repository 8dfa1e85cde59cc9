"""Training tokens per second on this machine: our packed step against transformers' padded one.

    python benchmarks/train.py
    python benchmarks/train.py --shape mini --lengths mixed 512 2048 --rounds 5

Both train the same random weights in mixed precision by the same loss: one minus the cosine of
every text's mean of token states to a random target, StableAdamW, batches of 16 texts. `mixed` are
the lengths of recipes/mini.toml's crops: 48, 128, 512 and 2,048 tokens. `dewey` is the step of
`dewey train`: on a CPU compiled, with kernels for attention where there are some, `dewey in int8`
that of `training.precision = "int8"`; all keep freed memory as `dewey train` does. `transformers`
pads to the longest text of a batch and groups nothing, as its collators do. Engines take turns; the
figure is the median of the rounds. Only tokens of texts are counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from encode import SHAPES
from recording import write_page

from dewey_embed.config import BackboneConfig, layer_pattern
from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.model.backbone import Backbone
from dewey_embed.model.engine import hidden_states, train_in_int8, train_with_kernels
from dewey_embed.model.packing import pack
from dewey_embed.model.pooling import RunningSums
from dewey_embed.train.memory import kept_memory

VOCABULARY = 30_522
BATCH = 16
MIXED = {48: 0.15, 128: 0.10, 512: 0.65, 2048: 0.10}

Step = Callable[[Sequence[np.ndarray], torch.Tensor], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["mini"])
    parser.add_argument("--lengths", nargs="+", default=["mixed", "512", "2048"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", "-o", type=Path, default=Path("benchmarks/results/train.json"))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[tuple[Cell, ...]] = []
    with kept_memory():
        for shape in arguments.shape:
            steps = engines(shape, device)
            for lengths in arguments.lengths:
                rows += measure(shape, lengths, steps, arguments.rounds)
    page = ResultPage(
        kind="speed",
        name="train",
        title="Training steps, packed against padded",
        machine=Machine.here(device=device, dtype="bfloat16 autocast"),
        tables=(
            Table(
                title="Tokens of texts per second",
                columns=(
                    Column(name="shape"),
                    Column(name="lengths"),
                    Column(name="engine"),
                    Column(name="seconds a step", unit="s", best="lowest", digits=3),
                    Column(name="tokens a second", best="highest", digits=0),
                    Column(name="dewey is", unit="× as fast", digits=2),
                ),
                rows=tuple(rows),
                notes=(f"Median of {arguments.rounds} rounds after one to warm up.",),
            ),
        ),
    )
    write_page(page, arguments.output)


def engines(shape: str, device: str) -> dict[str, Step]:
    """A step of each engine, from the same kind of random weights; `dewey` is the first."""
    steps = {"dewey": packed_step(shape, device)}
    if device == "cpu" and train_with_kernels(Backbone(config_of(shape))):
        steps["dewey in int8"] = packed_step(shape, device, int8=True)
        steps["dewey without kernels"] = packed_step(shape, device, kernels=False)
    return steps | {"transformers": padded_step(shape, device)}


def config_of(shape: str) -> BackboneConfig:
    """A backbone of this shape over the mini's vocabulary."""
    sizes = SHAPES[shape]
    return BackboneConfig(
        vocab_size=VOCABULARY, layer_types=layer_pattern(sizes["num_hidden_layers"], 3),
        max_position_embeddings=131_072, global_rope_theta=160_000.0, local_rope_theta=10_000.0,
        local_attention=128, cls_token_id=101, sep_token_id=102, pad_token_id=0,
        **sizes,
    )  # fmt: skip


def packed_step(shape: str, device: str, *, kernels: bool = True, int8: bool = False) -> Step:
    """Ours: one packed row a batch."""
    config = config_of(shape)
    torch.manual_seed(0)
    backbone = Backbone(config).to(device).train()
    if device == "cpu":
        backbone.compile_layers()
        if kernels:
            train_with_kernels(backbone)
        if int8:
            train_in_int8(backbone)

    def forward(texts: Sequence[np.ndarray]) -> torch.Tensor:
        packed = pack(texts, device)
        states = hidden_states(backbone, packed)
        starts = torch.from_numpy(packed.starts).to(device)
        ends = starts + torch.tensor([len(text) for text in texts], device=device)
        with torch.autocast(device, enabled=False):
            return RunningSums(states).means(starts, ends)

    return training_step(backbone, forward, device)


def padded_step(shape: str, device: str) -> Step:
    """Transformers' `ModernBertModel` with scaled_dot_product_attention, padded."""
    from transformers import ModernBertConfig, ModernBertModel

    special = dict(
        pad_token_id=0, cls_token_id=101, sep_token_id=102, bos_token_id=101, eos_token_id=102
    )
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=131_072, **special, **SHAPES[shape]
    )
    model = ModernBertModel._from_config(config, attn_implementation="sdpa").to(device).train()

    def forward(texts: Sequence[np.ndarray]) -> torch.Tensor:
        longest = max(len(text) for text in texts)
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.from_numpy(text)
            mask[row, : len(text)] = 1
        ids, mask = ids.to(device), mask.to(device)
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None]
        return (states.float() * weights).sum(1) / weights.sum(1)

    return training_step(model, forward, device)


def training_step(
    module: torch.nn.Module,
    forward: Callable[[Sequence[np.ndarray]], torch.Tensor],
    device: str,
) -> Step:
    """Seconds of one step: forward, loss, backward, optimiser."""
    from optimi import StableAdamW

    optimizer = StableAdamW(module.parameters(), lr=1e-4)

    def step(texts: Sequence[np.ndarray], targets: torch.Tensor) -> float:
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            means = forward(texts)
        loss = (1 - torch.cosine_similarity(means, targets.to(device), dim=-1)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for a GPU
        return time.perf_counter() - started

    return step


def measure(shape: str, lengths: str, steps: dict[str, Step], rounds: int) -> list[tuple]:
    """A row for each engine: all train on the same batches, in turn."""
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    tokens: list[int] = []
    for number in range(rounds + 1):
        texts = batch(lengths, random)
        targets = torch.from_numpy(
            random.standard_normal((BATCH, SHAPES[shape]["hidden_size"])).astype(np.float32)
        )
        tokens.append(sum(len(text) for text in texts))
        for name, step in steps.items():
            taken = step(texts, targets)
            if number:  # the first warms up, and compiles
                seconds[name].append(taken / tokens[-1])
            sys.stderr.write(f"{shape} {lengths} {name}: {taken:.2f} s\n")
    typical = statistics.median(tokens[1:])
    best = statistics.median(seconds["dewey"])
    return [
        (
            shape,
            lengths,
            name,
            statistics.median(times) * typical,
            1 / statistics.median(times),
            statistics.median(times) / best,
        )
        for name, times in seconds.items()
    ]


def batch(lengths: str, random: np.random.Generator) -> list[np.ndarray]:
    """Random tokens of 16 texts, of one length or of the recipe's mix."""
    if lengths == "mixed":
        sizes = random.choice(list(MIXED), size=BATCH, p=list(MIXED.values()))
    else:
        sizes = np.full(BATCH, int(lengths))
    return [random.integers(1000, VOCABULARY, size) for size in sizes]


if __name__ == "__main__":
    main()
