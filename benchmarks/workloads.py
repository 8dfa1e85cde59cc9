"""Texts that benchmarks encode: one document of a given length, or many of many lengths."""

import json
import pydoc_data.topics
import random
from dataclasses import dataclass
from pathlib import Path

from dewey_embed import Dewey


@dataclass(frozen=True)
class Workload:
    """Texts to embed together, and how many tokens they have, CLS and SEP included."""

    name: str
    texts: list[str]
    num_tokens: int


def one_document(num_tokens: int) -> Workload:
    """The Python language reference, repeated, cut to `num_tokens` with CLS and SEP."""
    tokenizer = Dewey.load().tokenizer
    text = "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    tokens = tokenizer.encode([text])[0]
    while len(tokens) < num_tokens:
        text += "\n\n" + text
        tokens = tokenizer.encode([text])[0]
    cut = text[: tokens.offsets[num_tokens - 3, 1]]
    return Workload(f"{num_tokens:,} tokens", [cut], num_tokens)


def corpus(folder: Path, per_task: int) -> Workload:
    """`per_task` documents of every task in BEIR's layout under `folder`, drawn by a fixed seed."""
    texts: list[str] = []
    tasks = sorted(folder.glob("*/corpus.jsonl"))
    for path in tasks:
        lines = path.read_text(encoding="utf-8").splitlines()
        drawn = random.Random(20).sample(lines, per_task)
        texts += [json.loads(line)["text"] for line in drawn]
    sizes = [len(tokens) + 2 for tokens in Dewey.load().tokenizer.encode(texts)]
    name = (
        f"{len(texts)} documents of {len(tasks)} corpora, "
        f"{min(sizes):,} to {max(sizes):,} tokens, median {sorted(sizes)[len(sizes) // 2]:,}"
    )
    return Workload(name, texts, sum(sizes))
