"""The engines that `encode.py` compares, each alone in a process of its own.

All load the same folder (random weights, a real tokenizer) and embed the same texts. An engine's
process answers one request at a time, so that engines can take turns while each one's peak of
memory stays its own.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

Embed = Callable[[list[str]], np.ndarray]


def dewey(folder: Path, dtype: str) -> Embed:
    """Ours, with a vector for every chunk besides the document's."""
    from dewey_embed import Dewey
    from dewey_embed.model.native.kernels import kernels

    kernels(may_build=True)  # once a machine, not once a run
    model = Dewey.load(folder, dtype=dtype)
    return lambda texts: np.stack(
        [document.vector for document in model.encode_document(texts, prompt_name=None)]
    )


def transformers(folder: Path, dtype: str, *, chunk_tokens: int | None = None) -> Embed:
    """`ModernBertModel` with scaled_dot_product_attention; its CLS vectors, normalised.

    With `chunk_tokens` it is late chunking as jina-ai's example does it: one text at a time, and
    the mean of the states of so many tokens for every chunk.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()

    @torch.inference_mode()
    def embed_one(text: str) -> np.ndarray:
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        if chunk_tokens:
            torch.stack([part.mean(0) for part in states[1:-1].split(chunk_tokens)])
        return torch.nn.functional.normalize(states[0].float(), dim=0).numpy()

    return lambda texts: np.stack([embed_one(text) for text in texts])


def sentence_transformers(folder: Path, dtype: str, *, batch_size: int = 32) -> Embed:
    """Sentence Transformers as it comes; it sorts texts by length."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
    )
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False)


SENTENCE_TRANSFORMERS = "sentence-transformers, float32 (its default)"
ONE_DOCUMENT: dict[str, Callable[[Path], Embed]] = {
    "dewey, bfloat16": partial(dewey, dtype="bfloat16"),
    "dewey, float32": partial(dewey, dtype="float32"),
    "transformers, bfloat16": partial(transformers, dtype="bfloat16"),
    "transformers, float32": partial(transformers, dtype="float32"),
    SENTENCE_TRANSFORMERS: partial(sentence_transformers, dtype="float32"),
    "sentence-transformers, bfloat16": partial(sentence_transformers, dtype="bfloat16"),
}
CORPUS: dict[str, Callable[[Path], Embed]] = {
    "dewey, bfloat16": partial(dewey, dtype="bfloat16"),
    **{
        f"sentence-transformers, bfloat16, batches of {size}": partial(
            sentence_transformers, dtype="bfloat16", batch_size=size
        )
        for size in (1, 4, 16)
    },
    "late chunking, bfloat16": partial(transformers, dtype="bfloat16", chunk_tokens=128),
}
"""Batches of 32, Sentence Transformers' default, are padded to more than 24 GB can hold."""


class Engine:
    """An engine in its own process."""

    def __init__(self, name: str, make: Callable[[Path], Embed], folder: Path) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, folder, other), daemon=True)
        self._process.start()

    def run(self, texts: list[str]) -> tuple[float, np.ndarray, float]:
        """Seconds, the vectors (N, D), and the process's peak memory so far in GB."""
        self._pipe.send(texts)
        seconds, vectors, peak_gb = self._pipe.recv()
        return seconds, vectors, peak_gb

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _serve(make: Callable[[Path], Embed], folder: Path, pipe: Connection) -> None:
    embed = make(folder)
    while (texts := pipe.recv()) is not None:
        started = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - started
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        pipe.send((seconds, np.asarray(vectors, np.float32), peak_gb))
