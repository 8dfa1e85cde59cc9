"""Forward passes on a GPU: tokens per second and share of the card's peak, beside transformers'.

    python benchmarks/gpu.py                                   # mini, base, large; 512 to 131,072
    python benchmarks/train.py --shape mini base large --lengths 512 2048 8192        # training
    python benchmarks/gpu.py --device cpu --shape mini --lengths 512 --batch-tokens 2048   # a try

Random weights in bfloat16, the same for all engines, and random tokens: as many texts of one length
as `--batch-tokens` hold, at least one. Ours is one packed row, with torch's compiler and without,
transformers' a batch that needs no padding, by each attention that the machine has. Engines take
turns. The share is of what the card does in dense bfloat16, by `train/plan.py`. An engine that
runs out of memory gets no figure.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from encode import SHAPES
from recording import write_page

from dewey_embed.eval.result_page import Cell, Column, Machine, ResultPage, Table
from dewey_embed.model.backbone import Backbone
from dewey_embed.model.engine import hidden_states
from dewey_embed.model.hugging_face import from_hugging_face
from dewey_embed.model.packing import pack
from dewey_embed.train.plan import DEVICES
from dewey_embed.train.shape import Shape

VOCABULARY = 50_368
LENGTHS = (512, 2048, 8192, 32_768, 131_072)
PEERS = ("flash_attention_2", "sdpa")

Pass = Callable[[list[np.ndarray]], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--batch-tokens", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", "-o", type=Path, default=Path("benchmarks/results/gpu.json"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --device cpu tries the script")
    rows: list[tuple[Cell, ...]] = []
    for shape in arguments.shape:
        config = hugging_face_config(shape)
        engines = make_engines(config, arguments.device)
        for length in arguments.lengths:
            texts = batch(length, arguments.batch_tokens)
            rows += measure(shape, config, engines, texts, arguments)
    page = ResultPage(
        kind="speed",
        name="gpu",
        title="Forward passes on a GPU",
        machine=Machine.here(device=arguments.device, dtype="bfloat16"),
        tables=(
            Table(
                title="Tokens a second",
                columns=(
                    Column(name="shape"),
                    Column(name="length", digits=0),
                    Column(name="texts", digits=0),
                    Column(name="engine"),
                    Column(name="tokens a second", best="highest", digits=0),
                    Column(name="share of peak", unit="%", digits=1),
                    Column(name="peak memory", unit="GB", digits=2),
                    Column(name="dewey is", unit="× as fast", digits=2),
                ),
                rows=tuple(rows),
                notes=(f"Median of {arguments.rounds} rounds after two to warm up.",),
            ),
        ),
    )
    write_page(page, arguments.output)


def hugging_face_config(shape: str) -> object:
    from transformers import ModernBertConfig

    special = dict(
        pad_token_id=0, cls_token_id=101, sep_token_id=102, bos_token_id=101, eos_token_id=102
    )
    return ModernBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=131_072, **special, **SHAPES[shape]
    )


def make_engines(config: object, device: str) -> dict[str, Pass]:
    """Ours and every attention of transformers that can be had, with the same weights."""
    from transformers import ModernBertModel

    engines: dict[str, Pass] = {}
    torch.manual_seed(0)
    weights = None
    for attention in PEERS:
        try:
            peer = ModernBertModel._from_config(
                config, attn_implementation=attention, dtype=torch.bfloat16
            )
        except (ImportError, ValueError) as error:
            sys.stderr.write(f"transformers, {attention}: not here ({str(error)[:80]})\n")
            continue
        weights = weights or peer.state_dict()
        peer.load_state_dict(weights)
        engines[f"transformers, {attention}"] = padded(peer.to(device).eval(), device)
    for name in ("dewey, compiled", "dewey"):
        ours = Backbone(from_hugging_face(config.to_dict(), source="gpu.py"))
        ours.load_state_dict(weights)
        ours.bfloat16().to(device).eval()
        if name != "dewey":
            ours.compile_layers()
        engines = {name: partial(packed, ours, device=device), **engines}
    return engines


def packed(backbone: Backbone, texts: list[np.ndarray], *, device: str) -> torch.Tensor:
    return hidden_states(backbone, pack(texts, torch.device(device)))


def padded(model: torch.nn.Module, device: str) -> Pass:
    return lambda texts: model(torch.from_numpy(np.stack(texts)).to(device)).last_hidden_state


def batch(length: int, batch_tokens: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        random.integers(1000, VOCABULARY, length) for _ in range(max(1, batch_tokens // length))
    ]


def measure(
    shape: str,
    config: object,
    engines: dict[str, Pass],
    texts: list[np.ndarray],
    arguments: argparse.Namespace,
) -> list[tuple[Cell, ...]]:
    """A row for each engine, on the same texts."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    memory: dict[str, float | None] = dict.fromkeys(engines)
    failed: set[str] = set()
    for number in range(arguments.rounds + 2):
        for name, run in engines.items():
            if name in failed:
                continue
            try:
                taken, memory[name] = timed(run, texts, arguments.device)
            except torch.OutOfMemoryError:
                failed.add(name)
                sys.stderr.write(f"{shape} {len(texts[0]):,} {name}: out of memory\n")
                continue
            if number >= 2:
                seconds[name].append(taken)
    length, num_tokens = len(texts[0]), sum(map(len, texts))
    backbone = from_hugging_face(config.to_dict(), source="gpu.py")
    flops = Shape(backbone, None).flops_per_token(length) * num_tokens
    peak = peak_flops(arguments.device)
    best = statistics.median(seconds["dewey"]) if seconds["dewey"] else None
    rows: list[tuple[Cell, ...]] = []
    for name, times in seconds.items():
        middle = statistics.median(times) if times else None
        rows.append(
            (
                shape,
                length,
                len(texts),
                name,
                num_tokens / middle if middle else None,
                100 * flops / middle / peak if middle and peak else None,
                memory[name],
                middle / best if middle and best else None,
            )
        )
    return rows


@torch.inference_mode()
def timed(run: Pass, texts: list[np.ndarray], device: str) -> tuple[float, float | None]:
    """Seconds of a pass, and the most memory of the card in it, in GB."""
    if device == "cpu":
        started = time.perf_counter()
        run(texts)
        return time.perf_counter() - started, None
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = time.perf_counter()
    run(texts)
    torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() / 1e9


def peak_flops(device: str) -> float | None:
    """Dense bfloat16 FLOPs a second of the card; `None` for one that is not known."""
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    for known, (teraflops, _) in DEVICES.items():
        if known.split("-")[0].lower() in name.lower().replace(" ", ""):
            return teraflops * 1e12
    return None


if __name__ == "__main__":
    main()
