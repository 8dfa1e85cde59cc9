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

    model = Dewey.load(folder, dtype=dtype)
    kernels(model.dtype, may_build=True)  # once a machine, not once a run
    return lambda texts: np.stack(
        [document.vector for document in model.encode_document(texts, prompt_name=None)]
    )


def transformers(folder: Path, dtype: str, *, chunk_tokens: int | None = None) -> Embed:
    """`ModernBertModel` with scaled_dot_product_attention; its CLS vectors, normalised.

    With `chunk_tokens` it is late chunking as jina-ai's example does it: one text at a time, and
    the mean of the states of every `chunk_tokens` tokens.
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


def openvino(folder: Path, dtype: str) -> Embed:
    """`ModernBertModel` as OpenVINO runs it, one text at a time, so that nothing is padded.

    Sentence Transformers' back end of that name runs the same, but not with this transformers.
    """
    import torch
    from openvino import Core, convert_model
    from transformers import AutoModel, AutoTokenizer

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids, attention_mask).last_hidden_state

    tokenizer = AutoTokenizer.from_pretrained(folder)
    example = dict(tokenizer("A text to trace the model with.", return_tensors="pt"))
    inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
    precision = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    compiled = Core().compile_model(
        convert_model(States(), example_input=inputs), "CPU",
        {"INFERENCE_PRECISION_HINT": precision},
    )  # fmt: skip

    def embed_one(text: str) -> np.ndarray:
        tokens = tokenizer(text, return_tensors="np")
        states = compiled({name: tokens[name] for name in inputs})[0]
        return states[0, 0] / np.linalg.norm(states[0, 0])

    return lambda texts: np.stack([embed_one(text) for text in texts])


SENTENCE_TRANSFORMERS = "sentence-transformers, float32 (its default)"
ONE_DOCUMENT: dict[str, Callable[[Path], Embed]] = {
    "dewey, bfloat16": partial(dewey, dtype="bfloat16"),
    "dewey, float32": partial(dewey, dtype="float32"),
    "transformers, bfloat16": partial(transformers, dtype="bfloat16"),
    "transformers, float32": partial(transformers, dtype="float32"),
    SENTENCE_TRANSFORMERS: partial(sentence_transformers, dtype="float32"),
    "sentence-transformers, bfloat16": partial(sentence_transformers, dtype="bfloat16"),
    "openvino, bfloat16": partial(openvino, dtype="bfloat16"),
    "openvino, float32": partial(openvino, dtype="float32"),
}
CORPUS: dict[str, Callable[[Path], Embed]] = {
    "dewey, bfloat16": partial(dewey, dtype="bfloat16"),
    **{
        f"sentence-transformers, bfloat16, batches of {size}": partial(
            sentence_transformers, dtype="bfloat16", batch_size=size
        )
        for size in (1, 4, 16)
    },
    "openvino, bfloat16": partial(openvino, dtype="bfloat16"),
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
