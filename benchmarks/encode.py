"""Tokens per second and memory of encoding on this machine's CPU: one long document, or a corpus.

    make bench
    python benchmarks/encode.py --shape base --tokens 8192 --rounds 3
    python benchmarks/encode.py --shape mini base --tokens 131072 --only dewey --rounds 1
    python benchmarks/encode.py --shape mini --corpus data/eval --output encode_corpus

Engines take turns on the same real texts with the same random weights; a short text warms each of
them up. The figure is the median of the rounds, and the first text's vector is compared with
Sentence Transformers' float32 one, or the first engine's where that did not run. Results are
written to benchmarks/results/ as JSON, with a table beside them.

docs/data.md says what the data are and how to make them.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from engines import CORPUS, ONE_DOCUMENT, SENTENCE_TRANSFORMERS, Engine
from recording import versions_of_peers, write_rows
from workloads import Workload, corpus, one_document

SHAPES = {
    "mini": dict(
        hidden_size=384, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6
    ),
    "base": dict(
        hidden_size=768, intermediate_size=1152, num_hidden_layers=22, num_attention_heads=12
    ),
    "large": dict(
        hidden_size=1024, intermediate_size=2624, num_hidden_layers=28, num_attention_heads=16
    ),
}
PACKAGES = ("torch", "transformers", "sentence-transformers", "openvino", "dewey-embed")


def main() -> None:
    arguments = parse()
    rows = []
    known = CORPUS if arguments.corpus else ONE_DOCUMENT
    if arguments.corpus:
        workloads = [corpus(arguments.corpus, arguments.per_task)]
    else:
        workloads = [one_document(size) for size in arguments.tokens]
    with tempfile.TemporaryDirectory() as scratch:
        for shape in arguments.shape:
            folder = make_model(shape, Path(scratch) / shape)
            chosen = {n: make for n, make in known.items() if n.startswith(tuple(arguments.only))}
            engines = [Engine(name, make, folder) for name, make in chosen.items()]
            for workload in workloads:
                rows += measure(engines, shape, workload, arguments.rounds)
            for engine in engines:
                engine.close()
    write_rows(arguments.output, rows, to_markdown, packages=PACKAGES)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["mini", "base"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, help="folder of corpora in BEIR's layout, mixed")
    parser.add_argument("--per-task", type=int, default=4, help="documents of each corpus")
    parser.add_argument("--only", nargs="+", default=[""], help="engines whose names begin so")
    parser.add_argument("--output", default="encode", help="name of the result files")
    return parser.parse_args()


def make_model(shape: str, folder: Path) -> Path:
    """A Sentence Transformers folder: ModernBERT with random weights, CLS pooling."""
    import torch
    from transformers import ModernBertConfig, ModernBertModel

    from dewey_embed import Dewey

    torch.manual_seed(0)
    ours = Dewey.load(single_vector="cls")
    ours.save(folder)
    shutil.rmtree(folder / "2_Dense")
    for name in ("dewey.json", "model.safetensors"):
        (folder / name).unlink()
    special = dict(
        pad_token_id=0, cls_token_id=101, sep_token_id=102, bos_token_id=101, eos_token_id=102
    )
    config = ModernBertConfig(
        vocab_size=50368, max_position_embeddings=131_072, **special, **SHAPES[shape]
    )
    ModernBertModel(config).save_pretrained(folder)
    modules = [
        m for m in json.loads((folder / "modules.json").read_text()) if "Dense" not in m["path"]
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = {"embedding_dimension": SHAPES[shape]["hidden_size"], "pooling_mode": "cls"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def measure(engines: list[Engine], shape: str, work: Workload, rounds: int) -> list[dict]:
    """One row an engine: median seconds, spread, tokens per second, memory, agreement."""
    warm_up = one_document(64)
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    vectors, peaks = {}, {}
    for engine in engines:
        engine.run(warm_up.texts)
    for _ in range(rounds):
        for engine in engines:
            taken, (vectors[engine.name], *_), peaks[engine.name] = engine.run(work.texts)
            seconds[engine.name].append(taken)
            sys.stderr.write(f"{shape}, {work.name}, {engine.name}: {taken:.2f} s\n")
    reference = vectors.get(SENTENCE_TRANSFORMERS, next(iter(vectors.values())))
    return [
        {
            "shape": shape,
            "texts": work.name,
            "engine": name,
            "seconds_median": statistics.median(times),
            "seconds": times,
            "tokens_per_second": work.num_tokens / statistics.median(times),
            "documents_per_second": len(work.texts) / statistics.median(times),
            "peak_memory_gb": peaks[name],
            "cosine_to_reference": float(vectors[name] @ reference),
            "relative_difference": float(
                np.linalg.norm(vectors[name] - reference) / np.linalg.norm(reference)
            ),
        }
        for name, times in seconds.items()
    ]


def to_markdown(about: dict, rows: list[dict]) -> str:
    lines = [
        f"`{about['command']}` on {about['cpu']}, {about['cores']} cores, {about['date']}, "
        f"{versions_of_peers(about)}",
        "",
        "| shape | texts | engine | seconds | tokens/s | Dewey bf16 is | peak GB | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ours = {
        (row["shape"], row["texts"]): row["seconds_median"]
        for row in rows
        if row["engine"] == "dewey, bfloat16"
    }
    for row in rows:
        ratio = row["seconds_median"] / ours[row["shape"], row["texts"]]
        lines.append(
            f"| {row['shape']} | {row['texts']} | {row['engine']} "
            f"| {row['seconds_median']:.2f} | {row['tokens_per_second']:,.0f} "
            f"| {ratio:.2f}× as fast | {row['peak_memory_gb']:.1f} "
            f"| {row['relative_difference']:.4f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
